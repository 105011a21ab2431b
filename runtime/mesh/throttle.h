/* throttle - a gradient (gradient.h) that all loops share: who may call the app now, and who
 * waits on which loop.
 *
 * A call takes a ticket before it goes to the app and gives it back when the app's answer begins;
 * what it does after that - a long body, a stream, a tunnel - is not the app's latency. One that
 * has no answer for OUTR_THROTTLE_HOLD_NS - a poll, a stream with nothing to say yet - leaves its
 * place to others, and says nothing of latency. Nobody waits longer than interval_ns. Without a
 * policy there is no throttle and no ticket. */
#ifndef OUTR_MESH_THROTTLE_H
#define OUTR_MESH_THROTTLE_H

#include "loop/op.h"
#include "mesh/gradient.h"

#define OUTR_THROTTLE_HOLD_NS (10 * OUTR_SEC)

typedef struct outr_throttle outr_throttle;           /* refcounted, atomically */
typedef struct outr_throttle_port outr_throttle_port; /* a loop's place in all throttles */

outr_throttle *outr_throttle_new(const outr_gradient_options *options, uint64_t now);
outr_throttle *outr_throttle_ref(outr_throttle *throttle);
void outr_throttle_unref(outr_throttle *throttle); /* NULL is fine */
void outr_throttle_set(outr_throttle *throttle, const outr_gradient_options *options);
typedef struct outr_throttle_state {
    double limit;
    uint32_t in_flight, waiting;
} outr_throttle_state;
outr_throttle_state outr_throttle_look(outr_throttle *throttle);
/* It is in use no more: its gauge is gone. By whichever loop, again is nothing. */
void outr_throttle_retire(outr_throttle *throttle, outr_loop *loop);

outr_throttle_port *outr_throttle_port_new(outr_loop *loop);
void outr_throttle_port_free(outr_throttle_port *port); /* on its loop, when no ticket waits */

typedef struct outr_ticket { /* zero-initialised: none */
    outr_waiter waiter;
    outr_throttle *throttle; /* held while it waits or is in */
    outr_throttle_port *port;
    outr_op *op;
    outr_timer timer;
    uint64_t began_ns;
    enum {
        OUTR_TICKET_NONE,
        OUTR_TICKET_WAITS,
        OUTR_TICKET_LET_IN,
        OUTR_TICKET_REFUSED,
        OUTR_TICKET_IN
    } state;
} outr_ticket;

typedef enum outr_taken { OUTR_TAKEN, OUTR_TAKEN_LATER, OUTR_TAKEN_NOT } outr_taken;
/* TAKEN: it is in. TAKEN_LATER: op, which was initialised and has begun, is done when it is in, or
 * fails with UNAVAILABLE, overloaded. TAKEN_NOT: overloaded. The ticket stays where it is until op
 * is done and it was given back. */
outr_taken outr_ticket_take(outr_ticket *ticket, outr_throttle *throttle, outr_throttle_port *port,
                            bool is_urgent, outr_op *op);
/* is_good: the app answered; else how long it took counts only if that was long. Nothing when it is
 * not in. */
void outr_ticket_give_back(outr_ticket *ticket, bool is_good);
/* The same for a call that was not made. */
void outr_ticket_return(outr_ticket *ticket);

#endif
