/* op - the one shape of pending work: done exactly once, cancellable, absolute deadline, a parent.
 *
 * The caller embeds an outr_op, initialises it and hands it to some outr_x_start(..., op). The
 * implementer calls outr_op_begin, later outr_op_finish. `done` runs exactly once, on op's loop,
 * never before start has returned. After done the op may be freed or initialised again.
 *
 * Cancel (by hand, by the deadline, or because the parent was cancelled) calls the implementer's
 * cancel hook, which must lead to outr_op_finish, at once or later. Without a hook it goes on to
 * the children; with one, ending them is the hook's part. A child that begins when its parent has
 * been cancelled is cancelled soon; one that outlives its parent keeps its deadline. */
#ifndef OUTR_LOOP_OP_H
#define OUTR_LOOP_OP_H

#include "loop/loop.h"

typedef struct outr_op outr_op;
typedef void outr_op_fn(outr_op *op);

struct outr_op {
    outr_loop *loop;
    outr_op_fn *done;     /* the caller's */
    outr_op *parent;      /* may be NULL */
    uint64_t deadline_ns; /* absolute, 0: none; never later than the parent's */
    outr_err err;         /* result: err.code == 0 is success */
    /* below: the machinery's */
    outr_op_fn *on_cancel;
    void *impl; /* the implementer's */
    outr_list children;
    outr_link sibling;
    outr_timer timer;
    outr_deferred finisher;
    bool *is_over; /* of whoever cancels the children just now: this op has ended meanwhile */
    uint8_t state; /* idle, begun, cancelling, finishing, done */
};

/* parent and deadline_ns may be NULL/0. The effective deadline is the minimum over the chain. */
void outr_op_init(outr_op *op, outr_loop *loop, outr_op *parent, uint64_t deadline_ns,
                  outr_op_fn *done);

/* Implementer. on_cancel may be NULL when the work cannot be stopped (it then runs to its end and
 * its result is replaced by CANCELLED or DEADLINE_EXCEEDED). */
void outr_op_begin(outr_op *op, void *impl, outr_op_fn *on_cancel);
/* Success or failure; done is called now. Only from an event, never inside the start function. */
void outr_op_finish(outr_op *op);
void outr_op_fail(outr_op *op, const outr_err *err); /* copies err, then finish */
/* The same, from inside a start function: done runs in the deferred phase of this turn. */
void outr_op_finish_soon(outr_op *op);
void outr_op_fail_soon(outr_op *op, const outr_err *err);

/* Caller. code is CANCELLED or DEADLINE_EXCEEDED; nothing when the op is not pending. */
void outr_op_cancel(outr_op *op, outr_code code);
bool outr_op_is_pending(const outr_op *op);
bool outr_op_is_cancelled(const outr_op *op);

/* Waits: an op that is done at at_ns. */
void outr_sleep_start(uint64_t at_ns, outr_op *op);

#endif
