/* feed - what a component sends to an app by itself - messages of a broker, events of a binding -
 * over a stream that carries the answers back.
 *
 * The stream lives on the main loop with the component's connection; items go to the feed's loop
 * and their answers come back by mailbox. An item is read only while fewer than the credit are
 * out, and while the component takes the answers: the rest waits in the component, behind
 * HTTP/2's window. A stream that ends is made anew, at once with a new connection and after a
 * pause with the old one; what was not answered on it is the component's to send again, and
 * answering it later says nothing. */
#ifndef OUTR_COMPONENTS_PLUGGABLE_FEED_H
#define OUTR_COMPONENTS_PLUGGABLE_FEED_H

#include "components/pluggable/client.h"

typedef struct outr__plug_feed outr__plug_feed;

typedef struct outr__plug_item { /* first member of a kind's own; on its arena, goes with it */
    outr_arena *arena;
    outr__plug_feed *feed;
    outr_link link;
    outr_message message;
    uint64_t epoch;
    bool is_released;
} outr__plug_item;

typedef struct outr__plug_feed_kind {
    const char *path;
    const ProtobufCMessageDescriptor *type; /* of what comes */
    /* Main loop. hello: what is said first; may be NULL. take: an item from a message, both on
     * arena. answer: tells it, with the result of the send. */
    void (*hello)(outr__plug_feed *feed, outr_grpc_stream *stream);
    outr__plug_item *(*take)(outr__plug_feed *feed, outr_arena *arena, const void *message);
    bool (*answer)(outr__plug_feed *feed, outr_grpc_stream *stream, outr__plug_item *item);
    /* The feed's loop: settled exactly once, at once or later. */
    void (*deliver)(outr__plug_feed *feed, outr__plug_item *item);
} outr__plug_feed_kind;

struct outr__plug_feed {
    /* in */
    const outr__plug_feed_kind *kind;
    outr__plug *plug;
    outr_loop *loop;
    size_t credit;
    outr_str name; /* for the log */
    /* machinery */
    outr_message message_start, message_stop, message_stopped;
    /* main loop */
    outr__plug_watcher watcher;
    outr__plug_stream stream;
    bool is_streaming, is_held, is_ending; /* held: an item was the last to be read for now */
    bool is_restarting;                    /* the stream is to end, so that released items return */
    bool is_clogged;                       /* answers wait to be sent */
    bool is_stopped;                       /* paused */
    uint64_t epoch;                        /* which stream this is */
    size_t out;                            /* items on the other loop */
    outr_timer again;
    uint64_t pause_ns;
    /* the feed's loop */
    outr_list waiting; /* came while paused */
    outr_deferred pump;
    bool is_paused, is_closing;
    void (*stopped)(outr__plug_feed *feed);
};

/* Any loop. The stream is made as soon as the component is ready. */
void outr__plug_feed_start(outr__plug_feed *feed);
/* The feed's loop. pause: nothing new is delivered; what is out stays. */
void outr__plug_feed_pause(outr__plug_feed *feed, bool is_paused);
/* is_released: it was not looked at. That is neither an acceptance nor a refusal - a refusal may
 * bury a message -, so as with daprd the component gets it back by the end of the stream. */
void outr__plug_feed_settle(outr__plug_item *item, bool is_released);
/* stopped is called on the feed's loop when all items have been settled and the stream is gone. */
void outr__plug_feed_stop(outr__plug_feed *feed, void (*stopped)(outr__plug_feed *feed));

#endif
