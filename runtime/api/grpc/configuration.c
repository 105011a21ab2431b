#include <dapr/proto/runtime/v1/configuration.pb-c.h>

#include "api/core/configuration.h"
#include "api/grpc/grpc_api.h"

/* Configuration over gRPC. A subscription lasts as long as its stream, or until
 * UnsubscribeConfiguration names it. */

typedef Dapr__Proto__Common__V1__ConfigurationItem item_message;
typedef Dapr__Proto__Runtime__V1__GetConfigurationResponse__ItemsEntry get_entry;
typedef Dapr__Proto__Runtime__V1__SubscribeConfigurationResponse__ItemsEntry update_entry;

static item_message *new_item(outr_arena *arena, const outr_configuration_item *item)
{
    item_message *message = outr_arena_alloc(arena, sizeof *message);
    dapr__proto__common__v1__configuration_item__init(message);
    message->value = outr_rpc_text(arena, item->value);
    message->version = outr_rpc_text(arena, item->version);
    message->n_metadata = item->metadata.count;
    message->metadata = outr_rpc_entries(
        arena, &dapr__proto__common__v1__configuration_item__metadata_entry__descriptor,
        item->metadata);
    return message;
}

static const outr_str *read_keys(outr_arena *arena, char *const *keys, size_t count)
{
    outr_str *out = outr_arena_alloc(arena, (count + 1) * sizeof *out);
    for (size_t i = 0; i < count; i++)
        out[i] = outr_str_from(keys[i]);
    return out;
}

/* ---- get ------------------------------------------------------------------------------------- */

static void on_got(outr_op *op)
{
    outr_grpc_call *call = OUTR_CONTAINER(op, outr_grpc_call, op);
    const outr_core_configuration *c = call->user;
    Dapr__Proto__Runtime__V1__GetConfigurationResponse reply =
        DAPR__PROTO__RUNTIME__V1__GET_CONFIGURATION_RESPONSE__INIT;
    if (op->err.code) {
        outr_rpc_fail(call, &op->err, NULL);
        return;
    }
    get_entry *entries = outr_arena_alloc(call->arena, (c->get.count + 1) * sizeof *entries),
              **pointers = outr_arena_alloc(call->arena, (c->get.count + 1) * sizeof *pointers);
    for (size_t i = 0; i < c->get.count; i++) {
        dapr__proto__runtime__v1__get_configuration_response__items_entry__init(&entries[i]);
        entries[i].key = outr_rpc_text(call->arena, c->get.items[i].key);
        entries[i].value = new_item(call->arena, &c->get.items[i]);
        pointers[i] = &entries[i];
    }
    reply.items = pointers;
    reply.n_items = c->get.count;
    outr_grpc_reply(call, &reply);
}

static void get(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__GetConfigurationRequest *req = call->request;
    outr_core_configuration *c = outr_arena_alloc(call->arena, sizeof *c);
    *c = (outr_core_configuration){
        .core = outr_rpc_core(call),
        .store_name = outr_str_from(req->store_name),
        .get = {.keys = read_keys(call->arena, req->keys, req->n_keys),
                .key_count = req->n_keys,
                .metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata)},
    };
    call->user = c;
    outr_op_init(&call->op, call->loop, NULL, outr_grpc_deadline(call), on_got);
    outr_core_configuration_get_start(c, &call->op);
}

/* ---- subscribe ------------------------------------------------------------------------------- */

typedef struct subscriber {
    outr_core_config_subscribe core;
    outr_config_sub sub;
    outr_grpc_call *call;
    bool is_open, is_full;
} subscriber;

static bool send(subscriber *s, const outr_configuration_item *item)
{
    outr_arena *arena = outr_arena_new(64 * OUTR_MIB);
    Dapr__Proto__Runtime__V1__SubscribeConfigurationResponse message =
        DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_CONFIGURATION_RESPONSE__INIT;
    update_entry entry =
        DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_CONFIGURATION_RESPONSE__ITEMS_ENTRY__INIT;
    update_entry *entries[] = {&entry};
    message.id = s->sub.id;
    if (item) {
        entry.key = outr_rpc_text(arena, item->key);
        entry.value = new_item(arena, item);
        message.items = entries;
        message.n_items = 1;
    }
    bool goes_on = outr_grpc_send(s->call, &message);
    outr_arena_free(arena);
    return goes_on;
}

static void on_update(outr_config_sub *sub, const outr_configuration_item *items, size_t count)
{
    subscriber *s = OUTR_CONTAINER(sub, subscriber, sub);
    for (size_t i = 0; i < count; i++)
        s->is_full = !send(s, &items[i]);
    if (!s->is_full)
        outr_config_sub_go_on(sub);
}

static void on_writable(outr_grpc_call *call)
{
    subscriber *s = call->user;
    if (s->is_full) {
        s->is_full = false;
        outr_config_sub_go_on(&s->sub);
    }
}

static void on_end(outr_config_sub *sub, const outr_err *err)
{
    subscriber *s = OUTR_CONTAINER(sub, subscriber, sub);
    if (err)
        outr_rpc_fail(s->call, err, NULL);
    else
        outr_grpc_end(s->call);
}

static void on_gone(outr_grpc_call *call)
{
    subscriber *s = call->user;
    if (s->is_open)
        outr_config_sub_close(&s->sub);
    else
        outr_op_cancel(&call->op, OUTR_CANCELLED);
}

static void on_subscribed(outr_op *op)
{
    outr_grpc_call *call = OUTR_CONTAINER(op, outr_grpc_call, op);
    subscriber *s = call->user;
    if (op->err.code) {
        outr_rpc_fail(call, &op->err, NULL); /* on_end is not called */
        return;
    }
    s->is_open = true;
    outr_rpc_unpin(call); /* the stream may see components come and go */
    send(s, NULL);
}

static void subscribe(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__SubscribeConfigurationRequest *req = call->request;
    subscriber *s = outr_arena_alloc(call->arena, sizeof *s);
    s->call = call;
    s->sub = (outr_config_sub){
        .store = outr_str_from(req->store_name),
        .keys = read_keys(call->arena, req->keys, req->n_keys),
        .key_count = req->n_keys,
        .metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata),
        .loop = call->loop,
        .on_update = on_update,
        .on_end = on_end,
    };
    s->core = (outr_core_config_subscribe){.core = outr_rpc_core(call), .sub = &s->sub};
    call->user = s;
    call->on_writable = on_writable;
    call->on_gone = on_gone;
    outr_op_init(&call->op, call->loop, NULL, 0, on_subscribed);
    outr_core_config_subscribe_start(&s->core, &call->op);
}

/* ---- unsubscribe: what went wrong is in the answer, only a missing store is a status -------- */

static void on_unsubscribed(outr_op *op)
{
    outr_grpc_call *call = OUTR_CONTAINER(op, outr_grpc_call, op);
    const outr_core_config_unsubscribe *c = call->user;
    Dapr__Proto__Runtime__V1__UnsubscribeConfigurationResponse reply =
        DAPR__PROTO__RUNTIME__V1__UNSUBSCRIBE_CONFIGURATION_RESPONSE__INIT;
    if (op->err.code && op->err.reason != OUTR_REASON_CONFIGURATION_UNSUBSCRIBE) {
        outr_rpc_fail(call, &op->err, NULL);
        return;
    }
    reply.ok = !op->err.code;
    if (op->err.code)
        reply.message = outr_rpc_text(
            call->arena,
            outr_arena_join(call->arena,
                            OUTR_STR("failed to unsubscribe to configuration request "), c->id,
                            OUTR_STR(": subscription does not exist")));
    outr_grpc_reply(call, &reply);
}

static void unsubscribe(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__UnsubscribeConfigurationRequest *req = call->request;
    outr_core_config_unsubscribe *c = outr_arena_alloc(call->arena, sizeof *c);
    *c = (outr_core_config_unsubscribe){.core = outr_rpc_core(call),
                                        .store_name = outr_str_from(req->store_name),
                                        .id = outr_str_from(req->id)};
    call->user = c;
    outr_op_init(&call->op, call->loop, NULL, 0, on_unsubscribed);
    outr_core_config_unsubscribe_start(c, &call->op);
}

#define ROW(method, type, run, version)                                                            \
    {                                                                                              \
        "/dapr.proto.runtime.v1.Dapr/" method,                                                     \
            &dapr__proto__runtime__v1__##type##_request__descriptor, false, run, "configuration",  \
            version                                                                                \
    }

const outr_grpc_method outr_rpcs_configuration[] = {
    ROW("GetConfiguration", get_configuration, get, "v1"),
    ROW("GetConfigurationAlpha1", get_configuration, get, "v1alpha1"),
    ROW("SubscribeConfiguration", subscribe_configuration, subscribe, "v1"),
    ROW("SubscribeConfigurationAlpha1", subscribe_configuration, subscribe, "v1alpha1"),
    ROW("UnsubscribeConfiguration", unsubscribe_configuration, unsubscribe, "v1"),
    ROW("UnsubscribeConfigurationAlpha1", unsubscribe_configuration, unsubscribe, "v1alpha1"),
    {0},
};
