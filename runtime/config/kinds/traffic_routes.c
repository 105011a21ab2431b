#include "base/clock.h"
#include "base/copy.h"
#include "base/regex.h"
#include "base/url.h"
#include "config/kinds/traffic.h"
#include "base/labels.h"
#include "grpc/status.h"

#define ROUTES_MAX   100000
#define CONDITIONS_MAX 64 /* of one kind in one match */
#define WEIGHT_MAX   1000000
#define ATTEMPTS_MAX 20
#define DELAY_MAX    (3600 * OUTR_SEC)
#define FAULT_MAX    (366 * 24 * 3600 * (int64_t)OUTR_SEC)

/* As bound, before names are looked up. */
typedef struct raw_route {
    outr_route_spec r;
    outr_str header, baggage, claim; /* sticky */
    outr_str expires;
} raw_route;

#define M(field) offsetof(outr_traffic_match, field)
#define V(field) offsetof(outr_value_match, field)
#define R(field) offsetof(raw_route, field)

static const outr_yaml_row path_rows[] = {
    {"exact", OUTR_YT_TEXT, M(path.exact), 0, NULL, 0, 0},
    {"prefix", OUTR_YT_TEXT, M(path.prefix), 0, NULL, 0, 0},
    {"regex", OUTR_YT_TEXT, M(path.regex_text), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row value_rows[] = {
    {"name", OUTR_YT_TEXT, V(name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"exact", OUTR_YT_TEXT, V(exact), 0, NULL, 0, 0},
    {"prefix", OUTR_YT_TEXT, V(prefix), 0, NULL, 0, 0},
    {"regex", OUTR_YT_TEXT, V(regex_text), 0, NULL, 0, 0},
    {0},
};
#define VALUES(key, field)                                                                         \
    {key, OUTR_YT_LIST, M(field), 0, value_rows, sizeof(outr_value_match), V(line)}
const outr_yaml_row outr__rows_match[] = {
    {"path", OUTR_YT_GROUP, 0, 0, path_rows, 0, 0},
    {"methods", OUTR_YT_TEXTS, M(methods), 0, NULL, 0, 0},
    VALUES("headers", headers),
    VALUES("query", query),
    VALUES("baggage", baggage),
    VALUES("claims", claims),
    {"sources", OUTR_YT_TEXTS, M(sources), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row split_rows[] = {
    {"subset", OUTR_YT_TEXT, offsetof(outr_split, subset), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"weight", OUTR_YT_INT, offsetof(outr_split, weight), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row sticky_rows[] = {
    {"header", OUTR_YT_TEXT, R(header), 0, NULL, 0, 0},
    {"baggage", OUTR_YT_TEXT, R(baggage), 0, NULL, 0, 0},
    {"claim", OUTR_YT_TEXT, R(claim), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row retry_rows[] = {
    {"attempts", OUTR_YT_INT, R(r.retry.attempts), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"tryTimeout", OUTR_YT_DURATION, R(r.retry.try_timeout_ns), 0, NULL, 0, 0},
    {"httpCodes", OUTR_YT_TEXT, R(r.retry.http_codes), 0, NULL, 0, 0},
    {"grpcCodes", OUTR_YT_TEXT, R(r.retry.grpc_codes), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row mirror_rows[] = {
    {"appId", OUTR_YT_TEXT, R(r.mirror.app_id), 0, NULL, 0, 0},
    {"subset", OUTR_YT_TEXT, R(r.mirror.subset), 0, NULL, 0, 0},
    {"percent", OUTR_YT_NUMBER, R(r.mirror.percent), 0, NULL, 0, 0},
    {"compare", OUTR_YT_BOOL, R(r.mirror.is_compared), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row delay_rows[] = {
    {"duration", OUTR_YT_DURATION, R(r.fault.delay_ns), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"percent", OUTR_YT_NUMBER, R(r.fault.delay_percent), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row abort_rows[] = {
    {"status", OUTR_YT_INT, R(r.fault.abort_status), 0, NULL, 0, 0},
    {"grpcStatus", OUTR_YT_INT, R(r.fault.abort_grpc), 0, NULL, 0, 0},
    {"percent", OUTR_YT_NUMBER, R(r.fault.abort_percent), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row fault_rows[] = {
    {"expires", OUTR_YT_TEXT, R(expires), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"delay", OUTR_YT_GROUP, 0, 0, delay_rows, 0, 0},
    {"abort", OUTR_YT_GROUP, 0, 0, abort_rows, 0, 0},
    {0},
};
static const outr_yaml_row route_rows[] = {
    {"name", OUTR_YT_TEXT, R(r.name), 0, NULL, 0, 0},
    {"match", OUTR_YT_LIST, R(r.matches), 0, outr__rows_match, sizeof(outr_traffic_match), M(line)},
    {"to", OUTR_YT_LIST, R(r.splits), 0, split_rows, sizeof(outr_split),
     offsetof(outr_split, line)},
    {"sticky", OUTR_YT_GROUP, 0, 0, sticky_rows, 0, 0},
    {"fallback", OUTR_YT_TEXT, R(r.fallback), 0, NULL, 0, 0},
    {"environment", OUTR_YT_TEXT, R(r.environment), 0, NULL, 0, 0},
    {"timeout", OUTR_YT_DURATION, R(r.timeout_ns), 0, NULL, 0, 0},
    {"retry", OUTR_YT_GROUP, 0, 0, retry_rows, 0, 0},
    {"mirror", OUTR_YT_GROUP, 0, 0, mirror_rows, 0, 0},
    {"fault", OUTR_YT_GROUP, 0, 0, fault_rows, 0, 0},
    {0},
};

static void check_count(const outr__part *part, const char *key, const void *items, size_t count)
{
    if (items && count == 0)
        outr__part_error(part, key, "is empty; leave it out for any");
    if (count > CONDITIONS_MAX)
        outr__part_error(part, key, "must be %d at most", CONDITIONS_MAX);
}

/* ---- matches --------------------------------------------------------------------------------- */

static void free_regex(void *ctx)
{
    outr_regex_free(ctx);
}

/* The whole of a text has to match, so a pattern that would be another one between the anchors
 * ("a)|(b") is looked at by itself first. */
static void compile(const outr__part *p, outr_value_match *v)
{
    outr_regex *regex = NULL;
    outr_err err = {0};
    outr_str whole =
        outr_arena_join(p->b->arena, OUTR_STR("^(?:"), v->regex_text, OUTR_STR(")$"));
    outr_code rc = outr_regex_new(&regex, v->regex_text, &err);
    if (!rc) {
        outr_regex_free(regex);
        rc = outr_regex_new(&regex, whole, &err);
    }
    if (rc) {
        outr__part_error(p, "regex", "%s", err.text);
        return;
    }
    v->regex = regex;
    outr_arena_defer(p->b->arena, free_regex, regex);
}

static void finish_value(const outr__part *p, outr_value_match *v)
{
    bool has_regex = outr__part_has(p, "regex");
    v->has_exact = outr__part_has(p, "exact");
    v->has_prefix = outr__part_has(p, "prefix");
    if (v->has_exact + v->has_prefix + has_regex > 1)
        outr__part_error(p, NULL, "give one of exact, prefix and regex");
    if (has_regex)
        compile(p, v);
}

static bool is_clean(const outr__part *p, outr_str path)
{
    return path.n > 0 && path.p[0] == '/' && outr_str_find(path, '?') < 0 &&
           outr_str_find(path, '#') < 0 && outr_str_find(path, '%') < 0 &&
           outr_str_eq(outr_path_clean(p->b->arena, path), path);
}

static void finish_path(const outr__part *match, outr_traffic_match *m)
{
    const outr__part p = outr__part_inner(match, "path");
    m->has_path = p.node != NULL;
    if (!m->has_path)
        return;
    finish_value(&p, &m->path);
    if (!m->path.has_exact && !m->path.has_prefix && !outr__part_has(&p, "regex"))
        outr__part_error(&p, NULL, "needs one of exact, prefix and regex");
    if (m->path.has_exact && !is_clean(&p, m->path.exact))
        outr__part_error(&p, "exact", "must be a clean path without escapes and query, not \""
                                      OUTR_FMT "\"",
                         OUTR_ARG(outr_str_head(m->path.exact, 80)));
    if (m->path.has_prefix && !is_clean(&p, m->path.prefix))
        outr__part_error(&p, "prefix", "must be a clean path without escapes and query, not \""
                                       OUTR_FMT "\"",
                         OUTR_ARG(outr_str_head(m->path.prefix, 80)));
    size_t segments = 0;
    for (size_t i = 0; i < m->path.prefix.n; i++)
        segments += m->path.prefix.p[i] == '/';
    if (segments > OUTR_TRAFFIC_SEGMENTS_MAX)
        outr__part_error(&p, "prefix", "must be of %d segments at most", OUTR_TRAFFIC_SEGMENTS_MAX);
}

static void check_methods(const outr__part *p, const outr_traffic_match *m)
{
    static const char *const known[] = {"GET",     "HEAD",    "POST",  "PUT",  "DELETE",
                                        "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    for (size_t i = 0; i < m->method_count; i++) {
        bool is_known = false;
        for (size_t k = 0; k < OUTR_LEN(known); k++)
            is_known |= outr_str_is(m->methods[i], known[k]);
        if (!is_known)
            outr__part_error(p, "methods", "must be verbs in upper case, not \"" OUTR_FMT "\"",
                             OUTR_ARG(outr_str_head(m->methods[i], 40)));
    }
}

static void finish_values(const outr__part *match, const char *key, const outr_value_match *items,
                          size_t count)
{
    bool is_header = strcmp(key, "headers") == 0;
    const outr_yaml *node = outr__list_first(outr__part_child(match, key));
    check_count(match, key, items, count);
    for (size_t i = 0; i < count && node; i++, node = node->next) {
        outr_value_match *v = (outr_value_match *)&items[i];
        const outr__part p = outr__part_element(match, node, key, i);
        finish_value(&p, v);
        if (is_header && v->name.n > 0 && !outr_header_name_is_valid(v->name))
            outr__part_error(&p, "name", "\"" OUTR_FMT "\" is not the name of a header",
                             OUTR_ARG(outr_str_head(v->name, 80)));
        if (is_header)
            v->name = outr_str_lower(match->b->arena, v->name);
    }
}

/* Who calls is known by its id alone, which has no dot: one with a namespace would never match. */
static void check_source(const outr__part *match, outr_str app_id)
{
    outr__part_app(match, "sources", app_id);
    if (outr_str_find(app_id, '.') >= 0)
        outr__part_error(match, "sources",
                         "must be app ids without a namespace, not \"" OUTR_FMT "\"",
                         OUTR_ARG(outr_str_head(app_id, 80)));
}

void outr__matches_finish(const outr__part *parent, const outr_traffic_match *items, size_t count)
{
    const outr_yaml *node = outr__list_first(outr__part_child(parent, "match"));
    if (items && count == 0)
        outr__part_error(parent, "match", "is empty; leave it out for every call");
    if (count > CONDITIONS_MAX)
        outr__part_error(parent, "match", "must be %d at most", CONDITIONS_MAX);
    for (size_t i = 0; i < count && node; i++, node = node->next) {
        outr_traffic_match *m = (outr_traffic_match *)&items[i];
        const outr__part p = outr__part_element(parent, node, "match", i);
        if (node->kind == OUTR_YAML_MAPPING && node->count == 0)
            outr__part_error(&p, NULL, "is empty; leave match out for every call");
        finish_path(&p, m);
        check_count(&p, "methods", m->methods, m->method_count);
        check_methods(&p, m);
        finish_values(&p, "headers", m->headers, m->header_count);
        finish_values(&p, "query", m->query, m->query_count);
        finish_values(&p, "baggage", m->baggage, m->baggage_count);
        finish_values(&p, "claims", m->claims, m->claim_count);
        check_count(&p, "sources", m->sources, m->source_count);
        for (size_t k = 0; k < m->source_count; k++)
            check_source(&p, m->sources[k]);
    }
}

/* ---- subsets --------------------------------------------------------------------------------- */

void outr__subsets_finish(const outr__part *spec, const outr_traffic_spec *policy)
{
    const outr_yaml *node = outr__list_first(outr__part_child(spec, "subsets"));
    outr_map *seen = outr_map_new();
    for (size_t i = 0; i < policy->subset_count && node; i++, node = node->next) {
        outr_subset_spec *s = (outr_subset_spec *)&policy->subsets[i];
        const outr__part p = outr__part_element(spec, node, "subsets", i);
        outr_err err;
        const outr_subset_spec *before =
            s->name.n > 0 ? outr_map_put(seen, s->name, s) : NULL;
        if (before)
            outr__part_error(&p, "name", "\"" OUTR_FMT "\" is there already, in line %d",
                             OUTR_ARG(outr_str_head(s->name, 80)), before->line);
        if (outr_str_is(s->name, "any") || outr_str_is(s->name, "none"))
            outr__part_error(&p, "name", "any and none have a meaning of their own");
        if (s->labels.items && s->labels.count == 0)
            outr__part_error(&p, "labels", "is empty: every instance would be of it");
        if (s->labels.count > OUTR_LABELS_MAX)
            outr__part_error(&p, "labels", "must be %d at most", OUTR_LABELS_MAX);
        for (size_t k = 0; k < s->labels.count; k++) {
            if (outr_label_check(s->labels.items[k].key, s->labels.items[k].value, &err))
                outr__part_error(&p, "labels", "%s", err.text);
        }
        s->labels = outr_labels_of(spec->b->arena, s->labels);
    }
    outr_map_free(seen);
}

static outr_map *subsets_by_name(const outr_traffic_spec *policy)
{
    outr_map *subsets = outr_map_new();
    for (size_t i = 0; i < policy->subset_count; i++)
        outr_map_put(subsets, policy->subsets[i].name, (void *)&policy->subsets[i]);
    return subsets;
}

static const outr_subset_spec *find_subset(const outr__part *p, const char *key,
                                           const outr_map *subsets, outr_str name)
{
    const outr_subset_spec *subset = outr_map_get(subsets, name);
    if (!subset && name.n > 0)
        outr__part_error(p, key, "there is no subset \"" OUTR_FMT "\" in this policy",
                         OUTR_ARG(outr_str_head(name, 80)));
    return subset;
}

/* ---- routes ---------------------------------------------------------------------------------- */

static void finish_splits(const outr__part *p, const outr_map *subsets, outr_route_spec *r)
{
    const outr_yaml *node = outr__list_first(outr__part_child(p, "to"));
    int64_t sum = 0;
    bool is_good = true;
    check_count(p, "to", r->splits, r->split_count);
    for (size_t i = 0; i < r->split_count && node; i++, node = node->next) {
        outr_split *s = (outr_split *)&r->splits[i];
        const outr__part at = outr__part_element(p, node, "to", i);
        s->to = find_subset(&at, "subset", subsets, s->subset);
        s->weight = outr__part_has(&at, "weight") ? s->weight : 1;
        outr__part_integer(&at, "weight", s->weight, 0, WEIGHT_MAX);
        is_good &= s->weight >= 0 && s->weight <= WEIGHT_MAX;
        sum += is_good ? s->weight : 0;
        for (size_t k = 0; k < i; k++) {
            if (s->to && r->splits[k].to == s->to)
                outr__part_error(&at, "subset", "\"" OUTR_FMT "\" is there twice",
                                 OUTR_ARG(outr_str_head(s->subset, 80)));
        }
    }
    if (is_good && r->split_count > 0 && sum == 0)
        outr__part_error(p, "to", "all weights are 0: no call would go anywhere");
}

static void finish_sticky(const outr__part *route, raw_route *raw)
{
    const outr__part p = outr__part_inner(route, "sticky");
    const outr_str names[] = {raw->header, raw->baggage, raw->claim};
    size_t given = 0;
    if (!p.node)
        return;
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (names[i].n == 0)
            continue;
        given++;
        raw->r.sticky.name = names[i];
        raw->r.sticks_to = (int)i + OUTR_STICKY_HEADER;
    }
    raw->r.sticky.line = p.node->line;
    raw->r.sticky.column = p.node->column;
    if (given != 1)
        outr__part_error(&p, NULL, "needs one of header, baggage and claim");
    if (raw->header.n > 0 && !outr_header_name_is_valid(raw->header))
        outr__part_error(&p, "header", "\"" OUTR_FMT "\" is not the name of a header",
                         OUTR_ARG(outr_str_head(raw->header, 80)));
    if (raw->r.sticks_to == OUTR_STICKY_HEADER)
        raw->r.sticky.name = outr_str_lower(p.b->arena, raw->header);
    if (raw->r.split_count == 0)
        outr__part_error(&p, NULL, "has no effect without subsets to choose from (to)");
}

static void finish_fallback(const outr__part *p, const outr_map *subsets, outr_route_spec *r)
{
    r->falls_to_any = outr_str_is(r->fallback, "any");
    if (r->fallback.n > 0 && !r->falls_to_any && !outr_str_is(r->fallback, "none"))
        r->fallback_to = find_subset(p, "fallback", subsets, r->fallback);
    if (r->fallback.n > 0 && r->split_count == 0)
        outr__part_error(p, "fallback", "has no effect without a subset that may be empty (to)");
}

static void finish_retry(const outr__part *route, outr_route_spec *r)
{
    const outr__part p = outr__part_inner(route, "retry");
    r->retry.is_on = p.node != NULL;
    outr__part_integer(&p, "attempts", r->retry.attempts, 0, ATTEMPTS_MAX);
    outr__part_duration(&p, "tryTimeout", r->retry.try_timeout_ns, 1 * OUTR_MS);
    outr__part_codes(&p, "httpCodes", r->retry.http_codes, 100, 599);
    outr__part_codes(&p, "grpcCodes", r->retry.grpc_codes, 0, 16);
    if (r->timeout_ns > 0 && r->retry.try_timeout_ns > r->timeout_ns)
        outr__part_error(&p, "tryTimeout", "must not be longer than the route's timeout");
}

static void finish_mirror(const outr__part *route, const outr_map *subsets, outr_route_spec *r)
{
    const outr__part p = outr__part_inner(route, "mirror");
    outr_mirror_spec *m = &r->mirror;
    m->is_on = p.node != NULL;
    if (!m->is_on)
        return;
    m->percent = outr__part_has(&p, "percent") ? m->percent : 100;
    outr__part_number(&p, "percent", m->percent, 0, 100);
    if (m->app_id.n > 0)
        outr__part_app(&p, "appId", m->app_id);
    m->to = find_subset(&p, "subset", subsets, m->subset);
    if (m->app_id.n == 0 && m->subset.n == 0)
        outr__part_error(&p, NULL, "needs appId, subset or both");
}

static int grpc_of_http(outr_arena *arena, int64_t status)
{
    outr_grpc_status out;
    const outr_headers none = {.arena = arena};
    outr_grpc_status_read(&out, &none, (int)status);
    return (int)out.code;
}

static int64_t http_of_grpc(int64_t code)
{
    static const int http[] = {200, 499, 500, 400, 504, 404, 409, 403, 429,
                               400, 409, 400, 501, 500, 503, 500, 401};
    return code >= 0 && (size_t)code < OUTR_LEN(http) ? http[code] : 500;
}

static void finish_abort(const outr__part *fault, outr_fault_spec *f)
{
    const outr__part p = outr__part_inner(fault, "abort");
    bool has_http = outr__part_has(&p, "status"), has_grpc = outr__part_has(&p, "grpcStatus");
    if (!p.node)
        return;
    f->abort_percent = outr__part_has(&p, "percent") ? f->abort_percent : 100;
    outr__part_number(&p, "percent", f->abort_percent, 0, 100);
    outr__part_integer(&p, "status", f->abort_status, 200, 599);
    outr__part_integer(&p, "grpcStatus", f->abort_grpc, 1, 16);
    if (!has_http && !has_grpc)
        outr__part_error(&p, NULL, "needs status, grpcStatus or both");
    if (!has_grpc)
        f->abort_grpc = grpc_of_http(p.b->arena, f->abort_status);
    if (!has_http)
        f->abort_status = http_of_grpc(f->abort_grpc);
}

static void finish_fault(const outr__part *route, outr_binder *document, raw_route *raw)
{
    const outr__part p = outr__part_inner(route, "fault");
    const outr__part delay = outr__part_inner(&p, "delay");
    outr_fault_spec *f = &raw->r.fault;
    int64_t until_ns;
    f->is_on = p.node != NULL;
    if (!f->is_on)
        return;
    if (delay.node)
        f->delay_percent = outr__part_has(&delay, "percent") ? f->delay_percent : 100;
    outr__part_number(&delay, "percent", f->delay_percent, 0, 100);
    outr__part_duration(&delay, "duration", f->delay_ns, 1);
    if (f->delay_ns > DELAY_MAX)
        outr__part_error(&delay, "duration", "must be an hour at most");
    finish_abort(&p, f);
    if (!delay.node && !outr__part_has(&p, "abort"))
        outr__part_error(&p, NULL, "needs delay, abort or both");
    if (raw->expires.n == 0)
        return; /* told already */
    if (!outr_time_parse_rfc3339(raw->expires, &until_ns) || until_ns <= 0) {
        outr__part_error(&p, "expires", "must be a time like 2026-01-02T15:04:05Z, not \"" OUTR_FMT
                                        "\"",
                         OUTR_ARG(outr_str_head(raw->expires, 80)));
        return;
    }
    if (until_ns - p.now_unix_ns > FAULT_MAX)
        outr__part_error(&p, "expires", "is more than a year ahead: faults end by themselves");
    f->until_unix_ns = (uint64_t)until_ns;
    if (until_ns > p.now_unix_ns)
        return;
    f->is_on = false;
    outr_bind_warning(document, outr__part_child(&p, "expires"),
                      "%s.expires: has passed, the fault is not injected", p.path);
}

static void finish_route(const outr__part *p, outr_binder *document, const outr_map *subsets,
                         raw_route *raw)
{
    outr_route_spec *r = &raw->r;
    outr_err err;
    outr__matches_finish(p, r->matches, r->match_count);
    finish_splits(p, subsets, r);
    finish_sticky(p, raw);
    finish_fallback(p, subsets, r);
    if (r->environment.n > 0 && outr_label_check(OUTR_STR("environment"), r->environment, &err))
        outr__part_error(p, "environment", "%s", err.text);
    outr__part_duration(p, "timeout", r->timeout_ns, 1 * OUTR_MS);
    finish_retry(p, r);
    finish_mirror(p, subsets, r);
    finish_fault(p, document, raw);
}

void outr__routes_bind(const outr__part *spec, outr_binder *document, outr_traffic_spec *out)
{
    typedef struct raw_routes {
        raw_route *items;
        size_t count;
    } raw_routes;
    static const outr_yaml_row rows[] = {
        {"routes", OUTR_YT_LIST, offsetof(raw_routes, items), 0, route_rows, sizeof(raw_route),
         R(r.line)},
        {0},
    };
    const outr_yaml *list = outr__part_child(spec, "routes");
    raw_routes raw = {0};
    if (!list)
        return;
    const outr_yaml only = {.kind = OUTR_YAML_MAPPING,
                            .line = list->line,
                            .column = list->column,
                            .child = (outr_yaml *)outr_arena_alloc(spec->b->arena, sizeof *list),
                            .count = 1};
    *only.child = *list;
    only.child->next = NULL;
    outr_bind_yaml(spec->b, rows, &only, spec->path, &raw);
    if (raw.count > ROUTES_MAX)
        outr__part_error(spec, "routes", "must be %d at most", ROUTES_MAX);
    outr_route_spec *items = outr_arena_alloc(spec->b->arena, (raw.count + 1) * sizeof *items);
    outr_map *seen = outr_map_new(), *subsets = subsets_by_name(out);
    const outr_yaml *node = outr__list_first(list);
    for (size_t i = 0; i < raw.count && node; i++, node = node->next) {
        raw_route *r = &raw.items[i];
        const outr__part p = outr__part_element(spec, node, "routes", i);
        if (r->r.name.n == 0)
            r->r.name = outr_arena_printf(spec->b->arena, "#%zu", i + 1);
        const raw_route *before = outr_map_put(seen, r->r.name, r);
        if (before)
            outr__part_error(&p, "name", "\"" OUTR_FMT "\" is there already, in line %d",
                             OUTR_ARG(outr_str_head(r->r.name, 80)), before->r.line);
        finish_route(&p, document, subsets, r);
        items[i] = r->r;
    }
    outr_map_free(seen);
    outr_map_free(subsets);
    out->routes = items;
    out->route_count = raw.count;
}
