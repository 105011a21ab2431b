/* store - configuration.redis: configuration in Redis, in daprd's layout. Internal to this
 * directory.
 *
 * A key is a string "value||version". Reading is store.c; changes, seen by keyspace notifications,
 * are watch.c. Source: contract/components.csv, redis.io/docs/manual/keyspace-notifications. */
#ifndef OUTR_COMPONENTS_CONFIGURATION_REDIS_STORE_H
#define OUTR_COMPONENTS_CONFIGURATION_REDIS_STORE_H

#include "components/common/redis/redis.h"
#include "components/configuration.h"

#define OUTR__CONFIG_KEYS_MAX 65536 /* of one answer or watch; that one of all may have to tell */

typedef struct outr__config_store {
    outr_configuration_store base;
    outr_redis *redis;
    const outr_log *log;
    outr_str name;
    int64_t db;
} outr__config_store;

static inline outr__config_store *outr__config_store_of(outr_configuration_store *base)
{
    return OUTR_CONTAINER(base, outr__config_store, base);
}

/* RESOURCE_EXHAUSTED: more keys than one answer or watch may have. */
outr_code outr__config_check_count(size_t count, size_t max, outr_err *err);
/* "value||version", and whatever follows a second separator is nothing. */
void outr__config_split(outr_str text, outr_configuration_item *item);
/* Makes call one GET for each key, each with its key's server. False: no memory on arena. */
bool outr__config_ask(outr_arena *arena, outr_redis_call *call, const outr_str *keys,
                      size_t count);

void outr__config_subscribe(outr_configuration_store *store, outr_configuration_subscribe *req,
                            outr_op *op);
void outr__config_go_on(outr_configuration_watch *watch);
void outr__config_unsubscribe(outr_configuration_watch *watch, outr_op *op);

#endif
