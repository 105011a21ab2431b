/* binder - fills a struct from a YAML mapping by a table of rows. Every mistake is collected with
 * its
 * file:line:column; unknown members are warnings. */
#ifndef OUTR_CONFIG_BINDER_H
#define OUTR_CONFIG_BINDER_H

#include "base/arena.h"
#include "base/err.h"
#include "base/map.h"
#include "base/yaml.h"

typedef enum outr_yaml_type {
    OUTR_YT_TEXT,     /* outr_str: a scalar as written */
    OUTR_YT_BOOL,     /* bool */
    OUTR_YT_INT,      /* int64_t */
    OUTR_YT_NUMBER,   /* double */
    OUTR_YT_DURATION, /* uint64_t ns; a plain number means milliseconds */
    OUTR_YT_VALUE,    /* outr_str: scalar text, or JSON text of anything else */
    OUTR_YT_TEXTS,    /* const outr_str * and size_t right behind it */
    OUTR_YT_KVS,      /* outr_kvs: values as VALUE */
    OUTR_YT_GROUP,    /* nested mapping into the same struct, with rows */
    OUTR_YT_LIST,     /* sequence of mappings: pointer and size_t right behind it */
    OUTR_YT_NAMED,    /* mapping of mappings: as LIST, the name goes to the outr_str at offset 0 */
    OUTR_YT_MARK,     /* bool: whether it is there at all */
    OUTR_YT_SKIP,     /* known, not looked at */
} outr_yaml_type;

enum { OUTR_YT_REQUIRED = 1 };

typedef struct outr_yaml_row {
    const char *key;
    outr_yaml_type type;
    size_t offset;
    unsigned flags;
    const struct outr_yaml_row *rows; /* GROUP, LIST, NAMED; ends with key NULL */
    size_t size;                      /* of one element: LIST, NAMED */
    ptrdiff_t line_offset;            /* LIST: int pair line, column in the element; 0: none */
} outr_yaml_row;

typedef struct outr_binder {
    outr_arena *arena;
    const char *file;
    outr_err_list *errors, *warnings;
} outr_binder;

/* path is the name of node in messages ("spec"). */
void outr_bind_yaml(outr_binder *b, const outr_yaml_row *rows, const outr_yaml *node,
                    const char *path, void *out);
/* Pieces of it, for what no row can say. False, and a mistake: the node is not of that shape. */
bool outr_bind_is_mapping(outr_binder *b, const outr_yaml *node, const char *path);
void outr_bind_duration(outr_binder *b, const outr_yaml *node, const char *path, uint64_t *to);
void outr_bind_error(outr_binder *b, const outr_yaml *at, const char *fmt, ...) OUTR_PRINTF(3, 4);
void outr_bind_warning(outr_binder *b, const outr_yaml *at, const char *fmt, ...) OUTR_PRINTF(3, 4);

#endif
