#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/yaml.h"

#define NODES 1000

static outr_arena *arena;
static outr_err err;

static int open_arena(void **state)
{
    (void)state;
    arena = outr_arena_new(4 * OUTR_MIB);
    return 0;
}

static int close_arena(void **state)
{
    (void)state;
    outr_arena_free(arena);
    return 0;
}

static outr_yaml_doc *parse(const char *text)
{
    outr_yaml_doc *docs;
    return outr_yaml_parse(&docs, arena, "f.yaml", outr_str_from(text), NODES, &err) ? NULL : docs;
}

static void many_documents_empty_ones_among_them(void **state)
{
    outr_yaml_doc *d = parse("a: 1\n---\n---\nb: 2\n...\n---\n# only this\n");
    int full = 0;
    (void)state;
    assert_non_null(d);
    for (; d; d = d->next)
        full += d->root && d->root->kind == OUTR_YAML_MAPPING;
    assert_int_equal(full, 2);
}

static void every_node_knows_its_place(void **state)
{
    outr_yaml_doc *d = parse("a: 1\nlist:\n  - x\n  - \"y\"\n");
    (void)state;
    assert_non_null(d);
    outr_yaml *list = outr_yaml_find(d->root, "list");
    assert_int_equal(list->key_line, 2);
    assert_int_equal(list->count, 2);
    assert_int_equal(list->child->line, 3);
    assert_int_equal(list->child->column, 5);
    assert_false(list->child->is_quoted);
    assert_true(list->child->next->is_quoted);
}

static void mistakes_name_file_line_and_column(void **state)
{
    static const char *const bad[] = {"a: [1\nb: 2\n", "a: 1\n b: 2\n", "\ta: 1\n",
                                      "a: *nowhere\n", "a: 'x\n",       "{a: 1"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        assert_null(parse(bad[i]));
        if (strncmp(err.text, "f.yaml:", 7) != 0 || err.text[7] < '1' || err.text[7] > '9')
            fail_msg("%s: %s", bad[i], err.text);
    }
}

static void a_key_twice_is_a_mistake_with_both_places(void **state)
{
    (void)state;
    assert_null(parse("a: 1\nb: 2\na: 3\n"));
    assert_non_null(strstr(err.text, "f.yaml:3:"));
    assert_non_null(strstr(err.text, "1"));
}

static void aliases_stand_for_their_anchor_within_the_limit(void **state)
{
    outr_yaml_doc *d = parse("a: &x {k: v}\nb: *x\n");
    (void)state;
    assert_non_null(d);
    assert_true(outr_str_is(outr_yaml_find(outr_yaml_find(d->root, "b"), "k")->text, "v"));
    assert_null(parse("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                      "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"));
    assert_null(parse("a: &a [*a]\n"));
}

static void depth_has_an_end(void **state)
{
    char text[20001];
    (void)state;
    memset(text, '[', 20000);
    text[20000] = 0;
    assert_null(parse(text));
    /* Nor do aliases of aliases go deeper. */
    assert_null(parse("a: &a [[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]\n"
                      "b: &b [[[[[[[[[[[[[[[[[[[[[[*a]]]]]]]]]]]]]]]]]]]]]]\n"
                      "c: [[[[[[[[[[[[[[[[[[[[[[[*b]]]]]]]]]]]]]]]]]]]]]]]\n"));
    assert_non_null(strstr(err.text, "f.yaml:3:"));
    assert_non_null(parse("a: &a [[[[[1]]]]]\nb: &b [*a]\nc: [*a, *b, *b]\n"));
}

/* What JSON has no form for stays text. */
static void numbers_of_yaml_only_are_texts_in_json(void **state)
{
    static const char *const texts[] = {".5",  "-.5", "1.",    "1.e5", "+1", "0x1f", "0o17",
                                        "012", "1_0", "-.inf", ".nan", "1e", "1e+",  "1.5.1"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_KIB), expected = OUTR_BUF_MAX(OUTR_KIB);
        outr_yaml_doc *d = parse(texts[i]);
        assert_non_null(d);
        outr_yaml_to_json(&out, d->root);
        outr_buf_printf(&expected, "\"%s\"", texts[i]);
        if (!outr_str_eq(outr_buf_view(&out), outr_buf_view(&expected)))
            fail_msg("%s became " OUTR_FMT, texts[i], OUTR_ARG(outr_buf_view(&out)));
    }
}

static void plain_scalars_are_typed_as_json(void **state)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_KIB);
    outr_yaml_doc *d = parse("[1, -2.5, true, null, ~, yes, \"1\", text, 0x10, '']");
    (void)state;
    assert_non_null(d);
    outr_yaml_to_json(&out, d->root);
    outr_buf_char(&out, 0);
    assert_non_null(strstr(out.p, "[1,-2.5,true,null,null,"));
    assert_non_null(strstr(out.p, "\"1\",\"text\","));
    assert_true(outr_yaml_is_null(NULL));
}

#define WITH_ARENA(f) cmocka_unit_test_setup_teardown(f, open_arena, close_arena)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ARENA(many_documents_empty_ones_among_them),
        WITH_ARENA(every_node_knows_its_place),
        WITH_ARENA(mistakes_name_file_line_and_column),
        WITH_ARENA(a_key_twice_is_a_mistake_with_both_places),
        WITH_ARENA(aliases_stand_for_their_anchor_within_the_limit),
        WITH_ARENA(depth_has_an_end),
        WITH_ARENA(plain_scalars_are_typed_as_json),
        WITH_ARENA(numbers_of_yaml_only_are_texts_in_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
