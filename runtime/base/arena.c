#include "base/arena.h"

#define ALIGN       16
#define FIRST_BLOCK 2048
#define BLOCK       8192
#define OVERRUN     8 /* how far what follows from a request may exceed what may be asked for */

typedef struct block {
    struct block *next;
    size_t cap;
    _Alignas(ALIGN) char bytes[];
} block;

typedef struct deferral {
    struct deferral *next;
    void (*fn)(void *ctx);
    void *ctx;
} deferral;

/* The arena lies in front of its first block: one allocation for a small request. */
struct outr_arena {
    char *at, *end;   /* free part of the newest block */
    size_t used, max; /* bytes handed out or lost to block ends */
    block *blocks;    /* newest first, without the first one */
    block *spare;     /* one kept over a reset: the next request is likely as large as the last */
    deferral *deferrals;
    _Alignas(ALIGN) char first[];
};

outr_arena *outr_arena_new(size_t max_bytes)
{
    outr_arena *arena = malloc(sizeof *arena + FIRST_BLOCK);
    if (!arena)
        arena = outr_alloc(sizeof *arena + FIRST_BLOCK); /* says so and ends */
    *arena = (outr_arena){.at = arena->first, .end = arena->first + FIRST_BLOCK, .max = max_bytes};
    return arena;
}

void outr_arena_reset(outr_arena *arena)
{
    while (arena->deferrals) {
        deferral *d = arena->deferrals;
        arena->deferrals = d->next;
        d->fn(d->ctx);
    }
    while (arena->blocks) {
        block *b = arena->blocks;
        arena->blocks = b->next;
        if (!arena->spare && b->cap == BLOCK)
            arena->spare = b;
        else
            free(b);
    }
    arena->at = arena->first;
    arena->end = arena->first + FIRST_BLOCK;
    arena->used = 0;
}

void outr_arena_free(outr_arena *arena)
{
    if (!arena)
        return;
    outr_arena_reset(arena);
    free(arena->spare);
    free(arena);
}

static char *grow(outr_arena *arena, size_t n)
{
    size_t cap = OUTR_MAX(n, (size_t)BLOCK);
    block *b = cap == BLOCK ? arena->spare : NULL;
    if (b)
        arena->spare = NULL;
    else if (!(b = malloc(sizeof *b + cap)))
        return NULL;
    b->cap = cap;
    b->next = arena->blocks;
    arena->blocks = b;
    /* A big piece gets a block of its own and the rest of the current one stays in use. */
    if (n > BLOCK / 2)
        return b->bytes;
    arena->at = b->bytes + n;
    arena->end = b->bytes + cap;
    return b->bytes;
}

static void *take(outr_arena *arena, size_t n, size_t max)
{
    if (n > max || arena->used > max - n)
        return NULL;
    n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    char *p = arena->at;
    if ((size_t)(arena->end - p) >= n)
        arena->at += n;
    else
        p = grow(arena, n);
    if (!p)
        return NULL;
    arena->used += n;
    return memset(p, 0, n);
}

void *outr_arena_try(outr_arena *arena, size_t n)
{
    return take(arena, n, arena->max);
}

void *outr_arena_alloc(outr_arena *arena, size_t n)
{
    void *p = take(arena, n, arena->max > SIZE_MAX / OVERRUN ? SIZE_MAX / 2 : arena->max * OVERRUN);
    if (!p) {
        fprintf(stderr, "outrigger: arena far over its cap (%zu + %zu of %zu bytes)\n", arena->used,
                n, arena->max);
        abort();
    }
    return p;
}

size_t outr_arena_used(const outr_arena *arena)
{
    return arena->used;
}

bool outr_arena_is_over(const outr_arena *arena)
{
    return arena->used > arena->max;
}

void outr_arena_defer(outr_arena *arena, void (*fn)(void *ctx), void *ctx)
{
    deferral *d = outr_arena_alloc(arena, sizeof *d);
    *d = (deferral){arena->deferrals, fn, ctx};
    arena->deferrals = d;
}

char *outr_arena_strz(outr_arena *arena, outr_str s)
{
    char *copy = outr_arena_alloc(arena, s.n + 1);
    if (s.n)
        memcpy(copy, s.p, s.n);
    return copy;
}

outr_str outr_arena_str(outr_arena *arena, outr_str s)
{
    return outr_str_of(outr_arena_strz(arena, s), s.n);
}

outr_str outr_arena_join(outr_arena *arena, outr_str a, outr_str b, outr_str c)
{
    const outr_str parts[] = {a, b, c};
    size_t used = 0;
    char *joined = outr_arena_alloc(arena, a.n + b.n + c.n + 1);
    for (size_t i = 0; i < OUTR_LEN(parts); i++) {
        if (parts[i].n > 0)
            memcpy(joined + used, parts[i].p, parts[i].n);
        used += parts[i].n;
    }
    return outr_str_of(joined, used);
}

outr_str outr_arena_printf(outr_arena *arena, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = outr_arena_alloc(arena, (size_t)OUTR_MAX(n, 0) + 1);
    vsnprintf(text, (size_t)OUTR_MAX(n, 0) + 1, fmt, again);
    va_end(again);
    return outr_str_of(text, (size_t)OUTR_MAX(n, 0));
}
