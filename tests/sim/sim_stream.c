/* Clients hold streams of a topic open, take events or let them come again, answer late or not at
 * all, hang up, are cut off and come back, over a network in pieces, late and breaking; now and then
 * subscriptions are looked at anew. Whatever happens: each message is taken by somebody, though its
 * lease would keep it from the others for a day; nobody has more than the credit; after the last
 * stream nothing is left of them.
 *
 * The clock and the network are virtual, the broker's thread and file are real: time stands still
 * until it has done what it was given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sched.h>

#include <dapr/proto/runtime/v1/pubsub.pb-c.h>

#include "blocks/pubsub/stream.h"
#include "grpc/stream_client.h"
#include "unit/api/api.h"

typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestAlpha1 we_say;
typedef Dapr__Proto__Runtime__V1__SubscribeTopicEventsResponseAlpha1 server_says;

#define WE_SAY(what)                                                                               \
    DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_TYPE_##what
#define SERVER_SAYS(what)                                                                          \
    DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_ALPHA1__SUBSCRIBE_TOPIC_EVENTS_RESPONSE_TYPE_##what

enum { CLIENTS = 4, MESSAGES = 60, CREDIT = 8, SEEDS = 30 };

typedef struct play play;

typedef struct client {
    play *p;
    outr_arena *arena;
    outr_grpc_stream s;
    outr_http_call http;
    outr_op op;
    bool is_open, is_slow;
    unsigned in_hand[64];
    size_t in_hand_count;
} client;

struct play {
    api_world *a;
    uint64_t seed;
    outr_rand rand;
    client clients[CLIENTS];
    unsigned taken[MESSAGES]; /* said to be done, by a client or as a dead letter */
    unsigned turns, published;
    bool is_over; /* every client behaves from now on */
    unsigned deliveries, cuts;
};

#define FAIL(p, ...)                                                                               \
    do {                                                                                           \
        print_error("seed %llu: ", (unsigned long long)(p)->seed);                                 \
        print_error(__VA_ARGS__);                                                                  \
        fail();                                                                                    \
    } while (0)

static unsigned dice(play *p, unsigned n)
{
    return (unsigned)outr_rand_below(&p->rand, n);
}

/* ---- a client ---------------------------------------------------------------------------------- */

static void answer(client *c, size_t at, int status)
{
    Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestProcessedAlpha1 processed =
        DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_PROCESSED_ALPHA1__INIT;
    Dapr__Proto__Runtime__V1__TopicEventResponse response =
        DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__INIT;
    we_say message = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__INIT;
    char id[24];
    unsigned n = c->in_hand[at];
    c->in_hand[at] = c->in_hand[--c->in_hand_count];
    snprintf(id, sizeof id, "%u", n);
    response.status = status;
    processed.id = id;
    processed.status = &response;
    message.subscribe_topic_events_request_type_case = WE_SAY(EVENT_PROCESSED);
    message.event_processed = &processed;
    if (status == DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__SUCCESS)
        c->p->taken[n]++;
    outr_grpc_stream_send(&c->s, &message);
}

static bool on_message(outr_grpc_stream *s, outr_str message)
{
    client *c = s->user;
    play *p = c->p;
    outr_arena *scratch = outr_arena_new(OUTR_MIB);
    void *decoded;
    outr_err err;
    uint64_t n;
    if (outr_proto_read(
            &decoded, scratch,
            &dapr__proto__runtime__v1__subscribe_topic_events_response_alpha1__descriptor, message,
            &err))
        FAIL(p, "%s", err.text);
    const server_says *said = decoded;
    if (said->subscribe_topic_events_response_type_case == SERVER_SAYS(EVENT_MESSAGE)) {
        if (!outr_str_to_u64(outr_str_from(said->event_message->id), MESSAGES - 1, &n))
            FAIL(p, "an event nobody published: %s", said->event_message->id);
        if (c->in_hand_count >= CREDIT)
            FAIL(p, "more than the credit in one client's hands");
        c->in_hand[c->in_hand_count++] = (unsigned)n;
        p->deliveries++;
    }
    outr_arena_free(scratch);
    return !c->is_slow;
}

static void on_done(outr_op *op)
{
    client *c = OUTR_CONTAINER(op, client, op);
    outr_err err;
    outr_grpc_stream_result(&c->s, &op->err, &err);
    outr_arena_free(c->arena);
    c->is_open = false;
    c->in_hand_count = 0;
}

static void dial(play *p, client *c)
{
    Dapr__Proto__Runtime__V1__SubscribeTopicEventsRequestInitialAlpha1 initial =
        DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_INITIAL_ALPHA1__INIT;
    we_say message = DAPR__PROTO__RUNTIME__V1__SUBSCRIBE_TOPIC_EVENTS_REQUEST_ALPHA1__INIT;
    *c = (client){.p = p, .is_open = true, .arena = outr_arena_new(16 * OUTR_MIB)};
    c->s = (outr_grpc_stream){
        .arena = c->arena, .loop = p->a->w.loop, .on_message = on_message, .user = c};
    outr_headers_init(&c->s.metadata, c->arena);
    outr_grpc_stream_prepare(&c->s, &c->http,
                             "/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1");
    outr_op_init(&c->op, p->a->w.loop, NULL, 0, on_done);
    outr_http_call_start(p->a->grpc_client, &c->http, &c->op);
    initial.pubsub_name = (char *)(uintptr_t) "ps";
    initial.topic = (char *)(uintptr_t) "t";
    message.subscribe_topic_events_request_type_case = WE_SAY(INITIAL_REQUEST);
    message.initial_request = &initial;
    outr_grpc_stream_send(&c->s, &message);
}

static void act(play *p, client *c)
{
    if (!c->is_open) {
        if (p->is_over || dice(p, 3) == 0)
            dial(p, c);
        return;
    }
    switch (p->is_over ? 0 : dice(p, 12)) {
    default: /* answers one, mostly well */
        while (c->in_hand_count > 0) {
            answer(c, dice(p, (unsigned)c->in_hand_count),
                   p->is_over ? 0 : OUTR_MAX((int)dice(p, 8) - 6, 0));
            if (!p->is_over)
                break;
        }
        if (p->is_over && c->is_slow) {
            c->is_slow = false;
            outr_grpc_stream_resume(&c->s);
        }
        return;
    case 8:
        outr_op_cancel(&c->op, OUTR_CANCELLED);
        p->cuts++;
        return;
    case 9:
        outr_grpc_stream_half_close(&c->s);
        return;
    case 10:
        outr_grpc_stream_send_bytes(&c->s, OUTR_STR("\xff"));
        return;
    case 11:
        c->is_slow = !c->is_slow;
        if (!c->is_slow)
            outr_grpc_stream_resume(&c->s);
    }
}

/* ---- the broker -------------------------------------------------------------------------------- */

static void publish_to(play *p, outr_publish *req)
{
    outr_view *view = outr_host_pin(p->a->host, p->a->w.loop);
    outr_broker *broker = outr_view_find(view, OUTR_KIND_PUBSUB, OUTR_STR("ps"))->broker;
    outr_op op;
    outr_op_init(&op, p->a->w.loop, NULL, 0, api_must);
    broker->backend->publish(broker, req, &op);
    api_wait(p->a, &op);
    outr_view_unpin(view);
}

static void publish(play *p)
{
    char text[64];
    outr_publish_item item = {0};
    snprintf(text, sizeof text, "{\"id\":\"%u\",\"data\":\"x\"}", p->published++);
    item.data = outr_str_from(text);
    publish_to(p, &(outr_publish){.topic = OUTR_STR("t"), .items = &item, .count = 1});
}

/* Now and then time waits until the broker's thread has done all it was given (an empty publish
 * ends behind it): however busy the machine is, the broker keeps up. */
static void let_go(play *p, uint64_t ns)
{
    wire_run(&p->a->w);
    if (++p->turns % 16 == 0)
        publish_to(p, &(outr_publish){.topic = OUTR_STR("nothing")});
    wire_sleep(&p->a->w, ns);
}

static unsigned missing(const play *p)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->published; i++)
        n += p->taken[i] == 0;
    return n;
}

static bool is_anybody_open(const play *p)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        if (p->clients[i].is_open)
            return true;
    }
    return false;
}

static void count_subscription(void *ctx, const outr_subscription_info *info)
{
    (void)info;
    ++*(unsigned *)ctx;
}

static void run(uint64_t seed)
{
    play *p = outr_alloc(sizeof *p);
    folder dir;
    char yaml[512];
    folder_make(&dir);
    snprintf(yaml, sizeof yaml,
             "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: ps}\n"
             "spec: {type: pubsub.sqlite, version: v1, metadata: ["
             "{name: connectionString, value: \"%s\"}, {name: leaseDuration, value: 24h},"
             "{name: redeliverInterval, value: 100ms}, {name: maxRedeliverInterval, value: 1s},"
             "{name: maxConcurrency, value: \"%d\"}]}\n",
             folder_path(&dir, "ps.db"), CREDIT);
    p->seed = seed;
    outr_rand_seed(&p->rand, seed);
    p->a = api_open(&(outr_settings){.graceful_shutdown_ns = 5 * OUTR_SEC}, yaml, NULL, 0);
    wire *w = &p->a->w;
    w->piece_max = 1 + dice(p, 64);
    w->late_percent = dice(p, 40);
    for (int round = 0; round < 400; round++) {
        w->break_per_mille = round % 50 == 49 ? 200 : 0;
        if (p->published < MESSAGES && dice(p, 4) == 0)
            publish(p);
        act(p, &p->clients[dice(p, CLIENTS)]);
        if (dice(p, 60) == 0)
            outr_pubsub_update(p->a->pubsub, p->a->snapshot);
        let_go(p, dice(p, 20) * OUTR_MS);
    }
    w->break_per_mille = 0;
    w->late_percent = 0;
    p->is_over = true;
    for (int i = 0; missing(p) > 0; i++) {
        if (i == 4000)
            FAIL(p, "%u of %u messages are lost", missing(p), p->published);
        for (size_t k = 0; k < CLIENTS; k++)
            act(p, &p->clients[k]);
        let_go(p, 20 * OUTR_MS);
    }
    for (size_t k = 0; k < CLIENTS; k++)
        outr_op_cancel(&p->clients[k].op, OUTR_CANCELLED);
    unsigned left = 1;
    for (int i = 0; left > 0 || is_anybody_open(p); i++) {
        if (i == 4000)
            FAIL(p, "%u streams are left", left);
        let_go(p, OUTR_MS);
        left = 0;
        outr_pubsub_each(p->a->pubsub, count_subscription, &left);
    }
    if (getenv("OUTRIGGER_SEED"))
        print_message("%u published, %u delivered, %u cut off\n", p->published, p->deliveries, p->cuts);
    if (p->published < MESSAGES / 2 || p->deliveries < p->published || p->cuts == 0)
        FAIL(p, "too little has happened");
    api_close(p->a);
    folder_remove(&dir);
    free(p);
}

static void nothing_is_lost_and_nothing_is_left(void **state)
{
    uint64_t only;
    (void)state;
    if (outr_str_to_u64(outr_str_from(getenv("OUTRIGGER_SEED")), UINT64_MAX, &only)) {
        run(only);
        return;
    }
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_lost_and_nothing_is_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
