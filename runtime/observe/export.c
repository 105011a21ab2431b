#include "observe/export.h"

#include "base/copy.h"
#include "base/encode.h"
#include "base/url.h"
#include "observe/collector.h"

#define COLLECTORS_MAX 2
#define TRANSIT_MAX    (4 * OUTR_MIB) /* given by loops, not yet looked at by ours */

typedef struct closing {
    outr_exporter *e;
    outr_op op;
} closing;

struct outr_exporter {
    outr_loop *loop;
    outr_log log;
    bool to_log;
    outr_arena *arena;
    outr__resource resource;
    outr__collector *collectors[COLLECTORS_MAX];
    size_t collector_count;
    size_t transit_bytes;    /* atomic */
    uint64_t transit_dropped; /* atomic; spans not yet in the metric */
    bool is_closed;
    closing closings[COLLECTORS_MAX];
    size_t open_count;
    outr_op *op; /* of close */
};

/* ---- the log --------------------------------------------------------------------------------- */

static void log_span(const outr_exporter *e, const outr_span_view *v)
{
    const outr_span_item *item = v->item;
    char trace[33], span[17], parent[17] = "";
    outr_hex_encode(item->trace_id, 16, trace);
    outr_hex_encode(item->span_id, 8, span);
    if (item->has_parent)
        outr_hex_encode(item->parent_id, 8, parent);
    OUTR_LOG(&e->log, INFO, "span", OUTR_Z("name", v->name),
             OUTR_S("trace", outr_str_of(trace, 32)), OUTR_S("span", outr_str_of(span, 16)),
             OUTR_S("parent", outr_str_of(parent, item->has_parent ? 16 : 0)),
             OUTR_I("start_us", item->began_unix_ns / 1000),
             OUTR_I("duration_us", (item->ended_unix_ns - item->began_unix_ns) / 1000),
             OUTR_Z("failure", v->failure));
}

/* ---- batches that come ----------------------------------------------------------------------- */

static void put(outr_exporter *e, outr_span_batch *batch)
{
    outr_span_view view;
    uint64_t lost = __atomic_exchange_n(&e->transit_dropped, 0, __ATOMIC_RELAXED);
    outr__count_dropped(e->loop, "all", "queue_full", lost);
    if (e->is_closed)
        outr__count_dropped(e->loop, "all", "shutdown", batch->count);
    batch->refs = 1;
    for (size_t at = 0; e->to_log && outr_span_batch_next(batch, &at, &view);)
        log_span(e, &view);
    for (size_t i = 0; !e->is_closed && i < e->collector_count; i++)
        outr__collector_put(e->collectors[i], batch);
    outr__batch_unref(batch);
}

static void on_given(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_span_batch *batch = OUTR_CONTAINER(message, outr_span_batch, message);
    outr_exporter *e = batch->owner;
    __atomic_fetch_sub(&e->transit_bytes, outr_span_batch_bytes(batch), __ATOMIC_RELAXED);
    put(e, batch);
}

void outr_exporter_take(void *exporter, outr_span_batch *own_batch)
{
    outr_exporter *e = exporter;
    size_t bytes = outr_span_batch_bytes(own_batch);
    if (__atomic_add_fetch(&e->transit_bytes, bytes, __ATOMIC_RELAXED) > TRANSIT_MAX) {
        __atomic_fetch_sub(&e->transit_bytes, bytes, __ATOMIC_RELAXED);
        __atomic_fetch_add(&e->transit_dropped, own_batch->count, __ATOMIC_RELAXED);
        outr_span_batch_free(own_batch);
        return;
    }
    own_batch->owner = e;
    own_batch->message.run = on_given;
    outr_loop_post(e->loop, &own_batch->message);
}

/* ---- making it ------------------------------------------------------------------------------- */

/* "https://host:4317/" is host:4317 to gRPC. Returns what stands behind the slash. */
static outr_str cut_authority(outr_str address, outr_str *out)
{
    ptrdiff_t at = outr_str_search(address, OUTR_STR("://"));
    if (at >= 0)
        address = outr_str_skip(address, (size_t)at + 3);
    return outr_str_cut(address, '/', out);
}

/* OTLP over HTTP: the address alone has OTLP's own path, and its own port. */
static outr_str otlp_url(outr_exporter *e, outr_str address, bool is_secure)
{
    outr_str authority, host, path = cut_authority(address, &authority);
    uint16_t port = 0;
    bool has_port = outr_hostport_parse(authority, &host, &port, NULL) == OUTR_OK && port > 0;
    return outr_arena_printf(e->arena, "%s://" OUTR_FMT "%s/" OUTR_FMT,
                             is_secure ? "https" : "http", OUTR_ARG(authority),
                             has_port ? "" : ":4318",
                             OUTR_ARG(path.n ? path : OUTR_STR("v1/traces")));
}

static outr_code add(outr_exporter *e, const outr__collector_options *options, const char *field,
                     outr_err *err)
{
    if (outr__collector_new(&e->collectors[e->collector_count], options, err))
        return outr_wrap(err, "spec.tracing.%s", field);
    e->collector_count++;
    return OUTR_OK;
}

static outr_code add_collectors(outr_exporter *e, const outr_exporter_options *o, outr_err *err)
{
    outr_code rc = OUTR_OK;
    outr__collector_options c = {.loop = e->loop,
                                 .log = &e->log,
                                 .resource = &e->resource,
                                 .max_queued_bytes = o->max_queued_bytes};
    if (o->zipkin_url.n > 0) {
        c.name = "zipkin";
        c.kind = OUTR__ZIPKIN;
        c.place = o->zipkin_url;
        rc = add(e, &c, "zipkin.endpointAddress", err);
    }
    if (!rc && o->otlp.address.n > 0) {
        c.name = "otlp";
        c.kind = o->otlp.is_http ? OUTR__OTLP_HTTP : OUTR__OTLP_GRPC;
        if (o->otlp.is_http)
            c.place = otlp_url(e, o->otlp.address, o->otlp.is_secure);
        else
            cut_authority(o->otlp.address, &c.place);
        c.is_secure = o->otlp.is_secure;
        c.headers = o->otlp.headers;
        c.timeout_ns = o->otlp.timeout_ns;
        rc = add(e, &c, "otel.endpointAddress", err);
    }
    return rc;
}

outr_code outr_exporter_new(outr_exporter **out, const outr_exporter_options *options,
                            outr_err *err)
{
    outr_exporter *e = outr_alloc(sizeof *e);
    e->loop = options->loop;
    e->to_log = options->to_log;
    if (options->log)
        e->log = (outr_log){options->log->sink, "outrigger.runtime.trace"};
    e->arena = outr_arena_new(OUTR_MIB);
    e->resource.service_name = outr_arena_str(e->arena, options->service_name);
    e->resource.attributes = outr_kvs_copy(e->arena, options->resource);
    outr_code rc = add_collectors(e, options, err);
    if (rc) {
        outr_exporter_free(e);
        return rc;
    }
    *out = e;
    return OUTR_OK;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_collector_closed(outr_op *op)
{
    outr_exporter *e = OUTR_CONTAINER(op, closing, op)->e;
    if (--e->open_count == 0)
        outr_op_finish(e->op);
}

void outr_exporter_close(outr_exporter *e, uint64_t patience_ns, outr_op *op)
{
    e->op = op;
    e->is_closed = true;
    outr_op_begin(op, e, NULL);
    e->open_count = e->collector_count;
    if (e->collector_count == 0)
        outr_op_finish_soon(op);
    for (size_t i = 0; i < e->collector_count; i++) {
        e->closings[i].e = e;
        outr_op_init(&e->closings[i].op, e->loop, NULL, outr_loop_now(e->loop) + patience_ns,
                     on_collector_closed);
        outr__collector_close(e->collectors[i], &e->closings[i].op);
    }
}

void outr_exporter_free(outr_exporter *e)
{
    if (!e)
        return;
    for (size_t i = 0; i < e->collector_count; i++)
        outr__collector_free(e->collectors[i]);
    outr_arena_free(e->arena);
    free(e);
}
