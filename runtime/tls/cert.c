#include "tls/cert.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "tls/internal.h"

#define SERIAL_BYTES 16

/* ---- keys ------------------------------------------------------------------------------------ */

outr_code outr_key_make(outr_key **out, outr_err *err)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    if (!key)
        return outr__fail_ssl(err, OUTR_INTERNAL, "making a key");
    *out = key;
    return OUTR_OK;
}

outr_code outr_key_read(outr_key **out, outr_str pem, outr_err *err)
{
    BIO *bio = outr__bio_of(pem);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"");
    BIO_free(bio);
    if (!key)
        return outr__fail_ssl(err, OUTR_INVALID_ARGUMENT, "private key");
    *out = key;
    return OUTR_OK;
}

/* Takes what was written into memory; the BIO is freed, its bytes overwritten first. */
static outr_code take_bio(outr_buf *pem, BIO *own_bio, bool is_ok, const char *what, outr_err *err)
{
    char *p = NULL;
    long n = own_bio ? BIO_get_mem_data(own_bio, &p) : 0;
    is_ok = is_ok && n > 0 && outr_buf_append(pem, p, (size_t)n);
    if (p)
        OPENSSL_cleanse(p, (size_t)n);
    BIO_free(own_bio);
    return is_ok ? OUTR_OK : outr__fail_ssl(err, OUTR_INTERNAL, what);
}

outr_code outr_key_write(outr_buf *pem, outr_key *key, outr_err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    bool is_ok = bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1;
    return take_bio(pem, bio, is_ok, "writing a key", err);
}

void outr_key_unref(outr_key *key)
{
    EVP_PKEY_free(key); /* the last one clears it */
}

void outr_secret_done(outr_buf *pem)
{
    if (pem->p)
        OPENSSL_cleanse(pem->p, pem->cap);
    outr_buf_done(pem);
}

/* Ed25519 and Ed448 hash by themselves. */
static const EVP_MD *digest_for(EVP_PKEY *key)
{
    int type = EVP_PKEY_get_base_id(key);
    return type == EVP_PKEY_ED25519 || type == EVP_PKEY_ED448 ? NULL : EVP_sha256();
}

/* ---- requests -------------------------------------------------------------------------------- */

outr_code outr_csr_write(outr_buf *pem, outr_key *key, outr_err *err)
{
    X509_REQ *req = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    bool is_ok = req && bio && X509_REQ_set_version(req, X509_REQ_VERSION_1) == 1 &&
                 X509_REQ_set_pubkey(req, key) == 1 &&
                 X509_REQ_sign(req, key, digest_for(key)) > 0 &&
                 PEM_write_bio_X509_REQ(bio, req) == 1;
    X509_REQ_free(req);
    return take_bio(pem, bio, is_ok, "writing a certificate request", err);
}

outr_code outr_csr_read(outr_key **out_public, outr_str pem, outr_err *err)
{
    BIO *bio = outr__bio_of(pem);
    char *name = NULL, *header = NULL;
    unsigned char *der = NULL;
    long n = 0;
    X509_REQ *req = NULL;
    if (PEM_read_bio(bio, &name, &header, &der, &n) == 1 &&
        (strcmp(name, "CERTIFICATE REQUEST") == 0 || strcmp(name, "CERTIFICATE") == 0)) {
        const unsigned char *at = der;
        req = d2i_X509_REQ(NULL, &at, n);
    }
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(der);
    BIO_free(bio);
    ERR_clear_error();
    if (!req)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "invalid certificate signing request");
    EVP_PKEY *key = X509_REQ_get_pubkey(req);
    int verdict = key ? X509_REQ_verify(req, key) : -1;
    X509_REQ_free(req);
    ERR_clear_error();
    if (verdict != 1) {
        EVP_PKEY_free(key);
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         key ? "invalid signature" : "invalid certificate signing request");
    }
    *out_public = key;
    return OUTR_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

BIO *outr__bio_of(outr_str pem)
{
    return BIO_new_mem_buf(pem.n ? pem.p : "", (int)OUTR_MIN(pem.n, (size_t)INT32_MAX));
}

X509 *outr__read_cert(BIO *bio)
{
    return PEM_read_bio_X509(bio, NULL, NULL, NULL);
}

int64_t outr__unix_of(const ASN1_TIME *time)
{
    struct tm tm;
    return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

outr_code outr_cert_info_read(outr_cert_info *out, outr_str pem, outr_err *err)
{
    BIO *bio = outr__bio_of(pem);
    outr_cert_info info = {.not_after_s = INT64_MAX, .not_before_s = INT64_MIN};
    ERR_clear_error();
    for (X509 *x; info.count < OUTR_CERTS_MAX && (x = outr__read_cert(bio)); info.count++) {
        info.not_before_s = OUTR_MAX(info.not_before_s, outr__unix_of(X509_get0_notBefore(x)));
        info.not_after_s = OUTR_MIN(info.not_after_s, outr__unix_of(X509_get0_notAfter(x)));
        if (info.count == 0)
            info.is_ca = X509_check_ca(x) > 0;
        X509_free(x);
    }
    BIO_free(bio);
    /* the end of the text is told as a missing first line; anything else was no certificate */
    unsigned long why = ERR_peek_last_error();
    bool is_end = !why || ERR_GET_REASON(why) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    if (info.count == 0 || !is_end)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         info.count ? "certificate %zu cannot be read"
                                    : "no certificate in PEM form (%zu)",
                         info.count ? info.count + 1 : info.count);
    *out = info;
    return OUTR_OK;
}

static STACK_OF(X509) * read_all(outr_str pem)
{
    STACK_OF(X509) *all = sk_X509_new_null();
    BIO *bio = outr__bio_of(pem);
    for (X509 *x; sk_X509_num(all) < OUTR_CERTS_MAX && (x = outr__read_cert(bio));)
        sk_X509_push(all, x);
    BIO_free(bio);
    ERR_clear_error();
    return all;
}

static bool verify_once(X509_STORE *store, X509 *anchor, X509 *leaf, STACK_OF(X509) * untrusted,
                        int64_t now_s, outr__chain *out)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    STACK_OF(X509) *anchors = sk_X509_new_null();
    bool is_good = X509_STORE_CTX_init(ctx, store, leaf, untrusted) == 1;
    X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_PARTIAL_CHAIN); /* an anchor is an anchor */
    X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_ANY);
    if (now_s)
        X509_STORE_CTX_set_time(ctx, 0, (time_t)now_s);
    if (anchor) {
        sk_X509_push(anchors, anchor);
        X509_STORE_CTX_set0_trusted_stack(ctx, anchors);
    }
    is_good = is_good && X509_verify_cert(ctx) == 1;
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(ctx);
    int count = sk_X509_num(chain);
    *out = (outr__chain){.ends_s = INT64_MAX, .error = X509_STORE_CTX_get_error(ctx)};
    for (int i = 0; is_good && i < count; i++)
        out->ends_s =
            OUTR_MIN(out->ends_s, outr__unix_of(X509_get0_notAfter(sk_X509_value(chain, i))));
    is_good = is_good &&
              X509_digest(sk_X509_value(chain, count - 1), EVP_sha256(), out->anchor, NULL) == 1;
    X509_STORE_CTX_free(ctx);
    sk_X509_free(anchors);
    ERR_clear_error();
    return is_good;
}

bool outr__verify(X509_STORE *store, X509 *leaf, STACK_OF(X509) * untrusted, int64_t now_s,
                  outr__chain *out)
{
    outr__chain other;
    if (verify_once(store, NULL, leaf, untrusted, now_s, out))
        return true;
    bool is_good = false;
    STACK_OF(X509) *all = X509_STORE_get1_all_certs(store);
    for (int i = 0; !is_good && sk_X509_num(all) > 1 && i < sk_X509_num(all); i++)
        is_good = verify_once(store, sk_X509_value(all, i), leaf, untrusted, now_s, &other);
    if (is_good)
        *out = other;
    sk_X509_pop_free(all, X509_free);
    ERR_clear_error();
    return is_good;
}

outr_code outr_cert_verify(outr_str chain_pem, outr_str anchors_pem, int64_t now_s, outr_err *err)
{
    STACK_OF(X509) *chain = read_all(chain_pem), *anchors = read_all(anchors_pem);
    X509_STORE *store = X509_STORE_new();
    outr_code rc = OUTR_OK;
    outr__chain how;
    for (int i = 0; i < sk_X509_num(anchors); i++)
        X509_STORE_add_cert(store, sk_X509_value(anchors, i));
    if (sk_X509_num(chain) == 0)
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "no certificate in PEM form");
    else if (!outr__verify(store, sk_X509_value(chain, 0), chain, now_s, &how))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "%s", X509_verify_cert_error_string(how.error));
    X509_STORE_free(store);
    sk_X509_pop_free(chain, X509_free);
    sk_X509_pop_free(anchors, X509_free);
    ERR_clear_error();
    return rc;
}

bool outr_cert_has_key(outr_str pem, outr_key *key)
{
    BIO *bio = outr__bio_of(pem);
    X509 *x = outr__read_cert(bio);
    bool has = x && X509_check_private_key(x, key) == 1;
    X509_free(x);
    BIO_free(bio);
    ERR_clear_error();
    return has;
}

outr_code outr_cert_uri(outr_buf *uri, outr_str pem, outr_err *err)
{
    BIO *bio = outr__bio_of(pem);
    X509 *x = outr__read_cert(bio);
    GENERAL_NAMES *names = x ? X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL) : NULL;
    outr_str found = OUTR_STR_NONE;
    size_t count = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI)
            continue;
        const ASN1_IA5STRING *text = name->d.uniformResourceIdentifier;
        found = outr_str_of(ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
        count++;
    }
    bool is_good = count == 1 && found.n > 0 && !memchr(found.p, 0, found.n) &&
                   outr_buf_str(uri, found);
    GENERAL_NAMES_free(names);
    X509_free(x);
    BIO_free(bio);
    ERR_clear_error();
    return is_good ? OUTR_OK : outr_fail(err, OUTR_INVALID_ARGUMENT, "not exactly one URI name");
}

void outr_cert_organization(outr_buf *name, outr_str pem)
{
    BIO *bio = outr__bio_of(pem);
    X509 *x = outr__read_cert(bio);
    char text[256];
    int n = x ? X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_organizationName, text,
                                          sizeof text)
              : -1;
    if (n > 0)
        outr_buf_str(name, outr_str_of(text, (size_t)n));
    X509_free(x);
    BIO_free(bio);
    ERR_clear_error();
}

outr_str outr_cert_cut(outr_str pem, outr_str *one)
{
    const outr_str begin = OUTR_STR("-----BEGIN CERTIFICATE-----");
    const outr_str end = OUTR_STR("-----END CERTIFICATE-----");
    ptrdiff_t from = outr_str_search(pem, begin);
    outr_str rest = outr_str_skip(pem, from < 0 ? pem.n : (size_t)from);
    ptrdiff_t to = outr_str_search(rest, end);
    *one = OUTR_STR_NONE;
    if (from < 0 || to < 0)
        return OUTR_STR_NONE;
    *one = outr_str_head(rest, (size_t)to + end.n);
    return outr_str_skip(rest, one->n);
}

/* ---- signing --------------------------------------------------------------------------------- */

static bool set_serial(X509 *x)
{
    unsigned char bytes[SERIAL_BYTES];
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return false;
    bytes[0] &= 0x7f; /* positive: RFC 5280 section 4.1.2.2 */
    BIGNUM *number = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool is_ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x));
    BN_free(number);
    return is_ok;
}

static bool add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool is_ok = e && X509_add_ext(x, e, -1) == 1;
    X509_EXTENSION_free(e);
    return is_ok;
}

/* Not by OpenSSL's text form, in which a comma would begin another name. */
static bool add_uri(X509 *x, outr_str uri)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    bool is_ok = names && name && text && ASN1_STRING_set(text, uri.p, (int)uri.n) == 1;
    if (is_ok) {
        GENERAL_NAME_set0_value(name, GEN_URI, text);
        sk_GENERAL_NAME_push(names, name);
        is_ok = X509_add1_ext_i2d(x, NID_subject_alt_name, names, 1, 0) == 1;
    } else {
        ASN1_IA5STRING_free(text);
        GENERAL_NAME_free(name);
    }
    GENERAL_NAMES_free(names);
    return is_ok;
}

static bool add_constraint(X509 *x, X509 *issuer, const char *domain)
{
    char value[300];
    snprintf(value, sizeof value, "critical,permitted;URI:%s", domain);
    return add_extension(x, issuer, NID_name_constraints, value);
}

static bool fill(X509 *x, X509 *issuer, const outr_cert_order *o)
{
    X509_NAME *subject = X509_get_subject_name(x);
    return X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) &&
           ASN1_TIME_set(X509_getm_notBefore(x), (time_t)o->not_before_s) &&
           ASN1_TIME_set(X509_getm_notAfter(x), (time_t)o->not_after_s) &&
           X509_set_pubkey(x, o->subject_key) == 1 &&
           (o->organization.n == 0 ||
            X509_NAME_add_entry_by_NID(subject, NID_organizationName, MBSTRING_UTF8,
                                       (const unsigned char *)o->organization.p,
                                       (int)o->organization.n, -1, 0) == 1) &&
           X509_set_issuer_name(x, X509_get_subject_name(issuer)) == 1 &&
           add_extension(x, issuer, NID_key_usage,
                         !o->is_ca       ? "critical,digitalSignature"
                         : issuer == x ? "critical,digitalSignature,keyCertSign"
                                       : "critical,digitalSignature,keyCertSign,cRLSign") &&
           (o->is_ca ? add_extension(x, issuer, NID_basic_constraints,
                                     o->is_last_ca ? "critical,CA:TRUE,pathlen:0"
                                                   : "critical,CA:TRUE") &&
                           add_extension(x, issuer, NID_subject_key_identifier, "hash")
                     : add_extension(x, issuer, NID_ext_key_usage, "serverAuth,clientAuth")) &&
           (o->is_ca || !X509_get0_subject_key_id(issuer) ||
            add_extension(x, issuer, NID_authority_key_identifier, "keyid:always")) &&
           (!o->only_domain || add_constraint(x, issuer, o->only_domain)) &&
           (o->uri.n == 0 || add_uri(x, o->uri));
}

outr_code outr_cert_sign(outr_buf *pem, const outr_cert_order *o, outr_err *err)
{
    X509 *x = X509_new(), *issuer = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    if (o->issuer_pem.n > 0) {
        BIO *in = outr__bio_of(o->issuer_pem);
        issuer = outr__read_cert(in);
        BIO_free(in);
    } else if (x) {
        issuer = x;
        X509_up_ref(x);
    }
    bool is_ok = x && bio && issuer && fill(x, issuer, o) &&
                 X509_sign(x, o->issuer_key, digest_for(o->issuer_key)) > 0 &&
                 PEM_write_bio_X509(bio, x) == 1;
    X509_free(issuer);
    X509_free(x);
    return take_bio(pem, bio, is_ok, "signing a certificate", err);
}
