/* identity - who a peer is: SPIFFE ids, spiffe://<trust domain>/ns/<namespace>/<app id>.
 *
 * The id stands in a certificate that somebody else wrote, so every byte of it is looked at: text
 * has a length, a NUL is as wrong as any other byte that has no place there (SPIFFE-ID, section 2;
 * contract/security.md "SPIFFE identity"). All parts borrow from the text that was parsed. */
#ifndef OUTR_SECURITY_IDENTITY_H
#define OUTR_SECURITY_IDENTITY_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

#define OUTR_SPIFFE_MAX 2048 /* bytes of an id: SPIFFE-ID section 2.3 */

typedef struct outr_spiffe {
    outr_str trust_domain;
    outr_str path; /* with its leading slash; NONE: there is none */
} outr_spiffe;

/* INVALID_ARGUMENT: no SPIFFE id, in go-spiffe's words. */
outr_code outr_spiffe_parse(outr_spiffe *out, outr_str id, outr_err *err);

/* A workload. All NONE, is_authenticated false: somebody who showed no certificate. */
typedef struct outr_identity {
    outr_str id; /* all of it, as the certificate has it */
    outr_str trust_domain, namespace_, app_id;
    bool is_authenticated;
} outr_identity;

/* A workload's id may have more segments behind the app id. PERMISSION_DENIED, "malformed SPIFFE
 * ID: ...": an id, but of no workload. */
outr_code outr_identity_parse(outr_identity *out, outr_str id, outr_err *err);
/* "/ns/<namespace>/<app id>": what a server's id must have for its path, exactly. */
outr_str outr_identity_path(outr_arena *arena, outr_str namespace_, outr_str app_id);

#endif
