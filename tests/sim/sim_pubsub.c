/* (Over a thousand lines: one stage, and a play for each thing that must hold on it.)
 *
 * Messages on their way from a broker through one or two sidecars to apps that answer in every way,
 * break off, hang, sit in a debugger, turn unwell and come back, with bytes in pieces and late and
 * connections that break. Whatever happens: each message is taken by an app or lies in the dead
 * letter topic, none is lost, and nobody gets what he should not.
 *
 * The clock and the network are virtual. The durable broker's thread and file are real; time stands
 * still until its thread has done what it was given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sched.h>

#include "base/json.h"
#include "blocks/pubsub/envelope.h"
#include "blocks/pubsub/pubsub.h"
#include "lib/folder.h"
#include "lib/web.h"
#include "lib/wire.h"

enum { MESSAGES_MAX = 64, NODES = 2, BATCH_MAX = 64 };

#define IN_MEMORY     "pubsub.in-memory"
#define SQLITE        "pubsub.sqlite"
#define NO_LEASE_ENDS "  - {name: leaseDuration, value: 24h}\n"

typedef struct stage stage;
typedef struct node node;
typedef struct visit visit;

/* What became of one message, over all apps. */
typedef struct fate {
    unsigned seen, taken, dropped, buried; /* buried: the app got it from the dead letter topic */
    unsigned in_hand;
    uint64_t last_taken_at;
} fate;

/* One POST at an app; on the exchange's arena. */
struct visit {
    node *n;
    outr_exchange *x;
    outr_gather gather;
    outr_timer timer;
    bool is_reading;
    bool is_event, is_grave; /* a POST with events; one to the dead letter topic's route */
    unsigned numbers[BATCH_MAX];
    char ids[BATCH_MAX][24];
    size_t count;
    outr_link held; /* while the app is halted */
};

struct node {
    wire w;
    stage *stage;
    outr_settings settings;
    outr_app_state *app_state;
    outr_app *app;
    outr_host *host;
    outr_snapshot *snapshot;
    outr_pubsub *pubsub;
    outr_http_server *server;
    outr_loop *loops[1];
    outr_app *apps[1];
    outr_op op, stop_op;
    outr_err err;
    bool is_done, has_stopped;
    bool is_there;           /* it runs: opened, and not frozen */
    bool is_gone, is_unwell; /* the app: nobody listens; probes are bad */
    bool is_halted;          /* the app: in a debugger */
    outr_list held;          /* visits that came meanwhile */
    unsigned parallel, most_parallel, open, posts;
    outr_app_watcher watcher;
    bool is_known_unwell;
    uint64_t unwell_since;
    void (*connect)(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op);
    outr_pubsub_backend backend; /* the broker's, with a grave that may be closed */
    const outr_pubsub_backend *real;
};

typedef enum grave { GRAVE_OPEN, GRAVE_FAILS, GRAVE_HANGS } grave;

struct stage {
    uint64_t seed, now;
    outr_rand rand;
    folder dir;
    const char *type, *component; /* more metadata, as YAML lines */
    const char *subscriptions;    /* what the apps answer to GET /dapr/subscribe */
    bool has_checks;
    node *nodes[NODES];
    fate fates[MESSAGES_MAX];
    size_t count; /* published */
    /* What an app does with an event; it answers now or later. */
    void (*on_event)(visit *v);
    grave grave;
    unsigned burials;
    unsigned patience; /* bad answers still to come */
};

static unsigned dice(stage *s, unsigned sides)
{
    return (unsigned)outr_rand_below(&s->rand, sides);
}

static bool is_durable(const stage *s)
{
    return strcmp(s->type, SQLITE) == 0;
}

#define FAIL(s, fmt, ...)                                                                          \
    fail_msg("seed %llu, %s: " fmt, (unsigned long long)(s)->seed, (s)->type, ##__VA_ARGS__)

/* ---- the app ---------------------------------------------------------------------------------- */

static void leave(visit *v)
{
    node *n = v->n;
    outr_timer_stop(n->w.loop, &v->timer);
    outr_link_remove(&v->held);
    if (v->is_event)
        n->parallel--;
    for (size_t i = 0; i < v->count && !v->is_grave; i++)
        n->stage->fates[v->numbers[i]].in_hand--;
}

static void answer(visit *v, int status, const char *body)
{
    leave(v);
    web_answer(v->x, status, body);
}

/* The app breaks off: without an answer, or in the middle of one. */
static void break_off(visit *v, bool has_begun)
{
    outr_http_response head = {.status = 200, .content_length = 20};
    leave(v);
    if (has_begun) {
        outr_headers_init(&head.headers, v->x->arena);
        outr_sink *sink = outr_http_respond(v->x, &head);
        sink->ops->data(sink, outr_slice_copy(OUTR_STR("{\"stat")));
    }
    outr_http_done(v->x);
}

static void take(visit *v)
{
    for (size_t i = 0; i < v->count; i++) {
        fate *f = &v->n->stage->fates[v->numbers[i]];
        if (v->is_grave)
            f->buried++;
        else
            f->taken++;
        f->last_taken_at = v->n->w.now;
    }
    answer(v, 200, "");
}

static void on_gone(outr_exchange *x, const outr_err *err)
{
    visit *v = x->user;
    (void)err;
    if (v->is_reading)
        outr_gather_cancel(&v->gather);
    leave(v);
    outr_http_done(x);
}

static void later(visit *v, uint64_t ns, void (*fire)(outr_timer *timer))
{
    v->timer.fire = fire;
    outr_timer_start(v->n->w.loop, &v->timer, v->n->w.now + ns);
}

static void on_late(outr_timer *timer)
{
    take(OUTR_CONTAINER(timer, visit, timer));
}

static void on_fed_up(outr_timer *timer)
{
    break_off(OUTR_CONTAINER(timer, visit, timer), false);
}

static void read_event(visit *v, const outr_json *event, outr_str id)
{
    int64_t number;
    const outr_json *data = outr_json_find(event, "data");
    if (!data || !outr_json_i64(outr_json_find(data, "n"), &number) || number < 0 ||
        number >= (int64_t)v->n->stage->count || v->count == BATCH_MAX)
        FAIL(v->n->stage, "an event that nobody published");
    snprintf(v->ids[v->count], sizeof v->ids[0], OUTR_FMT, OUTR_ARG(id));
    v->numbers[v->count++] = (unsigned)number;
}

static void judge(visit *v)
{
    node *n = v->n;
    stage *s = n->stage;
    if (v->is_grave)
        take(v);
    else if (n->is_gone)
        break_off(v, false);
    else
        s->on_event(v);
}

static void arrive(visit *v)
{
    node *n = v->n;
    stage *s = n->stage;
    for (size_t i = 0; i < v->count && !v->is_grave; i++) {
        s->fates[v->numbers[i]].seen++;
        s->fates[v->numbers[i]].in_hand++;
    }
    n->posts++;
    if (n->is_known_unwell && n->w.now > n->unwell_since)
        FAIL(s, "the app is unwell and got message %u", v->numbers[0]);
    if (n->is_halted)
        outr_list_push(&n->held, &v->held);
    else
        judge(v);
}

static void on_body(outr_gather *gather, const outr_err *err)
{
    visit *v = gather->ctx;
    outr_json *root;
    v->is_reading = false;
    if (err) {
        outr_buf_done(&gather->body);
        leave(v);
        outr_http_done(v->x);
        return;
    }
    outr_str text = outr_arena_str(v->x->arena, outr_buf_view(&gather->body));
    outr_buf_done(&gather->body);
    if (outr_json_parse(&root, v->x->arena, text, NULL))
        FAIL(v->n->stage, "a body that is no JSON: " OUTR_FMT, OUTR_ARG(text));
    const outr_json *entries = outr_json_find(root, "entries");
    if (!entries)
        read_event(v, root, OUTR_STR(""));
    for (const outr_json *e = entries ? entries->child : NULL; e; e = e->next)
        read_event(v, outr_json_find(e, "event"), outr_json_text(e, "entryId"));
    arrive(v);
}

static void on_request(void *ctx, outr_exchange *x)
{
    node *n = ctx;
    visit *v = outr_arena_alloc(x->arena, sizeof *v);
    v->n = n;
    v->x = x;
    x->user = v;
    x->on_gone = on_gone;
    n->open++;
    if (!outr_str_is(x->req.method, "POST")) {
        bool is_probe = outr_str_is(x->req.target, "/healthz");
        if (is_probe && n->is_halted)
            outr_list_push(&n->held, &v->held);
        else
            answer(v, is_probe && n->is_unwell ? 500 : 200,
                   is_probe ? "" : n->stage->subscriptions);
        return;
    }
    v->is_event = v->is_reading = true;
    v->is_grave = outr_str_is(x->req.target, "/dead");
    n->parallel++;
    n->most_parallel = OUTR_MAX(n->most_parallel, n->parallel);
    outr_gather_start(&v->gather, x->body, OUTR_MIB, on_body, v);
}

static void on_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    (void)x;
    (void)is_broken;
    ((node *)ctx)->open--;
}

static const outr_http_handler app_handler = {on_request, on_finished};

static void halt(node *n, bool is_halted)
{
    n->is_halted = is_halted;
    while (!is_halted && !outr_list_is_empty(&n->held)) {
        visit *v = OUTR_LIST_ITEM(outr_list_pop(&n->held), visit, held);
        if (v->is_event)
            judge(v);
        else
            answer(v, 200, "");
    }
}

/* ---- a sidecar -------------------------------------------------------------------------------- */

static void on_connect(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op)
{
    node *n = OUTR_CONTAINER(OUTR_CONTAINER(env, wire, env), node, w);
    outr_err err;
    if (!n->is_gone) {
        n->connect(env, loop, req, op);
        return;
    }
    outr_fail(&err, OUTR_UNAVAILABLE, "connect: connection refused");
    outr_op_begin(op, req, NULL);
    outr_op_fail_soon(op, &err);
}

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((node *)ctx)->server, own_stream);
}

static void on_changed(outr_app_watcher *watcher, bool is_up, bool is_healthy)
{
    node *n = OUTR_CONTAINER(watcher, node, watcher);
    (void)is_up;
    n->is_known_unwell = !is_healthy;
    n->unwell_since = n->w.now;
}

static void on_done(outr_op *op)
{
    node *n = OUTR_CONTAINER(op, node, op);
    n->is_done = true;
    n->err = op->err;
}

static void on_stopped(outr_op *op)
{
    OUTR_CONTAINER(op, node, stop_op)->has_stopped = true;
}

static outr_op *begin(node *n)
{
    n->is_done = false;
    outr_op_init(&n->op, n->w.loop, NULL, 0, on_done);
    return &n->op;
}

static void finish(node *n, const char *what)
{
    for (uint64_t until = n->w.now + 600 * OUTR_SEC; !n->is_done && n->w.now < until;) {
        wire_sleep(&n->w, is_durable(n->stage) ? 0 : OUTR_MS);
        sched_yield();
    }
    if (!n->is_done || n->err.code)
        FAIL(n->stage, "%s: %s", what, n->err.text);
}

/* Pinned by the subscriptions for longer than any of the test's uses. */
static outr_broker *broker_of(node *n)
{
    outr_view *view = outr_host_pin(n->host, n->w.loop);
    const outr_component *c = outr_view_find(view, OUTR_KIND_PUBSUB, OUTR_STR("ps"));
    outr_view_unpin(view);
    return c->broker;
}

static void on_grave_cancelled(outr_op *op)
{
    outr_op_finish(op);
}

static void publish_or_not(outr_broker *broker, outr_publish *req, outr_op *op)
{
    node *n = OUTR_CONTAINER(broker->backend, node, backend);
    stage *s = n->stage;
    outr_err err;
    if (!outr_str_is(req->topic, "dead") || s->grave == GRAVE_OPEN) {
        s->burials += outr_str_is(req->topic, "dead");
        n->real->publish(broker, req, op);
    } else if (s->grave == GRAVE_FAILS) {
        outr_op_begin(op, req, NULL);
        outr_fail(&err, OUTR_UNAVAILABLE, "the dead letter topic is away");
        outr_op_fail_soon(op, &err);
    } else {
        outr_op_begin(op, req, on_grave_cancelled);
    }
}

static void load(node *n)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    char text[2048];
    stage *s = n->stage;
    snprintf(text, sizeof text,
             "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: ps}\n"
             "spec:\n  type: %s\n  version: v1\n  metadata:\n%s%s%s%s",
             s->type,
             is_durable(s) ? "  - {name: connectionString, value: " : "  - {name: x, value: ",
             is_durable(s) ? folder_path(&s->dir, "ps.db") : "y", "}\n", s->component);
    folder_write(&s->dir, "ps.yaml", text);
    n->settings.resources_paths.items[0] = outr_str_from(s->dir.path);
    n->settings.resources_paths.count = 1;
    if (outr_snapshot_load(&n->snapshot, &n->settings, NULL, &errors, &warnings))
        FAIL(s, "%s", errors.items[0].text);
}

static node *open_node(stage *s, unsigned i)
{
    node *n = outr_alloc(sizeof *n);
    outr_err err;
    s->nodes[i] = n;
    n->stage = s;
    wire_init(&n->w, s->seed + i);
    wire_sleep(&n->w, s->now - n->w.now);
    n->connect = n->w.env.connect;
    n->w.env.connect = on_connect;
    n->w.on_accept = on_accept;
    n->w.ctx = n;
    outr_list_init(&n->held);
    n->settings = (outr_settings){.app_id = OUTR_STR("app"),
                                  .namespace_ = OUTR_STR("default"),
                                  .app_channel_address = OUTR_STR("127.0.0.1"),
                                  .app_port = 8080,
                                  .read_buffer_bytes = 4096,
                                  .app_health_check = s->has_checks,
                                  .app_health_path = OUTR_STR("/healthz"),
                                  .app_health_interval_ns = 5 * OUTR_SEC,
                                  .app_health_timeout_ns = 500 * OUTR_MS,
                                  .app_health_threshold = 3};
    const outr_http_server_options so = {
        .loop = n->w.loop, .handler = &app_handler, .ctx = n, .allow_h1 = true, .allow_h2 = true};
    n->server = outr_http_server_new(&so);
    n->app_state = outr_app_state_new(&n->settings, 1);
    const outr_app_options ao = {n->w.loop, &n->settings, n->app_state, NULL};
    assert_int_equal(outr_app_new(&n->app, &ao, &err), OUTR_OK);
    n->loops[0] = n->w.loop;
    n->apps[0] = n->app;
    load(n);
    const outr_host_options ho = {.loops = n->loops,
                                  .loop_count = 1,
                                  .settings = &n->settings,
                                  .run_dir = outr_str_from(s->dir.path)};
    n->host = outr_host_new(&ho);
    outr_host_open(n->host, n->snapshot, begin(n));
    finish(n, "opening");
    n->real = broker_of(n)->backend;
    n->backend = *n->real;
    n->backend.publish = publish_or_not;
    broker_of(n)->backend = &n->backend;
    const outr_pubsub_options po = {.loops = n->loops,
                                    .apps = n->apps,
                                    .loop_count = 1,
                                    .settings = &n->settings,
                                    .host = n->host};
    n->pubsub = outr_pubsub_new(&po);
    n->watcher.changed = on_changed;
    outr_app_watch(n->app, &n->watcher);
    outr_pubsub_start(n->pubsub, n->snapshot);
    outr_app_start(n->app);
    n->is_there = true;
    return n;
}

/* ---- time ------------------------------------------------------------------------------------- */

typedef struct barrier {
    outr_op op;
    bool is_over;
} barrier;

static void on_barrier_done(outr_op *op)
{
    OUTR_CONTAINER(op, barrier, op)->is_over = true;
}

/* Until the broker's thread has done all it was given: an empty publish ends behind it. */
static void rest(node *n)
{
    outr_publish nothing = {.topic = OUTR_STR("nothing")};
    barrier b = {.is_over = false};
    wire_run(&n->w);
    if (!is_durable(n->stage) || n->has_stopped)
        return;
    outr_op_init(&b.op, n->w.loop, NULL, 0, on_barrier_done);
    broker_of(n)->backend->publish(broker_of(n), &nothing, &b.op);
    while (!b.is_over) {
        sched_yield();
        wire_run(&n->w);
    }
    wire_run(&n->w);
}

static bool always(stage *s)
{
    (void)s;
    return false;
}

/* Lets time pass on all sidecars that are there, at most step_ns at once where a broker has a
 * thread: it may have something to say. */
static bool until(stage *s, bool (*is_over)(stage *s), uint64_t max_ns)
{
    uint64_t end = s->now + max_ns;
    for (;;) {
        uint64_t next = UINT64_MAX;
        for (int i = 0; i < NODES; i++) {
            node *n = s->nodes[i];
            if (!n || !n->is_there)
                continue;
            rest(n);
            next = OUTR_MIN(next, outr_loop_tick(n->w.loop));
        }
        if (is_over(s))
            return true;
        if (s->now >= end)
            return false;
        uint64_t step_ns = is_durable(s) ? OUTR_SEC : 10 * OUTR_SEC;
        s->now = OUTR_MIN(OUTR_MAX(next, s->now + 1), OUTR_MIN(end, s->now + step_ns));
        for (int i = 0; i < NODES && s->nodes[i]; i++)
            wire_set_now(&s->nodes[i]->w, s->now);
    }
}

static void pass(stage *s, uint64_t ns)
{
    until(s, always, ns);
}

/* ---- a stage ---------------------------------------------------------------------------------- */

static void count_subscription(void *ctx, const outr_subscription_info *info)
{
    (void)info;
    ++*(unsigned *)ctx;
}

static bool is_subscribed(stage *s)
{
    for (int i = 0; i < NODES && s->nodes[i]; i++) {
        unsigned count = 0;
        outr_pubsub_each(s->nodes[i]->pubsub, count_subscription, &count);
        if (count == 0 && s->nodes[i]->is_there)
            return false;
    }
    return true;
}

static void must(stage *s, bool (*is_over)(stage *s), const char *what)
{
    if (until(s, is_over, 3600 * OUTR_SEC))
        return;
    for (size_t i = 0; i < s->count; i++) {
        const fate *f = &s->fates[i];
        print_message("%zu: seen %u, taken %u, dropped %u, buried %u, in hand %u\n", i, f->seen,
                      f->taken, f->dropped, f->buried, f->in_hand);
    }
    FAIL(s, "never: %s", what);
}

static stage *set_up(const char *type, uint64_t seed)
{
    stage *s = outr_alloc(sizeof *s);
    s->seed = seed;
    s->type = type;
    s->now = OUTR_SEC;
    s->component = "";
    s->subscriptions = "[{\"pubsubname\":\"ps\",\"topic\":\"t\",\"route\":\"/t\"}]";
    s->on_event = take;
    outr_rand_seed(&s->rand, seed);
    folder_make(&s->dir);
    return s;
}

/* Opens the first sidecar, waits until it has subscribed. */
static void raise_curtain(stage *s)
{
    open_node(s, 0);
    must(s, is_subscribed, "subscribed");
    pass(s, 1);
}

static void stop(node *n, uint64_t within_ns)
{
    n->settings.graceful_shutdown_ns = within_ns;
    outr_op_init(&n->stop_op, n->w.loop, NULL, 0, on_stopped);
    outr_pubsub_stop(n->pubsub, &n->stop_op);
}

static bool have_stopped(stage *s)
{
    for (int i = 0; i < NODES && s->nodes[i]; i++) {
        if (outr_op_is_pending(&s->nodes[i]->stop_op))
            return false;
    }
    return true;
}

static void close_node(node *n)
{
    broker_of(n)->backend = n->real;
    outr_host_close(n->host, begin(n));
    finish(n, "closing");
    outr_host_free(n->host);
    outr_app_unwatch(&n->watcher);
    outr_app_stop(n->app);
    wire_sleep(&n->w, OUTR_SEC);
    outr_app_free(n->app);
    wire_sleep(&n->w, OUTR_SEC);
    outr_http_server_free(n->server);
    wire_sleep(&n->w, OUTR_SEC);
    if (n->open)
        FAIL(n->stage, "%u exchanges left open", n->open);
    outr_pubsub_free(n->pubsub);
    outr_app_state_free(n->app_state);
    outr_snapshot_unref(n->snapshot);
    wire_done(&n->w);
    free(n);
}

static void fall_curtain(stage *s)
{
    for (int i = 0; i < NODES && s->nodes[i]; i++) {
        node *n = s->nodes[i];
        n->is_there = true;
        n->w.break_per_mille = n->w.refuse_percent = n->w.late_percent = 0;
        if (!n->has_stopped)
            stop(n, 0);
    }
    must(s, have_stopped, "all has stopped");
    for (int i = 0; i < NODES && s->nodes[i]; i++)
        close_node(s->nodes[i]);
    folder_remove(&s->dir);
    free(s);
}

typedef struct publishing {
    outr_op op;
    outr_publish req;
    outr_publish_item item;
    bool is_over;
} publishing;

static void on_published(outr_op *op)
{
    OUTR_CONTAINER(op, publishing, op)->is_over = true;
}

/* The next number, wrapped as the API does it, under so much metadata. */
static void publish(node *n, const outr_kv *metadata, size_t count)
{
    stage *s = n->stage;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_broker *broker = broker_of(n);
    publishing p = {.req = {.topic = OUTR_STR("t"), .items = &p.item, .count = 1}};
    outr_err err;
    assert_true(s->count < MESSAGES_MAX);
    const outr_envelope e = {.pubsub = OUTR_STR("ps"),
                             .topic = OUTR_STR("t"),
                             .app_id = n->settings.app_id,
                             .content_type = OUTR_STR("application/json"),
                             .metadata = {metadata, count},
                             .now_ns = outr_loop_unix_ns(n->w.loop),
                             .broker_expires =
                                 (broker->backend->features(broker) & OUTR_PUBSUB_TTL) != 0,
                             .rand = outr_loop_rand(n->w.loop)};
    p.item.metadata = e.metadata;
    p.item.content_type = e.content_type;
    outr_str data = outr_arena_printf(arena, "{\"n\":%zu}", s->count++);
    if (outr_envelope_wrap(&p.item.data, arena, &e, data, &err))
        FAIL(s, "%s", err.text);
    outr_op_init(&p.op, n->w.loop, NULL, 0, on_published);
    broker->backend->publish(broker, &p.req, &p.op);
    while (!p.is_over) {
        sched_yield();
        wire_run(&n->w);
    }
    if (p.op.err.code)
        FAIL(s, "publishing: %s", p.op.err.text);
    outr_arena_free(arena);
}

static void publish_many(node *n, size_t count)
{
    for (size_t i = 0; i < count; i++)
        publish(n, NULL, 0);
}

static bool are_taken(stage *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->fates[i].taken == 0)
            return false;
    }
    return true;
}

static bool are_seen(stage *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->fates[i].seen == 0)
            return false;
    }
    return true;
}

static void assert_taken_once(stage *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->fates[i].taken != 1)
            FAIL(s, "message %zu was taken %u times", i, s->fates[i].taken);
    }
}

/* run on both brokers, over seeds; fewer where each turn waits for a real file. */
static void over_seeds(void (*run)(const char *type, uint64_t seed), const char *type,
                       uint64_t count)
{
    uint64_t first = 1;
    if (outr_str_to_u64(outr_str_from(getenv("OUTRIGGER_SEED")), UINT64_MAX, &first))
        count = 1;
    for (uint64_t seed = first; seed < first + count; seed++)
        run(type, seed);
}

static void over_brokers(void (*run)(const char *type, uint64_t seed), uint64_t in_memory,
                         uint64_t durable)
{
    over_seeds(run, IN_MEMORY, in_memory);
    over_seeds(run, SQLITE, durable);
}

/* ---- an app that answers in every way --------------------------------------------------------- */

static void take_or_not(visit *v)
{
    stage *s = v->n->stage;
    unsigned how = s->patience > 0 ? dice(s, 12) : 0;
    s->patience -= how > 4;
    if (how < 4)
        take(v);
    else if (how == 4)
        later(v, (1 + dice(s, 30)) * OUTR_SEC, on_late);
    else if (how == 5)
        answer(v, 200, "{\"status\":\"RETRY\"}");
    else if (how == 6)
        answer(v, 500, "no");
    else if (how == 7)
        answer(v, 200, "{\"status\":\"WHATEVER\"}");
    else if (how == 8)
        break_off(v, false);
    else if (how == 9)
        break_off(v, true);
    else if (how == 10)
        answer(v, 301, "");
    else
        later(v, 60 * OUTR_SEC, on_fed_up);
}

static void play_every_answer(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    static const char *const limits[] = {"", "  - {name: maxConcurrency, value: '1'}\n",
                                         "  - {name: maxConcurrency, value: '3'}\n"};
    unsigned limit = (unsigned)(seed % 3);
    char component[256];
    snprintf(component, sizeof component, "%s%s", limits[limit],
             is_durable(s) ? NO_LEASE_ENDS : "");
    s->component = component;
    s->on_event = take_or_not;
    s->patience = 60;
    raise_curtain(s);
    node *n = s->nodes[0];
    bool has_breaks = seed % 2 == 0;
    n->w.piece_max = 1 + dice(s, 400);
    n->w.late_percent = 20;
    n->w.break_per_mille = has_breaks ? 3 : 0;
    n->w.refuse_percent = has_breaks ? 10 : 0;
    for (int i = 0; i < 30; i++) {
        publish(n, NULL, 0);
        n->is_gone = has_breaks && dice(s, 6) == 0;
        if (dice(s, 3) == 0)
            pass(s, dice(s, 5) * OUTR_SEC);
    }
    n->is_gone = false;
    must(s, are_taken, "every message is taken");
    n->w.break_per_mille = n->w.refuse_percent = 0;
    pass(s, 600 * OUTR_SEC);
    unsigned posts = n->posts;
    pass(s, 600 * OUTR_SEC);
    if (n->posts != posts)
        FAIL(s, "something comes again and again");
    if (!has_breaks)
        assert_taken_once(s);
    if (!has_breaks && limit && n->most_parallel != (limit == 1 ? 1 : 3))
        FAIL(s, "%u messages at once with a limit", n->most_parallel);
    fall_curtain(s);
}

static void none_is_lost_whatever_the_app_answers(void **state)
{
    (void)state;
    over_brokers(play_every_answer, 40, 6);
}

/* ---- an app that is unwell, or halted --------------------------------------------------------- */

static void play_unwell(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->component = is_durable(s) ? NO_LEASE_ENDS : "";
    s->has_checks = true;
    raise_curtain(s);
    node *n = s->nodes[0];
    for (int i = 0; i < 20; i++) {
        n->is_unwell = dice(s, 2);
        pass(s, dice(s, 20) * OUTR_SEC);
        publish(n, NULL, 0);
    }
    n->is_unwell = true;
    pass(s, 60 * OUTR_SEC);
    assert_true(n->is_known_unwell);
    publish_many(n, 5);
    pass(s, 60 * OUTR_SEC);
    if (s->fates[24].seen)
        FAIL(s, "an app that is unwell gets messages");
    n->is_unwell = false;
    must(s, are_taken, "every message is taken once the app is well again");
    pass(s, 60 * OUTR_SEC);
    assert_taken_once(s);
    fall_curtain(s);
}

static void an_unwell_app_gets_nothing_and_then_everything(void **state)
{
    (void)state;
    over_brokers(play_unwell, 20, 3);
}

static void play_debugger(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->has_checks = seed % 2 == 0;
    s->component = "  - {name: leaseDuration, value: 15s}\n";
    raise_curtain(s);
    node *n = s->nodes[0];
    halt(n, true);
    publish_many(n, 10);
    must(s, are_seen, "the halted app has them in hand");
    pass(s, 300 * OUTR_SEC);
    publish_many(n, 10);
    pass(s, 300 * OUTR_SEC);
    if (n->posts > 20)
        FAIL(s, "the halted app got %u messages instead of 20", n->posts);
    halt(n, false);
    must(s, are_taken, "every message is taken once the app goes on");
    pass(s, 60 * OUTR_SEC);
    assert_taken_once(s);
    assert_int_equal(n->posts, 20);
    fall_curtain(s);
}

static void pitfall_6_ten_minutes_in_a_debugger_lose_and_repeat_nothing(void **state)
{
    (void)state;
    over_brokers(play_debugger, 4, 2);
}

/* One call that never ends must not keep the others from an app that is well again. */
static void hang_on_the_first(visit *v)
{
    if (v->numbers[0] != 0)
        take(v);
}

static bool are_taken_but_the_first(stage *s)
{
    for (size_t i = 1; i < s->count; i++) {
        if (s->fates[i].taken == 0)
            return false;
    }
    return true;
}

static void play_one_hangs(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->has_checks = true;
    s->component = is_durable(s) ? NO_LEASE_ENDS : "";
    s->on_event = hang_on_the_first;
    raise_curtain(s);
    node *n = s->nodes[0];
    publish(n, NULL, 0);
    must(s, are_seen, "the first is in hand");
    n->is_unwell = true;
    pass(s, 60 * OUTR_SEC);
    assert_true(n->is_known_unwell);
    n->is_unwell = false;
    publish_many(n, 5);
    must(s, are_taken_but_the_first, "the others are taken while one hangs");
    stop(n, 5 * OUTR_SEC);
    must(s, have_stopped, "a stop does not wait for the hanging one");
    fall_curtain(s);
}

static void a_call_that_hangs_keeps_back_nothing_else(void **state)
{
    (void)state;
    over_brokers(play_one_hangs, 1, 1);
}

/* ---- dead letters ----------------------------------------------------------------------------- */

#define WITH_GRAVE                                                                                 \
    "[{\"pubsubname\":\"ps\",\"topic\":\"t\",\"route\":\"/t\",\"deadLetterTopic\":\"dead\"},"      \
    "{\"pubsubname\":\"ps\",\"topic\":\"dead\",\"route\":\"/dead\"}]"

/* Every third is never taken: refused, dropped or broken off. */
static void refuse_each_third(visit *v)
{
    unsigned n = v->numbers[0];
    if (n % 3)
        take(v);
    else if (n % 2)
        answer(v, 200, "{\"status\":\"DROP\"}");
    else if (n % 4)
        answer(v, 500, "");
    else
        break_off(v, false);
}

static bool are_taken_or_buried(stage *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if ((i % 3 ? s->fates[i].taken : s->fates[i].buried) == 0)
            return false;
    }
    return true;
}

static void play_dead_letters(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->component = is_durable(s) ? NO_LEASE_ENDS : "";
    s->subscriptions = WITH_GRAVE;
    s->on_event = refuse_each_third;
    s->grave = seed % 2 ? GRAVE_FAILS : GRAVE_HANGS;
    raise_curtain(s);
    node *n = s->nodes[0];
    n->w.piece_max = 1 + dice(s, 300);
    n->w.late_percent = 20;
    publish_many(n, 24);
    pass(s, (100 + dice(s, 100)) * OUTR_SEC);
    for (size_t i = 0; i < s->count; i += 3) {
        if (s->fates[i].seen < 2)
            FAIL(s, "message %zu is nowhere, it was seen %u times", i, s->fates[i].seen);
    }
    s->grave = GRAVE_OPEN;
    must(s, are_taken_or_buried, "what is refused lies in the dead letter topic");
    pass(s, 600 * OUTR_SEC);
    unsigned posts = n->posts;
    pass(s, 600 * OUTR_SEC);
    if (n->posts != posts || s->burials != 8)
        FAIL(s, "%u posts more, %u burials of 8", n->posts - posts, s->burials);
    fall_curtain(s);
}

static void pitfall_5_what_cannot_be_buried_stays(void **state)
{
    (void)state;
    over_brokers(play_dead_letters, 10, 4);
}

static void play_grave_without_right(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    char component[256];
    snprintf(component, sizeof component, "%s  - {name: publishingScopes, value: app=t}\n",
             is_durable(s) ? NO_LEASE_ENDS : "");
    s->component = component;
    s->subscriptions = WITH_GRAVE;
    s->on_event = refuse_each_third;
    raise_curtain(s);
    publish_many(s->nodes[0], 7);
    pass(s, 100 * OUTR_SEC);
    for (size_t i = 0; i < s->count; i++) {
        const fate *f = &s->fates[i];
        if (i % 3 ? f->taken != 1 : f->seen < 2 || f->buried)
            FAIL(s, "message %zu: seen %u, taken %u, buried %u", i, f->seen, f->taken, f->buried);
    }
    fall_curtain(s);
}

static void pitfall_5_an_app_that_may_not_bury_keeps_the_message(void **state)
{
    (void)state;
    over_brokers(play_grave_without_right, 1, 1);
}

static void drop(visit *v)
{
    v->n->stage->fates[v->numbers[0]].dropped++;
    answer(v, v->numbers[0] % 2 ? 200 : 404, v->numbers[0] % 2 ? "{\"status\":\"DROP\"}" : "");
}

static void play_drops(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->on_event = drop;
    s->component = is_durable(s) ? NO_LEASE_ENDS : "";
    raise_curtain(s);
    publish_many(s->nodes[0], 10);
    pass(s, 600 * OUTR_SEC);
    for (size_t i = 0; i < s->count; i++) {
        if (s->fates[i].dropped != 1)
            FAIL(s, "message %zu came %u times", i, s->fates[i].dropped);
    }
    fall_curtain(s);
}

static void what_the_app_drops_never_comes_again(void **state)
{
    (void)state;
    over_brokers(play_drops, 3, 1);
}

/* ---- time to live, order of a key ------------------------------------------------------------- */

static bool all_have_come_due(stage *s)
{
    for (size_t i = 1; i < s->count; i += 2) {
        if (s->fates[i].taken == 0)
            return false;
    }
    return true;
}

static void play_expiry(const char *type, uint64_t seed)
{
    const outr_kv ttl = {OUTR_STR("ttlInSeconds"), OUTR_STR("90")};
    stage *s = set_up(type, seed);
    s->has_checks = true;
    s->component = is_durable(s) ? NO_LEASE_ENDS : "";
    raise_curtain(s);
    node *n = s->nodes[0];
    n->is_unwell = true;
    pass(s, 60 * OUTR_SEC);
    assert_true(n->is_known_unwell);
    for (int i = 0; i < 20; i++)
        publish(n, i % 2 ? NULL : &ttl, i % 2 ? 0 : 1);
    pass(s, (95 + dice(s, 60)) * OUTR_SEC);
    publish(n, &ttl, 1);
    publish(n, NULL, 0);
    n->is_unwell = false;
    must(s, all_have_come_due, "what has no end of life is taken");
    pass(s, 60 * OUTR_SEC);
    for (size_t i = 0; i < s->count; i++) {
        unsigned want = i % 2 || i == 20;
        if (s->fates[i].seen != want)
            FAIL(s, "message %zu was seen %u times", i, s->fates[i].seen);
    }
    fall_curtain(s);
}

static void what_is_past_its_time_is_not_delivered(void **state)
{
    (void)state;
    over_brokers(play_expiry, 5, 3);
}

enum { KEYS = 3 };

/* Message i has key i % KEYS: none may be seen before the ones of its key before it are taken. */
static void in_order(visit *v)
{
    stage *s = v->n->stage;
    unsigned at = v->numbers[0];
    for (unsigned i = at % KEYS; i < at; i += KEYS) {
        if (!s->fates[i].taken || s->fates[i].in_hand)
            FAIL(s, "message %u came before %u was done", at, i);
    }
    take_or_not(v);
}

static void play_order(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->component = NO_LEASE_ENDS;
    s->on_event = in_order;
    s->patience = 20;
    raise_curtain(s);
    s->nodes[0]->w.late_percent = 20;
    for (int i = 0; i < 24; i++) {
        const char name[] = {(char)('a' + i % KEYS), 0};
        const outr_kv key = {OUTR_STR("partitionKey"), outr_str_from(name)};
        publish(s->nodes[0], &key, 1);
    }
    must(s, are_taken, "every message is taken");
    pass(s, 60 * OUTR_SEC);
    assert_taken_once(s);
    fall_curtain(s);
}

static void messages_of_one_key_are_taken_in_order(void **state)
{
    (void)state;
    over_seeds(play_order, SQLITE, 6);
}

/* ---- many at once ----------------------------------------------------------------------------- */

static void take_some(visit *v)
{
    static const char *const words[] = {"RETRY", "", "NONSENSE", "SUCCESS", "DROP"};
    stage *s = v->n->stage;
    OUTR_AUTO(outr_buf) body = OUTR_BUF_MAX(OUTR_MIB);
    if (s->patience > 0 && dice(s, 5) == 0) {
        s->patience--;
        if (dice(s, 2))
            answer(v, 500, "");
        else
            answer(v, 200, "{\"statuses\":");
        return;
    }
    outr_buf_z(&body, "{\"statuses\":[");
    bool is_first = true;
    for (size_t i = 0; i < v->count; i++) {
        unsigned how = s->patience > 0 ? dice(s, 6) : 3;
        fate *f = &s->fates[v->numbers[i]];
        s->patience -= how != 3 && s->patience > 0;
        if (how == 5)
            continue; /* not a word about it */
        f->taken += how == 3;
        f->dropped += how == 4;
        outr_buf_printf(&body, "%s{\"entryId\":\"%s\",\"status\":\"%s\"}", is_first ? "" : ",",
                        v->ids[i], words[how]);
        is_first = false;
    }
    outr_buf_z(&body, "]}");
    outr_buf_char(&body, 0);
    answer(v, 200, body.p);
}

static bool are_taken_or_dropped(stage *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->fates[i].taken + s->fates[i].dropped == 0)
            return false;
    }
    return true;
}

static void play_bulk(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->component = is_durable(s) ? NO_LEASE_ENDS : "";
    s->subscriptions = "[{\"pubsubname\":\"ps\",\"topic\":\"t\",\"route\":\"/t\",\"bulkSubscribe\":"
                       "{\"enabled\":true,\"maxMessagesCount\":7,\"maxAwaitDurationMs\":500}}]";
    s->on_event = take_some;
    s->patience = 40;
    raise_curtain(s);
    node *n = s->nodes[0];
    n->w.piece_max = 1 + dice(s, 1000);
    n->w.late_percent = 20;
    for (int i = 0; i < 40; i++) {
        publish(n, NULL, 0);
        if (dice(s, 4) == 0)
            pass(s, dice(s, 1000) * OUTR_MS);
    }
    must(s, are_taken_or_dropped, "every message has an outcome of its own");
    pass(s, 600 * OUTR_SEC);
    for (size_t i = 0; i < s->count; i++) {
        if (s->fates[i].taken + s->fates[i].dropped != 1)
            FAIL(s, "message %zu: taken %u, dropped %u", i, s->fates[i].taken, s->fates[i].dropped);
    }
    if (n->posts >= s->count * 2)
        FAIL(s, "%u posts are no batches", n->posts);
    fall_curtain(s);
}

static void of_many_at_once_each_has_its_own_outcome(void **state)
{
    (void)state;
    over_brokers(play_bulk, 20, 4);
}

/* What has gathered for a batch when the app turns unwell, or the sidecar stops, is not sent. */
static void play_gathered(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->has_checks = true;
    s->component = is_durable(s) ? NO_LEASE_ENDS : "";
    s->subscriptions = "[{\"pubsubname\":\"ps\",\"topic\":\"t\",\"route\":\"/t\",\"bulkSubscribe\":"
                       "{\"enabled\":true,\"maxMessagesCount\":10,\"maxAwaitDurationMs\":60000}}]";
    s->on_event = take_some;
    raise_curtain(s);
    node *n = s->nodes[0];
    publish_many(n, 5);
    n->is_unwell = true;
    pass(s, 100 * OUTR_SEC);
    assert_true(n->is_known_unwell);
    assert_int_equal(n->posts, 0);
    publish_many(n, 5);
    n->is_unwell = false;
    must(s, are_taken, "the batch is taken when the app is well again");
    publish_many(n, 5);
    pass(s, OUTR_SEC);
    unsigned posts = n->posts;
    stop(n, 30 * OUTR_SEC);
    must(s, have_stopped, "it stops");
    assert_int_equal(n->posts, posts);
    fall_curtain(s);
}

static void a_batch_in_the_making_goes_back_to_the_broker(void **state)
{
    (void)state;
    over_brokers(play_gathered, 1, 1);
}

/* ---- two sidecars ----------------------------------------------------------------------------- */

/* The first app keeps all it gets; the second takes. */
static void first_keeps(visit *v)
{
    if (v->n != v->n->stage->nodes[0])
        take(v);
}

/* The first sidecar stands still with messages in hand, the second takes them over when the lease
 * is over. The first wakes up again and answers for what is no longer its own. */
static void play_takeover(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->component = "  - {name: leaseDuration, value: 600s}\n";
    raise_curtain(s);
    node *first = s->nodes[0];
    halt(first, true);
    publish_many(first, 10);
    must(s, are_seen, "the first has them in hand");
    if (seed % 2)
        pass(s, 1000 * OUTR_SEC); /* it renews */
    open_node(s, 1);
    must(s, is_subscribed, "the second has subscribed");
    first->is_there = false;
    uint64_t frozen_at = s->now;
    publish_many(s->nodes[1], 10);
    pass(s, 300 * OUTR_SEC);
    for (size_t i = 0; i < 10; i++) {
        if (s->fates[i].taken)
            FAIL(s, "message %zu was taken over before its lease was over", i);
    }
    must(s, are_taken, "the second takes over");
    if (s->now - frozen_at > 700 * OUTR_SEC)
        FAIL(s, "it took %llu s", (unsigned long long)((s->now - frozen_at) / OUTR_SEC));
    publish_many(s->nodes[1], 5);
    must(s, are_taken, "the second goes on");
    first->is_there = true;
    halt(first, false);
    pass(s, 1500 * OUTR_SEC);
    unsigned posts = first->posts + s->nodes[1]->posts;
    for (size_t i = 0; i < s->count; i++) {
        if (s->fates[i].taken > (i < 10 ? 2 : 1))
            FAIL(s, "message %zu was taken %u times", i, s->fates[i].taken);
    }
    publish_many(first, 5);
    must(s, are_taken, "both go on");
    pass(s, 60 * OUTR_SEC);
    assert_int_equal(first->posts + s->nodes[1]->posts, posts + 5);
    fall_curtain(s);
}

static void a_dead_consumers_messages_are_taken_over(void **state)
{
    (void)state;
    over_seeds(play_takeover, SQLITE, 4);
}

/* The first stops with messages in hand: at once they are somebody else's. */
static void play_leaving(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->component = NO_LEASE_ENDS;
    s->on_event = first_keeps;
    raise_curtain(s);
    node *first = s->nodes[0];
    publish_many(first, 10);
    must(s, are_seen, "the first has them in hand");
    open_node(s, 1);
    must(s, is_subscribed, "the second has subscribed");
    stop(first, 10 * OUTR_SEC);
    uint64_t began = s->now;
    must(s, have_stopped, "the first ends");
    if (s->now - began > 11 * OUTR_SEC)
        FAIL(s, "stopping took %llu s", (unsigned long long)((s->now - began) / OUTR_SEC));
    must(s, are_taken, "the second has them");
    if (s->now - began > 12 * OUTR_SEC)
        FAIL(s, "the next had to wait %llu s", (unsigned long long)((s->now - began) / OUTR_SEC));
    pass(s, 60 * OUTR_SEC);
    assert_taken_once(s);
    fall_curtain(s);
}

static void pitfall_4_who_stops_gives_back_what_he_has_in_hand(void **state)
{
    (void)state;
    over_seeds(play_leaving, SQLITE, 3);
}

static void soon(visit *v)
{
    later(v, 3 * OUTR_SEC, on_late);
}

static void on_drop(outr_timer *timer)
{
    answer(OUTR_CONTAINER(timer, visit, timer), 200, "{\"status\":\"DROP\"}");
}

static void drop_soon(visit *v)
{
    later(v, 3 * OUTR_SEC, on_drop);
}

/* What the app answers while its sidecar stops still counts. */
static void play_last_answers(const char *type, uint64_t seed)
{
    stage *s = set_up(type, seed);
    s->component = is_durable(s) ? NO_LEASE_ENDS : "";
    s->subscriptions = WITH_GRAVE;
    s->on_event = seed % 2 ? soon : drop_soon;
    raise_curtain(s);
    node *n = s->nodes[0];
    publish_many(n, 10);
    must(s, are_seen, "the app has them in hand");
    stop(n, 10 * OUTR_SEC);
    must(s, have_stopped, "it ends");
    assert_int_equal(n->posts, 10);
    if (seed % 2)
        assert_taken_once(s);
    else
        assert_int_equal(s->burials, 10);
    if (is_durable(s)) { /* and the next sidecar finds none of them */
        n->is_there = false;
        open_node(s, 1);
        must(s, is_subscribed, "the second has subscribed");
        pass(s, 60 * OUTR_SEC);
        for (size_t i = 0; i < s->count; i++)
            assert_int_equal(s->fates[i].seen, 1);
    }
    fall_curtain(s);
}

static void pitfall_4_the_last_answers_count(void **state)
{
    (void)state;
    over_brokers(play_last_answers, 2, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_is_lost_whatever_the_app_answers),
        cmocka_unit_test(an_unwell_app_gets_nothing_and_then_everything),
        cmocka_unit_test(pitfall_6_ten_minutes_in_a_debugger_lose_and_repeat_nothing),
        cmocka_unit_test(a_call_that_hangs_keeps_back_nothing_else),
        cmocka_unit_test(pitfall_5_what_cannot_be_buried_stays),
        cmocka_unit_test(pitfall_5_an_app_that_may_not_bury_keeps_the_message),
        cmocka_unit_test(what_the_app_drops_never_comes_again),
        cmocka_unit_test(what_is_past_its_time_is_not_delivered),
        cmocka_unit_test(messages_of_one_key_are_taken_in_order),
        cmocka_unit_test(of_many_at_once_each_has_its_own_outcome),
        cmocka_unit_test(a_batch_in_the_making_goes_back_to_the_broker),
        cmocka_unit_test(a_dead_consumers_messages_are_taken_over),
        cmocka_unit_test(pitfall_4_who_stops_gives_back_what_he_has_in_hand),
        cmocka_unit_test(pitfall_4_the_last_answers_count),
    };
    cmocka_set_test_filter(getenv("OUTRIGGER_TEST")); /* a pattern: only these */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
