/* kind - one document of a kind, bound, and what was said about it. Behind cmocka.h. */
#ifndef OUTR_TESTS_KIND_H
#define OUTR_TESTS_KIND_H

#include "config/kinds/kinds.h"

typedef struct bench {
    outr_arena *arena;
    outr_err_list errors, warnings;
    outr_binder binder;
    outr_kind_env env;
} bench;

static OUTR_UNUSED outr_yaml *open_bench(bench *b, const char *text)
{
    outr_yaml_doc *doc;
    outr_err err;
    *b = (bench){.arena = outr_arena_new(4 * OUTR_MIB)};
    b->binder = (outr_binder){b->arena, "file.yaml", &b->errors, &b->warnings};
    b->env.binder = &b->binder;
    if (outr_yaml_parse(&doc, b->arena, "file.yaml", outr_str_from(text), 10000, &err))
        fail_msg("%s", err.text);
    return doc->root;
}

static OUTR_UNUSED void close_bench(bench *b)
{
    outr_err_list_done(&b->errors);
    outr_err_list_done(&b->warnings);
    outr_arena_free(b->arena);
}

static bool has(const outr_err_list *list, const char *text)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strstr(list->items[i].text, text))
            return true;
    }
    return false;
}

static OUTR_UNUSED void assert_told(const outr_err_list *list, const char *text)
{
    if (has(list, text))
        return;
    for (size_t i = 0; i < list->count; i++)
        print_message("  %s\n", list->items[i].text);
    fail_msg("nothing says \"%s\"", text);
}

static void assert_clean(const bench *b)
{
    if (b->errors.count)
        fail_msg("error: %s", b->errors.items[0].text);
    if (b->warnings.count)
        fail_msg("warning: %s", b->warnings.items[0].text);
}

#define assert_text(s, z)                                                                          \
    do {                                                                                           \
        outr_str got_ = (s);                                                                       \
        if (!outr_str_is(got_, z))                                                                 \
            fail_msg("\"" OUTR_FMT "\" is not \"%s\"", OUTR_ARG(got_), z);                         \
    } while (0)

#endif
