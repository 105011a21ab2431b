#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/web.h"
#include "lib/wire.h"

/* A pool whose servers are the test. */
typedef struct bench {
    wire w;
    outr_http_pool *pool;
} bench;

static bench *open_bench(const outr_http_pool_options *with)
{
    bench *b = outr_alloc(sizeof *b);
    outr_http_pool_options o = with ? *with : (outr_http_pool_options){0};
    wire_init(&b->w, 1);
    o.loop = b->w.loop;
    b->pool = outr_http_pool_new(&o);
    return b;
}

static void close_bench(bench *b)
{
    outr_http_pool_free(b->pool);
    wire_run(&b->w);
    wire_done(&b->w);
    free(b);
}

static const char *run(bench *b)
{
    assert_true(wire_run(&b->w));
    return b->w.last ? wire_take(b->w.last, NULL) : "";
}

static void reply(bench *b, const char *text)
{
    wire_feed_z(b->w.last, text);
    assert_true(wire_run(&b->w));
}

static bool body_is(const web_call *c, const char *text)
{
    return outr_str_is(outr_buf_view(&c->taker.body), text);
}

#define CALL(c, b)                                                                                 \
    web_call c;                                                                                    \
    web_call_init(&c, (b)->w.loop, "GET", "/")

static void a_call_and_another_on_the_same_connection(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    for (int i = 0; i < 2; i++) {
        CALL(c, b);
        web_call_start(&c, b->pool);
        assert_int_equal(outr_http_pool_in_flight(b->pool), 1);
        assert_string_equal(run(b), "GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello");
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.err.code, OUTR_OK);
        assert_int_equal(c.call.head.status, 200);
        assert_int_equal(c.call.head.content_length, 5);
        assert_true(outr_str_is(outr_headers_get(&c.call.head.headers, "x-a"), "b"));
        assert_true(body_is(&c, "hello") && c.taker.has_ended);
        assert_int_equal(c.call.was_reused, i);
        assert_int_equal(outr_http_pool_in_flight(b->pool), 0);
        web_call_done(&c);
    }
    assert_int_equal(b->w.connect_count, 1);
    close_bench(b);
}

static void bodies_are_framed_by_what_is_known(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    {
        CALL(c, b);
        c.req.method = OUTR_STR("PUT");
        web_call_bytes(&c, "hello", 5);
        web_call_start(&c, b->pool);
        assert_string_equal(run(b),
                            "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
        assert_true(c.call.body_taken);
        reply(b, "HTTP/1.1 204 No Content\r\n\r\n");
        assert_int_equal(c.done_count, 1);
        assert_null(c.call.response);
        web_call_done(&c);
    }
    {
        CALL(c, b);
        c.req.method = OUTR_STR("POST");
        web_call_bytes(&c, "hello", 5);
        c.req.content_length = -1;
        web_call_start(&c, b->pool);
        assert_string_equal(run(b), "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: "
                                    "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        reply(b, "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
                 "chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n");
        assert_true(body_is(&c, "hello"));
        assert_string_equal(c.taker.trailers, "X-T=1;");
        web_call_done(&c);
    }
    {
        CALL(c, b);
        c.req.method = OUTR_STR("POST");
        web_call_start(&c, b->pool);
        assert_string_equal(run(b), "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_int_equal(c.done_count, 1);
        web_call_done(&c);
    }
    assert_int_equal(b->w.connect_count, 1);
    close_bench(b);
}

static void a_response_may_come_byte_by_byte(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    b->w.piece_max = 1;
    CALL(c, b);
    web_call_start(&c, b->pool);
    run(b);
    reply(b, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "
             "OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
    assert_int_equal(c.informs, 2);
    assert_true(body_is(&c, "hello") && c.taker.has_ended);
    assert_int_equal(c.err.code, OUTR_OK);
    web_call_done(&c);
    close_bench(b);
}

static void head_and_304_carry_a_length_and_no_body(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    {
        CALL(c, b);
        c.req.method = OUTR_STR("HEAD");
        web_call_start(&c, b->pool);
        run(b);
        reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.call.head.content_length, 500);
        assert_null(c.call.response);
        web_call_done(&c);
    }
    {
        CALL(c, b);
        web_call_start(&c, b->pool);
        run(b);
        reply(b, "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n");
        assert_int_equal(c.done_count, 1);
        web_call_done(&c);
    }
    assert_int_equal(b->w.connect_count, 1);
    close_bench(b);
}

static void the_end_of_the_connection_may_end_the_body(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    CALL(c, b);
    web_call_start(&c, b->pool);
    run(b);
    reply(b, "HTTP/1.0 200 OK\r\n\r\nall of ");
    reply(b, "it");
    assert_int_equal(c.done_count, 0);
    wire_eof(b->w.last);
    run(b);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_OK);
    assert_true(body_is(&c, "all of it") && c.taker.has_ended);
    web_call_done(&c);
    close_bench(b);
}

static void pitfall_39_a_body_that_breaks_off_is_never_a_clean_end(void **state)
{
    const char *const starts[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n",
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(starts) * 2; i++) {
        bench *b = open_bench(NULL);
        CALL(c, b);
        web_call_start(&c, b->pool);
        run(b);
        reply(b, starts[i / 2]);
        if (i % 2)
            wire_break(b->w.last);
        else
            wire_eof(b->w.last);
        run(b);
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
        assert_int_equal(c.call.progress, OUTR_CALL_ANSWERED);
        assert_true(c.taker.was_aborted && !c.taker.has_ended);
        web_call_done(&c);
        close_bench(b);
    }
    bench *b = open_bench(NULL); /* without a length only a clean close is an end */
    CALL(c, b);
    web_call_start(&c, b->pool);
    run(b);
    reply(b, "HTTP/1.1 200 OK\r\n\r\npart");
    wire_break(b->w.last);
    run(b);
    assert_true(c.taker.was_aborted);
    web_call_done(&c);
    close_bench(b);
}

static void answers_that_are_none(void **state)
{
    const char *const texts[] = {
        "GARBAGE\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        bench *b = open_bench(NULL);
        CALL(c, b);
        web_call_start(&c, b->pool);
        run(b);
        reply(b, texts[i]);
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.err.code, OUTR_INTERNAL);
        assert_true(b->w.last->is_gone);
        web_call_done(&c);
        close_bench(b);
    }
}

static void heads_and_interim_heads_are_bounded(void **state)
{
    const outr_http_pool_options o = {.limits = {.max_header_bytes = 1024}};
    bench *b = open_bench(&o);
    char big[2048];
    (void)state;
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    {
        CALL(c, b);
        web_call_start(&c, b->pool);
        run(b);
        wire_feed_z(b->w.last, "HTTP/1.1 200 OK\r\nX: ");
        reply(b, big);
        assert_int_equal(c.err.code, OUTR_INTERNAL);
        web_call_done(&c);
    }
    {
        CALL(c, b);
        web_call_start(&c, b->pool);
        run(b);
        for (int i = 0; i < 100; i++)
            wire_feed_z(b->w.last, "HTTP/1.1 103 Early Hints\r\n\r\n");
        run(b);
        assert_int_equal(c.err.code, OUTR_INTERNAL);
        web_call_done(&c);
    }
    close_bench(b);
}

static void a_body_waits_for_its_sink(void **state)
{
    bench *b = open_bench(NULL);
    static char piece[16 * 1024];
    (void)state;
    CALL(c, b);
    c.taker.is_full = true;
    web_call_start(&c, b->pool);
    run(b);
    wire_feed_z(b->w.last, "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
    for (int i = 0; i < 64; i++)
        wire_feed(b->w.last, piece, sizeof piece);
    wire_run(&b->w);
    assert_true(wire_unread(b->w.last) > 512 * 1024);
    web_taker_resume(&c.taker);
    wire_run(&b->w);
    assert_int_equal(c.taker.body.n, 1048576);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_OK);
    web_call_done(&c);
    close_bench(b);
}

static void a_complete_answer_reaches_a_slow_sink_though_the_server_left(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    CALL(c, b);
    c.taker.is_full = true;
    web_call_start(&c, b->pool);
    run(b);
    wire_feed_z(b->w.last, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    run(b);
    wire_feed_z(b->w.last, "5\r\nworld\r\n0\r\n\r\n");
    wire_eof(b->w.last);
    run(b);
    assert_int_equal(c.done_count, 0);
    web_taker_resume(&c.taker);
    run(b);
    assert_true(body_is(&c, "helloworld") && c.taker.has_ended);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_OK);
    web_call_done(&c);
    close_bench(b);
}

static void pitfall_13_how_far_a_call_got_is_told(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    b->w.refuse_percent = 100;
    {
        CALL(c, b); /* nobody listens */
        web_call_start(&c, b->pool);
        run(b);
        assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
        assert_true(c.err.retriable);
        assert_int_equal(c.call.progress, OUTR_CALL_NOT_SENT);
        web_call_done(&c);
    }
    b->w.refuse_percent = 0;
    {
        CALL(c, b); /* the first one on a connection */
        web_call_start(&c, b->pool);
        run(b);
        wire_eof(b->w.last);
        run(b);
        assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
        assert_int_equal(c.call.progress, OUTR_CALL_SENT);
        assert_false(c.call.was_reused);
        web_call_done(&c);
    }
    {
        CALL(c, b);
        web_call_start(&c, b->pool);
        run(b);
        reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_int_equal(c.err.code, OUTR_OK);
        web_call_done(&c);
    }
    {
        CALL(c, b); /* written while the server closes */
        web_call_start(&c, b->pool);
        run(b);
        wire_break(b->w.last);
        run(b);
        assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
        assert_int_equal(c.call.progress, OUTR_CALL_SENT);
        assert_true(c.call.was_reused);
        web_call_done(&c);
    }
    close_bench(b);
}

static void a_connection_the_server_closed_is_not_used(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    for (int i = 0; i < 3; i++) {
        CALL(c, b);
        web_call_start(&c, b->pool);
        run(b);
        reply(b, i == 0 ? "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                        : "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert_int_equal(c.err.code, OUTR_OK);
        assert_false(c.call.was_reused);
        web_call_done(&c);
        wire_eof(b->w.last);
        run(b);
        assert_int_equal(b->w.connect_count, i + 1);
        assert_int_equal(outr_http_pool_connections(b->pool), 0);
    }
    close_bench(b);
}

static void bytes_behind_an_answer_spoil_the_connection(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    CALL(c, b);
    web_call_start(&c, b->pool);
    run(b);
    reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n");
    assert_int_equal(c.err.code, OUTR_OK);
    assert_true(body_is(&c, "ok"));
    assert_true(b->w.last->is_gone);
    web_call_done(&c);
    close_bench(b);
}

static void an_answer_before_the_request_is_out_ends_both(void **state)
{
    bench *b = open_bench(NULL);
    web_giver giver;
    (void)state;
    CALL(c, b);
    c.req.method = OUTR_STR("POST");
    c.req.content_length = -1;
    web_giver_init(&giver, -1);
    c.call.body = &giver.base;
    web_call_start(&c, b->pool);
    run(b);
    web_give(&giver, "some");
    run(b);
    reply(b, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_OK);
    assert_int_equal(c.call.head.status, 413);
    assert_true(giver.was_cancelled);
    assert_true(b->w.last->is_gone);
    web_call_done(&c);
    close_bench(b);
}

static void a_request_body_that_is_not_what_it_said_reaches_nobody(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        bench *b = open_bench(NULL);
        web_giver giver;
        CALL(c, b);
        c.req.method = OUTR_STR("POST");
        c.req.content_length = 4;
        web_giver_init(&giver, 4);
        c.call.body = &giver.base;
        web_call_start(&c, b->pool);
        run(b);
        if (i == 0) {
            web_give(&giver, "longer");
        } else {
            web_give(&giver, "sho");
            if (i == 1)
                web_give_end(&giver);
            else
                web_give_abort(&giver);
        }
        wire_run(&b->w);
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.err.code, i == 2 ? OUTR_INTERNAL : OUTR_INVALID_ARGUMENT);
        assert_true(b->w.last->was_reset);
        assert_null(strstr(wire_take(b->w.last, NULL), "long"));
        web_call_done(&c);
        close_bench(b);
    }
}

static void a_server_that_reads_nothing_stops_the_body_and_is_given_up(void **state)
{
    bench *b = open_bench(NULL);
    web_giver giver;
    static char piece[32 * 1024 + 1];
    (void)state;
    memset(piece, 'p', sizeof piece - 1);
    CALL(c, b);
    c.req.method = OUTR_STR("POST");
    c.req.content_length = -1;
    web_giver_init(&giver, -1);
    c.call.body = &giver.base;
    web_call_start(&c, b->pool);
    run(b);
    b->w.last->is_stalled = true;
    int given = 0;
    for (; given < 100 && web_give(&giver, piece); given++)
        wire_run(&b->w);
    assert_true(given < 5);
    wire_sleep(&b->w, 121 * OUTR_SEC);
    assert_int_equal(c.err.code, OUTR_DEADLINE_EXCEEDED);
    assert_true(giver.was_cancelled);
    web_call_done(&c);
    close_bench(b);
}

static void an_answer_may_take_its_time(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    CALL(c, b);
    web_call_start(&c, b->pool);
    run(b);
    wire_sleep(&b->w, 3600 * OUTR_SEC);
    assert_int_equal(c.done_count, 0);
    reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(c.err.code, OUTR_OK);
    web_call_done(&c);
    close_bench(b);
}

static void deadlines_and_cancels_end_a_call_wherever_it_is(void **state)
{
    (void)state;
    for (int stage = 0; stage < 4; stage++) {
        bench *b = open_bench(NULL);
        CALL(c, b);
        outr_op_init(&c.op, b->w.loop, NULL, b->w.now + OUTR_SEC, c.op.done);
        web_call_start(&c, b->pool);
        if (stage > 0)
            run(b);
        if (stage > 1)
            reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        if (stage > 2)
            reply(b, "he");
        if (stage % 2)
            outr_op_cancel(&c.op, OUTR_CANCELLED);
        else if (stage == 0)
            outr_op_cancel(&c.op, OUTR_DEADLINE_EXCEEDED);
        else
            wire_sleep(&b->w, 2 * OUTR_SEC);
        wire_run(&b->w);
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.err.code, stage % 2 ? OUTR_CANCELLED : OUTR_DEADLINE_EXCEEDED);
        if (stage > 1)
            assert_true(c.taker.was_aborted);
        if (stage > 0)
            assert_true(b->w.last->is_gone);
        assert_int_equal(outr_http_pool_in_flight(b->pool), 0);
        web_call_done(&c);
        close_bench(b);
    }
}

static void a_body_given_up_costs_the_connection_only_when_it_is_long(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    {
        CALL(c, b);
        c.cancels_body = true;
        web_call_start(&c, b->pool);
        run(b);
        reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
        reply(b, "llo");
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.err.code, OUTR_OK);
        assert_false(b->w.last->is_gone);
        web_call_done(&c);
    }
    {
        CALL(c, b);
        c.cancels_body = true;
        web_call_start(&c, b->pool);
        run(b);
        reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\nhe");
        assert_int_equal(c.done_count, 1);
        assert_true(b->w.last->is_gone);
        web_call_done(&c);
    }
    assert_int_equal(b->w.connect_count, 1);
    close_bench(b);
}

static void an_upgrade_becomes_raw_bytes(void **state)
{
    bench *b = open_bench(NULL);
    web_giver giver;
    (void)state;
    CALL(c, b);
    web_giver_init(&giver, -1);
    c.req.upgrade = OUTR_STR("websocket");
    c.call.body = &giver.base;
    web_call_start(&c, b->pool);
    assert_string_equal(
        run(b),
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_false(c.call.body_taken);
    reply(
        b,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi");
    assert_int_equal(c.call.head.status, 101);
    assert_true(giver.is_wanted);
    web_give(&giver, "there");
    assert_string_equal(run(b), "there");
    assert_true(body_is(&c, "hi"));
    wire_eof(b->w.last);
    run(b);
    assert_true(c.taker.has_ended);
    assert_int_equal(c.done_count, 0);
    web_give(&giver, " bye");
    assert_string_equal(run(b), " bye");
    web_give_end(&giver);
    run(b);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_OK);
    web_call_done(&c);
    close_bench(b);
}

static void a_declined_upgrade_is_an_answer_like_any(void **state)
{
    bench *b = open_bench(NULL);
    web_giver giver;
    (void)state;
    CALL(c, b);
    web_giver_init(&giver, -1);
    c.req.upgrade = OUTR_STR("websocket");
    c.call.body = &giver.base;
    web_call_start(&c, b->pool);
    run(b);
    reply(b, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert_int_equal(c.done_count, 1);
    assert_false(c.call.body_taken);
    assert_false(b->w.last->is_gone);
    web_call_done(&c);
    close_bench(b);
}

static void heads_that_cannot_be_sent_are_refused(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    for (int i = 0; i < 4; i++) {
        CALL(c, b);
        if (i == 0)
            c.req.target = OUTR_STR("/a b");
        if (i == 1)
            c.req.target = OUTR_STR("/\r\nX: y");
        if (i == 2)
            c.req.method = OUTR_STR("G ET");
        if (i == 3)
            c.req.authority = OUTR_STR("h\r\nX: y");
        web_call_start(&c, b->pool);
        assert_int_equal(c.done_count, 0);
        run(b);
        assert_int_equal(c.err.code, OUTR_INVALID_ARGUMENT);
        web_call_done(&c);
    }
    assert_int_equal(b->w.connect_count, 0);
    close_bench(b);
}

static void the_pool_grows_to_its_limit_and_queues_the_rest(void **state)
{
    const outr_http_pool_options o = {.max_connections = 2, .max_pending = 2};
    bench *b = open_bench(&o);
    web_call calls[6];
    (void)state;
    for (int i = 0; i < 6; i++) {
        web_call_init(&calls[i], b->w.loop, "GET", "/");
        web_call_start(&calls[i], b->pool);
    }
    wire_run(&b->w);
    assert_int_equal(outr_http_pool_connections(b->pool), 2);
    int refused = 0, queued = 0;
    for (int i = 0; i < 6; i++) {
        refused += calls[i].err.code == OUTR_RESOURCE_EXHAUSTED;
        queued += calls[i].done_count == 0 && calls[i].call.progress == OUTR_CALL_NOT_SENT;
    }
    assert_int_equal(refused, 2);
    assert_int_equal(queued, 2);
    for (int round = 0; round < 6; round++) {
        OUTR_LIST_EACH(link, &b->w.streams) {
            wire_stream *s = OUTR_LIST_ITEM(link, wire_stream, link);
            if (*wire_take(s, NULL))
                wire_feed_z(s, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        wire_run(&b->w);
    }
    for (int i = 0; i < 6; i++) {
        assert_int_equal(calls[i].done_count, 1);
        web_call_done(&calls[i]);
    }
    assert_int_equal(b->w.connect_count, 2);
    close_bench(b);
}

static void pools_may_have_a_number_of_connections_together(void **state)
{
    outr_http_quota *quota = outr_http_quota_new(2);
    const outr_http_pool_options o = {.quota = quota};
    bench *b = open_bench(&o);
    outr_http_pool_options beside = {
        .loop = b->w.loop, .version = OUTR_HTTP_1, .quota = quota, .addr.kind = OUTR_ADDR_IP4};
    outr_http_pool *other = outr_http_pool_new(&beside);
    web_call calls[4];
    (void)state;
    for (int i = 0; i < 3; i++) {
        web_call_init(&calls[i], b->w.loop, "GET", "/");
        web_call_start(&calls[i], b->pool);
    }
    wire_run(&b->w);
    assert_int_equal(outr_http_pool_connections(b->pool), 2);
    assert_int_equal(calls[2].done_count, 0); /* it makes do with the two */
    web_call_init(&calls[3], b->w.loop, "GET", "/");
    web_call_start(&calls[3], other);
    wire_run(&b->w);
    assert_int_equal(calls[3].err.code, OUTR_RESOURCE_EXHAUSTED);
    assert_int_equal(calls[3].call.progress, OUTR_CALL_NOT_SENT);
    web_call_done(&calls[3]);
    outr_http_pool_free(b->pool); /* what has none any more leaves room */
    wire_run(&b->w);
    assert_int_equal(outr_http_quota_used(quota), 0);
    b->pool = outr_http_pool_new(&beside);
    web_call_init(&calls[3], b->w.loop, "GET", "/");
    web_call_start(&calls[3], other);
    wire_run(&b->w);
    assert_int_equal(outr_http_quota_used(quota), 1);
    outr_http_quota_set(quota, 0); /* it stays */
    wire_run(&b->w);
    assert_int_equal(calls[3].done_count, 0);
    outr_http_pool_free(other);
    wire_run(&b->w);
    assert_int_equal(outr_http_quota_used(quota), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(calls[i].done_count, 1);
        web_call_done(&calls[i]);
    }
    close_bench(b);
    outr_http_quota_unref(quota);
}

static void who_leaves_takes_no_call_and_none_waits_for_him(void **state)
{
    outr_http_quota *quota = outr_http_quota_new(1);
    const outr_http_pool_options o = {.quota = quota};
    bench *b = open_bench(&o);
    (void)state;
    CALL(endless, b);
    CALL(second, b);
    CALL(third, b);
    web_call_start(&endless, b->pool);
    run(b);
    outr_http_pool_retire(b->pool);
    web_call_start(&second, b->pool);
    run(b);
    assert_int_equal(second.err.code, OUTR_RESOURCE_EXHAUSTED);
    reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(endless.err.code, OUTR_OK);
    web_call_start(&third, b->pool); /* he has left */
    run(b);
    reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(third.err.code, OUTR_OK);
    web_call_done(&endless);
    web_call_done(&second);
    web_call_done(&third);
    close_bench(b);
    assert_int_equal(outr_http_quota_used(quota), 0);
    outr_http_quota_unref(quota);
}

static void refused_connects_that_had_a_quota_give_it_back(void **state)
{
    outr_http_quota *quota = outr_http_quota_new(1);
    const outr_http_pool_options o = {.quota = quota};
    bench *b = open_bench(&o);
    web_call call;
    (void)state;
    b->w.refuse_percent = 100;
    web_call_init(&call, b->w.loop, "GET", "/");
    web_call_start(&call, b->pool);
    wire_run(&b->w);
    assert_int_equal(call.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(outr_http_quota_used(quota), 0);
    web_call_done(&call);
    close_bench(b);
    outr_http_quota_unref(quota);
}

static void refused_connects_do_not_spin(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    CALL(busy, b); /* keeps a connection alive */
    web_call_start(&busy, b->pool);
    run(b);
    b->w.refuse_percent = 100;
    CALL(c, b);
    web_call_start(&c, b->pool);
    run(b);
    assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(b->w.connect_count, 2);
    web_call_done(&c);
    outr_op_cancel(&busy.op, OUTR_CANCELLED);
    run(b);
    web_call_done(&busy);
    close_bench(b);
}

static void idle_connections_are_closed_after_a_while(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    CALL(c, b);
    web_call_start(&c, b->pool);
    run(b);
    reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    web_call_done(&c);
    assert_int_equal(outr_http_pool_connections(b->pool), 1);
    wire_sleep(&b->w, 60 * OUTR_SEC);
    assert_int_equal(outr_http_pool_connections(b->pool), 1);
    wire_sleep(&b->w, 90 * OUTR_SEC);
    assert_int_equal(outr_http_pool_connections(b->pool), 0);
    close_bench(b);
}

static void connections_that_a_burst_left_are_closed_soon(void **state)
{
    enum { BURST = 100, KEPT = 64 };
    bench *b = open_bench(NULL);
    web_call *calls = outr_alloc(BURST * sizeof *calls);
    (void)state;
    for (int i = 0; i < BURST; i++) {
        web_call_init(&calls[i], b->w.loop, "GET", "/");
        web_call_start(&calls[i], b->pool);
    }
    run(b);
    OUTR_LIST_EACH(link, &b->w.streams)
        wire_feed_z(OUTR_LIST_ITEM(link, wire_stream, link),
                    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    run(b);
    assert_int_equal(outr_http_pool_connections(b->pool), BURST);
    wire_sleep(&b->w, 12 * OUTR_SEC);
    assert_int_equal(outr_http_pool_connections(b->pool), KEPT);
    wire_sleep(&b->w, 150 * OUTR_SEC);
    assert_int_equal(outr_http_pool_connections(b->pool), 0);
    for (int i = 0; i < BURST; i++)
        web_call_done(&calls[i]);
    free(calls);
    close_bench(b);
}

static void a_retired_pool_finishes_and_opens_anew(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    CALL(c, b);
    web_call_start(&c, b->pool);
    run(b);
    outr_http_pool_retire(b->pool);
    reply(b, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(c.err.code, OUTR_OK);
    assert_int_equal(outr_http_pool_connections(b->pool), 0);
    web_call_done(&c);
    close_bench(b);
}

static void freeing_the_pool_fails_what_is_in_flight(void **state)
{
    bench *b = open_bench(NULL);
    (void)state;
    CALL(c, b);
    CALL(waiting, b);
    web_call_start(&c, b->pool);
    run(b);
    web_call_start(&waiting, b->pool);
    outr_http_pool_free(outr_take(&b->pool));
    wire_run(&b->w);
    assert_int_equal(c.err.code, OUTR_CANCELLED);
    assert_int_equal(waiting.err.code, OUTR_CANCELLED);
    web_call_done(&c);
    web_call_done(&waiting);
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_and_another_on_the_same_connection),
        cmocka_unit_test(bodies_are_framed_by_what_is_known),
        cmocka_unit_test(a_response_may_come_byte_by_byte),
        cmocka_unit_test(head_and_304_carry_a_length_and_no_body),
        cmocka_unit_test(the_end_of_the_connection_may_end_the_body),
        cmocka_unit_test(pitfall_39_a_body_that_breaks_off_is_never_a_clean_end),
        cmocka_unit_test(answers_that_are_none),
        cmocka_unit_test(heads_and_interim_heads_are_bounded),
        cmocka_unit_test(a_body_waits_for_its_sink),
        cmocka_unit_test(a_complete_answer_reaches_a_slow_sink_though_the_server_left),
        cmocka_unit_test(pitfall_13_how_far_a_call_got_is_told),
        cmocka_unit_test(a_connection_the_server_closed_is_not_used),
        cmocka_unit_test(bytes_behind_an_answer_spoil_the_connection),
        cmocka_unit_test(an_answer_before_the_request_is_out_ends_both),
        cmocka_unit_test(a_request_body_that_is_not_what_it_said_reaches_nobody),
        cmocka_unit_test(a_server_that_reads_nothing_stops_the_body_and_is_given_up),
        cmocka_unit_test(an_answer_may_take_its_time),
        cmocka_unit_test(deadlines_and_cancels_end_a_call_wherever_it_is),
        cmocka_unit_test(a_body_given_up_costs_the_connection_only_when_it_is_long),
        cmocka_unit_test(an_upgrade_becomes_raw_bytes),
        cmocka_unit_test(a_declined_upgrade_is_an_answer_like_any),
        cmocka_unit_test(heads_that_cannot_be_sent_are_refused),
        cmocka_unit_test(the_pool_grows_to_its_limit_and_queues_the_rest),
        cmocka_unit_test(pools_may_have_a_number_of_connections_together),
        cmocka_unit_test(who_leaves_takes_no_call_and_none_waits_for_him),
        cmocka_unit_test(refused_connects_that_had_a_quota_give_it_back),
        cmocka_unit_test(refused_connects_do_not_spin),
        cmocka_unit_test(idle_connections_are_closed_after_a_while),
        cmocka_unit_test(connections_that_a_burst_left_are_closed_soon),
        cmocka_unit_test(a_retired_pool_finishes_and_opens_anew),
        cmocka_unit_test(freeing_the_pool_fails_what_is_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
