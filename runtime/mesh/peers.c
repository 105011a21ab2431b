#include "mesh/cluster.h"
#include "mesh/endpoints.h"
#include "mesh/internal.h"

/* an instance that could not be reached is the last choice for so long */
#define DOWN_NS OUTR_SEC
/* a name nobody has is asked for so often, as the reference does */
#define ASK_AGAIN     6
#define ASK_PAUSE_NS  (100 * OUTR_MS)
#define FORGET_NS     (60 * OUTR_SEC) /* connections to an instance no name leads to any more */
#define PING_NS       (10 * OUTR_SEC)
#define INSTANCES_MAX 1024

struct outr__peer {
    char text[OUTR_ADDR_TEXT_MAX];
    outr_addr addr;
    outr_http_pool *pool;
    outr__peers *peers;
    /* With mutual TLS a peer is an address and who is expected there: another app that comes by the
     * same address is another one. */
    char *path; /* of its SPIFFE id; NULL: nobody is asked */
    char *key;  /* in by_addr */
    uint64_t used_ns, tell_refused_ns;
    outr_endpoint endpoint; /* pending: calls that hold it */
    unsigned names;         /* cached names that lead to it */
};

/* A name and who has it. */
typedef struct known {
    outr_cluster cluster; /* of its peers' endpoints */
    uint64_t fetched_ns;
    bool is_refreshing;
    bool has_changed; /* since the question that is under way was asked */
    char name[];      /* for metrics and logs */
} known;

struct outr__peers {
    const outr_mesh_options *o;
    outr_map *names;   /* "id.namespace" -> known */
    outr_map *by_addr; /* key -> peer */
    outr_timer sweeper;
    outr_watch *watch; /* NULL: the resolver does not hear of changes */
    bool is_freed;
    unsigned refreshing;
};

static void free_if_over(outr__peers *p)
{
    if (p->is_freed && p->refreshing == 0)
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

static outr__peer *find_peer(outr__peers *p, const outr_addr *addr, const outr_resolve *who)
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
                   .idle_ns = 180 * OUTR_SEC},
        .ping_interval_ns = PING_NS,
        .settings_id = OUTR_MESH_SETTINGS_ID,
        .settings_value = OUTR_MESH_SETTINGS_VALUE,
        .waits_for_settings = true,
        .max_pending = 65536,
    };
    peer->addr = *addr;
    peer->peers = p;
    memcpy(peer->text, text, n + 1);
    peer->path = p->o->peer_tls ? outr_strdup(path) : NULL;
    peer->key = outr_strdup(key);
    peer->pool = outr_http_pool_new(&options);
    outr_map_put(p->by_addr, outr_str_from(key), peer);
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

static outr__peer *of_endpoint(outr_endpoint *endpoint)
{
    return OUTR_CONTAINER(endpoint, outr__peer, endpoint);
}

void outr__peer_release(outr__peer *peer, bool has_failed)
{
    uint64_t now = outr_loop_now(peer->peers->o->loop);
    peer->endpoint.pending--;
    peer->used_ns = now;
    peer->endpoint.down_until_ns = has_failed ? now + DOWN_NS : 0;
}

static void on_sweep(outr_timer *timer)
{
    outr__peers *p = OUTR_CONTAINER(timer, outr__peers, sweeper);
    uint64_t now = outr_loop_now(p->o->loop);
    void *item;
    for (size_t at = 0; outr_map_next(p->by_addr, &at, NULL, &item);) {
        outr__peer *peer = item;
        if (peer->names == 0 && peer->endpoint.pending == 0 && now - peer->used_ns > FORGET_NS)
            free_peer(peer);
    }
    if (outr_map_count(p->by_addr) > 0)
        outr_timer_start(p->o->loop, timer, now + FORGET_NS);
}

/* ---- names ----------------------------------------------------------------------------------- */

static outr_str name_key(const outr__pick *pick, char *scratch, size_t size)
{
    int n = snprintf(scratch, size, OUTR_FMT "." OUTR_FMT, OUTR_ARG(pick->app_id),
                     OUTR_ARG(pick->namespace_));
    return outr_str_of(scratch, OUTR_MIN((size_t)n, size - 1));
}

static known *new_known(outr__peers *p, outr_str key)
{
    known *k = outr_alloc(sizeof *k + key.n + 1);
    memcpy(k->name, key.p, key.n);
    outr_cluster_init(&k->cluster);
    outr_map_put(p->names, key, k);
    return k;
}

static void learn(outr__peers *p, outr_str key, const outr_resolve *answer)
{
    known *k = outr_map_get(p->names, key);
    if (!k && answer->count == 0)
        return; /* what clients ask for in vain takes no memory */
    if (!k)
        k = new_known(p, key);
    k->fetched_ns = outr_loop_now(p->o->loop);
    if (answer->count == 0 && k->cluster.count > 0)
        /* an empty registry does not empty the mesh: what is gone shows when it is called */
        return;
    size_t count = OUTR_MIN(answer->count, (size_t)INSTANCES_MAX);
    outr_endpoint **fresh = outr_alloc((count + 1) * sizeof *fresh);
    for (size_t i = 0; i < k->cluster.count; i++)
        of_endpoint(k->cluster.items[i])->names--;
    for (size_t i = 0; i < count; i++)
        fresh[i] = &find_peer(p, &answer->instances[i].addr, answer)->endpoint;
    outr_cluster_set(&k->cluster, fresh, count, k->fetched_ns);
    for (size_t i = 0; i < k->cluster.count; i++)
        of_endpoint(k->cluster.items[i])->names++;
    free(fresh);
    if (!outr_timer_is_on(&p->sweeper))
        outr_timer_start(p->o->loop, &p->sweeper, k->fetched_ns + FORGET_NS);
}

/* ---- picking --------------------------------------------------------------------------------- */

static outr__peer *choose(outr__pick *pick, known *k)
{
    outr_loop *loop = pick->peers->o->loop;
    outr_endpoint *tried[OUTR_LEN(pick->tried)];
    for (size_t i = 0; i < pick->tried_count; i++)
        tried[i] = &pick->tried[i]->endpoint;
    outr_cluster_pick how = {
        .tried = tried, .tried_count = pick->tried_count, .is_repeatable = pick->is_repeatable};
    outr_endpoint *found =
        outr_cluster_choose(&k->cluster, &how, outr_loop_now(loop), outr_loop_rand(loop));
    pick->is_repeat = how.is_repeat;
    pick->is_probe = how.is_probe;
    pick->known = k;
    return found ? of_endpoint(found) : NULL;
}

static void tell_change(const known *k, const outr__peer *peer, outr_outlier_change change)
{
    static const outr_metric_desc ejections = {"outrigger_ejections_total",
                                               "instances that get no calls, and that do again",
                                               OUTR_COUNTER,
                                               0,
                                               {"target", "change"}};
    outr_loop *loop = peer->peers->o->loop;
    outr_str what = change == OUTR_OUTLIER_EJECTED ? OUTR_STR("ejected") : OUTR_STR("revived");
    if (change == OUTR_OUTLIER_SAME)
        return;
    outr_metric_count(outr_loop_metrics(loop), &ejections,
                      (const outr_str[]){outr_str_from(k->name), what}, 1);
    OUTR_LOG(outr_loop_log(loop), INFO, "an instance has changed", OUTR_Z("target", k->name),
             OUTR_Z("peer", peer->text), OUTR_S("change", what));
}

void outr__pick_observe(outr__pick *pick, uint64_t took_ns, outr_class how, uint64_t retry_after_ns)
{
    outr_loop *loop = pick->peers->o->loop;
    outr__peer *peer = pick->peer;
    outr_outlier_change change =
        outr_endpoint_observe(&peer->endpoint, outr_loop_now(loop), took_ns, how, retry_after_ns,
                              pick->is_probe, outr_loop_rand(loop));
    pick->is_probe = false;
    tell_change(pick->known, peer, change);
}

void outr__pick_took(outr__pick *pick, uint64_t took_ns)
{
    outr_balance_observe(&pick->peer->endpoint.balance, outr_loop_now(pick->peers->o->loop),
                         took_ns, false);
}

void outr__pick_judge(outr__pick *pick, outr_class how)
{
    outr_loop *loop = pick->peers->o->loop;
    outr__peer *peer = pick->peer;
    outr_outlier_change change = outr_endpoint_judge(&peer->endpoint, outr_loop_now(loop), how,
                                                     pick->is_probe, outr_loop_rand(loop));
    pick->is_probe = false;
    tell_change(pick->known, peer, change);
}

void outr__pick_forget(outr__pick *pick)
{
    if (pick->is_probe)
        outr_outlier_forget_probe(&pick->peer->endpoint.outlier);
    pick->is_probe = false;
}

outr_budget *outr__pick_budget(outr__pick *pick)
{
    return &((known *)pick->known)->cluster.budget;
}

bool outr__pick_has_other(const outr__pick *pick)
{
    const known *k = pick->known;
    return outr_cluster_has_other(&k->cluster, &pick->peer->endpoint);
}

static void end_pick(outr__pick *pick, known *k, bool is_soon)
{
    outr_err err;
    pick->peer = k ? choose(pick, k) : NULL;
    if (pick->peer) {
        pick->peer->endpoint.pending++;
        (is_soon ? outr_op_finish_soon : outr_op_finish)(pick->op);
        return;
    }
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
        known *k = outr_map_get(p->names, key);
        if (k && k->cluster.count > 0) {
            end_pick(pick, k, false);
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
    learn(p, key, &pick->resolve);
    end_pick(pick, outr_map_get(p->names, key), false);
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

/* A question of its own that only renews the cache. */
typedef struct refresh {
    outr__peers *peers;
    outr_resolve resolve;
    outr_op op;
    char key[512];
} refresh;

static void on_refreshed(outr_op *op)
{
    refresh *r = OUTR_CONTAINER(op, refresh, op);
    outr__peers *p = r->peers;
    outr_arena *arena = r->resolve.arena;
    p->refreshing--;
    if (!p->is_freed) {
        known *k = outr_map_get(p->names, outr_str_from(r->key));
        if (k) {
            k->is_refreshing = false;
            k->fetched_ns = outr_loop_now(p->o->loop);
        }
        if (!op->err.code)
            learn(p, outr_str_from(r->key), &r->resolve);
        if (k && k->has_changed)
            outr_watch_again(p->watch, r->resolve.app_id, r->resolve.namespace_);
    }
    outr_arena_free(arena);
    free_if_over(p);
}

static void refresh_known(outr__peers *p, known *k, outr_str key, outr_str app_id,
                          outr_str namespace_)
{
    const outr_mesh_options *o = p->o;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    refresh *r = outr_arena_alloc(arena, sizeof *r);
    k->is_refreshing = true;
    k->has_changed = false;
    r->peers = p;
    r->peers->refreshing++;
    memcpy(r->key, key.p, key.n);
    r->resolve = (outr_resolve){.arena = arena,
                                .app_id = outr_arena_str(arena, app_id),
                                .namespace_ = outr_arena_str(arena, namespace_),
                                .port = o->internal_port};
    outr_op_init(&r->op, o->loop, NULL, 0, on_refreshed);
    o->resolver->backend->resolve(o->resolver, &r->resolve, &r->op);
}

static void renew(outr__peers *p, known *k, outr_str key)
{
    ptrdiff_t dot = outr_str_rfind(key, '.'); /* namespaces have none */
    if (k->is_refreshing)
        k->has_changed = true; /* its answer may be from before */
    else if (dot >= 0)
        refresh_known(p, k, key, outr_str_head(key, (size_t)dot),
                      outr_str_skip(key, (size_t)dot + 1));
}

/* The registry has heard something. Only names that were asked for here are asked for again. */
static void on_changed(void *ctx, outr_str app_id, outr_str namespace_)
{
    outr__peers *p = ctx;
    const outr__pick who = {.app_id = app_id, .namespace_ = namespace_};
    char scratch[512];
    outr_str key = name_key(&who, scratch, sizeof scratch);
    known *k = app_id.n > 0 ? outr_map_get(p->names, key) : NULL;
    void *item;
    if (k)
        renew(p, k, key);
    for (size_t at = 0; app_id.n == 0 && outr_map_next(p->names, &at, &key, &item);)
        renew(p, item, key);
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
    pick->attempts = 0;
    pick->sleeps = false;
    outr_op_begin(op, pick, on_cancel);
    if (!o->resolver) {
        outr_fail(&err, OUTR_UNAVAILABLE, "name resolution is not available");
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_str key = name_key(pick, scratch, sizeof scratch);
    known *k = outr_map_get(p->names, key);
    if (pick->is_fresh || !k || k->cluster.count == 0) {
        ask(pick);
        return;
    }
    if (outr_loop_now(o->loop) - k->fetched_ns > o->resolver->backend->cache_ns &&
        !k->is_refreshing)
        refresh_known(p, k, key, pick->app_id,
                      pick->namespace_); /* this call goes by what is known */
    end_pick(pick, k, true);
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

static void view(outr_endpoint_view *out, const outr_endpoint *e, outr_str address, uint64_t now)
{
    const outr_outlier *o = &e->outlier;
    *out = (outr_endpoint_view){
        .address = address,
        .reason = "",
        .score_ms = (double)outr_balance_cost(&e->balance, now) / (double)OUTR_MS,
        .share = outr_balance_ramp(&e->balance, now),
        .pending = e->pending,
        .ejections = o->ejections,
    };
    if (o->is_ejected) {
        out->state = o->is_probing ? OUTR_ENDPOINT_PROBING : OUTR_ENDPOINT_EJECTED;
        out->reason = outr_outlier_reason_name(o->reason);
        out->next_probe_ms = ms_until(o->until_ns, now);
        out->share = 0;
    } else if (e->down_until_ns > now) {
        out->state = OUTR_ENDPOINT_DOWN;
        out->reason = "connect_failed";
        out->next_probe_ms = ms_until(e->down_until_ns, now);
    } else if (out->share < 1) {
        out->state = OUTR_ENDPOINT_RAMPING;
    }
}

static void view_callee(outr_callee_view *out, const known *k, uint64_t now, outr_arena *arena)
{
    const outr_cluster *c = &k->cluster;
    *out = (outr_callee_view){.name = outr_arena_str(arena, outr_str_from(k->name)),
                              .items = outr_arena_alloc(arena, (c->count + 1) * sizeof *out->items),
                              .count = c->count,
                              .ejected = c->ejected_count,
                              .age_ms = (now - k->fetched_ns) / OUTR_MS};
    outr_budget_count(&c->budget, now, &out->calls, &out->retries);
    for (size_t i = 0; i < c->count; i++) {
        outr_str address = outr__peer_address(of_endpoint(c->items[i]));
        view(&out->items[i], c->items[i], outr_arena_str(arena, address), now);
    }
}

size_t outr_mesh_list_endpoints(outr_mesh *mesh, outr_str app_id, outr_str namespace_,
                                outr_arena *arena, outr_callee_view **out)
{
    const outr__peers *p = mesh->peers;
    uint64_t now = outr_loop_now(p->o->loop);
    char scratch[512];
    const outr__pick one = {.app_id = app_id,
                            .namespace_ = namespace_.n ? namespace_ : mesh->o.settings->namespace_};
    outr_str wanted = name_key(&one, scratch, sizeof scratch), key;
    size_t n = 0;
    void *item;
    *out = outr_arena_alloc(arena, (outr_map_count(p->names) + 1) * sizeof **out);
    for (size_t at = 0; outr_map_next(p->names, &at, &key, &item);) {
        if (app_id.n == 0 || outr_str_eq(key, wanted))
            view_callee(&(*out)[n++], item, now, arena);
    }
    return n;
}

/* ---- making and freeing ---------------------------------------------------------------------- */

outr__peers *outr__peers_new(const outr_mesh_options *o)
{
    outr__peers *p = outr_alloc(sizeof *p);
    p->o = o;
    p->names = outr_map_new();
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
    for (size_t at = 0; outr_map_next(p->names, &at, NULL, &item);) {
        outr_cluster_done(&((known *)item)->cluster);
        free(item);
    }
    for (size_t at = 0; outr_map_next(p->by_addr, &at, NULL, &item);)
        free_peer(item);
    outr_map_free(p->names);
    outr_map_free(p->by_addr);
    p->is_freed = true;
    free_if_over(p);
}
