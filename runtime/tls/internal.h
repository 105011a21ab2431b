/* What the files of tls/ share. */
#ifndef OUTR_TLS_INTERNAL_H
#define OUTR_TLS_INTERNAL_H

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>

#include "tls/tls.h"

/* Text of the newest OpenSSL error behind what; the queue is empty then. */
outr_code outr__fail_ssl(outr_err *err, outr_code code, const char *what);
BIO *outr__bio_of(outr_str pem);
/* The next certificate of a PEM text; NULL: no more (*err is clear) or no certificate. */
X509 *outr__read_cert(BIO *bio);
int64_t outr__unix_of(const ASN1_TIME *time);

/* Whether leaf leads to an anchor of the store, through untrusted (may be NULL). In a bundle of
 * several roots they may have one and the same name, as sentry's always have, and OpenSSL, which
 * picks by name, tries one of them: so if need be each is tried. now 0: the system's clock. */
typedef struct outr__chain {
    int64_t ends_s;                        /* the earliest end in it */
    unsigned char anchor[SHA256_DIGEST_LENGTH]; /* hash of the anchor's certificate */
    int error;                             /* OpenSSL's, of the first try */
} outr__chain;
bool outr__verify(X509_STORE *store, X509 *leaf, STACK_OF(X509) * untrusted, int64_t now_s,
                  outr__chain *out);

/* What was found out about a peer. Lies with the stream; OpenSSL's callbacks find it there. */
typedef struct outr__verdict {
    outr_tls_check check;
    outr_tls_sessions *sessions; /* NULL: nothing is resumed */
    unsigned generation;         /* of the context */
    const char *reason;          /* why not; NULL: nothing was found */
    bool wants_to_renegotiate;
    outr_err err;
    char *id; /* heap; of the certificate's URI */
    size_t id_n;
    int64_t expires_s; /* of the earliest certificate that was relied on; 0: none was */
    unsigned char anchor[SHA256_DIGEST_LENGTH]; /* of the anchor that was relied on */
} outr__verdict;

struct outr_tls {
    uint32_t refs; /* atomic */
    bool is_server, verify_peer, verify_uri, requires_alpn;
    unsigned char alpn[64]; /* length-prefixed */
    unsigned alpn_n;
    /* Taken once a handshake, for as long as it takes to copy three words: outr_tls_renew comes
     * from another thread. */
    pthread_mutex_t lock;
    SSL_CTX *ctx;
    int64_t expires_s; /* of our own chain; 0: there is none */
    unsigned generation;
};

/* A session by the context as it is now, with the verdict as its data. */
SSL *outr__ssl_new(outr_tls *tls, outr__verdict *verdict, int64_t *own_expires_s);
/* After the handshake: the peer of a resumed session, whom nobody has looked at this time. */
outr_code outr__judge_resumed(SSL *ssl, outr__verdict *verdict, outr_err *err);

/* Whether the peer's certificates still lead to an anchor of the newest context: by themselves, or
 * because the anchor is there by which they were once believed. */
bool outr__is_covered(outr_tls *tls, const SSL *ssl, const outr__verdict *verdict);

/* Algorithms of JSON Web Tokens, by which jwt.c verifies and signer.c signs. */
typedef enum outr__jwt_family { OUTR__JWT_RSA, OUTR__JWT_EC, OUTR__JWT_ED } outr__jwt_family;

typedef struct outr__jwt_algorithm {
    const char *name;
    outr__jwt_family family;
    const char *curve; /* EC: as JWK names it */
    const char *group; /* and OpenSSL */
    const char *hash;  /* NULL: the signature's own */
    size_t half;       /* EC: bytes of r and of s */
    bool is_pss;
} outr__jwt_algorithm;

#define OUTR__JWT_RSA_MIN 2048
#define OUTR__JWT_RSA_MAX 8192 /* bits; verifying takes time in proportion to its square */

const outr__jwt_algorithm *outr__jwt_find_algorithm(outr_str name); /* NULL: not one of ours */
/* RSA's padding for it; other families have none. */
bool outr__jwt_set_padding(EVP_PKEY_CTX *ctx, const outr__jwt_algorithm *algorithm);

struct outr_tls_sessions {
    unsigned refs, generation;
    SSL_SESSION *session;
    unsigned char anchor[SHA256_DIGEST_LENGTH]; /* by which its peer was believed */
};

#endif
