#include "grpc/client.h"

#include "grpc/call.h"

static bool on_message(outr_grpc_reader *reader, outr_str message)
{
    outr_grpc_unary *u = reader->user;
    if (u->reply.p)
        outr_fail(&u->broken, OUTR_INTERNAL, "more than one message in the answer of a unary call");
    else
        u->reply = outr_arena_str(u->arena, message);
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

/* The frame lies on the arena, so that a try after a lost connection can send it again. */
static outr_str frame_on_arena(outr_arena *arena, const void *message)
{
    outr_slice slice = outr_grpc_frame(message);
    outr_str frame = outr_arena_str(arena, outr_str_of(slice.p, slice.n));
    outr_slice_done(&slice);
    return frame;
}

void outr_grpc_unary_prepare(outr_grpc_unary *u, outr_http_call *http, const char *path,
                             const void *message)
{
    outr_headers headers;
    outr__grpc_request_headers(&headers, u->arena, outr_loop_now(u->loop), u->deadline_ns,
                               &u->metadata);
    outr_headers_init(&u->trailers, u->arena);
    u->frame = frame_on_arena(u->arena, message);
    outr_memory_source_init(&u->source, u->loop, u->frame);
    u->req = (outr_http_request){.method = OUTR_STR("POST"),
                                 .scheme = OUTR_STR("http"),
                                 .authority = OUTR_STR("localhost"),
                                 .target = outr_str_from(path),
                                 .headers = headers,
                                 .content_length = -1};
    u->http = http;
    u->reply = OUTR_STR_NONE;
    outr_err_clear(&u->broken);
    *http = (outr_http_call){.req = &u->req,
                             .body = &u->source.base,
                             .on_response = on_response,
                             .user = u,
                             .arena = u->arena};
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
