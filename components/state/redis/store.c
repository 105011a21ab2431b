#include "components/module.h"
#include "components/state/redis/query.h"

/* Life of the store: what the server can is asked when it is opened. */

typedef struct config {
    outr_redis_settings redis;
    int64_t ttl_s;
    outr_str indexes, redeliver, processing;
} config;

static const outr_bind_row rows[] = {
    OUTR_REDIS_ROWS(config, redis, "2s"),
    {"ttlInSeconds", NULL, OUTR_BIND_I64, 0, offsetof(config, ttl_s), 0, INT32_MAX, "0", NULL, 0,
     "time to live of what is written without one"},
    {"queryIndexes", NULL, OUTR_BIND_STR, 0, offsetof(config, indexes), 0, 0, NULL, NULL, 0,
     "search indexes of the query API"},
    {"redeliverInterval", NULL, OUTR_BIND_STR, 0, offsetof(config, redeliver), 0, 0, NULL, NULL, 0,
     "no effect"},
    {"processingTimeout", NULL, OUTR_BIND_STR, 0, offsetof(config, processing), 0, 0, NULL, NULL, 0,
     "no effect"},
};

#define OPEN_ARENA OUTR_MIB

bool outr__rstore_is_json(const outr__rstore *st, outr_kvs metadata)
{
    const outr_kv *kv = st->has_json ? outr_kvs_find(metadata, "contentType") : NULL;
    return kv && outr_str_is(kv->value, "application/json");
}

/* ---- opening --------------------------------------------------------------------------------- */

typedef struct opening {
    outr__rstore *store;
    outr_arena *arena;
    outr_redis_call call;
    outr_op inner;
    outr_op *op;
} opening;

static void end_opening(opening *o, const outr_err *err)
{
    outr_op *op = o->op;
    outr_arena_free(o->arena);
    if (err)
        outr_op_fail(op, err);
    else
        outr_op_finish(op);
}

/* "connected_slaves:1" of INFO replication. */
static int64_t count_replicas(outr_str info)
{
    static const outr_str name = OUTR_STR("connected_slaves:");
    outr_str line;
    int64_t n = 0;
    while (info.p) {
        info = outr_str_cut(info, '\n', &line);
        line = outr_str_trim(line);
        if (outr_str_starts(line, name))
            outr_str_to_i64(outr_str_skip(line, name.n), 0, INT32_MAX, &n);
    }
    return n;
}

static void on_indexed(outr_op *inner)
{
    opening *o = OUTR_CONTAINER(inner, opening, inner);
    outr_err err = inner->err;
    for (size_t i = 1; !err.code && i < o->call.count; i += 2) {
        if (outr_redis_check(&o->call.replies[i], &err))
            outr_wrap(&err, "error registering query schemas");
    }
    end_opening(o, err.code ? &err : NULL);
}

/* Anew each time, as daprd does: what queryIndexes says now is what counts. */
static void make_indexes(opening *o)
{
    const outr__rstore *st = o->store;
    size_t n = outr__rstore_schemas_count(st->schemas);
    outr_err err;
    if (!st->has_json || !st->has_search) {
        outr_fail(&err, OUTR_FAILED_PRECONDITION,
                  "queryIndexes needs RediSearch and RedisJSON, which the server has not");
        end_opening(o, &err);
        return;
    }
    outr_redis_command *commands = outr_arena_alloc(o->arena, (2 * n + 1) * sizeof *commands);
    for (size_t i = 0; i < n; i++)
        outr__rstore_schemas_create(st->schemas, i, o->arena, commands + 2 * i);
    o->call = (outr_redis_call){
        .arena = o->arena, .commands = commands, .count = 2 * n, .is_repeatable = true};
    outr_op_init(&o->inner, o->op->loop, o->op, 0, on_indexed);
    outr_redis_call_start(st->redis, &o->call, &o->inner);
}

static void on_asked(outr_op *inner)
{
    opening *o = OUTR_CONTAINER(inner, opening, inner);
    outr__rstore *st = o->store;
    const outr_redis_reply *replies = o->call.replies;
    outr_err err = inner->err;
    if (err.code) {
        end_opening(o, &err);
        return;
    }
    if (outr_redis_check(&replies[0], &err)) {
        outr_wrap(&err, "loading the script for writes");
        end_opening(o, &err);
        return;
    }
    snprintf(st->sha, sizeof st->sha, OUTR_FMT, OUTR_ARG(replies[0].text));
    /* A user who may not ask these has a server without replicas and modules. */
    if (replies[1].kind == OUTR_REDIS_STRING)
        st->replicas = count_replicas(replies[1].text);
    if (replies[2].kind == OUTR_REDIS_ARRAY && replies[2].count == 2) {
        st->has_json = replies[2].items[0].kind == OUTR_REDIS_ARRAY;
        st->has_search = replies[2].items[1].kind == OUTR_REDIS_ARRAY;
    }
    if (st->schemas)
        make_indexes(o);
    else
        end_opening(o, NULL);
}

static void on_connected(outr_op *inner)
{
    opening *o = OUTR_CONTAINER(inner, opening, inner);
    outr_err err = inner->err;
    if (err.code) {
        end_opening(o, &err);
        return;
    }
    outr_redis_command *commands = outr_arena_alloc(o->arena, 3 * sizeof *commands);
    commands[0] = outr_redis_command_of(
        o->arena, OUTR_STR_NONE, 3,
        (outr_str[]){OUTR_STR("SCRIPT"), OUTR_STR("LOAD"), outr_str_from(outr__rstore_script)});
    commands[1] = outr_redis_command_of(o->arena, OUTR_STR_NONE, 2,
                                        (outr_str[]){OUTR_STR("INFO"), OUTR_STR("replication")});
    commands[2] = outr_redis_command_of(o->arena, OUTR_STR_NONE, 4,
                                        (outr_str[]){OUTR_STR("COMMAND"), OUTR_STR("INFO"),
                                                     OUTR_STR("json.get"), OUTR_STR("ft.search")});
    o->call = (outr_redis_call){
        .arena = o->arena, .commands = commands, .count = 3, .is_repeatable = true};
    outr_op_init(&o->inner, o->op->loop, o->op, 0, on_asked);
    outr_redis_call_start(o->store->redis, &o->call, &o->inner);
}

static void on_open_cancel(outr_op *op)
{
    opening *o = op->impl;
    outr_op_cancel(&o->inner, op->err.code);
}

static void open_store(outr_state_store *base, outr_op *op)
{
    outr_arena *arena = outr_arena_new(OPEN_ARENA);
    opening *o = outr_arena_alloc(arena, sizeof *o);
    *o = (opening){.store = outr__rstore_of(base), .arena = arena, .op = op};
    outr_op_begin(op, o, on_open_cancel);
    outr_op_init(&o->inner, op->loop, op, 0, on_connected);
    outr_redis_open(o->store->redis, &o->inner);
}

/* ---- life ------------------------------------------------------------------------------------ */

extern const outr_state_backend outr_state_redis OUTR_MODULE;

static outr_code create(outr_state_store **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    outr__rstore *st = outr_alloc(sizeof *st);
    *st = (outr__rstore){.base = {&outr_state_redis}, .ttl_s = c.ttl_s};
    outr_code rc = OUTR_OK;
    if (c.indexes.n > 0)
        rc = outr__rstore_schemas_new(&st->schemas, c.indexes, err);
    if (!rc)
        rc = outr_redis_new(&st->redis, &c.redis, init, err);
    if (rc) {
        outr__rstore_schemas_free(st->schemas);
        free(st);
        return rc;
    }
    *out = &st->base;
    return OUTR_OK;
}

static void close_store(outr_state_store *base, outr_op *op)
{
    outr__rstore *st = outr__rstore_of(base);
    outr_redis *redis = st->redis;
    outr__rstore_schemas_free(st->schemas);
    free(st);
    outr_redis_close(redis, op);
}

static unsigned features(const outr_state_store *base)
{
    const outr__rstore *st = OUTR_CONTAINER(base, outr__rstore, base);
    return OUTR_STATE_ETAG | OUTR_STATE_TRANSACTIONAL | OUTR_STATE_TTL | OUTR_STATE_KEYS_LIKE |
           (st->has_json && st->has_search ? OUTR_STATE_QUERY : 0);
}

const outr_state_backend outr_state_redis = {
    .base = {"state.redis", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_store,
    .close = close_store,
    .features = features,
    .get = outr__rstore_get,
    .write = outr__rstore_write,
    .keys = outr__rstore_keys,
    .drop = outr__rstore_drop,
    .share = outr__rstore_share,
    .query = outr__rstore_query,
};
