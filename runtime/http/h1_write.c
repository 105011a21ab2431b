#include "http/conn.h"

static void put(outr_bufq *out, outr_str s)
{
    outr_bufq_copy(out, s.p, s.n);
}

static void put_z(outr_bufq *out, const char *z)
{
    outr_bufq_copy(out, z, strlen(z));
}

#define NAME_MAX_CANONICAL 64

/* HTTP/2 names come in lower case; HTTP/1 peers of a Go proxy are used to Canonical-Case. */
static void put_name(outr_bufq *out, outr_str name)
{
    char text[NAME_MAX_CANONICAL];
    bool starts_word = true;
    for (size_t i = 0; i < name.n; i++) {
        if (i == sizeof text || (name.p[i] >= 'A' && name.p[i] <= 'Z')) {
            put(out, name);
            return;
        }
        bool is_lower = name.p[i] >= 'a' && name.p[i] <= 'z';
        text[i] = starts_word && is_lower ? (char)(name.p[i] - 32) : name.p[i];
        starts_word = name.p[i] == '-';
    }
    outr_bufq_copy(out, text, name.n);
}

void outr__h1_write_headers(outr_bufq *out, const outr_headers *headers)
{
    for (size_t i = 0; i < headers->count; i++) {
        put_name(out, headers->items[i].name);
        outr_bufq_copy(out, ": ", 2);
        put(out, headers->items[i].value);
        outr_bufq_copy(out, "\r\n", 2);
    }
}

static void put_length(outr_bufq *out, int64_t length)
{
    char text[48];
    int n = snprintf(text, sizeof text, "Content-Length: %lld\r\n", (long long)length);
    outr_bufq_copy(out, text, (size_t)n);
}

void outr__h1_write_response(outr_bufq *out, const outr_http_response *head, outr_str date, const char *connection,
                             bool is_chunked, bool has_length)
{
    char line[64];
    int n = snprintf(line, sizeof line, "HTTP/1.1 %d %s\r\n", head->status, outr_http_status_text(head->status));
    outr_bufq_copy(out, line, (size_t)n);
    outr__h1_write_headers(out, &head->headers);
    if (date.n && !outr_headers_has(&head->headers, "Date")) {
        put_z(out, "Date: ");
        put(out, date);
        put_z(out, "\r\n");
    }
    if (has_length)
        put_length(out, head->content_length);
    if (is_chunked)
        put_z(out, "Transfer-Encoding: chunked\r\n");
    if (connection) {
        put_z(out, "Connection: ");
        put_z(out, connection);
        put_z(out, "\r\n");
    }
    put_z(out, "\r\n");
}

void outr__h1_write_request(outr_bufq *out, const outr_http_request *req, bool is_chunked, bool has_body)
{
    put(out, req->method);
    put_z(out, " ");
    put(out, req->target);
    put_z(out, " HTTP/1.1\r\nHost: ");
    put(out, req->authority);
    put_z(out, "\r\n");
    outr__h1_write_headers(out, &req->headers);
    if (is_chunked)
        put_z(out, "Transfer-Encoding: chunked\r\n");
    else if (has_body || req->content_length == 0)
        put_length(out, OUTR_MAX(req->content_length, 0));
    if (req->upgrade.n) {
        put_z(out, "Connection: Upgrade\r\nUpgrade: ");
        put(out, req->upgrade);
        put_z(out, "\r\n");
    }
    put_z(out, "\r\n");
}

void outr__h1_write_chunk_head(outr_bufq *out, size_t n)
{
    char text[24];
    int length = snprintf(text, sizeof text, "%zx\r\n", n);
    outr_bufq_copy(out, text, (size_t)length);
}

void outr__h1_write_last_chunk(outr_bufq *out, const outr_headers *trailers)
{
    put_z(out, "0\r\n");
    if (trailers)
        outr__h1_write_headers(out, trailers);
    put_z(out, "\r\n");
}
