/* daprd_served - CallLocal and CallLocalStream of a daprd on the internal port, as the HTTP calls
 * that they stand for.
 *
 * outr__daprd_serve reads the head of the call; on_ready then has the request and a body that
 * streams, and goes the way of every peer's request (serve.c). The app's answer goes back through
 * outr__daprd_answered, an error of ours through outr__daprd_refuse: contract/invocation.md
 * section 5. */
#ifndef OUTR_MESH_DAPRD_SERVED_H
#define OUTR_MESH_DAPRD_SERVED_H

#include "mesh/daprd_body.h"
#include "mesh/internal.h"

typedef struct outr__daprd_served outr__daprd_served;
struct outr__daprd_served {
    outr_mesh *mesh;
    outr_exchange *x;
    /* When the head of the call is here. Called at most once; x->on_gone is the callee's then. */
    void (*on_ready)(outr__daprd_served *d);
    /* out, on_ready */
    outr_http_request req; /* as HTTP; its headers are all that the peer sent */
    outr_source *body;     /* NULL: none */
    uint64_t deadline_ns;  /* 0: none */
    outr_trace trace;      /* the caller's */
    void *user;
    /* out, when the app's call is over */
    bool has_answered; /* something went out, or was refused */
    outr_err failure;  /* instead of what the app's call says; code 0: none */
    /* machinery */
    bool is_unary, wants_events, is_ready;
    outr__daprd_reader reader;
    outr_timer patience;
    outr_memory_source memory;
    outr__daprd_writer writer;
    outr_gather gather;
    outr_sink collector;
    outr_bufq collected;
    outr__daprd_answer answer;
    outr_headers headers, said_trailers, trailers;
};

void outr__daprd_serve(outr_mesh *mesh, outr_exchange *x, void (*on_ready)(outr__daprd_served *d));
/* From the app's on_response. */
void outr__daprd_answered(outr__daprd_served *d, outr_http_call *http);
/* Before an answer; releases the exchange. */
void outr__daprd_refuse(outr__daprd_served *d, outr_code code, outr_why why, const char *text);
/* Releases the exchange after an answer. */
void outr__daprd_done(outr__daprd_served *d);

#endif
