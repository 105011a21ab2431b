#include "mesh/callees.h"

#include "base/copy.h"

struct outr_callees {
    uint32_t refs; /* atomic */
    /* of the map and the refs of what is in it: taken when a loop hears of a name for the first
     * time, or forgets one */
    pthread_mutex_t lock;
    outr_map *by_name;
};

outr_callees *outr_callees_new(void)
{
    outr_callees *all = outr_alloc(sizeof *all);
    all->refs = 1;
    all->by_name = outr_map_new();
    pthread_mutex_init(&all->lock, NULL);
    return all;
}

outr_callees *outr_callees_ref(outr_callees *all)
{
    __atomic_fetch_add(&all->refs, 1, __ATOMIC_RELAXED);
    return all;
}

void outr_callees_unref(outr_callees *all)
{
    if (!all || __atomic_sub_fetch(&all->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    assert(outr_map_count(all->by_name) == 0);
    outr_map_free(all->by_name);
    pthread_mutex_destroy(&all->lock);
    free(all);
}

/* ---- callees --------------------------------------------------------------------------------- */

static outr__callee *new_callee(outr_callees *all, outr_str name)
{
    outr__callee *c = outr_alloc(sizeof *c + name.n + 1);
    memcpy(c->name, name.p, name.n);
    c->home = all;
    c->by_addr = outr_map_new();
    pthread_mutex_init(&c->lock, NULL);
    outr_cluster_init(&c->cluster);
    outr_limits_init(&c->limits);
    outr_map_put(all->by_name, name, c);
    return c;
}

outr__callee *outr__callee_ref(outr_callees *all, outr_str name, bool makes)
{
    pthread_mutex_lock(&all->lock);
    outr__callee *c = outr_map_get(all->by_name, name);
    if (!c && makes)
        c = new_callee(all, name);
    if (c)
        c->refs++;
    pthread_mutex_unlock(&all->lock);
    return c;
}

static void free_callee(outr__callee *c)
{
    outr_cluster_done(&c->cluster);
    outr_limits_done(&c->limits);
    for (size_t i = 0; i < c->slot_count; i++) {
        if (c->slots[i])
            outr__instance_release(c->slots[i]);
    }
    outr_map_free(c->by_addr);
    free(c->slots);
    free((void *)c->checks.path.p);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void outr__callee_unref(outr__callee *c)
{
    outr_callees *all = c->home;
    pthread_mutex_lock(&all->lock);
    bool is_last = --c->refs == 0;
    if (is_last)
        outr_map_remove(all->by_name, outr_str_from(c->name));
    pthread_mutex_unlock(&all->lock);
    if (is_last)
        free_callee(c);
}

static outr_cluster_rules cluster_rules(const outr_target_rules *rules, outr_kvs own)
{
    const outr_ejection_spec *e = rules->ejection;
    const outr_locality_spec *l = rules->locality;
    outr_cluster_rules out = {
        .ejection = {.is_disabled = e->is_disabled,
                     .in_a_row = (unsigned)e->consecutive,
                     .failure_percent = (unsigned)e->failure_percent,
                     .window = (unsigned)e->window,
                     .base_ns = e->base_ns,
                     .max_ns = e->max_ns},
        .ejected_max_percent = (unsigned)e->max_percent,
        .slow_start_ns = rules->slow_start_ns,
        .budget = {.percent = rules->retry_budget->percent,
                   .per_second = (unsigned)rules->retry_budget->per_second},
    };
    const outr_kv *zone = l->is_on ? outr_kvs_find_exact(own, l->label) : NULL;
    if (zone) {
        out.zone_label = zone->key;
        out.zone = zone->value;
        out.near_min_percent = l->min_percent;
    }
    return out;
}

void outr__callee_use(outr__callee *c, const outr_target_rules *rules, outr_kvs own, uint64_t now)
{
    const outr_cluster_rules fresh = cluster_rules(rules, own);
    const outr_active_check_spec *check = rules->health_check;
    outr_limits_use(&c->limits, rules->limits);
    pthread_mutex_lock(&c->lock);
    outr_cluster_use(&c->cluster, &fresh, now);
    free((void *)c->checks.path.p);
    c->checks = (outr__check_rules){.is_on = check->is_on,
                                    .path = outr_str_of(outr_str_dup(check->path), check->path.n),
                                    .interval_ns = check->interval_ns,
                                    .timeout_ns = check->timeout_ns};
    pthread_mutex_unlock(&c->lock);
}

/* ---- instances ------------------------------------------------------------------------------- */

static outr__instance *of_endpoint(outr_endpoint *e)
{
    return OUTR_CONTAINER(e, outr__instance, endpoint);
}

void outr__instance_release(outr__instance *i)
{
    if (!outr_endpoint_release(&i->endpoint))
        return;
    free((void *)i->endpoint.labels.items);
    free(i);
}

static void take_slot(outr__callee *c, outr__instance *i)
{
    size_t at = 0;
    while (at < c->slot_count && c->slots[at])
        at++;
    if (at == c->slot_count) {
        c->slots = outr_realloc(c->slots, (at * 2 + 4) * sizeof(outr__instance *));
        memset(c->slots + at, 0, (at + 4) * sizeof(outr__instance *));
        c->slot_count = at * 2 + 4;
    }
    c->slots[at] = i;
    i->slot = at;
}

static outr__instance *new_instance(outr__callee *c, const outr_addr *addr, outr_str text)
{
    outr__instance *i = outr_alloc(sizeof *i + text.n + 1);
    memcpy(i->text, text.p, text.n);
    i->addr = *addr;
    outr_endpoint_init(&i->endpoint);
    outr_map_put(c->by_addr, text, i);
    take_slot(c, i);
    return i;
}

static void drop_instance(outr__callee *c, outr__instance *i)
{
    if (outr_map_get(c->by_addr, outr_str_from(i->text)) == i)
        outr_map_remove(c->by_addr, outr_str_from(i->text));
    c->slots[i->slot] = NULL;
    outr__instance_release(i);
}

static void tell_id(outr__instance *i, uint64_t id)
{
    i->told_as[i->told_count++ % OUTR_LEN(i->told_as)] = id;
}

/* At the same address there is another process now, of which nothing is known: its registration is
 * one that was not heard of before. Registries that tell none have the address for it; those of
 * processes that ended badly are told for a while, beside the present one. */
static bool is_another(outr__instance *i, outr_str id)
{
    uint64_t hash = outr_str_hash(id, 0);
    if (id.n == 0 || outr_str_is(id, i->text))
        return false;
    for (size_t k = 0; k < OUTR_MIN(i->told_count, OUTR_LEN(i->told_as)); k++) {
        if (i->told_as[k] == hash)
            return false;
    }
    bool has_been_told = i->told_count > 0;
    tell_id(i, hash);
    return has_been_told;
}

/* fresh: what was taken of the same answer before. */
static outr__instance *replace(outr__callee *c, outr__instance *before, outr_endpoint **fresh,
                               size_t count)
{
    outr__instance *i = new_instance(c, &before->addr, outr_str_from(before->text));
    memcpy(i->told_as, before->told_as, sizeof i->told_as);
    i->told_count = before->told_count;
    before->is_said = false;
    for (size_t k = 0; k < count; k++) {
        if (fresh[k] == &before->endpoint)
            fresh[k] = &i->endpoint;
    }
    if (!before->endpoint.home)
        drop_instance(c, before);
    return i;
}

/* True: it is another one than before, or another of its labels. It is put at fresh[at]. */
static bool take(outr__callee *c, const outr_instance *said, outr_endpoint **fresh, size_t at)
{
    char scratch[OUTR_ADDR_TEXT_MAX];
    outr_str text = outr_str_of(scratch, outr_addr_text(&said->addr, scratch));
    outr__instance *i = outr_map_get(c->by_addr, text);
    bool is_new = !i;
    if (is_new)
        i = new_instance(c, &said->addr, text);
    if (is_another(i, said->id)) {
        i = replace(c, i, fresh, at);
        is_new = true;
    }
    bool is_changed = !outr_kvs_eq(i->endpoint.labels, said->labels);
    if (is_changed) {
        free((void *)i->endpoint.labels.items);
        i->endpoint.labels = outr_kvs_dup(said->labels);
    }
    i->is_said = true;
    fresh[at] = &i->endpoint;
    return is_new || is_changed;
}

static void learn(outr__callee *c, const outr_resolve *answer, uint64_t now)
{
    size_t count = OUTR_MIN(answer->count, (size_t)OUTR__INSTANCES_MAX), before = c->cluster.count;
    c->fetched_ns = OUTR_MAX(c->fetched_ns, now);
    if (count == 0)
        return;
    outr_endpoint **fresh = outr_alloc((count + before) * sizeof *fresh), **gone = fresh + count;
    size_t gone_count = 0;
    bool is_changed = false;
    for (size_t i = 0; i < before; i++)
        of_endpoint(c->cluster.items[i])->is_said = false;
    for (size_t i = 0; i < count; i++)
        is_changed |= take(c, &answer->instances[i], fresh, i);
    for (size_t i = 0; i < before; i++) {
        if (!of_endpoint(c->cluster.items[i])->is_said)
            gone[gone_count++] = c->cluster.items[i];
    }
    if (is_changed || gone_count > 0)
        outr_cluster_set(&c->cluster, fresh, count, now);
    for (size_t i = 0; i < gone_count; i++)
        drop_instance(c, of_endpoint(gone[i]));
    free(fresh);
}

void outr__callee_learn(outr__callee *c, const outr_resolve *answer, uint64_t now)
{
    pthread_mutex_lock(&c->lock);
    learn(c, answer, now);
    pthread_mutex_unlock(&c->lock);
}

bool outr__callee_begin_refresh(outr__callee *c, bool has_changed)
{
    pthread_mutex_lock(&c->lock);
    bool is_first = !c->is_refreshing;
    c->is_refreshing = true;
    c->is_stale = !is_first && (c->is_stale || has_changed);
    pthread_mutex_unlock(&c->lock);
    return is_first;
}

bool outr__callee_end_refresh(outr__callee *c, uint64_t now)
{
    pthread_mutex_lock(&c->lock);
    bool is_stale = c->is_stale;
    c->is_refreshing = c->is_stale = false;
    c->fetched_ns = OUTR_MAX(c->fetched_ns, now); /* no answer: as long as one lasts */
    pthread_mutex_unlock(&c->lock);
    return is_stale;
}

/* ---- calls ----------------------------------------------------------------------------------- */

static bool is_to_refresh(outr__callee *c, const outr__choice *how)
{
    bool is_old = how->now > c->fetched_ns + how->cache_ns;
    if (c->is_refreshing || !is_old)
        return false;
    return c->is_refreshing = true;
}

outr__instance *outr__callee_choose(outr__callee *c, outr__choice *how, outr_rand *rand)
{
    pthread_mutex_lock(&c->lock);
    outr_endpoint *e = outr_cluster_choose(&c->cluster, &how->pick, how->now, rand);
    how->is_empty = c->cluster.count == 0;
    how->is_to_refresh = !how->is_empty && is_to_refresh(c, how);
    if (e && !how->is_counted)
        outr_budget_call(&c->cluster.budget, how->now);
    pthread_mutex_unlock(&c->lock);
    how->is_counted |= e != NULL;
    return e ? of_endpoint(e) : NULL;
}

outr_outlier_change outr__callee_observe(outr__callee *c, outr__instance *i, uint64_t now,
                                         uint64_t took_ns, outr_class how, uint64_t retry_after_ns,
                                         bool was_probe, outr_rand *rand)
{
    pthread_mutex_lock(&c->lock);
    outr_outlier_change change =
        outr_endpoint_observe(&i->endpoint, now, took_ns, how, retry_after_ns, was_probe, rand);
    pthread_mutex_unlock(&c->lock);
    return change;
}

outr_outlier_change outr__callee_judge(outr__callee *c, outr__instance *i, uint64_t now,
                                       outr_class how, bool was_probe, outr_rand *rand)
{
    pthread_mutex_lock(&c->lock);
    outr_outlier_change change = outr_endpoint_judge(&i->endpoint, now, how, was_probe, rand);
    pthread_mutex_unlock(&c->lock);
    return change;
}

void outr__callee_took(outr__callee *c, outr__instance *i, uint64_t now, uint64_t took_ns,
                       bool is_probe)
{
    pthread_mutex_lock(&c->lock);
    outr_endpoint_took(&i->endpoint, now, took_ns, is_probe);
    pthread_mutex_unlock(&c->lock);
}

void outr__callee_took_longer(outr__callee *c, outr__instance *i, uint64_t now, uint64_t took_ns)
{
    pthread_mutex_lock(&c->lock);
    outr_balance_at_least(&i->endpoint.balance, now, took_ns);
    pthread_mutex_unlock(&c->lock);
}

void outr__callee_forget_probe(outr__callee *c, outr__instance *i)
{
    pthread_mutex_lock(&c->lock);
    outr_endpoint_forget_probe(&i->endpoint);
    pthread_mutex_unlock(&c->lock);
}

void outr__callee_set_down(outr__callee *c, outr__instance *i, uint64_t until_ns)
{
    pthread_mutex_lock(&c->lock);
    outr_endpoint_set_down(&i->endpoint, until_ns);
    pthread_mutex_unlock(&c->lock);
}

bool outr__callee_has_other(outr__callee *c, const outr_kvs *labels, const outr__instance *i)
{
    pthread_mutex_lock(&c->lock);
    bool has = outr_cluster_has_other(&c->cluster, labels, &i->endpoint);
    pthread_mutex_unlock(&c->lock);
    return has;
}

bool outr__callee_take_retry(outr__callee *c, uint64_t now)
{
    pthread_mutex_lock(&c->lock);
    bool may = outr_budget_take(&c->cluster.budget, &c->cluster.rules.budget, now);
    pthread_mutex_unlock(&c->lock);
    return may;
}

void outr__callee_spend_retry(outr__callee *c, uint64_t now)
{
    pthread_mutex_lock(&c->lock);
    outr_budget_spend(&c->cluster.budget, now);
    pthread_mutex_unlock(&c->lock);
}

/* ---- checks ---------------------------------------------------------------------------------- */

bool outr__callee_claim_checks(outr__callee *c, uint64_t *interval_ns)
{
    pthread_mutex_lock(&c->lock);
    bool is_mine = c->checks.is_on && c->cluster.ejected_count > 0 && !c->is_checked;
    c->is_checked |= is_mine;
    *interval_ns = c->checks.interval_ns;
    pthread_mutex_unlock(&c->lock);
    return is_mine;
}

void outr__callee_end_checks(outr__callee *c)
{
    pthread_mutex_lock(&c->lock);
    c->is_checked = false;
    pthread_mutex_unlock(&c->lock);
}

/* That its sidecar answers says nothing of an app that fails. */
static bool is_to_be_asked(const outr__callee *c, const outr_endpoint *e, uint64_t now)
{
    return !e->outlier.is_probing && e->outlier.until_ns > now &&
           (c->checks.path.n > 0 || e->is_down);
}

size_t outr__callee_begin_checks(outr__callee *c, uint64_t now, outr__check_rules *rules,
                                 size_t *from, outr__instance **due, size_t max)
{
    size_t n = 0, at = 0;
    pthread_mutex_lock(&c->lock);
    *rules = c->checks;
    rules->is_on = c->is_checked = c->checks.is_on && c->cluster.ejected_count > 0;
    rules->path =
        rules->is_on ? outr_str_of(outr_str_dup(c->checks.path), c->checks.path.n) : OUTR_STR_NONE;
    size_t first = rules->is_on ? *from % c->cluster.ejected_count : 0;
    OUTR_LIST_EACH(link, &c->cluster.ejected) {
        outr_endpoint *e = OUTR_LIST_ITEM(link, outr_endpoint, ejected);
        if (!rules->is_on || n == max)
            break;
        if (at++ < first || !is_to_be_asked(c, e, now))
            continue;
        outr_endpoint_hold(e);
        due[n++] = of_endpoint(e);
    }
    *from = at < c->cluster.ejected_count ? at : 0;
    pthread_mutex_unlock(&c->lock);
    return n;
}

void outr__callee_open_probe(outr__callee *c, outr__instance *i, uint64_t now)
{
    pthread_mutex_lock(&c->lock);
    outr_endpoint_open_probe(&i->endpoint, now);
    pthread_mutex_unlock(&c->lock);
}

/* ---- for people to look at ------------------------------------------------------------------- */

const char *outr_endpoint_state_name(outr_endpoint_state state)
{
    static const char *const names[] = {"ok", "ramping", "ejected", "probing", "down"};
    return names[state];
}

static uint64_t ms_until(uint64_t at, uint64_t now)
{
    return at > now ? (at - now + OUTR_MS - 1) / OUTR_MS : 0;
}

static void view(outr_endpoint_view *out, const outr__instance *i, uint64_t now, outr_arena *arena)
{
    const outr_endpoint *e = &i->endpoint;
    const outr_outlier *o = &e->outlier;
    *out = (outr_endpoint_view){
        .address = outr_arena_str(arena, outr_str_from(i->text)),
        .labels = outr_kvs_copy(arena, e->labels),
        .reason = "",
        .score_ms = (double)outr_balance_cost(&e->balance, now) / (double)OUTR_MS,
        .share = outr_balance_ramp(&e->balance, now),
        .pending = outr_endpoint_pending(e),
        .ejections = o->ejections,
        .outcomes = {e->outcomes[0], e->outcomes[1], e->outcomes[2]},
    };
    if (o->is_ejected) {
        out->state = o->is_probing ? OUTR_ENDPOINT_PROBING : OUTR_ENDPOINT_EJECTED;
        out->reason = outr_outlier_reason_name(o->reason);
        out->next_probe_ms = ms_until(o->until_ns, now);
        out->share = 0;
    } else if (e->is_down && e->down_until_ns > now) {
        out->state = OUTR_ENDPOINT_DOWN;
        out->reason = "connect_failed";
        out->next_probe_ms = ms_until(e->down_until_ns, now);
    } else if (out->share < 1) {
        out->state = OUTR_ENDPOINT_RAMPING;
    }
}

void outr__callee_view(outr__callee *c, uint64_t now, outr_arena *arena, outr_callee_view *out)
{
    pthread_mutex_lock(&c->lock);
    const outr_cluster *cluster = &c->cluster;
    *out = (outr_callee_view){
        .name = outr_arena_str(arena, outr_str_from(c->name)),
        .items = outr_arena_alloc(arena, (cluster->count + 1) * sizeof *out->items),
        .ejected = cluster->ejected_count,
        .age_ms = now > c->fetched_ns ? (now - c->fetched_ns) / OUTR_MS : 0};
    outr_budget_count(&cluster->budget, now, &out->calls, &out->retries);
    for (size_t i = 0; i < cluster->count && !outr_arena_is_over(arena); i++)
        view(&out->items[out->count++], of_endpoint(cluster->items[i]), now, arena);
    pthread_mutex_unlock(&c->lock);
}

size_t outr__callees_view(outr_callees *all, uint64_t now, outr_arena *arena,
                          outr_callee_view **out)
{
    size_t n = 0;
    void *item;
    pthread_mutex_lock(&all->lock); /* so that none of them ends */
    *out = outr_arena_alloc(arena, (outr_map_count(all->by_name) + 1) * sizeof **out);
    for (size_t at = 0;
         outr_map_next(all->by_name, &at, NULL, &item) && !outr_arena_is_over(arena);)
        outr__callee_view(item, now, arena, &(*out)[n++]);
    pthread_mutex_unlock(&all->lock);
    return n;
}
