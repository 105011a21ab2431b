/* HTTP/1.1 towards a server (RFC 9112): one call at a time on a connection. */
#include <llhttp.h>

#include "http/conn.h"

typedef struct h1_client {
    outr__client base;
    outr_loop *loop;
    outr_stream *stream;         /* NULL once closed */
    llhttp_t parser;
    outr_bufq out;
    outr_deferred flusher;
    outr_timer timer;            /* silence: body_idle_ns while something is awaited */
    outr_http_call *call;        /* NULL: idle */
    outr_chunk *chunk;           /* being parsed */
    /* request */
    outr_sink in;                /* takes the request's body */
    bool is_chunked, has_sent_all, is_tunnel;
    int64_t left;
    /* response */
    outr_source body;
    outr_bufq held;
    outr_deferred pusher;
    outr_headers trailers;
    outr_str name;
    bool in_value, in_trailers, has_head, has_ended, is_sink_full, is_discarding, saw_bytes, is_finished;
    size_t head_bytes;
    outr_err broken;             /* code 0: not broken */
    unsigned holds;
    bool is_gone;                /* stream closed: freed when nobody holds it */
} h1_client;

static void finish_if_over(h1_client *c);

static h1_client *of(outr__client *client)
{
    return OUTR_CONTAINER(client, h1_client, base);
}

static const outr_http_limits *limits(const h1_client *c)
{
    return &outr__pool_options(c->base.pool)->limits;
}

static void hold(h1_client *c)
{
    c->holds++;
}

static void release(h1_client *c)
{
    if (--c->holds > 0 || !c->is_gone || c->call) /* a body may still be taken: the end of the call lets go */
        return;
    outr_loop_undefer(&c->flusher);
    outr_loop_undefer(&c->pusher);
    outr_timer_stop(c->loop, &c->timer);
    outr_bufq_done(&c->out);
    outr_bufq_done(&c->held);
    outr__pool_gone(&c->base);
    free(c);
}

static void close_stream(h1_client *c)
{
    c->base.is_retired = true;
    c->base.capacity = 0;
    if (c->stream)
        outr_stream_close(c->stream);
}

static void watch(h1_client *c)
{
    if (c->base.pool)
        outr_timer_start(c->loop, &c->timer, outr_loop_now(c->loop) + limits(c)->body_idle_ns);
}

/* ---- the end of a call ------------------------------------------------------------------------- */

/* The call is over; the connection is reused when both messages ended where they should. */
static void end_call(h1_client *c, const outr_err *err)
{
    outr_http_call *call = c->call;
    bool keeps = !err && c->has_ended && c->has_sent_all && !c->is_tunnel && !c->base.is_retired && llhttp_should_keep_alive(&c->parser);
    if (!call)
        return;
    hold(c);
    c->call = NULL;
    c->base.active = 0;
    outr_timer_stop(c->loop, &c->timer);
    outr_loop_undefer(&c->pusher);
    outr_bufq_done(&c->held);
    if (c->in.source) { /* its body is not wanted any more */
        outr_source *source = c->in.source;
        c->in.source = NULL;
        outr_source_cancel(source, err);
    }
    if (c->body.sink) {
        outr_sink *sink = c->body.sink;
        outr_err cut;
        c->body.sink = NULL;
        sink->source = NULL;
        outr_fail(&cut, OUTR_CANCELLED, "the call ended");
        sink->ops->abort(sink, err ? err : &cut);
    }
    if (keeps) {
        c->base.idle_since_ns = outr_loop_now(c->loop);
        outr__pool_changed(&c->base);
    } else {
        close_stream(c);
    }
    outr__call_end(call, err);
    release(c);
}

static void fail_call(h1_client *c, const outr_err *err)
{
    if (c->call && !c->broken.code)
        c->broken = *err;
    end_call(c, err);
}

static void finish_if_over(h1_client *c)
{
    if (c->call && c->has_ended && c->held.count == 0 && !c->body.sink && (c->is_finished || c->is_discarding))
        end_call(c, NULL);
}

/* ---- response body as a source ----------------------------------------------------------------- */

static void push(h1_client *c)
{
    outr_http_call *call = c->call;
    hold(c);
    while (c->held.count > 0 && c->body.sink && !c->is_sink_full) {
        outr_slice slice = outr_bufq_pop(&c->held);
        c->is_sink_full = true; /* until the sink says otherwise; a cancel from inside leaves it */
        if (!c->body.sink->ops->data(c->body.sink, slice))
            break;
        c->is_sink_full = false;
    }
    if (c->call == call && c->call && c->held.count == 0 && c->has_ended && c->body.sink && !c->is_sink_full) {
        outr_sink *sink = c->body.sink;
        c->body.sink = NULL;
        sink->source = NULL;
        c->is_finished = true;
        sink->ops->end(sink, c->trailers.count ? &c->trailers : NULL);
        if (c->call == call)
            finish_if_over(c);
    } else if (c->stream && c->call == call && c->is_sink_full) {
        outr_stream_read_stop(c->stream);
    }
    release(c);
}

static void on_push(outr_deferred *deferred)
{
    h1_client *c = OUTR_CONTAINER(deferred, h1_client, pusher);
    if (c->stream && !c->is_sink_full)
        outr_stream_read_start(c->stream);
    push(c);
}

static void body_go_on(outr_source *source)
{
    h1_client *c = OUTR_CONTAINER(source, h1_client, body);
    c->is_sink_full = false;
    if (c->call)
        watch(c);
    outr_loop_defer(c->loop, &c->pusher);
}

static void on_discarded(outr_deferred *deferred)
{
    h1_client *c = OUTR_CONTAINER(deferred, h1_client, pusher);
    c->pusher.run = on_push;
    finish_if_over(c);
    if (c->call && c->is_discarding && !c->has_ended) /* a rest of unknown length is not read for nothing */
        end_call(c, NULL);
}

static void body_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    h1_client *c = OUTR_CONTAINER(source, h1_client, body);
    c->is_discarding = true;
    outr_bufq_done(&c->held);
    if (!c->call)
        return;
    c->pusher.run = on_discarded;
    outr_loop_defer(c->loop, &c->pusher);
}

static const outr_source_ops body_ops = {.start = body_go_on, .resume = body_go_on, .cancel = body_cancel};

/* ---- request body as a sink -------------------------------------------------------------------- */

static h1_client *of_sink(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, h1_client, in);
}

static bool is_full(const h1_client *c)
{
    return c->out.bytes + (c->stream ? c->stream->pending_bytes : 0) > 64 * OUTR_KIB;
}

static void on_flush(outr_deferred *deferred)
{
    h1_client *c = OUTR_CONTAINER(deferred, h1_client, flusher);
    if (c->stream && c->out.bytes > 0)
        outr_stream_write(c->stream, &c->out);
}

static bool in_data(outr_sink *sink, outr_slice own_slice)
{
    h1_client *c = of_sink(sink);
    if (!c->call || !c->stream) {
        outr_slice_done(&own_slice);
        return true;
    }
    watch(c);
    if (c->is_chunked)
        outr__h1_write_chunk_head(&c->out, own_slice.n);
    if (c->left >= 0)
        c->left -= (int64_t)own_slice.n;
    if (own_slice.n < 2048 || !own_slice.chunk) {
        outr_bufq_copy(&c->out, own_slice.p, own_slice.n);
        outr_slice_done(&own_slice);
    } else {
        outr_bufq_push(&c->out, own_slice);
    }
    if (c->is_chunked)
        outr_bufq_copy(&c->out, "\r\n", 2);
    outr_loop_flush(c->loop, &c->flusher);
    return !is_full(c);
}

static void in_end(outr_sink *sink, const struct outr_headers *trailers)
{
    h1_client *c = of_sink(sink);
    sink->source = NULL;
    if (!c->call || !c->stream)
        return;
    if (c->is_tunnel) {
        outr_loop_undefer(&c->flusher);
        on_flush(&c->flusher);
        outr_stream_shutdown(c->stream);
        return;
    }
    if (c->left > 0) {
        outr_err err;
        outr_fail(&err, OUTR_CANCELLED, "the request body is shorter than its Content-Length");
        fail_call(c, &err);
        return;
    }
    if (c->is_chunked)
        outr__h1_write_last_chunk(&c->out, trailers);
    c->has_sent_all = true;
    outr_loop_flush(c->loop, &c->flusher);
    finish_if_over(c);
}

static void in_abort(outr_sink *sink, const outr_err *err)
{
    h1_client *c = of_sink(sink);
    sink->source = NULL;
    if (!c->call)
        return;
    hold(c);
    outr_err copy = *err;
    if (c->stream)
        outr_stream_reset(c->stream); /* the server must not take it for complete */
    fail_call(c, &copy);
    release(c);
}

static const outr_sink_ops in_ops = {.data = in_data, .end = in_end, .abort = in_abort};

/* ---- a call ------------------------------------------------------------------------------------ */

static void do_start(outr__client *client, outr_http_call *call)
{
    h1_client *c = of(client);
    const outr_http_request *req = call->req;
    bool has_body = call->body != NULL && req->upgrade.n == 0;
    client->active = 1;
    c->call = call;
    c->is_chunked = has_body && req->content_length < 0;
    c->left = has_body ? req->content_length : -1;
    c->has_sent_all = !has_body;
    c->is_tunnel = c->in_value = c->in_trailers = c->has_head = c->has_ended = c->is_sink_full = false;
    c->is_discarding = c->saw_bytes = c->is_finished = false;
    c->head_bytes = 0;
    c->broken.code = OUTR_OK;
    c->pusher.run = on_push;
    c->body = (outr_source){.ops = &body_ops, .length = -1};
    c->in.ops = &in_ops;
    outr_headers_init(&call->head.headers, call->arena);
    outr_headers_init(&c->trailers, call->arena);
    llhttp_reset(&c->parser);
    outr__h1_write_request(&c->out, req, c->is_chunked, has_body);
    call->progress = OUTR_CALL_SENT;
    outr_loop_flush(c->loop, &c->flusher);
    watch(c);
    call->body_taken = has_body;
    if (has_body)
        outr_source_attach(call->body, &c->in);
}

static void do_cancel(outr__client *client, outr_http_call *call OUTR_UNUSED)
{
    h1_client *c = of(client);
    hold(c);
    c->call = NULL;
    client->active = 0;
    outr_timer_stop(c->loop, &c->timer);
    outr_loop_undefer(&c->pusher);
    outr_bufq_done(&c->held);
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "the call was cancelled");
    if (c->in.source) {
        outr_source *source = c->in.source;
        c->in.source = NULL;
        outr_source_cancel(source, &err);
    }
    if (c->body.sink) {
        outr_sink *sink = c->body.sink;
        c->body.sink = NULL;
        sink->source = NULL;
        sink->ops->abort(sink, &err);
    }
    close_stream(c);
    release(c);
}

static void do_retire(outr__client *client)
{
    h1_client *c = of(client);
    client->is_retired = true;
    client->capacity = 0;
    if (!c->call)
        close_stream(c);
}

static void do_close(outr__client *client)
{
    h1_client *c = of(client);
    hold(c);
    client->is_retired = true;
    if (c->call) {
        outr_err err;
        outr_fail(&err, OUTR_CANCELLED, "the connection pool was closed");
        fail_call(c, &err);
    }
    close_stream(c);
    release(c);
}

static const outr__client_ops client_ops = {.start = do_start, .cancel = do_cancel, .retire = do_retire, .close = do_close};

/* ---- parsing ----------------------------------------------------------------------------------- */

static outr_str append(outr_arena *arena, outr_str before, const char *p, size_t n)
{
    if (before.n == 0)
        return outr_arena_str(arena, outr_str_of(p, n));
    char *joined = outr_arena_alloc(arena, before.n + n + 1);
    memcpy(joined, before.p, before.n);
    memcpy(joined + before.n, p, n);
    return outr_str_of(joined, before.n + n);
}

static bool over_limit(h1_client *c, size_t n)
{
    c->head_bytes += n;
    return !c->call || c->head_bytes > limits(c)->max_header_bytes;
}

static int on_header_field(llhttp_t *parser, const char *p, size_t n)
{
    h1_client *c = parser->data;
    if (over_limit(c, n))
        return HPE_USER;
    if (c->in_value) {
        c->in_value = false;
        c->name = OUTR_STR_NONE;
    }
    c->name = append(c->call->arena, c->name, p, n);
    return 0;
}

static int on_header_value(llhttp_t *parser, const char *p, size_t n)
{
    h1_client *c = parser->data;
    outr_headers *h = c->in_trailers ? &c->trailers : &c->call->head.headers;
    if (over_limit(c, n + 4))
        return HPE_USER;
    if (c->in_value && h->count > 0) {
        outr_header *last = &h->items[h->count - 1];
        last->value = append(c->call->arena, last->value, p, n);
        return 0;
    }
    c->in_value = true;
    if (h->count >= limits(c)->max_headers)
        return HPE_USER;
    outr_headers_add(h, c->name, append(c->call->arena, OUTR_STR_NONE, p, n));
    return 0;
}

static int on_message_begin(llhttp_t *parser)
{
    h1_client *c = parser->data;
    if (!c->call)
        return HPE_USER; /* an answer nobody asked for */
    outr_headers_init(&c->call->head.headers, c->call->arena);
    c->in_value = c->in_trailers = false;
    c->name = OUTR_STR_NONE;
    c->head_bytes = 0;
    return 0;
}

static void take_framing(h1_client *c, outr_http_response *head)
{
    outr_headers *h = &head->headers;
    size_t kept = 0;
    head->content_length = -1;
    for (size_t i = 0; i < h->count; i++) {
        outr_header *item = &h->items[i];
        uint64_t length;
        item->value = outr_str_trim(item->value);
        if (outr_str_iis(item->name, "Content-Length")) {
            if (outr_str_to_u64(item->value, INT64_MAX, &length))
                head->content_length = (int64_t)length;
        } else if (!outr_str_iis(item->name, "Transfer-Encoding")) {
            h->items[kept++] = *item;
        }
    }
    h->count = kept;
    if (c->parser.flags & F_CHUNKED)
        head->content_length = -1;
}

static int on_headers_complete(llhttp_t *parser)
{
    h1_client *c = parser->data;
    outr_http_call *call = c->call;
    int status = parser->status_code;
    call->head.status = status;
    take_framing(c, &call->head);
    if (status < 200 && status != 101) {
        if (call->on_inform)
            call->on_inform(call, &call->head);
        return c->call == call ? 0 : HPE_USER;
    }
    c->has_head = true;
    c->is_tunnel = status == 101;
    if (c->is_tunnel && call->req->upgrade.n == 0)
        return HPE_USER; /* nobody asked to switch */
    bool has_body = c->is_tunnel || (outr_http_has_body(call->req->method, status) && call->head.content_length != 0);
    call->progress = OUTR_CALL_ANSWERED;
    call->response = has_body ? &c->body : NULL;
    c->body.length = c->is_tunnel ? -1 : call->head.content_length;
    if (!has_body)
        c->is_finished = true;
    if (c->is_tunnel) {
        outr_timer_stop(c->loop, &c->timer);
        if (call->body)
            outr_source_attach(call->body, &c->in);
    }
    call->on_response(call);
    if (c->call != call)
        return HPE_USER;
    return outr_http_has_body(call->req->method, status) ? 0 : 1;
}

static int on_body(llhttp_t *parser, const char *p, size_t n)
{
    h1_client *c = parser->data;
    if (!c->call)
        return HPE_USER;
    if (c->is_discarding)
        return 0;
    outr_bufq_push(&c->held, c->chunk ? outr_slice_of(c->chunk, p, n) : outr_slice_copy(outr_str_of(p, n)));
    return 0;
}

static int on_chunk_header(llhttp_t *parser)
{
    h1_client *c = parser->data;
    c->in_trailers = true;
    c->head_bytes = 0;
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    h1_client *c = parser->data;
    if (parser->status_code < 200 && parser->status_code != 101)
        return 0;
    if (c->is_tunnel)
        return HPE_PAUSED;
    c->has_ended = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
    .on_message_begin = on_message_begin,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_message_complete = on_message_complete,
};

static void malformed(h1_client *c, const char *what)
{
    outr_err err;
    outr_fail(&err, OUTR_INTERNAL, "malformed HTTP response: %s", what);
    fail_call(c, &err);
    close_stream(c);
}

static void parse(h1_client *c, const char *p, size_t n)
{
    outr_http_call *call = c->call;
    if (c->is_tunnel) {
        outr_bufq_push(&c->held, c->chunk ? outr_slice_of(c->chunk, p, n) : outr_slice_copy(outr_str_of(p, n)));
        push(c);
        return;
    }
    llhttp_errno_t rc = llhttp_execute(&c->parser, p, n);
    if (c->call != call || !call)
        return;
    if (rc != HPE_OK && rc != HPE_PAUSED && rc != HPE_PAUSED_UPGRADE) {
        malformed(c, llhttp_get_error_reason(&c->parser) ? llhttp_get_error_reason(&c->parser) : "head is too large");
        return;
    }
    const char *at = rc == HPE_OK ? p + n : llhttp_get_error_pos(&c->parser);
    if (c->is_tunnel && at && at < p + n) {
        parse(c, at, (size_t)(p + n - at));
        return;
    }
    if (c->has_ended && at && at < p + n)
        c->base.is_retired = true; /* bytes behind the answer: not a connection to use again */
    if (c->held.count > 0 || c->has_ended)
        push(c);
    if (c->call == call)
        finish_if_over(c);
}

/* ---- events ------------------------------------------------------------------------------------ */

static void on_data(outr_stream *stream, outr_chunk *chunk, const char *p, size_t n)
{
    h1_client *c = stream->owner;
    hold(c);
    if (!c->call) {
        close_stream(c); /* an idle connection has nothing to say */
    } else {
        c->saw_bytes = true;
        if (outr_timer_is_on(&c->timer))
            watch(c);
        c->chunk = chunk;
        parse(c, p, n);
        c->chunk = NULL;
    }
    release(c);
}

static void broken_off(h1_client *c, const outr_err *err)
{
    hold(c);
    if (c->call)
        fail_call(c, err);
    close_stream(c);
    release(c);
}

static void on_eof(outr_stream *stream)
{
    h1_client *c = stream->owner;
    outr_err err;
    if (c->call && c->is_tunnel) {
        c->has_ended = true;
        push(c);
        return;
    }
    hold(c);
    if (c->call && c->has_head && !c->has_ended && llhttp_finish(&c->parser) == HPE_OK) {
        outr_http_call *call = c->call;
        c->has_ended = true; /* the end of the connection ends this body: RFC 9112 section 6.3 */
        c->base.is_retired = true;
        push(c);
        if (c->call == call)
            finish_if_over(c);
    } else if (c->call && !c->has_ended) {
        outr_fail(&err, OUTR_UNAVAILABLE, c->has_head ? "connection closed before the response was complete" : "connection closed before a response");
        broken_off(c, &err);
    } else if (!c->call) {
        close_stream(c);
    } else {
        c->base.is_retired = true;
    }
    release(c);
}

static void on_error(outr_stream *stream, const outr_err *err)
{
    h1_client *c = stream->owner;
    outr_err copy = *err;
    copy.code = OUTR_UNAVAILABLE;
    if (c->call && c->has_ended) { /* the answer is complete; what failed comes after it */
        c->base.is_retired = true;
        outr_stream_close(stream);
        return;
    }
    broken_off(c, &copy);
}

static void on_drain(outr_stream *stream)
{
    h1_client *c = stream->owner;
    if (c->call)
        watch(c);
    outr_source_resume(c->in.source);
}

static void on_closed(outr_stream *stream)
{
    h1_client *c = stream->owner;
    hold(c);
    c->stream = NULL;
    c->base.is_retired = true;
    c->base.capacity = 0;
    if (c->call && !c->has_ended) {
        outr_err err;
        outr_fail(&err, OUTR_UNAVAILABLE, "connection closed");
        fail_call(c, &err);
    }
    c->is_gone = true;
    release(c);
}

static const outr_stream_events events = {.on_data = on_data, .on_eof = on_eof, .on_drain = on_drain, .on_error = on_error, .on_closed = on_closed};

static void on_silence(outr_timer *timer)
{
    h1_client *c = OUTR_CONTAINER(timer, h1_client, timer);
    outr_err err;
    if (!c->call || c->is_sink_full)
        return;
    outr_fail(&err, OUTR_DEADLINE_EXCEEDED, "no byte for %llu s", (unsigned long long)(limits(c)->body_idle_ns / OUTR_SEC));
    broken_off(c, &err);
}

outr__client *outr__h1_connect(outr_http_pool *pool, outr_stream *own_stream)
{
    h1_client *c = outr_alloc(sizeof *c);
    c->base = (outr__client){.ops = &client_ops, .pool = pool, .capacity = 1};
    c->loop = own_stream->loop;
    c->stream = own_stream;
    c->flusher.run = on_flush;
    c->pusher.run = on_push;
    c->timer.fire = on_silence;
    llhttp_init(&c->parser, HTTP_RESPONSE, &callbacks);
    c->parser.data = c;
    own_stream->owner = c;
    own_stream->events = &events;
    outr_stream_read_start(own_stream);
    return &c->base;
}
