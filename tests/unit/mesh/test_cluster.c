/* Picking, ejecting and the budget, on numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/cluster.h"

#define MAX 1000

typedef struct bench {
    outr_cluster cluster;
    outr_endpoint endpoints[MAX];
    outr_endpoint *items[MAX];
    outr_rand rand;
    uint64_t now;
} bench;

static bench *open_bench(size_t count)
{
    bench *b = outr_alloc(sizeof *b);
    outr_rand_seed(&b->rand, 7);
    b->now = 1000 * OUTR_SEC;
    outr_cluster_init(&b->cluster);
    for (size_t i = 0; i < MAX; i++)
        b->items[i] = &b->endpoints[i];
    outr_cluster_set(&b->cluster, b->items, count, b->now);
    b->now += 60 * OUTR_SEC; /* everybody is at full share */
    return b;
}

static void close_bench(bench *b)
{
    outr_cluster_done(&b->cluster);
    free(b);
}

static size_t pick(bench *b, outr_cluster_pick *how)
{
    return (size_t)(outr_cluster_choose(&b->cluster, how, b->now, &b->rand) - b->endpoints);
}

static size_t pick_any(bench *b)
{
    outr_cluster_pick how = {0};
    return pick(b, &how);
}

static void observe(bench *b, size_t i, uint64_t took, outr_class how)
{
    outr_endpoint_observe(&b->endpoints[i], b->now, took, how, 0, false, &b->rand);
}

static void fail_often(bench *b, size_t i, unsigned times)
{
    while (times-- > 0)
        observe(b, i, OUTR_MS, OUTR_CLASS_FAILURE);
}

/* ---- balance --------------------------------------------------------------------------------- */

static void a_slower_answer_counts_at_once_a_faster_one_decays_in(void **state)
{
    outr_balance a;
    (void)state;
    outr_balance_init(&a, 0);
    outr_balance_observe(&a, 0, 10 * OUTR_MS, false);
    outr_balance_observe(&a, OUTR_MS, 100 * OUTR_MS, false);
    assert_int_equal(a.cost_ns, 100 * OUTR_MS);
    outr_balance_observe(&a, 2 * OUTR_MS, 10 * OUTR_MS, false);
    assert_in_range(a.cost_ns, 99 * OUTR_MS, 100 * OUTR_MS);
    outr_balance_observe(&a, OUTR_BALANCE_MEMORY_NS / 2, 10 * OUTR_MS, false);
    assert_in_range(a.cost_ns, 25 * OUTR_MS, 35 * OUTR_MS);
    outr_balance_observe(&a, 10 * OUTR_BALANCE_MEMORY_NS, 10 * OUTR_MS, false);
    assert_int_equal(a.cost_ns, 10 * OUTR_MS);
}

static void reading_a_load_changes_nothing(void **state)
{
    outr_balance a, before;
    (void)state;
    outr_balance_init(&a, 0);
    outr_balance_observe(&a, 0, 200 * OUTR_MS, false);
    before = a;
    for (uint64_t at = 0; at < 20; at++)
        outr_balance_load(&a, at * OUTR_SEC, 3);
    assert_memory_equal(&a, &before, sizeof a);
}

static void what_is_on_trial_gets_no_second_call(void **state)
{
    outr_balance slow, fast;
    uint64_t now = OUTR_BALANCE_MEMORY_NS;
    (void)state;
    outr_balance_init(&slow, 0);
    outr_balance_init(&fast, 0);
    outr_balance_observe(&slow, 0, 200 * OUTR_MS, false);
    outr_balance_observe(&fast, now, 2 * OUTR_MS, false);
    assert_true(outr_balance_load(&slow, now, 0) < outr_balance_load(&fast, now, 0));
    assert_true(outr_balance_load(&slow, now, 1) > outr_balance_load(&fast, now, 20));
}

static void failing_fast_is_slow(void **state)
{
    bench *b = open_bench(5);
    unsigned hits = 0;
    (void)state;
    for (int i = 0; i < 5000; i++) {
        size_t at = pick_any(b);
        b->now += 10 * OUTR_MS; /* 100 calls a second, 20 each */
        observe(b, at, at == 2 ? OUTR_MS / 10 : 5 * OUTR_MS,
                at == 2 ? OUTR_CLASS_FAILURE : OUTR_CLASS_GOOD);
        hits += at == 2;
    }
    assert_in_range(hits, 1, 100); /* a tenth of its share, and not none */
    close_bench(b);
}

static void a_new_instance_ramps_up(void **state)
{
    bench *b = open_bench(4);
    unsigned hits[3] = {0};
    (void)state;
    for (size_t i = 0; i < 4; i++)
        observe(b, i, 2 * OUTR_MS, OUTR_CLASS_GOOD);
    outr_cluster_set(&b->cluster, b->items, 5, b->now);
    for (int second = 0; second < 15; second++) {
        for (int i = 0; i < 1000; i++) {
            size_t at = pick_any(b);
            hits[second / 5] += at == 4;
            b->now += OUTR_MS;
            observe(b, at, 2 * OUTR_MS, OUTR_CLASS_GOOD);
        }
    }
    assert_in_range(hits[0], 100, 500); /* of 1000 at full share */
    assert_in_range(hits[1], 500, 900);
    assert_in_range(hits[2], 850, 1150);
    close_bench(b);
}

/* ---- ejection -------------------------------------------------------------------------------- */

static void five_failures_in_a_row_eject(void **state)
{
    bench *b = open_bench(4);
    (void)state;
    fail_often(b, 1, 4);
    observe(b, 1, OUTR_MS, OUTR_CLASS_GOOD);
    fail_often(b, 1, 4);
    assert_false(b->endpoints[1].outlier.is_ejected);
    fail_often(b, 1, 1);
    assert_true(b->endpoints[1].outlier.is_ejected);
    for (int i = 0; i < 1000; i++)
        assert_true(pick_any(b) != 1);
    close_bench(b);
}

static void half_failing_trips_within_twenty_calls(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        bench *b = open_bench(4);
        unsigned calls = 0;
        outr_rand_seed(&b->rand, seed);
        while (!b->endpoints[0].outlier.is_ejected && calls < 100) {
            observe(b, 0, OUTR_MS, calls % 2 ? OUTR_CLASS_FAILURE : OUTR_CLASS_GOOD);
            calls++;
        }
        assert_in_range(calls, 1, 20);
        close_bench(b);
    }
}

static void load_is_no_failure(void **state)
{
    bench *b = open_bench(4);
    (void)state;
    for (int i = 0; i < 100; i++)
        observe(b, 0, OUTR_MS, OUTR_CLASS_LOAD);
    assert_false(b->endpoints[0].outlier.is_ejected);
    assert_true(outr_balance_load(&b->endpoints[0].balance, b->now, 0) > OUTR_SEC);
    close_bench(b);
}

/* Pitfall 21. */
static void half_of_them_at_most_and_calls_still_go_out(void **state)
{
    (void)state;
    for (size_t count = 1; count <= 9; count++) {
        bench *b = open_bench(count);
        for (size_t i = 0; i < count; i++)
            fail_often(b, i, 30);
        assert_int_equal(b->cluster.ejected_count, count / 2);
        for (int i = 0; i < 100; i++)
            assert_true(pick_any(b) < count);
        close_bench(b);
    }
}

static void one_call_probes_and_decides(void **state)
{
    outr_cluster_pick how = {.is_repeatable = true};
    bench *b = open_bench(3);
    (void)state;
    fail_often(b, 0, 5);
    b->now += 4 * OUTR_SEC - OUTR_SEC / 2; /* 5 s less a quarter is the least */
    for (int i = 0; i < 100; i++) {
        assert_true(pick(b, &how) != 0);
        assert_false(how.is_probe);
    }
    b->now += 4 * OUTR_SEC;
    assert_int_equal(pick(b, &how), 0);
    assert_true(how.is_probe);
    outr_cluster_pick other = {.is_repeatable = true};
    for (int i = 0; i < 100; i++)
        assert_true(pick(b, &other) != 0); /* one at a time */
    assert_int_equal(outr_endpoint_observe(&b->endpoints[0], b->now, OUTR_MS, OUTR_CLASS_FAILURE, 0,
                                           true, &b->rand),
                     OUTR_OUTLIER_SAME);
    assert_int_equal(b->cluster.ejected_count, 1);
    b->now += 7 * OUTR_SEC;
    assert_true(pick(b, &how) != 0); /* twice as long now */
    b->now += 6 * OUTR_SEC;
    assert_int_equal(pick(b, &how), 0);
    assert_int_equal(outr_endpoint_observe(&b->endpoints[0], b->now, OUTR_MS, OUTR_CLASS_GOOD, 0,
                                           true, &b->rand),
                     OUTR_OUTLIER_REVIVED);
    assert_int_equal(b->cluster.ejected_count, 0);
    assert_true(outr_balance_ramp(&b->endpoints[0].balance, b->now) < 0.2);
    close_bench(b);
}

static void a_probe_waits_a_second_for_a_call_that_may_be_repeated(void **state)
{
    outr_cluster_pick unsafe = {0};
    bench *b = open_bench(3);
    (void)state;
    fail_often(b, 0, 5);
    b->now = b->endpoints[0].outlier.until_ns;
    for (int i = 0; i < 50; i++)
        assert_true(pick(b, &unsafe) != 0);
    b->now += OUTR_OUTLIER_GRACE_NS;
    assert_int_equal(pick(b, &unsafe), 0);
    outr_outlier_forget_probe(&b->endpoints[0].outlier); /* its caller left: the next one may */
    assert_int_equal(pick(b, &unsafe), 0);
    close_bench(b);
}

static void who_leaves_takes_its_ejection_along(void **state)
{
    bench *b = open_bench(4);
    (void)state;
    fail_often(b, 0, 5);
    outr_cluster_set(&b->cluster, b->items + 1, 3, b->now);
    assert_int_equal(b->cluster.ejected_count, 0);
    outr_cluster_set(&b->cluster, b->items, 4, b->now);
    assert_false(b->endpoints[0].outlier.is_ejected);
    outr_endpoint *twice[] = {b->items[0], b->items[0], b->items[1]};
    outr_cluster_set(&b->cluster, twice, 3, b->now);
    assert_int_equal(b->cluster.count, 2);
    outr_cluster_set(&b->cluster, NULL, 0, b->now);
    outr_cluster_pick how = {0};
    assert_null(outr_cluster_choose(&b->cluster, &how, b->now, &b->rand));
    close_bench(b);
}

static void who_was_tried_is_the_last_choice(void **state)
{
    bench *b = open_bench(3);
    outr_endpoint *tried[] = {b->items[0], b->items[2]};
    outr_cluster_pick how = {.tried = tried, .tried_count = 2};
    (void)state;
    for (int i = 0; i < 200; i++)
        assert_int_equal(pick(b, &how), 1);
    fail_often(b, 1, 5);
    assert_int_equal(pick(b, &how), 1); /* ejected, but not tried */
    assert_false(how.is_repeat);
    outr_cluster_set(&b->cluster, tried, 2, b->now);
    pick(b, &how);
    assert_true(how.is_repeat);
    close_bench(b);
}

/* ---- budget ---------------------------------------------------------------------------------- */

static void a_fifth_of_the_calls_may_be_repeated(void **state)
{
    outr_budget b = {0};
    unsigned granted = 0;
    uint64_t now = 50 * OUTR_SEC;
    (void)state;
    for (int i = 0; i < 10000; i++, now += OUTR_MS) { /* ten seconds, all failing */
        outr_budget_call(&b, now);
        granted += outr_budget_take(&b, now);
    }
    assert_in_range(granted, 1900, 2020);
}

static void a_quiet_target_has_a_few_and_gets_them_back(void **state)
{
    outr_budget b = {0};
    uint64_t now = 50 * OUTR_SEC;
    (void)state;
    for (int round = 0; round < 3; round++, now += 11 * OUTR_SEC) {
        for (int i = 0; i < OUTR_BUDGET_SLOTS; i++)
            assert_true(outr_budget_take(&b, now));
        assert_false(outr_budget_take(&b, now));
    }
    outr_budget_spend(&b, now);
    assert_true(outr_budget_take(&b, now));
}

static void statuses_are_classified_in_one_place(void **state)
{
    (void)state;
    assert_int_equal(outr_classify_http(200), OUTR_CLASS_GOOD);
    assert_int_equal(outr_classify_http(404), OUTR_CLASS_GOOD);
    assert_int_equal(outr_classify_http(429), OUTR_CLASS_LOAD);
    assert_int_equal(outr_classify_http(500), OUTR_CLASS_FAILURE);
    assert_int_equal(outr_classify_http(503), OUTR_CLASS_FAILURE);
    assert_int_equal(outr_classify_grpc(OUTR_NOT_FOUND), OUTR_CLASS_GOOD);
    assert_int_equal(outr_classify_grpc(OUTR_RESOURCE_EXHAUSTED), OUTR_CLASS_LOAD);
    assert_int_equal(outr_classify_grpc(OUTR_UNAVAILABLE), OUTR_CLASS_FAILURE);
    assert_int_equal(outr_classify_error(OUTR_CANCELLED), OUTR_CLASS_GOOD);
    assert_true(outr_classify_is_passing(503));
    assert_false(outr_classify_is_passing(500));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slower_answer_counts_at_once_a_faster_one_decays_in),
        cmocka_unit_test(reading_a_load_changes_nothing),
        cmocka_unit_test(what_is_on_trial_gets_no_second_call),
        cmocka_unit_test(failing_fast_is_slow),
        cmocka_unit_test(a_new_instance_ramps_up),
        cmocka_unit_test(five_failures_in_a_row_eject),
        cmocka_unit_test(half_failing_trips_within_twenty_calls),
        cmocka_unit_test(load_is_no_failure),
        cmocka_unit_test(half_of_them_at_most_and_calls_still_go_out),
        cmocka_unit_test(one_call_probes_and_decides),
        cmocka_unit_test(a_probe_waits_a_second_for_a_call_that_may_be_repeated),
        cmocka_unit_test(who_leaves_takes_its_ejection_along),
        cmocka_unit_test(who_was_tried_is_the_last_choice),
        cmocka_unit_test(a_fifth_of_the_calls_may_be_repeated),
        cmocka_unit_test(a_quiet_target_has_a_few_and_gets_them_back),
        cmocka_unit_test(statuses_are_classified_in_one_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
