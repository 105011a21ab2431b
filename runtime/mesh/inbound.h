/* inbound - what this sidecar's own app takes, as the TrafficPolicies of a snapshot say it: how
 * often who may call what, and how many calls at once.
 *
 * Made once for a snapshot, used by all loops. What has been counted goes on over a reload where
 * the limit is the same; the found limit of concurrent calls does whatever else changes. */
#ifndef OUTR_MESH_INBOUND_H
#define OUTR_MESH_INBOUND_H

#include "mesh/lease.h"
#include "mesh/rate.h"
#include "mesh/route.h"
#include "mesh/throttle.h"
#include "security/identity.h"

typedef struct outr_inbound outr_inbound;

typedef struct outr_inbound_owner {
    outr_loop *loop;
    outr_str app_id, namespace_; /* whose rates they are, in stores */
    outr_str member;             /* this sidecar among those of its app */
} outr_inbound_owner;
/* The snapshot's own, made when it is first asked for, by whichever loop. before: what held until
 * now; may be NULL. NULL: the policies say nothing of it. */
const outr_inbound *outr_inbound_of(const outr_snapshot *snapshot, const outr_inbound *before,
                                    const outr_inbound_owner *owner);

typedef struct outr_inbound_call {
    outr_route_request request;  /* source: who calls, by its own word */
    const outr_identity *caller; /* by its certificate; NULL: it showed none */
} outr_inbound_call;

typedef struct outr_rated {
    const outr_rate_spec *by; /* which limit refuses */
    outr_rate_verdict verdict;
} outr_rated;
/* Takes one from each limit that is for the call, until one has none left. False: it is refused. */
bool outr_inbound_rates(const outr_inbound *inbound, const outr_inbound_call *call,
                        outr_lease_site *site, uint64_t now, outr_arena *scratch, outr_rated *out);
bool outr_inbound_has_rates(const outr_inbound *inbound);

outr_throttle *outr_inbound_throttle(const outr_inbound *inbound); /* borrowed; NULL: no limit */
bool outr_inbound_is_urgent(const outr_inbound *inbound, outr_str target);

#endif
