#include "base/map.h"

/* An index of slots over an array of entries in insertion order (as Python's dict). */
typedef struct entry {
    uint64_t hash;
    char *key; /* NULL: removed */
    size_t key_n;
    void *value;
} entry;

struct outr_map {
    entry *entries;
    uint32_t used, live, cap; /* entries: handed out, not removed, allocated */
    uint32_t *slots;          /* entry index + 1; 0: free */
    uint32_t slot_count;      /* a power of two */
};

outr_map *outr_map_new(void)
{
    return outr_alloc(sizeof(outr_map));
}

void outr_map_free(outr_map *map)
{
    if (!map)
        return;
    for (uint32_t i = 0; i < map->used; i++)
        free(map->entries[i].key);
    free(map->entries);
    free(map->slots);
    free(map);
}

static uint32_t *find_slot(const outr_map *map, outr_str key, uint64_t hash)
{
    for (uint32_t i = (uint32_t)hash;; i++) {
        uint32_t *s = &map->slots[i & (map->slot_count - 1)];
        const entry *e = *s ? &map->entries[*s - 1] : NULL;
        if (!e || (e->key && e->hash == hash && e->key_n == key.n &&
                   (key.n == 0 || memcmp(e->key, key.p, key.n) == 0)))
            return s;
    }
}

void *outr_map_get(const outr_map *map, outr_str key)
{
    if (!map->slot_count)
        return NULL;
    uint32_t s = *find_slot(map, key, outr_str_hash(key, 0));
    return s ? map->entries[s - 1].value : NULL;
}

/* Drops removed entries and rebuilds the index at twice the live size. */
static void rebuild(outr_map *map)
{
    uint32_t cap = OUTR_MAX(8u, map->live * 2), n = 0;
    entry *entries = outr_alloc(cap * sizeof *entries);
    for (uint32_t i = 0; i < map->used; i++) {
        if (map->entries[i].key)
            entries[n++] = map->entries[i];
    }
    free(map->entries);
    free(map->slots);
    map->entries = entries;
    map->used = n;
    map->cap = cap;
    for (map->slot_count = 16; map->slot_count < cap * 2;)
        map->slot_count *= 2;
    map->slots = outr_alloc(map->slot_count * sizeof *map->slots);
    for (uint32_t i = 0; i < n; i++)
        *find_slot(map, outr_str_of(entries[i].key, entries[i].key_n), entries[i].hash) = i + 1;
}

void *outr_map_put(outr_map *map, outr_str key, void *value)
{
    uint64_t hash = outr_str_hash(key, 0);
    if (map->used == map->cap)
        rebuild(map);
    uint32_t *s = find_slot(map, key, hash);
    if (*s) {
        void *former = map->entries[*s - 1].value;
        map->entries[*s - 1].value = value;
        return former;
    }
    map->entries[map->used++] = (entry){hash, outr_str_dup(key), key.n, value};
    map->live++;
    *s = map->used;
    return NULL;
}

void *outr_map_remove(outr_map *map, outr_str key)
{
    if (!map->slot_count)
        return NULL;
    uint32_t s = *find_slot(map, key, outr_str_hash(key, 0));
    if (!s)
        return NULL;
    entry *e = &map->entries[s - 1];
    void *former = e->value;
    free(e->key);
    e->key =
        NULL; /* its slot stays taken until the next rebuild, so that probing goes on past it */
    map->live--;
    return former;
}

size_t outr_map_count(const outr_map *map)
{
    return map->live;
}

bool outr_map_next(const outr_map *map, size_t *cursor, outr_str *key, void **value)
{
    while (*cursor < map->used) {
        const entry *e = &map->entries[(*cursor)++];
        if (!e->key)
            continue;
        if (key)
            *key = outr_str_of(e->key, e->key_n);
        if (value)
            *value = e->value;
        return true;
    }
    return false;
}

const outr_kv *outr_kvs_find(outr_kvs kvs, const char *key)
{
    for (size_t i = 0; i < kvs.count; i++) {
        if (outr_str_iis(kvs.items[i].key, key))
            return &kvs.items[i];
    }
    return NULL;
}

const outr_kv *outr_kvs_find_exact(outr_kvs kvs, outr_str key)
{
    for (size_t i = 0; i < kvs.count; i++) {
        if (outr_str_eq(kvs.items[i].key, key))
            return &kvs.items[i];
    }
    return NULL;
}

bool outr_kvs_eq(outr_kvs a, outr_kvs b)
{
    bool is_same = a.count == b.count;
    for (size_t i = 0; i < a.count && is_same; i++)
        is_same = outr_str_eq(a.items[i].key, b.items[i].key) &&
                  outr_str_eq(a.items[i].value, b.items[i].value);
    return is_same;
}
