#include "mesh/limits.h"

#define REQUEST UINT64_C(1)
#define PENDING (UINT64_C(1) << 32)

void outr_limits_init(outr_limits *l)
{
    *l = (outr_limits){.requests_max = OUTR_LIMIT_REQUESTS,
                       .pending_max = OUTR_LIMIT_PENDING,
                       .connections = outr_http_quota_new(OUTR_LIMIT_CONNECTIONS)};
}

void outr_limits_done(outr_limits *l)
{
    outr_http_quota_unref(l->connections);
    l->connections = NULL;
}

void outr_limits_use(outr_limits *l, const outr_limits_spec *spec)
{
    __atomic_store_n(&l->requests_max, (uint32_t)spec->requests, __ATOMIC_RELAXED);
    __atomic_store_n(&l->pending_max, (uint32_t)spec->pending, __ATOMIC_RELAXED);
    outr_http_quota_set(l->connections, (uint32_t)spec->connections);
}

static uint32_t requests_of(uint64_t count)
{
    return (uint32_t)count;
}

static uint32_t pending_of(uint64_t count)
{
    return (uint32_t)(count >> 32);
}

outr_limit outr_limits_enter(outr_limits *l)
{
    uint64_t n = __atomic_add_fetch(&l->count, PENDING | REQUEST, __ATOMIC_RELAXED);
    bool is_full = requests_of(n) > __atomic_load_n(&l->requests_max, __ATOMIC_RELAXED);
    bool is_crowded = pending_of(n) > __atomic_load_n(&l->pending_max, __ATOMIC_RELAXED);
    if (!is_full && !is_crowded)
        return OUTR_LIMIT_NONE;
    outr_limits_leave(l, true);
    return is_full ? OUTR_LIMIT_OF_REQUESTS : OUTR_LIMIT_OF_PENDING;
}

void outr_limits_placed(outr_limits *l)
{
    __atomic_fetch_sub(&l->count, PENDING, __ATOMIC_RELAXED);
}

void outr_limits_leave(outr_limits *l, bool is_pending)
{
    __atomic_fetch_sub(&l->count, REQUEST | (is_pending ? PENDING : 0), __ATOMIC_RELAXED);
}

uint32_t outr_limits_requests(const outr_limits *l)
{
    return requests_of(__atomic_load_n(&l->count, __ATOMIC_RELAXED));
}

uint32_t outr_limits_pending(const outr_limits *l)
{
    return pending_of(__atomic_load_n(&l->count, __ATOMIC_RELAXED));
}
