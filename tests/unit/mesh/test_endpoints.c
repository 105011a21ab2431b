/* What a sidecar tells of the instances it calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/endpoints.h"
#include "unit/mesh/traffic.h"
#include "unit/mesh/world.h"

static void call(world *w, int status)
{
    web_call c;
    world_call(w, &c, "POST", "callee", "/work");
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    assert_int_equal(c.call.head.status, status);
    web_call_done(&c);
}

static void on_failing_app(world *w, world_node *node, outr_exchange *x)
{
    web_answer(x, node == &w->nodes[0] ? 500 : 200, "");
}

static void names_are_known_when_they_have_been_called(void **state)
{
    world *w = world_open(1, 0);
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_callee_view *views;
    (void)state;
    assert_int_equal(outr_mesh_list_endpoints(w->mesh, OUTR_STR_NONE, OUTR_STR_NONE, arena, &views),
                     0);
    call(w, 200);
    assert_int_equal(
        outr_mesh_list_endpoints(w->mesh, OUTR_STR("nobody"), OUTR_STR_NONE, arena, &views), 0);
    assert_int_equal(
        outr_mesh_list_endpoints(w->mesh, OUTR_STR("callee"), OUTR_STR("other"), arena, &views), 0);
    assert_int_equal(outr_mesh_list_endpoints(w->mesh, OUTR_STR_NONE, OUTR_STR_NONE, arena, &views),
                     1);
    assert_int_equal(
        outr_mesh_list_endpoints(w->mesh, OUTR_STR("callee"), OUTR_STR_NONE, arena, &views), 1);
    assert_true(outr_str_is(views->name, "callee.default"));
    assert_int_equal(views->count, 1);
    assert_int_equal(views->calls, 1);
    assert_true(outr_str_is(views->items[0].address, "10.0.0.1:9000"));
    assert_int_equal(views->items[0].state, OUTR_ENDPOINT_RAMPING);
    assert_true(views->items[0].share < 1);
    assert_string_equal(views->items[0].reason, "");
    assert_int_equal(views->items[0].pending, 0);
    outr_arena_free(arena);
    assert_int_equal(world_close(w), 0);
}

static void an_ejected_instance_says_why_and_until_when(void **state)
{
    world *w = world_open(2, 0);
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_callee_view *views;
    const outr_endpoint_view *bad = NULL;
    (void)state;
    w->on_app = on_failing_app;
    w->names[1] = 9001;
    for (int i = 0; i < 200 && (!bad || bad->state != OUTR_ENDPOINT_EJECTED); i++) {
        web_call c;
        world_call(w, &c, "POST", "callee", "/work");
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        web_call_done(&c);
        wire_sleep(&w->w, OUTR_SEC);
        assert_int_equal(
            outr_mesh_list_endpoints(w->mesh, OUTR_STR("callee"), OUTR_STR_NONE, arena, &views), 1);
        bad = &views->items[outr_str_is(views->items[1].address, "10.0.0.1:9000")];
    }
    assert_int_equal(bad->state, OUTR_ENDPOINT_EJECTED);
    assert_string_equal(outr_endpoint_state_name(bad->state), "ejected");
    assert_string_equal(bad->reason, "failures_in_a_row");
    assert_int_equal(views->ejected, 1);
    assert_int_equal(bad->ejections, 1);
    assert_in_range(bad->next_probe_ms, 1, 6250);
    assert_true(bad->score_ms > 1000);
    outr_arena_free(arena);
    assert_int_equal(world_close(w), 0);
}

static void resolve_anything(outr_resolver *resolver, outr_resolve *req, outr_op *op)
{
    (void)resolver;
    outr_op_begin(op, req, NULL);
    req->instances = outr_arena_alloc(req->arena, sizeof *req->instances);
    outr_addr_from_ip(&req->instances[0].addr, OUTR_STR("10.0.0.1"), 9000, NULL);
    req->count = 1;
    outr_op_finish_soon(op);
}

/* A registry that has an answer for every name: clients may make them up. */
static void of_very_many_names_the_least_lately_called_is_forgotten(void **state)
{
    static const outr_resolver_backend backend = {.resolve = resolve_anything,
                                                  .cache_ns = 3600 * OUTR_SEC};
    world *w = world_open(3, 0);
    outr_arena *arena = outr_arena_new(16 * OUTR_MIB);
    outr_callee_view *views;
    (void)state;
    w->resolver.backend = &backend;
    for (int i = 0; i < 4096 + 100; i++) {
        char name[16];
        web_call c;
        snprintf(name, sizeof name, "app-%d", i % 64 == 0 ? 0 : i);
        world_call(w, &c, "POST", name, "/work");
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        web_call_done(&c);
    }
    size_t n = outr_mesh_list_endpoints(w->mesh, OUTR_STR_NONE, OUTR_STR_NONE, arena, &views);
    assert_in_range(n, 4000, 4096);
    assert_int_equal(
        outr_mesh_list_endpoints(w->mesh, OUTR_STR("app-0"), OUTR_STR_NONE, arena, &views), 1);
    assert_int_equal(
        outr_mesh_list_endpoints(w->mesh, OUTR_STR("app-1"), OUTR_STR_NONE, arena, &views), 0);
    outr_arena_free(arena);
    assert_int_equal(world_close(w), 0);
}

static void use_policy(world *w, const char *spec)
{
    outr_snapshot *s = spec ? traffic_one(spec) : yaml_one("spec: {}");
    outr_mesh_update(w->mesh, s);
    outr_snapshot_unref(s);
}

static outr_endpoint_state state_of_bad(world *w, outr_arena *arena)
{
    outr_callee_view *views;
    if (!outr_mesh_list_endpoints(w->mesh, OUTR_STR("callee"), OUTR_STR_NONE, arena, &views))
        return OUTR_ENDPOINT_OK; /* not called yet */
    return views->items[outr_str_is(views->items[1].address, "10.0.0.1:9000")].state;
}

static void what_a_policy_says_holds_from_then_on(void **state)
{
    world *w = world_open(4, 0);
    outr_arena *arena = outr_arena_new(4 * OUTR_MIB);
    unsigned failures = 0;
    (void)state;
    w->on_app = on_failing_app;
    w->names[1] = 9001;
    use_policy(w, "{targets: [callee], ejection: {consecutive: 2, baseTime: 100s}}");
    for (int i = 0; i < 400 && state_of_bad(w, arena) != OUTR_ENDPOINT_EJECTED; i++) {
        web_call c;
        world_call(w, &c, "POST", "callee", "/work");
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        failures += c.call.head.status == 500;
        web_call_done(&c);
        wire_sleep(&w->w, 300 * OUTR_MS);
    }
    assert_int_equal(failures, 2);
    use_policy(w, "{targets: [another], ejection: {disabled: true}}");
    assert_int_equal(state_of_bad(w, arena), OUTR_ENDPOINT_EJECTED);
    use_policy(w, "{ejection: {disabled: true}}");
    assert_int_equal(state_of_bad(w, arena), OUTR_ENDPOINT_RAMPING);
    use_policy(w, "{ejection: {disabled: true}, slowStart: 0s}");
    use_policy(w, NULL);
    call(w, 200);
    outr_arena_free(arena);
    assert_int_equal(world_close(w), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_known_when_they_have_been_called),
        cmocka_unit_test(what_a_policy_says_holds_from_then_on),
        cmocka_unit_test(of_very_many_names_the_least_lately_called_is_forgotten),
        cmocka_unit_test(an_ejected_instance_says_why_and_until_when),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
