#include "mesh/resolved.h"

#define ARENA_MAX (4 * OUTR_MIB)

/* ---- order ----------------------------------------------------------------------------------- */

static int order_addr(const outr_addr *a, const outr_addr *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->kind == OUTR_ADDR_UNIX)
        return strncmp(a->path, b->path, sizeof a->path);
    int ip = memcmp(a->ip, b->ip, a->kind == OUTR_ADDR_IP4 ? 4 : 16);
    if (ip)
        return ip;
    if (a->scope_id != b->scope_id)
        return a->scope_id < b->scope_id ? -1 : 1;
    return (int)a->port - (int)b->port;
}

bool outr_addr_eq(const outr_addr *a, const outr_addr *b)
{
    return order_addr(a, b) == 0;
}

static int order(const void *a, const void *b)
{
    return order_addr(&((const outr_instance *)a)->addr, &((const outr_instance *)b)->addr);
}

static bool has_same_labels(const outr_instance *a, const outr_instance *b)
{
    if (a->labels.count != b->labels.count)
        return false;
    for (size_t i = 0; i < a->labels.count; i++) {
        const outr_kv *other = outr_kvs_find_exact(b->labels, a->labels.items[i].key);
        if (!other || !outr_str_eq(other->value, a->labels.items[i].value))
            return false;
    }
    return true;
}

static bool is_same(const outr_instance *a, size_t a_count, const outr_instance *b, size_t b_count)
{
    if (a_count != b_count)
        return false;
    for (size_t i = 0; i < a_count; i++) {
        if (!outr_addr_eq(&a[i].addr, &b[i].addr) || !outr_str_eq(a[i].id, b[i].id) ||
            !has_same_labels(&a[i], &b[i]))
            return false;
    }
    return true;
}

/* ---- the set --------------------------------------------------------------------------------- */

void outr_resolved_init(outr_resolved *set)
{
    *set = (outr_resolved){0};
    outr_list_init(&set->watchers);
}

void outr_resolved_done(outr_resolved *set)
{
    OUTR_LIST_EACH(link, &set->watchers) {
        outr_link_remove(link);
    }
    outr_arena_free(set->arena);
    *set = (outr_resolved){0};
}

static outr_kvs copy_labels(outr_arena *arena, outr_kvs from)
{
    outr_kv *items = outr_arena_alloc(arena, (from.count + 1) * sizeof *items);
    for (size_t i = 0; i < from.count; i++)
        items[i] = (outr_kv){outr_arena_str(arena, from.items[i].key),
                             outr_arena_str(arena, from.items[i].value)};
    return (outr_kvs){items, from.count};
}

bool outr_resolved_put(outr_resolved *set, const outr_instance *instances, size_t count)
{
    const outr_instance *before = set->instances;
    outr_arena *former = set->arena;
    size_t before_count = set->count, n = 0;
    if (count == 0)
        return false;
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    outr_instance *sorted = outr_arena_alloc(arena, count * sizeof *sorted);
    memcpy(sorted, instances, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, order);
    for (size_t i = 0; i < count && n < OUTR_RESOLVED_MAX; i++) {
        sorted[i].labels.count = OUTR_MIN(sorted[i].labels.count, (size_t)OUTR_RESOLVED_LABELS);
        if (n == 0 || !outr_addr_eq(&sorted[n - 1].addr, &sorted[i].addr))
            sorted[n++] = sorted[i];
    }
    if (is_same(sorted, n, before, before_count)) {
        outr_arena_free(arena);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        sorted[i].id = outr_arena_str(arena, sorted[i].id);
        sorted[i].labels = copy_labels(arena, sorted[i].labels);
    }
    set->instances = sorted;
    set->count = n;
    set->arena = arena;
    set->generation++;
    OUTR_LIST_EACH(link, &set->watchers) {
        outr_resolved_watcher *w = OUTR_LIST_ITEM(link, outr_resolved_watcher, link);
        w->changed(w, set, before, before_count);
    }
    outr_arena_free(former);
    return true;
}

void outr_resolved_watch(outr_resolved *set, outr_resolved_watcher *watcher)
{
    outr_list_push(&set->watchers, &watcher->link);
}

void outr_resolved_unwatch(outr_resolved_watcher *watcher)
{
    outr_link_remove(&watcher->link);
}

const outr_instance *outr_resolved_find(const outr_resolved *set, const outr_addr *addr)
{
    const outr_instance key = {.addr = *addr};
    return set->count ? bsearch(&key, set->instances, set->count, sizeof key, order) : NULL;
}

outr_str outr_instance_label(const outr_instance *instance, const char *name)
{
    const outr_kv *label = outr_kvs_find_exact(instance->labels, outr_str_from(name));
    return label ? label->value : OUTR_STR_NONE;
}
