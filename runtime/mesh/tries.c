#include "config/codes.h"
#include "mesh/call.h"

/* What a policy's retries may keep of a request's body; a longer one is sent once. */
#define REPLAY_MAX (4 * OUTR_MIB)
/* What is kept without a policy, of calls that may be made twice: as much as Linkerd does. */
#define REPLAY_SMALL_MAX (64 * OUTR_KIB)
/* How far an answer may put off the next try. */
#define AFTER_MAX_NS (60 * OUTR_SEC)

/* ---- the end --------------------------------------------------------------------------------- */

/* An answer of ours. */
static void tell_failure(outr__call *c, const outr_err *err)
{
    uint64_t callers = c->invoke->deadline_ns;
    bool is_late = callers && outr_loop_now(c->mesh->o.loop) >= callers;
    outr_why why = outr_why_of(err);
    if (c->is_cancelled && !is_late) /* nobody gets it */
        return;
    if (c->is_cancelled)
        why = OUTR_WHY_DEADLINE;
    c->invoke->why = why;
    outr_mesh_tell_local(c->mesh, why,
                         c->target.kind == OUTR__URL ? OUTR_STR("url") : c->invoke->target,
                         err->text);
}

void outr__call_finish(outr__call *c)
{
    outr_invoke *invoke = c->invoke;
    const outr_err *err = c->err.code ? &c->err : NULL;
    if (err && (!c->relay.has_head || c->relay.is_proxied))
        tell_failure(c, err);
    outr_link_remove(&c->link);
    if (c->ticket)
        outr_ticket_return(c->ticket);
    if (c->replay)
        outr__replay_done(c->replay);
    outr_snapshot_unref(c->snapshot);
    invoke->grpc_code = c->relay.grpc_code;
    if (err && !c->relay.has_head)
        invoke->on_failed(invoke, err);
    else
        invoke->on_done(invoke, err);
}

/* c->err says how; c may be gone. */
static void end_call(outr__call *c)
{
    outr__race_end(c);
    if (c->mirror)
        outr__mirror_end(c->mirror, c->relay.has_head);
    c->mirror = NULL;
    if (c->replay)
        c->replay->on_complete = NULL;
    if (c->lead->copy) /* a rival that has won */
        outr__replay_done(c->lead->copy);
    outr_guard_done(&c->guard);
    outr__pick_end(&c->lead->pick);
    c->is_over = true;
    if (c->lost == 0)
        outr__call_finish(c);
}

void outr__call_succeeded(outr__call *c)
{
    outr_guard_end(&c->guard, outr_loop_now(c->mesh->o.loop), OUTR_OUTCOME_GOOD);
    c->err.code = OUTR_OK;
    end_call(c);
}

/* ---- the policy ------------------------------------------------------------------------------ */

static bool is_streaming(const outr__call *c)
{
    bool says_stream = false;
    if (!c->invoke->is_proxied)
        return c->body && (c->in->content_length < 0 || c->in->upgrade.n > 0);
    outr_str_to_bool(outr_headers_get(&c->in->headers, "dapr-stream"), &says_stream);
    return says_stream;
}

/* Whose breaker it is: contract/invocation.md section 2. */
static outr_str breaker_key(const outr__call *c)
{
    outr_arena *arena = c->x->arena;
    outr_str target = c->invoke->target;
    switch (c->target.kind) {
    case OUTR__URL:
        return outr_arena_join(arena, target, OUTR_STR("/"), c->invoke->method);
    case OUTR__ENDPOINT:
        return outr_arena_join(arena, target, OUTR_STR(":"), c->target.base_url);
    default:
        return outr_arena_join(arena, target, OUTR_STR(":"), c->invoke->method);
    }
}

void outr__call_use_route(outr__call *c, const outr_route_spec *route)
{
    c->retry = route->retry.is_on ? &route->retry : NULL;
    c->mirror = outr__mirror_new(c->mesh, c->snapshot, &route->mirror, &c->target);
}

static void find_guard(outr__call *c, const outr_policies *policies)
{
    outr_loop *loop = c->mesh->o.loop;
    outr_guard_init(&c->guard, policies, OUTR_POLICY_APP, OUTR_OUTBOUND, c->invoke->target,
                    breaker_key(c), outr_loop_now(loop), outr_loop_metrics(loop));
    if (outr_guard_repeats(&c->guard) && !c->is_streaming)
        outr__call_keep_body(c, REPLAY_MAX);
}

static bool is_idempotent(const outr__call *c)
{
    if (c->invoke->is_proxied) /* of gRPC methods only the route says so */
        return c->retry && !c->is_streaming;
    return outr__is_idempotent(c->verb, &c->in->headers);
}

void outr__call_find_policy(outr__call *c)
{
    const outr_policies *policies = c->mesh->policies;
    bool is_remote = c->target.kind == OUTR__APP && !c->is_local;
    c->has_rounds = is_remote && !c->invoke->is_proxied && !c->retry &&
                    !outr_policies_name_app(policies, c->target.app_id);
    c->is_streaming = (policies || c->retry) && is_streaming(c);
    if (c->retry && !c->is_streaming)
        outr__call_keep_body(c, REPLAY_MAX);
    if (policies && !(c->invoke->is_proxied && c->is_local))
        find_guard(c, policies);
    c->is_idempotent = is_remote && is_idempotent(c);
    if (c->is_idempotent && !outr_guard_is_on(&c->guard))
        outr__call_keep_body(c, REPLAY_SMALL_MAX);
}

void outr__call_keep_body(outr__call *c, size_t max)
{
    bool is_too_long = c->body && c->body->length > (int64_t)max;
    bool is_endless = c->body && c->body->length < 0 && !c->invoke->is_proxied;
    if (c->replay || !c->body || c->is_limited || is_too_long || is_endless)
        return;
    c->replay = outr_arena_alloc(c->x->arena, sizeof *c->replay);
    outr__replay_init(c->replay, c->mesh->o.loop, c->x->arena, c->body, max);
    c->body = &c->replay->source;
}

bool outr__call_can_resend(const outr__call *c)
{
    if (c->replay)
        return outr__replay_is_whole(c->replay);
    return !c->body || !(c->is_taken || c->lead->http.body_taken ||
                         (c->app_call && c->app_call->http.body_taken));
}

static bool may_try_again(const outr__call *c)
{
    if (c->is_final || c->is_cancelled || c->lead->is_unsendable || c->relay.has_head)
        return false;
    if (c->is_streaming && !c->invoke->is_proxied)
        return false;
    if (outr_arena_is_over(c->x->arena)) /* a policy may repeat for ever; memory is not for ever */
        return false;
    return outr__call_can_resend(c);
}

/* What is refused for who asks says nothing about whom it is asked. */
static outr_outcome outcome_of_failure(const outr__call *c)
{
    bool is_ours = c->is_cancelled || c->is_refused;
    return is_ours ? OUTR_OUTCOME_NONE : OUTR_OUTCOME_BAD;
}

/* ---- the route's retries --------------------------------------------------------------------- */

static void count_retry(const outr__call *c, const char *outcome)
{
    static const outr_metric_desc retries = {
        "outrigger_retries_total",
        "failed calls that were made again at another instance, or why they were not",
        OUTR_COUNTER,
        0,
        {"target", "outcome"}};
    outr_metric_count(outr_loop_metrics(c->mesh->o.loop), &retries,
                      (const outr_str[]){c->target.app_id, outr_str_from(outcome)}, 1);
}

bool outr__call_is_governed(const outr__call *c)
{
    return outr_guard_is_on(&c->guard) || c->retry;
}

bool outr__call_repeats(const outr__call *c)
{
    return c->retry || outr_guard_repeats(&c->guard);
}

/* status: an HTTP status, a gRPC code (below 100), or -1: there was no answer. */
static bool is_retried_status(const outr__call *c, int status)
{
    bool is_grpc = status < 100;
    outr_str codes = is_grpc ? c->retry->grpc_codes : c->retry->http_codes;
    if (status < 0)
        return outr_classify_error(c->err.code) != OUTR_CLASS_GOOD;
    if (codes.n > 0)
        return outr_codes_has(codes, status);
    return (is_grpc ? outr_classify_grpc(status) : outr_classify_http(status)) ==
           OUTR_CLASS_FAILURE;
}

/* Nothing of it can have happened anywhere. */
static bool is_unsent(const outr__call *c, int status)
{
    return status < 0 && c->target.kind == OUTR__APP && !c->is_local &&
           c->lead->http.progress == OUTR_CALL_NOT_SENT;
}

static bool route_wants_again(outr__call *c, uint64_t now, int status, uint64_t after_ns)
{
    const char *why_not = NULL;
    uint64_t deadline = c->invoke->deadline_ns, routes = outr__call_route_deadline(c);
    if (!is_retried_status(c, status))
        return false;
    double unit = outr_rand_unit(outr_loop_rand(c->mesh->o.loop));
    uint64_t pause = outr_backoff_jitter((unsigned)c->retries, unit);
    if (after_ns != OUTR__CALL_NEVER)
        c->again_ns = now + OUTR_MAX(pause, OUTR_MIN(after_ns, AFTER_MAX_NS));
    if (c->retries >= c->retry->attempts)
        why_not = "attempts";
    else if (after_ns == OUTR__CALL_NEVER)
        why_not = "pushback";
    else if (!c->is_idempotent && !is_unsent(c, status))
        why_not = "not_idempotent";
    else if ((deadline && deadline <= c->again_ns) || (routes && routes <= c->again_ns))
        why_not = "deadline";
    else if (c->lead->pick.known && !outr__pick_take_retry(&c->lead->pick))
        why_not = "budget";
    c->retries += !why_not;
    if (status < 0 && why_not && strcmp(why_not, "budget") == 0)
        outr_mark(&c->err, OUTR_WHY_RETRY_BUDGET);
    count_retry(c, why_not ? why_not : "made");
    return !why_not;
}

static bool wants_again(outr__call *c, uint64_t now, int status, uint64_t after_ns)
{
    if (c->retry)
        return route_wants_again(c, now, status, after_ns);
    if (after_ns == OUTR__CALL_NEVER ||
        !outr_guard_again(&c->guard, now, status, outr_loop_rand(c->mesh->o.loop), &c->again_ns))
        return false;
    c->again_ns = OUTR_MAX(c->again_ns, now + OUTR_MIN(after_ns, AFTER_MAX_NS));
    return true;
}

bool outr__call_answer_is_bad(outr__call *c, int status, uint64_t after_ns)
{
    uint64_t now = outr_loop_now(c->mesh->o.loop);
    outr_guard_end(&c->guard, now, outcome_of_failure(c));
    return c->is_again = may_try_again(c) && wants_again(c, now, status, after_ns);
}

int outr__call_step_try(outr_steps *steps)
{
    outr__call *c = OUTR_CONTAINER(steps, outr__call, steps);
    uint64_t now = outr_loop_now(c->mesh->o.loop);
    outr_err err;
    if (outr_guard_begin(&c->guard, now, &err)) {
        outr_mark(&err, OUTR_WHY_BREAKER_OPEN);
        c->is_final = c->invoke->is_of_policy = true;
        return outr__call_fail(c, &err);
    }
    bool is_handshake_only = c->is_streaming && c->invoke->is_proxied;
    c->try_deadline_ns = is_handshake_only ? 0 : outr_guard_deadline(&c->guard, now);
    if (c->retry && c->retry->try_timeout_ns && !is_handshake_only) {
        uint64_t at = now + c->retry->try_timeout_ns;
        c->try_deadline_ns = c->try_deadline_ns ? OUTR_MIN(c->try_deadline_ns, at) : at;
    }
    if (c->target.kind != OUTR__APP)
        return OUTR__CALL_REACH;
    return c->is_local ? OUTR__CALL_LOCAL : OUTR__CALL_PICK;
}

/* ---- without a policy ------------------------------------------------------------------------ */

bool outr__call_goes_elsewhere(outr__call *c)
{
    const char *why_not = NULL;
    if (!c->lead->pick.peer || outr__call_is_governed(c) || c->invoke->is_proxied ||
        c->is_cancelled || c->relay.has_head || !outr__pick_has_other(&c->lead->pick))
        return false;
    if (c->is_elsewhere)
        why_not = "tried_before";
    else if (!c->is_idempotent)
        why_not = "not_idempotent";
    else if (c->in->upgrade.n > 0 || !outr__call_can_resend(c))
        why_not = "body";
    else if (!outr__pick_take_retry(&c->lead->pick))
        why_not = "budget";
    count_retry(c, why_not ? why_not : "made");
    return c->is_again = !why_not;
}

static void reset(outr__call *c)
{
    c->lead->op.done = NULL;
    c->err.code = OUTR_OK;
    c->relay = (outr__relay){0};
    c->is_again = c->lead->is_at_daprd = c->was_stale = false;
    c->is_elsewhere = true;
    c->tries = 0;
}

int outr__call_move(outr__call *c)
{
    outr__try_avoid_peer(c->lead);
    reset(c);
    return OUTR__CALL_PICK;
}

/* ---- the built-in retry ---------------------------------------------------------------------- */

int outr__call_step_pause(outr_steps *steps)
{
    outr__call *c = OUTR_CONTAINER(steps, outr__call, steps);
    outr_loop *loop = c->mesh->o.loop;
    uint64_t now = outr_loop_now(loop), pause;
    if (c->lead->op.done) { /* the pause is over */
        outr_err err = c->lead->op.err.code ? c->lead->op.err : c->err;
        c->lead->op.done = NULL;
        if (c->is_cancelled || c->lead->op.err.code)
            return outr__call_fail(c, &err);
        c->lead->pick.tried_count = c->tries = 0;
        c->was_stale = false;
        c->err.code = OUTR_OK;
        return OUTR__CALL_PICK;
    }
    if (!c->has_rounds)
        return OUTR__CALL_FAILED;
    const outr_retry_policy *retry = outr_policies_service_retry(c->mesh->policies);
    if (c->round == 0)
        outr_backoff_init(&c->rounds, retry, now);
    if (!outr_backoff_next(&c->rounds, retry, now, outr_rand_unit(outr_loop_rand(loop)), &pause)) {
        outr_err inner = c->err;
        outr_fail(&c->err, OUTR_UNAVAILABLE,
                  "failed to invoke target " OUTR_FMT " after %u retries. Error: %s",
                  OUTR_ARG(c->invoke->target), c->round, inner.text);
        outr_mark(&c->err, outr_why_of(&inner));
        return OUTR__CALL_FAILED;
    }
    c->round++;
    outr_sleep_start(now + pause, outr__call_op(c));
    return OUTR_WAIT;
}

/* ---- after a failure ------------------------------------------------------------------------- */

static int rest(outr__call *c)
{
    c->try_deadline_ns = 0;
    outr_sleep_start(c->again_ns, outr__call_op(c));
    return outr_steps_wait(&c->steps, OUTR__CALL_AGAIN);
}

/* The try's time was over, not the caller's. The peer knows it, too, and may be the first to say
 * so. */
static bool is_timeout(const outr__call *c)
{
    uint64_t callers = c->invoke->deadline_ns;
    return c->err.code == OUTR_DEADLINE_EXCEEDED && c->try_deadline_ns &&
           !(callers && callers <= c->try_deadline_ns) && !c->is_cancelled;
}

int outr__call_step_failed(outr_steps *steps)
{
    outr__call *c = OUTR_CONTAINER(steps, outr__call, steps);
    uint64_t now = outr_loop_now(c->mesh->o.loop);
    bool is_overdue = outr__call_is_overdue(c);
    if (outr__call_is_governed(c) && c->is_again && !c->is_cancelled)
        return rest(c);
    if (outr__call_is_governed(c)) {
        outr_outcome outcome = outcome_of_failure(c);
        int status = c->invoke->is_proxied ? (int)c->err.code : -1;
        if (!is_overdue && is_timeout(c)) {
            outr_fail(&c->err, OUTR_DEADLINE_EXCEEDED, OUTR_GUARD_TIMEOUT);
            outr_mark(&c->err, OUTR_WHY_TIMEOUT);
            c->invoke->is_of_policy = true;
            outcome = OUTR_OUTCOME_TIMEOUT;
            status = -1;
        }
        outr_guard_end(&c->guard, now, outcome);
        if (may_try_again(c) && wants_again(c, now, status, 0))
            return rest(c);
    }
    end_call(c);
    return OUTR_END;
}

int outr__call_step_again(outr_steps *steps)
{
    outr__call *c = OUTR_CONTAINER(steps, outr__call, steps);
    outr_err err = c->lead->op.err;
    if (c->is_cancelled && !err.code)
        outr_fail(&err, OUTR_CANCELLED, "cancelled");
    if (err.code) {
        c->is_again = false;
        c->is_final = true;
        return outr__call_fail(c, &err);
    }
    reset(c);
    if (c->app_call)
        *c->app_call = (outr_app_call){0};
    if (c->reach)
        c->reach->op = NULL;
    c->round = 0;
    c->invoke->is_of_policy = false;
    if (!c->retry) /* which has taken it */
        outr__pick_spend_retry(&c->lead->pick); /* others have less for it */
    return OUTR__CALL_TRY;
}
