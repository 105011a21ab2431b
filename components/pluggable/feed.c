#include "components/pluggable/feed.h"

#define ITEM_ARENA (64 * OUTR_MIB)
#define PAUSE_MIN  OUTR_SEC
#define PAUSE_MAX  (30 * OUTR_SEC)

/* An order to the main loop that may be given again before it has been followed. */
typedef struct order {
    outr_message message;
    outr__plug_feed *feed;
    bool is_paused;
} order;

static outr_loop *main_loop(const outr__plug_feed *f)
{
    return outr__plug_loop(f->plug);
}

/* ---- on the feed's loop ---------------------------------------------------------------------- */

static void on_pump(outr_deferred *deferred)
{
    outr__plug_feed *f = OUTR_CONTAINER(deferred, outr__plug_feed, pump);
    while (!outr_list_is_empty(&f->waiting) && (f->is_closing || !f->is_paused)) {
        outr__plug_item *i = OUTR_LIST_ITEM(outr_list_pop(&f->waiting), outr__plug_item, link);
        if (f->is_closing)
            outr__plug_feed_settle(i, true);
        else
            f->kind->deliver(f, i);
    }
}

static void on_arrived(outr_message *message, outr_loop *loop)
{
    outr__plug_item *i = OUTR_CONTAINER(message, outr__plug_item, message);
    outr_list_push(&i->feed->waiting, &i->link);
    outr_loop_defer(loop, &i->feed->pump);
}

static void on_stopped(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__plug_feed *f = OUTR_CONTAINER(message, outr__plug_feed, message_stopped);
    outr_loop_undefer(&f->pump);
    f->stopped(f);
}

/* ---- on the main loop: the stream ------------------------------------------------------------ */

static void end_if_over(outr__plug_feed *f)
{
    if (!f->is_ending || f->is_streaming || f->out > 0)
        return;
    outr_timer_stop(main_loop(f), &f->again);
    outr__plug_unwatch(&f->watcher);
    f->message_stopped.run = on_stopped;
    outr_loop_post(f->loop, &f->message_stopped);
}

static bool wants_more(const outr__plug_feed *f)
{
    return f->out < f->credit && !f->is_clogged && !f->is_stopped && !f->is_ending;
}

static void read_on(outr__plug_feed *f)
{
    if (!f->is_streaming || !f->is_held || !wants_more(f))
        return;
    f->is_held = false;
    outr_grpc_stream_resume(&f->stream.grpc);
}

/* NULL: not what was to come. */
static outr__plug_item *read_item(outr__plug_feed *f, outr_str bytes)
{
    outr_arena *arena = outr_arena_new(ITEM_ARENA);
    void *message;
    outr_err err;
    if (outr_proto_read(&message, arena, f->kind->type, bytes, &err)) {
        OUTR_LOG(outr__plug_log(f->plug), ERROR, "pluggable component sent what it may not send",
                 OUTR_S("component", outr__plug_id(f->plug)), OUTR_S("feed", f->name),
                 OUTR_ERR(&err));
        outr_arena_free(arena);
        return NULL;
    }
    outr__plug_item *i = f->kind->take(f, arena, message);
    i->arena = arena;
    i->feed = f;
    i->epoch = f->epoch;
    return i;
}

static bool on_message(outr_grpc_stream *s, outr_str bytes)
{
    outr__plug_feed *f = s->user;
    outr__plug_item *i = f->is_ending || f->is_restarting ? NULL : read_item(f, bytes);
    if (!i) { /* garbage: the stream is not to be trusted any more */
        outr__plug_stream_cancel(&f->stream);
        return true;
    }
    f->pause_ns = 0;
    f->out++;
    i->message.run = on_arrived;
    outr_loop_post(f->loop, &i->message);
    f->is_held = !wants_more(f);
    return !f->is_held;
}

static void on_writable(outr_grpc_stream *s)
{
    outr__plug_feed *f = s->user;
    f->is_clogged = false;
    read_on(f);
}

static void start(outr__plug_feed *f);

static void on_again(outr_timer *timer)
{
    start(OUTR_CONTAINER(timer, outr__plug_feed, again));
}

/* A component that ends the stream, or does not have it, is asked again later. */
static void on_ended(outr__plug_stream *stream, const outr_err *err)
{
    outr__plug_feed *f = OUTR_CONTAINER(stream, outr__plug_feed, stream);
    outr_loop *loop = main_loop(f);
    f->is_streaming = f->is_held = false;
    f->epoch++;
    if (f->is_ending) {
        end_if_over(f);
        return;
    }
    if (!outr__plug_is_ready(f->plug))
        return; /* the watcher starts it */
    if (f->is_restarting) {
        start(f);
        return;
    }
    OUTR_LOG(outr__plug_log(f->plug), WARN,
             "pluggable component has ended a stream, it is made again",
             OUTR_S("component", outr__plug_id(f->plug)), OUTR_S("feed", f->name),
             OUTR_Z("error", err ? err->text : ""));
    f->pause_ns = OUTR_MIN(OUTR_MAX(2 * f->pause_ns, PAUSE_MIN), PAUSE_MAX);
    uint64_t jitter = outr_rand_below(outr_loop_rand(loop), f->pause_ns / 4);
    outr_timer_start(loop, &f->again, outr_loop_now(loop) + f->pause_ns - jitter);
}

static void start(outr__plug_feed *f)
{
    if (f->is_streaming || f->is_ending || !outr__plug_is_ready(f->plug))
        return;
    outr_timer_stop(main_loop(f), &f->again);
    f->is_streaming = true;
    f->is_held = f->is_clogged = f->is_restarting = false;
    f->stream = (outr__plug_stream){
        .grpc = {.on_message = on_message, .on_writable = on_writable, .user = f},
        .ended = on_ended,
    };
    outr__plug_stream_start(f->plug, &f->stream, f->kind->path);
    if (f->kind->hello)
        f->kind->hello(f, &f->stream.grpc);
}

static void on_changed(outr__plug_watcher *watcher, bool is_ready)
{
    outr__plug_feed *f = OUTR_CONTAINER(watcher, outr__plug_feed, watcher);
    if (is_ready)
        start(f);
    else
        outr__plug_stream_cancel(&f->stream);
}

/* ---- on the main loop: orders ---------------------------------------------------------------- */

static void restart_if_wanted(outr__plug_feed *f)
{
    if (f->is_restarting && f->is_streaming && !f->is_stopped)
        outr__plug_stream_cancel(&f->stream);
}

static void on_settled(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__plug_item *i = OUTR_CONTAINER(message, outr__plug_item, message);
    outr__plug_feed *f = i->feed;
    f->out--;
    if (i->epoch == f->epoch && f->is_streaming) {
        if (i->is_released)
            f->is_restarting = true;
        else
            f->is_clogged = !f->kind->answer(f, &f->stream.grpc, i);
    }
    outr_arena_free(i->arena);
    restart_if_wanted(f);
    read_on(f);
    end_if_over(f);
}

static void on_order(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    order *o = OUTR_CONTAINER(message, order, message);
    outr__plug_feed *f = o->feed;
    f->is_stopped = o->is_paused;
    free(o);
    restart_if_wanted(f);
    read_on(f);
}

static void on_start(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__plug_feed *f = OUTR_CONTAINER(message, outr__plug_feed, message_start);
    outr__plug_watch(f->plug, &f->watcher);
    start(f);
}

static void on_stop(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__plug_feed *f = OUTR_CONTAINER(message, outr__plug_feed, message_stop);
    f->is_ending = true;
    outr__plug_stream_cancel(&f->stream);
    end_if_over(f);
}

/* ---- the owner's ----------------------------------------------------------------------------- */

void outr__plug_feed_start(outr__plug_feed *f)
{
    f->watcher.changed = on_changed;
    f->again.fire = on_again;
    f->pump.run = on_pump;
    outr_list_init(&f->waiting);
    f->message_start.run = on_start;
    outr_loop_post(main_loop(f), &f->message_start);
}

void outr__plug_feed_settle(outr__plug_item *i, bool is_released)
{
    i->is_released = is_released;
    i->message.run = on_settled;
    outr_loop_post(main_loop(i->feed), &i->message);
}

void outr__plug_feed_pause(outr__plug_feed *f, bool is_paused)
{
    order *o = outr_alloc(sizeof *o);
    *o = (order){.message = {.run = on_order}, .feed = f, .is_paused = is_paused};
    f->is_paused = is_paused;
    outr_loop_post(main_loop(f), &o->message);
    outr_loop_defer(f->loop, &f->pump);
}

void outr__plug_feed_stop(outr__plug_feed *f, void (*stopped)(outr__plug_feed *feed))
{
    f->stopped = stopped;
    f->is_closing = true;
    outr_loop_defer(f->loop, &f->pump);
    f->message_stop.run = on_stop;
    outr_loop_post(main_loop(f), &f->message_stop);
}
