/* lane - one loop, its thread, and everything of the sidecar that lives on it.
 *
 * Lanes share nothing but what the runtime lends them (settings, host, pub/sub engine, atomics).
 * Lane 0 runs on the main thread. Functions marked "lane" run on the lane's own thread; the others
 * before its thread is started or after it has ended. */
#ifndef OUTR_LANE_H
#define OUTR_LANE_H

#include <pthread.h>

#include "api/http/http_api.h"
#include "blocks/configuration/configuration.h"
#include "blocks/pubsub/pubsub.h"
#include "loop/op.h"
#include "observe/export.h"
#include "tls/accept.h"

typedef enum outr_port {
    OUTR_PORT_HTTP,
    OUTR_PORT_GRPC,
    OUTR_PORT_INTERNAL,
    OUTR_PORT_PUBLIC,
    OUTR_PORT_METRICS,
    OUTR_PORT_COUNT,
} outr_port;

typedef struct outr_port_server {
    struct outr_lane *lane;
    outr_http_server *server;
    outr_tls_acceptor *acceptor; /* of the internal port with mutual TLS */
    outr_listener *listeners[OUTR_LIST_MAX];
    size_t listener_count;
    uint64_t tell_refused_ns; /* not again before */
} outr_port_server;

typedef struct outr_lane {
    outr_loop *loop;
    pthread_t thread;
    outr_app *app;
    outr_mesh *mesh;
    outr_tracer *tracer; /* NULL: spans are not exported */
    outr_api api;
    bool has_api;
    outr_port_server ports[OUTR_PORT_COUNT];
} outr_lane;

/* What a lane borrows from the runtime. */
typedef struct outr_lane_parts {
    const outr_settings *settings;
    const outr_snapshot *snapshot;
    outr_metrics *metrics;
    outr_app_state *app_state;
    outr_resolver *resolver;
    outr_callees *callees; /* each lane takes a ref of its own */
    outr_host *host;
    outr_health *health;
    struct outr_metadata *metadata;
    outr_configurations *configurations;
    const outr_log *log;
    outr_exporter *exporter; /* NULL: nowhere to */
    outr_str host_address, host_name;
    outr_str member; /* this process among the sidecars of its app */
    uint16_t internal_port;
    outr_tls *peer_tls, *internal_tls; /* calling and being called; NULL: clear text */
    outr_token *api_token, *app_token;
    outr_authn *authn;                 /* NULL: nobody looks at tokens */
    void (*shutdown)(void *ctx, bool is_forced); /* any thread */
    void *ctx;
} outr_lane_parts;

outr_code outr_lane_open(outr_lane *lane, unsigned index, outr_env *env, outr_metrics *metrics,
                         const outr_log *log, outr_err *err);
/* Binds one address of a port, accepting paused. Lanes but the first share the port, which must be
 * known by then. "port 3500 on 127.0.0.1: address already in use". */
outr_code outr_lane_listen(outr_lane *lane, outr_port port, const outr_addr *addr, bool is_shared,
                           outr_err *err);
/* The app channel; before the pub/sub engine, which delivers through it. */
outr_code outr_lane_build_app(outr_lane *lane, const outr_lane_parts *parts, outr_err *err);
/* Mesh, API and servers. */
void outr_lane_build(outr_lane *lane, const outr_lane_parts *parts, outr_pubsub *pubsub);
outr_code outr_lane_start(outr_lane *lane, outr_err *err); /* its thread; not for lane 0 */
void outr_lane_accept(outr_lane *lane);                    /* lane: begins to accept */
/* lane: stops accepting on a port and lets what is in flight end; done is called once, perhaps at
 * once. */
void outr_lane_drain(outr_lane *lane, outr_port port, void (*done)(void *ctx), void *ctx);
/* lane */
void outr_lane_update(outr_lane *lane, const outr_snapshot *snapshot, outr_authn *authn);
/* lane: whom we trust has changed; connections with those who are not covered any more end. */
void outr_lane_trust_changed(outr_lane *lane);
void outr_lane_close(outr_lane *lane); /* lane: frees all but the loop, stops the loop */
void outr_lane_join(outr_lane *lane);  /* waits for the thread, frees the loop */

#endif
