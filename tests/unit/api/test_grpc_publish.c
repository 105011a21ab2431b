#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/json.h"
#include "unit/api/rpc.h"

typedef Dapr__Proto__Runtime__V1__BulkPublishRequest bulk_publish_request;
typedef Dapr__Proto__Runtime__V1__BulkPublishRequestEntry publish_entry;
typedef Dapr__Proto__Runtime__V1__PublishEventRequest__MetadataEntry publish_metadata;

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_published_in_its_envelope_or_raw),
        cmocka_unit_test(entries_of_a_bulk_have_spans_of_their_own),
        cmocka_unit_test(an_event_that_cannot_be_published_says_why),
        cmocka_unit_test(a_bulk_is_refused_as_a_whole),
        cmocka_unit_test(entries_that_failed_are_listed_the_others_are_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
