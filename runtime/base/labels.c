#include "base/labels.h"

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

static bool is_name(outr_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_plain(s.p[i]))
            return false;
    }
    return s.n > 0 && s.n <= OUTR_LABEL_BYTES_MAX;
}

static bool is_value(outr_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_plain(s.p[i]) && !(s.p[i] && strchr("/+:@", s.p[i])))
            return false;
    }
    return s.n > 0 && s.n <= OUTR_LABEL_BYTES_MAX;
}

outr_code outr_label_check(outr_str name, outr_str value, outr_err *err)
{
    if (!is_name(name))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "\"" OUTR_FMT "\" cannot be a label's name: 1 to 63 letters, digits, -, _ "
                         "and .",
                         OUTR_ARG(outr_str_head(name, 100)));
    if (!is_value(value))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "label " OUTR_FMT ": \"" OUTR_FMT "\" cannot be its value: 1 to 63 "
                         "letters, digits, -, _, ., /, +, : and @",
                         OUTR_ARG(name), OUTR_ARG(outr_str_head(value, 100)));
    return OUTR_OK;
}

/* Puts it where it belongs. False: its name is there already. */
static bool insert(outr_kv *items, size_t count, outr_kv item)
{
    size_t at = count;
    while (at > 0 && outr_str_cmp(items[at - 1].key, item.key) > 0)
        at--;
    if (at > 0 && outr_str_eq(items[at - 1].key, item.key))
        return false;
    memmove(items + at + 1, items + at, (count - at) * sizeof *items);
    items[at] = item;
    return true;
}

outr_code outr_labels_parse(outr_kvs *out, outr_arena *arena, outr_str text, outr_err *err)
{
    outr_kv items[OUTR_LABELS_MAX];
    outr_str rest = outr_str_trim(text), one;
    size_t count = 0;
    if (rest.n == 0)
        rest.p = NULL;
    while (rest.p) {
        outr_kv item;
        rest = outr_str_cut(rest, ',', &one);
        item.value = outr_str_trim(outr_str_cut(one, '=', &item.key));
        item.key = outr_str_trim(item.key);
        if (outr_str_find(one, '=') < 0)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "\"" OUTR_FMT "\" is no label: NAME=VALUE",
                             OUTR_ARG(outr_str_head(one, 100)));
        if (outr_label_check(item.key, item.value, err))
            return OUTR_INVALID_ARGUMENT;
        if (count == OUTR_LABELS_MAX)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "more than %d labels", OUTR_LABELS_MAX);
        if (!insert(items, count, item))
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "label " OUTR_FMT " is there twice",
                             OUTR_ARG(item.key));
        count++;
    }
    outr_kv *kept = outr_arena_alloc(arena, (count + 1) * sizeof *kept);
    for (size_t i = 0; i < count; i++)
        kept[i] =
            (outr_kv){outr_arena_str(arena, items[i].key), outr_arena_str(arena, items[i].value)};
    *out = (outr_kvs){kept, count};
    return OUTR_OK;
}

void outr_labels_write(outr_buf *out, outr_kvs labels)
{
    for (size_t i = 0; i < labels.count; i++)
        outr_buf_printf(out, "%s" OUTR_FMT "=" OUTR_FMT, i ? "," : "",
                        OUTR_ARG(labels.items[i].key), OUTR_ARG(labels.items[i].value));
}

outr_kvs outr_labels_of(outr_arena *arena, outr_kvs any)
{
    outr_kv *items = outr_arena_alloc(arena, OUTR_LABELS_MAX * sizeof *items);
    size_t count = 0;
    for (size_t i = 0; i < any.count && count < OUTR_LABELS_MAX; i++) {
        const outr_kv *kv = &any.items[i];
        if (is_name(kv->key) && is_value(kv->value))
            count +=
                insert(items, count,
                       (outr_kv){outr_arena_str(arena, kv->key), outr_arena_str(arena, kv->value)});
    }
    return (outr_kvs){items, count};
}

bool outr_labels_cover(outr_kvs labels, outr_kvs wanted)
{
    for (size_t i = 0; i < wanted.count; i++) {
        const outr_kv *kv = outr_kvs_find_exact(labels, wanted.items[i].key);
        if (!kv || !outr_str_eq(kv->value, wanted.items[i].value))
            return false;
    }
    return true;
}
