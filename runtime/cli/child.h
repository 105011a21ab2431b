/* child - a process that `outrigger run` starts: the app or its sidecar.
 *
 * In a process group of its own, so that signals reach all of it and the terminal's Ctrl-C reaches
 * it
 * through us, in order. Its output comes through pipes, line by line, under its name. Spawned by
 * hand
 * rather than by uv_spawn, which has no place for the parent-death signal. */
#ifndef OUTR_CLI_CHILD_H
#define OUTR_CLI_CHILD_H

#include <sys/types.h>
#include <uv.h>

#include "base/err.h"
#include "cli/output.h"

typedef struct outr_child outr_child;

typedef struct outr_child_pipe {
    uv_pipe_t handle;
    outr_child *child;
    outr_output output;
    bool is_open;
} outr_child_pipe;

struct outr_child {
    pid_t pid;     /* and process group; 0: not started */
    int exit_code; /* as a shell has it: 128 + signal */
    int signal;    /* that ended it, 0: none */
    bool has_ended;
    outr_child_pipe out, err;
};

typedef struct outr_child_options {
    uv_loop_t *loop;
    char *const *argv; /* NULL at the end; argv[0] is looked up on PATH */
    char *const
        *variables;   /* "NAME=value" set on top of our environment; NULL at the end, or NULL */
    const char *name; /* before its lines */
    int name_width;
    const char *colour; /* or NULL */
    bool takes_input;   /* our standard input, unless that is a terminal */
} outr_child_options;

/* NOT_FOUND, PERMISSION_DENIED: the command cannot be run. */
outr_code outr_child_start(outr_child *child, const outr_child_options *options, outr_err *err);
/* To the whole group; nothing when it has ended. */
void outr_child_signal(outr_child *child, int signum);
/* Reaps it when it has ended, and asks what it left in its group to end too; true once. */
bool outr_child_reap(outr_child *child);
/* Kills what is left of its group, takes what its pipes still hold and closes them. */
void outr_child_close(outr_child *child);

#endif
