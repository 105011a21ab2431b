/* pubsub - what the two halves of pluggable brokers share. */
#ifndef OUTR_COMPONENTS_PLUGGABLE_PUBSUB_H
#define OUTR_COMPONENTS_PLUGGABLE_PUBSUB_H

#include "components/pluggable/client.h"
#include "components/pubsub.h"

typedef struct outr__plug_broker {
    outr_broker base;
    outr__plug *plug;
} outr__plug_broker;

/* subscribe.c */
outr_code outr__plug_subscribe(outr_broker *broker, const outr_subscribe *req,
                               outr_broker_sub **out, outr_err *err);
void outr__plug_settle(outr_broker_sub *sub, outr_message_in *msg, outr_settlement how);
void outr__plug_pause(outr_broker_sub *sub, bool is_paused);
void outr__plug_unsubscribe(outr_broker_sub *sub, outr_op *op);

extern const outr_pubsub_backend outr_pubsub_pluggable;

#endif
