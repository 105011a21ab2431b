/* configuration - reading and watching configuration, once for both front ends. Source: contract/
 * http-routes.csv, error-codes.csv, metrics.csv.
 *
 * Errors (see core.h), none with details: CONFIGURATION_STORE_NOT_CONFIGURED,
 * CONFIGURATION_STORE_NOT_FOUND, CONFIGURATION_GET, CONFIGURATION_SUBSCRIBE,
 * CONFIGURATION_UNSUBSCRIBE. Counted as dapr_component_configuration_*. */
#ifndef OUTR_API_CORE_CONFIGURATION_H
#define OUTR_API_CORE_CONFIGURATION_H

#include "api/core/core.h"
#include "blocks/configuration/configuration.h"
#include "resiliency/guarded.h"

/* Whether there is such a store, before anything else of a request is judged. */
outr_code outr_core_configuration_check(const outr_core *core, outr_str store_name, outr_err *err);

typedef struct outr_core_configuration {
    /* in */
    outr_core core;
    outr_str store_name;
    outr_configuration_get get; /* keys, key_count, metadata; out: items, count */
    /* machinery */
    outr_configuration_store *store;
    outr_guarded guarded;
    uint64_t began_ns;
    outr_op inner;
    outr_op *op;
} outr_core_configuration;
void outr_core_configuration_get_start(outr_core_configuration *call, outr_op *op);

typedef struct outr_core_config_subscribe {
    /* in */
    outr_core core;
    outr_config_sub *sub; /* as outr_config_sub_open wants it */
    /* machinery */
    uint64_t began_ns;
    outr_op inner;
    outr_op *op;
    outr_str store_name, keys; /* as errors name them */
} outr_core_config_subscribe;
void outr_core_config_subscribe_start(outr_core_config_subscribe *call, outr_op *op);

typedef struct outr_core_config_unsubscribe {
    /* in */
    outr_core core;
    outr_str store_name, id;
    /* machinery */
    outr_config_leave leave;
    uint64_t began_ns;
    outr_op inner;
    outr_op *op;
} outr_core_config_unsubscribe;
void outr_core_config_unsubscribe_start(outr_core_config_unsubscribe *call, outr_op *op);

#endif
