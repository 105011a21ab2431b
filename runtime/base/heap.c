#include "base/heap.h"

static void place(outr_heap *heap, outr_heap_node *node, size_t i)
{
    heap->nodes[i] = node;
    node->index = i + 1;
}

static void sift_up(outr_heap *heap, outr_heap_node *node, size_t i)
{
    while (i > 0 && heap->nodes[(i - 1) / 2]->key > node->key) {
        place(heap, heap->nodes[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    place(heap, node, i);
}

static void sift_down(outr_heap *heap, outr_heap_node *node, size_t i)
{
    for (size_t child; (child = 2 * i + 1) < heap->count; i = child) {
        if (child + 1 < heap->count && heap->nodes[child + 1]->key < heap->nodes[child]->key)
            child++;
        if (heap->nodes[child]->key >= node->key)
            break;
        place(heap, heap->nodes[child], i);
    }
    place(heap, node, i);
}

void outr_heap_push(outr_heap *heap, outr_heap_node *node, uint64_t key)
{
    if (heap->count == heap->cap) {
        heap->cap = heap->cap ? heap->cap * 2 : 16;
        heap->nodes = outr_realloc(heap->nodes, heap->cap * sizeof *heap->nodes);
    }
    node->key = key;
    sift_up(heap, node, heap->count++);
}

void outr_heap_remove(outr_heap *heap, outr_heap_node *node)
{
    if (!node->index)
        return;
    size_t i = node->index - 1;
    outr_heap_node *last = heap->nodes[--heap->count];
    node->index = 0;
    if (last == node)
        return;
    if (i > 0 && heap->nodes[(i - 1) / 2]->key > last->key)
        sift_up(heap, last, i);
    else
        sift_down(heap, last, i);
}

void outr_heap_done(outr_heap *heap)
{
    free(heap->nodes);
    *heap = (outr_heap){0};
}
