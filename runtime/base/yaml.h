/* yaml - a YAML stream as trees of nodes with their places (libyaml is fenced here).
 *
 * Scalars keep their text and whether they were quoted, so the binder decides the type. Anchors and
 * aliases are resolved with a cap on the expanded size; duplicate keys are an error with both
 * places. */
#ifndef OUTR_BASE_YAML_H
#define OUTR_BASE_YAML_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

typedef enum outr_yaml_kind {
    OUTR_YAML_SCALAR,
    OUTR_YAML_SEQUENCE,
    OUTR_YAML_MAPPING
} outr_yaml_kind;

typedef struct outr_yaml {
    outr_yaml_kind kind;
    bool is_quoted;
    int line, column; /* 1-based */
    outr_str text;    /* scalar */
    outr_str key;     /* when inside a mapping */
    int key_line, key_column;
    struct outr_yaml *child, *next;
    size_t count;
} outr_yaml;

typedef struct outr_yaml_doc {
    outr_yaml *root; /* NULL: an empty document */
    struct outr_yaml_doc *next;
} outr_yaml_doc;

/* All documents of text; syntax errors read "file:line:column: what". max_nodes bounds the sum. */
outr_code outr_yaml_parse(outr_yaml_doc **out, outr_arena *arena, const char *file, outr_str text,
                          size_t max_nodes, outr_err *err);
outr_yaml *outr_yaml_find(const outr_yaml *mapping, const char *key);
bool outr_yaml_is_null(const outr_yaml *node); /* NULL, empty unquoted, ~, null */
/* The node as JSON text (plain scalars typed by YAML 1.1 core rules as Go's yaml does). */
void outr_yaml_to_json(outr_buf *out, const outr_yaml *node);

#endif
