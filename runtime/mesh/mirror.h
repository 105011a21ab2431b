/* mirror - a copy of a call for another subset or app, whose answer nobody waits for: a route's
 * `mirror`.
 *
 *   outr__mirror_new       when the route is known: is this one of the share that is copied?
 *   outr__mirror_send      when the call's request is ready and its body is all there
 *   outr__mirror_tap       the call's answer passes, to be compared
 *   outr__mirror_end       the call is over, in every case, once
 *
 * It has an arena of its own and may outlive its call: it ends by itself, after OUTR__MIRROR_NS at
 * the latest. It is sent once, and what becomes of it says nothing of an instance. Each one is
 * counted once, in outrigger_mirror_total. */
#ifndef OUTR_MESH_MIRROR_H
#define OUTR_MESH_MIRROR_H

#include "config/traffic.h"
#include "mesh/internal.h"

/* said to the mirrored one, and by its sidecar to its app: 1 */
#define OUTR__MIRROR_HEADER   "outrigger-mirror"
#define OUTR__MIRROR_BODY_MAX (256 * OUTR_KIB) /* a longer one is not copied */
#define OUTR__MIRROR_NS       (30 * OUTR_SEC)

typedef struct outr__mirror outr__mirror;

/* A body on its way, and what it was: a source in front of a source. */
typedef struct outr__tap {
    outr_source source;
    outr_sink sink;
    uint64_t digest;
    int grpc_status; /* of its trailers; -1: there was none */
    bool has_ended;
} outr__tap;

/* NULL: this call is not copied. The spec's memory is the snapshot's. */
outr__mirror *outr__mirror_new(outr_mesh *mesh, const outr_snapshot *snapshot,
                               const outr_mirror_spec *spec, const outr__target *target);
/* req: the call's, to its peer; copied. body: NULL: none. */
void outr__mirror_send(outr__mirror *mirror, const outr_http_request *req, const outr_str *body,
                       bool is_proxied);
/* In on_response: whoever takes the answer gets the tap instead, which lies on arena. */
void outr__mirror_tap(outr__mirror *mirror, outr_http_call *http, outr_arena *arena);
/* has_answer: it got one, which has been tapped. The mirror is gone for the call. */
void outr__mirror_end(outr__mirror *mirror, bool has_answer);

/* The mesh ends: those that are under way are nobody's now. Before its peers go. */
void outr__mirrors_abandon(outr_mesh *mesh);

#endif
