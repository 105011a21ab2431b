/* span - what one hop did, kept until it is over and handed on in batches.
 *
 * A span has two halves. While the hop runs it is an outr_trace on the request's arena
 * (outr_trace_start, for a part of a hop outr_trace_child); when it is over, and only when it is
 * sampled, it is recorded: all that it says is copied into the loop's open batch. So a request
 * that is not sampled costs nothing here, and one that is allocates nothing of its own. A tracer
 * lives on one loop; a full batch, or one that has waited for a second, is given to `take`, which
 * owns it from then on. Texts are cut and made UTF-8 without NUL, as no collector takes others.
 *
 * An attempt of a call (resiliency, mesh):
 *
 *     outr_trace_child(&attempt->trace, &invoke->trace, rand);      before it is sent
 *     if (outr_span_is_wanted(&mesh->trace, &attempt->trace))       when it is over
 *         outr_span_attempt(mesh->trace.tracer, &(outr_attempt_span){...});
 */
#ifndef OUTR_OBSERVE_SPAN_H
#define OUTR_OBSERVE_SPAN_H

#include "base/map.h"
#include "loop/loop.h"
#include "observe/trace.h"

typedef struct outr_tracer outr_tracer;
typedef struct outr_span_batch outr_span_batch;

typedef enum outr_span_kind { /* OpenTelemetry's numbers */
    OUTR_SPAN_INTERNAL = 1,
    OUTR_SPAN_SERVER = 2,
    OUTR_SPAN_CLIENT = 3,
    OUTR_SPAN_PRODUCER = 4,
    OUTR_SPAN_CONSUMER = 5,
} outr_span_kind;

#define OUTR_SPAN_ATTRIBUTES_MAX 24 /* more are left out */
#define OUTR_SPAN_NAME_MAX       256
#define OUTR_SPAN_VALUE_MAX      512 /* of an attribute, of what a failure says */

typedef struct outr_span {
    const outr_trace *trace;
    outr_span_kind kind;
    outr_str name;
    uint64_t began_ns; /* the loop's clock; it ends now */
    bool is_error;
    outr_str failure;    /* in words, when is_error */
    size_t header_count; /* of the attributes the last so many are headers */
    size_t attribute_count;
    outr_kv attributes[OUTR_SPAN_ATTRIBUTES_MAX];
} outr_span;

/* Whether there is anything to record at the end of this span. */
static inline bool outr_span_is_wanted(const outr_trace_config *config, const outr_trace *trace)
{
    return config->tracer && trace->is_valid && (trace->flags & OUTR_TRACE_SAMPLED);
}

static inline void outr_span_init(outr_span *span, const outr_trace *trace, outr_span_kind kind,
                                  outr_str name, uint64_t began_ns)
{
    span->trace = trace;
    span->kind = kind;
    span->name = name;
    span->began_ns = began_ns;
    span->is_error = false;
    span->failure = OUTR_STR_NONE;
    span->header_count = span->attribute_count = 0;
}
static inline void outr_span_fail(outr_span *span, outr_str failure)
{
    span->is_error = true;
    span->failure = failure;
}
/* An empty value is not there. */
static inline void outr_span_add(outr_span *span, const char *key, outr_str value)
{
    if (value.n > 0 && span->attribute_count < OUTR_SPAN_ATTRIBUTES_MAX)
        span->attributes[span->attribute_count++] = (outr_kv){outr_str_from(key), value};
}
/* Of what goes to a topic or comes from one. */
void outr_span_add_topic(outr_span *span, outr_str topic);
/* The headers of a request that begin with dapr-, which users send to have them here. The last that
 * is added. */
void outr_span_add_headers(outr_span *span, const outr_headers *headers);
void outr_span_record(outr_tracer *tracer, const outr_span *span);

/* One attempt of a call: a client span "attempt", the first has number 1. */
typedef struct outr_attempt_span {
    const outr_trace *trace;
    uint64_t began_ns;
    unsigned number;
    outr_str app_id, address; /* whom it went to; address may be NONE */
    outr_code code;           /* how it ended */
    int status;               /* of the answer, HTTP; 0: none came */
    outr_str text, reason;    /* why it failed, and the same in a word; may be NONE */
} outr_attempt_span;
void outr_span_attempt(outr_tracer *tracer, const outr_attempt_span *attempt);

typedef struct outr_tracer_options {
    outr_loop *loop;
    void (*take)(void *ctx, outr_span_batch *own_batch); /* on loop */
    void *ctx;
} outr_tracer_options;
outr_tracer *outr_tracer_new(const outr_tracer_options *options);
void outr_tracer_flush(outr_tracer *tracer); /* what is open is taken now */
void outr_tracer_free(outr_tracer *tracer);  /* on its loop, or after it; flushes. NULL is fine */

/* ---- batches --------------------------------------------------------------------------------- */

#define OUTR_SPAN_BATCH_SPANS 128
#define OUTR_SPAN_BATCH_BYTES ((size_t)48 * 1024)

/* A span as it lies in a batch; its texts follow, each with a NUL behind it. */
typedef struct outr_span_item {
    uint32_t size; /* with its texts */
    uint8_t kind, flags;
    bool is_error, has_parent;
    uint8_t trace_id[16], span_id[8], parent_id[8];
    int64_t began_unix_ns, ended_unix_ns;
    uint32_t attribute_count;
    char texts[];
} outr_span_item;

struct outr_span_batch {
    outr_message message; /* its owner's */
    void *owner;
    uint32_t refs; /* its owner's */
    uint32_t count, used;
    /* OUTR_SPAN_BATCH_BYTES while it is open, `used` when it has been taken */
    _Alignas(8) char records[];
};
static inline size_t outr_span_batch_bytes(const outr_span_batch *batch) /* in memory */
{
    return sizeof *batch + batch->used;
}

/* What a record says; everything points into the batch. */
typedef struct outr_span_view {
    const outr_span_item *item;
    const char *name, *failure, *state;
    const char *keys[OUTR_SPAN_ATTRIBUTES_MAX], *values[OUTR_SPAN_ATTRIBUTES_MAX];
} outr_span_view;
/* The next record behind *at (0 at the beginning), or false. */
bool outr_span_batch_next(const outr_span_batch *batch, size_t *at, outr_span_view *out);
void outr_span_batch_free(outr_span_batch *batch);

#endif
