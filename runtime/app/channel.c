#include "app/internal.h"

#define LOOK_AGAIN_NS   OUTR_SEC /* after the app's name was not found, or nobody answered there */
#define LOOK_UP_NS      (10 * OUTR_SEC)
#define APP_CONNECTIONS 4096

static const outr_metric_desc client_count = {"dapr_http_client_completed_count",
                                              "calls to the app",
                                              OUTR_COUNTER,
                                              0,
                                              {"method", "path", "status"}};
static const outr_metric_desc client_latency = {"dapr_http_client_roundtrip_latency",
                                                "time until the app's answer, ms",
                                                OUTR_HISTOGRAM,
                                                OUTR_BUCKETS_LATENCY_MS,
                                                {"method", "path", "status"}};
static const outr_metric_desc client_sent = {"dapr_http_client_sent_bytes",
                                             "size of bodies sent to the app",
                                             OUTR_HISTOGRAM,
                                             OUTR_BUCKETS_BYTES,
                                             {"method", "path", "status"}};
/* ---- shared state ---------------------------------------------------------------------------- */

static void on_wake(outr_message *message, outr_loop *loop);
static void on_notice(outr_message *message, outr_loop *loop);

outr_app_state *outr_app_state_new(const outr_settings *settings, size_t loop_count)
{
    outr_app_state *state = outr_alloc(sizeof *state + loop_count * sizeof state->loops[0]);
    state->settings = settings;
    state->limit = settings->app_max_concurrency;
    state->loop_count = loop_count;
    for (size_t i = 0; i < loop_count; i++) {
        state->loops[i].wake.run = on_wake;
        state->loops[i].notice.run = on_notice;
    }
    return state;
}

void outr_app_state_free(outr_app_state *state)
{
    free(state);
}

bool outr_app_is_configured(const outr_app *app)
{
    return app->settings->app_port != 0;
}

bool outr_app_speaks_grpc(const outr_app *app)
{
    return outr__app_is_grpc(app);
}

bool outr_app_is_up(const outr_app *app)
{
    return __atomic_load_n(&app->state->is_up, __ATOMIC_ACQUIRE);
}

bool outr_app_is_healthy(const outr_app *app)
{
    return __atomic_load_n(&app->state->is_healthy, __ATOMIC_ACQUIRE);
}

static void tell_watchers(outr_app *app)
{
    bool is_up = outr_app_is_up(app), is_healthy = outr_app_is_healthy(app);
    OUTR_LIST_EACH(link, &app->watchers) {
        outr_app_watcher *w = OUTR_LIST_ITEM(link, outr_app_watcher, link);
        w->changed(w, is_up, is_healthy);
    }
}

static void on_notice(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__shared_loop *l = OUTR_CONTAINER(message, outr__shared_loop, notice);
    __atomic_store_n(&l->notice_posted, 0, __ATOMIC_RELEASE);
    if (l->app)
        tell_watchers(l->app);
}

/* Main loop: the state has changed. */
static void announce(outr_app *app)
{
    for (size_t i = 0; i < app->state->loop_count; i++) {
        outr__shared_loop *l = &app->state->loops[i];
        if (l->app && __atomic_exchange_n(&l->notice_posted, 1, __ATOMIC_ACQ_REL) == 0)
            outr_loop_post(l->app->loop, &l->notice);
    }
}

void outr__app_set_state(outr_app *app, bool is_up, bool is_healthy)
{
    bool was_up = __atomic_exchange_n(&app->state->is_up, is_up, __ATOMIC_ACQ_REL);
    bool was_healthy = __atomic_exchange_n(&app->state->is_healthy, is_healthy, __ATOMIC_ACQ_REL);
    if (was_up != is_up || was_healthy != is_healthy)
        announce(app);
}

static void on_greet(outr_deferred *deferred)
{
    tell_watchers(OUTR_CONTAINER(deferred, outr_app, greeter));
}

void outr_app_watch(outr_app *app, outr_app_watcher *watcher)
{
    outr_list_push(&app->watchers, &watcher->link);
    outr_loop_defer(app->loop, &app->greeter);
}

void outr_app_unwatch(outr_app_watcher *watcher)
{
    outr_link_remove(&watcher->link);
}

/* ---- concurrency limit ----------------------------------------------------------------------- */

static bool take_slot(outr_app_state *state)
{
    if (state->limit == 0)
        return true;
    int64_t n = __atomic_load_n(&state->in_flight, __ATOMIC_RELAXED);
    while (n < state->limit) {
        if (__atomic_compare_exchange_n(&state->in_flight, &n, n + 1, true, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return true;
    }
    return false;
}

static void send_call(outr_app *app, outr_app_call *call);

static void serve_waiting(outr_app *app)
{
    while (!outr_list_is_empty(&app->waiting) && take_slot(app->state)) {
        outr_app_call *call = OUTR_LIST_ITEM(outr_list_pop(&app->waiting), outr_app_call, waiting);
        __atomic_fetch_sub(&app->shared->waiting, 1, __ATOMIC_RELEASE);
        call->has_slot = true;
        send_call(app, call);
    }
}

static void on_wake(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__shared_loop *l = OUTR_CONTAINER(message, outr__shared_loop, wake);
    __atomic_store_n(&l->wake_posted, 0, __ATOMIC_RELEASE);
    if (l->app)
        serve_waiting(l->app);
}

static void give_slot_back(outr_app *app)
{
    outr_app_state *state = app->state;
    if (state->limit == 0)
        return;
    __atomic_fetch_sub(&state->in_flight, 1, __ATOMIC_ACQ_REL);
    for (size_t i = 0; i < state->loop_count; i++) {
        outr__shared_loop *l = &state->loops[i];
        if (__atomic_load_n(&l->waiting, __ATOMIC_ACQUIRE) > 0 &&
            __atomic_exchange_n(&l->wake_posted, 1, __ATOMIC_ACQ_REL) == 0)
            outr_loop_post(l->app->loop, &l->wake);
    }
}

/* ---- one call -------------------------------------------------------------------------------- */

static void count_call(outr_app *app, const outr_app_call *call)
{
    outr_metric_shard *shard = outr_loop_metrics(app->loop);
    char status[20];
    if (!shard)
        return;
    outr_str path;
    outr_str_cut(call->request.target, '?', &path);
    const outr_str labels[] = {call->request.method, outr_str_head(path, 128),
                               outr_str_decimal(status, (uint64_t)call->http.head.status)};
    outr_metric_count(shard, &client_count, labels, 1);
    outr_metric_count(shard, &client_latency, labels,
                      (double)(outr_loop_update(app->loop) - call->sent_ns) / (double)OUTR_MS);
    outr_metric_count(shard, &client_sent, labels,
                      (double)OUTR_MAX(call->request.content_length, 0));
}

static void on_call_done(outr_op *inner)
{
    outr_app_call *call = OUTR_CONTAINER(inner, outr_app_call, inner);
    outr_app *app = call->app;
    outr_op *op = call->op;
    bool had_slot = call->has_slot;
    if (!call->skip_limit && call->http.progress == OUTR_CALL_ANSWERED && !outr__app_is_grpc(app))
        count_call(app, call);
    call->has_slot = false;
    if (inner->err.code == OUTR_UNAVAILABLE && call->http.progress == OUTR_CALL_NOT_SENT)
        outr__app_look_again(app);
    if (inner->err.code) {
        outr_err err = inner->err;
        outr_op_fail(op, &err);
    } else {
        outr_op_finish(op);
    }
    if (had_slot)
        give_slot_back(app);
}

static void send_call(outr_app *app, outr_app_call *call)
{
    outr_http_request *req = &call->request;
    *req = *call->http.req;
    req->authority = app->authority;
    req->scheme = app->tls ? OUTR_STR("https") : OUTR_STR("http");
    outr_str token = outr_token_get(&app->token, app->settings->app_token);
    if (!call->skip_token && token.n > 0) /* a copy: it may be another one before it is sent */
        outr_headers_set(&req->headers, OUTR_STR("Dapr-Api-Token"),
                         outr_arena_str(req->headers.arena, token));
    call->http.req = req;
    call->sent_ns = outr_loop_now(app->loop);
    outr_op_init(&call->inner, app->loop, call->op, 0, on_call_done);
    outr_http_call_start(app->pool, &call->http, &call->inner);
}

static void on_call_cancel(outr_op *op)
{
    outr_app_call *call = op->impl;
    if (outr_link_is_in(&call->waiting)) {
        outr_link_remove(&call->waiting);
        __atomic_fetch_sub(&call->app->shared->waiting, 1, __ATOMIC_RELEASE);
        outr_op_finish(op);
        return;
    }
    outr_op_cancel(&call->inner, op->err.code);
}

void outr_app_call_start(outr_app *app, outr_app_call *call, outr_op *op)
{
    outr_err err;
    call->app = app;
    call->op = op;
    call->has_slot = false;
    outr_op_begin(op, call, on_call_cancel);
    if (!app->pool) {
        if (!outr_app_is_configured(app))
            outr_fail(&err, OUTR_FAILED_PRECONDITION, "app channel is not initialized");
        else
            outr_fail(&err, OUTR_UNAVAILABLE, "the app's address is not known yet");
        outr_op_fail_soon(op, &err);
        return;
    }
    if (!call->skip_limit && !take_slot(app->state)) {
        outr_list_push(&app->waiting, &call->waiting);
        __atomic_fetch_add(&app->shared->waiting, 1, __ATOMIC_RELEASE);
        serve_waiting(app); /* a slot may have come back in between */
        return;
    }
    call->has_slot = !call->skip_limit && app->state->limit > 0;
    send_call(app, call);
}

/* ---- where it is ----------------------------------------------------------------------------- */

static outr_code open_pool(outr_app *app, const outr_addr *addr, outr_err *err)
{
    const outr_settings *s = app->settings;
    /* the app's certificate is not verified: contract/lifecycle.md */
    static const char *const h2_only[] = {"h2", NULL};
    app->connect.addr = *addr;
    bool is_h2 = s->app_protocol >= OUTR_APP_H2C;
    bool has_tls = s->app_protocol == OUTR_APP_HTTPS || s->app_protocol == OUTR_APP_GRPCS;
    const outr_tls_options trusting = {.alpn = is_h2 ? h2_only : NULL};
    if (has_tls && !app->tls) {
        outr_code rc = outr_tls_new(&app->tls, &trusting, err);
        if (rc)
            return rc;
    }
    const outr_http_pool_options options = {
        .loop = app->loop,
        .addr = *addr,
        .version = is_h2 ? OUTR_HTTP_2 : OUTR_HTTP_1,
        .tls = app->tls,
        .server_name = s->app_channel_address,
        .limits = {.max_header_bytes = OUTR_MAX((size_t)s->read_buffer_bytes, 64 * OUTR_KIB),
                   .body_idle_ns = 24 * 3600 * OUTR_SEC},
        .max_connections = APP_CONNECTIONS,
        .max_pending = 65536,
    };
    outr_http_pool_free(app->former);
    app->former = app->pool;
    if (app->former)
        outr_http_pool_retire(app->former);
    app->pool = outr_http_pool_new(&options);
    return OUTR_OK;
}

/* ---- an app that has a name ------------------------------------------------------------------ */

static bool is_host_name(outr_str host)
{
    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_alnum && c != '-' && c != '.' && c != '_')
            return false;
    }
    return host.n > 0 && host.n <= 253; /* RFC 1035 section 2.3.4 */
}

static void on_looked_up(outr_op *op)
{
    outr_app *app = OUTR_CONTAINER(op, outr_app, lookup_op);
    const outr_lookup *found = &app->lookup;
    char before[OUTR_ADDR_TEXT_MAX], now[OUTR_ADDR_TEXT_MAX];
    outr_err err;
    if (app->is_stopped) {
        outr__app_free_if_over(app);
        return;
    }
    if (op->err.code || found->count == 0) {
        outr__app_look_again(app);
        return;
    }
    /* Nobody may listen on the first (an app on 127.0.0.1 alone, a name that is ::1 first). */
    const outr_addr *addr = &found->addrs[app->lookups++ % found->count];
    outr_addr_text(&app->connect.addr, before);
    outr_addr_text(addr, now);
    if (strcmp(before, now) != 0 && open_pool(app, addr, &err))
        outr__app_look_again(app);
}

static void look_up(outr_timer *timer)
{
    outr_app *app = OUTR_CONTAINER(timer, outr_app, lookup_timer);
    outr_env *env = outr_loop_env(app->loop);
    app->lookup =
        (outr_lookup){.host = app->settings->app_channel_address, .port = app->settings->app_port};
    outr_op_init(&app->lookup_op, app->loop, NULL, outr_loop_now(app->loop) + LOOK_UP_NS,
                 on_looked_up);
    env->lookup(env, app->loop, &app->lookup, &app->lookup_op);
}

void outr__app_look_again(outr_app *app)
{
    if (app->is_named && !app->is_stopped && !outr_timer_is_on(&app->lookup_timer) &&
        !outr_op_is_pending(&app->lookup_op))
        outr_timer_start(app->loop, &app->lookup_timer, outr_loop_now(app->loop) + LOOK_AGAIN_NS);
}

/* ---- making and freeing ---------------------------------------------------------------------- */

static outr_code find_address(outr_app *app, outr_err *err)
{
    outr_str given = app->settings->app_channel_address;
    outr_str host = outr_str_is(given, "localhost") ? OUTR_STR("127.0.0.1") : given;
    outr_addr addr;
    if (outr_addr_from_ip(&addr, host, app->settings->app_port, err) == OUTR_OK)
        return open_pool(app, &addr, err);
    if (!is_host_name(host))
        return outr_wrap(err, "--app-channel-address");
    app->is_named = true;
    app->lookup_timer.fire = look_up;
    look_up(&app->lookup_timer);
    return OUTR_OK;
}

void outr__app_free_if_over(outr_app *app)
{
    if (!app->is_freed || outr_op_is_pending(&app->op) || outr_op_is_pending(&app->lookup_op))
        return;
    outr_arena_free(app->probe_arena);
    outr_token_view_done(&app->token);
    free(app);
}

outr_code outr_app_new(outr_app **out, const outr_app_options *options, outr_err *err)
{
    const outr_settings *s = options->settings;
    outr_app *app = outr_alloc(sizeof *app);
    app->loop = options->loop;
    app->settings = s;
    app->state = options->state;
    app->token.token = options->token;
    app->shared = &options->state->loops[outr_loop_index(options->loop)];
    app->shared->app = app;
    app->greeter.run = on_greet;
    outr_list_init(&app->waiting);
    outr_list_init(&app->watchers);
    outr_code rc = OUTR_OK;
    if (s->app_port) {
        rc = find_address(app, err);
        bool is_v6 = outr_str_find(s->app_channel_address, ':') >= 0;
        int n =
            snprintf(app->authority_text, sizeof app->authority_text,
                     is_v6 ? "[%.250s]:%u" : "%.250s:%u", s->app_channel_address.p, s->app_port);
        app->authority = outr_str_of(app->authority_text, (size_t)n);
    }
    if (rc) {
        app->shared->app = NULL;
        free(app);
        return rc;
    }
    *out = app;
    return OUTR_OK;
}

void outr_app_free(outr_app *app)
{
    outr_loop_undefer(&app->greeter);
    outr_timer_stop(app->loop, &app->timer);
    outr_timer_stop(app->loop, &app->lookup_timer);
    app->shared->app = NULL;
    app->is_stopped = true;
    outr_op_cancel(&app->lookup_op, OUTR_CANCELLED);
    outr_http_pool_free(app->pool);
    outr_http_pool_free(app->former);
    outr_tls_unref(app->tls);
    app->is_freed = true;
    outr__app_free_if_over(app); /* else its last operation does */
}
