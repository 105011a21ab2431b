/* daprd_wire - dapr.proto.internals.v1.ServiceInvocation as bytes: what HTTP says in its messages.
 *
 * No I/O. Heads are written here field by field, straight from header lists; what a peer sends as
 * a head is read through grpc/proto.h, pieces of a body by outr__daprd_piece_read, which copies
 * nothing. contract/invocation.md sections 4 and 5. */
#ifndef OUTR_MESH_DAPRD_WIRE_H
#define OUTR_MESH_DAPRD_WIRE_H

#include "base/chunk.h"
#include "http/message.h"
#include "observe/trace.h"

#define OUTR__INTERNALS "/dapr.proto.internals.v1.ServiceInvocation/"
#define OUTR__PIECE_MAX 2048 /* bytes of a body in one message; a rule of the wire */
/* Names and values in a head that is taken; as many headers as an HTTP head may have, and names. */
#define OUTR__HEADERS_MAX 2000

/* A message of CallLocalStream, either way. */
typedef struct outr__daprd_piece {
    bool has_head, has_payload;
    outr_str head; /* an InternalInvokeRequest or -Response, as it came */
    outr_str data;
    uint64_t seq;
} outr__daprd_piece;
/* Borrows from message. False: malformed. Unknown fields are skipped. */
bool outr__daprd_piece_read(outr__daprd_piece *out, outr_str message);

/* As gRPC messages, framed: bytes cut into pieces counted from *seq on. head (may be NULL) goes
 * with the first, alone when there are no bytes. marks: every piece without a head gets an empty
 * one, as the pieces of an event stream have it. */
outr_slice outr__daprd_frames(const outr_str *head, outr_str bytes, uint64_t *seq, bool marks);

/* What an InternalInvokeRequest says. Names of headers are written as they stand in the list; equal
 * ones must be spelled alike. */
typedef struct outr__daprd_request {
    const outr_headers *metadata;
    outr_str verb; /* NONE: no http_extension */
    outr_str method, query, content_type, type_url;
    bool has_data; /* an Any, even when it is empty: what a gRPC caller gave */
} outr__daprd_request;
/* INTERNAL: text that is not UTF-8 cannot be said in a message. */
outr_code outr__daprd_request_write(outr_str *out, outr_arena *arena,
                                    const outr__daprd_request *request, outr_err *err);
/* The frame of a unary call up to its last field, whose n bytes follow. */
outr_code outr__daprd_unary_start(outr_str *out, outr_arena *arena,
                                  const outr__daprd_request *request, size_t n, outr_err *err);

typedef struct outr__daprd_status {
    int code; /* under 100 a gRPC code */
    outr_str message;
    outr_str details; /* a google.rpc.Status, serialised, whose details are meant */
} outr__daprd_status;
typedef struct outr__daprd_answer {
    outr__daprd_status status;
    const outr_headers *headers, *trailers; /* as in a request; trailers may be NULL */
    bool has_message;
    outr_str content_type, type_url;
    bool has_data;
    outr_str data; /* of a unary answer */
} outr__daprd_answer;
outr_code outr__daprd_answer_write(outr_str *out, outr_arena *arena,
                                   const outr__daprd_answer *answer, outr_err *err);

/* "x-one" as Go's net/http spells it: "X-One". */
outr_str outr__daprd_canonical(outr_arena *arena, outr_str name);
/* A binary value of gRPC as it stands in the maps of the messages: padded. */
outr_str outr__daprd_pad(outr_arena *arena, outr_str value);
/* grpc-trace-bin: the OpenCensus binary form, base64. */
outr_str outr__daprd_trace_bin(outr_arena *arena, const outr_trace *trace);
/* Number of a verb in HTTPExtension; -1: unknown there. */
int outr__daprd_verb(outr_str verb);
const char *outr__daprd_verb_name(int number); /* NULL: none of these */

#endif
