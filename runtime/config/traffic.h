/* traffic - TrafficPolicy (outrigger.io/v1alpha1) as it is bound: where calls of an app go, what is
 * done when they fail, and what this sidecar's own app takes. All memory is the snapshot's.
 *
 * Read by the sidecars that `scopes` names (all, when it names none). `targets` says which callees
 * the outbound parts are for; `inbound` is for calls of the sidecar's own app. Of several policies
 * a group of settings (ejection, limits, ...) is taken whole from the one that names the callee
 * before one for all, and of two such from the one that was read first. A group that nobody gives
 * has its defaults. A control plane may push the kind as it is: nothing in it is of one machine. */
#ifndef OUTR_CONFIG_TRAFFIC_H
#define OUTR_CONFIG_TRAFFIC_H

#include "base/base.h"
#include "config/resource.h"

#define OUTR_TRAFFIC_SEGMENTS_MAX 64 /* of a path prefix */

/* Instances that carry all of these labels. */
typedef struct outr_subset_spec {
    outr_str name;
    outr_kvs labels; /* sorted by name, as base/labels.h has them */
    int line, column;
} outr_subset_spec;

/* One of exact, prefix, regex, or none of them: it is there. Names of headers in lower case. */
typedef struct outr_value_match {
    outr_str name; /* empty: of a path */
    outr_str exact, prefix, regex_text;
    bool has_exact, has_prefix;
    const struct outr_regex *regex; /* NULL: none */
    int line, column;
} outr_value_match;

/* All that is given must hold. */
typedef struct outr_traffic_match {
    outr_value_match path; /* given when has_path; of a gRPC call: "/pkg.Service/Method" */
    bool has_path;
    const outr_str *methods; /* upper case */
    size_t method_count;
    const outr_value_match *headers;
    size_t header_count;
    const outr_value_match *query;
    size_t query_count;
    const outr_value_match *baggage;
    size_t baggage_count;
    const outr_value_match *claims;
    size_t claim_count;
    const outr_str *sources; /* app ids that call */
    size_t source_count;
    int line, column;
} outr_traffic_match;

typedef struct outr_split {
    outr_str subset;
    const outr_subset_spec *to; /* found by name in the same policy */
    int64_t weight;             /* of the sum of a route's */
    int line, column;
} outr_split;

/* A copy of the call for another subset or app, whose answer nobody waits for. */
typedef struct outr_mirror_spec {
    bool is_on;
    outr_str app_id; /* empty: the callee */
    outr_str subset;
    const outr_subset_spec *to; /* NULL: any instance */
    double percent;             /* 100 */
    bool is_compared;           /* status and body digest, counted */
} outr_mirror_spec;

typedef struct outr_fault_spec {
    bool is_on;
    uint64_t until_unix_ns; /* mandatory: faults end by themselves */
    uint64_t delay_ns;
    double delay_percent;
    int64_t abort_status, abort_grpc; /* HTTP status; gRPC status of a gRPC call, default from it */
    double abort_percent;
} outr_fault_spec;

typedef struct outr_route_retry_spec {
    bool is_on;
    int64_t attempts; /* more tries after the first */
    uint64_t try_timeout_ns; /* of one; 0: none */
    outr_str http_codes, grpc_codes; /* "502-504"; empty: the classifier's */
} outr_route_retry_spec;

typedef struct outr_route_spec {
    outr_str name;                     /* given, or "#<n>" */
    const outr_traffic_match *matches; /* any of them; none: every call */
    size_t match_count;
    const outr_split *splits; /* none: any instance */
    size_t split_count;
    outr_value_match sticky; /* name and by what: equal values go to equal subsets */
    enum { OUTR_STICKY_NONE, OUTR_STICKY_HEADER, OUTR_STICKY_BAGGAGE, OUTR_STICKY_CLAIM } sticks_to;
    outr_str fallback; /* a subset, "any" or "none" (the default) when the chosen one is empty */
    const outr_subset_spec *fallback_to;
    bool falls_to_any;
    outr_str environment; /* set for this hop and all later ones; empty: as it is */
    uint64_t timeout_ns;  /* of the whole call; 0: none */
    outr_route_retry_spec retry;
    outr_mirror_spec mirror;
    outr_fault_spec fault;
    int line, column;
} outr_route_spec;

/* The environment of a call: the member of W3C baggage, then the caller's own label, then default;
 * instances whose label is the same. */
typedef struct outr_environment_spec {
    bool is_on;
    outr_str baggage;  /* name of the member: "environment" */
    outr_str label;    /* "environment" */
    outr_str fallback; /* an environment, when there is no instance of the call's; empty: fail */
} outr_environment_spec;

typedef struct outr_locality_spec {
    bool is_on;
    outr_str label;     /* "zone": instances with the caller's own value first */
    double min_percent; /* of them fit, else all are used: 50 */
} outr_locality_spec;

typedef struct outr_ejection_spec {
    bool is_on;          /* given; else defaults (mesh/outlier.h) */
    bool is_disabled;
    int64_t consecutive; /* 5 */
    int64_t failure_percent, window; /* 40 of 20 */
    int64_t max_percent; /* 50 */
    uint64_t base_ns, max_ns; /* 5 s, 300 s */
} outr_ejection_spec;

typedef struct outr_active_check_spec { /* of ejected instances; can only open a probe */
    bool is_on;
    outr_str path; /* asked of the app through its sidecar, GET; empty: a connection and a ping */
    uint64_t interval_ns, timeout_ns; /* 5 s, 1 s */
} outr_active_check_spec;

typedef struct outr_budget_spec {
    bool is_on;
    double percent;     /* 20 */
    int64_t per_second; /* 1 */
} outr_budget_spec;

typedef struct outr_hedge_spec {
    bool is_on;
    uint64_t after_ns;  /* 0: by percentile */
    double percentile;  /* 95 */
    double max_percent; /* of the calls: 10; and within the retry budget */
} outr_hedge_spec;

typedef struct outr_limits_spec { /* bulkheads of one callee, over all loops */
    bool is_on;
    int64_t connections, pending, requests;
} outr_limits_spec;

typedef struct outr_concurrency_spec { /* adaptive, inbound */
    bool is_on;
    int64_t min, max, initial; /* 3, 1000, 5; it grows fast */
    int64_t queue;             /* calls that wait at most */
    uint64_t target_ns;        /* CoDel: sojourn that is fine; 5 ms */
    uint64_t interval_ns;      /* 100 ms */
    const outr_str *priority_paths; /* prefixes that are let in before others */
    size_t priority_path_count;
} outr_concurrency_spec;

typedef struct outr_rate_spec {
    outr_str name;
    const outr_traffic_match *matches; /* any; none: every call */
    size_t match_count;
    enum { OUTR_RATE_ROUTE, OUTR_RATE_IDENTITY, OUTR_RATE_CLAIM, OUTR_RATE_HEADER } per;
    outr_str per_text, per_name; /* "identity"; of the claim or header */
    int64_t requests;
    uint64_t interval_ns; /* 1 s */
    int64_t burst;        /* requests */
    int64_t buckets;      /* values of per that are told apart: 16384 */
    outr_str store;       /* global: name of a state.redis component; empty: this sidecar's own */
    int line, column;
} outr_rate_spec;

typedef struct outr_traffic_spec {
    outr_resource base;
    const outr_str *targets; /* app ids, "id.namespace"; none: all */
    size_t target_count;
    const outr_subset_spec *subsets;
    size_t subset_count;
    const outr_route_spec *routes;
    size_t route_count;
    outr_environment_spec environment;
    outr_locality_spec locality;
    uint64_t slow_start_ns; /* 10 s */
    bool has_slow_start;
    outr_ejection_spec ejection;
    outr_active_check_spec health_check;
    outr_budget_spec retry_budget;
    outr_hedge_spec hedge;
    outr_limits_spec limits;
    outr_concurrency_spec concurrency; /* inbound */
    const outr_rate_spec *rates;       /* inbound */
    size_t rate_count;
} outr_traffic_spec;

#endif
