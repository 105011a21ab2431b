/* metadata - the metadata API: what the sidecar tells of itself, and the extended key/value pairs
 * that clients set (shared by all loops, lost at exit as in Dapr). Source: contract/
 * http-routes.csv, grpc-messages.csv (GetMetadataResponse). */
#ifndef OUTR_API_CORE_METADATA_H
#define OUTR_API_CORE_METADATA_H

#include "api/core/core.h"
#include "blocks/pubsub/pubsub.h"

/* What a client may make it grow to. */
#define OUTR_METADATA_KEYS_MAX  1024
#define OUTR_METADATA_BYTES_MAX 1048576

typedef struct outr_metadata outr_metadata;

outr_metadata *outr_metadata_new(void);
void outr_metadata_free(outr_metadata *metadata);
/* Copies both; an empty key sets nothing, as in Dapr. RESOURCE_EXHAUSTED beyond the
 * caps. Any thread. */
outr_code outr_metadata_set(outr_metadata *metadata, outr_str key, outr_str value, outr_err *err);
/* All pairs in order of their first set, copied to arena. Any thread. */
outr_kvs outr_metadata_all(outr_metadata *metadata, outr_arena *arena);

/* The picture of one moment; texts on the arena, or as long as the view and the snapshot. */
typedef struct outr_core_metadata {
    outr_str id, runtime_version;
    const outr_str *features; /* spec.features that are on, built-in ones first */
    size_t feature_count;
    const outr_component **components; /* name, type, version: spec; capabilities */
    size_t component_count;
    outr_kvs extended; /* daprRuntimeVersion, components that are left out, then the clients' */
    const outr_subscription_info *subscriptions;
    size_t subscription_count;
    const outr_str *endpoints; /* names of HTTPEndpoints */
    size_t endpoint_count;
    struct {
        uint16_t port; /* 0: no app */
        outr_str protocol, channel_address;
        int64_t max_concurrency; /* 0: no limit */
        bool has_health;
        outr_str health_path;                     /* NONE when the app speaks gRPC */
        outr_str health_interval, health_timeout; /* durations as Go prints them */
        int64_t health_threshold;
    } app;
    /* Without a placement service this never changes: DISABLED, not ready. */
    struct {
        outr_str status; /* name in ActorRuntime.ActorRuntimeStatus */
        bool is_host_ready;
        outr_str placement;
    } actors;
    /* Not there: scheduler, MCP servers, access policies. gRPC has an empty `workflows`, HTTP none.
     */
} outr_core_metadata;

/* headers: of the request, or its metadata over gRPC. With OUTR_METADATA_ENDPOINTS ("*", or an app
 * id) extended has a member outrigger.endpoints, too: the JSON of api/core/mesh.h. */
#define OUTR_METADATA_ENDPOINTS "outrigger-endpoints"
void outr_core_metadata_read(const outr_core *core, const outr_headers *headers,
                             outr_core_metadata *out);
/* "DECLARATIVE", "PROGRAMMATIC", "STREAMING" */
const char *outr_core_subscription_type(const outr_subscription_info *info);

#endif
