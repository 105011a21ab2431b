/* internal - the parts of pubsub.redis: broker.c publishes, subscription.c reads and hands over,
 * confirm.c tells Redis what became of messages.
 *
 * A topic is a stream, a consumer ID is a consumer group of it and the name of its consumer, as a
 * daprd has it: both may work on one stream side by side. An entry that was handed over stays in
 * the group's list of pending entries until it is acknowledged. Who has it in hand claims it anew
 * now and then (renewal), so that nobody takes it for lost; what was not claimed for
 * processingTimeout is given out again by whoever looks first. What was released is marked by an
 * idle time that no clock could reach.
 * Source: contract/pubsub.md, redis.io/docs/data-types/streams. */
#ifndef OUTR_COMPONENTS_PUBSUB_REDIS_INTERNAL_H
#define OUTR_COMPONENTS_PUBSUB_REDIS_INTERNAL_H

#include "components/common/redis/redis.h"
#include "components/pubsub.h"

typedef struct outr__stream_config {
    outr_redis_settings redis;
    outr_str consumer, concurrency;
    int64_t redeliver_ns, timeout_ns, ttl_ns, depth, max_length;
} outr__stream_config;

typedef struct outr__stream_broker {
    outr_broker base;
    outr__stream_config c;
    outr_redis *redis;
    outr_str consumer;
    const outr_log *log;
    size_t concurrency; /* 0: the engine's credit */
} outr__stream_broker;

static inline outr__stream_broker *outr__stream_of(outr_broker *base)
{
    return OUTR_CONTAINER(base, outr__stream_broker, base);
}
/* Looks for lost messages at all. */
static inline bool outr__stream_recovers(const outr__stream_broker *b)
{
    return b->c.redeliver_ns > 0 && b->c.timeout_ns > 0;
}

/* What one reply brought; goes with its last message. */
typedef struct outr__stream_batch {
    outr_arena *arena;
    size_t refs;
} outr__stream_batch;

/* A message in our hands, until Redis knows that it is no more. */
typedef struct outr__stream_item {
    outr_message_in msg;
    outr_str id; /* of the entry */
    outr__stream_batch *batch;
    outr_link link; /* one of its subscription's lists */
    uint64_t renewed_ns;
    bool is_settled;
} outr__stream_item;

typedef enum outr__stream_task {
    OUTR__STREAM_REST,
    OUTR__STREAM_GROUP, /* making the group */
    OUTR__STREAM_READ,  /* waiting for new entries */
    OUTR__STREAM_LOOK,  /* through the pending entries */
    OUTR__STREAM_CLAIM, /* those that are lost */
} outr__stream_task;

struct outr_broker_sub {
    outr__stream_broker *broker;
    outr_subscribe req;
    outr_str topic, group;
    char *text; /* of both */
    size_t credit;
    outr_redis_line *line;
    outr_map *in_hand; /* id to item: handed over, or settled and not confirmed */
    outr_map *parked;  /* ids of entries that are larger than a reply may be: left alone */
    outr_list handed, acks, releases;
    size_t unsettled, acking, confirming;
    bool has_group, is_paused, is_closing, wants_look, is_recovering, is_failing;
    uint32_t failures, groups_made; /* since messages were read last */
    size_t average; /* bytes of a message, for how many may be asked for */
    outr_op *closing;
    outr_deferred pump, confirmer;
    outr_timer again, looker, renewer, confirm_again, unblocker;
    uint32_t confirm_failures;
    /* what the line does just now */
    outr__stream_task task;
    outr__stream_batch *batch;
    outr_redis_call call;
    outr_redis_command commands[2];
    outr_op op;
    /* looking through pending entries */
    outr_str *lost;
    int64_t *lost_counts;
    size_t lost_count;
    char from[48];
    uint64_t soonest_ns; /* how long until the first of the others could be lost */
    /* ends a read that waits */
    outr_redis_call unblock_call;
    outr_redis_command unblock_command;
    outr_str unblock_args[3];
    outr_arena *unblock_arena;
    outr_op unblock_op;
    unsigned unblocks;
};

#define OUTR__STREAM_RELEASED_MS INT64_C(315360000000) /* ten years */

void outr__stream_batch_unref(outr__stream_batch *batch);
/* Out of hand, and freed. */
void outr__stream_forget(outr_broker_sub *sub, outr__stream_item *item);
/* Sends the acks and releases that have gathered, at the end of the turn. */
void outr__stream_confirm_init(outr_broker_sub *sub);
void outr__stream_confirm_soon(outr_broker_sub *sub);
void outr__stream_confirm_stop(outr_broker_sub *sub);
/* Nothing is to be confirmed any more. */
bool outr__stream_is_confirmed(const outr_broker_sub *sub);
void outr__stream_pump_soon(outr_broker_sub *sub);

outr_code outr__stream_subscribe(outr_broker *base, const outr_subscribe *req,
                                 outr_broker_sub **out, outr_err *err);
void outr__stream_settle(outr_broker_sub *sub, outr_message_in *msg, outr_settlement how);
void outr__stream_pause(outr_broker_sub *sub, bool is_paused);
void outr__stream_unsubscribe(outr_broker_sub *sub, outr_op *op);

#endif
