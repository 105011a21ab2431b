/* reasons - why a sidecar answered a call itself instead of passing on an answer: one word, the
 * same in the header outrigger-reason (metadata over gRPC), in logs, in spans (outrigger.reason)
 * and in outrigger_local_answers_total.
 *
 * Columns: name, word, whether it is about who asks (asking again, or elsewhere, changes nothing,
 * and it says nothing of the instance), the HTTP status that callers get (0: as the reference has
 * it), what it means. README has the same table; a test compares
 * them. Whoever makes an error says why by outr_mark; what is not marked has a word by its code. */
#ifndef OUTR_MESH_REASONS_H
#define OUTR_MESH_REASONS_H

#include "base/err.h"

/* clang-format off */
#define OUTR_WHYS(X) \
    X(NO_TARGET, "no_target", 1, 0, "the call names no app") \
    X(BAD_REQUEST, "bad_request", 1, 0, "the call is malformed, or names what cannot be called") \
    X(BODY_TOO_LARGE, "body_too_large", 1, 0, "the body is longer than `--max-body-size`") \
    X(API_TOKEN, "api_token", 1, 0, "no API token, or a wrong one") \
    X(API_CLOSED, "api_closed", 1, 0, "spec.api does not open it") \
    X(NO_INSTANCE, "no_instance", 0, 0, "nobody has registered that app id") \
    X(NO_SUBSET_INSTANCE, "no_subset_instance", 0, 503, "no instance carries the labels that a route or an environment asks for") \
    X(NO_RESOLVER, "no_resolver", 0, 0, "the registry cannot be asked, and nothing is known from before") \
    X(CONNECT_FAILED, "connect_failed", 0, 0, "no instance could be connected to") \
    X(CONNECTION_LOST, "connection_lost", 0, 0, "the connection broke with the call on its way") \
    X(DEADLINE, "deadline", 0, 0, "the time that the caller gave is over") \
    X(TIMEOUT, "timeout", 0, 0, "the time that a policy gives is over") \
    X(BREAKER_OPEN, "breaker_open", 0, 0, "a policy's circuit breaker is open") \
    X(RETRY_BUDGET, "retry_budget", 0, 0, "it failed, and the target's retry budget was spent") \
    X(BULKHEAD_FULL, "bulkhead_full", 0, 503, "as many calls to the target as may be are on their way") \
    X(RATE_LIMITED, "rate_limited", 1, 429, "the caller has had his share") \
    X(OVERLOADED, "overloaded", 0, 503, "the called side has more to do than it can") \
    X(FAULT_INJECTED, "fault_injected", 0, 0, "a TrafficPolicy wants it to fail") \
    X(ACCESS_POLICY, "access_policy", 1, 0, "a rule of an AccessPolicy") \
    X(ACCESS_CONTROL, "access_control", 1, 0, "spec.accessControl") \
    X(MALFORMED_ID, "malformed_id", 1, 0, "the caller's certificate names no workload") \
    X(MIDDLEWARE, "middleware", 1, 0, "a middleware of a pipeline answered") \
    X(WRONG_APP, "wrong_app", 0, 0, "the sidecar that was called serves another app") \
    X(NO_APP, "no_app", 0, 0, "the sidecar has no app, see `--app-port`") \
    X(APP_PROTOCOL, "app_protocol", 0, 0, "the app does not speak what the call needs, see `--app-protocol`") \
    X(APP_UNHEALTHY, "app_unhealthy", 0, 0, "the app's health check fails") \
    X(APP_UNREACHABLE, "app_unreachable", 0, 0, "the app could not be connected to") \
    X(APP_BROKE_OFF, "app_broke_off", 0, 0, "the app closed its connection instead of answering") \
    X(PEER_ERROR, "peer_error", 0, 0, "the other sidecar said so, in no word of these (a daprd)") \
    X(INTERNAL, "internal", 0, 0, "none of these") \
    X(TOKEN_MISSING, "missing", 1, 0, "Authentication: no token") \
    X(TOKEN_NO_KEYS, "keys_unavailable", 1, 0, "Authentication: the issuer's keys could not be read yet") \
    X(TOKEN_MALFORMED, "malformed", 1, 0, "Authentication: no token at all") \
    X(TOKEN_TOO_LARGE, "too_large", 1, 0, "Authentication: longer than a token may be") \
    X(TOKEN_ALGORITHM, "algorithm", 1, 0, "Authentication: signed in a way that is not accepted") \
    X(TOKEN_KEY, "unknown_key", 1, 0, "Authentication: no such key") \
    X(TOKEN_SIGNATURE, "signature", 1, 0, "Authentication: the signature is wrong") \
    X(TOKEN_EXPIRED, "expired", 1, 0, "Authentication: expired") \
    X(TOKEN_NOT_YET, "not_yet_valid", 1, 0, "Authentication: not valid yet") \
    X(TOKEN_ISSUER, "issuer", 1, 0, "Authentication: of no issuer that is named") \
    X(TOKEN_AUDIENCE, "audience", 1, 0, "Authentication: for somebody else") \
    X(TOKEN_CLAIMS, "claims", 1, 0, "Authentication: claims are missing or of the wrong form")
/* clang-format on */

typedef enum outr_why {
    OUTR_WHY_NONE = 0,
#define X(name, word, is_about_caller, status, text) OUTR_WHY_##name,
    OUTR_WHYS(X)
#undef X
        OUTR_WHY_COUNT
} outr_why;

/* "" of NONE. */
const char *outr_why_word(outr_why why);
/* What it means; for people. */
const char *outr_why_text(outr_why why);
/* NONE: no such word. */
outr_why outr_why_find(outr_str word);
bool outr_why_is_about_caller(outr_why why);
int outr_why_status(outr_why why); /* of HTTP; 0: by the error's code, as the reference does */
/* Says why, and returns err->code: `return outr_mark(err, OUTR_WHY_OVERLOADED);` */
static inline outr_code outr_mark(outr_err *err, outr_why why)
{
    if (err)
        err->why = (uint16_t)why;
    return err ? err->code : OUTR_OK;
}
/* What was marked; else the nearest that its code allows. Never NONE. */
outr_why outr_why_of(const outr_err *err);

#endif
