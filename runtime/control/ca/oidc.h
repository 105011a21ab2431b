/* oidc - where others find the keys of identity tokens: OIDC discovery and the key set, over HTTP.
 *
 * Serves sentry's two documents and nothing else; anybody may read them. */
#ifndef OUTR_CONTROL_CA_OIDC_H
#define OUTR_CONTROL_CA_OIDC_H

#include "control/ca/tokens.h"
#include "config/settings.h"
#include "http/server.h"

typedef struct outr_oidc {
    const outr_ca_tokens *tokens;
    outr_str issuer, keys_url, path_prefix; /* NONE: as the request was addressed; root */
    const outr_strs *hosts;                 /* for which it answers; empty, or "*": for all */
    bool is_secure;
} outr_oidc;

extern const outr_http_handler outr_oidc_handler; /* ctx: an outr_oidc */

#endif
