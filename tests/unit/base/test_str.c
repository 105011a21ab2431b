#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/encode.h"

static outr_str str(const char *z)
{
    return outr_str_from(z);
}

static void numbers_are_whole_and_in_range(void **state)
{
    static const char *const bad[] = {"",
                                      " 1",
                                      "1 ",
                                      "+",
                                      "-",
                                      "0x10",
                                      "1e3",
                                      "1.",
                                      "1_",
                                      "１",
                                      "\0",
                                      "1\n2",
                                      "9223372036854775808"};
    int64_t n = 7;
    uint64_t u = 7;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        assert_false(outr_str_to_i64(str(bad[i]), INT64_MIN, INT64_MAX, &n));
        assert_int_equal(n, 7);
    }
    assert_true(outr_str_to_i64(str("-9223372036854775808"), INT64_MIN, INT64_MAX, &n));
    assert_true(n == INT64_MIN);
    assert_true(outr_str_to_i64(str("9223372036854775807"), INT64_MIN, INT64_MAX, &n));
    assert_true(n == INT64_MAX);
    assert_true(outr_str_to_i64(str("10"), 1, 10, &n));
    assert_false(outr_str_to_i64(str("11"), 1, 10, &n));
    assert_false(outr_str_to_i64(str("0"), 1, 10, &n));
    assert_true(outr_str_to_u64(str("18446744073709551615"), UINT64_MAX, &u));
    assert_true(u == UINT64_MAX);
    assert_false(outr_str_to_u64(str("18446744073709551616"), UINT64_MAX, &u));
    assert_false(outr_str_to_u64(str("-1"), UINT64_MAX, &u));
}

static void decimal_writes_what_is_read_back(void **state)
{
    static const uint64_t values[] = {0, 9, 10, 4294967296, UINT64_MAX};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(values); i++) {
        char text[20];
        uint64_t back;
        assert_true(outr_str_to_u64(outr_str_decimal(text, values[i]), UINT64_MAX, &back));
        assert_true(back == values[i]);
    }
}

/* Go's time.ParseDuration. */
static void durations(void **state)
{
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {
        {"0", 0},
        {"1s", 1000000000},
        {"1h2m3.5s", 3723500000000},
        {"-1.5h", -5400000000000},
        {"100ms", 100000000},
        {"1us", 1000},
        {"1ns", 1},
        {".5s", 500000000},
        {"+5s", 5000000000},
    };
    static const char *const bad[] = {"",    "1",           "s",   "1x", "1h-2m",
                                      "1 s", "9999999999h", "1ss", "."};
    int64_t ns;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(good); i++) {
        assert_true(outr_str_to_duration(str(good[i].text), &ns));
        assert_true(ns == good[i].ns);
    }
    for (size_t i = 0; i < OUTR_LEN(bad); i++)
        assert_false(outr_str_to_duration(str(bad[i]), &ns));
}

/* Kubernetes resource.Quantity. */
static void quantities(void **state)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } good[] = {
        {"4Mi", 4194304}, {"10k", 10000},  {"1.5Gi", 1610612736}, {"-1", -1}, {"0", 0},
        {"1Ki", 1024},    {"2M", 2000000}, {"1e3", 1000},         {"7", 7},
    };
    static const char *const bad[] = {"", "Mi", "4mi", "4MiB", "1 Mi", "x", "99999999999Ti"};
    int64_t n;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(good); i++) {
        assert_true(outr_str_to_quantity(str(good[i].text), &n));
        assert_true(n == good[i].bytes);
    }
    for (size_t i = 0; i < OUTR_LEN(bad); i++)
        assert_false(outr_str_to_quantity(str(bad[i]), &n));
}

static void booleans_are_those_of_go_and_dapr(void **state)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True", "y", "yes", "on"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False", "n", "no", "off"};
    static const char *const bad[] = {"", "2", "truee", " true", "maybe"};
    bool b;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(yes); i++)
        assert_true(outr_str_to_bool(str(yes[i]), &b) && b);
    for (size_t i = 0; i < OUTR_LEN(no); i++)
        assert_true(outr_str_to_bool(str(no[i]), &b) && !b);
    for (size_t i = 0; i < OUTR_LEN(bad); i++)
        assert_false(outr_str_to_bool(str(bad[i]), &b));
}

static void utf8_is_shortest_form_without_surrogates(void **state)
{
    static const char *const good[] = {
        "", "a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {
        "\x80", "\xc0\x80",     "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xc3", "\xf0\x9f\x98", "\xff"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(good); i++)
        assert_true(outr_str_is_utf8(str(good[i])));
    for (size_t i = 0; i < OUTR_LEN(bad); i++)
        assert_false(outr_str_is_utf8(str(bad[i])));
}

static void cutting_finding_and_trimming(void **state)
{
    outr_str head, rest = outr_str_cut(str("a=b=c"), '=', &head);
    (void)state;
    assert_true(outr_str_is(head, "a") && outr_str_is(rest, "b=c"));
    rest = outr_str_cut(str("abc"), '=', &head);
    assert_true(outr_str_is(head, "abc") && rest.p == NULL);
    rest = outr_str_cut(str("abc="), '=', &head);
    assert_true(outr_str_is(head, "abc") && rest.p != NULL && rest.n == 0);
    assert_int_equal(outr_str_search(str("a||b"), str("||")), 1);
    assert_int_equal(outr_str_search(str("a|b"), str("||")), -1);
    assert_int_equal(outr_str_find(OUTR_STR_NONE, 'x'), -1);
    assert_true(outr_str_is(outr_str_trim(str(" \t a b \r\n")), "a b"));
    assert_int_equal(outr_str_trim(str("   ")).n, 0);
    assert_int_equal(outr_str_skip(str("ab"), 5).n, 0);
    assert_true(outr_str_ieq(str("Content-LENGTH"), str("content-length")));
    assert_false(outr_str_ieq(str("a"), str("ab")));
    assert_false(outr_str_ieq(str("@"), str("`"))); /* differ in bit 5 only, and are no letters */
    assert_true(outr_str_eq(OUTR_STR_NONE, str("")));
}

static void join_keeps_every_byte(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_KIB);
    outr_str joined = outr_arena_join(arena, outr_str_of("a\0b", 3), OUTR_STR_NONE, str("c"));
    (void)state;
    assert_int_equal(joined.n, 4);
    assert_memory_equal(joined.p, "a\0bc", 5);
    outr_arena_free(arena);
}

static void arena_says_no_to_what_a_peer_asks_and_not_to_itself(void **state)
{
    outr_arena *arena = outr_arena_new(4096);
    (void)state;
    assert_null(outr_arena_try(arena, 4097));
    assert_null(outr_arena_try(arena, SIZE_MAX));
    assert_non_null(outr_arena_try(arena, 4000));
    assert_null(outr_arena_try(arena, 200));
    assert_non_null(outr_arena_alloc(arena, 200)); /* what follows from what was let in */
    outr_arena_reset(arena);
    assert_int_equal(outr_arena_used(arena), 0);
    const char *p = outr_arena_try(arena, 3000);
    for (size_t i = 0; i < 3000; i++)
        assert_int_equal(p[i], 0);
    outr_arena_free(arena);
}

static void append_number(void *ctx)
{
    char **at = ctx;
    *(*at)++ = 'x';
}

static void arena_runs_what_was_deferred(void **state)
{
    char text[4] = "", *at = text;
    outr_arena *arena = outr_arena_new(4096);
    (void)state;
    outr_arena_defer(arena, append_number, &at);
    outr_arena_reset(arena);
    assert_string_equal(text, "x");
    outr_arena_defer(arena, append_number, &at);
    outr_arena_free(arena);
    assert_string_equal(text, "xx");
}

static void base64_in_both_alphabets_with_and_without_padding(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_str out;
    (void)state;
    assert_true(outr_str_is(outr_base64_encode(arena, str("f")), "Zg=="));
    assert_true(outr_str_is(outr_base64_encode(arena, str("foobar")), "Zm9vYmFy"));
    assert_true(outr_base64_decode(arena, str("Zg"), &out) && outr_str_is(out, "f"));
    assert_true(outr_base64_decode(arena, str("_-8="), &out) && out.n == 2);
    assert_true(outr_base64_decode(arena, str("/+8="), &out) && out.n == 2);
    assert_false(outr_base64_decode(arena, str("Z"), &out));
    assert_false(outr_base64_decode(arena, str("Zg=a"), &out));
    assert_false(outr_base64_decode(arena, str("Z g="), &out));
    outr_arena_free(arena);
}

static void percent_encoding(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_str out;
    (void)state;
    assert_true(outr_percent_decode(arena, str("a%20b+c"), false, &out) &&
                outr_str_is(out, "a b+c"));
    assert_true(outr_percent_decode(arena, str("a+b"), true, &out) && outr_str_is(out, "a b"));
    assert_true(outr_percent_decode(arena, str("%00"), false, &out) && out.n == 1 && out.p[0] == 0);
    assert_false(outr_percent_decode(arena, str("%"), false, &out));
    assert_false(outr_percent_decode(arena, str("%2"), false, &out));
    assert_false(outr_percent_decode(arena, str("%zz"), false, &out));
    assert_true(outr_str_is(outr_percent_encode(arena, str("a/b c%"), "/"), "a/b%20c%25"));
    outr_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_whole_and_in_range),
        cmocka_unit_test(decimal_writes_what_is_read_back),
        cmocka_unit_test(durations),
        cmocka_unit_test(quantities),
        cmocka_unit_test(booleans_are_those_of_go_and_dapr),
        cmocka_unit_test(utf8_is_shortest_form_without_surrogates),
        cmocka_unit_test(cutting_finding_and_trimming),
        cmocka_unit_test(join_keeps_every_byte),
        cmocka_unit_test(arena_says_no_to_what_a_peer_asks_and_not_to_itself),
        cmocka_unit_test(arena_runs_what_was_deferred),
        cmocka_unit_test(base64_in_both_alphabets_with_and_without_padding),
        cmocka_unit_test(percent_encoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
