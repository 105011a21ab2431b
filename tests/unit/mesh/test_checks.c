/* Ejected instances are asked whether they are well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/checks.h"
#include "unit/mesh/world.h"

static struct {
    int work, health; /* what instance 0 answers */
    unsigned works, healths;
} script;

static void on_app(world *w, world_node *node, outr_exchange *x)
{
    bool is_health = outr_str_starts(x->req.target, OUTR_STR("/healthz"));
    bool is_bad = node == &w->nodes[0];
    if (is_bad)
        ++*(is_health ? &script.healths : &script.works);
    web_answer(x, !is_bad ? 200 : is_health ? script.health : script.work, "");
}

static outr_callee_view *views(world *w)
{
    static outr_arena *arena;
    outr_callee_view *out;
    outr_arena_free(arena);
    arena = w ? outr_arena_new(OUTR_MIB) : NULL;
    if (!w)
        return NULL;
    assert_int_equal(
        outr_mesh_list_endpoints(w->mesh, OUTR_STR("callee"), OUTR_STR_NONE, arena, &out), 1);
    return out;
}

static const outr_endpoint_view *first(world *w)
{
    outr_callee_view *v = views(w);
    return &v->items[outr_str_is(v->items[1].address, "10.0.0.1:9000")];
}

static void call(world *w)
{
    web_call c;
    world_call(w, &c, "POST", "callee", "/work");
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    web_call_done(&c);
}

static void set_rules(world *w, const char *path)
{
    static const outr_environment_spec environment;
    static const outr_locality_spec locality;
    static const outr_budget_spec budget = {.percent = 20, .per_second = 1};
    static const outr_hedge_spec hedge;
    static const outr_limits_spec limits = {.connections = 9, .pending = 9, .requests = 9};
    /* but for a check it would be away for an hour */
    static const outr_ejection_spec ejection = {.consecutive = 5,
                                                .failure_percent = 40,
                                                .window = 20,
                                                .max_percent = 50,
                                                .base_ns = 3600 * OUTR_SEC,
                                                .max_ns = 3600 * OUTR_SEC};
    const outr_active_check_spec check = {.is_on = path != NULL,
                                          .path = outr_str_from(path),
                                          .interval_ns = 5 * OUTR_SEC,
                                          .timeout_ns = OUTR_SEC};
    const outr_target_rules rules = {.environment = &environment,
                                     .locality = &locality,
                                     .ejection = &ejection,
                                     .health_check = &check,
                                     .retry_budget = &budget,
                                     .hedge = &hedge,
                                     .limits = &limits,
                                     .slow_start_ns = 10 * OUTR_SEC};
    outr__callee *callee =
        outr__callee_ref(w->mesh->peers->callees, OUTR_STR("callee.default"), true);
    outr__callee_use(callee, &rules, (outr_kvs){0}, w->w.now);
    outr__callee_unref(callee);
}

/* Instance 0 is ejected, 1 is well. */
static world *open_world(const char *path, bool is_unreachable)
{
    world *w = world_open(1, 0);
    memset(&script, 0, sizeof script);
    script.work = 500;
    script.health = 500;
    w->on_app = on_app;
    w->names[1] = 9001;
    w->nodes[0].is_refusing = is_unreachable;
    call(w);
    set_rules(w, path);
    for (int i = 0; i < 400 && first(w)->state != OUTR_ENDPOINT_EJECTED; i++) {
        call(w);
        wire_sleep(&w->w, OUTR_SEC);
    }
    assert_int_equal(first(w)->state, OUTR_ENDPOINT_EJECTED);
    script.works = script.healths = 0;
    return w;
}

static void close_world(world *w)
{
    views(NULL);
    assert_int_equal(world_close(w), 0);
}

static void a_good_answer_of_the_path_opens_the_probe(void **state)
{
    world *w = open_world("/healthz?deep=1", false);
    (void)state;
    wire_sleep(&w->w, 32 * OUTR_SEC);
    assert_int_equal(script.healths, 6);
    call(w);
    assert_int_equal(script.works, 0); /* it is not well */
    script.health = 200;
    script.work = 200;
    wire_sleep(&w->w, 6 * OUTR_SEC);
    assert_int_equal(first(w)->state, OUTR_ENDPOINT_EJECTED); /* a check revives nobody */
    call(w);
    assert_int_equal(script.works, 1);
    assert_int_equal(first(w)->state, OUTR_ENDPOINT_RAMPING);
    script.healths = 0;
    wire_sleep(&w->w, 60 * OUTR_SEC);
    assert_true(script.healths <= 1); /* nobody is ejected: nobody is asked */
    close_world(w);
}

static void a_probe_that_fails_all_the_same_is_away_again(void **state)
{
    world *w = open_world("/healthz", false);
    (void)state;
    script.health = 200;
    wire_sleep(&w->w, 6 * OUTR_SEC);
    call(w);
    assert_int_equal(script.works, 1);
    assert_int_equal(first(w)->state, OUTR_ENDPOINT_EJECTED);
    call(w);
    assert_int_equal(script.works, 1);
    close_world(w);
}

static void without_a_path_who_can_be_reached_again_is_probed(void **state)
{
    world *w = open_world("", true);
    (void)state;
    script.work = 200;
    wire_sleep(&w->w, 20 * OUTR_SEC);
    call(w);
    assert_int_equal(script.works, 0);
    w->nodes[0].is_refusing = false;
    wire_sleep(&w->w, 6 * OUTR_SEC);
    assert_int_equal(w->nodes[0].requests, 0); /* its sidecar answers for itself */
    call(w);
    assert_int_equal(script.works, 1);
    assert_int_equal(first(w)->state, OUTR_ENDPOINT_RAMPING);
    close_world(w);
}

static void without_a_path_an_app_that_fails_is_left_alone(void **state)
{
    world *w = open_world("", false);
    (void)state;
    script.work = 200;
    wire_sleep(&w->w, 60 * OUTR_SEC);
    call(w);
    assert_int_equal(script.works, 0);
    close_world(w);
}

static void nobody_is_asked_where_no_policy_wants_it(void **state)
{
    world *w = open_world(NULL, false);
    (void)state;
    wire_sleep(&w->w, 60 * OUTR_SEC);
    assert_int_equal(script.healths, 0);
    set_rules(w, "/healthz"); /* from the next ejection, or change of rules, on */
    outr__known *k = NULL;
    for (size_t at = 0; outr_map_next(w->mesh->peers->names, &at, NULL, (void **)&k);)
        outr__check_begin(w->mesh->peers, k);
    wire_sleep(&w->w, 6 * OUTR_SEC);
    assert_int_equal(script.healths, 1);
    set_rules(w, NULL);
    wire_sleep(&w->w, 60 * OUTR_SEC);
    assert_int_equal(script.healths, 1);
    close_world(w);
}

static void let_go(outr_exchange *x, const outr_err *err)
{
    (void)err;
    outr_http_done(x);
}

static void on_silent_app(world *w, world_node *node, outr_exchange *x)
{
    if (node == &w->nodes[0] && outr_str_starts(x->req.target, OUTR_STR("/healthz"))) {
        script.healths++;
        x->on_gone = let_go;
        return;
    }
    on_app(w, node, x);
}

static void an_app_that_does_not_answer_in_time_is_not_well(void **state)
{
    world *w = open_world("/healthz", false);
    (void)state;
    w->on_app = on_silent_app;
    wire_sleep(&w->w, 12 * OUTR_SEC);
    assert_int_equal(script.healths, 2);
    call(w);
    assert_int_equal(script.works, 0);
    close_world(w);
}

static void a_mesh_may_end_while_it_asks(void **state)
{
    world *w = open_world("/healthz", false);
    (void)state;
    w->on_app = on_silent_app;
    wire_sleep(&w->w, 5 * OUTR_SEC + 100 * OUTR_MS);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_answer_of_the_path_opens_the_probe),
        cmocka_unit_test(a_probe_that_fails_all_the_same_is_away_again),
        cmocka_unit_test(without_a_path_who_can_be_reached_again_is_probed),
        cmocka_unit_test(without_a_path_an_app_that_fails_is_left_alone),
        cmocka_unit_test(nobody_is_asked_where_no_policy_wants_it),
        cmocka_unit_test(an_app_that_does_not_answer_in_time_is_not_well),
        cmocka_unit_test(a_mesh_may_end_while_it_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
