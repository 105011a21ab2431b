/* What it costs to choose where a call goes, of one and of ten thousand routes.
 *
 * CPU of this thread, per call, of the very function that mesh/invoke.c calls. Prints a JSON object
 * a line: {"name": ..., "us": ...}. */
#include "bench/measure.h"
#include "mesh/route.h"

#define MANY 10000

/* Each % in the route is its number. */
static outr_snapshot *load(const char *route, unsigned count)
{
    char item[512];
    snprintf(item, sizeof item, "  - {%s}", route);
    return measure_load("caller",
                        "apiVersion: outrigger.io/v1alpha1\nkind: TrafficPolicy\n"
                        "metadata: {name: p}\nspec:\n  targets: [orders]\n"
                        "  subsets: [{name: v1, labels: {version: 1}}, {name: v2, labels: "
                        "{version: 2}}]\n  routes:\n",
                        item, count);
}

typedef struct asking {
    const outr_routes *routes;
    outr_arena *arena;
    outr_str *targets, *values;
    outr_rand rand;
} asking;

static void ask(void *ctx, unsigned i)
{
    asking *a = ctx;
    outr_headers headers;
    outr_headers_init(&headers, a->arena);
    for (int h = 0; h < 8; h++)
        outr_headers_add(&headers, OUTR_STR("x-some-header"), OUTR_STR("some value"));
    outr_headers_add(&headers, OUTR_STR("x-tenant"), a->values[i % MANY]);
    const outr_route_request request = {.app_id = OUTR_STR("orders"),
                                        .namespace_ = OUTR_STR("default"),
                                        .source = OUTR_STR("caller"),
                                        .method = OUTR_STR("GET"),
                                        .target = a->targets[i % MANY],
                                        .headers = &headers};
    if (!outr_routes_choose(a->routes, &request, NULL, &a->rand, a->arena).subset)
        measure_fail("no route");
    outr_arena_reset(a->arena);
}

/* Each call asks for another of the routes. */
static void measure(const char *name, const char *route, unsigned count, const char *target,
                    const char *header)
{
    outr_snapshot *snapshot = load(route, count);
    outr_arena *texts = outr_arena_new(64 * OUTR_MIB);
    double before = measure_cpu_ns();
    asking a = {.routes = outr_routes_of(snapshot)};
    double made = measure_cpu_ns() - before;
    a.arena = outr_arena_new(OUTR_MIB);
    a.targets = outr_arena_alloc(texts, MANY * sizeof *a.targets);
    a.values = outr_arena_alloc(texts, MANY * sizeof *a.values);
    outr_rand_seed(&a.rand, 1);
    for (unsigned i = 0; i < MANY; i++) {
        a.targets[i] = outr_arena_printf(texts, "%s%u/items?page=2", target, i % count);
        a.values[i] = outr_arena_printf(texts, "%s%u", header, i % count);
    }
    printf("{\"name\": \"%s\", \"us\": %.3f, \"made_ms\": %.1f}\n", name,
           measure_calls(100000, ask, &a) / 1000, made / 1e6);
    fflush(stdout);
    outr_arena_free(a.arena);
    outr_arena_free(texts);
    outr_snapshot_unref(snapshot);
}

int main(void)
{
#define SPLIT "to: [{subset: v1, weight: 99}, {subset: v2, weight: 1}]"
    measure("one route for every call", SPLIT, 1, "/v1/c", "t");
    measure("10000 routes, each of an exact path",
            "match: [{path: {exact: /v1/c%/items}}], " SPLIT, MANY, "/v1/c", "t");
    measure("10000 routes, each of a prefix and a method",
            "match: [{path: {prefix: /v1/c%}, methods: [GET]}], " SPLIT, MANY, "/v1/c", "t");
    measure("10000 routes, each of a header's value",
            "match: [{headers: [{name: x-tenant, exact: t%}]}], " SPLIT, MANY, "/v1/c", "t");
    return 0;
}
