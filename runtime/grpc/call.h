/* call - what the unary and the streaming client have in common. */
#ifndef OUTR_GRPC_CALL_H
#define OUTR_GRPC_CALL_H

#include "grpc/status.h"
#include "http/client.h"

#define OUTR__GRPC_ANSWER_MAX (4 * OUTR_MIB)

/* Headers of a call: what gRPC asks for, then metadata. */
void outr__grpc_request_headers(outr_headers *out, outr_arena *arena, uint64_t now_ns,
                                uint64_t deadline_ns, const outr_headers *metadata);
/* Trailers are borrowed when they come: copies on out's arena. NULL is fine. */
void outr__grpc_keep_trailers(outr_headers *out, const outr_headers *trailers);
/* How a call ended. broken: what was wrong with the answer's body. */
void outr__grpc_outcome(outr_grpc_status *out, const outr_http_call *http,
                        const outr_headers *trailers, const outr_err *broken,
                        const outr_err *http_err);

#endif
