/* unary - a unary gRPC call to the app: what every callback is made of.
 *
 * The caller fills what is `in`, starts the call, and in the operation's done asks for the outcome:
 *
 *     u->arena = arena;
 *     outr_headers_init(&u->metadata, arena);
 *     outr_app_unary_start(app, u, "/dapr.proto.runtime.v1.AppCallback/OnTopicEvent", &event, op);
 *     ... done: rc = outr_app_unary_result(u, &reply, &type__descriptor, &op->err, &err);
 *
 * The call waits for a slot of the concurrency limit, carries the app token, and tells the app
 * the op's deadline. It is made once more when a kept connection turned out to be closed before
 * anything was sent. Counted as dapr_grpc_io_client_*. */
#ifndef OUTR_APP_UNARY_H
#define OUTR_APP_UNARY_H

#include "app/channel.h"
#include "grpc/client.h"

typedef struct outr_app_unary {
    /* in */
    outr_arena *arena; /* must live until done */
    outr_headers metadata;
    size_t max_bytes;            /* of the answer; 0: --max-body-size */
    bool skip_limit, skip_token; /* as of outr_app_call */
    /* out, after outr_app_unary_result */
    outr_grpc_unary grpc; /* status, answer_headers, trailers */
    /* machinery */
    outr_app *app;
    outr_app_call call;
    outr_op inner;
    outr_op *op;
    const char *path;
    unsigned tries;
    uint64_t began_ns;
} outr_app_unary;

/* Without an app that speaks gRPC: FAILED_PRECONDITION. path is borrowed until done, message is
 * packed before this returns. */
void outr_app_unary_start(outr_app *app, outr_app_unary *u, const char *path, const void *message,
                          outr_op *op);
/* OK and the decoded reply on arena, or the status as code and text; u->grpc.status has its
 * details. The app could not be reached, or broke off: UNAVAILABLE; an answer that is none:
 * INTERNAL, UNKNOWN; larger than max_bytes: RESOURCE_EXHAUSTED. op_err: how the op ended. */
outr_code outr_app_unary_result(outr_app_unary *u, void *out_reply,
                                const ProtobufCMessageDescriptor *type, const outr_err *op_err,
                                outr_err *err);
/* grpc-trace-bin, what gRPC libraries older than traceparent read; nothing when it is malformed. */
void outr_app_add_trace_bin(outr_headers *metadata, outr_str traceparent);

#endif
