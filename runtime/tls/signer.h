/* signer - signs JSON Web Tokens and says by which key: the other side of jwt.
 *
 * One key, one algorithm of it. RFC 7515 (compact form), 7517 (the key set), 7638 (the key's name
 * when it is given none: its thumbprint, in the padded base64 that sentry writes). No I/O;
 * immutable, so any thread may sign. */
#ifndef OUTR_TLS_SIGNER_H
#define OUTR_TLS_SIGNER_H

#include "base/arena.h"
#include "tls/cert.h"
#include "tls/jwt.h"

typedef struct outr_signer outr_signer;

/* key: referenced. INVALID_ARGUMENT: the algorithm is none of ours, or not one of the key's. */
outr_code outr_signer_new(outr_signer **out, outr_key *key, outr_str algorithm, outr_str key_id,
                          outr_err *err);
void outr_signer_free(outr_signer *signer); /* NULL is fine */
outr_str outr_signer_algorithm(const outr_signer *signer);
/* {"keys":[...]} with the public half alone. */
void outr_signer_write_keys(const outr_signer *signer, outr_buf *json);
/* Whether a key set's readers would take what is signed here: the key is in it, under its name. */
outr_code outr_signer_check_keys(const outr_signer *signer, outr_str json, outr_err *err);
/* claims: a JSON object. The token is on arena. */
outr_code outr_signer_sign(const outr_signer *signer, outr_str claims, outr_arena *arena,
                           outr_str *token, outr_err *err);

/* RSA of 2048 bits, new: what every reader of tokens takes. */
outr_code outr_key_make_rsa(outr_key **out, outr_err *err);

#endif
