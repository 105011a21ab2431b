/* bind - options as rows of a table: name, type, offset, range, default, text.
 *
 * One table fills a struct from name/value pairs (component metadata) and prints its own
 * documentation. YAML resources bind with the same rows (config/kinds). */
#ifndef OUTR_BASE_BIND_H
#define OUTR_BASE_BIND_H

#include "base/arena.h"
#include "base/err.h"
#include "base/map.h"
#include "base/str.h"

typedef enum outr_bind_type {
    OUTR_BIND_STR,      /* outr_str */
    OUTR_BIND_BOOL,     /* bool */
    OUTR_BIND_I64,      /* int64_t in min..max */
    OUTR_BIND_DOUBLE,   /* double */
    OUTR_BIND_DURATION, /* int64_t nanoseconds; a plain number counts in `unit_ns` (0: refused) */
    OUTR_BIND_QUANTITY, /* int64_t bytes */
    OUTR_BIND_ENUM,     /* int, index into choices */
} outr_bind_type;

enum { OUTR_BIND_REQUIRED = 1, OUTR_BIND_SECRET = 2 /* never printed */ };

typedef struct outr_bind_row {
    const char *name;    /* matched without case */
    const char *aliases; /* "a|b" or NULL */
    outr_bind_type type;
    unsigned flags;
    size_t offset;
    int64_t min, max;           /* both 0: unbounded */
    const char *otherwise;      /* default as text, NULL: zero value */
    const char *const *choices; /* ENUM: NULL-terminated */
    int64_t unit_ns;            /* DURATION */
    const char *text;           /* one line of documentation */
} outr_bind_row;

/* Fills *out from kvs: defaults first, then what is given. All mistakes go to errs ("busyTimeout:
 * not a duration: \"x\""). Strings are borrowed from kvs. Unknown names are left to the caller
 * (outr_bind_is_known). Returns the first error's code. */
outr_code outr_bind_kvs(const outr_bind_row *rows, size_t count, void *out, outr_kvs kvs,
                        outr_err_list *errs);
bool outr_bind_is_known(const outr_bind_row *rows, size_t count, outr_str name);

#endif
