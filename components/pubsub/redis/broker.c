#include "components/module.h"
#include "components/pubsub/redis/internal.h"

#include "base/json.h"

static const outr_bind_row rows[] = {
    OUTR_REDIS_ROWS(outr__stream_config, redis, "512ms"),
    {"consumerID", "consumerId", OUTR_BIND_STR, 0, offsetof(outr__stream_config, consumer), 0, 0,
     NULL, NULL, 0, "consumer group; default: the app id"},
    {"redeliverInterval", NULL, OUTR_BIND_DURATION, 0, offsetof(outr__stream_config, redeliver_ns),
     0, INT64_MAX, "60s", NULL, 1000000, "how often pending messages are checked; 0 never"},
    {"processingTimeout", NULL, OUTR_BIND_DURATION, 0, offsetof(outr__stream_config, timeout_ns), 0,
     INT64_MAX, "15s", NULL, 1000000,
     "a message that nobody has had in hand for so long is given out again; 0 never"},
    {"queueDepth", NULL, OUTR_BIND_I64, 0, offsetof(outr__stream_config, depth), 1, 1000000, "100",
     NULL, 0, "messages asked for at once, at most"},
    {"concurrency", NULL, OUTR_BIND_STR, 0, offsetof(outr__stream_config, concurrency), 0, 0, NULL,
     NULL, 0, "messages in hand at once, single or parallel; default: maxConcurrency decides"},
    {"maxLenApprox", NULL, OUTR_BIND_I64, 0, offsetof(outr__stream_config, max_length), 0,
     INT64_MAX, "0", NULL, 0, "approximate cap of a stream; 0: none"},
    {"streamTTL", NULL, OUTR_BIND_DURATION, 0, offsetof(outr__stream_config, ttl_ns), 0, INT64_MAX,
     "0", NULL, 1000000, "age at which stream entries are trimmed; 0: never"},
};

/* ---- publishing ------------------------------------------------------------------------------ */

/* On its own arena. */
typedef struct publishing {
    outr_arena *arena;
    outr_publish *req;
    outr_op *op;
    outr_redis_call call;
    outr_op inner;
    char limit[48];
} publishing;

/* More than they are as JSON, where a byte may take six: its size follows from the request's. */
static size_t json_max(outr_kvs metadata)
{
    size_t n = 2;
    for (size_t i = 0; i < metadata.count; i++)
        n += 6 * (metadata.items[i].key.n + metadata.items[i].value.n) + 6;
    return n;
}

static outr_str json_of(outr_arena *arena, outr_kvs metadata)
{
    if (metadata.count == 0)
        return OUTR_STR("{}");
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(json_max(metadata));
    outr_json_quote_kvs(&out, metadata);
    return outr_arena_str(arena, outr_buf_view(&out));
}

static void on_published(outr_op *inner)
{
    publishing *p = OUTR_CONTAINER(inner, publishing, inner);
    outr_op *op = p->op;
    const outr_err *first = NULL;
    if (inner->err.code && !outr_op_is_cancelled(inner))
        outr_wrap(&inner->err, "redis streams: error from publish");
    for (size_t i = 0; i < p->req->count; i++) {
        outr_err *own = &p->req->items[i].err;
        outr_err_clear(own);
        if (inner->err.code)
            *own = inner->err;
        else if (outr_redis_check(&p->call.replies[i], own))
            outr_wrap(own, "redis streams: error from publish");
        if (own->code && !first)
            first = own;
    }
    outr_arena_free(p->arena);
    if (first)
        outr_op_fail(op, first);
    else
        outr_op_finish(op);
}

static void on_publish_cancel(outr_op *op)
{
    publishing *p = op->impl;
    outr_op_cancel(&p->inner, op->err.code);
}

static outr_redis_command add_of(const outr__stream_broker *b, publishing *p,
                                 const outr_publish_item *item)
{
    outr_str args[10] = {OUTR_STR("XADD"), p->req->topic};
    size_t n = 2;
    if (p->limit[0]) {
        args[n++] = b->c.max_length > 0 ? OUTR_STR("MAXLEN") : OUTR_STR("MINID");
        args[n++] = OUTR_STR("~");
        args[n++] = outr_str_from(p->limit);
    }
    args[n++] = OUTR_STR("*");
    args[n++] = OUTR_STR("data");
    args[n++] = item->data;
    args[n++] = OUTR_STR("metadata");
    args[n++] = json_of(p->arena, item->metadata);
    return outr_redis_command_of(p->arena, p->req->topic, n, args);
}

static void publish(outr_broker *base, outr_publish *req, outr_op *op)
{
    outr__stream_broker *b = outr__stream_of(base);
    size_t bytes = OUTR_MIB + req->count * 4 * OUTR_KIB;
    for (size_t i = 0; i < req->count; i++)
        bytes += json_max(req->items[i].metadata);
    outr_arena *arena = outr_arena_new(bytes);
    publishing *p = outr_arena_alloc(arena, sizeof *p);
    outr_redis_command *commands = outr_arena_alloc(arena, req->count * sizeof *commands);
    *p = (publishing){.arena = arena, .req = req, .op = op};
    if (b->c.max_length > 0)
        snprintf(p->limit, sizeof p->limit, "%lld", (long long)b->c.max_length);
    else if (b->c.ttl_ns > 0)
        snprintf(p->limit, sizeof p->limit, "%lld-1",
                 (long long)((outr_loop_unix_ns(op->loop) - b->c.ttl_ns) / (int64_t)OUTR_MS));
    for (size_t i = 0; i < req->count; i++)
        commands[i] = add_of(b, p, &req->items[i]);
    p->call = (outr_redis_call){.arena = arena, .commands = commands, .count = req->count};
    outr_op_begin(op, p, on_publish_cancel);
    outr_op_init(&p->inner, op->loop, op, 0, on_published);
    outr_redis_call_start(b->redis, &p->call, &p->inner);
}

/* ---- life ------------------------------------------------------------------------------------ */

extern const outr_pubsub_backend outr_pubsub_redis OUTR_MODULE;

static outr_code read_concurrency(outr__stream_broker *b, outr_err *err)
{
    outr_str given = b->c.concurrency;
    int64_t n = 0;
    if (given.n == 0 || outr_str_iis(given, "parallel"))
        return OUTR_OK;
    if (!outr_str_iis(given, "single") && !outr_str_to_i64(given, 1, 65536, &n))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "concurrency: not a number from 1, single or parallel: \"" OUTR_FMT "\"",
                         OUTR_ARG(given));
    b->concurrency = n > 0 ? (size_t)n : 1;
    return OUTR_OK;
}

static outr_code create(outr_broker **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    outr__stream_broker *b = outr_alloc(sizeof *b);
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &b->c, init->metadata, &errors);
    if (rc)
        *err = errors.items[0];
    else
        rc = read_concurrency(b, err);
    if (!rc)
        rc = outr_redis_new(&b->redis, &b->c.redis, init, err);
    if (rc) {
        free(b);
        return rc;
    }
    outr_str given = outr_str_trim(b->c.consumer);
    b->base.backend = &outr_pubsub_redis;
    b->consumer = given.n > 0 ? given : init->app_id;
    b->log = init->log;
    *out = &b->base;
    return OUTR_OK;
}

static void open_broker(outr_broker *base, outr_op *op)
{
    outr_redis_open(outr__stream_of(base)->redis, op);
}

static void close_broker(outr_broker *base, outr_op *op)
{
    outr__stream_broker *b = outr__stream_of(base);
    outr_redis *redis = b->redis;
    free(b);
    outr_redis_close(redis, op);
}

static unsigned features(const outr_broker *base OUTR_UNUSED)
{
    return OUTR_PUBSUB_BULK_PUBLISH;
}

const outr_pubsub_backend outr_pubsub_redis = {
    .base = {"pubsub.redis", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_broker,
    .close = close_broker,
    .features = features,
    .publish = publish,
    .subscribe = outr__stream_subscribe,
    .settle = outr__stream_settle,
    .pause = outr__stream_pause,
    .unsubscribe = outr__stream_unsubscribe,
};
