#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dapr/proto/runtime/v1/metadata.pb-c.h>
#include <dapr/proto/runtime/v1/pubsub.pb-c.h>

#include "blocks/pubsub/stream.h"
#include "grpc/stream_client.h"
#include "unit/api/rpc.h"

/* SubscribeTopicEventsAlpha1 as a client sees it, over HTTP/2, with no app. */

typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestAlpha1 we_say;
typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsResponseAlpha1 server_says;

#define WE_SAY(what)                                                                               \
    DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_TYPE_##what
#define SERVER_SAYS(what)                                                                          \
    DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_TYPE_##what
#define STATUS(name)                                                                               \
    DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__##name

#define COMPONENT(name, type, metadata)                                                            \
    "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " name "}\n"                  \
    "spec: {type: " type ", version: v1, metadata: [" metadata "]}\n---\n"
static const char brokers[] =
    COMPONENT("ps", "pubsub.in-memory", "")
        COMPONENT("scoped", "pubsub.in-memory", "{name: subscriptionScopes, value: \"me=open\"}")
            COMPONENT("ns", "pubsub.in-memory", "{name: x, value: \"{namespace}\"}");

typedef struct client {
    api_world *a;
    outr_arena *arena;
    outr_grpc_stream s;
    outr_http_call http;
    outr_op op;
    unsigned initials, events, done;
    bool is_slow; /* takes nothing */
    char ids[256][24], data[256][64];
    char topic[64], path[16], type[32];
    outr_err err;
} client;

static bool on_message(outr_grpc_stream *s, outr_str message)
{
    client *c = s->user;
    outr_err err;
    outr_arena *scratch = outr_arena_new(16 * OUTR_MIB);
    void *decoded;
    if (outr_proto_read(
            &decoded, scratch,
            &dapr__proto__runtime__v1__subscribe_topic_events_response_alpha1__descriptor, message,
            &err))
        fail_msg("%s", err.text);
    const server_says *said = decoded;
    if (said->subscribe_topic_events_response_type_case == SERVER_SAYS(INITIAL_RESPONSE)) {
        c->initials++;
        assert_int_equal(c->events, 0);
    } else {
        const Dapr__Proto__Runtime__V1__TopicEventRequest *e = said->event_message;
        snprintf(c->ids[c->events], sizeof c->ids[0], "%s", e->id);
        snprintf(c->data[c->events], sizeof c->data[0], "%.*s", (int)e->data.len,
                 (const char *)e->data.data);
        snprintf(c->topic, sizeof c->topic, "%s", e->topic);
        snprintf(c->path, sizeof c->path, "%s", e->path);
        snprintf(c->type, sizeof c->type, "%s", e->data_content_type);
        c->events++;
    }
    outr_arena_free(scratch);
    return !c->is_slow;
}

static void on_done(outr_op *op)
{
    client *c = OUTR_CONTAINER(op, client, op);
    c->done++;
    outr_err_clear(&c->err);
    outr_grpc_stream_result(&c->s, &op->err, &c->err);
}

static void dial(api_world *a, client *c)
{
    *c = (client){.a = a, .arena = outr_arena_new(16 * OUTR_MIB)};
    c->s = (outr_grpc_stream){.arena = c->arena,
                              .loop = a->w.loop,
                              .max_bytes = 16 * OUTR_MIB,
                              .on_message = on_message,
                              .user = c};
    outr_headers_init(&c->s.metadata, c->arena);
    outr_grpc_stream_prepare(&c->s, &c->http, RPC_PATH "SubscribeTopicEventsAlpha1");
    outr_op_init(&c->op, a->w.loop, NULL, 0, on_done);
    outr_http_call_start(a->grpc_client, &c->http, &c->op);
}

static void want(client *c, const char *pubsub, const char *topic, const char *grave)
{
    Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestInitialAlpha1 initial =
        DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_INITIAL_ALPHA1__INIT;
    we_say message = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__INIT;
    initial.pubsub_name = (char *)(uintptr_t)pubsub;
    initial.topic = (char *)(uintptr_t)topic;
    if (grave) {
        initial._dead_letter_topic_case =
            DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_INITIAL_ALPHA1___DEAD_LETTER_TOPIC_DEAD_LETTER_TOPIC;
        initial.dead_letter_topic = (char *)(uintptr_t)grave;
    }
    message.subscribe_topic_events_request_type_case = WE_SAY(INITIAL_REQUEST);
    message.initial_request = &initial;
    outr_grpc_stream_send(&c->s, &message);
    wire_run(&c->a->w);
}

static void open_client(api_world *a, client *c, const char *topic, const char *grave)
{
    dial(a, c);
    want(c, "ps", topic, grave);
    assert_int_equal(c->initials, 1);
    assert_int_equal(c->done, 0);
}

static void say(client *c, const char *id, int status)
{
    Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestProcessedAlpha1 processed =
        DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_PROCESSED_ALPHA1__INIT;
    Dapr__Proto__Runtime__V1__TopicEventResponse response =
        DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__INIT;
    we_say message = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__INIT;
    response.status = status;
    processed.id = (char *)(uintptr_t)id;
    processed.status = status < 0 ? NULL : &response;
    message.subscribe_topic_events_request_type_case = WE_SAY(EVENT_PROCESSED);
    message.event_processed = &processed;
    outr_grpc_stream_send(&c->s, &message);
    wire_run(&c->a->w);
}

static void hang_up(client *c)
{
    outr_op_cancel(&c->op, OUTR_CANCELLED);
    wire_run(&c->a->w);
    assert_int_equal(c->done, 1);
    outr_arena_free(c->arena);
}

static void assert_ended(client *c, outr_code code, const char *text)
{
    wire_run(&c->a->w);
    assert_int_equal(c->done, 1);
    if (c->err.code != code || (text && !strstr(c->err.text, text)))
        fail_msg("%d %s", c->err.code, c->err.text);
    outr_arena_free(c->arena);
}

static void publish(api_world *a, const char *pubsub, const char *topic, const char *id,
                    const char *data)
{
    Dapr__Proto__Runtime__V1__PublishEventRequest request =
        DAPR__PROTO__RUNTIME__V1__PUBLISH_EVENT_REQUEST__INIT;
    Dapr__Proto__Runtime__V1__PublishEventRequest__MetadataEntry entry =
        DAPR__PROTO__RUNTIME__V1__PUBLISH_EVENT_REQUEST__METADATA_ENTRY__INIT;
    Dapr__Proto__Runtime__V1__PublishEventRequest__MetadataEntry *entries[] = {&entry};
    rpc r = {0};
    entry.key = (char *)(uintptr_t) "cloudevent.id";
    entry.value = (char *)(uintptr_t)id;
    request.metadata = entries;
    request.n_metadata = 1;
    request.pubsub_name = (char *)(uintptr_t)pubsub;
    request.topic = (char *)(uintptr_t)topic;
    request.data = outr_proto_data(outr_str_from(data));
    request.data_content_type = (char *)(uintptr_t) "application/json";
    rpc_ok(a, &r, "PublishEvent", &request, &google__protobuf__empty__descriptor);
    rpc_done(&r);
    wire_run(&a->w);
}

static api_world *open_world(void)
{
    return api_open(&(outr_settings){.graceful_shutdown_ns = 5 * OUTR_SEC}, brokers, NULL, 0);
}

/* ---- events ------------------------------------------------------------------------------------ */

static void a_stream_gets_the_topics_events_and_nothing_else(void **state)
{
    api_world *a = open_world();
    client c;
    (void)state;
    open_client(a, &c, "t", NULL);
    publish(a, "ps", "other", "e-0", "0");
    publish(a, "ps", "t", "e-1", "{\"b\":2,\"a\":1}");
    assert_int_equal(c.events, 1);
    assert_string_equal(c.ids[0], "e-1");
    assert_string_equal(c.data[0], "{\"a\":1,\"b\":2}");
    assert_string_equal(c.topic, "t");
    assert_string_equal(c.path, "/");
    assert_string_equal(c.type, "application/json");
    hang_up(&c);
    api_close(a);
}

static void answers_count_by_id_in_any_order(void **state)
{
    api_world *a = open_world();
    client c;
    (void)state;
    open_client(a, &c, "t", NULL);
    publish(a, "ps", "t", "e-1", "1");
    publish(a, "ps", "t", "e-2", "2");
    publish(a, "ps", "t", "e-3", "3");
    assert_int_equal(c.events, 3);
    say(&c, "e-3", STATUS(SUCCESS));
    say(&c, "e-1", STATUS(RETRY));
    say(&c, "nobody's", STATUS(SUCCESS)); /* ignored */
    say(&c, "e-2", -1);                   /* no status: 0, success */
    assert_int_equal(c.events, 3);
    wire_sleep(&a->w, OUTR_SEC);
    assert_int_equal(c.events, 4);
    assert_string_equal(c.ids[3], "e-1");
    say(&c, "e-1", STATUS(SUCCESS));
    wire_sleep(&a->w, 5 * OUTR_SEC);
    assert_int_equal(c.events, 4);
    hang_up(&c);
    api_close(a);
}

static void two_streams_of_a_topic_subscribe_each(void **state)
{
    api_world *a = open_world();
    client one, two;
    (void)state;
    open_client(a, &one, "t", NULL);
    open_client(a, &two, "t", NULL);
    publish(a, "ps", "t", "e-1", "1");
    assert_int_equal(one.events, 1);
    assert_int_equal(two.events, 1);
    hang_up(&one);
    publish(a, "ps", "t", "e-2", "2");
    assert_int_equal(two.events, 2);
    hang_up(&two);
    api_close(a);
}

static void what_is_dropped_goes_to_the_dead_letter_topic(void **state)
{
    api_world *a = open_world();
    client c, grave;
    (void)state;
    open_client(a, &c, "t", "dead");
    open_client(a, &grave, "dead", NULL);
    publish(a, "ps", "t", "e-1", "1");
    publish(a, "ps", "t", "e-2", "2");
    publish(a, "ps", "t", "e-3", "3");
    say(&c, "e-1", STATUS(DROP));
    say(&c, "e-2", STATUS(RETRY));
    say(&c, "e-3", STATUS(SUCCESS));
    assert_int_equal(grave.events, 2);
    assert_string_equal(grave.ids[0], "e-1");
    assert_string_equal(grave.ids[1], "e-2");
    hang_up(&c);
    hang_up(&grave);
    api_close(a);
}

static void a_namespaced_pubsub_delivers_what_it_published(void **state)
{
    api_world *a = open_world();
    client c;
    (void)state;
    dial(a, &c);
    want(&c, "ns", "t", NULL);
    publish(a, "ns", "t", "e-1", "1");
    assert_int_equal(c.events, 1);
    assert_string_equal(c.topic, "t");
    hang_up(&c);
    api_close(a);
}

/* ---- back-pressure ----------------------------------------------------------------------------- */

static void no_more_than_the_credit_is_in_a_clients_hands(void **state)
{
    api_world *a = open_world();
    client c;
    char id[24];
    (void)state;
    open_client(a, &c, "t", NULL);
    for (int i = 0; i < 100; i++) {
        snprintf(id, sizeof id, "e-%d", i);
        publish(a, "ps", "t", id, "1");
    }
    assert_int_equal(c.events, OUTR_SUBSCRIPTION_CREDIT);
    for (int i = 0; i < 100; i++) {
        snprintf(id, sizeof id, "e-%d", i);
        say(&c, id, STATUS(SUCCESS));
    }
    assert_int_equal(c.events, 100);
    hang_up(&c);
    api_close(a);
}

static void a_client_that_reads_nothing_holds_up_nobody_but_itself(void **state)
{
    api_world *a = open_world();
    client slow, quick;
    char id[24];
    char *big = outr_alloc(128 * OUTR_KIB + 1);
    (void)state;
    memset(big, '1', 128 * OUTR_KIB);
    big[0] = '"';
    big[128 * OUTR_KIB - 1] = '"';
    open_client(a, &slow, "t", NULL);
    open_client(a, &quick, "t", NULL);
    slow.is_slow = true;
    for (int i = 0; i < 40; i++) {
        snprintf(id, sizeof id, "e-%d", i);
        publish(a, "ps", "t", id, big);
        say(&quick, id, STATUS(SUCCESS));
    }
    assert_int_equal(quick.events, 40);
    assert_in_range(slow.events, 1, 4);
    slow.is_slow = false;
    outr_grpc_stream_resume(&slow.s);
    wire_run(&a->w);
    assert_int_equal(slow.events, 40);
    hang_up(&slow);
    hang_up(&quick);
    api_close(a);
    free(big);
}

/* ---- ends -------------------------------------------------------------------------------------- */

static void what_was_not_answered_returns_at_once_when_the_stream_ends(void **state)
{
    char yaml[512];
    struct folder dir;
    (void)state;
    folder_make(&dir);
    snprintf(yaml, sizeof yaml,
             COMPONENT("ps", "pubsub.sqlite", "{name: connectionString, value: \"%s\"}"),
             folder_path(&dir, "ps.db"));
    api_world *a = api_open(&(outr_settings){0}, yaml, NULL, 0);
    for (int how = 0; how < 3; how++) {
        client one, two;
        dial(a, &one);
        want(&one, "ps", "t", NULL);
        while (!one.initials)
            wire_run(&a->w);
        publish(a, "ps", "t", "e-1", "1");
        while (!one.events)
            wire_run(&a->w);
        dial(a, &two);
        want(&two, "ps", "t", NULL);
        if (how == 0) {
            hang_up(&one);
        } else if (how == 1) {
            outr_grpc_stream_half_close(&one.s);
        } else {
            want(&one, "ps", "t", NULL); /* a second time */
        }
        while (!two.events) /* and no time has passed */
            wire_run(&a->w);
        while (how > 0 && !one.done)
            wire_run(&a->w);
        if (how > 0)
            assert_ended(&one, how == 1 ? OUTR_OK : OUTR_INVALID_ARGUMENT, NULL);
        assert_string_equal(two.ids[0], "e-1");
        say(&two, "e-1", STATUS(SUCCESS));
        hang_up(&two);
    }
    api_close(a);
    folder_remove(&dir);
}

static void a_closed_stream_leaves_no_subscription(void **state)
{
    api_world *a = open_world();
    (void)state;
    for (int i = 0; i < 20; i++) {
        client c;
        Dapr__Proto__Runtime__V1__GetMetadataRequest request =
            DAPR__PROTO__RUNTIME__V1__GET_METADATA_REQUEST__INIT;
        rpc r = {0};
        open_client(a, &c, "t", "dead");
        const Dapr__Proto__Runtime__V1__GetMetadataResponse *m =
            rpc_ok(a, &r, "GetMetadata", &request,
                   &dapr__proto__runtime__v1__get_metadata_response__descriptor);
        assert_int_equal(m->n_subscriptions, 1);
        assert_int_equal(m->subscriptions[0]->type,
                         DAPR__PROTO__RUNTIME__V1__PUBSUB_SUBSCRIPTION_TYPE__STREAMING);
        assert_string_equal(m->subscriptions[0]->dead_letter_topic, "dead");
        rpc_done(&r);
        publish(a, "ps", "t", "e-1", "1");
        hang_up(&c);
        m = rpc_ok(a, &r, "GetMetadata", &request,
                   &dapr__proto__runtime__v1__get_metadata_response__descriptor);
        assert_int_equal(m->n_subscriptions, 0);
        rpc_done(&r);
    }
    api_close(a);
}

static unsigned stopped;

static void on_stopped(outr_op *op)
{
    assert_int_equal(op->err.code, OUTR_OK);
    stopped++;
}

static void a_stop_waits_a_while_for_answers_then_ends_the_streams(void **state)
{
    api_world *a = open_world();
    client c, silent, late;
    outr_op op;
    (void)state;
    stopped = 0;
    open_client(a, &c, "t", NULL);
    open_client(a, &silent, "t", NULL);
    publish(a, "ps", "t", "e-1", "1");
    outr_op_init(&op, a->w.loop, NULL, 0, on_stopped);
    outr_pubsub_stop(a->pubsub, &op);
    a->is_pubsub_stopped = true;
    wire_run(&a->w);
    publish(a, "ps", "t", "e-2", "2"); /* for nobody any more */
    assert_int_equal(c.done + silent.done, 0);
    say(&c, "e-1", STATUS(SUCCESS));
    assert_ended(&c, OUTR_OK, NULL);
    assert_int_equal(stopped, 0);
    wire_sleep(&a->w, 3 * OUTR_SEC);
    assert_int_equal(silent.events, 1);
    assert_ended(&silent, OUTR_OK, NULL);
    assert_int_equal(stopped, 1);
    dial(a, &late);
    want(&late, "ps", "t", NULL);
    assert_ended(&late, OUTR_UNAVAILABLE, "stopping");
    api_close(a);
}

/* ---- bad input --------------------------------------------------------------------------------- */

static void a_request_that_cannot_be_is_refused_by_its_reason(void **state)
{
    static const struct {
        const char *pubsub, *topic;
        outr_code code;
        const char *text;
    } cases[] = {
        {"zip", "t", OUTR_INVALID_ARGUMENT, "pubsub zip is not found"},
        {"", "t", OUTR_INVALID_ARGUMENT, "pubsubName is required"},
        {"ps", "", OUTR_INVALID_ARGUMENT, "topic is required"},
        {"scoped", "closed", OUTR_PERMISSION_DENIED, "is not allowed"},
    };
    api_world *a = open_world();
    client c;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        dial(a, &c);
        want(&c, cases[i].pubsub, cases[i].topic, NULL);
        assert_ended(&c, cases[i].code, cases[i].text);
    }
    dial(a, &c);
    say(&c, "e-1", STATUS(SUCCESS)); /* before anything was asked for */
    assert_ended(&c, OUTR_INVALID_ARGUMENT, "initial request is required");
    dial(a, &c);
    outr_grpc_stream_half_close(&c.s);
    assert_ended(&c, OUTR_OK, NULL);
    open_client(a, &c, "t", NULL);
    outr_grpc_stream_send_bytes(&c.s, OUTR_STR("\xff\xff"));
    assert_ended(&c, OUTR_INTERNAL, NULL);
    open_client(a, &c, "t", NULL);
    outr_grpc_stream_send_bytes(&c.s, OUTR_STR("")); /* neither of the two */
    assert_ended(&c, OUTR_INVALID_ARGUMENT, "duplicate initial request");
    api_close(a);
}

static void a_broken_connection_ends_the_stream(void **state)
{
    api_world *a = open_world();
    client c, two;
    (void)state;
    open_client(a, &c, "t", NULL);
    publish(a, "ps", "t", "e-1", "1");
    OUTR_LIST_EACH(link, &a->w.streams)
        wire_break(OUTR_LIST_ITEM(link, wire_stream, link));
    assert_ended(&c, OUTR_UNAVAILABLE, NULL);
    open_client(a, &two, "t", NULL);
    publish(a, "ps", "t", "e-2", "2");
    assert_int_equal(two.events, 1);
    hang_up(&two);
    api_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_gets_the_topics_events_and_nothing_else),
        cmocka_unit_test(answers_count_by_id_in_any_order),
        cmocka_unit_test(two_streams_of_a_topic_subscribe_each),
        cmocka_unit_test(what_is_dropped_goes_to_the_dead_letter_topic),
        cmocka_unit_test(a_namespaced_pubsub_delivers_what_it_published),
        cmocka_unit_test(no_more_than_the_credit_is_in_a_clients_hands),
        cmocka_unit_test(a_client_that_reads_nothing_holds_up_nobody_but_itself),
        cmocka_unit_test(what_was_not_answered_returns_at_once_when_the_stream_ends),
        cmocka_unit_test(a_closed_stream_leaves_no_subscription),
        cmocka_unit_test(a_stop_waits_a_while_for_answers_then_ends_the_streams),
        cmocka_unit_test(a_request_that_cannot_be_is_refused_by_its_reason),
        cmocka_unit_test(a_broken_connection_ends_the_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
