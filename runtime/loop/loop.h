/* loop - one thread's event loop: timers, deferred calls, messages from other threads.
 *
 * Loops share nothing. Only outr_loop_post may be called from another thread. The driver is libuv,
 * or the simulator's step function, which calls outr_loop_tick itself. */
#ifndef OUTR_LOOP_LOOP_H
#define OUTR_LOOP_LOOP_H

#include "base/chunk.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/metric.h"
#include "base/log.h"
#include "base/rand.h"
#include "loop/env.h"

typedef struct outr_loop outr_loop;
struct uv_loop_s;

/* A call that runs after the current callback has returned, before the loop sleeps. */
typedef struct outr_deferred {
    outr_link link;
    void (*run)(struct outr_deferred *deferred);
} outr_deferred;

/* One-shot timer, embedded. Zero-initialised is idle. */
typedef struct outr_timer {
    outr_heap_node node;
    void (*fire)(struct outr_timer *timer);
} outr_timer;

/* A message to another loop, embedded in what it carries; the receiver owns it when run is called.
 */
typedef struct outr_message {
    struct outr_message *next;
    void (*run)(struct outr_message *message, outr_loop *loop);
} outr_message;

typedef struct outr_loop_options {
    outr_env *env;              /* borrowed, outlives the loop */
    unsigned index;             /* 0-based; loop 0 is the main loop */
    const outr_log *log;        /* borrowed */
    outr_metric_shard *metrics; /* borrowed; may be NULL */
    bool is_simulated;          /* no libuv: the owner calls outr_loop_tick */
} outr_loop_options;

outr_loop *outr_loop_new(const outr_loop_options *options);
void outr_loop_free(outr_loop *loop); /* after outr_loop_run has returned; all handles closed */
/* Runs until outr_loop_stop. On the calling thread. */
void outr_loop_run(outr_loop *loop);
void outr_loop_stop(outr_loop *loop); /* on its thread; ends after this turn */
/* Simulator: runs messages, due timers and deferred calls; returns the next timer's time in
 * nanoseconds or UINT64_MAX. */
uint64_t outr_loop_tick(outr_loop *loop);

/* monotonic ns, cached; the clock is asked anew once after each sleep */
uint64_t outr_loop_now(outr_loop *loop);
uint64_t outr_loop_update(outr_loop *loop);    /* asks the clock again; for latency measurements */
int64_t outr_loop_unix_ns(const outr_loop *loop);
outr_rand *outr_loop_rand(outr_loop *loop);
outr_env *outr_loop_env(const outr_loop *loop);
unsigned outr_loop_index(const outr_loop *loop);
const outr_log *outr_loop_log(const outr_loop *loop);
outr_metric_shard *outr_loop_metrics(const outr_loop *loop);
/* What sockets read into: 64 KiB, one for the whole loop, replaced when somebody kept a reference.
 * So
 * an idle connection has no buffer of its own. Borrowed. */
#define OUTR_READ_CHUNK ((size_t)65536)
outr_chunk *outr_loop_read_chunk(outr_loop *loop);
struct uv_loop_s *
outr_loop_uv(outr_loop *loop); /* only net/ and other fd owners; NULL when simulated */

void outr_loop_defer(outr_loop *loop, outr_deferred *deferred); /* again while queued: nothing */
/* Runs at the very end of the turn, after all deferred calls: where connections flush once. */
void outr_loop_flush(outr_loop *loop, outr_deferred *deferred);
void outr_loop_undefer(outr_deferred *deferred); /* takes it out of either queue */
void outr_timer_start(outr_loop *loop, outr_timer *timer,
                      uint64_t at_ns); /* absolute; moves a running one */
void outr_timer_stop(outr_loop *loop, outr_timer *timer);
static inline bool outr_timer_is_on(const outr_timer *timer)
{
    return timer->node.index != 0;
}
/* From any thread. After outr_loop_run returned the message is run by outr_loop_free. */
void outr_loop_post(outr_loop *loop, outr_message *message);
bool outr_loop_is_here(const outr_loop *loop); /* this thread runs it */
/* What a tick looks at; NULL: libuv does. For fd_watch.c. */
outr_list *outr__loop_fd_watches(outr_loop *loop);

#endif
