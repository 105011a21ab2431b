#include "mesh/outlier.h"

#define LASTING_NS (60 * OUTR_SEC) /* a revival after which its past is forgotten */

const char *outr_outlier_reason_name(outr_outlier_reason reason)
{
    static const char *const names[] = {"", "failures_in_a_row", "failure_rate", "probe_failed"};
    return names[reason];
}

static uint64_t pause_after(const outr_outlier_rules *rules, unsigned ejections, outr_rand *rand)
{
    uint64_t full = OUTR_MIN(rules->base_ns, rules->max_ns);
    for (unsigned i = 1; i < ejections && full < rules->max_ns; i++)
        full = OUTR_MIN(full * 2, rules->max_ns);
    return full * 3 / 4 + outr_rand_below(rand, full / 2 + 1);
}

/* now may be a little less than what another loop has taken it for. */
static outr_outlier_change eject(outr_outlier *o, const outr_outlier_rules *rules, uint64_t now,
                                 outr_outlier_reason why, outr_rand *rand)
{
    bool has_lasted = o->ejections > 0 && now > o->revived_ns + LASTING_NS && !o->is_ejected;
    outr_outlier_change change = o->is_ejected ? OUTR_OUTLIER_SAME : OUTR_OUTLIER_EJECTED;
    if (has_lasted)
        o->ejections = 0;
    o->ejections = (uint8_t)OUTR_MIN(o->ejections + 1, 32);
    o->is_ejected = true;
    o->is_probing = false;
    o->reason = (uint8_t)why;
    o->until_ns = now + pause_after(rules, o->ejections, rand);
    o->failures = 0;
    o->calls = 0;
    o->in_a_row = 0;
    return change;
}

static outr_outlier_change end_probe(outr_outlier *o, const outr_outlier_rules *rules, uint64_t now,
                                     bool is_failure, outr_rand *rand)
{
    o->is_probing = false;
    if (is_failure)
        return eject(o, rules, now, OUTR_OUTLIER_PROBE_FAILED, rand);
    o->is_ejected = false;
    o->reason = OUTR_OUTLIER_NO_REASON;
    o->revived_ns = now;
    o->failures = 0;
    o->calls = 0;
    o->in_a_row = 0;
    return OUTR_OUTLIER_REVIVED;
}

static outr_outlier_reason judge(const outr_outlier *o, const outr_outlier_rules *rules)
{
    unsigned failed = (unsigned)__builtin_popcountll(o->failures);
    if (rules->is_disabled)
        return OUTR_OUTLIER_NO_REASON;
    if (rules->in_a_row && o->in_a_row >= rules->in_a_row)
        return OUTR_OUTLIER_FAILURES_IN_A_ROW;
    bool is_often = rules->failure_percent && o->calls * 2u >= rules->window &&
                    failed * 100 >= o->calls * rules->failure_percent;
    return is_often ? OUTR_OUTLIER_FAILURE_RATE : OUTR_OUTLIER_NO_REASON;
}

outr_outlier_change outr_outlier_observe(outr_outlier *o, const outr_outlier_rules *rules,
                                         uint64_t now, bool is_failure, bool was_probe,
                                         bool may_eject, outr_rand *rand)
{
    if (was_probe)
        return end_probe(o, rules, now, is_failure, rand);
    if (o->is_ejected) /* began before it was */
        return OUTR_OUTLIER_SAME;
    uint64_t window = UINT64_MAX >> (OUTR_OUTLIER_WINDOW_MAX - rules->window);
    o->failures = ((o->failures << 1) | is_failure) & window;
    o->calls = (uint8_t)OUTR_MIN(o->calls + 1u, rules->window);
    o->in_a_row = is_failure ? OUTR_MIN(o->in_a_row + 1, UINT32_MAX / 2) : 0;
    outr_outlier_reason why = is_failure && may_eject ? judge(o, rules) : OUTR_OUTLIER_NO_REASON;
    return why ? eject(o, rules, now, why, rand) : OUTR_OUTLIER_SAME;
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
    o->has_begun = false;
    o->probe_ns = now;
    return true;
}

bool outr_outlier_is_probe_late(const outr_outlier *o, uint64_t now)
{
    return o->is_probing && now > o->probe_ns + OUTR_OUTLIER_PROBE_NS;
}

void outr_outlier_open_probe(outr_outlier *o, uint64_t now)
{
    uint64_t open = now > OUTR_OUTLIER_GRACE_NS ? now - OUTR_OUTLIER_GRACE_NS : 0;
    o->until_ns = OUTR_MIN(o->until_ns, open);
}
