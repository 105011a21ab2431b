/* cluster - the instances of one target as a caller sees them: which one gets the next call, who is
 * ejected and who probes, how many calls may be made again. Decisions only: times come in,
 * nanoseconds; no I/O, no lock: whoever shares one between loops guards it (callees.h).
 *
 * Picking takes the same time however many there are: two are drawn, the better one is taken
 * (balance.h). Only when draw after draw hits what cannot be used others are looked at, one after
 * the other. Calls may ask for instances with certain labels: those are a view, an array that is
 * made when it is first asked for and again when the instances have changed.
 *
 * Endpoints are the owner's; each is of one cluster. */
#ifndef OUTR_MESH_CLUSTER_H
#define OUTR_MESH_CLUSTER_H

#include "base/list.h"
#include "base/map.h"
#include "mesh/balance.h"
#include "mesh/budget.h"
#include "mesh/classify.h"
#include "mesh/outlier.h"

#define OUTR_CLUSTER_EJECTED_MAX 50 /* percent of the instances at once, by default */
#define OUTR_CLUSTER_VIEWS_MAX   64 /* with the one of all; the least lately used goes */

typedef struct outr_cluster outr_cluster;

typedef struct outr_endpoint {
    outr_balance balance;
    outr_outlier outlier;
    outr_kvs labels; /* the owner's, who calls outr_cluster_set when they change; sorted by name */
    uint64_t serial; /* in its cluster; never again another's */
    uint32_t refs;   /* atomic: one of its cluster, one of each call in hand */
    uint64_t down_until_ns; /* is_down: not before, when there are others */
    uint64_t outcomes[3];   /* how its calls went, by outr_class */
    bool is_down;           /* could not be connected to lately, and has not answered since */
    /* machinery */
    outr_cluster *home; /* NULL: of none (any more) */
    outr_link ejected;  /* in home's, the one whose probe is due first in front */
    uint64_t views;     /* a bit for each it is in */
    bool is_near;       /* in the caller's own zone */
    bool is_marked, counts_ejected, counts_unfit;
} outr_endpoint;

void outr_endpoint_init(outr_endpoint *endpoint); /* one ref: that of its cluster */
void outr_endpoint_hold(outr_endpoint *endpoint);
/* True: that was the last one, the owner frees it. From any loop, without a lock. */
bool outr_endpoint_release(outr_endpoint *endpoint) OUTR_MUST_USE;
/* Calls it has in hand, while it is in its cluster. */
size_t outr_endpoint_pending(const outr_endpoint *endpoint);

typedef struct outr_cluster_rules {
    outr_outlier_rules ejection;
    unsigned ejected_max_percent; /* of the instances, at once */
    uint64_t slow_start_ns;
    outr_budget_rules budget;
    /* Instances whose label zone_label is zone go first, while at least near_min_percent of them
     * are fit. Empty: they are all the same. */
    outr_str zone_label, zone;
    double near_min_percent;
} outr_cluster_rules;
extern const outr_cluster_rules outr_cluster_defaults;

/* Some of the instances; those of the own zone are in front. */
typedef struct outr_cluster_view {
    uint64_t hash;
    outr_kvs labels; /* heap, one block; none: all instances */
    outr_endpoint **items;
    size_t count, near_count;
    size_t ejected, unfit, near_unfit; /* unfit: ejected or down */
    uint64_t due_ns;                   /* no probe is due before */
    uint64_t used;
    bool is_stale; /* to be filled anew */
} outr_cluster_view;

struct outr_cluster {
    outr_endpoint **items;
    size_t count;
    outr_list ejected;
    size_t ejected_count;
    outr_budget budget;
    outr_cluster_rules rules; /* its texts are owned */
    outr_cluster_view *views; /* the first is that of all */
    size_t view_count;
    uint64_t *pairs; /* hashes of all labels that there are, sorted */
    size_t pair_count;
    uint64_t serial, ticks;
};

void outr_cluster_init(outr_cluster *cluster);
void outr_cluster_done(outr_cluster *cluster); /* endpoints stay their owner's */
/* From now on; what is known stays. Who is ejected comes back when nobody may be any more. */
void outr_cluster_use(outr_cluster *cluster, const outr_cluster_rules *rules, uint64_t now);
/* The instances are these now. Those that stay keep what is known of them; new ones ramp up. */
void outr_cluster_set(outr_cluster *cluster, outr_endpoint *const *items, size_t count,
                      uint64_t now);

typedef struct outr_cluster_pick {
    const outr_kvs *labels; /* it carries all of them; NULL: any instance */
    const uint64_t *tried;  /* serials: not these while there are others */
    size_t tried_count;
    bool is_repeatable; /* the call may be made again elsewhere: the first choice for a probe */
    bool is_probe;      /* out: it tries an ejected one; its end must be observed or forgotten */
    bool is_repeat;     /* out: all were tried */
    unsigned revived;   /* out: instances that are back, as their late probes go on well */
} outr_cluster_pick;

/* NULL: there are none (with these labels). It is held for the call. */
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
/* Only how long its answer took to begin. */
void outr_endpoint_took(outr_endpoint *endpoint, uint64_t now, uint64_t took_ns, bool is_probe);
/* The call that was to probe it said nothing. */
void outr_endpoint_forget_probe(outr_endpoint *endpoint);
/* It looks well: any call may be the probe now. */
void outr_endpoint_open_probe(outr_endpoint *endpoint, uint64_t now);
/* It cannot be reached. It can when it is observed to be good. */
void outr_endpoint_set_down(outr_endpoint *endpoint, uint64_t until_ns);
/* Another one than endpoint, with these labels, could take a call now. */
bool outr_cluster_has_other(outr_cluster *cluster, const outr_kvs *labels,
                            const outr_endpoint *endpoint);

#endif
