/* claims - what a good token says, flat and immutable, so that rules find it without reading JSON.
 *
 * A claim in an object has the names joined by dots ("realm_access.roles"; over 512 bytes it is
 * left out: names would multiply with members, and a token's end is far); one of an array has
 * several values; "scope" is split at its spaces (RFC 8693 section 4.2). Numbers and booleans are
 * their text. Of two members of one name the last counts, and a name with dots of its own comes
 * before one that was joined. Refcounted (atomically), one allocation. */
#ifndef OUTR_TLS_CLAIMS_H
#define OUTR_TLS_CLAIMS_H

#include "base/json.h"

typedef struct outr_claim {
    outr_str name, value;
} outr_claim;

typedef struct outr_claims {
    uint32_t refs; /* atomic */
    size_t bytes;  /* of all of it */
    size_t count;
    outr_claim items[]; /* by name, values of one name in their order */
} outr_claims;

/* object: of the token's claims. The result is a reference of the caller's. */
outr_claims *outr_claims_new(const outr_json *object, outr_arena *scratch);
outr_claims *outr_claims_ref(const outr_claims *claims);
void outr_claims_unref(outr_claims *claims); /* NULL is fine */
/* The values of a name: *count of them from the result on; NULL, 0: it says nothing of that. */
const outr_claim *outr_claims_find(const outr_claims *claims, outr_str name, size_t *count);
/* All values of a name with commas between, a copy on arena; NONE: there is none. */
outr_str outr_claims_text(const outr_claims *claims, outr_str name, outr_arena *arena);

#endif
