#include "mesh/internal.h"

#define NAME_TTL_NS (30 * OUTR_SEC)

/* Connections to one origin: scheme, host, port, and the endpoint whose certificates are shown. */
typedef struct origin {
    outr_http_pool *pool;
    outr_tls *tls;
    uint64_t looked_up_ns;
} origin;

struct outr__outside {
    const outr_mesh_options *o;
    outr_map *origins;
};

static void free_origin(origin *g)
{
    outr_http_pool_free(g->pool);
    outr_tls_unref(g->tls);
    free(g);
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
    outr_tls *tls = NULL;
    if (is_https(&r->url) && make_tls(&tls, r->target, &err)) {
        fail_reach(r, &err);
        return;
    }
    if (!g) {
        g = outr_alloc(sizeof *g);
        outr_map_put(out->origins, r->key, g);
    } else {
        outr_http_pool_retire(g->pool); /* its calls end on the old address */
        outr_http_pool *old = g->pool;
        if (outr_http_pool_in_flight(old) == 0)
            outr_http_pool_free(old);
        outr_tls_unref(g->tls);
    }
    const outr_http_pool_options options = {
        .loop = out->o->loop,
        .addr = r->lookup.addrs[0],
        .version = OUTR_HTTP_1,
        .tls = tls,
        .server_name = r->url.host,
        .limits = {.max_header_bytes = OUTR_MAX((size_t)out->o->settings->read_buffer_bytes, 64 * OUTR_KIB)},
    };
    g->tls = tls;
    g->pool = outr_http_pool_new(&options);
    g->looked_up_ns = outr_loop_now(out->o->loop);
    r->pool = g->pool;
    outr_op_finish(r->op);
}

static void on_cancel(outr_op *op)
{
    outr__reach *r = op->impl;
    outr_op_cancel(&r->inner, op->err.code);
}

void outr__reach_start(outr__outside *out, outr__reach *r, outr_arena *arena, outr_op *op)
{
    outr_env *env = outr_loop_env(out->o->loop);
    outr_err err;
    r->op = op;
    r->outside = out;
    outr_op_begin(op, r, on_cancel);
    if (outr_url_parse(&r->url, r->target->base_url, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    uint16_t port = r->url.port ? r->url.port : is_https(&r->url) ? 443 : 80;
    r->key = outr_arena_printf(arena, OUTR_FMT "://" OUTR_FMT ":%u#" OUTR_FMT, OUTR_ARG(r->url.scheme), OUTR_ARG(r->url.host), port,
                               OUTR_ARG(r->target->endpoint ? r->target->endpoint->base.name : OUTR_STR_NONE));
    const origin *g = outr_map_get(out->origins, r->key);
    bool is_literal = outr_addr_from_ip(&r->lookup.addrs[0], r->url.host, port, NULL) == OUTR_OK;
    if (g && (is_literal || outr_loop_now(out->o->loop) - g->looked_up_ns < NAME_TTL_NS || outr_http_pool_in_flight(g->pool) > 0)) {
        r->pool = g->pool;
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
    return out;
}

void outr__outside_free(outr__outside *out)
{
    void *item;
    for (size_t at = 0; outr_map_next(out->origins, &at, NULL, &item);)
        free_origin(item);
    outr_map_free(out->origins);
    free(out);
}
