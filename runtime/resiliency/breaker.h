/* breaker - lets calls through while they go well. Decisions only: times come in, nanoseconds.
 *
 * Closed: all pass; when one fails and `trip` holds of the counts it opens. Open: none passes for
 * `timeout`, then it is half open: maxRequests pass, one failure opens it again, as many successes
 * in a row close it. Counts begin anew with each state and, while it is closed, each `interval`.
 * What began before that is not counted after it. contract/yaml-resiliency.csv.
 *
 * Not locked: its owner does that. */
#ifndef OUTR_RESILIENCY_BREAKER_H
#define OUTR_RESILIENCY_BREAKER_H

#include "base/cel.h"

typedef enum outr_breaker_state {
    OUTR_BREAKER_CLOSED,
    OUTR_BREAKER_HALF_OPEN,
    OUTR_BREAKER_OPEN,
} outr_breaker_state;

typedef struct outr_breaker_counts {
    int64_t requests, total_successes, total_failures, consecutive_successes, consecutive_failures;
} outr_breaker_counts;

/* A condition over the counts, by the names they have in YAML. One that cannot be evaluated does
 * not hold: dividing by no requests, a name that is none. */
bool outr_breaker_trips(const outr_cel *trip, const outr_breaker_counts *counts);

typedef struct outr_breaker_rule {
    int64_t max_requests;
    uint64_t interval_ns, timeout_ns; /* interval 0: counts are kept */
    const outr_cel *trip;
} outr_breaker_rule;

typedef struct outr_breaker {
    outr_breaker_state state;
    uint64_t generation, expires_ns; /* expires 0: never */
    outr_breaker_counts counts;
} outr_breaker;

typedef enum outr_admission {
    OUTR_ADMITTED,
    OUTR_REFUSED_OPEN,
    OUTR_REFUSED_TRIAL, /* half open, and others are on trial already */
} outr_admission;

void outr_breaker_init(outr_breaker *breaker, const outr_breaker_rule *rule, uint64_t now);
/* Who is admitted reports with *generation. */
outr_admission outr_breaker_admit(outr_breaker *breaker, const outr_breaker_rule *rule,
                                  uint64_t now, uint64_t *generation);
void outr_breaker_report(outr_breaker *breaker, const outr_breaker_rule *rule, uint64_t now,
                         uint64_t generation, bool is_good);
/* The one admitted with generation was given up by its own caller: that says nothing. */
void outr_breaker_forget(outr_breaker *breaker, uint64_t generation);
outr_breaker_state outr_breaker_now(outr_breaker *breaker, const outr_breaker_rule *rule,
                                    uint64_t now);
const char *outr_breaker_state_name(outr_breaker_state state); /* as in metrics */

#endif
