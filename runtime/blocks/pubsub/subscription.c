#include "blocks/pubsub/subscription.h"

#include "base/encode.h"
#include "blocks/pubsub/envelope.h"
#include "blocks/pubsub/topics.h"

#define DELIVERY_ARENA (64 * OUTR_MIB)
#define DLQ_TIMEOUT_NS (30 * OUTR_SEC)

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

typedef enum outcome { DONE, RETRY, DROP } outcome;

/* One message, or one batch of them, in the app's hands. */
typedef struct delivery {
    outr_subscription *s;
    outr_arena *arena;
    outr_message_in **messages;
    outcome *outcomes;
    size_t count;
    size_t at; /* message whose dead letter is being published */
    outr_str path;
    outr_app_fetch fetch;
    outr_op op;
    outr_publish dead;
    outr_publish_item dead_item;
    uint64_t began_ns;
    bool is_bulk;
} delivery;

/* A message waiting for its batch to fill. */
typedef struct gathered {
    outr_link link;
    outr_message_in *msg;
} gathered;

outr_code outr_subscription_prepare(outr_subscription *s, outr_arena *arena, outr_err *err)
{
    s->rules = outr_arena_alloc(arena, (s->spec.rule_count + 1) * sizeof *s->rules);
    const outr_kv *raw = outr_kvs_find(s->spec.metadata, "rawPayload");
    if (raw)
        outr_str_to_bool(raw->value, &s->is_raw);
    for (size_t i = 0; i < s->spec.rule_count; i++) {
        if (s->spec.rules[i].match.n &&
            outr_cel_compile(&s->rules[i], arena, s->spec.rules[i].match, err))
            return outr_wrap(err, "subscription to " OUTR_FMT " on " OUTR_FMT,
                             OUTR_ARG(s->spec.topic), OUTR_ARG(s->spec.pubsub));
    }
    return OUTR_OK;
}

/* ---- the end of a delivery ------------------------------------------------------------------- */

static void check_ended(outr_subscription *s);

static void count_outcome(const outr_subscription *s, outcome how, bool is_asked_drop,
                          uint64_t began_ns)
{
    static const char *const statuses[] = {"success", "retry", "drop"};
    outr_metric_shard *shard = outr_loop_metrics(s->loop);
    if (!shard)
        return;
    const outr_str labels[] = {s->component->spec->base.name, OUTR_STR(""),
                               outr_str_from(statuses[how]),
                               outr_str_from(statuses[is_asked_drop ? DONE : how]), s->spec.topic};
    outr_metric_count(shard, &ingress, labels, 1);
    outr_metric_count(shard, &ingress_latency, labels,
                      (double)(outr_loop_update(s->loop) - began_ns) / (double)OUTR_MS);
}

static void end_delivery(delivery *d)
{
    outr_subscription *s = d->s;
    outr_arena_free(d->arena);
    s->delivering--;
    check_ended(s);
}

static void settle(delivery *d, size_t i, outr_settlement how)
{
    d->s->component->broker->backend->settle(d->s->sub, d->messages[i], how);
}

static void settle_next(delivery *d);

static void on_dead_letter(outr_op *op)
{
    delivery *d = OUTR_CONTAINER(op, delivery, op);
    if (op->err.code) /* kept: a message is gone only when it is somewhere else */
        OUTR_LOG(d->s->log, ERROR, "dead letter could not be published, the message stays",
                 OUTR_S("topic", d->s->spec.topic),
                 OUTR_S("dead_letter_topic", d->s->spec.dead_letter_topic), OUTR_ERR(&op->err));
    settle(d, d->at, op->err.code ? OUTR_SETTLE_RETRY : OUTR_SETTLE_ACK);
    d->at++;
    settle_next(d);
}

/* False: it cannot be. */
static bool bury(delivery *d)
{
    outr_subscription *s = d->s;
    const outr_message_in *msg = d->messages[d->at];
    outr_broker *broker = s->component->broker;
    if (!outr_topic_is_allowed(s->component->metadata, "publishingScopes", s->settings->app_id,
                               s->spec.dead_letter_topic)) {
        OUTR_LOG(
            s->log, ERROR, "this app may not publish to the dead letter topic, the message stays",
            OUTR_S("topic", s->spec.topic), OUTR_S("dead_letter_topic", s->spec.dead_letter_topic));
        return false;
    }
    d->dead_item = (outr_publish_item){
        .data = msg->data, .content_type = msg->content_type, .metadata = msg->metadata};
    d->dead =
        (outr_publish){.topic = s->spec.dead_letter_topic, .items = &d->dead_item, .count = 1};
    outr_op_init(&d->op, s->loop, NULL, outr_loop_now(s->loop) + DLQ_TIMEOUT_NS, on_dead_letter);
    broker->backend->publish(broker, &d->dead, &d->op);
    return true;
}

static void settle_next(delivery *d)
{
    bool has_grave = d->s->spec.dead_letter_topic.n > 0;
    for (; d->at < d->count; d->at++) {
        outcome how = d->outcomes[d->at];
        if (how != DONE && has_grave && !d->s->is_ending) {
            if (bury(d))
                return;
            how = RETRY;
        }
        settle(d, d->at,
               how == RETRY ? (d->s->is_ending ? OUTR_SETTLE_RELEASE : OUTR_SETTLE_RETRY)
                            : OUTR_SETTLE_ACK);
    }
    end_delivery(d);
}

static void decide(delivery *d, size_t i, outcome how, bool is_asked_drop)
{
    d->outcomes[i] = how;
    count_outcome(d->s, how, is_asked_drop, d->began_ns);
}

static void decide_all(delivery *d, outcome how, bool is_asked_drop)
{
    for (size_t i = 0; i < d->count; i++)
        decide(d, i, how, is_asked_drop);
    settle_next(d);
}

/* ---- the app's answer ------------------------------------------------------------------------ */

static outcome outcome_of(outr_str status, bool empty_is_success)
{
    if (outr_str_is(status, "SUCCESS") || (status.n == 0 && empty_is_success))
        return DONE;
    return outr_str_is(status, "DROP") ? DROP : RETRY;
}

static void on_single_answer(delivery *d)
{
    outr_json *body;
    outr_str status = OUTR_STR_NONE;
    if (outr_json_parse(&body, d->arena, d->fetch.answer, NULL) == OUTR_OK)
        status = outr_json_text(body, "status");
    outcome how = outcome_of(status, true);
    decide_all(d, how, how == DROP);
}

static void on_bulk_answer(delivery *d)
{
    outr_json *body, *statuses;
    outr_err err;
    if (outr_json_parse(&body, d->arena, d->fetch.answer, &err) ||
        !(statuses = outr_json_find(body, "statuses"))) {
        decide_all(d, RETRY, false);
        return;
    }
    for (size_t i = 0; i < d->count; i++) {
        outcome how = RETRY;
        for (const outr_json *e = statuses->child; e; e = e->next) {
            if (outr_str_eq(outr_json_text(e, "entryId"), d->messages[i]->id))
                how = outcome_of(outr_json_text(e, "status"), false);
        }
        decide(d, i, how, how == DROP);
    }
    settle_next(d);
}

static void on_answer(outr_op *op)
{
    delivery *d = OUTR_CONTAINER(op, delivery, op);
    int status = d->fetch.status;
    if (op->err.code) {
        OUTR_LOG(d->s->log, WARN, "delivery failed, the message comes again",
                 OUTR_S("topic", d->s->spec.topic), OUTR_ERR(&op->err));
        decide_all(d, RETRY, false);
    } else if (status == 404) {
        OUTR_LOG(d->s->log, ERROR, "the app has no such route, the message is dropped",
                 OUTR_S("topic", d->s->spec.topic), OUTR_S("route", d->path));
        decide_all(d, DROP, false);
    } else if (status < 200 || status > 299) {
        OUTR_LOG(d->s->log, WARN, "the app refused a message, it comes again",
                 OUTR_S("topic", d->s->spec.topic), OUTR_I("status", status));
        decide_all(d, RETRY, false);
    } else if (d->is_bulk) {
        on_bulk_answer(d);
    } else {
        on_single_answer(d);
    }
}

/* ---- to the app ------------------------------------------------------------------------------ */

static delivery *new_delivery(outr_subscription *s, size_t count)
{
    outr_arena *arena = outr_arena_new(DELIVERY_ARENA);
    delivery *d = outr_arena_alloc(arena, sizeof *d);
    d->s = s;
    d->arena = arena;
    d->messages = outr_arena_alloc(arena, count * sizeof *d->messages);
    d->outcomes = outr_arena_alloc(arena, count * sizeof *d->outcomes);
    d->began_ns = outr_loop_now(s->loop);
    s->delivering++;
    return d;
}

static outr_str lower(outr_arena *arena, outr_str s)
{
    char *text = outr_arena_strz(arena, s);
    for (size_t i = 0; i < s.n; i++)
        text[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
    return outr_str_of(text, s.n);
}

static void post(delivery *d, const char *content_type, outr_str body, outr_kvs metadata,
                 outr_str traceparent)
{
    outr_subscription *s = d->s;
    outr_headers *h = &d->fetch.headers;
    d->fetch.method = OUTR_STR("POST");
    d->fetch.target = d->path.n && d->path.p[0] == '/'
                          ? d->path
                          : outr_arena_join(d->arena, OUTR_STR("/"), d->path, OUTR_STR_NONE);
    d->fetch.body = body;
    outr_headers_init(h, d->arena);
    for (size_t i = 0; i < metadata.count; i++) {
        if (outr_header_name_is_valid(metadata.items[i].key) &&
            outr_header_value_is_valid(metadata.items[i].value) &&
            !outr_str_iis(metadata.items[i].key, "content-type"))
            outr_headers_add(h, lower(d->arena, metadata.items[i].key),
                             metadata.items[i].value); /* written in canonical case */
    }
    outr_headers_set(h, OUTR_STR("Content-Type"), outr_str_from(content_type));
    outr_headers_set(h, OUTR_STR("Pubsubname"), s->spec.pubsub);
    if (traceparent.n)
        outr_headers_set(h, OUTR_STR("Traceparent"), traceparent);
    outr_op_init(&d->op, s->loop, NULL, 0, on_answer);
    outr_app_fetch_start(s->app, &d->fetch, &d->op);
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

static void deliver(outr_subscription *s, outr_message_in *msg)
{
    delivery *d = new_delivery(s, 1);
    outr_json *event;
    outr_err err;
    outr_str body = s->is_raw ? outr_envelope_wrap_raw(d->arena, s->spec.pubsub, s->spec.topic,
                                                       msg->data, outr_loop_rand(s->loop))
                              : msg->data;
    d->messages[0] = msg;
    d->count = 1;
    if (outr_json_parse(&event, d->arena, body, &err) ||
        !route(s, d->arena, event, &d->path, &err)) {
        OUTR_LOG(s->log, ERROR, "a message could not be processed", OUTR_S("topic", s->spec.topic),
                 OUTR_ERR(&err));
        decide_all(d, RETRY, false);
        return;
    }
    if (outr_envelope_is_expired(event, outr_loop_unix_ns(s->loop)) || !d->path.p) {
        decide_all(d, DROP, !d->path.p);
        return;
    }
    outr_str trace = outr_json_text(event, "traceparent");
    post(d, "application/cloudevents+json", body, msg->metadata,
         trace.n ? trace : outr_json_text(event, "traceid"));
}

/* ---- bulk ------------------------------------------------------------------------------------ */

static void write_entry(outr_buf *out, const delivery *d, const outr_message_in *msg)
{
    outr_buf_z(out, "{\"entryId\":");
    outr_json_quote(out, msg->id);
    outr_buf_z(out, ",\"event\":");
    if (d->s->is_raw)
        outr_json_quote(out, outr_base64_encode(d->arena, msg->data));
    else
        outr_buf_str(out, msg->data);
    outr_buf_z(out, ",\"metadata\":{");
    for (size_t i = 0; i < msg->metadata.count; i++) {
        if (i)
            outr_buf_char(out, ',');
        outr_json_quote(out, msg->metadata.items[i].key);
        outr_buf_char(out, ':');
        outr_json_quote(out, msg->metadata.items[i].value);
    }
    outr_buf_z(out, "},\"contentType\":");
    outr_str type = !d->s->is_raw         ? OUTR_STR("application/cloudevents+json")
                    : msg->content_type.n ? msg->content_type
                                          : OUTR_STR("application/octet-stream");
    outr_json_quote(out, type);
    outr_buf_char(out, '}');
}

static void post_batch(delivery *d)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(DELIVERY_ARENA / 2);
    char id[OUTR_UUID_LEN + 1];
    outr_rand_uuid(outr_loop_rand(d->s->loop), id);
    outr_buf_z(&out, "{\"entries\":[");
    for (size_t i = 0; i < d->count; i++) {
        if (i)
            outr_buf_char(&out, ',');
        write_entry(&out, d, d->messages[i]);
    }
    outr_buf_printf(&out, "],\"id\":\"%s\",\"metadata\":{\"pubsubName\":", id);
    outr_json_quote(&out, d->s->spec.pubsub);
    outr_buf_z(&out, "},\"pubsubname\":");
    outr_json_quote(&out, d->s->spec.pubsub);
    outr_buf_z(&out, ",\"topic\":");
    outr_json_quote(&out, d->s->spec.topic);
    outr_buf_z(&out, ",\"type\":\"com.dapr.event.sent.bulk\"}");
    d->is_bulk = true;
    post(d, "application/json", outr_arena_str(d->arena, outr_buf_view(&out)), (outr_kvs){0},
         OUTR_STR_NONE);
}

/* What has gathered goes out, one call per route. What fits none is settled alone. */
static void flush_batch(outr_subscription *s)
{
    delivery *current = NULL;
    outr_timer_stop(s->loop, &s->batch_timer);
    size_t count = s->batch_count;
    s->batch_count = 0;
    outr_list batch = s->batch;
    if (count == 0)
        return;
    batch.next->prev = batch.prev->next = &batch; /* the links point at the new head */
    outr_list_init(&s->batch);
    while (!outr_list_is_empty(&batch)) {
        gathered *g = OUTR_LIST_ITEM(outr_list_pop(&batch), gathered, link);
        outr_message_in *msg = g->msg;
        outr_arena *scratch = outr_arena_new(DELIVERY_ARENA);
        outr_json *event = NULL;
        outr_str path = OUTR_STR_NONE;
        outr_err err;
        free(g);
        outr_str body = s->is_raw ? outr_envelope_wrap_raw(scratch, s->spec.pubsub, s->spec.topic,
                                                           msg->data, outr_loop_rand(s->loop))
                                  : msg->data;
        bool is_good =
            !outr_json_parse(&event, scratch, body, &err) && route(s, scratch, event, &path, &err);
        bool is_out =
            is_good && (!path.p || outr_envelope_is_expired(event, outr_loop_unix_ns(s->loop)));
        if (!is_good || is_out) {
            delivery *d = new_delivery(s, 1);
            d->messages[0] = msg;
            d->count = 1;
            decide_all(d, is_good ? DROP : RETRY, is_out && !path.p);
        } else {
            if (current && !outr_str_eq(current->path, path)) {
                post_batch(current);
                current = NULL;
            }
            if (!current) {
                current = new_delivery(s, count);
                current->path = path; /* of the spec: outlives scratch */
            }
            current->messages[current->count++] = msg;
        }
        outr_arena_free(scratch);
    }
    if (current)
        post_batch(current);
}

static void on_batch_time(outr_timer *timer)
{
    flush_batch(OUTR_CONTAINER(timer, outr_subscription, batch_timer));
}

static void gather(outr_subscription *s, outr_message_in *msg)
{
    gathered *g = outr_alloc(sizeof *g);
    g->msg = msg;
    outr_list_push(&s->batch, &g->link);
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
    if (s->spec.is_bulk)
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
    return s->spec.is_bulk ? (size_t)OUTR_MAX(s->spec.bulk_max_messages, OUTR_SUBSCRIPTION_CREDIT)
                           : OUTR_SUBSCRIPTION_CREDIT;
}

void outr_subscription_start(outr_subscription *s)
{
    outr_err err;
    outr_list_init(&s->batch);
    s->batch_timer.fire = on_batch_time;
    s->view = outr_host_pin(s->host, s->loop);
    s->component = outr_view_find(s->view, OUTR_KIND_PUBSUB, s->spec.pubsub);
    if (!s->component) {
        OUTR_LOG(s->log, ERROR, "subscription names a pubsub that is not loaded",
                 OUTR_S("pubsub", s->spec.pubsub), OUTR_S("topic", s->spec.topic));
        return;
    }
    if (!outr_topic_is_allowed(s->component->metadata, "subscriptionScopes", s->settings->app_id,
                               s->spec.topic)) {
        OUTR_LOG(s->log, ERROR, "subscription is not allowed by the component's scopes",
                 OUTR_S("pubsub", s->spec.pubsub), OUTR_S("topic", s->spec.topic));
        return;
    }
    const outr_subscribe req = {.topic = s->spec.topic,
                                .metadata = s->spec.metadata,
                                .loop = s->loop,
                                .credit = credit_of(s),
                                .on_message = on_message,
                                .ctx = s};
    if (s->component->broker->backend->subscribe(s->component->broker, &req, &s->sub, &err)) {
        OUTR_LOG(s->log, ERROR, "subscribing failed", OUTR_S("pubsub", s->spec.pubsub),
                 OUTR_S("topic", s->spec.topic), OUTR_ERR(&err));
        return;
    }
    if (s->is_paused)
        s->component->broker->backend->pause(s->sub, true);
    OUTR_LOG(s->log, INFO, "subscribed", OUTR_S("pubsub", s->spec.pubsub),
             OUTR_S("topic", s->spec.topic));
}

void outr_subscription_pause(outr_subscription *s, bool is_paused)
{
    s->is_paused = is_paused;
    if (s->sub && !s->is_ending)
        s->component->broker->backend->pause(s->sub, is_paused);
}

static void on_unsubscribed(outr_op *op)
{
    outr_subscription *s = OUTR_CONTAINER(op, outr_subscription, closing);
    s->sub = NULL;
    outr_view_unpin(s->view);
    s->view = NULL;
    s->ended(s);
}

/* The broker is left once the app has answered all it was given. */
static void check_ended(outr_subscription *s)
{
    if (!s->is_ending || s->delivering > 0 || outr_op_is_pending(&s->closing))
        return;
    outr_op_init(&s->closing, s->loop, NULL, 0, on_unsubscribed);
    if (s->sub) {
        s->component->broker->backend->unsubscribe(s->sub, &s->closing);
        return;
    }
    outr_op_begin(&s->closing, NULL, NULL);
    outr_op_finish_soon(&s->closing);
}

void outr_subscription_end(outr_subscription *s)
{
    s->is_ending = true;
    if (s->sub)
        s->component->broker->backend->pause(s->sub, true);
    flush_batch(s);
    check_ended(s);
}
