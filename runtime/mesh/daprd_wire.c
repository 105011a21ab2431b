#include "mesh/daprd_wire.h"

#include "base/buf.h"
#include "base/encode.h"
#include "grpc/status.h"

#define PREFIX_LEN 5 /* compressed flag, length */
#define HEAD_MAX   (4 * OUTR_MIB)

/* Tags: field number and wire type (protobuf, encoding). */
#define BYTES_FIELD(number)  (char)((number) << 3 | 2)
#define VARINT_FIELD(number) (char)((number) << 3)

/* ---- reading a piece ------------------------------------------------------------------------- */

static bool read_varint(outr_str *s, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 10 && i < s->n; i++) {
        unsigned char c = (unsigned char)s->p[i];
        value |= (uint64_t)(c & 0x7f) << (7 * i);
        if (c < 0x80) {
            *s = outr_str_skip(*s, i + 1);
            *out = value;
            return true;
        }
    }
    return false;
}

typedef struct field {
    uint64_t number, value;
    outr_str bytes;
    bool is_bytes;
} field;

static bool read_field(outr_str *s, field *f)
{
    uint64_t tag, n;
    if (!read_varint(s, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
        return false;
    *f = (field){.number = tag >> 3};
    switch (tag & 7) {
    case 0:
        return read_varint(s, &f->value);
    case 1:
        n = 8;
        break;
    case 2:
        if (!read_varint(s, &n))
            return false;
        f->is_bytes = true;
        break;
    case 5:
        n = 4;
        break;
    default:
        return false; /* groups are not of this wire */
    }
    if (n > s->n)
        return false;
    f->bytes = outr_str_head(*s, (size_t)n);
    *s = outr_str_skip(*s, (size_t)n);
    return true;
}

static bool read_payload(outr__daprd_piece *out, outr_str s)
{
    field f;
    while (s.n > 0) {
        if (!read_field(&s, &f))
            return false;
        if (f.number == 1 && f.is_bytes)
            out->data = f.bytes;
        else if (f.number == 2 && !f.is_bytes && !f.bytes.p)
            out->seq = f.value;
    }
    return true;
}

bool outr__daprd_piece_read(outr__daprd_piece *out, outr_str s)
{
    field f;
    *out = (outr__daprd_piece){0};
    while (s.n > 0) {
        if (!read_field(&s, &f))
            return false;
        if (!f.is_bytes || f.number > 2)
            continue;
        bool *has = f.number == 1 ? &out->has_head : &out->has_payload;
        if (*has)
            return false; /* nobody splits a field in two */
        *has = true;
        if (f.number == 1)
            out->head = f.bytes;
        else if (!read_payload(out, f.bytes))
            return false;
    }
    return true;
}

/* ---- writing pieces -------------------------------------------------------------------------- */

static size_t varint_len(uint64_t value)
{
    size_t n = 1;
    while (value >= 0x80) {
        value >>= 7;
        n++;
    }
    return n;
}

static char *put_varint(char *p, uint64_t value)
{
    while (value >= 0x80) {
        *p++ = (char)(unsigned char)(value | 0x80);
        value >>= 7;
    }
    *p++ = (char)value;
    return p;
}

static size_t bytes_len(size_t n)
{
    return 1 + varint_len(n) + n;
}

static char *put_bytes(char *p, int number, outr_str bytes)
{
    *p++ = BYTES_FIELD(number);
    p = put_varint(p, bytes.n);
    if (bytes.n > 0)
        memcpy(p, bytes.p, bytes.n);
    return p + bytes.n;
}

static void put_prefix(char *p, size_t n)
{
    p[0] = 0;
    for (int i = 0; i < 4; i++)
        p[1 + i] = (char)(unsigned char)(n >> (24 - 8 * i));
}

static size_t payload_len(size_t n, uint64_t seq)
{
    return bytes_len(n) + (seq ? 1 + varint_len(seq) : 0);
}

static size_t frame_len(const outr_str *head, size_t n, uint64_t seq)
{
    return PREFIX_LEN + (head ? bytes_len(head->n) : 0) + (n ? bytes_len(payload_len(n, seq)) : 0);
}

static char *put_frame(char *p, const outr_str *head, outr_str bytes, uint64_t seq)
{
    put_prefix(p, frame_len(head, bytes.n, seq) - PREFIX_LEN);
    p += PREFIX_LEN;
    if (head)
        p = put_bytes(p, 1, *head);
    if (bytes.n == 0)
        return p;
    *p++ = BYTES_FIELD(2);
    p = put_varint(p, payload_len(bytes.n, seq));
    p = put_bytes(p, 1, bytes);
    if (seq) {
        *p++ = VARINT_FIELD(2);
        p = put_varint(p, seq);
    }
    return p;
}

outr_slice outr__daprd_frames(const outr_str *head, outr_str bytes, uint64_t *seq, bool marks)
{
    static const outr_str empty = {"", 0};
    const outr_str *other = marks ? &empty : NULL, *this = head ? head : other;
    size_t n = 0;
    uint64_t at = *seq;
    for (size_t done = 0; done < bytes.n; done += OUTR__PIECE_MAX, this = other)
        n += frame_len(this, OUTR_MIN(bytes.n - done, (size_t)OUTR__PIECE_MAX), at++);
    if (bytes.n == 0)
        n = frame_len(head, 0, 0);
    outr_chunk *chunk = outr_chunk_new(n);
    char *p = chunk->bytes;
    if (bytes.n == 0)
        put_frame(p, head, bytes, 0);
    this = head ? head : other;
    for (; bytes.n > 0; bytes = outr_str_skip(bytes, OUTR__PIECE_MAX), this = other)
        p = put_frame(p, this, outr_str_head(bytes, OUTR__PIECE_MAX), (*seq)++);
    return (outr_slice){chunk, chunk->bytes, n};
}

/* ---- writing heads --------------------------------------------------------------------------- */

static void add_varint(outr_buf *out, int number, uint64_t value)
{
    char scratch[11];
    scratch[0] = VARINT_FIELD(number);
    if (value)
        outr_buf_append(out, scratch, (size_t)(put_varint(scratch + 1, value) - scratch));
}

static void add_start(outr_buf *out, int number, size_t n)
{
    char scratch[11];
    scratch[0] = BYTES_FIELD(number);
    outr_buf_append(out, scratch, (size_t)(put_varint(scratch + 1, n) - scratch));
}

static void add_bytes(outr_buf *out, int number, outr_str bytes)
{
    add_start(out, number, bytes.n);
    outr_buf_str(out, bytes);
}

/* proto3: what is empty is not written. */
static void add_text(outr_buf *out, int number, outr_str text)
{
    if (text.n > 0)
        add_bytes(out, number, text);
}

static bool is_same_name(const outr_header *a, const outr_header *b)
{
    return outr_str_eq(a->name, b->name);
}

/* One entry of the map: every value that stands under the name of header i. */
static void add_entry(outr_buf *out, int number, const outr_headers *h, size_t i)
{
    size_t values = 0;
    for (size_t k = i; k < h->count; k++) {
        if (is_same_name(&h->items[k], &h->items[i]))
            values += bytes_len(h->items[k].value.n);
    }
    add_start(out, number, bytes_len(h->items[i].name.n) + bytes_len(values));
    add_bytes(out, 1, h->items[i].name);
    add_start(out, 2, values);
    for (size_t k = i; k < h->count; k++) {
        if (is_same_name(&h->items[k], &h->items[i]))
            add_bytes(out, 1, h->items[k].value);
    }
}

static void add_map(outr_buf *out, int number, const outr_headers *h)
{
    for (size_t i = 0; h && i < h->count; i++) {
        bool was_there = false;
        for (size_t k = 0; k < i && !was_there; k++)
            was_there = is_same_name(&h->items[k], &h->items[i]);
        if (!was_there)
            add_entry(out, number, h, i);
    }
}

static outr_code check_text(outr_str text, outr_err *err)
{
    if (outr_str_is_utf8(text) && (text.n == 0 || !memchr(text.p, 0, text.n)))
        return OUTR_OK;
    return outr_fail(err, OUTR_INTERNAL,
                     "error sending message: rpc error: code = Internal desc = grpc: error while "
                     "marshaling: string field contains invalid UTF-8");
}

static outr_code check_headers(const outr_headers *h, outr_err *err)
{
    outr_code rc = OUTR_OK;
    for (size_t i = 0; h && i < h->count && !rc; i++) {
        rc = check_text(h->items[i].name, err);
        rc = rc ? rc : check_text(h->items[i].value, err);
    }
    return rc;
}

static outr_code finish(outr_str *out, outr_arena *arena, outr_buf *buf, outr_err *err)
{
    outr_code rc = buf->is_full ? outr_fail(err, OUTR_RESOURCE_EXHAUSTED,
                                            "the head of the call is larger than 4 MiB")
                                : OUTR_OK;
    if (!rc)
        *out = outr_arena_str(arena, outr_buf_view(buf));
    outr_buf_done(buf);
    return rc;
}

/* common.v1.InvokeRequest but for its data. */
static void add_invoke(outr_buf *out, const outr__daprd_request *r)
{
    OUTR_AUTO(outr_buf) extension = OUTR_BUF_MAX(HEAD_MAX);
    add_text(out, 1, r->method);
    add_text(out, 3, r->content_type);
    if (!r->verb.p)
        return;
    add_varint(&extension, 1, (uint64_t)OUTR_MAX(outr__daprd_verb(r->verb), 0));
    add_text(&extension, 2, r->query);
    out->is_full |= extension.is_full;
    add_bytes(out, 4, outr_buf_view(&extension));
}

static outr_code check_request(const outr__daprd_request *r, outr_err *err)
{
    outr_code rc = check_headers(r->metadata, err);
    rc = rc ? rc : check_text(r->method, err);
    rc = rc ? rc : check_text(r->query, err);
    rc = rc ? rc : check_text(r->content_type, err);
    return rc ? rc : check_text(r->type_url, err);
}

outr_code outr__daprd_request_write(outr_str *out, outr_arena *arena, const outr__daprd_request *r,
                                    outr_err *err)
{
    OUTR_AUTO(outr_buf) message = OUTR_BUF_MAX(HEAD_MAX);
    OUTR_AUTO(outr_buf) any = OUTR_BUF_MAX(HEAD_MAX);
    outr_buf buf = OUTR_BUF_MAX(HEAD_MAX);
    outr_code rc = check_request(r, err);
    if (rc)
        return rc;
    add_varint(&buf, 1, 1); /* V1 */
    add_map(&buf, 2, r->metadata);
    add_invoke(&message, r);
    add_text(&any, 1, r->type_url);
    if (r->has_data)
        add_bytes(&message, 2, outr_buf_view(&any));
    add_bytes(&buf, 3, outr_buf_view(&message));
    buf.is_full |= message.is_full;
    return finish(out, arena, &buf, err);
}

outr_code outr__daprd_unary_start(outr_str *out, outr_arena *arena, const outr__daprd_request *r,
                                  size_t n, outr_err *err)
{
    OUTR_AUTO(outr_buf) message = OUTR_BUF_MAX(HEAD_MAX);
    OUTR_AUTO(outr_buf) any = OUTR_BUF_MAX(HEAD_MAX);
    outr_buf buf = OUTR_BUF_MAX(HEAD_MAX);
    char prefix[PREFIX_LEN] = {0};
    outr_code rc = check_request(r, err);
    if (rc)
        return rc;
    outr_buf_append(&buf, prefix, sizeof prefix);
    add_varint(&buf, 1, 1);
    add_map(&buf, 2, r->metadata);
    add_invoke(&message, r);
    add_text(&any, 1, r->type_url);
    if (n > 0)
        add_start(&any, 2, n);
    add_start(&message, 2, any.n + n);
    outr_buf_str(&message, outr_buf_view(&any));
    add_start(&buf, 3, message.n + n);
    outr_buf_str(&buf, outr_buf_view(&message));
    buf.is_full |= message.is_full;
    if (!buf.is_full)
        put_prefix(buf.p, buf.n - PREFIX_LEN + n);
    return finish(out, arena, &buf, err);
}

/* google.rpc.Status and internals.v1.Status number their details alike. */
static void add_details(outr_buf *out, outr_str rpc_status)
{
    field f;
    while (rpc_status.n > 0 && read_field(&rpc_status, &f)) {
        if (f.number == 3 && f.is_bytes)
            add_bytes(out, 3, f.bytes);
    }
}

outr_code outr__daprd_answer_write(outr_str *out, outr_arena *arena, const outr__daprd_answer *a,
                                   outr_err *err)
{
    OUTR_AUTO(outr_buf) status = OUTR_BUF_MAX(HEAD_MAX);
    OUTR_AUTO(outr_buf) message = OUTR_BUF_MAX(SIZE_MAX);
    OUTR_AUTO(outr_buf) any = OUTR_BUF_MAX(HEAD_MAX);
    outr_buf buf = OUTR_BUF_MAX(SIZE_MAX);
    outr_code rc = check_headers(a->headers, err);
    rc = rc ? rc : check_headers(a->trailers, err);
    rc = rc ? rc : check_text(a->status.message, err);
    rc = rc ? rc : check_text(a->content_type, err);
    if (rc)
        return rc;
    add_varint(&status, 1, (uint64_t)a->status.code);
    add_text(&status, 2, a->status.message);
    add_details(&status, a->status.details);
    add_bytes(&buf, 1, outr_buf_view(&status));
    add_map(&buf, 2, a->headers);
    add_map(&buf, 3, a->trailers);
    add_text(&any, 1, a->type_url);
    if (a->data.n > 0)
        add_start(&any, 2, a->data.n);
    if (a->has_data) {
        add_start(&message, 1, any.n + a->data.n);
        outr_buf_str(&message, outr_buf_view(&any));
        outr_buf_str(&message, a->data);
    }
    add_text(&message, 2, a->content_type);
    if (a->has_message)
        add_bytes(&buf, 4, outr_buf_view(&message));
    return finish(out, arena, &buf, err);
}

/* ---- names and numbers ----------------------------------------------------------------------- */

static char canonical_char(char c, bool is_first)
{
    if (is_first && c >= 'a' && c <= 'z')
        return (char)(c - 'a' + 'A');
    if (!is_first && c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    return c;
}

outr_str outr__daprd_canonical(outr_arena *arena, outr_str name)
{
    char *copy = NULL;
    bool is_first = true;
    if (!outr_header_name_is_valid(name))
        return name;
    for (size_t i = 0; i < name.n; i++) {
        char c = canonical_char(name.p[i], is_first);
        is_first = c == '-';
        if (c == name.p[i])
            continue;
        if (!copy)
            copy = outr_arena_strz(arena, name);
        copy[i] = c;
    }
    return copy ? outr_str_of(copy, name.n) : name;
}

outr_str outr__daprd_pad(outr_arena *arena, outr_str value)
{
    size_t n = (4 - value.n % 4) % 4;
    return n == 1 || n == 2 ? outr_arena_join(arena, value, outr_str_of("==", n), OUTR_STR_NONE)
                            : value;
}

outr_str outr__daprd_trace_bin(outr_arena *arena, const outr_trace *trace)
{
    static const outr_trace none;
    char bytes[OUTR_TRACE_BIN_LEN];
    outr_trace_write_bin(trace->is_valid ? trace : &none, bytes);
    return outr_grpc_bin_write(arena, outr_str_of(bytes, sizeof bytes));
}

static const char *const verbs[] = {"NONE",   "GET",     "HEAD",    "POST",  "PUT",
                                    "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};

int outr__daprd_verb(outr_str verb)
{
    for (size_t i = 0; i < OUTR_LEN(verbs); i++) {
        if (outr_str_is(verb, verbs[i]))
            return (int)i;
    }
    return -1;
}

const char *outr__daprd_verb_name(int number)
{
    return number >= 0 && (size_t)number < OUTR_LEN(verbs) ? verbs[number] : NULL;
}
