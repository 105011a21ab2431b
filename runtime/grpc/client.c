#include "grpc/client.h"

#include "grpc/call.h"

static bool on_message(outr_grpc_reader *reader, outr_str message)
{
    outr_grpc_unary *u = reader->user;
    char *copy;
    if (u->reply.p)
        outr_fail(&u->broken, OUTR_INTERNAL, "more than one message in the answer of a unary call");
    else if (!(copy = outr_arena_try(u->arena, message.n + 1)))
        outr_fail(&u->broken, OUTR_RESOURCE_EXHAUSTED, "the answer takes too much memory");
    else
        u->reply = outr_str_of(memcpy(copy, message.p ? message.p : "", message.n), message.n);
    return true;
}

static void on_end(outr_grpc_reader *reader, const outr_headers *trailers, const outr_err *err)
{
    outr_grpc_unary *u = reader->user;
    if (err)
        u->broken = *err;
    outr__grpc_keep_trailers(&u->trailers, trailers);
}

static void on_response(outr_http_call *http)
{
    outr_grpc_unary *u = http->user;
    u->answer_headers = http->head.headers;
    if (http->head.status != 200 || !http->response) {
        outr_source_cancel(http->response, NULL);
        return;
    }
    u->reader = (outr_grpc_reader){
        .max_bytes = u->max_bytes ? u->max_bytes : OUTR__GRPC_ANSWER_MAX,
        .encoding = outr_headers_get(&http->head.headers, "grpc-encoding"),
        .on_message = on_message,
        .on_end = on_end,
        .user = u,
    };
    outr_grpc_reader_start(&u->reader, http->response);
}

/* ---- the request: one frame, which every try sends ------------------------------------------- */

static void on_push(outr_deferred *deferred)
{
    outr_grpc_unary *u = OUTR_CONTAINER(deferred, outr_grpc_unary, pusher);
    outr_sink *sink = u->source.sink;
    if (!u->is_pushed) {
        u->is_pushed = true;
        outr_slice frame = {outr_chunk_ref(u->frame.chunk), u->frame.p, u->frame.n};
        if (!sink->ops->data(sink, frame) || !u->source.sink)
            return; /* resume ends it */
    }
    outr_loop_undefer(&u->pusher); /* a resume from within data */
    u->source.sink = NULL;
    sink->source = NULL;
    sink->ops->end(sink, NULL);
}

static void source_go_on(outr_source *source)
{
    outr_grpc_unary *u = OUTR_CONTAINER(source, outr_grpc_unary, source);
    outr_loop_defer(u->loop, &u->pusher);
}

static void source_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    outr_loop_undefer(&OUTR_CONTAINER(source, outr_grpc_unary, source)->pusher);
}

static const outr_source_ops source_ops = {
    .start = source_go_on, .resume = source_go_on, .cancel = source_cancel};

static void release_frame(void *ctx)
{
    outr_chunk_unref(ctx);
}

void outr_grpc_unary_again(outr_grpc_unary *u)
{
    outr_grpc_reader_cancel(&u->reader);
    u->source = (outr_source){.ops = &source_ops, .length = (int64_t)u->frame.n};
    u->pusher = (outr_deferred){.run = on_push};
    u->is_pushed = false;
    u->reply = OUTR_STR_NONE;
    outr_headers_init(&u->trailers, u->arena);
    outr_err_clear(&u->broken);
    *u->http = (outr_http_call){.req = &u->req,
                                .body = &u->source,
                                .on_response = on_response,
                                .user = u,
                                .arena = u->arena};
}

static void prepare(outr_grpc_unary *u, outr_http_call *http, const char *path,
                    outr_slice own_frame)
{
    outr_headers headers;
    outr__grpc_request_headers(&headers, u->arena, outr_loop_now(u->loop), u->deadline_ns,
                               &u->metadata);
    u->frame = own_frame;
    outr_arena_defer(u->arena, release_frame, u->frame.chunk);
    u->req = (outr_http_request){.method = OUTR_STR("POST"),
                                 .scheme = OUTR_STR("http"),
                                 .authority = OUTR_STR("localhost"),
                                 .target = outr_str_from(path),
                                 .headers = headers,
                                 .content_length = -1};
    u->http = http;
    outr_grpc_unary_again(u);
}

void outr_grpc_unary_prepare(outr_grpc_unary *u, outr_http_call *http, const char *path,
                             const void *message)
{
    prepare(u, http, path, outr_grpc_frame(message));
}

void outr_grpc_unary_prepare_bytes(outr_grpc_unary *u, outr_http_call *http, const char *path,
                                   outr_str message)
{
    prepare(u, http, path, outr_grpc_frame_bytes(message));
}

outr_code outr_grpc_unary_result(outr_grpc_unary *u, void *out_reply,
                                 const ProtobufCMessageDescriptor *type, const outr_err *http_err,
                                 outr_err *err)
{
    outr_grpc_reader_cancel(&u->reader);
    outr__grpc_outcome(&u->status, u->http, &u->trailers, &u->broken, http_err);
    if (u->status.code)
        return outr_fail(err, u->status.code, OUTR_FMT, OUTR_ARG(u->status.message));
    if (!u->reply.p)
        return outr_fail(err, OUTR_INTERNAL, "the answer of a unary call holds no message");
    return outr_proto_read(out_reply, u->arena, type, u->reply, err);
}
