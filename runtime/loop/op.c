#include "loop/op.h"

enum { IDLE, BEGUN, FINISHING, DONE };

static void on_deadline(outr_timer *timer)
{
    outr_op_cancel(OUTR_CONTAINER(timer, outr_op, timer), OUTR_DEADLINE_EXCEEDED);
}

static void on_late(outr_timer *timer)
{
    outr_op *op = OUTR_CONTAINER(timer, outr_op, timer);
    bool is_past = op->deadline_ns && op->deadline_ns <= outr_loop_now(op->loop);
    outr_code code = is_past ? OUTR_DEADLINE_EXCEEDED : OUTR_CANCELLED;
    outr_op_cancel(op, op->parent ? op->parent->err.code : code);
}

/* While the parent works, its timer covers a deadline inherited from it. */
static void watch_deadline(outr_op *op)
{
    const outr_op *parent = op->parent;
    if (op->state != BEGUN || outr_timer_is_on(&op->timer))
        return;
    if (parent && parent->state == BEGUN && outr_op_is_cancelled(parent)) {
        op->timer.fire = on_late; /* not in this turn: whoever tries for ever lets others go on */
        outr_timer_start(op->loop, &op->timer, outr_loop_now(op->loop) + 1);
        return;
    }
    bool is_covered = parent && parent->state == BEGUN && parent->deadline_ns == op->deadline_ns;
    if (op->deadline_ns && !is_covered) {
        op->timer.fire = on_deadline;
        outr_timer_start(op->loop, &op->timer, op->deadline_ns);
    }
}

void outr_op_init(outr_op *op, outr_loop *loop, outr_op *parent, uint64_t deadline_ns,
                  outr_op_fn *done)
{
    *op = (outr_op){.loop = loop, .done = done, .parent = parent, .deadline_ns = deadline_ns};
    if (parent && parent->deadline_ns && (!deadline_ns || parent->deadline_ns < deadline_ns))
        op->deadline_ns = parent->deadline_ns;
    outr_list_init(&op->children);
}

void outr_op_begin(outr_op *op, void *impl, outr_op_fn *on_cancel)
{
    assert(op->state == IDLE);
    op->state = BEGUN;
    op->impl = impl;
    op->on_cancel = on_cancel;
    if (op->parent && op->parent->state != DONE)
        outr_list_push(&op->parent->children, &op->sibling);
    watch_deadline(op);
}

static void end(outr_op *op)
{
    outr_timer_stop(op->loop, &op->timer);
    outr_link_remove(&op->sibling);
    /* Children are the implementer's to end before itself; what is left is on its own from here. */
    OUTR_LIST_EACH(link, &op->children) {
        outr_op *child = OUTR_LIST_ITEM(link, outr_op, sibling);
        outr_link_remove(link);
        child->parent = NULL;
        watch_deadline(child);
    }
    if (op->is_over)
        *op->is_over = true;
    op->state = DONE;
    op->done(op); /* op may be gone */
}

void outr_op_finish(outr_op *op)
{
    assert(op->state == BEGUN);
    end(op);
}

void outr_op_fail(outr_op *op, const outr_err *err)
{
    if (op->err.code == OUTR_OK) /* the reason of a cancellation stays */
        op->err = *err;
    outr_op_finish(op);
}

static void on_finisher(outr_deferred *deferred)
{
    end(OUTR_CONTAINER(deferred, outr_op, finisher));
}

void outr_op_finish_soon(outr_op *op)
{
    assert(op->state == BEGUN);
    op->state = FINISHING;
    op->finisher.run = on_finisher;
    outr_loop_defer(op->loop, &op->finisher);
}

void outr_op_fail_soon(outr_op *op, const outr_err *err)
{
    if (op->err.code == OUTR_OK)
        op->err = *err;
    outr_op_finish_soon(op);
}

static outr_op *first_not_cancelled(const outr_op *op)
{
    for (outr_link *link = op->children.next; link != &op->children; link = link->next) {
        outr_op *child = OUTR_LIST_ITEM(link, outr_op, sibling);
        if (child->state == BEGUN && child->err.code == OUTR_OK && child->timer.fire != on_late)
            return child;
    }
    return NULL;
}

/* A child's end may end its siblings and this op: nothing is kept from one to the next. */
static void cancel_children(outr_op *op, outr_code code)
{
    outr_op *child;
    bool is_over = false;
    op->is_over = &is_over;
    while (!is_over && (child = first_not_cancelled(op)))
        outr_op_cancel(child, code);
    if (!is_over)
        op->is_over = NULL;
}

void outr_op_cancel(outr_op *op, outr_code code)
{
    if (op->state != BEGUN || op->err.code != OUTR_OK)
        return;
    outr_fail(&op->err, code, code == OUTR_DEADLINE_EXCEEDED ? "deadline exceeded" : "cancelled");
    if (op->on_cancel) {
        op->on_cancel(op); /* ends its children itself; op may be gone */
        return;
    }
    cancel_children(op, code);
}

bool outr_op_is_pending(const outr_op *op)
{
    return op->state == BEGUN || op->state == FINISHING;
}

bool outr_op_is_cancelled(const outr_op *op)
{
    return op->err.code == OUTR_CANCELLED || op->err.code == OUTR_DEADLINE_EXCEEDED;
}

/* ---- sleep ----------------------------------------------------------------------------------- */

typedef struct sleeper {
    outr_timer timer;
    outr_op *op;
} sleeper;

static void end_sleep(sleeper *s)
{
    outr_op *op = s->op;
    free(s);
    outr_op_finish(op);
}

static void on_awake(outr_timer *timer)
{
    end_sleep(OUTR_CONTAINER(timer, sleeper, timer));
}

static void on_sleep_cancel(outr_op *op)
{
    sleeper *s = op->impl;
    outr_timer_stop(op->loop, &s->timer);
    end_sleep(s);
}

void outr_sleep_start(uint64_t at_ns, outr_op *op)
{
    sleeper *s = outr_alloc(sizeof *s);
    s->op = op;
    s->timer.fire = on_awake;
    outr_op_begin(op, s, on_sleep_cancel);
    outr_timer_start(op->loop, &s->timer, at_ns);
}
