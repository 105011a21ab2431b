/* event - a CloudEvent's envelope as the messages that gRPC apps and streams get. Pure; memory is
 * the delivery's. Source: contract/pubsub.md "gRPC delivery". */
#ifndef OUTR_BLOCKS_PUBSUB_EVENT_H
#define OUTR_BLOCKS_PUBSUB_EVENT_H

#include <dapr/proto/runtime/v1/appcallback.pb-c.h>

#include "blocks/pubsub/delivery.h"

/* Of a delivery of one message. */
void outr__event_request(Dapr__Proto__Runtime__V1__TopicEventRequest *out,
                         const outr__delivery *d);
Dapr__Proto__Runtime__V1__TopicEventCERequest *outr__event_ce(outr_arena *arena,
                                                              const outr_json *event);
/* SUCCESS, DROP; RETRY and whatever else there may be. */
outr__outcome outr__outcome_of_status(int status);

#endif
