#include "components/state/redis/query.h"

/* Queries as RediSearch has them. Paths of the query API are fields of the index that queryIndexes
 * names; each has an alias there. */

#define FILTER_MAX (64 * OUTR_KIB)
#define ARGS_MAX   16

/* ---- queryIndexes ---------------------------------------------------------------------------- */

typedef struct field {
    outr_str key, type, alias;
} field;

typedef struct schema {
    outr_str name;
    field *fields;
    size_t count;
} schema;

struct outr__rstore_schemas {
    outr_arena *arena;
    schema *items;
    size_t count;
};

static outr_code read_schema(outr_arena *arena, schema *s, const outr_json *from, outr_err *err)
{
    const outr_json *indexes = outr_json_ifind(from, "indexes");
    s->name = outr_json_itext(from, "name");
    if (s->name.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "queryIndexes: empty query schema name");
    s->fields = outr_arena_alloc(arena, ((indexes ? indexes->count : 0) + 1) * sizeof *s->fields);
    for (const outr_json *i = indexes ? indexes->child : NULL; i; i = i->next) {
        field *f = &s->fields[s->count];
        f->key = outr_json_itext(i, "key");
        f->type = outr_json_itext(i, "type");
        if (f->key.n == 0 || f->type.n == 0)
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "queryIndexes: empty %s in query schema " OUTR_FMT,
                             f->key.n == 0 ? "key" : "type", OUTR_ARG(s->name));
        f->alias = outr_arena_printf(arena, "var%zu", s->count++);
    }
    return OUTR_OK;
}

static const schema *find_schema(const struct outr__rstore_schemas *schemas, outr_str name)
{
    for (size_t i = 0; schemas && i < schemas->count; i++) {
        if (outr_str_eq(schemas->items[i].name, name))
            return &schemas->items[i];
    }
    return NULL;
}

static outr_code read_schemas(struct outr__rstore_schemas *out, outr_str text, outr_err *err)
{
    outr_json *list;
    outr_code rc = outr_json_parse(&list, out->arena, text, err);
    if (rc)
        return outr_wrap(err, "queryIndexes");
    if (list->kind != OUTR_JSON_ARRAY)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "queryIndexes: a list is expected");
    out->items = outr_arena_alloc(out->arena, (list->count + 1) * sizeof *out->items);
    for (const outr_json *i = list->child; i; i = i->next) {
        schema s = {0};
        rc = read_schema(out->arena, &s, i, err);
        if (rc)
            return rc;
        if (find_schema(out, s.name))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "queryIndexes: duplicate schema name " OUTR_FMT, OUTR_ARG(s.name));
        out->items[out->count++] = s;
    }
    return OUTR_OK;
}

outr_code outr__rstore_schemas_new(struct outr__rstore_schemas **out, outr_str text, outr_err *err)
{
    struct outr__rstore_schemas *schemas = outr_alloc(sizeof *schemas);
    schemas->arena = outr_arena_new(OUTR_MIB);
    outr_code rc = read_schemas(schemas, outr_arena_str(schemas->arena, text), err);
    if (rc)
        outr__rstore_schemas_free(schemas);
    else
        *out = schemas;
    return rc;
}

void outr__rstore_schemas_free(struct outr__rstore_schemas *schemas)
{
    if (!schemas)
        return;
    outr_arena_free(schemas->arena);
    free(schemas);
}

size_t outr__rstore_schemas_count(const struct outr__rstore_schemas *schemas)
{
    return schemas ? schemas->count : 0;
}

void outr__rstore_schemas_create(const struct outr__rstore_schemas *schemas, size_t i,
                                outr_arena *arena, outr_redis_command out[2])
{
    const schema *s = &schemas->items[i];
    outr_str *args = outr_arena_alloc(arena, (5 + 5 * s->count) * sizeof *args);
    size_t n = 0;
    args[n++] = OUTR_STR("FT.CREATE");
    args[n++] = s->name;
    args[n++] = OUTR_STR("ON");
    args[n++] = OUTR_STR("JSON");
    args[n++] = OUTR_STR("SCHEMA");
    for (size_t k = 0; k < s->count; k++) {
        const field *f = &s->fields[k];
        args[n++] = outr_arena_join(arena, OUTR_STR("$.data."), f->key, OUTR_STR_NONE);
        args[n++] = OUTR_STR("AS");
        args[n++] = f->alias;
        args[n++] = f->type;
        args[n++] = OUTR_STR("SORTABLE");
    }
    out[0] = outr_redis_command_of(arena, OUTR_STR_NONE, 2,
                                   (outr_str[]){OUTR_STR("FT.DROPINDEX"), s->name});
    out[1] = (outr_redis_command){args, n, OUTR_STR_NONE};
}

/* ---- filters --------------------------------------------------------------------------------- */

typedef struct translation {
    const schema *schema;
    outr_buf out;
    outr_err err;
} translation;

static bool fail(translation *t, const char *why, outr_str what)
{
    outr_fail(&t->err, OUTR_INVALID_ARGUMENT, "%s" OUTR_FMT, why,
              OUTR_ARG(outr_str_head(what, 128)));
    return false;
}

static const field *find_field(translation *t, outr_str key)
{
    for (size_t i = 0; i < t->schema->count; i++) {
        if (outr_str_eq(t->schema->fields[i].key, key))
            return &t->schema->fields[i];
    }
    fail(t, "a JSON path is not indexed: ", key);
    return NULL;
}

/* The words of a text: whatever means something to the search's own language parts them, as it does
 * when documents are indexed. */
static bool put_words(translation *t, outr_str text)
{
    bool has_any = false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        bool is_word = c >= 0x80 || c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                       (c >= 'A' && c <= 'Z');
        outr_buf_char(&t->out, is_word ? (char)c : ' ');
        has_any |= is_word;
    }
    return has_any || fail(t, "a text to search for has no letters: ", text);
}

static bool put_equal(translation *t, const field *f, const outr_json *value)
{
    outr_buf_printf(&t->out, "@" OUTR_FMT ":", OUTR_ARG(f->alias));
    if (value->kind == OUTR_JSON_STRING) {
        outr_buf_char(&t->out, '(');
        bool is_good = put_words(t, value->text);
        outr_buf_char(&t->out, ')');
        return is_good;
    }
    if (value->kind != OUTR_JSON_NUMBER)
        return fail(t, "only texts and numbers can be compared: ", f->key);
    outr_buf_printf(&t->out, "[" OUTR_FMT " " OUTR_FMT "]", OUTR_ARG(value->text),
                    OUTR_ARG(value->text));
    return true;
}

/* op: GT, GTE, LT or LTE */
static bool put_range(translation *t, const field *f, const outr_json *value, outr_str op)
{
    if (value->kind != OUTR_JSON_NUMBER)
        return fail(t, "only numbers have an order: ", f->key);
    const char *mark = op.n == 3 ? "" : "("; /* GTE, LTE: the bound is in */
    outr_buf_printf(&t->out, "@" OUTR_FMT ":[", OUTR_ARG(f->alias));
    if (op.p[0] == 'G')
        outr_buf_printf(&t->out, "%s" OUTR_FMT " +inf]", mark, OUTR_ARG(value->text));
    else
        outr_buf_printf(&t->out, "-inf %s" OUTR_FMT "]", mark, OUTR_ARG(value->text));
    return true;
}

static bool put_in(translation *t, const field *f, const outr_json *values)
{
    if (values->kind != OUTR_JSON_ARRAY || values->count == 0)
        return fail(t, "IN wants a list: ", f->key);
    for (const outr_json *v = values->child; v; v = v->next) {
        outr_buf_z(&t->out, v == values->child ? "(" : "|(");
        if (!put_equal(t, f, v))
            return false;
        outr_buf_char(&t->out, ')');
    }
    return true;
}

static bool put_filter(translation *t, const outr_json *filter);

static bool put_list(translation *t, const outr_json *filters, const char *between)
{
    if (filters->kind != OUTR_JSON_ARRAY || filters->count == 0)
        return fail(t, "a list of filters is expected: ", filters->raw);
    for (const outr_json *f = filters->child; f; f = f->next) {
        if (f != filters->child)
            outr_buf_z(&t->out, between);
        if (!put_filter(t, f))
            return false;
    }
    return true;
}

static bool put_comparison(translation *t, outr_str op, const outr_json *operand)
{
    if (operand->kind != OUTR_JSON_OBJECT || operand->count != 1)
        return fail(t, "one path with its value is expected: ", operand->raw);
    const outr_json *value = operand->child;
    const field *f = find_field(t, value->key);
    if (!f)
        return false;
    if (outr_str_is(op, "EQ") || outr_str_is(op, "NEQ"))
        return put_equal(t, f, value);
    if (outr_str_is(op, "IN"))
        return put_in(t, f, value);
    if (outr_str_is(op, "GT") || outr_str_is(op, "GTE") || outr_str_is(op, "LT") ||
        outr_str_is(op, "LTE"))
        return put_range(t, f, value, op);
    return fail(t, "unsupported filter ", op);
}

/* {"EQ": {"a.b": 1}}, {"AND": [...]} */
static bool put_filter(translation *t, const outr_json *filter)
{
    if (filter->kind != OUTR_JSON_OBJECT || filter->count != 1)
        return fail(t, "a filter must have a single element: ", filter->raw);
    const outr_json *operand = filter->child;
    outr_str op = operand->key;
    outr_buf_z(&t->out, outr_str_is(op, "NEQ") ? "-(" : "(");
    bool is_good = outr_str_is(op, "AND")  ? put_list(t, operand, " ")
                   : outr_str_is(op, "OR") ? put_list(t, operand, "|")
                                           : put_comparison(t, op, operand);
    outr_buf_char(&t->out, ')');
    return is_good;
}

static bool put_all(translation *t, const outr_json *query)
{
    const outr_json *filter = outr_json_ifind(query, "filter");
    if (!filter || filter->kind == OUTR_JSON_NULL ||
        (filter->kind == OUTR_JSON_OBJECT && filter->count == 0))
        outr_buf_char(&t->out, '*');
    else if (!put_filter(t, filter))
        return false;
    return !t->out.is_full || fail(t, "the filter is too long", OUTR_STR_NONE);
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct querying {
    outr_state_query *req;
    outr__rstore_search search;
    outr_redis_call call;
    outr_op inner;
    outr_op *op;
} querying;

static void on_cancel(outr_op *op)
{
    querying *q = op->impl;
    outr_op_cancel(&q->inner, op->err.code);
}

/* ["$.data", value, "$.version", etag] in any order */
static void read_item(outr_state_item *item, const outr_redis_reply *fields)
{
    for (size_t i = 0; i + 1 < fields->count; i += 2) {
        if (outr_str_is(fields->items[i].text, "$.data")) {
            item->is_found = true;
            item->value = fields->items[i + 1].text;
        } else if (outr_str_is(fields->items[i].text, "$.version")) {
            item->etag = fields->items[i + 1].text;
        }
    }
    if (!item->is_found)
        outr_fail(&item->err, OUTR_INTERNAL, "the document has no data");
}

/* [total, key, fields, key, fields, ...] */
static outr_code read_reply(querying *q, outr_err *err)
{
    const outr_redis_reply *reply = q->call.replies;
    outr_state_query *req = q->req;
    if (outr_redis_check(reply, err))
        return err->code;
    if (reply->kind != OUTR_REDIS_ARRAY || reply->count % 2 != 1)
        return outr_fail(err, OUTR_INTERNAL, "invalid output");
    size_t n = reply->count / 2;
    req->items = outr_arena_alloc(req->arena, (n + 1) * sizeof *req->items);
    req->count = n;
    for (size_t i = 0; i < n; i++) {
        req->items[i].key = reply->items[1 + 2 * i].text;
        read_item(&req->items[i], &reply->items[2 + 2 * i]);
    }
    if (q->search.limit > 0 && n > 0)
        req->token =
            outr_arena_printf(req->arena, "%lld", (long long)(q->search.offset + (int64_t)n));
    return OUTR_OK;
}

static void on_done(outr_op *inner)
{
    querying *q = OUTR_CONTAINER(inner, querying, inner);
    outr_err err = inner->err;
    if (!err.code)
        read_reply(q, &err);
    if (err.code)
        outr_op_fail(q->op, &err);
    else
        outr_op_finish(q->op);
}

static outr_code read_page(outr__rstore_search *q, const outr_json *query, outr_err *err)
{
    const outr_json *page = outr_json_ifind(query, "page");
    outr_str token = outr_json_itext(page, "token");
    const outr_json *limit = page ? outr_json_ifind(page, "limit") : NULL;
    if (limit && (!outr_json_i64(limit, &q->limit) || q->limit < 0 || q->limit > INT32_MAX))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "page.limit is no number of items");
    if (token.n > 0 && !outr_str_to_i64(token, 0, INT64_MAX / 2, &q->offset))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "page.token is none of this store");
    return OUTR_OK;
}

static outr_code put_sort(translation *t, const outr_json *query, outr_str *args, size_t *n,
                          outr_err *err)
{
    const outr_json *sort = outr_json_ifind(query, "sort");
    if (!sort || sort->kind != OUTR_JSON_ARRAY || sort->count == 0)
        return OUTR_OK;
    if (sort->count > 1)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "multiple SORTBY steps are not allowed. Sort multiple fields in a "
                         "single step");
    const field *f = find_field(t, outr_json_itext(sort->child, "key"));
    if (!f) {
        *err = t->err;
        return err->code;
    }
    args[(*n)++] = OUTR_STR("SORTBY");
    args[(*n)++] = f->alias;
    if (outr_str_iis(outr_json_itext(sort->child, "order"), "DESC"))
        args[(*n)++] = OUTR_STR("DESC");
    return OUTR_OK;
}

static outr_code make_args(outr__rstore_search *out, const schema *s, const outr_state_query *req,
                           outr_err *err)
{
    outr_arena *arena = req->arena;
    translation t = {.schema = s, .out = OUTR_BUF_MAX(FILTER_MAX)};
    outr_str *args = outr_arena_alloc(arena, ARGS_MAX * sizeof *args);
    size_t n = 0;
    outr_code rc = read_page(out, req->query, err);
    if (!rc && !put_all(&t, req->query)) {
        *err = t.err;
        rc = err->code;
    }
    args[n++] = OUTR_STR("FT.SEARCH");
    args[n++] = s->name;
    args[n++] = outr_arena_str(arena, outr_buf_view(&t.out));
    outr_buf_done(&t.out);
    if (!rc)
        rc = put_sort(&t, req->query, args, &n, err);
    if (out->limit > 0) {
        args[n++] = OUTR_STR("LIMIT");
        args[n++] = outr_arena_printf(arena, "%lld", (long long)out->offset);
        args[n++] = outr_arena_printf(arena, "%lld", (long long)out->limit);
    }
    args[n++] = OUTR_STR("RETURN");
    args[n++] = OUTR_STR("2");
    args[n++] = OUTR_STR("$.data");
    args[n++] = OUTR_STR("$.version");
    out->args = args;
    out->count = n;
    return rc;
}

outr_code outr__rstore_search_make(outr__rstore_search *out,
                                   const struct outr__rstore_schemas *schemas,
                                   const outr_state_query *req, outr_err *err)
{
    const outr_kv *name = outr_kvs_find(req->metadata, "queryIndexName");
    const schema *s = name ? find_schema(schemas, name->value) : NULL;
    *out = (outr__rstore_search){0};
    if (!name)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "query index not found");
    if (!s)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "query index schema \"" OUTR_FMT "\" not found", OUTR_ARG(name->value));
    return make_args(out, s, req, err);
}

void outr__rstore_query(outr_state_store *base, outr_state_query *req, outr_op *op)
{
    outr__rstore *st = outr__rstore_of(base);
    querying *q = outr_arena_alloc(req->arena, sizeof *q);
    outr_err err;
    *q = (querying){.req = req, .op = op};
    outr_op_begin(op, q, on_cancel);
    if (outr__rstore_search_make(&q->search, st->schemas, req, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    outr_redis_call_of(&q->call, req->arena, OUTR_STR_NONE, q->search.count, q->search.args);
    outr_op_init(&q->inner, op->loop, op, 0, on_done);
    outr_redis_call_start(st->redis, &q->call, &q->inner);
}
