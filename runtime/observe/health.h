/* health - which targets of /v1.0/healthz are ready. Written by any thread, read by every loop. */
#ifndef OUTR_OBSERVE_HEALTH_H
#define OUTR_OBSERVE_HEALTH_H

#include "base/buf.h"

typedef enum outr_health_target {
    OUTR_HEALTH_RUNTIME,       /* "runtime": start order done */
    OUTR_HEALTH_GRPC_API,      /* "grpc-api-server" */
    OUTR_HEALTH_GRPC_INTERNAL, /* "grpc-internal-server" */
    OUTR_HEALTH_METRICS,       /* "metrics-exporter" */
    OUTR_HEALTH_SECURITY,      /* "security-provider" */
    OUTR_HEALTH_OUTBOUND,      /* the one target of /v1.0/healthz/outbound, "app" */
    OUTR_HEALTH_COUNT,
} outr_health_target;

typedef struct outr_health {
    uint32_t ready; /* atomic bits */
} outr_health;

void outr_health_set(outr_health *health, outr_health_target target, bool is_ready);
bool outr_health_is_ready(const outr_health *health); /* all but OUTBOUND */
bool outr_health_is_outbound_ready(const outr_health *health);
void outr_health_missing(const outr_health *health,
                         outr_buf *out); /* "[runtime grpc-api-server]" */

#endif
