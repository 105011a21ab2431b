/* peers - what one loop has of the apps it calls: connections to their instances, at hand by the
 * instance's slot. For peers.c, and for checks.c, which uses them. */
#ifndef OUTR_MESH_PEERS_H
#define OUTR_MESH_PEERS_H

#include "mesh/callees.h"
#include "mesh/internal.h"

struct outr__peer {
    char text[OUTR_ADDR_TEXT_MAX];
    outr_addr addr;
    outr_http_pool *pool;
    outr__peers *peers;
    /* With mutual TLS a peer is an address and who is expected there: another app that comes by the
     * same address is another one. */
    char *path; /* of its SPIFFE id; NULL: nobody is asked */
    char *key;  /* in by_addr */
    uint64_t used_ns, tell_refused_ns;
    size_t holds; /* calls that have it */
    bool is_over; /* being forgotten */
};

/* This loop's connections to an instance: at its slot. */
typedef struct outr__seat {
    uint64_t serial; /* of the instance they are to; 0: none */
    outr__peer *peer;
} outr__seat;

/* A name that was called by this loop. */
typedef struct outr__known {
    outr_link used; /* in peers', the least lately called in front */
    outr__callee *callee;
    bool has_rules;            /* of a TrafficPolicy */
    size_t picks;              /* that go by it, and check */
    struct outr__check *check; /* of its ejected instances, by this loop; NULL: none is due */
    outr__seat *seats;
    size_t seat_count;
    outr_str app_id, namespace_; /* of name */
    char name[];                 /* "id.namespace" */
} outr__known;

struct outr__peers {
    const outr_mesh_options *o;
    outr_callees *callees;
    const outr_snapshot *snapshot; /* the mesh's */
    outr_map *names;               /* name -> known */
    outr_list used;
    outr_map *by_addr; /* key -> peer */
    outr_timer sweeper;
    outr_watch *watch; /* NULL: the resolver does not hear of changes */
    bool is_freed;
    unsigned asks; /* questions under way that point here */
};

/* This loop's way to an instance. */
outr__peer *outr__peer_of(outr__peers *peers, outr__known *known, const outr__instance *instance);
void outr__peers_free_if_over(outr__peers *peers);

#endif
