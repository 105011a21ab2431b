/* access - who may call what of this app: spec.accessControl, compiled.
 *
 * Made once for a snapshot, immutable, used by all loops. Callers are found by app id and namespace
 * in a map, operations in a trie of path segments, so that neither takes longer with more rules.
 * The judge gets the request as it is dispatched: contract/security.md "Access control", pitfall
 * 11. It is asked by policy.h, which knows more. */
#ifndef OUTR_SECURITY_ACCESS_H
#define OUTR_SECURITY_ACCESS_H

#include "config/resource.h"
#include "security/identity.h"

typedef struct outr_access outr_access;

/* is_http_app: --app-protocol is http, https or h2c; names of operations are compared without case
 * then and verbs count. spec is borrowed for as long. */
outr_access *outr_access_new(const outr_access_spec *spec, bool is_http_app);
void outr_access_free(outr_access *access); /* NULL is fine */
/* The bit of a verb, whatever its case; "*" has the first of OUTR_ACCESS_VERBS. 0: not known. */
#define OUTR_ACCESS_VERBS 10
unsigned outr_access_verb(outr_str verb);

typedef struct outr_access_request {
    const outr_identity *caller; /* NULL or not authenticated: the default of all decides */
    outr_str target;             /* path and query as they go to the app, rooted and clean */
    outr_str verb;               /* in upper case, or "NONE" */
    bool is_proxied;             /* a gRPC call as it is: verbs do not count */
} outr_access_request;

typedef struct outr_access_verdict {
    bool is_allowed;
    bool is_of_policy; /* the caller has a policy with a default of its own (for metrics) */
} outr_access_verdict;

/* A path with escapes is read in each way an app may read it, and must be allowed in all of them;
 * one that hides dot segments, empty segments or control characters is not allowed at all. */
outr_access_verdict outr_access_judge(const outr_access *access, const outr_access_request *request,
                                      outr_arena *scratch);

#endif
