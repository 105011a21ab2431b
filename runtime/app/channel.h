/* channel - the way to the app: pooled HTTP/1.1, or HTTP/2 for h2c, grpc and grpcs (certificates
 * are not verified), a concurrency limit over all loops, the app token, and whether the app is up
 * and healthy.
 *
 * outr_app_state is shared by all loops (atomics only); an outr_app belongs to one loop. */
#ifndef OUTR_APP_CHANNEL_H
#define OUTR_APP_CHANNEL_H

#include "config/settings.h"
#include "http/client.h"
#include "security/token.h"

typedef struct outr_app_state outr_app_state;
typedef struct outr_app outr_app;

outr_app_state *outr_app_state_new(const outr_settings *settings, size_t loop_count);
void outr_app_state_free(outr_app_state *state);

typedef struct outr_app_options {
    outr_loop *loop;
    const outr_settings *settings;
    outr_app_state *state;
    outr_token *token; /* of the app; NULL: as settings have it */
} outr_app_options;
/* A host name is looked up, and again when nobody answers at its address. INVALID_ARGUMENT: the
 * address is neither an IP address nor a name. */
outr_code outr_app_new(outr_app **out, const outr_app_options *options, outr_err *err);
void outr_app_free(outr_app *app);

/* Main loop only: waits for the port (TCP connect each 100 ms), then probes when health checks are
 * on: the path over HTTP, AppCallbackHealthCheck/HealthCheck over gRPC. Changes reach every loop's
 * watchers. */
void outr_app_start(outr_app *app);
void outr_app_stop(outr_app *app);

bool outr_app_is_configured(const outr_app *app); /* an app port was given */
bool outr_app_speaks_grpc(const outr_app *app);   /* --app-protocol is grpc or grpcs */
bool outr_app_is_up(const outr_app *app);         /* its port has been open at least once */
/* up, and the last probes were good (or no checks) */
bool outr_app_is_healthy(const outr_app *app);

typedef struct outr_app_watcher {
    outr_link link;
    /* on app's loop */
    void (*changed)(struct outr_app_watcher *watcher, bool is_up, bool is_healthy);
} outr_app_watcher;
/* also called once, soon, with the present state */
void outr_app_watch(outr_app *app, outr_app_watcher *watcher);
void outr_app_unwatch(outr_app_watcher *watcher);

/* One call, streaming both ways: takes a concurrency slot (waits in order for one; held until the
 * answer's body has ended), sets dapr-api-token from APP_API_TOKEN, then runs http. The caller
 * fills
 * call->http as for outr_http_call_start; target must start with "/". Fails with UNAVAILABLE when
 * the app cannot be reached, FAILED_PRECONDITION when there is no app channel. */
typedef struct outr_app_call {
    outr_http_call http;
    bool skip_token; /* health probe */
    bool skip_limit; /* health probe, /dapr/config, /dapr/subscribe */
    /* machinery */
    outr_app *app;
    outr_op inner;
    outr_op *op;
    outr_link waiting;
    bool has_slot;
    uint64_t sent_ns;
    outr_http_request request;
} outr_app_call;
void outr_app_call_start(outr_app *app, outr_app_call *call, outr_op *op);

/* The same for an invocation, whatever the app speaks (app/invocation.h). An app over HTTP gets the
 * call as it is. An app over gRPC gets it as AppCallback/OnInvoke - the body gathered, up to
 * max_body_bytes, beyond which the op fails with RESOURCE_EXHAUSTED - and its answer appears as an
 * HTTP response: the status that the gRPC code maps to, the data as body or, without success, the
 * status as protobuf JSON, and the headers of invocation.h. A call to a gRPC app that is made with
 * outr_app_call_start is sent as it is, over HTTP/2: proxied calls. */
void outr_app_invoke_start(outr_app *app, outr_app_call *call, outr_op *op);

/* A small call with bodies in memory: subscriptions, deliveries, probes. The answer's body is cut
 * off with RESOURCE_EXHAUSTED over max_body. */
typedef struct outr_app_fetch {
    outr_str method, target; /* in, borrowed until done */
    outr_headers headers;    /* in: arena must be set (outr_headers_init) */
    outr_str body;
    size_t max_body;             /* 0: 4 MiB */
    bool is_invocation;          /* whatever the app speaks: outr_app_invoke_start */
    int status;                  /* out */
    outr_headers answer_headers; /* out, on headers.arena */
    outr_str answer;             /* out, on headers.arena */
    /* machinery */
    outr_app_call call;
    outr_op inner;
    outr_op *op;
    outr_http_request request;
    outr_memory_source source;
    outr_gather gather;
    bool is_gathering;
    outr_err too_large;
} outr_app_fetch;
void outr_app_fetch_start(outr_app *app, outr_app_fetch *fetch, outr_op *op);

#endif
