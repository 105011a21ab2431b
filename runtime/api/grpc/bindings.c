#include <dapr/proto/runtime/v1/binding.pb-c.h>

#include "api/core/bindings.h"
#include "api/grpc/grpc_api.h"

/* Output bindings over gRPC. */

typedef Dapr__Proto__Runtime__V1__InvokeBindingRequest invoke_request;
typedef Dapr__Proto__Runtime__V1__InvokeBindingResponse invoke_response;
typedef Dapr__Proto__Runtime__V1__InvokeBindingResponse__MetadataEntry answer_entry;

static void reply(outr_grpc_call *call, const outr_core_binding *b)
{
    invoke_response answer = DAPR__PROTO__RUNTIME__V1__INVOKE_BINDING_RESPONSE__INIT;
    size_t n = b->answer_metadata.count;
    answer_entry *entries = outr_arena_alloc(call->arena, (n + 1) * sizeof *entries),
                 **pointers = outr_arena_alloc(call->arena, (n + 1) * sizeof *pointers);
    answer.data = outr_proto_data(b->answer);
    answer.metadata = pointers;
    for (size_t i = 0; i < n; i++) {
        const outr_kv *m = &b->answer_metadata.items[i];
        if (!outr_str_is_utf8(m->key) || !outr_str_is_utf8(m->value))
            continue; /* no text of protobuf: the message would be refused as a whole */
        dapr__proto__runtime__v1__invoke_binding_response__metadata_entry__init(&entries[i]);
        entries[i].key = outr_proto_text(call->arena, m->key);
        entries[i].value = outr_proto_text(call->arena, m->value);
        pointers[answer.n_metadata++] = &entries[i];
    }
    outr_grpc_reply(call, &answer);
}

static void on_done(outr_op *op)
{
    outr_grpc_call *call = OUTR_CONTAINER(op, outr_grpc_call, op);
    if (op->err.code) {
        outr_err err = op->err;
        outr_rpc_fail(call, &err, NULL);
        return;
    }
    reply(call, call->user);
}

static void invoke(outr_grpc_call *call)
{
    const invoke_request *req = call->request;
    outr_rpc *rpc = outr_rpc_of(call);
    outr_kv *items = outr_arena_alloc(call->arena, (req->n_metadata + 1) * sizeof *items);
    outr_core_binding *b = outr_arena_alloc(call->arena, sizeof *b);
    call->user = b;
    for (size_t i = 0; i < req->n_metadata; i++)
        items[i] = (outr_kv){outr_str_from(req->metadata[i]->key),
                             outr_str_from(req->metadata[i]->value)};
    *b = (outr_core_binding){
        .core = {.api = rpc->api, .view = rpc->view, .arena = call->arena},
        .name = outr_str_from(req->name),
        .operation = outr_str_from(req->operation),
        .data = outr_proto_bytes(req->data),
        .metadata = {items, req->n_metadata},
        .trace = &rpc->trace,
        .baggage = outr_headers_get(&call->x->req.headers, "baggage"),
    };
    outr_op_init(&call->op, call->loop, NULL, outr_grpc_deadline(call), on_done);
    outr_core_binding_start(b, &call->op);
}

const outr_grpc_method outr_rpcs_bindings[] = {
    {"/dapr.proto.runtime.v1.Dapr/InvokeBinding",
     &dapr__proto__runtime__v1__invoke_binding_request__descriptor, false, invoke, "bindings",
     "v1"},
    {0},
};
