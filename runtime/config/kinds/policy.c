#include "base/url.h"
#include "config/kinds/kinds.h"

/* AccessPolicy of outrigger.io/v1alpha1. */

#define SEGMENTS_MAX 64 /* the judge goes as deep */

#define P(field) offsetof(outr_policy_spec, field)
#define R(field) offsetof(outr_policy_rule, field)
#define F(field) offsetof(outr_policy_caller, field)
#define C(field) offsetof(outr_policy_claim, field)

static const outr_yaml_row caller[] = {
    {"appId", OUTR_YT_TEXT, F(app_id), 0, NULL, 0, 0},
    {"namespace", OUTR_YT_TEXT, F(namespace_), 0, NULL, 0, 0},
    {"trustDomain", OUTR_YT_TEXT, F(trust_domain), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row claim[] = {
    {"name", OUTR_YT_TEXT, C(name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"values", OUTR_YT_TEXTS, C(values), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row rule[] = {
    {"name", OUTR_YT_TEXT, R(name), 0, NULL, 0, 0},
    {"action", OUTR_YT_TEXT, R(action_text), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"from", OUTR_YT_LIST, R(callers), 0, caller, sizeof(outr_policy_caller), F(line)},
    {"methods", OUTR_YT_TEXTS, R(verbs), 0, NULL, 0, 0},
    {"paths", OUTR_YT_TEXTS, R(paths), 0, NULL, 0, 0},
    {"protocols", OUTR_YT_TEXTS, R(protocols), 0, NULL, 0, 0},
    {"claims", OUTR_YT_LIST, R(claims), 0, claim, sizeof(outr_policy_claim), C(line)},
    {0},
};
static const outr_yaml_row spec[] = {
    {"mode", OUTR_YT_TEXT, P(mode), 0, NULL, 0, 0},
    {"defaultAction", OUTR_YT_TEXT, P(default_action), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"rules", OUTR_YT_LIST, P(rules), 0, rule, sizeof(outr_policy_rule), R(line)},
    {0},
};

typedef struct place {
    outr_binder *b;
    outr_yaml at; /* of the element that is looked at */
    const outr_policy_rule *rule;
} place;

static void complain(place *p, const char *what, outr_str text, const char *wanted)
{
    outr_bind_error(p->b, &p->at, "%s: must be %s, not \"" OUTR_FMT "\"", what, wanted,
                    OUTR_ARG(outr_str_head(text, 80)));
}

static void check_not_empty(place *p, const char *what, const void *items, size_t count)
{
    if (items && count == 0)
        outr_bind_error(p->b, &p->at, "%s: is empty; leave it out for any", what);
}

static void check_action(place *p, outr_policy_rule *r)
{
    static const char *const names[] = {"deny", "audit", "allow"};
    for (unsigned i = 0; i < OUTR_LEN(names); i++) {
        if (outr_str_iis(r->action_text, names[i])) {
            r->action = (outr_policy_action)i;
            return;
        }
    }
    if (r->action_text.n > 0)
        complain(p, "action", r->action_text, "allow, deny or audit");
}

static void check_verbs(place *p)
{
    static const char *const known[] = {"GET",    "HEAD",    "POST",    "PUT",  "DELETE",
                                        "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    const outr_policy_rule *r = p->rule;
    check_not_empty(p, "methods", r->verbs, r->verb_count);
    for (size_t i = 0; i < r->verb_count; i++) {
        bool is_known = false;
        for (size_t k = 0; k < OUTR_LEN(known); k++)
            is_known |= outr_str_is(r->verbs[i], known[k]);
        if (!is_known)
            complain(p, "methods", r->verbs[i], "verbs in upper case");
    }
}

static void check_path(place *p, outr_str path)
{
    outr_str rest, segment;
    if (path.n == 0 || path.p[0] != '/') {
        complain(p, "paths", path, "patterns that begin with /");
        return;
    }
    if (outr_str_find(path, '?') >= 0 || outr_str_find(path, '#') >= 0 ||
        outr_str_find(path, '%') >= 0 ||
        !outr_str_eq(outr_path_clean(p->b->arena, path), path)) {
        complain(p, "paths", path, "clean paths without escapes, query and dot segments");
        return;
    }
    size_t segments = 0;
    for (rest = outr_str_skip(path, 1); rest.p; segments++) {
        rest = outr_str_cut(rest, '/', &segment);
        if (outr_str_search(segment, OUTR_STR("**")) >= 0 && (rest.p || segment.n != 2))
            complain(p, "paths", path, "patterns with ** as their last segment only");
    }
    if (segments > SEGMENTS_MAX)
        complain(p, "paths", path, "patterns of 64 segments at most");
}

static void check_paths(place *p)
{
    check_not_empty(p, "paths", p->rule->paths, p->rule->path_count);
    for (size_t i = 0; i < p->rule->path_count; i++)
        check_path(p, p->rule->paths[i]);
}

static void check_protocols(place *p, outr_policy_rule *r)
{
    check_not_empty(p, "protocols", r->protocols, r->protocol_count);
    r->over_http = r->over_grpc = r->protocol_count == 0;
    for (size_t i = 0; i < r->protocol_count; i++) {
        bool is_http = outr_str_is(r->protocols[i], "http");
        bool is_grpc = outr_str_is(r->protocols[i], "grpc");
        r->over_http |= is_http;
        r->over_grpc |= is_grpc;
        if (!is_http && !is_grpc)
            complain(p, "protocols", r->protocols[i], "http or grpc");
    }
}

static void check_callers(place *p)
{
    const outr_policy_rule *r = p->rule;
    check_not_empty(p, "from", r->callers, r->caller_count);
    for (size_t i = 0; i < r->caller_count; i++) {
        const outr_policy_caller *c = &r->callers[i];
        const outr_yaml at = {.line = c->line, .column = c->column};
        const outr_str parts[] = {c->app_id, c->namespace_, c->trust_domain};
        size_t given = 0;
        for (size_t n = 0; n < OUTR_LEN(parts); n++) {
            given += parts[n].n > 0;
            bool is_any = n == 0 && outr_str_is(parts[n], "*");
            if ((outr_str_find(parts[n], '*') >= 0 && !is_any) || outr_str_find(parts[n], '/') >= 0)
                outr_bind_error(p->b, &at, "from: \"" OUTR_FMT "\" is nobody's name",
                                OUTR_ARG(outr_str_head(parts[n], 80)));
        }
        if (given == 0)
            outr_bind_error(p->b, &at,
                            "from: names nobody; appId \"*\" is whoever has an identity");
    }
}

static void check_claims(place *p)
{
    const outr_policy_rule *r = p->rule;
    check_not_empty(p, "claims", r->claims, r->claim_count);
    for (size_t i = 0; i < r->claim_count; i++) {
        place at = *p;
        at.at = (outr_yaml){.line = r->claims[i].line, .column = r->claims[i].column};
        check_not_empty(&at, "values", r->claims[i].values, r->claims[i].value_count);
    }
}

static bool read_default(outr_binder *b, const outr_yaml *node, outr_str text)
{
    bool is_allowed = outr_str_iis(text, "allow");
    if (text.n > 0 && !is_allowed && !outr_str_iis(text, "deny"))
        outr_bind_error(b, outr_yaml_find(node, "defaultAction"),
                        "spec.defaultAction: must be allow or deny, not \"" OUTR_FMT "\"",
                        OUTR_ARG(outr_str_head(text, 80)));
    return is_allowed;
}

void outr_kind_policy(const outr_kind_env *env, const outr_yaml *root, outr_policy_spec *out)
{
    const outr_yaml *node = outr_yaml_find(root, "spec");
    outr_binder strict = *env->binder;
    strict.warnings = strict.errors;
    outr_bind_yaml(env->binder, outr_rows_top, root, "", out);
    if (outr_yaml_is_null(node))
        return;
    outr_bind_yaml(&strict, spec, node, "spec", out);
    out->is_allowed = read_default(&strict, node, out->default_action);
    out->is_shadow = outr_str_iis(out->mode, "shadow");
    if (out->mode.n > 0 && !out->is_shadow && !outr_str_iis(out->mode, "enforce"))
        outr_bind_error(&strict, outr_yaml_find(node, "mode"),
                        "spec.mode: must be enforce or shadow, not \"" OUTR_FMT "\"",
                        OUTR_ARG(outr_str_head(out->mode, 80)));
    for (size_t i = 0; i < out->rule_count; i++) {
        outr_policy_rule *r = (outr_policy_rule *)&out->rules[i];
        place p = {&strict, {.line = r->line, .column = r->column}, r};
        if (r->name.n == 0)
            r->name = outr_arena_printf(strict.arena, "#%zu", i + 1);
        check_action(&p, r);
        check_callers(&p);
        check_verbs(&p);
        check_paths(&p);
        check_protocols(&p, r);
        check_claims(&p);
    }
}
