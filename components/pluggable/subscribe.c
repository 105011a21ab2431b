/* Subscriptions to brokers behind a socket: a PullMessages stream each.
 *
 * The stream lives on the main loop with the component's connection; messages go to the
 * subscription's loop and their settlements come back by mailbox. A message is read only while
 * fewer than the credit are out, and while the component takes the acknowledgements: the rest waits
 * in the component, behind HTTP/2's window. A stream that ends is made anew, at once with a new
 * connection and after a pause with the old one; what was not acknowledged on it is the component's
 * to send again, and settling it later says nothing. */
#include <dapr/proto/components/v1/pubsub.pb-c.h>

#include "components/pluggable/pubsub.h"

#define MESSAGE_ARENA (64 * OUTR_MIB)
#define PAUSE_MIN     OUTR_SEC
#define PAUSE_MAX     (30 * OUTR_SEC)

struct outr_broker_sub {
    outr__plug_broker *broker;
    outr_arena *arena; /* what the subscription was given */
    outr_subscribe req;
    outr_message message_start, message_close, message_closed;
    /* main loop */
    outr__plug_watcher watcher;
    outr__plug_stream stream;
    bool is_streaming, is_held, is_ending, is_restarting; /* held: an answer was not taken yet */
    bool is_clogged;                                       /* acknowledgements wait to be sent */
    bool is_stopped;                                       /* paused by the engine */
    uint64_t epoch;                                        /* which stream this is */
    size_t out;                                            /* messages on the other loop */
    outr_timer again;
    uint64_t pause_ns;
    /* the subscription's loop */
    outr_list waiting; /* came while paused */
    outr_deferred pump;
    bool is_paused, is_closing;
    outr_op *closing;
};

typedef struct item {
    outr_message_in msg;
    outr_arena *arena;
    outr_broker_sub *sub;
    outr_link link;
    outr_message message;
    uint64_t epoch;
    outr_settlement how;
} item;

/* An order to the main loop that may be given again before it has been followed. */
typedef struct order {
    outr_message message;
    outr_broker_sub *sub;
    bool is_paused;
} order;

static outr_loop *main_loop(const outr_broker_sub *sub)
{
    return outr__plug_loop(sub->broker->plug);
}

/* ---- on the subscription's loop -------------------------------------------------------------- */

static void on_settled(outr_message *message, outr_loop *loop);

static void give_back(item *i, outr_settlement how)
{
    i->how = how;
    i->message.run = on_settled;
    outr_loop_post(main_loop(i->sub), &i->message);
}

static void on_pump(outr_deferred *deferred)
{
    outr_broker_sub *sub = OUTR_CONTAINER(deferred, outr_broker_sub, pump);
    while (!outr_list_is_empty(&sub->waiting) && (sub->is_closing || !sub->is_paused)) {
        item *i = OUTR_LIST_ITEM(outr_list_pop(&sub->waiting), item, link);
        if (sub->is_closing)
            give_back(i, OUTR_SETTLE_RELEASE);
        else
            sub->req.on_message(sub->req.ctx, &i->msg);
    }
}

static void on_arrived(outr_message *message, outr_loop *loop)
{
    item *i = OUTR_CONTAINER(message, item, message);
    outr_list_push(&i->sub->waiting, &i->link);
    outr_loop_defer(loop, &i->sub->pump);
}

static void on_closed(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_broker_sub *sub = OUTR_CONTAINER(message, outr_broker_sub, message_closed);
    outr_op *op = sub->closing;
    outr_loop_undefer(&sub->pump);
    outr_arena_free(sub->arena);
    free(sub);
    outr_op_finish(op);
}

/* ---- on the main loop: the stream ------------------------------------------------------------ */

static void end_if_closed(outr_broker_sub *sub)
{
    if (!sub->is_ending || sub->is_streaming || sub->out > 0)
        return;
    outr_timer_stop(main_loop(sub), &sub->again);
    outr__plug_unwatch(&sub->watcher);
    sub->message_closed.run = on_closed;
    outr_loop_post(sub->req.loop, &sub->message_closed);
}

static bool wants_more(const outr_broker_sub *sub)
{
    return sub->out < sub->req.credit && !sub->is_clogged && !sub->is_stopped && !sub->is_ending;
}

static void read_on(outr_broker_sub *sub)
{
    if (!sub->is_streaming || !sub->is_held || !wants_more(sub))
        return;
    sub->is_held = false;
    outr_grpc_stream_resume(&sub->stream.grpc);
}

/* NULL: not a message. */
static item *read_item(outr_broker_sub *sub, outr_str bytes)
{
    const ProtobufCMessageDescriptor *type =
        &dapr__proto__components__v1__pull_messages_response__descriptor;
    outr_arena *arena = outr_arena_new(MESSAGE_ARENA);
    Dapr__Proto__Components__V1__PullMessagesResponse *m;
    outr_err err;
    if (outr_proto_read(&m, arena, type, bytes, &err)) {
        OUTR_LOG(outr__plug_log(sub->broker->plug), ERROR,
                 "pluggable component sent what is not a message",
                 OUTR_S("component", outr__plug_id(sub->broker->plug)),
                 OUTR_S("topic", sub->req.topic), OUTR_ERR(&err));
        outr_arena_free(arena);
        return NULL;
    }
    item *i = outr_arena_alloc(arena, sizeof *i);
    i->arena = arena;
    i->sub = sub;
    i->epoch = sub->epoch;
    i->msg = (outr_message_in){
        .topic = m->topic_name[0] ? outr_str_from(m->topic_name) : sub->req.topic,
        .data = outr_proto_bytes(m->data),
        .content_type = outr_str_from(m->content_type),
        .id = outr_str_from(m->id),
        .metadata = outr__plug_kvs(arena, m->metadata, m->n_metadata),
        .broker_data = i,
    };
    return i;
}

static bool on_message(outr_grpc_stream *s, outr_str bytes)
{
    outr_broker_sub *sub = s->user;
    item *i = sub->is_ending ? NULL : read_item(sub, bytes);
    if (!i) { /* garbage: the stream is not to be trusted any more */
        outr__plug_stream_cancel(&sub->stream);
        return true;
    }
    sub->pause_ns = 0;
    sub->out++;
    i->message.run = on_arrived;
    outr_loop_post(sub->req.loop, &i->message);
    sub->is_held = !wants_more(sub);
    return !sub->is_held;
}

static void on_writable(outr_grpc_stream *s)
{
    outr_broker_sub *sub = s->user;
    sub->is_clogged = false;
    read_on(sub);
}

static void start(outr_broker_sub *sub);

static void on_again(outr_timer *timer)
{
    start(OUTR_CONTAINER(timer, outr_broker_sub, again));
}

/* A component that ends the stream, or does not have it, is asked again later. */
static void on_ended(outr__plug_stream *stream, const outr_err *err)
{
    outr_broker_sub *sub = OUTR_CONTAINER(stream, outr_broker_sub, stream);
    outr_loop *loop = main_loop(sub);
    sub->is_streaming = sub->is_held = false;
    sub->epoch++;
    if (sub->is_ending) {
        end_if_closed(sub);
        return;
    }
    if (!outr__plug_is_ready(sub->broker->plug))
        return; /* the watcher starts it */
    if (sub->is_restarting) {
        start(sub);
        return;
    }
    outr_err none;
    outr_fail(&none, OUTR_OK, "the component ended it");
    OUTR_LOG(outr__plug_log(sub->broker->plug), WARN, "subscription ended, it is made again",
             OUTR_S("component", outr__plug_id(sub->broker->plug)), OUTR_S("topic", sub->req.topic),
             OUTR_ERR(err ? err : &none));
    sub->pause_ns = OUTR_MIN(OUTR_MAX(2 * sub->pause_ns, PAUSE_MIN), PAUSE_MAX);
    uint64_t jitter = outr_rand_below(outr_loop_rand(loop), sub->pause_ns / 4);
    outr_timer_start(loop, &sub->again, outr_loop_now(loop) + sub->pause_ns - jitter);
}

static void start(outr_broker_sub *sub)
{
    Dapr__Proto__Components__V1__PullMessagesRequest m =
        DAPR__PROTO__COMPONENTS__V1__PULL_MESSAGES_REQUEST__INIT;
    Dapr__Proto__Components__V1__Topic topic = DAPR__PROTO__COMPONENTS__V1__TOPIC__INIT;
    outr_arena *scratch;
    outr__plug_text text;
    if (sub->is_streaming || sub->is_ending || !outr__plug_is_ready(sub->broker->plug))
        return;
    outr_timer_stop(main_loop(sub), &sub->again);
    sub->is_streaming = true;
    sub->is_held = sub->is_clogged = sub->is_restarting = false;
    sub->stream = (outr__plug_stream){
        .grpc = {.on_message = on_message, .on_writable = on_writable, .user = sub},
        .ended = on_ended,
    };
    outr__plug_stream_start(sub->broker->plug, &sub->stream,
                            OUTR__PLUG_PATH("PubSub", "PullMessages"));
    scratch = outr_arena_new(OUTR_MIB);
    text = (outr__plug_text){.arena = scratch};
    topic.name = outr__plug_z(&text, sub->req.topic);
    topic.metadata = outr__plug_map(
        &text, sub->req.metadata, &dapr__proto__components__v1__topic__metadata_entry__descriptor);
    topic.n_metadata = sub->req.metadata.count;
    m.topic = &topic;
    outr_grpc_stream_send(&sub->stream.grpc, &m);
    outr_arena_free(scratch);
}

static void on_changed(outr__plug_watcher *watcher, bool is_ready)
{
    outr_broker_sub *sub = OUTR_CONTAINER(watcher, outr_broker_sub, watcher);
    if (!is_ready) /* of the stream: nothing that was given out counts any more */
        outr__plug_stream_cancel(&sub->stream);
    else
        start(sub);
}

/* ---- on the main loop: orders ---------------------------------------------------------------- */

static void acknowledge(outr_broker_sub *sub, const item *i)
{
    Dapr__Proto__Components__V1__PullMessagesRequest m =
        DAPR__PROTO__COMPONENTS__V1__PULL_MESSAGES_REQUEST__INIT;
    Dapr__Proto__Components__V1__AckMessageError error =
        DAPR__PROTO__COMPONENTS__V1__ACK_MESSAGE_ERROR__INIT;
    m.ack_message_id = (char *)(uintptr_t)i->msg.id.p; /* as protobuf-c gave it: ends with a NUL */
    error.message = (char *)(uintptr_t) "the app did not process the message";
    if (i->how != OUTR_SETTLE_ACK)
        m.ack_error = &error;
    sub->is_clogged = !outr_grpc_stream_send(&sub->stream.grpc, &m);
}

/* What was not looked at is neither accepted nor refused - a refusal may bury it: as with daprd the
 * component gets it back by the end of the stream. */
static void on_settled(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    item *i = OUTR_CONTAINER(message, item, message);
    outr_broker_sub *sub = i->sub;
    sub->out--;
    if (i->epoch == sub->epoch && sub->is_streaming) {
        if (i->how == OUTR_SETTLE_RELEASE)
            sub->is_restarting = true;
        else
            acknowledge(sub, i);
    }
    outr_arena_free(i->arena);
    if (sub->is_restarting && sub->is_streaming && !sub->is_stopped)
        outr__plug_stream_cancel(&sub->stream);
    read_on(sub);
    end_if_closed(sub);
}

static void on_order(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    order *o = OUTR_CONTAINER(message, order, message);
    outr_broker_sub *sub = o->sub;
    sub->is_stopped = o->is_paused;
    free(o);
    if (sub->is_restarting && sub->is_streaming && !sub->is_stopped)
        outr__plug_stream_cancel(&sub->stream);
    read_on(sub);
}

static void on_start(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_broker_sub *sub = OUTR_CONTAINER(message, outr_broker_sub, message_start);
    outr__plug_watch(sub->broker->plug, &sub->watcher);
    start(sub);
}

static void on_close(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_broker_sub *sub = OUTR_CONTAINER(message, outr_broker_sub, message_close);
    sub->is_ending = true;
    outr__plug_stream_cancel(&sub->stream);
    end_if_closed(sub);
}

/* ---- the vtable's ---------------------------------------------------------------------------- */

outr_code outr__plug_subscribe(outr_broker *base, const outr_subscribe *req, outr_broker_sub **out,
                               outr_err *err)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr__plug_text text = {.arena = arena};
    outr_broker_sub *sub;
    outr__plug_z(&text, req->topic);
    outr_kv *metadata = outr_arena_alloc(arena, (req->metadata.count + 1) * sizeof *metadata);
    for (size_t i = 0; i < req->metadata.count; i++) {
        outr__plug_z(&text, req->metadata.items[i].key);
        outr__plug_z(&text, req->metadata.items[i].value);
        metadata[i] = (outr_kv){outr_arena_str(arena, req->metadata.items[i].key),
                                outr_arena_str(arena, req->metadata.items[i].value)};
    }
    if (outr__plug_check(&text, err)) {
        outr_arena_free(arena);
        return err->code;
    }
    sub = outr_alloc(sizeof *sub);
    sub->broker = OUTR_CONTAINER(base, outr__plug_broker, base);
    sub->arena = arena;
    sub->req = *req;
    sub->req.topic = outr_arena_str(arena, req->topic);
    sub->req.metadata = (outr_kvs){metadata, req->metadata.count};
    sub->watcher.changed = on_changed;
    sub->again.fire = on_again;
    sub->pump.run = on_pump;
    outr_list_init(&sub->waiting);
    sub->message_start.run = on_start;
    outr_loop_post(main_loop(sub), &sub->message_start);
    *out = sub;
    return OUTR_OK;
}

void outr__plug_settle(outr_broker_sub *sub OUTR_UNUSED, outr_message_in *msg, outr_settlement how)
{
    give_back(msg->broker_data, how);
}

void outr__plug_pause(outr_broker_sub *sub, bool is_paused)
{
    order *o = outr_alloc(sizeof *o);
    *o = (order){.message = {.run = on_order}, .sub = sub, .is_paused = is_paused};
    sub->is_paused = is_paused;
    outr_loop_post(main_loop(sub), &o->message);
    outr_loop_defer(sub->req.loop, &sub->pump);
}

void outr__plug_unsubscribe(outr_broker_sub *sub, outr_op *op)
{
    outr_op_begin(op, sub, NULL);
    sub->closing = op;
    sub->is_closing = true;
    outr_loop_defer(sub->req.loop, &sub->pump);
    sub->message_close.run = on_close;
    outr_loop_post(main_loop(sub), &sub->message_close);
}
