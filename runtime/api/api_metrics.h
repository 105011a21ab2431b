/* api_metrics - dapr_http_server_* of one loop, and error codes of both front ends. Source:
 * contract/metrics.csv.
 *
 * The path label is bounded: shortened as Dapr does, replaced by spec.metrics.http.pathMatching,
 * and
 * capped by base/metric. The series of a recent (method, path, status) are kept in a small table,
 * so
 * that a request costs one hash. */
#ifndef OUTR_API_API_METRICS_H
#define OUTR_API_API_METRICS_H

#include "config/resource.h"
#include "http/server.h"

typedef struct outr_api_metrics outr_api_metrics;

/* shard may be NULL: nothing is counted. configuration is borrowed. */
outr_api_metrics *outr_api_metrics_new(outr_metric_shard *shard,
                                       const outr_configuration *configuration);
void outr_api_metrics_free(outr_api_metrics *metrics);
/* The request is over; path is as sent, without the query. */
void outr_api_metrics_record(outr_api_metrics *metrics, const outr_exchange *x, outr_str path);
/* An answer with an error code; counted only when metrics.recordErrorCodes is set. */
void outr_api_metrics_error(outr_api_metrics *metrics, outr_reason reason);

#endif
