/* A caller of two loops and up to 100 instances of a target on a virtual clock, under seeded trouble:
 * slow ones, ones that fail, flap, fail half of the time, vanish, whose packets are late, all at once, and
 * come back; that are started anew, a few or all of them, with calls in hand; calls of many clients at
 * once, some of whom leave, some of whom want certain instances; rules of any kind that change meanwhile.
 * What is played is mesh/cluster.c and what mesh/invoke.c does with it; that calls themselves end once,
 * in time, and reach an app at most once is sim_invoke's.
 * Whatever happens: at most as many are ejected as the rules say; one probe at a time and instance; a call
 * gets the labels it wants, if anybody has them, and its own zone while that is fit; the load is at most
 * what is offered and the budget; views count what is there; nobody is given up for ever, a slow one gets
 * next to nothing, and all have their share again when the trouble is over.
 * Seeds: OUTRIGGER_SEEDS, from OUTRIGGER_SEED on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/heap.h"
#include "base/labels.h"
#include "mesh/cluster.h"

#define INSTANCES_MAX 100
#define CLIENTS_MAX   64
#define SEEDS         10000

typedef enum manner { WELL, SLOW, FAILING, HALF, FLAPPING, GONE, LATE, MANNERS } manner;

#define PAIR(name, value)                                                                          \
    {                                                                                              \
        OUTR_STR(name), OUTR_STR(value)                                                            \
    }
static const outr_kv labels[] = {PAIR("version", "1"), PAIR("zone", "a"),    PAIR("version", "2"),
                                 PAIR("zone", "a"),    PAIR("version", "1"), PAIR("zone", "b"),
                                 PAIR("version", "2"), PAIR("zone", "b")};
static const outr_kv made_up = PAIR("version", "3");
/* What calls ask for: all, one, two of them, what nobody has. */
static const outr_kvs wanted[] = {{labels, 0},     {labels, 0}, {labels, 1},     {labels + 2, 1},
                                  {labels + 5, 1}, {labels, 2}, {labels + 6, 2}, {&made_up, 1}};

typedef struct instance {
    outr_endpoint endpoint;
    manner how;
    unsigned hits, probes, late_hits;
    uint64_t last_hit_ns;
} instance;

struct play;

/* One client: its call, then a pause, then the next. */
typedef struct client {
    outr_heap_node node; /* when something happens to it */
    instance *at;        /* NULL: it rests */
    bool is_probe, is_safe, is_retry, leaves;
    const outr_kvs *labels;
    outr_class ends;
    uint64_t began_ns;
} client;

typedef struct play {
    uint64_t seed, now, trouble_ends_ns, ends_ns;
    outr_rand rand;
    outr_cluster cluster;
    instance *instances[INSTANCES_MAX];
    size_t count, client_count;
    bool is_wild; /* labels, rules, starts anew */
    client clients[CLIENTS_MAX];
    outr_heap heap;
    unsigned offered, sent, retries;
    uint64_t pause_ns;
    bool is_all_at_once; /* the trouble is everybody's */
} play;

static uint64_t dice(play *p, uint64_t sides)
{
    return outr_rand_below(&p->rand, sides);
}

/* ---- instances ------------------------------------------------------------------------------- */

static bool is_in_trouble(const play *p, const instance *i)
{
    if (p->now >= p->trouble_ends_ns)
        return false;
    return i->how != FLAPPING || p->now / (3 * OUTR_SEC) % 2 == 0;
}

/* How this call will end, and when. */
static uint64_t play_answer(play *p, const instance *i, outr_class *how)
{
    uint64_t took = OUTR_MS + dice(p, 2 * OUTR_MS);
    *how = OUTR_CLASS_GOOD;
    if (!is_in_trouble(p, i))
        return took;
    switch (i->how) {
    case SLOW:
        return took + 200 * OUTR_MS;
    case FAILING:
    case FLAPPING:
        *how = OUTR_CLASS_FAILURE;
        return took / 4;
    case HALF:
        *how = dice(p, 2) ? OUTR_CLASS_FAILURE : OUTR_CLASS_GOOD;
        return took;
    case LATE:
        return dice(p, 4) ? took : took + dice(p, 400) * OUTR_MS;
    case GONE:
        *how = OUTR_CLASS_FAILURE;
        return OUTR_MS / 10;
    default:
        return took;
    }
}

static void check_view(const play *p, const outr_cluster_view *v)
{
    size_t ejected = 0, unfit = 0, near_unfit = 0;
    for (size_t i = 0; i < v->count; i++) {
        const outr_endpoint *e = v->items[i];
        bool is_unfit = e->outlier.is_ejected || e->is_down;
        ejected += e->outlier.is_ejected;
        unfit += is_unfit;
        near_unfit += i < v->near_count && is_unfit;
        if (!outr_labels_cover(e->labels, v->labels) || e->is_near != (i < v->near_count))
            fail_msg("seed %llu: an instance is in the wrong view", (unsigned long long)p->seed);
    }
    if (ejected != v->ejected || unfit != v->unfit || near_unfit != v->near_unfit)
        fail_msg("seed %llu: a view counts %zu, %zu, %zu instead of %zu, %zu, %zu",
                 (unsigned long long)p->seed, v->ejected, v->unfit, v->near_unfit, ejected, unfit,
                 near_unfit);
}

static void check(const play *p)
{
    size_t ejected = 0, listed = 0;
    for (size_t i = 0; i < p->count; i++)
        ejected += p->instances[i]->endpoint.outlier.is_ejected;
    for (outr_link *l = p->cluster.ejected.next; l != &p->cluster.ejected; l = l->next)
        listed++;
    if (ejected != p->cluster.ejected_count || ejected != listed)
        fail_msg("seed %llu: %zu ejected, %zu counted, %zu listed", (unsigned long long)p->seed,
                 ejected, p->cluster.ejected_count, listed);
    if (!p->is_wild && ejected * 2 > p->count)
        fail_msg("seed %llu: %zu of %zu are ejected", (unsigned long long)p->seed, ejected,
                 p->count);
    for (size_t i = 0; i < p->cluster.view_count; i++) {
        if (!p->cluster.views[i].is_stale)
            check_view(p, &p->cluster.views[i]);
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* The two loops' ideas of the time differ by a turn. */
static uint64_t loop_now(play *p, const client *c)
{
    return (c - p->clients) % 2 ? p->now - dice(p, 2 * OUTR_MS) : p->now;
}

static size_t count_fit(const play *p, const outr_kvs *like, bool is_near)
{
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++) {
        const outr_endpoint *e = &p->instances[i]->endpoint;
        n += outr_labels_cover(e->labels, *like) && (!is_near || e->is_near) &&
             !e->outlier.is_ejected && !e->is_down;
    }
    return n;
}

static size_t count_all(const play *p, const outr_kvs *like, bool is_near)
{
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++) {
        const outr_endpoint *e = &p->instances[i]->endpoint;
        n += outr_labels_cover(e->labels, *like) && (!is_near || e->is_near);
    }
    return n;
}

static void check_choice(const play *p, const client *c, const outr_cluster_pick *pick,
                         const outr_endpoint *e)
{
    if (!e && count_all(p, c->labels, false) > 0)
        fail_msg("seed %llu: nobody is found, but there is one", (unsigned long long)p->seed);
    if (e && !outr_labels_cover(e->labels, *c->labels))
        fail_msg("seed %llu: it goes to the wrong one", (unsigned long long)p->seed);
    if (!e || pick->is_probe || pick->tried_count > 0)
        return;
    size_t fit = count_fit(p, c->labels, false), near = count_fit(p, c->labels, true),
           all = count_all(p, c->labels, true);
    if (fit > 0 && e->outlier.is_ejected)
        fail_msg("seed %llu: an ejected one gets a call", (unsigned long long)p->seed);
    /* of a zone in which most are not fit it may be that none was drawn */
    double min = OUTR_MAX(p->cluster.rules.near_min_percent, 75);
    bool is_enough = near > 0 && (double)near * 100 >= (double)all * min;
    if (is_enough && !e->is_near)
        fail_msg("seed %llu: it leaves its zone", (unsigned long long)p->seed);
}

static void rest(play *p, client *c)
{
    c->at = NULL;
    outr_heap_push(&p->heap, &c->node, p->now + dice(p, 2 * p->pause_ns));
}

/* False: nobody is there for it. */
static bool send(play *p, client *c, outr_endpoint *tried)
{
    uint64_t all[] = {tried ? tried->serial : 0};
    outr_cluster_pick pick = {.labels = c->labels,
                              .tried = all,
                              .tried_count = tried != NULL,
                              .is_repeatable = c->is_safe};
    uint64_t now = loop_now(p, c);
    outr_endpoint *e = outr_cluster_choose(&p->cluster, &pick, now, &p->rand);
    if (p->is_wild)
        check_choice(p, c, &pick, e);
    if (!e)
        return false;
    instance *i = OUTR_CONTAINER(e, instance, endpoint);
    if (pick.is_probe && i->probes++ > 0)
        fail_msg("seed %llu: two probes of one instance", (unsigned long long)p->seed);
    i->hits++;
    i->last_hit_ns = p->now;
    i->late_hits += p->now > p->trouble_ends_ns + 2 * OUTR_BALANCE_MEMORY_NS;
    p->sent++;
    c->at = i;
    c->is_probe = pick.is_probe;
    c->began_ns = p->now;
    uint64_t took = play_answer(p, i, &c->ends);
    c->leaves = dice(p, 50) == 0;
    if (c->leaves)
        took = dice(p, took + 1);
    outr_heap_push(&p->heap, &c->node, p->now + took);
    return true;
}

static void begin(play *p, client *c)
{
    c->is_safe = dice(p, 3) > 0;
    c->is_retry = false;
    c->labels = &wanted[p->is_wild ? dice(p, OUTR_LEN(wanted)) : 0];
    if (!send(p, c, NULL)) {
        rest(p, c);
        return;
    }
    p->offered++;
    outr_budget_call(&p->cluster.budget, p->now);
}

static void end(play *p, client *c)
{
    instance *i = c->at;
    outr_endpoint *e = &i->endpoint;
    uint64_t now = loop_now(p, c);
    bool is_down = i->how == GONE && c->ends == OUTR_CLASS_FAILURE;
    i->probes -= c->is_probe;
    if (!c->leaves) {
        outr_endpoint_observe(e, now, p->now - c->began_ns, c->ends, 0, c->is_probe, &p->rand);
        if (is_down)
            outr_endpoint_set_down(e, now + OUTR_SEC);
    } else if (c->is_probe) {
        outr_endpoint_forget_probe(e);
    }
    bool may_repeat = !c->leaves && c->ends == OUTR_CLASS_FAILURE && c->is_safe && !c->is_retry &&
                      outr_cluster_has_other(&p->cluster, c->labels, e);
    if (may_repeat && outr_budget_take(&p->cluster.budget, &p->cluster.rules.budget, p->now)) {
        c->is_retry = true;
        p->retries++;
        if (!send(p, c, e))
            fail_msg("seed %llu: there is no other after all", (unsigned long long)p->seed);
    } else {
        rest(p, c);
    }
    if (outr_endpoint_release(e))
        free(i);
}

/* ---- instances come and go, rules change ----------------------------------------------------- */

static instance *new_instance(play *p, manner how)
{
    instance *i = outr_alloc(sizeof *i);
    outr_endpoint_init(&i->endpoint);
    i->how = how;
    if (p->is_wild)
        i->endpoint.labels = (outr_kvs){labels + 2 * dice(p, 4), dice(p, 8) ? 2 : 0};
    return i;
}

static void drop_instance(instance *i)
{
    if (outr_endpoint_release(&i->endpoint))
        free(i);
}

static void list_instances(play *p)
{
    outr_endpoint *items[INSTANCES_MAX];
    for (size_t i = 0; i < p->count; i++)
        items[i] = &p->instances[i]->endpoint;
    outr_cluster_set(&p->cluster, items, p->count, p->now);
}

/* Some, or all, are others from now on. */
static void start_anew(play *p)
{
    instance *gone[INSTANCES_MAX];
    size_t n = 0, part = 1 + dice(p, 4);
    for (size_t i = 0; i < p->count; i++) {
        if (part > 1 && dice(p, part))
            continue;
        gone[n++] = p->instances[i];
        p->instances[i] = new_instance(p, p->instances[i]->how);
    }
    list_instances(p);
    while (n > 0)
        drop_instance(gone[--n]);
}

static void change_labels(play *p)
{
    p->instances[dice(p, p->count)]->endpoint.labels = (outr_kvs){labels + 2 * dice(p, 4), 2};
    list_instances(p);
}

static void change_rules(play *p)
{
    const outr_cluster_rules rules = {
        .ejection = {.is_disabled = dice(p, 8) == 0,
                     .in_a_row = (unsigned)dice(p, 8),
                     .failure_percent = (unsigned)dice(p, 101),
                     .window = (unsigned)(1 + dice(p, OUTR_OUTLIER_WINDOW_MAX)),
                     .base_ns = OUTR_MS * (1 + dice(p, 10000)),
                     .max_ns = OUTR_MS * (1 + dice(p, 30000))},
        .ejected_max_percent = (unsigned)dice(p, 101),
        .slow_start_ns = dice(p, 2) * dice(p, 20) * OUTR_SEC,
        .budget = {.percent = 20, .per_second = 1},
        .zone_label = dice(p, 2) ? OUTR_STR("zone") : OUTR_STR_NONE,
        .zone = OUTR_STR("a"),
        .near_min_percent = (double)dice(p, 101),
    };
    size_t before = p->cluster.ejected_count;
    outr_cluster_use(&p->cluster, &rules, p->now);
    if (rules.ejection.is_disabled ? p->cluster.ejected_count > 0
                                   : p->cluster.ejected_count != before)
        fail_msg("seed %llu: other rules have moved instances", (unsigned long long)p->seed);
}

static void disturb(play *p)
{
    switch (dice(p, 40)) {
    case 0:
        start_anew(p);
        break;
    case 1:
        change_rules(p);
        break;
    case 2:
        change_labels(p);
        break;
    case 3: /* a health check went well */
        outr_endpoint_open_probe(&p->instances[dice(p, p->count)]->endpoint, p->now);
        break;
    default:
        break;
    }
}

static void step(play *p)
{
    outr_heap_node *node = outr_heap_min(&p->heap);
    client *c = OUTR_CONTAINER(node, client, node);
    p->now = OUTR_MAX(p->now, node->key);
    outr_heap_remove(&p->heap, node);
    if (c->at)
        end(p, c);
    else
        begin(p, c);
}

/* ---- one play -------------------------------------------------------------------------------- */

static void cast(play *p)
{
    size_t bad = p->is_all_at_once ? p->count : dice(p, p->count / 3 + 1);
    manner common = (manner)dice(p, MANNERS);
    for (size_t i = 0; i < p->count; i++)
        p->instances[i] = new_instance(p, i >= bad            ? WELL
                                          : p->is_all_at_once ? common
                                                              : (manner)dice(p, MANNERS));
    list_instances(p);
}

static void open_play(play *p, uint64_t seed, uint64_t trouble_ns, uint64_t rest_ns)
{
    *p = (play){.seed = seed, .now = 1000 * OUTR_SEC};
    outr_rand_seed(&p->rand, seed);
    p->count = 1 + (seed % 4 == 0 ? dice(p, INSTANCES_MAX) : dice(p, 8));
    p->client_count = 1 + dice(p, 12);
    p->pause_ns = OUTR_MS + dice(p, 300 * OUTR_MS);
    p->is_all_at_once = seed % 5 == 0;
    p->trouble_ends_ns = p->now + trouble_ns;
    p->ends_ns = p->trouble_ends_ns + rest_ns;
    outr_cluster_init(&p->cluster);
    for (size_t i = 0; i < p->client_count; i++)
        outr_heap_push(&p->heap, &p->clients[i].node, p->now + dice(p, p->pause_ns));
}

static void close_play(play *p)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->instances[i]->probes > 1)
            fail_msg("seed %llu: probes are left", (unsigned long long)p->seed);
    }
    outr_cluster_done(&p->cluster);
    outr_heap_done(&p->heap);
    for (size_t i = 0; i < p->client_count; i++) {
        if (p->clients[i].at)
            drop_instance(p->clients[i].at);
    }
    for (size_t i = 0; i < p->count; i++)
        drop_instance(p->instances[i]);
}

static void check_budget(const play *p)
{
    uint64_t seconds = (p->now - 1000 * OUTR_SEC) / OUTR_SEC;
    if (p->retries > p->offered / 5 + seconds + 2 * OUTR_BUDGET_SLOTS)
        fail_msg("seed %llu: %u retries of %u calls in %llu s", (unsigned long long)p->seed,
                 p->retries, p->offered, (unsigned long long)seconds);
    if (p->sent != p->offered + p->retries)
        fail_msg("seed %llu: %u sent, %u offered", (unsigned long long)p->seed, p->sent,
                 p->offered);
}

static void first_seed(uint64_t *first, uint64_t *count, uint64_t otherwise)
{
    *first = 1;
    *count = getenv("OUTRIGGER_SEED") ? 1 : otherwise;
    outr_str_to_u64(outr_str_from(getenv("OUTRIGGER_SEED")), UINT64_MAX, first);
    outr_str_to_u64(outr_str_from(getenv("OUTRIGGER_SEEDS")), UINT64_MAX, count);
}

static void in_any_trouble_the_invariants_hold(void **state)
{
    uint64_t first, count;
    play *p = outr_alloc(sizeof *p);
    (void)state;
    first_seed(&first, &count, SEEDS);
    for (uint64_t seed = first; seed < first + count; seed++) {
        open_play(p, seed, 20 * OUTR_SEC, 5 * OUTR_SEC);
        cast(p);
        for (unsigned n = 0; p->now < p->ends_ns && n < 400; n++) {
            step(p);
            if (n % 16 == 0)
                check(p);
        }
        check(p);
        check_budget(p);
        close_play(p);
    }
    free(p);
}

static void whoever_comes_and_goes_and_whatever_is_asked_for_they_hold(void **state)
{
    uint64_t first, count;
    play *p = outr_alloc(sizeof *p);
    (void)state;
    first_seed(&first, &count, SEEDS);
    for (uint64_t seed = first; seed < first + count; seed++) {
        open_play(p, seed, 20 * OUTR_SEC, 5 * OUTR_SEC);
        p->is_wild = true;
        cast(p);
        change_rules(p);
        for (unsigned n = 0; p->now < p->ends_ns && n < 200; n++) {
            step(p);
            disturb(p);
            if (n % 16 == 0)
                check(p);
        }
        check(p);
        check_budget(p);
        close_play(p);
    }
    free(p);
}

/* Long enough for the longest ejection: then each has been called again, and has its share. */
static void when_the_trouble_is_over_all_have_their_share_again(void **state)
{
    uint64_t first, count;
    play *p = outr_alloc(sizeof *p);
    (void)state;
    first_seed(&first, &count, 30);
    for (uint64_t seed = first; seed < first + count; seed++) {
        open_play(p, seed, 30 * OUTR_SEC, 90 * OUTR_SEC);
        cast(p);
        p->pause_ns = OUTR_MS + 8 * OUTR_MS * dice(p, 3);
        while (p->now < p->ends_ns)
            step(p);
        unsigned total = 0;
        for (size_t i = 0; i < p->count; i++)
            total += p->instances[i]->late_hits;
        for (size_t i = 0; i < p->count; i++) {
            const instance *x = p->instances[i];
            double share = (double)x->late_hits * (double)p->count / total;
            /* ejections of up to 80 s have taken theirs */
            if (share < 0.2 || share > 3 || p->now - x->last_hit_ns > 60 * OUTR_SEC)
                fail_msg("seed %llu: instance %zu of %zu (manner %d) has %.2f of its share",
                         (unsigned long long)p->seed, i, p->count, (int)x->how, share);
        }
        close_play(p);
    }
    free(p);
}

/* The bar of mesh.md: one of five is 200 ms slower and gets at most 1.5 % of the calls, with one client
 * and with four; within three times the memory it is back at 20 +- 4 %. */
static void a_slow_instance_gets_next_to_nothing_until_it_recovers(void **state)
{
    (void)state;
    for (size_t clients = 1; clients <= 4; clients += 3) {
        play *p = outr_alloc(sizeof *p);
        open_play(p, 3, 60 * OUTR_SEC, 90 * OUTR_SEC);
        p->count = 5;
        p->client_count = clients;
        p->pause_ns = OUTR_MS / 10;
        p->is_all_at_once = false;
        for (size_t i = 0; i < 5; i++)
            p->instances[i] = new_instance(p, i == 0 ? SLOW : WELL);
        list_instances(p);
        outr_heap_done(&p->heap);
        p->heap = (outr_heap){0};
        for (size_t i = 0; i < clients; i++) {
            p->clients[i] = (client){0};
            outr_heap_push(&p->heap, &p->clients[i].node, p->now);
        }
        while (p->now < p->trouble_ends_ns)
            step(p);
        double slow = 100.0 * p->instances[0]->hits / p->sent;
        if (slow > 1.5 || p->instances[0]->hits == 0)
            fail_msg("%zu clients: the slow one got %.3f %%", clients, slow);
        while (p->now < p->trouble_ends_ns + 3 * OUTR_BALANCE_MEMORY_NS)
            step(p);
        unsigned hits = p->instances[0]->hits, sent = p->sent;
        while (p->now < p->ends_ns)
            step(p);
        double back = 100.0 * (p->instances[0]->hits - hits) / (p->sent - sent);
        print_message("%zu clients: slow %.3f %%, recovered %.2f %%\n", clients, slow, back);
        if (back < 16 || back > 24)
            fail_msg("%zu clients: the recovered one gets %.2f %%", clients, back);
        close_play(p);
        free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_any_trouble_the_invariants_hold),
        cmocka_unit_test(whoever_comes_and_goes_and_whatever_is_asked_for_they_hold),
        cmocka_unit_test(when_the_trouble_is_over_all_have_their_share_again),
        cmocka_unit_test(a_slow_instance_gets_next_to_nothing_until_it_recovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
