/* err - errors are values: a code, a reason, and a text that names its subject.
 *
 * 0 is success. On failure a function leaves its outputs untouched and fills *err (when err is not
 * NULL). Codes are gRPC's (grpc/grpc doc/statuscodes.md). The reason says which row of the table in
 * reason.h the user gets to see; layers below the API may leave it OUTR_REASON_NONE. */
#ifndef OUTR_BASE_ERR_H
#define OUTR_BASE_ERR_H

#include "base/base.h"
#include "base/reason.h"
#include "base/str.h"

typedef enum outr_code {
    OUTR_OK = 0,
    OUTR_CANCELLED = 1,
    OUTR_UNKNOWN = 2,
    OUTR_INVALID_ARGUMENT = 3,
    OUTR_DEADLINE_EXCEEDED = 4,
    OUTR_NOT_FOUND = 5,
    OUTR_ALREADY_EXISTS = 6,
    OUTR_PERMISSION_DENIED = 7,
    OUTR_RESOURCE_EXHAUSTED = 8,
    OUTR_FAILED_PRECONDITION = 9,
    OUTR_ABORTED = 10,
    OUTR_OUT_OF_RANGE = 11,
    OUTR_UNIMPLEMENTED = 12,
    OUTR_INTERNAL = 13,
    OUTR_UNAVAILABLE = 14,
    OUTR_DATA_LOSS = 15,
    OUTR_UNAUTHENTICATED = 16,
} outr_code;

#define OUTR_ERR_TEXT_MAX 384
/* Why a sidecar answered by itself: header, or metadata of gRPC. */
#define OUTR_REASON_HEADER "outrigger-reason"

typedef struct outr_err {
    outr_code code;
    outr_reason reason;
    bool retriable; /* nothing has happened yet: the same call may be made again */
    uint16_t why;   /* a row of mesh/reasons.h, which the answer to the caller names; 0: not said */
    char text[OUTR_ERR_TEXT_MAX];
} outr_err;

/* An empty error; does not touch the text beyond its first byte. */
static inline void outr_err_clear(outr_err *err)
{
    err->code = OUTR_OK;
    err->reason = OUTR_REASON_NONE;
    err->retriable = false;
    err->why = 0;
    err->text[0] = 0;
}

/* Fills err and returns code, so that a function ends with `return outr_fail(err, ...)`. */
outr_code outr_fail(outr_err *err, outr_code code, const char *fmt, ...) OUTR_PRINTF(3, 4);
outr_code outr_fail_reason(outr_err *err, outr_code code, outr_reason reason, const char *fmt, ...)
    OUTR_PRINTF(4, 5);
/* From errno: picks the code (ENOENT: NOT_FOUND, EACCES: PERMISSION_DENIED, ECONNREFUSED and the
 * like: UNAVAILABLE, ...), text is "<fmt>: <strerror>". */
outr_code outr_fail_errno(outr_err *err, int errnum, const char *fmt, ...) OUTR_PRINTF(3, 4);
/* Puts "<fmt>: " before the text; returns err->code. */
outr_code outr_wrap(outr_err *err, const char *fmt, ...) OUTR_PRINTF(2, 3);
const char *outr_code_name(outr_code code); /* "NotFound", as gRPC-Go prints it */

/* All mistakes at once: a bounded list of errors, each with its place. Owned by whoever declares
 * it. */
typedef struct outr_err_list {
    outr_err *items;
    size_t count;
    size_t cap;
    size_t dropped; /* beyond OUTR_ERR_LIST_MAX */
} outr_err_list;
#define OUTR_ERR_LIST_MAX 100
void outr_err_list_add(outr_err_list *list, outr_code code, const char *fmt, ...) OUTR_PRINTF(3, 4);
void outr_err_list_done(outr_err_list *list);
#define outr_err_list_cleanup outr_err_list_done

#endif
