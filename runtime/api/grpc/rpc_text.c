#include <google/protobuf/empty.pb-c.h>

#include "api/grpc/grpc_api.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* Text and maps of text, between messages and the core. */

/* Every map<string, string> has entries of this layout, each under a type name of its own. */
typedef struct entry {
    ProtobufCMessage base;
    char *key, *value;
} entry;

outr_kvs outr_rpc_kvs(outr_arena *arena, const void *entries, size_t count)
{
    entry *const *from = entries;
    if (count == 0)
        return (outr_kvs){0};
    outr_kv *items = outr_arena_alloc(arena, count * sizeof *items);
    for (size_t i = 0; i < count; i++)
        items[i] = (outr_kv){outr_str_from(from[i]->key), outr_str_from(from[i]->value)};
    return (outr_kvs){items, count};
}

void *outr_rpc_entries(outr_arena *arena, const ProtobufCMessageDescriptor *type, outr_kvs kvs)
{
    assert(type->sizeof_message == sizeof(entry));
    entry **pointers = outr_arena_alloc(arena, (kvs.count + 1) * sizeof *pointers),
          *entries = outr_arena_alloc(arena, (kvs.count + 1) * sizeof *entries);
    for (size_t i = 0; i < kvs.count; i++) {
        protobuf_c_message_init(type, &entries[i]);
        entries[i].key = outr_rpc_text(arena, kvs.items[i].key);
        entries[i].value = outr_rpc_text(arena, kvs.items[i].value);
        pointers[i] = &entries[i];
    }
    return pointers;
}

/* Length of the character that text begins with; 0: it begins with none that may be sent. */
static size_t character(outr_str text)
{
    for (size_t n = 1; n <= 4 && n <= text.n; n++) {
        if (text.p[0] && outr_str_is_utf8(outr_str_head(text, n)))
            return n;
    }
    return 0;
}

char *outr_rpc_text(outr_arena *arena, outr_str text)
{
    static const outr_str replacement = OUTR_STR(REPLACEMENT);
    if (text.n == 0)
        return (char *)(uintptr_t)protobuf_c_empty_string;
    if (outr_str_is_utf8(text) && !memchr(text.p, 0, text.n))
        return outr_proto_text(arena, text);
    char *out = outr_arena_alloc(arena, text.n * replacement.n + 1), *at = out;
    while (text.n > 0) {
        size_t n = character(text);
        outr_str part = n ? outr_str_head(text, n) : replacement;
        memcpy(at, part.p, part.n);
        at += part.n;
        text = outr_str_skip(text, n ? n : 1);
    }
    return out;
}

void outr_rpc_reply_empty(outr_grpc_call *call)
{
    const Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;
    outr_grpc_reply(call, &empty);
}
