/* step - a request as a table of named steps; moves are checked and traced in one place.
 *
 * A step function returns the next state, or starts one op whose done calls outr_steps_run again
 * and
 * returns OUTR_WAIT, or returns OUTR_END. */
#ifndef OUTR_LOOP_STEP_H
#define OUTR_LOOP_STEP_H

#include "base/log.h"

#define OUTR_WAIT (-1)
#define OUTR_END  (-2)
#define TO(state) (UINT32_C(1) << (state))

typedef struct outr_steps outr_steps;
typedef struct outr_step {
    const char *name;
    int (*run)(outr_steps *steps);
    uint32_t may_go_to; /* TO(A) | TO(B); OUTR_WAIT and OUTR_END are always allowed */
} outr_step;

struct outr_steps {
    const outr_step *table;
    int state;
    bool is_running, has_moved; /* moved: by outr_steps_go from within a step */
    const outr_log *log;        /* traced at debug level when set */
};

void outr_steps_init(outr_steps *steps, const outr_step *table, int first, const outr_log *log);
void outr_steps_run(outr_steps *steps); /* until WAIT or END */
/* At the end of a step that has started its op: the op's outcome is next's to look at. Returns
 * OUTR_WAIT. */
int outr_steps_wait(outr_steps *steps, int next);
void outr_steps_go(outr_steps *steps,
                   int state); /* from outside (an event): checks the move, runs */

#endif
