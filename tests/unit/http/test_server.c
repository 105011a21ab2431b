#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/web.h"
#include "lib/wire.h"

/* One server, one client connection whose other end is the test. The handler keeps what it gets and
 * does what the test says. */
typedef struct site {
    wire w;
    outr_http_server *server;
    wire_stream *s;
    outr_exchange *x; /* the last one that is still open */
    unsigned requests, finished, broken, gone;
    char seen[512]; /* "METHOD target;" of each request */
    enum { ANSWER, ECHO, HOLD, TUNNEL } mode;
    web_taker taker;
    outr_sink *out;
    bool is_drained;
    uint64_t received, sent;
} site;

static void on_gone(outr_exchange *x, const outr_err *err)
{
    site *st = x->user;
    (void)err;
    st->gone++;
}

static void on_request(void *ctx, outr_exchange *x)
{
    site *st = ctx;
    size_t n = strlen(st->seen);
    snprintf(st->seen + n, sizeof st->seen - n, OUTR_FMT " " OUTR_FMT ";", OUTR_ARG(x->req.method),
             OUTR_ARG(x->req.target));
    st->requests++;
    x->user = st;
    x->on_gone = on_gone;
    if (st->mode == ANSWER)
        web_answer(x, 200, "hello");
    else if (st->mode == ECHO && x->body)
        web_echo(x, x->body, 200);
    else if (st->mode == TUNNEL && x->tunnel)
        web_echo(x, x->tunnel, 101);
    else
        st->x = x;
}

static void on_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    site *st = ctx;
    st->finished++;
    st->broken += is_broken;
    st->received = x->received_bytes;
    st->sent = x->sent_bytes;
}

static const outr_http_handler handler = {on_request, on_finished};

static site *open_site(const outr_http_server_options *with)
{
    site *st = outr_alloc(sizeof *st);
    outr_http_server_options o = with ? *with : (outr_http_server_options){0};
    wire_init(&st->w, 1);
    o.loop = st->w.loop;
    o.handler = &handler;
    o.ctx = st;
    o.allow_h1 = true;
    o.allow_h2 = !with || with->allow_h2;
    st->server = outr_http_server_new(&o);
    st->s = wire_open(&st->w);
    outr_http_server_take(st->server, &st->s->base);
    return st;
}

static void close_site(site *st)
{
    outr_http_server_free(st->server);
    if (st->x)
        outr_http_done(st->x);
    wire_run(&st->w);
    assert_int_equal(st->requests, st->finished);
    wire_done(&st->w);
    web_taker_done(&st->taker);
    free(st);
}

static const char *say(site *st, const char *text)
{
    wire_feed_z(st->s, text);
    assert_true(wire_run(&st->w));
    return wire_take(st->s, NULL);
}

static void starts_with(const char *text, const char *start)
{
    if (strncmp(text, start, strlen(start)) != 0)
        fail_msg("'%s' does not start with '%s'", text, start);
}

static void contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' does not contain '%s'", text, part);
}

static unsigned count_of(const char *text, const char *part)
{
    unsigned n = 0;
    while ((text = strstr(text, part))) {
        n++;
        text += strlen(part);
    }
    return n;
}

#define GET "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

static void a_request_is_answered_and_the_connection_kept(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    const char *got = say(st, GET);
    starts_with(
        got,
        "HTTP/1.1 200 OK\r\nDate: Tue, 14 Nov 2023 22:13:21 GMT\r\nContent-Length: 5\r\n\r\nhello");
    starts_with(say(st, GET), "HTTP/1.1 200 OK\r\n");
    assert_int_equal(st->finished, 2);
    assert_false(st->s->base.is_closing);
    assert_int_equal(outr_http_server_requests(st->server), 0);
    close_site(st);
}

static void a_head_may_come_byte_by_byte(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->w.piece_max = 1;
    starts_with(say(st, GET), "HTTP/1.1 200 OK\r\n");
    close_site(st);
}

static void methods_of_any_name_and_case_reach_the_handler(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    say(st, "get /a HTTP/1.1\r\nHost: h\r\n\r\nBREW /b HTTP/1.1\r\nHost: h\r\n\r\nCONNECT a:1 "
            "HTTP/1.1\r\nHost: h\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_string_equal(st->seen, "get /a;BREW /b;CONNECT a:1;OPTIONS *;");
    close_site(st);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    say(st, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    say(st, "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_string_equal(st->seen, "GET /1;");
    for (int i = 1; i <= 3; i++) {
        outr_exchange *x = st->x;
        char text[8];
        snprintf(text, sizeof text, "r%d", i);
        st->x = NULL;
        web_answer(x, 200, text);
        wire_run(&st->w);
    }
    const char *got = wire_take(st->s, NULL);
    assert_true(strstr(got, "r1") < strstr(got, "r2") && strstr(got, "r2") < strstr(got, "r3"));
    assert_string_equal(st->seen, "GET /1;GET /2;GET /3;");
    close_site(st);
}

static void what_is_sent_ahead_is_bounded(void **state)
{
    site *st = open_site(NULL);
    static char junk[OUTR_READ_CHUNK];
    (void)state;
    st->mode = HOLD;
    say(st, GET);
    memset(junk, 'x', sizeof junk);
    for (int i = 0; i < 8; i++)
        wire_feed(st->s, junk, sizeof junk);
    wire_run(&st->w);
    assert_true(wire_unread(st->s) >= 6 * sizeof junk);
    close_site(st);
}

static void bodies_go_both_ways_in_every_framing(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = ECHO;
    contains(say(st, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"),
             "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_int_equal(st->received, 5);
    assert_int_equal(st->sent, 5);
    contains(say(st, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                     "chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n"),
             "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n");
    contains(say(st, "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"),
             "Connection: close\r\n\r\nhello");
    assert_true(st->s->base.is_closing);
    close_site(st);
}

static void head_204_and_304_have_no_body(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    const char *got = say(st, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    contains(got, "Content-Length: 5\r\n");
    assert_null(strstr(got, "hello"));
    st->mode = HOLD;
    say(st, GET);
    outr_exchange *x = outr_take(&st->x);
    web_answer(x, 304, "hello");
    wire_run(&st->w);
    got = wire_take(st->s, NULL);
    contains(got, "HTTP/1.1 304 Not Modified\r\n");
    contains(got, "Content-Length: 5\r\n");
    assert_null(strstr(got, "hello"));
    say(st, GET);
    x = outr_take(&st->x);
    web_answer(x, 204, "");
    wire_run(&st->w);
    got = wire_take(st->s, NULL);
    assert_null(strstr(got, "Content-Length"));
    close_site(st);
}

static void names_from_http2_come_out_in_canonical_case(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    say(st, GET);
    outr_exchange *x = outr_take(&st->x);
    outr_http_response head = {.status = 200, .content_length = 0};
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("x-foo-bar"), OUTR_STR("1"));
    outr_headers_add(&head.headers, OUTR_STR("eTag"), OUTR_STR("2"));
    outr_headers_add(&head.headers, OUTR_STR("connection"), OUTR_STR("keep-alive"));
    outr_headers_add(&head.headers, OUTR_STR("x-split"), OUTR_STR("a\r\nSet-Cookie: b"));
    outr_headers_add(&head.headers, OUTR_STR("x bad"), OUTR_STR("a"));
    outr_http_reply(x, &head, OUTR_STR_NONE);
    outr_http_done(x);
    wire_run(&st->w);
    const char *got = wire_take(st->s, NULL);
    contains(got, "X-Foo-Bar: 1\r\neTag: 2\r\nX-Split: a  Set-Cookie: b\r\nDate: ");
    close_site(st);
}

static void interim_responses_come_first(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    say(st, GET);
    outr_http_response early = {.status = 103};
    outr_headers_init(&early.headers, st->x->arena);
    outr_headers_add(&early.headers, OUTR_STR("link"), OUTR_STR("</a>"));
    outr_http_inform(st->x, &early);
    outr_exchange *x = outr_take(&st->x);
    web_answer(x, 200, "hello");
    wire_run(&st->w);
    starts_with(wire_take(st->s, NULL),
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n");
    close_site(st);
}

static void continue_is_said_when_the_body_is_wanted(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    assert_string_equal(
        say(st, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
        "");
    web_taker_start(&st->taker, st->x->body);
    assert_string_equal(say(st, ""), "HTTP/1.1 100 Continue\r\n\r\n");
    say(st, "hello");
    assert_true(st->taker.has_ended);
    outr_exchange *x = outr_take(&st->x);
    web_answer(x, 200, "");
    starts_with(say(st, ""), "HTTP/1.1 200 OK\r\n");
    assert_false(st->s->base.is_closing);
    close_site(st);
}

static void a_body_that_was_never_asked_for_ends_the_connection(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    const char *got =
        say(st, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    starts_with(got, "HTTP/1.1 200 OK\r\n");
    contains(got, "Connection: close\r\n");
    wire_sleep(&st->w, 2 * OUTR_SEC);
    assert_true(st->s->is_gone);
    close_site(st);
}

static void what_is_no_request_is_refused_in_words(void **state)
{
    static const struct {
        const char *text, *status;
    } cases[] = {
        {"GARBAGE\r\n\r\n", "400 Bad Request"},
        {"\x16\x03\x01", "400 Bad Request"},
        {"GET / HTTP/1.1\r\n\r\n", "400 Bad Request"},
        {"GET / HTTP/3.1\r\nHost: h\r\n\r\n", "505 HTTP Version Not Supported"},
        {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", "501 Not Implemented"},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: "
         "chunked\r\n\r\n0\r\n\r\n" GET,
         "400 Bad Request"},
        {"GET / HTTP/1.1\r\nHost: h\r\nExpect: nothing\r\n\r\n", "417 Expectation Failed"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        site *st = open_site(NULL);
        char text[256];
        snprintf(
            text, sizeof text,
            "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n%s",
            cases[i].status, cases[i].status);
        assert_string_equal(say(st, cases[i].text), text);
        assert_int_equal(st->requests, 0);
        assert_true(st->s->is_shut);
        wire_eof(st->s);
        wire_run(&st->w);
        assert_true(st->s->is_gone);
        close_site(st);
    }
}

static void heads_over_the_limit_are_431(void **state)
{
    const outr_http_server_options o = {.limits = {.max_header_bytes = 1024}};
    site *st = open_site(&o);
    char big[2048];
    (void)state;
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    wire_feed_z(st->s, "GET / HTTP/1.1\r\nX: ");
    starts_with(say(st, big), "HTTP/1.1 431 Request Header Fields Too Large\r\n");
    close_site(st);
}

static void malformed_chunks_are_the_handlers_to_answer(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    say(st, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n");
    web_taker_start(&st->taker, st->x->body);
    wire_run(&st->w);
    assert_true(st->taker.was_aborted);
    assert_int_equal(st->taker.err.code, OUTR_INVALID_ARGUMENT);
    outr_exchange *x = outr_take(&st->x);
    web_answer(x, 400, "bad");
    const char *got = say(st, GET);
    starts_with(got, "HTTP/1.1 400 Bad Request\r\n");
    assert_int_equal(st->requests, 1);
    close_site(st);
}

static void a_full_sink_stops_the_reading(void **state)
{
    site *st = open_site(NULL);
    static char piece[16 * 1024];
    (void)state;
    st->mode = HOLD;
    say(st, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n");
    st->taker.is_full = true;
    web_taker_start(&st->taker, st->x->body);
    for (int i = 0; i < 64; i++)
        wire_feed(st->s, piece, sizeof piece);
    wire_run(&st->w);
    assert_true(st->taker.body.n + 256 * 1024 + wire_unread(st->s) >= 1048576);
    assert_true(wire_unread(st->s) > 512 * 1024);
    web_taker_resume(&st->taker);
    wire_run(&st->w);
    assert_int_equal(st->taker.body.n, 1048576);
    assert_true(st->taker.has_ended);
    close_site(st);
}

static void a_peer_that_reads_nothing_stops_the_source_and_is_dropped(void **state)
{
    site *st = open_site(NULL);
    web_giver giver;
    static char piece[32 * 1024 + 1];
    (void)state;
    st->mode = HOLD;
    say(st, GET);
    st->s->is_stalled = true;
    outr_http_response head = {.status = 200, .content_length = -1};
    outr_headers_init(&head.headers, st->x->arena);
    web_giver_init(&giver, -1);
    outr_source_attach(&giver.base, outr_http_respond(st->x, &head));
    memset(piece, 'p', sizeof piece - 1);
    int given = 0;
    for (; given < 100 && web_give(&giver, piece); given++)
        wire_run(&st->w);
    assert_true(given < 5);
    wire_sleep(&st->w, 60 * OUTR_SEC);
    assert_int_equal(st->gone, 0);
    wire_sleep(&st->w, 61 * OUTR_SEC);
    assert_true(st->s->was_reset);
    assert_int_equal(st->gone, 1);
    outr_exchange *x = outr_take(&st->x);
    web_give_abort(&giver);
    outr_http_done(x);
    close_site(st);
}

static void a_slow_reader_gets_everything(void **state)
{
    site *st = open_site(NULL);
    web_giver giver;
    static char piece[32 * 1024 + 1];
    size_t n, total = 0;
    (void)state;
    st->mode = HOLD;
    say(st, GET);
    outr_http_response head = {.status = 200, .content_length = -1};
    outr_headers_init(&head.headers, st->x->arena);
    web_giver_init(&giver, -1);
    outr_source_attach(&giver.base, outr_http_respond(st->x, &head));
    memset(piece, 'p', sizeof piece - 1);
    for (int i = 0; i < 200; i++) {
        st->s->is_stalled = i % 5 != 4;
        if (giver.is_wanted)
            web_give(&giver, piece);
        wire_run(&st->w);
        wire_take(st->s, &n);
        total += n;
        wire_sleep(&st->w, OUTR_SEC);
    }
    assert_int_equal(st->gone, 0);
    assert_true(total > 40 * sizeof piece);
    web_give_end(&giver);
    outr_exchange *x = outr_take(&st->x);
    outr_http_done(x);
    wire_run(&st->w);
    close_site(st);
}

static void slow_heads_and_slow_bodies_time_out(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    for (int i = 0; i < 9; i++) {
        say(st, "G");
        wire_sleep(&st->w, OUTR_SEC);
    }
    assert_string_equal(wire_take(st->s, NULL), "");
    wire_sleep(&st->w, 2 * OUTR_SEC);
    starts_with(wire_take(st->s, NULL), "HTTP/1.1 408 Request Timeout\r\n");
    close_site(st);

    st = open_site(NULL);
    st->mode = HOLD;
    say(st, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe");
    web_taker_start(&st->taker, st->x->body);
    wire_sleep(&st->w, 119 * OUTR_SEC);
    assert_false(st->taker.was_aborted);
    say(st, "l");
    wire_sleep(&st->w, 119 * OUTR_SEC);
    assert_false(st->taker.was_aborted);
    wire_sleep(&st->w, 2 * OUTR_SEC);
    assert_int_equal(st->taker.err.code, OUTR_DEADLINE_EXCEEDED);
    close_site(st);
}

static void a_handler_may_take_its_time(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    say(st, GET);
    wire_sleep(&st->w, 3600 * OUTR_SEC);
    assert_int_equal(st->gone, 0);
    outr_exchange *x = outr_take(&st->x);
    web_answer(x, 200, "late");
    contains(say(st, ""), "late");
    close_site(st);
}

static void idle_connections_are_closed(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    say(st, GET);
    wire_sleep(&st->w, 119 * OUTR_SEC);
    assert_false(st->s->is_gone);
    wire_sleep(&st->w, 2 * OUTR_SEC);
    assert_true(st->s->is_gone);
    assert_int_equal(outr_http_server_connections(st->server), 0);
    close_site(st);
}

static void a_client_that_leaves_is_noticed_while_the_handler_works(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    say(st, GET);
    wire_eof(st->s);
    wire_run(&st->w);
    assert_int_equal(st->gone, 1);
    outr_exchange *x = outr_take(&st->x);
    web_answer(x, 200, "still");
    contains(say(st, ""), "Connection: close\r\n\r\nstill");
    assert_true(st->s->is_gone);
    close_site(st);

    st = open_site(NULL);
    st->mode = HOLD;
    say(st, GET);
    wire_break(st->s);
    wire_run(&st->w);
    assert_int_equal(st->gone, 1);
    assert_true(st->s->is_gone);
    x = outr_take(&st->x);
    web_answer(x, 200, "nobody");
    wire_run(&st->w);
    assert_int_equal(st->broken, 1);
    close_site(st);
}

static void pipelined_and_half_closed_gets_all_answers(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    wire_feed_z(st->s, GET GET);
    wire_eof(st->s);
    wire_run(&st->w);
    assert_int_equal(st->gone, 0);
    outr_exchange *x = outr_take(&st->x);
    web_answer(x, 200, "one");
    wire_run(&st->w);
    assert_non_null(st->x);
    x = outr_take(&st->x);
    web_answer(x, 200, "two");
    const char *got = say(st, "");
    contains(got, "one");
    contains(got, "two");
    assert_true(st->s->is_gone);
    close_site(st);
}

static void pitfall_39_a_response_that_fails_never_ends_cleanly(void **state)
{
    static const struct {
        const char *request;
        int64_t length;
        bool by_done, is_reset;
    } cases[] = {
        {GET, -1, false, false},
        {GET, 10, false, false},
        {GET, -1, true, false},
        {"GET / HTTP/1.0\r\n\r\n", -1, false, true},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        site *st = open_site(NULL);
        web_giver giver;
        st->mode = HOLD;
        say(st, cases[i].request);
        outr_http_response head = {.status = 200, .content_length = cases[i].length};
        outr_headers_init(&head.headers, st->x->arena);
        web_giver_init(&giver, -1);
        outr_source_attach(&giver.base, outr_http_respond(st->x, &head));
        web_give(&giver, "part");
        wire_run(&st->w);
        outr_exchange *x = outr_take(&st->x);
        if (!cases[i].by_done)
            web_give_abort(&giver);
        outr_http_done(x);
        wire_run(&st->w);
        assert_null(strstr(wire_take(st->s, NULL), "\r\n0\r\n"));
        assert_true(st->s->is_gone);
        assert_int_equal(st->s->was_reset, cases[i].is_reset);
        assert_int_equal(st->broken, 1);
        close_site(st);
    }
}

static void a_response_is_no_longer_than_it_says(void **state)
{
    site *st = open_site(NULL);
    web_giver giver;
    (void)state;
    st->mode = HOLD;
    say(st, GET);
    outr_http_response head = {.status = 200, .content_length = 4};
    outr_headers_init(&head.headers, st->x->arena);
    web_giver_init(&giver, -1);
    outr_source_attach(&giver.base, outr_http_respond(st->x, &head));
    web_give(&giver, "four and more");
    web_give_end(&giver);
    outr_exchange *x = outr_take(&st->x);
    outr_http_done(x);
    const char *got = say(st, "");
    assert_string_equal(strstr(got, "\r\n\r\n"), "\r\n\r\nfour");
    close_site(st);
}

static void a_short_rest_of_the_body_is_read_a_long_one_is_not(void **state)
{
    site *st = open_site(NULL);
    static char piece[64 * 1024];
    (void)state;
    say(st, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n");
    wire_feed(st->s, piece, sizeof piece);
    starts_with(say(st, GET), "HTTP/1.1 200 OK\r\n");
    assert_int_equal(st->finished, 2);
    wire_take(st->s, NULL);
    say(st, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10485760\r\n\r\n");
    assert_true(st->s->is_shut);
    close_site(st);
}

static void an_answered_request_and_a_tunnel_that_is_over_wait_for_no_client(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    starts_with(say(st, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nonly a part"),
                "HTTP/1.1 200 OK\r\n");
    assert_int_equal(st->finished, 0); /* the rest of the body is read */
    wire_eof(st->s);
    wire_run(&st->w);
    assert_int_equal(st->finished, 1);
    assert_int_equal(outr_http_server_requests(st->server), 0);
    assert_true(st->s->is_gone);
    close_site(st);

    st = open_site(NULL);
    st->mode = HOLD;
    say(st, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    outr_exchange *x = outr_take(&st->x);
    web_answer(x, 101, "bye"); /* our side of the tunnel ends, and the handler is done */
    wire_run(&st->w);
    assert_int_equal(outr_http_server_requests(st->server), 0);
    wire_sleep(&st->w, 2 * OUTR_SEC); /* the client may take its time, not for ever */
    assert_true(st->s->is_gone);
    close_site(st);
}

static void upgrades_become_raw_bytes(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = TUNNEL;
    const char *got = say(
        st,
        "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly");
    starts_with(got, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
                     "websocket\r\n\r\nearly");
    assert_string_equal(say(st, "GET / HTTP/1.1\r\n"), "GET / HTTP/1.1\r\n");
    wire_eof(st->s);
    wire_run(&st->w);
    assert_true(st->s->is_gone);
    assert_int_equal(st->broken, 0);
    close_site(st);
}

static void an_upgrade_may_be_declined(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    starts_with(say(st, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
                "HTTP/1.1 200 OK\r\n");
    starts_with(say(st, GET), "HTTP/1.1 200 OK\r\n");
    close_site(st);
}

static void draining_finishes_what_is_in_flight(void **state);
static void on_drained(void *ctx)
{
    ((site *)ctx)->is_drained = true;
}

static void draining_finishes_what_is_in_flight(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    wire_stream *idle = wire_open(&st->w);
    outr_http_server_take(st->server, &idle->base);
    say(st, GET);
    outr_http_server_drain(st->server, on_drained, st);
    wire_run(&st->w);
    assert_true(idle->is_gone);
    assert_false(st->is_drained);
    outr_exchange *x = outr_take(&st->x);
    web_answer(x, 200, "last");
    contains(say(st, ""), "Connection: close\r\n\r\nlast");
    assert_true(st->is_drained);
    close_site(st);
}

static void old_connections_are_closed_after_an_answer(void **state)
{
    const outr_http_server_options o = {.max_age_ns = 10 * OUTR_SEC};
    site *st = open_site(&o);
    (void)state;
    assert_null(strstr(say(st, GET), "Connection: close"));
    wire_sleep(&st->w, 11 * OUTR_SEC);
    contains(say(st, GET), "Connection: close");
    assert_true(st->s->is_gone);
    close_site(st);
}

static void surplus_connections_are_reset(void **state)
{
    const outr_http_server_options o = {.max_connections = 1};
    site *st = open_site(&o);
    (void)state;
    wire_stream *second = wire_open(&st->w);
    outr_http_server_take(st->server, &second->base);
    wire_run(&st->w);
    assert_true(second->was_reset);
    starts_with(say(st, GET), "HTTP/1.1 200 OK\r\n");
    close_site(st);
}

static void every_connection_ends_when_the_server_is_freed(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    say(st, GET);
    close_site(st);
    st = open_site(NULL);
    say(st, "GET / HT");
    close_site(st);
    st = open_site(NULL);
    say(st, "PRI * HT");
    close_site(st);
}

static void many_requests_reuse_their_memory(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    for (int i = 0; i < 100; i++)
        wire_feed_z(st->s, GET);
    const char *got = say(st, "");
    assert_int_equal(count_of(got, "hello"), 100);
    close_site(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_answered_and_the_connection_kept),
        cmocka_unit_test(a_head_may_come_byte_by_byte),
        cmocka_unit_test(methods_of_any_name_and_case_reach_the_handler),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(what_is_sent_ahead_is_bounded),
        cmocka_unit_test(bodies_go_both_ways_in_every_framing),
        cmocka_unit_test(head_204_and_304_have_no_body),
        cmocka_unit_test(names_from_http2_come_out_in_canonical_case),
        cmocka_unit_test(interim_responses_come_first),
        cmocka_unit_test(continue_is_said_when_the_body_is_wanted),
        cmocka_unit_test(a_body_that_was_never_asked_for_ends_the_connection),
        cmocka_unit_test(what_is_no_request_is_refused_in_words),
        cmocka_unit_test(heads_over_the_limit_are_431),
        cmocka_unit_test(malformed_chunks_are_the_handlers_to_answer),
        cmocka_unit_test(a_full_sink_stops_the_reading),
        cmocka_unit_test(a_peer_that_reads_nothing_stops_the_source_and_is_dropped),
        cmocka_unit_test(a_slow_reader_gets_everything),
        cmocka_unit_test(slow_heads_and_slow_bodies_time_out),
        cmocka_unit_test(a_handler_may_take_its_time),
        cmocka_unit_test(idle_connections_are_closed),
        cmocka_unit_test(a_client_that_leaves_is_noticed_while_the_handler_works),
        cmocka_unit_test(pipelined_and_half_closed_gets_all_answers),
        cmocka_unit_test(pitfall_39_a_response_that_fails_never_ends_cleanly),
        cmocka_unit_test(a_response_is_no_longer_than_it_says),
        cmocka_unit_test(a_short_rest_of_the_body_is_read_a_long_one_is_not),
        cmocka_unit_test(an_answered_request_and_a_tunnel_that_is_over_wait_for_no_client),
        cmocka_unit_test(upgrades_become_raw_bytes),
        cmocka_unit_test(an_upgrade_may_be_declined),
        cmocka_unit_test(draining_finishes_what_is_in_flight),
        cmocka_unit_test(old_connections_are_closed_after_an_answer),
        cmocka_unit_test(surplus_connections_are_reset),
        cmocka_unit_test(every_connection_ends_when_the_server_is_freed),
        cmocka_unit_test(many_requests_reuse_their_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
