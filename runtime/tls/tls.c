#include "tls/internal.h"

#define PLAIN_PIECE ((size_t)16384) /* one TLS record */

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
    outr__verdict verdict;
    int64_t own_expires_s; /* of our chain; 0: none */
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
        if (t->verdict.wants_to_renegotiate) {
            outr_err err;
            outr_chunk_unref(chunk);
            flush_out(t);
            t->base.why = OUTR_TLS_RENEGOTIATION;
            outr_fail(&err, OUTR_UNAVAILABLE, "the peer wants to renegotiate (reason: %s)",
                      t->base.why);
            fail_stream(t, &err);
            return;
        }
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
            outr__fail_ssl(&err, OUTR_UNAVAILABLE, "TLS read");
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

/* Between sidecars the word by which metrics count a refusal stands in what logs and callers get to
 * read, too, however long the rest is. */
static void add_reason(outr_err *err, const char *reason)
{
    char text[64];
    int n = snprintf(text, sizeof text, " (reason: %s)", reason);
    size_t at = OUTR_MIN(strlen(err->text), sizeof err->text - 1 - (size_t)n);
    memcpy(err->text + at, text, (size_t)n + 1);
}

static void end_handshake(tls_stream *t, const outr_err *err, const char *reason)
{
    outr_op *op = t->op;
    t->op = NULL;
    if (!op)
        return;
    t->verdict.check = (outr_tls_check){0}; /* its context need not outlive the request */
    if (err) {
        outr_err copy = *err;
        if (reason && t->tls->verify_uri)
            add_reason(&copy, reason);
        t->request->reason = reason;
        outr_stream_close(&t->base);
        outr_op_fail(op, &copy);
        return;
    }
    t->is_open = true;
    t->request->stream = &t->base;
    outr_stream_read_stop(t->below);
    outr_op_finish(op);
}

static uint64_t loop_time_of(outr_loop *loop, int64_t unix_s)
{
    int64_t left_s = unix_s - outr_loop_unix_ns(loop) / (int64_t)OUTR_SEC;
    if (left_s <= 0)
        return 1; /* long ago */
    return outr_loop_now(loop) + (uint64_t)OUTR_MIN(left_s, INT32_MAX) * OUTR_SEC;
}

/* TLS is agreed on; is it what was asked for? */
static void finish_handshake(tls_stream *t)
{
    outr__verdict *v = &t->verdict;
    outr_err err;
    const unsigned char *alpn;
    unsigned n;
    SSL_get0_alpn_selected(t->ssl, &alpn, &n);
    t->base.alpn = n ? outr_str_of(alpn, n) : OUTR_STR_NONE;
    t->request->was_resumed = SSL_session_reused(t->ssl) == 1;
    if (n == 0 && t->tls->requires_alpn) {
        outr_fail(&err, OUTR_UNAVAILABLE,
                  "authentication handshake failed: cannot check peer: missing selected ALPN "
                  "property");
        end_handshake(t, &err, OUTR_TLS_ALPN);
        return;
    }
    if (t->tls->verify_peer && t->tls->verify_uri) {
        if (t->request->was_resumed && outr__judge_resumed(t->ssl, v, &err)) {
            outr_wrap(&err, "authentication handshake failed");
            end_handshake(t, &err, OUTR_TLS_IDENTITY);
            return;
        }
        if (t->request->was_resumed && !v->expires_s) { /* the client's side of it */
            const SSL_SESSION *session = SSL_get_session(t->ssl);
            v->expires_s =
                (int64_t)SSL_SESSION_get_time(session) + (int64_t)SSL_SESSION_get_timeout(session);
        }
        t->base.peer_id = outr_str_of(v->id, v->id_n);
    }
    int64_t expires_s = v->expires_s;
    if (t->own_expires_s && (!expires_s || t->own_expires_s < expires_s))
        expires_s = t->own_expires_s;
    t->base.expires_ns = expires_s ? loop_time_of(t->base.loop, expires_s) : 0;
    end_handshake(t, NULL, NULL);
}

static const char *reason_of_error(unsigned long last)
{
    if (ERR_GET_LIB(last) != ERR_LIB_SSL)
        return OUTR_TLS_PROTOCOL;
    int reason = ERR_GET_REASON(last);
    switch (reason) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
        return OUTR_TLS_PLAIN;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return OUTR_TLS_NO_CERT;
    case SSL_R_NO_APPLICATION_PROTOCOL:
        return OUTR_TLS_ALPN;
    default:
        return reason > SSL_AD_REASON_OFFSET ? OUTR_TLS_REFUSED : OUTR_TLS_PROTOCOL;
    }
}

static void step_handshake(tls_stream *t)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(t->ssl);
    flush_out(t);
    if (rc == 1) {
        finish_handshake(t);
        return;
    }
    int why = SSL_get_error(t->ssl, rc);
    outr_err err;
    const char *reason;
    if (why == SSL_ERROR_WANT_READ && !t->saw_eof)
        return;
    long verdict = SSL_get_verify_result(t->ssl);
    if (t->verdict.reason) {
        reason = t->verdict.reason;
        err = t->verdict.err;
        outr_wrap(&err, "authentication handshake failed");
    } else if (t->saw_eof) {
        reason = OUTR_TLS_CLOSED;
        outr_fail(&err, OUTR_UNAVAILABLE, "%s: the peer closed the connection",
                  t->tls->verify_uri ? "authentication handshake failed" : "TLS handshake");
    } else if (verdict != X509_V_OK) {
        reason = OUTR_TLS_UNTRUSTED;
        outr_fail(&err, OUTR_UNAVAILABLE, "TLS handshake: %s",
                  X509_verify_cert_error_string(verdict));
    } else {
        reason = reason_of_error(ERR_peek_last_error());
        if (reason == (const char *)OUTR_TLS_PLAIN)
            outr_fail(&err, OUTR_UNAVAILABLE,
                      "authentication handshake failed: first record does not look like a TLS "
                      "handshake");
        else
            outr__fail_ssl(&err, OUTR_UNAVAILABLE, "TLS handshake");
        ERR_clear_error();
    }
    end_handshake(t, &err, reason);
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
        end_handshake(t, err, OUTR_TLS_CLOSED);
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
    outr_tls_sessions_unref(t->verdict.sessions);
    outr_tls_unref(t->tls);
    free(t->verdict.id);
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
    t->verdict.check = (outr_tls_check){0};
    t->request->reason = op->err.code == OUTR_DEADLINE_EXCEEDED ? OUTR_TLS_TIMEOUT : NULL;
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
        end_handshake(t, &err, NULL);
        return;
    }
    if (t->own_expires_s && t->tls->verify_uri &&
        t->own_expires_s * (int64_t)OUTR_SEC <= outr_loop_unix_ns(t->base.loop)) {
        outr_err err; /* the peer would only say that it is bad */
        outr_fail(&err, OUTR_UNAVAILABLE,
                  "authentication handshake failed: this sidecar's own certificate has expired");
        end_handshake(t, &err, OUTR_TLS_OWN_EXPIRED);
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
    t->verdict.check = req->check;
    t->verdict.sessions = req->tls->is_server ? NULL : outr_tls_sessions_ref(req->sessions);
    t->ssl = outr__ssl_new(req->tls, &t->verdict, &t->own_expires_s);
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
    req->reason = NULL;
    req->was_resumed = false;
    t->reader.run = on_begin;
    outr_op_begin(op, t, on_cancel);
    outr_loop_defer(below->loop, &t->reader);
}

bool outr_tls_is_covered(const outr_stream *stream)
{
    if (stream->ops != &tls_ops)
        return true;
    tls_stream *t = OUTR_CONTAINER((outr_stream *)(uintptr_t)stream, tls_stream, base);
    return outr__is_covered(t->tls, t->ssl, &t->verdict);
}
