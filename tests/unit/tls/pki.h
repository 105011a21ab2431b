/* pki - certificates made on the spot: an authority and what it signs. */
#ifndef OUTR_TESTS_PKI_H
#define OUTR_TESTS_PKI_H

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/base.h"
#include "base/str.h"

typedef struct pki_identity {
    X509 *x509;
    EVP_PKEY *key;
    char *certificate_pem, *key_pem;
} pki_identity;

static char *pki_text(BIO *bio)
{
    char *p;
    long n = BIO_get_mem_data(bio, &p);
    char *text = outr_str_dup(outr_str_of(p, (size_t)n));
    BIO_free(bio);
    return text;
}

static void pki_extend(X509 *x509, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    X509_add_ext(x509, e, -1);
    X509_EXTENSION_free(e);
}

/* names: "DNS:a,IP:127.0.0.1", NULL for an authority; issuer NULL: signs itself. Valid from an hour
 * ago until until_s seconds from now. */
static OUTR_UNUSED pki_identity pki_make(const char *common_name, const char *names,
                                         const pki_identity *issuer, long until_s)
{
    static long serial;
    pki_identity id = {.x509 = X509_new(), .key = EVP_EC_gen("P-256")};
    X509_set_version(id.x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(id.x509), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(id.x509), -3600);
    X509_gmtime_adj(X509_getm_notAfter(id.x509), until_s);
    X509_set_pubkey(id.x509, id.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(id.x509), "CN", MBSTRING_ASC,
                               (const unsigned char *)common_name, -1, -1, 0);
    X509_set_issuer_name(id.x509, X509_get_subject_name(issuer ? issuer->x509 : id.x509));
    pki_extend(id.x509, NID_basic_constraints, names ? "CA:FALSE" : "critical,CA:TRUE");
    if (names)
        pki_extend(id.x509, NID_subject_alt_name, names);
    X509_sign(id.x509, issuer ? issuer->key : id.key, EVP_sha256());
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, id.x509);
    id.certificate_pem = pki_text(bio);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, id.key, NULL, NULL, 0, NULL, NULL);
    id.key_pem = pki_text(bio);
    return id;
}

static OUTR_UNUSED void pki_free(pki_identity *id)
{
    X509_free(id->x509);
    EVP_PKEY_free(id->key);
    free(id->certificate_pem);
    free(id->key_pem);
}

#endif
