#include "mesh/lease.h"

#include <math.h>
#include <pthread.h>

#define LASTS_NS    (3 * OUTR_LEASE_SLICE_NS) /* who is late by a slice or two is still counted */
#define SOON_NS     (OUTR_LEASE_SLICE_NS / 2) /* a key that is new hastens others by so much */
#define TIMEOUT_NS  OUTR_SEC
#define AGAIN_NS    OUTR_SEC /* after a failure */
#define ARENA_BYTES (4 * OUTR_MIB)
#define LEAST       1000 /* of the rate's parts: nobody is without any, so he is heard of again */
#define GAP_MAX     (OUTR_RATE_INTERVAL_MAX * OUTR_RATE_PARTS * LEAST) /* of one a day */
#define NAME_MAX    1024
#define OWES_MAX    (UINT64_MAX / 8) /* so that times stay numbers */

typedef struct lease {
    outr_link link; /* the one asked for last stands last */
    uint64_t full_at, gap;
    uint64_t asked; /* since */
    uint64_t renewed_ns;
    double demand; /* a second */
    size_t key_n;
    char key[];
} lease;

struct outr_leases {
    uint32_t refs; /* atomic */
    outr_leases_options o;
    double rate; /* a second */
    /* A key's calls come on all loops. Held for a look-up, and while an answer is read. */
    pthread_mutex_t lock;
    outr_map *by_key;
    outr_list by_age;
    uint64_t renew_at_ns;
    uint64_t sharers; /* last heard of */
    bool is_renewing, is_away;
};

typedef struct renewal {
    outr_link link; /* of site; in none when that is done */
    outr_leases *leases;
    outr_state_share_call call;
    outr_op op;
} renewal;

double outr_lease_part(double rate, double mine, double others, uint64_t sharers)
{
    double all = mine + others;
    double part = all <= rate ? mine + (rate - all) / (double)(sharers + 1) : rate * mine / all;
    return fmax(part, rate / LEAST);
}

outr_leases *outr_leases_new(const outr_leases_options *options)
{
    outr_leases *l = outr_alloc(sizeof *l);
    outr_leases_options *o = &l->o;
    l->refs = 1;
    *o = *options;
    o->name = outr_str_of(outr_str_dup(options->name), options->name.n);
    o->store = outr_str_of(outr_str_dup(options->store), options->store.n);
    o->member = outr_str_of(outr_str_dup(options->member), options->member.n);
    o->burst = OUTR_MAX(o->burst, (uint64_t)1);
    l->rate =
        (double)o->requests * (double)OUTR_SEC / (double)OUTR_MAX(o->interval_ns, (uint64_t)1);
    pthread_mutex_init(&l->lock, NULL);
    l->by_key = outr_map_new();
    outr_list_init(&l->by_age);
    return l;
}

outr_leases *outr_leases_ref(outr_leases *l)
{
    __atomic_fetch_add(&l->refs, 1, __ATOMIC_RELAXED);
    return l;
}

void outr_leases_unref(outr_leases *l)
{
    if (!l || __atomic_sub_fetch(&l->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    while (!outr_list_is_empty(&l->by_age))
        free(OUTR_LIST_ITEM(outr_list_pop(&l->by_age), lease, link));
    outr_map_free(l->by_key);
    pthread_mutex_destroy(&l->lock);
    free((void *)l->o.name.p);
    free((void *)l->o.store.p);
    free((void *)l->o.member.p);
    free(l);
}

void outr_lease_site_init(outr_lease_site *site, outr_loop *loop, outr_state_share_fn *ask,
                          void *ctx)
{
    *site = (outr_lease_site){.loop = loop, .ask = ask, .ctx = ctx};
    outr_list_init(&site->renewals);
}

void outr_lease_site_done(outr_lease_site *site)
{
    outr_link *link;
    while ((link = outr_list_pop(&site->renewals)) != NULL)
        outr_op_cancel(&OUTR_LIST_ITEM(link, renewal, link)->op, OUTR_CANCELLED);
}

/* ---- one key --------------------------------------------------------------------------------- */

/* What it owes stays so many requests, however long a request takes to come back from now on. */
static void set_part(lease *e, double part, uint64_t now)
{
    uint64_t at = now * OUTR_RATE_PARTS;
    double gap = (double)OUTR_SEC * OUTR_RATE_PARTS / part;
    uint64_t after = (uint64_t)fmin(fmax(gap, 1), (double)GAP_MAX);
    if (e->gap && e->full_at > at) {
        double owes = (double)(e->full_at - at) * (double)after / (double)e->gap;
        e->full_at = at + (uint64_t)fmin(owes, (double)OWES_MAX);
    }
    e->gap = after;
}

static uint64_t burst_of(const outr_leases *l, const lease *e)
{
    double part = (double)OUTR_SEC * OUTR_RATE_PARTS / (double)e->gap;
    uint64_t burst = (uint64_t)((double)l->o.burst * fmin(part / l->rate, 1));
    return OUTR_MAX(OUTR_MIN(burst, OWES_MAX / e->gap), (uint64_t)1);
}

static lease *find(outr_leases *l, outr_str key, uint64_t now)
{
    lease *e = outr_map_get(l->by_key, key);
    if (e) {
        outr_link_remove(&e->link);
        outr_list_push(&l->by_age, &e->link);
        return e;
    }
    if (outr_map_count(l->by_key) >= OUTR_MAX(l->o.keys, (size_t)1)) {
        e = OUTR_LIST_ITEM(outr_list_pop(&l->by_age), lease, link);
        outr_map_remove(l->by_key, outr_str_of(e->key, e->key_n));
        free(e);
    }
    e = outr_alloc(sizeof *e + key.n);
    e->key_n = key.n;
    if (key.n > 0)
        memcpy(e->key, key.p, key.n);
    e->renewed_ns = now > OUTR_LEASE_SLICE_NS ? now - OUTR_LEASE_SLICE_NS : 0;
    /* until it is known who else is there: those that were there for other keys */
    set_part(e, l->rate / (double)(l->sharers + 1), now);
    outr_map_put(l->by_key, outr_str_of(e->key, e->key_n), e);
    outr_list_push(&l->by_age, &e->link);
    l->renew_at_ns = l->is_away ? l->renew_at_ns : 0;
    return e;
}

/* ---- renewing -------------------------------------------------------------------------------- */

static void learn(outr_leases *l, const outr_state_share *said, size_t prefix_n, uint64_t now)
{
    lease *e = outr_map_get(l->by_key, outr_str_skip(said->key, prefix_n));
    if (said->err.code)
        return;
    l->sharers = said->sharers;
    if (e)
        set_part(e, outr_lease_part(l->rate, said->asked, said->others, said->sharers), now);
}

static void count(const outr_leases *l, outr_loop *loop, const outr_err *err)
{
    static const outr_metric_desc renewals = {"outrigger_rate_leases_total",
                                              "shares of rates asked of stores, how it went",
                                              OUTR_COUNTER,
                                              0,
                                              {"store", "outcome"}};
    outr_metric_count(
        outr_loop_metrics(loop), &renewals,
        (const outr_str[]){l->o.store, err ? OUTR_STR("failed") : OUTR_STR("renewed")}, 1);
}

/* The first mistake of all; NULL: none. */
static const outr_err *failure_of(const renewal *r)
{
    const outr_state_shares *shares = &r->call.shares;
    if (r->op.err.code)
        return &r->op.err;
    for (size_t i = 0; i < shares->count; i++) {
        if (shares->items[i].err.code)
            return &shares->items[i].err;
    }
    return NULL;
}

static void on_renewed(outr_op *op)
{
    renewal *r = OUTR_CONTAINER(op, renewal, op);
    outr_leases *l = r->leases;
    outr_arena *arena = r->call.shares.arena;
    const outr_err *err = failure_of(r);
    uint64_t now = outr_loop_now(op->loop);
    outr_link_remove(&r->link);
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; !op->err.code && i < r->call.shares.count; i++)
        learn(l, &r->call.shares.items[i], l->o.name.n, now);
    bool was_away = l->is_away;
    if (!err || err->code != OUTR_CANCELLED) /* that says nothing of the store */
        l->is_away = err != NULL;
    l->is_renewing = false;
    if (l->is_away)
        l->renew_at_ns = now + AGAIN_NS;
    bool is_away = l->is_away;
    pthread_mutex_unlock(&l->lock);
    count(l, op->loop, err);
    if (is_away && !was_away)
        OUTR_LOG(outr_loop_log(op->loop), WARN, "a rate limit is not shared, its part goes on here",
                 OUTR_S("store", l->o.store), OUTR_ERR(err));
    else if (was_away && !is_away)
        OUTR_LOG(outr_loop_log(op->loop), INFO, "a rate limit is shared again",
                 OUTR_S("store", l->o.store));
    outr_leases_unref(l);
    outr_arena_free(arena);
}

/* Loops' clocks differ by a turn. */
static uint64_t since(uint64_t then, uint64_t now)
{
    return now > then ? now - then : 0;
}

/* What was asked of it lately. */
static double demand_of(lease *e, uint64_t now)
{
    uint64_t passed = OUTR_MAX(since(e->renewed_ns, now), (uint64_t)SOON_NS);
    double lately = (double)e->asked * (double)OUTR_SEC / (double)passed;
    bool is_new = e->demand <= 0 || passed > 5 * OUTR_LEASE_SLICE_NS;
    e->demand = is_new ? lately : (e->demand + lately) / 2;
    e->asked = 0;
    e->renewed_ns = now;
    return e->demand;
}

/* Under the lock. NULL: there is nothing to tell. */
static renewal *begin_renewal(outr_leases *l, uint64_t now)
{
    outr_arena *arena = outr_arena_new(ARENA_BYTES);
    renewal *r = outr_arena_alloc(arena, sizeof *r);
    outr_state_shares *shares = &r->call.shares;
    r->call.store = l->o.store;
    *shares = (outr_state_shares){
        .arena = arena,
        .member = l->o.member,
        .lasts_ns = LASTS_NS,
        .items = outr_arena_alloc(arena, OUTR_LEASE_KEYS_MAX * sizeof *shares->items)};
    for (outr_link *link = l->by_age.prev;
         link != &l->by_age && shares->count < OUTR_LEASE_KEYS_MAX; link = link->prev) {
        lease *e = OUTR_LIST_ITEM(link, lease, link);
        if (since(e->renewed_ns, now) > 10 * OUTR_LEASE_SLICE_NS && e->asked == 0)
            break; /* those before it rest, too */
        if (e->asked > 0 && since(e->renewed_ns, now) >= SOON_NS)
            shares->items[shares->count++] = (outr_state_share){
                .key =
                    outr_arena_join(arena, l->o.name, outr_str_of(e->key, e->key_n), OUTR_STR_NONE),
                .asked = demand_of(e, now)};
    }
    l->renew_at_ns = now + OUTR_LEASE_SLICE_NS;
    if (shares->count == 0) {
        outr_arena_free(arena);
        return NULL;
    }
    l->is_renewing = true;
    r->leases = outr_leases_ref(l);
    return r;
}

static void renew(outr_lease_site *site, renewal *r, uint64_t now)
{
    outr_list_push(&site->renewals, &r->link);
    outr_op_init(&r->op, site->loop, NULL, now + TIMEOUT_NS, on_renewed);
    site->ask(site->ctx, &r->call, &r->op);
}

outr_rate_verdict outr_leases_take(outr_leases *l, outr_lease_site *site, outr_str key,
                                   uint64_t now)
{
    renewal *due = NULL;
    outr_str head = outr_str_head(key, NAME_MAX);
    pthread_mutex_lock(&l->lock);
    lease *e = find(l, head, now);
    e->asked++;
    const outr_rate_verdict v = outr_rate_judge(&e->full_at, e->gap, burst_of(l, e), now);
    if (site->ask && !l->is_renewing && now >= l->renew_at_ns)
        due = begin_renewal(l, now);
    pthread_mutex_unlock(&l->lock);
    if (due)
        renew(site, due, now);
    return v;
}
