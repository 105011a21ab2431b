#include "http/h2_session.h"

#define CONNECTION_WINDOW (4 * 1024 * 1024)
#define RESETS_MAX        400   /* per second; a proxy's clients cancel, they do not hammer */
#define QUEUE_HIGH        (256 * OUTR_KIB)
#define QUEUE_LOW         (64 * OUTR_KIB)
#define COPY_BELOW        2048

static outr__h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return id ? nghttp2_session_get_stream_user_data(session, id) : NULL;
}

/* ---- body that came, as a source --------------------------------------------------------------- */

static void consume(outr__h2_stream *s, size_t n)
{
    if (s->is_closed || n == 0 || !s->h2->session)
        return;
    nghttp2_session_consume_stream(s->h2->session, s->id, n);
    s->h2->events->wants_flush(s->h2);
}

static void on_teller(outr_deferred *deferred)
{
    outr__h2_stream *s = OUTR_CONTAINER(deferred, outr__h2_stream, teller);
    s->h2->events->on_told(s->h2, s);
}

static void tell_owner(outr__h2_stream *s)
{
    if (s->h2->events->on_told && !s->is_over)
        outr_loop_defer(s->h2->loop, &s->teller);
}

static void tell_end(outr__h2_stream *s)
{
    outr_sink *sink = s->in.sink;
    s->in.sink = NULL;
    s->is_told = true;
    sink->source = NULL;
    tell_owner(s);
    if (s->in_broken)
        sink->ops->abort(sink, &s->in_err);
    else
        sink->ops->end(sink, s->in_trailers && s->headers.count ? &s->headers : NULL);
}

/* s may be gone after a sink's data or end: nothing is touched then. */
static void push(outr__h2_stream *s)
{
    while (s->held.count > 0) {
        outr_slice slice = outr_bufq_pop(&s->held);
        size_t n = slice.n;
        s->is_sink_full = true; /* stands while the sink looks; a cancel from inside leaves it */
        consume(s, n);
        if (!s->in.sink->ops->data(s->in.sink, slice))
            return; /* full, or cancelled and perhaps gone */
        s->is_sink_full = false;
    }
    if (s->in_ended || s->in_broken)
        tell_end(s);
}

static void on_push(outr_deferred *deferred)
{
    outr__h2_stream *s = OUTR_CONTAINER(deferred, outr__h2_stream, pusher);
    if (s->in.sink && !s->is_sink_full)
        push(s);
}

static void in_start(outr_source *source)
{
    outr__h2_stream *s = OUTR_CONTAINER(source, outr__h2_stream, in);
    outr_loop_defer(s->h2->loop, &s->pusher);
}

static void in_resume(outr_source *source)
{
    outr__h2_stream *s = OUTR_CONTAINER(source, outr__h2_stream, in);
    s->is_sink_full = false;
    outr_loop_defer(s->h2->loop, &s->pusher);
}

static void in_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    outr__h2_stream *s = OUTR_CONTAINER(source, outr__h2_stream, in);
    s->is_discarding = true;
    consume(s, s->held.bytes);
    outr_bufq_done(&s->held);
    outr_loop_undefer(&s->pusher);
    tell_owner(s);
}

static const outr_source_ops in_ops = {.start = in_start, .resume = in_resume, .cancel = in_cancel};

static void end_in(outr__h2_stream *s, const outr_err *broken)
{
    if (s->in_ended || s->in_broken)
        return;
    s->in_ended = !broken;
    s->in_broken = broken != NULL;
    if (broken)
        s->in_err = *broken;
    /* A break is told even to a full sink: it has nothing to wait for any more. */
    if (s->in.sink && (broken || (!s->is_sink_full && s->held.count == 0))) {
        if (broken)
            outr_bufq_done(&s->held);
        tell_end(s);
    }
}

/* ---- body that goes, as a sink ----------------------------------------------------------------- */

static outr__h2_stream *of_sink(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, outr__h2_stream, out);
}

static void wake_out(outr__h2_stream *s)
{
    if (s->is_closed || !s->h2->session)
        return;
    if (s->is_deferred) {
        s->is_deferred = false;
        nghttp2_session_resume_data(s->h2->session, s->id);
    }
    s->h2->events->wants_flush(s->h2);
}

static bool out_data(outr_sink *sink, outr_slice own_slice)
{
    outr__h2_stream *s = of_sink(sink);
    if (s->out_ended || s->is_closed || !s->out_is_open) {
        outr_slice_done(&own_slice);
        return true;
    }
    s->sent_bytes += own_slice.n;
    if (own_slice.n < COPY_BELOW || !own_slice.chunk) {
        outr_bufq_copy(&s->queue, own_slice.p, own_slice.n);
        outr_slice_done(&own_slice);
    } else {
        outr_bufq_push(&s->queue, own_slice);
    }
    wake_out(s);
    s->is_out_full = s->queue.bytes >= QUEUE_HIGH;
    return !s->is_out_full;
}

static void copy_trailers(outr__h2_stream *s, const outr_headers *trailers)
{
    outr_headers *copy = outr_arena_alloc(s->arena, sizeof *copy);
    outr_headers_init(copy, s->arena);
    for (size_t i = 0; i < trailers->count; i++)
        outr_headers_add(copy, outr_arena_str(s->arena, trailers->items[i].name), outr_arena_str(s->arena, trailers->items[i].value));
    s->trailers = copy;
}

static void out_end(outr_sink *sink, const struct outr_headers *trailers)
{
    outr__h2_stream *s = of_sink(sink);
    sink->source = NULL;
    if (s->out_ended || s->is_closed)
        return;
    s->out_ended = true;
    if (trailers && trailers->count > 0)
        copy_trailers(s, trailers);
    wake_out(s);
}

static void out_abort(outr_sink *sink, const outr_err *err OUTR_UNUSED)
{
    outr__h2_stream *s = of_sink(sink);
    sink->source = NULL;
    if (!s->out_ended)
        outr__h2_stream_reset(s, NGHTTP2_INTERNAL_ERROR);
}

static const outr_sink_ops out_ops = {.data = out_data, .end = out_end, .abort = out_abort};

void outr__h2_stream_init(outr__h2_stream *s, outr__h2 *h2, outr_arena *arena)
{
    s->h2 = h2;
    s->arena = arena;
    s->in = (outr_source){.ops = &in_ops, .length = -1};
    s->out.ops = &out_ops;
    s->pusher.run = on_push;
    s->teller.run = on_teller;
    outr_headers_init(&s->headers, arena);
}

void outr__h2_stream_done(outr__h2_stream *s, const outr_err *err)
{
    if (s->h2->session && !s->is_closed)
        nghttp2_session_set_stream_user_data(s->h2->session, s->id, NULL);
    s->is_closed = s->is_over = true;
    outr_loop_undefer(&s->pusher);
    outr_loop_undefer(&s->teller);
    if (s->out.source) {
        outr_source *source = s->out.source;
        s->out.source = NULL;
        outr_source_cancel(source, err);
    }
    outr_bufq_done(&s->held);
    outr_bufq_done(&s->queue);
    if (s->in.sink) {
        s->in_broken = true;
        if (err)
            s->in_err = *err;
        else
            outr_fail(&s->in_err, OUTR_CANCELLED, "stream is gone");
        tell_end(s);
    }
}

void outr__h2_stream_reset(outr__h2_stream *s, uint32_t error_code)
{
    if (s->is_closed || !s->h2->session)
        return;
    s->out_ended = true;
    nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id, error_code);
    s->h2->events->wants_flush(s->h2);
}

/* ---- nghttp2's callbacks: sending -------------------------------------------------------------- */

static int submit_trailers(outr__h2_stream *s)
{
    nghttp2_nv *nv = outr_arena_alloc(s->arena, s->trailers->count * sizeof *nv);
    for (size_t i = 0; i < s->trailers->count; i++) {
        const outr_header *h = &s->trailers->items[i];
        nv[i] = (nghttp2_nv){(uint8_t *)h->name.p, (uint8_t *)h->value.p, h->name.n, h->value.n, NGHTTP2_NV_FLAG_NONE};
    }
    return nghttp2_submit_trailer(s->h2->session, s->id, nv, s->trailers->count);
}

static ssize_t on_read(nghttp2_session *session OUTR_UNUSED, int32_t id OUTR_UNUSED, uint8_t *buf OUTR_UNUSED, size_t max,
                       uint32_t *flags, nghttp2_data_source *source, void *user OUTR_UNUSED)
{
    outr__h2_stream *s = source->ptr;
    size_t n = OUTR_MIN(max, s->queue.bytes);
    if (n == 0 && !s->out_ended) {
        s->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (s->out_ended && n == s->queue.bytes) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->trailers && submit_trailers(s) == 0)
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    return (ssize_t)n;
}

/* The payload goes by reference behind its nine bytes of frame header. */
static int on_send_data(nghttp2_session *session OUTR_UNUSED, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
                        nghttp2_data_source *source, void *user)
{
    outr__h2 *h2 = user;
    outr__h2_stream *s = source->ptr;
    (void)frame; /* no padding is ever asked for */
    outr_bufq_copy(&h2->out, framehd, 9);
    while (length > 0) {
        outr_slice slice = outr_bufq_pop(&s->queue);
        if (slice.n > length) {
            outr_slice head = slice, rest = {outr_chunk_ref(slice.chunk), slice.p + length, slice.n - length};
            head.n = length;
            outr_bufq tail = s->queue;
            s->queue = (outr_bufq){0};
            outr_bufq_push(&s->queue, rest);
            outr_bufq_move(&s->queue, &tail);
            outr_bufq_done(&tail);
            slice = head;
        }
        length -= slice.n;
        if (slice.n < COPY_BELOW) {
            outr_bufq_copy(&h2->out, slice.p, slice.n);
            outr_slice_done(&slice);
        } else {
            outr_bufq_push(&h2->out, slice);
        }
    }
    if (s->is_out_full && s->queue.bytes <= QUEUE_LOW) {
        s->is_out_full = false;
        outr_source_resume(s->out.source);
    }
    return 0;
}

/* ---- nghttp2's callbacks: receiving ------------------------------------------------------------ */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    outr__h2 *h2 = user;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        outr__h2_stream *s = stream_of(session, frame->hd.stream_id);
        if (s) { /* another head on the stream: final response after 1xx, or trailers */
            s->in_trailers = s->has_message;
            outr_headers_init(&s->headers, s->arena);
        }
        return 0;
    }
    outr__h2_stream *s = h2->events->new_stream(h2);
    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* REFUSED_STREAM */
    s->id = frame->hd.stream_id;
    nghttp2_session_set_stream_user_data(session, s->id, s);
    return 0;
}

static void take_pseudo(outr__h2_stream *s, outr_str name, outr_str value)
{
    uint64_t status;
    if (outr_str_is(name, ":method"))
        s->method = value;
    else if (outr_str_is(name, ":path"))
        s->path = value;
    else if (outr_str_is(name, ":authority"))
        s->authority = value;
    else if (outr_str_is(name, ":scheme"))
        s->scheme = value;
    else if (outr_str_is(name, ":protocol"))
        s->protocol = value;
    else if (outr_str_is(name, ":status") && outr_str_to_u64(value, 999, &status))
        s->status = (int)status;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
    outr__h2 *h2 = user;
    outr__h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (!s || s->is_too_large)
        return 0;
    s->head_bytes += name_n + value_n + 4;
    if (s->head_bytes > h2->max_header_bytes || s->headers.count >= h2->max_headers) {
        s->is_too_large = true;
        return 0;
    }
    outr_str v = outr_arena_str(s->arena, outr_str_of(value, value_n));
    if (name[0] == ':') {
        take_pseudo(s, outr_str_of(name, name_n), v);
        return 0;
    }
    outr_headers_add(&s->headers, outr_arena_str(s->arena, outr_str_of(name, name_n)), v);
    if (flags & NGHTTP2_NV_FLAG_NO_INDEX)
        s->headers.items[s->headers.count - 1].is_sensitive = true;
    return 0;
}

static void on_head_complete(outr__h2 *h2, outr__h2_stream *s, bool ends)
{
    if (s->has_message) {
        return; /* trailers: told with the end */
    }
    if (!h2->is_server && s->status >= 100 && s->status < 200) {
        h2->events->on_inform(h2, s, s->status);
        return;
    }
    s->has_message = true;
    if (ends)
        s->in_ended = true;
    h2->events->on_head(h2, s);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    outr__h2 *h2 = user;
    bool ends = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    outr__h2_stream *s;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        s = stream_of(session, frame->hd.stream_id);
        if (!s)
            break;
        bool was_message = s->has_message;
        on_head_complete(h2, s, ends);
        s = stream_of(session, frame->hd.stream_id);
        if (s && ends && was_message)
            end_in(s, NULL);
        break;
    case NGHTTP2_DATA:
        s = stream_of(session, frame->hd.stream_id);
        if (s && ends)
            end_in(s, NULL);
        break;
    case NGHTTP2_SETTINGS:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            break;
        for (size_t i = 0; i < frame->settings.niv; i++) {
            if (h2->settings_id && frame->settings.iv[i].settings_id == h2->settings_id)
                h2->peer_setting = frame->settings.iv[i].value;
        }
        h2->has_settings = true;
        h2->events->on_settings(h2);
        break;
    case NGHTTP2_GOAWAY:
        h2->events->on_goaway(h2, frame->goaway.last_stream_id);
        break;
    case NGHTTP2_RST_STREAM: {
        uint64_t second = outr_loop_now(h2->loop) / OUTR_SEC;
        h2->resets_in_second = second == h2->reset_second ? h2->resets_in_second + 1 : 1;
        h2->reset_second = second;
        if (h2->is_server && h2->resets_in_second > RESETS_MAX)
            nghttp2_session_terminate_session(session, NGHTTP2_ENHANCE_YOUR_CALM);
        break;
    }
    default:
        break;
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags OUTR_UNUSED, int32_t id, const uint8_t *data, size_t n, void *user)
{
    outr__h2 *h2 = user;
    outr__h2_stream *s = stream_of(session, id);
    nghttp2_session_consume_connection(session, n);
    if (!s || s->is_discarding) {
        nghttp2_session_consume_stream(session, id, n);
        return 0;
    }
    s->received_bytes += n;
    if (h2->chunk && n >= 2 * COPY_BELOW)
        outr_bufq_push(&s->held, outr_slice_of(h2->chunk, (const char *)data, n));
    else
        outr_bufq_copy(&s->held, data, n);
    if (s->in.sink && !s->is_sink_full)
        push(s);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user)
{
    outr__h2 *h2 = user;
    outr__h2_stream *s = stream_of(session, id);
    if (!s)
        return 0;
    nghttp2_session_set_stream_user_data(session, id, NULL);
    s->is_closed = true;
    h2->events->on_close(h2, s, error_code);
    return 0;
}

/* ---- session ----------------------------------------------------------------------------------- */

static nghttp2_session_callbacks *make_callbacks(void)
{
    nghttp2_session_callbacks *cb;
    if (nghttp2_session_callbacks_new(&cb))
        return NULL;
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    return cb;
}

static int submit_settings(outr__h2 *h2, const outr__h2_options *o)
{
    nghttp2_settings_entry iv[6];
    size_t n = 0;
    iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, o->limits->window_bytes};
    if (o->is_server) {
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, o->limits->max_streams};
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)o->limits->max_header_bytes};
    } else {
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    }
    if (o->allow_connect_protocol)
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
    if (o->settings_id)
        iv[n++] = (nghttp2_settings_entry){o->settings_id, o->settings_value};
    int rc = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, iv, n);
    return rc ? rc : nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
}

outr_code outr__h2_init(outr__h2 *h2, const outr__h2_options *o, outr_err *err)
{
    nghttp2_option *option = NULL;
    nghttp2_session_callbacks *cb = make_callbacks();
    *h2 = (outr__h2){
        .events = o->events,
        .loop = o->loop,
        .is_server = o->is_server,
        .max_header_bytes = o->limits->max_header_bytes,
        .max_headers = o->limits->max_headers,
        .settings_id = o->settings_id,
    };
    int rc = cb ? nghttp2_option_new(&option) : NGHTTP2_ERR_NOMEM;
    if (!rc) {
        nghttp2_option_set_no_auto_window_update(option, 1);
        nghttp2_option_set_max_send_header_block_length(option, 2 * OUTR_MIB);
        nghttp2_option_set_max_outbound_ack(option, 1000);
        nghttp2_option_set_max_settings(option, 32);
        rc = o->is_server ? nghttp2_session_server_new2(&h2->session, cb, h2, option)
                          : nghttp2_session_client_new2(&h2->session, cb, h2, option);
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    if (!rc)
        rc = submit_settings(h2, o);
    return rc ? outr_fail(err, OUTR_INTERNAL, "HTTP/2: %s", nghttp2_strerror(rc)) : OUTR_OK;
}

void outr__h2_done(outr__h2 *h2)
{
    nghttp2_session *session = h2->session;
    h2->session = NULL; /* streams that end now find none */
    nghttp2_session_del(session);
    outr_bufq_done(&h2->out);
}

bool outr__h2_feed(outr__h2 *h2, outr_chunk *chunk, const char *p, size_t n)
{
    h2->chunk = chunk;
    ssize_t taken = nghttp2_session_mem_recv(h2->session, (const uint8_t *)p, n);
    h2->chunk = NULL;
    h2->events->wants_flush(h2); /* acknowledgements, window updates */
    return taken == (ssize_t)n;
}

bool outr__h2_pull(outr__h2 *h2)
{
    const uint8_t *p;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(h2->session, &p)) > 0)
        outr_bufq_copy(&h2->out, p, (size_t)n);
    return n == 0 && (nghttp2_session_want_read(h2->session) || nghttp2_session_want_write(h2->session));
}

/* ---- heads ------------------------------------------------------------------------------------- */

static nghttp2_nv nv_of(outr_str name, outr_str value, uint8_t flags)
{
    return (nghttp2_nv){(uint8_t *)name.p, (uint8_t *)value.p, name.n, value.n, flags};
}

/* Headers that mean nothing on HTTP/2 (RFC 9113 section 8.2.2). */
static bool is_connection_specific(outr_str name)
{
    static const char *const names[] = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"};
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (outr_str_iis(name, names[i]))
            return true;
    }
    return false;
}

/* nghttp2 lower-cases the names it copies. */
static size_t put_headers(nghttp2_nv *nv, size_t n, const outr_headers *h)
{
    for (size_t i = 0; i < h->count; i++) {
        const outr_header *item = &h->items[i];
        if (!is_connection_specific(item->name))
            nv[n++] = nv_of(item->name, item->value, item->is_sensitive ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE);
    }
    return n;
}

static size_t put_length(nghttp2_nv *nv, size_t n, int64_t length, char text[24])
{
    if (length < 0)
        return n;
    int digits = snprintf(text, 24, "%lld", (long long)length);
    nv[n++] = nv_of(OUTR_STR("content-length"), outr_str_of(text, (size_t)digits), NGHTTP2_NV_FLAG_NONE);
    return n;
}

static nghttp2_data_provider provider_of(outr__h2_stream *s)
{
    return (nghttp2_data_provider){.source.ptr = s, .read_callback = on_read};
}

outr_code outr__h2_submit_response(outr__h2_stream *s, const outr_http_response *head, bool has_body)
{
    char status[8], length[24];
    nghttp2_data_provider provider = provider_of(s);
    if (s->is_closed || !s->h2->session)
        return OUTR_CANCELLED;
    nghttp2_nv *nv = outr_arena_alloc(s->arena, (head->headers.count + 2) * sizeof *nv);
    int digits = snprintf(status, sizeof status, "%d", head->status);
    size_t n = 0;
    nv[n++] = nv_of(OUTR_STR(":status"), outr_str_of(status, (size_t)digits), NGHTTP2_NV_FLAG_NONE);
    n = put_headers(nv, n, &head->headers);
    if (head->status >= 200 && head->status != 204)
        n = put_length(nv, n, head->content_length, length);
    s->out_is_open = has_body;
    if (nghttp2_submit_response(s->h2->session, s->id, nv, n, has_body ? &provider : NULL))
        return OUTR_INTERNAL;
    s->h2->events->wants_flush(s->h2);
    return OUTR_OK;
}

void outr__h2_submit_inform(outr__h2_stream *s, const outr_http_response *head)
{
    char status[8];
    if (s->is_closed || !s->h2->session)
        return;
    nghttp2_nv *nv = outr_arena_alloc(s->arena, (head->headers.count + 1) * sizeof *nv);
    int digits = snprintf(status, sizeof status, "%d", head->status);
    nv[0] = nv_of(OUTR_STR(":status"), outr_str_of(status, (size_t)digits), NGHTTP2_NV_FLAG_NONE);
    size_t n = put_headers(nv, 1, &head->headers);
    nghttp2_submit_headers(s->h2->session, NGHTTP2_FLAG_NONE, s->id, NULL, nv, n, NULL);
    s->h2->events->wants_flush(s->h2);
}

outr_code outr__h2_submit_request(outr__h2_stream *s, const outr_http_request *req, bool has_body, outr_err *err)
{
    char length[24];
    nghttp2_data_provider provider = provider_of(s);
    bool is_upgrade = req->upgrade.n > 0;
    nghttp2_nv *nv = outr_arena_alloc(s->arena, (req->headers.count + 6) * sizeof *nv);
    size_t n = 0;
    if (is_upgrade && !nghttp2_session_get_remote_settings(s->h2->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL))
        return outr_fail(err, OUTR_UNAVAILABLE, "the peer takes no upgrade over HTTP/2");
    nv[n++] = nv_of(OUTR_STR(":method"), is_upgrade ? OUTR_STR("CONNECT") : req->method, NGHTTP2_NV_FLAG_NONE);
    if (is_upgrade)
        nv[n++] = nv_of(OUTR_STR(":protocol"), req->upgrade, NGHTTP2_NV_FLAG_NONE);
    nv[n++] = nv_of(OUTR_STR(":scheme"), req->scheme.n ? req->scheme : OUTR_STR("http"), NGHTTP2_NV_FLAG_NONE);
    nv[n++] = nv_of(OUTR_STR(":path"), req->target, NGHTTP2_NV_FLAG_NONE);
    nv[n++] = nv_of(OUTR_STR(":authority"), req->authority, NGHTTP2_NV_FLAG_NONE);
    n = put_headers(nv, n, &req->headers);
    if (has_body && !is_upgrade)
        n = put_length(nv, n, req->content_length, length);
    s->out_is_open = has_body || is_upgrade;
    int32_t id = nghttp2_submit_request(s->h2->session, NULL, nv, n, s->out_is_open ? &provider : NULL, s);
    if (id < 0)
        return outr_fail(err, OUTR_UNAVAILABLE, "HTTP/2: %s", nghttp2_strerror(id));
    s->id = id;
    s->h2->events->wants_flush(s->h2);
    return OUTR_OK;
}
