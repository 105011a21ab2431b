#include <dapr/proto/runtime/v1/lock.pb-c.h>

#include "api/core/lock.h"
#include "api/grpc/grpc_api.h"

/* Locks over gRPC. */

static void on_done(outr_op *op)
{
    outr_grpc_call *call = OUTR_CONTAINER(op, outr_grpc_call, op);
    const outr_core_lock *c = call->user;
    if (op->err.code) {
        outr_rpc_fail(call, &op->err, NULL);
        return;
    }
    if (c->is_unlock) {
        Dapr__Proto__Runtime__V1__UnlockResponse reply =
            DAPR__PROTO__RUNTIME__V1__UNLOCK_RESPONSE__INIT;
        reply.status = (Dapr__Proto__Runtime__V1__UnlockResponse__Status)c->status;
        outr_grpc_reply(call, &reply);
        return;
    }
    Dapr__Proto__Runtime__V1__TryLockResponse reply =
        DAPR__PROTO__RUNTIME__V1__TRY_LOCK_RESPONSE__INIT;
    reply.success = c->is_taken;
    outr_grpc_reply(call, &reply);
}

static void start(outr_grpc_call *call, const outr_core_lock *request)
{
    outr_core_lock *c = outr_arena_alloc(call->arena, sizeof *c);
    *c = *request;
    call->user = c;
    outr_op_init(&call->op, call->loop, NULL, outr_grpc_deadline(call), on_done);
    outr_core_lock_start(c, &call->op);
}

static void lock(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__TryLockRequest *req = call->request;
    start(call, &(outr_core_lock){.core = outr_rpc_core(call),
                                  .store_name = outr_str_from(req->store_name),
                                  .resource = outr_str_from(req->resource_id),
                                  .owner = outr_str_from(req->lock_owner),
                                  .expiry_seconds = req->expiry_in_seconds});
}

static void unlock(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__UnlockRequest *req = call->request;
    start(call, &(outr_core_lock){.core = outr_rpc_core(call),
                                  .is_unlock = true,
                                  .store_name = outr_str_from(req->store_name),
                                  .resource = outr_str_from(req->resource_id),
                                  .owner = outr_str_from(req->lock_owner)});
}

const outr_grpc_method outr_rpcs_lock[] = {
    {"/dapr.proto.runtime.v1.Dapr/TryLockAlpha1",
     &dapr__proto__runtime__v1__try_lock_request__descriptor, false, lock, "lock", "v1alpha1"},
    {"/dapr.proto.runtime.v1.Dapr/UnlockAlpha1",
     &dapr__proto__runtime__v1__unlock_request__descriptor, false, unlock, "unlock", "v1alpha1"},
    {0},
};
