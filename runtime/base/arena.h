/* arena - memory that lives as long as one request.
 *
 * A bump allocator over blocks with a cap on the sum; everything goes at once. Belongs to one
 * thread. The first block is small (2 KiB) and kept over outr_arena_reset, with one of the others
 * (8 KiB). */
#ifndef OUTR_BASE_ARENA_H
#define OUTR_BASE_ARENA_H

#include "base/base.h"
#include "base/str.h"

typedef struct outr_arena outr_arena;

/* max_bytes: over it outr_arena_try gives NULL. Sizes that a peer chooses go through _try; the
 * others
 * follow from what was let in that way, so outr_arena_alloc may go beyond, and ends the process
 * only
 * at 8 times max_bytes: that is a fault of ours. */
outr_arena *outr_arena_new(size_t max_bytes);
void outr_arena_free(outr_arena *arena); /* NULL is fine */
void outr_arena_reset(outr_arena *arena);
void *outr_arena_alloc(outr_arena *arena, size_t n) OUTR_MUST_USE; /* zeroed, 16-byte aligned */
void *outr_arena_try(outr_arena *arena, size_t n) OUTR_MUST_USE;   /* NULL over the cap */
size_t outr_arena_used(const outr_arena *arena);
/* More than max_bytes is out: whoever works through a peer's list stops. */
bool outr_arena_is_over(const outr_arena *arena);
/* Runs fn(ctx) when the arena is freed or reset, last added first. */
void outr_arena_defer(outr_arena *arena, void (*fn)(void *ctx), void *ctx);
outr_str outr_arena_str(outr_arena *arena, outr_str s) OUTR_MUST_USE; /* copy; NUL follows */
char *outr_arena_strz(outr_arena *arena, outr_str s) OUTR_MUST_USE;
/* a, b and c in one, whatever bytes are in them (printf would stop at a NUL); any may be empty. */
outr_str outr_arena_join(outr_arena *arena, outr_str a, outr_str b, outr_str c) OUTR_MUST_USE;
outr_str outr_arena_printf(outr_arena *arena, const char *fmt, ...) OUTR_PRINTF(2, 3);

#endif
