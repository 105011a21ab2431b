#include "components/common/redis/redis.h"
#include "components/lock.h"
#include "components/module.h"

/* Locks in Redis, in daprd's layout: the owner's name under the lock's, SET NX with its time to
 * live, given back by comparing the owner and deleting in one script. */

typedef struct config {
    outr_redis_settings redis;
    outr_str redeliver, processing; /* daprd lists them for all its Redis components */
} config;

static const outr_bind_row rows[] = {
    OUTR_REDIS_ROWS(config, redis, "2s"),
    {"redeliverInterval", NULL, OUTR_BIND_STR, 0, offsetof(config, redeliver), 0, 0, NULL, NULL, 0,
     "no effect"},
    {"processingTimeout", NULL, OUTR_BIND_STR, 0, offsetof(config, processing), 0, 0, NULL, NULL, 0,
     "no effect"},
};

/* 1: given back, 0: nobody holds it, -1: another does. */
#define UNLOCK_SCRIPT                                                                              \
    "local held = redis.call('GET', KEYS[1]) "                                                     \
    "if not held then return 0 end "                                                               \
    "if held ~= ARGV[1] then return -1 end "                                                       \
    "redis.call('DEL', KEYS[1]) return 1"

typedef struct store {
    outr_lock_store base;
    outr_redis *redis;
} store;

/* One request; on an arena of its own, so that the caller's request needs none. */
typedef struct job {
    outr_arena *arena;
    outr_redis_call call;
    outr_lock_try *taking;
    outr_unlock *giving;
    outr_op inner;
    outr_op *op;
} job;

#define JOB_ARENA (64 * OUTR_KIB)

static store *of(outr_lock_store *base)
{
    return OUTR_CONTAINER(base, store, base);
}

static outr_code read_reply(job *j, outr_err *err)
{
    const outr_redis_reply *reply = j->call.replies;
    outr_code rc = outr_redis_check(reply, err);
    if (rc)
        return rc;
    if (j->taking)
        j->taking->is_taken = reply->kind == OUTR_REDIS_STATUS; /* else NIL: it is there */
    else
        j->giving->status = reply->integer > 0    ? OUTR_UNLOCKED
                            : reply->integer == 0 ? OUTR_UNLOCK_ABSENT
                                                  : OUTR_UNLOCK_OTHERS;
    return OUTR_OK;
}

static void on_done(outr_op *inner)
{
    job *j = OUTR_CONTAINER(inner, job, inner);
    outr_op *op = j->op;
    outr_err err = inner->err;
    if (!err.code)
        read_reply(j, &err);
    outr_arena_free(j->arena);
    if (err.code)
        outr_op_fail(op, &err);
    else
        outr_op_finish(op);
}

static void on_cancel(outr_op *op)
{
    job *j = op->impl;
    outr_op_cancel(&j->inner, op->err.code);
}

static job *new_job(outr_op *op)
{
    outr_arena *arena = outr_arena_new(JOB_ARENA);
    job *j = outr_arena_alloc(arena, sizeof *j);
    j->arena = arena;
    j->op = op;
    outr_op_begin(op, j, on_cancel);
    return j;
}

static void run(store *st, job *j, outr_str key, const outr_str *args, size_t count)
{
    outr_redis_call_of(&j->call, j->arena, key, count, args);
    j->call.is_repeatable = false;
    outr_op_init(&j->inner, j->op->loop, j->op, 0, on_done);
    outr_redis_call_start(st->redis, &j->call, &j->inner);
}

static void try_lock(outr_lock_store *base, outr_lock_try *req, outr_op *op)
{
    job *j = new_job(op);
    long long expiry_ms = (long long)(req->expiry_ns / (int64_t)OUTR_MS);
    outr_str ms = outr_arena_printf(j->arena, "%lld", expiry_ms);
    j->taking = req;
    run(of(base), j, req->name,
        (outr_str[]){OUTR_STR("SET"), req->name, req->owner, OUTR_STR("NX"), OUTR_STR("PX"), ms},
        6);
}

static void unlock(outr_lock_store *base, outr_unlock *req, outr_op *op)
{
    job *j = new_job(op);
    j->giving = req;
    run(of(base), j, req->name,
        (outr_str[]){OUTR_STR("EVAL"), OUTR_STR(UNLOCK_SCRIPT), OUTR_STR("1"), req->name,
                     req->owner},
        5);
}

/* ---- life ------------------------------------------------------------------------------------ */

extern const outr_lock_backend outr_lock_redis OUTR_MODULE;

static outr_code create(outr_lock_store **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    store *st = outr_alloc(sizeof *st);
    st->base.backend = &outr_lock_redis;
    outr_code rc = outr_redis_new(&st->redis, &c.redis, init, err);
    if (rc) {
        free(st);
        return rc;
    }
    *out = &st->base;
    return OUTR_OK;
}

static void open_store(outr_lock_store *base, outr_op *op)
{
    outr_redis_open(of(base)->redis, op);
}

static void close_store(outr_lock_store *base, outr_op *op)
{
    store *st = of(base);
    outr_redis *redis = st->redis;
    free(st);
    outr_redis_close(redis, op);
}

const outr_lock_backend outr_lock_redis = {
    .base = {"lock.redis", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_store,
    .close = close_store,
    .try_lock = try_lock,
    .unlock = unlock,
};
