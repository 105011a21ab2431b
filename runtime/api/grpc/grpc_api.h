/* grpc_api - the public gRPC API of one loop: dapr.proto.runtime.v1.Dapr, and every other method as
 * a proxied call.
 *
 * Way of a call: http/server -> on_request -> token -> the method's row -> grpc/server (message
 * read) -> row->run in api/grpc/<block>.c -> api/core/<block> -> outr_grpc_reply or outr_rpc_fail.
 * A method that no table has goes to mesh/invoke as raw frames. */
#ifndef OUTR_API_GRPC_GRPC_API_H
#define OUTR_API_GRPC_GRPC_API_H

#include "api/api.h"
#include "api/core/core.h"
#include "grpc/server.h"

extern const outr_http_handler outr_grpc_api_handler; /* ctx: outr_api */
/* Fills api->grpc_methods, honouring spec.api; again after a snapshot change. */
void outr_grpc_api_open(outr_api *api);
void outr_grpc_api_done(outr_api *api);

/* Method tables, each in its own file, terminated by a row without path. */
extern const outr_grpc_method outr_rpcs_reflection[]; /* and health */
extern const outr_grpc_method outr_rpcs_state[], outr_rpcs_publish[], outr_rpcs_secrets[],
    outr_rpcs_bindings[], outr_rpcs_system[], outr_rpcs_invoke[], outr_rpcs_subscribe[],
    outr_rpcs_lock[], outr_rpcs_configuration[], outr_rpcs_absent[];

/* What a handler works with: call->ctx. On the call's arena. */
typedef struct outr_rpc {
    outr_api *api;
    outr_view *view;  /* pinned components of this loop, as long as the exchange */
    outr_trace trace; /* span of this hop */
    outr_why why;     /* an invocation that a sidecar answered by itself; NONE: not so */
} outr_rpc;
static inline outr_rpc *outr_rpc_of(const outr_grpc_call *call)
{
    return call->ctx;
}

/* Lets go of the view before the exchange ends: of calls that stay and must not hold back
 * components that are removed. rpc->view is NULL then. */
void outr_rpc_unpin(outr_grpc_call *call);

static inline outr_core outr_rpc_core(const outr_grpc_call *call)
{
    return (outr_core){outr_rpc_of(call)->api, outr_rpc_of(call)->view, call->arena};
}

/* Text as a message may carry it, on arena: what is no UTF-8 or NUL becomes U+FFFD. */
char *outr_rpc_text(outr_arena *arena, outr_str text);
/* A map<string, string> of a request: entries is the field, count its n_. Texts are borrowed. */
outr_kvs outr_rpc_kvs(outr_arena *arena, const void *entries, size_t count);
/* The same for an answer: what to put in the field; type: descriptor of the field's entries. */
void *outr_rpc_entries(outr_arena *arena, const ProtobufCMessageDescriptor *type, outr_kvs kvs);
/* Ends the call with a google.protobuf.Empty. */
void outr_rpc_reply_empty(outr_grpc_call *call);

/* err as a status: its code, and the ErrorInfo of its reason; details may be NULL. Counts it. Ends
 * the call. */
void outr_rpc_fail(outr_grpc_call *call, const outr_err *err, const outr_details *details);
/* A status with the one ErrorInfo that Dapr puts around HTTP-like refusals: reason is text,
 * metadata http.code and http.error_message. On arena. */
outr_grpc_status outr_rpc_http_status(outr_arena *arena, outr_code code, const char *text,
                                      int http_code, outr_str http_message);

bool outr_rpc_is_health(const outr_grpc_method *method);

#define OUTR_RPC_NO_TARGET                                                                         \
    "cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata"
/* A method of no service here: api/grpc/proxy.c. */
void outr_rpc_proxy(outr_api *api, outr_exchange *x);

#endif
