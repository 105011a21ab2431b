#include "api/core/publish.h"
#include "api/http/http_api.h"
#include "base/encode.h"
#include "base/json.h"
#include "blocks/pubsub/envelope.h"

/* Publishing over HTTP, one event or many (contract/http-routes.csv, pubsub.md). */

static void fail(outr_api_request *r, const outr_err *err)
{
    const outr_core_publish *p = r->user;
    outr_api_fail(r, err, &p->details);
}

static void fail_for(outr_api_request *r, outr_reason reason, const char *why)
{
    outr_err err;
    outr_core_publish_fail(r->user, reason, why, &err);
    fail(r, &err);
}

static outr_core_publish *new_call(outr_api_request *r, bool is_bulk)
{
    outr_core_publish *p = outr_arena_alloc(r->x->arena, sizeof *p);
    *p = (outr_core_publish){.core = {r->api, r->view, r->x->arena},
                             .pubsub = r->params[0],
                             .topic = r->params[1],
                             .metadata = outr_api_metadata(r),
                             .trace = &r->trace,
                             .is_bulk = is_bulk};
    r->user = p;
    return p;
}

static void run(outr_api_request *r, outr_op_fn *done)
{
    outr_op_init(&r->op, r->api->loop, NULL, 0, done);
    outr_core_publish_start(r->user, &r->op);
}

static void body_failed(outr_api_request *r, const outr_err *err)
{
    new_call(r, false);
    fail_for(r, OUTR_REASON_PUBSUB_PUBLISH_MESSAGE, err->text);
}

/* ---- one ------------------------------------------------------------------------------------- */

static void on_published(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    if (op->err.code)
        fail(r, &op->err);
    else
        outr_api_empty(r);
}

static void publish(outr_api_request *r)
{
    outr_core_publish *p = new_call(r, false);
    outr_err err;
    if (outr_core_publish_begin(p, 1, &err)) {
        fail(r, &err);
        return;
    }
    outr_publish_item *item = outr_core_publish_next(p);
    item->data = r->body;
    item->content_type = outr_headers_get(&r->x->req.headers, "Content-Type");
    if (outr_core_publish_add(p, &err)) {
        fail(r, &err);
        return;
    }
    run(r, on_published);
}

/* ---- many ------------------------------------------------------------------------------------ */

static void write_failed(outr_buf *out, outr_str entry_id, outr_str error)
{
    if (out->p[out->n - 1] != '[')
        outr_buf_char(out, ',');
    outr_buf_z(out, "{\"entryId\":");
    outr_json_quote(out, entry_id);
    outr_buf_z(out, ",\"error\":");
    outr_json_quote(out, error);
    outr_buf_char(out, '}');
}

static void on_bulk_published(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    const outr_core_publish *p = r->user;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(16 * OUTR_MIB);
    size_t failed = 0;
    if (op->err.code && op->err.reason != OUTR_REASON_PUBSUB_PUBLISH_MESSAGE) {
        fail(r, &op->err);
        return;
    }
    outr_buf_z(&out, "{\"failedEntries\":[");
    for (size_t i = 0; i < outr_core_publish_count(p); i++) {
        outr_str error = outr_core_publish_error(p, i);
        if (!error.n)
            continue;
        failed++;
        write_failed(&out, outr_core_publish_entry_id(p, i), error);
    }
    outr_buf_z(&out, "],\"errorCode\":\"ERR_PUBSUB_PUBLISH_MESSAGE\"}");
    if (out.is_full)
        fail_for(r, OUTR_REASON_PUBSUB_PUBLISH_MESSAGE, "too many entries failed to be listed");
    else if (failed)
        outr_api_reply(r, 500, "application/json", outr_buf_view(&out));
    else
        outr_api_empty(r);
}

/* Bytes of an entry's event as its content type says; false: they do not fit. */
static bool entry_data(outr_arena *arena, const outr_json *event, outr_str type, outr_str *out)
{
    if (outr_is_json_type(type) || outr_is_cloud_event_type(type)) {
        *out = event ? event->raw : OUTR_STR("null");
        return true;
    }
    if (!event || event->kind != OUTR_JSON_STRING)
        return false;
    if (outr_is_binary_type(type))
        return outr_base64_decode(arena, event->text, out);
    *out = event->text;
    return outr_str_starts(type, OUTR_STR("text/")) || outr_str_ends(type, OUTR_STR("xml"));
}

static outr_kvs entry_metadata(outr_arena *arena, const outr_json *own)
{
    if (!own || own->kind != OUTR_JSON_OBJECT)
        return (outr_kvs){0};
    outr_kv *items = outr_arena_alloc(arena, (own->count + 1) * sizeof *items);
    size_t n = 0;
    for (const outr_json *m = own->child; m; m = m->next)
        items[n++] = (outr_kv){m->key, m->text};
    return (outr_kvs){items, n};
}

/* False: answered. */
static bool add_entry(outr_api_request *r, const outr_json *entry)
{
    outr_core_publish *p = r->user;
    outr_publish_item *item = outr_core_publish_next(p);
    outr_err err;
    item->entry_id = outr_json_itext(entry, "entryId"); /* the JavaScript SDK says entryID */
    item->content_type = outr_json_itext(entry, "contentType");
    item->metadata = entry_metadata(r->x->arena, outr_json_ifind(entry, "metadata"));
    if (!entry_data(r->x->arena, outr_json_ifind(entry, "event"), item->content_type,
                    &item->data)) {
        fail_for(r, OUTR_REASON_PUBSUB_MARSHAL_ENVELOPE,
                 "error: mismatch between contentType and event");
        return false;
    }
    if (!outr_core_publish_add(p, &err))
        return true;
    fail(r, &err);
    return false;
}

static void bulk_publish(outr_api_request *r)
{
    outr_core_publish *p = new_call(r, true);
    outr_json *body;
    outr_err err, broken = {0};
    if (!outr_json_parse(&body, r->x->arena, r->body, &broken) && body->kind != OUTR_JSON_ARRAY)
        outr_fail(&broken, OUTR_INVALID_ARGUMENT, "a list of entries is expected");
    if (outr_core_publish_begin(p, broken.code ? 0 : body->count, &err)) {
        fail(r, &err);
        return;
    }
    if (broken.code) {
        fail_for(r, OUTR_REASON_PUBSUB_UNMARSHAL_EVENTS, broken.text);
        return;
    }
    for (const outr_json *entry = body->child; entry; entry = entry->next) {
        if (!add_entry(r, entry))
            return;
    }
    run(r, on_bulk_published);
}

const outr_api_route outr_routes_publish[] = {
    {"POST|PUT", "/v1.0/publish/bulk/{pubsub}/{topic...}", OUTR_ROUTE_BODY, "publish", "v1", NULL,
     bulk_publish, body_failed},
    {"POST|PUT", "/v1.0-alpha1/publish/bulk/{pubsub}/{topic...}", OUTR_ROUTE_BODY, "publish",
     "v1alpha1", NULL, bulk_publish, body_failed},
    {"POST|PUT", "/v1.0/publish/{pubsub}/{topic...}", OUTR_ROUTE_BODY, "publish", "v1", NULL,
     publish, body_failed},
    {0},
};
