#include "base/copy.h"

outr_kvs outr_kvs_copy(outr_arena *arena, outr_kvs kvs)
{
    outr_kv *items = outr_arena_alloc(arena, (kvs.count + 1) * sizeof *items);
    for (size_t i = 0; i < kvs.count; i++)
        items[i] = (outr_kv){outr_arena_str(arena, kvs.items[i].key),
                             outr_arena_str(arena, kvs.items[i].value)};
    return (outr_kvs){items, kvs.count};
}

static outr_str put(char **at, outr_str s)
{
    char *text = *at;
    if (s.n)
        memcpy(text, s.p, s.n);
    *at += s.n;
    return outr_str_of(text, s.n);
}

outr_kvs outr_kvs_dup(outr_kvs kvs)
{
    size_t bytes = 0;
    for (size_t i = 0; i < kvs.count; i++)
        bytes += kvs.items[i].key.n + kvs.items[i].value.n;
    if (kvs.count == 0)
        return (outr_kvs){0};
    outr_kv *items = outr_alloc(kvs.count * sizeof *items + bytes);
    char *at = (char *)(items + kvs.count);
    for (size_t i = 0; i < kvs.count; i++) {
        items[i].key = put(&at, kvs.items[i].key);
        items[i].value = put(&at, kvs.items[i].value);
    }
    return (outr_kvs){items, kvs.count};
}

outr_str outr_str_lower(outr_arena *arena, outr_str s)
{
    char *text = outr_arena_strz(arena, s);
    for (size_t i = 0; i < s.n; i++)
        text[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
    return outr_str_of(text, s.n);
}
