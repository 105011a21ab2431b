#include "mesh/cluster.h"

#define DRAWS           8 /* of two candidates, before all are looked at */
#define RETRY_AFTER_MAX (60 * OUTR_SEC)

void outr_cluster_init(outr_cluster *c)
{
    *c = (outr_cluster){0};
    outr_list_init(&c->ejected);
}

static void leave(outr_endpoint *e)
{
    if (outr_link_is_in(&e->ejected))
        e->home->ejected_count--;
    outr_link_remove(&e->ejected);
    e->outlier.is_ejected = e->outlier.is_probing = false;
    e->home = NULL;
}

void outr_cluster_done(outr_cluster *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->items[i]->home == c)
            leave(c->items[i]);
    }
    free(c->items);
    c->items = NULL;
    c->count = 0;
}

void outr_cluster_set(outr_cluster *c, outr_endpoint *const *items, size_t count, uint64_t now)
{
    outr_endpoint **fresh = outr_alloc((count + 1) * sizeof *fresh);
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++)
        c->items[i]->mark = 0;
    for (size_t i = 0; i < count; i++)
        items[i]->mark = 1;
    for (size_t i = 0; i < c->count; i++) {
        if (!c->items[i]->mark && c->items[i]->home == c)
            leave(c->items[i]);
    }
    for (size_t i = 0; i < count; i++) {
        outr_endpoint *e = items[i];
        if (!e->mark)
            continue; /* named twice */
        e->mark = 0;
        if (e->home && e->home != c)
            leave(e); /* the other cluster has it in its list until it hears of that */
        if (!e->home) {
            outr_balance_init(&e->balance, now);
            e->outlier = (outr_outlier){0};
        }
        e->home = c;
        fresh[n++] = e;
    }
    free(c->items);
    c->items = fresh;
    c->count = n;
}

/* ---- picking --------------------------------------------------------------------------------- */

static bool was_tried(const outr_cluster_pick *pick, const outr_endpoint *e)
{
    for (size_t i = 0; i < pick->tried_count; i++) {
        if (pick->tried[i] == e)
            return true;
    }
    return false;
}

static bool is_usable(const outr_cluster_pick *pick, const outr_endpoint *e, uint64_t now)
{
    return !e->outlier.is_ejected && e->down_until_ns <= now && !was_tried(pick, e);
}

static outr_endpoint *better(outr_endpoint *a, outr_endpoint *b, uint64_t now, outr_rand *rand)
{
    if (!a || !b)
        return a ? a : b;
    bool is_a =
        outr_balance_prefers(&a->balance, a->pending, &b->balance, b->pending, now, rand);
    return is_a ? a : b;
}

/* The last resort in which everybody is somehow unfit: ejected ones before those that were tried in
 * vain by this very call. Of several fit ones the first from a random place. */
static outr_endpoint *scan(const outr_cluster *c, const outr_cluster_pick *pick, uint64_t now,
                           outr_rand *rand)
{
    outr_endpoint *best = NULL;
    unsigned best_rank = UINT32_MAX;
    size_t start = outr_rand_below(rand, c->count);
    for (size_t i = 0; i < c->count && best_rank > 0; i++) {
        outr_endpoint *e = c->items[(start + i) % c->count];
        unsigned rank = 4u * was_tried(pick, e) + 2u * e->outlier.is_ejected +
                        (e->down_until_ns > now ? 1u : 0u);
        if (rank < best_rank) {
            best = e;
            best_rank = rank;
        }
    }
    return best;
}

static outr_endpoint *find_probe(outr_cluster *c, const outr_cluster_pick *pick, uint64_t now)
{
    if (c->ejected_count == 0)
        return NULL;
    outr_endpoint *e = OUTR_LIST_ITEM(c->ejected.next, outr_endpoint, ejected);
    if (was_tried(pick, e) || !outr_outlier_may_probe(&e->outlier, now, pick->is_repeatable))
        return NULL;
    outr_link_remove(&e->ejected); /* the next one is due meanwhile */
    outr_list_push(&c->ejected, &e->ejected);
    return e;
}

outr_endpoint *outr_cluster_choose(outr_cluster *c, outr_cluster_pick *pick, uint64_t now,
                                   outr_rand *rand)
{
    outr_endpoint *found = NULL, *second = NULL;
    pick->is_probe = pick->is_repeat = false;
    if (c->count == 0)
        return NULL;
    outr_endpoint *probe = find_probe(c, pick, now);
    if (probe) {
        pick->is_probe = true;
        return probe;
    }
    for (unsigned i = 0; i < DRAWS && !found; i++) {
        size_t a = outr_rand_below(rand, c->count), b = a;
        if (c->count > 1)
            b = (a + 1 + outr_rand_below(rand, c->count - 1)) % c->count;
        found = is_usable(pick, c->items[a], now) ? c->items[a] : NULL;
        second = b != a && is_usable(pick, c->items[b], now) ? c->items[b] : NULL;
        found = better(found, second, now, rand);
    }
    if (!found)
        found = scan(c, pick, now, rand);
    pick->is_repeat = was_tried(pick, found);
    return found;
}

bool outr_cluster_has_other(const outr_cluster *c, const outr_endpoint *e)
{
    size_t fit = c->count - c->ejected_count;
    return fit > (e->outlier.is_ejected ? 0u : 1u);
}

/* ---- observing ------------------------------------------------------------------------------- */

static void queue(outr_endpoint *e)
{
    outr_cluster *c = e->home;
    outr_link_remove(&e->ejected);
    outr_link *at = c->ejected.prev; /* pauses of a kind: mostly it is the last */
    while (at != &c->ejected &&
           OUTR_LIST_ITEM(at, outr_endpoint, ejected)->outlier.until_ns > e->outlier.until_ns)
        at = at->prev;
    outr_list_push(at->next, &e->ejected);
}

outr_outlier_change outr_endpoint_judge(outr_endpoint *e, uint64_t now, outr_class how,
                                        bool was_probe, outr_rand *rand)
{
    outr_cluster *c = e->home;
    if (!c)
        return OUTR_OUTLIER_SAME;
    bool was_ejected = e->outlier.is_ejected;
    bool may_eject = (c->ejected_count + 1) * 100 <= c->count * OUTR_CLUSTER_EJECTED_MAX;
    outr_outlier_change change = outr_outlier_observe(
        &e->outlier, now, how == OUTR_CLASS_FAILURE, was_probe && was_ejected, may_eject, rand);
    if (change == OUTR_OUTLIER_EJECTED)
        c->ejected_count++;
    if (e->outlier.is_ejected && (change == OUTR_OUTLIER_EJECTED || was_probe))
        queue(e);
    if (change == OUTR_OUTLIER_REVIVED) {
        c->ejected_count--;
        outr_link_remove(&e->ejected);
        e->balance.ramp_from_ns = now;
    }
    return change;
}

outr_outlier_change outr_endpoint_observe(outr_endpoint *e, uint64_t now, uint64_t took_ns,
                                          outr_class how, uint64_t retry_after_ns, bool was_probe,
                                          outr_rand *rand)
{
    uint64_t asked = OUTR_MIN(retry_after_ns, RETRY_AFTER_MAX);
    outr_balance_observe(&e->balance, now, OUTR_MAX(took_ns, how ? asked : 0), how != 0);
    outr_outlier_change change = outr_endpoint_judge(e, now, how, was_probe, rand);
    if (change == OUTR_OUTLIER_REVIVED) /* what it did before says nothing any more */
        e->balance.cost_ns = OUTR_MAX(took_ns, (uint64_t)1);
    return change;
}
