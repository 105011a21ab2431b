#include "mesh/replay.h"

#define PIECE_MIN (4 * OUTR_KIB)
#define PIECE_MAX (64 * OUTR_KIB)

typedef struct outr__kept {
    struct outr__kept *next;
    size_t used, size;
    const char *bytes;
} kept;

static outr__replay *replay_of(outr_source *source)
{
    return OUTR_CONTAINER(source, outr__replay, source);
}

/* ---- keeping --------------------------------------------------------------------------------- */

/* Room behind what is there; NULL: the request has no more memory. */
static kept *grow(outr__replay *r, size_t n)
{
    size_t doubled = r->last ? OUTR_MIN(2 * r->last->size, PIECE_MAX) : PIECE_MIN;
    size_t known = r->source.length > 0 ? OUTR_MIN((size_t)r->source.length - r->kept, r->max) : 0;
    size_t size = OUTR_MAX(n, known ? known : doubled);
    kept *k = outr_arena_try(r->arena, sizeof *k + size);
    if (!k)
        return NULL;
    *k = (kept){.size = size, .bytes = (char *)(k + 1)};
    if (r->last)
        r->last->next = k;
    else
        r->first = r->at = k;
    return r->last = k;
}

static bool keep(outr__replay *r, outr_str bytes)
{
    kept *k = r->last;
    if (r->is_over || bytes.n > r->max - r->kept)
        return false;
    if (!k || k->size - k->used < bytes.n)
        k = grow(r, bytes.n);
    if (!k)
        return false;
    memcpy((char *)(uintptr_t)k->bytes + k->used, bytes.p, bytes.n);
    k->used += bytes.n;
    r->kept += bytes.n;
    return true;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Comes in while nobody reads, too: it has been asked for. */
static bool on_data(outr_sink *sink, outr_slice own_slice)
{
    outr__replay *r = OUTR_CONTAINER(sink, outr__replay, sink);
    outr_loop_defer(r->loop, &r->pusher);
    if (keep(r, outr_str_of(own_slice.p, own_slice.n))) {
        outr_slice_done(&own_slice);
        return r->source.sink && !r->is_full;
    }
    r->is_over = true;
    outr_bufq_push(&r->passing, own_slice);
    return false;
}

static void on_end(outr_sink *sink, const outr_headers *trailers)
{
    outr__replay *r = OUTR_CONTAINER(sink, outr__replay, sink);
    sink->source = NULL;
    r->has_ended = true;
    for (size_t i = 0; trailers && i < trailers->count; i++)
        outr_headers_add(&r->trailers, outr_arena_str(r->arena, trailers->items[i].name),
                         outr_arena_str(r->arena, trailers->items[i].value));
    outr_loop_defer(r->loop, &r->pusher);
    if (r->on_complete && outr__replay_is_complete(r))
        r->on_complete(r, r->user);
}

static void on_abort(outr_sink *sink, const outr_err *err)
{
    outr__replay *r = OUTR_CONTAINER(sink, outr__replay, sink);
    sink->source = NULL;
    r->has_ended = true;
    r->broken = *err;
    outr_loop_defer(r->loop, &r->pusher);
}

static const outr_sink_ops sink_ops = {.data = on_data, .end = on_end, .abort = on_abort};

/* ---- sending --------------------------------------------------------------------------------- */

/* The next piece; n == 0: none is here. */
static outr_slice next_piece(outr__replay *r)
{
    while (r->at && r->at_sent == r->at->used && r->at->next) {
        r->at = r->at->next;
        r->at_sent = 0;
    }
    if (!r->at || r->at_sent == r->at->used)
        return outr_bufq_pop(&r->passing);
    outr_str piece = outr_str_of(r->at->bytes + r->at_sent, r->at->used - r->at_sent);
    r->at_sent = r->at->used;
    return outr_slice_static(piece);
}

static void on_push(outr_deferred *deferred)
{
    outr__replay *r = OUTR_CONTAINER(deferred, outr__replay, pusher);
    outr_sink *to = r->source.sink;
    if (!to || r->is_full)
        return;
    if (r->broken.code) {
        r->source.sink = NULL;
        to->source = NULL;
        to->ops->abort(to, &r->broken);
        return;
    }
    for (outr_slice piece = next_piece(r); piece.n > 0; piece = next_piece(r)) {
        r->is_full = true;
        if (to->ops->data(to, piece))
            r->is_full = false;
        if (r->is_full || r->source.sink != to)
            return;
    }
    if (!r->has_ended) {
        outr_source_resume(r->sink.source);
        return;
    }
    outr_loop_undefer(&r->pusher);
    r->source.sink = NULL;
    to->source = NULL;
    to->ops->end(to, r->trailers.count ? &r->trailers : NULL);
}

static void on_start(outr_source *source)
{
    outr__replay *r = replay_of(source);
    r->is_full = false;
    if (!r->is_started && r->from)
        outr_source_attach(r->from, &r->sink);
    r->is_started = true;
    outr_loop_defer(r->loop, &r->pusher);
}

static void on_resume(outr_source *source)
{
    outr__replay *r = replay_of(source);
    r->is_full = false;
    outr_loop_defer(r->loop, &r->pusher);
}

/* This reader wants no more; another may. */
static void on_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    outr_loop_undefer(&replay_of(source)->pusher);
}

static const outr_source_ops source_ops = {
    .start = on_start, .resume = on_resume, .cancel = on_cancel};

void outr__replay_init(outr__replay *r, outr_loop *loop, outr_arena *arena, outr_source *from,
                       size_t max)
{
    *r = (outr__replay){
        .source = {.ops = &source_ops, .length = from->length},
        .sink = {.ops = &sink_ops},
        .loop = loop,
        .arena = arena,
        .from = from,
        .max = max,
        .pusher = {.run = on_push},
    };
    outr_headers_init(&r->trailers, arena);
}

void outr__replay_init_bytes(outr__replay *r, outr_loop *loop, outr_arena *arena, outr_str bytes)
{
    kept *k = outr_arena_alloc(arena, sizeof *k);
    *k = (kept){.used = bytes.n, .size = bytes.n, .bytes = bytes.p};
    *r = (outr__replay){
        .source = {.ops = &source_ops, .length = (int64_t)bytes.n},
        .loop = loop,
        .arena = arena,
        .first = k,
        .last = k,
        .at = k,
        .kept = bytes.n,
        .max = bytes.n,
        .is_started = true,
        .has_ended = true,
        .pusher = {.run = on_push},
    };
    outr_headers_init(&r->trailers, arena);
}

outr_str outr__replay_bytes(const outr__replay *r, outr_arena *arena)
{
    const kept *first = r->first;
    if (!first || !first->next)
        return first ? outr_str_of(first->bytes, first->used) : OUTR_STR("");
    char *all = outr_arena_alloc(arena, r->kept);
    size_t n = 0;
    for (const kept *k = first; k; k = k->next) {
        memcpy(all + n, k->bytes, k->used);
        n += k->used;
    }
    return outr_str_of(all, n);
}

void outr__replay_init_copy(outr__replay *r, const outr__replay *of)
{
    *r = (outr__replay){
        .source = {.ops = &source_ops, .length = of->source.length},
        .loop = of->loop,
        .arena = of->arena,
        .first = of->first,
        .last = of->last,
        .at = of->first,
        .kept = of->kept,
        .max = of->max,
        .trailers = of->trailers,
        .is_started = true,
        .has_ended = true,
        .pusher = {.run = on_push},
    };
}

outr_source *outr__replay_again(outr__replay *r)
{
    r->at = r->first;
    r->at_sent = 0;
    r->is_full = false;
    return &r->source;
}

void outr__replay_done(outr__replay *r)
{
    outr_source *from = r->sink.source;
    outr_loop_undefer(&r->pusher);
    outr_bufq_done(&r->passing);
    r->sink.source = NULL;
    if (from)
        outr_source_cancel(from, NULL);
}
