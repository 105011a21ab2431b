#include "tls/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define PLAIN_PIECE ((size_t)16384) /* one TLS record */

struct outr_tls {
    uint32_t refs; /* atomic */
    SSL_CTX *ctx;
    bool is_server, verify_peer;
    unsigned char alpn[64]; /* length-prefixed */
    unsigned alpn_n;
};

static outr_code fail_ssl(outr_err *err, outr_code code, const char *what)
{
    char text[160] = "unknown error";
    unsigned long last = ERR_peek_last_error();
    if (last)
        ERR_error_string_n(last, text, sizeof text);
    ERR_clear_error();
    return outr_fail(err, code, "%s: %s", what, text);
}

/* ---- contexts -------------------------------------------------------------------------------- */

static BIO *bio_of(outr_str pem)
{
    return BIO_new_mem_buf(pem.p, (int)pem.n);
}

static outr_code load_anchors(SSL_CTX *ctx, outr_str pem, outr_err *err)
{
    BIO *bio = bio_of(pem);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    size_t count = 0;
    for (X509 *x; (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)); count++) {
        X509_STORE_add_cert(store, x);
        X509_free(x);
    }
    BIO_free(bio);
    ERR_clear_error();
    return count
               ? OUTR_OK
               : outr_fail(err, OUTR_INVALID_ARGUMENT, "trust anchors: no certificate in PEM form");
}

static outr_code load_identity(SSL_CTX *ctx, const outr_tls_options *o, outr_err *err)
{
    BIO *bio = bio_of(o->certificate_pem);
    X509 *leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    outr_code rc = leaf && SSL_CTX_use_certificate(ctx, leaf) == 1
                       ? OUTR_OK
                       : fail_ssl(err, OUTR_INVALID_ARGUMENT, "certificate");
    for (X509 *x; !rc && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL));) {
        if (SSL_CTX_add0_chain_cert(ctx, x) != 1)
            X509_free(x);
    }
    X509_free(leaf);
    BIO_free(bio);
    ERR_clear_error();
    if (rc)
        return rc;
    bio = bio_of(o->key_pem);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    if (!key || SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        rc = fail_ssl(err, OUTR_INVALID_ARGUMENT, "private key");
    EVP_PKEY_free(key);
    BIO_free(bio);
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
    if (tls->alpn_n && tls->is_server)
        SSL_CTX_set_alpn_select_cb(tls->ctx, select_alpn, tls);
    else if (tls->alpn_n)
        SSL_CTX_set_alpn_protos(tls->ctx, tls->alpn, tls->alpn_n);
}

outr_code outr_tls_new(outr_tls **out, const outr_tls_options *o, outr_err *err)
{
    outr_tls *tls = outr_alloc(sizeof *tls);
    outr_code rc = OUTR_OK;
    tls->refs = 1;
    tls->is_server = o->is_server;
    tls->verify_peer = o->verify_peer;
    tls->ctx = SSL_CTX_new(o->is_server ? TLS_server_method() : TLS_client_method());
    if (!tls->ctx) {
        free(tls);
        return fail_ssl(err, OUTR_INTERNAL, "TLS context");
    }
    SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(tls->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(tls->ctx, SSL_MODE_RELEASE_BUFFERS);
    set_alpn(tls, o->alpn);
    if (o->ca_pem.n)
        rc = load_anchors(tls->ctx, o->ca_pem, err);
    else if (o->verify_peer && !o->is_server)
        SSL_CTX_set_default_verify_paths(tls->ctx);
    if (!rc && o->certificate_pem.n)
        rc = load_identity(tls->ctx, o, err);
    SSL_CTX_set_verify(tls->ctx,
                       o->verify_peer
                           ? SSL_VERIFY_PEER | (o->is_server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0)
                           : SSL_VERIFY_NONE,
                       NULL);
    if (rc) {
        outr_tls_unref(tls);
        return rc;
    }
    *out = tls;
    return OUTR_OK;
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
    free(tls);
}

/* ---- the filter ------------------------------------------------------------------------------ */

typedef struct tls_stream {
    outr_stream base;
    outr_stream *below;
    outr_tls *tls;
    SSL *ssl;
    BIO *in, *out;               /* memory; owned by ssl */
    outr_bufq plain;             /* written by the owner before the handshake was done */
    outr_deferred reader;        /* goes on decrypting outside of read_start */
    outr_tls_handshake *request; /* while shaking hands */
    outr_op *op;
    bool wants_read, wants_shutdown, is_open, saw_eof, told_eof, is_failed;
    bool has_bad_name;
} tls_stream;

static tls_stream *of(outr_stream *s)
{
    return OUTR_CONTAINER(s, tls_stream, base);
}

static void flush_out(tls_stream *t)
{
    char buffer[PLAIN_PIECE];
    outr_bufq bytes = {0};
    int n;
    while ((n = BIO_read(t->out, buffer, sizeof buffer)) > 0)
        outr_bufq_copy(&bytes, buffer, (size_t)n);
    if (bytes.bytes > 0 && t->below)
        outr_stream_write(t->below, &bytes);
    outr_bufq_done(&bytes);
    if (t->below)
        t->base.pending_bytes = t->below->pending_bytes;
}

static void fail_stream(tls_stream *t, const outr_err *err)
{
    if (t->is_failed || t->base.is_closing)
        return;
    t->is_failed = true;
    t->base.events->on_error(&t->base, err);
}

/* Decrypts while the owner wants bytes; what it does not want stays encrypted below. */
static void read_plain(tls_stream *t)
{
    while (t->wants_read && !t->base.is_closing && !t->is_failed) {
        outr_chunk *chunk = outr_chunk_new(PLAIN_PIECE);
        ERR_clear_error(); /* kept per thread: what another connection left is not our failure */
        int n = SSL_read(t->ssl, chunk->bytes, (int)chunk->cap);
        if (n > 0) {
            t->base.events->on_data(&t->base, chunk, chunk->bytes, (size_t)n);
            outr_chunk_unref(chunk);
            continue;
        }
        outr_chunk_unref(chunk);
        int why = SSL_get_error(t->ssl, n);
        flush_out(t);
        if (why == SSL_ERROR_ZERO_RETURN) {
            if (!t->told_eof) {
                t->told_eof = true;
                t->base.events->on_eof(&t->base);
            }
        } else if (why == SSL_ERROR_WANT_READ && t->saw_eof) {
            outr_err err; /* no close_notify: the bytes may have been cut off by anyone */
            outr_fail(&err, OUTR_UNAVAILABLE, "TLS connection was truncated");
            fail_stream(t, &err);
        } else if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
            outr_err err;
            fail_ssl(&err, OUTR_UNAVAILABLE, "TLS read");
            fail_stream(t, &err);
        }
        return;
    }
}

static void on_reader(outr_deferred *deferred)
{
    tls_stream *t = OUTR_CONTAINER(deferred, tls_stream, reader);
    read_plain(t);
    if (t->wants_read && t->below && !t->base.is_closing)
        outr_stream_read_start(t->below);
}

static void read_start(outr_stream *s)
{
    tls_stream *t = of(s);
    t->wants_read = true;
    outr_loop_defer(s->loop, &t->reader);
}

static void read_stop(outr_stream *s)
{
    tls_stream *t = of(s);
    t->wants_read = false;
    if (t->below && t->is_open)
        outr_stream_read_stop(t->below);
}

static void write_plain(tls_stream *t)
{
    while (t->plain.count > 0) {
        outr_slice slice = outr_bufq_pop(&t->plain);
        while (slice.n > 0) {
            int n = SSL_write(t->ssl, slice.p, (int)OUTR_MIN(slice.n, PLAIN_PIECE));
            if (n <= 0)
                break; /* memory BIOs take everything; a broken session is told by reading */
            slice.p += n;
            slice.n -= (size_t)n;
        }
        outr_slice_done(&slice);
    }
    flush_out(t);
}

static void do_write(outr_stream *s, outr_bufq *own_bytes)
{
    tls_stream *t = of(s);
    outr_bufq_move(&t->plain, own_bytes);
    outr_bufq_done(own_bytes);
    if (t->is_open && !t->is_failed)
        write_plain(t);
}

static void do_shutdown(outr_stream *s)
{
    tls_stream *t = of(s);
    if (t->is_failed || !t->below)
        return;
    SSL_shutdown(t->ssl); /* close_notify; reading goes on */
    flush_out(t);
    outr_stream_shutdown(t->below);
}

static void do_close(outr_stream *s, bool is_reset)
{
    tls_stream *t = of(s);
    outr_loop_undefer(&t->reader);
    if (!is_reset && t->is_open && !t->is_failed) {
        SSL_shutdown(t->ssl);
        flush_out(t);
    }
    if (is_reset)
        outr_stream_reset(t->below);
    else
        outr_stream_close(t->below);
}

static void do_nodelay(outr_stream *s, bool on)
{
    if (of(s)->below)
        of(s)->below->ops->nodelay(of(s)->below, on);
}

static const outr_stream_ops tls_ops = {.read_start = read_start,
                                        .read_stop = read_stop,
                                        .write = do_write,
                                        .shutdown = do_shutdown,
                                        .close = do_close,
                                        .nodelay = do_nodelay};

/* ---- handshake ------------------------------------------------------------------------------- */

static void end_handshake(tls_stream *t, const outr_err *err)
{
    outr_op *op = t->op;
    t->op = NULL;
    if (!op)
        return;
    if (err) {
        outr_err copy = *err;
        outr_stream_close(&t->base);
        outr_op_fail(op, &copy);
        return;
    }
    t->is_open = true;
    t->request->stream = &t->base;
    const unsigned char *alpn;
    unsigned n;
    SSL_get0_alpn_selected(t->ssl, &alpn, &n);
    t->base.alpn = n ? outr_str_of(alpn, n) : OUTR_STR_NONE;
    outr_stream_read_stop(t->below);
    outr_op_finish(op);
}

static void step_handshake(tls_stream *t)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(t->ssl);
    flush_out(t);
    if (rc == 1) {
        end_handshake(t, NULL);
        return;
    }
    int why = SSL_get_error(t->ssl, rc);
    outr_err err;
    if (why == SSL_ERROR_WANT_READ && !t->saw_eof)
        return;
    long verdict = SSL_get_verify_result(t->ssl);
    if (t->saw_eof)
        outr_fail(&err, OUTR_UNAVAILABLE, "TLS handshake: the peer closed the connection");
    else if (verdict != X509_V_OK)
        outr_fail(&err, OUTR_UNAVAILABLE, "TLS handshake: %s",
                  X509_verify_cert_error_string(verdict));
    else
        fail_ssl(&err, OUTR_UNAVAILABLE, "TLS handshake");
    end_handshake(t, &err);
}

static void below_data(outr_stream *below, outr_chunk *chunk OUTR_UNUSED, const char *p, size_t n)
{
    tls_stream *t = below->owner;
    BIO_write(t->in, p, (int)n);
    if (t->is_open)
        read_plain(t);
    else
        step_handshake(t);
}

static void below_eof(outr_stream *below)
{
    tls_stream *t = below->owner;
    t->saw_eof = true;
    if (t->is_open)
        read_plain(t);
    else
        step_handshake(t);
}

static void below_drain(outr_stream *below)
{
    tls_stream *t = below->owner;
    t->base.pending_bytes = below->pending_bytes;
    if (t->is_open && t->base.events && t->base.events->on_drain && !t->base.is_closing)
        t->base.events->on_drain(&t->base);
}

static void below_error(outr_stream *below, const outr_err *err)
{
    tls_stream *t = below->owner;
    if (t->is_open)
        fail_stream(t, err);
    else
        end_handshake(t, err);
}

static void below_closed(outr_stream *below)
{
    tls_stream *t = below->owner;
    t->below = NULL;
    outr_loop_undefer(&t->reader);
    if (t->base.events && t->base.events->on_closed)
        t->base.events->on_closed(&t->base);
    outr_bufq_done(&t->plain);
    SSL_free(t->ssl);
    outr_tls_unref(t->tls);
    free(t);
}

static const outr_stream_events below_events = {.on_data = below_data,
                                                .on_eof = below_eof,
                                                .on_drain = below_drain,
                                                .on_error = below_error,
                                                .on_closed = below_closed};

static void on_cancel(outr_op *op)
{
    tls_stream *t = op->impl;
    t->op = NULL;
    outr_stream_close(&t->base);
    outr_op_finish(op);
}

/* False for what is no host name: nobody's certificate may be taken for it. */
static bool expect_name(tls_stream *t, outr_str name)
{
    char host[256];
    outr_addr addr;
    if (name.n == 0)
        return true;
    if (name.n >= sizeof host || memchr(name.p, 0, name.n))
        return false;
    memcpy(host, name.p, name.n);
    host[name.n] = 0;
    bool is_ip = outr_addr_from_ip(&addr, name, 0, NULL) == OUTR_OK;
    if (!is_ip && SSL_set_tlsext_host_name(t->ssl, host) != 1) /* RFC 6066: no literal addresses */
        return false;
    if (!t->tls->verify_peer)
        return true;
    return is_ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), host) == 1
                 : SSL_set1_host(t->ssl, host) == 1;
}

static void on_begin(outr_deferred *deferred)
{
    tls_stream *t = OUTR_CONTAINER(deferred, tls_stream, reader);
    t->reader.run = on_reader;
    if (t->has_bad_name) {
        outr_err err;
        outr_fail(&err, OUTR_INVALID_ARGUMENT, "TLS handshake: the server's name is no host name");
        end_handshake(t, &err);
        return;
    }
    outr_stream_read_start(t->below);
    step_handshake(t);
}

void outr_tls_handshake_start(outr_tls_handshake *req, outr_op *op)
{
    outr_stream *below = req->own_below;
    tls_stream *t = outr_alloc(sizeof *t);
    t->base = (outr_stream){.ops = &tls_ops,
                            .loop = below->loop,
                            .peer = below->peer,
                            .local = below->local,
                            .high_water = below->high_water,
                            .low_water = below->low_water,
                            .is_secure = true};
    t->below = below;
    t->tls = outr_tls_ref(req->tls);
    t->ssl = SSL_new(req->tls->ctx);
    t->in = BIO_new(BIO_s_mem());
    t->out = BIO_new(BIO_s_mem());
    t->request = req;
    t->op = op;
    SSL_set_bio(t->ssl, t->in, t->out);
    if (req->tls->is_server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    t->has_bad_name = !expect_name(t, req->server_name);
    below->owner = t;
    below->events = &below_events;
    req->stream = NULL;
    t->reader.run = on_begin;
    outr_op_begin(op, t, on_cancel);
    outr_loop_defer(below->loop, &t->reader);
}
