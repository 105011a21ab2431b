#include "loop/step.h"
#include "mesh/internal.h"

/* The call machine of the calling side. One call:
 *   target -> (local app | pick a peer | reach a URL) -> send -> relay the answer -> end
 * A try that failed before anything was sent goes to another instance at once; when all were tried
 * the
 * name is asked for again, three times a second apart (the reference's built-in retry). */

#define ROUNDS_MAX     4 /* the first and three more */
#define ROUND_PAUSE_NS OUTR_SEC
/* A proxied call goes to another instance when one cannot be reached, and waits for none. */
#define PROXIED_TRIES_MAX 4
#define PEER_ERROR_MAX    (8 * OUTR_KIB)
/* of a body kept for a daprd that may have to be asked twice */
#define REPLAY_MAX (64 * OUTR_KIB)

enum { CALL_TARGET, CALL_PICK, CALL_REACH, CALL_LOCAL, CALL_SEND, CALL_PAUSE, CALL_FAILED };

typedef struct call {
    outr_invoke *invoke;
    outr_mesh *mesh;
    outr_exchange *x;
    const outr_http_request *in; /* the caller's */
    outr_link link;
    outr_steps steps;
    outr_op op; /* of the step in progress */
    outr__target target;
    outr_str target_text, verb;
    outr_http_request req;
    outr_app_call app_call; /* LOCAL */
    outr_http_call http;    /* peer, outside */
    outr__pick pick;
    outr_snapshot *snapshot; /* holds target.endpoint over a reload */
    outr__reach reach;
    outr__relay relay;
    outr__limiter limiter;
    outr_source *body;
    outr__replay *replay;    /* of body; NULL: it can be sent once */
    outr__daprd_call *daprd; /* NULL: no daprd was met */
    outr_gather peer_error;
    outr_err err;
    uint64_t sent_ns;
    unsigned round, tries;
    bool is_limited, is_gathering, is_cancelled;
    bool is_at_daprd, is_unsendable;
} call;

static const outr_metric_desc req_sent = {"dapr_runtime_service_invocation_req_sent_total",
                                          "invocations sent",
                                          OUTR_COUNTER,
                                          0,
                                          {"dst_app_id", "type"}};
static const outr_metric_desc res_recv = {"dapr_runtime_service_invocation_res_recv_total",
                                          "answers received",
                                          OUTR_COUNTER,
                                          0,
                                          {"src_app_id", "status", "type"}};
static const outr_metric_desc res_latency = {"dapr_runtime_service_invocation_res_recv_latency_ms",
                                             "request sent to headers received, ms",
                                             OUTR_HISTOGRAM,
                                             OUTR_BUCKETS_LATENCY_MS,
                                             {"src_app_id", "status"}};

static call *of(outr_steps *steps)
{
    return OUTR_CONTAINER(steps, call, steps);
}

static bool is_traced(const call *c)
{
    return c->mesh->trace.is_on;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void end_call(call *c, const outr_err *err)
{
    outr_invoke *invoke = c->invoke;
    outr_link_remove(&c->link);
    outr_snapshot_unref(c->snapshot);
    if (c->replay)
        outr__replay_done(c->replay);
    if (err && !c->relay.has_head)
        invoke->on_failed(invoke, err);
    else
        invoke->on_done(invoke, err);
}

static int fail(call *c, const outr_err *err)
{
    c->err = *err;
    return CALL_FAILED;
}

static int step_failed(outr_steps *steps)
{
    call *c = of(steps);
    outr_err err = c->err;
    end_call(c, &err);
    return OUTR_END;
}

/* ---- the answer ------------------------------------------------------------------------------ */

static void on_relay_head(outr__relay *relay, outr_http_response *head)
{
    call *c = OUTR_CONTAINER(relay, call, relay);
    if (c->invoke->on_head)
        c->invoke->on_head(c->invoke, head);
}

static void count_answer(call *c, int status)
{
    outr_metric_shard *shard = outr_loop_metrics(c->mesh->o.loop);
    char text[20];
    if (!shard || c->target.kind != OUTR__APP)
        return;
    const outr_str labels[] = {c->target.app_id, outr_str_decimal(text, (uint64_t)status),
                               c->req.content_length < 0 ? OUTR_STR("streaming")
                                                         : OUTR_STR("unary")};
    outr_metric_count(shard, &res_recv, labels, 1);
    outr_metric_count(shard, &res_latency, labels,
                      (double)(outr_loop_update(c->mesh->o.loop) - c->sent_ns) / (double)OUTR_MS);
}

static void on_peer_error(outr_gather *gather, const outr_err *err)
{
    call *c = gather->ctx;
    c->is_gathering = false;
    if (!err) {
        outr_str text = outr_buf_view(&gather->body);
        outr_fail(&c->err, c->err.code, OUTR_FMT, OUTR_ARG(text));
    }
    outr_buf_done(&gather->body);
}

/* The peer's sidecar, not its app, says why it failed. */
static bool take_peer_error(call *c, outr_http_call *http)
{
    uint64_t code;
    if (c->target.kind != OUTR__APP ||
        !outr_str_to_u64(outr_headers_get(&http->head.headers, OUTR__ERROR_HEADER), 16, &code))
        return false;
    outr_fail(&c->err, (outr_code)code, "rpc error: code = %s", outr_code_name((outr_code)code));
    if (http->response) {
        c->is_gathering = true;
        outr_gather_start(&c->peer_error, http->response, PEER_ERROR_MAX, on_peer_error, c);
    }
    return true;
}

static void on_response(outr_http_call *http)
{
    call *c = http->user;
    count_answer(c, http->head.status);
    if (http == &c->http && !c->invoke->is_proxied && take_peer_error(c, http))
        return;
    if (c->invoke->on_answer) {
        bool is_of_grpc_app = http != &c->app_call.http || outr_app_speaks_grpc(c->mesh->o.app);
        if (c->target.kind != OUTR__APP || !is_of_grpc_app)
            outr__headers_disown(&http->head.headers);
        c->relay.has_head = true;
        c->invoke->on_answer(c->invoke, http);
        return;
    }
    c->relay.x = c->x;
    c->relay.guesses_type = !c->invoke->is_proxied;
    c->relay.is_proxied = c->invoke->is_proxied;
    c->relay.op = &c->op;
    if (c->relay.is_proxied)
        outr__headers_disown(&http->head.headers);
    c->relay.on_head = on_relay_head;
    outr__relay_answer(&c->relay, http);
}

static void on_inform(outr_http_call *http, const outr_http_response *head)
{
    call *c = http->user;
    outr_http_response copy = {.status = head->status, .content_length = -1};
    if (head->status == 100 || c->invoke->on_answer)
        return; /* each hop says it for itself */
    outr_headers_init(&copy.headers, c->x->arena);
    outr__headers_of_answer(&copy.headers, &head->headers, false);
    outr_http_inform(c->x, &copy);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void on_step_done(outr_op *op)
{
    outr_steps_run(&OUTR_CONTAINER(op, call, op)->steps);
}

static outr_op *step_op(call *c)
{
    outr_op_init(&c->op, c->mesh->o.loop, NULL, c->invoke->deadline_ns, on_step_done);
    return &c->op;
}

static void prepare_body(call *c)
{
    int64_t max = c->mesh->o.settings->max_body_bytes;
    outr_exchange *x = c->x;
    if (c->invoke->req) {
        if (c->invoke->bytes.n == 0)
            return;
        c->replay = outr_arena_alloc(x->arena, sizeof *c->replay);
        outr__replay_init_bytes(c->replay, c->mesh->o.loop, c->invoke->bytes);
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
static outr_code prepare_request(call *c, outr_err *err)
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
    call *c = of(steps);
    outr_invoke *invoke = c->invoke;
    const outr_http_request *in = c->in;
    outr_err err;
    if (outr__target_parse(&c->target, invoke->target, c->mesh->snapshot, c->mesh->o.settings,
                           &err) ||
        prepare_request(c, &err))
        return fail(c, &err);
    if (invoke->is_proxied && c->target.kind != OUTR__APP) {
        outr_fail(&err, OUTR_INVALID_ARGUMENT, "a gRPC call goes to an app id, not to " OUTR_FMT,
                  OUTR_ARG(invoke->target));
        return fail(c, &err);
    }
    const outr_str labels[] = {c->target.app_id,
                               in->content_length < 0 ? OUTR_STR("streaming") : OUTR_STR("unary")};
    if (c->target.endpoint)
        c->snapshot = outr_snapshot_ref(c->mesh->snapshot);
    if (c->target.kind != OUTR__APP)
        return CALL_REACH;
    outr_metric_count(outr_loop_metrics(c->mesh->o.loop), &req_sent, labels, 1);
    bool is_local = outr_str_eq(c->target.app_id, c->mesh->o.settings->app_id) &&
                    outr_str_eq(c->target.namespace_, c->mesh->o.settings->namespace_);
    return is_local ? CALL_LOCAL : CALL_PICK;
}

static void fill_http(call *c, outr_http_call *http)
{
    *http = (outr_http_call){.req = &c->req,
                             .body = c->replay ? outr__replay_again(c->replay) : c->body,
                             .on_response = on_response,
                             .on_inform = on_inform,
                             .user = c,
                             .ends_with_answer = c->invoke->is_proxied,
                             .arena = c->x->arena};
    c->sent_ns = outr_loop_now(c->mesh->o.loop);
    if (c->invoke->is_proxied && c->invoke->deadline_ns)
        outr__headers_set_timeout(&c->req.headers, c->sent_ns, c->invoke->deadline_ns);
}

static int step_local(outr_steps *steps)
{
    call *c = of(steps);
    outr_err err;
    if (!outr_app_is_configured(c->mesh->o.app)) {
        outr_fail(&err, OUTR_INTERNAL, "cannot invoke local endpoint: app channel not initialized");
        return fail(c, &err);
    }
    if (!outr_app_is_healthy(c->mesh->o.app)) {
        outr_fail(&err, OUTR_INTERNAL, "app is not in a healthy state");
        return fail(c, &err);
    }
    if (outr_str_is(c->verb, "NONE") && !outr_app_speaks_grpc(c->mesh->o.app)) {
        outr_fail(&err, OUTR_INTERNAL, OUTR__NO_VERB);
        return fail(c, &err);
    }
    if (c->invoke->is_proxied && c->mesh->o.settings->app_protocol < OUTR_APP_H2C) {
        outr_fail(&err, OUTR_UNAVAILABLE,
                  "the app does not speak gRPC: --app-protocol is " OUTR_FMT,
                  OUTR_ARG(c->mesh->o.settings->app_protocol_name));
        return fail(c, &err);
    }
    if (c->invoke->is_proxied)
        outr__headers_of_proxied(&c->req.headers, &c->in->headers, c->mesh, NULL, false,
                                 &c->invoke->trace);
    else
        outr__headers_to_app(&c->req.headers,
                             &(outr__to_app){.in = &c->in->headers,
                                             .invoke = c->invoke,
                                             .trace = &c->invoke->trace,
                                             .is_traced = is_traced(c),
                                             .is_grpc_app = outr_app_speaks_grpc(c->mesh->o.app)});
    fill_http(c, &c->app_call.http);
    c->steps.state = CALL_SEND;
    if (c->invoke->is_proxied)
        outr_app_call_start(c->mesh->o.app, &c->app_call, step_op(c));
    else
        outr__filtered_app_start(c->mesh, &c->app_call, &c->x->peer, step_op(c));
    return OUTR_WAIT;
}

/* ---- a peer that is a daprd ------------------------------------------------------------------ */

/* A body that may have to be sent again, should the peer not take it the first time. */
static void keep_body(call *c)
{
    if (c->replay || !c->body || c->is_limited || c->body->length < 0 ||
        c->body->length > (int64_t)REPLAY_MAX)
        return;
    c->replay = outr_arena_try(c->x->arena, sizeof *c->replay);
    if (c->replay && !outr__replay_init(c->replay, c->mesh->o.loop, c->x->arena, c->body))
        c->replay = NULL;
    if (c->replay)
        c->body = &c->replay->source;
}

static outr__daprd_call *new_daprd(call *c)
{
    outr__daprd_call *d = outr_arena_alloc(c->x->arena, sizeof *d);
    d->loop = c->mesh->o.loop;
    d->arena = c->x->arena;
    d->max_bytes = c->mesh->o.settings->max_body_bytes > 0
                       ? (size_t)c->mesh->o.settings->max_body_bytes
                       : UINT32_MAX;
    d->trace = &c->invoke->trace;
    d->deadline_ns = c->invoke->deadline_ns;
    d->wants_events =
        outr_str_iis(outr_headers_get(&c->in->headers, "accept"), "text/event-stream");
    d->on_answer = on_response;
    d->user = c;
    return d;
}

static outr_code send_to_daprd(call *c, outr_http_call *http, outr_err *err)
{
    const outr_invoke *invoke = c->invoke;
    outr_headers metadata;
    outr_str method;
    if (c->in->upgrade.n > 0)
        return outr_fail(err, OUTR_UNIMPLEMENTED, "a daprd peer takes no upgrade");
    if (!c->daprd) {
        c->daprd = new_daprd(c);
        keep_body(c);
    }
    outr_code rc = outr__method_clean(&method, c->x->arena, invoke->method, err);
    if (rc)
        return rc;
    outr_headers_init(&metadata, c->x->arena);
    outr__headers_to_daprd(&metadata, c->mesh, invoke, c->in, &c->target);
    const outr__daprd_request request = {
        .metadata = &metadata,
        .verb = outr_str_is(c->verb, "NONE") ? OUTR_STR_NONE : c->verb,
        .method = method,
        .query = invoke->query,
        .content_type = outr_headers_get(&c->in->headers, "content-type"),
        .type_url = invoke->type_url,
        .has_data = invoke->has_data,
    };
    c->daprd->authority = outr__peer_address(c->pick.peer);
    c->daprd->scheme = c->req.scheme;
    http->body = c->replay ? outr__replay_again(c->replay) : c->body;
    return outr__daprd_send(c->daprd, http, &request, err);
}

/* A daprd always says of a call's trace, both ways. */
static void add_trace(call *c)
{
    outr_headers *out = &c->req.headers;
    if (!outr_headers_has(out, "traceparent")) {
        char *text = outr_arena_alloc(out->arena, OUTR_TRACEPARENT_LEN + 1);
        outr_trace_write(&c->invoke->trace, text);
        outr_headers_add(out, OUTR_STR("traceparent"), outr_str_of(text, OUTR_TRACEPARENT_LEN));
    }
    outr_headers_set(out, OUTR_STR("grpc-trace-bin"),
                     outr__daprd_trace_bin(out->arena, &c->invoke->trace));
}

/* The peer is known now: an Outrigger takes the request as it is. */
static outr_code on_place(outr_http_call *http, outr_err *err)
{
    call *c = http->user;
    if (http->peer_setting == OUTR_MESH_SETTINGS_VALUE)
        return OUTR_OK;
    if (c->invoke->is_proxied) {
        add_trace(c);
        return OUTR_OK;
    }
    c->is_at_daprd = true;
    outr_code rc = send_to_daprd(c, http, err);
    c->is_unsendable = rc != OUTR_OK;
    return rc;
}

static void send_to_peer(call *c)
{
    c->is_at_daprd = false;
    fill_http(c, &c->http);
    c->http.on_place = on_place;
    outr_http_call_start(outr__peer_pool(c->pick.peer), &c->http, step_op(c));
}

static void forget_peer(call *c, bool has_failed);

/* What the peer's sidecar said instead of an answer. */
static int after_daprd(call *c)
{
    outr__daprd_call *d = c->daprd;
    outr_code status = d->status;
    bool may_repeat = !c->is_cancelled && (c->replay || !c->body);
    if (status == OUTR_UNIMPLEMENTED && !d->is_unary && may_repeat) {
        d->is_unary = true;
        send_to_peer(c);
        return OUTR_WAIT;
    }
    if (status == OUTR_UNIMPLEMENTED && !d->is_unary)
        outr_fail(&d->failure, OUTR_UNIMPLEMENTED,
                  "target app '" OUTR_FMT "' is running a version of Dapr that does not support "
                  "streaming-based service invocation",
                  OUTR_ARG(c->target.app_id));
    c->err = d->failure;
    if ((status != OUTR_UNAVAILABLE && status != OUTR_UNAUTHENTICATED) || !may_repeat) {
        forget_peer(c, false);
        return CALL_FAILED;
    }
    outr_http_pool_retire(
        outr__peer_pool(c->pick.peer)); /* it may be said to this connection only */
    forget_peer(c, true);
    c->pick.is_fresh = true;
    c->op.done = NULL;
    return CALL_PAUSE;
}

static void forget_peer(call *c, bool has_failed)
{
    outr__peer *peer = c->pick.peer;
    c->pick.peer = NULL;
    if (!peer)
        return;
    if (has_failed && c->pick.tried_count < OUTR_LEN(c->pick.tried))
        c->pick.tried[c->pick.tried_count++] = peer;
    outr__peer_release(peer, has_failed);
}

static int fail_cancelled(call *c)
{
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "cancelled");
    forget_peer(c, false);
    return fail(c, &err);
}

static int step_pick(outr_steps *steps)
{
    call *c = of(steps);
    /* as the answer was on its way: nothing is sent for nobody */
    if (c->pick.peer && c->is_cancelled)
        return fail_cancelled(c);
    if (c->pick.peer) { /* the pick of this step is done */
        c->req.authority = c->target.app_id;
        if (c->mesh->o.peer_tls)
            c->req.scheme = OUTR_STR("https");
        if (c->req.headers.count == 0 && c->invoke->is_proxied)
            outr__headers_of_proxied(&c->req.headers, &c->in->headers, c->mesh, &c->target, false,
                                     &c->invoke->trace);
        else if (c->req.headers.count == 0)
            outr__headers_to_peer(&c->req.headers, c->mesh, c->invoke, c->in, &c->target,
                                  is_traced(c));
        c->steps.state = CALL_SEND;
        send_to_peer(c);
        return OUTR_WAIT;
    }
    if (c->op.err.code && c->op.done) {
        outr_err err = c->op.err;
        return fail(c, &err);
    }
    c->pick.app_id = c->target.app_id;
    c->pick.namespace_ = c->target.namespace_;
    outr__pick_start(c->mesh->peers, &c->pick, c->x->arena, step_op(c));
    return OUTR_WAIT;
}

static int step_reach(outr_steps *steps)
{
    call *c = of(steps);
    outr_err err;
    if (!c->reach.op) {
        c->reach.target = &c->target;
        outr__reach_start(c->mesh->outside, &c->reach, c->x->arena, step_op(c));
        return OUTR_WAIT;
    }
    if (c->op.err.code) {
        err = c->op.err;
        return fail(c, &err);
    }
    if (c->is_cancelled)
        return fail_cancelled(c);
    outr_str base = c->reach.url.path;
    while (base.n && base.p[base.n - 1] == '/')
        base.n--;
    c->req.authority = outr__authority(c->x->arena, &c->reach.url);
    c->req.target = outr_arena_join(c->x->arena, base, c->target_text, OUTR_STR_NONE);
    outr__headers_to_outside(&c->req.headers, &c->in->headers, c->reach.endpoint, &c->invoke->trace,
                             is_traced(c));
    fill_http(c, &c->http);
    c->steps.state = CALL_SEND;
    outr__filtered_http_start(c->mesh, c->reach.pool, &c->http, &c->x->peer, step_op(c));
    return OUTR_WAIT;
}

/* Nothing happened at the peer, or it may happen twice; and there is still a body to send. */
static bool may_repeat(const call *c, const outr_http_call *http)
{
    if (c->is_cancelled || c->is_unsendable || c->relay.has_head ||
        c->op.err.code != OUTR_UNAVAILABLE || http->progress == OUTR_CALL_ANSWERED ||
        (http->body_taken && !c->replay))
        return false;
    return http->progress == OUTR_CALL_NOT_SENT ||
           (outr__is_idempotent(c->verb) && http->was_reused);
}

/* The try is over. */
static int step_send(outr_steps *steps)
{
    call *c = of(steps);
    bool is_local = c->app_call.http.req != NULL;
    const outr_http_call *http = is_local ? &c->app_call.http : &c->http;
    outr_err err = c->op.err;
    bool is_unreachable = err.code == OUTR_UNAVAILABLE && http->progress == OUTR_CALL_NOT_SENT;
    if (c->is_at_daprd && !c->is_unsendable && outr__daprd_outcome(c->daprd, &err))
        return after_daprd(c);
    forget_peer(c, is_unreachable);
    if (err.code == OUTR_OK && c->err.code) /* told by the peer's sidecar */
        return CALL_FAILED;
    if (err.code == OUTR_OK) {
        end_call(c, NULL);
        return OUTR_END;
    }
    if (c->is_limited && c->limiter.is_over)
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "stream too large");
    else if (may_repeat(c, http)) {
        c->tries++;
        c->op.done = NULL;
        if (is_local)
            return c->tries == 1 && http->was_reused ? CALL_LOCAL : fail(c, &err);
        if (c->target.kind != OUTR__APP)
            return c->tries == 1 && http->was_reused ? (c->reach.op = NULL, CALL_REACH)
                                                     : fail(c, &err);
        if (c->invoke->is_proxied && c->tries >= PROXIED_TRIES_MAX)
            return fail(c, &err);
        bool has_more = c->tries % 4 != 0 && c->pick.tried_count < OUTR_LEN(c->pick.tried);
        c->pick.is_fresh = true;
        if (has_more &&
            !(c->tries >= 2 && c->round == 0 && c->pick.tried_count >= 2 &&
              c->pick.tried[c->pick.tried_count - 1] == c->pick.tried[c->pick.tried_count - 2]))
            return CALL_PICK;
        c->err = err;
        return c->invoke->is_proxied ? CALL_FAILED : CALL_PAUSE;
    }
    if (c->invoke->is_proxied) {
        err.code = outr__grpc_failure(http, &err);
    } else if (is_local && !c->relay.has_head && err.code != OUTR_CANCELLED) {
        outr_err inner = err;
        outr_fail(&err, OUTR_INTERNAL, "error invoking app channel: %s", inner.text);
    }
    return fail(c, &err);
}

static int step_pause(outr_steps *steps)
{
    call *c = of(steps);
    if (c->op.done) { /* the pause is over */
        outr_err err = c->err;
        c->op.done = NULL;
        if (c->is_cancelled)
            return fail(c, &err);
        c->pick.tried_count = 0;
        c->err.code = OUTR_OK;
        return CALL_PICK;
    }
    if (++c->round >= ROUNDS_MAX) {
        outr_err inner = c->err;
        outr_fail(&c->err, OUTR_UNAVAILABLE,
                  "failed to invoke target " OUTR_FMT " after %u retries. Error: %s",
                  OUTR_ARG(c->invoke->target), ROUNDS_MAX - 1, inner.text);
        return CALL_FAILED;
    }
    outr_sleep_start(outr_loop_now(c->mesh->o.loop) + ROUND_PAUSE_NS, step_op(c));
    return OUTR_WAIT;
}

static const outr_step call_steps[] = {
    [CALL_TARGET] = {"target", step_target,
                     TO(CALL_PICK) | TO(CALL_REACH) | TO(CALL_LOCAL) | TO(CALL_FAILED)},
    [CALL_PICK] = {"pick", step_pick, TO(CALL_SEND) | TO(CALL_FAILED)},
    [CALL_REACH] = {"reach", step_reach, TO(CALL_SEND) | TO(CALL_FAILED)},
    [CALL_LOCAL] = {"local", step_local, TO(CALL_SEND) | TO(CALL_FAILED)},
    [CALL_SEND] = {"send", step_send,
                   TO(CALL_SEND) | TO(CALL_PICK) | TO(CALL_LOCAL) | TO(CALL_REACH) |
                       TO(CALL_PAUSE) | TO(CALL_FAILED)},
    [CALL_PAUSE] = {"pause", step_pause, TO(CALL_PICK) | TO(CALL_FAILED)},
    [CALL_FAILED] = {"failed", step_failed, 0},
};

void outr_mesh_invoke_cancel(outr_invoke *invoke, outr_code why)
{
    call *c = invoke->impl;
    c->is_cancelled = true;
    outr_op_cancel(&c->op, why);
}

static void on_gone(outr_exchange *x, const outr_err *err OUTR_UNUSED)
{
    outr_mesh_invoke_cancel(x->invoke, OUTR_CANCELLED);
}

void outr_mesh_invoke(outr_mesh *mesh, outr_invoke *invoke)
{
    outr_exchange *x = invoke->x;
    call *c = outr_arena_alloc(x->arena, sizeof *c);
    c->invoke = invoke;
    c->mesh = mesh;
    c->x = x;
    c->in = invoke->req ? invoke->req : &x->req;
    invoke->impl = c;
    if (!invoke->on_answer) {
        x->invoke = invoke;
        x->on_gone = on_gone;
    }
    outr_list_push(&mesh->calls, &c->link);
    outr_steps_init(&c->steps, call_steps, CALL_TARGET, NULL);
    outr_steps_run(&c->steps);
}
