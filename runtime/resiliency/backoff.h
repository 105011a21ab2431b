/* backoff - how long to wait before a call is tried once more. Decisions only: times come in, times
 * go out, nanoseconds.
 *
 * Source: contract/yaml-resiliency.csv. A constant pause, or one that begins at 500 ms, grows by a
 * half up to maxInterval and is taken from within half of it to either side, for 15 minutes in all.
 */
#ifndef OUTR_RESILIENCY_BACKOFF_H
#define OUTR_RESILIENCY_BACKOFF_H

#include "config/resource.h"

typedef struct outr_backoff {
    uint64_t began_ns, interval_ns;
    int64_t retries; /* granted so far */
} outr_backoff;

void outr_backoff_init(outr_backoff *backoff, const outr_retry_policy *policy, uint64_t now);
/* False: no more tries. unit: random, [0, 1). */
bool outr_backoff_next(outr_backoff *backoff, const outr_retry_policy *policy, uint64_t now,
                       double unit, uint64_t *pause_ns);

/* Of our own retries: full jitter, between nothing and 25 ms, 75 ms, 175 ms, then 250 ms. retries:
 * made before; unit: random, [0, 1). */
uint64_t outr_backoff_jitter(unsigned retries, double unit);

#endif
