/* budget - how many calls to one target may be made again. Decisions only: times come in.
 *
 * Of the calls of the last ten seconds a fifth may be repeated, and one a second besides, so that
 * quiet targets have retries, too (Finagle's RetryBudget, with a smaller floor). When everything
 * fails the load on a target is at most 1.2 times what is offered. */
#ifndef OUTR_MESH_BUDGET_H
#define OUTR_MESH_BUDGET_H

#include "base/base.h"

#define OUTR_BUDGET_SLOTS 10 /* of a second */

typedef struct outr_budget_rules {
    double percent; /* of the calls */
    unsigned per_second;
} outr_budget_rules;

typedef struct outr_budget {
    uint32_t calls[OUTR_BUDGET_SLOTS], retries[OUTR_BUDGET_SLOTS];
    uint64_t slot; /* number of the newest second; older slots are behind it in the ring */
} outr_budget;

void outr_budget_call(outr_budget *budget, uint64_t now); /* a call, its first try */
/* True, and it is counted: there may be one more try. */
bool outr_budget_take(outr_budget *budget, const outr_budget_rules *rules, uint64_t now);
/* A try that is made whatever the budget says (a policy wants it): others have less. */
void outr_budget_spend(outr_budget *budget, uint64_t now);
/* How many there were of both in the last ten seconds. */
void outr_budget_count(const outr_budget *budget, uint64_t now, uint64_t *calls, uint64_t *retries);

#endif
