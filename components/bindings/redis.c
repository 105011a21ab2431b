#include "components/bindings.h"
#include "components/common/redis/redis.h"
#include "components/module.h"
#include "components/state.h"

/* Keys that an app sets, reads, counts up and deletes: operations create, get, increment, delete,
 * the key in the metadata. */

extern const outr_binding_backend outr_bindings_redis OUTR_MODULE;

typedef struct config {
    outr_redis_settings redis;
} config;

static const outr_bind_row rows[] = {OUTR_REDIS_ROWS(config, redis, "512ms")};

typedef struct binding {
    outr_binding base;
    config c;
    outr_redis *redis;
} binding;

/* On the request's arena. */
typedef struct request {
    outr_binding_invoke *req;
    outr_op *op;
    outr_op inner;
    outr_redis_call call;
    outr_redis_command commands[2];
    outr_str args[5], expire[3];
    char seconds[24];
} request;

static binding *of(outr_binding *base)
{
    return OUTR_CONTAINER(base, binding, base);
}

static outr_str metadata(const outr_binding_invoke *req, const char *name)
{
    const outr_kv *kv = outr_kvs_find_exact(req->metadata, outr_str_from(name));
    return kv ? kv->value : OUTR_STR_NONE;
}

static void on_done(outr_op *inner)
{
    request *r = OUTR_CONTAINER(inner, request, inner);
    outr_err err = inner->err;
    if (!err.code)
        outr_redis_check_all(&r->call, &err);
    if (!err.code && outr_str_is(r->req->operation, "get")) {
        r->req->has_answer = true; /* also of a key that is not there: then it is empty */
        r->req->answer = r->call.replies[0].text.n > 0 ? r->call.replies[0].text : OUTR_STR("");
    }
    if (err.code)
        outr_op_fail(r->op, &err);
    else
        outr_op_finish(r->op);
}

static void add(request *r, outr_str key, const outr_str *args, size_t count)
{
    r->commands[r->call.count++] = (outr_redis_command){args, count, key};
}

/* The commands of the operation. */
static outr_code make(request *r, outr_err *err)
{
    outr_binding_invoke *req = r->req;
    outr_str key = metadata(req, "key"), what = req->operation;
    int64_t ttl = 0;
    if (key.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "redis binding: missing key in request metadata");
    bool writes = outr_str_is(what, "create") || outr_str_is(what, "increment");
    if (writes && outr_state_ttl(req->metadata, &ttl, err))
        return err->code;
    snprintf(r->seconds, sizeof r->seconds, "%lld", (long long)ttl);
    r->args[1] = key;
    if (outr_str_is(what, "create")) {
        r->args[0] = OUTR_STR("SET");
        r->args[2] = req->data.p ? req->data : OUTR_STR("");
        r->args[3] = OUTR_STR("EX");
        r->args[4] = outr_str_from(r->seconds);
        add(r, key, r->args, ttl > 0 ? 5 : 3);
    } else if (outr_str_is(what, "increment")) {
        r->args[0] = OUTR_STR("INCR");
        add(r, key, r->args, 2);
        if (ttl <= 0)
            return OUTR_OK;
        r->expire[0] = OUTR_STR("EXPIRE");
        r->expire[1] = key;
        r->expire[2] = outr_str_from(r->seconds);
        r->call.is_atomic = true;
        add(r, key, r->expire, 3);
    } else if (outr_str_is(what, "delete")) {
        r->args[0] = OUTR_STR("DEL");
        r->call.is_repeatable = true;
        add(r, key, r->args, 2);
    } else { /* get */
        bool takes = outr_str_is(metadata(req, "delete"), "true");
        r->args[0] = takes ? OUTR_STR("GETDEL") : OUTR_STR("GET");
        r->call.is_repeatable = !takes;
        add(r, key, r->args, 2);
    }
    return OUTR_OK;
}

static void on_cancel(outr_op *op)
{
    request *r = op->impl;
    outr_op_cancel(&r->inner, op->err.code);
}

static void invoke(outr_binding *base, outr_binding_invoke *req, outr_op *op)
{
    request *r = outr_arena_alloc(req->arena, sizeof *r);
    outr_err err;
    r->req = req;
    r->op = op;
    r->call = (outr_redis_call){.arena = req->arena, .commands = r->commands};
    req->has_answer = false;
    outr_op_begin(op, r, on_cancel);
    if (make(r, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_op_init(&r->inner, op->loop, op, 0, on_done);
    outr_redis_call_start(of(base)->redis, &r->call, &r->inner);
}

/* ---- life ------------------------------------------------------------------------------------ */

static outr_code create(outr_binding **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    binding *b = outr_alloc(sizeof *b);
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &b->c, init->metadata, &errors);
    if (rc)
        *err = errors.items[0];
    else
        rc = outr_redis_new(&b->redis, &b->c.redis, init, err);
    if (rc) {
        free(b);
        return rc;
    }
    b->base.backend = &outr_bindings_redis;
    *out = &b->base;
    return OUTR_OK;
}

static void open_binding(outr_binding *base, outr_op *op)
{
    outr_redis_open(of(base)->redis, op);
}

static void close_binding(outr_binding *base, outr_op *op)
{
    binding *b = of(base);
    outr_redis *redis = b->redis;
    free(b);
    outr_redis_close(redis, op);
}

static unsigned directions(const outr_binding *base OUTR_UNUSED)
{
    return OUTR_BINDING_OUTPUT;
}

static const char *const *operations(const outr_binding *base OUTR_UNUSED)
{
    static const char *const names[] = {"create", "delete", "get", "increment", NULL};
    return names;
}

const outr_binding_backend outr_bindings_redis = {
    .base = {"bindings.redis", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_binding,
    .close = close_binding,
    .directions = directions,
    .operations = operations,
    .invoke = invoke,
};
