/* Calls that go where TrafficPolicies send them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/tokens.h"
#include "unit/mesh/traffic.h"
#include "unit/mesh/world.h"

#define SUBSETS "subsets: [{name: v1, labels: {version: 1}}, {name: v2, labels: {version: 2}}]"

static char baggage[2][256]; /* of what the app of a node got last */

static void on_app(world *w, world_node *node, outr_exchange *x)
{
    long i = node - w->nodes;
    snprintf(baggage[i], sizeof baggage[i], OUTR_FMT,
             OUTR_ARG(outr_headers_get(&x->req.headers, "baggage")));
    web_answer(x, 200, i ? "two" : "one");
}

static void use(world *w, const char *traffic)
{
    outr_snapshot *snapshot = traffic_one(traffic);
    outr_mesh_update(w->mesh, snapshot);
    outr_snapshot_unref(snapshot);
}

/* Two instances: 0 has version=1, 1 has version=2. */
static world *open_world(const char *traffic)
{
    world *w = world_open(1, 0);
    memset(baggage, 0, sizeof baggage);
    w->on_app = on_app;
    for (uint16_t i = 0; i < 2; i++)
        w->names[i] = (uint16_t)(9000 + i);
    w->labels[0] = "environment=prod,version=1";
    w->labels[1] = "environment=test,version=2";
    use(w, traffic);
    return w;
}

static void close_world(world *w)
{
    wire_sleep(&w->w, 60 * OUTR_SEC);
    assert_true(outr_list_is_empty(&w->mesh->calls));
    assert_int_equal(world_close(w), 0);
}

static void begin(world *w, web_call *c, const char *path, const char *header, const char *value)
{
    world_call(w, c, "GET", "callee", path);
    if (header)
        outr_headers_add(&c->req.headers, outr_str_from(header), outr_str_from(value));
    web_call_start(c, w->client);
}

/* How long it took. */
static uint64_t ask(world *w, const char *header, const char *value, int status, const char *body)
{
    web_call c;
    uint64_t began = w->w.now;
    begin(w, &c, "/work", header, value);
    world_run_until_over(w, &c);
    world_assert_answer(&c, status, body);
    web_call_done(&c);
    return w->w.now - began;
}

/* ---- subsets --------------------------------------------------------------------------------- */

static void a_header_decides_which_version_is_called(void **state)
{
    world *w = open_world("{" SUBSETS ", routes: [{match: [{headers: [{name: x-beta}]}], to: "
                          "[{subset: v2}]}, {to: [{subset: v1}]}]}");
    (void)state;
    for (int i = 0; i < 50; i++) {
        ask(w, NULL, NULL, 200, "one");
        ask(w, "X-Beta", "1", 200, "two");
    }
    close_world(w);
}

static void one_call_in_a_hundred_goes_to_the_canary(void **state)
{
    world *w = open_world("{" SUBSETS ", routes: [{to: [{subset: v1, weight: 99}, {subset: v2, "
                          "weight: 1}]}]}");
    (void)state;
    for (int i = 0; i < 1000; i++)
        ask(w, NULL, NULL, 200, "");
    assert_in_range(w->nodes[1].requests, 8, 12);
    assert_int_equal(w->nodes[0].requests + w->nodes[1].requests, 1000);
    close_world(w);
}

static void an_empty_subset_is_an_error_or_falls_back(void **state)
{
#define ROUTE(more)                                                                                \
    "{subsets: [{name: v1, labels: {version: 1}}, {name: v3, labels: {version: 3}}], routes: "     \
    "[{to: [{subset: v3}]" more "}]}"
    world *w = open_world(ROUTE(""));
    (void)state;
    ask(w, NULL, NULL, 500, "14 ");
    use(w, ROUTE(", fallback: none"));
    ask(w, NULL, NULL, 500, "14 ");
    use(w, ROUTE(", fallback: v1"));
    for (int i = 0; i < 20; i++)
        ask(w, NULL, NULL, 200, "one");
    use(w, ROUTE(", fallback: any"));
    for (int i = 0; i < 20; i++)
        ask(w, NULL, NULL, 200, "");
    assert_true(w->nodes[1].requests > 0);
    w->labels[1] = "version=3"; /* now there is one */
    wire_sleep(&w->w, 30 * OUTR_SEC);
    ask(w, NULL, NULL, 200, "");
    unsigned before = w->nodes[1].requests;
    for (int i = 0; i < 20; i++)
        ask(w, NULL, NULL, 200, "two");
    assert_int_equal(w->nodes[1].requests, before + 20);
    close_world(w);
}

static void a_subset_whose_instances_are_down_is_not_left(void **state)
{
    world *w = open_world("{" SUBSETS ", routes: [{to: [{subset: v2}], fallback: v1}]}");
    (void)state;
    w->nodes[1].is_refusing = true;
    ask(w, NULL, NULL, 500, "14 ");
    assert_int_equal(w->nodes[0].requests, 0);
    close_world(w);
}

static void changed_routes_are_for_the_next_call(void **state)
{
    world *w = open_world("{" SUBSETS ", routes: [{to: [{subset: v1}]}]}");
    (void)state;
    for (int i = 0; i < 10; i++) {
        web_call c;
        begin(w, &c, "/work", NULL, NULL); /* on its way by what was */
        use(w, "{" SUBSETS ", routes: [{to: [{subset: v2}]}]}");
        world_run_until_over(w, &c);
        assert_int_equal(c.call.head.status, 200);
        web_call_done(&c);
        ask(w, NULL, NULL, 200, "two");
        use(w, "{" SUBSETS ", routes: [{to: [{subset: v1}]}]}");
        ask(w, NULL, NULL, 200, "one");
    }
    close_world(w);
}

static void on_closed(outr_op *op)
{
    (void)op;
}

static void claims_of_a_good_token_decide_where_it_goes(void **state)
{
    tokens t;
    outr_op op;
    (void)state;
    tokens_open(&t);
    const outr_str audience = OUTR_STR("me");
    const outr_token_issuer issuer = {.name = OUTR_STR("https://issuer"),
                                      .audiences = &audience,
                                      .audience_count = 1,
                                      .keys = t.jwks};
    const outr_authn_spec spec = {.issuers = &issuer, .issuer_count = 1};
    world *w = open_world("{" SUBSETS ", routes: [{match: [{claims: [{name: roles, exact: beta}]}], "
                          "to: [{subset: v2}]}, {to: [{subset: v1}]}]}");
    outr_authn *authn = outr_authn_new(&spec, w->w.loop, NULL);
    outr_mesh_use_authn(w->mesh, authn);
    outr_str good = tokens_good(&t, 99999999999, ",\"roles\":[\"x\",\"beta\"]");
    outr_str other = tokens_good(&t, 99999999999, ",\"roles\":[\"x\"]");
    outr_str late = tokens_good(&t, 1, ",\"roles\":[\"beta\"]");
    const outr_str bearer = OUTR_STR("Bearer ");
    ask(w, "authorization", outr_arena_join(t.arena, bearer, good, OUTR_STR("")).p, 200, "two");
    ask(w, "authorization", outr_arena_join(t.arena, bearer, other, OUTR_STR("")).p, 200, "one");
    ask(w, "authorization", outr_arena_join(t.arena, bearer, late, OUTR_STR("")).p, 200, "one");
    ask(w, NULL, NULL, 200, "one");
    outr_mesh_use_authn(w->mesh, NULL);
    ask(w, "authorization", outr_arena_join(t.arena, bearer, good, OUTR_STR("")).p, 200, "one");
    outr_op_init(&op, w->w.loop, NULL, 0, on_closed);
    outr_authn_close(authn, &op);
    wire_run(&w->w);
    close_world(w);
    tokens_close(&t);
}

/* ---- environments ---------------------------------------------------------------------------- */

static void the_environment_follows_in_the_baggage(void **state)
{
    world *w = open_world("{environment: {fallback: prod}, routes: [{match: [{headers: [{name: "
                          "x-test}]}], environment: test}]}");
    (void)state;
    ask(w, NULL, NULL, 200, "one");
    assert_string_equal(baggage[0], "");
    ask(w, "x-test", "1", 200, "two");
    assert_string_equal(baggage[1], "environment=test");
    ask(w, "baggage", "a=b,environment=test;p", 200, "two");
    assert_string_equal(baggage[1], "a=b,environment=test;p");
    ask(w, "baggage", "environment=dev", 200, "one"); /* nobody is of it */
    assert_string_equal(baggage[0], "environment=dev");
    close_world(w);
}

static void the_caller_s_own_environment_is_its_calls(void **state)
{
    const outr_kv label = {OUTR_STR("environment"), OUTR_STR("test")};
    world *w = open_world("{environment: {}}");
    (void)state;
    w->settings.labels = (outr_kvs){&label, 1};
    ask(w, "baggage", "a=1", 200, "two");
    assert_string_equal(baggage[1], "environment=test,a=1");
    w->labels[1] = NULL;
    wire_sleep(&w->w, 30 * OUTR_SEC);
    ask(w, "baggage", "environment=prod", 200, "one"); /* and the registry is asked again */
    wire_sleep(&w->w, OUTR_SEC);
    ask(w, NULL, NULL, 500, "14 ");
    close_world(w);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void leave(outr_exchange *x, const outr_err *err)
{
    (void)err;
    outr_http_done(x);
}

static void on_nothing(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    x->on_gone = leave;
}

static void a_route_has_its_time(void **state)
{
    world *w = open_world("{routes: [{timeout: 300ms}]}");
    (void)state;
    w->on_app = on_nothing;
    uint64_t took = ask(w, NULL, NULL, 504, "4 timeout of route \"#1\"");
    assert_in_range(took, 300 * OUTR_MS, 305 * OUTR_MS);
    took = ask(w, OUTR_DEADLINE_HEADER, "50m", 500, "4 "); /* the caller's is sooner */
    assert_in_range(took, 50 * OUTR_MS, 55 * OUTR_MS);
    took = ask(w, OUTR_DEADLINE_HEADER, "2S", 504, "4 timeout of route");
    assert_in_range(took, 300 * OUTR_MS, 305 * OUTR_MS);
    close_world(w);
}

/* ---- faults ---------------------------------------------------------------------------------- */

#define FAULT(what) "{routes: [{fault: {expires: 2023-11-14T22:14:20Z, " what "}}]}"

static void a_fault_delays_and_aborts_until_it_expires(void **state)
{
    world *w = open_world(FAULT("delay: {duration: 100ms}"));
    (void)state;
    assert_in_range(ask(w, NULL, NULL, 200, ""), 100 * OUTR_MS, 105 * OUTR_MS);
    use(w, FAULT("abort: {status: 418}"));
    unsigned before = w->nodes[0].requests + w->nodes[1].requests;
    ask(w, NULL, NULL, 418, "2 a fault was injected by TrafficPolicy");
    use(w, FAULT("abort: {status: 503, grpcStatus: 8}, delay: {duration: 50ms}"));
    assert_in_range(ask(w, NULL, NULL, 503, "8 a fault"), 50 * OUTR_MS, 55 * OUTR_MS);
    assert_int_equal(w->nodes[0].requests + w->nodes[1].requests, before);
    wire_sleep(&w->w, 60 * OUTR_SEC);
    assert_true(ask(w, NULL, NULL, 200, "") < 50 * OUTR_MS);
    close_world(w);
}

static void faults_are_drawn_by_their_percent(void **state)
{
    world *w = open_world(FAULT("abort: {status: 503, percent: 20}"));
    (void)state;
    unsigned aborted = 0;
    for (int i = 0; i < 500; i++) {
        web_call c;
        begin(w, &c, "/work", NULL, NULL);
        world_run_until_over(w, &c);
        aborted += c.call.head.status == 503;
        web_call_done(&c);
    }
    assert_in_range(aborted, 70, 130);
    close_world(w);
}

static void who_leaves_or_has_no_time_waits_for_no_fault(void **state)
{
    world *w = open_world(FAULT("delay: {duration: 10s}"));
    web_call c;
    (void)state;
    uint64_t took = ask(w, OUTR_DEADLINE_HEADER, "50m", 500, "4 ");
    assert_in_range(took, 50 * OUTR_MS, 55 * OUTR_MS);
    begin(w, &c, "/work", NULL, NULL);
    wire_sleep(&w->w, OUTR_SEC);
    assert_false(outr_list_is_empty(&w->mesh->calls));
    outr_op_cancel(&c.op, OUTR_CANCELLED);
    wire_sleep(&w->w, OUTR_SEC);
    assert_true(outr_list_is_empty(&w->mesh->calls));
    web_call_done(&c);
    assert_int_equal(w->nodes[0].requests + w->nodes[1].requests, 0);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_decides_which_version_is_called),
        cmocka_unit_test(one_call_in_a_hundred_goes_to_the_canary),
        cmocka_unit_test(an_empty_subset_is_an_error_or_falls_back),
        cmocka_unit_test(a_subset_whose_instances_are_down_is_not_left),
        cmocka_unit_test(changed_routes_are_for_the_next_call),
        cmocka_unit_test(claims_of_a_good_token_decide_where_it_goes),
        cmocka_unit_test(the_environment_follows_in_the_baggage),
        cmocka_unit_test(the_caller_s_own_environment_is_its_calls),
        cmocka_unit_test(a_route_has_its_time),
        cmocka_unit_test(a_fault_delays_and_aborts_until_it_expires),
        cmocka_unit_test(faults_are_drawn_by_their_percent),
        cmocka_unit_test(who_leaves_or_has_no_time_waits_for_no_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
