/* lease - a rate that several sidecars have together. Each takes a share of it for a short time:
 * it tells a store how much its callers ask for, hears what the others say, and goes by its part
 * for the next slice, on its own, without asking for each call. Of too much everybody gets in
 * proportion to what is asked of him; what nobody asks for is divided evenly, for what may come.
 *
 * Calls renew the leases: the first one after a slice is over starts it, in the background, for
 * all keys that were asked for. While the store is away the shares stay as they are, and who comes
 * back finds himself counted again with the next answer. Shared by loops. */
#ifndef OUTR_MESH_LEASE_H
#define OUTR_MESH_LEASE_H

#include "components/state.h"
#include "mesh/rate.h"

#define OUTR_LEASE_SLICE_NS (100 * OUTR_MS)
#define OUTR_LEASE_KEYS_MAX                                                                        \
    128 /* renewed at once; others keep their shares until it is their turn */

typedef struct outr_leases outr_leases; /* refcounted, atomically */

typedef struct outr_leases_options {
    uint64_t requests, interval_ns, burst; /* of all together */
    size_t keys;                           /* told apart; beyond, the least lately asked for goes */
    outr_str name, store; /* what the store's keys begin with; the component. Copied */
    outr_str member;      /* this sidecar. Copied */
} outr_leases_options;
outr_leases *outr_leases_new(const outr_leases_options *options);
outr_leases *outr_leases_ref(outr_leases *leases);
void outr_leases_unref(outr_leases *leases); /* NULL is fine */

/* What a loop renews with; zero-initialised but for the first three, the owner's. */
typedef struct outr_lease_site {
    outr_loop *loop;
    outr_state_share_fn *ask; /* NULL: there are no stores */
    void *ctx;
    outr_list renewals; /* under way */
} outr_lease_site;
void outr_lease_site_init(outr_lease_site *site, outr_loop *loop, outr_state_share_fn *ask,
                          void *ctx);
void outr_lease_site_done(outr_lease_site *site); /* what is under way ends by itself, soon */

outr_rate_verdict outr_leases_take(outr_leases *leases, outr_lease_site *site, outr_str key,
                                   uint64_t now);

/* The part of a rate for one who asks for mine, beside sharers who ask for others together. */
double outr_lease_part(double rate, double mine, double others, uint64_t sharers);

#endif
