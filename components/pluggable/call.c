#include "components/pluggable/internal.h"

#define WAITING_MAX   1024 /* calls held while a connection is being made */
#define AT_ONCE       64   /* of many calls, so many are out */
#define SCRATCH_BYTES (96 * OUTR_MIB)

/* ---- back on the caller's loop --------------------------------------------------------------- */

static void end(outr__plug_call *c)
{
    if (c->err.code)
        outr_op_fail(c->op, &c->err);
    else
        outr_op_finish(c->op);
}

static void on_back(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__plug_call *c = OUTR_CONTAINER(message, outr__plug_call, message_back);
    c->is_back = true;
    if (!c->has_cancel_out)
        end(c);
}

static void on_cancel_back(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__plug_call *c = OUTR_CONTAINER(message, outr__plug_call, message_cancel);
    c->has_cancel_out = false;
    if (c->is_back)
        end(c);
}

/* ---- on the main loop ------------------------------------------------------------------------ */

static void finish(outr__plug_call *c)
{
    outr__plug *p = c->plug;
    p->call_count--;
    if (!c->is_local) {
        c->message_back.run = on_back;
        outr_loop_post(c->op->loop, &c->message_back);
    } else if (c->is_starting) {
        if (c->err.code)
            outr_op_fail_soon(c->op, &c->err);
        else
            outr_op_finish_soon(c->op);
    } else {
        end(c);
    }
    outr__plug_check_closed(p);
}

/* What the component says of itself stays as gRPC-Go prints it, which is what users of daprd see;
 * whatever else went wrong names the component. */
static void take_error(outr__plug_call *c, const outr_err *err)
{
    outr_code code = err->code;
    bool has_status = c->http.progress == OUTR_CALL_ANSWERED &&
                      (outr_headers_has(&c->unary.trailers, "grpc-status") ||
                       outr_headers_has(&c->http.head.headers, "grpc-status"));
    bool is_ours = !has_status || c->unary.broken.code || c->unary.status.code == OUTR_OK;
    bool is_passed_on = code == OUTR_UNAVAILABLE || code == OUTR_DEADLINE_EXCEEDED ||
                        code == OUTR_CANCELLED;
    c->is_said = !is_ours;
    c->status = c->unary.status;
    if (is_ours)
        outr_fail(&c->err, is_passed_on ? code : OUTR_INTERNAL, "component " OUTR_FMT ": %s",
                  OUTR_ARG(c->plug->name), err->text);
    else
        outr_fail(&c->err, is_passed_on ? code : OUTR_INTERNAL, "rpc error: code = %s desc = %s",
                  outr_code_name(code), err->text);
}

static void on_answer(outr_op *inner)
{
    outr__plug_call *c = OUTR_CONTAINER(inner, outr__plug_call, inner);
    outr_err err;
    outr__plug_release(c->session);
    if (outr_grpc_unary_result(&c->unary, &c->answer, c->type, &inner->err, &err))
        take_error(c, &err);
    finish(c);
}

static void go(outr__plug_call *c)
{
    outr__plug *p = c->plug;
    c->session = p->session;
    p->used_ns = outr_loop_now(p->loop);
    outr__plug_hold(c->session);
    c->unary = (outr_grpc_unary){.arena = c->scratch,
                                 .loop = p->loop,
                                 .max_bytes = OUTR__PLUG_MESSAGE_MAX,
                                 .deadline_ns = c->op->deadline_ns};
    outr__plug_metadata(p, &c->unary.metadata, c->scratch);
    outr_grpc_unary_prepare(&c->unary, &c->http, c->path, c->message);
    outr_op_init(&c->inner, p->loop, NULL, c->op->deadline_ns, on_answer);
    outr_http_call_start(c->session->pool, &c->http, &c->inner);
}

static void start_here(outr__plug_call *c)
{
    outr__plug *p = c->plug;
    p->call_count++;
    if (p->is_ready) {
        go(c);
        return;
    }
    if (p->is_pausing || p->is_stopped) {
        outr__plug_fail_absent(p, &c->err);
        finish(c);
        return;
    }
    if (p->waiting_count == WAITING_MAX) {
        outr_fail(&c->err, OUTR_UNAVAILABLE,
                  "component " OUTR_FMT ": more than %d calls wait for it", OUTR_ARG(p->name),
                  WAITING_MAX);
        finish(c);
        return;
    }
    outr_list_push(&p->waiting, &c->waiting);
    p->waiting_count++;
}

static void leave_queue(outr__plug_call *c)
{
    outr_link_remove(&c->waiting);
    c->plug->waiting_count--;
}

void outr__plug_calls_go(outr__plug *p, const outr_err *err)
{
    while (!outr_list_is_empty(&p->waiting)) {
        outr__plug_call *c = OUTR_LIST_ITEM(p->waiting.next, outr__plug_call, waiting);
        leave_queue(c);
        if (!err) {
            go(c);
            continue;
        }
        c->err = *err;
        finish(c);
    }
}

static void cancel_here(outr__plug_call *c, outr_code code)
{
    if (outr_link_is_in(&c->waiting)) {
        leave_queue(c);
        outr_fail(&c->err, code, "component " OUTR_FMT " is not there yet",
                  OUTR_ARG(c->plug->name));
        finish(c);
    } else if (outr_op_is_pending(&c->inner)) {
        outr_op_cancel(&c->inner, code);
    }
}

static void on_there(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    start_here(OUTR_CONTAINER(message, outr__plug_call, message_there));
}

/* The call may have ended meanwhile: its memory waits for this message to come back. */
static void on_cancel_there(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__plug_call *c = OUTR_CONTAINER(message, outr__plug_call, message_cancel);
    cancel_here(c, OUTR_CANCELLED);
    message->run = on_cancel_back;
    outr_loop_post(c->op->loop, message);
}

/* ---- on the caller's loop -------------------------------------------------------------------- */

static void on_cancel(outr_op *op)
{
    outr__plug_call *c = op->impl;
    if (c->is_local) {
        cancel_here(c, op->err.code);
        return;
    }
    c->has_cancel_out = true;
    c->message_cancel.run = on_cancel_there;
    outr_loop_post(c->plug->loop, &c->message_cancel);
}

void outr__plug_call_start(outr__plug *p, outr__plug_call *c, outr_op *op)
{
    c->plug = p;
    c->op = op;
    c->scratch = outr_arena_new(SCRATCH_BYTES);
    c->answer = NULL;
    c->is_said = c->is_back = c->has_cancel_out = false;
    c->waiting = (outr_link){0};
    c->inner = (outr_op){0};
    c->is_local = outr_loop_is_here(p->loop);
    outr_err_clear(&c->err);
    outr_op_begin(op, c, on_cancel);
    if (!c->is_local) {
        c->message_there.run = on_there;
        outr_loop_post(p->loop, &c->message_there);
        return;
    }
    c->is_starting = true;
    start_here(c);
    c->is_starting = false;
}

void outr__plug_call_done(outr__plug_call *c)
{
    outr_arena_free(c->scratch);
    c->scratch = NULL;
}

static void free_arena(void *ctx)
{
    outr_arena_free(ctx);
}

void outr__plug_call_keep(outr__plug_call *c, outr_arena *arena)
{
    if (c->scratch)
        outr_arena_defer(arena, free_arena, c->scratch);
    c->scratch = NULL;
}

/* ---- many ------------------------------------------------------------------------------------ */

typedef struct outr__plug_one {
    outr__plug_each *each;
    outr__plug_call call;
    outr_op op;
    size_t i;
    bool is_busy;
} one;

static void end_if_over(outr__plug_each *e)
{
    if (e->running > 0 || (e->next < e->count && !outr_op_is_cancelled(e->op)))
        return;
    outr_loop_undefer(&e->starter);
    outr_op_finish(e->op);
}

static void on_one(outr_op *op)
{
    one *o = OUTR_CONTAINER(op, one, op);
    outr__plug_each *e = o->each;
    o->is_busy = false;
    e->running--;
    e->take(e, o->i, &o->call, op->err.code ? &op->err : NULL);
    outr__plug_call_done(&o->call);
    outr_loop_defer(e->op->loop, &e->starter);
}

static void start_one(outr__plug_each *e, one *o)
{
    outr_err err;
    o->each = e;
    o->i = e->next++;
    o->call = (outr__plug_call){0};
    if (e->prepare(e, o->i, &o->call, &err)) {
        e->take(e, o->i, &o->call, &err);
        return;
    }
    o->is_busy = true;
    e->running++;
    outr_op_init(&o->op, e->op->loop, e->op, 0, on_one);
    outr__plug_call_start(e->plug, &o->call, &o->op);
}

static void on_start(outr_deferred *deferred)
{
    outr__plug_each *e = OUTR_CONTAINER(deferred, outr__plug_each, starter);
    for (size_t k = 0; k < AT_ONCE && !outr_op_is_cancelled(e->op); k++) {
        while (!e->slots[k].is_busy && e->next < e->count)
            start_one(e, &e->slots[k]);
    }
    end_if_over(e);
}

void outr__plug_each_start(outr__plug *p, outr__plug_each *e, outr_op *op)
{
    e->plug = p;
    e->op = op;
    e->next = e->running = 0;
    e->slots = outr_arena_alloc(e->arena, AT_ONCE * sizeof *e->slots);
    e->starter.run = on_start;
    outr_op_begin(op, e, NULL);
    outr_loop_defer(op->loop, &e->starter);
}
