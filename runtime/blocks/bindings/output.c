#include "blocks/bindings/output.h"

static const outr_metric_desc count = {"dapr_component_output_binding_count",
                                       "calls of output bindings",
                                       OUTR_COUNTER,
                                       0,
                                       {"component", "namespace", "operation", "success"}};
static const outr_metric_desc latencies = {"dapr_component_output_binding_latencies",
                                           "time of output binding calls, ms",
                                           OUTR_HISTOGRAM,
                                           OUTR_BUCKETS_LATENCY_MS,
                                           {"component", "namespace", "operation", "success"}};

static void on_done(outr_op *inner)
{
    outr_binding_send *send = OUTR_CONTAINER(inner, outr_binding_send, inner);
    outr_op *op = send->op;
    outr_metric_shard *shard = outr_loop_metrics(inner->loop);
    if (shard) {
        const outr_str labels[] = {send->component->spec->base.name, OUTR_STR(""),
                                   send->req.operation,
                                   inner->err.code ? OUTR_STR("false") : OUTR_STR("true")};
        outr_metric_count(shard, &count, labels, 1);
        outr_metric_count(shard, &latencies, labels,
                          (double)(outr_loop_update(inner->loop) - send->began_ns) /
                              (double)OUTR_MS);
    }
    if (inner->err.code) {
        outr_err err = inner->err;
        outr_op_fail(op, &err);
    } else {
        outr_op_finish(op);
    }
}

static void on_cancel(outr_op *op)
{
    outr_binding_send *send = op->impl;
    outr_op_cancel(&send->inner, op->err.code);
}

static outr_code refuse_operation(const outr_binding_send *send, const char *const *names,
                                  outr_err *err)
{
    OUTR_AUTO(outr_buf) list = OUTR_BUF_MAX(OUTR_ERR_TEXT_MAX);
    for (; *names; names++)
        outr_buf_printf(&list, "%s%s", list.n ? " " : "", *names);
    return outr_fail(err, OUTR_INVALID_ARGUMENT,
                     "binding " OUTR_FMT " does not support operation " OUTR_FMT
                     ". supported operations:" OUTR_FMT,
                     OUTR_ARG(send->name), OUTR_ARG(outr_str_head(send->req.operation, 64)),
                     OUTR_ARG(outr_buf_view(&list)));
}

static outr_code check(outr_binding_send *send, outr_err *err)
{
    if (send->req.operation.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "operation field is missing from request");
    const outr_component *c = outr_view_find(send->view, OUTR_KIND_BINDINGS, send->name);
    if (!c || !(c->directions & OUTR_BINDING_OUTPUT))
        return outr_fail(err, OUTR_NOT_FOUND, "couldn't find output binding " OUTR_FMT,
                         OUTR_ARG(send->name));
    const char *const *names = c->binding->backend->operations(c->binding);
    send->component = c;
    for (const char *const *name = names; *name; name++) {
        if (outr_str_is(send->req.operation, *name))
            return OUTR_OK;
    }
    return refuse_operation(send, names, err);
}

static void invoke(outr_guarded *guarded, outr_op *op)
{
    outr_binding_send *send = OUTR_CONTAINER(guarded, outr_binding_send, guarded);
    outr_binding *binding = send->component->binding;
    send->req.has_answer = false;
    binding->backend->invoke(binding, &send->req, op);
}

void outr_binding_send_start(outr_binding_send *send, outr_op *op)
{
    outr_err err;
    send->op = op;
    outr_op_begin(op, send, on_cancel);
    if (check(send, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    send->began_ns = outr_loop_now(op->loop);
    outr_op_init(&send->inner, op->loop, op, 0, on_done);
    outr_guarded_component(&send->guarded, outr_view_policies(send->view), OUTR_POLICY_BINDING,
                           OUTR_OUTBOUND, send->name, op->loop, send->req.arena, invoke);
    outr_guarded_start(&send->guarded, &send->inner);
}
