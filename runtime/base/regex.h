/* regex - does a text match a regular expression? The syntax is RE2's (Go's regexp): a pattern that
 * cannot be had here is refused, never taken for something else. Takes time in proportion to the
 * text, whatever the pattern (a simulated automaton, no backtracking: Thompson 1968), so it may
 * look at what strangers send. Bytes, not characters: "." is one byte of UTF-8. */
#ifndef OUTR_BASE_REGEX_H
#define OUTR_BASE_REGEX_H

#include "base/err.h"
#include "base/str.h"

typedef struct outr_regex outr_regex;

outr_code outr_regex_new(outr_regex **out, outr_str pattern, outr_err *err);
void outr_regex_free(outr_regex *regex);                       /* NULL is fine */
bool outr_regex_search(const outr_regex *regex, outr_str text); /* anywhere in it; any thread */

#endif
