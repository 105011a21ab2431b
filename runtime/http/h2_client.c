#include "http/conn.h"
#include "http/h2_session.h"

typedef struct h2_client {
    outr__client base;
    outr_loop *loop;
    outr_stream *stream;       /* NULL once closed */
    outr__h2 h2;
    outr_list calls;
    outr_deferred flusher;
    outr_timer pinger;         /* keepalive: asks, then waits half an interval for the answer */
    bool is_broken, is_waiting_for_pong, saw_bytes, is_gone;
    unsigned holds;
} h2_client;

/* One call on the connection; lies on the call's arena. */
typedef struct h2_call {
    outr__h2_stream stream;
    h2_client *client;
    outr_http_call *call;      /* NULL: ended */
    outr_link link;
    bool has_head, was_refused;
} h2_call;

static h2_client *of(outr__client *client)
{
    return OUTR_CONTAINER(client, h2_client, base);
}

static h2_client *of_h2(outr__h2 *h2)
{
    return OUTR_CONTAINER(h2, h2_client, h2);
}

static h2_call *of_stream(outr__h2_stream *s)
{
    return OUTR_CONTAINER(s, h2_call, stream);
}

static void hold(h2_client *c)
{
    c->holds++;
}

static void release(h2_client *c)
{
    if (--c->holds > 0 || !c->is_gone || c->base.active > 0)
        return;
    outr_loop_undefer(&c->flusher);
    outr_timer_stop(c->loop, &c->pinger);
    outr__h2_done(&c->h2);
    outr__pool_gone(&c->base);
    free(c);
}

static void close_if_idle(h2_client *c)
{
    if (c->base.is_retired && c->base.active == 0 && c->stream)
        outr_stream_close(c->stream);
}

/* ---- the end of a call ------------------------------------------------------------------------- */

static void end_call(h2_call *k, const outr_err *err)
{
    h2_client *c = k->client;
    outr_http_call *call = k->call;
    if (!call)
        return;
    hold(c);
    k->call = NULL;
    outr_link_remove(&k->link);
    outr__h2_stream_done(&k->stream, err);
    c->base.active--;
    outr__pool_changed(&c->base);
    close_if_idle(c);
    outr__call_end(call, err);
    release(c);
}

/* The response has been told in full and the request has gone out in full. */
static void check_complete(h2_call *k)
{
    outr__h2_stream *s = &k->stream;
    if (k->call && s->is_closed && k->has_head && (s->is_told || s->is_discarding || !k->call->response))
        end_call(k, s->in_broken ? &s->in_err : NULL);
}

/* ---- what the session tells -------------------------------------------------------------------- */

static bool take_head(h2_call *k)
{
    outr__h2_stream *s = &k->stream;
    outr_http_response *head = &k->call->head;
    uint64_t length;
    head->status = s->status;
    head->headers = s->headers;
    outr_headers_init(&s->headers, s->arena);
    head->content_length = -1;
    outr_str text = outr_headers_get(&head->headers, "content-length");
    if (text.n && outr_str_to_u64(text, INT64_MAX, &length))
        head->content_length = (int64_t)length;
    outr_headers_remove(&head->headers, "content-length");
    return !s->is_too_large && s->status >= 100;
}

static void malformed(h2_call *k, const char *what)
{
    outr_err err;
    outr_fail(&err, OUTR_INTERNAL, "malformed HTTP/2 response: %s", what);
    outr__h2_stream_reset(&k->stream, NGHTTP2_PROTOCOL_ERROR);
    end_call(k, &err);
}

static void on_head(outr__h2 *h2, outr__h2_stream *s)
{
    h2_call *k = of_stream(s);
    h2_client *c = of_h2(h2);
    outr_http_call *call = k->call;
    if (!call)
        return;
    if (!take_head(k)) {
        malformed(k, s->is_too_large ? "head is too large" : "no status");
        return;
    }
    bool is_tunnel = call->req->upgrade.n > 0 && s->status >= 200 && s->status < 300;
    k->has_head = true;
    call->progress = OUTR_CALL_ANSWERED;
    call->peer_setting = c->h2.peer_setting;
    if (is_tunnel) /* RFC 8441: success is 2xx; callers see what HTTP/1 shows */
        call->head.status = 101;
    else if (call->req->upgrade.n > 0)
        s->out_ended = true;
    call->response = s->in_ended ? NULL : &s->in;
    if (s->in_ended)
        s->is_told = true;
    s->in.length = is_tunnel ? -1 : call->head.content_length;
    if (is_tunnel && call->body)
        outr_source_attach(call->body, &s->out);
    hold(c);
    call->on_response(call);
    release(c);
}

static void on_inform(outr__h2 *h2 OUTR_UNUSED, outr__h2_stream *s, int status)
{
    h2_call *k = of_stream(s);
    outr_http_response head = {.status = status, .headers = s->headers, .content_length = -1};
    if (k->call && k->call->on_inform)
        k->call->on_inform(k->call, &head);
}

static void on_close(outr__h2 *h2, outr__h2_stream *s, uint32_t error_code)
{
    h2_call *k = of_stream(s);
    h2_client *c = of_h2(h2);
    outr_err err;
    if (!k->call)
        return;
    if (error_code == NGHTTP2_REFUSED_STREAM) {
        k->call->progress = OUTR_CALL_NOT_SENT; /* the peer says it was not processed */
        outr_fail(&err, OUTR_UNAVAILABLE, "the peer refused the stream");
        err.retriable = true;
        end_call(k, &err);
        return;
    }
    bool is_complete = k->has_head && s->in_ended;
    if (!is_complete) {
        outr_fail(&err, OUTR_UNAVAILABLE, "the peer reset the stream (error %u)", error_code);
        end_call(k, &err);
        return;
    }
    hold(c);
    if (s->out.source) { /* answered before it read all of the request */
        outr_source *source = s->out.source;
        s->out.source = NULL;
        outr_source_cancel(source, NULL);
    }
    check_complete(k); /* else the end of the body does it */
    release(c);
}

static void on_goaway(outr__h2 *h2, int32_t last_stream_id OUTR_UNUSED)
{
    h2_client *c = of_h2(h2);
    c->base.is_retired = true;
    c->base.capacity = 0;
    outr__pool_changed(&c->base);
}

static void set_capacity(h2_client *c)
{
    uint32_t max = nghttp2_session_get_remote_settings(c->h2.session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    if (!c->base.is_retired)
        c->base.capacity = OUTR_MIN(max, 1u << 20);
    outr__pool_changed(&c->base);
}

static void on_settings(outr__h2 *h2)
{
    set_capacity(of_h2(h2));
}

static void wants_flush(outr__h2 *h2)
{
    h2_client *c = of_h2(h2);
    if (c->stream)
        outr_loop_flush(c->loop, &c->flusher);
}

/* The sink has had the whole body, or gave it up. */
static void on_told(outr__h2 *h2, outr__h2_stream *s)
{
    h2_client *c = of_h2(h2);
    h2_call *k = of_stream(s);
    hold(c);
    if (s->is_discarding && !s->is_closed && !s->in_ended)
        outr__h2_stream_reset(s, NGHTTP2_CANCEL);
    check_complete(k);
    release(c);
}

static outr__h2_stream *no_stream(outr__h2 *h2 OUTR_UNUSED)
{
    return NULL; /* push is off */
}

static const outr__h2_events h2_events = {
    .on_head = on_head,
    .on_inform = on_inform,
    .on_close = on_close,
    .on_goaway = on_goaway,
    .on_settings = on_settings,
    .wants_flush = wants_flush,
    .new_stream = no_stream,
    .on_told = on_told,
};

/* ---- what the pool asks ------------------------------------------------------------------------ */

static void on_flush(outr_deferred *deferred)
{
    h2_client *c = OUTR_CONTAINER(deferred, h2_client, flusher);
    if (!c->stream || c->stream->is_closing)
        return;
    hold(c);
    bool goes_on = outr_stream_is_full(c->stream) || outr__h2_pull(&c->h2);
    if (c->h2.out.bytes > 0 && c->stream)
        outr_stream_write(c->stream, &c->h2.out);
    if ((!goes_on || c->is_broken) && c->stream)
        outr_stream_close(c->stream);
    release(c);
}

static void do_start(outr__client *client, outr_http_call *call)
{
    h2_client *c = of(client);
    h2_call *k = outr_arena_alloc(call->arena, sizeof *k);
    outr_err err;
    k->client = c;
    k->call = call;
    outr__h2_stream_init(&k->stream, &c->h2, call->arena);
    outr_headers_init(&call->head.headers, call->arena);
    ((outr__call *)call->impl)->stream = k;
    outr_list_push(&c->calls, &k->link);
    client->active++;
    bool has_body = call->body != NULL && call->req->upgrade.n == 0;
    if (outr__h2_submit_request(&k->stream, call->req, has_body, &err)) {
        k->stream.is_closed = true;
        err.retriable = true;
        end_call(k, &err);
        return;
    }
    call->progress = OUTR_CALL_SENT;
    call->body_taken = has_body;
    if (has_body)
        outr_source_attach(call->body, &k->stream.out);
    else
        k->stream.out_ended = call->req->upgrade.n == 0;
}

static void do_cancel(outr__client *client, outr_http_call *call)
{
    h2_client *c = of(client);
    h2_call *k = ((outr__call *)call->impl)->stream;
    outr_err err;
    hold(c);
    outr_fail(&err, OUTR_CANCELLED, "the call was cancelled");
    outr__h2_stream_reset(&k->stream, NGHTTP2_CANCEL);
    k->call = NULL;
    outr_link_remove(&k->link);
    outr__h2_stream_done(&k->stream, &err);
    client->active--;
    outr__pool_changed(client);
    close_if_idle(c);
    release(c);
}

static void do_retire(outr__client *client)
{
    client->is_retired = true;
    client->capacity = 0;
    close_if_idle(of(client));
}

static void fail_all(h2_client *c, const outr_err *err)
{
    hold(c);
    while (!outr_list_is_empty(&c->calls)) {
        h2_call *k = OUTR_LIST_ITEM(c->calls.next, h2_call, link);
        k->stream.is_closed = true;
        end_call(k, k->has_head && k->stream.in_ended ? NULL : err);
    }
    release(c);
}

static void do_close(outr__client *client)
{
    h2_client *c = of(client);
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "the connection pool was closed");
    hold(c);
    client->is_retired = true;
    fail_all(c, &err);
    if (c->stream)
        outr_stream_close(c->stream);
    release(c);
}

static const outr__client_ops client_ops = {.start = do_start, .cancel = do_cancel, .retire = do_retire, .close = do_close};

/* ---- the connection ---------------------------------------------------------------------------- */

static void on_data(outr_stream *stream, outr_chunk *chunk, const char *p, size_t n)
{
    h2_client *c = stream->owner;
    hold(c);
    c->saw_bytes = true;
    if (!outr__h2_feed(&c->h2, chunk, p, n))
        c->is_broken = true;
    release(c);
}

static void lost(h2_client *c, const outr_err *err)
{
    hold(c);
    c->base.is_retired = true;
    c->base.capacity = 0;
    fail_all(c, err);
    if (c->stream)
        outr_stream_close(c->stream);
    release(c);
}

static void on_eof(outr_stream *stream)
{
    outr_err err;
    outr_fail(&err, OUTR_UNAVAILABLE, "the peer closed the connection");
    lost(stream->owner, &err);
}

static void on_error(outr_stream *stream, const outr_err *err)
{
    outr_err copy = *err;
    copy.code = OUTR_UNAVAILABLE;
    lost(stream->owner, &copy);
}

static void on_drain(outr_stream *stream)
{
    h2_client *c = stream->owner;
    outr_loop_flush(c->loop, &c->flusher);
}

static void on_closed(outr_stream *stream)
{
    h2_client *c = stream->owner;
    outr_err err;
    hold(c);
    c->stream = NULL;
    c->is_gone = true;
    outr_fail(&err, OUTR_UNAVAILABLE, "the connection was closed");
    lost(c, &err);
    release(c);
}

static const outr_stream_events events = {.on_data = on_data, .on_eof = on_eof, .on_drain = on_drain, .on_error = on_error, .on_closed = on_closed};

static void on_ping_time(outr_timer *timer)
{
    h2_client *c = OUTR_CONTAINER(timer, h2_client, pinger);
    uint64_t interval = c->base.pool ? outr__pool_options(c->base.pool)->ping_interval_ns : 0;
    if (!c->stream || !interval)
        return;
    if (c->is_waiting_for_pong && !c->saw_bytes) {
        outr_err err;
        outr_fail(&err, OUTR_UNAVAILABLE, "the peer does not answer pings");
        lost(c, &err);
        return;
    }
    c->is_waiting_for_pong = !c->is_waiting_for_pong;
    c->saw_bytes = false;
    if (c->is_waiting_for_pong) {
        nghttp2_submit_ping(c->h2.session, NGHTTP2_FLAG_NONE, NULL);
        outr_loop_flush(c->loop, &c->flusher);
    }
    outr_timer_start(c->loop, timer, outr_loop_now(c->loop) + interval / 2);
}

outr__client *outr__h2_connect(outr_http_pool *pool, outr_stream *own_stream)
{
    const outr_http_pool_options *po = outr__pool_options(pool);
    const outr__h2_options o = {
        .loop = own_stream->loop,
        .limits = &po->limits,
        .events = &h2_events,
        .settings_id = po->settings_id,
        .settings_value = po->settings_value,
    };
    h2_client *c = outr_alloc(sizeof *c);
    outr_err err;
    c->base = (outr__client){.ops = &client_ops, .pool = pool, .capacity = 100};
    c->loop = own_stream->loop;
    c->stream = own_stream;
    c->flusher.run = on_flush;
    c->pinger.fire = on_ping_time;
    outr_list_init(&c->calls);
    own_stream->owner = c;
    own_stream->events = &events;
    if (outr__h2_init(&c->h2, &o, &err)) {
        c->base.capacity = 0;
        outr_stream_close(own_stream);
        return &c->base;
    }
    outr_stream_read_start(own_stream);
    outr_loop_flush(c->loop, &c->flusher);
    if (po->ping_interval_ns)
        outr_timer_start(c->loop, &c->pinger, outr_loop_now(c->loop) + po->ping_interval_ns);
    return &c->base;
}
