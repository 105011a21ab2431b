#include "api/http/http_api.h"

#include "api/api_metrics.h"
#include "api/http/cors.h"
#include "api/http/invoke.h"
#include "api/rules.h"
#include "api/spans.h"
#include "base/encode.h"
#include "base/url.h"
#include "mesh/chain.h"

/* ---- life of the API ------------------------------------------------------------------------- */

static const outr_api_route *const tables[] = {
    outr_routes_system,  outr_routes_state,    outr_routes_secrets, outr_routes_invoke,
    outr_routes_publish, outr_routes_bindings, outr_routes_lock,    outr_routes_configuration,
    outr_routes_mesh,    outr_routes_absent,
};

static void build_routers(outr_api *api)
{
    api->router = outr_router_new();
    api->public_router = outr_router_new();
    api->is_invoke_open = false;
    for (size_t t = 0; t < OUTR_LEN(tables); t++) {
        for (const outr_api_route *route = tables[t]; route->pattern; route++) {
            if (!(route->flags & OUTR_ROUTE_ALWAYS) &&
                !outr_api_is_open(&api->snapshot->configuration, "http", route->group,
                                  route->version))
                continue;
            outr_router_add(api->router, route->methods, route->pattern, route);
            if (route->flags & OUTR_ROUTE_PUBLIC)
                outr_router_add(api->public_router, route->methods, route->pattern, route);
            if (strcmp(route->group, "invoke") == 0)
                api->is_invoke_open = true;
        }
    }
}

static void use_snapshot(outr_api *api, const outr_snapshot *snapshot)
{
    const outr_configuration *c = &snapshot->configuration;
    api->snapshot = outr_snapshot_ref(snapshot);
    api->trace = (outr_trace_config){.is_on = c->tracing_is_on,
                                     .sampling_rate = c->sampling_rate,
                                     .tracer = api->tracer};
    api->http_metrics = outr_api_metrics_new(api->metrics, c);
    build_routers(api);
}

static void drop_snapshot(outr_api *api)
{
    outr_router_free(api->router);
    outr_router_free(api->public_router);
    outr_api_metrics_free(api->http_metrics);
    outr_snapshot_unref((outr_snapshot *)api->snapshot);
}

void outr_api_open(outr_api *api)
{
    use_snapshot(api, api->snapshot);
}

void outr_api_done(outr_api *api)
{
    drop_snapshot(api);
    outr_token_view_done(&api->token);
}

void outr_api_update(outr_api *api, const outr_snapshot *snapshot)
{
    outr_api before = *api;
    use_snapshot(api, snapshot);
    drop_snapshot(&before);
}

/* ---- one request ----------------------------------------------------------------------------- */

static void on_gone(outr_exchange *x, const outr_err *err OUTR_UNUSED)
{
    outr_api_request *r = x->user;
    if (r->chain) {
        outr_chain_cancel(r->chain);
        return;
    }
    if (r->gather.done) {
        outr_gather_cancel(&r->gather);
        r->gather.done = NULL;
        outr_api_finish(r);
        return;
    }
    outr_op_cancel(&r->op, OUTR_CANCELLED);
}

static void on_body(outr_gather *gather, const outr_err *err)
{
    outr_api_request *r = gather->ctx;
    r->gather.done = NULL;
    if (!err) {
        /* The bytes must live as long as the request, the gatherer's buffer goes with it. */
        outr_arena_defer(r->x->arena, (void (*)(void *))outr_buf_done, &gather->body);
        r->body = outr_buf_view(&gather->body);
        r->route->run(r);
        return;
    }
    outr_err shown;
    outr_fail_reason(&shown, OUTR_INVALID_ARGUMENT, OUTR_REASON_MALFORMED_REQUEST, "%s",
                     err->code == OUTR_RESOURCE_EXHAUSTED ? "stream too large" : err->text);
    if (r->route->body_failed)
        r->route->body_failed(r, &shown);
    else
        outr_api_fail(r, &shown, NULL);
}

static void run(outr_api_request *r)
{
    if (!(r->route->flags & OUTR_ROUTE_BODY) || !r->x->body) {
        r->route->run(r);
        return;
    }
    int64_t max = r->api->settings->max_body_bytes;
    outr_gather_start(&r->gather, r->x->body, max > 0 ? (size_t)max : SIZE_MAX / 2, on_body, r);
}

static void decode_params(outr_api_request *r, const outr_route_match *match)
{
    for (size_t i = 0; i < match->param_count; i++) {
        if (!outr_percent_decode(r->x->arena, match->params[i], true, &r->params[i]))
            r->params[i] = match->params[i];
    }
}

/* The route of the path as sent, else of the cleaned path ("//", trailing "/"): contract/README. */
static bool find_route(outr_api_request *r, const outr_router *router)
{
    outr_route_match match;
    bool found = outr_router_find(router, r->x->req.method, r->path, &match);
    if (!found) {
        outr_str clean = outr_path_clean(r->x->arena, r->path);
        if (clean.n > 1 && clean.p[clean.n - 1] == '/')
            clean.n--;
        found = !outr_str_eq(clean, r->path) &&
                outr_router_find(router, r->x->req.method, clean, &match);
    }
    if (!found)
        return false;
    r->route = match.route;
    decode_params(r, &match);
    return true;
}

/* What asks for another app; all else is about this sidecar. */
static bool is_invocation(const outr_api_request *r)
{
    if (r->route)
        return strcmp(r->route->group, "invoke") == 0;
    return outr_headers_has(&r->x->req.headers, "dapr-app-id") ||
           outr_str_starts(r->path, OUTR_STR("/v1.0/invoke/"));
}

static void tell_local(outr_api_request *r, outr_why why, const char *text)
{
    if (is_invocation(r))
        outr_api_tell_local(r, why, OUTR_STR_NONE, text);
}

static bool check_token(outr_api_request *r)
{
    outr_headers *headers = &r->x->req.headers;
    outr_str token = outr_token_get(&r->api->token, r->api->settings->api_token);
    if (token.n == 0)
        return true;
    bool is_right = outr_api_token_is_right(outr_headers_get(headers, "dapr-api-token"), token);
    outr_headers_remove(headers, "dapr-api-token"); /* it never crosses a hop */
    return is_right || (r->route && (r->route->flags & OUTR_ROUTE_NO_TOKEN));
}

static void fail_text(outr_api_request *r, int status, const char *text)
{
    outr_http_response head = {.status = status};
    outr_headers_init(&head.headers, r->x->arena);
    outr_headers_add(&head.headers, OUTR_STR("Content-Type"),
                     OUTR_STR("text/plain; charset=utf-8"));
    outr_headers_add(&head.headers, OUTR_STR("X-Content-Type-Options"), OUTR_STR("nosniff"));
    outr_api_reply_with(r, &head, outr_str_from(text));
}

static bool check_baggage(outr_api_request *r)
{
    const outr_headers *in = &r->x->req.headers;
    outr_str baggage = OUTR_STR_NONE;
    for (size_t i = 0; i < in->count; i++) { /* all lines are one list: RFC 9110 section 5.3 */
        if (outr_str_iis(in->items[i].name, "baggage") && in->items[i].value.n > 0)
            baggage = baggage.n
                          ? outr_arena_join(in->arena, baggage, OUTR_STR(","), in->items[i].value)
                          : in->items[i].value;
    }
    if (baggage.n == 0 || (r->route && (r->route->flags & OUTR_ROUTE_NO_TRACE)))
        return true;
    if (!outr_baggage_is_valid(baggage))
        return false;
    outr_headers_add(&r->extra, OUTR_STR("Baggage"), baggage);
    return true;
}

static outr_api_request *begin(outr_api *api, outr_exchange *x)
{
    outr_api_request *r = outr_arena_alloc(x->arena, sizeof *r);
    outr_trace parent;
    x->user = r;
    x->on_gone = on_gone;
    r->x = x;
    r->api = api;
    r->query = outr_str_cut(x->req.target, '?', &r->path);
    r->view = outr_host_pin(api->host, api->loop);
    outr_headers_init(&r->extra, x->arena);
    outr_trace_read(&parent, &x->req.headers);
    outr_trace_start(&r->trace, &parent, &api->trace, outr_loop_rand(api->loop));
    return r;
}

void outr_api_no_route(outr_api_request *r)
{
    r->route = NULL;
    if (r->api->is_invoke_open) {
        outr_api_invoke_any(r);
        return;
    }
    tell_local(r, OUTR_WHY_API_CLOSED, "spec.api does not open it");
    fail_text(r, 404, "404 page not found\n");
}

static void dispatch(outr_api_request *r)
{
    if (r->route)
        run(r);
    else
        outr_api_no_route(r);
}

/* ---- spec.httpPipeline ----------------------------------------------------------------------- */

static void on_filtered(outr_chain_run *chain, outr_middleware_verdict verdict,
                        const outr_err *err)
{
    outr_api_request *r = chain->user;
    outr_middleware_call *call = &chain->call;
    r->chain = NULL;
    for (size_t i = 0; i < call->extra.count; i++)
        outr_headers_add(&r->extra, call->extra.items[i].name, call->extra.items[i].value);
    if (err && err->code == OUTR_CANCELLED) {
        outr_api_finish(r);
    } else if (err) {
        OUTR_LOG(r->api->log, WARN, "a middleware failed", OUTR_ERR(err));
        tell_local(r, OUTR_WHY_MIDDLEWARE, err->text);
        fail_text(r, 500, "Internal Server Error\n");
    } else if (verdict == OUTR_MIDDLEWARE_ANSWER) {
        tell_local(r, OUTR_WHY_MIDDLEWARE, "a middleware answered");
        outr_api_reply_with(r, &call->answer, call->answer_body);
    } else {
        /* What the middlewares let pass is what is dispatched. */
        r->x->body = call->body;
        r->query = outr_str_cut(r->x->req.target, '?', &r->path);
        r->route = NULL;
        find_route(r, r->api->router);
        dispatch(r);
    }
}

static void filter(outr_api_request *r)
{
    const outr_chain *chain = outr_view_http_chain(r->view);
    if (chain->count == 0) {
        dispatch(r);
        return;
    }
    outr_chain_run *run = outr_arena_alloc(r->x->arena, sizeof *run);
    *run = (outr_chain_run){.chain = chain,
                            .call = {.loop = r->x->loop,
                                     .arena = r->x->arena,
                                     .req = &r->x->req,
                                     .body = r->x->body,
                                     .client = &r->x->peer},
                            .done = on_filtered,
                            .user = r};
    r->chain = run;
    outr_chain_start(run);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void on_request(void *ctx, outr_exchange *x)
{
    outr_api *api = ctx;
    outr_api_request *r = begin(api, x);
    find_route(r, api->router);
    if (outr_cors_apply(api->settings, &x->req, &r->extra)) {
        outr_api_reply(r, 200, NULL, OUTR_STR_NONE);
    } else if (!check_baggage(r)) {
        outr_err err;
        outr_fail_reason(&err, OUTR_INVALID_ARGUMENT, OUTR_REASON_MALFORMED_REQUEST,
                         "invalid baggage header");
        r->trace.is_valid = false;
        r->is_bare = true;
        tell_local(r, OUTR_WHY_BAD_REQUEST, err.text);
        outr_api_fail(r, &err, NULL);
    } else if (!check_token(r)) {
        tell_local(r, OUTR_WHY_API_TOKEN, "no API token, or a wrong one");
        fail_text(r, 401, "invalid api token\n");
    } else {
        filter(r);
    }
}

static void on_public_request(void *ctx, outr_exchange *x)
{
    outr_api *api = ctx;
    outr_api_request *r = begin(api, x);
    if (find_route(r, api->public_router))
        run(r);
    else
        fail_text(r, 404, "404 page not found\n");
}

static void log_call(const outr_api *api, const outr_exchange *x, const outr_api_request *r)
{
    const outr_configuration *c = &api->snapshot->configuration;
    bool is_on = api->settings->api_logging < 0 ? c->api_logging : api->settings->api_logging > 0;
    if (!is_on ||
        (c->api_logging_omit_health && r->route && (r->route->flags & OUTR_ROUTE_NO_TRACE)))
        return;
    outr_str path = c->api_logging_obfuscate
                        ? outr_str_from(r->route ? r->route->pattern : "/{method...}")
                        : x->req.target;
    OUTR_LOG(api->log, INFO, "HTTP API Called", OUTR_S("method", x->req.method),
             OUTR_S("path", path), OUTR_I("code", x->status), OUTR_I("size", x->sent_bytes),
             OUTR_I("duration", (outr_loop_now(x->loop) - x->started_ns) / OUTR_MS),
             OUTR_S("useragent", outr_headers_get(&x->req.headers, "user-agent")));
}

static void on_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    outr_api *api = ctx;
    const outr_api_request *r = x->user;
    if (!r) /* the server's own answer to a malformed head */
        return;
    outr_api_metrics_record(api->http_metrics, x, r->path);
    log_call(api, x, r);
    outr_api_span_http(r, is_broken);
}

const outr_http_handler outr_api_handler = {.on_request = on_request, .on_finished = on_finished};
const outr_http_handler outr_api_public_handler = {.on_request = on_public_request,
                                                   .on_finished = on_finished};

/* ---- what handlers read ---------------------------------------------------------------------- */

static outr_str decode(outr_api_request *r, outr_str text)
{
    outr_str out;
    return outr_percent_decode(r->x->arena, text, true, &out) ? out : text;
}

outr_kvs outr_api_metadata(outr_api_request *r)
{
    outr_str rest = r->query, key, value;
    size_t max = 0, count = 0;
    for (outr_str scan = r->query; outr_query_next(&scan, &key, &value);)
        max++;
    outr_kv *items = outr_arena_alloc(r->x->arena, (max + 1) * sizeof *items);
    while (outr_query_next(&rest, &key, &value)) {
        key = decode(r, key);
        if (!outr_str_starts(key, OUTR_STR("metadata.")))
            continue;
        key = outr_str_skip(key, sizeof "metadata." - 1);
        if (!outr_kvs_find_exact((outr_kvs){items, count}, key))
            items[count++] = (outr_kv){key, decode(r, value)};
    }
    return (outr_kvs){items, count};
}

outr_str outr_api_query(outr_api_request *r, const char *name)
{
    outr_str rest = r->query, key, value;
    while (outr_query_next(&rest, &key, &value)) {
        if (outr_str_is(decode(r, key), name)) {
            value = decode(r, value);
            return value.p ? value : OUTR_STR("");
        }
    }
    return OUTR_STR_NONE;
}

const outr_str *outr_api_query_all(outr_api_request *r, const char *name, size_t *out_count)
{
    outr_str rest = r->query, key, value, *values = NULL;
    size_t n = 0, max = 1;
    for (size_t i = 0; i < r->query.n; i++)
        max += r->query.p[i] == '&';
    values = outr_arena_alloc(r->x->arena, max * sizeof *values);
    while (outr_query_next(&rest, &key, &value)) {
        if (n < max && outr_str_is(decode(r, key), name))
            values[n++] = decode(r, value);
    }
    *out_count = n;
    return values;
}
