/* state - the state API's operations, once: the front ends translate. Source: contract/state.md,
 * error-codes.csv. */
#ifndef OUTR_API_CORE_STATE_H
#define OUTR_API_CORE_STATE_H

#include "api/core/details.h"
#include "blocks/host.h"

typedef struct outr_core_state {
    outr_loop *loop;
    const outr_settings *settings;
    const outr_view *view;
} outr_core_state;

/* The named store; else the error of the API with its details. */
outr_code outr_core_state_find(const outr_core_state *core, outr_str name,
                               const outr_component **out, outr_err *err, outr_details *details);
/* The stored key of a client's key. */
outr_code outr_core_state_key(const outr_core_state *core, const outr_component *store,
                              outr_arena *arena, outr_str key, outr_str *out, outr_err *err,
                              outr_details *details);

/* Runs against the store and counts it (dapr_component_state_*). operation is the metric's label.
 */
typedef struct outr_core_state_call {
    const outr_component *store;
    const char *operation;
    outr_state_get get; /* one of the two */
    outr_state_writes writes;
    bool is_write;
    outr_op inner;
    outr_op *op;
    uint64_t began_ns;
} outr_core_state_call;
void outr_core_state_start(outr_core_state_call *call, outr_op *op);

#endif
