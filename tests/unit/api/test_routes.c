#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/table.h"
#include "unit/api/api.h"

static const outr_settings plain = {.max_body_bytes = 4 * 1024 * 1024};

static const outr_api_route *find(const outr_router *router, const char *method, const char *path)
{
    outr_route_match m;
    return outr_router_find(router, outr_str_from(method), outr_str_from(path), &m) ? m.route
                                                                                    : NULL;
}

/* "{storeName}" -> "x", "{topic...}" -> "x/y". */
static void fill_in(const char *pattern, char *out, size_t size)
{
    size_t n = 0;
    for (const char *p = pattern; *p && n + 4 < size; p++) {
        if (*p != '{') {
            out[n++] = *p;
            continue;
        }
        const char *end = strchr(p, '}');
        bool is_rest = end - p > 3 && strncmp(end - 3, "...", 3) == 0;
        out[n++] = 'x';
        if (is_rest) {
            out[n++] = '/';
            out[n++] = 'y';
        }
        p = end;
    }
    out[n] = 0;
}

static void every_route_of_the_contract_is_there_with_its_methods_and_group(void **state)
{
    static const char *const all[] = {"GET", "POST", "PUT", "DELETE", "PATCH"};
    table t;
    (void)state;
    if (!table_open(&t, TABLE_CONTRACT("http-routes.csv")))
        skip();
    api_world *a = api_open(&plain, "", NULL, 0);
    size_t routes = 0;
    for (char *c[9]; table_next(&t, c, 9) >= 8;) {
        char path[160];
        if (strncmp(c[1], "/v1.0", 5) || strstr(c[0], "any"))
            continue;
        routes++;
        fill_in(c[1], path, sizeof path);
        for (size_t i = 0; i < OUTR_LEN(all); i++) {
            const outr_api_route *route = find(a->api.router, all[i], path);
            bool is_wanted = strstr(c[0], all[i]) != NULL;
            if (is_wanted && !route)
                fail_msg("%s %s is not there", all[i], c[1]);
            if (is_wanted && strcmp(route->group, c[6]))
                fail_msg("%s %s is of group %s, not %s", all[i], c[1], route->group, c[6]);
            if (is_wanted && strcmp(route->version, c[7]))
                fail_msg("%s %s is of version %s, not %s", all[i], c[1], route->version, c[7]);
        }
    }
    assert_true(routes > 60);
    api_close(a);
    table_close(&t);
}

static void a_wrong_method_is_no_route(void **state)
{
    static const struct {
        const char *method, *path;
    } rows[] = {
        {"PATCH", "/v1.0/state/s"},
        {"GET", "/v1.0/state/s/bulk/x"},
        {"DELETE", "/v1.0/metadata/x"},
        {"POST", "/v1.0/healthz"},
        {"GET", "/v1.0/shutdown"},
        {"GET", "/v1.0/publish/p/t"},
        {"POST", "/v1.0/publish/p/"},
        {"POST", "/v1.0/secrets/s/k"},
        {"GET", "/v1.0"},
        {"GET", "/v1.0/state//k"},
        {"GET", "/V1.0/healthz"},
        {"GET", "/"},
    };
    api_world *a = api_open(&plain, "", NULL, 0);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        if (find(a->api.router, rows[i].method, rows[i].path))
            fail_msg("%s %s is a route", rows[i].method, rows[i].path);
    }
    api_close(a);
}

static void the_public_port_serves_health_and_metadata_alone(void **state)
{
    api_world *a = api_open(&plain, "", NULL, 0);
    (void)state;
    assert_non_null(find(a->api.public_router, "GET", "/v1.0/healthz"));
    assert_non_null(find(a->api.public_router, "GET", "/v1.0/healthz/outbound"));
    assert_non_null(find(a->api.public_router, "GET", "/v1.0/metadata"));
    assert_null(find(a->api.public_router, "POST", "/v1.0/shutdown"));
    assert_null(find(a->api.public_router, "GET", "/v1.0/state/s/k"));
    assert_null(find(a->api.public_router, "GET", "/v1.0/invoke/a/method/b"));
    api_close(a);
}

/* ---- spec.api ---------------------------------------------------------------------------------- */

static void lists_of_the_configuration_open_and_close_routes(void **state)
{
    static const struct {
        const char *api, *method, *path;
        bool is_open;
    } rows[] = {
        {"{}", "GET", "/v1.0/state/s/k", true},
        {"{denied: [{name: state, version: v1}]}", "GET", "/v1.0/state/s/k", false},
        {"{denied: [{name: state, version: v1}]}", "POST", "/v1.0-alpha1/state/s/query", true},
        {"{denied: [{name: state, version: v1alpha1}]}", "POST", "/v1.0-alpha1/state/s/query",
         false},
        {"{denied: [{name: state, version: v1.0-alpha1}]}", "POST", "/v1.0-alpha1/state/s/query",
         false},
        {"{denied: [{name: v1.0/state}]}", "GET", "/v1.0/state/s/k", false},
        {"{denied: [{name: State, version: v1.0}]}", "GET", "/v1.0/state/s/k", false},
        {"{denied: [{name: state, version: v1, protocol: grpc}]}", "GET", "/v1.0/state/s/k", true},
        {"{denied: [{name: healthz, version: v1}]}", "GET", "/v1.0/healthz", true},
        {"{allowed: [{name: state, version: v1}]}", "GET", "/v1.0/state/s/k", true},
        {"{allowed: [{name: state, version: v1}]}", "GET", "/v1.0/secrets/s/k", false},
        {"{allowed: [{name: state, version: v1}]}", "GET", "/v1.0/healthz", true},
        {"{allowed: [{name: state, version: v1, protocol: grpc}]}", "GET", "/v1.0/secrets/s/k",
         true},
        {"{allowed: [{name: state, version: v1}], denied: [{name: state, version: v1}]}", "GET",
         "/v1.0/state/s/k", false},
        {"{denied: [{name: invoke, version: v1}]}", "GET", "/v1.0/invoke/a/method/b", false},
        {"{denied: [{name: state, version: v10}]}", "GET", "/v1.0/state/s/k", true},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        char text[256];
        snprintf(text, sizeof text, "kind: Configuration\nspec:\n  api: %s\n", rows[i].api);
        api_world *a = api_open(&plain, "", text, 0);
        if (!find(a->api.router, rows[i].method, rows[i].path) == rows[i].is_open)
            fail_msg("%s: %s %s", rows[i].api, rows[i].method, rows[i].path);
        api_close(a);
    }
}

static void with_invoke_closed_nothing_falls_through_to_it(void **state)
{
    static const char *const headers[] = {"dapr-app-id", "callee", NULL};
    api_world *a = api_open(&plain, "",
                            "kind: Configuration\n"
                            "spec: {api: {denied: [{name: invoke, version: v1}]}}\n",
                            0);
    web_call c;
    (void)state;
    api_call(a, &c, "GET", "/anything", headers, NULL);
    assert_int_equal(c.call.head.status, 404);
    assert_true(outr_str_search(outr_buf_view(&c.taker.body), OUTR_STR("404 page not found")) >= 0);
    web_call_done(&c);
    api_close(a);
}

/* ---- the table of errors ---------------------------------------------------------------------- */

static int grpc_code(const char *name)
{
    for (int code = 0; code <= 16; code++) {
        if (strcmp(outr_code_name((outr_code)code), name) == 0)
            return code;
    }
    return -1;
}

static bool has_reason(const char *code, long http, int grpc, const char *category)
{
    for (int r = 1; r < OUTR_REASON_COUNT; r++) {
        const outr_reason_info *info = outr_reason_find((outr_reason)r);
        if (strcmp(info->error_code, code) == 0 && (http < 0 || info->http_status == http) &&
            (grpc < 0 || info->grpc_status == grpc) && strcmp(info->category, category) == 0)
            return true;
    }
    return false;
}

static void every_error_code_of_the_contract_is_in_the_table(void **state)
{
    table t;
    size_t codes = 0;
    (void)state;
    if (!table_open(&t, TABLE_CONTRACT("error-codes.csv")))
        skip();
    for (char *c[8]; table_next(&t, c, 7) >= 6;) {
        uint64_t http;
        if ((strncmp(c[0], "ERR", 3) && strncmp(c[0], "DAPR", 4)) ||
            (c[6] && strstr(c[6], "after v1.18")))
            continue;
        bool has_http = outr_str_to_u64(outr_str_from(c[1]), 599, &http);
        codes++;
        if (!has_reason(c[0], has_http ? (long)http : -1, grpc_code(c[2]), c[3]))
            fail_msg("%s %s %s %s is not in the table", c[0], c[1], c[2], c[3]);
    }
    assert_true(codes > 90);
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_of_the_contract_is_there_with_its_methods_and_group),
        cmocka_unit_test(a_wrong_method_is_no_route),
        cmocka_unit_test(the_public_port_serves_health_and_metadata_alone),
        cmocka_unit_test(lists_of_the_configuration_open_and_close_routes),
        cmocka_unit_test(with_invoke_closed_nothing_falls_through_to_it),
        cmocka_unit_test(every_error_code_of_the_contract_is_in_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
