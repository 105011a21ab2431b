/* grpc_api - the public gRPC API of one loop: dapr.proto.runtime.v1.Dapr, and every other method as
 * a proxied call.
 *
 * Way of a call: http/server -> on_request -> token -> the method's row -> grpc/server (message
 * read) -> row->run in api/grpc/<block>.c -> api/core/<block> -> outr_grpc_reply or outr_rpc_fail.
 * A method that no table has goes to mesh/invoke as raw frames. */
#ifndef OUTR_API_GRPC_GRPC_API_H
#define OUTR_API_GRPC_GRPC_API_H

#include "api/api.h"
#include "api/core/details.h"
#include "grpc/server.h"

extern const outr_http_handler outr_grpc_api_handler; /* ctx: outr_api */
/* Fills api->grpc_methods, honouring spec.api; again after a snapshot change. */
void outr_grpc_api_open(outr_api *api);
void outr_grpc_api_done(outr_api *api);

/* Method tables, each in its own file, terminated by a row without path. */
extern const outr_grpc_method outr_rpcs_absent[], outr_rpcs_bindings[];

/* What a handler works with: call->ctx. On the call's arena. */
typedef struct outr_rpc {
    outr_api *api;
    outr_view *view;  /* pinned components of this loop, as long as the exchange */
    outr_trace trace; /* span of this hop */
} outr_rpc;
static inline outr_rpc *outr_rpc_of(const outr_grpc_call *call)
{
    return call->ctx;
}

/* err as a status: the code and ErrorInfo of its reason; details may be NULL. Ends the call. */
void outr_rpc_fail(outr_grpc_call *call, const outr_err *err, const outr_details *details);
/* The same with the code given (etag mismatch: ABORTED). */
void outr_rpc_fail_code(outr_grpc_call *call, outr_code code, const outr_err *err,
                        const outr_details *details);
/* A status with the one ErrorInfo that Dapr puts around HTTP-like refusals: reason is text,
 * metadata http.code and http.error_message. On arena. */
outr_grpc_status outr_rpc_http_status(outr_arena *arena, outr_code code, const char *text,
                                      int http_code, outr_str http_message);

/* A method of no service here: api/grpc/proxy.c. */
void outr_rpc_proxy(outr_api *api, outr_exchange *x);

#endif
