/* An app with so many workers on a virtual clock, behind the gate of mesh/gradient.c, and callers
 * who come at random and leave when they have waited for half a second. However it is overloaded,
 * most of what it can do is done for callers who still wait. Seeds: OUTRIGGER_SEEDS, from
 * OUTRIGGER_SEED on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>

#include "base/heap.h"
#include "base/rand.h"
#include "mesh/gradient.h"

#define CALLS_MAX   4096
#define PATIENCE_NS (500 * OUTR_MS)

typedef enum service { EVEN, RANDOM, MIXED } service;

typedef struct call {
    outr_heap_node node; /* in service: when it is over; waiting: when it leaves */
    outr_waiter waiter;
    outr_link link; /* free, or in the app's own queue */
    uint64_t came_ns, started_ns;
    bool is_waiting, is_urgent;
} call;

typedef struct play {
    uint64_t seed, now, next_ns;
    outr_rand rand;
    outr_gradient gate;
    bool has_gate;
    service service;
    double mean_ns, gap_ns, urgent_share;
    unsigned workers, busy;
    outr_list app_queue, spare;
    outr_heap heap;
    call calls[CALLS_MAX];
    /* counted */
    uint64_t offered, good, urgent_offered, urgent_good, begun;
    uint64_t worst_wait_ns;
} play;

static double exponential(play *p, double mean)
{
    return -mean * log(1 - outr_rand_unit(&p->rand));
}

static uint64_t service_time(play *p)
{
    switch (p->service) {
    case RANDOM:
        return (uint64_t)exponential(p, p->mean_ns) + 1;
    case MIXED: /* nine short ones and a long one */
        return (uint64_t)(p->mean_ns * (outr_rand_below(&p->rand, 10) ? 0.5 : 5.5));
    default:
        return (uint64_t)(p->mean_ns * (0.9 + 0.2 * outr_rand_unit(&p->rand)));
    }
}

static void work(play *p)
{
    while (p->busy < p->workers && !outr_list_is_empty(&p->app_queue)) {
        call *c = OUTR_LIST_ITEM(outr_list_pop(&p->app_queue), call, link);
        p->busy++;
        outr_heap_push(&p->heap, &c->node, p->now + service_time(p));
    }
}

static void begin(play *p, call *c)
{
    c->is_waiting = false;
    c->started_ns = p->now;
    p->begun++;
    p->worst_wait_ns = OUTR_MAX(p->worst_wait_ns, p->now - c->came_ns);
    outr_list_push(&p->app_queue, &c->link);
    work(p);
}

static void end(play *p, call *c)
{
    outr_list_push(&p->spare, &c->link);
}

static void settle(play *p, outr_list *let_in, outr_list *refused)
{
    outr_link *link;
    while ((link = outr_list_pop(let_in)) != NULL) {
        call *c = OUTR_CONTAINER(OUTR_LIST_ITEM(link, outr_waiter, link), call, waiter);
        outr_heap_remove(&p->heap, &c->node);
        begin(p, c);
    }
    while ((link = outr_list_pop(refused)) != NULL) {
        call *c = OUTR_CONTAINER(OUTR_LIST_ITEM(link, outr_waiter, link), call, waiter);
        if (c->is_urgent)
            fail_msg("seed %llu: an urgent call was refused for others",
                     (unsigned long long)p->seed);
        outr_heap_remove(&p->heap, &c->node);
        end(p, c);
    }
}

static void arrive(play *p)
{
    outr_list let_in, refused;
    outr_list_init(&let_in);
    outr_list_init(&refused);
    bool is_urgent = outr_rand_unit(&p->rand) < p->urgent_share;
    p->offered++;
    p->urgent_offered += is_urgent;
    outr_link *link = outr_list_pop(&p->spare);
    if (!link)
        return; /* without a gate: the app's queue is full, too */
    call *c = OUTR_LIST_ITEM(link, call, link);
    *c = (call){.came_ns = p->now, .is_urgent = is_urgent, .waiter = {.is_urgent = is_urgent}};
    if (!p->has_gate) {
        begin(p, c);
        return;
    }
    switch (outr_gradient_enter(&p->gate, &c->waiter, p->now, &let_in, &refused)) {
    case OUTR_ENTRY_IN:
        begin(p, c);
        break;
    case OUTR_ENTRY_WAITS:
        c->is_waiting = true;
        outr_heap_push(&p->heap, &c->node, p->now + p->gate.o.interval_ns);
        break;
    case OUTR_ENTRY_REFUSED:
        end(p, c);
        break;
    }
    settle(p, &let_in, &refused);
}

static void check(const play *p)
{
    const outr_gradient *g = &p->gate;
    size_t waiting = 0;
    for (outr_link *l = g->queue.next; l != &g->queue; l = l->next)
        waiting++;
    for (outr_link *l = g->urgent.next; l != &g->urgent; l = l->next)
        waiting++;
    if (waiting != g->waiting || waiting > g->o.queue)
        fail_msg("seed %llu: %zu wait, %u counted", (unsigned long long)p->seed, waiting,
                 g->waiting);
    if (g->limit < g->o.min || g->limit > g->o.max)
        fail_msg("seed %llu: limit %.1f", (unsigned long long)p->seed, g->limit);
    if (g->waiting > 0 && g->in_flight < (uint32_t)g->limit)
        fail_msg("seed %llu: a place is free and somebody waits", (unsigned long long)p->seed);
}

static void depart(play *p)
{
    outr_list let_in, refused;
    call *c = OUTR_CONTAINER(p->heap.nodes[0], call, node);
    outr_list_init(&let_in);
    outr_list_init(&refused);
    p->now = c->node.key;
    outr_heap_remove(&p->heap, &c->node);
    if (c->is_waiting) {
        outr_gradient_forget(&p->gate, &c->waiter);
        end(p, c);
        return;
    }
    bool is_good = p->now - c->came_ns <= PATIENCE_NS;
    p->good += is_good;
    p->urgent_good += is_good && c->is_urgent;
    p->busy--;
    end(p, c);
    work(p);
    if (p->has_gate)
        outr_gradient_leave(&p->gate, c->started_ns, true, p->now, &let_in, &refused);
    settle(p, &let_in, &refused);
}

static void run(play *p, uint64_t duration_ns)
{
    uint64_t until = p->now + duration_ns;
    p->offered = p->good = p->urgent_offered = p->urgent_good = p->begun = p->worst_wait_ns = 0;
    for (;;) {
        uint64_t due = p->heap.count ? p->heap.nodes[0]->key : UINT64_MAX;
        if (OUTR_MIN(due, p->next_ns) >= until)
            break;
        if (due <= p->next_ns) {
            depart(p);
        } else {
            p->now = p->next_ns;
            p->next_ns = p->now + (uint64_t)exponential(p, p->gap_ns) + 1;
            arrive(p);
        }
        if (p->has_gate)
            check(p);
    }
    p->now = until;
}

static void load(play *p, double times)
{
    p->gap_ns = p->mean_ns / p->workers / times;
    p->next_ns = p->now + 1;
}

static play *open_play(uint64_t seed, unsigned workers, double mean_ms, service how, bool has_gate)
{
    play *p = outr_alloc(sizeof *p);
    p->seed = seed;
    p->now = OUTR_SEC;
    outr_rand_seed(&p->rand, seed);
    p->service = how;
    p->workers = workers;
    p->mean_ns = mean_ms * OUTR_MS;
    p->has_gate = has_gate;
    outr_list_init(&p->app_queue);
    outr_list_init(&p->spare);
    for (size_t i = 0; i < CALLS_MAX; i++)
        outr_list_push(&p->spare, &p->calls[i].link);
    const outr_gradient_options o = {3, 1000, 5, 1000, 5 * OUTR_MS, 100 * OUTR_MS};
    outr_gradient_init(&p->gate, &o, p->now);
    return p;
}

static void close_play(play *p)
{
    outr_heap_done(&p->heap);
    free(p);
}

static double able(const play *p, double seconds) /* calls that the app can do */
{
    return seconds * p->workers / (p->mean_ns / OUTR_SEC);
}

static void without_it_an_overloaded_app_works_for_nobody(void **state)
{
    (void)state;
    play *p = open_play(1, 10, 20, RANDOM, false);
    load(p, 5);
    run(p, 10 * OUTR_SEC);
    run(p, 10 * OUTR_SEC);
    assert_true((double)p->good < 0.1 * able(p, 10));
    close_play(p);
}

/* Like the bar: goodput at five times the load, of apps small and large, quick and slow. */
static void at_five_times_the_load_nine_tenths_are_done_in_time(void **state)
{
    (void)state;
    static const struct {
        unsigned workers;
        double mean_ms;
    } apps[] = {{1, 2}, {1, 20}, {4, 5}, {4, 50}, {10, 20}, {50, 10}, {100, 50}, {200, 20}};
    uint64_t first = getenv("OUTRIGGER_SEED") ? strtoull(getenv("OUTRIGGER_SEED"), NULL, 10) : 1;
    uint64_t seeds = getenv("OUTRIGGER_SEEDS") ? strtoull(getenv("OUTRIGGER_SEEDS"), NULL, 10) : 1;
    for (size_t i = 0; i < OUTR_LEN(apps); i++) {
        for (service how = EVEN; how <= MIXED; how++) {
            for (uint64_t seed = first; seed < first + seeds; seed++) {
                play *p = open_play(seed, apps[i].workers, apps[i].mean_ms, how, true);
                load(p, 5);
                run(p, 10 * OUTR_SEC);
                run(p, 20 * OUTR_SEC);
                double share = (double)p->good / able(p, 20);
                if (getenv("OUTRIGGER_VERBOSE"))
                    print_message("%u x %.0f ms, %d, seed %llu: %.3f, limit %.1f, base %.1f ms\n",
                                  apps[i].workers, apps[i].mean_ms, how, (unsigned long long)seed,
                                  share, p->gate.limit, (double)p->gate.base_ns[0] / OUTR_MS);
                if (share < 0.9)
                    fail_msg(
                        "%u workers of %.0f ms, service %d, seed %llu: %.3f of what it can do, "
                        "limit %.1f",
                        apps[i].workers, apps[i].mean_ms, how, (unsigned long long)seed, share,
                        p->gate.limit);
                close_play(p);
            }
        }
    }
}

static void below_its_capacity_nobody_is_refused(void **state)
{
    (void)state;
    for (unsigned workers = 1; workers <= 64; workers *= 4) {
        play *p = open_play(workers, workers, 20, EVEN, true);
        load(p, 0.5);
        run(p, 5 * OUTR_SEC);
        run(p, 20 * OUTR_SEC);
        if ((double)p->good < 0.99 * (double)p->offered)
            fail_msg("%u workers: %llu of %llu", workers, (unsigned long long)p->good,
                     (unsigned long long)p->offered);
        close_play(p);
    }
}

static void urgent_calls_get_through_whatever_else_comes(void **state)
{
    (void)state;
    play *p = open_play(3, 10, 20, RANDOM, true);
    p->urgent_share = 0.05;
    load(p, 5);
    run(p, 5 * OUTR_SEC);
    run(p, 20 * OUTR_SEC);
    assert_true((double)p->urgent_good > 0.99 * (double)p->urgent_offered);
    assert_true((double)p->good > 0.9 * able(p, 20));
    close_play(p);
}

static void an_app_that_becomes_slower_or_quicker_is_followed(void **state)
{
    (void)state;
    play *p = open_play(4, 10, 20, EVEN, true);
    static const double means[] = {60, 20, 5, 20};
    for (size_t i = 0; i < OUTR_LEN(means); i++) {
        p->mean_ns = means[i] * OUTR_MS;
        load(p, 5);
        run(p, 15 * OUTR_SEC);
        run(p, 10 * OUTR_SEC);
        double share = (double)p->good / able(p, 10);
        if (share < 0.9)
            fail_msg("at %.0f ms: %.3f, limit %.1f", means[i], share, p->gate.limit);
    }
    close_play(p);
}

static void when_the_load_is_gone_all_are_served_again(void **state)
{
    (void)state;
    play *p = open_play(5, 10, 20, RANDOM, true);
    load(p, 5);
    run(p, 10 * OUTR_SEC);
    load(p, 0.5);
    run(p, OUTR_SEC);
    run(p, 10 * OUTR_SEC);
    assert_true((double)p->good > 0.99 * (double)p->offered);
    close_play(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_it_an_overloaded_app_works_for_nobody),
        cmocka_unit_test(at_five_times_the_load_nine_tenths_are_done_in_time),
        cmocka_unit_test(below_its_capacity_nobody_is_refused),
        cmocka_unit_test(urgent_calls_get_through_whatever_else_comes),
        cmocka_unit_test(an_app_that_becomes_slower_or_quicker_is_followed),
        cmocka_unit_test(when_the_load_is_gone_all_are_served_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
