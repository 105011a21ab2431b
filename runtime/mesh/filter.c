#include "mesh/chain.h"
#include "mesh/internal.h"

/* Calls to the app, and to URLs, behind spec.appHttpPipeline: the same start functions with the
 * pipeline in front. What a middleware answers appears as the answer of who was called. */

typedef struct filtered {
    outr_mesh *mesh;
    outr_http_call *http;
    outr_app_call *app_call; /* NULL: http goes to pool */
    outr_http_pool *pool;
    outr_op *op;
    outr_op inner; /* of the call behind the pipeline */
    void *pin;
    enum { RUNNING, CALLING, ANSWERING } state;
    bool is_over; /* nothing is left to be cancelled */
    outr_chain_run run;
    outr_http_request request;
    void (*on_response)(outr_http_call *http); /* the caller's */
    void *user;
    outr_source source; /* of an answer */
    outr_deferred pusher;
} filtered;

static void let_go(filtered *f)
{
    f->is_over = true;
    f->mesh->o.unpin_chain(f->pin);
}

/* ---- a middleware's answer ------------------------------------------------------------------- */

static void on_push(outr_deferred *deferred)
{
    filtered *f = OUTR_CONTAINER(deferred, filtered, pusher);
    outr_sink *sink = f->source.sink;
    outr_str body = f->run.call.answer_body;
    if (body.n > 0) {
        f->run.call.answer_body = OUTR_STR_NONE;
        if (!sink->ops->data(sink, outr_slice_static(body)) || !f->source.sink)
            return; /* resume ends it */
    }
    outr_loop_undefer(&f->pusher); /* a resume from within data */
    f->source.sink = NULL;
    sink->source = NULL;
    let_go(f);
    outr_op_finish_soon(f->op); /* from here on a cancel comes too late */
    sink->ops->end(sink, NULL);
}

static void source_go_on(outr_source *source)
{
    filtered *f = OUTR_CONTAINER(source, filtered, source);
    outr_loop_defer(f->mesh->o.loop, &f->pusher);
}

static void source_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    filtered *f = OUTR_CONTAINER(source, filtered, source);
    outr_loop_undefer(&f->pusher);
    let_go(f);
    outr_op_finish_soon(f->op);
}

static const outr_source_ops source_ops = {
    .start = source_go_on, .resume = source_go_on, .cancel = source_cancel};

static void add_extra(filtered *f, outr_http_response *head)
{
    for (size_t i = 0; i < f->run.call.extra.count; i++) {
        const outr_header *h = &f->run.call.extra.items[i];
        outr_headers_add(&head->headers, h->name, h->value);
    }
}

/* In a turn of its own: whoever started the call hears of nothing before that has returned. */
static void on_answer(outr_deferred *deferred)
{
    filtered *f = OUTR_CONTAINER(deferred, filtered, pusher);
    outr_http_call *http = f->http;
    outr_str body = f->run.call.answer_body;
    http->head = f->run.call.answer;
    add_extra(f, &http->head);
    bool has_body = body.n > 0 && outr_http_has_body(http->req->method, http->head.status);
    http->head.content_length = (int64_t)body.n;
    f->source = (outr_source){.ops = &source_ops, .length = (int64_t)body.n};
    f->pusher.run = on_push;
    http->progress = OUTR_CALL_ANSWERED;
    http->response = has_body ? &f->source : NULL;
    http->user = f->user;
    f->on_response(http);
    if (!has_body) {
        let_go(f);
        outr_op_finish_soon(f->op);
    }
}

/* ---- the call behind it ---------------------------------------------------------------------- */

static void on_inner_done(outr_op *inner)
{
    filtered *f = OUTR_CONTAINER(inner, filtered, inner);
    outr_err err = inner->err;
    f->http->user = f->user;
    let_go(f);
    if (err.code)
        outr_op_fail(f->op, &err);
    else
        outr_op_finish(f->op);
}

/* The caller's handlers find its own user; the filter is found by the call's req. */
static void on_response(outr_http_call *http)
{
    filtered *f = http->user;
    add_extra(f, &http->head);
    http->user = f->user;
    f->on_response(http);
}

static void start_call(filtered *f)
{
    f->state = CALLING;
    f->http->body = f->run.call.body;
    if (f->run.call.extra.count > 0) {
        f->http->on_response = on_response;
        f->http->user = f;
    }
    outr_op_init(&f->inner, f->mesh->o.loop, f->op, 0, on_inner_done);
    if (f->app_call)
        outr_app_invoke_start(f->mesh->o.app, f->app_call, &f->inner);
    else
        outr_http_call_start(f->pool, f->http, &f->inner);
}

static void on_run_done(outr_chain_run *run, outr_middleware_verdict verdict, const outr_err *err)
{
    filtered *f = run->user;
    if (err) {
        let_go(f);
        outr_op_fail(f->op, err);
    } else if (verdict == OUTR_MIDDLEWARE_PASS) {
        start_call(f);
    } else {
        f->state = ANSWERING;
        outr_source_cancel(run->call.body, NULL);
        f->pusher.run = on_answer;
        outr_loop_defer(f->mesh->o.loop, &f->pusher);
    }
}

static void on_cancel(outr_op *op)
{
    filtered *f = op->impl;
    outr_sink *sink = f->source.sink;
    if (f->is_over)
        return;
    if (f->state == RUNNING) {
        outr_chain_cancel(&f->run);
        return;
    }
    if (f->state == CALLING) {
        outr_op_cancel(&f->inner, op->err.code);
        return;
    }
    outr_loop_undefer(&f->pusher);
    let_go(f);
    if (sink) {
        f->source.sink = NULL;
        sink->source = NULL;
        sink->ops->abort(sink, &op->err);
    }
    outr_op_finish_soon(op);
}

static bool filter(outr_mesh *mesh, outr_http_call *http, outr_app_call *app_call,
                   outr_http_pool *pool, const outr_addr *client, outr_op *op)
{
    void *pin = NULL;
    const outr_chain *chain =
        mesh->o.pin_chain ? mesh->o.pin_chain(mesh->o.chains, mesh->o.loop, &pin) : NULL;
    if (!chain)
        return false;
    filtered *f = outr_arena_alloc(http->arena, sizeof *f);
    f->mesh = mesh;
    f->http = http;
    f->app_call = app_call;
    f->pool = pool;
    f->op = op;
    f->pin = pin;
    f->request = *http->req;
    f->on_response = http->on_response;
    f->user = http->user;
    http->req = &f->request;
    http->progress = OUTR_CALL_NOT_SENT;
    http->was_reused = false;
    http->body_taken = false;
    http->response = NULL;
    outr_op_begin(op, f, on_cancel);
    f->run = (outr_chain_run){.chain = chain,
                              .call = {.loop = mesh->o.loop,
                                       .arena = http->arena,
                                       .req = &f->request,
                                       .body = http->body,
                                       .client = client},
                              .done = on_run_done,
                              .user = f};
    outr_chain_start(&f->run);
    return true;
}

void outr__filtered_app_start(outr_mesh *mesh, outr_app_call *call, const outr_addr *client,
                              outr_op *op)
{
    /* an app that speaks gRPC has no HTTP channel for a pipeline */
    bool is_http = !outr_app_speaks_grpc(mesh->o.app);
    if (!is_http || !filter(mesh, &call->http, call, NULL, client, op))
        outr_app_invoke_start(mesh->o.app, call, op);
}

void outr__filtered_http_start(outr_mesh *mesh, outr_http_pool *pool, outr_http_call *call,
                               const outr_addr *client, outr_op *op)
{
    if (!filter(mesh, call, NULL, pool, client, op))
        outr_http_call_start(pool, call, op);
}
