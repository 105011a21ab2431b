/* snapshot - everything the YAML said, immutable, refcounted (atomically: loops share it).
 *
 * Loading is all or nothing: on any error that ends the start in daprd the call fails with every
 * mistake listed as file:line:column; what daprd only logs (a file that is not YAML, resources of
 * other kinds) becomes a warning. */
#ifndef OUTR_CONFIG_SNAPSHOT_H
#define OUTR_CONFIG_SNAPSHOT_H

#include <pthread.h>

#include "base/err.h"
#include "config/resource.h"
#include "config/settings.h"
#include "config/traffic.h"

/* What other layers make of a snapshot, once. */
typedef enum outr_part {
    OUTR_PART_ACCESS,   /* security/policy.h: configuration.access and access_policies */
    OUTR_PART_POLICIES, /* resiliency/policies.h: resiliencies */
    OUTR_PART_ROUTES,   /* mesh/route.h: traffic */
    OUTR_PART_INBOUND,  /* mesh/inbound.h: inbound of traffic */
    OUTR_PART_COUNT
} outr_part;

typedef struct outr_snapshot {
    uint32_t refs; /* atomic */
    outr_arena *arena;
    outr_configuration configuration;
    /* of Configurations in resource folders: only whether they changed */
    uint64_t folder_configuration_digest;
    /* in file order, filtered by scope and namespace */
    const outr_component_spec *components;
    size_t component_count;
    const outr_subscription_spec *subscriptions;
    size_t subscription_count;
    const outr_endpoint_spec *endpoints;
    size_t endpoint_count;
    const outr_resiliency_spec *resiliencies;
    size_t resiliency_count;
    const outr_policy_spec *access_policies;
    size_t access_policy_count;
    const outr_traffic_spec *traffic; /* TrafficPolicies */
    size_t traffic_count;
    const outr_authn_spec *authn; /* NULL: no tokens are looked at */
    /* machinery of outr_snapshot_part */
    pthread_mutex_t making;
    struct {
        void *made; /* atomic; NULL: not yet */
        void (*free)(void *made);
    } parts[OUTR_PART_COUNT];
} outr_snapshot;

/* Reads --config files and resource folders. errors: fatal mistakes (non-empty exactly when it
 * fails); warnings: the rest. */
outr_code outr_snapshot_load(outr_snapshot **out, const outr_settings *settings, char *const *envp,
                             outr_err_list *errors, outr_err_list *warnings);
/* One in which nothing is said yet, on an arena that goes with it. */
outr_snapshot *outr_snapshot_new(outr_arena *own_arena);
outr_snapshot *outr_snapshot_ref(const outr_snapshot *snapshot);
void outr_snapshot_unref(outr_snapshot *snapshot);

typedef struct outr_part_ops {
    void *(*make)(const outr_snapshot *snapshot, const void *ctx); /* never NULL */
    void (*free)(void *made); /* with the snapshot */
} outr_part_ops;
/* Made when it is first asked for, by whichever loop; others wait for it, which takes no longer
 * than to make it themselves. make must not ask for another part. */
void *outr_snapshot_part(const outr_snapshot *snapshot, outr_part part, const outr_part_ops *ops,
                         const void *ctx);

#endif
