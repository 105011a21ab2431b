#include <dapr/proto/runtime/v1/appcallback.pb-c.h>

#include "app/internal.h"

#define PORT_WAIT_NS (100 * OUTR_MS)

static const outr_metric_desc grpc_probe_count = {"dapr_grpc_io_healthprobes_completed_count",
                                                  "health probes of the app",
                                                  OUTR_COUNTER,
                                                  0,
                                                  {"grpc_client_status"}};
static const outr_metric_desc probe_count = {"dapr_http_healthprobes_completed_count",
                                             "health probes of the app",
                                             OUTR_COUNTER,
                                             0,
                                             {"status"}};

static void again_in(outr_app *app, uint64_t ns)
{
    outr_timer_start(app->loop, &app->timer, outr_loop_now(app->loop) + ns);
}

/* Any gRPC status but OK is bad, over HTTP any status outside 2xx: contract/lifecycle.md. */
static bool was_good(outr_app *app, const outr_err *op_err)
{
    char text[12];
    const outr_metric_desc *desc = &probe_count;
    outr_str label;
    bool is_good;
    if (outr__app_is_grpc(app)) {
        Google__Protobuf__Empty *reply;
        outr_err err = {0};
        is_good = !outr_app_unary_result(&app->grpc_probe, &reply,
                                         &google__protobuf__empty__descriptor, op_err, &err);
        label = outr_str_from(outr_grpc_status_label(err.code));
        desc = &grpc_probe_count;
    } else {
        int status = op_err->code ? 0 : app->probe.status;
        is_good = status >= 200 && status < 300;
        label = outr_str_of(text, (size_t)snprintf(text, sizeof text, "%d", status));
    }
    outr_metric_count(outr_loop_metrics(app->loop), desc, &label, 1);
    return is_good;
}

static void on_probed(outr_op *op)
{
    outr_app *app = OUTR_CONTAINER(op, outr_app, op);
    bool is_good = was_good(app, &op->err);
    outr_arena_reset(app->probe_arena);
    if (app->is_stopped) {
        outr__app_free_if_over(app);
        return;
    }
    app->failures = is_good ? 0 : app->failures + 1;
    if (is_good)
        outr__app_set_state(app, true, true);
    else if (app->failures >= app->settings->app_health_threshold)
        outr__app_set_state(app, true, false);
    again_in(app, app->settings->app_health_interval_ns);
}

static void probe_grpc(outr_app *app)
{
    const Google__Protobuf__Empty nothing = GOOGLE__PROTOBUF__EMPTY__INIT;
    app->grpc_probe = (outr_app_unary){.arena = app->probe_arena,
                                       .max_bytes = 64 * OUTR_KIB,
                                       .skip_limit = true,
                                       .skip_token = true};
    outr_headers_init(&app->grpc_probe.metadata, app->probe_arena);
    outr_app_unary_start(app, &app->grpc_probe,
                         "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck", &nothing,
                         &app->op);
}

static void probe_http(outr_app *app)
{
    app->probe = (outr_app_fetch){.method = OUTR_STR("GET"),
                                  .target = app->settings->app_health_path,
                                  .max_body = 64 * OUTR_KIB};
    if (app->probe.target.n == 0 || app->probe.target.p[0] != '/')
        app->probe.target = outr_arena_join(app->probe_arena, OUTR_STR("/"),
                                            app->settings->app_health_path, OUTR_STR_NONE);
    app->probe.call.skip_token = app->probe.call.skip_limit = true;
    outr_headers_init(&app->probe.headers, app->probe_arena);
    outr_app_fetch_start(app, &app->probe, &app->op);
}

static void probe(outr_app *app)
{
    if (!app->probe_arena)
        app->probe_arena = outr_arena_new(OUTR_MIB);
    outr_op_init(&app->op, app->loop, NULL,
                 outr_loop_now(app->loop) + app->settings->app_health_timeout_ns, on_probed);
    if (outr__app_is_grpc(app))
        probe_grpc(app);
    else
        probe_http(app);
}

static void on_port_tried(outr_op *op)
{
    outr_app *app = OUTR_CONTAINER(op, outr_app, op);
    if (app->connect.stream) {
        static const outr_stream_events no_events = {0};
        app->connect.stream->events = &no_events;
        outr_stream_close(app->connect.stream);
    }
    if (app->is_stopped) {
        outr__app_free_if_over(app);
        return;
    }
    if (op->err.code) {
        outr__app_look_again(app);
        again_in(app, PORT_WAIT_NS);
        return;
    }
    bool is_checked = app->settings->app_health_check;
    outr__app_set_state(app, true, !is_checked);
    if (is_checked)
        probe(app);
}

static void try_port(outr_app *app)
{
    outr_env *env = outr_loop_env(app->loop);
    if (app->connect.addr.kind == OUTR_ADDR_NONE) { /* its name is not known yet */
        again_in(app, PORT_WAIT_NS);
        return;
    }
    outr_op_init(&app->op, app->loop, NULL, outr_loop_now(app->loop) + 5 * OUTR_SEC, on_port_tried);
    env->connect(env, app->loop, &app->connect, &app->op);
}

static void on_timer(outr_timer *timer)
{
    outr_app *app = OUTR_CONTAINER(timer, outr_app, timer);
    if (outr_app_is_up(app))
        probe(app);
    else
        try_port(app);
}

void outr_app_start(outr_app *app)
{
    app->timer.fire = on_timer;
    if (outr_app_is_configured(app))
        try_port(app);
}

void outr_app_stop(outr_app *app)
{
    app->is_stopped = true;
    outr_timer_stop(app->loop, &app->timer);
    if (outr_op_is_pending(&app->op))
        outr_op_cancel(&app->op, OUTR_CANCELLED);
}
