#include "api/core/state.h"
#include "api/http/http_api.h"
#include "base/encode.h"

/* The state routes (contract/http-routes.csv): JSON in, the core's operation, JSON out. */

#define BULK_MAX (512 * OUTR_MIB)

/* ---- errors as HTTP says them ---------------------------------------------------------------- */

/* The core's failure. The reference names the app where a store is missing (not for queries), tells
 * of illegal keys in its own words, and has statuses of etags. */
static void fail(outr_api_request *r, const outr_core_state *s, const outr_err *failure)
{
    outr_details d = s->details;
    outr_err err = *failure;
    int status = outr_reason_find(err.reason)->http_status;
    bool is_missing =
        err.reason == OUTR_REASON_STATE_NOT_FOUND || err.reason == OUTR_REASON_STATE_NOT_CONFIGURED;
    if (is_missing && s->what != OUTR_CORE_STATE_QUERY) {
        d.has_metadata = true;
        d.metadata[0] = (outr_kv){OUTR_STR("appID"), r->api->settings->app_id};
        d.metadata_count = 1;
    } else if (err.reason == OUTR_REASON_STATE_ILLEGAL_KEY) {
        outr_fail_reason(&err, failure->code, failure->reason,
                         "api error: code = InvalidArgument desc = %s", failure->text);
        d.field_description = outr_arena_str(r->x->arena, outr_str_from(err.text));
        if (s->what == OUTR_CORE_STATE_TRANSACT)
            d.field = OUTR_STR("");
    } else if (err.reason == OUTR_REASON_STATE_SAVE || err.reason == OUTR_REASON_STATE_DELETE) {
        status = err.code == OUTR_ABORTED            ? 409
                 : err.code == OUTR_INVALID_ARGUMENT ? 400
                                                     : status;
    }
    outr_api_fail_status(r, status, &err, &d);
}

static void fail_malformed(outr_api_request *r, const char *why)
{
    outr_err err;
    outr_core_fail(&err, OUTR_REASON_MALFORMED_REQUEST, "%s", why);
    outr_api_fail(r, &err, NULL);
}

static bool parse_body(outr_api_request *r, outr_json **out)
{
    outr_err err;
    if (!outr_json_parse(out, r->x->arena, r->body, &err))
        return true;
    outr_wrap(&err, "failed deserializing HTTP body");
    fail_malformed(r, err.text);
    return false;
}

static outr_kvs read_metadata(outr_arena *arena, const outr_json *object)
{
    if (!object || object->kind != OUTR_JSON_OBJECT || object->count == 0)
        return (outr_kvs){0};
    outr_kv *items = outr_arena_alloc(arena, object->count * sizeof *items);
    size_t n = 0;
    for (const outr_json *m = object->child; m; m = m->next)
        items[n++] = (outr_kv){m->key, m->text};
    return (outr_kvs){items, n};
}

/* ---- the way of every request ---------------------------------------------------------------- */

/* NULL: answered. */
static outr_core_state *begin(outr_api_request *r, outr_core_state_what what)
{
    outr_core_state *s = outr_arena_alloc(r->x->arena, sizeof *s);
    outr_err err;
    *s = (outr_core_state){
        .core = {r->api, r->view, r->x->arena}, .what = what, .store_name = r->params[0]};
    r->user = s;
    if (!outr_core_state_begin(s, &err))
        return s;
    fail(r, s, &err);
    return NULL;
}

/* False: answered. */
static bool reserve(outr_api_request *r, size_t count)
{
    outr_err err;
    if (!outr_core_state_reserve(r->user, count, &err))
        return true;
    fail(r, r->user, &err);
    return false;
}

static void run(outr_api_request *r, outr_op_fn *done)
{
    outr_op_init(&r->op, r->api->loop, NULL, 0, done);
    outr_core_state_start(r->user, &r->op);
}

static outr_api_request *of(outr_op *op)
{
    return OUTR_CONTAINER(op, outr_api_request, op);
}

static void on_written(outr_op *op)
{
    outr_api_request *r = of(op);
    if (op->err.code)
        fail(r, r->user, &op->err);
    else
        outr_api_empty(r);
}

/* ---- reads ----------------------------------------------------------------------------------- */

static void on_got(outr_op *op)
{
    outr_api_request *r = of(op);
    const outr_core_state *s = r->user;
    const outr_state_item *item = s->get.items;
    if (op->err.code) {
        fail(r, s, &op->err);
        return;
    }
    if (!item->is_found || item->value.n == 0) {
        outr_api_empty(r);
        return;
    }
    outr_http_response head = {.status = 200};
    outr_headers_init(&head.headers, r->x->arena);
    outr_headers_add(&head.headers, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
    if (item->etag.n)
        outr_headers_add(&head.headers, OUTR_STR("Etag"), item->etag);
    if (item->ttl_expire_time.n)
        outr_headers_add(&head.headers, OUTR_STR("Metadata.ttlExpireTime"), item->ttl_expire_time);
    outr_api_reply_with(r, &head, item->value);
}

static void get(outr_api_request *r)
{
    outr_core_state *s = begin(r, OUTR_CORE_STATE_GET);
    if (!s || !reserve(r, 1))
        return;
    s->get.items[0].key = r->params[1];
    s->get.metadata = outr_api_metadata(r);
    s->get.consistency = outr_core_state_consistency(outr_api_query(r, "consistency"));
    run(r, on_got);
}

static void member(outr_buf *out, const char *name, outr_str text)
{
    outr_buf_printf(out, ",\"%s\":", name);
    outr_json_quote(out, text);
}

static void write_item(outr_buf *out, outr_str key, const outr_state_item *item)
{
    outr_buf_z(out, "{\"key\":");
    outr_json_quote(out, key);
    if (item->is_found && item->value.n) {
        outr_buf_z(out, ",\"data\":");
        outr_buf_str(out, item->value);
    }
    if (item->etag.n)
        member(out, "etag", item->etag);
    if (item->ttl_expire_time.n) {
        outr_buf_z(out, ",\"metadata\":{\"ttlExpireTime\":");
        outr_json_quote(out, item->ttl_expire_time);
        outr_buf_char(out, '}');
    }
    if (item->err.code)
        member(out, "error", outr_str_from(item->err.text));
    outr_buf_char(out, '}');
}

static void on_bulk_got(outr_op *op)
{
    outr_api_request *r = of(op);
    const outr_core_state *s = r->user;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(BULK_MAX);
    outr_err err;
    if (op->err.code) {
        fail(r, s, &op->err);
        return;
    }
    outr_buf_char(&out, '[');
    for (size_t i = 0; i < s->get.count; i++) {
        if (i)
            outr_buf_char(&out, ',');
        write_item(&out, outr_core_state_name(s, i), &s->get.items[i]);
    }
    outr_buf_char(&out, ']');
    if (out.is_full) {
        outr_core_fail(&err, OUTR_REASON_STATE_BULK_GET, "the values are too large for one answer");
        fail(r, s, &err);
        return;
    }
    outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
}

static void bulk_get(outr_api_request *r)
{
    outr_core_state *s = begin(r, OUTR_CORE_STATE_BULK_GET);
    outr_json *body;
    int64_t parallelism;
    if (!s || !parse_body(r, &body))
        return;
    const outr_json *keys = outr_json_ifind(body, "keys");
    bool is_good = body->kind == OUTR_JSON_OBJECT &&
                   (!keys || keys->kind == OUTR_JSON_ARRAY || keys->kind == OUTR_JSON_NULL);
    for (const outr_json *k = keys ? keys->child : NULL; k; k = k->next)
        is_good = is_good && k->kind == OUTR_JSON_STRING;
    if (!is_good) {
        fail_malformed(r, "failed deserializing HTTP body: keys must be a list of strings");
        return;
    }
    if (!reserve(r, keys ? keys->count : 0))
        return;
    size_t i = 0;
    for (const outr_json *k = keys ? keys->child : NULL; k; k = k->next)
        s->get.items[i++].key = k->text;
    s->get.metadata =
        outr_core_merge(r->x->arena, outr_api_metadata(r),
                        read_metadata(r->x->arena, outr_json_ifind(body, "metadata")));
    if (outr_json_i64(outr_json_ifind(body, "parallelism"), &parallelism))
        s->parallelism = (int32_t)OUTR_MAX(OUTR_MIN(parallelism, (int64_t)INT32_MAX), (int64_t)0);
    run(r, on_bulk_got);
}

/* ---- writes ---------------------------------------------------------------------------------- */

/* One {key, value, etag, metadata, options}; metadata of the request goes to it and wins. False:
 * answered. */
static bool read_item(outr_api_request *r, const outr_json *item, outr_kvs metadata,
                      outr_state_write *w)
{
    const outr_json *key = outr_json_ifind(item, "key"), *value = outr_json_ifind(item, "value"),
                    *etag = outr_json_ifind(item, "etag"),
                    *options = outr_json_ifind(item, "options");
    outr_core_state *s = r->user;
    outr_err err;
    if (item->kind != OUTR_JSON_OBJECT || (key && key->kind != OUTR_JSON_STRING) ||
        (etag && etag->kind != OUTR_JSON_STRING && etag->kind != OUTR_JSON_NULL)) {
        fail_malformed(r,
                       "failed deserializing HTTP body: an item's key and etag must be strings");
        return false;
    }
    if (!key || key->text.n == 0) {
        fail_malformed(r, "\"key\" is a required field");
        return false;
    }
    w->key = key->text;
    w->metadata = outr_core_merge(r->x->arena, metadata,
                                  read_metadata(r->x->arena, outr_json_ifind(item, "metadata")));
    w->has_etag = etag && etag->kind == OUTR_JSON_STRING;
    w->etag = w->has_etag ? etag->text : OUTR_STR_NONE;
    w->content_type = outr_json_itext(item, "contentType");
    w->value = OUTR_STR("null");
    if (outr_core_state_options(s, w, outr_json_itext(options, "concurrency"),
                                outr_json_itext(options, "consistency"), &err) ||
        (value && outr_core_state_encode(s, w, value, &err))) {
        fail(r, s, &err);
        return false;
    }
    return true;
}

static void save(outr_api_request *r)
{
    outr_core_state *s = begin(r, OUTR_CORE_STATE_SAVE);
    outr_json *body;
    outr_err err;
    if (!s)
        return;
    outr_code rc = outr_json_parse(&body, r->x->arena, r->body, &err);
    if (!rc && body->kind != OUTR_JSON_ARRAY)
        rc = outr_fail(&err, OUTR_INVALID_ARGUMENT, "a list of items is expected");
    if (rc) {
        fail_malformed(r, err.text);
        return;
    }
    if (!reserve(r, body->count))
        return;
    outr_kvs metadata = outr_api_metadata(r);
    size_t i = 0;
    for (const outr_json *item = body->child; item; item = item->next) {
        if (!read_item(r, item, metadata, &s->writes.items[i++]))
            return;
    }
    run(r, on_written);
}

static void delete (outr_api_request *r)
{
    outr_core_state *s = begin(r, OUTR_CORE_STATE_DELETE);
    if (!s || !reserve(r, 1))
        return;
    outr_state_write *w = s->writes.items;
    w->key = r->params[1];
    w->has_etag = outr_headers_has(&r->x->req.headers, "If-Match");
    w->etag = outr_headers_get(&r->x->req.headers, "If-Match");
    /* Here, unlike in a body, a word that is no model counts as none. */
    w->concurrency = outr_str_is(outr_api_query(r, "concurrency"), "first-write")
                         ? OUTR_FIRST_WRITE
                         : OUTR_CONCURRENCY_UNSET;
    w->consistency = outr_core_state_consistency(outr_api_query(r, "consistency"));
    w->metadata = outr_api_metadata(r);
    run(r, on_written);
}

/* ---- transaction, query ---------------------------------------------------------------------- */

/* One {operation, request}. False: answered. */
static bool read_operation(outr_api_request *r, const outr_json *o, outr_kvs metadata,
                           outr_state_write *w)
{
    const outr_json *operation = outr_json_ifind(o, "operation"),
                    *request = outr_json_ifind(o, "request");
    outr_core_state *s = r->user;
    outr_err err;
    if (outr_core_state_operation(s, w, operation ? operation->text : OUTR_STR(""), &err)) {
        fail(r, s, &err);
        return false;
    }
    if (!request) {
        fail_malformed(r, "failed deserializing HTTP body: an operation has no request");
        return false;
    }
    return read_item(r, request, metadata, w);
}

static void transact(outr_api_request *r)
{
    outr_core_state *s = begin(r, OUTR_CORE_STATE_TRANSACT);
    outr_json *body;
    if (!s || !parse_body(r, &body))
        return;
    const outr_json *operations = outr_json_ifind(body, "operations");
    if (body->kind != OUTR_JSON_OBJECT ||
        (operations && operations->kind != OUTR_JSON_ARRAY && operations->kind != OUTR_JSON_NULL)) {
        fail_malformed(r, "failed deserializing HTTP body: operations must be a list");
        return;
    }
    if (!reserve(r, operations ? operations->count : 0))
        return;
    size_t i = 0;
    outr_kvs metadata =
        outr_core_merge(r->x->arena, outr_api_metadata(r),
                        read_metadata(r->x->arena, outr_json_ifind(body, "metadata")));
    for (const outr_json *o = operations ? operations->child : NULL; o; o = o->next) {
        if (!read_operation(r, o, metadata, &s->writes.items[i++]))
            return;
    }
    s->writes.metadata = metadata;
    s->trace = &r->trace;
    run(r, on_written);
}

static void write_result(outr_buf *out, outr_str key, const outr_state_item *item)
{
    outr_buf_z(out, "{\"key\":");
    outr_json_quote(out, key);
    outr_buf_z(out, ",\"data\":");
    outr_buf_str(out, item->value.n ? item->value : OUTR_STR("null"));
    if (item->etag.n)
        member(out, "etag", item->etag);
    if (item->err.code)
        member(out, "error", outr_str_from(item->err.text));
    outr_buf_char(out, '}');
}

static void on_queried(outr_op *op)
{
    outr_api_request *r = of(op);
    const outr_core_state *s = r->user;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(BULK_MAX);
    outr_err err;
    if (op->err.code) {
        fail(r, s, &op->err);
        return;
    }
    if (s->query.count == 0) {
        outr_api_empty(r);
        return;
    }
    outr_buf_z(&out, "{\"results\":[");
    for (size_t i = 0; i < s->query.count; i++) {
        if (i)
            outr_buf_char(&out, ',');
        write_result(&out, outr_core_state_name(s, i), &s->query.items[i]);
    }
    outr_buf_char(&out, ']');
    if (s->query.token.n)
        member(&out, "token", s->query.token);
    outr_buf_char(&out, '}');
    if (out.is_full) {
        outr_core_fail(&err, OUTR_REASON_STATE_QUERY_FAILED,
                       "the values are too large for one answer");
        fail(r, s, &err);
        return;
    }
    outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
}

static void query(outr_api_request *r)
{
    outr_core_state *s = begin(r, OUTR_CORE_STATE_QUERY);
    outr_err err;
    if (!s)
        return;
    if (outr_core_state_read_query(s, r->body, &err)) {
        fail(r, s, &err);
        return;
    }
    s->query.metadata = outr_api_metadata(r);
    run(r, on_queried);
}

/* ---- keys by their beginning: beyond Dapr, asked for by headers of our own ------------------ */

#define PREFIX_HEADER "outrigger-key-prefix"
#define SIZE_HEADER   "outrigger-page-size"
#define TOKEN_HEADER  "outrigger-page-token"
#define NEXT_HEADER   "Outrigger-Next-Page-Token"
#define PAGE          1000
#define PAGE_MAX      10000

static void on_keys(outr_op *op)
{
    outr_api_request *r = of(op);
    const outr_core_state *s = r->user;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(BULK_MAX);
    outr_http_response head = {.status = 200};
    outr_err err;
    if (op->err.code) {
        fail(r, s, &op->err);
        return;
    }
    outr_buf_char(&out, '[');
    for (size_t i = 0; i < s->keys.count; i++) {
        if (i)
            outr_buf_char(&out, ',');
        outr_json_quote(&out, outr_core_state_name(s, i));
    }
    outr_buf_char(&out, ']');
    if (out.is_full) {
        outr_core_fail(&err, OUTR_REASON_STATE_GET, "the keys are too large for one answer");
        fail(r, s, &err);
        return;
    }
    outr_headers_init(&head.headers, r->x->arena);
    outr_headers_add(&head.headers, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
    if (s->keys.next.n)
        outr_headers_add(&head.headers, OUTR_STR(NEXT_HEADER),
                         outr_base64_encode(r->x->arena, s->keys.next));
    outr_api_reply_with(r, &head, outr_buf_view(&out));
}

/* False: answered, as if there were no such route. */
static bool has_prefix(outr_api_request *r)
{
    if (outr_headers_has(&r->x->req.headers, PREFIX_HEADER))
        return true;
    outr_api_no_route(r);
    return false;
}

static void list_keys(outr_api_request *r)
{
    const outr_headers *h = &r->x->req.headers;
    outr_str size = outr_headers_get(h, SIZE_HEADER), token = outr_headers_get(h, TOKEN_HEADER);
    int64_t limit = PAGE;
    outr_core_state *s = has_prefix(r) ? begin(r, OUTR_CORE_STATE_KEYS) : NULL;
    if (!s)
        return;
    if (size.n && !outr_str_to_i64(size, 1, PAGE_MAX, &limit)) {
        fail_malformed(r, SIZE_HEADER " must be a number from 1 to 10000");
        return;
    }
    if (token.n && !outr_base64_decode(r->x->arena, token, &s->keys.after)) {
        fail_malformed(r, TOKEN_HEADER " is none of ours");
        return;
    }
    s->keys.prefix = outr_headers_get(h, PREFIX_HEADER);
    s->keys.limit = (size_t)limit;
    run(r, on_keys);
}

static void on_dropped(outr_op *op)
{
    outr_api_request *r = of(op);
    const outr_core_state *s = r->user;
    char text[64];
    if (op->err.code) {
        fail(r, s, &op->err);
        return;
    }
    snprintf(text, sizeof text, "{\"deleted\":%llu}", (unsigned long long)s->drop.deleted);
    outr_api_reply(r, 200, "application/json", outr_str_from(text));
}

static void delete_keys(outr_api_request *r)
{
    outr_core_state *s = has_prefix(r) ? begin(r, OUTR_CORE_STATE_DROP) : NULL;
    if (!s)
        return;
    s->drop.prefix = outr_headers_get(&r->x->req.headers, PREFIX_HEADER);
    if (s->drop.prefix.n == 0) {
        fail_malformed(r, PREFIX_HEADER " must not be empty");
        return;
    }
    run(r, on_dropped);
}

const outr_api_route outr_routes_state[] = {
    {"GET", "/v1.0/state/{store}/{key}", 0, "state", "v1", NULL, get, NULL},
    {"DELETE", "/v1.0/state/{store}/{key}", 0, "state", "v1", NULL, delete, NULL},
    {"POST|PUT", "/v1.0/state/{store}", OUTR_ROUTE_BODY, "state", "v1", NULL, save, NULL},
    {"POST|PUT", "/v1.0/state/{store}/bulk", OUTR_ROUTE_BODY, "state", "v1", NULL, bulk_get, NULL},
    {"POST|PUT", "/v1.0/state/{store}/transaction", OUTR_ROUTE_BODY, "state", "v1", NULL, transact,
     NULL},
    {"POST|PUT", "/v1.0-alpha1/state/{store}/query", OUTR_ROUTE_BODY, "state", "v1alpha1", NULL,
     query, NULL},
    {"GET", "/v1.0/state/{store}", 0, "state", "v1", NULL, list_keys, NULL},
    {"DELETE", "/v1.0/state/{store}", 0, "state", "v1", NULL, delete_keys, NULL},
    {0},
};
