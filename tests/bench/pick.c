/* What it costs to pick an instance: for a call as mesh/peers.c makes it, with the lock, what is
 * observed, and the release; however many instances there are, with labels asked for, with a zone,
 * and when several loops call at once.
 *
 * CPU of a thread, per call, in ns. Prints a JSON object a line: {"name": ..., "ns": ...}. */
#include <stdlib.h>

#include "bench/measure.h"
#include "mesh/callees.h"

#define CALLS   200000
#define THREADS 4

typedef struct bench {
    outr_callees *all;
    outr__callee *callee;
    const outr_kvs *labels;
    outr_rand rand;
    uint64_t now;
    double ns;
} bench;

static void call(void *ctx, unsigned round OUTR_UNUSED)
{
    bench *b = ctx;
    outr__choice how = {.pick = {.labels = b->labels, .is_repeatable = true},
                        .now = b->now,
                        .cache_ns = UINT64_MAX / 2};
    outr__instance *i = outr__callee_choose(b->callee, &how, &b->rand);
    uint64_t took = OUTR_MS + outr_rand_below(&b->rand, OUTR_MS);
    b->now += 10 * (OUTR_MS / 1000);
    outr__callee_observe(b->callee, i, b->now, took, OUTR_CLASS_GOOD, 0, false, &b->rand);
    outr__instance_release(i);
}

static void *measure(void *ctx)
{
    bench *b = ctx;
    b->ns = measure_calls(CALLS, call, b);
    return NULL;
}

static void print(const char *name, double ns)
{
    printf("{\"name\": \"%s\", \"ns\": %.0f}\n", name, ns);
    fflush(stdout);
}

static bench open_bench(size_t count)
{
    static const outr_kv labels[2][2] = {
        {{OUTR_STR("version"), OUTR_STR("1")}, {OUTR_STR("zone"), OUTR_STR("a")}},
        {{OUTR_STR("version"), OUTR_STR("2")}, {OUTR_STR("zone"), OUTR_STR("b")}}};
    bench b = {.all = outr_callees_new(), .now = 1000 * OUTR_SEC};
    outr_instance *said = outr_alloc(count * sizeof *said);
    outr_rand_seed(&b.rand, 1);
    for (size_t i = 0; i < count; i++) {
        outr_addr_from_ip(&said[i].addr, OUTR_STR("10.0.0.1"), (uint16_t)(1000 + i), NULL);
        said[i].labels = (outr_kvs){labels[i % 2], 2};
    }
    b.callee = outr__callee_ref(b.all, OUTR_STR("kitchen.default"), true);
    outr__callee_learn(b.callee, &(outr_resolve){.instances = said, .count = count}, b.now);
    free(said);
    b.now += 60 * OUTR_SEC;
    return b;
}

static void close_bench(bench *b)
{
    outr__callee_unref(b->callee);
    outr_callees_unref(b->all);
}

int main(void)
{
    static const size_t counts[] = {2, 10, 100, 1000};
    static const outr_kv second[] = {{OUTR_STR("version"), OUTR_STR("2")},
                                     {OUTR_STR("zone"), OUTR_STR("b")}};
    static const outr_kvs wanted = {second, 2};
    char name[80];
    for (size_t i = 0; i < OUTR_LEN(counts); i++) {
        bench b = open_bench(counts[i]);
        measure(&b);
        snprintf(name, sizeof name, "%zu instances", counts[i]);
        print(name, b.ns);
        b.labels = &wanted;
        measure(&b);
        snprintf(name, sizeof name, "%zu instances, half of them by two labels", counts[i]);
        print(name, b.ns);
        close_bench(&b);
    }
    bench shared = open_bench(10), each[THREADS];
    pthread_t threads[THREADS];
    double sum = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        each[i] = shared;
        outr_rand_seed(&each[i].rand, i + 1);
        if (pthread_create(&threads[i], NULL, measure, &each[i]))
            return 1;
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += each[i].ns;
    }
    print("10 instances, 4 threads that do nothing else", sum / THREADS);
    close_bench(&shared);
    return 0;
}
