#include "blocks/outbox/outbox.h"

#include "base/json.h"
#include "blocks/pubsub/topics.h"

/* The delivering side: a listener for each state store with an outbox. */

#define CREDIT       64
#define JOB_ARENA    (64 * OUTR_MIB)
#define SET_ARENA    OUTR_MIB
#define LISTENER_ARENA (64 * OUTR_KIB)
#define FIRST_PAUSE  (100 * OUTR_MS)
#define PAUSE_MAX    (3 * OUTR_SEC)
#define PATIENCE     (11 * OUTR_SEC) /* as daprd: a second, then ten of asking */
#define AGAIN_NS     OUTR_SEC        /* a broker that does not let us subscribe */
#define EVENT_MAX    (512 * OUTR_MIB)

typedef struct listener {
    struct set *set;
    outr_str store_name;
    outr_outbox_spec spec;
    outr_loop *loop;
    outr_message start, end, left;
    outr_view *view; /* pinned on its loop */
    outr_arena *arena;
    const outr_component *store;
    outr_broker *broker;
    outr_broker_sub *sub;
    outr_list jobs;
    outr_timer again;
    outr_op op; /* unsubscribing */
    bool is_ending;
} listener;

/* The listeners of one moment: started together, ended together. */
typedef struct set {
    outr_outbox *engine;
    outr_arena *arena;
    listener *items;
    size_t count, pending;
} set;

struct outr_outbox {
    outr_outbox_options o;
    set *set; /* running or ending */
    bool is_ending_set, is_stopped;
    outr_op *stopping;
};

/* One event. */
typedef struct job {
    outr_link link;
    listener *l;
    outr_message_in *msg;
    outr_arena *arena;
    outr_json *event;
    outr_str key;
    uint64_t until_ns, pause_ns;
    outr_state_item item;
    outr_state_get get;
    outr_state_write write;
    outr_state_writes writes;
    outr_publish_item out;
    outr_publish publish;
    outr_op op;
} job;

static const outr_log *log_of(const listener *l)
{
    return l->set->engine->o.log;
}

/* ---- one event ------------------------------------------------------------------------------- */

static void leave_if_over(listener *l);

static void settle(job *j, outr_settlement how)
{
    listener *l = j->l;
    outr_link_remove(&j->link);
    l->broker->backend->settle(l->sub, j->msg, how);
    outr_arena_free(j->arena);
    if (l->is_ending)
        leave_if_over(l);
}

static void fail(job *j, const char *what, const outr_err *err)
{
    if (j->l->is_ending) {
        settle(j, OUTR_SETTLE_RELEASE);
        return;
    }
    OUTR_LOG(log_of(j->l), WARN, what, OUTR_S("component", j->l->store_name),
             OUTR_S("event", j->key), OUTR_ERR(err));
    settle(j, OUTR_SETTLE_RETRY);
}

/* False: there is no time left. Then again is called, after a pause. */
static bool pause_and(job *j, outr_op_fn *again)
{
    uint64_t now = outr_loop_now(j->l->loop);
    if (now >= j->until_ns)
        return false;
    outr_op_init(&j->op, j->l->loop, NULL, 0, again);
    outr_sleep_start(OUTR_MIN(now + j->pause_ns, j->until_ns), &j->op);
    j->pause_ns = OUTR_MIN(j->pause_ns * 2, PAUSE_MAX);
    return true;
}

static void delete_marker(job *j);

static void on_delete_again(outr_op *op)
{
    job *j = OUTR_CONTAINER(op, job, op);
    if (j->l->is_ending)
        settle(j, OUTR_SETTLE_ACK);
    else
        delete_marker(j);
}

/* The event is out: what is left of it is rubbish at worst, and a second time would be worse. */
static void on_deleted(outr_op *op)
{
    job *j = OUTR_CONTAINER(op, job, op);
    if (!op->err.code || j->l->is_ending || !pause_and(j, on_delete_again)) {
        if (op->err.code)
            OUTR_LOG(log_of(j->l), WARN, "the marker of a delivered outbox event stays",
                     OUTR_S("component", j->l->store_name), OUTR_S("event", j->key),
                     OUTR_ERR(&op->err));
        settle(j, OUTR_SETTLE_ACK);
    }
}

static void delete_marker(job *j)
{
    outr_state_store *store = j->l->store->state;
    j->write = (outr_state_write){.kind = OUTR_STATE_DELETE, .key = j->key};
    j->writes = (outr_state_writes){.arena = j->arena, .items = &j->write, .count = 1};
    outr_op_init(&j->op, j->l->loop, NULL, 0, on_deleted);
    store->backend->write(store, &j->writes, &j->op);
}

static void on_published(outr_op *op)
{
    job *j = OUTR_CONTAINER(op, job, op);
    outr_err err = op->err.code ? op->err : j->out.err;
    if (err.code) {
        fail(j, "an outbox event could not be published, it comes again", &err);
        return;
    }
    j->until_ns = outr_loop_now(j->l->loop) + PATIENCE;
    j->pause_ns = FIRST_PAUSE;
    delete_marker(j);
}

static void publish(job *j)
{
    listener *l = j->l;
    const outr_outbox_spec *spec = &l->spec;
    const outr_settings *settings = l->set->engine->o.settings;
    outr_err err;
    const outr_component *c = outr_view_find(l->view, OUTR_KIND_PUBSUB, spec->pubsub);
    if (!c) {
        outr_fail(&err, OUTR_NOT_FOUND, "pubsub " OUTR_FMT " is not found",
                  OUTR_ARG(spec->pubsub));
        fail(j, "an outbox event has nowhere to go", &err);
        return;
    }
    if (!outr_topic_is_allowed(c->metadata, "publishingScopes", settings->app_id, spec->topic)) {
        outr_fail(&err, OUTR_PERMISSION_DENIED, "topic " OUTR_FMT " is not allowed for the app",
                  OUTR_ARG(spec->topic));
        fail(j, "an outbox event may not go where it is to go", &err);
        return;
    }
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(EVENT_MAX);
    outr_json_put(j->event, OUTR_STR("topic"), outr_json_string(j->arena, spec->topic));
    outr_json_put(j->event, OUTR_STR("pubsubname"), outr_json_string(j->arena, spec->pubsub));
    outr_json_write(&text, j->event, OUTR_JSON_SORTED);
    j->out = (outr_publish_item){.data = outr_arena_str(j->arena, outr_buf_view(&text)),
                                 .content_type = OUTR_STR("application/cloudevents+json")};
    j->publish = (outr_publish){
        .topic = outr_topic_of_broker(outr_arena_alloc(j->arena, OUTR_TOPIC_MAX), c->spec,
                                      settings->namespace_, spec->topic),
        .items = &j->out,
        .count = 1};
    outr_op_init(&j->op, l->loop, NULL, 0, on_published);
    c->broker->backend->publish(c->broker, &j->publish, &j->op);
}

static void look(job *j);

static void on_look_again(outr_op *op)
{
    job *j = OUTR_CONTAINER(op, job, op);
    if (j->l->is_ending)
        settle(j, OUTR_SETTLE_RELEASE);
    else
        look(j);
}

static void on_looked(outr_op *op)
{
    job *j = OUTR_CONTAINER(op, job, op);
    outr_err err = op->err.code ? op->err : j->item.err;
    if (j->l->is_ending) {
        settle(j, OUTR_SETTLE_RELEASE);
        return;
    }
    if (!err.code && j->item.is_found) {
        publish(j);
        return;
    }
    if (pause_and(j, on_look_again))
        return;
    if (err.code) {
        fail(j, "whether an outbox event is of a done transaction cannot be read", &err);
    } else if (j->l->spec.discards_unknown) {
        OUTR_LOG(log_of(j->l), WARN, "an outbox event of no transaction is dropped",
                 OUTR_S("component", j->l->store_name), OUTR_S("event", j->key));
        settle(j, OUTR_SETTLE_ACK);
    } else {
        outr_fail(&err, OUTR_NOT_FOUND, "its transaction is not done");
        fail(j, "an outbox event waits for its transaction, it comes again", &err);
    }
}

/* The transaction may not have been run yet. */
static void look(job *j)
{
    outr_state_store *store = j->l->store->state;
    j->item = (outr_state_item){.key = j->key};
    j->get = (outr_state_get){
        .arena = j->arena, .consistency = OUTR_STRONG, .items = &j->item, .count = 1};
    outr_op_init(&j->op, j->l->loop, NULL, 0, on_looked);
    store->backend->get(store, &j->get, &j->op);
}

static void on_message(void *ctx, outr_message_in *msg)
{
    listener *l = ctx;
    outr_arena *arena = outr_arena_new(JOB_ARENA + OUTR_JSON_TREE * msg->data.n);
    job *j = outr_arena_alloc(arena, sizeof *j);
    outr_err err;
    *j = (job){.l = l, .msg = msg, .arena = arena, .pause_ns = FIRST_PAUSE};
    outr_list_push(&l->jobs, &j->link);
    if (l->is_ending) {
        settle(j, OUTR_SETTLE_RELEASE);
        return;
    }
    if (outr_json_parse(&j->event, arena, msg->data, &err) == OUTR_OK)
        j->key = outr_json_text(j->event, "id");
    if (!outr_str_starts(j->key, OUTR_STR("outbox-"))) {
        OUTR_LOG(log_of(l), ERROR, "what is no outbox event stands in its topic and is dropped",
                 OUTR_S("component", l->store_name));
        settle(j, OUTR_SETTLE_ACK);
        return;
    }
    j->until_ns = outr_loop_now(l->loop) + PATIENCE;
    look(j);
}

/* ---- listeners ------------------------------------------------------------------------------- */

static void reconcile(outr_outbox *o);

static void on_left(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    set *s = OUTR_CONTAINER(message, listener, left)->set;
    outr_outbox *o = s->engine;
    if (--s->pending > 0)
        return;
    o->set = NULL;
    o->is_ending_set = false;
    outr_arena_free(s->arena);
    if (o->stopping) {
        outr_op *op = outr_take(&o->stopping);
        outr_op_finish(op);
    } else {
        reconcile(o);
    }
}

static void leave(listener *l)
{
    outr_view_unpin(l->view);
    outr_arena_free(l->arena);
    outr_loop_post(l->set->engine->o.loops[0], &l->left);
}

static void on_unsubscribed(outr_op *op)
{
    leave(OUTR_CONTAINER(op, listener, op));
}

static void leave_if_over(listener *l)
{
    if (!outr_list_is_empty(&l->jobs) || outr_op_is_pending(&l->op))
        return;
    if (!l->sub) {
        leave(l);
        return;
    }
    outr_op_init(&l->op, l->loop, NULL, 0, on_unsubscribed);
    l->broker->backend->unsubscribe(l->sub, &l->op);
}

static void subscribe(listener *l)
{
    outr_outbox *o = l->set->engine;
    outr_err err;
    const outr_component *c =
        outr_view_find(l->view, OUTR_KIND_PUBSUB, l->spec.internal_pubsub);
    l->store = outr_view_find(l->view, OUTR_KIND_STATE, l->store_name);
    if (!l->store || !c) {
        OUTR_LOG(o->o.log, ERROR, "an outbox has no pubsub, its events wait",
                 OUTR_S("component", l->store_name), OUTR_S("pubsub", l->spec.internal_pubsub));
        return;
    }
    const outr_subscribe req = {
        .topic = outr__outbox_topic(l->arena, c, o->o.settings, l->spec.topic),
        .loop = l->loop,
        .credit = CREDIT,
        .on_message = on_message,
        .ctx = l,
    };
    l->broker = c->broker;
    if (!c->broker->backend->subscribe(c->broker, &req, &l->sub, &err))
        return;
    l->sub = NULL;
    OUTR_LOG(o->o.log, WARN, "an outbox could not be subscribed, trying on",
             OUTR_S("component", l->store_name), OUTR_ERR(&err));
    outr_timer_start(l->loop, &l->again, outr_loop_now(l->loop) + AGAIN_NS);
}

static void on_again(outr_timer *timer)
{
    listener *l = OUTR_CONTAINER(timer, listener, again);
    outr_arena_reset(l->arena);
    subscribe(l);
}

static void on_start(outr_message *message, outr_loop *loop)
{
    listener *l = OUTR_CONTAINER(message, listener, start);
    l->view = outr_host_pin(l->set->engine->o.host, loop);
    l->again.fire = on_again;
    l->arena = outr_arena_new(LISTENER_ARENA);
    subscribe(l);
}

static void on_end(outr_message *message, outr_loop *loop)
{
    listener *l = OUTR_CONTAINER(message, listener, end);
    l->is_ending = true;
    outr_timer_stop(loop, &l->again);
    if (l->sub)
        l->broker->backend->pause(l->sub, true);
    OUTR_LIST_EACH(link, &l->jobs) {
        job *j = OUTR_LIST_ITEM(link, job, link);
        outr_op_cancel(&j->op, OUTR_CANCELLED);
    }
    leave_if_over(l);
}

/* ---- the engine ------------------------------------------------------------------------------ */

static void add(outr_outbox *o, set *s, const outr_component *c, const outr_outbox_spec *spec)
{
    listener *l = &s->items[s->count];
    *l = (listener){
        .set = s,
        .store_name = outr_arena_str(s->arena, c->spec->base.name),
        .spec = {outr_arena_str(s->arena, spec->pubsub), outr_arena_str(s->arena, spec->topic),
                 outr_arena_str(s->arena, spec->internal_pubsub), spec->discards_unknown},
        .loop = o->o.loops[s->count % o->o.loop_count],
        .start = {.run = on_start},
        .end = {.run = on_end},
        .left = {.run = on_left},
    };
    outr_list_init(&l->jobs);
    s->count++;
}

static void reconcile(outr_outbox *o)
{
    outr_outbox_spec spec;
    const outr_component *c;
    if (o->set || o->is_stopped)
        return;
    outr_view *view = outr_host_pin(o->o.host, o->o.loops[0]);
    size_t n = 0;
    for (size_t i = 0; (c = outr_view_at(view, i)); i++)
        n += c->kind == OUTR_KIND_STATE && outr_outbox_read(&spec, c->metadata);
    if (n > 0) {
        outr_arena *arena = outr_arena_new(SET_ARENA);
        set *s = outr_arena_alloc(arena, sizeof *s);
        *s = (set){.engine = o, .arena = arena};
        s->items = outr_arena_alloc(arena, n * sizeof *s->items);
        for (size_t i = 0; (c = outr_view_at(view, i)); i++) {
            if (c->kind == OUTR_KIND_STATE && outr_outbox_read(&spec, c->metadata))
                add(o, s, c, &spec);
        }
        s->pending = s->count;
        o->set = s;
        for (size_t i = 0; i < s->count; i++)
            outr_loop_post(s->items[i].loop, &s->items[i].start);
    }
    outr_view_unpin(view);
}

static void end_set(outr_outbox *o)
{
    o->is_ending_set = true;
    for (size_t i = 0; i < o->set->count; i++)
        outr_loop_post(o->set->items[i].loop, &o->set->items[i].end);
}

outr_outbox *outr_outbox_new(const outr_outbox_options *options)
{
    outr_outbox *o = outr_alloc(sizeof *o);
    o->o = *options;
    return o;
}

void outr_outbox_start(outr_outbox *o)
{
    reconcile(o);
}

void outr_outbox_update(outr_outbox *o)
{
    if (o->set && !o->is_ending_set)
        end_set(o); /* a new set starts when it has ended */
    else
        reconcile(o);
}

void outr_outbox_stop(outr_outbox *o, outr_op *op)
{
    outr_op_begin(op, o, NULL);
    o->is_stopped = true;
    if (!o->set) {
        outr_op_finish_soon(op);
        return;
    }
    o->stopping = op;
    if (!o->is_ending_set)
        end_set(o);
}

void outr_outbox_free(outr_outbox *o)
{
    free(o);
}
