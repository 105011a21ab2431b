/* tls - contexts and the stream filter (OpenSSL is fenced in this directory).
 *
 * A context is immutable and refcounted (atomically: loops share it); a TLS stream owns the stream
 * below it. TLS 1.2 and later only. */
#ifndef OUTR_TLS_TLS_H
#define OUTR_TLS_TLS_H

#include "loop/op.h"
#include "net/stream.h"
#include "tls/cert.h"

typedef struct outr_tls outr_tls;

typedef struct outr_tls_options {
    bool is_server;
    bool verify_peer; /* client: chain and host name; server: ask for a client certificate */
    /* With verify_peer, instead of host names: a workload's certificate. Exactly one URI name, of
     * which the handshake's check decides; no certificate authority's own; extended key usage is
     * not looked at (contract/security.md "TLS between sidecars"). */
    bool verify_uri;
    bool requires_alpn; /* a peer that agrees on no protocol is refused */
    outr_str ca_pem;    /* trust anchors; NONE: the system's */
    outr_str certificate_pem; /* chain, leaf first; NONE: no certificate */
    outr_str key_pem;
    outr_key *key;           /* instead of key_pem; referenced */
    const char *const *alpn; /* NULL-terminated, in order of preference; NULL: none */
} outr_tls_options;

outr_code outr_tls_new(outr_tls **out, const outr_tls_options *options, outr_err *err);
outr_tls *outr_tls_ref(outr_tls *tls);
void outr_tls_unref(outr_tls *tls);
/* Other certificates and anchors for the handshakes to come, from any thread; the connections there
 * are stay as they are, and no session of before is resumed. What options say beside certificates
 * must be what it was. On failure nothing has changed. */
outr_code outr_tls_renew(outr_tls *tls, const outr_tls_options *options, outr_err *err);
/* Our own certificate's end, Unix time; 0: none. Any thread. */
int64_t outr_tls_expires(outr_tls *tls);

/* What a certificate's one URI name must be. uri has no NUL that it does not have a length for. */
typedef struct outr_tls_check {
    outr_code (*judge)(const void *ctx, outr_str uri, outr_err *err); /* NULL: any */
    const void *ctx;
} outr_tls_check;

/* Where a client keeps what lets it resume a session with one peer. One loop's. */
typedef struct outr_tls_sessions outr_tls_sessions;
outr_tls_sessions *outr_tls_sessions_new(void);
outr_tls_sessions *outr_tls_sessions_ref(outr_tls_sessions *sessions);
void outr_tls_sessions_unref(outr_tls_sessions *sessions);

/* Why a handshake failed, for metrics: one of a few words. */
#define OUTR_TLS_PLAIN        "plain_text"      /* the peer does not speak TLS */
#define OUTR_TLS_CLOSED       "closed"          /* it left in the middle */
#define OUTR_TLS_TIMEOUT      "timeout"         /* or was too slow */
#define OUTR_TLS_PROTOCOL     "protocol"        /* no common version, cipher; broken bytes */
#define OUTR_TLS_ALPN         "no_alpn"         /* no common application protocol */
#define OUTR_TLS_NO_CERT      "no_certificate"  /* it showed none */
#define OUTR_TLS_UNTRUSTED    "untrusted"       /* no way to a trust anchor */
#define OUTR_TLS_EXPIRED      "expired"         /* of its chain */
#define OUTR_TLS_NOT_YET      "not_yet_valid"   /* of its chain */
#define OUTR_TLS_IDENTITY     "identity"        /* not one URI name, or not the one wanted */
#define OUTR_TLS_REFUSED      "refused_by_peer" /* an alert came */
#define OUTR_TLS_OWN_EXPIRED  "own_expired"     /* ours is over */
/* And why an established connection is broken off, in outr_stream.why: */
#define OUTR_TLS_RENEGOTIATION "renegotiation" /* asked for in TLS 1.2 */
/* Of a port without TLS, when somebody begins a handshake there: */
#define OUTR_TLS_UNEXPECTED "tls_on_plain_port"

/* Handshake over own_below; server_name is for SNI and the name check (an IP literal sends no SNI).
 * On success the stream is the caller's; on failure own_below is closed. */
typedef struct outr_tls_handshake {
    outr_tls *tls;
    outr_stream *own_below;
    outr_str server_name; /* NONE on the server side */
    outr_tls_check check; /* of verify_uri */
    outr_tls_sessions *sessions; /* client; NULL: each handshake is a full one */
    /* out */
    outr_stream *stream;
    const char *reason; /* OUTR_TLS_*, when it failed; NULL: something else did */
    bool was_resumed;
} outr_tls_handshake;
void outr_tls_handshake_start(outr_tls_handshake *req, outr_op *op);
/* Whether the peer's certificates still lead to the anchors of the context as it is now. */
bool outr_tls_is_covered(const outr_stream *stream);

#endif
