#include "grpc/status.h"
#include "mesh/deadline.h"
#include "mesh/daprd_served.h"
#include "observe/span.h"

/* The called side: what the internal port's server runs for each request of a peer. */

/* The caller ends the call when its time is over, and says why; this side does so only when nothing
 * is heard of that, so that the two do not race. */
#define DEADLINE_SLACK_NS (20 * OUTR_MS)

typedef struct served {
    outr_mesh *mesh;
    outr_exchange *x;
    outr_link link;
    outr_op op;
    outr_app_call call;
    outr_http_request req;
    uint64_t deadline_ns; /* 0: none */
    outr__relay relay;
    outr_str caller;
    outr_trace trace;          /* span of this hop */
    outr__daprd_served *daprd; /* of a daprd's CallLocal; NULL: the request as it is */
    outr_ticket *ticket;       /* for the app; NULL: none is needed */
    unsigned tries;
    bool is_proxied;
} served;

static const outr_metric_desc req_recv = {"dapr_runtime_service_invocation_req_recv_total",
                                          "invocations received",
                                          OUTR_COUNTER,
                                          0,
                                          {"src_app_id"}};
static const outr_metric_desc res_sent = {"dapr_runtime_service_invocation_res_sent_total",
                                          "answers sent",
                                          OUTR_COUNTER,
                                          0,
                                          {"dst_app_id", "status"}};

/* A gRPC call, where an invocation between Outriggers has no "te" even when its body is of that
 * type. */
static bool is_proxied(const outr_http_request *req)
{
    return outr_grpc_is_call(req) && outr_headers_has_token(&req->headers, "te", "trailers");
}

/* ---- the span of this hop: as the reference calls it, whoever the peer is -------------------- */

static void record(outr_mesh *mesh, const outr_exchange *x, const outr_http_request *req,
                   const outr_trace *trace, outr_str caller, int status, const char *failure,
                   outr_why why)
{
    static const char rpc[] = OUTR__INTERNALS "ServiceInvocation/CallLocal";
    char number[20];
    outr_str path, app_id = mesh->o.settings->app_id;
    bool is_rpc = is_proxied(req);
    if (!outr_span_is_wanted(&mesh->trace, trace))
        return;
    outr_str_cut(req->target, '?', &path);
    outr_span span;
    outr_span_init(&span, trace, OUTR_SPAN_SERVER, path, x->started_ns);
    if (failure)
        outr_span_fail(&span, outr_str_from(failure));
    outr_span_add(&span, "dapr.protocol", OUTR_STR("grpc"));
    outr_span_add(&span, "dapr.api", is_rpc ? path : OUTR_STR(rpc));
    if (!is_rpc) {
        span.name = outr_arena_join(x->arena, OUTR_STR("CallLocal/"), app_id, path);
        outr_span_add(&span, "dapr.invoke_method", outr_str_skip(path, 1));
        outr_span_add(&span, "rpc.service", OUTR_STR("ServiceInvocation"));
    }
    if (status > 0)
        outr_span_add(&span, "dapr.status_code", outr_str_decimal(number, (uint64_t)status));
    outr_span_add(&span, "net.peer.name", caller);
    if (why)
        outr_span_add(&span, "outrigger.reason", outr_str_from(outr_why_word(why)));
    outr_span_add_headers(&span, &req->headers);
    outr_span_record(mesh->trace.tracer, &span);
}

static void record_refused(outr_mesh *mesh, const outr_exchange *x, const outr_http_request *req,
                           outr_code code, outr_why why)
{
    outr_trace parent, trace;
    if (!mesh->trace.tracer)
        return;
    outr_trace_read_grpc(&parent, &x->req.headers);
    outr_trace_start(&trace, &parent, &mesh->trace, outr_loop_rand(mesh->o.loop));
    record(mesh, x, req, &trace, OUTR_STR_NONE, 0, outr_code_name(code), why);
}

static void record_served(const served *s, const outr_err *err, outr_why why)
{
    const outr_http_call *http = &s->call.http;
    int status = http->progress == OUTR_CALL_ANSWERED ? http->head.status : 0;
    outr_code code = err->code ? err->code : s->relay.grpc_code;
    const char *failure = code            ? outr_code_name(code)
                          : status >= 400 ? outr_http_status_text(status)
                                          : NULL;
    record(s->mesh, s->x, s->daprd ? &s->daprd->req : &s->x->req, &s->trace, s->caller, status,
           failure, why);
}

/* ---- answers --------------------------------------------------------------------------------- */

/* An error of this sidecar, in a form no app can be mistaken for: the caller strips the header from
 * what apps answer. */
static void answer_error(outr_exchange *x, const outr__refusal *why)
{
    bool is_grpc = is_proxied(&x->req);
    outr_http_response head = {.status = is_grpc ? 200 : 500};
    outr_str body = OUTR_STR_NONE, word = outr_str_from(outr_why_word(why->why));
    outr_headers_init(&head.headers, x->arena);
    if (is_grpc) {
        const outr_grpc_status status = {.code = why->code,
                                         .message = outr_str_from(why->text),
                                         .reason = word,
                                         .after_ns = why->after_ns};
        outr_headers_add(&head.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
        outr_grpc_status_write(&head.headers, &status);
    } else {
        outr_headers_add(&head.headers, OUTR_STR(OUTR__ERROR_HEADER),
                         outr_arena_printf(x->arena, "%d", (int)why->code));
        outr_headers_add(&head.headers, OUTR_STR("content-type"),
                         OUTR_STR("text/plain; charset=utf-8"));
        body = outr_arena_printf(x->arena, "rpc error: code = %s desc = %s",
                                 outr_code_name(why->code), why->text);
    }
    if (!is_grpc && word.n > 0)
        outr_headers_add(&head.headers, OUTR_STR(OUTR_REASON_HEADER), word);
    if (why->challenge.p)
        outr_headers_add(&head.headers, OUTR_STR("www-authenticate"), why->challenge);
    if (why->after_ns && !is_grpc) /* RFC 9110 section 10.2.3 */
        outr_headers_add(
            &head.headers, OUTR_STR("retry-after"),
            outr_arena_printf(x->arena, "%llu",
                              (unsigned long long)((why->after_ns + OUTR_SEC - 1) / OUTR_SEC)));
    head.content_length = (int64_t)body.n;
    outr_http_reply(x, &head, body);
    outr_http_done(x);
}

static void tell(outr_mesh *mesh, outr_why why, const char *text)
{
    outr_mesh_tell_local(mesh, why, mesh->o.settings->app_id, text);
}

/* is_told: who refused it has logged it. */
static void refuse_for(outr_mesh *mesh, outr_exchange *x, const outr__refusal *why, bool is_told)
{
    tell(mesh, why->why, is_told ? NULL : why->text);
    record_refused(mesh, x, &x->req, why->code, why->why);
    answer_error(x, why);
}

static void refuse(outr_mesh *mesh, outr_exchange *x, outr_code code, outr_why why,
                   const char *text)
{
    refuse_for(mesh, x, &(outr__refusal){.code = code, .why = why, .text = text}, false);
}

static void count_answer(const served *s, int status)
{
    char text[20];
    const outr_str labels[] = {s->caller, outr_str_decimal(text, (uint64_t)status)};
    outr_metric_count(outr_loop_metrics(s->mesh->o.loop), &res_sent, labels, 1);
}

static void on_response(outr_http_call *http)
{
    served *s = http->user;
    count_answer(s, http->head.status);
    if (s->ticket)
        outr_ticket_give_back(s->ticket, http->head.status < 500);
    if (s->daprd) {
        outr__daprd_answered(s->daprd, http);
        return;
    }
    bool is_grpc_app = outr_app_speaks_grpc(s->mesh->o.app);
    if (s->is_proxied)
        outr__headers_disown(&http->head.headers);
    s->relay.x = s->x;
    s->relay.is_proxied = s->is_proxied;
    s->relay.op = &s->op;
    s->relay.keeps_grpc = is_grpc_app;
    outr__relay_answer(&s->relay, http);
}

static void on_inform(outr_http_call *http, const outr_http_response *head)
{
    served *s = http->user;
    if (head->status != 100 && !s->daprd)
        outr_http_inform(s->x, head);
}

static void start(served *s);

static void end_daprd(served *s, const outr_err *err, outr_why how)
{
    outr__daprd_served *d = s->daprd;
    char text[OUTR_ERR_TEXT_MAX + 32];
    const outr_err *why = d->failure.code ? &d->failure : err;
    if (d->has_answered) {
        outr__daprd_done(d);
        return;
    }
    snprintf(text, sizeof text, "error invoking app channel: %s",
             why->code == OUTR_DEADLINE_EXCEEDED ? "context deadline exceeded" : why->text);
    outr__daprd_refuse(d, OUTR_INTERNAL, how ? how : outr_why_of(why), text);
}

static void on_done(outr_op *op)
{
    served *s = OUTR_CONTAINER(op, served, op);
    outr_exchange *x = s->x;
    const outr_http_call *http = &s->call.http;
    bool is_stale = op->err.code == OUTR_UNAVAILABLE && http->was_reused &&
                    http->progress == OUTR_CALL_SENT && !http->body_taken &&
                    !s->is_proxied && outr__is_idempotent(s->req.method, &s->req.headers);
    if (op->err.code && is_stale && s->tries++ == 0 && x->on_gone) {
        start(s); /* the app closed a kept-alive connection just as the request went out */
        return;
    }
    outr_link_remove(&s->link);
    if (s->ticket)
        outr_ticket_give_back(s->ticket, false);
    outr_err err = op->err;
    bool is_answered = s->daprd ? s->daprd->has_answered : s->relay.has_head;
    bool is_waited_for = x->on_gone || err.code != OUTR_CANCELLED;
    outr_why why = OUTR_WHY_NONE;
    if (err.code && !is_answered && is_waited_for)
        why = outr__why_of_app(http, &err);
    record_served(s, &err, why);
    if (s->daprd) {
        end_daprd(s, &err, why);
        return;
    }
    if (err.code == OUTR_OK || is_answered) {
        outr_http_done(x);
        return;
    }
    bool is_late = err.code == OUTR_DEADLINE_EXCEEDED;
    char text[OUTR_ERR_TEXT_MAX + 32];
    outr__refusal refusal = {
        .code = is_late ? OUTR_DEADLINE_EXCEEDED : OUTR_INTERNAL, .why = why, .text = text};
    snprintf(text, sizeof text, "error invoking app channel: %s", err.text);
    if (s->is_proxied) {
        refusal.code = outr__grpc_failure(http, &err);
        refusal.text = is_late ? "context deadline exceeded" : err.text;
    }
    tell(s->mesh, why, refusal.text);
    answer_error(x, &refusal);
}

static outr_source *body_of(const served *s)
{
    if (s->daprd)
        return s->daprd->body;
    return s->x->req.upgrade.n ? s->x->tunnel : s->x->body;
}

static void start(served *s)
{
    s->call = (outr_app_call){.http = {.req = &s->req,
                                       .body = body_of(s),
                                       .on_response = on_response,
                                       .on_inform = on_inform,
                                       .user = s,
                                       .ends_with_answer = s->is_proxied,
                                       .arena = s->x->arena}};
    uint64_t until = s->deadline_ns ? s->deadline_ns + DEADLINE_SLACK_NS : 0;
    outr_op_init(&s->op, s->mesh->o.loop, NULL, until, on_done);
    if (s->is_proxied)
        outr_app_call_start(s->mesh->o.app, &s->call, &s->op);
    else
        outr__filtered_app_start(s->mesh, &s->call, &s->x->peer, &s->op);
}

static void on_gone(outr_exchange *x, const outr_err *err OUTR_UNUSED)
{
    served *s = x->user;
    x->on_gone = NULL;
    outr_op_cancel(&s->op, OUTR_CANCELLED);
}

/* ---- on its way to the app ------------------------------------------------------------------- */

/* It has not come to the app. */
static void turn_away(served *s, const outr_err *err)
{
    outr_exchange *x = s->x;
    bool is_late = err->code == OUTR_DEADLINE_EXCEEDED;
    outr_why how = x->on_gone || err->code != OUTR_CANCELLED ? outr_why_of(err) : OUTR_WHY_NONE;
    const outr__refusal why = {
        .code = err->code, .why = how, .text = is_late ? "context deadline exceeded" : err->text};
    outr_link_remove(&s->link);
    record_served(s, err, how);
    if (s->daprd) { /* UNAVAILABLE it would ask again */
        bool is_over = how == OUTR_WHY_OVERLOADED;
        outr__daprd_refuse(s->daprd, is_over ? OUTR_RESOURCE_EXHAUSTED : why.code, how, why.text);
        return;
    }
    if (how)
        tell(s->mesh, how, why.text);
    answer_error(x, &why);
}

static void on_waited(outr_op *op)
{
    served *s = OUTR_CONTAINER(op, served, op);
    outr_err err = op->err;
    outr__entry_waited(s->mesh, &err);
    if (err.code)
        turn_away(s, &err);
    else
        start(s);
}

static void enter(served *s)
{
    outr_err err;
    outr_op_init(&s->op, s->mesh->o.loop, NULL, s->deadline_ns, on_waited);
    switch (outr__entry_take(s->mesh, &s->ticket, s->x->arena, s->req.target, &s->op)) {
    case OUTR_TAKEN:
        start(s);
        break;
    case OUTR_TAKEN_LATER:
        break;
    case OUTR_TAKEN_NOT:
        outr_fail(&err, OUTR_UNAVAILABLE, OUTR__OVERLOADED);
        outr_mark(&err, OUTR_WHY_OVERLOADED);
        turn_away(s, &err);
        break;
    }
}

/* What was judged is what is dispatched: the target goes on byte for byte, so it must be clean. */
static bool is_clean_target(outr_arena *arena, outr_str target)
{
    outr_str path;
    outr_str_cut(target, '?', &path);
    return path.n > 0 && path.p[0] == '/' && outr_str_find(target, '#') < 0 &&
           outr_str_eq(outr_path_clean(arena, path), path);
}

/* Whom the call is for; "dapr-app-id" from a daprd that passes a proxied call on. */
static outr_str callee_of(const outr_exchange *x)
{
    outr_str callee = outr_headers_get(&x->req.headers, "dapr-callee-app-id");
    return callee.p ? callee : outr_headers_get(&x->req.headers, "dapr-app-id");
}

static bool admit(outr_mesh *mesh, outr_exchange *x)
{
    outr_str callee = callee_of(x);
    bool is_grpc = is_proxied(&x->req);
    if (is_grpc && !callee.p) {
        bool is_daprs = outr_str_starts(x->req.target, OUTR_STR("/dapr.proto."));
        refuse(mesh, x, OUTR_UNKNOWN, OUTR_WHY_NO_TARGET,
               is_daprs ? "failed to proxy request: required metadata dapr-callee-app-id or "
                          "dapr-app-id not found"
                        : "cannot proxy request: missing dapr-callee-app-id or dapr-app-id "
                          "metadata");
        return false;
    }
    if (!outr_str_eq(callee, mesh->o.settings->app_id)) {
        refuse(mesh, x, is_grpc ? OUTR_UNKNOWN : OUTR_NOT_FOUND, OUTR_WHY_WRONG_APP,
               is_grpc ? "no host found with the given ID" : "this sidecar serves another app id");
        return false;
    }
    if (!outr_app_is_configured(mesh->o.app)) {
        refuse(mesh, x, is_grpc ? OUTR_UNAVAILABLE : OUTR_INTERNAL, OUTR_WHY_NO_APP,
               "app channel is not initialized");
        return false;
    }
    if (!is_clean_target(x->arena, x->req.target)) {
        refuse(mesh, x, OUTR_INVALID_ARGUMENT, OUTR_WHY_BAD_REQUEST, "malformed method");
        return false;
    }
    outr__refusal why;
    if (!outr__admits(mesh, x, &x->req, is_grpc, &why)) {
        refuse_for(mesh, x, &why, true);
        return false;
    }
    if (outr_app_is_up(mesh->o.app) && !outr_app_is_healthy(mesh->o.app)) {
        refuse(mesh, x, OUTR_INTERNAL, OUTR_WHY_APP_UNHEALTHY, "app is not in a healthy state");
        return false;
    }
    uint64_t timeout_ns;
    if (is_grpc && !outr_grpc_timeout_read(&timeout_ns, &x->req.headers)) {
        refuse(mesh, x, OUTR_INTERNAL, OUTR_WHY_BAD_REQUEST, "malformed grpc-timeout");
        return false;
    }
    if (is_grpc && mesh->o.settings->app_protocol < OUTR_APP_H2C) {
        refuse(mesh, x, OUTR_UNAVAILABLE, OUTR_WHY_APP_PROTOCOL,
               "the app does not speak gRPC: --app-protocol is http");
        return false;
    }
    if (outr_str_is(x->req.method, "NONE") && !outr_app_speaks_grpc(mesh->o.app)) {
        refuse(mesh, x, OUTR_INTERNAL, OUTR_WHY_APP_PROTOCOL, OUTR__NO_VERB);
        return false;
    }
    if (!outr__entry_rates(mesh, x, &x->req, false, &why)) {
        refuse_for(mesh, x, &why, false);
        return false;
    }
    return true;
}

/* A request that was let in: req is what the peer sent, as HTTP. */
static void serve(outr_mesh *mesh, outr_exchange *x, const outr_http_request *req,
                  outr__daprd_served *daprd)
{
    outr_trace parent;
    served *s = outr_arena_alloc(x->arena, sizeof *s);
    s->mesh = mesh;
    s->x = x;
    s->daprd = daprd;
    s->deadline_ns = daprd ? daprd->deadline_ns : 0;
    if (!daprd)
        outr_deadline_read(&s->deadline_ns, &req->headers, outr_loop_now(mesh->o.loop));
    s->caller = outr_headers_get(&req->headers, "dapr-caller-app-id");
    x->user = s;
    x->on_gone = on_gone;
    const outr_str label = s->caller.n ? s->caller : OUTR_STR("unknown");
    s->caller = label;
    outr_metric_count(outr_loop_metrics(mesh->o.loop), &req_recv, &label, 1);
    s->is_proxied = !daprd && is_proxied(req);
    if (s->is_proxied)
        outr_trace_read_grpc(&parent, &req->headers);
    else
        outr_trace_read(&parent, &req->headers);
    outr_trace_start(&s->trace, &parent, &mesh->trace, outr_loop_rand(mesh->o.loop));
    s->req = (outr_http_request){.method = req->method,
                                 .target = req->target,
                                 .content_length = req->content_length,
                                 .upgrade = req->upgrade};
    outr_headers_init(&s->req.headers, x->arena);
    if (s->is_proxied) {
        uint64_t timeout_ns; /* admit has looked at it */
        if (outr_grpc_timeout_read(&timeout_ns, &req->headers) && timeout_ns)
            s->deadline_ns = outr_loop_now(mesh->o.loop) + timeout_ns;
        outr__headers_of_proxied(&s->req.headers, &req->headers, mesh, NULL, true, &s->trace);
    } else {
        outr__headers_to_app(&s->req.headers,
                             &(outr__to_app){.in = &req->headers,
                                             .trace = &s->trace,
                                             .is_traced = mesh->trace.is_on,
                                             .is_grpc_app = outr_app_speaks_grpc(mesh->o.app)});
        if (!daprd)
            outr_deadline_write(&s->req.headers, outr_loop_now(mesh->o.loop), s->deadline_ns);
    }
    outr_list_push(&mesh->calls, &s->link);
    if (outr__entry_has_gate(mesh))
        enter(s);
    else
        start(s);
}

static void on_daprd_ready(outr__daprd_served *d)
{
    outr_mesh *mesh = d->mesh;
    outr_str callee = outr_headers_get(&d->req.headers, "dapr-callee-app-id");
    const char *text = NULL;
    outr__refusal refusal = {.code = OUTR_OK};
    outr_code code = OUTR_OK;
    if (callee.p && !outr_str_eq(callee, mesh->o.settings->app_id)) {
        code = OUTR_UNAVAILABLE;
        refusal.why = OUTR_WHY_WRONG_APP;
        text = "this sidecar serves another app id";
    } else if (!outr__admits(mesh, d->x, &d->req, false, &refusal)) {
        code = OUTR_PERMISSION_DENIED; /* UNAUTHENTICATED it would ask again */
        text = refusal.text;
    } else if (outr_app_is_up(mesh->o.app) && !outr_app_is_healthy(mesh->o.app)) {
        code = OUTR_INTERNAL;
        refusal.why = OUTR_WHY_APP_UNHEALTHY;
        text = "error invoking app channel: app is not in a healthy state";
    } else if (!outr__entry_rates(mesh, d->x, &d->req, false, &refusal)) {
        code = refusal.code;
        text = refusal.text;
    }
    if (!code) {
        serve(mesh, d->x, &d->req, d);
        return;
    }
    record_refused(mesh, d->x, &d->req, code, refusal.why);
    outr__daprd_refuse(d, code, refusal.why, text);
}

outr_code outr__caller(outr_identity *out, const outr_mesh *mesh, const outr_exchange *x,
                       outr_err *err)
{
    outr_err inner;
    *out = (outr_identity){.id = OUTR_STR_NONE};
    if (!mesh->o.peer_tls)
        return OUTR_OK;
    if (outr_identity_parse(out, x->peer_id, &inner) == OUTR_OK)
        return OUTR_OK;
    return outr_fail(err, OUTR_PERMISSION_DENIED, "malformed SPIFFE ID: " OUTR_FMT,
                     OUTR_ARG(outr_str_head(x->peer_id, 256)));
}

const outr_identity *outr__identify(const outr_exchange *x)
{
    outr_identity *who = outr_arena_alloc(x->arena, sizeof *who);
    return outr_identity_parse(who, x->peer_id, NULL) == OUTR_OK ? who : NULL;
}

/* Whatever it asks for, also with no access control: contract/security.md. */
static bool is_workload(outr_mesh *mesh, outr_exchange *x)
{
    outr_identity who;
    outr_err err;
    if (outr__caller(&who, mesh, x, &err) == OUTR_OK)
        return true;
    outr_mesh_count_refused(mesh->o.loop, "server", "malformed_id");
    refuse(mesh, x, err.code, OUTR_WHY_MALFORMED_ID, err.text);
    return false;
}

/* What a peer's checks.c asks: the sidecar is here, whatever its app does. */
static void answer_ping(outr_exchange *x)
{
    outr_http_response head = {.status = 204};
    outr_headers_init(&head.headers, x->arena);
    outr_http_reply(x, &head, OUTR_STR_NONE);
    outr_http_done(x);
}

static void on_request(void *ctx, outr_exchange *x)
{
    outr_mesh *mesh = ctx;
    if (!is_workload(mesh, x))
        return;
    if (outr_str_is(x->req.method, "OPTIONS") && outr_str_is(x->req.target, "*"))
        answer_ping(x);
    else if (is_proxied(&x->req) && outr_str_starts(x->req.target, OUTR_STR(OUTR__INTERNALS)))
        outr__daprd_serve(mesh, x, on_daprd_ready);
    else if (admit(mesh, x))
        serve(mesh, x, &x->req, NULL);
}

const outr_http_handler outr_mesh_handler = {.on_request = on_request};
