#include "mesh/inbound.h"

/* One of inbound.rateLimits with what has been counted. Refcounted: snapshots share it. */
typedef struct limit {
    uint32_t refs;       /* atomic */
    outr_rate *rate;     /* of this sidecar alone */
    outr_leases *leases; /* with others; one of the two */
    size_t key_n;
    char key[]; /* all that it is made of */
} limit;

typedef struct rule {
    const outr_rate_spec *spec;
    limit *limit;
} rule;

struct outr_inbound {
    const outr_concurrency_spec *concurrency; /* NULL: no limit */
    outr_throttle *throttle;
    size_t rule_count;
    rule rules[];
};

/* ---- compiling ------------------------------------------------------------------------------- */

static void unref_limit(limit *l)
{
    if (__atomic_sub_fetch(&l->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    outr_rate_free(l->rate);
    outr_leases_unref(l->leases);
    free(l);
}

static void free_inbound(void *made)
{
    outr_inbound *in = made;
    outr_throttle_unref(in->throttle);
    for (size_t i = 0; i < in->rule_count; i++)
        unref_limit(in->rules[i].limit);
    free(in);
}

static limit *find_limit(const outr_inbound *before, outr_str key)
{
    for (size_t i = 0; before && i < before->rule_count; i++) {
        limit *l = before->rules[i].limit;
        if (outr_str_eq(outr_str_of(l->key, l->key_n), key)) {
            __atomic_fetch_add(&l->refs, 1, __ATOMIC_RELAXED);
            return l;
        }
    }
    return NULL;
}

static outr_rate *rate_of(const outr_rate_spec *r, outr_loop *loop)
{
    const outr_rate_options options = {
        .requests = (uint64_t)r->requests,
        .interval_ns = r->interval_ns,
        .burst = (uint64_t)r->burst,
        .keys = r->per == OUTR_RATE_ROUTE ? 1 : (size_t)r->buckets,
        .seed = outr_rand_next(outr_loop_rand(loop)),
    };
    return outr_rate_new(&options);
}

/* Instances of an app have the same policies, so they come by the same names. */
static outr_leases *leases_of(const outr_traffic_spec *policy, const outr_rate_spec *r,
                              const outr_inbound_owner *owner)
{
    OUTR_AUTO(outr_buf) name = OUTR_BUF_MAX(16 * OUTR_KIB);
    outr_buf_printf(&name,
                    "outrigger||rate||" OUTR_FMT "||" OUTR_FMT "||" OUTR_FMT "/" OUTR_FMT "||",
                    OUTR_ARG(owner->namespace_), OUTR_ARG(owner->app_id),
                    OUTR_ARG(policy->base.name), OUTR_ARG(r->name));
    const outr_leases_options options = {
        .requests = (uint64_t)r->requests,
        .interval_ns = r->interval_ns,
        .burst = (uint64_t)r->burst,
        .keys = r->per == OUTR_RATE_ROUTE ? 1 : (size_t)r->buckets,
        .name = outr_buf_view(&name),
        .store = r->store,
        .member = owner->member,
    };
    return outr_leases_new(&options);
}

static limit *limit_of(const outr_traffic_spec *policy, const outr_rate_spec *r,
                       const outr_inbound *before, const outr_inbound_owner *owner)
{
    OUTR_AUTO(outr_buf) key = OUTR_BUF_MAX(16 * OUTR_KIB);
    outr_buf_printf(&key, OUTR_FMT "/" OUTR_FMT "/%d/" OUTR_FMT "/%lld/%llu/%lld/%lld/" OUTR_FMT,
                    OUTR_ARG(policy->base.name), OUTR_ARG(r->name), (int)r->per,
                    OUTR_ARG(r->per_name), (long long)r->requests,
                    (unsigned long long)r->interval_ns, (long long)r->burst, (long long)r->buckets,
                    OUTR_ARG(r->store));
    outr_str text = outr_buf_view(&key);
    limit *l = find_limit(before, text);
    if (l)
        return l;
    l = outr_alloc(sizeof *l + text.n);
    l->refs = 1;
    if (r->store.n > 0)
        l->leases = leases_of(policy, r, owner);
    else
        l->rate = rate_of(r, owner->loop);
    l->key_n = text.n;
    memcpy(l->key, text.p, text.n);
    return l;
}

static outr_throttle *throttle_of(const outr_concurrency_spec *c, const outr_inbound *before,
                                  outr_loop *loop)
{
    const outr_gradient_options options = {
        .min = (uint32_t)c->min,
        .max = (uint32_t)c->max,
        .initial = (uint32_t)c->initial,
        .queue = (uint32_t)c->queue,
        .target_ns = c->target_ns,
        .interval_ns = c->interval_ns,
    };
    if (!before || !before->throttle)
        return outr_throttle_new(&options, outr_loop_now(loop));
    outr_throttle_set(before->throttle, &options);
    return outr_throttle_ref(before->throttle);
}

typedef struct origin {
    const outr_inbound *before;
    const outr_inbound_owner *owner;
} origin;

static void *compile(const outr_snapshot *s, const void *ctx)
{
    const outr_inbound *before = ((const origin *)ctx)->before;
    const outr_inbound_owner *owner = ((const origin *)ctx)->owner;
    const outr_concurrency_spec *concurrency = NULL;
    size_t rates = 0;
    for (size_t i = 0; i < s->traffic_count; i++) {
        rates += s->traffic[i].rate_count;
        if (!concurrency && s->traffic[i].concurrency.is_on)
            concurrency = &s->traffic[i].concurrency;
    }
    outr_inbound *in = outr_alloc(sizeof *in + rates * sizeof in->rules[0]);
    in->concurrency = concurrency;
    if (concurrency)
        in->throttle = throttle_of(concurrency, before, owner->loop);
    for (size_t i = 0; i < s->traffic_count; i++) {
        const outr_traffic_spec *policy = &s->traffic[i];
        for (size_t k = 0; k < policy->rate_count; k++)
            in->rules[in->rule_count++] =
                (rule){&policy->rates[k], limit_of(policy, &policy->rates[k], before, owner)};
    }
    return in;
}

static bool says_something(const outr_snapshot *s)
{
    for (size_t i = 0; i < s->traffic_count; i++) {
        if (s->traffic[i].rate_count > 0 || s->traffic[i].concurrency.is_on)
            return true;
    }
    return false;
}

const outr_inbound *outr_inbound_of(const outr_snapshot *snapshot, const outr_inbound *before,
                                    const outr_inbound_owner *owner)
{
    static const outr_part_ops ops = {compile, free_inbound};
    if (!says_something(snapshot))
        return NULL;
    return outr_snapshot_part(snapshot, OUTR_PART_INBOUND, &ops, &(origin){before, owner});
}

/* ---- asking ---------------------------------------------------------------------------------- */

static bool is_for(const outr_rate_spec *r, outr_route_question *question)
{
    for (size_t i = 0; i < r->match_count; i++) {
        if (outr_traffic_matches(&r->matches[i], question))
            return true;
    }
    return r->match_count == 0;
}

static outr_str header(const outr_headers *h, outr_str name)
{
    for (size_t i = 0; i < h->count; i++) {
        if (outr_str_ieq(h->items[i].name, name))
            return h->items[i].value;
    }
    return OUTR_STR_NONE;
}

/* Whoever does not say is one with all the others who do not. */
static outr_str key_of(const outr_rate_spec *r, const outr_inbound_call *call, outr_arena *scratch)
{
    switch (r->per) {
    case OUTR_RATE_IDENTITY:
        return call->caller && call->caller->is_authenticated ? call->caller->id
                                                              : call->request.source;
    case OUTR_RATE_CLAIM:
        return call->request.claims ? outr_claims_text(call->request.claims, r->per_name, scratch)
                                    : OUTR_STR_NONE;
    case OUTR_RATE_HEADER:
        return header(call->request.headers, r->per_name);
    default:
        return OUTR_STR_NONE;
    }
}

static outr_rate_verdict take(const limit *l, outr_lease_site *site, outr_str key, uint64_t now)
{
    return l->leases ? outr_leases_take(l->leases, site, key, now)
                     : outr_rate_take(l->rate, key, now);
}

bool outr_inbound_rates(const outr_inbound *in, const outr_inbound_call *call,
                        outr_lease_site *site, uint64_t now, outr_arena *scratch, outr_rated *out)
{
    outr_route_question question;
    outr_route_question_init(&question, &call->request, scratch);
    for (size_t i = 0; i < in->rule_count; i++) {
        const outr_rate_spec *r = in->rules[i].spec;
        if (!is_for(r, &question))
            continue;
        *out = (outr_rated){r, take(in->rules[i].limit, site, key_of(r, call, scratch), now)};
        if (!out->verdict.is_allowed)
            return false;
    }
    return true;
}

bool outr_inbound_has_rates(const outr_inbound *in)
{
    return in->rule_count > 0;
}

outr_throttle *outr_inbound_throttle(const outr_inbound *in)
{
    return in->throttle;
}

bool outr_inbound_is_urgent(const outr_inbound *in, outr_str target)
{
    for (size_t i = 0; i < in->concurrency->priority_path_count; i++) {
        if (outr_str_starts(target, in->concurrency->priority_paths[i]))
            return true;
    }
    return false;
}
