/* rundir - the per-user runtime directory: registry, embedded broker, list of running instances. */
#ifndef OUTR_BASE_RUNDIR_H
#define OUTR_BASE_RUNDIR_H

#include "base/err.h"

/* $OUTRIGGER_RUN_DIR, else $XDG_RUNTIME_DIR/outrigger, else $HOME/.outrigger/run, else
 * <tmp>/outrigger-<uid>. Made with mode 0700 when absent; refused when somebody else owns it or may
 * write there. */
outr_code outr_rundir_make(char *out, size_t size, outr_err *err);

#endif
