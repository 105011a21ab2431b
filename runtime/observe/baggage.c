#include "observe/baggage.h"

#include "base/buf.h"
#include "base/encode.h"

/* The next member of a list: what stands before its properties, and all of it. */
static outr_str next_member(outr_str list, outr_str *key, outr_str *value, outr_str *whole)
{
    outr_str first;
    list = outr_str_cut(list, ',', whole);
    *whole = outr_str_trim(*whole);
    outr_str_cut(*whole, ';', &first);
    *value = outr_str_trim(outr_str_cut(first, '=', key));
    *key = outr_str_trim(*key);
    return list;
}

static bool decode(outr_str *value, outr_arena *arena)
{
    return outr_str_find(*value, '%') < 0 || outr_percent_decode(arena, *value, false, value);
}

static bool is_member(outr_str key, outr_str whole)
{
    return key.n > 0 && outr_str_find(whole, '=') >= 0;
}

outr_str outr_baggage_find(outr_str list, outr_str name, outr_arena *arena)
{
    outr_str key, value, whole;
    while (list.p) {
        list = next_member(list, &key, &value, &whole);
        if (outr_str_eq(key, name) && is_member(key, whole) && decode(&value, arena))
            return value.p ? value : OUTR_STR("");
    }
    return OUTR_STR_NONE;
}

static size_t count_members(outr_str list)
{
    outr_str key, value, whole;
    size_t count = 0;
    while (list.p) {
        list = next_member(list, &key, &value, &whole);
        count += is_member(key, whole);
    }
    return count;
}

outr_kvs outr_baggage_members(const outr_headers *headers, outr_arena *arena)
{
    size_t most = 0, count = 0;
    for (size_t i = 0; i < headers->count; i++) {
        if (outr_str_iis(headers->items[i].name, "baggage"))
            most += count_members(headers->items[i].value);
    }
    outr_kv *items = outr_arena_alloc(arena, (most + 1) * sizeof *items);
    for (size_t i = 0; i < headers->count && count < most; i++) {
        outr_str list = headers->items[i].value, key, value, whole;
        if (!outr_str_iis(headers->items[i].name, "baggage"))
            continue;
        while (list.p) {
            list = next_member(list, &key, &value, &whole);
            if (is_member(key, whole) && decode(&value, arena))
                items[count++] = (outr_kv){key, value.p ? value : OUTR_STR("")};
        }
    }
    return (outr_kvs){items, count};
}

outr_str outr_baggage_get(const outr_headers *headers, outr_str name, outr_arena *arena,
                          unsigned *lines)
{
    outr_str found = OUTR_STR_NONE;
    *lines = 0;
    for (size_t i = 0; i < headers->count; i++) {
        if (!outr_str_iis(headers->items[i].name, "baggage"))
            continue;
        ++*lines;
        if (!found.p)
            found = outr_baggage_find(headers->items[i].value, name, arena);
    }
    return found;
}

outr_str outr_baggage_with(const outr_headers *headers, outr_str name, outr_str value,
                           outr_arena *arena)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(2 * OUTR_BAGGAGE_MAX);
    /* baggage-octet but "%" (section 3.3.1.3) */
    outr_str escaped = outr_percent_encode(arena, value, "!#$&'()*+/:<=>?@[]^`{|}");
    outr_str key, said, whole;
    size_t members = 1;
    outr_buf_str(&out, name);
    outr_buf_char(&out, '=');
    outr_buf_str(&out, escaped);
    for (size_t i = 0; i < headers->count; i++) {
        outr_str list = headers->items[i].value;
        if (!outr_str_iis(headers->items[i].name, "baggage"))
            continue;
        while (list.p) {
            list = next_member(list, &key, &said, &whole);
            if (key.n == 0 || outr_str_eq(key, name))
                continue;
            if (members == OUTR_BAGGAGE_MEMBERS_MAX ||
                outr_buf_view(&out).n + 1 + whole.n > OUTR_BAGGAGE_MAX)
                return outr_arena_str(arena, outr_buf_view(&out));
            outr_buf_char(&out, ',');
            outr_buf_str(&out, whole);
            members++;
        }
    }
    return outr_arena_str(arena, outr_buf_view(&out));
}
