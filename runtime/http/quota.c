#include "http/quota.h"

struct outr_http_quota {
    uint32_t refs, max, used; /* atomic */
};

outr_http_quota *outr_http_quota_new(uint32_t max)
{
    outr_http_quota *q = outr_alloc(sizeof *q);
    q->refs = 1;
    q->max = max;
    return q;
}

outr_http_quota *outr_http_quota_ref(outr_http_quota *q)
{
    __atomic_fetch_add(&q->refs, 1, __ATOMIC_RELAXED);
    return q;
}

void outr_http_quota_unref(outr_http_quota *q)
{
    if (q && __atomic_sub_fetch(&q->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free(q);
}

void outr_http_quota_set(outr_http_quota *q, uint32_t max)
{
    __atomic_store_n(&q->max, max, __ATOMIC_RELAXED);
}

uint32_t outr_http_quota_used(const outr_http_quota *q)
{
    return __atomic_load_n(&q->used, __ATOMIC_RELAXED);
}

bool outr_http_quota_take(outr_http_quota *q)
{
    if (!q)
        return true;
    uint32_t n = __atomic_load_n(&q->used, __ATOMIC_RELAXED);
    while (n < __atomic_load_n(&q->max, __ATOMIC_RELAXED)) {
        if (__atomic_compare_exchange_n(&q->used, &n, n + 1, true, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return true;
    }
    return false;
}

void outr_http_quota_give_back(outr_http_quota *q)
{
    if (q)
        __atomic_fetch_sub(&q->used, 1, __ATOMIC_ACQ_REL);
}
