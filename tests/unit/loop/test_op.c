#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/wire.h"

/* An op, how often it was done and with what, and what its work does when it is cancelled. */
typedef struct thing {
    outr_op op;
    unsigned done_count, cancel_count;
    outr_code code;
    void (*then)(struct thing *thing); /* at its end */
    struct thing *other;
} thing;

static wire w;

static int open_wire(void **state)
{
    (void)state;
    wire_init(&w, 1);
    return 0;
}

static int close_wire(void **state)
{
    (void)state;
    wire_done(&w);
    return 0;
}

static void on_done(outr_op *op)
{
    thing *t = OUTR_CONTAINER(op, thing, op);
    t->done_count++;
    t->code = op->err.code;
    if (t->then)
        t->then(t);
}

static void on_cancel_end(outr_op *op)
{
    OUTR_CONTAINER(op, thing, op)->cancel_count++;
    outr_op_finish(op);
}

static void on_cancel_wait(outr_op *op)
{
    OUTR_CONTAINER(op, thing, op)->cancel_count++;
}

static thing *make(thing *parent, uint64_t deadline_ns)
{
    thing *t = outr_alloc(sizeof *t);
    outr_op_init(&t->op, w.loop, parent ? &parent->op : NULL, deadline_ns, on_done);
    return t;
}

static thing *begin(thing *parent, uint64_t deadline_ns, outr_op_fn *on_cancel)
{
    thing *t = make(parent, deadline_ns);
    outr_op_begin(&t->op, t, on_cancel);
    return t;
}

static void finish(thing *t)
{
    outr_op_finish(&t->op);
}

static void cancel(thing *t)
{
    outr_op_cancel(&t->op, OUTR_CANCELLED);
}

static void assert_done(const thing *t, outr_code code)
{
    assert_int_equal(t->done_count, 1);
    assert_int_equal(t->code, code);
    assert_false(outr_op_is_pending(&t->op));
}

/* ---- ending ------------------------------------------------------------------------------------ */

static void done_runs_once_with_the_result(void **state)
{
    thing *a = begin(NULL, 0, NULL), *b = begin(NULL, 0, NULL);
    outr_err err;
    (void)state;
    outr_fail(&err, OUTR_NOT_FOUND, "no such thing");
    assert_true(outr_op_is_pending(&a->op));
    assert_int_equal(a->done_count, 0);
    finish(a);
    outr_op_fail(&b->op, &err);
    assert_done(a, OUTR_OK);
    assert_done(b, OUTR_NOT_FOUND);
    assert_string_equal(b->op.err.text, "no such thing");
    cancel(a);
    wire_run(&w);
    assert_done(a, OUTR_OK);
    free(a);
    free(b);
}

static void what_ends_at_its_start_is_done_in_the_deferred_phase(void **state)
{
    thing *a = begin(NULL, 0, on_cancel_end), *b = begin(NULL, w.now + 1, on_cancel_end);
    outr_err err;
    (void)state;
    outr_fail(&err, OUTR_UNAVAILABLE, "no");
    outr_op_finish_soon(&a->op);
    outr_op_fail_soon(&b->op, &err);
    assert_int_equal(a->done_count + b->done_count, 0);
    assert_true(outr_op_is_pending(&a->op));
    cancel(a); /* too late: it has its result */
    w.now += 2;
    wire_run(&w);
    assert_done(a, OUTR_OK);
    assert_done(b, OUTR_UNAVAILABLE);
    assert_int_equal(a->cancel_count + b->cancel_count, 0);
    free(a);
    free(b);
}

static void start_again(thing *t)
{
    if (t->done_count == 3)
        return;
    outr_op_init(&t->op, w.loop, NULL, 0, on_done);
    outr_op_begin(&t->op, t, NULL);
    outr_op_finish_soon(&t->op);
}

static void after_done_an_op_may_be_used_again(void **state)
{
    thing *t = begin(NULL, w.now + OUTR_SEC, NULL);
    (void)state;
    t->then = start_again;
    finish(t);
    wire_sleep(&w, 2 * OUTR_SEC);
    assert_int_equal(t->done_count, 3);
    assert_int_equal(t->code, OUTR_OK);
    free(t);
}

static void free_it(thing *t)
{
    free(t);
}

static void after_done_an_op_may_be_gone(void **state)
{
    thing *a = begin(NULL, w.now + OUTR_SEC, NULL), *b = begin(NULL, w.now, on_cancel_end);
    (void)state;
    a->then = b->then = free_it;
    finish(a);
    wire_sleep(&w, 2 * OUTR_SEC);
}

/* ---- cancelling -------------------------------------------------------------------------------- */

static void cancel_ends_what_can_be_ended_at_once_or_later(void **state)
{
    thing *at_once = begin(NULL, 0, on_cancel_end), *later = begin(NULL, 0, on_cancel_wait);
    (void)state;
    cancel(at_once);
    cancel(later);
    assert_done(at_once, OUTR_CANCELLED);
    assert_int_equal(later->done_count, 0);
    assert_true(outr_op_is_cancelled(&later->op));
    outr_op_cancel(&later->op, OUTR_DEADLINE_EXCEEDED);
    assert_int_equal(later->cancel_count, 1);
    finish(later);
    assert_done(later, OUTR_CANCELLED); /* the first reason stays */
    free(at_once);
    free(later);
}

static void what_cannot_be_ended_runs_on_and_loses_its_result(void **state)
{
    thing *a = begin(NULL, 0, NULL), *b = begin(NULL, 0, NULL);
    outr_err err;
    (void)state;
    cancel(a);
    outr_op_cancel(&b->op, OUTR_DEADLINE_EXCEEDED);
    assert_int_equal(a->done_count + b->done_count, 0);
    finish(a);
    outr_fail(&err, OUTR_INTERNAL, "broken");
    outr_op_fail(&b->op, &err);
    assert_done(a, OUTR_CANCELLED);
    assert_done(b, OUTR_DEADLINE_EXCEEDED);
    free(a);
    free(b);
}

static void cancelling_what_never_began_is_nothing(void **state)
{
    thing *t = make(NULL, 0);
    (void)state;
    cancel(t);
    assert_int_equal(t->done_count, 0);
    assert_false(outr_op_is_cancelled(&t->op));
    free(t);
}

/* ---- deadlines --------------------------------------------------------------------------------- */

static void a_deadline_is_the_least_of_all_parents(void **state)
{
    thing *root = make(NULL, 1000), *none = make(root, 0), *early = make(none, 500),
          *late = make(early, 2000), *free_one = make(NULL, 0), *own = make(free_one, 7);
    (void)state;
    assert_int_equal(none->op.deadline_ns, 1000);
    assert_int_equal(early->op.deadline_ns, 500);
    assert_int_equal(late->op.deadline_ns, 500);
    assert_int_equal(free_one->op.deadline_ns, 0);
    assert_int_equal(own->op.deadline_ns, 7);
    free(root), free(none), free(early), free(late), free(free_one), free(own);
}

static void a_deadline_ends_it_then_and_not_before(void **state)
{
    thing *t = begin(NULL, w.now + OUTR_SEC, on_cancel_end);
    (void)state;
    wire_sleep(&w, OUTR_SEC - 1);
    assert_int_equal(t->done_count, 0);
    wire_sleep(&w, 1);
    assert_done(t, OUTR_DEADLINE_EXCEEDED);
    free(t);
}

static void a_deadline_in_the_past_ends_it_in_this_turn(void **state)
{
    thing *t = begin(NULL, 1, on_cancel_end);
    (void)state;
    assert_int_equal(t->done_count, 0);
    wire_run(&w);
    assert_done(t, OUTR_DEADLINE_EXCEEDED);
    free(t);
}

static void an_inherited_deadline_ends_the_child_through_its_parent(void **state)
{
    thing *parent = begin(NULL, w.now + OUTR_SEC, NULL), *child = begin(parent, 0, on_cancel_end);
    (void)state;
    wire_sleep(&w, OUTR_SEC);
    assert_done(child, OUTR_DEADLINE_EXCEEDED);
    finish(parent);
    assert_done(parent, OUTR_DEADLINE_EXCEEDED);
    free(child);
    free(parent);
}

static void an_inherited_deadline_outlives_the_parent(void **state)
{
    thing *parent = begin(NULL, w.now + OUTR_SEC, NULL), *child = begin(parent, 0, on_cancel_end);
    (void)state;
    finish(parent);
    free(parent);
    wire_sleep(&w, OUTR_SEC);
    assert_done(child, OUTR_DEADLINE_EXCEEDED);
    free(child);
}

/* The parent only lends its deadline, or has its result already: no timer of its own is running. */
static void a_deadline_holds_under_a_parent_that_is_not_at_work(void **state)
{
    thing *lender = make(NULL, w.now + OUTR_SEC), *ending = begin(NULL, w.now + OUTR_SEC, NULL);
    thing *a = begin(lender, 0, on_cancel_end), *b;
    (void)state;
    outr_op_finish_soon(&ending->op);
    b = begin(ending, 0, on_cancel_end);
    wire_sleep(&w, OUTR_SEC);
    assert_done(a, OUTR_DEADLINE_EXCEEDED);
    assert_done(b, OUTR_DEADLINE_EXCEEDED);
    free(lender), free(ending), free(a), free(b);
}

/* ---- children ---------------------------------------------------------------------------------- */

static void children_and_theirs_die_with_the_parent(void **state)
{
    thing *parent = begin(NULL, 0, NULL), *a = begin(parent, 0, on_cancel_end),
          *b = begin(parent, 0, NULL), *grandchild = begin(b, 0, on_cancel_end);
    (void)state;
    cancel(parent);
    assert_done(a, OUTR_CANCELLED);
    assert_done(grandchild, OUTR_CANCELLED);
    finish(b);
    finish(parent);
    assert_done(b, OUTR_CANCELLED);
    assert_done(parent, OUTR_CANCELLED);
    free(a), free(b), free(grandchild), free(parent);
}

static void a_child_that_ended_leaves_its_parent_alone(void **state)
{
    thing *parent = begin(NULL, 0, on_cancel_end), *child = begin(parent, 0, on_cancel_end);
    (void)state;
    cancel(child);
    assert_done(child, OUTR_CANCELLED);
    assert_int_equal(parent->done_count, 0);
    free(child);
    cancel(parent);
    assert_done(parent, OUTR_CANCELLED);
    free(parent);
}

static void end_the_other(thing *t)
{
    thing *other = t->other;
    free(t);
    if (other)
        cancel(other);
}

static void a_child_may_end_its_siblings_while_the_parent_is_cancelled(void **state)
{
    thing *parent = begin(NULL, 0, NULL), *a = begin(parent, 0, on_cancel_end),
          *b = begin(parent, 0, on_cancel_end), *c = begin(parent, 0, on_cancel_end);
    (void)state;
    a->other = b;
    b->other = c;
    a->then = b->then = c->then = end_the_other;
    cancel(parent);
    assert_true(outr_list_is_empty(&parent->op.children));
    finish(parent);
    assert_done(parent, OUTR_CANCELLED);
    free(parent);
}

static void finish_and_free_the_other(thing *t)
{
    t->other->then = free_it;
    finish(t->other);
}

static void a_child_may_end_the_parent_while_it_is_cancelled(void **state)
{
    thing *parent = begin(NULL, 0, NULL), *a = begin(parent, 0, on_cancel_end),
          *b = begin(parent, 0, on_cancel_end);
    (void)state;
    a->other = parent;
    a->then = finish_and_free_the_other;
    cancel(parent);
    assert_done(a, OUTR_CANCELLED);
    assert_int_equal(b->done_count, 0); /* on its own from here */
    cancel(b);
    assert_done(b, OUTR_CANCELLED);
    free(a), free(b);
}

static void begin_the_other(thing *t)
{
    outr_op_begin(&t->other->op, t->other, on_cancel_end);
}

static void what_begins_under_a_cancelled_parent_is_cancelled_too(void **state)
{
    thing *parent = begin(NULL, 0, NULL), *first = begin(parent, 0, on_cancel_end),
          *second = make(parent, 0);
    (void)state;
    first->other = second;
    first->then = begin_the_other;
    cancel(parent);
    assert_done(first, OUTR_CANCELLED);
    assert_int_equal(second->done_count, 0); /* never before its start has returned */
    wire_sleep(&w, 1);
    assert_done(second, OUTR_CANCELLED);
    finish(parent);
    free(first), free(second), free(parent);
}

static void begin_another(thing *t)
{
    thing *parent = t->other;
    if (parent->cancel_count++ < 1000) { /* without an end of its own: for as long as it is tried */
        thing *next = begin(parent, 0, on_cancel_end);
        next->other = parent;
        next->then = begin_another;
    }
    free(t);
}

static void who_tries_for_ever_under_a_cancelled_parent_lets_others_go_on(void **state)
{
    thing *parent = begin(NULL, 0, NULL), *child = begin(parent, 0, on_cancel_end);
    (void)state;
    child->other = parent;
    child->then = begin_another;
    cancel(parent);
    wire_run(&w);
    assert_true(parent->cancel_count < 10);
    wire_sleep(&w, 2000);
    finish(parent);
    free(parent);
}

static void an_orphan_may_end_after_its_parent_is_gone(void **state)
{
    thing *parent = begin(NULL, 0, NULL), *child = begin(parent, 0, on_cancel_end);
    (void)state;
    finish(parent);
    free(parent);
    assert_null(child->op.parent);
    finish(child);
    assert_done(child, OUTR_OK);
    free(child);
}

/* ---- sleeping ---------------------------------------------------------------------------------- */

static void sleep_ends_in_time_and_can_be_cut_short(void **state)
{
    thing *a = make(NULL, 0), *b = make(NULL, 0), *c = make(NULL, w.now + 1), *d = make(NULL, 0);
    (void)state;
    outr_sleep_start(w.now + OUTR_SEC, &a->op);
    outr_sleep_start(w.now + OUTR_SEC, &b->op);
    outr_sleep_start(w.now + OUTR_SEC, &c->op);
    outr_sleep_start(0, &d->op);
    cancel(b);
    assert_done(b, OUTR_CANCELLED);
    wire_sleep(&w, OUTR_SEC - 1);
    assert_int_equal(a->done_count, 0);
    assert_done(c, OUTR_DEADLINE_EXCEEDED);
    assert_done(d, OUTR_OK);
    wire_sleep(&w, 1);
    assert_done(a, OUTR_OK);
    free(a), free(b), free(c), free(d);
}

#define WITH_WIRE(f) cmocka_unit_test_setup_teardown(f, open_wire, close_wire)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WIRE(done_runs_once_with_the_result),
        WITH_WIRE(what_ends_at_its_start_is_done_in_the_deferred_phase),
        WITH_WIRE(after_done_an_op_may_be_used_again),
        WITH_WIRE(after_done_an_op_may_be_gone),
        WITH_WIRE(cancel_ends_what_can_be_ended_at_once_or_later),
        WITH_WIRE(what_cannot_be_ended_runs_on_and_loses_its_result),
        WITH_WIRE(cancelling_what_never_began_is_nothing),
        WITH_WIRE(a_deadline_is_the_least_of_all_parents),
        WITH_WIRE(a_deadline_ends_it_then_and_not_before),
        WITH_WIRE(a_deadline_in_the_past_ends_it_in_this_turn),
        WITH_WIRE(an_inherited_deadline_ends_the_child_through_its_parent),
        WITH_WIRE(an_inherited_deadline_outlives_the_parent),
        WITH_WIRE(a_deadline_holds_under_a_parent_that_is_not_at_work),
        WITH_WIRE(children_and_theirs_die_with_the_parent),
        WITH_WIRE(a_child_that_ended_leaves_its_parent_alone),
        WITH_WIRE(a_child_may_end_its_siblings_while_the_parent_is_cancelled),
        WITH_WIRE(a_child_may_end_the_parent_while_it_is_cancelled),
        WITH_WIRE(what_begins_under_a_cancelled_parent_is_cancelled_too),
        WITH_WIRE(who_tries_for_ever_under_a_cancelled_parent_lets_others_go_on),
        WITH_WIRE(an_orphan_may_end_after_its_parent_is_gone),
        WITH_WIRE(sleep_ends_in_time_and_can_be_cut_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
