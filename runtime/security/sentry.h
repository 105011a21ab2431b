/* sentry - asking a certificate authority for a certificate: SignCertificate over TLS.
 *
 * Source: contract/security.md "Certificate request", and what was recorded of a daprd. Five tries
 * of three seconds for an authority that is busy; one that refuses by a status is not asked twice.
 * One that cannot be reached, or shows another certificate than sentry's, is dialled again with
 * growing pauses until the operation is cancelled: it may start after us. */
#ifndef OUTR_SECURITY_SENTRY_H
#define OUTR_SECURITY_SENTRY_H

#include "base/buf.h"
#include "config/settings.h"
#include "grpc/client.h"
#include "loop/step.h"

typedef struct outr_sentry_sign {
    /* in; borrowed until done */
    outr_loop *loop;
    outr_str address;     /* host:port */
    outr_str sentry_id;   /* the SPIFFE id it must have, all of it */
    outr_str anchors_pem; /* trust anchors */
    outr_str id, namespace_, token, csr_pem;
    outr_str trust_domain;      /* NONE: as the authority thinks */
    const outr_strs *audiences; /* of the identity token; NULL: none */
    /* out */
    outr_buf chain_pem;
    bool was_refused; /* failed: the authority answered, and said no */
    /* machinery */
    outr_op *op, inner;
    outr_steps steps;
    outr_tls *tls;
    outr_http_pool *pool;
    outr_arena *arena;
    outr_lookup lookup;
    outr_http_call http;
    outr_grpc_unary unary;
    outr_err err;
    unsigned tries, dials;
    bool is_cancelled;
} outr_sentry_sign;

void outr_sentry_sign_start(outr_sentry_sign *req, outr_op *op);
void outr_sentry_sign_done(outr_sentry_sign *req); /* frees what came */

#endif
