/* lock - taking a lock and giving it back, once for both front ends. Source: contract/
 * http-routes.csv, error-codes.csv.
 *
 * Errors (see core.h), none with details: MALFORMED_REQUEST (no resource, no owner, an expiry that
 * is not positive), LOCK_STORE_NOT_CONFIGURED, LOCK_STORE_NOT_FOUND, TRY_LOCK, UNLOCK (the store
 * failed, or "||" in the resource). A lock that somebody else holds is none. */
#ifndef OUTR_API_CORE_LOCK_H
#define OUTR_API_CORE_LOCK_H

#include "api/core/core.h"
#include "resiliency/guarded.h"

typedef struct outr_core_lock {
    /* in */
    outr_core core;
    bool is_unlock;
    outr_str store_name, resource, owner;
    int64_t expiry_seconds; /* not for unlock */
    /* out */
    bool is_taken;
    outr_unlock_status status; /* of unlock */
    /* machinery */
    const outr_component *store;
    outr_lock_try taking;
    outr_unlock giving;
    outr_guarded guarded;
    outr_op inner;
    outr_op *op;
} outr_core_lock;

void outr_core_lock_start(outr_core_lock *call, outr_op *op);

#endif
