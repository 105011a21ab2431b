#include "loop/loop.h"
#include "loop/fd_watch.h"

#include <poll.h>
#include <pthread.h>
#include <uv.h>

struct outr_loop {
    outr_env *env;
    unsigned index;
    const outr_log *log;
    outr_metric_shard *metrics;
    uint64_t now;
    bool has_slept; /* since now was read: it is old */
    outr_heap timers;
    outr_list deferred, flushing;
    outr_message *inbox; /* atomic: messages from other threads, newest first */
    outr_rand rand;
    outr_chunk *read_chunk;
    pthread_t thread;
    bool is_simulated, is_stopping;
    outr_list fd_watches; /* simulated */
    /* the driver */
    uv_loop_t uv;
    uv_async_t wake;
    uv_timer_t alarm;
    uv_prepare_t prepare;
    uv_check_t check;
    uint64_t alarm_at; /* when alarm is set to fire; UINT64_MAX: off */
};

static void run_messages(outr_loop *loop)
{
    outr_message *list = __atomic_exchange_n(&loop->inbox, NULL, __ATOMIC_ACQUIRE),
                 *in_order = NULL;
    while (list) { /* newest first -> oldest first */
        outr_message *next = list->next;
        list->next = in_order;
        in_order = list;
        list = next;
    }
    while (in_order) {
        outr_message *message = in_order;
        in_order = message->next;
        message->run(message, loop);
    }
}

static void run_timers(outr_loop *loop)
{
    outr_heap_node *first;
    while ((first = outr_heap_min(&loop->timers)) && first->key <= loop->now) {
        outr_timer *timer = OUTR_CONTAINER(first, outr_timer, node);
        outr_heap_remove(&loop->timers, first);
        timer->fire(timer);
    }
}

/* ready may stop its own watch, no other. */
static void run_fd_watches(outr_loop *loop)
{
    OUTR_LIST_EACH(link, &loop->fd_watches) {
        outr_fd_watch *watch = OUTR_LIST_ITEM(link, outr_fd_watch, link);
        struct pollfd fd = {watch->fd, POLLIN, 0};
        if (poll(&fd, 1, 0) > 0)
            watch->ready(watch);
    }
}

/* Deferred calls first, and whatever they defer; only then the flushes, which may defer again. */
static void run_deferred(outr_loop *loop)
{
    for (;;) {
        outr_link *link = outr_list_pop(&loop->deferred);
        if (!link)
            link = outr_list_pop(&loop->flushing);
        if (!link)
            return;
        outr_deferred *deferred = OUTR_CONTAINER(link, outr_deferred, link);
        deferred->run(deferred);
    }
}

uint64_t outr_loop_update(outr_loop *loop)
{
    loop->now = loop->env->now_ns(loop->env);
    loop->has_slept = false;
    return loop->now;
}

uint64_t outr_loop_tick(outr_loop *loop)
{
    outr_loop_update(loop);
    run_messages(loop);
    run_fd_watches(loop);
    run_timers(loop);
    run_deferred(loop);
    const outr_heap_node *first = outr_heap_min(&loop->timers);
    return first ? first->key : UINT64_MAX;
}

/* ---- libuv ----------------------------------------------------------------------------------- */

static void on_alarm(uv_timer_t *alarm)
{
    outr_loop *loop = alarm->data;
    loop->alarm_at = UINT64_MAX; /* the timers themselves run in on_prepare */
}

/* Sets libuv's one timer to the first of ours. A later first one leaves it be: an early wake-up
 * costs
 * less than moving it with every request. */
static void set_alarm(outr_loop *loop)
{
    const outr_heap_node *first = outr_heap_min(&loop->timers);
    if (!first || first->key >= loop->alarm_at)
        return;
    uint64_t wait_ns = first->key > loop->now ? first->key - loop->now : 0;
    loop->alarm_at = first->key;
    uv_update_time(&loop->uv);
    uv_timer_start(&loop->alarm, on_alarm, (wait_ns + OUTR_MS - 1) / OUTR_MS, 0);
}

/* Before the poll: nothing may be left to do when the loop goes to sleep. */
static void on_prepare(uv_prepare_t *prepare)
{
    outr_loop *loop = prepare->data;
    outr_loop_update(loop);
    run_timers(loop);
    run_deferred(loop);
    set_alarm(loop);
    loop->has_slept = true;
}

/* After the poll's callbacks: their answers go out before anything else happens. */
static void on_check(uv_check_t *check)
{
    run_deferred(((outr_loop *)check->data));
}

static void on_wake(uv_async_t *wake)
{
    outr_loop *loop = wake->data;
    outr_loop_update(loop);
    run_messages(loop);
}

static void init_uv(outr_loop *loop)
{
    uv_loop_init(&loop->uv);
    loop->uv.data = loop;
    uv_async_init(&loop->uv, &loop->wake, on_wake);
    uv_timer_init(&loop->uv, &loop->alarm);
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_check_init(&loop->uv, &loop->check);
    loop->wake.data = loop->alarm.data = loop->prepare.data = loop->check.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_check_start(&loop->check, on_check);
}

outr_loop *outr_loop_new(const outr_loop_options *options)
{
    outr_loop *loop = outr_alloc(sizeof *loop);
    uint64_t seed;
    loop->env = options->env;
    loop->index = options->index;
    loop->log = options->log;
    loop->metrics = options->metrics;
    loop->is_simulated = options->is_simulated;
    loop->alarm_at = UINT64_MAX;
    loop->thread = pthread_self();
    outr_list_init(&loop->deferred);
    outr_list_init(&loop->flushing);
    outr_list_init(&loop->fd_watches);
    loop->env->entropy(loop->env, &seed, sizeof seed);
    outr_rand_seed(&loop->rand, seed);
    if (!loop->is_simulated)
        init_uv(loop);
    outr_loop_update(loop);
    return loop;
}

void outr_loop_run(outr_loop *loop)
{
    loop->thread = pthread_self();
    while (!loop->is_stopping)
        uv_run(&loop->uv, UV_RUN_ONCE);
}

void outr_loop_stop(outr_loop *loop)
{
    loop->is_stopping = true;
    if (!loop->is_simulated)
        uv_async_send(&loop->wake); /* so that a sleeping turn ends */
}

static void close_own_handles(outr_loop *loop)
{
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->alarm, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
}

void outr_loop_free(outr_loop *loop)
{
    if (!loop)
        return;
    loop->thread = pthread_self();
    /* What others closed in their last turn still has its callbacks to come. */
    for (int turn = 0; turn < 1000; turn++) {
        run_messages(loop);
        run_deferred(loop);
        bool is_quiet = !__atomic_load_n(&loop->inbox, __ATOMIC_ACQUIRE) &&
                        outr_list_is_empty(&loop->deferred) && outr_list_is_empty(&loop->flushing);
        if (loop->is_simulated) {
            if (is_quiet)
                break;
            continue;
        }
        if (turn == 0)
            close_own_handles(loop);
        if (!uv_run(&loop->uv, UV_RUN_NOWAIT) && is_quiet)
            break;
    }
    if (!loop->is_simulated && uv_loop_close(&loop->uv) != 0)
        OUTR_LOG(loop->log, WARN, "an event loop ends with open handles",
                 OUTR_I("loop", loop->index));
    outr_heap_done(&loop->timers);
    outr_chunk_unref(loop->read_chunk);
    free(loop);
}

/* ---- what users call ------------------------------------------------------------------------- */

/* The poll may have taken any time, and its callbacks are the first to ask: a deadline made of the
 * time before it would be over too soon. */
uint64_t outr_loop_now(outr_loop *loop)
{
    return loop->has_slept ? outr_loop_update(loop) : loop->now;
}

int64_t outr_loop_unix_ns(const outr_loop *loop)
{
    return loop->env->unix_ns(loop->env);
}

outr_rand *outr_loop_rand(outr_loop *loop)
{
    return &loop->rand;
}

outr_env *outr_loop_env(const outr_loop *loop)
{
    return loop->env;
}

unsigned outr_loop_index(const outr_loop *loop)
{
    return loop->index;
}

const outr_log *outr_loop_log(const outr_loop *loop)
{
    return loop->log;
}

outr_metric_shard *outr_loop_metrics(const outr_loop *loop)
{
    return loop->metrics;
}

outr_chunk *outr_loop_read_chunk(outr_loop *loop)
{
    if (loop->read_chunk && loop->read_chunk->refs == 1)
        return loop->read_chunk;
    outr_chunk_unref(loop->read_chunk);
    loop->read_chunk = outr_chunk_new(OUTR_READ_CHUNK);
    return loop->read_chunk;
}

struct uv_loop_s *outr_loop_uv(outr_loop *loop)
{
    return loop->is_simulated ? NULL : &loop->uv;
}

void outr_loop_defer(outr_loop *loop, outr_deferred *deferred)
{
    if (!outr_link_is_in(&deferred->link))
        outr_list_push(&loop->deferred, &deferred->link);
}

void outr_loop_flush(outr_loop *loop, outr_deferred *deferred)
{
    if (!outr_link_is_in(&deferred->link))
        outr_list_push(&loop->flushing, &deferred->link);
}

void outr_loop_undefer(outr_deferred *deferred)
{
    outr_link_remove(&deferred->link);
}

void outr_timer_start(outr_loop *loop, outr_timer *timer, uint64_t at_ns)
{
    outr_heap_remove(&loop->timers, &timer->node);
    outr_heap_push(&loop->timers, &timer->node, at_ns);
}

void outr_timer_stop(outr_loop *loop, outr_timer *timer)
{
    outr_heap_remove(&loop->timers, &timer->node);
}

void outr_loop_post(outr_loop *loop, outr_message *message)
{
    outr_message *head = __atomic_load_n(&loop->inbox, __ATOMIC_RELAXED);
    do
        message->next = head;
    while (!__atomic_compare_exchange_n(&loop->inbox, &head, message, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
    /* Only the first message of a batch needs to wake: the reader takes all there are. */
    if (!head && !loop->is_simulated)
        uv_async_send(&loop->wake);
}

bool outr_loop_is_here(const outr_loop *loop)
{
    return pthread_equal(loop->thread, pthread_self());
}

outr_list *outr__loop_fd_watches(outr_loop *loop)
{
    return loop->is_simulated ? &loop->fd_watches : NULL;
}
