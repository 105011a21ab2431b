/* asked - what the app itself wants to subscribe to: GET /dapr/subscribe, or
 * AppCallback/ListTopicSubscriptions. Main loop. Source: contract/pubsub.md "Subscriptions". */
#ifndef OUTR_BLOCKS_PUBSUB_ASKED_H
#define OUTR_BLOCKS_PUBSUB_ASKED_H

#include "app/unary.h"
#include "config/resource.h"

typedef struct outr__asked {
    /* in */
    outr_app *app;
    outr_loop *loop;
    const outr_log *log;
    /* out; on arena, until asked again or done */
    outr_subscription_spec *specs;
    size_t count;
    /* machinery */
    outr_arena *arena;
    outr_app_fetch fetch;
    outr_app_unary unary;
    outr_op inner;
    outr_op *op;
} outr__asked;

/* Fails when the app could not be asked, and is to be asked again; an app that has no answer, or a
 * bad one, has no subscriptions. */
void outr__asked_start(outr__asked *asked, outr_op *op);
void outr__asked_done(outr__asked *asked);

#endif
