/* breakers - the breakers of one target: one for each endpoint, the least lately used goes when
 * there are too many.
 *
 * Shared by all loops, behind a lock: a breaker that each loop had for itself would let through as
 * many failures as there are loops before the last one opened. It is held for a few counts.
 * Refcounted: a reload whose rule is the same goes on with the breakers of the one before. */
#ifndef OUTR_RESILIENCY_BREAKERS_H
#define OUTR_RESILIENCY_BREAKERS_H

#include "config/resource.h"
#include "resiliency/breaker.h"

typedef struct outr_breakers outr_breakers;
typedef struct outr_breaker_ticket { /* one call's hold on its breaker */
    struct outr__box *box;           /* NULL: none */
    uint64_t generation;
    bool is_admitted;
} outr_breaker_ticket;

/* policy->trip compiles. max: breakers kept, at least 1. */
outr_breakers *outr_breakers_new(const outr_breaker_policy *policy, size_t max);
outr_breakers *outr_breakers_ref(outr_breakers *breakers);
void outr_breakers_unref(outr_breakers *breakers); /* NULL is fine */
/* Made of an equal policy and of the same size. */
bool outr_breakers_are_of(const outr_breakers *breakers, const outr_breaker_policy *policy,
                          size_t max);

/* The breaker of key, made when new; held until given back. Returns its state. */
outr_breaker_state outr_breakers_take(outr_breakers *breakers, outr_str key, uint64_t now,
                                      outr_breaker_ticket *ticket);
void outr_breakers_give(outr_breaker_ticket *ticket);
/* *state: the breaker's before it. */
outr_admission outr_breakers_admit(outr_breaker_ticket *ticket, uint64_t now,
                                   outr_breaker_state *state);
/* Nothing when the ticket was not admitted, or has reported. Returns the state it led to. */
outr_breaker_state outr_breakers_report(outr_breaker_ticket *ticket, uint64_t now, bool is_good);
void outr_breakers_forget(outr_breaker_ticket *ticket); /* see breaker.h */

/* For a gauge of 0 and 1 that several loops' shards add up to. True: what was told last is another
 * than state, which counts as told now; *before is that, -1: nothing. */
bool outr_breakers_tell(const outr_breaker_ticket *ticket, outr_breaker_state state, int *before);

#endif
