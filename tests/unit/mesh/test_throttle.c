#include "lib/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/reasons.h"
#include "mesh/throttle.h"

typedef struct caller {
    outr_ticket ticket;
    outr_op op;
    bool is_over;
} caller;

typedef struct site {
    wire w;
    outr_loop *second;
    outr_throttle *throttle;
    outr_throttle_port *ports[2];
    caller callers[8];
} site;

static void open_site(site *s, uint32_t limit, uint32_t queue)
{
    *s = (site){0};
    wire_init(&s->w, 1);
    const outr_loop_options second = {.env = &s->w.env, .index = 1, .is_simulated = true};
    s->second = outr_loop_new(&second);
    const outr_gradient_options o = {limit, limit, limit, queue, 5 * OUTR_MS, 100 * OUTR_MS};
    s->throttle = outr_throttle_new(&o, s->w.now);
    s->ports[0] = outr_throttle_port_new(s->w.loop);
    s->ports[1] = outr_throttle_port_new(s->second);
}

static void turn(site *s)
{
    wire_run(&s->w);
    outr_loop_tick(s->second);
    wire_run(&s->w);
}

static void close_site(site *s)
{
    turn(s);
    assert_int_equal(outr_throttle_look(s->throttle).in_flight, 0);
    assert_int_equal(outr_throttle_look(s->throttle).waiting, 0);
    outr_throttle_port_free(s->ports[0]);
    outr_throttle_port_free(s->ports[1]);
    outr_throttle_unref(s->throttle);
    outr_loop_free(s->second);
    wire_done(&s->w);
}

static void on_done(outr_op *op)
{
    OUTR_CONTAINER(op, caller, op)->is_over = true;
}

static outr_taken take(site *s, unsigned who, unsigned loop)
{
    caller *c = &s->callers[who];
    outr_op_init(&c->op, loop ? s->second : s->w.loop, NULL, 0, on_done);
    return outr_ticket_take(&c->ticket, s->throttle, s->ports[loop], false, &c->op);
}

static void a_place_goes_to_who_waits_on_the_same_loop(void **state)
{
    (void)state;
    site s;
    open_site(&s, 1, 8);
    assert_int_equal(take(&s, 0, 0), OUTR_TAKEN);
    assert_int_equal(take(&s, 1, 0), OUTR_TAKEN_LATER);
    turn(&s);
    assert_false(s.callers[1].is_over);
    outr_ticket_give_back(&s.callers[0].ticket, true);
    assert_false(s.callers[1].is_over); /* not within somebody else's call */
    turn(&s);
    assert_true(s.callers[1].is_over);
    assert_int_equal(s.callers[1].op.err.code, OUTR_OK);
    outr_ticket_give_back(&s.callers[0].ticket, true); /* once */
    assert_int_equal(outr_throttle_look(s.throttle).in_flight, 1);
    outr_ticket_give_back(&s.callers[1].ticket, true);
    close_site(&s);
}

static void a_place_goes_to_who_waits_on_another_loop(void **state)
{
    (void)state;
    site s;
    open_site(&s, 1, 8);
    assert_int_equal(take(&s, 0, 0), OUTR_TAKEN);
    assert_int_equal(take(&s, 1, 1), OUTR_TAKEN_LATER);
    outr_ticket_give_back(&s.callers[0].ticket, true);
    wire_run(&s.w);
    assert_false(s.callers[1].is_over);
    outr_loop_tick(s.second);
    assert_true(s.callers[1].is_over);
    outr_ticket_give_back(&s.callers[1].ticket, true);
    close_site(&s);
}

static void who_leaves_before_it_is_told_leaves_its_place_to_the_next(void **state)
{
    (void)state;
    site s;
    open_site(&s, 1, 8);
    take(&s, 0, 0);
    take(&s, 1, 1);
    take(&s, 2, 0);
    take(&s, 3, 0);
    outr_op_cancel(&s.callers[2].op, OUTR_CANCELLED); /* waiting */
    outr_ticket_give_back(&s.callers[0].ticket, true);
    outr_op_cancel(&s.callers[1].op, OUTR_CANCELLED); /* let in, not told */
    turn(&s);
    assert_true(s.callers[1].is_over && s.callers[2].is_over && s.callers[3].is_over);
    assert_int_equal(s.callers[1].op.err.code, OUTR_CANCELLED);
    assert_int_equal(s.callers[2].op.err.code, OUTR_CANCELLED);
    assert_int_equal(s.callers[3].op.err.code, OUTR_OK);
    outr_ticket_return(&s.callers[3].ticket);
    close_site(&s);
}

static void nobody_waits_longer_than_the_interval(void **state)
{
    (void)state;
    site s;
    open_site(&s, 1, 8);
    take(&s, 0, 0);
    take(&s, 1, 0);
    wire_sleep(&s.w, 99 * OUTR_MS);
    assert_false(s.callers[1].is_over);
    wire_sleep(&s.w, 2 * OUTR_MS);
    assert_true(s.callers[1].is_over);
    assert_int_equal(s.callers[1].op.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(outr_why_of(&s.callers[1].op.err), OUTR_WHY_OVERLOADED);
    outr_ticket_give_back(&s.callers[0].ticket, true);
    close_site(&s);
}

static void who_is_refused_for_a_newer_one_is_told_on_its_loop(void **state)
{
    (void)state;
    site s;
    open_site(&s, 1, 8);
    take(&s, 0, 0);
    take(&s, 1, 1);
    wire_sleep(&s.w, 99 * OUTR_MS);
    take(&s, 2, 0);
    s.w.now += OUTR_MS + OUTR_MS / 2; /* the second loop's timer has not been looked at */
    outr_loop_update(s.w.loop);
    take(&s, 3, 0);
    turn(&s);
    assert_true(s.callers[1].is_over);
    assert_int_equal(s.callers[1].op.err.code, OUTR_UNAVAILABLE);
    assert_false(s.callers[2].is_over);
    outr_op_cancel(&s.callers[2].op, OUTR_CANCELLED);
    outr_op_cancel(&s.callers[3].op, OUTR_CANCELLED);
    outr_ticket_give_back(&s.callers[0].ticket, true);
    close_site(&s);
}

static void without_a_queue_who_comes_too_much_is_refused_at_once(void **state)
{
    (void)state;
    site s;
    open_site(&s, 1, 0);
    assert_int_equal(take(&s, 0, 0), OUTR_TAKEN);
    assert_int_equal(take(&s, 1, 1), OUTR_TAKEN_NOT);
    outr_ticket_give_back(&s.callers[1].ticket, true);
    outr_ticket_give_back(&s.callers[0].ticket, false);
    close_site(&s);
}

static void a_throttle_lasts_as_long_as_its_tickets(void **state)
{
    (void)state;
    site s;
    open_site(&s, 1, 8);
    outr_throttle *held = s.throttle;
    take(&s, 0, 0);
    take(&s, 1, 1);
    outr_throttle_unref(held); /* the policy is gone */
    outr_ticket_give_back(&s.callers[0].ticket, true);
    turn(&s);
    assert_int_equal(s.callers[1].op.err.code, OUTR_OK);
    outr_ticket_give_back(&s.callers[1].ticket, true);
    const outr_gradient_options o = {1, 1, 1, 1, 1, 1};
    s.throttle = outr_throttle_new(&o, s.w.now);
    close_site(&s);
}

static void who_has_no_answer_for_long_leaves_its_place_to_others(void **state)
{
    (void)state;
    site s;
    open_site(&s, 1, 8);
    take(&s, 0, 0);
    wire_sleep(&s.w, OUTR_THROTTLE_HOLD_NS - 50 * OUTR_MS);
    assert_int_equal(take(&s, 1, 0), OUTR_TAKEN_LATER);
    wire_sleep(&s.w, 60 * OUTR_MS);
    assert_true(s.callers[1].is_over);
    assert_int_equal(s.callers[1].op.err.code, OUTR_OK);
    outr_ticket_give_back(&s.callers[0].ticket, true); /* it has had its turn */
    assert_int_equal(outr_throttle_look(s.throttle).in_flight, 1);
    outr_ticket_give_back(&s.callers[1].ticket, true);
    close_site(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_goes_to_who_waits_on_the_same_loop),
        cmocka_unit_test(a_place_goes_to_who_waits_on_another_loop),
        cmocka_unit_test(who_leaves_before_it_is_told_leaves_its_place_to_the_next),
        cmocka_unit_test(nobody_waits_longer_than_the_interval),
        cmocka_unit_test(who_is_refused_for_a_newer_one_is_told_on_its_loop),
        cmocka_unit_test(without_a_queue_who_comes_too_much_is_refused_at_once),
        cmocka_unit_test(a_throttle_lasts_as_long_as_its_tickets),
        cmocka_unit_test(who_has_no_answer_for_long_leaves_its_place_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
