/* Both halves of daprd's wire against each other: the callees' internal ports say nothing of
 * Outrigger in their SETTINGS, so the caller takes them for daprds. What real ones do stands in
 * tests/conformance/internal.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <ctype.h>

#include "mesh/daprd_wire.h"
#include "unit/mesh/world.h"

static world *open_daprds(uint64_t seed)
{
    world *w = world_open(seed, 0);
    for (int i = 0; i < WORLD_NODES; i++) {
        world_node *n = &w->nodes[i];
        outr_http_server_free(n->internal);
        n->internal = world_server(w, &outr_mesh_handler, n->mesh, false, 0);
    }
    return w;
}

static void close_world(world *w)
{
    assert_int_equal(world_close(w), 0);
}

static void finish(world *w, web_call *c)
{
    web_call_start(c, w->client);
    world_run_until_over(w, c);
}

static void echo_head(world *w, world_node *node, outr_exchange *x)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    (void)w;
    (void)node;
    outr_buf_printf(&text, OUTR_FMT " " OUTR_FMT "\n", OUTR_ARG(x->req.method),
                    OUTR_ARG(x->req.target));
    for (size_t i = 0; i < x->req.headers.count; i++) {
        const outr_header *h = &x->req.headers.items[i];
        for (size_t k = 0; k < h->name.n; k++)
            outr_buf_char(&text, (char)tolower((unsigned char)h->name.p[k]));
        outr_buf_printf(&text, "=" OUTR_FMT "\n", OUTR_ARG(h->value));
    }
    outr_buf_char(&text, 0);
    web_answer(x, 207, text.p);
}

static void a_call_reaches_the_app_of_a_daprd(void **state)
{
    world *w = open_daprds(1);
    web_call c;
    (void)state;
    w->on_app = echo_head;
    world_call(w, &c, "GET", "callee", "/a%20b/c?x=%20y");
    outr_headers_add(&c.req.headers, OUTR_STR("X-One"), OUTR_STR("1"));
    outr_headers_add(&c.req.headers, OUTR_STR("Dapr-Caller-App-Id"), OUTR_STR("spoofed"));
    finish(w, &c);
    world_assert_answer(&c, 207, "GET /a%20b/c?x=%20y\n");
    world_assert_answer(&c, 207, "x-one=1\n");
    world_assert_answer(&c, 207, "dapr-caller-app-id=caller\n");
    world_assert_answer(&c, 207, "dapr-callee-app-id=callee\n");
    world_assert_answer(&c, 207, "x-forwarded-for=192.0.2.1\n");
    outr_str body = outr_buf_view(&c.taker.body);
    assert_true(outr_str_search(body, OUTR_STR("spoofed")) < 0);
    assert_true(outr_str_search(body, OUTR_STR("destination-app-id")) < 0);
    web_call_done(&c);
    close_world(w);
}

static void echo_body(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    web_echo(x, x->body, 201);
}

static void echo_of_size(uint64_t seed, size_t n, unsigned piece_max, bool is_chunked)
{
    world *w = open_daprds(seed);
    char *bytes = outr_alloc(n);
    web_call c;
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * 2654435761u >> 9);
    w->w.piece_max = piece_max;
    w->w.late_percent = piece_max ? 20 : 0;
    w->on_app = echo_body;
    world_call(w, &c, "POST", "callee", "/echo");
    web_call_bytes(&c, bytes, n);
    if (is_chunked)
        c.req.content_length = -1;
    finish(w, &c);
    assert_int_equal(c.call.head.status, 201);
    assert_true(c.taker.has_ended);
    assert_int_equal(c.taker.body.n, n);
    assert_memory_equal(c.taker.body.p, bytes, n);
    web_call_done(&c);
    free(bytes);
    close_world(w);
}

static void bodies_of_any_size_stream_both_ways(void **state)
{
    static const size_t sizes[] = {1, 2047, 2048, 2049, 65536, 65537, 3 * OUTR_MIB};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(sizes); i++) {
        echo_of_size(i, sizes[i], 0, false);
        echo_of_size(i, sizes[i], 0, true);
    }
}

static void pieces_may_come_as_they_like(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++)
        echo_of_size(seed, 20000 + 9000 * seed, seed % 2 ? 100 : 1500, seed % 3 == 0);
}

static void an_empty_answer_is_an_answer(void **state)
{
    static const char *const verbs[] = {"GET", "HEAD", "DELETE", "OPTIONS", "PUT"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(verbs); i++) {
        world *w = open_daprds(1);
        web_call c;
        world_call(w, &c, verbs[i], "callee", "/");
        finish(w, &c);
        assert_int_equal(c.call.head.status, 200);
        assert_int_equal(c.taker.body.n, i == 1 ? 0 : 5);
        web_call_done(&c);
        close_world(w);
    }
}

static void break_off(world *w, world_node *node, outr_exchange *x)
{
    outr_http_response head = {.status = 200, .content_length = 100};
    (void)w;
    (void)node;
    outr_headers_init(&head.headers, x->arena);
    outr_sink *sink = outr_http_respond(x, &head);
    sink->ops->data(sink, outr_slice_static(OUTR_STR("begun")));
    outr_http_done(x);
}

static void pitfall_39_an_answer_that_breaks_off_is_told_as_broken(void **state)
{
    world *w = open_daprds(1);
    web_call c;
    (void)state;
    w->on_app = break_off;
    world_call(w, &c, "GET", "callee", "/");
    finish(w, &c);
    assert_false(c.taker.has_ended);
    assert_true(c.taker.was_aborted || c.err.code);
    web_call_done(&c);
    close_world(w);
}

static outr_exchange *held;
static unsigned gone;

static void on_held_gone(outr_exchange *x, const outr_err *err)
{
    (void)err;
    gone++;
    held = NULL;
    outr_http_done(x);
}

static void hold(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    held = x;
    x->on_gone = on_held_gone;
}

static void a_client_that_leaves_takes_the_call_with_it(void **state)
{
    world *w = open_daprds(1);
    web_call c;
    (void)state;
    gone = 0;
    w->on_app = hold;
    world_call(w, &c, "GET", "callee", "/slow");
    web_call_start(&c, w->client);
    wire_run(&w->w);
    assert_non_null(held);
    outr_op_cancel(&c.op, OUTR_CANCELLED);
    wire_run(&w->w);
    assert_int_equal(gone, 1);
    web_call_done(&c);
    close_world(w);
}

static void an_upload_waits_for_an_app_that_does_not_read(void **state)
{
    world *w = open_daprds(1);
    size_t n = 3 * OUTR_MIB;
    char *bytes = outr_alloc(n);
    web_call c;
    (void)state;
    memset(bytes, 'x', n);
    gone = 0;
    w->on_app = hold;
    world_call(w, &c, "POST", "callee", "/upload");
    web_call_bytes(&c, bytes, n);
    c.req.content_length = -1;
    web_call_start(&c, w->client);
    wire_run(&w->w);
    assert_non_null(held);
    assert_int_equal(c.done_count, 0);
    web_answer(held, 200, "enough");
    world_run_until_over(w, &c);
    assert_int_equal(c.call.head.status, 200);
    web_call_done(&c);
    free(bytes);
    close_world(w);
}

static void another_app_id_is_not_served(void **state)
{
    world *w = open_daprds(1);
    web_call c;
    (void)state;
    w->nodes[0].settings.app_id = OUTR_STR("moved");
    world_call(w, &c, "GET", "callee", "/");
    finish(w, &c);
    world_assert_answer(&c, 500, "after 3 retries. Error: rpc error: code = Unavailable");
    assert_int_equal(w->nodes[0].requests, 0);
    assert_int_equal(w->nodes[0].connects, 4); /* each try over a new connection */
    web_call_done(&c);
    close_world(w);
}

static void a_chunked_upload_is_not_sent_again(void **state)
{
    world *w = open_daprds(1);
    web_call c;
    (void)state;
    w->nodes[0].settings.app_id = OUTR_STR("moved");
    world_call(w, &c, "POST", "callee", "/");
    web_call_bytes(&c, "body", 4);
    c.req.content_length = -1;
    finish(w, &c);
    world_assert_answer(&c, 500,
                        "14 rpc error: code = Unavailable desc = this sidecar serves another");
    assert_int_equal(w->nodes[0].connects, 1);
    web_call_done(&c);
    close_world(w);
}

static void an_app_that_cannot_be_reached_is_an_internal_error(void **state)
{
    world *w = open_daprds(1);
    web_call c;
    (void)state;
    w->nodes[0].is_app_refusing = true;
    world_call(w, &c, "POST", "callee", "/");
    web_call_bytes(&c, "body", 4);
    finish(w, &c);
    world_assert_answer(&c, 500,
                        "13 rpc error: code = Internal desc = error invoking app channel: connect");
    web_call_done(&c);
    close_world(w);
}

/* A hostile peer, by hand. */
static void call_by_hand(world *w, web_call *c, outr_http_pool *pool, outr_slice body)
{
    web_call_init(c, w->w.loop, "POST", OUTR__INTERNALS "CallLocalStream");
    outr_headers_add(&c->req.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_add(&c->req.headers, OUTR_STR("te"), OUTR_STR("trailers"));
    web_call_bytes(c, body.p, body.n);
    c->req.content_length = -1;
    web_call_start(c, pool);
    world_run_until_over(w, c);
}

static void headers_beyond_measure_are_refused(void **state)
{
    static const struct {
        unsigned headers;
        const char *status;
    } rows[] = {{100, "0"}, {1500, "8"}, {20000, "8"}};
    world *w = open_daprds(1);
    outr_http_pool_options o = {.loop = w->w.loop, .version = OUTR_HTTP_2};
    (void)state;
    o.addr.kind = OUTR_ADDR_IP4;
    o.addr.port = 9000;
    outr_http_pool *pool = outr_http_pool_new(&o);
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_arena *arena = outr_arena_new(64 * OUTR_MIB);
        outr_headers metadata;
        outr_str head;
        outr_err err;
        uint64_t seq = 0;
        web_call c;
        outr_headers_init(&metadata, arena);
        for (unsigned k = 0; k < rows[i].headers; k++)
            outr_headers_add(&metadata,
                             k < 1000 ? outr_arena_printf(arena, "X-%u", k) : OUTR_STR("X-999"),
                             OUTR_STR("v"));
        const outr__daprd_request said = {.metadata = &metadata, .verb = OUTR_STR("GET")};
        assert_int_equal(outr__daprd_request_write(&head, arena, &said, &err), 0);
        outr_slice body = outr__daprd_frames(&head, OUTR_STR_NONE, &seq, false);
        call_by_hand(w, &c, pool, body);
        char expected[32];
        snprintf(expected, sizeof expected, "grpc-status=%s;", rows[i].status);
        if (!strstr(c.taker.trailers, expected))
            fail_msg("%u headers: %s", rows[i].headers, c.taker.trailers);
        web_call_done(&c);
        outr_slice_done(&body);
        outr_arena_free(arena);
    }
    assert_int_equal(w->nodes[0].requests, 1);
    outr_http_pool_free(pool);
    close_world(w);
}

/* Whatever breaks, every call ends once and nothing stays behind. */
static void connections_break_anywhere(void **state)
{
    unsigned answered = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 120; seed++) {
        world *w = open_daprds(seed);
        static char bytes[50000];
        web_call c;
        w->w.piece_max = 3000;
        w->w.late_percent = 20;
        w->w.break_per_mille = 20;
        w->on_app = seed % 3 ? echo_body : NULL;
        world_call(w, &c, "POST", "callee", "/echo");
        web_call_bytes(&c, bytes, sizeof bytes);
        if (seed % 2)
            c.req.content_length = -1;
        finish(w, &c);
        answered += c.taker.has_ended;
        web_call_done(&c);
        close_world(w);
    }
    assert_in_range(answered, 1, 119);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_reaches_the_app_of_a_daprd),
        cmocka_unit_test(bodies_of_any_size_stream_both_ways),
        cmocka_unit_test(pieces_may_come_as_they_like),
        cmocka_unit_test(an_empty_answer_is_an_answer),
        cmocka_unit_test(pitfall_39_an_answer_that_breaks_off_is_told_as_broken),
        cmocka_unit_test(a_client_that_leaves_takes_the_call_with_it),
        cmocka_unit_test(an_upload_waits_for_an_app_that_does_not_read),
        cmocka_unit_test(another_app_id_is_not_served),
        cmocka_unit_test(a_chunked_upload_is_not_sent_again),
        cmocka_unit_test(an_app_that_cannot_be_reached_is_an_internal_error),
        cmocka_unit_test(headers_beyond_measure_are_refused),
        cmocka_unit_test(connections_break_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
