/* publish - publishing one event or many, once for both front ends. Source: contract/pubsub.md,
 * error-codes.csv.
 *
 * A call goes: fill what is `in`; outr_core_publish_begin; per event fill what
 * outr_core_publish_next gives and outr_core_publish_add it (one event: the same, once);
 * outr_core_publish_start. Errors (see core.h), each with ResourceInfo but PUBSUB_NOT_FOUND:
 *   begin  PUBSUB_NAME_EMPTY, PUBSUB_NOT_FOUND, PUBSUB_TOPIC_NAME_EMPTY,
 *          PUBSUB_METADATA_DESERIALIZATION (rawPayload is no boolean)
 *   add    PUBSUB_MARSHAL_EVENTS (entry id empty or there already), PUBSUB_CLOUD_EVENT_CREATION
 *   start  PUBSUB_FORBIDDEN (scopes), PUBSUB_PUBLISH_MESSAGE (the broker failed)
 * A request that takes too much memory: PUBSUB_PUBLISH_MESSAGE with code RESOURCE_EXHAUSTED. */
#ifndef OUTR_API_CORE_PUBLISH_H
#define OUTR_API_CORE_PUBLISH_H

#include "api/core/core.h"
#include "resiliency/guarded.h"

typedef struct outr_core_publish {
    /* in, before begin */
    outr_core core;
    outr_str pubsub, topic;
    outr_kvs metadata; /* of the request: rawPayload, ttlInSeconds, cloudevent.*, and others */
    const outr_trace *trace; /* of this hop */
    bool is_bulk;
    bool raw_has_trace; /* gRPC: a raw event's metadata gets traceid and tracestate */
    /* out */
    outr_details details;
    bool is_raw;
    /* machinery */
    const outr_component *component;
    outr_publish req;
    outr_publish again; /* what of req failed, of a try after the first */
    size_t *places;     /* of its items in req */
    outr_guarded guarded;
    outr_op attempt;
    outr_op *attempt_of;
    size_t max_count;
    struct outr_map *ids;
    outr_trace *spans; /* of the entries; NULL: nobody wants them */
    outr_str cause; /* of a failure of the whole, in the broker's words */
    outr_op inner;
    outr_op *op;
    uint64_t began_ns;
} outr_core_publish;

/* count: how many events will be added at most. */
outr_code outr_core_publish_begin(outr_core_publish *call, size_t count, outr_err *err);
/* The next event's place, zeroed: data, content_type, and of an entry entry_id and metadata
 * (items not NULL: it has its own, and the request's are put behind them; NULL: it has none, and
 * the request's do not reach it). A lone event has the request's metadata. */
outr_publish_item *outr_core_publish_next(outr_core_publish *call);
/* Takes what next gave: checks it and wraps it into its envelope. */
outr_code outr_core_publish_add(outr_core_publish *call, outr_err *err);
/* Scopes, broker, metrics (dapr_component_pubsub_egress_*). Without events a success, at once.
 * When some events of many went out and others did not, the op succeeds: ask for each. */
void outr_core_publish_start(outr_core_publish *call, outr_op *op);
/* After the op: how many entries there are, and why entry index was not published (n == 0: it was).
 */
size_t outr_core_publish_count(const outr_core_publish *call);
outr_str outr_core_publish_error(const outr_core_publish *call, size_t index);
outr_str outr_core_publish_entry_id(const outr_core_publish *call, size_t index);

/* An error of this call that only a front end can find: reason is PUBSUB_MARSHAL_ENVELOPE (an
 * entry's event is not what its content type says), PUBSUB_UNMARSHAL_EVENTS (the body is no list),
 * PUBSUB_PUBLISH_MESSAGE (the body broke off). Also before begin. Fills err and details. */
outr_code outr_core_publish_fail(outr_core_publish *call, outr_reason reason, const char *why,
                                 outr_err *err);

#endif
