#include "resiliency/backoff.h"

#define FIRST_NS   (500 * OUTR_MS)
#define MULTIPLIER 1.5
#define JITTER     0.5
#define ELAPSED_NS (15 * 60 * OUTR_SEC)
/* of pauses between retries that nobody has given a time for, as Envoy has them */
#define JITTER_STEP_NS (25 * OUTR_MS)
#define JITTER_MAX_NS  (250 * OUTR_MS)

void outr_backoff_init(outr_backoff *b, const outr_retry_policy *policy, uint64_t now)
{
    *b = (outr_backoff){.began_ns = now,
                        .interval_ns = policy->is_exponential ? FIRST_NS : policy->duration_ns};
}

static uint64_t grown(uint64_t interval, uint64_t max)
{
    double next = (double)interval * MULTIPLIER;
    return next >= (double)max ? max : (uint64_t)next;
}

bool outr_backoff_next(outr_backoff *b, const outr_retry_policy *policy, uint64_t now, double unit,
                       uint64_t *pause_ns)
{
    uint64_t pause = b->interval_ns;
    if (policy->max_retries >= 0 && b->retries >= policy->max_retries)
        return false;
    if (policy->is_exponential) {
        pause = (uint64_t)((double)b->interval_ns * (1 - JITTER + 2 * JITTER * unit));
        if (now - b->began_ns + pause > ELAPSED_NS)
            return false;
        b->interval_ns = grown(b->interval_ns, policy->max_interval_ns);
    }
    b->retries++;
    *pause_ns = pause;
    return true;
}

uint64_t outr_backoff_jitter(unsigned retries, double unit)
{
    uint64_t steps = (UINT64_C(2) << OUTR_MIN(retries, 16u)) - 1;
    return (uint64_t)((double)OUTR_MIN(steps * JITTER_STEP_NS, JITTER_MAX_NS) * unit);
}
