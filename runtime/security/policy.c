#include "security/policy.h"

#include "security/paths.h"

#define WORD 64
#define KEY_MAX (OUTR_SPIFFE_MAX + 2)

/* Some rules by their numbers: a list, or when that would be longer a bit for each rule. */
typedef struct set {
    uint32_t *ids;
    uint32_t count, cap;
    uint64_t *bits; /* NULL: the list */
} set;

typedef struct rule {
    const outr_policy_rule *spec;
    const outr_policy_spec *of;
    bool asks_twice; /* for one claim: that both hold is looked at when all else does */
} rule;

/* At a node of the tree of paths. */
typedef struct ends {
    set here, below;
} ends;

typedef struct claim_name {
    outr_str name;
    uint64_t *asked;    /* rules that ask for it; of those the ones it satisfies: */
    set present;        /* when it is there */
    outr_map *by_value; /* set */
    struct claim_name *next;
} claim_name;

/* Callers are looked for by those of their three names that a rule gives. */
enum { BY_APP = 1, BY_NAMESPACE = 2, BY_DOMAIN = 4, SHAPES = 8 };

/* Rules that decide, by what they do; AUDIT rules of either. */
typedef struct group {
    uint64_t *deny, *allow;
    const outr_policy_spec *denies_else; /* a policy whose default is to deny; NULL: none */
    bool is_there;
} group;

struct outr_policy {
    outr_arena *arena;
    outr_access *access; /* NULL: no spec.accessControl */
    bool is_http;
    size_t words; /* of a set of bits */
    rule *rules;
    size_t rule_count;
    group enforced, shadow;
    uint64_t *audit;
    bool has_audit;
    /* Of each question, the rules that do not ask it. */
    uint64_t *anybody, *any_path, *any_claims;
    uint64_t *verbs[OUTR_ACCESS_VERBS]; /* those that a verb satisfies; the first: any other one */
    uint64_t *http, *grpc;
    bool has_shape[SHAPES];
    outr_map *callers; /* set, by "app/namespace/domain" */
    outr_path_node paths;
    claim_name *claims;
};

/* ---- sets ------------------------------------------------------------------------------------ */

static uint64_t *new_bits(outr_policy *p)
{
    return outr_arena_alloc(p->arena, p->words * sizeof(uint64_t));
}

static void put_bit(uint64_t *bits, size_t id)
{
    bits[id / WORD] |= UINT64_C(1) << id % WORD;
}

static bool has_bit(const uint64_t *bits, size_t id)
{
    return bits[id / WORD] >> id % WORD & 1;
}

static void grow(outr_policy *p, set *s)
{
    if (s->count >= p->words * 2) { /* as long as the bits */
        s->bits = new_bits(p);
        for (uint32_t i = 0; i < s->count; i++)
            put_bit(s->bits, s->ids[i]);
        return;
    }
    uint32_t cap = s->cap ? s->cap * 2 : 2;
    uint32_t *ids = outr_arena_alloc(p->arena, cap * sizeof *ids);
    if (s->count > 0)
        memcpy(ids, s->ids, s->count * sizeof *ids);
    s->ids = ids;
    s->cap = cap;
}

static void set_add(outr_policy *p, set *s, uint32_t id)
{
    if (!s->bits && s->count > 0 && s->ids[s->count - 1] == id)
        return; /* a rule that says it twice */
    if (!s->bits && s->count == s->cap)
        grow(p, s);
    if (s->bits)
        put_bit(s->bits, id);
    else
        s->ids[s->count++] = id;
}

static void unite(const outr_policy *p, uint64_t *bits, const set *s)
{
    if (!s->bits) {
        for (uint32_t i = 0; i < s->count; i++)
            put_bit(bits, s->ids[i]);
        return;
    }
    for (size_t w = 0; w < p->words; w++)
        bits[w] |= s->bits[w];
}

static void intersect(const outr_policy *p, uint64_t *bits, const uint64_t *with)
{
    for (size_t w = 0; w < p->words; w++)
        bits[w] &= with[w];
}

static set *set_of(outr_policy *p, outr_map *map, outr_str key)
{
    set *s = outr_map_get(map, key);
    if (s)
        return s;
    s = outr_arena_alloc(p->arena, sizeof *s);
    outr_map_put(map, key, s);
    return s;
}

/* ---- compiling ------------------------------------------------------------------------------- */

/* No name of a SPIFFE id has a slash in it. False: longer than any id is. */
static bool key_of(char text[KEY_MAX], outr_str *key, unsigned shape, outr_str app,
                   outr_str namespace_, outr_str domain)
{
    const outr_str parts[] = {app, namespace_, domain};
    size_t n = 0;
    for (unsigned i = 0; i < OUTR_LEN(parts); i++) {
        if (i > 0)
            text[n++] = '/';
        if (!(shape & 1u << i))
            continue;
        if (parts[i].n > KEY_MAX - (OUTR_LEN(parts) - 1 - i) - n) /* slashes follow */
            return false;
        if (parts[i].n > 0)
            memcpy(text + n, parts[i].p, parts[i].n);
        n += parts[i].n;
    }
    *key = outr_str_of(text, n);
    return true;
}

static void add_callers(outr_policy *p, const outr_policy_rule *r, uint32_t id)
{
    if (r->caller_count == 0)
        put_bit(p->anybody, id);
    for (size_t i = 0; i < r->caller_count; i++) {
        const outr_policy_caller *c = &r->callers[i];
        bool is_any = outr_str_is(c->app_id, "*");
        unsigned shape = (c->app_id.n > 0 && !is_any ? BY_APP : 0) |
                         (c->namespace_.n > 0 ? BY_NAMESPACE : 0) |
                         (c->trust_domain.n > 0 ? BY_DOMAIN : 0);
        char text[KEY_MAX];
        outr_str key;
        if (!key_of(text, &key, shape, c->app_id, c->namespace_, c->trust_domain))
            continue; /* nobody can have that name */
        set_add(p, set_of(p, p->callers, key), id);
        p->has_shape[shape] = true;
    }
}

static void add_path(outr_policy *p, outr_str path, uint32_t id)
{
    outr_str segment, rest = outr_str_skip(p->is_http ? outr_path_lower(p->arena, path) : path, 1);
    outr_path_node *at = &p->paths;
    bool is_below = false;
    while (rest.p && !is_below) {
        rest = outr_str_cut(rest, '/', &segment);
        is_below = outr_str_is(segment, "**"); /* it is the last one */
        if (!is_below)
            at = outr_path_child(p->arena, at, segment);
    }
    if (!at->value)
        at->value = outr_arena_alloc(p->arena, sizeof(ends));
    ends *e = at->value;
    set_add(p, is_below ? &e->below : &e->here, id);
}

static void add_paths(outr_policy *p, const outr_policy_rule *r, uint32_t id)
{
    if (r->path_count == 0)
        put_bit(p->any_path, id);
    for (size_t i = 0; i < r->path_count; i++)
        add_path(p, outr_path_trim(r->paths[i]), id);
}

static void add_verbs(outr_policy *p, const outr_policy_rule *r, uint32_t id)
{
    unsigned wanted = 0;
    for (size_t i = 0; i < r->verb_count; i++)
        wanted |= outr_access_verb(r->verbs[i]);
    for (unsigned v = 0; v < OUTR_ACCESS_VERBS; v++) {
        if (r->verb_count == 0 || (wanted & 1u << v))
            put_bit(p->verbs[v], id);
    }
}

static claim_name *name_of(outr_policy *p, outr_str name)
{
    claim_name *c = p->claims;
    while (c && !outr_str_eq(c->name, name))
        c = c->next;
    if (c)
        return c;
    c = outr_arena_alloc(p->arena, sizeof *c);
    *c = (claim_name){.name = name,
                      .asked = new_bits(p),
                      .by_value = outr_path_map(p->arena),
                      .next = p->claims};
    p->claims = c;
    return c;
}

static void add_claim(outr_policy *p, const outr_policy_claim *claim, uint32_t id)
{
    claim_name *c = name_of(p, claim->name);
    p->rules[id].asks_twice |= has_bit(c->asked, id);
    put_bit(c->asked, id);
    if (claim->value_count == 0)
        set_add(p, &c->present, id);
    for (size_t i = 0; i < claim->value_count; i++)
        set_add(p, set_of(p, c->by_value, claim->values[i]), id);
}

static void add_claims(outr_policy *p, const outr_policy_rule *r, uint32_t id)
{
    if (r->claim_count == 0)
        put_bit(p->any_claims, id);
    for (size_t i = 0; i < r->claim_count; i++)
        add_claim(p, &r->claims[i], id);
}

static void add_rule(outr_policy *p, const outr_policy_spec *of, const outr_policy_rule *r)
{
    uint32_t id = (uint32_t)p->rule_count;
    group *g = of->is_shadow ? &p->shadow : &p->enforced;
    p->rules[p->rule_count++] = (rule){.spec = r, .of = of};
    put_bit(r->action == OUTR_POLICY_DENY    ? g->deny
            : r->action == OUTR_POLICY_ALLOW ? g->allow
                                             : p->audit,
            id);
    p->has_audit |= r->action == OUTR_POLICY_AUDIT;
    if (r->over_http)
        put_bit(p->http, id);
    if (r->over_grpc)
        put_bit(p->grpc, id);
    add_callers(p, r, id);
    add_paths(p, r, id);
    add_verbs(p, r, id);
    add_claims(p, r, id);
}

static void init_sets(outr_policy *p)
{
    uint64_t **const all[] = {&p->enforced.deny, &p->enforced.allow, &p->shadow.deny,
                              &p->shadow.allow,  &p->audit,          &p->anybody,
                              &p->any_path,      &p->any_claims,     &p->http,
                              &p->grpc};
    for (size_t i = 0; i < OUTR_LEN(all); i++)
        *all[i] = new_bits(p);
    for (size_t i = 0; i < OUTR_ACCESS_VERBS; i++)
        p->verbs[i] = new_bits(p);
    p->callers = outr_path_map(p->arena);
}

outr_policy *outr_policy_new(const outr_access_spec *access, const outr_policy_spec *policies,
                             size_t count, bool is_http_app)
{
    outr_policy *p = outr_alloc(sizeof *p);
    size_t rules = 0;
    for (size_t i = 0; i < count; i++)
        rules += policies[i].rule_count;
    p->arena = outr_arena_new(256 * OUTR_MIB); /* configuration, whose files have their own limit */
    p->is_http = is_http_app;
    p->words = OUTR_MAX((rules + WORD - 1) / WORD, (size_t)1);
    p->rules = outr_arena_alloc(p->arena, (rules + 1) * sizeof *p->rules);
    init_sets(p);
    if (access && access->is_on)
        p->access = outr_access_new(access, is_http_app);
    for (size_t i = 0; i < count; i++) {
        const outr_policy_spec *of = &policies[i];
        group *g = of->is_shadow ? &p->shadow : &p->enforced;
        g->is_there = true;
        if (!of->is_allowed && !g->denies_else)
            g->denies_else = of;
        for (size_t r = 0; r < of->rule_count; r++)
            add_rule(p, of, &of->rules[r]);
    }
    return p;
}

void outr_policy_free(outr_policy *policy)
{
    if (!policy)
        return;
    outr_access_free(policy->access);
    outr_arena_free(policy->arena);
    free(policy);
}

static void *make_part(const outr_snapshot *s, const void *is_http_app)
{
    return outr_policy_new(&s->configuration.access, s->access_policies, s->access_policy_count,
                           *(const bool *)is_http_app);
}

static void free_part(void *policy)
{
    outr_policy_free(policy);
}

const outr_policy *outr_policy_of(const outr_snapshot *snapshot, bool is_http_app)
{
    static const outr_part_ops ops = {make_part, free_part};
    if (!snapshot->configuration.access.is_on && snapshot->access_policy_count == 0)
        return NULL;
    return outr_snapshot_part(snapshot, OUTR_PART_ACCESS, &ops, &is_http_app);
}

/* ---- which rules match ----------------------------------------------------------------------- */

typedef struct judge {
    const outr_policy *p;
    const outr_policy_request *request;
    outr_arena *scratch;
    uint64_t *base; /* that match but for the path */
    uint64_t *bits; /* that match */
} judge;

static uint64_t *zeroed(const judge *j)
{
    return outr_arena_alloc(j->scratch, j->p->words * sizeof(uint64_t));
}

static void match_caller(const judge *j, uint64_t *bits)
{
    const outr_policy *p = j->p;
    const outr_identity *who = j->request->caller;
    char text[KEY_MAX];
    outr_str key;
    memcpy(bits, p->anybody, p->words * sizeof *bits);
    for (unsigned shape = 0; who && who->is_authenticated && shape < SHAPES; shape++) {
        if (!p->has_shape[shape] ||
            !key_of(text, &key, shape, who->app_id, who->namespace_, who->trust_domain))
            continue;
        const set *s = outr_map_get(p->callers, key);
        if (s)
            unite(p, bits, s);
    }
}

/* Takes away the rules that ask for claims that are not said. */
static void match_claims(const judge *j, uint64_t *bits)
{
    const outr_policy *p = j->p;
    uint64_t *said = j->request->claims && p->claims ? zeroed(j) : NULL;
    if (!said) {
        intersect(p, bits, p->any_claims);
        return;
    }
    for (const claim_name *c = p->claims; c; c = c->next) {
        size_t count;
        const outr_claim *values = outr_claims_find(j->request->claims, c->name, &count);
        memset(said, 0, p->words * sizeof *said);
        if (count > 0)
            unite(p, said, &c->present);
        for (size_t i = 0; i < count; i++) {
            const set *s = outr_map_get(c->by_value, values[i].value);
            if (s)
                unite(p, said, s);
        }
        for (size_t w = 0; w < p->words; w++)
            bits[w] &= said[w] | ~c->asked[w];
    }
}

/* All patterns that match are taken, not the first; rest: p NULL at the end of the path. No deeper
 * than patterns are long. */
static void match_path(const judge *j, const outr_path_node *node, outr_str rest, uint64_t *bits)
{
    const ends *e = node->value;
    outr_path_cursor cursor = {0};
    outr_str segment;
    if (e)
        unite(j->p, bits, &e->below);
    if (!rest.p) {
        if (e)
            unite(j->p, bits, &e->here);
        return;
    }
    if (!node->children)
        return;
    rest = outr_str_cut(rest, '/', &segment);
    const outr_path_node *child = outr_map_get(node->children, segment);
    if (child && outr_str_find(segment, '*') < 0)
        match_path(j, child, rest, bits);
    if (node->one && segment.n > 0)
        match_path(j, node->one, rest, bits);
    while ((child = outr_path_next_glob(node, segment, &cursor)))
        match_path(j, child, rest, bits);
}

static void match_all_but_path(judge *j)
{
    const outr_policy *p = j->p;
    const outr_policy_request *r = j->request;
    /* a gRPC call is a POST, whatever the peer has sent */
    unsigned verb = outr_access_verb(r->is_proxied ? OUTR_STR("POST") : r->verb);
    j->base = zeroed(j);
    match_caller(j, j->base);
    intersect(p, j->base, p->verbs[verb ? __builtin_ctz(verb) : 0]);
    intersect(p, j->base, r->is_proxied ? p->grpc : p->http);
    match_claims(j, j->base);
}

/* ---- judging --------------------------------------------------------------------------------- */

static bool says(const outr_claims *claims, const outr_policy_claim *wanted)
{
    size_t count;
    const outr_claim *said = outr_claims_find(claims, wanted->name, &count);
    if (count > 0 && wanted->value_count == 0)
        return true;
    for (size_t i = 0; i < count; i++) {
        for (size_t v = 0; v < wanted->value_count; v++) {
            if (outr_str_eq(said[i].value, wanted->values[v]))
                return true;
        }
    }
    return false;
}

static bool holds(const judge *j, const outr_policy_rule *r)
{
    for (size_t i = 0; i < r->claim_count; i++) {
        if (!says(j->request->claims, &r->claims[i]))
            return false;
    }
    return true;
}

/* The first rule of a set that matches, or NULL. */
static const rule *first(const judge *j, const uint64_t *of)
{
    for (size_t w = 0; w < j->p->words; w++) {
        for (uint64_t left = j->bits[w] & of[w]; left; left &= left - 1) {
            const rule *r = &j->p->rules[w * WORD + (size_t)__builtin_ctzll(left)];
            if (!r->asks_twice || holds(j, r->spec))
                return r;
        }
    }
    return NULL;
}

static outr_policy_ref ref(const rule *r)
{
    return (outr_policy_ref){r->of->base.name, r->spec->name};
}

static outr_policy_ref default_of(const outr_policy_spec *of)
{
    return (outr_policy_ref){of->base.name, OUTR_STR(OUTR_POLICY_DEFAULT)};
}

/* What of one way to read the path. */
typedef struct outcome {
    bool is_denied; /* by a DENY rule */
    bool is_allowed;
    outr_policy_ref by, shadow;
} outcome;

static outcome judge_reading(judge *j, outr_str path)
{
    const outr_policy *p = j->p;
    outr_str text = p->is_http ? outr_path_lower(j->scratch, path) : path;
    outcome o = {.is_allowed = true};
    const rule *deny, *allow, *would;
    memcpy(j->bits, p->any_path, p->words * sizeof *j->bits);
    match_path(j, &p->paths, outr_str_skip(text, 1), j->bits);
    intersect(p, j->bits, j->base);
    deny = first(j, p->enforced.deny);
    if (deny)
        return (outcome){.is_denied = true, .by = ref(deny)};
    allow = first(j, p->enforced.allow);
    if (allow)
        o.by = ref(allow);
    else if (p->enforced.denies_else)
        return (outcome){.by = default_of(p->enforced.denies_else)};
    if (!p->shadow.is_there)
        return o;
    would = first(j, p->shadow.deny);
    if (would)
        o.shadow = ref(would);
    else if (p->shadow.denies_else && !allow && !first(j, p->shadow.allow))
        o.shadow = default_of(p->shadow.denies_else);
    return o;
}

/* A path that nobody can read. */
static outcome judge_riddle(const outr_policy *p)
{
    const outr_policy_ref by = {OUTR_STR("-"), OUTR_STR(OUTR_POLICY_PATH)};
    if (p->enforced.is_there)
        return (outcome){.is_denied = true, .by = by};
    return (outcome){.is_allowed = true, .shadow = by};
}

static outcome judge_policies(judge *j, outr_policy_ref *audited)
{
    outr_str readings[OUTR_PATH_READINGS];
    outcome worst = {.is_allowed = true};
    size_t count =
        outr_path_readings(readings, j->scratch, j->request->target, j->request->is_proxied);
    if (count == 0)
        return judge_riddle(j->p);
    j->bits = zeroed(j);
    match_all_but_path(j);
    for (size_t i = 0; i < count; i++) {
        outcome o = judge_reading(j, readings[i]);
        const rule *audit = j->p->has_audit && !audited->rule.p ? first(j, j->p->audit) : NULL;
        if (audit)
            *audited = ref(audit);
        if (o.is_denied)
            return o;
        if (i == 0 || (worst.is_allowed && !o.is_allowed) ||
            (worst.is_allowed && !worst.shadow.rule.p && o.shadow.rule.p))
            worst = o;
    }
    return worst;
}

outr_policy_verdict outr_policy_judge(const outr_policy *p, const outr_policy_request *request,
                                      outr_arena *scratch)
{
    judge j = {.p = p, .request = request, .scratch = scratch};
    outr_policy_verdict v = {.is_allowed = true};
    if (p->enforced.is_there || p->shadow.is_there) {
        outcome o = judge_policies(&j, &v.audited);
        v.is_allowed = o.is_allowed;
        v.by = o.by;
        v.shadow = o.shadow;
        if (o.is_denied)
            return v;
    }
    if (p->access) {
        const outr_access_request access = {
            request->caller, request->target, request->verb, request->is_proxied};
        v.access = outr_access_judge(p->access, &access, scratch);
        v.was_access_asked = true;
    }
    if (v.was_access_asked && !v.access.is_allowed) {
        v.is_allowed = false;
        v.by = v.shadow = (outr_policy_ref){.policy = OUTR_STR_NONE};
    }
    return v;
}
