#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/web.h"
#include "lib/wire.h"

/* A pool and a server, joined by streams in memory; or a raw peer that is the test. */
typedef struct site {
    wire w;
    outr_http_server *server;
    outr_http_pool *pool;
    enum { ANSWER, ECHO, HOLD, TUNNEL, TAKE, INFORM } mode;
    outr_exchange *held[2000];
    unsigned held_count, requests, finished, broken, gone;
    web_taker taker;
    char seen[256];
    bool is_drained;
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
    snprintf(st->seen + n, sizeof st->seen - n, OUTR_FMT " " OUTR_FMT " " OUTR_FMT ";",
             OUTR_ARG(x->req.method), OUTR_ARG(x->req.authority), OUTR_ARG(x->req.target));
    st->requests++;
    x->user = st;
    x->on_gone = on_gone;
    if (st->mode == ANSWER) {
        web_answer(x, 200, "hello");
    } else if (st->mode == ECHO && x->body) {
        web_echo(x, x->body, 200);
    } else if (st->mode == TUNNEL && x->tunnel) {
        web_echo(x, x->tunnel, 101);
    } else if (st->mode == INFORM) {
        outr_http_response early = {.status = 103};
        outr_http_inform(x, &early);
        web_answer(x, 200, "hello");
    } else {
        if (st->mode == TAKE && x->body)
            web_taker_start(&st->taker, x->body);
        st->held[st->held_count++] = x;
    }
}

static void on_finished(void *ctx, outr_exchange *x, bool is_broken)
{
    site *st = ctx;
    (void)x;
    st->finished++;
    st->broken += is_broken;
}

static const outr_http_handler handler = {on_request, on_finished};

static void accept_stream(void *ctx, outr_stream *own_stream)
{
    outr_http_server_take(((site *)ctx)->server, own_stream);
}

static site *open_site(const outr_http_server_options *with)
{
    site *st = outr_alloc(sizeof *st);
    outr_http_server_options o =
        with ? *with : (outr_http_server_options){.allow_connect_protocol = true};
    outr_http_pool_options po = {
        .version = OUTR_HTTP_2, .settings_id = 0xf123, .settings_value = 7};
    wire_init(&st->w, 1);
    st->w.on_accept = accept_stream;
    st->w.ctx = st;
    o.loop = po.loop = st->w.loop;
    o.handler = &handler;
    o.ctx = st;
    o.allow_h1 = o.allow_h2 = true;
    o.settings_id = 0xf123;
    o.settings_value = 42;
    st->server = outr_http_server_new(&o);
    st->pool = outr_http_pool_new(&po);
    return st;
}

static outr_exchange *pop(site *st)
{
    assert_true(st->held_count > 0);
    return st->held[--st->held_count];
}

static void close_site(site *st)
{
    outr_http_pool_free(st->pool);
    outr_http_server_free(st->server);
    while (st->held_count)
        outr_http_done(pop(st));
    wire_run(&st->w);
    assert_int_equal(st->requests, st->finished);
    wire_done(&st->w);
    web_taker_done(&st->taker);
    free(st);
}

static void run(site *st)
{
    assert_true(wire_run(&st->w));
}

#define CALL(c, st)                                                                                \
    web_call c;                                                                                    \
    web_call_init(&c, (st)->w.loop, "GET", "/p?q")

static bool body_is(const web_call *c, const char *text)
{
    return outr_str_is(outr_buf_view(&c->taker.body), text);
}

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

static void on_drained(void *ctx)
{
    ((site *)ctx)->is_drained = true;
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

/* ---- a raw peer ---------------------------------------------------------------------------------- */

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static void frame(wire_stream *s, unsigned type, unsigned flags, unsigned id, const void *p,
                  size_t n)
{
    unsigned char head[9] = {
        (unsigned char)(n >> 16),  (unsigned char)(n >> 8),  (unsigned char)n,
        (unsigned char)type,       (unsigned char)flags,     (unsigned char)(id >> 24),
        (unsigned char)(id >> 16), (unsigned char)(id >> 8), (unsigned char)id};
    wire_feed(s, head, sizeof head);
    wire_feed(s, p, n);
}

static wire_stream *raw_peer(site *st)
{
    wire_stream *s = wire_open(&st->w);
    outr_http_server_take(st->server, &s->base);
    wire_feed_z(s, PREFACE);
    frame(s, 4, 0, 0, "", 0);
    return s;
}

/* GET / http://a in HPACK: static entries and one literal. */
static const char get_block[] = "\x82\x86\x84\x41\x01"
                                "a";

/* Whether a frame of the type (with GOAWAY: of the error code) was sent. */
static bool was_sent(wire_stream *s, unsigned type, unsigned error_code)
{
    size_t n;
    const unsigned char *p = (const unsigned char *)wire_take(s, &n), *end = p + n;
    bool found = false;
    while (p + 9 <= end) {
        size_t length = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
        if (p[3] == type && (type != 7 || (length >= 8 && p[16] == error_code)))
            found = true;
        p += 9 + length;
    }
    return found;
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_share_a_connection),
        cmocka_unit_test(a_call_waits_for_settings_and_may_then_change),
        cmocka_unit_test(a_call_that_is_refused_its_connection_ends_and_others_go_on),
        cmocka_unit_test(a_peer_that_never_says_settings_fails_who_waits_for_them),
        cmocka_unit_test(a_retired_connection_says_goaway),
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
        cmocka_unit_test(the_preface_may_come_byte_by_byte),
        cmocka_unit_test(pitfall_36_rapid_reset_ends_the_connection),
        cmocka_unit_test(pitfall_36_settings_and_ping_floods_are_bounded),
        cmocka_unit_test(pitfall_36_continuation_flood_is_bounded),
        cmocka_unit_test(a_head_that_never_ends_times_out),
        cmocka_unit_test(a_body_that_never_comes_times_out_beside_busy_streams),
        cmocka_unit_test(heads_over_the_limit_are_431),
        cmocka_unit_test(malformed_requests_reach_nobody),
        cmocka_unit_test(upgrading_from_http1),
        cmocka_unit_test(a_drained_server_forgets_an_upgraded_connection),
        cmocka_unit_test(pitfall_14_refused_and_left_out_streams_were_not_sent),
        cmocka_unit_test(a_call_may_end_with_its_answer),
        cmocka_unit_test(a_pool_tells_once_that_a_connection_takes_no_more_calls),
        cmocka_unit_test(a_stopped_pool_opens_no_connection),
        cmocka_unit_test(silence_is_found_out_by_pings),
        cmocka_unit_test(garbage_from_a_server_fails_its_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
