/* metric - counters, gauges and histograms with bounded labels.
 *
 * A family is a const descriptor; a series is a family plus label values. Each loop writes to its
 * own shard (one writer, relaxed stores), a scrape adds the shards up. What a label may take is
 * capped: past max_values distinct values of one label of one family the value becomes "other", so
 * that no client can make memory grow. */
#ifndef OUTR_BASE_METRIC_H
#define OUTR_BASE_METRIC_H

#include "base/base.h"
#include "base/buf.h"
#include "base/str.h"

#define OUTR_METRIC_LABELS_MAX 8

typedef enum outr_metric_kind { OUTR_COUNTER, OUTR_GAUGE, OUTR_HISTOGRAM } outr_metric_kind;
typedef enum outr_bucket_set {
    OUTR_BUCKETS_LATENCY_MS,
    OUTR_BUCKETS_BYTES,
    OUTR_BUCKETS_RATIO
} outr_bucket_set;

typedef struct outr_metric_desc {
    const char *name; /* "dapr_http_server_request_count" */
    const char *help;
    outr_metric_kind kind;
    outr_bucket_set buckets;                    /* histograms */
    const char *labels[OUTR_METRIC_LABELS_MAX]; /* besides app_id; NULL-terminated */
} outr_metric_desc;

typedef struct outr_metrics outr_metrics;
typedef struct outr_metric_shard outr_metric_shard;
typedef struct outr_metric_series outr_metric_series;

typedef struct outr_metrics_options {
    outr_str app_id; /* first label of every series */
    size_t shard_count;
    size_t max_values; /* per label and family; 0: 100 */
    const double
        *latency_buckets_ms; /* NULL: contract/metrics.csv set L with 0.1 0.25 0.5 before it */
    size_t latency_bucket_count;
} outr_metrics_options;

outr_metrics *outr_metrics_new(const outr_metrics_options *options);
void outr_metrics_free(outr_metrics *metrics);
outr_metric_shard *outr_metrics_shard(outr_metrics *metrics, size_t index);

/* The series of these label values (as many as desc has labels), made when new. Never NULL; lives
 * as
 * long as metrics. Keep the pointer where a request would look it up again. shard may be NULL: all
 * of this is then a no-op (returns a dummy). */
outr_metric_series *outr_metric_series_get(outr_metric_shard *shard, const outr_metric_desc *desc,
                                           const outr_str *values);
void outr_metric_add(outr_metric_series *series, double n);     /* counter, gauge */
void outr_metric_set(outr_metric_series *series, double value); /* gauge */
void outr_metric_observe(outr_metric_series *series, double value);
/* One-off: look up and add/observe. */
void outr_metric_count(outr_metric_shard *shard, const outr_metric_desc *desc,
                       const outr_str *values, double n);
/* Figures that are looked up at each scrape instead of being counted: what comes and goes, of which
 * series would stay. Set before the first scrape; write is called on the scraping thread. */
typedef void outr_metric_write_fn(void *ctx, outr_str app_id, uint64_t now_ns, outr_buf *out);
void outr_metrics_look_up(outr_metrics *metrics, outr_metric_write_fn *write, void *ctx);
void outr_metrics_write_looked_up(outr_metrics *metrics, uint64_t now_ns, outr_buf *out);
/* A label's value in quotes, as the format escapes it. */
void outr_metric_write_value(outr_buf *out, outr_str value);
/* Prometheus text format 0.0.4 of all shards; labels sorted by name. Callable from any thread. */
void outr_metrics_write(outr_metrics *metrics, outr_buf *out);

#endif
