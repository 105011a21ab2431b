/* daprd_peer - an invocation sent to a peer that is a stock daprd: CallLocalStream, or CallLocal
 * when the peer knows only that.
 *
 * The call machine starts an HTTP call as ever; when its connection turns out to lead to a daprd,
 * outr__daprd_send makes it a gRPC call. Its answer is handed to on_answer as the HTTP answer that
 * it stands for: status, headers, a body that streams. contract/invocation.md section 4. */
#ifndef OUTR_MESH_DAPRD_PEER_H
#define OUTR_MESH_DAPRD_PEER_H

#include "mesh/daprd_body.h"
#include "http/client.h"

typedef struct outr__daprd_call {
    /* in */
    outr_loop *loop;
    outr_arena *arena;
    size_t max_bytes; /* of one message of the answer */
    const outr_trace *trace;
    outr_str authority;   /* the peer's address */
    outr_str scheme;      /* https under mutual TLS */
    outr_str app_id;      /* for errors */
    uint64_t deadline_ns; /* 0: none */
    bool wants_events;    /* Accept: text/event-stream */
    bool is_unary;        /* CallLocal; what is sent must have a known length */
    void (*on_answer)(outr_http_call *shown);
    void *user; /* shown->user */
    /* out, when the call is over */
    outr_err failure; /* before an answer: the peer's status, as daprd words it; code 0: none */
    outr_code status; /* of it */
    /* machinery */
    outr_http_call *http;
    outr_http_call shown;
    outr_http_request req;
    outr_http_response head;
    outr_headers trailers;
    outr__daprd_writer writer;
    outr__daprd_reader reader;
    bool has_answer;
} outr__daprd_call;

/* In on_place: http becomes the gRPC call. request and its parts are not needed afterwards. */
outr_code outr__daprd_send(outr__daprd_call *call, outr_http_call *http,
                           const outr__daprd_request *request, outr_err *err);
/* After the HTTP call is over with http_err: how the invocation went before an answer came; 0: an
 * answer came, or http_err says it. */
outr_code outr__daprd_outcome(outr__daprd_call *call, const outr_err *http_err);

/* HTTP's word for a gRPC code: contract/invocation.md section 6. */
int outr__http_of_grpc(int code);

#endif
