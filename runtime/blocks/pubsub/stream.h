/* stream - subscriptions that clients hold open (SubscribeTopicEventsAlpha1): events go to the
 * client, its answers come back in any order.
 *
 * A stream lives on its client's loop, from outr_event_stream_open to on_end. It needs no app. It
 * holds at most OUTR_SUBSCRIPTION_CREDIT messages (or metadata `maxConcurrency`), sent or waiting
 * because the client reads slowly; the broker keeps all others. When it is closed, unanswered ones
 * are released at once, to anyone. Over a reload it goes on with the pubsub as it is then. */
#ifndef OUTR_BLOCKS_PUBSUB_STREAM_H
#define OUTR_BLOCKS_PUBSUB_STREAM_H

#include <dapr/proto/runtime/v1/appcallback.pb-c.h>

#include "blocks/pubsub/subscription.h"

typedef struct outr_event_stream outr_event_stream;
struct outr_event_stream {
    /* in; texts are copied */
    outr_str pubsub, topic, dead_letter_topic;
    outr_kvs metadata;
    outr_loop *loop;
    /* False: taken, but no more until outr_event_stream_go_on. event: borrowed for the call. */
    bool (*on_event)(outr_event_stream *stream,
                     const Dapr__Proto__Runtime__V1__TopicEventRequest *event);
    /* Last call, from an event of its own. err NULL: closed by the client, or the sidecar stops. */
    void (*on_end)(outr_event_stream *stream, const outr_err *err);
    void *user;
    /* machinery */
    outr_pubsub *engine;
    outr_arena *arena;
    outr_subscription sub;
    outr_link link;             /* of its loop's streams */
    outr_list waiting, in_hand; /* deliveries: not sent yet; sent, in order */
    outr_err err;               /* why it ends */
    bool is_full, is_closed, is_moving, is_pushing;
};

/* Fails with INVALID_ARGUMENT (reason PUBSUB_NOT_FOUND) for an unknown pubsub, PERMISSION_DENIED by
 * scopes, UNAVAILABLE while the sidecar stops, or as the broker says; then on_end is not called and
 * nothing stays. */
outr_code outr_event_stream_open(outr_pubsub *pubsub, outr_event_stream *stream, outr_err *err);
/* status: of TopicEventResponse. An id that is in nobody's hands is ignored (false). */
bool outr_event_stream_answer(outr_event_stream *stream, outr_str id, int status);
void outr_event_stream_go_on(outr_event_stream *stream);
/* err: on_end gets it; may be NULL. Again: nothing. */
void outr_event_stream_close(outr_event_stream *stream, const outr_err *err);

/* The engine's: what its loop has of it. */
void outr__streams_update(outr_list *streams); /* components have changed */
void outr__streams_stop(outr_list *streams);   /* answers in hand are waited for a while */

#endif
