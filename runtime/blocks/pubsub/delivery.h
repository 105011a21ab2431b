/* delivery - one message, or one batch of one route, on its way from a subscription to whoever
 * takes it, and how it goes there.
 *
 * subscription.c makes a delivery, routes it and hands it to the subscription's deliverer; the
 * deliverer says the outcome of each message and then that all are decided; subscription.c does
 * what follows from it (settling, dead letters, metrics) and frees the delivery. Lives on the
 * subscription's loop. */
#ifndef OUTR_BLOCKS_PUBSUB_DELIVERY_H
#define OUTR_BLOCKS_PUBSUB_DELIVERY_H

#include "app/unary.h"
#include "base/json.h"
#include "blocks/pubsub/subscription.h"
#include "resiliency/guarded.h"

typedef enum outr__outcome {
    OUTR__DONE,
    OUTR__RETRY, /* to the dead letter topic when there is one */
    OUTR__DROP,  /* the same, but not to come again without one */
    OUTR__IGNORE /* gone, also when there is a dead letter topic */
} outr__outcome;

typedef struct outr__handed {
    outr_message_in *msg;
    outr_str id; /* of an entry of a batch */
    /* The envelope as a tree, made for a raw message; NULL: a raw one of a batch, when nobody
     * asks. */
    const outr_json *event;
    outr_trace trace; /* its span, "pubsub/<topic>"; invalid with tracing off */
    outr__outcome outcome;
    bool is_asked_drop; /* of the outcome: see outr__delivery_decide */
} outr__handed;

typedef struct outr__delivery {
    outr_subscription *s;
    outr_arena *arena;
    outr_link link; /* in s->deliveries */
    outr__handed *items;
    size_t count;
    outr_str path;
    bool is_batch;
    bool is_decided;
    uint64_t began_ns;
    /* the deliverer's */
    union {
        struct {
            outr_app_fetch fetch;
        } http;
        struct {
            outr_app_unary unary;
            bool has_old_name, is_second_name; /* of the bulk method */
        } grpc;
        struct {
            outr_link link; /* waiting to be sent, or in the client's hands */
            outr_str id;
        } stream;
    };
    outr_op op;
    /* subscription.c's */
    outr_guard guard; /* the inbound policy of the component */
    outr_timer timer; /* the policy's timeout of this try, or the pause before the next */
    bool is_resting;
    bool has_timed_out;
    size_t total; /* items; those from count on are decided, and not part of this try */
    size_t at;    /* item whose dead letter is being published */
    outr_publish dead;
    outr_publish_item dead_item;
    outr_guarded burial;
} outr__delivery;

struct outr__deliverer {
    /* Both end in outr__delivery_decide for each item and outr__delivery_decided, at once or
     * later. */
    void (*hand_over)(outr__delivery *d);
    void (*hand_over_batch)(outr__delivery *d); /* NULL: bulk is not known */
    /* The subscription waits no longer: leads to the same, soon. */
    void (*give_up)(outr__delivery *d);
};

extern const outr__deliverer outr__deliver_http, outr__deliver_grpc, outr__deliver_stream;

/* is_asked_drop: the taker, or a route that is not there, wanted it so; for metrics. */
void outr__delivery_decide(outr__delivery *d, size_t i, outr__outcome how, bool is_asked_drop);
void outr__delivery_decided(outr__delivery *d); /* d is gone, or there is another try */
/* All the same, decided. */
void outr__delivery_decide_all(outr__delivery *d, outr__outcome how, bool is_asked_drop);

/* attempt.c: the first try; and the end of waiting for any. */
void outr__delivery_begin(outr__delivery *d);
void outr__delivery_give_up(outr__delivery *d);
/* subscription.c: the outcomes of a try, for metrics. */
void outr__delivery_count(const outr__delivery *d);
/* subscription.c: what follows from the outcomes. d is gone. */
void outr__delivery_conclude(outr__delivery *d);

/* What its taker is told of the trace, or NONE: the event's own, with tracing on the delivery's. */
outr_str outr__delivery_traceparent(const outr__delivery *d, const outr__handed *item);

#endif
