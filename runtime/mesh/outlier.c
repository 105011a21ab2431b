#include "mesh/outlier.h"

#define BASE_NS    (5 * OUTR_SEC)
#define MAX_NS     (300 * OUTR_SEC)
#define CALLS_MIN  10
#define PER_TEN    4                /* failures of ten calls */
#define LASTING_NS (60 * OUTR_SEC) /* a revival after which its past is forgotten */

static uint64_t pause_after(unsigned ejections, outr_rand *rand)
{
    uint64_t full = ejections > 6 ? MAX_NS : OUTR_MIN(BASE_NS << (ejections - 1), MAX_NS);
    return full * 3 / 4 + outr_rand_below(rand, full / 2);
}

static outr_outlier_change eject(outr_outlier *o, uint64_t now, outr_rand *rand)
{
    bool has_lasted = o->ejections > 0 && now - o->revived_ns > LASTING_NS && !o->is_ejected;
    outr_outlier_change change = o->is_ejected ? OUTR_OUTLIER_SAME : OUTR_OUTLIER_EJECTED;
    if (has_lasted)
        o->ejections = 0;
    o->ejections = (uint8_t)OUTR_MIN(o->ejections + 1, 10);
    o->is_ejected = true;
    o->is_probing = false;
    o->until_ns = now + pause_after(o->ejections, rand);
    o->failures = 0;
    o->calls = o->in_a_row = 0;
    return change;
}

static outr_outlier_change end_probe(outr_outlier *o, uint64_t now, bool is_failure,
                                     outr_rand *rand)
{
    o->is_probing = false;
    if (is_failure)
        return eject(o, now, rand);
    o->is_ejected = false;
    o->revived_ns = now;
    o->failures = 0;
    o->calls = o->in_a_row = 0;
    return OUTR_OUTLIER_REVIVED;
}

static bool is_bad(const outr_outlier *o)
{
    unsigned failed = (unsigned)__builtin_popcount(o->failures);
    return o->in_a_row >= OUTR_OUTLIER_IN_A_ROW ||
           (o->calls >= CALLS_MIN && failed * 10 >= (unsigned)o->calls * PER_TEN);
}

outr_outlier_change outr_outlier_observe(outr_outlier *o, uint64_t now, bool is_failure,
                                         bool was_probe, bool may_eject, outr_rand *rand)
{
    if (was_probe)
        return end_probe(o, now, is_failure, rand);
    if (o->is_ejected) /* began before it was */
        return OUTR_OUTLIER_SAME;
    o->failures = ((o->failures << 1) | is_failure) & ((1u << OUTR_OUTLIER_WINDOW) - 1);
    o->calls = (uint8_t)OUTR_MIN(o->calls + 1, OUTR_OUTLIER_WINDOW);
    o->in_a_row = is_failure ? (uint8_t)OUTR_MIN(o->in_a_row + 1, UINT8_MAX) : 0;
    return is_failure && may_eject && is_bad(o) ? eject(o, now, rand) : OUTR_OUTLIER_SAME;
}

void outr_outlier_forget_probe(outr_outlier *o)
{
    o->is_probing = false;
}

bool outr_outlier_may_probe(outr_outlier *o, uint64_t now, bool is_repeatable)
{
    if (!o->is_ejected || o->is_probing || now < o->until_ns)
        return false;
    if (!is_repeatable && now < o->until_ns + OUTR_OUTLIER_GRACE_NS)
        return false;
    o->is_probing = true;
    return true;
}
