#include "components/configuration/redis/store.h"

#include "components/module.h"

/* Reading, and life of the store. */

#define SCAN_STEP "1000"

typedef struct config {
    outr_redis_settings redis;
} config;

static const outr_bind_row rows[] = {OUTR_REDIS_ROWS(config, redis, "2s")};

outr_code outr__config_check_count(size_t count, size_t max, outr_err *err)
{
    if (count <= max)
        return OUTR_OK;
    return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "there are more than %zu keys", max);
}

void outr__config_split(outr_str text, outr_configuration_item *item)
{
    ptrdiff_t at = outr_str_search(text, OUTR_STR("||"));
    item->value = at < 0 ? text : outr_str_head(text, (size_t)at);
    item->version = at < 0 ? OUTR_STR("") : outr_str_skip(text, (size_t)at + 2);
    at = outr_str_search(item->version, OUTR_STR("||"));
    if (at >= 0)
        item->version = outr_str_head(item->version, (size_t)at);
}

/* ---- get ------------------------------------------------------------------------------------- */

/* All keys are found first, unless the caller named some. */
typedef struct reading {
    outr__config_store *store;
    outr_configuration_get *req;
    outr_redis_call call;
    outr_str *keys;
    size_t count;
    outr_map *seen; /* of a walk over all keys, which may give one twice */
    outr_str cursor;
    outr_op inner;
    outr_op *op;
} reading;

static void end_reading(reading *r, const outr_err *err)
{
    outr_op *op = r->op;
    outr_map_free(r->seen);
    free(r->keys);
    free(r);
    if (err)
        outr_op_fail(op, err);
    else
        outr_op_finish(op);
}

bool outr__config_ask(outr_arena *arena, outr_redis_call *call, const outr_str *keys,
                       size_t count)
{
    outr_redis_command *commands = outr_arena_try(arena, (count + 1) * sizeof *commands);
    if (!commands)
        return false;
    for (size_t i = 0; i < count; i++)
        commands[i] =
            outr_redis_command_of(arena, keys[i], 2, (outr_str[]){OUTR_STR("GET"), keys[i]});
    *call = (outr_redis_call){
        .arena = arena, .commands = commands, .count = count, .is_repeatable = true};
    return true;
}

static void on_values(outr_op *inner)
{
    reading *r = OUTR_CONTAINER(inner, reading, inner);
    outr_configuration_get *req = r->req;
    bool is_all = req->key_count == 0;
    outr_err err = inner->err;
    if (err.code) {
        end_reading(r, &err);
        return;
    }
    req->items = outr_arena_try(req->arena, (r->count + 1) * sizeof *req->items);
    if (!req->items)
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "too many keys for one answer");
    for (size_t i = 0; i < r->count && !err.code; i++) {
        const outr_redis_reply *reply = &r->call.replies[i];
        if (reply->kind == OUTR_REDIS_NIL || (is_all && reply->kind == OUTR_REDIS_ERROR))
            continue; /* not there, or not a text */
        if (outr_redis_check(reply, &err)) {
            outr_wrap(&err, "fail to get configuration for redis key=" OUTR_FMT,
                      OUTR_ARG(r->keys[i]));
            break;
        }
        outr_configuration_item *item = &req->items[req->count++];
        item->key = r->keys[i];
        outr__config_split(reply->text, item);
    }
    end_reading(r, err.code ? &err : NULL);
}

static void read_values(reading *r)
{
    outr_err err;
    outr_op_init(&r->inner, r->op->loop, r->op, 0, on_values);
    if (outr__config_ask(r->req->arena, &r->call, r->keys, r->count)) {
        outr_redis_call_start(r->store->redis, &r->call, &r->inner);
        return;
    }
    outr_op_begin(&r->inner, r, NULL);
    outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "too many keys for one answer");
    outr_op_fail_soon(&r->inner, &err);
}

static void scan(reading *r);

/* Adds a key once. */
static void add_key(reading *r, outr_str key)
{
    if (outr_map_put(r->seen, key, r))
        return;
    if (r->count % 1024 == 0)
        r->keys = outr_realloc(r->keys, (r->count + 1024) * sizeof *r->keys);
    r->keys[r->count++] = key;
}

static void on_scanned(outr_op *inner)
{
    reading *r = OUTR_CONTAINER(inner, reading, inner);
    const outr_redis_reply *reply = r->call.replies;
    outr_err err = inner->err;
    if (!err.code && !outr_redis_check(reply, &err) &&
        (reply->kind != OUTR_REDIS_ARRAY || reply->count != 2))
        outr_fail(&err, OUTR_INTERNAL, "the server's answer to SCAN is none");
    for (size_t i = 0; !err.code && i < reply->items[1].count; i++)
        add_key(r, reply->items[1].items[i].text);
    if (err.code || outr__config_check_count(r->count, OUTR__CONFIG_KEYS_MAX, &err)) {
        end_reading(r, &err);
        return;
    }
    r->cursor = reply->items[0].text;
    if (!outr_str_is(r->cursor, "0"))
        scan(r);
    else if (r->count == 0)
        end_reading(r, NULL);
    else
        read_values(r);
}

static void scan(reading *r)
{
    outr_redis_call_of(
        &r->call, r->req->arena, OUTR_STR_NONE, 4,
        (outr_str[]){OUTR_STR("SCAN"), r->cursor, OUTR_STR("COUNT"), OUTR_STR(SCAN_STEP)});
    outr_op_init(&r->inner, r->op->loop, r->op, 0, on_scanned);
    outr_redis_call_start(r->store->redis, &r->call, &r->inner);
}

static void on_get_cancel(outr_op *op)
{
    reading *r = op->impl;
    outr_op_cancel(&r->inner, op->err.code);
}

static void get(outr_configuration_store *base, outr_configuration_get *req, outr_op *op)
{
    outr_err err;
    if (outr__config_check_count(req->key_count, OUTR__CONFIG_KEYS_MAX, &err)) {
        outr_op_begin(op, NULL, NULL);
        outr_op_fail_soon(op, &err);
        return;
    }
    reading *r = outr_alloc(sizeof *r);
    *r = (reading){.store = outr__config_store_of(base),
                   .req = req,
                   .op = op,
                   .cursor = OUTR_STR("0")};
    outr_op_begin(op, r, on_get_cancel);
    r->seen = outr_map_new();
    req->items = NULL;
    req->count = 0;
    for (size_t i = 0; i < req->key_count; i++)
        add_key(r, req->keys[i]);
    if (req->key_count == 0)
        scan(r);
    else
        read_values(r);
}

/* ---- life ------------------------------------------------------------------------------------ */

extern const outr_configuration_backend outr_configuration_redis OUTR_MODULE;

static outr_code create(outr_configuration_store **out, const outr_component_init *init,
                        outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    outr__config_store *st = outr_alloc(sizeof *st);
    *st = (outr__config_store){.base = {&outr_configuration_redis},
                               .log = init->log,
                               .name = init->name,
                               .db = c.redis.db};
    outr_code rc = outr_redis_new(&st->redis, &c.redis, init, err);
    if (rc) {
        free(st);
        return rc;
    }
    *out = &st->base;
    return OUTR_OK;
}

static void open_store(outr_configuration_store *base, outr_op *op)
{
    outr_redis_open(outr__config_store_of(base)->redis, op);
}

static void close_store(outr_configuration_store *base, outr_op *op)
{
    outr__config_store *st = outr__config_store_of(base);
    outr_redis *redis = st->redis;
    free(st);
    outr_redis_close(redis, op);
}

const outr_configuration_backend outr_configuration_redis = {
    .base = {"configuration.redis", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_store,
    .close = close_store,
    .get = get,
    .subscribe = outr__config_subscribe,
    .go_on = outr__config_go_on,
    .unsubscribe = outr__config_unsubscribe,
};
