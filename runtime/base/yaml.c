#include "base/yaml.h"

#include <yaml.h>

#include "base/json.h"

#define DEPTH_MAX 64

typedef struct anchor {
    outr_str name;
    const outr_yaml *node;
    struct anchor *next;
} anchor;

typedef struct loader {
    yaml_parser_t parser;
    outr_arena *arena;
    const char *file;
    size_t nodes, max_nodes;
    int depth;
    anchor *anchors;
    outr_err *err;
} loader;

static outr_code fail_at(loader *l, yaml_mark_t mark, const char *what)
{
    return outr_fail(l->err, OUTR_INVALID_ARGUMENT, "%s:%zu:%zu: %s", l->file, mark.line + 1,
                     mark.column + 1, what);
}

static outr_code next_event(loader *l, yaml_event_t *event)
{
    if (yaml_parser_parse(&l->parser, event))
        return OUTR_OK;
    const yaml_parser_t *p = &l->parser;
    yaml_mark_t mark =
        p->problem_mark.line || p->problem_mark.column ? p->problem_mark : p->context_mark;
    return fail_at(l, mark, p->problem ? p->problem : "malformed YAML");
}

static outr_yaml *new_node(loader *l, outr_yaml_kind kind, yaml_mark_t mark)
{
    if (++l->nodes > l->max_nodes)
        return NULL;
    outr_yaml *node = outr_arena_try(l->arena, sizeof *node);
    if (!node)
        return NULL;
    node->kind = kind;
    node->line = (int)mark.line + 1;
    node->column = (int)mark.column + 1;
    return node;
}

static void remember(loader *l, const yaml_char_t *name, const outr_yaml *node)
{
    if (!name)
        return;
    anchor *a = outr_arena_alloc(l->arena, sizeof *a);
    *a = (anchor){outr_arena_str(l->arena, outr_str_from((const char *)name)), node, l->anchors};
    l->anchors = a;
}

/* An alias is a copy, so that every node has one parent; the limits of nodes and depth bound the
 * expansion. */
static outr_yaml *copy_node(loader *l, const outr_yaml *from, yaml_mark_t mark)
{
    outr_yaml *node = new_node(l, from->kind, mark), **tail;
    if (!node || (from->kind != OUTR_YAML_SCALAR && ++l->depth > DEPTH_MAX))
        return NULL;
    *node = *from;
    node->next = node->child = NULL;
    tail = &node->child;
    for (const outr_yaml *child = from->child; child; child = child->next) {
        *tail = copy_node(l, child, mark);
        if (!*tail)
            return NULL;
        tail = &(*tail)->next;
    }
    l->depth -= from->kind != OUTR_YAML_SCALAR;
    return node;
}

static outr_code read_node(loader *l, yaml_event_t *event, outr_yaml **out);

static outr_code too_many(loader *l, yaml_mark_t mark)
{
    return fail_at(l, mark, "the document is too large");
}

static outr_code read_alias(loader *l, const yaml_event_t *event, outr_yaml **out)
{
    for (const anchor *a = l->anchors; a; a = a->next) {
        if (!outr_str_is(a->name, (const char *)event->data.alias.anchor))
            continue;
        *out = copy_node(l, a->node, event->start_mark);
        return *out ? OUTR_OK : too_many(l, event->start_mark);
    }
    return fail_at(l, event->start_mark, "alias of an anchor that is not there");
}

/* The name of a mapping's next member, its event being given. */
static outr_code read_key(loader *l, const yaml_event_t *event, const outr_yaml *mapping,
                          outr_str *key)
{
    if (event->type != YAML_SCALAR_EVENT)
        return fail_at(l, event->start_mark, "a member name is expected");
    *key =
        outr_arena_str(l->arena, outr_str_of(event->data.scalar.value, event->data.scalar.length));
    for (const outr_yaml *m = mapping->child; m; m = m->next) {
        if (outr_str_eq(m->key, *key)) {
            char what[160];
            snprintf(what, sizeof what, "\"%.64s\" is given twice, first at line %d", key->p,
                     m->key_line);
            return fail_at(l, event->start_mark, what);
        }
    }
    return OUTR_OK;
}

static outr_code read_children(loader *l, outr_yaml *parent, yaml_event_type_t end)
{
    outr_yaml **tail = &parent->child;
    for (;;) {
        yaml_event_t event;
        outr_str key = OUTR_STR_NONE;
        outr_code rc = next_event(l, &event);
        if (rc)
            return rc;
        if (event.type == end) {
            yaml_event_delete(&event);
            return OUTR_OK;
        }
        yaml_mark_t mark = event.start_mark;
        if (parent->kind == OUTR_YAML_MAPPING) {
            rc = read_key(l, &event, parent, &key);
            yaml_event_delete(&event);
            if (!rc)
                rc = next_event(l, &event);
            if (rc)
                return rc;
        }
        outr_yaml *child = NULL;
        rc = read_node(l, &event, &child);
        yaml_event_delete(&event);
        if (rc)
            return rc;
        child->key = key;
        child->key_line = (int)mark.line + 1;
        child->key_column = (int)mark.column + 1;
        *tail = child;
        tail = &child->next;
        parent->count++;
    }
}

static outr_code read_collection(loader *l, const yaml_event_t *event, outr_yaml **out)
{
    bool is_mapping = event->type == YAML_MAPPING_START_EVENT;
    outr_yaml *node =
        new_node(l, is_mapping ? OUTR_YAML_MAPPING : OUTR_YAML_SEQUENCE, event->start_mark);
    if (!node || ++l->depth > DEPTH_MAX)
        return too_many(l, event->start_mark);
    outr_code rc =
        read_children(l, node, is_mapping ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT);
    if (rc)
        return rc;
    l->depth--;
    remember(l, is_mapping ? event->data.mapping_start.anchor : event->data.sequence_start.anchor,
             node);
    *out = node;
    return OUTR_OK;
}

static outr_code read_node(loader *l, yaml_event_t *event, outr_yaml **out)
{
    outr_yaml *node;
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return read_alias(l, event, out);
    case YAML_SCALAR_EVENT:
        node = new_node(l, OUTR_YAML_SCALAR, event->start_mark);
        if (!node)
            return too_many(l, event->start_mark);
        node->text = outr_arena_str(
            l->arena, outr_str_of(event->data.scalar.value, event->data.scalar.length));
        node->is_quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        remember(l, event->data.scalar.anchor, node);
        *out = node;
        return OUTR_OK;
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return read_collection(l, event, out);
    default:
        return fail_at(l, event->start_mark, "a value is expected");
    }
}

static outr_code read_stream(loader *l, outr_yaml_doc **tail)
{
    for (;;) {
        yaml_event_t event;
        outr_code rc = next_event(l, &event);
        if (rc)
            return rc;
        yaml_event_type_t type = event.type;
        if (type == YAML_STREAM_END_EVENT || type == YAML_NO_EVENT) {
            yaml_event_delete(&event);
            return OUTR_OK;
        }
        if (type == YAML_STREAM_START_EVENT || type == YAML_DOCUMENT_END_EVENT) {
            yaml_event_delete(&event);
            continue;
        }
        if (type == YAML_DOCUMENT_START_EVENT) {
            *tail = outr_arena_alloc(l->arena, sizeof **tail);
            l->anchors = NULL;
        } else {
            rc = read_node(l, &event, &(*tail)->root);
            tail = &(*tail)->next;
        }
        yaml_event_delete(&event);
        if (rc)
            return rc;
    }
}

outr_code outr_yaml_parse(outr_yaml_doc **out, outr_arena *arena, const char *file, outr_str text,
                          size_t max_nodes, outr_err *err)
{
    loader l = {.arena = arena, .file = file, .max_nodes = max_nodes, .err = err};
    outr_yaml_doc *docs = NULL;
    if (!yaml_parser_initialize(&l.parser))
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "%s: out of memory", file);
    yaml_parser_set_input_string(&l.parser, (const unsigned char *)text.p, text.n);
    outr_code rc = read_stream(&l, &docs);
    yaml_parser_delete(&l.parser);
    if (!rc)
        *out = docs;
    return rc;
}

outr_yaml *outr_yaml_find(const outr_yaml *mapping, const char *key)
{
    if (!mapping || mapping->kind != OUTR_YAML_MAPPING)
        return NULL;
    for (outr_yaml *m = mapping->child; m; m = m->next) {
        if (outr_str_is(m->key, key))
            return m;
    }
    return NULL;
}

bool outr_yaml_is_null(const outr_yaml *node)
{
    if (!node)
        return true;
    if (node->kind != OUTR_YAML_SCALAR || node->is_quoted)
        return false;
    return node->text.n == 0 || outr_str_is(node->text, "~") || outr_str_iis(node->text, "null");
}

static size_t digits(outr_str text, size_t at)
{
    size_t from = at;
    while (at < text.n && text.p[at] >= '0' && text.p[at] <= '9')
        at++;
    return at - from;
}

/* RFC 8259 section 6; YAML knows more forms. */
static bool is_json_number(outr_str text)
{
    size_t at = text.n > 0 && text.p[0] == '-', n = digits(text, at);
    double value;
    if (n == 0 || (n > 1 && text.p[at] == '0') || !outr_str_to_double(text, &value))
        return false;
    at += n;
    if (at < text.n && text.p[at] == '.') {
        if ((n = digits(text, ++at)) == 0)
            return false;
        at += n;
    }
    if (at < text.n && (text.p[at] | 0x20) == 'e') {
        at++;
        at += at < text.n && (text.p[at] == '+' || text.p[at] == '-');
        if ((n = digits(text, at)) == 0)
            return false;
        at += n;
    }
    return at == text.n;
}

static void scalar_to_json(outr_buf *out, const outr_yaml *node)
{
    static const char *const words[][2] = {{"true", "true"},   {"True", "true"},
                                           {"TRUE", "true"},   {"false", "false"},
                                           {"False", "false"}, {"FALSE", "false"}};
    if (outr_yaml_is_null(node)) {
        outr_buf_z(out, "null");
        return;
    }
    for (size_t i = 0; !node->is_quoted && i < OUTR_LEN(words); i++) {
        if (outr_str_is(node->text, words[i][0])) {
            outr_buf_z(out, words[i][1]);
            return;
        }
    }
    if (!node->is_quoted && is_json_number(node->text))
        outr_buf_str(out, node->text);
    else
        outr_json_quote(out, node->text);
}

void outr_yaml_to_json(outr_buf *out, const outr_yaml *node)
{
    if (node->kind == OUTR_YAML_SCALAR) {
        scalar_to_json(out, node);
        return;
    }
    bool is_mapping = node->kind == OUTR_YAML_MAPPING;
    outr_buf_char(out, is_mapping ? '{' : '[');
    for (const outr_yaml *child = node->child; child; child = child->next) {
        if (is_mapping) {
            outr_json_quote(out, child->key);
            outr_buf_char(out, ':');
        }
        outr_yaml_to_json(out, child);
        if (child->next)
            outr_buf_char(out, ',');
    }
    outr_buf_char(out, is_mapping ? '}' : ']');
}
