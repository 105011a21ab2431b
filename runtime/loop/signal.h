/* signal - process signals as calls on a loop. */
#ifndef OUTR_LOOP_SIGNAL_H
#define OUTR_LOOP_SIGNAL_H

#include "loop/loop.h"

typedef struct outr_signals outr_signals;

/* Calls fn(ctx, signum) on loop for each arrival of the listed signals (0 ends the list). Not for
 * simulated loops. */
outr_signals *outr_signals_watch(outr_loop *loop, const int *signums,
                                 void (*fn)(void *ctx, int signum), void *ctx);
/* On the loop's thread; the handles close in a later turn. NULL is fine. */
void outr_signals_free(outr_signals *signals);

#endif
