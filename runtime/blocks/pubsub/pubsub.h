/* pubsub - the engine above the brokers: envelope and publish on the one side; subscriptions,
 * routing, delivery to the app and its outcome on the other. Knows no transport of its own clients.
 *
 * One for the process. Publishing may come from any loop. A subscription lives on one loop (spread
 * round robin); its deliveries go through that loop's app channel. Streams of clients: stream.h.
 * Source: contract/pubsub.md. */
#ifndef OUTR_BLOCKS_PUBSUB_PUBSUB_H
#define OUTR_BLOCKS_PUBSUB_PUBSUB_H

#include "app/channel.h"
#include "blocks/host.h"
#include "observe/trace.h"

typedef struct outr_pubsub outr_pubsub;

typedef struct outr_pubsub_options {
    outr_loop *const *loops;
    outr_app *const *apps; /* one per loop */
    struct outr_tracer *const *tracers; /* observe/span.h, one per loop, or NULL */
    outr_trace_config trace;            /* but for its tracer */
    size_t loop_count;
    const outr_settings *settings;
    outr_host *host;
    const outr_log *log;
} outr_pubsub_options;

outr_pubsub *outr_pubsub_new(const outr_pubsub_options *options);
/* Main loop. Watches the app: once it is up and healthy, asks it for programmatic subscriptions
 * (GET /dapr/subscribe, AppCallback/ListTopicSubscriptions), merges them with the snapshot's and
 * subscribes; pauses while unhealthy. */
void outr_pubsub_start(outr_pubsub *pubsub, const outr_snapshot *snapshot);
void outr_pubsub_update(outr_pubsub *pubsub,
                        const outr_snapshot *snapshot); /* subscriptions or components changed */
/* No new messages; deliveries in progress end, or are released when the graceful time of shutdown
 * is over; streams of clients end. */
void outr_pubsub_stop(outr_pubsub *pubsub, outr_op *op);
void outr_pubsub_free(outr_pubsub *pubsub);

/* Calls fn for each active subscription, for metadata; main thread's data is copied under a lock.
 */
typedef struct outr_subscription_info {
    outr_str pubsub, topic, dead_letter_topic;
    outr_kvs metadata;
    const outr_subscription_rule *rules;
    size_t rule_count;
    enum { OUTR_SUB_DECLARATIVE, OUTR_SUB_PROGRAMMATIC, OUTR_SUB_STREAMING } type;
} outr_subscription_info;
void outr_pubsub_each(outr_pubsub *pubsub,
                      void (*fn)(void *ctx, const outr_subscription_info *info), void *ctx);

#endif
