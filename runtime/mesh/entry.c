#include "mesh/inbound.h"
#include "mesh/internal.h"

/* What a call meets between being admitted and the app: has its caller had his share, is there a
 * place. */

static const outr_metric_desc limited = {"outrigger_rate_limited_total",
                                         "calls refused by a rate limit of a TrafficPolicy",
                                         OUTR_COUNTER,
                                         0,
                                         {"limit"}};
static const outr_metric_desc waited = {"outrigger_inbound_waits_total",
                                        "calls that waited for a place at the app, how it ended",
                                        OUTR_COUNTER,
                                        0,
                                        {"outcome"}};

static void refuse(outr_mesh *mesh, outr_arena *arena, const outr_rated *rated,
                   outr__refusal *refusal)
{
    outr_metric_count(outr_loop_metrics(mesh->o.loop), &limited, &rated->by->name, 1);
    *refusal = (outr__refusal){
        .code = OUTR_RESOURCE_EXHAUSTED,
        .text = outr_arena_printf(arena, "the rate limit \"" OUTR_FMT "\" is reached",
                                  OUTR_ARG(outr_str_head(rated->by->name, 80)))
                    .p,
        .why = OUTR_WHY_RATE_LIMITED,
        .after_ns = rated->verdict.after_ns,
    };
}

bool outr__entry_rates(outr_mesh *mesh, outr_exchange *x, const outr_http_request *req,
                       bool is_local, outr__refusal *refusal)
{
    outr_rated rated;
    if (!mesh->inbound || !outr_inbound_has_rates(mesh->inbound))
        return true;
    const outr_inbound_call call = {
        .request = {.app_id = mesh->o.settings->app_id,
                    .namespace_ = mesh->o.settings->namespace_,
                    .source = is_local ? mesh->o.settings->app_id
                                       : outr_headers_get(&req->headers, "dapr-caller-app-id"),
                    .method = req->method,
                    .target = req->target,
                    .headers = &req->headers,
                    .claims = x->claims},
        .caller = is_local || !mesh->o.identify ? NULL : mesh->o.identify(x)};
    if (outr_inbound_rates(mesh->inbound, &call, &mesh->leases, outr_loop_now(mesh->o.loop),
                           x->arena, &rated))
        return true;
    refuse(mesh, x->arena, &rated, refusal);
    return false;
}

static void count_wait(const outr_mesh *mesh, const char *outcome)
{
    outr_metric_count(outr_loop_metrics(mesh->o.loop), &waited,
                      (const outr_str[]){outr_str_from(outcome)}, 1);
}

bool outr__entry_has_gate(const outr_mesh *mesh)
{
    return mesh->inbound && outr_inbound_throttle(mesh->inbound);
}

outr_taken outr__entry_take(outr_mesh *mesh, outr_ticket **ticket, outr_arena *arena,
                            outr_str target, outr_op *op)
{
    if (!*ticket)
        *ticket = outr_arena_alloc(arena, sizeof **ticket);
    outr_taken taken = outr_ticket_take(*ticket, outr_inbound_throttle(mesh->inbound), mesh->port,
                                        outr_inbound_is_urgent(mesh->inbound, target), op);
    if (taken == OUTR_TAKEN_NOT)
        count_wait(mesh, "queue_full");
    return taken;
}

void outr__entry_waited(const outr_mesh *mesh, const outr_err *err)
{
    count_wait(mesh, !err->code                                ? "let_in"
                     : outr_why_of(err) == OUTR_WHY_OVERLOADED ? "refused"
                                                               : "left");
}
