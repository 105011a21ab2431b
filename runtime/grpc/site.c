#include "grpc/site.h"

#include "base/url.h"

#define LOOKUP_NS (5 * OUTR_SEC)

/* A pool that took no more calls but may have some. */
typedef struct former {
    outr_link link;
    outr_http_pool *pool;
} former;

struct outr_grpc_site {
    outr_loop *loop;
    outr_tls *tls;
    char *address; /* as given */
    outr_str host;
    uint16_t port;
    uint64_t connect_timeout_ns;
    outr_http_pool *pool; /* NULL: to be looked up */
    outr_list formers;
    unsigned turn; /* which address of several */
};

outr_code outr_grpc_site_new(outr_grpc_site **out, const outr_grpc_site_options *options,
                             outr_err *err)
{
    outr_str host;
    uint16_t port;
    char *address = outr_str_dup(options->address);
    outr_code rc = outr_hostport_parse(outr_str_from(address), &host, &port, err);
    if (!rc && (host.n == 0 || (port == 0 && options->default_port == 0)))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "\"%s\": not host:port", address);
    if (rc) {
        free(address);
        return rc;
    }
    outr_grpc_site *site = outr_alloc(sizeof *site);
    site->loop = options->loop;
    site->tls = options->tls ? outr_tls_ref(options->tls) : NULL;
    site->address = address;
    site->host = host;
    site->port = port ? port : options->default_port;
    site->connect_timeout_ns = options->connect_timeout_ns;
    outr_list_init(&site->formers);
    *out = site;
    return OUTR_OK;
}

static void sweep(outr_grpc_site *site, bool all)
{
    OUTR_LIST_EACH(link, &site->formers) {
        former *f = OUTR_LIST_ITEM(link, former, link);
        if (!all && outr_http_pool_in_flight(f->pool) > 0)
            continue;
        outr_link_remove(&f->link);
        outr_http_pool_free(f->pool);
        free(f);
    }
}

void outr_grpc_site_free(outr_grpc_site *site)
{
    if (!site)
        return;
    sweep(site, true);
    if (site->pool)
        outr_http_pool_free(site->pool);
    outr_tls_unref(site->tls);
    free(site->address);
    free(site);
}

static void open_pool(outr_grpc_site *site, const outr_addr *addr)
{
    const outr_http_pool_options options = {
        .loop = site->loop,
        .addr = *addr,
        .version = OUTR_HTTP_2,
        .tls = site->tls,
        .server_name = site->host,
        .max_connections = 4,
        .connect_timeout_ns = site->connect_timeout_ns,
        .limits = {.max_header_bytes = 64 * OUTR_KIB, .body_idle_ns = 24 * 3600 * OUTR_SEC},
    };
    site->pool = outr_http_pool_new(&options);
}

static void on_looked_up(outr_op *inner)
{
    outr_grpc_reach *reach = OUTR_CONTAINER(inner, outr_grpc_reach, inner);
    outr_grpc_site *site = reach->site;
    const outr_lookup *found = &reach->lookup;
    outr_err err = inner->err;
    if (!err.code && found->count == 0)
        outr_fail(&err, OUTR_UNAVAILABLE, OUTR_FMT ": no such host", OUTR_ARG(site->host));
    if (err.code) {
        if (!outr_op_is_cancelled(reach->op))
            err.code = OUTR_UNAVAILABLE; /* the name may be there later */
        outr_op_fail(reach->op, &err);
        return;
    }
    if (!site->pool) /* nobody else was faster */
        open_pool(site, &found->addrs[site->turn % found->count]);
    reach->pool = site->pool;
    outr_op_finish(reach->op);
}

static void on_cancel(outr_op *op)
{
    outr_grpc_reach *reach = op->impl;
    outr_op_cancel(&reach->inner, op->err.code);
}

void outr_grpc_site_reach_start(outr_grpc_site *site, outr_grpc_reach *reach, outr_op *op)
{
    outr_env *env = outr_loop_env(site->loop);
    outr_addr addr;
    *reach = (outr_grpc_reach){.site = site, .op = op};
    sweep(site, false);
    if (!site->pool && outr_addr_from_ip(&addr, site->host, site->port, NULL) == OUTR_OK)
        open_pool(site, &addr);
    if (site->pool) {
        reach->pool = site->pool;
        outr_op_begin(op, reach, NULL);
        outr_op_finish_soon(op);
        return;
    }
    outr_op_begin(op, reach, on_cancel);
    reach->lookup.host = site->host;
    reach->lookup.port = site->port;
    outr_op_init(&reach->inner, site->loop, op, outr_loop_now(site->loop) + LOOKUP_NS,
                 on_looked_up);
    env->lookup(env, site->loop, &reach->lookup, &reach->inner);
}

void outr_grpc_site_lost(outr_grpc_site *site, const outr_http_pool *pool)
{
    if (!site->pool || site->pool != pool)
        return;
    former *f = outr_alloc(sizeof *f);
    f->pool = site->pool;
    outr_http_pool_retire(f->pool);
    outr_list_push(&site->formers, &f->link);
    site->pool = NULL;
    site->turn++;
}

outr_str outr_grpc_site_authority(const outr_grpc_site *site)
{
    return outr_str_from(site->address);
}
