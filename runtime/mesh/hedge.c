#include "mesh/hedge.h"

#define FIRST_BIT  13 /* 8 us */
#define CREDIT_MAX 10.0
#define FOUND_EACH 16 /* answers, until the percentile is looked for again */
#define COUNT_MAX  (UINT32_C(1) << 30)

/* Eight buckets an octave: the highest bit of it and the three below. */
static size_t bucket_of(uint64_t ns)
{
    if (ns < (UINT64_C(1) << FIRST_BIT))
        return 0;
    unsigned bit = 63u - (unsigned)__builtin_clzll(ns);
    size_t at = (size_t)(bit - FIRST_BIT) * 8 + (size_t)(ns >> (bit - 3) & 7);
    return OUTR_MIN(at, (size_t)(OUTR_HEDGE_BUCKETS - 1));
}

static uint64_t end_of(size_t bucket)
{
    uint64_t octave = UINT64_C(1) << (FIRST_BIT + bucket / 8);
    return octave + octave / 8 * (bucket % 8 + 1);
}

static void turn(outr_hedge *h, uint64_t now)
{
    memcpy(h->before, h->counts, sizeof h->before);
    memset(h->counts, 0, sizeof h->counts);
    h->count_before = h->count;
    h->count = 0;
    h->since_ns = now;
    h->late_ns = 0;
}

void outr_hedge_took(outr_hedge *h, uint64_t took_ns, uint64_t now)
{
    /* what few have said is kept until there is as much to say */
    if ((now - h->since_ns >= OUTR_HEDGE_PERIOD_NS && h->count >= OUTR_HEDGE_SAMPLES_MIN) ||
        h->count >= COUNT_MAX)
        turn(h, now);
    h->counts[bucket_of(took_ns)]++;
    if (h->count++ % FOUND_EACH == 0)
        h->late_ns = 0;
}

static uint64_t find(const outr_hedge *h, double percentile)
{
    double all = (double)h->count + (double)h->count_before, below = 0;
    for (size_t i = 0; i < OUTR_HEDGE_BUCKETS; i++) {
        below += (double)h->counts[i] + (double)h->before[i];
        if (below >= all * percentile / 100)
            return end_of(i);
    }
    return end_of(OUTR_HEDGE_BUCKETS - 1);
}

uint64_t outr_hedge_begin(outr_hedge *h, const outr_hedge_spec *spec, uint64_t now)
{
    if (h->since_ns == 0)
        h->since_ns = now;
    h->credit = OUTR_MIN(h->credit + spec->max_percent / 100, CREDIT_MAX);
    if (spec->after_ns)
        return spec->after_ns;
    if (h->count + h->count_before < OUTR_HEDGE_SAMPLES_MIN)
        return 0;
    if (!h->late_ns || h->percentile < spec->percentile || h->percentile > spec->percentile) {
        h->percentile = spec->percentile;
        h->late_ns = OUTR_MAX(find(h, spec->percentile), OUTR_HEDGE_AFTER_MIN);
    }
    return h->late_ns;
}

bool outr_hedge_take(outr_hedge *h)
{
    if (h->credit < 1)
        return false;
    h->credit--;
    return true;
}

/* ---- by name --------------------------------------------------------------------------------- */

static void clear(outr_hedges *hedges)
{
    void *item;
    for (size_t at = 0; hedges->map && outr_map_next(hedges->map, &at, NULL, &item);)
        free(item);
    outr_map_free(hedges->map);
    hedges->map = NULL;
}

outr_hedge *outr_hedges_find(outr_hedges *hedges, outr_str app_id, outr_str namespace_)
{
    char text[512];
    int n =
        snprintf(text, sizeof text, OUTR_FMT "." OUTR_FMT, OUTR_ARG(app_id), OUTR_ARG(namespace_));
    outr_str key = outr_str_of(text, OUTR_MIN((size_t)n, sizeof text - 1));
    outr_hedge *h = hedges->map ? outr_map_get(hedges->map, key) : NULL;
    if (h)
        return h;
    if (hedges->map && outr_map_count(hedges->map) >= OUTR_HEDGE_NAMES_MAX)
        clear(hedges);
    if (!hedges->map)
        hedges->map = outr_map_new();
    h = outr_alloc(sizeof *h);
    outr_map_put(hedges->map, key, h);
    return h;
}

void outr_hedges_done(outr_hedges *hedges)
{
    clear(hedges);
}
