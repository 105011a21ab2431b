#include "loop/step.h"

void outr_steps_init(outr_steps *steps, const outr_step *table, int first, const outr_log *log)
{
    *steps = (outr_steps){.table = table, .state = first, .log = log};
}

static void check_move(const outr_steps *steps, int next)
{
    if (!(steps->table[steps->state].may_go_to & TO(next))) {
        fprintf(stderr, "outrigger: no move from step %s to %s\n", steps->table[steps->state].name,
                steps->table[next].name);
        abort(); /* our own mistake, never a peer's doing */
    }
}

void outr_steps_run(outr_steps *steps)
{
    if (steps->is_running)
        return;
    steps->is_running = true;
    for (;;) {
        steps->has_moved = false;
        int from = steps->state, next = steps->table[from].run(steps);
        if (next == OUTR_END)
            return; /* steps may be gone */
        if (next == OUTR_WAIT && steps->has_moved)
            continue;
        if (next == OUTR_WAIT)
            break;
        if (steps->state == from)
            check_move(steps, next);
        steps->state = next;
        OUTR_LOG(steps->log, DEBUG, "step", OUTR_Z("from", steps->table[from].name),
                 OUTR_Z("to", steps->table[next].name));
    }
    steps->is_running = false;
}

void outr_steps_go(outr_steps *steps, int state)
{
    check_move(steps, state);
    steps->state = state;
    steps->has_moved = true;
    outr_steps_run(steps);
}

int outr_steps_wait(outr_steps *steps, int next)
{
    check_move(steps, next);
    steps->state = next;
    return OUTR_WAIT;
}
