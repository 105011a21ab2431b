/* topics - who may publish and subscribe to what: scopes in a component's metadata. Source:
 * contract/pubsub.md. */
#ifndef OUTR_BLOCKS_PUBSUB_TOPICS_H
#define OUTR_BLOCKS_PUBSUB_TOPICS_H

#include "base/map.h"
#include "config/resource.h"

/* which: "publishingScopes" or "subscriptionScopes" ("app1=t1,t2;app2="). */
bool outr_topic_is_allowed(outr_kvs metadata, const char *which, outr_str app_id, outr_str topic);

/* The broker's name for a topic: behind the namespace when any metadata value of the component has
 * "{namespace}". Written to place when it is another; what is too long for it is cut. */
#define OUTR_TOPIC_MAX 1024
outr_str outr_topic_of_broker(char place[OUTR_TOPIC_MAX], const outr_component_spec *spec,
                              outr_str namespace_, outr_str topic);

#endif
