#include "api/core/lock.h"

#include "blocks/state/keys.h"

static outr_code malformed(const outr_core_lock *c, const char *what, outr_err *err)
{
    return outr_core_fail(err, OUTR_REASON_MALFORMED_REQUEST, "%s in lock store " OUTR_FMT, what,
                          OUTR_ARG(c->store_name));
}

static outr_code failed(const outr_core_lock *c, const char *why, outr_err *err)
{
    return c->is_unlock
               ? outr_core_fail(err, OUTR_REASON_UNLOCK, "failed to release lock: %s", why)
               : outr_core_fail(err, OUTR_REASON_TRY_LOCK, "failed to try acquiring lock: %s", why);
}

/* In the order of the reference. */
static outr_code check(outr_core_lock *c, outr_err *err)
{
    if (!c->is_unlock && c->expiry_seconds <= 0)
        return malformed(c, "ExpiryInSeconds is not positive", err);
    if (outr_view_count(c->core.view, OUTR_KIND_LOCK) == 0)
        return outr_core_fail(err, OUTR_REASON_LOCK_STORE_NOT_CONFIGURED,
                              "lock store is not configured");
    if (c->resource.n == 0)
        return malformed(c, "ResourceId is empty", err);
    if (c->owner.n == 0)
        return malformed(c, "LockOwner is empty", err);
    c->store = outr_view_find(c->core.view, OUTR_KIND_LOCK, c->store_name);
    if (!c->store)
        return outr_core_fail(err, OUTR_REASON_LOCK_STORE_NOT_FOUND,
                              "lock store " OUTR_FMT " not found", OUTR_ARG(c->store_name));
    return OUTR_OK;
}

static void on_done(outr_op *inner)
{
    outr_core_lock *c = OUTR_CONTAINER(inner, outr_core_lock, inner);
    if (inner->err.code) {
        outr_err err;
        failed(c, inner->err.text, &err);
        outr_core_end(c->op, &err);
        return;
    }
    c->is_taken = c->taking.is_taken;
    c->status = c->giving.status;
    outr_op_finish(c->op);
}

static void on_cancel(outr_op *op)
{
    outr_core_lock *c = op->impl;
    outr_op_cancel(&c->inner, op->err.code);
}

static void run(outr_guarded *guarded, outr_op *op)
{
    outr_core_lock *c = OUTR_CONTAINER(guarded, outr_core_lock, guarded);
    outr_lock_store *store = c->store->lock;
    if (c->is_unlock)
        store->backend->unlock(store, &c->giving, op);
    else
        store->backend->try_lock(store, &c->taking, op);
}

void outr_core_lock_start(outr_core_lock *c, outr_op *op)
{
    outr_err err, why;
    outr_str name = OUTR_STR_NONE;
    c->op = op;
    outr_op_begin(op, c, on_cancel);
    outr_code rc = check(c, &err);
    if (!rc && outr_lock_name(&name, c->core.arena, c->store, c->core.api->settings, c->resource,
                              &why))
        rc = failed(c, why.text, &err);
    if (rc) {
        outr_op_fail_soon(op, &err);
        return;
    }
    c->giving = (outr_unlock){.name = name, .owner = c->owner};
    c->taking = (outr_lock_try){.name = name,
                                .owner = c->owner,
                                .expiry_ns = c->expiry_seconds * (int64_t)OUTR_SEC};
    outr_op_init(&c->inner, op->loop, op, 0, on_done);
    outr_guarded_component(&c->guarded, outr_view_policies(c->core.view), OUTR_POLICY_LOCK,
                           OUTR_OUTBOUND, c->store_name, op->loop, c->core.arena, run);
    outr_guarded_start(&c->guarded, &c->inner);
}
