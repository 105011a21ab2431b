#include "base/chunk.h"

#define COPY_BELOW 4096 /* pieces smaller than this do not pin a big chunk */
#define TAIL_CHUNK 4096

outr_chunk *outr_chunk_new(size_t cap)
{
    outr_chunk *chunk = malloc(sizeof *chunk + cap);
    if (!chunk)
        chunk = outr_alloc(sizeof *chunk + cap);
    chunk->refs = 1;
    chunk->cap = (uint32_t)cap;
    chunk->free = NULL;
    return chunk;
}

outr_chunk *outr_chunk_ref(outr_chunk *chunk)
{
    chunk->refs++;
    return chunk;
}

void outr_chunk_unref(outr_chunk *chunk)
{
    if (!chunk || --chunk->refs > 0)
        return;
    if (chunk->free)
        chunk->free(chunk);
    else
        free(chunk);
}

outr_slice outr_slice_copy(outr_str s)
{
    outr_chunk *chunk = outr_chunk_new(s.n);
    if (s.n)
        memcpy(chunk->bytes, s.p, s.n);
    return (outr_slice){chunk, chunk->bytes, s.n};
}

outr_slice outr_slice_of(outr_chunk *chunk, const char *p, size_t n)
{
    if (n < COPY_BELOW && chunk->cap > 2 * COPY_BELOW)
        return outr_slice_copy(outr_str_of(p, n));
    return (outr_slice){outr_chunk_ref(chunk), p, n};
}

void outr_slice_done(outr_slice *slice)
{
    outr_chunk_unref(slice->chunk);
    *slice = (outr_slice){0};
}

static outr_slice *slot(const outr_bufq *q, uint32_t i)
{
    return &q->ring[(q->head + i) & (q->cap - 1)];
}

static void make_room(outr_bufq *q)
{
    if (q->count < q->cap)
        return;
    uint32_t cap = q->cap ? q->cap * 2 : 8; /* stays a power of two */
    outr_slice *ring = outr_alloc(cap * sizeof *ring);
    for (uint32_t i = 0; i < q->count; i++)
        ring[i] = *slot(q, i);
    free(q->ring);
    q->ring = ring;
    q->head = 0;
    q->cap = cap;
}

void outr_bufq_push(outr_bufq *q, outr_slice own_slice)
{
    if (own_slice.n == 0) {
        outr_slice_done(&own_slice);
        return;
    }
    make_room(q);
    *slot(q, q->count++) = own_slice;
    q->bytes += own_slice.n;
}

void outr_bufq_copy(outr_bufq *q, const void *p, size_t n)
{
    const char *from = p;
    while (n > 0) {
        outr_slice *tail = q->count ? slot(q, q->count - 1) : NULL;
        outr_chunk *chunk = tail ? tail->chunk : NULL;
        const char *end = chunk ? chunk->bytes + chunk->cap : NULL;
        size_t room =
            chunk && chunk->refs == 1 && !chunk->free ? (size_t)(end - (tail->p + tail->n)) : 0;
        if (room == 0) {
            chunk = outr_chunk_new(OUTR_MAX(n, (size_t)TAIL_CHUNK));
            make_room(q);
            tail = slot(q, q->count++);
            *tail = (outr_slice){chunk, chunk->bytes, 0};
            room = chunk->cap;
        }
        size_t take = OUTR_MIN(room, n);
        memcpy((char *)tail->p + tail->n, from, take);
        tail->n += take;
        q->bytes += take;
        from += take;
        n -= take;
    }
}

void outr_bufq_drop(outr_bufq *q, size_t n)
{
    while (n > 0 && q->count > 0) {
        outr_slice *first = slot(q, 0);
        size_t take = OUTR_MIN(n, first->n);
        first->p += take;
        first->n -= take;
        q->bytes -= take;
        n -= take;
        if (first->n > 0)
            return;
        outr_slice_done(first);
        q->head = (q->head + 1) & (q->cap - 1);
        q->count--;
    }
}

outr_slice outr_bufq_pop(outr_bufq *q)
{
    if (q->count == 0)
        return (outr_slice){0};
    outr_slice first = *slot(q, 0);
    q->head = (q->head + 1) & (q->cap - 1);
    q->count--;
    q->bytes -= first.n;
    return first;
}

size_t outr_bufq_peek(const outr_bufq *q, outr_str *pieces, size_t max)
{
    size_t n = OUTR_MIN((size_t)q->count, max);
    for (size_t i = 0; i < n; i++) {
        const outr_slice *s = slot(q, (uint32_t)i);
        pieces[i] = outr_str_of(s->p, s->n);
    }
    return n;
}

void outr_bufq_move(outr_bufq *to, outr_bufq *from)
{
    if (to->count == 0 && to->cap <= from->cap) {
        outr_bufq empty = *to;
        *to = *from;
        *from = empty;
        return;
    }
    while (from->count > 0)
        outr_bufq_push(to, outr_bufq_pop(from));
}

void outr_bufq_done(outr_bufq *q)
{
    while (q->count > 0) {
        outr_slice first = outr_bufq_pop(q);
        outr_slice_done(&first);
    }
    free(q->ring);
    *q = (outr_bufq){0};
}
