/* spans - what the span of an API call says: name and attributes as Dapr's have them
 * (contract/lifecycle.md "Tracing"). Nothing for calls that are not sampled. */
#ifndef OUTR_API_SPANS_H
#define OUTR_API_SPANS_H

#include "api/http/http_api.h"
#include "grpc/server.h"

/* Each when the answer has left, or was broken off. */
void outr_api_span_http(const outr_api_request *r, bool is_broken);
void outr_api_span_rpc(const outr_api *api, const outr_exchange *x, const outr_grpc_call *call,
                       const outr_trace *trace);
void outr_api_span_proxied(const outr_api *api, const outr_exchange *x, const outr_invoke *invoke,
                           bool is_broken);

#endif
