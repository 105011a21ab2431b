/* http - one blocking HTTP/1.1 request to a sidecar on this machine, for the commands that talk to
 * one. */
#ifndef OUTR_CLI_HTTP_H
#define OUTR_CLI_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "cli/instance.h"

typedef struct outr_cli_call {
    const char *method;
    outr_str target;          /* path and query, encoded */
    const char *content_type; /* NULL: none */
    outr_str body;            /* p NULL: none */
    int timeout_ms;           /* between two pieces of the answer */
    int status;               /* of the answer */
    outr_buf answer;          /* body; its max is the limit, the caller's to free */
} outr_cli_call;

/* DAPR_API_TOKEN of our environment goes along. UNAVAILABLE: not reached; DATA_LOSS: a broken
 * answer. */
outr_code outr_cli_http(const outr_instance *to, outr_cli_call *call, outr_err *err);
/* Something accepts connections there now. */
bool outr_cli_is_listening(const outr_instance *to);

#endif
