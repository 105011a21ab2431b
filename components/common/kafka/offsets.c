#include "components/common/kafka/offsets.h"

struct outr_offsets_slot {
    int64_t offset;
    bool is_settled;
};

static outr_offsets_slot *slot_at(const outr_offsets *offsets, size_t i)
{
    return &offsets->slots[(offsets->first + i) % offsets->cap];
}

void outr_offsets_done(outr_offsets *offsets)
{
    free(offsets->slots);
    *offsets = (outr_offsets){0};
}

static void grow(outr_offsets *offsets)
{
    size_t cap = offsets->cap ? offsets->cap * 2 : 16;
    outr_offsets_slot *slots = outr_alloc(cap * sizeof *slots);
    for (size_t i = 0; i < offsets->count; i++)
        slots[i] = *slot_at(offsets, i);
    free(offsets->slots);
    offsets->slots = slots;
    offsets->cap = cap;
    offsets->first = 0;
}

bool outr_offsets_take(outr_offsets *offsets, int64_t offset)
{
    if (offsets->has_taken && offset < offsets->next)
        return false;
    if (offsets->count == offsets->cap)
        grow(offsets);
    *slot_at(offsets, offsets->count++) = (outr_offsets_slot){offset, false};
    offsets->has_taken = true;
    offsets->next = offset + 1;
    return true;
}

static outr_offsets_slot *find(const outr_offsets *offsets, int64_t offset)
{
    size_t low = 0, high = offsets->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slot_at(offsets, middle)->offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    outr_offsets_slot *slot = low < offsets->count ? slot_at(offsets, low) : NULL;
    return slot && slot->offset == offset ? slot : NULL;
}

bool outr_offsets_settle(outr_offsets *offsets, int64_t offset)
{
    outr_offsets_slot *slot = find(offsets, offset);
    if (!slot || slot->is_settled)
        return false;
    slot->is_settled = true;
    while (offsets->count > 0 && slot_at(offsets, 0)->is_settled) {
        offsets->first = (offsets->first + 1) % offsets->cap;
        offsets->count--;
    }
    return true;
}

void outr_offsets_resume(outr_offsets *offsets, int64_t next)
{
    assert(!offsets->has_taken);
    offsets->has_taken = true;
    offsets->next = next;
}

bool outr_offsets_committable(const outr_offsets *offsets, int64_t *out)
{
    int64_t place = offsets->count > 0 ? slot_at(offsets, 0)->offset : offsets->next;
    if (!offsets->has_taken || place <= offsets->committed)
        return false;
    *out = place;
    return true;
}

void outr_offsets_committed(outr_offsets *offsets, int64_t offset)
{
    offsets->committed = OUTR_MAX(offsets->committed, offset);
}
