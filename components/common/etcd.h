/* etcd - calls of etcd's API (version 3, gRPC) to one of several servers.
 *
 * Main loop only. One server at a time: outr_etcd_login goes to the next one, looks its name up and
 * shows user and password when there are some; calls go to the one logged in to last. Its
 * connection is kept and pinged. */
#ifndef OUTR_COMPONENTS_COMMON_ETCD_H
#define OUTR_COMPONENTS_COMMON_ETCD_H

#include "grpc/client.h"
#include "grpc/stream_client.h"
#include "loop/op.h"

#define OUTR_ETCD_PATH(service, method) "/etcdserverpb." service "/" method

typedef struct outr_etcd outr_etcd;

typedef struct outr_etcd_options {
    outr_loop *loop;
    outr_str endpoints; /* "host:port,host:port", with or without http:// or https:// before them */
    outr_str user, password;            /* user empty: nobody asks who we are */
    bool has_tls;                       /* also without https:// */
    outr_str ca_pem, cert_pem, key_pem; /* empty: the system's authorities; no certificate */
} outr_etcd_options;

outr_code outr_etcd_new(outr_etcd **out, const outr_etcd_options *options, outr_err *err);
/* Calls that are out fail with CANCELLED. NULL is fine. */
void outr_etcd_free(outr_etcd *etcd);
void outr_etcd_login(outr_etcd *etcd, outr_op *op);
const char *outr_etcd_server(const outr_etcd *etcd); /* the last one, for logs */

/* One message each way. A stream's method does as well: its first answer is taken. */
typedef struct outr_etcd_call {
    /* in */
    const char *path;
    const ProtobufCMessageDescriptor *type; /* of the answer */
    /* out: until outr_etcd_call_done */
    void *answer;
    /* machinery */
    outr_etcd *etcd;
    outr_arena *arena;
    outr_str message;
    uint64_t deadline_ns;
    bool is_again; /* with another token */
    outr_grpc_unary unary;
    outr_http_call http;
    outr_op inner;
    outr_op *op;
} outr_etcd_call;
/* message is packed before this returns. The call ends after 5 s at the latest. UNAVAILABLE also
 * when there was no login yet. A token that is over is replaced. */
void outr_etcd_call_start(outr_etcd *etcd, outr_etcd_call *call, const void *message, outr_op *op);
void outr_etcd_call_done(outr_etcd_call *call); /* of one that has ended, or never began */

/* s: arena, loop and callbacks are the caller's to set; metadata and target are filled in. op is
 * the HTTP call's: outr_grpc_stream_result says how it has ended. A server that has lost the rest
 * of its cluster, and so hears of nothing, ends it. */
void outr_etcd_stream_start(outr_etcd *etcd, outr_grpc_stream *s, outr_http_call *http,
                            const char *path, outr_op *op);

/* The first key behind all that begin with prefix; on arena. */
outr_str outr_etcd_prefix_end(outr_arena *arena, outr_str prefix);

#endif
