/* cert - keys, certificate requests and certificates: made, read, signed.
 *
 * PEM in, PEM out. What is read here was written by strangers: names are compared by length, and a
 * certificate that says a thing twice says nothing. */
#ifndef OUTR_TLS_CERT_H
#define OUTR_TLS_CERT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

/* A private key; a reference. */
typedef struct evp_pkey_st outr_key;

outr_code outr_key_make(outr_key **out, outr_err *err); /* Ed25519, new */
outr_code outr_key_read(outr_key **out, outr_str pem, outr_err *err);
outr_code outr_key_write(outr_buf *pem, outr_key *key, outr_err *err); /* PKCS#8 */
void outr_key_unref(outr_key *key);
/* For text that held a key: overwrites it before it is freed. */
void outr_secret_done(outr_buf *pem);

/* A request for a certificate: empty subject, no names, no attributes. */
outr_code outr_csr_write(outr_buf *pem, outr_key *key, outr_err *err);
/* The key in one that proves itself by its signature: the caller's. The first PEM block must be
 * CERTIFICATE REQUEST, or CERTIFICATE as daprd once sent it; names in it are not looked at.
 * INVALID_ARGUMENT, in sentry's words. */
outr_code outr_csr_read(outr_key **out_public, outr_str pem, outr_err *err);

typedef struct outr_cert_info {
    int64_t not_before_s, not_after_s; /* Unix time; of a chain: the latest, the earliest */
    bool is_ca;
    size_t count; /* certificates in the text */
} outr_cert_info;

/* All certificates of a PEM text, at most so many. INVALID_ARGUMENT: none, or something else. */
#define OUTR_CERTS_MAX 64
outr_code outr_cert_info_read(outr_cert_info *out, outr_str pem, outr_err *err);
/* Whether chain (leaf first) leads to one of anchors at that time, as a peer would find it. */
outr_code outr_cert_verify(outr_str chain_pem, outr_str anchors_pem, int64_t now_s, outr_err *err);
/* Whether the first certificate carries the key. */
bool outr_cert_has_key(outr_str pem, outr_key *key);
/* The first certificate's URI name, appended. INVALID_ARGUMENT: none, several, or a NUL in it. */
outr_code outr_cert_uri(outr_buf *uri, outr_str pem, outr_err *err);
/* The O= of the first certificate's subject, appended; nothing when there is none. */
void outr_cert_organization(outr_buf *name, outr_str pem);
/* Cuts the first certificate out of a text of several: what is left behind it, *one NONE at the
 * end. Looks at the lines around it only. */
outr_str outr_cert_cut(outr_str pem, outr_str *one);

/* What to sign. */
typedef struct outr_cert_order {
    outr_key *subject_key;
    outr_str organization; /* O= of the subject; NONE: no subject at all */
    outr_str uri;          /* the only name; NONE: none */
    bool is_ca;
    bool is_last_ca;         /* path length 0: signs no other authority */
    const char *only_domain; /* it signs URI names of this host alone (RFC 5280, 4.2.1.10) */
    int64_t not_before_s, not_after_s;
    /* the issuer's; certificate NONE: it signs itself */
    outr_str issuer_pem;
    outr_key *issuer_key;
} outr_cert_order;

outr_code outr_cert_sign(outr_buf *pem, const outr_cert_order *order, outr_err *err);

#endif
