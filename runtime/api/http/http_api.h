/* http_api - the public HTTP API of one loop: routes, the request object, answers and errors.
 *
 * Way of a request: http/server -> on_request -> CORS, token, trace -> router -> (body gathered
 * when
 * the route asks for it) -> route->run in api/http/<block>.c -> api/core/<block> -> outr_api_reply
 * or outr_api_fail, which also release the exchange. */
#ifndef OUTR_API_HTTP_HTTP_API_H
#define OUTR_API_HTTP_HTTP_API_H

#include "api/api.h"
#include "api/core/details.h"
#include "blocks/host.h"
#include "config/snapshot.h"
#include "http/router.h"
#include "http/server.h"
#include "mesh/mesh.h"
#include "observe/health.h"
#include "observe/trace.h"

typedef struct outr_api_request outr_api_request;

enum {
    OUTR_ROUTE_BODY = 1,      /* gather the body (up to max-body-size) before run */
    OUTR_ROUTE_NO_TOKEN = 2,  /* open without DAPR_API_TOKEN */
    OUTR_ROUTE_PUBLIC = 4,    /* also on the public port */
    OUTR_ROUTE_ALWAYS = 8,    /* never closed by spec.api lists */
    OUTR_ROUTE_NO_TRACE = 16, /* no traceparent on the answer (health) */
};

typedef struct outr_api_route {
    const char *methods; /* "GET|POST" */
    const char *pattern; /* "/v1.0/state/{store}/{key}" */
    unsigned flags;
    const char *group, *version; /* spec.api: "state", "v1" */
    const char *metric_path;     /* bounded path label: "/v1.0/state/{store}" with {n} filled from
                                     parameters as contract/metrics.csv says; NULL: pattern */
    void (*run)(outr_api_request *r);
    /* OUTR_ROUTE_BODY: the body was too large ("stream too large") or broke; NULL: 400
     * ERR_MALFORMED_REQUEST with that text. Must end the request. */
    void (*body_failed)(outr_api_request *r, const outr_err *err);
} outr_api_route;

/* Route tables, each in its own file, terminated by a row with pattern NULL. */
extern const outr_api_route outr_routes_state[], outr_routes_secrets[], outr_routes_publish[],
    outr_routes_invoke[], outr_routes_system[], outr_routes_absent[],
    outr_routes_bindings[], outr_routes_lock[], outr_routes_configuration[], outr_routes_mesh[];

struct outr_api_request {
    outr_exchange *x;
    outr_api *api;
    const outr_api_route *route;            /* NULL: none matched (invocation by header, or 404) */
    outr_str params[OUTR_ROUTE_PARAMS_MAX]; /* percent-decoded, "+" as space; on x->arena */
    outr_str path, query;                   /* as sent, query without "?" */
    outr_str body;                          /* gathered, contiguous, not NUL-terminated */
    outr_trace trace;                       /* span of this hop */
    outr_view *view; /* pinned components of this loop; unpinned with the answer */
    /* the handler's one operation; cancelled when the client is gone */
    outr_op op;
    void *user; /* handler's */
    outr_gather gather;
    outr_headers extra; /* CORS and baggage headers of the answer */
    bool is_bare;       /* the answer carries no trace headers */
    outr_why why;       /* of an invocation: a sidecar answered it by itself; NONE: not so */
    struct outr_chain_run *chain; /* while it is in spec.httpPipeline */
};

/* Fills router and public_router from the tables, honouring spec.api lists. Call after the fields
 * above are set; again after a snapshot change. */
void outr_api_open(outr_api *api);
void outr_api_done(outr_api *api);
void outr_api_update(outr_api *api, const outr_snapshot *snapshot);
extern const outr_http_handler outr_api_handler; /* ctx: outr_api */
extern const outr_http_handler outr_api_public_handler;

/* Request metadata: query parameters "metadata.<k>=<v>", prefix stripped, first value wins;
 * decoded. */
outr_kvs outr_api_metadata(outr_api_request *r);
/* A query parameter, decoded; p == NULL when absent. */
outr_str outr_api_query(outr_api_request *r, const char *name);
/* All values of a repeated one, in order. */
const outr_str *outr_api_query_all(outr_api_request *r, const char *name, size_t *out_count);

/* What every answer carries: trace headers when absent, CORS, baggage. The reply functions below do
 * it
 * themselves; who relays an answer (invocation) calls it before the head goes out. */
void outr_api_decorate(outr_api_request *r, outr_http_response *head);
/* Ends the request without an answer of ours: relayed, or broken off. */
void outr_api_finish(outr_api_request *r);

/* An invocation is answered by this sidecar itself: why, for header, metric, log and span. Before
 * the answer; target may be empty. */
void outr_api_tell_local(outr_api_request *r, outr_why why, outr_str target, const char *text);

/* Goes on as if no route had matched: an invocation by header, or 404. */
void outr_api_no_route(outr_api_request *r);

/* Every one of these ends the request: r and its exchange are gone afterwards. */
/* borrowed for the call */
void outr_api_reply(outr_api_request *r, int status, const char *content_type, outr_str body);
/* head.headers on r->x->arena */
void outr_api_reply_with(outr_api_request *r, outr_http_response *head, outr_str body);
void outr_api_empty(outr_api_request *r); /* 204 */
/* {errorCode, message, details?} with the status of err's reason; details may be NULL. */
void outr_api_fail(outr_api_request *r, const outr_err *err, const outr_details *details);
/* The same with the HTTP status given (etag mismatch: 409). */
void outr_api_fail_status(outr_api_request *r, int status, const outr_err *err,
                          const outr_details *details);

#endif
