#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/copy.h"

static void pairs_outlive_what_they_were_copied_from(void **state)
{
    char key[] = "k", value[] = "v\0w";
    const outr_kv from = {outr_str_of(key, 1), outr_str_of(value, 3)};
    outr_arena *arena = outr_arena_new(4 * OUTR_KIB);
    (void)state;
    outr_kvs to = outr_kvs_copy(arena, (outr_kvs){&from, 1});
    memset(key, 'x', sizeof key);
    memset(value, 'x', sizeof value);
    assert_int_equal(to.count, 1);
    assert_true(outr_str_is(to.items[0].key, "k"));
    assert_true(outr_str_eq(to.items[0].value, outr_str_of("v\0w", 3)));
    assert_int_equal(outr_kvs_copy(arena, (outr_kvs){0}).count, 0);
    outr_arena_free(arena);
}

static void pairs_on_the_heap_are_one_block(void **state)
{
    const outr_kv from[] = {{OUTR_STR("zone"), OUTR_STR("a")}, {OUTR_STR("empty"), OUTR_STR_NONE}};
    outr_kvs to = outr_kvs_dup((outr_kvs){from, 2});
    assert_true(outr_kvs_eq(to, (outr_kvs){from, 2}));
    assert_false(outr_kvs_eq(to, (outr_kvs){from, 1}));
    assert_false(outr_kvs_eq((outr_kvs){to.items, 1}, (outr_kvs){from + 1, 1}));
    (void)state;
    assert_int_equal(to.count, 2);
    assert_true(outr_str_is(to.items[0].key, "zone") && outr_str_is(to.items[0].value, "a"));
    assert_true(outr_str_is(to.items[1].key, "empty") && to.items[1].value.n == 0);
    assert_ptr_not_equal(to.items[0].key.p, from[0].key.p);
    free((void *)to.items);
    assert_null(outr_kvs_dup((outr_kvs){0}).items);
}

static void only_letters_of_ascii_become_lower(void **state)
{
    outr_arena *arena = outr_arena_new(4 * OUTR_KIB);
    (void)state;
    assert_true(outr_str_is(outr_str_lower(arena, OUTR_STR("AZ@[az-\xc3\x84")), "az@[az-\xc3\x84"));
    assert_int_equal(outr_str_lower(arena, OUTR_STR_NONE).n, 0);
    outr_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_outlive_what_they_were_copied_from),
        cmocka_unit_test(pairs_on_the_heap_are_one_block),
        cmocka_unit_test(only_letters_of_ascii_become_lower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
