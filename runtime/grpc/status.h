/* status - gRPC status as HTTP/2 carries it (grpc/grpc doc/PROTOCOL-HTTP2.md). */
#ifndef OUTR_GRPC_STATUS_H
#define OUTR_GRPC_STATUS_H

#include "http/server.h"

/* Whether a request is a gRPC call: POST with content-type application/grpc[+...]. */
bool outr_grpc_is_call(const outr_http_request *req);
/* grpc-message: percent-encodes what is not printable ASCII. On arena. */
outr_str outr_grpc_message(outr_arena *arena, outr_str text);
/* A trailers-only answer (the head carries the status and ends the stream), then releases x. */
void outr_grpc_refuse(outr_exchange *x, outr_code code, outr_str text);

#endif
