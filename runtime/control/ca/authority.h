/* authority - the certificate authority's root, issuer and decisions; no sockets, no clock.
 *
 * Its state is three files that sentry has, too: ca.crt, issuer.crt, issuer.key (PEM, 0600), made
 * when none of them is there. Source: contract/security.md "Certificate request". */
#ifndef OUTR_CONTROL_CA_AUTHORITY_H
#define OUTR_CONTROL_CA_AUTHORITY_H

#include "base/arena.h"
#include "tls/cert.h"

typedef struct outr_authority_options {
    const char *dir;
    const char *root_name, *issuer_name, *key_name; /* NULL: ca.crt, issuer.crt, issuer.key */
    outr_str trust_domain;                          /* of the control plane */
    outr_str namespace_;                            /* of the control plane */
    int64_t ttl_s, skew_s;                          /* of workloads' certificates */
    /* Whether a token allows its bearer to be subject. NULL: no tokens are asked for, everybody is
     * who he says he is (sentry's insecure validator). */
    outr_code (*vouch)(void *ctx, outr_str token, outr_str subject, outr_err *err);
    void *ctx;
} outr_authority_options;

typedef struct outr_authority outr_authority;

/* Of a file by its name in dir, or by itself when it is absolute; on arena. */
const char *outr_authority_path(outr_arena *arena, const char *dir, const char *name);

/* "issuer.key: ...": what is wrong with which file. made: they were not there before. */
outr_code outr_authority_open(outr_authority **out, const outr_authority_options *options,
                              int64_t now_s, bool *made, outr_err *err);
void outr_authority_free(outr_authority *authority);
/* Whether what they sign with came out of the same files. */
bool outr_authority_is_same(const outr_authority *a, const outr_authority *b);
outr_str outr_authority_root(const outr_authority *authority);  /* PEM, borrowed */
int64_t outr_authority_expires(const outr_authority *authority); /* the issuer's end */
outr_str outr_authority_id(const outr_authority *authority);    /* its own SPIFFE id */

/* Fields of SignCertificateRequest; validator by number. */
typedef struct outr_authority_order {
    outr_str id, namespace_, trust_domain, csr_pem;
    int validator;
    outr_str token;
} outr_authority_order;

/* chain: leaf, then issuers; uri: the id in it. The code and text of a refusal are sentry's. */
outr_code outr_authority_sign(const outr_authority *authority, const outr_authority_order *order,
                              int64_t now_s, outr_buf *chain, outr_buf *uri, int64_t *expires_s,
                              outr_err *err);
/* For the authority's own server. */
outr_code outr_authority_sign_own(const outr_authority *authority, outr_key *key, int64_t now_s,
                                  outr_buf *chain, int64_t *expires_s, outr_err *err);

#endif
