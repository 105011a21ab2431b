#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/buf.h"
#include "loop/env.h"

static void assert_reads(const char *text, const char *printed)
{
    char out[OUTR_ADDR_TEXT_MAX];
    outr_addr addr;
    outr_err err;
    assert_int_equal(outr_addr_parse(&addr, outr_str_from(text), &err), OUTR_OK);
    assert_int_equal(outr_addr_text(&addr, out), strlen(printed));
    assert_string_equal(out, printed);
}

static void an_address_is_printed_as_it_is_read(void **state)
{
    (void)state;
    assert_reads("127.0.0.1:80", "127.0.0.1:80");
    assert_reads("[::1]:65535", "[::1]:65535");
    assert_reads("::1", "[::1]:0");
    assert_reads("[2001:DB8:0:0::1]:1", "[2001:db8::1]:1");
    assert_reads("unix:/run/x.sock", "unix:/run/x.sock");
}

static void names_and_nonsense_are_no_addresses(void **state)
{
    static const char *const bad[] = {
        "",     "localhost:80", "127.0.0.1:65536", "1.2.3:80", "256.0.0.1:1",
        "[::1", "unix:",        "[1.2.3.4",        ":80",      "01.2.3.4.5:1"};
    outr_addr addr;
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        if (outr_addr_parse(&addr, outr_str_from(bad[i]), &err) == OUTR_OK)
            fail_msg("accepted: %s", bad[i]);
    }
}

static void text_behind_a_nul_is_not_dropped_in_silence(void **state)
{
    outr_addr addr;
    outr_err err;
    (void)state;
    assert_int_not_equal(outr_addr_from_ip(&addr, OUTR_STR("127.0.0.1\0.evil"), 1, &err), OUTR_OK);
    assert_int_not_equal(outr_addr_parse(&addr, OUTR_STR("127.0.0.1\0x:80"), &err), OUTR_OK);
    assert_int_not_equal(outr_addr_parse(&addr, OUTR_STR("unix:/a\0b"), &err), OUTR_OK);
    assert_int_not_equal(outr_addr_parse(&addr, OUTR_STR("unix:\0a"), &err), OUTR_OK);
}

static void a_socket_path_fits_the_system(void **state)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_KIB);
    outr_addr addr;
    outr_err err;
    (void)state;
    outr_buf_z(&text, "unix:/");
    while (text.n < 5 + sizeof addr.path - 1)
        outr_buf_char(&text, 'a');
    assert_int_equal(outr_addr_parse(&addr, outr_buf_view(&text), &err), OUTR_OK);
    assert_int_equal(strlen(addr.path), sizeof addr.path - 1);
    outr_buf_char(&text, 'a');
    assert_int_not_equal(outr_addr_parse(&addr, outr_buf_view(&text), &err), OUTR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_printed_as_it_is_read),
        cmocka_unit_test(names_and_nonsense_are_no_addresses),
        cmocka_unit_test(text_behind_a_nul_is_not_dropped_in_silence),
        cmocka_unit_test(a_socket_path_fits_the_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
