/* tls - contexts and the stream filter (OpenSSL is fenced in this directory).
 *
 * A context is immutable and refcounted (atomically: loops share it); a TLS stream owns the stream
 * below it. TLS 1.2 and later only. */
#ifndef OUTR_TLS_TLS_H
#define OUTR_TLS_TLS_H

#include "net/stream.h"
#include "loop/op.h"

typedef struct outr_tls outr_tls;

typedef struct outr_tls_options {
    bool is_server;
    bool verify_peer; /* client: chain and host name; server: ask for a client certificate */
    outr_str ca_pem;  /* trust anchors; NONE: the system's */
    outr_str certificate_pem; /* chain, leaf first; NONE: no certificate */
    outr_str key_pem;
    const char *const *alpn; /* NULL-terminated, in order of preference; NULL: none */
} outr_tls_options;

outr_code outr_tls_new(outr_tls **out, const outr_tls_options *options, outr_err *err);
outr_tls *outr_tls_ref(outr_tls *tls);
void outr_tls_unref(outr_tls *tls);

/* Client handshake over own_below; server_name is for SNI and the name check (an IP literal sends
 * no
 * SNI). On success *out (in req->stream) is the caller's; on failure own_below is closed. */
typedef struct outr_tls_handshake {
    outr_tls *tls;
    outr_stream *own_below;
    outr_str server_name; /* NONE on the server side */
    outr_stream *stream;
} outr_tls_handshake;
void outr_tls_handshake_start(outr_tls_handshake *req, outr_op *op);

#endif
