/* store - state.redis: state in Redis, in daprd's layout. Internal to this directory.
 *
 * A key is a hash of `data` and `version`, which counts writes from 1 and is the etag; what was
 * created by a first-write has the field `first-write` too, and is changed only by who shows its
 * etag. With contentType application/json, and RedisJSON in the server, it is a document
 * {"data": value, "version": n} instead. Writes are one script each (script.c), a transaction is
 * one run of it, so that what it checks and what it does are one step. Source: contract/state.md.
 */
#ifndef OUTR_COMPONENTS_STATE_REDIS_STORE_H
#define OUTR_COMPONENTS_STATE_REDIS_STORE_H

#include "components/common/redis/redis.h"
#include "components/state.h"

typedef struct outr__rstore {
    outr_state_store base;
    outr_redis *redis;
    int64_t ttl_s; /* of writes that say none; 0: for ever */
    /* known after open */
    char sha[41];     /* of the script */
    int64_t replicas; /* which a strong write waits for */
    bool has_json, has_search;
    struct outr__rstore_schemas *schemas; /* of queryIndexes, NULL: none */
} outr__rstore;

static inline outr__rstore *outr__rstore_of(outr_state_store *base)
{
    return OUTR_CONTAINER(base, outr__rstore, base);
}

/* Whether an item of this metadata is a JSON document. */
bool outr__rstore_is_json(const outr__rstore *store, outr_kvs metadata);

extern const char outr__rstore_script[];
void outr__rstore_get(outr_state_store *store, outr_state_get *req, outr_op *op);
void outr__rstore_write(outr_state_store *store, outr_state_writes *req, outr_op *op);
void outr__rstore_keys(outr_state_store *store, outr_state_keys *req, outr_op *op);
void outr__rstore_drop(outr_state_store *store, outr_state_drop *req, outr_op *op);
void outr__rstore_share(outr_state_store *store, outr_state_shares *req, outr_op *op);

#endif
