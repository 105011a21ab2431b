/* envelope - CloudEvents 1.0 as Dapr wraps and unwraps them. Source: contract/pubsub.md. Pure: time
 * and randomness are arguments. */
#ifndef OUTR_BLOCKS_PUBSUB_ENVELOPE_H
#define OUTR_BLOCKS_PUBSUB_ENVELOPE_H

#include "base/json.h"
#include "base/map.h"
#include "base/rand.h"

typedef struct outr_envelope {
    outr_str pubsub, topic, app_id;
    outr_str content_type;
    outr_kvs metadata;                /* of the request: cloudevent.* overrides */
    outr_str traceparent, tracestate; /* of the span; empty when there is none */
    int64_t now_ns;                   /* unix */
    outr_kvs fields;                  /* put over the event's own at the end */
    bool broker_expires;              /* the broker knows ttlInSeconds itself */
    outr_rand *rand;
} outr_envelope;

/* The event for data, as JSON text on arena. INVALID_ARGUMENT: content type says event, body is
 * none. */
outr_code outr_envelope_wrap(outr_str *out, outr_arena *arena, const outr_envelope *e,
                             outr_str data, outr_err *err);
outr_str outr_envelope_text(outr_arena *arena, const outr_json *event);
/* A raw message as the app gets it (rawPayload subscriptions). */
outr_json *outr_envelope_wrap_raw(outr_arena *arena, outr_str pubsub, outr_str topic, outr_str data,
                                  outr_rand *rand);
bool outr_is_cloud_event_type(outr_str content_type);
bool outr_is_json_type(outr_str content_type);
bool outr_is_binary_type(outr_str content_type);
/* The event's expiration has passed. */
bool outr_envelope_is_expired(const outr_json *event, int64_t now_ns);

#endif
