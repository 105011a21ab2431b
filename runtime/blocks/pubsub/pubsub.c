#include "blocks/pubsub/pubsub.h"

#include <pthread.h>

#include "blocks/pubsub/asked.h"
#include "blocks/pubsub/engine.h"

#define ASK_AGAIN_NS (500 * OUTR_MS)
#define SET_ARENA    (16 * OUTR_MIB)

/* The subscriptions of one moment: made together, ended together. */
typedef struct set {
    struct outr_pubsub *engine;
    outr_arena *arena;
    outr_snapshot *snapshot;
    outr_subscription *subs;
    struct visit {
        /* Each may still be on its way when the next is sent. */
        outr_message start, pause, message, hurry, hurried;
        uint8_t pause_posted; /* atomic */
        outr_subscription *sub;
        uint64_t patience_ns, hurry_ns;
    } * visits;
    size_t count, pending;
} set;

/* The streams of one loop. */
typedef struct lane {
    outr_pubsub *engine;
    outr_list streams; /* changed on its loop, under the lock */
    size_t places;     /* under the lock */
    outr_message stop, left, update;
    bool is_stopping;     /* under the lock */
    uint8_t update_posted; /* atomic */
} lane;

struct outr_pubsub {
    outr_pubsub_options o;
    lane *lanes;            /* one per loop */
    size_t lanes_stopping; /* main loop */
    outr_snapshot *snapshot;
    outr_app_watcher watcher;
    set *set; /* running or ending */
    outr__asked asked; /* programmatic subscriptions, asked for once */
    outr_op op;
    outr_timer again;
    outr_op *stopping;
    bool is_asked, has_asked_in_vain, is_started, is_ending_set, is_stopped;
    /* A lock: metadata is read on every loop, the set changes on the main one, streams on theirs.
     */
    pthread_mutex_t lock;
    bool takes_streams; /* under the lock */
};

static outr_loop *main_loop(const outr_pubsub *p)
{
    return p->o.loops[0];
}

static void reconcile(outr_pubsub *p);

/* ---- what the app wants ---------------------------------------------------------------------- */

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
        if (p->is_stopped)
            return;
        if (!p->has_asked_in_vain)
            OUTR_LOG(p->o.log, WARN, "the app could not be asked for subscriptions, trying on",
                     OUTR_ERR(&op->err));
        p->has_asked_in_vain = true;
        outr_timer_start(main_loop(p), &p->again, outr_loop_now(main_loop(p)) + ASK_AGAIN_NS);
        return;
    }
    p->is_asked = true;
    reconcile(p);
}

static void ask(outr_pubsub *p)
{
    p->asked.app = p->o.apps[0];
    p->asked.loop = main_loop(p);
    p->asked.log = p->o.log;
    outr_op_init(&p->op, main_loop(p), NULL, 0, on_asked);
    outr__asked_start(&p->asked, &p->op);
}

/* ---- streams --------------------------------------------------------------------------------- */

static lane *lane_of(const outr_pubsub *p, const outr_loop *loop)
{
    return &p->lanes[outr_loop_index(loop)];
}

bool outr__engine_take_place(outr_pubsub *p, const outr_loop *loop)
{
    pthread_mutex_lock(&p->lock);
    bool takes = p->takes_streams;
    lane_of(p, loop)->places += takes;
    pthread_mutex_unlock(&p->lock);
    return takes;
}

static void end_stop_if_over(outr_pubsub *p)
{
    outr_op *op = p->stopping;
    if (!op || p->set || p->lanes_stopping > 0)
        return;
    p->stopping = NULL;
    outr_op_finish_soon(op);
}

static void on_lane_left(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_pubsub *p = OUTR_CONTAINER(message, lane, left)->engine;
    p->lanes_stopping--;
    end_stop_if_over(p);
}

void outr__engine_leave_place(outr_pubsub *p, const outr_loop *loop)
{
    lane *l = lane_of(p, loop);
    pthread_mutex_lock(&p->lock);
    bool is_last = --l->places == 0 && l->is_stopping;
    pthread_mutex_unlock(&p->lock);
    if (is_last)
        outr_loop_post(main_loop(p), &l->left);
}

/* sub->loop is set. */
void outr__engine_equip(outr_pubsub *p, outr_subscription *sub)
{
    sub->trace = p->o.trace;
    if (p->o.tracers)
        sub->trace.tracer = p->o.tracers[outr_loop_index(sub->loop)];
    sub->settings = p->o.settings;
    sub->log = p->o.log;
    sub->host = p->o.host;
}

void outr__engine_list(outr_event_stream *stream)
{
    outr_pubsub *p = stream->engine;
    pthread_mutex_lock(&p->lock);
    outr_list_push(&lane_of(p, stream->loop)->streams, &stream->link);
    pthread_mutex_unlock(&p->lock);
}

void outr__engine_unlist(outr_event_stream *stream)
{
    pthread_mutex_lock(&stream->engine->lock);
    outr_link_remove(&stream->link);
    pthread_mutex_unlock(&stream->engine->lock);
}

static void on_lane_stop(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    lane *l = OUTR_CONTAINER(message, lane, stop);
    outr__streams_stop(&l->streams);
}

static void on_lane_update(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    lane *l = OUTR_CONTAINER(message, lane, update);
    __atomic_store_n(&l->update_posted, 0, __ATOMIC_RELEASE);
    outr__streams_update(&l->streams);
}

/* A lane without streams may have no loop that runs. */
static void stop_streams(outr_pubsub *p)
{
    pthread_mutex_lock(&p->lock);
    p->takes_streams = false;
    for (size_t i = 0; i < p->o.loop_count; i++) {
        lane *l = &p->lanes[i];
        if (l->places == 0)
            continue;
        l->is_stopping = true;
        p->lanes_stopping++;
        outr_loop_post(p->o.loops[i], &l->stop);
    }
    pthread_mutex_unlock(&p->lock);
}

static void update_streams(outr_pubsub *p)
{
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->o.loop_count; i++) {
        lane *l = &p->lanes[i];
        if (l->places > 0 && __atomic_exchange_n(&l->update_posted, 1, __ATOMIC_ACQ_REL) == 0)
            outr_loop_post(p->o.loops[i], &l->update);
    }
    pthread_mutex_unlock(&p->lock);
}

/* ---- sets ------------------------------------------------------------------------------------ */

/* One of those that were sent out has come back; with the last the set is gone. */
static void count_back(set *s)
{
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
    if (p->stopping)
        end_stop_if_over(p);
    else
        reconcile(p);
}

static void on_sub_left(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    count_back(OUTR_CONTAINER(message, struct visit, message)->sub->set);
}

static void on_hurried(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    count_back(OUTR_CONTAINER(message, struct visit, hurried)->sub->set);
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
    outr_subscription *sub = OUTR_CONTAINER(message, struct visit, start)->sub;
    outr_err err;
    if (outr_subscription_start(sub, &err))
        OUTR_LOG(sub->log, ERROR, "subscribing failed", OUTR_S("pubsub", sub->spec.pubsub),
                 OUTR_S("topic", sub->spec.topic), OUTR_ERR(&err));
}

static void on_end(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    struct visit *v = OUTR_CONTAINER(message, struct visit, message);
    outr_subscription_end(v->sub, v->patience_ns);
}

static void on_hurry(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    struct visit *v = OUTR_CONTAINER(message, struct visit, hurry);
    outr_subscription_end(v->sub, v->hurry_ns);
    outr_loop_post(main_loop(((set *)v->sub->set)->engine), &v->hurried);
}

/* On the subscription's loop: as the app is by now. */
static void on_pause(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    struct visit *v = OUTR_CONTAINER(message, struct visit, pause);
    __atomic_store_n(&v->pause_posted, 0, __ATOMIC_RELEASE);
    outr_subscription_pause(v->sub, !outr_app_is_healthy(v->sub->app));
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
    sub->loop = p->o.loops[loop];
    sub->app = p->o.apps[loop];
    outr__engine_equip(p, sub);
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
    size_t max = p->snapshot->subscription_count + p->asked.count;
    *s = (set){.engine = p, .arena = arena, .snapshot = outr_snapshot_ref(p->snapshot)};
    s->subs = outr_arena_alloc(arena, (max + 1) * sizeof *s->subs);
    for (size_t i = 0; i < p->snapshot->subscription_count; i++)
        add_spec(s, &p->snapshot->subscriptions[i], OUTR_SUB_DECLARATIVE);
    for (size_t i = 0; i < p->asked.count; i++)
        add_spec(s, &p->asked.specs[i], OUTR_SUB_PROGRAMMATIC);
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

/* patience_ns: for deliveries in progress, 0: whatever the app takes. */
static void end_set(outr_pubsub *p, uint64_t patience_ns)
{
    set *s = p->set;
    p->is_ending_set = true;
    s->pending = s->count;
    for (size_t i = 0; i < s->count; i++) {
        s->visits[i].patience_ns = patience_ns;
        s->visits[i].message.run = on_end;
        outr_loop_post(s->subs[i].loop, &s->visits[i].message);
    }
}

/* A set that is ending already is to end within patience_ns. */
static void hurry_set(outr_pubsub *p, uint64_t patience_ns)
{
    set *s = p->set;
    s->pending += s->count;
    for (size_t i = 0; i < s->count; i++) {
        struct visit *v = &s->visits[i];
        v->hurry_ns = patience_ns;
        v->hurry.run = on_hurry;
        v->hurried.run = on_hurried;
        outr_loop_post(s->subs[i].loop, &v->hurry);
    }
}

static void tell_set(outr_pubsub *p)
{
    set *s = p->set;
    for (size_t i = 0; i < s->count; i++) {
        struct visit *v = &s->visits[i];
        v->pause.run = on_pause;
        if (__atomic_exchange_n(&v->pause_posted, 1, __ATOMIC_ACQ_REL) == 0)
            outr_loop_post(s->subs[i].loop, &v->pause);
    }
}

/* Brings what runs in line with what should: subscriptions begin once the app is up and well, and
 * pause while it is not. They stay, so that the broker keeps what comes meanwhile. */
static void reconcile(outr_pubsub *p)
{
    if (p->is_ending_set || outr_op_is_pending(&p->op) || !p->is_started || p->is_stopped)
        return;
    if (p->set) {
        tell_set(p);
        return;
    }
    if (!outr_app_is_healthy(p->o.apps[0]))
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
    p->takes_streams = true;
    p->lanes = outr_alloc(p->o.loop_count * sizeof *p->lanes);
    for (size_t i = 0; i < p->o.loop_count; i++) {
        lane *l = &p->lanes[i];
        l->engine = p;
        outr_list_init(&l->streams);
        l->stop.run = on_lane_stop;
        l->left.run = on_lane_left;
        l->update.run = on_lane_update;
    }
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
    update_streams(p);
    if (p->set && !p->is_ending_set)
        end_set(p, 0); /* a new set starts when it has ended */
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
    p->stopping = op;
    stop_streams(p);
    if (p->set)
        (p->is_ending_set ? hurry_set : end_set)(p, p->o.settings->graceful_shutdown_ns);
    end_stop_if_over(p);
}

void outr_pubsub_free(outr_pubsub *p)
{
    if (!p)
        return;
    outr_snapshot_unref(p->snapshot);
    outr__asked_done(&p->asked);
    free(p->lanes);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void tell(const outr_subscription *s,
                 void (*fn)(void *ctx, const outr_subscription_info *info), void *ctx)
{
    const outr_subscription_info info = {
        .pubsub = s->spec.pubsub,
        .topic = s->spec.topic,
        .dead_letter_topic = s->spec.dead_letter_topic,
        .metadata = s->spec.metadata,
        .rules = s->spec.rules,
        .rule_count = s->spec.rule_count,
        .type = s->type,
    };
    fn(ctx, &info);
}

void outr_pubsub_each(outr_pubsub *p, void (*fn)(void *ctx, const outr_subscription_info *info),
                      void *ctx)
{
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; p->set && i < p->set->count; i++) {
        if (p->set->subs[i].spec.topic.n)
            tell(&p->set->subs[i], fn, ctx);
    }
    for (size_t i = 0; i < p->o.loop_count; i++) {
        OUTR_LIST_EACH(link, &p->lanes[i].streams)
            tell(&OUTR_LIST_ITEM(link, outr_event_stream, link)->sub, fn, ctx);
    }
    pthread_mutex_unlock(&p->lock);
}
