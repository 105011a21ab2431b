#include "observe/health.h"

static const char *const target_names[OUTR_HEALTH_COUNT] = {
    [OUTR_HEALTH_RUNTIME] = "runtime",
    [OUTR_HEALTH_GRPC_API] = "grpc-api-server",
    [OUTR_HEALTH_GRPC_INTERNAL] = "grpc-internal-server",
    [OUTR_HEALTH_METRICS] = "metrics-exporter",
    [OUTR_HEALTH_SECURITY] = "security-provider",
    [OUTR_HEALTH_OUTBOUND] = "app",
};

static uint32_t bit(outr_health_target target)
{
    return UINT32_C(1) << target;
}

static const uint32_t all_inbound = (UINT32_C(1) << OUTR_HEALTH_OUTBOUND) - 1;

void outr_health_set(outr_health *health, outr_health_target target, bool is_ready)
{
    if (is_ready)
        __atomic_fetch_or(&health->ready, bit(target), __ATOMIC_RELEASE);
    else
        __atomic_fetch_and(&health->ready, ~bit(target), __ATOMIC_RELEASE);
}

static uint32_t ready_bits(const outr_health *health)
{
    return __atomic_load_n(&health->ready, __ATOMIC_ACQUIRE);
}

bool outr_health_is_ready(const outr_health *health)
{
    return (ready_bits(health) & all_inbound) == all_inbound;
}

bool outr_health_is_outbound_ready(const outr_health *health)
{
    return (ready_bits(health) & bit(OUTR_HEALTH_OUTBOUND)) != 0;
}

void outr_health_missing(const outr_health *health, outr_buf *out)
{
    uint32_t ready = ready_bits(health);
    const char *gap = "";
    outr_buf_char(out, '[');
    for (int i = 0; i < OUTR_HEALTH_OUTBOUND; i++) {
        if (ready & bit((outr_health_target)i))
            continue;
        outr_buf_printf(out, "%s%s", gap, target_names[i]);
        gap = " ";
    }
    outr_buf_z(out, "]");
}
