#include "api/core/mesh.h"

#include "base/clock.h"
#include "base/labels.h"
#include "mesh/endpoints.h"
#include "mesh/route.h"
#include "resiliency/policies.h"

/* Which way a call would go, and why: the decisions of mesh/route.h with their reasons. */

#define HEADERS_MAX 256
#define OTHERS_MAX  1000 /* routes that are not taken, told of */

typedef struct explanation {
    const outr_core *core;
    outr_arena *arena;
    outr_str app; /* as it was asked for */
    outr_route_request request;
    outr_headers headers;
    const outr_routes *routes;
    const outr_target_rules *rules;
    outr_route_choice choice;
    outr_callee_view *callee; /* NULL: it has not been called yet */
    bool is_own;              /* a call to the app of this sidecar */
} explanation;

/* ---- JSON ------------------------------------------------------------------------------------ */

static outr_json *object(const explanation *e)
{
    return outr_json_new(e->arena, OUTR_JSON_OBJECT);
}

static void put(outr_json *o, const char *key, outr_json *value)
{
    outr_json_put(o, outr_str_from(key), value);
}

static void put_text(const explanation *e, outr_json *o, const char *key, outr_str text)
{
    put(o, key, outr_json_string(e->arena, text));
}

static void put_number(const explanation *e, outr_json *o, const char *key, int64_t value)
{
    put(o, key, outr_json_number(e->arena, value));
}

static void put_fraction(const explanation *e, outr_json *o, const char *key, double value)
{
    outr_json *number = outr_json_new(e->arena, OUTR_JSON_NUMBER);
    number->text = outr_arena_printf(e->arena, "%.10g", value);
    put(o, key, number);
}

static void put_bool(const explanation *e, outr_json *o, const char *key, bool value)
{
    outr_json *boolean = outr_json_new(e->arena, OUTR_JSON_BOOL);
    boolean->boolean = value;
    put(o, key, boolean);
}

/* Milliseconds, as everywhere here. */
static void put_ms(const explanation *e, outr_json *o, const char *key, uint64_t ns)
{
    put_fraction(e, o, key, (double)ns / (double)OUTR_MS);
}

static outr_json *labels_json(const explanation *e, outr_kvs labels)
{
    outr_json *o = object(e);
    for (size_t i = 0; i < labels.count; i++)
        outr_json_put(o, labels.items[i].key, outr_json_string(e->arena, labels.items[i].value));
    return o;
}

/* ---- the question ---------------------------------------------------------------------------- */

static outr_code bad(outr_err *err, const char *what)
{
    return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s", what);
}

static outr_code add_header(explanation *e, outr_str name, const outr_json *value, outr_err *err)
{
    if (value->kind != OUTR_JSON_STRING)
        return bad(err, "headers: values are texts, or lists of texts");
    if (e->headers.count == HEADERS_MAX)
        return bad(err, "headers: more than 256");
    outr_headers_add(&e->headers, name, value->text);
    return OUTR_OK;
}

static outr_code take_headers(explanation *e, const outr_json *headers, outr_err *err)
{
    outr_code rc = OUTR_OK;
    if (headers->kind != OUTR_JSON_OBJECT)
        return bad(err, "headers: not an object");
    for (const outr_json *h = headers->child; h && !rc; h = h->next) {
        if (h->kind != OUTR_JSON_ARRAY)
            rc = add_header(e, h->key, h, err);
        for (const outr_json *one = h->kind == OUTR_JSON_ARRAY ? h->child : NULL; one && !rc;
             one = one->next)
            rc = add_header(e, h->key, one, err);
    }
    return rc;
}

static void free_claims(void *claims)
{
    outr_claims_unref(claims);
}

static outr_code take_claims(explanation *e, const outr_json *claims, outr_err *err)
{
    if (claims->kind != OUTR_JSON_OBJECT)
        return bad(err, "claims: not an object");
    outr_claims *made = outr_claims_new(claims, e->arena);
    outr_arena_defer(e->arena, free_claims, made);
    e->request.claims = made;
    return OUTR_OK;
}

static outr_code take_member(explanation *e, const outr_json *m, outr_err *err)
{
    outr_str *text = outr_str_is(m->key, "app")      ? &e->app
                     : outr_str_is(m->key, "path")   ? &e->request.target
                     : outr_str_is(m->key, "method") ? &e->request.method
                                                     : NULL;
    if (outr_str_is(m->key, "headers"))
        return take_headers(e, m, err);
    if (outr_str_is(m->key, "claims"))
        return take_claims(e, m, err);
    if (!text)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "unknown field \"" OUTR_FMT "\"",
                         OUTR_ARG(outr_str_head(m->key, 64)));
    if (m->kind != OUTR_JSON_STRING)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, OUTR_FMT ": not a text", OUTR_ARG(m->key));
    *text = m->text;
    return OUTR_OK;
}

static outr_code take_question(explanation *e, const outr_json *question, outr_err *err)
{
    const outr_settings *s = e->core->api->settings;
    outr_code rc = OUTR_OK;
    if (question->kind != OUTR_JSON_OBJECT)
        return bad(err, "not an object");
    for (const outr_json *m = question->child; m && !rc; m = m->next)
        rc = take_member(e, m, err);
    if (rc)
        return rc;
    if (e->app.n == 0 || e->request.target.n == 0)
        return bad(err, "app and path are required");
    e->request.namespace_ = outr_str_cut(e->app, '.', &e->request.app_id);
    if (e->request.namespace_.n == 0)
        e->request.namespace_ = s->namespace_;
    if (e->request.target.p[0] != '/')
        e->request.target =
            outr_arena_join(e->arena, OUTR_STR("/"), e->request.target, OUTR_STR_NONE);
    if (e->request.method.n == 0)
        e->request.method = OUTR_STR("GET");
    e->request.source = s->app_id;
    e->request.headers = &e->headers;
    return OUTR_OK;
}

/* ---- what is chosen -------------------------------------------------------------------------- */

static size_t count_instances(const explanation *e, outr_kvs labels)
{
    size_t count = 0;
    for (size_t i = 0; e->callee && i < e->callee->count; i++)
        count += outr_labels_cover(e->callee->items[i].labels, labels);
    return count;
}

static outr_json *splits_json(const explanation *e, const outr_route_spec *route)
{
    outr_json *list = outr_json_new(e->arena, OUTR_JSON_ARRAY);
    double sum = 0;
    for (size_t i = 0; i < route->split_count; i++)
        sum += (double)route->splits[i].weight;
    for (size_t i = 0; i < route->split_count; i++) {
        const outr_split *s = &route->splits[i];
        outr_json *o = object(e);
        put_text(e, o, "subset", s->subset);
        put_number(e, o, "weight", s->weight);
        put_fraction(e, o, "percent", sum > 0 ? 100 * (double)s->weight / sum : 0);
        put(o, "labels", labels_json(e, s->to->labels));
        outr_json_push(list, o);
    }
    return list;
}

static outr_json *sticky_json(const explanation *e, const outr_route_spec *route)
{
    static const char *const by[] = {[OUTR_STICKY_HEADER] = "header",
                                     [OUTR_STICKY_BAGGAGE] = "baggage",
                                     [OUTR_STICKY_CLAIM] = "claim"};
    outr_json *o = object(e);
    put_text(e, o, "by", outr_str_from(by[route->sticks_to]));
    put_text(e, o, "name", route->sticky.name);
    return o;
}

static outr_json *retry_json(const explanation *e, const outr_route_retry_spec *retry)
{
    outr_json *o = object(e);
    put_number(e, o, "attempts", retry->attempts);
    if (retry->try_timeout_ns)
        put_ms(e, o, "tryTimeoutMs", retry->try_timeout_ns);
    if (retry->http_codes.n)
        put_text(e, o, "httpCodes", retry->http_codes);
    if (retry->grpc_codes.n)
        put_text(e, o, "grpcCodes", retry->grpc_codes);
    return o;
}

static outr_json *mirror_json(const explanation *e, const outr_mirror_spec *mirror)
{
    outr_json *o = object(e);
    put_text(e, o, "app", mirror->app_id.n ? mirror->app_id : e->request.app_id);
    if (mirror->to)
        put_text(e, o, "subset", mirror->subset);
    put_fraction(e, o, "percent", mirror->percent);
    put_bool(e, o, "compare", mirror->is_compared);
    return o;
}

static outr_json *fault_json(const explanation *e, const outr_fault_spec *fault)
{
    outr_json *o = object(e);
    char until[40];
    uint64_t now = (uint64_t)outr_loop_unix_ns(e->core->api->loop);
    size_t n = outr_time_rfc3339((int64_t)fault->until_unix_ns, until);
    put_bool(e, o, "active", fault->until_unix_ns > now);
    put_text(e, o, "expires", outr_arena_str(e->arena, outr_str_of(until, n)));
    if (fault->delay_percent > 0) {
        put_ms(e, o, "delayMs", fault->delay_ns);
        put_fraction(e, o, "delayPercent", fault->delay_percent);
    }
    if (fault->abort_percent > 0) {
        put_number(e, o, "abortStatus", fault->abort_status);
        put_number(e, o, "abortGrpcStatus", fault->abort_grpc);
        put_fraction(e, o, "abortPercent", fault->abort_percent);
    }
    return o;
}

static void put_route(const explanation *e, outr_json *o)
{
    const outr_route_spec *route = e->choice.route;
    put_text(e, o, "policy", e->choice.policy->base.name);
    put_text(e, o, "route", route->name);
    if (route->split_count > 0)
        put(o, "splits", splits_json(e, route));
    if (e->choice.subset)
        put_text(e, o, "subset", e->choice.subset->name);
    if (route->sticks_to != OUTR_STICKY_NONE)
        put(o, "sticky", sticky_json(e, route));
    if (route->fallback.n)
        put_text(e, o, "fallback", route->fallback);
    if (route->timeout_ns)
        put_ms(e, o, "timeoutMs", route->timeout_ns);
    if (route->retry.is_on)
        put(o, "retry", retry_json(e, &route->retry));
    if (route->mirror.is_on)
        put(o, "mirror", mirror_json(e, &route->mirror));
    if (route->fault.is_on)
        put(o, "fault", fault_json(e, &route->fault));
}

/* Sets of labels, in the order in which they are tried, and how many instances have them. */
static outr_json *instances_json(const explanation *e)
{
    outr_json *list = outr_json_new(e->arena, OUTR_JSON_ARRAY);
    outr_route_wants wants;
    outr_route_wants_of(&wants, &e->choice, e->rules->environment, e->arena);
    for (unsigned i = 0; i < wants.count; i++) {
        outr_json *o = object(e);
        put(o, "labels", labels_json(e, wants.labels[i]));
        if (e->callee)
            put_number(e, o, "known", (int64_t)count_instances(e, wants.labels[i]));
        outr_json_push(list, o);
    }
    return list;
}

static outr_json *environment_json(const explanation *e)
{
    const outr_environment_spec *spec = e->rules->environment;
    outr_json *o = object(e);
    put_text(e, o, "name", e->choice.environment);
    put_text(e, o, "label", spec->label);
    put_text(e, o, "baggage", spec->baggage);
    put_bool(e, o, "isWritten", e->choice.sets_environment);
    return o;
}

/* ---- what holds besides ---------------------------------------------------------------------- */

static outr_json *resiliency_json(const explanation *e)
{
    const outr_policies *policies = outr_mesh_policies(e->core->api->mesh);
    const outr_policy *p = outr_policies_find(policies, OUTR_POLICY_APP, OUTR_OUTBOUND, e->app);
    outr_json *o = object(e);
    if (p && p->timeout_ns)
        put_ms(e, o, "timeoutMs", p->timeout_ns);
    if (p && p->of_timeout)
        put_text(e, o, "timeoutOf", p->of_timeout->name);
    if (p && p->retry)
        put_number(e, o, "retries", p->retry->max_retries);
    if (p && p->of_retry)
        put_text(e, o, "retryOf", p->of_retry->name);
    put_bool(e, o, "breaker", p && p->breakers);
    if (p && p->of_breaker)
        put_text(e, o, "breakerOf", p->of_breaker->name);
    put_bool(e, o, "builtInRetries",
             !e->is_own && !outr_policies_name_app(policies, e->request.app_id));
    return o;
}

static outr_json *rules_json(const explanation *e)
{
    const outr_target_rules *r = e->rules;
    outr_json *o = object(e), *ejection = object(e), *budget = object(e), *limits = object(e);
    put_bool(e, ejection, "disabled", r->ejection->is_disabled);
    put_number(e, ejection, "consecutive", r->ejection->consecutive);
    put_number(e, ejection, "failurePercent", r->ejection->failure_percent);
    put_number(e, ejection, "window", r->ejection->window);
    put_number(e, ejection, "maxPercent", r->ejection->max_percent);
    put(o, "ejection", ejection);
    put_fraction(e, budget, "percent", r->retry_budget->percent);
    put_number(e, budget, "perSecond", r->retry_budget->per_second);
    put(o, "retryBudget", budget);
    put_number(e, limits, "connections", r->limits->connections);
    put_number(e, limits, "pending", r->limits->pending);
    put_number(e, limits, "requests", r->limits->requests);
    put(o, "limits", limits);
    put_bool(e, o, "hedge", r->hedge->is_on);
    if (r->locality->is_on)
        put_text(e, o, "locality", r->locality->label);
    put_ms(e, o, "slowStartMs", r->slow_start_ns);
    return o;
}

/* ---- why not the others ---------------------------------------------------------------------- */

static bool names_callee(const explanation *e, const outr_traffic_spec *policy)
{
    const outr_route_request *r = &e->request;
    outr_str full = outr_arena_printf(e->arena, OUTR_FMT "." OUTR_FMT, OUTR_ARG(r->app_id),
                                      OUTR_ARG(r->namespace_));
    for (size_t i = 0; i < policy->target_count; i++) {
        if (outr_str_eq(policy->targets[i], r->app_id) || outr_str_eq(policy->targets[i], full))
            return true;
    }
    return policy->target_count == 0;
}

/* Of all ways to match it the one that comes furthest: what is wrong with it in the end. */
static outr_str why_not(const explanation *e, outr_route_question *question,
                        const outr_route_spec *route)
{
    static const char *const order[] = {"path",    "methods", "sources", "headers",
                                        "query",   "baggage", "claims"};
    outr_mismatch best = {NULL, OUTR_STR_NONE};
    size_t best_rank = 0;
    for (size_t i = 0; i < route->match_count; i++) {
        outr_mismatch m = outr_traffic_mismatch(&route->matches[i], question);
        size_t rank = 0;
        if (!m.what)
            return OUTR_STR_NONE;
        while (rank < OUTR_LEN(order) && strcmp(order[rank], m.what) != 0)
            rank++;
        if (!best.what || rank > best_rank) {
            best = m;
            best_rank = rank;
        }
    }
    if (!best.what)
        return OUTR_STR_NONE;
    return best.name.n ? outr_arena_printf(e->arena, "%s " OUTR_FMT, best.what, OUTR_ARG(best.name))
                       : outr_str_from(best.what);
}

static outr_json *others_json(const explanation *e)
{
    const outr_snapshot *snapshot = e->core->api->snapshot;
    outr_json *list = outr_json_new(e->arena, OUTR_JSON_ARRAY);
    outr_route_question question;
    outr_route_question_init(&question, &e->request, e->arena);
    for (size_t i = 0; i < snapshot->traffic_count; i++) {
        const outr_traffic_spec *policy = &snapshot->traffic[i];
        bool is_for_it = names_callee(e, policy);
        for (size_t k = 0; k < policy->route_count; k++) {
            const outr_route_spec *route = &policy->routes[k];
            if (route == e->choice.route || list->count == OTHERS_MAX)
                continue;
            outr_str reason = is_for_it ? why_not(e, &question, route) : OUTR_STR("targets");
            outr_json *o = object(e);
            put_text(e, o, "policy", policy->base.name);
            put_text(e, o, "route", route->name);
            put_text(e, o, "why", reason.n ? reason : OUTR_STR("less specific, or read later"));
            outr_json_push(list, o);
        }
    }
    return list;
}

/* What TrafficPolicies say of it; a call to the sidecar's own app goes by none. */
static void put_policies(explanation *e, outr_json *o)
{
    outr_api *api = e->core->api;
    const outr_route_request *r = &e->request;
    e->routes = outr_routes_of(api->snapshot);
    e->rules = outr_routes_target(e->routes, r->app_id, r->namespace_);
    e->choice = outr_routes_choose(e->routes, r, &api->settings->labels, outr_loop_rand(api->loop),
                                   e->arena);
    if (outr_mesh_list_endpoints(api->mesh, r->app_id, r->namespace_, e->arena, &e->callee) == 0)
        e->callee = NULL;
    if (e->choice.route)
        put_route(e, o);
    if (e->choice.environment.n > 0)
        put(o, "environment", environment_json(e));
    put(o, "instances", instances_json(e));
    put(o, "rules", rules_json(e));
}

outr_code outr_core_explain(const outr_core *core, const outr_json *question, outr_json **out,
                            outr_err *err)
{
    outr_api *api = core->api;
    explanation e = {.core = core, .arena = core->arena};
    outr_headers_init(&e.headers, core->arena);
    if (take_question(&e, question, err))
        return err->code;
    const outr_route_request *r = &e.request;
    e.is_own = outr_str_eq(r->app_id, api->settings->app_id) &&
               outr_str_eq(r->namespace_, api->settings->namespace_);
    outr_json *o = object(&e);
    put_text(&e, o, "app",
             outr_arena_printf(core->arena, OUTR_FMT "." OUTR_FMT, OUTR_ARG(r->app_id),
                               OUTR_ARG(r->namespace_)));
    put_text(&e, o, "method", r->method);
    put_text(&e, o, "path", r->target);
    if (e.is_own)
        put_bool(&e, o, "isOwn", true);
    else
        put_policies(&e, o);
    put(o, "resiliency", resiliency_json(&e));
    if (!e.is_own)
        put(o, "others", others_json(&e));
    *out = o;
    return OUTR_OK;
}
