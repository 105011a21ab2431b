/* guarded - an operation under its policy: begins it, cuts it off, begins it again.
 *
 * The owner fills start and is_final, inits the guard and starts it; start is called for each try
 * with an op of that try, whose deadline is the policy's. It must be repeatable until it is done.
 */
#ifndef OUTR_RESILIENCY_GUARDED_H
#define OUTR_RESILIENCY_GUARDED_H

#include "loop/op.h"
#include "resiliency/guard.h"

typedef struct outr_guarded {
    /* in */
    outr_guard guard; /* inited; done by this */
    void (*start)(struct outr_guarded *guarded, outr_op *op);
    /* The failure is an answer: neither repeated nor held against anybody. May be NULL. */
    bool (*is_final)(const outr_err *err);
    outr_arena *arena; /* what tries take memory from: none is begun when it is full. May be NULL */
    /* machinery */
    outr_op *op, inner;
    uint64_t deadline_ns;
    bool is_cancelled;
} outr_guarded;

/* Of a component; fills all that is `in`. */
void outr_guarded_component(outr_guarded *guarded, const outr_policies *policies,
                            outr_policy_kind kind, outr_policy_direction direction, outr_str name,
                            outr_loop *loop, outr_arena *arena,
                            void (*start)(outr_guarded *guarded, outr_op *op));
/* Fails as the last try did, or with UNAVAILABLE (OUTR_GUARD_OPEN, ..TRIAL), or DEADLINE_EXCEEDED
 * (OUTR_GUARD_TIMEOUT). */
void outr_guarded_start(outr_guarded *guarded, outr_op *op);

#endif
