#include "api/grpc/grpc_api.h"
#include "api/spans.h"
#include "api/rules.h"
#include "base/map.h"

#define TOKEN_HEADER   "dapr-api-token"
#define INVOKE_SERVICE "/dapr.proto.runtime.v1.Dapr/InvokeService"

static const outr_grpc_method *const tables[] = {
    outr_rpcs_state,    outr_rpcs_publish,   outr_rpcs_secrets,
    outr_rpcs_bindings, outr_rpcs_system,    outr_rpcs_reflection,
    outr_rpcs_invoke,   outr_rpcs_subscribe, outr_rpcs_lock,
    outr_rpcs_configuration, outr_rpcs_absent};

static const outr_grpc_method closed = {.path = "closed by spec.api"};

void outr_grpc_api_open(outr_api *api)
{
    const outr_configuration *c = &api->snapshot->configuration;
    api->grpc_methods = outr_map_new();
    for (size_t t = 0; t < OUTR_LEN(tables); t++) {
        for (const outr_grpc_method *m = tables[t]; m->path; m++) {
            bool is_open = !m->group || outr_api_is_open(c, "grpc", m->group, m->version);
            outr_map_put(api->grpc_methods, outr_str_from(m->path),
                         (void *)(uintptr_t)(is_open ? m : &closed));
        }
    }
}

void outr_grpc_api_done(outr_api *api)
{
    outr_map_free(api->grpc_methods);
    api->grpc_methods = NULL;
}

/* ---- one call -------------------------------------------------------------------------------- */

/* What asks for another app; all else is about this sidecar. */
static bool is_invocation(const outr_api *api, outr_str method)
{
    return outr_str_is(method, INVOKE_SERVICE) || !outr_map_get(api->grpc_methods, method);
}

/* A refusal of whatever it was; one of an invocation says why, as all of them do. */
static void refuse(outr_api *api, outr_exchange *x, outr_grpc_status *status, outr_why why)
{
    if (is_invocation(api, x->req.target)) {
        outr_mesh_tell_local(api->mesh, why, OUTR_STR_NONE, outr_why_text(why));
        status->reason = outr_str_from(outr_why_word(why));
    }
    outr_grpc_refuse_status(x, status);
}

/* False after it has answered. */
static bool check_token(outr_api *api, outr_exchange *x)
{
    outr_str token = outr_token_get(&api->token, api->settings->api_token);
    outr_str given = outr_headers_get(&x->req.headers, TOKEN_HEADER);
    if (token.n == 0)
        return true;
    bool is_right = outr_api_token_is_right(given, token);
    outr_headers_remove(&x->req.headers, TOKEN_HEADER); /* it never crosses a hop */
    if (is_right)
        return true;
    outr_grpc_status status =
        outr_rpc_http_status(x->arena, OUTR_UNAUTHENTICATED, "Unauthorized", 401,
                             given.p ? OUTR_STR("authentication error: api token mismatch")
                                     : OUTR_STR("missing api token in request metadata"));
    refuse(api, x, &status, OUTR_WHY_API_TOKEN);
    return false;
}

/* False after it has answered. */
static bool check_baggage(outr_api *api, outr_exchange *x)
{
    outr_str baggage = outr_headers_get(&x->req.headers, "baggage");
    if (baggage.n == 0 || outr_baggage_is_valid(baggage))
        return true;
    outr_grpc_status status = {.code = OUTR_INVALID_ARGUMENT,
                               .message = OUTR_STR("invalid baggage header")};
    refuse(api, x, &status, OUTR_WHY_BAD_REQUEST);
    return false;
}

static void unpin(void *ctx)
{
    outr_rpc *rpc = ctx;
    outr_view *view = rpc->view;
    rpc->view = NULL;
    outr_view_unpin(view);
}

void outr_rpc_unpin(outr_grpc_call *call)
{
    unpin(call->ctx);
}

/* All answers but of invocations, whose headers are the app's, name their span. */
static outr_header trace_header(outr_arena *arena, const outr_trace *trace)
{
    char bytes[OUTR_TRACE_BIN_LEN];
    outr_trace_write_bin(trace, bytes);
    return (outr_header){.name = OUTR_STR("grpc-trace-bin"),
                         .value = outr_grpc_bin_write(arena, outr_str_of(bytes, sizeof bytes))};
}

static void serve(outr_api *api, outr_exchange *x, const outr_grpc_method *method)
{
    outr_rpc *rpc = outr_arena_alloc(x->arena, sizeof *rpc);
    int64_t max = api->settings->max_body_bytes;
    outr_trace parent;
    rpc->api = api;
    rpc->view = outr_host_pin(api->host, api->loop);
    outr_arena_defer(x->arena, unpin, rpc);
    outr_trace_read_grpc(&parent, &x->req.headers);
    outr_trace_start(&rpc->trace, &parent, &api->trace, outr_loop_rand(api->loop));
    outr_grpc_serve_options options = {
        .method = method, .ctx = rpc, .max_bytes = max > 0 ? (size_t)max : UINT32_MAX};
    if (rpc->trace.is_valid && !outr_str_is(x->req.target, INVOKE_SERVICE))
        options.header = trace_header(x->arena, &rpc->trace);
    outr_grpc_serve(x, &options);
}

/* A health check that names an app asks about the app. */
static bool is_apps(const outr_grpc_method *method, const outr_exchange *x)
{
    return outr_rpc_is_health(method) && (outr_headers_has(&x->req.headers, "dapr-callee-app-id") ||
                                          outr_headers_has(&x->req.headers, "dapr-app-id"));
}

static void on_request(void *ctx, outr_exchange *x)
{
    outr_api *api = ctx;
    const outr_grpc_method *method;
    if (!outr_grpc_is_call(&x->req)) {
        outr_grpc_refuse_request(x);
        return;
    }
    if (!check_token(api, x))
        return;
    method = outr_map_get(api->grpc_methods, x->req.target);
    if (method == &closed) {
        outr_grpc_status status =
            outr_rpc_http_status(x->arena, OUTR_UNIMPLEMENTED, "Not Implemented", 501,
                                 OUTR_STR("requested endpoint is not available"));
        refuse(api, x, &status, OUTR_WHY_API_CLOSED);
    } else if (method && !is_apps(method, x)) {
        if (check_baggage(api, x))
            serve(api, x, method);
    } else {
        outr_rpc_proxy(api, x);
    }
}

static const outr_metric_desc completed = {"dapr_grpc_io_server_completed_rpcs",
                                           "calls of the gRPC API",
                                           OUTR_COUNTER,
                                           0,
                                           {"grpc_server_method", "grpc_server_status"}};
static const outr_metric_desc latency = {"dapr_grpc_io_server_server_latency",
                                         "time from request head to end of answer, ms",
                                         OUTR_HISTOGRAM,
                                         OUTR_BUCKETS_LATENCY_MS,
                                         {"grpc_server_method", "grpc_server_status"}};
static const outr_metric_desc received = {"dapr_grpc_io_server_received_bytes_per_rpc",
                                          "size of request bodies",
                                          OUTR_HISTOGRAM,
                                          OUTR_BUCKETS_BYTES,
                                          {"grpc_server_method"}};
static const outr_metric_desc sent = {"dapr_grpc_io_server_sent_bytes_per_rpc",
                                      "size of answer bodies",
                                      OUTR_HISTOGRAM,
                                      OUTR_BUCKETS_BYTES,
                                      {"grpc_server_method"}};

static void log_call(const outr_api *api, const outr_exchange *x, const outr_grpc_call *call)
{
    bool is_on = api->settings->api_logging < 0 ? api->snapshot->configuration.api_logging
                                                : api->settings->api_logging > 0;
    if (!is_on)
        return;
    OUTR_LOG(api->log, INFO, "gRPC API Called", OUTR_S("method", outr_str_from(call->method->path)),
             OUTR_I("code", call->code), OUTR_I("size", x->sent_bytes),
             OUTR_I("duration", (outr_loop_now(x->loop) - x->started_ns) / OUTR_MS),
             OUTR_S("useragent", outr_headers_get(&x->req.headers, "user-agent")));
}

/* Proxied calls are not counted here: their methods are the clients' to choose. */
static void on_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    outr_api *api = ctx;
    const outr_grpc_call *call = x->user;
    if (!call) {
        if (x->invoke)
            outr_api_span_proxied(api, x, x->invoke, is_broken);
        return;
    }
    log_call(api, x, call);
    outr_api_span_rpc(api, x, call, &outr_rpc_of(call)->trace);
    if (!api->metrics)
        return;
    const outr_str labels[] = {outr_str_from(call->method->path),
                               outr_str_from(outr_grpc_status_label(call->code))};
    outr_metric_count(api->metrics, &completed, labels, 1);
    outr_metric_count(api->metrics, &latency, labels,
                      (double)(outr_loop_now(x->loop) - x->started_ns) / (double)OUTR_MS);
    outr_metric_count(api->metrics, &received, labels, (double)x->received_bytes);
    outr_metric_count(api->metrics, &sent, labels, (double)x->sent_bytes);
}

const outr_http_handler outr_grpc_api_handler = {.on_request = on_request,
                                                 .on_finished = on_finished};
