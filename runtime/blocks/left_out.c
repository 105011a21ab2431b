#include "blocks/left_out.h"

#define PAUSE_MIN ((uint64_t)1 * OUTR_SEC)
#define PAUSE_MAX ((uint64_t)30 * OUTR_SEC)

outr_left_out *outr_left_out_find(const outr_list *list, const outr_component_spec *spec)
{
    OUTR_LIST_EACH(link, list) {
        outr_left_out *entry = OUTR_LIST_ITEM(link, outr_left_out, link);
        if (entry->spec == spec)
            return entry;
    }
    return NULL;
}

static uint64_t pause_after(uint32_t failures, outr_rand *rand)
{
    uint64_t pause = PAUSE_MIN;
    for (uint32_t i = 1; i < failures && pause < PAUSE_MAX; i++)
        pause *= 2;
    pause = OUTR_MIN(pause, PAUSE_MAX);
    return pause - outr_rand_below(rand, pause / 4);
}

bool outr_left_out_failed(outr_list *list, const outr_snapshot *snapshot,
                          const outr_component_spec *spec, const outr_err *err, bool is_final,
                          uint64_t now, outr_rand *rand)
{
    outr_left_out *entry = outr_left_out_find(list, spec);
    bool is_news = !entry || strcmp(entry->err.text, err->text) != 0;
    if (!entry) {
        entry = outr_alloc(sizeof *entry);
        entry->spec = spec;
        entry->snapshot = outr_snapshot_ref(snapshot);
        outr_list_push(list, &entry->link);
    }
    entry->err = *err;
    entry->failures++;
    entry->due_ns = is_final ? UINT64_MAX : now + pause_after(entry->failures, rand);
    return is_news;
}

uint64_t outr_left_out_due(const outr_list *list)
{
    uint64_t due = UINT64_MAX;
    OUTR_LIST_EACH(link, list)
        due = OUTR_MIN(due, OUTR_LIST_ITEM(link, outr_left_out, link)->due_ns);
    return due;
}

void outr_left_out_drop(outr_left_out *entry)
{
    outr_link_remove(&entry->link);
    outr_snapshot_unref(entry->snapshot);
    free(entry);
}

void outr_left_out_forget(outr_list *list, outr_str name)
{
    OUTR_LIST_EACH(link, list) {
        outr_left_out *entry = OUTR_LIST_ITEM(link, outr_left_out, link);
        if (outr_str_eq(entry->spec->base.name, name))
            outr_left_out_drop(entry);
    }
}

void outr_left_out_clear(outr_list *list)
{
    OUTR_LIST_EACH(link, list)
        outr_left_out_drop(OUTR_LIST_ITEM(link, outr_left_out, link));
}

outr_kvs outr_left_out_copy(const outr_list *list)
{
    size_t n = 0, bytes = 0;
    OUTR_LIST_EACH(link, list) {
        const outr_left_out *entry = OUTR_LIST_ITEM(link, outr_left_out, link);
        bytes += entry->spec->base.name.n + strlen(entry->err.text);
        n++;
    }
    if (n == 0)
        return (outr_kvs){0};
    outr_kv *items = outr_alloc(n * sizeof *items + bytes);
    char *text = (char *)(items + n);
    n = 0;
    OUTR_LIST_EACH(link, list) {
        const outr_left_out *entry = OUTR_LIST_ITEM(link, outr_left_out, link);
        const outr_str name = entry->spec->base.name, why = outr_str_from(entry->err.text);
        memcpy(text, name.p, name.n);
        memcpy(text + name.n, why.p, why.n);
        items[n++] = (outr_kv){outr_str_of(text, name.n), outr_str_of(text + name.n, why.n)};
        text += name.n + why.n;
    }
    return (outr_kvs){items, n};
}
