/* harden - what must not leave this process, and what it may not ask of the kernel. Linux.
 *
 * Both are for life and for all threads, so they come first in main. */
#ifndef OUTR_BASE_HARDEN_H
#define OUTR_BASE_HARDEN_H

#include "base/err.h"

/* For a process that holds keys: no core dump, and no look into its memory by other processes of
 * its user (ptrace, /proc/PID/mem, environ). */
void outr_harden_memory(void);

typedef enum outr_seccomp {
    OUTR_SECCOMP_OFF,
    OUTR_SECCOMP_LOG,  /* what is not allowed is done, and told to the kernel's log */
    OUTR_SECCOMP_DENY, /* fails with EPERM */
    OUTR_SECCOMP_KILL, /* ends the process with SIGSYS */
} outr_seccomp;

bool outr_seccomp_parse(outr_str text, outr_seccomp *out);
/* From here on this process and whoever it may become has no new privileges, and the system calls
 * of a server alone: files, sockets, memory, threads. No other process is started or looked into,
 * no program run, no memory both written and executed. UNAVAILABLE: the kernel cannot. */
outr_code outr_harden_syscalls(outr_seccomp mode, outr_err *err);

#endif
