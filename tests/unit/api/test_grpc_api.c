#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dapr/proto/runtime/v1/dapr.pb-c.h>
#include <dapr/proto/runtime/v1/metadata.pb-c.h>
#include <dapr/proto/runtime/v1/pubsub.pb-c.h>
#include <dapr/proto/runtime/v1/secret.pb-c.h>
#include <dapr/proto/runtime/v1/state.pb-c.h>
#include <google/protobuf/empty.pb-c.h>

#include "base/json.h"
#include "unit/api/rpc.h"

#define D(type) &dapr__proto__runtime__v1__##type##__descriptor
#define EMPTY   &google__protobuf__empty__descriptor

typedef Dapr__Proto__Common__V1__StateItem state_item;
typedef Dapr__Proto__Common__V1__StateOptions state_options;
typedef Dapr__Proto__Common__V1__Etag etag;
typedef Dapr__Proto__Runtime__V1__GetStateRequest get_request;
typedef Dapr__Proto__Runtime__V1__GetStateResponse get_response;
typedef Dapr__Proto__Runtime__V1__GetBulkStateRequest bulk_request;
typedef Dapr__Proto__Runtime__V1__GetBulkStateResponse bulk_response;
typedef Dapr__Proto__Runtime__V1__SaveStateRequest save_request;
typedef Dapr__Proto__Runtime__V1__DeleteStateRequest delete_request;
typedef Dapr__Proto__Runtime__V1__DeleteBulkStateRequest delete_bulk_request;
typedef Dapr__Proto__Runtime__V1__ExecuteStateTransactionRequest transaction_request;
typedef Dapr__Proto__Runtime__V1__TransactionalStateOperation state_operation;
typedef Dapr__Proto__Runtime__V1__QueryStateRequest query_request;
typedef Dapr__Proto__Runtime__V1__PublishEventRequest publish_request;
typedef Dapr__Proto__Runtime__V1__BulkPublishRequest bulk_publish_request;
typedef Dapr__Proto__Runtime__V1__BulkPublishRequestEntry publish_entry;
typedef Dapr__Proto__Runtime__V1__PublishEventRequest__MetadataEntry publish_metadata;
typedef Dapr__Proto__Common__V1__StateItem__MetadataEntry item_metadata;
typedef Dapr__Proto__Runtime__V1__GetSecretRequest secret_request;
typedef Dapr__Proto__Runtime__V1__GetSecretResponse secret_response;
typedef Dapr__Proto__Runtime__V1__GetBulkSecretRequest bulk_secret_request;
typedef Dapr__Proto__Runtime__V1__GetBulkSecretResponse bulk_secret_response;
typedef Dapr__Proto__Runtime__V1__GetMetadataRequest metadata_request;
typedef Dapr__Proto__Runtime__V1__GetMetadataResponse metadata_response;
typedef Dapr__Proto__Runtime__V1__SetMetadataRequest set_metadata_request;
typedef Dapr__Proto__Runtime__V1__ShutdownRequest shutdown_request;

static const outr_settings plain = {.max_body_bytes = 4 * 1024 * 1024};

static const char components[] =
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\n"
    "spec: {type: state.in-memory, version: v1}\n---\n"
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: bus}\n"
    "spec:\n  type: pubsub.in-memory\n  metadata:\n"
    "  - {name: publishingScopes, value: \"me=orders,a/b;you=secret\"}\n"
    "  - {name: protectedTopics, value: closed}\n---\n"
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: vault}\n"
    "spec: {type: secretstores.local.env, version: v1}\n";

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static ProtobufCBinaryData bytes(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}

/* ---- state ----------------------------------------------------------------------------------- */

static void save(api_world *a, const char *key, ProtobufCBinaryData value)
{
    state_item item = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT, *items[] = {&item};
    save_request req = DAPR__PROTO__RUNTIME__V1__SAVE_STATE_REQUEST__INIT;
    rpc r = {0};
    item.key = text(key);
    item.value = value;
    req.store_name = text("store");
    req.n_states = 1;
    req.states = items;
    rpc_ok(a, &r, "SaveState", &req, EMPTY);
    rpc_done(&r);
}

static get_request get_of(const char *store, const char *key)
{
    get_request req = DAPR__PROTO__RUNTIME__V1__GET_STATE_REQUEST__INIT;
    req.store_name = text(store);
    req.key = text(key);
    return req;
}

static void check_value(api_world *a, const char *key, const char *value, size_t n)
{
    get_request req = get_of("store", key);
    rpc r = {0};
    const get_response *got = rpc_ok(a, &r, "GetState", &req, D(get_state_response));
    assert_int_equal(got->data.len, n);
    assert_true(n == 0 || memcmp(got->data.data, value, n) == 0);
    assert_int_equal(got->etag[0] != 0, n > 0);
    rpc_done(&r);
}

static void values_come_back_as_they_were_saved(void **state)
{
    static const char binary[] = "\0\1\377\"{";
    api_world *a = api_open(&plain, components, NULL, 0);
    (void)state;
    check_value(a, "k", "", 0);
    save(a, "k", (ProtobufCBinaryData){sizeof binary, (uint8_t *)(uintptr_t)binary});
    check_value(a, "k", binary, sizeof binary);
    api_close(a);
}

static void an_empty_key_is_refused_in_save_only(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    state_item item = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT, *items[] = {&item};
    save_request req = DAPR__PROTO__RUNTIME__V1__SAVE_STATE_REQUEST__INIT;
    (void)state;
    req.store_name = text("store");
    req.n_states = 1;
    req.states = items;
    rpc_refused(a, "SaveState", &req, OUTR_INVALID_ARGUMENT, "ERR_STATE_SAVE",
                "state key cannot be empty");
    check_value(a, "", "", 0);
    req.n_states = 0;
    rpc r = {0};
    rpc_ok(a, &r, "SaveState", &req, EMPTY);
    rpc_done(&r);
    api_close(a);
}

static void an_etag_is_absent_or_compared(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    etag wrong = DAPR__PROTO__COMMON__V1__ETAG__INIT;
    state_item item = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT, *items[] = {&item};
    save_request again = DAPR__PROTO__RUNTIME__V1__SAVE_STATE_REQUEST__INIT;
    delete_request del = DAPR__PROTO__RUNTIME__V1__DELETE_STATE_REQUEST__INIT;
    delete_bulk_request many = DAPR__PROTO__RUNTIME__V1__DELETE_BULK_STATE_REQUEST__INIT;
    state_options options = DAPR__PROTO__COMMON__V1__STATE_OPTIONS__INIT;
    get_request get = get_of("store", "k");
    rpc r = {0}, d = {0};
    (void)state;
    save(a, "k", bytes("1"));
    const get_response *got = rpc_ok(a, &r, "GetState", &get, D(get_state_response));
    wrong.value = text("999");
    item.key = text("k");
    item.etag = &wrong;
    again.store_name = del.store_name = many.store_name = text("store");
    again.n_states = many.n_states = 1;
    again.states = many.states = items;
    rpc_refused(a, "SaveState", &again, OUTR_ABORTED, "ERR_STATE_SAVE",
                "failed saving state in state store store: possible etag mismatch");
    rpc_refused(a, "DeleteBulkState", &many, OUTR_ABORTED, "ERR_STATE_BULK_DELETE",
                "failed deleting state in state store store: possible etag mismatch");
    del.key = text("k");
    del.etag = &wrong;
    rpc_refused(a, "DeleteState", &del, OUTR_ABORTED, "ERR_STATE_DELETE",
                "failed deleting state with key k: possible etag mismatch");
    item.etag = NULL; /* first write wins: there is one already */
    item.options = &options;
    options.concurrency =
        DAPR__PROTO__COMMON__V1__STATE_OPTIONS__STATE_CONCURRENCY__CONCURRENCY_FIRST_WRITE;
    rpc_refused(a, "SaveState", &again, OUTR_ABORTED, "ERR_STATE_SAVE", "etag mismatch");
    wrong.value = got->etag;
    rpc_ok(a, &d, "DeleteState", &del, EMPTY);
    check_value(a, "k", "", 0);
    rpc_done(&d);
    rpc_done(&r);
    api_close(a);
}

static void many_keys_are_read_in_their_order(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    char *keys[] = {text("b"), text("none"), text("a"), text("b")};
    bulk_request req = DAPR__PROTO__RUNTIME__V1__GET_BULK_STATE_REQUEST__INIT;
    rpc r = {0};
    (void)state;
    save(a, "a", bytes("1"));
    save(a, "b", bytes("2"));
    req.store_name = text("store");
    req.keys = keys;
    req.n_keys = OUTR_LEN(keys);
    req.parallelism = -3;
    const bulk_response *got = rpc_ok(a, &r, "GetBulkState", &req, D(get_bulk_state_response));
    assert_int_equal(got->n_items, OUTR_LEN(keys));
    for (size_t i = 0; i < OUTR_LEN(keys); i++) {
        assert_string_equal(got->items[i]->key, keys[i]);
        assert_string_equal(got->items[i]->error, "");
        assert_int_equal(got->items[i]->data.len, i != 1);
        assert_int_equal(got->items[i]->etag[0] != 0, i != 1);
    }
    rpc_done(&r);
    req.n_keys = 0;
    got = rpc_ok(a, &r, "GetBulkState", &req, D(get_bulk_state_response));
    assert_int_equal(got->n_items, 0);
    rpc_done(&r);
    api_close(a);
}

static void a_transaction_happens_as_a_whole(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    etag wrong = DAPR__PROTO__COMMON__V1__ETAG__INIT;
    state_item items[2] = {DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT,
                           DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT};
    state_operation ops[2] = {DAPR__PROTO__RUNTIME__V1__TRANSACTIONAL_STATE_OPERATION__INIT,
                              DAPR__PROTO__RUNTIME__V1__TRANSACTIONAL_STATE_OPERATION__INIT};
    state_operation *pointers[] = {&ops[0], &ops[1]};
    transaction_request req = DAPR__PROTO__RUNTIME__V1__EXECUTE_STATE_TRANSACTION_REQUEST__INIT;
    rpc r = {0};
    (void)state;
    save(a, "old", bytes("1"));
    req.storename = text("store");
    req.n_operations = 2;
    req.operations = pointers;
    ops[0].operationtype = text("upsert");
    ops[0].request = &items[0];
    items[0].key = text("new");
    items[0].value = bytes("2");
    ops[1].operationtype = text("delete");
    ops[1].request = &items[1];
    items[1].key = text("old");
    items[1].etag = &wrong;
    wrong.value = text("999");
    rpc_refused(a, "ExecuteStateTransaction", &req, OUTR_INTERNAL, "ERR_STATE_TRANSACTION",
                "error while executing state transaction: possible etag mismatch");
    check_value(a, "new", "", 0);
    items[1].etag = NULL;
    rpc_ok(a, &r, "ExecuteStateTransaction", &req, EMPTY);
    rpc_done(&r);
    check_value(a, "new", "2", 1);
    check_value(a, "old", "", 0);
    ops[1].operationtype = text("read");
    rpc_refused(a, "ExecuteStateTransaction", &req, OUTR_UNIMPLEMENTED,
                "ERR_NOT_SUPPORTED_STATE_OPERATION", "operation type read not supported");
    ops[0].request = NULL; /* as an empty item: a key of its own */
    req.n_operations = 1;
    rpc_ok(a, &r, "ExecuteStateTransaction", &req, EMPTY);
    rpc_done(&r);
    api_close(a);
}

static void a_value_declared_as_json_is_kept_as_http_keeps_it(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    item_metadata type = DAPR__PROTO__COMMON__V1__STATE_ITEM__METADATA_ENTRY__INIT,
                  *types[] = {&type};
    state_item item = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT, *items[] = {&item};
    save_request req = DAPR__PROTO__RUNTIME__V1__SAVE_STATE_REQUEST__INIT;
    static const char kept[] = "{\"a\":2.5,\"b\":\"\\u003c\"}";
    rpc r = {0};
    (void)state;
    type.key = text("contentType");
    type.value = text("application/json");
    item.key = text("k");
    item.value = bytes("{\"b\": \"<\", \"a\": 2.50}");
    item.n_metadata = 1;
    item.metadata = types;
    req.store_name = text("store");
    req.n_states = 1;
    req.states = items;
    rpc_ok(a, &r, "SaveState", &req, EMPTY);
    rpc_done(&r);
    check_value(a, "k", kept, sizeof kept - 1);
    item.value = bytes("{");
    rpc_refused(a, "SaveState", &req, OUTR_INVALID_ARGUMENT, "ERR_STATE_SAVE", "contentType");
    api_close(a);
}

static void an_unknown_store_is_named(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0),
              *bare = api_open(&plain, "", NULL, 0);
    get_request get = get_of("none", "k");
    bulk_request bulk = DAPR__PROTO__RUNTIME__V1__GET_BULK_STATE_REQUEST__INIT;
    save_request save_ = DAPR__PROTO__RUNTIME__V1__SAVE_STATE_REQUEST__INIT;
    delete_request del = DAPR__PROTO__RUNTIME__V1__DELETE_STATE_REQUEST__INIT;
    delete_bulk_request many = DAPR__PROTO__RUNTIME__V1__DELETE_BULK_STATE_REQUEST__INIT;
    transaction_request all = DAPR__PROTO__RUNTIME__V1__EXECUTE_STATE_TRANSACTION_REQUEST__INIT;
    query_request query = DAPR__PROTO__RUNTIME__V1__QUERY_STATE_REQUEST__INIT;
    bulk.store_name = save_.store_name = del.store_name = many.store_name = all.storename =
        query.store_name = text("none");
    const struct {
        const char *method;
        const void *request;
    } rows[] = {{"GetState", &get},         {"GetBulkState", &bulk},
                {"SaveState", &save_},      {"DeleteState", &del},
                {"DeleteBulkState", &many}, {"ExecuteStateTransaction", &all},
                {"QueryStateAlpha1", &query}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        rpc_refused(a, rows[i].method, rows[i].request, OUTR_INVALID_ARGUMENT,
                    "DAPR_STATE_NOT_FOUND", "state store none is not found");
        rpc_refused(bare, rows[i].method, rows[i].request, OUTR_FAILED_PRECONDITION,
                    "DAPR_STATE_NOT_CONFIGURED", "state store none is not configured");
    }
    query.store_name = text("store");
    rpc_refused(a, "QueryStateAlpha1", &query, OUTR_INTERNAL, "DAPR_STATE_QUERYING_NOT_SUPPORTED",
                "state store does not support querying");
    api_close(bare);
    api_close(a);
}

static void details_of_an_illegal_key_are_text_however_long_it_is(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    char key[1500];
    rpc r = {0};
    (void)state;
    for (size_t shift = 0; shift < 3; shift++) { /* the message is cut in the middle of some */
        memset(key, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof key - 3; i += 3)
            memcpy(key + i, "\xe2\x82\xac", 4);
        strcat(key, "||");
        get_request req = get_of("store", key);
        rpc_start(a, &r, "GetState", &req);
        assert_null(rpc_finish(&r, D(get_state_response)));
        assert_int_equal(r.err.code, OUTR_INVALID_ARGUMENT);
        const Google__Rpc__BadRequest *bad =
            rpc_detail(&r, "google.rpc.BadRequest", &google__rpc__bad_request__descriptor);
        const Google__Rpc__ResourceInfo *resource =
            rpc_detail(&r, "google.rpc.ResourceInfo", &google__rpc__resource_info__descriptor);
        assert_string_equal(bad->field_violations[0]->field, key);
        assert_string_equal(resource->resource_type, "state");
        assert_string_equal(resource->resource_name, "store");
        rpc_done(&r);
    }
    api_close(a);
}

/* ---- events ---------------------------------------------------------------------------------- */

typedef struct catcher {
    api_world *a;
    outr_view *view;
    const outr_component *component;
    outr_broker_sub *sub;
    outr_arena *arena;
    outr_json *events[8];
    outr_str raw[8];
    outr_kvs metadata[8];
    size_t count;
} catcher;

static void on_event(void *ctx, outr_message_in *msg)
{
    catcher *c = ctx;
    outr_kv *kvs = outr_arena_alloc(c->arena, (msg->metadata.count + 1) * sizeof *kvs);
    assert_true(c->count < OUTR_LEN(c->events));
    for (size_t i = 0; i < msg->metadata.count; i++)
        kvs[i] = (outr_kv){outr_arena_str(c->arena, msg->metadata.items[i].key),
                           outr_arena_str(c->arena, msg->metadata.items[i].value)};
    c->raw[c->count] = outr_arena_str(c->arena, msg->data);
    c->metadata[c->count] = (outr_kvs){kvs, msg->metadata.count};
    outr_json_parse(&c->events[c->count], c->arena, c->raw[c->count], NULL);
    c->count++;
    c->component->broker->backend->settle(c->sub, msg, OUTR_SETTLE_ACK);
}

static void catch_events(catcher *c, api_world *a, const char *topic)
{
    outr_err err;
    *c = (catcher){.a = a, .arena = outr_arena_new(OUTR_MIB)};
    c->view = outr_host_pin(a->host, a->w.loop);
    c->component = outr_view_find(c->view, OUTR_KIND_PUBSUB, OUTR_STR("bus"));
    outr_broker *broker = c->component->broker;
    const outr_subscribe subscribe = {.topic = outr_str_from(topic),
                                      .loop = a->w.loop,
                                      .credit = 8,
                                      .on_message = on_event,
                                      .ctx = c};
    if (broker->backend->subscribe(broker, &subscribe, &c->sub, &err))
        fail_msg("%s", err.text);
}

static void catch_no_more(catcher *c)
{
    outr_op op;
    outr_op_init(&op, c->a->w.loop, NULL, 0, api_must);
    c->component->broker->backend->unsubscribe(c->sub, &op);
    api_wait(c->a, &op);
    outr_view_unpin(c->view);
    outr_arena_free(c->arena);
}

static void check_member(const outr_json *event, const char *name, const char *value)
{
    outr_str got = outr_json_text(event, name);
    if (!outr_str_is(got, value))
        fail_msg("%s: " OUTR_FMT, name, OUTR_ARG(got));
}

static void wait_events(catcher *c, size_t count)
{
    while (c->count < count)
        wire_run(&c->a->w);
}

static publish_request publish_of(const char *pubsub, const char *topic, const char *data)
{
    publish_request req = DAPR__PROTO__RUNTIME__V1__PUBLISH_EVENT_REQUEST__INIT;
    req.pubsub_name = text(pubsub);
    req.topic = text(topic);
    req.data = bytes(data);
    return req;
}

#define PARENT "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

static void an_event_is_published_in_its_envelope_or_raw(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    publish_metadata raw = DAPR__PROTO__RUNTIME__V1__PUBLISH_EVENT_REQUEST__METADATA_ENTRY__INIT,
                     *metadata[] = {&raw};
    publish_request req = publish_of("bus", "orders", "{\"n\":1}");
    catcher c;
    rpc r = {0};
    (void)state;
    catch_events(&c, a, "orders");
    req.data_content_type = text("application/json");
    r.arena = outr_arena_new(OUTR_MIB);
    outr_headers_init(&r.unary.metadata, r.arena);
    outr_headers_add(&r.unary.metadata, OUTR_STR("traceparent"), OUTR_STR(PARENT));
    outr_headers_add(&r.unary.metadata, OUTR_STR("tracestate"), OUTR_STR("a=b"));
    rpc_ok(a, &r, "PublishEvent", &req, EMPTY);
    wait_events(&c, 1);
    check_member(c.events[0], "source", "me");
    check_member(c.events[0], "topic", "orders");
    check_member(c.events[0], "datacontenttype", "application/json");
    check_member(c.events[0], "traceparent", PARENT);
    check_member(c.events[0], "tracestate", "a=b");
    assert_int_equal(outr_json_find(c.events[0], "data")->kind, OUTR_JSON_OBJECT);

    rpc again = {.arena = outr_arena_new(OUTR_MIB)};
    outr_headers_init(&again.unary.metadata, again.arena);
    outr_headers_add(&again.unary.metadata, OUTR_STR("traceparent"), OUTR_STR(PARENT));
    raw.key = text("rawPayload");
    raw.value = text("true");
    req.n_metadata = 1;
    req.metadata = metadata;
    rpc_ok(a, &again, "PublishEvent", &req, EMPTY);
    wait_events(&c, 2);
    assert_true(outr_str_is(c.raw[1], "{\"n\":1}"));
    const outr_kv *trace = outr_kvs_find_exact(c.metadata[1], OUTR_STR("traceid"));
    assert_true(trace && outr_str_is(trace->value, PARENT));
    assert_non_null(outr_kvs_find_exact(c.metadata[1], OUTR_STR("tracestate")));
    assert_non_null(outr_kvs_find_exact(c.metadata[1], OUTR_STR("rawPayload")));
    rpc_done(&again);
    rpc_done(&r);
    catch_no_more(&c);
    api_close(a);
}

static void entries_of_a_bulk_have_spans_of_their_own(void **state)
{
    api_world *a =
        api_open(&plain, components,
                 "kind: Configuration\nspec: {tracing: {samplingRate: \"1\"}}\n", 0);
    publish_entry entries[2] = {DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_REQUEST_ENTRY__INIT,
                                DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_REQUEST_ENTRY__INIT};
    publish_entry *pointers[] = {&entries[0], &entries[1]};
    bulk_publish_request req = DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_REQUEST__INIT;
    catcher c;
    rpc r = {0};
    (void)state;
    catch_events(&c, a, "orders");
    r.arena = outr_arena_new(OUTR_MIB);
    outr_headers_init(&r.unary.metadata, r.arena);
    outr_headers_add(&r.unary.metadata, OUTR_STR("traceparent"), OUTR_STR(PARENT));
    req.pubsub_name = text("bus");
    req.topic = text("orders");
    req.n_entries = 2;
    req.entries = pointers;
    entries[0].entry_id = text("1");
    entries[0].event = bytes("one");
    entries[1].entry_id = text("2");
    rpc_ok(a, &r, "BulkPublishEvent", &req, D(bulk_publish_response));
    wait_events(&c, 2);
    outr_str first = outr_json_text(c.events[0], "traceparent"),
             second = outr_json_text(c.events[1], "traceparent");
    check_member(c.events[0], "data", "one");
    check_member(c.events[0], "datacontenttype", "text/plain");
    check_member(c.events[1], "data", "");
    assert_true(outr_str_starts(first, OUTR_STR("00-0af7651916cd43dd8448eb211c80319c-")));
    assert_true(outr_str_starts(second, OUTR_STR("00-0af7651916cd43dd8448eb211c80319c-")));
    assert_false(outr_str_eq(first, second));
    rpc_done(&r);
    catch_no_more(&c);
    api_close(a);
}

static void an_event_that_cannot_be_published_says_why(void **state)
{
    static const struct {
        const char *pubsub, *topic, *data, *type, *raw;
        outr_code code;
        const char *reason, *text;
    } rows[] = {
        {"", "orders", "", "", NULL, OUTR_INVALID_ARGUMENT, "DAPR_PUBSUB_NAME_EMPTY",
         "pubsub name is empty"},
        {"none", "orders", "", "", NULL, OUTR_INVALID_ARGUMENT, "DAPR_PUBSUB_NOT_FOUND",
         "pubsub none is not found"},
        {"none", "", "", "", NULL, OUTR_INVALID_ARGUMENT, "DAPR_PUBSUB_NOT_FOUND", "none"},
        {"bus", "", "", "", NULL, OUTR_INVALID_ARGUMENT, "DAPR_PUBSUB_TOPIC_NAME_EMPTY",
         "topic is empty in pubsub bus"},
        {"bus", "orders", "", "", "maybe", OUTR_INVALID_ARGUMENT,
         "DAPR_PUBSUB_METADATA_DESERIALIZATION", "'maybe'"},
        {"bus", "orders", "{", "application/cloudevents+json", NULL, OUTR_INVALID_ARGUMENT,
         "DAPR_PUBSUB_CLOUD_EVENT_CREATION", "cannot create cloudevent"},
        {"bus", "secret", "", "", NULL, OUTR_PERMISSION_DENIED, "DAPR_PUBSUB_FORBIDDEN",
         "topic secret is not allowed for app id me"},
        {"bus", "closed", "", "", "true", OUTR_PERMISSION_DENIED, "DAPR_PUBSUB_FORBIDDEN",
         "topic closed is not allowed for app id me"},
    };
    api_world *a = api_open(&plain, components, NULL, 0);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        publish_metadata raw =
                             DAPR__PROTO__RUNTIME__V1__PUBLISH_EVENT_REQUEST__METADATA_ENTRY__INIT,
                         *metadata[] = {&raw};
        publish_request req = publish_of(rows[i].pubsub, rows[i].topic, rows[i].data);
        req.data_content_type = text(rows[i].type);
        raw.key = text("rawPayload");
        raw.value = text(rows[i].raw ? rows[i].raw : "");
        req.n_metadata = rows[i].raw != NULL;
        req.metadata = metadata;
        rpc_refused(a, "PublishEvent", &req, rows[i].code, rows[i].reason, rows[i].text);
    }
    api_close(a);
}

static void a_bulk_is_refused_as_a_whole(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    publish_entry entries[2] = {DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_REQUEST_ENTRY__INIT,
                                DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_REQUEST_ENTRY__INIT};
    publish_entry *pointers[] = {&entries[0], &entries[1]};
    bulk_publish_request req = DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_REQUEST__INIT;
    static const char events[] = "DAPR_PUBSUB_MARSHAL_EVENTS";
    rpc r = {0};
    (void)state;
    req.pubsub_name = text("bus");
    req.topic = text("orders");
    rpc_ok(a, &r, "BulkPublishEvent", &req, D(bulk_publish_response));
    rpc_done(&r);
    req.n_entries = 2;
    req.entries = pointers;
    rpc_refused(a, "BulkPublishEvent", &req, OUTR_INVALID_ARGUMENT, events, "not present");
    entries[0].entry_id = entries[1].entry_id = text("1");
    rpc_refused(a, "BulkPublishEventAlpha1", &req, OUTR_INVALID_ARGUMENT, events, "duplicated");
    entries[1].entry_id = text("2");
    req.topic = text("secret");
    rpc_refused(a, "BulkPublishEvent", &req, OUTR_PERMISSION_DENIED, "DAPR_PUBSUB_FORBIDDEN",
                "topic secret");
    api_close(a);
}

/* Not settled: what comes after it waits. */
static void hold_event(void *ctx, outr_message_in *msg)
{
    *(outr_message_in **)ctx = msg;
}

static void entries_that_failed_are_listed_the_others_are_out(void **state)
{
    enum { ROOM = 10000, MORE = 3 }; /* what the broker lets wait */
    api_world *a = api_open(&plain, components, NULL, 0);
    outr_view *view = outr_host_pin(a->host, a->w.loop);
    outr_broker *broker = outr_view_find(view, OUTR_KIND_PUBSUB, OUTR_STR("bus"))->broker;
    outr_message_in *held = NULL;
    const outr_subscribe subscribe = {.topic = OUTR_STR("orders"),
                                      .loop = a->w.loop,
                                      .credit = 1,
                                      .on_message = hold_event,
                                      .ctx = &held};
    publish_entry *entries = outr_alloc((ROOM + MORE) * sizeof *entries);
    publish_entry **pointers = outr_alloc((ROOM + MORE) * sizeof *pointers);
    char(*ids)[8] = outr_alloc((ROOM + MORE) * sizeof *ids);
    bulk_publish_request req = DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_REQUEST__INIT;
    outr_broker_sub *sub;
    outr_op op;
    web_call c;
    rpc r = {0};
    (void)state;
    assert_int_equal(broker->backend->subscribe(broker, &subscribe, &sub, NULL), OUTR_OK);
    for (int i = 0; i < ROOM + MORE; i++) {
        snprintf(ids[i], sizeof ids[i], "%d", i);
        dapr__proto__runtime__v1__bulk_publish_request_entry__init(&entries[i]);
        entries[i].entry_id = ids[i];
        pointers[i] = &entries[i];
    }
    req.pubsub_name = text("bus");
    req.topic = text("orders");
    req.n_entries = ROOM + MORE;
    req.entries = pointers;
    const Dapr__Proto__Runtime__V1__BulkPublishResponse *got =
        rpc_ok(a, &r, "BulkPublishEvent", &req, D(bulk_publish_response));
    assert_int_equal(got->n_failedentries, MORE);
    assert_string_equal(got->failedentries[0]->entry_id, "10000");
    assert_non_null(strstr(got->failedentries[MORE - 1]->error, "wait for topic orders"));
    rpc_done(&r);
    api_call(a, &c, "POST", "/v1.0/publish/bus/orders", NULL, "x"); /* for the one handed over */
    web_call_done(&c);
    req.n_entries = 2;
    rpc_refused(a, "BulkPublishEvent", &req, OUTR_INTERNAL, "DAPR_PUBSUB_PUBLISH_MESSAGE",
                "error when publish to topic orders in pubsub bus: more than");
    api_call(a, &c, "POST", "/v1.0/publish/bulk/bus/orders", NULL,
             "[{\"entryId\":\"7\",\"event\":\"x\",\"contentType\":\"text/plain\"}]");
    assert_int_equal(c.call.head.status, 500);
    assert_true(outr_str_starts(outr_buf_view(&c.taker.body),
                                OUTR_STR("{\"failedEntries\":[{\"entryId\":\"7\",\"error\":")));
    web_call_done(&c);
    outr_op_init(&op, a->w.loop, NULL, 0, api_must);
    broker->backend->unsubscribe(sub, &op);
    broker->backend->settle(sub, held, OUTR_SETTLE_RELEASE);
    api_wait(a, &op);
    outr_view_unpin(view);
    free(ids);
    free(pointers);
    free(entries);
    api_close(a);
}

/* ---- secrets --------------------------------------------------------------------------------- */

static void secrets_are_read_as_far_as_scopes_allow(void **state)
{
    api_world *a =
        api_open(&plain, components,
                 "kind: Configuration\nspec: {secrets: {scopes: [{storeName: vault, defaultAccess: "
                 "deny, allowedSecrets: [RPC_SHOWN]}]}}\n",
                 0),
              *bare = api_open(&plain, "", NULL, 0);
    secret_request one = DAPR__PROTO__RUNTIME__V1__GET_SECRET_REQUEST__INIT;
    bulk_secret_request all = DAPR__PROTO__RUNTIME__V1__GET_BULK_SECRET_REQUEST__INIT;
    rpc r = {0};
    (void)state;
    setenv("RPC_SHOWN", "yes \xff", 1);
    setenv("RPC_HIDDEN", "no", 1);
    one.store_name = all.store_name = text("vault");
    one.key = text("RPC_SHOWN");
    const secret_response *got = rpc_ok(a, &r, "GetSecret", &one, D(get_secret_response));
    assert_int_equal(got->n_data, 1);
    assert_string_equal(got->data[0]->key, "RPC_SHOWN");
    assert_string_equal(got->data[0]->value, "yes \xef\xbf\xbd");
    rpc_done(&r);
    const bulk_secret_response *many =
        rpc_ok(a, &r, "GetBulkSecret", &all, D(get_bulk_secret_response));
    assert_int_equal(many->n_data, 1);
    assert_string_equal(many->data[0]->value->secrets[0]->key, "RPC_SHOWN");
    rpc_done(&r);
    one.key = text("RPC_HIDDEN");
    rpc_refused(a, "GetSecret", &one, OUTR_PERMISSION_DENIED, "",
                "access denied by policy to get \"RPC_HIDDEN\" from \"vault\"");
    one.store_name = all.store_name = text("none");
    rpc_refused(a, "GetSecret", &one, OUTR_INVALID_ARGUMENT, "", "secret store with key none");
    rpc_refused(a, "GetBulkSecret", &all, OUTR_INVALID_ARGUMENT, "", "secret store with key none");
    rpc_refused(bare, "GetSecret", &one, OUTR_FAILED_PRECONDITION, "", "is not configured");
    rpc_refused(bare, "GetBulkSecret", &all, OUTR_FAILED_PRECONDITION, "", "is not configured");
    api_close(bare);
    api_close(a);
}

/* ---- metadata, shutdown ---------------------------------------------------------------------- */

static void metadata_says_what_there_is_and_keeps_what_is_set(void **state)
{
    static const outr_settings health = {.max_body_bytes = 4 * 1024 * 1024,
                                         .app_port = 8000,
                                         .app_health_check = true,
                                         .app_health_path = OUTR_STR("/up"),
                                         .app_health_interval_ns = 90 * OUTR_SEC,
                                         .app_health_timeout_ns = 1500 * OUTR_MS,
                                         .app_health_threshold = 3};
    api_world *a = api_open(&health, components, NULL, 0);
    set_metadata_request set = DAPR__PROTO__RUNTIME__V1__SET_METADATA_REQUEST__INIT;
    metadata_request get = DAPR__PROTO__RUNTIME__V1__GET_METADATA_REQUEST__INIT;
    rpc r = {0};
    web_call c;
    (void)state;
    set.key = text("");
    set.value = text("dropped");
    rpc_ok(a, &r, "SetMetadata", &set, EMPTY);
    rpc_done(&r);
    set.key = text("k");
    rpc_ok(a, &r, "SetMetadata", &set, EMPTY);
    rpc_done(&r);
    set.value = text("v");
    rpc_ok(a, &r, "SetMetadata", &set, EMPTY);
    rpc_done(&r);
    api_call(a, &c, "PUT", "/v1.0/metadata/odd", NULL, "a\xc3(");
    web_call_done(&c);
    const metadata_response *got = rpc_ok(a, &r, "GetMetadata", &get, D(get_metadata_response));
    assert_string_equal(got->id, "me");
    assert_int_equal(got->n_registered_components, 3);
    assert_int_equal(got->n_extended_metadata, 3);
    assert_string_equal(got->extended_metadata[0]->key, "daprRuntimeVersion");
    assert_string_equal(got->extended_metadata[1]->value, "v");
    assert_string_equal(got->extended_metadata[2]->value, "a\xef\xbf\xbd(");
    assert_int_equal(got->app_connection_properties->port, 8000);
    assert_string_equal(got->app_connection_properties->health->health_check_path, "/up");
    assert_string_equal(got->app_connection_properties->health->health_probe_interval, "1m30s");
    assert_string_equal(got->app_connection_properties->health->health_probe_timeout, "1.5s");
    assert_int_equal(got->actor_runtime->runtime_status, 1);
    assert_non_null(got->workflows);
    rpc_done(&r);
    api_close(a);
}

static void metadata_grows_to_its_caps_only(void **state)
{
    api_world *a = api_open(&plain, "", NULL, 0);
    set_metadata_request set = DAPR__PROTO__RUNTIME__V1__SET_METADATA_REQUEST__INIT;
    OUTR_AUTO(outr_buf) large = OUTR_BUF_MAX(2 * OUTR_MIB);
    rpc r = {0};
    (void)state;
    for (size_t i = 0; i < OUTR_METADATA_BYTES_MAX - 1; i++)
        outr_buf_char(&large, 'x');
    outr_buf_char(&large, 0);
    set.key = text("k");
    set.value = large.p;
    rpc_ok(a, &r, "SetMetadata", &set, EMPTY);
    rpc_done(&r);
    rpc_ok(a, &r, "SetMetadata", &set, EMPTY); /* in place of the same */
    rpc_done(&r);
    set.key = text("l");
    set.value = text("");
    rpc_refused(a, "SetMetadata", &set, OUTR_RESOURCE_EXHAUSTED, "", "bytes of metadata");
    set.key = text("k");
    rpc_ok(a, &r, "SetMetadata", &set, EMPTY);
    rpc_done(&r);
    for (int i = 1; i < OUTR_METADATA_KEYS_MAX; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        set.key = key;
        rpc_ok(a, &r, "SetMetadata", &set, EMPTY);
        rpc_done(&r);
    }
    set.key = text("one more");
    rpc_refused(a, "SetMetadata", &set, OUTR_RESOURCE_EXHAUSTED, "", "metadata keys");
    api_close(a);
}

static void shutdown_is_answered_and_passed_on(void **state)
{
    api_world *a = api_open(&plain, "", NULL, 0);
    shutdown_request req = DAPR__PROTO__RUNTIME__V1__SHUTDOWN_REQUEST__INIT;
    rpc r = {0};
    (void)state;
    rpc_ok(a, &r, "Shutdown", &req, EMPTY);
    rpc_done(&r);
    assert_int_equal(a->shutdowns, 1);
    assert_false(a->was_forced);
    api_close(a);
}

/* ---- what is no such call -------------------------------------------------------------------- */

/* Body bytes as they are; the code of the trailers-only answer. */
static int send_raw(api_world *a, const char *method, const char *body, size_t n, const char *extra)
{
    web_call c;
    int64_t code = -1;
    web_call_init(&c, a->w.loop, "POST", method);
    outr_headers_add(&c.req.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_add(&c.req.headers, OUTR_STR("te"), OUTR_STR("trailers"));
    if (extra)
        outr_headers_add(&c.req.headers, outr_str_from(extra), OUTR_STR("no baggage;;"));
    web_call_bytes(&c, body, n);
    web_call_start(&c, a->grpc_client);
    wire_run(&a->w);
    assert_int_equal(c.call.head.status, 200);
    assert_true(outr_str_to_i64(outr_headers_get(&c.call.head.headers, "grpc-status"), 0, 16,
                                &code));
    web_call_done(&c);
    return (int)code;
}

/* The same, answered in any way. */
static void send_whole(api_world *a, const char *method, const char *body, size_t n)
{
    web_call c;
    web_call_init(&c, a->w.loop, "POST", method);
    outr_headers_add(&c.req.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_add(&c.req.headers, OUTR_STR("te"), OUTR_STR("trailers"));
    web_call_bytes(&c, body, n);
    web_call_start(&c, a->grpc_client);
    wire_run(&a->w);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.call.head.status, 200);
    assert_true(outr_headers_has(&c.call.head.headers, "grpc-status") ||
                strstr(c.taker.trailers, "grpc-status="));
    web_call_done(&c);
}

#define BYTES(s) s, sizeof s - 1

static void bad_messages_fail_their_call_only(void **state)
{
    static const struct {
        const char *body;
        size_t n;
        outr_code code;
    } rows[] = {
        {BYTES(""), OUTR_INTERNAL},
        {BYTES("\0\0\0"), OUTR_INTERNAL},
        {BYTES("\0\0\0\0\5abc"), OUTR_INTERNAL},
        {BYTES("\0\0\0\0\3\377\377\377"), OUTR_INTERNAL},
        {BYTES("\0\0\0\0\4\x0a\2\xc3("), OUTR_INTERNAL}, /* no UTF-8 */
        {BYTES("\0\0\0\0\4\x0a\2a\0"), OUTR_INTERNAL},   /* NUL in a string */
        {BYTES("\0\0\0\0\0\0\0\0\0\0"), OUTR_INTERNAL},  /* two messages */
        {BYTES("\1\0\0\0\0"), OUTR_INTERNAL},            /* compressed, but by what? */
        {BYTES("\0\377\377\377\377"), OUTR_RESOURCE_EXHAUSTED},
        {BYTES("\0\0\0\0\0"), OUTR_INVALID_ARGUMENT}, /* a good one: store "" is not found */
    };
    api_world *a = api_open(&plain, components, NULL, 0);
    (void)state;
    save(a, "k", bytes("v"));
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        int code = send_raw(a, RPC_PATH "GetState", rows[i].body, rows[i].n, NULL);
        if (code != (int)rows[i].code)
            fail_msg("row %zu: %d", i, code);
        check_value(a, "k", "v", 1);
    }
    assert_int_equal(send_raw(a, RPC_PATH "GetState", BYTES("\0\0\0\0\0"), "baggage"),
                     OUTR_INVALID_ARGUMENT);
    assert_int_equal(outr_http_pool_connections(a->grpc_client), 1);
    assert_int_equal(outr_http_server_requests(a->grpc_server), 0);
    api_close(a);
}

/* A message that was good until some of its bytes changed, went or came twice. */
static size_t damage(outr_rand *rand, char *body, size_t n, size_t cap)
{
    for (uint64_t i = outr_rand_below(rand, 4); i > 0 && n > 0; i--) {
        size_t at = outr_rand_below(rand, n), len = n - at;
        switch (outr_rand_below(rand, 3)) {
        case 0:
            body[at] = (char)outr_rand_below(rand, 256);
            break;
        case 1:
            n = at;
            break;
        default:
            len = OUTR_MIN(len, cap - n);
            memmove(body + at + len, body + at, n - at);
            n += len;
        }
    }
    return n;
}

static void whatever_comes_is_answered(void **state)
{
    static const struct {
        const char *method, *body;
        size_t n;
    } rows[] = {
        {"GetState", BYTES("\x0a\5store\x12\1k\x18\1\"\6\x0a\1a\x12\1b")},
        {"GetBulkState", BYTES("\x0a\5store\x12\1k\x12\1l\x18\2")},
        {"SaveState", BYTES("\x0a\5store\x12\x17\x0a\1k\x12\1v\x1a\3\x0a\1e"
                            "\"\6\x0a\1a\x12\1b*\2\x08\1")},
        {"DeleteState", BYTES("\x0a\5store\x12\1k\x1a\3\x0a\1e\"\2\x08\1")},
        {"DeleteBulkState", BYTES("\x0a\5store\x12\3\x0a\1k\x12\3\x0a\1l")},
        {"ExecuteStateTransaction",
         BYTES("\x0a\5store\x12\x10\x0a\6upsert\x12\6\x0a\1k\x12\1v"
               "\x12\x0d\x0a\6delete\x12\3\x0a\1k")},
        {"QueryStateAlpha1", BYTES("\x0a\5store\x12\2{}")},
        {"PublishEvent", BYTES("\x0a\3bus\x12\6orders\x1a\2{}\"\x10" "application/json")},
        {"BulkPublishEvent", BYTES("\x0a\3bus\x12\6orders\x1a\6\x0a\0011\x12\1e"
                                   "\x1a\6\x0a\0012\x12\1f")},
        {"GetSecret", BYTES("\x0a\5vault\x12\4HOME")},
        {"GetBulkSecret", BYTES("\x0a\5vault")},
        {"GetMetadata", BYTES("")},
        {"SetMetadata", BYTES("\x0a\1k\x12\1v")},
    };
    api_world *a = api_open(&plain, components, NULL, 0);
    outr_rand rand;
    char frame[512], method[128];
    (void)state;
    outr_rand_seed(&rand, 7);
    for (size_t i = 0; i < 60 * OUTR_LEN(rows); i++) {
        size_t row = i % OUTR_LEN(rows);
        memcpy(frame + 5, rows[row].body, rows[row].n);
        size_t n = damage(&rand, frame + 5, rows[row].n, sizeof frame - 5);
        memcpy(frame, (char[]){0, 0, 0, (char)(n >> 8), (char)n}, 5);
        snprintf(method, sizeof method, RPC_PATH "%s", rows[row].method);
        send_whole(a, method, frame, n + 5);
    }
    assert_int_equal(outr_http_pool_connections(a->grpc_client), 1);
    assert_int_equal(outr_http_server_requests(a->grpc_server), 0);
    api_close(a);
}

static void large_messages_are_refused_both_ways(void **state)
{
    static const outr_settings small = {.max_body_bytes = 1000};
    api_world *a = api_open(&small, components, NULL, 0);
    static char value[1100];
    char *keys[] = {text("a"), text("b")};
    bulk_request bulk = DAPR__PROTO__RUNTIME__V1__GET_BULK_STATE_REQUEST__INIT;
    publish_request event = publish_of("bus", "orders", "");
    (void)state;
    save(a, "a", (ProtobufCBinaryData){700, (uint8_t *)value});
    save(a, "b", (ProtobufCBinaryData){700, (uint8_t *)value});
    bulk.store_name = text("store");
    bulk.keys = keys;
    bulk.n_keys = 2;
    rpc_refused(a, "GetBulkState", &bulk, OUTR_RESOURCE_EXHAUSTED, "", "larger than max");
    event.data = (ProtobufCBinaryData){sizeof value, (uint8_t *)value};
    rpc_refused(a, "PublishEvent", &event, OUTR_RESOURCE_EXHAUSTED, "", "larger than max");
    check_value(a, "b", value, 700);
    api_close(a);
}

static void more_items_than_memory_for_them_are_refused(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    size_t n = 300000; /* of 2 bytes: the request's arena has 64 MiB */
    char **keys = outr_alloc(n * sizeof *keys);
    publish_entry **entries = outr_alloc(n * sizeof *entries);
    publish_entry entry = DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_REQUEST_ENTRY__INIT;
    bulk_request bulk = DAPR__PROTO__RUNTIME__V1__GET_BULK_STATE_REQUEST__INIT;
    bulk_publish_request events = DAPR__PROTO__RUNTIME__V1__BULK_PUBLISH_REQUEST__INIT;
    (void)state;
    for (size_t i = 0; i < n; i++) {
        keys[i] = text("");
        entries[i] = &entry;
    }
    bulk.store_name = text("store");
    bulk.n_keys = n;
    bulk.keys = keys;
    rpc_refused(a, "GetBulkState", &bulk, OUTR_RESOURCE_EXHAUSTED, "", "too many items");
    events.pubsub_name = text("bus");
    events.topic = text("orders");
    events.n_entries = n;
    events.entries = entries;
    rpc_refused(a, "BulkPublishEvent", &events, OUTR_RESOURCE_EXHAUSTED,
                "DAPR_PUBSUB_PUBLISH_MESSAGE", "too many events");
    save(a, "k", bytes("v"));
    free(entries);
    free(keys);
    api_close(a);
}

/* ---- the client leaves ----------------------------------------------------------------------- */

static const char sqlite[] =
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\n"
    "spec:\n  type: state.sqlite\n  version: v1\n  metadata:\n"
    "  - {name: connectionString, value: \"file::memory:\"}\n";

static void a_client_who_leaves_while_the_store_works_leaves_nothing(void **state)
{
    api_world *a = api_open(&plain, sqlite, NULL, 0);
    get_request get = get_of("store", "k");
    (void)state;
    save(a, "k", bytes("v"));
    for (int i = 0; i < 20; i++) {
        rpc gone = {0}, stays = {0};
        rpc_start(a, &gone, "GetState", &get);
        rpc_start(a, &stays, "GetState", &get);
        outr_op_cancel(&gone.op, OUTR_CANCELLED);
        while (!stays.done_count || outr_http_server_requests(a->grpc_server) > 0)
            wire_run(&a->w);
        const get_response *got = rpc_finish(&stays, D(get_state_response));
        assert_non_null(got);
        assert_int_equal(got->data.len, 1);
        assert_int_equal(gone.done_count, 1);
        rpc_done(&gone);
        rpc_done(&stays);
    }
    rpc broken = {0};
    rpc_start(a, &broken, "GetState", &get);
    outr_http_pool_free(a->grpc_client); /* its connection closes */
    a->grpc_client = NULL;
    while (outr_http_server_requests(a->grpc_server) > 0)
        wire_run(&a->w);
    assert_int_equal(broken.done_count, 1);
    rpc_done(&broken);
    api_close(a);
}

/* ---- rules, metrics -------------------------------------------------------------------------- */

static void only_what_is_named_as_the_reference_names_it_is_opened(void **state)
{
    static const struct {
        const char *api;
        bool is_open;
    } rows[] = {
        {"{allowed: [{name: state, version: v1, protocol: grpc}]}", true},
        {"{allowed: [{name: state, version: v1.0, protocol: grpc}]}", false},
        {"{allowed: [{name: secrets, version: v1, protocol: grpc}]}", false},
        {"{allowed: [{name: secrets, version: v1, protocol: http}]}", true},
        {"{denied: [{name: state, version: v1, protocol: grpc}]}", false},
        {"{denied: [{name: state, version: v1.0, protocol: grpc}]}", false},
        {"{denied: [{name: state, version: v1alpha1, protocol: grpc}]}", true},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        char configuration[256];
        snprintf(configuration, sizeof configuration, "kind: Configuration\nspec: {api: %s}\n",
                 rows[i].api);
        api_world *a = api_open(&plain, components, configuration, 0);
        get_request get = get_of("store", "k");
        if (rows[i].is_open)
            check_value(a, "k", "", 0);
        else
            rpc_refused(a, "GetState", &get, OUTR_UNIMPLEMENTED, "Not Implemented",
                        "Not Implemented");
        api_close(a);
    }
}

static size_t count(outr_str all, const char *part)
{
    size_t n = 0;
    for (ptrdiff_t at; (at = outr_str_search(all, outr_str_from(part))) >= 0; n++)
        all = outr_str_skip(all, (size_t)at + 1);
    return n;
}

static void calls_operations_and_errors_are_counted(void **state)
{
    api_world *a = api_open(&plain, components,
                            "kind: Configuration\nspec: {metrics: {recordErrorCodes: true}}\n", 0);
    get_request none = get_of("none", "k");
    publish_request shut = publish_of("bus", "secret", "x"),
                    good = publish_of("bus", "orders", "x");
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(16 * OUTR_MIB);
    rpc r = {0};
    (void)state;
    save(a, "k", bytes("v"));
    check_value(a, "k", "v", 1);
    rpc_refused(a, "GetState", &none, OUTR_INVALID_ARGUMENT, "DAPR_STATE_NOT_FOUND", "");
    rpc_refused(a, "PublishEvent", &shut, OUTR_PERMISSION_DENIED, "DAPR_PUBSUB_FORBIDDEN", "");
    rpc_ok(a, &r, "PublishEvent", &good, EMPTY);
    rpc_done(&r);
    outr_metrics_write(a->metrics, &out);
    static const char *const lines[] = {
        "dapr_error_code_total{app_id=\"me\",category=\"state\",error_code=\"ERR_STATE_STORE_NOT_"
        "FOUND\"} 1",
        "dapr_grpc_io_server_completed_rpcs{app_id=\"me\",grpc_server_method=\"" RPC_PATH
        "GetState\",grpc_server_status=\"INVALID_ARGUMENT\"} 1",
        "dapr_grpc_io_server_completed_rpcs{app_id=\"me\",grpc_server_method=\"" RPC_PATH
        "SaveState\",grpc_server_status=\"OK\"} 1",
        "operation=\"get\",success=\"true\"} 1",
        "operation=\"set\",success=\"true\"} 1",
        "dapr_component_pubsub_egress_count{app_id=\"me\",component=\"bus\",namespace=\"\",success="
        "\"true\",topic=\"orders\"} 1",
        "dapr_component_pubsub_egress_count{app_id=\"me\",component=\"bus\",namespace=\"\",success="
        "\"false\",topic=\"secret\"} 1",
    };
    for (size_t i = 0; i < OUTR_LEN(lines); i++) {
        if (count(outr_buf_view(&out), lines[i]) == 0)
            fail_msg("no %s in\n" OUTR_FMT, lines[i], OUTR_ARG(outr_buf_view(&out)));
    }
    api_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_as_they_were_saved),
        cmocka_unit_test(an_empty_key_is_refused_in_save_only),
        cmocka_unit_test(an_etag_is_absent_or_compared),
        cmocka_unit_test(many_keys_are_read_in_their_order),
        cmocka_unit_test(a_transaction_happens_as_a_whole),
        cmocka_unit_test(a_value_declared_as_json_is_kept_as_http_keeps_it),
        cmocka_unit_test(an_unknown_store_is_named),
        cmocka_unit_test(details_of_an_illegal_key_are_text_however_long_it_is),
        cmocka_unit_test(an_event_is_published_in_its_envelope_or_raw),
        cmocka_unit_test(entries_of_a_bulk_have_spans_of_their_own),
        cmocka_unit_test(an_event_that_cannot_be_published_says_why),
        cmocka_unit_test(a_bulk_is_refused_as_a_whole),
        cmocka_unit_test(entries_that_failed_are_listed_the_others_are_out),
        cmocka_unit_test(secrets_are_read_as_far_as_scopes_allow),
        cmocka_unit_test(metadata_says_what_there_is_and_keeps_what_is_set),
        cmocka_unit_test(metadata_grows_to_its_caps_only),
        cmocka_unit_test(shutdown_is_answered_and_passed_on),
        cmocka_unit_test(bad_messages_fail_their_call_only),
        cmocka_unit_test(whatever_comes_is_answered),
        cmocka_unit_test(large_messages_are_refused_both_ways),
        cmocka_unit_test(more_items_than_memory_for_them_are_refused),
        cmocka_unit_test(a_client_who_leaves_while_the_store_works_leaves_nothing),
        cmocka_unit_test(only_what_is_named_as_the_reference_names_it_is_opened),
        cmocka_unit_test(calls_operations_and_errors_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
