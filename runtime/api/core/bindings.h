/* bindings - operations of output bindings, once for both front ends. Source: contract/
 * http-routes.csv, error-codes.csv.
 *
 * The one error (see core.h): INVOKE_OUTPUT_BINDING, without details beyond its ErrorInfo. */
#ifndef OUTR_API_CORE_BINDINGS_H
#define OUTR_API_CORE_BINDINGS_H

#include "api/core/core.h"
#include "blocks/bindings/output.h"

typedef struct outr_core_binding {
    /* in */
    outr_core core;
    outr_str name, operation, data;
    outr_kvs metadata;       /* of the request; what the trace says replaces the same names */
    const outr_trace *trace; /* of this hop: the binding gets it as metadata */
    outr_str baggage;        /* NONE: none */
    /* out */
    bool has_answer; /* false: the binding gave no answer at all */
    outr_str answer;
    outr_kvs answer_metadata;
    /* machinery */
    outr_binding_send send;
    outr_op inner;
    outr_op *op;
} outr_core_binding;

void outr_core_binding_start(outr_core_binding *call, outr_op *op);

#endif
