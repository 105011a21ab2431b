/* reflection_client - asks a server which services it has (grpc.reflection.v1, and v1alpha where
 * that is all it knows). */
#ifndef OUTR_GRPC_REFLECTION_CLIENT_H
#define OUTR_GRPC_REFLECTION_CLIENT_H

#include "grpc/stream_client.h"

typedef struct outr_reflection {
    /* in */
    outr_http_pool *pool;
    outr_loop *loop;
    outr_arena *arena;
    /* out, on arena */
    outr_str *services; /* full names, as the server lists them */
    size_t count;
    /* machinery */
    outr_grpc_stream stream;
    outr_http_call http;
    outr_op inner;
    outr_op *op;
    bool is_alpha, is_answered;
    outr_err broken;
} outr_reflection;

/* UNIMPLEMENTED: the server has no reflection; else how the call failed, or what the server said.
 */
void outr_reflection_start(outr_reflection *r, outr_op *op);
bool outr_reflection_has(const outr_reflection *r, const char *service);

#endif
