#include "mesh/call.h"

/* What TrafficPolicies say of a call to another app: its route is found once, its fault comes
 * before the first try, and each pick is for instances with the labels of subset and environment.
 * Without policies c->routed is NULL and nothing here costs a call anything. */

static const outr_metric_desc faults = {"outrigger_faults_injected_total",
                                        "calls that were delayed or aborted by a TrafficPolicy",
                                        OUTR_COUNTER,
                                        0,
                                        {"target", "kind"}};

static void count_fault(const outr__call *c, const char *kind)
{
    outr_metric_count(outr_loop_metrics(c->mesh->o.loop), &faults,
                      (const outr_str[]){c->target.app_id, outr_str_from(kind)}, 1);
}

static outr_arena *arena_of(const outr__call *c)
{
    return c->x->arena;
}

/* What the caller's token says, when routes ask and this sidecar knows the issuer; nothing of one
 * that is not good. It passes on as it is. */
static const outr_claims *claims_of(const outr__call *c)
{
    const outr_mesh *mesh = c->mesh;
    const outr_claims *claims = NULL;
    outr_headers shown;
    if (!mesh->authn ||
        !outr_routes_ask_claims(mesh->routes, c->target.app_id, c->target.namespace_))
        return c->x->claims;
    outr_headers_init(&shown, arena_of(c));
    for (size_t i = 0; i < c->in->headers.count; i++) {
        if (outr_str_iis(c->in->headers.items[i].name, "authorization"))
            outr_headers_add(&shown, c->in->headers.items[i].name, c->in->headers.items[i].value);
    }
    if (shown.count == 0 ||
        outr_authn_admit(mesh->authn, mesh->o.loop, &shown, arena_of(c), &claims))
        return NULL;
    return claims;
}

void outr__call_route(outr__call *c)
{
    const outr_mesh *mesh = c->mesh;
    outr_loop *loop = mesh->o.loop;
    if (!mesh->routes || c->target.kind != OUTR__APP || c->is_local)
        return;
    if (!c->snapshot) /* routes stay as long as theirs */
        c->snapshot = outr_snapshot_ref(mesh->snapshot);
    const outr_route_request request = {.app_id = c->target.app_id,
                                        .namespace_ = c->target.namespace_,
                                        .source = mesh->o.settings->app_id,
                                        .method = c->verb,
                                        .target = c->req.target,
                                        .headers = &c->in->headers,
                                        .claims = claims_of(c)};
    outr__routed *r = outr_arena_alloc(arena_of(c), sizeof *r);
    r->rules = outr_routes_target(mesh->routes, c->target.app_id, c->target.namespace_);
    r->choice = outr_routes_choose(mesh->routes, &request, &mesh->o.settings->labels,
                                   outr_loop_rand(loop), arena_of(c));
    outr_route_wants_of(&r->wants, &r->choice, r->rules->environment, arena_of(c));
    c->routed = r;
    const outr_route_spec *route = r->choice.route;
    if (!route)
        return;
    outr__call_use_route(c, route);
    if (route->timeout_ns)
        r->deadline_ns = outr_loop_now(loop) + route->timeout_ns;
    if (route->fault.is_on)
        r->fault =
            outr_fault_draw(&route->fault, outr_loop_unix_ns(loop), outr_loop_rand(loop));
}

/* ---- the fault ------------------------------------------------------------------------------- */

bool outr__call_has_fault(const outr__call *c)
{
    return c->routed && (c->routed->fault.delay_ns || c->routed->fault.aborts);
}

static int abort_call(outr__call *c)
{
    const outr_fault_spec *spec = &c->routed->choice.route->fault;
    outr_err err;
    count_fault(c, "abort");
    outr_fail(&err, (outr_code)spec->abort_grpc, "a fault was injected by TrafficPolicy " OUTR_FMT,
              OUTR_ARG(c->routed->choice.policy->base.name));
    outr_mark(&err, OUTR_WHY_FAULT_INJECTED);
    c->invoke->status = (int)spec->abort_status;
    c->is_final = true;
    return outr__call_fail(c, &err);
}

int outr__call_step_fault(outr_steps *steps)
{
    outr__call *c = OUTR_CONTAINER(steps, outr__call, steps);
    outr__try *t = c->lead;
    const outr_fault *fault = &c->routed->fault;
    if (fault->delay_ns && !t->op.done) {
        count_fault(c, "delay");
        outr_sleep_start(outr_loop_now(c->mesh->o.loop) + fault->delay_ns, outr__call_op(c));
        return OUTR_WAIT;
    }
    outr_err err = t->op.err;
    bool has_slept = t->op.done != NULL;
    t->op.done = NULL;
    if (c->is_cancelled && !err.code)
        outr_fail(&err, OUTR_CANCELLED, "cancelled");
    if (has_slept && (err.code || c->is_cancelled))
        return outr__call_fail(c, &err);
    if (fault->aborts)
        return abort_call(c);
    outr__call_find_policy(c);
    return OUTR__CALL_TRY;
}

/* ---- instances ------------------------------------------------------------------------------- */

const outr_kvs *outr__call_labels(const outr__call *c)
{
    const outr__routed *r = c->routed;
    return r && r->wants.labels[r->at].count > 0 ? &r->wants.labels[r->at] : NULL;
}

bool outr__call_falls_back(outr__call *c)
{
    outr__routed *r = c->routed;
    if (!r || r->at + 1 >= r->wants.count)
        return false;
    r->at++;
    return true;
}

void outr__call_say_environment(const outr__call *c, outr_headers *out, outr_str name)
{
    const outr__routed *r = c->routed;
    if (r && r->choice.sets_environment)
        outr_headers_set(out, name,
                         outr_baggage_with(&c->in->headers, r->rules->environment->baggage,
                                           r->choice.environment, arena_of(c)));
}

/* ---- time ------------------------------------------------------------------------------------ */

uint64_t outr__call_route_deadline(const outr__call *c)
{
    return c->routed ? c->routed->deadline_ns : 0;
}

bool outr__call_is_overdue(outr__call *c)
{
    uint64_t deadline = outr__call_route_deadline(c), callers = c->invoke->deadline_ns;
    if (!deadline || c->err.code != OUTR_DEADLINE_EXCEEDED || c->is_cancelled ||
        (callers && callers <= deadline) || outr_loop_now(c->mesh->o.loop) < deadline)
        return false;
    outr_fail(&c->err, OUTR_DEADLINE_EXCEEDED, "timeout of route \"" OUTR_FMT "\"",
              OUTR_ARG(c->routed->choice.route->name));
    outr_mark(&c->err, OUTR_WHY_TIMEOUT);
    c->invoke->status = 504;
    c->is_final = true;
    return true;
}
