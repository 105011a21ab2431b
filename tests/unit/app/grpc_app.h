/* grpc_app - a channel to an app that speaks gRPC, whose answers the test decides. */
#ifndef OUTR_TESTS_APP_GRPC_APP_H
#define OUTR_TESTS_APP_GRPC_APP_H

#include <dapr/proto/runtime/v1/appcallback.pb-c.h>

#include "app/unary.h"
#include "grpc/server.h"
#include "lib/web.h"
#include "lib/wire.h"

typedef struct grpc_app grpc_app;
struct grpc_app {
    wire w;
    outr_settings settings;
    outr_app_state *state;
    outr_app *app;
    outr_http_server *server;
    bool is_refusing; /* connects fail */
    /* What the app does with a call; NULL: OK, with the reply's type of the method, empty. */
    void (*on_call)(grpc_app *a, outr_grpc_call *call);
    /* Instead of a gRPC server: whatever the test answers; may be NULL. */
    void (*on_raw)(grpc_app *a, outr_exchange *x);
    unsigned calls, probes, open, most_open;
    outr_grpc_call *held[16]; /* by grpc_app_hold */
    size_t held_count;
    char token[32], timeout[16], metadata[1024]; /* of the last call */
    void (*connect)(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op);
};

static void grpc_app_run(outr_grpc_call *call);

static const outr_grpc_method grpc_app_methods[] = {
    {.path = "/dapr.proto.runtime.v1.AppCallback/OnInvoke",
     .request = &dapr__proto__common__v1__invoke_request__descriptor,
     .run = grpc_app_run},
    {.path = "/dapr.proto.runtime.v1.AppCallback/OnTopicEvent",
     .request = &dapr__proto__runtime__v1__topic_event_request__descriptor,
     .run = grpc_app_run},
    {.path = "/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions",
     .request = &google__protobuf__empty__descriptor,
     .run = grpc_app_run},
    {.path = "/dapr.proto.runtime.v1.AppCallback/OnBulkTopicEvent",
     .request = &dapr__proto__runtime__v1__topic_event_bulk_request__descriptor,
     .run = grpc_app_run},
    {.path = "/dapr.proto.runtime.v1.AppCallbackAlpha/OnBulkTopicEventAlpha1",
     .request = &dapr__proto__runtime__v1__topic_event_bulk_request__descriptor,
     .run = grpc_app_run},
    {.path = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck",
     .request = &google__protobuf__empty__descriptor,
     .run = grpc_app_run},
};

static void grpc_app_answer(outr_grpc_call *call, outr_code code, const char *text)
{
    const outr_grpc_status status = {.code = code, .message = outr_str_from(text)};
    const Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;
    if (code)
        outr_grpc_fail(call, &status);
    else
        outr_grpc_reply(call, &empty);
}

static void grpc_app_gone(outr_grpc_call *call)
{
    grpc_app *a = call->ctx;
    for (size_t i = 0; i < a->held_count; i++) {
        if (a->held[i] == call)
            a->held[i] = a->held[--a->held_count];
    }
    outr_grpc_end(call);
}

/* Answered later by the test, or never. */
OUTR_UNUSED static void grpc_app_hold(grpc_app *a, outr_grpc_call *call)
{
    call->on_gone = grpc_app_gone;
    a->held[a->held_count++] = call;
}

OUTR_UNUSED static void grpc_app_release(grpc_app *a)
{
    while (a->held_count > 0)
        grpc_app_answer(a->held[--a->held_count], OUTR_OK, "");
}

static void grpc_app_run(outr_grpc_call *call)
{
    grpc_app *a = call->ctx;
    const outr_headers *h = &call->x->req.headers;
    bool is_probe = outr_str_ends(outr_str_from(call->method->path), OUTR_STR("HealthCheck"));
    int n = 0;
    a->calls += !is_probe;
    a->probes += is_probe;
    snprintf(a->token, sizeof a->token, OUTR_FMT, OUTR_ARG(outr_headers_get(h, "dapr-api-token")));
    snprintf(a->timeout, sizeof a->timeout, OUTR_FMT, OUTR_ARG(outr_headers_get(h, "grpc-timeout")));
    a->metadata[0] = 0;
    for (size_t i = 0; i < h->count && n < (int)sizeof a->metadata; i++)
        n += snprintf(a->metadata + n, sizeof a->metadata - (size_t)n, OUTR_FMT "=" OUTR_FMT ";",
                      OUTR_ARG(h->items[i].name), OUTR_ARG(h->items[i].value));
    if (a->on_call)
        a->on_call(a, call);
    else
        grpc_app_answer(call, OUTR_OK, "");
}

static void grpc_app_request(void *ctx, outr_exchange *x)
{
    grpc_app *a = ctx;
    a->open++;
    a->most_open = OUTR_MAX(a->most_open, a->open);
    if (a->on_raw) {
        a->on_raw(a, x);
        return;
    }
    for (size_t i = 0; i < OUTR_LEN(grpc_app_methods); i++) {
        const outr_grpc_serve_options o = {
            .method = &grpc_app_methods[i], .ctx = a, .max_bytes = 64 * OUTR_MIB};
        if (outr_str_is(x->req.target, grpc_app_methods[i].path)) {
            outr_grpc_serve(x, &o);
            return;
        }
    }
    outr_grpc_refuse(x, OUTR_UNIMPLEMENTED, OUTR_STR("unknown method"));
}

static void grpc_app_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    (void)x;
    (void)is_broken;
    ((grpc_app *)ctx)->open--;
}

static const outr_http_handler grpc_app_handler = {grpc_app_request, grpc_app_finished};

static void grpc_app_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((grpc_app *)ctx)->server, own_stream);
}

static void grpc_app_connect(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op)
{
    grpc_app *a = OUTR_CONTAINER(OUTR_CONTAINER(env, wire, env), grpc_app, w);
    outr_err err;
    if (!a->is_refusing) {
        a->connect(env, loop, req, op);
        return;
    }
    outr_fail(&err, OUTR_UNAVAILABLE, "connect: connection refused");
    outr_op_begin(op, req, NULL);
    outr_op_fail_soon(op, &err);
}

static grpc_app *grpc_app_open(const outr_settings *with, uint32_t max_streams)
{
    grpc_app *a = outr_alloc(sizeof *a);
    outr_err err;
    wire_init(&a->w, 1);
    a->connect = a->w.env.connect;
    a->w.env.connect = grpc_app_connect;
    a->w.on_accept = grpc_app_accept;
    a->w.ctx = a;
    a->settings = *with;
    a->settings.app_port = 50001;
    a->settings.app_protocol = OUTR_APP_GRPC;
    a->settings.app_channel_address = OUTR_STR("127.0.0.1");
    a->settings.app_health_interval_ns = 5 * OUTR_SEC;
    a->settings.app_health_timeout_ns = 500 * OUTR_MS;
    a->settings.app_health_threshold = 3;
    a->state = outr_app_state_new(&a->settings, 1);
    const outr_app_options o = {a->w.loop, &a->settings, a->state, NULL};
    assert_int_equal(outr_app_new(&a->app, &o, &err), OUTR_OK);
    const outr_http_server_options so = {.loop = a->w.loop,
                                         .handler = &grpc_app_handler,
                                         .ctx = a,
                                         .limits = {.max_streams = max_streams},
                                         .allow_h2 = true};
    a->server = outr_http_server_new(&so);
    return a;
}

static void grpc_app_close(grpc_app *a)
{
    outr_app_stop(a->app);
    wire_run(&a->w);
    outr_app_free(a->app);
    wire_run(&a->w);
    outr_http_server_free(a->server);
    wire_run(&a->w);
    assert_int_equal(a->open, 0);
    outr_app_state_free(a->state);
    wire_done(&a->w);
    free(a);
}

/* Every connection breaks off, as when the app's process ends. */
OUTR_UNUSED static void grpc_app_break(grpc_app *a)
{
    OUTR_LIST_EACH(link, &a->w.streams)
        wire_break(OUTR_LIST_ITEM(link, wire_stream, link));
    wire_run(&a->w);
}

#endif
