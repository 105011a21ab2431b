#include <pthread.h>

#include "components/pubsub.h"

/* Topics within this process. A message is copied to each subscription's loop and waits there for
 * credit; what was not accepted comes again after a pause. Nothing outlives the process. */

#define QUEUE_MAX 10000
#define AGAIN_NS  (500 * OUTR_MS)

typedef struct broker broker;

struct outr_broker_sub {
    broker *broker;
    outr_link link; /* in broker->subs, under its lock */
    outr_subscribe req;
    char *topic;
    outr_list waiting; /* loop only */
    size_t unsettled;  /* loop only */
    uint32_t queued;   /* atomic: on their way or waiting */
    bool is_paused, is_closing;
    outr_op *closing;
    outr_deferred pump;
    outr_timer again;
};

typedef struct item {
    outr_message_in msg;
    outr_link link;
    outr_message message;
    outr_broker_sub *sub;
    uint64_t due_ns;
    char *data, *content_type, id[24];
    outr_kv *kvs;
} item;

struct broker {
    outr_broker base;
    /* A lock: subscriptions come and go rarely, publishing reads the list for a moment. */
    pthread_mutex_t lock;
    outr_list subs;
    uint64_t last_id;
};

static broker *of(outr_broker *base)
{
    return OUTR_CONTAINER(base, broker, base);
}

static void free_item(item *i)
{
    for (size_t k = 0; k < i->msg.metadata.count; k++) {
        free((void *)i->kvs[k].key.p);
        free((void *)i->kvs[k].value.p);
    }
    free(i->kvs);
    free(i->data);
    free(i->content_type);
    free(i);
}

static outr_str copy(outr_str s)
{
    return outr_str_of(outr_str_dup(s), s.n);
}

static item *new_item(outr_broker_sub *sub, const outr_publish_item *from)
{
    item *i = outr_alloc(sizeof *i);
    int id_n = snprintf(i->id, sizeof i->id, "%llu", (unsigned long long)++sub->broker->last_id);
    i->sub = sub;
    i->data = outr_str_dup(from->data);
    i->content_type = outr_str_dup(from->content_type);
    i->kvs = outr_alloc((from->metadata.count + 1) * sizeof *i->kvs);
    for (size_t k = 0; k < from->metadata.count; k++)
        i->kvs[k] =
            (outr_kv){copy(from->metadata.items[k].key), copy(from->metadata.items[k].value)};
    i->msg = (outr_message_in){
        .topic = outr_str_from(sub->topic),
        .data = outr_str_of(i->data, from->data.n),
        .content_type = outr_str_of(i->content_type, from->content_type.n),
        .metadata = {i->kvs, from->metadata.count},
        .id = outr_str_of(i->id, (size_t)id_n),
        .attempt = 1,
        .broker_data = i,
    };
    return i;
}

/* ---- on the subscription's loop -------------------------------------------------------------- */

static void end_if_closed(outr_broker_sub *sub)
{
    if (!sub->is_closing || sub->unsettled > 0 ||
        __atomic_load_n(&sub->queued, __ATOMIC_ACQUIRE) > 0)
        return;
    outr_op *op = sub->closing;
    outr_loop_undefer(&sub->pump);
    outr_timer_stop(sub->req.loop, &sub->again);
    free(sub->topic);
    free(sub);
    outr_op_finish(op);
}

static void drop(item *i)
{
    outr_broker_sub *sub = i->sub;
    __atomic_sub_fetch(&sub->queued, 1, __ATOMIC_RELEASE);
    free_item(i);
}

static void on_pump(outr_deferred *deferred)
{
    outr_broker_sub *sub = OUTR_CONTAINER(deferred, outr_broker_sub, pump);
    uint64_t now = outr_loop_now(sub->req.loop), next = UINT64_MAX;
    OUTR_LIST_EACH(link, &sub->waiting) {
        item *i = OUTR_LIST_ITEM(link, item, link);
        if (sub->is_closing) {
            outr_link_remove(link);
            drop(i);
            continue;
        }
        if (sub->is_paused || sub->unsettled >= sub->req.credit)
            break;
        if (i->due_ns > now) {
            next = OUTR_MIN(next, i->due_ns);
            continue;
        }
        outr_link_remove(link);
        sub->unsettled++;
        sub->req.on_message(sub->req.ctx, &i->msg);
    }
    if (next != UINT64_MAX)
        outr_timer_start(sub->req.loop, &sub->again, next);
    end_if_closed(sub);
}

static void on_again(outr_timer *timer)
{
    outr_broker_sub *sub = OUTR_CONTAINER(timer, outr_broker_sub, again);
    outr_loop_defer(sub->req.loop, &sub->pump);
}

static void on_arrived(outr_message *message, outr_loop *loop)
{
    item *i = OUTR_CONTAINER(message, item, message);
    outr_list_push(&i->sub->waiting, &i->link);
    outr_loop_defer(loop, &i->sub->pump);
}

static void settle(outr_broker_sub *sub, outr_message_in *msg, outr_settlement how)
{
    item *i = msg->broker_data;
    sub->unsettled--;
    if (how == OUTR_SETTLE_ACK || sub->is_closing) {
        drop(i);
    } else {
        i->due_ns = how == OUTR_SETTLE_RETRY ? outr_loop_now(sub->req.loop) + AGAIN_NS : 0;
        i->msg.attempt += how == OUTR_SETTLE_RETRY;
        outr_list_push(&sub->waiting, &i->link);
    }
    outr_loop_defer(sub->req.loop, &sub->pump);
}

static void pause_sub(outr_broker_sub *sub, bool is_paused)
{
    sub->is_paused = is_paused;
    outr_loop_defer(sub->req.loop, &sub->pump);
}

static outr_code subscribe(outr_broker *base, const outr_subscribe *req, outr_broker_sub **out,
                           outr_err *err OUTR_UNUSED)
{
    broker *b = of(base);
    outr_broker_sub *sub = outr_alloc(sizeof *sub);
    sub->broker = b;
    sub->req = *req;
    sub->topic = outr_str_dup(req->topic);
    sub->pump.run = on_pump;
    sub->again.fire = on_again;
    outr_list_init(&sub->waiting);
    pthread_mutex_lock(&b->lock);
    outr_list_push(&b->subs, &sub->link);
    pthread_mutex_unlock(&b->lock);
    *out = sub;
    return OUTR_OK;
}

static void unsubscribe(outr_broker_sub *sub, outr_op *op)
{
    pthread_mutex_lock(&sub->broker->lock);
    outr_link_remove(&sub->link);
    pthread_mutex_unlock(&sub->broker->lock);
    outr_op_begin(op, sub, NULL);
    sub->is_closing = true;
    sub->closing = op;
    outr_loop_defer(sub->req.loop, &sub->pump);
}

/* ---- publishing ------------------------------------------------------------------------------ */

static outr_code publish_one(broker *b, outr_str topic, const outr_publish_item *from,
                             outr_err *err)
{
    outr_code rc = OUTR_OK;
    pthread_mutex_lock(&b->lock);
    OUTR_LIST_EACH(link, &b->subs) {
        outr_broker_sub *sub = OUTR_LIST_ITEM(link, outr_broker_sub, link);
        if (!outr_str_is(topic, sub->topic))
            continue;
        if (__atomic_load_n(&sub->queued, __ATOMIC_ACQUIRE) >= QUEUE_MAX) {
            rc = outr_fail(err, OUTR_RESOURCE_EXHAUSTED,
                           "more than %d messages wait for topic " OUTR_FMT, QUEUE_MAX,
                           OUTR_ARG(topic));
            continue;
        }
        __atomic_add_fetch(&sub->queued, 1, __ATOMIC_ACQ_REL);
        item *i = new_item(sub, from);
        i->message.run = on_arrived;
        outr_loop_post(sub->req.loop, &i->message);
    }
    pthread_mutex_unlock(&b->lock);
    return rc;
}

static void publish(outr_broker *base, outr_publish *req, outr_op *op)
{
    outr_err first = {0};
    outr_op_begin(op, req, NULL);
    for (size_t i = 0; i < req->count; i++) {
        outr_err_clear(&req->items[i].err);
        if (publish_one(of(base), req->topic, &req->items[i], &req->items[i].err) && !first.code)
            first = req->items[i].err;
    }
    if (first.code)
        outr_op_fail_soon(op, &first);
    else
        outr_op_finish_soon(op);
}

/* ---- life ------------------------------------------------------------------------------------ */

extern const outr_pubsub_backend outr_pubsub_in_memory;

static outr_code create(outr_broker **out, const outr_component_init *init OUTR_UNUSED,
                        outr_err *err OUTR_UNUSED)
{
    broker *b = outr_alloc(sizeof *b);
    b->base.backend = &outr_pubsub_in_memory;
    pthread_mutex_init(&b->lock, NULL);
    outr_list_init(&b->subs);
    *out = &b->base;
    return OUTR_OK;
}

static void open_broker(outr_broker *base OUTR_UNUSED, outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static void close_broker(outr_broker *base, outr_op *op)
{
    broker *b = of(base);
    pthread_mutex_destroy(&b->lock);
    free(b);
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static unsigned features(const outr_broker *base OUTR_UNUSED)
{
    return 0;
}

const outr_pubsub_backend outr_pubsub_in_memory = {
    .base = {"pubsub.in-memory", "v1", NULL, 0},
    .create = create,
    .open = open_broker,
    .close = close_broker,
    .features = features,
    .publish = publish,
    .subscribe = subscribe,
    .settle = settle,
    .pause = pause_sub,
    .unsubscribe = unsubscribe,
};
