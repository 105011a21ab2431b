#include "base/cel.h"
#include "config/codes.h"
#include "config/kinds/kinds.h"

typedef struct raw_retry {
    outr_retry_policy policy;
    outr_str kind;
} raw_retry;

static const outr_yaml_row matching[] = {
    {"httpStatusCodes", OUTR_YT_TEXT, offsetof(raw_retry, policy.http_codes), 0, NULL, 0, 0},
    {"gRPCStatusCodes", OUTR_YT_TEXT, offsetof(raw_retry, policy.grpc_codes), 0, NULL, 0, 0},
    {0},
};

static const outr_yaml_row retry[] = {
    {"policy", OUTR_YT_TEXT, offsetof(raw_retry, kind), 0, NULL, 0, 0},
    {"duration", OUTR_YT_DURATION, offsetof(raw_retry, policy.duration_ns), 0, NULL, 0, 0},
    {"maxInterval", OUTR_YT_DURATION, offsetof(raw_retry, policy.max_interval_ns), 0, NULL, 0, 0},
    {"maxRetries", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"matching", OUTR_YT_GROUP, 0, 0, matching, 0, 0},
    {0},
};

static const outr_yaml_row breaker[] = {
    {"maxRequests", OUTR_YT_INT, offsetof(outr_breaker_policy, max_requests), 0, NULL, 0, 0},
    {"interval", OUTR_YT_DURATION, offsetof(outr_breaker_policy, interval_ns), 0, NULL, 0, 0},
    {"timeout", OUTR_YT_DURATION, offsetof(outr_breaker_policy, timeout_ns), 0, NULL, 0, 0},
    {"trip", OUTR_YT_TEXT, offsetof(outr_breaker_policy, trip), 0, NULL, 0, 0},
    {0},
};

typedef struct raw_spec {
    raw_retry *retries;
    size_t retry_count;
    outr_breaker_policy *breakers;
    size_t breaker_count;
} raw_spec;

static const outr_yaml_row policies[] = {
    {"timeouts", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"retries", OUTR_YT_NAMED, offsetof(raw_spec, retries), 0, retry, sizeof(raw_retry), 0},
    {"circuitBreakers", OUTR_YT_NAMED, offsetof(raw_spec, breakers), 0, breaker,
     sizeof(outr_breaker_policy), 0},
    {0},
};

static const outr_yaml_row spec_rows[] = {
    {"policies", OUTR_YT_GROUP, 0, 0, policies, 0, 0},
    {"targets", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {0},
};

static const outr_yaml_row top[] = {
    {"apiVersion", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"kind", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"metadata", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"scopes", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"spec", OUTR_YT_GROUP, 0, OUTR_YT_REQUIRED, spec_rows, 0, 0},
    {0},
};

/* ---- policies -------------------------------------------------------------------------------- */

static void bind_timeouts(outr_binder *b, const outr_yaml *node, outr_resiliency_spec *out)
{
    if (outr_yaml_is_null(node) || !outr_bind_is_mapping(b, node, "spec.policies.timeouts"))
        return;
    outr_timeout_policy *items = outr_arena_alloc(b->arena, (node->count + 1) * sizeof *items);
    size_t n = 0;
    for (const outr_yaml *m = node->child; m; m = m->next, n++) {
        char path[192];
        snprintf(path, sizeof path, "spec.policies.timeouts." OUTR_FMT, OUTR_ARG(m->key));
        items[n].name = m->key;
        outr_bind_duration(b, m, path, &items[n].timeout_ns);
    }
    out->timeouts = items;
    out->timeout_count = n;
}

static const outr_yaml *nth(const outr_yaml *node, size_t n)
{
    const outr_yaml *m = node->child;
    while (n-- > 0)
        m = m->next;
    return m;
}

static void check_codes(outr_binder *b, const outr_yaml *match, const char *key, outr_str set,
                        int min, int max)
{
    outr_err err;
    if (outr_codes_check(set, min, max, &err))
        outr_bind_error(b, outr_yaml_find(match, key), "%s: %s", key, err.text);
}

static void finish_retries(outr_binder *b, const raw_spec *raw, const outr_yaml *node,
                           outr_resiliency_spec *out)
{
    outr_retry_policy *items = outr_arena_alloc(b->arena, (raw->retry_count + 1) * sizeof *items);
    for (size_t i = 0; i < raw->retry_count; i++) {
        const outr_yaml *m = nth(node, i), *match = outr_yaml_find(m, "matching");
        const outr_yaml *count = outr_yaml_find(m, "maxRetries");
        outr_retry_policy *p = &items[i];
        *p = raw->retries[i].policy;
        p->is_exponential = outr_str_iis(raw->retries[i].kind, "exponential");
        if (raw->retries[i].kind.n && !p->is_exponential &&
            !outr_str_iis(raw->retries[i].kind, "constant"))
            outr_bind_error(b, outr_yaml_find(m, "policy"),
                            "policy must be constant or exponential, not \"" OUTR_FMT "\"",
                            OUTR_ARG(raw->retries[i].kind));
        p->duration_ns = p->duration_ns ? p->duration_ns : 5 * OUTR_SEC;
        p->max_interval_ns = p->max_interval_ns ? p->max_interval_ns : 60 * OUTR_SEC;
        p->max_retries = -1;
        if (count && !outr_str_to_i64(count->text, -1, INT32_MAX, &p->max_retries))
            outr_bind_error(b, count, "maxRetries must be an integer, not \"" OUTR_FMT "\"",
                            OUTR_ARG(count->text));
        check_codes(b, match, "httpStatusCodes", p->http_codes, 100, 599);
        check_codes(b, match, "gRPCStatusCodes", p->grpc_codes, 0, 16);
    }
    out->retries = items;
    out->retry_count = raw->retry_count;
}

/* A name that is none would make it a breaker that never opens: told by evaluating it once, with
 * counts that are safe to divide by. */
static void check_trip(outr_binder *b, const outr_yaml *at, outr_str trip)
{
    static const char *const names[] = {"requests", "totalSuccesses", "totalFailures",
                                        "consecutiveSuccesses", "consecutiveFailures"};
    outr_json *ones = outr_json_new(b->arena, OUTR_JSON_OBJECT);
    outr_cel *cel;
    outr_err err;
    bool holds;
    if (outr_cel_compile(&cel, b->arena, trip, &err)) {
        outr_bind_error(b, at, "trip: %s", err.text);
        return;
    }
    for (size_t i = 0; i < OUTR_LEN(names); i++)
        outr_json_put(ones, outr_str_from(names[i]), outr_json_number(b->arena, 1));
    if (outr_cel_test_all(cel, b->arena, ones, &holds, &err))
        outr_bind_warning(b, at, "trip may never hold: %s", err.text);
}

static void finish_breakers(outr_binder *b, const raw_spec *raw, const outr_yaml *node,
                            outr_resiliency_spec *out)
{
    for (size_t i = 0; i < raw->breaker_count; i++) {
        outr_breaker_policy *p = &raw->breakers[i];
        p->max_requests = p->max_requests > 0 ? p->max_requests : 1;
        p->timeout_ns = p->timeout_ns ? p->timeout_ns : 60 * OUTR_SEC;
        p->trip = p->trip.n ? p->trip : OUTR_STR("consecutiveFailures > 5");
        check_trip(b, outr_yaml_find(nth(node, i), "trip"), p->trip);
    }
    out->breakers = raw->breakers;
    out->breaker_count = raw->breaker_count;
}

/* ---- targets --------------------------------------------------------------------------------- */

static const outr_yaml_row target_rows[] = {
    {"timeout", OUTR_YT_TEXT, offsetof(outr_policy_target, timeout), 0, NULL, 0, 0},
    {"retry", OUTR_YT_TEXT, offsetof(outr_policy_target, retry), 0, NULL, 0, 0},
    {"circuitBreaker", OUTR_YT_TEXT, offsetof(outr_policy_target, breaker), 0, NULL, 0, 0},
    {"circuitBreakerCacheSize", OUTR_YT_INT, offsetof(outr_policy_target, breaker_cache_size), 0,
     NULL, 0, 0},
    {"circuitBreakerScope", OUTR_YT_TEXT, offsetof(outr_policy_target, breaker_scope), 0, NULL, 0,
     0},
    {0},
};

#define APP_BREAKERS   100
#define ACTOR_BREAKERS 5000

static void add_target(outr_binder *b, outr_resiliency_spec *out, outr_policy_target *items,
                       int kind, const outr_yaml *name, const outr_yaml *node)
{
    if (outr_yaml_is_null(node))
        return;
    outr_policy_target *t = &items[out->target_count++];
    t->kind = kind;
    t->name = name->key;
    t->breaker_cache_size = kind == OUTR_TARGET_ACTOR ? ACTOR_BREAKERS : APP_BREAKERS;
    outr_bind_yaml(b, target_rows, node, "spec.targets", t);
    bool has_scope = outr_str_is(t->breaker_scope, "type") || outr_str_is(t->breaker_scope, "id") ||
                     outr_str_is(t->breaker_scope, "both");
    if (kind == OUTR_TARGET_ACTOR && t->breaker.n && !has_scope)
        outr_bind_error(b, node, "actor circuit breakers must include scope: circuitBreakerScope "
                                 "is type, id or both");
}

/* The named member, when it is there and a mapping. */
static const outr_yaml *group(outr_binder *b, const outr_yaml *targets, const char *key,
                              const char *path)
{
    const outr_yaml *node = outr_yaml_find(targets, key);
    return !outr_yaml_is_null(node) && outr_bind_is_mapping(b, node, path) ? node : NULL;
}

static void bind_targets(outr_binder *b, const outr_yaml *node, outr_resiliency_spec *out)
{
    if (outr_yaml_is_null(node) || !outr_bind_is_mapping(b, node, "spec.targets"))
        return;
    const outr_yaml *apps = group(b, node, "apps", "spec.targets.apps");
    const outr_yaml *actors = group(b, node, "actors", "spec.targets.actors");
    const outr_yaml *components = group(b, node, "components", "spec.targets.components");
    size_t max = (apps ? apps->count : 0) + (actors ? actors->count : 0) +
                 2 * (components ? components->count : 0);
    outr_policy_target *items = outr_arena_alloc(b->arena, (max + 1) * sizeof *items);
    for (const outr_yaml *m = apps ? apps->child : NULL; m; m = m->next)
        add_target(b, out, items, OUTR_TARGET_APP, m, m);
    for (const outr_yaml *m = actors ? actors->child : NULL; m; m = m->next)
        add_target(b, out, items, OUTR_TARGET_ACTOR, m, m);
    for (const outr_yaml *m = components ? components->child : NULL; m; m = m->next) {
        if (outr_yaml_is_null(m) || !outr_bind_is_mapping(b, m, "spec.targets.components"))
            continue;
        add_target(b, out, items, OUTR_TARGET_COMPONENT_OUT, m, outr_yaml_find(m, "outbound"));
        add_target(b, out, items, OUTR_TARGET_COMPONENT_IN, m, outr_yaml_find(m, "inbound"));
    }
    out->targets = items;
}

void outr_kind_resiliency(const outr_kind_env *env, const outr_yaml *root,
                          outr_resiliency_spec *out)
{
    raw_spec raw = {0};
    const outr_yaml *spec = outr_yaml_find(root, "spec"), *p = outr_yaml_find(spec, "policies");
    outr_bind_yaml(env->binder, top, root, "", &raw);
    bind_timeouts(env->binder, outr_yaml_find(p, "timeouts"), out);
    if (raw.retry_count)
        finish_retries(env->binder, &raw, outr_yaml_find(p, "retries"), out);
    finish_breakers(env->binder, &raw, outr_yaml_find(p, "circuitBreakers"), out);
    bind_targets(env->binder, outr_yaml_find(spec, "targets"), out);
}
