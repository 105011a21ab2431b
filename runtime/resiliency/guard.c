#include "resiliency/guard.h"

#include "config/codes.h"

#define LABELS {"name", "policy", "namespace", "flow_direction", "target", "status"}

static const outr_metric_desc loaded = {"dapr_resiliency_loaded",
                                        "resources of kind Resiliency read",
                                        OUTR_COUNTER,
                                        0,
                                        {"name", "namespace"}};
static const outr_metric_desc used = {"dapr_resiliency_count",
                                      "calls that a policy was around",
                                      OUTR_COUNTER, 0, LABELS};
static const outr_metric_desc activated = {"dapr_resiliency_activations_total",
                                           "calls that a policy did something about",
                                           OUTR_COUNTER, 0, LABELS};
static const outr_metric_desc shown_state = {"dapr_resiliency_cb_state",
                                             "1 for the state a circuit breaker is in",
                                             OUTR_GAUGE, 0, LABELS};

/* ---- metrics --------------------------------------------------------------------------------- */

static void count(const outr_guard *g, const outr_metric_desc *desc, const char *policy,
                  const outr_policy_source *source, outr_str status, double n)
{
    char target[192];
    if (!g->metrics)
        return;
    bool is_plain = g->kind == OUTR_POLICY_APP || g->kind == OUTR_POLICY_ACTOR;
    const char *kind = g->kind == OUTR_POLICY_APP     ? "app"
                       : g->kind == OUTR_POLICY_ACTOR ? "actor"
                                                      : outr_policy_kind_name(g->kind);
    int len = snprintf(target, sizeof target, "%s_" OUTR_FMT, kind,
                       OUTR_ARG(outr_str_head(g->target, is_plain ? 160 : 128)));
    const outr_str labels[] = {
        source->name,
        outr_str_from(policy),
        source->namespace_,
        g->direction == OUTR_INBOUND ? OUTR_STR("inbound") : OUTR_STR("outbound"),
        outr_str_of(target, (size_t)len),
        status,
    };
    outr_metric_count(g->metrics, desc, labels, n);
}

/* Shards are added up, so the gauge moves by steps: whoever sees a change takes one from the state
 * that was told before, wherever that was. */
static void tell_state(const outr_guard *g, outr_breaker_state state)
{
    static const char *const names[] = {"closed", "half-open", "open", "unknown"};
    int before;
    if (!g->metrics || !outr_breakers_tell(&g->ticket, state, &before))
        return;
    for (int i = 0; i < (int)OUTR_LEN(names); i++) {
        double step = (i == (int)state) - (i == before);
        if (step != 0 || before < 0)
            count(g, &shown_state, "circuitbreaker", g->policy->of_breaker,
                  outr_str_from(names[i]), step);
    }
}

void outr_guard_count_loaded(outr_metric_shard *metrics, const outr_snapshot *snapshot)
{
    for (size_t i = 0; metrics && i < snapshot->resiliency_count; i++) {
        const outr_resource *r = &snapshot->resiliencies[i].base;
        outr_metric_count(metrics, &loaded, (const outr_str[]){r->name, r->namespace_}, 1);
    }
}

/* ---- the call -------------------------------------------------------------------------------- */

void outr_guard_init(outr_guard *g, const outr_policies *policies, outr_policy_kind kind,
                     outr_policy_direction direction, outr_str name, outr_str key, uint64_t now,
                     outr_metric_shard *metrics)
{
    const outr_policy *p = outr_policies_find(policies, kind, direction, name);
    *g = (outr_guard){.policy = p};
    if (!p)
        return;
    g->snapshot = outr_snapshot_ref(outr_policies_snapshot(policies));
    g->kind = kind;
    g->direction = direction;
    g->target = name;
    g->metrics = metrics;
    if (p->timeout_ns)
        count(g, &used, "timeout", p->of_timeout, OUTR_STR(""), 1);
    if (p->retry) {
        count(g, &used, "retry", p->of_retry, OUTR_STR(""), 1);
        outr_backoff_init(&g->backoff, p->retry, now);
    }
    if (p->breakers) {
        outr_breaker_state state = outr_breakers_take(p->breakers, key, now, &g->ticket);
        count(g, &used, "circuitbreaker", p->of_breaker,
              outr_str_from(outr_breaker_state_name(state)), 1);
        tell_state(g, state);
    }
}

void outr_guard_done(outr_guard *g)
{
    if (!g->policy)
        return;
    outr_breakers_give(&g->ticket);
    outr_snapshot_unref(g->snapshot);
    *g = (outr_guard){0};
}

bool outr_guard_repeats(const outr_guard *g)
{
    return g->policy && g->policy->retry && g->policy->retry->max_retries != 0;
}

static void tell_change(outr_guard *g, outr_breaker_state state)
{
    if (state != g->state)
        count(g, &activated, "circuitbreaker", g->policy->of_breaker,
              outr_str_from(outr_breaker_state_name(state)), 1);
    tell_state(g, state);
    g->state = state;
}

outr_code outr_guard_begin(outr_guard *g, uint64_t now, outr_err *err)
{
    if (!g->ticket.box)
        return OUTR_OK;
    switch (outr_breakers_admit(&g->ticket, now, &g->state)) {
    case OUTR_ADMITTED:
        break;
    case OUTR_REFUSED_OPEN:
        return outr_fail(err, OUTR_UNAVAILABLE, OUTR_GUARD_OPEN);
    case OUTR_REFUSED_TRIAL:
        return outr_fail(err, OUTR_UNAVAILABLE, OUTR_GUARD_TRIAL);
    }
    return OUTR_OK;
}

uint64_t outr_guard_deadline(const outr_guard *g, uint64_t now)
{
    return g->policy && g->policy->timeout_ns ? now + g->policy->timeout_ns : 0;
}

void outr_guard_end(outr_guard *g, uint64_t now, outr_outcome outcome)
{
    if (!g->policy)
        return;
    if (outcome == OUTR_OUTCOME_TIMEOUT && !g->has_told_timeout) {
        g->has_told_timeout = true;
        count(g, &activated, "timeout", g->policy->of_timeout, OUTR_STR(""), 1);
    }
    if (!g->ticket.box)
        return;
    if (outcome == OUTR_OUTCOME_NONE)
        outr_breakers_forget(&g->ticket);
    else if (g->ticket.is_admitted)
        tell_change(g, outr_breakers_report(&g->ticket, now, outcome == OUTR_OUTCOME_GOOD));
}

bool outr_guard_again(outr_guard *g, uint64_t now, int status, outr_rand *rand, uint64_t *at_ns)
{
    uint64_t pause;
    if (!g->policy || !g->policy->retry)
        return false;
    const outr_retry_policy *retry = g->policy->retry;
    bool is_http = status >= 100 && status <= 599;
    if (status >= 0 && !outr_codes_has(is_http ? retry->http_codes : retry->grpc_codes, status))
        return false;
    if (!outr_backoff_next(&g->backoff, retry, now, outr_rand_unit(rand), &pause))
        return false;
    if (!g->has_told_retry) {
        g->has_told_retry = true;
        count(g, &activated, "retry", g->policy->of_retry, OUTR_STR(""), 1);
    }
    *at_ns = now + pause;
    return true;
}
