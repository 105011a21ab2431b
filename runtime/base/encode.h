/* encode - base64, hex, percent-encoding. Pure functions over caller's memory. */
#ifndef OUTR_BASE_ENCODE_H
#define OUTR_BASE_ENCODE_H

#include "base/arena.h"
#include "base/str.h"

outr_str outr_base64_encode(outr_arena *arena, outr_str bytes); /* RFC 4648 section 4, padded */
/* Standard or URL alphabet, padding optional; false when malformed. */
bool outr_base64_decode(outr_arena *arena, outr_str text, outr_str *out);
void outr_hex_encode(const void *bytes, size_t n, char *out); /* 2n lower-case digits, no NUL */
bool outr_hex_decode(outr_str text, void *out, size_t n);     /* exactly 2n digits */
/* RFC 3986 section 2.1. plus_is_space: form rules. A malformed escape gives false. */
bool outr_percent_decode(outr_arena *arena, outr_str text, bool plus_is_space, outr_str *out);
outr_str outr_percent_encode(outr_arena *arena, outr_str text,
                             const char *keep); /* unreserved and keep stay */

#endif
