/* reflection - tells clients such as grpcurl which services a server has and what their messages
 * are: grpc.reflection.v1, and v1alpha, whose messages are the same.
 *
 * Answers come from a serialised FileDescriptorSet that lies in the program's read-only part; it is
 * walked for each question, so that a server which nobody asks spends nothing on it. */
#ifndef OUTR_GRPC_REFLECTION_H
#define OUTR_GRPC_REFLECTION_H

#include "grpc/server.h"

#define OUTR_REFLECTION_FILES_MAX 64

typedef struct outr_reflection {
    outr_str files;              /* a google.protobuf.FileDescriptorSet, imports included */
    const char *const *services; /* what is listed, NULL behind the last */
} outr_reflection;

/* A method's run; its request is grpc.reflection.v1.ServerReflectionRequest, as a stream. */
void outr_grpc_reflect(outr_grpc_call *call, const outr_reflection *what);

#endif
