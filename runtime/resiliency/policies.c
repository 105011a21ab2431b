#include "resiliency/policies.h"

#include "base/arena.h"
#include "base/map.h"

#define DEFAULT_BREAKERS 5000 /* of targets that have no row: all of one kind together */
#define MIN_BUILT_IN     3    /* tries of an overridden built-in policy, as in Dapr */

enum { DIRECTIONS = 2, PLANES = OUTR_POLICY_KINDS * DIRECTIONS };

/* A named policy and the resource it is of. */
typedef struct named {
    const void *policy;
    const outr_policy_source *source;
} named;

struct outr_policies {
    const outr_snapshot *snapshot; /* whose part it is */
    outr_arena *arena;
    outr_map *timeouts, *retries, *breakers; /* name -> named */
    outr_map *rows[4];                       /* OUTR_TARGET_*: name -> outr_policy */
    outr_policy defaults[OUTR_POLICY_KINDS][DIRECTIONS];
    bool has_default[OUTR_POLICY_KINDS][DIRECTIONS];
    outr_retry_policy service_retry;
};

static const outr_retry_policy built_in_service_retry = {
    .duration_ns = OUTR_SEC, .max_interval_ns = 60 * OUTR_SEC, .max_retries = 3};

static const char *const kind_names[] = {
    [OUTR_POLICY_APP] = "App",
    [OUTR_POLICY_ACTOR] = "Actor",
    [OUTR_POLICY_PUBSUB] = "Pubsub",
    [OUTR_POLICY_BINDING] = "Binding",
    [OUTR_POLICY_STATE] = "Statestore",
    [OUTR_POLICY_CONFIGURATION] = "Configuration",
    [OUTR_POLICY_SECRETS] = "Secretstore",
    [OUTR_POLICY_LOCK] = "Lock",
    [OUTR_POLICY_CRYPTO] = "Crypto",
    [OUTR_POLICY_CONVERSATION] = "Conversation",
};

const char *outr_policy_kind_name(outr_policy_kind kind)
{
    return kind_names[kind];
}

/* ---- names ----------------------------------------------------------------------------------- */

static void put(outr_policies *p, outr_map *map, outr_str name, const void *policy,
                const outr_policy_source *source)
{
    named *n = outr_arena_alloc(p->arena, sizeof *n);
    *n = (named){policy, source};
    outr_map_put(map, name, n);
}

/* ActorNotFound may not be overridden; the others have at least three tries. */
static const outr_retry_policy *as_allowed(outr_policies *p, const outr_retry_policy *retry)
{
    static const char *const built_in[] = {"DaprBuiltInServiceRetries", "DaprBuiltInActorRetries",
                                           "DaprBuiltInActorReminderRetries",
                                           "DaprBuiltInInitializationRetries"};
    if (outr_str_is(retry->name, "DaprBuiltInActorNotFoundRetries"))
        return NULL;
    for (size_t i = 0; i < OUTR_LEN(built_in); i++) {
        if (!outr_str_is(retry->name, built_in[i]) || retry->max_retries >= MIN_BUILT_IN)
            continue;
        outr_retry_policy *raised = outr_arena_alloc(p->arena, sizeof *raised);
        *raised = *retry;
        raised->max_retries = MIN_BUILT_IN;
        return raised;
    }
    return retry;
}

static void take_names(outr_policies *p, const outr_resiliency_spec *spec,
                       const outr_policy_source *source)
{
    for (size_t i = 0; i < spec->timeout_count; i++)
        put(p, p->timeouts, spec->timeouts[i].name, &spec->timeouts[i], source);
    for (size_t i = 0; i < spec->retry_count; i++) {
        const outr_retry_policy *retry = as_allowed(p, &spec->retries[i]);
        if (retry)
            put(p, p->retries, retry->name, retry, source);
    }
    for (size_t i = 0; i < spec->breaker_count; i++)
        put(p, p->breakers, spec->breakers[i].name, &spec->breakers[i], source);
}

static void set_timeout(const outr_policies *p, outr_policy *to, outr_str name)
{
    const named *n = name.n ? outr_map_get(p->timeouts, name) : NULL;
    to->timeout_ns = n ? ((const outr_timeout_policy *)n->policy)->timeout_ns : 0;
    to->of_timeout = n ? n->source : NULL;
}

static void set_retry(const outr_policies *p, outr_policy *to, outr_str name)
{
    const named *n = name.n ? outr_map_get(p->retries, name) : NULL;
    to->retry = n ? n->policy : NULL;
    to->of_retry = n ? n->source : NULL;
}

/* same: the policy of this target until now, whose breakers go on if they are of the same rule. */
static void set_breaker(const outr_policies *p, outr_policy *to, outr_str name, size_t max,
                        const outr_policy *same)
{
    const named *n = name.n ? outr_map_get(p->breakers, name) : NULL;
    if (!n)
        return;
    bool goes_on = same && same->breakers && outr_breakers_are_of(same->breakers, n->policy, max);
    to->breakers =
        goes_on ? outr_breakers_ref(same->breakers) : outr_breakers_new(n->policy, max);
    to->of_breaker = n->source;
}

/* ---- targets --------------------------------------------------------------------------------- */

static void release(outr_policy *policy)
{
    outr_breakers_unref(policy->breakers);
    policy->breakers = NULL;
}

static outr_policy *row_of(outr_policies *p, int kind, outr_str name)
{
    outr_policy *row = outr_map_get(p->rows[kind], name);
    if (!row) {
        row = outr_arena_alloc(p->arena, sizeof *row);
        outr_map_put(p->rows[kind], name, row);
    }
    return row;
}

static void take_target(outr_policies *p, const outr_policy_target *target,
                        const outr_policies *before)
{
    outr_policy *row = row_of(p, target->kind, target->name);
    bool is_component =
        target->kind == OUTR_TARGET_COMPONENT_IN || target->kind == OUTR_TARGET_COMPONENT_OUT;
    size_t max = is_component || target->breaker_cache_size < 1
                     ? 1
                     : (size_t)target->breaker_cache_size;
    release(row);
    *row = (outr_policy){0};
    set_timeout(p, row, target->timeout);
    set_retry(p, row, target->retry);
    set_breaker(p, row, target->breaker, max,
                before ? outr_map_get(before->rows[target->kind], target->name) : NULL);
    if (is_component) /* a row for one direction keeps the defaults from both */
        row_of(p, OUTR_TARGET_COMPONENT_IN + OUTR_TARGET_COMPONENT_OUT - (int)target->kind,
               target->name);
}

/* ---- defaults -------------------------------------------------------------------------------- */

/* The first name of which there is a policy, on the arena; else NONE. */
static outr_str default_name(const outr_policies *p, const outr_map *map, outr_policy_kind kind,
                             outr_policy_direction direction, const char *suffix)
{
    const char *way = direction == OUTR_INBOUND ? "Inbound" : "Outbound";
    char levels[4][64] = {{0}};
    size_t count = 0;
    if (kind == OUTR_POLICY_APP || kind == OUTR_POLICY_ACTOR) {
        snprintf(levels[count++], sizeof levels[0], "%s", kind_names[kind]);
    } else {
        snprintf(levels[count++], sizeof levels[0], "%sComponent%s", kind_names[kind], way);
        snprintf(levels[count++], sizeof levels[0], "Component%s", way);
        snprintf(levels[count++], sizeof levels[0], "Component");
    }
    count++; /* the empty one */
    for (size_t i = 0; i < count; i++) {
        outr_str name =
            outr_arena_printf(p->arena, "Default%s%sPolicy", levels[i], suffix);
        if (outr_map_get(map, name))
            return name;
    }
    return OUTR_STR_NONE;
}

static void take_defaults(outr_policies *p, const outr_policies *before)
{
    for (int i = 0; i < PLANES; i++) {
        outr_policy_kind kind = (outr_policy_kind)(i / DIRECTIONS);
        outr_policy_direction way = (outr_policy_direction)(i % DIRECTIONS);
        outr_policy *d = &p->defaults[kind][way];
        if (way == OUTR_INBOUND && kind <= OUTR_POLICY_ACTOR)
            continue;
        set_timeout(p, d, default_name(p, p->timeouts, kind, way, "Timeout"));
        set_retry(p, d, default_name(p, p->retries, kind, way, "Retry"));
        set_breaker(p, d, default_name(p, p->breakers, kind, way, "CircuitBreaker"),
                    DEFAULT_BREAKERS, before ? &before->defaults[kind][way] : NULL);
        p->has_default[kind][way] = d->timeout_ns || d->retry || d->breakers;
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void *compile(const outr_snapshot *snapshot, const void *ctx)
{
    const outr_policies *before = ctx;
    outr_policies *p = outr_alloc(sizeof *p);
    p->snapshot = snapshot;
    p->arena = outr_arena_new(SIZE_MAX / 16); /* as large as the files are */
    p->timeouts = outr_map_new();
    p->retries = outr_map_new();
    p->breakers = outr_map_new();
    for (size_t i = 0; i < OUTR_LEN(p->rows); i++)
        p->rows[i] = outr_map_new();
    for (size_t i = 0; i < snapshot->resiliency_count; i++) {
        const outr_resiliency_spec *spec = &snapshot->resiliencies[i];
        outr_policy_source *source = outr_arena_alloc(p->arena, sizeof *source);
        *source = (outr_policy_source){spec->base.name, spec->base.namespace_};
        take_names(p, spec, source);
    }
    for (size_t i = 0; i < snapshot->resiliency_count; i++) {
        const outr_resiliency_spec *spec = &snapshot->resiliencies[i];
        for (size_t k = 0; k < spec->target_count; k++)
            take_target(p, &spec->targets[k], before);
    }
    take_defaults(p, before);
    const named *n = outr_map_get(p->retries, OUTR_STR("DaprBuiltInServiceRetries"));
    p->service_retry = n ? *(const outr_retry_policy *)n->policy : built_in_service_retry;
    return p;
}

static void free_policies(void *policies)
{
    outr_policies *p = policies;
    void *item;
    for (size_t i = 0; i < OUTR_LEN(p->rows); i++) {
        for (size_t at = 0; outr_map_next(p->rows[i], &at, NULL, &item);)
            release(item);
        outr_map_free(p->rows[i]);
    }
    for (int i = 0; i < PLANES; i++)
        release(&p->defaults[i / DIRECTIONS][i % DIRECTIONS]);
    outr_map_free(p->timeouts);
    outr_map_free(p->retries);
    outr_map_free(p->breakers);
    outr_arena_free(p->arena);
    free(p);
}

const outr_policies *outr_policies_of(const outr_snapshot *snapshot, const outr_policies *before)
{
    static const outr_part_ops ops = {compile, free_policies};
    if (snapshot->resiliency_count == 0)
        return NULL;
    return outr_snapshot_part(snapshot, OUTR_PART_POLICIES, &ops, before);
}

const outr_snapshot *outr_policies_snapshot(const outr_policies *p)
{
    return p->snapshot;
}

/* ---- asking ---------------------------------------------------------------------------------- */

const outr_policy *outr_policies_find(const outr_policies *p, outr_policy_kind kind,
                                      outr_policy_direction direction, outr_str name)
{
    if (!p)
        return NULL;
    int rows = kind == OUTR_POLICY_APP     ? OUTR_TARGET_APP
               : kind == OUTR_POLICY_ACTOR ? OUTR_TARGET_ACTOR
               : direction == OUTR_INBOUND ? OUTR_TARGET_COMPONENT_IN
                                           : OUTR_TARGET_COMPONENT_OUT;
    const outr_policy *row = outr_map_get(p->rows[rows], name);
    if (!row)
        return p->has_default[kind][direction] ? &p->defaults[kind][direction] : NULL;
    return row->timeout_ns || row->retry || row->breakers ? row : NULL;
}

bool outr_policies_name_app(const outr_policies *p, outr_str app_id)
{
    return p && outr_map_get(p->rows[OUTR_TARGET_APP], app_id) != NULL;
}

const outr_retry_policy *outr_policies_service_retry(const outr_policies *p)
{
    return p ? &p->service_retry : &built_in_service_retry;
}
