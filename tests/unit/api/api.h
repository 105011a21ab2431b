/* api - the whole API of one loop on a wire, HTTP and gRPC, with the components of a YAML text. */
#ifndef OUTR_TESTS_API_H
#define OUTR_TESTS_API_H

#include "api/core/metadata.h"
#include "api/grpc/grpc_api.h"
#include "api/http/http_api.h"
#include "blocks/pubsub/pubsub.h"
#include "lib/folder.h"
#include "lib/web.h"
#include "lib/wire.h"

typedef struct api_world {
    wire w;
    folder f;
    outr_settings settings;
    outr_snapshot *snapshot;
    outr_health health;
    outr_host *host;
    outr_app_state *app_state;
    outr_app *app;
    outr_mesh *mesh;
    outr_pubsub *pubsub;
    bool is_pubsub_stopped; /* by the test */
    outr_metrics *metrics;
    outr_api api;
    outr_http_server *server, *public_server, *grpc_server;
    outr_http_pool *client, *public_client, *grpc_client;
    outr_loop *loops[1];
    outr_app *apps[1];
    unsigned shutdowns;
    bool was_forced;
} api_world;

static void api_on_accept(void *ctx, outr_stream *own_stream)
{
    api_world *a = ctx;
    outr_http_server *const servers[] = {a->server, a->public_server, a->grpc_server};
    outr_http_server_take(servers[own_stream->local.port - 1], own_stream);
}

static void api_on_shutdown(void *ctx, bool is_forced)
{
    api_world *a = ctx;
    a->shutdowns++;
    a->was_forced = is_forced;
}

static void api_must(outr_op *op)
{
    if (op->err.code) {
        fprintf(stderr, "%s\n", op->err.text);
        abort();
    }
}

/* Messages between loops are no work that the wire sees. */
static void api_wait(api_world *a, const outr_op *op)
{
    while (outr_op_is_pending(op))
        wire_run(&a->w);
}

static outr_http_pool *api_pool(api_world *a, uint16_t port)
{
    outr_http_version version = port == 3 ? OUTR_HTTP_2 : OUTR_HTTP_1;
    outr_http_pool_options o = {.loop = a->w.loop, .version = version};
    o.addr.kind = OUTR_ADDR_IP4;
    o.addr.port = port;
    return outr_http_pool_new(&o);
}

static outr_http_server *api_server(api_world *a, const outr_http_handler *handler)
{
    const outr_http_server_options o = {
        .loop = a->w.loop, .handler = handler, .ctx = &a->api, .allow_h1 = true, .allow_h2 = true};
    return outr_http_server_new(&o);
}

/* yaml: components; configuration: a Configuration or NULL; max_values: of a metric's label. */
static api_world *api_open(const outr_settings *settings, const char *yaml,
                           const char *configuration, size_t max_values)
{
    api_world *a = outr_alloc(sizeof *a);
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_err err;
    outr_op op;
    wire_init(&a->w, 1);
    outr_loop_free(a->w.loop);
    a->metrics = outr_metrics_new(&(outr_metrics_options){
        .app_id = OUTR_STR("me"), .shard_count = 1, .max_values = max_values});
    a->w.loop = outr_loop_new(&(outr_loop_options){.env = &a->w.env,
                                                   .is_simulated = true,
                                                   .log = NULL,
                                                   .metrics = outr_metrics_shard(a->metrics, 0)});
    a->w.on_accept = api_on_accept;
    a->w.ctx = a;
    folder_make(&a->f);
    folder_write(&a->f, "a.yaml", yaml);
    a->settings = *settings;
    a->settings.app_id = OUTR_STR("me");
    a->settings.namespace_ = OUTR_STR("default");
    a->settings.api_logging = -1;
    a->settings.app_protocol_name = OUTR_STR("http");
    a->settings.app_channel_address = OUTR_STR("127.0.0.1");
    a->settings.resources_paths.items[0] = outr_str_from(a->f.path);
    a->settings.resources_paths.count = 1;
    if (configuration) {
        folder_write(&a->f, "conf", configuration);
        a->settings.config_files.items[0] = outr_str_from(folder_path(&a->f, "conf"));
        a->settings.config_files.count = 1;
    }
    if (outr_snapshot_load(&a->snapshot, &a->settings, NULL, &errors, &warnings)) {
        fprintf(stderr, "%s\n", errors.items[0].text);
        abort();
    }
    a->loops[0] = a->w.loop;
    a->host = outr_host_new(&(outr_host_options){.loops = a->loops,
                                                 .loop_count = 1,
                                                 .settings = &a->settings,
                                                 .run_dir = outr_str_from(a->f.path),
                                                 .log = NULL});
    outr_op_init(&op, a->w.loop, NULL, 0, api_must);
    outr_host_open(a->host, a->snapshot, &op);
    api_wait(a, &op);
    a->app_state = outr_app_state_new(&a->settings, 1);
    const outr_app_options app = {a->w.loop, &a->settings, a->app_state, NULL};
    if (outr_app_new(&a->app, &app, &err))
        abort();
    a->apps[0] = a->app;
    a->pubsub = outr_pubsub_new(&(outr_pubsub_options){.loops = a->loops,
                                                       .apps = a->apps,
                                                       .loop_count = 1,
                                                       .settings = &a->settings,
                                                       .host = a->host,
                                                       .log = NULL});
    a->mesh = outr_mesh_new(&(outr_mesh_options){.loop = a->w.loop,
                                                 .settings = &a->settings,
                                                 .snapshot = a->snapshot,
                                                 .app = a->app,
                                                 .host = OUTR_STR("192.0.2.1"),
                                                 .host_name = OUTR_STR("box")});
    for (int target = 0; target < OUTR_HEALTH_COUNT; target++)
        outr_health_set(&a->health, (outr_health_target)target, true);
    a->api = (outr_api){.loop = a->w.loop,
                        .log = NULL,
                        .settings = &a->settings,
                        .snapshot = a->snapshot,
                        .health = &a->health,
                        .host = a->host,
                        .app = a->app,
                        .mesh = a->mesh,
                        .pubsub = a->pubsub,
                        .metadata = outr_metadata_new(),
                        .metrics = outr_loop_metrics(a->w.loop),
                        .shutdown = api_on_shutdown,
                        .shutdown_ctx = a};
    outr_api_open(&a->api);
    outr_grpc_api_open(&a->api);
    a->server = api_server(a, &outr_api_handler);
    a->public_server = api_server(a, &outr_api_public_handler);
    a->grpc_server = api_server(a, &outr_grpc_api_handler);
    a->client = api_pool(a, 1);
    a->public_client = api_pool(a, 2);
    a->grpc_client = api_pool(a, 3);
    return a;
}

static void api_close(api_world *a)
{
    outr_op op;
    outr_http_pool_free(a->client);
    outr_http_pool_free(a->public_client);
    outr_http_pool_free(a->grpc_client);
    wire_run(&a->w);
    outr_http_server_free(a->server);
    outr_http_server_free(a->public_server);
    outr_http_server_free(a->grpc_server);
    wire_run(&a->w);
    outr_op_init(&op, a->w.loop, NULL, 0, api_must);
    outr_pubsub_stop(a->pubsub, &op); /* streams that are ending belong to it */
    api_wait(a, &op);
    outr_grpc_api_done(&a->api);
    outr_api_done(&a->api);
    outr_metadata_free(a->api.metadata);
    outr_mesh_free(a->mesh);
    if (!a->is_pubsub_stopped) { /* streams may still be leaving their broker */
        outr_op_init(&op, a->w.loop, NULL, 0, api_must);
        outr_pubsub_stop(a->pubsub, &op);
        api_wait(a, &op);
    }
    outr_pubsub_free(a->pubsub);
    outr_app_free(a->app);
    outr_op_init(&op, a->w.loop, NULL, 0, api_must);
    outr_host_close(a->host, &op);
    api_wait(a, &op);
    outr_host_free(a->host);
    outr_app_state_free(a->app_state);
    outr_snapshot_unref(a->snapshot);
    wire_done(&a->w);
    outr_metrics_free(a->metrics);
    folder_remove(&a->f);
    free(a);
}

/* One call to its end. headers: pairs, NULL at the end; body NULL: none. web_call_done is the
 * caller's. */
OUTR_UNUSED static void api_call(api_world *a, web_call *c, const char *method, const char *target,
                     const char *const *headers, const char *body)
{
    web_call_init(c, a->w.loop, method, target);
    for (; headers && headers[0]; headers += 2)
        outr_headers_add(&c->req.headers, outr_str_from(headers[0]), outr_str_from(headers[1]));
    if (body)
        web_call_bytes(c, body, strlen(body));
    web_call_start(c, a->client);
    wire_run(&a->w);
}

#endif
