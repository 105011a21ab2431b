/* bindings - vtable of bindings to the outside: operations that the app asks for (output), events
 * that are brought to the app (input). A component has one direction or both.
 *
 * Requests lie on the caller's arena until the op is done. An event is the binding's memory until
 * it is settled; the app's answer comes back with the settling. How many events may be unsettled is
 * the engine's credit. Source: contract/components.csv, grpc-messages.csv (components.v1). */
#ifndef OUTR_COMPONENTS_BINDINGS_H
#define OUTR_COMPONENTS_BINDINGS_H

#include "components/component.h"

typedef struct outr_binding outr_binding;
typedef struct outr_binding_reader outr_binding_reader;

enum {
    OUTR_BINDING_INPUT = 1,  /* "INPUT_BINDING" */
    OUTR_BINDING_OUTPUT = 2, /* "OUTPUT_BINDING" */
};

typedef struct outr_binding_invoke {
    outr_arena *arena;  /* of the caller's loop; results are made on it there */
    outr_str operation; /* one of operations() */
    outr_str data;
    outr_kvs metadata;
    /* out, also when the op fails. False: there is no answer at all, which is not an empty one. */
    bool has_answer;
    outr_str answer;
    outr_kvs answer_metadata;
} outr_binding_invoke;

typedef struct outr_binding_event {
    outr_str data;
    outr_kvs metadata;
    void *binding_data; /* the binding's */
} outr_binding_event;

typedef struct outr_binding_read {
    outr_loop *loop; /* where on_event runs and settle is called */
    size_t credit;   /* events that may be unsettled */
    void (*on_event)(void *ctx, outr_binding_event *event);
    void *ctx;
} outr_binding_read;

typedef struct outr_binding_backend {
    outr_backend base;
    outr_code (*create)(outr_binding **out, const outr_component_init *init,
                        outr_err *err);                /* checks metadata; no I/O */
    void (*open)(outr_binding *binding, outr_op *op);  /* connects */
    void (*close)(outr_binding *binding, outr_op *op); /* after all readers have stopped; frees */
    /* After open: OUTR_BINDING_*. What is not in it is never called and may be NULL. */
    unsigned (*directions)(const outr_binding *binding);
    /* output: names, NULL-terminated, valid as long as the binding */
    const char *const *(*operations)(const outr_binding *binding);
    void (*invoke)(outr_binding *binding, outr_binding_invoke *req, outr_op *op);
    /* input */
    outr_code (*read)(outr_binding *binding, const outr_binding_read *req,
                      outr_binding_reader **out, outr_err *err);
    /* Exactly once per event, on the reader's loop; err: the app failed on it, answer is then
     * nothing. Both are borrowed for the call. */
    void (*settle)(outr_binding_reader *reader, outr_binding_event *event, outr_str answer,
                   const outr_err *err);
    /* No new events from now on. Done when the last of those that are out has been settled; then
     * the reader is gone. */
    void (*stop)(outr_binding_reader *reader, outr_op *op);
} outr_binding_backend;

struct outr_binding {
    const outr_binding_backend *backend;
};

#endif
