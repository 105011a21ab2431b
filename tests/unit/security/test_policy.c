#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/yaml.h"
#include "config/kinds/kinds.h"
#include "security/policy.h"

#define POLICIES_MAX 4

typedef struct bench {
    outr_arena *arena;
    outr_err_list errors;
    outr_policy_spec specs[POLICIES_MAX];
    size_t count;
    outr_access_spec access;
    outr_policy *policy;
} bench;

static void read_spec(bench *b, const char *name, const char *text)
{
    outr_yaml_doc *doc;
    outr_err err;
    outr_binder binder = {b->arena, "policy.yaml", &b->errors, &b->errors};
    const outr_kind_env env = {&binder, NULL, OUTR_STR_NONE};
    if (outr_yaml_parse(&doc, b->arena, "policy.yaml", outr_str_from(text), 1000000, &err))
        fail_msg("%s", err.text);
    outr_policy_spec *spec = &b->specs[b->count++];
    spec->base.name = outr_str_from(name);
    outr_kind_policy(&env, doc->root, spec);
    if (b->errors.count > 0)
        fail_msg("%s", b->errors.items[0].text);
}

/* Up to NULL: specs, named "a", "b", ... */
static void open_bench(bench *b, bool is_http, const char *const *specs)
{
    static const char *const names[POLICIES_MAX] = {"a", "b", "c", "d"};
    outr_arena *arena = b->arena ? b->arena : outr_arena_new(256 * OUTR_MIB);
    const outr_access_spec access = b->access;
    *b = (bench){.arena = arena, .access = access};
    for (; *specs; specs++)
        read_spec(b, names[b->count], *specs);
    b->policy = outr_policy_new(&b->access, b->specs, b->count, is_http);
}

static void close_bench(bench *b)
{
    outr_policy_free(b->policy);
    outr_err_list_done(&b->errors);
    outr_arena_free(b->arena);
}

static outr_claims *claims_of(const bench *b, const char *json)
{
    outr_json *object;
    outr_err err;
    if (outr_json_parse(&object, b->arena, outr_str_from(json), &err))
        fail_msg("%s: %s", json, err.text);
    return outr_claims_new(object, b->arena);
}

/* Who calls, what he shows and wants, and what comes of it: "+" or "-", the policy and rule that
 * said so, "~" and those that would have refused, "!" and those that audited. */
typedef struct row {
    const char *caller; /* SPIFFE id, or NULL */
    const char *claims; /* JSON, or NULL */
    const char *verb, *target;
    const char *wanted;
    bool is_proxied;
} row;

static void add_ref(outr_buf *out, const char *mark, outr_policy_ref ref)
{
    if (ref.rule.p)
        outr_buf_printf(out, "%s" OUTR_FMT "/" OUTR_FMT, mark, OUTR_ARG(ref.policy),
                        OUTR_ARG(ref.rule));
}

static void check(const bench *b, const row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const row *r = &rows[i];
        OUTR_AUTO(outr_buf) got = OUTR_BUF_MAX(OUTR_KIB);
        outr_identity who = {0};
        outr_err err;
        if (r->caller && outr_identity_parse(&who, outr_str_from(r->caller), &err))
            fail_msg("%s", err.text);
        outr_claims *claims = r->claims ? claims_of(b, r->claims) : NULL;
        const outr_policy_request request = {&who, claims, outr_str_from(r->target),
                                             outr_str_from(r->verb), r->is_proxied};
        outr_policy_verdict v = outr_policy_judge(b->policy, &request, b->arena);
        add_ref(&got, v.is_allowed ? "+" : "-", v.by);
        if (!v.by.rule.p)
            outr_buf_z(&got, v.is_allowed ? "+" : "-");
        add_ref(&got, "~", v.shadow);
        add_ref(&got, "!", v.audited);
        if (!outr_str_is(outr_buf_view(&got), r->wanted))
            fail_msg("%zu: %s %s %s %s: " OUTR_FMT ", not %s", i, r->caller ? r->caller : "nobody",
                     r->claims ? r->claims : "", r->verb, r->target, OUTR_ARG(outr_buf_view(&got)),
                     r->wanted);
        outr_claims_unref(claims);
    }
}

#define CHECK(b, rows) check(b, rows, OUTR_LEN(rows))
#define A              "spiffe://public/ns/default/a"
#define B              "spiffe://public/ns/default/b"
#define A_PROD         "spiffe://public/ns/prod/a"
#define A_OTHER        "spiffe://other/ns/default/a"

static void callers_are_matched_by_any_of_their_names(void **state)
{
    static const char *const specs[] = {
        "spec:\n"
        "  defaultAction: deny\n"
        "  rules:\n"
        "  - {name: app, action: allow, from: [{appId: a, namespace: default, trustDomain: public}],\n"
        "     paths: [/app]}\n"
        "  - {name: ns, action: ALLOW, from: [{namespace: prod}], paths: [/ns]}\n"
        "  - {name: td, action: Allow, from: [{trustDomain: other}], paths: [/td]}\n"
        "  - {name: two, action: allow, from: [{appId: b}, {appId: a, namespace: prod}], paths: [/two]}\n"
        "  - {name: known, action: allow, from: [{appId: '*'}], paths: [/known]}\n"
        "  - {name: any, action: allow, paths: [/any]}\n",
        NULL};
    static const row rows[] = {
        {A, NULL, "GET", "/app", "+a/app", false},
        {A_PROD, NULL, "GET", "/app", "-a/default", false},
        {A_OTHER, NULL, "GET", "/app", "-a/default", false},
        {B, NULL, "GET", "/app", "-a/default", false},
        {A_PROD, NULL, "GET", "/ns", "+a/ns", false},
        {A, NULL, "GET", "/ns", "-a/default", false},
        {A_OTHER, NULL, "GET", "/td", "+a/td", false},
        {A, NULL, "GET", "/td", "-a/default", false},
        {B, NULL, "GET", "/two", "+a/two", false},
        {A_PROD, NULL, "GET", "/two", "+a/two", false},
        {A, NULL, "GET", "/two", "-a/default", false},
        {B, NULL, "GET", "/known", "+a/known", false},
        {NULL, NULL, "GET", "/known", "-a/default", false},
        {NULL, NULL, "GET", "/app", "-a/default", false},
        {NULL, NULL, "GET", "/any", "+a/any", false},
    };
    bench b = {0};
    (void)state;
    open_bench(&b, true, specs);
    CHECK(&b, rows);
    close_bench(&b);
}

static void paths_are_matched_as_they_may_be_read(void **state)
{
    static const char *const specs[] = {
        "spec:\n"
        "  defaultAction: deny\n"
        "  rules:\n"
        "  - {name: exact, action: allow, paths: [/exact, /Upper/Case, /]}\n"
        "  - {name: one, action: allow, paths: [/one/*]}\n"
        "  - {name: below, action: allow, paths: [/below/**]}\n"
        "  - {name: middle, action: allow, paths: [/m/*/end]}\n"
        "  - {name: glob, action: allow, paths: [/g/*.txt, /g/x*y, /h-*/z]}\n"
        "  - {name: no, action: deny, paths: [/below/secret/**, /one/no]}\n",
        NULL};
    static const row rows[] = {
        {NULL, NULL, "GET", "/", "+a/exact", false},
        {NULL, NULL, "GET", "/exact", "+a/exact", false},
        {NULL, NULL, "GET", "/exact/", "+a/exact", false},
        {NULL, NULL, "GET", "/exact?q=/x", "+a/exact", false},
        {NULL, NULL, "GET", "/EXACT", "+a/exact", false},
        {NULL, NULL, "GET", "/upper/case", "+a/exact", false},
        {NULL, NULL, "GET", "/%65xact", "+a/exact", false},
        {NULL, NULL, "GET", "/exact/x", "-a/default", false},
        {NULL, NULL, "GET", "/exac", "-a/default", false},
        {NULL, NULL, "GET", "/one/x", "+a/one", false},
        {NULL, NULL, "GET", "/one", "-a/default", false},
        {NULL, NULL, "GET", "/one/", "-a/default", false},
        {NULL, NULL, "GET", "/one/x/y", "-a/default", false},
        {NULL, NULL, "GET", "/one/x%2Fy", "-a/default", false},
        {NULL, NULL, "GET", "/one/*", "+a/one", false},
        {NULL, NULL, "GET", "/one/no", "-a/no", false},
        {NULL, NULL, "GET", "/one/NO", "-a/no", false},
        {NULL, NULL, "GET", "/one/n%6f", "-a/no", false},
        {NULL, NULL, "GET", "/below", "+a/below", false},
        {NULL, NULL, "GET", "/below/a/b/c", "+a/below", false},
        {NULL, NULL, "GET", "/below/secret", "-a/no", false},
        {NULL, NULL, "GET", "/below/secret/x", "-a/no", false},
        {NULL, NULL, "GET", "/below/secret%2Fx", "-a/no", false},
        {NULL, NULL, "GET", "/below/**", "+a/below", false},
        {NULL, NULL, "GET", "/belowx", "-a/default", false},
        {NULL, NULL, "GET", "/m/x/end", "+a/middle", false},
        {NULL, NULL, "GET", "/m/x/y/end", "-a/default", false},
        {NULL, NULL, "GET", "/g/a.txt", "+a/glob", false},
        {NULL, NULL, "GET", "/g/xay", "+a/glob", false},
        {NULL, NULL, "GET", "/g/xy", "+a/glob", false},
        {NULL, NULL, "GET", "/g/x", "-a/default", false},
        {NULL, NULL, "GET", "/h-1/z", "+a/glob", false},
        {NULL, NULL, "GET", "/below/..%2Fx", "--/path", false},
        {NULL, NULL, "GET", "/below/%2e%2e/x", "--/path", false},
        {NULL, NULL, "GET", "/below/%00", "--/path", false},
        {NULL, NULL, "GET", "/below/%", "--/path", false},
        {NULL, NULL, "GET", "x", "--/path", false},
    };
    bench b = {0};
    (void)state;
    open_bench(&b, true, specs);
    CHECK(&b, rows);
    close_bench(&b);
}

static void verbs_and_protocols_are_matched(void **state)
{
    static const char *const specs[] = {
        "spec:\n"
        "  defaultAction: deny\n"
        "  rules:\n"
        "  - {name: read, action: allow, methods: [GET, HEAD]}\n"
        "  - {name: rpc, action: allow, protocols: [grpc], paths: [/pkg.Service/Get, /other.S/*]}\n"
        "  - {name: post, action: allow, methods: [POST], paths: [/both]}\n"
        "  - {name: web, action: allow, protocols: [http], methods: [PUT]}\n"
        "  - {name: none, action: allow, paths: [/none]}\n",
        NULL};
    static const row rows[] = {
        {NULL, NULL, "GET", "/x", "+a/read", false},
        {NULL, NULL, "get", "/x", "+a/read", false}, /* an app may take it for GET */
        {NULL, NULL, "HEAD", "/x", "+a/read", false},
        {NULL, NULL, "POST", "/x", "-a/default", false},
        {NULL, NULL, "PURGE", "/x", "-a/default", false},
        {NULL, NULL, "PUT", "/x", "+a/web", false},
        {NULL, NULL, "PUT", "/x", "-a/default", true},
        {NULL, NULL, "POST", "/both", "+a/post", true}, /* a gRPC call is one */
        {NULL, NULL, "GET", "/x", "-a/default", true},  /* whatever it says */
        {NULL, NULL, "POST", "/pkg.Service/Get", "+a/rpc", true},
        {NULL, NULL, "POST", "/pkg.Service/Get", "-a/default", false},
        {NULL, NULL, "POST", "/pkg.service/Get", "-a/default", true}, /* case counts */
        {NULL, NULL, "POST", "/pkg.Service/Ge%74", "-a/default", true},
        {NULL, NULL, "POST", "/other.S/Any", "+a/rpc", true},
        {NULL, NULL, "NONE", "/none", "+a/none", false},
        {NULL, NULL, "NONE", "/both", "-a/default", false},
    };
    bench b = {0};
    (void)state;
    open_bench(&b, false, specs);
    CHECK(&b, rows);
    close_bench(&b);
}

static void all_claims_of_a_rule_must_be_said(void **state)
{
    static const char *const specs[] = {
        "spec:\n"
        "  defaultAction: deny\n"
        "  rules:\n"
        "  - {name: admin, action: allow, claims: [{name: role, values: [admin, root]}]}\n"
        "  - {name: both, action: allow, paths: [/both],\n"
        "     claims: [{name: role, values: [user]}, {name: realm.team, values: [x]}, {name: sub}]}\n"
        "  - {name: there, action: allow, paths: [/there], claims: [{name: sub}]}\n"
        "  - {name: banned, action: deny, claims: [{name: sub, values: [eve]}]}\n"
        "  - {name: scope, action: allow, paths: [/scope], claims: [{name: scope, values: [write]}]}\n"
        "  - {name: twice, action: allow, paths: [/twice],\n"
        "     claims: [{name: role, values: [a, b]}, {name: role, values: [c]}]}\n",
        NULL};
    static const row rows[] = {
        {NULL, NULL, "GET", "/x", "-a/default", false},
        {NULL, "{}", "GET", "/x", "-a/default", false},
        {NULL, "{\"role\":\"admin\"}", "GET", "/x", "+a/admin", false},
        {NULL, "{\"role\":[\"x\",\"root\"]}", "GET", "/x", "+a/admin", false},
        {NULL, "{\"role\":\"Admin\"}", "GET", "/x", "-a/default", false},
        {NULL, "{\"role\":\"user\"}", "GET", "/both", "-a/default", false},
        {NULL, "{\"role\":\"user\",\"sub\":\"joe\"}", "GET", "/both", "-a/default", false},
        {NULL, "{\"role\":\"user\",\"sub\":\"joe\",\"realm\":{\"team\":\"y\"}}", "GET", "/both",
         "-a/default", false},
        {NULL, "{\"role\":\"user\",\"sub\":\"joe\",\"realm\":{\"team\":\"x\"}}", "GET", "/both",
         "+a/both", false},
        {NULL, "{\"sub\":\"\"}", "GET", "/there", "+a/there", false},
        {NULL, "{\"sub\":null}", "GET", "/there", "-a/default", false},
        {NULL, "{\"role\":\"admin\",\"sub\":\"eve\"}", "GET", "/x", "-a/banned", false},
        {NULL, "{\"scope\":\"read write\"}", "GET", "/scope", "+a/scope", false},
        {NULL, "{\"scope\":\"read writes\"}", "GET", "/scope", "-a/default", false},
        {NULL, "{\"role\":[\"b\",\"c\"]}", "GET", "/twice", "+a/twice", false},
        {NULL, "{\"role\":[\"a\",\"b\"]}", "GET", "/twice", "-a/default", false},
        {NULL, "{\"role\":\"c\"}", "GET", "/twice", "-a/default", false},
    };
    bench b = {0};
    (void)state;
    open_bench(&b, true, specs);
    CHECK(&b, rows);
    close_bench(&b);
}

static void deny_comes_first_over_all_policies(void **state)
{
    static const char *const specs[] = {
        "spec:\n"
        "  defaultAction: allow\n"
        "  rules:\n"
        "  - {name: in, action: allow, paths: [/x]}\n",
        "spec:\n"
        "  defaultAction: deny\n"
        "  rules:\n"
        "  - {name: out, action: deny, from: [{appId: b}]}\n"
        "  - {action: allow, paths: [/y]}\n"
        "  - {name: look, action: audit, from: [{appId: '*'}], paths: [/x, /z]}\n",
        NULL};
    static const row rows[] = {
        {A, NULL, "GET", "/x", "+a/in!b/look", false},
        {B, NULL, "GET", "/x", "-b/out!b/look", false},
        {A, NULL, "GET", "/y", "+b/#2", false},
        {A, NULL, "GET", "/z", "-b/default!b/look", false},
        {NULL, NULL, "GET", "/x", "+a/in", false},
    };
    bench b = {0};
    (void)state;
    open_bench(&b, true, specs);
    CHECK(&b, rows);
    close_bench(&b);
}

static void a_policy_in_shadow_decides_nothing(void **state)
{
    static const char *const both[] = {"spec:\n"
                                       "  defaultAction: allow\n"
                                       "  rules:\n"
                                       "  - {name: in, action: allow, paths: [/in]}\n"
                                       "  - {name: out, action: deny, paths: [/out]}\n",
                                       "spec:\n"
                                       "  mode: shadow\n"
                                       "  defaultAction: deny\n"
                                       "  rules:\n"
                                       "  - {name: no, action: deny, from: [{appId: b}]}\n"
                                       "  - {name: yes, action: allow, paths: [/yes]}\n",
                                       NULL};
    static const row rows[] = {
        {A, NULL, "GET", "/in", "+a/in", false},
        {B, NULL, "GET", "/in", "+a/in~b/no", false},
        {A, NULL, "GET", "/yes", "+", false},
        {A, NULL, "GET", "/else", "+~b/default", false},
        {B, NULL, "GET", "/yes", "+~b/no", false},
        {B, NULL, "GET", "/out", "-a/out", false},
    };
    static const row alone[] = {
        {A, NULL, "GET", "/yes", "+", false},
        {A, NULL, "GET", "/x", "+~a/default", false},
        {A, NULL, "GET", "/yes/%2e%2e", "+~-/path", false},
    };
    bench b = {0};
    (void)state;
    open_bench(&b, true, both);
    CHECK(&b, rows);
    close_bench(&b);
    b = (bench){0};
    open_bench(&b, true, both + 1);
    CHECK(&b, alone);
    close_bench(&b);
}

static void access_control_must_let_it_in_as_well(void **state)
{
    static const char *const specs[] = {"spec:\n"
                                        "  defaultAction: allow\n"
                                        "  rules:\n"
                                        "  - {name: out, action: deny, paths: [/out]}\n"
                                        "  - {name: in, action: allow, paths: [/in]}\n",
                                        NULL};
    static const outr_access_operation operations[] = {{.name = {"/ok", 3}, .is_allowed = true},
                                                       {.name = {"/out", 4}, .is_allowed = true}};
    static const outr_access_caller callers[] = {{.app_id = {"a", 1},
                                                  .namespace_ = {"default", 7},
                                                  .trust_domain = {"public", 6},
                                                  .operations = operations,
                                                  .operation_count = 2}};
    static const row rows[] = {
        {A, NULL, "GRPC", "/ok", "+", true},
        {A, NULL, "GRPC", "/out", "-a/out", true},
        {A, NULL, "GRPC", "/in", "-", true}, /* by spec.accessControl */
        {B, NULL, "GRPC", "/ok", "-", true},
    };
    bench b = {.access = {.is_on = true, .callers = callers, .caller_count = 1}};
    (void)state;
    open_bench(&b, false, specs);
    CHECK(&b, rows);
    close_bench(&b);
    static const char *const none[] = {NULL};
    b = (bench){.access = {.is_on = true, .callers = callers, .caller_count = 1}};
    open_bench(&b, false, none);
    static const row bare[] = {{A, NULL, "GRPC", "/ok", "+", true},
                               {A, NULL, "GRPC", "/no", "-", true}};
    CHECK(&b, bare);
    close_bench(&b);
}

/* Sets turn from lists to bits as they grow; each rule must be found in either form. */
static void a_thousand_rules_are_told_apart(void **state)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(8 * OUTR_MIB);
    bench b = {0};
    (void)state;
    outr_buf_z(&text, "spec:\n  defaultAction: deny\n  rules:\n");
    for (int i = 0; i < 1000; i++)
        outr_buf_printf(&text,
                        "  - {name: r%d, action: allow, from: [{appId: a%d}, {namespace: n%d}], "
                        "paths: [/p/%d/**, /q/*-%d], methods: [%s], claims: [{name: c, values: [v%d]}]}\n",
                        i, i % 100, i, i % 10, i, i % 2 ? "GET" : "POST", i % 7);
    outr_buf_char(&text, 0);
    const char *const specs[] = {text.p, NULL};
    open_bench(&b, true, specs);
    for (int i = 0; i < 1000; i++) {
        char caller[64], claims[32], path[32], wanted[16];
        snprintf(claims, sizeof claims, "{\"c\":\"v%d\"}", i % 7);
        snprintf(caller, sizeof caller, "spiffe://public/ns/n%d/x", i);
        snprintf(path, sizeof path, "/p/%d/deep/er", i % 10);
        snprintf(wanted, sizeof wanted, "+a/r%d", i);
        const row rows[] = {{caller, claims, i % 2 ? "GET" : "POST", path, wanted, false},
                            {caller, claims, i % 2 ? "POST" : "GET", path, "-a/default", false},
                            {caller, "{\"c\":\"v9\"}", i % 2 ? "GET" : "POST", path, "-a/default",
                             false}};
        CHECK(&b, rows);
        /* of ten rules with that app, the one with that tail of the path */
        snprintf(caller, sizeof caller, "spiffe://public/ns/x/a%d", i % 100);
        snprintf(path, sizeof path, "/q/x-%d", i);
        const row again[] = {{caller, claims, i % 2 ? "GET" : "POST", path, wanted, false}};
        CHECK(&b, again);
    }
    close_bench(&b);
}

/* No name is as long, and a rule that gives one is nobody's; at each length, for where the three
 * names and what stands between them just fit is one too many a byte later. */
static void names_of_any_length_are_nobodys(void **state)
{
    (void)state;
    char name[OUTR_SPIFFE_MAX + 8];
    memset(name, 'a', sizeof name);
    for (size_t n = OUTR_SPIFFE_MAX - 8; n <= sizeof name; n++) {
        for (size_t which = 0; which < 3; which++) {
            outr_policy_caller caller = {.app_id = OUTR_STR("bbbbbbbb"),
                                         .namespace_ = OUTR_STR("cccccccc"),
                                         .trust_domain = OUTR_STR("dddddddd")};
            outr_str *const parts[] = {&caller.app_id, &caller.namespace_, &caller.trust_domain};
            *parts[which] = outr_str_of(name, n);
            const outr_policy_rule rule = {.name = OUTR_STR("long"),
                                           .action = OUTR_POLICY_ALLOW,
                                           .callers = &caller,
                                           .caller_count = 1,
                                           .over_http = true};
            const outr_policy_spec spec = {.rules = &rule, .rule_count = 1};
            bench b = {.arena = outr_arena_new(OUTR_MIB)};
            b.policy = outr_policy_new(NULL, &spec, 1, true);
            const row rows[] = {{A, NULL, "GET", "/x", "-/default", false}};
            CHECK(&b, rows);
            close_bench(&b);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(callers_are_matched_by_any_of_their_names),
        cmocka_unit_test(paths_are_matched_as_they_may_be_read),
        cmocka_unit_test(verbs_and_protocols_are_matched),
        cmocka_unit_test(all_claims_of_a_rule_must_be_said),
        cmocka_unit_test(deny_comes_first_over_all_policies),
        cmocka_unit_test(a_policy_in_shadow_decides_nothing),
        cmocka_unit_test(access_control_must_let_it_in_as_well),
        cmocka_unit_test(a_thousand_rules_are_told_apart),
        cmocka_unit_test(names_of_any_length_are_nobodys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
