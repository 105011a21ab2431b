/* callees - the apps that this process calls, with what is known of each one's instances: one for
 * all loops, so that scores, ejections, probes and the retry budget hold for the sidecar and not
 * for a loop of it.
 *
 * Connections are not in here; they are each loop's own (peers.c). A callee has a lock because its
 * loops have to agree on who probes, who is ejected and what is left of the budget; it is held for
 * some 100 ns, twice a call: to pick, and when the answer begins. That a call is over is told
 * without it. */
#ifndef OUTR_MESH_CALLEES_H
#define OUTR_MESH_CALLEES_H

#include <pthread.h>

#include "mesh/cluster.h"
#include "mesh/endpoints.h"
#include "mesh/limits.h"
#include "mesh/route.h"

#define OUTR__INSTANCES_MAX 1024 /* of one callee: what a registry says beyond is passed over */

/* What does not change while somebody holds it may be read without the lock. */
typedef struct outr__instance {
    outr_endpoint endpoint; /* lock; but for its refs and serial */
    outr_addr addr;
    size_t slot;         /* small, its own while it is of its callee: for arrays of the loops */
    bool is_said;        /* while an answer of the registry is looked at */
    uint64_t told_as[8]; /* hashes of its registrations, and of those before at its address */
    size_t told_count;
    char text[]; /* addr's */
} outr__instance;

typedef struct outr__callee {
    outr_callees *home;
    uint32_t refs;        /* home's lock */
    outr_limits limits;   /* without a lock */
    pthread_mutex_t lock; /* of all that follows */
    outr_cluster cluster;
    outr_map *by_addr; /* text -> instance */
    outr__instance **slots;
    size_t slot_count;
    uint64_t fetched_ns;
    struct outr__check_rules {
        bool is_on;
        outr_str path;
        uint64_t interval_ns, timeout_ns;
    } checks;
    bool is_checked;    /* some loop looks after its ejected instances */
    bool is_refreshing; /* some loop asks */
    bool is_stale;      /* something has changed since */
    char name[];        /* "id.namespace"; does not change */
} outr__callee;
typedef struct outr__check_rules outr__check_rules;

/* NULL: nobody knows it, and it was not to be made. */
outr__callee *outr__callee_ref(outr_callees *callees, outr_str name, bool makes);
void outr__callee_unref(outr__callee *callee);
/* own: the caller's labels, for its zone. */
void outr__callee_use(outr__callee *callee, const outr_target_rules *rules, outr_kvs own,
                      uint64_t now);
/* What the registry says; of an answer of none nothing is believed while instances are known: an
 * empty registry does not empty the mesh, what is gone shows when it is called. */
void outr__callee_learn(outr__callee *callee, const outr_resolve *answer, uint64_t now);
/* True: the caller has to ask the registry, then end_refresh; else some loop does. has_changed: it
 * has to ask once more, then, for its question is older. */
bool outr__callee_begin_refresh(outr__callee *callee, bool has_changed);
bool outr__callee_end_refresh(outr__callee *callee, uint64_t now); /* true: once more */

typedef struct outr__choice {
    outr_cluster_pick pick;
    uint64_t now, cache_ns; /* how long what is known may be used without asking */
    bool is_counted;        /* in and out: the call has been counted for the budget */
    bool is_to_refresh;     /* out: the caller has to ask the registry, then end_refresh */
    bool is_empty;          /* out, with NULL: not even without labels there is one */
} outr__choice;
/* Held until outr__instance_release. */
outr__instance *outr__callee_choose(outr__callee *callee, outr__choice *how, outr_rand *rand);
void outr__instance_release(outr__instance *instance);

/* outr_endpoint_observe and its like. */
outr_outlier_change outr__callee_observe(outr__callee *callee, outr__instance *instance,
                                         uint64_t now, uint64_t took_ns, outr_class how,
                                         uint64_t retry_after_ns, bool was_probe, outr_rand *rand);
outr_outlier_change outr__callee_judge(outr__callee *callee, outr__instance *instance, uint64_t now,
                                       outr_class how, bool was_probe, outr_rand *rand);
void outr__callee_took(outr__callee *callee, outr__instance *instance, uint64_t now,
                       uint64_t took_ns, bool is_probe);
/* It was given up then. */
void outr__callee_took_longer(outr__callee *callee, outr__instance *instance, uint64_t now,
                              uint64_t took_ns);
void outr__callee_forget_probe(outr__callee *callee, outr__instance *instance);
void outr__callee_set_down(outr__callee *callee, outr__instance *instance, uint64_t until_ns);
bool outr__callee_has_other(outr__callee *callee, const outr_kvs *labels,
                            const outr__instance *instance);
/* outr_budget_take and outr_budget_spend. */
bool outr__callee_take_retry(outr__callee *callee, uint64_t now);
void outr__callee_spend_retry(outr__callee *callee, uint64_t now);

/* checks.h. True: its ejected instances are the caller's to look after, the first time in
 * *interval_ns, until begin_checks says that it is off, or end_checks. */
bool outr__callee_claim_checks(outr__callee *callee, uint64_t *interval_ns);
/* Those to be asked now, held, max at most, beginning behind *from ejected ones; rules->path is the
 * caller's to free. */
size_t outr__callee_begin_checks(outr__callee *callee, uint64_t now, outr__check_rules *rules,
                                 size_t *from, outr__instance **due, size_t max);
void outr__callee_end_checks(outr__callee *callee);
void outr__callee_open_probe(outr__callee *callee, outr__instance *instance, uint64_t now);

/* For people to look at, on the arena. */
void outr__callee_view(outr__callee *callee, uint64_t now, outr_arena *arena,
                       outr_callee_view *out);
/* All of them; the number of *out. */
size_t outr__callees_view(outr_callees *callees, uint64_t now, outr_arena *arena,
                          outr_callee_view **out);

#endif
