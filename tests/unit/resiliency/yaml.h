/* yaml - a snapshot that has Resiliency resources given as text. */
#ifndef OUTR_TESTS_RESILIENCY_YAML_H
#define OUTR_TESTS_RESILIENCY_YAML_H

#include "config/kinds/kinds.h"
#include "config/snapshot.h"

/* texts: documents, NULL at the end; the first is named "r0", the next "r1". */
static outr_snapshot *yaml_snapshot(const char *const *texts)
{
    outr_arena *arena = outr_arena_new(4 * OUTR_MIB);
    outr_snapshot *s = outr_snapshot_new(arena);
    outr_resiliency_spec *specs = outr_arena_alloc(arena, 8 * sizeof *specs);
    outr_err_list errors = {0}, warnings = {0};
    outr_binder binder = {arena, "file.yaml", &errors, &warnings};
    outr_kind_env env = {.binder = &binder};
    s->resiliencies = specs;
    for (; texts[s->resiliency_count]; s->resiliency_count++) {
        size_t i = s->resiliency_count;
        outr_yaml_doc *doc;
        outr_err err;
        if (outr_yaml_parse(&doc, arena, "file.yaml", outr_str_from(texts[i]), 10000, &err))
            fail_msg("%s", err.text);
        outr_kind_resiliency(&env, doc->root, &specs[i]);
        specs[i].base.name = outr_arena_printf(arena, "r%zu", i);
    }
    if (errors.count)
        fail_msg("%s", errors.items[0].text);
    outr_err_list_done(&errors);
    outr_err_list_done(&warnings);
    return s;
}

static inline outr_snapshot *yaml_one(const char *text)
{
    return yaml_snapshot((const char *const[]){text, NULL});
}

#endif
