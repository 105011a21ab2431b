#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "security/rotation.h"

#define HOUR ((int64_t)3600 * 1000)

static void a_certificate_is_renewed_at_seventy_percent_of_what_is_left(void **state)
{
    (void)state;
    assert_int_equal(outr_rotation_due(0, 1000000, 0.5), 700000);
    assert_int_equal(outr_rotation_due(0, 1000000, 0), 650000);
    assert_true(outr_rotation_due(0, 1000000, 0.999) < 750000);
    assert_int_equal(outr_rotation_due(5000, 5000 + 30000, 0.5), 26000);
}

/* Pitfall 42: what not-before says plays no part, and there is a pause whatever the life. */
static void a_life_shorter_than_the_skew_makes_no_storm(void **state)
{
    (void)state;
    assert_true(outr_rotation_due(0, 60000, 0) >= 39000);
    assert_int_equal(outr_rotation_due(0, 100, 0.5), 1000);
    assert_int_equal(outr_rotation_due(0, -HOUR, 0.5), 1000);
}

static void failures_back_off_without_an_end(void **state)
{
    int64_t last = 0;
    (void)state;
    for (unsigned failures = 1; failures < 8; failures++) {
        int64_t pause = outr_rotation_pause(failures, 10 * HOUR, 0.999);
        assert_true(pause >= last);
        last = pause;
    }
    for (unsigned failures = 8; failures < 100000; failures *= 3) {
        assert_true(outr_rotation_pause(failures, 10 * HOUR, 0) >= 30000);
        assert_true(outr_rotation_pause(failures, 10 * HOUR, 0.999) <= 60000);
    }
    assert_true(outr_rotation_pause(UINT32_MAX, 10 * HOUR, 0.5) <= 60000);
}

static void there_are_several_tries_in_the_time_that_is_left(void **state)
{
    (void)state;
    assert_true(outr_rotation_pause(50, 8000, 0.9) <= 1000);
    assert_int_equal(outr_rotation_pause(50, 100, 0.9), 250);
    assert_true(outr_rotation_pause(1, 0, 0) >= 1000); /* over: no haste */
    assert_true(outr_rotation_pause(1, -HOUR, 0) >= 1000);
}

static void warnings_begin_at_half_of_the_life(void **state)
{
    (void)state;
    assert_false(outr_rotation_is_late(0, 1000, 499));
    assert_true(outr_rotation_is_late(0, 1000, 500));
    assert_true(outr_rotation_is_late(0, 1000, 5000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_certificate_is_renewed_at_seventy_percent_of_what_is_left),
        cmocka_unit_test(a_life_shorter_than_the_skew_makes_no_storm),
        cmocka_unit_test(failures_back_off_without_an_end),
        cmocka_unit_test(there_are_several_tries_in_the_time_that_is_left),
        cmocka_unit_test(warnings_begin_at_half_of_the_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
