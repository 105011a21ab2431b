#include "mesh/route.h"

#include <math.h>

#include "config/kinds/kinds.h"
#include "mesh/route_internal.h"
#include "observe/baggage.h"

#define INDEXED_FROM 8  /* shorter lists are walked */
#define INDEXES_MAX  8  /* of one list: names that its routes ask about */
#define GOLDEN       UINT64_C(0x9E3779B97F4A7C15)

/* One way to match a route. */
typedef struct entry {
    const outr_traffic_spec *policy;
    const outr_route_spec *route;
    const outr_traffic_match *match; /* NULL: every call */
    uint64_t weight; /* how specific it is; of two the larger one is taken */
    size_t order;    /* in which they were read */
    uint64_t *turn;  /* of the route: atomic */
} entry;

typedef struct entries {
    entry **items; /* best first */
    size_t count, cap;
} entries;

/* Those of a list that ask for a certain text under one name, by that text. */
typedef struct index {
    outr__kind kind;
    outr_str name;
    outr_map *by_value; /* entries */
    struct index *next;
} index_;

typedef struct bucket {
    entries all;  /* while the table is made */
    entries rest; /* in no index */
    index_ *indexes;
} bucket;

typedef struct table {
    outr_map *exact, *prefix; /* bucket, by path; a prefix without slash at its end */
    size_t max_segments;      /* of a prefix */
    bucket regexes, any;
    bool has_claims;
} table;

/* Whom policies name. */
typedef struct callee {
    outr_target_rules rules;
    table *table; /* NULL: no routes */
} callee;

struct outr_routes {
    outr_arena *arena;
    const outr_traffic_spec *policies;
    size_t count;
    outr_map *callees, *tables; /* by name; by the policies whose routes they are */
    callee all;
    bool has_qualified; /* a target with its namespace */
    uint64_t **turns;   /* of each policy's routes */
};

/* ---- how specific ---------------------------------------------------------------------------- */

static uint64_t weight_of(const outr_traffic_match *m)
{
    if (!m)
        return 0;
    uint64_t path = !m->has_path ? 0 : m->path.has_exact ? 3 : m->path.has_prefix ? 2 : 1;
    uint64_t w = path << 16 | (m->has_path && m->path.has_prefix
                                   ? OUTR_MIN(m->path.prefix.n, (size_t)UINT16_MAX)
                                   : 0);
    w = w << 1 | (m->method_count > 0);
    const size_t counts[] = {m->header_count, m->query_count, m->baggage_count, m->claim_count,
                             m->source_count > 0};
    for (size_t i = 0; i < OUTR_LEN(counts); i++)
        w = w << 7 | OUTR_MIN(counts[i], (size_t)127);
    return w;
}

static int best_first(const void *a, const void *b)
{
    const entry *x = *(entry *const *)a, *y = *(entry *const *)b;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static bool is_better(const entry *a, const entry *than)
{
    return a && (!than || best_first(&a, &than) < 0);
}

/* ---- making ---------------------------------------------------------------------------------- */

static void append(outr_arena *arena, entries *to, entry *e)
{
    if (to->count == to->cap) {
        size_t cap = to->cap ? to->cap * 2 : 4;
        entry **items = outr_arena_alloc(arena, cap * sizeof *items);
        if (to->count > 0)
            memcpy(items, to->items, to->count * sizeof *items);
        to->items = items;
        to->cap = cap;
    }
    to->items[to->count++] = e;
}

static bucket *bucket_at(outr_routes *r, outr_map *map, outr_str key)
{
    bucket *b = outr_map_get(map, key);
    if (b)
        return b;
    b = outr_arena_alloc(r->arena, sizeof *b);
    outr_map_put(map, key, b);
    return b;
}

/* Without its slash at the end; *segments: how many it has. */
static outr_str prefix_key(outr_str prefix, size_t *segments)
{
    if (prefix.n > 0 && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    *segments = 0;
    for (size_t i = 0; i < prefix.n; i++)
        *segments += prefix.p[i] == '/';
    return prefix;
}

static bucket *bucket_of(outr_routes *r, table *t, const outr_traffic_match *m)
{
    size_t segments;
    if (!m || !m->has_path)
        return &t->any;
    if (m->path.has_exact)
        return bucket_at(r, t->exact, m->path.exact);
    if (!m->path.has_prefix)
        return &t->regexes;
    outr_str key = prefix_key(m->path.prefix, &segments);
    t->max_segments = OUTR_MAX(t->max_segments, segments);
    return bucket_at(r, t->prefix, key);
}

static void add_entry(outr_routes *r, table *t, size_t policy, const outr_route_spec *route,
                      const outr_traffic_match *match, size_t *order)
{
    entry *e = outr_arena_alloc(r->arena, sizeof *e);
    *e = (entry){.policy = &r->policies[policy],
                 .route = route,
                 .match = match,
                 .weight = weight_of(match),
                 .order = (*order)++,
                 .turn = &r->turns[policy][route - r->policies[policy].routes]};
    t->has_claims |= (match && match->claim_count > 0) || route->sticks_to == OUTR_STICKY_CLAIM;
    append(r->arena, &bucket_of(r, t, match)->all, e);
}

/* The first text that a match asks for as it is. False: none. */
static bool asked_value(const outr_traffic_match *m, outr__kind *kind, outr_str *name,
                        outr_str *value)
{
    if (!m)
        return false;
    const struct {
        const outr_value_match *items;
        size_t count;
        outr__kind kind;
    } lists[] = {
        {m->headers, m->header_count, OUTR__OF_HEADER},
        {m->query, m->query_count, OUTR__OF_QUERY},
        {m->baggage, m->baggage_count, OUTR__OF_BAGGAGE},
        {m->claims, m->claim_count, OUTR__OF_CLAIM},
    };
    for (size_t i = 0; i < OUTR_LEN(lists); i++) {
        for (size_t k = 0; k < lists[i].count; k++) {
            if (!lists[i].items[k].has_exact)
                continue;
            *kind = lists[i].kind;
            *name = lists[i].items[k].name;
            *value = lists[i].items[k].exact;
            return true;
        }
    }
    *kind = OUTR__OF_SOURCE;
    *name = OUTR_STR_NONE;
    *value = m->source_count == 1 ? m->sources[0] : OUTR_STR_NONE;
    return m->source_count == 1;
}

static index_ *index_for(outr_routes *r, bucket *b, outr__kind kind, outr_str name)
{
    size_t count = 0;
    index_ *i = b->indexes;
    for (; i && !(i->kind == kind && outr_str_eq(i->name, name)); i = i->next)
        count++;
    if (i || count == INDEXES_MAX)
        return i;
    i = outr_arena_alloc(r->arena, sizeof *i);
    *i = (index_){kind, name, outr_map_new(), b->indexes};
    outr_arena_defer(r->arena, (void (*)(void *))outr_map_free, i->by_value);
    return b->indexes = i;
}

static void finish_bucket(outr_routes *r, bucket *b)
{
    if (b->all.count == 0)
        return;
    qsort(b->all.items, b->all.count, sizeof *b->all.items, best_first);
    for (size_t n = 0; n < b->all.count; n++) {
        entry *e = b->all.items[n];
        outr__kind kind;
        outr_str name, value;
        index_ *i = NULL;
        if (b->all.count >= INDEXED_FROM && asked_value(e->match, &kind, &name, &value))
            i = index_for(r, b, kind, name);
        if (!i) {
            append(r->arena, &b->rest, e);
            continue;
        }
        entries *list = outr_map_get(i->by_value, value);
        if (!list) {
            list = outr_arena_alloc(r->arena, sizeof *list);
            outr_map_put(i->by_value, value, list);
        }
        append(r->arena, list, e);
    }
}

static void finish_map(outr_routes *r, outr_map *map)
{
    size_t cursor = 0;
    outr_str key;
    void *b;
    while (outr_map_next(map, &cursor, &key, &b))
        finish_bucket(r, b);
}

static outr_map *new_map(outr_routes *r)
{
    outr_map *map = outr_map_new();
    outr_arena_defer(r->arena, (void (*)(void *))outr_map_free, map);
    return map;
}

static table *new_table(outr_routes *r, const size_t *policies, size_t count)
{
    table *t = outr_arena_alloc(r->arena, sizeof *t);
    size_t order = 0;
    t->exact = new_map(r);
    t->prefix = new_map(r);
    for (size_t i = 0; i < count; i++) {
        const outr_traffic_spec *p = &r->policies[policies[i]];
        for (size_t k = 0; k < p->route_count; k++) {
            const outr_route_spec *route = &p->routes[k];
            for (size_t m = 0; m < route->match_count; m++)
                add_entry(r, t, policies[i], route, &route->matches[m], &order);
            if (route->match_count == 0)
                add_entry(r, t, policies[i], route, NULL, &order);
        }
    }
    finish_map(r, t->exact);
    finish_map(r, t->prefix);
    finish_bucket(r, &t->regexes);
    finish_bucket(r, &t->any);
    return order > 0 ? t : NULL;
}

/* Callees that the same policies name have one table. */
static table *table_for(outr_routes *r, const size_t *policies, size_t count)
{
    if (count == 0)
        return NULL;
    outr_str key = outr_str_of(policies, count * sizeof *policies);
    table *t = outr_map_get(r->tables, key);
    if (t)
        return t;
    t = new_table(r, policies, count);
    if (t)
        outr_map_put(r->tables, key, t);
    return t;
}

static void take(outr_target_rules *rules, const outr_traffic_spec *p, bool *has_slow_start)
{
#define GROUP(group)                                                                               \
    if (!rules->group->is_on && p->group.is_on)                                                    \
    rules->group = &p->group
    GROUP(environment);
    GROUP(locality);
    GROUP(ejection);
    GROUP(health_check);
    GROUP(retry_budget);
    GROUP(hedge);
    GROUP(limits);
#undef GROUP
    if (!*has_slow_start && p->has_slow_start)
        rules->slow_start_ns = p->slow_start_ns;
    *has_slow_start |= p->has_slow_start;
}

static const outr_target_rules default_rules = {
    .environment = &outr_traffic_defaults.environment,
    .locality = &outr_traffic_defaults.locality,
    .ejection = &outr_traffic_defaults.ejection,
    .health_check = &outr_traffic_defaults.health_check,
    .retry_budget = &outr_traffic_defaults.retry_budget,
    .hedge = &outr_traffic_defaults.hedge,
    .limits = &outr_traffic_defaults.limits,
    .slow_start_ns = 10 * OUTR_SEC,
};

/* Policies by their numbers, as they were read. */
typedef struct numbers {
    size_t *items;
    size_t count, cap;
} numbers;

static void add_number(outr_arena *arena, numbers *to, size_t number)
{
    if (to->count == to->cap) {
        size_t cap = to->cap ? to->cap * 2 : 4;
        size_t *items = outr_arena_alloc(arena, cap * sizeof *items);
        if (to->count > 0)
            memcpy(items, to->items, to->count * sizeof *items);
        to->items = items;
        to->cap = cap;
    }
    to->items[to->count++] = number;
}

/* Both in one, each once. */
static numbers merge(outr_arena *arena, const numbers *a, const numbers *b)
{
    numbers both = {0};
    size_t x = 0, y = 0;
    while (x < a->count || y < b->count) {
        size_t next_a = x < a->count ? a->items[x] : SIZE_MAX;
        size_t next_b = y < b->count ? b->items[y] : SIZE_MAX;
        add_number(arena, &both, OUTR_MIN(next_a, next_b));
        x += next_a <= next_b;
        y += next_b <= next_a;
    }
    return both;
}

static void fill_callee(outr_routes *r, callee *c, const numbers *own, const numbers *for_all)
{
    bool has_slow_start = false;
    const numbers *lists[] = {own, for_all};
    c->rules = default_rules;
    for (size_t l = 0; l < OUTR_LEN(lists); l++) {
        for (size_t i = 0; lists[l] && i < lists[l]->count; i++)
            take(&c->rules, &r->policies[lists[l]->items[i]], &has_slow_start);
    }
    c->table = table_for(r, own->items, own->count);
}

static void add_callee(outr_routes *r, const outr_map *named, outr_str name, const numbers *own,
                       const numbers *for_all)
{
    outr_str id, rest = outr_str_cut(name, '.', &id);
    const numbers *of_id = rest.p ? outr_map_get(named, id) : NULL;
    numbers both = of_id ? merge(r->arena, own, of_id) : *own;
    callee *c = outr_arena_alloc(r->arena, sizeof *c);
    fill_callee(r, c, &both, for_all);
    r->has_qualified |= rest.p != NULL;
    outr_map_put(r->callees, name, c);
}

static void add_callees(outr_routes *r, const numbers *for_all)
{
    outr_map *named = new_map(r);
    size_t cursor = 0;
    outr_str name;
    void *own;
    for (size_t i = 0; i < r->count; i++) {
        for (size_t k = 0; k < r->policies[i].target_count; k++) {
            outr_str target = r->policies[i].targets[k];
            numbers *n = outr_map_get(named, target);
            if (!n) {
                n = outr_arena_alloc(r->arena, sizeof *n);
                outr_map_put(named, target, n);
            }
            add_number(r->arena, n, i);
        }
    }
    while (outr_map_next(named, &cursor, &name, &own))
        add_callee(r, named, name, own, for_all);
}

#define ARENA_MAX (1024 * OUTR_MIB) /* what a snapshot's policies become; they are bounded */

outr_routes *outr_routes_new(const outr_traffic_spec *policies, size_t count)
{
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    outr_routes *r = outr_arena_alloc(arena, sizeof *r);
    numbers for_all = {0};
    *r = (outr_routes){.arena = arena, .policies = policies, .count = count};
    r->callees = new_map(r);
    r->tables = new_map(r);
    r->turns = outr_arena_alloc(arena, (count + 1) * sizeof *r->turns);
    for (size_t i = 0; i < count; i++) {
        r->turns[i] = outr_arena_alloc(arena, (policies[i].route_count + 1) * sizeof **r->turns);
        if (policies[i].target_count == 0)
            add_number(arena, &for_all, i);
    }
    fill_callee(r, &r->all, &for_all, NULL);
    add_callees(r, &for_all);
    return r;
}

void outr_routes_free(outr_routes *r)
{
    if (r)
        outr_arena_free(r->arena);
}

static void *make_part(const outr_snapshot *snapshot, const void *ctx OUTR_UNUSED)
{
    return outr_routes_new(snapshot->traffic, snapshot->traffic_count);
}

static void free_part(void *routes)
{
    outr_routes_free(routes);
}

const outr_routes *outr_routes_of(const outr_snapshot *snapshot)
{
    static const outr_part_ops ops = {make_part, free_part};
    if (snapshot->traffic_count == 0)
        return NULL;
    return outr_snapshot_part(snapshot, OUTR_PART_ROUTES, &ops, NULL);
}

/* ---- finding --------------------------------------------------------------------------------- */

/* Whom policies name as that; &all: nobody did. */
static const callee *find_callee(const outr_routes *r, outr_str app_id, outr_str namespace_)
{
    char key[512];
    const callee *c = NULL;
    if (r->has_qualified && app_id.n + namespace_.n + 1 <= sizeof key) {
        memcpy(key, app_id.p, app_id.n);
        key[app_id.n] = '.';
        if (namespace_.n > 0)
            memcpy(key + app_id.n + 1, namespace_.p, namespace_.n);
        c = outr_map_get(r->callees, outr_str_of(key, app_id.n + namespace_.n + 1));
    }
    c = c ? c : outr_map_get(r->callees, app_id);
    return c ? c : &r->all;
}

const outr_target_rules *outr_routes_target(const outr_routes *routes, outr_str app_id,
                                            outr_str namespace_)
{
    return routes ? &find_callee(routes, app_id, namespace_)->rules : &default_rules;
}

static bool matches(const entry *e, outr_route_question *q)
{
    return !e->match || outr_traffic_matches(e->match, q);
}

/* The first one that matches and is better than best. */
static entry *first_of(const entries *list, outr_route_question *q, entry *best)
{
    for (size_t i = 0; i < list->count; i++) {
        if (best && !is_better(list->items[i], best))
            return best;
        if (matches(list->items[i], q))
            return list->items[i];
    }
    return best;
}

static entry *find_in(const bucket *b, outr_route_question *q)
{
    entry *best = NULL;
    for (const index_ *i = b->indexes; i; i = i->next) {
        outr_str value;
        for (size_t at = 0; outr__question_next(q, i->kind, i->name, &at, &value);) {
            const entries *list = outr_map_get(i->by_value, value);
            if (list)
                best = first_of(list, q, best);
        }
    }
    return first_of(&b->rest, q, best);
}

/* The longest prefix first. */
static entry *find_prefix(const table *t, outr_route_question *q)
{
    size_t ends[OUTR_TRAFFIC_SEGMENTS_MAX + 1], count = 0;
    outr_str path = q->path;
    if (path.n == 0 || path.p[0] != '/' || outr_map_count(t->prefix) == 0)
        return NULL;
    ends[count++] = 0;
    for (size_t i = 1; i <= path.n && count <= t->max_segments; i++) {
        if (i == path.n || path.p[i] == '/')
            ends[count++] = i;
    }
    while (count-- > 0) {
        const bucket *b = outr_map_get(t->prefix, outr_str_head(path, ends[count]));
        entry *e = b ? find_in(b, q) : NULL;
        if (e)
            return e;
    }
    return NULL;
}

static entry *find_entry(const table *t, outr_route_question *q)
{
    const bucket *b = outr_map_get(t->exact, q->path);
    entry *e = b ? find_in(b, q) : NULL;
    e = e ? e : find_prefix(t, q);
    e = e ? e : find_in(&t->regexes, q);
    return e ? e : find_in(&t->any, q);
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* Weighted rendezvous (Schindelhauer, Schomaker 2005): a weight that grows takes from the others
 * in proportion, and nothing else moves. The same everywhere: no seed of this process. */
static const outr_split *stick(const outr_route_spec *route, outr_str value)
{
    const outr_split *best = NULL;
    double least = 0;
    for (size_t i = 0; i < route->split_count; i++) {
        const outr_split *s = &route->splits[i];
        if (s->weight == 0)
            continue;
        uint64_t hash = outr_str_hash(value, outr_str_hash(s->subset, GOLDEN));
        double unit = ((double)(hash >> 11) + 0.5) * 0x1p-53;
        double score = -log(unit) / (double)s->weight;
        if (!best || score < least) {
            best = s;
            least = score;
        }
    }
    return best;
}

/* A sequence whose every stretch is spread evenly (multiples of the golden ratio), begun somewhere
 * by lot. */
static uint64_t next_turn(uint64_t *turn, outr_rand *rand)
{
    uint64_t none = 0;
    if (__atomic_load_n(turn, __ATOMIC_RELAXED) == 0)
        __atomic_compare_exchange_n(turn, &none, outr_rand_next(rand) | 1, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED);
    return __atomic_fetch_add(turn, GOLDEN, __ATOMIC_RELAXED);
}

static const outr_split *deal(const entry *e, outr_rand *rand)
{
    const outr_route_spec *route = e->route;
    uint64_t sum = 0;
    for (size_t i = 0; i < route->split_count; i++)
        sum += (uint64_t)route->splits[i].weight;
    uint64_t at = (next_turn(e->turn, rand) >> 32) * sum >> 32;
    for (size_t i = 0; i < route->split_count; i++) {
        if (at < (uint64_t)route->splits[i].weight)
            return &route->splits[i];
        at -= (uint64_t)route->splits[i].weight;
    }
    return NULL; /* a sum of 0 is no policy */
}

static const outr_subset_spec *choose_subset(const entry *e, outr_route_question *q,
                                             outr_rand *rand)
{
    const outr_route_spec *route = e->route;
    const outr_split *split = NULL;
    if (route->split_count == 0)
        return NULL;
    if (route->split_count == 1)
        return route->splits[0].to;
    if (route->sticks_to != OUTR_STICKY_NONE) {
        static const outr__kind kinds[] = {[OUTR_STICKY_HEADER] = OUTR__OF_HEADER,
                                           [OUTR_STICKY_BAGGAGE] = OUTR__OF_BAGGAGE,
                                           [OUTR_STICKY_CLAIM] = OUTR__OF_CLAIM};
        outr_str value;
        size_t at = 0;
        if (outr__question_next(q, kinds[route->sticks_to], route->sticky.name, &at, &value))
            split = stick(route, value);
    }
    split = split ? split : deal(e, rand);
    return split ? split->to : NULL;
}

static void choose_environment(outr_route_choice *choice, const outr_environment_spec *spec,
                               outr_route_question *q, const outr_kvs *own)
{
    unsigned lines = 0;
    outr_str said = q->request->headers ? outr_baggage_get(q->request->headers, spec->baggage,
                                                           q->scratch, &lines)
                                        : OUTR_STR_NONE;
    const outr_kv *label = own ? outr_kvs_find_exact(*own, spec->label) : NULL;
    if (choice->route && choice->route->environment.n > 0)
        choice->environment = choice->route->environment;
    else if (said.n > 0)
        choice->environment = said;
    else if (label)
        choice->environment = label->value;
    /* of several lines only the first crosses */
    choice->sets_environment =
        choice->environment.n > 0 && (lines > 1 || !outr_str_eq(choice->environment, said));
    if (choice->environment.n == 0)
        choice->environment = spec->fallback;
}

outr_route_choice outr_routes_choose(const outr_routes *routes, const outr_route_request *request,
                                     const outr_kvs *own, outr_rand *rand, outr_arena *scratch)
{
    outr_route_choice choice = {0};
    outr_route_question q;
    if (!routes)
        return choice;
    const callee *c = find_callee(routes, request->app_id, request->namespace_);
    outr_route_question_init(&q, request, scratch);
    entry *best = c->table ? find_entry(c->table, &q) : NULL;
    if (c != &routes->all && routes->all.table) {
        entry *other = find_entry(routes->all.table, &q);
        if (other && (!best || other->weight > best->weight))
            best = other;
    }
    if (best) {
        choice.policy = best->policy;
        choice.route = best->route;
        choice.subset = choose_subset(best, &q, rand);
    }
    if (c->rules.environment->is_on)
        choose_environment(&choice, c->rules.environment, &q, own);
    return choice;
}

bool outr_routes_ask_claims(const outr_routes *routes, outr_str app_id, outr_str namespace_)
{
    if (!routes)
        return false;
    const callee *c = find_callee(routes, app_id, namespace_);
    return (c->table && c->table->has_claims) ||
           (routes->all.table && routes->all.table->has_claims);
}

/* ---- which instances ------------------------------------------------------------------------- */

/* Labels of a subset and of an environment; what the subset says goes before. */
static outr_kvs wanted(const outr_subset_spec *subset, const outr_environment_spec *spec,
                       outr_str environment, outr_arena *arena)
{
    outr_kvs of_subset = subset ? subset->labels : (outr_kvs){0};
    size_t at = 0;
    if (environment.n == 0 || outr_kvs_find_exact(of_subset, spec->label))
        return of_subset;
    outr_kv *items = outr_arena_alloc(arena, (of_subset.count + 1) * sizeof *items);
    while (at < of_subset.count && outr_str_cmp(of_subset.items[at].key, spec->label) < 0)
        at++;
    if (at > 0)
        memcpy(items, of_subset.items, at * sizeof *items);
    items[at] = (outr_kv){spec->label, environment};
    if (at < of_subset.count)
        memcpy(items + at + 1, of_subset.items + at, (of_subset.count - at) * sizeof *items);
    return (outr_kvs){items, of_subset.count + 1};
}

void outr_route_wants_of(outr_route_wants *out, const outr_route_choice *choice,
                         const outr_environment_spec *environment, outr_arena *arena)
{
    const outr_route_spec *route = choice->route;
    bool falls = route && choice->subset && (route->falls_to_any || route->fallback_to) &&
                 choice->subset != route->fallback_to;
    bool changes = choice->environment.n > 0 && environment->fallback.n > 0 &&
                   !outr_str_eq(environment->fallback, choice->environment);
    out->count = 0;
    for (int e = 0; e <= changes; e++) {
        outr_str name = e ? environment->fallback : choice->environment;
        out->labels[out->count++] = wanted(choice->subset, environment, name, arena);
        if (falls)
            out->labels[out->count++] = wanted(route->fallback_to, environment, name, arena);
    }
}
