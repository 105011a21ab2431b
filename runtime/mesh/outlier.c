#include "mesh/outlier.h"

#define BASE_NS    (5 * OUTR_SEC)
#define MAX_NS     (300 * OUTR_SEC)
#define CALLS_MIN  10
#define PER_TEN    4               /* failures of ten calls */
#define LASTING_NS (60 * OUTR_SEC) /* a revival after which its past is forgotten */

static uint64_t pause_after(unsigned ejections, outr_rand *rand)
{
    uint64_t full = ejections > 6 ? MAX_NS : OUTR_MIN(BASE_NS << (ejections - 1), MAX_NS);
    return full * 3 / 4 + outr_rand_below(rand, full / 2);
}

const char *outr_outlier_reason_name(outr_outlier_reason reason)
{
    static const char *const names[] = {"", "failures_in_a_row", "failure_rate", "probe_failed"};
    return names[reason];
}

static outr_outlier_change eject(outr_outlier *o, uint64_t now, outr_outlier_reason why,
                                 outr_rand *rand)
{
    bool has_lasted = o->ejections > 0 && now - o->revived_ns > LASTING_NS && !o->is_ejected;
    outr_outlier_change change = o->is_ejected ? OUTR_OUTLIER_SAME : OUTR_OUTLIER_EJECTED;
    if (has_lasted)
        o->ejections = 0;
    o->ejections = (uint8_t)OUTR_MIN(o->ejections + 1, 10);
    o->is_ejected = true;
    o->is_probing = false;
    o->reason = (uint8_t)why;
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
        return eject(o, now, OUTR_OUTLIER_PROBE_FAILED, rand);
    o->is_ejected = false;
    o->reason = OUTR_OUTLIER_NO_REASON;
    o->revived_ns = now;
    o->failures = 0;
    o->calls = o->in_a_row = 0;
    return OUTR_OUTLIER_REVIVED;
}

static outr_outlier_reason judge(const outr_outlier *o)
{
    unsigned failed = (unsigned)__builtin_popcount(o->failures);
    if (o->in_a_row >= OUTR_OUTLIER_IN_A_ROW)
        return OUTR_OUTLIER_FAILURES_IN_A_ROW;
    bool is_often = o->calls >= CALLS_MIN && failed * 10 >= (unsigned)o->calls * PER_TEN;
    return is_often ? OUTR_OUTLIER_FAILURE_RATE : OUTR_OUTLIER_NO_REASON;
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
    outr_outlier_reason why = is_failure && may_eject ? judge(o) : OUTR_OUTLIER_NO_REASON;
    return why ? eject(o, now, why, rand) : OUTR_OUTLIER_SAME;
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
