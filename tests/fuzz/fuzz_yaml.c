/* Any bytes as a YAML stream. Limits of nodes and depth hold, aliases expanded or not; the JSON of a
 * document is JSON, and reads as YAML to the same JSON. */
#include "base/json.h"
#include "base/yaml.h"
#include "tests/fuzz/property.h"

#define NODES_MAX 5000
#define DEPTH_MAX 64
#define TEXT_MAX  (64 * OUTR_MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t check_tree(const outr_yaml *node, int depth)
{
    size_t count = 0, nodes = 1;
    PROPERTY(depth <= DEPTH_MAX);
    PROPERTY(node->line >= 1 && node->column >= 1);
    for (const outr_yaml *child = node->child; child; child = child->next, count++) {
        nodes += check_tree(child, depth + 1);
        if (node->kind != OUTR_YAML_MAPPING)
            continue;
        for (const outr_yaml *later = child->next; count < 20 && later; later = later->next)
            PROPERTY(!outr_str_eq(child->key, later->key));
    }
    PROPERTY(count == node->count);
    PROPERTY(count == 0 || node->kind != OUTR_YAML_SCALAR);
    return nodes;
}

static void check_json(const outr_yaml *root)
{
    OUTR_AUTO(outr_buf) json = OUTR_BUF_MAX(TEXT_MAX), again = OUTR_BUF_MAX(TEXT_MAX);
    outr_arena *arena = outr_arena_new(TEXT_MAX);
    outr_json *value;
    outr_yaml_doc *docs;
    outr_err err;
    outr_yaml_to_json(&json, root);
    PROPERTY(outr_json_parse(&value, arena, outr_buf_view(&json), &err) == OUTR_OK);
    /* YAML takes no DEL, no key over a kibibyte, no indicator where JSON has none: not all of it. */
    if (outr_yaml_parse(&docs, arena, "json", outr_buf_view(&json), NODES_MAX, &err) == OUTR_OK) {
        PROPERTY(docs && docs->root && !docs->next);
        outr_yaml_to_json(&again, docs->root);
        PROPERTY(outr_str_eq(outr_buf_view(&json), outr_buf_view(&again)));
    }
    outr_arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_arena *arena = outr_arena_new(4 * OUTR_MIB);
    outr_yaml_doc *docs = NULL;
    outr_err err = {0};
    size_t nodes = 0;
    outr_code rc = outr_yaml_parse(&docs, arena, "f", outr_str_of(data, size), NODES_MAX, &err);
    if (rc) {
        PROPERTY(docs == NULL && err.code == rc);
        PROPERTY(strncmp(err.text, "f:", 2) == 0 && err.text[2] >= '1' && err.text[2] <= '9');
    }
    for (const outr_yaml_doc *doc = docs; doc; doc = doc->next) {
        if (!doc->root)
            continue;
        nodes += check_tree(doc->root, 0);
        check_json(doc->root);
    }
    PROPERTY(nodes <= NODES_MAX);
    outr_arena_free(arena);
    return 0;
}
