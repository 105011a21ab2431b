#include "api/core/state.h"

#include "blocks/state/keys.h"

static const outr_metric_desc count = {"dapr_component_state_count",
                                       "state operations",
                                       OUTR_COUNTER,
                                       0,
                                       {"component", "namespace", "operation", "success"}};
static const outr_metric_desc latencies = {"dapr_component_state_latencies",
                                           "time of state operations, ms",
                                           OUTR_HISTOGRAM,
                                           OUTR_BUCKETS_LATENCY_MS,
                                           {"component", "namespace", "operation", "success"}};

outr_code outr_core_state_find(const outr_core_state *core, outr_str name,
                               const outr_component **out, outr_err *err, outr_details *details)
{
    *details = (outr_details){.is_rich = true,
                              .has_metadata = true,
                              .metadata = {{OUTR_STR("appID"), core->settings->app_id}},
                              .metadata_count = 1};
    if (outr_view_count(core->view, OUTR_KIND_STATE) == 0)
        return outr_fail_reason(err, OUTR_FAILED_PRECONDITION, OUTR_REASON_STATE_NOT_CONFIGURED,
                                "state store " OUTR_FMT " is not configured", OUTR_ARG(name));
    *out = outr_view_find(core->view, OUTR_KIND_STATE, name);
    if (!*out)
        return outr_fail_reason(err, OUTR_INVALID_ARGUMENT, OUTR_REASON_STATE_NOT_FOUND,
                                "state store " OUTR_FMT " is not found", OUTR_ARG(name));
    return OUTR_OK;
}

outr_code outr_core_state_key(const outr_core_state *core, const outr_component *store,
                              outr_arena *arena, outr_str key, outr_str *out, outr_err *err,
                              outr_details *details)
{
    outr_err inner;
    if (!outr_state_key(out, arena, store, core->settings, key, &inner))
        return OUTR_OK;
    outr_fail_reason(err, inner.code, inner.reason, "api error: code = InvalidArgument desc = %s",
                     inner.text);
    *details = (outr_details){
        .is_rich = true,
        .has_resource = true,
        .resource_type = OUTR_STR("state"),
        .resource_name = store->spec->base.name,
        .resource_owner = OUTR_STR(""),
        .resource_description = OUTR_STR(""),
        .field = key,
        .field_description = outr_arena_str(arena, outr_str_from(err->text)),
    };
    return err->code;
}

static void on_done(outr_op *inner)
{
    outr_core_state_call *c = OUTR_CONTAINER(inner, outr_core_state_call, inner);
    outr_op *op = c->op;
    outr_metric_shard *shard = outr_loop_metrics(inner->loop);
    if (shard) {
        const outr_str labels[] = {c->store->spec->base.name, OUTR_STR(""),
                                   outr_str_from(c->operation),
                                   inner->err.code ? OUTR_STR("false") : OUTR_STR("true")};
        outr_metric_count(shard, &count, labels, 1);
        outr_metric_count(shard, &latencies, labels,
                          (double)(outr_loop_update(inner->loop) - c->began_ns) / (double)OUTR_MS);
    }
    if (inner->err.code)
        outr_op_fail(op, &inner->err);
    else
        outr_op_finish(op);
}

static void on_cancel(outr_op *op)
{
    outr_core_state_call *c = op->impl;
    outr_op_cancel(&c->inner, op->err.code);
}

void outr_core_state_start(outr_core_state_call *c, outr_op *op)
{
    outr_state_store *store = c->store->state;
    c->op = op;
    c->began_ns = outr_loop_now(op->loop);
    outr_op_begin(op, c, on_cancel);
    outr_op_init(&c->inner, op->loop, op, 0, on_done);
    if (c->is_write)
        store->backend->write(store, &c->writes, &c->inner);
    else
        store->backend->get(store, &c->get, &c->inner);
}
