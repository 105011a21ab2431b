/* issuers - who issues tokens: their keys, kept fresh, and the tokens that were good.
 *
 * A set of issuers for one purpose. Keys of each come from a URL, from where OIDC discovery points,
 * from a file or from a text. Those of a URL are read again every ten minutes, when a token
 * names a key that is not known (at most each 5 s), and after failures with growing pauses; while
 * the issuer is away, hangs or lies, the last ones stay. A file is looked at each two seconds.
 * Tokens that were good are remembered with their claims until they expire or their issuer's keys
 * change: a signature takes much longer than finding that.
 *
 * Made, opened and closed on the main loop, asked from all of them. */
#ifndef OUTR_HTTP_ISSUERS_H
#define OUTR_HTTP_ISSUERS_H

#include "http/message.h"
#include "loop/op.h"
#include "tls/jwt.h"
#include "tls/tls.h"

#define OUTR_ISSUERS_MAX 32

/* Beside those of tls/jwt.h: */
#define OUTR_JWT_MISSING "missing"
#define OUTR_JWT_NO_KEYS "keys_unavailable" /* the issuer's keys could not be read yet */

typedef struct outr_issuer_spec {
    outr_str name; /* "iss" of its tokens; NONE: whoever has one of the keys */
    const outr_str *audiences;
    size_t audience_count;
    unsigned algorithms; /* bits; 0: all */
    /* One of them; none: by OIDC discovery, for which the name is a URL. */
    outr_str keys_url, keys_file, keys;
} outr_issuer_spec;

typedef struct outr_issuers_options {
    outr_loop *loop;
    const outr_log *log;
    const outr_issuer_spec *items; /* copied */
    size_t count;
    int64_t skew_s;
    outr_tls *tls;       /* of https; referenced. NULL: the system's authorities */
    uint64_t refresh_ns; /* 0: ten minutes */
    uint64_t timeout_ns; /* for reading keys from a URL; 0: 10 s */
} outr_issuers_options;

typedef struct outr_issuers outr_issuers;

/* What is wrong with a spec, keys in a text included. */
outr_code outr_issuer_check(const outr_issuer_spec *spec, outr_err *err);
/* specs have been checked. */
outr_issuers *outr_issuers_new(const outr_issuers_options *options);
/* Keys that another set has of the same issuers from the same places, until there are newer. */
void outr_issuers_inherit(outr_issuers *to, outr_issuers *from);
/* Done when all keys have been asked for once; fails when those of one cannot be read. It is tried
 * on all the same, after a cancel too, until close. */
void outr_issuers_open(outr_issuers *set, outr_op *op);
/* The keys of all of them have been read, if a while ago. */
bool outr_issuers_have_keys(const outr_issuers *set);
/* When nobody asks any more; frees. */
void outr_issuers_close(outr_issuers *set, outr_op *op);

/* Any loop. NULL: the token is good, *claims is what it says, which stays as long as scratch. Else
 * why it is not: OUTR_JWT_*. */
const char *outr_issuers_ask(outr_issuers *set, outr_loop *loop, outr_str token,
                             outr_arena *scratch, const outr_claims **claims);

/* Authorization: Bearer (RFC 6750). NULL: *token is what was shown, borrowed; else why there is
 * none. More than one Authorization is none. */
const char *outr_bearer_token(outr_str *token, const outr_headers *headers);
/* For outrigger_jwt_refused_total. */
void outr_bearer_count_refused(outr_loop *loop, const char *reason);
/* WWW-Authenticate of a 401, section 3. */
outr_str outr_bearer_challenge(outr_arena *arena, const char *reason);

#endif
