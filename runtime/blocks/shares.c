#include "blocks/host.h"

static void on_shared(outr_op *inner)
{
    outr_state_share_call *call = OUTR_CONTAINER(inner, outr_state_share_call, inner);
    outr_err err = inner->err;
    outr_view_unpin(call->pin);
    if (err.code)
        outr_op_fail(call->op, &err);
    else
        outr_op_finish(call->op);
}

static void on_cancel(outr_op *op)
{
    outr_state_share_call *call = op->impl;
    outr_op_cancel(&call->inner, op->err.code);
}

void outr_host_share(void *ctx, outr_state_share_call *call, outr_op *op)
{
    outr_view *view = outr_host_pin(ctx, op->loop);
    const outr_component *c = outr_view_find(view, OUTR_KIND_STATE, call->store);
    outr_err err;
    call->op = op;
    outr_op_begin(op, call, on_cancel);
    if (!c || !c->state->backend->share) {
        if (!c)
            outr_fail(&err, OUTR_NOT_FOUND, "state store \"" OUTR_FMT "\" not found",
                      OUTR_ARG(call->store));
        else
            outr_fail(&err, OUTR_UNIMPLEMENTED,
                      "state store \"" OUTR_FMT "\" cannot hold a rate limit: its type is " OUTR_FMT
                      ", not state.redis",
                      OUTR_ARG(call->store), OUTR_ARG(c->spec->type));
        outr_view_unpin(view);
        outr_op_fail_soon(op, &err);
        return;
    }
    call->pin = view;
    outr_op_init(&call->inner, op->loop, op, 0, on_shared);
    c->state->backend->share(c->state, &call->shares, &call->inner);
}
