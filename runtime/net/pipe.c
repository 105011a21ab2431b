#include "net/pipe.h"

void outr_source_attach(outr_source *source, outr_sink *sink)
{
    source->sink = sink;
    sink->source = source;
    source->ops->start(source);
}

void outr_source_cancel(outr_source *source, const outr_err *err)
{
    if (!source)
        return;
    if (source->sink)
        source->sink->source = NULL;
    source->sink = NULL;
    source->ops->cancel(source, err);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void on_push(outr_deferred *deferred)
{
    outr_memory_source *m = OUTR_CONTAINER(deferred, outr_memory_source, pusher);
    outr_sink *sink = m->base.sink;
    if (m->bytes.n > 0) {
        outr_str bytes = m->bytes;
        m->bytes = OUTR_STR_NONE;
        bool goes_on = sink->ops->data(sink, outr_slice_static(bytes));
        if (!goes_on || !m->base.sink)
            return; /* resume ends it */
    }
    outr_loop_undefer(&m->pusher); /* a resume from within data: the source may be gone after end */
    m->base.sink = NULL;
    sink->source = NULL;
    sink->ops->end(sink, NULL);
}

static void memory_go_on(outr_source *source)
{
    outr_memory_source *m = OUTR_CONTAINER(source, outr_memory_source, base);
    outr_loop_defer(m->loop, &m->pusher);
}

static void memory_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    outr_loop_undefer(&OUTR_CONTAINER(source, outr_memory_source, base)->pusher);
}

static const outr_source_ops memory_ops = {
    .start = memory_go_on, .resume = memory_go_on, .cancel = memory_cancel};

void outr_memory_source_init(outr_memory_source *m, outr_loop *loop, outr_str bytes)
{
    *m = (outr_memory_source){
        .base = {.ops = &memory_ops, .length = (int64_t)bytes.n},
        .bytes = bytes,
        .loop = loop,
        .pusher = {.run = on_push},
    };
}

/* ---- gather ---------------------------------------------------------------------------------- */

static outr_gather *gather_of(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, outr_gather, base);
}

static void gather_fail(outr_gather *g, const outr_err *err)
{
    outr_source *source = g->base.source;
    g->base.source = NULL;
    outr_buf_done(&g->body);
    if (source)
        outr_source_cancel(source, err);
    g->done(g, err);
}

static bool gather_data(outr_sink *sink, outr_slice own_slice)
{
    outr_gather *g = gather_of(sink);
    bool fits = outr_buf_append(&g->body, own_slice.p, own_slice.n);
    outr_slice_done(&own_slice);
    if (fits)
        return true;
    outr_err err;
    outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "body is larger than %zu bytes", g->body.max);
    gather_fail(g, &err);
    return false;
}

static void gather_end(outr_sink *sink, const struct outr_headers *trailers OUTR_UNUSED)
{
    outr_gather *g = gather_of(sink);
    sink->source = NULL;
    g->done(g, NULL);
}

static void gather_abort(outr_sink *sink, const outr_err *err)
{
    outr_gather *g = gather_of(sink);
    sink->source = NULL;
    outr_buf_done(&g->body);
    g->done(g, err);
}

static const outr_sink_ops gather_ops = {
    .data = gather_data, .end = gather_end, .abort = gather_abort};

void outr_gather_start(outr_gather *g, outr_source *source, size_t max_bytes,
                       void (*done)(outr_gather *gather, const outr_err *err), void *ctx)
{
    *g = (outr_gather){
        .base = {.ops = &gather_ops}, .body = OUTR_BUF_MAX(max_bytes), .done = done, .ctx = ctx};
    if (source->length > 0 && (uint64_t)source->length <= max_bytes)
        outr_buf_reserve(&g->body, (size_t)OUTR_MIN(source->length, (int64_t)OUTR_MIB));
    outr_source_attach(source, &g->base);
}

void outr_gather_cancel(outr_gather *g)
{
    outr_source *source = g->base.source;
    g->base.source = NULL;
    if (source)
        outr_source_cancel(source, NULL);
    outr_buf_done(&g->body);
}
