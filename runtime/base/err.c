#include "base/err.h"

#include <errno.h>

static outr_code fill(outr_err *err, outr_code code, outr_reason reason, const char *fmt,
                      va_list args)
{
    if (!err)
        return code;
    err->code = code;
    err->reason = reason;
    err->retriable = false;
    err->why = 0;
    vsnprintf(err->text, sizeof err->text, fmt, args);
    return code;
}

outr_code outr_fail(outr_err *err, outr_code code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fill(err, code, OUTR_REASON_NONE, fmt, args);
    va_end(args);
    return code;
}

outr_code outr_fail_reason(outr_err *err, outr_code code, outr_reason reason, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fill(err, code, reason, fmt, args);
    va_end(args);
    return code;
}

static outr_code code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
        return OUTR_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return OUTR_PERMISSION_DENIED;
    case EADDRINUSE:
    case EEXIST:
        return OUTR_ALREADY_EXISTS;
    case ENOMEM:
    case ENOSPC:
    case EMFILE:
    case ENFILE:
        return OUTR_RESOURCE_EXHAUSTED;
    case ETIMEDOUT:
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENOTCONN:
        return OUTR_UNAVAILABLE;
    case EINVAL:
    case EAFNOSUPPORT:
    case EADDRNOTAVAIL:
    case ENAMETOOLONG:
        return OUTR_INVALID_ARGUMENT;
    case ECANCELED:
        return OUTR_CANCELLED;
    default:
        return OUTR_INTERNAL;
    }
}

outr_code outr_fail_errno(outr_err *err, int errnum, const char *fmt, ...)
{
    outr_code code = code_of_errno(errnum);
    if (!err)
        return code;
    va_list args;
    va_start(args, fmt);
    fill(err, code, OUTR_REASON_NONE, fmt, args);
    va_end(args);
    size_t n = strlen(err->text);
    char reason[96];
    /* GNU's strerror_r gives the text, perhaps without using the buffer. */
    snprintf(err->text + n, sizeof err->text - n, ": %s",
             strerror_r(errnum, reason, sizeof reason));
    return code;
}

outr_code outr_wrap(outr_err *err, const char *fmt, ...)
{
    if (!err)
        return OUTR_UNKNOWN;
    char inner[OUTR_ERR_TEXT_MAX];
    size_t inner_n = strlen(err->text);
    memcpy(inner, err->text, inner_n);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->text, sizeof err->text - 2, fmt, args);
    va_end(args);
    size_t used = OUTR_MIN((size_t)OUTR_MAX(n, 0), sizeof err->text - 3);
    memcpy(err->text + used, ": ", 2);
    used += 2;
    inner_n = OUTR_MIN(inner_n, sizeof err->text - 1 - used);
    memcpy(err->text + used, inner, inner_n);
    err->text[used + inner_n] = 0;
    return err->code;
}

const char *outr_code_name(outr_code code)
{
    static const char *const names[] = {
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    };
    return (size_t)code < OUTR_LEN(names) ? names[code] : "Unknown";
}

void outr_err_list_add(outr_err_list *list, outr_code code, const char *fmt, ...)
{
    if (list->count == OUTR_ERR_LIST_MAX) {
        list->dropped++;
        return;
    }
    if (list->count == list->cap) {
        list->cap = list->cap ? list->cap * 2 : 4;
        list->items = outr_realloc(list->items, list->cap * sizeof *list->items);
    }
    va_list args;
    va_start(args, fmt);
    fill(&list->items[list->count++], code, OUTR_REASON_NONE, fmt, args);
    va_end(args);
}

void outr_err_list_done(outr_err_list *list)
{
    free(list->items);
    *list = (outr_err_list){0};
}
