/* chunk - refcounted bytes, and bufq, a queue of slices of them. How bodies move without copies.
 *
 * References are counted without atomics: a chunk stays on the loop that made it (bytes cross loops
 * by copy). */
#ifndef OUTR_BASE_CHUNK_H
#define OUTR_BASE_CHUNK_H

#include "base/base.h"
#include "base/str.h"

typedef struct outr_chunk {
    uint32_t refs;
    uint32_t cap;
    void (*free)(struct outr_chunk *chunk); /* NULL: heap */
    char bytes[];
} outr_chunk;

typedef struct outr_slice {
    outr_chunk *chunk; /* NULL: static or arena bytes that outlive the slice */
    const char *p;
    size_t n;
} outr_slice;

outr_chunk *outr_chunk_new(size_t cap) OUTR_MUST_USE; /* one reference, the caller's */
outr_chunk *outr_chunk_ref(outr_chunk *chunk);
void outr_chunk_unref(outr_chunk *chunk);             /* NULL is fine */
outr_slice outr_slice_copy(outr_str s) OUTR_MUST_USE; /* a new chunk holding a copy */
static inline outr_slice outr_slice_static(outr_str s)
{
    return (outr_slice){NULL, s.p, s.n};
}
/* A slice of bytes inside chunk; takes a new reference. Small pieces (< 4 KiB of a big chunk) are
 * copied instead, so that a few bytes do not pin 64 KiB. */
outr_slice outr_slice_of(outr_chunk *chunk, const char *p, size_t n) OUTR_MUST_USE;
void outr_slice_done(outr_slice *slice);

/* A first-in-first-out queue of slices; grows a ring. */
typedef struct outr_bufq {
    outr_slice *ring;
    uint32_t head, count, cap;
    size_t bytes;
} outr_bufq;

void outr_bufq_push(outr_bufq *q, outr_slice own_slice); /* empty slices vanish */
void outr_bufq_copy(outr_bufq *q, const void *p,
                    size_t n);               /* fills the tail chunk when it is ours alone */
void outr_bufq_drop(outr_bufq *q, size_t n); /* takes n bytes off the front */
outr_slice outr_bufq_pop(outr_bufq *q);      /* first slice, the caller's; n == 0 if none */
size_t outr_bufq_peek(const outr_bufq *q, outr_str *pieces,
                      size_t max);                   /* borrowed; count filled */
void outr_bufq_move(outr_bufq *to, outr_bufq *from); /* all of from */
void outr_bufq_done(outr_bufq *q);

#endif
