#include "mesh/throttle.h"

#include <math.h>
#include <pthread.h>

#include "mesh/reasons.h"

struct outr_throttle {
    uint32_t refs; /* atomic */
    /* One app is behind all loops, and a place that one of them frees may be the next one's on
     * another. Held for a few comparisons, some 50 ns. Before a port's. */
    pthread_mutex_t lock;
    outr_gradient gradient;
    double told; /* what the loops' gauges add up to */
    bool is_retired;
};

/* What was decided of its tickets, by whichever loop. */
struct outr_throttle_port {
    uint32_t refs; /* atomic: its owner's, and of a message under way */
    outr_loop *loop;
    pthread_mutex_t lock; /* of decided: others put in, the loop takes out */
    outr_list decided;
    outr_message message;
    uint8_t is_posted; /* atomic */
    bool is_freed;
    outr_deferred deferred; /* for what this loop decided itself */
};

typedef struct decisions {
    outr_list let_in, refused;
} decisions;

outr_throttle *outr_throttle_new(const outr_gradient_options *options, uint64_t now)
{
    outr_throttle *t = outr_alloc(sizeof *t);
    t->refs = 1;
    pthread_mutex_init(&t->lock, NULL);
    outr_gradient_init(&t->gradient, options, now);
    return t;
}

outr_throttle *outr_throttle_ref(outr_throttle *t)
{
    __atomic_fetch_add(&t->refs, 1, __ATOMIC_RELAXED);
    return t;
}

void outr_throttle_unref(outr_throttle *t)
{
    if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    pthread_mutex_destroy(&t->lock);
    free(t);
}

outr_throttle_state outr_throttle_look(outr_throttle *t)
{
    pthread_mutex_lock(&t->lock);
    const outr_gradient *c = &t->gradient;
    const outr_throttle_state state = {c->limit, c->in_flight, c->waiting};
    pthread_mutex_unlock(&t->lock);
    return state;
}

/* Each loop adds to its own what has changed since any of them did. */
static void tell_limit(outr_loop *loop, double change)
{
    static const outr_metric_desc limit = {"outrigger_inbound_concurrency_limit",
                                           "calls that the app gets at once, as found",
                                           OUTR_GAUGE,
                                           0,
                                           {NULL}};
    if (change < 0 || change > 0)
        outr_metric_add(outr_metric_series_get(outr_loop_metrics(loop), &limit, NULL), change);
}

/* Under the lock. */
static double change_of(outr_throttle *t)
{
    double now = t->is_retired ? 0 : floor(t->gradient.limit), change = now - t->told;
    t->told = now;
    return change;
}

void outr_throttle_retire(outr_throttle *t, outr_loop *loop)
{
    pthread_mutex_lock(&t->lock);
    t->is_retired = true;
    double change = change_of(t);
    pthread_mutex_unlock(&t->lock);
    tell_limit(loop, change);
}

/* ---- ports ----------------------------------------------------------------------------------- */

static void unref_port(outr_throttle_port *port)
{
    if (__atomic_sub_fetch(&port->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    pthread_mutex_destroy(&port->lock);
    free(port);
}

static void on_held(outr_timer *timer)
{
    outr_ticket_return(OUTR_CONTAINER(timer, outr_ticket, timer));
}

static void begin(outr_ticket *ticket)
{
    outr_loop *loop = ticket->port->loop;
    ticket->state = OUTR_TICKET_IN;
    ticket->began_ns = outr_loop_now(loop);
    ticket->timer.fire = on_held;
    outr_timer_start(loop, &ticket->timer, ticket->began_ns + OUTR_THROTTLE_HOLD_NS);
}

static void end_wait(outr_ticket *ticket)
{
    outr_op *op = ticket->op;
    outr_loop *loop = ticket->port->loop;
    bool is_in = ticket->state == OUTR_TICKET_LET_IN;
    outr_err err;
    outr_timer_stop(loop, &ticket->timer);
    if (is_in) {
        begin(ticket);
        outr_op_finish(op);
        return;
    }
    outr_throttle_unref(ticket->throttle);
    ticket->state = OUTR_TICKET_NONE;
    outr_fail(&err, OUTR_UNAVAILABLE, "the app has more calls than it can serve");
    outr_mark(&err, OUTR_WHY_OVERLOADED);
    outr_op_fail(op, &err);
}

static outr_ticket *next_decided(outr_throttle_port *port)
{
    pthread_mutex_lock(&port->lock);
    outr_link *link = outr_list_pop(&port->decided);
    pthread_mutex_unlock(&port->lock);
    return link ? OUTR_CONTAINER(OUTR_LIST_ITEM(link, outr_waiter, link), outr_ticket, waiter)
                : NULL;
}

/* Each may end others, or the port. */
static void tell_decided(outr_throttle_port *port)
{
    outr_ticket *ticket;
    __atomic_fetch_add(&port->refs, 1, __ATOMIC_RELAXED);
    while (!port->is_freed && (ticket = next_decided(port)) != NULL)
        end_wait(ticket);
    unref_port(port);
}

static void on_message(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr_throttle_port *port = OUTR_CONTAINER(message, outr_throttle_port, message);
    __atomic_store_n(&port->is_posted, 0, __ATOMIC_RELEASE);
    tell_decided(port);
    unref_port(port);
}

static void on_deferred(outr_deferred *deferred)
{
    tell_decided(OUTR_CONTAINER(deferred, outr_throttle_port, deferred));
}

outr_throttle_port *outr_throttle_port_new(outr_loop *loop)
{
    outr_throttle_port *port = outr_alloc(sizeof *port);
    port->refs = 1;
    port->loop = loop;
    pthread_mutex_init(&port->lock, NULL);
    outr_list_init(&port->decided);
    port->message.run = on_message;
    port->deferred.run = on_deferred;
    return port;
}

void outr_throttle_port_free(outr_throttle_port *port)
{
    assert(outr_list_is_empty(&port->decided));
    outr_loop_undefer(&port->deferred);
    port->is_freed = true;
    unref_port(port);
}

/* Under the throttle's lock: the ticket's loop will hear of it. */
static void hand_over(outr_throttle_port *here, outr_list *from, int state)
{
    outr_link *link;
    while ((link = outr_list_pop(from)) != NULL) {
        outr_ticket *ticket =
            OUTR_CONTAINER(OUTR_LIST_ITEM(link, outr_waiter, link), outr_ticket, waiter);
        outr_throttle_port *port = ticket->port;
        ticket->state = state;
        pthread_mutex_lock(&port->lock);
        outr_list_push(&port->decided, link);
        pthread_mutex_unlock(&port->lock);
        if (port == here) {
            outr_loop_defer(port->loop, &port->deferred);
        } else if (__atomic_exchange_n(&port->is_posted, 1, __ATOMIC_ACQ_REL) == 0) {
            __atomic_fetch_add(&port->refs, 1, __ATOMIC_RELAXED);
            outr_loop_post(port->loop, &port->message);
        }
    }
}

static void begin_decisions(outr_throttle *t, decisions *d)
{
    outr_list_init(&d->let_in);
    outr_list_init(&d->refused);
    pthread_mutex_lock(&t->lock);
}

static void end_decisions(outr_throttle *t, decisions *d, outr_throttle_port *here)
{
    hand_over(here, &d->let_in, OUTR_TICKET_LET_IN);
    hand_over(here, &d->refused, OUTR_TICKET_REFUSED);
    pthread_mutex_unlock(&t->lock);
}

void outr_throttle_set(outr_throttle *t, const outr_gradient_options *options)
{
    pthread_mutex_lock(&t->lock);
    t->is_retired = false;
    outr_gradient_set(&t->gradient, options);
    pthread_mutex_unlock(&t->lock);
}

/* ---- tickets --------------------------------------------------------------------------------- */

static void leave_list(outr_throttle_port *port, outr_ticket *ticket)
{
    pthread_mutex_lock(&port->lock);
    outr_link_remove(&ticket->waiter.link);
    pthread_mutex_unlock(&port->lock);
}

/* It waits no more, whatever has been decided meanwhile. */
static void stop_waiting(outr_ticket *ticket)
{
    outr_throttle *t = ticket->throttle;
    decisions d;
    outr_timer_stop(ticket->port->loop, &ticket->timer);
    begin_decisions(t, &d);
    if (ticket->state == OUTR_TICKET_WAITS)
        outr_gradient_forget(&t->gradient, &ticket->waiter);
    else
        leave_list(ticket->port, ticket);
    if (ticket->state == OUTR_TICKET_LET_IN)
        outr_gradient_return(&t->gradient, outr_loop_now(ticket->port->loop), &d.let_in,
                             &d.refused);
    end_decisions(t, &d, ticket->port);
    ticket->state = OUTR_TICKET_NONE;
    outr_throttle_unref(t);
}

static void on_cancel(outr_op *op)
{
    stop_waiting(op->impl);
    outr_op_finish_soon(op);
}

static void on_too_late(outr_timer *timer)
{
    outr_ticket *ticket = OUTR_CONTAINER(timer, outr_ticket, timer);
    outr_op *op = ticket->op;
    outr_err err;
    stop_waiting(ticket);
    outr_fail(&err, OUTR_UNAVAILABLE, "the app has more calls than it can serve");
    outr_mark(&err, OUTR_WHY_OVERLOADED);
    outr_op_fail(op, &err);
}

outr_taken outr_ticket_take(outr_ticket *ticket, outr_throttle *t, outr_throttle_port *port,
                            bool is_urgent, outr_op *op)
{
    uint64_t now = outr_loop_now(port->loop);
    decisions d;
    *ticket = (outr_ticket){.waiter = {.is_urgent = is_urgent}, .port = port, .op = op};
    begin_decisions(t, &d);
    outr_entry entry =
        outr_gradient_enter(&t->gradient, &ticket->waiter, now, &d.let_in, &d.refused);
    uint64_t until = now + t->gradient.o.interval_ns;
    if (entry != OUTR_ENTRY_REFUSED)
        ticket->throttle = outr_throttle_ref(t);
    if (entry == OUTR_ENTRY_WAITS) {
        ticket->state = OUTR_TICKET_WAITS;
        outr_op_begin(op, ticket, on_cancel);
    }
    end_decisions(t, &d, port);
    if (entry == OUTR_ENTRY_REFUSED)
        return OUTR_TAKEN_NOT;
    if (entry == OUTR_ENTRY_WAITS) {
        ticket->timer.fire = on_too_late;
        outr_timer_start(port->loop, &ticket->timer, until);
        return OUTR_TAKEN_LATER;
    }
    begin(ticket);
    return OUTR_TAKEN;
}

static void end(outr_ticket *ticket, bool is_measured, bool is_good)
{
    outr_throttle *t = ticket->throttle;
    decisions d;
    if (ticket->state != OUTR_TICKET_IN)
        return;
    outr_loop *loop = ticket->port->loop;
    ticket->state = OUTR_TICKET_NONE;
    outr_timer_stop(loop, &ticket->timer);
    uint64_t now = is_measured ? outr_loop_update(loop) : outr_loop_now(loop);
    begin_decisions(t, &d);
    if (is_measured)
        outr_gradient_leave(&t->gradient, ticket->began_ns, is_good, now, &d.let_in, &d.refused);
    else
        outr_gradient_return(&t->gradient, now, &d.let_in, &d.refused);
    double change = change_of(t);
    end_decisions(t, &d, ticket->port);
    tell_limit(loop, change);
    outr_throttle_unref(t);
}

void outr_ticket_give_back(outr_ticket *ticket, bool is_good)
{
    end(ticket, true, is_good);
}

void outr_ticket_return(outr_ticket *ticket)
{
    end(ticket, false, false);
}
