#include "resiliency/guarded.h"

static void finish(outr_guarded *g, const outr_err *err)
{
    outr_op *op = g->op;
    outr_guard_done(&g->guard);
    if (err->code)
        outr_op_fail(op, err);
    else
        outr_op_finish(op);
}

static outr_code begin_try(outr_guarded *g, outr_err *err);

static bool is_timeout(const outr_guarded *g)
{
    return g->inner.err.code == OUTR_DEADLINE_EXCEEDED && g->deadline_ns &&
           outr_loop_now(g->op->loop) >= g->deadline_ns && !g->is_cancelled;
}

static void pause_until(outr_guarded *g, uint64_t at);

static void on_tried(outr_op *inner)
{
    outr_guarded *g = OUTR_CONTAINER(inner, outr_guarded, inner);
    outr_loop *loop = g->op->loop;
    uint64_t now = outr_loop_now(loop), at;
    outr_err err = inner->err;
    bool is_final = err.code && g->is_final && g->is_final(&err);
    if (is_timeout(g)) {
        outr_guard_end(&g->guard, now, OUTR_OUTCOME_TIMEOUT);
        outr_fail(&err, OUTR_DEADLINE_EXCEEDED, OUTR_GUARD_TIMEOUT);
    } else {
        outr_guard_end(&g->guard, now,
                       g->is_cancelled              ? OUTR_OUTCOME_NONE
                       : err.code == 0 || is_final ? OUTR_OUTCOME_GOOD
                                                    : OUTR_OUTCOME_BAD);
    }
    bool may_go_on = !g->is_cancelled && !(g->arena && outr_arena_is_over(g->arena));
    if (err.code && !is_final && may_go_on &&
        outr_guard_again(&g->guard, now, -1, outr_loop_rand(loop), &at))
        pause_until(g, at);
    else
        finish(g, &err);
}

static void on_rested(outr_op *inner)
{
    outr_guarded *g = OUTR_CONTAINER(inner, outr_guarded, inner);
    outr_err err = inner->err;
    if (g->is_cancelled) {
        finish(g, &err);
        return;
    }
    if (begin_try(g, &err))
        finish(g, &err);
}

static void pause_until(outr_guarded *g, uint64_t at)
{
    outr_op_init(&g->inner, g->op->loop, g->op, 0, on_rested);
    outr_sleep_start(at, &g->inner);
}

/* The breaker may refuse it. */
static outr_code begin_try(outr_guarded *g, outr_err *err)
{
    outr_loop *loop = g->op->loop;
    uint64_t now = outr_loop_now(loop);
    outr_code rc = outr_guard_begin(&g->guard, now, err);
    if (rc)
        return rc;
    g->deadline_ns = outr_guard_deadline(&g->guard, now);
    outr_op_init(&g->inner, loop, g->op, g->deadline_ns, on_tried);
    g->start(g, &g->inner);
    return OUTR_OK;
}

static void on_cancel(outr_op *op)
{
    outr_guarded *g = op->impl;
    g->is_cancelled = true;
    outr_op_cancel(&g->inner, op->err.code);
}

void outr_guarded_component(outr_guarded *g, const outr_policies *policies, outr_policy_kind kind,
                            outr_policy_direction direction, outr_str name, outr_loop *loop,
                            outr_arena *arena, void (*start)(outr_guarded *guarded, outr_op *op))
{
    *g = (outr_guarded){.start = start, .arena = arena};
    outr_guard_init(&g->guard, policies, kind, direction, name, name, outr_loop_now(loop),
                    outr_loop_metrics(loop));
}

void outr_guarded_start(outr_guarded *g, outr_op *op)
{
    outr_err err;
    g->op = op;
    g->is_cancelled = false;
    outr_op_begin(op, g, on_cancel);
    if (begin_try(g, &err)) {
        outr_guard_done(&g->guard);
        outr_op_fail_soon(op, &err);
    }
}
