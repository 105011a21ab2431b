#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "http/server.h"
#include "lib/web.h"
#include "unit/components/bindings.h"

#define TYPE "bindings.http"

/* A server at every address but those with the port 81, where nobody listens. */
typedef struct site {
    outr_http_server *server;
    unsigned requests, connects, lookups;
    char method[16], target[256], authority[128], headers[2048];
    outr_buf body;
    void (*answer)(struct site *s, outr_exchange *x);
    outr_gather gather;
    outr_exchange *x;
    outr_addr addrs[4]; /* of the name "server.test" */
    size_t addr_count;
    void (*connect)(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op);
} site;

static void reply(outr_exchange *x, int status, const char *const *headers, const char *body)
{
    outr_http_response head = {.status = status, .content_length = (int64_t)strlen(body)};
    outr_headers_init(&head.headers, x->arena);
    for (; headers && headers[0]; headers += 2)
        outr_headers_add(&head.headers, outr_str_from(headers[0]), outr_str_from(headers[1]));
    outr_http_reply(x, &head, outr_str_from(body));
    outr_http_done(x);
}

static void on_gathered(outr_gather *gather, const outr_err *err)
{
    site *s = gather->ctx;
    assert_null(err);
    outr_buf_done(&s->body);
    s->body = gather->body;
    s->answer(s, s->x);
}

static void on_request(void *ctx, outr_exchange *x)
{
    site *s = ctx;
    int n = 0;
    s->requests++;
    s->x = x;
    snprintf(s->method, sizeof s->method, OUTR_FMT, OUTR_ARG(x->req.method));
    snprintf(s->target, sizeof s->target, OUTR_FMT, OUTR_ARG(x->req.target));
    snprintf(s->authority, sizeof s->authority, OUTR_FMT, OUTR_ARG(x->req.authority));
    s->headers[0] = 0;
    for (size_t i = 0; i < x->req.headers.count; i++)
        n += snprintf(s->headers + n, sizeof s->headers - (size_t)n, OUTR_FMT "=" OUTR_FMT ";",
                      OUTR_ARG(x->req.headers.items[i].name),
                      OUTR_ARG(x->req.headers.items[i].value));
    if (x->body) {
        outr_gather_start(&s->gather, x->body, OUTR_MIB, on_gathered, s);
        return;
    }
    s->body.n = 0;
    s->answer(s, x);
}

static const outr_http_handler handler = {.on_request = on_request};

static site *the_site; /* of the test that runs: env has no place for it */

static void on_accept(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((site *)ctx)->server, own_stream);
}

static void on_connect(outr_env *env, outr_loop *loop, outr_connect *req, outr_op *op)
{
    outr_err err;
    the_site->connects++;
    if (req->addr.port != 81) {
        the_site->connect(env, loop, req, op);
        return;
    }
    outr_fail(&err, OUTR_UNAVAILABLE, "connect: connection refused");
    outr_op_begin(op, req, NULL);
    outr_op_fail_soon(op, &err);
}

static void on_lookup(outr_env *env OUTR_UNUSED, outr_loop *loop OUTR_UNUSED, outr_lookup *req,
                      outr_op *op)
{
    outr_err err;
    the_site->lookups++;
    outr_op_begin(op, req, NULL);
    if (!outr_str_is(req->host, "server.test")) {
        outr_fail(&err, OUTR_UNAVAILABLE, "no such host");
        outr_op_fail_soon(op, &err);
        return;
    }
    memcpy(req->addrs, the_site->addrs, sizeof the_site->addrs);
    req->count = the_site->addr_count;
    outr_op_finish_soon(op);
}

static void answer_ok(site *s OUTR_UNUSED, outr_exchange *x)
{
    reply(x, 200, NULL, "ok");
}

static bench *open_http(site *s, const char *const *metadata)
{
    bench *b = make_bench();
    *s = (site){.answer = answer_ok, .connect = b->w.env.connect};
    the_site = s;
    b->w.env.connect = on_connect;
    b->w.env.lookup = on_lookup;
    b->w.on_accept = on_accept;
    b->w.ctx = s;
    s->server = outr_http_server_new(&(outr_http_server_options){
        .loop = b->w.loop, .handler = &handler, .ctx = s, .allow_h1 = true});
    if (open_binding(b, TYPE, metadata))
        fail_msg("%s", b->err.text);
    return b;
}

static void close_http(bench *b, site *s)
{
    outr_binding *binding = b->binding;
    b->backend->close(binding, begin(b));
    b->binding = NULL;
    assert_int_equal(wait(b), OUTR_OK);
    wire_run(&b->w);
    outr_http_server_free(s->server);
    wire_run(&b->w);
    outr_buf_done(&s->body);
    close_bench(b);
}

static outr_code run(bench *b, const char *operation, const char *data,
                     const char *const *metadata)
{
    start_invoke(b, operation, outr_str_from(data), metadata);
    return wait(b);
}

static const char *const plain[] = {"url", "http://127.0.0.1:80/base/", NULL};

static const char *value(const bench *b, const char *name)
{
    const outr_kv *kv = outr_kvs_find_exact(b->req.answer_metadata, outr_str_from(name));
    return kv ? outr_arena_strz(b->arena, kv->value) : "(none)";
}

static void operations_are_methods(void **state OUTR_UNUSED)
{
    static const struct {
        const char *operation, *method;
        bool has_body;
    } cases[] = {{"create", "POST", true},    {"post", "POST", true},
                 {"put", "PUT", true},        {"patch", "PATCH", true},
                 {"get", "GET", false},       {"head", "HEAD", false},
                 {"delete", "DELETE", false}, {"options", "OPTIONS", false},
                 {"trace", "TRACE", false}};
    site s;
    bench *b = open_http(&s, plain);
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        assert_int_equal(run(b, cases[i].operation, "{\"a\":1}", NULL), OUTR_OK);
        assert_string_equal(s.method, cases[i].method);
        assert_string_equal(s.target, "/base/");
        assert_int_equal(s.body.n, cases[i].has_body ? 7 : 0);
        assert_int_equal(strstr(s.headers, "Content-Type=application/json; charset=utf-8;") != NULL,
                         cases[i].has_body);
        assert_non_null(strstr(s.headers, "Accept=application/json; charset=utf-8;"));
    }
    assert_int_equal(s.connects, 1); /* kept */
    close_http(b, &s);
}

static void metadata_are_path_and_headers(void **state OUTR_UNUSED)
{
    const char *const with[] = {"url",
                                "http://127.0.0.1:80/base//",
                                "securityToken",
                                "s3cret",
                                "securityTokenHeader",
                                "X-Token",
                                NULL};
    const char *const metadata[] = {"path",        "//sub/a b?x=1&y=\xc3\xa4#frag",
                                    "Content-Type", "text/plain",
                                    "X-Mine",      "1",
                                    "lower",       "not a header",
                                    "Traceparent", "mine",
                                    "traceparent", "00-theirs",
                                    "Host",        "elsewhere",
                                    NULL};
    site s;
    bench *b = open_http(&s, with);
    assert_int_equal(run(b, "post", "x", metadata), OUTR_OK);
    assert_string_equal(s.target, "/base/sub/a%20b?x=1&y=%C3%A4");
    assert_string_equal(s.authority, "127.0.0.1:80");
    assert_non_null(strstr(s.headers, "Content-Type=text/plain;"));
    assert_non_null(strstr(s.headers, "X-Mine=1;"));
    assert_non_null(strstr(s.headers, "X-Token=s3cret;"));
    assert_non_null(strstr(s.headers, "raceparent=00-theirs;"));
    assert_null(strstr(s.headers, "=mine;"));
    assert_null(strstr(s.headers, "not a header"));
    close_http(b, &s);
}

static void headers_cannot_be_smuggled(void **state OUTR_UNUSED)
{
    static const char *const cases[][3] = {{"X-A", "1\r\nX-B: 2", NULL}, {"X A", "1", NULL}};
    site s;
    bench *b = open_http(&s, plain);
    for (size_t i = 0; i < OUTR_LEN(cases); i++)
        assert_int_equal(run(b, "get", "", cases[i]), OUTR_INVALID_ARGUMENT);
    assert_int_equal(s.requests, 0);
    const char *const path[] = {"path", "x HTTP/1.1\r\nX-B: 2\r\n\r\n", NULL};
    assert_int_equal(run(b, "get", "", path), OUTR_OK);
    assert_null(strstr(s.headers, "X-B"));
    close_http(b, &s);
}

static void answer_rich(site *s OUTR_UNUSED, outr_exchange *x)
{
    const char *const headers[] = {"x-back", "1", "X-BACK", "2", "etag", "e", NULL};
    reply(x, 201, headers, "body");
}

static void answers_come_back_with_their_headers(void **state OUTR_UNUSED)
{
    site s;
    bench *b = open_http(&s, plain);
    s.answer = answer_rich;
    assert_int_equal(run(b, "get", "", NULL), OUTR_OK);
    assert_true(b->req.has_answer);
    assert_true(outr_str_is(b->req.answer, "body"));
    assert_string_equal(value(b, "statusCode"), "201");
    assert_string_equal(value(b, "status"), "201 Created");
    assert_string_equal(value(b, "X-Back"), "1, 2");
    assert_string_equal(value(b, "Etag"), "e");
    assert_string_equal(value(b, "Content-Length"), "4");
    close_http(b, &s);
}

static void answer_404(site *s OUTR_UNUSED, outr_exchange *x)
{
    reply(x, 404, NULL, "gone");
}

static void other_than_2xx_is_an_error_unless_told(void **state OUTR_UNUSED)
{
    const char *const tolerant[] = {"errorIfNot2XX", "false", NULL};
    const char *const strict[] = {"errorIfNot2XX", "true", NULL};
    const char *const lenient[] = {"url", "http://127.0.0.1:80", "errorIfNot2XX", "false", NULL};
    site s;
    bench *b = open_http(&s, plain);
    s.answer = answer_404;
    assert_int_equal(run(b, "get", "", NULL), OUTR_UNKNOWN);
    assert_string_equal(b->err.text, "received status code 404");
    assert_string_equal(value(b, "statusCode"), "404");
    assert_int_equal(run(b, "get", "", tolerant), OUTR_OK);
    close_http(b, &s);
    b = open_http(&s, lenient);
    s.answer = answer_404;
    assert_int_equal(run(b, "get", "", NULL), OUTR_OK);
    assert_string_equal(s.target, "/");
    assert_int_equal(run(b, "get", "", strict), OUTR_UNKNOWN);
    close_http(b, &s);
}

static void answer_redirect(site *s, outr_exchange *x)
{
    static const struct {
        const char *target;
        int status;
        const char *location;
    } table[] = {
        {"/see", 303, "there?a=1#frag"},
        {"/keep", 307, "/there"},
        {"/away", 308, "http://127.0.0.2:80/there"},
        {"/name", 302, "//server.test:80/there"},
        {"/loop", 302, "/loop"},
        {"/bad", 302, "ftp://x/"},
        {"/nowhere", 302, ""},
    };
    for (size_t i = 0; i < OUTR_LEN(table); i++) {
        const char *const headers[] = {"Location", table[i].location, NULL};
        if (strcmp(s->target, table[i].target) == 0) {
            reply(x, table[i].status, table[i].location[0] ? headers : NULL, "moved");
            return;
        }
    }
    reply(x, 200, NULL, "there");
}

static void redirects_are_followed(void **state OUTR_UNUSED)
{
    const char *const with[] = {"url",
                                "http://127.0.0.1:80",
                                "securityToken",
                                "s3cret",
                                "securityTokenHeader",
                                "X-Token",
                                NULL};
    const char *const see[] = {"path", "see", "Authorization", "Bearer x", NULL},
                      *const keep[] = {"path", "keep", NULL},
                      *const away[] = {"path", "away", "Authorization", "Bearer x", "Cookie", "c=1",
                                       NULL},
                      *const name[] = {"path", "name", NULL}, *const loop[] = {"path", "loop", NULL},
                      *const bad[] = {"path", "bad", NULL},
                      *const nowhere[] = {"path", "nowhere", NULL};
    site s;
    bench *b = open_http(&s, with);
    s.answer = answer_redirect;
    s.addr_count = 1;
    assert_int_equal(outr_addr_parse(&s.addrs[0], OUTR_STR("127.0.0.3:80"), NULL), OUTR_OK);
    assert_int_equal(run(b, "post", "data", see), OUTR_OK);
    assert_true(outr_str_is(b->req.answer, "there"));
    assert_string_equal(s.method, "GET");
    assert_string_equal(s.target, "/there?a=1");
    assert_int_equal(s.body.n, 0);
    assert_non_null(strstr(s.headers, "X-Token=s3cret;"));
    assert_non_null(strstr(s.headers, "Authorization="));
    assert_int_equal(run(b, "post", "data", keep), OUTR_OK);
    assert_string_equal(s.method, "POST");
    assert_int_equal(s.body.n, 4);
    assert_int_equal(run(b, "put", "data", away), OUTR_OK);
    assert_string_equal(s.method, "PUT");
    assert_string_equal(s.authority, "127.0.0.2:80");
    assert_int_equal(s.body.n, 4);
    assert_null(strstr(s.headers, "s3cret"));
    assert_null(strstr(s.headers, "Authorization"));
    assert_null(strstr(s.headers, "Cookie"));
    assert_int_equal(run(b, "get", "", name), OUTR_OK);
    assert_string_equal(s.authority, "server.test:80");
    s.requests = 0;
    assert_int_equal(run(b, "get", "", loop), OUTR_UNAVAILABLE);
    assert_int_equal(s.requests, 11);
    assert_int_equal(run(b, "get", "", bad), OUTR_INVALID_ARGUMENT);
    assert_int_equal(run(b, "get", "", nowhere), OUTR_UNKNOWN); /* a 302 is no 2xx */
    close_http(b, &s);
}

static void every_address_of_a_name_is_tried(void **state OUTR_UNUSED)
{
    const char *const named[] = {"url", "http://user:p%40ss@server.test/x", NULL};
    site s;
    bench *b = open_http(&s, named);
    s.addr_count = 2;
    outr_addr_parse(&s.addrs[0], OUTR_STR("[::1]:81"), NULL);
    outr_addr_parse(&s.addrs[1], OUTR_STR("127.0.0.1:80"), NULL);
    assert_int_equal(run(b, "post", "data", NULL), OUTR_OK);
    assert_string_equal(s.authority, "server.test");
    assert_int_equal(s.body.n, 4);
    assert_non_null(strstr(s.headers, "Authorization=Basic dXNlcjpwQHNz;"));
    assert_int_equal(run(b, "post", "data", NULL), OUTR_OK);
    assert_int_equal(s.lookups, 1); /* remembered */
    wire_sleep(&b->w, 31 * OUTR_SEC);
    assert_int_equal(run(b, "post", "data", NULL), OUTR_OK);
    assert_int_equal(s.lookups, 2);
    wire_sleep(&b->w, 31 * OUTR_SEC);
    s.addr_count = 1; /* nobody there: the error names the origin and no secret */
    assert_int_equal(run(b, "post", "data", NULL), OUTR_UNAVAILABLE);
    assert_non_null(strstr(b->err.text, "POST http://server.test:80: "));
    assert_null(strstr(b->err.text, "p%40ss"));
    assert_int_equal(run(b, "post", "data", NULL), OUTR_UNAVAILABLE);
    assert_int_equal(s.lookups, 4); /* not remembered when it leads nowhere */
    close_http(b, &s);
}

static void on_client_gone(outr_exchange *x, const outr_err *err OUTR_UNUSED)
{
    outr_http_done(x);
}

static void answer_never(site *s OUTR_UNUSED, outr_exchange *x)
{
    x->on_gone = on_client_gone;
}

static void a_server_that_does_not_answer_is_given_up(void **state OUTR_UNUSED)
{
    const char *const limited[] = {"url", "http://127.0.0.1:80", "responseTimeout", "2s", NULL};
    site s;
    bench *b = open_http(&s, limited);
    s.answer = answer_never;
    start_invoke(b, "get", OUTR_STR_NONE, NULL);
    wire_sleep(&b->w, 3 * OUTR_SEC);
    assert_int_equal(wait(b), OUTR_DEADLINE_EXCEEDED);
    start_invoke(b, "get", OUTR_STR_NONE, NULL);
    wire_run(&b->w);
    outr_op_cancel(&b->op, OUTR_CANCELLED);
    assert_int_equal(wait(b), OUTR_CANCELLED);
    close_http(b, &s);
}

static void break_connections(bench *b)
{
    OUTR_LIST_EACH(link, &b->w.streams)
        wire_break(OUTR_LIST_ITEM(link, wire_stream, link));
    wire_run(&b->w);
}

static void a_connection_that_breaks_is_an_error(void **state OUTR_UNUSED)
{
    site s;
    bench *b = open_http(&s, plain);
    s.answer = answer_never;
    start_invoke(b, "post", OUTR_STR("x"), NULL);
    wire_run(&b->w);
    break_connections(b);
    assert_int_equal(wait(b), OUTR_UNAVAILABLE);
    assert_int_equal(s.requests, 1); /* a POST is not sent again */
    close_http(b, &s);
}

static void answer_large(site *s OUTR_UNUSED, outr_exchange *x)
{
    char *text = outr_alloc(5001);
    memset(text, 'x', 5000);
    reply(x, 200, NULL, text);
    free(text);
}

static void an_answer_over_the_limit_is_an_error(void **state OUTR_UNUSED)
{
    const char *const small[] = {"url", "http://127.0.0.1:80", "maxResponseBodySize", "4Ki", NULL};
    const char *const open[] = {"url", "http://127.0.0.1:80", "maxResponseBodySize", "0", NULL};
    site s;
    bench *b = open_http(&s, small);
    s.answer = answer_large;
    assert_int_equal(run(b, "get", "", NULL), OUTR_RESOURCE_EXHAUSTED);
    s.answer = answer_ok;
    assert_int_equal(run(b, "get", "", NULL), OUTR_OK); /* others go on */
    close_http(b, &s);
    b = open_http(&s, open);
    s.answer = answer_large;
    assert_int_equal(run(b, "get", "", NULL), OUTR_OK);
    assert_int_equal(b->req.answer.n, 5000);
    close_http(b, &s);
}

static void bad_metadata_name_the_field(void **state OUTR_UNUSED)
{
    static const struct {
        const char *metadata[8];
        const char *text;
    } cases[] = {
        {{NULL}, "url"},
        {{"url", "not a url", NULL}, "url: "},
        {{"url", "ftp://x", NULL}, "url: "},
        {{"url", "http://x", "responseTimeout", "soon", NULL}, "responseTimeout"},
        {{"url", "http://x", "maxResponseBodySize", "lots", NULL}, "maxResponseBodySize"},
        {{"url", "http://x", "MTLSRenegotiation", "Sometimes", NULL}, "MTLSRenegotiation"},
        {{"url", "http://x", "MTLSRenegotiation", "RenegotiateFreelyAsClient", NULL},
         "MTLSRenegotiation"},
        {{"url", "https://x", "MTLSRootCA", "/no/such/file", NULL}, "MTLSRootCA"},
        {{"url", "https://x", "MTLSRootCA", "-----BEGIN CERTIFICATE-----\nx", NULL}, ""},
        {{"url", "http://x", "securityToken", "a\nb", "securityTokenHeader", "X-T", NULL},
         "securityToken"},
    };
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        bench *b = make_bench();
        if (open_binding(b, TYPE, cases[i].metadata) == OUTR_OK)
            fail_msg("case %zu opened", i);
        if (!strstr(b->err.text, cases[i].text))
            fail_msg("case %zu: %s", i, b->err.text);
        close_bench(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_are_methods),
        cmocka_unit_test(metadata_are_path_and_headers),
        cmocka_unit_test(headers_cannot_be_smuggled),
        cmocka_unit_test(answers_come_back_with_their_headers),
        cmocka_unit_test(other_than_2xx_is_an_error_unless_told),
        cmocka_unit_test(redirects_are_followed),
        cmocka_unit_test(every_address_of_a_name_is_tried),
        cmocka_unit_test(a_server_that_does_not_answer_is_given_up),
        cmocka_unit_test(a_connection_that_breaks_is_an_error),
        cmocka_unit_test(an_answer_over_the_limit_is_an_error),
        cmocka_unit_test(bad_metadata_name_the_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
