#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <unistd.h>

#include "lib/wire.h"
#include "loop/fd_watch.h"
#include "net/env_real.h"

static char order[256];

static void note(char c)
{
    size_t n = strlen(order);
    assert_true(n + 1 < sizeof order);
    order[n] = c;
    order[n + 1] = 0;
}

/* A timer, a deferred call and a message with a name. */
typedef struct named {
    outr_timer timer;
    outr_deferred deferred;
    outr_message message;
    char name;
    outr_loop *loop;
    struct named *then; /* deferred from within */
} named;

static void on_fire(outr_timer *timer)
{
    named *n = OUTR_CONTAINER(timer, named, timer);
    assert_false(outr_timer_is_on(timer));
    note(n->name);
    if (n->then)
        outr_timer_stop(n->loop, &n->then->timer);
}

static void on_deferred(outr_deferred *deferred)
{
    named *n = OUTR_CONTAINER(deferred, named, deferred);
    note(n->name);
    if (n->then)
        outr_loop_defer(n->loop, &n->then->deferred);
}

static void on_message(outr_message *message, outr_loop *loop)
{
    named *n = OUTR_CONTAINER(message, named, message);
    assert_ptr_equal(loop, n->loop);
    note(n->name);
}

static wire w;

static named make(char name)
{
    return (named){.timer.fire = on_fire,
                   .deferred.run = on_deferred,
                   .message.run = on_message,
                   .name = name,
                   .loop = w.loop};
}

static int open_wire(void **state)
{
    (void)state;
    wire_init(&w, 1);
    order[0] = 0;
    return 0;
}

static int close_wire(void **state)
{
    (void)state;
    wire_done(&w);
    return 0;
}

/* ---- timers ------------------------------------------------------------------------------------ */

static void timers_fire_in_the_order_of_their_times(void **state)
{
    named a = make('a'), b = make('b'), c = make('c'), d = make('d');
    (void)state;
    outr_timer_start(w.loop, &a.timer, w.now + 30);
    outr_timer_start(w.loop, &b.timer, w.now + 10);
    outr_timer_start(w.loop, &c.timer, w.now + 20);
    outr_timer_start(w.loop, &d.timer, w.now + 5);
    outr_timer_stop(w.loop, &d.timer);
    outr_timer_stop(w.loop, &d.timer);
    outr_timer_start(w.loop, &b.timer, w.now + 40); /* moves it */
    assert_true(outr_timer_is_on(&a.timer));
    assert_int_equal(outr_loop_tick(w.loop), w.now + 20);
    w.now += 40;
    assert_true(outr_loop_tick(w.loop) == UINT64_MAX);
    assert_string_equal(order, "cab");
}

static void a_timer_may_stop_another_that_is_due(void **state)
{
    named a = make('a'), b = make('b');
    (void)state;
    a.then = &b;
    outr_timer_start(w.loop, &a.timer, w.now + 1);
    outr_timer_start(w.loop, &b.timer, w.now + 2);
    w.now += 5;
    outr_loop_tick(w.loop);
    assert_string_equal(order, "a");
}

/* Against a plain list, with random moves and stops. */
static void many_timers_keep_their_order(void **state)
{
    enum { COUNT = 200 };
    named timers[COUNT];
    uint64_t at[COUNT] = {0};
    outr_rand rand;
    (void)state;
    print_message("seed %d\n", 42);
    outr_rand_seed(&rand, 42);
    for (int i = 0; i < COUNT; i++)
        timers[i] = make('.');
    for (int step = 0; step < 5000; step++) {
        size_t i = outr_rand_below(&rand, COUNT);
        at[i] = outr_rand_below(&rand, 4) ? w.now + 1 + outr_rand_below(&rand, 500) : 0;
        if (at[i])
            outr_timer_start(w.loop, &timers[i].timer, at[i]);
        else
            outr_timer_stop(w.loop, &timers[i].timer);
        if (step % 7 == 0)
            w.now += outr_rand_below(&rand, 20);
        order[0] = 0;
        size_t due = 0;
        uint64_t first = UINT64_MAX;
        for (int k = 0; k < COUNT; k++) {
            due += at[k] && at[k] <= w.now;
            at[k] = at[k] <= w.now ? 0 : at[k];
            first = at[k] ? OUTR_MIN(first, at[k]) : first;
        }
        assert_true(outr_loop_tick(w.loop) == first);
        assert_int_equal(strlen(order), due);
    }
    for (int i = 0; i < COUNT; i++)
        outr_timer_stop(w.loop, &timers[i].timer);
}

/* ---- deferred calls ---------------------------------------------------------------------------- */

static void flushes_come_after_all_that_is_deferred(void **state)
{
    named a = make('a'), b = make('b'), c = make('c'), f = make('f');
    (void)state;
    a.then = &c;
    outr_loop_flush(w.loop, &f.deferred);
    outr_loop_defer(w.loop, &a.deferred);
    outr_loop_defer(w.loop, &b.deferred);
    outr_loop_defer(w.loop, &a.deferred); /* queued already */
    outr_loop_tick(w.loop);
    assert_string_equal(order, "abcf");
    outr_loop_tick(w.loop);
    assert_string_equal(order, "abcf");
}

static void a_deferred_call_can_be_taken_back(void **state)
{
    named a = make('a'), f = make('f');
    (void)state;
    outr_loop_defer(w.loop, &a.deferred);
    outr_loop_flush(w.loop, &f.deferred);
    outr_loop_undefer(&a.deferred);
    outr_loop_undefer(&f.deferred);
    outr_loop_undefer(&f.deferred);
    outr_loop_tick(w.loop);
    assert_string_equal(order, "");
}

static void what_a_flush_defers_runs_in_the_same_turn(void **state)
{
    named a = make('a'), f = make('f'), g = make('g');
    (void)state;
    f.then = &a;
    outr_loop_flush(w.loop, &f.deferred);
    outr_loop_flush(w.loop, &g.deferred);
    outr_loop_tick(w.loop);
    assert_string_equal(order, "fag");
}

/* ---- messages ---------------------------------------------------------------------------------- */

static void messages_come_in_the_order_they_were_sent(void **state)
{
    named a = make('a'), b = make('b'), c = make('c');
    (void)state;
    outr_loop_post(w.loop, &a.message);
    outr_loop_post(w.loop, &b.message);
    outr_loop_post(w.loop, &c.message);
    assert_string_equal(order, "");
    outr_loop_tick(w.loop);
    assert_string_equal(order, "abc");
}

#define SENDERS  4
#define MESSAGES 5000

typedef struct numbered {
    outr_message message;
    struct sender *sender;
    unsigned number;
} numbered;

typedef struct sender {
    pthread_t thread;
    outr_loop *to;
    unsigned next; /* expected by the receiver */
    unsigned *left;
    numbered messages[MESSAGES];
} sender;

static void on_numbered(outr_message *message, outr_loop *loop)
{
    numbered *n = OUTR_CONTAINER(message, numbered, message);
    assert_true(outr_loop_is_here(loop));
    assert_int_equal(n->number, n->sender->next);
    n->sender->next++;
    if (--*n->sender->left == 0)
        outr_loop_stop(loop);
}

static void *send_all(void *arg)
{
    sender *s = arg;
    for (unsigned i = 0; i < MESSAGES; i++) {
        s->messages[i] = (numbered){{.run = on_numbered}, s, i};
        outr_loop_post(s->to, &s->messages[i].message);
    }
    return NULL;
}

/* On the real driver: a wake-up that is lost would leave the loop asleep. */
static void threads_send_to_a_sleeping_loop_and_nothing_is_lost(void **state)
{
    outr_loop *loop = outr_loop_new(&(outr_loop_options){.env = outr_env_real()});
    sender *senders = outr_alloc(SENDERS * sizeof *senders);
    unsigned left = SENDERS * MESSAGES;
    (void)state;
    for (int i = 0; i < SENDERS; i++) {
        senders[i].to = loop;
        senders[i].left = &left;
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
    }
    outr_loop_run(loop);
    assert_int_equal(left, 0);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
    outr_loop_free(loop);
    free(senders);
}

static void what_comes_after_the_last_turn_is_run_at_the_end(void **state)
{
    outr_loop *loop = outr_loop_new(&(outr_loop_options){.env = outr_env_real()});
    named a = make('a'), b = make('b');
    (void)state;
    a.loop = b.loop = loop;
    outr_loop_stop(loop);
    outr_loop_run(loop);
    outr_loop_post(loop, &a.message);
    outr_loop_defer(loop, &b.deferred);
    outr_loop_free(loop);
    assert_string_equal(order, "ab");
}

static void on_last(outr_timer *timer)
{
    named *n = OUTR_CONTAINER(timer, named, timer);
    note(n->name);
    outr_loop_stop(n->loop);
}

static void the_real_driver_keeps_the_order_of_timers_closer_than_its_clock(void **state)
{
    outr_loop *loop = outr_loop_new(&(outr_loop_options){.env = outr_env_real()});
    named a = make('a'), b = make('b'), c = make('c'), f = make('f');
    uint64_t now = outr_loop_update(loop);
    (void)state;
    a.loop = b.loop = c.loop = f.loop = loop;
    c.timer.fire = on_last;
    outr_timer_start(loop, &c.timer, now + 2 * OUTR_MS + 2);
    outr_timer_start(loop, &b.timer, now + 2 * OUTR_MS + 1);
    outr_timer_start(loop, &a.timer, now + 2 * OUTR_MS);
    outr_loop_flush(loop, &f.deferred);
    outr_loop_run(loop);
    assert_true(outr_loop_now(loop) >= now + 2 * OUTR_MS);
    assert_string_equal(order, "fabc");
    outr_loop_free(loop);
}

static void one_chunk_to_read_into_until_somebody_keeps_it(void **state)
{
    outr_chunk *first = outr_loop_read_chunk(w.loop), *kept;
    (void)state;
    assert_int_equal(first->cap, OUTR_READ_CHUNK);
    assert_ptr_equal(outr_loop_read_chunk(w.loop), first);
    kept = outr_chunk_ref(first);
    assert_ptr_not_equal(outr_loop_read_chunk(w.loop), kept);
    outr_chunk_unref(kept);
}

typedef struct listener {
    outr_fd_watch watch;
    outr_loop *loop;
    unsigned heard;
} listener;

static void on_ready(outr_fd_watch *watch)
{
    listener *l = OUTR_CONTAINER(watch, listener, watch);
    char byte;
    assert_int_equal(read(watch->fd, &byte, 1), 1);
    if (++l->heard < 3)
        return;
    outr_fd_watch_stop(watch);
    outr_loop_stop(l->loop);
}

static void listen_to(listener *l, outr_loop *loop, int ends[2])
{
    outr_err err = {0};
    assert_int_equal(pipe(ends), 0);
    *l = (listener){.watch = {.ready = on_ready, .fd = ends[0]}, .loop = loop};
    assert_int_equal(outr_fd_watch_start(&l->watch, loop, &err), 0);
}

static void close_both(int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

static void a_tick_hears_what_was_written_before_it(void **state)
{
    (void)state;
    listener l;
    int ends[2];
    listen_to(&l, w.loop, ends);
    outr_loop_tick(w.loop);
    assert_int_equal(l.heard, 0);
    assert_int_equal(write(ends[1], "1", 1), 1);
    outr_loop_tick(w.loop);
    outr_loop_tick(w.loop);
    assert_int_equal(l.heard, 1);
    outr_fd_watch_stop(&l.watch);
    assert_int_equal(write(ends[1], "2", 1), 1);
    outr_loop_tick(w.loop);
    assert_int_equal(l.heard, 1);
    outr_fd_watch_stop(&l.watch);
    close_both(ends);
}

static void the_real_driver_hears_each_byte_and_nothing_after_the_end(void **state)
{
    (void)state;
    const outr_loop_options options = {.env = outr_env_real()};
    outr_loop *loop = outr_loop_new(&options);
    listener l;
    int ends[2];
    listen_to(&l, loop, ends);
    assert_int_equal(write(ends[1], "1234", 4), 4);
    outr_loop_run(loop);
    close_both(ends);
    outr_loop_free(loop);
    assert_int_equal(l.heard, 3);
}

/* A thread that writes once the loop has begun to run, and when it did. */
typedef struct writer {
    outr_fd_watch watch;
    outr_timer timer;
    outr_loop *loop;
    pthread_t thread;
    int ends[2];
    uint64_t wrote_ns, heard_ns;
} writer;

static void *write_later(void *arg)
{
    writer *o = arg;
    outr_env *env = outr_env_real();
    o->wrote_ns = env->now_ns(env);
    assert_int_equal(write(o->ends[1], "1", 1), 1);
    return NULL;
}

static void start_writer(outr_timer *timer)
{
    writer *o = OUTR_CONTAINER(timer, writer, timer);
    assert_int_equal(pthread_create(&o->thread, NULL, write_later, o), 0);
}

static void on_written(outr_fd_watch *watch)
{
    writer *o = OUTR_CONTAINER(watch, writer, watch);
    o->heard_ns = outr_loop_now(o->loop);
    outr_fd_watch_stop(watch);
    outr_loop_stop(o->loop);
}

/* Else each deadline that is made when something arrives would be too soon by what the loop slept. */
static void the_real_driver_knows_the_time_of_what_wakes_it(void **state)
{
    outr_loop *loop = outr_loop_new(&(outr_loop_options){.env = outr_env_real()});
    writer o = {.watch = {.ready = on_written}, .timer = {.fire = start_writer}, .loop = loop};
    outr_err err = {0};
    (void)state;
    assert_int_equal(pipe(o.ends), 0);
    o.watch.fd = o.ends[0];
    assert_int_equal(outr_fd_watch_start(&o.watch, loop, &err), 0);
    outr_timer_start(loop, &o.timer, outr_loop_now(loop));
    outr_loop_run(loop);
    pthread_join(o.thread, NULL);
    close_both(o.ends);
    outr_loop_free(loop);
    assert_true(o.heard_ns >= o.wrote_ns);
}

#define WITH_WIRE(f) cmocka_unit_test_setup_teardown(f, open_wire, close_wire)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WIRE(timers_fire_in_the_order_of_their_times),
        WITH_WIRE(a_timer_may_stop_another_that_is_due),
        WITH_WIRE(many_timers_keep_their_order),
        WITH_WIRE(flushes_come_after_all_that_is_deferred),
        WITH_WIRE(a_deferred_call_can_be_taken_back),
        WITH_WIRE(what_a_flush_defers_runs_in_the_same_turn),
        WITH_WIRE(messages_come_in_the_order_they_were_sent),
        WITH_WIRE(threads_send_to_a_sleeping_loop_and_nothing_is_lost),
        WITH_WIRE(what_comes_after_the_last_turn_is_run_at_the_end),
        WITH_WIRE(the_real_driver_keeps_the_order_of_timers_closer_than_its_clock),
        WITH_WIRE(one_chunk_to_read_into_until_somebody_keeps_it),
        WITH_WIRE(a_tick_hears_what_was_written_before_it),
        cmocka_unit_test(the_real_driver_hears_each_byte_and_nothing_after_the_end),
        cmocka_unit_test(the_real_driver_knows_the_time_of_what_wakes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
