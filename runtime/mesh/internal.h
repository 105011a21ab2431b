/* What the files of mesh/ share. */
#ifndef OUTR_MESH_INTERNAL_H
#define OUTR_MESH_INTERNAL_H

#include "base/url.h"
#include "mesh/classify.h"
#include "mesh/daprd_peer.h"
#include "mesh/hedge.h"
#include "mesh/lease.h"
#include "mesh/limits.h"
#include "mesh/mesh.h"
#include "mesh/route.h"
#include "mesh/throttle.h"
#include "resiliency/policies.h"
#include "security/policy.h"

/* ---- target.c: who is meant, and which path -------------------------------------------------- */

typedef struct outr__target {
    enum { OUTR__APP, OUTR__URL, OUTR__ENDPOINT } kind;
    outr_str app_id, namespace_;
    outr_str base_url; /* URL, ENDPOINT */
    const outr_endpoint_spec *endpoint;
} outr__target;

/* INVALID_ARGUMENT: no such form, or names longer than OUTR__NAME_MAX together. */
#define OUTR__NAME_MAX 400
outr_code outr__target_parse(outr__target *out, outr_str text, const outr_snapshot *snapshot,
                             const outr_settings *settings, outr_err *err);
/* Checks and cleans the decoded method and writes it as a request target: "/a%20b?x=1". */
outr_code outr__method_target(outr_str *out, outr_arena *arena, outr_str method, outr_str query,
                              outr_err *err);
/* The first half of it: the path as daprd says it, decoded, without its leading slash. */
outr_code outr__method_clean(outr_str *out, outr_arena *arena, outr_str method, outr_err *err);
/* As Go spells verbs: known ones in upper case, others POST; CONNECT is refused. */
outr_code outr__verb(outr_str *out, outr_str method, outr_err *err);
/* May be made twice: RFC 9110 section 9.2.2, or its caller says so. One without a verb may not; for
 * gRPC methods it does not tell. */
bool outr__is_idempotent(outr_str verb, const outr_headers *headers);
/* Of an invocation without a verb, which only an app that speaks gRPC takes. */
#define OUTR__NO_VERB                                                                              \
    "error invoking app channel: rpc error: code = InvalidArgument desc = missing HTTP extension " \
    "field"

/* ---- headers.c: what crosses a hop (contract/invocation.md sections 4 to 6) ------------------ */

/* <gRPC code>: the peer's sidecar failed, not its app */
#define OUTR__ERROR_HEADER "outrigger-error"

/* From the client to the peer's sidecar. */
void outr__headers_to_peer(outr_headers *out, const outr_mesh *mesh, const outr_invoke *invoke,
                           const outr_http_request *req, const outr__target *target,
                           bool is_traced);
/* The same as metadata of CallLocal: nothing is left out that the peer will leave out itself. */
void outr__headers_to_daprd(outr_headers *out, const outr_mesh *mesh, const outr_invoke *invoke,
                            const outr_http_request *req, const outr__target *target);
/* To an app: from a peer's request, which says who calls, or a client's own for a local call. An
 * app that speaks gRPC gets binary metadata too, and what app/invocation.h says of the request. */
typedef struct outr__to_app {
    const outr_headers *in;
    const outr_invoke *invoke; /* of a local call; NULL: a peer's */
    const outr_trace *trace;
    bool is_traced, is_grpc_app;
} outr__to_app;
void outr__headers_to_app(outr_headers *out, const outr__to_app *what);
/* To a URL or HTTPEndpoint. */
void outr__headers_to_outside(outr_headers *out, const outr_headers *in,
                              const outr_endpoint_spec *endpoint, const outr_trace *trace,
                              bool is_traced);
/* Of a gRPC call that is passed on; target NULL: to the app itself. A peer's word for who calls is
 * believed, a client's is not. */
void outr__headers_of_proxied(outr_headers *out, const outr_headers *in, const outr_mesh *mesh,
                              const outr__target *target, bool is_of_peer, const outr_trace *trace);
/* Of an answer, in either direction. keeps_grpc: to a peer, from an app that speaks gRPC. */
void outr__headers_of_answer(outr_headers *out, const outr_headers *in, bool keeps_grpc);
/* grpc-timeout: what is left. */
void outr__headers_set_timeout(outr_headers *headers, uint64_t now_ns, uint64_t deadline_ns);
/* Without what only sidecars may say. */
void outr__headers_disown(outr_headers *headers);

/* ---- relay.c: an answer on its way back ------------------------------------------------------ */

typedef struct outr__relay {
    outr_exchange *x;
    outr_http_call *call;
    /* an answer without Content-Type gets one from its first bytes */
    bool guesses_type;
    bool is_proxied; /* headers pass as they are */
    bool keeps_grpc; /* outr__headers_of_answer */
    /* before it goes out; may be NULL */
    void (*on_head)(struct outr__relay *relay, outr_http_response *head);
    bool has_head;     /* the head has gone out */
    const outr_op *op; /* is_proxied: of the call, which tells why it was cancelled */
    /* is_proxied: how it ended. True: not a word of it is passed on, which can be only while the
     * head is held back. May be NULL. */
    bool (*on_end)(struct outr__relay *relay, const outr_headers *trailers);
    bool holds_head;     /* is_proxied: until the first byte, or the end */
    outr_code grpc_code; /* is_proxied, out: what grpc-status said */
    /* machinery */
    outr_http_response head;
    outr_sink guesser;
    outr_source source; /* what the exchange's sink takes from the guesser */
    outr_sink *to;
    outr_headers trailers;
} outr__relay;
void outr__relay_answer(outr__relay *relay, outr_http_call *call); /* from call->on_response */
/* How a proxied call failed, in gRPC's words: grpc/grpc doc/PROTOCOL-HTTP2.md "Errors". */
outr_code outr__grpc_failure(const outr_http_call *call, const outr_err *err);

/* A body that must not be longer than max: a source in front of a source. */
typedef struct outr__limiter {
    outr_source source; /* what the call reads */
    outr_sink sink;
    uint64_t left;
    bool is_over; /* it was longer */
} outr__limiter;
outr_source *outr__limiter_init(outr__limiter *limiter, outr_source *from, uint64_t max);

/* ---- peers.c: instances of an app and connections to them ------------------------------------ */

typedef struct outr__peer outr__peer;
typedef struct outr__peers outr__peers;
/* All picks of one try of a call, one after the other. */
typedef struct outr__pick {
    outr_str app_id, namespace_;
    const outr_kvs *labels; /* in: of an instance that has all of them; NULL: of any */
    bool is_fresh;          /* in: do not trust the cache */
    bool is_repeatable;     /* in: the call may be made again elsewhere */
    bool is_counted;        /* in and out: the call is, for the budget of its target */
    outr__peer *peer;       /* out: held until outr__pick_release */
    bool is_repeat;         /* out: it is one of those avoided: there is no other */
    bool is_probe;          /* out: see cluster.h */
    bool is_subset_empty;   /* out, with UNAVAILABLE: there are instances, but none has labels */
    outr_limit full;        /* out, with UNAVAILABLE: the callee's bulkhead that is */
    /* Avoided while there are others: of many the last ones, since a try goes to one of two drawn
     * at random, which hardly ever are those tried longer ago. */
    uint64_t tried[8];
    size_t tried_count;
    outr_op *op;
    /* machinery */
    outr__peers *peers;
    struct outr__known *known;
    struct outr__instance *instance;
    outr_arena *arena;
    outr_resolve resolve;
    size_t tried_next;
    outr_op inner;
    unsigned attempts;
    bool sleeps;
    bool is_pending; /* has no connection yet */
} outr__pick;

outr__peers *outr__peers_new(const outr_mesh_options *o, const outr_snapshot *snapshot);
/* snapshot is borrowed until the next one. What is known of instances stays. */
void outr__peers_update(outr__peers *peers, const outr_snapshot *snapshot);
void outr__peers_free(outr__peers *peers);
void outr__peers_dismiss(outr__peers *peers);
/* NOT_FOUND: nobody has that id. pick->labels stays until then. */
void outr__pick_start(outr__peers *peers, outr__pick *pick, outr_arena *arena, outr_op *op);
outr_http_pool *outr__peer_pool(outr__peer *peer);
outr_str outr__peer_address(const outr__peer *peer);
/* While pick->peer is held: the call has a connection. */
void outr__pick_placed(outr__pick *pick);
/* UNAVAILABLE, bulkhead_full: which of the limits, counted. */
outr_code outr__pick_fail_full(outr__pick *pick, const char *what, outr_err *err);
/* Not this one (pick->peer) again while there are others. */
void outr__pick_avoid(outr__pick *pick);
/* For a second try while first->peer is held: the same, but not there. */
void outr__pick_beside(outr__pick *pick, const outr__pick *first);
/* is_down: it could not be reached. */
void outr__pick_release(outr__pick *pick, bool is_down);
/* No more picks; after the release of the last. */
void outr__pick_end(outr__pick *pick);
/* While pick->peer is held: how the call went, once; how long its answer took to begin, and how it
 * went later. Else its end says nothing. */
void outr__pick_observe(outr__pick *pick, uint64_t took_ns, outr_class how,
                        uint64_t retry_after_ns);
void outr__pick_took(outr__pick *pick, uint64_t took_ns);
/* It was given up after that time, which says nothing good, and nothing bad but of its time. */
void outr__pick_took_longer(outr__pick *pick, uint64_t took_ns);
void outr__pick_judge(outr__pick *pick, outr_class how);
/* Of the target's budget: one more try, if there is one left; or whatever is left (a policy wants
 * it). After the first pick. */
bool outr__pick_take_retry(outr__pick *pick);
void outr__pick_spend_retry(outr__pick *pick);
bool outr__pick_has_other(const outr__pick *pick);

/* ---- outside.c: pools for URLs --------------------------------------------------------------- */

typedef struct outr__outside outr__outside;
typedef struct outr__reach {
    const outr__target *target;
    outr_url url;                       /* out */
    outr_http_pool *pool;               /* out */
    const outr_endpoint_spec *endpoint; /* out: target's with its secrets; while the pool is used */
    outr_op *op;
    outr_lookup lookup;
    outr_op inner;
    outr__outside *outside;
    outr_str key;
    struct origin *fresh; /* in the making: its endpoint's secrets are being read */
    size_t at;            /* which of them */
    outr_secret_value secret;
} outr__reach;
outr__outside *outr__outside_new(const outr_mesh_options *o);
void outr__outside_free(outr__outside *outside);
void outr__outside_update(outr__outside *outside); /* endpoints have changed */
void outr__reach_start(outr__outside *outside, outr__reach *reach, outr_arena *arena, outr_op *op);

/* ---- admit.c: may it be called? -------------------------------------------------------------- */

typedef struct outr__refusal {
    outr_code code;     /* UNAUTHENTICATED, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAVAILABLE */
    const char *text;   /* of spec.accessControl and AccessPolicy: in the reference's words */
    outr_why why;
    outr_str challenge; /* WWW-Authenticate; NONE: none */
    uint64_t after_ns;  /* when to ask again, from now on; 0: it does not say */
} outr__refusal;

/* The one gate of calls from other sidecars, whichever way they come. req is what will be
 * dispatched: its token is looked at (x->claims is set, and req->headers are changed, as
 * Authentication says), then all rules judge it. False: it is refused. */
bool outr__admits(outr_mesh *mesh, outr_exchange *x, outr_http_request *req, bool is_proxied,
                  outr__refusal *refusal);

/* ---- entry.c: has he had his share, is there a place? ---------------------------------------- */

/* req is what will be dispatched. is_local: a call of the app to itself. False: refused. */
bool outr__entry_rates(outr_mesh *mesh, outr_exchange *x, const outr_http_request *req,
                       bool is_local, outr__refusal *refusal);
/* Calls need a ticket for the app (throttle.h). */
bool outr__entry_has_gate(const outr_mesh *mesh);
/* *ticket: of the call, made on arena when there is none yet; op as in throttle.h. */
outr_taken outr__entry_take(outr_mesh *mesh, outr_ticket **ticket, outr_arena *arena,
                            outr_str target, outr_op *op);
/* op is done: counted. */
void outr__entry_waited(const outr_mesh *mesh, const outr_err *err);
#define OUTR__OVERLOADED "the app has more calls than it can serve"

/* ---- filter.c: calls behind spec.appHttpPipeline --------------------------------------------- */

/* outr_app_invoke_start and outr_http_call_start with the pipeline, if there is one, in front.
 * client: who calls, for middlewares that count; stays until the op is done. */
void outr__filtered_app_start(outr_mesh *mesh, outr_app_call *call, const outr_addr *client,
                              outr_op *op);
void outr__filtered_http_start(outr_mesh *mesh, outr_http_pool *pool, outr_http_call *call,
                               const outr_addr *client, outr_op *op);

/* ---- serve.c: who calls ---------------------------------------------------------------------- */

/* The peer by its certificate; not authenticated when sidecars speak clear text. PERMISSION_DENIED:
 * it has an id, but of no workload. */
outr_code outr__caller(outr_identity *out, const outr_mesh *mesh, const outr_exchange *x,
                       outr_err *err);
/* The same for outr_mesh_options, on x's arena. */
const outr_identity *outr__identify(const outr_exchange *x);

/* ---- local.c: answers that a sidecar makes itself -------------------------------------------- */

/* Why a call failed that went to an app, or to another sidecar; marks err. */
outr_why outr__why_of_app(const outr_http_call *call, outr_err *err);
outr_why outr__why_of_peer(const outr_http_call *call, outr_err *err);

/* ---- the mesh itself ------------------------------------------------------------------------- */

struct outr_mesh {
    outr_mesh_options o;
    outr_str forwarded; /* RFC 7239: this hop's element; owned */
    outr_snapshot *snapshot;
    const outr_policies *policies;          /* of Resiliency, the snapshot's; NULL: none */
    const struct outr_inbound *inbound;     /* what the app takes, the snapshot's; NULL: all */
    outr_throttle_port *port;
    outr_lease_site leases;
    const outr_routes *routes;              /* of TrafficPolicies, the snapshot's; NULL: none */
    const outr_policy *access;              /* who may call what, the snapshot's; NULL: no rules */
    outr_authn *authn;                      /* borrowed; NULL: no tokens are looked at */
    uint64_t tell_token_ns, tell_denied_ns; /* refusals, not again before */
    outr_trace_config trace;
    outr__peers *peers;
    outr__outside *outside;
    outr_hedges hedges;
    outr_list mirrors; /* under way; mirror.h */
    unsigned mirror_count;
    outr_list calls; /* in flight, both sides: none when the mesh ends */
    uint64_t tell_stranger_ns;
    uint64_t tell_local_ns[OUTR_WHY_COUNT];
};

#endif
