#include "base/json.h"
#include "blocks/outbox/outbox.h"
#include "blocks/pubsub/envelope.h"
#include "blocks/pubsub/topics.h"

/* The sending side: events and markers of a transaction. */

bool outr_outbox_read(outr_outbox_spec *out, outr_kvs metadata)
{
    const outr_kv *pubsub = outr_kvs_find(metadata, "outboxPublishPubsub"),
                  *topic = outr_kvs_find(metadata, "outboxPublishTopic"),
                  *internal = outr_kvs_find(metadata, "outboxPubsub"),
                  *discard = outr_kvs_find(metadata, "outboxDiscardWhenMissingState");
    if (!pubsub || !topic || pubsub->value.n == 0 || topic->value.n == 0)
        return false;
    *out = (outr_outbox_spec){.pubsub = pubsub->value, .topic = topic->value};
    out->internal_pubsub = internal && internal->value.n ? internal->value : pubsub->value;
    if (discard)
        outr_str_to_bool(discard->value, &out->discards_unknown);
    return true;
}

outr_str outr__outbox_topic(outr_arena *arena, const outr_component *c, const outr_settings *s,
                            outr_str topic)
{
    outr_str name = outr_arena_printf(arena, OUTR_FMT OUTR_FMT OUTR_FMT "outbox",
                                      OUTR_ARG(s->namespace_), OUTR_ARG(s->app_id),
                                      OUTR_ARG(topic));
    return outr_topic_of_broker(outr_arena_alloc(arena, OUTR_TOPIC_MAX), c->spec, s->namespace_,
                                name);
}

/* ---- events ---------------------------------------------------------------------------------- */

static bool is_projection(const outr_state_write *w)
{
    const outr_kv *kv = outr_kvs_find_exact(w->metadata, OUTR_STR("outbox.projection"));
    bool is = false;
    return w->kind == OUTR_STATE_UPSERT && kv && outr_str_to_bool(kv->value, &is) && is;
}

static outr_str content_type_of(const outr_state_write *w)
{
    const outr_kv *kv = outr_kvs_find(w->metadata, "contentType");
    return w->content_type.n ? w->content_type : kv ? kv->value : OUTR_STR("");
}

/* A text of HTTP without a content type is published as the text it is, anything else as JSON;
 * bytes of gRPC are what they are. */
static outr_str data_of(const outr_state_write *w, outr_arena *arena, outr_str *content_type)
{
    outr_json *value;
    if (w->is_binary || outr_is_json_type(*content_type))
        return w->value;
    if (outr_json_parse(&value, arena, w->value, NULL) == OUTR_OK &&
        value->kind == OUTR_JSON_STRING)
        return value->text;
    if (content_type->n == 0)
        *content_type = OUTR_STR("application/json");
    return w->value;
}

/* Metadata of the item becomes fields of the event, but for those that make it what it is. */
static outr_kvs fields_of(const outr_state_write *w, outr_arena *arena)
{
    outr_kv *items = outr_arena_alloc(arena, (w->metadata.count + 1) * sizeof *items);
    size_t n = 0;
    for (size_t i = 0; i < w->metadata.count; i++) {
        outr_str key = w->metadata.items[i].key;
        if (!outr_str_is(key, "data") && !outr_str_is(key, "id"))
            items[n++] = w->metadata.items[i];
    }
    return (outr_kvs){items, n};
}

/* projection: what is published in place of the value; NULL: the value is. */
static outr_code make_event(outr_outbox_send *s, const outr_state_write *w,
                            const outr_state_write *projection, outr_str id, outr_str topic,
                            outr_publish_item *out, outr_err *err)
{
    const outr_state_write *source = projection ? projection : w;
    char traceparent[OUTR_TRACEPARENT_LEN + 1] = "";
    outr_kv *own_id = outr_arena_alloc(s->arena, sizeof *own_id);
    outr_str content_type = content_type_of(source);
    if (content_type.n == 0)
        content_type = content_type_of(w);
    outr_str data = data_of(source, s->arena, &content_type);
    *own_id = (outr_kv){OUTR_STR("cloudevent.id"), id};
    if (s->trace && s->trace->is_valid)
        outr_trace_write(s->trace, traceparent);
    const outr_envelope e = {
        .pubsub = s->spec.internal_pubsub,
        .topic = topic,
        .app_id = s->settings->app_id,
        .content_type = content_type,
        .metadata = {own_id, 1},
        .fields = fields_of(w, s->arena),
        .traceparent = outr_arena_str(s->arena, outr_str_from(traceparent)),
        .tracestate = s->trace ? s->trace->state : OUTR_STR(""),
        .now_ns = outr_loop_unix_ns(s->op->loop),
        .broker_expires = true, /* what a value's ttl says is not about its event */
        .rand = outr_loop_rand(s->op->loop),
    };
    *out = (outr_publish_item){.content_type = OUTR_STR("application/cloudevents+json"),
                               .entry_id = id};
    return outr_envelope_wrap(&out->data, s->arena, &e, data, err);
}

/* The transaction without projections, with a marker for each event. */
static outr_code prepare(outr_outbox_send *s, outr_err *err)
{
    bool has_events = false;
    for (size_t i = 0; i < s->count; i++)
        has_events |= s->writes[i].kind == OUTR_STATE_UPSERT;
    if (!has_events)
        return OUTR_OK;
    const outr_component *c =
        outr_view_find(s->view, OUTR_KIND_PUBSUB, s->spec.internal_pubsub);
    if (!c)
        return outr_fail(err, OUTR_NOT_FOUND, "pubsub " OUTR_FMT " is not found",
                         OUTR_ARG(s->spec.internal_pubsub));
    outr_str topic = outr__outbox_topic(s->arena, c, s->settings, s->spec.topic);
    if (!outr_topic_is_allowed(c->metadata, "publishingScopes", s->settings->app_id, topic))
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "topic " OUTR_FMT " is not allowed for app id " OUTR_FMT, OUTR_ARG(topic),
                         OUTR_ARG(s->settings->app_id));
    outr_state_write *writes = outr_arena_try(s->arena, (2 * s->count + 1) * sizeof *writes);
    s->publish.items = outr_arena_try(s->arena, (s->count + 1) * sizeof *s->publish.items);
    if (!writes || !s->publish.items)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "too many operations for one request");
    s->broker = c->broker;
    s->publish.topic = topic;
    outr_map *projections = outr_map_new(); /* by key; of several the last */
    outr_arena_defer(s->arena, (void (*)(void *))outr_map_free, projections);
    size_t n = 0, markers = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (is_projection(&s->writes[i]))
            outr_map_put(projections, s->writes[i].key, &s->writes[i]);
        else
            writes[n++] = s->writes[i];
    }
    for (size_t i = 0; i < n; i++) {
        char uuid[OUTR_UUID_LEN + 1];
        if (writes[i].kind != OUTR_STATE_UPSERT)
            continue;
        outr_rand_uuid(outr_loop_rand(s->op->loop), uuid);
        outr_str id = outr_arena_printf(s->arena, "outbox-%s", uuid);
        if (make_event(s, &writes[i], outr_map_get(projections, writes[i].key), id, topic,
                       &s->publish.items[markers], err))
            return err->code;
        writes[n + markers++] = (outr_state_write){
            .kind = OUTR_STATE_UPSERT, .key = id, .value = OUTR_STR("\"0\"")};
    }
    s->publish.count = markers;
    s->writes = writes;
    s->count = n + markers;
    return OUTR_OK;
}

/* ---- out ------------------------------------------------------------------------------------- */

static void on_published(outr_op *inner)
{
    outr_outbox_send *s = OUTR_CONTAINER(inner, outr_outbox_send, inner);
    outr_err err = inner->err;
    for (size_t i = 0; i < s->publish.count && !err.code; i++)
        err = s->publish.items[i].err;
    if (err.code)
        outr_op_fail(s->op, &err);
    else
        outr_op_finish(s->op);
}

static void on_cancel(outr_op *op)
{
    outr_outbox_send *s = op->impl;
    outr_op_cancel(&s->inner, op->err.code);
}

void outr_outbox_send_start(outr_outbox_send *s, outr_op *op)
{
    outr_err err;
    s->op = op;
    s->publish = (outr_publish){0};
    outr_op_begin(op, s, on_cancel);
    if (prepare(s, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    if (s->publish.count == 0) {
        outr_op_finish_soon(op);
        return;
    }
    outr_op_init(&s->inner, op->loop, op, 0, on_published);
    s->broker->backend->publish(s->broker, &s->publish, &s->inner);
}
