/* send - what invoke and publish have in common: where the data comes from, how an answer is shown.
 */
#ifndef OUTR_CLI_SEND_H
#define OUTR_CLI_SEND_H

#include "base/json.h"
#include "cli/cli.h"
#include "cli/http.h"

#define OUTR_SEND_MAX (64 * OUTR_MIB) /* data and answer */

/* data, or the content of file ("-": standard input); p is NULL when neither is given. out backs
 * it. */
outr_code outr_send_data(outr_str *data, outr_buf *out, const char *text, const char *file,
                         outr_err *err);
/* "application/json" for JSON, with cloud_events also "application/cloudevents+json"; else
 * text/plain. */
const char *outr_send_content_type(outr_str data, bool with_cloud_events);
/* Body on standard output, a status outside 2xx on standard error; the exit code. */
int outr_send_show(const outr_command *self, const outr_cli_call *call);

#endif
