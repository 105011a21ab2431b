/* cors - the CORS protocol (Fetch, section 3.2) for --allowed-origins. */
#ifndef OUTR_API_HTTP_CORS_H
#define OUTR_API_HTTP_CORS_H

#include "config/settings.h"
#include "http/message.h"

/* Adds what the answer needs to out. True: this was a preflight, answered with these headers alone.
 */
bool outr_cors_apply(const outr_settings *settings, const outr_http_request *req,
                     outr_headers *out);

#endif
