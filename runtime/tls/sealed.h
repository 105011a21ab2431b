/* sealed - text under a passphrase, for a file.
 *
 * AES-256-GCM by a key that scrypt (RFC 7914; N 2^14, r 8, p 1: 16 MiB, some 50 ms) makes of the
 * passphrase and a random salt. The key is made once and serves for what is written later, each
 * with a nonce of its own. What was changed, or is under another passphrase, does not open. */
#ifndef OUTR_TLS_SEALED_H
#define OUTR_TLS_SEALED_H

#include "base/buf.h"
#include "base/err.h"

typedef struct outr_seal {
    unsigned char salt[16], key[32];
    bool is_made;
} outr_seal;

/* With a new salt. */
outr_code outr_seal_make(outr_seal *out, outr_str passphrase, outr_err *err);
/* Appends to out. */
outr_code outr_seal_write(outr_buf *out, const outr_seal *seal, outr_str text, outr_err *err);
/* Whether it claims to be sealed text. */
bool outr_seal_is_one(outr_str sealed);
/* Appends the text, a secret; makes the seal it was written by. UNAUTHENTICATED: it does not open;
 * INVALID_ARGUMENT: it is no sealed text. */
outr_code outr_seal_open(outr_buf *text, outr_seal *seal, outr_str passphrase, outr_str sealed,
                         outr_err *err);
void outr_seal_done(outr_seal *seal); /* overwrites it */

#endif
