#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/buf.h"
#include "observe/baggage.h"
#include "observe/trace.h"

static outr_arena *arena;
static outr_headers headers;

static int open_all(void **state)
{
    (void)state;
    arena = outr_arena_new(OUTR_MIB);
    outr_headers_init(&headers, arena);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    outr_arena_free(arena);
    return 0;
}

#define assert_text(s, z)                                                                          \
    do {                                                                                           \
        outr_str got_ = (s);                                                                       \
        if (!outr_str_is(got_, z))                                                                 \
            fail_msg("\"" OUTR_FMT "\" is not \"%s\"", OUTR_ARG(got_), z);                         \
    } while (0)

static void a_member_is_found_and_decoded(void **state)
{
    const outr_str list = OUTR_STR("a=1 , environment = te%73t ;ttl=3,b;x,bad,c=%zz, c = 2,d=");
    (void)state;
    assert_text(outr_baggage_find(list, OUTR_STR("a"), arena), "1");
    assert_text(outr_baggage_find(list, OUTR_STR("environment"), arena), "test");
    assert_text(outr_baggage_find(list, OUTR_STR("c"), arena), "2");
    assert_text(outr_baggage_find(list, OUTR_STR("d"), arena), "");
    assert_non_null(outr_baggage_find(list, OUTR_STR("d"), arena).p);
    assert_null(outr_baggage_find(list, OUTR_STR("A"), arena).p);
    assert_null(outr_baggage_find(list, OUTR_STR("ttl"), arena).p);
    assert_null(outr_baggage_find(list, OUTR_STR("b"), arena).p);
    assert_null(outr_baggage_find(OUTR_STR(""), OUTR_STR("a"), arena).p);
}

static void all_lines_are_one_list(void **state)
{
    unsigned lines;
    (void)state;
    outr_headers_add(&headers, OUTR_STR("Baggage"), OUTR_STR("a=1"));
    outr_headers_add(&headers, OUTR_STR("x"), OUTR_STR("b=9"));
    outr_headers_add(&headers, OUTR_STR("baggage"), OUTR_STR("b=2"));
    assert_text(outr_baggage_get(&headers, OUTR_STR("b"), arena, &lines), "2");
    assert_int_equal(lines, 2);
    assert_null(outr_baggage_get(&headers, OUTR_STR("c"), arena, &lines).p);
    const outr_kvs all = outr_baggage_members(&headers, arena);
    assert_text(outr_kvs_find_exact(all, OUTR_STR("b"))->value, "2");
    assert_null(outr_kvs_find_exact(all, OUTR_STR("c")));
}

static void setting_a_member_keeps_the_others(void **state)
{
    (void)state;
    assert_text(outr_baggage_with(&headers, OUTR_STR("e"), OUTR_STR("x"), arena), "e=x");
    outr_headers_add(&headers, OUTR_STR("baggage"), OUTR_STR("a=1;p=q, e=old;r"));
    outr_headers_add(&headers, OUTR_STR("baggage"), OUTR_STR("b=2,"));
    outr_str set = outr_baggage_with(&headers, OUTR_STR("e"), OUTR_STR("a b,;%\"\\\n"), arena);
    assert_text(set, "e=a%20b%2C%3B%25%22%5C%0A,a=1;p=q,b=2");
    assert_true(outr_baggage_is_valid(set));
    assert_text(outr_baggage_find(set, OUTR_STR("e"), arena), "a b,;%\"\\\n");
}

static void what_goes_beyond_the_limits_is_left_out(void **state)
{
    (void)state;
    OUTR_AUTO(outr_buf) many = OUTR_BUF_MAX(OUTR_MIB);
    for (int i = 0; i < OUTR_BAGGAGE_MEMBERS_MAX; i++)
        outr_buf_printf(&many, "%sk%d=v", i ? "," : "", i);
    outr_headers_add(&headers, OUTR_STR("baggage"), outr_buf_view(&many));
    outr_str set = outr_baggage_with(&headers, OUTR_STR("e"), OUTR_STR("x"), arena);
    assert_true(outr_baggage_is_valid(set));
    assert_text(outr_baggage_find(set, OUTR_STR("e"), arena), "x");
    assert_text(outr_baggage_find(set, OUTR_STR("k62"), arena), "v");
    assert_null(outr_baggage_find(set, OUTR_STR("k63"), arena).p);
    OUTR_AUTO(outr_buf) longer = OUTR_BUF_MAX(OUTR_MIB);
    outr_buf_z(&longer, "k=");
    for (int i = 0; i < OUTR_BAGGAGE_MAX - 2; i++)
        outr_buf_char(&longer, 'v');
    outr_headers_set(&headers, OUTR_STR("baggage"), outr_buf_view(&longer));
    assert_text(outr_baggage_with(&headers, OUTR_STR("e"), OUTR_STR("x"), arena), "e=x");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)
    const struct CMUnitTest tests[] = {
        TEST(a_member_is_found_and_decoded),
        TEST(all_lines_are_one_list),
        TEST(setting_a_member_keeps_the_others),
        TEST(what_goes_beyond_the_limits_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
