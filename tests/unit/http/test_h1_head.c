#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "http/h1_head.h"

typedef struct parsed {
    outr_arena *arena;
    outr_http_request req;
    outr__h1_framing framing;
    int status;
} parsed;

static parsed parse_n(const char *text, size_t n)
{
    parsed p = {.arena = outr_arena_new(OUTR_MIB)};
    p.status = outr__h1_parse_request(p.arena, outr_str_of(text, n), 100, &p.req, &p.framing);
    return p;
}

static int status_of(const char *text)
{
    parsed p = parse_n(text, strlen(text));
    outr_arena_free(p.arena);
    return p.status;
}

static void a_plain_request(void **state)
{
    const char text[] = "GET /a%20b?x=1 HTTP/1.1\r\nHost: h:80\r\nX-One:  a b \t\r\nx-two:\r\n\r\n";
    parsed p = parse_n(text, sizeof text - 1);
    (void)state;
    assert_int_equal(p.status, 0);
    assert_true(outr_str_is(p.req.method, "GET"));
    assert_true(outr_str_is(p.req.target, "/a%20b?x=1"));
    assert_true(outr_str_is(p.req.authority, "h:80"));
    assert_int_equal(p.req.headers.count, 2);
    assert_true(outr_str_is(p.req.headers.items[0].name, "X-One"));
    assert_true(outr_str_is(p.req.headers.items[0].value, "a b"));
    assert_int_equal(p.req.headers.items[1].value.n, 0);
    assert_int_equal(p.req.content_length, 0);
    assert_true(p.framing.keep_alive);
    outr_arena_free(p.arena);
}

static void any_token_is_a_method(void **state)
{
    (void)state;
    assert_int_equal(status_of("get / HTTP/1.1\r\nHost: h\r\n\r\n"), 0);
    assert_int_equal(status_of("BREW / HTTP/1.1\r\nHost: h\r\n\r\n"), 0);
    assert_int_equal(status_of("G@T / HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
    assert_int_equal(status_of(" / HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
}

static void request_lines_that_are_none(void **state)
{
    const char *const lines[] = {"GARBAGE",
                                 "GET /",
                                 "GET / HTTP/1.1 ",
                                 "GET  / HTTP/1.1",
                                 "GET / HTTP/1",
                                 "GET / HTTP/11",
                                 "GET / HTTP/1.x",
                                 "GET / http/1.1",
                                 "GET a HTTP/1.1",
                                 "GET /\t HTTP/1.1",
                                 "GET /\x01 HTTP/1.1",
                                 "GET /\x7f HTTP/1.1",
                                 ""};
    char text[128];
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(lines); i++) {
        snprintf(text, sizeof text, "%s\r\nHost: h\r\n\r\n", lines[i]);
        assert_int_equal(status_of(text), 400);
    }
    assert_int_equal(status_of("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), 505);
}

static void targets_in_other_forms(void **state)
{
    static const struct {
        const char *text, *authority, *target;
    } cases[] = {
        {"GET http://other:1/p?q HTTP/1.1\r\nHost: h\r\n\r\n", "other:1", "/p?q"},
        {"GET http://other HTTP/1.1\r\nHost: h\r\n\r\n", "other", "/"},
        {"GET http://u@other?q HTTP/1.1\r\nHost: h\r\n\r\n", "other", "/?q"},
        {"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "h", "*"},
        {"CONNECT a:443 HTTP/1.1\r\nHost: h\r\n\r\n", "h", "a:443"},
        {"GET //x/../y HTTP/1.1\r\nHost: h\r\n\r\n", "h", "//x/../y"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        parsed p = parse_n(cases[i].text, strlen(cases[i].text));
        assert_int_equal(p.status, 0);
        assert_true(outr_str_is(p.req.authority, cases[i].authority));
        assert_true(outr_str_is(p.req.target, cases[i].target));
        outr_arena_free(p.arena);
    }
    assert_int_equal(status_of("GET http://a b/ HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
    assert_int_equal(status_of("GET http://a\\b/ HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
}

static void host_is_there_once(void **state)
{
    (void)state;
    assert_int_equal(status_of("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_int_equal(status_of("GET / HTTP/1.0\r\n\r\n"), 0);
    assert_int_equal(status_of("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\r\nHost: \r\n\r\n"), 0);
}

static void pitfall_37_what_two_parsers_could_read_differently_is_refused(void **state)
{
    const char *const heads[] = {
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length : 1\r\n",
        "X: a\r\n folded\r\n",
        "X: a\r\n\tfolded\r\n",
        " X: a\r\n",
        "X: a\nY: b\r\n",
        "X: a\rb\r\n",
        "X: a\r\r\n",
        "X\x01: a\r\n",
        ": a\r\n",
        "X\r\n",
        "X y: a\r\n",
        "X: \x01\r\n",
        "X: \x7f\r\n",
    };
    char text[256];
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(heads); i++) {
        snprintf(text, sizeof text, "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n", heads[i]);
        assert_int_equal(status_of(text), 400);
    }
    const char nul[] = "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n";
    parsed p = parse_n(nul, sizeof nul - 1);
    assert_int_equal(p.status, 400);
    outr_arena_free(p.arena);
    assert_int_equal(
        status_of("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
        0);
    assert_int_equal(status_of("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n"),
                     501);
    assert_int_equal(
        status_of("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), 501);
    assert_int_equal(status_of("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                               "chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
                     501);
    assert_int_equal(status_of("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"),
                     400);
}

static void lines_may_all_end_in_lf_when_there_is_no_body(void **state)
{
    (void)state;
    assert_int_equal(status_of("GET / HTTP/1.1\nHost: h\n\n"), 0);
    assert_int_equal(status_of("GET / HTTP/1.1\nHost: h\nContent-Length: 1\n\n"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\nHost: h\r\n\n"), 400);
    assert_int_equal(status_of("GET / HTTP/1.1\r\nHost: h\n\r\n"), 400);
}

static void expectations(void **state)
{
    const char text[] =
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n";
    parsed p = parse_n(text, sizeof text - 1);
    (void)state;
    assert_int_equal(p.status, 0);
    assert_true(p.req.wants_continue);
    assert_int_equal(p.req.headers.count, 0);
    outr_arena_free(p.arena);
    assert_int_equal(status_of("POST / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n"), 417);
}

static void keep_alive_by_version_and_header(void **state)
{
    static const struct {
        const char *text;
        bool keeps;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        parsed p = parse_n(cases[i].text, strlen(cases[i].text));
        assert_int_equal(p.status, 0);
        assert_int_equal(p.framing.keep_alive, cases[i].keeps);
        outr_arena_free(p.arena);
    }
}

static void an_upgrade_is_seen_without_a_body_only(void **state)
{
    const char with[] =
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const char without[] = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n";
    const char body[] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: "
                        "websocket\r\nContent-Length: 2\r\n\r\n";
    parsed p = parse_n(with, sizeof with - 1);
    (void)state;
    assert_true(outr_str_is(p.req.upgrade, "websocket"));
    outr_arena_free(p.arena);
    p = parse_n(without, sizeof without - 1);
    assert_int_equal(p.req.upgrade.n, 0);
    outr_arena_free(p.arena);
    p = parse_n(body, sizeof body - 1);
    assert_int_equal(p.req.upgrade.n, 0);
    outr_arena_free(p.arena);
}

static void too_many_headers(void **state)
{
    outr_buf text = OUTR_BUF_MAX(OUTR_MIB);
    (void)state;
    outr_buf_z(&text, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 100; i++)
        outr_buf_printf(&text, "X%d: 1\r\n", i);
    outr_buf_z(&text, "\r\n");
    parsed p = parse_n(text.p, text.n);
    assert_int_equal(p.status, 431);
    outr_arena_free(p.arena);
    outr_buf_done(&text);
}

static void responses(void **state)
{
    static const struct {
        const char *text;
        outr_code code;
        int status;
        int64_t length;
        bool chunked, keeps;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", OUTR_OK, 200, 5, false, true},
        {"HTTP/1.1 200\r\n\r\n", OUTR_OK, 200, -1, false, true},
        {"HTTP/1.0 204 No\r\n\r\n", OUTR_OK, 204, -1, false, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 3\r\n\r\n", OUTR_OK, 200,
         -1, true, false},
        {"HTTP/1.1 200 OK\nX: y\n\n", OUTR_OK, 200, -1, false, true},
        {"HTTP/1.1 99 OK\r\n\r\n", OUTR_INTERNAL, 0, 0, false, false},
        {"HTTP/1.1 2000 OK\r\n\r\n", OUTR_INTERNAL, 0, 0, false, false},
        {"HTTP/2.0 200 OK\r\n\r\n", OUTR_INTERNAL, 0, 0, false, false},
        {"ICY 200 OK\r\n\r\n", OUTR_INTERNAL, 0, 0, false, false},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", OUTR_INTERNAL, 0, 0,
         false, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", OUTR_INTERNAL, 0, 0, false, false},
        {"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", OUTR_INTERNAL, 0, 0, false, false},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        outr_arena *arena = outr_arena_new(OUTR_MIB);
        outr_http_response head;
        outr__h1_framing framing;
        outr_err err;
        outr_code rc =
            outr__h1_parse_response(arena, outr_str_from(cases[i].text), 10, &head, &framing, &err);
        assert_int_equal(rc, cases[i].code);
        if (!rc) {
            assert_int_equal(head.status, cases[i].status);
            assert_int_equal(head.content_length, cases[i].length);
            assert_int_equal(framing.is_chunked, cases[i].chunked);
            assert_int_equal(framing.keep_alive, cases[i].keeps);
        }
        outr_arena_free(arena);
    }
}

static void a_head_is_collected_from_any_pieces(void **state)
{
    const char text[] = "GET / HTTP/1.1\r\nHost: h\r\n\r\nrest";
    (void)state;
    for (size_t piece = 1; piece < sizeof text; piece++) {
        outr__h1_collector c = {0};
        outr_str head;
        int status = 0;
        const char *p = text, *end = text + sizeof text - 1;
        while (!status) {
            const char *stop = OUTR_MIN(p + piece, end);
            status = outr__h1_collect(&c, &p, stop, 100, &head);
            assert_true(status || p == stop);
        }
        assert_int_equal(status, 1);
        assert_int_equal(head.n, sizeof text - 1 - 4);
        assert_memory_equal(head.p, text, head.n);
        assert_memory_equal(p, "rest", 4);
        outr__h1_collect_done(&c);
    }
}

static void a_head_over_the_limit_is_refused_in_any_pieces(void **state)
{
    char text[300];
    (void)state;
    memset(text, 'a', sizeof text);
    for (size_t piece = 1; piece <= sizeof text; piece += 37) {
        outr__h1_collector c = {0};
        outr_str head;
        int status = 0;
        const char *p = text;
        while (!status && p < text + sizeof text)
            status = outr__h1_collect(&c, &p, OUTR_MIN(p + piece, text + sizeof text), 200, &head);
        assert_int_equal(status, 431);
        outr__h1_collect_done(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_request),
        cmocka_unit_test(any_token_is_a_method),
        cmocka_unit_test(request_lines_that_are_none),
        cmocka_unit_test(targets_in_other_forms),
        cmocka_unit_test(host_is_there_once),
        cmocka_unit_test(pitfall_37_what_two_parsers_could_read_differently_is_refused),
        cmocka_unit_test(lines_may_all_end_in_lf_when_there_is_no_body),
        cmocka_unit_test(expectations),
        cmocka_unit_test(keep_alive_by_version_and_header),
        cmocka_unit_test(an_upgrade_is_seen_without_a_body_only),
        cmocka_unit_test(too_many_headers),
        cmocka_unit_test(responses),
        cmocka_unit_test(a_head_is_collected_from_any_pieces),
        cmocka_unit_test(a_head_over_the_limit_is_refused_in_any_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
