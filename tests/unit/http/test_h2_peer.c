#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "unit/http/h2_site.h"

/* ---- a raw client --------------------------------------------------------------------------------- */

static void the_preface_may_come_byte_by_byte(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->w.piece_max = 1;
    wire_stream *s = raw_peer(st);
    frame(s, 1, 5, 1, get_block, 6);
    run(st);
    assert_int_equal(st->requests, 1);
    assert_true(was_sent(s, 1, 0));
    close_site(st);
}

static void pitfall_36_rapid_reset_ends_the_connection(void **state)
{
    site *st = open_site(NULL);
    unsigned served = 0;
    (void)state;
    st->mode = ANSWER;
    wire_stream *s = raw_peer(st);
    for (unsigned id = 1; id < 20000 && !s->is_gone; id += 2) {
        frame(s, 1, 5, id, get_block, 6);
        frame(s, 3, 0, id, "\0\0\0\x08", 4);
        if (id % 200 == 1)
            run(st);
        served++;
    }
    run(st);
    assert_true(s->is_gone);
    assert_true(st->requests < 2500);
    assert_true(was_sent(s, 7, 0xb)); /* ENHANCE_YOUR_CALM */
    close_site(st);
}

static void pitfall_36_settings_and_ping_floods_are_bounded(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        site *st = open_site(NULL);
        wire_stream *s = raw_peer(st);
        run(st);
        s->is_stalled = true; /* reads no acknowledgement */
        for (int k = 0; k < 100000 && !s->base.is_closing; k++) {
            if (i)
                frame(s, 4, 0, 0, "", 0);
            else
                frame(s, 6, 0, 0, "12345678", 8);
            if (k % 100 == 0)
                wire_run(&st->w);
        }
        assert_true(s->base.is_closing);
        assert_true(s->sent.n < 2 * OUTR_MIB);
        s->is_stalled = false;
        close_site(st);
    }
}

static void pitfall_36_continuation_flood_is_bounded(void **state)
{
    site *st = open_site(NULL);
    static char block[16000];
    (void)state;
    wire_stream *s = raw_peer(st);
    memset(block, 0x82, sizeof block);
    frame(s, 1, 0, 1, get_block, 6);
    for (int k = 0; k < 1000 && !s->base.is_closing; k++) {
        frame(s, 9, 0, 1, block, sizeof block);
        wire_run(&st->w);
    }
    assert_true(s->base.is_closing);
    assert_int_equal(st->requests, 0);
    close_site(st);
}

static void a_head_that_never_ends_times_out(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    wire_stream *s = raw_peer(st);
    frame(s, 1, 0, 1, get_block, 6);
    run(st);
    wire_sleep(&st->w, 11 * OUTR_SEC);
    assert_true(s->is_gone);
    close_site(st);
}

static void a_body_that_never_comes_times_out_beside_busy_streams(void **state)
{
    site *st = open_site(NULL);
    unsigned id = 3;
    (void)state;
    st->mode = TAKE;
    wire_stream *s = raw_peer(st);
    frame(s, 1, 4, 1, get_block, 6); /* without END_STREAM */
    run(st);
    st->mode = ANSWER;
    for (int i = 0; i < 25; i++, id += 2) {
        frame(s, 1, 5, id, get_block, 6);
        wire_sleep(&st->w, 10 * OUTR_SEC);
    }
    assert_false(s->is_gone);
    assert_true(st->taker.was_aborted);
    assert_int_equal(st->taker.err.code, OUTR_DEADLINE_EXCEEDED);
    web_answer(pop(st), 408, "");
    run(st);
    close_site(st);
}

static void malformed_requests_reach_nobody(void **state)
{
    static const struct {
        const char *block;
        size_t n;
    } cases[] = {
        {"\x82\x86\x84", 3}, /* no authority */
        {"\x82\x86", 2},     /* no path */
        {"\x82\x86\x84\x00\x01"
         "A"
         "\x01"
         "b",
         8}, /* upper case name */
        {"\x82\x86\x84\x00\x0a"
         "connection"
         "\x05"
         "close",
         21}, /* connection-specific */
        {"\x82\x86\x84\x00\x01"
         "a"
         "\x03"
         "b\0c",
         10}, /* NUL */
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        site *st = open_site(NULL);
        wire_stream *s = raw_peer(st);
        frame(s, 1, 5, 1, cases[i].block, cases[i].n);
        run(st);
        assert_int_equal(st->requests, 0);
        close_site(st);
    }
}

static void upgrading_from_http1(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    wire_stream *s = wire_open(&st->w);
    outr_http_server_take(st->server, &s->base);
    wire_feed_z(s, "GET /u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
                   "h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
    wire_feed_z(s, PREFACE); /* eager: in the same read */
    frame(s, 4, 0, 0, "", 0);
    frame(s, 1, 5, 3, get_block, 6);
    run(st);
    size_t n;
    const char *got = wire_take(s, &n);
    assert_memory_equal(
        got, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 71);
    assert_string_equal(st->seen, "GET h /u;GET a /;");
    assert_int_equal(st->finished, 2);
    close_site(st);

    st = open_site(NULL); /* without HTTP2-Settings it stays HTTP/1.1 */
    s = wire_open(&st->w);
    outr_http_server_take(st->server, &s->base);
    wire_feed_z(s, "GET /u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    run(st);
    assert_memory_equal(wire_take(s, NULL), "HTTP/1.1 200 OK\r\n", 17);
    close_site(st);
}

static void a_drained_server_forgets_an_upgraded_connection(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    wire_stream *s = wire_open(&st->w);
    outr_http_server_take(st->server, &s->base);
    st->mode = HOLD;
    wire_feed_z(s, "GET /u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
                   "h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
    run(st);
    outr_http_server_drain(st->server, on_drained, st);
    run(st);
    assert_false(st->is_drained);
    web_answer(pop(st), 200, "x");
    wire_sleep(&st->w, 2 * OUTR_SEC);
    assert_true(st->is_drained);
    close_site(st);
}

/* ---- a raw server --------------------------------------------------------------------------------- */

static void pitfall_14_refused_and_left_out_streams_were_not_sent(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        site *st = open_site(NULL);
        st->w.on_accept = NULL;
        CALL(c, st);
        web_call_start(&c, st->pool);
        run(st);
        frame(st->w.last, 4, 0, 0, "", 0);
        if (i)
            frame(st->w.last, 7, 0, 0, "\0\0\0\0\0\0\0\0", 8); /* GOAWAY: none was processed */
        else
            frame(st->w.last, 3, 0, 1, "\0\0\0\x07", 4); /* REFUSED_STREAM */
        run(st);
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
        assert_int_equal(c.call.progress, OUTR_CALL_NOT_SENT);
        assert_true(c.err.retriable);
        assert_int_equal(outr_http_pool_connections(st->pool), !i);
        web_call_done(&c);
        close_site(st);
    }
}

/* Head with END_STREAM (":status: 200"), or head, body and its end; the request goes on. */
static void a_call_may_end_with_its_answer(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        bool has_body = i & 1, ends = i & 2;
        site *st = open_site(NULL);
        web_giver giver;
        st->w.on_accept = NULL;
        web_giver_init(&giver, -1);
        CALL(c, st);
        c.req.method = OUTR_STR("POST");
        c.req.content_length = -1;
        c.call.body = &giver.base;
        c.call.ends_with_answer = ends;
        web_call_start(&c, st->pool);
        run(st);
        web_give(&giver, "some");
        run(st);
        frame(st->w.last, 4, 0, 0, "", 0);
        frame(st->w.last, 1, has_body ? 4 : 5, 1, "\x88", 1);
        if (has_body)
            frame(st->w.last, 0, 1, 1, "hello", 5);
        run(st);
        assert_int_equal(c.done_count, ends);
        assert_int_equal(giver.was_cancelled, ends);
        assert_true(!has_body || body_is(&c, "hello"));
        if (!ends) {
            web_give_end(&giver);
            run(st);
            assert_int_equal(c.done_count, 1);
        }
        assert_int_equal(c.err.code, OUTR_OK);
        web_call_done(&c);
        close_site(st);
    }
}

static void count_leaving(void *ctx)
{
    ++*(unsigned *)ctx;
}

static void a_pool_tells_once_that_a_connection_takes_no_more_calls(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        unsigned leaving = 0;
        site *st = open_site(NULL);
        const outr_http_pool_options po = {.loop = st->w.loop,
                                           .version = OUTR_HTTP_2,
                                           .on_leaving = count_leaving,
                                           .ctx = &leaving};
        outr_http_pool_free(st->pool);
        st->pool = outr_http_pool_new(&po);
        st->w.on_accept = NULL;
        CALL(c, st);
        web_call_start(&c, st->pool);
        run(st);
        frame(st->w.last, 4, 0, 0, "", 0);
        run(st);
        assert_int_equal(leaving, 0);
        if (i == 0)
            frame(st->w.last, 7, 0, 0, "\0\0\0\x01\0\0\0\0", 8); /* GOAWAY: the call goes on */
        else if (i == 1)
            wire_break(st->w.last);
        else
            outr_http_pool_free(st->pool); /* the owner's own doing is not told */
        run(st);
        assert_int_equal(leaving, i < 2);
        assert_int_equal(c.done_count, i > 0);
        if (i < 2)
            outr_http_pool_free(st->pool);
        st->pool = outr_http_pool_new(&(outr_http_pool_options){.loop = st->w.loop});
        run(st);
        assert_int_equal(leaving, i < 2);
        web_call_done(&c);
        close_site(st);
    }
}

static void note_cut(void *ctx, const char *reason, size_t calls)
{
    char *text = ctx; /* of 64 bytes */
    size_t n = strlen(text);
    snprintf(text + n, 64 - n, "%s %zu;", reason, calls);
}

/* The pool of a client whose connections have certificates; one call that is never answered. */
static site *open_until(uint64_t expires_ns, char *cut)
{
    site *st = open_site(NULL);
    const outr_http_pool_options po = {
        .loop = st->w.loop, .version = OUTR_HTTP_2, .on_cut = cut ? note_cut : NULL, .ctx = cut};
    outr_http_pool_free(st->pool);
    st->pool = outr_http_pool_new(&po);
    st->w.on_accept = NULL;
    st->w.expires_ns = expires_ns;
    return st;
}

static bool keeps_none(const outr_stream *stream)
{
    return stream == NULL;
}

static void a_client_leaves_in_time_and_ends_with_its_certificate(void **state)
{
    char cut[64] = "";
    site *st = open_until(9 * OUTR_SEC, cut); /* the clock says 1 s */
    (void)state;
    CALL(endless, st);
    web_call_start(&endless, st->pool);
    run(st);
    wire_stream *first = st->w.last;
    frame(first, 4, 0, 0, "", 0);
    wire_sleep(&st->w, 7100 * OUTR_MS);
    st->w.expires_ns = 100 * OUTR_SEC;
    CALL(next, st); /* goes elsewhere, before the peer says anything */
    web_call_start(&next, st->pool);
    run(st);
    assert_int_equal(st->w.connect_count, 2);
    assert_false(was_sent(first, 7, 0));
    wire_sleep(&st->w, 800 * OUTR_MS);
    assert_int_equal(endless.done_count, 0);
    wire_sleep(&st->w, 200 * OUTR_MS);
    assert_int_equal(endless.err.code, OUTR_UNAVAILABLE);
    assert_string_equal(endless.err.text, "the connection was cut off (reason: expired)");
    assert_string_equal(cut, "expired 1;");
    assert_true(was_sent(first, 7, 0));
    assert_true(first->is_gone);
    assert_int_equal(next.done_count, 0);
    wire_break(st->w.last);
    run(st);
    web_call_done(&endless);
    web_call_done(&next);
    close_site(st);
}

static void a_client_dismisses_whom_nobody_vouches_for_any_more(void **state)
{
    char cut[64] = "";
    site *st = open_until(0, cut);
    (void)state;
    CALL(endless, st);
    web_call_start(&endless, st->pool);
    run(st);
    frame(st->w.last, 4, 0, 0, "", 0);
    run(st);
    outr_http_pool_dismiss(st->pool, keeps_none, 10 * OUTR_SEC);
    wire_sleep(&st->w, 9900 * OUTR_MS);
    assert_int_equal(endless.done_count, 0);
    wire_sleep(&st->w, 200 * OUTR_MS);
    assert_string_equal(endless.err.text, "the connection was cut off (reason: untrusted)");
    assert_string_equal(cut, "untrusted 1;");
    assert_int_equal(outr_http_pool_connections(st->pool), 0);
    web_call_done(&endless);
    close_site(st);
}

static void who_is_told_to_leave_tells_why(void **state)
{
    site *st = open_until(0, NULL);
    (void)state;
    CALL(c, st);
    web_call_start(&c, st->pool);
    run(st);
    frame(st->w.last, 4, 0, 0, "", 0);
    frame(st->w.last, 7, 0, 0, "\0\0\0\x01\0\0\0\0untrusted\n\x1b[2J", 22);
    wire_eof(st->w.last);
    run(st);
    assert_string_equal(c.err.text, "the peer closed the connection (reason: untrusted)");
    web_call_done(&c);
    close_site(st);
}

static void a_stopped_pool_opens_no_connection(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->w.on_accept = NULL;
    CALL(on_its_way, st);
    web_call_start(&on_its_way, st->pool);
    run(st);
    CALL(waits, st); /* the peer has not said yet how many it takes */
    web_call_start(&waits, st->pool);
    run(st);
    outr_http_pool_stop(st->pool);
    run(st);
    assert_int_equal(waits.done_count, 1);
    assert_int_equal(waits.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(on_its_way.done_count, 0);
    wire_break(st->w.last);
    CALL(later, st);
    web_call_start(&later, st->pool);
    run(st);
    assert_int_equal(later.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(on_its_way.done_count, 1);
    assert_int_equal(st->w.connect_count, 1);
    web_call_done(&on_its_way);
    web_call_done(&waits);
    web_call_done(&later);
    close_site(st);
}

static void silence_is_found_out_by_pings(void **state)
{
    site *st = open_site(NULL);
    outr_http_pool_options po = {
        .loop = st->w.loop, .version = OUTR_HTTP_2, .ping_interval_ns = 10 * OUTR_SEC};
    (void)state;
    outr_http_pool_free(st->pool);
    st->pool = outr_http_pool_new(&po);
    st->w.on_accept = NULL;
    CALL(c, st);
    web_call_start(&c, st->pool);
    run(st);
    frame(st->w.last, 4, 0, 0, "", 0);
    run(st);
    wire_sleep(&st->w, 16 * OUTR_SEC);
    assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
    web_call_done(&c);
    close_site(st);
}

static bool has_ping(site *st)
{
    size_t n;
    const char *sent = wire_take(st->w.last, &n);
    for (size_t at = 0; at + 9 <= n;) {
        size_t length = (size_t)(unsigned char)sent[at + 1] << 8 | (unsigned char)sent[at + 2];
        if (sent[at + 3] == 6)
            return true;
        at += 9 + length;
    }
    return false;
}

static void one_of_our_kind_that_was_idle_is_asked_with_the_next_call(void **state)
{
    site *st = open_site(NULL);
    outr_http_pool_options po = {.loop = st->w.loop,
                                 .version = OUTR_HTTP_2,
                                 .settings_id = 0xf0d1,
                                 .settings_value = 1,
                                 .limits.idle_ns = 180 * OUTR_SEC,
                                 .ping_interval_ns = 10 * OUTR_SEC};
    (void)state;
    outr_http_pool_free(st->pool);
    st->pool = outr_http_pool_new(&po);
    st->w.on_accept = NULL;
    CALL(c, st);
    web_call_start(&c, st->pool);
    run(st);
    frame(st->w.last, 4, 0, 0, "\xf0\xd1\0\0\0\1", 6);
    frame(st->w.last, 1, 5, 1, "\x88", 1); /* 200, and that is all */
    run(st);
    assert_int_equal(c.done_count, 1);
    web_call_done(&c);
    wire_take(st->w.last, NULL);
    wire_sleep(&st->w, 60 * OUTR_SEC);
    assert_false(has_ping(st));
    CALL(second, st);
    web_call_start(&second, st->pool);
    run(st);
    assert_int_equal(st->w.connect_count, 1);
    assert_true(has_ping(st));
    wire_sleep(&st->w, 6 * OUTR_SEC); /* nobody is there any more */
    assert_int_equal(second.err.code, OUTR_UNAVAILABLE);
    web_call_done(&second);
    close_site(st);
}

static void calls_that_come_and_go_do_not_make_pings_come_faster(void **state)
{
    site *st = open_site(NULL);
    outr_http_pool_options po = {.loop = st->w.loop,
                                 .version = OUTR_HTTP_2,
                                 .settings_id = 0xf0d1,
                                 .settings_value = 1,
                                 .limits.idle_ns = 180 * OUTR_SEC,
                                 .ping_interval_ns = 10 * OUTR_SEC};
    unsigned pings = 0;
    (void)state;
    outr_http_pool_free(st->pool);
    st->pool = outr_http_pool_new(&po);
    st->w.on_accept = NULL;
    for (unsigned i = 0; i < 120; i++) { /* one a second, each over at once */
        CALL(c, st);
        web_call_start(&c, st->pool);
        run(st);
        if (i == 0)
            frame(st->w.last, 4, 0, 0, "\xf0\xd1\0\0\0\1", 6);
        frame(st->w.last, 1, 5, 2 * i + 1, "\x88", 1);
        run(st);
        assert_int_equal(c.err.code, OUTR_OK);
        web_call_done(&c);
        pings += has_ping(st);
        wire_sleep(&st->w, OUTR_SEC);
        pings += has_ping(st);
    }
    assert_int_equal(st->w.connect_count, 1);
    if (pings < 8 || pings > 12)
        fail_msg("%u pings in 120 s", pings);
    close_site(st);
}

static void garbage_from_a_server_fails_its_calls(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->w.on_accept = NULL;
    CALL(c, st);
    web_call_start(&c, st->pool);
    run(st);
    wire_feed_z(st->w.last, "HTTP/1.1 400 Bad Request\r\n\r\n");
    run(st);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(outr_http_pool_connections(st->pool), 0);
    web_call_done(&c);
    close_site(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_preface_may_come_byte_by_byte),
        cmocka_unit_test(pitfall_36_rapid_reset_ends_the_connection),
        cmocka_unit_test(pitfall_36_settings_and_ping_floods_are_bounded),
        cmocka_unit_test(pitfall_36_continuation_flood_is_bounded),
        cmocka_unit_test(a_head_that_never_ends_times_out),
        cmocka_unit_test(a_body_that_never_comes_times_out_beside_busy_streams),
        cmocka_unit_test(malformed_requests_reach_nobody),
        cmocka_unit_test(upgrading_from_http1),
        cmocka_unit_test(a_drained_server_forgets_an_upgraded_connection),
        cmocka_unit_test(pitfall_14_refused_and_left_out_streams_were_not_sent),
        cmocka_unit_test(a_call_may_end_with_its_answer),
        cmocka_unit_test(a_pool_tells_once_that_a_connection_takes_no_more_calls),
        cmocka_unit_test(a_client_leaves_in_time_and_ends_with_its_certificate),
        cmocka_unit_test(a_client_dismisses_whom_nobody_vouches_for_any_more),
        cmocka_unit_test(who_is_told_to_leave_tells_why),
        cmocka_unit_test(a_stopped_pool_opens_no_connection),
        cmocka_unit_test(silence_is_found_out_by_pings),
        cmocka_unit_test(one_of_our_kind_that_was_idle_is_asked_with_the_next_call),
        cmocka_unit_test(calls_that_come_and_go_do_not_make_pings_come_faster),
        cmocka_unit_test(garbage_from_a_server_fails_its_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
