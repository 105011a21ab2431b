#include "mesh/call.h"
#include "mesh/route.h"

/* Hedging. When the lead has had no answer in the time that is usual for its callee, a rival is
 * sent to another instance. The first good head wins and is the lead from there on; the other one
 * is lost: its stream is reset, its instance hears that it took at least so long, and the call
 * ends after it. A try that fails while the other is on its way leaves the race to that one. So
 * the steps see one try at a time, and know nothing of a race. */

/* Of a body that is kept for a rival. */
#define BODY_MAX (64 * OUTR_KIB)

static void count_hedge(const outr__call *c, const char *outcome)
{
    static const outr_metric_desc hedges = {
        "outrigger_hedges_total",
        "late calls that were made a second time (made), whose second answer came first (won), or "
        "why there was no second one",
        OUTR_COUNTER,
        0,
        {"target", "outcome"}};
    outr_metric_count(outr_loop_metrics(c->mesh->o.loop), &hedges,
                      (const outr_str[]){c->target.app_id, outr_str_from(outcome)}, 1);
}

static outr_hedge *hedge_of(const outr__call *c)
{
    return outr_hedges_find(&c->mesh->hedges, c->target.app_id, c->target.namespace_);
}

static uint64_t now_of(const outr__call *c)
{
    return outr_loop_now(c->mesh->o.loop);
}

/* ---- who is out ------------------------------------------------------------------------------ */

/* The first request tells how long answers take; of one that was given up it is a lower bound,
 * which does for a percentile that it is above. */
static void time_answer(outr__try *t)
{
    outr__call *c = t->call;
    if (c->is_timed && t == &c->first)
        outr_hedge_took(hedge_of(c), now_of(c) - t->sent_ns, now_of(c));
}

/* t is not the lead any more, or never was. */
static void lose(outr__try *t)
{
    outr__call *c = t->call;
    t->is_lost = true;
    c->lost++;
    if (t->sent_ns && !t->is_observed && !c->is_cancelled) {
        outr__pick_took_longer(&t->pick, now_of(c) - t->sent_ns);
        time_answer(t);
    }
    outr_op_cancel(&t->op, OUTR_CANCELLED);
}

static void let_go(outr__try *t)
{
    outr__try_forget_peer(t, false);
    outr__pick_end(&t->pick);
    if (t->copy)
        outr__replay_done(t->copy);
}

/* ---- the second try -------------------------------------------------------------------------- */

static void end_lost(outr__try *t)
{
    outr__call *c = t->call;
    let_go(t);
    if (--c->lost == 0 && c->is_over)
        outr__call_finish(c); /* c is gone */
}

static void on_picked(outr_op *op)
{
    outr__try *t = OUTR_CONTAINER(op, outr__try, op);
    outr__call *c = t->call;
    if (t->is_lost) {
        end_lost(t);
        return;
    }
    if (!t->pick.peer || op->err.code || t->pick.is_repeat) {
        c->rival = NULL;
        count_hedge(c, "no_other");
        let_go(t);
        return;
    }
    count_hedge(c, "made");
    outr__try_send(t);
}

static const char *why_not(outr__call *c)
{
    if (c->replay ? !outr__replay_is_complete(c->replay) : c->body != NULL)
        return "body";
    if (!outr__pick_has_other(&c->lead->pick))
        return "no_other";
    if (!outr_hedge_take(hedge_of(c)))
        return "percent";
    if (!outr__pick_take_retry(&c->lead->pick))
        return "budget";
    return NULL;
}

static void on_late(outr_timer *timer)
{
    outr__call *c = OUTR_CONTAINER(timer, outr__call, late);
    outr_arena *arena = c->x->arena;
    const char *reason = why_not(c);
    if (reason) {
        count_hedge(c, reason);
        return;
    }
    outr__try *t = outr_arena_alloc(arena, sizeof *t);
    *t = (outr__try){.call = c};
    if (c->replay) {
        t->copy = outr_arena_alloc(arena, sizeof *t->copy);
        outr__replay_init_copy(t->copy, c->replay);
    }
    outr__pick_beside(&t->pick, &c->lead->pick);
    c->rival = t;
    outr__try_op(t)->done = on_picked;
    outr__pick_start(c->mesh->peers, &t->pick, arena, &t->op);
}

/* ---- what the steps and the answers tell ----------------------------------------------------- */

static const outr_hedge_spec *spec_of(const outr__call *c)
{
    return c->routed && c->routed->rules->hedge->is_on ? c->routed->rules->hedge : NULL;
}

void outr__race_prepare(outr__call *c)
{
    const outr_hedge_spec *spec = spec_of(c);
    if (!spec || c->attempts > 0 || c->is_streaming || c->in->upgrade.n > 0 ||
        !c->is_idempotent)
        return;
    c->is_timed = true;
    c->hedge_after_ns = outr_hedge_begin(hedge_of(c), spec, now_of(c));
    if (c->hedge_after_ns)
        outr__call_keep_body(c, BODY_MAX);
}

void outr__race_begin(outr__call *c)
{
    uint64_t at = c->lead->sent_ns + c->hedge_after_ns, deadline = c->lead->op.deadline_ns;
    if (!c->hedge_after_ns || c->attempts > 1 || (deadline && deadline <= at))
        return;
    c->late.fire = on_late;
    outr_timer_start(c->mesh->o.loop, &c->late, at);
}

static bool is_good(const outr__try *t, const outr_http_call *http)
{
    uint64_t code;
    outr_class how;
    outr_str error = outr_headers_get(&http->head.headers, OUTR__ERROR_HEADER);
    if (outr_str_to_u64(error, 16, &code))
        how = outr_classify_grpc((int)code);
    else
        outr__answer_class(t->call, &http->head, &how);
    return how == OUTR_CLASS_GOOD;
}

bool outr__race_takes(outr__try *t, outr_http_call *http)
{
    outr__call *c = t->call;
    outr__try *rival = c->rival;
    if (t->is_lost) {
        outr_source_cancel(http->response, NULL);
        return false;
    }
    time_answer(t);
    outr_timer_stop(c->mesh->o.loop, &c->late);
    if (!rival)
        return true;
    outr__try *other = t == rival ? c->lead : rival;
    c->rival = NULL;
    if (other->sent_ns && !is_good(t, http)) {
        c->lead = other;
        outr__answer_discard(t, http);
        lose(t);
        return false;
    }
    if (t == rival)
        count_hedge(c, "won");
    c->lead = t;
    lose(other);
    return true;
}

bool outr__race_swallows(outr__try *t)
{
    outr__call *c = t->call;
    outr__try *rival = c->rival;
    if (t->is_lost) {
        end_lost(t);
        return true;
    }
    if (t == c->lead && !rival->sent_ns) /* step_send ends the race */
        return false;
    if (t == c->lead)
        c->lead = rival;
    c->rival = NULL;
    outr__try_failed(t);
    let_go(t);
    return true;
}

void outr__race_end(outr__call *c)
{
    outr__try *rival = c->rival;
    outr_timer_stop(c->mesh->o.loop, &c->late);
    c->rival = NULL;
    if (rival)
        lose(rival);
}
