#include "mesh/budget.h"

/* The ring up to now: seconds that have passed are empty. */
static size_t slot_of(outr_budget *b, uint64_t now)
{
    uint64_t second = now / OUTR_SEC;
    if (second > b->slot + OUTR_BUDGET_SLOTS) {
        *b = (outr_budget){.slot = second};
    }
    while (b->slot < second) {
        size_t at = ++b->slot % OUTR_BUDGET_SLOTS;
        b->calls[at] = b->retries[at] = 0;
    }
    return b->slot % OUTR_BUDGET_SLOTS;
}

void outr_budget_call(outr_budget *b, uint64_t now)
{
    b->calls[slot_of(b, now)]++;
}

void outr_budget_spend(outr_budget *b, uint64_t now)
{
    b->retries[slot_of(b, now)]++;
}

void outr_budget_count(const outr_budget *b, uint64_t now, uint64_t *calls, uint64_t *retries)
{
    uint64_t second = now / OUTR_SEC;
    *calls = *retries = 0;
    for (size_t i = 0; i < OUTR_BUDGET_SLOTS; i++) {
        /* the second that the slot was last used for */
        uint64_t age = (b->slot % OUTR_BUDGET_SLOTS + OUTR_BUDGET_SLOTS - i) % OUTR_BUDGET_SLOTS;
        if (b->slot - age + OUTR_BUDGET_SLOTS <= second)
            continue;
        *calls += b->calls[i];
        *retries += b->retries[i];
    }
}

bool outr_budget_take(outr_budget *b, const outr_budget_rules *rules, uint64_t now)
{
    size_t at = slot_of(b, now);
    uint64_t calls, retries;
    outr_budget_count(b, now, &calls, &retries);
    uint64_t share = (uint64_t)((double)calls * rules->percent / 100);
    if (retries >= share + (uint64_t)rules->per_second * OUTR_BUDGET_SLOTS)
        return false;
    b->retries[at]++;
    return true;
}
