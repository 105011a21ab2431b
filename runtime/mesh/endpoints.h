/* endpoints - what a sidecar knows of the instances it calls, for people to look at: which get
 * calls, which do not and why, and when they are tried again. A copy of one moment.
 *
 * Only names that have been called are known. */
#ifndef OUTR_MESH_ENDPOINTS_H
#define OUTR_MESH_ENDPOINTS_H

#include "mesh/mesh.h"

typedef enum outr_endpoint_state {
    OUTR_ENDPOINT_OK,
    OUTR_ENDPOINT_RAMPING, /* new or revived: it gets `share` of its share */
    OUTR_ENDPOINT_EJECTED,
    OUTR_ENDPOINT_PROBING, /* ejected, and a call is trying it */
    OUTR_ENDPOINT_DOWN,    /* could not be connected to lately: the last choice */
} outr_endpoint_state;
const char *outr_endpoint_state_name(outr_endpoint_state state); /* "ok", "ramping", ... */

typedef struct outr_endpoint_view {
    outr_str address; /* "10.0.0.7:50002" */
    outr_kvs labels;
    outr_endpoint_state state;
    const char *reason; /* of being ejected or down, in a word ("" when it is neither) */
    double score_ms;    /* what an answer of it costs by what is known now; 0: nothing is known */
    double share;       /* 0..1 */
    uint64_t pending;   /* calls of this sidecar that it has in hand */
    uint64_t ejections; /* in a row, without a revival that lasted */
    uint64_t outcomes[3];   /* calls that ended well, for load, badly: outr_class */
    uint64_t next_probe_ms; /* EJECTED: until a call may probe it; DOWN: until it is tried again */
} outr_endpoint_view;

typedef struct outr_callee_view {
    outr_str name; /* "kitchen.default" */
    outr_endpoint_view *items;
    size_t count, ejected;
    uint64_t age_ms;         /* since the registry was asked */
    uint64_t calls, retries; /* of the last ten seconds, as the retry budget counts them */
} outr_callee_view;

/* Of one callee (namespace_ empty: our own) or, when app_id is empty, of all that are known. All of
 * it is on the arena; as many as it may hold. The number of *out. */
size_t outr_mesh_list_endpoints(outr_mesh *mesh, outr_str app_id, outr_str namespace_,
                                outr_arena *arena, outr_callee_view **out);

/* outr_metric_write_fn, ctx: outr_callees. Instances come and go, so that each scrape tells of
 * those that there are; beyond OUTR_ENDPOINTS_TOLD of them only the sums of their callee. */
#define OUTR_ENDPOINTS_TOLD 1000
void outr_mesh_write_endpoints(void *callees, outr_str app_id, uint64_t now_ns, outr_buf *out);

#endif
