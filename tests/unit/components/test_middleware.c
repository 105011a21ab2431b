#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "components/registry.h"
#include "lib/web.h"
#include "lib/wire.h"

typedef struct bench {
    wire w;
    outr_kv metadata[8];
    outr_middleware *m;
    outr_op op;
    outr_err err;
    /* of the last request */
    outr_arena *arena;
    outr_http_request req;
    outr_middleware_call call;
} bench;

static void on_done(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    b->err = op->err;
}

/* metadata: name, value, ..., NULL. What create said. */
static outr_code open_bench(bench *b, const char *type, const char *const *metadata)
{
    size_t count = 0;
    *b = (bench){.m = NULL};
    wire_init(&b->w, 1);
    b->arena = outr_arena_new(64 * OUTR_MIB);
    for (; metadata && metadata[2 * count]; count++)
        b->metadata[count] =
            (outr_kv){outr_str_from(metadata[2 * count]), outr_str_from(metadata[2 * count + 1])};
    const outr_middleware_backend *backend =
        outr_registry_middleware(outr_str_from(type), OUTR_STR("v1"));
    assert_non_null(backend);
    const outr_component_init init = {.metadata = {b->metadata, count}, .loop = b->w.loop};
    if (backend->create(&b->m, &init, &b->err)) {
        assert_null(b->m);
        return b->err.code;
    }
    outr_op_init(&b->op, b->w.loop, NULL, 0, on_done);
    backend->open(b->m, &b->op);
    wire_run(&b->w);
    return b->err.code;
}

static void close_bench(bench *b)
{
    if (b->m) {
        outr_op_init(&b->op, b->w.loop, NULL, 0, on_done);
        b->m->backend->close(b->m, &b->op);
        wire_run(&b->w);
    }
    outr_arena_free(b->arena);
    wire_done(&b->w);
}

static outr_middleware_verdict ask(bench *b, const char *target, const outr_addr *client)
{
    outr_op unused;
    b->req = (outr_http_request){.method = OUTR_STR("GET"), .target = outr_str_from(target)};
    outr_headers_init(&b->req.headers, b->arena);
    b->call = (outr_middleware_call){
        .loop = b->w.loop, .arena = b->arena, .req = &b->req, .client = client};
    outr_headers_init(&b->call.extra, b->arena);
    outr_op_init(&unused, b->w.loop, NULL, 0, NULL);
    return b->m->backend->handle(b->m, &b->call, &unused);
}

static void assert_refused(bench *b, const char *target, int status, const char *text)
{
    assert_int_equal(ask(b, target, NULL), OUTR_MIDDLEWARE_ANSWER);
    assert_int_equal(b->call.answer.status, status);
    assert_true(outr_str_is(b->call.answer_body, text));
}

static void a_checker_lets_pass_what_matches_its_rule(void **state)
{
    static const char *const metadata[] = {"rule", "^/v1.0/[a-z/]*$", NULL};
    bench b;
    (void)state;
    assert_int_equal(open_bench(&b, "middleware.http.routerchecker", metadata), OUTR_OK);
    assert_int_equal(ask(&b, "/v1.0/state/k", NULL), OUTR_MIDDLEWARE_PASS);
    assert_refused(&b, "/v1.0/state/k?x", 400, "invalid router");
    assert_refused(&b, "/v1.0/%41", 400, "invalid router");
    close_bench(&b);
}

static void a_checker_without_a_good_rule_does_not_start(void **state)
{
    static const char *const bad[] = {"rule", "(", NULL}, *const backward[] = {"rule", "(a)\\1", NULL};
    bench b;
    (void)state;
    assert_int_equal(open_bench(&b, "middleware.http.routerchecker", NULL), OUTR_INVALID_ARGUMENT);
    close_bench(&b);
    assert_int_equal(open_bench(&b, "middleware.http.routerchecker", bad), OUTR_INVALID_ARGUMENT);
    assert_non_null(strstr(b.err.text, "rule: regular expression: "));
    close_bench(&b);
    assert_int_equal(open_bench(&b, "middleware.http.routerchecker", backward),
                     OUTR_INVALID_ARGUMENT);
    close_bench(&b);
}

#define ROUTES                                                                                     \
    "{\"/mall/stock/{sku}\": \"/v1.0/invoke/shop/method/stock/:sku\", \"/mall/go\": \"/v1.0/go\"," \
    " \"/item-{id:[0-9]+}.html\": \"/item\", \"/files/{name}/{path:.+}\": \"/file\"," \
    " \"/two/{b}/{a}\": \"/with space\", \"/\": \"/root\"}"

static void an_alias_leads_to_its_route(void **state)
{
    static const char *const metadata[] = {"routes", ROUTES, NULL};
    static const struct {
        const char *from, *to;
    } rows[] = {
        {"/mall/stock/abc?q=1", "/v1.0/invoke/shop/method/stock/:sku?q=1&sku=abc"},
        {"/mall/stock/a%20b%26c", "/v1.0/invoke/shop/method/stock/:sku?sku=a+b%26c"},
        {"/mall/stock/x?z=1&sku=2&a=%20&=&b", "/v1.0/invoke/shop/method/stock/:sku?=&a=+&b=&sku=2&sku=x&z=1"},
        {"/mall/stock/", "/mall/stock/"},
        {"/mall/stock/a/b", "/mall/stock/a/b"},
        {"/mall/stock/a%2Fb", "/mall/stock/a%2Fb"},
        {"/mall/go?more=2", "/v1.0/go?more=2"},
        {"/mall/go", "/v1.0/go"},
        {"/mall/go/", "/mall/go/"},
        {"/item-12.html", "/item?id=12"},
        {"/item-x.html", "/item-x.html"},
        {"/item-.html", "/item-.html"},
        {"/files/n/a/b/c", "/file?name=n&path=a%2Fb%2Fc"},
        {"/files/n/", "/files/n/"},
        {"/two/1/2", "/with%20space?a=2&b=1"},
        {"/?x", "/root?x"},
        {"/other", "/other"},
        {"/mall/stock/%zz", "/mall/stock/%zz"},
        {"*", "*"},
    };
    bench b;
    (void)state;
    assert_int_equal(open_bench(&b, "middleware.http.routeralias", metadata), OUTR_OK);
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        assert_int_equal(ask(&b, rows[i].from, NULL), OUTR_MIDDLEWARE_PASS);
        if (!outr_str_is(b.req.target, rows[i].to))
            fail_msg("%s -> " OUTR_FMT, rows[i].from, OUTR_ARG(b.req.target));
    }
    close_bench(&b);
}

static void aliases_may_be_given_one_by_one(void **state)
{
    static const char *const metadata[] = {"/a", "/b", "/c/{d}", "/e", NULL};
    bench b;
    (void)state;
    assert_int_equal(open_bench(&b, "middleware.http.routeralias", metadata), OUTR_OK);
    ask(&b, "/a", NULL);
    assert_true(outr_str_is(b.req.target, "/b"));
    ask(&b, "/c/1", NULL);
    assert_true(outr_str_is(b.req.target, "/e?d=1"));
    close_bench(&b);
}

static void bad_aliases_are_told(void **state)
{
    static const char *const bad[] = {"[1]",          "{\"a\": \"/b\"}",  "{\"/a\": \"b\"}",
                                      "{\"/a\": {}}", "{\"/{\": \"/b\"}", "{\"/{}\": \"/b\"}",
                                      "{\"/{a:(}\": \"/b\"}", "{\"/{a}{b}\": \"/b\"}",
                                      "{\"/a\": \"/b?c\"}", "{"};
    bench b;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        const char *const metadata[] = {"routes", bad[i], NULL};
        if (open_bench(&b, "middleware.http.routeralias", metadata) == OUTR_OK)
            fail_msg("%s was taken", bad[i]);
        close_bench(&b);
    }
}

static outr_addr address(const char *ip)
{
    outr_addr addr;
    outr_err err;
    assert_int_equal(outr_addr_from_ip(&addr, outr_str_from(ip), 1234, &err), OUTR_OK);
    return addr;
}

static void each_client_has_so_many_requests_a_second(void **state)
{
    static const char *const metadata[] = {"maxRequestsPerSecond", "2", NULL};
    const outr_addr one = address("10.0.0.1"), two = address("10.0.0.2");
    const outr_addr six = address("2001:db8::1"), neighbour = address("2001:db8::2"),
                    other = address("2001:db8:0:1::1");
    bench b;
    (void)state;
    assert_int_equal(open_bench(&b, "middleware.http.ratelimit", metadata), OUTR_OK);
    assert_int_equal(ask(&b, "/a", &one), OUTR_MIDDLEWARE_PASS);
    assert_true(outr_str_is(outr_headers_get(&b.call.extra, "x-rate-limit-limit"), "2.00"));
    assert_true(outr_str_is(outr_headers_get(&b.call.extra, "ratelimit-remaining"), "1"));
    assert_int_equal(ask(&b, "/a?other=query", &one), OUTR_MIDDLEWARE_PASS);
    assert_int_equal(ask(&b, "/a", &one), OUTR_MIDDLEWARE_ANSWER);
    assert_int_equal(b.call.answer.status, 429);
    assert_true(outr_str_is(b.call.answer_body, "You have reached maximum request limit."));
    assert_int_equal(ask(&b, "/b", &one), OUTR_MIDDLEWARE_PASS);
    assert_int_equal(ask(&b, "/a", &two), OUTR_MIDDLEWARE_PASS);
    assert_int_equal(ask(&b, "/a", NULL), OUTR_MIDDLEWARE_PASS);
    assert_int_equal(ask(&b, "/a", &six), OUTR_MIDDLEWARE_PASS);
    assert_int_equal(ask(&b, "/a", &neighbour), OUTR_MIDDLEWARE_PASS);
    assert_int_equal(ask(&b, "/a", &six), OUTR_MIDDLEWARE_ANSWER);
    assert_int_equal(ask(&b, "/a", &other), OUTR_MIDDLEWARE_PASS);
    wire_sleep(&b.w, OUTR_SEC / 2);
    assert_int_equal(ask(&b, "/a", &one), OUTR_MIDDLEWARE_PASS);
    assert_int_equal(ask(&b, "/a", &one), OUTR_MIDDLEWARE_ANSWER);
    wire_sleep(&b.w, 10 * OUTR_SEC);
    assert_int_equal(ask(&b, "/a", &one), OUTR_MIDDLEWARE_PASS);
    assert_int_equal(ask(&b, "/a", &one), OUTR_MIDDLEWARE_PASS);
    assert_int_equal(ask(&b, "/a", &one), OUTR_MIDDLEWARE_ANSWER);
    close_bench(&b);
}

static void what_is_remembered_of_clients_has_a_limit(void **state)
{
    static const char *const metadata[] = {"maxRequestsPerSecond", "1", NULL};
    const outr_addr one = address("10.0.0.1");
    char target[32];
    bench b;
    (void)state;
    assert_int_equal(open_bench(&b, "middleware.http.ratelimit", metadata), OUTR_OK);
    for (int i = 0; i < 40000; i++) {
        snprintf(target, sizeof target, "/%d", i);
        assert_int_equal(ask(&b, target, &one), OUTR_MIDDLEWARE_PASS);
        outr_arena_reset(b.arena);
    }
    assert_int_equal(ask(&b, "/39999", &one), OUTR_MIDDLEWARE_ANSWER);
    assert_int_equal(ask(&b, "/0", &one), OUTR_MIDDLEWARE_PASS);
    close_bench(&b);
}

static void a_rate_that_is_none_is_refused(void **state)
{
    static const char *const bad[] = {"0", "-1", "x", "nan", "inf"};
    bench b;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        const char *const metadata[] = {"maxRequestsPerSecond", bad[i], NULL};
        assert_int_equal(open_bench(&b, "middleware.http.ratelimit", metadata),
                         OUTR_INVALID_ARGUMENT);
        close_bench(&b);
    }
}

static outr_source *upper(bench *b, outr_source *body)
{
    outr_op unused;
    ask(b, "/", NULL);
    b->call.body = body;
    outr_op_init(&unused, b->w.loop, NULL, 0, NULL);
    assert_int_equal(b->m->backend->handle(b->m, &b->call, &unused), OUTR_MIDDLEWARE_PASS);
    return b->call.body;
}

static void a_body_is_upper_cased_as_it_streams(void **state)
{
    web_giver giver;
    web_taker taker = {.is_full = false};
    bench b;
    (void)state;
    assert_int_equal(open_bench(&b, "middleware.http.uppercase", NULL), OUTR_OK);
    assert_null(upper(&b, NULL));
    web_giver_init(&giver, 10);
    web_taker_start(&taker, upper(&b, &giver.base));
    wire_run(&b.w);
    assert_true(web_give(&giver, "quiet {"));
    assert_true(outr_str_is(outr_buf_view(&taker.body), "QUIET {"));
    taker.is_full = true;
    assert_false(web_give(&giver, "z1"));
    giver.is_wanted = false;
    web_taker_resume(&taker);
    assert_true(giver.is_wanted);
    assert_true(web_give(&giver, "\xc3\xa4"));
    web_give_end(&giver);
    assert_true(taker.has_ended);
    assert_true(outr_str_is(outr_buf_view(&taker.body), "QUIET {Z1\xc3\xa4"));
    web_taker_done(&taker);
    close_bench(&b);
}

static void a_body_that_ends_early_ends_early(void **state)
{
    web_giver giver;
    web_taker taker = {.is_full = false};
    bench b;
    (void)state;
    assert_int_equal(open_bench(&b, "middleware.http.uppercase", NULL), OUTR_OK);
    web_giver_init(&giver, -1);
    web_taker_start(&taker, upper(&b, &giver.base));
    wire_run(&b.w);
    web_give_abort(&giver);
    assert_true(taker.was_aborted);
    web_taker_done(&taker);
    web_giver_init(&giver, -1);
    outr_source_cancel(upper(&b, &giver.base), NULL);
    assert_true(giver.was_cancelled);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checker_lets_pass_what_matches_its_rule),
        cmocka_unit_test(a_checker_without_a_good_rule_does_not_start),
        cmocka_unit_test(an_alias_leads_to_its_route),
        cmocka_unit_test(aliases_may_be_given_one_by_one),
        cmocka_unit_test(bad_aliases_are_told),
        cmocka_unit_test(each_client_has_so_many_requests_a_second),
        cmocka_unit_test(what_is_remembered_of_clients_has_a_limit),
        cmocka_unit_test(a_rate_that_is_none_is_refused),
        cmocka_unit_test(a_body_is_upper_cased_as_it_streams),
        cmocka_unit_test(a_body_that_ends_early_ends_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
