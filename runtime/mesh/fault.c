#include "mesh/fault.h"

static bool is_drawn(double percent, outr_rand *rand)
{
    return percent > 0 && (percent >= 100 || outr_rand_unit(rand) * 100 < percent);
}

outr_fault outr_fault_draw(const outr_fault_spec *spec, int64_t now_unix_ns, outr_rand *rand)
{
    outr_fault fault = {0};
    if (!spec->is_on || now_unix_ns < 0 || (uint64_t)now_unix_ns >= spec->until_unix_ns)
        return fault;
    if (is_drawn(spec->delay_percent, rand))
        fault.delay_ns = spec->delay_ns;
    fault.aborts = is_drawn(spec->abort_percent, rand);
    return fault;
}
