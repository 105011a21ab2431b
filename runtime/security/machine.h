/* machine - a machine's membership in a fleet that has no authority process.
 *
 * A folder, its owner's alone, with the three files of security/issuer.h; on the machine where the
 * fleet began also the root's key. Its sidecars sign their own identities with the issuer there. A
 * join token carries another machine's folder, its key included: who has it may be any app of the
 * fleet until that machine's issuer ends. */
#ifndef OUTR_SECURITY_MACHINE_H
#define OUTR_SECURITY_MACHINE_H

#include "security/issuer.h"

#define OUTR_MACHINE_PATH_MAX 512

typedef struct outr_machine {
    char dir[OUTR_MACHINE_PATH_MAX];
    char roots[OUTR_MACHINE_PATH_MAX + 16], issuer[OUTR_MACHINE_PATH_MAX + 16];
    char key[OUTR_MACHINE_PATH_MAX + 16];
    char root_key[OUTR_MACHINE_PATH_MAX + 16]; /* where the fleet began */
    char next_root_key[OUTR_MACHINE_PATH_MAX + 16]; /* of a root that signs nothing yet */
    char asked_key[OUTR_MACHINE_PATH_MAX + 16]; /* of an issuer that has been asked for */
} outr_machine;

/* dir: OUTRIGGER_MTLS_DIR, or NONE; home: HOME, below which it is else (.outrigger/mtls).
 * INVALID_ARGUMENT: neither, or too long. Nothing need be there. */
outr_code outr_machine_find(outr_machine *out, outr_str dir, outr_str home, outr_err *err);
bool outr_machine_is_member(const outr_machine *machine);
bool outr_machine_is_first(const outr_machine *machine); /* the root's key is here */
outr_issuer_paths outr_machine_paths(const outr_machine *machine);

typedef struct outr_join {
    outr_str issuer, roots;
    outr_str key; /* NONE: the machine that asked has it, and nothing here is secret */
    int64_t before_s; /* Unix time; `join` takes it no later */
} outr_join; /* PEM */
/* One line of printable text, a secret when a key is in it. */
bool outr_join_write(outr_buf *token, const outr_join *join);
/* Parts lie in text, which it fills: a secret, too. INVALID_ARGUMENT: no token, not all of one, of
 * another version. What is in it is not judged. */
outr_code outr_join_read(outr_join *out, outr_buf *text, outr_str token, outr_err *err);

/* What a machine shows to become a member with a key that never leaves it: a certificate request.
 * One line. */
bool outr_ask_write(outr_buf *line, outr_str csr_pem);
outr_code outr_ask_read(outr_buf *csr_pem, outr_str line, outr_err *err);

#endif
