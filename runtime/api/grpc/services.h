/* services - the public gRPC API's port. */
#ifndef OUTR_API_GRPC_SERVICES_H
#define OUTR_API_GRPC_SERVICES_H

#include "http/server.h"

extern const outr_http_handler outr_grpc_api_handler; /* ctx: outr_api */

#endif
