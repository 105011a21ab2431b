#include "http/h2_session.h"

#define CONNECTION_WINDOW (4 * 1024 * 1024)
/* of all streams; then the connection's window stays shut */
#define HELD_MAX            (8 * OUTR_MIB)
#define FRAME_BYTES         16384 /* SETTINGS_MAX_FRAME_SIZE as it is without saying */
#define CONTINUATIONS_SPARE 8     /* of a head that is cut into smaller frames than need be */
#define QUEUE_HIGH          (64 * OUTR_KIB)
#define QUEUE_LOW           (16 * OUTR_KIB)
#define PULL_MAX            (256 * OUTR_KIB)
#define COPY_BELOW          2048

static outr__h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return id ? nghttp2_session_get_stream_user_data(session, id) : NULL;
}

/* ---- body that came, as a source ------------------------------------------------------------- */

/* n bytes of s are nobody's burden any more: the windows open again. */
static void let_go(outr__h2_stream *s, size_t n)
{
    outr__h2 *h2 = s->h2;
    h2->held -= n;
    if (!h2->session || n == 0)
        return;
    if (h2->owed > 0 && h2->held < HELD_MAX / 2) {
        nghttp2_session_consume_connection(h2->session, h2->owed);
        h2->owed = 0;
    }
    if (!s->is_closed)
        nghttp2_session_consume_stream(h2->session, s->id, n);
    h2->events->wants_flush(h2);
}

static void drop_held(outr__h2_stream *s)
{
    size_t n = s->held.bytes;
    outr_bufq_done(&s->held);
    let_go(s, n);
}

static void tell_owner(outr__h2_stream *s)
{
    if (s->h2->events->on_told)
        s->h2->events->on_told(s->h2, s);
}

static void tell_end(outr__h2_stream *s)
{
    outr_sink *sink = s->in.sink;
    s->in.sink = NULL;
    s->is_told = true;
    sink->source = NULL;
    if (s->in_broken) {
        outr_err err;
        outr_fail(&err, s->in_broken, "%s", s->in_broken_text);
        sink->ops->abort(sink, &err);
    } else {
        sink->ops->end(sink, s->in_trailers && s->headers.count ? &s->headers : NULL);
    }
    tell_owner(s);
}

static void give(outr__h2_stream *s, outr_slice own_slice)
{
    s->is_sink_full = true; /* stands unless the sink says otherwise, now or by resume */
    if (s->in.sink->ops->data(s->in.sink, own_slice))
        s->is_sink_full = false;
}

static void push(outr__h2_stream *s)
{
    while (s->held.count > 0 && s->in.sink && !s->is_sink_full) {
        outr_slice slice = outr_bufq_pop(&s->held);
        let_go(s, slice.n);
        give(s, slice);
    }
    if (s->in.sink && s->in_ended && s->held.count == 0 && !s->is_sink_full)
        tell_end(s);
}

static void on_push(outr_deferred *deferred)
{
    outr__h2_stream *s = OUTR_CONTAINER(deferred, outr__h2_stream, pusher);
    if (s->in.sink && s->in_broken)
        tell_end(s);
    else
        push(s);
}

static void in_go_on(outr_source *source)
{
    outr__h2_stream *s = OUTR_CONTAINER(source, outr__h2_stream, in);
    s->is_sink_full = false;
    s->last_ns = outr_loop_now(s->h2->loop);
    outr_loop_defer(s->h2->loop, &s->pusher);
}

static void in_start(outr_source *source)
{
    outr__h2_stream *s = OUTR_CONTAINER(source, outr__h2_stream, in);
    if (s->wants_continue && !s->has_sent_head && !s->in_ended && s->received_bytes == 0) {
        outr_http_response head = {.status = 100};
        outr__h2_submit_inform(s, &head);
    }
    s->wants_continue = false;
    in_go_on(source);
}

static void in_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    outr__h2_stream *s = OUTR_CONTAINER(source, outr__h2_stream, in);
    s->is_discarding = true;
    drop_held(s);
    tell_owner(s);
}

static const outr_source_ops in_ops = {.start = in_start, .resume = in_go_on, .cancel = in_cancel};

static void end_in(outr__h2_stream *s)
{
    if (s->in_ended || s->in_broken)
        return;
    s->in_ended = true;
    push(s);
}

/* A break is told even to a full sink: it has nothing to wait for any more. */
void outr__h2_stream_break(outr__h2_stream *s, outr_code code, const char *text)
{
    if (s->in_broken || (s->in_ended && s->is_told))
        return;
    s->in_broken = code;
    s->in_broken_text = text;
    drop_held(s);
    if (s->in.sink)
        tell_end(s);
}

/* ---- body that goes, as a sink --------------------------------------------------------------- */

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

static size_t queued(const outr__h2_stream *s)
{
    return s->part.n + s->queue.bytes;
}

static bool out_data(outr_sink *sink, outr_slice own_slice)
{
    outr__h2_stream *s = of_sink(sink);
    if (s->out_ended || s->is_closed || !s->out_is_open) {
        outr_slice_done(&own_slice);
        return true;
    }
    if (s->out_left >= 0) {
        own_slice.n = (size_t)OUTR_MIN((int64_t)own_slice.n,
                                       s->out_left); /* more than declared is not sent */
        s->out_left -= (int64_t)own_slice.n;
    }
    s->sent_bytes += own_slice.n;
    if (!own_slice.chunk || (own_slice.n < COPY_BELOW && own_slice.chunk->refs > 1)) {
        outr_bufq_copy(&s->queue, own_slice.p, own_slice.n); /* few bytes must not pin many */
        outr_slice_done(&own_slice);
    } else if (queued(s) == 0) { /* the common case needs no queue */
        outr_slice_done(&s->part);
        s->part = own_slice;
    } else {
        outr_bufq_push(&s->queue, own_slice);
    }
    wake_out(s);
    s->is_out_full = queued(s) >= QUEUE_HIGH;
    return !s->is_out_full;
}

static void copy_trailers(outr__h2_stream *s, const outr_headers *trailers)
{
    outr_headers *copy = outr_arena_alloc(s->arena, sizeof *copy);
    outr_headers_init(copy, s->arena);
    for (size_t i = 0; i < trailers->count; i++)
        outr_headers_add(copy, outr_arena_str(s->arena, trailers->items[i].name),
                         outr_arena_str(s->arena, trailers->items[i].value));
    s->trailers = copy;
}

static void out_end(outr_sink *sink, const struct outr_headers *trailers)
{
    outr__h2_stream *s = of_sink(sink);
    sink->source = NULL;
    if (s->out_ended || s->is_closed)
        return;
    if (s->out_left > 0) { /* shorter than declared: no clean end */
        outr__h2_stream_reset(s, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    s->out_ended = true;
    if (trailers && trailers->count > 0)
        copy_trailers(s, trailers);
    wake_out(s);
}

static void out_abort(outr_sink *sink, const outr_err *err)
{
    outr__h2_stream *s = of_sink(sink);
    sink->source = NULL;
    if (!s->out_ended) /* who gave up is not who failed */
        outr__h2_stream_reset(s, err->code == OUTR_CANCELLED ? NGHTTP2_CANCEL
                                                             : NGHTTP2_INTERNAL_ERROR);
}

static const outr_sink_ops out_ops = {.data = out_data, .end = out_end, .abort = out_abort};

void outr__h2_stream_init(outr__h2_stream *s, outr__h2 *h2, outr_arena *arena)
{
    s->h2 = h2;
    s->arena = arena;
    s->in = (outr_source){.ops = &in_ops, .length = -1};
    s->out.ops = &out_ops;
    s->pusher.run = on_push;
    s->out_left = -1;
    s->last_ns = s->sent_ns = outr_loop_now(h2->loop);
    outr_headers_init(&s->headers, arena);
}

void outr__h2_stream_done(outr__h2_stream *s, const outr_err *err)
{
    if (s->h2->session && !s->is_closed)
        nghttp2_session_set_stream_user_data(s->h2->session, s->id, NULL);
    drop_held(s);
    s->is_closed = true;
    outr_loop_undefer(&s->pusher);
    outr_bufq_done(&s->queue);
    outr_slice_done(&s->part);
    if (s->out.source)
        outr_source_cancel(s->out.source, err);
    if (s->in.sink) {
        outr_sink *sink = s->in.sink;
        outr_err gone;
        if (!err)
            outr_fail(&gone, OUTR_CANCELLED, "the stream is gone");
        s->in.sink = NULL;
        s->is_told = true;
        sink->source = NULL;
        sink->ops->abort(sink, err ? err : &gone);
    }
}

void outr__h2_stream_reset(outr__h2_stream *s, uint32_t error_code)
{
    if (s->is_closed || !s->h2->session)
        return;
    s->out_ended = s->was_reset = true;
    nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id, error_code);
    s->h2->events->wants_flush(s->h2);
}

void outr__h2_stream_stop_input(outr__h2_stream *s)
{
    if (s->in_ended || s->was_reset)
        return;
    s->stops_input = true;
    if (s->has_sent_end)
        outr__h2_stream_reset(s, NGHTTP2_NO_ERROR);
}

/* nghttp2 copies both: a stream that is reset before its head is written must not leave it
 * dangling. */
static nghttp2_nv nv_of(outr_str name, outr_str value, uint8_t flags)
{
    return (nghttp2_nv){(uint8_t *)name.p, (uint8_t *)value.p, name.n, value.n, flags};
}

/* nghttp2 lower-cases the names it copies. TE may only say "trailers" here (RFC 9113 section
 * 8.2.2). */
static size_t put_headers(nghttp2_nv *nv, size_t n, const outr_headers *h)
{
    for (size_t i = 0; i < h->count; i++) {
        const outr_header *item = &h->items[i];
        if (outr__header_is_own(item->name) || !outr_header_name_is_valid(item->name))
            continue;
        if (outr_str_iis(item->name, "te") && !outr_str_iis(item->value, "trailers"))
            continue;
        uint8_t flags = item->is_unindexed ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE;
        nv[n++] = nv_of(item->name, outr__header_value_clean(h->arena, item->value), flags);
    }
    return n;
}

static void calm(outr__h2 *h2)
{
    nghttp2_session_terminate_session(h2->session, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void count_idle_frame(outr__h2 *h2)
{
    if (!outr__h2_guard_idle_frame(&h2->guard, outr_loop_now(h2->loop)))
        calm(h2);
}

/* ---- nghttp2's callbacks: sending ------------------------------------------------------------ */

static int submit_trailers(outr__h2_stream *s)
{
    nghttp2_nv *nv = outr_arena_alloc(s->arena, s->trailers->count * sizeof *nv);
    return nghttp2_submit_trailer(s->h2->session, s->id, nv, put_headers(nv, 0, s->trailers));
}

static ssize_t on_read(nghttp2_session *session OUTR_UNUSED, int32_t id OUTR_UNUSED,
                       uint8_t *buf OUTR_UNUSED, size_t max, uint32_t *flags,
                       nghttp2_data_source *source, void *user OUTR_UNUSED)
{
    outr__h2_stream *s = source->ptr;
    size_t n = OUTR_MIN(max, queued(s));
    if (n == 0 && !s->out_ended) {
        s->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (s->out_ended && n == queued(s)) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->trailers && submit_trailers(s) == 0)
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    return (ssize_t)n;
}

/* At most n bytes off the front of what is queued. */
static outr_slice take(outr__h2_stream *s, size_t n)
{
    if (s->part.n == 0)
        s->part = outr_bufq_pop(&s->queue);
    outr_slice slice = s->part;
    if (slice.n <= n) {
        s->part = (outr_slice){0};
        return slice;
    }
    outr_chunk_ref(slice.chunk);
    slice.n = n;
    s->part.p += n;
    s->part.n -= n;
    return slice;
}

/* The payload goes by reference behind its nine bytes of frame header; no padding is ever asked
 * for. */
static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *framehd,
                        size_t length, nghttp2_data_source *source OUTR_UNUSED, void *user)
{
    outr__h2 *h2 = user;
    outr__h2_stream *s = stream_of(session, frame->hd.stream_id);
    /* nghttp2 goes from one such frame to the next without coming back to outr__h2_pull. */
    if (h2->out.bytes >= PULL_MAX)
        return NGHTTP2_ERR_WOULDBLOCK;
    if (!s) /* let go of while the frame waited, its RST_STREAM not sent yet */
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    s->sent_ns = outr_loop_now(h2->loop);
    outr_bufq_copy(&h2->out, framehd, 9);
    while (length > 0) {
        outr_slice slice = take(s, length);
        length -= slice.n;
        if (slice.n < COPY_BELOW) {
            outr_bufq_copy(&h2->out, slice.p, slice.n);
            outr_slice_done(&slice);
        } else {
            outr_bufq_push(&h2->out, slice);
        }
    }
    if (s->is_out_full && queued(s) <= QUEUE_LOW) {
        s->is_out_full = false;
        outr_source_resume(s->out.source);
    }
    return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    outr__h2 *h2 = user;
    if (frame->hd.type <= NGHTTP2_HEADERS)
        outr__h2_guard_work(&h2->guard, true);
    if (frame->hd.type == NGHTTP2_GOAWAY && h2->events->on_goaway_sent)
        h2->events->on_goaway_sent(h2);
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) || frame->hd.type > NGHTTP2_HEADERS)
        return 0;
    outr__h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (!s)
        return 0;
    s->has_sent_end = true;
    if (s->stops_input)
        outr__h2_stream_stop_input(s);
    return 0;
}

/* ---- nghttp2's callbacks: receiving ---------------------------------------------------------- */

static int on_begin_frame(nghttp2_session *session OUTR_UNUSED, const nghttp2_frame_hd *hd,
                          void *user)
{
    outr__h2 *h2 = user;
    if (!h2->is_server || hd->type > NGHTTP2_HEADERS || hd->stream_id % 2 == 0)
        return 0;
    if (outr__h2_guard_is_closed(&h2->guard, hd->stream_id))
        nghttp2_session_terminate_session(h2->session, NGHTTP2_STREAM_CLOSED);
    else if (hd->type == NGHTTP2_HEADERS && !outr__h2_guard_id(&h2->guard, hd->stream_id))
        nghttp2_session_terminate_session(h2->session, NGHTTP2_PROTOCOL_ERROR);
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    outr__h2 *h2 = user;
    h2->head_since_ns = outr_loop_now(h2->loop);
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

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *user)
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
    char *copy = outr_arena_alloc(s->arena, name_n + value_n + 1);
    memcpy(copy, name, name_n);
    memcpy(copy + name_n, value, value_n);
    outr_str n = outr_str_of(copy, name_n), v = outr_str_of(copy + name_n, value_n);
    if (name[0] == ':') {
        take_pseudo(s, n, v);
        return 0;
    }
    outr_headers_add(&s->headers, n, v);
    if (flags & NGHTTP2_NV_FLAG_NO_INDEX)
        s->headers.items[s->headers.count - 1].is_unindexed = true;
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

static void take_settings(outr__h2 *h2, const nghttp2_settings *settings)
{
    for (size_t i = 0; i < settings->niv; i++) {
        if (h2->settings_id && settings->iv[i].settings_id == h2->settings_id)
            h2->peer_setting = settings->iv[i].value;
    }
    h2->events->on_settings(h2);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    outr__h2 *h2 = user;
    bool ends = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    outr__h2_stream *s = stream_of(session, frame->hd.stream_id);
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        h2->head_since_ns = 0;
        outr__h2_guard_work(&h2->guard, false);
        if (!s)
            break;
        bool was_message = s->has_message;
        on_head_complete(h2, s, ends);
        if (ends && was_message)
            end_in(s);
        break;
    case NGHTTP2_DATA:
        if (frame->hd.length > frame->data.padlen)
            outr__h2_guard_work(&h2->guard, false);
        else if (!ends)
            count_idle_frame(h2);
        if (s && ends)
            end_in(s);
        break;
    case NGHTTP2_SETTINGS:
        count_idle_frame(h2);
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
            take_settings(h2, &frame->settings);
        break;
    case NGHTTP2_GOAWAY:
        h2->events->on_goaway(
            h2, outr_str_of(frame->goaway.opaque_data, frame->goaway.opaque_data_len));
        break;
    case NGHTTP2_PING:
        count_idle_frame(h2);
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            h2->events->on_pong(h2, frame->ping.opaque_data);
        else if (h2->events->on_ping)
            h2->events->on_ping(h2);
        break;
    case NGHTTP2_RST_STREAM: /* counts as a stream wasted */
        outr__h2_guard_close(&h2->guard, frame->hd.stream_id);
        break;
    default:
        count_idle_frame(h2);
        break;
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags OUTR_UNUSED, int32_t id,
                   const uint8_t *data, size_t n, void *user)
{
    outr__h2 *h2 = user;
    outr__h2_stream *s = stream_of(session, id);
    if (!s || s->is_discarding || s->in_broken) {
        nghttp2_session_consume(session, id, n);
        return 0;
    }
    s->received_bytes += n;
    s->last_ns = outr_loop_now(h2->loop);
    if (h2->chunk && s->held.count == 0 && s->in.sink && !s->is_sink_full) { /* straight through */
        nghttp2_session_consume(session, id, n);
        give(s, outr_slice_of(h2->chunk, (const char *)data, n));
        return 0;
    }
    h2->held += n;
    if (h2->held > HELD_MAX)
        h2->owed += n;
    else
        nghttp2_session_consume_connection(session, n);
    if (h2->chunk && n >= COPY_BELOW)
        outr_bufq_push(&s->held, outr_slice_of(h2->chunk, (const char *)data, n));
    else
        outr_bufq_copy(&s->held, data, n);
    return 0;
}

/* Streams begun and thrown away at once cost the peer nothing and us a request each; those it makes
 * us
 * reset count alike. */
static void count_waste(outr__h2 *h2)
{
    if (!outr__h2_guard_reset(&h2->guard, outr_loop_now(h2->loop)))
        calm(h2);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user)
{
    outr__h2 *h2 = user;
    outr__h2_stream *s = stream_of(session, id);
    if (h2->is_server && error_code != NGHTTP2_NO_ERROR && !(s && s->was_reset))
        count_waste(h2);
    if (!s)
        return 0;
    if (error_code == NGHTTP2_NO_ERROR && s->in_ended && !s->was_reset)
        outr__h2_guard_close(&h2->guard, id);
    nghttp2_session_set_stream_user_data(session, id, NULL);
    s->is_closed = true;
    h2->events->on_close(h2, s, error_code);
    return 0;
}

/* ---- session --------------------------------------------------------------------------------- */

static nghttp2_session_callbacks *make_callbacks(void)
{
    nghttp2_session_callbacks *cb;
    if (nghttp2_session_callbacks_new(&cb))
        return NULL;
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_sent);
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
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
    iv[n++] =
        (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, o->limits->window_bytes};
    if (o->is_server) {
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                           o->limits->max_streams};
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
                                           (uint32_t)o->limits->max_header_bytes};
    } else {
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    }
    if (o->allow_connect_protocol)
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
    if (o->settings_id)
        iv[n++] = (nghttp2_settings_entry){o->settings_id, o->settings_value};
    int rc = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, iv, n);
    return rc ? rc
              : nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0,
                                                      CONNECTION_WINDOW);
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
    outr__h2_guard_init(&h2->guard, outr_loop_now(o->loop));
    int rc = cb ? nghttp2_option_new(&option) : NGHTTP2_ERR_NOMEM;
    if (!rc) {
        nghttp2_option_set_no_auto_window_update(option, 1);
        /* Else a server keeps as many ended streams as it admits at once, for priorities that
         * RFC 9113 has dropped. */
        nghttp2_option_set_no_closed_streams(option, 1);
        nghttp2_option_set_max_send_header_block_length(option, 2 * OUTR_MIB);
        nghttp2_option_set_max_outbound_ack(option, 1000);
        nghttp2_option_set_max_settings(option, 32);
        /* Twice as many as the largest head fills (CVE-2024-28182): one somewhat too large still
         * gets its answer. */
        nghttp2_option_set_max_continuations(
            option, 2 * o->limits->max_header_bytes / FRAME_BYTES + CONTINUATIONS_SPARE);
        /* h2_guard counts, by stream and with the code that says why. */
        nghttp2_option_set_stream_reset_rate_limit(option, UINT32_MAX, UINT32_MAX);
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

bool outr__h2_pull(outr__h2 *h2, bool *has_more)
{
    const uint8_t *p;
    ssize_t n = 0;
    while (h2->out.bytes < PULL_MAX && (n = nghttp2_session_mem_send(h2->session, &p)) > 0)
        outr_bufq_copy(&h2->out, p, (size_t)n);
    *has_more = h2->out.bytes >= PULL_MAX;
    return n >= 0 &&
           (nghttp2_session_want_read(h2->session) || nghttp2_session_want_write(h2->session));
}

/* ---- heads ----------------------------------------------------------------------------------- */

static size_t put_length(nghttp2_nv *nv, size_t n, int64_t length, char text[20])
{
    if (length < 0)
        return n;
    nv[n++] = nv_of(OUTR_STR("content-length"), outr_str_decimal(text, (uint64_t)length),
                    NGHTTP2_NV_FLAG_NONE);
    return n;
}

static nghttp2_data_provider provider_of(outr__h2_stream *s)
{
    return (nghttp2_data_provider){.source.ptr = s, .read_callback = on_read};
}

outr_code outr__h2_submit_response(outr__h2_stream *s, const outr_http_response *head,
                                   outr_str date, bool has_body)
{
    char status[20], length[20];
    nghttp2_data_provider provider = provider_of(s);
    if (s->is_closed || !s->h2->session)
        return OUTR_CANCELLED;
    nghttp2_nv *nv = outr_arena_alloc(s->arena, (head->headers.count + 3) * sizeof *nv);
    size_t n = 0;
    nv[n++] = nv_of(OUTR_STR(":status"), outr_str_decimal(status, (uint64_t)head->status),
                    NGHTTP2_NV_FLAG_NONE);
    n = put_headers(nv, n, &head->headers);
    if (!outr_headers_has(&head->headers, "date"))
        nv[n++] = nv_of(OUTR_STR("date"), date, NGHTTP2_NV_FLAG_NONE);
    if (head->status != 204)
        n = put_length(nv, n, head->content_length, length);
    s->out_is_open = has_body;
    s->out_left = has_body ? head->content_length : -1;
    s->has_sent_head = true;
    s->sent_ns = outr_loop_now(s->h2->loop);
    if (nghttp2_submit_response(s->h2->session, s->id, nv, n, has_body ? &provider : NULL))
        return OUTR_INTERNAL;
    s->h2->events->wants_flush(s->h2);
    return OUTR_OK;
}

void outr__h2_submit_inform(outr__h2_stream *s, const outr_http_response *head)
{
    char status[20];
    if (s->is_closed || !s->h2->session)
        return;
    nghttp2_nv *nv = outr_arena_alloc(s->arena, (head->headers.count + 1) * sizeof *nv);
    nv[0] = nv_of(OUTR_STR(":status"), outr_str_decimal(status, (uint64_t)head->status),
                  NGHTTP2_NV_FLAG_NONE);
    size_t n = put_headers(nv, 1, &head->headers);
    nghttp2_submit_headers(s->h2->session, NGHTTP2_FLAG_NONE, s->id, NULL, nv, n, NULL);
    s->h2->events->wants_flush(s->h2);
}

outr_code outr__h2_submit_request(outr__h2_stream *s, const outr_http_request *req, bool has_body,
                                  outr_err *err)
{
    char length[20];
    nghttp2_data_provider provider = provider_of(s);
    bool is_upgrade = req->upgrade.n > 0;
    nghttp2_nv *nv = outr_arena_alloc(s->arena, (req->headers.count + 6) * sizeof *nv);
    size_t n = 0;
    if (is_upgrade && !nghttp2_session_get_remote_settings(
                          s->h2->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL))
        return outr_fail(err, OUTR_UNAVAILABLE, "the peer takes no upgrade over HTTP/2");
    nv[n++] = nv_of(OUTR_STR(":method"), is_upgrade ? OUTR_STR("CONNECT") : req->method,
                    NGHTTP2_NV_FLAG_NONE);
    if (is_upgrade)
        nv[n++] = nv_of(OUTR_STR(":protocol"), req->upgrade, NGHTTP2_NV_FLAG_NONE);
    nv[n++] = nv_of(OUTR_STR(":scheme"), req->scheme.n ? req->scheme : OUTR_STR("http"),
                    NGHTTP2_NV_FLAG_NONE);
    nv[n++] = nv_of(OUTR_STR(":path"), req->target, NGHTTP2_NV_FLAG_NONE);
    nv[n++] = nv_of(OUTR_STR(":authority"), req->authority, NGHTTP2_NV_FLAG_NONE);
    n = put_headers(nv, n, &req->headers);
    if (has_body && !is_upgrade)
        n = put_length(nv, n, req->content_length, length);
    s->out_is_open = has_body || is_upgrade;
    s->out_left = has_body && !is_upgrade ? req->content_length : -1;
    int32_t id =
        nghttp2_submit_request(s->h2->session, NULL, nv, n, s->out_is_open ? &provider : NULL, s);
    if (id < 0)
        return outr_fail(err, OUTR_UNAVAILABLE, "HTTP/2: %s", nghttp2_strerror(id));
    s->id = id;
    s->h2->events->wants_flush(s->h2);
    return OUTR_OK;
}
