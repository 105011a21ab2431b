#include <dapr/proto/runtime/v1/pubsub.pb-c.h>

#include "api/core/publish.h"
#include "api/grpc/grpc_api.h"

/* Publishing over gRPC, one event or many. */

typedef Dapr__Proto__Runtime__V1__BulkPublishRequestEntry publish_entry;
typedef Dapr__Proto__Runtime__V1__BulkPublishResponseFailedEntry failed_entry;

static void fail(outr_grpc_call *call, const outr_err *err)
{
    const outr_core_publish *p = call->user;
    outr_rpc_fail(call, err, &p->details);
}

static outr_core_publish *new_call(outr_grpc_call *call, const char *pubsub, const char *topic,
                                   outr_kvs metadata)
{
    outr_core_publish *p = outr_arena_alloc(call->arena, sizeof *p);
    *p = (outr_core_publish){.core = outr_rpc_core(call),
                             .pubsub = outr_str_from(pubsub),
                             .topic = outr_str_from(topic),
                             .metadata = metadata,
                             .trace = &outr_rpc_of(call)->trace};
    call->user = p;
    return p;
}

static void run(outr_grpc_call *call, outr_op_fn *done)
{
    outr_op_init(&call->op, call->loop, NULL, 0, done);
    outr_core_publish_start(call->user, &call->op);
}

/* ---- one ------------------------------------------------------------------------------------- */

static void on_published(outr_op *op)
{
    outr_grpc_call *call = OUTR_CONTAINER(op, outr_grpc_call, op);
    if (op->err.code)
        fail(call, &op->err);
    else
        outr_rpc_reply_empty(call);
}

static void publish(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__PublishEventRequest *req = call->request;
    outr_core_publish *p =
        new_call(call, req->pubsub_name, req->topic,
                 outr_rpc_kvs(call->arena, req->metadata, req->n_metadata));
    outr_err err;
    p->raw_has_trace = true;
    if (outr_core_publish_begin(p, 1, &err)) {
        fail(call, &err);
        return;
    }
    outr_publish_item *item = outr_core_publish_next(p);
    item->data = outr_proto_bytes(req->data);
    item->content_type = outr_str_from(req->data_content_type);
    if (outr_core_publish_add(p, &err)) {
        fail(call, &err);
        return;
    }
    run(call, on_published);
}

/* ---- many ------------------------------------------------------------------------------------ */

/* Only some failed: the answer lists them. When all did, the call fails. */
static void on_bulk_published(outr_op *op)
{
    outr_grpc_call *call = OUTR_CONTAINER(op, outr_grpc_call, op);
    const outr_core_publish *p = call->user;
    Dapr__Proto__Runtime__V1__BulkPublishResponse reply =
        DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_RESPONSE__INIT;
    if (op->err.code) {
        fail(call, &op->err);
        return;
    }
    size_t n = outr_core_publish_count(p);
    reply.failedentries = outr_arena_alloc(call->arena, (n + 1) * sizeof(failed_entry *));
    for (size_t i = 0; i < n; i++) {
        outr_str error = outr_core_publish_error(p, i);
        if (error.n == 0)
            continue;
        failed_entry *entry = outr_arena_alloc(call->arena, sizeof *entry);
        dapr__proto__runtime__v1__bulk_publish_response_failed_entry__init(entry);
        entry->entry_id = outr_rpc_text(call->arena, outr_core_publish_entry_id(p, i));
        entry->error = outr_rpc_text(call->arena, error);
        reply.failedentries[reply.n_failedentries++] = entry;
    }
    outr_grpc_reply(call, &reply);
}

/* False: answered. */
static bool add_entry(outr_grpc_call *call, const publish_entry *entry)
{
    outr_core_publish *p = call->user;
    outr_publish_item *item = outr_core_publish_next(p);
    outr_err err;
    item->entry_id = outr_str_from(entry->entry_id);
    item->data = outr_proto_bytes(entry->event);
    item->content_type = outr_str_from(entry->content_type);
    item->metadata = outr_rpc_kvs(call->arena, entry->metadata, entry->n_metadata);
    if (!outr_core_publish_add(p, &err))
        return true;
    fail(call, &err);
    return false;
}

static void bulk_publish(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__BulkPublishRequest *req = call->request;
    outr_core_publish *p =
        new_call(call, req->pubsub_name, req->topic,
                 outr_rpc_kvs(call->arena, req->metadata, req->n_metadata));
    outr_err err;
    p->is_bulk = true;
    if (outr_core_publish_begin(p, req->n_entries, &err)) {
        fail(call, &err);
        return;
    }
    for (size_t i = 0; i < req->n_entries; i++) {
        if (!add_entry(call, req->entries[i]))
            return;
    }
    run(call, on_bulk_published);
}

#define ROW(method, type, run, version)                                                            \
    {                                                                                              \
        "/dapr.proto.runtime.v1.Dapr/" method, &dapr__proto__runtime__v1__##type##__descriptor,    \
            false, run, "publish", version                                                         \
    }

const outr_grpc_method outr_rpcs_publish[] = {
    ROW("PublishEvent", publish_event_request, publish, "v1"),
    ROW("BulkPublishEvent", bulk_publish_request, bulk_publish, "v1"),
    ROW("BulkPublishEventAlpha1", bulk_publish_request, bulk_publish, "v1alpha1"),
    {0},
};
