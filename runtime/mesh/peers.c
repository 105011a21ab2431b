#include "mesh/internal.h"

/* an instance that could not be reached is the last choice for so long */
#define DOWN_NS OUTR_SEC
/* a name nobody has is asked for so often, as the reference does */
#define ASK_AGAIN     6
#define ASK_PAUSE_NS  (100 * OUTR_MS)
#define FORGET_NS     (60 * OUTR_SEC) /* connections to an instance no name leads to any more */
#define PING_NS       (10 * OUTR_SEC)
#define INSTANCES_MAX 256

struct outr__peer {
    char text[OUTR_ADDR_TEXT_MAX];
    outr_addr addr;
    outr_http_pool *pool;
    outr__peers *peers;
    /* With mutual TLS a peer is an address and who is expected there: another app that comes by the
     * same address is another one. */
    char *path; /* of its SPIFFE id; NULL: nobody is asked */
    char *key;  /* in by_addr */
    uint64_t down_until_ns, used_ns;
    unsigned holds, names; /* calls that use it, cached names that lead to it */
};

/* A name and who has it. */
typedef struct known {
    outr__peer *peers[INSTANCES_MAX];
    size_t count;
    uint64_t fetched_ns;
    bool is_refreshing;
} known;

struct outr__peers {
    const outr_mesh_options *o;
    outr_map *names;   /* "id.namespace" -> known */
    outr_map *by_addr; /* key -> peer */
    outr_timer sweeper;
    uint64_t tell_refused_ns;
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
    const outr__peer *peer = ctx;
    outr__peers *p = peer->peers;
    outr_loop *loop = p->o->loop;
    uint64_t now = outr_loop_now(loop);
    outr_mesh_count_refused(loop, "client", reason);
    if (now < p->tell_refused_ns) /* a call tries several times, and there are many calls */
        return;
    p->tell_refused_ns = now + OUTR_SEC;
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

void outr__peer_release(outr__peer *peer, bool has_failed)
{
    uint64_t now = outr_loop_now(peer->peers->o->loop);
    peer->holds--;
    peer->used_ns = now;
    peer->down_until_ns = has_failed ? now + DOWN_NS : 0;
}

static void on_sweep(outr_timer *timer)
{
    outr__peers *p = OUTR_CONTAINER(timer, outr__peers, sweeper);
    uint64_t now = outr_loop_now(p->o->loop);
    void *item;
    for (size_t at = 0; outr_map_next(p->by_addr, &at, NULL, &item);) {
        outr__peer *peer = item;
        if (peer->names == 0 && peer->holds == 0 && now - peer->used_ns > FORGET_NS)
            free_peer(peer);
    }
    if (outr_map_count(p->by_addr) > 0)
        outr_timer_start(p->o->loop, timer, now + FORGET_NS);
}

static bool was_tried(const outr__pick *pick, const outr__peer *peer)
{
    for (size_t i = 0; i < pick->tried_count; i++) {
        if (pick->tried[i] == peer)
            return true;
    }
    return false;
}

/* Least outstanding; instances that failed lately or were tried already only when nothing else is
 * left. */
static outr__peer *choose(const known *k, const outr__pick *pick, uint64_t now, outr_rand *rand)
{
    outr__peer *best = NULL;
    size_t best_load = SIZE_MAX, start = k->count ? outr_rand_below(rand, k->count) : 0;
    for (size_t i = 0; i < k->count; i++) {
        outr__peer *peer = k->peers[(start + i) % k->count];
        size_t load = outr_http_pool_in_flight(peer->pool);
        if (was_tried(pick, peer))
            load += SIZE_MAX / 2;
        else if (peer->down_until_ns > now)
            load += SIZE_MAX / 4;
        if (load < best_load) {
            best = peer;
            best_load = load;
        }
    }
    return best;
}

/* ---- names ----------------------------------------------------------------------------------- */

static outr_str name_key(const outr__pick *pick, char *scratch, size_t size)
{
    int n = snprintf(scratch, size, OUTR_FMT "." OUTR_FMT, OUTR_ARG(pick->app_id),
                     OUTR_ARG(pick->namespace_));
    return outr_str_of(scratch, OUTR_MIN((size_t)n, size - 1));
}

static void learn(outr__peers *p, outr_str key, const outr_resolve *answer)
{
    known *k = outr_map_get(p->names, key);
    if (!k && answer->count == 0)
        return; /* what clients ask for in vain takes no memory */
    if (!k) {
        k = outr_alloc(sizeof *k);
        outr_map_put(p->names, key, k);
    }
    k->fetched_ns = outr_loop_now(p->o->loop);
    if (answer->count == 0 && k->count > 0)
        /* an empty registry does not empty the mesh: what is gone shows when it is called */
        return;
    for (size_t i = 0; i < k->count; i++)
        k->peers[i]->names--;
    k->count = OUTR_MIN(answer->count, (size_t)INSTANCES_MAX);
    for (size_t i = 0; i < k->count; i++) {
        k->peers[i] = find_peer(p, &answer->instances[i].addr, answer);
        k->peers[i]->names++;
    }
    if (!outr_timer_is_on(&p->sweeper))
        outr_timer_start(p->o->loop, &p->sweeper, k->fetched_ns + FORGET_NS);
}

static void end_pick(outr__pick *pick, known *k, bool is_soon)
{
    outr__peers *p = pick->peers;
    outr_err err;
    pick->peer = k ? choose(k, pick, outr_loop_now(p->o->loop), outr_loop_rand(p->o->loop)) : NULL;
    if (pick->peer) {
        pick->is_repeat = was_tried(pick, pick->peer);
        pick->peer->holds++;
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
        if (k && k->count > 0) {
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
    }
    outr_arena_free(arena);
    free_if_over(p);
}

static void refresh_known(outr__pick *pick, known *k, outr_str key)
{
    const outr_mesh_options *o = pick->peers->o;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    refresh *r = outr_arena_alloc(arena, sizeof *r);
    k->is_refreshing = true;
    r->peers = pick->peers;
    r->peers->refreshing++;
    memcpy(r->key, key.p, key.n);
    r->resolve = (outr_resolve){.arena = arena,
                                .app_id = outr_arena_str(arena, pick->app_id),
                                .namespace_ = outr_arena_str(arena, pick->namespace_),
                                .port = o->internal_port};
    outr_op_init(&r->op, o->loop, NULL, 0, on_refreshed);
    o->resolver->backend->resolve(o->resolver, &r->resolve, &r->op);
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
    if (pick->is_fresh || !k || k->count == 0) {
        ask(pick);
        return;
    }
    if (outr_loop_now(o->loop) - k->fetched_ns > o->resolver->backend->cache_ns &&
        !k->is_refreshing)
        refresh_known(pick, k, key); /* this call goes by what is known */
    end_pick(pick, k, true);
}

/* ---- making and freeing ---------------------------------------------------------------------- */

outr__peers *outr__peers_new(const outr_mesh_options *o)
{
    outr__peers *p = outr_alloc(sizeof *p);
    p->o = o;
    p->names = outr_map_new();
    p->by_addr = outr_map_new();
    p->sweeper.fire = on_sweep;
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
    for (size_t at = 0; outr_map_next(p->names, &at, NULL, &item);)
        free(item);
    for (size_t at = 0; outr_map_next(p->by_addr, &at, NULL, &item);)
        free_peer(item);
    outr_map_free(p->names);
    outr_map_free(p->by_addr);
    p->is_freed = true;
    free_if_over(p);
}
