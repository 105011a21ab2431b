#include "app/invocation.h"
#include "mesh/call.h"

#define PEER_ERROR_MAX (8 * OUTR_KIB)

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

static void on_relay_head(outr__relay *relay, outr_http_response *head)
{
    outr__call *c = OUTR_CONTAINER(relay, outr__call, relay);
    if (c->invoke->on_head)
        c->invoke->on_head(c->invoke, head);
}

/* ---- what the instance is told --------------------------------------------------------------- */

/* Retry-After in seconds (RFC 9110 section 10.2.3). Who goes by it has a limit of his own. */
static uint64_t retry_after(const outr_http_response *head)
{
    uint64_t seconds;
    outr_str text = outr_headers_get(&head->headers, "retry-after");
    return text.n && outr_str_to_u64(text, UINT32_MAX, &seconds) ? seconds * OUTR_SEC : 0;
}

/* grpc-retry-pushback-ms (gRFC A6): negative, or no number, forbids to try again. */
static uint64_t pushback(const outr_headers *headers)
{
    int64_t ms;
    outr_str text = outr_headers_get(headers, "grpc-retry-pushback-ms");
    if (!text.p)
        return 0;
    if (!outr_str_to_i64(text, 0, 3600 * 1000, &ms))
        return OUTR__CALL_NEVER;
    return (uint64_t)ms * OUTR_MS;
}

bool outr__answer_class(const outr__call *c, const outr_http_response *head, outr_class *how)
{
    uint64_t code;
    outr_str said = outr_headers_get(
        &head->headers, c->invoke->is_proxied ? "grpc-status" : OUTR_INVOKE_STATUS_HEADER);
    if (said.n && outr_str_to_u64(said, INT32_MAX, &code)) {
        *how = outr_classify_grpc((int)code);
        return true;
    }
    *how = outr_classify_http(head->status);
    return !c->invoke->is_proxied || head->status != 200;
}

static void observe(outr__try *t, const outr_http_response *head)
{
    outr_class how;
    uint64_t took = outr_loop_update(t->call->mesh->o.loop) - t->sent_ns;
    if (!t->pick.peer)
        return;
    t->is_observed = outr__answer_class(t->call, head, &how);
    if (t->is_observed)
        outr__pick_observe(&t->pick, took, how, how ? retry_after(head) : 0);
    else
        outr__pick_took(&t->pick, took);
}

/* ---- counting -------------------------------------------------------------------------------- */

static void count_answer(const outr__try *t, int status)
{
    const outr__call *c = t->call;
    outr_metric_shard *shard = outr_loop_metrics(c->mesh->o.loop);
    char text[20];
    if (!shard || c->target.kind != OUTR__APP)
        return;
    const outr_str labels[] = {c->target.app_id, outr_str_decimal(text, (uint64_t)status),
                               c->req.content_length < 0 ? OUTR_STR("streaming")
                                                         : OUTR_STR("unary")};
    outr_metric_count(shard, &res_recv, labels, 1);
    outr_metric_count(shard, &res_latency, labels,
                      (double)(outr_loop_now(c->mesh->o.loop) - t->sent_ns) / (double)OUTR_MS);
}

static void on_peer_error(outr_gather *gather, const outr_err *err)
{
    outr__call *c = gather->ctx;
    if (!err) {
        outr_str text = outr_buf_view(&gather->body);
        outr_why why = outr_why_of(&c->err);
        outr_fail(&c->err, c->err.code, OUTR_FMT, OUTR_ARG(text));
        outr_mark(&c->err, why);
    }
    outr_buf_done(&gather->body);
}

/* Why the peer's sidecar answered by itself. When it refuses who asks, asking again changes
 * nothing. */
static outr_why note_refusal(outr__call *c, const outr_http_response *head)
{
    outr_str word = outr_headers_get(&head->headers, OUTR_REASON_HEADER);
    outr_why why = outr_why_find(word);
    c->invoke->challenge = outr_headers_get(&head->headers, "www-authenticate");
    c->invoke->after_ns = retry_after(head);
    if (outr_why_is_about_caller(why))
        c->is_refused = c->is_final = true;
    return why || word.n == 0 ? why : OUTR_WHY_PEER_ERROR;
}

/* A gRPC call that is passed on as it is: what its end says is for its caller to know. */
static void note_proxied_refusal(outr__call *c, outr_http_response *head)
{
    outr_why why = note_refusal(c, head);
    if (!why)
        return;
    c->invoke->why = why;
    outr_mesh_tell_local(c->mesh, why, c->target.app_id, "the other sidecar said so");
}

/* Another instance may have a place for it; this one is not broken. */
static bool is_overload(const outr_http_response *head)
{
    return outr_why_find(outr_headers_get(&head->headers, OUTR_REASON_HEADER)) ==
           OUTR_WHY_OVERLOADED;
}

/* The peer's sidecar, not its app, says why it failed. */
static bool take_peer_error(outr__try *t, outr_http_call *http)
{
    outr__call *c = t->call;
    uint64_t code;
    if (c->target.kind != OUTR__APP ||
        !outr_str_to_u64(outr_headers_get(&http->head.headers, OUTR__ERROR_HEADER), 16, &code))
        return false;
    bool is_over = is_overload(&http->head);
    outr_class how = is_over ? OUTR_CLASS_LOAD : outr_classify_grpc((int)code);
    if (t->pick.peer && !t->is_observed) {
        t->is_observed = true;
        outr__pick_observe(&t->pick, outr_loop_update(c->mesh->o.loop) - t->sent_ns, how, 0);
    }
    if ((how == OUTR_CLASS_FAILURE || is_over) && outr__call_goes_elsewhere(c)) {
        outr_source_cancel(http->response, NULL);
        return true;
    }
    outr_fail(&c->err, (outr_code)code, "rpc error: code = %s", outr_code_name((outr_code)code));
    outr_why why = note_refusal(c, &http->head);
    outr_mark(&c->err, why ? why : OUTR_WHY_PEER_ERROR);
    if (http->response)
        outr_gather_start(&c->peer_error, http->response, PEER_ERROR_MAX, on_peer_error, c);
    return true;
}

/* What the policy takes the answer for, as far as its head says it: contract/invocation.md
 * section 2. True: bad, *status is its code. */
static bool is_bad(const outr__call *c, const outr_http_response *head, int *status)
{
    outr_str of_app = outr_headers_get(&head->headers, OUTR_INVOKE_STATUS_HEADER);
    bool is_asked_by_grpc = c->invoke->on_answer != NULL;
    uint64_t code;
    *status = head->status;
    if (c->invoke->is_proxied) {
        outr_str text = outr_headers_get(&head->headers, "grpc-status");
        bool is_told = outr_str_to_u64(text, INT32_MAX, &code);
        *status = is_told ? (int)code : head->status == 200 ? 0 : OUTR_UNKNOWN;
        return *status != 0;
    }
    if (c->target.kind == OUTR__APP && outr_str_to_u64(of_app, INT32_MAX, &code)) {
        *status = (int)code; /* an HTTP client gets it whatever it is */
        return is_asked_by_grpc && code != 0;
    }
    if (head->status == 101)
        return false;
    return head->status < 200 || head->status > (is_asked_by_grpc ? 299 : 399);
}

/* True: nothing of it is passed on. */
static bool is_thrown_away(outr__call *c, outr_http_call *http)
{
    int status;
    uint64_t after =
        c->invoke->is_proxied ? pushback(&http->head.headers) : retry_after(&http->head);
    if (!is_bad(c, &http->head, &status) || !outr__call_answer_is_bad(c, status, after))
        return false;
    if (http->response)
        outr_source_cancel(http->response, NULL);
    return true;
}

/* The end of a proxied call that was held back until it is known: the same. */
static bool on_relay_end(outr__relay *relay, const outr_headers *trailers)
{
    outr__call *c = OUTR_CONTAINER(relay, outr__call, relay);
    outr__try *t = c->lead;
    uint64_t code;
    outr_str text = trailers ? outr_headers_get(trailers, "grpc-status") : OUTR_STR_NONE;
    if (!outr_str_to_u64(text, INT32_MAX, &code))
        code = OUTR_UNKNOWN;
    if (t->pick.peer && !t->is_observed) {
        t->is_observed = true;
        outr__pick_judge(&t->pick, outr_classify_grpc((int)code));
    }
    return outr__call_is_governed(c) && !c->is_streaming && code != 0 &&
           outr__call_answer_is_bad(c, (int)code, trailers ? pushback(trailers) : 0);
}

/* A streaming call is good when it has begun: contract/invocation.md section 7. */
static void watch_end(outr__call *c)
{
    if (c->is_streaming)
        outr_guard_end(&c->guard, outr_loop_now(c->mesh->o.loop), OUTR_OUTCOME_GOOD);
    c->relay.on_end = on_relay_end;
    c->relay.holds_head = !c->is_streaming && outr__call_repeats(c);
}

void outr__answer_discard(outr__try *t, outr_http_call *http)
{
    observe(t, &http->head);
    count_answer(t, http->head.status);
    outr_source_cancel(http->response, NULL);
}

void outr__call_on_response(outr_http_call *http)
{
    outr__try *t = http->user;
    outr__call *c = t->call;
    if ((c->is_timed || t->is_lost) && !outr__race_takes(t, http))
        return;
    if (http == &t->http && !c->invoke->is_proxied && take_peer_error(t, http)) {
        count_answer(t, http->head.status);
        return;
    }
    if (c->ticket)
        outr_ticket_give_back(c->ticket, http->head.status < 500);
    observe(t, &http->head);
    count_answer(t, http->head.status);
    if (outr_classify_is_passing(http->head.status) && outr__call_goes_elsewhere(c)) {
        outr_source_cancel(http->response, NULL);
        return;
    }
    if (http == &t->http && c->invoke->is_proxied && http->peer_setting == OUTR_MESH_SETTINGS_VALUE)
        note_proxied_refusal(c, &http->head);
    if (outr__call_is_governed(c) && is_thrown_away(c, http))
        return;
    if (c->mirror)
        outr__mirror_tap(c->mirror, http, c->x->arena);
    if (c->invoke->on_answer) {
        bool is_of_grpc_app = !c->is_local || outr_app_speaks_grpc(c->mesh->o.app);
        if (c->target.kind != OUTR__APP || !is_of_grpc_app)
            outr__headers_disown(&http->head.headers);
        c->relay.has_head = true;
        c->invoke->on_answer(c->invoke, http);
        return;
    }
    c->relay.x = c->x;
    c->relay.guesses_type = !c->invoke->is_proxied;
    c->relay.is_proxied = c->invoke->is_proxied;
    c->relay.op = &t->op;
    if (c->relay.is_proxied)
        outr__headers_disown(&http->head.headers);
    if (c->relay.is_proxied && c->invoke->why)
        outr_headers_add(&http->head.headers, OUTR_STR(OUTR_REASON_HEADER),
                         outr_str_from(outr_why_word(c->invoke->why)));
    c->relay.on_head = on_relay_head;
    if (c->relay.is_proxied)
        watch_end(c);
    outr__relay_answer(&c->relay, http);
}

void outr__call_on_inform(outr_http_call *http, const outr_http_response *head)
{
    const outr__try *t = http->user;
    outr__call *c = t->call;
    outr_http_response copy = {.status = head->status, .content_length = -1};
    if (head->status == 100 || c->invoke->on_answer || t != c->lead || c->rival)
        return; /* each hop says it for itself */
    outr_headers_init(&copy.headers, c->x->arena);
    outr__headers_of_answer(&copy.headers, &head->headers, false);
    outr_http_inform(c->x, &copy);
}
