/* stream_client - a gRPC call with messages in both directions over whatever carries HTTP/2 calls.
 *
 * The caller prepares, starts the HTTP call by its own means and sends; in that operation's done it
 * asks for the outcome. Cancelling is cancelling that operation.
 *
 *     outr_grpc_stream_prepare(&s, &http, "/pkg.Service/Method");
 *     outr_http_call_start(pool, &http, op);
 *     outr_grpc_stream_send(&s, &first);
 *     ... on_message for each answer ...
 *     ... done: rc = outr_grpc_stream_result(&s, &op->err, &err);
 *
 * Lives on one loop. Memory is arena's, which does not grow with the messages; s must stay until
 * done. When the peer has said its last, the sending side is closed by itself. */
#ifndef OUTR_GRPC_STREAM_CLIENT_H
#define OUTR_GRPC_STREAM_CLIENT_H

#include "grpc/proto.h"
#include "grpc/reader.h"
#include "grpc/status.h"
#include "http/client.h"

typedef struct outr_grpc_stream outr_grpc_stream;
struct outr_grpc_stream {
    /* in */
    outr_arena *arena;
    outr_loop *loop;
    size_t max_bytes;      /* of one answer; 0: 4 MiB */
    outr_headers metadata; /* initialised by the caller; content-type, te and timeout are added */
    uint64_t deadline_ns;  /* absolute; 0: none. Told to the peer; the caller's op enforces it */
    /* The initial metadata is here, in answer_headers. May be NULL. */
    void (*on_head)(outr_grpc_stream *s);
    /* A message's bytes, borrowed for the call. False: no more until outr_grpc_stream_resume, which
     * comes from an event of its own. */
    bool (*on_message)(outr_grpc_stream *s, outr_str message);
    /* After outr_grpc_stream_send said false. May be NULL. */
    void (*on_writable)(outr_grpc_stream *s);
    void *user;
    /* out, at the end */
    outr_grpc_status status;
    outr_headers answer_headers, trailers;
    /* machinery */
    outr_http_call *http;
    outr_http_request req;
    outr_source source; /* feeds the request's sink */
    outr_bufq unsent;   /* frames from before there was a connection, or beyond its window */
    outr_deferred pusher;
    outr_grpc_reader reader;
    outr_err broken;
    bool is_half_closed, is_full, is_over;
};

/* Fills http (user, req, body, on_response, arena). path: "/package.Service/Method". The authority
 * is localhost unless s->req says otherwise before the start. */
void outr_grpc_stream_prepare(outr_grpc_stream *s, outr_http_call *http, const char *path);
/* From prepare on; the message is packed before this returns. It is always taken; false: enough is
 * waiting to be sent (also: no connection yet), on_writable tells when to go on. After the end
 * nothing happens. */
bool outr_grpc_stream_send(outr_grpc_stream *s, const void *message);
/* The same for bytes that are a message already. */
bool outr_grpc_stream_send_bytes(outr_grpc_stream *s, outr_str message);
void outr_grpc_stream_half_close(outr_grpc_stream *s); /* what was sent still goes */
void outr_grpc_stream_resume(outr_grpc_stream *s);
/* In done of the HTTP call: OK, or the call's status as code, text and s->status. http_err: how the
 * HTTP call ended. */
outr_code outr_grpc_stream_result(outr_grpc_stream *s, const outr_err *http_err, outr_err *err);

#endif
