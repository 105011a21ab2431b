#include "runtime.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "api/core/metadata.h"
#include "base/rundir.h"
#include "config/reload.h"
#include "engines.h"
#include "gate.h"
#include "lane.h"
#include "load.h"
#include "loop/signal.h"
#include "loop/step.h"
#include "mesh/endpoints.h"
#include "net/env_real.h"
#include "resiliency/guard.h"
#include "ports.h"
#include "traces.h"
#include "trim.h"

/* One thing that every lane does, reported back to the main loop. */
typedef struct round {
    struct runtime *rt;
    void (*run)(struct runtime *rt, outr_lane *lane, struct round *round);
    outr_op *op;      /* finished when all lanes have left */
    unsigned pending; /* main loop only */
    const outr_snapshot *snapshot;
    outr_authn *authn;
    struct round_visit {
        outr_message message;
        struct round *round;
        outr_lane *lane;
        unsigned parts; /* lane only: what it still waits for */
    } * visits;
} round;

/* A change of the resource folders, queued: they are applied one after the other. */
typedef struct change {
    outr_link link;
    outr_reload_diff diff;
} change;

typedef struct runtime {
    const outr_settings *settings;
    char *const *envp;
    outr_kept_identity *kept;
    outr_log_sink *sink;
    outr_log log;
    outr_snapshot *snapshot;
    outr_metrics *metrics;
    outr_health health;
    outr_metadata *metadata;
    outr_app_state *app_state;
    outr_host *host;
    outr_engines engines;
    outr_resolver *resolver;
    outr_callees *callees;
    outr_workload *workload; /* NULL: sidecars speak clear text */
    outr_token api_token, app_token;
    outr_gate gate;
    outr_reload *reload;
    outr_signals *signals;
    outr_lane *lanes;
    outr_loop **loops;
    outr_app **apps;
    outr_tracer **tracers;
    outr_exporter *exporter; /* NULL: nowhere to export spans to */
    unsigned lane_count;
    unsigned running; /* lanes whose loop runs; lane 0 counts */
    char run_dir[256], host_name[256], host_address[OUTR_ADDR_TEXT_MAX];
    char member[OUTR_UUID_LEN + 1];
    uint64_t begun_ns;

    outr_steps starting, stopping;
    outr_op op; /* of the step in progress */
    outr_op app_op, apply_op, trust_op;
    round round, update_round, trust_round;
    outr_mesh_resolver_open resolver_open;
    outr_app_watcher watcher;
    outr_app_fetch config_fetch;
    outr_arena *config_arena;
    outr_timer deadline;
    outr_trim trim;
    outr_list changes;
    outr_message shutdown_message;
    uint8_t shutdown_posted; /* atomic */
    bool is_starting, is_stopping, is_blocking, is_app_known, is_config_asked;
    bool has_new_trust; /* while lanes are being told of an earlier change */
    outr_ending ending;
} runtime;

static void begin_stop(runtime *rt, outr_ending ending);
static void run_stop(runtime *rt);
static void on_shutdown_asked(void *ctx, bool is_forced);

/* ---- rounds ---------------------------------------------------------------------------------- */

static void on_lane_left(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    struct round_visit *visit = OUTR_CONTAINER(message, struct round_visit, message);
    round *r = visit->round;
    if (--r->pending > 0)
        return;
    outr_op_finish(r->op);
}

/* lane: it has done its part. */
static void leave_round(round *r, outr_lane *lane)
{
    struct round_visit *visit = &r->visits[outr_loop_index(lane->loop)];
    visit->message.run = on_lane_left;
    outr_loop_post(r->rt->lanes[0].loop, &visit->message);
}

static void on_lane_entered(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    struct round_visit *visit = OUTR_CONTAINER(message, struct round_visit, message);
    visit->round->run(visit->round->rt, visit->lane, visit->round);
}

static void start_round(runtime *rt, round *r, void (*run)(runtime *, outr_lane *, round *),
                        outr_op *op)
{
    r->rt = rt;
    r->run = run;
    r->op = op;
    r->pending = rt->running;
    outr_op_begin(op, r, NULL);
    for (unsigned i = 0; i < rt->running; i++) {
        r->visits[i] = (struct round_visit){.round = r, .lane = &rt->lanes[i]};
        r->visits[i].message.run = on_lane_entered;
        outr_loop_post(rt->lanes[i].loop, &r->visits[i].message);
    }
}

/* ---- start ----------------------------------------------------------------------------------- */

enum {
    START_IDENTITY,
    START_TOKENS,
    START_RESOLVER,
    START_LANES,
    START_COMPONENTS,
    START_ACCEPT,
    START_APP,
    START_FAILED
};

static void on_step_done(outr_op *op)
{
    runtime *rt = OUTR_CONTAINER(op, runtime, op);
    if (!rt->is_starting) {
        outr_steps_run(&rt->stopping);
    } else if (rt->is_stopping) { /* asked to stop while starting */
        if (rt->starting.state == START_LANES)
            rt->resolver = rt->resolver_open.resolver;
        rt->is_starting = false;
        run_stop(rt);
    } else {
        outr_steps_run(&rt->starting);
    }
}

static outr_op *step_op(runtime *rt, uint64_t deadline_ns)
{
    outr_op_init(&rt->op, rt->lanes[0].loop, NULL, deadline_ns, on_step_done);
    return &rt->op;
}

static runtime *of_starting(outr_steps *steps)
{
    return OUTR_CONTAINER(steps, runtime, starting);
}

static int fail_start(runtime *rt, const char *event, const outr_err *err)
{
    OUTR_LOG(&rt->log, FATAL, event, OUTR_ERR(err));
    return START_FAILED;
}

/* Before anything that others could see: with mutual TLS a sidecar without an identity is none. */
static int step_identity(outr_steps *steps)
{
    runtime *rt = of_starting(steps);
    if (!rt->workload)
        return START_TOKENS;
    outr_workload_open_start(rt->workload, step_op(rt, 0));
    return outr_steps_wait(steps, START_TOKENS);
}

static int step_tokens(outr_steps *steps)
{
    runtime *rt = of_starting(steps);
    if (rt->workload && rt->op.err.code)
        return fail_start(rt, "no identity", &rt->op.err);
    outr_gate_open(&rt->gate, rt->lanes[0].loop, &rt->log, rt->snapshot, step_op(rt, 0));
    return outr_steps_wait(steps, START_RESOLVER);
}

static int step_resolver(outr_steps *steps)
{
    runtime *rt = of_starting(steps);
    const outr_settings *s = rt->settings;
    rt->resolver_open = (outr_mesh_resolver_open){
        .settings = s,
        .snapshot = rt->snapshot,
        .run_dir = outr_str_from(rt->run_dir),
        .self = {.app_id = s->app_id,
                 .labels = s->labels,
                 .namespace_ = s->namespace_,
                 .instance_id = outr_str_from(rt->host_name),
                 .host = outr_str_from(rt->host_address),
                 .internal_port = rt->lanes[0].ports[OUTR_PORT_INTERNAL].listeners[0]->addr.port},
    };
    outr_mesh_resolver_open_start(&rt->resolver_open, step_op(rt, 0));
    return outr_steps_wait(steps, START_LANES); /* goes on there, whatever came of it */
}

static outr_code build_lanes(runtime *rt, outr_err *err)
{
    outr_rand_uuid(outr_loop_rand(rt->lanes[0].loop), rt->member);
    outr_lane_parts parts = {
        .settings = rt->settings,
        .snapshot = rt->snapshot,
        .metrics = rt->metrics,
        .app_state = rt->app_state,
        .resolver = rt->resolver,
        .callees = rt->callees,
        .host = rt->host,
        .health = &rt->health,
        .metadata = rt->metadata,
        .log = &rt->log,
        .exporter = rt->exporter,
        .host_address = outr_str_from(rt->host_address),
        .host_name = outr_str_from(rt->host_name),
        .member = outr_str_from(rt->member),
        .internal_port = rt->resolver_open.self.internal_port,
        .peer_tls = rt->workload ? outr_workload_client(rt->workload) : NULL,
        .internal_tls = rt->workload ? outr_workload_server(rt->workload) : NULL,
        .api_token = &rt->api_token,
        .app_token = &rt->app_token,
        .authn = rt->gate.now,
        .shutdown = on_shutdown_asked,
        .ctx = rt,
    };
    for (unsigned i = 0; i < rt->lane_count; i++) {
        outr_code rc = outr_lane_build_app(&rt->lanes[i], &parts, err);
        if (rc)
            return rc;
        rt->apps[i] = rt->lanes[i].app;
        rt->tracers[i] = rt->lanes[i].tracer;
    }
    const outr_pubsub_options pubsub = {
        .loops = rt->loops,
        .apps = rt->apps,
        .tracers = rt->tracers,
        .trace = {.is_on = rt->snapshot->configuration.tracing_is_on,
                  .sampling_rate = rt->snapshot->configuration.sampling_rate},
        .loop_count = rt->lane_count,
        .settings = rt->settings,
        .host = rt->host,
        .log = &rt->log,
    };
    outr_engines_new(&rt->engines, &pubsub);
    parts.configurations = rt->engines.configurations;
    for (unsigned i = 0; i < rt->lane_count; i++)
        outr_lane_build(&rt->lanes[i], &parts, rt->engines.pubsub);
    outr_guard_count_loaded(outr_loop_metrics(rt->lanes[0].loop), rt->snapshot);
    return OUTR_OK;
}

static int step_lanes(outr_steps *steps)
{
    runtime *rt = of_starting(steps);
    outr_err err;
    rt->resolver = rt->resolver_open.resolver;
    rt->callees = outr_callees_new();
    outr_metrics_look_up(rt->metrics, outr_mesh_write_endpoints, rt->callees);
    if (rt->op.err
            .code) /* invocation answers errors that say so; the rest works (daprd does the same) */
        OUTR_LOG(&rt->log, ERROR, "name resolution failed to start", OUTR_ERR(&rt->op.err));
    if (build_lanes(rt, &err))
        return fail_start(rt, "the app channel failed to start", &err);
    for (unsigned i = 1; i < rt->lane_count; i++) {
        if (outr_lane_start(&rt->lanes[i], &err))
            return fail_start(rt, "an event loop failed to start", &err);
        rt->running++;
    }
    outr_host_open(rt->host, rt->snapshot, step_op(rt, 0));
    return outr_steps_wait(steps, START_COMPONENTS);
}

static void accept_on_lane(runtime *rt OUTR_UNUSED, outr_lane *lane, round *r)
{
    outr_lane_accept(lane);
    leave_round(r, lane);
}

static int step_components(outr_steps *steps)
{
    runtime *rt = of_starting(steps);
    if (rt->op.err.code)
        return fail_start(rt, "components failed to start", &rt->op.err);
    outr_engines_prepare(&rt->engines);
    start_round(rt, &rt->round, accept_on_lane, step_op(rt, 0));
    return outr_steps_wait(steps, START_ACCEPT);
}

static void on_config_answer(outr_op *op)
{
    runtime *rt = OUTR_CONTAINER(op, runtime, app_op);
    if (op->err.code)
        OUTR_LOG(&rt->log, WARN, "asking the app for its configuration failed", OUTR_ERR(&op->err));
    else
        OUTR_LOG(&rt->log, DEBUG, "the app answered /dapr/config",
                 OUTR_I("status", rt->config_fetch.status));
}

/* The app is asked once, when it is first healthy. Nothing in it concerns a sidecar without actors,
 * but apps are built to be asked. */
static void ask_app_config(runtime *rt)
{
    outr_app_fetch *fetch = &rt->config_fetch;
    rt->is_config_asked = true;
    if (rt->settings->skip_app_config || outr_app_speaks_grpc(rt->lanes[0].app))
        return; /* over gRPC there is no such question */
    rt->config_arena = outr_arena_new(OUTR_MIB);
    *fetch = (outr_app_fetch){
        .method = OUTR_STR("GET"), .target = OUTR_STR("/dapr/config"), .max_body = OUTR_MIB / 2};
    outr_headers_init(&fetch->headers, rt->config_arena);
    outr_headers_add(&fetch->headers, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
    outr_headers_add(&fetch->headers, OUTR_STR("Dapr-App-Id"), rt->settings->app_id);
    outr_op_init(&rt->app_op, rt->lanes[0].loop, NULL, 0, on_config_answer);
    outr_app_fetch_start(rt->lanes[0].app, fetch, &rt->app_op);
}

static void become_ready(runtime *rt)
{
    rt->is_app_known = true;
    outr_health_set(&rt->health, OUTR_HEALTH_RUNTIME, true);
    OUTR_LOG(&rt->log, INFO, "dapr initialized. Status: Running",
             OUTR_I("elapsed_ms", (outr_loop_update(rt->lanes[0].loop) - rt->begun_ns) / OUTR_MS));
}

static void on_app_changed(outr_app_watcher *watcher, bool is_up, bool is_healthy)
{
    runtime *rt = OUTR_CONTAINER(watcher, runtime, watcher);
    if (rt->is_stopping) {
        if (!is_healthy && rt->is_blocking)
            outr_op_cancel(&rt->op, OUTR_CANCELLED); /* ends the block time of shutdown */
        return;
    }
    if (is_up && !rt->is_app_known)
        become_ready(rt);
    if (is_healthy && !rt->is_config_asked)
        ask_app_config(rt);
}

static void on_reload(void *ctx, const outr_reload_diff *diff);

static void on_reload_failed(void *ctx, const outr_err_list *errors)
{
    runtime *rt = ctx;
    for (size_t i = 0; i < errors->count; i++)
        OUTR_LOG(&rt->log, ERROR, "resources changed but cannot be used, the former stay",
                 OUTR_ERR(&errors->items[i]));
}

static void start_reload(runtime *rt)
{
    outr_err err;
    const outr_reload_options options = {
        .loop = rt->lanes[0].loop,
        .settings = rt->settings,
        .envp = rt->envp,
        .current = rt->snapshot,
        .changed = on_reload,
        .failed = on_reload_failed,
        .ctx = rt,
    };
    if (rt->settings->resources_paths.count > 0 && outr_reload_start(&rt->reload, &options, &err))
        OUTR_LOG(&rt->log, WARN, "resource folders are not watched", OUTR_ERR(&err));
}

static int step_accept(outr_steps *steps)
{
    runtime *rt = of_starting(steps);
    outr_app *app = rt->lanes[0].app;
    outr_health_set(&rt->health, OUTR_HEALTH_GRPC_API, true);
    outr_health_set(&rt->health, OUTR_HEALTH_GRPC_INTERNAL, true);
    outr_health_set(&rt->health, OUTR_HEALTH_METRICS, true);
    outr_health_set(&rt->health, OUTR_HEALTH_SECURITY, true);
    outr_health_set(&rt->health, OUTR_HEALTH_OUTBOUND, true);
    start_reload(rt);
    outr_trim_start(&rt->trim, rt->lanes[0].loop);
    outr_engines_start(&rt->engines, rt->snapshot);
    if (outr_app_is_configured(app)) {
        OUTR_LOG(&rt->log, INFO, "waiting for the app", OUTR_I("port", rt->settings->app_port));
        rt->watcher.changed = on_app_changed;
        outr_app_watch(app, &rt->watcher);
        outr_app_start(app);
    } else {
        become_ready(rt);
    }
    rt->is_starting = false;
    return OUTR_END;
}

static int step_start_failed(outr_steps *steps)
{
    runtime *rt = of_starting(steps);
    rt->is_starting = false;
    begin_stop(rt, OUTR_FAILED);
    return OUTR_END;
}

static const outr_step start_steps[] = {
    [START_IDENTITY] = {"identity", step_identity, TO(START_TOKENS)},
    [START_TOKENS] = {"tokens", step_tokens, TO(START_RESOLVER) | TO(START_FAILED)},
    [START_RESOLVER] = {"resolver", step_resolver, TO(START_LANES) | TO(START_FAILED)},
    [START_LANES] = {"lanes", step_lanes, TO(START_COMPONENTS) | TO(START_FAILED)},
    [START_COMPONENTS] = {"components", step_components, TO(START_ACCEPT) | TO(START_FAILED)},
    [START_ACCEPT] = {"accept", step_accept, 0},
    [START_FAILED] = {"failed", step_start_failed, 0},
};

/* ---- reload ---------------------------------------------------------------------------------- */

static void apply_next(runtime *rt);

static void free_change(change *c)
{
    outr_snapshot_unref((outr_snapshot *)c->diff.before);
    outr_snapshot_unref((outr_snapshot *)c->diff.after);
    free(c->diff.added);
    free(c->diff.removed);
    free(c);
}

static const outr_component_spec **copy_specs(const outr_component_spec *const *specs, size_t count)
{
    const outr_component_spec **copy = outr_alloc((count + 1) * sizeof *copy);
    if (count > 0)
        memcpy(copy, specs, count * sizeof *copy);
    return copy;
}

static void on_reload(void *ctx, const outr_reload_diff *diff)
{
    runtime *rt = ctx;
    if (rt->is_stopping)
        return;
    if (diff->needs_restart) {
        OUTR_LOG(&rt->log, INFO, "resources changed that need a restart, restarting");
        begin_stop(rt, OUTR_RESTART);
        return;
    }
    outr_load_tell_warnings(diff->warnings, &rt->log);
    change *c = outr_alloc(sizeof *c);
    c->diff = *diff;
    c->diff.warnings = NULL;
    c->diff.before = outr_snapshot_ref(diff->before);
    c->diff.after = outr_snapshot_ref(diff->after);
    c->diff.added = copy_specs(diff->added, diff->added_count);
    c->diff.removed = copy_specs(diff->removed, diff->removed_count);
    bool is_idle = outr_list_is_empty(&rt->changes);
    outr_list_push(&rt->changes, &c->link);
    if (is_idle)
        apply_next(rt);
}

static void on_swapped(outr_op *op)
{
    runtime *rt = OUTR_CONTAINER(op, runtime, apply_op);
    if (!outr_list_is_empty(&rt->changes) && !rt->is_stopping)
        apply_next(rt);
}

static void on_applied_everywhere(outr_op *op)
{
    runtime *rt = OUTR_CONTAINER(op, runtime, apply_op);
    change *c = OUTR_LIST_ITEM(outr_list_pop(&rt->changes), change, link);
    outr_engines_update(&rt->engines, c->diff.after);
    outr_snapshot_unref(rt->snapshot);
    rt->snapshot = outr_snapshot_ref(c->diff.after);
    if (c->diff.policies_changed)
        outr_guard_count_loaded(outr_loop_metrics(rt->lanes[0].loop), rt->snapshot);
    OUTR_LOG(&rt->log, INFO, "resources reloaded", OUTR_I("added", c->diff.added_count),
             OUTR_I("removed", c->diff.removed_count));
    free_change(c);
    if (rt->is_stopping) /* all is closed there */
        return;
    outr_op_init(&rt->apply_op, rt->lanes[0].loop, NULL, 0, on_swapped);
    outr_gate_swap(&rt->gate, &rt->apply_op);
}

static void update_lane(runtime *rt OUTR_UNUSED, outr_lane *lane, round *r)
{
    if (lane->has_api)
        outr_lane_update(lane, r->snapshot, r->authn);
    leave_round(r, lane);
}

static void on_applied(outr_op *op)
{
    runtime *rt = OUTR_CONTAINER(op, runtime, apply_op);
    change *c = OUTR_LIST_ITEM(rt->changes.next, change, link);
    if (op->err.code) {
        OUTR_LOG(&rt->log, FATAL, "a changed component failed to start", OUTR_ERR(&op->err));
        begin_stop(rt, OUTR_FAILED);
        return;
    }
    rt->update_round.snapshot = c->diff.after;
    rt->update_round.authn = outr_gate_next(&rt->gate);
    outr_op_init(&rt->apply_op, rt->lanes[0].loop, NULL, 0, on_applied_everywhere);
    start_round(rt, &rt->update_round, update_lane, &rt->apply_op);
}

/* Keys are read, or not: the former ones stay in use until here, and known ones beyond. */
static void on_gate_ready(outr_op *op)
{
    runtime *rt = OUTR_CONTAINER(op, runtime, apply_op);
    const change *c = OUTR_LIST_ITEM(rt->changes.next, change, link);
    if (rt->is_stopping)
        return;
    outr_op_init(&rt->apply_op, rt->lanes[0].loop, NULL, 0, on_applied);
    outr_host_apply(rt->host, &c->diff, &rt->apply_op);
}

/* What was left out at the start has come up. Before the engines start there is nothing to tell. */
static void on_components_back(void *ctx)
{
    runtime *rt = ctx;
    if (!rt->is_starting && !rt->is_stopping)
        outr_engines_update(&rt->engines, rt->snapshot);
}

static void apply_next(runtime *rt)
{
    const change *c = OUTR_LIST_ITEM(rt->changes.next, change, link);
    outr_op_init(&rt->apply_op, rt->lanes[0].loop, NULL, 0, on_gate_ready);
    outr_gate_prepare(&rt->gate, c->diff.before, c->diff.after, &rt->apply_op);
}

/* ---- trust ----------------------------------------------------------------------------------- */

static void tell_trust(runtime *rt);

static void tell_lane_of_trust(runtime *rt OUTR_UNUSED, outr_lane *lane, round *r)
{
    outr_lane_trust_changed(lane);
    leave_round(r, lane);
}

static void on_trust_told(outr_op *op)
{
    runtime *rt = OUTR_CONTAINER(op, runtime, trust_op);
    if (rt->has_new_trust)
        tell_trust(rt);
}

static void tell_trust(runtime *rt)
{
    rt->has_new_trust = false;
    outr_op_init(&rt->trust_op, rt->lanes[0].loop, NULL, 0, on_trust_told);
    start_round(rt, &rt->trust_round, tell_lane_of_trust, &rt->trust_op);
}

static void on_trust_changed(void *ctx)
{
    runtime *rt = ctx;
    if (outr_op_is_pending(&rt->trust_op))
        rt->has_new_trust = true;
    else
        tell_trust(rt);
}

/* ---- stop ------------------------------------------------------------------------------------ */

enum {
    STOP_ENGINES,
    STOP_BLOCK,
    STOP_EVENTS,
    STOP_INBOUND,
    STOP_API,
    STOP_TOKENS,
    STOP_RESOLVER,
    STOP_COMPONENTS,
    STOP_EXPORT,
    STOP_LANES,
    STOP_DONE
};

static runtime *of_stopping(outr_steps *steps)
{
    return OUTR_CONTAINER(steps, runtime, stopping);
}

static void on_overrun(outr_timer *timer)
{
    runtime *rt = OUTR_CONTAINER(timer, runtime, deadline);
    OUTR_LOG(&rt->log, FATAL, "shutdown overran its time, ending at once",
             OUTR_I("seconds", rt->settings->graceful_shutdown_ns / OUTR_SEC));
    _exit(1);
}

static void start_deadline(runtime *rt)
{
    outr_loop *loop = rt->lanes[0].loop;
    rt->deadline.fire = on_overrun;
    if (rt->settings->graceful_shutdown_ns > 0)
        outr_timer_start(loop, &rt->deadline,
                         outr_loop_now(loop) + rt->settings->graceful_shutdown_ns);
}

static int step_engines(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    outr_engines_stop(&rt->engines, step_op(rt, 0));
    return outr_steps_wait(steps, STOP_BLOCK);
}

/* First events stop, then --dapr-block-shutdown-duration leaves the APIs up for the app. */
static int step_block(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    if (!rt->engines.pubsub)
        return STOP_INBOUND;
    outr_pubsub_stop(rt->engines.pubsub, step_op(rt, 0));
    return outr_steps_wait(steps, STOP_EVENTS);
}

static int step_events(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    uint64_t block_ns = rt->settings->block_shutdown_ns;
    outr_loop *loop = rt->lanes[0].loop;
    if (rt->ending != OUTR_ENDED || block_ns == 0 ||
        (rt->is_app_known && !outr_app_is_healthy(rt->lanes[0].app)))
        return STOP_INBOUND;
    OUTR_LOG(&rt->log, INFO, "blocking shutdown", OUTR_I("ms", block_ns / OUTR_MS));
    rt->is_blocking = true;
    outr_sleep_start(outr_loop_now(loop) + block_ns, step_op(rt, 0));
    return outr_steps_wait(steps, STOP_INBOUND);
}

static void on_port_drained(void *ctx)
{
    struct round_visit *visit = ctx;
    if (--visit->parts > 0)
        return;
    if (visit->lane->tracer) /* with the last port there is nothing more to tell */
        outr_tracer_flush(visit->lane->tracer);
    leave_round(visit->round, visit->lane);
}

static void drain_inbound(runtime *rt OUTR_UNUSED, outr_lane *lane, round *r)
{
    struct round_visit *visit = &r->visits[outr_loop_index(lane->loop)];
    visit->parts = 1;
    outr_lane_drain(lane, OUTR_PORT_INTERNAL, on_port_drained, visit);
}

static int step_inbound(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    rt->is_blocking = false;
    start_deadline(rt);
    outr_health_set(&rt->health, OUTR_HEALTH_RUNTIME, false);
    if (rt->workload) /* what it has lasts long enough */
        outr_workload_stop(rt->workload);
    start_round(rt, &rt->round, drain_inbound, step_op(rt, 0));
    return outr_steps_wait(steps, STOP_API);
}

static void drain_api(runtime *rt OUTR_UNUSED, outr_lane *lane, round *r)
{
    static const outr_port ports[] = {OUTR_PORT_HTTP, OUTR_PORT_GRPC, OUTR_PORT_PUBLIC};
    struct round_visit *visit = &r->visits[outr_loop_index(lane->loop)];
    visit->parts = OUTR_LEN(ports);
    for (size_t i = 0; i < OUTR_LEN(ports); i++)
        outr_lane_drain(lane, ports[i], on_port_drained, visit);
}

/* The APIs go last: an app that is answering its last calls may still call out. */
static int step_api(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    start_round(rt, &rt->round, drain_api, step_op(rt, 0));
    return outr_steps_wait(steps, STOP_TOKENS);
}

static int step_close_tokens(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    outr_gate_close(&rt->gate, step_op(rt, 0));
    return outr_steps_wait(steps, STOP_RESOLVER);
}

static int step_leave(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    if (!rt->resolver)
        return STOP_COMPONENTS;
    rt->resolver->backend->close(rt->resolver, step_op(rt, 0));
    return outr_steps_wait(steps, STOP_COMPONENTS);
}

static int step_close_components(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    if (rt->running < rt->lane_count) /* components open only when every loop runs */
        return STOP_EXPORT;
    outr_host_close(rt->host, step_op(rt, 0));
    return outr_steps_wait(steps, STOP_EXPORT);
}

static int step_export(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    const outr_timer *end = &rt->deadline;
    if (!rt->exporter)
        return STOP_LANES;
    outr_traces_close(rt->exporter, rt->lanes[0].loop, outr_timer_is_on(end) ? end->node.key : 0,
                      step_op(rt, 0));
    return outr_steps_wait(steps, STOP_LANES);
}

static void close_lane(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_lane_close(OUTR_CONTAINER(message, struct round_visit, message)->lane);
}

static int step_close_lanes(outr_steps *steps)
{
    runtime *rt = of_stopping(steps);
    outr_timer_stop(rt->lanes[0].loop, &rt->deadline);
    outr_trim_stop(&rt->trim);
    outr_token_stop(&rt->api_token);
    outr_token_stop(&rt->app_token);
    outr_reload_stop(rt->reload);
    outr_signals_free(rt->signals);
    if (rt->watcher.changed)
        outr_app_unwatch(&rt->watcher);
    if (rt->lanes[0].app)
        outr_app_stop(rt->lanes[0].app);
    for (unsigned i = 0; i < rt->running; i++) {
        rt->round.visits[i] = (struct round_visit){.lane = &rt->lanes[i]};
        rt->round.visits[i].message.run = close_lane;
        outr_loop_post(rt->lanes[i].loop, &rt->round.visits[i].message);
    }
    return OUTR_END;
}

static const outr_step stop_steps[] = {
    [STOP_ENGINES] = {"engines", step_engines, TO(STOP_BLOCK)},
    [STOP_BLOCK] = {"block", step_block, TO(STOP_EVENTS) | TO(STOP_INBOUND)},
    [STOP_EVENTS] = {"events", step_events, TO(STOP_INBOUND)},
    [STOP_INBOUND] = {"inbound", step_inbound, TO(STOP_API)},
    [STOP_API] = {"api", step_api, TO(STOP_TOKENS)},
    [STOP_TOKENS] = {"tokens", step_close_tokens, TO(STOP_RESOLVER)},
    [STOP_RESOLVER] = {"resolver", step_leave, TO(STOP_COMPONENTS)},
    [STOP_COMPONENTS] = {"components", step_close_components, TO(STOP_EXPORT)},
    [STOP_EXPORT] = {"export", step_export, TO(STOP_LANES)},
    [STOP_LANES] = {"lanes", step_close_lanes, 0},
};

static void run_stop(runtime *rt)
{
    OUTR_LOG(&rt->log, INFO, rt->ending == OUTR_RESTART ? "restarting" : "shutting down");
    outr_steps_init(&rt->stopping, stop_steps, STOP_ENGINES, &rt->log);
    outr_steps_run(&rt->stopping);
}

static void begin_stop(runtime *rt, outr_ending ending)
{
    if (ending == OUTR_FAILED || !rt->is_stopping)
        rt->ending = ending;
    if (rt->is_stopping)
        return;
    rt->is_stopping = true;
    if (rt->is_starting) { /* the step in progress ends first; its successor notices */
        outr_op_cancel(&rt->op, OUTR_CANCELLED);
        return;
    }
    run_stop(rt);
}

static void on_signal(void *ctx, int signum)
{
    runtime *rt = ctx;
    if (rt->is_stopping && signum != SIGHUP)
        _exit(1); /* a second signal ends at once */
    begin_stop(rt, signum == SIGHUP ? OUTR_RESTART : OUTR_ENDED);
}

static void on_shutdown_posted(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    begin_stop(OUTR_CONTAINER(message, runtime, shutdown_message), OUTR_ENDED);
}

/* POST /v1.0/shutdown, on any lane. A forced one leaves its answer 100 ms to go out. */
static void on_shutdown_asked(void *ctx, bool is_forced)
{
    runtime *rt = ctx;
    if (is_forced) {
        OUTR_LOG(&rt->log, WARN, "forced shutdown");
        _exit(1);
    }
    if (__atomic_exchange_n(&rt->shutdown_posted, 1, __ATOMIC_ACQ_REL) == 0)
        outr_loop_post(rt->lanes[0].loop, &rt->shutdown_message);
}

/* ---- one life -------------------------------------------------------------------------------- */

/* Everything up to the point where the main loop can run. */
static outr_code prepare(runtime *rt, outr_err *err)
{
    const outr_settings *s = rt->settings;
    outr_env *env = outr_env_real();
    outr_code rc = outr_rundir_make(rt->run_dir, sizeof rt->run_dir, err);
    if (rc)
        return rc;
    rc = outr_token_open(&rt->api_token, s->api_token_file.p, "DAPR_API_TOKEN_FILE", err);
    if (!rc)
        rc = outr_token_open(&rt->app_token, s->app_token_file.p, "APP_API_TOKEN_FILE", err);
    if (rc)
        return rc;
    outr_ports_find_host(s, rt->host_name, sizeof rt->host_name, rt->host_address);
    rt->lane_count = s->loops;
    rt->lanes = outr_alloc(rt->lane_count * sizeof *rt->lanes);
    rt->loops = outr_alloc(rt->lane_count * sizeof *rt->loops);
    rt->apps = outr_alloc(rt->lane_count * sizeof *rt->apps);
    rt->tracers = outr_alloc(rt->lane_count * sizeof *rt->tracers);
    rt->round.visits = outr_alloc(rt->lane_count * sizeof *rt->round.visits);
    rt->update_round.visits = outr_alloc(rt->lane_count * sizeof *rt->update_round.visits);
    rt->trust_round.visits = outr_alloc(rt->lane_count * sizeof *rt->trust_round.visits);
    const outr_configuration *c = &rt->snapshot->configuration;
    if (s->enable_metrics && c->metrics_is_on) {
        const outr_metrics_options metrics = {
            .app_id = s->app_id,
            .shard_count = rt->lane_count,
            .max_values = s->metrics_max_values,
            .latency_buckets_ms = c->latency_buckets_ms,
            .latency_bucket_count = c->latency_bucket_count,
        };
        rt->metrics = outr_metrics_new(&metrics);
    }
    for (unsigned i = 0; i < rt->lane_count && !rc; i++) {
        rc = outr_lane_open(&rt->lanes[i], i, env, rt->metrics, &rt->log, err);
        rt->loops[i] = rt->lanes[i].loop;
    }
    if (!rc && s->enable_mtls) {
        int64_t ttl_s = (int64_t)(c->certificate_ttl_ns / OUTR_SEC);
        const outr_workload_options workload = {.kept = rt->kept,
                                                .loop = rt->lanes[0].loop,
                                                .settings = s,
                                                .log = &rt->log,
                                                .ttl_s = ttl_s,
                                                .skew_s = (int64_t)(c->clock_skew_ns / OUTR_SEC),
                                                .trust_changed = on_trust_changed,
                                                .ctx = rt};
        rc = outr_workload_new(&rt->workload, &workload, err);
    } else if (!rc && s->identity_file.n > 0) {
        OUTR_LOG(&rt->log, WARN, "--identity-file is of no use without --enable-mtls");
    }
    if (!rc)
        rc = outr_ports_bind(rt->lanes, rt->lane_count, s, rt->metrics != NULL, &rt->log, err);
    return rc ? rc : outr_traces_open(&rt->exporter, rt->lanes[0].loop, s, c, &rt->log, err);
}

static void run_loops(runtime *rt)
{
    static const int signums[] = {SIGINT, SIGTERM, SIGHUP, 0};
    const outr_host_options host = {
        .loops = rt->loops,
        .loop_count = rt->lane_count,
        .settings = rt->settings,
        .run_dir = outr_str_from(rt->run_dir),
        .log = &rt->log,
    };
    rt->signals = outr_signals_watch(rt->lanes[0].loop, signums, on_signal, rt);
    outr_token_watch(&rt->api_token, rt->lanes[0].loop);
    outr_token_watch(&rt->app_token, rt->lanes[0].loop);
    rt->host = outr_host_new(&host);
    outr_host_on_change(rt->host, on_components_back, rt);
    rt->app_state = outr_app_state_new(rt->settings, rt->lane_count);
    rt->metadata = outr_metadata_new();
    rt->shutdown_message.run = on_shutdown_posted;
    rt->is_starting = true;
    rt->running = 1;
    outr_steps_init(&rt->starting, start_steps, START_IDENTITY, &rt->log);
    outr_steps_run(&rt->starting);
    outr_loop_run(rt->lanes[0].loop);
}

static void tear_down(runtime *rt)
{
    for (unsigned i = rt->lane_count; i-- > 0;) {
        if (!rt->lanes[i].loop)
            continue;
        if (i >= rt->running)
            outr_lane_close(&rt->lanes[i]);
        outr_lane_join(&rt->lanes[i]);
    }
    while (!outr_list_is_empty(&rt->changes))
        free_change(OUTR_LIST_ITEM(outr_list_pop(&rt->changes), change, link));
    outr_exporter_free(rt->exporter);
    outr_engines_free(&rt->engines);
    outr_host_free(rt->host);
    outr_app_state_free(rt->app_state);
    outr_callees_unref(rt->callees);
    outr_metadata_free(rt->metadata);
    outr_metrics_free(rt->metrics);
    outr_snapshot_unref(rt->snapshot);
    outr_arena_free(rt->config_arena);
    free(rt->lanes);
    free(rt->loops);
    free(rt->apps);
    free(rt->tracers);
    free(rt->round.visits);
    free(rt->update_round.visits);
    free(rt->trust_round.visits);
    outr_workload_free(rt->workload);
    outr_token_close(&rt->api_token);
    outr_token_close(&rt->app_token);
}

static int open_log(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

outr_ending outr_runtime_run(const outr_settings *settings, char *const *envp,
                             outr_kept_identity *kept)
{
    runtime *rt = outr_alloc(sizeof *rt);
    outr_err err;
    rt->settings = settings;
    rt->envp = envp;
    rt->kept = kept;
    rt->ending = OUTR_FAILED;
    outr_list_init(&rt->changes);
    rt->begun_ns = outr_env_real()->now_ns(outr_env_real());
    gethostname(rt->host_name, sizeof rt->host_name - 1);
    int fd = STDOUT_FILENO;
    if (settings->log_file.n > 0)
        fd = open_log(settings->log_file.p);
    const outr_log_options log = {
        .level = settings->log_level,
        .is_json = settings->log_as_json,
        .fd = fd >= 0 ? fd : STDOUT_FILENO,
        .app_id = settings->app_id,
        .instance = outr_str_from(rt->host_name),
        .version = OUTR_STR(OUTR_DAPR_VERSION),
    };
    rt->sink = outr_log_sink_new(&log);
    rt->log = (outr_log){rt->sink, "outrigger.runtime"};
    OUTR_LOG(&rt->log, INFO, "starting Outrigger", OUTR_S("outrigger", OUTR_STR(OUTR_VERSION)),
             OUTR_S("app", settings->app_id), OUTR_I("loops", settings->loops));
    outr_load_tell_unused(settings, &rt->log);
    if (fd < 0)
        OUTR_LOG(&rt->log, FATAL, "the log file cannot be opened",
                 OUTR_S("file", settings->log_file));
    else if (outr_load_snapshot(&rt->snapshot, settings, envp, &rt->log) == OUTR_OK) {
        if (prepare(rt, &err))
            OUTR_LOG(&rt->log, FATAL, "start failed", OUTR_ERR(&err));
        else
            run_loops(rt);
    }
    tear_down(rt);
    outr_ending ending = rt->ending;
    OUTR_LOG(&rt->log, INFO,
             ending == OUTR_ENDED     ? "stopped"
             : ending == OUTR_RESTART ? "stopped, starting again"
                                      : "stopped after an error");
    outr_log_sink_free(rt->sink);
    if (fd > STDERR_FILENO)
        close(fd);
    free(rt);
    return ending;
}
