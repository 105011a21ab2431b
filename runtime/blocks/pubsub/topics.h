/* topics - who may publish and subscribe to what: scopes in a component's metadata. Source:
 * contract/pubsub.md. */
#ifndef OUTR_BLOCKS_PUBSUB_TOPICS_H
#define OUTR_BLOCKS_PUBSUB_TOPICS_H

#include "base/map.h"

/* which: "publishingScopes" or "subscriptionScopes" ("app1=t1,t2;app2="). */
bool outr_topic_is_allowed(outr_kvs metadata, const char *which, outr_str app_id, outr_str topic);

#endif
