#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "unit/http/h2_site.h"

static void calls_share_a_connection(void **state)
{
    site *st = open_site(NULL);
    web_call calls[50];
    uint32_t setting;
    (void)state;
    assert_false(outr_http_pool_peer_setting(st->pool, &setting));
    for (int i = 0; i < 50; i++) {
        web_call_init(&calls[i], st->w.loop, "GET", "/p?q");
        web_call_start(&calls[i], st->pool);
    }
    run(st);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(calls[i].done_count, 1);
        assert_int_equal(calls[i].err.code, OUTR_OK);
        assert_int_equal(calls[i].call.head.status, 200);
        assert_int_equal(calls[i].call.head.content_length, 5);
        assert_int_equal(calls[i].call.peer_setting, 42);
        assert_true(body_is(&calls[i], "hello") && calls[i].taker.has_ended);
        web_call_done(&calls[i]);
    }
    assert_int_equal(st->w.connect_count, 1);
    assert_true(outr_http_pool_peer_setting(st->pool, &setting));
    assert_int_equal(setting, 42);
    assert_memory_equal(st->seen, "GET test /p?q;", 14);
    close_site(st);
}

static void bodies_and_trailers_go_both_ways(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = ECHO;
    CALL(c, st);
    c.req.method = OUTR_STR("post");
    outr_headers_add(&c.req.headers, OUTR_STR("X-Upper"), OUTR_STR("a\nb"));
    outr_headers_add(&c.req.headers, OUTR_STR("Connection"), OUTR_STR("close"));
    outr_headers_add(&c.req.headers, OUTR_STR("TE"), OUTR_STR("gzip"));
    web_call_bytes(&c, "hello", 5);
    web_call_start(&c, st->pool);
    run(st);
    assert_int_equal(c.err.code, OUTR_OK);
    assert_true(body_is(&c, "hello"));
    assert_memory_equal(st->seen, "post ", 5);
    web_call_done(&c);
    close_site(st);
}

static void a_large_body_moves_in_bounded_memory(void **state)
{
    site *st = open_site(NULL);
    size_t n = 5 * OUTR_MIB;
    char *big = outr_alloc(n);
    (void)state;
    for (size_t i = 0; i < n; i++)
        big[i] = (char)(i * 2654435761u >> 13);
    st->mode = ECHO;
    CALL(c, st);
    c.req.method = OUTR_STR("POST");
    web_call_bytes(&c, big, n);
    web_call_start(&c, st->pool);
    run(st);
    assert_int_equal(c.err.code, OUTR_OK);
    assert_int_equal(c.taker.body.n, n);
    assert_memory_equal(c.taker.body.p, big, n);
    web_call_done(&c);
    free(big);
    close_site(st);
}

static void a_full_sink_closes_the_window_of_its_stream_only(void **state)
{
    site *st = open_site(NULL);
    size_t n = OUTR_MIB;
    char *big = outr_alloc(n);
    (void)state;
    st->mode = TAKE;
    st->taker.is_full = true;
    CALL(c, st);
    c.req.method = OUTR_STR("POST");
    web_call_bytes(&c, big, n);
    web_call_start(&c, st->pool);
    run(st);
    assert_true(st->taker.body.n < n / 2);
    st->mode = ANSWER;
    CALL(other, st);
    web_call_start(&other, st->pool);
    run(st);
    assert_int_equal(other.err.code, OUTR_OK);
    assert_int_equal(other.done_count, 1);
    assert_int_equal(st->w.connect_count, 1);
    web_taker_resume(&st->taker);
    run(st);
    assert_int_equal(st->taker.body.n, n);
    assert_true(st->taker.has_ended);
    web_answer(pop(st), 200, "");
    run(st);
    assert_int_equal(c.err.code, OUTR_OK);
    web_call_done(&c);
    web_call_done(&other);
    free(big);
    close_site(st);
}

static void head_204_and_interim(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = INFORM;
    CALL(c, st);
    c.req.method = OUTR_STR("HEAD");
    web_call_start(&c, st->pool);
    run(st);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.informs, 1);
    assert_int_equal(c.inform_status, 103);
    assert_int_equal(c.call.head.content_length, 5);
    assert_null(c.call.response);
    web_call_done(&c);
    st->mode = HOLD;
    CALL(d, st);
    web_call_start(&d, st->pool);
    run(st);
    web_answer(pop(st), 204, "");
    run(st);
    assert_int_equal(d.call.head.status, 204);
    assert_int_equal(d.done_count, 1);
    web_call_done(&d);
    close_site(st);
}

static void pitfall_14_past_the_stream_limit_another_connection_opens(void **state)
{
    const outr_http_server_options o = {.limits = {.max_streams = 10}};
    site *st = open_site(&o);
    web_call calls[35];
    (void)state;
    st->mode = ANSWER;
    for (int i = 0; i < 35; i++)
        web_call_init(&calls[i], st->w.loop, "GET", "/");
    web_call_start(&calls[0], st->pool); /* the limit is known after this one */
    run(st);
    st->mode = HOLD;
    for (int i = 1; i < 35; i++)
        web_call_start(&calls[i], st->pool);
    run(st);
    assert_true(st->held_count == 34);
    assert_true(st->w.connect_count >= 4);
    while (st->held_count)
        web_answer(pop(st), 200, "x");
    run(st);
    for (int i = 0; i < 35; i++) {
        assert_int_equal(calls[i].err.code, OUTR_OK);
        web_call_done(&calls[i]);
    }
    close_site(st);
}

static void pitfall_14_a_peer_that_allows_little_is_not_overrun_before_it_says_so(void **state)
{
    const outr_http_server_options o = {.limits = {.max_streams = 2}};
    site *st = open_site(&o);
    web_call calls[7];
    (void)state;
    st->mode = HOLD;
    for (int i = 0; i < 7; i++) {
        web_call_init(&calls[i], st->w.loop, "POST", "/");
        web_call_bytes(&calls[i], "hello", 5); /* begun, it could not be sent again */
        web_call_start(&calls[i], st->pool);
    }
    run(st);
    assert_int_equal(st->held_count, 7);
    assert_int_equal(st->w.connect_count, 4);
    while (st->held_count)
        web_answer(pop(st), 200, "x");
    run(st);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(calls[i].err.code, OUTR_OK);
        web_call_done(&calls[i]);
    }
    close_site(st);
}

static void a_peer_that_never_greets_is_given_up(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->w.on_accept = NULL;
    CALL(c, st);
    CALL(d, st);
    web_call_start(&c, st->pool);
    web_call_start(&d, st->pool);
    run(st);
    wire_sleep(&st->w, 30 * OUTR_SEC);
    assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(d.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(outr_http_pool_in_flight(st->pool), 0);
    web_call_done(&c);
    web_call_done(&d);
    close_site(st);
}

static void cancelling_resets_the_stream_and_spares_the_others(void **state)
{
    (void)state;
    for (int at_once = 0; at_once < 2; at_once++) {
        site *st = open_site(NULL);
        st->mode = HOLD;
        CALL(first, st);
        CALL(c, st);
        CALL(other, st);
        web_call_start(&first, st->pool);
        run(st);
        web_call_start(&c, st->pool);
        web_call_start(&other, st->pool);
        if (!at_once)
            run(st);
        else
            outr_loop_tick(st->w.loop); /* submitted, and perhaps not written */
        outr_op_cancel(&c.op, OUTR_DEADLINE_EXCEEDED);
        web_taker_done(&c.taker);
        run(st);
        assert_int_equal(c.err.code, OUTR_DEADLINE_EXCEEDED);
        assert_int_equal(st->gone, 1);
        while (st->held_count)
            web_answer(pop(st), 200, "x");
        run(st);
        assert_int_equal(other.err.code, OUTR_OK);
        assert_int_equal(first.err.code, OUTR_OK);
        assert_int_equal(st->w.connect_count, 1);
        outr_arena_free(c.arena);
        web_call_done(&other);
        web_call_done(&first);
        close_site(st);
    }
}

static void cancelling_before_anything_is_written(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    CALL(first, st);
    web_call_start(&first, st->pool);
    run(st);
    for (int i = 0; i < 3; i++) {
        CALL(c, st);
        if (i == 1)
            web_call_bytes(&c, "hello", 5);
        web_call_start(&c, st->pool);
        outr_op_cancel(&c.op, OUTR_CANCELLED);
        run(st);
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.call.progress, OUTR_CALL_NOT_SENT);
        web_call_done(&c);
    }
    assert_int_equal(st->requests, 1);
    web_call_done(&first);
    close_site(st);
}

static void pitfall_39_a_broken_response_is_told_as_broken(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        site *st = open_site(NULL);
        web_giver giver;
        st->mode = HOLD;
        CALL(c, st);
        web_call_start(&c, st->pool);
        run(st);
        outr_exchange *x = pop(st);
        outr_http_response head = {.status = 200, .content_length = i == 3 ? 10 : -1};
        outr_headers_init(&head.headers, x->arena);
        web_giver_init(&giver, -1);
        outr_source_attach(&giver.base, outr_http_respond(x, &head));
        web_give(&giver, "part");
        run(st);
        if (i == 0)
            web_give_abort(&giver);
        if (i == 3)
            web_give_end(&giver); /* shorter than declared */
        if (i == 2) {
            outr_http_server_free(outr_take(&st->server));
            run(st);
            web_give_abort(&giver);
        }
        outr_http_done(x);
        run(st);
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
        assert_int_equal(c.call.progress, OUTR_CALL_ANSWERED);
        assert_true(c.taker.was_aborted && !c.taker.has_ended);
        web_call_done(&c);
        if (!st->server)
            st->server = outr_http_server_new(
                &(outr_http_server_options){.loop = st->w.loop, .handler = &handler, .ctx = st});
        close_site(st);
    }
}

static void a_complete_answer_reaches_a_slow_sink_though_the_server_left(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    CALL(c, st);
    c.taker.is_full = true;
    web_call_start(&c, st->pool);
    run(st);
    outr_http_server_free(st->server);
    run(st);
    st->server = outr_http_server_new(
        &(outr_http_server_options){.loop = st->w.loop, .handler = &handler, .ctx = st});
    web_taker_resume(&c.taker);
    run(st);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_OK);
    assert_true(body_is(&c, "hello") && c.taker.has_ended);
    web_call_done(&c);
    close_site(st);
}

static void an_early_answer_arrives_whole_and_stops_the_upload(void **state)
{
    site *st = open_site(NULL);
    web_giver giver;
    (void)state;
    CALL(c, st);
    c.req.method = OUTR_STR("POST");
    c.req.content_length = -1;
    web_giver_init(&giver, -1);
    c.call.body = &giver.base;
    web_call_start(&c, st->pool);
    run(st);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_OK);
    assert_true(body_is(&c, "hello") && c.taker.has_ended);
    assert_true(giver.was_cancelled);
    assert_int_equal(st->broken, 0);
    web_call_done(&c);
    close_site(st);
}

static void a_lost_connection_fails_what_was_sent(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    st->mode = HOLD;
    CALL(c, st);
    web_call_start(&c, st->pool);
    run(st);
    OUTR_LIST_EACH(link, &st->w.streams)
        wire_break(OUTR_LIST_ITEM(link, wire_stream, link));
    run(st);
    assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(c.call.progress, OUTR_CALL_SENT);
    assert_int_equal(st->gone, 1);
    web_call_done(&c);
    close_site(st);
}

static void pitfall_16_draining_loses_nothing(void **state)
{
    site *st = open_site(NULL);
    web_call calls[20];
    (void)state;
    st->mode = HOLD;
    for (int i = 0; i < 20; i++)
        web_call_init(&calls[i], st->w.loop, "GET", "/");
    for (int i = 0; i < 10; i++)
        web_call_start(&calls[i], st->pool);
    run(st);
    outr_http_server_drain(st->server, on_drained, st);
    outr_loop_tick(st->w.loop);
    for (int i = 10; i < 20; i++) /* on their way while the warning is */
        web_call_start(&calls[i], st->pool);
    run(st);
    st->mode = ANSWER;
    assert_false(st->is_drained);
    while (st->held_count)
        web_answer(pop(st), 200, "x");
    run(st);
    assert_true(st->is_drained);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(calls[i].done_count, 1);
        if (calls[i].err.code)
            assert_int_equal(calls[i].call.progress, OUTR_CALL_NOT_SENT);
        web_call_done(&calls[i]);
    }
    close_site(st);
}

static void old_connections_are_replaced(void **state)
{
    const outr_http_server_options o = {.max_age_ns = 10 * OUTR_SEC};
    site *st = open_site(&o);
    (void)state;
    for (int i = 0; i < 40; i++) {
        CALL(c, st);
        web_call_start(&c, st->pool);
        run(st);
        assert_int_equal(c.err.code, OUTR_OK);
        web_call_done(&c);
        wire_sleep(&st->w, OUTR_SEC);
    }
    assert_true(st->w.connect_count >= 3 && st->w.connect_count <= 5);
    close_site(st);
}

static void tunnels(void **state)
{
    site *st = open_site(NULL);
    web_giver giver;
    (void)state;
    st->mode = TUNNEL;
    CALL(c, st);
    web_giver_init(&giver, -1);
    c.req.upgrade = OUTR_STR("websocket");
    c.call.body = &giver.base;
    CALL(first, st); /* so that the server's SETTINGS are known */
    st->mode = ANSWER;
    web_call_start(&first, st->pool);
    run(st);
    st->mode = TUNNEL;
    web_call_start(&c, st->pool);
    run(st);
    assert_int_equal(c.call.head.status, 101);
    assert_true(giver.is_wanted);
    web_give(&giver, "ping");
    run(st);
    assert_true(body_is(&c, "ping"));
    web_give_end(&giver);
    run(st);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_OK);
    assert_true(c.taker.has_ended);
    assert_non_null(strstr(st->seen, "GET test /p?q;GET test /p?q;"));
    web_call_done(&first);
    web_call_done(&c);
    close_site(st);
}

static void no_tunnel_where_the_server_offers_none(void **state)
{
    const outr_http_server_options o = {0};
    site *st = open_site(&o);
    (void)state;
    CALL(first, st);
    web_call_start(&first, st->pool);
    run(st);
    CALL(c, st);
    c.req.upgrade = OUTR_STR("websocket");
    web_call_start(&c, st->pool);
    run(st);
    assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
    assert_int_equal(c.call.progress, OUTR_CALL_NOT_SENT);
    web_call_done(&first);
    web_call_done(&c);
    close_site(st);
}

static void idle_connections_are_closed(void **state)
{
    site *st = open_site(NULL);
    (void)state;
    CALL(c, st);
    web_call_start(&c, st->pool);
    run(st);
    wire_sleep(&st->w, 200 * OUTR_SEC);
    assert_int_equal(outr_http_server_connections(st->server), 0);
    assert_int_equal(outr_http_pool_connections(st->pool), 0);
    web_call_done(&c);
    close_site(st);
}

static void heads_over_the_limit_are_431(void **state)
{
    const outr_http_server_options o = {.limits = {.max_header_bytes = 64}};
    site *st = open_site(&o);
    (void)state;
    CALL(c, st);
    outr_headers_add(
        &c.req.headers, OUTR_STR("x-long"),
        OUTR_STR("0123456789012345678901234567890123456789012345678901234567890123456789"));
    web_call_start(&c, st->pool);
    run(st);
    assert_int_equal(c.call.head.status, 431);
    assert_int_equal(st->requests, 0);
    web_call_done(&c);
    close_site(st);
}

/* ---- what a caller does when it has its connection ------------------------------------------- */

static uint32_t setting_at_place;

static outr_code on_place(outr_http_call *call, outr_err *err)
{
    web_call *c = call->user;
    (void)err;
    setting_at_place = call->peer_setting;
    c->req.target = OUTR_STR("/placed");
    return OUTR_OK;
}

static outr_code refuse_place(outr_http_call *call, outr_err *err)
{
    (void)call;
    return outr_fail(err, OUTR_INTERNAL, "not to this one");
}

static outr_http_pool *waiting_pool(site *st)
{
    const outr_http_pool_options o = {.loop = st->w.loop,
                                      .version = OUTR_HTTP_2,
                                      .settings_id = 0xf123,
                                      .waits_for_settings = true};
    return outr_http_pool_new(&o);
}

static void a_call_waits_for_settings_and_may_then_change(void **state)
{
    site *st = open_site(NULL);
    outr_http_pool *pool = waiting_pool(st);
    web_call c;
    (void)state;
    setting_at_place = 0;
    web_call_init(&c, st->w.loop, "GET", "/first");
    c.call.on_place = on_place;
    c.call.user = &c;
    web_call_start(&c, pool);
    wire_run(&st->w);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.call.head.status, 200);
    assert_int_equal(setting_at_place, 42);
    assert_string_equal(st->seen, "GET test /placed;");
    web_call_done(&c);
    outr_http_pool_free(pool);
    close_site(st);
}

static void a_call_that_is_refused_its_connection_ends_and_others_go_on(void **state)
{
    site *st = open_site(NULL);
    outr_http_pool *pool = waiting_pool(st);
    web_call refused, c;
    (void)state;
    web_call_init(&refused, st->w.loop, "GET", "/refused");
    refused.call.on_place = refuse_place;
    web_call_start(&refused, pool);
    web_call_init(&c, st->w.loop, "GET", "/a");
    web_call_start(&c, pool);
    wire_run(&st->w);
    assert_int_equal(refused.err.code, OUTR_INTERNAL);
    assert_string_equal(refused.err.text, "not to this one");
    assert_int_equal(c.call.head.status, 200);
    assert_int_equal(st->requests, 1);
    assert_int_equal(outr_http_pool_connections(pool), 1);
    web_call_done(&refused);
    web_call_done(&c);
    outr_http_pool_free(pool);
    close_site(st);
}

static void a_peer_that_never_says_settings_fails_who_waits_for_them(void **state)
{
    site *st = open_site(NULL);
    outr_http_pool *pool = waiting_pool(st);
    web_call c;
    (void)state;
    st->w.on_accept = NULL; /* the test is the peer, and mute */
    web_call_init(&c, st->w.loop, "GET", "/a");
    web_call_start(&c, pool);
    wire_run(&st->w);
    assert_int_equal(c.done_count, 0);
    wire_sleep(&st->w, 6 * OUTR_SEC);
    assert_int_equal(c.done_count, 1);
    assert_int_equal(c.err.code, OUTR_UNAVAILABLE);
    assert_true(c.err.retriable);
    assert_int_equal(st->w.connect_count, 1);
    web_call_done(&c);
    outr_http_pool_free(pool);
    close_site(st);
}

static void a_retired_connection_says_goaway(void **state)
{
    site *st = open_site(NULL);
    web_call c;
    (void)state;
    web_call_init(&c, st->w.loop, "GET", "/a");
    web_call_start(&c, st->pool);
    wire_run(&st->w);
    outr_http_pool_retire(st->pool);
    wire_run(&st->w);
    assert_int_equal(outr_http_pool_connections(st->pool), 0);
    assert_int_equal(outr_http_server_connections(st->server), 0);
    web_call_done(&c);
    close_site(st);
}

static void accept_until_nine(void *ctx, outr_stream *own_stream)
{
    ((wire_stream *)(void *)own_stream)->other->base.expires_ns = 9 * OUTR_SEC;
    outr_http_server_take(((site *)ctx)->server, own_stream);
}

/* No call goes out by a certificate that may end before its answer; the next connection has another
 * one. Nobody notices. */
static void calls_move_on_before_a_certificate_ends(void **state)
{
    static const struct {
        uint64_t at_ns;
        size_t connects;
    } rows[] = {{OUTR_SEC, 1}, {7900 * OUTR_MS, 1}, {8100 * OUTR_MS, 2}, {8200 * OUTR_MS, 2}};
    site *st = open_site(NULL);
    (void)state;
    st->w.on_accept = accept_until_nine;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        web_call c;
        if (i == 2)
            st->w.on_accept = accept_stream;
        wire_sleep(&st->w, rows[i].at_ns - st->w.now);
        web_call_init(&c, st->w.loop, "GET", "/a");
        web_call_start(&c, st->pool);
        wire_run(&st->w);
        assert_int_equal(c.done_count, 1);
        assert_int_equal(c.err.code, OUTR_OK);
        assert_int_equal(st->w.connect_count, rows[i].connects);
        web_call_done(&c);
    }
    wire_run(&st->w);
    assert_int_equal(outr_http_pool_connections(st->pool), 1);
    close_site(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_share_a_connection),
        cmocka_unit_test(a_call_waits_for_settings_and_may_then_change),
        cmocka_unit_test(a_call_that_is_refused_its_connection_ends_and_others_go_on),
        cmocka_unit_test(a_peer_that_never_says_settings_fails_who_waits_for_them),
        cmocka_unit_test(a_retired_connection_says_goaway),
        cmocka_unit_test(calls_move_on_before_a_certificate_ends),
        cmocka_unit_test(bodies_and_trailers_go_both_ways),
        cmocka_unit_test(a_large_body_moves_in_bounded_memory),
        cmocka_unit_test(a_full_sink_closes_the_window_of_its_stream_only),
        cmocka_unit_test(head_204_and_interim),
        cmocka_unit_test(pitfall_14_past_the_stream_limit_another_connection_opens),
        cmocka_unit_test(pitfall_14_a_peer_that_allows_little_is_not_overrun_before_it_says_so),
        cmocka_unit_test(a_peer_that_never_greets_is_given_up),
        cmocka_unit_test(cancelling_resets_the_stream_and_spares_the_others),
        cmocka_unit_test(cancelling_before_anything_is_written),
        cmocka_unit_test(pitfall_39_a_broken_response_is_told_as_broken),
        cmocka_unit_test(a_complete_answer_reaches_a_slow_sink_though_the_server_left),
        cmocka_unit_test(an_early_answer_arrives_whole_and_stops_the_upload),
        cmocka_unit_test(a_lost_connection_fails_what_was_sent),
        cmocka_unit_test(pitfall_16_draining_loses_nothing),
        cmocka_unit_test(old_connections_are_replaced),
        cmocka_unit_test(tunnels),
        cmocka_unit_test(no_tunnel_where_the_server_offers_none),
        cmocka_unit_test(idle_connections_are_closed),
        cmocka_unit_test(heads_over_the_limit_are_431),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
