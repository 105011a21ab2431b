/* state - vtable of state stores. Source: contract/state.md.
 *
 * Keys come with their prefix already put on. Requests and results lie on the caller's arena until
 * the op is done. Errors: ABORTED etag mismatch, INVALID_ARGUMENT unusable etag, else INTERNAL or
 * UNAVAILABLE. The engine fills missing functions with generic ones, so none is NULL after
 * registration. */
#ifndef OUTR_COMPONENTS_STATE_H
#define OUTR_COMPONENTS_STATE_H

#include "components/component.h"

typedef struct outr_state_store outr_state_store;

/* Names in metadata: capabilities. */
enum {
    OUTR_STATE_ETAG = 1,           /* "ETAG" */
    OUTR_STATE_TRANSACTIONAL = 2,  /* "TRANSACTIONAL" */
    OUTR_STATE_QUERY = 4,          /* "QUERY_API" */
    OUTR_STATE_TTL = 8,            /* "TTL" */
    OUTR_STATE_DELETE_PREFIX = 16, /* "DELETE_WITH_PREFIX" */
    OUTR_STATE_KEYS_LIKE = 32,     /* "KEYS_LIKE" */
};

typedef enum outr_concurrency {
    OUTR_CONCURRENCY_UNSET,
    OUTR_FIRST_WRITE,
    OUTR_LAST_WRITE
} outr_concurrency;
typedef enum outr_consistency {
    OUTR_CONSISTENCY_UNSET,
    OUTR_EVENTUAL,
    OUTR_STRONG
} outr_consistency;

typedef struct outr_state_item { /* a read */
    outr_str key;                /* in */
    bool is_found;               /* out, all below too */
    outr_str value, etag;
    outr_str ttl_expire_time; /* RFC 3339 or NONE: metadata ttlExpireTime */
    outr_err err;             /* of this item alone; the op then succeeds all the same */
} outr_state_item;

typedef struct outr_state_get {
    outr_arena *arena; /* results are made here, on the op's loop */
    outr_consistency consistency;
    outr_kvs metadata;
    outr_state_item *items; /* one for get, many for bulk get */
    size_t count;
} outr_state_get;

typedef struct outr_state_write { /* upsert or delete */
    enum { OUTR_STATE_UPSERT, OUTR_STATE_DELETE } kind;
    outr_str key, value;
    bool is_binary; /* value came as bytes (gRPC): stored as is, base64 where text is needed */
    bool has_etag;
    outr_str etag;
    outr_concurrency concurrency;
    outr_consistency consistency;
    outr_str content_type;
    outr_kvs metadata; /* ttlInSeconds and others */
} outr_state_write;

typedef struct outr_state_writes {
    outr_arena *arena;
    bool is_atomic; /* a transaction: all or nothing */
    outr_kvs metadata;
    outr_state_write *items;
    size_t count;
} outr_state_writes;

/* The keys that begin with a prefix, page by page. A key that comes or goes meanwhile may be in or
 * not; one that stays is in. */
typedef struct outr_state_keys {
    outr_arena *arena;
    outr_str prefix;
    outr_str after; /* `next` of the page before; empty: from the beginning */
    size_t limit;   /* of a page; a store may give some more or fewer */
    outr_str *keys; /* out */
    size_t count;
    outr_str next; /* empty: that was all */
} outr_state_keys;

typedef struct outr_state_drop {
    outr_str prefix;
    uint64_t deleted; /* out */
} outr_state_drop;

/* What several members that use one thing together ask of it, for a short time: who asks again in
 * time is counted, who does not is forgotten. */
typedef struct outr_state_share {
    outr_str key;
    double asked;     /* in: what the member would use, in any unit */
    double others;    /* out: what the others ask for together */
    uint64_t sharers; /* out: how many they are */
    outr_err err;     /* of this one alone */
} outr_state_share;

typedef struct outr_state_shares {
    outr_arena *arena;
    outr_str member;   /* whoever asks, the same each time */
    uint64_t lasts_ns; /* how long it is counted */
    outr_state_share *items;
    size_t count;
} outr_state_shares;

/* The same for who does not know the stores. */
typedef struct outr_state_share_call {
    outr_str store; /* a component's name */
    outr_state_shares shares;
    /* machinery */
    void *pin;
    outr_op inner;
    outr_op *op;
} outr_state_share_call;
typedef void outr_state_share_fn(void *ctx, outr_state_share_call *call, outr_op *op);

/* contract/state.md, Query. */
typedef struct outr_state_query {
    outr_arena *arena;
    const struct outr_json *query; /* an object: filter, sort, page */
    outr_kvs metadata;
    outr_state_item *items; /* out: key, value, etag, err */
    size_t count;
    outr_str token; /* out: of the next page; empty: none */
} outr_state_query;

typedef struct outr_state_backend {
    outr_backend base;
    outr_code (*create)(outr_state_store **out, const outr_component_init *init,
                        outr_err *err);                  /* checks metadata; no I/O */
    void (*open)(outr_state_store *store, outr_op *op);  /* connects, migrates */
    void (*close)(outr_state_store *store, outr_op *op); /* then frees store */
    unsigned (*features)(const outr_state_store *store);
    void (*get)(outr_state_store *store, outr_state_get *req, outr_op *op);
    void (*write)(outr_state_store *store, outr_state_writes *req,
                  outr_op *op); /* op fails with the first item's error */
    size_t max_transaction;     /* operations; 0: no limit */
    /* Beyond what Dapr's API asks for; NULL: not offered. */
    void (*keys)(outr_state_store *store, outr_state_keys *req, outr_op *op);
    /* All keys that begin with it; not one step in every store. */
    void (*drop)(outr_state_store *store, outr_state_drop *req, outr_op *op);
    /* In one step for each key, so that members see each other. */
    void (*share)(outr_state_store *store, outr_state_shares *req, outr_op *op);
    /* Called when features() has OUTR_STATE_QUERY only. INVALID_ARGUMENT: no such query. */
    void (*query)(outr_state_store *store, outr_state_query *req, outr_op *op);
} outr_state_backend;

struct outr_state_store {
    const outr_state_backend *backend;
};

/* Metadata ttlInSeconds (also "ttl"): *out -1 remove, 0 none given, else seconds. INVALID_ARGUMENT
 * else. */
outr_code outr_state_ttl(outr_kvs metadata, int64_t *out, outr_err *err);

#endif
