/* str - text by value: a pointer and a length, no NUL assumed.
 *
 * A str never owns what it points to. Passed and returned by value. */
#ifndef OUTR_BASE_STR_H
#define OUTR_BASE_STR_H

#include "base/base.h"

typedef struct outr_str {
    const char *p;
    size_t n;
} outr_str;

#define OUTR_STR(literal) ((outr_str){(literal), sizeof(literal) - 1})
#define OUTR_STR_NONE     ((outr_str){NULL, 0})
#define OUTR_FMT          "%.*s" /* printf("x=" OUTR_FMT, OUTR_ARG(s)) */
#define OUTR_ARG(s)       (int)(s).n, (s).p ? (s).p : ""

static inline outr_str outr_str_from(const char *z)
{
    return (outr_str){z, z ? strlen(z) : 0};
}
static inline outr_str outr_str_of(const void *p, size_t n)
{
    return (outr_str){(const char *)p, n};
}
static inline bool outr_str_eq(outr_str a, outr_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool outr_str_is(outr_str a, const char *z)
{
    return outr_str_eq(a, outr_str_from(z));
}
bool outr_str_ieq_bytes(const char *a, const char *b, size_t n); /* of outr_str_ieq */
static inline bool outr_str_ieq(outr_str a, outr_str b)          /* ASCII case ignored */
{
    return a.n == b.n && outr_str_ieq_bytes(a.p, b.p, a.n); /* lengths tell most apart, inline */
}
static inline bool outr_str_iis(outr_str a, const char *z)
{
    return outr_str_ieq(a, outr_str_from(z));
}
int outr_str_cmp(outr_str a, outr_str b); /* memcmp order, shorter first */
bool outr_str_starts(outr_str s, outr_str prefix);
bool outr_str_istarts(outr_str s, outr_str prefix);
bool outr_str_ends(outr_str s, outr_str suffix);
outr_str outr_str_skip(outr_str s, size_t n); /* without the first n (or empty) */
outr_str outr_str_head(outr_str s, size_t n); /* the first n at most */
outr_str outr_str_trim(outr_str s);           /* spaces and tabs, CR, LF off both ends */
ptrdiff_t outr_str_find(outr_str s, char c);  /* index or -1 */
ptrdiff_t outr_str_rfind(outr_str s, char c);
ptrdiff_t outr_str_search(outr_str s, outr_str needle); /* index or -1 */
/* Cuts at the first c: *head gets what stands before, the result is what follows. Without c *head
 * is all of s and the result has p == NULL. */
outr_str outr_str_cut(outr_str s, char c, outr_str *head);
bool outr_str_is_utf8(outr_str s); /* RFC 3629, no surrogates */

outr_str outr_str_decimal(char text[20], uint64_t value); /* points into text */
/* Whole-text numbers; false when anything but a number in range stands there. */
bool outr_str_to_i64(outr_str s, int64_t min, int64_t max, int64_t *out);
bool outr_str_to_u64(outr_str s, uint64_t max, uint64_t *out);
bool outr_str_to_double(outr_str s, double *out);
/* Go's strconv.ParseBool plus Dapr's truthy words (y, yes, true, t, on, 1 and their opposites). */
bool outr_str_to_bool(outr_str s, bool *out);
/* Go's time.ParseDuration ("1h2m3.5s", "-1.5h", "0"); nanoseconds. */
bool outr_str_to_duration(outr_str s, int64_t *out_ns);
/* Kubernetes quantity ("4Mi", "10k", "1.5Gi", "-1"); bytes. */
bool outr_str_to_quantity(outr_str s, int64_t *out);

char *outr_str_dup(outr_str s) OUTR_MUST_USE; /* NUL-terminated, heap, the caller's */
uint64_t outr_str_hash(outr_str s,
                       uint64_t seed); /* keyed: safe for peers' keys with a random seed */

#endif
