/* gate - who looks at tokens, from one snapshot to the next: opened, swapped, closed.
 *
 * Main loop; one thing at a time. An op ends well, whatever came of reading keys: a sidecar works
 * without those of an issuer that is away, and refuses its tokens. */
#ifndef OUTR_GATE_H
#define OUTR_GATE_H

#include "config/snapshot.h"
#include "security/authn.h"

typedef struct outr_gate {
    outr_loop *loop;
    const outr_log *log;
    outr_authn *now;  /* NULL: nobody looks */
    outr_authn *next; /* of the change that is being applied */
    bool is_changing; /* to next, which may be nobody */
    /* machinery */
    outr_op *op, *closing;
    outr_op inner;
} outr_gate;

/* Waits a little for the keys. */
void outr_gate_open(outr_gate *gate, outr_loop *loop, const outr_log *log,
                    const outr_snapshot *snapshot, outr_op *op);
/* Makes what `after` says ready to be used, while that of `before` still is. */
void outr_gate_prepare(outr_gate *gate, const outr_snapshot *before, const outr_snapshot *after,
                       outr_op *op);
/* What lanes are to use from now on. */
outr_authn *outr_gate_next(const outr_gate *gate);
/* All lanes use it: closes the former. */
void outr_gate_swap(outr_gate *gate, outr_op *op);
/* No lane asks any more. A prepare that waits ends before. */
void outr_gate_close(outr_gate *gate, outr_op *op);

#endif
