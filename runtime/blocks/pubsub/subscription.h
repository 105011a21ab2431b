/* subscription - one topic on its way to the app: routing, delivery, outcome, dead letter.
 *
 * Lives on one loop. Made and ended by the engine (pubsub.h). */
#ifndef OUTR_BLOCKS_PUBSUB_SUBSCRIPTION_H
#define OUTR_BLOCKS_PUBSUB_SUBSCRIPTION_H

#include "base/cel.h"
#include "blocks/pubsub/pubsub.h"

#define OUTR_SUBSCRIPTION_CREDIT 64 /* messages in the app's hands at once, per subscription */

typedef struct outr_subscription {
    outr_subscription_spec spec; /* on the set's arena */
    int type;                    /* of outr_subscription_info */
    outr_cel **rules;            /* compiled; NULL for an empty match */
    bool is_raw;
    const outr_settings *settings;
    const outr_log *log;
    outr_loop *loop;
    outr_app *app;
    outr_host *host;
    /* on loop */
    outr_view *view; /* pinned while subscribed */
    const outr_component *component;
    outr_broker_sub *sub;
    size_t delivering;
    outr_list batch; /* bulk: messages gathered so far */
    size_t batch_count;
    outr_timer batch_timer;
    bool is_paused, is_ending;
    outr_op closing;
    void (*ended)(struct outr_subscription *s);
    void *set; /* the engine's */
} outr_subscription;

/* Compiles the rules; mistakes name the subscription. */
outr_code outr_subscription_prepare(outr_subscription *s, outr_arena *arena, outr_err *err);
/* On its loop. */
void outr_subscription_start(outr_subscription *s);
void outr_subscription_pause(outr_subscription *s, bool is_paused);
void outr_subscription_end(outr_subscription *s); /* s->ended follows, once */

#endif
