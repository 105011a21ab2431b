/* ask - questions to a running sidecar about itself, answered by JSON: which one is meant, what it
 * says. */
#ifndef OUTR_CLI_ASK_H
#define OUTR_CLI_ASK_H

#include "base/json.h"
#include "cli/cli.h"
#include "cli/http.h"

typedef struct outr_ask {
    const char *app_id;  /* a sidecar that `outrigger run` started here, or */
    const char *address; /* "host:port" of any sidecar's HTTP API; the other one is NULL */
    outr_str target;     /* path and query, encoded */
    outr_str body;       /* JSON, sent by POST; p NULL: GET */
    outr_buf text;       /* out: the answer as it came; the caller's to free */
    outr_json *answer;   /* out, on the arena; borrows text */
} outr_ask;

/* The exit code; what is wrong is said on standard error. */
int outr_ask_run(const outr_command *self, outr_ask *ask, outr_arena *arena);

/* A table of texts: columns as wide as they need to be. */
void outr_ask_table(outr_buf *out, const char *const *titles, size_t columns,
                    const outr_str *cells, size_t rows);

#endif
