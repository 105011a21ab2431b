#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/labels.h"
#include "mesh/route.h"
#include "unit/config/kind.h"

#define DOCUMENT "apiVersion: outrigger.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: t}\nspec:\n"
#define SUBSETS  "  subsets: [{name: v1, labels: {version: 1}}, {name: v2, labels: {version: 2}}]\n"

typedef struct world {
    bench benches[4];
    outr_traffic_spec policies[4];
    size_t count;
    outr_routes *routes;
    outr_arena *arena;
    outr_rand rand;
    outr_route_request request;
    outr_headers headers;
    outr_kvs own;
} world;

static void add_policy(world *w, const char *spec)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(16 * OUTR_MIB);
    bench *b = &w->benches[w->count];
    outr_yaml_doc *doc;
    outr_err err;
    outr_buf_printf(&text, "%s", DOCUMENT);
    outr_buf_z(&text, spec);
    *b = (bench){.arena = outr_arena_new(64 * OUTR_MIB)};
    b->binder = (outr_binder){b->arena, "file.yaml", &b->errors, &b->warnings};
    b->env.binder = &b->binder;
    /* the bench keeps the text */
    if (outr_yaml_parse(&doc, b->arena, "file.yaml",
                        outr_arena_str(b->arena, outr_buf_view(&text)), 1000000, &err))
        fail_msg("%s", err.text);
    outr_kind_traffic(&b->env, doc->root, 0, &w->policies[w->count++]);
    assert_clean(b);
}

static void open_world(world *w, const char *first, const char *second)
{
    *w = (world){.arena = outr_arena_new(16 * OUTR_MIB)};
    outr_rand_seed(&w->rand, 7);
    add_policy(w, first);
    if (second)
        add_policy(w, second);
    w->routes = outr_routes_new(w->policies, w->count);
    outr_headers_init(&w->headers, w->arena);
    w->request = (outr_route_request){.app_id = OUTR_STR("orders"),
                                      .namespace_ = OUTR_STR("default"),
                                      .source = OUTR_STR("web"),
                                      .method = OUTR_STR("GET"),
                                      .target = OUTR_STR("/"),
                                      .headers = &w->headers};
}

static void close_world(world *w)
{
    outr_routes_free(w->routes);
    for (size_t i = 0; i < w->count; i++)
        close_bench(&w->benches[i]);
    outr_arena_free(w->arena);
}

static outr_route_choice choose(world *w)
{
    return outr_routes_choose(w->routes, &w->request, &w->own, &w->rand, w->arena);
}

static void ask(world *w, const char *target, const char *wanted)
{
    w->request.target = outr_str_from(target);
    outr_route_choice c = choose(w);
    outr_str name = c.route ? c.route->name : OUTR_STR("");
    if (!outr_str_is(name, wanted))
        fail_msg("%s goes by \"" OUTR_FMT "\", not by \"%s\"", target, OUTR_ARG(name), wanted);
}

static outr_mismatch mismatch(world *w, const outr_traffic_match *match)
{
    outr_route_question question;
    outr_route_question_init(&question, &w->request, w->arena);
    return outr_traffic_mismatch(match, &question);
}

static void header(world *w, const char *name, const char *value)
{
    outr_headers_add(&w->headers, outr_str_from(name), outr_str_from(value));
}

/* ---- which route ----------------------------------------------------------------------------- */

static void the_most_specific_path_is_taken(void **state)
{
    world w;
    (void)state;
    open_world(&w,
               "  routes:\n"
               "  - {name: all}\n"
               "  - {name: regex, match: [{path: {regex: '/a.*'}}]}\n"
               "  - {name: root, match: [{path: {prefix: /}}]}\n"
               "  - {name: a, match: [{path: {prefix: /a}}]}\n"
               "  - {name: ab, match: [{path: {prefix: /a/b/}}]}\n"
               "  - {name: exact, match: [{path: {exact: /a/b}}, {path: {exact: '/x y'}}]}\n",
               NULL);
    ask(&w, "/a/b", "exact");
    ask(&w, "/a/b?c=/d", "exact");
    ask(&w, "/x%20y", "exact");
    ask(&w, "/a/b/", "ab");
    ask(&w, "/a/b/c", "ab");
    ask(&w, "/a/bc", "a");
    ask(&w, "/a", "a");
    ask(&w, "/a?x", "a");
    ask(&w, "/ab", "root");
    ask(&w, "/", "root");
    ask(&w, "*", "all");
    close_world(&w);
    open_world(&w, "  routes: [{name: r, match: [{path: {regex: '/a/[0-9]+'}}]}]\n", NULL);
    ask(&w, "/a/12", "r");
    ask(&w, "/a/12/b", "");
    ask(&w, "/b/a/12", "");
    close_world(&w);
}

static void then_method_headers_query_and_the_rest(void **state)
{
    world w;
    (void)state;
    open_world(&w,
               "  routes:\n"
               "  - {name: source, match: [{sources: [web]}]}\n"
               "  - {name: claim, match: [{claims: [{name: role, exact: dev}]}]}\n"
               "  - {name: baggage, match: [{baggage: [{name: tier, prefix: go}]}]}\n"
               "  - {name: query, match: [{query: [{name: q, exact: 'a b'}]}]}\n"
               "  - {name: header, match: [{headers: [{name: X-User, exact: ann}]}]}\n"
               "  - {name: two, match: [{headers: [{name: x-user}, {name: x-b, regex: '1|2'}]}]}\n"
               "  - {name: method, match: [{methods: [POST, PUT]}]}\n"
               "  - {name: path, match: [{path: {prefix: /p}}]}\n",
               NULL);
    ask(&w, "/", "source");
    w.request.source = OUTR_STR("other");
    ask(&w, "/", "");
    outr_json *said;
    assert_int_equal(
        outr_json_parse(&said, w.arena, OUTR_STR("{\"role\":[\"user\",\"dev\"]}"), NULL), OUTR_OK);
    outr_claims *claims = outr_claims_new(said, w.arena);
    w.request.claims = claims;
    ask(&w, "/", "claim");
    header(&w, "baggage", "x=1,tier=gold");
    ask(&w, "/", "baggage");
    ask(&w, "/?q=a+b", "query");
    ask(&w, "/?x&%71=a%20b", "query");
    header(&w, "X-USER", "joe");
    header(&w, "x-user", "ann");
    ask(&w, "/?q=a+b", "header");
    header(&w, "x-b", "2");
    ask(&w, "/", "two");
    w.request.method = OUTR_STR("PUT");
    ask(&w, "/", "method");
    ask(&w, "/p", "path");
    outr_claims_unref(claims);
    close_world(&w);
}

static void of_equal_ones_the_first_and_the_one_that_names_the_callee(void **state)
{
    world w;
    (void)state;
    open_world(&w,
               "  routes:\n"
               "  - {name: all}\n"
               "  - {name: all-a, match: [{path: {prefix: /a}}]}\n"
               "  - {name: all-a-2, match: [{path: {prefix: /a}}]}\n"
               "  - {name: all-b, match: [{path: {exact: /b}}]}\n",
               "  targets: [orders, cart.prod]\n"
               "  routes:\n"
               "  - {name: own-a, match: [{path: {prefix: /a}}]}\n"
               "  - {name: own-b, match: [{path: {prefix: /b}}]}\n");
    ask(&w, "/a", "own-a");
    ask(&w, "/b", "all-b");
    ask(&w, "/b/c", "own-b");
    ask(&w, "/", "all");
    w.request.app_id = OUTR_STR("cart");
    ask(&w, "/a", "all-a");
    w.request.namespace_ = OUTR_STR("prod");
    ask(&w, "/a", "own-a");
    w.request.app_id = OUTR_STR("nobody");
    ask(&w, "/a", "all-a");
    close_world(&w);
}

static void what_does_not_hold_is_told(void **state)
{
    world w;
    (void)state;
    open_world(&w,
               "  routes: [{match: [{path: {prefix: /a}, methods: [GET], headers: [{name: x}]}]}]\n",
               NULL);
    const outr_traffic_match *m = &w.policies[0].routes[0].matches[0];
    outr_mismatch miss = mismatch(&w, m);
    assert_string_equal(miss.what, "path");
    w.request.target = OUTR_STR("/a/b");
    miss = mismatch(&w, m);
    assert_string_equal(miss.what, "headers");
    assert_text(miss.name, "x");
    header(&w, "X", "");
    assert_null(mismatch(&w, m).what);
    w.request.method = OUTR_STR("POST");
    assert_string_equal(mismatch(&w, m).what, "methods");
    close_world(&w);
}

/* ---- the table and the plain reading of the rules agree -------------------------------------- */

static size_t rank_of(const outr_traffic_match *m, size_t at)
{
    const size_t counts[] = {m->header_count, m->query_count, m->baggage_count, 0,
                             m->source_count > 0};
    return at < OUTR_LEN(counts) ? counts[at] : 0;
}

/* True: a goes before b, as route.h says. */
static bool goes_before(const outr_traffic_match *a, const outr_traffic_match *b)
{
    const int path_a = !a->has_path ? 0 : a->path.has_exact ? 3 : a->path.has_prefix ? 2 : 1;
    const int path_b = !b->has_path ? 0 : b->path.has_exact ? 3 : b->path.has_prefix ? 2 : 1;
    if (path_a != path_b)
        return path_a > path_b;
    if (path_a == 2 && a->path.prefix.n != b->path.prefix.n)
        return a->path.prefix.n > b->path.prefix.n;
    if ((a->method_count > 0) != (b->method_count > 0))
        return a->method_count > 0;
    for (size_t i = 0; i < 5; i++) {
        if (rank_of(a, i) != rank_of(b, i))
            return rank_of(a, i) > rank_of(b, i);
    }
    return false;
}

static const outr_route_spec *read_plainly(world *w)
{
    const outr_route_spec *best = NULL;
    const outr_traffic_match *match = NULL;
    for (size_t i = 0; i < w->policies[0].route_count; i++) {
        const outr_route_spec *r = &w->policies[0].routes[i];
        for (size_t m = 0; m < r->match_count; m++) {
            if (!mismatch(w, &r->matches[m]).what &&
                (!match || goes_before(&r->matches[m], match))) {
                best = r;
                match = &r->matches[m];
            }
        }
    }
    return best;
}

static void put_match(outr_buf *out, outr_rand *rand)
{
    static const char *const paths[] = {"exact: /a", "prefix: /a", "prefix: /a/b", "exact: /a/b/c",
                                        "prefix: /", "regex: '/a.*'"};
    outr_buf_z(out, "{");
    if (outr_rand_below(rand, 4))
        outr_buf_printf(out, "path: {%s}, ", paths[outr_rand_below(rand, OUTR_LEN(paths))]);
    if (outr_rand_below(rand, 4) == 0)
        outr_buf_printf(out, "methods: [%s], ", outr_rand_below(rand, 2) ? "GET" : "POST");
    if (outr_rand_below(rand, 2))
        outr_buf_printf(out, "headers: [{name: h%u, exact: '%u'}], ",
                        (unsigned)outr_rand_below(rand, 12), (unsigned)outr_rand_below(rand, 3));
    if (outr_rand_below(rand, 3) == 0)
        outr_buf_printf(out, "query: [{name: q, exact: '%u'}], ", (unsigned)outr_rand_below(rand, 3));
    if (outr_rand_below(rand, 3) == 0)
        outr_buf_printf(out, "baggage: [{name: b, exact: '%u'}], ",
                        (unsigned)outr_rand_below(rand, 3));
    outr_buf_printf(out, "sources: [%s]}", outr_rand_below(rand, 3) ? "web" : "other");
}

static void the_table_finds_what_reading_the_rules_one_by_one_finds(void **state)
{
    static const char *const targets[] = {"/a",      "/a?q=1",     "/a/b?q=0", "/a/b/c?q=2",
                                          "/a/b/cd", "/x?q=0&q=1", "/"};
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
        outr_rand rand;
        world w;
        outr_rand_seed(&rand, seed);
        outr_buf_z(&text, "  routes:\n");
        for (size_t i = 0; i < 60; i++) {
            outr_buf_z(&text, "  - match: [");
            put_match(&text, &rand);
            if (outr_rand_below(&rand, 2)) {
                outr_buf_z(&text, ", ");
                put_match(&text, &rand);
            }
            outr_buf_z(&text, "]\n");
        }
        outr_buf_char(&text, 0);
        open_world(&w, text.p, NULL);
        for (size_t i = 0; i < 200; i++) {
            outr_headers_init(&w.headers, w.arena);
            for (int h = 0; h < 3; h++)
                outr_headers_add(&w.headers,
                                 outr_arena_printf(w.arena, "H%u",
                                                   (unsigned)outr_rand_below(&rand, 12)),
                                 outr_arena_printf(w.arena, "%u",
                                                   (unsigned)outr_rand_below(&rand, 3)));
            outr_headers_add(&w.headers, OUTR_STR("baggage"),
                             outr_arena_printf(w.arena, "a=1,b=%u",
                                               (unsigned)outr_rand_below(&rand, 3)));
            w.request.method = outr_rand_below(&rand, 2) ? OUTR_STR("GET") : OUTR_STR("POST");
            w.request.target = outr_str_from(targets[outr_rand_below(&rand, OUTR_LEN(targets))]);
            const outr_route_spec *plain = read_plainly(&w), *found = choose(&w).route;
            if (plain != found)
                fail_msg("seed %llu: " OUTR_FMT " goes by line %d, not %d",
                         (unsigned long long)seed, OUTR_ARG(w.request.target),
                         found ? found->line : 0, plain ? plain->line : 0);
        }
        close_world(&w);
    }
}

/* However many conditions ask of it. */
static void a_request_is_unescaped_once(void **state)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    char target[1100] = "/a?q=%61", baggage[1100] = "b=%61";
    world w;
    (void)state;
    memset(target + 8, 'x', 1000);
    memset(baggage + 5, 'y', 1000);
    outr_buf_z(&text, "  routes:\n");
    for (unsigned i = 0; i < 1000; i++)
        outr_buf_printf(&text,
                        "  - {name: r%u, match: [{query: [{name: q, prefix: ax}], "
                        "baggage: [{name: b, prefix: ay}], headers: [{name: x%u}]},\n"
                        "      {query: [{name: q, prefix: '%u'}]}, {baggage: [{name: b, prefix: "
                        "'%u'}]}]}\n",
                        i, i, i, i);
    outr_buf_char(&text, 0);
    open_world(&w, text.p, NULL);
    header(&w, "baggage", baggage);
    size_t before = outr_arena_used(w.arena);
    ask(&w, target, "");
    assert_in_range(outr_arena_used(w.arena) - before, 2000, 16 * OUTR_KIB);
    header(&w, "x700", "");
    ask(&w, target, "r700");
    close_world(&w);
}

/* ---- which subset ---------------------------------------------------------------------------- */

static void one_in_a_hundred_is_one_in_a_hundred(void **state)
{
    world w;
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        size_t hits = 0, in_first_half = 0;
        open_world(&w,
                   SUBSETS "  routes:\n"
                           "  - to: [{subset: v1, weight: 99}, {subset: v2, weight: 1}]\n",
                   NULL);
        outr_rand_seed(&w.rand, seed);
        for (size_t i = 0; i < 20000; i++) {
            hits += outr_str_is(choose(&w).subset->name, "v2");
            in_first_half = i == 9999 ? hits : in_first_half;
        }
        if (hits < 196 || hits > 204 || in_first_half < 96 || in_first_half > 104)
            fail_msg("seed %llu: %zu of 20000, %zu of the first half", (unsigned long long)seed,
                     hits, in_first_half);
        close_world(&w);
    }
}

static void weight_0_gets_nothing(void **state)
{
    world w;
    (void)state;
    open_world(&w,
               SUBSETS "  routes:\n"
                       "  - to: [{subset: v1, weight: 0}, {subset: v2, weight: 3}]\n"
                       "    sticky: {header: x}\n",
               NULL);
    for (size_t i = 0; i < 1000; i++)
        assert_text(choose(&w).subset->name, "v2");
    header(&w, "x", "y");
    assert_text(choose(&w).subset->name, "v2");
    close_world(&w);
}

static const char *sticky_of(world *w, size_t user)
{
    outr_headers_init(&w->headers, w->arena);
    outr_headers_add(&w->headers, OUTR_STR("X-User"), outr_arena_printf(w->arena, "user-%zu", user));
    return outr_str_is(choose(w).subset->name, "v2") ? "v2" : "v1";
}

static void who_sticks_moves_only_when_weights_make_him(void **state)
{
    world w[2];
    size_t moved = 0, of_v2 = 0;
    (void)state;
#define STICKY(a, b)                                                                               \
    SUBSETS "  routes:\n  - to: [{subset: v1, weight: " a "}, {subset: v2, weight: " b             \
            "}]\n    sticky: {header: x-user}\n"
    open_world(&w[0], STICKY("80", "20"), NULL);
    open_world(&w[1], STICKY("70", "30"), NULL);
    for (size_t i = 0; i < 10000; i++) {
        const char *before = sticky_of(&w[0], i), *after = sticky_of(&w[1], i);
        assert_string_equal(before, sticky_of(&w[0], i));
        assert_false(strcmp(before, "v2") == 0 && strcmp(after, "v1") == 0);
        moved += strcmp(before, after) != 0;
        of_v2 += strcmp(before, "v2") == 0;
    }
    assert_in_range(of_v2, 1850, 2150); /* 20 %, as texts are hashed: no lot */
    assert_in_range(moved, 850, 1150);
    close_world(&w[0]);
    close_world(&w[1]);
}

/* ---- environments ---------------------------------------------------------------------------- */

static void the_environment_is_of_the_baggage_then_of_the_caller_then_the_default(void **state)
{
    const outr_kv label = {OUTR_STR("stage"), OUTR_STR("staging")};
    world w;
    (void)state;
    open_world(&w,
               "  environment: {baggage: env, label: stage, fallback: prod}\n"
               "  routes: [{name: t, match: [{headers: [{name: x-test}]}], environment: test}]\n",
               NULL);
    outr_route_choice c = choose(&w);
    assert_text(c.environment, "prod");
    assert_false(c.sets_environment);
    w.own = (outr_kvs){&label, 1};
    c = choose(&w);
    assert_text(c.environment, "staging");
    assert_true(c.sets_environment);
    header(&w, "baggage", "a=1,env=de%76");
    c = choose(&w);
    assert_text(c.environment, "dev");
    assert_false(c.sets_environment);
    header(&w, "baggage", "b=1");
    assert_true(choose(&w).sets_environment); /* two lines: one of them crosses */
    header(&w, "x-test", "1");
    c = choose(&w);
    assert_text(c.environment, "test");
    assert_true(c.sets_environment);
    close_world(&w);
}

static void assert_wants(world *w, const char *const *wanted)
{
    outr_route_wants wants;
    const outr_target_rules *rules =
        outr_routes_target(w->routes, w->request.app_id, w->request.namespace_);
    const outr_route_choice c = choose(w);
    outr_route_wants_of(&wants, &c, rules->environment, w->arena);
    for (size_t i = 0; i < wants.count; i++) {
        OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(1024);
        outr_labels_write(&text, wants.labels[i]);
        assert_non_null(wanted[i]);
        assert_text(outr_buf_view(&text), wanted[i]);
    }
    assert_null(wanted[wants.count]);
}

static void fallbacks_keep_the_environment_as_long_as_they_can(void **state)
{
    world w;
    (void)state;
    open_world(&w,
               SUBSETS "  environment: {fallback: prod}\n"
                       "  routes:\n"
                       "  - {match: [{path: {exact: /any}}], to: [{subset: v2}], fallback: any}\n"
                       "  - {match: [{path: {exact: /v1}}], to: [{subset: v2}], fallback: v1}\n"
                       "  - {match: [{path: {exact: /none}}], to: [{subset: v2}]}\n",
               NULL);
    w.request.target = OUTR_STR("/none");
    assert_wants(&w, (const char *const[]){"environment=prod,version=2", NULL});
    header(&w, "baggage", "environment=test");
    w.request.target = OUTR_STR("/v1");
    assert_wants(&w, (const char *const[]){"environment=test,version=2",
                                           "environment=test,version=1",
                                           "environment=prod,version=2",
                                           "environment=prod,version=1", NULL});
    w.request.target = OUTR_STR("/any");
    assert_wants(&w, (const char *const[]){"environment=test,version=2", "environment=test",
                                           "environment=prod,version=2", "environment=prod", NULL});
    w.request.target = OUTR_STR("/");
    assert_wants(&w, (const char *const[]){"environment=test", "environment=prod", NULL});
    close_world(&w);
    open_world(&w, SUBSETS "  routes: [{to: [{subset: v2}]}]\n", NULL);
    assert_wants(&w, (const char *const[]){"version=2", NULL});
    close_world(&w);
    open_world(&w, "  routes: [{timeout: 1s}]\n", NULL);
    assert_wants(&w, (const char *const[]){"", NULL});
    close_world(&w);
}

/* ---- callees --------------------------------------------------------------------------------- */

static void a_group_is_of_the_policy_that_names_the_callee(void **state)
{
    world w;
    (void)state;
    open_world(&w, "  ejection: {consecutive: 9}\n  limits: {requests: 7}\n  slowStart: 1s\n",
               "  targets: [orders]\n  ejection: {window: 30}\n");
    const outr_target_rules *r = outr_routes_target(w.routes, OUTR_STR("orders"), OUTR_STR("x"));
    assert_int_equal(r->ejection->consecutive, 5); /* taken whole */
    assert_int_equal(r->ejection->window, 30);
    assert_int_equal(r->limits->requests, 7);
    assert_int_equal(r->slow_start_ns, OUTR_SEC);
    assert_false(r->hedge->is_on);
    r = outr_routes_target(w.routes, OUTR_STR("other"), OUTR_STR("x"));
    assert_int_equal(r->ejection->consecutive, 9);
    r = outr_routes_target(NULL, OUTR_STR("other"), OUTR_STR("x"));
    assert_int_equal(r->ejection->consecutive, 5);
    assert_int_equal(r->slow_start_ns, 10 * OUTR_SEC);
    assert_false(outr_routes_ask_claims(w.routes, OUTR_STR("orders"), OUTR_STR("x")));
    close_world(&w);
}

static void without_policies_nothing_is_chosen(void **state)
{
    const outr_route_request request = {.app_id = OUTR_STR("a"), .target = OUTR_STR("/")};
    const outr_snapshot none = {0};
    outr_rand rand;
    outr_rand_seed(&rand, 1);
    (void)state;
    assert_null(outr_routes_of(&none));
    const outr_route_choice c = outr_routes_choose(NULL, &request, NULL, &rand, NULL);
    assert_true(!c.route && !c.subset && c.environment.n == 0 && !c.sets_environment);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_specific_path_is_taken),
        cmocka_unit_test(then_method_headers_query_and_the_rest),
        cmocka_unit_test(of_equal_ones_the_first_and_the_one_that_names_the_callee),
        cmocka_unit_test(what_does_not_hold_is_told),
        cmocka_unit_test(the_table_finds_what_reading_the_rules_one_by_one_finds),
        cmocka_unit_test(a_request_is_unescaped_once),
        cmocka_unit_test(one_in_a_hundred_is_one_in_a_hundred),
        cmocka_unit_test(weight_0_gets_nothing),
        cmocka_unit_test(who_sticks_moves_only_when_weights_make_him),
        cmocka_unit_test(the_environment_is_of_the_baggage_then_of_the_caller_then_the_default),
        cmocka_unit_test(fallbacks_keep_the_environment_as_long_as_they_can),
        cmocka_unit_test(a_group_is_of_the_policy_that_names_the_callee),
        cmocka_unit_test(without_policies_nothing_is_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
