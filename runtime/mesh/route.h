/* route - where a call goes and what is done to it on the way: the TrafficPolicies of a snapshot,
 * compiled. Decisions only: no I/O; random numbers come in.
 *
 * Made once for a snapshot, immutable, used by all loops. Of the routes for a callee that match the
 * most specific one is taken, as Gateway API orders them: an exact path, then the longest prefix,
 * then a method, then more headers, then more of the query, then of baggage, claims and sources;
 * of equal ones the one that was read first, and one of a policy that names the callee before one
 * for all. Exact paths are found by hash and prefixes in a tree, so ten thousand routes cost what
 * ten do. */
#ifndef OUTR_MESH_ROUTE_H
#define OUTR_MESH_ROUTE_H

#include "base/rand.h"
#include "config/snapshot.h"
#include "config/traffic.h"
#include "http/message.h"
#include "tls/claims.h"

typedef struct outr_routes outr_routes;

outr_routes *outr_routes_new(const outr_traffic_spec *policies, size_t count); /* borrowed */
void outr_routes_free(outr_routes *routes); /* NULL is fine */

/* The snapshot's own, made when it is first asked for, by whichever loop. NULL: no policies. */
const outr_routes *outr_routes_of(const outr_snapshot *snapshot);

/* What holds for a callee whatever the call: each group of the policy that gives it, never NULL. */
typedef struct outr_target_rules {
    const outr_environment_spec *environment;
    const outr_locality_spec *locality;
    const outr_ejection_spec *ejection;
    const outr_active_check_spec *health_check;
    const outr_budget_spec *retry_budget;
    const outr_hedge_spec *hedge;
    const outr_limits_spec *limits;
    uint64_t slow_start_ns;
} outr_target_rules;
/* Never NULL, also without routes (the defaults); stays as long as the snapshot. */
const outr_target_rules *outr_routes_target(const outr_routes *routes, outr_str app_id,
                                            outr_str namespace_);

typedef struct outr_route_request {
    outr_str app_id, namespace_; /* the callee */
    outr_str source;             /* app id of the caller */
    outr_str method, target;     /* verb; path and query as they go to the callee */
    const outr_headers *headers;
    const outr_claims *claims; /* of a verified token; NULL: none */
} outr_route_request;

/* A request with its text unfolded, each part once, when something is first asked of it. */
typedef struct outr_route_question {
    const outr_route_request *request;
    outr_str path; /* decoded */
    /* machinery */
    outr_str raw_query;
    outr_kvs query, baggage; /* items NULL: not yet */
    outr_arena *scratch;
} outr_route_question;
/* scratch and request stay as long as the question. */
void outr_route_question_init(outr_route_question *question, const outr_route_request *request,
                              outr_arena *scratch);

/* What of a match does not hold: "path", "methods", "headers", ... and of which name (of path and
 * the like: NONE). what NULL: all of it holds. */
typedef struct outr_mismatch {
    const char *what;
    outr_str name;
} outr_mismatch;
outr_mismatch outr_traffic_mismatch(const outr_traffic_match *match, outr_route_question *question);
bool outr_traffic_matches(const outr_traffic_match *match, outr_route_question *question);

typedef struct outr_route_choice {
    const outr_traffic_spec *policy; /* NULL: no route */
    const outr_route_spec *route;
    const outr_subset_spec *subset; /* by weight or stickiness; NULL: any instance */
    outr_str environment;           /* of the call; empty: none */
    bool sets_environment;          /* baggage has to say so from here on */
} outr_route_choice;
/* Whether claims can make a difference: a token is worth looking at. */
bool outr_routes_ask_claims(const outr_routes *routes, outr_str app_id, outr_str namespace_);

/* Which instances will do, in the order in which they are tried: sets of labels, on arena. Empty:
 * any. Later ones are for when nobody is of the one before: the fallbacks. */
#define OUTR_ROUTE_WANTS_MAX 4
typedef struct outr_route_wants {
    outr_kvs labels[OUTR_ROUTE_WANTS_MAX];
    unsigned count; /* one at least */
} outr_route_wants;
void outr_route_wants_of(outr_route_wants *out, const outr_route_choice *choice,
                         const outr_environment_spec *environment, outr_arena *arena);

/* own: the caller's labels. scratch: what the request's text is unfolded on, and the environment
 * lies. Routes NULL: no route, no environment. Calls of a split are dealt out evenly rather than by
 * lot: of any twenty thousand a weight of one in a hundred gets its two hundred, a few more or
 * less. */
outr_route_choice outr_routes_choose(const outr_routes *routes, const outr_route_request *request,
                                     const outr_kvs *own, outr_rand *rand, outr_arena *scratch);

#endif
