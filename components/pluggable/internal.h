/* internal - what client.c, call.c and stream.c of one pluggable component share. */
#ifndef OUTR_COMPONENTS_PLUGGABLE_INTERNAL_H
#define OUTR_COMPONENTS_PLUGGABLE_INTERNAL_H

#include "components/pluggable/client.h"
#include "components/pluggable/discover.h"
#include "grpc/reflection_client.h"
#include "loop/step.h"

/* One connection and what is on its way over it. It outlives being the component's present one. */
typedef struct outr__plug_session {
    outr__plug *plug;
    outr_http_pool *pool; /* of one connection in its life */
    size_t calls;
    outr_deferred reaper;
    bool is_leaving;
} outr__plug_session;

struct outr__plug {
    const outr__plug_kind *kind;
    outr_loop *loop;
    const outr_log *log;
    outr_str name, folder, socket; /* socket: what its file is called */
    outr_kv *properties;
    size_t property_count;
    unsigned services, features; /* atomic */
    outr_steps steps;
    outr__plug_session *session; /* the one being opened, or in use; NULL: lost or none yet */
    size_t session_count, call_count;
    bool is_ready, is_pausing, was_ready, is_stopped;
    outr_op *opening, *closing;
    outr_op op; /* of the present step */
    outr_arena *arena;
    outr_reflection reflection;
    outr_grpc_unary unary;
    outr_http_call http;
    outr__plug_sockets found;
    size_t at, service; /* socket being tried, service being initialised */
    uint64_t pause_ns, ready_since_ns;
    outr_timer pinger;
    outr__plug_call ping;
    outr_op ping_op;
    uint64_t used_ns; /* when the last call went out */
    outr_err err;              /* the last failure */
    char told[OUTR_ERR_TEXT_MAX]; /* of it, to the log */
    outr_list waiting;         /* calls, while there is a connection but not ready yet */
    size_t waiting_count;
    outr_list watchers;
};

/* Metadata of every call. */
void outr__plug_metadata(const outr__plug *p, outr_headers *out, outr_arena *arena);
void outr__plug_hold(outr__plug_session *s);    /* a call begins on it */
void outr__plug_release(outr__plug_session *s); /* and ends */
/* UNAVAILABLE: why calls cannot go out. */
void outr__plug_fail_absent(const outr__plug *p, outr_err *err);
/* call.c: those that waited. err NULL: go out now. */
void outr__plug_calls_go(outr__plug *p, const outr_err *err);
/* When all is over, frees p. */
void outr__plug_check_closed(outr__plug *p);

#endif
