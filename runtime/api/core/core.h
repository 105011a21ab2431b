/* core - what every operation of the API works with. The operations are here once, typed in and
 * typed out; the front ends (api/http, api/grpc) turn wire formats into requests, and results and
 * errors into answers.
 *
 * One form for all: the front end allocates the request on the arena, fills what is marked `in`,
 * and starts it with an outr_op. Texts are borrowed until the op is done; results lie in the
 * request, on its arena. An error has everything for both front ends:
 *   err.reason   its row of base/reason.h: errorCode and status of HTTP, reason of ErrorInfo;
 *   err.code     the status code of gRPC as it is to be answered: the row's own, except where the
 *                reference distinguishes within one reason (etags: ABORTED, INVALID_ARGUMENT);
 *   err.text     the message as gRPC has it;
 *   details      of the request: what a rich error tells more (contract/error-codes.csv).
 * Where HTTP says it otherwise, api/http does that. Loops: everything stays on the caller's. */
#ifndef OUTR_API_CORE_CORE_H
#define OUTR_API_CORE_CORE_H

#include "api/api.h"
#include "api/core/details.h"

typedef struct outr_core {
    outr_api *api;
    const outr_view *view; /* pinned by the front end until the op is done */
    outr_arena *arena;     /* of the request */
} outr_core;

/* Fails with the code that the table has for reason. Returns it. */
outr_code outr_core_fail(outr_err *err, outr_reason reason, const char *fmt, ...) OUTR_PRINTF(3, 4);
/* Ends op with err, which is told also of a cancelled one: that keeps its code only. */
void outr_core_end(outr_op *op, const outr_err *err);
/* first and second as one list; where both have a name first is found. Copies only when both have
 * members; items is NULL only when it is NULL in both. */
outr_kvs outr_core_merge(outr_arena *arena, outr_kvs first, outr_kvs second);

#endif
