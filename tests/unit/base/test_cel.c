#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/cel.h"

static outr_arena *arena;
static outr_err err;
static outr_json *event;

static const char event_text[] =
    "{\"type\":\"order.new\",\"n\":5,\"f\":1.5,\"ok\":true,\"none\":null,\"tags\":[\"a\",\"b\"],"
    "\"data\":{\"amount\":100,\"name\":\"Ann\"},\"dash-ed\":1,\"empty\":[]}";

static int open_arena(void **state)
{
    (void)state;
    arena = outr_arena_new(4 * OUTR_MIB);
    return outr_json_parse(&event, arena, outr_str_from(event_text), &err);
}

static int close_arena(void **state)
{
    (void)state;
    outr_arena_free(arena);
    return 0;
}

/* 1, 0, or -1: does not compile, -2: cannot be evaluated. */
static int test(const char *text)
{
    outr_cel *cel;
    bool out;
    if (outr_cel_compile(&cel, arena, outr_str_from(text), &err))
        return -1;
    return outr_cel_test(cel, arena, "event", event, &out, &err) ? -2 : out;
}

static void assert_all(const char *const *texts, size_t count, int expected)
{
    for (size_t i = 0; i < count; i++) {
        int got = test(texts[i]);
        if (got != expected)
            fail_msg("%s: %d, not %d %s", texts[i], got, expected, got < 0 ? err.text : "");
    }
}

static void what_holds(void **state)
{
    static const char *const texts[] = {
        "true",
        "event.type == \"order.new\"",
        "event.type == 'order.new' && event.n > 4",
        "event.n + 2 * 3 == 11",
        "(event.n + 2) * 3 == 21",
        "event.data.amount >= 100 || event.nothing == 1",
        "event.nothing == 1 || event.n == 5",
        "!(event.n < 5)",
        "event.f * 2.0 == 3.0",
        "event.type.startsWith('order.')",
        "event.type.endsWith(\"new\") && event.type.contains('er.n')",
        "size(event.tags) == 2",
        "event.tags[1] == 'b'",
        "'a' in event.tags",
        "!('c' in event.tags)",
        "has(event.data.name) && !has(event.data.age)",
        "event['dash-ed'] == 1",
        "event.n in [1, 5]",
        "event.ok ? event.n == 5 : false",
        "event.tags.exists(t, t == 'a')",
        "event.tags.all(t, size(t) == 1)",
        "event.empty.all(t, false)",
        "event.none == null",
        "-event.n == -5",
        "event.n % 2 == 1",
        "event.type.matches('^order\\\\..*')",
        "'a' + 'b' == 'ab'",
        "1 != 2 && 'x' < 'y'",
    };
    (void)state;
    assert_all(texts, OUTR_LEN(texts), 1);
}

static void what_does_not_hold(void **state)
{
    static const char *const texts[] = {"false",
                                        "event.type == 'order.old'",
                                        "event.n > 5",
                                        "'c' in event.tags",
                                        "event.tags.exists(t, t == 'z')",
                                        "event.type.startsWith('new')",
                                        "false && event.nothing == 1"};
    (void)state;
    assert_all(texts, OUTR_LEN(texts), 0);
}

static void what_does_not_compile(void **state)
{
    static const char *const texts[] = {"",
                                        "event.",
                                        "event.n >",
                                        "(event.n",
                                        "event.n == 'x",
                                        "1 2",
                                        "event.n = 5",
                                        "&& true",
                                        "event[",
                                        "unknown(",
                                        "[1,",
                                        "event.type.startsWith(",
                                        "\"\\q\""};
    (void)state;
    assert_all(texts, OUTR_LEN(texts), -1);
}

static void what_cannot_be_evaluated(void **state)
{
    static const char *const texts[] = {
        "event.nothing == 1",   "event.n",      "event.type + 1 == 2",
        "event.tags[5] == 'a'", "5 / 0 == 1",   "5 % 0 == 1",
        "event.type > 5",       "other.n == 1", "size(event.n) == 1"};
    (void)state;
    assert_all(texts, OUTR_LEN(texts), -2);
}

static void depth_has_an_end(void **state)
{
    char text[20001];
    (void)state;
    memset(text, '(', 20000);
    text[20000] = 0;
    assert_int_equal(test(text), -1);
    memset(text, '!', 20000);
    assert_int_equal(test(text), -1);
}

/* What hangs on one another is evaluated by recursion, brackets or not. */
static void chains_have_an_end(void **state)
{
    static const char *const links[] = {"+1", ".a", "[0]", "||true", ".size()"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(links); i++) {
        OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
        outr_buf_z(&out, i == 3 ? "true" : "event");
        for (size_t n = 0; n < 50000; n++)
            outr_buf_z(&out, links[i]);
        outr_buf_char(&out, 0);
        assert_int_equal(test(out.p), -1);
    }
    assert_int_equal(test("1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1 == 24"), 1);
}

/* Many small texts in one expression, and one that doubles with each item of a list. */
static void memory_has_an_end(void **state)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
    (void)state;
    outr_buf_z(&out, "'' in [''");
    for (size_t n = 0; n < 5000; n++)
        outr_buf_z(&out, ", 'a'");
    outr_buf_z(&out, "]");
    outr_buf_char(&out, 0);
    assert_int_equal(test(out.p), 1);
    out.n = 0;
    outr_buf_z(&out, "size([1,2,3,4,5,6,7,8].map(a, [1,2,3,4,5,6,7,8].map(b, '");
    for (size_t n = 0; n < 10000; n++)
        outr_buf_z(&out, "0123456789");
    outr_buf_z(&out, "' + 'x')) + 0) == 8");
    outr_buf_char(&out, 0);
    assert_int_equal(test(out.p), -2);
    assert_true(outr_arena_used(arena) <= 4 * OUTR_MIB);
}

static void patterns_that_ask_for_the_moon_are_refused(void **state)
{
    static const char *const texts[] = {"'a'.matches('(((a{1,200}){1,200}){1,200}){1,200}')",
                                        "'a'.matches('a{30000}')",
                                        "'a'.matches('(((((((((((((((((((((((((((((((((((a')",
                                        "'a'.matches('(')", "'a'.matches(\"[\")"};
    (void)state;
    assert_all(texts, OUTR_LEN(texts), -2);
    assert_int_equal(test("'aaa'.matches('^(a{1,3}){1,2}$')"), 1);
}

static void what_has_no_text_is_no_string(void **state)
{
    (void)state;
    assert_int_equal(test("string(null) == ''"), -2);
    assert_int_equal(test("string(event.tags) == ''"), -2);
    assert_int_equal(test("string(5) + string(true) + string(1.5) == '5true1.5'"), 1);
}

#define WITH_ARENA(f) cmocka_unit_test_setup_teardown(f, open_arena, close_arena)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ARENA(what_holds),
        WITH_ARENA(what_does_not_hold),
        WITH_ARENA(what_does_not_compile),
        WITH_ARENA(what_cannot_be_evaluated),
        WITH_ARENA(depth_has_an_end),
        WITH_ARENA(chains_have_an_end),
        WITH_ARENA(memory_has_an_end),
        WITH_ARENA(patterns_that_ask_for_the_moon_are_refused),
        WITH_ARENA(what_has_no_text_is_no_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
