#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/json.h"

static outr_arena *arena;

static int open_arena(void **state)
{
    (void)state;
    arena = outr_arena_new(OUTR_MIB);
    return 0;
}

static int close_arena(void **state)
{
    (void)state;
    outr_arena_free(arena);
    return 0;
}

static outr_json *parse(const char *text)
{
    outr_json *root;
    outr_err err;
    return outr_json_parse(&root, arena, outr_str_from(text), &err) ? NULL : root;
}

static void assert_written(const char *text, unsigned style, const char *expected)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
    outr_json *root = parse(text);
    assert_non_null(root);
    outr_json_write(&out, root, style);
    outr_buf_char(&out, 0);
    assert_string_equal(out.p, expected);
}

static void what_is_no_json_is_refused(void **state)
{
    static const char *const bad[] = {
        "",    " ",        "{",         "}",       "[1,]",    "{\"a\":1,}", "{a:1}", "[1 2]",
        "01",  "1.",       ".5",        "+1",      "1e",      "-",          "tru",   "nul",
        "\"a", "\"\\x\"",  "\"\\u12\"", "\"\n\"",  "[1]x",    "{\"a\" 1}",  "'a'",   "[",
        "NaN", "Infinity", "[1,,2]",    "{\"a\"}", "// c\n1", "\"\\ud800",  "\xff",  "\"\x01\"",
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        if (parse(bad[i]))
            fail_msg("accepted: %s", bad[i]);
    }
}

static void an_error_says_where(void **state)
{
    outr_json *root;
    outr_err err;
    (void)state;
    assert_int_not_equal(outr_json_parse(&root, arena, outr_str_from("[1,\n x]"), &err), OUTR_OK);
    assert_non_null(strstr(err.text, "byte"));
}

static void numbers_keep_their_text(void **state)
{
    (void)state;
    assert_written("[1.0,1e2,-0,123456789012345678901234567890]", OUTR_JSON_PLAIN,
                   "[1.0,1e2,-0,123456789012345678901234567890]");
}

/* encoding/json: %e below 1e-6 and from 1e21 on, else plain. */
static void as_float64_they_are_written_as_go_does(void **state)
{
    (void)state;
    assert_written("[1.0,100,1e2,0.000001,0.0000001,1e20,1e21,123456789,-0.5,1.5e300]",
                   OUTR_JSON_FLOAT64,
                   "[1,100,100,0.000001,1e-7,100000000000000000000,1e+21,123456789,-0.5,1.5e+300]");
    /* Beyond 2^53 zeros follow the shortest digits, whatever the digits of the value are. */
    assert_written("[123456789012345678901,9007199254740993.0,-123456789012345678]",
                   OUTR_JSON_FLOAT64,
                   "[123456789012345680000,9007199254740992,-123456789012345680]");
    assert_written(
        "[19.99,-0.10,0.00,-0,999999999999999,9999999999999999,0.00000123,1.2345678901234567]",
        OUTR_JSON_FLOAT64,
        "[19.99,-0.1,0,-0,999999999999999,10000000000000000,0.00000123,"
        "1.2345678901234567]");
}

static void keys_sort_and_the_last_duplicate_wins(void **state)
{
    (void)state;
    assert_written("{\"b\":1,\"a\":{\"z\":1,\"y\":2},\"b\":3}", OUTR_JSON_SORTED,
                   "{\"a\":{\"y\":2,\"z\":1},\"b\":3}");
    assert_written("{\"b\":1,\"a\":2}", OUTR_JSON_PLAIN, "{\"b\":1,\"a\":2}");
}

static void text_is_escaped_as_go_does(void **state)
{
    (void)state;
    assert_written("\"<a>&\\u2028\\\"\\\\\\/\\n\\t\\u0001\\u00e9\"", OUTR_JSON_PLAIN,
                   "\"\\u003ca\\u003e\\u0026\\u2028\\\"\\\\/\\n\\t\\u0001\xc3\xa9\"");
    assert_written("\"\\ud83d\\ude00\"", OUTR_JSON_PLAIN, "\"\xf0\x9f\x98\x80\"");
    assert_written("\"\\ud83dx\"", OUTR_JSON_PLAIN, "\"\xef\xbf\xbdx\""); /* half a pair */
}

static void members_are_found(void **state)
{
    outr_json *root =
        parse("{\"Key\":\"v\",\"n\":5,\"key\":\"w\",\"t\":true,\"big\":1e30,\"f\":1.5}");
    int64_t n;
    (void)state;
    assert_non_null(root);
    assert_true(outr_str_is(outr_json_text(root, "key"), "w"));
    assert_true(outr_str_is(outr_json_ifind(root, "KEY")->text, "v") ||
                outr_str_is(outr_json_ifind(root, "KEY")->text, "w"));
    assert_true(outr_str_is(outr_json_itext(root, "kEY"), "v") ||
                outr_str_is(outr_json_itext(root, "kEY"), "w"));
    assert_null(outr_json_itext(root, "N").p);
    assert_null(outr_json_find(root, "absent"));
    assert_null(outr_json_text(root, "n").p);
    assert_true(outr_json_ibool(root, "t", false));
    assert_true(outr_json_ibool(root, "absent", true));
    assert_true(outr_json_i64(outr_json_find(root, "n"), &n) && n == 5);
    assert_false(outr_json_i64(outr_json_find(root, "f"), &n));
    assert_false(outr_json_i64(outr_json_find(root, "big"), &n));
}

static void nul_in_a_text_is_a_byte_like_any(void **state)
{
    outr_json *root = parse("{\"k\":\"a\\u0000b\"}");
    (void)state;
    assert_non_null(root);
    assert_int_equal(outr_json_text(root, "k").n, 3);
}

static void depth_is_limited(void **state)
{
    char text[2 * (OUTR_JSON_DEPTH_MAX + 1) + 1];
    (void)state;
    for (int depth = OUTR_JSON_DEPTH_MAX; depth <= OUTR_JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = 0;
        assert_int_equal(parse(text) != NULL, depth <= OUTR_JSON_DEPTH_MAX);
    }
}

static void what_does_not_fit_the_arena_is_an_error(void **state)
{
    outr_arena *small = outr_arena_new(16 * OUTR_KIB);
    char text[4001];
    outr_json *root;
    outr_err err;
    (void)state;
    memset(text, ',', sizeof text);
    text[0] = '[';
    for (size_t i = 1; i < 4000; i += 2)
        text[i] = '1';
    text[3999] = '1';
    text[4000] = ']';
    assert_int_equal(outr_json_parse(&root, small, outr_str_of(text, 4001), &err),
                     OUTR_RESOURCE_EXHAUSTED);
    outr_arena_free(small);
}

static void a_tree_can_be_built(void **state)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_KIB);
    outr_json *root = outr_json_new(arena, OUTR_JSON_OBJECT),
              *list = outr_json_new(arena, OUTR_JSON_ARRAY);
    (void)state;
    outr_json_put(root, OUTR_STR("a"), outr_json_number(arena, 1));
    outr_json_put(root, OUTR_STR("l"), list);
    outr_json_put(root, OUTR_STR("a"), outr_json_string(arena, OUTR_STR("new")));
    outr_json_push(list, outr_json_number(arena, -5));
    outr_json_write(&out, root, OUTR_JSON_SORTED);
    assert_true(outr_str_is(outr_buf_view(&out), "{\"a\":\"new\",\"l\":[-5]}"));
}

static void pairs_are_an_object_of_strings(void **state)
{
    const outr_kv items[] = {{OUTR_STR("b\""), OUTR_STR("<1>")}, {OUTR_STR("a"), OUTR_STR("")}};
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_KIB);
    (void)state;
    outr_json_quote_kvs(&out, (outr_kvs){0});
    outr_json_quote_kvs(&out, (outr_kvs){items, OUTR_LEN(items)});
    assert_true(outr_str_is(outr_buf_view(&out),
                            "{}{\"b\\\"\":\"\\u003c1\\u003e\",\"a\":\"\"}"));
}

#define WITH_ARENA(f) cmocka_unit_test_setup_teardown(f, open_arena, close_arena)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ARENA(what_is_no_json_is_refused),
        WITH_ARENA(an_error_says_where),
        WITH_ARENA(numbers_keep_their_text),
        WITH_ARENA(as_float64_they_are_written_as_go_does),
        WITH_ARENA(keys_sort_and_the_last_duplicate_wins),
        WITH_ARENA(text_is_escaped_as_go_does),
        WITH_ARENA(members_are_found),
        WITH_ARENA(nul_in_a_text_is_a_byte_like_any),
        WITH_ARENA(depth_is_limited),
        WITH_ARENA(what_does_not_fit_the_arena_is_an_error),
        WITH_ARENA(a_tree_can_be_built),
        WITH_ARENA(pairs_are_an_object_of_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
