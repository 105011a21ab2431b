/* Any bytes as JSON text, and as text to be quoted. What was read and written reads the same again,
 * in every style; no tree exceeds its arena; no part lies outside of the input. */
#include "base/json.h"
#include "tests/fuzz/property.h"

#define ARENA_MAX (OUTR_MIB)
#define TEXT_MAX  (16 * OUTR_MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lies_in(outr_str part, outr_str whole)
{
    return part.p >= whole.p && part.p + part.n <= whole.p + whole.n;
}

static void check_tree(const outr_json *value, outr_str text, int depth)
{
    size_t count = 0;
    PROPERTY(depth <= OUTR_JSON_DEPTH_MAX);
    PROPERTY(lies_in(value->raw, text) && value->raw.n > 0);
    for (const outr_json *item = value->child; item; item = item->next, count++) {
        check_tree(item, value->raw, depth + 1);
        if (value->kind != OUTR_JSON_OBJECT)
            continue;
        PROPERTY(item->key.p != NULL);
    }
    PROPERTY(count == value->count);
    PROPERTY(count == 0 || value->kind == OUTR_JSON_ARRAY || value->kind == OUTR_JSON_OBJECT);
}

static void check_is_sorted(const outr_json *value)
{
    for (const outr_json *m = value->child; m; m = m->next) {
        if (value->kind == OUTR_JSON_OBJECT && m->next)
            PROPERTY(outr_str_cmp(m->key, m->next->key) < 0);
        check_is_sorted(m);
    }
}

/* Numbers of both trees, which have one shape, are the same float64. */
static void check_numbers(const outr_json *a, const outr_json *b)
{
    double x, y;
    PROPERTY(a->kind == b->kind && a->count == b->count);
    if (a->kind == OUTR_JSON_NUMBER && outr_str_to_double(a->text, &x))
        PROPERTY(outr_str_to_double(b->text, &y) && (x == y || (x != x && y != y)));
    for (a = a->child, b = b->child; a && b; a = a->next, b = b->next)
        check_numbers(a, b);
}

static void check_style(const outr_json *root, unsigned style)
{
    OUTR_AUTO(outr_buf) first = OUTR_BUF_MAX(TEXT_MAX), second = OUTR_BUF_MAX(TEXT_MAX);
    outr_arena *arena = outr_arena_new(TEXT_MAX);
    outr_json *again;
    outr_err err;
    outr_json_write(&first, root, style);
    PROPERTY(!first.is_full && outr_str_is_utf8(outr_buf_view(&first)));
    PROPERTY(outr_json_parse(&again, arena, outr_buf_view(&first), &err) == OUTR_OK);
    outr_json_write(&second, again, style);
    /* Invalid bytes become \ufffd, which reads as a valid character: that changes once. */
    if (outr_str_is_utf8(root->raw))
        PROPERTY(outr_str_eq(outr_buf_view(&first), outr_buf_view(&second)));
    if ((style & OUTR_JSON_SORTED) && outr_str_is_utf8(root->raw))
        check_is_sorted(again);
    if (!(style & OUTR_JSON_SORTED))
        check_numbers(root, again);
    outr_arena_free(arena);
}

static void check_quote(outr_str text)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(TEXT_MAX);
    outr_arena *arena = outr_arena_new(TEXT_MAX);
    outr_json *value;
    outr_err err;
    outr_json_quote(&out, text);
    PROPERTY(outr_json_parse(&value, arena, outr_buf_view(&out), &err) == OUTR_OK);
    PROPERTY(value->kind == OUTR_JSON_STRING && outr_str_is_utf8(value->text));
    PROPERTY(!outr_str_is_utf8(text) || outr_str_eq(value->text, text));
    for (size_t i = 0; i < out.n; i++)
        PROPERTY((unsigned char)out.p[i] >= 0x20 && !memchr("<>&", out.p[i], 3));
    outr_arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_str text = outr_str_of(data, size);
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    outr_json *root = NULL;
    outr_err err = {0};
    outr_code rc = outr_json_parse(&root, arena, text, &err);
    PROPERTY(outr_arena_used(arena) <= ARENA_MAX);
    if (rc) {
        PROPERTY(root == NULL && err.code == rc && err.text[0]);
        PROPERTY(rc == OUTR_INVALID_ARGUMENT || rc == OUTR_RESOURCE_EXHAUSTED);
    } else {
        PROPERTY(outr_str_eq(root->raw, outr_str_trim(text)));
        check_tree(root, text, 0);
        for (unsigned style = 0; style < 4; style++)
            check_style(root, style);
    }
    check_quote(text);
    outr_arena_free(arena);
    return 0;
}
