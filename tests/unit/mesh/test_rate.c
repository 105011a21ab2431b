#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rand.h"
#include "mesh/rate.h"

#define KEY OUTR_STR("somebody")

static outr_rate *rate_of(uint64_t requests, uint64_t interval_ns, uint64_t burst, size_t keys)
{
    const outr_rate_options o = {requests, interval_ns, burst, keys, .seed = 7};
    return outr_rate_new(&o);
}

static unsigned count(outr_rate *rate, outr_str key, uint64_t from, uint64_t until, uint64_t step)
{
    unsigned n = 0;
    for (uint64_t now = from; now < until; now += step)
        n += outr_rate_take(rate, key, now).is_allowed;
    return n;
}

static void a_burst_is_let_in_at_once_and_then_one_in_each_gap(void **state)
{
    (void)state;
    outr_rate *rate = rate_of(10, OUTR_SEC, 3, 16);
    for (unsigned i = 0; i < 3; i++)
        assert_true(outr_rate_take(rate, KEY, OUTR_SEC).is_allowed);
    const outr_rate_verdict no = outr_rate_take(rate, KEY, OUTR_SEC + 40 * OUTR_MS);
    assert_false(no.is_allowed);
    assert_int_equal(no.after_ns, 60 * OUTR_MS);
    assert_true(outr_rate_take(rate, KEY, OUTR_SEC + 100 * OUTR_MS).is_allowed);
    assert_false(outr_rate_take(rate, KEY, OUTR_SEC + 100 * OUTR_MS).is_allowed);
    outr_rate_free(rate);
}

static void what_is_told_to_come_back_is_let_in_then_and_not_before(void **state)
{
    (void)state;
    static const uint64_t requests[] = {1, 3, 7, 1000, 333333, OUTR_RATE_REQUESTS_MAX};
    for (size_t i = 0; i < OUTR_LEN(requests); i++) {
        outr_rate *rate = rate_of(requests[i], OUTR_SEC, 1, 1);
        assert_true(outr_rate_take(rate, KEY, 5 * OUTR_SEC).is_allowed);
        const outr_rate_verdict no = outr_rate_take(rate, KEY, 5 * OUTR_SEC);
        assert_false(no.is_allowed);
        assert_true(no.after_ns > 0);
        assert_false(outr_rate_take(rate, KEY, 5 * OUTR_SEC + no.after_ns - 1).is_allowed);
        assert_true(outr_rate_take(rate, KEY, 5 * OUTR_SEC + no.after_ns).is_allowed);
        outr_rate_free(rate);
    }
}

static void over_time_it_is_the_rate_however_much_is_asked(void **state)
{
    (void)state;
    outr_rate *rate = rate_of(100, OUTR_SEC, 100, 1);
    /* what the bucket held, and a hundred a second */
    assert_in_range(count(rate, KEY, OUTR_SEC, 11 * OUTR_SEC, OUTR_MS), 1099, 1101);
    outr_rate_free(rate);
    rate = rate_of(7, 3 * OUTR_SEC, 1, 1);
    assert_in_range(count(rate, KEY, OUTR_SEC, 301 * OUTR_SEC, OUTR_MS), 699, 701);
    outr_rate_free(rate);
}

static void an_odd_rate_loses_nothing_to_rounding(void **state)
{
    (void)state;
    outr_rate *rate = rate_of(300000, OUTR_SEC, 10, 1);
    assert_in_range(count(rate, KEY, OUTR_SEC, 2 * OUTR_SEC, 100), 299000, 301000);
    outr_rate_free(rate);
}

static void keys_have_buckets_of_their_own(void **state)
{
    (void)state;
    outr_rate *rate = rate_of(1, OUTR_SEC, 1, 16);
    assert_true(outr_rate_take(rate, OUTR_STR("a"), OUTR_SEC).is_allowed);
    assert_true(outr_rate_take(rate, OUTR_STR("b"), OUTR_SEC).is_allowed);
    assert_true(outr_rate_take(rate, OUTR_STR_NONE, OUTR_SEC).is_allowed);
    assert_false(outr_rate_take(rate, OUTR_STR("a"), OUTR_SEC).is_allowed);
    assert_false(outr_rate_take(rate, OUTR_STR("b"), OUTR_SEC).is_allowed);
    assert_false(outr_rate_take(rate, OUTR_STR_NONE, OUTR_SEC).is_allowed);
    outr_rate_free(rate);
}

static void as_many_keys_as_it_promises_are_told_apart(void **state)
{
    (void)state;
    enum { KEYS = 16384 };
    outr_rate *rate = rate_of(1, 60 * OUTR_SEC, 1, KEYS);
    char text[32];
    unsigned again = 0;
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < KEYS; i++) {
            int n = snprintf(text, sizeof text, "client-%u", i);
            bool is_allowed =
                outr_rate_take(rate, outr_str_of(text, (size_t)n), OUTR_SEC).is_allowed;
            again += round == 1 && is_allowed;
            assert_true(round == 1 || is_allowed);
        }
    }
    assert_in_range(again, 0, KEYS / 20); /* forgotten, because their places were taken */
    outr_rate_free(rate);
}

static void keys_without_end_take_no_memory_and_the_busiest_is_remembered(void **state)
{
    (void)state;
    outr_rate *rate = rate_of(10, OUTR_SEC, 10, 64);
    uint64_t now = OUTR_SEC;
    char text[32];
    while (outr_rate_take(rate, KEY, now).is_allowed) /* it owes the most of all */
        continue;
    for (unsigned i = 0; i < 100000; i++) {
        int n = snprintf(text, sizeof text, "stranger-%u", i);
        outr_rate_take(rate, outr_str_of(text, (size_t)n), now);
    }
    assert_false(outr_rate_take(rate, KEY, now).is_allowed);
    outr_rate_free(rate);
}

static void a_clock_that_is_behind_gives_nothing_for_free(void **state)
{
    (void)state;
    outr_rate *rate = rate_of(10, OUTR_SEC, 1, 1);
    assert_true(outr_rate_take(rate, KEY, 10 * OUTR_SEC).is_allowed);
    assert_false(outr_rate_take(rate, KEY, 10 * OUTR_SEC - 50 * OUTR_MS).is_allowed);
    assert_true(outr_rate_take(rate, KEY, 10 * OUTR_SEC + 100 * OUTR_MS).is_allowed);
    outr_rate_free(rate);
}

static void absurd_numbers_are_taken_for_the_nearest_sane_ones(void **state)
{
    (void)state;
    outr_rate *rate = rate_of(0, UINT64_MAX, UINT64_MAX, 0);
    assert_true(outr_rate_take(rate, KEY, UINT64_C(1) << 58).is_allowed);
    outr_rate_free(rate);
    rate = rate_of(UINT64_MAX, 0, 0, 1);
    assert_true(outr_rate_take(rate, KEY, 1).is_allowed);
    assert_true(outr_rate_take(rate, KEY, 2).is_allowed);
    outr_rate_free(rate);
    outr_rate_free(NULL);
}

/* However requests come: in no stretch of time more than the burst and what the rate gives. */
static void no_stretch_has_more_than_burst_and_rate(void **state)
{
    (void)state;
    enum { ASKED = 4000 };
    static uint64_t let_in[ASKED];
    for (uint64_t seed = 1; seed <= 50; seed++) {
        outr_rand rand;
        outr_rand_seed(&rand, seed);
        uint64_t requests = 1 + outr_rand_below(&rand, 200), burst = 1 + outr_rand_below(&rand, 50);
        outr_rate *rate = rate_of(requests, OUTR_SEC, burst, 8);
        uint64_t now = OUTR_SEC;
        size_t n = 0;
        for (unsigned i = 0; i < ASKED; i++) {
            now += outr_rand_below(&rand, 2 * OUTR_SEC / (requests + 20));
            if (outr_rate_take(rate, KEY, now).is_allowed)
                let_in[n++] = now;
        }
        for (size_t from = 0; from < n; from += 7) {
            for (size_t to = from; to < n; to += 11) {
                double most = (double)burst +
                              (double)requests * (double)(let_in[to] - let_in[from]) / OUTR_SEC;
                if ((double)(to - from + 1) > most + 0.01)
                    fail_msg("seed %llu: %zu let in where %.2f are", (unsigned long long)seed,
                             to - from + 1, most);
            }
        }
        outr_rate_free(rate);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_is_let_in_at_once_and_then_one_in_each_gap),
        cmocka_unit_test(what_is_told_to_come_back_is_let_in_then_and_not_before),
        cmocka_unit_test(over_time_it_is_the_rate_however_much_is_asked),
        cmocka_unit_test(an_odd_rate_loses_nothing_to_rounding),
        cmocka_unit_test(keys_have_buckets_of_their_own),
        cmocka_unit_test(as_many_keys_as_it_promises_are_told_apart),
        cmocka_unit_test(keys_without_end_take_no_memory_and_the_busiest_is_remembered),
        cmocka_unit_test(a_clock_that_is_behind_gives_nothing_for_free),
        cmocka_unit_test(absurd_numbers_are_taken_for_the_nearest_sane_ones),
        cmocka_unit_test(no_stretch_has_more_than_burst_and_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
