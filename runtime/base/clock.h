/* clock - printing and reading points in time. No function here asks what time it is. */
#ifndef OUTR_BASE_CLOCK_H
#define OUTR_BASE_CLOCK_H

#include "base/str.h"

/* unix_ns: nanoseconds since 1970 UTC. out gets at most 40 bytes with NUL; the length returned. */
size_t outr_time_rfc3339(int64_t unix_ns, char out[40]); /* "2026-01-02T15:04:05Z", UTC, seconds */
size_t outr_time_rfc3339_nano(int64_t unix_ns, char out[40]); /* nine digits of fraction, UTC */
size_t outr_time_rfc3339_local(int64_t unix_ns,
                               char out[40]); /* seconds with the local offset, Z for UTC */
bool outr_time_parse_rfc3339(outr_str s, int64_t *unix_ns);

#endif
