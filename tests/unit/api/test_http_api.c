#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/json.h"
#include "unit/api/api.h"

static const outr_settings plain = {.max_body_bytes = 4 * 1024 * 1024};

static const char components[] =
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\n"
    "spec: {type: state.in-memory, version: v1}\n---\n"
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: bus}\n"
    "spec:\n  type: pubsub.in-memory\n  metadata:\n"
    "  - {name: publishingScopes, value: \"me=orders,a/b;you=secret\"}\n"
    "  - {name: protectedTopics, value: closed}\n";

typedef struct row {
    const char *method, *target, *body;
    int status;
    const char *expect; /* part of the answer's body */
} row;

static void check(api_world *a, const row *r, const char *const *headers)
{
    web_call c;
    api_call(a, &c, r->method, r->target, headers, r->body);
    outr_str body = outr_buf_view(&c.taker.body);
    bool is_right =
        c.call.head.status == r->status &&
        (r->expect[0] ? outr_str_search(body, outr_str_from(r->expect)) >= 0 : body.n == 0);
    if (!is_right)
        fail_msg("%s %s %s: %d " OUTR_FMT, r->method, r->target, r->body ? r->body : "",
                 c.call.head.status, OUTR_ARG(body));
    web_call_done(&c);
}

static void check_all(const outr_settings *settings, const char *yaml, const row *rows, size_t n)
{
    api_world *a = api_open(settings, yaml, NULL, 0);
    for (size_t i = 0; i < n; i++)
        check(a, &rows[i], NULL);
    api_close(a);
}

/* ---- state -------------------------------------------------------------------------------------- */

static void state_is_saved_read_and_deleted(void **state)
{
    static const row rows[] = {
        {"GET", "/v1.0/state/store/k", NULL, 204, ""},
        {"POST", "/v1.0/state/store", "[{\"key\":\"k\",\"value\":{\"b\":1,\"a\":[1.50,\"<\"]}}]",
         204, ""},
        {"GET", "/v1.0/state/store/k", NULL, 200, "{\"a\":[1.5,\"\\u003c\"],\"b\":1}"},
        {"PUT", "/v1.0/state/store", "[{\"key\":\"k\"},{\"KEY\":\"m\",\"Value\":\"x\"}]", 204, ""},
        {"GET", "/v1.0/state/store/k", NULL, 200, "null"},
        {"GET", "/v1.0/state/store/m", NULL, 200, "\"x\""},
        {"POST", "/v1.0/state/store/bulk", "{\"keys\":[\"m\",\"none\"]}", 200,
         "{\"key\":\"none\"}"},
        {"DELETE", "/v1.0/state/store/m", NULL, 204, ""},
        {"DELETE", "/v1.0/state/store/m", NULL, 204, ""},
        {"GET", "/v1.0/state/store/m", NULL, 204, ""},
        {"POST", "/v1.0/state/store", "[]", 204, ""},
        {"POST", "/v1.0/state/store/bulk", "{\"keys\":[]}", 200, "[]"},
        {"POST", "/v1.0/state/store/bulk", "{}", 200, "[]"},
        {"POST", "/v1.0/state/store/transaction", "{\"operations\":[]}", 204, ""},
        {"POST", "/v1.0/state/store/transaction",
         "{\"operations\":[{\"operation\":\"upsert\",\"request\":{\"key\":\"t\",\"value\":1}},"
         "{\"operation\":\"delete\",\"request\":{\"key\":\"k\"}}]}",
         204, ""},
        {"GET", "/v1.0/state/store/t", NULL, 200, "1"},
        {"GET", "/v1.0/state/store/k", NULL, 204, ""},
        {"GET", "/v1.0/state/store/a%2Fb+c", NULL, 204, ""},
        {"GET", "//v1.0//state/store/t/", NULL, 200, "1"},
    };
    (void)state;
    check_all(&plain, components, rows, OUTR_LEN(rows));
}

#define MALFORMED "\"errorCode\":\"ERR_MALFORMED_REQUEST\""

static void what_is_no_state_request_is_malformed(void **state)
{
    static const row rows[] = {
        {"POST", "/v1.0/state/store", "", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "{", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "{}", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "\"text\"", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "[1]", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "[null]", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "[{}]", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "[{\"key\":\"\"}]", 400, "required field"},
        {"POST", "/v1.0/state/store", "[{\"key\":1}]", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "[{\"key\":\"k\",\"etag\":1}]", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "[{\"key\":\"k\"}] more", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "[{\"key\":\"a||b\"}]", 400, "DAPR_STATE_ILLEGAL_KEY"},
        {"GET", "/v1.0/state/store/a||b", NULL, 400, "DAPR_STATE_ILLEGAL_KEY"},
        {"DELETE", "/v1.0/state/store/a%7C%7Cb", NULL, 400, "DAPR_STATE_ILLEGAL_KEY"},
        {"POST", "/v1.0/state/store/bulk", "[]", 400, MALFORMED},
        {"POST", "/v1.0/state/store/bulk", "{\"keys\":\"k\"}", 400, MALFORMED},
        {"POST", "/v1.0/state/store/bulk", "{\"keys\":[1]}", 400, MALFORMED},
        {"POST", "/v1.0/state/store/bulk", "{\"keys\":[{}]}", 400, MALFORMED},
        {"POST", "/v1.0/state/store/bulk", "{\"keys\":[\"a||b\"]}", 400, "DAPR_STATE_ILLEGAL_KEY"},
        {"POST", "/v1.0/state/store/transaction", "", 400, MALFORMED},
        {"POST", "/v1.0/state/store/transaction", "{\"operations\":{}}", 400, MALFORMED},
        {"POST", "/v1.0/state/store/transaction", "{\"operations\":[1]}", 400, "not supported"},
        {"POST", "/v1.0/state/store/transaction", "{\"operations\":[{\"operation\":\"read\"}]}",
         400, "ERR_NOT_SUPPORTED_STATE_OPERATION"},
        {"POST", "/v1.0/state/store/transaction", "{\"operations\":[{\"operation\":\"upsert\"}]}",
         400, MALFORMED},
        {"POST", "/v1.0/state/store/transaction",
         "{\"operations\":[{\"operation\":\"upsert\",\"request\":[]}]}", 400, MALFORMED},
        {"POST", "/v1.0/state/store", "[{\"key\":\"k\",\"options\":{\"concurrency\":\"any\"}}]",
         500, "ERR_STATE_SAVE"},
        {"POST", "/v1.0/state/store", "[{\"key\":\"k\",\"options\":{\"consistency\":\"any\"}}]",
         500, "ERR_STATE_SAVE"},
    };
    (void)state;
    check_all(&plain, components, rows, OUTR_LEN(rows));
}

static void an_etag_is_absent_empty_or_compared(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    const char *const wrong[] = {"If-Match", "999", NULL}, *const empty[] = {"If-Match", "", NULL};
    char text[128], etag[64];
    web_call c;
    (void)state;
    check(a, &(row){"POST", "/v1.0/state/store", "[{\"key\":\"k\",\"value\":1}]", 204, ""}, NULL);
    api_call(a, &c, "GET", "/v1.0/state/store/k", NULL, NULL);
    outr_str got = outr_headers_get(&c.call.head.headers, "etag");
    assert_true(got.n > 0 && got.n < sizeof etag);
    snprintf(etag, sizeof etag, OUTR_FMT, OUTR_ARG(got));
    web_call_done(&c);
    check(a,
          &(row){"POST", "/v1.0/state/store", "[{\"key\":\"k\",\"value\":2,\"etag\":\"999\"}]", 409,
                 "ERR_STATE_SAVE"},
          NULL);
    check(a, &(row){"DELETE", "/v1.0/state/store/k", NULL, 409, "ERR_STATE_DELETE"}, wrong);
    check(a,
          &(row){"POST", "/v1.0/state/store/transaction",
                 "{\"operations\":[{\"operation\":\"upsert\",\"request\":{\"key\":\"k\","
                 "\"value\":3,\"etag\":\"999\"}}]}",
                 500, "ERR_STATE_TRANSACTION"},
          NULL);
    check(a, &(row){"GET", "/v1.0/state/store/k", NULL, 200, "1"}, NULL);
    snprintf(text, sizeof text, "[{\"key\":\"k\",\"value\":4,\"etag\":\"%s\"}]", etag);
    check(a, &(row){"POST", "/v1.0/state/store", text, 204, ""}, NULL);
    check(a, &(row){"POST", "/v1.0/state/store", text, 409, "ERR_STATE_SAVE"}, NULL);
    check(
        a,
        &(row){"POST", "/v1.0/state/store", "[{\"key\":\"k\",\"value\":5,\"etag\":null}]", 204, ""},
        NULL);
    /* An empty one is passed on; this store counts it as none. */
    check(a, &(row){"DELETE", "/v1.0/state/store/k", NULL, 204, ""}, empty);
    api_close(a);
}

static void metadata_of_the_query_wins_over_the_items(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    static const char body[] =
        "[{\"key\":\"k\",\"value\":1,\"metadata\":{\"ttlInSeconds\":\"1\"}}]";
    (void)state;
    check(a,
          &(row){"POST", "/v1.0/state/store?metadata.ttlInSeconds=1000&metadata.ttlInSeconds=2",
                 body, 204, ""},
          NULL);
    wire_sleep(&a->w, 10 * OUTR_SEC);
    check(a, &(row){"GET", "/v1.0/state/store/k", NULL, 200, "1"}, NULL);
    check(a, &(row){"POST", "/v1.0/state/store", body, 204, ""}, NULL);
    wire_sleep(&a->w, 10 * OUTR_SEC);
    check(a, &(row){"GET", "/v1.0/state/store/k", NULL, 204, ""}, NULL);
    check(
        a,
        &(row){"POST", "/v1.0/state/store?metadata.ttlInSeconds=soon", body, 400, "ERR_STATE_SAVE"},
        NULL);
    api_close(a);
}

static void a_body_over_the_limit_is_an_error_of_the_route(void **state)
{
    static const outr_settings small = {.max_body_bytes = 64};
    char text[200];
    row rows[] = {
        {"POST", "/v1.0/state/store", text, 400, "stream too large"},
        {"POST", "/v1.0/publish/bus/orders", text, 500, "ERR_PUBSUB_PUBLISH_MESSAGE"},
        {"PUT", "/v1.0/metadata/x", text, 400, "ERR_BODY_READ"},
    };
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    check_all(&small, components, rows, OUTR_LEN(rows));
}

/* ---- errors, their details ------------------------------------------------------------------------ */

static void errors_have_the_details_of_the_contract(void **state)
{
    static const row rows[] = {
        {"GET", "/v1.0/state/none/k", NULL, 400,
         "{\"errorCode\":\"ERR_STATE_STORE_NOT_FOUND\",\"message\":\"state store none is not "
         "found\","
         "\"details\":[{\"@type\":\"type.googleapis.com/"
         "google.rpc.ErrorInfo\",\"domain\":\"dapr.io\","
         "\"metadata\":{\"appID\":\"me\"},\"reason\":\"DAPR_STATE_NOT_FOUND\"}]}"},
        {"POST", "/v1.0-alpha1/state/none/query", "{}", 400, "\"metadata\":null"},
        {"GET", "/v1.0/state/store/a||b", NULL, 400,
         "\"@type\":\"type.googleapis.com/google.rpc.BadRequest\""},
        {"POST", "/v1.0/publish/none/t", "x", 404,
         "{\"errorCode\":\"ERR_PUBSUB_NOT_FOUND\",\"message\":\"pubsub none is not "
         "found\",\"details\":["},
        {"POST", "/v1.0/publish/bus/%22%3C", "x", 403, "topic \\\"\\u003c is not allowed"},
        {"GET", "/v1.0/secrets/none/k", NULL, 500, "ERR_SECRET_STORES_NOT_CONFIGURED"},
        {"POST", "/v1.0/bindings/none", "{}", 500, "ERR_INVOKE_OUTPUT_BINDING"},
        {"POST", "/v1.0/bindings/none", "[]", 400, MALFORMED},
        {"GET", "/v1.0/configuration/none", NULL, 500, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED"},
        {"POST", "/v1.0-alpha1/lock/none", "{\"expiryInSeconds\":0}", 400, MALFORMED},
        {"POST", "/v1.0-alpha1/lock/none", "{\"expiryInSeconds\":1}", 500,
         "ERR_LOCK_STORE_NOT_CONFIGURED"},
        {"POST", "/v1.0-alpha1/subtlecrypto/x/sign", "{}", 501, "ERR_API_UNIMPLEMENTED"},
        {"GET", "/v1.0/actors/t/i/state/k", NULL, 400, "ERR_ACTOR_NO_PLACEMENT"},
        {"GET", "/nothing/here", NULL, 404, "ERR_DIRECT_INVOKE"},
        {"DELETE", "/v1.0/healthz", NULL, 404, "ERR_DIRECT_INVOKE"},
    };
    (void)state;
    check_all(&plain, components, rows, OUTR_LEN(rows));
}

static void no_store_at_all_is_another_error(void **state)
{
    static const row rows[] = {
        {"GET", "/v1.0/state/x/k", NULL, 500, "DAPR_STATE_NOT_CONFIGURED"},
        {"POST", "/v1.0/publish/x/t", "x", 404, "ERR_PUBSUB_NOT_FOUND"},
    };
    (void)state;
    check_all(&plain, "", rows, OUTR_LEN(rows));
}

/* ---- publishing ------------------------------------------------------------------------------------- */

static void events_are_published_or_refused(void **state)
{
    static const row rows[] = {
        {"POST", "/v1.0/publish/bus/orders", "{\"a\":1}", 204, ""},
        {"PUT", "/v1.0/publish/bus/a/b", "x", 204, ""},
        {"POST", "/v1.0/publish/bus/a%2Fb", "x", 204, ""},
        {"POST", "/v1.0/publish/bus/orders", "", 204, ""},
        {"POST", "/v1.0/publish/bus/secret", "x", 403, "ERR_PUBSUB_FORBIDDEN"},
        {"POST", "/v1.0/publish/bus/closed", "x", 403, "ERR_PUBSUB_FORBIDDEN"},
        {"POST", "/v1.0/publish/bus/orders?metadata.rawPayload=true", "x", 204, ""},
        {"POST", "/v1.0/publish/bus/orders?metadata.rawPayload=perhaps", "x", 400,
         "ERR_PUBSUB_REQUEST_METADATA"},
        {"POST", "/v1.0/publish/bus/", "x", 404, "ERR_DIRECT_INVOKE"},
    };
    static const char *const cloud[] = {"Content-Type", "application/cloudevents+json", NULL};
    api_world *a = api_open(&plain, components, NULL, 0);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++)
        check(a, &rows[i], NULL);
    check(a,
          &(row){"POST", "/v1.0/publish/bus/orders", "no json", 500, "ERR_PUBSUB_CLOUD_EVENTS_SER"},
          cloud);
    check(a, &(row){"POST", "/v1.0/publish/bus/orders", "{\"id\":\"1\"}", 204, ""}, cloud);
    api_close(a);
}

#define ENTRY(id, type, event)                                                                     \
    "{\"entryId\":\"" id "\",\"contentType\":\"" type "\",\"event\":" event "}"

static void events_are_published_in_bulk_or_refused(void **state)
{
    static const row rows[] = {
        {"POST", "/v1.0/publish/bulk/bus/orders", "[]", 204, ""},
        {"POST", "/v1.0-alpha1/publish/bulk/bus/orders",
         "[" ENTRY("1", "text/plain", "\"x\"") "," ENTRY(
             "2", "application/json", "{\"a\":1}") "," ENTRY("3", "application/octet-stream",
                                                             "\"AAEC\"") "]",
         204, ""},
        {"POST", "/v1.0/publish/bulk/bus/orders", "{}", 400, "DAPR_PUBSUB_UNMARSHAL_EVENTS"},
        {"POST", "/v1.0/publish/bulk/bus/orders", "[1", 400, "DAPR_PUBSUB_UNMARSHAL_EVENTS"},
        {"POST", "/v1.0/publish/bulk/bus/orders",
         "[" ENTRY("1", "text/plain", "\"x\"") "," ENTRY("1", "text/plain", "\"y\"") "]", 400,
         "DAPR_PUBSUB_MARSHAL_EVENTS"},
        {"POST", "/v1.0/publish/bulk/bus/orders", "[" ENTRY("", "text/plain", "\"x\"") "]", 400,
         "DAPR_PUBSUB_MARSHAL_EVENTS"},
        {"POST", "/v1.0/publish/bulk/bus/orders", "[" ENTRY("1", "text/plain", "{}") "]", 400,
         "DAPR_PUBSUB_MARSHAL_ENVELOPE"},
        {"POST", "/v1.0/publish/bulk/bus/orders",
         "[" ENTRY("1", "application/octet-stream", "\"*\"") "]", 400,
         "DAPR_PUBSUB_MARSHAL_ENVELOPE"},
        {"POST", "/v1.0/publish/bulk/bus/orders", "[1]", 400, "ERR_PUBSUB_EVENTS_SER"},
        {"POST", "/v1.0/publish/bulk/bus/secret", "[]", 403, "ERR_PUBSUB_FORBIDDEN"},
        {"POST", "/v1.0/publish/bulk/none/t", "[]", 404, "ERR_PUBSUB_NOT_FOUND"},
    };
    (void)state;
    check_all(&plain, components, rows, OUTR_LEN(rows));
}

static void a_bulk_of_very_many_entries_does_not_hold_the_loop(void **state)
{
    static const outr_settings large = {.max_body_bytes = 64 * 1024 * 1024};
    api_world *a = api_open(&large, components, NULL, 0);
    OUTR_AUTO(outr_buf) body = OUTR_BUF_MAX(64 * OUTR_MIB);
    (void)state;
    outr_buf_char(&body, '[');
    for (int i = 0; i < 60000; i++)
        outr_buf_printf(&body, "%s" ENTRY("%d", "text/plain", "\"\""), i ? "," : "", i);
    outr_buf_z(&body, "," ENTRY("0", "text/plain", "\"\"") "]"); /* the first once more */
    outr_buf_char(&body, 0);
    check(a,
          &(row){"POST", "/v1.0/publish/bulk/bus/orders?metadata.rawPayload=true", body.p, 400,
                 "entryId is duplicated"},
          NULL);
    api_close(a);
}

/* ---- tokens, baggage, CORS ---------------------------------------------------------------------- */

static void without_the_token_only_health_answers(void **state)
{
    static const outr_settings locked = {.api_token = OUTR_STR("secret"), .max_body_bytes = 1024};
    static const char *const right[] = {"dapr-api-token", "secret", NULL};
    static const char *const wrong[][3] = {{"dapr-api-token", "secre", NULL},
                                           {"dapr-api-token", "secret1", NULL},
                                           {"dapr-api-token", "", NULL},
                                           {"dapr-api-token", "secretsecret", NULL}};
    api_world *a = api_open(&locked, components, NULL, 0);
    (void)state;
    check(a, &(row){"GET", "/v1.0/state/store/k", NULL, 401, "invalid api token"}, NULL);
    for (size_t i = 0; i < OUTR_LEN(wrong); i++)
        check(a, &(row){"GET", "/v1.0/metadata", NULL, 401, "invalid api token"}, wrong[i]);
    check(a, &(row){"GET", "/nowhere", NULL, 401, "invalid api token"}, NULL);
    check(a, &(row){"GET", "/v1.0/state/store/k", NULL, 204, ""}, right);
    check(a, &(row){"GET", "/v1.0/healthz", NULL, 204, ""}, NULL);
    check(a, &(row){"GET", "/v1.0/healthz/outbound", NULL, 204, ""}, NULL);
    api_close(a);
}

static void bad_baggage_is_refused_and_good_baggage_comes_back(void **state)
{
    static const char *const bad[] = {"baggage", "no baggage;;", NULL};
    static const char *const good[] = {"baggage", "k=v;p=1,l=w", NULL};
    api_world *a = api_open(&plain, components, NULL, 0);
    web_call c;
    (void)state;
    check(a, &(row){"GET", "/v1.0/state/store/k", NULL, 400, "invalid baggage header"}, bad);
    check(a, &(row){"GET", "/v1.0/healthz", NULL, 204, ""}, bad);
    api_call(a, &c, "GET", "/v1.0/state/store/k", good, NULL);
    assert_true(outr_str_is(outr_headers_get(&c.call.head.headers, "baggage"), "k=v;p=1,l=w"));
    web_call_done(&c);
    api_close(a);
}

static void answers_carry_a_traceparent_but_health_does_not(void **state)
{
    static const char parent[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    static const char *const traced[] = {"traceparent", parent, "tracestate", "a=b", NULL};
    api_world *a = api_open(&plain, components, NULL, 0);
    web_call c;
    (void)state;
    api_call(a, &c, "GET", "/v1.0/state/store/k", traced, NULL);
    assert_true(outr_str_is(outr_headers_get(&c.call.head.headers, "traceparent"), parent));
    assert_true(outr_str_is(outr_headers_get(&c.call.head.headers, "tracestate"), "a=b"));
    web_call_done(&c);
    api_call(a, &c, "GET", "/v1.0/healthz", traced, NULL);
    assert_false(outr_headers_has(&c.call.head.headers, "traceparent"));
    web_call_done(&c);
    api_close(a);
}

/* ---- health, metadata, shutdown -------------------------------------------------------------------- */

static void health_names_what_is_not_ready(void **state)
{
    api_world *a = api_open(&plain, "", NULL, 0);
    (void)state;
    check(a, &(row){"GET", "/v1.0/healthz?appid=me", NULL, 204, ""}, NULL);
    check(a, &(row){"GET", "/v1.0/healthz?appid=other", NULL, 500, "ERR_HEALTH_APPID_NOT_MATCH"},
          NULL);
    outr_health_set(&a->health, OUTR_HEALTH_RUNTIME, false);
    outr_health_set(&a->health, OUTR_HEALTH_METRICS, false);
    check(
        a,
        &(row){"GET", "/v1.0/healthz", NULL, 500, "dapr is not ready: [runtime metrics-exporter]"},
        NULL);
    check(a, &(row){"GET", "/v1.0/healthz/outbound", NULL, 204, ""}, NULL);
    outr_health_set(&a->health, OUTR_HEALTH_OUTBOUND, false);
    check(a, &(row){"GET", "/v1.0/healthz/outbound", NULL, 500, "ERR_OUTBOUND_HEALTH_NOT_READY"},
          NULL);
    api_close(a);
}

static void metadata_says_what_there_is_and_keeps_what_is_set(void **state)
{
    api_world *a = api_open(&plain, components,
                            "kind: Configuration\nspec: {features: [{name: HotReload, enabled: "
                            "false}, {name: Mine, enabled: true}, {name: Off}]}\n",
                            0);
    static const row rows[] = {
        {"GET", "/v1.0/metadata", NULL, 200, "{\"id\":\"me\",\"runtimeVersion\":\"1.18."},
        {"GET", "/v1.0/metadata", NULL, 200,
         "\"enabledFeatures\":[\"WorkflowsRemoteActivityReminder\",\"Mine\"]"},
        {"GET", "/v1.0/metadata", NULL, 200, "\"name\":\"store\",\"type\":\"state.in-memory\""},
        {"PUT", "/v1.0/metadata/my%20key", "a \"value\"", 204, ""},
        {"PUT", "/v1.0/metadata/second", "", 204, ""},
        {"PUT", "/v1.0/metadata/my+key", "another", 204, ""},
        {"GET", "/v1.0/metadata", NULL, 200, "\"my key\":\"another\",\"second\":\"\"}"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++)
        check(a, &rows[i], NULL);
    web_call c;
    outr_json *parsed;
    outr_err err;
    api_call(a, &c, "GET", "/v1.0/metadata", NULL, NULL);
    assert_int_equal(outr_json_parse(&parsed, c.arena, outr_buf_view(&c.taker.body), &err),
                     OUTR_OK);
    assert_non_null(outr_json_find(parsed, "actorRuntime"));
    assert_non_null(outr_json_find(parsed, "appConnectionProperties"));
    assert_null(outr_json_find(parsed, "subscriptions"));
    web_call_done(&c);
    api_close(a);
}

static void more_metadata_than_bearable_is_refused(void **state)
{
    api_world *a = api_open(&plain, "", NULL, 0);
    char target[64];
    (void)state;
    for (int i = 0; i < OUTR_METADATA_KEYS_MAX; i++) {
        snprintf(target, sizeof target, "/v1.0/metadata/k%d", i);
        check(a, &(row){"PUT", target, "v", 204, ""}, NULL);
    }
    check(a, &(row){"PUT", "/v1.0/metadata/one-more", "v", 400, "ERR_BODY_READ"}, NULL);
    check(a, &(row){"PUT", "/v1.0/metadata/k7", "w", 204, ""}, NULL);
    api_close(a);
}

static void shutdown_is_answered_and_passed_on(void **state)
{
    static const char *const forced[] = {"dapr-force-shutdown", "true", NULL};
    api_world *a = api_open(&plain, "", NULL, 0);
    (void)state;
    check(a, &(row){"POST", "/v1.0/shutdown", NULL, 204, ""}, NULL);
    assert_int_equal(a->shutdowns, 1);
    assert_false(a->was_forced);
    check(a, &(row){"POST", "/v1.0/shutdown", NULL, 204, ""}, forced);
    assert_true(a->was_forced);
    api_close(a);
}

/* ---- invocation: who is meant ---------------------------------------------------------------------- */

static void the_target_of_an_invocation_is_found_in_order(void **state)
{
    /* There is no resolver: the error names the target that was understood. */
    static const char *const by_header[] = {"dapr-app-id", "header", "Authorization",
                                            "Basic ZGFwci1hcHAtaWQ6YmFzaWM=", NULL};
    static const char *const by_basic[] = {"Authorization", "basic REFQUi1BUFAtSUQ6YmFzaWM=", NULL};
    static const char *const no_basic[] = {"Authorization", "Basic ####", NULL};
    static const char *const other_user[] = {"Authorization", "Basic dXNlcjpiYXNpYw==", NULL};
    static const struct {
        const char *const *headers;
        const char *path, *expect;
        int status;
    } rows[] = {
        {by_header, "/v1.0/invoke/path/method/x", "id: header,", 500},
        {by_header, "/v1.0/metadata/x/y", "id: header,", 500},
        {by_basic, "/v1.0/invoke/path/method/x", "id: basic,", 500},
        {no_basic, "/v1.0/invoke/path/method/x", "id: path,", 500},
        {other_user, "/x", "ERR_DIRECT_INVOKE", 404},
        {NULL, "/v1.0/invoke/path/method/x", "id: path,", 500},
        {NULL, "/v1.0/invoke/path/method/", "id: path,", 500},
        {NULL, "/v1.0/invoke/path/method", "id: path,", 500},
        {NULL, "/v1.0/invoke/path.ns/method/a/method/b", "id: path.ns,", 500},
        {NULL, "/v1.0/invoke/pa%2574h/method/x", "id: path,", 500},
        {NULL, "/v1.0/invoke/a.b.c/method/x", "id: a.b.c,", 500},
        {NULL, "/v1.0/invoke/path/x", "ERR_DIRECT_INVOKE", 404},
        {NULL, "/v1.0/invoke/path", "ERR_DIRECT_INVOKE", 404},
        {NULL, "/v1.0/invoke//method/x", "ERR_DIRECT_INVOKE", 404},
        {NULL, "/v1.0/invoke/path/method/%", "400 Bad Request", 400},
        {NULL, "/v1.0/invoke/path/method/a%23b", "forbidden character", 500},
        {NULL, "/v1.0/invoke/path/method/a%3Fb", "forbidden character", 500},
        {NULL, "/v1.0/invoke/path/method/a%00b", "forbidden character", 500},
        {NULL, "/v1.0/invoke/path/method/a%25zb", "invalid URL escape", 500},
        {NULL, "/v1.0/invoke/http://nowhere:x/method/y", "id: http://nowhere:x,", 500},
        {NULL, "/v1.0/invoke/http%3A%2F%2Fnowhere%3Ax/method/y", "id: http://nowhere:x,", 500},
    };
    api_world *a = api_open(&plain, "", NULL, 0);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++)
        check(a, &(row){"GET", rows[i].path, NULL, rows[i].status, rows[i].expect},
              rows[i].headers);
    api_close(a);
}

/* ---- metrics -------------------------------------------------------------------------------------- */

static size_t count(outr_str text, const char *needle)
{
    size_t n = 0;
    for (ptrdiff_t at; (at = outr_str_search(text, outr_str_from(needle))) >= 0; n++)
        text = outr_str_skip(text, (size_t)at + 1);
    return n;
}

static void distinct_paths_are_capped_and_the_rest_is_other(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 20);
    OUTR_AUTO(outr_buf) early = OUTR_BUF_MAX(16 * OUTR_MIB);
    OUTR_AUTO(outr_buf) late = OUTR_BUF_MAX(16 * OUTR_MIB);
    (void)state;
    for (int i = 0; i < 3000; i++) {
        char target[64];
        snprintf(target, sizeof target, "/some/path/%d", i);
        check(a, &(row){"GET", target, NULL, 404, "ERR_DIRECT_INVOKE"}, NULL);
        if (i == 100)
            outr_metrics_write(a->metrics, &early);
    }
    outr_metrics_write(a->metrics, &late);
    assert_true(count(outr_buf_view(&late), "dapr_http_server_request_count{") <= 21);
    assert_true(count(outr_buf_view(&late), "path=\"other\"") > 0);
    assert_true(late.n < early.n + 512); /* longer numbers, no new lines */
    api_close(a);
}

static void paths_of_state_are_shortened_and_patterns_replace(void **state)
{
    static const struct {
        const char *http, *want;
    } rows[] = {
        {"{}", "path=\"/v1.0/state/store\""},
        {"{increasedCardinality: false, pathMatching: [\"/v1.0/state/{s}/{k}\"]}",
         "path=\"/v1.0/state/{s}/{k}\""},
        {"{increasedCardinality: false}", "path=\"\""},
        {"{excludeVerbs: true}", "method=\"\""},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(16 * OUTR_MIB);
        char text[200];
        snprintf(text, sizeof text, "kind: Configuration\nspec: {metrics: {http: %s}}\n",
                 rows[i].http);
        api_world *a = api_open(&plain, components, text, 0);
        check(a, &(row){"GET", "/v1.0/state/store/a-key", NULL, 204, ""}, NULL);
        outr_metrics_write(a->metrics, &out);
        if (!count(outr_buf_view(&out), rows[i].want))
            fail_msg("%s: no %s", rows[i].http, rows[i].want);
        assert_int_equal(count(outr_buf_view(&out), "a-key"), 0);
        api_close(a);
    }
}

static void error_codes_are_counted_when_asked_for(void **state)
{
    api_world *a = api_open(&plain, components,
                            "kind: Configuration\nspec: {metrics: {recordErrorCodes: true}}\n", 0);
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(16 * OUTR_MIB);
    (void)state;
    check(a, &(row){"GET", "/v1.0/state/none/k", NULL, 400, "ERR"}, NULL);
    outr_metrics_write(a->metrics, &out);
    assert_int_equal(count(outr_buf_view(&out), "dapr_error_code_total{"), 1);
    assert_int_equal(count(outr_buf_view(&out), "ERR_STATE_STORE_NOT_FOUND"), 1);
    api_close(a);
}

/* ---- the client leaves ------------------------------------------------------------------------------ */

static void a_client_who_leaves_in_the_middle_of_a_body_leaves_nothing(void **state)
{
    api_world *a = api_open(&plain, components, NULL, 0);
    web_giver g;
    web_call c;
    (void)state;
    web_call_init(&c, a->w.loop, "POST", "/v1.0/state/store");
    web_giver_init(&g, 100);
    c.req.content_length = 100;
    c.call.body = &g.base;
    web_call_start(&c, a->client);
    wire_run(&a->w);
    web_give(&g, "[{\"key\":");
    wire_run(&a->w);
    assert_int_equal(outr_http_server_requests(a->server), 1);
    outr_op_cancel(&c.op, OUTR_CANCELLED);
    wire_run(&a->w);
    assert_int_equal(outr_http_server_requests(a->server), 0);
    web_call_done(&c);
    api_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_is_saved_read_and_deleted),
        cmocka_unit_test(what_is_no_state_request_is_malformed),
        cmocka_unit_test(an_etag_is_absent_empty_or_compared),
        cmocka_unit_test(metadata_of_the_query_wins_over_the_items),
        cmocka_unit_test(a_body_over_the_limit_is_an_error_of_the_route),
        cmocka_unit_test(errors_have_the_details_of_the_contract),
        cmocka_unit_test(no_store_at_all_is_another_error),
        cmocka_unit_test(events_are_published_or_refused),
        cmocka_unit_test(events_are_published_in_bulk_or_refused),
        cmocka_unit_test(a_bulk_of_very_many_entries_does_not_hold_the_loop),
        cmocka_unit_test(without_the_token_only_health_answers),
        cmocka_unit_test(bad_baggage_is_refused_and_good_baggage_comes_back),
        cmocka_unit_test(answers_carry_a_traceparent_but_health_does_not),
        cmocka_unit_test(health_names_what_is_not_ready),
        cmocka_unit_test(metadata_says_what_there_is_and_keeps_what_is_set),
        cmocka_unit_test(more_metadata_than_bearable_is_refused),
        cmocka_unit_test(shutdown_is_answered_and_passed_on),
        cmocka_unit_test(the_target_of_an_invocation_is_found_in_order),
        cmocka_unit_test(distinct_paths_are_capped_and_the_rest_is_other),
        cmocka_unit_test(paths_of_state_are_shortened_and_patterns_replace),
        cmocka_unit_test(error_codes_are_counted_when_asked_for),
        cmocka_unit_test(a_client_who_leaves_in_the_middle_of_a_body_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
