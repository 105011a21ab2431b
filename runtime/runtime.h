/* runtime - builds all parts in order, owns them, drains and stops them in reverse.
 *
 * Source of the order: contract/lifecycle.md. One run is one life of the sidecar; SIGHUP ends it
 * and
 * main starts the next in the same process. */
#ifndef OUTR_RUNTIME_H
#define OUTR_RUNTIME_H

#include "config/settings.h"
#include "security/workload.h"

typedef enum outr_ending {
    OUTR_ENDED,   /* clean: exit 0 */
    OUTR_FAILED,  /* a fatal error, or shutdown overran its time: exit 1; already logged */
    OUTR_RESTART, /* SIGHUP, or a reload that asks for it */
} outr_ending;

/* Blocks until the sidecar ends. settings and envp are borrowed; kept goes from life to life. */
outr_ending outr_runtime_run(const outr_settings *settings, char *const *envp,
                             outr_kept_identity *kept);

#endif
