/* world - a calling sidecar, several instances of a called one, and their apps, on one wire.
 *
 * Ports: 1 is the caller's API, where x-target names whom to call; 9000 + i the internal port of
 * instance i, 8000 + i its app's. 7000 is what lies outside: http://10.9.9.9:7000. Who is in names[]
 * is told by a resolver of the test's. */
#ifndef OUTR_TESTS_MESH_WORLD_H
#define OUTR_TESTS_MESH_WORLD_H

#include "lib/web.h"
#include "lib/wire.h"
#include "mesh/deadline.h"
#include "mesh/internal.h"

#define WORLD_NODES   3
#define WORLD_OUTSIDE 7000

typedef struct world world;

typedef struct world_node {
    world *w;
    outr_settings settings;
    outr_app_state *app_state;
    outr_app *app;
    outr_mesh *mesh;
    outr_http_server *internal, *app_server;
    uint16_t port;    /* internal */
    bool is_refusing; /* connects to its internal port fail */
    bool is_app_refusing;
    unsigned connects, requests; /* seen by internal port, by app */
} world_node;

struct world {
    wire w;
    outr_snapshot *snapshot;
    outr_settings settings; /* of the caller */
    outr_app_state *app_state;
    outr_app *app;
    outr_mesh *mesh;
    outr_callees *callees; /* of mesh and second */
    outr_mesh *second;     /* as of another loop: takes every other call; NULL: there is none */
    unsigned turns;
    outr_http_server *front, *outside;
    outr_http_pool *client;
    world_node nodes[WORLD_NODES];
    /* The resolver. */
    outr_resolver resolver;
    uint16_t names[8]; /* ports behind "callee"; 0: none */
    const char *labels[8]; /* "version=1"; NULL: none */
    uint16_t shadow;       /* the one behind "shadow" */
    unsigned asked;
    bool resolver_fails;
    uint64_t resolver_delay_ns;
    /* What the apps do; NULL: 200 with the target as body. */
    void (*on_app)(world *w, world_node *node, outr_exchange *x);
    unsigned open; /* exchanges of all servers */
    void (*connect)(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op);
    outr_trace trace; /* given to the invocations */
};

static world *world_of_env(outr_env *env)
{
    return OUTR_CONTAINER(OUTR_CONTAINER(env, wire, env), world, w);
}

static world_node *world_node_at(world *w, uint16_t port)
{
    for (int i = 0; i < WORLD_NODES; i++) {
        if (w->nodes[i].port == port || port == 8000 + i)
            return &w->nodes[i];
    }
    return NULL;
}

static void world_connect(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op)
{
    world *w = world_of_env(env);
    uint16_t port = req->addr.port;
    world_node *node = world_node_at(w, port);
    bool is_known = node || port == 1 || port == WORLD_OUTSIDE;
    if (node && port >= 9000)
        node->connects++;
    if (is_known && !(node && (port >= 9000 ? node->is_refusing : node->is_app_refusing))) {
        w->connect(env, loop, req, op);
        return;
    }
    outr_err err;
    outr_fail(&err, OUTR_UNAVAILABLE, "connect: connection refused");
    outr_op_begin(op, req, NULL);
    outr_op_fail_soon(op, &err);
}

static void world_lookup(outr_env *env, outr_loop *loop, outr_lookup *req, outr_op *op)
{
    outr_err err;
    (void)env;
    (void)loop;
    outr_op_begin(op, req, NULL);
    if (!outr_str_is(req->host, "api.test") &&
        outr_addr_from_ip(&req->addrs[0], req->host, req->port, NULL)) {
        outr_fail(&err, OUTR_NOT_FOUND, "no such host");
        outr_op_fail_soon(op, &err);
        return;
    }
    if (outr_str_is(req->host, "api.test"))
        outr_addr_from_ip(&req->addrs[0], OUTR_STR("10.9.9.9"), req->port, NULL);
    req->count = 1;
    outr_op_finish_soon(op);
}

static void world_accept(void *ctx, outr_stream *own_stream)
{
    world *w = ctx;
    uint16_t port = own_stream->local.port;
    world_node *node = world_node_at(w, port);
    outr_http_server_take(!node          ? (port == 1 ? w->front : w->outside)
                          : port >= 9000 ? node->internal
                                         : node->app_server,
                          own_stream);
}

/* ---- resolver ------------------------------------------------------------------------------- */

typedef struct world_answer {
    outr_timer timer;
    outr_resolve *req;
    outr_op *op;
    world *w;
} world_answer;

static void world_fill(world *w, outr_resolve *req)
{
    bool is_callee = outr_str_is(req->app_id, "callee");
    req->instances = outr_arena_alloc(req->arena, OUTR_LEN(w->names) * sizeof *req->instances);
    if (outr_str_is(req->app_id, "shadow") && w->shadow)
        outr_addr_from_ip(&req->instances[req->count++].addr, OUTR_STR("10.0.0.1"), w->shadow,
                          NULL);
    for (size_t i = 0; is_callee && i < OUTR_LEN(w->names) && w->names[i]; i++) {
        outr_instance *in = &req->instances[req->count++];
        outr_addr_from_ip(&in->addr, OUTR_STR("10.0.0.1"), w->names[i], NULL);
        outr_labels_parse(&in->labels, req->arena, outr_str_from(w->labels[i]), NULL);
    }
}

static void world_answered(outr_timer *timer)
{
    world_answer *a = OUTR_CONTAINER(timer, world_answer, timer);
    outr_op *op = a->op;
    if (!op->err.code)
        world_fill(a->w, a->req);
    free(a);
    outr_op_finish(op);
}

static void world_answer_cancelled(outr_op *op)
{
    world_answer *a = op->impl;
    outr_timer_stop(op->loop, &a->timer);
    free(a);
    outr_op_finish(op);
}

static void world_resolve(outr_resolver *resolver, outr_resolve *req, outr_op *op)
{
    world *w = OUTR_CONTAINER(resolver, world, resolver);
    outr_err err;
    w->asked++;
    if (w->resolver_delay_ns) {
        world_answer *a = outr_alloc(sizeof *a);
        *a = (world_answer){{.fire = world_answered}, req, op, w};
        outr_op_begin(op, a, world_answer_cancelled);
        outr_timer_start(op->loop, &a->timer, outr_loop_now(op->loop) + w->resolver_delay_ns);
        return;
    }
    outr_op_begin(op, req, NULL);
    if (w->resolver_fails) {
        outr_fail(&err, OUTR_UNAVAILABLE, "the registry is away");
        outr_op_fail_soon(op, &err);
        return;
    }
    world_fill(w, req);
    outr_op_finish_soon(op);
}

static const outr_resolver_backend world_resolver = {.resolve = world_resolve,
                                                     .cache_ns = 20 * OUTR_SEC};

/* ---- the caller's API: one invocation per request -------------------------------------------- */

static void world_invoke_failed(outr_invoke *invoke, const outr_err *err)
{
    char text[OUTR_ERR_TEXT_MAX + 64];
    invoke->x->on_gone = NULL;
    snprintf(text, sizeof text, "%d %s (%s)", (int)err->code, err->text,
             outr_why_word(outr_why_of(err)));
    web_answer(invoke->x, invoke->status ? invoke->status : 500, text);
}

static void world_invoke_done(outr_invoke *invoke, const outr_err *err)
{
    (void)err;
    outr_http_done(invoke->x);
}

static void world_on_front(void *ctx, outr_exchange *x)
{
    world *w = ctx;
    outr_invoke *invoke = outr_arena_alloc(x->arena, sizeof *invoke);
    outr_str path;
    w->open++;
    invoke->query = outr_str_cut(x->req.target, '?', &path);
    invoke->x = x;
    invoke->target = outr_headers_get(&x->req.headers, "x-target");
    invoke->is_proxied = outr_headers_has(&x->req.headers, "x-proxied");
    invoke->method = outr_str_skip(path, invoke->is_proxied ? 0 : 1);
    invoke->trace = w->trace;
    outr_deadline_read(&invoke->deadline_ns, &x->req.headers, outr_loop_now(x->loop));
    invoke->on_failed = world_invoke_failed;
    invoke->on_done = world_invoke_done;
    outr_mesh_invoke(w->second && w->turns++ % 2 ? w->second : w->mesh, invoke);
}

static void world_on_app(void *ctx, outr_exchange *x)
{
    world_node *node = ctx;
    node->requests++;
    node->w->open++;
    if (node->w->on_app)
        node->w->on_app(node->w, node, x);
    else
        web_answer(x, 200, "hello");
}

static void world_app_over(void *ctx, outr_exchange *x, bool is_broken)
{
    (void)x;
    (void)is_broken;
    ((world_node *)ctx)->w->open--;
}

static void world_front_over(void *ctx, outr_exchange *x, bool is_broken)
{
    (void)x;
    (void)is_broken;
    ((world *)ctx)->open--;
}

static const outr_http_handler world_front = {world_on_front, world_front_over};
static const outr_http_handler world_app = {world_on_app, world_app_over};

static void world_on_outside(void *ctx, outr_exchange *x)
{
    world *w = ctx;
    w->open++;
    if (w->on_app)
        w->on_app(w, NULL, x);
    else
        web_answer(x, 200, "outside");
}

static const outr_http_handler world_outside = {world_on_outside, world_front_over};

/* ---- making and ending ---------------------------------------------------------------------- */

static outr_http_server *world_server(world *w, const outr_http_handler *handler, void *ctx,
                                      bool is_mesh, uint32_t max_streams)
{
    outr_http_server_options o = {
        .loop = w->w.loop,
        .handler = handler,
        .ctx = ctx,
        .allow_h1 = !is_mesh,
        .allow_h2 = true,
        .limits = {.max_streams = max_streams, .max_header_bytes = OUTR_MIB}};
    o.settings_id = is_mesh ? OUTR_MESH_SETTINGS_ID : 0;
    o.settings_value = is_mesh ? OUTR_MESH_SETTINGS_VALUE : 0;
    o.allow_connect_protocol = is_mesh;
    return outr_http_server_new(&o);
}

/* What all apps speak. */
static outr_app_protocol world_protocol;

static outr_settings world_settings(const char *app_id, uint16_t app_port)
{
    return (outr_settings){.app_id = outr_str_from(app_id),
                           .app_protocol = world_protocol,
                           .namespace_ = OUTR_STR("default"),
                           .app_channel_address = OUTR_STR("127.0.0.1"),
                           .app_port = app_port,
                           .read_buffer_bytes = 4096,
                           .app_health_threshold = 3,
                           .max_body_bytes = 4 * (int64_t)OUTR_MIB};
}

static outr_app *world_make_app(world *w, const outr_settings *settings, outr_app_state *state)
{
    outr_app *app = NULL;
    outr_err err;
    const outr_app_options o = {w->w.loop, settings, state, NULL};
    if (outr_app_new(&app, &o, &err))
        abort();
    return app;
}

/* Whom a called sidecar takes its peers for. */
static const outr_identity *world_peer;

static const outr_identity *world_identify(const outr_exchange *x)
{
    (void)x;
    return world_peer;
}

/* The appHttpPipeline of all sidecars, and how many calls hold it. */
static const outr_chain *world_chain;
static int world_pins;

static const outr_chain *world_pin_chain(void *ctx, const outr_loop *loop, void **pin)
{
    (void)ctx;
    (void)loop;
    *pin = &world_pins;
    world_pins += world_chain != NULL;
    return world_chain;
}

static void world_unpin_chain(void *pin)
{
    --*(int *)pin;
}

static outr_mesh *world_make_mesh(world *w, const outr_settings *settings, outr_app *app,
                                  uint16_t port)
{
    const outr_mesh_options o = {.loop = w->w.loop,
                                 .settings = settings,
                                 .snapshot = w->snapshot,
                                 .resolver = &w->resolver,
                                 .callees = settings == &w->settings ? w->callees : NULL,
                                 .app = app,
                                 .host = OUTR_STR("192.0.2.1"),
                                 .host_name = OUTR_STR("box"),
                                 .internal_port = port,
                                 .identify = world_identify,
                                 .pin_chain = world_pin_chain,
                                 .unpin_chain = world_unpin_chain};
    return outr_mesh_new(&o);
}

/* Of all sidecars; NULL: nothing is counted. */
static outr_metric_shard *world_shard;

/* max_streams: of the internal ports; 0: the default. */
static world *world_open(uint64_t seed, uint32_t max_streams)
{
    static const outr_settings nothing;
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    world *w = outr_alloc(sizeof *w);
    wire_init_with(&w->w, seed, world_shard);
    w->connect = w->w.env.connect;
    w->w.env.connect = world_connect;
    w->w.env.lookup = world_lookup;
    w->w.on_accept = world_accept;
    w->w.ctx = w;
    if (outr_snapshot_load(&w->snapshot, &nothing, NULL, &errors, &warnings))
        abort();
    w->resolver = (outr_resolver){&world_resolver, outr_watchers_new()};
    w->settings = world_settings("caller", 0);
    w->app_state = outr_app_state_new(&w->settings, 1);
    w->app = world_make_app(w, &w->settings, w->app_state);
    w->callees = outr_callees_new();
    w->mesh = world_make_mesh(w, &w->settings, w->app, 999);
    w->front = world_server(w, &world_front, w, false, 0);
    w->outside = world_server(w, &world_outside, w, false, 0);
    for (uint16_t i = 0; i < WORLD_NODES; i++) {
        world_node *n = &w->nodes[i];
        n->w = w;
        n->port = (uint16_t)(9000 + i);
        n->settings = world_settings("callee", (uint16_t)(8000 + i));
        n->app_state = outr_app_state_new(&n->settings, 1);
        n->app = world_make_app(w, &n->settings, n->app_state);
        n->mesh = world_make_mesh(w, &n->settings, n->app, n->port);
        n->internal = world_server(w, &outr_mesh_handler, n->mesh, true, max_streams);
        n->app_server = world_server(w, &world_app, n, false, 0);
    }
    w->names[0] = 9000;
    outr_http_pool_options o = {.loop = w->w.loop, .version = OUTR_HTTP_1};
    o.addr.kind = OUTR_ADDR_IP4;
    o.addr.port = 1;
    w->client = outr_http_pool_new(&o);
    return w;
}

static inline void world_add_second(world *w)
{
    w->second = world_make_mesh(w, &w->settings, w->app, 999);
}

/* The number of exchanges that were left open. */
static unsigned world_close(world *w)
{
    w->w.break_per_mille = w->w.refuse_percent = w->w.late_percent = 0;
    outr_watchers_close(w->resolver.watchers);
    outr_http_pool_free(w->client);
    wire_run(&w->w);
    outr_http_server_free(w->front);
    wire_sleep(&w->w, OUTR_SEC);
    outr_mesh_free(w->mesh);
    if (w->second)
        outr_mesh_free(w->second);
    outr_callees_unref(w->callees);
    outr_app_free(w->app);
    wire_run(&w->w);
    for (int i = 0; i < WORLD_NODES; i++)
        outr_http_server_free(w->nodes[i].internal);
    wire_sleep(&w->w, OUTR_SEC);
    for (int i = 0; i < WORLD_NODES; i++) {
        outr_mesh_free(w->nodes[i].mesh);
        outr_app_free(w->nodes[i].app);
        wire_run(&w->w);
        outr_http_server_free(w->nodes[i].app_server);
        outr_app_state_free(w->nodes[i].app_state);
    }
    outr_http_server_free(w->outside);
    wire_run(&w->w);
    outr_app_state_free(w->app_state);
    outr_snapshot_unref(w->snapshot);
    unsigned open = w->open;
    wire_done(&w->w);
    free(w);
    return open;
}

static void world_call(world *w, web_call *c, const char *method, const char *x_target,
                       const char *path)
{
    web_call_init(c, w->w.loop, method, path);
    outr_headers_add(&c->req.headers, OUTR_STR("x-target"), outr_str_from(x_target));
}

static inline void world_run_until_over(world *w, web_call *c)
{
    uint64_t limit = w->w.now + 3600 * OUTR_SEC;
    while (wire_run(&w->w) && !c->done_count && w->w.now < limit)
        w->w.now = outr_loop_tick(w->w.loop);
    assert_int_equal(c->done_count, 1);
}

/* body: text in its body. */
static inline void world_assert_answer(const web_call *c, int status, const char *body)
{
    if (c->call.head.status == status &&
        outr_str_search(outr_buf_view(&c->taker.body), outr_str_from(body)) >= 0)
        return;
    fail_msg("status %d, \"" OUTR_FMT "\" (%s)", c->call.head.status,
             OUTR_ARG(outr_buf_view(&c->taker.body)), c->err.text);
}

#endif
