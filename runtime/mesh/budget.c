#include "mesh/budget.h"

#define SHARE 5 /* one of so many calls */

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

bool outr_budget_take(outr_budget *b, uint64_t now)
{
    uint64_t calls = 0, retries = 0;
    size_t at = slot_of(b, now);
    for (size_t i = 0; i < OUTR_BUDGET_SLOTS; i++) {
        calls += b->calls[i];
        retries += b->retries[i];
    }
    if (retries >= calls / SHARE + OUTR_BUDGET_SLOTS)
        return false;
    b->retries[at]++;
    return true;
}
