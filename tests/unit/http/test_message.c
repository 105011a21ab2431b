#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "http/message.h"

static void lookups_ignore_case_and_keep_it(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_headers h;
    (void)state;
    outr_headers_init(&h, arena);
    outr_headers_add(&h, OUTR_STR("Set-Cookie"), OUTR_STR("a=1"));
    outr_headers_add(&h, OUTR_STR("set-cookie"), OUTR_STR("b=2"));
    assert_true(outr_str_is(outr_headers_get(&h, "SET-COOKIE"), "a=1"));
    assert_true(outr_headers_has(&h, "Set-cookie"));
    assert_int_equal(h.count, 2);
    assert_true(outr_str_is(h.items[0].name, "Set-Cookie"));
    outr_headers_set(&h, OUTR_STR("Set-Cookie"), OUTR_STR("c"));
    assert_int_equal(h.count, 1);
    outr_headers_remove(&h, "set-cookie");
    assert_int_equal(h.count, 0);
    assert_null(outr_headers_get(&h, "set-cookie").p);
    outr_arena_free(arena);
}

static void the_list_grows(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_headers h;
    (void)state;
    outr_headers_init(&h, arena);
    for (int i = 0; i < 1000; i++)
        outr_headers_add(&h, outr_arena_printf(arena, "n%d", i), outr_arena_printf(arena, "%d", i));
    assert_true(outr_str_is(outr_headers_get(&h, "N999"), "999"));
    outr_arena_free(arena);
}

static void tokens_are_found_over_all_lines(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_headers h;
    (void)state;
    outr_headers_init(&h, arena);
    outr_headers_add(&h, OUTR_STR("Connection"), OUTR_STR("keep-alive , X-Mine"));
    outr_headers_add(&h, OUTR_STR("connection"), OUTR_STR("Upgrade"));
    assert_true(outr_headers_has_token(&h, "Connection", "upgrade"));
    assert_true(outr_headers_has_token(&h, "Connection", "keep-alive"));
    assert_false(outr_headers_has_token(&h, "Connection", "keep"));
    assert_true(outr_header_is_hop_by_hop(&h, OUTR_STR("x-mine")));
    assert_true(outr_header_is_hop_by_hop(&h, OUTR_STR("te")));
    assert_true(outr_header_is_hop_by_hop(&h, OUTR_STR("HTTP2-Settings")));
    assert_false(outr_header_is_hop_by_hop(&h, OUTR_STR("x-other")));
    outr_arena_free(arena);
}

static void names_are_tokens_and_values_have_no_line_ends(void **state)
{
    (void)state;
    assert_true(outr_header_name_is_valid(OUTR_STR("X-a.b_c~!#$%&'*+^`|9")));
    assert_false(outr_header_name_is_valid(OUTR_STR("")));
    for (const char *c = " \t:;,/()<>@[]{}\"\\?=\x7f\x01"; *c; c++)
        assert_false(outr_header_name_is_valid(outr_str_of(c, 1)));
    assert_false(outr_header_name_is_valid(OUTR_STR("a\0")));
    assert_false(outr_header_name_is_valid(OUTR_STR("\xc3\xa4")));
    assert_true(outr_header_value_is_valid(OUTR_STR("a \t\xc3\xa4 ~\"")));
    assert_true(outr_header_value_is_valid(OUTR_STR("")));
    assert_false(outr_header_value_is_valid(OUTR_STR(" a")));
    assert_false(outr_header_value_is_valid(OUTR_STR("a\t")));
    assert_false(outr_header_value_is_valid(OUTR_STR("a\rb")));
    assert_false(outr_header_value_is_valid(OUTR_STR("a\nb")));
    assert_false(outr_header_value_is_valid(OUTR_STR("a\0b")));
}

/* Eight bytes are looked at together: each byte, at each place among eight, behind each other. */
static void each_byte_of_a_value_is_looked_at(void **state)
{
    char text[19];
    (void)state;
    for (size_t at = 1; at + 1 < sizeof text; at++) {
        for (unsigned c = 0; c < 256; c++) {
            bool is_good = c == '\t' || (c >= ' ' && c != 0x7f);
            memset(text, c & 1 ? 0xff : '~', sizeof text);
            text[at] = (char)c;
            if (outr_header_value_is_valid(outr_str_of(text, sizeof text)) != is_good)
                fail_msg("byte %u at %zu", c, at);
        }
    }
}

static void values_are_cleaned_for_the_wire(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_str fine = OUTR_STR("fine");
    (void)state;
    assert_ptr_equal(outr__header_value_clean(arena, fine).p, fine.p);
    assert_true(outr_str_is(outr__header_value_clean(arena, OUTR_STR("a\r\nb: c")), "a  b: c"));
    outr_arena_free(arena);
}

static void bodies_by_method_and_status(void **state)
{
    (void)state;
    assert_true(outr_http_has_body(OUTR_STR("GET"), 200));
    assert_true(outr_http_has_body(OUTR_STR("GET"), 404));
    assert_false(outr_http_has_body(OUTR_STR("HEAD"), 200));
    assert_false(outr_http_has_body(OUTR_STR("GET"), 204));
    assert_false(outr_http_has_body(OUTR_STR("GET"), 304));
    assert_false(outr_http_has_body(OUTR_STR("GET"), 103));
    assert_true(outr_http_has_body(OUTR_STR("head"), 200));
    assert_string_equal(outr_http_status_text(404), "Not Found");
    assert_string_equal(outr_http_status_text(799), "Unknown");
}

static void decimals(void **state)
{
    char text[20];
    (void)state;
    assert_true(outr_str_is(outr_str_decimal(text, 0), "0"));
    assert_true(outr_str_is(outr_str_decimal(text, UINT64_MAX), "18446744073709551615"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lookups_ignore_case_and_keep_it),
        cmocka_unit_test(the_list_grows),
        cmocka_unit_test(tokens_are_found_over_all_lines),
        cmocka_unit_test(names_are_tokens_and_values_have_no_line_ends),
        cmocka_unit_test(each_byte_of_a_value_is_looked_at),
        cmocka_unit_test(values_are_cleaned_for_the_wire),
        cmocka_unit_test(bodies_by_method_and_status),
        cmocka_unit_test(decimals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
