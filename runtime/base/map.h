/* map - text keys to pointers; open addressing, keyed hash, insertion order when walked.
 *
 * Keys are copied; values are borrowed. Lives on one thread. */
#ifndef OUTR_BASE_MAP_H
#define OUTR_BASE_MAP_H

#include "base/base.h"
#include "base/str.h"

typedef struct outr_map outr_map;

outr_map *outr_map_new(void);
void outr_map_free(outr_map *map);                            /* NULL is fine; values stay */
void *outr_map_get(const outr_map *map, outr_str key);        /* NULL: absent */
void *outr_map_put(outr_map *map, outr_str key, void *value); /* the former value or NULL */
void *outr_map_remove(outr_map *map, outr_str key);           /* the former value or NULL */
size_t outr_map_count(const outr_map *map);
/* Walk: *cursor starts at 0; false at the end. Removing the current item is allowed. */
bool outr_map_next(const outr_map *map, size_t *cursor, outr_str *key, void **value);

/* Name and value lists small enough to scan: metadata of components and requests. */
typedef struct outr_kv {
    outr_str key;
    outr_str value;
} outr_kv;
typedef struct outr_kvs {
    const outr_kv *items;
    size_t count;
} outr_kvs;
const outr_kv *outr_kvs_find(outr_kvs kvs, const char *key); /* ASCII case ignored; NULL: absent */
const outr_kv *outr_kvs_find_exact(outr_kvs kvs, outr_str key);
bool outr_kvs_eq(outr_kvs a, outr_kvs b); /* in the same order */

#endif
