/* HTTP/1.1 on an accepted connection (RFC 9112). One request at a time: what the client sends ahead
 * stays unparsed until the answer is out, so answers are in order and nothing piles up. */
#include <llhttp.h>

#include "base/encode.h"
#include "http/conn.h"

#define METHOD_MAX     32
#define AHEAD_MAX      (64 * OUTR_KIB)  /* pipelined bytes held while a request is being answered */
#define DISCARD_MAX    (256 * OUTR_KIB) /* of a body nobody reads, before the connection is given up */
#define LINGER_NS      OUTR_SEC         /* after an error answer: time for the peer to read it */

typedef struct exchange exchange;

typedef struct h1 {
    outr__conn base;
    llhttp_t parser;
    exchange *x;                /* the request being read or answered */
    outr_bufq ahead;            /* bytes behind it */
    char method[METHOD_MAX];    /* llhttp knows a fixed list and no lower case: we read the token ourselves */
    uint8_t method_n;
    enum { READ_METHOD, READ_HEAD, READ_BODY, READ_DONE, READ_RAW, READ_NOTHING } reading;
    bool saw_eof, is_closed, is_lingering, wants_close, is_parsing, last_was_cr;
    bool wants_free;
    unsigned holds;             /* callers up the stack that still need the object */
    size_t head_bytes, line_n;  /* of the head so far; of its current line */
    outr_chunk *chunk;          /* being parsed; NULL: bytes of no chunk */
    int bad_status;             /* answer instead of going on: 400, 431, 501, 417 */
} h1;

struct exchange {
    outr_exchange x;
    h1 *conn;
    outr_source body;
    outr_sink out;
    outr_bufq held;             /* body bytes nobody has taken yet */
    outr_deferred pusher;
    outr_headers trailers;
    outr_str name;              /* of the header being read */
    bool in_value, in_trailers;
    size_t host_count;
    /* request body */
    bool body_ended, body_broken, is_discarding, is_sink_full, told_continue, is_told;
    size_t discarded;
    outr_err body_err;
    /* response */
    bool has_head, is_ended, is_done, is_gone, is_chunked, has_body, keep_alive, is_raw;
    int64_t left;               /* of the declared length; -1: none declared */
};

static void parse(h1 *c, outr_chunk *chunk, const char *p, size_t n);
static void hold(h1 *c);
static void release(h1 *c);
static void update_reading(h1 *c);
static void finish_exchange(h1 *c);

static h1 *of_parser(llhttp_t *parser)
{
    return parser->data;
}

static exchange *of_x(outr_exchange *x)
{
    return OUTR_CONTAINER(x, exchange, x);
}

static const outr_http_limits *limits(const h1 *c)
{
    return &outr__server_options(c->base.server)->limits;
}

static void deadline_in(h1 *c, uint64_t ns)
{
    outr__conn_deadline(&c->base, ns ? outr_loop_now(c->base.loop) + ns : 0);
}

/* ---- request body as a source ----------------------------------------------------------------- */

static void body_end(exchange *x)
{
    outr_sink *sink = x->body.sink;
    x->body.sink = NULL;
    x->is_told = true;
    sink->source = NULL;
    if (x->body_broken)
        sink->ops->abort(sink, &x->body_err);
    else
        sink->ops->end(sink, x->trailers.count ? &x->trailers : NULL);
}

/* Gives what is held, then the end. x may be gone when a sink is told its end. */
static void push_body(exchange *x)
{
    h1 *c = x->conn;
    while (x->held.count > 0 && x->body.sink && !x->is_sink_full) {
        outr_slice slice = outr_bufq_pop(&x->held);
        if (!x->body.sink->ops->data(x->body.sink, slice)) {
            if (c->x != x || !x->body.sink) /* cancelled from inside */
                return;
            x->is_sink_full = true;
        }
    }
    if (x->body.sink && x->held.count == 0 && !x->is_sink_full && (x->body_ended || x->body_broken))
        body_end(x);
}

static void on_push(outr_deferred *deferred)
{
    exchange *x = OUTR_CONTAINER(deferred, exchange, pusher);
    h1 *c = x->conn;
    hold(c);
    push_body(x);
    if (c->x == x)
        update_reading(c);
    release(c);
}

static void send_continue(exchange *x)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!x->x.req.wants_continue || x->told_continue || x->has_head || x->body_ended)
        return;
    x->told_continue = true;
    outr_bufq_copy(&x->conn->base.out, text, sizeof text - 1);
    outr__conn_flush_soon(&x->conn->base);
}

static void body_start(outr_source *source)
{
    exchange *x = OUTR_CONTAINER(source, exchange, body);
    send_continue(x);
    outr_loop_defer(x->x.loop, &x->pusher);
}

static void body_resume(outr_source *source)
{
    exchange *x = OUTR_CONTAINER(source, exchange, body);
    x->is_sink_full = false;
    outr_loop_defer(x->x.loop, &x->pusher);
}

static void discard_body(exchange *x)
{
    x->is_discarding = true;
    x->discarded += x->held.bytes;
    outr_bufq_done(&x->held);
    outr_loop_undefer(&x->pusher);
}

static void body_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    exchange *x = OUTR_CONTAINER(source, exchange, body);
    discard_body(x);
    update_reading(x->conn);
}

static const outr_source_ops body_ops = {.start = body_start, .resume = body_resume, .cancel = body_cancel};

static void break_body(exchange *x, outr_code code, const char *text)
{
    if (x->body_ended || x->body_broken)
        return;
    x->body_broken = true;
    outr_fail(&x->body_err, code, "%s", text);
    if (x->body.sink) {
        x->is_sink_full = false;
        outr_loop_defer(x->x.loop, &x->pusher);
    }
}

/* ---- response as a sink ----------------------------------------------------------------------- */

static exchange *of_sink(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, exchange, out);
}

static bool out_data(outr_sink *sink, outr_slice own_slice)
{
    exchange *x = of_sink(sink);
    h1 *c = x->conn;
    if (!x->has_body || x->is_ended || c->is_closed || x->is_gone) {
        outr_slice_done(&own_slice);
        return true;
    }
    if (x->left >= 0 && !x->is_raw) {
        own_slice.n = (size_t)OUTR_MIN((int64_t)own_slice.n, x->left); /* more than declared is not sent */
        x->left -= (int64_t)own_slice.n;
    }
    if (own_slice.n == 0) {
        outr_slice_done(&own_slice);
        return true;
    }
    x->x.sent_bytes += own_slice.n;
    if (x->is_chunked)
        outr__h1_write_chunk_head(&c->base.out, own_slice.n);
    if (own_slice.n < 2048) { /* one buffer costs less than another iovec */
        outr_bufq_copy(&c->base.out, own_slice.p, own_slice.n);
        outr_slice_done(&own_slice);
    } else {
        if (!own_slice.chunk) /* static bytes need not outlive the call */
            own_slice = outr_slice_copy(outr_str_of(own_slice.p, own_slice.n));
        outr_bufq_push(&c->base.out, own_slice);
    }
    if (x->is_chunked)
        outr_bufq_copy(&c->base.out, "\r\n", 2);
    outr__conn_flush_soon(&c->base);
    if (c->base.deadline_ns == 0 || c->reading == READ_DONE)
        deadline_in(c, limits(c)->write_idle_ns);
    return !outr__conn_is_full(&c->base);
}

static void out_end(outr_sink *sink, const struct outr_headers *trailers)
{
    exchange *x = of_sink(sink);
    h1 *c = x->conn;
    sink->source = NULL;
    if (x->is_ended)
        return;
    x->is_ended = true;
    if (x->is_chunked)
        outr__h1_write_last_chunk(&c->base.out, trailers);
    if (x->left > 0 && x->has_body && !x->is_raw)
        c->wants_close = true; /* shorter than declared: the peer must notice */
    if (x->is_raw)
        c->wants_close = true;
    outr__conn_flush_soon(&c->base);
    finish_exchange(c);
}

static void out_abort(outr_sink *sink, const outr_err *err OUTR_UNUSED)
{
    exchange *x = of_sink(sink);
    sink->source = NULL;
    if (x->is_ended)
        return;
    x->is_ended = true;
    x->is_gone = true;
    outr__conn_flush(&x->conn->base);
    outr_stream_reset(x->conn->base.stream); /* never a clean short end */
}

static const outr_sink_ops out_ops = {.data = out_data, .end = out_end, .abort = out_abort};

static void do_inform(outr_exchange *xx, const outr_http_response *head)
{
    exchange *x = of_x(xx);
    if (x->has_head || xx->req.http_major != 1 || x->conn->is_closed)
        return;
    if (head->status == 100) {
        send_continue(x);
        return;
    }
    outr__h1_write_response(&x->conn->base.out, head, OUTR_STR_NONE, NULL, false, false);
    outr__conn_flush_soon(&x->conn->base);
}

/* Bytes the client sent behind its upgrade request belong to the tunnel. */
static void hold_raw_ahead(h1 *c)
{
    outr_bufq_move(&c->x->held, &c->ahead);
    if (c->x->body.sink)
        outr_loop_defer(c->base.loop, &c->x->pusher);
    update_reading(c);
}

static const char *connection_header(const exchange *x, bool keeps)
{
    if (x->is_raw)
        return "Upgrade";
    if (!keeps)
        return "close";
    return llhttp_get_http_minor((llhttp_t *)&x->conn->parser) == 0 ? "keep-alive" : NULL;
}

static outr_sink *do_respond(outr_exchange *xx, const outr_http_response *head)
{
    exchange *x = of_x(xx);
    h1 *c = x->conn;
    bool is_http10 = llhttp_get_http_minor(&c->parser) == 0;
    x->has_head = true;
    xx->status = head->status;
    x->is_raw = head->status == 101;
    x->has_body = x->is_raw || outr_http_has_body(xx->req.method, head->status);
    x->left = x->has_body ? head->content_length : -1;
    bool has_length = head->content_length >= 0 && !x->is_raw && head->status >= 200 && head->status != 204 &&
                      (x->has_body || head->content_length > 0);
    x->is_chunked = x->has_body && !x->is_raw && head->content_length < 0 && !is_http10;
    if (x->has_body && !has_length && !x->is_chunked && !x->is_raw)
        x->keep_alive = false; /* HTTP/1.0: the end of the connection ends the body */
    bool is_waiting = xx->req.wants_continue && !x->told_continue && !x->body_ended; /* its body may never come */
    if (is_waiting || c->saw_eof || outr__server_is_draining(c->base.server) ||
        outr_headers_has_token(&head->headers, "Connection", "close"))
        x->keep_alive = false;
    if (!c->is_closed) {
        outr__h1_write_response(&c->base.out, head, outr__server_date(c->base.server), connection_header(x, x->keep_alive),
                                x->is_chunked, has_length);
        outr__conn_flush_soon(&c->base);
    }
    if (x->is_raw) {
        c->reading = READ_RAW;
        deadline_in(c, 0);
        hold_raw_ahead(c);
    }
    x->out.ops = &out_ops;
    return &x->out;
}

static void do_done(outr_exchange *xx)
{
    exchange *x = of_x(xx);
    h1 *c = x->conn;
    x->is_done = true;
    xx->on_gone = NULL;
    if (x->body.sink) {
        x->body.sink->source = NULL;
        x->body.sink = NULL;
    }
    if (!x->is_told)
        discard_body(x);
    if (!x->is_ended) {
        x->is_ended = true;
        x->is_gone = true;
        if (!c->is_closed)
            outr_stream_reset(c->base.stream);
    }
    finish_exchange(c);
}

static const outr__exchange_ops exchange_ops = {.inform = do_inform, .respond = do_respond, .done = do_done};

/* ---- life of a connection --------------------------------------------------------------------- */

static void free_conn(h1 *c)
{
    if (c->holds > 0) {
        c->wants_free = true;
        return;
    }
    outr_bufq_done(&c->ahead);
    outr__conn_leave(&c->base);
    free(c);
}

static void hold(h1 *c)
{
    c->holds++;
}

static void release(h1 *c)
{
    if (--c->holds == 0 && c->wants_free)
        free_conn(c);
}

static void begin_request(h1 *c)
{
    llhttp_reset(&c->parser);
    c->reading = READ_METHOD;
    c->method_n = 0;
    c->head_bytes = c->line_n = 0;
    c->last_was_cr = false;
}

/* After an error answer: the peer may still be sending, and a close now could destroy the answer on
 * its way. Half-close, read and drop for a moment, then close. */
static void linger(h1 *c)
{
    c->is_lingering = true;
    c->reading = READ_NOTHING;
    outr_bufq_done(&c->ahead);
    outr__conn_flush(&c->base);
    outr_stream_shutdown(c->base.stream);
    deadline_in(c, LINGER_NS);
    outr_stream_read_start(c->base.stream);
}

/* The exchange is over when its response has ended, the handler is done and the request was read. */
static void finish_exchange(h1 *c)
{
    exchange *x = c->x;
    if (!x || !x->is_ended || !x->is_done)
        return;
    bool is_read = x->body_ended || x->body_broken || c->is_closed;
    if (!is_read && !x->is_raw && x->discarded <= DISCARD_MAX && x->keep_alive && !c->wants_close) {
        update_reading(c); /* comes back with the end of the body */
        return;
    }
    bool keeps = x->keep_alive && x->body_ended && !c->wants_close && !c->saw_eof;
    bool is_broken = x->is_gone;
    outr_arena *arena = x->x.arena;
    c->x = NULL;
    outr_loop_undefer(&x->pusher);
    outr_bufq_done(&x->held);
    outr__server_request_ended(c->base.server, &x->x, is_broken);
    outr_arena_free(arena);
    if (c->is_closed) {
        free_conn(c);
        return;
    }
    if (c->base.stream->is_closing)
        return; /* on_closed frees */
    if (!keeps || outr__server_is_draining(c->base.server)) {
        if (is_read) {
            outr__conn_flush(&c->base);
            outr_stream_close(c->base.stream);
        } else {
            linger(c);
        }
        return;
    }
    begin_request(c);
    deadline_in(c, limits(c)->idle_ns);
    update_reading(c);
    if (c->ahead.bytes > 0 && !c->is_parsing) { /* the next one is here already */
        outr_bufq ahead = c->ahead;
        c->ahead = (outr_bufq){0};
        while (ahead.count > 0 && !c->is_closed && c->reading != READ_NOTHING) {
            outr_slice slice = outr_bufq_pop(&ahead);
            if (c->x && c->reading == READ_DONE)
                outr_bufq_push(&c->ahead, slice);
            else {
                parse(c, slice.chunk, slice.p, slice.n);
                outr_slice_done(&slice);
            }
        }
        outr_bufq_done(&ahead);
    }
}

/* Reads while somebody wants what would come; a request being answered reads on only to learn that
 * the client has gone. */
static void update_reading(h1 *c)
{
    const exchange *x = c->x;
    bool wants = !c->is_closed && !c->saw_eof;
    if (x && (c->reading == READ_BODY || c->reading == READ_RAW))
        wants = wants && x->held.bytes < AHEAD_MAX && !x->is_sink_full && (x->is_discarding || x->body.sink);
    else if (x && c->reading == READ_DONE)
        wants = wants && c->ahead.bytes < AHEAD_MAX;
    if (wants)
        outr_stream_read_start(c->base.stream);
    else if (!c->is_closed)
        outr_stream_read_stop(c->base.stream);
}

/* ---- our own answers to what is no request ---------------------------------------------------- */

static void refuse(h1 *c, int status)
{
    char body[64], length[96];
    int n = snprintf(body, sizeof body, "%d %s", status, outr_http_status_text(status));
    int m = snprintf(length, sizeof length, "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n", body);
    outr_bufq_copy(&c->base.out, length, (size_t)m);
    outr_bufq_copy(&c->base.out, body, (size_t)n);
    linger(c);
}

static void drop_unstarted(h1 *c)
{
    exchange *x = c->x;
    c->x = NULL;
    if (x)
        outr_arena_free(x->x.arena);
}

/* ---- parsing ---------------------------------------------------------------------------------- */

static exchange *new_exchange(h1 *c)
{
    const outr_http_server_options *o = outr__server_options(c->base.server);
    outr_arena *arena = outr_arena_new(o->limits.arena_bytes);
    exchange *x = outr_arena_alloc(arena, sizeof *x);
    x->conn = c;
    x->x.loop = c->base.loop;
    x->x.arena = arena;
    x->x.server = c->base.server;
    x->x.peer = c->base.stream->peer;
    x->x.ops = &exchange_ops;
    x->x.started_ns = outr_loop_now(c->base.loop);
    x->pusher.run = on_push;
    x->body.ops = &body_ops;
    outr_headers_init(&x->x.req.headers, arena);
    outr_headers_init(&x->trailers, arena);
    return x;
}

static int over_limit(h1 *c, size_t n)
{
    c->head_bytes += n;
    if (c->head_bytes <= limits(c)->max_header_bytes)
        return 0;
    c->bad_status = 431;
    return HPE_USER;
}

static outr_str append(outr_arena *arena, outr_str before, const char *p, size_t n)
{
    if (before.n == 0)
        return outr_arena_str(arena, outr_str_of(p, n));
    char *joined = outr_arena_alloc(arena, before.n + n + 1);
    memcpy(joined, before.p, before.n);
    memcpy(joined + before.n, p, n);
    return outr_str_of(joined, before.n + n);
}

static int on_url(llhttp_t *parser, const char *p, size_t n)
{
    h1 *c = of_parser(parser);
    if (over_limit(c, n))
        return HPE_USER;
    c->x->x.req.target = append(c->x->x.arena, c->x->x.req.target, p, n);
    return 0;
}

static int on_header_field(llhttp_t *parser, const char *p, size_t n)
{
    h1 *c = of_parser(parser);
    exchange *x = c->x;
    if (over_limit(c, n))
        return HPE_USER;
    if (x->in_value) {
        x->in_value = false;
        x->name = OUTR_STR_NONE;
    }
    x->name = append(x->x.arena, x->name, p, n);
    return 0;
}

static outr_headers *current_headers(exchange *x)
{
    return x->in_trailers ? &x->trailers : &x->x.req.headers;
}

static int on_header_value(llhttp_t *parser, const char *p, size_t n)
{
    h1 *c = of_parser(parser);
    exchange *x = c->x;
    outr_headers *h = current_headers(x);
    if (over_limit(c, n + 4))
        return HPE_USER;
    if (x->in_value && h->count > 0) { /* goes on from the last read */
        outr_header *last = &h->items[h->count - 1];
        last->value = append(x->x.arena, last->value, p, n);
        return 0;
    }
    x->in_value = true;
    if (h->count >= limits(c)->max_headers) {
        c->bad_status = 431;
        return HPE_USER;
    }
    outr_headers_add(h, x->name, append(x->x.arena, OUTR_STR_NONE, p, n));
    return 0;
}

static int bad_request(h1 *c, int status)
{
    c->bad_status = status;
    return HPE_USER;
}

/* scheme://authority/path: RFC 9112 section 3.2.2; the authority replaces Host. */
static void take_absolute_form(outr_http_request *req)
{
    outr_str t = req->target;
    ptrdiff_t colon = t.n && t.p[0] != '/' ? outr_str_search(t, OUTR_STR("://")) : -1;
    if (colon <= 0)
        return;
    outr_str rest = outr_str_skip(t, (size_t)colon + 3), authority;
    ptrdiff_t slash = outr_str_find(rest, '/');
    authority = slash < 0 ? rest : outr_str_head(rest, (size_t)slash);
    req->authority = authority;
    req->target = slash < 0 ? OUTR_STR("/") : outr_str_skip(rest, (size_t)slash);
}

/* Framing and connection headers are this layer's own; the rest is the handler's. */
static int take_own_headers(h1 *c, exchange *x)
{
    outr_http_request *req = &x->x.req;
    outr_headers *h = &req->headers;
    size_t hosts = 0, kept = 0;
    req->content_length = 0;
    for (size_t i = 0; i < h->count; i++) {
        outr_header *item = &h->items[i];
        item->value = outr_str_trim(item->value);
        if (!outr_header_value_is_valid(item->value))
            return bad_request(c, 400);
        if (outr_str_iis(item->name, "Host")) {
            hosts++;
            req->authority = item->value;
        } else if (!outr_str_iis(item->name, "Content-Length") && !outr_str_iis(item->name, "Transfer-Encoding")) {
            h->items[kept++] = *item;
        }
    }
    if (c->parser.flags & F_TRANSFER_ENCODING) {
        for (size_t i = 0; i < h->count && !(c->parser.flags & F_CHUNKED); i++) {
            if (outr_str_iis(h->items[i].name, "Transfer-Encoding"))
                return bad_request(c, 501);
        }
        req->content_length = -1;
    } else if (c->parser.flags & F_CONTENT_LENGTH) {
        req->content_length = (int64_t)c->parser.content_length;
    }
    h->count = kept;
    if (hosts > 1 || (hosts == 0 && c->parser.http_minor >= 1))
        return bad_request(c, 400);
    outr_str expect = outr_headers_get(h, "Expect");
    if (expect.n > 0 && !outr_str_iis(expect, "100-continue"))
        return bad_request(c, 417);
    req->wants_continue = expect.n > 0 && req->content_length != 0 && c->parser.http_minor >= 1;
    outr_headers_remove(h, "Expect");
    return 0;
}

static bool try_h2c(h1 *c, exchange *x);

static int on_headers_complete(llhttp_t *parser)
{
    h1 *c = of_parser(parser);
    exchange *x = c->x;
    outr_http_request *req = &x->x.req;
    req->method = outr_arena_str(x->x.arena, outr_str_of(c->method, c->method_n));
    req->scheme = c->base.stream->is_secure ? OUTR_STR("https") : OUTR_STR("http");
    req->http_major = 1;
    if (parser->http_major != 1)
        return bad_request(c, 505);
    if (parser->content_length > INT64_MAX)
        return bad_request(c, 400);
    int rc = take_own_headers(c, x);
    if (rc)
        return rc;
    take_absolute_form(req);
    if (outr_headers_has_token(&req->headers, "Connection", "upgrade"))
        req->upgrade = outr_str_trim(outr_headers_get(&req->headers, "Upgrade"));
    if (req->upgrade.n > 0 && req->content_length != 0)
        req->upgrade = OUTR_STR_NONE; /* a body and an upgrade at once: the body it is */
    x->keep_alive = llhttp_should_keep_alive(parser);
    c->reading = READ_BODY;
    c->last_was_cr = false;
    deadline_in(c, req->content_length ? limits(c)->body_idle_ns : 0);
    if (try_h2c(c, x))
        return HPE_USER;
    x->body.length = req->upgrade.n > 0 ? -1 : req->content_length;
    if (req->upgrade.n > 0)
        x->x.tunnel = &x->body;
    else if (req->content_length != 0)
        x->x.body = &x->body;
    outr__server_request_began(c->base.server);
    outr__server_options(c->base.server)->handler->on_request(outr__server_options(c->base.server)->ctx, &x->x);
    if (c->x != x)
        return HPE_USER; /* answered and gone already: the rest of this read is looked at by parse */
    return 0;
}

static int on_body(llhttp_t *parser, const char *p, size_t n)
{
    h1 *c = of_parser(parser);
    exchange *x = c->x;
    if (!x || c->is_closed)
        return HPE_USER;
    x->x.received_bytes += n;
    if (x->is_discarding) {
        x->discarded += n;
        if (x->discarded > DISCARD_MAX && x->is_done) {
            finish_exchange(c);
            return HPE_USER;
        }
        return 0;
    }
    deadline_in(c, limits(c)->body_idle_ns);
    outr_bufq_push(&x->held, c->chunk ? outr_slice_of(c->chunk, p, n) : outr_slice_copy(outr_str_of(p, n)));
    push_body(x);
    return c->x == x && !c->is_closed ? 0 : HPE_USER;
}

static int on_chunk_header(llhttp_t *parser)
{
    h1 *c = of_parser(parser);
    c->x->in_trailers = true; /* header fields after the head are trailers */
    c->head_bytes = 0;
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    h1 *c = of_parser(parser);
    exchange *x = c->x;
    if (!x)
        return HPE_USER;
    if (c->reading == READ_RAW)
        return HPE_PAUSED;
    c->reading = READ_DONE;
    if (x->x.req.upgrade.n > 0 && !x->has_head)
        return HPE_PAUSED; /* the body source stays open: it may become the raw stream */
    x->body_ended = true;
    deadline_in(c, 0);
    if (x->body.sink)
        push_body(x);
    if (c->x == x)
        finish_exchange(c);
    return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_message_complete = on_message_complete,
};

static bool is_token(char c)
{
    return outr_header_name_is_valid(outr_str_of(&c, 1));
}

/* The method token and the space behind it. False while more is needed or when it is none. */
static bool read_method(h1 *c, const char **p, const char *end)
{
    while (*p < end) {
        char ch = **p;
        if (c->method_n == 0 && (ch == '\r' || ch == '\n')) { /* RFC 9112 section 2.2 */
            (*p)++;
            continue;
        }
        if (ch == ' ' && c->method_n > 0) {
            (*p)++;
            return true;
        }
        if (!is_token(ch) || c->method_n == METHOD_MAX) {
            c->bad_status = 400;
            return false;
        }
        c->method[c->method_n++] = ch;
        (*p)++;
    }
    return false;
}

static bool begin_head(h1 *c)
{
    static const char stand_in[] = "POST "; /* the method does not change how a request is framed */
    c->x = new_exchange(c);
    c->reading = READ_HEAD;
    deadline_in(c, limits(c)->header_timeout_ns);
    return llhttp_execute(&c->parser, stand_in, sizeof stand_in - 1) == HPE_OK;
}

/* A line feed without its carriage return is how requests are smuggled past a proxy that reads lines
 * another way; llhttp lets it pass, we do not. Looks at the lines of a head, across reads. */
static bool has_bare_lf(h1 *c, const char *p, size_t n)
{
    const char *end = p + n;
    while (p < end) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        if (!lf) {
            c->line_n += (size_t)(end - p);
            c->last_was_cr = end[-1] == '\r';
            return false;
        }
        size_t line = c->line_n + (size_t)(lf - p);
        if (lf > p ? lf[-1] != '\r' : !c->last_was_cr)
            return true;
        c->line_n = 0;
        c->last_was_cr = false;
        if (line == 1) /* the empty line: what follows is no head */
            return false;
        p = lf + 1;
    }
    return false;
}

static void on_parse_error(h1 *c, llhttp_errno_t rc)
{
    exchange *x = c->x;
    bool is_head = x && c->reading <= READ_HEAD;
    if (c->bad_status == 0 && rc == HPE_USER)
        return; /* ended by ourselves */
    int status = c->bad_status ? c->bad_status : 400;
    c->bad_status = 0;
    if (is_head || !x || (!x->has_head && !x->x.on_gone && !x->x.user)) {
        drop_unstarted(c);
        refuse(c, status);
        return;
    }
    /* In the body: the handler hears of it and answers; then the connection ends. */
    c->reading = READ_NOTHING;
    x->keep_alive = false;
    break_body(x, OUTR_INVALID_ARGUMENT, status == 431 ? "trailers are too large" : "malformed chunked encoding");
    finish_exchange(c);
}

static void keep_ahead(h1 *c, const char *p, size_t n)
{
    if (n > 0 && c->reading != READ_NOTHING)
        outr_bufq_push(&c->ahead, outr_slice_copy(outr_str_of(p, n)));
    update_reading(c);
}

static void hold_raw(h1 *c, const char *p, size_t n)
{
    exchange *x = c->x;
    if (!x || x->is_discarding || n == 0)
        return;
    x->x.received_bytes += n;
    outr_bufq_push(&x->held, outr_slice_copy(outr_str_of(p, n)));
    push_body(x);
    if (c->x == x)
        update_reading(c);
}

static void parse_once(h1 *c, const char **p, const char *end)
{
    if (c->reading == READ_METHOD) {
        if (!read_method(c, p, end)) {
            if (c->bad_status)
                on_parse_error(c, HPE_INVALID_METHOD);
            else if (c->method_n > 0)
                deadline_in(c, limits(c)->header_timeout_ns);
            return;
        }
        if (!begin_head(c)) {
            on_parse_error(c, HPE_INVALID_METHOD);
            return;
        }
    }
    size_t n = (size_t)(end - *p);
    if (c->reading == READ_HEAD && has_bare_lf(c, *p, n)) {
        on_parse_error(c, HPE_STRICT);
        *p = end;
        return;
    }
    exchange *x = c->x;
    llhttp_errno_t rc = llhttp_execute(&c->parser, *p, n);
    if (rc == HPE_OK) {
        *p = end;
        return;
    }
    const char *at = llhttp_get_error_pos(&c->parser);
    *p = at && at >= *p && at <= end ? at : end;
    if (rc == HPE_PAUSED || rc == HPE_PAUSED_UPGRADE)
        return;
    if (c->x == x || !x)
        on_parse_error(c, rc);
    *p = end;
}

static void parse(h1 *c, outr_chunk *chunk, const char *p, size_t n)
{
    const char *end = p + n;
    c->is_parsing = true;
    c->chunk = chunk;
    while (p < end && !c->is_closed && !c->is_lingering && c->reading != READ_NOTHING) {
        if (c->reading == READ_DONE && c->x) {
            keep_ahead(c, p, (size_t)(end - p));
            break;
        }
        if (c->reading == READ_RAW) {
            hold_raw(c, p, (size_t)(end - p));
            break;
        }
        parse_once(c, &p, end);
    }
    c->is_parsing = false;
}

/* ---- h2c -------------------------------------------------------------------------------------- */

static bool try_h2c(h1 *c, exchange *x)
{
    outr_http_request *req = &x->x.req;
    outr_str settings;
    if (!outr_str_iis(req->upgrade, "h2c"))
        return false;
    req->upgrade = OUTR_STR_NONE;
    bool is_wanted = outr__server_options(c->base.server)->allow_h2 && outr_headers_has_token(&req->headers, "Connection", "HTTP2-Settings") &&
                     outr_base64_decode(x->x.arena, outr_headers_get(&req->headers, "HTTP2-Settings"), &settings);
    outr_headers_remove(&req->headers, "HTTP2-Settings");
    outr_headers_remove(&req->headers, "Upgrade");
    outr_headers_remove(&req->headers, "Connection");
    if (!is_wanted)
        return false;
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    outr_bufq_copy(&c->base.out, answer, sizeof answer - 1);
    outr__conn_flush(&c->base);
    c->reading = READ_NOTHING;
    c->x = NULL;
    c->is_closed = true; /* this object ends with the read; the stream lives on */
    outr__h2_upgrade(c->base.server, c->base.stream, settings, req, x->x.arena, NULL, NULL, 0);
    return true;
}

/* ---- events ----------------------------------------------------------------------------------- */

static void tell_gone(h1 *c, const outr_err *err)
{
    exchange *x = c->x;
    if (!x)
        return;
    break_body(x, OUTR_UNAVAILABLE, "the client closed the connection");
    if (x->x.on_gone && !x->is_gone) {
        x->is_gone = true;
        x->x.on_gone(&x->x, err);
    }
}

static void on_data(outr_stream *stream, outr_chunk *chunk, const char *p, size_t n)
{
    h1 *c = stream->owner;
    if (c->is_lingering)
        return; /* dropped */
    if (c->x && c->reading == READ_DONE) {
        keep_ahead(c, p, n);
        return;
    }
    hold(c);
    parse(c, chunk, p, n);
    if (stream->owner != c) /* it went on as HTTP/2 */
        c->wants_free = true;
    release(c);
}

static void on_eof(outr_stream *stream)
{
    h1 *c = stream->owner;
    c->saw_eof = true;
    if (!c->x || c->is_lingering) {
        outr_stream_close(stream);
        return;
    }
    if (c->reading <= READ_HEAD) {
        drop_unstarted(c);
        outr_stream_close(stream);
        return;
    }
    if (c->reading == READ_RAW) { /* half-closed: the other direction may go on */
        c->x->body_ended = true;
        push_body(c->x);
        return;
    }
    c->x->keep_alive = false;
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "the client closed the connection");
    tell_gone(c, &err);
}

static void on_error(outr_stream *stream, const outr_err *err)
{
    h1 *c = stream->owner;
    c->saw_eof = true;
    tell_gone(c, err);
    outr_stream_close(stream);
}

static void on_drain(outr_stream *stream)
{
    h1 *c = stream->owner;
    if (c->x && c->x->out.source)
        outr_source_resume(c->x->out.source);
}

static void on_closed(outr_stream *stream)
{
    h1 *c = stream->owner;
    c->is_closed = true;
    c->base.stream = NULL;
    outr_timer_stop(c->base.loop, &c->base.timer);
    if (!c->x) {
        free_conn(c);
        return;
    }
    if (c->reading <= READ_HEAD) {
        drop_unstarted(c);
        free_conn(c);
        return;
    }
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "the connection was closed");
    hold(c);
    tell_gone(c, &err); /* the handler may finish now, or later: finish_exchange frees */
    release(c);
}

static const outr_stream_events events = {.on_data = on_data, .on_eof = on_eof, .on_drain = on_drain, .on_error = on_error, .on_closed = on_closed};

static void do_drain(outr__conn *conn)
{
    h1 *c = OUTR_CONTAINER(conn, h1, base);
    if (c->x && c->x->is_raw)
        outr_stream_close(conn->stream);
    if (!c->x && !c->is_lingering)
        outr_stream_close(conn->stream);
}

static void do_expire(outr__conn *conn)
{
    h1 *c = OUTR_CONTAINER(conn, h1, base);
    if (!conn->stream)
        return;
    if (c->is_lingering || !c->x) {
        outr_stream_close(conn->stream);
    } else if (c->reading == READ_HEAD) {
        drop_unstarted(c);
        refuse(c, 408);
    } else if (conn->stream->pending_bytes > 0 || conn->out.bytes > 0) {
        outr_stream_reset(conn->stream); /* the peer reads nothing */
    } else if (c->reading == READ_BODY && !c->x->is_sink_full && !c->x->body_ended) {
        c->x->keep_alive = false;
        c->reading = READ_NOTHING;
        break_body(c->x, OUTR_DEADLINE_EXCEEDED, "timed out reading the request body");
    }
}

static const outr__conn_ops conn_ops = {.drain = do_drain, .expire = do_expire};

void outr__h1_accept(outr_http_server *server, outr_stream *own_stream, outr_chunk *chunk, const char *p, size_t n)
{
    h1 *c = outr_alloc(sizeof *c);
    outr__conn_open(&c->base, &conn_ops, server, own_stream);
    llhttp_init(&c->parser, HTTP_REQUEST, &callbacks);
    c->parser.data = c;
    begin_request(c);
    own_stream->events = &events;
    deadline_in(c, limits(c)->idle_ns);
    outr_stream_read_start(own_stream);
    if (n > 0)
        on_data(own_stream, chunk, p, n);
}
