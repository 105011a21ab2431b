/* baggage - W3C Baggage (https://www.w3.org/TR/baggage/): what a call tree carries along. Reading
 * and setting one member; whether it is well-formed is outr_baggage_is_valid (trace.h). */
#ifndef OUTR_OBSERVE_BAGGAGE_H
#define OUTR_OBSERVE_BAGGAGE_H

#include "base/map.h"
#include "http/message.h"

/* Section 3.3.2 has both as what must pass at least; more is refused by the APIs (trace.c). */
#define OUTR_BAGGAGE_MAX         8192
#define OUTR_BAGGAGE_MEMBERS_MAX 64

/* A member of a list of them, decoded (on arena only when it has escapes); NONE: it is not there.
 * Malformed members are passed over. */
outr_str outr_baggage_find(outr_str list, outr_str name, outr_arena *arena);
/* The same over all lines of the header. *lines: how many there are. */
outr_str outr_baggage_get(const outr_headers *headers, outr_str name, outr_arena *arena,
                          unsigned *lines);
/* All members of all lines, decoded, in their order. */
outr_kvs outr_baggage_members(const outr_headers *headers, outr_arena *arena);
/* The one line that says what all lines of headers say, but of name that it is value. What would go
 * beyond the limits is left out, last ones first: name is not. */
outr_str outr_baggage_with(const outr_headers *headers, outr_str name, outr_str value,
                           outr_arena *arena);

#endif
