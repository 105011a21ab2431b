#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "config/snapshot.h"
#include "lib/folder.h"
#include "tls/jwt.h"

#define KEYS                                                                                       \
    "jwks: {keys: [{kty: OKP, crv: Ed25519, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo}]}"

static const char policy[] =
    "apiVersion: outrigger.io/v1alpha1\n"
    "kind: AccessPolicy\n"
    "metadata: {name: orders}\n"
    "scopes: [app]\n"
    "spec:\n"
    "  mode: shadow\n"
    "  defaultAction: deny\n"
    "  rules:\n"
    "  - name: staff\n"
    "    action: ALLOW\n"
    "    from: [{appId: web, namespace: prod, trustDomain: public}, {appId: '*'}]\n"
    "    methods: [GET, POST]\n"
    "    paths: [/orders/**, /pkg.Service/*, /a*b/c]\n"
    "    protocols: [http]\n"
    "    claims: [{name: role, values: [admin]}, {name: sub}]\n"
    "  - {action: audit}\n";
static const char authn[] =
    "apiVersion: outrigger.io/v1alpha1\n"
    "kind: Authentication\n"
    "metadata: {name: tokens}\n"
    "spec:\n"
    "  required: false\n"
    "  clockSkew: 30s\n"
    "  forwardToken: true\n"
    "  issuers:\n"
    "  - {issuer: https://id.example, audiences: [orders, all], algorithms: [RS256, EdDSA]}\n"
    "  - {issuer: other, audiences: ['*'], " KEYS "}\n"
    "  - {issuer: third, audiences: [x], jwksFile: /etc/keys.json}\n"
    "  claimsToHeaders: [{claim: sub, header: x-user}]\n";

typedef struct bench {
    folder f;
    outr_settings settings;
    outr_snapshot *snapshot;
    outr_err_list errors, warnings;
} bench;

static outr_code load(bench *b, const char *first, const char *second)
{
    *b = (bench){.settings = {.app_id = OUTR_STR("app"), .namespace_ = OUTR_STR("default")}};
    folder_make(&b->f);
    b->settings.resources_paths.items[0] = outr_str_from(b->f.path);
    b->settings.resources_paths.count = 1;
    folder_write(&b->f, "a.yaml", first);
    if (second)
        folder_write(&b->f, "b.yaml", second);
    return outr_snapshot_load(&b->snapshot, &b->settings, NULL, &b->errors, &b->warnings);
}

static void unload(bench *b)
{
    outr_snapshot_unref(b->snapshot);
    outr_err_list_done(&b->errors);
    outr_err_list_done(&b->warnings);
    folder_remove(&b->f);
}

static void must_tell(const outr_err_list *list, const char *text)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strstr(list->items[i].text, text))
            return;
    }
    for (size_t i = 0; i < list->count; i++)
        print_error("%s\n", list->items[i].text);
    fail_msg("not told: %s", text);
}

static void both_kinds_are_read(void **state)
{
    bench b;
    (void)state;
    if (load(&b, policy, authn))
        fail_msg("%s", b.errors.items[0].text);
    assert_int_equal(b.warnings.count, 0);
    assert_int_equal(b.snapshot->access_policy_count, 1);
    const outr_policy_spec *p = &b.snapshot->access_policies[0];
    assert_true(p->is_shadow && !p->is_allowed);
    assert_int_equal(p->rule_count, 2);
    const outr_policy_rule *r = &p->rules[0];
    assert_true(outr_str_is(r->name, "staff") && r->action == OUTR_POLICY_ALLOW);
    assert_true(outr_str_is(r->callers[0].namespace_, "prod"));
    assert_int_equal(r->caller_count, 2);
    assert_int_equal(r->verb_count, 2);
    assert_int_equal(r->path_count, 3);
    assert_true(r->over_http && !r->over_grpc);
    assert_true(outr_str_is(r->claims[0].values[0], "admin") && r->claims[1].value_count == 0);
    assert_true(outr_str_is(p->rules[1].name, "#2") && p->rules[1].action == OUTR_POLICY_AUDIT);
    assert_true(p->rules[1].over_http && p->rules[1].over_grpc);
    const outr_authn_spec *a = b.snapshot->authn;
    assert_true(a && !a->is_required && a->forwards_token && a->skew_ns == 30 * OUTR_SEC);
    assert_int_equal(a->issuer_count, 3);
    assert_int_equal(a->issuers[0].algorithms, outr_jwt_algorithm(OUTR_STR("RS256")) |
                                                   outr_jwt_algorithm(OUTR_STR("EdDSA")));
    assert_int_equal(a->issuers[0].audience_count, 2);
    assert_true(outr_str_search(a->issuers[1].keys, OUTR_STR("\"kty\":\"OKP\"")) > 0);
    assert_true(outr_str_is(a->headers[0].header, "x-user"));
    unload(&b);
}

static void they_are_for_the_apps_in_their_scopes(void **state)
{
    char other[sizeof policy];
    bench b;
    (void)state;
    memcpy(other, policy, sizeof policy);
    memcpy(strstr(other, "scopes: [app]"), "scopes: [xyz]", 13);
    assert_int_equal(load(&b, other, NULL), OUTR_OK);
    assert_int_equal(b.snapshot->access_policy_count, 0);
    assert_null(b.snapshot->authn);
    unload(&b);
}

static void an_app_has_one_authentication(void **state)
{
    bench b;
    (void)state;
    assert_int_not_equal(load(&b, authn, authn), OUTR_OK);
    must_tell(&b.errors, "an app has one Authentication");
    must_tell(&b.errors, "a.yaml:1 already");
    unload(&b);
}

static void limits_that_are_not_what_they_look_like_are_warned_of(void **state)
{
    static const char first[] = "apiVersion: outrigger.io/v1alpha1\n"
                                "kind: TrafficPolicy\n"
                                "metadata: {name: first}\n"
                                "spec:\n"
                                "  inbound:\n"
                                "    concurrency: {}\n"
                                "    rateLimits:\n"
                                "    - {requests: 1, per: 'claim:sub'}\n"
                                "    - {requests: 1, store: nobody}\n";
    static const char second[] =
        "apiVersion: outrigger.io/v1alpha1\n"
        "kind: TrafficPolicy\n"
        "metadata: {name: second}\n"
        "spec: {inbound: {concurrency: {}, rateLimits: [{requests: 1, store: "
        "mem}]}}\n"
        "---\n"
        "apiVersion: dapr.io/v1alpha1\n"
        "kind: Component\n"
        "metadata: {name: mem}\n"
        "spec: {type: state.in-memory, version: v1}\n";
    bench b;
    (void)state;
    assert_int_equal(load(&b, first, second), OUTR_OK);
    must_tell(&b.warnings, "a.yaml:8: a rate limit per claim is one for all without an");
    must_tell(&b.warnings, "a.yaml:9: there is no component \"nobody\"");
    must_tell(&b.warnings,
              "b.yaml:4: component \"mem\" is of type state.in-memory, not state.redis");
    must_tell(&b.warnings, "b.yaml:1: inbound.concurrency has no effect beside that of \"first\"");
    unload(&b);
}

static void rules_about_claims_without_authentication_are_warned_of(void **state)
{
    bench b;
    (void)state;
    assert_int_equal(load(&b, policy, NULL), OUTR_OK);
    must_tell(&b.warnings, "a.yaml:15: rules about claims have no effect without an Authentication");
    assert_int_equal(b.warnings.count, 1);
    unload(&b);
}

static void all_mistakes_are_told_with_their_place(void **state)
{
#define P(spec) "apiVersion: outrigger.io/v1alpha1\nkind: AccessPolicy\nmetadata: {name: p}\n" spec
#define R(rule) P("spec:\n  defaultAction: deny\n  rules:\n  - {" rule "}\n")
#define T(spec) "apiVersion: outrigger.io/v1alpha1\nkind: Authentication\nmetadata: {name: t}\n" spec
#define I(issuer) T("spec:\n  required: true\n  issuers:\n  - {" issuer "}\n")
#define H(header)                                                                                  \
    T("spec:\n  required: true\n  issuers:\n  - {issuer: x, audiences: [y], " KEYS "}\n"           \
      "  claimsToHeaders:\n  - {" header "}\n")
    static const struct {
        const char *text, *told;
    } rows[] = {
        {P(""), "a.yaml:1:1: spec: required"},
        {P("spec: {}\n"), "spec.defaultAction: required"},
        {P("spec: {defaultAction: perhaps}\n"),
         "a.yaml:4:23: spec.defaultAction: must be allow or deny, not \"perhaps\""},
        {P("spec: {defaultAction: deny, mode: dry}\n"), "4:35: spec.mode: must be enforce or shadow"},
        {P("spec: {defaultAction: deny, rule: []}\n"), "4:35: spec.rule: unknown field"},
        {P("spec: {defaultAction: deny, rules: {}}\n"), "spec.rules: must be a list"},
        {R("name: x"), "spec.rules[0].action: required"},
        {R("action: block"), "7:5: action: must be allow, deny or audit, not \"block\""},
        {R("action: allow, path: [/x]"), "spec.rules[0].path: unknown field"},
        {R("action: allow, paths: []"), "paths: is empty"},
        {R("action: allow, paths: [x]"), "patterns that begin with /"},
        {R("action: allow, paths: [/a/../b]"), "clean paths"},
        {R("action: allow, paths: [//a]"), "clean paths"},
        {R("action: allow, paths: [/a%2fb]"), "clean paths"},
        {R("action: allow, paths: ['/a?b']"), "clean paths"},
        {R("action: allow, paths: [/**/b]"), "** as their last segment only"},
        {R("action: allow, paths: [/a**]"), "** as their last segment only"},
        {R("action: allow, methods: [get]"), "methods: must be verbs in upper case, not \"get\""},
        {R("action: allow, methods: []"), "methods: is empty"},
        {R("action: allow, protocols: [tcp]"), "protocols: must be http or grpc"},
        {R("action: allow, from: []"), "from: is empty"},
        {R("action: allow, from: [{}]"), "from: names nobody"},
        {R("action: allow, from: [{appId: a*}]"), "is nobody's name"},
        {R("action: allow, from: [{appId: a/b}]"), "is nobody's name"},
        {R("action: allow, from: [{app: a}]"), "from[0].app: unknown field"},
        {R("action: allow, claims: [{}]"), "claims[0].name: required"},
        {R("action: allow, claims: []"), "claims: is empty"},
        {R("action: allow, claims: [{name: x, values: []}]"), "values: is empty"},
        {R("action: allow, claims: [{name: x, value: y}]"), "claims[0].value: unknown field"},
        {T("spec: {issuers: []}\n"), "spec.required: required"},
        {T("spec: {required: maybe, issuers: []}\n"), "spec.required: must be true or false"},
        {T("spec: {required: true}\n"), "spec.issuers: required"},
        {T("spec: {required: true, issuers: []}\n"), "spec.issuers: must be 1 to 32"},
        {I("audiences: [x]"), "spec.issuers[0].issuer: required"},
        {I("issuer: https://x"), "spec.issuers[0].audiences: required"},
        {I("issuer: https://x, audiences: []"), "audiences: is empty"},
        {I("issuer: https://x, audiences: [y], audience: z"), "audience: unknown field"},
        {I("issuer: x, audiences: [y]"), "issuer \"x\": "},
        {I("issuer: x, audiences: [y], jwksUrl: 'ftp://x/'"), "unsupported protocol scheme"},
        {I("issuer: x, audiences: [y], jwks: '{}'"), "no key set"},
        {I("issuer: x, audiences: [y], jwksFile: f, jwksUrl: 'https://x/'"), "one place only"},
        {I("issuer: https://x, audiences: [y], algorithms: [HS256]"), "algorithms: must be of RS"},
        {I("issuer: https://x, audiences: [y], algorithms: [none]"), "not \"none\""},
        {I("issuer: https://x, audiences: [y]}\n  - {issuer: https://x, audiences: [y]"),
         "is there already, in line 7"},
        {T("spec: {required: true, clockSkew: 2h, issuers: []}\n"), "an hour at most"},
        {H("claim: sub"), "claimsToHeaders[0].header: required"},
        {H("claim: sub, header: 'a b'"), "header: \"a b\" is not a name"},
        {H("claim: sub, header: Authorization"), "is not a name that may be given away"},
        {H("claim: sub, header: dapr-caller-app-id"), "is not a name that may be given away"},
        {H("claim: sub, header: x-thing-bin"), "is not a name that may be given away"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        bench b;
        if (load(&b, rows[i].text, NULL) == OUTR_OK)
            fail_msg("taken: %s", rows[i].text);
        must_tell(&b.errors, rows[i].told);
        unload(&b);
    }
    bench b; /* of both files, all at once */
    assert_int_not_equal(load(&b, R("action: x, methods: [y], paths: [z]"), I("issuer: x")), OUTR_OK);
    must_tell(&b.errors, "action: must be");
    must_tell(&b.errors, "methods: must be");
    must_tell(&b.errors, "paths: must be");
    must_tell(&b.errors, "b.yaml:7:5: spec.issuers[0].audiences: required");
    unload(&b);
}

static void what_is_unknown_beside_the_spec_is_a_warning(void **state)
{
    bench b;
    (void)state;
    assert_int_equal(load(&b, P("status: {}\nspec: {defaultAction: deny}\n"),
                          "apiVersion: outrigger.io/v1alpha1\nkind: Weather\nmetadata: {name: w}\n"),
                     OUTR_OK);
    must_tell(&b.warnings, "status: unknown field");
    must_tell(&b.warnings, "kind \"Weather\" is not acted on");
    unload(&b);
}

static void one_that_cannot_be_read_or_is_misplaced_is_no_warning(void **state)
{
    bench b;
    (void)state;
    assert_int_not_equal(load(&b, P("spec: {defaultAction: deny\n"), NULL), OUTR_OK);
    must_tell(&b.errors, "a.yaml");
    unload(&b);
    static const char *const misplaced[] = {
        "apiVersion: outrigger.io/v1\nkind: AccessPolicy\n",
        "apiVersion: dapr.io/v1alpha1\nkind: AccessPolicy\n", "kind: Authentication\n"};
    for (size_t i = 0; i < OUTR_LEN(misplaced); i++) {
        assert_int_not_equal(load(&b, misplaced[i], NULL), OUTR_OK);
        must_tell(&b.errors, "a.yaml:1:1: apiVersion: must be outrigger.io/v1alpha1");
        unload(&b);
    }
    assert_int_equal(load(&b, "apiVersion: example.org/v1\nkind: AccessPolicy\n", NULL), OUTR_OK);
    unload(&b);
    assert_int_equal(load(&b, "kind: Component\nspec: {\n", NULL), OUTR_OK);
    must_tell(&b.warnings, "the file is skipped");
    unload(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_kinds_are_read),
        cmocka_unit_test(they_are_for_the_apps_in_their_scopes),
        cmocka_unit_test(an_app_has_one_authentication),
        cmocka_unit_test(limits_that_are_not_what_they_look_like_are_warned_of),
        cmocka_unit_test(rules_about_claims_without_authentication_are_warned_of),
        cmocka_unit_test(all_mistakes_are_told_with_their_place),
        cmocka_unit_test(one_that_cannot_be_read_or_is_misplaced_is_no_warning),
        cmocka_unit_test(what_is_unknown_beside_the_spec_is_a_warning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
