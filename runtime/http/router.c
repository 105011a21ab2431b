#include "http/router.h"

#define SEGMENTS_MAX 10

/* A pattern cut at its slashes. Routes are few (about a hundred): they are kept sorted by their
 * first
 * two literal segments' text and the best match among the candidates wins. */
typedef struct pattern {
    const char *methods;
    const void *route;
    outr_str segments[SEGMENTS_MAX]; /* p[0] == '{': a parameter */
    size_t count;
    bool takes_rest;      /* the last one is {name...} */
    struct pattern *next; /* in the same bucket */
} pattern;

#define BUCKETS 32

struct outr_router {
    pattern *buckets[BUCKETS +
                     1]; /* by second segment; the last one: patterns without a literal there */
};

outr_router *outr_router_new(void)
{
    return outr_alloc(sizeof(outr_router));
}

void outr_router_free(outr_router *router)
{
    if (!router)
        return;
    for (size_t i = 0; i <= BUCKETS; i++) {
        while (router->buckets[i]) {
            pattern *p = router->buckets[i];
            router->buckets[i] = p->next;
            free(p);
        }
    }
    free(router);
}

static bool is_param(outr_str segment)
{
    return segment.n > 0 && segment.p[0] == '{';
}

static size_t bucket_of(outr_str segment)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < segment.n; i++)
        h = (h ^ (unsigned char)segment.p[i]) * 16777619u;
    return h % BUCKETS;
}

/* Cuts path at slashes; the count, or 0 when it has no leading slash or too many. */
static size_t cut(outr_str path, outr_str *segments, size_t max)
{
    size_t n = 0;
    if (path.n == 0 || path.p[0] != '/')
        return 0;
    path = outr_str_skip(path, 1);
    while (path.p && n < max)
        path = outr_str_cut(path, '/', &segments[n++]);
    return n;
}

void outr_router_add(outr_router *router, const char *methods, const char *text, const void *route)
{
    pattern *p = outr_alloc(sizeof *p);
    p->methods = methods;
    p->route = route;
    p->count = cut(outr_str_from(text), p->segments, SEGMENTS_MAX);
    assert(p->count > 0);
    p->takes_rest = outr_str_ends(p->segments[p->count - 1], OUTR_STR("...}"));
    bool is_spread = p->count < 2 || is_param(p->segments[1]);
    pattern **at = &router->buckets[is_spread ? BUCKETS : bucket_of(p->segments[1])];
    while (*at)
        at = &(*at)->next;
    *at = p;
}

static bool has_method(const char *methods, outr_str method)
{
    outr_str rest = outr_str_from(methods), one;
    if (outr_str_is(rest, "*"))
        return true;
    while (rest.p) {
        rest = outr_str_cut(rest, '|', &one);
        if (outr_str_eq(one, method))
            return true;
    }
    return false;
}

/* Literal segments matched, or -1. Parameters never match an empty segment. */
static int match(const pattern *p, const outr_str *segments, size_t count, outr_str path,
                 outr_route_match *out)
{
    int literals = 0;
    out->param_count = 0;
    if (p->takes_rest ? count < p->count : count != p->count)
        return -1;
    for (size_t i = 0; i < p->count; i++) {
        if (!is_param(p->segments[i])) {
            if (!outr_str_eq(p->segments[i], segments[i]))
                return -1;
            literals++;
            continue;
        }
        outr_str value = segments[i];
        if (p->takes_rest && i + 1 == p->count)
            value = outr_str_of(value.p, (size_t)(path.p + path.n - value.p));
        if (value.n == 0 || out->param_count == OUTR_ROUTE_PARAMS_MAX)
            return -1;
        out->params[out->param_count++] = value;
    }
    return literals;
}

bool outr_router_find(const outr_router *router, outr_str method, outr_str path,
                      outr_route_match *out)
{
    outr_str segments[SEGMENTS_MAX + 1];
    size_t count = cut(path, segments, OUTR_LEN(segments));
    int best = -1;
    const pattern *lists[2] = {count > 1 ? router->buckets[bucket_of(segments[1])] : NULL,
                               router->buckets[BUCKETS]};
    for (size_t l = 0; l < 2; l++) {
        for (const pattern *p = lists[l]; p; p = p->next) {
            outr_route_match candidate;
            int literals = match(p, segments, count, path, &candidate);
            if (literals <= best || !has_method(p->methods, method))
                continue;
            best = literals;
            *out = candidate;
            out->route = p->route;
        }
    }
    return best >= 0;
}
