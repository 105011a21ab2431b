#include "mesh/call.h"
#include "mesh/reasons.h"
#include "mesh/deadline.h"
#include "observe/span.h"

/* The call machine of the calling side. One call:
 *   target -> try -> (local app | pick a peer | reach a URL) -> send -> relay the answer -> end
 * A try that failed before anything was sent goes to another instance at once; when all were tried
 * the name is asked for again, three times a second apart (the reference's built-in retry). What a
 * Resiliency policy does is around all of that (tries.c). */

/* A proxied call goes to another instance when one cannot be reached, and waits for none. */
#define PROXIED_TRIES_MAX 4

static const outr_metric_desc req_sent = {"dapr_runtime_service_invocation_req_sent_total",
                                          "invocations sent",
                                          OUTR_COUNTER,
                                          0,
                                          {"dst_app_id", "type"}};

static outr__call *of(outr_steps *steps)
{
    return OUTR_CONTAINER(steps, outr__call, steps);
}

int outr__call_fail(outr__call *c, const outr_err *err)
{
    c->err = *err;
    return OUTR__CALL_FAILED;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void on_step_done(outr_op *op)
{
    outr__try *t = OUTR_CONTAINER(op, outr__try, op);
    outr__call *c = t->call;
    if ((!c->rival && !t->is_lost) || !outr__race_swallows(t))
        outr_steps_run(&c->steps);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return !a ? b : !b ? a : OUTR_MIN(a, b);
}

/* The caller's deadline, or the route's, or this try's when that is sooner; 0: none. */
static uint64_t deadline_of(const outr__call *c)
{
    return sooner(sooner(c->invoke->deadline_ns, c->try_deadline_ns),
                  outr__call_route_deadline(c));
}

outr_op *outr__try_op(outr__try *t)
{
    const outr__call *c = t->call;
    outr_op_init(&t->op, c->mesh->o.loop, NULL, deadline_of(c), on_step_done);
    return &t->op;
}

outr_op *outr__call_op(outr__call *c)
{
    return outr__try_op(c->lead);
}

static void prepare_body(outr__call *c)
{
    int64_t max = c->mesh->o.settings->max_body_bytes;
    outr_exchange *x = c->x;
    if (c->invoke->req) {
        if (c->invoke->bytes.n == 0)
            return;
        c->replay = outr_arena_alloc(x->arena, sizeof *c->replay);
        outr__replay_init_bytes(c->replay, c->mesh->o.loop, x->arena, c->invoke->bytes);
        c->body = &c->replay->source;
        return;
    }
    c->body = x->req.upgrade.n ? x->tunnel : x->body;
    if (c->body && !x->req.upgrade.n && max > 0 && x->req.content_length < 0) {
        c->body = outr__limiter_init(&c->limiter, x->body, (uint64_t)max);
        c->is_limited = true;
    }
}

/* Verb, path, headers and body of what is to be sent. */
static outr_code prepare_request(outr__call *c, outr_err *err)
{
    const outr_invoke *invoke = c->invoke;
    const outr_http_request *in = c->in;
    int64_t max = c->mesh->o.settings->max_body_bytes;
    c->req = (outr_http_request){
        .scheme = OUTR_STR("http"), .content_length = in->content_length, .upgrade = in->upgrade};
    outr_headers_init(&c->req.headers, c->x->arena);
    if (invoke->is_proxied) {
        c->verb = in->method;
        c->req.target = invoke->method;
        c->body = c->x->body;
    } else {
        bool is_none = invoke->is_grpc && outr_str_is(in->method, "NONE");
        c->verb = in->method;
        outr_code rc = is_none ? OUTR_OK : outr__verb(&c->verb, in->method, err);
        rc = rc ? rc
                : outr__method_target(&c->req.target, c->x->arena, invoke->method, invoke->query,
                                      err);
        if (!rc && max > 0 && in->content_length > max)
            rc = outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "stream too large");
        if (rc)
            return rc;
        prepare_body(c);
    }
    c->req.method = c->verb;
    c->target_text = c->req.target;
    return OUTR_OK;
}

static int step_target(outr_steps *steps)
{
    outr__call *c = of(steps);
    outr_invoke *invoke = c->invoke;
    const outr_http_request *in = c->in;
    outr_err err;
    if (outr__target_parse(&c->target, invoke->target, c->mesh->snapshot, c->mesh->o.settings,
                           &err) ||
        prepare_request(c, &err))
        return outr__call_fail(c, &err);
    if (invoke->is_proxied && c->target.kind != OUTR__APP) {
        outr_fail(&err, OUTR_INVALID_ARGUMENT, "a gRPC call goes to an app id, not to " OUTR_FMT,
                  OUTR_ARG(invoke->target));
        return outr__call_fail(c, &err);
    }
    if (c->target.endpoint)
        c->snapshot = outr_snapshot_ref(c->mesh->snapshot);
    if (c->target.kind == OUTR__APP) {
        const outr_str labels[] = {c->target.app_id, in->content_length < 0 ? OUTR_STR("streaming")
                                                                            : OUTR_STR("unary")};
        outr_metric_count(outr_loop_metrics(c->mesh->o.loop), &req_sent, labels, 1);
        c->is_local = outr_str_eq(c->target.app_id, c->mesh->o.settings->app_id) &&
                      outr_str_eq(c->target.namespace_, c->mesh->o.settings->namespace_);
    }
    outr__call_route(c);
    if (outr__call_has_fault(c))
        return OUTR__CALL_FAULT;
    outr__call_find_policy(c);
    return OUTR__CALL_TRY;
}

outr_source *outr__try_body(const outr__try *t)
{
    outr__replay *replay = t->copy ? t->copy : t->call->replay;
    return replay ? outr__replay_again(replay) : t->call->body;
}

static void fill_http(outr__try *t, outr_http_call *http)
{
    outr__call *c = t->call;
    *http = (outr_http_call){.req = &c->req,
                             .body = outr__try_body(t),
                             .on_response = outr__call_on_response,
                             .on_inform = outr__call_on_inform,
                             .user = t,
                             .ends_with_answer = c->invoke->is_proxied,
                             .arena = c->x->arena};
    t->sent_ns = outr_loop_now(c->mesh->o.loop);
    c->attempts++;
    if (c->invoke->is_proxied && deadline_of(c))
        outr__headers_set_timeout(&c->req.headers, t->sent_ns, deadline_of(c));
    else if (c->target.kind == OUTR__APP)
        outr_deadline_write(&c->req.headers, t->sent_ns, deadline_of(c));
}

/* Nobody waits for it any more: it is not sent. */
static bool is_expired(const outr__call *c, outr_err *err)
{
    uint64_t deadline = deadline_of(c);
    if (!deadline || outr_loop_now(c->mesh->o.loop) < deadline)
        return false;
    outr_fail(err, OUTR_DEADLINE_EXCEEDED, "deadline exceeded");
    return true;
}

static int fail_overloaded(outr__call *c)
{
    outr_err err;
    outr_fail(&err, OUTR_UNAVAILABLE, OUTR__OVERLOADED);
    outr_mark(&err, OUTR_WHY_OVERLOADED);
    return outr__call_fail(c, &err);
}

/* A call of the app to itself has its share and its turn like others. OUTR__CALL_SEND: it may go
 * on. */
static int enter_local(outr__call *c)
{
    outr__refusal why;
    outr_err err;
    if (!c->is_rated && !outr__entry_rates(c->mesh, c->x, &c->req, true, &why)) {
        outr_fail(&err, why.code, "%s", why.text);
        outr_mark(&err, OUTR_WHY_RATE_LIMITED);
        c->invoke->after_ns = why.after_ns;
        c->is_final = true;
        return outr__call_fail(c, &err);
    }
    c->is_rated = true;
    if (!outr__entry_has_gate(c->mesh) || (c->ticket && c->ticket->state == OUTR_TICKET_IN))
        return OUTR__CALL_SEND;
    switch (outr__entry_take(c->mesh, &c->ticket, c->x->arena, c->target_text, outr__call_op(c))) {
    case OUTR_TAKEN:
        c->lead->op.done = NULL;
        return OUTR__CALL_SEND;
    case OUTR_TAKEN_LATER:
        c->is_waiting = true;
        return OUTR_WAIT;
    default:
        return fail_overloaded(c);
    }
}

static int step_local(outr_steps *steps)
{
    outr__call *c = of(steps);
    outr_err err;
    if (c->is_waiting) {
        c->is_waiting = false;
        err = c->lead->op.err;
        outr__entry_waited(c->mesh, &err);
        if (err.code)
            return outr__call_fail(c, &err);
    }
    if (is_expired(c, &err))
        return outr__call_fail(c, &err);
    if (!outr_app_is_configured(c->mesh->o.app)) {
        outr_fail(&err, OUTR_INTERNAL, "cannot invoke local endpoint: app channel not initialized");
        outr_mark(&err, OUTR_WHY_NO_APP);
        return outr__call_fail(c, &err);
    }
    if (!outr_app_is_healthy(c->mesh->o.app)) {
        outr_fail(&err, OUTR_INTERNAL, "app is not in a healthy state");
        outr_mark(&err, OUTR_WHY_APP_UNHEALTHY);
        return outr__call_fail(c, &err);
    }
    if (outr_str_is(c->verb, "NONE") && !outr_app_speaks_grpc(c->mesh->o.app)) {
        outr_fail(&err, OUTR_INTERNAL, OUTR__NO_VERB);
        outr_mark(&err, OUTR_WHY_APP_PROTOCOL);
        return outr__call_fail(c, &err);
    }
    if (c->invoke->is_proxied && c->mesh->o.settings->app_protocol < OUTR_APP_H2C) {
        outr_fail(&err, OUTR_UNAVAILABLE,
                  "the app does not speak gRPC: --app-protocol is " OUTR_FMT,
                  OUTR_ARG(c->mesh->o.settings->app_protocol_name));
        outr_mark(&err, OUTR_WHY_APP_PROTOCOL);
        return outr__call_fail(c, &err);
    }
    if (c->req.headers.count == 0 && c->invoke->is_proxied)
        outr__headers_of_proxied(&c->req.headers, &c->in->headers, c->mesh, NULL, false,
                                 &c->invoke->trace);
    else if (c->req.headers.count == 0)
        outr__headers_to_app(&c->req.headers,
                             &(outr__to_app){.in = &c->in->headers,
                                             .invoke = c->invoke,
                                             .trace = &c->invoke->trace,
                                             .is_traced = outr__call_is_traced(c),
                                             .is_grpc_app = outr_app_speaks_grpc(c->mesh->o.app)});
    int next = enter_local(c);
    if (next != OUTR__CALL_SEND)
        return next;
    if (!c->app_call)
        c->app_call = outr_arena_alloc(c->x->arena, sizeof *c->app_call);
    fill_http(c->lead, &c->app_call->http);
    c->steps.state = OUTR__CALL_SEND;
    if (c->invoke->is_proxied)
        outr_app_call_start(c->mesh->o.app, c->app_call, outr__call_op(c));
    else
        outr__filtered_app_start(c->mesh, c->app_call, &c->x->peer, outr__call_op(c));
    return OUTR_WAIT;
}

void outr__try_send(outr__try *t)
{
    t->is_at_daprd = t->is_observed = false;
    fill_http(t, &t->http);
    t->http.on_place = outr__call_on_place;
    outr_http_call_start(outr__peer_pool(t->pick.peer), &t->http, outr__try_op(t));
}

void outr__try_forget_peer(outr__try *t, bool has_failed)
{
    if (!t->pick.peer)
        return;
    if (has_failed)
        outr__pick_avoid(&t->pick);
    outr__pick_release(&t->pick, has_failed);
}

void outr__try_avoid_peer(outr__try *t)
{
    if (t->pick.peer)
        outr__pick_avoid(&t->pick);
    outr__try_forget_peer(t, false);
}

static int fail_cancelled(outr__call *c)
{
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "cancelled");
    outr__try_forget_peer(c->lead, false);
    return outr__call_fail(c, &err);
}

static void on_body_complete(outr__replay *replay, void *user)
{
    outr__call *c = user;
    if (replay->kept > OUTR__MIRROR_BODY_MAX)
        return;
    outr_str bytes = outr__replay_bytes(replay, c->x->arena);
    outr__mirror_send(c->mirror, &c->req, &bytes, c->invoke->is_proxied);
}

/* Now, or as soon as its body is here; not when that is not kept. */
static void send_mirror(outr__call *c)
{
    if (c->in->upgrade.n > 0)
        return;
    outr__call_keep_body(c, OUTR__MIRROR_BODY_MAX);
    if (!c->body)
        outr__mirror_send(c->mirror, &c->req, NULL, c->invoke->is_proxied);
    else if (c->replay && outr__replay_is_complete(c->replay))
        on_body_complete(c->replay, c);
    else if (c->replay) {
        c->replay->on_complete = on_body_complete;
        c->replay->user = c;
    }
}

/* There was no connection for it, and there could be none. */
static bool is_crowded_out(const outr__try *t)
{
    return t->pick.peer && t->op.err.code == OUTR_RESOURCE_EXHAUSTED && !t->is_unsendable &&
           t->http.progress == OUTR_CALL_NOT_SENT;
}

/* A limit of ours: it says nothing of the callee, and trying again is what it is to prevent. */
static int fail_full(outr__call *c, const outr_err *err)
{
    c->is_final = c->is_refused = true;
    outr__try_forget_peer(c->lead, false);
    return outr__call_fail(c, err);
}

static int step_pick(outr_steps *steps)
{
    outr__call *c = of(steps);
    outr__try *t = c->lead;
    outr_err err;
    /* as the answer was on its way: nothing is sent for nobody */
    if (t->pick.peer && c->is_cancelled)
        return fail_cancelled(c);
    if (t->pick.peer && t->pick.is_repeat && !c->is_elsewhere) { /* all, in this round */
        outr__try_forget_peer(t, true);
        t->op.done = NULL;
        return OUTR__CALL_PAUSE;
    }
    if (t->pick.peer && is_expired(c, &err)) {
        outr__try_forget_peer(t, false);
        return outr__call_fail(c, &err);
    }
    if (t->pick.peer) { /* the pick of this step is done */
        c->err.code = OUTR_OK;
        c->req.authority = c->target.app_id;
        if (c->mesh->o.peer_tls)
            c->req.scheme = OUTR_STR("https");
        if (c->req.headers.count == 0 && c->invoke->is_proxied)
            outr__headers_of_proxied(&c->req.headers, &c->in->headers, c->mesh, &c->target, false,
                                     &c->invoke->trace);
        else if (c->req.headers.count == 0)
            outr__headers_to_peer(&c->req.headers, c->mesh, c->invoke, c->in, &c->target,
                                  outr__call_is_traced(c));
        outr__call_say_environment(c, &c->req.headers, OUTR_STR("baggage"));
        c->steps.state = OUTR__CALL_SEND;
        if (c->mirror && c->attempts == 0)
            send_mirror(c);
        outr__race_prepare(c);
        outr__try_send(t);
        outr__race_begin(c);
        return OUTR_WAIT;
    }
    if (t->op.err.code && t->op.done && !(t->pick.is_subset_empty && outr__call_falls_back(c))) {
        err = t->op.err;
        if (t->pick.is_subset_empty)
            outr_mark(&err, OUTR_WHY_NO_SUBSET_INSTANCE);
        if (err.code == OUTR_UNAVAILABLE && !err.why)
            outr_mark(&err, OUTR_WHY_NO_RESOLVER);
        return t->pick.full ? fail_full(c, &err) : outr__call_fail(c, &err);
    }
    t->pick.app_id = c->target.app_id;
    t->pick.namespace_ = c->target.namespace_;
    t->pick.labels = outr__call_labels(c);
    t->pick.is_subset_empty = false;
    t->pick.is_repeatable =
        outr__call_repeats(c) || (c->is_idempotent && outr__call_can_resend(c));
    outr__pick_start(c->mesh->peers, &t->pick, c->x->arena, outr__call_op(c));
    return OUTR_WAIT;
}

static int step_reach(outr_steps *steps)
{
    outr__call *c = of(steps);
    outr_err err;
    if (!c->reach)
        c->reach = outr_arena_alloc(c->x->arena, sizeof *c->reach);
    if (!c->reach->op) {
        c->reach->target = &c->target;
        outr__reach_start(c->mesh->outside, c->reach, c->x->arena, outr__call_op(c));
        return OUTR_WAIT;
    }
    if (c->lead->op.err.code) {
        err = c->lead->op.err;
        return outr__call_fail(c, &err);
    }
    if (c->is_cancelled)
        return fail_cancelled(c);
    outr_str base = c->reach->url.path;
    while (base.n && base.p[base.n - 1] == '/')
        base.n--;
    c->req.authority = outr_hostport_join(c->x->arena, c->reach->url.host, c->reach->url.port);
    c->req.target = outr_arena_join(c->x->arena, base, c->target_text, OUTR_STR_NONE);
    if (c->req.headers.count == 0)
        outr__headers_to_outside(&c->req.headers, &c->in->headers, c->reach->endpoint,
                                 &c->invoke->trace, outr__call_is_traced(c));
    fill_http(c->lead, &c->lead->http);
    c->steps.state = OUTR__CALL_SEND;
    outr__filtered_http_start(c->mesh, c->reach->pool, &c->lead->http, &c->x->peer,
                              outr__call_op(c));
    return OUTR_WAIT;
}

/* Nothing happened at the peer, or it may happen twice; and there is still a body to send. */
static bool may_repeat(const outr__call *c, const outr_http_call *http)
{
    if (c->is_cancelled || c->lead->is_unsendable || c->relay.has_head ||
        c->lead->op.err.code != OUTR_UNAVAILABLE || http->progress == OUTR_CALL_ANSWERED ||
        !outr__call_can_resend(c))
        return false;
    return http->progress == OUTR_CALL_NOT_SENT ||
           (http->was_reused && !c->invoke->is_proxied &&
            outr__is_idempotent(c->verb, &c->in->headers));
}

/* Where to after a try that may be repeated. */
static int move_on(outr__call *c, bool may_be_stale, const outr_err *err)
{
    unsigned max =
        c->invoke->is_proxied ? PROXIED_TRIES_MAX : (unsigned)OUTR_LEN(c->lead->pick.tried);
    c->lead->op.done = NULL;
    if (c->is_local || c->target.kind != OUTR__APP) { /* there is no other instance */
        if (c->reach)
            c->reach->op = NULL;
        if (!may_be_stale)
            return outr__call_fail(c, err);
        return c->is_local ? OUTR__CALL_LOCAL : OUTR__CALL_REACH;
    }
    c->err = *err;
    c->is_elsewhere = false;
    c->lead->pick.is_fresh = true;
    if (++c->tries < max)
        return OUTR__CALL_PICK;
    return c->invoke->is_proxied ? OUTR__CALL_FAILED : OUTR__CALL_PAUSE;
}

/* A call that went well at once is told by its own span. */
static void record_attempt(const outr__try *t, const outr_http_call *http)
{
    const outr__call *c = t->call;
    const outr_trace_config *config = &c->mesh->trace;
    const outr_err *err = t->op.err.code ? &t->op.err : &c->err;
    bool has_failed = err->code || c->is_again;
    outr_trace trace;
    if (!outr_span_is_wanted(config, &c->invoke->trace) || (c->attempts == 1 && !has_failed))
        return;
    outr_trace_child(&trace, &c->invoke->trace, outr_loop_rand(c->mesh->o.loop));
    const outr_attempt_span attempt = {
        .trace = &trace,
        .began_ns = t->sent_ns,
        .number = c->attempts,
        .app_id = c->invoke->target,
        .address = t->pick.peer ? outr__peer_address(t->pick.peer) : OUTR_STR_NONE,
        .code = err->code,
        .status = http->progress == OUTR_CALL_ANSWERED ? http->head.status : 0,
        .text = outr_str_from(err->code ? err->text : ""),
        .reason = outr_str_from(err->code ? outr_why_word(outr_why_of(err)) : ""),
    };
    outr_span_attempt(config->tracer, &attempt);
}

/* The try had no answer, or its answer broke off. A kept connection that was closed meanwhile says
 * nothing of the instance. */
static void observe_failure(outr__try *t, const outr_err *err, bool is_stale)
{
    const outr__call *c = t->call;
    outr_class how = outr_classify_error(err->code);
    uint64_t took = outr_loop_now(c->mesh->o.loop) - t->sent_ns;
    /* the caller's, or the route's, of which others have had their part */
    bool is_callers = err->code == OUTR_DEADLINE_EXCEEDED && t->op.deadline_ns &&
                      (c->invoke->deadline_ns == t->op.deadline_ns ||
                       (c->attempts > 1 && outr__call_route_deadline(c) == t->op.deadline_ns));
    if (c->is_cancelled || is_stale || how == OUTR_CLASS_GOOD)
        return;
    if (is_callers) { /* so long it took at least; whether that is too long the caller said */
        if (!t->is_observed)
            outr__pick_took_longer(&t->pick, took);
        return;
    }
    if (t->is_observed)
        outr__pick_judge(&t->pick, how);
    else
        outr__pick_observe(&t->pick, took, how, 0);
    t->is_observed = true;
}

void outr__try_failed(outr__try *t)
{
    outr_err err = t->op.err;
    bool is_unreachable = err.code == OUTR_UNAVAILABLE && t->http.progress == OUTR_CALL_NOT_SENT;
    record_attempt(t, &t->http);
    if (t->is_at_daprd && !t->is_unsendable)
        outr__daprd_outcome(t->daprd, &err);
    if (err.code && !t->is_observed && !is_crowded_out(t))
        observe_failure(t, &err, t->http.was_reused);
    outr__try_forget_peer(t, is_unreachable && !t->http.was_reused);
}

/* The try is over. */
static int step_send(outr_steps *steps)
{
    outr__call *c = of(steps);
    outr__try *t = c->lead;
    const outr_http_call *http = c->is_local ? &c->app_call->http : &t->http;
    bool is_full = is_crowded_out(t);
    if (is_full)
        outr__pick_fail_full(&t->pick, "connections", &t->op.err);
    if (t->op.err.code)
        (c->is_local ? outr__why_of_app : outr__why_of_peer)(http, &t->op.err);
    outr_err err = t->op.err;
    bool is_unreachable = err.code == OUTR_UNAVAILABLE && http->progress == OUTR_CALL_NOT_SENT;
    bool may_be_stale = http->was_reused && !c->was_stale;
    outr__race_end(c);
    record_attempt(t, http);
    if (c->ticket)
        outr_ticket_give_back(c->ticket, false);
    if (is_full)
        return fail_full(c, &err);
    if (!c->is_again && t->is_at_daprd && !t->is_unsendable && outr__daprd_outcome(t->daprd, &err))
        return outr__call_after_daprd(c);
    if (t->pick.peer && err.code && !c->is_again)
        observe_failure(t, &err, is_unreachable && may_be_stale);
    bool goes_elsewhere = c->is_again && !outr__call_is_governed(c);
    if (goes_elsewhere || (err.code == OUTR_UNAVAILABLE && http->progress == OUTR_CALL_SENT &&
                           !may_be_stale && outr__call_goes_elsewhere(c)))
        return c->is_cancelled ? fail_cancelled(c) : outr__call_move(c);
    if (c->is_again || (c->retry && !may_be_stale && (err.code || c->err.code)))
        outr__try_avoid_peer(t);
    outr__try_forget_peer(t, is_unreachable && !may_be_stale);
    if (c->is_again)
        return outr__call_fail(c, &err);
    if (err.code == OUTR_OK && c->err.code) /* told by the peer's sidecar */
        return OUTR__CALL_FAILED;
    if (err.code == OUTR_OK) {
        outr__call_succeeded(c);
        return OUTR_END;
    }
    if (c->is_limited && c->limiter.is_over) {
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "stream too large");
        outr_mark(&err, OUTR_WHY_BODY_TOO_LARGE);
    } else if (may_repeat(c, http)) {
        c->was_stale = true;
        return move_on(c, may_be_stale, &err);
    }
    c->is_taken |= http->body_taken;
    if (c->invoke->is_proxied) {
        err.code = outr__grpc_failure(http, &err);
    } else if (c->is_local && !c->relay.has_head && err.code != OUTR_CANCELLED &&
               err.code != OUTR_DEADLINE_EXCEEDED) {
        outr_err inner = err;
        outr_fail(&err, OUTR_INTERNAL, "error invoking app channel: %s", inner.text);
        outr_mark(&err, outr_why_of(&inner));
    }
    return outr__call_fail(c, &err);
}

#define STARTS (TO(OUTR__CALL_PICK) | TO(OUTR__CALL_REACH) | TO(OUTR__CALL_LOCAL))
#define FAILED TO(OUTR__CALL_FAILED)

static const outr_step call_steps[] = {
    [OUTR__CALL_TARGET] = {"target", step_target,
                           TO(OUTR__CALL_TRY) | TO(OUTR__CALL_FAULT) | FAILED},
    [OUTR__CALL_FAULT] = {"fault", outr__call_step_fault, TO(OUTR__CALL_TRY) | FAILED},
    [OUTR__CALL_TRY] = {"try", outr__call_step_try, STARTS | FAILED},
    [OUTR__CALL_PICK] = {"pick", step_pick, TO(OUTR__CALL_SEND) | TO(OUTR__CALL_PAUSE) | FAILED},
    [OUTR__CALL_REACH] = {"reach", step_reach, TO(OUTR__CALL_SEND) | FAILED},
    [OUTR__CALL_LOCAL] = {"local", step_local, TO(OUTR__CALL_SEND) | FAILED},
    [OUTR__CALL_SEND] = {"send", step_send,
                         TO(OUTR__CALL_SEND) | TO(OUTR__CALL_PAUSE) | STARTS | FAILED},
    [OUTR__CALL_PAUSE] = {"pause", outr__call_step_pause, TO(OUTR__CALL_PICK) | FAILED},
    [OUTR__CALL_FAILED] = {"failed", outr__call_step_failed, TO(OUTR__CALL_AGAIN)},
    [OUTR__CALL_AGAIN] = {"again", outr__call_step_again, TO(OUTR__CALL_TRY) | FAILED},
};

void outr_mesh_invoke_cancel(outr_invoke *invoke, outr_code why)
{
    outr__call *c = invoke->impl;
    c->is_cancelled = true;
    outr__race_end(c);
    outr_op_cancel(&c->lead->op, why);
}

static void on_gone(outr_exchange *x, const outr_err *err OUTR_UNUSED)
{
    outr_mesh_invoke_cancel(x->invoke, OUTR_CANCELLED);
}

void outr_mesh_invoke(outr_mesh *mesh, outr_invoke *invoke)
{
    outr_exchange *x = invoke->x;
    outr__call *c = outr_arena_alloc(x->arena, sizeof *c);
    c->invoke = invoke;
    c->mesh = mesh;
    c->x = x;
    c->in = invoke->req ? invoke->req : &x->req;
    c->first.call = c;
    c->lead = &c->first;
    invoke->impl = c;
    if (!invoke->on_answer) {
        x->invoke = invoke;
        x->on_gone = on_gone;
    }
    outr_list_push(&mesh->calls, &c->link);
    outr_steps_init(&c->steps, call_steps, OUTR__CALL_TARGET, NULL);
    outr_steps_run(&c->steps);
}
