/* accept - the serving side's handshakes: accepted streams in, secured ones out. One loop's.
 *
 * What shakes hands is bounded in time and in number, so that peers who connect and say nothing
 * keep nobody else out. */
#ifndef OUTR_TLS_ACCEPT_H
#define OUTR_TLS_ACCEPT_H

#include "tls/tls.h"

typedef struct outr_tls_acceptor outr_tls_acceptor;

typedef struct outr_tls_acceptor_options {
    outr_loop *loop;
    outr_tls *tls;       /* referenced */
    outr_tls_check check; /* of a tls that verifies URIs */
    uint64_t timeout_ns;  /* 0: 10 s */
    size_t max_pending;  /* handshakes at once; 0: 4096; over it new ones are reset */
    void (*ready)(void *ctx, outr_stream *own_stream);
    /* reason: OUTR_TLS_*. Not for those that close cancelled. */
    void (*refused)(void *ctx, const outr_addr *peer, const char *reason, const outr_err *err);
    void *ctx;
} outr_tls_acceptor_options;

outr_tls_acceptor *outr_tls_acceptor_new(const outr_tls_acceptor_options *options);
void outr_tls_acceptor_take(outr_tls_acceptor *acceptor, outr_stream *own_stream);
/* No callback comes any more; what shakes hands is closed. NULL is fine. */
void outr_tls_acceptor_close(outr_tls_acceptor *acceptor);

#endif
