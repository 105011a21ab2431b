#include "gate.h"

#define KEYS_WAIT_NS (5 * OUTR_SEC) /* for the first answer of an issuer */

static void close_all(outr_gate *gate);

static void on_inner_done(outr_op *inner)
{
    outr_gate *gate = OUTR_CONTAINER(inner, outr_gate, inner);
    outr_op *op = gate->op, *closing = gate->closing;
    gate->op = NULL;
    outr_op_finish(op);
    if (closing)
        close_all(gate);
}

static void on_cancel(outr_op *op)
{
    outr_gate *gate = op->impl;
    outr_op_cancel(&gate->inner, op->err.code);
}

static outr_op *begin(outr_gate *gate, uint64_t deadline_ns, outr_op *op)
{
    gate->op = op;
    outr_op_begin(op, gate, on_cancel);
    outr_op_init(&gate->inner, gate->loop, NULL, deadline_ns, on_inner_done);
    return &gate->inner;
}

static void open(outr_gate *gate, outr_authn *authn, outr_op *op)
{
    outr_authn_open(authn, begin(gate, outr_loop_now(gate->loop) + KEYS_WAIT_NS, op));
}

static void do_nothing(outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static outr_authn *make(const outr_gate *gate, const outr_snapshot *snapshot)
{
    return snapshot->authn ? outr_authn_new(snapshot->authn, gate->loop, gate->log) : NULL;
}

void outr_gate_open(outr_gate *gate, outr_loop *loop, const outr_log *log,
                    const outr_snapshot *snapshot, outr_op *op)
{
    *gate = (outr_gate){.loop = loop, .log = log};
    gate->now = make(gate, snapshot);
    if (gate->now)
        open(gate, gate->now, op);
    else
        do_nothing(op);
}

static uint64_t digest_of(const outr_snapshot *snapshot)
{
    return snapshot->authn ? snapshot->authn->base.digest : 0;
}

void outr_gate_prepare(outr_gate *gate, const outr_snapshot *before, const outr_snapshot *after,
                       outr_op *op)
{
    gate->is_changing = digest_of(before) != digest_of(after);
    gate->next = gate->is_changing ? make(gate, after) : NULL;
    if (!gate->next) {
        do_nothing(op);
        return;
    }
    if (gate->now)
        outr_authn_inherit(gate->next, gate->now);
    open(gate, gate->next, op);
}

outr_authn *outr_gate_next(const outr_gate *gate)
{
    return gate->is_changing ? gate->next : gate->now;
}

void outr_gate_swap(outr_gate *gate, outr_op *op)
{
    outr_authn *before = gate->now;
    gate->now = outr_gate_next(gate);
    gate->next = NULL;
    if (gate->is_changing && before)
        outr_authn_close(before, begin(gate, 0, op));
    else
        do_nothing(op);
    gate->is_changing = false;
}

/* One after the other. */
static void close_next(outr_op *inner)
{
    close_all(OUTR_CONTAINER(inner, outr_gate, inner));
}

static void close_all(outr_gate *gate)
{
    outr_authn *authn = gate->next ? gate->next : gate->now;
    outr_op *op = gate->closing;
    if (gate->next)
        gate->next = NULL;
    else
        gate->now = NULL;
    if (!authn) {
        outr_op_finish(op);
        return;
    }
    outr_op_init(&gate->inner, gate->loop, NULL, 0, close_next);
    outr_authn_close(authn, &gate->inner);
}

void outr_gate_close(outr_gate *gate, outr_op *op)
{
    outr_op_begin(op, gate, NULL);
    gate->loop = op->loop; /* it may never have been opened */
    gate->is_changing = false;
    gate->closing = op;
    if (gate->op) {
        outr_op_cancel(&gate->inner, OUTR_CANCELLED); /* on_inner_done goes on, now or later */
        return;
    }
    outr_op_init(&gate->inner, gate->loop, NULL, 0, close_next);
    do_nothing(&gate->inner); /* an op never ends inside its start */
}
