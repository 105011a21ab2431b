/* When a call is late, and how many may be made a second time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rand.h"
#include "mesh/hedge.h"

static const outr_hedge_spec fixed = {.is_on = true, .after_ns = 20 * OUTR_MS, .max_percent = 10};
static const outr_hedge_spec by_95 = {.is_on = true, .percentile = 95, .max_percent = 10};

static void a_fixed_time_needs_no_history(void **state)
{
    outr_hedge h = {0};
    (void)state;
    assert_int_equal(outr_hedge_begin(&h, &fixed, 1), 20 * OUTR_MS);
}

static void nothing_is_late_before_enough_is_known(void **state)
{
    outr_hedge h = {0};
    (void)state;
    for (int i = 0; i < OUTR_HEDGE_SAMPLES_MIN; i++) {
        assert_int_equal(outr_hedge_begin(&h, &by_95, 1), 0);
        outr_hedge_took(&h, 5 * OUTR_MS, 1);
    }
    assert_in_range(outr_hedge_begin(&h, &by_95, 1), 5 * OUTR_MS, 5 * OUTR_MS * 115 / 100);
}

static void the_percentile_is_right_within_an_eighth(void **state)
{
    outr_rand rand;
    uint64_t seed = 7;
    (void)state;
    outr_rand_seed(&rand, seed);
    for (uint64_t scale = 20 * (OUTR_MS / 1000) * 100; scale < 100 * OUTR_SEC; scale *= 7) {
        outr_hedge h = {0};
        for (int i = 0; i < 20000; i++) /* even from 0 to scale */
            outr_hedge_took(&h, outr_rand_below(&rand, scale), OUTR_SEC);
        uint64_t late = outr_hedge_begin(&h, &by_95, OUTR_SEC);
        assert_in_range(late, scale / 100 * 94, scale / 100 * 108);
    }
}

static void what_is_old_is_forgotten(void **state)
{
    outr_hedge h = {0};
    uint64_t now = OUTR_SEC;
    (void)state;
    for (int i = 0; i < 1000; i++)
        outr_hedge_took(&h, OUTR_SEC, now);
    for (int i = 0; i < 400; i++) {
        now += 100 * OUTR_MS;
        outr_hedge_took(&h, 2 * OUTR_MS, now);
    }
    assert_in_range(outr_hedge_begin(&h, &by_95, now), 2 * OUTR_MS, 3 * OUTR_MS);
}

static void little_that_is_known_is_not_forgotten_for_less(void **state)
{
    outr_hedge h = {0};
    uint64_t now = OUTR_SEC;
    (void)state;
    for (int i = 0; i < 100; i++)
        outr_hedge_took(&h, 10 * OUTR_MS, now);
    for (int i = 0; i < 10; i++) { /* a call a minute */
        now += 60 * OUTR_SEC;
        outr_hedge_took(&h, 10 * OUTR_MS, now);
    }
    assert_true(outr_hedge_begin(&h, &by_95, now) > 0);
}

static void no_more_than_a_share_of_the_calls_is_hedged(void **state)
{
    outr_hedge h = {0};
    unsigned made = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        outr_hedge_begin(&h, &fixed, 1);
        made += outr_hedge_take(&h);
    }
    assert_in_range(made, 99, 100);
    for (int i = 0; i < 10000; i++) /* saved up: a handful, not a thousand */
        outr_hedge_begin(&h, &fixed, 1);
    made = 0;
    while (outr_hedge_take(&h))
        made++;
    assert_in_range(made, 9, 10);
}

static void names_are_bounded(void **state)
{
    outr_hedges all = {0};
    (void)state;
    for (int i = 0; i < 3 * OUTR_HEDGE_NAMES_MAX / 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "app%d", i);
        assert_non_null(outr_hedges_find(&all, outr_str_from(name), OUTR_STR("default")));
    }
    assert_in_range(outr_map_count(all.map), 1, OUTR_HEDGE_NAMES_MAX);
    outr_hedge *h = outr_hedges_find(&all, OUTR_STR("x"), OUTR_STR("y"));
    assert_ptr_equal(h, outr_hedges_find(&all, OUTR_STR("x"), OUTR_STR("y")));
    outr_hedges_done(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fixed_time_needs_no_history),
        cmocka_unit_test(nothing_is_late_before_enough_is_known),
        cmocka_unit_test(the_percentile_is_right_within_an_eighth),
        cmocka_unit_test(what_is_old_is_forgotten),
        cmocka_unit_test(little_that_is_known_is_not_forgotten_for_less),
        cmocka_unit_test(no_more_than_a_share_of_the_calls_is_hedged),
        cmocka_unit_test(names_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
