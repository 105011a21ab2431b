#include "mesh/gradient.h"

#include <math.h>

#define TOLERANCE      1.5             /* answers may take so many times as long as unhindered */
#define SLACK_NS       (1.0 * OUTR_MS) /* and this much more: what a busy machine adds */
#define STEEPEST       0.5             /* of the limit stays in one step, at least */
#define SMOOTHING      0.5
#define WINDOW_NS      (100 * OUTR_MS)
#define WINDOW_LONG_NS OUTR_SEC /* few calls: then fewer are enough */
#define SAMPLES        25
#define SAMPLES_FEW    5
#define STARTING       1.5 /* the limit grows so much in a window, until it has been too high */
#define DIP            0.6
#define DIP_SOON       2 /* windows from one dip to the next: while they find something */
#define DIP_LATE       32
#define DIP_LATE_NS    (20 * OUTR_SEC)
#define DIP_FOUND      0.95
#define BASE_TURN_NS   (10 * OUTR_SEC) /* without dips, which are for when it is full */

static void restart_window(outr_gradient *c, uint64_t now)
{
    c->window.start_ns = now;
    c->window.count = c->window.sum_ns = 0;
    c->window.is_full = c->in_flight >= (uint32_t)c->limit;
}

void outr_gradient_init(outr_gradient *c, const outr_gradient_options *o, uint64_t now)
{
    *c = (outr_gradient){.o = *o, .dip_every = DIP_SOON, .is_starting = true};
    c->limit = o->initial;
    c->base_turn_ns = now;
    outr_list_init(&c->urgent);
    outr_list_init(&c->queue);
    restart_window(c, now);
}

static void set_limit(outr_gradient *c, double limit)
{
    c->limit = fmin(fmax(limit, c->o.min), c->o.max);
}

void outr_gradient_set(outr_gradient *c, const outr_gradient_options *o)
{
    c->o = *o;
    set_limit(c, c->limit);
}

/* ---- the queue ------------------------------------------------------------------------------- */

bool outr_gradient_is_over(const outr_gradient *c, uint64_t now)
{
    return c->waiting > 0 && now >= c->filled_ns + c->o.interval_ns;
}

static outr_waiter *waiter_of(outr_link *link)
{
    return OUTR_LIST_ITEM(link, outr_waiter, link);
}

void outr_gradient_forget(outr_gradient *c, outr_waiter *waiter)
{
    if (!outr_link_is_in(&waiter->link))
        return;
    outr_link_remove(&waiter->link);
    c->waiting--;
}

static void move(outr_gradient *c, outr_waiter *waiter, outr_list *to)
{
    outr_gradient_forget(c, waiter);
    outr_list_push(to, &waiter->link);
}

static void refuse_late(outr_gradient *c, uint64_t now, outr_list *refused)
{
    if (!outr_gradient_is_over(c, now))
        return;
    while (!outr_list_is_empty(&c->queue) && c->queue.next != c->queue.prev &&
           now > waiter_of(c->queue.next)->since_ns + c->o.target_ns)
        move(c, waiter_of(c->queue.next), refused);
}

/* Who would be served last makes room for one that goes before. False: nobody does. */
static bool make_room(outr_gradient *c, const outr_waiter *for_whom, uint64_t now,
                      outr_list *refused)
{
    bool is_over = outr_gradient_is_over(c, now);
    if (outr_list_is_empty(&c->queue) || (!is_over && !for_whom->is_urgent))
        return false;
    move(c, waiter_of(is_over ? c->queue.next : c->queue.prev), refused);
    return true;
}

static bool is_room(const outr_gradient *c)
{
    return c->in_flight < (uint32_t)c->limit;
}

static void enter(outr_gradient *c)
{
    c->in_flight++;
    c->window.is_full |= !is_room(c);
}

static void let_in_who_fits(outr_gradient *c, uint64_t now, outr_list *let_in, outr_list *refused)
{
    refuse_late(c, now, refused);
    while (c->waiting > 0 && is_room(c)) {
        bool is_over = outr_gradient_is_over(c, now);
        outr_link *next = !outr_list_is_empty(&c->urgent) ? c->urgent.next
                          : is_over                       ? c->queue.prev
                                                          : c->queue.next;
        move(c, waiter_of(next), let_in);
        enter(c);
    }
}

static void give_up_dip(outr_gradient *c, uint64_t now)
{
    if (!c->before_dip || now < c->dip_until_ns)
        return;
    set_limit(c, c->before_dip);
    c->before_dip = 0;
    c->is_draining = false;
    c->dip_every = DIP_LATE;
    c->since_dip = 0;
    restart_window(c, now);
}

outr_entry outr_gradient_enter(outr_gradient *c, outr_waiter *waiter, uint64_t now,
                               outr_list *let_in, outr_list *refused)
{
    waiter->since_ns = now;
    give_up_dip(c, now);
    if (is_room(c) && c->waiting == 0) {
        enter(c);
        return OUTR_ENTRY_IN;
    }
    refuse_late(c, now, refused);
    if (c->waiting >= c->o.queue && !make_room(c, waiter, now, refused))
        return OUTR_ENTRY_REFUSED;
    if (c->waiting++ == 0)
        c->filled_ns = now;
    outr_list_push(waiter->is_urgent ? &c->urgent : &c->queue, &waiter->link);
    let_in_who_fits(c, now, let_in, refused); /* a dip may have been given up */
    return OUTR_ENTRY_WAITS;
}

/* ---- the limit ------------------------------------------------------------------------------- */

static uint64_t shorter(uint64_t a, uint64_t b)
{
    return a && (!b || a < b) ? a : b;
}

static uint64_t base_of(const outr_gradient *c)
{
    return shorter(c->base_ns[0], c->base_ns[1]);
}

/* What is remembered from now on is new; what was before the last turn is forgotten. */
static void turn_base(outr_gradient *c, uint64_t mean_ns, uint64_t now)
{
    c->base_ns[1] = c->base_ns[0];
    c->base_ns[0] = mean_ns;
    c->base_turn_ns = now;
}

static void end_dip(outr_gradient *c, uint64_t mean_ns, uint64_t now)
{
    bool has_found = (double)mean_ns < (double)base_of(c) * DIP_FOUND;
    c->dip_every = has_found ? DIP_SOON : OUTR_MIN(c->dip_every * 2, (uint32_t)DIP_LATE);
    c->since_dip = 0;
    turn_base(c, mean_ns, now);
    set_limit(c, c->before_dip);
    c->before_dip = 0;
}

static void begin_dip(outr_gradient *c, uint64_t mean_ns, uint64_t now)
{
    double able = c->limit * fmin(1, (double)base_of(c) / (double)mean_ns);
    c->before_dip = c->limit;
    set_limit(c, floor(able * DIP));
    c->dip_until_ns = now + OUTR_MAX((uint64_t)WINDOW_LONG_NS, 8 * mean_ns);
    c->is_draining = true;
}

static void adjust(outr_gradient *c, uint64_t mean_ns, uint64_t now)
{
    c->base_ns[0] = shorter(mean_ns, c->base_ns[0]);
    if (!c->window.is_full) {
        if (now - c->base_turn_ns > BASE_TURN_NS)
            turn_base(c, mean_ns, now);
        return;
    }
    double fine = TOLERANCE * (double)base_of(c) + SLACK_NS;
    double gradient = fmax(STEEPEST, fmin(1, fine / (double)mean_ns));
    c->is_starting &= gradient >= 1;
    if (c->is_starting) {
        set_limit(c, c->limit * STARTING);
        return;
    }
    double to = c->limit * gradient + sqrt(c->limit);
    set_limit(c, c->limit + SMOOTHING * (to - c->limit));
    c->since_dip++;
    if (c->since_dip >= c->dip_every ||
        (c->since_dip >= DIP_SOON && now - c->base_turn_ns > DIP_LATE_NS))
        begin_dip(c, mean_ns, now);
}

static void measure(outr_gradient *c, uint64_t started_ns, bool is_good, uint64_t now)
{
    uint64_t took = now - started_ns, elapsed = now - c->window.start_ns;
    if (c->is_draining) {
        c->is_draining = c->in_flight > (uint32_t)c->limit;
        if (!c->is_draining)
            restart_window(c, now);
        return;
    }
    if (started_ns < c->window.start_ns || (!is_good && took <= base_of(c)))
        return;
    c->window.sum_ns += OUTR_MAX(took, (uint64_t)1);
    c->window.count++;
    uint64_t mean = c->window.sum_ns / c->window.count;
    bool is_enough = elapsed >= OUTR_MAX((uint64_t)WINDOW_NS, 2 * mean) &&
                     (c->window.count >= SAMPLES ||
                      (elapsed >= WINDOW_LONG_NS && c->window.count >= SAMPLES_FEW));
    if (!is_enough)
        return;
    if (c->before_dip > 0)
        end_dip(c, mean, now);
    else
        adjust(c, mean, now);
    restart_window(c, now);
}

void outr_gradient_leave(outr_gradient *c, uint64_t started_ns, bool is_good, uint64_t now,
                         outr_list *let_in, outr_list *refused)
{
    c->in_flight--;
    give_up_dip(c, now);
    measure(c, started_ns, is_good, now);
    let_in_who_fits(c, now, let_in, refused);
}

void outr_gradient_return(outr_gradient *c, uint64_t now, outr_list *let_in, outr_list *refused)
{
    c->in_flight--;
    let_in_who_fits(c, now, let_in, refused);
}
