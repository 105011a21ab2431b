/* cli - the `outrigger` command line: one const table of commands, one file per command.
 *
 * A command's flags are rows of a table, from which parsing, --help and shell completion come.
 * Everything here runs on the main thread of a short-lived process and may block. */
#ifndef OUTR_CLI_CLI_H
#define OUTR_CLI_CLI_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum { OUTR_EXIT_OK = 0, OUTR_EXIT_FAILED = 1, OUTR_EXIT_USAGE = 2 };

typedef struct outr_cli_flag {
    const char *name; /* without dashes */
    char letter;      /* short form, 0: none */
    const char
        *value;    /* what the help calls the value, "ID"; "a|b" lists choices; "N..." may be given
                      several times; NULL: a switch */
    size_t offset; /* of a const char * (value), an outr_cli_list ("..."), or a bool (switch) in the
                      command's options */
    const char *text;
} outr_cli_flag;

#define OUTR_CLI_LIST_MAX 64
typedef struct outr_cli_list {
    const char *items[OUTR_CLI_LIST_MAX];
    size_t count;
} outr_cli_list;

typedef struct outr_command {
    const char *name;
    const char *summary;  /* one line */
    const char *synopsis; /* what follows the name */
    const char *text;     /* paragraph under the synopsis, or NULL */
    const char *examples;
    const outr_cli_flag *flags;
    size_t flag_count;
    const char *words; /* completion of plain arguments: "APP-ID", "a|b", or NULL */
    int (*run)(const struct outr_command *self, int argc,
               char **argv); /* arguments after the name */
} outr_command;

extern const outr_command outr_command_run, outr_command_list, outr_command_stop,
    outr_command_invoke, outr_command_publish, outr_command_mtls, outr_command_version,
    outr_command_completion, outr_command_endpoints, outr_command_route;

/* All commands, NULL at the end. */
extern const outr_command *const outr_commands[];

/* Fills *options from argv by the command's table; --flag value, --flag=value, -x value. At most
 * max_words plain arguments go to words. On a mistake says so on stderr and gives false. */
bool outr_cli_parse(const outr_command *self, int argc, char **argv, void *options,
                    const char **words, size_t max_words, size_t *word_count);
void outr_cli_help(const outr_command *self, outr_buf *out);
/* "outrigger <name>: <text>" on stderr; the result is the exit code. */
int outr_cli_mistake(const outr_command *self, const char *fmt, ...)
    OUTR_PRINTF(2, 3);                                                               /* usage: 2 */
int outr_cli_fail(const outr_command *self, const char *fmt, ...) OUTR_PRINTF(2, 3); /* 1 */

/* Where the sidecar's binary is: beside this one, else what PATH finds. */
outr_code outr_cli_sidecar_path(char *out, size_t size, outr_err *err);
/* All of it; false when the descriptor takes no more. */
bool outr_cli_write(int fd, const char *p, size_t n);

#endif
