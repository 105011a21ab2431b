#include "blocks/pubsub/event.h"

#include "base/encode.h"
#include "blocks/pubsub/envelope.h"

/* Receivers give up on messages nested deeper than 100; a JSON level is three of them. */
#define VALUE_DEPTH_MAX 16
#define VALUE_TEXT_MAX  (64 * OUTR_MIB)

#define STATUS(name)                                                                               \
    DAPR__PROTO__RUNTIME__V1__TOPIC_EVENT_RESPONSE__TOPIC_EVENT_RESPONSE_STATUS__##name

typedef Google__Protobuf__Struct struct_value;
typedef Google__Protobuf__Value any_value;

outr__outcome outr__outcome_of_status(int status)
{
    if (status == STATUS(SUCCESS))
        return OUTR__DONE;
    return status == STATUS(DROP) ? OUTR__DROP : OUTR__RETRY;
}

/* ---- google.protobuf.Struct ------------------------------------------------------------------ */

static outr_str as_json(outr_arena *arena, const outr_json *value)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(VALUE_TEXT_MAX);
    outr_json_write(&out, value, OUTR_JSON_SORTED);
    return outr_arena_str(arena, outr_buf_view(&out));
}

static any_value *new_value(outr_arena *arena, const outr_json *json, int depth);

static struct_value *new_struct(outr_arena *arena, const outr_json *object, int depth,
                                bool (*is_left_out)(outr_str key))
{
    struct_value *out = outr_arena_alloc(arena, sizeof *out);
    google__protobuf__struct__init(out);
    out->fields = outr_arena_alloc(arena, (object->count + 1) * sizeof *out->fields);
    for (const outr_json *m = object->child; m; m = m->next) {
        if (is_left_out && is_left_out(m->key))
            continue;
        Google__Protobuf__Struct__FieldsEntry *entry = outr_arena_alloc(arena, sizeof *entry);
        google__protobuf__struct__fields_entry__init(entry);
        entry->key = outr_proto_text(arena, m->key);
        entry->value = new_value(arena, m, depth);
        out->fields[out->n_fields++] = entry;
    }
    return out;
}

static Google__Protobuf__ListValue *new_list(outr_arena *arena, const outr_json *array, int depth)
{
    Google__Protobuf__ListValue *out = outr_arena_alloc(arena, sizeof *out);
    google__protobuf__list_value__init(out);
    out->values = outr_arena_alloc(arena, (array->count + 1) * sizeof *out->values);
    for (const outr_json *item = array->child; item; item = item->next)
        out->values[out->n_values++] = new_value(arena, item, depth);
    return out;
}

static void set_text(any_value *value, outr_arena *arena, outr_str text)
{
    value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    value->string_value = outr_proto_text(arena, text);
}

static any_value *new_value(outr_arena *arena, const outr_json *json, int depth)
{
    any_value *value = outr_arena_alloc(arena, sizeof *value);
    google__protobuf__value__init(value);
    switch (json->kind) {
    case OUTR_JSON_NULL:
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
        return value;
    case OUTR_JSON_BOOL:
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
        value->bool_value = json->boolean;
        return value;
    case OUTR_JSON_NUMBER:
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
        if (!outr_str_to_double(json->text, &value->number_value)) /* out of range */
            set_text(value, arena, json->text);
        return value;
    case OUTR_JSON_STRING:
        set_text(value, arena, json->text);
        return value;
    case OUTR_JSON_ARRAY:
    case OUTR_JSON_OBJECT:
        break;
    }
    if (depth >= VALUE_DEPTH_MAX) {
        set_text(value, arena, as_json(arena, json));
    } else if (json->kind == OUTR_JSON_ARRAY) {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
        value->list_value = new_list(arena, json, depth + 1);
    } else {
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
        value->struct_value = new_struct(arena, json, depth + 1, NULL);
    }
    return value;
}

/* ---- the event ------------------------------------------------------------------------------- */

static bool has_own_field(outr_str key)
{
    static const char *const names[] = {"id",   "source", "type",       "specversion",
                                        "data", "datacontenttype", "data_base64"};
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (outr_str_is(key, names[i]))
            return true;
    }
    return false;
}

static outr_str data_of(outr_arena *arena, const outr_json *event)
{
    const outr_json *base64 = outr_json_find(event, "data_base64"),
                    *data = outr_json_find(event, "data");
    outr_str type = outr_json_text(event, "datacontenttype"), bytes;
    if (base64 && base64->kind == OUTR_JSON_STRING &&
        outr_base64_decode(arena, base64->text, &bytes))
        return bytes;
    if (!data || data->kind == OUTR_JSON_NULL)
        return OUTR_STR_NONE;
    bool is_json = outr_is_json_type(type) || outr_is_cloud_event_type(type);
    return data->kind == OUTR_JSON_STRING && !is_json ? data->text : as_json(arena, data);
}

static char *field(outr_arena *arena, const outr_json *event, const char *name)
{
    return outr_proto_text(arena, outr_json_text(event, name));
}

void outr__event_request(Dapr__Proto__Runtime__V1__TopicEventRequest *out, const outr__delivery *d)
{
    outr_arena *arena = d->arena;
    const outr_json *event = d->items[0].event;
    dapr__proto__runtime__v1__topic_event_request__init(out);
    out->id = field(arena, event, "id");
    out->source = field(arena, event, "source");
    out->type = field(arena, event, "type");
    out->spec_version = field(arena, event, "specversion");
    out->data_content_type = field(arena, event, "datacontenttype");
    out->data = outr_proto_data(data_of(arena, event));
    out->topic = outr_proto_text(arena, d->s->spec.topic);
    out->pubsub_name = outr_proto_text(arena, d->s->spec.pubsub);
    out->path = outr_proto_text(arena, d->path);
    if (event->kind == OUTR_JSON_OBJECT)
        out->extensions = new_struct(arena, event, 1, has_own_field);
}

Dapr__Proto__Runtime__V1__TopicEventCERequest *outr__event_ce(outr_arena *arena,
                                                              const outr_json *event)
{
    Dapr__Proto__Runtime__V1__TopicEventCERequest *out = outr_arena_alloc(arena, sizeof *out);
    dapr__proto__runtime__v1__topic_event_cerequest__init(out);
    out->id = field(arena, event, "id");
    out->source = field(arena, event, "source");
    out->type = field(arena, event, "type");
    out->spec_version = field(arena, event, "specversion");
    out->data_content_type = field(arena, event, "datacontenttype");
    out->data = outr_proto_data(data_of(arena, event));
    if (event->kind == OUTR_JSON_OBJECT)
        out->extensions = new_struct(arena, event, 1, has_own_field);
    return out;
}
