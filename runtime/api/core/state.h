/* state - the state API's operations, once: the front ends translate. Source: contract/state.md,
 * error-codes.csv.
 *
 * A call goes: fill core, what and store_name; outr_core_state_begin (the store is looked for
 * before anything else of the request is judged); outr_core_state_reserve; fill get or writes;
 * outr_core_state_start. The vtable's own items are the request, so that nothing is copied between
 * here and the backend.
 * Errors (see core.h):
 *   STATE_NOT_CONFIGURED, STATE_NOT_FOUND   no store at all, not this one
 *   STATE_TRANSACTIONS_NOT_SUPPORTED        with Help and ResourceInfo
 *   STATE_QUERYING_NOT_SUPPORTED            with ResourceInfo; also of KEYS and DROP
 *   STATE_QUERY_FAILED                      no query, or the store failed; with ResourceInfo
 *   STATE_ILLEGAL_KEY                       "||" in a key: BadRequest and ResourceInfo
 *   STATE_TOO_MANY_TRANSACTIONS             with both counts
 *   PUBSUB_OUTBOX                           the events of a transaction could not be sent
 *   STATE_GET (also KEYS), STATE_BULK_GET, STATE_TRANSACTION           the store failed
 *   STATE_SAVE, STATE_DELETE, STATE_BULK_DELETE    likewise; code ABORTED: the etag is another,
 *                                           INVALID_ARGUMENT: it is none (save: or a key is empty)
 */
#ifndef OUTR_API_CORE_STATE_H
#define OUTR_API_CORE_STATE_H

#include "api/core/core.h"
#include "base/json.h"
#include "blocks/outbox/outbox.h"
#include "resiliency/guarded.h"

typedef enum outr_core_state_what {
    OUTR_CORE_STATE_GET,
    OUTR_CORE_STATE_BULK_GET,
    OUTR_CORE_STATE_SAVE, /* one or many */
    OUTR_CORE_STATE_DELETE,
    OUTR_CORE_STATE_BULK_DELETE, /* over gRPC only */
    OUTR_CORE_STATE_TRANSACT,
    OUTR_CORE_STATE_QUERY,
    OUTR_CORE_STATE_KEYS, /* beyond Dapr: the keys that begin with a text */
    OUTR_CORE_STATE_DROP, /* beyond Dapr: all of them deleted */
} outr_core_state_what;

typedef struct outr_core_state {
    /* in, before begin */
    outr_core core;
    outr_core_state_what what;
    outr_str store_name;
    const outr_trace *trace; /* of this hop: events of transactions tell it; may be NULL */
    /* in, between reserve and start; arena and is_atomic are filled by start. Keys are the
     * client's; start puts the stored ones in their place. */
    outr_state_get get;       /* GET: one item, BULK_GET: any number. Out: the items' rest; in bulk
                                 reads an item's err.code tells that this one failed */
    outr_state_writes writes; /* the others, DELETE one item. kind is set by start, for transactions
                                 by outr_core_state_operation */
    /* The last three, without reserve. KEYS: prefix (the client's), after, limit. DROP: prefix. */
    union {
        outr_state_query query;
        outr_state_keys keys;
        outr_state_drop drop;
    };
    /* Bulk reads side by side in stores that know one key only; every store of ours reads many at
     * once, so it is not looked at. 0: as many as there are. */
    int32_t parallelism;
    /* out */
    outr_details details;
    /* machinery */
    const outr_component *store;
    outr_str key; /* the client's: of the first item */
    size_t prefix_n;
    outr_outbox_send *outbox; /* of a transaction in a store that has one */
    outr_guarded guarded;
    outr_op inner;
    outr_op *op;
    uint64_t began_ns;
} outr_core_state;

/* The store, and whether it can do it. On failure err and call->details are filled. */
outr_code outr_core_state_begin(outr_core_state *call, outr_err *err);

/* "strong", "eventual"; anything else is unset. */
outr_consistency outr_core_state_consistency(outr_str text);
/* Room for count items of get or writes, as what says; zeroed. RESOURCE_EXHAUSTED: more than the
 * memory of a request holds. */
outr_code outr_core_state_reserve(outr_core_state *call, size_t count, outr_err *err);
/* A JSON value as what is stored: written again as Go does it (contract/state.md). */
outr_code outr_core_state_encode(outr_core_state *call, outr_state_write *write,
                                 const outr_json *value, outr_err *err);
/* The same for a value that is JSON text. INVALID_ARGUMENT: it is none. */
outr_code outr_core_state_reencode(outr_core_state *call, outr_state_write *write, outr_err *err);
/* Options of a write as text ("first-write", "last-write"; as above); empty: unset. A word that is
 * neither fails as the write would. */
outr_code outr_core_state_options(outr_core_state *call, outr_state_write *write,
                                  outr_str concurrency, outr_str consistency, outr_err *err);
/* "upsert" or "delete" of a transaction; else NOT_SUPPORTED_STATE_OPERATION. */
outr_code outr_core_state_operation(outr_core_state *call, outr_state_write *write,
                                    outr_str operation, outr_err *err);

/* Checks and prefixes the keys, runs and counts it (dapr_component_state_*). Nothing to do (no
 * items) is a success. op->err is the error as the client gets it. */
void outr_core_state_start(outr_core_state *call, outr_op *op);
/* The client's key of item index of a bulk read, of a result of a query, of a key. */
outr_str outr_core_state_name(const outr_core_state *call, size_t index);
/* The query as JSON text; STATE_QUERY_FAILED when it is none. */
outr_code outr_core_state_read_query(outr_core_state *call, outr_str text, outr_err *err);

#endif
