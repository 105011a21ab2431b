#include "components/middleware.h"

/* Upper-cases the letters of ASCII in a body, as it streams: to see where pipelines run. */

extern const outr_middleware_backend outr_middleware_uppercase;

typedef struct filter {
    outr_source source; /* what the next reads */
    outr_sink sink;     /* what reads the body */
} filter;

static filter *of_sink(outr_sink *sink)
{
    return OUTR_CONTAINER(sink, filter, sink);
}

static bool on_data(outr_sink *sink, outr_slice own_slice)
{
    outr_sink *to = of_sink(sink)->source.sink;
    if (own_slice.n == 0)
        return to->ops->data(to, own_slice);
    outr_slice copy = outr_slice_copy(outr_str_of(own_slice.p, own_slice.n));
    char *bytes = copy.chunk->bytes + (copy.p - copy.chunk->bytes);
    for (size_t i = 0; i < copy.n; i++) {
        if (bytes[i] >= 'a' && bytes[i] <= 'z')
            bytes[i] = (char)(bytes[i] - 'a' + 'A');
    }
    outr_slice_done(&own_slice);
    return to->ops->data(to, copy);
}

static outr_sink *let_go(outr_sink *sink)
{
    filter *f = of_sink(sink);
    outr_sink *to = f->source.sink;
    sink->source = NULL;
    f->source.sink = NULL;
    to->source = NULL;
    return to;
}

static void on_end(outr_sink *sink, const struct outr_headers *trailers)
{
    outr_sink *to = let_go(sink);
    to->ops->end(to, trailers);
}

static void on_abort(outr_sink *sink, const outr_err *err)
{
    outr_sink *to = let_go(sink);
    to->ops->abort(to, err);
}

static const outr_sink_ops sink_ops = {.data = on_data, .end = on_end, .abort = on_abort};

static void start(outr_source *source)
{
    filter *f = OUTR_CONTAINER(source, filter, source);
    outr_source_attach(f->sink.source, &f->sink);
}

static void resume(outr_source *source)
{
    outr_source_resume(OUTR_CONTAINER(source, filter, source)->sink.source);
}

static void cancel(outr_source *source, const outr_err *err)
{
    filter *f = OUTR_CONTAINER(source, filter, source);
    outr_source *from = f->sink.source;
    f->sink.source = NULL;
    outr_source_cancel(from, err);
}

static const outr_source_ops source_ops = {.start = start, .resume = resume, .cancel = cancel};

static outr_middleware_verdict handle(outr_middleware *m OUTR_UNUSED, outr_middleware_call *call,
                                      outr_op *op OUTR_UNUSED)
{
    if (!call->body)
        return OUTR_MIDDLEWARE_PASS;
    filter *f = outr_arena_alloc(call->arena, sizeof *f);
    *f = (filter){.source = {.ops = &source_ops, .length = call->body->length},
                  .sink = {.ops = &sink_ops, .source = call->body}};
    call->body = &f->source;
    return OUTR_MIDDLEWARE_PASS;
}

static void close_it(outr_middleware *m, outr_op *op)
{
    free(m);
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static outr_code create(outr_middleware **out, const outr_component_init *init OUTR_UNUSED,
                        outr_err *err OUTR_UNUSED)
{
    outr_middleware *m = outr_alloc(sizeof *m);
    m->backend = &outr_middleware_uppercase;
    *out = m;
    return OUTR_OK;
}

const outr_middleware_backend outr_middleware_uppercase = {
    .base = {"middleware.http.uppercase", "v1", NULL, 0},
    .create = create,
    .open = outr_middleware_open,
    .close = close_it,
    .handle = handle,
};
