#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "config/codes.h"

static void lists_and_ranges_have_their_codes(void **state)
{
    outr_str set = OUTR_STR("429,500-599,");
    (void)state;
    assert_int_equal(outr_codes_check(set, 100, 599, NULL), OUTR_OK);
    assert_true(outr_codes_has(set, 429));
    assert_true(outr_codes_has(set, 500));
    assert_true(outr_codes_has(set, 599));
    assert_false(outr_codes_has(set, 430));
    assert_false(outr_codes_has(set, 499));
    assert_true(outr_codes_has(OUTR_STR(""), 7));
    assert_false(outr_codes_has(OUTR_STR(","), 7));
}

static void what_is_no_set_is_refused_with_its_item(void **state)
{
    static const char *const sets[] = {"x",       "500-",    "-500",    "1-2-3", "500,99",
                                       "500-499", "500-600", "5 00",    "200, 300",
                                       "99999999999999999999"};
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(sets); i++) {
        if (outr_codes_check(outr_str_from(sets[i]), 100, 599, &err) != OUTR_INVALID_ARGUMENT)
            fail_msg("%s was taken", sets[i]);
    }
    outr_codes_check(OUTR_STR("500,12"), 100, 599, &err);
    assert_string_equal(err.text, "\"12\" is not within 100 to 599");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_and_ranges_have_their_codes),
        cmocka_unit_test(what_is_no_set_is_refused_with_its_item),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
