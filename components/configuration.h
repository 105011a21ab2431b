/* configuration - vtable of configuration stores: values that others write and apps read and watch.
 * Source: contract/http-routes.csv (configuration), components.csv.
 *
 * Requests and results of get lie on the caller's arena until the op is done. A watch tells what
 * its keys are by now, not each step on the way there: what changes while its owner has an update
 * in hand is told once, afterwards. So a slow owner costs one entry per key. */
#ifndef OUTR_COMPONENTS_CONFIGURATION_H
#define OUTR_COMPONENTS_CONFIGURATION_H

#include "components/component.h"

typedef struct outr_configuration_store outr_configuration_store;
typedef struct outr_configuration_watch outr_configuration_watch;

typedef struct outr_configuration_item {
    outr_str key, value, version; /* of a key that is gone: value and version are empty */
    outr_kvs metadata;
} outr_configuration_item;

typedef struct outr_configuration_get {
    outr_arena *arena; /* results are made here, on the op's loop */
    const outr_str *keys;
    size_t key_count; /* 0: all there are */
    outr_kvs metadata;
    outr_configuration_item *items; /* out: those that there are */
    size_t count;
} outr_configuration_get;

typedef struct outr_configuration_subscribe {
    const outr_str *keys; /* copied */
    size_t key_count;     /* 0: all */
    outr_kvs metadata;
    /* On the op's loop, from an event; never again until go_on, never after unsubscribe was called.
     * items are borrowed for the call. */
    void (*on_update)(void *ctx, const outr_configuration_item *items, size_t count);
    void *ctx;
    outr_configuration_watch *watch; /* out */
} outr_configuration_subscribe;

typedef struct outr_configuration_backend {
    outr_backend base;
    outr_code (*create)(outr_configuration_store **out, const outr_component_init *init,
                        outr_err *err); /* checks metadata; no I/O */
    void (*open)(outr_configuration_store *store, outr_op *op);
    void (*close)(outr_configuration_store *store, outr_op *op); /* all watches are gone; frees */
    void (*get)(outr_configuration_store *store, outr_configuration_get *req, outr_op *op);
    /* Done when every change from then on will be told, also over lost connections. */
    void (*subscribe)(outr_configuration_store *store, outr_configuration_subscribe *req,
                      outr_op *op);
    void (*go_on)(outr_configuration_watch *watch); /* on the watch's loop */
    void (*unsubscribe)(outr_configuration_watch *watch, outr_op *op); /* likewise; then frees it */
} outr_configuration_backend;

struct outr_configuration_store {
    const outr_configuration_backend *backend;
};

#endif
