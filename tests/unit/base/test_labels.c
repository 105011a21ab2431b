#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/labels.h"

static const char *text_of(outr_kvs labels)
{
    static char text[OUTR_LABELS_TEXT_MAX + 1];
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_LABELS_TEXT_MAX);
    outr_labels_write(&out, labels);
    snprintf(text, sizeof text, OUTR_FMT, OUTR_ARG(outr_buf_view(&out)));
    return text;
}

static void equal_sets_have_equal_texts(void **state)
{
    static const char *const rows[][2] = {
        {"", ""},
        {"  ", ""},
        {"version=2,zone=a", "version=2,zone=a"},
        {" zone = a , version=2 ", "version=2,zone=a"},
        {"a.b-c_D=x/y:z@1+2", "a.b-c_D=x/y:z@1+2"},
    };
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_kvs labels;
        assert_int_equal(outr_labels_parse(&labels, arena, outr_str_from(rows[i][0]), NULL),
                         OUTR_OK);
        assert_string_equal(text_of(labels), rows[i][1]);
    }
    outr_arena_free(arena);
}

static void what_is_no_label_is_named(void **state)
{
    static const char *const rows[][2] = {
        {"zone", "\"zone\" is no label"},
        {"a=1,", "\"\" is no label"},
        {"=a", "\"\" cannot be a label's name"},
        {"a b=1", "\"a b\" cannot be a label's name"},
        {"a=", "label a: \"\" cannot be its value"},
        {"a=1 2", "label a: \"1 2\" cannot be its value"},
        {"a=1;b=2", "label a: \"1;b=2\" cannot be its value"},
        {"a=1,b=2,a=3", "label a is there twice"},
        {"a=1,b=2,c=3,d=4,e=5,f=6,g=7,h=8,i=9,j=10,k=11,l=12,m=13,n=14,o=15,p=16,q=17",
         "more than 16 labels"},
        {"a=0123456789012345678901234567890123456789012345678901234567890123", "label a: "},
    };
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_kvs labels = {NULL, 77};
        outr_err err;
        assert_int_equal(outr_labels_parse(&labels, arena, outr_str_from(rows[i][0]), &err),
                         OUTR_INVALID_ARGUMENT);
        assert_int_equal(labels.count, 77);
        if (strncmp(err.text, rows[i][1], strlen(rows[i][1])) != 0)
            fail_msg("%s: %s", rows[i][0], err.text);
    }
    outr_arena_free(arena);
}

static void what_others_say_is_sifted(void **state)
{
    const outr_kv any[] = {
        {OUTR_STR("zone"), OUTR_STR("a")}, {OUTR_STR("no good"), OUTR_STR("a")},
        {OUTR_STR("a"), OUTR_STR("x\0y")}, {OUTR_STR("b"), OUTR_STR("line\nline")},
        {OUTR_STR("zone"), OUTR_STR("b")}, {OUTR_STR("env"), OUTR_STR("test")}};
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    (void)state;
    assert_string_equal(text_of(outr_labels_of(arena, (outr_kvs){any, OUTR_LEN(any)})),
                        "env=test,zone=a");
    outr_arena_free(arena);
}

static void a_set_covers_its_parts(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_kvs all, part, other;
    (void)state;
    outr_labels_parse(&all, arena, OUTR_STR("a=1,b=2"), NULL);
    outr_labels_parse(&part, arena, OUTR_STR("b=2"), NULL);
    outr_labels_parse(&other, arena, OUTR_STR("b=1"), NULL);
    assert_true(outr_labels_cover(all, all));
    assert_true(outr_labels_cover(all, part));
    assert_true(outr_labels_cover(part, (outr_kvs){0}));
    assert_false(outr_labels_cover(part, all));
    assert_false(outr_labels_cover(all, other));
    outr_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_sets_have_equal_texts),
        cmocka_unit_test(what_is_no_label_is_named),
        cmocka_unit_test(what_others_say_is_sifted),
        cmocka_unit_test(a_set_covers_its_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
