/* store - the last identity of a workload in a file, so that a restart needs no authority.
 *
 * Only when it is asked for (--identity-file): a key that lies on a disk outlives its process and
 * is no safer than the passphrase beside it. Sealed (tls/sealed.h), 0600, written at once. Whether
 * what comes out is of use is the workload's to judge. */
#ifndef OUTR_SECURITY_STORE_H
#define OUTR_SECURITY_STORE_H

#include "tls/cert.h"
#include "tls/sealed.h"

/* An identity beyond the life that it was got in. Zero: nothing. */
typedef struct outr_kept_identity {
    outr_key *key;
    outr_buf chain;
    int64_t issued_ms, expires_ms;
} outr_kept_identity;
void outr_kept_identity_done(outr_kept_identity *kept);

typedef struct outr_store {
    const char *path; /* borrowed; NULL: nothing is kept */
    outr_buf passphrase;
    outr_seal seal;
    bool is_anothers; /* the file is none of ours: it is not written over */
} outr_store;

/* passphrase_path: a file of its owner alone; its text without the spaces around it, at least
 * OUTR_PASSPHRASE_MIN bytes. */
#define OUTR_PASSPHRASE_MIN 8
outr_code outr_store_open(outr_store *store, const char *path, const char *passphrase_path,
                          outr_err *err);
/* NOT_FOUND: nothing is kept. The reason why something there is of no use is in err. */
outr_code outr_store_load(outr_store *store, outr_kept_identity *out, outr_err *err);
outr_code outr_store_save(outr_store *store, outr_key *key, outr_str chain, int64_t issued_ms,
                          outr_err *err);
void outr_store_done(outr_store *store);

#endif
