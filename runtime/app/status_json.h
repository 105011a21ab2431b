/* status_json - a gRPC status as protobuf JSON, as HTTP callers of a gRPC app get it: {"code":5,
 * "message":"...","details":[{"@type":"...", ...}]}. Pure. */
#ifndef OUTR_APP_STATUS_JSON_H
#define OUTR_APP_STATUS_JSON_H

#include "grpc/status.h"

/* On arena. Details of a type that is not google.rpc's, or that are malformed, appear as their type
 * and base64 "value": what cannot be read is not lost. */
outr_str outr_app_status_json(outr_arena *arena, const outr_grpc_status *status);

#endif
