/* Any bytes as what a Redis server says: to calls, to a listener, as a cluster's map, as Sentinel.
 * The first byte chooses, the second how large the pieces are in which the others come. */
#include "components/common/redis/redis.h"
#include "tests/fuzz/property.h"
#include "tests/lib/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CALLS = 4 };

typedef struct config {
    outr_redis_settings redis;
} config;
static const outr_bind_row rows[] = {OUTR_REDIS_ROWS(config, redis, "512ms")};

typedef struct asked {
    outr_redis_call call;
    outr_op op;
    unsigned done;
} asked;

static void on_asked(outr_op *op)
{
    OUTR_CONTAINER(op, asked, op)->done++;
}

/* Names have no addresses here. */
static void lookup(outr_env *env OUTR_UNUSED, outr_loop *loop OUTR_UNUSED, outr_lookup *req,
                   outr_op *op)
{
    outr_err err;
    req->count = 0;
    outr_op_begin(op, req, NULL);
    outr_fail(&err, OUTR_UNAVAILABLE, "look up: no address");
    outr_op_fail_soon(op, &err);
}

static void on_closed(outr_op *op)
{
    op->impl = NULL;
}

static void on_message(void *ctx, outr_str channel, outr_str payload)
{
    size_t *sum = ctx;
    for (size_t i = 0; i < channel.n; i++)
        *sum += (unsigned char)channel.p[i];
    for (size_t i = 0; i < payload.n; i++)
        *sum += (unsigned char)payload.p[i];
}

static void on_change(void *ctx OUTR_UNUSED, const outr_err *err OUTR_UNUSED)
{
}

/* Every text of a reply is there to be read. */
static size_t walk(const outr_redis_reply *reply, unsigned depth)
{
    size_t sum = 0;
    PROPERTY(depth < 16);
    for (size_t i = 0; i < reply->text.n; i++)
        sum += (unsigned char)reply->text.p[i];
    for (size_t i = 0; i < reply->count; i++)
        sum += walk(&reply->items[i], depth + 1);
    return sum;
}

static outr_redis *make(wire *w, unsigned kind)
{
    static const outr_kv metadata[][3] = {
        {{{"redisHost", 9}, {"127.0.0.1", 9}}},
        {{{"redisHost", 9}, {"127.0.0.1", 9}}, {{"redisType", 9}, {"cluster", 7}}},
        {{{"redisHost", 9}, {"127.0.0.1", 9}},
         {{"failover", 8}, {"true", 4}},
         {{"sentinelMasterName", 18}, {"m", 1}}},
    };
    static const size_t counts[] = {1, 2, 3};
    config c = {0};
    OUTR_AUTO(outr_err_list) errors = {0};
    outr_redis *redis = NULL;
    const outr_component_init init = {.name = OUTR_STR("r"), .loop = w->loop};
    outr_bind_kvs(rows, OUTR_LEN(rows), &c, (outr_kvs){metadata[kind], counts[kind]}, &errors);
    PROPERTY(outr_redis_new(&redis, &c.redis, &init, NULL) == OUTR_OK);
    return redis;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    static const outr_str get[] = {{"GET", 3}, {"k", 1}}, channel[] = {{"c", 1}};
    const outr_redis_command commands[] = {{get, 2, get[1]}, {get, 2, get[1]}};
    const outr_redis_listen listen = {.channels = channel,
                                      .channel_count = 1,
                                      .on_message = on_message,
                                      .on_change = on_change};
    wire w;
    wire_init(&w, 1);
    w.env.lookup = lookup;
    w.piece_max = data[1] % 32;
    outr_redis *redis = make(&w, (data[0] >> 4) % 3);
    outr_arena *arena = outr_arena_new(64 * OUTR_KIB);
    size_t sum = 0;
    asked asks[CALLS];
    outr_redis_listen own = listen;
    own.loop = w.loop;
    own.ctx = &sum;
    outr_redis_listener *listener = data[0] & 1 ? outr_redis_listen_start(redis, &own) : NULL;
    for (size_t i = 0; i < CALLS && !listener; i++) {
        asks[i] = (asked){.call = {.arena = arena,
                                   .commands = commands,
                                   .count = 1 + (i & 1),
                                   .is_atomic = i == 3,
                                   .is_repeatable = i < 2}};
        outr_op_init(&asks[i].op, w.loop, NULL, w.now + 2 * OUTR_SEC, on_asked);
        outr_redis_call_start(redis, &asks[i].call, &asks[i].op);
    }
    for (unsigned round = 0; round < 3; round++) { /* it may be asked again on another connection */
        wire_run(&w);
        if (!w.last || w.last->base.is_closing)
            break;
        wire_feed_z(w.last, round == 0 ? "+PONG\r\n" : "");
        wire_feed(w.last, data + 2, size - 2);
        wire_run(&w);
        wire_sleep(&w, OUTR_SEC);
    }
    wire_sleep(&w, 3 * OUTR_SEC);
    for (size_t i = 0; i < CALLS && !listener; i++) {
        PROPERTY(asks[i].done == 1);
        for (size_t k = 0; k < asks[i].call.count && !asks[i].op.err.code; k++)
            sum += walk(&asks[i].call.replies[k], 0);
    }
    outr_redis_listen_stop(listener);
    outr_op closing;
    outr_op_init(&closing, w.loop, NULL, 0, on_closed);
    outr_redis_close(redis, &closing);
    wire_run(&w);
    PROPERTY(!outr_op_is_pending(&closing));
    outr_arena_free(arena);
    wire_done(&w);
    return sum == SIZE_MAX;
}
