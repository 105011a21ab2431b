#include "mesh/internal.h"

#define NAME_TTL_NS (30 * OUTR_SEC)
#define FORGET_NS   (120 * OUTR_SEC) /* connections to where nobody has called since */

/* Connections to one origin: scheme, host, port, and the endpoint whose certificates are shown. */
struct origin {
    outr_http_pool *pool;
    outr_tls *tls;
    outr_addr addr;
    outr_arena *arena;           /* the endpoint's; NULL: a URL */
    outr_endpoint_spec endpoint; /* a copy: its secrets are filled in, the snapshot may go */
    uint64_t looked_up_ns, used_ns;
    bool is_stale;  /* endpoints have been loaded anew */
    outr_link link; /* among those replaced after their name led elsewhere */
};
typedef struct origin origin;

struct outr__outside {
    const outr_mesh_options *o;
    outr_map *origins;
    outr_list replaced; /* calls end on the old address */
    outr_timer sweeper;
};

static void free_origin(origin *g)
{
    outr_link_remove(&g->link);
    if (g->pool)
        outr_http_pool_free(g->pool);
    outr_tls_unref(g->tls);
    outr_arena_free(g->arena);
    free(g);
}

static bool is_forgotten(const origin *g, uint64_t now)
{
    return now - g->used_ns >= FORGET_NS && outr_http_pool_in_flight(g->pool) == 0;
}

/* Apps choose whom they call: what is not used any more goes. */
static void on_sweep(outr_timer *timer)
{
    outr__outside *out = OUTR_CONTAINER(timer, outr__outside, sweeper);
    uint64_t now = outr_loop_now(out->o->loop);
    outr_str key;
    void *item;
    for (size_t at = 0; outr_map_next(out->origins, &at, &key, &item);) {
        origin *g = item;
        if (is_forgotten(g, now)) {
            outr_map_remove(out->origins, key);
            free_origin(g);
        }
    }
    OUTR_LIST_EACH(link, &out->replaced) {
        origin *g = OUTR_LIST_ITEM(link, origin, link);
        if (is_forgotten(g, now))
            free_origin(g);
    }
    if (outr_map_count(out->origins) > 0 || !outr_list_is_empty(&out->replaced))
        outr_timer_start(out->o->loop, timer, now + FORGET_NS);
}

static bool is_https(const outr_url *url)
{
    return outr_str_iis(url->scheme, "https");
}

static outr_code make_tls(outr_tls **out, const outr_endpoint_spec *endpoint, outr_err *err)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    outr_tls_options options = {.verify_peer = true, .alpn = alpn};
    options.ca_pem = endpoint->root_ca.value;
    options.certificate_pem = endpoint->certificate.value;
    options.key_pem = endpoint->private_key.value;
    return outr_tls_new(out, &options, err);
}

static void fail_reach(outr__reach *r, const outr_err *err)
{
    outr_err copy = *err;
    if (r->fresh)
        free_origin(r->fresh);
    r->fresh = NULL;
    outr_op_fail(r->op, &copy);
}

static bool is_fresh(const outr__outside *out, const origin *g)
{
    return g && !g->is_stale && outr_loop_now(out->o->loop) - g->looked_up_ns < NAME_TTL_NS;
}

static void replace(outr__outside *out, outr_str key, origin *by)
{
    origin *before = outr_map_put(out->origins, key, by);
    if (before) {
        outr_http_pool_retire(before->pool);
        outr_list_push(&out->replaced, &before->link);
    }
    if (!outr_timer_is_on(&out->sweeper))
        outr_timer_start(out->o->loop, &out->sweeper, outr_loop_now(out->o->loop) + FORGET_NS);
}

static void use(outr__reach *r, origin *g)
{
    g->used_ns = outr_loop_now(r->outside->o->loop);
    r->pool = g->pool;
    r->endpoint = g->arena ? &g->endpoint : NULL;
    if (r->fresh && r->fresh != g)
        free_origin(r->fresh);
    r->fresh = NULL;
}

/* ---- an endpoint's own copy ------------------------------------------------------------------ */

static outr_setting copy_setting(outr_arena *arena, const outr_setting *from)
{
    outr_setting s = *from;
    s.name = outr_arena_str(arena, from->name);
    s.value = outr_arena_str(arena, from->value);
    s.secret_name = outr_arena_str(arena, from->secret_name);
    s.secret_key = outr_arena_str(arena, from->secret_key);
    return s;
}

static void copy_endpoint(origin *g, const outr_endpoint_spec *from)
{
    outr_setting *headers;
    g->arena = outr_arena_new(OUTR_MIB);
    g->endpoint.base.name = outr_arena_str(g->arena, from->base.name);
    g->endpoint.secret_store = outr_arena_str(g->arena, from->secret_store);
    g->endpoint.root_ca = copy_setting(g->arena, &from->root_ca);
    g->endpoint.certificate = copy_setting(g->arena, &from->certificate);
    g->endpoint.private_key = copy_setting(g->arena, &from->private_key);
    headers = outr_arena_alloc(g->arena, (from->header_count + 1) * sizeof *headers);
    for (size_t i = 0; i < from->header_count; i++)
        headers[i] = copy_setting(g->arena, &from->headers[i]);
    g->endpoint.headers = headers;
    g->endpoint.header_count = from->header_count;
}

/* The parts that may refer to a secret, one after the other; NULL at the end. */
static outr_setting *setting_at(origin *g, size_t at)
{
    outr_setting *const parts[] = {&g->endpoint.root_ca, &g->endpoint.certificate,
                                   &g->endpoint.private_key};
    if (at < OUTR_LEN(parts))
        return parts[at];
    at -= OUTR_LEN(parts);
    return at < g->endpoint.header_count ? (outr_setting *)&g->endpoint.headers[at] : NULL;
}

/* ---- reaching -------------------------------------------------------------------------------- */

static bool leads_to(const outr_lookup *lookup, const outr_addr *addr)
{
    for (size_t i = 0; i < lookup->count; i++) {
        const outr_addr *a = &lookup->addrs[i];
        if (a->kind == addr->kind && a->scope_id == addr->scope_id &&
            memcmp(a->ip, addr->ip, sizeof a->ip) == 0)
            return true;
    }
    return false;
}

static void on_looked_up(outr_op *inner)
{
    outr__reach *r = OUTR_CONTAINER(inner, outr__reach, inner);
    outr__outside *out = r->outside;
    outr_err err;
    if (inner->err.code) {
        fail_reach(r, &inner->err);
        return;
    }
    origin *g = outr_map_get(out->origins, r->key);
    if (g && !g->is_stale && leads_to(&r->lookup, &g->addr)) {
        g->looked_up_ns = outr_loop_now(out->o->loop);
        use(r, g);
        outr_op_finish(r->op);
        return;
    }
    g = r->fresh ? r->fresh : outr_alloc(sizeof *g);
    r->fresh = g;
    if (is_https(&r->url) && make_tls(&g->tls, &g->endpoint, &err)) {
        fail_reach(r, &err);
        return;
    }
    g->addr = r->lookup.addrs[0];
    const outr_http_pool_options options = {
        .loop = out->o->loop,
        .addr = g->addr,
        .version = OUTR_HTTP_1,
        .tls = g->tls,
        .server_name = r->url.host,
        .limits = {.max_header_bytes =
                       OUTR_MAX((size_t)out->o->settings->read_buffer_bytes, 64 * OUTR_KIB)},
    };
    g->pool = outr_http_pool_new(&options);
    g->looked_up_ns = outr_loop_now(out->o->loop);
    replace(out, r->key, g);
    use(r, g);
    outr_op_finish(r->op);
}

static void look_up(outr__reach *r)
{
    outr_loop *loop = r->outside->o->loop;
    outr_env *env = outr_loop_env(loop);
    outr_op_init(&r->inner, loop, r->op, 0, on_looked_up);
    env->lookup(env, loop, &r->lookup, &r->inner);
}

static void read_secrets(outr__reach *r);

static void on_secret(outr_op *inner)
{
    outr__reach *r = OUTR_CONTAINER(inner, outr__reach, inner);
    outr_setting *s = setting_at(r->fresh, r->at++);
    if (inner->err.code) {
        outr_err err = inner->err;
        outr_wrap(&err, "HTTPEndpoint " OUTR_FMT, OUTR_ARG(r->target->endpoint->base.name));
        fail_reach(r, &err);
        return;
    }
    s->value = r->secret.value;
    read_secrets(r);
}

/* Better no call than one without the credentials that were asked for. */
static void read_secrets(outr__reach *r)
{
    const outr_mesh_options *o = r->outside->o;
    const outr_setting *s;
    while ((s = setting_at(r->fresh, r->at)) && s->secret_name.n == 0)
        r->at++;
    if (!s) {
        look_up(r);
        return;
    }
    r->secret = (outr_secret_value){.arena = r->fresh->arena,
                                    .store = r->fresh->endpoint.secret_store,
                                    .name = s->secret_name,
                                    .key = s->secret_key};
    outr_op_init(&r->inner, o->loop, r->op, 0, on_secret);
    o->read_secret(o->secrets, &r->secret, &r->inner);
}

static void on_cancel(outr_op *op)
{
    outr__reach *r = op->impl;
    outr_op_cancel(&r->inner, op->err.code);
}

void outr__reach_start(outr__outside *out, outr__reach *r, outr_arena *arena, outr_op *op)
{
    const outr_endpoint_spec *endpoint = r->target->endpoint;
    outr_err err;
    r->op = op;
    r->outside = out;
    r->fresh = NULL;
    r->at = 0;
    outr_op_begin(op, r, on_cancel);
    if (outr_url_parse(&r->url, r->target->base_url, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    uint16_t port = r->url.port ? r->url.port : is_https(&r->url) ? 443 : 80;
    r->key = outr_arena_printf(arena, OUTR_FMT "://" OUTR_FMT ":%u#" OUTR_FMT,
                               OUTR_ARG(r->url.scheme), OUTR_ARG(r->url.host), port,
                               OUTR_ARG(endpoint ? endpoint->base.name : OUTR_STR_NONE));
    r->lookup = (outr_lookup){.host = r->url.host, .port = port};
    origin *g = outr_map_get(out->origins, r->key);
    bool is_literal = outr_addr_from_ip(&r->lookup.addrs[0], r->url.host, port, NULL) == OUTR_OK;
    if (g && !g->is_stale && (is_literal || is_fresh(out, g))) {
        use(r, g);
        outr_op_finish_soon(op);
        return;
    }
    if (endpoint && (!g || g->is_stale)) {
        r->fresh = outr_alloc(sizeof *r->fresh);
        copy_endpoint(r->fresh, endpoint);
        read_secrets(r);
    } else {
        look_up(r);
    }
}

void outr__outside_update(outr__outside *out)
{
    void *item;
    for (size_t at = 0; outr_map_next(out->origins, &at, NULL, &item);)
        ((origin *)item)->is_stale |= ((origin *)item)->arena != NULL;
}

outr__outside *outr__outside_new(const outr_mesh_options *o)
{
    outr__outside *out = outr_alloc(sizeof *out);
    out->o = o;
    out->origins = outr_map_new();
    outr_list_init(&out->replaced);
    out->sweeper.fire = on_sweep;
    return out;
}

void outr__outside_free(outr__outside *out)
{
    void *item;
    outr_timer_stop(out->o->loop, &out->sweeper);
    for (size_t at = 0; outr_map_next(out->origins, &at, NULL, &item);)
        free_origin(item);
    while (!outr_list_is_empty(&out->replaced))
        free_origin(OUTR_LIST_ITEM(out->replaced.next, origin, link));
    outr_map_free(out->origins);
    free(out);
}
