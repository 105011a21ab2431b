#include "api/core/configuration.h"

static const outr_metric_desc count = {"dapr_component_configuration_count",
                                       "configuration operations",
                                       OUTR_COUNTER,
                                       0,
                                       {"component", "namespace", "operation", "success"}};
static const outr_metric_desc latencies = {"dapr_component_configuration_latencies",
                                           "time of configuration operations, ms",
                                           OUTR_HISTOGRAM,
                                           OUTR_BUCKETS_LATENCY_MS,
                                           {"component", "namespace", "operation", "success"}};

static void note(outr_loop *loop, outr_str store, const char *operation, uint64_t began_ns,
                 bool is_good)
{
    outr_metric_shard *shard = outr_loop_metrics(loop);
    if (!shard)
        return;
    const outr_str labels[] = {store, OUTR_STR(""), outr_str_from(operation),
                               is_good ? OUTR_STR("true") : OUTR_STR("false")};
    outr_metric_count(shard, &count, labels, 1);
    outr_metric_count(shard, &latencies, labels,
                      (double)(outr_loop_update(loop) - began_ns) / (double)OUTR_MS);
}

outr_code outr_core_configuration_check(const outr_core *core, outr_str store_name, outr_err *err)
{
    if (outr_view_count(core->view, OUTR_KIND_CONFIGURATION) == 0)
        return outr_core_fail(err, OUTR_REASON_CONFIGURATION_STORE_NOT_CONFIGURED,
                              "configuration stores not configured");
    if (!outr_view_find(core->view, OUTR_KIND_CONFIGURATION, store_name))
        return outr_core_fail(err, OUTR_REASON_CONFIGURATION_STORE_NOT_FOUND,
                              "configuration store " OUTR_FMT " not found", OUTR_ARG(store_name));
    return OUTR_OK;
}

/* A list as Go prints it: "[a b]". Of a long one the beginning: why it failed follows it. */
static outr_str print_keys(outr_arena *arena, const outr_str *keys, size_t n)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_ERR_TEXT_MAX / 2);
    outr_buf_char(&out, '[');
    for (size_t i = 0; i < n && !out.is_full; i++) {
        if (i > 0)
            outr_buf_char(&out, ' ');
        outr_buf_str(&out, keys[i]);
    }
    outr_buf_char(&out, ']');
    return outr_arena_str(arena, outr_buf_view(&out));
}

/* ---- get ------------------------------------------------------------------------------------- */

static void on_got(outr_op *inner)
{
    outr_core_configuration *c = OUTR_CONTAINER(inner, outr_core_configuration, inner);
    note(inner->loop, c->store_name, "get", c->began_ns, !inner->err.code);
    if (inner->err.code) {
        outr_err err;
        outr_str keys = print_keys(c->core.arena, c->get.keys, c->get.key_count);
        outr_core_fail(&err, OUTR_REASON_CONFIGURATION_GET,
                       "failed to get " OUTR_FMT " from Configuration store " OUTR_FMT ": %s",
                       OUTR_ARG(keys), OUTR_ARG(c->store_name), inner->err.text);
        outr_core_end(c->op, &err);
        return;
    }
    outr_op_finish(c->op);
}

static void on_get_cancel(outr_op *op)
{
    outr_core_configuration *c = op->impl;
    outr_op_cancel(&c->inner, op->err.code);
}

static void get(outr_guarded *guarded, outr_op *op)
{
    outr_core_configuration *c = OUTR_CONTAINER(guarded, outr_core_configuration, guarded);
    c->store->backend->get(c->store, &c->get, op);
}

void outr_core_configuration_get_start(outr_core_configuration *c, outr_op *op)
{
    outr_err err;
    c->op = op;
    c->began_ns = outr_loop_now(op->loop);
    outr_op_begin(op, c, on_get_cancel);
    if (outr_core_configuration_check(&c->core, c->store_name, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    c->store = outr_view_find(c->core.view, OUTR_KIND_CONFIGURATION, c->store_name)->configuration;
    c->get.arena = c->core.arena;
    outr_op_init(&c->inner, op->loop, op, 0, on_got);
    outr_guarded_component(&c->guarded, outr_view_policies(c->core.view),
                           OUTR_POLICY_CONFIGURATION, OUTR_OUTBOUND, c->store_name, op->loop,
                           c->core.arena, get);
    outr_guarded_start(&c->guarded, &c->inner);
}

/* ---- subscribe ------------------------------------------------------------------------------- */

static void on_subscribed(outr_op *inner)
{
    outr_core_config_subscribe *c = OUTR_CONTAINER(inner, outr_core_config_subscribe, inner);
    note(inner->loop, c->store_name, "subscribe", c->began_ns, !inner->err.code);
    if (inner->err.code) {
        outr_err err;
        outr_core_fail(&err, OUTR_REASON_CONFIGURATION_SUBSCRIBE,
                       "failed to subscribe " OUTR_FMT " from Configuration store " OUTR_FMT ": %s",
                       OUTR_ARG(c->keys), OUTR_ARG(c->store_name), inner->err.text);
        outr_core_end(c->op, &err);
        return;
    }
    outr_op_finish(c->op);
}

static void on_subscribe_cancel(outr_op *op)
{
    outr_core_config_subscribe *c = op->impl;
    outr_op_cancel(&c->inner, op->err.code);
}

void outr_core_config_subscribe_start(outr_core_config_subscribe *c, outr_op *op)
{
    outr_err err;
    c->op = op;
    c->began_ns = outr_loop_now(op->loop);
    c->store_name = c->sub->store; /* of the request: the subscription has one of its own */
    outr_op_begin(op, c, on_subscribe_cancel);
    if (outr_core_configuration_check(&c->core, c->sub->store, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    c->keys = print_keys(c->core.arena, c->sub->keys, c->sub->key_count);
    outr_op_init(&c->inner, op->loop, op, 0, on_subscribed);
    outr_config_sub_open(c->core.api->configurations, c->sub, &c->inner);
}

/* ---- unsubscribe ----------------------------------------------------------------------------- */

static void on_left(outr_op *inner)
{
    outr_core_config_unsubscribe *c = OUTR_CONTAINER(inner, outr_core_config_unsubscribe, inner);
    note(inner->loop, c->store_name, "unsubscribe", c->began_ns, !inner->err.code);
    if (inner->err.code) {
        outr_err err;
        outr_core_fail(&err, OUTR_REASON_CONFIGURATION_UNSUBSCRIBE,
                       "failed to unsubscribe to configuration request " OUTR_FMT ": %s",
                       OUTR_ARG(c->id), inner->err.text);
        outr_core_end(c->op, &err);
        return;
    }
    outr_op_finish(c->op);
}

void outr_core_config_unsubscribe_start(outr_core_config_unsubscribe *c, outr_op *op)
{
    outr_err err;
    c->op = op;
    c->began_ns = outr_loop_now(op->loop);
    outr_op_begin(op, c, NULL);
    if (outr_core_configuration_check(&c->core, c->store_name, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    c->leave = (outr_config_leave){.store = c->store_name, .id = c->id};
    outr_op_init(&c->inner, op->loop, op, 0, on_left);
    outr_config_leave_start(c->core.api->configurations, &c->leave, &c->inner);
}
