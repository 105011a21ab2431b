#include "blocks/pubsub/pubsub.h"

#include <pthread.h>

#include "base/json.h"
#include "blocks/pubsub/subscription.h"

#define ASK_AGAIN_NS (500 * OUTR_MS)
#define SET_ARENA    (16 * OUTR_MIB)

/* The subscriptions of one moment: made together, ended together. */
typedef struct set {
    struct outr_pubsub *engine;
    outr_arena *arena;
    outr_snapshot *snapshot;
    outr_subscription *subs;
    struct visit {
        outr_message start, message; /* the start may still be on its way when the end is sent */
        outr_subscription *sub;
    } * visits;
    size_t count, pending;
} set;

struct outr_pubsub {
    outr_pubsub_options o;
    outr_snapshot *snapshot;
    outr_app_watcher watcher;
    set *set; /* running or ending */
    /* Programmatic subscriptions, asked for once */
    outr_arena *asked_arena;
    outr_subscription_spec *asked;
    size_t asked_count;
    outr_app_fetch fetch;
    outr_op op;
    outr_timer again;
    outr_op *stopping;
    bool is_asked, is_started, is_ending_set, is_stopped, is_paused;
    /* A lock: metadata is read on every loop, the set changes on the main one. */
    pthread_mutex_t lock;
};

static outr_loop *main_loop(const outr_pubsub *p)
{
    return p->o.loops[0];
}

static void reconcile(outr_pubsub *p);

/* ---- what the app wants ---------------------------------------------------------------------- */

static outr_kvs read_kvs(outr_arena *arena, const outr_json *object)
{
    size_t n = 0;
    if (!object || object->kind != OUTR_JSON_OBJECT)
        return (outr_kvs){0};
    outr_kv *items = outr_arena_alloc(arena, (object->count + 1) * sizeof *items);
    for (const outr_json *m = object->child; m; m = m->next)
        items[n++] = (outr_kv){m->key, m->kind == OUTR_JSON_STRING ? m->text : m->raw};
    return (outr_kvs){items, n};
}

/* One item of GET /dapr/subscribe; false: it has no route at all. */
static bool read_asked(outr_arena *arena, const outr_json *item, outr_subscription_spec *out)
{
    const outr_json *routes = outr_json_ifind(item, "routes"),
                    *rules = outr_json_ifind(routes, "rules"),
                    *bulk = outr_json_ifind(item, "bulkSubscribe");
    outr_str otherwise = outr_json_text(routes, "default"), route = outr_json_text(item, "route");
    outr_subscription_rule *list =
        outr_arena_alloc(arena, ((rules ? rules->count : 0) + 1) * sizeof *list);
    *out = (outr_subscription_spec){
        .pubsub = outr_json_text(item, "pubsubname"),
        .topic = outr_json_text(item, "topic"),
        .dead_letter_topic = outr_json_text(item, "deadLetterTopic"),
        .metadata = read_kvs(arena, outr_json_ifind(item, "metadata")),
        .rules = list,
        .bulk_max_messages = 100,
        .bulk_max_await_ms = 1000,
    };
    for (const outr_json *rule = rules ? rules->child : NULL; rule; rule = rule->next) {
        outr_str path = outr_json_text(rule, "path");
        if (path.n)
            list[out->rule_count++] = (outr_subscription_rule){outr_json_text(rule, "match"), path};
    }
    if (otherwise.n || route.n)
        list[out->rule_count++].path = otherwise.n ? otherwise : route;
    if (bulk) {
        out->is_bulk = outr_json_bool(bulk, "enabled", false);
        outr_json_i64(outr_json_find(bulk, "maxMessagesCount"), &out->bulk_max_messages);
        outr_json_i64(outr_json_find(bulk, "maxAwaitDurationMs"), &out->bulk_max_await_ms);
    }
    return out->rule_count > 0 && out->topic.n > 0 && out->pubsub.n > 0;
}

static void take_answer(outr_pubsub *p)
{
    outr_json *root;
    outr_err err;
    if (p->fetch.status == 404)
        return;
    if (p->fetch.status != 200) {
        OUTR_LOG(p->o.log, WARN,
                 "the app answered /dapr/subscribe with an error, no subscriptions are taken",
                 OUTR_I("status", p->fetch.status));
        return;
    }
    if (p->fetch.answer.n == 0)
        return;
    outr_code rc = outr_json_parse(&root, p->asked_arena, p->fetch.answer, &err);
    if (!rc && root->kind != OUTR_JSON_ARRAY && root->kind != OUTR_JSON_NULL)
        rc = outr_fail(&err, OUTR_INVALID_ARGUMENT, "a list is expected");
    if (rc) {
        OUTR_LOG(p->o.log, ERROR, "the app's answer to /dapr/subscribe cannot be read",
                 OUTR_ERR(&err));
        return;
    }
    p->asked = outr_arena_alloc(p->asked_arena, (root->count + 1) * sizeof *p->asked);
    for (const outr_json *item = root->child; item; item = item->next) {
        if (read_asked(p->asked_arena, item, &p->asked[p->asked_count]))
            p->asked_count++;
        else
            OUTR_LOG(p->o.log, WARN, "a subscription without topic or route is left out",
                     OUTR_S("topic", outr_json_text(item, "topic")));
    }
}

static void ask(outr_pubsub *p);

static void on_again(outr_timer *timer)
{
    outr_pubsub *p = OUTR_CONTAINER(timer, outr_pubsub, again);
    if (!p->is_stopped)
        ask(p);
}

static void on_asked(outr_op *op)
{
    outr_pubsub *p = OUTR_CONTAINER(op, outr_pubsub, op);
    if (op->err.code) {
        if (!p->is_stopped)
            outr_timer_start(main_loop(p), &p->again, outr_loop_now(main_loop(p)) + ASK_AGAIN_NS);
        return;
    }
    take_answer(p);
    p->is_asked = true;
    reconcile(p);
}

static void ask(outr_pubsub *p)
{
    outr_arena_free(p->asked_arena);
    p->asked_arena = outr_arena_new(SET_ARENA);
    p->asked_count = 0;
    p->fetch = (outr_app_fetch){.method = OUTR_STR("GET"),
                                .target = OUTR_STR("/dapr/subscribe"),
                                .call = {.skip_limit = true}};
    outr_headers_init(&p->fetch.headers, p->asked_arena);
    outr_headers_add(&p->fetch.headers, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
    outr_headers_add(&p->fetch.headers, OUTR_STR("Dapr-App-Id"), p->o.settings->app_id);
    outr_op_init(&p->op, main_loop(p), NULL, 0, on_asked);
    outr_app_fetch_start(p->o.apps[0], &p->fetch, &p->op);
}

/* ---- sets ------------------------------------------------------------------------------------ */

static void on_sub_left(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    set *s = OUTR_CONTAINER(message, struct visit, message)->sub->set;
    outr_pubsub *p = s->engine;
    if (--s->pending > 0)
        return;
    pthread_mutex_lock(&p->lock);
    p->set = NULL;
    pthread_mutex_unlock(&p->lock);
    p->is_ending_set = false;
    outr_snapshot_unref(s->snapshot);
    free(s->visits);
    outr_arena_free(s->arena);
    if (p->stopping) {
        outr_op *op = p->stopping;
        p->stopping = NULL;
        outr_op_finish(op);
        return;
    }
    reconcile(p);
}

static struct visit *visit_of(outr_subscription *sub)
{
    set *s = sub->set;
    return &s->visits[sub - s->subs];
}

static void on_ended(outr_subscription *sub)
{
    struct visit *v = visit_of(sub);
    v->message.run = on_sub_left;
    outr_loop_post(main_loop(((set *)sub->set)->engine), &v->message);
}

static void on_start(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_subscription_start(OUTR_CONTAINER(message, struct visit, start)->sub);
}

static void on_end(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_subscription_end(OUTR_CONTAINER(message, struct visit, message)->sub);
}

static bool is_same(const outr_subscription_spec *a, const outr_subscription_spec *b)
{
    return outr_str_eq(a->pubsub, b->pubsub) && outr_str_eq(a->topic, b->topic);
}

/* The first declarative wins among declaratives, a programmatic one over them, the last of those.
 */
static void add_spec(set *s, const outr_subscription_spec *spec, int type)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!is_same(&s->subs[i].spec, spec))
            continue;
        if (type == OUTR_SUB_PROGRAMMATIC) {
            s->subs[i].spec = *spec;
            s->subs[i].type = type;
        }
        return;
    }
    s->subs[s->count].spec = *spec;
    s->subs[s->count++].type = type;
}

static void prepare_sub(outr_pubsub *p, set *s, size_t i)
{
    outr_subscription *sub = &s->subs[i];
    size_t loop = i % p->o.loop_count;
    outr_err err;
    sub->settings = p->o.settings;
    sub->log = p->o.log;
    sub->loop = p->o.loops[loop];
    sub->app = p->o.apps[loop];
    sub->host = p->o.host;
    sub->is_paused = p->is_paused;
    sub->ended = on_ended;
    sub->set = s;
    if (outr_subscription_prepare(sub, s->arena, &err)) {
        OUTR_LOG(p->o.log, ERROR, "a subscription is left out", OUTR_ERR(&err));
        sub->spec.topic = OUTR_STR("");
    }
}

static void start_set(outr_pubsub *p)
{
    outr_arena *arena = outr_arena_new(SET_ARENA);
    set *s = outr_arena_alloc(arena, sizeof *s);
    size_t max = p->snapshot->subscription_count + p->asked_count;
    *s = (set){.engine = p, .arena = arena, .snapshot = outr_snapshot_ref(p->snapshot)};
    s->subs = outr_arena_alloc(arena, (max + 1) * sizeof *s->subs);
    for (size_t i = 0; i < p->snapshot->subscription_count; i++)
        add_spec(s, &p->snapshot->subscriptions[i], OUTR_SUB_DECLARATIVE);
    for (size_t i = 0; i < p->asked_count; i++)
        add_spec(s, &p->asked[i], OUTR_SUB_PROGRAMMATIC);
    if (s->count == 0) {
        outr_snapshot_unref(s->snapshot);
        outr_arena_free(arena);
        return;
    }
    for (size_t i = 0; i < s->count; i++)
        prepare_sub(p, s, i);
    s->visits = outr_alloc(s->count * sizeof *s->visits);
    pthread_mutex_lock(&p->lock);
    p->set = s;
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < s->count; i++) {
        s->visits[i].sub = &s->subs[i];
        s->visits[i].start.run = on_start;
        outr_loop_post(s->subs[i].loop, &s->visits[i].start);
    }
}

static void end_set(outr_pubsub *p)
{
    set *s = p->set;
    p->is_ending_set = true;
    s->pending = s->count;
    for (size_t i = 0; i < s->count; i++) {
        s->visits[i].message.run = on_end;
        outr_loop_post(s->subs[i].loop, &s->visits[i].message);
    }
}

/* Brings what runs in line with what should: subscriptions run while the app is up and well. */
static void reconcile(outr_pubsub *p)
{
    bool should_run =
        p->is_started && !p->is_stopped && !p->is_paused && outr_app_is_healthy(p->o.apps[0]);
    if (p->is_ending_set || outr_op_is_pending(&p->op))
        return;
    if (!should_run) {
        if (p->set)
            end_set(p);
        return;
    }
    if (p->set)
        return;
    outr_view *view = outr_host_pin(p->o.host, main_loop(p));
    bool has_brokers = outr_view_count(view, OUTR_KIND_PUBSUB) > 0;
    outr_view_unpin(view);
    if (!has_brokers)
        return;
    if (!p->is_asked && !p->o.settings->skip_app_subscribe) {
        ask(p);
        return;
    }
    start_set(p);
}

/* ---- the engine ------------------------------------------------------------------------------ */

static void on_app_changed(outr_app_watcher *watcher, bool is_up OUTR_UNUSED,
                           bool is_healthy OUTR_UNUSED)
{
    reconcile(OUTR_CONTAINER(watcher, outr_pubsub, watcher));
}

outr_pubsub *outr_pubsub_new(const outr_pubsub_options *options)
{
    outr_pubsub *p = outr_alloc(sizeof *p);
    p->o = *options;
    p->again.fire = on_again;
    p->watcher.changed = on_app_changed;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void outr_pubsub_start(outr_pubsub *p, const outr_snapshot *snapshot)
{
    p->snapshot = outr_snapshot_ref(snapshot);
    p->is_started = true;
    if (outr_app_is_configured(p->o.apps[0]))
        outr_app_watch(p->o.apps[0], &p->watcher);
}

void outr_pubsub_update(outr_pubsub *p, const outr_snapshot *snapshot)
{
    outr_snapshot *before = p->snapshot;
    p->snapshot = outr_snapshot_ref(snapshot);
    outr_snapshot_unref(before);
    if (p->set && !p->is_ending_set)
        end_set(p); /* a new set starts when it has ended */
    else
        reconcile(p);
}

void outr_pubsub_stop(outr_pubsub *p, outr_op *op)
{
    p->is_stopped = true;
    outr_timer_stop(main_loop(p), &p->again);
    outr_app_unwatch(&p->watcher);
    outr_op_begin(op, p, NULL);
    if (outr_op_is_pending(&p->op))
        outr_op_cancel(&p->op, OUTR_CANCELLED);
    if (!p->set) {
        outr_op_finish_soon(op);
        return;
    }
    p->stopping = op;
    if (!p->is_ending_set)
        end_set(p);
}

void outr_pubsub_free(outr_pubsub *p)
{
    if (!p)
        return;
    outr_snapshot_unref(p->snapshot);
    outr_arena_free(p->asked_arena);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void outr_pubsub_each(outr_pubsub *p, void (*fn)(void *ctx, const outr_subscription_info *info),
                      void *ctx)
{
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; p->set && i < p->set->count; i++) {
        const outr_subscription *s = &p->set->subs[i];
        const outr_subscription_info info = {
            .pubsub = s->spec.pubsub,
            .topic = s->spec.topic,
            .dead_letter_topic = s->spec.dead_letter_topic,
            .metadata = s->spec.metadata,
            .rules = s->spec.rules,
            .rule_count = s->spec.rule_count,
            .type = s->type,
        };
        if (s->spec.topic.n)
            fn(ctx, &info);
    }
    pthread_mutex_unlock(&p->lock);
}
