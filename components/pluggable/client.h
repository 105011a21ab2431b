/* client - one pluggable component: a process behind a Unix socket that serves
 * dapr.proto.components.v1.
 *
 * One connection, on the main loop, whichever loop asks: a component has to be initialised before
 * anything else is said to it, and that it is still the same process only the connection tells
 * that Init went over. With a pool per loop a call could reach a process that has just been
 * started. Calls of other loops get there and back by mailbox, as the memory they are made of: two
 * wake-ups and no copy. The connection is made again for ever, with pauses that grow; each new one
 * is asked what it serves, and initialised, before calls go out on it. While there is none, calls
 * fail at once with UNAVAILABLE. A ping now and then keeps servers from closing it for being idle.
 * Errors that are not the component's own words name it. */
#ifndef OUTR_COMPONENTS_PLUGGABLE_CLIENT_H
#define OUTR_COMPONENTS_PLUGGABLE_CLIENT_H

#include "components/component.h"
#include "grpc/client.h"
#include "grpc/stream_client.h"

#define OUTR__PLUG_MESSAGE_MAX (16 * OUTR_MIB) /* of one answer or event */
#define OUTR__PLUG_PATH(service, method) "/dapr.proto.components.v1." service "/" method

typedef struct outr__plug outr__plug;

typedef struct outr__plug_name { /* what a component may call its own; ends with NULL */
    const char *name;
    unsigned bit;
} outr__plug_name;

typedef struct outr__plug_service {
    const char *name;     /* "dapr.proto.components.v1.StateStore" */
    const char *init;     /* path of Init; all have messages of the same wire */
    const char *features; /* path of Features; NULL: has none */
    const char *ping;     /* path of Ping */
    unsigned bit;         /* in outr__plug_services */
} outr__plug_service;

typedef struct outr__plug_kind {
    const char *category;               /* "state" */
    const outr__plug_service *services; /* one at least must be there; ends with NULL */
    const outr__plug_name *more;        /* services that need no Init; may be NULL */
    const outr__plug_name *features;    /* may be NULL */
} outr__plug_kind;

/* init's strings must live as long as the component. consumer_id: the property consumerID when none
 * is given; NONE: not of that kind. */
outr__plug *outr__plug_new(const outr_component_init *init, const outr__plug_kind *kind,
                           outr_str consumer_id);
/* Main loop. open: done when the component has been initialised; the deadline is the op's. close:
 * when no call is out any more; frees. Also after open has failed. */
void outr__plug_open(outr__plug *p, outr_op *op);
void outr__plug_close(outr__plug *p, outr_op *op);
/* Any loop, after open. */
unsigned outr__plug_services(const outr__plug *p);
unsigned outr__plug_features(const outr__plug *p);
outr_str outr__plug_id(const outr__plug *p); /* the component's name */
outr_loop *outr__plug_loop(const outr__plug *p);
const outr_log *outr__plug_log(const outr__plug *p);

/* ---- unary calls, from any loop -------------------------------------------------------------- */

typedef struct outr__plug_call {
    /* in */
    const char *path;
    const void *message;                    /* stays until done */
    const ProtobufCMessageDescriptor *type; /* of the answer */
    /* out */
    void *answer;            /* until outr__plug_call_done or _keep's arena goes */
    outr_grpc_status status; /* when is_said; lives as the answer */
    bool is_said;            /* the component answered with a status of its own */
    /* machinery */
    outr__plug *plug;
    struct outr__plug_session *session;
    outr_arena *scratch;
    outr_grpc_unary unary;
    outr_http_call http;
    outr_op inner;
    outr_op *op;
    outr_err err;
    outr_link waiting;
    outr_message message_there, message_back, message_cancel;
    bool is_local, is_starting, is_back, has_cancel_out;
} outr__plug_call;

/* op fails with UNAVAILABLE, DEADLINE_EXCEEDED or CANCELLED; for whatever else the component says,
 * or if its answer is none, INTERNAL. */
void outr__plug_call_start(outr__plug *p, outr__plug_call *call, outr_op *op);
void outr__plug_call_done(outr__plug_call *call);                   /* frees the answer */
void outr__plug_call_keep(outr__plug_call *call, outr_arena *arena); /* it lives as long as arena */

/* Many calls, some at a time: where a component has no bulk method. */
typedef struct outr__plug_each outr__plug_each;
typedef outr_code outr__plug_prepare_fn(outr__plug_each *each, size_t i, outr__plug_call *call,
                                        outr_err *err);
typedef void outr__plug_take_fn(outr__plug_each *each, size_t i, outr__plug_call *call,
                                const outr_err *err);
struct outr__plug_each {
    /* in */
    outr_arena *arena;
    size_t count;
    outr__plug_prepare_fn *prepare; /* fills call for item i; an error goes to take at once */
    outr__plug_take_fn *take;       /* err NULL: call has the answer */
    void *user;
    /* machinery */
    outr__plug *plug;
    outr_op *op;
    struct outr__plug_one *slots;
    size_t next, running;
    outr_deferred starter;
};
/* op is done when all have been taken; it does not fail by itself, unless it is cancelled. */
void outr__plug_each_start(outr__plug *p, outr__plug_each *each, outr_op *op);

/* ---- messages -------------------------------------------------------------------------------- */

/* Text for messages. What protobuf strings cannot carry - a NUL, bytes that are not UTF-8 - is
 * noticed, so that no key is ever cut to another one. */
typedef struct outr__plug_text {
    outr_arena *arena;
    bool is_bad;
} outr__plug_text;
char *outr__plug_z(outr__plug_text *text, outr_str s);
/* A map field's entries; descriptor is the entry type's. n_field is kvs.count. */
void *outr__plug_map(outr__plug_text *text, outr_kvs kvs, const ProtobufCMessageDescriptor *type);
/* From a map field; borrowed. */
outr_kvs outr__plug_kvs(outr_arena *arena, const void *entries, size_t count);
/* INVALID_ARGUMENT when text was bad. */
outr_code outr__plug_check(const outr__plug_text *text, outr_err *err);

/* ---- streams, on the main loop --------------------------------------------------------------- */

typedef struct outr__plug_watcher {
    outr_link link;
    void (*changed)(struct outr__plug_watcher *watcher, bool is_ready);
} outr__plug_watcher;
void outr__plug_watch(outr__plug *p, outr__plug_watcher *watcher);
void outr__plug_unwatch(outr__plug_watcher *watcher);
bool outr__plug_is_ready(const outr__plug *p);

typedef struct outr__plug_stream outr__plug_stream;
struct outr__plug_stream {
    /* in */
    outr_grpc_stream grpc; /* on_message, on_writable, user */
    void (*ended)(outr__plug_stream *stream, const outr_err *err); /* err NULL: the peer's end */
    /* machinery */
    outr__plug *plug;
    struct outr__plug_session *session;
    outr_http_call http;
    outr_op op;
};
/* Only while ready. */
void outr__plug_stream_start(outr__plug *p, outr__plug_stream *stream, const char *path);
void outr__plug_stream_cancel(outr__plug_stream *stream); /* ended follows */

#endif
