/* json - reading and writing JSON (RFC 8259) on an arena.
 *
 * Own code rather than a library because answers must equal Go's encoding/json byte for byte:
 * numbers keep their text, object keys can be written sorted, < > & as \u003c \u003e \u0026; and
 * because a
 * document must cost one arena, not an allocation per node. Depth is capped (OUTR_JSON_DEPTH_MAX).
 */
#ifndef OUTR_BASE_JSON_H
#define OUTR_BASE_JSON_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/map.h"
#include "base/str.h"

#define OUTR_JSON_DEPTH_MAX 512

typedef enum outr_json_kind {
    OUTR_JSON_NULL,
    OUTR_JSON_BOOL,
    OUTR_JSON_NUMBER,
    OUTR_JSON_STRING,
    OUTR_JSON_ARRAY,
    OUTR_JSON_OBJECT,
} outr_json_kind;

typedef struct outr_json {
    outr_json_kind kind;
    bool boolean;
    outr_str text;           /* STRING: decoded; NUMBER: as written */
    outr_str key;            /* decoded name when inside an object */
    outr_str raw;            /* the bytes of this value in the input */
    struct outr_json *child; /* first item */
    struct outr_json *next;  /* sibling */
    size_t count;            /* items */
} outr_json;

/* What a tree may take of an arena for each byte of its text: the densest, a list of digits, has an
 * item for two of them. */
#define OUTR_JSON_TREE (sizeof(outr_json) / 2)

/* Parses the whole text; trailing bytes other than white space are an error. Text must outlive the
 * tree. Errors say the byte offset. Duplicate keys: all are kept, find gives the last, as Go does.
 */
outr_code outr_json_parse(outr_json **out, outr_arena *arena, outr_str text, outr_err *err);
outr_json *outr_json_find(const outr_json *object, const char *key); /* NULL: absent */
outr_json *outr_json_ifind(const outr_json *object,
                           const char *key); /* ASCII case ignored, exact first */
outr_str outr_json_text(const outr_json *object, const char *key); /* string member or NONE */
outr_str outr_json_itext(const outr_json *object, const char *key); /* the same of ifind's member */
bool outr_json_ibool(const outr_json *object, const char *key, bool otherwise);
bool outr_json_i64(const outr_json *value, int64_t *out);

typedef enum outr_json_style {
    OUTR_JSON_PLAIN = 0,
    OUTR_JSON_SORTED = 1,  /* object keys in byte order, last duplicate wins */
    OUTR_JSON_FLOAT64 = 2, /* numbers through float64, printed as Go's encoding/json prints them */
} outr_json_style;
void outr_json_write(outr_buf *out, const outr_json *value,
                     unsigned style);               /* Go's HTML escaping always */
void outr_json_quote(outr_buf *out, outr_str text); /* with quotes; invalid UTF-8 becomes \ufffd */
void outr_json_quote_kvs(outr_buf *out, outr_kvs kvs); /* an object of strings, in their order */
/* Building a tree to write. */
outr_json *outr_json_new(outr_arena *arena, outr_json_kind kind);
outr_json *outr_json_string(outr_arena *arena, outr_str text); /* text is borrowed */
outr_json *outr_json_number(outr_arena *arena, int64_t value);
void outr_json_put(outr_json *object, outr_str key,
                   outr_json *value); /* replaces; key is borrowed */
void outr_json_push(outr_json *array, outr_json *value);

#endif
