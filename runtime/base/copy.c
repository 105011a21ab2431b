#include "base/copy.h"

outr_kvs outr_kvs_copy(outr_arena *arena, outr_kvs kvs)
{
    outr_kv *items = outr_arena_alloc(arena, (kvs.count + 1) * sizeof *items);
    for (size_t i = 0; i < kvs.count; i++)
        items[i] = (outr_kv){outr_arena_str(arena, kvs.items[i].key),
                             outr_arena_str(arena, kvs.items[i].value)};
    return (outr_kvs){items, kvs.count};
}

outr_str outr_str_lower(outr_arena *arena, outr_str s)
{
    char *text = outr_arena_strz(arena, s);
    for (size_t i = 0; i < s.n; i++)
        text[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
    return outr_str_of(text, s.n);
}
