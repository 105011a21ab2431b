#include "mesh/internal.h"

#define NAME_TTL_NS (30 * OUTR_SEC)
#define FORGET_NS   (120 * OUTR_SEC) /* connections to where nobody has called since */

/* Connections to one origin: scheme, host, port, and the endpoint whose certificates are shown. */
typedef struct origin {
    outr_http_pool *pool;
    outr_tls *tls;
    uint64_t looked_up_ns, used_ns;
    outr_link link; /* among those replaced after their name led elsewhere */
} origin;

struct outr__outside {
    const outr_mesh_options *o;
    outr_map *origins;
    outr_list replaced; /* calls end on the old address */
    outr_timer sweeper;
};

static void free_origin(origin *g)
{
    outr_link_remove(&g->link);
    outr_http_pool_free(g->pool);
    outr_tls_unref(g->tls);
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

outr_str outr__authority(outr_arena *arena, const outr_url *url)
{
    bool is_v6 = outr_str_find(url->host, ':') >= 0;
    outr_str host =
        is_v6 ? outr_arena_join(arena, OUTR_STR("["), url->host, OUTR_STR("]")) : url->host;
    return url->port ? outr_arena_printf(arena, OUTR_FMT ":%u", OUTR_ARG(host), url->port) : host;
}

static bool is_https(const outr_url *url)
{
    return outr_str_iis(url->scheme, "https");
}

static outr_code make_tls(outr_tls **out, const outr__target *target, outr_err *err)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    outr_tls_options options = {.verify_peer = true, .alpn = alpn};
    if (target->endpoint) {
        options.ca_pem = target->endpoint->root_ca.value;
        options.certificate_pem = target->endpoint->certificate.value;
        options.key_pem = target->endpoint->private_key.value;
    }
    return outr_tls_new(out, &options, err);
}

static void fail_reach(outr__reach *r, const outr_err *err)
{
    outr_err copy = *err;
    outr_op_fail(r->op, &copy);
}

static bool is_fresh(const outr__outside *out, const origin *g)
{
    return g && outr_loop_now(out->o->loop) - g->looked_up_ns < NAME_TTL_NS;
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
    if (is_fresh(out, g)) { /* another call asked at the same time */
        use(r, g);
        outr_op_finish(r->op);
        return;
    }
    outr_tls *tls = NULL;
    if (is_https(&r->url) && make_tls(&tls, r->target, &err)) {
        fail_reach(r, &err);
        return;
    }
    const outr_http_pool_options options = {
        .loop = out->o->loop,
        .addr = r->lookup.addrs[0],
        .version = OUTR_HTTP_1,
        .tls = tls,
        .server_name = r->url.host,
        .limits = {.max_header_bytes =
                       OUTR_MAX((size_t)out->o->settings->read_buffer_bytes, 64 * OUTR_KIB)},
    };
    g = outr_alloc(sizeof *g);
    g->tls = tls;
    g->pool = outr_http_pool_new(&options);
    g->looked_up_ns = outr_loop_now(out->o->loop);
    replace(out, r->key, g);
    use(r, g);
    outr_op_finish(r->op);
}

static void on_cancel(outr_op *op)
{
    outr__reach *r = op->impl;
    outr_op_cancel(&r->inner, op->err.code);
}

/* Better no call than one without the credentials that were asked for. */
static outr_code check_secrets(const outr_endpoint_spec *e, outr_err *err)
{
    if (!e)
        return OUTR_OK;
    const outr_setting *const parts[] = {&e->root_ca, &e->certificate, &e->private_key};
    bool has_secrets = false;
    for (size_t i = 0; i < OUTR_LEN(parts); i++)
        has_secrets |= parts[i]->secret_name.n > 0;
    for (size_t i = 0; i < e->header_count; i++)
        has_secrets |= e->headers[i].secret_name.n > 0;
    if (!has_secrets)
        return OUTR_OK;
    return outr_fail(err, OUTR_UNIMPLEMENTED,
                     "HTTPEndpoint " OUTR_FMT ": secretKeyRef is not read by this version",
                     OUTR_ARG(e->base.name));
}

void outr__reach_start(outr__outside *out, outr__reach *r, outr_arena *arena, outr_op *op)
{
    outr_env *env = outr_loop_env(out->o->loop);
    outr_err err;
    r->op = op;
    r->outside = out;
    outr_op_begin(op, r, on_cancel);
    if (outr_url_parse(&r->url, r->target->base_url, &err) ||
        check_secrets(r->target->endpoint, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    uint16_t port = r->url.port ? r->url.port : is_https(&r->url) ? 443 : 80;
    r->key = outr_arena_printf(
        arena, OUTR_FMT "://" OUTR_FMT ":%u#" OUTR_FMT, OUTR_ARG(r->url.scheme),
        OUTR_ARG(r->url.host), port,
        OUTR_ARG(r->target->endpoint ? r->target->endpoint->base.name : OUTR_STR_NONE));
    origin *g = outr_map_get(out->origins, r->key);
    bool is_literal = outr_addr_from_ip(&r->lookup.addrs[0], r->url.host, port, NULL) == OUTR_OK;
    if (g && (is_literal || is_fresh(out, g))) {
        use(r, g);
        outr_op_finish_soon(op);
        return;
    }
    r->lookup = (outr_lookup){.host = r->url.host, .port = port};
    outr_op_init(&r->inner, out->o->loop, op, 0, on_looked_up);
    env->lookup(env, out->o->loop, &r->lookup, &r->inner);
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
