#include "api/core/bindings.h"

static bool is_in(const outr_kv *items, size_t n, outr_str key)
{
    return outr_kvs_find_exact((outr_kvs){items, n}, key) != NULL;
}

/* The request's metadata, with the trace of this hop in place of what it says about one. */
static outr_kvs add_trace(const outr_core_binding *call)
{
    outr_arena *arena = call->core.arena;
    outr_kv *items = outr_arena_alloc(arena, (call->metadata.count + 3) * sizeof *items);
    size_t own = 0, n;
    if (call->trace && call->trace->is_valid) {
        char *text = outr_arena_alloc(arena, OUTR_TRACEPARENT_LEN + 1);
        outr_trace_write(call->trace, text);
        items[own++] =
            (outr_kv){OUTR_STR("traceparent"), outr_str_of(text, OUTR_TRACEPARENT_LEN)};
        if (call->trace->state.n > 0)
            items[own++] = (outr_kv){OUTR_STR("tracestate"), call->trace->state};
    }
    if (call->baggage.n > 0)
        items[own++] = (outr_kv){OUTR_STR("baggage"), call->baggage};
    n = own;
    for (size_t i = 0; i < call->metadata.count; i++) {
        if (!is_in(items, own, call->metadata.items[i].key))
            items[n++] = call->metadata.items[i];
    }
    return (outr_kvs){items, n};
}

static void on_done(outr_op *inner)
{
    outr_core_binding *call = OUTR_CONTAINER(inner, outr_core_binding, inner);
    outr_op *op = call->op;
    call->has_answer = call->send.req.has_answer;
    call->answer = call->send.req.answer;
    call->answer_metadata = call->send.req.answer_metadata;
    if (inner->err.code) {
        outr_err err;
        outr_core_fail(&err, OUTR_REASON_INVOKE_OUTPUT_BINDING,
                       "error invoking output binding " OUTR_FMT ": %s", OUTR_ARG(call->name),
                       inner->err.text);
        outr_op_fail(op, &err);
    } else {
        outr_op_finish(op);
    }
}

static void on_cancel(outr_op *op)
{
    outr_core_binding *call = op->impl;
    outr_op_cancel(&call->inner, op->err.code);
}

void outr_core_binding_start(outr_core_binding *call, outr_op *op)
{
    call->op = op;
    call->send = (outr_binding_send){
        .view = call->core.view,
        .name = call->name,
        .req = {.arena = call->core.arena,
                .operation = call->operation,
                .data = call->data,
                .metadata = add_trace(call)},
    };
    outr_op_begin(op, call, on_cancel);
    outr_op_init(&call->inner, op->loop, op, 0, on_done);
    outr_binding_send_start(&call->send, &call->inner);
}
