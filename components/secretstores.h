/* secretstores - vtable of secret stores. Values never reach a log. */
#ifndef OUTR_COMPONENTS_SECRETSTORES_H
#define OUTR_COMPONENTS_SECRETSTORES_H

#include "components/component.h"

typedef struct outr_secret_store outr_secret_store;
enum { OUTR_SECRET_MULTIPLE = 1 /* "MULTIPLE_KEY_VALUES_PER_SECRET" */ };

typedef struct outr_secret { /* one secret: a name and its key/value pairs */
    outr_str name;
    outr_kvs values;
} outr_secret;

typedef struct outr_secret_get {
    outr_arena *arena;
    outr_str name; /* bulk: ignored */
    bool is_bulk;
    outr_kvs metadata;
    outr_secret *secrets; /* out, on arena */
    size_t count;
} outr_secret_get;

typedef struct outr_secret_backend {
    outr_backend base;
    outr_code (*create)(outr_secret_store **out, const outr_component_init *init, outr_err *err);
    void (*open)(outr_secret_store *store, outr_op *op);
    void (*close)(outr_secret_store *store, outr_op *op);
    unsigned (*features)(const outr_secret_store *store);
    void (*get)(outr_secret_store *store, outr_secret_get *req, outr_op *op);
} outr_secret_backend;

struct outr_secret_store {
    const outr_secret_backend *backend;
};

/* One value of one secret, for who does not know the stores (HTTPEndpoints of the mesh). */
typedef struct outr_secret_value {
    outr_arena *arena;
    outr_str store, name, key; /* a secret with one value only: whatever key says */
    outr_str value;            /* out, on arena */
    /* machinery */
    outr_secret_get get;
    void *pin;
    outr_op inner;
    outr_op *op;
} outr_secret_value;
typedef void outr_secret_read_fn(void *ctx, outr_secret_value *req, outr_op *op);

/* The value that key names. NOT_FOUND. */
outr_code outr_secret_pick(outr_str *out, const outr_secret_get *get, outr_str key, outr_err *err);

#endif
