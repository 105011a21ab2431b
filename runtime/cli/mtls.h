/* mtls - what the files of `outrigger mtls` share: its options, and this machine's folder.
 *
 * One change at a time: a command that writes holds a lock on the folder to its end. */
#ifndef OUTR_CLI_MTLS_H
#define OUTR_CLI_MTLS_H

#include "cli/cli.h"
#include "security/machine.h"

typedef struct outr_mtls_options {
    const char *output, *out, *name, *valid_for;
    bool shows_env, shows_bundle, is_finishing, is_forced;
} outr_mtls_options;

typedef struct outr_mtls {
    const outr_command *command;
    outr_mtls_options o;
    const char *word; /* the argument behind the action; NULL: none */
    outr_machine machine;
    int64_t now_s;
    int64_t life_s; /* of an issuer or a root that is made; 0: as usual */
} outr_mtls;

#define OUTR_MTLS_ISSUER_LIFE_S ((int64_t)365 * 24 * 3600)
#define OUTR_MTLS_ROOT_LIFE_S   ((int64_t)3650 * 24 * 3600)

/* Actions. The result is the exit code. */
int outr_mtls_ask(const outr_mtls *m);
int outr_mtls_admit(const outr_mtls *m);
int outr_mtls_renew(const outr_mtls *m);
int outr_mtls_expiry(const outr_mtls *m);
int outr_mtls_export(const outr_mtls *m);

/* For the life of the process. made: the folder is made when it is not there; else NOT_FOUND: this
 * machine is no member. */
outr_code outr_mtls_lock(const outr_mtls *m, bool made, outr_err *err);
/* What this machine trusts and its issuer's certificate, expired or not. NOT_FOUND: no member. */
outr_code outr_mtls_read(const outr_mtls *m, outr_buf *roots, outr_buf *issuer, outr_err *err);

typedef struct outr_mtls_issuer {
    const char *root_key_path; /* of one of roots */
    outr_str roots;
    const char *member; /* the machine it is for; NULL: this one */
    outr_key *of;       /* whose certificate it becomes; NULL: a new key, the caller's */
} outr_mtls_issuer;
/* A new root, appended to pem. */
outr_code outr_mtls_make_root(const outr_mtls *m, int64_t life_s, outr_buf *pem, outr_key **key,
                              outr_err *err);
outr_code outr_mtls_sign_issuer(const outr_mtls *m, const outr_mtls_issuer *order, outr_buf *pem,
                                outr_key **key, outr_err *err);
/* Prints a join token on standard output, and on the other what it is. of: the key of a machine
 * that has asked; NULL: one is made, and in the token. */
outr_code outr_mtls_show_token(const outr_mtls *m, outr_key *of, outr_err *err);
/* The action's argument, or a line of standard input, which a terminal is asked for by that name
 * and does not show. Without the spaces around it. May be a secret. */
outr_code outr_mtls_read_line(const outr_mtls *m, const char *name, outr_buf *out, outr_err *err);

#endif
