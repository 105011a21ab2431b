/* policy - who may call what of this app: spec.accessControl and AccessPolicies, in one judge.
 *
 * Made once for a snapshot, immutable, used by all loops. A rule is a bit: each thing that rules
 * ask about (who calls, path, verb, protocol, claims) gives the set of rules that it satisfies,
 * found by hash or in a tree of path segments, and the sets are intersected; so a thousand rules
 * cost sixteen words for each thing, whatever they say.
 *
 * A DENY rule that matches refuses. Then spec.accessControl must let the request in (access.h).
 * Then an ALLOW rule lets it in, else the policies' defaults: one that says deny is enough.
 * Policies in shadow decide nothing; the verdict tells whether they would have refused the request.
 * The judge gets the request as it is dispatched, and a path with escapes must be let in in each
 * way an app may read it (paths.h). */
#ifndef OUTR_SECURITY_POLICY_H
#define OUTR_SECURITY_POLICY_H

#include "config/snapshot.h"
#include "security/access.h"
#include "tls/claims.h"

typedef struct outr_policy outr_policy;

/* is_http_app: --app-protocol is http, https or h2c; paths are compared without case then. access
 * (NULL: none) and the policies are borrowed for as long. */
outr_policy *outr_policy_new(const outr_access_spec *access, const outr_policy_spec *policies,
                             size_t count, bool is_http_app);
void outr_policy_free(outr_policy *policy); /* NULL is fine */
/* The snapshot's own, made when it is first asked for, by whichever loop. NULL: there are no rules,
 * everybody may call everything. */
const outr_policy *outr_policy_of(const outr_snapshot *snapshot, bool is_http_app);

typedef struct outr_policy_request {
    const outr_identity *caller; /* NULL or not authenticated: nobody is known */
    const outr_claims *claims;   /* of a good token; NULL: none was shown */
    outr_str target;             /* path and query as they go to the app, rooted and clean */
    outr_str verb;               /* in upper case, or "NONE" */
    bool is_proxied;             /* a gRPC call as it is */
} outr_policy_request;

/* Which rule it was. No rule: the policy's default action, or the path could not be read. */
#define OUTR_POLICY_DEFAULT "default"
#define OUTR_POLICY_PATH    "path"
typedef struct outr_policy_ref {
    outr_str policy, rule;
} outr_policy_ref;

typedef struct outr_policy_verdict {
    bool is_allowed;
    bool was_access_asked; /* spec.accessControl has been asked, and said: */
    outr_access_verdict access;
    outr_policy_ref by;      /* what refused or allowed; NONE: not a policy */
    outr_policy_ref audited; /* the first AUDIT rule that matched, or NONE */
    outr_policy_ref shadow;  /* what would have refused it, had it not been in shadow, or NONE */
} outr_policy_verdict;

outr_policy_verdict outr_policy_judge(const outr_policy *policy, const outr_policy_request *request,
                                      outr_arena *scratch);

#endif
