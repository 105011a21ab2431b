/* balance - how busy and how slow an instance is, and which of two is the better one. Decisions
 * only: times come in, nanoseconds; the owner draws the candidates.
 *
 * Power of two choices (Mitzenmacher) over the peak EWMA of the time to the first byte of an answer
 * (Finagle): a slower answer counts at once, a faster one decays in. A failure counts as a slow
 * answer, so that failing fast draws no traffic. What is known fades in a straight line and is gone
 * after OUTR_BALANCE_MEMORY_NS without an answer: whoever was slow is tried again, by one call at a
 * time, and is back at once when that goes well. Reading changes nothing. */
#ifndef OUTR_MESH_BALANCE_H
#define OUTR_MESH_BALANCE_H

#include "base/rand.h"

#define OUTR_BALANCE_MEMORY_NS  (10 * OUTR_SEC)
#define OUTR_BALANCE_PENALTY_NS (5 * OUTR_SEC)  /* what a failure counts for, at least */
#define OUTR_BALANCE_RAMP_NS    (10 * OUTR_SEC) /* slow start, by default */

typedef struct outr_balance {
    uint64_t cost_ns; /* 0: unknown */
    uint64_t stamp_ns;
    uint64_t ramp_from_ns;
    uint64_t ramp_ns; /* from there until it has its full share; 0: at once */
} outr_balance;

void outr_balance_init(outr_balance *balance, uint64_t now, uint64_t ramp_ns);
/* An answer began after took_ns, or the try failed then. */
void outr_balance_observe(outr_balance *balance, uint64_t now, uint64_t took_ns, bool is_failure);
/* One was given up after took_ns: it would have taken longer. */
void outr_balance_at_least(outr_balance *balance, uint64_t now, uint64_t took_ns);
/* pending: calls it has in hand. Comparable between instances only. */
uint64_t outr_balance_load(const outr_balance *balance, uint64_t now, size_t pending);
/* What an answer of it takes by what is still known; 0: nothing is. */
uint64_t outr_balance_cost(const outr_balance *balance, uint64_t now);
/* 0..1: the part of its share that it gets. */
double outr_balance_ramp(const outr_balance *balance, uint64_t now);

/* True: a. Loads within half of each other say nothing: fewer calls in hand, or chance, decide. One
 * that ramps up yields to one that does not in the proportion that is missing. */
bool outr_balance_prefers(const outr_balance *a, size_t a_pending, const outr_balance *b,
                          size_t b_pending, uint64_t now, outr_rand *rand);

#endif
