#include "lane.h"

#include "api/grpc/grpc_api.h"
#include "base/json.h"
#include "observe/exposition.h"
#include "security/identity.h"

/* a request, beside what its body may take once it is parsed */
#define ARENA_BYTES  (64 * OUTR_MIB)
#define HEADER_SLACK (4 * OUTR_KIB) /* Go's net/http grants this beyond the configured size */

outr_code outr_lane_open(outr_lane *lane, unsigned index, outr_env *env, outr_metrics *metrics,
                         const outr_log *log, outr_err *err)
{
    const outr_loop_options options = {
        .env = env,
        .index = index,
        .log = log,
        .metrics = metrics ? outr_metrics_shard(metrics, index) : NULL,
    };
    lane->loop = outr_loop_new(&options);
    for (size_t i = 0; i < OUTR_PORT_COUNT; i++)
        lane->ports[i].lane = lane;
    return lane->loop ? OUTR_OK
                      : outr_fail(err, OUTR_INTERNAL, "event loop %u: cannot be made", index);
}

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_port_server *port = ctx;
    if (port->acceptor)
        outr_tls_acceptor_take(port->acceptor, own_stream);
    else
        outr_http_server_take(port->server, own_stream);
}

/* ---- the internal port with mutual TLS ------------------------------------------------------- */

/* Whoever has a SPIFFE id may connect; what a workload's must look like is told with each call. */
static outr_code is_spiffe(const void *ctx OUTR_UNUSED, outr_str uri, outr_err *err)
{
    outr_spiffe id;
    outr_code rc = outr_spiffe_parse(&id, uri, err);
    return rc ? outr_wrap(err, "could not get leaf SPIFFE ID") : OUTR_OK;
}

static void on_secured(void *ctx, outr_stream *own_stream)
{
    outr_port_server *port = ctx;
    outr_http_server_take(port->server, own_stream);
}

static void on_refused(void *ctx, const outr_addr *peer, const char *reason, const outr_err *err)
{
    outr_port_server *port = ctx;
    outr_loop *loop = port->lane->loop;
    char text[OUTR_ADDR_TEXT_MAX];
    outr_mesh_count_refused(loop, "server", reason);
    uint64_t now = outr_loop_now(loop);
    if (now < port->tell_refused_ns) /* anybody can connect as often as he likes */
        return;
    port->tell_refused_ns = now + OUTR_SEC;
    outr_str address = outr_str_of(text, outr_addr_text(peer, text));
    OUTR_LOG(outr_loop_log(loop), WARN, "a peer was refused on the internal port",
             OUTR_S("peer", address), OUTR_Z("reason", reason), OUTR_ERR(err));
}

static void secure(outr_port_server *port, outr_tls *tls)
{
    const outr_tls_acceptor_options options = {.loop = port->lane->loop,
                                               .tls = tls,
                                               .check = {is_spiffe, NULL},
                                               .ready = on_secured,
                                               .refused = on_refused,
                                               .ctx = port};
    port->acceptor = outr_tls_acceptor_new(&options);
}

outr_code outr_lane_listen(outr_lane *lane, outr_port port, const outr_addr *addr, bool is_shared,
                           outr_err *err)
{
    outr_port_server *p = &lane->ports[port];
    outr_env *env = outr_loop_env(lane->loop);
    if (p->listener_count == OUTR_LEN(p->listeners))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "more than %zu listen addresses",
                         OUTR_LEN(p->listeners));
    const outr_listen_options options = {.addr = *addr,
                                         .is_shared = is_shared,
                                         .is_first = outr_loop_index(lane->loop) == 0,
                                         .on_accept = on_accept,
                                         .ctx = p};
    outr_code rc = env->listen(env, lane->loop, &options, &p->listeners[p->listener_count], err);
    if (rc)
        return rc;
    outr_listener_pause(p->listeners[p->listener_count++], true);
    return OUTR_OK;
}

outr_code outr_lane_build_app(outr_lane *lane, const outr_lane_parts *parts, outr_err *err)
{
    const outr_tracer_options tracer = {
        .loop = lane->loop, .take = outr_exporter_take, .ctx = parts->exporter};
    if (parts->exporter)
        lane->tracer = outr_tracer_new(&tracer);
    const outr_app_options options = {
        .loop = lane->loop, .settings = parts->settings, .state = parts->app_state,
        .token = parts->app_token};
    return outr_app_new(&lane->app, &options, err);
}

static size_t arena_bytes(const outr_settings *s)
{
    bool is_unlimited = s->max_body_bytes <= 0 || s->max_body_bytes > INT64_MAX / 400;
    return is_unlimited ? SIZE_MAX / 16 : ARENA_BYTES + OUTR_JSON_TREE * (size_t)s->max_body_bytes;
}

static outr_http_server *new_server(outr_lane *lane, outr_port port, const outr_lane_parts *parts)
{
    const outr_settings *s = parts->settings;
    outr_http_server_options options = {
        .loop = lane->loop,
        .ctx = &lane->api,
        .allow_h1 = true,
        .allow_h2 = s->enable_h2c,
        .limits = {.max_header_bytes = (size_t)s->read_buffer_bytes + HEADER_SLACK,
                   .arena_bytes = arena_bytes(s)},
    };
    switch (port) {
    case OUTR_PORT_HTTP:
        options.handler = &outr_api_handler;
        break;
    case OUTR_PORT_PUBLIC:
        options.handler = &outr_api_public_handler;
        break;
    case OUTR_PORT_GRPC:
        options.handler = &outr_grpc_api_handler;
        options.allow_h1 = false;
        options.allow_h2 = true;
        options.limits.max_header_bytes = (size_t)s->read_buffer_bytes * OUTR_KIB / 4;
        options.on_refuse = outr_grpc_on_refuse;
        break;
    case OUTR_PORT_INTERNAL:
        options.handler = &outr_mesh_handler;
        options.ctx = lane->mesh;
        options.on_cut = outr_mesh_on_cut;
        options.on_stranger = outr_mesh_on_stranger;
        options.allow_h1 = false;
        options.allow_h2 = true;
        options.allow_connect_protocol = true;
        options.settings_id = OUTR_MESH_SETTINGS_ID;
        options.settings_value = OUTR_MESH_SETTINGS_VALUE;
        options.limits.max_header_bytes = OUTR_MAX(options.limits.max_header_bytes, OUTR_MIB);
        /* as daprd's */
        options.ping_interval_ns = 10 * OUTR_SEC;
        options.ping_timeout_ns = 5 * OUTR_SEC;
        options.min_ping_ns = 8 * OUTR_SEC;
        options.limits.idle_ns = 180 * OUTR_SEC;
        options.on_refuse = outr_grpc_on_refuse;
        break;
    case OUTR_PORT_METRICS:
        options.handler = &outr_exposition_handler;
        options.ctx = parts->metrics;
        break;
    case OUTR_PORT_COUNT:
        break;
    }
    return outr_http_server_new(&options);
}

void outr_lane_build(outr_lane *lane, const outr_lane_parts *parts, outr_pubsub *pubsub)
{
    const outr_mesh_options mesh = {
        .loop = lane->loop,
        .settings = parts->settings,
        .snapshot = parts->snapshot,
        .resolver = parts->resolver,
        .callees = parts->callees,
        .app = lane->app,
        .host = parts->host_address,
        .host_name = parts->host_name,
        .internal_port = parts->internal_port,
        .peer_tls = parts->peer_tls,
        .tracer = lane->tracer,
        .read_secret = outr_host_read_secret,
        .secrets = parts->host,
        .share = outr_host_share,
        .shares = parts->host,
        .member = parts->member,
        .pin_chain = outr_host_pin_app_chain,
        .unpin_chain = outr_host_unpin_chain,
        .chains = parts->host,
    };
    lane->mesh = outr_mesh_new(&mesh);
    outr_mesh_use_authn(lane->mesh, parts->authn);
    lane->api = (outr_api){
        .loop = lane->loop,
        .log = parts->log,
        .settings = parts->settings,
        .snapshot = parts->snapshot,
        .tracer = lane->tracer,
        .health = parts->health,
        .host = parts->host,
        .app = lane->app,
        .mesh = lane->mesh,
        .pubsub = pubsub,
        .configurations = parts->configurations,
        .metadata = parts->metadata,
        .token = {.token = parts->api_token},
        .metrics = outr_loop_metrics(lane->loop),
        .shutdown = parts->shutdown,
        .shutdown_ctx = parts->ctx,
    };
    outr_api_open(&lane->api);
    outr_grpc_api_open(&lane->api);
    lane->has_api = true;
    for (int port = 0; port < OUTR_PORT_COUNT; port++) {
        if (lane->ports[port].listener_count > 0)
            lane->ports[port].server = new_server(lane, (outr_port)port, parts);
    }
    if (parts->internal_tls && lane->ports[OUTR_PORT_INTERNAL].server)
        secure(&lane->ports[OUTR_PORT_INTERNAL], parts->internal_tls);
}

static void *run_thread(void *arg)
{
    outr_lane *lane = arg;
    outr_loop_run(lane->loop);
    return NULL;
}

outr_code outr_lane_start(outr_lane *lane, outr_err *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 512 * OUTR_KIB);
    int rc = pthread_create(&lane->thread, &attr, run_thread, lane);
    pthread_attr_destroy(&attr);
    if (rc)
        return outr_fail_errno(err, rc, "event loop %u: thread", outr_loop_index(lane->loop));
    return OUTR_OK;
}

void outr_lane_accept(outr_lane *lane)
{
    for (int port = 0; port < OUTR_PORT_COUNT; port++) {
        for (size_t i = 0; i < lane->ports[port].listener_count; i++)
            outr_listener_pause(lane->ports[port].listeners[i], false);
    }
}

static void close_listeners(outr_port_server *p)
{
    for (size_t i = 0; i < p->listener_count; i++)
        outr_listener_close(p->listeners[i]);
    p->listener_count = 0;
}

void outr_lane_drain(outr_lane *lane, outr_port port, void (*done)(void *ctx), void *ctx)
{
    outr_port_server *p = &lane->ports[port];
    close_listeners(p);
    outr_tls_acceptor_close(p->acceptor);
    p->acceptor = NULL;
    if (p->server)
        outr_http_server_drain(p->server, done, ctx);
    else
        done(ctx);
}

void outr_lane_update(outr_lane *lane, const outr_snapshot *snapshot, outr_authn *authn)
{
    outr_mesh_use_authn(lane->mesh, authn);
    outr_mesh_update(lane->mesh, snapshot);
    outr_api_update(&lane->api, snapshot);
    outr_grpc_api_done(&lane->api);
    outr_grpc_api_open(&lane->api);
}

void outr_lane_trust_changed(outr_lane *lane)
{
    if (lane->mesh)
        outr_mesh_dismiss_peers(lane->mesh);
    if (lane->ports[OUTR_PORT_INTERNAL].server)
        outr_http_server_dismiss(lane->ports[OUTR_PORT_INTERNAL].server, outr_tls_is_covered,
                                 OUTR_MESH_GRACE_NS);
}

void outr_lane_close(outr_lane *lane)
{
    for (int port = 0; port < OUTR_PORT_COUNT; port++) {
        close_listeners(&lane->ports[port]);
        outr_tls_acceptor_close(lane->ports[port].acceptor);
        lane->ports[port].acceptor = NULL;
        if (lane->ports[port].server)
            outr_http_server_free(lane->ports[port].server);
        lane->ports[port].server = NULL;
    }
    if (lane->has_api)
        outr_api_done(&lane->api);
    outr_grpc_api_done(&lane->api);
    if (lane->mesh)
        outr_mesh_free(lane->mesh);
    if (lane->app)
        outr_app_free(lane->app);
    outr_tracer_free(lane->tracer);
    lane->has_api = false;
    lane->mesh = NULL;
    lane->app = NULL;
    lane->tracer = NULL;
    outr_loop_stop(lane->loop);
}

void outr_lane_join(outr_lane *lane)
{
    if (lane->thread)
        pthread_join(lane->thread, NULL);
    outr_loop_free(lane->loop);
}
