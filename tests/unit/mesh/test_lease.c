#include "lib/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/lease.h"

#define MEMBERS 3
#define RTT_NS  OUTR_MS

typedef struct town town;

typedef struct member {
    town *t;
    char name[8];
    outr_leases *leases;
    outr_lease_site site;
    /* in the store */
    double asked;
    uint64_t until_ns;
    /* seen */
    uint64_t let_in, renewals;
} member;

/* Sidecars of one app, and the store as it looks to them. One key. */
struct town {
    wire w;
    member members[MEMBERS];
    bool is_away;
};

typedef struct answer {
    outr_timer timer;
    member *m;
    outr_state_share_call *call;
    outr_op *op;
} answer;

static void on_answer(outr_timer *timer)
{
    answer *a = OUTR_CONTAINER(timer, answer, timer);
    member *m = a->m;
    outr_state_shares *shares = &a->call->shares;
    outr_op *op = a->op;
    outr_err err;
    free(a);
    if (m->t->is_away) {
        outr_fail(&err, OUTR_UNAVAILABLE, "connection refused");
        outr_op_fail(op, &err);
        return;
    }
    assert_int_equal(shares->count, 1);
    assert_true(outr_str_is(shares->items[0].key, "limit||key"));
    assert_true(outr_str_is(shares->member, m->name));
    m->renewals++;
    m->asked = shares->items[0].asked;
    m->until_ns = m->t->w.now + shares->lasts_ns;
    shares->items[0].others = 0;
    shares->items[0].sharers = 0;
    for (size_t i = 0; i < MEMBERS; i++) {
        const member *other = &m->t->members[i];
        if (other == m || other->until_ns < m->t->w.now)
            continue;
        shares->items[0].others += other->asked;
        shares->items[0].sharers++;
    }
    outr_op_finish(op);
}

static void on_cancel(outr_op *op)
{
    answer *a = op->impl;
    outr_timer_stop(op->loop, &a->timer);
    free(a);
    outr_op_finish(op);
}

static void ask(void *ctx, outr_state_share_call *call, outr_op *op)
{
    answer *a = outr_alloc(sizeof *a);
    *a = (answer){.timer = {.fire = on_answer}, .m = ctx, .call = call, .op = op};
    outr_op_begin(op, a, on_cancel);
    outr_timer_start(op->loop, &a->timer, outr_loop_now(op->loop) + RTT_NS);
}

static void open_town(town *t, uint64_t rate, uint64_t burst)
{
    *t = (town){0};
    wire_init(&t->w, 1);
    for (size_t i = 0; i < MEMBERS; i++) {
        member *m = &t->members[i];
        m->t = t;
        snprintf(m->name, sizeof m->name, "m%zu", i);
        const outr_leases_options o = {.requests = rate,
                                       .interval_ns = OUTR_SEC,
                                       .burst = burst,
                                       .keys = 4,
                                       .name = OUTR_STR("limit||"),
                                       .store = OUTR_STR("redis"),
                                       .member = outr_str_from(m->name)};
        m->leases = outr_leases_new(&o);
        outr_lease_site_init(&m->site, t->w.loop, ask, m);
    }
}

static void close_town(town *t)
{
    for (size_t i = 0; i < MEMBERS; i++) {
        outr_lease_site_done(&t->members[i].site);
        outr_leases_unref(t->members[i].leases);
    }
    wire_sleep(&t->w, 2 * OUTR_SEC);
    wire_done(&t->w);
}

/* offered: calls a second at each member. What all let in together, a second. */
static double run(town *t, double seconds, const double offered[MEMBERS])
{
    uint64_t until = t->w.now + (uint64_t)(seconds * OUTR_SEC), let_in = 0;
    double due[MEMBERS] = {0};
    for (size_t i = 0; i < MEMBERS; i++)
        t->members[i].let_in = 0;
    while (t->w.now < until) {
        wire_sleep(&t->w, OUTR_MS);
        for (size_t i = 0; i < MEMBERS; i++) {
            member *m = &t->members[i];
            for (due[i] += offered[i] / 1000; due[i] >= 1; due[i] -= 1)
                m->let_in +=
                    outr_leases_take(m->leases, &m->site, OUTR_STR("key"), outr_loop_now(t->w.loop))
                        .is_allowed;
        }
    }
    for (size_t i = 0; i < MEMBERS; i++)
        let_in += t->members[i].let_in;
    return (double)let_in / seconds;
}

static void assert_near(double is, double wanted, double error)
{
    if (is < wanted * (1 - error) || is > wanted * (1 + error))
        fail_msg("%.2f is not %.2f", is, wanted);
}

static void three_sidecars_let_in_as_much_as_one_would(void **state)
{
    (void)state;
    town t;
    open_town(&t, 100, 5);
    static const double even[] = {400.0 / 3, 400.0 / 3, 400.0 / 3}, uneven[] = {300, 80, 20};
    assert_near(run(&t, 10, even), 100, 0.05); /* from the first call on */
    assert_near(run(&t, 10, even), 100, 0.02);
    for (size_t i = 0; i < MEMBERS; i++)
        assert_near((double)t.members[i].let_in / 10, 100.0 / 3, 0.1);
    run(&t, 1, uneven);
    assert_near(run(&t, 10, uneven), 100, 0.05);
    close_town(&t);
}

static void what_is_not_too_much_is_let_in_whoever_is_asked(void **state)
{
    (void)state;
    town t;
    open_town(&t, 100, 20);
    static const double one[] = {90, 0, 0}, another[] = {5, 80, 5};
    run(&t, 1, one);
    assert_near(run(&t, 5, one), 90, 0.01);
    run(&t, 1, another);
    assert_near(run(&t, 5, another), 90, 0.02);
    close_town(&t);
}

static void without_the_store_the_last_share_goes_on_and_with_it_all_join_again(void **state)
{
    (void)state;
    town t;
    open_town(&t, 100, 5);
    static const double even[] = {400.0 / 3, 400.0 / 3, 400.0 / 3}, one[] = {400, 0, 0};
    run(&t, 3, even);
    t.is_away = true;
    run(&t, 1, even);
    assert_near(run(&t, 10, even), 100, 0.05);
    assert_near(run(&t, 10, one), 100.0 / 3, 0.1); /* the others' shares stay theirs */
    t.is_away = false;
    run(&t, 2, one);
    assert_near(run(&t, 10, one), 100, 0.05);
    run(&t, 1, even);
    assert_near(run(&t, 10, even), 100, 0.05);
    close_town(&t);
}

static void who_asks_nothing_asks_the_store_nothing(void **state)
{
    (void)state;
    town t;
    open_town(&t, 100, 5);
    static const double one[] = {50, 0, 0};
    run(&t, 2, one);
    uint64_t before = t.members[0].renewals;
    assert_in_range(before, 15, 25); /* one in each slice */
    wire_sleep(&t.w, 10 * OUTR_SEC);
    assert_in_range(t.members[0].renewals, before, before + 1);
    assert_int_equal(t.members[1].renewals, 0);
    close_town(&t);
}

static void a_share_is_by_what_is_asked_and_the_rest_is_divided(void **state)
{
    (void)state;
    assert_near(outr_lease_part(100, 50, 150, 2), 25, 0.001);
    assert_near(outr_lease_part(100, 10, 30, 2), 10 + 20, 0.001);
    assert_near(outr_lease_part(100, 0, 0, 0), 100, 0.001);
    assert_near(outr_lease_part(100, 0, 1000, 5), 0.1, 0.001); /* heard of again */
}

static void keys_are_forgotten_beyond_their_number(void **state)
{
    (void)state;
    town t;
    open_town(&t, 1, 1);
    outr_lease_site nowhere;
    outr_lease_site_init(&nowhere, t.w.loop, NULL, NULL);
    member *m = &t.members[0];
    static const char *const keys[] = {"a", "b", "c", "d", "e"};
    uint64_t now = outr_loop_now(t.w.loop);
    for (size_t i = 0; i < OUTR_LEN(keys); i++)
        assert_true(outr_leases_take(m->leases, &nowhere, outr_str_from(keys[i]), now).is_allowed);
    assert_false(outr_leases_take(m->leases, &nowhere, OUTR_STR("e"), now).is_allowed);
    assert_false(outr_leases_take(m->leases, &nowhere, OUTR_STR("b"), now).is_allowed);
    assert_true(outr_leases_take(m->leases, &nowhere, OUTR_STR("a"), now).is_allowed);
    close_town(&t);
}

static void a_long_interval_stays_as_long_as_it_is(void **state)
{
    (void)state;
    wire w;
    wire_init(&w, 1);
    const outr_leases_options o = {.requests = 1,
                                   .interval_ns = OUTR_RATE_INTERVAL_MAX,
                                   .burst = 1,
                                   .keys = 4,
                                   .name = OUTR_STR("limit||"),
                                   .store = OUTR_STR("redis"),
                                   .member = OUTR_STR("m")};
    outr_leases *leases = outr_leases_new(&o);
    outr_lease_site nowhere;
    outr_lease_site_init(&nowhere, w.loop, NULL, NULL);
    uint64_t now = outr_loop_now(w.loop), hour = 3600 * OUTR_SEC;
    assert_true(outr_leases_take(leases, &nowhere, OUTR_STR("key"), now).is_allowed);
    outr_rate_verdict v = outr_leases_take(leases, &nowhere, OUTR_STR("key"), now + 3 * hour);
    assert_false(v.is_allowed);
    assert_near((double)v.after_ns, (double)(21 * hour), 0.001);
    assert_true(outr_leases_take(leases, &nowhere, OUTR_STR("key"), now + 25 * hour).is_allowed);
    outr_leases_unref(leases);
    wire_done(&w);
}

static void hear(void *ctx, outr_state_share_call *call, outr_op *op)
{
    double *asked = ctx; /* for "a", the last time */
    for (size_t i = 0; i < call->shares.count; i++) {
        if (outr_str_is(call->shares.items[i].key, "limit||a"))
            *asked = call->shares.items[i].asked;
    }
    outr_op_begin(op, asked, NULL);
    outr_op_finish_soon(op);
}

static void new_keys_do_not_make_what_others_are_asked_for_less(void **state)
{
    (void)state;
    wire w;
    wire_init(&w, 1);
    double asked = 0;
    const outr_leases_options o = {.requests = 100,
                                   .interval_ns = OUTR_SEC,
                                   .burst = 100,
                                   .keys = 4,
                                   .name = OUTR_STR("limit||"),
                                   .store = OUTR_STR("redis"),
                                   .member = OUTR_STR("m")};
    outr_leases *leases = outr_leases_new(&o);
    outr_lease_site site;
    outr_lease_site_init(&site, w.loop, hear, &asked);
    wire_sleep(&w, OUTR_SEC);
    uint64_t now = outr_loop_now(w.loop);
    outr_leases_take(leases, &site, OUTR_STR("a"), now);
    assert_near(asked, 10, 0.01);
    wire_sleep(&w, OUTR_MS);
    for (size_t i = 0; i < 9; i++)
        outr_leases_take(leases, &site, OUTR_STR("a"), now);
    /* it is told of at once, by a loop whose turn began earlier */
    outr_leases_take(leases, &site, OUTR_STR("b"), now - OUTR_MS / 10);
    wire_sleep(&w, OUTR_MS);
    outr_leases_take(leases, &site, OUTR_STR("c"), now + OUTR_MS);
    wire_sleep(&w, OUTR_MS);
    outr_leases_take(leases, &site, OUTR_STR("a"), now + 101 * OUTR_MS);
    assert_near(asked, (10 + 99) / 2.0, 0.01);
    wire_sleep(&w, OUTR_MS);
    outr_lease_site_done(&site);
    outr_leases_unref(leases);
    wire_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_sidecars_let_in_as_much_as_one_would),
        cmocka_unit_test(what_is_not_too_much_is_let_in_whoever_is_asked),
        cmocka_unit_test(without_the_store_the_last_share_goes_on_and_with_it_all_join_again),
        cmocka_unit_test(who_asks_nothing_asks_the_store_nothing),
        cmocka_unit_test(a_share_is_by_what_is_asked_and_the_rest_is_divided),
        cmocka_unit_test(keys_are_forgotten_beyond_their_number),
        cmocka_unit_test(a_long_interval_stays_as_long_as_it_is),
        cmocka_unit_test(new_keys_do_not_make_what_others_are_asked_for_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
