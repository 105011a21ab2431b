/* query - the query API on RediSearch: the indexes that metadata queryIndexes names, and queries
 * over them. Internal to this directory. Source: contract/state.md, redis.io/docs (FT.CREATE,
 * FT.SEARCH). */
#ifndef OUTR_COMPONENTS_STATE_REDIS_QUERY_H
#define OUTR_COMPONENTS_STATE_REDIS_QUERY_H

#include "base/json.h"
#include "components/state/redis/store.h"

/* text: [{"name": ..., "indexes": [{"key": "a.b", "type": "TEXT"}, ...]}, ...] */
outr_code outr__rstore_schemas_new(struct outr__rstore_schemas **out, outr_str text, outr_err *err);
void outr__rstore_schemas_free(struct outr__rstore_schemas *schemas); /* NULL is fine */
size_t outr__rstore_schemas_count(const struct outr__rstore_schemas *schemas);
/* The commands that make index i anew: the first may fail, when there is none. On arena. */
void outr__rstore_schemas_create(const struct outr__rstore_schemas *schemas, size_t i,
                                outr_arena *arena, outr_redis_command out[2]);

/* A query as the arguments of FT.SEARCH, on req->arena. */
typedef struct outr__rstore_search {
    outr_str *args;
    size_t count;
    int64_t limit, offset; /* of its page; limit 0: the server's own */
} outr__rstore_search;
outr_code outr__rstore_search_make(outr__rstore_search *out,
                                   const struct outr__rstore_schemas *schemas,
                                   const outr_state_query *req, outr_err *err);
void outr__rstore_query(outr_state_store *store, outr_state_query *req, outr_op *op);

#endif
