#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dapr/proto/runtime/v1/dapr.pb-c.h>
#include <dapr/proto/runtime/v1/metadata.pb-c.h>
#include <dapr/proto/runtime/v1/secret.pb-c.h>

#include "unit/api/rpc.h"

typedef Dapr__Proto__Runtime__V1__GetBulkStateRequest bulk_request;
typedef Dapr__Proto__Runtime__V1__BulkPublishRequest bulk_publish_request;
typedef Dapr__Proto__Runtime__V1__BulkPublishRequestEntry publish_entry;
typedef Dapr__Proto__Runtime__V1__GetSecretRequest secret_request;
typedef Dapr__Proto__Runtime__V1__GetSecretResponse secret_response;
typedef Dapr__Proto__Runtime__V1__GetBulkSecretRequest bulk_secret_request;
typedef Dapr__Proto__Runtime__V1__GetBulkSecretResponse bulk_secret_response;
typedef Dapr__Proto__Runtime__V1__GetMetadataRequest metadata_request;
typedef Dapr__Proto__Runtime__V1__GetMetadataResponse metadata_response;
typedef Dapr__Proto__Runtime__V1__SetMetadataRequest set_metadata_request;
typedef Dapr__Proto__Runtime__V1__ShutdownRequest shutdown_request;

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

/* ---- trace context --------------------------------------------------------------------------- */

static void answers_name_their_span_in_the_binary_form(void **state)
{
    api_world *a = api_open(&plain, components,
                            "kind: Configuration\nspec: {tracing: {samplingRate: \"1\"}}\n", 0);
    get_request get = get_of("mem", "k");
    outr_trace parent, span;
    char bytes[OUTR_TRACE_BIN_LEN];
    rpc r = {0};
    (void)state;
    assert_true(outr_trace_parse(
        &parent, OUTR_STR("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")));
    outr_trace_write_bin(&parent, bytes);
    r.arena = outr_arena_new(OUTR_MIB);
    outr_headers_init(&r.unary.metadata, r.arena);
    outr_headers_add(&r.unary.metadata, OUTR_STR("grpc-trace-bin"),
                     outr_grpc_bin_write(r.arena, outr_str_of(bytes, sizeof bytes)));
    rpc_start(a, &r, "GetState", &get);
    outr_trace_read_grpc(&span, &r.http.head.headers);
    assert_true(span.is_valid);
    assert_memory_equal(span.trace_id, parent.trace_id, 16);
    assert_memory_not_equal(span.span_id, parent.span_id, 8);
    assert_int_equal(span.flags, 1);
    rpc_finish(&r, D(get_state_response));
    rpc_done(&r);
    api_close(a);
    a = api_open(&plain, components, NULL, 0); /* without tracing and a parent there is none */
    r = (rpc){0};
    rpc_start(a, &r, "GetState", &get);
    assert_false(outr_headers_has(&r.http.head.headers, "grpc-trace-bin"));
    rpc_finish(&r, D(get_state_response));
    rpc_done(&r);
    api_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
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
        cmocka_unit_test(answers_name_their_span_in_the_binary_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
