#include "mesh/rate.h"

#include <pthread.h>

#define WAYS 8 /* places of a key */

typedef struct bucket {
    uint64_t key;     /* hash */
    uint64_t full_at; /* in 1/OUTR_RATE_PARTS ns; 0: nobody's */
} bucket;

struct outr_rate {
    outr_rate_options o;
    uint64_t gap;
    size_t sets;
    /* A caller's requests come on all loops, and two must not take the same token. Held for the
     * look at eight places, some 20 ns. */
    pthread_mutex_t lock;
    bucket buckets[];
};

uint64_t outr_rate_gap(uint64_t requests, uint64_t interval_ns)
{
    uint64_t n = OUTR_MAX(OUTR_MIN(requests, (uint64_t)OUTR_RATE_REQUESTS_MAX), (uint64_t)1);
    uint64_t parts = OUTR_MIN(interval_ns, OUTR_RATE_INTERVAL_MAX) * OUTR_RATE_PARTS;
    return OUTR_MAX((parts + n / 2) / n, (uint64_t)1);
}

outr_rate_verdict outr_rate_judge(uint64_t *full_at, uint64_t gap, uint64_t burst, uint64_t now)
{
    uint64_t at = now * OUTR_RATE_PARTS, depth = gap * burst;
    uint64_t from = OUTR_MAX(*full_at, at), then = from + gap;
    outr_rate_verdict v = {.is_allowed = then - at <= depth};
    if (v.is_allowed)
        *full_at = then;
    else
        v.after_ns = (then - at - depth + OUTR_RATE_PARTS - 1) / OUTR_RATE_PARTS;
    return v;
}

outr_rate *outr_rate_new(const outr_rate_options *options)
{
    /* twice the places, so that eight of them are seldom all taken before all keys are there */
    size_t sets = options->keys > 1 ? (options->keys * 2 + WAYS - 1) / WAYS : 1;
    outr_rate *rate = outr_alloc(sizeof *rate + sets * WAYS * sizeof rate->buckets[0]);
    rate->o = *options;
    rate->o.burst =
        OUTR_MAX(OUTR_MIN(options->burst, (uint64_t)OUTR_RATE_REQUESTS_MAX), (uint64_t)1);
    rate->gap = outr_rate_gap(options->requests, options->interval_ns);
    /* what a burst may be so that times stay numbers */
    rate->o.burst = OUTR_MIN(rate->o.burst, UINT64_MAX / 16 / rate->gap);
    rate->sets = sets;
    pthread_mutex_init(&rate->lock, NULL);
    return rate;
}

void outr_rate_free(outr_rate *rate)
{
    if (!rate)
        return;
    pthread_mutex_destroy(&rate->lock);
    free(rate);
}

static bucket *find(outr_rate *rate, uint64_t hash)
{
    bucket *set = &rate->buckets[hash % rate->sets * WAYS], *best = set;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].full_at && set[i].key == hash)
            return &set[i];
        if (set[i].full_at < best->full_at)
            best = &set[i];
    }
    *best = (bucket){.key = hash};
    return best;
}

outr_rate_verdict outr_rate_take(outr_rate *rate, outr_str key, uint64_t now)
{
    uint64_t hash = rate->o.keys > 1 ? outr_str_hash(key, rate->o.seed) : 0;
    pthread_mutex_lock(&rate->lock);
    bucket *b = find(rate, hash);
    const outr_rate_verdict v = outr_rate_judge(&b->full_at, rate->gap, rate->o.burst, now);
    pthread_mutex_unlock(&rate->lock);
    return v;
}
