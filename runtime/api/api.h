/* api - what both front ends of one loop work with. */
#ifndef OUTR_API_API_H
#define OUTR_API_API_H

#include "blocks/host.h"
#include "config/snapshot.h"
#include "http/router.h"
#include "mesh/mesh.h"
#include "observe/health.h"
#include "observe/trace.h"
#include "security/token.h"

struct outr_pubsub;         /* blocks/pubsub */
struct outr_configurations; /* blocks/configuration */

typedef struct outr_api outr_api;

/* One per loop; everything in it is borrowed and outlives it unless said otherwise. */
struct outr_api {
    outr_loop *loop;
    const outr_log *log;
    const outr_settings *settings;
    const outr_snapshot *snapshot; /* referenced; swapped by outr_api_update */
    outr_trace_config trace;    /* of the snapshot */
    struct outr_tracer *tracer; /* observe/span.h; NULL: no span is exported */
    outr_health *health;
    outr_host *host;
    outr_app *app;
    outr_mesh *mesh;
    struct outr_pubsub *pubsub;
    struct outr_configurations *configurations;
    struct outr_metadata *metadata; /* api/core/metadata.h: shared key/values */
    outr_token_view token;          /* freed by outr_api_done */
    outr_router *router, *public_router;
    bool is_invoke_open; /* spec.api leaves the invoke group open */
    outr_metric_shard *metrics;
    struct outr_api_metrics *http_metrics;       /* made by outr_api_open */
    struct outr_map *grpc_methods;               /* open ones by path; made by outr_grpc_api_open */
    void (*shutdown)(void *ctx, bool is_forced); /* POST /v1.0/shutdown; called on this loop */
    void *shutdown_ctx;
};

#endif
