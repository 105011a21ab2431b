/* Subscriptions to brokers behind a socket: a PullMessages stream each. */
#include <dapr/proto/components/v1/pubsub.pb-c.h>

#include "components/pluggable/feed.h"
#include "components/pluggable/pubsub.h"

#define V1(name)      Dapr__Proto__Components__V1__##name
#define V1_TYPE(name) dapr__proto__components__v1__##name##__descriptor

struct outr_broker_sub {
    outr__plug_feed feed;
    outr_arena *arena; /* what the subscription was given */
    outr_subscribe req;
    outr_op *closing;
};

typedef struct item {
    outr__plug_item base;
    outr_message_in msg;
    bool is_accepted;
} item;

static outr_broker_sub *of(outr__plug_feed *feed)
{
    return OUTR_CONTAINER(feed, outr_broker_sub, feed);
}

/* ---- main loop ------------------------------------------------------------------------------- */

static void hello(outr__plug_feed *feed, outr_grpc_stream *stream)
{
    outr_broker_sub *sub = of(feed);
    V1(PullMessagesRequest) m = DAPR__PROTO__COMPONENTS__V1__PULL_MESSAGES_REQUEST__INIT;
    V1(Topic) topic = DAPR__PROTO__COMPONENTS__V1__TOPIC__INIT;
    outr_arena *scratch = outr_arena_new(OUTR_MIB);
    outr__plug_text text = {.arena = scratch};
    topic.name = outr__plug_z(&text, sub->req.topic);
    topic.metadata = outr__plug_map(&text, sub->req.metadata, &V1_TYPE(topic__metadata_entry));
    topic.n_metadata = sub->req.metadata.count;
    m.topic = &topic;
    outr_grpc_stream_send(stream, &m);
    outr_arena_free(scratch);
}

static outr__plug_item *take(outr__plug_feed *feed, outr_arena *arena, const void *message)
{
    const V1(PullMessagesResponse) *m = message;
    item *i = outr_arena_alloc(arena, sizeof *i);
    i->msg = (outr_message_in){
        .topic = m->topic_name[0] ? outr_str_from(m->topic_name) : of(feed)->req.topic,
        .data = outr_proto_bytes(m->data),
        .content_type = outr_str_from(m->content_type),
        .id = outr_str_from(m->id),
        .metadata = outr__plug_kvs(arena, m->metadata, m->n_metadata),
        .broker_data = i,
    };
    return &i->base;
}

static bool answer(outr__plug_feed *feed OUTR_UNUSED, outr_grpc_stream *stream,
                   outr__plug_item *base)
{
    const item *i = OUTR_CONTAINER(base, item, base);
    V1(PullMessagesRequest) m = DAPR__PROTO__COMPONENTS__V1__PULL_MESSAGES_REQUEST__INIT;
    V1(AckMessageError) error = DAPR__PROTO__COMPONENTS__V1__ACK_MESSAGE_ERROR__INIT;
    m.ack_message_id = (char *)(uintptr_t)i->msg.id.p; /* as protobuf-c gave it: ends with a NUL */
    error.message = (char *)(uintptr_t) "the app did not process the message";
    if (!i->is_accepted)
        m.ack_error = &error;
    return outr_grpc_stream_send(stream, &m);
}

/* ---- the subscription's loop ----------------------------------------------------------------- */

static void deliver(outr__plug_feed *feed, outr__plug_item *base)
{
    const outr_subscribe *req = &of(feed)->req;
    req->on_message(req->ctx, &OUTR_CONTAINER(base, item, base)->msg);
}

static const outr__plug_feed_kind kind = {
    .path = OUTR__PLUG_PATH("PubSub", "PullMessages"),
    .type = &V1_TYPE(pull_messages_response),
    .hello = hello,
    .take = take,
    .answer = answer,
    .deliver = deliver,
};

/* False: holds what a message cannot carry. */
static bool keep(outr_broker_sub *sub, const outr_subscribe *req)
{
    outr__plug_text text = {.arena = sub->arena};
    size_t n = req->metadata.count;
    outr_kv *metadata = outr_arena_alloc(sub->arena, (n + 1) * sizeof *metadata);
    for (size_t i = 0; i < n; i++) {
        metadata[i] = (outr_kv){outr_arena_str(sub->arena, req->metadata.items[i].key),
                                outr_arena_str(sub->arena, req->metadata.items[i].value)};
        outr__plug_z(&text, metadata[i].key);
        outr__plug_z(&text, metadata[i].value);
    }
    sub->req = *req;
    sub->req.topic = outr_arena_str(sub->arena, req->topic);
    sub->req.metadata = (outr_kvs){metadata, n};
    outr__plug_z(&text, req->topic);
    return !text.is_bad;
}

outr_code outr__plug_subscribe(outr_broker *base, const outr_subscribe *req, outr_broker_sub **out,
                               outr_err *err)
{
    outr_broker_sub *sub = outr_alloc(sizeof *sub);
    sub->arena = outr_arena_new(OUTR_MIB);
    if (!keep(sub, req)) {
        outr_arena_free(sub->arena);
        free(sub);
        return outr__plug_check(&(outr__plug_text){.is_bad = true}, err);
    }
    sub->feed = (outr__plug_feed){
        .kind = &kind,
        .plug = OUTR_CONTAINER(base, outr__plug_broker, base)->plug,
        .loop = req->loop,
        .credit = req->credit,
        .name = sub->req.topic,
    };
    outr__plug_feed_start(&sub->feed);
    *out = sub;
    return OUTR_OK;
}

void outr__plug_settle(outr_broker_sub *sub OUTR_UNUSED, outr_message_in *msg, outr_settlement how)
{
    item *i = msg->broker_data;
    i->is_accepted = how == OUTR_SETTLE_ACK;
    outr__plug_feed_settle(&i->base, how == OUTR_SETTLE_RELEASE);
}

void outr__plug_pause(outr_broker_sub *sub, bool is_paused)
{
    outr__plug_feed_pause(&sub->feed, is_paused);
}

static void stopped(outr__plug_feed *feed)
{
    outr_broker_sub *sub = of(feed);
    outr_op *op = sub->closing;
    outr_arena_free(sub->arena);
    free(sub);
    outr_op_finish(op);
}

void outr__plug_unsubscribe(outr_broker_sub *sub, outr_op *op)
{
    outr_op_begin(op, sub, NULL);
    sub->closing = op;
    outr__plug_feed_stop(&sub->feed, stopped);
}
