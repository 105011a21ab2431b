/* spec.accessControl, AccessPolicy and Authentication where they are enforced: the called side,
 * whichever way a call comes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/folder.h"
#include "lib/tokens.h"
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

/* The first callee has the rules of a Configuration or, as_policies, of a folder; as_daprd: the
 * caller sends CallLocalStream. */
static world *open_world_of(outr_snapshot **snapshot, const char *text, bool as_policies,
                            outr_app_protocol protocol, bool as_daprd)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    folder f;
    folder_make(&f);
    folder_write(&f, "acl.yaml", text);
    outr_str path = outr_str_from(folder_path(&f, "acl.yaml"));
    outr_settings settings = {.config_files = {.items = {path}, .count = 1}};
    if (as_policies)
        settings = (outr_settings){
            .resources_paths = {.items = {outr_str_from(f.path)}, .count = 1}};
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

static world *open_world(outr_snapshot **snapshot, outr_app_protocol protocol, bool as_daprd)
{
    return open_world_of(snapshot, rules, false, protocol, as_daprd);
}

static void close_world(world *w, outr_snapshot *snapshot)
{
    world_peer = NULL;
    assert_int_equal(world_close(w), 0);
    outr_snapshot_unref(snapshot);
}

/* The text of the answer must have text in it. */
static void call_app(world *w, const char *method, const char *path, int status, const char *text)
{
    web_call c;
    world_call(w, &c, method, "callee", path);
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    if (c.call.head.status != status ||
        outr_str_search(outr_buf_view(&c.taker.body), outr_str_from(text)) < 0)
        fail_msg("%s %s: %d \"" OUTR_FMT "\"", method, path, c.call.head.status,
                 OUTR_ARG(outr_buf_view(&c.taker.body)));
    web_call_done(&c);
}

/* What an own client at the internal port, which follows no rule of ours, gets; on arena. token:
 * shown as a bearer, or NONE. */
static int call_with(world *w, outr_str *body, outr_arena *arena, const char *method,
                     const char *target, bool is_grpc, outr_str token)
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
    if (token.p)
        outr_headers_add(&c.req.headers, OUTR_STR("authorization"),
                         outr_arena_join(arena, OUTR_STR("Bearer "), token, OUTR_STR_NONE));
    outr_headers_add(&c.req.headers, OUTR_STR("x-user"), OUTR_STR("forged"));
    outr_headers_add(&c.req.headers, OUTR_STR("x_user"), OUTR_STR("forged"));
    web_call_start(&c, pool);
    world_run_until_over(w, &c);
    outr_str status = outr_headers_get(&c.call.head.headers, "grpc-status");
    *body = outr_arena_join(arena, outr_buf_view(&c.taker.body), status,
                            outr_headers_get(&c.call.head.headers, "outrigger-error"));
    int code = c.call.head.status;
    web_call_done(&c);
    outr_http_pool_free(pool);
    return code;
}

static int call_raw(world *w, outr_str *body, outr_arena *arena, const char *method,
                    const char *target, bool is_grpc)
{
    return call_with(w, body, arena, method, target, is_grpc, OUTR_STR_NONE);
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

/* ---- tokens ---------------------------------------------------------------------------------- */

static tokens is;

static const char policies[] =
    "apiVersion: outrigger.io/v1alpha1\n"
    "kind: Authentication\n"
    "metadata: {name: tokens}\n"
    "spec:\n"
    "  required: %s\n"
    "  issuers: [{issuer: https://issuer, audiences: [me], jwks: '%s'}]\n"
    "  claimsToHeaders: [{claim: sub, header: X-User}, {claim: roles, header: x-roles}]\n"
    "---\n"
    "apiVersion: outrigger.io/v1alpha1\n"
    "kind: AccessPolicy\n"
    "metadata: {name: p}\n"
    "spec:\n"
    "  defaultAction: deny\n"
    "  rules:\n"
    "  - {name: open, action: allow, paths: [/open/*]}\n"
    "  - {name: admins, action: allow, claims: [{name: roles, values: [admin]}]}\n"
    "  - {name: closed, action: deny, paths: [/closed/**, /pkg.Service/Closed]}\n";

static world *open_tokens(outr_snapshot **snapshot, outr_authn **authn, bool is_required,
                          outr_app_protocol protocol, bool as_daprd)
{
    outr_str text = outr_arena_printf(is.arena, policies, is_required ? "true" : "false", is.jwks.p);
    world *w = open_world_of(snapshot, text.p, true, protocol, as_daprd);
    *authn = outr_authn_new((*snapshot)->authn, w->w.loop, NULL);
    outr_mesh_use_authn(w->nodes[0].mesh, *authn);
    return w;
}

static void on_closed(outr_op *op)
{
    (void)op;
}

static void close_tokens(world *w, outr_snapshot *snapshot, outr_authn *authn)
{
    outr_op op;
    outr_mesh_use_authn(w->nodes[0].mesh, NULL);
    outr_op_init(&op, w->w.loop, NULL, 0, on_closed);
    outr_authn_close(authn, &op);
    wire_run(&w->w);
    close_world(w, snapshot);
}

/* What the app sees of who calls. */
static void echo_user(world *w, world_node *node, outr_exchange *x)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_KIB);
    (void)w;
    (void)node;
    for (size_t i = 0; i < x->req.headers.count; i++) {
        const outr_header *h = &x->req.headers.items[i];
        if (outr_str_istarts(h->name, OUTR_STR("x-")) || outr_str_istarts(h->name, OUTR_STR("x_")) ||
            outr_str_iis(h->name, "authorization"))
            if (!outr_str_istarts(h->name, OUTR_STR("x-forwarded")))
                outr_buf_printf(&text, OUTR_FMT "=" OUTR_FMT ";", OUTR_ARG(h->name),
                                OUTR_ARG(h->value));
    }
    outr_buf_char(&text, 0);
    web_answer(x, 200, text.p);
}

static void tokens_are_looked_at_and_what_they_say_is_told(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_snapshot *snapshot;
    outr_authn *authn;
    outr_str body;
    (void)state;
    world *w = open_tokens(&snapshot, &authn, true, OUTR_APP_HTTP, false);
    w->on_app = echo_user;
    outr_str joe = tokens_good(&is, 99999999999, ",\"sub\":\"joe\"");
    outr_str admin =
        tokens_good(&is, 99999999999, ",\"sub\":\"a\\nb\",\"roles\":[\"x\",\"admin\"]");
    assert_int_equal(call_with(w, &body, arena, "GET", "/open/x", false, joe), 200);
    assert_true(outr_str_is(body, "X-User=joe;"));
    assert_int_equal(call_with(w, &body, arena, "GET", "/other", false, joe), 500);
    assert_true(outr_str_ends(body, OUTR_STR("7")));
    assert_int_equal(call_with(w, &body, arena, "GET", "/other", false, admin), 200);
    if (!outr_str_is(body, "X-User=a b;X-Roles=x,admin;"))
        fail_msg(OUTR_FMT, OUTR_ARG(body));
    assert_int_equal(call_with(w, &body, arena, "GET", "/closed/x", false, admin), 500);
    assert_int_equal(w->nodes[0].requests, 2);
    /* no token, a bad one, a huge one: who asks hears why, before any rule is looked at */
    static const struct {
        const char *token, *reason;
    } rows[] = {{NULL, "missing"}, {"x", "malformed"}};
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_str token = outr_str_from(rows[i].token);
        assert_int_equal(call_with(w, &body, arena, "GET", "/open/x", false, token), 500);
        assert_true(outr_str_ends(body, OUTR_STR("16")));
        if (outr_str_search(body, outr_str_from(rows[i].reason)) < 0)
            fail_msg("%s: " OUTR_FMT, rows[i].reason, OUTR_ARG(body));
    }
    char *large = outr_arena_alloc(arena, OUTR_JWT_MAX + 1);
    memset(large, 'a', OUTR_JWT_MAX + 1);
    assert_int_equal(
        call_with(w, &body, arena, "GET", "/open/x", false, outr_str_of(large, OUTR_JWT_MAX + 1)),
        500);
    assert_true(outr_str_search(body, OUTR_STR("too_large")) > 0);
    assert_int_equal(w->nodes[0].requests, 2);
    close_tokens(w, snapshot, authn);
    outr_arena_free(arena);
}

static void a_token_may_be_left_out_where_it_is_optional(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_snapshot *snapshot;
    outr_authn *authn;
    outr_str body;
    (void)state;
    world *w = open_tokens(&snapshot, &authn, false, OUTR_APP_HTTP, false);
    w->on_app = echo_user;
    assert_int_equal(call_raw(w, &body, arena, "GET", "/open/x", false), 200);
    assert_true(outr_str_is(body, "")); /* what was forged is gone all the same */
    assert_int_equal(call_raw(w, &body, arena, "GET", "/other", false), 500);
    assert_int_equal(call_with(w, &body, arena, "GET", "/open/x", false, OUTR_STR("x")), 500);
    assert_true(outr_str_ends(body, OUTR_STR("16")));
    close_tokens(w, snapshot, authn);
    outr_arena_free(arena);
}

static void proxied_calls_show_tokens_too(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_snapshot *snapshot;
    outr_authn *authn;
    outr_str body;
    (void)state;
    world *w = open_tokens(&snapshot, &authn, true, OUTR_APP_GRPC, false);
    w->on_app = echo_user;
    outr_str joe = tokens_good(&is, 99999999999, ",\"sub\":\"joe\"");
    outr_str admin = tokens_good(&is, 99999999999, ",\"sub\":\"b\",\"roles\":\"admin\"");
    call_with(w, &body, arena, "POST", "/pkg.Service/Read", true, admin);
    assert_int_equal(w->nodes[0].requests, 1);
    if (outr_str_search(body, OUTR_STR("b;X-Roles=admin;")) < 0)
        fail_msg(OUTR_FMT, OUTR_ARG(body));
    call_with(w, &body, arena, "POST", "/pkg.Service/Closed", true, admin);
    assert_true(outr_str_is(body, "7"));
    call_with(w, &body, arena, "POST", "/pkg.Service/Read", true, joe);
    assert_true(outr_str_is(body, "7"));
    call_with(w, &body, arena, "POST", "/pkg.Service/Read", true, OUTR_STR_NONE);
    assert_true(outr_str_is(body, "16"));
    assert_int_equal(w->nodes[0].requests, 1);
    close_tokens(w, snapshot, authn);
    outr_arena_free(arena);
}

/* The caller's side: what its client gets. */
static void call_as_client(world *w, const char *path, outr_str token, int status, const char *text)
{
    web_call c;
    world_call(w, &c, "GET", "callee", path);
    if (token.p)
        outr_headers_add(&c.req.headers, OUTR_STR("Authorization"), token);
    outr_headers_add(&c.req.headers, OUTR_STR("X-User"), OUTR_STR("forged"));
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    if (c.call.head.status != status ||
        outr_str_search(outr_buf_view(&c.taker.body), outr_str_from(text)) < 0)
        fail_msg("%s: %d \"" OUTR_FMT "\"", path, c.call.head.status,
                 OUTR_ARG(outr_buf_view(&c.taker.body)));
    web_call_done(&c);
}

static void tokens_come_through_callers_of_either_kind(void **state)
{
    (void)state;
    for (int as_daprd = 0; as_daprd < 2; as_daprd++) {
        outr_snapshot *snapshot;
        outr_authn *authn;
        world *w = open_tokens(&snapshot, &authn, true, OUTR_APP_HTTP, as_daprd);
        w->on_app = echo_user;
        outr_str token = outr_arena_join(is.arena, OUTR_STR("Bearer "),
                                         tokens_good(&is, 99999999999, ",\"sub\":\"joe\""),
                                         OUTR_STR_NONE);
        call_as_client(w, "/open/x", token, 200, "X-User=joe;");
        call_as_client(w, "/closed/x", token, 500, "7 rpc error: code = PermissionDenied");
        /* a daprd would ask again, four times in all, whom it is told to be unauthenticated by */
        call_as_client(w, "/open/x", OUTR_STR_NONE, 500,
                       as_daprd ? "7 rpc error: code = PermissionDenied desc = the token was "
                                  "refused: missing"
                                : "16 rpc error: code = Unauthenticated desc = the token was "
                                  "refused: missing");
        call_as_client(w, "/open/x", OUTR_STR("Bearer x"), 500, "refused: malformed");
        assert_int_equal(w->nodes[0].requests, 1);
        close_tokens(w, snapshot, authn);
    }
}

static int make_tokens(void **state)
{
    (void)state;
    tokens_open(&is);
    return 0;
}

static int free_tokens(void **state)
{
    (void)state;
    tokens_close(&is);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_between_two_outriggers_are_judged),
        cmocka_unit_test(calls_of_a_daprd_are_judged),
        cmocka_unit_test(a_peer_cannot_hide_where_a_call_goes),
        cmocka_unit_test(proxied_calls_are_judged_by_their_method),
        cmocka_unit_test(tokens_are_looked_at_and_what_they_say_is_told),
        cmocka_unit_test(a_token_may_be_left_out_where_it_is_optional),
        cmocka_unit_test(proxied_calls_show_tokens_too),
        cmocka_unit_test(tokens_come_through_callers_of_either_kind),
    };
    return cmocka_run_group_tests(tests, make_tokens, free_tokens);
}
