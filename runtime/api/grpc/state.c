#include <dapr/proto/runtime/v1/state.pb-c.h>
#include <google/protobuf/empty.pb-c.h>

#include "api/core/state.h"
#include "api/grpc/grpc_api.h"

/* The state methods: messages in, the core's operation, messages out. Values go on where they lie.
 */

typedef Dapr__Proto__Common__V1__StateItem state_item;
typedef Dapr__Proto__Common__V1__StateOptions state_options;
typedef Dapr__Proto__Common__V1__Etag state_etag;

static void fail(outr_grpc_call *call, const outr_err *err)
{
    const outr_core_state *s = call->user;
    outr_rpc_fail(call, err, &s->details);
}

/* With room for count items. NULL: answered. */
static outr_core_state *begin(outr_grpc_call *call, outr_core_state_what what, const char *store,
                              size_t count)
{
    outr_core_state *s = outr_arena_alloc(call->arena, sizeof *s);
    outr_err err;
    *s = (outr_core_state){
        .core = outr_rpc_core(call), .what = what, .store_name = outr_str_from(store)};
    call->user = s;
    if (!outr_core_state_begin(s, &err) && !outr_core_state_reserve(s, count, &err))
        return s;
    fail(call, &err);
    return NULL;
}

static void run(outr_grpc_call *call, outr_op_fn *done)
{
    outr_op_init(&call->op, call->loop, NULL, 0, done);
    outr_core_state_start(call->user, &call->op);
}

static outr_grpc_call *of(outr_op *op)
{
    return OUTR_CONTAINER(op, outr_grpc_call, op);
}

static void on_written(outr_op *op)
{
    outr_grpc_call *call = of(op);
    if (op->err.code)
        fail(call, &op->err);
    else
        outr_rpc_reply_empty(call);
}

static outr_consistency consistency_of(int value)
{
    switch (value) {
    case DAPR__PROTO__COMMON__V1__STATE_OPTIONS__STATE_CONSISTENCY__CONSISTENCY_EVENTUAL:
        return OUTR_EVENTUAL;
    case DAPR__PROTO__COMMON__V1__STATE_OPTIONS__STATE_CONSISTENCY__CONSISTENCY_STRONG:
        return OUTR_STRONG;
    default:
        return OUTR_CONSISTENCY_UNSET;
    }
}

static outr_concurrency concurrency_of(int value)
{
    switch (value) {
    case DAPR__PROTO__COMMON__V1__STATE_OPTIONS__STATE_CONCURRENCY__CONCURRENCY_FIRST_WRITE:
        return OUTR_FIRST_WRITE;
    case DAPR__PROTO__COMMON__V1__STATE_OPTIONS__STATE_CONCURRENCY__CONCURRENCY_LAST_WRITE:
        return OUTR_LAST_WRITE;
    default:
        return OUTR_CONCURRENCY_UNSET;
    }
}

/* ---- reads ----------------------------------------------------------------------------------- */

static outr_kvs metadata_of(const outr_state_item *item, outr_kv *room)
{
    *room = (outr_kv){OUTR_STR("ttlExpireTime"), item->ttl_expire_time};
    return (outr_kvs){room, item->ttl_expire_time.n > 0};
}

static void on_got(outr_op *op)
{
    outr_grpc_call *call = of(op);
    const outr_core_state *s = call->user;
    const outr_state_item *item = s->get.items;
    Dapr__Proto__Runtime__V1__GetStateResponse reply =
        DAPR__PROTO__RUNTIME__V1__GET_STATE_RESPONSE__INIT;
    outr_kv room;
    if (op->err.code) {
        fail(call, &op->err);
        return;
    }
    if (item->is_found) {
        outr_kvs metadata = metadata_of(item, &room);
        reply.data = outr_proto_data(item->value);
        reply.etag = outr_rpc_text(call->arena, item->etag);
        reply.n_metadata = metadata.count;
        reply.metadata = outr_rpc_entries(
            call->arena, &dapr__proto__runtime__v1__get_state_response__metadata_entry__descriptor,
            metadata);
    }
    outr_grpc_reply(call, &reply);
}

static void get_state(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__GetStateRequest *req = call->request;
    outr_core_state *s = begin(call, OUTR_CORE_STATE_GET, req->store_name, 1);
    if (!s)
        return;
    s->get.items[0].key = outr_str_from(req->key);
    s->get.metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata);
    s->get.consistency = consistency_of(req->consistency);
    run(call, on_got);
}

static void write_bulk_item(outr_arena *arena, Dapr__Proto__Runtime__V1__BulkStateItem *out,
                            outr_str key, const outr_state_item *item)
{
    outr_kv room;
    outr_kvs metadata = metadata_of(item, &room);
    dapr__proto__runtime__v1__bulk_state_item__init(out);
    out->key = outr_rpc_text(arena, key);
    if (item->is_found)
        out->data = outr_proto_data(item->value);
    out->etag = outr_rpc_text(arena, item->etag);
    if (item->err.code)
        out->error = outr_rpc_text(arena, outr_str_from(item->err.text));
    out->n_metadata = metadata.count;
    out->metadata = outr_rpc_entries(
        arena, &dapr__proto__runtime__v1__bulk_state_item__metadata_entry__descriptor, metadata);
}

static void on_bulk_got(outr_op *op)
{
    outr_grpc_call *call = of(op);
    const outr_core_state *s = call->user;
    Dapr__Proto__Runtime__V1__GetBulkStateResponse reply =
        DAPR__PROTO__RUNTIME__V1__GET_BULK_STATE_RESPONSE__INIT;
    Dapr__Proto__Runtime__V1__BulkStateItem *items;
    size_t n = s->get.count;
    if (op->err.code) {
        fail(call, &op->err);
        return;
    }
    items = outr_arena_alloc(call->arena, (n + 1) * sizeof *items);
    reply.items = outr_arena_alloc(call->arena, (n + 1) * sizeof *reply.items);
    for (; reply.n_items < n; reply.n_items++) {
        size_t i = reply.n_items;
        write_bulk_item(call->arena, &items[i], outr_core_state_name(s, i), &s->get.items[i]);
        reply.items[i] = &items[i];
    }
    outr_grpc_reply(call, &reply);
}

static void get_bulk_state(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__GetBulkStateRequest *req = call->request;
    outr_core_state *s = begin(call, OUTR_CORE_STATE_BULK_GET, req->store_name, req->n_keys);
    if (!s)
        return;
    for (size_t i = 0; i < req->n_keys; i++)
        s->get.items[i].key = outr_str_from(req->keys[i]);
    s->get.metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata);
    s->parallelism = req->parallelism;
    run(call, on_bulk_got);
}

/* ---- writes ---------------------------------------------------------------------------------- */

static void read_etag(outr_state_write *w, const state_etag *etag)
{
    w->has_etag = etag != NULL;
    if (etag)
        w->etag = outr_str_from(etag->value);
}

static void read_options(outr_state_write *w, const state_options *options)
{
    if (!options)
        return;
    w->concurrency = concurrency_of(options->concurrency);
    w->consistency = consistency_of(options->consistency);
}

/* item may be NULL: a message that was not given counts as an empty one. */
static void read_item(outr_grpc_call *call, const state_item *item, outr_state_write *w)
{
    static const state_item none = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT;
    if (!item)
        item = &none;
    w->key = outr_str_from(item->key);
    w->value = outr_proto_bytes(item->value);
    w->is_binary = true;
    w->metadata = outr_rpc_kvs(call->arena, item->metadata, item->n_metadata);
    read_etag(w, item->etag);
    read_options(w, item->options);
}

/* Metadata may declare a value to be JSON; it is then kept as one that came over HTTP. */
static outr_code read_declared(outr_core_state *s, outr_state_write *w, outr_err *err)
{
    const outr_kv *type = outr_kvs_find_exact(w->metadata, OUTR_STR("contentType"));
    if (!type)
        return OUTR_OK;
    w->content_type = type->value;
    return outr_str_is(type->value, "application/json") ? outr_core_state_reencode(s, w, err)
                                                         : OUTR_OK;
}

static void save_state(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__SaveStateRequest *req = call->request;
    outr_core_state *s = begin(call, OUTR_CORE_STATE_SAVE, req->store_name, req->n_states);
    outr_err err;
    for (size_t i = 0; s && i < req->n_states; i++) {
        read_item(call, req->states[i], &s->writes.items[i]);
        if (read_declared(s, &s->writes.items[i], &err)) {
            fail(call, &err);
            return;
        }
    }
    if (s)
        run(call, on_written);
}

static void delete_state(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__DeleteStateRequest *req = call->request;
    outr_core_state *s = begin(call, OUTR_CORE_STATE_DELETE, req->store_name, 1);
    if (!s)
        return;
    outr_state_write *w = s->writes.items;
    w->key = outr_str_from(req->key);
    w->metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata);
    read_etag(w, req->etag);
    read_options(w, req->options);
    run(call, on_written);
}

static void delete_bulk_state(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__DeleteBulkStateRequest *req = call->request;
    outr_core_state *s = begin(call, OUTR_CORE_STATE_BULK_DELETE, req->store_name, req->n_states);
    if (!s)
        return;
    for (size_t i = 0; i < req->n_states; i++)
        read_item(call, req->states[i], &s->writes.items[i]);
    run(call, on_written);
}

static void execute_state_transaction(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__ExecuteStateTransactionRequest *req = call->request;
    outr_core_state *s =
        begin(call, OUTR_CORE_STATE_TRANSACT, req->storename, req->n_operations);
    outr_err err;
    if (!s)
        return;
    for (size_t i = 0; i < req->n_operations; i++) {
        outr_state_write *w = &s->writes.items[i];
        read_item(call, req->operations[i]->request, w);
        if (outr_core_state_operation(s, w, outr_str_from(req->operations[i]->operationtype),
                                      &err)) {
            fail(call, &err);
            return;
        }
    }
    s->writes.metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata);
    s->trace = &outr_rpc_of(call)->trace;
    run(call, on_written);
}

static void on_queried(outr_op *op)
{
    outr_grpc_call *call = of(op);
    const outr_core_state *s = call->user;
    Dapr__Proto__Runtime__V1__QueryStateResponse reply =
        DAPR__PROTO__RUNTIME__V1__QUERY_STATE_RESPONSE__INIT;
    if (op->err.code) {
        fail(call, &op->err);
        return;
    }
    size_t n = s->query.count;
    Dapr__Proto__Runtime__V1__QueryStateItem *items =
        outr_arena_alloc(call->arena, (n + 1) * sizeof *items);
    reply.results = outr_arena_alloc(call->arena, (n + 1) * sizeof *reply.results);
    for (size_t i = 0; i < n; i++) {
        const outr_state_item *from = &s->query.items[i];
        dapr__proto__runtime__v1__query_state_item__init(&items[i]);
        items[i].key = outr_rpc_text(call->arena, outr_core_state_name(s, i));
        items[i].data = outr_proto_data(from->value);
        items[i].etag = outr_rpc_text(call->arena, from->etag);
        if (from->err.code)
            items[i].error = outr_rpc_text(call->arena, outr_str_from(from->err.text));
        reply.results[reply.n_results++] = &items[i];
    }
    reply.token = outr_rpc_text(call->arena, s->query.token);
    outr_grpc_reply(call, &reply);
}

static void query_state(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__QueryStateRequest *req = call->request;
    outr_core_state *s = begin(call, OUTR_CORE_STATE_QUERY, req->store_name, 0);
    outr_err err;
    if (!s)
        return;
    if (outr_core_state_read_query(s, outr_str_from(req->query), &err)) {
        fail(call, &err);
        return;
    }
    s->query.metadata = outr_rpc_kvs(call->arena, req->metadata, req->n_metadata);
    run(call, on_queried);
}

#define ROW(method, type, run, version)                                                            \
    {                                                                                              \
        "/dapr.proto.runtime.v1.Dapr/" method, &dapr__proto__runtime__v1__##type##__descriptor,    \
            false, run, "state", version                                                           \
    }

const outr_grpc_method outr_rpcs_state[] = {
    ROW("GetState", get_state_request, get_state, "v1"),
    ROW("GetBulkState", get_bulk_state_request, get_bulk_state, "v1"),
    ROW("SaveState", save_state_request, save_state, "v1"),
    ROW("DeleteState", delete_state_request, delete_state, "v1"),
    ROW("DeleteBulkState", delete_bulk_state_request, delete_bulk_state, "v1"),
    ROW("ExecuteStateTransaction", execute_state_transaction_request, execute_state_transaction,
        "v1"),
    ROW("QueryStateAlpha1", query_state_request, query_state, "v1alpha1"),
    {0},
};
