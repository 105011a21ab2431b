#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <ctype.h>

#include "unit/mesh/world.h"

static bool is_over(void *ctx)
{
    return ((web_call *)ctx)->done_count > 0;
}

/* Until c is over; the clock stands where that was. */
static void finish(world *w, web_call *c)
{
    web_call_start(c, w->client);
    world_run_until_over(w, c);
}

static void close_world(world *w)
{
    assert_int_equal(world_close(w), 0);
}

static unsigned requests(const world *w)
{
    return w->nodes[0].requests + w->nodes[1].requests + w->nodes[2].requests;
}

/* ---- the way there and back ----------------------------------------------------------------- */

static void echo_head(world *w, world_node *node, outr_exchange *x)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    (void)w;
    (void)node;
    outr_buf_printf(&text, OUTR_FMT " " OUTR_FMT " host=" OUTR_FMT "\n", OUTR_ARG(x->req.method),
                    OUTR_ARG(x->req.target), OUTR_ARG(x->req.authority));
    for (size_t i = 0; i < x->req.headers.count; i++) {
        const outr_header *h = &x->req.headers.items[i];
        for (size_t k = 0; k < h->name.n; k++)
            outr_buf_char(&text, (char)tolower((unsigned char)h->name.p[k]));
        outr_buf_printf(&text, "=" OUTR_FMT "\n", OUTR_ARG(h->value));
    }
    outr_buf_char(&text, 0);
    web_answer(x, 200, text.p);
}

static void a_call_reaches_the_app_of_the_callee(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->on_app = echo_head;
    world_call(w, &c, "GET", "callee", "/orders/7?x=%20y");
    outr_headers_add(&c.req.headers, OUTR_STR("X-One"), OUTR_STR("1"));
    finish(w, &c);
    world_assert_answer(&c, 200, "GET /orders/7?x=%20y host=127.0.0.1:8000\n");
    world_assert_answer(&c, 200, "dapr-caller-app-id=caller\n");
    world_assert_answer(&c, 200, "dapr-caller-namespace=default\n");
    world_assert_answer(&c, 200, "dapr-callee-app-id=callee\n");
    world_assert_answer(&c, 200, "forwarded=for=192.0.2.1;by=192.0.2.1;host=box\n");
    world_assert_answer(&c, 200, "x-one=1\n");
    web_call_done(&c);
    close_world(w);
}

static void echo_body(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    web_echo(x, x->body, 201);
}

static void a_body_streams_both_ways(void **state)
{
    world *w = world_open(1, 0);
    size_t n = 3 * OUTR_MIB;
    char *bytes = outr_alloc(n);
    web_call c;
    (void)state;
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * 2654435761u >> 9);
    w->on_app = echo_body;
    world_call(w, &c, "POST", "callee", "/echo");
    web_call_bytes(&c, bytes, n);
    finish(w, &c);
    assert_int_equal(c.call.head.status, 201);
    assert_true(c.taker.has_ended);
    assert_int_equal(c.taker.body.n, n);
    assert_memory_equal(c.taker.body.p, bytes, n);
    web_call_done(&c);
    free(bytes);
    close_world(w);
}

static void answer_bare(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    outr_http_response head = {.status = 404, .content_length = 2};
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("Set-Cookie"), OUTR_STR("a=1"));
    outr_headers_add(&head.headers, OUTR_STR("Set-Cookie"), OUTR_STR("b=2"));
    outr_headers_add(&head.headers, OUTR_STR("Grpc-Status"), OUTR_STR("5"));
    outr_headers_add(&head.headers, OUTR_STR("Trace-Bin"), OUTR_STR("xx"));
    outr_headers_add(&head.headers, OUTR_STR("Outrigger-Error"), OUTR_STR("5"));
    outr_http_reply(x, &head, OUTR_STR("{}"));
    outr_http_done(x);
}

static void the_answer_of_the_app_is_passed_on_whatever_its_status(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->on_app = answer_bare;
    world_call(w, &c, "GET", "callee", "/");
    finish(w, &c);
    const outr_headers *h = &c.call.head.headers;
    world_assert_answer(&c, 404, "{}");
    unsigned cookies = 0;
    for (size_t i = 0; i < h->count; i++)
        cookies += outr_str_iis(h->items[i].name, "set-cookie");
    assert_int_equal(cookies, 2);
    assert_true(outr_str_is(outr_headers_get(h, "content-type"), "application/json"));
    assert_false(outr_headers_has(h, "grpc-status"));
    assert_true(outr_str_is(outr_headers_get(h, "dapr-grpc-status"), "5"));
    assert_false(outr_headers_has(h, "trace-bin"));
    assert_false(outr_headers_has(h, "outrigger-error"));
    web_call_done(&c);
    close_world(w);
}

/* ---- whom -------------------------------------------------------------------------------------- */

static void a_name_nobody_has_is_asked_for_six_times_and_fails(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    uint64_t began = w->w.now;
    world_call(w, &c, "GET", "nobody", "/");
    finish(w, &c);
    world_assert_answer(&c, 500, "5 no host found");
    assert_int_equal(w->asked, 6);
    assert_true(w->w.now - began >= 500 * OUTR_MS && w->w.now - began < 700 * OUTR_MS);
    web_call_done(&c);
    close_world(w);
}

static void an_answer_of_the_resolver_is_used_again_while_it_is_fresh(void **state)
{
    world *w = world_open(1, 0);
    (void)state;
    for (int i = 0; i < 20; i++) {
        web_call c;
        world_call(w, &c, "GET", "callee", "/");
        finish(w, &c);
        world_assert_answer(&c, 200, "hello");
        web_call_done(&c);
    }
    assert_int_equal(w->asked, 1);
    assert_int_equal(w->nodes[0].connects, 1);
    wire_sleep(&w->w, 21 * OUTR_SEC);
    web_call c;
    world_call(w, &c, "GET", "callee", "/");
    finish(w, &c);
    assert_int_equal(w->asked, 2);
    web_call_done(&c);
    close_world(w);
}

static void call_once(world *w)
{
    web_call c;
    world_call(w, &c, "GET", "callee", "/");
    finish(w, &c);
    world_assert_answer(&c, 200, "hello");
    web_call_done(&c);
}

static void what_the_registry_tells_of_is_used_at_once(void **state)
{
    world *w = world_open(1, 0);
    (void)state;
    call_once(w);
    outr_watchers_tell(w->resolver.watchers, OUTR_STR("other"), OUTR_STR("default"));
    outr_watchers_tell(w->resolver.watchers, OUTR_STR("callee"), OUTR_STR("other"));
    wire_run(&w->w);
    assert_int_equal(w->asked, 1); /* nobody here asked for these */
    w->names[0] = 9001;
    outr_watchers_tell(w->resolver.watchers, OUTR_STR("callee"), OUTR_STR("default"));
    outr_watchers_tell(w->resolver.watchers, OUTR_STR("callee"), OUTR_STR("default"));
    wire_run(&w->w);
    assert_int_equal(w->asked, 2);
    call_once(w);
    assert_int_equal(w->nodes[1].requests, 1);
    w->names[0] = 9002;
    outr_watchers_tell(w->resolver.watchers, OUTR_STR_NONE, OUTR_STR_NONE);
    wire_run(&w->w);
    call_once(w);
    assert_int_equal(w->nodes[2].requests, 1);
    assert_int_equal(w->asked, 3);
    close_world(w);
}

static void a_change_during_a_question_is_asked_for_again(void **state)
{
    world *w = world_open(1, 0);
    (void)state;
    call_once(w);
    w->resolver_delay_ns = OUTR_SEC;
    for (int i = 0; i < 3; i++) {
        outr_watchers_tell(w->resolver.watchers, OUTR_STR("callee"), OUTR_STR("default"));
        wire_sleep(&w->w, OUTR_MS);
    }
    assert_int_equal(w->asked, 2);
    wire_sleep(&w->w, 5 * OUTR_SEC);
    assert_int_equal(w->asked, 3);
    outr_watchers_tell(w->resolver.watchers, OUTR_STR("callee"), OUTR_STR("default"));
    close_world(w); /* with a message under way */
}

static void what_was_known_still_holds_when_the_registry_is_away_or_empty(void **state)
{
    world *w = world_open(1, 0);
    (void)state;
    for (int i = 0; i < 4; i++) {
        web_call c;
        world_call(w, &c, "GET", "callee", "/");
        finish(w, &c);
        world_assert_answer(&c, 200, "hello");
        web_call_done(&c);
        w->resolver_fails = i == 0;
        w->names[0] = 0;
        wire_sleep(&w->w, 25 * OUTR_SEC);
    }
    assert_true(w->asked >= 4);
    close_world(w);
}

/* Nor does a call that meets a dead instance wait for it, while others are known; and many such calls
 * ask it once. */
static void a_registry_that_hangs_holds_up_no_call(void **state)
{
    world *w = world_open(1, 0);
    web_call calls[20];
    (void)state;
    w->names[1] = 9001;
    call_once(w);
    w->resolver_delay_ns = 600 * OUTR_SEC;
    w->nodes[0].is_refusing = w->nodes[1].is_refusing = true; /* the one without a connection */
    for (size_t i = 0; i < OUTR_LEN(calls); i++) {
        world_call(w, &calls[i], "GET", "callee", "/");
        web_call_start(&calls[i], w->client);
    }
    uint64_t began = w->w.now;
    for (size_t i = 0; i < OUTR_LEN(calls); i++) {
        world_run_until_over(w, &calls[i]);
        world_assert_answer(&calls[i], 200, "hello");
        web_call_done(&calls[i]);
    }
    assert_true(w->w.now - began < OUTR_SEC);
    assert_int_equal(w->asked, 2);
    wire_sleep(&w->w, 600 * OUTR_SEC); /* it is waited for */
    close_world(w);
}

static void a_registry_that_never_answered_is_the_error(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->resolver_fails = true;
    world_call(w, &c, "GET", "callee", "/");
    finish(w, &c);
    world_assert_answer(&c, 500, "the registry is away");
    web_call_done(&c);
    close_world(w);
}

static void bad_targets_methods_and_verbs_send_nothing(void **state)
{
    static const struct {
        const char *verb, *target, *path;
    } rows[] = {
        {"GET", "a.b.c", "/"},     {"GET", "", "/"},
        {"GET", ".ns", "/"},       {"NONE", "callee", "/"},
        {"GET", "callee", "/a#b"}, {"GET", "callee", "/%"},
        {"GET", "http://", "/"},   {"GET", "http://[::1", "/"},
    };
    world *w = world_open(1, 0);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        web_call c;
        world_call(w, &c, rows[i].verb, rows[i].target, rows[i].path);
        finish(w, &c);
        if (c.call.head.status < 400)
            fail_msg("%s %s went through", rows[i].target, rows[i].path);
        web_call_done(&c);
    }
    assert_int_equal(requests(w), 0);
    close_world(w);
}

static void a_name_longer_than_bearable_is_refused(void **state)
{
    world *w = world_open(1, 0);
    char name[700];
    web_call c;
    (void)state;
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = 0;
    world_call(w, &c, "GET", name, "/");
    finish(w, &c);
    world_assert_answer(&c, 500, "app id is longer");
    assert_int_equal(w->asked, 0);
    web_call_done(&c);
    close_world(w);
}

/* ---- which instance ------------------------------------------------------------------------------ */

static void let_go(outr_exchange *x, const outr_err *err)
{
    (void)err;
    outr_http_done(x);
}

/* No answer as long as the caller waits. */
static void hold(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    x->on_gone = let_go;
}

static void calls_go_where_the_fewest_are_under_way(void **state)
{
    world *w = world_open(7, 0);
    web_call calls[30];
    (void)state;
    for (int i = 0; i < 3; i++)
        w->names[i] = (uint16_t)(9000 + i);
    w->on_app = hold;
    for (size_t i = 0; i < OUTR_LEN(calls); i++) {
        world_call(w, &calls[i], "GET", "callee", "/");
        web_call_start(&calls[i], w->client);
        wire_run(&w->w);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(w->nodes[i].requests, 10);
    for (size_t i = 0; i < OUTR_LEN(calls); i++)
        outr_op_cancel(&calls[i].op, OUTR_CANCELLED);
    wire_run(&w->w);
    for (size_t i = 0; i < OUTR_LEN(calls); i++) {
        assert_int_equal(calls[i].done_count, 1);
        web_call_done(&calls[i]);
    }
    close_world(w);
}

static void a_refused_connection_moves_on_at_once(void **state)
{
    world *w = world_open(1, 0);
    (void)state;
    for (int i = 0; i < 3; i++)
        w->names[i] = (uint16_t)(9000 + i);
    w->nodes[0].is_refusing = w->nodes[2].is_refusing = true;
    for (int i = 0; i < 20; i++) {
        uint64_t began = w->w.now;
        web_call c;
        world_call(w, &c, "POST", "callee", "/");
        web_call_bytes(&c, "body", 4);
        finish(w, &c);
        world_assert_answer(&c, 200, "hello");
        assert_true(w->w.now - began < 10 * OUTR_MS);
        web_call_done(&c);
    }
    assert_int_equal(w->nodes[1].requests, 20);
    close_world(w);
}

static void all_instances_away_is_an_error_after_four_rounds_a_second_apart(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->nodes[0].is_refusing = true;
    uint64_t began = w->w.now;
    world_call(w, &c, "POST", "callee", "/");
    finish(w, &c);
    world_assert_answer(&c, 500, "failed to invoke target callee after 3 retries");
    world_assert_answer(&c, 500, "connection refused");
    assert_true(w->w.now - began >= 3 * OUTR_SEC && w->w.now - began < 4 * OUTR_SEC);
    assert_int_equal(requests(w), 0);
    web_call_done(&c);
    close_world(w);
}

static void a_callee_that_comes_back_in_between_is_reached(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->nodes[0].is_refusing = true;
    world_call(w, &c, "POST", "callee", "/");
    web_call_bytes(&c, "body", 4);
    web_call_start(&c, w->client);
    wire_sleep(&w->w, 1500 * OUTR_MS);
    assert_int_equal(c.done_count, 0);
    w->nodes[0].is_refusing = false;
    world_run_until_over(w, &c);
    world_assert_answer(&c, 200, "hello");
    assert_int_equal(requests(w), 1);
    web_call_done(&c);
    close_world(w);
}

static void a_callee_restarted_on_a_new_port_is_found_by_the_next_call(void **state)
{
    world *w = world_open(1, 0);
    web_call a, b;
    (void)state;
    world_call(w, &a, "GET", "callee", "/");
    finish(w, &a);
    world_assert_answer(&a, 200, "hello");
    w->nodes[0].is_refusing = true; /* it is gone, connections and all */
    outr_http_server_free(w->nodes[0].internal);
    wire_run(&w->w);
    w->nodes[0].internal = world_server(w, &outr_mesh_handler, w->nodes[0].mesh, true, 0);
    w->names[0] = 9001;
    uint64_t began = w->w.now;
    world_call(w, &b, "POST", "callee", "/");
    web_call_bytes(&b, "x", 1);
    finish(w, &b);
    world_assert_answer(&b, 200, "hello");
    assert_int_equal(w->nodes[1].requests, 1);
    assert_true(w->w.now - began < 10 * OUTR_MS);
    web_call_done(&a);
    web_call_done(&b);
    close_world(w);
}

static void connections_to_where_no_name_leads_any_more_are_closed(void **state)
{
    world *w = world_open(1, 0);
    (void)state;
    for (int i = 0; i < 3; i++) {
        web_call c;
        world_call(w, &c, "GET", "callee", "/");
        finish(w, &c);
        world_assert_answer(&c, 200, "hello");
        web_call_done(&c);
        w->names[0] = 9001;
        wire_sleep(&w->w, 25 * OUTR_SEC);
    }
    assert_true(w->nodes[1].requests > 0);
    assert_int_equal(outr_http_server_connections(w->nodes[0].internal), 1);
    wire_sleep(&w->w, 140 * OUTR_SEC); /* well before they would close for idling */
    assert_int_equal(outr_http_server_connections(w->nodes[0].internal), 0);
    close_world(w);
}

static void more_calls_than_streams_open_a_second_connection(void **state)
{
    world *w = world_open(1, 4);
    web_call calls[12];
    (void)state;
    web_call first;
    world_call(w, &first, "GET", "callee", "/");
    finish(w, &first);
    web_call_done(&first);
    w->on_app = hold;
    for (size_t i = 0; i < OUTR_LEN(calls); i++) {
        world_call(w, &calls[i], "GET", "callee", "/");
        web_call_start(&calls[i], w->client);
    }
    wire_run(&w->w);
    assert_int_equal(w->nodes[0].requests, 13);
    assert_int_equal(w->nodes[0].connects, 3);
    for (size_t i = 0; i < OUTR_LEN(calls); i++)
        outr_op_cancel(&calls[i].op, OUTR_CANCELLED);
    wire_run(&w->w);
    for (size_t i = 0; i < OUTR_LEN(calls); i++)
        web_call_done(&calls[i]);
    close_world(w);
}

/* ---- what may be sent twice ------------------------------------------------------------------ */

static void break_off(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    outr_http_done(x); /* no answer: the connection is closed */
}

static void a_post_that_was_sent_is_not_repeated(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    for (int i = 0; i < 3; i++)
        w->names[i] = (uint16_t)(9000 + i);
    w->on_app = break_off;
    for (int with_body = 0; with_body < 2; with_body++) {
        unsigned before = requests(w);
        world_call(w, &c, "POST", "callee", "/");
        if (with_body)
            web_call_bytes(&c, "body", 4);
        finish(w, &c);
        world_assert_answer(&c, 500, "error invoking app channel");
        assert_int_equal(requests(w) - before, 1);
        web_call_done(&c);
    }
    close_world(w);
}

static void break_peers(world *w)
{
    OUTR_LIST_EACH(link, &w->w.streams) {
        wire_stream *s = OUTR_LIST_ITEM(link, wire_stream, link);
        if (s->base.local.port >= 9000 || s->base.peer.port >= 9000)
            wire_break(s);
    }
}

/* The peer's connection dies after the app has been asked. */
static void die_with_peer(world *w, world_node *node, outr_exchange *x)
{
    (void)node;
    x->on_gone = let_go;
    if (requests(w) <= 2)
        break_peers(w);
    else
        web_answer(x, 200, "again");
}

static void a_connection_lost_with_a_post_on_it_is_an_error_with_a_get_another_try(void **state)
{
    static const struct {
        const char *verb;
        bool has_key, is_repeated;
    } rows[] = {{"POST", false, false}, {"GET", false, true}, {"POST", true, true}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        world *w = world_open(1, 0);
        web_call first, c;
        world_call(w, &first, "GET", "callee", "/");
        finish(w, &first); /* so that the connection is a used one */
        web_call_done(&first);
        w->on_app = die_with_peer;
        world_call(w, &c, rows[i].verb, "callee", "/");
        if (rows[i].has_key)
            outr_headers_add(&c.req.headers, OUTR_STR("Idempotency-Key"), OUTR_STR("k"));
        finish(w, &c);
        if (rows[i].is_repeated)
            world_assert_answer(&c, 200, "again");
        else
            assert_int_equal(c.call.head.status, 500);
        assert_int_equal(requests(w), 2 + rows[i].is_repeated);
        web_call_done(&c);
        close_world(w);
    }
}

static void forwarding_headers_are_added_once_however_often_it_is_tried(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->on_app = echo_head;
    w->nodes[0].is_refusing = true;
    world_call(w, &c, "GET", "callee", "/");
    outr_headers_add(&c.req.headers, OUTR_STR("X-Forwarded-For"), OUTR_STR("198.51.100.1"));
    web_call_start(&c, w->client);
    wire_sleep(&w->w, 2500 * OUTR_MS);
    w->nodes[0].is_refusing = false;
    world_run_until_over(w, &c);
    world_assert_answer(&c, 200, "x-forwarded-for=198.51.100.1, 192.0.2.1\n");
    web_call_done(&c);
    close_world(w);
}

/* ---- broken bodies ----------------------------------------------------------------------------- */

static void answer_half(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    outr_http_response head = {.status = 200, .content_length = -1};
    outr_headers_init(&head.headers, x->arena);
    outr_sink *sink = outr_http_respond(x, &head);
    sink->ops->data(sink, outr_slice_copy(OUTR_STR("the first half")));
    outr_err err;
    outr_fail(&err, OUTR_INTERNAL, "the app dies");
    sink->ops->abort(sink, &err);
    outr_http_done(x);
}

static void an_answer_that_breaks_off_never_ends_cleanly(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->on_app = answer_half;
    world_call(w, &c, "GET", "callee", "/");
    finish(w, &c);
    assert_false(c.taker.has_ended);
    assert_int_not_equal(c.err.code, OUTR_OK);
    assert_int_equal(requests(w), 1);
    web_call_done(&c);
    close_world(w);
}

static void a_body_without_length_over_the_limit_is_an_error(void **state)
{
    world *w = world_open(1, 0);
    web_giver g;
    web_call c;
    (void)state;
    w->settings.max_body_bytes = 10;
    w->on_app = echo_body;
    world_call(w, &c, "POST", "callee", "/");
    web_giver_init(&g, -1);
    c.req.content_length = -1;
    c.call.body = &g.base;
    web_call_start(&c, w->client);
    wire_run(&w->w);
    web_give(&g, "12345");
    wire_run(&w->w);
    web_give(&g, "67890x");
    web_give_end(&g);
    world_run_until_over(w, &c);
    assert_false(c.taker.has_ended && c.call.head.status == 200);
    web_call_done(&c);
    close_world(w);
}

static void a_declared_length_over_the_limit_is_refused_before_anything_is_sent(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->settings.max_body_bytes = 10;
    world_call(w, &c, "POST", "callee", "/");
    web_call_bytes(&c, "12345678901", 11);
    finish(w, &c);
    world_assert_answer(&c, 500, "stream too large");
    assert_int_equal(requests(w), 0);
    assert_int_equal(w->nodes[0].connects, 0);
    web_call_done(&c);
    close_world(w);
}

/* ---- the called side -------------------------------------------------------------------------- */

static void an_app_that_is_not_there_is_told_as_such(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->nodes[0].is_app_refusing = true;
    world_call(w, &c, "GET", "callee", "/");
    finish(w, &c);
    world_assert_answer(&c, 500, "13 rpc error: code = Internal desc = error invoking app channel");
    assert_false(outr_headers_has(&c.call.head.headers, "outrigger-error"));
    web_call_done(&c);
    close_world(w);
}

static void a_sidecar_serves_only_its_own_app_id(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->nodes[0].settings.app_id = OUTR_STR("moved");
    world_call(w, &c, "GET", "callee", "/");
    finish(w, &c);
    world_assert_answer(&c, 500, "5 rpc error: code = NotFound");
    assert_int_equal(requests(w), 0);
    web_call_done(&c);
    close_world(w);
}

static void what_a_peer_asks_for_must_be_clean(void **state)
{
    static const char *const paths[] = {"/a/../b", "//a", "/./a", "/a//b", "/../etc", "*"};
    world *w = world_open(1, 0);
    (void)state;
    outr_http_pool_options o = {.loop = w->w.loop, .version = OUTR_HTTP_2};
    o.addr.kind = OUTR_ADDR_IP4;
    o.addr.port = 9000;
    outr_http_pool *peer = outr_http_pool_new(&o);
    for (size_t i = 0; i < OUTR_LEN(paths); i++) {
        web_call c;
        web_call_init(&c, w->w.loop, "GET", paths[i]);
        outr_headers_add(&c.req.headers, OUTR_STR("dapr-callee-app-id"), OUTR_STR("callee"));
        web_call_start(&c, peer);
        assert_true(wire_until(&w->w, is_over, &c, OUTR_SEC));
        if (c.call.head.status == 200)
            fail_msg("%s went through", paths[i]);
        web_call_done(&c);
    }
    web_call c;
    web_call_init(&c, w->w.loop, "GET", "/good");
    web_call_start(&c, peer); /* without dapr-callee-app-id */
    assert_true(wire_until(&w->w, is_over, &c, OUTR_SEC));
    assert_int_equal(c.call.head.status, 500);
    web_call_done(&c);
    assert_int_equal(requests(w), 0);
    outr_http_pool_free(peer);
    close_world(w);
}

static void a_token_never_crosses_a_hop(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->nodes[0].settings.app_token = OUTR_STR("of-callees-app");
    w->on_app = echo_head;
    world_call(w, &c, "GET", "callee", "/");
    outr_headers_add(&c.req.headers, OUTR_STR("dapr-api-token"), OUTR_STR("of-caller"));
    finish(w, &c);
    world_assert_answer(&c, 200, "dapr-api-token=of-callees-app\n");
    assert_true(outr_str_search(outr_buf_view(&c.taker.body), OUTR_STR("of-caller")) < 0);
    web_call_done(&c);
    close_world(w);
}

/* ---- to oneself, to the outside ---------------------------------------------------------------- */

static void a_call_to_oneself_goes_straight_to_the_app(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->on_app = echo_head;
    outr_mesh_free(w->mesh);
    w->mesh = world_make_mesh(w, &w->nodes[0].settings, w->nodes[0].app, 9000);
    outr_app_start(w->nodes[0].app);
    wire_run(&w->w);
    world_call(w, &c, "GET", "callee", "/me");
    outr_headers_add(&c.req.headers, OUTR_STR("Dapr-Caller-App-Id"), OUTR_STR("spoofed"));
    finish(w, &c);
    world_assert_answer(&c, 200, "GET /me ");
    assert_int_equal(w->asked, 0);
    assert_int_equal(w->nodes[0].connects, 0);
    outr_str body = outr_buf_view(&c.taker.body);
    assert_true(outr_str_search(body, OUTR_STR("spoofed")) < 0);
    assert_true(outr_str_search(body, OUTR_STR("orwarded")) < 0);
    web_call_done(&c);
    outr_app_stop(w->nodes[0].app);
    close_world(w);
}

static void a_call_to_oneself_without_an_app_says_so(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    world_call(w, &c, "GET", "caller", "/me");
    finish(w, &c);
    world_assert_answer(&c, 500, "13 cannot invoke local endpoint: app channel not initialized");
    web_call_done(&c);
    close_world(w);
}

static void a_url_is_called_without_a_peer_and_without_names(void **state)
{
    static const struct {
        const char *target, *expect;
    } rows[] = {
        {"http://10.9.9.9:7000", "GET /x?q=1 host=10.9.9.9:7000\n"},
        {"http://10.9.9.9:7000/base/", "GET /base/x?q=1 host=10.9.9.9:7000\n"},
        {"http://api.test:7000", "GET /x?q=1 host=api.test:7000\n"},
        {"HTTP://[::1]:7000", "GET /x?q=1 host=[::1]:7000\n"},
    };
    world *w = world_open(1, 0);
    (void)state;
    w->on_app = echo_head;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        web_call c;
        world_call(w, &c, "GET", rows[i].target, "/x?q=1");
        outr_headers_add(&c.req.headers, OUTR_STR("dapr-caller-app-id"), OUTR_STR("spoofed"));
        finish(w, &c);
        world_assert_answer(&c, 200, rows[i].expect);
        assert_true(outr_str_search(outr_buf_view(&c.taker.body), OUTR_STR("dapr-")) < 0);
        web_call_done(&c);
    }
    close_world(w);
}

static void a_host_that_is_not_found_is_an_error(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    world_call(w, &c, "GET", "http://nowhere.test", "/");
    finish(w, &c);
    world_assert_answer(&c, 500, "no such host");
    web_call_done(&c);
    close_world(w);
}

static void calls_to_ever_new_hosts_take_no_memory_for_good(void **state)
{
    world *w = world_open(1, 0);
    (void)state;
    for (int i = 0; i < 200; i++) {
        char target[64];
        web_call c;
        snprintf(target, sizeof target, "http://10.1.%d.%d:7000", i / 100, i % 100);
        world_call(w, &c, "GET", target, "/");
        finish(w, &c);
        world_assert_answer(&c, 200, "outside");
        web_call_done(&c);
    }
    wire_sleep(&w->w, 300 * OUTR_SEC);
    assert_int_equal(outr_http_server_connections(w->outside), 0);
    unsigned before = (unsigned)w->w.connect_count;
    web_call c;
    world_call(w, &c, "GET", "http://10.1.0.1:7000", "/");
    finish(w, &c);
    assert_int_equal(w->w.connect_count, before + 2); /* the client's own, and a new one */
    web_call_done(&c);
    close_world(w);
}

/* ---- the caller goes away --------------------------------------------------------------------- */

static void nothing_is_sent_for_a_caller_who_left(void **state)
{
    (void)state;
    for (uint64_t delay = 0; delay < 2; delay++) {
        world *w = world_open(1, 0);
        web_call c;
        w->resolver_delay_ns = delay * OUTR_SEC;
        w->nodes[0].is_refusing = delay == 0;
        world_call(w, &c, "POST", "callee", "/");
        web_call_start(&c, w->client);
        wire_sleep(&w->w, 100 * OUTR_MS);
        outr_op_cancel(&c.op, OUTR_CANCELLED);
        wire_run(&w->w);
        w->nodes[0].is_refusing = false;
        wire_sleep(&w->w, 10 * OUTR_SEC);
        assert_int_equal(c.done_count, 1);
        assert_int_equal(requests(w), 0);
        web_call_done(&c);
        close_world(w);
    }
}

static void a_caller_who_leaves_ends_the_call_at_the_app(void **state)
{
    world *w = world_open(1, 0);
    web_call c;
    (void)state;
    w->on_app = hold;
    world_call(w, &c, "GET", "callee", "/");
    web_call_start(&c, w->client);
    wire_run(&w->w);
    assert_int_equal(requests(w), 1);
    assert_int_equal(w->open, 2);
    outr_op_cancel(&c.op, OUTR_CANCELLED);
    wire_run(&w->w);
    assert_int_equal(w->open, 0);
    assert_int_equal(outr_http_server_requests(w->nodes[0].internal), 0);
    web_call_done(&c);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_reaches_the_app_of_the_callee),
        cmocka_unit_test(a_body_streams_both_ways),
        cmocka_unit_test(the_answer_of_the_app_is_passed_on_whatever_its_status),
        cmocka_unit_test(a_name_nobody_has_is_asked_for_six_times_and_fails),
        cmocka_unit_test(an_answer_of_the_resolver_is_used_again_while_it_is_fresh),
        cmocka_unit_test(what_the_registry_tells_of_is_used_at_once),
        cmocka_unit_test(a_change_during_a_question_is_asked_for_again),
        cmocka_unit_test(what_was_known_still_holds_when_the_registry_is_away_or_empty),
        cmocka_unit_test(a_registry_that_hangs_holds_up_no_call),
        cmocka_unit_test(a_registry_that_never_answered_is_the_error),
        cmocka_unit_test(bad_targets_methods_and_verbs_send_nothing),
        cmocka_unit_test(a_name_longer_than_bearable_is_refused),
        cmocka_unit_test(calls_go_where_the_fewest_are_under_way),
        cmocka_unit_test(a_refused_connection_moves_on_at_once),
        cmocka_unit_test(all_instances_away_is_an_error_after_four_rounds_a_second_apart),
        cmocka_unit_test(a_callee_that_comes_back_in_between_is_reached),
        cmocka_unit_test(a_callee_restarted_on_a_new_port_is_found_by_the_next_call),
        cmocka_unit_test(connections_to_where_no_name_leads_any_more_are_closed),
        cmocka_unit_test(more_calls_than_streams_open_a_second_connection),
        cmocka_unit_test(a_post_that_was_sent_is_not_repeated),
        cmocka_unit_test(a_connection_lost_with_a_post_on_it_is_an_error_with_a_get_another_try),
        cmocka_unit_test(forwarding_headers_are_added_once_however_often_it_is_tried),
        cmocka_unit_test(an_answer_that_breaks_off_never_ends_cleanly),
        cmocka_unit_test(a_body_without_length_over_the_limit_is_an_error),
        cmocka_unit_test(a_declared_length_over_the_limit_is_refused_before_anything_is_sent),
        cmocka_unit_test(an_app_that_is_not_there_is_told_as_such),
        cmocka_unit_test(a_sidecar_serves_only_its_own_app_id),
        cmocka_unit_test(what_a_peer_asks_for_must_be_clean),
        cmocka_unit_test(a_token_never_crosses_a_hop),
        cmocka_unit_test(a_call_to_oneself_goes_straight_to_the_app),
        cmocka_unit_test(a_call_to_oneself_without_an_app_says_so),
        cmocka_unit_test(a_url_is_called_without_a_peer_and_without_names),
        cmocka_unit_test(a_host_that_is_not_found_is_an_error),
        cmocka_unit_test(calls_to_ever_new_hosts_take_no_memory_for_good),
        cmocka_unit_test(nothing_is_sent_for_a_caller_who_left),
        cmocka_unit_test(a_caller_who_leaves_ends_the_call_at_the_app),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
