#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "resiliency/breaker.h"

/* A breaker, its rule and its clock. */
typedef struct bench {
    outr_arena *arena;
    outr_breaker_rule rule;
    outr_breaker breaker;
    uint64_t now;
} bench;

static void open_bench(bench *b, const char *trip, int64_t max_requests, uint64_t interval_ns)
{
    outr_cel *cel;
    outr_err err;
    *b = (bench){.arena = outr_arena_new(OUTR_MIB), .now = OUTR_SEC};
    if (outr_cel_compile(&cel, b->arena, outr_str_from(trip), &err))
        fail_msg("%s", err.text);
    b->rule = (outr_breaker_rule){max_requests, interval_ns, 60 * OUTR_SEC, cel};
    outr_breaker_init(&b->breaker, &b->rule, b->now);
}

static void close_bench(bench *b)
{
    outr_arena_free(b->arena);
}

static outr_admission admit(bench *b, uint64_t *generation)
{
    return outr_breaker_admit(&b->breaker, &b->rule, b->now, generation);
}

/* One call, start to end. */
static outr_admission call(bench *b, bool is_good)
{
    uint64_t generation;
    outr_admission rc = admit(b, &generation);
    if (rc == OUTR_ADMITTED)
        outr_breaker_report(&b->breaker, &b->rule, b->now, generation, is_good);
    return rc;
}

static outr_breaker_state state_of(bench *b)
{
    return outr_breaker_now(&b->breaker, &b->rule, b->now);
}

static void it_opens_when_the_condition_holds(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, "consecutiveFailures > 5", 1, 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(call(&b, false), OUTR_ADMITTED);
    assert_int_equal(call(&b, true), OUTR_ADMITTED); /* in between: they are not in a row */
    for (int i = 0; i < 6; i++)
        assert_int_equal(call(&b, false), OUTR_ADMITTED);
    assert_int_equal(state_of(&b), OUTR_BREAKER_OPEN);
    assert_int_equal(call(&b, true), OUTR_REFUSED_OPEN);
    close_bench(&b);
}

static void every_count_may_stand_in_the_condition(void **state)
{
    static const char *const conditions[] = {
        "requests >= 4",
        "totalFailures == 2 && totalSuccesses == 2",
        "consecutiveFailures == 2 && consecutiveSuccesses == 0",
        "requests >= 4 && double(totalFailures) / double(requests) >= 0.5",
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(conditions); i++) {
        bench b;
        open_bench(&b, conditions[i], 1, 0);
        call(&b, true);
        call(&b, true);
        call(&b, false);
        assert_int_equal(state_of(&b), OUTR_BREAKER_CLOSED);
        call(&b, false);
        if (state_of(&b) != OUTR_BREAKER_OPEN)
            fail_msg("%s does not hold", conditions[i]);
        close_bench(&b);
    }
}

static void a_condition_that_cannot_be_told_does_not_hold(void **state)
{
    static const char *const conditions[] = {"1 / 0 == 0", "failures > 1", "requests"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(conditions); i++) {
        bench b;
        open_bench(&b, conditions[i], 1, 0);
        for (int k = 0; k < 20; k++)
            assert_int_equal(call(&b, false), OUTR_ADMITTED);
        close_bench(&b);
    }
}

static void half_open_lets_as_many_through_as_it_says(void **state)
{
    uint64_t first, second, third;
    bench b;
    (void)state;
    open_bench(&b, "consecutiveFailures >= 1", 2, 0);
    call(&b, false);
    b.now += 60 * OUTR_SEC;
    assert_int_equal(state_of(&b), OUTR_BREAKER_OPEN); /* until it is past */
    b.now++;
    assert_int_equal(state_of(&b), OUTR_BREAKER_HALF_OPEN);
    assert_int_equal(admit(&b, &first), OUTR_ADMITTED);
    assert_int_equal(admit(&b, &second), OUTR_ADMITTED);
    assert_int_equal(admit(&b, &third), OUTR_REFUSED_TRIAL);
    outr_breaker_report(&b.breaker, &b.rule, b.now, first, true);
    assert_int_equal(state_of(&b), OUTR_BREAKER_HALF_OPEN);
    outr_breaker_report(&b.breaker, &b.rule, b.now, second, true);
    assert_int_equal(state_of(&b), OUTR_BREAKER_CLOSED);
    assert_int_equal(b.breaker.counts.requests, 0);
    close_bench(&b);
}

static void one_failure_on_trial_opens_it_again_whatever_the_condition(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, "consecutiveFailures >= 3", 1, 0);
    for (int i = 0; i < 3; i++)
        call(&b, false);
    b.now += 61 * OUTR_SEC;
    assert_int_equal(call(&b, false), OUTR_ADMITTED);
    assert_int_equal(state_of(&b), OUTR_BREAKER_OPEN);
    b.now += 59 * OUTR_SEC;
    assert_int_equal(call(&b, true), OUTR_REFUSED_OPEN);
    close_bench(&b);
}

static void a_trial_that_its_caller_gives_up_makes_room_for_another(void **state)
{
    uint64_t first, second;
    bench b;
    (void)state;
    open_bench(&b, "consecutiveFailures >= 1", 1, 0);
    call(&b, false);
    b.now += 61 * OUTR_SEC;
    assert_int_equal(admit(&b, &first), OUTR_ADMITTED);
    assert_int_equal(admit(&b, &second), OUTR_REFUSED_TRIAL);
    outr_breaker_forget(&b.breaker, first);
    assert_int_equal(call(&b, true), OUTR_ADMITTED);
    assert_int_equal(state_of(&b), OUTR_BREAKER_CLOSED);
    close_bench(&b);
}

static void counts_begin_anew_each_interval(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, "totalFailures >= 3", 1, 8 * OUTR_SEC);
    call(&b, false);
    call(&b, false);
    b.now += 9 * OUTR_SEC;
    call(&b, false);
    call(&b, false);
    assert_int_equal(state_of(&b), OUTR_BREAKER_CLOSED);
    call(&b, false);
    assert_int_equal(state_of(&b), OUTR_BREAKER_OPEN);
    close_bench(&b);
}

static void what_began_before_a_change_is_not_counted_after_it(void **state)
{
    uint64_t slow;
    bench b;
    (void)state;
    open_bench(&b, "consecutiveFailures >= 2", 1, 0);
    admit(&b, &slow);
    call(&b, false);
    call(&b, false);
    b.now += 61 * OUTR_SEC;
    assert_int_equal(state_of(&b), OUTR_BREAKER_HALF_OPEN);
    outr_breaker_report(&b.breaker, &b.rule, b.now, slow, true);
    assert_int_equal(state_of(&b), OUTR_BREAKER_HALF_OPEN);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_opens_when_the_condition_holds),
        cmocka_unit_test(every_count_may_stand_in_the_condition),
        cmocka_unit_test(a_condition_that_cannot_be_told_does_not_hold),
        cmocka_unit_test(half_open_lets_as_many_through_as_it_says),
        cmocka_unit_test(one_failure_on_trial_opens_it_again_whatever_the_condition),
        cmocka_unit_test(a_trial_that_its_caller_gives_up_makes_room_for_another),
        cmocka_unit_test(counts_begin_anew_each_interval),
        cmocka_unit_test(what_began_before_a_change_is_not_counted_after_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
