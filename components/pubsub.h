/* pubsub - vtable of message brokers. Source: contract/pubsub.md.
 *
 * Delivery is at least once: the broker hands a message over and keeps it until settled. How many
 * may be unsettled is the engine's credit, granted per subscription. */
#ifndef OUTR_COMPONENTS_PUBSUB_H
#define OUTR_COMPONENTS_PUBSUB_H

#include "components/component.h"

typedef struct outr_broker outr_broker;
typedef struct outr_broker_sub outr_broker_sub;

enum {
    OUTR_PUBSUB_TTL = 1,          /* "MESSAGE_TTL": expires messages itself (ttlInSeconds) */
    OUTR_PUBSUB_WILDCARDS = 2,    /* "SUBSCRIBE_WILDCARDS" */
    OUTR_PUBSUB_BULK_PUBLISH = 4, /* "BULK_PUBSUB": native */
};

typedef struct outr_publish_item {
    outr_str data;
    outr_str content_type;
    outr_kvs metadata;
    outr_str entry_id; /* bulk */
    outr_err err;      /* out */
} outr_publish_item;

typedef struct outr_publish {
    outr_str topic;
    outr_publish_item *items; /* one, or many (then failures are per item) */
    size_t count;
    outr_kvs metadata; /* of the request */
} outr_publish;

/* A message on its way to the app. Memory is the broker's until it is settled. */
typedef struct outr_message_in {
    outr_str topic, data, content_type;
    outr_str id; /* no other unsettled message of the subscription has it: bulk answers name it */
    outr_kvs metadata;
    uint32_t attempt;  /* 1 for the first delivery, when the broker knows */
    void *broker_data; /* the broker's */
} outr_message_in;

typedef enum outr_settlement {
    OUTR_SETTLE_ACK,   /* done with it */
    OUTR_SETTLE_RETRY, /* deliver again (the broker's redelivery delay applies) */
    /* not looked at (shutdown, app unhealthy): at once to anyone, not counted as an attempt */
    OUTR_SETTLE_RELEASE,
} outr_settlement;

typedef struct outr_subscribe {
    outr_str topic;
    outr_kvs metadata; /* of the subscription */
    outr_loop *loop;   /* where on_message runs and settle is called */
    size_t credit;     /* messages that may be unsettled */
    size_t batch;      /* of them that the engine hands over together; 0, 1: one by one */
    /* How many times what had gathered was handed over: what is given before it changes may go
     * together with what was given before. On loop; NULL: nothing gathers. */
    const uint64_t *batches;
    void (*on_message)(void *ctx, outr_message_in *msg);
    void *ctx;
} outr_subscribe;

typedef struct outr_pubsub_backend {
    outr_backend base;
    outr_code (*create)(outr_broker **out, const outr_component_init *init, outr_err *err);
    void (*open)(outr_broker *broker, outr_op *op);
    void (*close)(outr_broker *broker, outr_op *op); /* after all subscriptions are closed */
    unsigned (*features)(const outr_broker *broker);
    void (*publish)(outr_broker *broker, outr_publish *req,
                    outr_op *op); /* done = durable as the broker promises */
    outr_code (*subscribe)(outr_broker *broker, const outr_subscribe *req, outr_broker_sub **out,
                           outr_err *err);
    void (*settle)(outr_broker_sub *sub, outr_message_in *msg,
                   outr_settlement how);                 /* exactly once per message */
    void (*pause)(outr_broker_sub *sub, bool is_paused); /* no new messages; unsettled ones stay */
    void (*unsubscribe)(outr_broker_sub *sub, outr_op *op); /* unsettled messages are released */
} outr_pubsub_backend;

struct outr_broker {
    const outr_pubsub_backend *backend;
};

#endif
