#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "http/h2_guard.h"
#include "http/server.h"
#include "lib/web.h"
#include "lib/wire.h"

/* ---- allowances ------------------------------------------------------------------------------ */

static unsigned used_up(bool (*use)(outr__h2_guard *, uint64_t), outr__h2_guard *g, uint64_t now)
{
    unsigned n = 0;
    while (n < 1000000 && use(g, now))
        n++;
    return n;
}

static void allowances_come_back_with_time(void **state)
{
    outr__h2_guard g;
    (void)state;
    outr__h2_guard_init(&g, OUTR_SEC);
    assert_int_equal(used_up(outr__h2_guard_reset, &g, OUTR_SEC), 1000);
    assert_int_equal(used_up(outr__h2_guard_reset, &g, 2 * OUTR_SEC), 100);
    assert_int_equal(used_up(outr__h2_guard_reset, &g, 3600 * OUTR_SEC), 1000);
    assert_int_equal(used_up(outr__h2_guard_idle_frame, &g, OUTR_SEC), 10000);
    assert_int_equal(used_up(outr__h2_guard_idle_frame, &g, 2 * OUTR_SEC), 1000);
}

static void work_earns_idle_frames(void **state)
{
    outr__h2_guard g;
    (void)state;
    outr__h2_guard_init(&g, OUTR_SEC);
    outr__h2_guard_work(&g, false); /* never more than at first */
    assert_int_equal(used_up(outr__h2_guard_idle_frame, &g, OUTR_SEC), 10000);
    for (int i = 0; i < 100000; i++) { /* a ping behind every message: somebody measures */
        outr__h2_guard_work(&g, true);
        assert_true(outr__h2_guard_idle_frame(&g, OUTR_SEC));
    }
}

static unsigned pings_until_too_many(uint64_t every_ns)
{
    outr__h2_guard g;
    outr__h2_guard_init(&g, 1);
    for (unsigned i = 1; i < 20; i++) {
        if (!outr__h2_guard_ping(&g, 1 + i * every_ns, 8 * OUTR_SEC))
            return i;
    }
    return 0;
}

static void the_fourth_ping_that_comes_too_soon_is_one_too_many(void **state)
{
    outr__h2_guard g;
    (void)state;
    assert_int_equal(pings_until_too_many(OUTR_SEC), 4);
    assert_int_equal(pings_until_too_many(5 * OUTR_SEC), 4);
    assert_int_equal(pings_until_too_many(7 * OUTR_SEC + 500 * OUTR_MS), 4);
    assert_int_equal(pings_until_too_many(9 * OUTR_SEC), 0);
    outr__h2_guard_init(&g, 1);
    for (unsigned i = 1; i < 1000; i++) { /* behind something we sent it is no strike */
        outr__h2_guard_work(&g, true);
        assert_true(outr__h2_guard_ping(&g, i, 8 * OUTR_SEC));
    }
    for (unsigned i = 1; i < 1000; i++) /* where none are counted */
        assert_true(outr__h2_guard_ping(&g, i, 0));
}

static void ids_passed_over_may_not_come(void **state)
{
    outr__h2_guard g;
    (void)state;
    outr__h2_guard_init(&g, 1);
    assert_true(outr__h2_guard_id(&g, 1) && outr__h2_guard_id(&g, 3) && outr__h2_guard_id(&g, 9));
    assert_true(outr__h2_guard_id(&g, 3)); /* trailers, or a frame of a stream that is over */
    assert_false(outr__h2_guard_id(&g, 5));
    assert_false(outr__h2_guard_id(&g, 7));
    assert_true(outr__h2_guard_id(&g, 9) && outr__h2_guard_id(&g, 11));
    for (int i = 0; i < 1000; i++)
        assert_true(outr__h2_guard_id(&g, 101 + i * 10)); /* only the last few are remembered */
    assert_false(outr__h2_guard_id(&g, 101 + 999 * 10 - 2));
    assert_true(outr__h2_guard_id(&g, 5));
}

static void streams_that_are_over_are_remembered_for_a_while(void **state)
{
    outr__h2_guard g;
    (void)state;
    outr__h2_guard_init(&g, 1);
    assert_false(outr__h2_guard_is_closed(&g, 1));
    for (int id = 1; id < 100; id += 2)
        outr__h2_guard_close(&g, id);
    assert_true(outr__h2_guard_is_closed(&g, 99) && outr__h2_guard_is_closed(&g, 99 - 15 * 2));
    assert_false(outr__h2_guard_is_closed(&g, 1));
    assert_false(outr__h2_guard_is_closed(&g, 101));
}

/* ---- a connection ---------------------------------------------------------------------------- */

typedef struct site {
    wire w;
    outr_http_server *server;
    wire_stream *s;
    outr_exchange *held;
    bool is_caller_gone;
    char cut[64];   /* "expired 1;" */
    char log[4096]; /* what came: "GOAWAY(11,too_many_pings) PING+ACK " */
} site;

static void on_gone(outr_exchange *x, const outr_err *err OUTR_UNUSED)
{
    ((site *)x->user)->is_caller_gone = true;
}

static void on_request(void *ctx, outr_exchange *x)
{
    site *st = ctx;
    st->held = x;
    x->user = st;
    x->on_gone = on_gone;
}

static void note_cut(void *ctx, const outr_addr *peer OUTR_UNUSED, const char *reason, size_t calls)
{
    site *st = ctx;
    size_t n = strlen(st->cut);
    snprintf(st->cut + n, sizeof st->cut - n, "%s %zu;", reason, calls);
}

static site *open_site_with(uint64_t expires_ns,
                            void (*on_cut)(void *, const outr_addr *, const char *, size_t))
{
    static const outr_http_handler handler = {.on_request = on_request};
    site *st = outr_alloc(sizeof *st);
    wire_init(&st->w, 1);
    const outr_http_server_options o = {.loop = st->w.loop,
                                        .handler = &handler,
                                        .ctx = st,
                                        .allow_h2 = true,
                                        .ping_interval_ns = 10 * OUTR_SEC,
                                        .ping_timeout_ns = 5 * OUTR_SEC,
                                        .min_ping_ns = 8 * OUTR_SEC,
                                        .settings_id = 0xf0d1,
                                        .settings_value = 1,
                                        .limits.idle_ns = 180 * OUTR_SEC,
                                        .on_cut = on_cut};
    st->server = outr_http_server_new(&o);
    st->s = wire_open(&st->w);
    st->s->base.expires_ns = expires_ns;
    outr_http_server_take(st->server, &st->s->base);
    wire_feed_z(st->s, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    wire_feed(st->s, "\0\0\0\4\0\0\0\0\0", 9);
    wire_run(&st->w);
    return st;
}

static site *open_site_until(uint64_t expires_ns)
{
    return open_site_with(expires_ns, note_cut);
}

static site *open_site(void)
{
    return open_site_until(0);
}

static void close_site(site *st)
{
    outr_http_server_free(st->server);
    if (st->held)
        outr_http_done(st->held);
    wire_run(&st->w);
    wire_done(&st->w);
    free(st);
}

static void send_frame(site *st, int type, int flags, int stream, const void *payload, size_t n)
{
    const unsigned char head[9] = {0,
                                   (unsigned char)(n >> 8),
                                   (unsigned char)n,
                                   (unsigned char)type,
                                   (unsigned char)flags,
                                   0,
                                   0,
                                   0,
                                   (unsigned char)stream};
    wire_feed(st->s, head, 9);
    if (n)
        wire_feed(st->s, payload, n);
    wire_run(&st->w);
}

/* Since the last time; empty after it. */
static const char *seen(site *st)
{
    size_t n, used = 0;
    const unsigned char *p = (const unsigned char *)wire_take(st->s, &n);
    st->log[0] = 0;
    for (size_t at = 0; at + 9 <= n;) {
        size_t length = (size_t)p[at + 1] << 8 | p[at + 2];
        int type = p[at + 3], flags = p[at + 4];
        const unsigned char *payload = p + at + 9;
        if (type == 6)
            used += (size_t)snprintf(st->log + used, sizeof st->log - used, "PING%s%02x ",
                                     flags & 1 ? "+ACK" : "", payload[0]);
        else if (type == 7)
            used += (size_t)snprintf(st->log + used, sizeof st->log - used, "GOAWAY(%02x,%d,%.*s) ",
                                     payload[0], payload[7], (int)(length - 8), payload + 8);
        at += 9 + length;
    }
    return st->log;
}

static void a_silent_peer_is_pinged_every_interval(void **state)
{
    site *st = open_site();
    (void)state;
    seen(st);
    for (int i = 0; i < 3; i++) {
        wire_sleep(&st->w, 10 * OUTR_SEC + OUTR_MS);
        assert_string_equal(seen(st), "PING00 ");
        send_frame(st, 6, 1, 0, "\0\0\0\0\0\0\0\0", 8);
    }
    close_site(st);
}

static void one_of_our_kind_is_left_alone_without_calls(void **state)
{
    site *st = open_site();
    (void)state;
    send_frame(st, 4, 0, 0, "\xf0\xd1\0\0\0\1", 6);
    seen(st);
    wire_sleep(&st->w, 170 * OUTR_SEC);
    assert_string_equal(seen(st), "");
    assert_int_equal(outr_http_server_connections(st->server), 1);
    wire_sleep(&st->w, 20 * OUTR_SEC);
    assert_int_equal(outr_http_server_connections(st->server), 0);
    close_site(st);
}

static void a_peer_that_does_not_answer_is_dropped(void **state)
{
    site *st = open_site();
    (void)state;
    wire_sleep(&st->w, 10 * OUTR_SEC + OUTR_MS);
    wire_sleep(&st->w, 4 * OUTR_SEC);
    assert_int_equal(outr_http_server_connections(st->server), 1);
    wire_sleep(&st->w, OUTR_SEC + OUTR_MS);
    assert_int_equal(outr_http_server_connections(st->server), 0);
    close_site(st);
}

static void too_many_pings_are_said_and_close(void **state)
{
    site *st = open_site();
    (void)state;
    seen(st);
    for (int i = 0; i < 3; i++) {
        wire_sleep(&st->w, OUTR_SEC);
        send_frame(st, 6, 0, 0, "00000000", 8);
        assert_string_equal(seen(st), "PING+ACK30 ");
    }
    send_frame(st, 6, 0, 0, "00000000", 8);
    assert_string_equal(seen(st), "PING+ACK30 GOAWAY(00,11,too_many_pings) ");
    wire_run(&st->w);
    assert_int_equal(outr_http_server_connections(st->server), 0);
    close_site(st);
}

static void answering_pings_does_not_keep_an_idle_connection(void **state)
{
    site *st = open_site();
    unsigned pings = 0;
    (void)state;
    seen(st);
    for (int i = 0; i < 17; i++) {
        wire_sleep(&st->w, 10 * OUTR_SEC + OUTR_MS);
        pings += strcmp(seen(st), "PING00 ") == 0;
        send_frame(st, 6, 1, 0, "\0\0\0\0\0\0\0\0", 8);
    }
    assert_int_equal(pings, 17);
    wire_sleep(&st->w, 10 * OUTR_SEC);
    assert_non_null(strstr(seen(st), "GOAWAY(7f,0,) PING01 ")); /* the warning */
    send_frame(st, 6, 1, 0, "\1\6\1\10\0\3\3\11", 8);
    assert_string_equal(seen(st), "GOAWAY(00,0,max_idle) ");
    assert_int_equal(outr_http_server_connections(st->server), 0);
    close_site(st);
}

static void a_call_begun_behind_the_warning_is_served(void **state)
{
    static const char head[] = "\x82\x84\x86\x41\x01x"; /* GET / http, authority x */
    site *st = open_site();
    (void)state;
    outr_http_server_drain(st->server, NULL, NULL);
    wire_run(&st->w);
    assert_non_null(strstr(seen(st), "GOAWAY(7f,0,) PING01 "));
    send_frame(st, 1, 5, 1, head, sizeof head - 1);
    send_frame(st, 6, 1, 0, "\0\0\0\0\0\0\0\0", 8); /* of another ping: not the sign */
    assert_string_equal(seen(st), "");
    send_frame(st, 6, 1, 0, "\1\6\1\10\0\3\3\11", 8);
    assert_string_equal(seen(st), "GOAWAY(00,0,) ");
    assert_non_null(st->held);
    web_answer(st->held, 200, "late");
    st->held = NULL;
    wire_run(&st->w);
    assert_int_equal(outr_http_server_connections(st->server), 0);
    close_site(st);
}

/* A certificate of either side ends: no new calls in the last eighth of what was left, at most the
 * last half minute. What is on the connection ends by itself. */
static void a_connection_is_given_up_before_a_certificate_ends(void **state)
{
    static const char head[] = "\x82\x84\x86\x41\x01x";
    site *st = open_site_until(9 * OUTR_SEC); /* the clock says 1 s */
    (void)state;
    send_frame(st, 1, 5, 1, head, sizeof head - 1);
    seen(st);
    wire_sleep(&st->w, 6900 * OUTR_MS);
    assert_string_equal(seen(st), "");
    wire_sleep(&st->w, 200 * OUTR_MS);
    assert_non_null(strstr(seen(st), "GOAWAY(7f,0,) PING01 "));
    send_frame(st, 6, 1, 0, "\1\6\1\10\0\3\3\11", 8);
    assert_string_equal(seen(st), "GOAWAY(00,0,) ");
    web_answer(st->held, 200, "whole");
    st->held = NULL;
    wire_run(&st->w);
    assert_int_equal(outr_http_server_connections(st->server), 0);
    close_site(st);
}

/* And what does not, is cut off with it, be the peer polite or not: it has had its warning. */
static void a_call_that_never_ends_does_not_outlive_the_certificate(void **state)
{
    static const char head[] = "\x82\x84\x86\x41\x01x";
    (void)state;
    for (int is_polite = 0; is_polite < 2; is_polite++) {
        site *st = open_site_until(9 * OUTR_SEC);
        send_frame(st, 1, 5, 1, head, sizeof head - 1);
        seen(st);
        wire_sleep(&st->w, 7100 * OUTR_MS);
        assert_non_null(strstr(seen(st), "GOAWAY(7f,0,) PING01 "));
        if (is_polite)
            send_frame(st, 6, 1, 0, "\1\6\1\10\0\3\3\11", 8);
        wire_sleep(&st->w, 800 * OUTR_MS);
        assert_string_equal(seen(st), is_polite ? "GOAWAY(00,0,) " : "");
        assert_int_equal(outr_http_server_connections(st->server), 1);
        assert_string_equal(st->cut, "");
        wire_sleep(&st->w, 200 * OUTR_MS);
        assert_string_equal(seen(st), "GOAWAY(00,0,expired) ");
        assert_string_equal(st->cut, "expired 1;");
        assert_true(st->s->is_gone);
        assert_true(st->is_caller_gone);
        close_site(st);
    }
}

static void a_certificate_that_ends_with_no_call_going_on_is_no_cut(void **state)
{
    site *st = open_site_until(9 * OUTR_SEC);
    (void)state;
    wire_sleep(&st->w, 20 * OUTR_SEC);
    assert_int_equal(outr_http_server_connections(st->server), 0);
    assert_string_equal(st->cut, "");
    close_site(st);
}

static void without_anybody_to_tell_connections_stay(void **state)
{
    static const char head[] = "\x82\x84\x86\x41\x01x";
    site *st = open_site_with(9 * OUTR_SEC, NULL);
    (void)state;
    send_frame(st, 1, 5, 1, head, sizeof head - 1);
    wire_sleep(&st->w, 9 * OUTR_SEC);
    assert_int_equal(outr_http_server_connections(st->server), 1);
    close_site(st);
}

static bool keeps_none(const outr_stream *stream)
{
    return stream == NULL;
}

static bool keeps_all(const outr_stream *stream)
{
    return stream != NULL;
}

static void connections_that_are_dismissed_take_no_more_calls(void **state)
{
    site *st = open_site();
    (void)state;
    seen(st);
    outr_http_server_dismiss(st->server, keeps_all, 10 * OUTR_SEC);
    wire_run(&st->w);
    assert_string_equal(seen(st), "");
    outr_http_server_dismiss(st->server, keeps_none, 10 * OUTR_SEC);
    wire_run(&st->w);
    assert_non_null(strstr(seen(st), "GOAWAY(7f,0,) PING01 "));
    close_site(st);
}

static void what_goes_on_after_a_dismissal_is_cut_off(void **state)
{
    static const char head[] = "\x82\x84\x86\x41\x01x";
    site *st = open_site();
    (void)state;
    send_frame(st, 1, 5, 1, head, sizeof head - 1);
    seen(st);
    outr_http_server_dismiss(st->server, keeps_none, 10 * OUTR_SEC);
    wire_run(&st->w);
    send_frame(st, 6, 1, 0, "\1\6\1\10\0\3\3\11", 8);
    assert_non_null(strstr(seen(st), "GOAWAY(00,0,) "));
    wire_sleep(&st->w, 6 * OUTR_SEC);
    send_frame(st, 6, 1, 0, "\0\0\0\0\0\0\0\0", 8);
    outr_http_server_dismiss(st->server, keeps_none, 10 * OUTR_SEC); /* again: no later for it */
    wire_sleep(&st->w, 3900 * OUTR_MS);
    assert_string_equal(st->cut, "");
    wire_sleep(&st->w, 200 * OUTR_MS);
    assert_non_null(strstr(seen(st), "GOAWAY(00,0,untrusted) "));
    assert_string_equal(st->cut, "untrusted 1;");
    assert_true(st->s->is_gone);
    close_site(st);
}

static void floods_end_the_connection(void **state)
{
    static const struct {
        int type, flags;
        const char *payload;
        size_t n;
    } floods[] = {{4, 0, "", 0}, {2, 0, "\0\0\0\0\1", 5}, {0, 0, "", 0}, {8, 0, "\0\0\0\1", 4}};
    static const char post[] = "\x83\x84\x86\x41\x01x";
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(floods); i++) {
        site *st = open_site();
        unsigned n = 0;
        bool is_of_stream = floods[i].type == 0 || floods[i].type == 2;
        send_frame(st, 1, 4, 1, post, sizeof post - 1);
        for (; n < 30000 && !st->s->base.is_closing; n++) {
            send_frame(st, floods[i].type, floods[i].flags, is_of_stream, floods[i].payload,
                       floods[i].n);
            size_t taken;
            if (n % 500 == 0 && n < 9000)
                wire_take(st->s, &taken);
        }
        if (n < 9000 || n > 11000)
            fail_msg("flood %zu: %u frames", i, n);
        assert_non_null(strstr(seen(st), ",11,"));
        close_site(st);
    }
}

static void a_peer_that_reads_nothing_is_not_written_to(void **state)
{
    static const char get[] = "\x82\x84\x86\x41\x01x";
    site *st = open_site();
    char *big = outr_alloc(8 * OUTR_MIB);
    outr_http_response head = {.status = 200, .content_length = -1};
    (void)state;
    st->s->is_stalled = true;
    send_frame(st, 4, 0, 0, "\0\4\177\377\377\377", 6); /* windows as large as can be */
    send_frame(st, 8, 0, 0, "\177\0\0\0", 4);
    send_frame(st, 1, 5, 1, get, sizeof get - 1);
    assert_non_null(st->held);
    outr_headers_init(&head.headers, st->held->arena);
    outr_http_reply(st->held, &head, outr_str_of(big, 8 * OUTR_MIB));
    wire_run(&st->w);
    assert_true(st->s->base.pending_bytes < OUTR_MIB);
    close_site(st);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allowances_come_back_with_time),
        cmocka_unit_test(work_earns_idle_frames),
        cmocka_unit_test(the_fourth_ping_that_comes_too_soon_is_one_too_many),
        cmocka_unit_test(ids_passed_over_may_not_come),
        cmocka_unit_test(streams_that_are_over_are_remembered_for_a_while),
        cmocka_unit_test(a_silent_peer_is_pinged_every_interval),
        cmocka_unit_test(one_of_our_kind_is_left_alone_without_calls),
        cmocka_unit_test(a_peer_that_does_not_answer_is_dropped),
        cmocka_unit_test(too_many_pings_are_said_and_close),
        cmocka_unit_test(a_connection_is_given_up_before_a_certificate_ends),
        cmocka_unit_test(a_call_that_never_ends_does_not_outlive_the_certificate),
        cmocka_unit_test(a_certificate_that_ends_with_no_call_going_on_is_no_cut),
        cmocka_unit_test(without_anybody_to_tell_connections_stay),
        cmocka_unit_test(connections_that_are_dismissed_take_no_more_calls),
        cmocka_unit_test(what_goes_on_after_a_dismissal_is_cut_off),
        cmocka_unit_test(answering_pings_does_not_keep_an_idle_connection),
        cmocka_unit_test(a_call_begun_behind_the_warning_is_served),
        cmocka_unit_test(floods_end_the_connection),
        cmocka_unit_test(a_peer_that_reads_nothing_is_not_written_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
