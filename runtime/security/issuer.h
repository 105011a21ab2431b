/* issuer - who signs identities: roots, an issuer's certificate and its key, in three files.
 *
 * The files are sentry's: ca.crt (a bundle while roots change), issuer.crt (and what stands between
 * it and a root), issuer.key. An authority signs with them for a fleet, a sidecar of a member
 * machine for itself. No sockets, no clock: times come in. Source: contract/security.md
 * "Certificate request". */
#ifndef OUTR_SECURITY_ISSUER_H
#define OUTR_SECURITY_ISSUER_H

#include "security/secretfile.h"
#include "tls/cert.h"

#define OUTR_ISSUER_FILE_MAX OUTR_MIB
#define OUTR_ISSUER_TTL_S    ((int64_t)24 * 3600)      /* of a certificate it signs, unless told */
#define OUTR_ISSUER_SKEW_S   ((int64_t)15 * 60)        /* before now, for clocks behind ours */
#define OUTR_ISSUER_WARN_S   ((int64_t)30 * 24 * 3600) /* before it ends */

typedef struct outr_issuer_paths {
    const char *roots, *issuer, *key;
} outr_issuer_paths;

typedef struct outr_issuer {
    outr_buf roots, chain; /* PEM */
    outr_key *key;
    int64_t expires_s; /* nothing is issued beyond */
} outr_issuer;

/* "issuer.key: ...": what is wrong with which file. All three must fit together at that time.
 * secrecy is the key's. */
outr_code outr_issuer_load(outr_issuer *out, const outr_issuer_paths *paths, outr_secrecy secrecy,
                           int64_t now_s, outr_err *err);
void outr_issuer_done(outr_issuer *issuer);

/* An app id that may have a certificate. Code and text of a refusal are sentry's. */
outr_code outr_issuer_check_id(outr_str id, outr_err *err);
/* "spiffe://<trust domain>/ns/<namespace>/<id>", each of them one segment. trust_domain NONE:
 * "public", that of all apps. */
outr_code outr_issuer_name(outr_buf *uri, outr_str trust_domain, outr_str namespace_, outr_str id,
                           outr_err *err);

typedef struct outr_issuer_order {
    outr_key *key; /* whose certificate it becomes; the public half is enough */
    outr_str uri;
    int64_t life_s, skew_s;
} outr_issuer_order;
/* chain: leaf, then issuers. FAILED_PRECONDITION: the issuer is over. */
outr_code outr_issuer_sign(const outr_issuer *issuer, const outr_issuer_order *order, int64_t now_s,
                           outr_buf *chain, int64_t *expires_s, outr_err *err);

/* A new key, the caller's, and its certificate, appended to pem; names as sentry makes them. */
typedef struct outr_issuer_make {
    outr_str organization;
    outr_key *of; /* the certificate is of this key instead; *key is untouched */
    int64_t life_s, skew_s;
    bool is_of_member; /* signs apps only: trust domain public, no authorities below it */
    /* NONE, NULL: a root, by itself */
    outr_str root_pem;
    outr_key *root_key;
} outr_issuer_make;
outr_code outr_issuer_make_new(outr_buf *pem, outr_key **key, const outr_issuer_make *make,
                               int64_t now_s, outr_err *err);

#endif
