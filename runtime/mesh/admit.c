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
/* Of AccessPolicies; a call that is let in is counted by its app's metrics alone. */
static const outr_metric_desc denied = {"outrigger_policy_denied_total",
                                        "requests refused by a rule of an AccessPolicy",
                                        OUTR_COUNTER,
                                        0,
                                        {"policy", "rule"}};
static const outr_metric_desc shadow = {"outrigger_policy_shadow_denied_total",
                                        "requests that a policy in shadow would have refused",
                                        OUTR_COUNTER,
                                        0,
                                        {"policy", "rule"}};
static const outr_metric_desc audited = {"outrigger_policy_audited_total",
                                         "requests that an AUDIT rule matched",
                                         OUTR_COUNTER,
                                         0,
                                         {"policy", "rule"}};

typedef struct gate {
    outr_mesh *mesh;
    outr_exchange *x;
    const outr_http_request *req;
    const outr_identity *caller; /* never NULL */
    outr_str path;
    bool is_proxied;
} gate;

static void count(const gate *g, const outr_metric_desc *desc, const outr_policy_ref *ref)
{
    const outr_str labels[] = {ref->policy, ref->rule};
    outr_metric_count(outr_loop_metrics(g->mesh->o.loop), desc, labels, 1);
}

/* Anybody can be refused as often as he likes. */
static bool is_to_be_logged(const outr_mesh *mesh, uint64_t *not_before_ns)
{
    uint64_t now = outr_loop_now(mesh->o.loop);
    if (now < *not_before_ns)
        return false;
    *not_before_ns = now + OUTR_SEC;
    return true;
}

static const char *words_of(const gate *g)
{
    return outr_arena_printf(
               g->x->arena,
               "access control policy has denied access to id: " OUTR_FMT " operation: " OUTR_FMT
               " verb: " OUTR_FMT,
               OUTR_ARG(outr_str_head(g->caller->id, 128)),
               OUTR_ARG(outr_str_head(outr_str_skip(g->path, g->is_proxied ? 0 : 1), 128)),
               OUTR_ARG(g->is_proxied ? OUTR_STR("NONE") : outr_str_head(g->req->method, 16)))
        .p;
}

static bool shows_a_token(outr_mesh *mesh, outr_exchange *x, outr_http_request *req,
                          outr__refusal *refusal)
{
    const char *reason =
        outr_authn_admit(mesh->authn, mesh->o.loop, &req->headers, x->arena, &x->claims);
    if (!reason)
        return true;
    outr_bearer_count_refused(mesh->o.loop, reason);
    outr_str path; /* what stands behind it may be secret */
    outr_str_cut(req->target, '?', &path);
    if (is_to_be_logged(mesh, &mesh->tell_token_ns))
        OUTR_LOG(outr_loop_log(mesh->o.loop), WARN, "a call was refused for its token",
                 OUTR_Z("reason", reason), OUTR_S("caller", x->peer_id),
                 OUTR_S("operation", outr_str_head(path, 256)));
    *refusal = (outr__refusal){
        .code = OUTR_UNAUTHENTICATED,
        .text = outr_arena_printf(x->arena, "the token was refused: %s", reason).p,
        .why = outr_why_find(outr_str_from(reason)),
        .challenge = outr_bearer_challenge(x->arena, reason)};
    return false;
}

static outr_why why_of(const outr_policy_verdict *v)
{
    return v->by.rule.p ? OUTR_WHY_ACCESS_POLICY : OUTR_WHY_ACCESS_CONTROL;
}

static void tell(const gate *g, const outr_policy_verdict *v)
{
    const outr_log *log = outr_loop_log(g->mesh->o.loop);
    if (v->was_access_asked) {
        const outr_str labels[] = {g->caller->trust_domain, g->caller->namespace_};
        outr_metric_count(outr_loop_metrics(g->mesh->o.loop),
                          &(v->access.is_allowed ? allowed : blocked)[v->access.is_of_policy],
                          labels, 1);
    }
    if (v->audited.rule.p) {
        count(g, &audited, &v->audited);
        OUTR_LOG(log, INFO, "a call is audited", OUTR_S("policy", v->audited.policy),
                 OUTR_S("rule", v->audited.rule), OUTR_S("caller", g->caller->id),
                 OUTR_S("operation", g->path), OUTR_S("verb", g->req->method),
                 OUTR_B("allowed", v->is_allowed));
    }
    if (v->shadow.rule.p) {
        count(g, &shadow, &v->shadow);
        OUTR_LOG(log, DEBUG, "a policy in shadow would refuse a call",
                 OUTR_S("policy", v->shadow.policy), OUTR_S("rule", v->shadow.rule),
                 OUTR_S("caller", g->caller->id), OUTR_S("operation", g->path),
                 OUTR_S("verb", g->req->method));
    }
    if (v->is_allowed)
        return;
    if (v->by.rule.p)
        count(g, &denied, &v->by);
    if (is_to_be_logged(g->mesh, &g->mesh->tell_denied_ns))
        OUTR_LOG(log, WARN, "access control refused a call",
                 OUTR_Z("reason", outr_why_word(why_of(v))),
                 OUTR_S("policy", v->by.policy), OUTR_S("rule", v->by.rule),
                 OUTR_S("caller", g->caller->id), OUTR_S("operation", outr_str_head(g->path, 256)),
                 OUTR_S("verb", g->req->method));
}

bool outr__admits(outr_mesh *mesh, outr_exchange *x, outr_http_request *req, bool is_proxied,
                  outr__refusal *refusal)
{
    static const outr_identity nobody;
    if (mesh->authn && !shows_a_token(mesh, x, req, refusal))
        return false;
    if (!mesh->access)
        return true;
    const outr_identity *caller = mesh->o.identify ? mesh->o.identify(x) : NULL;
    gate g = {.mesh = mesh,
              .x = x,
              .req = req,
              .caller = caller ? caller : &nobody,
              .is_proxied = is_proxied};
    outr_str_cut(req->target, '?', &g.path);
    const outr_policy_request request = {.caller = caller,
                                         .claims = x->claims,
                                         .target = req->target,
                                         .verb = req->method,
                                         .is_proxied = is_proxied};
    const outr_policy_verdict v = outr_policy_judge(mesh->access, &request, x->arena);
    tell(&g, &v);
    if (v.is_allowed)
        return true;
    *refusal = (outr__refusal){.code = OUTR_PERMISSION_DENIED,
                               .text = words_of(&g),
                               .why = why_of(&v)};
    return false;
}
