/* metadata - the extended key/value pairs of the metadata API: set by PUT /v1.0/metadata/{key},
 * shared
 * by all loops, lost at exit as in Dapr. */
#ifndef OUTR_API_CORE_METADATA_H
#define OUTR_API_CORE_METADATA_H

#include "base/arena.h"
#include "base/err.h"
#include "base/map.h"

/* What a client may make it grow to. */
#define OUTR_METADATA_KEYS_MAX 1024

typedef struct outr_metadata outr_metadata;

outr_metadata *outr_metadata_new(void);
void outr_metadata_free(outr_metadata *metadata);
/* Copies both. RESOURCE_EXHAUSTED for a new key beyond the cap. Any thread. */
outr_code outr_metadata_set(outr_metadata *metadata, outr_str key, outr_str value, outr_err *err);
/* All pairs in order of their first set, copied to arena. Any thread. */
outr_kvs outr_metadata_all(outr_metadata *metadata, outr_arena *arena);

#endif
