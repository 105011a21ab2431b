#include "config/kinds/traffic.h"

#include "base/copy.h"
#include "config/codes.h"
#include "base/labels.h"
#include "http/message.h"

/* TrafficPolicy of outrigger.io/v1alpha1. README lists its members. */

#define LIMIT_MAX    1000000
#define BUCKETS_MAX  1000000
#define DURATION_MAX (24 * 3600 * OUTR_SEC)

#define T(field) offsetof(outr_traffic_spec, field)
#define Q(field) offsetof(outr_rate_spec, field)

static const outr_yaml_row environment[] = {
    {"baggage", OUTR_YT_TEXT, T(environment.baggage), 0, NULL, 0, 0},
    {"label", OUTR_YT_TEXT, T(environment.label), 0, NULL, 0, 0},
    {"fallback", OUTR_YT_TEXT, T(environment.fallback), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row locality[] = {
    {"label", OUTR_YT_TEXT, T(locality.label), 0, NULL, 0, 0},
    {"minPercent", OUTR_YT_NUMBER, T(locality.min_percent), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row ejection[] = {
    {"disabled", OUTR_YT_BOOL, T(ejection.is_disabled), 0, NULL, 0, 0},
    {"consecutive", OUTR_YT_INT, T(ejection.consecutive), 0, NULL, 0, 0},
    {"failurePercent", OUTR_YT_INT, T(ejection.failure_percent), 0, NULL, 0, 0},
    {"window", OUTR_YT_INT, T(ejection.window), 0, NULL, 0, 0},
    {"maxPercent", OUTR_YT_INT, T(ejection.max_percent), 0, NULL, 0, 0},
    {"baseTime", OUTR_YT_DURATION, T(ejection.base_ns), 0, NULL, 0, 0},
    {"maxTime", OUTR_YT_DURATION, T(ejection.max_ns), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row health_check[] = {
    {"path", OUTR_YT_TEXT, T(health_check.path), 0, NULL, 0, 0},
    {"interval", OUTR_YT_DURATION, T(health_check.interval_ns), 0, NULL, 0, 0},
    {"timeout", OUTR_YT_DURATION, T(health_check.timeout_ns), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row retry_budget[] = {
    {"percent", OUTR_YT_NUMBER, T(retry_budget.percent), 0, NULL, 0, 0},
    {"perSecond", OUTR_YT_INT, T(retry_budget.per_second), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row hedge[] = {
    {"after", OUTR_YT_DURATION, T(hedge.after_ns), 0, NULL, 0, 0},
    {"percentile", OUTR_YT_NUMBER, T(hedge.percentile), 0, NULL, 0, 0},
    {"maxPercent", OUTR_YT_NUMBER, T(hedge.max_percent), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row limits[] = {
    {"connections", OUTR_YT_INT, T(limits.connections), 0, NULL, 0, 0},
    {"pending", OUTR_YT_INT, T(limits.pending), 0, NULL, 0, 0},
    {"requests", OUTR_YT_INT, T(limits.requests), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row concurrency[] = {
    {"min", OUTR_YT_INT, T(concurrency.min), 0, NULL, 0, 0},
    {"max", OUTR_YT_INT, T(concurrency.max), 0, NULL, 0, 0},
    {"initial", OUTR_YT_INT, T(concurrency.initial), 0, NULL, 0, 0},
    {"queue", OUTR_YT_INT, T(concurrency.queue), 0, NULL, 0, 0},
    {"target", OUTR_YT_DURATION, T(concurrency.target_ns), 0, NULL, 0, 0},
    {"interval", OUTR_YT_DURATION, T(concurrency.interval_ns), 0, NULL, 0, 0},
    {"priorityPaths", OUTR_YT_TEXTS, T(concurrency.priority_paths), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row rate[] = {
    {"name", OUTR_YT_TEXT, Q(name), 0, NULL, 0, 0},
    {"match", OUTR_YT_LIST, Q(matches), 0, outr__rows_match, sizeof(outr_traffic_match),
     offsetof(outr_traffic_match, line)},
    {"per", OUTR_YT_TEXT, Q(per_text), 0, NULL, 0, 0},
    {"requests", OUTR_YT_INT, Q(requests), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"interval", OUTR_YT_DURATION, Q(interval_ns), 0, NULL, 0, 0},
    {"burst", OUTR_YT_INT, Q(burst), 0, NULL, 0, 0},
    {"buckets", OUTR_YT_INT, Q(buckets), 0, NULL, 0, 0},
    {"store", OUTR_YT_TEXT, Q(store), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row inbound[] = {
    {"concurrency", OUTR_YT_GROUP, 0, 0, concurrency, 0, 0},
    {"rateLimits", OUTR_YT_LIST, T(rates), 0, rate, sizeof(outr_rate_spec), Q(line)},
    {0},
};
static const outr_yaml_row subset[] = {
    {"name", OUTR_YT_TEXT, offsetof(outr_subset_spec, name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"labels", OUTR_YT_KVS, offsetof(outr_subset_spec, labels), OUTR_YT_REQUIRED, NULL, 0, 0},
    {0},
};
static const outr_yaml_row spec_rows[] = {
    {"targets", OUTR_YT_TEXTS, T(targets), 0, NULL, 0, 0},
    {"subsets", OUTR_YT_LIST, T(subsets), 0, subset, sizeof(outr_subset_spec),
     offsetof(outr_subset_spec, line)},
    {"routes", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, /* outr__routes_bind */
    {"environment", OUTR_YT_GROUP, 0, 0, environment, 0, 0},
    {"locality", OUTR_YT_GROUP, 0, 0, locality, 0, 0},
    {"slowStart", OUTR_YT_DURATION, T(slow_start_ns), 0, NULL, 0, 0},
    {"ejection", OUTR_YT_GROUP, 0, 0, ejection, 0, 0},
    {"healthCheck", OUTR_YT_GROUP, 0, 0, health_check, 0, 0},
    {"retryBudget", OUTR_YT_GROUP, 0, 0, retry_budget, 0, 0},
    {"hedge", OUTR_YT_GROUP, 0, 0, hedge, 0, 0},
    {"limits", OUTR_YT_GROUP, 0, 0, limits, 0, 0},
    {"inbound", OUTR_YT_GROUP, 0, 0, inbound, 0, 0},
    {0},
};

#define TEXT(literal)                                                                              \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }
const outr_traffic_spec outr_traffic_defaults = {
    .environment = {.baggage = TEXT("environment"), .label = TEXT("environment")},
    .locality = {.label = TEXT("zone"), .min_percent = 50},
    .slow_start_ns = 10 * OUTR_SEC,
    .ejection = {.consecutive = 5,
                 .failure_percent = 40,
                 .window = 20,
                 .max_percent = 50,
                 .base_ns = 5 * OUTR_SEC,
                 .max_ns = 300 * OUTR_SEC},
    .health_check = {.interval_ns = 5 * OUTR_SEC, .timeout_ns = 1 * OUTR_SEC},
    .retry_budget = {.percent = 20, .per_second = 1},
    .hedge = {.percentile = 95, .max_percent = 10},
    .limits = {.connections = 4096, .pending = 16384, .requests = 65536},
    .concurrency = {.min = 3,
                    .max = 1000,
                    .initial = 5,
                    .queue = 1000,
                    .target_ns = 5 * OUTR_MS,
                    .interval_ns = 100 * OUTR_MS},
};

/* ---- parts ----------------------------------------------------------------------------------- */

const outr_yaml *outr__part_child(const outr__part *part, const char *key)
{
    const outr_yaml *node = part->node && part->node->kind == OUTR_YAML_MAPPING
                                ? outr_yaml_find(part->node, key)
                                : NULL;
    return outr_yaml_is_null(node) ? NULL : node;
}

const outr_yaml *outr__list_first(const outr_yaml *list)
{
    return list && list->kind == OUTR_YAML_SEQUENCE ? list->child : NULL;
}

outr__part outr__part_inner(const outr__part *parent, const char *key)
{
    outr__part p = *parent;
    p.node = outr__part_child(parent, key);
    p.path = outr_arena_printf(parent->b->arena, "%.200s.%s", parent->path, key).p;
    return p;
}

outr__part outr__part_element(const outr__part *parent, const outr_yaml *node, const char *key,
                              size_t i)
{
    outr__part p = *parent;
    p.node = node;
    p.path = outr_arena_printf(parent->b->arena, "%.200s.%s[%zu]", parent->path, key, i).p;
    return p;
}

bool outr__part_has(const outr__part *part, const char *key)
{
    return outr__part_child(part, key) != NULL;
}

void outr__part_error(const outr__part *part, const char *key, const char *fmt, ...)
{
    char text[256];
    const outr_yaml *node = key ? outr__part_child(part, key) : NULL;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    outr_bind_error(part->b, node ? node : part->node, "%s%s%s: %s", part->path, key ? "." : "",
                    key ? key : "", text);
}

void outr__part_integer(const outr__part *part, const char *key, int64_t value, int64_t min,
                        int64_t max)
{
    if (outr__part_has(part, key) && (value < min || value > max))
        outr__part_error(part, key, "must be %lld to %lld, not %lld", (long long)min,
                         (long long)max, (long long)value);
}

void outr__part_number(const outr__part *part, const char *key, double value, double min,
                       double max)
{
    if (outr__part_has(part, key) && !(value >= min && value <= max)) /* nor is it NaN */
        outr__part_error(part, key, "must be %g to %g, not %g", min, max, value);
}

void outr__part_duration(const outr__part *part, const char *key, uint64_t value, uint64_t min_ns)
{
    if (!outr__part_has(part, key))
        return;
    if (value < min_ns)
        outr__part_error(part, key, "must be %g ms at least", (double)min_ns / (double)OUTR_MS);
    if (value > DURATION_MAX)
        outr__part_error(part, key, "must be 24h at most");
}

void outr__part_codes(const outr__part *part, const char *key, outr_str set, int min, int max)
{
    outr_err err;
    if (outr_codes_check(set, min, max, &err))
        outr__part_error(part, key, "%s", err.text);
}

void outr__part_app(const outr__part *part, const char *key, outr_str app_id)
{
    outr_str id, namespace_ = outr_str_cut(app_id, '.', &id);
    if (id.n == 0 || (namespace_.p && namespace_.n == 0) || outr_str_find(namespace_, '.') >= 0 ||
        outr_str_find(app_id, '/') >= 0 || outr_str_find(app_id, '*') >= 0 ||
        outr_str_find(app_id, ' ') >= 0)
        outr__part_error(part, key, "\"" OUTR_FMT "\" is not an app id, nor \"id.namespace\"",
                         OUTR_ARG(outr_str_head(app_id, 80)));
}

/* is_on: whether it was given. */
static outr__part group(const outr__part *parent, const char *key, bool *is_on)
{
    const outr__part p = outr__part_inner(parent, key);
    *is_on = p.node != NULL;
    return p;
}

/* ---- what holds for a callee ----------------------------------------------------------------- */

static void check_targets(const outr__part *spec, const outr_traffic_spec *out)
{
    if (out->targets && out->target_count == 0)
        outr__part_error(spec, "targets", "is empty; leave it out for all apps");
    outr_map *seen = outr_map_new();
    for (size_t i = 0; i < out->target_count; i++) {
        outr__part_app(spec, "targets", out->targets[i]);
        if (outr_map_put(seen, out->targets[i], (void *)&out->targets[i]))
            outr__part_error(spec, "targets", "\"" OUTR_FMT "\" is there twice",
                             OUTR_ARG(outr_str_head(out->targets[i], 80)));
    }
    outr_map_free(seen);
}

static void check_label(const outr__part *part, const char *key, outr_str name, outr_str value)
{
    outr_err err;
    if (outr_label_check(name, value, &err))
        outr__part_error(part, key, "%s", err.text);
}

static void check_environment(const outr__part *spec, outr_environment_spec *e)
{
    const outr__part p = group(spec, "environment", &e->is_on);
    check_label(&p, "label", e->label, OUTR_STR("x"));
    if (e->fallback.n > 0)
        check_label(&p, "fallback", OUTR_STR("x"), e->fallback);
    if (!outr_header_name_is_valid(e->baggage) || e->baggage.n > OUTR_LABEL_BYTES_MAX)
        outr__part_error(&p, "baggage", "\"" OUTR_FMT "\" is not a name of baggage",
                         OUTR_ARG(outr_str_head(e->baggage, 80)));
}

static void check_locality(const outr__part *spec, outr_locality_spec *l)
{
    const outr__part p = group(spec, "locality", &l->is_on);
    check_label(&p, "label", l->label, OUTR_STR("x"));
    outr__part_number(&p, "minPercent", l->min_percent, 0, 100);
}

static void check_ejection(const outr__part *spec, outr_ejection_spec *e)
{
    const outr__part p = group(spec, "ejection", &e->is_on);
    if (!e->is_on)
        return;
    outr__part_integer(&p, "consecutive", e->consecutive, 1, 1000);
    outr__part_integer(&p, "failurePercent", e->failure_percent, 1, 100);
    outr__part_integer(&p, "window", e->window, 5, 64); /* OUTR_OUTLIER_WINDOW_MAX */
    outr__part_integer(&p, "maxPercent", e->max_percent, 0, 100);
    outr__part_duration(&p, "baseTime", e->base_ns, 10 * OUTR_MS);
    outr__part_duration(&p, "maxTime", e->max_ns, 10 * OUTR_MS);
    if (e->is_disabled && p.node->kind == OUTR_YAML_MAPPING && p.node->count > 1)
        outr__part_error(&p, "disabled", "contradicts the settings beside it");
    if (e->max_ns >= e->base_ns)
        return;
    if (outr__part_has(&p, "maxTime"))
        outr__part_error(&p, "maxTime", "must not be shorter than baseTime");
    e->max_ns = e->base_ns;
}

static void check_health(const outr__part *spec, outr_active_check_spec *h)
{
    const outr__part p = group(spec, "healthCheck", &h->is_on);
    outr__part_duration(&p, "interval", h->interval_ns, 10 * OUTR_MS);
    outr__part_duration(&p, "timeout", h->timeout_ns, 1 * OUTR_MS);
    if (outr__part_has(&p, "timeout") && h->timeout_ns > h->interval_ns)
        outr__part_error(&p, "timeout", "must not be longer than interval");
    h->timeout_ns = OUTR_MIN(h->timeout_ns, h->interval_ns);
    if (h->path.n > 0 && h->path.p[0] != '/')
        outr__part_error(&p, "path", "must begin with /");
}

static void check_budget(const outr__part *spec, outr_budget_spec *b)
{
    const outr__part p = group(spec, "retryBudget", &b->is_on);
    outr__part_number(&p, "percent", b->percent, 0, 100);
    outr__part_integer(&p, "perSecond", b->per_second, 0, 100000);
}

static void check_hedge(const outr__part *spec, outr_hedge_spec *h)
{
    const outr__part p = group(spec, "hedge", &h->is_on);
    outr__part_duration(&p, "after", h->after_ns, 1 * OUTR_MS);
    outr__part_number(&p, "percentile", h->percentile, 50, 99.99);
    outr__part_number(&p, "maxPercent", h->max_percent, 0.01, 100);
    if (outr__part_has(&p, "after") && outr__part_has(&p, "percentile"))
        outr__part_error(&p, "percentile", "contradicts after: give one of them");
}

static void check_limits(const outr__part *spec, outr_limits_spec *l)
{
    const outr__part p = group(spec, "limits", &l->is_on);
    outr__part_integer(&p, "connections", l->connections, 1, LIMIT_MAX);
    outr__part_integer(&p, "pending", l->pending, 1, LIMIT_MAX);
    outr__part_integer(&p, "requests", l->requests, 1, LIMIT_MAX);
}

/* ---- inbound --------------------------------------------------------------------------------- */

static void check_concurrency(const outr__part *in, outr_concurrency_spec *c)
{
    const outr__part p = group(in, "concurrency", &c->is_on);
    outr__part_integer(&p, "min", c->min, 1, LIMIT_MAX);
    outr__part_integer(&p, "max", c->max, 1, LIMIT_MAX);
    outr__part_integer(&p, "initial", c->initial, 1, LIMIT_MAX);
    outr__part_integer(&p, "queue", c->queue, 0, LIMIT_MAX);
    outr__part_duration(&p, "target", c->target_ns, 1 * OUTR_MS);
    outr__part_duration(&p, "interval", c->interval_ns, 10 * OUTR_MS);
    if (c->min > c->max)
        outr__part_error(&p, outr__part_has(&p, "max") ? "max" : "min",
                         "min must not be larger than max (%lld)", (long long)c->max);
    if (outr__part_has(&p, "initial") && (c->initial < c->min || c->initial > c->max))
        outr__part_error(&p, "initial", "must be min to max");
    c->initial = OUTR_MAX(OUTR_MIN(c->initial, c->max), c->min);
    if (c->target_ns > c->interval_ns)
        outr__part_error(&p, outr__part_has(&p, "target") ? "target" : "interval",
                         "target must not be longer than interval");
    for (size_t i = 0; i < c->priority_path_count; i++) {
        if (c->priority_paths[i].n == 0 || c->priority_paths[i].p[0] != '/')
            outr__part_error(&p, "priorityPaths", "must begin with /, not \"" OUTR_FMT "\"",
                             OUTR_ARG(outr_str_head(c->priority_paths[i], 80)));
    }
}

static void read_per(const outr__part *p, outr_rate_spec *r)
{
    outr_str kind, name = outr_str_cut(r->per_text, ':', &kind);
    bool is_good = !name.p;
    if (r->per_text.n == 0 || outr_str_is(kind, "route")) {
        r->per = OUTR_RATE_ROUTE;
    } else if (outr_str_is(kind, "identity")) {
        r->per = OUTR_RATE_IDENTITY;
    } else if (outr_str_is(kind, "claim")) {
        r->per = OUTR_RATE_CLAIM;
        is_good = name.n > 0;
    } else {
        r->per = OUTR_RATE_HEADER;
        is_good = outr_str_is(kind, "header") && outr_header_name_is_valid(name);
    }
    r->per_name = r->per == OUTR_RATE_HEADER ? outr_str_lower(p->b->arena, name) : name;
    if (!is_good)
        outr__part_error(p, "per",
                         "must be route, identity, claim:NAME or header:NAME, not \"" OUTR_FMT "\"",
                         OUTR_ARG(outr_str_head(r->per_text, 80)));
}

static void check_rates(const outr__part *in, outr_traffic_spec *out)
{
    const outr_yaml *node = outr__list_first(outr__part_child(in, "rateLimits"));
    outr_map *seen = outr_map_new();
    for (size_t i = 0; i < out->rate_count && node; i++, node = node->next) {
        outr_rate_spec *r = (outr_rate_spec *)&out->rates[i];
        const outr__part p = outr__part_element(in, node, "rateLimits", i);
        if (r->name.n == 0)
            r->name = outr_arena_printf(in->b->arena, "#%zu", i + 1);
        const outr_rate_spec *before = outr_map_put(seen, r->name, r);
        if (before)
            outr__part_error(&p, "name", "\"" OUTR_FMT "\" is there already, in line %d",
                             OUTR_ARG(outr_str_head(r->name, 80)), before->line);
        r->interval_ns = outr__part_has(&p, "interval") ? r->interval_ns : 1 * OUTR_SEC;
        r->burst = outr__part_has(&p, "burst") ? r->burst : r->requests;
        r->buckets = outr__part_has(&p, "buckets") ? r->buckets : 16384;
        outr__part_integer(&p, "requests", r->requests, 1, 1000 * LIMIT_MAX);
        outr__part_duration(&p, "interval", r->interval_ns, 1 * OUTR_MS);
        outr__part_integer(&p, "burst", r->burst, 1, 1000 * LIMIT_MAX);
        outr__part_integer(&p, "buckets", r->buckets, 1, BUCKETS_MAX);
        read_per(&p, r);
        if (r->per == OUTR_RATE_ROUTE && outr__part_has(&p, "buckets"))
            outr__part_error(&p, "buckets", "has no meaning per route");
        outr__matches_finish(&p, r->matches, r->match_count);
    }
    outr_map_free(seen);
}

/* ---- the whole ------------------------------------------------------------------------------- */

void outr_kind_traffic(const outr_kind_env *env, const outr_yaml *root, int64_t now_unix_ns,
                       outr_traffic_spec *out)
{
    const outr_yaml *node = outr_yaml_find(root, "spec");
    const outr_resource base = out->base;
    outr_binder strict = *env->binder;
    bool has_inbound;
    strict.warnings = strict.errors;
    *out = outr_traffic_defaults;
    out->base = base;
    outr_bind_yaml(env->binder, outr_rows_top, root, "", out);
    if (outr_yaml_is_null(node))
        return;
    outr_bind_yaml(&strict, spec_rows, node, "spec", out);
    const outr__part spec = {&strict, node, "spec", now_unix_ns};
    check_targets(&spec, out);
    outr__subsets_finish(&spec, out);
    outr__routes_bind(&spec, env->binder, out);
    check_environment(&spec, &out->environment);
    check_locality(&spec, &out->locality);
    out->has_slow_start = outr__part_has(&spec, "slowStart");
    outr__part_duration(&spec, "slowStart", out->slow_start_ns, 0);
    check_ejection(&spec, &out->ejection);
    check_health(&spec, &out->health_check);
    check_budget(&spec, &out->retry_budget);
    check_hedge(&spec, &out->hedge);
    check_limits(&spec, &out->limits);
    const outr__part in = group(&spec, "inbound", &has_inbound);
    check_concurrency(&in, &out->concurrency);
    check_rates(&in, out);
}
