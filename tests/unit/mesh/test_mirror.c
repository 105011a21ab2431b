/* Copies of calls for another app. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/mirror.h"
#include "unit/mesh/traffic.h"
#include "unit/mesh/world.h"

#define TO_SHADOW "{routes: [{mirror: {appId: shadow}}]}"
#define COMPARED  "{routes: [{mirror: {appId: shadow, compare: true}}]}"

/* The callee is instance 0, the mirrored app is behind instance 1. */
static struct {
    int status[2];
    const char *answer[2];
    bool is_silent[2];
    unsigned heads[2], gone[2];
    char bodies[2][32], said[2][8], timeout[2][16];
    size_t body_bytes[2];
} apps;

static void on_gone(outr_exchange *x, const outr_err *err)
{
    (void)err;
    apps.gone[*(int *)x->user]++;
    outr_http_done(x);
}

static void answer(outr_exchange *x, int at)
{
    static int ids[2] = {0, 1};
    if (!apps.is_silent[at]) {
        web_answer(x, apps.status[at], apps.answer[at]);
        return;
    }
    x->user = &ids[at];
    x->on_gone = on_gone;
}

static void on_body(outr_gather *gather, const outr_err *err)
{
    outr_exchange *x = gather->ctx;
    world_node *node = x->user;
    int at = node == &node->w->nodes[1];
    outr_str body = outr_buf_view(&gather->body);
    if (!err)
        snprintf(apps.bodies[at], sizeof apps.bodies[at], OUTR_FMT,
                 OUTR_ARG(outr_str_head(body, 31)));
    apps.body_bytes[at] = body.n;
    outr_buf_done(&gather->body);
    if (err)
        outr_http_done(x);
    else
        answer(x, at);
}

static void note(char *to, size_t size, const outr_exchange *x, const char *name)
{
    outr_str value = outr_headers_get(&x->req.headers, name);
    snprintf(to, size, OUTR_FMT, OUTR_ARG(value));
}

static void on_app(world *w, world_node *node, outr_exchange *x)
{
    int at = node == &w->nodes[1];
    apps.heads[at]++;
    note(apps.said[at], sizeof apps.said[at], x, OUTR__MIRROR_HEADER);
    note(apps.timeout[at], sizeof apps.timeout[at], x, OUTR_DEADLINE_HEADER);
    if (!x->body) {
        answer(x, at);
        return;
    }
    outr_gather *gather = outr_arena_alloc(x->arena, sizeof *gather);
    x->user = node;
    outr_gather_start(gather, x->body, 8 * OUTR_MIB, on_body, x);
}

static world *open_world(const char *traffic)
{
    world *w = world_open(1, 0);
    outr_snapshot *snapshot = traffic_one(traffic);
    memset(&apps, 0, sizeof apps);
    apps.status[0] = apps.status[1] = 200;
    apps.answer[0] = apps.answer[1] = "hello";
    w->nodes[1].settings.app_id = OUTR_STR("shadow");
    w->shadow = 9001;
    w->on_app = on_app;
    outr_mesh_update(w->mesh, snapshot);
    outr_snapshot_unref(snapshot);
    return w;
}

static void close_world(world *w)
{
    wire_sleep(&w->w, 60 * OUTR_SEC);
    assert_int_equal(w->mesh->mirror_count, 0);
    assert_true(outr_list_is_empty(&w->mesh->calls));
    assert_int_equal(world_close(w), 0);
}

static void call(world *w, const char *verb, const char *body, size_t n, int status)
{
    web_call c;
    world_call(w, &c, verb, "callee", "/work?x=1");
    outr_headers_add(&c.req.headers, OUTR_STR(OUTR_DEADLINE_HEADER), OUTR_STR("5S"));
    outr_headers_add(&c.req.headers, OUTR_STR(OUTR__MIRROR_HEADER), OUTR_STR("2"));
    if (body)
        web_call_bytes(&c, body, n);
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    world_assert_answer(&c, status, apps.answer[0]);
    web_call_done(&c);
    wire_sleep(&w->w, OUTR_SEC);
}

static void a_call_is_copied_and_says_so(void **state)
{
    world *w = open_world(TO_SHADOW);
    (void)state;
    call(w, "GET", NULL, 0, 200);
    assert_int_equal(apps.heads[0], 1);
    assert_int_equal(apps.heads[1], 1);
    assert_string_equal(apps.said[0], ""); /* not even when a client says so */
    assert_string_equal(apps.said[1], "1");
    assert_string_not_equal(apps.timeout[0], "");
    close_world(w);
}

static void the_whole_body_is_copied_also_of_what_may_be_made_once_only(void **state)
{
    world *w = open_world(TO_SHADOW);
    (void)state;
    call(w, "POST", "the body", 8, 200);
    assert_string_equal(apps.bodies[0], "the body");
    assert_string_equal(apps.bodies[1], "the body");
    close_world(w);
}

static void long_bodies_are_copied_up_to_a_limit(void **state)
{
    world *w = open_world(TO_SHADOW);
    size_t n = OUTR__MIRROR_BODY_MAX;
    char *body = outr_alloc(n + 1);
    (void)state;
    memset(body, 'x', n + 1);
    call(w, "PUT", body, n, 200);
    assert_int_equal(apps.body_bytes[1], n);
    call(w, "PUT", body, n + 1, 200);
    assert_int_equal(apps.body_bytes[0], n + 1);
    assert_int_equal(apps.heads[1], 1);
    free(body);
    close_world(w);
}

static void a_copy_that_hangs_or_fails_does_not_matter(void **state)
{
    world *w = open_world(COMPARED);
    (void)state;
    apps.is_silent[1] = true;
    uint64_t began = w->w.now;
    call(w, "POST", "x", 1, 200);
    assert_true(w->w.now - began < 2 * OUTR_SEC);
    assert_int_equal(apps.heads[1], 1);
    wire_sleep(&w->w, OUTR__MIRROR_NS);
    assert_int_equal(apps.gone[1], 1); /* its time is over */
    w->nodes[1].is_app_refusing = true;
    call(w, "POST", "x", 1, 200);
    w->shadow = 0;
    call(w, "POST", "x", 1, 200);
    close_world(w);
}

static void a_client_that_leaves_takes_no_copy_with_it(void **state)
{
    world *w = open_world(COMPARED);
    web_call c;
    (void)state;
    apps.is_silent[0] = apps.is_silent[1] = true;
    world_call(w, &c, "GET", "callee", "/work");
    web_call_start(&c, w->client);
    wire_sleep(&w->w, 20 * OUTR_MS);
    outr_op_cancel(&c.op, OUTR_CANCELLED);
    world_run_until_over(w, &c);
    wire_sleep(&w->w, OUTR_SEC);
    assert_int_equal(apps.gone[0], 1);
    assert_int_equal(apps.gone[1], 0);
    web_call_done(&c);
    close_world(w);
}

static void no_more_than_some_are_under_way(void **state)
{
    world *w = open_world(TO_SHADOW);
    (void)state;
    apps.is_silent[1] = true;
    for (int i = 0; i < 100; i++) {
        web_call c;
        world_call(w, &c, "GET", "callee", "/work");
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        web_call_done(&c);
    }
    assert_int_equal(w->mesh->mirror_count, 64);
    wire_sleep(&w->w, 10 * OUTR_MS);
    assert_int_equal(apps.heads[1], 64);
    close_world(w);
}

static void a_mesh_ends_with_copies_under_way(void **state)
{
    (void)state;
    for (int is_asking = 0; is_asking < 2; is_asking++) {
        world *w = open_world(TO_SHADOW);
        web_call c;
        apps.is_silent[1] = true;
        if (is_asking) /* nobody is that: for half a second it is asked for again */
            w->shadow = 0;
        world_call(w, &c, "PUT", "callee", "/work");
        web_call_bytes(&c, "x", 1);
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        web_call_done(&c);
        wire_sleep(&w->w, 10 * OUTR_MS);
        assert_int_equal(apps.heads[1], !is_asking);
        assert_int_equal(w->mesh->mirror_count, 1);
        outr_http_pool_free(w->client);
        wire_run(&w->w);
        outr_mesh_free(w->mesh);
        wire_run(&w->w);
        w->mesh = world_make_mesh(w, &w->settings, w->app, 999);
        outr_http_pool_options o = {.loop = w->w.loop, .version = OUTR_HTTP_1};
        w->client = outr_http_pool_new(&o);
        assert_int_equal(world_close(w), 0);
    }
}

static void a_share_is_copied(void **state)
{
    world *w = open_world("{routes: [{mirror: {appId: shadow, percent: 10}}]}");
    (void)state;
    for (int i = 0; i < 1000; i++) {
        web_call c;
        world_call(w, &c, "GET", "callee", "/work");
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        web_call_done(&c);
    }
    assert_in_range(apps.heads[1], 70, 130);
    close_world(w);
}

/* One call is counted as that. */
static void expect(world *w, outr_metrics *metrics, const char *result, unsigned count)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    char want[128];
    snprintf(want, sizeof want,
             "outrigger_mirror_total{app_id=\"caller\",result=\"%s\",target=\"shadow\"} %u\n",
             result, count);
    call(w, "POST", "x", 1, apps.status[0]);
    wire_sleep(&w->w, OUTR__MIRROR_NS);
    outr_metrics_write(metrics, &text);
    if (outr_str_search(outr_buf_view(&text), outr_str_from(want)) < 0)
        fail_msg("no %s in " OUTR_FMT, want, OUTR_ARG(outr_buf_view(&text)));
}

static void answers_are_compared(void **state)
{
    outr_metrics *metrics =
        outr_metrics_new(&(outr_metrics_options){.app_id = OUTR_STR("caller"), .shard_count = 1});
    (void)state;
    world_shard = outr_metrics_shard(metrics, 0);
    world *w = open_world(COMPARED);
    expect(w, metrics, "same", 1);
    apps.answer[1] = "another";
    expect(w, metrics, "body", 1);
    apps.answer[1] = "hello";
    apps.status[1] = 404;
    expect(w, metrics, "status", 1);
    apps.status[0] = 404;
    expect(w, metrics, "same", 2);
    apps.is_silent[1] = true;
    expect(w, metrics, "failed", 1);
    w->shadow = 0; /* it is known, and stays so */
    w->nodes[1].is_refusing = true;
    outr_http_server_free(w->nodes[1].internal);
    w->nodes[1].internal = world_server(w, &outr_mesh_handler, w->nodes[1].mesh, true, 0);
    expect(w, metrics, "failed", 2);
    close_world(w);
    world_shard = NULL;
    outr_metrics_free(metrics);
}

/* Ends with that status in its trailers, whatever it is asked. */
static void on_grpc_app(world *w, world_node *node, outr_exchange *x)
{
    int at = node == &w->nodes[1];
    outr_http_response head = {.status = 200, .content_length = -1};
    outr_headers trailers;
    apps.heads[at]++;
    note(apps.said[at], sizeof apps.said[at], x, OUTR__MIRROR_HEADER);
    outr_headers_init(&head.headers, x->arena);
    outr_headers_init(&trailers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_add(&trailers, OUTR_STR("grpc-status"),
                     outr_arena_printf(x->arena, "%d", apps.status[at]));
    outr_sink *to = outr_http_respond(x, &head);
    to->ops->data(to, outr_slice_static(OUTR_STR("\0\0\0\0\2hi")));
    to->ops->end(to, &trailers);
    outr_http_done(x);
}

static void grpc_calls_are_copied_and_compared_by_their_status(void **state)
{
    outr_metrics *metrics =
        outr_metrics_new(&(outr_metrics_options){.app_id = OUTR_STR("caller"), .shard_count = 1});
    (void)state;
    world_shard = outr_metrics_shard(metrics, 0);
    world_protocol = OUTR_APP_GRPC;
    world *w = open_world(COMPARED);
    outr_http_pool_options o = {.loop = w->w.loop, .version = OUTR_HTTP_2};
    o.addr.kind = OUTR_ADDR_IP4;
    o.addr.port = 1;
    outr_http_pool_free(w->client);
    w->client = outr_http_pool_new(&o);
    w->on_app = on_grpc_app;
    for (int i = 0; i < 2; i++) {
        OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
        web_call c;
        apps.status[0] = 0;
        apps.status[1] = i == 0 ? 0 : OUTR_NOT_FOUND;
        world_call(w, &c, "POST", "callee", "/pkg.Service/Work");
        outr_headers_add(&c.req.headers, OUTR_STR("x-proxied"), OUTR_STR("1"));
        outr_headers_add(&c.req.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
        web_call_bytes(&c, "\0\0\0\0\2yo", 7);
        c.req.content_length = -1;
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        assert_string_equal(c.taker.trailers, "grpc-status=0;");
        web_call_done(&c);
        wire_sleep(&w->w, OUTR_SEC);
        assert_int_equal(apps.heads[1], i + 1);
        assert_string_equal(apps.said[1], "1");
        outr_metrics_write(metrics, &text);
        outr_str want = i == 0 ? OUTR_STR("result=\"same\",target=\"shadow\"} 1\n")
                               : OUTR_STR("result=\"status\",target=\"shadow\"} 1\n");
        assert_true(outr_str_search(outr_buf_view(&text), want) >= 0);
    }
    close_world(w);
    world_shard = NULL;
    world_protocol = OUTR_APP_HTTP;
    outr_metrics_free(metrics);
}

static void what_is_not_compared_is_counted_as_sent_and_too_long_bodies_as_skipped(void **state)
{
    outr_metrics *metrics =
        outr_metrics_new(&(outr_metrics_options){.app_id = OUTR_STR("caller"), .shard_count = 1});
    (void)state;
    world_shard = outr_metrics_shard(metrics, 0);
    world *w = open_world(TO_SHADOW);
    apps.status[1] = 500;
    expect(w, metrics, "sent", 1);
    char *body = outr_alloc(OUTR__MIRROR_BODY_MAX + 1);
    call(w, "PUT", body, OUTR__MIRROR_BODY_MAX + 1, 200);
    free(body);
    expect(w, metrics, "sent", 2);
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    outr_metrics_write(metrics, &text);
    assert_true(outr_str_search(outr_buf_view(&text),
                                OUTR_STR("result=\"skipped\",target=\"shadow\"} 1\n")) >= 0);
    close_world(w);
    world_shard = NULL;
    outr_metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_is_copied_and_says_so),
        cmocka_unit_test(the_whole_body_is_copied_also_of_what_may_be_made_once_only),
        cmocka_unit_test(long_bodies_are_copied_up_to_a_limit),
        cmocka_unit_test(a_copy_that_hangs_or_fails_does_not_matter),
        cmocka_unit_test(a_client_that_leaves_takes_no_copy_with_it),
        cmocka_unit_test(no_more_than_some_are_under_way),
        cmocka_unit_test(a_mesh_ends_with_copies_under_way),
        cmocka_unit_test(a_share_is_copied),
        cmocka_unit_test(answers_are_compared),
        cmocka_unit_test(grpc_calls_are_copied_and_compared_by_their_status),
        cmocka_unit_test(what_is_not_compared_is_counted_as_sent_and_too_long_bodies_as_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
