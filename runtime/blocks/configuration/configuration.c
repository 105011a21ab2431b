#include "blocks/configuration/configuration.h"

#include <pthread.h>

#include "base/copy.h"

#define SUB_ARENA (16 * OUTR_MIB)

/* The subscriptions of one loop. */
typedef struct lane {
    outr_list subs;        /* changed on its loop only */
    size_t count;          /* under the lock: the loop may not run when it is 0 */
    outr_message update, stop;
    uint8_t update_posted; /* atomic */
} lane;

struct outr_configurations {
    outr_loop *const *loops;
    size_t loop_count;
    outr_host *host;
    lane *lanes;
    /* A lock: subscriptions come and go on their loops, and are looked for by id from others. */
    pthread_mutex_t lock;
    outr_map *by_id; /* under the lock */
    size_t count;    /* likewise */
    bool is_stopped; /* likewise */
    outr_op *stopping;
    outr_message left;
};

static lane *lane_of(const outr_configurations *e, const outr_loop *loop)
{
    return &e->lanes[outr_loop_index(loop)];
}

/* ---- who is there ---------------------------------------------------------------------------- */

static bool take_place(outr_configurations *e, outr_config_sub *s)
{
    pthread_mutex_lock(&e->lock);
    bool is_open = !e->is_stopped;
    if (is_open) {
        outr_map_put(e->by_id, outr_str_from(s->id), s);
        lane_of(e, s->loop)->count++;
        e->count++;
    }
    pthread_mutex_unlock(&e->lock);
    if (is_open)
        outr_list_push(&lane_of(e, s->loop)->subs, &s->link);
    return is_open;
}

/* Nobody finds it any more: its memory is about to be its owner's again. */
static void hide(outr_configurations *e, const outr_config_sub *s)
{
    pthread_mutex_lock(&e->lock);
    outr_map_remove(e->by_id, outr_str_from(s->id));
    pthread_mutex_unlock(&e->lock);
}

/* The engine may be gone when this returns, when the sidecar stops. */
static void leave_place(outr_configurations *e, const outr_loop *loop)
{
    pthread_mutex_lock(&e->lock);
    lane_of(e, loop)->count--;
    if (--e->count == 0 && e->is_stopped)
        outr_loop_post(e->loops[0], &e->left);
    pthread_mutex_unlock(&e->lock);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void answer_leaver(outr_config_leave *l);

static void end(outr_config_sub *s)
{
    outr_configurations *e = s->engine;
    const outr_loop *loop = s->loop;
    outr_arena *arena = s->arena;
    outr_err err = s->err;
    outr_op *opening = s->opening;
    outr_link *link;
    hide(e, s);
    outr_loop_undefer(&s->ender);
    outr_link_remove(&s->link);
    outr_view_unpin(s->view);
    while ((link = outr_list_pop(&s->leavers))) {
        outr_config_leave *l = OUTR_LIST_ITEM(link, outr_config_leave, link);
        l->is_found = true;
        answer_leaver(l);
    }
    if (!opening)
        s->on_end(s, err.code ? &err : NULL); /* s is gone */
    outr_arena_free(arena);
    if (opening && err.code)
        outr_op_fail(opening, &err);
    else if (opening)
        outr_op_fail(opening, &(outr_err){.code = OUTR_CANCELLED, .text = "it was closed"});
    leave_place(e, loop);
}

static void on_ender(outr_deferred *deferred)
{
    end(OUTR_CONTAINER(deferred, outr_config_sub, ender));
}

static void subscribe(outr_config_sub *s);

static void on_unsubscribed(outr_op *op)
{
    outr_config_sub *s = OUTR_CONTAINER(op, outr_config_sub, op);
    if (s->is_moving && !s->is_closing) {
        s->is_moving = false;
        subscribe(s);
        return;
    }
    end(s);
}

static void unsubscribe(outr_config_sub *s)
{
    outr_configuration_watch *watch = outr_take(&s->watch);
    outr_op_init(&s->op, s->loop, NULL, 0, on_unsubscribed);
    s->of->backend->unsubscribe(watch, &s->op);
}

void outr_config_sub_close(outr_config_sub *s)
{
    if (s->is_closing)
        return;
    s->is_closing = true;
    if (s->watch)
        unsubscribe(s);
    else if (outr_op_is_pending(&s->op) && !s->is_moving)
        outr_op_cancel(&s->op, OUTR_CANCELLED); /* subscribing: comes back there */
    else if (!outr_op_is_pending(&s->op))
        outr_loop_defer(s->loop, &s->ender);
}

static void fail(outr_config_sub *s, const outr_err *err)
{
    if (!s->err.code)
        s->err = *err;
    s->is_closing = true;
    outr_loop_defer(s->loop, &s->ender);
}

/* ---- the beginning --------------------------------------------------------------------------- */

static void on_update(void *ctx, const outr_configuration_item *items, size_t count)
{
    outr_config_sub *s = ctx;
    s->on_update(s, items, count);
}

static void on_subscribed(outr_op *op)
{
    outr_config_sub *s = OUTR_CONTAINER(op, outr_config_sub, op);
    if (op->err.code && s->is_moving && !s->is_closing) {
        s->is_moving = false; /* the store that failed is another one by now */
        subscribe(s);
        return;
    }
    if (op->err.code) {
        if (!s->is_closing)
            s->err = op->err;
        end(s);
        return;
    }
    s->watch = s->req.watch;
    if (s->is_closing || s->is_moving) {
        unsubscribe(s);
    } else if (s->opening) {
        outr_op *opening = outr_take(&s->opening);
        outr_op_finish(opening);
    }
}

/* With the store of its name in the view of now. */
static void subscribe(outr_config_sub *s)
{
    outr_err err;
    outr_view *view = outr_host_pin(s->engine->host, s->loop);
    const outr_component *c = outr_view_find(view, OUTR_KIND_CONFIGURATION, s->store);
    outr_view_unpin(s->view);
    s->view = view;
    s->of = c ? c->configuration : NULL;
    if (!c) {
        outr_fail(&err, OUTR_NOT_FOUND, "configuration store " OUTR_FMT " is not there any more",
                  OUTR_ARG(s->store));
        fail(s, &err);
        return;
    }
    s->req = (outr_configuration_subscribe){.keys = s->keys,
                                            .key_count = s->key_count,
                                            .metadata = s->metadata,
                                            .on_update = on_update,
                                            .ctx = s};
    outr_op_init(&s->op, s->loop, NULL, 0, on_subscribed);
    s->of->backend->subscribe(s->of, &s->req, &s->op);
}

static void copy_texts(outr_config_sub *s)
{
    outr_str *keys = outr_arena_alloc(s->arena, (s->key_count + 1) * sizeof *keys);
    for (size_t i = 0; i < s->key_count; i++)
        keys[i] = outr_arena_str(s->arena, s->keys[i]);
    s->store = outr_arena_str(s->arena, s->store);
    s->keys = keys;
    s->metadata = outr_kvs_copy(s->arena, s->metadata);
}

static void on_cancel(outr_op *op)
{
    outr_config_sub_close(op->impl);
}

void outr_config_sub_open(outr_configurations *e, outr_config_sub *s, outr_op *op)
{
    outr_err err;
    outr_op_begin(op, s, on_cancel);
    outr_rand_uuid(outr_loop_rand(s->loop), s->id);
    s->engine = e;
    s->link = (outr_link){0};
    s->ender = (outr_deferred){.run = on_ender};
    s->view = NULL;
    s->watch = NULL;
    s->op = (outr_op){0};
    s->is_closing = s->is_moving = false;
    outr_err_clear(&s->err);
    outr_list_init(&s->leavers);
    if (!take_place(e, s)) {
        outr_fail(&err, OUTR_UNAVAILABLE, "the sidecar is stopping");
        outr_op_fail_soon(op, &err);
        return;
    }
    s->arena = outr_arena_new(SUB_ARENA);
    s->opening = op;
    copy_texts(s);
    subscribe(s);
}

void outr_config_sub_go_on(outr_config_sub *s)
{
    if (s->watch)
        s->of->backend->go_on(s->watch);
}

/* ---- by id ----------------------------------------------------------------------------------- */

static void on_answered(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    const outr_config_leave *l = OUTR_CONTAINER(message, outr_config_leave, message);
    outr_err err;
    if (l->is_found) {
        outr_op_finish(l->op);
        return;
    }
    outr_fail(&err, OUTR_NOT_FOUND, "subscription with id " OUTR_FMT " does not exist",
              OUTR_ARG(l->id));
    outr_op_fail(l->op, &err);
}

static void answer_leaver(outr_config_leave *l)
{
    l->message.run = on_answered;
    outr_loop_post(l->op->loop, &l->message);
}

static outr_config_sub *find(outr_configurations *e, const outr_config_leave *l)
{
    outr_config_sub *s = outr_map_get(e->by_id, l->id);
    return s && outr_str_eq(s->store, l->store) ? s : NULL;
}

/* On the subscription's loop, if it still is. */
static void on_leave(outr_message *message, outr_loop *loop)
{
    outr_config_leave *l = OUTR_CONTAINER(message, outr_config_leave, message);
    pthread_mutex_lock(&l->engine->lock);
    outr_config_sub *s = find(l->engine, l);
    pthread_mutex_unlock(&l->engine->lock);
    if (!s || s->loop != loop || s->is_closing) {
        answer_leaver(l);
        return;
    }
    outr_list_push(&s->leavers, &l->link);
    outr_config_sub_close(s);
}

void outr_config_leave_start(outr_configurations *e, outr_config_leave *l, outr_op *op)
{
    outr_op_begin(op, l, NULL);
    l->engine = e;
    l->op = op;
    l->is_found = false;
    pthread_mutex_lock(&e->lock);
    const outr_config_sub *s = find(e, l);
    if (s) {
        l->message.run = on_leave;
        outr_loop_post(s->loop, &l->message);
    }
    pthread_mutex_unlock(&e->lock);
    if (!s)
        answer_leaver(l);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* A store that is another one now: the watch moves. */
static void renew(outr_config_sub *s)
{
    outr_view *view = outr_host_pin(s->engine->host, s->loop);
    const outr_component *c = outr_view_find(view, OUTR_KIND_CONFIGURATION, s->store);
    if (s->is_closing || s->is_moving) {
        outr_view_unpin(view); /* on its way out, or into the view of then */
    } else if (c && c->configuration == s->of) {
        outr_view_unpin(s->view);
        s->view = view;
    } else {
        outr_view_unpin(view);
        s->is_moving = true;
        if (s->watch)
            unsubscribe(s);
    }
}

static void on_lane_update(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    lane *l = OUTR_CONTAINER(message, lane, update);
    __atomic_store_n(&l->update_posted, 0, __ATOMIC_RELEASE);
    OUTR_LIST_EACH(link, &l->subs)
        renew(OUTR_LIST_ITEM(link, outr_config_sub, link));
}

static void on_lane_stop(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    lane *l = OUTR_CONTAINER(message, lane, stop);
    OUTR_LIST_EACH(link, &l->subs)
        outr_config_sub_close(OUTR_LIST_ITEM(link, outr_config_sub, link));
}

static void on_left(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_configurations *e = OUTR_CONTAINER(message, outr_configurations, left);
    outr_op *op = outr_take(&e->stopping);
    outr_op_finish(op);
}

outr_configurations *outr_configurations_new(outr_loop *const *loops, size_t loop_count,
                                             outr_host *host)
{
    outr_configurations *e = outr_alloc(sizeof *e);
    e->loops = loops;
    e->loop_count = loop_count;
    e->host = host;
    e->by_id = outr_map_new();
    e->left.run = on_left;
    e->lanes = outr_alloc(loop_count * sizeof *e->lanes);
    for (size_t i = 0; i < loop_count; i++) {
        lane *l = &e->lanes[i];
        outr_list_init(&l->subs);
        l->update.run = on_lane_update;
        l->stop.run = on_lane_stop;
    }
    pthread_mutex_init(&e->lock, NULL);
    return e;
}

void outr_configurations_free(outr_configurations *e)
{
    if (!e)
        return;
    outr_map_free(e->by_id);
    pthread_mutex_destroy(&e->lock);
    free(e->lanes);
    free(e);
}

void outr_configurations_update(outr_configurations *e)
{
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < e->loop_count; i++) {
        lane *l = &e->lanes[i];
        if (l->count > 0 && __atomic_exchange_n(&l->update_posted, 1, __ATOMIC_ACQ_REL) == 0)
            outr_loop_post(e->loops[i], &l->update);
    }
    pthread_mutex_unlock(&e->lock);
}

void outr_configurations_stop(outr_configurations *e, outr_op *op)
{
    outr_op_begin(op, e, NULL);
    pthread_mutex_lock(&e->lock);
    e->is_stopped = true;
    bool is_empty = e->count == 0;
    for (size_t i = 0; i < e->loop_count; i++) {
        if (e->lanes[i].count > 0)
            outr_loop_post(e->loops[i], &e->lanes[i].stop);
    }
    e->stopping = op;
    pthread_mutex_unlock(&e->lock);
    if (is_empty)
        outr_loop_post(e->loops[0], &e->left);
}
