/* gradient - how many calls the app gets at once, found by how long it takes, and who waits.
 * Decisions only: times come in, nanoseconds, and now may be a little behind another loop's; no
 * I/O, no lock.
 *
 * The limit follows the gradient of latency (Netflix' concurrency-limits, Envoy's adaptive
 * concurrency): as long as answers take about as long as they do unhindered it grows, when they
 * take longer it shrinks. How long they take unhindered is the shortest mean of lately; it is found
 * anew by short dips below what the app seems able to do (as BBR drains its queue), never by
 * pinning to a few calls, so a busy app stays busy meanwhile.
 *
 * Those that find no place wait, the first come first. When the queue has not been empty for
 * interval_ns they are too many for all to be served: then the newest one is next, and who has
 * waited for target_ns is refused (CoDel and adaptive LIFO of "Fail at Scale", ACM Queue 2015), but
 * for the newest one, so that no place is free while somebody waits. Nobody waits longer than
 * interval_ns, which is the owner's to see to (outr_gradient_forget). */
#ifndef OUTR_MESH_GRADIENT_H
#define OUTR_MESH_GRADIENT_H

#include "base/list.h"

typedef struct outr_gradient_options {
    uint32_t min, max, initial; /* 1 <= min <= initial <= max */
    uint32_t queue;             /* who waits at most */
    uint64_t target_ns, interval_ns;
} outr_gradient_options;

typedef struct outr_waiter {
    outr_link link;
    uint64_t since_ns;
    bool is_urgent; /* in: goes before others, and is not refused for having waited */
} outr_waiter;

typedef struct outr_gradient {
    outr_gradient_options o;
    double limit;
    uint32_t in_flight;
    uint32_t waiting;        /* in both lists */
    outr_list urgent, queue; /* the oldest in front */
    uint64_t filled_ns;      /* since when the queue has not been empty */
    /* what is measured: calls that began after start and are over */
    struct {
        uint64_t start_ns, count, sum_ns;
        bool is_full; /* all places were taken at some time */
    } window;
    uint64_t
        base_ns[2]; /* shortest means: since the last dip, and between the two before; 0: none */
    uint64_t base_turn_ns;         /* when they took turns */
    double before_dip;             /* the limit; 0: this is no dip */
    uint32_t since_dip, dip_every; /* windows */
    uint64_t dip_until_ns;         /* it is given up then: some calls do not end */
    bool is_starting;              /* it grows fast */
    bool is_draining;              /* of a dip: more calls are in hand than it allows */
} outr_gradient;

void outr_gradient_init(outr_gradient *c, const outr_gradient_options *o, uint64_t now);
/* Other numbers from now on; who is in or waits stays. */
void outr_gradient_set(outr_gradient *c, const outr_gradient_options *o);

typedef enum outr_entry { OUTR_ENTRY_IN, OUTR_ENTRY_WAITS, OUTR_ENTRY_REFUSED } outr_entry;
/* let_in, refused: those that wait no more because of it, linked in; the caller's. The one that
 * came, which WAITS, may be in let_in at once. */
outr_entry outr_gradient_enter(outr_gradient *c, outr_waiter *waiter, uint64_t now,
                               outr_list *let_in, outr_list *refused);
/* A call that was let in at started_ns is over. is_good: else how long it took says something only
 * if that was long. */
void outr_gradient_leave(outr_gradient *c, uint64_t started_ns, bool is_good, uint64_t now,
                         outr_list *let_in, outr_list *refused);
/* It waits no more. Nothing when it does not wait. */
void outr_gradient_forget(outr_gradient *c, outr_waiter *waiter);
/* It was let in and has not begun: as if it had not been. */
void outr_gradient_return(outr_gradient *c, uint64_t now, outr_list *let_in, outr_list *refused);
/* Too many for all to be served. */
bool outr_gradient_is_over(const outr_gradient *c, uint64_t now);

#endif
