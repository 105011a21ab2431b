/* What is known of instances, as the loops of a process share it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/callees.h"

typedef struct desk {
    outr_callees *all;
    outr__callee *callee;
    outr_rand rand;
    uint64_t now;
    outr_instance said[2 * OUTR__INSTANCES_MAX];
} desk;

static desk *open_desk(size_t count)
{
    desk *d = outr_alloc(sizeof *d);
    outr_rand_seed(&d->rand, 3);
    d->now = 1000 * OUTR_SEC;
    d->all = outr_callees_new();
    for (size_t i = 0; i < OUTR_LEN(d->said); i++)
        outr_addr_from_ip(&d->said[i].addr, OUTR_STR("10.0.0.1"), (uint16_t)(1000 + i), NULL);
    d->callee = outr__callee_ref(d->all, OUTR_STR("kitchen.default"), true);
    outr__callee_learn(d->callee, &(outr_resolve){.instances = d->said, .count = count}, d->now);
    return d;
}

static void close_desk(desk *d)
{
    outr__callee_unref(d->callee);
    outr_callees_unref(d->all);
    free(d);
}

static void learn(desk *d, const outr_instance *said, size_t count)
{
    outr_resolve answer = {.instances = (outr_instance *)said, .count = count};
    outr__callee_learn(d->callee, &answer, d->now);
}

static outr__instance *choose(desk *d, outr__choice *how)
{
    how->now = d->now;
    return outr__callee_choose(d->callee, how, &d->rand);
}

/* Held. */
static outr__instance *any(desk *d)
{
    outr__choice how = {.cache_ns = OUTR_SEC};
    return choose(d, &how);
}

static void one_name_is_one_callee_until_nobody_has_it(void **state)
{
    desk *d = open_desk(2);
    (void)state;
    outr__callee *again = outr__callee_ref(d->all, OUTR_STR("kitchen.default"), true);
    assert_ptr_equal(again, d->callee);
    assert_null(outr__callee_ref(d->all, OUTR_STR("kitchen.other"), false));
    outr__callee_unref(d->callee);
    outr__instance *i = any(d);
    assert_non_null(i);
    outr__instance_release(i);
    close_desk(d);
}

static void the_same_answer_changes_nothing(void **state)
{
    desk *d = open_desk(3);
    (void)state;
    outr__instance *one = any(d);
    outr__callee_observe(d->callee, one, d->now, 70 * OUTR_MS, OUTR_CLASS_GOOD, 0, false, &d->rand);
    outr_endpoint **items = d->callee->cluster.items;
    const outr_instance shuffled[] = {d->said[2], d->said[0], d->said[1], d->said[0]};
    learn(d, shuffled, 4);
    assert_ptr_equal(d->callee->cluster.items, items);
    learn(d, NULL, 0); /* an empty registry does not empty the mesh */
    assert_int_equal(d->callee->cluster.count, 3);
    learn(d, d->said, 4);
    assert_int_equal(d->callee->cluster.count, 4);
    assert_int_equal(one->endpoint.balance.cost_ns, 70 * OUTR_MS);
    outr__instance_release(one);
    close_desk(d);
}

static void labels_come_with_the_answer_and_change_with_it(void **state)
{
    desk *d = open_desk(2);
    const outr_kv pair = {OUTR_STR("version"), OUTR_STR("2")};
    const outr_kvs second = {&pair, 1};
    outr__choice how = {.pick = {.labels = &second}};
    (void)state;
    assert_null(choose(d, &how));
    assert_false(how.is_empty); /* there are instances, of other labels */
    d->said[1].labels = second;
    learn(d, d->said, 2);
    outr__instance *i = choose(d, &how);
    assert_non_null(i);
    assert_int_equal(i->addr.port, 1001);
    outr__instance_release(i);
    d->said[1].labels = (outr_kvs){0};
    learn(d, d->said, 2);
    assert_null(choose(d, &how));
    close_desk(d);
}

static void who_has_left_stays_for_the_calls_it_has_in_hand(void **state)
{
    desk *d = open_desk(1);
    (void)state;
    outr__instance *one = any(d), *again = any(d);
    assert_ptr_equal(one, again);
    learn(d, d->said + 1, 1);
    assert_int_equal(d->callee->cluster.count, 1);
    assert_string_equal(one->text, "10.0.0.1:1000");
    assert_int_equal(outr__callee_observe(d->callee, one, d->now, OUTR_MS, OUTR_CLASS_FAILURE, 0,
                                          false, &d->rand),
                     OUTR_OUTLIER_SAME);
    outr__callee_set_down(d->callee, one, d->now + OUTR_SEC);
    outr__instance_release(one);
    outr__instance_release(again);
    outr__instance *other = any(d);
    assert_int_equal(other->addr.port, 1001);
    assert_int_equal(other->slot, 1); /* the slot was taken while both were there */
    outr__instance_release(other);
    learn(d, d->said, 2);
    other = NULL;
    for (int i = 0; i < 64 && !other; i++) {
        outr__instance *it = any(d);
        if (it->addr.port == 1000)
            other = it;
        else
            outr__instance_release(it);
    }
    assert_int_equal(other->slot, 0);
    assert_true(other->endpoint.serial > 2);
    outr__instance_release(other);
    close_desk(d);
}

static outr_instance *say(outr_instance *out, const char *id)
{
    *out = (outr_instance){.id = outr_str_from(id)};
    outr_addr_from_ip(&out->addr, OUTR_STR("10.0.0.1"), 1000, NULL);
    return out;
}

static void who_is_started_anew_at_its_address_is_another_one(void **state)
{
    desk *d = open_desk(2);
    outr_instance said[4];
    (void)state;
    outr__instance *i = outr_map_get(d->callee->by_addr, OUTR_STR("10.0.0.1:1000"));
    say(&said[0], "uuid-1");
    learn(d, said, 1);
    assert_ptr_equal(outr_map_get(d->callee->by_addr, OUTR_STR("10.0.0.1:1000")), i);
    for (int n = 0; n < 5; n++)
        outr__callee_observe(d->callee, i, d->now, OUTR_MS, OUTR_CLASS_FAILURE, 0, false, &d->rand);
    outr__callee_set_down(d->callee, i, d->now + OUTR_SEC);
    outr_endpoint_hold(&i->endpoint); /* a call of before */
    say(&said[0], "uuid-1");          /* of who was killed, and is not forgotten yet */
    say(&said[1], "uuid-2");
    say(&said[2], "uuid-1");
    say(&said[3], "10.0.0.1:1000"); /* a kept answer knows no more */
    for (int n = 0; n < 3; n++) {
        learn(d, said + n, 4 - (size_t)n);
        assert_int_equal(d->callee->cluster.count, 1);
        outr__instance *now = outr_map_get(d->callee->by_addr, OUTR_STR("10.0.0.1:1000"));
        assert_true(now != i);
        assert_ptr_equal(d->callee->cluster.items[0], &now->endpoint);
        assert_int_equal(now->endpoint.serial, 3);
        assert_false(now->endpoint.is_down);
    }
    assert_int_equal(
        outr__callee_observe(d->callee, i, d->now, OUTR_MS, OUTR_CLASS_FAILURE, 0, false, &d->rand),
        OUTR_OUTLIER_SAME);
    outr__instance_release(i);
    close_desk(d);
}

static void of_a_name_that_is_new_registrations_of_one_address_are_one(void **state)
{
    desk *d = open_desk(0);
    outr_instance said[12];
    char ids[12][8];
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(said); i++) {
        snprintf(ids[i], sizeof ids[i], "id-%zu", i % 8);
        say(&said[i], ids[i]);
    }
    learn(d, said, 12);
    assert_int_equal(d->callee->cluster.count, 1);
    uint64_t serial = d->callee->cluster.items[0]->serial;
    learn(d, said + 3, 9);
    assert_int_equal(d->callee->cluster.items[0]->serial, serial);
    close_desk(d);
}

static void one_loop_asks_the_registry_for_all(void **state)
{
    desk *d = open_desk(1);
    outr__choice how = {.cache_ns = OUTR_SEC};
    (void)state;
    outr__instance_release(choose(d, &how));
    assert_false(how.is_to_refresh);
    d->now += 2 * OUTR_SEC;
    outr__instance_release(choose(d, &how));
    assert_true(how.is_to_refresh);
    outr__instance_release(choose(d, &how));
    assert_false(how.is_to_refresh);
    /* what changes while it is asked for is asked for again */
    assert_false(outr__callee_begin_refresh(d->callee, true));
    outr__instance_release(choose(d, &how));
    assert_false(how.is_to_refresh);
    assert_true(outr__callee_end_refresh(d->callee, d->now));
    assert_true(outr__callee_begin_refresh(d->callee, true));
    assert_false(outr__callee_begin_refresh(d->callee, false)); /* nothing new */
    assert_false(outr__callee_end_refresh(d->callee, d->now));
    outr__instance_release(choose(d, &how));
    assert_false(how.is_to_refresh);
    close_desk(d);
}

static void a_call_counts_once_for_the_budget(void **state)
{
    desk *d = open_desk(1);
    outr__choice how = {.cache_ns = OUTR_SEC};
    uint64_t calls, retries;
    (void)state;
    for (int i = 0; i < 3; i++)
        outr__instance_release(choose(d, &how));
    outr__callee_spend_retry(d->callee, d->now);
    assert_true(outr__callee_take_retry(d->callee, d->now));
    outr_budget_count(&d->callee->cluster.budget, d->now, &calls, &retries);
    assert_int_equal(calls, 1);
    assert_int_equal(retries, 2);
    outr_budget_count(&d->callee->cluster.budget, d->now + 11 * OUTR_SEC, &calls, &retries);
    assert_int_equal(calls + retries, 0);
    close_desk(d);
}

static void of_very_many_instances_the_first_thousand_count(void **state)
{
    desk *d = open_desk(2 * OUTR__INSTANCES_MAX);
    (void)state;
    assert_int_equal(d->callee->cluster.count, OUTR__INSTANCES_MAX);
    learn(d, d->said + OUTR__INSTANCES_MAX, OUTR__INSTANCES_MAX);
    assert_int_equal(d->callee->cluster.count, OUTR__INSTANCES_MAX);
    learn(d, d->said, 1);
    assert_int_equal(d->callee->cluster.count, 1);
    close_desk(d);
}

/* ---- many threads ---------------------------------------------------------------------------- */

typedef struct worker {
    pthread_t thread;
    desk *d;
    unsigned seed, probes, held;
} worker;

static unsigned probing; /* atomic */

static void *work(void *arg)
{
    worker *w = arg;
    desk *d = w->d;
    outr_rand rand;
    uint64_t now = d->now;
    outr_rand_seed(&rand, w->seed);
    for (int i = 0; i < 4000; i++, now += 3 * OUTR_MS) {
        outr__choice how = {.pick = {.is_repeatable = true}, .now = now, .cache_ns = 50 * OUTR_MS};
        outr__callee *callee = outr__callee_ref(d->all, OUTR_STR("kitchen.default"), true);
        outr__instance *at = outr__callee_choose(callee, &how, &rand);
        if (how.pick.is_probe) {
            w->probes++;
            assert_int_equal(__atomic_fetch_add(&probing, 1, __ATOMIC_ACQ_REL), 0);
        }
        if (how.is_to_refresh) {
            size_t from = outr_rand_below(&rand, 3);
            outr__callee_learn(callee, &(outr_resolve){.instances = d->said + from, .count = 4},
                               now);
            outr__callee_end_refresh(callee, now);
        }
        /* only one ever fails, and it stays: there is one that probes at most */
        outr_class how_it_went = at->addr.port == 1003 ? OUTR_CLASS_FAILURE : OUTR_CLASS_GOOD;
        if (how.pick.is_probe)
            __atomic_fetch_sub(&probing, 1, __ATOMIC_ACQ_REL);
        outr__callee_observe(callee, at, now, OUTR_MS, how_it_went, 0, how.pick.is_probe, &rand);
        outr__callee_has_other(callee, NULL, at);
        outr__instance_release(at);
        outr__callee_unref(callee);
    }
    return NULL;
}

static void loops_agree_on_who_is_ejected_and_who_probes(void **state)
{
    desk *d = open_desk(4);
    worker workers[3] = {0};
    (void)state;
    for (unsigned i = 0; i < OUTR_LEN(workers); i++) {
        workers[i] = (worker){.d = d, .seed = i + 1};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < OUTR_LEN(workers); i++)
        pthread_join(workers[i].thread, NULL);
    assert_int_equal(d->callee->cluster.ejected_count, 1);
    for (size_t i = 0; i < d->callee->cluster.count; i++)
        assert_int_equal(outr_endpoint_pending(d->callee->cluster.items[i]), 0);
    close_desk(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_name_is_one_callee_until_nobody_has_it),
        cmocka_unit_test(the_same_answer_changes_nothing),
        cmocka_unit_test(labels_come_with_the_answer_and_change_with_it),
        cmocka_unit_test(who_has_left_stays_for_the_calls_it_has_in_hand),
        cmocka_unit_test(who_is_started_anew_at_its_address_is_another_one),
        cmocka_unit_test(of_a_name_that_is_new_registrations_of_one_address_are_one),
        cmocka_unit_test(one_loop_asks_the_registry_for_all),
        cmocka_unit_test(a_call_counts_once_for_the_budget),
        cmocka_unit_test(of_very_many_instances_the_first_thousand_count),
        cmocka_unit_test(loops_agree_on_who_is_ejected_and_who_probes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
