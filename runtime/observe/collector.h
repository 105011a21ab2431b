/* collector - one place that spans are sent to: its queue, its calls, its pauses; and the two
 * formats. Of this directory only. */
#ifndef OUTR_OBSERVE_COLLECTOR_H
#define OUTR_OBSERVE_COLLECTOR_H

#include "observe/export.h"

/* What every span of the process has in common; lives as long as the exporter. */
typedef struct outr__resource {
    outr_str service_name;
    outr_kvs attributes;
} outr__resource;

/* ---- formats --------------------------------------------------------------------------------- */

#define OUTR__OTLP_METHOD "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
/* The bytes of an ExportTraceServiceRequest, on arena. */
outr_str outr__otlp_request(outr_arena *arena, const outr__resource *resource,
                            const outr_span_batch *batch);
/* How many spans the collector says it did not take; *why is on arena or NONE. bytes: an
 * ExportTraceServiceResponse; what is none rejects nothing. */
uint64_t outr__otlp_rejected(outr_arena *arena, outr_str bytes, outr_str *why);
/* Zipkin's list of spans, on arena. */
outr_str outr__zipkin_list(outr_arena *arena, const outr__resource *resource,
                           const outr_span_batch *batch);

/* ---- a collector ----------------------------------------------------------------------------- */

typedef struct outr__collector outr__collector;

typedef struct outr__collector_options {
    outr_loop *loop;
    const outr_log *log;
    const outr__resource *resource;
    const char *name; /* "zipkin", "otlp"; of metrics and the log */
    enum { OUTR__OTLP_GRPC, OUTR__OTLP_HTTP, OUTR__ZIPKIN } kind;
    outr_str place; /* a URL, or host:port for gRPC */
    bool is_secure; /* gRPC; a URL says it by itself */
    outr_kvs headers;
    uint64_t timeout_ns;
    size_t max_queued_bytes;
} outr__collector_options;

outr_code outr__collector_new(outr__collector **out, const outr__collector_options *options,
                              outr_err *err);
void outr__collector_put(outr__collector *collector, outr_span_batch *batch); /* adds a ref */
/* Sends what is there without pauses, then finishes op; cancelled: drops what is left. */
void outr__collector_close(outr__collector *collector, outr_op *op);
void outr__collector_free(outr__collector *collector); /* as outr_exporter_free */

void outr__batch_unref(outr_span_batch *batch);
/* Spans that nobody gets, and why: "queue_full", "refused", "rejected", "shutdown". */
void outr__count_dropped(outr_loop *loop, const char *exporter, const char *reason, uint64_t spans);

#endif
