/* heap - intrusive binary min-heap over uint64 keys (timers, deadlines). */
#ifndef OUTR_BASE_HEAP_H
#define OUTR_BASE_HEAP_H

#include "base/base.h"

typedef struct outr_heap_node {
    uint64_t key;
    size_t index; /* 1-based place; 0: in no heap */
} outr_heap_node;

typedef struct outr_heap {
    outr_heap_node **nodes;
    size_t count, cap;
} outr_heap;

void outr_heap_push(outr_heap *heap, outr_heap_node *node, uint64_t key);
void outr_heap_remove(outr_heap *heap, outr_heap_node *node); /* nothing when in none */
static inline outr_heap_node *outr_heap_min(const outr_heap *heap)
{
    return heap->count ? heap->nodes[0] : NULL;
}
void outr_heap_done(outr_heap *heap);

#endif
