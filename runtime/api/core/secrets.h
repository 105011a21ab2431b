/* secrets - reading secrets under the scopes of the Configuration, once for both front ends.
 * Source: contract/error-codes.csv, yaml-configuration.csv. Values never reach a log.
 *
 * Errors (see core.h), none with details: SECRET_STORES_NOT_CONFIGURED, SECRET_STORE_NOT_FOUND,
 * PERMISSION_DENIED (one secret that the scopes deny), SECRET_GET (the store failed). */
#ifndef OUTR_API_CORE_SECRETS_H
#define OUTR_API_CORE_SECRETS_H

#include "api/core/core.h"
#include "resiliency/guarded.h"

typedef struct outr_core_secrets {
    /* in */
    outr_core core;
    outr_str store_name;
    outr_str name; /* not for bulk */
    bool is_bulk;  /* all that the scopes allow */
    outr_kvs metadata;
    /* out: one at most unless bulk; values is what one secret consists of */
    const outr_secret *secrets;
    size_t count;
    /* machinery */
    const outr_component *store;
    outr_snapshot *snapshot; /* the scopes' */
    outr_secret_get get;
    outr_guarded guarded;
    outr_op inner;
    outr_op *op;
    uint64_t began_ns;
} outr_core_secrets;

/* Counts as dapr_component_secret_*. */
void outr_core_secrets_start(outr_core_secrets *call, outr_op *op);

#endif
