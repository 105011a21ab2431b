#include "blocks/pubsub/envelope.h"

#include "base/clock.h"
#include "base/encode.h"

#define EVENT_MAX (512 * OUTR_MIB)

static outr_str type_only(outr_str content_type)
{
    outr_str type;
    outr_str_cut(content_type, ';', &type);
    return outr_str_trim(type);
}

bool outr_is_cloud_event_type(outr_str content_type)
{
    return outr_str_iis(type_only(content_type), "application/cloudevents+json");
}

bool outr_is_json_type(outr_str content_type)
{
    return outr_str_iis(type_only(content_type), "application/json");
}

bool outr_is_binary_type(outr_str content_type)
{
    return outr_str_iis(type_only(content_type), "application/octet-stream") ||
           outr_str_iis(type_only(content_type), "application/cloudevents+protobuf");
}

static outr_str override_of(const outr_envelope *e, const char *name)
{
    const outr_kv *kv = outr_kvs_find(e->metadata, name);
    return kv ? kv->value : OUTR_STR("");
}

static void put_text(outr_json *event, outr_arena *arena, outr_str key, outr_str value)
{
    outr_json_put(event, key, outr_json_string(arena, value.p ? value : OUTR_STR("")));
}

static outr_str time_text(outr_arena *arena, int64_t now_ns)
{
    char text[40];
    size_t n = outr_time_rfc3339_local(now_ns, text);
    return outr_arena_str(arena, outr_str_of(text, n));
}

static outr_str uuid(outr_arena *arena, outr_rand *rand)
{
    char text[OUTR_UUID_LEN + 1];
    outr_rand_uuid(rand, text);
    return outr_arena_str(arena, outr_str_of(text, OUTR_UUID_LEN));
}

static void put_expiration(outr_json *event, outr_arena *arena, const outr_envelope *e)
{
    int64_t seconds;
    char text[40];
    outr_str ttl = override_of(e, "ttlInSeconds");
    if (e->broker_expires || !outr_str_to_i64(ttl, 1, INT32_MAX, &seconds))
        return;
    size_t n = outr_time_rfc3339(e->now_ns + seconds * (int64_t)OUTR_SEC, text);
    put_text(event, arena, OUTR_STR("expiration"), outr_arena_str(arena, outr_str_of(text, n)));
}

static void put_topic(outr_json *event, outr_arena *arena, const outr_envelope *e)
{
    put_text(event, arena, OUTR_STR("topic"), e->topic);
    put_text(event, arena, OUTR_STR("pubsubname"), e->pubsub);
}

static void put_trace(outr_json *event, outr_arena *arena, const outr_envelope *e)
{
    outr_str id = override_of(e, "cloudevent.traceid"),
             parent = override_of(e, "cloudevent.traceparent"),
             state = override_of(e, "cloudevent.tracestate");
    outr_str trace = parent.n ? parent : id.n ? id : e->traceparent;
    put_text(event, arena, OUTR_STR("traceid"), trace);
    put_text(event, arena, OUTR_STR("traceparent"), trace);
    put_text(event, arena, OUTR_STR("tracestate"), state.n ? state : e->tracestate);
}

static void default_text(outr_json *event, outr_arena *arena, const char *key, outr_str value)
{
    if (!outr_json_find(event, key))
        put_text(event, arena, outr_str_from(key), value);
}

static outr_code keep_event(outr_json **out, outr_arena *arena, const outr_envelope *e,
                            outr_str data, outr_err *err)
{
    static const char *const overridable[] = {"id", "source", "type", "subject"};
    outr_json *event;
    char name[32];
    outr_code rc = outr_json_parse(&event, arena, data, err);
    if (rc)
        return rc;
    if (event->kind != OUTR_JSON_OBJECT)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "a cloud event must be a JSON object");
    default_text(event, arena, "time", time_text(arena, e->now_ns));
    default_text(event, arena, "source", OUTR_STR("Dapr"));
    default_text(event, arena, "type", OUTR_STR("com.dapr.event.sent"));
    default_text(event, arena, "specversion", OUTR_STR("1.0"));
    for (size_t i = 0; i < OUTR_LEN(overridable); i++) {
        snprintf(name, sizeof name, "cloudevent.%s", overridable[i]);
        if (override_of(e, name).n)
            put_text(event, arena, outr_str_from(overridable[i]), override_of(e, name));
    }
    put_topic(event, arena, e);
    bool has_id = outr_json_find(event, "traceid") != NULL,
         has_parent = outr_json_find(event, "traceparent") != NULL;
    outr_str given = has_parent ? outr_json_text(event, "traceparent") : OUTR_STR_NONE;
    if (!has_id)
        put_text(event, arena, OUTR_STR("traceid"), given.p ? given : e->traceparent);
    if (!has_parent)
        put_text(event, arena, OUTR_STR("traceparent"),
                 has_id ? outr_json_text(event, "traceid") : e->traceparent);
    default_text(event, arena, "tracestate", e->tracestate);
    *out = event;
    return OUTR_OK;
}

static void put_data(outr_json *event, outr_arena *arena, outr_str content_type, outr_str data)
{
    outr_json *value;
    if (outr_is_binary_type(content_type)) {
        put_text(event, arena, OUTR_STR("data_base64"), outr_base64_encode(arena, data));
        return;
    }
    if (outr_is_json_type(content_type) && outr_json_parse(&value, arena, data, NULL) == OUTR_OK)
        outr_json_put(event, OUTR_STR("data"), value);
    else
        put_text(event, arena, OUTR_STR("data"), data);
}

static outr_json *make_event(outr_arena *arena, const outr_envelope *e, outr_str data)
{
    outr_json *event = outr_json_new(arena, OUTR_JSON_OBJECT);
    outr_str type = e->content_type.n ? e->content_type : OUTR_STR("text/plain"),
             id = override_of(e, "cloudevent.id");
    outr_str source = override_of(e, "cloudevent.source"), kind = override_of(e, "cloudevent.type"),
             subject = override_of(e, "cloudevent.subject");
    put_text(event, arena, OUTR_STR("id"), id.n ? id : uuid(arena, e->rand));
    put_text(event, arena, OUTR_STR("specversion"), OUTR_STR("1.0"));
    put_text(event, arena, OUTR_STR("datacontenttype"), type);
    put_text(event, arena, OUTR_STR("source"), source.n ? source : e->app_id);
    put_text(event, arena, OUTR_STR("type"), kind.n ? kind : OUTR_STR("com.dapr.event.sent"));
    if (subject.n)
        put_text(event, arena, OUTR_STR("subject"), subject);
    put_text(event, arena, OUTR_STR("time"), time_text(arena, e->now_ns));
    put_topic(event, arena, e);
    put_trace(event, arena, e);
    put_data(event, arena, type, data);
    return event;
}

outr_str outr_envelope_text(outr_arena *arena, const outr_json *event)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(EVENT_MAX);
    outr_json_write(&out, event, OUTR_JSON_SORTED);
    return outr_arena_str(arena, outr_buf_view(&out));
}

outr_code outr_envelope_wrap(outr_str *out, outr_arena *arena, const outr_envelope *e,
                             outr_str data, outr_err *err)
{
    outr_json *event;
    if (outr_is_cloud_event_type(e->content_type)) {
        outr_code rc = keep_event(&event, arena, e, data, err);
        if (rc)
            return rc;
    } else {
        event = make_event(arena, e, data);
    }
    put_expiration(event, arena, e);
    for (size_t i = 0; i < e->fields.count; i++)
        put_text(event, arena, e->fields.items[i].key, e->fields.items[i].value);
    *out = outr_envelope_text(arena, event);
    return OUTR_OK;
}

outr_json *outr_envelope_wrap_raw(outr_arena *arena, outr_str pubsub, outr_str topic, outr_str data,
                                  outr_rand *rand)
{
    outr_json *event = outr_json_new(arena, OUTR_JSON_OBJECT);
    put_text(event, arena, OUTR_STR("id"), uuid(arena, rand));
    put_text(event, arena, OUTR_STR("specversion"), OUTR_STR("1.0"));
    put_text(event, arena, OUTR_STR("datacontenttype"), OUTR_STR("application/octet-stream"));
    put_text(event, arena, OUTR_STR("source"), OUTR_STR("Dapr"));
    put_text(event, arena, OUTR_STR("type"), OUTR_STR("com.dapr.event.sent"));
    put_text(event, arena, OUTR_STR("topic"), topic);
    put_text(event, arena, OUTR_STR("pubsubname"), pubsub);
    put_text(event, arena, OUTR_STR("data_base64"), outr_base64_encode(arena, data));
    return event;
}

bool outr_envelope_is_expired(const outr_json *event, int64_t now_ns)
{
    int64_t at_ns;
    return outr_time_parse_rfc3339(outr_json_text(event, "expiration"), &at_ns) && at_ns < now_ns;
}
