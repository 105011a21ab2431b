#include "mesh/cluster.h"

#include "base/copy.h"
#include "base/labels.h"

#define DRAWS           8  /* of two candidates, before all are looked at */
#define LOOKS           32 /* when nobody is fit anyway */
#define DUE_AGAIN_NS    (10 * OUTR_MS)
#define RETRY_AFTER_MAX (60 * OUTR_SEC)

const outr_cluster_rules outr_cluster_defaults = {
    .ejection = {.in_a_row = 5,
                 .failure_percent = 40,
                 .window = 20,
                 .base_ns = 5 * OUTR_SEC,
                 .max_ns = 300 * OUTR_SEC},
    .ejected_max_percent = OUTR_CLUSTER_EJECTED_MAX,
    .slow_start_ns = OUTR_BALANCE_RAMP_NS,
    .budget = {.percent = 20, .per_second = 1},
};

/* ---- endpoints ------------------------------------------------------------------------------- */

void outr_endpoint_init(outr_endpoint *e)
{
    *e = (outr_endpoint){.refs = 1};
}

void outr_endpoint_hold(outr_endpoint *e)
{
    __atomic_fetch_add(&e->refs, 1, __ATOMIC_RELAXED);
}

bool outr_endpoint_release(outr_endpoint *e)
{
    return __atomic_sub_fetch(&e->refs, 1, __ATOMIC_ACQ_REL) == 0;
}

size_t outr_endpoint_pending(const outr_endpoint *e)
{
    return __atomic_load_n(&e->refs, __ATOMIC_RELAXED) - 1u;
}

/* Its views count it as what it is now. */
static void settle(outr_endpoint *e)
{
    bool is_ejected = e->outlier.is_ejected, is_unfit = is_ejected || e->is_down;
    outr_cluster *c = e->home;
    if (!c || (e->counts_ejected == is_ejected && e->counts_unfit == is_unfit))
        return;
    size_t ejected = (size_t)is_ejected - e->counts_ejected;
    size_t unfit = (size_t)is_unfit - e->counts_unfit;
    for (uint64_t bits = e->views; bits; bits &= bits - 1) {
        outr_cluster_view *v = &c->views[__builtin_ctzll(bits)];
        v->ejected += ejected;
        v->unfit += unfit;
        v->near_unfit += e->is_near ? unfit : 0;
    }
    c->ejected_count += ejected;
    e->counts_ejected = is_ejected;
    e->counts_unfit = is_unfit;
}

/* A probe of it may be due at: its views look then. */
static void expect_probe(const outr_endpoint *e, uint64_t at)
{
    for (uint64_t bits = e->views; bits; bits &= bits - 1) {
        outr_cluster_view *v = &e->home->views[__builtin_ctzll(bits)];
        v->due_ns = OUTR_MIN(v->due_ns, at);
    }
}

/* ---- views ----------------------------------------------------------------------------------- */

static uint64_t hash_pair(const outr_kv *kv)
{
    return outr_str_hash(kv->value, outr_str_hash(kv->key, 0));
}

static void fill(outr_cluster *c, outr_cluster_view *v)
{
    uint64_t bit = (uint64_t)1 << (v - c->views);
    size_t far = 0;
    free(v->items);
    v->items = outr_alloc((c->count + 1) * sizeof *v->items);
    v->count = v->near_count = v->ejected = v->unfit = v->near_unfit = 0;
    v->due_ns = 0;
    v->is_stale = false;
    for (size_t i = 0; i < c->count; i++) {
        outr_endpoint *e = c->items[i];
        if (!outr_labels_cover(e->labels, v->labels))
            continue;
        e->views |= bit;
        v->ejected += e->counts_ejected;
        v->unfit += e->counts_unfit;
        v->near_unfit += e->is_near && e->counts_unfit;
        if (e->is_near)
            v->items[v->near_count++] = e;
        else
            v->items[c->count - ++far] = e; /* in front of the end, for now */
    }
    memmove(v->items + v->near_count, v->items + c->count - far, far * sizeof *v->items);
    v->count = v->near_count + far;
}

static int compare_hashes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* What labels there are, so that one that nobody has, which a client may have made up, does not
 * cost a view. */
static void list_pairs(outr_cluster *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++)
        n += c->items[i]->labels.count;
    free(c->pairs);
    c->pairs = n ? outr_alloc(n * sizeof *c->pairs) : NULL;
    c->pair_count = 0;
    for (size_t i = 0; i < c->count; i++) {
        for (size_t k = 0; k < c->items[i]->labels.count; k++)
            c->pairs[c->pair_count++] = hash_pair(&c->items[i]->labels.items[k]);
    }
    if (n)
        qsort(c->pairs, n, sizeof *c->pairs, compare_hashes);
}

static void find_near(outr_cluster *c)
{
    const outr_kv zone = {c->rules.zone_label, c->rules.zone};
    const outr_kvs wanted = {&zone, 1};
    bool is_on = zone.key.n && zone.value.n;
    for (size_t i = 0; i < c->count; i++)
        c->items[i]->is_near = is_on && outr_labels_cover(c->items[i]->labels, wanted);
}

static void refill(outr_cluster *c)
{
    find_near(c);
    for (size_t i = 0; i < c->count; i++)
        c->items[i]->views = 0;
    for (size_t i = 1; i < c->view_count; i++) {
        outr_cluster_view *v = &c->views[i];
        free(v->items);
        v->items = NULL;
        v->count = 0;
        v->is_stale = true;
    }
    fill(c, &c->views[0]);
}

static outr_cluster_view *new_view(outr_cluster *c)
{
    if (c->view_count < OUTR_CLUSTER_VIEWS_MAX) {
        c->views = outr_realloc(c->views, (c->view_count + 1) * sizeof *c->views);
        c->views[c->view_count] = (outr_cluster_view){0};
        return &c->views[c->view_count++];
    }
    outr_cluster_view *oldest = &c->views[1];
    for (size_t i = 2; i < c->view_count; i++) {
        if (c->views[i].used < oldest->used)
            oldest = &c->views[i];
    }
    uint64_t bit = (uint64_t)1 << (oldest - c->views);
    for (size_t i = 0; i < oldest->count; i++)
        oldest->items[i]->views &= ~bit;
    free((void *)oldest->labels.items);
    free(oldest->items);
    *oldest = (outr_cluster_view){0};
    return oldest;
}

/* NULL: nobody has them. */
static outr_cluster_view *view_of(outr_cluster *c, const outr_kvs *labels)
{
    uint64_t hash = 0;
    if (!labels || labels->count == 0)
        return &c->views[0];
    for (size_t i = 0; i < labels->count; i++) {
        uint64_t pair = hash_pair(&labels->items[i]);
        if (c->pair_count == 0 ||
            !bsearch(&pair, c->pairs, c->pair_count, sizeof pair, compare_hashes))
            return NULL;
        hash = hash * 31 + pair;
    }
    outr_cluster_view *found = NULL;
    for (size_t i = 1; i < c->view_count && !found; i++) {
        if (c->views[i].hash == hash && outr_kvs_eq(c->views[i].labels, *labels))
            found = &c->views[i];
    }
    if (!found) {
        found = new_view(c);
        found->hash = hash;
        found->labels = outr_kvs_dup(*labels);
        found->is_stale = true;
    }
    found->used = ++c->ticks;
    if (found->is_stale)
        fill(c, found);
    return found;
}

/* ---- making and changing --------------------------------------------------------------------- */

void outr_cluster_init(outr_cluster *c)
{
    *c = (outr_cluster){.rules = outr_cluster_defaults, .view_count = 1};
    outr_list_init(&c->ejected);
    c->views = outr_alloc(sizeof *c->views);
    fill(c, &c->views[0]);
}

static void leave(outr_endpoint *e)
{
    outr_link_remove(&e->ejected);
    e->outlier.is_ejected = e->outlier.is_probing = e->is_down = false;
    settle(e);
    e->views = 0;
    e->home = NULL;
}

void outr_cluster_done(outr_cluster *c)
{
    for (size_t i = 0; i < c->count; i++)
        leave(c->items[i]);
    for (size_t i = 0; i < c->view_count; i++) {
        free((void *)c->views[i].labels.items);
        free(c->views[i].items);
    }
    free(c->views);
    free(c->items);
    free(c->pairs);
    free((void *)c->rules.zone_label.p);
    free((void *)c->rules.zone.p);
    *c = (outr_cluster){0};
}

static void revive_all(outr_cluster *c, uint64_t now)
{
    for (outr_link *link; (link = outr_list_pop(&c->ejected));) {
        outr_endpoint *e = OUTR_LIST_ITEM(link, outr_endpoint, ejected);
        e->outlier = (outr_outlier){.revived_ns = now};
        outr_balance_init(&e->balance, now, c->rules.slow_start_ns);
        settle(e);
    }
}

void outr_cluster_use(outr_cluster *c, const outr_cluster_rules *rules, uint64_t now)
{
    outr_str label = c->rules.zone_label, zone = c->rules.zone;
    bool is_same = outr_str_eq(label, rules->zone_label) && outr_str_eq(zone, rules->zone);
    outr_cluster_rules fresh = *rules;
    fresh.ejection.window =
        OUTR_MAX(1u, OUTR_MIN(rules->ejection.window, (unsigned)OUTR_OUTLIER_WINDOW_MAX));
    fresh.zone_label = label;
    fresh.zone = zone;
    if (!is_same) {
        fresh.zone_label = outr_str_of(outr_str_dup(rules->zone_label), rules->zone_label.n);
        fresh.zone = outr_str_of(outr_str_dup(rules->zone), rules->zone.n);
        free((void *)label.p);
        free((void *)zone.p);
    }
    c->rules = fresh;
    if (!is_same)
        refill(c);
    if (fresh.ejection.is_disabled)
        revive_all(c, now);
}

void outr_cluster_set(outr_cluster *c, outr_endpoint *const *items, size_t count, uint64_t now)
{
    outr_endpoint **fresh = outr_alloc((count + 1) * sizeof *fresh);
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++)
        c->items[i]->is_marked = false;
    for (size_t i = 0; i < count; i++)
        items[i]->is_marked = true;
    for (size_t i = 0; i < c->count; i++) {
        if (!c->items[i]->is_marked)
            leave(c->items[i]);
    }
    for (size_t i = 0; i < count; i++) {
        outr_endpoint *e = items[i];
        if (!e->is_marked)
            continue; /* named twice */
        e->is_marked = false;
        if (!e->home) {
            outr_balance_init(&e->balance, now, c->rules.slow_start_ns);
            e->outlier = (outr_outlier){0};
            e->serial = ++c->serial;
            e->home = c;
        }
        fresh[n++] = e;
    }
    free(c->items);
    c->items = fresh;
    c->count = n;
    list_pairs(c);
    refill(c);
}

/* ---- picking --------------------------------------------------------------------------------- */

static bool was_tried(const outr_cluster_pick *pick, const outr_endpoint *e)
{
    for (size_t i = 0; i < pick->tried_count; i++) {
        if (pick->tried[i] == e->serial)
            return true;
    }
    return false;
}

static bool is_off(const outr_endpoint *e, uint64_t now)
{
    return e->is_down && e->down_until_ns > now;
}

static bool is_usable(const outr_cluster_pick *pick, const outr_endpoint *e, uint64_t now)
{
    return !e->outlier.is_ejected && !is_off(e, now) && !was_tried(pick, e);
}

static outr_endpoint *better(outr_endpoint *a, outr_endpoint *b, uint64_t now, outr_rand *rand)
{
    if (!a || !b)
        return a ? a : b;
    bool is_a = outr_balance_prefers(&a->balance, outr_endpoint_pending(a), &b->balance,
                                     outr_endpoint_pending(b), now, rand);
    return is_a ? a : b;
}

/* Of the first count of a view. */
static outr_endpoint *draw(const outr_cluster_view *v, size_t count, const outr_cluster_pick *pick,
                           uint64_t now, outr_rand *rand)
{
    outr_endpoint *found = NULL;
    for (unsigned i = 0; i < DRAWS && !found; i++) {
        size_t a = outr_rand_below(rand, count), b = a;
        if (count > 1)
            b = (a + 1 + outr_rand_below(rand, count - 1)) % count;
        found = is_usable(pick, v->items[a], now) ? v->items[a] : NULL;
        outr_endpoint *second = b != a && is_usable(pick, v->items[b], now) ? v->items[b] : NULL;
        found = better(found, second, now, rand);
    }
    return found;
}

/* The last resort in which everybody is somehow unfit: ejected ones before those that were tried in
 * vain by this very call. Of several fit ones the first from a random place. When there is no fit
 * one to be found the best of a few will do: more than a call can have tried. */
static outr_endpoint *scan(const outr_cluster_view *v, const outr_cluster_pick *pick, uint64_t now,
                           outr_rand *rand)
{
    outr_endpoint *best = NULL;
    unsigned best_rank = UINT32_MAX;
    size_t start = outr_rand_below(rand, v->count), count = v->count;
    if (v->unfit == v->count)
        count = OUTR_MIN(count, OUTR_MAX((size_t)LOOKS, pick->tried_count + 1));
    for (size_t i = 0; i < count && best_rank > 0; i++) {
        outr_endpoint *e = v->items[(start + i) % v->count];
        unsigned rank = 4u * was_tried(pick, e) + 2u * e->outlier.is_ejected + is_off(e, now);
        if (rank < best_rank) {
            best = e;
            best_rank = rank;
        }
    }
    return best;
}

/* Those whose probe takes long are judged by what is known of it. */
static void judge_late(outr_cluster *c, outr_cluster_pick *pick, uint64_t now, outr_rand *rand)
{
    OUTR_LIST_EACH(link, &c->ejected) {
        outr_endpoint *e = OUTR_LIST_ITEM(link, outr_endpoint, ejected);
        if (e->outlier.until_ns > now)
            break;
        outr_class how = e->outlier.has_begun ? OUTR_CLASS_GOOD : OUTR_CLASS_FAILURE;
        if (outr_outlier_is_probe_late(&e->outlier, now))
            pick->revived += outr_endpoint_judge(e, now, how, true, rand) == OUTR_OUTLIER_REVIVED;
    }
}

/* Due ones are in front. One that waits for a better call, or is being probed, is passed over. */
static outr_endpoint *find_probe(outr_cluster *c, outr_cluster_view *v, outr_cluster_pick *pick,
                                 uint64_t now, outr_rand *rand)
{
    uint64_t bit = (uint64_t)1 << (v - c->views), next = UINT64_MAX;
    if (v->ejected == 0 || now < v->due_ns)
        return NULL;
    judge_late(c, pick, now, rand);
    OUTR_LIST_EACH(link, &c->ejected) {
        outr_endpoint *e = OUTR_LIST_ITEM(link, outr_endpoint, ejected);
        if (!(e->views & bit))
            continue;
        if (e->outlier.is_probing) {
            next = OUTR_MIN(next, e->outlier.probe_ns + OUTR_OUTLIER_PROBE_NS);
            continue;
        }
        next = OUTR_MIN(next, e->outlier.until_ns);
        if (now < e->outlier.until_ns)
            break;
        if (!was_tried(pick, e) && outr_outlier_may_probe(&e->outlier, now, pick->is_repeatable))
            return e;
    }
    v->due_ns = OUTR_MAX(next, now + DUE_AGAIN_NS);
    return NULL;
}

/* How many of a view are to be drawn from: those of the own zone, while enough of them are fit. */
static size_t first_choice(const outr_cluster *c, const outr_cluster_view *v)
{
    size_t fit = v->near_count - v->near_unfit;
    bool is_enough =
        fit > 0 && (double)fit * 100 >= (double)v->near_count * c->rules.near_min_percent;
    return is_enough ? v->near_count : v->count;
}

static outr_endpoint *choose(outr_cluster *c, outr_cluster_pick *pick, uint64_t now,
                             outr_rand *rand)
{
    outr_cluster_view *v = view_of(c, pick->labels);
    if (!v || v->count == 0)
        return NULL;
    outr_endpoint *found = find_probe(c, v, pick, now, rand);
    if (found) {
        pick->is_probe = true;
        return found;
    }
    size_t first = first_choice(c, v);
    found = draw(v, first, pick, now, rand);
    if (!found && first < v->count)
        found = draw(v, v->count, pick, now, rand);
    return found ? found : scan(v, pick, now, rand);
}

outr_endpoint *outr_cluster_choose(outr_cluster *c, outr_cluster_pick *pick, uint64_t now,
                                   outr_rand *rand)
{
    pick->is_probe = pick->is_repeat = false;
    pick->revived = 0;
    outr_endpoint *found = choose(c, pick, now, rand);
    if (!found)
        return NULL;
    pick->is_repeat = was_tried(pick, found);
    outr_endpoint_hold(found);
    return found;
}

bool outr_cluster_has_other(outr_cluster *c, const outr_kvs *labels, const outr_endpoint *e)
{
    const outr_cluster_view *v = view_of(c, labels);
    if (!v)
        return false;
    bool is_in = e->home == c && (e->views >> (v - c->views) & 1);
    return v->count - v->ejected > (is_in && !e->outlier.is_ejected ? 1u : 0u);
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
    expect_probe(e, e->outlier.until_ns);
}

outr_outlier_change outr_endpoint_judge(outr_endpoint *e, uint64_t now, outr_class how,
                                        bool was_probe, outr_rand *rand)
{
    outr_cluster *c = e->home;
    if (!c)
        return OUTR_OUTLIER_SAME;
    e->outcomes[how]++;
    was_probe = was_probe && e->outlier.is_ejected;
    bool may_eject = (c->ejected_count + 1) * 100 <= c->count * c->rules.ejected_max_percent;
    outr_outlier_change change =
        outr_outlier_observe(&e->outlier, &c->rules.ejection, now, how == OUTR_CLASS_FAILURE,
                             was_probe, may_eject, rand);
    if (how != OUTR_CLASS_FAILURE)
        e->is_down = false;
    settle(e);
    if (e->outlier.is_ejected && (change == OUTR_OUTLIER_EJECTED || was_probe))
        queue(e);
    if (change == OUTR_OUTLIER_REVIVED) {
        outr_link_remove(&e->ejected);
        e->balance.ramp_from_ns = now;
        e->balance.ramp_ns = c->rules.slow_start_ns;
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

void outr_endpoint_took(outr_endpoint *e, uint64_t now, uint64_t took_ns, bool is_probe)
{
    outr_balance_observe(&e->balance, now, took_ns, false);
    e->outlier.has_begun |= is_probe && e->outlier.is_probing;
}

void outr_endpoint_forget_probe(outr_endpoint *e)
{
    outr_outlier_forget_probe(&e->outlier);
    if (e->home)
        expect_probe(e, e->outlier.until_ns);
}

void outr_endpoint_open_probe(outr_endpoint *e, uint64_t now)
{
    if (!e->home || !e->outlier.is_ejected || e->outlier.is_probing)
        return;
    outr_outlier_open_probe(&e->outlier, now);
    queue(e);
}

void outr_endpoint_set_down(outr_endpoint *e, uint64_t until_ns)
{
    e->is_down = true;
    e->down_until_ns = until_ns;
    settle(e);
}
