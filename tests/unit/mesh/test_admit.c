/* spec.accessControl where it is enforced: the called side, whichever way a call comes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/folder.h"
#include "unit/mesh/world.h"

static const char rules[] =
    "apiVersion: dapr.io/v1alpha1\n"
    "kind: Configuration\n"
    "metadata: {name: acl}\n"
    "spec:\n"
    "  accessControl:\n"
    "    defaultAction: deny\n"
    "    policies:\n"
    "    - appId: caller\n"
    "      namespace: default\n"
    "      trustDomain: public\n"
    "      defaultAction: deny\n"
    "      operations:\n"
    "      - {name: /open/*, httpVerb: [GET], action: allow}\n"
    "      - {name: /pkg.Service/Read, action: allow}\n";

static const outr_identity caller = {.id = {"spiffe://public/ns/default/caller", 33},
                                     .trust_domain = {"public", 6},
                                     .namespace_ = {"default", 7},
                                     .app_id = {"caller", 6},
                                     .is_authenticated = true};

/* The first callee has rules; as_daprd: the caller sends CallLocalStream. */
static world *open_world(outr_snapshot **snapshot, outr_app_protocol protocol, bool as_daprd)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    folder f;
    folder_make(&f);
    folder_write(&f, "acl.yaml", rules);
    outr_str path = outr_str_from(folder_path(&f, "acl.yaml"));
    const outr_settings settings = {.config_files = {.items = {path}, .count = 1}};
    if (outr_snapshot_load(snapshot, &settings, NULL, &errors, &warnings))
        fail_msg("%s", errors.items[0].text);
    folder_remove(&f);
    world *w = world_open(1, 0);
    world_node *n = &w->nodes[0];
    n->settings.app_protocol = protocol;
    outr_mesh_update(n->mesh, *snapshot);
    if (as_daprd) {
        outr_http_server_free(n->internal);
        n->internal = world_server(w, &outr_mesh_handler, n->mesh, false, 0);
    }
    world_peer = &caller;
    return w;
}

static void close_world(world *w, outr_snapshot *snapshot)
{
    world_peer = NULL;
    assert_int_equal(world_close(w), 0);
    outr_snapshot_unref(snapshot);
}

static void run_until_over(world *w, web_call *c)
{
    uint64_t limit = w->w.now + 3600 * OUTR_SEC;
    while (wire_run(&w->w) && !c->done_count && w->w.now < limit)
        w->w.now = outr_loop_tick(w->w.loop);
    assert_int_equal(c->done_count, 1);
}

/* The text of the answer must have text in it. */
static void call_app(world *w, const char *method, const char *path, int status, const char *text)
{
    web_call c;
    world_call(w, &c, method, "callee", path);
    web_call_start(&c, w->client);
    run_until_over(w, &c);
    if (c.call.head.status != status ||
        outr_str_search(outr_buf_view(&c.taker.body), outr_str_from(text)) < 0)
        fail_msg("%s %s: %d \"" OUTR_FMT "\"", method, path, c.call.head.status,
                 OUTR_ARG(outr_buf_view(&c.taker.body)));
    web_call_done(&c);
}

/* What an own client at the internal port, which follows no rule of ours, gets; on arena. */
static int call_raw(world *w, outr_str *body, outr_arena *arena, const char *method,
                    const char *target, bool is_grpc)
{
    outr_http_pool_options o = {.loop = w->w.loop, .version = OUTR_HTTP_2};
    o.addr.kind = OUTR_ADDR_IP4;
    o.addr.port = w->nodes[0].port;
    outr_http_pool *pool = outr_http_pool_new(&o);
    web_call c;
    web_call_init(&c, w->w.loop, method, target);
    outr_headers_add(&c.req.headers, OUTR_STR("dapr-callee-app-id"), OUTR_STR("callee"));
    if (is_grpc) {
        outr_headers_add(&c.req.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
        outr_headers_add(&c.req.headers, OUTR_STR("te"), OUTR_STR("trailers"));
    }
    web_call_start(&c, pool);
    run_until_over(w, &c);
    outr_str status = outr_headers_get(&c.call.head.headers, "grpc-status");
    *body = outr_arena_join(arena, outr_buf_view(&c.taker.body), status,
                            outr_headers_get(&c.call.head.headers, "outrigger-error"));
    int code = c.call.head.status;
    web_call_done(&c);
    outr_http_pool_free(pool);
    return code;
}

static void echo_target(world *w, world_node *node, outr_exchange *x)
{
    char text[256];
    (void)w;
    (void)node;
    snprintf(text, sizeof text, "at " OUTR_FMT, OUTR_ARG(x->req.target));
    web_answer(x, 200, text);
}

static void refused_calls_do_not_reach_the_app(world *w)
{
    w->on_app = echo_target;
    call_app(w, "GET", "/open/x?y=1", 200, "at /open/x?y=1");
    call_app(w, "GET", "/other/../open/x", 200, "at /open/x");
    call_app(w, "GET", "//open//x/", 200, "at /open/x");
    assert_int_equal(w->nodes[0].requests, 3);
    call_app(w, "POST", "/open/x", 500,
             "7 rpc error: code = PermissionDenied desc = access control policy has denied access "
             "to id: spiffe://public/ns/default/caller operation: open/x verb: POST");
    call_app(w, "GET", "/other", 500, "7 ");
    call_app(w, "GET", "/open/../other", 500, "7 ");
    call_app(w, "GET", "/open/..%2Fother", 500, "7 ");
    call_app(w, "GET", "/open/%2e%2e%2fother", 500, "7 ");
    call_app(w, "GET", "/open/x%2Fy", 500, "7 ");
    assert_int_equal(w->nodes[0].requests, 3);
    world_peer = NULL; /* no certificate: the default of all */
    call_app(w, "GET", "/open/x", 500, "to id:  operation: open/x verb: GET");
    assert_int_equal(w->nodes[0].requests, 3);
}

static void calls_between_two_outriggers_are_judged(void **state)
{
    outr_snapshot *snapshot;
    world *w = open_world(&snapshot, OUTR_APP_HTTP, false);
    (void)state;
    refused_calls_do_not_reach_the_app(w);
    close_world(w, snapshot);
}

static void calls_of_a_daprd_are_judged(void **state)
{
    outr_snapshot *snapshot;
    world *w = open_world(&snapshot, OUTR_APP_HTTP, true);
    (void)state;
    refused_calls_do_not_reach_the_app(w);
    close_world(w, snapshot);
}

static void a_peer_cannot_hide_where_a_call_goes(void **state)
{
    static const char *const targets[] = {
        "/other",          "/open/..%2Fother", "/open/%2e%2e/other", "/open/%2E%2E%2Fother",
        "/open%2F..%2Fx",  "/open/%",          "/open/%2",           "/open/%00",
        "/open/x%0d%0ay",  "/open/x/y",        "/%6fther",           "/open/%2Fx",
        "/open/x%2fy"};
    static const char *const malformed[] = {"//open/x", "/open/../other", "/open/./x",
                                            "/open/x#y", "*"};
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_snapshot *snapshot;
    outr_str body;
    world *w = open_world(&snapshot, OUTR_APP_HTTP, false);
    (void)state;
    w->on_app = echo_target;
    assert_int_equal(call_raw(w, &body, arena, "GET", "/open/%61", false), 200);
    assert_true(outr_str_is(body, "at /open/%61"));
    for (size_t i = 0; i < OUTR_LEN(targets); i++) {
        int status = call_raw(w, &body, arena, "GET", targets[i], false);
        if (status != 500 || outr_str_search(body, OUTR_STR("access control policy")) < 0)
            fail_msg("%s: %d \"" OUTR_FMT "\"", targets[i], status, OUTR_ARG(body));
    }
    for (size_t i = 0; i < OUTR_LEN(malformed); i++)
        assert_int_not_equal(call_raw(w, &body, arena, "GET", malformed[i], false), 200);
    assert_int_not_equal(call_raw(w, &body, arena, "get", "/other", false), 200);
    assert_int_equal(w->nodes[0].requests, 1);
    close_world(w, snapshot);
    outr_arena_free(arena);
}

static void proxied_calls_are_judged_by_their_method(void **state)
{
    static const char *const refused[] = {"/pkg.Service/Write", "/pkg.service/Read",
                                          "/pkg.Service/Rea%64", "/pkg.Service%2FRead"};
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_snapshot *snapshot;
    outr_str body;
    world *w = open_world(&snapshot, OUTR_APP_GRPC, false);
    (void)state;
    w->on_app = echo_target;
    call_raw(w, &body, arena, "POST", "/pkg.Service/Read", true);
    assert_int_equal(w->nodes[0].requests, 1);
    for (size_t i = 0; i < OUTR_LEN(refused); i++) {
        call_raw(w, &body, arena, "POST", refused[i], true);
        if (!outr_str_is(body, "7")) /* PERMISSION_DENIED */
            fail_msg("%s: \"" OUTR_FMT "\"", refused[i], OUTR_ARG(body));
    }
    assert_int_equal(w->nodes[0].requests, 1);
    close_world(w, snapshot);
    outr_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_between_two_outriggers_are_judged),
        cmocka_unit_test(calls_of_a_daprd_are_judged),
        cmocka_unit_test(a_peer_cannot_hide_where_a_call_goes),
        cmocka_unit_test(proxied_calls_are_judged_by_their_method),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
