#include "blocks/pubsub/delivery.h"
#include "blocks/pubsub/event.h"

/* Events as calls of AppCallback: contract/pubsub.md "gRPC delivery", "Bulk subscribe". */

#define SERVICE       "/dapr.proto.runtime.v1.AppCallback/"
#define ALPHA_SERVICE "/dapr.proto.runtime.v1.AppCallbackAlpha/"

typedef Dapr__Proto__Runtime__V1__TopicEventResponse event_response;
typedef Dapr__Proto__Runtime__V1__TopicEventBulkResponse bulk_response;
typedef Dapr__Proto__Runtime__V1__TopicEventBulkRequestEntry bulk_entry;

static void start(outr__delivery *d, const char *path, const void *message, outr_op_fn *done)
{
    outr_op_init(&d->op, d->s->loop, NULL, 0, done);
    outr_app_unary_start(d->s->app, &d->grpc.unary, path, message, &d->op);
}

/* What the app said instead of an answer. */
static void refused(outr__delivery *d, const outr_err *err)
{
    if (err->code == OUTR_UNIMPLEMENTED) {
        OUTR_LOG(d->s->log, WARN, "the app does not take events of this topic, they are dropped",
                 OUTR_S("topic", d->s->spec.topic), OUTR_ERR(err));
        outr__delivery_decide_all(d, OUTR__IGNORE, false);
        return;
    }
    OUTR_LOG(d->s->log, WARN, "delivery failed, the message comes again",
             OUTR_S("topic", d->s->spec.topic), OUTR_ERR(err));
    outr__delivery_decide_all(d, OUTR__RETRY, false);
}

/* ---- one event ------------------------------------------------------------------------------- */

static void on_answer(outr_op *op)
{
    outr__delivery *d = OUTR_CONTAINER(op, outr__delivery, op);
    event_response *reply;
    outr_err err;
    if (outr_app_unary_result(&d->grpc.unary, &reply,
                              &dapr__proto__runtime__v1__topic_event_response__descriptor, &op->err,
                              &err)) {
        refused(d, &err);
        return;
    }
    outr__outcome how = outr__outcome_of_status((int)reply->status);
    outr__delivery_decide_all(d, how, how == OUTR__DROP);
}

static void write_metadata(outr__delivery *d, const outr__handed *item)
{
    outr_headers *out = &d->grpc.unary.metadata;
    outr_kvs metadata = item->msg->metadata;
    outr_str trace = outr__delivery_traceparent(d, item),
             state = outr_json_text(item->event, "tracestate");
    for (size_t i = 0; i < metadata.count; i++) {
        outr_kv kv = metadata.items[i];
        if (outr_header_name_is_valid(kv.key) && outr_header_value_is_valid(kv.value) &&
            !outr_str_istarts(kv.key, OUTR_STR("grpc-")) && !outr_grpc_is_bin(kv.key) &&
            !outr_str_iis(kv.key, "content-type") && !outr_str_iis(kv.key, "te"))
            outr_headers_add(out, kv.key, kv.value);
    }
    if (trace.n && outr_header_value_is_valid(trace)) {
        outr_headers_set(out, OUTR_STR("traceparent"), trace);
        outr_app_add_trace_bin(out, trace);
        if (state.n && outr_header_value_is_valid(state))
            outr_headers_set(out, OUTR_STR("tracestate"), state);
    }
}

static void prepare(outr__delivery *d)
{
    d->grpc.unary = (outr_app_unary){.arena = d->arena};
    outr_headers_init(&d->grpc.unary.metadata, d->arena);
}

static void hand_over(outr__delivery *d)
{
    Dapr__Proto__Runtime__V1__TopicEventRequest event;
    prepare(d);
    write_metadata(d, &d->items[0]);
    outr__event_request(&event, d);
    start(d, SERVICE "OnTopicEvent", &event, on_answer);
}

/* ---- a batch --------------------------------------------------------------------------------- */

static void send_batch(outr__delivery *d);

/* Most apps answer in the order they were asked in. */
static outr__outcome outcome_of_entry(const bulk_response *reply, outr_str id, size_t at)
{
    if (at < reply->n_statuses && outr_str_is(id, reply->statuses[at]->entry_id))
        return outr__outcome_of_status((int)reply->statuses[at]->status);
    for (size_t i = 0; i < reply->n_statuses; i++) {
        if (outr_str_is(id, reply->statuses[i]->entry_id))
            return outr__outcome_of_status((int)reply->statuses[i]->status);
    }
    return OUTR__RETRY; /* not spoken of */
}

static void on_batch_answer(outr_op *op)
{
    outr__delivery *d = OUTR_CONTAINER(op, outr__delivery, op);
    outr_subscription *s = d->s;
    bulk_response *reply;
    outr_err err;
    if (outr_app_unary_result(&d->grpc.unary, &reply,
                              &dapr__proto__runtime__v1__topic_event_bulk_response__descriptor,
                              &op->err, &err)) {
        if (err.code == OUTR_UNIMPLEMENTED && !d->grpc.is_second_name) {
            d->grpc.is_second_name = true;
            s->bulk_has_old_name = !d->grpc.has_old_name;
            send_batch(d);
            return;
        }
        refused(d, &err);
        return;
    }
    for (size_t i = 0; i < d->count; i++) {
        outr__outcome how = outcome_of_entry(reply, d->items[i].id, i);
        outr__delivery_decide(d, i, how, how == OUTR__DROP);
    }
    outr__delivery_decided(d);
}

typedef Dapr__Proto__Runtime__V1__TopicEventBulkRequestEntry__MetadataEntry entry_metadata;

static void fill_metadata(bulk_entry *entry, outr_arena *arena, outr_kvs metadata)
{
    entry->metadata = outr_arena_alloc(arena, (metadata.count + 1) * sizeof *entry->metadata);
    for (size_t i = 0; i < metadata.count; i++) {
        entry_metadata *m = outr_arena_alloc(arena, sizeof *m);
        dapr__proto__runtime__v1__topic_event_bulk_request_entry__metadata_entry__init(m);
        m->key = outr_proto_text(arena, metadata.items[i].key);
        m->value = outr_proto_text(arena, metadata.items[i].value);
        if (outr_str_is_utf8(metadata.items[i].key) && outr_str_is_utf8(metadata.items[i].value))
            entry->metadata[entry->n_metadata++] = m;
    }
}

static bulk_entry *new_entry(outr__delivery *d, const outr__handed *item)
{
    outr_arena *arena = d->arena;
    const outr_message_in *msg = item->msg;
    bulk_entry *entry = outr_arena_alloc(arena, sizeof *entry);
    dapr__proto__runtime__v1__topic_event_bulk_request_entry__init(entry);
    entry->entry_id = outr_proto_text(arena, item->id);
    fill_metadata(entry, arena, msg->metadata);
    if (d->s->is_raw) {
        entry->event_case = DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_REQUEST_ENTRY__EVENT_BYTES;
        entry->bytes = outr_proto_data(msg->data);
        entry->content_type = outr_proto_text(
            arena, msg->content_type.n ? msg->content_type : OUTR_STR("application/octet-stream"));
    } else {
        entry->event_case =
            DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_REQUEST_ENTRY__EVENT_CLOUD_EVENT;
        entry->cloud_event = outr__event_ce(arena, item->event);
        entry->content_type = (char *)(uintptr_t) "application/cloudevents+json";
    }
    return entry;
}

static void send_batch(outr__delivery *d)
{
    const outr_subscription_spec *spec = &d->s->spec;
    Dapr__Proto__Runtime__V1__TopicEventBulkRequest request =
        DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_REQUEST__INIT;
    Dapr__Proto__Runtime__V1__TopicEventBulkRequest__MetadataEntry about =
        DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_BULK_REQUEST__METADATA_ENTRY__INIT;
    Dapr__Proto__Runtime__V1__TopicEventBulkRequest__MetadataEntry *metadata[] = {&about};
    char id[OUTR_UUID_LEN + 1];
    prepare(d);
    outr_rand_uuid(outr_loop_rand(d->s->loop), id);
    about.key = (char *)(uintptr_t) "pubsubName";
    about.value = outr_proto_text(d->arena, spec->pubsub);
    request.id = id;
    request.metadata = metadata;
    request.n_metadata = 1;
    request.topic = outr_proto_text(d->arena, spec->topic);
    request.pubsub_name = about.value;
    request.type = (char *)(uintptr_t) "com.dapr.event.sent.bulk";
    request.path = outr_proto_text(d->arena, d->path);
    request.n_entries = d->count;
    request.entries = outr_arena_alloc(d->arena, d->count * sizeof *request.entries);
    for (size_t i = 0; i < d->count; i++)
        request.entries[i] = new_entry(d, &d->items[i]);
    d->grpc.has_old_name = d->s->bulk_has_old_name;
    start(d,
          d->grpc.has_old_name ? ALPHA_SERVICE "OnBulkTopicEventAlpha1"
                               : SERVICE "OnBulkTopicEvent",
          &request, on_batch_answer);
}

static void give_up(outr__delivery *d)
{
    outr_op_cancel(&d->op, OUTR_CANCELLED);
}

const outr__deliverer outr__deliver_grpc = {
    .hand_over = hand_over, .hand_over_batch = send_batch, .give_up = give_up};
