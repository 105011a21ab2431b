/* invocation - headers that an invocation carries between the parts of Outrigger that handle it,
 * and between two Outriggers. They are removed from what comes from clients and apps, and before
 * anything reaches a client or an app. Names are lower case: look-ups ignore it. */
#ifndef OUTR_APP_INVOCATION_H
#define OUTR_APP_INVOCATION_H

#include "base/str.h"

/* Of a request. "grpc": the caller's app called InvokeService, so header names are gRPC metadata
 * and none is put behind "dapr-" for a gRPC app; the verb may be "NONE" (contract/invocation.md
 * sections 5 and 7). Absent: an HTTP client. */
#define OUTR_INVOKE_ORIGIN_HEADER "outrigger-origin"
#define OUTR_INVOKE_ORIGIN_GRPC   "grpc"

/* Of a request and of an answer: type_url of the data (google.protobuf.Any), left out when empty.
 */
#define OUTR_INVOKE_TYPE_HEADER "outrigger-type-url"

/* Of an answer, when the app that gave it speaks gRPC: the status as the app gave it, while the
 * answer's own status is what HTTP makes of it. The number in decimal; the message
 * percent-encoded as grpc-message, left out when empty; the details as grpc-status-details-bin,
 * left out when there are none. */
#define OUTR_INVOKE_STATUS_HEADER  "outrigger-grpc-status"
#define OUTR_INVOKE_MESSAGE_HEADER "outrigger-grpc-message"
#define OUTR_INVOKE_DETAILS_HEADER "outrigger-grpc-details-bin"

/* One of HTTP's permanent header names, which gRPC metadata must not seem to speak of: it is put
 * behind "dapr-" there. */
bool outr_app_is_permanent_header(outr_str name);

#endif
