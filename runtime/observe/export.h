/* export - spans on their way to collectors: OTLP over gRPC or HTTP, Zipkin, the log.
 *
 * One for the process, at home on one loop (the main one). Every loop's tracer gives it full
 * batches; each collector has a queue of its own with a cap in bytes, over which the oldest batch
 * goes and is counted, and at most four calls under way. A collector that is slow, hangs, refuses
 * or is not there costs that much memory and nobody's time: it is asked again after growing pauses
 * for ever. Source: contract/yaml-configuration.csv spec.tracing, env.csv OTEL_*, the OTLP
 * specification ("OTLP/gRPC response", "OTLP/HTTP response"), Zipkin's v2 API. */
#ifndef OUTR_OBSERVE_EXPORT_H
#define OUTR_OBSERVE_EXPORT_H

#include "base/map.h"
#include "loop/op.h"
#include "observe/span.h"

typedef struct outr_exporter outr_exporter;

typedef struct outr_exporter_options {
    outr_loop *loop;
    const outr_log *log;   /* of failures and, with to_log, of spans */
    outr_str service_name; /* texts are copied */
    outr_kvs resource;     /* attributes of the resource beside service.name */
    bool to_log;
    outr_str zipkin_url; /* empty: none */
    struct {
        outr_str address; /* host:port, perhaps behind a scheme; empty: none */
        bool is_http;     /* else gRPC */
        bool is_secure;
        outr_kvs headers;
        uint64_t timeout_ns; /* of one call; 0: 10 s */
    } otlp;
    size_t max_queued_bytes; /* of each collector; 0: 4 MiB */
} outr_exporter_options;

/* INVALID_ARGUMENT: an address that is none, named by its field. */
outr_code outr_exporter_new(outr_exporter **out, const outr_exporter_options *options,
                            outr_err *err);
/* take of outr_tracer_options, ctx the exporter: from any loop. */
void outr_exporter_take(void *exporter, outr_span_batch *own_batch);
/* On its loop. What has been given so far is sent, each batch once more at most; what is not
 * there after patience_ns is dropped. Batches that come later are dropped too. */
void outr_exporter_close(outr_exporter *exporter, uint64_t patience_ns, outr_op *op);
/* After close, or when its loop has never run; when no loop can give it anything. NULL is fine. */
void outr_exporter_free(outr_exporter *exporter);

#endif
