#include "components/pluggable/client.h"

/* What all map<string, string> entries are in protobuf-c. */
typedef struct entry {
    ProtobufCMessage base;
    char *key, *value;
} entry;

char *outr__plug_z(outr__plug_text *text, outr_str s)
{
    if ((s.n > 0 && memchr(s.p, 0, s.n)) || !outr_str_is_utf8(s)) {
        text->is_bad = true;
        s = OUTR_STR_NONE;
    }
    return outr_proto_text(text->arena, s);
}

void *outr__plug_map(outr__plug_text *text, outr_kvs kvs, const ProtobufCMessageDescriptor *type)
{
    entry **list = outr_arena_alloc(text->arena, (kvs.count + 1) * sizeof *list);
    assert(type->sizeof_message == sizeof(entry));
    for (size_t i = 0; i < kvs.count; i++) {
        list[i] = outr_arena_alloc(text->arena, sizeof **list);
        protobuf_c_message_init(type, list[i]);
        list[i]->key = outr__plug_z(text, kvs.items[i].key);
        list[i]->value = outr__plug_z(text, kvs.items[i].value);
    }
    return list;
}

outr_kvs outr__plug_kvs(outr_arena *arena, const void *entries, size_t count)
{
    const entry *const *list = entries;
    outr_kv *items = outr_arena_alloc(arena, (count + 1) * sizeof *items);
    for (size_t i = 0; i < count; i++)
        items[i] = (outr_kv){outr_str_from(list[i]->key), outr_str_from(list[i]->value)};
    return (outr_kvs){items, count};
}

outr_code outr__plug_check(const outr__plug_text *text, outr_err *err)
{
    if (text->is_bad)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "grpc: error while marshaling: a string holds invalid UTF-8 or a NUL");
    return OUTR_OK;
}
