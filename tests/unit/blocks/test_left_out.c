#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/arena.h"
#include "blocks/left_out.h"

typedef struct bench {
    outr_list list;
    outr_rand rand;
    outr_snapshot *snapshot;
    outr_component_spec a, b;
} bench;

static int setup(void **state)
{
    bench *t = outr_alloc(sizeof *t);
    outr_list_init(&t->list);
    outr_rand_seed(&t->rand, 7);
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    t->snapshot = outr_arena_alloc(arena, sizeof *t->snapshot);
    t->snapshot->refs = 1;
    t->snapshot->arena = arena;
    t->a.base.name = OUTR_STR("a");
    t->b.base.name = OUTR_STR("b");
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    bench *t = *state;
    outr_left_out_clear(&t->list);
    assert_int_equal(t->snapshot->refs, 1);
    outr_snapshot_unref(t->snapshot);
    free(t);
    return 0;
}

static bool failed(bench *t, const outr_component_spec *spec, const char *text, bool is_final,
                   uint64_t now)
{
    outr_err err;
    outr_fail(&err, OUTR_UNAVAILABLE, "%s", text);
    return outr_left_out_failed(&t->list, t->snapshot, spec, &err, is_final, now, &t->rand);
}

static void pauses_double_up_to_thirty_seconds(void **state)
{
    static const uint64_t want_s[] = {1, 2, 4, 8, 16, 30, 30, 30};
    bench *t = *state;
    uint64_t now = 5 * OUTR_SEC;
    for (size_t i = 0; i < OUTR_LEN(want_s); i++) {
        failed(t, &t->a, "away", false, now);
        uint64_t pause = outr_left_out_due(&t->list) - now;
        assert_in_range(pause, want_s[i] * OUTR_SEC * 3 / 4, want_s[i] * OUTR_SEC);
        now += pause;
    }
}

static void the_earliest_is_due_first_and_what_is_final_never(void **state)
{
    bench *t = *state;
    assert_true(outr_left_out_due(&t->list) == UINT64_MAX);
    failed(t, &t->a, "no such type", true, 0);
    assert_true(outr_left_out_due(&t->list) == UINT64_MAX);
    failed(t, &t->b, "away", false, 0);
    assert_true(outr_left_out_due(&t->list) == outr_left_out_find(&t->list, &t->b)->due_ns);
}

static void the_same_text_again_is_no_news(void **state)
{
    bench *t = *state;
    assert_true(failed(t, &t->a, "away", false, 0));
    assert_false(failed(t, &t->a, "away", false, OUTR_SEC));
    assert_true(failed(t, &t->a, "wrong password", false, 2 * OUTR_SEC));
    assert_int_equal(outr_left_out_find(&t->list, &t->a)->failures, 3);
}

static void a_copy_tells_names_and_reasons(void **state)
{
    bench *t = *state;
    outr_kvs none = outr_left_out_copy(&t->list);
    assert_int_equal(none.count, 0);
    failed(t, &t->a, "away", false, 0);
    failed(t, &t->b, "no such type", true, 0);
    outr_kvs kvs = outr_left_out_copy(&t->list);
    outr_left_out_forget(&t->list, OUTR_STR("a"));
    assert_null(outr_left_out_find(&t->list, &t->a));
    assert_non_null(outr_left_out_find(&t->list, &t->b));
    assert_int_equal(kvs.count, 2);
    assert_true(outr_str_is(kvs.items[0].key, "a") && outr_str_is(kvs.items[0].value, "away"));
    assert_true(outr_str_is(kvs.items[1].value, "no such type"));
    free((void *)kvs.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pauses_double_up_to_thirty_seconds, setup, teardown),
        cmocka_unit_test_setup_teardown(the_earliest_is_due_first_and_what_is_final_never, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_same_text_again_is_no_news, setup, teardown),
        cmocka_unit_test_setup_teardown(a_copy_tells_names_and_reasons, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
