#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>

#include "lib/wire.h"
#include "loop/worker.h"

#define ITEMS 1000

typedef struct item {
    outr_work work;
    outr_op op;
    unsigned number, done_count;
    outr_code code;
} item;

/* What the handler saw. */
typedef struct bench {
    wire w;
    outr_worker *worker;
    pthread_mutex_t gate; /* the handler waits here: a test that holds it makes work queue up */
    unsigned next;        /* number of the item expected next */
    size_t largest_batch, batches, abandoned;
    unsigned fail_every;
    bool is_out_of_order, is_on_loop_thread;
    pthread_t loop_thread;
    unsigned idle_count; /* atomic */
} bench;

static void handle(void *ctx, outr_work **items, size_t count)
{
    bench *b = ctx;
    pthread_mutex_lock(&b->gate);
    b->batches++;
    b->largest_batch = OUTR_MAX(b->largest_batch, count);
    b->is_on_loop_thread |= pthread_equal(pthread_self(), b->loop_thread) != 0;
    for (size_t i = 0; i < count; i++) {
        item *it = OUTR_CONTAINER(items[i], item, work);
        b->is_out_of_order |= it->number != b->next++;
        b->abandoned += __atomic_load_n(&items[i]->is_abandoned, __ATOMIC_RELAXED);
        if (b->fail_every && it->number % b->fail_every == 0)
            outr_fail(&items[i]->err, OUTR_ABORTED, "item %u", it->number);
    }
    pthread_mutex_unlock(&b->gate);
}

static void idle(void *ctx)
{
    __atomic_fetch_add(&((bench *)ctx)->idle_count, 1, __ATOMIC_RELAXED);
}

static bench *open_bench(size_t max_batch, size_t max_pending, unsigned idle_ms)
{
    bench *b = outr_alloc(sizeof *b);
    const outr_worker_options o = {.name = "test",
                                   .handle = handle,
                                   .idle = idle_ms ? idle : NULL,
                                   .idle_ms = idle_ms,
                                   .ctx = b,
                                   .max_batch = max_batch,
                                   .max_pending = max_pending};
    outr_err err;
    wire_init(&b->w, 1);
    pthread_mutex_init(&b->gate, NULL);
    b->loop_thread = pthread_self();
    assert_int_equal(outr_worker_open(&b->worker, &o, &err), OUTR_OK);
    return b;
}

static void close_bench(bench *b)
{
    outr_worker_close(b->worker);
    wire_run(&b->w);
    wire_done(&b->w);
    pthread_mutex_destroy(&b->gate);
    free(b);
}

static void on_done(outr_op *op)
{
    item *it = OUTR_CONTAINER(op, item, op);
    it->done_count++;
    it->code = op->err.code;
}

static void submit(bench *b, item *it, unsigned number)
{
    it->number = number;
    outr_op_init(&it->op, b->w.loop, NULL, 0, on_done);
    outr_worker_submit(b->worker, &it->work, &it->op);
}

static void wait(bench *b, const item *items, size_t count)
{
    for (size_t i = 0; i < count;) {
        if (items[i].done_count) {
            i++;
            continue;
        }
        wire_run(&b->w);
        sched_yield();
    }
}

static void work_runs_in_order_in_batches_on_another_thread(void **state)
{
    bench *b = open_bench(16, 0, 0);
    item *items = outr_alloc(ITEMS * sizeof *items);
    (void)state;
    b->fail_every = 7;
    pthread_mutex_lock(&b->gate);
    for (unsigned i = 0; i < ITEMS; i++)
        submit(b, &items[i], i);
    pthread_mutex_unlock(&b->gate);
    wait(b, items, ITEMS);
    assert_false(b->is_out_of_order);
    assert_false(b->is_on_loop_thread);
    assert_int_equal(b->next, ITEMS);
    assert_int_equal(b->largest_batch, 16);
    assert_true(b->batches <= ITEMS / 16 + 2);
    for (unsigned i = 0; i < ITEMS; i++) {
        assert_int_equal(items[i].done_count, 1);
        assert_int_equal(items[i].code, i % 7 ? OUTR_OK : OUTR_ABORTED);
    }
    close_bench(b);
    free(items);
}

static void over_its_limit_it_refuses_and_later_takes_again(void **state)
{
    bench *b = open_bench(0, 4, 0);
    item items[6] = {0};
    (void)state;
    pthread_mutex_lock(&b->gate);
    for (unsigned i = 0; i < 5; i++)
        submit(b, &items[i], i);
    assert_int_equal(items[4].done_count, 0); /* not inside the start */
    wire_run(&b->w);
    assert_int_equal(items[4].done_count, 1);
    assert_int_equal(items[4].code, OUTR_RESOURCE_EXHAUSTED);
    pthread_mutex_unlock(&b->gate);
    wait(b, items, 5);
    submit(b, &items[5], 4);
    wait(b, items, 6);
    assert_int_equal(items[5].code, OUTR_OK);
    assert_int_equal(b->next, 5);
    close_bench(b);
}

static void cancelled_work_is_marked_and_its_op_waits_for_the_handler(void **state)
{
    bench *b = open_bench(0, 0, 0);
    item items[3] = {0};
    (void)state;
    pthread_mutex_lock(&b->gate);
    for (unsigned i = 0; i < 3; i++)
        submit(b, &items[i], i);
    outr_op_cancel(&items[1].op, OUTR_CANCELLED);
    outr_op_cancel(&items[2].op, OUTR_DEADLINE_EXCEEDED);
    wire_run(&b->w);
    assert_int_equal(items[1].done_count + items[2].done_count, 0);
    pthread_mutex_unlock(&b->gate);
    wait(b, items, 3);
    assert_int_equal(b->abandoned, 2);
    assert_int_equal(items[0].code, OUTR_OK);
    assert_int_equal(items[1].code, OUTR_CANCELLED);
    assert_int_equal(items[2].code, OUTR_DEADLINE_EXCEEDED);
    close_bench(b);
}

static void closing_handles_what_is_queued(void **state)
{
    bench *b = open_bench(0, 0, 0);
    item items[50] = {0};
    (void)state;
    pthread_mutex_lock(&b->gate);
    for (unsigned i = 0; i < 50; i++)
        submit(b, &items[i], i);
    pthread_mutex_unlock(&b->gate);
    close_bench(b);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(items[i].done_count, 1);
    outr_worker_close(NULL);
}

/* The caller's item is gone as soon as its call returns. */
static void a_call_waits_for_its_result_and_leaves_nothing_behind(void **state)
{
    bench *b = open_bench(0, 0, 0);
    (void)state;
    b->fail_every = 3;
    for (unsigned i = 0; i < 20000; i++) {
        item *it = outr_alloc(sizeof *it);
        it->number = i;
        outr_worker_call(b->worker, &it->work);
        assert_int_equal(it->work.err.code, i % 3 ? OUTR_OK : OUTR_ABORTED);
        free(it);
    }
    assert_false(b->is_out_of_order);
    close_bench(b);
}

static void *call_many(void *ctx)
{
    bench *b = ctx;
    for (unsigned i = 0; i < 3000; i++) {
        item *it = outr_alloc(sizeof *it);
        outr_worker_call(b->worker, &it->work);
        free(it);
    }
    return NULL;
}

/* Ops in the same batches keep the worker busy between a call's result and the batch's end. */
static void several_threads_may_call_while_others_submit(void **state)
{
    enum { THREADS = 4, ROUNDS = 100, EACH = 200 };
    bench *b = open_bench(0, 0, 0);
    pthread_t threads[THREADS];
    item *items = outr_alloc(EACH * sizeof *items);
    (void)state;
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_many, b), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        memset(items, 0, EACH * sizeof *items);
        for (unsigned i = 0; i < EACH; i++)
            submit(b, &items[i], 0);
        wait(b, items, EACH);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(b->next, THREADS * 3000 + ROUNDS * EACH);
    close_bench(b);
    free(items);
}

static void without_work_its_idle_turn_comes(void **state)
{
    bench *b = open_bench(0, 0, 1);
    (void)state;
    while (__atomic_load_n(&b->idle_count, __ATOMIC_RELAXED) < 3)
        sched_yield();
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_runs_in_order_in_batches_on_another_thread),
        cmocka_unit_test(over_its_limit_it_refuses_and_later_takes_again),
        cmocka_unit_test(cancelled_work_is_marked_and_its_op_waits_for_the_handler),
        cmocka_unit_test(closing_handles_what_is_queued),
        cmocka_unit_test(a_call_waits_for_its_result_and_leaves_nothing_behind),
        cmocka_unit_test(several_threads_may_call_while_others_submit),
        cmocka_unit_test(without_work_its_idle_turn_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
