#include "trim.h"

#include <malloc.h>

#define PERIOD_NS   (10 * OUTR_SEC)
#define BUSY_CPU    (CLOCKS_PER_SEC / 5) /* 2 % of the period */
#define SLACK_BYTES (1024 * OUTR_KIB)    /* not worth the walk below */

static void on_look(outr_timer *timer)
{
    outr_trim *trim = OUTR_CONTAINER(timer, outr_trim, timer);
    clock_t cpu = clock();
    if (cpu - trim->cpu < BUSY_CPU && mallinfo2().fordblks > SLACK_BYTES)
        malloc_trim(0);
    trim->cpu = clock();
    outr_timer_start(trim->loop, timer, outr_loop_now(trim->loop) + PERIOD_NS);
}

void outr_trim_start(outr_trim *trim, outr_loop *loop)
{
    *trim = (outr_trim){.loop = loop, .timer.fire = on_look, .cpu = clock()};
    outr_timer_start(loop, &trim->timer, outr_loop_now(loop) + PERIOD_NS);
}

void outr_trim_stop(outr_trim *trim)
{
    if (trim->loop)
        outr_timer_stop(trim->loop, &trim->timer);
}
