#include "app/internal.h"

#define ANSWER_MAX (4 * OUTR_MIB)

static void fetch_over(outr_app_fetch *f)
{
    if (outr_op_is_pending(&f->inner) || f->is_gathering)
        return;
    outr_op *op = f->op;
    if (f->inner.err.code) {
        outr_err err = f->inner.err;
        outr_op_fail(op, &err);
    } else {
        outr_op_finish(op);
    }
}

static void on_fetch_body(outr_gather *gather, const outr_err *err)
{
    outr_app_fetch *f = gather->ctx;
    f->is_gathering = false;
    if (!err)
        f->answer = outr_arena_str(f->headers.arena, outr_buf_view(&gather->body));
    outr_buf_done(&gather->body);
    if (err && f->inner.err.code == OUTR_OK && outr_op_is_pending(&f->inner)) {
        f->too_large = *err;
    }
    fetch_over(f);
}

static void on_fetch_response(outr_http_call *call)
{
    outr_app_fetch *f = call->user;
    f->status = call->head.status;
    f->answer_headers = call->head.headers;
    if (!call->response)
        return;
    f->is_gathering = true;
    outr_gather_start(&f->gather, call->response, f->max_body ? f->max_body : ANSWER_MAX,
                      on_fetch_body, f);
}

static void on_fetch_done(outr_op *inner)
{
    outr_app_fetch *f = OUTR_CONTAINER(inner, outr_app_fetch, inner);
    if (inner->err.code == OUTR_OK && f->too_large.code)
        inner->err = f->too_large;
    fetch_over(f);
}

static void on_fetch_cancel(outr_op *op)
{
    outr_app_fetch *f = op->impl;
    outr_op_cancel(&f->inner, op->err.code);
}

void outr_app_fetch_start(outr_app *app, outr_app_fetch *f, outr_op *op)
{
    f->op = op;
    f->too_large.code = OUTR_OK;
    f->is_gathering = false;
    f->answer = OUTR_STR_NONE;
    f->request = (outr_http_request){.method = f->method,
                                     .target = f->target,
                                     .headers = f->headers,
                                     .content_length = (int64_t)f->body.n};
    if (f->body.n == 0 && (outr_str_is(f->method, "GET") || outr_str_is(f->method, "OPTIONS")))
        f->request.content_length = -1;
    outr_memory_source_init(&f->source, app->loop, f->body);
    f->call.http = (outr_http_call){
        .req = &f->request,
        .body = f->body.n ? &f->source.base : NULL,
        .on_response = on_fetch_response,
        .user = f,
        .arena = f->headers.arena,
    };
    outr_op_begin(op, f, on_fetch_cancel);
    outr_op_init(&f->inner, app->loop, op, 0, on_fetch_done);
    if (f->is_invocation)
        outr_app_invoke_start(app, &f->call, &f->inner);
    else
        outr_app_call_start(app, &f->call, &f->inner);
}
