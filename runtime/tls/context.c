#include "tls/internal.h"

/* Contexts, and who is let in by them. */

/* TLS 1.2 as Go's gRPC has it; those of 1.3 are all good */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"

outr_code outr__fail_ssl(outr_err *err, outr_code code, const char *what)
{
    char text[160] = "unknown error";
    unsigned long last = ERR_peek_last_error();
    if (last)
        ERR_error_string_n(last, text, sizeof text);
    ERR_clear_error();
    return outr_fail(err, code, "%s: %s", what, text);
}

/* ---- what it is made of ---------------------------------------------------------------------- */

static outr_code load_anchors(SSL_CTX *ctx, outr_str pem, outr_err *err)
{
    BIO *bio = outr__bio_of(pem);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    size_t count = 0;
    for (X509 *x; (x = outr__read_cert(bio)); count++) {
        X509_STORE_add_cert(store, x);
        X509_free(x);
    }
    BIO_free(bio);
    ERR_clear_error();
    return count
               ? OUTR_OK
               : outr_fail(err, OUTR_INVALID_ARGUMENT, "trust anchors: no certificate in PEM form");
}

static outr_code load_identity(SSL_CTX *ctx, const outr_tls_options *o, int64_t *expires_s,
                               outr_err *err)
{
    BIO *bio = outr__bio_of(o->certificate_pem);
    X509 *leaf = outr__read_cert(bio);
    outr_code rc = leaf && SSL_CTX_use_certificate(ctx, leaf) == 1
                       ? OUTR_OK
                       : outr__fail_ssl(err, OUTR_INVALID_ARGUMENT, "certificate");
    if (!rc)
        *expires_s = outr__unix_of(X509_get0_notAfter(leaf));
    for (X509 *x; !rc && (x = outr__read_cert(bio));) {
        *expires_s = OUTR_MIN(*expires_s, outr__unix_of(X509_get0_notAfter(x)));
        if (SSL_CTX_add0_chain_cert(ctx, x) != 1)
            X509_free(x);
    }
    X509_free(leaf);
    BIO_free(bio);
    ERR_clear_error();
    if (rc)
        return rc;
    EVP_PKEY *key = o->key;
    if (key) {
        EVP_PKEY_up_ref(key);
    } else {
        bio = outr__bio_of(o->key_pem);
        key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
        BIO_free(bio);
    }
    if (!key || SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        rc = outr__fail_ssl(err, OUTR_INVALID_ARGUMENT, "private key");
    EVP_PKEY_free(key);
    return rc;
}

static int select_alpn(SSL *ssl OUTR_UNUSED, const unsigned char **out, unsigned char *out_n,
                       const unsigned char *in, unsigned in_n, void *arg)
{
    const outr_tls *tls = arg;
    int rc = SSL_select_next_proto((unsigned char **)out, out_n, tls->alpn, tls->alpn_n, in, in_n);
    return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void set_alpn(outr_tls *tls, const char *const *names)
{
    for (; names && *names; names++) {
        size_t n = strlen(*names);
        if (tls->alpn_n + n + 1 > sizeof tls->alpn)
            return;
        tls->alpn[tls->alpn_n++] = (unsigned char)n;
        memcpy(tls->alpn + tls->alpn_n, *names, n);
        tls->alpn_n += (unsigned)n;
    }
}

/* ---- who the peer is ------------------------------------------------------------------------- */

static outr__verdict *verdict_of(const SSL *ssl)
{
    return SSL_get_app_data(ssl);
}

static outr_code not_him(outr__verdict *v, const char *reason, const char *fmt, ...)
    OUTR_PRINTF(3, 4);
static outr_code not_him(outr__verdict *v, const char *reason, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    v->reason = reason;
    return outr_fail(&v->err, OUTR_UNAVAILABLE, "%s", text);
}

/* The one URI name: the caller's, with its length. NULL: none, or more than one. */
static ASN1_IA5STRING *only_uri(X509 *leaf, size_t *count)
{
    ASN1_IA5STRING *found = NULL;
    int critical = 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, &critical, NULL);
    *count = critical == -2 ? 2 : 0; /* the extension is there twice */
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI)
            continue;
        if (++*count == 1)
            found = ASN1_STRING_dup(name->d.uniformResourceIdentifier);
    }
    GENERAL_NAMES_free(names);
    if (*count == 1)
        return found;
    ASN1_STRING_free(found);
    return NULL;
}

static outr_code judge_leaf(outr__verdict *v, X509 *leaf)
{
    size_t count;
    uint32_t usage = X509_get_key_usage(leaf); /* all bits when it says nothing */
    if (X509_check_ca(leaf) == 1)
        return not_him(v, OUTR_TLS_IDENTITY, "leaf certificate with CA flag set to true");
    if (usage != UINT32_MAX && usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN))
        return not_him(v, OUTR_TLS_IDENTITY, "leaf certificate with %s key usage",
                       usage & KU_KEY_CERT_SIGN ? "KeyCertSign" : "KeyCrlSign");
    ASN1_IA5STRING *uri = only_uri(leaf, &count);
    if (!uri)
        return not_him(v, OUTR_TLS_IDENTITY,
                       "could not get leaf SPIFFE ID: certificate contains %s",
                       count ? "more than one URI SAN" : "no URI SAN");
    outr_str id = outr_str_of(ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri));
    outr_err err;
    outr_code rc = OUTR_OK;
    if (memchr(id.p, 0, id.n))
        rc = not_him(v, OUTR_TLS_IDENTITY, "a NUL stands in the URI of the certificate");
    else if (v->check.judge && v->check.judge(v->check.ctx, id, &err))
        rc = not_him(v, OUTR_TLS_IDENTITY, "%s", err.text);
    if (!rc) {
        free(v->id);
        v->id = outr_str_dup(id);
        v->id_n = id.n;
    }
    ASN1_STRING_free(uri);
    return rc;
}

static const char *reason_of_verify(int error)
{
    if (error == X509_V_ERR_CERT_HAS_EXPIRED)
        return OUTR_TLS_EXPIRED;
    return error == X509_V_ERR_CERT_NOT_YET_VALID ? OUTR_TLS_NOT_YET : OUTR_TLS_UNTRUSTED;
}

/* Instead of OpenSSL's own: the chain, then the name. Whatever is wrong, the peer hears of a bad
 * certificate and no more, as from daprd. */
static int verify_uri(X509_STORE_CTX *store, void *arg OUTR_UNUSED)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    outr__verdict *v = verdict_of(ssl);
    X509 *leaf = X509_STORE_CTX_get0_cert(store);
    outr__chain chain;
    bool is_good = outr__verify(X509_STORE_CTX_get0_store(store), leaf,
                                X509_STORE_CTX_get0_untrusted(store), 0, &chain);
    if (!is_good)
        not_him(v, reason_of_verify(chain.error), "could not verify leaf certificate: %s",
                X509_verify_cert_error_string(chain.error));
    else
        is_good = judge_leaf(v, leaf) == OUTR_OK;
    v->expires_s = chain.ends_s;
    memcpy(v->anchor, chain.anchor, sizeof v->anchor);
    ERR_clear_error();
    X509_STORE_CTX_set_error(store, is_good ? X509_V_OK : X509_V_ERR_CERT_REJECTED);
    return is_good;
}

outr_code outr__judge_resumed(SSL *ssl, outr__verdict *v, outr_err *err)
{
    X509 *leaf = SSL_get0_peer_certificate(ssl);
    if (!leaf)
        return outr_fail(err, OUTR_UNAVAILABLE, "a resumed session without a certificate");
    if (judge_leaf(v, leaf)) {
        *err = v->err;
        return err->code;
    }
    return OUTR_OK;
}

/* ---- sessions -------------------------------------------------------------------------------- */

/* OpenSSL does not look at certificates again when a session is resumed: when the first of them
 * ends, so does the ticket. The server writes that into the ticket, with the anchor it went by, the
 * client keeps it beside. A context that is renewed has new keys for tickets, so those of before
 * are worth nothing. */
typedef struct ticket {
    int64_t expires_s;
    unsigned char anchor[SHA256_DIGEST_LENGTH];
} ticket;

static int write_ticket(SSL *ssl, void *arg OUTR_UNUSED)
{
    const outr__verdict *v = verdict_of(ssl);
    ticket t = {.expires_s = v->expires_s};
    memcpy(t.anchor, v->anchor, sizeof t.anchor);
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), &t, sizeof t) == 1;
}

static SSL_TICKET_RETURN read_ticket(SSL *ssl, SSL_SESSION *session,
                                     const unsigned char *name OUTR_UNUSED, size_t n OUTR_UNUSED,
                                     SSL_TICKET_STATUS status, void *arg OUTR_UNUSED)
{
    outr__verdict *v = verdict_of(ssl);
    void *data = NULL;
    size_t size = 0;
    ticket t;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (SSL_SESSION_get0_ticket_appdata(session, &data, &size) != 1 || size != sizeof t)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    memcpy(&t, data, sizeof t);
    if (t.expires_s <= (int64_t)time(NULL))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    v->expires_s = t.expires_s;
    memcpy(v->anchor, t.anchor, sizeof v->anchor);
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

static int keep_session(SSL *ssl, SSL_SESSION *own_session)
{
    outr__verdict *v = verdict_of(ssl);
    outr_tls_sessions *s = v ? v->sessions : NULL;
    if (!s)
        return 0;
    SSL_SESSION_free(s->session);
    /* the verdict's time is the session's: no appdata on this side but a timeout does the same */
    int64_t left_s = v->expires_s - (int64_t)time(NULL);
    SSL_SESSION_set_timeout(own_session, (long)OUTR_MAX(OUTR_MIN(left_s, (int64_t)86400), 0));
    s->session = own_session;
    s->generation = v->generation;
    memcpy(s->anchor, v->anchor, sizeof s->anchor);
    return 1;
}

outr_tls_sessions *outr_tls_sessions_new(void)
{
    outr_tls_sessions *s = outr_alloc(sizeof *s);
    s->refs = 1;
    return s;
}

outr_tls_sessions *outr_tls_sessions_ref(outr_tls_sessions *sessions)
{
    if (sessions)
        sessions->refs++;
    return sessions;
}

void outr_tls_sessions_unref(outr_tls_sessions *sessions)
{
    if (!sessions || --sessions->refs > 0)
        return;
    SSL_SESSION_free(sessions->session);
    free(sessions);
}

/* ---- contexts -------------------------------------------------------------------------------- */

/* OpenSSL says no and goes on; whoever asks is no peer of ours. */
static void note_alert(const SSL *ssl, int where, int value)
{
    outr__verdict *v = verdict_of(ssl);
    if (v && where == SSL_CB_WRITE_ALERT && (value & 0xff) == SSL_AD_NO_RENEGOTIATION)
        v->wants_to_renegotiate = true;
}

static void set_uri_rules(const outr_tls *tls, SSL_CTX *ctx)
{
    static const unsigned char id[] = "outrigger";
    SSL_CTX_set_cipher_list(ctx, CIPHERS);
    SSL_CTX_set_cert_verify_callback(ctx, verify_uri, NULL);
    SSL_CTX_set_info_callback(ctx, note_alert);
    SSL_CTX_set_session_id_context(ctx, id, sizeof id - 1);
    SSL_CTX_set_session_ticket_cb(ctx, write_ticket, read_ticket, NULL);
    if (tls->is_server) {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets are enough */
        SSL_CTX_set_num_tickets(ctx, 1);
        return;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, keep_session);
}

static outr_code make_context(SSL_CTX **out, int64_t *expires_s, outr_tls *tls,
                              const outr_tls_options *o, outr_err *err)
{
    SSL_CTX *ctx = SSL_CTX_new(o->is_server ? TLS_server_method() : TLS_client_method());
    outr_code rc = OUTR_OK;
    if (!ctx)
        return outr__fail_ssl(err, OUTR_INTERNAL, "TLS context");
    *expires_s = 0;
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    if (tls->alpn_n && o->is_server)
        SSL_CTX_set_alpn_select_cb(ctx, select_alpn, tls);
    else if (tls->alpn_n)
        SSL_CTX_set_alpn_protos(ctx, tls->alpn, tls->alpn_n);
    if (o->ca_pem.n)
        rc = load_anchors(ctx, o->ca_pem, err);
    else if (o->verify_peer && !o->is_server)
        SSL_CTX_set_default_verify_paths(ctx);
    if (!rc && o->certificate_pem.n)
        rc = load_identity(ctx, o, expires_s, err);
    SSL_CTX_set_verify(ctx,
                       o->verify_peer
                           ? SSL_VERIFY_PEER | (o->is_server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0)
                           : SSL_VERIFY_NONE,
                       NULL);
    if (o->verify_uri)
        set_uri_rules(tls, ctx);
    if (rc) {
        SSL_CTX_free(ctx);
        return rc;
    }
    *out = ctx;
    return OUTR_OK;
}

outr_code outr_tls_new(outr_tls **out, const outr_tls_options *o, outr_err *err)
{
    outr_tls *tls = outr_alloc(sizeof *tls);
    tls->refs = 1;
    tls->is_server = o->is_server;
    tls->verify_peer = o->verify_peer;
    tls->verify_uri = o->verify_uri;
    tls->requires_alpn = o->requires_alpn;
    pthread_mutex_init(&tls->lock, NULL);
    set_alpn(tls, o->alpn);
    outr_code rc = make_context(&tls->ctx, &tls->expires_s, tls, o, err);
    if (rc) {
        outr_tls_unref(tls);
        return rc;
    }
    *out = tls;
    return OUTR_OK;
}

outr_code outr_tls_renew(outr_tls *tls, const outr_tls_options *o, outr_err *err)
{
    SSL_CTX *ctx, *before;
    int64_t expires_s;
    outr_code rc = make_context(&ctx, &expires_s, tls, o, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&tls->lock);
    before = tls->ctx;
    tls->ctx = ctx;
    tls->expires_s = expires_s;
    tls->generation++;
    pthread_mutex_unlock(&tls->lock);
    SSL_CTX_free(before); /* connections made by it hold it */
    return OUTR_OK;
}

int64_t outr_tls_expires(outr_tls *tls)
{
    pthread_mutex_lock(&tls->lock);
    int64_t expires_s = tls->expires_s;
    pthread_mutex_unlock(&tls->lock);
    return expires_s;
}

SSL *outr__ssl_new(outr_tls *tls, outr__verdict *v, int64_t *own_expires_s)
{
    pthread_mutex_lock(&tls->lock);
    SSL *ssl = SSL_new(tls->ctx);
    *own_expires_s = tls->expires_s;
    v->generation = tls->generation;
    pthread_mutex_unlock(&tls->lock);
    SSL_set_app_data(ssl, v);
    outr_tls_sessions *s = v->sessions;
    if (s && s->session && s->generation == v->generation) {
        SSL_set_session(ssl, s->session);
        memcpy(v->anchor, s->anchor, sizeof v->anchor); /* a full handshake says which one itself */
    }
    return ssl;
}

static bool has_anchor(X509_STORE *store, const unsigned char *anchor)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    bool has = false;
    STACK_OF(X509) *all = X509_STORE_get1_all_certs(store);
    for (int i = 0; !has && i < sk_X509_num(all); i++)
        has = X509_digest(sk_X509_value(all, i), EVP_sha256(), hash, NULL) == 1 &&
              memcmp(hash, anchor, sizeof hash) == 0;
    sk_X509_pop_free(all, X509_free);
    return has;
}

bool outr__is_covered(outr_tls *tls, const SSL *ssl, const outr__verdict *v)
{
    X509 *leaf = SSL_get0_peer_certificate(ssl);
    if (!leaf)
        return true; /* nobody was asked */
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *ctx = tls->ctx;
    SSL_CTX_up_ref(ctx);
    pthread_mutex_unlock(&tls->lock);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    outr__chain how; /* of a resumed session only the leaf is left: the anchor's hash tells */
    bool is_good = has_anchor(store, v->anchor) ||
                   outr__verify(store, leaf, SSL_get_peer_cert_chain(ssl), 0, &how);
    SSL_CTX_free(ctx);
    return is_good;
}

outr_tls *outr_tls_ref(outr_tls *tls)
{
    __atomic_fetch_add(&tls->refs, 1, __ATOMIC_RELAXED);
    return tls;
}

void outr_tls_unref(outr_tls *tls)
{
    if (!tls || __atomic_sub_fetch(&tls->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    SSL_CTX_free(tls->ctx);
    pthread_mutex_destroy(&tls->lock);
    free(tls);
}
