#include "grpc/stream_client.h"

#include "grpc/call.h"

/* ---- sending --------------------------------------------------------------------------------- */

/* Hands out what waits, as far as the peer has room, and the end behind it. */
static void push(outr_grpc_stream *s)
{
    while (s->source.sink && !s->is_full && s->unsent.count > 0) {
        outr_sink *sink = s->source.sink;
        s->is_full = true; /* stands unless the sink says otherwise, now or by resume */
        if (sink->ops->data(sink, outr_bufq_pop(&s->unsent)))
            s->is_full = false;
    }
    outr_sink *sink = s->source.sink;
    if (!sink || s->is_full || !s->is_half_closed)
        return;
    s->source.sink = NULL;
    sink->source = NULL;
    sink->ops->end(sink, NULL);
}

static void on_push(outr_deferred *deferred)
{
    outr_grpc_stream *s = OUTR_CONTAINER(deferred, outr_grpc_stream, pusher);
    push(s);
    if (s->source.sink && !s->is_full && s->on_writable)
        s->on_writable(s);
}

static void source_go_on(outr_source *source)
{
    outr_grpc_stream *s = OUTR_CONTAINER(source, outr_grpc_stream, source);
    s->is_full = false;
    outr_loop_defer(s->loop, &s->pusher);
}

/* Nothing more can be sent. */
static void close_sending(outr_grpc_stream *s)
{
    s->is_over = true;
    outr_loop_undefer(&s->pusher);
    outr_bufq_done(&s->unsent);
}

static void source_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    close_sending(OUTR_CONTAINER(source, outr_grpc_stream, source));
}

static const outr_source_ops source_ops = {
    .start = source_go_on, .resume = source_go_on, .cancel = source_cancel};

static bool send_frame(outr_grpc_stream *s, outr_slice own_frame)
{
    if (s->is_over || s->is_half_closed) {
        outr_slice_done(&own_frame);
        return true;
    }
    outr_bufq_push(&s->unsent, own_frame);
    if (!outr_link_is_in(&s->pusher.link)) /* else it starts, and is told in a turn of its own */
        push(s);
    return s->source.sink && !s->is_full && s->unsent.count == 0;
}

bool outr_grpc_stream_send(outr_grpc_stream *s, const void *message)
{
    return send_frame(s, outr_grpc_frame(message));
}

bool outr_grpc_stream_send_bytes(outr_grpc_stream *s, outr_str message)
{
    return send_frame(s, outr_grpc_frame_bytes(message));
}

void outr_grpc_stream_half_close(outr_grpc_stream *s)
{
    if (s->is_half_closed || s->is_over)
        return;
    s->is_half_closed = true;
    if (s->source.sink)
        outr_loop_defer(s->loop, &s->pusher);
}

/* ---- the answer ------------------------------------------------------------------------------ */

static bool on_message(outr_grpc_reader *reader, outr_str message)
{
    outr_grpc_stream *s = reader->user;
    return s->on_message(s, message);
}

static void on_end(outr_grpc_reader *reader, const outr_headers *trailers, const outr_err *err)
{
    outr_grpc_stream *s = reader->user;
    if (err)
        s->broken = *err;
    outr__grpc_keep_trailers(&s->trailers, trailers);
    outr_grpc_stream_half_close(s); /* nobody listens there any more */
}

static void on_response(outr_http_call *http)
{
    outr_grpc_stream *s = http->user;
    s->answer_headers = http->head.headers;
    if (http->head.status != 200 || !http->response) {
        outr_source_cancel(http->response, NULL);
        outr_grpc_stream_half_close(s);
        return;
    }
    if (s->on_head)
        s->on_head(s);
    s->reader = (outr_grpc_reader){
        .max_bytes = s->max_bytes ? s->max_bytes : OUTR__GRPC_ANSWER_MAX,
        .encoding = outr_headers_get(&http->head.headers, "grpc-encoding"),
        .on_message = on_message,
        .on_end = on_end,
        .user = s,
    };
    outr_grpc_reader_start(&s->reader, http->response);
}

void outr_grpc_stream_resume(outr_grpc_stream *s)
{
    outr_grpc_reader_resume(&s->reader);
}

void outr_grpc_stream_prepare(outr_grpc_stream *s, outr_http_call *http, const char *path)
{
    outr_headers headers;
    outr__grpc_request_headers(&headers, s->arena, outr_loop_now(s->loop), s->deadline_ns,
                               &s->metadata);
    outr_headers_init(&s->trailers, s->arena);
    s->source = (outr_source){.ops = &source_ops, .length = -1};
    s->unsent = (outr_bufq){0};
    s->pusher = (outr_deferred){.run = on_push};
    s->reader = (outr_grpc_reader){0};
    s->is_half_closed = s->is_full = s->is_over = false;
    outr_err_clear(&s->broken);
    s->req = (outr_http_request){.method = OUTR_STR("POST"),
                                 .scheme = OUTR_STR("http"),
                                 .authority = OUTR_STR("localhost"),
                                 .target = outr_str_from(path),
                                 .headers = headers,
                                 .content_length = -1};
    s->http = http;
    *http = (outr_http_call){.req = &s->req,
                             .body = &s->source,
                             .on_response = on_response,
                             .user = s,
                             .arena = s->arena};
}

outr_code outr_grpc_stream_result(outr_grpc_stream *s, const outr_err *http_err, outr_err *err)
{
    outr_grpc_reader_cancel(&s->reader);
    if (s->source.sink)
        s->source.sink->source = NULL;
    s->source.sink = NULL;
    close_sending(s);
    outr__grpc_outcome(&s->status, s->http, &s->trailers, &s->broken, http_err);
    if (s->status.code)
        return outr_fail(err, s->status.code, OUTR_FMT, OUTR_ARG(s->status.message));
    return OUTR_OK;
}
