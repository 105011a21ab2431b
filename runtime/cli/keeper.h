/* keeper - a small process that outlives `outrigger run` just long enough to end what it started.
 *
 * Told of each process group through a pipe; when the pipe ends without a farewell (the run was
 * killed), it ends the groups: SIGTERM, and SIGKILL for what is left after OUTR_KEEPER_GRACE_S. The
 * parent-death signal alone reaches direct children only and can be ignored by them. */
#ifndef OUTR_CLI_KEEPER_H
#define OUTR_CLI_KEEPER_H

#include <sys/types.h>

#include "base/err.h"

#define OUTR_KEEPER_GRACE_S 10

typedef struct outr_keeper {
    int fd;
    pid_t pid;
} outr_keeper;

/* Before anything else is opened: the process keeps only its pipe. */
outr_code outr_keeper_start(outr_keeper *keeper, outr_err *err);
void outr_keeper_watch(outr_keeper *keeper, pid_t group);
void outr_keeper_forget(outr_keeper *keeper, pid_t group);
void outr_keeper_stop(outr_keeper *keeper); /* farewell: nothing is left to end */

#endif
