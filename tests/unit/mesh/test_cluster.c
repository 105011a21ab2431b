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
    for (size_t i = 0; i < MAX; i++) {
        outr_endpoint_init(&b->endpoints[i]);
        b->items[i] = &b->endpoints[i];
    }
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
    outr_endpoint *e = outr_cluster_choose(&b->cluster, how, b->now, &b->rand);
    assert_non_null(e);
    assert_false(outr_endpoint_release(e)); /* the call is over at once */
    return (size_t)(e - b->endpoints);
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
    outr_balance_init(&a, 0, 0);
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
    outr_balance_init(&a, 0, 0);
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
    outr_balance_init(&slow, 0, 0);
    outr_balance_init(&fast, 0, 0);
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
    outr_endpoint_forget_probe(&b->endpoints[0]); /* its caller left: the next one may */
    assert_int_equal(pick(b, &unsafe), 0);
    close_bench(b);
}

static void a_probe_that_hangs_is_one_that_failed_until_it_is_answered(void **state)
{
    bench *b = open_bench(3);
    outr_cluster_pick how = {.is_repeatable = true};
    const outr_outlier *o = &b->endpoints[0].outlier;
    (void)state;
    fail_often(b, 0, 5);
    b->now = o->until_ns;
    assert_int_equal(pick(b, &how), 0);
    b->now += OUTR_OUTLIER_PROBE_NS;
    assert_true(pick(b, &how) != 0);
    assert_int_equal(o->ejections, 1);
    b->now += OUTR_SEC;
    assert_true(pick(b, &how) != 0);
    assert_int_equal(o->ejections, 2); /* away twice as long */
    assert_true(o->until_ns > b->now + 7 * OUTR_SEC);
    outr_endpoint_observe(b->items[0], b->now, 11 * OUTR_SEC, OUTR_CLASS_GOOD, 0, true, &b->rand);
    assert_false(o->is_ejected);
    close_bench(b);
}

static void a_stream_that_goes_on_well_is_a_probe_that_went_well(void **state)
{
    bench *b = open_bench(3);
    outr_cluster_pick how = {.is_repeatable = true};
    const outr_outlier *o = &b->endpoints[0].outlier;
    (void)state;
    fail_often(b, 0, 5);
    b->now = o->until_ns;
    assert_int_equal(pick(b, &how), 0);
    outr_endpoint_took(b->items[0], b->now, OUTR_MS, true); /* its head; its end says how it went */
    b->now += OUTR_OUTLIER_PROBE_NS;
    pick(b, &how);
    assert_true(o->is_ejected);
    assert_int_equal(how.revived, 0);
    b->now += OUTR_SEC;
    pick(b, &how);
    assert_false(o->is_ejected);
    assert_int_equal(how.revived, 1); /* the probe's own call will not tell of it */
    assert_int_equal(b->cluster.ejected_count, 0);
    outr_endpoint_judge(b->items[0], b->now, OUTR_CLASS_FAILURE, true, &b->rand);
    assert_false(o->is_ejected); /* one failure of many calls by now */
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
    outr_endpoint *two[] = {b->items[0], b->items[2]};
    uint64_t tried[] = {two[0]->serial, two[1]->serial};
    outr_cluster_pick how = {.tried = tried, .tried_count = 2};
    (void)state;
    for (int i = 0; i < 200; i++)
        assert_int_equal(pick(b, &how), 1);
    fail_often(b, 1, 5);
    assert_int_equal(pick(b, &how), 1); /* ejected, but not tried */
    assert_false(how.is_repeat);
    outr_cluster_set(&b->cluster, two, 2, b->now);
    pick(b, &how);
    assert_true(how.is_repeat);
    close_bench(b);
}

/* ---- labels ---------------------------------------------------------------------------------- */

#define PAIR(name, value)                                                                          \
    {                                                                                              \
        OUTR_STR(name), OUTR_STR(value)                                                            \
    }
#define KVS(...)                                                                                   \
    (outr_kvs)                                                                                     \
    {                                                                                              \
        (const outr_kv[]){__VA_ARGS__}, sizeof((const outr_kv[]){__VA_ARGS__}) / sizeof(outr_kv)   \
    }

/* Every second one is of version 2, every third one in zone b, the others in a. */
static bench *open_labelled(size_t count)
{
    static const outr_kv pairs[2][2][2] = {
        {{PAIR("version", "1"), PAIR("zone", "a")}, {PAIR("version", "1"), PAIR("zone", "b")}},
        {{PAIR("version", "2"), PAIR("zone", "a")}, {PAIR("version", "2"), PAIR("zone", "b")}}};
    bench *b = open_bench(0);
    for (size_t i = 0; i < count; i++)
        b->endpoints[i].labels = (outr_kvs){pairs[i % 2][i % 3 == 0], 2};
    outr_cluster_set(&b->cluster, b->items, count, b->now);
    b->now += 60 * OUTR_SEC;
    return b;
}

static outr_endpoint *choose(bench *b, const outr_kvs *labels)
{
    outr_cluster_pick how = {.labels = labels};
    outr_endpoint *e = outr_cluster_choose(&b->cluster, &how, b->now, &b->rand);
    if (e)
        assert_false(outr_endpoint_release(e));
    return e;
}

static void calls_go_to_instances_with_the_labels_they_ask_for(void **state)
{
    bench *b = open_labelled(12);
    const outr_kvs second = KVS(PAIR("version", "2")),
                   both = KVS(PAIR("version", "2"), PAIR("zone", "b")), none = {0};
    unsigned hits[12] = {0};
    (void)state;
    for (int i = 0; i < 600; i++) {
        size_t at = (size_t)(choose(b, &second) - b->endpoints);
        assert_int_equal(at % 2, 1);
        hits[at]++;
        at = (size_t)(choose(b, &both) - b->endpoints);
        assert_true(at == 3 || at == 9);
        assert_non_null(choose(b, &none));
    }
    for (size_t i = 1; i < 12; i += 2)
        assert_in_range(hits[i], 50, 150);
    close_bench(b);
}

static void labels_that_nobody_has_find_nobody_and_take_no_memory(void **state)
{
    bench *b = open_labelled(6);
    char text[16];
    (void)state;
    for (int i = 0; i < 10000; i++) {
        snprintf(text, sizeof text, "%d", i + 3);
        const outr_kv made_up = {OUTR_STR("version"), outr_str_from(text)};
        const outr_kvs labels = {&made_up, 1};
        assert_null(choose(b, &labels));
    }
    assert_int_equal(b->cluster.view_count, 1);
    const outr_kvs apart = KVS(PAIR("version", "2"), PAIR("zone", "b"));
    b->endpoints[3].labels = KVS(PAIR("version", "2"), PAIR("zone", "a"));
    outr_cluster_set(&b->cluster, b->items, 6, b->now);
    assert_null(choose(b, &apart)); /* both are there, but not of one */
    close_bench(b);
}

static void views_follow_the_instances_and_their_labels(void **state)
{
    bench *b = open_labelled(4);
    const outr_kvs second = KVS(PAIR("version", "2"));
    (void)state;
    assert_non_null(choose(b, &second));
    outr_cluster_set(&b->cluster, b->items, 2, b->now);
    for (int i = 0; i < 50; i++)
        assert_ptr_equal(choose(b, &second), b->items[1]);
    b->endpoints[0].labels = second;
    b->endpoints[1].labels = (outr_kvs){0};
    outr_cluster_set(&b->cluster, b->items, 2, b->now);
    for (int i = 0; i < 50; i++)
        assert_ptr_equal(choose(b, &second), b->items[0]);
    outr_cluster_set(&b->cluster, b->items + 1, 1, b->now);
    assert_null(choose(b, &second));
    assert_non_null(choose(b, NULL));
    close_bench(b);
}

static void of_very_many_label_sets_each_is_still_right(void **state)
{
    bench *b = open_bench(0);
    outr_kv pairs[200];
    char texts[200][8];
    (void)state;
    for (size_t i = 0; i < 200; i++) {
        snprintf(texts[i], sizeof texts[i], "%zu", i);
        pairs[i] = (outr_kv){OUTR_STR("n"), outr_str_from(texts[i])};
        b->endpoints[i].labels = (outr_kvs){&pairs[i], 1};
    }
    outr_cluster_set(&b->cluster, b->items, 200, b->now);
    for (int i = 0; i < 2000; i++) {
        size_t at = outr_rand_below(&b->rand, 200);
        assert_ptr_equal(choose(b, &b->endpoints[at].labels), b->items[at]);
        if (i % 7 == 0 && b->cluster.ejected_count < 50)
            fail_often(b, at, 5);
    }
    assert_int_equal(b->cluster.view_count, OUTR_CLUSTER_VIEWS_MAX);
    for (size_t i = 0; i < b->cluster.view_count; i++) {
        const outr_cluster_view *v = &b->cluster.views[i];
        size_t ejected = 0;
        for (size_t k = 0; k < v->count; k++)
            ejected += v->items[k]->outlier.is_ejected;
        assert_int_equal(v->ejected, ejected);
        assert_int_equal(v->unfit, ejected);
    }
    close_bench(b);
}

/* At most half of all, but of a subset it may be everybody. */
static void a_subset_whose_instances_are_all_ejected_is_called_all_the_same(void **state)
{
    bench *b = open_labelled(8);
    const outr_kvs second = KVS(PAIR("version", "2"));
    (void)state;
    for (size_t i = 1; i < 8; i += 2)
        fail_often(b, i, 5);
    assert_int_equal(b->cluster.ejected_count, 4);
    for (int i = 0; i < 100; i++) {
        assert_int_equal((choose(b, &second) - b->endpoints) % 2, 1);
        assert_int_equal((choose(b, NULL) - b->endpoints) % 2, 0);
    }
    assert_false(outr_cluster_has_other(&b->cluster, &second, b->items[1]));
    assert_true(outr_cluster_has_other(&b->cluster, NULL, b->items[1]));
    close_bench(b);
}

static void a_probe_of_a_subset_waits_for_no_other_one(void **state)
{
    bench *b = open_labelled(12);
    const outr_kvs second = KVS(PAIR("version", "2"));
    outr_cluster_pick how = {.labels = &second, .is_repeatable = true};
    (void)state;
    for (size_t i = 0; i < 10; i += 2) /* of version 1, which nobody calls */
        fail_often(b, i, 5);
    b->now += 20 * OUTR_SEC;
    fail_often(b, 1, 5);
    for (int i = 0; i < 50; i++)
        assert_true(pick(b, &how) != 1);
    b->now += 8 * OUTR_SEC;
    assert_int_equal(pick(b, &how), 1);
    assert_true(how.is_probe);
    assert_true(pick(b, &how) != 1);
    outr_endpoint_observe(&b->endpoints[1], b->now, OUTR_MS, OUTR_CLASS_FAILURE, 0, true, &b->rand);
    b->now += 15 * OUTR_SEC;
    assert_int_equal(pick(b, &how), 1);
    close_bench(b);
}

/* ---- zones ----------------------------------------------------------------------------------- */

static unsigned of_zone_b(bench *b, const outr_kvs *labels, unsigned calls)
{
    unsigned n = 0;
    for (unsigned i = 0; i < calls; i++)
        n += (choose(b, labels) - b->endpoints) % 3 == 0;
    return n;
}

static void the_own_zone_goes_first_while_enough_of_it_is_fit(void **state)
{
    bench *b = open_labelled(12); /* 0, 3, 6, 9 are in b */
    outr_cluster_rules rules = outr_cluster_defaults;
    const outr_kvs second = KVS(PAIR("version", "2"));
    (void)state;
    rules.zone_label = OUTR_STR("zone");
    rules.zone = OUTR_STR("b");
    rules.near_min_percent = 50;
    outr_cluster_use(&b->cluster, &rules, b->now);
    assert_int_equal(of_zone_b(b, NULL, 200), 200);
    assert_int_equal(of_zone_b(b, &second, 200), 200); /* 3 and 9 */
    fail_often(b, 0, 5);
    fail_often(b, 3, 5);
    assert_int_equal(of_zone_b(b, NULL, 200), 200); /* half of them is enough */
    outr_endpoint_set_down(b->items[6], b->now + OUTR_SEC);
    assert_in_range(of_zone_b(b, NULL, 1000), 20, 250); /* 9 is one of nine */
    observe(b, 6, OUTR_MS, OUTR_CLASS_GOOD);
    b->now += 30 * OUTR_SEC;
    assert_int_equal(of_zone_b(b, NULL, 200), 200);
    rules.zone = OUTR_STR("c"); /* nobody is there */
    outr_cluster_use(&b->cluster, &rules, b->now);
    assert_in_range(of_zone_b(b, NULL, 1000), 50, 400);
    close_bench(b);
}

/* ---- rules ----------------------------------------------------------------------------------- */

static void rules_may_change_and_what_is_known_stays(void **state)
{
    bench *b = open_bench(10);
    outr_cluster_rules rules = outr_cluster_defaults;
    (void)state;
    observe(b, 3, 77 * OUTR_MS, OUTR_CLASS_GOOD);
    fail_often(b, 0, 4);
    rules.ejection.in_a_row = 2;
    rules.ejected_max_percent = 20;
    outr_cluster_use(&b->cluster, &rules, b->now);
    assert_int_equal(b->endpoints[3].balance.cost_ns, 77 * OUTR_MS);
    for (size_t i = 0; i < 10; i++)
        fail_often(b, i, 2);
    assert_int_equal(b->cluster.ejected_count, 2);
    assert_true(b->endpoints[0].outlier.is_ejected);
    rules.ejection.is_disabled = true;
    outr_cluster_use(&b->cluster, &rules, b->now);
    assert_int_equal(b->cluster.ejected_count, 0);
    for (size_t i = 0; i < 10; i++)
        fail_often(b, i, 100);
    assert_int_equal(b->cluster.ejected_count, 0);
    close_bench(b);
}

static void the_rate_of_failures_is_that_of_the_window(void **state)
{
    bench *b = open_bench(4);
    outr_cluster_rules rules = outr_cluster_defaults;
    (void)state;
    rules.ejection.in_a_row = 0;
    rules.ejection.failure_percent = 100;
    rules.ejection.window = 64;
    outr_cluster_use(&b->cluster, &rules, b->now);
    fail_often(b, 0, 31);
    assert_false(b->endpoints[0].outlier.is_ejected);
    fail_often(b, 0, 1);
    assert_true(b->endpoints[0].outlier.is_ejected);
    assert_int_equal(b->endpoints[0].outlier.reason, OUTR_OUTLIER_FAILURE_RATE);
    rules.ejection.failure_percent = 10;
    rules.ejection.window = 1; /* and one that fails is enough */
    outr_cluster_use(&b->cluster, &rules, b->now);
    fail_often(b, 1, 1);
    assert_true(b->endpoints[1].outlier.is_ejected);
    close_bench(b);
}

static void pauses_grow_from_the_base_to_the_most(void **state)
{
    bench *b = open_bench(3);
    outr_cluster_rules rules = outr_cluster_defaults;
    (void)state;
    rules.ejection.base_ns = OUTR_SEC;
    rules.ejection.max_ns = 3 * OUTR_SEC;
    outr_cluster_use(&b->cluster, &rules, b->now);
    fail_often(b, 0, 5);
    const outr_outlier *o = &b->endpoints[0].outlier;
    for (unsigned n = 0; n < 40; n++) {
        uint64_t full = n == 0 ? OUTR_SEC : n == 1 ? 2 * OUTR_SEC : 3 * OUTR_SEC;
        assert_in_range(o->until_ns - b->now, full * 3 / 4, full * 5 / 4);
        b->now = o->until_ns;
        outr_cluster_pick how = {.is_repeatable = true};
        assert_int_equal(pick(b, &how), 0);
        outr_endpoint_observe(&b->endpoints[0], b->now, OUTR_MS, OUTR_CLASS_FAILURE, 0, true,
                              &b->rand);
    }
    close_bench(b);
}

static void without_slow_start_a_new_one_has_its_share_at_once(void **state)
{
    bench *b = open_bench(3);
    outr_cluster_rules rules = outr_cluster_defaults;
    (void)state;
    rules.slow_start_ns = 0;
    outr_cluster_use(&b->cluster, &rules, b->now);
    outr_cluster_set(&b->cluster, b->items, 4, b->now);
    assert_true(outr_balance_ramp(&b->endpoints[3].balance, b->now) >= 1);
    close_bench(b);
}

static void an_opened_probe_may_be_any_call(void **state)
{
    bench *b = open_bench(4);
    outr_cluster_pick unsafe = {0};
    (void)state;
    fail_often(b, 0, 5);
    assert_true(pick(b, &unsafe) != 0);
    outr_endpoint_open_probe(b->items[0], b->now);
    assert_true(b->endpoints[0].outlier.is_ejected); /* nothing but a call revives it */
    assert_int_equal(pick(b, &unsafe), 0);
    assert_true(unsafe.is_probe);
    outr_endpoint_open_probe(b->items[0], b->now); /* it is being probed */
    assert_true(pick(b, &unsafe) != 0);
    close_bench(b);
}

static void clocks_of_two_loops_may_differ_by_a_turn(void **state)
{
    bench *b = open_bench(4);
    (void)state;
    observe(b, 0, 100 * OUTR_MS, OUTR_CLASS_GOOD);
    b->now -= 3 * OUTR_MS;
    observe(b, 0, OUTR_MS, OUTR_CLASS_GOOD);
    assert_in_range(b->endpoints[0].balance.cost_ns, 90 * OUTR_MS, 100 * OUTR_MS);
    fail_often(b, 0, 5);
    outr_endpoint_open_probe(b->items[0], b->now);
    outr_cluster_pick how = {0};
    assert_int_equal(pick(b, &how), 0);
    outr_endpoint_observe(b->items[0], b->now, OUTR_MS, OUTR_CLASS_GOOD, 0, true, &b->rand);
    b->now -= 3 * OUTR_MS;
    fail_often(b, 0, 5);
    assert_int_equal(b->endpoints[0].outlier.ejections, 2);
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
        granted += outr_budget_take(&b, &outr_cluster_defaults.budget, now);
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
            assert_true(outr_budget_take(&b, &outr_cluster_defaults.budget, now));
        assert_false(outr_budget_take(&b, &outr_cluster_defaults.budget, now));
    }
    outr_budget_spend(&b, now);
    assert_true(outr_budget_take(&b, &outr_cluster_defaults.budget, now));
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
        cmocka_unit_test(a_probe_that_hangs_is_one_that_failed_until_it_is_answered),
        cmocka_unit_test(a_stream_that_goes_on_well_is_a_probe_that_went_well),
        cmocka_unit_test(who_leaves_takes_its_ejection_along),
        cmocka_unit_test(who_was_tried_is_the_last_choice),
        cmocka_unit_test(calls_go_to_instances_with_the_labels_they_ask_for),
        cmocka_unit_test(labels_that_nobody_has_find_nobody_and_take_no_memory),
        cmocka_unit_test(views_follow_the_instances_and_their_labels),
        cmocka_unit_test(of_very_many_label_sets_each_is_still_right),
        cmocka_unit_test(a_subset_whose_instances_are_all_ejected_is_called_all_the_same),
        cmocka_unit_test(a_probe_of_a_subset_waits_for_no_other_one),
        cmocka_unit_test(the_own_zone_goes_first_while_enough_of_it_is_fit),
        cmocka_unit_test(rules_may_change_and_what_is_known_stays),
        cmocka_unit_test(the_rate_of_failures_is_that_of_the_window),
        cmocka_unit_test(pauses_grow_from_the_base_to_the_most),
        cmocka_unit_test(without_slow_start_a_new_one_has_its_share_at_once),
        cmocka_unit_test(an_opened_probe_may_be_any_call),
        cmocka_unit_test(clocks_of_two_loops_may_differ_by_a_turn),
        cmocka_unit_test(a_fifth_of_the_calls_may_be_repeated),
        cmocka_unit_test(a_quiet_target_has_a_few_and_gets_them_back),
        cmocka_unit_test(statuses_are_classified_in_one_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
