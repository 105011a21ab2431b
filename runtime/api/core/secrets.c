#include "api/core/secrets.h"

static const outr_metric_desc count = {"dapr_component_secret_count",
                                       "secret reads",
                                       OUTR_COUNTER,
                                       0,
                                       {"component", "namespace", "operation", "success"}};
static const outr_metric_desc latencies = {"dapr_component_secret_latencies",
                                           "time of secret reads, ms",
                                           OUTR_HISTOGRAM,
                                           OUTR_BUCKETS_LATENCY_MS,
                                           {"component", "namespace", "operation", "success"}};

/* ---- scopes ---------------------------------------------------------------------------------- */

static bool is_in(const outr_str *list, size_t n, outr_str name)
{
    for (size_t i = 0; i < n; i++) {
        if (outr_str_eq(list[i], name))
            return true;
    }
    return false;
}

static bool is_allowed(const outr_secret_scope *scope, outr_str name)
{
    if (!scope)
        return true;
    if (scope->allowed_count > 0)
        return is_in(scope->allowed, scope->allowed_count, name);
    return !is_in(scope->denied, scope->denied_count, name) && !scope->is_deny_default;
}

/* NULL: everything is allowed. */
static const outr_secret_scope *find_scope(const outr_core_secrets *c)
{
    const outr_configuration *configuration = &c->snapshot->configuration;
    const outr_secret_scope *found = NULL;
    for (size_t i = 0; i < configuration->secret_scope_count; i++) {
        if (outr_str_eq(configuration->secret_scopes[i].store, c->store_name))
            found = &configuration->secret_scopes[i];
    }
    return found;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void note(const outr_core_secrets *c, bool is_good)
{
    outr_loop *loop = c->core.api->loop;
    outr_metric_shard *shard = outr_loop_metrics(loop);
    if (!shard)
        return;
    const outr_str labels[] = {c->store->spec->base.name, OUTR_STR(""),
                               c->is_bulk ? OUTR_STR("bulk_get") : OUTR_STR("get"),
                               is_good ? OUTR_STR("true") : OUTR_STR("false")};
    outr_metric_count(shard, &count, labels, 1);
    outr_metric_count(shard, &latencies, labels,
                      (double)(outr_loop_update(loop) - c->began_ns) / (double)OUTR_MS);
}

static void describe(const outr_core_secrets *c, const char *why, outr_err *err)
{
    if (c->is_bulk)
        outr_core_fail(err, OUTR_REASON_SECRET_GET,
                       "failed getting secrets from secret store " OUTR_FMT ": %s",
                       OUTR_ARG(c->store_name), why);
    else
        outr_core_fail(err, OUTR_REASON_SECRET_GET,
                       "failed getting secret with key " OUTR_FMT " from secret store " OUTR_FMT
                       ": %s",
                       OUTR_ARG(c->name), OUTR_ARG(c->store_name), why);
}

/* What the scopes leave of what was read. */
static void take_allowed(outr_core_secrets *c)
{
    const outr_secret_scope *scope = c->is_bulk ? find_scope(c) : NULL;
    outr_secret *secrets = c->get.secrets;
    for (size_t i = 0; i < c->get.count; i++) {
        if (is_allowed(scope, secrets[i].name))
            secrets[c->count++] = secrets[i];
    }
    c->secrets = secrets;
}

static void on_done(outr_op *inner)
{
    outr_core_secrets *c = OUTR_CONTAINER(inner, outr_core_secrets, inner);
    outr_err err;
    note(c, !inner->err.code);
    if (!inner->err.code)
        take_allowed(c);
    outr_snapshot_unref(c->snapshot);
    if (!inner->err.code) {
        outr_op_finish(c->op);
        return;
    }
    describe(c, inner->err.text, &err);
    outr_core_end(c->op, &err);
}

static void on_cancel(outr_op *op)
{
    outr_core_secrets *c = op->impl;
    outr_op_cancel(&c->inner, op->err.code);
}

static outr_code find_store(outr_core_secrets *c, outr_err *err)
{
    c->store = outr_view_find(c->core.view, OUTR_KIND_SECRETS, c->store_name);
    if (!c->store && outr_view_count(c->core.view, OUTR_KIND_SECRETS) == 0)
        return outr_core_fail(err, OUTR_REASON_SECRET_STORES_NOT_CONFIGURED,
                              "secret store is not configured");
    if (!c->store)
        return outr_core_fail(err, OUTR_REASON_SECRET_STORE_NOT_FOUND,
                              "failed finding secret store with key " OUTR_FMT,
                              OUTR_ARG(c->store_name));
    if (!c->is_bulk && !is_allowed(find_scope(c), c->name))
        return outr_core_fail(err, OUTR_REASON_PERMISSION_DENIED,
                              "access denied by policy to get \"" OUTR_FMT "\" from \"" OUTR_FMT
                              "\"",
                              OUTR_ARG(c->name), OUTR_ARG(c->store_name));
    return OUTR_OK;
}

static void read(outr_guarded *guarded, outr_op *op)
{
    outr_core_secrets *c = OUTR_CONTAINER(guarded, outr_core_secrets, guarded);
    c->get = (outr_secret_get){
        .arena = c->core.arena, .name = c->name, .is_bulk = c->is_bulk, .metadata = c->metadata};
    c->store->secrets->backend->get(c->store->secrets, &c->get, op);
}

void outr_core_secrets_start(outr_core_secrets *c, outr_op *op)
{
    outr_err err;
    c->op = op;
    c->began_ns = outr_loop_now(op->loop);
    c->snapshot = outr_snapshot_ref(c->core.api->snapshot);
    outr_op_begin(op, c, on_cancel);
    if (find_store(c, &err)) {
        outr_snapshot_unref(c->snapshot);
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_op_init(&c->inner, op->loop, op, 0, on_done);
    outr_guarded_component(&c->guarded, outr_view_policies(c->core.view), OUTR_POLICY_SECRETS,
                           OUTR_OUTBOUND, c->store_name, op->loop, c->core.arena, read);
    outr_guarded_start(&c->guarded, &c->inner);
}
