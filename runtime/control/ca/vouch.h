/* vouch - tokens of somebody else that say who may be whom: sentry's validator "jwks".
 *
 * A token must be signed by a key of the set, be meant for this authority ("aud": its SPIFFE id)
 * and name whom the certificate is for ("sub": that SPIFFE id). Source: contract/security.md, and
 * spec.mtls.tokenValidators: keys at a URL, in a file, or in the Configuration itself. */
#ifndef OUTR_CONTROL_CA_VOUCH_H
#define OUTR_CONTROL_CA_VOUCH_H

#include "config/resource.h"
#include "loop/op.h"

typedef struct outr_vouch outr_vouch;

/* *out stays NULL when the Configuration names no validator. What is wrong with it is told. */
outr_code outr_vouch_new(outr_vouch **out, const outr_configuration *configuration,
                         outr_str audience, outr_loop *loop, const outr_log *log, outr_err *err);
/* Reads keys, and goes on doing so. A set that cannot be had yet is waited for: nothing is issued
 * meanwhile. */
void outr_vouch_open(outr_vouch *vouch);
bool outr_vouch_is_ready(const outr_vouch *vouch);
/* PERMISSION_DENIED, in sentry's words; UNAVAILABLE: there are no keys yet. ctx: an outr_vouch. */
outr_code outr_vouch_for(void *ctx, outr_str token, outr_str subject, outr_err *err);
/* done runs when all has come to an end. */
void outr_vouch_close(outr_vouch *vouch, void (*done)(void *ctx), void *ctx);

#endif
