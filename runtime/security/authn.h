/* authn - JSON Web Tokens of the calls of this app: the kind Authentication at work.
 *
 * Made from a snapshot's spec on the main loop, asked from all loops, closed when all of them have
 * left it. Keys and tokens that were good: http/issuers.h. */
#ifndef OUTR_SECURITY_AUTHN_H
#define OUTR_SECURITY_AUTHN_H

#include "config/resource.h"
#include "http/issuers.h"

typedef struct outr_authn outr_authn;

outr_authn *outr_authn_new(const outr_authn_spec *spec, outr_loop *loop, const outr_log *log);
/* Keys that another one has, until there are newer ones. */
void outr_authn_inherit(outr_authn *to, outr_authn *from);
/* outr_issuers_open, outr_issuers_close */
void outr_authn_open(outr_authn *authn, outr_op *op);
void outr_authn_close(outr_authn *authn, outr_op *op);

/* NULL: the call may go on; *claims is what its token says, as long as arena, NULL when it has none
 * and needs none. Else why it is refused: OUTR_JWT_*. headers are the call's: a good token is taken
 * out unless it is to be passed on, claims are put in, and what was there under their names, with
 * "_" for "-" too, is taken out in every case. */
const char *outr_authn_admit(outr_authn *authn, outr_loop *loop, outr_headers *headers,
                             outr_arena *arena, const outr_claims **claims);
#endif
