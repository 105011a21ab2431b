#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "api/http/cors.h"

/* What the Fetch standard, section 3.2, lets a browser see. */

typedef struct row {
    const char *origins, *method, *origin, *asked, *headers;
    bool is_preflight;
    const char *allow_origin, *allow_methods, *allow_headers;
} row;

static void apply(const row *r)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_settings s = {0};
    outr_http_request req = {.method = outr_str_from(r->method)};
    outr_headers out;
    for (outr_str rest = outr_str_from(r->origins), origin; rest.n > 0;) {
        rest = outr_str_cut(rest, ',', &origin);
        s.allowed_origins.items[s.allowed_origins.count++] = origin;
    }
    outr_headers_init(&req.headers, arena);
    outr_headers_init(&out, arena);
    if (r->origin)
        outr_headers_add(&req.headers, OUTR_STR("Origin"), outr_str_from(r->origin));
    if (r->asked)
        outr_headers_add(&req.headers, OUTR_STR("Access-Control-Request-Method"),
                         outr_str_from(r->asked));
    if (r->headers)
        outr_headers_add(&req.headers, OUTR_STR("Access-Control-Request-Headers"),
                         outr_str_from(r->headers));
    bool is_preflight = outr_cors_apply(&s, &req, &out);
    const char *const names[] = {"Access-Control-Allow-Origin", "Access-Control-Allow-Methods",
                                 "Access-Control-Allow-Headers"};
    const char *const wanted[] = {r->allow_origin, r->allow_methods, r->allow_headers};
    if (is_preflight != r->is_preflight)
        fail_msg("%s from %s: preflight %d", r->method, r->origin, is_preflight);
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        outr_str got = outr_headers_get(&out, names[i]);
        if (wanted[i] ? !outr_str_is(got, wanted[i]) : got.p != NULL)
            fail_msg("%s from %s: %s is \"" OUTR_FMT "\"", r->method, r->origin, names[i],
                     OUTR_ARG(got));
    }
    assert_false(outr_headers_has(&out, "Access-Control-Allow-Credentials"));
    assert_int_equal(outr_headers_has(&out, "Vary"), s.allowed_origins.count > 0);
    outr_arena_free(arena);
}

static void without_origins_nothing_is_added_and_options_is_an_ordinary_request(void **state)
{
    (void)state;
    apply(&(row){"", "GET", "http://a", NULL, NULL, false, NULL, NULL, NULL});
    apply(&(row){"", "OPTIONS", "http://a", "PUT", NULL, false, NULL, NULL, NULL});
}

static void an_allowed_origin_is_named_another_is_not(void **state)
{
    static const row rows[] = {
        {"http://a,http://b", "GET", "http://b", NULL, NULL, false, "http://b", NULL, NULL},
        {"http://a", "GET", "HTTP://A", NULL, NULL, false, "HTTP://A", NULL, NULL},
        {"http://a", "GET", "http://evil", NULL, NULL, false, NULL, NULL, NULL},
        {"http://a", "GET", "http://a.evil", NULL, NULL, false, NULL, NULL, NULL},
        {"http://a", "GET", "null", NULL, NULL, false, NULL, NULL, NULL},
        {"http://a", "GET", "", NULL, NULL, false, NULL, NULL, NULL},
        {"http://a", "GET", NULL, NULL, NULL, false, NULL, NULL, NULL},
        {"*", "GET", "http://any", NULL, NULL, false, "*", NULL, NULL},
        {"*", "GET", NULL, NULL, NULL, false, NULL, NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++)
        apply(&rows[i]);
}

static void a_preflight_is_answered_by_itself(void **state)
{
    static const row rows[] = {
        {"http://a", "OPTIONS", "http://a", "PUT", "x-one, x-two", true, "http://a", "PUT",
         "x-one, x-two"},
        {"http://a", "OPTIONS", "http://a", "PUT", NULL, true, "http://a", "PUT", NULL},
        {"http://a", "OPTIONS", "http://evil", "PUT", "x", true, NULL, NULL, NULL},
        {"http://a", "OPTIONS", "http://a", "PROPFIND", NULL, true, NULL, NULL, NULL},
        {"http://a", "OPTIONS", "http://a", NULL, NULL, false, "http://a", NULL, NULL},
        {"*", "OPTIONS", "http://any", "PROPFIND", NULL, true, "*", "PROPFIND", NULL},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++)
        apply(&rows[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_origins_nothing_is_added_and_options_is_an_ordinary_request),
        cmocka_unit_test(an_allowed_origin_is_named_another_is_not),
        cmocka_unit_test(a_preflight_is_answered_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
