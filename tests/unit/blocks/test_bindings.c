#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dapr/proto/runtime/v1/appcallback.pb-c.h>
#include <stdlib.h>

#include "blocks/bindings/bindings.h"
#include "blocks/bindings/output.h"
#include "grpc/server.h"
#include "lib/folder.h"
#include "lib/web.h"
#include "lib/wire.h"

/* The engine between real bindings and an app of the test: over HTTP or gRPC, on a wire. */

typedef Dapr__Proto__Runtime__V1__BindingEventRequest event_request;
typedef Dapr__Proto__Runtime__V1__BindingEventResponse event_response;
typedef Dapr__Proto__Runtime__V1__ListInputBindingsResponse list_response;

typedef struct world {
    wire w;
    folder f;
    outr_settings settings;
    outr_snapshot *snapshot;
    outr_metrics *metrics;
    outr_host *host;
    outr_app_state *app_state;
    outr_app *app;
    outr_bindings *engine;
    outr_http_server *server;
    outr_loop *loops[1];
    outr_app *apps[1];
    bool is_away;
    void (*connect)(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op);
    /* the app */
    int options_status, post_status; /* 0: no answer */
    bool is_well;
    unsigned options, events, lists;
    char target[128], headers[1024];
    bool has_trace_bin;
    const char *wanted;               /* gRPC: what ListInputBindings says */
    const event_response *grpc_answer; /* NULL: an empty one */
    outr_code grpc_code;
} world;

/* ---- the app --------------------------------------------------------------------------------- */

static void on_gone(outr_exchange *x, const outr_err *err OUTR_UNUSED)
{
    outr_http_done(x);
}

static void answer(outr_exchange *x, int status)
{
    if (status)
        web_answer(x, status, "thanks");
    else
        x->on_gone = on_gone;
}

static void on_http(void *ctx, outr_exchange *x)
{
    world *o = ctx;
    int n = 0;
    if (outr_str_is(x->req.target, "/healthz")) {
        web_answer(x, o->is_well ? 200 : 500, "");
        return;
    }
    snprintf(o->target, sizeof o->target, OUTR_FMT, OUTR_ARG(x->req.target));
    if (outr_str_is(x->req.method, "OPTIONS")) {
        o->options++;
        answer(x, o->options_status);
        return;
    }
    o->events++;
    o->headers[0] = 0;
    for (size_t i = 0; i < x->req.headers.count; i++)
        n += snprintf(o->headers + n, sizeof o->headers - (size_t)n, OUTR_FMT "=" OUTR_FMT ";",
                      OUTR_ARG(x->req.headers.items[i].name),
                      OUTR_ARG(x->req.headers.items[i].value));
    answer(x, o->post_status);
}

static void run_list(outr_grpc_call *call)
{
    world *o = call->ctx;
    list_response reply = DAPR__PROTO__RUNTIME__V1__LIST_INPUT_BINDINGS_RESPONSE__INIT;
    char *names[] = {(char *)(uintptr_t)o->wanted};
    o->lists++;
    reply.n_bindings = o->wanted ? 1 : 0;
    reply.bindings = names;
    if (o->wanted)
        outr_grpc_reply(call, &reply);
    else
        outr_grpc_fail(call, &(outr_grpc_status){.code = OUTR_UNIMPLEMENTED,
                                                 .message = OUTR_STR("no such method")});
}

static void run_event(outr_grpc_call *call)
{
    static const event_response empty = DAPR__PROTO__RUNTIME__V1__BINDING_EVENT_RESPONSE__INIT;
    world *o = call->ctx;
    const event_request *req = call->request;
    int n = 0;
    o->events++;
    snprintf(o->target, sizeof o->target, "%s", req->name);
    o->has_trace_bin = outr_headers_has(&call->x->req.headers, "traceparent") &&
                       outr_headers_has(&call->x->req.headers, "grpc-trace-bin");
    o->headers[0] = 0;
    for (size_t i = 0; i < req->n_metadata; i++)
        n += snprintf(o->headers + n, sizeof o->headers - (size_t)n, "%s=%s;",
                      req->metadata[i]->key, req->metadata[i]->value);
    if (o->grpc_code)
        outr_grpc_fail(call, &(outr_grpc_status){.code = o->grpc_code,
                                                 .message = OUTR_STR("refused")});
    else
        outr_grpc_reply(call, o->grpc_answer ? o->grpc_answer : &empty);
}

static const outr_grpc_method methods[] = {
    {.path = "/dapr.proto.runtime.v1.AppCallback/ListInputBindings",
     .request = &google__protobuf__empty__descriptor,
     .run = run_list},
    {.path = "/dapr.proto.runtime.v1.AppCallback/OnBindingEvent",
     .request = &dapr__proto__runtime__v1__binding_event_request__descriptor,
     .run = run_event},
};

static void on_grpc(void *ctx, outr_exchange *x)
{
    for (size_t i = 0; i < OUTR_LEN(methods); i++) {
        const outr_grpc_serve_options o = {
            .method = &methods[i], .ctx = ctx, .max_bytes = OUTR_MIB};
        if (outr_str_is(x->req.target, methods[i].path)) {
            outr_grpc_serve(x, &o);
            return;
        }
    }
    outr_grpc_refuse(x, OUTR_UNIMPLEMENTED, OUTR_STR("unknown method"));
}

static const outr_http_handler http_app = {.on_request = on_http},
                               grpc_app = {.on_request = on_grpc};

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((world *)ctx)->server, own_stream);
}

static void on_connect(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op)
{
    world *o = OUTR_CONTAINER(OUTR_CONTAINER(env, wire, env), world, w);
    outr_err err;
    if (!o->is_away) {
        o->connect(env, loop, req, op);
        return;
    }
    outr_fail(&err, OUTR_UNAVAILABLE, "connect: connection refused");
    outr_op_begin(op, req, NULL);
    outr_op_fail_soon(op, &err);
}

/* ---- the world ------------------------------------------------------------------------------- */

static void must(outr_op *op)
{
    if (op->err.code)
        fail_msg("%s", op->err.text);
}

static void wait_for(world *o, outr_op *op)
{
    while (outr_op_is_pending(op)) /* threads post what the wire does not see */
        wire_run(&o->w);
}

/* FOLDER in yaml stands for the test's own. */
static void load(world *o, const char *yaml)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    outr_str rest = outr_str_from(yaml), mark = OUTR_STR("FOLDER");
    for (ptrdiff_t at; (at = outr_str_search(rest, mark)) >= 0;) {
        outr_buf_str(&text, outr_str_head(rest, (size_t)at));
        outr_buf_z(&text, o->f.path);
        rest = outr_str_skip(rest, (size_t)at + mark.n);
    }
    outr_buf_str(&text, rest);
    outr_buf_char(&text, 0);
    folder_write(&o->f, "a.yaml", text.p);
    o->settings.resources_paths.items[0] = outr_str_from(o->f.path);
    o->settings.resources_paths.count = 1;
    if (outr_snapshot_load(&o->snapshot, &o->settings, NULL, &errors, &warnings))
        fail_msg("%s", errors.items[0].text);
}

#define COMPONENT(name, type, metadata)                                                            \
    "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " name "}\n"              \
    "spec: {type: " type ", version: v1, metadata: [" metadata "]}\n"
#define TICK COMPONENT("tick", "bindings.cron", "{name: schedule, value: '@every 1s'}")

static world *open_world(outr_app_protocol protocol, const char *yaml)
{
    world *o = outr_alloc(sizeof *o);
    outr_err err;
    outr_op op;
    wire_init(&o->w, 1);
    outr_loop_free(o->w.loop);
    o->metrics = outr_metrics_new(
        &(outr_metrics_options){.app_id = OUTR_STR("me"), .shard_count = 1, .max_values = 100});
    o->w.loop = outr_loop_new(&(outr_loop_options){.env = &o->w.env,
                                                   .is_simulated = true,
                                                   .metrics = outr_metrics_shard(o->metrics, 0)});
    o->connect = o->w.env.connect;
    o->w.env.connect = on_connect;
    o->w.on_accept = on_accept;
    o->w.ctx = o;
    folder_make(&o->f);
    o->settings.app_id = OUTR_STR("me");
    o->settings.namespace_ = OUTR_STR("default");
    o->settings.app_port = 8000;
    o->settings.app_protocol = protocol;
    o->settings.app_channel_address = OUTR_STR("127.0.0.1");
    o->settings.app_binding_options_timeout_ns = 3 * OUTR_SEC;
    o->settings.graceful_shutdown_ns = 5 * OUTR_SEC;
    o->settings.app_health_path = OUTR_STR("/healthz");
    o->settings.app_health_interval_ns = OUTR_SEC;
    o->settings.app_health_timeout_ns = 500 * OUTR_MS;
    o->settings.app_health_threshold = 1;
    o->settings.max_body_bytes = 4 * OUTR_MIB;
    load(o, yaml);
    o->loops[0] = o->w.loop;
    o->host = outr_host_new(&(outr_host_options){.loops = o->loops,
                                                 .loop_count = 1,
                                                 .settings = &o->settings,
                                                 .run_dir = outr_str_from(o->f.path)});
    outr_op_init(&op, o->w.loop, NULL, 0, must);
    outr_host_open(o->host, o->snapshot, &op);
    wait_for(o, &op);
    o->app_state = outr_app_state_new(&o->settings, 1);
    assert_int_equal(outr_app_new(&o->app,
                                  &(outr_app_options){o->w.loop, &o->settings, o->app_state, NULL},
                                  &err),
                     OUTR_OK);
    o->apps[0] = o->app;
    o->server = outr_http_server_new(&(outr_http_server_options){
        .loop = o->w.loop,
        .handler = protocol >= OUTR_APP_GRPC ? &grpc_app : &http_app,
        .ctx = o,
        .allow_h1 = true,
        .allow_h2 = true});
    o->engine = outr_bindings_new(&(outr_bindings_options){.loops = o->loops,
                                                           .apps = o->apps,
                                                           .loop_count = 1,
                                                           .settings = &o->settings,
                                                           .host = o->host});
    o->options_status = o->post_status = 200;
    o->is_well = true;
    return o;
}

/* Messages between loops are no work that the wire sees: a few turns more. */
static void turn(world *o)
{
    for (int i = 0; i < 5; i++)
        wire_run(&o->w);
}

static void start_world(world *o)
{
    outr_bindings_start(o->engine, o->snapshot);
    outr_app_start(o->app);
    turn(o);
}

static void stop_engine(world *o)
{
    outr_op op;
    outr_op_init(&op, o->w.loop, NULL, 0, must);
    outr_bindings_stop(o->engine, &op);
    for (int i = 0; outr_op_is_pending(&op) && i < 100; i++)
        wire_sleep(&o->w, 100 * OUTR_MS);
    assert_false(outr_op_is_pending(&op));
}

static void close_world(world *o)
{
    outr_op op;
    stop_engine(o);
    outr_bindings_free(o->engine);
    outr_app_stop(o->app);
    wire_run(&o->w);
    outr_app_free(o->app);
    wire_run(&o->w);
    outr_http_server_free(o->server);
    wire_run(&o->w);
    outr_op_init(&op, o->w.loop, NULL, 0, must);
    outr_host_close(o->host, &op);
    wait_for(o, &op);
    outr_host_free(o->host);
    outr_app_state_free(o->app_state);
    outr_snapshot_unref(o->snapshot);
    wire_done(&o->w);
    outr_metrics_free(o->metrics);
    folder_remove(&o->f);
    free(o);
}

static void pass_seconds(world *o, unsigned n)
{
    for (unsigned i = 0; i < n * 10; i++) {
        wire_sleep(&o->w, 100 * OUTR_MS);
        turn(o);
    }
}

/* ---- apps over HTTP -------------------------------------------------------------------------- */

static void an_http_app_is_asked_and_gets_events(void **state OUTR_UNUSED)
{
    world *o = open_world(OUTR_APP_HTTP, TICK);
    start_world(o);
    assert_int_equal(o->options, 1);
    assert_string_equal(o->target, "/tick");
    assert_int_equal(o->events, 0);
    pass_seconds(o, 3);
    assert_int_equal(o->events, 3);
    assert_string_equal(o->target, "/tick");
    assert_non_null(strstr(o->headers, "Content-Type=application/json;"));
    assert_non_null(strstr(o->headers, "Timezone=Local;"));
    assert_non_null(strstr(o->headers, "Readtimeutc="));
    close_world(o);
}

static void answers_to_the_question_count(void **state OUTR_UNUSED)
{
    static const struct {
        int status;
        bool is_wanted;
    } cases[] = {{200, true}, {204, true}, {299, true}, {405, true}, {404, false}, {500, false},
                 {301, false}};
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        world *o = open_world(OUTR_APP_HTTP, TICK);
        o->options_status = cases[i].status;
        start_world(o);
        pass_seconds(o, 2);
        assert_int_equal(o->options, 1);
        assert_int_equal(o->events > 0, cases[i].is_wanted);
        close_world(o);
    }
}

static void direction_and_route_are_heeded(void **state OUTR_UNUSED)
{
    world *o = open_world(
        OUTR_APP_HTTP,
        COMPONENT("in", "bindings.cron",
                  "{name: schedule, value: '@every 1s'}, {name: direction, value: 'Output , INPUT'}, "
                  "{name: route, value: 'hook/a b?c=d'}")
            COMPONENT("out", "bindings.cron",
                      "{name: schedule, value: '@every 1s'}, {name: direction, value: output}"));
    start_world(o);
    pass_seconds(o, 2);
    assert_int_equal(o->options, 0);
    assert_int_equal(o->events, 2);
    assert_string_equal(o->target, "/hook/a%20b?c=d");
    close_world(o);
}

static void an_app_that_refuses_is_asked_the_next_time(void **state OUTR_UNUSED)
{
    world *o = open_world(OUTR_APP_HTTP, TICK);
    o->post_status = 500;
    start_world(o);
    pass_seconds(o, 2);
    assert_int_equal(o->events, 2);
    o->post_status = 404;
    pass_seconds(o, 1);
    assert_int_equal(o->events, 3);
    o->is_away = true;
    OUTR_LIST_EACH(link, &o->w.streams)
        wire_break(OUTR_LIST_ITEM(link, wire_stream, link));
    pass_seconds(o, 2);
    assert_int_equal(o->events, 3);
    o->is_away = false;
    o->post_status = 200;
    pass_seconds(o, 2);
    assert_int_equal(o->events, 5);
    close_world(o);
}

static void an_app_that_is_not_there_yet_is_asked_later(void **state OUTR_UNUSED)
{
    world *o = open_world(OUTR_APP_HTTP, TICK);
    o->options_status = 0; /* it hangs at first */
    start_world(o);
    pass_seconds(o, 3);
    assert_int_equal(o->options, 1);
    o->options_status = 200;
    pass_seconds(o, 3);
    assert_int_equal(o->options, 2);
    assert_true(o->events >= 1);
    close_world(o);
}

static void nothing_is_read_while_the_app_is_unwell(void **state OUTR_UNUSED)
{
    world *o = open_world(OUTR_APP_HTTP, TICK);
    o->settings.app_health_check = true;
    o->is_well = false;
    start_world(o);
    pass_seconds(o, 3);
    assert_int_equal(o->options + o->events, 0);
    o->is_well = true;
    pass_seconds(o, 4);
    assert_int_equal(o->options, 1);
    assert_true(o->events >= 1);
    o->is_well = false;
    pass_seconds(o, 2);
    o->events = 0;
    pass_seconds(o, 5);
    assert_int_equal(o->events, 0);
    o->is_well = true;
    pass_seconds(o, 4);
    assert_int_equal(o->options, 2);
    assert_true(o->events >= 1);
    close_world(o);
}

static void an_app_that_hangs_does_not_hold_the_end_up(void **state OUTR_UNUSED)
{
    world *o = open_world(OUTR_APP_HTTP, TICK);
    o->post_status = 0;
    start_world(o);
    pass_seconds(o, 4);
    assert_int_equal(o->events, 4);
    uint64_t before = o->w.now;
    stop_engine(o);
    assert_in_range(o->w.now - before, 4 * OUTR_SEC, 6 * OUTR_SEC);
    assert_int_equal(o->events, 4);
    close_world(o);
}

/* The folder's file says something else now. */
static void reload(world *o, const char *yaml)
{
    outr_snapshot *before = o->snapshot;
    outr_op op;
    load(o, yaml);
    const outr_component_spec *added[8], *removed[8];
    outr_reload_diff diff = {
        .before = before, .after = o->snapshot, .added = added, .removed = removed};
    for (size_t i = 0; i < before->component_count; i++) {
        bool stays = false;
        for (size_t k = 0; k < o->snapshot->component_count; k++)
            stays |= outr_str_eq(before->components[i].base.name,
                                 o->snapshot->components[k].base.name);
        if (!stays)
            removed[diff.removed_count++] = &before->components[i];
    }
    for (size_t k = 0; k < o->snapshot->component_count; k++) {
        bool was_there = false;
        for (size_t i = 0; i < before->component_count; i++)
            was_there |= outr_str_eq(before->components[i].base.name,
                                     o->snapshot->components[k].base.name);
        if (!was_there)
            added[diff.added_count++] = &o->snapshot->components[k];
    }
    outr_op_init(&op, o->w.loop, NULL, 0, must);
    outr_host_apply(o->host, &diff, &op);
    wait_for(o, &op);
    outr_bindings_update(o->engine, o->snapshot);
    turn(o);
    outr_snapshot_unref(before);
}

#define TOCK COMPONENT("tock", "bindings.cron", "{name: schedule, value: '@every 1s'}")
#define STATE(name) COMPONENT(name, "state.in-memory", "")

static void components_that_come_and_go_are_followed(void **state OUTR_UNUSED)
{
    world *o = open_world(OUTR_APP_HTTP, TICK STATE("one"));
    start_world(o);
    pass_seconds(o, 1);
    assert_int_equal(o->events, 1);
    reload(o, TICK STATE("two")); /* none of ours: what runs goes on */
    reload(o, TICK STATE("three"));
    pass_seconds(o, 2);
    assert_int_equal(o->options, 1);
    assert_int_equal(o->events, 3);
    reload(o, TICK TOCK);
    pass_seconds(o, 2);
    assert_int_equal(o->options, 3);
    assert_in_range(o->events, 5, 7);
    reload(o, TOCK);
    pass_seconds(o, 1);
    assert_int_equal(o->options, 4);
    o->events = 0;
    pass_seconds(o, 3);
    assert_int_equal(o->events, 3);
    assert_string_equal(o->target, "/tock");
    reload(o, STATE("one"));
    o->events = 0;
    pass_seconds(o, 3);
    assert_int_equal(o->events, 0);
    close_world(o);
}

static void a_span_goes_with_the_event(void **state OUTR_UNUSED)
{
    static const outr_app_protocol protocols[] = {OUTR_APP_HTTP, OUTR_APP_GRPC};
    for (size_t i = 0; i < OUTR_LEN(protocols); i++) {
        for (int is_on = 0; is_on < 2; is_on++) {
            world *o = open_world(protocols[i], TICK);
            o->wanted = "tick";
            o->snapshot->configuration.tracing_is_on = is_on;
            o->snapshot->configuration.sampling_rate = 1;
            start_world(o);
            pass_seconds(o, 1);
            assert_int_equal(o->events, 1);
            bool has = o->has_trace_bin || strstr(o->headers, "Traceparent=00-");
            assert_int_equal(has, is_on);
            close_world(o);
        }
    }
}

/* ---- apps over gRPC -------------------------------------------------------------------------- */

static void a_grpc_app_names_what_it_wants(void **state OUTR_UNUSED)
{
    world *o = open_world(OUTR_APP_GRPC, TICK);
    o->wanted = "tick";
    start_world(o);
    assert_int_equal(o->lists, 1);
    pass_seconds(o, 2);
    assert_int_equal(o->events, 2);
    assert_string_equal(o->target, "tick");
    assert_non_null(strstr(o->headers, "timeZone=Local;"));
    o->grpc_code = OUTR_INTERNAL;
    pass_seconds(o, 2);
    assert_int_equal(o->events, 4);
    close_world(o);
    for (int i = 0; i < 2; i++) {
        o = open_world(OUTR_APP_GRPC, TICK);
        o->wanted = i ? "other" : NULL; /* NULL: it has no such method */
        start_world(o);
        pass_seconds(o, 3);
        assert_int_equal(o->lists, 1);
        assert_int_equal(o->events, 0);
        close_world(o);
    }
}

static void explicit_direction_asks_no_grpc_app(void **state OUTR_UNUSED)
{
    world *o = open_world(OUTR_APP_GRPC,
                          COMPONENT("in", "bindings.cron",
                                    "{name: schedule, value: '@every 1s'}, {name: direction, "
                                    "value: input}"));
    start_world(o);
    pass_seconds(o, 1);
    assert_int_equal(o->lists, 0);
    assert_int_equal(o->events, 1);
    close_world(o);
}

#define STORES                                                                                     \
    TICK COMPONENT("files", "bindings.localstorage", "{name: rootPath, value: 'FOLDER/files'}")        \
        COMPONENT("st", "state.in-memory", "")

/* What the store has under the app's key; "" when nothing. */
static const char *stored(world *o, const char *key)
{
    static char text[64];
    outr_op op;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_view *view = outr_host_pin(o->host, o->w.loop);
    const outr_component *c = outr_view_find(view, OUTR_KIND_STATE, OUTR_STR("st"));
    outr_state_item item = {.key = outr_str_from(key)};
    outr_state_get get = {.arena = arena, .items = &item, .count = 1};
    outr_op_init(&op, o->w.loop, NULL, 0, must);
    c->state->backend->get(c->state, &get, &op);
    wait_for(o, &op);
    snprintf(text, sizeof text, OUTR_FMT, OUTR_ARG(item.value));
    outr_view_unpin(view);
    outr_arena_free(arena);
    return text;
}

/* How many files the binding has made, all named by itself. */
static size_t count_files(world *o)
{
    outr_op op;
    size_t n = 0;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_view *view = outr_host_pin(o->host, o->w.loop);
    outr_binding_send send = {.view = view,
                              .name = OUTR_STR("files"),
                              .req = {.arena = arena, .operation = OUTR_STR("list")}};
    outr_op_init(&op, o->w.loop, NULL, 0, must);
    outr_binding_send_start(&send, &op);
    wait_for(o, &op);
    for (size_t i = 0; i < send.req.answer.n; i++)
        n += send.req.answer.p[i] == '"';
    outr_view_unpin(view);
    outr_arena_free(arena);
    return n / 2;
}

/* One event with this answer, and time for what it asks for: the files are a thread's. */
static void answer_once(world *o, const event_response *reply, size_t files)
{
    o->wanted = "tick";
    o->grpc_answer = reply;
    start_world(o);
    pass_seconds(o, 1);
    assert_int_equal(o->events, 1);
    o->grpc_answer = NULL;
    for (int i = 0; i < 10000 && count_files(o) < files; i++)
        wire_run(&o->w);
    assert_int_equal(count_files(o), files);
}

static void an_answer_saves_state_and_sends_on(void **state OUTR_UNUSED)
{
    Dapr__Proto__Common__V1__StateItem a = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT,
                                       b = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT;
    Dapr__Proto__Common__V1__StateItem *states[] = {&a, &b};
    char *to[] = {(char *)(uintptr_t) "files", (char *)(uintptr_t) "files"};
    for (int is_parallel = 0; is_parallel < 2; is_parallel++) {
        event_response reply = DAPR__PROTO__RUNTIME__V1__BINDING_EVENT_RESPONSE__INIT;
        a.key = (char *)(uintptr_t) "k";
        a.value = outr_proto_data(OUTR_STR("\"one\""));
        b.key = (char *)(uintptr_t) "l";
        b.value = outr_proto_data(OUTR_STR("2"));
        reply.store_name = (char *)(uintptr_t) "st";
        reply.n_states = 2;
        reply.states = states;
        reply.n_to = 2;
        reply.to = to;
        reply.data = outr_proto_data(OUTR_STR("{\"x\":1}"));
        reply.concurrency =
            (Dapr__Proto__Runtime__V1__BindingEventResponse__BindingEventConcurrency)is_parallel;
        world *o = open_world(OUTR_APP_GRPC, STORES);
        answer_once(o, &reply, 2);
        assert_string_equal(stored(o, "me||k"), "\"one\"");
        assert_string_equal(stored(o, "me||l"), "2");
        close_world(o);
    }
}

static void a_sequence_ends_at_the_first_failure(void **state OUTR_UNUSED)
{
    char *to[] = {(char *)(uintptr_t) "files", (char *)(uintptr_t) "absent",
                  (char *)(uintptr_t) "files"};
    for (size_t is_parallel = 0; is_parallel < 2; is_parallel++) {
        event_response reply = DAPR__PROTO__RUNTIME__V1__BINDING_EVENT_RESPONSE__INIT;
        reply.n_to = OUTR_LEN(to);
        reply.to = to;
        reply.concurrency =
            (Dapr__Proto__Runtime__V1__BindingEventResponse__BindingEventConcurrency)is_parallel;
        world *o = open_world(OUTR_APP_GRPC, STORES);
        answer_once(o, &reply, 1 + is_parallel);
        pass_seconds(o, 1);
        assert_int_equal(o->events, 2); /* the event itself was taken all the same */
        close_world(o);
    }
}

static void what_an_answer_cannot_have_is_left_undone(void **state OUTR_UNUSED)
{
    Dapr__Proto__Common__V1__StateItem a = DAPR__PROTO__COMMON__V1__STATE_ITEM__INIT;
    Dapr__Proto__Common__V1__StateItem *states[] = {&a};
    static char *many[2000];
    event_response reply = DAPR__PROTO__RUNTIME__V1__BINDING_EVENT_RESPONSE__INIT;
    char *to[] = {(char *)(uintptr_t) "files"};
    a.key = (char *)(uintptr_t) "k||x"; /* no key of an app's own */
    reply.store_name = (char *)(uintptr_t) "st";
    reply.n_states = 1;
    reply.states = states;
    reply.n_to = 1;
    reply.to = to;
    world *o = open_world(OUTR_APP_GRPC, STORES);
    answer_once(o, &reply, 1);
    close_world(o);
    reply.store_name = (char *)(uintptr_t) "absent";
    a.key = (char *)(uintptr_t) "k";
    o = open_world(OUTR_APP_GRPC, STORES);
    answer_once(o, &reply, 1);
    assert_string_equal(stored(o, "me||k"), "");
    close_world(o);
    for (size_t i = 0; i < OUTR_LEN(many); i++)
        many[i] = to[0];
    reply.n_to = OUTR_LEN(many);
    reply.to = many;
    o = open_world(OUTR_APP_GRPC, STORES);
    answer_once(o, &reply, 0);
    pass_seconds(o, 1);
    assert_int_equal(o->events, 2);
    close_world(o);
}

/* ---- output ---------------------------------------------------------------------------------- */

static void keep_error(outr_op *op OUTR_UNUSED)
{
}

static void an_operation_must_be_there(void **state OUTR_UNUSED)
{
    static const struct {
        const char *name, *operation, *text;
    } cases[] = {
        {"files", "", "operation field is missing from request"},
        {"absent", "get", "couldn't find output binding absent"},
        {"tick", "get", "couldn't find output binding tick"},
        {"st", "get", "couldn't find output binding st"},
        {"muted", "get", "couldn't find output binding muted"},
        {"files", "fly",
         "binding files does not support operation fly. supported operations:create get list "
         "delete"},
    };
    world *o = open_world(OUTR_APP_HTTP, STORES COMPONENT("muted", "bindings.http",
                                                          "{name: url, value: 'http://x'}, "
                                                          "{name: direction, value: input}"));
    outr_view *view = outr_host_pin(o->host, o->w.loop);
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        outr_op op;
        outr_binding_send send = {
            .view = view,
            .name = outr_str_from(cases[i].name),
            .req = {.arena = arena, .operation = outr_str_from(cases[i].operation)}};
        outr_op_init(&op, o->w.loop, NULL, 0, keep_error);
        outr_binding_send_start(&send, &op);
        wait_for(o, &op);
        assert_string_equal(op.err.text, cases[i].text);
    }
    outr_arena_free(arena);
    outr_view_unpin(view);
    close_world(o);
}

static void capabilities_say_the_directions(void **state OUTR_UNUSED)
{
    world *o = open_world(OUTR_APP_HTTP, STORES COMPONENT("muted", "bindings.http",
                                                          "{name: url, value: 'http://x'}, "
                                                          "{name: direction, value: input}"));
    outr_view *view = outr_host_pin(o->host, o->w.loop);
    const outr_component *tick = outr_view_find(view, OUTR_KIND_BINDINGS, OUTR_STR("tick")),
                         *files = outr_view_find(view, OUTR_KIND_BINDINGS, OUTR_STR("files")),
                         *muted = outr_view_find(view, OUTR_KIND_BINDINGS, OUTR_STR("muted"));
    assert_string_equal(tick->capabilities[0], "INPUT_BINDING");
    assert_null(tick->capabilities[1]);
    assert_string_equal(files->capabilities[0], "OUTPUT_BINDING");
    assert_null(files->capabilities[1]);
    assert_null(muted->capabilities[0]);
    outr_view_unpin(view);
    close_world(o);
}

/* ---- policies -------------------------------------------------------------------------------- */

#define POLICY                                                                                     \
    "---\napiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\n"                   \
    "spec: {policies: {retries: {thrice: {duration: 30ms, maxRetries: 3}}},"                       \
    " targets: {components: {tick: {inbound: {retry: thrice}}}}}\n"

static void an_event_that_an_app_refuses_is_repeated_by_the_policy(outr_app_protocol protocol)
{
    world *o = open_world(protocol, TICK POLICY);
    o->post_status = 500;
    o->grpc_code = OUTR_INTERNAL;
    o->wanted = "tick";
    start_world(o);
    for (int i = 0; i < 20 && o->events == 0; i++)
        wire_sleep(&o->w, 100 * OUTR_MS);
    assert_in_range(o->events, 1, 4);
    wire_sleep(&o->w, 100 * OUTR_MS);
    assert_int_equal(o->events, 4);
    o->post_status = 200;
    o->grpc_code = OUTR_OK;
    wire_sleep(&o->w, OUTR_SEC);
    assert_int_equal(o->events, 5);
    close_world(o);
}

static void a_policy_repeats_what_an_app_over_http_refuses(void **state)
{
    (void)state;
    an_event_that_an_app_refuses_is_repeated_by_the_policy(OUTR_APP_HTTP);
}

static void a_policy_repeats_what_an_app_over_grpc_refuses(void **state)
{
    (void)state;
    an_event_that_an_app_refuses_is_repeated_by_the_policy(OUTR_APP_GRPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_http_app_is_asked_and_gets_events),
        cmocka_unit_test(answers_to_the_question_count),
        cmocka_unit_test(direction_and_route_are_heeded),
        cmocka_unit_test(an_app_that_refuses_is_asked_the_next_time),
        cmocka_unit_test(an_app_that_is_not_there_yet_is_asked_later),
        cmocka_unit_test(nothing_is_read_while_the_app_is_unwell),
        cmocka_unit_test(an_app_that_hangs_does_not_hold_the_end_up),
        cmocka_unit_test(components_that_come_and_go_are_followed),
        cmocka_unit_test(a_span_goes_with_the_event),
        cmocka_unit_test(a_grpc_app_names_what_it_wants),
        cmocka_unit_test(explicit_direction_asks_no_grpc_app),
        cmocka_unit_test(an_answer_saves_state_and_sends_on),
        cmocka_unit_test(a_sequence_ends_at_the_first_failure),
        cmocka_unit_test(what_an_answer_cannot_have_is_left_undone),
        cmocka_unit_test(an_operation_must_be_there),
        cmocka_unit_test(capabilities_say_the_directions),
        cmocka_unit_test(a_policy_repeats_what_an_app_over_http_refuses),
        cmocka_unit_test(a_policy_repeats_what_an_app_over_grpc_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
