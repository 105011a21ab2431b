#include "mesh/checks.h"
#include "mesh/route.h"

/* an instance that could not be reached is the last choice for so long */
#define DOWN_NS OUTR_SEC
/* a name nobody has is asked for so often, as the reference does */
#define ASK_AGAIN    6
#define ASK_PAUSE_NS (100 * OUTR_MS)
#define SWEEP_NS     (60 * OUTR_SEC)
/* connections to an instance that is not called; by then none of its pool is left */
#define FORGET_NS (240 * OUTR_SEC)
#define IDLE_NS   (180 * OUTR_SEC)
#define PING_NS   (10 * OUTR_SEC)
/* Apps that a loop remembers: with a registry that has an answer for every name clients would make
 * up ever more of them. The least lately called one is forgotten, but for its calls in hand. */
#define NAMES_MAX 4096

/* An app as this loop knows it. */
typedef outr__known known;

void outr__peers_free_if_over(outr__peers *p)
{
    if (!p->is_freed || p->asks > 0)
        return;
    outr_callees_unref(p->callees);
    free(p);
}

/* ---- peers ----------------------------------------------------------------------------------- */

/* The path is compared whole, the trust domain not at all (contract/security.md). */
static outr_code is_peer(const void *ctx, outr_str uri, outr_err *err)
{
    const outr__peer *peer = ctx;
    outr_spiffe id;
    outr_code rc = outr_spiffe_parse(&id, uri, err);
    if (rc)
        return outr_wrap(err, "could not get leaf SPIFFE ID");
    if (outr_str_is(id.path, peer->path))
        return OUTR_OK;
    return outr_fail(err, OUTR_UNAVAILABLE, "unexpected SPIFFE ID: \"" OUTR_FMT "\"",
                     OUTR_ARG(outr_str_head(uri, 200)));
}

static void on_refused(void *ctx, const char *reason, const outr_err *err)
{
    outr__peer *peer = ctx;
    outr_loop *loop = peer->peers->o->loop;
    uint64_t now = outr_loop_now(loop);
    outr_mesh_count_refused(loop, "client", reason);
    if (now < peer->tell_refused_ns) /* a call tries several times, and there are many calls */
        return;
    peer->tell_refused_ns = now + OUTR_SEC;
    OUTR_LOG(outr_loop_log(loop), WARN, "a peer was not called", OUTR_Z("peer", peer->text),
             OUTR_Z("path", peer->path ? peer->path : ""), OUTR_Z("reason", reason), OUTR_ERR(err));
}

static void on_cut(void *ctx, const char *reason, size_t calls)
{
    const outr__peer *peer = ctx;
    outr_mesh_tell_cut(peer->peers->o->loop, "client", &peer->addr, reason, calls);
}

static outr__peer *find_peer(outr__peers *p, const outr_addr *addr, const known *who)
{
    char text[OUTR_ADDR_TEXT_MAX], path[512] = "", key[sizeof text + sizeof path];
    size_t n = outr_addr_text(addr, text);
    if (p->o->peer_tls)
        snprintf(path, sizeof path, "/ns/" OUTR_FMT "/" OUTR_FMT, OUTR_ARG(who->namespace_),
                 OUTR_ARG(who->app_id));
    snprintf(key, sizeof key, "%s%s", text, path);
    outr__peer *peer = outr_map_get(p->by_addr, outr_str_from(key));
    if (peer)
        return peer;
    peer = outr_alloc(sizeof *peer);
    const outr_http_pool_options options = {
        .loop = p->o->loop,
        .addr = *addr,
        .version = OUTR_HTTP_2,
        .tls = p->o->peer_tls,
        .tls_check = {is_peer, peer},
        .on_refused = on_refused,
        .on_cut = on_cut,
        .ctx = peer,
        .limits = {.max_header_bytes = OUTR_MIB,
                   .body_idle_ns = 24 * 3600 * OUTR_SEC,
                   .idle_ns = IDLE_NS},
        .ping_interval_ns = PING_NS,
        .settings_id = OUTR_MESH_SETTINGS_ID,
        .settings_value = OUTR_MESH_SETTINGS_VALUE,
        .waits_for_settings = true,
        .max_pending = UINT32_MAX, /* limits.h counts those of all instances */
        .quota = who->callee->limits.connections,
    };
    peer->addr = *addr;
    peer->peers = p;
    memcpy(peer->text, text, n + 1);
    peer->path = p->o->peer_tls ? outr_strdup(path) : NULL;
    peer->key = outr_strdup(key);
    peer->pool = outr_http_pool_new(&options);
    peer->used_ns = outr_loop_now(p->o->loop);
    outr_map_put(p->by_addr, outr_str_from(key), peer);
    if (!outr_timer_is_on(&p->sweeper))
        outr_timer_start(p->o->loop, &p->sweeper, peer->used_ns + SWEEP_NS);
    return peer;
}

static void free_peer(outr__peer *peer)
{
    outr_map_remove(peer->peers->by_addr, outr_str_from(peer->key));
    outr_http_pool_free(peer->pool); /* its handshakes end here: nobody asks for path after it */
    free(peer->path);
    free(peer->key);
    free(peer);
}

outr_http_pool *outr__peer_pool(outr__peer *peer)
{
    return peer->pool;
}

outr_str outr__peer_address(const outr__peer *peer)
{
    return outr_str_from(peer->text);
}

/* Forgets those that are over. */
static void empty_seats(outr__peers *p)
{
    void *item;
    for (size_t at = 0; outr_map_next(p->names, &at, NULL, &item);) {
        known *k = item;
        for (size_t i = 0; i < k->seat_count; i++) {
            if (k->seats[i].peer && k->seats[i].peer->is_over)
                k->seats[i] = (outr__seat){0};
        }
    }
}

static void on_sweep(outr_timer *timer)
{
    outr__peers *p = OUTR_CONTAINER(timer, outr__peers, sweeper);
    uint64_t now = outr_loop_now(p->o->loop);
    bool is_any = false;
    void *item;
    for (size_t at = 0; outr_map_next(p->by_addr, &at, NULL, &item);) {
        outr__peer *peer = item;
        peer->is_over = peer->holds == 0 && now - peer->used_ns > FORGET_NS;
        is_any |= peer->is_over;
    }
    if (is_any)
        empty_seats(p);
    for (size_t at = 0; is_any && outr_map_next(p->by_addr, &at, NULL, &item);) {
        if (((outr__peer *)item)->is_over)
            free_peer(item);
    }
    if (outr_map_count(p->by_addr) > 0)
        outr_timer_start(p->o->loop, timer, now + SWEEP_NS);
}

/* ---- names ----------------------------------------------------------------------------------- */

static outr_str write_name(outr_str app_id, outr_str namespace_, char *scratch, size_t size)
{
    int n = snprintf(scratch, size, OUTR_FMT "." OUTR_FMT, OUTR_ARG(app_id), OUTR_ARG(namespace_));
    return outr_str_of(scratch, OUTR_MIN((size_t)n, size - 1));
}

static outr_str name_key(const outr__pick *pick, char *scratch, size_t size)
{
    return write_name(pick->app_id, pick->namespace_, scratch, size);
}

static void drop_known(outr__peers *p, known *k)
{
    outr_map_remove(p->names, outr_str_from(k->name));
    outr_link_remove(&k->used);
    outr__callee_unref(k->callee);
    free(k->seats);
    free(k);
}

static void make_room(outr__peers *p)
{
    OUTR_LIST_EACH(link, &p->used) {
        if (outr_map_count(p->names) < NAMES_MAX)
            return;
        known *k = OUTR_LIST_ITEM(link, known, used);
        if (k->picks == 0)
            drop_known(p, k);
    }
}

/* What TrafficPolicies say of a callee. Where none is loaded, and none was, it has its defaults. */
static void use_rules(outr__peers *p, known *k)
{
    const outr_routes *routes = outr_routes_of(p->snapshot);
    if (!routes && !k->has_rules)
        return;
    k->has_rules = routes != NULL;
    outr__callee_use(k->callee, outr_routes_target(routes, k->app_id, k->namespace_),
                     p->o->settings->labels, outr_loop_now(p->o->loop));
    outr__check_begin(p, k);
}

static known *add_known(outr__peers *p, outr_str key, outr__callee *own_callee)
{
    make_room(p);
    known *k = outr_alloc(sizeof *k + key.n + 1);
    memcpy(k->name, key.p, key.n);
    k->callee = own_callee;
    k->namespace_ = outr_str_cut(outr_str_from(k->name), '.', &k->app_id);
    outr_map_put(p->names, key, k);
    outr_list_push(&p->used, &k->used);
    use_rules(p, k);
    return k;
}

/* NULL: neither this loop nor another one has asked for it. */
static known *find_known(outr__peers *p, outr_str key)
{
    known *k = outr_map_get(p->names, key);
    if (k)
        return k;
    outr__callee *callee = outr__callee_ref(p->callees, key, false);
    return callee ? add_known(p, key, callee) : NULL;
}

static known *learn(outr__peers *p, outr_str key, const outr_resolve *answer)
{
    known *k = find_known(p, key);
    if (!k && answer->count == 0)
        return NULL; /* what clients ask for in vain takes no memory */
    if (!k)
        k = add_known(p, key, outr__callee_ref(p->callees, key, true));
    outr__callee_learn(k->callee, answer, outr_loop_now(p->o->loop));
    return k;
}

outr__peer *outr__peer_of(outr__peers *p, outr__known *k, const outr__instance *i)
{
    if (i->slot >= k->seat_count) {
        size_t count = i->slot * 2 + 4;
        k->seats = outr_realloc(k->seats, count * sizeof *k->seats);
        memset(k->seats + k->seat_count, 0, (count - k->seat_count) * sizeof *k->seats);
        k->seat_count = count;
    }
    outr__seat *at = &k->seats[i->slot];
    if (at->serial != i->endpoint.serial)
        *at = (outr__seat){i->endpoint.serial, find_peer(p, &i->addr, k)};
    return at->peer;
}

/* ---- picking --------------------------------------------------------------------------------- */

static void tell_change(const outr__peers *p, const known *k, const char *peer,
                        outr_outlier_change change)
{
    static const outr_metric_desc ejections = {"outrigger_ejections_total",
                                               "instances that get no calls, and that do again",
                                               OUTR_COUNTER,
                                               0,
                                               {"target", "change"}};
    outr_loop *loop = p->o->loop;
    outr_str what = change == OUTR_OUTLIER_EJECTED ? OUTR_STR("ejected") : OUTR_STR("revived");
    outr_metric_count(outr_loop_metrics(loop), &ejections,
                      (const outr_str[]){outr_str_from(k->name), what}, 1);
    OUTR_LOG(outr_loop_log(loop), INFO, "an instance has changed", OUTR_Z("target", k->name),
             OUTR_Z("peer", peer), OUTR_S("change", what));
}

static void note_change(const outr__pick *pick, outr_outlier_change change)
{
    if (change == OUTR_OUTLIER_SAME)
        return;
    if (change == OUTR_OUTLIER_EJECTED)
        outr__check_begin(pick->peers, pick->known);
    tell_change(pick->peers, pick->known, pick->peer->text, change);
}

void outr__pick_observe(outr__pick *pick, uint64_t took_ns, outr_class how, uint64_t retry_after_ns)
{
    outr_loop *loop = pick->peers->o->loop;
    outr_outlier_change change =
        outr__callee_observe(pick->known->callee, pick->instance, outr_loop_now(loop), took_ns, how,
                             retry_after_ns, pick->is_probe, outr_loop_rand(loop));
    pick->is_probe = false;
    note_change(pick, change);
}

void outr__pick_took(outr__pick *pick, uint64_t took_ns)
{
    outr__callee_took(pick->known->callee, pick->instance, outr_loop_now(pick->peers->o->loop),
                      took_ns, pick->is_probe);
}

void outr__pick_took_longer(outr__pick *pick, uint64_t took_ns)
{
    outr__callee_took_longer(pick->known->callee, pick->instance,
                             outr_loop_now(pick->peers->o->loop), took_ns);
}

void outr__pick_judge(outr__pick *pick, outr_class how)
{
    outr_loop *loop = pick->peers->o->loop;
    outr_outlier_change change =
        outr__callee_judge(pick->known->callee, pick->instance, outr_loop_now(loop), how,
                           pick->is_probe, outr_loop_rand(loop));
    pick->is_probe = false;
    note_change(pick, change);
}

void outr__pick_beside(outr__pick *pick, const outr__pick *first)
{
    *pick = (outr__pick){.app_id = first->app_id,
                         .namespace_ = first->namespace_,
                         .labels = first->labels,
                         .is_repeatable = first->is_repeatable,
                         .is_counted = true,
                         .tried_count = first->tried_count,
                         .tried_next = first->tried_next};
    memcpy(pick->tried, first->tried, sizeof pick->tried);
    pick->tried[pick->tried_next++ % OUTR_LEN(pick->tried)] = first->instance->endpoint.serial;
    pick->tried_count = OUTR_MIN(pick->tried_count + 1, OUTR_LEN(pick->tried));
}

void outr__pick_avoid(outr__pick *pick)
{
    if (pick->is_repeat) /* all were: begin anew */
        pick->tried_count = 0;
    pick->tried[pick->tried_next++ % OUTR_LEN(pick->tried)] = pick->instance->endpoint.serial;
    pick->tried_count = OUTR_MIN(pick->tried_count + 1, OUTR_LEN(pick->tried));
}

void outr__pick_release(outr__pick *pick, bool is_down)
{
    uint64_t now = outr_loop_now(pick->peers->o->loop);
    outr__callee *callee = pick->known->callee;
    if (is_down)
        outr__callee_set_down(callee, pick->instance, now + DOWN_NS);
    if (pick->is_probe)
        outr__callee_forget_probe(callee, pick->instance);
    pick->is_probe = false;
    outr_limits_leave(&callee->limits, pick->is_pending);
    pick->is_pending = false;
    outr__instance_release(pick->instance);
    pick->peer->holds--;
    pick->peer->used_ns = now;
    pick->peer = NULL;
    pick->instance = NULL;
}

void outr__pick_end(outr__pick *pick)
{
    assert(!pick->peer);
    if (pick->known)
        pick->known->picks--;
    pick->known = NULL;
}

bool outr__pick_take_retry(outr__pick *pick)
{
    return outr__callee_take_retry(pick->known->callee, outr_loop_now(pick->peers->o->loop));
}

void outr__pick_spend_retry(outr__pick *pick)
{
    if (pick->known)
        outr__callee_spend_retry(pick->known->callee, outr_loop_now(pick->peers->o->loop));
}

bool outr__pick_has_other(const outr__pick *pick)
{
    return outr__callee_has_other(pick->known->callee, pick->labels, pick->instance);
}

static void refresh_known(outr__peers *p, known *k);

/* False: not even one that it may not go to. */
static bool choose(outr__pick *pick, known *k)
{
    outr__peers *p = pick->peers;
    outr_loop *loop = p->o->loop;
    pick->full = outr_limits_enter(&k->callee->limits);
    if (pick->full)
        return true;
    outr__choice how = {.pick = {.labels = pick->labels,
                                 .tried = pick->tried,
                                 .tried_count = pick->tried_count,
                                 .is_repeatable = pick->is_repeatable},
                        .now = outr_loop_now(loop),
                        .cache_ns = p->o->resolver->backend->cache_ns,
                        .is_counted = pick->is_counted};
    outr__instance *found = outr__callee_choose(k->callee, &how, outr_loop_rand(loop));
    outr_link_remove(&k->used);
    outr_list_push(&p->used, &k->used);
    for (unsigned i = 0; i < how.pick.revived; i++)
        tell_change(p, k, "", OUTR_OUTLIER_REVIVED);
    if (how.is_to_refresh) /* this call goes by what is known */
        refresh_known(p, k);
    if (!pick->known)
        k->picks++;
    pick->known = k;
    pick->is_counted = how.is_counted;
    pick->is_repeat = how.pick.is_repeat;
    pick->is_probe = how.pick.is_probe;
    pick->instance = found;
    pick->is_subset_empty = !found && !how.is_empty;
    pick->peer = found ? outr__peer_of(p, k, found) : NULL;
    pick->is_pending = found;
    if (found)
        pick->peer->holds++;
    else
        outr_limits_leave(&k->callee->limits, true);
    return !how.is_empty;
}

void outr__pick_placed(outr__pick *pick)
{
    if (pick->is_pending)
        outr_limits_placed(&pick->known->callee->limits);
    pick->is_pending = false;
}

outr_code outr__pick_fail_full(outr__pick *pick, const char *what, outr_err *err)
{
    static const outr_metric_desc full = {"outrigger_bulkhead_full_total",
                                          "calls refused because there are too many, by the limit",
                                          OUTR_COUNTER,
                                          0,
                                          {"target", "limit"}};
    outr_metric_count(outr_loop_metrics(pick->peers->o->loop), &full,
                      (const outr_str[]){pick->app_id, outr_str_from(what)}, 1);
    outr_fail(err, OUTR_UNAVAILABLE, "as many %s of calls to it are under way as may be", what);
    return outr_mark(err, OUTR_WHY_BULKHEAD_FULL);
}

static void end_pick(outr__pick *pick, bool is_soon)
{
    outr_err err;
    if (pick->peer) {
        (is_soon ? outr_op_finish_soon : outr_op_finish)(pick->op);
        return;
    }
    if (pick->full)
        outr__pick_fail_full(pick, pick->full == OUTR_LIMIT_OF_REQUESTS ? "requests" : "pending",
                             &err);
    else if (pick->is_subset_empty)
        outr_fail(&err, OUTR_UNAVAILABLE, "no instance of it has the labels that are asked for");
    else
        outr_fail(&err, OUTR_NOT_FOUND, "no host found with the given ID");
    (is_soon ? outr_op_fail_soon : outr_op_fail)(pick->op, &err);
}

static void ask(outr__pick *pick);

static void on_asked(outr_op *inner)
{
    outr__pick *pick = OUTR_CONTAINER(inner, outr__pick, inner);
    outr__peers *p = pick->peers;
    char scratch[512];
    outr_str key = name_key(pick, scratch, sizeof scratch);
    if (outr_op_is_cancelled(pick->op)) {
        outr_op_finish(pick->op);
        return;
    }
    if (pick->sleeps) {
        pick->sleeps = false;
        ask(pick);
        return;
    }
    if (inner->err.code && inner->err.code != OUTR_NOT_FOUND) {
        /* the registry is away: what was known still holds */
        known *k = find_known(p, key);
        if (k && choose(pick, k)) {
            end_pick(pick, false);
            return;
        }
        outr_err err = inner->err;
        err.code =
            OUTR_UNAVAILABLE; /* whatever ails the registry, it is not the caller's request */
        outr_op_fail(pick->op, &err);
        return;
    }
    if (pick->resolve.count == 0 && ++pick->attempts < ASK_AGAIN) {
        pick->sleeps = true;
        outr_op_init(&pick->inner, p->o->loop, pick->op, 0, on_asked);
        outr_sleep_start(outr_loop_now(p->o->loop) + ASK_PAUSE_NS, &pick->inner);
        return;
    }
    known *k = learn(p, key, &pick->resolve);
    if (k)
        choose(pick, k);
    end_pick(pick, false);
}

static void ask(outr__pick *pick)
{
    const outr_mesh_options *o = pick->peers->o;
    pick->resolve = (outr_resolve){.arena = pick->arena,
                                   .app_id = pick->app_id,
                                   .namespace_ = pick->namespace_,
                                   .port = o->internal_port};
    outr_op_init(&pick->inner, o->loop, pick->op, 0, on_asked);
    o->resolver->backend->resolve(o->resolver, &pick->resolve, &pick->inner);
}

/* A question of its own that only renews what all loops know. */
typedef struct refresh {
    outr__peers *peers;
    outr__callee *callee; /* a ref */
    outr_resolve resolve;
    outr_op op;
} refresh;

static void on_refreshed(outr_op *op)
{
    refresh *r = OUTR_CONTAINER(op, refresh, op);
    outr__peers *p = r->peers;
    outr_arena *arena = r->resolve.arena;
    uint64_t now = outr_loop_now(op->loop);
    if (!op->err.code)
        outr__callee_learn(r->callee, &r->resolve, now);
    if (outr__callee_end_refresh(r->callee, now) && !p->is_freed && p->watch)
        outr_watch_again(p->watch, r->resolve.app_id, r->resolve.namespace_);
    outr__callee_unref(r->callee);
    outr_arena_free(arena);
    p->asks--;
    outr__peers_free_if_over(p);
}

static void refresh_known(outr__peers *p, known *k)
{
    const outr_mesh_options *o = p->o;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    refresh *r = outr_arena_alloc(arena, sizeof *r);
    p->asks++;
    r->peers = p;
    r->callee = outr__callee_ref(p->callees, outr_str_from(k->name), true);
    r->resolve = (outr_resolve){.arena = arena,
                                .app_id = outr_arena_str(arena, k->app_id),
                                .namespace_ = outr_arena_str(arena, k->namespace_),
                                .port = o->internal_port};
    outr_op_init(&r->op, o->loop, NULL, 0, on_refreshed);
    o->resolver->backend->resolve(o->resolver, &r->resolve, &r->op);
}

/* The registry has heard something. Only names that were asked for here are asked for again. */
static void on_changed(void *ctx, outr_str app_id, outr_str namespace_)
{
    outr__peers *p = ctx;
    char scratch[512];
    outr_str key = write_name(app_id, namespace_, scratch, sizeof scratch);
    known *k = app_id.n > 0 ? outr_map_get(p->names, key) : NULL;
    void *item;
    if (k && outr__callee_begin_refresh(k->callee, true))
        refresh_known(p, k);
    for (size_t at = 0; app_id.n == 0 && outr_map_next(p->names, &at, NULL, &item);) {
        if (outr__callee_begin_refresh(((known *)item)->callee, true))
            refresh_known(p, item);
    }
}

static void on_cancel(outr_op *op)
{
    outr__pick *pick = op->impl;
    if (outr_op_is_pending(&pick->inner))
        outr_op_cancel(&pick->inner, op->err.code);
    else
        outr_op_finish(op);
}

void outr__pick_start(outr__peers *p, outr__pick *pick, outr_arena *arena, outr_op *op)
{
    const outr_mesh_options *o = p->o;
    char scratch[512];
    outr_err err;
    pick->peers = p;
    pick->arena = arena;
    pick->op = op;
    pick->peer = NULL;
    pick->is_subset_empty = pick->is_pending = false;
    pick->full = OUTR_LIMIT_NONE;
    pick->attempts = 0;
    pick->sleeps = false;
    outr_op_begin(op, pick, on_cancel);
    if (!o->resolver) {
        outr_fail(&err, OUTR_UNAVAILABLE, "name resolution is not available");
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_str key = name_key(pick, scratch, sizeof scratch);
    known *k = pick->known ? pick->known : find_known(p, key);
    bool is_known = k && choose(pick, k);
    if (is_known && pick->is_fresh && pick->peer && pick->is_repeat) {
        outr__pick_release(pick, false); /* all that are known were tried */
        is_known = false;
    }
    if (!is_known) {
        ask(pick);
        return;
    }
    /* whoever is not to be trusted has others beside him: they do not wait for the registry */
    if (pick->is_fresh && outr__callee_begin_refresh(k->callee, false))
        refresh_known(p, k);
    end_pick(pick, true);
}

/* ---- for people to look at ------------------------------------------------------------------- */

size_t outr_mesh_list_endpoints(outr_mesh *mesh, outr_str app_id, outr_str namespace_,
                                outr_arena *arena, outr_callee_view **out)
{
    outr__peers *p = mesh->peers;
    uint64_t now = outr_loop_now(p->o->loop);
    char scratch[512];
    if (app_id.n == 0)
        return outr__callees_view(p->callees, now, arena, out);
    outr_str key = write_name(app_id, namespace_.n ? namespace_ : mesh->o.settings->namespace_,
                              scratch, sizeof scratch);
    outr__callee *callee = outr__callee_ref(p->callees, key, false);
    *out = outr_arena_alloc(arena, sizeof **out);
    if (!callee)
        return 0;
    outr__callee_view(callee, now, arena, *out);
    outr__callee_unref(callee);
    return 1;
}

/* ---- making and freeing ---------------------------------------------------------------------- */

void outr__peers_update(outr__peers *p, const outr_snapshot *snapshot)
{
    void *item;
    p->snapshot = snapshot;
    for (size_t at = 0; outr_map_next(p->names, &at, NULL, &item);)
        use_rules(p, item);
}

outr__peers *outr__peers_new(const outr_mesh_options *o, const outr_snapshot *snapshot)
{
    outr__peers *p = outr_alloc(sizeof *p);
    p->o = o;
    p->snapshot = snapshot;
    p->callees = o->callees ? outr_callees_ref(o->callees) : outr_callees_new();
    p->names = outr_map_new();
    outr_list_init(&p->used);
    p->by_addr = outr_map_new();
    p->sweeper.fire = on_sweep;
    if (o->resolver && o->resolver->watchers)
        p->watch = outr_watch_start(o->resolver->watchers, o->loop, on_changed, p);
    return p;
}

void outr__peers_dismiss(outr__peers *p)
{
    void *item;
    for (size_t at = 0; outr_map_next(p->by_addr, &at, NULL, &item);)
        outr_http_pool_dismiss(((outr__peer *)item)->pool, outr_tls_is_covered, OUTR_MESH_GRACE_NS);
}

void outr__peers_free(outr__peers *p)
{
    void *item;
    outr_timer_stop(p->o->loop, &p->sweeper);
    outr_watch_end(p->watch);
    p->asks++; /* questions may end as they are cancelled */
    for (size_t at = 0; outr_map_next(p->names, &at, NULL, &item);) {
        outr__check_end(p, item);
        drop_known(p, item);
    }
    for (size_t at = 0; outr_map_next(p->by_addr, &at, NULL, &item);)
        free_peer(item);
    outr_map_free(p->names);
    outr_map_free(p->by_addr);
    p->is_freed = true;
    p->asks--;
    outr__peers_free_if_over(p);
}
