/* trim - gives memory that a burst left behind back to the system.
 *
 * The allocator keeps what is freed below the top of its heap, for ever if nothing comes after it.
 * A timer looks every few seconds, and trims when much is free and the process does little: walking
 * the heap under load would cost requests their latency for memory that is about to be used again.
 */
#ifndef OUTR_TRIM_H
#define OUTR_TRIM_H

#include <time.h>

#include "loop/loop.h"

typedef struct outr_trim {
    outr_loop *loop;
    outr_timer timer;
    clock_t cpu; /* of the process, at the last look */
} outr_trim;

void outr_trim_start(outr_trim *trim, outr_loop *loop);
void outr_trim_stop(outr_trim *trim);

#endif
