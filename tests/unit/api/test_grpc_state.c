#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "unit/api/rpc.h"

typedef Dapr__Proto__Common__V1__StateOptions state_options;
typedef Dapr__Proto__Common__V1__Etag etag;
typedef Dapr__Proto__Runtime__V1__GetBulkStateRequest bulk_request;
typedef Dapr__Proto__Runtime__V1__GetBulkStateResponse bulk_response;
typedef Dapr__Proto__Runtime__V1__DeleteStateRequest delete_request;
typedef Dapr__Proto__Runtime__V1__DeleteBulkStateRequest delete_bulk_request;
typedef Dapr__Proto__Runtime__V1__ExecuteStateTransactionRequest transaction_request;
typedef Dapr__Proto__Runtime__V1__TransactionalStateOperation state_operation;
typedef Dapr__Proto__Runtime__V1__QueryStateRequest query_request;
typedef Dapr__Proto__Common__V1__StateItem__MetadataEntry item_metadata;

/* ---- state ----------------------------------------------------------------------------------- */

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
