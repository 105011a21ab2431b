#include "api/core/state.h"

#include "blocks/state/keys.h"

#define VALUE_MAX (64 * OUTR_MIB)

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

typedef struct operation {
    const char *metric; /* its label */
    outr_reason reason; /* when the store fails */
    bool has_etags;     /* the store's code tells of them */
} operation;

static const operation operations[] = {
    [OUTR_CORE_STATE_GET] = {"get", OUTR_REASON_STATE_GET, false},
    [OUTR_CORE_STATE_BULK_GET] = {"bulk_get", OUTR_REASON_STATE_BULK_GET, false},
    [OUTR_CORE_STATE_SAVE] = {"set", OUTR_REASON_STATE_SAVE, true},
    [OUTR_CORE_STATE_DELETE] = {"delete", OUTR_REASON_STATE_DELETE, true},
    [OUTR_CORE_STATE_BULK_DELETE] = {"bulk_delete", OUTR_REASON_STATE_BULK_DELETE, true},
    [OUTR_CORE_STATE_TRANSACT] = {"transaction", OUTR_REASON_STATE_TRANSACTION, false},
    [OUTR_CORE_STATE_QUERY] = {"query", OUTR_REASON_STATE_QUERY_FAILED, false},
    [OUTR_CORE_STATE_KEYS] = {"keys", OUTR_REASON_STATE_GET, false},
    [OUTR_CORE_STATE_DROP] = {"delete_prefix", OUTR_REASON_STATE_DELETE, false},
};

static bool is_read(const outr_core_state *c)
{
    return c->what == OUTR_CORE_STATE_GET || c->what == OUTR_CORE_STATE_BULK_GET;
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void add_resource(outr_core_state *c)
{
    c->details.is_rich = true;
    c->details.has_resource = true;
    c->details.resource_type = OUTR_STR("state");
    c->details.resource_name = c->store_name;
    c->details.resource_owner = OUTR_STR("");
    c->details.resource_description = OUTR_STR("");
}

/* The store's failure as the API tells it. */
static outr_code describe(const outr_core_state *c, const char *why, outr_err *err)
{
    outr_reason reason = operations[c->what].reason;
    switch (c->what) {
    case OUTR_CORE_STATE_GET:
        return outr_core_fail(err, reason, "fail to get " OUTR_FMT " from state store " OUTR_FMT
                              ": %s", OUTR_ARG(c->key), OUTR_ARG(c->store_name), why);
    case OUTR_CORE_STATE_SAVE:
        return outr_core_fail(err, reason, "failed saving state in state store " OUTR_FMT ": %s",
                              OUTR_ARG(c->store_name), why);
    case OUTR_CORE_STATE_DELETE:
        return outr_core_fail(err, reason, "failed deleting state with key " OUTR_FMT ": %s",
                              OUTR_ARG(c->key), why);
    case OUTR_CORE_STATE_BULK_DELETE:
        return outr_core_fail(err, reason, "failed deleting state in state store " OUTR_FMT ": %s",
                              OUTR_ARG(c->store_name), why);
    case OUTR_CORE_STATE_TRANSACT:
        return outr_core_fail(err, reason, "error while executing state transaction: %s", why);
    case OUTR_CORE_STATE_QUERY:
        return outr_core_fail(err, reason, "failed query in state store " OUTR_FMT ": %s",
                              OUTR_ARG(c->store_name), why);
    case OUTR_CORE_STATE_KEYS:
    case OUTR_CORE_STATE_DROP:
        return outr_core_fail(err, reason, "keys of state store " OUTR_FMT ": %s",
                              OUTR_ARG(c->store_name), why);
    case OUTR_CORE_STATE_BULK_GET:
        break;
    }
    return outr_core_fail(err, reason, "%s", why);
}

static void describe_failure(const outr_core_state *c, const outr_err *of_store, outr_err *err)
{
    describe(c, of_store->text, err);
    if (c->what == OUTR_CORE_STATE_BULK_GET)
        err->code = OUTR_UNKNOWN; /* the reference hands the store's bare error on */
    if (operations[c->what].has_etags &&
        (of_store->code == OUTR_ABORTED || of_store->code == OUTR_INVALID_ARGUMENT))
        err->code = of_store->code;
}

/* ---- before the request is read -------------------------------------------------------------- */

static outr_code check_transactions(outr_core_state *c, outr_err *err)
{
    const outr_state_store *store = c->store->state;
    if (store->backend->features(store) & OUTR_STATE_TRANSACTIONAL)
        return OUTR_OK;
    add_resource(c);
    c->details.help_url = OUTR_STR(
        "https://docs.dapr.io/reference/components-reference/supported-state-stores/");
    c->details.help_description =
        OUTR_STR("Check the list of state stores and the features they support");
    return outr_core_fail(err, OUTR_REASON_STATE_TRANSACTIONS_NOT_SUPPORTED,
                          "state store " OUTR_FMT " doesn't support transactions",
                          OUTR_ARG(c->store_name));
}

static outr_code check_queries(outr_core_state *c, outr_err *err)
{
    const outr_state_backend *backend = c->store->state->backend;
    bool can = c->what == OUTR_CORE_STATE_QUERY  ? backend->features(c->store->state) &
                                                      OUTR_STATE_QUERY
               : c->what == OUTR_CORE_STATE_KEYS ? backend->keys != NULL
               : c->what == OUTR_CORE_STATE_DROP ? backend->drop != NULL
                                                 : true;
    if (can)
        return OUTR_OK;
    add_resource(c);
    return outr_core_fail(err, OUTR_REASON_STATE_QUERYING_NOT_SUPPORTED, "%s",
                          c->what == OUTR_CORE_STATE_QUERY
                              ? "state store does not support querying"
                              : "state store does not support prefixes");
}

outr_code outr_core_state_begin(outr_core_state *c, outr_err *err)
{
    c->store = outr_view_find(c->core.view, OUTR_KIND_STATE, c->store_name);
    if (!c->store) {
        c->details.is_rich = true;
        return outr_view_count(c->core.view, OUTR_KIND_STATE) == 0
                   ? outr_core_fail(err, OUTR_REASON_STATE_NOT_CONFIGURED,
                                    "state store " OUTR_FMT " is not configured",
                                    OUTR_ARG(c->store_name))
                   : outr_core_fail(err, OUTR_REASON_STATE_NOT_FOUND,
                                    "state store " OUTR_FMT " is not found",
                                    OUTR_ARG(c->store_name));
    }
    if (c->what == OUTR_CORE_STATE_TRANSACT)
        return check_transactions(c, err);
    return check_queries(c, err);
}

/* ---- reading the request --------------------------------------------------------------------- */

outr_code outr_core_state_reserve(outr_core_state *c, size_t n, outr_err *err)
{
    size_t size = is_read(c) ? sizeof(outr_state_item) : sizeof(outr_state_write);
    void *items = n > SIZE_MAX / size ? NULL : outr_arena_try(c->core.arena, (n + 1) * size);
    if (!items) {
        describe(c, "too many items for one request", err);
        return err->code = OUTR_RESOURCE_EXHAUSTED;
    }
    if (is_read(c))
        c->get = (outr_state_get){.items = items, .count = n};
    else
        c->writes = (outr_state_writes){.items = items, .count = n};
    return OUTR_OK;
}

outr_consistency outr_core_state_consistency(outr_str text)
{
    return outr_str_is(text, "strong")     ? OUTR_STRONG
           : outr_str_is(text, "eventual") ? OUTR_EVENTUAL
                                           : OUTR_CONSISTENCY_UNSET;
}

outr_code outr_core_state_encode(outr_core_state *c, outr_state_write *w, const outr_json *value,
                                 outr_err *err)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(VALUE_MAX);
    outr_json_write(&out, value, OUTR_JSON_SORTED | OUTR_JSON_FLOAT64);
    if (out.is_full)
        return describe(c, "the value is too large", err);
    w->value = outr_arena_str(c->core.arena, outr_buf_view(&out));
    return OUTR_OK;
}

outr_code outr_core_state_reencode(outr_core_state *c, outr_state_write *w, outr_err *err)
{
    outr_json *value;
    if (outr_json_parse(&value, c->core.arena, w->value, NULL)) {
        describe(c, "the value is not the JSON that its contentType says", err);
        return err->code = OUTR_INVALID_ARGUMENT;
    }
    w->is_binary = false;
    return outr_core_state_encode(c, w, value, err);
}

static outr_code unknown_model(const outr_core_state *c, const char *model, outr_str text,
                               outr_err *err)
{
    char why[128];
    snprintf(why, sizeof why, "unrecognized %s model '" OUTR_FMT "'", model, OUTR_ARG(text));
    return describe(c, why, err);
}

outr_code outr_core_state_options(outr_core_state *c, outr_state_write *w, outr_str concurrency,
                                  outr_str consistency, outr_err *err)
{
    if (outr_str_is(concurrency, "first-write"))
        w->concurrency = OUTR_FIRST_WRITE;
    else if (outr_str_is(concurrency, "last-write"))
        w->concurrency = OUTR_LAST_WRITE;
    else if (concurrency.n)
        return unknown_model(c, "concurrency", concurrency, err);
    w->consistency = outr_core_state_consistency(consistency);
    if (consistency.n && w->consistency == OUTR_CONSISTENCY_UNSET)
        return unknown_model(c, "consistency", consistency, err);
    return OUTR_OK;
}

outr_code outr_core_state_operation(outr_core_state *c OUTR_UNUSED, outr_state_write *w,
                                    outr_str name, outr_err *err)
{
    if (outr_str_is(name, "upsert"))
        w->kind = OUTR_STATE_UPSERT;
    else if (outr_str_is(name, "delete"))
        w->kind = OUTR_STATE_DELETE;
    else
        return outr_core_fail(err, OUTR_REASON_NOT_SUPPORTED_STATE_OPERATION,
                              "operation type " OUTR_FMT " not supported", OUTR_ARG(name));
    return OUTR_OK;
}

outr_code outr_core_state_read_query(outr_core_state *c, outr_str text, outr_err *err)
{
    outr_json *query;
    outr_err why;
    outr_code rc = outr_json_parse(&query, c->core.arena, text, &why);
    if (!rc && query->kind != OUTR_JSON_OBJECT)
        rc = outr_fail(&why, OUTR_INVALID_ARGUMENT, "an object is expected");
    if (!rc) {
        c->query.query = query;
        return OUTR_OK;
    }
    add_resource(c);
    return describe(c, why.text, err);
}

/* ---- running --------------------------------------------------------------------------------- */

/* The stored key in the client's place. */
static outr_code make_key(outr_core_state *c, outr_str *key, outr_err *err)
{
    outr_str given = *key;
    if (!outr_state_key(key, c->core.arena, c->store, c->core.api->settings, given, err)) {
        c->prefix_n = key->n - given.n;
        return OUTR_OK;
    }
    add_resource(c);
    c->details.field = given.p ? given : OUTR_STR("");
    c->details.field_description = outr_arena_str(c->core.arena, outr_str_from(err->text));
    return err->code;
}

static outr_code prepare_reads(outr_core_state *c, outr_err *err)
{
    c->get.arena = c->core.arena;
    if (c->get.count > 0)
        c->key = c->get.items[0].key;
    for (size_t i = 0; i < c->get.count; i++) {
        if (make_key(c, &c->get.items[i].key, err))
            return err->code;
    }
    return OUTR_OK;
}

/* A prefix becomes a stored one as a key does. */
static outr_code prepare_others(outr_core_state *c, outr_err *err)
{
    outr_str *prefix = c->what == OUTR_CORE_STATE_KEYS ? &c->keys.prefix : &c->drop.prefix;
    if (c->what == OUTR_CORE_STATE_QUERY) {
        c->query.arena = c->core.arena;
        return OUTR_OK;
    }
    if (c->what == OUTR_CORE_STATE_KEYS)
        c->keys.arena = c->core.arena;
    c->key = *prefix;
    return make_key(c, prefix, err);
}

static outr_code check_count(outr_core_state *c, outr_err *err)
{
    size_t max = c->store->state->backend->max_transaction;
    outr_details *d = &c->details;
    if (c->what != OUTR_CORE_STATE_TRANSACT || max == 0 || c->writes.count <= max)
        return OUTR_OK;
    add_resource(c);
    d->has_metadata = true;
    d->metadata[0] = (outr_kv){OUTR_STR("currentOpsTransaction"),
                               outr_arena_printf(c->core.arena, "%zu", c->writes.count)};
    d->metadata[1] = (outr_kv){OUTR_STR("maxOpsPerTransaction"),
                               outr_arena_printf(c->core.arena, "%zu", max)};
    d->metadata_count = 2;
    return outr_core_fail(err, OUTR_REASON_STATE_TOO_MANY_TRANSACTIONS,
                          "the transaction contains %zu operations, which is more than what the "
                          "state store supports: %zu",
                          c->writes.count, max);
}

static outr_code prepare_writes(outr_core_state *c, outr_err *err)
{
    c->writes.arena = c->core.arena;
    c->writes.is_atomic = c->what == OUTR_CORE_STATE_TRANSACT;
    if (c->writes.count > 0)
        c->key = c->writes.items[0].key;
    for (size_t i = 0; i < c->writes.count; i++) {
        outr_state_write *w = &c->writes.items[i];
        if (c->what == OUTR_CORE_STATE_SAVE && w->key.n == 0) {
            outr_core_fail(err, OUTR_REASON_STATE_SAVE, "state key cannot be empty");
            return err->code = OUTR_INVALID_ARGUMENT;
        }
        if (make_key(c, &w->key, err))
            return err->code;
        if (c->what == OUTR_CORE_STATE_DELETE || c->what == OUTR_CORE_STATE_BULK_DELETE)
            w->kind = OUTR_STATE_DELETE;
    }
    return check_count(c, err);
}

static void note(const outr_core_state *c, bool is_good)
{
    outr_loop *loop = c->core.api->loop;
    outr_metric_shard *shard = outr_loop_metrics(loop);
    if (!shard)
        return;
    const outr_str labels[] = {c->store->spec->base.name, OUTR_STR(""),
                               outr_str_from(operations[c->what].metric),
                               is_good ? OUTR_STR("true") : OUTR_STR("false")};
    outr_metric_count(shard, &count, labels, 1);
    outr_metric_count(shard, &latencies, labels,
                      (double)(outr_loop_update(loop) - c->began_ns) / (double)OUTR_MS);
}

static void on_done(outr_op *inner)
{
    outr_core_state *c = OUTR_CONTAINER(inner, outr_core_state, inner);
    bool is_one = c->what == OUTR_CORE_STATE_GET && !inner->err.code;
    const outr_err *failure = is_one ? &c->get.items[0].err : &inner->err;
    note(c, !failure->code);
    if (failure->code) {
        outr_err err;
        if (c->what == OUTR_CORE_STATE_QUERY)
            add_resource(c);
        describe_failure(c, failure, &err);
        outr_core_end(c->op, &err);
        return;
    }
    outr_op_finish(c->op);
}

static void on_cancel(outr_op *op)
{
    outr_core_state *c = op->impl;
    outr_op_cancel(&c->inner, op->err.code);
}

static void run(outr_guarded *guarded, outr_op *op)
{
    outr_core_state *c = OUTR_CONTAINER(guarded, outr_core_state, guarded);
    outr_state_store *store = c->store->state;
    if (c->what == OUTR_CORE_STATE_QUERY) {
        store->backend->query(store, &c->query, op);
    } else if (c->what == OUTR_CORE_STATE_KEYS) {
        c->keys.count = 0;
        store->backend->keys(store, &c->keys, op);
    } else if (c->what == OUTR_CORE_STATE_DROP) {
        store->backend->drop(store, &c->drop, op);
    } else if (!is_read(c)) {
        store->backend->write(store, &c->writes, op);
    } else {
        for (size_t i = 0; i < c->get.count; i++) /* nothing is left of a try before */
            c->get.items[i] = (outr_state_item){.key = c->get.items[i].key};
        store->backend->get(store, &c->get, op);
    }
}

/* What the store says of an etag: it works well. */
static bool is_of_etag(const outr_err *err)
{
    return err->code == OUTR_ABORTED || err->code == OUTR_INVALID_ARGUMENT;
}

static void start_guarded(outr_core_state *c)
{
    outr_loop *loop = c->op->loop;
    outr_op_init(&c->inner, loop, c->op, 0, on_done);
    outr_guarded_component(&c->guarded, outr_view_policies(c->core.view), OUTR_POLICY_STATE,
                           OUTR_OUTBOUND, c->store_name, loop, c->core.arena, run);
    c->guarded.is_final = is_of_etag;
    outr_guarded_start(&c->guarded, &c->inner);
}

static void on_events_sent(outr_op *inner)
{
    outr_core_state *c = OUTR_CONTAINER(inner, outr_core_state, inner);
    outr_err err;
    if (inner->err.code) {
        note(c, false);
        c->details.is_rich = true;
        outr_core_fail(&err, OUTR_REASON_PUBSUB_OUTBOX,
                       "error while publishing outbox message: %s", inner->err.text);
        outr_core_end(c->op, &err);
        return;
    }
    c->writes.items = c->outbox->writes;
    c->writes.count = c->outbox->count;
    if (c->writes.count > 0)
        start_guarded(c);
    else
        outr_op_finish(c->op);
}

static void send_events(outr_core_state *c, const outr_outbox_spec *spec)
{
    outr_arena *arena = c->core.arena;
    c->outbox = outr_arena_alloc(arena, sizeof *c->outbox);
    *c->outbox = (outr_outbox_send){.arena = arena,
                                    .view = c->core.view,
                                    .settings = c->core.api->settings,
                                    .spec = *spec,
                                    .trace = c->trace,
                                    .writes = c->writes.items,
                                    .count = c->writes.count};
    outr_op_init(&c->inner, c->op->loop, c->op, 0, on_events_sent);
    outr_outbox_send_start(c->outbox, &c->inner);
}

void outr_core_state_start(outr_core_state *c, outr_op *op)
{
    outr_outbox_spec outbox;
    outr_err err;
    c->op = op;
    outr_op_begin(op, c, on_cancel);
    bool is_other = c->what >= OUTR_CORE_STATE_QUERY;
    if (is_other     ? prepare_others(c, &err)
        : is_read(c) ? prepare_reads(c, &err)
                     : prepare_writes(c, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    if (!is_other && (is_read(c) ? c->get.count : c->writes.count) == 0) {
        outr_op_finish_soon(op);
        return;
    }
    c->began_ns = outr_loop_now(op->loop);
    if (c->what == OUTR_CORE_STATE_TRANSACT && outr_outbox_read(&outbox, c->store->metadata))
        send_events(c, &outbox);
    else
        start_guarded(c);
}

outr_str outr_core_state_name(const outr_core_state *c, size_t index)
{
    if (c->what == OUTR_CORE_STATE_KEYS)
        return outr_str_skip(c->keys.keys[index], c->prefix_n);
    if (c->what != OUTR_CORE_STATE_QUERY)
        return outr_str_skip(c->get.items[index].key, c->prefix_n);
    /* A search may find keys of others, with prefixes of their own. */
    outr_str key = c->query.items[index].key;
    ptrdiff_t at = outr_str_search(key, OUTR_STR("||"));
    return at < 0 ? key : outr_str_skip(key, (size_t)at + 2);
}
