#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/heap.h"
#include "base/map.h"
#include "base/rand.h"

static void a_key_of_no_bytes_is_a_key(void **state)
{
    int value;
    outr_map *map = outr_map_new();
    (void)state;
    assert_null(outr_map_get(map, OUTR_STR_NONE));
    assert_null(outr_map_put(map, OUTR_STR_NONE, &value));
    assert_ptr_equal(outr_map_get(map, OUTR_STR("")), &value);
    assert_ptr_equal(outr_map_remove(map, OUTR_STR_NONE), &value);
    assert_int_equal(outr_map_count(map), 0);
    outr_map_free(map);
}

static void keys_may_hold_nul(void **state)
{
    int a, b;
    outr_map *map = outr_map_new();
    (void)state;
    outr_map_put(map, outr_str_of("k\0a", 3), &a);
    outr_map_put(map, outr_str_of("k\0b", 3), &b);
    assert_ptr_equal(outr_map_get(map, outr_str_of("k\0a", 3)), &a);
    assert_null(outr_map_get(map, OUTR_STR("k")));
    outr_map_free(map);
}

static void it_holds_what_a_table_of_all_keys_holds(void **state)
{
    enum { KEYS = 300, MOVES = 20000 };
    static char there[KEYS];
    outr_rand rand;
    uint64_t seed = 42;
    size_t count = 0;
    outr_map *map = outr_map_new();
    (void)state;
    outr_rand_seed(&rand, seed);
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < MOVES; i++) {
        char text[20];
        size_t k = outr_rand_below(&rand, KEYS);
        outr_str key = outr_str_decimal(text, k);
        bool puts = outr_rand_below(&rand, 2);
        void *former = puts ? outr_map_put(map, key, &there[k]) : outr_map_remove(map, key);
        assert_ptr_equal(former, there[k] ? &there[k] : NULL);
        count = count + (size_t)(puts && !there[k]) - (size_t)(!puts && there[k]);
        there[k] = puts;
        assert_int_equal(outr_map_count(map), count);
    }
    outr_map_free(map);
}

static void walking_goes_in_the_order_of_insertion_and_bears_removal(void **state)
{
    static const char *const keys[] = {"c", "a", "b", "d"};
    outr_map *map = outr_map_new();
    outr_str key;
    void *value;
    size_t n = 0;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(keys); i++)
        outr_map_put(map, outr_str_from(keys[i]), (void *)keys[i]);
    for (size_t cursor = 0; outr_map_next(map, &cursor, &key, &value); n++) {
        assert_true(outr_str_is(key, keys[n]));
        outr_map_remove(map, key);
    }
    assert_int_equal(n, OUTR_LEN(keys));
    assert_int_equal(outr_map_count(map), 0);
    outr_map_free(map);
}

static void a_heap_gives_the_least_first(void **state)
{
    outr_heap_node nodes[64] = {0};
    outr_heap heap = {0};
    uint64_t last = 0;
    (void)state;
    for (uint64_t i = 0; i < OUTR_LEN(nodes); i++)
        outr_heap_push(&heap, &nodes[i], (i * 37) % 64);
    outr_heap_remove(&heap, &nodes[5]);
    outr_heap_remove(&heap, &nodes[5]); /* in none: nothing */
    for (size_t left = OUTR_LEN(nodes) - 1; left > 0; left--) {
        outr_heap_node *least = outr_heap_min(&heap);
        assert_ptr_not_equal(least, &nodes[5]);
        assert_true(least->key >= last);
        last = least->key;
        outr_heap_remove(&heap, least);
    }
    assert_null(outr_heap_min(&heap));
    outr_heap_done(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_of_no_bytes_is_a_key),
        cmocka_unit_test(keys_may_hold_nul),
        cmocka_unit_test(it_holds_what_a_table_of_all_keys_holds),
        cmocka_unit_test(walking_goes_in_the_order_of_insertion_and_bears_removal),
        cmocka_unit_test(a_heap_gives_the_least_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
