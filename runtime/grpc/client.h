/* client - a unary gRPC call over whatever carries HTTP/2 calls: a pool, or the app channel.
 *
 * The caller prepares, starts the HTTP call by its own means, and in that operation's done asks for
 * the outcome:
 *
 *     outr_grpc_unary_prepare(&u, &call->http, "/pkg.Service/Method", &request);
 *     outr_app_call_start(app, call, op);
 *     ... done: rc = outr_grpc_unary_result(&u, &reply, &pkg__reply__descriptor, &op->err, &err);
 *
 * Memory is arena's; u must stay until done. */
#ifndef OUTR_GRPC_CLIENT_H
#define OUTR_GRPC_CLIENT_H

#include "grpc/proto.h"
#include "grpc/reader.h"
#include "grpc/status.h"
#include "http/client.h"

typedef struct outr_grpc_unary {
    /* in */
    outr_arena *arena;
    outr_loop *loop;
    size_t max_bytes;      /* of the answer; 0: 4 MiB */
    outr_headers metadata; /* initialised by the caller; content-type, te and timeout are added */
    uint64_t deadline_ns;  /* absolute; 0: none. Told to the peer; the caller's op enforces it */
    /* out */
    outr_grpc_status status;
    outr_headers answer_headers, trailers;
    outr_str reply; /* the message's bytes, on arena; p == NULL: none came */
    /* machinery */
    outr_http_call *http;
    outr_http_request req;
    outr_slice frame; /* the arena lets go of it */
    outr_source source;
    outr_deferred pusher;
    bool is_pushed;
    outr_grpc_reader reader;
    outr_err broken;
} outr_grpc_unary;

/* message is packed before this returns. Fills http (user, req, body, on_response, arena). The
 * authority is localhost unless u->req says otherwise before the start. */
void outr_grpc_unary_prepare(outr_grpc_unary *u, outr_http_call *http, const char *path,
                             const void *message);
/* The same for bytes that are a message already. */
void outr_grpc_unary_prepare_bytes(outr_grpc_unary *u, outr_http_call *http, const char *path,
                                   outr_str message);
/* For a try after one that did not reach the peer: the same call once more, from the start. */
void outr_grpc_unary_again(outr_grpc_unary *u);
/* After the HTTP call: OK with the decoded reply, or the call's status as code, text and u->status.
 * http_err: how the HTTP call ended. */
outr_code outr_grpc_unary_result(outr_grpc_unary *u, void *out_reply,
                                 const ProtobufCMessageDescriptor *type, const outr_err *http_err,
                                 outr_err *err);

#endif
