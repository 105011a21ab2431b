/* proto - protobuf messages on an arena.
 *
 * A message read here lives as long as its arena, strings and bytes included. protobuf-c knows no
 * limit of depth, cuts strings at a NUL and takes any bytes for text, so what comes from a peer is
 * checked on the wire first: depth (OUTR_PROTO_DEPTH_MAX), UTF-8, no NUL in strings. */
#ifndef OUTR_GRPC_PROTO_H
#define OUTR_GRPC_PROTO_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/chunk.h"
#include "base/err.h"

#define OUTR_PROTO_DEPTH_MAX 100 /* as protobuf's own libraries */

/* A field as it stands on the wire. */
typedef struct outr_proto_field {
    uint32_t number;
    uint64_t value; /* of a varint */
    outr_str bytes; /* of a string, message and the like; p == NULL: none of these */
} outr_proto_field;
/* The first field of *rest, which then is what follows. False: malformed (or empty). */
bool outr_proto_next(outr_str *rest, outr_proto_field *out);

/* INTERNAL: no such message (Go's gRPC says it so); RESOURCE_EXHAUSTED: larger than the arena. */
outr_code outr_proto_read(void *out_message, outr_arena *arena,
                          const ProtobufCMessageDescriptor *type, outr_str bytes, outr_err *err);
/* The message's bytes, on arena. */
outr_str outr_proto_write(outr_arena *arena, const void *message);
/* Length-prefixed, as a gRPC body has it, in a chunk of its own. */
outr_slice outr_grpc_frame(const void *message);
/* The same for bytes that are a message already. */
outr_slice outr_grpc_frame_bytes(outr_str message);

static inline outr_str outr_proto_bytes(ProtobufCBinaryData data)
{
    return outr_str_of((const char *)data.data, data.len);
}
static inline ProtobufCBinaryData outr_proto_data(outr_str bytes)
{
    return (ProtobufCBinaryData){bytes.n, (uint8_t *)(uintptr_t)bytes.p};
}
/* Text of ours in a message, NUL-terminated on arena. */
static inline char *outr_proto_text(outr_arena *arena, outr_str text)
{
    return outr_arena_strz(arena, text);
}

#endif
