#include "base/encode.h"
#include "base/regex.h"
#include "base/yaml.h"
#include "components/middleware.h"

/* Other paths for routes: "/mall/stock/{sku}" -> "/v1.0/invoke/shop/method/stock". What stands for
 * a variable goes into the query. A pattern has one variable a segment, as "{name}" or
 * "{name:regular expression}"; with an expression the last one of a pattern may take several
 * segments. So a path is matched from left to right, once. */

extern const outr_middleware_backend outr_middleware_routeralias;

#define ROUTES_MAX 1000
#define NODES_MAX  10000
#define PAIRS_MAX  1000 /* of a query that is written anew */

typedef struct piece {
    outr_str before, name, after; /* "x-{name}-y"; no name: before is all */
    outr_regex *rule;             /* NULL: anything but nothing */
    bool takes_rest;
} piece;

typedef struct route {
    piece *pieces;
    size_t count, variables;
    outr_str target; /* as a request target */
} route;

typedef struct alias {
    outr_middleware base;
    outr_arena *arena;
    route *routes;
    size_t count;
} alias;

/* ---- patterns -------------------------------------------------------------------------------- */

/* The end of the variable that begins at text; braces may be nested in its expression. 0: none. */
static size_t variable_end(outr_str text)
{
    int depth = 0;
    for (size_t i = 0; i < text.n; i++) {
        depth += text.p[i] == '{';
        depth -= text.p[i] == '}';
        if (depth == 0)
            return i + 1;
    }
    return 0;
}

static outr_code read_rule(alias *a, piece *p, outr_str rule, outr_err *err)
{
    outr_str whole = outr_arena_join(a->arena, OUTR_STR("^(?:"), rule, OUTR_STR(")$"));
    outr_code rc = outr_regex_new(&p->rule, whole, err);
    if (!rc)
        outr_arena_defer(a->arena, (void (*)(void *))outr_regex_free, p->rule);
    return rc;
}

/* Takes one segment off *rest, which begins behind a slash. */
static outr_code read_piece(alias *a, piece *p, outr_str *rest, outr_err *err)
{
    size_t i = 0;
    while (i < rest->n && rest->p[i] != '/' && rest->p[i] != '{')
        i++;
    p->before = outr_str_head(*rest, i);
    if (i < rest->n && rest->p[i] == '{') {
        outr_str from = outr_str_skip(*rest, i), rule;
        size_t n = variable_end(from);
        if (n < 3)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "a variable without name or end");
        rule = outr_str_cut(outr_str_of(from.p + 1, n - 2), ':', &p->name);
        if (p->name.n == 0)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "a variable without name or end");
        if (rule.p && read_rule(a, p, rule, err))
            return err->code;
        size_t begin = i + n;
        for (i = begin; i < rest->n && rest->p[i] != '/';)
            i++;
        p->after = outr_str_of(rest->p + begin, i - begin);
        if (outr_str_find(p->after, '{') >= 0)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "more than one variable in a segment");
    }
    *rest = i < rest->n ? outr_str_skip(*rest, i + 1) : OUTR_STR_NONE;
    p->takes_rest = p->rule && !rest->p && p->after.n == 0;
    return OUTR_OK;
}

static outr_code read_route(alias *a, outr_str pattern, outr_str target, outr_err *err)
{
    route *r = &a->routes[a->count];
    outr_str rest = outr_str_skip(pattern, 1);
    size_t max = 1;
    if (!outr_str_starts(pattern, OUTR_STR("/")) || !outr_str_starts(target, OUTR_STR("/")))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "a route and its target begin with \"/\"");
    if (outr_str_find(target, '?') >= 0 || outr_str_find(target, '#') >= 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "a target is a path, without a query");
    for (size_t i = 0; i < pattern.n; i++)
        max += pattern.p[i] == '/';
    r->pieces = outr_arena_alloc(a->arena, max * sizeof *r->pieces);
    do {
        if (read_piece(a, &r->pieces[r->count], &rest, err))
            return err->code;
        r->variables += r->pieces[r->count++].name.n > 0;
    } while (rest.p);
    r->target = outr_percent_encode(a->arena, target, "!$&'()*+,;=:@/");
    a->count++;
    return OUTR_OK;
}

static outr_code add_route(alias *a, outr_str pattern, outr_str target, outr_err *err)
{
    pattern = outr_arena_str(a->arena, pattern);
    target = outr_arena_str(a->arena, target);
    if (a->count == ROUTES_MAX)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "more than %d routes", ROUTES_MAX);
    outr_code rc = read_route(a, pattern, target, err);
    return rc ? outr_wrap(err, "route \"" OUTR_FMT "\"", OUTR_ARG(outr_str_head(pattern, 100)))
              : OUTR_OK;
}

/* JSON is YAML. */
static outr_code read_routes(alias *a, outr_str text, outr_err *err)
{
    outr_yaml_doc *doc;
    if (outr_yaml_parse(&doc, a->arena, "routes", text, NODES_MAX, err))
        return err->code;
    const outr_yaml *root = doc ? doc->root : NULL;
    if (outr_yaml_is_null(root))
        return OUTR_OK;
    if (root->kind != OUTR_YAML_MAPPING)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "routes: not a map from path to path");
    for (const outr_yaml *m = root->child; m; m = m->next) {
        if (m->kind != OUTR_YAML_SCALAR)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "routes: not a map from path to path");
        if (add_route(a, m->key, m->text, err))
            return err->code;
    }
    return OUTR_OK;
}

/* ---- requests -------------------------------------------------------------------------------- */

static bool matches(const piece *p, outr_str text, outr_str *value)
{
    if (p->name.n == 0)
        return outr_str_eq(text, p->before);
    if (text.n < p->before.n + p->after.n || !outr_str_starts(text, p->before) ||
        !outr_str_ends(text, p->after))
        return false;
    *value = outr_str_of(text.p + p->before.n, text.n - p->before.n - p->after.n);
    return p->rule ? outr_regex_search(p->rule, *value) : value->n > 0;
}

/* values: one for each variable, in order. */
static bool is_of_route(const route *r, outr_str path, outr_kv *values)
{
    outr_str rest = outr_str_skip(path, 1), segment, value;
    size_t n = 0;
    for (size_t i = 0; i < r->count; i++) {
        const piece *p = &r->pieces[i];
        if (!rest.p)
            return false;
        if (p->takes_rest) {
            segment = rest;
            rest = OUTR_STR_NONE;
        } else {
            rest = outr_str_cut(rest, '/', &segment);
        }
        if (!matches(p, segment, &value))
            return false;
        if (p->name.n > 0)
            values[n++] = (outr_kv){p->name, value};
    }
    return !rest.p;
}

static int by_key(const void *a, const void *b)
{
    const outr_kv *x = *(const outr_kv *const *)a, *y = *(const outr_kv *const *)b;
    int order = outr_str_cmp(x->key, y->key);
    return order ? order : (x < y ? -1 : x > y); /* as they came */
}

static bool next_pair(outr_arena *arena, outr_str *rest, outr_kv *pair)
{
    outr_str key, value;
    while (rest->p && rest->n > 0) {
        outr_str one;
        *rest = outr_str_cut(*rest, '&', &one);
        value = outr_str_cut(one, '=', &key);
        value = value.p ? value : OUTR_STR("");
        if (one.n > 0 && outr_str_find(one, ';') < 0 &&
            outr_percent_decode(arena, key, true, &pair->key) &&
            outr_percent_decode(arena, value, true, &pair->value))
            return true;
    }
    return false;
}

static outr_str escape(outr_arena *arena, outr_str s)
{
    outr_str escaped = outr_percent_encode(arena, s, " ");
    char *out = outr_arena_strz(arena, escaped);
    for (size_t i = 0; i < escaped.n; i++)
        out[i] = out[i] == ' ' ? '+' : out[i];
    return outr_str_of(out, escaped.n);
}

/* Go's url.Values: sorted by key. NONE: more than can be. */
static outr_str write_query(outr_arena *arena, outr_str query, const outr_kv *values, size_t count)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    outr_kv *pairs = outr_arena_alloc(arena, (PAIRS_MAX + count) * sizeof *pairs);
    const outr_kv **order = outr_arena_alloc(arena, (PAIRS_MAX + count) * sizeof *order);
    size_t n = 0;
    while (n < PAIRS_MAX && next_pair(arena, &query, &pairs[n]))
        n++;
    if (n == PAIRS_MAX)
        return OUTR_STR_NONE;
    for (size_t i = 0; i < count; i++)
        pairs[n++] = values[i];
    for (size_t i = 0; i < n; i++)
        order[i] = &pairs[i];
    qsort(order, n, sizeof *order, by_key);
    for (size_t i = 0; i < n; i++)
        outr_buf_printf(&text, "%s" OUTR_FMT "=" OUTR_FMT, i ? "&" : "",
                        OUTR_ARG(escape(arena, order[i]->key)),
                        OUTR_ARG(escape(arena, order[i]->value)));
    return outr_arena_str(arena, outr_buf_view(&text));
}

static outr_middleware_verdict rewrite(outr_middleware_call *call, const route *r, outr_str query,
                                       const outr_kv *values)
{
    if (r->variables > 0)
        query = write_query(call->arena, query, values, r->variables);
    if (r->variables > 0 && !query.p)
        return outr_middleware_refuse(call, 400, "the query has too many parameters");
    call->req->target = query.p
                            ? outr_arena_join(call->arena, r->target, OUTR_STR("?"), query)
                            : r->target;
    return OUTR_MIDDLEWARE_PASS;
}

static outr_middleware_verdict handle(outr_middleware *m, outr_middleware_call *call,
                                      outr_op *op OUTR_UNUSED)
{
    const alias *a = OUTR_CONTAINER(m, alias, base);
    outr_str raw, path, query = outr_str_cut(call->req->target, '?', &raw);
    if (!outr_str_starts(raw, OUTR_STR("/")) ||
        !outr_percent_decode(call->arena, raw, false, &path))
        return OUTR_MIDDLEWARE_PASS;
    for (size_t i = 0; i < a->count; i++) {
        const route *r = &a->routes[i];
        outr_kv *values = r->variables > 0
                              ? outr_arena_alloc(call->arena, r->variables * sizeof *values)
                              : NULL;
        if (is_of_route(r, path, values))
            return rewrite(call, r, query, values);
    }
    return OUTR_MIDDLEWARE_PASS;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void close_it(outr_middleware *m, outr_op *op)
{
    alias *a = OUTR_CONTAINER(m, alias, base);
    outr_arena_free(a->arena);
    free(a->routes);
    free(a);
    outr_middleware_open(m, op);
}

/* "routes", or, as it was once, a route for each metadata item. */
static outr_code read_metadata(alias *a, outr_kvs metadata, outr_err *err)
{
    const outr_kv *routes = outr_kvs_find(metadata, "routes");
    if (metadata.count == 0)
        return OUTR_OK;
    if (metadata.count == 1 && routes && routes->value.n > 0)
        return read_routes(a, routes->value, err);
    for (size_t i = 0; i < metadata.count; i++) {
        if (add_route(a, metadata.items[i].key, metadata.items[i].value, err))
            return err->code;
    }
    return OUTR_OK;
}

static outr_code create(outr_middleware **out, const outr_component_init *init, outr_err *err)
{
    alias *a = outr_alloc(sizeof *a);
    a->base.backend = &outr_middleware_routeralias;
    a->arena = outr_arena_new(16 * OUTR_MIB);
    a->routes = outr_alloc(ROUTES_MAX * sizeof *a->routes);
    if (read_metadata(a, init->metadata, err)) {
        outr_arena_free(a->arena);
        free(a->routes);
        free(a);
        return err->code;
    }
    *out = &a->base;
    return OUTR_OK;
}

const outr_middleware_backend outr_middleware_routeralias = {
    .base = {"middleware.http.routeralias", "v1", NULL, 0}, /* any name is a route */
    .create = create,
    .open = outr_middleware_open,
    .close = close_it,
    .handle = handle,
};
