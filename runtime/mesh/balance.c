#include "mesh/balance.h"

/* Below it differences are noise of the machine. */
#define NOISE_NS (250 * (OUTR_MS / 1000))
#define RAMP_MIN 0.1
#define COST_MAX (60 * OUTR_SEC)

void outr_balance_init(outr_balance *b, uint64_t now, uint64_t ramp_ns)
{
    *b = (outr_balance){.stamp_ns = now, .ramp_from_ns = now, .ramp_ns = ramp_ns};
}

/* What is left of the cost at now. */
static uint64_t faded(const outr_balance *b, uint64_t now)
{
    uint64_t age = now > b->stamp_ns ? now - b->stamp_ns : 0;
    if (age >= OUTR_BALANCE_MEMORY_NS)
        return 0;
    double left = 1 - (double)age / (double)OUTR_BALANCE_MEMORY_NS;
    return (uint64_t)((double)b->cost_ns * left);
}

void outr_balance_observe(outr_balance *b, uint64_t now, uint64_t took_ns, bool is_failure)
{
    uint64_t sample = is_failure ? OUTR_MAX(took_ns, OUTR_BALANCE_PENALTY_NS) : took_ns;
    uint64_t before = faded(b, now);
    sample = OUTR_MAX(OUTR_MIN(sample, COST_MAX), (uint64_t)1);
    if (sample < before) {
        /* the part of its memory that has passed since is taken by the new answer */
        uint64_t age = now > b->stamp_ns ? now - b->stamp_ns : 0;
        double part = (double)age / (double)OUTR_BALANCE_MEMORY_NS;
        sample = before - (uint64_t)((double)(before - sample) * part);
    }
    b->cost_ns = sample;
    b->stamp_ns = OUTR_MAX(b->stamp_ns, now); /* loops differ by a turn */
}

void outr_balance_at_least(outr_balance *b, uint64_t now, uint64_t took_ns)
{
    if (took_ns > faded(b, now))
        outr_balance_observe(b, now, took_ns, false);
}

uint64_t outr_balance_load(const outr_balance *b, uint64_t now, size_t pending)
{
    uint64_t cost = faded(b, now);
    if (cost == 0 && pending > 0) /* on trial: as bad as it was, until it has answered */
        cost = OUTR_MAX(b->cost_ns, OUTR_MS);
    return (cost + NOISE_NS) * (pending + 1);
}

uint64_t outr_balance_cost(const outr_balance *b, uint64_t now)
{
    return faded(b, now);
}

double outr_balance_ramp(const outr_balance *b, uint64_t now)
{
    uint64_t age = now > b->ramp_from_ns ? now - b->ramp_from_ns : 0;
    if (age >= b->ramp_ns)
        return 1;
    double part = (double)age / (double)b->ramp_ns;
    return OUTR_MAX(part, RAMP_MIN);
}

bool outr_balance_prefers(const outr_balance *a, size_t a_pending, const outr_balance *b,
                          size_t b_pending, uint64_t now, outr_rand *rand)
{
    uint64_t a_load = outr_balance_load(a, now, a_pending),
             b_load = outr_balance_load(b, now, b_pending);
    bool is_a = a_load < b_load;
    bool is_close = a_load <= b_load + b_load / 2 && b_load <= a_load + a_load / 2;
    if (is_close && a_pending != b_pending)
        is_a = a_pending < b_pending;
    else if (is_close)
        is_a = outr_rand_next(rand) & 1;
    const outr_balance *chosen = is_a ? a : b, *other = is_a ? b : a;
    double mine = outr_balance_ramp(chosen, now), others = outr_balance_ramp(other, now);
    if (mine < others && outr_rand_unit(rand) >= mine / others)
        is_a = !is_a;
    return is_a;
}
