#include "config/binder.h"

static void complain(outr_binder *b, outr_err_list *list, const outr_yaml *at, const char *fmt,
                     va_list args)
{
    char text[256];
    vsnprintf(text, sizeof text, fmt, args);
    outr_err_list_add(list, OUTR_INVALID_ARGUMENT, "%s:%d:%d: %s", b->file, at ? at->line : 1,
                      at ? at->column : 1, text);
}

void outr_bind_error(outr_binder *b, const outr_yaml *at, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    complain(b, b->errors, at, fmt, args);
    va_end(args);
}

void outr_bind_warning(outr_binder *b, const outr_yaml *at, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    complain(b, b->warnings, at, fmt, args);
    va_end(args);
}

static outr_str value_text(outr_binder *b, const outr_yaml *node)
{
    if (node->kind == OUTR_YAML_SCALAR)
        return outr_yaml_is_null(node) ? OUTR_STR("") : node->text;
    OUTR_AUTO(outr_buf) json = OUTR_BUF_MAX(OUTR_MIB);
    outr_yaml_to_json(&json, node);
    return outr_arena_str(b->arena, outr_buf_view(&json));
}

static bool is_scalar(outr_binder *b, const outr_yaml *node, const char *path, const char *wanted)
{
    if (node->kind == OUTR_YAML_SCALAR)
        return true;
    outr_bind_error(b, node, "%s: must be %s", path, wanted);
    return false;
}

static void bind_bool(outr_binder *b, const outr_yaml *node, const char *path, bool *to)
{
    if (is_scalar(b, node, path, "true or false") && !outr_str_to_bool(node->text, to))
        outr_bind_error(b, node, "%s: must be true or false, not \"" OUTR_FMT "\"", path,
                        OUTR_ARG(node->text));
}

static void bind_int(outr_binder *b, const outr_yaml *node, const char *path, int64_t *to)
{
    if (is_scalar(b, node, path, "an integer") &&
        !outr_str_to_i64(node->text, INT64_MIN, INT64_MAX, to))
        outr_bind_error(b, node, "%s: must be an integer, not \"" OUTR_FMT "\"", path,
                        OUTR_ARG(node->text));
}

static void bind_number(outr_binder *b, const outr_yaml *node, const char *path, double *to)
{
    if (is_scalar(b, node, path, "a number") && !outr_str_to_double(node->text, to))
        outr_bind_error(b, node, "%s: must be a number, not \"" OUTR_FMT "\"", path,
                        OUTR_ARG(node->text));
}

bool outr_bind_is_mapping(outr_binder *b, const outr_yaml *node, const char *path)
{
    if (node->kind == OUTR_YAML_MAPPING)
        return true;
    outr_bind_error(b, node, "%s: must be a mapping", path);
    return false;
}

void outr_bind_duration(outr_binder *b, const outr_yaml *node, const char *path, uint64_t *to)
{
    int64_t ns, ms;
    if (!is_scalar(b, node, path, "a duration"))
        return;
    if (outr_str_to_i64(node->text, 0, INT64_MAX / (int64_t)OUTR_MS, &ms))
        *to = (uint64_t)ms * OUTR_MS;
    else if (outr_str_to_duration(node->text, &ns) && ns >= 0)
        *to = (uint64_t)ns;
    else
        outr_bind_error(b, node, "%s: must be a duration, not \"" OUTR_FMT "\"", path,
                        OUTR_ARG(node->text));
}

/* A pointer with its count behind it. */
typedef struct array {
    void *items;
    size_t count;
} array;

static void bind_texts(outr_binder *b, const outr_yaml *node, const char *path, array *to)
{
    if (node->kind != OUTR_YAML_SEQUENCE) {
        outr_bind_error(b, node, "%s: must be a list", path);
        return;
    }
    outr_str *items = outr_arena_alloc(b->arena, (node->count + 1) * sizeof *items);
    size_t n = 0;
    for (const outr_yaml *child = node->child; child; child = child->next)
        items[n++] = value_text(b, child);
    *to = (array){items, n};
}

static void bind_kvs(outr_binder *b, const outr_yaml *node, const char *path, outr_kvs *to)
{
    if (!outr_bind_is_mapping(b, node, path))
        return;
    outr_kv *items = outr_arena_alloc(b->arena, (node->count + 1) * sizeof *items);
    size_t n = 0;
    for (const outr_yaml *child = node->child; child; child = child->next)
        items[n++] = (outr_kv){child->key, value_text(b, child)};
    *to = (outr_kvs){items, n};
}

static void bind_elements(outr_binder *b, const outr_yaml_row *row, const outr_yaml *node,
                          const char *path, array *to)
{
    bool is_named = row->type == OUTR_YT_NAMED;
    if (node->kind != (is_named ? OUTR_YAML_MAPPING : OUTR_YAML_SEQUENCE)) {
        outr_bind_error(b, node, is_named ? "%s: must be a mapping" : "%s: must be a list", path);
        return;
    }
    char *items = outr_arena_alloc(b->arena, (node->count + 1) * row->size);
    size_t n = 0;
    for (const outr_yaml *child = node->child; child; child = child->next, n++) {
        char *item = items + n * row->size, where[256];
        if (is_named) {
            *(outr_str *)(void *)item = child->key;
            snprintf(where, sizeof where, "%.150s." OUTR_FMT, path,
                     OUTR_ARG(outr_str_head(child->key, 100)));
        } else {
            snprintf(where, sizeof where, "%.220s[%zu]", path, n);
        }
        if (row->line_offset) {
            int *place = (int *)(void *)(item + row->line_offset);
            place[0] = child->line;
            place[1] = child->column;
        }
        /* "retries: {often: }" is a policy of defaults */
        if (!is_named || !outr_yaml_is_null(child))
            outr_bind_yaml(b, row->rows, child, where, item);
    }
    *to = (array){items, n};
}

static void bind_member(outr_binder *b, const outr_yaml_row *row, const outr_yaml *node,
                        const char *path, void *out)
{
    void *to = (char *)out + row->offset;
    if (outr_yaml_is_null(node) && row->type != OUTR_YT_VALUE && row->type != OUTR_YT_TEXT)
        return;
    switch (row->type) {
    case OUTR_YT_TEXT:
        if (is_scalar(b, node, path, "a text"))
            *(outr_str *)to = value_text(b, node);
        break;
    case OUTR_YT_BOOL:
        bind_bool(b, node, path, to);
        break;
    case OUTR_YT_INT:
        bind_int(b, node, path, to);
        break;
    case OUTR_YT_NUMBER:
        bind_number(b, node, path, to);
        break;
    case OUTR_YT_DURATION:
        outr_bind_duration(b, node, path, to);
        break;
    case OUTR_YT_VALUE:
        *(outr_str *)to = value_text(b, node);
        break;
    case OUTR_YT_TEXTS:
        bind_texts(b, node, path, to);
        break;
    case OUTR_YT_KVS:
        bind_kvs(b, node, path, to);
        break;
    case OUTR_YT_GROUP:
        outr_bind_yaml(b, row->rows, node, path, to);
        break;
    case OUTR_YT_LIST:
    case OUTR_YT_NAMED:
        bind_elements(b, row, node, path, to);
        break;
    case OUTR_YT_MARK:
        *(bool *)to = true;
        break;
    case OUTR_YT_SKIP:
        break;
    }
}

void outr_bind_yaml(outr_binder *b, const outr_yaml_row *rows, const outr_yaml *node,
                    const char *path, void *out)
{
    char where[256];
    if (!outr_bind_is_mapping(b, node, path))
        return;
    for (const outr_yaml *m = node->child; m; m = m->next) {
        const outr_yaml_row *row = rows;
        while (row->key && !outr_str_is(m->key, row->key))
            row++;
        snprintf(where, sizeof where, "%s%s" OUTR_FMT, path, path[0] ? "." : "", OUTR_ARG(m->key));
        if (row->key)
            bind_member(b, row, m, where, out);
        else
            outr_bind_warning(b, m, "%s: unknown field", where);
    }
    for (const outr_yaml_row *row = rows; row->key; row++) {
        const outr_yaml *m = outr_yaml_find(node, row->key);
        if ((row->flags & OUTR_YT_REQUIRED) && outr_yaml_is_null(m))
            outr_bind_error(b, m ? m : node, "%s%s%s: required", path, path[0] ? "." : "",
                            row->key);
    }
}
