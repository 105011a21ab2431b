/* Ops in families on one loop: what works, what waits, what cannot be stopped, with deadlines, while
 * some are cancelled, end early, start children of their own or end their relatives, in any order.
 * Whatever happens: each op is done once, with a reason that can be; never before its start
 * returned; not past its deadline when it can be stopped; no child ends after the parent that was
 * cancelled and waits for it; nothing is left at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/wire.h"

#define SEEDS    300
#define OPS      300
#define STEP_MAX 5 /* nanoseconds the clock moves at once */

typedef enum kind { SLEEPER, STOPPED_LATER, UNSTOPPABLE, AT_ONCE, FAMILY, KINDS } kind;

typedef struct member {
    outr_op op;
    struct world *world;
    kind kind;
    unsigned begun, done;
    bool is_in_start;
    uint64_t began_at;
    uint64_t ends_at; /* when it ends by itself */
    outr_timer timer;
    outr_deferred later;
    outr_code own_code; /* its result when nobody cancels it */
    bool was_cancelled; /* by hand, itself or above it */
    struct member *parent;
} member;

typedef struct world {
    wire w;
    uint64_t seed;
    member members[OPS];
    size_t count;
    unsigned ended, ok, cancelled, late, failed;
} world;

static uint64_t dice(world *w, uint64_t sides)
{
    return outr_rand_below(&w->w.rand, sides);
}

static member *any(world *w)
{
    return w->count ? &w->members[dice(w, w->count)] : NULL;
}

static void fail_at(const member *m, const char *what)
{
    fail_msg("seed %llu, op %zu (kind %d): %s", (unsigned long long)m->world->seed,
             (size_t)(m - m->world->members), m->kind, what);
}

static void start_one(world *w, member *parent);

static void mark_cancelled(member *m)
{
    world *w = m->world;
    m->was_cancelled = true;
    for (size_t i = 0; i < w->count; i++) {
        if (w->members[i].parent == m && !w->members[i].done && !w->members[i].was_cancelled)
            mark_cancelled(&w->members[i]);
    }
}

static void cancel(member *m)
{
    if (!outr_op_is_pending(&m->op))
        return;
    mark_cancelled(m);
    outr_op_cancel(&m->op, dice(m->world, 2) ? OUTR_CANCELLED : OUTR_DEADLINE_EXCEEDED);
}

static void count(member *m)
{
    world *w = m->world;
    w->ended++;
    switch (m->op.err.code) {
    case OUTR_OK:
        w->ok++;
        break;
    case OUTR_CANCELLED:
        w->cancelled++;
        break;
    case OUTR_DEADLINE_EXCEEDED:
        w->late++;
        break;
    default:
        w->failed++;
    }
}

static void on_done(outr_op *op)
{
    member *m = OUTR_CONTAINER(op, member, op);
    world *w = m->world;
    outr_code code = op->err.code;
    bool has_deadline = op->deadline_ns != 0, is_past = has_deadline && w->w.now >= op->deadline_ns;
    if (m->done++)
        fail_at(m, "is done twice");
    if (m->is_in_start)
        fail_at(m, "is done inside its start");
    if (code != m->own_code && code != OUTR_CANCELLED && code != OUTR_DEADLINE_EXCEEDED)
        fail_at(m, "has a result nobody gave it");
    if (code == OUTR_DEADLINE_EXCEEDED && !is_past && !m->was_cancelled)
        fail_at(m, "ends by a deadline that is still to come");
    if (code == OUTR_CANCELLED && !m->was_cancelled)
        fail_at(m, "was cancelled by nobody");
    if (m->kind == SLEEPER && has_deadline &&
        w->w.now > OUTR_MAX(op->deadline_ns, m->began_at) + STEP_MAX)
        fail_at(m, "outlives its deadline");
    count(m);
    for (size_t i = 0; i < w->count; i++) { /* orphans */
        if (w->members[i].parent == m)
            w->members[i].parent = NULL;
    }
    outr_timer_stop(w->w.loop, &m->timer);
    outr_loop_undefer(&m->later);
    switch (dice(w, 8)) { /* what callers do when something ends */
    case 0:
        cancel(any(w));
        break;
    case 1:
        if (m->parent)
            cancel(m->parent);
        break;
    case 2:
        start_one(w, m->parent);
        break;
    default:
        break;
    }
    memset(&m->op, 0xa5,
           sizeof m->op - sizeof m->op.state); /* it may be freed: nobody looks again */
    m->op.state = 99;
}

static void end_by_itself(member *m)
{
    outr_err err;
    if (m->own_code == OUTR_OK) {
        outr_op_finish(&m->op);
        return;
    }
    outr_fail(&err, m->own_code, "its own failure");
    outr_op_fail(&m->op, &err);
}

static void on_time(outr_timer *timer)
{
    end_by_itself(OUTR_CONTAINER(timer, member, timer));
}

static void on_later(outr_deferred *deferred)
{
    end_by_itself(OUTR_CONTAINER(deferred, member, later));
}

/* Stops with the next turn, or only some time after. */
static void stop_later(outr_op *op)
{
    member *m = OUTR_CONTAINER(op, member, op);
    world *w = m->world;
    if (dice(w, 2)) {
        outr_loop_defer(w->w.loop, &m->later);
        return;
    }
    m->timer.fire = on_time;
    outr_timer_start(w->w.loop, &m->timer, w->w.now + dice(w, 20));
}

static void start(member *m)
{
    world *w = m->world;
    switch (m->kind) {
    case SLEEPER:
        outr_sleep_start(m->ends_at, &m->op);
        return;
    case AT_ONCE: {
        outr_err err;
        outr_op_begin(&m->op, m, stop_later);
        outr_fail(&err, m->own_code, "its own failure");
        if (m->own_code)
            outr_op_fail_soon(&m->op, &err);
        else
            outr_op_finish_soon(&m->op);
        return;
    }
    default:
        outr_op_begin(&m->op, m, m->kind == STOPPED_LATER ? stop_later : NULL);
        m->timer.fire = on_time;
        outr_timer_start(w->w.loop, &m->timer, m->ends_at);
    }
}

static void start_one(world *w, member *parent)
{
    if (w->count == OPS)
        return;
    member *m = &w->members[w->count++];
    uint64_t deadline = dice(w, 3) ? 0 : w->w.now + dice(w, 100);
    /* Those with a hook end their children themselves, and these here do not. */
    bool may_have =
        parent && !parent->done && (parent->kind == FAMILY || parent->kind == UNSTOPPABLE);
    m->world = w;
    m->kind = (kind)dice(w, KINDS);
    m->own_code = dice(w, 4) || m->kind == SLEEPER ? OUTR_OK : OUTR_ABORTED;
    m->began_at = w->w.now;
    m->ends_at = w->w.now + dice(w, 200);
    m->later.run = on_later;
    m->parent = may_have ? parent : NULL;
    m->was_cancelled = m->parent && m->parent->was_cancelled;
    outr_op_init(&m->op, w->w.loop, m->parent ? &m->parent->op : NULL, deadline, on_done);
    if (m->parent && m->parent->op.deadline_ns &&
        (!m->op.deadline_ns || m->op.deadline_ns > m->parent->op.deadline_ns))
        fail_at(m, "has a later deadline than its parent");
    m->is_in_start = true;
    start(m);
    m->is_in_start = false;
    m->begun++;
}

static void check_orders(world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        member *m = &w->members[i];
        if (m->done || m->began_at == w->w.now || m->kind == UNSTOPPABLE || m->kind == FAMILY)
            continue;
        /* A turn has passed since: whoever can be stopped has been told. */
        if (m->parent && outr_op_is_cancelled(&m->parent->op) && !outr_op_is_cancelled(&m->op))
            fail_at(m, "goes on although its parent was cancelled");
        if (m->op.deadline_ns && m->op.deadline_ns < w->w.now && !outr_op_is_cancelled(&m->op))
            fail_at(m, "goes on past its deadline");
    }
}

static void run_world(uint64_t seed, world *total)
{
    world *w = outr_alloc(sizeof *w);
    wire_init(&w->w, seed);
    w->seed = seed;
    for (unsigned step = 0; step < 400; step++) {
        for (uint64_t n = dice(w, 4); n > 0; n--)
            start_one(w, dice(w, 3) ? any(w) : NULL);
        if (dice(w, 5) == 0 && w->count)
            cancel(any(w));
        wire_run(&w->w);
        w->w.now += 1 + dice(w, STEP_MAX);
        wire_run(&w->w);
        wire_sleep(&w->w, 1);
        check_orders(w);
    }
    wire_sleep(&w->w, 1000);
    for (size_t i = 0; i < w->count; i++) {
        if (w->members[i].done != 1)
            fail_at(&w->members[i], "never ends");
    }
    assert_int_equal(outr_loop_tick(w->w.loop), UINT64_MAX); /* no timer left */
    total->ended += w->ended;
    total->ok += w->ok;
    total->cancelled += w->cancelled;
    total->late += w->late;
    total->failed += w->failed;
    wire_done(&w->w);
    free(w);
}

static void every_op_ends_once_whatever_happens_around_it(void **state)
{
    uint64_t first = 1, count_seeds = SEEDS;
    world *total = outr_alloc(sizeof *total);
    (void)state;
    if (outr_str_to_u64(outr_str_from(getenv("OUTRIGGER_SEED")), UINT64_MAX, &first))
        count_seeds = 1;
    for (uint64_t seed = first; seed < first + count_seeds; seed++)
        run_world(seed, total);
    print_message("seeds %llu to %llu: %u ops: %u succeeded, %u cancelled, %u late, %u failed\n",
                  (unsigned long long)first, (unsigned long long)(first + count_seeds - 1),
                  total->ended, total->ok, total->cancelled, total->late, total->failed);
    if (count_seeds > 1) /* all of it really happens */
        assert_true(total->ok > 100 && total->cancelled > 100 && total->late > 100 &&
                    total->failed > 100);
    free(total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_ends_once_whatever_happens_around_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
