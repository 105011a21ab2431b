#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/resolved.h"

typedef struct seen {
    outr_resolved_watcher watcher;
    unsigned changes;
    size_t before, after;
    char first_before[OUTR_ADDR_TEXT_MAX];
} seen;

static void on_changed(outr_resolved_watcher *watcher, const outr_resolved *set,
                       const outr_instance *before, size_t before_count)
{
    seen *s = OUTR_CONTAINER(watcher, seen, watcher);
    s->changes++;
    s->before = before_count;
    s->after = set->count;
    if (before_count > 0)
        outr_addr_text(&before[0].addr, s->first_before); /* it is still there */
}

static outr_instance at(const char *address)
{
    outr_instance i = {.id = outr_str_from(address)};
    assert_int_equal(outr_addr_parse(&i.addr, outr_str_from(address), NULL), OUTR_OK);
    return i;
}

static void a_set_is_sorted_and_has_none_twice(void **state)
{
    outr_resolved set;
    outr_instance in[] = {at("10.0.0.2:1"), at("[::1]:7"), at("10.0.0.1:2"), at("10.0.0.2:1")};
    char text[OUTR_ADDR_TEXT_MAX];
    (void)state;
    outr_resolved_init(&set);
    assert_true(outr_resolved_put(&set, in, OUTR_LEN(in)));
    assert_int_equal(set.count, 3);
    outr_addr_text(&set.instances[0].addr, text);
    assert_string_equal(text, "10.0.0.1:2");
    assert_non_null(outr_resolved_find(&set, &in[1].addr));
    outr_instance other = at("10.0.0.2:2");
    assert_null(outr_resolved_find(&set, &other.addr));
    outr_resolved_done(&set);
}

static void watchers_are_told_of_changes_only(void **state)
{
    outr_resolved set;
    seen s = {.watcher.changed = on_changed};
    outr_instance one[] = {at("10.0.0.1:2"), at("10.0.0.2:1")};
    outr_instance again[] = {at("10.0.0.2:1"), at("10.0.0.1:2")}, more[] = {at("10.0.0.3:1")};
    (void)state;
    outr_resolved_init(&set);
    outr_resolved_watch(&set, &s.watcher);
    outr_resolved_put(&set, one, 2);
    assert_int_equal(s.changes, 1);
    assert_false(outr_resolved_put(&set, again, 2)); /* in another order */
    assert_int_equal(s.changes, 1);
    assert_true(outr_resolved_put(&set, more, 1));
    assert_int_equal(s.changes, 2);
    assert_int_equal(s.before, 2);
    assert_int_equal(s.after, 1);
    assert_string_equal(s.first_before, "10.0.0.1:2");
    outr_resolved_unwatch(&s.watcher);
    outr_resolved_put(&set, one, 2);
    assert_int_equal(s.changes, 2);
    assert_int_equal(set.generation, 3);
    outr_resolved_done(&set);
}

static void an_empty_registry_does_not_empty_the_mesh(void **state)
{
    outr_resolved set;
    outr_instance one = at("10.0.0.1:2");
    (void)state;
    outr_resolved_init(&set);
    assert_false(outr_resolved_put(&set, NULL, 0));
    outr_resolved_put(&set, &one, 1);
    assert_false(outr_resolved_put(&set, NULL, 0));
    assert_int_equal(set.count, 1);
    outr_resolved_done(&set);
}

static void labels_are_part_of_an_instance(void **state)
{
    outr_resolved set;
    outr_kv v1[] = {{OUTR_STR("version"), OUTR_STR("1")}, {OUTR_STR("zone"), OUTR_STR("a")}};
    outr_kv v1_again[] = {v1[1], v1[0]}, v2[] = {{OUTR_STR("version"), OUTR_STR("2")}, v1[1]};
    outr_kv many[OUTR_RESOLVED_LABELS + 5];
    outr_instance one = at("10.0.0.1:2");
    (void)state;
    outr_resolved_init(&set);
    one.labels = (outr_kvs){v1, 2};
    assert_true(outr_resolved_put(&set, &one, 1));
    one.labels = (outr_kvs){v1_again, 2};
    assert_false(outr_resolved_put(&set, &one, 1));
    one.labels = (outr_kvs){v2, 2};
    assert_true(outr_resolved_put(&set, &one, 1));
    v2[0].value = OUTR_STR("gone"); /* the set has copies */
    assert_true(outr_str_is(outr_instance_label(&set.instances[0], "version"), "2"));
    assert_null(outr_instance_label(&set.instances[0], "none").p);
    for (size_t i = 0; i < OUTR_LEN(many); i++)
        many[i] = (outr_kv){OUTR_STR("k"), OUTR_STR("v")};
    one.labels = (outr_kvs){many, OUTR_LEN(many)};
    assert_true(outr_resolved_put(&set, &one, 1));
    assert_int_equal(set.instances[0].labels.count, OUTR_RESOLVED_LABELS);
    assert_false(outr_resolved_put(&set, &one, 1));
    outr_resolved_done(&set);
}

static void a_flood_of_instances_is_cut(void **state)
{
    static outr_instance in[OUTR_RESOLVED_MAX + 100];
    outr_resolved set;
    (void)state;
    outr_resolved_init(&set);
    for (size_t i = 0; i < OUTR_LEN(in); i++) {
        in[i] = at("10.0.0.1:2");
        in[i].addr.port = (uint16_t)(i + 1);
    }
    assert_true(outr_resolved_put(&set, in, OUTR_LEN(in)));
    assert_int_equal(set.count, OUTR_RESOLVED_MAX);
    assert_false(outr_resolved_put(&set, in, OUTR_LEN(in)));
    outr_resolved_done(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_set_is_sorted_and_has_none_twice),
        cmocka_unit_test(watchers_are_told_of_changes_only),
        cmocka_unit_test(an_empty_registry_does_not_empty_the_mesh),
        cmocka_unit_test(labels_are_part_of_an_instance),
        cmocka_unit_test(a_flood_of_instances_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
