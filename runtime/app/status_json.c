#include "app/status_json.h"

#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>

#include "base/encode.h"
#include "base/json.h"
#include "grpc/proto.h"

#define JSON_MAX (4 * OUTR_MIB)

/* protobuf-c keeps no names by which an Any could be looked up among all messages. */
static const ProtobufCMessageDescriptor *const known[] = {
    &google__rpc__error_info__descriptor,
    &google__rpc__bad_request__descriptor,
    &google__rpc__resource_info__descriptor,
    &google__rpc__help__descriptor,
    &google__rpc__retry_info__descriptor,
    &google__rpc__debug_info__descriptor,
    &google__rpc__quota_failure__descriptor,
    &google__rpc__precondition_failure__descriptor,
    &google__rpc__request_info__descriptor,
    &google__rpc__localized_message__descriptor,
};

static const ProtobufCMessageDescriptor *find(outr_str type_url)
{
    outr_str name = outr_str_skip(type_url, (size_t)(outr_str_rfind(type_url, '/') + 1));
    for (size_t i = 0; i < OUTR_LEN(known); i++) {
        if (outr_str_is(name, known[i]->name))
            return known[i];
    }
    return NULL;
}

static void put_name(outr_buf *out, const char *name, bool *is_first)
{
    outr_buf_char(out, *is_first ? '{' : ',');
    outr_buf_char(out, '"');
    *is_first = false;
    for (const char *c = name; *c; c++) { /* lowerCamelCase: protobuf's JSON mapping */
        if (*c == '_' && c[1] >= 'a' && c[1] <= 'z')
            outr_buf_char(out, (char)(*++c - 32));
        else
            outr_buf_char(out, *c);
    }
    outr_buf_z(out, "\":");
}

static void put_message(outr_buf *out, const ProtobufCMessage *message, bool is_first);

static bool is_map_entry(const ProtobufCMessageDescriptor *type)
{
    return type->n_fields == 2 && strcmp(type->fields[0].name, "key") == 0 &&
           strcmp(type->fields[1].name, "value") == 0 && outr_str_ends(outr_str_from(type->name),
                                                                       OUTR_STR("Entry"));
}

static void put_value(outr_buf *out, const ProtobufCFieldDescriptor *field, const void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)at;
        outr_json_quote(out, outr_str_from(text ? text : ""));
        return;
    }
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *message = *(ProtobufCMessage *const *)at;
        if (message->descriptor == &google__protobuf__duration__descriptor) {
            const Google__Protobuf__Duration *d = (const void *)message;
            outr_buf_printf(out, "\"%lld.%09ds\"", (long long)d->seconds,
                            d->nanos < 0 ? -d->nanos : d->nanos);
            return;
        }
        put_message(out, message, true);
        return;
    }
    case PROTOBUF_C_TYPE_INT64:
        outr_buf_printf(out, "\"%lld\"", (long long)*(const int64_t *)at);
        return;
    default: /* int32: the only other kind that google.rpc's details have */
        outr_buf_printf(out, "%d", *(const int32_t *)at);
    }
}

static void put_map(outr_buf *out, const ProtobufCFieldDescriptor *field, void *const *entries,
                    size_t count)
{
    const ProtobufCMessageDescriptor *entry = field->descriptor;
    for (size_t i = 0; i < count; i++) {
        const char *at = entries[i];
        outr_buf_char(out, i ? ',' : '{');
        put_value(out, &entry->fields[0], at + entry->fields[0].offset);
        outr_buf_char(out, ':');
        put_value(out, &entry->fields[1], at + entry->fields[1].offset);
    }
    outr_buf_char(out, '}');
}

static void put_list(outr_buf *out, const ProtobufCFieldDescriptor *field, void *const *items,
                     size_t count)
{
    for (size_t i = 0; i < count; i++) { /* of strings or messages */
        outr_buf_char(out, i ? ',' : '[');
        put_value(out, field, &items[i]);
    }
    outr_buf_char(out, ']');
}

static bool is_absent(const ProtobufCFieldDescriptor *field, const void *at)
{
    const char *text;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        text = *(char *const *)at;
        return !text || text[0] == 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return !*(void *const *)at;
    case PROTOBUF_C_TYPE_INT64:
        return *(const int64_t *)at == 0;
    default:
        return *(const int32_t *)at == 0;
    }
}

static void put_message(outr_buf *out, const ProtobufCMessage *message, bool is_first)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const char *at = (const char *)message + field->offset;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t count = *(const size_t *)(const void *)((const char *)message +
                                                           field->quantifier_offset);
            void *const *items = *(void *const *const *)(const void *)at;
            if (count == 0)
                continue;
            put_name(out, field->name, &is_first);
            if (field->type == PROTOBUF_C_TYPE_MESSAGE && is_map_entry(field->descriptor))
                put_map(out, field, items, count);
            else
                put_list(out, field, items, count);
        } else if (!is_absent(field, at)) {
            put_name(out, field->name, &is_first);
            put_value(out, field, at);
        }
    }
    outr_buf_z(out, is_first ? "{}" : "}");
}

static void put_any(outr_buf *out, outr_arena *arena, const Google__Protobuf__Any *any)
{
    outr_str url = outr_str_from(any->type_url), value = outr_proto_bytes(any->value);
    const ProtobufCMessageDescriptor *type = find(url);
    void *message;
    outr_buf_z(out, "{\"@type\":");
    outr_json_quote(out, url);
    if (type && outr_proto_read(&message, arena, type, value, NULL) == OUTR_OK) {
        put_message(out, message, false);
        return;
    }
    outr_buf_z(out, ",\"value\":");
    outr_json_quote(out, outr_base64_encode(arena, value));
    outr_buf_char(out, '}');
}

outr_str outr_app_status_json(outr_arena *arena, const outr_grpc_status *status)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(JSON_MAX);
    void *decoded;
    bool is_read = status->details.n > 0 &&
                   outr_proto_read(&decoded, arena, &google__rpc__status__descriptor,
                                   status->details, NULL) == OUTR_OK;
    outr_buf_printf(&out, "{\"code\":%d", (int)status->code);
    if (status->message.n > 0) {
        outr_buf_z(&out, ",\"message\":");
        outr_json_quote(&out, status->message);
    }
    if (is_read && ((const Google__Rpc__Status *)decoded)->n_details > 0) {
        const Google__Rpc__Status *said = decoded;
        outr_buf_z(&out, ",\"details\":");
        for (size_t i = 0; i < said->n_details; i++) {
            outr_buf_char(&out, i ? ',' : '[');
            put_any(&out, arena, said->details[i]);
        }
        outr_buf_char(&out, ']');
    }
    outr_buf_char(&out, '}');
    return outr_arena_str(arena, outr_buf_view(&out));
}
