/* cluster - the instances of one target as a caller sees them: which one gets the next call, who is
 * ejected and who probes, how many calls may be made again. Decisions only: times come in,
 * nanoseconds; no I/O.
 *
 * Lives on one loop. Picking takes the same time however many there are: two are drawn, the better
 * one is taken (balance.h). Only when draw after draw hits what cannot be used are all looked at.
 * Endpoints are the owner's; each is of one cluster at a time. */
#ifndef OUTR_MESH_CLUSTER_H
#define OUTR_MESH_CLUSTER_H

#include "base/list.h"
#include "mesh/balance.h"
#include "mesh/budget.h"
#include "mesh/classify.h"
#include "mesh/outlier.h"

#define OUTR_CLUSTER_EJECTED_MAX 50 /* percent of the instances, at once */

typedef struct outr_cluster outr_cluster;

typedef struct outr_endpoint {
    outr_balance balance;
    outr_outlier outlier;
    size_t pending;         /* calls it has in hand */
    uint64_t down_until_ns; /* could not be connected to lately */
    outr_cluster *home;     /* NULL: of none */
    outr_link ejected;      /* in home's, the one whose probe is due first in front */
    size_t mark;            /* the owner of the cluster's, while its instances change */
} outr_endpoint;

struct outr_cluster {
    outr_endpoint **items;
    size_t count;
    outr_list ejected;
    size_t ejected_count;
    outr_budget budget;
};

void outr_cluster_init(outr_cluster *cluster);
void outr_cluster_done(outr_cluster *cluster); /* endpoints stay their owner's */
/* The instances are these now. Those that stay keep what is known of them; new ones ramp up. */
void outr_cluster_set(outr_cluster *cluster, outr_endpoint *const *items, size_t count,
                      uint64_t now);

typedef struct outr_cluster_pick {
    outr_endpoint *const *tried; /* not these while there are others; NULL ones are passed over */
    size_t tried_count;
    bool is_repeatable; /* the call may be made again elsewhere: the first choice for a probe */
    bool is_probe;      /* out: it tries an ejected one; its end must be observed or forgotten */
    bool is_repeat;     /* out: all were tried */
} outr_cluster_pick;

/* NULL: there are none. The caller counts pending. */
outr_endpoint *outr_cluster_choose(outr_cluster *cluster, outr_cluster_pick *pick, uint64_t now,
                                   outr_rand *rand);
/* How a call went: when its answer began, or its try failed. retry_after_ns: what it asked for, 0:
 * nothing. */
outr_outlier_change outr_endpoint_observe(outr_endpoint *endpoint, uint64_t now, uint64_t took_ns,
                                          outr_class how, uint64_t retry_after_ns, bool was_probe,
                                          outr_rand *rand);
/* Only whether it went well: how long it took was observed before. */
outr_outlier_change outr_endpoint_judge(outr_endpoint *endpoint, uint64_t now, outr_class how,
                                        bool was_probe, outr_rand *rand);
/* Another one than endpoint could take a call now. */
bool outr_cluster_has_other(const outr_cluster *cluster, const outr_endpoint *endpoint);

#endif
