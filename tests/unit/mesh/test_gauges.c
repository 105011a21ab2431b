/* Metrics of the instances that are called, as a scrape finds them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/callees.h"

#define NOW (1000 * OUTR_SEC)

static outr_instance said[OUTR__INSTANCES_MAX];
static outr_buf text;

static outr__callee *new_callee(outr_callees *all, const char *name, size_t count)
{
    outr__callee *callee = outr__callee_ref(all, outr_str_from(name), true);
    for (size_t i = 0; i < count; i++)
        outr_addr_from_ip(&said[i].addr, OUTR_STR("10.0.0.1"), (uint16_t)(1000 + i), NULL);
    outr__callee_learn(callee, &(outr_resolve){.instances = said, .count = count}, NOW);
    return callee;
}

static void scrape(outr_callees *all)
{
    outr_buf_done(&text);
    text = OUTR_BUF_MAX(4 * OUTR_MIB);
    outr_mesh_write_endpoints(all, OUTR_STR("waiter"), NOW, &text);
}

static size_t count_lines(const char *with)
{
    outr_str rest = outr_buf_view(&text), line;
    size_t n = 0;
    while (rest.p) {
        rest = outr_str_cut(rest, '\n', &line);
        n += outr_str_search(line, outr_str_from(with)) >= 0;
    }
    return n;
}

static void each_outcome_of_an_instance_is_counted(void **state)
{
    static const outr_class classes[] = {OUTR_CLASS_GOOD, OUTR_CLASS_FAILURE, OUTR_CLASS_GOOD};
    outr_callees *all = outr_callees_new();
    outr_rand rand;
    (void)state;
    outr_rand_seed(&rand, 1);
    scrape(all);
    assert_int_equal(text.n, 0);
    outr__callee *callee = new_callee(all, "kit\"chen.default", 1);
    for (size_t i = 0; i < OUTR_LEN(classes); i++) {
        outr__choice how = {.now = NOW};
        outr__instance *instance = outr__callee_choose(callee, &how, &rand);
        outr__callee_observe(callee, instance, NOW, OUTR_MS, classes[i], 0, false, &rand);
        outr__instance_release(instance);
    }
    outr__choice how = {.now = NOW};
    outr__instance *held = outr__callee_choose(callee, &how, &rand);
    scrape(all);
#define OF "app_id=\"waiter\",instance=\"10.0.0.1:1000\""
#define TO "target=\"kit\\\"chen.default\"}"
    assert_int_equal(count_lines("_outcomes_total{" OF ",outcome=\"good\"," TO " 2"), 1);
    assert_int_equal(count_lines("_outcomes_total{" OF ",outcome=\"failure\"," TO " 1"), 1);
    assert_int_equal(count_lines("_outcomes_total{" OF ",outcome=\"load\"," TO " 0"), 1);
    assert_int_equal(count_lines("_pending{" OF "," TO " 1"), 1);
    assert_int_equal(count_lines("_is_used{" OF "," TO " 1"), 1);
    assert_int_equal(count_lines("_score_ms{" OF "," TO), 1);
    outr__instance_release(held);
    outr__callee_unref(callee);
    outr_callees_unref(all);
}

static void of_very_many_instances_the_rest_is_one(void **state)
{
    outr_callees *all = outr_callees_new();
    outr__callee *a = new_callee(all, "a.default", 700), *b = new_callee(all, "b.default", 700);
    (void)state;
    scrape(all);
    assert_int_equal(count_lines("_is_used{app_id"), OUTR_ENDPOINTS_TOLD + 1);
    assert_int_equal(count_lines("instance=\"other\""), 2); /* used, pending; nothing has happened */
    assert_int_equal(count_lines("_is_used{app_id=\"waiter\",instance=\"other\""), 1);
    assert_int_equal(count_lines("} 400"), 1);
    outr__callee_unref(a);
    scrape(all); /* who is not called any more is not told of */
    assert_int_equal(count_lines("_is_used{app_id"), 700);
    outr__callee_unref(b);
    outr_callees_unref(all);
}

static int done(void **state)
{
    (void)state;
    outr_buf_done(&text);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_outcome_of_an_instance_is_counted),
        cmocka_unit_test(of_very_many_instances_the_rest_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
