/* subscription - one topic on its way to the app or to a client's stream: routing, delivery,
 * outcome, dead letter.
 *
 * Lives on one loop. Made and ended by the engine (pubsub.h, stream.h). How a message goes out is
 * the deliverer's (delivery.h): HTTP, gRPC, stream. At most `credit` messages are unsettled, so
 * what a slow taker makes the sidecar hold is so many messages of the broker's. */
#ifndef OUTR_BLOCKS_PUBSUB_SUBSCRIPTION_H
#define OUTR_BLOCKS_PUBSUB_SUBSCRIPTION_H

#include "base/cel.h"
#include "blocks/pubsub/pubsub.h"

#define OUTR_SUBSCRIPTION_CREDIT 64 /* messages in the taker's hands at once, per subscription */

typedef struct outr__deliverer outr__deliverer;

typedef struct outr_subscription {
    outr_subscription_spec spec; /* on the set's arena */
    int type;                    /* of outr_subscription_info */
    outr_cel **rules;            /* compiled; NULL for an empty match */
    bool is_raw, has_conditions;
    const outr_settings *settings;
    const outr_log *log;
    outr_trace_config trace;
    outr_loop *loop;
    outr_app *app; /* NULL: a stream's */
    outr_host *host;
    const outr__deliverer *deliverer;
    /* on loop */
    outr_view *view; /* pinned while subscribed */
    const outr_component *component;
    outr_broker_sub *sub;
    outr_list deliveries;
    size_t delivering;
    outr_list batch; /* bulk: messages gathered so far */
    size_t batch_count, batch_bytes;
    uint64_t batch_number; /* of the one that gathers */
    outr_timer batch_timer;
    bool is_paused, is_ending, is_ended;
    bool bulk_has_old_name; /* the app knows OnBulkTopicEventAlpha1 only */
    outr_op closing;
    outr_timer patience; /* of outr_subscription_end */
    void (*ended)(struct outr_subscription *s);
    void *set; /* the engine's */
} outr_subscription;

/* Compiles the rules, finds the deliverer; mistakes name the subscription. */
outr_code outr_subscription_prepare(outr_subscription *s, outr_arena *arena, outr_err *err);
/* All on its loop. INVALID_ARGUMENT: no such pubsub; PERMISSION_DENIED: its scopes; else what the
 * broker says. A failed one is ended all the same. */
outr_code outr_subscription_start(outr_subscription *s, outr_err *err);
/* The components have changed: true when it goes on with the same broker, as the new view has it;
 * false: it is to be ended. */
bool outr_subscription_move(outr_subscription *s);
/* The broker keeps what comes; what is in hand is its taker's. */
void outr_subscription_pause(outr_subscription *s, bool is_paused);
/* No new messages; s->ended follows, once, when those in hand are answered. After patience_ns (0:
 * never) they are released unanswered. Again: with the shorter patience. */
void outr_subscription_end(outr_subscription *s, uint64_t patience_ns);
/* The same at once: what is in hand is released now, to anyone. */
void outr_subscription_abandon(outr_subscription *s);

#endif
