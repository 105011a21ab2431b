#include "blocks/pubsub/subscription.h"

#include "blocks/pubsub/delivery.h"
#include "blocks/pubsub/envelope.h"
#include "blocks/pubsub/topics.h"
#include "observe/span.h"

#define DELIVERY_ARENA  (64 * OUTR_MIB)
#define DLQ_TIMEOUT_NS  (30 * OUTR_SEC)
#define BATCH_BYTES_MAX (2 * OUTR_MIB) /* gRPC servers take 4 MiB unless told otherwise */
#define BATCHES_IN_HAND 2              /* while the app has one the next is made */

static const outr_metric_desc ingress = {
    "dapr_component_pubsub_ingress_count",
    "messages delivered to the app",
    OUTR_COUNTER,
    0,
    {"component", "namespace", "process_status", "status", "topic"}};
static const outr_metric_desc ingress_latency = {
    "dapr_component_pubsub_ingress_latencies",
    "time the app took for a message, ms",
    OUTR_HISTOGRAM,
    OUTR_BUCKETS_LATENCY_MS,
    {"component", "namespace", "process_status", "status", "topic"}};

/* A message waiting for its batch to fill. */
typedef struct gathered {
    outr_link link;
    outr_message_in *msg;
} gathered;

outr_code outr_subscription_prepare(outr_subscription *s, outr_arena *arena, outr_err *err)
{
    s->rules = outr_arena_alloc(arena, (s->spec.rule_count + 1) * sizeof *s->rules);
    s->deliverer = !s->app                        ? &outr__deliver_stream
                   : outr_app_speaks_grpc(s->app) ? &outr__deliver_grpc
                                                  : &outr__deliver_http;
    const outr_kv *raw = outr_kvs_find(s->spec.metadata, "rawPayload");
    if (raw)
        outr_str_to_bool(raw->value, &s->is_raw);
    for (size_t i = 0; i < s->spec.rule_count; i++) {
        s->has_conditions |= s->spec.rules[i].match.n > 0;
        if (s->spec.rules[i].match.n &&
            outr_cel_compile(&s->rules[i], arena, s->spec.rules[i].match, err))
            return outr_wrap(err, "subscription to " OUTR_FMT " on " OUTR_FMT,
                             OUTR_ARG(s->spec.topic), OUTR_ARG(s->spec.pubsub));
    }
    return OUTR_OK;
}

/* ---- its span -------------------------------------------------------------------------------- */

/* The trace an event came with, or NONE. */
static outr_str given_traceparent(const outr__handed *item)
{
    static const char *const names[] = {"traceparent", "traceid"};
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        outr_str text = outr_json_text(item->event, names[i]);
        if (text.n > 0)
            return text;
    }
    return OUTR_STR_NONE;
}

/* A raw message has its trace in its metadata. */
static outr_str of_metadata(const outr__handed *item, const char *name)
{
    const outr_kv *found = outr_kvs_find(item->msg->metadata, name);
    return found ? found->value : OUTR_STR_NONE;
}

static void start_span(const outr_subscription *s, outr__handed *item)
{
    outr_trace parent;
    if (!s->trace.is_on)
        return;
    outr_str state = outr_json_text(item->event, "tracestate");
    if (!outr_trace_parse(&parent, given_traceparent(item)) &&
        (outr_trace_parse(&parent, of_metadata(item, "traceparent")) ||
         outr_trace_parse(&parent, of_metadata(item, "traceid"))))
        state = of_metadata(item, "tracestate");
    if (parent.is_valid && outr_header_value_is_valid(state))
        parent.state = outr_str_head(state, 512);
    outr_trace_start(&item->trace, &parent, &s->trace, outr_loop_rand(s->loop));
}

static const char *const statuses[] = {"success", "retry", "drop", "drop"};

static void record_span(const outr__delivery *d, const outr__handed *item)
{
    const outr_subscription *s = d->s;
    const char *outcome = statuses[item->outcome];
    if (!outr_span_is_wanted(&s->trace, &item->trace))
        return;
    outr_span span;
    outr_str name = outr_arena_join(d->arena, OUTR_STR("pubsub/"), s->spec.topic, OUTR_STR_NONE);
    outr_span_init(&span, &item->trace, OUTR_SPAN_CONSUMER, name, d->began_ns);
    if (item->outcome != OUTR__DONE)
        outr_span_fail(&span, outr_str_from(outcome));
    outr_span_add_topic(&span, s->spec.topic);
    outr_span_add(&span, "outrigger.pubsub", s->spec.pubsub);
    outr_span_add(&span, "outrigger.outcome", outr_str_from(outcome));
    outr_span_record(s->trace.tracer, &span);
}

outr_str outr__delivery_traceparent(const outr__delivery *d, const outr__handed *item)
{
    if (!item->trace.is_valid)
        return given_traceparent(item);
    char *text = outr_arena_alloc(d->arena, OUTR_TRACEPARENT_LEN + 1);
    outr_trace_write(&item->trace, text);
    return outr_str_of(text, OUTR_TRACEPARENT_LEN);
}

/* ---- the end of a delivery ------------------------------------------------------------------- */

static void check_ended(outr_subscription *s);

static void count_outcome(const outr_subscription *s, outr__outcome how, bool is_asked_drop,
                          size_t n, double took_ms)
{
    outr_metric_shard *shard = outr_loop_metrics(s->loop);
    const outr_str labels[] = {
        s->component->spec->base.name, OUTR_STR(""), outr_str_from(statuses[how]),
        outr_str_from(statuses[is_asked_drop ? OUTR__DONE : how]), s->spec.topic};
    outr_metric_count(shard, &ingress, labels, (double)n);
    outr_metric_series *latency = outr_metric_series_get(shard, &ingress_latency, labels);
    for (; n > 0; n--)
        outr_metric_observe(latency, took_ms);
}

void outr__delivery_count(const outr__delivery *d)
{
    size_t counts[OUTR_LEN(statuses)][2] = {{0}};
    double took_ms = (double)(outr_loop_update(d->s->loop) - d->began_ns) / (double)OUTR_MS;
    for (size_t i = 0; i < d->count; i++)
        counts[d->items[i].outcome][d->items[i].is_asked_drop]++;
    for (size_t how = 0; how < OUTR_LEN(counts); how++) {
        for (size_t asked = 0; asked < 2; asked++) {
            if (counts[how][asked] > 0)
                count_outcome(d->s, (outr__outcome)how, asked, counts[how][asked], took_ms);
        }
    }
}

static void end_delivery(outr__delivery *d)
{
    outr_subscription *s = d->s;
    outr_link_remove(&d->link);
    outr_arena_free(d->arena);
    s->delivering--;
    check_ended(s);
}

static void settle(outr__delivery *d, size_t i, outr_settlement how)
{
    d->s->component->broker->backend->settle(d->s->sub, d->items[i].msg, how);
}

static void settle_next(outr__delivery *d);

static void on_dead_letter(outr_op *op)
{
    outr__delivery *d = OUTR_CONTAINER(op, outr__delivery, op);
    if (op->err.code) /* kept: a message is gone only when it is somewhere else */
        OUTR_LOG(d->s->log, ERROR, "dead letter could not be published, the message stays",
                 OUTR_S("topic", d->s->spec.topic),
                 OUTR_S("dead_letter_topic", d->s->spec.dead_letter_topic), OUTR_ERR(&op->err));
    settle(d, d->at, op->err.code ? OUTR_SETTLE_RETRY : OUTR_SETTLE_ACK);
    d->at++;
    settle_next(d);
}

static void publish_dead(outr_guarded *guarded, outr_op *op)
{
    outr__delivery *d = OUTR_CONTAINER(guarded, outr__delivery, burial);
    outr_broker *broker = d->s->component->broker;
    outr_err_clear(&d->dead_item.err);
    broker->backend->publish(broker, &d->dead, op);
}

/* False: it cannot be. */
static bool bury(outr__delivery *d)
{
    outr_subscription *s = d->s;
    const outr_message_in *msg = d->items[d->at].msg;
    if (!outr_topic_is_allowed(s->component->metadata, "publishingScopes", s->settings->app_id,
                               s->spec.dead_letter_topic)) {
        OUTR_LOG(
            s->log, ERROR, "this app may not publish to the dead letter topic, the message stays",
            OUTR_S("topic", s->spec.topic), OUTR_S("dead_letter_topic", s->spec.dead_letter_topic));
        return false;
    }
    d->dead_item = (outr_publish_item){
        .data = msg->data, .content_type = msg->content_type, .metadata = msg->metadata};
    d->dead = (outr_publish){.topic = outr_topic_of_broker(
                                 outr_arena_alloc(d->arena, OUTR_TOPIC_MAX), s->component->spec,
                                 s->settings->namespace_, s->spec.dead_letter_topic),
                             .items = &d->dead_item,
                             .count = 1};
    outr_op_init(&d->op, s->loop, NULL, outr_loop_now(s->loop) + DLQ_TIMEOUT_NS, on_dead_letter);
    outr_guarded_component(&d->burial, outr_view_policies(s->view), OUTR_POLICY_PUBSUB,
                           OUTR_OUTBOUND, s->spec.pubsub, s->loop, d->arena, publish_dead);
    outr_guarded_start(&d->burial, &d->op);
    return true;
}

static void settle_next(outr__delivery *d)
{
    bool has_grave = d->s->spec.dead_letter_topic.n > 0;
    for (; d->at < d->count; d->at++) {
        outr__outcome how = d->items[d->at].outcome;
        bool is_released = how == OUTR__RETRY && d->s->is_ending;
        if (has_grave && !is_released && (how == OUTR__RETRY || how == OUTR__DROP)) {
            if (bury(d))
                return;
            how = OUTR__RETRY;
        }
        settle(d, d->at,
               how != OUTR__RETRY ? OUTR_SETTLE_ACK
               : d->s->is_ending  ? OUTR_SETTLE_RELEASE
                                  : OUTR_SETTLE_RETRY);
    }
    end_delivery(d);
}

void outr__delivery_decide(outr__delivery *d, size_t i, outr__outcome how, bool is_asked_drop)
{
    d->items[i].outcome = how;
    d->items[i].is_asked_drop = is_asked_drop;
    if (how != OUTR__RETRY) /* else there may be another try */
        record_span(d, &d->items[i]);
}

void outr__delivery_conclude(outr__delivery *d)
{
    d->is_decided = true;
    d->count = d->total;
    outr_guard_done(&d->guard);
    for (size_t i = 0; i < d->count; i++) {
        if (d->items[i].outcome == OUTR__RETRY)
            record_span(d, &d->items[i]);
    }
    settle_next(d);
}

void outr__delivery_decide_all(outr__delivery *d, outr__outcome how, bool is_asked_drop)
{
    for (size_t i = 0; i < d->count; i++)
        outr__delivery_decide(d, i, how, is_asked_drop);
    outr__delivery_decided(d);
}

/* ---- to its taker ---------------------------------------------------------------------------- */

/* bytes: of the messages, for what is made of them. */
static outr__delivery *new_delivery(outr_subscription *s, size_t count, size_t bytes)
{
    outr_arena *arena = outr_arena_new(DELIVERY_ARENA + OUTR_JSON_TREE * bytes);
    outr__delivery *d = outr_arena_alloc(arena, sizeof *d);
    d->s = s;
    d->arena = arena;
    d->items = outr_arena_alloc(arena, count * sizeof *d->items);
    d->began_ns = outr_loop_now(s->loop);
    outr_list_push(&s->deliveries, &d->link);
    s->delivering++;
    return d;
}

/* The path of the first rule that holds; p == NULL: none does. False: a rule could not be
 * evaluated. */
static bool route(outr_subscription *s, outr_arena *arena, const outr_json *event, outr_str *path,
                  outr_err *err)
{
    *path = OUTR_STR_NONE;
    for (size_t i = 0; i < s->spec.rule_count; i++) {
        bool holds = true;
        if (s->rules[i] && outr_cel_test(s->rules[i], arena, "event", event, &holds, err))
            return false;
        if (holds) {
            *path = s->spec.rules[i].path;
            return true;
        }
    }
    return true;
}

typedef enum judgement { GOOD, BAD, NOBODYS, EXPIRED } judgement;

static bool is_batched(const outr_subscription *s)
{
    return s->spec.is_bulk && s->deliverer->hand_over_batch;
}

/* Reads msg into item, on arena; the path when it is good. A raw message of a batch goes out as it
 * is: nobody sees the envelope but conditions of routes and spans. */
static judgement judge(outr_subscription *s, outr_arena *arena, outr_message_in *msg,
                       outr__handed *item, outr_str *path)
{
    outr_json *event = NULL;
    outr_err err;
    *item = (outr__handed){.msg = msg};
    if (s->is_raw && (!is_batched(s) || s->has_conditions || s->trace.is_on))
        event = outr_envelope_wrap_raw(arena, s->spec.pubsub, s->spec.topic, msg->data,
                                       outr_loop_rand(s->loop));
    if ((!s->is_raw && outr_json_parse(&event, arena, msg->data, &err)) ||
        !route(s, arena, event, path, &err)) {
        OUTR_LOG(s->log, ERROR, "a message could not be processed", OUTR_S("topic", s->spec.topic),
                 OUTR_ERR(&err));
        return BAD;
    }
    item->event = event;
    start_span(s, item);
    if (!s->is_raw && outr_envelope_is_expired(event, outr_loop_unix_ns(s->loop)))
        return EXPIRED;
    return path->p ? GOOD : NOBODYS;
}

static void dispose(outr__delivery *d, judgement found)
{
    d->total = d->count;
    outr__delivery_decide_all(d, found == BAD ? OUTR__RETRY : OUTR__DROP, found == NOBODYS);
}

static void deliver(outr_subscription *s, outr_message_in *msg)
{
    outr__delivery *d = new_delivery(s, 1, msg->data.n);
    d->count = 1;
    judgement found = judge(s, d->arena, msg, &d->items[0], &d->path);
    if (found == GOOD)
        outr__delivery_begin(d);
    else
        dispose(d, found);
}

/* ---- bulk ------------------------------------------------------------------------------------ */

static void hand_over_batch(outr__delivery *d)
{
    if (d->count == 0) {
        end_delivery(d);
        return;
    }
    d->is_batch = true;
    outr__delivery_begin(d);
}

/* An entry of a message that its broker gave no name. */
static outr_str new_id(outr_subscription *s, outr_arena *arena)
{
    char text[OUTR_UUID_LEN + 1];
    outr_rand_uuid(outr_loop_rand(s->loop), text);
    return outr_arena_str(arena, outr_str_of(text, OUTR_UUID_LEN));
}

/* Puts msg into *batch, whose size is for all that may follow; what belongs to another route begins
 * the next one, what is for nobody is settled alone. */
static void add_to_batch(outr_subscription *s, outr__delivery **batch, outr_message_in *msg,
                         size_t room, size_t bytes)
{
    outr_str path = OUTR_STR_NONE;
    outr__delivery *d = *batch ? *batch : (*batch = new_delivery(s, room, bytes));
    judgement found = judge(s, d->arena, msg, &d->items[d->count], &path);
    if (found != GOOD) {
        outr__delivery *alone = new_delivery(s, 1, 0);
        alone->items[0].msg = msg;
        alone->count = 1;
        dispose(alone, found);
        return;
    }
    outr__delivery *full = NULL;
    if (d->count > 0 && !outr_str_eq(d->path, path)) {
        full = d;
        d = *batch = new_delivery(s, room, bytes);
        judge(s, d->arena, msg, &d->items[0], &path); /* once more, on the arena it stays on */
    }
    d->path = path; /* of the spec */
    d->items[d->count].id = msg->id.n ? msg->id : new_id(s, d->arena);
    d->count++;
    if (full) /* may end at once, and must not seem the last */
        hand_over_batch(full);
}

/* What has gathered goes out, one call per route. */
static void flush_batch(outr_subscription *s)
{
    outr__delivery *batch = NULL;
    outr_list all;
    size_t left = s->batch_count, bytes = s->batch_bytes;
    outr_timer_stop(s->loop, &s->batch_timer);
    s->batch_count = s->batch_bytes = 0;
    s->batch_number++;
    if (left == 0)
        return;
    outr_list_init(&all);
    while (!outr_list_is_empty(&s->batch))
        outr_list_push(&all, outr_list_pop(&s->batch));
    while (!outr_list_is_empty(&all)) {
        gathered *g = OUTR_LIST_ITEM(outr_list_pop(&all), gathered, link);
        outr_message_in *msg = g->msg;
        free(g);
        add_to_batch(s, &batch, msg, left--, bytes);
    }
    hand_over_batch(batch);
}

/* What has gathered is anybody's again. */
static void release_batch(outr_subscription *s)
{
    outr_timer_stop(s->loop, &s->batch_timer);
    s->batch_count = s->batch_bytes = 0;
    s->batch_number++;
    while (!outr_list_is_empty(&s->batch)) {
        gathered *g = OUTR_LIST_ITEM(outr_list_pop(&s->batch), gathered, link);
        s->component->broker->backend->settle(s->sub, g->msg, OUTR_SETTLE_RELEASE);
        free(g);
    }
}

static void on_batch_time(outr_timer *timer)
{
    flush_batch(OUTR_CONTAINER(timer, outr_subscription, batch_timer));
}

static void gather(outr_subscription *s, outr_message_in *msg)
{
    gathered *g = outr_alloc(sizeof *g);
    g->msg = msg;
    if (s->batch_bytes + msg->data.n > BATCH_BYTES_MAX)
        flush_batch(s);
    outr_list_push(&s->batch, &g->link);
    s->batch_bytes += msg->data.n;
    if (++s->batch_count >= (size_t)OUTR_MAX(s->spec.bulk_max_messages, 1))
        flush_batch(s);
    else if (!outr_timer_is_on(&s->batch_timer))
        outr_timer_start(s->loop, &s->batch_timer,
                         outr_loop_now(s->loop) +
                             (uint64_t)OUTR_MAX(s->spec.bulk_max_await_ms, 1) * OUTR_MS);
}

static void on_message(void *ctx, outr_message_in *msg)
{
    outr_subscription *s = ctx;
    if (is_batched(s))
        gather(s, msg);
    else
        deliver(s, msg);
}

/* ---- life ------------------------------------------------------------------------------------ */

static size_t credit_of(const outr_subscription *s)
{
    const outr_kv *own = outr_kvs_find(s->spec.metadata, "maxConcurrency"),
                  *all = outr_kvs_find(s->component->metadata, "maxConcurrency");
    int64_t n;
    if ((own && outr_str_to_i64(own->value, 1, 65536, &n)) ||
        (all && outr_str_to_i64(all->value, 1, 65536, &n)))
        return (size_t)n;
    return s->spec.is_bulk ? (size_t)OUTR_MAX(BATCHES_IN_HAND * s->spec.bulk_max_messages,
                                              OUTR_SUBSCRIPTION_CREDIT)
                           : OUTR_SUBSCRIPTION_CREDIT;
}

static size_t batch_of(const outr_subscription *s)
{
    return is_batched(s) ? (size_t)OUTR_MAX(s->spec.bulk_max_messages, 1) : 1;
}

static void on_patience_over(outr_timer *timer)
{
    outr_subscription_abandon(OUTR_CONTAINER(timer, outr_subscription, patience));
}

outr_code outr_subscription_start(outr_subscription *s, outr_err *err)
{
    outr_list_init(&s->batch);
    outr_list_init(&s->deliveries);
    s->batch_timer.fire = on_batch_time;
    s->patience.fire = on_patience_over;
    s->is_ending = s->is_ended = false;
    s->view = outr_host_pin(s->host, s->loop);
    s->component = outr_view_find(s->view, OUTR_KIND_PUBSUB, s->spec.pubsub);
    if (!s->component)
        return outr_fail_reason(err, OUTR_INVALID_ARGUMENT, OUTR_REASON_PUBSUB_NOT_FOUND,
                                "pubsub " OUTR_FMT " is not found", OUTR_ARG(s->spec.pubsub));
    if (!outr_topic_is_allowed(s->component->metadata, "subscriptionScopes", s->settings->app_id,
                               s->spec.topic))
        return outr_fail_reason(err, OUTR_PERMISSION_DENIED, OUTR_REASON_PUBSUB_FORBIDDEN,
                                "subscription to topic '" OUTR_FMT "' on pubsub '" OUTR_FMT
                                "' is not allowed",
                                OUTR_ARG(s->spec.topic), OUTR_ARG(s->spec.pubsub));
    char place[OUTR_TOPIC_MAX];
    const outr_subscribe req = {
        .topic =
            outr_topic_of_broker(place, s->component->spec, s->settings->namespace_, s->spec.topic),
        .metadata = s->spec.metadata,
        .loop = s->loop,
        .credit = credit_of(s),
        .batch = batch_of(s),
        .batches = batch_of(s) > 1 ? &s->batch_number : NULL,
        .on_message = on_message,
        .ctx = s};
    if (s->component->broker->backend->subscribe(s->component->broker, &req, &s->sub, err))
        return err->code;
    if (s->is_paused)
        s->component->broker->backend->pause(s->sub, true);
    OUTR_LOG(s->log, INFO, "subscribed", OUTR_S("pubsub", s->spec.pubsub),
             OUTR_S("topic", s->spec.topic));
    return OUTR_OK;
}

bool outr_subscription_move(outr_subscription *s)
{
    outr_view *view = outr_host_pin(s->host, s->loop);
    const outr_component *component = outr_view_find(view, OUTR_KIND_PUBSUB, s->spec.pubsub);
    if (!s->component || !component || component->broker != s->component->broker || s->is_ending) {
        outr_view_unpin(view);
        return false;
    }
    outr_view_unpin(s->view);
    s->view = view;
    s->component = component;
    return true;
}

void outr_subscription_pause(outr_subscription *s, bool is_paused)
{
    if (s->is_paused == is_paused)
        return;
    s->is_paused = is_paused;
    if (!s->sub || s->is_ending)
        return;
    s->component->broker->backend->pause(s->sub, is_paused);
    if (is_paused)
        release_batch(s);
}

static void on_unsubscribed(outr_op *op)
{
    outr_subscription *s = OUTR_CONTAINER(op, outr_subscription, closing);
    s->sub = NULL;
    s->component = NULL;
    outr_view_unpin(s->view);
    s->view = NULL;
    s->is_ended = true;
    s->ended(s);
}

/* The broker is left once all that it gave is answered. */
static void check_ended(outr_subscription *s)
{
    if (!s->is_ending || s->is_ended || s->delivering > 0 || outr_op_is_pending(&s->closing))
        return;
    outr_timer_stop(s->loop, &s->patience);
    outr_op_init(&s->closing, s->loop, NULL, 0, on_unsubscribed);
    if (s->sub) {
        s->component->broker->backend->unsubscribe(s->sub, &s->closing);
        return;
    }
    outr_op_begin(&s->closing, NULL, NULL);
    outr_op_finish_soon(&s->closing);
}

static void stop_taking(outr_subscription *s)
{
    if (s->is_ending)
        return;
    s->is_ending = true;
    if (!s->sub)
        return;
    s->component->broker->backend->pause(s->sub, true);
    release_batch(s);
    OUTR_LIST_EACH(link, &s->deliveries) {
        outr__delivery *d = OUTR_LIST_ITEM(link, outr__delivery, link);
        if (d->is_resting) /* not tried again here: the next one to get it may do better */
            outr__delivery_give_up(d);
    }
}

void outr_subscription_end(outr_subscription *s, uint64_t patience_ns)
{
    stop_taking(s);
    uint64_t at = outr_loop_now(s->loop) + patience_ns;
    if (patience_ns && !s->is_ended && !outr_op_is_pending(&s->closing) &&
        (!outr_timer_is_on(&s->patience) || s->patience.node.key > at))
        outr_timer_start(s->loop, &s->patience, at);
    check_ended(s);
}

void outr_subscription_abandon(outr_subscription *s)
{
    outr_list all;
    stop_taking(s);
    outr_list_init(&all); /* giving one up ends it, at once or soon */
    while (!outr_list_is_empty(&s->deliveries))
        outr_list_push(&all, outr_list_pop(&s->deliveries));
    while (!outr_list_is_empty(&all)) {
        outr__delivery *d = OUTR_LIST_ITEM(outr_list_pop(&all), outr__delivery, link);
        outr_list_push(&s->deliveries, &d->link);
        if (!d->is_decided)
            outr__delivery_give_up(d);
    }
    check_ended(s);
}
