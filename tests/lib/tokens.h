/* tokens - JSON Web Tokens for tests: an issuer with a key of each kind, its key set, tokens that it
 * signs, and such as nobody should. Made once for a program: RSA takes its time. */
#ifndef OUTR_TESTS_TOKENS_H
#define OUTR_TESTS_TOKENS_H

#include <openssl/evp.h>

#include "base/arena.h"
#include "base/str.h"

typedef struct tokens {
    EVP_PKEY *rsa, *small, *p256, *p384, *p521, *ed;
    outr_arena *arena; /* of all texts */
    outr_str jwks;
} tokens;

void tokens_open(tokens *t);
void tokens_close(tokens *t);
outr_str tokens_url64(tokens *t, const void *p, size_t n);
/* Signed by key as alg says, whatever the head does. */
outr_str tokens_sign(tokens *t, EVP_PKEY *key, const char *alg, const char *head,
                     const char *claims);
/* head and claims with any bytes as their signature. */
outr_str tokens_join(tokens *t, const char *head, const char *claims, const void *signature,
                     size_t n);
/* A good one of "https://issuer" for "me", by the P-256 key; claims: more members, with a comma in
 * front. */
outr_str tokens_good(tokens *t, int64_t expires_s, const char *claims);

#endif
