#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "http/router.h"

static const char *find(const outr_router *router, const char *method, const char *path,
                        outr_route_match *match)
{
    return outr_router_find(router, outr_str_from(method), outr_str_from(path), match)
               ? match->route
               : NULL;
}

static void parameters_are_cut_out_still_encoded(void **state)
{
    outr_router *r = outr_router_new();
    outr_route_match m;
    (void)state;
    outr_router_add(r, "GET|DELETE", "/v1.0/state/{store}/{key}", "key");
    assert_string_equal(find(r, "GET", "/v1.0/state/a%2Fb/k%20", &m), "key");
    assert_int_equal(m.param_count, 2);
    assert_true(outr_str_is(m.params[0], "a%2Fb"));
    assert_true(outr_str_is(m.params[1], "k%20"));
    assert_string_equal(find(r, "DELETE", "/v1.0/state/a/b", &m), "key");
    outr_router_free(r);
}

static void other_methods_and_lengths_do_not_match(void **state)
{
    outr_router *r = outr_router_new();
    outr_route_match m;
    (void)state;
    outr_router_add(r, "GET", "/v1.0/state/{store}/{key}", "key");
    assert_null(find(r, "POST", "/v1.0/state/a/b", &m));
    assert_null(find(r, "get", "/v1.0/state/a/b", &m));
    assert_null(find(r, "GET", "/v1.0/state/a", &m));
    assert_null(find(r, "GET", "/v1.0/state/a/b/c", &m));
    assert_null(find(r, "GET", "/v1.0/state//b", &m));
    assert_null(find(r, "GET", "/v1.0/state/a/", &m));
    assert_null(find(r, "GET", "", &m));
    assert_null(find(r, "GET", "v1.0/state/a/b", &m));
    assert_null(find(r, "GET", "*", &m));
    outr_router_free(r);
}

static void literals_win_over_parameters_and_long_over_short(void **state)
{
    outr_router *r = outr_router_new();
    outr_route_match m;
    (void)state;
    outr_router_add(r, "*", "/v1.0/invoke/{id}/method/{path...}", "method");
    outr_router_add(r, "*", "/v1.0/{any}/{rest...}", "any");
    outr_router_add(r, "POST", "/v1.0/state/{store}/bulk", "bulk");
    outr_router_add(r, "POST", "/v1.0/state/{store}/{key}", "key");
    assert_string_equal(find(r, "BREW", "/v1.0/invoke/a/method/x/y//z", &m), "method");
    assert_true(outr_str_is(m.params[0], "a"));
    assert_true(outr_str_is(m.params[1], "x/y//z"));
    assert_string_equal(find(r, "POST", "/v1.0/state/s/bulk", &m), "bulk");
    assert_string_equal(find(r, "POST", "/v1.0/state/s/other", &m), "key");
    assert_string_equal(find(r, "GET", "/v1.0/state/s/other", &m), "any");
    outr_router_free(r);
}

static void a_path_of_many_segments_is_harmless(void **state)
{
    outr_router *r = outr_router_new();
    outr_route_match m;
    char path[4096];
    (void)state;
    outr_router_add(r, "GET", "/a/{rest...}", "rest");
    memset(path, '/', sizeof path);
    path[sizeof path - 1] = 0;
    assert_null(find(r, "GET", path, &m));
    path[1] = 'a';
    path[3] = 'b';
    assert_string_equal(find(r, "GET", path, &m), "rest");
    outr_router_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_cut_out_still_encoded),
        cmocka_unit_test(other_methods_and_lengths_do_not_match),
        cmocka_unit_test(literals_win_over_parameters_and_long_over_short),
        cmocka_unit_test(a_path_of_many_segments_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
