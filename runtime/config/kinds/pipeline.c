#include "config/kinds/kinds.h"

#define H(field) offsetof(outr_pipeline_handler, field)

static const outr_yaml_row selector[] = {{"fields", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, {0}};
static const outr_yaml_row handler[] = {
    {"name", OUTR_YT_TEXT, H(name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"type", OUTR_YT_TEXT, H(type), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"version", OUTR_YT_TEXT, H(version), 0, NULL, 0, 0},
    {"selector", OUTR_YT_GROUP, 0, 0, selector, 0, 0}, /* accepted, not acted on: as in Dapr */
    {0},
};
static const outr_yaml_row rows[] = {
    {"handlers", OUTR_YT_LIST, offsetof(outr_pipeline, handlers), 0, handler,
     sizeof(outr_pipeline_handler), H(line)},
    {0},
};

void outr_kind_pipeline(outr_binder *binder, const outr_yaml *node, const char *path,
                        outr_pipeline *out)
{
    outr_binder strict = *binder;
    strict.warnings = binder->errors;
    outr_bind_yaml(&strict, rows, node, path, out);
    for (size_t i = 0; i < out->count; i++) {
        outr_pipeline_handler *h = (outr_pipeline_handler *)&out->handlers[i];
        const outr_yaml place = {.line = h->line, .column = h->column};
        if (h->type.n > 0 && !outr_str_istarts(h->type, OUTR_STR("middleware.http.")))
            outr_bind_error(&strict, &place,
                            "%s.handlers[%zu].type: must be a middleware.http type, not \"" OUTR_FMT
                            "\"",
                            path, i, OUTR_ARG(outr_str_head(h->type, 64)));
        if (h->version.n == 0)
            h->version = OUTR_STR("v1");
        h->file = outr_arena_str(strict.arena, outr_str_from(strict.file));
    }
}
