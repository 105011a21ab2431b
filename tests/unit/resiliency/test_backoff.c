#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "resiliency/backoff.h"

static void a_constant_pause_stays_as_long_as_there_are_tries(void **state)
{
    const outr_retry_policy p = {.duration_ns = 30 * OUTR_MS, .max_retries = 3};
    outr_backoff b;
    uint64_t pause = 0;
    (void)state;
    outr_backoff_init(&b, &p, 0);
    for (int i = 0; i < 3; i++) {
        assert_true(outr_backoff_next(&b, &p, (uint64_t)i * OUTR_SEC, 0.7, &pause));
        assert_int_equal(pause, 30 * OUTR_MS);
    }
    assert_false(outr_backoff_next(&b, &p, 3 * OUTR_SEC, 0.7, &pause));
}

static void no_retries_means_none_and_minus_one_for_ever(void **state)
{
    const outr_retry_policy none = {.duration_ns = 1, .max_retries = 0};
    const outr_retry_policy ever = {.duration_ns = 1, .max_retries = -1};
    outr_backoff b;
    uint64_t pause;
    (void)state;
    outr_backoff_init(&b, &none, 0);
    assert_false(outr_backoff_next(&b, &none, 0, 0, &pause));
    outr_backoff_init(&b, &ever, 0);
    for (int i = 0; i < 10000; i++)
        assert_true(outr_backoff_next(&b, &ever, 3600 * OUTR_SEC * (uint64_t)i, 0, &pause));
}

static void an_exponential_pause_grows_by_half_to_its_cap(void **state)
{
    const outr_retry_policy p = {
        .is_exponential = true, .max_interval_ns = 2 * OUTR_SEC, .max_retries = -1};
    static const uint64_t want_ms[] = {500, 750, 1125, 1687, 2000, 2000};
    outr_backoff b;
    uint64_t pause;
    (void)state;
    outr_backoff_init(&b, &p, 0);
    for (size_t i = 0; i < OUTR_LEN(want_ms); i++) {
        assert_true(outr_backoff_next(&b, &p, 0, 0.5, &pause));
        assert_int_equal(pause / OUTR_MS, want_ms[i]);
    }
}

static void jitter_takes_half_to_either_side(void **state)
{
    const outr_retry_policy p = {
        .is_exponential = true, .max_interval_ns = 60 * OUTR_SEC, .max_retries = -1};
    outr_backoff b;
    uint64_t pause;
    (void)state;
    outr_backoff_init(&b, &p, 0);
    assert_true(outr_backoff_next(&b, &p, 0, 0, &pause));
    assert_int_equal(pause, 250 * OUTR_MS);
    outr_backoff_init(&b, &p, 0);
    assert_true(outr_backoff_next(&b, &p, 0, 0.999, &pause));
    assert_true(pause > 740 * OUTR_MS && pause < 750 * OUTR_MS);
}

/* The first pause is not cut by a small cap, later ones are: as Dapr does it. */
static void a_cap_below_the_first_pause_holds_from_the_second(void **state)
{
    const outr_retry_policy p = {
        .is_exponential = true, .max_interval_ns = 100 * OUTR_MS, .max_retries = 2};
    outr_backoff b;
    uint64_t pause;
    (void)state;
    outr_backoff_init(&b, &p, 0);
    assert_true(outr_backoff_next(&b, &p, 0, 0.5, &pause));
    assert_int_equal(pause, 500 * OUTR_MS);
    assert_true(outr_backoff_next(&b, &p, 0, 0.5, &pause));
    assert_int_equal(pause, 100 * OUTR_MS);
    assert_false(outr_backoff_next(&b, &p, 0, 0.5, &pause));
}

static void an_exponential_one_ends_after_a_quarter_of_an_hour(void **state)
{
    const outr_retry_policy p = {
        .is_exponential = true, .max_interval_ns = 60 * OUTR_SEC, .max_retries = -1};
    outr_backoff b;
    uint64_t now = 7 * OUTR_SEC, pause = 0;
    (void)state;
    outr_backoff_init(&b, &p, now);
    unsigned tries = 0;
    for (; outr_backoff_next(&b, &p, now, 0.5, &pause); tries++)
        now += pause;
    assert_true(now <= 907 * OUTR_SEC);
    assert_true(now > 840 * OUTR_SEC);
    assert_true(tries > 15);
}

static void pauses_of_our_own_are_drawn_between_nothing_and_a_growing_cap(void **state)
{
    static const uint64_t caps_ms[] = {25, 75, 175, 250, 250};
    (void)state;
    for (unsigned i = 0; i < OUTR_LEN(caps_ms); i++) {
        assert_int_equal(outr_backoff_jitter(i, 0), 0);
        assert_int_equal(outr_backoff_jitter(i, 0.5), caps_ms[i] * OUTR_MS / 2);
    }
    assert_int_equal(outr_backoff_jitter(UINT32_MAX, 0.5), 125 * OUTR_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_constant_pause_stays_as_long_as_there_are_tries),
        cmocka_unit_test(no_retries_means_none_and_minus_one_for_ever),
        cmocka_unit_test(an_exponential_pause_grows_by_half_to_its_cap),
        cmocka_unit_test(jitter_takes_half_to_either_side),
        cmocka_unit_test(a_cap_below_the_first_pause_holds_from_the_second),
        cmocka_unit_test(pauses_of_our_own_are_drawn_between_nothing_and_a_growing_cap),
        cmocka_unit_test(an_exponential_one_ends_after_a_quarter_of_an_hour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
