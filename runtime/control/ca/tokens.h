/* tokens - identity as a JSON Web Token, beside the certificate: for those who cannot read one.
 *
 * Signed by a key of its own, which lies with the root (jwt.key, jwks.json: sentry's names; 0600).
 * What is missing is made, nothing is made over what is there. No sockets, no clock. */
#ifndef OUTR_CONTROL_CA_TOKENS_H
#define OUTR_CONTROL_CA_TOKENS_H

#include "base/arena.h"
#include "tls/signer.h"

typedef struct outr_ca_tokens outr_ca_tokens;

typedef struct outr_ca_tokens_options {
    const char *dir;
    outr_str key_name, keys_name; /* in it, or absolute */
    outr_str algorithm, key_id, issuer; /* key_id, issuer NONE: thumbprint; none */
    int64_t ttl_s, skew_s;
} outr_ca_tokens_options;

/* made: the key was not there before. Options are borrowed as long as it lives. */
outr_code outr_ca_tokens_open(outr_ca_tokens **out, const outr_ca_tokens_options *options,
                              bool *made, outr_err *err);
void outr_ca_tokens_free(outr_ca_tokens *tokens); /* NULL is fine */
outr_str outr_ca_tokens_keys(const outr_ca_tokens *tokens); /* the key set, JSON */
outr_str outr_ca_tokens_algorithm(const outr_ca_tokens *tokens);

/* For subject (a SPIFFE id), to be shown to audience; ends no later than most_s. On arena. */
outr_code outr_ca_tokens_issue(const outr_ca_tokens *tokens, outr_str subject, outr_str audience,
                               int64_t now_s, int64_t most_s, outr_arena *arena, outr_str *token,
                               outr_err *err);

#endif
