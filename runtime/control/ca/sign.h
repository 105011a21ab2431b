/* sign - SignCertificate over gRPC: an order in, a certificate out, and tokens beside it.
 *
 * Source: contract/security.md "Certificate request"; dapr/proto/sentry/v1/sentry.proto. */
#ifndef OUTR_CONTROL_CA_SIGN_H
#define OUTR_CONTROL_CA_SIGN_H

#include "control/ca/authority.h"
#include "control/ca/tokens.h"
#include "http/server.h"

/* Audiences for which a client may have tokens at once: each takes a signature. */
#define OUTR_CA_AUDIENCES_MAX 16

typedef struct outr_ca_sign {
    outr_loop *loop;
    const outr_log *log;
    const outr_authority *authority;
    const outr_ca_tokens *tokens; /* NULL: none are given */
} outr_ca_sign;

extern const outr_http_handler outr_ca_sign_handler; /* ctx: an outr_ca_sign */

#endif
