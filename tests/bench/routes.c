/* What it costs to choose where a call goes, of one and of ten thousand routes.
 *
 * CPU of this thread, per call, of the very function that mesh/invoke.c calls. Prints a JSON object
 * a line: {"name": ..., "us": ...}. */
#include <stdlib.h>
#include <time.h>

#include "config/snapshot.h"
#include "lib/folder.h"
#include "mesh/route.h"

#define MANY 10000

static void fail(const char *text)
{
    fprintf(stderr, "routes: %s\n", text);
    exit(1);
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A policy of count routes; each % is the number of the route. */
static outr_snapshot *load(const char *route, unsigned count)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(4 * OUTR_MIB);
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_settings settings = {.app_id = OUTR_STR("caller")};
    outr_snapshot *snapshot;
    folder f;
    outr_buf_z(&text, "apiVersion: outrigger.io/v1alpha1\nkind: TrafficPolicy\n"
                      "metadata: {name: p}\nspec:\n  targets: [orders]\n"
                      "  subsets: [{name: v1, labels: {version: 1}}, {name: v2, labels: "
                      "{version: 2}}]\n  routes:\n");
    for (unsigned i = 0; i < count; i++) {
        outr_buf_z(&text, "  - {");
        for (const char *p = route; *p; p++) {
            if (*p == '%')
                outr_buf_printf(&text, "%u", i);
            else
                outr_buf_char(&text, *p);
        }
        outr_buf_z(&text, "}\n");
    }
    outr_buf_char(&text, 0);
    if (text.is_full)
        fail("too long");
    folder_make(&f);
    folder_write(&f, "policy.yaml", text.p);
    settings.resources_paths.items[0] = outr_str_from(f.path);
    settings.resources_paths.count = 1;
    if (outr_snapshot_load(&snapshot, &settings, NULL, &errors, &warnings))
        fail(errors.items[0].text);
    folder_remove(&f);
    return snapshot;
}

/* The median of nine rounds; each call asks for another of the routes. */
static void measure(const char *name, const char *route, unsigned count, const char *target,
                    const char *header)
{
    enum { CALLS = 100000 };
    double rounds[9];
    outr_snapshot *snapshot = load(route, count);
    double before = cpu_ns();
    const outr_routes *routes = outr_routes_of(snapshot);
    double made = cpu_ns() - before;
    outr_arena *arena = outr_arena_new(OUTR_MIB), *texts = outr_arena_new(64 * OUTR_MIB);
    outr_str *targets = outr_arena_alloc(texts, MANY * sizeof *targets);
    outr_str *values = outr_arena_alloc(texts, MANY * sizeof *values);
    outr_rand rand;
    outr_rand_seed(&rand, 1);
    for (unsigned i = 0; i < MANY; i++) {
        targets[i] = outr_arena_printf(texts, "%s%u/items?page=2", target, i % count);
        values[i] = outr_arena_printf(texts, "%s%u", header, i % count);
    }
    for (size_t r = 0; r < OUTR_LEN(rounds); r++) {
        before = cpu_ns();
        for (unsigned i = 0; i < CALLS; i++) {
            outr_headers headers;
            outr_headers_init(&headers, arena);
            for (int h = 0; h < 8; h++)
                outr_headers_add(&headers, OUTR_STR("x-some-header"), OUTR_STR("some value"));
            outr_headers_add(&headers, OUTR_STR("x-tenant"), values[i % MANY]);
            const outr_route_request request = {.app_id = OUTR_STR("orders"),
                                                .namespace_ = OUTR_STR("default"),
                                                .source = OUTR_STR("caller"),
                                                .method = OUTR_STR("GET"),
                                                .target = targets[i % MANY],
                                                .headers = &headers};
            if (!outr_routes_choose(routes, &request, NULL, &rand, arena).subset)
                fail("no route");
            outr_arena_reset(arena);
        }
        rounds[r] = (cpu_ns() - before) / CALLS / 1000;
    }
    qsort(rounds, OUTR_LEN(rounds), sizeof rounds[0], by_value);
    printf("{\"name\": \"%s\", \"us\": %.3f, \"made_ms\": %.1f}\n", name,
           rounds[OUTR_LEN(rounds) / 2], made / 1e6);
    fflush(stdout);
    outr_arena_free(arena);
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
