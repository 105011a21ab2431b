#include "http/h1_head.h"

/* ---- whole heads out of a stream of bytes ---------------------------------------------------- */

/* Length of the head up to and including its empty line, or 0. *scanned is where to go on looking.
 */
static size_t find_end(outr_str bytes, size_t *scanned)
{
    const char *end = bytes.p + bytes.n, *p = bytes.p + *scanned;
    while ((p = memchr(p, '\n', (size_t)(end - p)))) {
        const char *next = p + 1;
        if (next < end && *next == '\r')
            next++;
        if (next == end)
            break;
        if (*next == '\n')
            return (size_t)(next + 1 - bytes.p);
        p++;
    }
    *scanned = p ? (size_t)(p - bytes.p) : bytes.n;
    return 0;
}

int outr__h1_collect(outr__h1_collector *c, const char **p, const char *end, size_t max_bytes,
                     outr_str *head)
{
    size_t before = c->partial.n, n = (size_t)(end - *p);
    outr_str bytes = outr_str_of(*p, n);
    if (before > 0) {
        if (!outr_buf_append(&c->partial, *p, n))
            return 431;
        bytes = outr_buf_view(&c->partial);
    }
    size_t length = find_end(bytes, &c->scanned);
    if (length > max_bytes || (!length && bytes.n > max_bytes))
        return 431;
    if (length) {
        *head = outr_str_head(bytes, length);
        *p += length - before;
        return 1;
    }
    if (before == 0) {
        c->partial = OUTR_BUF_MAX(SIZE_MAX); /* max_bytes is checked above, a read at a time */
        outr_buf_append(&c->partial, *p, n);
    }
    *p = end;
    return 0;
}

void outr__h1_collect_done(outr__h1_collector *c)
{
    outr_buf_done(&c->partial);
    *c = (outr__h1_collector){0};
}

/* ---- lines and fields ------------------------------------------------------------------------ */

/* The next line without its end. False: it does not end the way this message's lines do. */
static bool next_line(outr_str *rest, bool ends_in_lf, outr_str *line)
{
    const char *lf = memchr(rest->p, '\n', rest->n);
    if (!lf)
        return false;
    size_t n = (size_t)(lf - rest->p);
    bool has_cr = n > 0 && lf[-1] == '\r';
    *line = outr_str_of(rest->p, n - has_cr);
    *rest = outr_str_of(lf + 1, rest->n - n - 1);
    return has_cr != ends_in_lf;
}

/* Only spaces and tabs: a stray CR stays and is refused. */
static outr_str trim(outr_str s)
{
    while (s.n > 0 && (*s.p == ' ' || *s.p == '\t'))
        s = outr_str_skip(s, 1);
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

static bool parse_field(outr_str line, outr_header *out)
{
    size_t n = 0;
    while (n < line.n && (outr__header_chars[(unsigned char)line.p[n]] & OUTR__CHAR_TOKEN))
        n++;
    if (n == 0 || n == line.n || line.p[n] != ':')
        return false;
    *out = (outr_header){.name = outr_str_of(line.p, n), .value = trim(outr_str_skip(line, n + 1))};
    for (size_t i = 0; i < out->value.n; i++) {
        if (!(outr__header_chars[(unsigned char)out->value.p[i]] & OUTR__CHAR_VALUE))
            return false;
    }
    return true;
}

/* What this layer reads in a head itself. */
typedef struct special {
    outr__h1_framing *framing;
    size_t host_count;
    outr_str host, expect, upgrade;
    bool wants_upgrade, says_close, says_keep_alive;
    unsigned te_count;
    bool te_is_chunked;
} special;

static void note_connection(special *s, outr_str value)
{
    while (value.p) {
        outr_str token;
        value = outr_str_cut(value, ',', &token);
        token = trim(token);
        if (outr_str_iis(token, "close"))
            s->says_close = true;
        else if (outr_str_iis(token, "keep-alive"))
            s->says_keep_alive = true;
        else if (outr_str_iis(token, "upgrade"))
            s->wants_upgrade = true;
    }
}

/* False: malformed. *is_ours: it is not for the handler. */
static bool note_special(special *s, const outr_header *h, bool *is_ours)
{
    uint64_t length;
    *is_ours = false;
    switch (h->name.n) { /* most names have other lengths */
    case 4:
        if (!outr_str_iis(h->name, "host"))
            return true;
        s->host_count++;
        s->host = h->value;
        *is_ours = true;
        return true;
    case 6:
        if (outr_str_iis(h->name, "expect"))
            s->expect = h->value;
        return true;
    case 7:
        if (outr_str_iis(h->name, "upgrade"))
            s->upgrade = h->value;
        return true;
    case 10:
        if (outr_str_iis(h->name, "connection"))
            note_connection(s, h->value);
        return true;
    case 14:
        if (!outr_str_iis(h->name, "content-length"))
            return true;
        *is_ours = true;
        if (!outr_str_to_u64(h->value, INT64_MAX, &length) ||
            (s->framing->has_length && s->framing->length != (int64_t)length))
            return false;
        s->framing->has_length = true;
        s->framing->length = (int64_t)length;
        return true;
    case 17:
        if (!outr_str_iis(h->name, "transfer-encoding"))
            return true;
        *is_ours = true;
        s->te_count++;
        s->te_is_chunked = outr_str_iis(h->value, "chunked");
        return true;
    default:
        return true;
    }
}

/* 0, 400 or 431. */
static int parse_fields(outr_str block, bool ends_in_lf, size_t max_headers, outr_headers *out,
                        special *s)
{
    size_t count = 0;
    for (;;) {
        outr_str line;
        outr_header h;
        bool is_ours = false;
        if (!next_line(&block, ends_in_lf, &line))
            return 400;
        if (line.n == 0)
            return 0;
        if (++count > max_headers)
            return 431;
        if (!parse_field(line, &h) || !note_special(s, &h, &is_ours))
            return 400;
        if (!is_ours)
            outr_headers_add(out, h.name, h.value);
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

static bool is_host_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!$%&'()*+,-.:;=[]_~", c));
}

static bool is_host(outr_str host)
{
    for (size_t i = 0; i < host.n; i++) {
        if (!is_host_char(host.p[i]))
            return false;
    }
    return true;
}

/* 0, 400 or 505. */
static int parse_version(outr_str version, outr__h1_framing *framing)
{
    if (version.n != 8 || memcmp(version.p, "HTTP/", 5) != 0 || version.p[6] != '.')
        return 400;
    if (version.p[5] < '0' || version.p[5] > '9' || version.p[7] < '0' || version.p[7] > '9')
        return 400;
    framing->minor = (uint8_t)(version.p[7] - '0');
    return version.p[5] == '1' ? 0 : 505;
}

/* Origin form, absolute form (whose authority stands for Host, RFC 9112 section 3.2.2), or *; for
 * CONNECT an authority. */
static bool parse_target(outr_http_request *req, outr_str target)
{
    for (size_t i = 0; i < target.n; i++) {
        unsigned char c = (unsigned char)target.p[i];
        if (c <= 0x20 || c == 0x7f)
            return false;
    }
    req->target = target;
    if (target.n == 0)
        return false;
    if (target.p[0] == '/' || outr_str_is(target, "*"))
        return true;
    ptrdiff_t colon = outr_str_search(target, OUTR_STR("://"));
    if (colon <= 0)
        return outr_str_is(req->method, "CONNECT") && is_host(target);
    outr_str rest = outr_str_skip(target, (size_t)colon + 3);
    size_t n = 0;
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?' && rest.p[n] != '#')
        n++;
    outr_str authority = outr_str_head(rest, n), path = outr_str_skip(rest, n);
    req->authority = outr_str_skip(authority, (size_t)(outr_str_rfind(authority, '@') + 1));
    if (path.n == 0)
        req->target = OUTR_STR("/");
    else if (path.p[0] == '/')
        req->target = path;
    else
        req->target = outr_arena_join(req->headers.arena, OUTR_STR("/"), path, OUTR_STR_NONE);
    return is_host(req->authority);
}

static int parse_request_line(outr_str line, outr_http_request *req, outr__h1_framing *framing)
{
    outr_str target;
    outr_str rest = outr_str_cut(line, ' ', &req->method);
    outr_str version = rest.p ? outr_str_cut(rest, ' ', &target) : rest;
    if (!version.p || !outr_header_name_is_valid(req->method))
        return 400;
    int status = parse_version(version, framing);
    if (!status && !parse_target(req, target))
        status = 400;
    return status;
}

/* RFC 9112 section 6: one length, said in one way. */
static int check_framing(special *s, outr_http_request *req, bool ends_in_lf)
{
    outr__h1_framing *f = s->framing;
    if (s->te_count > 0) {
        if (!s->te_is_chunked || s->te_count > 1)
            return 501;
        if (f->has_length || f->minor == 0)
            return 400;
        f->is_chunked = true;
    }
    req->content_length = f->is_chunked ? -1 : f->has_length ? f->length : 0;
    return ends_in_lf && req->content_length != 0 ? 400 : 0;
}

int outr__h1_parse_request(outr_arena *arena, outr_str head, size_t max_headers,
                           outr_http_request *req, outr__h1_framing *framing)
{
    special s = {.framing = framing};
    outr_str line, rest = outr_arena_str(arena, head);
    const char *lf = memchr(rest.p, '\n', rest.n);
    bool ends_in_lf = lf && (lf == rest.p || lf[-1] != '\r');
    *framing = (outr__h1_framing){0};
    *req = (outr_http_request){.http_major = 1};
    outr_headers_init(&req->headers, arena);
    if (!next_line(&rest, ends_in_lf, &line))
        return 400;
    int status = parse_request_line(line, req, framing);
    if (!status)
        status = parse_fields(rest, ends_in_lf, max_headers, &req->headers, &s);
    if (!status)
        status = check_framing(&s, req, ends_in_lf);
    if (status)
        return status;
    if (s.host_count > 1 || (s.host_count == 0 && framing->minor >= 1) || !is_host(s.host))
        return 400;
    if (!req->authority.p)
        req->authority = s.host;
    if (s.expect.n > 0) {
        if (!outr_str_iis(s.expect, "100-continue"))
            return 417;
        req->wants_continue = req->content_length != 0 && framing->minor >= 1;
        outr_headers_remove(&req->headers, "Expect");
    }
    /* A body and an upgrade at once: the body it is. */
    if (s.wants_upgrade && s.upgrade.n > 0 && req->content_length == 0 && framing->minor >= 1)
        req->upgrade = s.upgrade;
    framing->keep_alive = !s.says_close && (framing->minor >= 1 || s.says_keep_alive);
    return 0;
}

/* ---- responses ------------------------------------------------------------------------------- */

static bool parse_status_line(outr_str line, outr_http_response *out, outr__h1_framing *framing)
{
    outr_str version, code;
    uint64_t status;
    outr_str rest = outr_str_cut(line, ' ', &version);
    out->reason = outr_str_cut(rest, ' ', &code);
    if (!rest.p || parse_version(version, framing) != 0 || code.n != 3 ||
        !outr_str_to_u64(code, 999, &status) || status < 100)
        return false;
    out->status = (int)status;
    return true;
}

outr_code outr__h1_parse_response(outr_arena *arena, outr_str head, size_t max_headers,
                                  outr_http_response *out, outr__h1_framing *framing, outr_err *err)
{
    special s = {.framing = framing};
    outr_str line, rest = outr_arena_str(arena, head);
    const char *lf = memchr(rest.p, '\n', rest.n);
    bool ends_in_lf = lf && (lf == rest.p || lf[-1] != '\r');
    *framing = (outr__h1_framing){0};
    *out = (outr_http_response){.content_length = -1};
    outr_headers_init(&out->headers, arena);
    if (!next_line(&rest, ends_in_lf, &line) || !parse_status_line(line, out, framing))
        return outr_fail(err, OUTR_INTERNAL, "malformed HTTP response: no status line");
    if (parse_fields(rest, ends_in_lf, max_headers, &out->headers, &s))
        return outr_fail(err, OUTR_INTERNAL, "malformed HTTP response: headers");
    if (s.te_count > 0 && (!s.te_is_chunked || s.te_count > 1))
        return outr_fail(err, OUTR_INTERNAL, "malformed HTTP response: unknown transfer encoding");
    framing->is_chunked =
        s.te_count > 0; /* over a length, which is then not to be trusted (RFC 9112 section 6.3) */
    framing->keep_alive = !s.says_close && (framing->minor >= 1 || s.says_keep_alive) &&
                          !(framing->is_chunked && framing->has_length);
    if (framing->has_length && !framing->is_chunked)
        out->content_length = framing->length;
    return OUTR_OK;
}

/* ---- trailers -------------------------------------------------------------------------------- */

bool outr__h1_parse_trailers(outr_arena *arena, outr_str block, size_t max_headers,
                             outr_headers *out)
{
    outr__h1_framing ignored = {0};
    special s = {.framing = &ignored};
    outr_headers_init(out, arena);
    return parse_fields(outr_arena_str(arena, block), false, max_headers, out, &s) == 0;
}
