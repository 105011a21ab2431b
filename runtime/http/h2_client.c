/* HTTP/2 towards a server: the calls of a pool as the session's streams. */
#include "http/conn.h"
#include "http/h2_session.h"

typedef struct h2_client {
    outr__client base;
    outr_loop *loop;
    outr_stream *stream; /* NULL once closed */
    outr__h2 h2;
    outr_list calls;
    outr_deferred flusher, reaper;
    outr__deadline deadline; /* of a peer that reads nothing */
    outr_timer greeting;     /* until its SETTINGS are here */
    outr__stall stall;
    outr_timer pinger;   /* keepalive: asks, then waits half an interval for the answer */
    uint32_t pull_count; /* times frames were taken from the session */
    bool is_broken, is_leaving, is_waiting_for_pong, saw_bytes;
    bool has_lapsed;   /* nobody was asked for a while, as there were no calls */
    char farewell[64]; /* text of the peer's GOAWAY, "" before */
} h2_client;

/* One call on the connection; lies on the call's arena. */
typedef struct h2_call {
    outr__h2_stream stream;
    h2_client *client;
    outr_http_call *call; /* NULL: over */
    outr_link link;
    uint32_t submitted_at; /* pull_count then: unchanged, nothing of it has left */
    bool has_head;
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

static const outr_http_limits *limits(const h2_client *c)
{
    return &outr__pool_options(c->base.pool)->limits;
}

static void free_if_over(h2_client *c)
{
    if (c->stream || c->base.active > 0)
        return;
    outr_loop_undefer(&c->flusher);
    outr_loop_undefer(&c->reaper);
    outr_timer_stop(c->loop, &c->pinger);
    outr_timer_stop(c->loop, &c->greeting);
    outr_timer_stop(c->loop, &c->deadline.timer);
    outr__h2_done(&c->h2);
    outr__pool_gone(&c->base);
    free(c);
}

static void on_reap(outr_deferred *deferred)
{
    free_if_over(OUTR_CONTAINER(deferred, h2_client, reaper));
}

/* ---- the end of a call ----------------------------------------------------------------------- */

/* The connection goes once what is still to be said has been sent, a GOAWAY at the end of it. */
static void leave(h2_client *c)
{
    if (!c->is_broken && !c->is_leaving)
        nghttp2_submit_goaway(c->h2.session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
    c->is_leaving = true;
    outr_loop_flush(c->loop, &c->flusher);
}

static void detach(h2_call *k, const outr_err *err)
{
    h2_client *c = k->client;
    k->call = NULL;
    outr_link_remove(&k->link);
    outr__h2_stream_done(&k->stream, err);
    c->base.active--;
    outr__pool_changed(&c->base);
    if (!c->stream)
        outr_loop_defer(c->loop, &c->reaper);
    else if (c->base.is_retired && c->base.active == 0)
        leave(c);
}

static void end_call(h2_call *k, const outr_err *err)
{
    outr_http_call *call = k->call;
    outr_err copy;
    if (!call)
        return;
    if (err) {
        if (call->progress == OUTR_CALL_SENT && k->submitted_at == k->client->pull_count)
            call->progress = OUTR_CALL_NOT_SENT;
        copy = *err; /* it may lie in what goes now */
        copy.retriable = call->progress == OUTR_CALL_NOT_SENT;
    }
    detach(k, err ? &copy : NULL);
    outr__call_end(call, err ? &copy : NULL);
}

/* The response has been told in full and the session is done with the stream. */
static void end_if_over(h2_call *k)
{
    outr__h2_stream *s = &k->stream;
    if (k->call && s->is_closed && k->has_head &&
        (s->is_told || s->is_discarding || !k->call->response))
        end_call(k, NULL);
}

/* The answer is over, and with it the call; the peer need not reset what it does not read. */
static void end_if_answered(h2_call *k)
{
    outr__h2_stream *s = &k->stream;
    if (!k->call || !k->call->ends_with_answer || !s->in_ended || !s->is_told || s->is_closed ||
        s->out_ended)
        return;
    outr__h2_stream_reset(s, NGHTTP2_NO_ERROR);
    end_call(k, NULL);
}

/* ---- what the session tells ------------------------------------------------------------------ */

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
        s->out.ops->end(&s->out, NULL);
    call->response = s->in_ended ? NULL : &s->in;
    if (s->in_ended)
        s->is_told = true;
    s->in.length = is_tunnel ? -1 : call->head.content_length;
    if (is_tunnel && call->body) {
        call->body_taken = true;
        outr_source_attach(call->body, &s->out);
    }
    call->on_response(call);
    end_if_answered(k);
}

static void on_inform(outr__h2 *h2 OUTR_UNUSED, outr__h2_stream *s, int status)
{
    h2_call *k = of_stream(s);
    outr_http_response head = {.status = status, .headers = s->headers, .content_length = -1};
    if (k->call && k->call->on_inform)
        k->call->on_inform(k->call, &head);
}

static void on_close(outr__h2 *h2 OUTR_UNUSED, outr__h2_stream *s, uint32_t error_code)
{
    h2_call *k = of_stream(s);
    outr_err err;
    if (!k->call)
        return;
    if (k->has_head && s->in_ended) {
        if (s->out.source) /* answered before it read all of the request */
            outr_source_cancel(s->out.source, NULL);
        end_if_over(k); /* else the end of the body does it */
        return;
    }
    k->call->reset_code = error_code;
    outr_fail(&err, OUTR_UNAVAILABLE, "the peer reset the stream (error %u)", error_code);
    if (error_code ==
        NGHTTP2_REFUSED_STREAM) { /* the peer says so, or its GOAWAY leaves the stream out */
        k->call->progress = OUTR_CALL_NOT_SENT;
        outr_fail(&err, OUTR_UNAVAILABLE, "the peer refused the stream");
    }
    end_call(k, &err);
}

static void on_goaway(outr__h2 *h2, outr_str text)
{
    h2_client *c = of_h2(h2);
    size_t n = 0;
    for (; n < text.n && n < sizeof c->farewell - 1 && text.p[n] >= ' ' && text.p[n] <= '~'; n++)
        c->farewell[n] = text.p[n];
    c->farewell[n] = 0;
    c->base.is_retired = true;
    outr__pool_changed(&c->base);
}

static void on_settings(outr__h2 *h2)
{
    h2_client *c = of_h2(h2);
    uint32_t max =
        nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    outr_timer_stop(c->loop, &c->greeting);
    outr__pool_met(&c->base, h2->peer_setting, OUTR_MIN(max, 1u << 20));
}

/* any byte will do, see on_ping_time */
static void on_pong(outr__h2 *h2 OUTR_UNUSED, const uint8_t *opaque OUTR_UNUSED) {}

static void wants_flush(outr__h2 *h2)
{
    h2_client *c = of_h2(h2);
    if (c->stream)
        outr_loop_flush(c->loop, &c->flusher);
}

/* The sink has had the whole body, or gave it up. */
static void on_told(outr__h2 *h2 OUTR_UNUSED, outr__h2_stream *s)
{
    h2_call *k = of_stream(s);
    if (k->call && s->is_discarding && !s->is_closed &&
        !s->in_ended) { /* nor is there more to be done */
        outr__h2_stream_reset(s, NGHTTP2_CANCEL);
        end_call(k, NULL);
    }
    end_if_over(k);
    end_if_answered(k);
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
    .on_pong = on_pong,
    .wants_flush = wants_flush,
    .new_stream = no_stream,
    .on_told = on_told,
};

/* ---- what the pool asks ---------------------------------------------------------------------- */

static void note_time(h2_client *c)
{
    uint64_t at = outr__stall_deadline(&c->stall, c->stream, outr_loop_now(c->loop),
                                       limits(c)->write_idle_ns);
    if (c->base.leave_ns && !c->base.is_retired)
        at = OUTR_MIN(at, c->base.leave_ns);
    if (c->base.end.at_ns)
        at = OUTR_MIN(at, c->base.end.at_ns);
    outr__deadline_set(c->loop, &c->deadline, at == UINT64_MAX ? 0 : at);
}

static void on_flush(outr_deferred *deferred)
{
    h2_client *c = OUTR_CONTAINER(deferred, h2_client, flusher);
    bool goes_on = true, has_more = true;
    if (!c->stream || c->stream->is_closing)
        return;
    while (goes_on && has_more && !outr_stream_is_full(c->stream)) {
        goes_on = outr__h2_pull(&c->h2, &has_more);
        c->pull_count++;
        outr__stall_write(&c->stall, c->stream, &c->h2.out);
    }
    note_time(c);
    if (!goes_on || (c->is_broken && (!has_more || outr_stream_is_full(c->stream))) ||
        (c->base.is_retired && c->base.active == 0))
        outr_stream_close(c->stream);
}

/* By whole seconds: connections by the hundred wake the loop once. */
static void ask_later(h2_client *c, uint64_t in_ns)
{
    uint64_t at = outr_loop_now(c->loop) + in_ns, whole = in_ns >= 5 * OUTR_SEC ? OUTR_SEC : 1;
    outr_timer_start(c->loop, &c->pinger, (at + whole - 1) / whole * whole);
}

static void ask_for_pong(h2_client *c)
{
    uint64_t interval = outr__pool_options(c->base.pool)->ping_interval_ns;
    c->is_waiting_for_pong = true;
    c->saw_bytes = false;
    nghttp2_submit_ping(c->h2.session, NGHTTP2_FLAG_NONE, NULL);
    outr_loop_flush(c->loop, &c->flusher);
    ask_later(c, interval / 2);
}

/* Among our own kind connections are asked while calls are on them: a thousand idle ones cost
 * nothing. Who may have gone meanwhile is asked together with the first call. */
static bool spares_idle(const h2_client *c)
{
    const outr_http_pool_options *po = outr__pool_options(c->base.pool);
    return po->settings_id && c->h2.peer_setting == po->settings_value;
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
    k->submitted_at = c->pull_count;
    client->active++;
    bool has_body = call->body != NULL && call->req->upgrade.n == 0;
    if (outr__h2_submit_request(&k->stream, call->req, has_body, &err)) {
        k->stream.is_closed = true;
        end_call(k, &err);
        return;
    }
    if (c->has_lapsed)
        ask_for_pong(c);
    c->has_lapsed = false;
    call->progress = OUTR_CALL_SENT;
    call->body_taken = has_body;
    if (has_body)
        outr_source_attach(call->body, &k->stream.out);
    else
        k->stream.out_ended = call->req->upgrade.n == 0;
}

static void do_cancel(outr__client *client OUTR_UNUSED, outr_http_call *call)
{
    h2_call *k = ((outr__call *)call->impl)->stream;
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "the call was cancelled");
    outr__h2_stream_reset(&k->stream, NGHTTP2_CANCEL);
    if (k->call)
        detach(k, &err);
}

static void do_retire(outr__client *client)
{
    h2_client *c = of(client);
    client->is_retired = true;
    outr__pool_changed(client);
    if (client->active == 0 && c->stream)
        leave(c);
    else if (c->stream)
        outr_loop_flush(c->loop, &c->flusher); /* by which it looks at the time again */
}

/* An answer that is here in full is still given to its sink. */
static void fail_all(h2_client *c, const outr_err *err)
{
    outr_list all;
    outr__list_take(&all, &c->calls);
    while (!outr_list_is_empty(&all)) {
        h2_call *k = OUTR_LIST_ITEM(outr_list_pop(&all), h2_call, link);
        outr_list_push(&c->calls, &k->link);
        k->stream.is_closed = true;
        if (k->has_head && k->stream.in_ended)
            end_if_over(k);
        else
            end_call(k, err);
    }
}

static void lose(h2_client *c, const outr_err *err)
{
    c->base.is_retired = true;
    outr__pool_changed(&c->base);
    fail_all(c, err);
    outr__pool_unmet(&c->base, err);
    if (c->stream)
        outr_stream_close(c->stream);
}

static void do_close(outr__client *client)
{
    h2_client *c = of(client);
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "the connection pool was closed");
    while (!outr_list_is_empty(&c->calls)) {
        h2_call *k = OUTR_LIST_ITEM(c->calls.next, h2_call, link);
        outr__h2_stream_reset(&k->stream, NGHTTP2_CANCEL);
        end_call(k, &err);
    }
    client->is_retired = true;
    if (c->stream)
        outr_stream_close(c->stream);
}

/* Time is over for a connection on which calls go on: it says why and closes, whether they do or
 * not. */
static void cut(h2_client *c)
{
    const outr_http_pool_options *o = outr__pool_options(c->base.pool);
    const char *reason = c->base.end.reason;
    outr_err err;
    c->base.end.at_ns = 0;
    if (c->base.active > 0)
        o->on_cut(o->ctx, reason, c->base.active);
    if (!c->is_leaving)
        nghttp2_submit_goaway(c->h2.session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR,
                              (const uint8_t *)reason, strlen(reason));
    c->is_leaving = true;
    on_flush(&c->flusher);
    outr_fail(&err, OUTR_UNAVAILABLE, "the connection was cut off (reason: %s)", reason);
    lose(c, &err);
}

static const outr_stream *stream_of_client(const outr__client *client)
{
    return OUTR_CONTAINER((outr__client *)(uintptr_t)client, h2_client, base)->stream;
}

static const outr__client_ops client_ops = {.start = do_start,
                                            .cancel = do_cancel,
                                            .retire = do_retire,
                                            .close = do_close,
                                            .stream = stream_of_client};

/* ---- the connection -------------------------------------------------------------------------- */

static void on_data(outr_stream *stream, outr_chunk *chunk, const char *p, size_t n)
{
    h2_client *c = stream->owner;
    c->saw_bytes = true;
    if (!c->is_broken && !outr__h2_feed(&c->h2, chunk, p, n))
        c->is_broken = true;
}

static void on_eof(outr_stream *stream)
{
    h2_client *c = stream->owner;
    outr_err err;
    if (c->farewell[0])
        outr_fail(&err, OUTR_UNAVAILABLE, "the peer closed the connection (reason: %s)",
                  c->farewell);
    else
        outr_fail(&err, OUTR_UNAVAILABLE, "the peer closed the connection");
    lose(c, &err);
}

static void on_error(outr_stream *stream, const outr_err *err)
{
    outr_err copy = *err;
    copy.code = OUTR_UNAVAILABLE;
    lose(stream->owner, &copy);
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
    c->stream = NULL;
    outr_fail(&err, OUTR_UNAVAILABLE,
              c->is_broken ? "the peer broke the protocol" : "the connection was closed");
    lose(c, &err);
    free_if_over(c);
}

static const outr_stream_events events = {.on_data = on_data,
                                          .on_eof = on_eof,
                                          .on_drain = on_drain,
                                          .on_error = on_error,
                                          .on_closed = on_closed};

static void on_deadline(outr_timer *timer)
{
    h2_client *c = OUTR_CONTAINER(timer, h2_client, deadline.timer);
    uint64_t now = outr_loop_now(c->loop);
    if (!outr__deadline_is_due(c->loop, &c->deadline) || !c->stream || c->stream->is_closing)
        return;
    if (c->base.end.at_ns && now >= c->base.end.at_ns)
        cut(c);
    else if (c->base.leave_ns && !c->base.is_retired && now >= c->base.leave_ns)
        do_retire(&c->base);
    else if (outr__stall_is_over(&c->stall, c->stream, now, limits(c)->write_idle_ns))
        outr_stream_reset(c->stream); /* the peer reads nothing */
    else
        outr_loop_flush(c->loop, &c->flusher);
}

static void on_no_greeting(outr_timer *timer)
{
    h2_client *c = OUTR_CONTAINER(timer, h2_client, greeting);
    outr_err err;
    if (!c->stream)
        return;
    outr_fail(&err, OUTR_UNAVAILABLE, "the peer does not speak HTTP/2: no SETTINGS from it");
    lose(c, &err);
}

static void on_ping_time(outr_timer *timer)
{
    h2_client *c = OUTR_CONTAINER(timer, h2_client, pinger);
    uint64_t interval = outr__pool_options(c->base.pool)->ping_interval_ns;
    if (!c->stream)
        return;
    if (c->is_waiting_for_pong && !c->saw_bytes) {
        outr_err err;
        outr_fail(&err, OUTR_UNAVAILABLE, "the peer does not answer pings");
        lose(c, &err);
        return;
    }
    if (c->is_waiting_for_pong) {
        c->is_waiting_for_pong = false;
        ask_later(c, interval / 2);
    } else if (outr_list_is_empty(&c->calls) && spares_idle(c)) {
        c->has_lapsed = true; /* an interval after the last ping at least: peers count them */
    } else {
        ask_for_pong(c);
    }
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
    c->base = (outr__client){.ops = &client_ops,
                             .pool = pool,
                             .capacity = po->waits_for_settings ? 0 : 1,
                             .is_unmet = true};
    c->loop = own_stream->loop;
    c->stream = own_stream;
    c->flusher.run = on_flush;
    c->reaper.run = on_reap;
    c->pinger.fire = on_ping_time;
    c->greeting.fire = on_no_greeting;
    c->deadline.timer.fire = on_deadline;
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
    outr_timer_start(c->loop, &c->greeting, outr_loop_now(c->loop) + po->connect_timeout_ns);
    if (po->ping_interval_ns)
        ask_later(c, po->ping_interval_ns);
    return &c->base;
}
