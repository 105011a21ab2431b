/* mesh - calling other sidecars and being called by them. One outr_mesh per loop.
 *
 * outr_mesh_invoke is the call machine of the calling side: resolve, pick, connect, send, relay (a
 * step table). outr_mesh_handler is the called side: what the internal port's HTTP/2 server runs.
 * Between two Outriggers a call stays an HTTP/2 request as it is. */
#ifndef OUTR_MESH_MESH_H
#define OUTR_MESH_MESH_H

#include "app/channel.h"
#include "components/middleware.h"
#include "components/nameresolution.h"
#include "components/secretstores.h"
#include "components/state.h"
#include "config/snapshot.h"
#include "http/server.h"
#include "mesh/reasons.h"
#include "observe/trace.h"
#include "security/authn.h"
#include "security/identity.h"

typedef struct outr_mesh outr_mesh;

/* What is known of the apps that are called: shared by the meshes of a process, each of which has a
 * ref of its own. */
typedef struct outr_callees outr_callees;
outr_callees *outr_callees_new(void);
outr_callees *outr_callees_ref(outr_callees *callees);
void outr_callees_unref(outr_callees *callees); /* NULL is fine */

typedef struct outr_mesh_options {
    outr_loop *loop;
    const outr_settings *settings;
    const outr_snapshot *snapshot; /* HTTPEndpoints, tracing; referenced */
    /* shared by all loops; NULL: resolution failed to start, calls say so */
    outr_resolver *resolver;
    outr_callees *callees; /* shared by all loops; NULL: the mesh makes its own */
    outr_app *app; /* this loop's; local calls go straight to it */
    outr_str host; /* our address, for X-Forwarded-For and Forwarded */
    outr_str host_name;
    uint16_t internal_port;           /* bound */
    outr_tls *peer_tls;               /* for calls to peers; NULL: clear text. Referenced */
    struct outr_tracer *tracer;       /* observe/span.h; NULL: no span is exported */
    outr_secret_read_fn *read_secret; /* of HTTPEndpoints */
    void *secrets;                    /* its ctx */
    outr_state_share_fn *share; /* of rate limits that a store keeps; NULL: there are no stores */
    void *shares;               /* its ctx */
    outr_str member;            /* this process among the sidecars of its app; stays */
    /* Who is at the other end of a peer's connection; the identity stays as long as x. NULL, or
     * giving NULL: nobody has shown a certificate, access control knows its default alone. */
    const outr_identity *(*identify)(const outr_exchange *x);
    /* spec.appHttpPipeline as it is now on this loop, held until unpin_chain(*pin). NULL, or giving
     * NULL: there is none. */
    const outr_chain *(*pin_chain)(void *ctx, const outr_loop *loop, void **pin);
    void (*unpin_chain)(void *pin);
    void *chains; /* its ctx */
} outr_mesh_options;

outr_mesh *outr_mesh_new(const outr_mesh_options *options);
void outr_mesh_free(outr_mesh *mesh); /* when no call is in flight on either side */
void outr_mesh_update(outr_mesh *mesh, const outr_snapshot *snapshot);
/* Who looks at tokens from now on; borrowed until the next one. NULL: nobody. */
void outr_mesh_use_authn(outr_mesh *mesh, outr_authn *authn);
/* Whom we trust is another question now: no more calls on connections to those who are nobody any
 * more, and OUTR_MESH_GRACE_NS later an end of those that are on them. */
void outr_mesh_dismiss_peers(outr_mesh *mesh);
#define OUTR_MESH_GRACE_NS (10 * OUTR_SEC)

/* Opens the resolver the Configuration names (default: nameresolution.sqlite on a file in run_dir)
 * and registers self. Main loop. A failure is only logged by the caller: *out is NULL when there is
 * no such
 * resolver; else it is there, and goes on trying to register. */
typedef struct outr_mesh_resolver_open {
    const outr_settings *settings;
    const outr_snapshot *snapshot;
    outr_str run_dir;
    outr_self self;
    outr_resolver *resolver; /* out */
    outr_op inner;
    outr_op *op;
} outr_mesh_resolver_open;
void outr_mesh_resolver_open_start(outr_mesh_resolver_open *req, outr_op *op);

/* One invocation. The exchange's request is passed on; its response is what the callee answered. */
typedef struct outr_invoke {
    outr_exchange *x; /* body and response are the machine's from here on */
    outr_str target;  /* app id, "id.namespace", URL, or HTTPEndpoint name; decoded */
    outr_str method;  /* path without leading slash, still to be checked; decoded as
                                     contract/invocation.md section 1 says */
    outr_str query;   /* without "?", as sent */
    outr_trace trace; /* span of this hop */
    /* A gRPC call of any service: method is its path with the slash, frames and headers pass as
     * they are, nothing of it is judged, limited or guessed. */
    bool is_proxied;
    /* Another request than the exchange's, whose body is bytes; NULL: the exchange's own. Both stay
     * until the end. */
    const outr_http_request *req;
    outr_str bytes;
    /* By gRPC (InvokeService): headers are metadata, the verb may be "NONE". */
    bool is_grpc;
    outr_str type_url;    /* of the data, when is_grpc */
    bool has_data;        /* there is an Any, if only an empty one */
    uint64_t deadline_ns; /* absolute; 0: none */
    /* Takes the answer instead of its being relayed: attaches a sink to call->response or cancels
     * it. The exchange is then left alone, and its owner calls outr_mesh_invoke_cancel. */
    void (*on_answer)(struct outr_invoke *invoke, outr_http_call *call);
    /* Called instead of any response when the call failed before an answer's head was sent: the
     * caller of invoke writes the error (it still owns the exchange then). */
    void (*on_failed)(struct outr_invoke *invoke, const outr_err *err);
    /* Called after the answer has been relayed (or broken off, err set). The exchange has not been
     * released: the caller calls outr_http_done. */
    void (*on_done)(struct outr_invoke *invoke, const outr_err *err);
    /* Before the head is sent: headers may be added or removed. May be NULL. */
    void (*on_head)(struct outr_invoke *invoke, outr_http_response *head);
    /* out, with on_failed: the status of HTTP that a TrafficPolicy wants to be answered, and err's
     * code over gRPC; 0: none */
    int status;
    /* out, with on_failed: a Resiliency policy ended it: DEADLINE_EXCEEDED its timeout, UNAVAILABLE
     * its breaker */
    bool is_of_policy;
    /* Out: why it was a sidecar, this one or the other, that answered; NONE: an app did, or nobody
     * waits any more. With on_failed what would have to be shown (WWW-Authenticate), too. */
    outr_why why;
    outr_str challenge;
    uint64_t after_ns; /* out, on_failed: when it may be asked again, from now on; 0: not said */
    void *user;
    outr_code grpc_code; /* out: how a proxied call has ended */
    void *impl; /* machinery */
} outr_invoke;
/* invoke must lie on x->arena. Cancelled by x->on_gone, which invoke takes over. */
void outr_mesh_invoke(outr_mesh *mesh, outr_invoke *invoke);
void outr_mesh_invoke_cancel(outr_invoke *invoke, outr_code why);

/* What Resiliency says now; the snapshot's. NULL: nothing. */
const struct outr_policies *outr_mesh_policies(const outr_mesh *mesh);

/* An answer to an invocation that is a sidecar's own: counted and, at most once a second for each
 * reason, logged. text: NULL: not logged. */
void outr_mesh_tell_local(outr_mesh *mesh, outr_why why, outr_str target, const char *text);
/* A peer that was not let in ("server") or not called ("client"), and why: OUTR_TLS_*. */
void outr_mesh_count_refused(outr_loop *loop, const char *side, const char *reason);
/* Calls that were broken off with their connection: a certificate has ended, or is nobody's any
 * more. outr_mesh_on_cut is for the internal port's server (http/server.h), whose ctx is a mesh. */
void outr_mesh_tell_cut(outr_loop *loop, const char *side, const outr_addr *peer,
                        const char *reason, size_t calls);
void outr_mesh_on_cut(void *ctx, const outr_addr *peer, const char *reason, size_t calls);
/* And on_stranger of its. */
void outr_mesh_on_stranger(void *ctx, const outr_addr *peer, bool is_tls);

/* Handler and context for the internal port's server on this loop. */
extern const outr_http_handler outr_mesh_handler;
/* SETTINGS entry by which two Outriggers know each other: not registered, so a gRPC peer ignores
 * it. */
#define OUTR_MESH_SETTINGS_ID    0xF0D1
#define OUTR_MESH_SETTINGS_VALUE 1

#endif
