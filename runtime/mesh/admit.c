#include "mesh/internal.h"

/* By whom it was decided: a policy of the caller, or the default of all. */
static const outr_metric_desc allowed[] = {
    {"dapr_runtime_acl_global_policy_action_allowed_total",
     "requests let in by the default action",
     OUTR_COUNTER,
     0,
     {"trustDomain", "namespace"}},
    {"dapr_runtime_acl_app_policy_action_allowed_total",
     "requests let in by an app rule",
     OUTR_COUNTER,
     0,
     {"trustDomain", "namespace"}},
};
static const outr_metric_desc blocked[] = {
    {"dapr_runtime_acl_global_policy_action_blocked_total",
     "requests refused by the default action",
     OUTR_COUNTER,
     0,
     {"trustDomain", "namespace"}},
    {"dapr_runtime_acl_app_policy_action_blocked_total",
     "requests refused by an app rule",
     OUTR_COUNTER,
     0,
     {"trustDomain", "namespace"}},
};

bool outr__admits(outr_mesh *mesh, outr_exchange *x, const outr_http_request *req, bool is_proxied,
                  const char **why)
{
    static const outr_identity nobody;
    if (!mesh->access)
        return true;
    const outr_identity *caller = mesh->o.identify ? mesh->o.identify(x) : NULL;
    const outr_access_request request = {
        .caller = caller, .target = req->target, .verb = req->method, .is_proxied = is_proxied};
    const outr_access_verdict v = outr_access_judge(mesh->access, &request, x->arena);
    caller = caller ? caller : &nobody;
    const outr_str labels[] = {caller->trust_domain, caller->namespace_};
    outr_metric_count(outr_loop_metrics(mesh->o.loop),
                      &(v.is_allowed ? allowed : blocked)[v.is_of_policy], labels, 1);
    if (v.is_allowed)
        return true;
    outr_str path;
    outr_str_cut(req->target, '?', &path);
    *why = outr_arena_printf(x->arena,
                             "access control policy has denied access to id: " OUTR_FMT
                             " operation: " OUTR_FMT " verb: " OUTR_FMT,
                             OUTR_ARG(outr_str_head(caller->id, 128)),
                             OUTR_ARG(outr_str_head(outr_str_skip(path, is_proxied ? 0 : 1), 128)),
                             OUTR_ARG(is_proxied ? OUTR_STR("NONE")
                                                 : outr_str_head(req->method, 16)))
               .p;
    OUTR_LOG(outr_loop_log(mesh->o.loop), DEBUG, "access control refused a call",
             OUTR_S("caller", caller->id), OUTR_S("operation", path),
             OUTR_S("verb", req->method));
    return false;
}
