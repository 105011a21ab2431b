/* base - what every file of the runtime may assume: the standard headers and a handful of macros.
 *
 * Nothing here does I/O, keeps state or knows about another layer. */
#ifndef OUTR_BASE_BASE_H
#define OUTR_BASE_BASE_H

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUTR_LEN(array)                (sizeof(array) / sizeof((array)[0]))
#define OUTR_CONTAINER(ptr, type, fld) ((type *)(void *)((char *)(ptr)-offsetof(type, fld)))
#define OUTR_PRINTF(fmt_at, args_at)   __attribute__((format(printf, fmt_at, args_at)))
#define OUTR_MUST_USE                  __attribute__((warn_unused_result))
#define OUTR_UNUSED                    __attribute__((unused))
#define OUTR_MIN(a, b)                 ((a) < (b) ? (a) : (b))
#define OUTR_MAX(a, b)                 ((a) > (b) ? (a) : (b))

/* Declares a local that cleans itself: OUTR_AUTO(outr_buf) body = OUTR_BUF_MAX(max); needs a
 * function `void outr_<type>_cleanup(type *)`, which for heap objects is given a `type *` and for
 * pointers is spelled OUTR_AUTO_PTR. */
#define OUTR_AUTO(type)     __attribute__((cleanup(type##_cleanup))) type
#define OUTR_AUTO_PTR(type) __attribute__((cleanup(type##_cleanup_ptr))) type *

/* Moves a pointer out of a self-cleaning local. */
#define outr_take(pp)                                                                              \
    ({                                                                                             \
        __typeof__(*(pp)) taken_ = *(pp);                                                          \
        *(pp) = NULL;                                                                              \
        taken_;                                                                                    \
    })

#define OUTR_MS  ((uint64_t)1000000)    /* nanoseconds in a millisecond */
#define OUTR_SEC ((uint64_t)1000000000) /* nanoseconds in a second */
#define OUTR_KIB ((size_t)1024)
#define OUTR_MIB ((size_t)1024 * 1024)

/* Heap memory that is always there: out of memory ends the process with a message. Sizes a peer
 * chooses are checked against a limit before they come here. */
void *outr_alloc(size_t n) OUTR_MUST_USE; /* zeroed */
void *outr_realloc(void *p, size_t n) OUTR_MUST_USE;
char *outr_strdup(const char *s) OUTR_MUST_USE; /* NULL stays NULL */

#endif
