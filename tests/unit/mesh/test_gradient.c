#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/gradient.h"

#define WAITERS 64

typedef struct gate {
    outr_gradient c;
    outr_waiter waiters[WAITERS];
    size_t count;
    outr_list let_in, refused;
    uint64_t now;
} gate;

static gate *open_gate(uint32_t limit, uint32_t queue)
{
    static gate g;
    g = (gate){.now = OUTR_SEC};
    const outr_gradient_options o = {limit, limit, limit, queue, 5 * OUTR_MS, 100 * OUTR_MS};
    outr_gradient_init(&g.c, &o, g.now);
    outr_list_init(&g.let_in);
    outr_list_init(&g.refused);
    return &g;
}

static outr_entry come_as(gate *g, bool is_urgent)
{
    outr_waiter *w = &g->waiters[g->count++];
    *w = (outr_waiter){.is_urgent = is_urgent};
    return outr_gradient_enter(&g->c, w, g->now, &g->let_in, &g->refused);
}

static outr_entry come(gate *g)
{
    return come_as(g, false);
}

static void leave(gate *g)
{
    outr_gradient_leave(&g->c, g->now, true, g->now, &g->let_in, &g->refused);
}

static int number(gate *g, outr_list *list) /* of the next one in a list; -1: nobody */
{
    outr_link *link = outr_list_pop(list);
    return link ? (int)(OUTR_LIST_ITEM(link, outr_waiter, link) - g->waiters) : -1;
}

static void as_many_as_the_limit_go_in_and_then_the_first_to_come_is_next(void **state)
{
    (void)state;
    gate *g = open_gate(2, 10);
    assert_int_equal(come(g), OUTR_ENTRY_IN);
    assert_int_equal(come(g), OUTR_ENTRY_IN);
    assert_int_equal(come(g), OUTR_ENTRY_WAITS);
    assert_int_equal(come(g), OUTR_ENTRY_WAITS);
    leave(g);
    assert_int_equal(number(g, &g->let_in), 2);
    leave(g);
    assert_int_equal(number(g, &g->let_in), 3);
    leave(g);
    assert_int_equal(number(g, &g->let_in), -1);
    assert_int_equal(g->c.in_flight, 1);
    assert_int_equal(come(g), OUTR_ENTRY_IN);
}

static void who_finds_the_queue_full_is_refused(void **state)
{
    (void)state;
    gate *g = open_gate(1, 2);
    come(g);
    assert_int_equal(come(g), OUTR_ENTRY_WAITS);
    assert_int_equal(come(g), OUTR_ENTRY_WAITS);
    assert_int_equal(come(g), OUTR_ENTRY_REFUSED);
    assert_int_equal(number(g, &g->refused), -1);
    assert_int_equal(g->c.waiting, 2);
    g = open_gate(1, 0);
    come(g);
    assert_int_equal(come(g), OUTR_ENTRY_REFUSED);
}

static void when_the_queue_stays_full_the_newest_is_next_and_the_late_are_refused(void **state)
{
    (void)state;
    gate *g = open_gate(1, 10);
    come(g);
    for (int i = 0; i < 3; i++)
        come(g); /* 1, 2, 3 */
    g->now += 98 * OUTR_MS;
    assert_false(outr_gradient_is_over(&g->c, g->now));
    come(g); /* 4 */
    g->now += 2 * OUTR_MS;
    assert_true(outr_gradient_is_over(&g->c, g->now));
    come(g); /* 5 */
    assert_int_equal(number(g, &g->refused), 1);
    assert_int_equal(number(g, &g->refused), 2);
    assert_int_equal(number(g, &g->refused), 3);
    assert_int_equal(number(g, &g->refused), -1);
    leave(g);
    assert_int_equal(number(g, &g->let_in), 5);
    leave(g);
    assert_int_equal(number(g, &g->let_in), 4);
    leave(g);
    assert_false(outr_gradient_is_over(&g->c, g->now));
}

static void the_newest_is_not_refused_while_nobody_is_newer(void **state)
{
    (void)state;
    gate *g = open_gate(2, 10);
    come(g);
    come(g);
    come(g); /* 2 */
    g->now += 150 * OUTR_MS;
    leave(g);
    assert_int_equal(number(g, &g->refused), -1);
    assert_int_equal(number(g, &g->let_in), 2);
}

static void who_came_by_a_clock_that_is_ahead_has_not_waited_long(void **state)
{
    (void)state;
    gate *g = open_gate(1, 10);
    come(g);
    come(g);
    g->now += 101 * OUTR_MS;
    come(g);
    come(g);
    assert_int_equal(number(g, &g->refused), 1);
    g->now -= OUTR_MS / 10; /* another loop's turn began earlier */
    assert_int_equal(come(g), OUTR_ENTRY_WAITS);
    assert_int_equal(number(g, &g->refused), -1);
    assert_int_equal(g->c.waiting, 3);
}

static void of_a_full_queue_that_is_over_the_oldest_makes_room(void **state)
{
    (void)state;
    gate *g = open_gate(1, 2);
    come(g);
    come(g); /* 1 */
    g->now += 98 * OUTR_MS;
    come(g); /* 2 */
    g->now += 3 * OUTR_MS;
    assert_int_equal(come(g), OUTR_ENTRY_WAITS); /* 3; 1 is late */
    assert_int_equal(number(g, &g->refused), 1);
    assert_int_equal(come(g), OUTR_ENTRY_WAITS); /* 4 */
    assert_int_equal(number(g, &g->refused), 2);
    assert_int_equal(g->c.waiting, 2);
}

static void urgent_ones_go_first_and_others_make_room_for_them(void **state)
{
    (void)state;
    gate *g = open_gate(1, 2);
    come(g);
    come(g);                                              /* 1 */
    come(g);                                              /* 2 */
    assert_int_equal(come_as(g, true), OUTR_ENTRY_WAITS); /* 3 */
    assert_int_equal(number(g, &g->refused), 2);          /* would have been last */
    assert_int_equal(come_as(g, true), OUTR_ENTRY_WAITS); /* 4 */
    assert_int_equal(number(g, &g->refused), 1);
    assert_int_equal(come_as(g, true), OUTR_ENTRY_REFUSED); /* 5: only its like are there */
    g->now += 200 * OUTR_MS;
    leave(g);
    assert_int_equal(number(g, &g->let_in), 3);
    leave(g);
    assert_int_equal(number(g, &g->let_in), 4);
    assert_int_equal(number(g, &g->refused), -1);
}

static void who_leaves_the_queue_is_not_let_in(void **state)
{
    (void)state;
    gate *g = open_gate(1, 10);
    come(g);
    come(g); /* 1 */
    come(g); /* 2 */
    outr_gradient_forget(&g->c, &g->waiters[1]);
    outr_gradient_forget(&g->c, &g->waiters[1]);
    assert_int_equal(g->c.waiting, 1);
    leave(g);
    assert_int_equal(number(g, &g->let_in), 2);
}

static void a_place_that_is_given_back_is_the_next_ones(void **state)
{
    (void)state;
    gate *g = open_gate(1, 10);
    come(g);
    come(g);
    outr_gradient_return(&g->c, g->now, &g->let_in, &g->refused);
    assert_int_equal(number(g, &g->let_in), 1);
    assert_int_equal(g->c.window.count, 0);
}

/* ---- the limit ------------------------------------------------------------------------------- */

/* So many rounds of as many calls as fit, each of which takes so long. */
static void drive(gate *g, unsigned rounds, uint64_t (*took)(const gate *g))
{
    while (rounds-- > 0) {
        uint64_t began = g->now;
        while (g->c.in_flight < (uint32_t)g->c.limit && g->c.waiting == 0) {
            g->count = 0;
            come(g);
        }
        g->now += took(g);
        for (unsigned n = g->c.in_flight; n > 0; n--)
            outr_gradient_leave(&g->c, began, true, g->now, &g->let_in, &g->refused);
    }
}

static gate *open_wide(uint32_t initial)
{
    gate *g = open_gate(initial, 0);
    g->c.o.min = 3;
    g->c.o.max = 500;
    return g;
}

static uint64_t never_slower(const gate *g)
{
    (void)g;
    return 20 * OUTR_MS;
}

static uint64_t ten_workers(const gate *g)
{
    return OUTR_MAX((uint64_t)g->c.in_flight, (uint64_t)10) * 2 * OUTR_MS;
}

static void the_limit_grows_while_answers_take_no_longer(void **state)
{
    (void)state;
    gate *g = open_wide(5);
    drive(g, 5000, never_slower);
    assert_true(g->c.limit > 300 || g->c.before_dip > 300);
    assert_true(g->c.limit <= 500);
}

static void the_limit_ends_near_what_the_app_can_do(void **state)
{
    (void)state;
    gate *g = open_wide(5);
    drive(g, 5000, ten_workers);
    double limit = g->c.before_dip > 0 ? g->c.before_dip : g->c.limit;
    assert_true(limit >= 10 && limit <= 25);
}

static void a_limit_that_is_far_too_high_comes_down(void **state)
{
    (void)state;
    gate *g = open_wide(200);
    drive(g, 2000, ten_workers);
    double limit = g->c.before_dip > 0 ? g->c.before_dip : g->c.limit;
    assert_true(limit >= 10 && limit <= 30);
}

static void quick_failures_say_nothing_of_how_long_answers_take(void **state)
{
    (void)state;
    gate *g = open_wide(5);
    drive(g, 200, ten_workers);
    uint64_t base = g->c.base_ns[0];
    for (unsigned i = 0; i < 1000; i++) {
        g->count = 0;
        come(g);
        g->now += OUTR_MS;
        outr_gradient_leave(&g->c, g->now - OUTR_MS, false, g->now, &g->let_in, &g->refused);
    }
    assert_int_equal(g->c.base_ns[0], base);
}

static void calls_that_do_not_end_do_not_keep_a_dip_going(void **state)
{
    (void)state;
    gate *g = open_wide(20);
    while (!g->c.before_dip)
        drive(g, 1, ten_workers);
    double before = g->c.before_dip;
    while (g->c.in_flight < (uint32_t)before) { /* as many hang as the app had, no more come in */
        g->count = 0;
        g->c.in_flight++;
    }
    assert_int_equal(come(g), OUTR_ENTRY_REFUSED);
    g->now += 10 * OUTR_SEC;
    g->c.o.queue = 1;
    come(g);
    assert_true(g->c.before_dip <= 0);
    assert_true(g->c.limit >= before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_as_the_limit_go_in_and_then_the_first_to_come_is_next),
        cmocka_unit_test(who_finds_the_queue_full_is_refused),
        cmocka_unit_test(when_the_queue_stays_full_the_newest_is_next_and_the_late_are_refused),
        cmocka_unit_test(the_newest_is_not_refused_while_nobody_is_newer),
        cmocka_unit_test(who_came_by_a_clock_that_is_ahead_has_not_waited_long),
        cmocka_unit_test(of_a_full_queue_that_is_over_the_oldest_makes_room),
        cmocka_unit_test(urgent_ones_go_first_and_others_make_room_for_them),
        cmocka_unit_test(who_leaves_the_queue_is_not_let_in),
        cmocka_unit_test(a_place_that_is_given_back_is_the_next_ones),
        cmocka_unit_test(the_limit_grows_while_answers_take_no_longer),
        cmocka_unit_test(the_limit_ends_near_what_the_app_can_do),
        cmocka_unit_test(a_limit_that_is_far_too_high_comes_down),
        cmocka_unit_test(quick_failures_say_nothing_of_how_long_answers_take),
        cmocka_unit_test(calls_that_do_not_end_do_not_keep_a_dip_going),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
