/* lock - vtable of lock stores. Source: contract/state.md (lock.redis), error-codes.csv.
 *
 * A lock is a name that one owner holds until it gives it back or its time is over. Names come with
 * their prefix already put on. Requests lie on the caller's arena until the op is done. */
#ifndef OUTR_COMPONENTS_LOCK_H
#define OUTR_COMPONENTS_LOCK_H

#include "components/component.h"

typedef struct outr_lock_store outr_lock_store;

typedef struct outr_lock_try {
    outr_str name, owner;
    int64_t expiry_ns; /* more than 0 */
    bool is_taken;     /* out; false: somebody holds it, be it this owner */
} outr_lock_try;

/* Numbers of the wire (UnlockResponse.Status). */
typedef enum outr_unlock_status {
    OUTR_UNLOCKED = 0,
    OUTR_UNLOCK_ABSENT = 1, /* nobody holds it */
    OUTR_UNLOCK_OTHERS = 2, /* another owner does */
    OUTR_UNLOCK_INTERNAL = 3,
} outr_unlock_status;

typedef struct outr_unlock {
    outr_str name, owner;
    outr_unlock_status status; /* out */
} outr_unlock;

typedef struct outr_lock_backend {
    outr_backend base;
    outr_code (*create)(outr_lock_store **out, const outr_component_init *init,
                        outr_err *err);                /* checks metadata; no I/O */
    void (*open)(outr_lock_store *store, outr_op *op);
    void (*close)(outr_lock_store *store, outr_op *op); /* then frees store */
    void (*try_lock)(outr_lock_store *store, outr_lock_try *req, outr_op *op);
    void (*unlock)(outr_lock_store *store, outr_unlock *req, outr_op *op);
} outr_lock_backend;

struct outr_lock_store {
    const outr_lock_backend *backend;
};

#endif
