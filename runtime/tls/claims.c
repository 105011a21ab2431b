#include "tls/claims.h"

#include <stdlib.h>

#include "base/map.h"

#define DEPTH_MAX  4   /* of objects in objects */
#define JOINED_MAX 512 /* bytes of a name: each member of an object has the object's in front */

/* A value on its way into the flat list. */
typedef struct found {
    outr_claim claim;
    size_t order;
    struct found *next;
} found;

typedef struct gathering {
    outr_arena *arena;
    outr_map *seen; /* names that have their values */
    found *first;
    size_t count;
} gathering;

static void add(gathering *g, outr_str name, outr_str value)
{
    found *f = outr_arena_alloc(g->arena, sizeof *f);
    *f = (found){{name, value}, g->count, g->first};
    g->first = f;
    g->count++;
}

static void add_words(gathering *g, outr_str name, outr_str text)
{
    outr_str word;
    for (outr_str rest = text; rest.p;) {
        rest = outr_str_cut(rest, ' ', &word);
        if (word.n > 0)
            add(g, name, word);
    }
}

static void add_scalar(gathering *g, outr_str name, const outr_json *value)
{
    if (value->kind == OUTR_JSON_BOOL)
        add(g, name, value->boolean ? OUTR_STR("true") : OUTR_STR("false"));
    else if (value->kind == OUTR_JSON_STRING && outr_str_is(name, "scope"))
        add_words(g, name, value->text);
    else if (value->kind == OUTR_JSON_STRING || value->kind == OUTR_JSON_NUMBER)
        add(g, name, value->text);
}

static bool join(outr_str *name, gathering *g, outr_str prefix, outr_str key)
{
    *name = key;
    if (prefix.n == 0)
        return true;
    if (prefix.n + 1 + key.n > JOINED_MAX)
        return false;
    *name = outr_arena_join(g->arena, prefix, OUTR_STR("."), key);
    return true;
}

static void gather(gathering *g, outr_str prefix, const outr_json *object, int depth)
{
    outr_map *last = outr_map_new(); /* of each name */
    const outr_json *child;
    outr_str key;
    void *value;
    for (child = object->child; child; child = child->next)
        outr_map_put(last, child->key, (void *)child);
    /* names as they are, before any that are joined */
    for (size_t at = 0; outr_map_next(last, &at, &key, &value);) {
        child = value;
        outr_str name;
        if (child->kind == OUTR_JSON_OBJECT || !join(&name, g, prefix, child->key) ||
            outr_map_put(g->seen, name, g))
            continue;
        if (child->kind != OUTR_JSON_ARRAY)
            add_scalar(g, name, child);
        for (const outr_json *item = child->kind == OUTR_JSON_ARRAY ? child->child : NULL; item;
             item = item->next)
            add_scalar(g, name, item);
    }
    for (size_t at = 0; depth < DEPTH_MAX && outr_map_next(last, &at, &key, &value);) {
        child = value;
        outr_str name;
        if (child->kind == OUTR_JSON_OBJECT && join(&name, g, prefix, child->key))
            gather(g, name, child, depth + 1);
    }
    outr_map_free(last);
}

static int by_name(const void *a, const void *b)
{
    const found *x = *(found *const *)a, *y = *(found *const *)b;
    int order = outr_str_cmp(x->claim.name, y->claim.name);
    return order ? order : x->order < y->order ? -1 : 1;
}

/* Not the name before: values of one name share it. */
static bool is_another(found *const *sorted, size_t i)
{
    return i == 0 || !outr_str_eq(sorted[i]->claim.name, sorted[i - 1]->claim.name);
}

static outr_str put(char **to, outr_str text)
{
    char *at = *to;
    if (text.n > 0)
        memcpy(at, text.p, text.n);
    *to += text.n;
    return outr_str_of(at, text.n);
}

outr_claims *outr_claims_new(const outr_json *object, outr_arena *scratch)
{
    gathering g = {.arena = scratch, .seen = outr_map_new()};
    if (object->kind == OUTR_JSON_OBJECT)
        gather(&g, OUTR_STR_NONE, object, 0);
    outr_map_free(g.seen);
    found **sorted = outr_arena_alloc(scratch, (g.count + 1) * sizeof *sorted);
    size_t n = 0;
    for (found *f = g.first; f; f = f->next)
        sorted[n++] = f;
    qsort(sorted, n, sizeof *sorted, by_name);
    size_t bytes = sizeof(outr_claims) + n * sizeof(outr_claim);
    for (size_t i = 0; i < n; i++)
        bytes += sorted[i]->claim.value.n + (is_another(sorted, i) ? sorted[i]->claim.name.n : 0);
    outr_claims *claims = outr_alloc(bytes);
    char *text = (char *)&claims->items[n];
    claims->refs = 1;
    claims->bytes = bytes;
    claims->count = n;
    for (size_t i = 0; i < n; i++) {
        claims->items[i].name = is_another(sorted, i) ? put(&text, sorted[i]->claim.name)
                                                      : claims->items[i - 1].name;
        claims->items[i].value = put(&text, sorted[i]->claim.value);
    }
    return claims;
}

outr_claims *outr_claims_ref(const outr_claims *claims)
{
    outr_claims *c = (outr_claims *)claims;
    __atomic_fetch_add(&c->refs, 1, __ATOMIC_RELAXED);
    return c;
}

void outr_claims_unref(outr_claims *claims)
{
    if (claims && __atomic_sub_fetch(&claims->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free(claims);
}

const outr_claim *outr_claims_find(const outr_claims *claims, outr_str name, size_t *count)
{
    size_t low = 0, high = claims ? claims->count : 0, end;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (outr_str_cmp(claims->items[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (end = low; claims && end < claims->count; end++) {
        if (!outr_str_eq(claims->items[end].name, name))
            break;
    }
    *count = end - low;
    return *count ? &claims->items[low] : NULL;
}

outr_str outr_claims_text(const outr_claims *claims, outr_str name, outr_arena *arena)
{
    size_t count, n = 0;
    const outr_claim *values = outr_claims_find(claims, name, &count);
    if (count == 0)
        return OUTR_STR_NONE;
    for (size_t i = 0; i < count; i++)
        n += values[i].value.n + 1;
    char *text = outr_arena_alloc(arena, n), *to = text;
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            *to++ = ',';
        put(&to, values[i].value);
    }
    return outr_str_of(text, n - 1);
}
