/* HTTP/1.1 towards a server (RFC 9112): one call at a time on a connection. */
#include "http/conn.h"
#include "http/h1_body.h"
#include "http/h1_head.h"

#define HELD_MAX    (64 * OUTR_KIB) /* response bytes held while the sink takes none */
#define DISCARD_MAX (64 * OUTR_KIB) /* of an unwanted body, read for the sake of the connection */
#define INFORMS_MAX 64              /* 1xx heads before the answer; more is no server */
#define COPY_BELOW  2048
#define TINY        512

typedef struct h1_call h1_call;

typedef struct h1_client {
    outr__client base;
    outr_loop *loop;
    outr_stream *stream; /* NULL once closed */
    h1_call *k;          /* NULL: idle */
    enum { READ_IDLE, READ_HEAD, READ_BODY, READ_RAW, READ_DONE } reading;
    outr__h1_collector head;
    outr__h1_body from; /* framing of the response's body */
    outr_bufq out;
    outr_deferred flusher, reaper;
    outr__deadline deadline;
    outr__stall stall;
    uint64_t wait_since_ns; /* for bytes of a body that somebody wants; 0: no waiting */
    bool keep_alive;
} h1_client;

/* One call on the connection; lies on the call's arena. */
struct h1_call {
    h1_client *client; /* NULL: over */
    outr_http_call *call;
    /* request */
    outr_sink in; /* takes its body */
    int64_t left; /* of its length; -1: not declared */
    bool is_chunked, has_sent_all, is_in_full, is_tunnel;
    /* response */
    outr_source body;
    outr_bufq held;
    outr_deferred pusher;
    outr_headers trailers;
    unsigned informs;
    bool is_sink_full, is_discarding, is_told;
};

static void update(h1_client *c);

static h1_client *of(outr__client *client)
{
    return OUTR_CONTAINER(client, h1_client, base);
}

static const outr_http_limits *limits(const h1_client *c)
{
    return &outr__pool_options(c->base.pool)->limits;
}

static void close_stream(h1_client *c)
{
    c->base.is_retired = true;
    outr__pool_changed(&c->base);
    if (c->stream)
        outr_stream_close(c->stream);
}

static void free_if_over(h1_client *c)
{
    if (c->stream || c->k)
        return;
    outr_loop_undefer(&c->flusher);
    outr_loop_undefer(&c->reaper);
    outr_timer_stop(c->loop, &c->deadline.timer);
    outr_bufq_done(&c->out);
    outr__h1_collect_done(&c->head);
    outr__h1_body_done(&c->from);
    outr__pool_gone(&c->base);
    free(c);
}

static void on_reap(outr_deferred *deferred)
{
    free_if_over(OUTR_CONTAINER(deferred, h1_client, reaper));
}

/* ---- the end of a call ----------------------------------------------------------------------- */

/* Nobody sends the rest of the request, nobody waits for the rest of the response. */
static void break_off(h1_call *k, const outr_err *err)
{
    outr_err cut;
    if (!err)
        outr_fail(&cut, OUTR_CANCELLED, "the call has ended");
    if (k->in.source)
        outr_source_cancel(k->in.source, err ? err : &cut);
    if (k->body.sink) {
        outr_sink *sink = k->body.sink;
        k->body.sink = NULL;
        sink->source = NULL;
        sink->ops->abort(sink, err ? err : &cut);
    }
}

/* Takes the call off the connection, which is used again when both messages ended where they
 * should. */
static void detach(h1_call *k, const outr_err *err)
{
    h1_client *c = k->client;
    bool keeps =
        !err && c->reading == READ_DONE && k->has_sent_all && c->keep_alive && !c->base.is_retired;
    k->client = NULL;
    c->k = NULL;
    c->base.active = 0;
    c->reading = READ_IDLE;
    outr_loop_undefer(&k->pusher);
    outr_bufq_done(&k->held);
    outr__h1_collect_done(&c->head);
    outr__h1_body_done(&c->from);
    if (k->in.source || k->body.sink)
        break_off(k, err);
    if (keeps) {
        outr__pool_changed(&c->base);
        update(c);
        return;
    }
    close_stream(c);
    if (!c->stream)
        outr_loop_defer(c->loop, &c->reaper);
}

static void end_call(h1_call *k, const outr_err *err)
{
    if (!k->client)
        return;
    outr_http_call *call = k->call;
    outr_err copy;
    if (err) {
        copy = *err; /* it may lie in what goes now */
        copy.retriable = call->progress == OUTR_CALL_NOT_SENT;
    }
    detach(k, err ? &copy : NULL);
    outr__call_end(call, err ? &copy : NULL);
}

static void end_if_over(h1_call *k)
{
    if (!k->client || k->client->reading != READ_DONE || k->held.count > 0 ||
        (k->is_tunnel && !k->has_sent_all))
        return;
    if (k->is_told || k->is_discarding || !k->call->response)
        end_call(k, NULL);
}

/* ---- response body as a source --------------------------------------------------------------- */

static void give(h1_call *k, outr_slice own_slice)
{
    k->is_sink_full = true; /* stands unless the sink says otherwise, now or by resume */
    if (k->body.sink->ops->data(k->body.sink, own_slice))
        k->is_sink_full = false;
}

static void push(h1_call *k)
{
    while (k->client && k->held.count > 0 && k->body.sink && !k->is_sink_full)
        give(k, outr_bufq_pop(&k->held));
    if (k->client && k->body.sink && k->client->reading == READ_DONE && k->held.count == 0 &&
        !k->is_sink_full) {
        outr_sink *sink = k->body.sink;
        k->body.sink = NULL;
        sink->source = NULL;
        k->is_told = true;
        sink->ops->end(sink, k->trailers.count ? &k->trailers : NULL);
    }
    end_if_over(k);
}

static void on_push(outr_deferred *deferred)
{
    h1_call *k = OUTR_CONTAINER(deferred, h1_call, pusher);
    push(k);
    if (k->client)
        update(k->client);
}

static void body_go_on(outr_source *source)
{
    h1_call *k = OUTR_CONTAINER(source, h1_call, body);
    k->is_sink_full = false;
    if (k->client)
        outr_loop_defer(k->client->loop, &k->pusher);
}

/* A short rest is read and dropped, for a long one the connection goes. */
static void on_discard(outr_deferred *deferred)
{
    h1_call *k = OUTR_CONTAINER(deferred, h1_call, pusher);
    h1_client *c = k->client;
    if (c->reading == READ_BODY && c->from.kind == OUTR__BODY_LENGTH && c->from.left <= DISCARD_MAX)
        update(c);
    else
        end_call(k, NULL);
}

static void body_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    h1_call *k = OUTR_CONTAINER(source, h1_call, body);
    k->is_discarding = true;
    outr_bufq_done(&k->held);
    k->pusher.run = on_discard;
    if (k->client)
        outr_loop_defer(k->client->loop, &k->pusher);
}

static const outr_source_ops body_ops = {
    .start = body_go_on, .resume = body_go_on, .cancel = body_cancel};

/* ---- request body as a sink ------------------------------------------------------------------ */

static h1_call *of_sink(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, h1_call, in);
}

static bool is_full(const h1_client *c)
{
    return c->stream && c->out.bytes + c->stream->pending_bytes > c->stream->high_water;
}

static void break_request(h1_call *k, const outr_err *err)
{
    if (k->client && k->client->stream)
        outr_stream_reset(k->client->stream); /* the server must not take it for complete */
    end_call(k, err);
}

static bool in_data(outr_sink *sink, outr_slice own_slice)
{
    h1_call *k = of_sink(sink);
    h1_client *c = k->client;
    if (!c || !c->stream) {
        outr_slice_done(&own_slice);
        return true;
    }
    if (k->left >= 0 && own_slice.n > (uint64_t)k->left) {
        outr_err err;
        outr_slice_done(&own_slice);
        outr_fail(&err, OUTR_INVALID_ARGUMENT,
                  "the request body is longer than its Content-Length");
        break_request(k, &err);
        return false;
    }
    if (k->left >= 0)
        k->left -= (int64_t)own_slice.n;
    outr__h1_write_piece(&c->out, own_slice, k->is_chunked);
    outr_loop_flush(c->loop, &c->flusher);
    k->is_in_full = is_full(c);
    return !k->is_in_full;
}

static void in_end(outr_sink *sink, const struct outr_headers *trailers)
{
    h1_call *k = of_sink(sink);
    h1_client *c = k->client;
    sink->source = NULL;
    if (!c || !c->stream)
        return;
    if (k->left > 0) {
        outr_err err;
        outr_fail(&err, OUTR_INVALID_ARGUMENT,
                  "the request body is shorter than its Content-Length");
        break_request(k, &err);
        return;
    }
    k->has_sent_all = true;
    if (k->is_tunnel) {
        outr__stall_write(&c->stall, c->stream, &c->out);
        outr_stream_shutdown(c->stream);
        end_if_over(k);
        return;
    }
    if (k->is_chunked)
        outr__h1_write_last_chunk(&c->out, trailers);
    outr_loop_flush(c->loop, &c->flusher);
}

static void in_abort(outr_sink *sink, const outr_err *err)
{
    sink->source = NULL;
    break_request(of_sink(sink), err);
}

static const outr_sink_ops in_ops = {.data = in_data, .end = in_end, .abort = in_abort};

static void resume_request(h1_client *c)
{
    h1_call *k = c->k;
    if (!k || !k->is_in_full || is_full(c))
        return;
    k->is_in_full = false;
    outr_source_resume(k->in.source);
}

static void on_flush(outr_deferred *deferred)
{
    h1_client *c = OUTR_CONTAINER(deferred, h1_client, flusher);
    if (!c->stream || c->stream->is_closing || c->out.bytes == 0)
        return;
    if (c->k && c->k->call->progress == OUTR_CALL_NOT_SENT)
        c->k->call->progress = OUTR_CALL_SENT;
    outr__stall_write(&c->stall, c->stream, &c->out);
    resume_request(c);
    update(c);
}

/* ---- a call ---------------------------------------------------------------------------------- */

static void do_start(outr__client *client, outr_http_call *call)
{
    h1_client *c = of(client);
    const outr_http_request *req = call->req;
    h1_call *k = outr_arena_alloc(call->arena, sizeof *k);
    bool has_body = call->body != NULL && req->upgrade.n == 0;
    outr__h1_frame frame = {.is_chunked = has_body && req->content_length < 0,
                            .length = has_body ? OUTR_MAX(req->content_length, 0) : 0};
    ((outr__call *)call->impl)->stream = k;
    client->active = 1;
    c->k = k;
    c->reading = READ_HEAD;
    k->client = c;
    k->call = call;
    k->in.ops = &in_ops;
    k->left = has_body ? req->content_length : -1;
    k->is_chunked = frame.is_chunked;
    k->has_sent_all = !has_body;
    k->body = (outr_source){.ops = &body_ops, .length = -1};
    k->pusher.run = on_push;
    if (req->upgrade.n > 0) {
        frame.connection = "Upgrade";
        frame.upgrade = req->upgrade;
    }
    /* A method that usually carries a body says so when there is none (RFC 9110 section 8.6). */
    frame.has_length = has_body || outr_str_is(req->method, "POST") ||
                       outr_str_is(req->method, "PUT") || outr_str_is(req->method, "PATCH");
    outr__h1_write_request(&c->out, req, &frame);
    outr_loop_flush(c->loop, &c->flusher);
    call->body_taken = has_body;
    if (has_body)
        outr_source_attach(call->body, &k->in);
}

static h1_call *of_call(outr_http_call *call)
{
    return ((outr__call *)call->impl)->stream;
}

static void do_cancel(outr__client *client OUTR_UNUSED, outr_http_call *call)
{
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "the call was cancelled");
    if (of_call(call)->client)
        detach(of_call(call), &err);
}

static void do_retire(outr__client *client)
{
    client->is_retired = true;
    if (!of(client)->k)
        close_stream(of(client));
}

static void do_close(outr__client *client)
{
    h1_client *c = of(client);
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "the connection pool was closed");
    if (c->k)
        end_call(c->k, &err);
    close_stream(c);
}

static const outr_stream *stream_of(const outr__client *client)
{
    return OUTR_CONTAINER((outr__client *)(uintptr_t)client, h1_client, base)->stream;
}

static const outr__client_ops client_ops = {.start = do_start,
                                            .cancel = do_cancel,
                                            .retire = do_retire,
                                            .close = do_close,
                                            .stream = stream_of};

/* ---- reading --------------------------------------------------------------------------------- */

/* Reads while somebody wants what comes, and while idle to learn that the server has gone. */
static void update(h1_client *c)
{
    uint64_t now = outr_loop_now(c->loop), at = UINT64_MAX;
    const h1_call *k = c->k;
    bool reads = c->reading != READ_DONE;
    if (!c->stream || c->stream->is_closing)
        return;
    if (c->reading == READ_BODY || c->reading == READ_RAW) {
        reads = k->is_discarding || (k->body.sink && !k->is_sink_full && k->held.bytes < HELD_MAX);
        if (!reads)
            c->wait_since_ns = 0;
        else if (!c->wait_since_ns)
            c->wait_since_ns = now;
        if (reads && c->reading == READ_BODY && limits(c)->body_idle_ns)
            at = c->wait_since_ns + limits(c)->body_idle_ns;
    }
    uint64_t stalls_at = outr__stall_deadline(&c->stall, c->stream, now, limits(c)->write_idle_ns);
    at = OUTR_MIN(at, stalls_at);
    outr__deadline_set(c->loop, &c->deadline, at == UINT64_MAX ? 0 : at);
    if (reads)
        outr_stream_read_start(c->stream);
    else
        outr_stream_read_stop(c->stream);
}

static void begin_body(h1_client *c, h1_call *k, const outr__h1_framing *framing)
{
    outr_http_call *call = k->call;
    outr__h1_body_kind kind = OUTR__BODY_TO_CLOSE;
    bool has_body = outr_http_has_body(call->req->method, call->head.status);
    c->keep_alive = framing->keep_alive;
    if (call->head.status == 101) {
        c->reading = READ_RAW;
        c->keep_alive = false;
        call->response = &k->body;
        k->is_tunnel = true;
        k->has_sent_all = call->body == NULL;
        call->body_taken = call->body != NULL;
        if (call->body)
            outr_source_attach(call->body, &k->in);
        return;
    }
    if (!has_body || framing->has_length)
        kind = OUTR__BODY_LENGTH;
    if (has_body && framing->is_chunked)
        kind = OUTR__BODY_CHUNKED;
    if (kind == OUTR__BODY_TO_CLOSE)
        c->keep_alive = false;
    uint64_t length = has_body && framing->has_length ? (uint64_t)framing->length : 0;
    outr__h1_body_init(&c->from, kind, length, limits(c)->max_header_bytes);
    if (kind == OUTR__BODY_LENGTH && length == 0) {
        c->reading = READ_DONE;
        return;
    }
    c->reading = READ_BODY;
    k->body.length = call->head.content_length;
    call->response = &k->body;
}

static void take_head(h1_client *c, outr_str bytes)
{
    h1_call *k = c->k;
    outr_http_call *call = k->call;
    outr_http_response head;
    outr__h1_framing framing;
    outr_err err;
    outr_code rc =
        outr__h1_parse_response(call->arena, bytes, limits(c)->max_headers, &head, &framing, &err);
    outr__h1_collect_done(&c->head);
    bool is_interim = !rc && head.status < 200 && head.status != 101;
    if (!rc && is_interim && ++k->informs > INFORMS_MAX)
        rc = outr_fail(&err, OUTR_INTERNAL, "malformed HTTP response: too many interim responses");
    if (!rc && head.status == 101 && call->req->upgrade.n == 0)
        rc = outr_fail(&err, OUTR_INTERNAL, "malformed HTTP response: an upgrade nobody asked for");
    if (rc) {
        end_call(k, &err);
        return;
    }
    if (is_interim) {
        if (call->on_inform)
            call->on_inform(call, &head);
        return;
    }
    call->head = head;
    call->progress = OUTR_CALL_ANSWERED;
    begin_body(c, k, &framing);
    call->on_response(call);
    end_if_over(k);
}

static void feed_head(h1_client *c, const char **p, const char *end)
{
    outr_str head;
    int status = outr__h1_collect(&c->head, p, end, limits(c)->max_header_bytes, &head);
    if (status == 1) {
        take_head(c, head);
    } else if (status) {
        outr_err err;
        outr_fail(&err, OUTR_INTERNAL, "malformed HTTP response: the head is larger than %zu bytes",
                  limits(c)->max_header_bytes);
        end_call(c->k, &err);
    }
}

/* Straight to the sink when it can, else kept for it; so are tiny chunks, to become bigger ones. */
static void take_piece(h1_call *k, outr_chunk *chunk, outr_str piece)
{
    if (k->is_discarding || !k->client)
        return;
    bool is_direct = piece.n >= TINY || k->client->from.kind != OUTR__BODY_CHUNKED;
    if (is_direct && k->held.count == 0 && k->body.sink && !k->is_sink_full)
        give(k, outr_slice_of(chunk, piece.p, piece.n));
    else if (piece.n >= COPY_BELOW)
        outr_bufq_push(&k->held, outr_slice_of(chunk, piece.p, piece.n));
    else
        outr_bufq_copy(&k->held, piece.p, piece.n);
}

static bool end_body(h1_client *c, h1_call *k)
{
    c->reading = READ_DONE;
    return c->from.trailers.n <= 2 ||
           outr__h1_parse_trailers(k->call->arena, outr_buf_view(&c->from.trailers),
                                   limits(c)->max_headers, &k->trailers);
}

static void feed_body(h1_client *c, outr_chunk *chunk, const char **p, const char *end)
{
    h1_call *k = c->k;
    outr__h1_body_result result;
    outr_str piece;
    c->wait_since_ns = 0;
    while ((result = outr__h1_body_take(&c->from, p, end, &piece)) == OUTR__BODY_DATA) {
        take_piece(k, chunk, piece);
        if (!k->client) /* the sink made an end of it */
            return;
    }
    if (result == OUTR__BODY_END && end_body(c, k))
        result = OUTR__BODY_MORE;
    if (result != OUTR__BODY_MORE) {
        outr_err err;
        outr_fail(&err, OUTR_INTERNAL, "malformed HTTP response: body");
        end_call(k, &err);
        return;
    }
    push(k);
}

static void on_data(outr_stream *stream, outr_chunk *chunk, const char *p, size_t n)
{
    h1_client *c = stream->owner;
    const char *end = p + n;
    while (p < end && c->stream && !c->stream->is_closing) {
        switch (c->reading) {
        case READ_HEAD:
            feed_head(c, &p, end);
            break;
        case READ_BODY:
            feed_body(c, chunk, &p, end);
            break;
        case READ_RAW:
            take_piece(c->k, chunk, outr_str_of(p, (size_t)(end - p)));
            p = end;
            if (c->k)
                push(c->k);
            break;
        case READ_DONE: /* bytes behind the answer: not a connection to use again */
            c->keep_alive = false;
            p = end;
            break;
        default: /* an idle server has nothing to say (often: 408, or Connection: close) */
            close_stream(c);
        }
    }
    update(c);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void lose(h1_client *c, const outr_err *err)
{
    if (c->k && (c->reading != READ_DONE || (c->k->is_tunnel && !c->k->has_sent_all)))
        end_call(c->k, err);
    c->keep_alive = false; /* an answer that is here in full is still given to its sink */
    close_stream(c);
}

static void on_eof(outr_stream *stream)
{
    h1_client *c = stream->owner;
    h1_call *k = c->k;
    outr_err err;
    bool ends_body = k && (c->reading == READ_RAW ||
                           (c->reading == READ_BODY && c->from.kind == OUTR__BODY_TO_CLOSE));
    if (ends_body) { /* RFC 9112 section 6.3, rule 8 */
        c->reading = READ_DONE;
        push(k);
        if (k->client && k->is_tunnel && !k->has_sent_all)
            return; /* half-closed: our side may go on */
    }
    outr_fail(&err, OUTR_UNAVAILABLE,
              c->reading == READ_HEAD ? "connection closed before a response"
                                      : "connection closed before the response was complete");
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
    h1_client *c = stream->owner;
    resume_request(c);
    update(c);
}

static void on_closed(outr_stream *stream)
{
    h1_client *c = stream->owner;
    outr_err err;
    outr_fail(&err, OUTR_UNAVAILABLE, "connection closed");
    c->stream = NULL;
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
    h1_client *c = OUTR_CONTAINER(timer, h1_client, deadline.timer);
    outr_err err;
    if (!outr__deadline_is_due(c->loop, &c->deadline) || !c->stream)
        return;
    uint64_t now = outr_loop_now(c->loop), patience_ns = limits(c)->body_idle_ns;
    bool is_stuck = outr__stall_is_over(&c->stall, c->stream, now, limits(c)->write_idle_ns);
    bool is_silent = c->reading == READ_BODY && patience_ns && c->wait_since_ns &&
                     now >= c->wait_since_ns + patience_ns;
    if (!is_stuck && !is_silent) {
        update(c);
        return;
    }
    outr_fail(&err, OUTR_DEADLINE_EXCEEDED,
              is_stuck ? "the server stopped reading the request"
                       : "the server stopped sending its response");
    outr_stream_reset(c->stream);
    lose(c, &err);
}

outr__client *outr__h1_connect(outr_http_pool *pool, outr_stream *own_stream)
{
    h1_client *c = outr_alloc(sizeof *c);
    c->base = (outr__client){.ops = &client_ops, .pool = pool, .capacity = 1};
    c->loop = own_stream->loop;
    c->stream = own_stream;
    c->flusher.run = on_flush;
    c->reaper.run = on_reap;
    c->deadline.timer.fire = on_deadline;
    own_stream->owner = c;
    own_stream->events = &events;
    outr_stream_read_start(own_stream);
    return &c->base;
}
