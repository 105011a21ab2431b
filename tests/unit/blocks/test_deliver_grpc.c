#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "blocks/pubsub/pubsub.h"
#include "lib/folder.h"
#include "observe/span.h"
#include "unit/app/grpc_app.h"

/* Events on their way to an app that speaks gRPC, from an in-memory broker. */

typedef Dapr__Proto__Runtime__V1__TopicEventRequest event_request;
typedef Dapr__Proto__Runtime__V1__TopicEventBulkRequest bulk_request;
typedef Dapr__Proto__Runtime__V1__TopicEventBulkResponse bulk_response;
typedef Dapr__Proto__Runtime__V1__TopicEventBulkResponseEntry bulk_answer;
typedef Dapr__Proto__Runtime__V1__TopicSubscription subscription;

#define STATUS(name)                                                                               \
    DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__##name

typedef struct bench {
    grpc_app *a;
    folder dir;
    outr_snapshot *snapshot;
    outr_host *host;
    outr_pubsub *pubsub;
    outr_loop *loops[1];
    outr_app *apps[1];
    outr_tracer *tracers[1]; /* NULL: nobody wants spans */
} bench;

/* What the app is told, and what it says. One bench at a time. */
static struct {
    outr_code list_fails[4]; /* of the first so many questions */
    unsigned lists;
    bool is_bulk, has_old_bulk, has_no_bulk;
    outr_code code; /* of events */
    int status;
    const char *silent_id; /* an entry that is not answered */
    const char *policy;    /* inbound, of the broker; before the bench is opened */
    bool is_traced;        /* likewise */
    unsigned events, bulks, dead;
    char seen[4096]; /* "topic/path id=data;" each, batches in brackets */
    char extensions[1024];
    char spans[256]; /* "outcome;" each */
} app;

static void note(const char *fmt, ...)
{
    size_t n = strlen(app.seen);
    va_list args;
    va_start(args, fmt);
    vsnprintf(app.seen + n, sizeof app.seen - n, fmt, args);
    va_end(args);
}

static void write_value(const Google__Protobuf__Value *v)
{
    size_t n = strlen(app.extensions), room = sizeof app.extensions - n;
    char *to = app.extensions + n;
    switch (v->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        snprintf(to, room, "'%s'", v->string_value);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        snprintf(to, room, "%g", v->number_value);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        snprintf(to, room, "%s", v->bool_value ? "true" : "false");
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        snprintf(to, room, "{%zu}", v->struct_value->n_fields);
        return;
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        snprintf(to, room, "[%zu]", v->list_value->n_values);
        return;
    default:
        snprintf(to, room, "null");
    }
}

static void write_extensions(const Google__Protobuf__Struct *s)
{
    app.extensions[0] = 0;
    for (size_t i = 0; s && i < s->n_fields; i++) {
        size_t n = strlen(app.extensions);
        snprintf(app.extensions + n, sizeof app.extensions - n, "%s=", s->fields[i]->key);
        write_value(s->fields[i]->value);
        n = strlen(app.extensions);
        snprintf(app.extensions + n, sizeof app.extensions - n, ";");
    }
}

static subscription *listed(outr_grpc_call *call, const char *topic, const char *grave)
{
    subscription *s = outr_arena_alloc(call->arena, sizeof *s);
    dapr__proto__runtime__v1__topic_subscription__init(s);
    s->pubsub_name = (char *)(uintptr_t) "ps";
    s->topic = (char *)(uintptr_t)topic;
    s->dead_letter_topic = (char *)(uintptr_t)grave;
    return s;
}

static void list(outr_grpc_call *call)
{
    Dapr__Proto__Runtime__V1__ListTopicSubscriptionsResponse reply =
        DAPR__PROTO__RUNTIME__V1__LIST_TOPIC_SUBSCRIPTIONS_RESPONSE__INIT;
    Dapr__Proto__Runtime__V1__TopicRoutes routes = DAPR__PROTO__RUNTIME__V1__TOPIC_ROUTES__INIT;
    Dapr__Proto__Runtime__V1__TopicRule rule = DAPR__PROTO__RUNTIME__V1__TOPIC_RULE__INIT,
                                        *rules[] = {&rule};
    Dapr__Proto__Runtime__V1__BulkSubscribeConfig bulk =
        DAPR__PROTO__RUNTIME__V1__BULK_SUBSCRIBE_CONFIG__INIT;
    Dapr__Proto__Runtime__V1__TopicSubscription__MetadataEntry raw =
        DAPR__PROTO__RUNTIME__V1__TOPIC_SUBSCRIPTION__METADATA_ENTRY__INIT,
                                                               *metadata[] = {&raw};
    outr_code fails = app.lists < OUTR_LEN(app.list_fails) ? app.list_fails[app.lists] : OUTR_OK;
    subscription *all[] = {listed(call, "t", ""), listed(call, "mortal", "dead"),
                           listed(call, "dead", ""), listed(call, "routed", ""),
                           listed(call, "raw", ""), listed(call, "", "")};
    app.lists++;
    if (fails) {
        grpc_app_answer(call, fails, "not now");
        return;
    }
    rule.match = (char *)(uintptr_t) "event.type == \"a.v1\"";
    rule.path = (char *)(uintptr_t) "/v1";
    routes.rules = rules;
    routes.n_rules = 1;
    routes.default_ = (char *)(uintptr_t) "/other";
    all[3]->routes = &routes;
    raw.key = (char *)(uintptr_t) "rawPayload";
    raw.value = (char *)(uintptr_t) "true";
    all[4]->metadata = metadata;
    all[4]->n_metadata = 1;
    bulk.enabled = true;
    bulk.max_messages_count = 3;
    bulk.max_await_duration_ms = 200;
    for (size_t i = 0; app.is_bulk && i < OUTR_LEN(all); i++)
        all[i]->bulk_subscribe = &bulk;
    reply.subscriptions = all;
    reply.n_subscriptions = OUTR_LEN(all);
    outr_grpc_reply(call, &reply);
}

static void take_one(outr_grpc_call *call)
{
    const event_request *e = call->request;
    Dapr__Proto__Runtime__V1__TopicEventResponse reply =
        DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__INIT;
    app.events++;
    note("%s%s %s=%.*s;", e->topic, e->path, e->id, (int)e->data.len, (const char *)e->data.data);
    write_extensions(e->extensions);
    if (strcmp(e->topic, "dead") == 0) {
        app.dead++;
        outr_grpc_reply(call, &reply);
    } else if (app.code) {
        grpc_app_answer(call, app.code, "no");
    } else {
        reply.status = app.status;
        outr_grpc_reply(call, &reply);
    }
}

static void take_batch(outr_grpc_call *call, bool is_old)
{
    const bulk_request *b = call->request;
    bulk_response reply = DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_RESPONSE__INIT;
    if (app.has_no_bulk || is_old != app.has_old_bulk) {
        grpc_app_answer(call, OUTR_UNIMPLEMENTED, "no such method");
        return;
    }
    app.bulks++;
    reply.statuses = outr_arena_alloc(call->arena, b->n_entries * sizeof *reply.statuses);
    note("[%s%s", b->topic, b->path);
    for (size_t i = 0; i < b->n_entries; i++) {
        const Dapr__Proto__Runtime__V1__TopicEventBulkRequestEntry *e = b->entries[i];
        bulk_answer *answer = outr_arena_alloc(call->arena, sizeof *answer);
        dapr__proto__runtime__v1__topic_event_bulk_response_entry__init(answer);
        bool is_event =
            e->event_case ==
            DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_REQUEST_ENTRY__EVENT_CLOUD_EVENT;
        ProtobufCBinaryData data = is_event ? e->cloud_event->data : e->bytes;
        note(" %s=%.*s", is_event ? e->cloud_event->id : e->content_type, (int)data.len,
             (const char *)data.data);
        answer->entry_id = e->entry_id;
        answer->status = app.status;
        assert_true(e->entry_id[0] != 0);
        if (is_event && app.silent_id && strcmp(e->cloud_event->id, app.silent_id) == 0)
            continue;
        reply.statuses[reply.n_statuses++] = answer;
    }
    note("];");
    outr_grpc_reply(call, &reply);
}

static void on_call(grpc_app *a, outr_grpc_call *call)
{
    const char *name = strrchr(call->method->path, '/') + 1;
    (void)a;
    if (strcmp(name, "ListTopicSubscriptions") == 0)
        list(call);
    else if (strcmp(name, "OnTopicEvent") == 0)
        take_one(call);
    else
        take_batch(call, strcmp(name, "OnBulkTopicEventAlpha1") == 0);
}

/* ---- a sidecar --------------------------------------------------------------------------------- */

static void on_must(outr_op *op)
{
    if (op->err.code)
        fail_msg("%s", op->err.text);
}

static void take_spans(void *ctx, outr_span_batch *own_batch)
{
    outr_span_view v;
    (void)ctx;
    for (size_t at = 0; outr_span_batch_next(own_batch, &at, &v);) {
        for (uint32_t i = 0; i < v.item->attribute_count; i++) {
            size_t n = strlen(app.spans);
            if (strcmp(v.keys[i], "outrigger.outcome") == 0)
                snprintf(app.spans + n, sizeof app.spans - n, "%s;", v.values[i]);
        }
    }
    outr_span_batch_free(own_batch);
}

static bench *open_bench(void)
{
    static const char yaml[] = "apiVersion: dapr.io/v1alpha1\nkind: Component\n"
                               "metadata: {name: ps}\n"
                               "spec: {type: pubsub.in-memory, version: v1, metadata: []}\n";
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    bench *b = outr_alloc(sizeof *b);
    outr_op op;
    folder_make(&b->dir);
    folder_write(&b->dir, "ps.yaml", yaml);
    if (app.policy) {
        char text[1024];
        snprintf(text, sizeof text,
                 "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n"
                 "  policies:\n"
                 "    timeouts: {quick: 400ms}\n"
                 "    retries: {thrice: {duration: 30ms, maxRetries: 3}, slow: {duration: 10s}}\n"
                 "    circuitBreakers: {trip: {trip: consecutiveFailures >= 2}}\n"
                 "  targets: {components: {ps: {inbound: %s}}}\n",
                 app.policy);
        folder_write(&b->dir, "r.yaml", text);
    }
    b->a = grpc_app_open(&(outr_settings){.app_id = OUTR_STR("me"),
                                          .namespace_ = OUTR_STR("default"),
                                          .graceful_shutdown_ns = 5 * OUTR_SEC,
                                          .app_token = OUTR_STR("tok")},
                         0);
    grpc_app *a = b->a;
    a->on_call = on_call;
    a->settings.resources_paths.items[0] = outr_str_from(b->dir.path);
    a->settings.resources_paths.count = 1;
    assert_int_equal(outr_snapshot_load(&b->snapshot, &a->settings, NULL, &errors, &warnings), 0);
    b->loops[0] = a->w.loop;
    b->apps[0] = a->app;
    b->host = outr_host_new(&(outr_host_options){.loops = b->loops,
                                                 .loop_count = 1,
                                                 .settings = &a->settings,
                                                 .run_dir = outr_str_from(b->dir.path)});
    outr_op_init(&op, a->w.loop, NULL, 0, on_must);
    outr_host_open(b->host, b->snapshot, &op);
    wire_run(&a->w);
    if (app.is_traced)
        b->tracers[0] =
            outr_tracer_new(&(outr_tracer_options){.loop = a->w.loop, .take = take_spans});
    b->pubsub = outr_pubsub_new(&(outr_pubsub_options){.loops = b->loops,
                                                       .apps = b->apps,
                                                       .tracers = b->tracers,
                                                       .trace = {.is_on = app.is_traced,
                                                                 .sampling_rate = 1},
                                                       .loop_count = 1,
                                                       .settings = &a->settings,
                                                       .host = b->host});
    outr_pubsub_start(b->pubsub, b->snapshot);
    outr_app_start(a->app);
    wire_run(&a->w);
    return b;
}

static void stop(bench *b)
{
    outr_op op;
    outr_op_init(&op, b->a->w.loop, NULL, 0, on_must);
    outr_pubsub_stop(b->pubsub, &op);
    wire_run(&b->a->w);
    if (outr_op_is_pending(&op)) {
        wire_sleep(&b->a->w, 6 * OUTR_SEC);
        assert_false(outr_op_is_pending(&op));
    }
}

static void close_bench(bench *b)
{
    outr_op op;
    stop(b);
    outr_pubsub_free(b->pubsub);
    outr_op_init(&op, b->a->w.loop, NULL, 0, on_must);
    outr_host_close(b->host, &op);
    wire_run(&b->a->w);
    outr_host_free(b->host);
    outr_tracer_free(b->tracers[0]);
    outr_snapshot_unref(b->snapshot);
    grpc_app_close(b->a);
    folder_remove(&b->dir);
    free(b);
}

static int forget(void **state)
{
    (void)state;
    memset(&app, 0, sizeof app);
    return 0;
}

/* Published as it lies in the broker: an envelope, or raw bytes. */
static void publish_later(bench *b, const char *topic, const char *data)
{
    outr_publish_item item = {.data = outr_str_from(data)};
    outr_publish req = {.topic = outr_str_from(topic), .items = &item, .count = 1};
    outr_view *view = outr_host_pin(b->host, b->a->w.loop);
    outr_broker *broker = outr_view_find(view, OUTR_KIND_PUBSUB, OUTR_STR("ps"))->broker;
    outr_op op;
    outr_op_init(&op, b->a->w.loop, NULL, 0, on_must);
    broker->backend->publish(broker, &req, &op);
    outr_loop_tick(b->a->w.loop);
    outr_view_unpin(view);
}

static void publish(bench *b, const char *topic, const char *data)
{
    publish_later(b, topic, data);
    wire_run(&b->a->w);
}

/* ---- one by one -------------------------------------------------------------------------------- */

static void an_event_has_its_fields_and_the_rest_as_extensions(void **state)
{
    bench *b = open_bench();
    (void)state;
    publish(b, "t",
            "{\"id\":\"e\",\"source\":\"s\",\"type\":\"t\",\"specversion\":\"1.0\",\"data\":"
            "{\"b\":1,\"a\":2},\"datacontenttype\":\"application/json\",\"topic\":\"t\","
            "\"n\":1.5,\"yes\":true,\"none\":null,\"list\":[1,2],\"object\":{\"x\":1},"
            "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}");
    assert_string_equal(app.seen, "t e={\"a\":2,\"b\":1};");
    assert_string_equal(
        app.extensions,
        "topic='t';n=1.5;yes=true;none=null;list=[2];object={1};"
        "traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';");
    assert_non_null(strstr(
        b->a->metadata, "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01;"));
    assert_non_null(strstr(b->a->metadata, "grpc-trace-bin=AAAK92UZ"));
    assert_string_equal(b->a->token, "tok");
    close_bench(b);
}

static void data_is_text_bytes_or_json_as_its_type_says(void **state)
{
    static const struct {
        const char *fields, *data;
    } cases[] = {
        {"\"data\":\"hi\",\"datacontenttype\":\"text/plain\"", "hi"},
        {"\"data\":\"hi\",\"datacontenttype\":\"application/json\"", "\"hi\""},
        {"\"data\":\"hi\",\"datacontenttype\":\"application/own+json\"", "hi"},
        {"\"data\":{\"a\":\"<\"},\"datacontenttype\":\"text/plain\"", "{\"a\":\"\\u003c\"}"},
        {"\"data_base64\":\"aGk=\",\"datacontenttype\":\"application/octet-stream\"", "hi"},
        {"\"data\":12345678901234567890,\"datacontenttype\":\"application/json; x=y\"",
         "12345678901234567890"},
        {"\"data\":null", ""},
        {"\"x\":1", ""},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        bench *b = open_bench();
        char text[256];
        forget(NULL);
        snprintf(text, sizeof text, "{\"id\":\"e\",%s}", cases[i].fields);
        publish(b, "t", text);
        snprintf(text, sizeof text, "t e=%s;", cases[i].data);
        assert_string_equal(app.seen, text);
        close_bench(b);
    }
}

static void a_route_is_the_path_and_a_raw_message_an_envelope_of_its_bytes(void **state)
{
    bench *b = open_bench();
    (void)state;
    publish(b, "routed", "{\"id\":\"1\",\"type\":\"a.v1\"}");
    publish(b, "routed", "{\"id\":\"2\",\"type\":\"b\"}");
    assert_string_equal(app.seen, "routed/v1 1=;routed/other 2=;");
    app.seen[0] = 0;
    publish(b, "raw", "not json");
    assert_non_null(strstr(app.seen, "=not json;"));
    close_bench(b);
}

static void an_extension_nested_too_deep_for_receivers_becomes_text(void **state)
{
    bench *b = open_bench();
    char text[512] = "{\"id\":\"e\",\"x\":";
    (void)state;
    for (int i = 0; i < 100; i++)
        strncat(text, "[", sizeof text - strlen(text) - 1);
    for (int i = 0; i < 100; i++)
        strncat(text, "]", sizeof text - strlen(text) - 1);
    strncat(text, "}", sizeof text - strlen(text) - 1);
    publish(b, "t", text);
    assert_int_equal(app.events, 1); /* and it was read: a server checks the depth as well */
    assert_string_equal(app.extensions, "x=[1];");
    close_bench(b);
}

static void what_the_app_says_decides(void **state)
{
    static const struct {
        outr_code code;
        int status;
        unsigned mortal, immortal, dead; /* seen after two seconds */
    } cases[] = {
        {OUTR_OK, STATUS(SUCCESS), 1, 1, 0},
        {OUTR_OK, STATUS(RETRY), 1, 2, 1}, /* comes again, or is buried */
        {OUTR_OK, STATUS(DROP), 1, 1, 1},
        {OUTR_OK, 77, 1, 2, 1},
        {OUTR_UNIMPLEMENTED, 0, 1, 1, 0}, /* dropped, and not even buried */
        {OUTR_NOT_FOUND, 0, 1, 2, 1},
        {OUTR_UNAVAILABLE, 0, 1, 2, 1},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        bench *b = open_bench();
        forget(NULL);
        app.code = cases[i].code;
        app.status = cases[i].status;
        publish(b, "mortal", "{\"id\":\"m\"}");
        wire_sleep(&b->a->w, 100 * OUTR_MS);
        if (app.events - app.dead != cases[i].mortal || app.dead != cases[i].dead)
            fail_msg("case %zu: %s", i, app.seen);
        forget(NULL);
        app.code = cases[i].code;
        app.status = cases[i].status;
        publish(b, "t", "{\"id\":\"i\"}");
        wire_sleep(&b->a->w, 700 * OUTR_MS);
        if (app.events != cases[i].immortal)
            fail_msg("case %zu: %s", i, app.seen);
        app.code = OUTR_OK;
        app.status = 0;
        wire_sleep(&b->a->w, 2 * OUTR_SEC);
        close_bench(b);
    }
}

static void what_is_no_event_comes_again_and_the_others_go_on(void **state)
{
    bench *b = open_bench();
    (void)state;
    publish(b, "t", "not json");
    publish(b, "t", "{\"id\":\"ok\"}");
    publish(b, "t", "5");
    assert_non_null(strstr(app.seen, "t ok=;"));
    wire_sleep(&b->a->w, 3 * OUTR_SEC);
    close_bench(b);
}

/* ---- in batches -------------------------------------------------------------------------------- */

static void a_batch_goes_out_when_it_is_full_or_its_time_is_over(void **state)
{
    bench *b;
    (void)state;
    app.is_bulk = true;
    b = open_bench();
    for (int i = 1; i <= 4; i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"id\":\"e%d\",\"data\":\"%d\"}", i, i);
        publish_later(b, "t", text);
    }
    wire_run(&b->a->w);
    assert_string_equal(app.seen, "[t e1=1 e2=2 e3=3];");
    wire_sleep(&b->a->w, 300 * OUTR_MS);
    assert_string_equal(app.seen, "[t e1=1 e2=2 e3=3];[t e4=4];");
    close_bench(b);
}

static void entries_of_different_routes_go_in_different_calls(void **state)
{
    bench *b;
    (void)state;
    app.is_bulk = true;
    b = open_bench();
    publish_later(b, "routed", "{\"id\":\"1\",\"type\":\"a.v1\"}");
    publish_later(b, "routed", "{\"id\":\"2\",\"type\":\"b\"}");
    publish_later(b, "routed", "no event"); /* comes again by itself */
    wire_run(&b->a->w);
    assert_string_equal(app.seen, "[routed/v1 1=];[routed/other 2=];");
    wire_sleep(&b->a->w, 5 * OUTR_SEC);
    close_bench(b);
}

static void raw_entries_are_bytes_of_their_type(void **state)
{
    bench *b;
    (void)state;
    app.is_bulk = true;
    b = open_bench();
    publish(b, "raw", "abc");
    wire_sleep(&b->a->w, OUTR_SEC);
    assert_string_equal(app.seen, "[raw application/octet-stream=abc];");
    close_bench(b);
}

static void an_entry_without_an_answer_comes_again_alone(void **state)
{
    bench *b;
    (void)state;
    app.is_bulk = true;
    app.silent_id = "e2";
    b = open_bench();
    publish_later(b, "t", "{\"id\":\"e1\"}");
    publish_later(b, "t", "{\"id\":\"e2\"}");
    publish_later(b, "t", "{\"id\":\"e3\"}");
    wire_run(&b->a->w);
    app.silent_id = NULL;
    wire_sleep(&b->a->w, 2 * OUTR_SEC);
    assert_string_equal(app.seen, "[t e1= e2= e3=];[t e2=];");
    close_bench(b);
}

static void an_app_with_the_old_name_gets_its_batches_and_is_asked_once(void **state)
{
    bench *b;
    (void)state;
    app.is_bulk = app.has_old_bulk = true;
    b = open_bench();
    unsigned before = b->a->calls;
    for (int i = 0; i < 6; i++)
        publish_later(b, "t", "{\"id\":\"e\"}");
    wire_run(&b->a->w);
    publish(b, "t", "{\"id\":\"e\"}");
    wire_sleep(&b->a->w, OUTR_SEC);
    assert_int_equal(app.bulks, 3);
    assert_in_range(b->a->calls - before, 4, 5); /* the new name in vain, once or for each of two */
    close_bench(b);
}

static void an_app_without_batches_loses_them_also_with_a_dead_letter_topic(void **state)
{
    bench *b;
    (void)state;
    app.is_bulk = app.has_no_bulk = true;
    b = open_bench();
    for (int i = 0; i < 3; i++)
        publish_later(b, "mortal", "{\"id\":\"e\"}");
    wire_run(&b->a->w);
    wire_sleep(&b->a->w, 3 * OUTR_SEC);
    assert_string_equal(app.seen, "");
    close_bench(b);
}

/* ---- asking ------------------------------------------------------------------------------------ */

static void an_app_that_cannot_say_yet_is_asked_again(void **state)
{
    bench *b;
    (void)state;
    app.list_fails[0] = OUTR_UNAVAILABLE;
    app.list_fails[1] = OUTR_INTERNAL;
    b = open_bench();
    publish(b, "t", "{\"id\":\"early\"}");
    wire_sleep(&b->a->w, 3 * OUTR_SEC);
    assert_int_equal(app.lists, 3);
    publish(b, "t", "{\"id\":\"e\"}");
    assert_string_equal(app.seen, "t e=;");
    close_bench(b);
}

static void an_app_without_the_method_has_no_subscriptions(void **state)
{
    bench *b;
    (void)state;
    app.list_fails[0] = OUTR_UNIMPLEMENTED;
    b = open_bench();
    publish(b, "t", "{\"id\":\"e\"}");
    wire_sleep(&b->a->w, 3 * OUTR_SEC);
    assert_int_equal(app.lists, 1);
    assert_string_equal(app.seen, "");
    close_bench(b);
}

/* ---- trouble ----------------------------------------------------------------------------------- */

static void hold_events(grpc_app *a, outr_grpc_call *call)
{
    if (strstr(call->method->path, "OnTopicEvent"))
        grpc_app_hold(a, call);
    else
        on_call(a, call);
}

static void an_app_that_goes_away_gets_the_event_again_when_it_is_back(void **state)
{
    bench *b = open_bench();
    (void)state;
    b->a->on_call = hold_events;
    publish(b, "t", "{\"id\":\"e\"}");
    assert_int_equal(b->a->held_count, 1);
    b->a->is_refusing = true;
    grpc_app_break(b->a);
    wire_sleep(&b->a->w, 3 * OUTR_SEC);
    b->a->is_refusing = false;
    b->a->on_call = on_call;
    wire_sleep(&b->a->w, OUTR_SEC);
    assert_string_equal(app.seen, "t e=;");
    wire_sleep(&b->a->w, 5 * OUTR_SEC);
    assert_int_equal(app.events, 1);
    close_bench(b);
}

static void an_app_that_never_answers_does_not_hold_up_the_end(void **state)
{
    bench *b = open_bench();
    (void)state;
    b->a->on_call = hold_events;
    publish(b, "t", "{\"id\":\"e\"}");
    wire_sleep(&b->a->w, 600 * OUTR_SEC); /* a debugger: nothing comes twice meanwhile */
    assert_int_equal(b->a->held_count, 1);
    close_bench(b); /* within the graceful time: the message is released */
}

static void nor_does_it_when_subscriptions_were_just_being_renewed(void **state)
{
    bench *b = open_bench();
    (void)state;
    b->a->on_call = hold_events;
    publish(b, "t", "{\"id\":\"e\"}");
    outr_pubsub_update(b->pubsub, b->snapshot);
    wire_sleep(&b->a->w, 60 * OUTR_SEC);
    assert_int_equal(b->a->held_count, 1);
    close_bench(b);
}

/* ---- the inbound policy ------------------------------------------------------------------------ */

static void a_policy_repeats_before_the_dead_letter_topic_has_it(void **state)
{
    bench *b;
    (void)state;
    app.policy = "{retry: thrice}";
    app.status = STATUS(RETRY);
    b = open_bench();
    publish(b, "mortal", "{\"id\":\"m\"}");
    wire_sleep(&b->a->w, 80 * OUTR_MS);
    assert_int_equal(app.events, 3);
    assert_int_equal(app.dead, 0);
    wire_sleep(&b->a->w, 20 * OUTR_MS);
    assert_int_equal(app.events - app.dead, 4);
    assert_int_equal(app.dead, 1);
    close_bench(b);
}

static void what_the_app_drops_is_not_repeated(void **state)
{
    bench *b;
    (void)state;
    app.policy = "{retry: thrice}";
    app.status = STATUS(DROP);
    b = open_bench();
    publish(b, "t", "{\"id\":\"m\"}");
    wire_sleep(&b->a->w, 2 * OUTR_SEC);
    assert_int_equal(app.events, 1);
    close_bench(b);
}

static void of_a_batch_only_what_was_not_taken_is_repeated(void **state)
{
    bench *b;
    (void)state;
    app.is_bulk = true;
    app.silent_id = "e2";
    app.policy = "{retry: thrice}";
    b = open_bench();
    publish_later(b, "t", "{\"id\":\"e1\"}");
    publish_later(b, "t", "{\"id\":\"e2\"}");
    publish_later(b, "t", "{\"id\":\"e3\"}");
    wire_run(&b->a->w);
    wire_sleep(&b->a->w, 40 * OUTR_MS);
    app.silent_id = NULL;
    wire_sleep(&b->a->w, 10 * OUTR_SEC);
    assert_string_equal(app.seen, "[t e1= e2= e3=];[t e2=];[t e2=];");
    close_bench(b);
}

static void an_app_that_is_silent_for_longer_than_the_policy_says_is_asked_again(void **state)
{
    bench *b;
    (void)state;
    app.policy = "{retry: thrice, timeout: quick}";
    b = open_bench();
    b->a->on_call = hold_events;
    publish(b, "t", "{\"id\":\"m\"}");
    wire_sleep(&b->a->w, 410 * OUTR_MS);
    b->a->on_call = on_call;
    wire_sleep(&b->a->w, 30 * OUTR_MS);
    assert_int_equal(app.events, 1);
    wire_sleep(&b->a->w, 10 * OUTR_SEC);
    assert_int_equal(app.events, 1);
    close_bench(b);
}

static void an_open_breaker_hands_nothing_over(void **state)
{
    bench *b;
    (void)state;
    app.policy = "{circuitBreaker: trip}";
    app.status = STATUS(RETRY);
    b = open_bench();
    for (int i = 0; i < 5; i++)
        publish(b, "t", "{\"id\":\"m\"}");
    assert_int_equal(app.events, 2);
    app.status = STATUS(SUCCESS);
    wire_sleep(&b->a->w, 120 * OUTR_SEC); /* they are the broker's until it closes */
    assert_int_equal(app.events, 7);
    close_bench(b);
}

static void a_pause_does_not_hold_up_the_end(void **state)
{
    bench *b;
    outr_op op;
    (void)state;
    app.policy = "{retry: slow}";
    app.status = STATUS(RETRY);
    b = open_bench();
    publish(b, "t", "{\"id\":\"m\"}");
    wire_sleep(&b->a->w, 100 * OUTR_MS);
    assert_int_equal(app.events, 1);
    outr_op_init(&op, b->a->w.loop, NULL, 0, on_must);
    outr_pubsub_stop(b->pubsub, &op);
    wire_run(&b->a->w);
    assert_false(outr_op_is_pending(&op));
    assert_int_equal(app.events, 1);
    close_bench(b);
}

/* Its id is the delivery's: a second one with it would be another span of the same id. */
static void a_delivery_is_one_span_however_often_it_is_tried(void **state)
{
    bench *b;
    (void)state;
    app.is_traced = true;
    app.policy = "{retry: thrice}";
    app.status = STATUS(RETRY);
    b = open_bench();
    publish(b, "mortal", "{\"id\":\"m\"}");
    wire_sleep(&b->a->w, 40 * OUTR_MS);
    assert_int_equal(app.events, 2);
    outr_tracer_flush(b->tracers[0]);
    assert_string_equal(app.spans, "");
    wire_sleep(&b->a->w, 200 * OUTR_MS);
    assert_int_equal(app.dead, 1);
    outr_tracer_flush(b->tracers[0]);
    assert_string_equal(app.spans, "retry;success;"); /* and that of its dead letter */
    close_bench(b);
}

static void of_a_batch_each_entry_is_one_span(void **state)
{
    bench *b;
    (void)state;
    app.is_traced = true;
    app.is_bulk = true;
    app.silent_id = "e2";
    app.policy = "{retry: thrice}";
    b = open_bench();
    publish_later(b, "t", "{\"id\":\"e1\"}");
    publish_later(b, "t", "{\"id\":\"e2\"}");
    publish_later(b, "t", "{\"id\":\"e3\"}");
    wire_run(&b->a->w);
    wire_sleep(&b->a->w, 40 * OUTR_MS);
    app.silent_id = NULL;
    wire_sleep(&b->a->w, 10 * OUTR_SEC);
    assert_string_equal(app.spans, "success;success;success;");
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_event_has_its_fields_and_the_rest_as_extensions, forget),
        cmocka_unit_test_setup(data_is_text_bytes_or_json_as_its_type_says, forget),
        cmocka_unit_test_setup(a_route_is_the_path_and_a_raw_message_an_envelope_of_its_bytes,
                               forget),
        cmocka_unit_test_setup(an_extension_nested_too_deep_for_receivers_becomes_text, forget),
        cmocka_unit_test_setup(what_the_app_says_decides, forget),
        cmocka_unit_test_setup(what_is_no_event_comes_again_and_the_others_go_on, forget),
        cmocka_unit_test_setup(a_batch_goes_out_when_it_is_full_or_its_time_is_over, forget),
        cmocka_unit_test_setup(entries_of_different_routes_go_in_different_calls, forget),
        cmocka_unit_test_setup(raw_entries_are_bytes_of_their_type, forget),
        cmocka_unit_test_setup(an_entry_without_an_answer_comes_again_alone, forget),
        cmocka_unit_test_setup(an_app_with_the_old_name_gets_its_batches_and_is_asked_once, forget),
        cmocka_unit_test_setup(an_app_without_batches_loses_them_also_with_a_dead_letter_topic,
                               forget),
        cmocka_unit_test_setup(an_app_that_cannot_say_yet_is_asked_again, forget),
        cmocka_unit_test_setup(an_app_without_the_method_has_no_subscriptions, forget),
        cmocka_unit_test_setup(an_app_that_goes_away_gets_the_event_again_when_it_is_back, forget),
        cmocka_unit_test_setup(an_app_that_never_answers_does_not_hold_up_the_end, forget),
        cmocka_unit_test_setup(nor_does_it_when_subscriptions_were_just_being_renewed, forget),
        cmocka_unit_test_setup(a_policy_repeats_before_the_dead_letter_topic_has_it, forget),
        cmocka_unit_test_setup(what_the_app_drops_is_not_repeated, forget),
        cmocka_unit_test_setup(of_a_batch_only_what_was_not_taken_is_repeated, forget),
        cmocka_unit_test_setup(
            an_app_that_is_silent_for_longer_than_the_policy_says_is_asked_again, forget),
        cmocka_unit_test_setup(an_open_breaker_hands_nothing_over, forget),
        cmocka_unit_test_setup(a_pause_does_not_hold_up_the_end, forget),
        cmocka_unit_test_setup(a_delivery_is_one_span_however_often_it_is_tried, forget),
        cmocka_unit_test_setup(of_a_batch_each_entry_is_one_span, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
