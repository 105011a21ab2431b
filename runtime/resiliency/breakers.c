#include "resiliency/breakers.h"

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"

#define RULE_BYTES OUTR_MIB

typedef struct outr__box {
    outr_breaker breaker;
    outr_breakers *home; /* held by each ticket */
    outr_link link;      /* in lately, while it is in the map */
    uint32_t refs;       /* atomic: its tickets, and one while it is in the map */
    char key[];
} box;

struct outr_breakers {
    uint32_t refs; /* atomic */
    size_t max;
    outr_breaker_policy policy; /* its texts on arena */
    outr_breaker_rule rule;
    outr_arena *arena;
    int told; /* atomic */
    pthread_mutex_t lock; /* guards the rest, and what is in the boxes */
    outr_map *boxes;
    outr_list lately; /* least lately used first */
};

outr_breakers *outr_breakers_new(const outr_breaker_policy *policy, size_t max)
{
    outr_breakers *b = outr_alloc(sizeof *b);
    outr_cel *trip = NULL;
    b->refs = 1;
    b->max = OUTR_MAX(max, (size_t)1);
    b->arena = outr_arena_new(RULE_BYTES);
    b->policy = *policy;
    b->policy.name = outr_arena_str(b->arena, policy->name);
    b->policy.trip = outr_arena_str(b->arena, policy->trip);
    if (outr_cel_compile(&trip, b->arena, b->policy.trip, NULL))
        assert(!"the trip condition was checked when it was read");
    b->rule = (outr_breaker_rule){policy->max_requests, policy->interval_ns, policy->timeout_ns,
                                  trip};
    pthread_mutex_init(&b->lock, NULL);
    b->boxes = outr_map_new();
    outr_list_init(&b->lately);
    b->told = -1;
    return b;
}

outr_breakers *outr_breakers_ref(outr_breakers *b)
{
    __atomic_fetch_add(&b->refs, 1, __ATOMIC_RELAXED);
    return b;
}

void outr_breakers_unref(outr_breakers *b)
{
    if (!b || __atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    OUTR_LIST_EACH (link, &b->lately)
        free(OUTR_LIST_ITEM(link, box, link));
    outr_map_free(b->boxes);
    outr_arena_free(b->arena);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

bool outr_breakers_are_of(const outr_breakers *b, const outr_breaker_policy *p, size_t max)
{
    const outr_breaker_policy *mine = &b->policy;
    return b->max == OUTR_MAX(max, (size_t)1) && mine->max_requests == p->max_requests &&
           mine->interval_ns == p->interval_ns && mine->timeout_ns == p->timeout_ns &&
           outr_str_eq(mine->name, p->name) && outr_str_eq(mine->trip, p->trip);
}

/* ---- boxes: locked, but for unref ------------------------------------------------------------ */

static void unref_box(box *x)
{
    if (__atomic_sub_fetch(&x->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free(x);
}

static void drop_oldest(outr_breakers *b)
{
    outr_link *oldest = outr_list_pop(&b->lately);
    if (!oldest)
        return;
    box *x = OUTR_LIST_ITEM(oldest, box, link);
    outr_map_remove(b->boxes, outr_str_from(x->key));
    unref_box(x);
}

static box *make_box(outr_breakers *b, outr_str key, uint64_t now)
{
    box *x = outr_alloc(sizeof *x + key.n + 1);
    if (outr_map_count(b->boxes) >= b->max)
        drop_oldest(b);
    memcpy(x->key, key.p, key.n);
    x->home = b;
    x->refs = 1;
    outr_breaker_init(&x->breaker, &b->rule, now);
    outr_map_put(b->boxes, outr_str_from(x->key), x);
    return x;
}

/* ---- tickets --------------------------------------------------------------------------------- */

outr_breaker_state outr_breakers_take(outr_breakers *b, outr_str key, uint64_t now,
                                      outr_breaker_ticket *ticket)
{
    pthread_mutex_lock(&b->lock);
    box *x = outr_map_get(b->boxes, key);
    if (!x)
        x = make_box(b, key, now);
    outr_link_remove(&x->link);
    outr_list_push(&b->lately, &x->link);
    __atomic_fetch_add(&x->refs, 1, __ATOMIC_RELAXED);
    outr_breaker_state state = outr_breaker_now(&x->breaker, &b->rule, now);
    pthread_mutex_unlock(&b->lock);
    outr_breakers_ref(b);
    *ticket = (outr_breaker_ticket){.box = x};
    return state;
}

void outr_breakers_give(outr_breaker_ticket *ticket)
{
    box *x = ticket->box;
    if (!x)
        return;
    outr_breakers *b = x->home;
    outr_breakers_forget(ticket);
    unref_box(x);
    outr_breakers_unref(b);
    ticket->box = NULL;
}

outr_admission outr_breakers_admit(outr_breaker_ticket *ticket, uint64_t now,
                                   outr_breaker_state *state)
{
    outr_breakers *b = ticket->box->home;
    pthread_mutex_lock(&b->lock);
    *state = outr_breaker_now(&ticket->box->breaker, &b->rule, now);
    outr_admission rc =
        outr_breaker_admit(&ticket->box->breaker, &b->rule, now, &ticket->generation);
    pthread_mutex_unlock(&b->lock);
    ticket->is_admitted = rc == OUTR_ADMITTED;
    return rc;
}

outr_breaker_state outr_breakers_report(outr_breaker_ticket *ticket, uint64_t now, bool is_good)
{
    outr_breakers *b = ticket->box->home;
    pthread_mutex_lock(&b->lock);
    if (ticket->is_admitted)
        outr_breaker_report(&ticket->box->breaker, &b->rule, now, ticket->generation, is_good);
    outr_breaker_state state = outr_breaker_now(&ticket->box->breaker, &b->rule, now);
    pthread_mutex_unlock(&b->lock);
    ticket->is_admitted = false;
    return state;
}

void outr_breakers_forget(outr_breaker_ticket *ticket)
{
    outr_breakers *b = ticket->box->home;
    if (!ticket->is_admitted)
        return;
    pthread_mutex_lock(&b->lock);
    outr_breaker_forget(&ticket->box->breaker, ticket->generation);
    pthread_mutex_unlock(&b->lock);
    ticket->is_admitted = false;
}

bool outr_breakers_tell(const outr_breaker_ticket *ticket, outr_breaker_state state, int *before)
{
    int *told = &ticket->box->home->told;
    if (__atomic_load_n(told, __ATOMIC_RELAXED) == (int)state)
        return false;
    *before = __atomic_exchange_n(told, (int)state, __ATOMIC_RELAXED);
    return *before != (int)state;
}
