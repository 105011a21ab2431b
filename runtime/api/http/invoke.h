/* invoke - service invocation over HTTP: the target in the path, in dapr-app-id, or in basic auth.
 */
#ifndef OUTR_API_HTTP_INVOKE_H
#define OUTR_API_HTTP_INVOKE_H

#include "api/http/http_api.h"

/* What no route took: an invocation by header or basic auth, or 404 (contract/invocation.md section
 * 1). */
void outr_api_invoke_any(outr_api_request *r);

#endif
