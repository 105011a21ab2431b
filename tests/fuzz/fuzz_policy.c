/* Any bytes as the spec of an AccessPolicy and of an Authentication; and any target for rules that
 * deny /closed and allow the rest: what is let in does not lie below it, however the app reads it.
 * The first line is the target, what follows it the spec. */
#include "base/encode.h"
#include "base/url.h"
#include "base/yaml.h"
#include "config/kinds/kinds.h"
#include "security/policy.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const outr_str closed[] = {{"/closed/**", 10}, {"/*-shut/x*", 10}};
static const outr_policy_rule rules[] = {{.name = {"r", 1},
                                          .action = OUTR_POLICY_DENY,
                                          .paths = closed,
                                          .path_count = 2,
                                          .over_http = true,
                                          .over_grpc = true}};
static const outr_policy_spec policy = {.is_allowed = true, .rules = rules, .rule_count = 1};

static bool is_closed(outr_arena *arena, outr_str path)
{
    char *lower = outr_arena_strz(arena, path);
    for (size_t i = 0; i < path.n; i++)
        lower[i] = lower[i] >= 'A' && lower[i] <= 'Z' ? (char)(lower[i] + 32) : lower[i];
    path = outr_path_clean(arena, outr_str_of(lower, path.n));
    return outr_str_is(path, "/closed") || outr_str_starts(path, OUTR_STR("/closed/"));
}

static outr_policy_verdict judge(const outr_policy_spec *spec, outr_arena *arena, outr_str target,
                                 bool is_http)
{
    const outr_identity caller = {.trust_domain = OUTR_STR("t"),
                                  .namespace_ = OUTR_STR("n"),
                                  .app_id = OUTR_STR("a"),
                                  .is_authenticated = true};
    const outr_policy_request request = {
        .caller = &caller, .target = target, .verb = OUTR_STR("GET"), .is_proxied = !is_http};
    outr_policy *compiled = outr_policy_new(NULL, spec, 1, is_http);
    outr_policy_verdict v = outr_policy_judge(compiled, &request, arena);
    outr_policy_free(compiled);
    return v;
}

static void check_target(outr_arena *arena, outr_str target)
{
    outr_str path, decoded;
    outr_str_cut(target, '?', &path);
    /* the mesh lets clean targets in only */
    if (path.n == 0 || path.p[0] != '/' || !outr_str_eq(outr_path_clean(arena, path), path))
        return;
    if (!judge(&policy, arena, target, true).is_allowed)
        return;
    PROPERTY(outr_percent_decode(arena, path, false, &decoded));
    PROPERTY(!is_closed(arena, path) && !is_closed(arena, decoded));
    PROPERTY(outr_str_find(decoded, 0) < 0);
}

static void check_spec(outr_arena *arena, outr_str target, outr_str text)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    outr_yaml_doc *doc;
    outr_binder binder = {arena, "f", &errors, &errors};
    const outr_kind_env env = {&binder, NULL, OUTR_STR_NONE};
    outr_policy_spec spec = {0};
    outr_authn_spec authn = {0};
    if (outr_yaml_parse(&doc, arena, "f", text, 10000, NULL) || !doc ||
        doc->root->kind != OUTR_YAML_MAPPING)
        return;
    outr_kind_authn(&env, doc->root, &authn);
    outr_err_list_done(&errors);
    errors = (outr_err_list){0};
    outr_kind_policy(&env, doc->root, &spec);
    if (errors.count > 0)
        return;
    outr_policy_verdict v = judge(&spec, arena, target, false);
    spec.is_shadow = !spec.is_shadow; /* what would be refused is refused without shadow */
    outr_policy_verdict other = judge(&spec, arena, target, false);
    PROPERTY(spec.is_shadow ? v.is_allowed == !other.shadow.rule.p
                            : other.is_allowed == !v.shadow.rule.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_arena *arena = outr_arena_new(64 * OUTR_MIB);
    outr_str target, rest = outr_str_cut(outr_str_of(data, size), '\n', &target);
    check_target(arena, target);
    check_target(arena, outr_arena_join(arena, OUTR_STR("/closed/"), target, OUTR_STR_NONE));
    check_target(arena, outr_arena_join(arena, OUTR_STR("/x-shut/"), target, OUTR_STR_NONE));
    if (rest.p)
        check_spec(arena, target, rest);
    outr_arena_free(arena);
    return 0;
}
