/* HTTP/2 on an accepted connection: the session's streams as exchanges, its life and its end. */
#include "http/conn.h"
#include "http/h2_session.h"

#define DRAIN_PATIENCE_NS                                                                          \
    OUTR_SEC /* for a peer that does not answer the ping behind the warning GOAWAY */

/* What the ping behind the warning GOAWAY carries, as Go's gRPC has it. */
static const uint8_t drain_ping[8] = {1, 6, 1, 8, 0, 3, 3, 9};

typedef struct exchange exchange;

typedef struct h2_conn {
    outr__conn base;
    outr__h2 h2;
    outr_list exchanges;
    size_t exchange_count; /* with those that are over and not freed yet */
    uint64_t opened_ns, drain_since_ns;
    uint64_t idle_since_ns;      /* while there is no exchange */
    uint64_t read_ns, pinged_ns; /* when bytes came; when we asked, 0: nothing to wait for */
    uint64_t leave_ns;    /* drains from then on: a certificate ends; 0: none does */
    uint64_t sweep_at_ns; /* when to look for bodies that do not come; 0: not set */
    bool is_closed, is_broken, is_draining, has_final_goaway;
    bool was_idle; /* why it drains */
} h2_conn;

struct exchange {
    outr_exchange x;
    outr__h2_stream stream;
    h2_conn *conn;
    outr_link link;
    outr_deferred reaper;
    outr_sink nothing; /* for responses without a body */
    bool has_head, is_done, is_begun, is_broken, is_over;
};

static exchange *of_x(outr_exchange *x)
{
    return OUTR_CONTAINER(x, exchange, x);
}

static exchange *of_stream(outr__h2_stream *s)
{
    return OUTR_CONTAINER(s, exchange, stream);
}

static h2_conn *of_h2(outr__h2 *h2)
{
    return OUTR_CONTAINER(h2, h2_conn, h2);
}

static const outr_http_limits *limits(const h2_conn *c)
{
    return &outr__server_options(c->base.server)->limits;
}

/* When a silent peer is to be asked, or to have answered. */
static uint64_t ping_time(const h2_conn *c)
{
    const outr_http_server_options *o = outr__server_options(c->base.server);
    bool is_ours = o->settings_id && c->h2.peer_setting == o->settings_value;
    if (!o->ping_interval_ns || (is_ours && c->exchange_count == 0)) /* idle_ns ends it */
        return UINT64_MAX;
    return c->pinged_ns ? c->pinged_ns + o->ping_timeout_ns : c->read_ns + o->ping_interval_ns;
}

/* How long the peer may do nothing. */
static void note_time(h2_conn *c)
{
    uint64_t now = outr_loop_now(c->base.loop), at;
    if (c->is_closed)
        return;
    if (c->exchange_count == 0)
        c->sweep_at_ns = 0;
    else if (!c->sweep_at_ns)
        c->sweep_at_ns = now + limits(c)->body_idle_ns;
    at = ping_time(c);
    if (c->leave_ns && !c->is_draining)
        at = OUTR_MIN(at, c->leave_ns);
    if (c->base.end.at_ns)
        at = OUTR_MIN(at, c->base.end.at_ns);
    if (c->sweep_at_ns)
        at = OUTR_MIN(at, c->sweep_at_ns);
    else if (!c->is_draining)
        at = OUTR_MIN(at, c->idle_since_ns + limits(c)->idle_ns);
    at = OUTR_MIN(
        at, outr__stall_deadline(&c->base.stall, c->base.stream, now, limits(c)->write_idle_ns));
    if (c->h2.head_since_ns)
        at = OUTR_MIN(at, c->h2.head_since_ns + limits(c)->header_timeout_ns);
    if (c->is_draining && !c->has_final_goaway)
        at = OUTR_MIN(at, c->drain_since_ns + DRAIN_PATIENCE_NS);
    outr__deadline_set(c->base.loop, &c->base.deadline, at == UINT64_MAX ? 0 : at);
}

static void free_if_over(h2_conn *c)
{
    if (!c->is_closed || c->exchange_count > 0)
        return;
    outr__h2_done(&c->h2);
    outr__conn_leave(&c->base);
    free(c);
}

/* ---- exchanges ------------------------------------------------------------------------------- */

static void on_reap(outr_deferred *deferred)
{
    exchange *x = OUTR_CONTAINER(deferred, exchange, reaper);
    h2_conn *c = x->conn;
    outr_loop_undefer(&x->stream.pusher);
    outr__server_arena_done(c->base.server, x->x.arena);
    c->exchange_count--;
    if (c->exchange_count == 0)
        c->idle_since_ns = outr_loop_now(c->base.loop);
    if (c->exchange_count == 0 && c->has_final_goaway && !c->is_closed)
        outr__conn_flush_soon(&c->base); /* nothing is left to be sent: it closes */
    free_if_over(c);
}

/* Over when the handler is done and the session has closed the stream. */
static void end_if_over(exchange *x)
{
    h2_conn *c = x->conn;
    if (x->is_over || !x->is_done || !x->stream.is_closed)
        return;
    x->is_over = true;
    x->x.received_bytes = x->stream.received_bytes;
    x->x.sent_bytes = x->stream.sent_bytes;
    outr__h2_stream_done(&x->stream, NULL);
    outr_link_remove(&x->link);
    if (x->is_begun)
        outr__server_request_ended(c->base.server, &x->x, x->is_broken);
    x->reaper.run = on_reap;
    outr_loop_defer(c->base.loop, &x->reaper);
}

static bool drop_data(outr_sink *sink OUTR_UNUSED, outr_slice own_slice)
{
    outr_slice_done(&own_slice);
    return true;
}

static void drop_end(outr_sink *sink, const struct outr_headers *trailers OUTR_UNUSED)
{
    sink->source = NULL;
}

static void drop_abort(outr_sink *sink, const outr_err *err OUTR_UNUSED)
{
    exchange *x = OUTR_CONTAINER(sink, exchange, nothing);
    sink->source = NULL;
    outr__h2_stream_reset(&x->stream, NGHTTP2_INTERNAL_ERROR);
}

static const outr_sink_ops drop_ops = {.data = drop_data, .end = drop_end, .abort = drop_abort};

static void do_inform(outr_exchange *xx, const outr_http_response *head)
{
    exchange *x = of_x(xx);
    if (!x->has_head && head->status != 101)
        outr__h2_submit_inform(&x->stream, head);
}

static outr_sink *do_respond(outr_exchange *xx, const outr_http_response *head)
{
    exchange *x = of_x(xx);
    outr_http_response copy = *head;
    bool is_raw = head->status == 101;
    bool has_body =
        is_raw || (outr_http_has_body(xx->req.method, head->status) && head->content_length != 0);
    assert(!x->has_head);
    x->has_head = true;
    xx->status = head->status;
    x->nothing.ops = &drop_ops;
    if (is_raw) { /* RFC 8441 section 5: success is 2xx */
        copy.status = 200;
        copy.content_length = -1;
    }
    outr_str date = outr__server_date(x->conn->base.server);
    if (outr__h2_submit_response(&x->stream, &copy, date, has_body) == OUTR_INTERNAL)
        outr__h2_stream_reset(&x->stream, NGHTTP2_INTERNAL_ERROR);
    return has_body ? &x->stream.out : &x->nothing;
}

static void do_done(outr_exchange *xx)
{
    exchange *x = of_x(xx);
    outr__h2_stream *s = &x->stream;
    x->is_done = true;
    xx->on_gone = NULL;
    if (s->in.sink) {
        s->in.sink->source = NULL;
        s->in.sink = NULL;
    }
    outr_source_cancel(&s->in, NULL);
    if (!x->has_head || (s->out_is_open && !s->out_ended)) {
        x->is_broken = true;
        outr__h2_stream_reset(s, NGHTTP2_INTERNAL_ERROR);
    } else {
        outr__h2_stream_stop_input(s);
    }
    end_if_over(x);
}

static const outr__exchange_ops exchange_ops = {
    .inform = do_inform, .respond = do_respond, .done = do_done};

static exchange *new_exchange(h2_conn *c, outr_arena *arena)
{
    exchange *x = outr_arena_alloc(arena, sizeof *x);
    x->conn = c;
    x->x.loop = c->base.loop;
    x->x.arena = arena;
    x->x.server = c->base.server;
    x->x.peer = c->base.stream->peer;
    if (c->base.stream->peer_id.n)
        x->x.peer_id = outr_arena_str(arena, c->base.stream->peer_id);
    x->x.ops = &exchange_ops;
    x->x.started_ns = outr_loop_now(c->base.loop);
    outr__h2_stream_init(&x->stream, &c->h2, arena);
    outr_list_push(&c->exchanges, &x->link);
    c->exchange_count++;
    note_time(c);
    return x;
}

static void run_handler(exchange *x)
{
    const outr_http_server_options *o = outr__server_options(x->conn->base.server);
    x->is_begun = true;
    outr__server_request_began(x->conn->base.server);
    o->handler->on_request(o->ctx, &x->x);
}

static void refuse(exchange *x, int status)
{
    outr_http_response head = {.status = status, .content_length = 0};
    outr_headers_init(&head.headers, x->x.arena);
    x->x.req.method = OUTR_STR("GET");
    const outr_http_server_options *o = outr__server_options(x->conn->base.server);
    if (o->on_refuse)
        o->on_refuse(&x->x, &head);
    do_respond(&x->x, &head);
    do_done(&x->x);
}

/* ---- what the session tells ------------------------------------------------------------------ */

static outr__h2_stream *on_new_stream(outr__h2 *h2)
{
    h2_conn *c = of_h2(h2);
    if (c->has_final_goaway)
        return NULL;
    return &new_exchange(c, outr__server_arena(c->base.server))->stream;
}

/* The `cookie` crumbs of RFC 9113 section 8.2.3 become one header again. */
static void join_cookies(outr_headers *h)
{
    size_t kept = 0, crumbs = 0, bytes = 0, used = 0;
    for (size_t i = 0; i < h->count; i++) {
        if (!outr_str_is(h->items[i].name, "cookie"))
            continue;
        crumbs++;
        bytes += h->items[i].value.n + 2;
    }
    if (crumbs < 2)
        return;
    char *joined = outr_arena_alloc(h->arena, bytes);
    for (size_t i = 0; i < h->count; i++) {
        outr_header item = h->items[i];
        if (!outr_str_is(item.name, "cookie")) {
            h->items[kept++] = item;
            continue;
        }
        if (used > 0) {
            memcpy(joined + used, "; ", 2);
            used += 2;
        }
        if (item.value.n > 0)
            memcpy(joined + used, item.value.p, item.value.n);
        used += item.value.n;
    }
    h->count = kept;
    outr_headers_add(h, OUTR_STR("cookie"), outr_str_of(joined, used));
}

static void take_request(exchange *x)
{
    outr__h2_stream *s = &x->stream;
    outr_http_request *req = &x->x.req;
    uint64_t length;
    req->method = s->protocol.n ? OUTR_STR("GET") : s->method;
    req->scheme = s->scheme;
    req->target = s->path.n ? s->path : s->authority;
    req->authority = s->authority.n ? s->authority : outr_headers_get(&s->headers, "host");
    req->upgrade = s->protocol;
    req->http_major = 2;
    req->headers = s->headers;
    outr_headers_init(&s->headers, s->arena); /* trailers go here */
    outr_headers_remove(&req->headers, "host");
    join_cookies(&req->headers);
    outr_str text = outr_headers_get(&req->headers, "content-length");
    req->content_length = s->in_ended ? 0 : -1;
    if (text.n && outr_str_to_u64(text, INT64_MAX, &length))
        req->content_length = (int64_t)length;
    outr_headers_remove(&req->headers, "content-length");
    s->wants_continue = req->wants_continue =
        !s->in_ended && outr_str_iis(outr_headers_get(&req->headers, "expect"), "100-continue");
    outr_headers_remove(&req->headers, "expect");
    s->in.length = req->content_length;
    if (s->protocol.n)
        x->x.tunnel = &s->in;
    else if (!s->in_ended)
        x->x.body = &s->in;
}

static void on_head(outr__h2 *h2 OUTR_UNUSED, outr__h2_stream *s)
{
    exchange *x = of_stream(s);
    if (s->is_too_large) {
        refuse(x, 431);
        return;
    }
    take_request(x);
    run_handler(x);
}

/* The stream ended before the handler was done with it. Any of these may make it finish. */
static void tell_gone(exchange *x, const outr_err *err)
{
    outr__h2_stream *s = &x->stream;
    x->is_broken = true;
    if (s->out.source)
        outr_source_cancel(s->out.source, err);
    if (!s->in_ended)
        outr__h2_stream_break(s, OUTR_CANCELLED, "the client reset the stream");
    if (x->x.on_gone)
        x->x.on_gone(&x->x, err);
}

static void on_close(outr__h2 *h2 OUTR_UNUSED, outr__h2_stream *s, uint32_t error_code)
{
    exchange *x = of_stream(s);
    if (!x->is_begun)
        x->is_done = true; /* reset before its head was complete */
    bool is_answered = x->has_head && (!s->out_is_open || s->out_ended) && !s->was_reset;
    if (!x->is_done && (error_code != NGHTTP2_NO_ERROR || !is_answered)) {
        outr_err err;
        outr_fail(&err, OUTR_CANCELLED, "the client reset the stream (error %u)", error_code);
        tell_gone(x, &err);
    }
    end_if_over(x);
}

static void goaway(h2_conn *c, uint32_t code, const char *text)
{
    c->is_draining = c->has_final_goaway = true;
    nghttp2_submit_goaway(c->h2.session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(c->h2.session), code,
                          (const uint8_t *)text, strlen(text));
    outr__conn_flush_soon(&c->base);
}

static void final_goaway(h2_conn *c)
{
    if (!c->has_final_goaway && !c->is_closed)
        goaway(c, NGHTTP2_NO_ERROR, c->was_idle ? "max_idle" : "");
}

/* Time is over for a connection on which calls go on: it says why and closes, whether they do or
 * not. Closing it is what tells the handlers. */
static void cut(h2_conn *c)
{
    const outr_http_server_options *o = outr__server_options(c->base.server);
    const char *reason = c->base.end.reason;
    c->base.end.at_ns = 0;
    if (c->exchange_count > 0)
        o->on_cut(o->ctx, &c->base.stream->peer, reason, c->exchange_count);
    goaway(c, NGHTTP2_NO_ERROR, reason);
    c->is_broken = true;
}

static void on_ping(outr__h2 *h2)
{
    h2_conn *c = of_h2(h2);
    uint64_t min_ns = outr__server_options(c->base.server)->min_ping_ns;
    if (c->is_broken || outr__h2_guard_ping(&h2->guard, outr_loop_now(c->base.loop), min_ns))
        return;
    goaway(c, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_pings");
    c->is_broken = true; /* closed once that is sent */
}

/* The peer has seen the warning: what it sent before is here by now. */
static void on_pong(outr__h2 *h2, const uint8_t *opaque)
{
    h2_conn *c = of_h2(h2);
    if (c->is_draining && memcmp(opaque, drain_ping, sizeof drain_ping) == 0)
        final_goaway(c);
}

/* nghttp2 would let a ping submitted with it overtake the warning, and its answer prove nothing. */
static void on_goaway_sent(outr__h2 *h2)
{
    h2_conn *c = of_h2(h2);
    if (c->is_draining && !c->has_final_goaway)
        nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, drain_ping);
}

static void on_goaway(outr__h2 *h2 OUTR_UNUSED, outr_str text OUTR_UNUSED) {}
static void on_settings(outr__h2 *h2 OUTR_UNUSED) {}
static void on_inform(outr__h2 *h2 OUTR_UNUSED, outr__h2_stream *s OUTR_UNUSED,
                      int status OUTR_UNUSED)
{
}

static void wants_flush(outr__h2 *h2)
{
    h2_conn *c = of_h2(h2);
    if (!c->is_closed)
        outr__conn_flush_soon(&c->base);
}

static const outr__h2_events h2_events = {
    .on_head = on_head,
    .on_inform = on_inform,
    .on_close = on_close,
    .on_goaway = on_goaway,
    .on_goaway_sent = on_goaway_sent,
    .on_settings = on_settings,
    .on_ping = on_ping,
    .on_pong = on_pong,
    .wants_flush = wants_flush,
    .new_stream = on_new_stream,
};

/* ---- the connection -------------------------------------------------------------------------- */

static void do_drain(outr__conn *conn);

/* Sends what may be sent, unless the peer reads too slowly: then its windows stay where they are.
 */
static void do_flush(outr__conn *conn)
{
    h2_conn *c = OUTR_CONTAINER(conn, h2_conn, base);
    uint64_t max_age_ns = outr__server_options(conn->server)->max_age_ns;
    bool goes_on = true, has_more = true;
    if (c->is_closed || conn->stream->is_closing)
        return;
    if (max_age_ns && outr_loop_now(conn->loop) - c->opened_ns > max_age_ns)
        do_drain(conn);
    while (goes_on && has_more && !outr_stream_is_full(conn->stream)) {
        goes_on = outr__h2_pull(&c->h2, &has_more);
        outr__stall_write(&conn->stall, conn->stream, &c->h2.out);
    }
    note_time(c);
    if (!goes_on || (c->is_broken && (!has_more || outr_stream_is_full(conn->stream))))
        outr_stream_close(conn->stream);
}

static void on_data(outr_stream *stream, outr_chunk *chunk, const char *p, size_t n)
{
    h2_conn *c = stream->owner;
    c->read_ns = outr_loop_now(c->base.loop);
    c->pinged_ns = 0;
    if (c->is_broken)
        return;
    if (!outr__h2_feed(&c->h2, chunk, p, n))
        c->is_broken = true;
    note_time(c);
}

static void on_eof(outr_stream *stream)
{
    outr_stream_close(stream);
}

static void on_error(outr_stream *stream, const outr_err *err OUTR_UNUSED)
{
    h2_conn *c = stream->owner;
    const outr_http_server_options *o = outr__server_options(c->base.server);
    if (stream->why && o->on_cut)
        o->on_cut(o->ctx, &stream->peer, stream->why, c->exchange_count);
    outr_stream_close(stream);
}

static void on_drain(outr_stream *stream)
{
    h2_conn *c = stream->owner;
    outr__conn_flush_soon(&c->base);
}

static void on_closed(outr_stream *stream)
{
    h2_conn *c = stream->owner;
    c->is_closed = true;
    c->base.stream = NULL;
    outr_list all;
    outr__list_take(&all, &c->exchanges);
    while (!outr_list_is_empty(&all)) {
        exchange *x = OUTR_LIST_ITEM(outr_list_pop(&all), exchange, link);
        outr_list_push(&c->exchanges, &x->link);
        bool was_closed = x->stream.is_closed;
        x->stream.is_closed = true;
        if (!was_closed)
            on_close(&c->h2, &x->stream, NGHTTP2_CANCEL);
        else
            end_if_over(x);
    }
    free_if_over(c);
}

static const outr_stream_events events = {.on_data = on_data,
                                          .on_eof = on_eof,
                                          .on_drain = on_drain,
                                          .on_error = on_error,
                                          .on_closed = on_closed};

/* Two steps (RFC 9113 section 6.8): a warning, and when the peer has seen it the last stream that
 * counts, so that requests on their way are not lost. */
static void do_drain(outr__conn *conn)
{
    h2_conn *c = OUTR_CONTAINER(conn, h2_conn, base);
    if (c->is_draining || c->is_closed)
        return;
    c->is_draining = true;
    c->drain_since_ns = outr_loop_now(conn->loop);
    nghttp2_submit_shutdown_notice(c->h2.session);
    outr__conn_flush_soon(conn);
}

/* Bodies that somebody waits for and that do not come, answers whose rest nobody takes. */
static void sweep(h2_conn *c)
{
    uint64_t now = outr_loop_now(c->base.loop);
    c->sweep_at_ns = 0;
    outr_list all;
    outr__list_take(&all, &c->exchanges);
    while (!outr_list_is_empty(&all)) {
        exchange *x = OUTR_LIST_ITEM(outr_list_pop(&all), exchange, link);
        outr__h2_stream *s = &x->stream;
        outr_list_push(&c->exchanges, &x->link);
        bool is_waiting = s->in.sink && !s->is_sink_full && !s->in_ended && s->protocol.n == 0;
        if (is_waiting && now - s->last_ns >= limits(c)->body_idle_ns)
            outr__h2_stream_break(s, OUTR_DEADLINE_EXCEEDED, "timed out reading the request body");
        if (x->is_done && !s->is_closed && !s->was_reset &&
            now - s->sent_ns >= limits(c)->write_idle_ns)
            outr__h2_stream_reset(s, NGHTTP2_CANCEL);
    }
}

/* False: the peer is gone. */
static bool keep_alive(h2_conn *c, uint64_t now)
{
    if (now < ping_time(c))
        return true;
    if (c->pinged_ns)
        return false;
    nghttp2_submit_ping(c->h2.session, NGHTTP2_FLAG_NONE, NULL);
    c->pinged_ns = now;
    outr__conn_flush_soon(&c->base);
    return true;
}

static void do_expire(outr__conn *conn)
{
    h2_conn *c = OUTR_CONTAINER(conn, h2_conn, base);
    uint64_t now = outr_loop_now(conn->loop);
    if (!conn->stream)
        return;
    if (!keep_alive(c, now) ||
        outr__stall_is_over(&c->base.stall, conn->stream, now, limits(c)->write_idle_ns)) {
        outr_stream_reset(conn->stream); /* the peer reads nothing */
        return;
    }
    if (c->base.end.at_ns && now >= c->base.end.at_ns) {
        cut(c);
        return;
    }
    if (c->h2.head_since_ns && now >= c->h2.head_since_ns + limits(c)->header_timeout_ns) {
        nghttp2_session_terminate_session(c->h2.session, NGHTTP2_NO_ERROR);
        outr__conn_flush_soon(conn);
        return;
    }
    if (c->is_draining && now >= c->drain_since_ns + DRAIN_PATIENCE_NS) {
        final_goaway(c);
    } else if (c->leave_ns && !c->is_draining && now >= c->leave_ns) {
        do_drain(conn);
    } else if (c->exchange_count == 0 && !c->is_draining &&
               now >= c->idle_since_ns + limits(c)->idle_ns) {
        c->was_idle = true;
        do_drain(conn);
    } else if (c->sweep_at_ns && now >= c->sweep_at_ns) {
        sweep(c);
    }
    note_time(c);
}

static const outr__conn_ops conn_ops = {.flush = do_flush, .drain = do_drain, .expire = do_expire};

static h2_conn *open_conn(outr_http_server *server, outr_stream *stream)
{
    const outr_http_server_options *so = outr__server_options(server);
    const outr__h2_options o = {
        .loop = so->loop,
        .is_server = true,
        .allow_connect_protocol = so->allow_connect_protocol,
        .limits = &so->limits,
        .events = &h2_events,
        .settings_id = so->settings_id,
        .settings_value = so->settings_value,
    };
    h2_conn *c = outr_alloc(sizeof *c);
    outr_err err;
    outr_list_init(&c->exchanges);
    outr__conn_open(&c->base, &conn_ops, server, stream);
    c->opened_ns = c->idle_since_ns = c->read_ns = outr_loop_now(so->loop);
    c->leave_ns = outr__leave_time(stream, c->opened_ns);
    if (so->on_cut)
        outr__end_sooner(&c->base.end, stream->expires_ns, OUTR_TLS_EXPIRED);
    stream->events = &events;
    if (outr__h2_init(&c->h2, &o, &err)) {
        OUTR_LOG(outr_loop_log(so->loop), ERROR, "a connection could not be served",
                 OUTR_ERR(&err));
        outr_stream_reset(stream);
    }
    note_time(c);
    return c;
}

void outr__h2_accept(outr_http_server *server, outr_stream *own_stream, outr_chunk *chunk,
                     const char *p, size_t n)
{
    h2_conn *c = open_conn(server, own_stream);
    if (own_stream->is_closing)
        return;
    outr_stream_read_start(own_stream);
    outr__conn_flush_soon(&c->base);
    if (n > 0)
        on_data(own_stream, chunk, p, n);
}

void outr__h2_upgrade(outr_http_server *server, outr_stream *own_stream, outr_str settings,
                      const outr_http_request *req, outr_arena *own_arena, outr_chunk *chunk,
                      const char *p, size_t n)
{
    h2_conn *c = open_conn(server, own_stream);
    if (own_stream->is_closing) {
        outr_arena_free(own_arena);
        return;
    }
    exchange *x = new_exchange(c, own_arena);
    x->x.req = *req;
    x->stream.id = 1;
    x->stream.has_message = true;
    x->stream.in_ended = true; /* an upgrade with a body is not taken */
    int rc = nghttp2_session_upgrade2(c->h2.session, (const uint8_t *)settings.p, settings.n,
                                      outr_str_is(req->method, "HEAD"), NULL);
    if (!rc) /* a server's session takes no user data above */
        rc = nghttp2_session_set_stream_user_data(c->h2.session, 1, &x->stream);
    outr_stream_read_start(own_stream);
    if (rc) {
        x->stream.is_closed = x->is_done = true;
        end_if_over(x);
        outr_stream_reset(own_stream);
        return;
    }
    run_handler(x);
    outr__conn_flush_soon(&c->base);
    if (n > 0)
        on_data(own_stream, chunk, p, n);
}
