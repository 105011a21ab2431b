#include "api/core/metadata.h"

#include <pthread.h>

typedef struct entry {
    outr_str key, value;
} entry;

struct outr_metadata {
    /* A lock: pairs are set a few times in a sidecar's life and read by whoever asks, on any loop.
     */
    pthread_mutex_t lock;
    entry *entries;
    size_t count, cap;
};

outr_metadata *outr_metadata_new(void)
{
    outr_metadata *metadata = outr_alloc(sizeof *metadata);
    pthread_mutex_init(&metadata->lock, NULL);
    return metadata;
}

void outr_metadata_free(outr_metadata *metadata)
{
    if (!metadata)
        return;
    for (size_t i = 0; i < metadata->count; i++) {
        free((void *)metadata->entries[i].key.p);
        free((void *)metadata->entries[i].value.p);
    }
    free(metadata->entries);
    pthread_mutex_destroy(&metadata->lock);
    free(metadata);
}

static outr_str copy(outr_str s)
{
    return outr_str_of(outr_str_dup(s), s.n);
}

static outr_code set_locked(outr_metadata *m, outr_str key, outr_str value, outr_err *err)
{
    for (size_t i = 0; i < m->count; i++) {
        if (outr_str_eq(m->entries[i].key, key)) {
            free((void *)m->entries[i].value.p);
            m->entries[i].value = copy(value);
            return OUTR_OK;
        }
    }
    if (m->count == OUTR_METADATA_KEYS_MAX)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "more than %d metadata keys",
                         OUTR_METADATA_KEYS_MAX);
    if (m->count == m->cap) {
        m->cap = m->cap ? m->cap * 2 : 8;
        m->entries = outr_realloc(m->entries, m->cap * sizeof *m->entries);
    }
    m->entries[m->count++] = (entry){copy(key), copy(value)};
    return OUTR_OK;
}

outr_code outr_metadata_set(outr_metadata *metadata, outr_str key, outr_str value, outr_err *err)
{
    pthread_mutex_lock(&metadata->lock);
    outr_code rc = set_locked(metadata, key, value, err);
    pthread_mutex_unlock(&metadata->lock);
    return rc;
}

outr_kvs outr_metadata_all(outr_metadata *metadata, outr_arena *arena)
{
    pthread_mutex_lock(&metadata->lock);
    outr_kv *items = outr_arena_alloc(arena, (metadata->count + 1) * sizeof *items);
    size_t count = metadata->count;
    for (size_t i = 0; i < count; i++)
        items[i] = (outr_kv){outr_arena_str(arena, metadata->entries[i].key),
                             outr_arena_str(arena, metadata->entries[i].value)};
    pthread_mutex_unlock(&metadata->lock);
    return (outr_kvs){items, count};
}
