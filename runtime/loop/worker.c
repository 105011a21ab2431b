#include "loop/worker.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#define MAX_BATCH   256
#define MAX_PENDING 65536

struct outr_worker {
    outr_worker_options options;
    pthread_t thread;
    /* A lock: the queue is the one place where loops and this thread meet, and it must be able to
     * sleep. It is held for a few pointer moves. */
    pthread_mutex_t lock;
    pthread_cond_t work_or_stop, call_done;
    outr_work *head, **tail;
    size_t pending;
    bool is_stopping;
};

static void on_work_done(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_work *work = OUTR_CONTAINER(message, outr_work, message);
    outr_op *op = work->op;
    if (work->err.code)
        outr_op_fail(op, &work->err);
    else
        outr_op_finish(op);
}

static size_t take_batch(outr_worker *worker, outr_work **items)
{
    size_t n = 0;
    while (worker->head && n < worker->options.max_batch) {
        items[n++] = worker->head;
        worker->head = worker->head->next;
    }
    if (!worker->head)
        worker->tail = &worker->head;
    return n;
}

/* Waits for work; false when there is none and never will be. Locked. */
static bool wait_for_work(outr_worker *worker)
{
    while (!worker->head && !worker->is_stopping) {
        if (!worker->options.idle) {
            pthread_cond_wait(&worker->work_or_stop, &worker->lock);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t ns = (uint64_t)until.tv_nsec + worker->options.idle_ms * OUTR_MS;
        until.tv_sec += (time_t)(ns / OUTR_SEC);
        until.tv_nsec = (long)(ns % OUTR_SEC);
        if (pthread_cond_timedwait(&worker->work_or_stop, &worker->lock, &until) == ETIMEDOUT) {
            pthread_mutex_unlock(&worker->lock);
            worker->options.idle(worker->options.ctx);
            pthread_mutex_lock(&worker->lock);
        }
    }
    return worker->head != NULL;
}

static void report(outr_worker *worker, outr_work **items, size_t n)
{
    bool has_call = false;
    for (size_t i = 0; i < n; i++) {
        if (!items[i]->op) {
            items[i]->message.run = on_work_done; /* marks a call as done */
            items[i] = NULL;                      /* its caller's again as soon as the lock is */
            has_call = true;
        }
    }
    worker->pending -= n;
    pthread_mutex_unlock(&worker->lock);
    for (size_t i = 0; i < n; i++) {
        if (items[i]) {
            items[i]->message.run = on_work_done;
            outr_loop_post(items[i]->op->loop, &items[i]->message);
        }
    }
    pthread_mutex_lock(&worker->lock);
    if (has_call)
        pthread_cond_broadcast(&worker->call_done);
}

static void *run_worker(void *arg)
{
    outr_worker *worker = arg;
    outr_work **items = outr_alloc(worker->options.max_batch * sizeof *items);
    pthread_setname_np(pthread_self(), worker->options.name);
    pthread_mutex_lock(&worker->lock);
    while (wait_for_work(worker)) {
        size_t n = take_batch(worker, items);
        pthread_mutex_unlock(&worker->lock);
        worker->options.handle(worker->options.ctx, items, n);
        pthread_mutex_lock(&worker->lock);
        report(worker, items, n);
    }
    pthread_mutex_unlock(&worker->lock);
    free(items);
    return NULL;
}

static void free_worker(outr_worker *worker)
{
    pthread_mutex_destroy(&worker->lock);
    pthread_cond_destroy(&worker->work_or_stop);
    pthread_cond_destroy(&worker->call_done);
    free(worker);
}

outr_code outr_worker_open(outr_worker **out, const outr_worker_options *options, outr_err *err)
{
    outr_worker *worker = outr_alloc(sizeof *worker);
    pthread_condattr_t attr;
    worker->options = *options;
    worker->options.max_batch = options->max_batch ? options->max_batch : MAX_BATCH;
    worker->options.max_pending = options->max_pending ? options->max_pending : MAX_PENDING;
    worker->tail = &worker->head;
    pthread_mutex_init(&worker->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->work_or_stop, &attr);
    pthread_cond_init(&worker->call_done, NULL);
    pthread_condattr_destroy(&attr);
    pthread_attr_t stack;
    pthread_attr_init(&stack);
    pthread_attr_setstacksize(&stack, 512 * OUTR_KIB);
    int rc = pthread_create(&worker->thread, &stack, run_worker, worker);
    pthread_attr_destroy(&stack);
    if (rc) {
        free_worker(worker);
        return outr_fail_errno(err, rc, "thread %s", options->name);
    }
    *out = worker;
    return OUTR_OK;
}

void outr_worker_close(outr_worker *worker)
{
    if (!worker)
        return;
    pthread_mutex_lock(&worker->lock);
    worker->is_stopping = true;
    pthread_cond_signal(&worker->work_or_stop);
    pthread_mutex_unlock(&worker->lock);
    pthread_join(worker->thread, NULL);
    free_worker(worker);
}

/* False when the queue is full. */
static bool enqueue(outr_worker *worker, outr_work *work)
{
    pthread_mutex_lock(&worker->lock);
    bool has_room = worker->pending < worker->options.max_pending;
    if (has_room) {
        bool was_empty = !worker->head;
        work->next = NULL;
        *worker->tail = work;
        worker->tail = &work->next;
        worker->pending++;
        if (was_empty)
            pthread_cond_signal(&worker->work_or_stop);
    }
    pthread_mutex_unlock(&worker->lock);
    return has_room;
}

static void on_cancel(outr_op *op)
{
    outr_work *work = op->impl;
    __atomic_store_n(&work->is_abandoned, true, __ATOMIC_RELAXED);
}

void outr_worker_submit(outr_worker *worker, outr_work *work, outr_op *op)
{
    work->op = op;
    outr_err_clear(&work->err);
    work->is_abandoned = false;
    outr_op_begin(op, work, on_cancel);
    if (enqueue(worker, work))
        return;
    outr_fail(&work->err, OUTR_RESOURCE_EXHAUSTED, "more than %zu requests are waiting for %s",
              worker->options.max_pending, worker->options.name);
    outr_op_fail_soon(op, &work->err);
}

void outr_worker_call(outr_worker *worker, outr_work *work)
{
    work->op = NULL;
    outr_err_clear(&work->err);
    work->message.run = NULL;
    if (!enqueue(worker, work)) {
        outr_fail(&work->err, OUTR_RESOURCE_EXHAUSTED, "too many requests are waiting");
        return;
    }
    pthread_mutex_lock(&worker->lock);
    while (!work->message.run)
        pthread_cond_wait(&worker->call_done, &worker->lock);
    pthread_mutex_unlock(&worker->lock);
}
