/* pipe - a body on its way: a source pushes slices into a sink, the sink's fullness stops the
 * source.
 *
 * Protocol. The consumer attaches its sink with outr_source_attach; from then on the source calls
 * sink->data for each piece while the sink is not full, then exactly one of sink->end or
 * sink->abort
 * (never from inside attach). data returns false when it is full; the source then stops reading
 * from
 * its peer, and goes on when outr_source_resume is called. A source holds at most one flow-control
 * window (256 KiB) back. Either side may vanish: the consumer calls outr_source_cancel, after which
 * the source never touches the sink again; the producer calls sink->abort. */
#ifndef OUTR_NET_PIPE_H
#define OUTR_NET_PIPE_H

#include "base/buf.h"
#include "base/chunk.h"
#include "base/err.h"
#include "loop/loop.h"

typedef struct outr_source outr_source;
typedef struct outr_sink outr_sink;
struct outr_headers; /* http/message.h; trailers are opaque here */

typedef struct outr_sink_ops {
    bool (*data)(outr_sink *sink, outr_slice own_slice); /* false: full, wait for resume */
    void (*end)(outr_sink *sink,
                const struct outr_headers *trailers); /* trailers: NULL or borrowed for the call */
    void (*abort)(outr_sink *sink, const outr_err *err); /* broken off: never a clean end */
} outr_sink_ops;

struct outr_sink {
    const outr_sink_ops *ops;
    outr_source *source; /* who feeds it, for resume; set by attach */
};

typedef struct outr_source_ops {
    void (*start)(outr_source *source);  /* a sink was attached: begin pushing (deferred) */
    void (*resume)(outr_source *source); /* the sink has room again */
    void (*cancel)(outr_source *source, const outr_err *err); /* nobody wants the rest */
} outr_source_ops;

struct outr_source {
    const outr_source_ops *ops;
    outr_sink *sink;
    int64_t length; /* bytes to come when known (Content-Length), else -1 */
};

void outr_source_attach(outr_source *source, outr_sink *sink);
static inline void outr_source_resume(outr_source *source)
{
    if (source && source->sink)
        source->ops->resume(source);
}
void outr_source_cancel(outr_source *source, const outr_err *err); /* NULL source is fine */

/* A source over bytes in memory (borrowed until end/abort/cancel). */
typedef struct outr_memory_source {
    outr_source base;
    outr_str bytes;
    struct outr_loop *loop;
    outr_deferred pusher;
} outr_memory_source;
void outr_memory_source_init(outr_memory_source *source, struct outr_loop *loop, outr_str bytes);

/* A sink that gathers a whole body, up to max_bytes (RESOURCE_EXHAUSTED over it), then calls done
 * once with err NULL or set. body is contiguous in buf, which is the gatherer's: outr_buf_done it.
 */
typedef struct outr_gather {
    outr_sink base;
    outr_buf body;
    void (*done)(struct outr_gather *gather, const outr_err *err);
    void *ctx;
} outr_gather;
void outr_gather_start(outr_gather *gather, outr_source *source, size_t max_bytes,
                       void (*done)(outr_gather *gather, const outr_err *err), void *ctx);
/* Stops listening; frees the body. */
void outr_gather_cancel(outr_gather *gather);

#endif
