/* output - one operation of an output binding: found, checked, run under its policy, counted.
 *
 * For the API and for what an app's answer to an event sends on. Stays on the op's loop. */
#ifndef OUTR_BLOCKS_BINDINGS_OUTPUT_H
#define OUTR_BLOCKS_BINDINGS_OUTPUT_H

#include "blocks/host.h"
#include "resiliency/guarded.h"

typedef struct outr_binding_send {
    /* in */
    const outr_view *view; /* pinned by the caller until the op is done */
    outr_str name;
    outr_binding_invoke req; /* arena, operation, data, metadata in; the answer out */
    /* machinery */
    const outr_component *component;
    uint64_t began_ns;
    outr_guarded guarded;
    outr_op inner;
    outr_op *op;
} outr_binding_send;

/* NOT_FOUND: no such output binding; INVALID_ARGUMENT: no operation, or not one of its own; else
 * the binding's error. */
void outr_binding_send_start(outr_binding_send *send, outr_op *op);

#endif
