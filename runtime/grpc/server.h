/* server - one gRPC call on the serving side: messages in, messages out, a status.
 *
 * The way of a call: http/server -> the port's handler -> outr_grpc_serve (method known) -> body
 * cut into messages (grpc/reader.h) -> method->run -> outr_grpc_reply or outr_grpc_fail, which
 * release the exchange. A method that takes or gives a stream sets on_message, on_half_close and
 * on_writable in run and uses outr_grpc_send and outr_grpc_end.
 *
 * Every call ends exactly once: by reply, fail or end. After the client has gone or the deadline
 * has passed, the handler's operation is cancelled and whatever it then says is dropped or
 * replaced. */
#ifndef OUTR_GRPC_SERVER_H
#define OUTR_GRPC_SERVER_H

#include "grpc/proto.h"
#include "grpc/reader.h"
#include "grpc/status.h"
#include "loop/op.h"

typedef struct outr_grpc_call outr_grpc_call;

typedef struct outr_grpc_method {
    const char *path; /* "/dapr.proto.runtime.v1.Dapr/GetState" */
    const ProtobufCMessageDescriptor *request;
    bool takes_stream; /* run is called before the first message, each goes to on_message */
    void (*run)(outr_grpc_call *call);
    const char *group, *version; /* of spec.api, for the owner of the table */
} outr_grpc_method;

struct outr_grpc_call {
    outr_exchange *x;
    outr_arena *arena; /* the request's */
    outr_loop *loop;
    const outr_grpc_method *method;
    void *ctx;            /* given to outr_grpc_serve */
    void *request;        /* not takes_stream: the message, on arena */
    outr_headers headers; /* initial metadata of the answer; the handler may add to it until then */
    outr_headers trailers;
    /* The handler's operation; cancelled when the client has gone or the deadline has passed. A
     * method whose work is not one operation sets on_gone instead. */
    outr_op op;
    void *user;
    /* A stream's; set in run, on_gone too. message: gone with the next one. False: no more until
     * outr_grpc_resume. */
    bool (*on_message)(outr_grpc_call *call, void *message);
    void (*on_half_close)(outr_grpc_call *call); /* the client sends no more */
    void (*on_writable)(outr_grpc_call *call);   /* after outr_grpc_send said false */
    /* Client gone or deadline passed. The call is still to be ended. May be NULL. */
    void (*on_gone)(outr_grpc_call *call);
    outr_code code; /* how it ended, for metrics */
    /* machinery */
    outr_grpc_reader reader;
    outr_source source; /* feeds the answer's sink */
    outr_sink *sink;    /* NULL: no head yet */
    outr_timer timer;
    outr_arena *message_arena;
    outr_grpc_status failure; /* replaces what the handler says */
    bool is_gone, has_run, has_ended;
};

/* max_bytes: of one message, and of outr_grpc_reply's. x->user (the outr_grpc_call) and x->on_gone
 * are the call's from here on. */
typedef struct outr_grpc_serve {
    const outr_grpc_method *method;
    void *ctx;
    size_t max_bytes;
    outr_header header; /* of the initial metadata; an empty name: none. Borrowed */
} outr_grpc_serve_options;
void outr_grpc_serve(outr_exchange *x, const outr_grpc_serve_options *options);

/* The one answer of a unary call; message is packed before this returns. */
void outr_grpc_reply(outr_grpc_call *call, const void *message);
void outr_grpc_fail(outr_grpc_call *call, const outr_grpc_status *status);
void outr_grpc_fail_err(outr_grpc_call *call, const outr_err *err); /* code and text only */
/* One message of a stream. False: the client reads slowly, wait for on_writable. */
bool outr_grpc_send(outr_grpc_call *call, const void *message);
void outr_grpc_send_head(outr_grpc_call *call); /* initial metadata now, before any message */
void outr_grpc_end(outr_grpc_call *call);       /* a stream's, status OK */
/* Messages go on after on_message said false. */
void outr_grpc_resume(outr_grpc_call *call);
/* When the call must be over: 0: never said. For work done in its name. */
uint64_t outr_grpc_deadline(const outr_grpc_call *call);

#endif
