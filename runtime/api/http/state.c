#include "api/core/state.h"
#include "api/http/http_api.h"
#include "base/json.h"

/* The state routes (contract/http-routes.csv): JSON in, the core's operation, JSON out. */

typedef struct state_request {
    outr_core_state core;
    outr_core_state_call call;
    outr_details details;
    outr_str store_name, key;
    outr_str *names; /* client's keys of a bulk read */
} state_request;

static void fail(outr_api_request *r, const outr_err *err)
{
    state_request *s = r->user;
    outr_api_fail(r, err, s->details.is_rich ? &s->details : NULL);
}

static void fail_text(outr_api_request *r, outr_reason reason, outr_str text)
{
    outr_err err;
    outr_fail_reason(&err, (outr_code)outr_reason_find(reason)->grpc_status, reason, OUTR_FMT,
                     OUTR_ARG(text));
    outr_api_fail(r, &err, NULL);
}

/* The store of the path. On failure details say what the answer tells of it. */
static outr_code find_store(outr_api_request *r, state_request **out, outr_err *err)
{
    state_request *s = outr_arena_alloc(r->x->arena, sizeof *s);
    *out = s;
    r->user = s;
    s->core = (outr_core_state){r->api->loop, r->api->settings, r->view};
    s->store_name = r->params[0];
    return outr_core_state_find(&s->core, s->store_name, &s->call.store, err, &s->details);
}

/* The store of the path; NULL: answered. */
static state_request *begin(outr_api_request *r)
{
    state_request *s;
    outr_err err;
    if (find_store(r, &s, &err)) {
        fail(r, &err);
        return NULL;
    }
    s->details.is_rich = false;
    return s;
}

static bool make_key(outr_api_request *r, outr_str key, outr_str *out)
{
    state_request *s = r->user;
    outr_err err;
    if (!outr_core_state_key(&s->core, s->call.store, r->x->arena, key, out, &err, &s->details))
        return true;
    fail(r, &err);
    return false;
}

static void run(outr_api_request *r, const char *operation, outr_op_fn *done)
{
    state_request *s = r->user;
    s->call.operation = operation;
    outr_op_init(&r->op, r->api->loop, NULL, 0, done);
    outr_core_state_start(&s->call, &r->op);
}

static outr_api_request *of(outr_op *op)
{
    return OUTR_CONTAINER(op, outr_api_request, op);
}

static bool parse_body(outr_api_request *r, outr_json **out)
{
    outr_err err;
    if (!outr_json_parse(out, r->x->arena, r->body, &err))
        return true;
    fail_text(r, OUTR_REASON_MALFORMED_REQUEST,
              outr_arena_printf(r->x->arena, "failed deserializing HTTP body: %s", err.text));
    return false;
}

/* ---- get ------------------------------------------------------------------------------------- */

static void on_got(outr_op *op)
{
    outr_api_request *r = of(op);
    state_request *s = r->user;
    const outr_state_item *item = s->call.get.items;
    if (op->err.code) {
        fail_text(r, OUTR_REASON_STATE_GET,
                  outr_arena_printf(r->x->arena,
                                    "fail to get " OUTR_FMT " from state store " OUTR_FMT ": %s",
                                    OUTR_ARG(s->key), OUTR_ARG(s->store_name), op->err.text));
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

static outr_consistency consistency_of(outr_str text)
{
    return outr_str_is(text, "strong")     ? OUTR_STRONG
           : outr_str_is(text, "eventual") ? OUTR_EVENTUAL
                                           : OUTR_CONSISTENCY_UNSET;
}

static void get(outr_api_request *r)
{
    state_request *s = begin(r);
    if (!s)
        return;
    outr_state_item *item = outr_arena_alloc(r->x->arena, sizeof *item);
    s->key = r->params[1];
    if (!make_key(r, s->key, &item->key))
        return;
    s->call.get = (outr_state_get){.arena = r->x->arena,
                                   .items = item,
                                   .count = 1,
                                   .metadata = outr_api_metadata(r),
                                   .consistency = consistency_of(outr_api_query(r, "consistency"))};
    run(r, "get", on_got);
}

/* ---- bulk get -------------------------------------------------------------------------------- */

static void on_bulk_got(outr_op *op)
{
    outr_api_request *r = of(op);
    state_request *s = r->user;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(512 * OUTR_MIB);
    if (op->err.code) {
        fail_text(r, OUTR_REASON_STATE_BULK_GET, outr_str_from(op->err.text));
        return;
    }
    outr_buf_char(&out, '[');
    for (size_t i = 0; i < s->call.get.count; i++) {
        const outr_state_item *item = &s->call.get.items[i];
        outr_buf_z(&out, i ? ",{\"key\":" : "{\"key\":");
        outr_json_quote(&out, s->names[i]);
        if (item->is_found && item->value.n) {
            outr_buf_z(&out, ",\"data\":");
            outr_buf_str(&out, item->value);
        }
        if (item->etag.n) {
            outr_buf_z(&out, ",\"etag\":");
            outr_json_quote(&out, item->etag);
        }
        if (item->ttl_expire_time.n) {
            outr_buf_z(&out, ",\"metadata\":{\"ttlExpireTime\":");
            outr_json_quote(&out, item->ttl_expire_time);
            outr_buf_char(&out, '}');
        }
        outr_buf_char(&out, '}');
    }
    outr_buf_char(&out, ']');
    outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
}

static void bulk_get(outr_api_request *r)
{
    state_request *s = begin(r);
    outr_json *body;
    if (!s || !parse_body(r, &body))
        return;
    const outr_json *keys = outr_json_ifind(body, "keys");
    bool is_good = body->kind == OUTR_JSON_OBJECT &&
                   (!keys || keys->kind == OUTR_JSON_ARRAY || keys->kind == OUTR_JSON_NULL);
    for (const outr_json *k = keys ? keys->child : NULL; k; k = k->next)
        is_good = is_good && k->kind == OUTR_JSON_STRING;
    if (!is_good) {
        fail_text(r, OUTR_REASON_MALFORMED_REQUEST,
                  OUTR_STR("failed deserializing HTTP body: keys must be a list of strings"));
        return;
    }
    size_t n = keys ? keys->count : 0, i = 0;
    outr_state_item *items = outr_arena_alloc(r->x->arena, (n + 1) * sizeof *items);
    s->names = outr_arena_alloc(r->x->arena, (n + 1) * sizeof *s->names);
    for (const outr_json *k = keys ? keys->child : NULL; k; k = k->next, i++) {
        s->names[i] = k->text;
        if (!make_key(r, k->text, &items[i].key))
            return;
    }
    s->call.get = (outr_state_get){
        .arena = r->x->arena, .items = items, .count = n, .metadata = outr_api_metadata(r)};
    if (n == 0)
        outr_api_reply(r, 200, "application/json", OUTR_STR("[]"));
    else
        run(r, "bulk_get", on_bulk_got);
}

/* ---- writes ---------------------------------------------------------------------------------- */

static outr_kvs read_metadata(outr_arena *arena, const outr_json *object, outr_kvs query)
{
    size_t max = (object && object->kind == OUTR_JSON_OBJECT ? object->count : 0) + query.count,
           n = 0;
    outr_kv *items = outr_arena_alloc(arena, (max + 1) * sizeof *items);
    for (size_t i = 0; i < query.count; i++)
        items[n++] = query.items[i]; /* the query wins: it is found first */
    for (const outr_json *m = object && object->kind == OUTR_JSON_OBJECT ? object->child : NULL; m;
         m = m->next)
        items[n++] = (outr_kv){m->key, m->text};
    return (outr_kvs){items, n};
}

/* Text stored for a JSON value: parsed and written again as Go does (contract/state.md). */
static outr_str encode_value(outr_arena *arena, const outr_json *value)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(64 * OUTR_MIB);
    outr_json_write(&out, value, OUTR_JSON_SORTED | OUTR_JSON_FLOAT64);
    return outr_arena_str(arena, outr_buf_view(&out));
}

static bool read_options(const outr_json *options, outr_state_write *w, outr_err *err)
{
    outr_str concurrency = outr_json_text(options, "concurrency"),
             consistency = outr_json_text(options, "consistency");
    if (outr_str_is(concurrency, "first-write"))
        w->concurrency = OUTR_FIRST_WRITE;
    else if (outr_str_is(concurrency, "last-write"))
        w->concurrency = OUTR_LAST_WRITE;
    else if (concurrency.n)
        return outr_fail(err, OUTR_INTERNAL, "unrecognized concurrency model '" OUTR_FMT "'",
                         OUTR_ARG(concurrency)),
               false;
    w->consistency = consistency_of(consistency);
    if (consistency.n && w->consistency == OUTR_CONSISTENCY_UNSET)
        return outr_fail(err, OUTR_INTERNAL, "unrecognized consistency model '" OUTR_FMT "'",
                         OUTR_ARG(consistency)),
               false;
    return true;
}

/* One {key, value, etag, metadata, options}. False: answered. */
static bool read_item(outr_api_request *r, const outr_json *item, outr_kvs query,
                      outr_state_write *w)
{
    const outr_json *key = outr_json_ifind(item, "key"), *value = outr_json_ifind(item, "value"),
                    *etag = outr_json_ifind(item, "etag");
    outr_err err;
    state_request *s = r->user;
    if (item->kind != OUTR_JSON_OBJECT || (key && key->kind != OUTR_JSON_STRING) ||
        (etag && etag->kind != OUTR_JSON_STRING && etag->kind != OUTR_JSON_NULL)) {
        fail_text(
            r, OUTR_REASON_MALFORMED_REQUEST,
            OUTR_STR("failed deserializing HTTP body: an item's key and etag must be strings"));
        return false;
    }
    if (!key || key->text.n == 0) {
        fail_text(r, OUTR_REASON_MALFORMED_REQUEST, OUTR_STR("\"key\" is a required field"));
        return false;
    }
    if (!make_key(r, key->text, &w->key))
        return false;
    if (!read_options(outr_json_ifind(item, "options"), w, &err)) {
        fail_text(r, OUTR_REASON_STATE_SAVE,
                  outr_arena_printf(r->x->arena,
                                    "failed saving state in state store " OUTR_FMT ": %s",
                                    OUTR_ARG(s->store_name), err.text));
        return false;
    }
    w->metadata = read_metadata(r->x->arena, outr_json_ifind(item, "metadata"), query);
    w->has_etag = etag && etag->kind == OUTR_JSON_STRING;
    w->etag = w->has_etag ? etag->text : OUTR_STR_NONE;
    w->content_type = outr_json_text(item, "contentType");
    w->value = value ? encode_value(r->x->arena, value) : OUTR_STR("null");
    return true;
}

static int status_of(const outr_err *err)
{
    return err->code == OUTR_ABORTED ? 409 : err->code == OUTR_INVALID_ARGUMENT ? 400 : 500;
}

static void on_saved(outr_op *op)
{
    outr_api_request *r = of(op);
    state_request *s = r->user;
    outr_err err;
    if (!op->err.code) {
        outr_api_empty(r);
        return;
    }
    outr_fail_reason(&err, op->err.code, OUTR_REASON_STATE_SAVE,
                     "failed saving state in state store " OUTR_FMT ": %s", OUTR_ARG(s->store_name),
                     op->err.text);
    outr_api_fail_status(r, status_of(&op->err), &err, NULL);
}

static void save(outr_api_request *r)
{
    state_request *s = begin(r);
    outr_json *body;
    outr_err err;
    if (!s)
        return;
    outr_code rc = outr_json_parse(&body, r->x->arena, r->body, &err);
    if (!rc && body->kind != OUTR_JSON_ARRAY)
        rc = outr_fail(&err, OUTR_INVALID_ARGUMENT, "a list of items is expected");
    if (rc) {
        fail_text(r, OUTR_REASON_MALFORMED_REQUEST, outr_arena_printf(r->x->arena, "%s", err.text));
        return;
    }
    outr_kvs query = outr_api_metadata(r);
    outr_state_write *items = outr_arena_alloc(r->x->arena, (body->count + 1) * sizeof *items);
    size_t n = 0;
    for (const outr_json *item = body->child; item; item = item->next) {
        if (!read_item(r, item, query, &items[n++]))
            return;
    }
    if (n == 0) {
        outr_api_empty(r);
        return;
    }
    s->call.is_write = true;
    s->call.writes = (outr_state_writes){.arena = r->x->arena, .items = items, .count = n};
    run(r, "set", on_saved);
}

static void on_deleted(outr_op *op)
{
    outr_api_request *r = of(op);
    state_request *s = r->user;
    outr_err err;
    if (!op->err.code) {
        outr_api_empty(r);
        return;
    }
    outr_fail_reason(&err, op->err.code, OUTR_REASON_STATE_DELETE,
                     "failed deleting state with key " OUTR_FMT ": %s", OUTR_ARG(s->key),
                     op->err.text);
    outr_api_fail_status(r, status_of(&op->err), &err, NULL);
}

static void delete (outr_api_request *r)
{
    state_request *s = begin(r);
    if (!s)
        return;
    outr_state_write *w = outr_arena_alloc(r->x->arena, sizeof *w);
    s->key = r->params[1];
    if (!make_key(r, s->key, &w->key))
        return;
    w->kind = OUTR_STATE_DELETE;
    w->has_etag = outr_headers_has(&r->x->req.headers, "If-Match");
    w->etag = outr_headers_get(&r->x->req.headers, "If-Match");
    w->concurrency = outr_str_is(outr_api_query(r, "concurrency"), "first-write")
                         ? OUTR_FIRST_WRITE
                         : OUTR_CONCURRENCY_UNSET;
    w->consistency = consistency_of(outr_api_query(r, "consistency"));
    w->metadata = outr_api_metadata(r);
    s->call.is_write = true;
    s->call.writes = (outr_state_writes){.arena = r->x->arena, .items = w, .count = 1};
    run(r, "delete", on_deleted);
}

/* ---- transaction, query ---------------------------------------------------------------------- */

static void on_transacted(outr_op *op)
{
    outr_api_request *r = of(op);
    if (!op->err.code)
        outr_api_empty(r);
    else
        fail_text(r, OUTR_REASON_STATE_TRANSACTION,
                  outr_arena_printf(r->x->arena, "error while executing state transaction: %s",
                                    op->err.text));
}

static void transact(outr_api_request *r)
{
    state_request *s = begin(r);
    outr_json *body;
    if (!s || !parse_body(r, &body))
        return;
    const outr_json *operations = outr_json_ifind(body, "operations");
    if (body->kind != OUTR_JSON_OBJECT ||
        (operations && operations->kind != OUTR_JSON_ARRAY && operations->kind != OUTR_JSON_NULL)) {
        fail_text(r, OUTR_REASON_MALFORMED_REQUEST,
                  OUTR_STR("failed deserializing HTTP body: operations must be a list"));
        return;
    }
    size_t max = operations ? operations->count : 0, n = 0;
    outr_state_write *items = outr_arena_alloc(r->x->arena, (max + 1) * sizeof *items);
    outr_kvs query =
        read_metadata(r->x->arena, outr_json_ifind(body, "metadata"), outr_api_metadata(r));
    for (const outr_json *o = operations ? operations->child : NULL; o; o = o->next) {
        const outr_json *operation = outr_json_ifind(o, "operation"),
                        *request = outr_json_ifind(o, "request");
        outr_str kind = operation ? operation->text : OUTR_STR("");
        if (!outr_str_is(kind, "upsert") && !outr_str_is(kind, "delete")) {
            fail_text(r, OUTR_REASON_NOT_SUPPORTED_STATE_OPERATION,
                      outr_arena_printf(r->x->arena, "operation type " OUTR_FMT " not supported",
                                        OUTR_ARG(kind)));
            return;
        }
        if (!request) {
            fail_text(r, OUTR_REASON_MALFORMED_REQUEST,
                      OUTR_STR("failed deserializing HTTP body: an operation has no request"));
            return;
        }
        if (!read_item(r, request, query, &items[n]))
            return;
        items[n++].kind = outr_str_is(kind, "delete") ? OUTR_STATE_DELETE : OUTR_STATE_UPSERT;
    }
    if (n == 0) {
        outr_api_empty(r);
        return;
    }
    s->call.is_write = true;
    s->call.writes = (outr_state_writes){
        .arena = r->x->arena, .is_atomic = true, .items = items, .count = n, .metadata = query};
    run(r, "transaction", on_transacted);
}

static void query(outr_api_request *r)
{
    state_request *s;
    outr_err err;
    if (find_store(r, &s, &err)) {
        s->details = (outr_details){.is_rich = true}; /* the reference names no app on this route */
        fail(r, &err);
        return;
    }
    s->details = (outr_details){.is_rich = true,
                                .has_resource = true,
                                .resource_type = OUTR_STR("state"),
                                .resource_name = s->store_name,
                                .resource_owner = OUTR_STR(""),
                                .resource_description = OUTR_STR("")};
    outr_fail_reason(&err, OUTR_INTERNAL, OUTR_REASON_STATE_QUERYING_NOT_SUPPORTED,
                     "state store does not support querying");
    fail(r, &err);
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
    {0},
};
