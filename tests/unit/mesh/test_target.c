#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/internal.h"

static const outr_endpoint_spec endpoints[] = {
    {.base = {.name = OUTR_STR("github")}, .base_url = OUTR_STR("https://api.github.test/v3")},
    {.base = {.name = OUTR_STR("dotted.name")}, .base_url = OUTR_STR("http://d.test")},
};
static const outr_snapshot snapshot = {.endpoints = endpoints, .endpoint_count = 2};
static const outr_settings settings = {.app_id = OUTR_STR("me"), .namespace_ = OUTR_STR("prod")};

/* ---- who is meant --------------------------------------------------------------------------- */

static void every_form_of_a_target_is_understood(void **state)
{
    static const struct {
        const char *text;
        int kind;
        const char *app_id, *namespace_, *url;
    } rows[] = {
        {"orders", OUTR__APP, "orders", "prod", ""},
        {"orders.test", OUTR__APP, "orders", "test", ""},
        {"Orders_1-x", OUTR__APP, "Orders_1-x", "prod", ""},
        {"http://10.0.0.1:80", OUTR__URL, "", "", "http://10.0.0.1:80"},
        {"HTTPS://a.b.c/d", OUTR__URL, "", "", "HTTPS://a.b.c/d"},
        {"github", OUTR__ENDPOINT, "", "", "https://api.github.test/v3"},
        {"dotted.name", OUTR__ENDPOINT, "", "", "http://d.test"},
        {"GitHub", OUTR__APP, "GitHub", "prod", ""},
        {"https:/one-slash", OUTR__APP, "https:/one-slash", "prod", ""},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr__target t;
        outr_err err;
        assert_int_equal(
            outr__target_parse(&t, outr_str_from(rows[i].text), &snapshot, &settings, &err), 0);
        assert_int_equal(t.kind, rows[i].kind);
        if (t.kind == OUTR__APP) {
            assert_true(outr_str_is(t.app_id, rows[i].app_id));
            assert_true(outr_str_is(t.namespace_, rows[i].namespace_));
        } else {
            assert_true(outr_str_is(t.base_url, rows[i].url));
            assert_int_equal(t.endpoint != NULL, t.kind == OUTR__ENDPOINT);
        }
    }
}

static void a_target_that_names_nobody_is_refused(void **state)
{
    static const char *const texts[] = {"", ".", ".ns", "a.b.c", "a..b", "a.b."};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        outr__target t = {.app_id = OUTR_STR("untouched")};
        outr_err err;
        if (outr__target_parse(&t, outr_str_from(texts[i]), &snapshot, &settings, &err) !=
            OUTR_INVALID_ARGUMENT)
            fail_msg("\"%s\" was taken", texts[i]);
        assert_true(outr_str_is(t.app_id, "untouched"));
    }
}

/* ---- which path ------------------------------------------------------------------------------- */

static void a_method_is_cleaned_and_written_as_a_request_target(void **state)
{
    static const struct {
        const char *method, *query, *target;
    } rows[] = {
        {"orders", "", "/orders"},
        {"", "", "/"},
        {"", "x=1", "/?x=1"},
        {"a/b/c", "q=%20+", "/a/b/c?q=%20+"},
        {"a//b", "", "/a/b"},
        {"a/./b", "", "/a/b"},
        {"a/../b", "", "/b"},
        {"../../etc/passwd", "", "/etc/passwd"},
        {"a/..", "", "/"},
        {"/a", "", "/a"},
        {"a/", "", "/a"},
        {"with space", "", "/with%20space"},
        {"%41%2F%2e%2E", "", "/%41%2F%2e%2E"},
        {"a&b=c;d,e:f@g!$'()*+", "", "/a&b=c;d,e:f@g!$'()*+"},
        {"\xc3\xa4", "", "/%C3%A4"},
        {"a\"<>\\^`{|}", "", "/a%22%3C%3E%5C%5E%60%7B%7C%7D"},
    };
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_str out;
        outr_err err;
        assert_int_equal(outr__method_target(&out, arena, outr_str_from(rows[i].method),
                                             outr_str_from(rows[i].query), &err),
                         0);
        if (!outr_str_is(out, rows[i].target))
            fail_msg("%s: " OUTR_FMT, rows[i].method, OUTR_ARG(out));
    }
    outr_arena_free(arena);
}

static void what_could_be_read_in_two_ways_is_refused(void **state)
{
    static const outr_str methods[] = {
        OUTR_STR("a#b"),  OUTR_STR("a?b"),  OUTR_STR("a\0b"), OUTR_STR("a\nb"), OUTR_STR("a\rb"),
        OUTR_STR("\x7f"), OUTR_STR("\x1f"), OUTR_STR("a\tb"), OUTR_STR("%"),    OUTR_STR("a%"),
        OUTR_STR("%4"),   OUTR_STR("%g1"),  OUTR_STR("%1g"),  OUTR_STR("%%41"), OUTR_STR("100%s"),
    };
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(methods); i++) {
        outr_str out;
        outr_err err;
        /* a bad escape is what the app's URL cannot be made of; the others no method may have */
        outr_code expected =
            outr_str_find(methods[i], '%') >= 0 ? OUTR_INTERNAL : OUTR_INVALID_ARGUMENT;
        if (outr__method_target(&out, arena, methods[i], OUTR_STR_NONE, &err) != expected)
            fail_msg("method %zu was taken as " OUTR_FMT, i, OUTR_ARG(out));
    }
    outr_arena_free(arena);
}

static void what_is_judged_is_what_is_sent(void **state)
{
    /* Of any bytes: the target begins with one slash, holds no dot segment, no space, no control. */
    outr_arena *arena = outr_arena_new(64 * OUTR_MIB);
    outr_rand rand;
    static const char letters[] = "a./%2Fe#? \\\n";
    (void)state;
    outr_rand_seed(&rand, 5);
    for (int i = 0; i < 20000; i++) {
        char method[12];
        size_t n = outr_rand_below(&rand, sizeof method);
        for (size_t k = 0; k < n; k++)
            method[k] = letters[outr_rand_below(&rand, sizeof letters - 1)];
        outr_str out;
        outr_err err;
        if (outr__method_target(&out, arena, outr_str_of(method, n), OUTR_STR_NONE, &err))
            continue;
        assert_true(out.n > 0 && out.p[0] == '/');
        assert_true(outr_str_search(out, OUTR_STR("//")) < 0);
        assert_true(outr_str_search(out, OUTR_STR("/./")) < 0);
        assert_true(outr_str_search(out, OUTR_STR("/../")) < 0);
        assert_false(outr_str_ends(out, OUTR_STR("/..")) || outr_str_ends(out, OUTR_STR("/.")));
        for (size_t k = 0; k < out.n; k++)
            assert_true((unsigned char)out.p[k] > 0x20 && out.p[k] != '#' && out.p[k] != '?' &&
                        out.p[k] != '\\');
    }
    outr_arena_free(arena);
}

/* ---- verbs ------------------------------------------------------------------------------------ */

static void verbs_are_spelled_as_the_reference_spells_them(void **state)
{
    static const struct {
        const char *given, *sent;
        bool is_idempotent;
    } rows[] = {
        {"GET", "GET", true},        {"get", "GET", true},         {"Head", "HEAD", true},
        {"POST", "POST", false},     {"PUT", "PUT", true},         {"DELETE", "DELETE", true},
        {"PATCH", "PATCH", false},   {"OPTIONS", "OPTIONS", true}, {"TRACE", "TRACE", true},
        {"PROPFIND", "POST", false}, {"", "POST", false},
    };
    outr_arena *arena = outr_arena_new(OUTR_KIB);
    outr_headers headers;
    outr_headers_init(&headers, arena);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_str verb;
        outr_err err;
        assert_int_equal(outr__verb(&verb, outr_str_from(rows[i].given), &err), 0);
        assert_true(outr_str_is(verb, rows[i].sent));
        assert_int_equal(outr__is_idempotent(verb, &headers), rows[i].is_idempotent);
    }
    assert_false(outr__is_idempotent(OUTR_STR("NONE"), &headers));
    outr_headers_add(&headers, OUTR_STR("Idempotency-Key"), OUTR_STR("k"));
    assert_true(outr__is_idempotent(OUTR_STR("POST"), &headers));
    outr_arena_free(arena);
    outr_str verb;
    outr_err err;
    assert_int_not_equal(outr__verb(&verb, OUTR_STR("CONNECT"), &err), 0);
    assert_int_not_equal(outr__verb(&verb, OUTR_STR("connect"), &err), 0);
    assert_int_not_equal(outr__verb(&verb, OUTR_STR("NONE"), &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_a_target_is_understood),
        cmocka_unit_test(a_target_that_names_nobody_is_refused),
        cmocka_unit_test(a_method_is_cleaned_and_written_as_a_request_target),
        cmocka_unit_test(what_could_be_read_in_two_ways_is_refused),
        cmocka_unit_test(what_is_judged_is_what_is_sent),
        cmocka_unit_test(verbs_are_spelled_as_the_reference_spells_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
