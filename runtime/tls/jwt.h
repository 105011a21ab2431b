/* jwt - JSON Web Tokens signed with public keys: RFC 7515 (compact form), 7517 (key sets), 7518
 * (RS, PS and ES with SHA-2), 8037 (EdDSA with Ed25519), 7519 (claims), 8725 (what not to believe).
 *
 * No I/O. Which algorithm is used is the key's to say as much as the token's: "none" and keys that
 * are shared secrets do not exist here. A key set is immutable and refcounted (atomically). */
#ifndef OUTR_TLS_JWT_H
#define OUTR_TLS_JWT_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "tls/claims.h"

#define OUTR_JWT_MAX      16384 /* bytes of a token */
#define OUTR_JWKS_MAX     (256 * OUTR_KIB)
#define OUTR_JWKS_KEYS    64
#define OUTR_JWT_SKEW_S   60

/* Why a token is refused, for metrics and answers: one of a few words. */
#define OUTR_JWT_MALFORMED "malformed"
#define OUTR_JWT_TOO_LARGE "too_large"
#define OUTR_JWT_ALGORITHM "algorithm"     /* none, a shared secret, or not known */
#define OUTR_JWT_KEY       "unknown_key"   /* no key of that name, or none for that algorithm */
#define OUTR_JWT_SIGNATURE "signature"
#define OUTR_JWT_EXPIRED   "expired"
#define OUTR_JWT_NOT_YET   "not_yet_valid" /* nbf, iat */
#define OUTR_JWT_ISSUER    "issuer"
#define OUTR_JWT_AUDIENCE  "audience"
#define OUTR_JWT_CLAIMS    "claims"        /* no exp, or claims of the wrong form */

typedef struct outr_jwks outr_jwks;

/* Keys that cannot verify signatures (secrets, for encryption, of other kinds, too small) are left
 * out. INVALID_ARGUMENT: no key set, or nothing is left. */
outr_code outr_jwks_parse(outr_jwks **out, outr_str json, outr_err *err);
outr_jwks *outr_jwks_ref(outr_jwks *keys);
void outr_jwks_unref(outr_jwks *keys); /* NULL is fine */

/* The digest of the text it was made from. */
uint64_t outr_jwks_digest(const outr_jwks *keys);

/* The bit of an algorithm by its name ("RS256"); 0: not one of ours. */
unsigned outr_jwt_algorithm(outr_str name);

typedef struct outr_jwt_rules {
    outr_str issuer; /* NONE: anybody who has one of the keys */
    /* One of them must be the token's; "*": any, or none. */
    const outr_str *audiences;
    size_t audience_count;
    unsigned algorithms; /* bits; 0: all */
    int64_t skew_s;
    int64_t now_s; /* Unix time */
} outr_jwt_rules;

/* NULL: the token is good, until *expires_s (skew included), and *claims is a reference to what it
 * says. Else why it is not. */
const char *outr_jwt_check(outr_str token, outr_jwks *keys, const outr_jwt_rules *rules,
                           outr_arena *scratch, outr_claims **claims, int64_t *expires_s);
/* Who says to have issued it, to find the rules by; nothing is verified. NONE: no token at all. */
outr_str outr_jwt_issuer(outr_str token, outr_arena *scratch);

#endif
