/* HTTP/1.1 on an accepted connection (RFC 9112). One request at a time: what the client sends ahead
 * stays unparsed until the answer is out, so answers are in order and nothing piles up. */
#include "base/encode.h"
#include "http/conn.h"
#include "http/h1_body.h"
#include "http/h1_head.h"

#define AHEAD_MAX   (64 * OUTR_KIB) /* bytes held: of a body nobody takes, of requests sent ahead */
#define DISCARD_MAX (256 * OUTR_KIB) /* of a body nobody wants, before the connection is given up */
#define LINGER_NS   OUTR_SEC         /* after a refusal: time for the peer to read the answer */
#define COPY_BELOW  2048
#define TINY        512

typedef struct exchange exchange;

typedef struct h1 {
    outr__conn base;
    exchange *x; /* the request being read or answered */
    enum { READ_HEAD, READ_BODY, READ_DONE, READ_RAW, READ_NOTHING } reading;
    outr__h1_collector head;
    uint64_t opened_ns, head_since_ns; /* head: when its first byte came */
    outr__h1_body in;
    outr_bufq ahead;    /* bytes behind the request */
    outr_deferred goer; /* takes them up */
    outr_deferred reaper;
    unsigned dying;         /* exchanges that are over and not freed yet */
    uint64_t wait_since_ns; /* for bytes of a body that somebody wants; 0: no waiting */
    bool saw_eof, is_closed, is_lingering, is_feeding, is_http10;
} h1;

struct exchange {
    outr_exchange x;
    h1 *conn;
    outr_source body;
    outr_sink out;
    outr_bufq held; /* body bytes nobody has taken yet */
    outr_deferred pusher, reaper;
    bool is_over; /* done with; freed at the end of the turn */
    /* request body; or the tunnel's bytes from the client */
    bool body_ended, is_discarding, is_sink_full, told_continue,
        is_offer /* an upgrade not yet answered */;
    outr_code broken; /* 0: not broken off */
    const char *broken_text;
    outr_headers trailers;
    size_t discarded;
    /* response */
    bool has_head, is_ended, is_done, is_broken, was_told_gone, is_out_full;
    bool is_chunked, has_body, keep_alive, is_raw;
    int64_t left; /* of the declared length; -1: none declared */
};

static void update(h1 *c);
static void finish_exchange(h1 *c);

static exchange *of_x(outr_exchange *x)
{
    return OUTR_CONTAINER(x, exchange, x);
}

static const outr_http_limits *limits(const h1 *c)
{
    return &outr__server_options(c->base.server)->limits;
}

/* ---- request body as a source ---------------------------------------------------------------- */

static void tell_end(exchange *x)
{
    outr_sink *sink = x->body.sink;
    x->body.sink = NULL;
    sink->source = NULL;
    if (x->broken) {
        outr_err err;
        outr_fail(&err, x->broken, "%s", x->broken_text);
        sink->ops->abort(sink, &err);
        return;
    }
    sink->ops->end(sink, x->trailers.count ? &x->trailers : NULL);
}

static void give(exchange *x, outr_slice own_slice)
{
    x->is_sink_full = true; /* stands unless the sink says otherwise, now or by resume */
    if (x->body.sink->ops->data(x->body.sink, own_slice))
        x->is_sink_full = false;
}

/* Gives what is held, then the end. */
static void push_body(exchange *x)
{
    if (x->is_offer)
        return; /* not a byte of a tunnel before its 101 */
    while (x->held.count > 0 && x->body.sink && !x->is_sink_full)
        give(x, outr_bufq_pop(&x->held));
    bool is_at_end = x->broken || (x->body_ended && x->held.count == 0 && !x->is_sink_full);
    if (x->body.sink && is_at_end)
        tell_end(x);
}

static void on_push(outr_deferred *deferred)
{
    exchange *x = OUTR_CONTAINER(deferred, exchange, pusher);
    push_body(x);
    if (!x->is_over)
        update(x->conn);
}

static void send_continue(exchange *x)
{
    h1 *c = x->conn;
    if (!x->x.req.wants_continue || x->told_continue || x->has_head || x->body_ended ||
        c->is_closed)
        return;
    x->told_continue = true;
    outr_bufq_copy(&c->base.out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    outr__conn_flush_soon(&c->base);
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
}

static void body_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    exchange *x = OUTR_CONTAINER(source, exchange, body);
    discard_body(x);
    outr_loop_defer(x->x.loop, &x->pusher); /* reads on */
}

static const outr_source_ops body_ops = {
    .start = body_start, .resume = body_resume, .cancel = body_cancel};

/* text is static. The sink hears of it in a turn of its own. */
static void break_body(exchange *x, outr_code code, const char *text)
{
    if (x->body_ended || x->broken)
        return;
    x->broken = code;
    x->broken_text = text;
    outr_bufq_done(&x->held);
    outr_loop_defer(x->x.loop, &x->pusher);
}

/* ---- response as a sink ---------------------------------------------------------------------- */

static exchange *of_sink(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, exchange, out);
}

static bool out_data(outr_sink *sink, outr_slice own_slice)
{
    exchange *x = of_sink(sink);
    h1 *c = x->conn;
    if (!x->has_body || x->is_ended || c->is_closed) {
        outr_slice_done(&own_slice);
        return true;
    }
    if (x->left >= 0) {
        own_slice.n =
            (size_t)OUTR_MIN((int64_t)own_slice.n, x->left); /* more than declared is not sent */
        x->left -= (int64_t)own_slice.n;
    }
    x->x.sent_bytes += own_slice.n;
    outr__h1_write_piece(&c->base.out, own_slice, x->is_chunked);
    outr__conn_flush_soon(&c->base);
    x->is_out_full = outr__conn_is_full(&c->base);
    return !x->is_out_full;
}

/* The peer must see that this is not the whole of it: no last chunk, or less than the length, and
 * then the end of the connection. Without either of them the end must not look like one. */
static void break_response(exchange *x)
{
    h1 *c = x->conn;
    x->is_ended = x->is_broken = true;
    if (c->is_closed)
        return;
    outr__conn_write(&c->base);
    if (x->has_body && !x->is_chunked && x->left < 0)
        outr_stream_reset(c->base.stream);
    else
        outr_stream_close(c->base.stream);
}

static void out_end(outr_sink *sink, const struct outr_headers *trailers)
{
    exchange *x = of_sink(sink);
    h1 *c = x->conn;
    sink->source = NULL;
    if (x->is_ended)
        return;
    if (x->left > 0) {
        break_response(x);
        finish_exchange(c);
        return;
    }
    x->is_ended = true;
    if (x->is_chunked)
        outr__h1_write_last_chunk(&c->base.out, trailers);
    if (x->is_raw && !c->is_closed) { /* half-closed: the client may have more to say */
        outr__conn_write(&c->base);
        outr_stream_shutdown(c->base.stream);
    }
    outr__conn_flush_soon(&c->base);
    finish_exchange(c);
}

static void out_abort(outr_sink *sink, const outr_err *err OUTR_UNUSED)
{
    exchange *x = of_sink(sink);
    sink->source = NULL;
    if (x->is_ended)
        return;
    break_response(x);
    finish_exchange(x->conn);
}

static const outr_sink_ops out_ops = {.data = out_data, .end = out_end, .abort = out_abort};

static void do_inform(outr_exchange *xx, const outr_http_response *head)
{
    static const outr__h1_frame frame = {0};
    exchange *x = of_x(xx);
    h1 *c = x->conn;
    if (head->status == 100) {
        send_continue(x);
        return;
    }
    if (x->has_head || c->is_closed || c->is_http10 || head->status < 100 || head->status == 101 ||
        head->status > 199)
        return;
    outr__h1_write_response(&c->base.out, head, &frame);
    outr__conn_flush_soon(&c->base);
}

static const char *connection_value(const exchange *x, bool is_http10)
{
    if (x->is_raw)
        return "Upgrade";
    if (!x->keep_alive)
        return "close";
    return is_http10 ? "keep-alive" : NULL;
}

static void begin_tunnel(exchange *x, const outr_http_response *head, outr__h1_frame *frame)
{
    h1 *c = x->conn;
    outr_str upgrade = outr_headers_get(&head->headers, "Upgrade");
    frame->upgrade = upgrade.n ? upgrade : x->x.req.upgrade;
    frame->date = OUTR_STR_NONE;
    x->body_ended = c->saw_eof;
    c->reading = READ_RAW;
    outr_bufq_move(&x->held, &c->ahead); /* sent behind the request */
    outr_loop_defer(c->base.loop, &x->pusher);
}

static bool is_too_old(const h1 *c)
{
    uint64_t max_age_ns = outr__server_options(c->base.server)->max_age_ns;
    return max_age_ns && outr_loop_now(c->base.loop) - c->opened_ns > max_age_ns;
}

static outr_sink *do_respond(outr_exchange *xx, const outr_http_response *head)
{
    exchange *x = of_x(xx);
    h1 *c = x->conn;
    bool is_http10 = c->is_http10;
    outr__h1_frame frame = {.date = outr__server_date(c->base.server),
                            .length = head->content_length};
    assert(!x->has_head && (head->status != 101 || x->is_offer));
    x->has_head = true;
    x->out.ops = &out_ops;
    xx->status = head->status;
    x->is_raw = head->status == 101;
    x->has_body = x->is_raw || outr_http_has_body(xx->req.method, head->status);
    x->left = x->has_body && !x->is_raw ? head->content_length : -1;
    /* Without a body a length is only told where it says something: for HEAD and 304. */
    frame.has_length = head->content_length >= 0 && head->status >= 200 && head->status != 204 &&
                       (x->has_body || head->content_length > 0);
    x->is_chunked = frame.is_chunked =
        x->has_body && !x->is_raw && head->content_length < 0 && !is_http10;
    if (x->has_body && !x->is_raw && head->content_length < 0 && is_http10)
        x->keep_alive = false; /* the end of the connection ends the body */
    if (xx->req.wants_continue && !x->told_continue && !x->body_ended)
        x->keep_alive = false; /* its body may come or not: RFC 9110 section 10.1.1 */
    if ((c->saw_eof && c->ahead.bytes == 0) || outr__server_is_draining(c->base.server) ||
        is_too_old(c) || outr_headers_has_token(&head->headers, "Connection", "close"))
        x->keep_alive = false;
    frame.connection = connection_value(x, is_http10);
    if (x->is_raw)
        begin_tunnel(x, head, &frame);
    else if (x->is_offer)
        x->body_ended = true;
    x->is_offer = false;
    outr__h1_write_response(&c->base.out, head, &frame);
    outr__conn_flush_soon(&c->base);
    return &x->out;
}

static void do_done(outr_exchange *xx)
{
    exchange *x = of_x(xx);
    x->is_done = true;
    xx->on_gone = NULL;
    if (x->body.sink) {
        x->body.sink->source = NULL;
        x->body.sink = NULL;
    }
    discard_body(x);
    if (!x->is_ended)
        break_response(x);
    finish_exchange(x->conn);
}

static const outr__exchange_ops exchange_ops = {
    .inform = do_inform, .respond = do_respond, .done = do_done};

/* ---- life of a connection -------------------------------------------------------------------- */

static void free_if_over(h1 *c)
{
    if (!c->is_closed || c->x || c->dying > 0)
        return;
    outr_loop_undefer(&c->goer);
    outr_loop_undefer(&c->reaper);
    outr_bufq_done(&c->ahead);
    outr__h1_collect_done(&c->head);
    outr__conn_leave(&c->base);
    free(c);
}

static void on_reap(outr_deferred *deferred)
{
    free_if_over(OUTR_CONTAINER(deferred, h1, reaper));
}

static void on_reap_exchange(outr_deferred *deferred)
{
    exchange *x = OUTR_CONTAINER(deferred, exchange, reaper);
    h1 *c = x->conn;
    outr_loop_undefer(&x->pusher);
    outr__server_arena_done(c->base.server, x->x.arena);
    c->dying--;
    free_if_over(c);
}

/* The peer may still be sending, and a close now could destroy the answer on its way. Half-close,
 * read and drop for a moment, then close. */
static void linger(h1 *c)
{
    c->is_lingering = true;
    c->reading = READ_NOTHING;
    outr_bufq_done(&c->ahead);
    outr__h1_collect_done(&c->head);
    outr__conn_write(&c->base);
    outr_stream_shutdown(c->base.stream);
    outr__deadline_set(c->base.loop, &c->base.deadline, outr_loop_now(c->base.loop) + LINGER_NS);
    outr_stream_read_start(c->base.stream);
}

static void end_connection(h1 *c, bool is_read)
{
    if (!is_read || c->ahead.bytes > 0) {
        linger(c);
        return;
    }
    c->reading = READ_NOTHING;
    outr__conn_write(&c->base);
    outr_stream_close(c->base.stream);
}

/* A rest small enough to be read for the sake of the connection. */
static bool is_worth_reading(const h1 *c, const exchange *x)
{
    uint64_t left = c->in.kind == OUTR__BODY_LENGTH ? c->in.left : 0;
    return x->keep_alive && !x->is_broken && !x->is_raw && x->discarded + left <= DISCARD_MAX;
}

/* Over when the response has ended, the handler is done and the request was read. */
static void finish_exchange(h1 *c)
{
    exchange *x = c->x;
    if (!x || !x->is_ended || !x->is_done)
        return;
    bool is_read = x->body_ended || x->is_offer;
    if (!is_read && !x->broken && !c->is_closed && is_worth_reading(c, x)) {
        update(c); /* comes back with the end of the body */
        return;
    }
    bool keeps = x->keep_alive && !x->is_broken && is_read && !x->is_raw &&
                 (!c->saw_eof || c->ahead.bytes > 0);
    c->x = NULL;
    x->is_over = true;
    outr_bufq_done(&x->held);
    outr__h1_body_done(&c->in);
    outr__server_request_ended(c->base.server, &x->x, x->is_broken);
    x->reaper.run = on_reap_exchange;
    outr_loop_defer(c->base.loop, &x->reaper);
    c->dying++;
    if (c->is_closed || c->base.stream->is_closing)
        return;
    if (!keeps || outr__server_is_draining(c->base.server)) {
        end_connection(c, is_read || c->saw_eof);
        return;
    }
    c->reading = READ_HEAD;
    if (c->ahead.bytes > 0 && !c->is_feeding)
        outr_loop_defer(c->base.loop, &c->goer);
    update(c);
}

static bool wants_body(const h1 *c)
{
    const exchange *x = c->x;
    return x->is_discarding || (x->body.sink && !x->is_sink_full && x->held.bytes < AHEAD_MAX);
}

/* Reads while somebody wants what would come; during an answer only to learn that the client has
 * gone. Sets how long that may take. */
static void update(h1 *c)
{
    uint64_t now = outr_loop_now(c->base.loop), at = UINT64_MAX;
    bool reads = !c->saw_eof;
    if (c->is_closed || c->is_lingering || c->base.stream->is_closing)
        return;
    switch (c->reading) {
    case READ_HEAD:
        at = c->head.partial.n > 0 ? c->head_since_ns + limits(c)->header_timeout_ns
                                   : now + limits(c)->idle_ns;
        break;
    case READ_BODY:
        reads = reads && wants_body(c);
        if (!reads)
            c->wait_since_ns = 0;
        else if (!c->wait_since_ns)
            c->wait_since_ns = now;
        if (reads)
            at = c->wait_since_ns + limits(c)->body_idle_ns;
        break;
    case READ_RAW:
        reads = reads && wants_body(c);
        break;
    case READ_DONE:
        reads = reads && c->ahead.bytes < AHEAD_MAX;
        break;
    case READ_NOTHING:
        reads = false;
        break;
    }
    at = OUTR_MIN(
        at, outr__stall_deadline(&c->base.stall, c->base.stream, now, limits(c)->write_idle_ns));
    outr__deadline_set(c->base.loop, &c->base.deadline, at == UINT64_MAX ? 0 : at);
    if (reads)
        outr_stream_read_start(c->base.stream);
    else
        outr_stream_read_stop(c->base.stream);
}

/* Our own answer to what is no request; worded as Go's net/http does. */
static void refuse(h1 *c, int status)
{
    char text[256];
    const char *reason = outr_http_status_text(status);
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: "
                     "close\r\n\r\n%d %s",
                     status, reason, status, reason);
    outr_bufq_copy(&c->base.out, text, (size_t)n);
    linger(c);
}

/* ---- reading --------------------------------------------------------------------------------- */

static exchange *new_exchange(h1 *c)
{
    outr_arena *arena = outr__server_arena(c->base.server);
    exchange *x = outr_arena_alloc(arena, sizeof *x);
    x->conn = c;
    x->x.loop = c->base.loop;
    x->x.arena = arena;
    x->x.server = c->base.server;
    x->x.peer = c->base.stream->peer;
    x->x.ops = &exchange_ops;
    x->x.started_ns = outr_loop_now(c->base.loop);
    x->pusher.run = on_push;
    x->body = (outr_source){.ops = &body_ops, .length = -1};
    return x;
}

/* `Upgrade: h2c` (RFC 7540 section 3.2). True: the stream and the arena belong to an HTTP/2
 * connection from here. */
static bool try_h2c(h1 *c, exchange *x, outr_chunk *chunk, const char *p, const char *end)
{
    const outr_http_server_options *o = outr__server_options(c->base.server);
    outr_http_request *req = &x->x.req;
    outr_stream *stream = c->base.stream;
    outr_str settings;
    if (!outr_str_iis(req->upgrade, "h2c"))
        return false;
    bool is_wanted =
        o->allow_h2 && c->ahead.bytes == 0 && !outr__server_is_draining(c->base.server) &&
        outr_headers_has_token(&req->headers, "Connection", "HTTP2-Settings") &&
        outr_base64_decode(x->x.arena, outr_headers_get(&req->headers, "HTTP2-Settings"),
                           &settings);
    req->upgrade = OUTR_STR_NONE;
    outr_headers_remove(&req->headers, "HTTP2-Settings");
    outr_headers_remove(&req->headers, "Upgrade");
    outr_headers_remove(&req->headers, "Connection");
    if (!is_wanted)
        return false;
    outr_bufq_copy(
        &c->base.out,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 71);
    outr__conn_write(&c->base);
    c->base.stream = NULL;
    c->is_closed = true;
    c->reaper.run = on_reap;
    outr_loop_defer(c->base.loop, &c->reaper);
    outr__h2_upgrade(c->base.server, stream, settings, req, x->x.arena, chunk, p,
                     (size_t)(end - p));
    return true;
}

/* "A B C" where C is no version of HTTP, such as a preface of HTTP/2 gone wrong: where that is
 * spoken too, the end of the connection is the answer (RFC 9113 section 3.4). */
static bool is_other_protocol(outr_str head)
{
    outr_str line, token;
    outr_str_cut(head, '\r', &line);
    outr_str rest = outr_str_cut(line, ' ', &token);
    outr_str version = rest.p ? outr_str_cut(rest, ' ', &token) : rest;
    return version.n > 0 && !outr_str_istarts(version, OUTR_STR("HTTP"));
}

static void begin_request(h1 *c, outr_str head, outr_chunk *chunk, const char *p, const char *end)
{
    const outr_http_server_options *o = outr__server_options(c->base.server);
    exchange *x = new_exchange(c);
    outr_http_request *req = &x->x.req;
    outr__h1_framing framing;
    int status = outr__h1_parse_request(x->x.arena, head, o->limits.max_headers, req, &framing);
    bool is_other = status == 400 && o->allow_h2 && is_other_protocol(head);
    outr__h1_collect_done(&c->head);
    if (status) {
        outr__server_arena_done(c->base.server, x->x.arena);
        if (is_other)
            outr_stream_close(c->base.stream);
        else
            refuse(c, status);
        return;
    }
    req->scheme = c->base.stream->is_secure ? OUTR_STR("https") : OUTR_STR("http");
    if (req->upgrade.n > 0 && try_h2c(c, x, chunk, p, end))
        return;
    c->x = x;
    c->is_http10 = framing.minor == 0;
    x->keep_alive = framing.keep_alive;
    x->is_offer = req->upgrade.n > 0;
    x->body_ended = req->content_length == 0 && !x->is_offer;
    c->reading = req->content_length == 0 ? READ_DONE : READ_BODY;
    outr__h1_body_init(&c->in, framing.is_chunked ? OUTR__BODY_CHUNKED : OUTR__BODY_LENGTH,
                       (uint64_t)OUTR_MAX(req->content_length, 0), o->limits.max_header_bytes);
    if (x->is_offer) {
        x->x.tunnel = &x->body;
    } else if (req->content_length != 0) {
        x->body.length = req->content_length;
        x->x.body = &x->body;
    }
    outr__server_request_began(c->base.server);
    o->handler->on_request(o->ctx, &x->x);
}

static void feed_head(h1 *c, outr_chunk *chunk, const char **p, const char *end)
{
    outr_str head;
    if (c->head.partial.n == 0) {
        while (*p < end && (**p == '\r' || **p == '\n')) /* RFC 9112 section 2.2 */
            (*p)++;
        if (*p == end)
            return;
        c->head_since_ns = outr_loop_now(c->base.loop);
        if (!(outr__header_chars[(unsigned char)**p] &
              OUTR__CHAR_TOKEN)) { /* no need to wait for its end */
            refuse(c, 400);
            return;
        }
    }
    int status = outr__h1_collect(&c->head, p, end, limits(c)->max_header_bytes, &head);
    if (status == 1)
        begin_request(c, head, chunk, *p, end);
    else if (status)
        refuse(c, status);
}

/* Straight to the sink when it can, else kept for it; so are tiny chunks, to become bigger ones. */
static void take_piece(exchange *x, outr_chunk *chunk, outr_str piece)
{
    bool is_direct = piece.n >= TINY || x->conn->in.kind != OUTR__BODY_CHUNKED;
    x->x.received_bytes += piece.n;
    if (x->is_discarding)
        x->discarded += piece.n;
    else if (is_direct && chunk && x->held.count == 0 && x->body.sink && !x->is_sink_full)
        give(x, outr_slice_of(chunk, piece.p, piece.n));
    else if (chunk && piece.n >= COPY_BELOW)
        outr_bufq_push(&x->held, outr_slice_of(chunk, piece.p, piece.n));
    else
        outr_bufq_copy(&x->held, piece.p, piece.n);
}

static void end_body(h1 *c)
{
    exchange *x = c->x;
    if (c->in.trailers.n > 2 && !outr__h1_parse_trailers(x->x.arena, outr_buf_view(&c->in.trailers),
                                                         limits(c)->max_headers, &x->trailers)) {
        break_body(x, OUTR_INVALID_ARGUMENT, "malformed trailers");
        c->reading = READ_NOTHING;
        x->keep_alive = false;
        return;
    }
    c->reading = READ_DONE;
    x->body_ended = true;
}

static void feed_body(h1 *c, outr_chunk *chunk, const char **p, const char *end)
{
    exchange *x = c->x;
    outr__h1_body_result result;
    outr_str piece;
    c->wait_since_ns = 0;
    while ((result = outr__h1_body_take(&c->in, p, end, &piece)) == OUTR__BODY_DATA) {
        take_piece(x, chunk, piece);
        if (x->is_over) /* the sink made an end of it */
            return;
    }
    if (result == OUTR__BODY_END) {
        end_body(c);
    } else if (result != OUTR__BODY_MORE) {
        c->reading = READ_NOTHING;
        x->keep_alive = false;
        break_body(x, OUTR_INVALID_ARGUMENT,
                   result == OUTR__BODY_BAD ? "malformed chunked encoding"
                                            : "trailers are too large");
    }
    push_body(x);
    if (x->is_over)
        return;
    finish_exchange(c); /* when it only waited for this, or has seen enough */
}

/* Bytes of no chunk (chunk NULL) are copied where they are kept. */
static void feed(h1 *c, outr_chunk *chunk, const char *p, const char *end)
{
    c->is_feeding = true;
    while (p < end && !c->is_closed && !c->is_lingering && !c->base.stream->is_closing &&
           c->reading != READ_NOTHING) {
        switch (c->reading) {
        case READ_HEAD:
            feed_head(c, chunk, &p, end);
            break;
        case READ_BODY:
            feed_body(c, chunk, &p, end);
            break;
        case READ_DONE:
            outr_bufq_copy(&c->ahead, p, (size_t)(end - p));
            p = end;
            break;
        default: /* READ_RAW */
            take_piece(c->x, chunk, outr_str_of(p, (size_t)(end - p)));
            if (c->x)
                push_body(c->x);
            p = end;
        }
    }
    c->is_feeding = false;
    update(c);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void tell_gone(h1 *c, const outr_err *err)
{
    exchange *x = c->x;
    break_body(x, OUTR_UNAVAILABLE, "the client closed the connection");
    x->keep_alive = false;
    if (!x->is_ended && c->is_closed) {
        x->is_broken = true;
        if (x->out.source)
            outr_source_cancel(x->out.source, err);
    }
    if (x->x.on_gone && !x->was_told_gone) {
        x->was_told_gone = true;
        x->x.on_gone(&x->x, err);
    }
}

static void on_data(outr_stream *stream, outr_chunk *chunk, const char *p, size_t n)
{
    h1 *c = stream->owner;
    if (c->is_lingering)
        return;               /* dropped */
    if (c->ahead.bytes > 0) { /* in order: what came before waits still */
        outr_bufq_copy(&c->ahead, p, n);
        update(c);
        return;
    }
    feed(c, chunk, p, p + n);
}

static void on_eof(outr_stream *stream)
{
    h1 *c = stream->owner;
    outr_err err;
    c->saw_eof = true;
    if (!c->x) {
        if (c->ahead.bytes == 0 || c->is_lingering)
            outr_stream_close(stream);
        return;
    }
    if (c->reading == READ_RAW) { /* half-closed: the other direction may go on */
        c->x->body_ended = true;
        push_body(c->x);
        finish_exchange(c);
        if (c->x)
            update(c);
        return;
    }
    if (c->reading == READ_DONE && c->ahead.bytes > 0)
        return; /* it waits for more than one answer */
    outr_fail(&err, OUTR_CANCELLED, "the client closed the connection");
    tell_gone(c, &err);
    finish_exchange(c); /* when it only waited for the rest of the body */
}

static void on_error(outr_stream *stream, const outr_err *err)
{
    h1 *c = stream->owner;
    c->saw_eof = true;
    if (c->x)
        tell_gone(c, err);
    outr_stream_close(stream);
}

static void resume_response(h1 *c)
{
    exchange *x = c->x;
    if (!x || !x->is_out_full || outr__conn_is_full(&c->base))
        return;
    x->is_out_full = false;
    outr_source_resume(x->out.source);
}

static void on_drain(outr_stream *stream)
{
    h1 *c = stream->owner;
    resume_response(c);
    update(c);
}

static void on_closed(outr_stream *stream)
{
    h1 *c = stream->owner;
    c->is_closed = true;
    c->base.stream = NULL;
    if (c->x) {
        outr_err err;
        outr_fail(&err, OUTR_CANCELLED, "the connection was closed");
        tell_gone(c, &err);
        finish_exchange(c);
    }
    free_if_over(c);
}

static const outr_stream_events events = {.on_data = on_data,
                                          .on_eof = on_eof,
                                          .on_drain = on_drain,
                                          .on_error = on_error,
                                          .on_closed = on_closed};

/* Takes up what came behind the last request. */
static void on_go_on(outr_deferred *deferred)
{
    h1 *c = OUTR_CONTAINER(deferred, h1, goer);
    outr_bufq ahead = c->ahead;
    c->ahead = (outr_bufq){0};
    while (ahead.count > 0 && !c->is_closed && !c->is_lingering) {
        outr_slice slice = outr_bufq_pop(&ahead);
        if (c->reading == READ_DONE) {
            outr_bufq_push(&c->ahead, slice);
            continue;
        }
        feed(c, slice.chunk, slice.p, slice.p + slice.n);
        outr_slice_done(&slice);
    }
    outr_bufq_done(&ahead);
    if (c->saw_eof && !c->x && c->ahead.bytes == 0 && !c->is_closed)
        end_connection(c, true);
}

static void do_flush(outr__conn *conn)
{
    h1 *c = OUTR_CONTAINER(conn, h1, base);
    outr__conn_write(conn);
    resume_response(c);
    update(c);
}

static void do_drain(outr__conn *conn)
{
    h1 *c = OUTR_CONTAINER(conn, h1, base);
    if (conn->stream && ((!c->x && !c->is_lingering) || (c->x && c->x->is_raw)))
        outr_stream_close(conn->stream);
}

static void do_expire(outr__conn *conn)
{
    h1 *c = OUTR_CONTAINER(conn, h1, base);
    if (!conn->stream)
        return;
    if (c->is_lingering ||
        (c->reading == READ_HEAD && c->head.partial.n == 0 && conn->stream->pending_bytes == 0)) {
        outr_stream_close(conn->stream);
    } else if (outr__stall_is_over(&c->base.stall, conn->stream, outr_loop_now(conn->loop),
                                   limits(c)->write_idle_ns)) {
        outr_stream_reset(conn->stream); /* the peer reads nothing */
    } else if (c->reading == READ_HEAD && c->head.partial.n > 0) {
        refuse(c, 408);
    } else if (c->reading == READ_BODY && wants_body(c)) {
        c->reading = READ_NOTHING;
        c->x->keep_alive = false;
        break_body(c->x, OUTR_DEADLINE_EXCEEDED, "timed out reading the request body");
        finish_exchange(c);
    } else {
        update(c);
    }
}

static const outr__conn_ops conn_ops = {.flush = do_flush, .drain = do_drain, .expire = do_expire};

void outr__h1_accept(outr_http_server *server, outr_stream *own_stream, outr_chunk *chunk,
                     const char *p, size_t n)
{
    h1 *c = outr_alloc(sizeof *c);
    outr__conn_open(&c->base, &conn_ops, server, own_stream);
    c->goer.run = on_go_on;
    c->opened_ns = outr_loop_now(c->base.loop);
    own_stream->events = &events;
    update(c);
    if (n > 0)
        feed(c, chunk, p, p + n);
}
