/* guard - one call under its policy: retry(breaker(timeout(try))). Decisions and counts, no I/O.
 *
 *   outr_guard_init                    finds the policy
 *   outr_guard_begin                   before each try: may it be made?
 *   outr_guard_deadline                until when this try may take
 *   outr_guard_end                     how it went
 *   outr_guard_again                   when it failed: is there another, and when?
 *   outr_guard_done                    in every case, once
 *
 * Belongs to one loop, is part of its call. Times are the loop's, nanoseconds. An empty one
 * (zeroed, or with no policy) lets everything pass and never repeats. Source:
 * contract/yaml-resiliency.csv, metrics.csv (dapr_resiliency_*). */
#ifndef OUTR_RESILIENCY_GUARD_H
#define OUTR_RESILIENCY_GUARD_H

#include "base/metric.h"
#include "base/rand.h"
#include "resiliency/backoff.h"
#include "resiliency/policies.h"

#define OUTR_GUARD_OPEN    "circuit breaker is open"
#define OUTR_GUARD_TRIAL   "too many requests"
#define OUTR_GUARD_TIMEOUT "context deadline exceeded"

typedef struct outr_guard {
    const outr_policy *policy; /* NULL: none */
    outr_snapshot *snapshot;   /* held: the policy's */
    outr_breaker_ticket ticket;
    outr_breaker_state state; /* before the try */
    outr_backoff backoff;
    outr_policy_kind kind;
    outr_policy_direction direction;
    outr_str target; /* borrowed, for metrics */
    outr_metric_shard *metrics;
    bool has_told_timeout, has_told_retry;
} outr_guard;

/* name: app id, actor type or component as the policy is found by it; stays until done. key: whose
 * breaker it is, for apps "<id>:<method>". metrics: the loop's shard, may be NULL. */
void outr_guard_init(outr_guard *guard, const outr_policies *policies, outr_policy_kind kind,
                     outr_policy_direction direction, outr_str name, outr_str key, uint64_t now,
                     outr_metric_shard *metrics);
void outr_guard_done(outr_guard *guard);

/* Something applies. */
static inline bool outr_guard_is_on(const outr_guard *guard)
{
    return guard->policy != NULL;
}
/* It may be tried again: what it needs for that is to be kept. */
bool outr_guard_repeats(const outr_guard *guard);

/* UNAVAILABLE: the breaker refuses, and there is no use in trying again now. */
outr_code outr_guard_begin(outr_guard *guard, uint64_t now, outr_err *err);
uint64_t outr_guard_deadline(const outr_guard *guard, uint64_t now); /* 0: none */

typedef enum outr_outcome {
    OUTR_OUTCOME_GOOD,
    OUTR_OUTCOME_BAD,
    OUTR_OUTCOME_TIMEOUT, /* the deadline of the policy has passed */
    OUTR_OUTCOME_NONE,    /* given up by whoever asked: says nothing */
} outr_outcome;
void outr_guard_end(outr_guard *guard, uint64_t now, outr_outcome outcome);

/* status: HTTP (100..599) or gRPC code of the answer, which the policy may pick from; -1: there was
 * none. False: no more tries. */
bool outr_guard_again(outr_guard *guard, uint64_t now, int status, outr_rand *rand,
                      uint64_t *at_ns);

/* dapr_resiliency_loaded: each resource of the snapshot, once. */
void outr_guard_count_loaded(outr_metric_shard *metrics, const outr_snapshot *snapshot);

#endif
