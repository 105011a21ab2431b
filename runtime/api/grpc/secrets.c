#include <dapr/proto/runtime/v1/secret.pb-c.h>

#include "api/core/secrets.h"
#include "api/grpc/grpc_api.h"

/* Secrets: one and all of a store. */

typedef Dapr__Proto__Runtime__V1__GetBulkSecretResponse__DataEntry bulk_entry;
typedef Dapr__Proto__Runtime__V1__SecretResponse secret_response;

static void reply_one(outr_grpc_call *call, const outr_core_secrets *s)
{
    Dapr__Proto__Runtime__V1__GetSecretResponse reply =
        DAPR__PROTO__RUNTIME__V1__GET_SECRET_RESPONSE__INIT;
    outr_kvs values = s->count ? s->secrets[0].values : (outr_kvs){0};
    reply.n_data = values.count;
    reply.data = outr_rpc_entries(
        call->arena, &dapr__proto__runtime__v1__get_secret_response__data_entry__descriptor,
        values);
    outr_grpc_reply(call, &reply);
}

static bulk_entry *new_entry(outr_arena *arena, const outr_secret *secret)
{
    bulk_entry *entry = outr_arena_alloc(arena, sizeof *entry);
    secret_response *values = outr_arena_alloc(arena, sizeof *values);
    dapr__proto__runtime__v1__get_bulk_secret_response__data_entry__init(entry);
    dapr__proto__runtime__v1__secret_response__init(values);
    values->n_secrets = secret->values.count;
    values->secrets = outr_rpc_entries(
        arena, &dapr__proto__runtime__v1__secret_response__secrets_entry__descriptor,
        secret->values);
    entry->key = outr_rpc_text(arena, secret->name);
    entry->value = values;
    return entry;
}

static void reply_all(outr_grpc_call *call, const outr_core_secrets *s)
{
    Dapr__Proto__Runtime__V1__GetBulkSecretResponse reply =
        DAPR__PROTO__RUNTIME__V1__GET_BULK_SECRET_RESPONSE__INIT;
    reply.n_data = s->count;
    reply.data = outr_arena_alloc(call->arena, (s->count + 1) * sizeof(bulk_entry *));
    for (size_t i = 0; i < s->count; i++)
        reply.data[i] = new_entry(call->arena, &s->secrets[i]);
    outr_grpc_reply(call, &reply);
}

static void on_done(outr_op *op)
{
    outr_grpc_call *call = OUTR_CONTAINER(op, outr_grpc_call, op);
    const outr_core_secrets *s = call->user;
    if (op->err.code)
        outr_rpc_fail(call, &op->err, NULL);
    else if (s->is_bulk)
        reply_all(call, s);
    else
        reply_one(call, s);
}

static void read_secrets(outr_grpc_call *call, const outr_core_secrets *request)
{
    outr_core_secrets *s = outr_arena_alloc(call->arena, sizeof *s);
    *s = *request;
    call->user = s;
    outr_op_init(&call->op, call->loop, NULL, 0, on_done);
    outr_core_secrets_start(s, &call->op);
}

static void get_secret(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__GetSecretRequest *req = call->request;
    read_secrets(call, &(outr_core_secrets){
                           .core = outr_rpc_core(call),
                           .store_name = outr_str_from(req->store_name),
                           .name = outr_str_from(req->key),
                           .metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata)});
}

static void get_bulk_secret(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__GetBulkSecretRequest *req = call->request;
    read_secrets(call, &(outr_core_secrets){
                           .core = outr_rpc_core(call),
                           .store_name = outr_str_from(req->store_name),
                           .is_bulk = true,
                           .metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata)});
}

const outr_grpc_method outr_rpcs_secrets[] = {
    {"/dapr.proto.runtime.v1.Dapr/GetSecret",
     &dapr__proto__runtime__v1__get_secret_request__descriptor, false, get_secret, "secrets", "v1"},
    {"/dapr.proto.runtime.v1.Dapr/GetBulkSecret",
     &dapr__proto__runtime__v1__get_bulk_secret_request__descriptor, false, get_bulk_secret,
     "secrets", "v1"},
    {0},
};
