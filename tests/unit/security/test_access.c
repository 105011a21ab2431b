#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <time.h>

#include "base/yaml.h"
#include "config/kinds/kinds.h"
#include "security/access.h"

typedef struct bench {
    outr_arena *arena;
    outr_err_list errors;
    outr_access_spec spec;
    outr_access *access;
} bench;

static void open_bench(bench *b, const char *text, bool is_http)
{
    outr_yaml_doc *doc;
    outr_err err;
    *b = (bench){.arena = outr_arena_new(64 * OUTR_MIB)};
    outr_binder binder = {b->arena, "acl.yaml", &b->errors, &b->errors};
    if (outr_yaml_parse(&doc, b->arena, "acl.yaml", outr_str_from(text), 200000, &err))
        fail_msg("%s", err.text);
    outr_kind_access(&binder, doc->root, &b->spec);
    if (b->errors.count > 0)
        fail_msg("%s", b->errors.items[0].text);
    b->access = outr_access_new(&b->spec, is_http);
}

static void close_bench(bench *b)
{
    outr_access_free(b->access);
    outr_err_list_done(&b->errors);
    outr_arena_free(b->arena);
}

static outr_access_verdict ask(const bench *b, const outr_identity *caller, const char *verb,
                               outr_str target, bool is_proxied)
{
    const outr_access_request request = {caller, target, outr_str_from(verb), is_proxied};
    return outr_access_judge(b->access, &request, b->arena);
}

static outr_identity identity(const char *text)
{
    outr_identity id;
    outr_err err;
    if (outr_identity_parse(&id, outr_str_from(text), &err))
        fail_msg("%s", err.text);
    return id;
}

/* "+GET /a" must be allowed, "-GET /a" must not. */
static void check(const bench *b, const outr_identity *caller, const char *const *rows,
                  bool is_proxied)
{
    for (; *rows; rows++) {
        char verb[16] = {0};
        const char *space = strchr(*rows, ' ');
        memcpy(verb, *rows + 1, (size_t)(space - *rows) - 1);
        bool is_allowed = ask(b, caller, verb, outr_str_from(space + 1), is_proxied).is_allowed;
        if (is_allowed != (**rows == '+'))
            fail_msg("%s: allowed %d", *rows, is_allowed);
    }
}

static const char rules[] = "defaultAction: deny\n"
                            "trustDomain: public\n"
                            "policies:\n"
                            "- appId: caller\n"
                            "  namespace: default\n"
                            "  trustDomain: public\n"
                            "  defaultAction: deny\n"
                            "  operations:\n"
                            "  - {name: /open/*, httpVerb: [GET], action: allow}\n"
                            "  - {name: /put, httpVerb: [PUT, POST], action: allow}\n"
                            "  - {name: any, httpVerb: ['*'], action: allow}\n"
                            "  - {name: /deep/**, httpVerb: [GET], action: allow}\n"
                            "  - {name: /item-*-x/end, httpVerb: [GET], action: allow}\n"
                            "  - {name: /Mixed/Case, httpVerb: [GET], action: allow}\n"
                            "  - {name: /verbless, action: allow}\n"
                            "- appId: trusted\n"
                            "  namespace: other\n"
                            "  trustDomain: corp\n"
                            "  defaultAction: allow\n"
                            "  operations:\n"
                            "  - {name: /admin, httpVerb: ['*'], action: deny}\n"
                            "- {appId: plain, namespace: default, trustDomain: public}\n";

static void operations_are_found_as_the_reference_finds_them(void **state)
{
    static const char *const rows[] = {
        "+GET /open/x", "-POST /open/x", "-GET /open/x/y", "+GET /open", "+GET /open/",
        "+GET /open/x?a=/../b", "-GET /opener", "+PUT /put", "+POST /put", "-GET /put",
        /* an operation covers what lies below it */
        "+PUT /put/x", "-PUT /putx", "+DELETE /any", "+PATCH /any/thing", "+GET /deep/a/b/c",
        "+GET /deep", "-GET /de", "+GET /item-1-x/end", "+GET /item--x/end", "-GET /item-x/end",
        "-GET /item-1-x/other", "+GET /mixed/CASE", "-GET /verbless", "-GET /", "-GET /other",
        NULL};
    const outr_identity caller = identity("spiffe://public/ns/default/caller");
    bench b;
    (void)state;
    open_bench(&b, rules, true);
    check(&b, &caller, rows, false);
    close_bench(&b);
}

static void callers_are_told_apart_by_their_whole_identity(void **state)
{
    static const char *const no[] = {"-GET /open/x", "-GET /any", NULL},
                             *const trusted[] = {"+GET /x", "-GET /admin", "-GET /admin/x",
                                                 "-GET /ADMIN", "+GET /", NULL};
    static const char *const others[] = {
        "spiffe://other/ns/default/caller", "spiffe://public/ns/other/caller",
        "spiffe://public/ns/default/Caller", "spiffe://public/ns/default/caller2",
        "spiffe://public/ns/other/trusted"};
    const outr_identity who = identity("spiffe://corp/ns/other/trusted");
    const outr_identity unproven = {.id = OUTR_STR("spiffe://public/ns/default/caller"),
                                    .trust_domain = OUTR_STR("public"),
                                    .namespace_ = OUTR_STR("default"),
                                    .app_id = OUTR_STR("caller")};
    bench b;
    (void)state;
    open_bench(&b, rules, true);
    for (size_t i = 0; i < OUTR_LEN(others); i++) {
        const outr_identity id = identity(others[i]);
        check(&b, &id, no, false);
        assert_false(ask(&b, &id, "GET", OUTR_STR("/any"), false).is_of_policy);
    }
    check(&b, &unproven, no, false);
    check(&b, NULL, no, false);
    check(&b, &who, trusted, false);
    assert_true(ask(&b, &who, "GET", OUTR_STR("/admin"), false).is_of_policy);
    close_bench(&b);
}

static void a_policy_without_a_default_has_that_of_all(void **state)
{
    const outr_identity plain = identity("spiffe://public/ns/default/plain");
    bench b;
    (void)state;
    open_bench(&b, "{defaultAction: Allow, policies: [{appId: plain, namespace: default, "
                   "trustDomain: public, operations: [{name: /no, httpVerb: [GET], action: Deny}]}]}",
               true);
    assert_true(ask(&b, &plain, "GET", OUTR_STR("/x"), false).is_allowed);
    assert_false(ask(&b, &plain, "GET", OUTR_STR("/x"), false).is_of_policy);
    assert_false(ask(&b, &plain, "GET", OUTR_STR("/no"), false).is_allowed);
    assert_true(ask(&b, &plain, "POST", OUTR_STR("/no"), false).is_allowed);
    assert_false(ask(&b, &plain, "NONE", OUTR_STR("/no"), false).is_allowed);
    close_bench(&b);
}

static void without_a_default_policies_mean_deny(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, "{policies: [{appId: a, namespace: n, trustDomain: t}]}", true);
    assert_false(ask(&b, NULL, "GET", OUTR_STR("/x"), false).is_allowed);
    close_bench(&b);
    open_bench(&b, "{trustDomain: public}", true);
    assert_true(b.spec.is_on);
    assert_true(ask(&b, NULL, "GET", OUTR_STR("/x"), false).is_allowed);
    close_bench(&b);
}

static void the_first_that_matches_is_taken(void **state)
{
    static const char *const rows[] = {"+GET /a/b", "+GET /a/c", "-GET /x/b", "+GET /x/c",
                                       "-GET /m/ab", "-GET /m/aab", "+GET /m/ac", NULL};
    const outr_identity id = identity("spiffe://t/ns/n/a");
    bench b;
    (void)state;
    open_bench(&b,
               "policies:\n"
               "- appId: a\n"
               "  namespace: n\n"
               "  trustDomain: t\n"
               "  operations:\n"
               "  - {name: /a/*, httpVerb: [GET], action: allow}\n"
               "  - {name: /a/b, httpVerb: [GET], action: deny}\n"
               "  - {name: /x/b, httpVerb: [GET], action: deny}\n"
               "  - {name: /x/*, httpVerb: [GET], action: allow}\n"
               "  - {name: '/m/*b', httpVerb: [GET], action: deny}\n"
               "  - {name: '/m/a*', httpVerb: [GET], action: allow}\n"
               "  - {name: '/m/ab', httpVerb: [GET], action: allow}\n",
               true);
    check(&b, &id, rows, false);
    close_bench(&b);
}

/* Pitfall 11. */
static void a_path_is_allowed_in_each_way_it_can_be_read_or_not_at_all(void **state)
{
    static const char *const rows[] = {
        "+GET /open/a%20b", "+GET /%6Fpen/x", "-GET /open/%2e%2e%2fadmin", "-GET /open/..%2Fadmin",
        "-GET /open/..%2f..%2fany", "-GET /open/%2e%2e/any", "-GET /open%2F..%2Fany",
        "-GET /open/x%2Fy", "-GET /open/%", "-GET /open/%2", "-GET /open/%zz", "-GET /open/%00",
        "-GET /open/x%0d%0a", "-GET /any/%2F%2Fx", "-GET /any%2F.%2Fx", "+GET /open/%23",
        "+GET /open/%3Fx", "+GET /any/x%2Fy", "+GET /deep/a%2Fb", "+GET /open/%252e%252e%252fadmin",
        "-GET open/x", "-GET *", NULL};
    static const char *const denied[] = {"-GET /adm%69n", "-GET /ADM%49N", "-GET /%61dmin%2Fx",
                                         "-GET /admin%2Fx", "-GET /a%2Fz", "-GET /a%2fz",
                                         "-GET /x%2F..%2Fadmin", "+GET /a/z", "+GET /x%2Fadmin",
                                         NULL};
    const outr_identity caller = identity("spiffe://public/ns/default/caller");
    bench b;
    (void)state;
    open_bench(&b, rules, true);
    check(&b, &caller, rows, false);
    close_bench(&b);
    open_bench(&b,
               "{policies: [{appId: caller, namespace: default, trustDomain: public, "
               "defaultAction: allow, operations: ["
               "{name: /admin, httpVerb: ['*'], action: deny}, "
               "{name: '/a*z', httpVerb: ['*'], action: deny}]}]}",
               true);
    check(&b, &caller, denied, false);
    assert_false(ask(&b, &caller, "get", OUTR_STR("/admin"), false).is_allowed);
    close_bench(&b);
}

static void grpc_has_no_verbs_and_its_names_have_case(void **state)
{
    static const char *const rows[] = {"+NONE /pkg.Service/Read", "-NONE /pkg.Service/Write",
                                       "-NONE /pkg.service/read", "+POST /plain",
                                       "-NONE /pkg.Service%2FRead", "-NONE /pkg.Service/Rea%64",
                                       NULL};
    static const char *const h2c[] = {"+NONE /pkg.Service/Read", "-NONE /pkg.Service/Write", NULL};
    static const char text[] =
        "{policies: [{appId: caller, namespace: default, trustDomain: public, operations: ["
        "{name: /pkg.Service/Read, action: allow}, {name: plain, httpVerb: [GET], action: allow},"
        "{name: '/pkg.Service/Rea%64', action: deny}]}]}";
    const outr_identity caller = identity("spiffe://public/ns/default/caller");
    bench b;
    (void)state;
    open_bench(&b, text, false);
    check(&b, &caller, rows, true);
    assert_true(ask(&b, &caller, "DELETE", OUTR_STR("/plain"), false).is_allowed);
    close_bench(&b);
    open_bench(&b, text, true); /* an app over h2c, called by gRPC */
    check(&b, &caller, h2c, true);
    close_bench(&b);
}

static double judge_ns(const bench *b, const outr_identity *id, outr_str target)
{
    struct timespec a, z;
    bool is_allowed = true;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < 20000; i++)
        is_allowed &= ask(b, id, "GET", target, false).is_allowed;
    clock_gettime(CLOCK_MONOTONIC, &z);
    assert_true(is_allowed);
    return ((double)(z.tv_sec - a.tv_sec) * 1e9 + (double)(z.tv_nsec - a.tv_nsec)) / 20000;
}

/* Not a benchmark (tests/bench has those): with a thousand times the rules, far from a thousand
 * times the time, under sanitizers too. */
static void many_rules_take_no_longer(void **state)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    const outr_identity id = identity("spiffe://t/ns/n/a");
    double one, many;
    bench b;
    (void)state;
    for (int count = 1; count <= 1000; count += 999) {
        outr_buf_drop(&text, text.n);
        outr_buf_z(&text, "policies:\n- appId: a\n  namespace: n\n  trustDomain: t\n"
                          "  operations:\n");
        for (int i = 0; i < count; i++)
            outr_buf_printf(&text,
                            "  - {name: '/api/res%d/*', httpVerb: [GET], action: allow}\n"
                            "  - {name: '/glob/pre%d-*', httpVerb: [GET], action: allow}\n"
                            "  - {name: '/glob/*-post%d', httpVerb: [GET], action: allow}\n",
                            i, i, i);
        outr_buf_char(&text, 0);
        open_bench(&b, text.p, true);
        double ns = judge_ns(&b, &id, count == 1 ? OUTR_STR("/api/res0/x")
                                                 : OUTR_STR("/api/res999/x")) +
                    judge_ns(&b, &id, count == 1 ? OUTR_STR("/glob/x-post0")
                                                 : OUTR_STR("/glob/x-post999")) +
                    judge_ns(&b, &id, count == 1 ? OUTR_STR("/glob/pre0-x")
                                                 : OUTR_STR("/glob/pre999-x"));
        *(count == 1 ? &one : &many) = ns / 3;
        close_bench(&b);
    }
    print_message("one rule %.0f ns, a thousand %.0f ns\n", one, many);
    assert_true(many < one * 20 + 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_are_found_as_the_reference_finds_them),
        cmocka_unit_test(callers_are_told_apart_by_their_whole_identity),
        cmocka_unit_test(a_policy_without_a_default_has_that_of_all),
        cmocka_unit_test(without_a_default_policies_mean_deny),
        cmocka_unit_test(the_first_that_matches_is_taken),
        cmocka_unit_test(a_path_is_allowed_in_each_way_it_can_be_read_or_not_at_all),
        cmocka_unit_test(grpc_has_no_verbs_and_its_names_have_case),
        cmocka_unit_test(many_rules_take_no_longer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
