#include "components/registry.h"
#include "mesh/inbound.h"
#include "mesh/internal.h"
#include "mesh/kept.h"
#include "mesh/mirror.h"

static void use_snapshot(outr_mesh *mesh, const outr_snapshot *snapshot)
{
    outr_snapshot *before = mesh->snapshot;
    mesh->snapshot = outr_snapshot_ref(snapshot);
    mesh->routes = outr_routes_of(snapshot);
    mesh->trace = (outr_trace_config){.is_on = snapshot->configuration.tracing_is_on,
                                      .sampling_rate = snapshot->configuration.sampling_rate,
                                      .tracer = mesh->o.tracer};
    mesh->access = outr_policy_of(mesh->snapshot, mesh->o.settings->app_protocol < OUTR_APP_GRPC);
    mesh->policies = outr_policies_of(mesh->snapshot, mesh->policies);
    const outr_inbound_owner owner = {.loop = mesh->o.loop,
                                      .app_id = mesh->o.settings->app_id,
                                      .namespace_ = mesh->o.settings->namespace_,
                                      .member = mesh->o.member};
    const outr_inbound *former = mesh->inbound;
    mesh->inbound = outr_inbound_of(mesh->snapshot, former, &owner);
    if (former && outr_inbound_throttle(former) &&
        !(mesh->inbound && outr_inbound_throttle(mesh->inbound)))
        outr_throttle_retire(outr_inbound_throttle(former), mesh->o.loop);
    outr_snapshot_unref(before);
}

static outr_str forwarded(const outr_mesh_options *o)
{
    bool is_v6 = outr_str_find(o->host, ':') >= 0;
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_KIB);
    outr_buf_printf(&text,
                    is_v6 ? "for=\"[" OUTR_FMT "]\";by=\"[" OUTR_FMT "]\";host=" OUTR_FMT
                          : "for=" OUTR_FMT ";by=" OUTR_FMT ";host=" OUTR_FMT,
                    OUTR_ARG(o->host), OUTR_ARG(o->host), OUTR_ARG(o->host_name));
    return outr_str_of(outr_str_dup(outr_buf_view(&text)), text.n);
}

outr_mesh *outr_mesh_new(const outr_mesh_options *options)
{
    outr_mesh *mesh = outr_alloc(sizeof *mesh);
    mesh->o = *options;
    if (mesh->o.peer_tls && !mesh->o.identify)
        mesh->o.identify = outr__identify;
    mesh->forwarded = forwarded(options);
    outr_list_init(&mesh->calls);
    mesh->port = outr_throttle_port_new(options->loop);
    outr_list_init(&mesh->mirrors);
    outr_lease_site_init(&mesh->leases, options->loop, options->share, options->shares);
    use_snapshot(mesh, options->snapshot);
    mesh->peers = outr__peers_new(&mesh->o, mesh->snapshot);
    mesh->outside = outr__outside_new(&mesh->o);
    return mesh;
}

void outr_mesh_free(outr_mesh *mesh)
{
    assert(outr_list_is_empty(&mesh->calls));
    outr__mirrors_abandon(mesh);
    outr__peers_free(mesh->peers);
    outr__outside_free(mesh->outside);
    outr_hedges_done(&mesh->hedges);
    outr_throttle_port_free(mesh->port);
    outr_lease_site_done(&mesh->leases);
    outr_snapshot_unref(mesh->snapshot);
    free((void *)mesh->forwarded.p);
    free(mesh);
}

void outr_mesh_update(outr_mesh *mesh, const outr_snapshot *snapshot)
{
    use_snapshot(mesh, snapshot);
    outr__peers_update(mesh->peers, mesh->snapshot);
    outr__outside_update(mesh->outside);
}

void outr_mesh_use_authn(outr_mesh *mesh, outr_authn *authn)
{
    mesh->authn = authn;
}

void outr_mesh_count_refused(outr_loop *loop, const char *side, const char *reason)
{
    static const outr_metric_desc refused_total = {"outrigger_mtls_refused_total",
                                                   "peers not let in, by reason",
                                                   OUTR_COUNTER,
                                                   0,
                                                   {"side", "reason"}};
    const outr_str labels[] = {outr_str_from(side), outr_str_from(reason)};
    outr_metric_count(outr_loop_metrics(loop), &refused_total, labels, 1);
}

void outr_mesh_tell_cut(outr_loop *loop, const char *side, const outr_addr *peer,
                        const char *reason, size_t calls)
{
    static const outr_metric_desc cut_total = {"outrigger_mtls_cut_total",
                                               "calls broken off with their connection, by reason",
                                               OUTR_COUNTER,
                                               0,
                                               {"side", "reason"}};
    const outr_str labels[] = {outr_str_from(side), outr_str_from(reason)};
    char text[OUTR_ADDR_TEXT_MAX];
    outr_str address = outr_str_of(text, outr_addr_text(peer, text));
    if (calls > 0)
        outr_metric_count(outr_loop_metrics(loop), &cut_total, labels, (double)calls);
    else
        outr_mesh_count_refused(loop, side, reason);
    OUTR_LOG(outr_loop_log(loop), WARN, "calls were broken off with their connection",
             OUTR_Z("side", side), OUTR_S("peer", address), OUTR_Z("reason", reason),
             OUTR_I("calls", (int64_t)calls));
}

void outr_mesh_on_stranger(void *ctx, const outr_addr *peer, bool is_tls)
{
    outr_mesh *mesh = ctx;
    const char *reason = is_tls ? OUTR_TLS_UNEXPECTED : OUTR_TLS_PROTOCOL;
    uint64_t now = outr_loop_now(mesh->o.loop);
    char text[OUTR_ADDR_TEXT_MAX];
    outr_mesh_count_refused(mesh->o.loop, "server", reason);
    if (now < mesh->tell_stranger_ns) /* anybody can connect as often as he likes */
        return;
    mesh->tell_stranger_ns = now + OUTR_SEC;
    outr_str address = outr_str_of(text, outr_addr_text(peer, text));
    OUTR_LOG(outr_loop_log(mesh->o.loop), WARN, "a peer was refused on the internal port",
             OUTR_S("peer", address), OUTR_Z("reason", reason));
}

void outr_mesh_on_cut(void *ctx, const outr_addr *peer, const char *reason, size_t calls)
{
    const outr_mesh *mesh = ctx;
    outr_mesh_tell_cut(mesh->o.loop, "server", peer, reason, calls);
}

void outr_mesh_dismiss_peers(outr_mesh *mesh)
{
    outr__peers_dismiss(mesh->peers);
}

const outr_policies *outr_mesh_policies(const outr_mesh *mesh)
{
    return mesh->policies;
}

/* ---- the resolver ---------------------------------------------------------------------------- */

static void on_joined(outr_op *inner)
{
    outr_mesh_resolver_open *req = OUTR_CONTAINER(inner, outr_mesh_resolver_open, inner);
    if (inner->err.code) {
        outr_err err = inner->err;
        outr_op_fail(req->op, &err);
        return;
    }
    outr_op_finish(req->op);
}

static void on_opened(outr_op *inner)
{
    outr_mesh_resolver_open *req = OUTR_CONTAINER(inner, outr_mesh_resolver_open, inner);
    outr_loop *loop = inner->loop;
    if (inner->err
            .code) /* it is kept all the same: joining tries again, now and with each renewal */
        OUTR_LOG(outr_loop_log(loop), WARN, "name resolution cannot be reached yet",
                 OUTR_ERR(&inner->err));
    outr_op_init(&req->inner, loop, req->op, 0, on_joined);
    req->resolver->backend->join(req->resolver, &req->self, &req->inner);
}

static void on_cancel(outr_op *op)
{
    outr_mesh_resolver_open *req = op->impl;
    outr_op_cancel(&req->inner, op->err.code);
}

static void keep_answers(outr_mesh_resolver_open *req, outr_loop *loop)
{
    char path[600];
    outr_err err;
    snprintf(path, sizeof path, OUTR_FMT "/known-" OUTR_FMT, OUTR_ARG(req->run_dir),
             OUTR_ARG(req->settings->app_id));
    for (char *c = path + req->run_dir.n + 1; *c; c++)
        *c = *c == '/' ? '_' : *c;
    const outr_kept_options kept = {.loop = loop, .log = outr_loop_log(loop), .path = path};
    if (outr_kept_new(&req->resolver, req->resolver, &kept, &err))
        OUTR_LOG(outr_loop_log(loop), WARN, "addresses of apps are not kept", OUTR_ERR(&err));
}

void outr_mesh_resolver_open_start(outr_mesh_resolver_open *req, outr_op *op)
{
    const outr_configuration *c = &req->snapshot->configuration;
    outr_str name =
        c->name_resolution_component.n ? c->name_resolution_component : OUTR_STR("sqlite");
    outr_str version = c->name_resolution_version.n ? c->name_resolution_version : OUTR_STR("v1");
    char type[160];
    outr_err err;
    req->op = op;
    req->resolver = NULL;
    outr_op_begin(op, req, on_cancel);
    int n = snprintf(type, sizeof type, "nameresolution." OUTR_FMT, OUTR_ARG(name));
    const outr_resolver_backend *backend =
        outr_registry_resolver(outr_str_of(type, OUTR_MIN((size_t)n, sizeof type - 1)), version);
    if (!backend) {
        outr_fail(&err, OUTR_UNIMPLEMENTED,
                  "name resolution component \"" OUTR_FMT "\" is not in this version",
                  OUTR_ARG(name));
        outr_op_fail_soon(op, &err);
        return;
    }
    const outr_component_init init = {
        .name = name,
        .type = outr_str_from(backend->base.type),
        .version = version,
        .app_id = req->settings->app_id,
        .namespace_ = req->settings->namespace_,
        .run_dir = req->run_dir,
        .metadata = c->name_resolution,
        .loop = op->loop,
        .log = outr_loop_log(op->loop),
    };
    if (backend->create(&req->resolver, &init, &err)) {
        outr_wrap(&err, "%s", type);
        outr_op_fail_soon(op, &err);
        return;
    }
    if (backend->may_be_away)
        keep_answers(req, op->loop);
    outr_op_init(&req->inner, op->loop, op, 0, on_opened);
    req->resolver->backend->open(req->resolver, &req->inner);
}
