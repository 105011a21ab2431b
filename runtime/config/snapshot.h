/* snapshot - everything the YAML said, immutable, refcounted (atomically: loops share it).
 *
 * Loading is all or nothing: on any error that ends the start in daprd the call fails with every
 * mistake listed as file:line:column; what daprd only logs (a file that is not YAML, resources of
 * other kinds) becomes a warning. */
#ifndef OUTR_CONFIG_SNAPSHOT_H
#define OUTR_CONFIG_SNAPSHOT_H

#include "base/err.h"
#include "config/resource.h"
#include "config/settings.h"
#include "config/traffic.h"

typedef struct outr_snapshot {
    uint32_t refs; /* atomic */
    struct outr_arena *arena;
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
    /* configuration.access and access_policies as security/policy.h has compiled them; atomic, NULL
     * until then */
    void *access;
    void (*free_access)(void *access);
    /* resiliencies as resiliency/policies.h has compiled them; atomic, NULL until then */
    void *policies;
    void (*free_policies)(void *policies);
    /* traffic as mesh/route.h has compiled it; atomic, NULL until then */
    void *routes;
    void (*free_routes)(void *routes);
    /* inbound of traffic as mesh/inbound.h has compiled it; atomic, NULL until then */
    void *inbound;
    void (*free_inbound)(void *inbound);
} outr_snapshot;

/* Reads --config files and resource folders. errors: fatal mistakes (non-empty exactly when it
 * fails); warnings: the rest. */
outr_code outr_snapshot_load(outr_snapshot **out, const outr_settings *settings, char *const *envp,
                             outr_err_list *errors, outr_err_list *warnings);
outr_snapshot *outr_snapshot_ref(const outr_snapshot *snapshot);
void outr_snapshot_unref(outr_snapshot *snapshot);

#endif
