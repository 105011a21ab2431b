#include "http/conn.h"

#define COPY_BELOW 2048

/* Many small pieces become few copies into the queue. */
typedef struct writer {
    outr_bufq *out;
    size_t n;
    char bytes[2048];
} writer;

static void spill(writer *w)
{
    outr_bufq_copy(w->out, w->bytes, w->n);
    w->n = 0;
}

static void put(writer *w, outr_str s)
{
    if (s.n > sizeof w->bytes - w->n)
        spill(w);
    if (s.n > sizeof w->bytes) {
        outr_bufq_copy(w->out, s.p, s.n);
        return;
    }
    if (s.n > 0)
        memcpy(w->bytes + w->n, s.p, s.n);
    w->n += s.n;
}

static void put_z(writer *w, const char *z)
{
    put(w, outr_str_from(z));
}

static void put_number(writer *w, uint64_t value)
{
    char text[20];
    put(w, outr_str_decimal(text, value));
}

static bool has_capital(outr_str s)
{
    unsigned found = 0;
    for (size_t i = 0; i < s.n; i++)
        found |= (unsigned char)(s.p[i] - 'A') < 26;
    return found;
}

/* HTTP/2 names come in lower case; HTTP/1 peers of a Go proxy are used to Canonical-Case. One that
 * has a capital came from HTTP/1 and stays as it is. */
static void put_name(writer *w, outr_str name)
{
    if (name.n > sizeof w->bytes - w->n)
        spill(w);
    if (name.n == 0 || name.n > sizeof w->bytes || has_capital(name)) {
        put(w, name);
        return;
    }
    char *text = w->bytes + w->n, *word = text;
    memcpy(text, name.p, name.n);
    w->n += name.n;
    while (word) {
        *word = (unsigned char)(*word - 'a') < 26 ? (char)(*word - 32) : *word;
        word = memchr(word, '-', name.n - (size_t)(word - text));
        word = word && ++word < text + name.n ? word : NULL;
    }
}

static void put_header(writer *w, outr_str name, outr_str value)
{
    put_name(w, name);
    put(w, OUTR_STR(": "));
    put(w, value);
    put(w, OUTR_STR("\r\n"));
}

static void put_headers(writer *w, const outr_headers *headers)
{
    for (size_t i = 0; i < headers->count; i++) {
        const outr_header *h = &headers->items[i];
        if (!outr__header_is_own(h->name) && outr_header_name_is_valid(h->name))
            put_header(w, h->name, outr__header_value_clean(headers->arena, h->value));
    }
}

static void put_frame(writer *w, const outr__h1_frame *frame)
{
    if (frame->is_chunked) {
        put(w, OUTR_STR("Transfer-Encoding: chunked\r\n"));
    } else if (frame->has_length) {
        put(w, OUTR_STR("Content-Length: "));
        put_number(w, (uint64_t)frame->length);
        put(w, OUTR_STR("\r\n"));
    }
    if (frame->connection)
        put_header(w, OUTR_STR("Connection"), outr_str_from(frame->connection));
    if (frame->upgrade.n > 0)
        put_header(w, OUTR_STR("Upgrade"), frame->upgrade);
    put(w, OUTR_STR("\r\n"));
}

void outr__h1_write_response(outr_bufq *out, const outr_http_response *head,
                             const outr__h1_frame *frame)
{
    writer w;
    w.out = out;
    w.n = 0;
    put(&w, OUTR_STR("HTTP/1.1 "));
    put_number(&w, (uint64_t)head->status);
    put(&w, OUTR_STR(" "));
    put_z(&w, outr_http_status_text(head->status));
    put(&w, OUTR_STR("\r\n"));
    put_headers(&w, &head->headers);
    if (frame->date.n > 0 && !outr_headers_has(&head->headers, "Date"))
        put_header(&w, OUTR_STR("Date"), frame->date);
    put_frame(&w, frame);
    spill(&w);
}

void outr__h1_write_request(outr_bufq *out, const outr_http_request *req,
                            const outr__h1_frame *frame)
{
    writer w;
    w.out = out;
    w.n = 0;
    put(&w, req->method);
    put(&w, OUTR_STR(" "));
    put(&w, req->target);
    put(&w, OUTR_STR(" HTTP/1.1\r\nHost: "));
    put(&w, req->authority);
    put(&w, OUTR_STR("\r\n"));
    put_headers(&w, &req->headers);
    put_frame(&w, frame);
    spill(&w);
}

static void put_chunk_head(outr_bufq *out, size_t n)
{
    char text[24];
    int length = snprintf(text, sizeof text, "%zx\r\n", n);
    outr_bufq_copy(out, text, (size_t)length);
}

void outr__h1_write_last_chunk(outr_bufq *out, const outr_headers *trailers)
{
    writer w;
    w.out = out;
    w.n = 0;
    put(&w, OUTR_STR("0\r\n"));
    if (trailers)
        put_headers(&w, trailers);
    put(&w, OUTR_STR("\r\n"));
    spill(&w);
}

void outr__h1_write_piece(outr_bufq *out, outr_slice own_slice, bool is_chunked)
{
    if (own_slice.n == 0) { /* an empty chunk would be the last one */
        outr_slice_done(&own_slice);
        return;
    }
    if (is_chunked)
        put_chunk_head(out, own_slice.n);
    if (own_slice.n < COPY_BELOW || !own_slice.chunk) {
        outr_bufq_copy(out, own_slice.p, own_slice.n);
        outr_slice_done(&own_slice);
    } else {
        outr_bufq_push(out, own_slice);
    }
    if (is_chunked)
        outr_bufq_copy(out, "\r\n", 2);
}
