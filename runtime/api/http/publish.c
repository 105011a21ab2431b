#include "api/http/http_api.h"
#include "base/json.h"
#include "base/encode.h"
#include "blocks/pubsub/envelope.h"
#include "blocks/pubsub/topics.h"

/* Publishing over HTTP, one event or many (contract/http-routes.csv, pubsub.md). */

static const outr_metric_desc egress = {"dapr_component_pubsub_egress_count",
                                        "publish calls",
                                        OUTR_COUNTER,
                                        0,
                                        {"component", "namespace", "success", "topic"}};
static const outr_metric_desc egress_latency = {"dapr_component_pubsub_egress_latencies",
                                                "time of publish calls, ms",
                                                OUTR_HISTOGRAM,
                                                OUTR_BUCKETS_LATENCY_MS,
                                                {"component", "namespace", "success", "topic"}};
static const outr_metric_desc egress_bulk = {"dapr_component_pubsub_egress_bulk_count",
                                             "bulk publish calls",
                                             OUTR_COUNTER,
                                             0,
                                             {"component", "namespace", "success", "topic"}};

typedef struct publishing {
    const outr_component *c;
    outr_publish req;
    outr_str topic;
    bool is_raw, is_bulk;
    uint64_t began_ns;
} publishing;

static void fail(outr_api_request *r, outr_reason reason, outr_str text,
                 const outr_details *details)
{
    outr_err err;
    outr_fail_reason(&err, (outr_code)outr_reason_find(reason)->grpc_status, reason, OUTR_FMT,
                     OUTR_ARG(text));
    outr_api_fail(r, &err, details);
}

static outr_details resource(const outr_api_request *r, outr_str description)
{
    return (outr_details){.is_rich = true,
                          .has_metadata = true,
                          .has_resource = true,
                          .resource_type = OUTR_STR("pubsub"),
                          .resource_name = r->params[0],
                          .resource_owner = OUTR_STR(""),
                          .resource_description = description};
}

static void fail_with(outr_api_request *r, outr_reason reason, outr_str text, const char *error)
{
    outr_details d = resource(r, text);
    d.metadata[d.metadata_count++] = (outr_kv){OUTR_STR("appID"), r->api->settings->app_id};
    if (error)
        d.metadata[d.metadata_count++] = (outr_kv){OUTR_STR("error"), outr_str_from(error)};
    fail(r, reason, text, &d);
}

/* Component, scopes, metadata. NULL: answered. */
static publishing *begin(outr_api_request *r)
{
    const outr_settings *s = r->api->settings;
    publishing *p = outr_arena_alloc(r->x->arena, sizeof *p);
    r->user = p;
    p->c = outr_view_find(r->view, OUTR_KIND_PUBSUB, r->params[0]);
    p->topic = r->params[1];
    p->req.metadata = outr_api_metadata(r);
    if (!p->c) {
        outr_details d = {.is_rich = true, .has_metadata = true};
        fail(r, OUTR_REASON_PUBSUB_NOT_FOUND,
             outr_arena_printf(r->x->arena, "pubsub " OUTR_FMT " is not found",
                               OUTR_ARG(r->params[0])),
             &d);
        return NULL;
    }
    const outr_kv *raw = outr_kvs_find_exact(p->req.metadata, OUTR_STR("rawPayload"));
    if (raw && !outr_str_to_bool(raw->value, &p->is_raw)) {
        fail_with(r, OUTR_REASON_PUBSUB_METADATA_DESERIALIZATION,
                  outr_arena_printf(r->x->arena,
                                    "failed deserializing metadata: rawPayload value must be a "
                                    "valid boolean: actual is '" OUTR_FMT "'",
                                    OUTR_ARG(raw->value)),
                  NULL);
        return NULL;
    }
    if (!outr_topic_is_allowed(p->c->metadata, "publishingScopes", s->app_id, p->topic)) {
        outr_str text =
            outr_arena_printf(r->x->arena, "topic " OUTR_FMT " is not allowed for app id " OUTR_FMT,
                              OUTR_ARG(p->topic), OUTR_ARG(s->app_id));
        outr_details d = resource(r, text);
        d.metadata[0] = (outr_kv){OUTR_STR("error"), text};
        d.metadata[1] = (outr_kv){OUTR_STR("topic"), p->topic};
        d.metadata_count = 2;
        fail(r, OUTR_REASON_PUBSUB_FORBIDDEN, text, &d);
        return NULL;
    }
    p->req.topic = p->topic;
    for (size_t i = 0; i < p->c->spec->metadata_count; i++) {
        if (outr_str_search(p->c->spec->metadata[i].value, OUTR_STR("{namespace}")) >= 0)
            p->req.topic = outr_arena_join(r->x->arena, s->namespace_, p->topic, OUTR_STR_NONE);
    }
    return p;
}

static outr_code wrap(outr_api_request *r, outr_publish_item *item, outr_kvs metadata,
                      outr_err *err)
{
    publishing *p = r->user;
    char text[OUTR_TRACEPARENT_LEN + 1] = "";
    if (p->is_raw)
        return OUTR_OK;
    if (r->trace.is_valid)
        outr_trace_write(&r->trace, text);
    const outr_envelope e = {
        .pubsub = r->params[0],
        .topic = p->topic,
        .app_id = r->api->settings->app_id,
        .content_type = item->content_type,
        .metadata = metadata,
        .traceparent = outr_arena_str(r->x->arena, outr_str_from(text)),
        .tracestate = r->trace.state,
        .now_ns = outr_loop_unix_ns(r->api->loop),
        .broker_expires = (p->c->broker->backend->features(p->c->broker) & OUTR_PUBSUB_TTL) != 0,
        .rand = outr_loop_rand(r->api->loop),
    };
    return outr_envelope_wrap(&item->data, r->x->arena, &e, item->data, err);
}

static void count(const outr_api_request *r, bool is_good)
{
    const publishing *p = r->user;
    const outr_str labels[] = {p->c->spec->base.name, OUTR_STR(""),
                               is_good ? OUTR_STR("true") : OUTR_STR("false"), p->topic};
    outr_metric_count(r->api->metrics, p->is_bulk ? &egress_bulk : &egress, labels, 1);
    outr_metric_count(r->api->metrics, &egress_latency, labels,
                      (double)(outr_loop_update(r->api->loop) - p->began_ns) / (double)OUTR_MS);
}

static void run(outr_api_request *r, outr_op_fn *done)
{
    publishing *p = r->user;
    p->began_ns = outr_loop_now(r->api->loop);
    outr_op_init(&r->op, r->api->loop, NULL, 0, done);
    p->c->broker->backend->publish(p->c->broker, &p->req, &r->op);
}

/* ---- one ------------------------------------------------------------------------------------- */

static void on_published(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    const publishing *p = r->user;
    count(r, !op->err.code);
    if (!op->err.code)
        outr_api_empty(r);
    else
        fail_with(r, OUTR_REASON_PUBSUB_PUBLISH_MESSAGE,
                  outr_arena_printf(r->x->arena,
                                    "error when publish to topic " OUTR_FMT " in pubsub " OUTR_FMT
                                    ": %s",
                                    OUTR_ARG(p->topic), OUTR_ARG(r->params[0]), op->err.text),
                  op->err.text);
}

static void publish(outr_api_request *r)
{
    publishing *p = begin(r);
    outr_err err;
    if (!p)
        return;
    outr_publish_item *item = outr_arena_alloc(r->x->arena, sizeof *item);
    item->data = r->body;
    item->content_type = outr_headers_get(&r->x->req.headers, "Content-Type");
    item->metadata = p->req.metadata;
    if (wrap(r, item, p->req.metadata, &err)) {
        fail_with(r, OUTR_REASON_PUBSUB_CLOUD_EVENT_CREATION, OUTR_STR("cannot create cloudevent"),
                  err.text);
        return;
    }
    p->req.items = item;
    p->req.count = 1;
    run(r, on_published);
}

static void body_failed(outr_api_request *r, const outr_err *err)
{
    fail_with(r, OUTR_REASON_PUBSUB_PUBLISH_MESSAGE,
              outr_arena_printf(r->x->arena,
                                "error when publish to topic " OUTR_FMT " in pubsub " OUTR_FMT
                                ": %s",
                                OUTR_ARG(r->params[1]), OUTR_ARG(r->params[0]), err->text),
              err->text);
}

/* ---- many ------------------------------------------------------------------------------------ */

static void on_bulk_published(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    const publishing *p = r->user;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(16 * OUTR_MIB);
    count(r, !op->err.code);
    if (!op->err.code) {
        outr_api_empty(r);
        return;
    }
    outr_buf_z(&out, "{\"failedEntries\":[");
    for (size_t i = 0; i < p->req.count; i++) {
        const outr_publish_item *item = &p->req.items[i];
        if (i)
            outr_buf_char(&out, ',');
        outr_buf_z(&out, "{\"entryId\":");
        outr_json_quote(&out, item->entry_id);
        outr_buf_z(&out, ",\"error\":");
        outr_json_quote(&out, outr_str_from(item->err.code ? item->err.text : op->err.text));
        outr_buf_char(&out, '}');
    }
    outr_buf_z(&out, "],\"errorCode\":\"ERR_PUBSUB_PUBLISH_MESSAGE\"}");
    outr_api_reply(r, 500, "application/json", outr_buf_view(&out));
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

static outr_kvs entry_metadata(outr_arena *arena, const outr_json *own, outr_kvs of_request)
{
    if (!own || own->kind != OUTR_JSON_OBJECT)
        return (outr_kvs){0};
    outr_kv *items = outr_arena_alloc(arena, (own->count + of_request.count + 1) * sizeof *items);
    size_t n = 0;
    for (const outr_json *m = own->child; m; m = m->next)
        items[n++] = (outr_kv){m->key, m->text};
    for (size_t i = 0; i < of_request.count; i++)
        items[n++] = of_request.items[i];
    return (outr_kvs){items, n};
}

static void bulk_publish(outr_api_request *r)
{
    publishing *p = begin(r);
    outr_json *body;
    outr_err err;
    if (!p)
        return;
    outr_code rc = outr_json_parse(&body, r->x->arena, r->body, &err);
    if (!rc && body->kind != OUTR_JSON_ARRAY)
        rc = outr_fail(&err, OUTR_INVALID_ARGUMENT, "a list of entries is expected");
    if (rc) {
        fail_with(r, OUTR_REASON_PUBSUB_UNMARSHAL_EVENTS,
                  outr_arena_printf(r->x->arena,
                                    "error when unmarshaling the request for topic " OUTR_FMT
                                    " pubsub " OUTR_FMT ": %s",
                                    OUTR_ARG(p->topic), OUTR_ARG(r->params[0]), err.text),
                  NULL);
        return;
    }
    outr_publish_item *items = outr_arena_alloc(r->x->arena, (body->count + 1) * sizeof *items);
    outr_map *ids = outr_map_new();
    size_t n = 0;
    outr_arena_defer(r->x->arena, (void (*)(void *))outr_map_free, ids);
    p->is_bulk = true;
    for (const outr_json *e = body->child; e; e = e->next, n++) {
        outr_publish_item *item = &items[n];
        item->entry_id = outr_json_text(e, "entryId");
        item->content_type = outr_json_text(e, "contentType");
        item->metadata =
            entry_metadata(r->x->arena, outr_json_find(e, "metadata"), p->req.metadata);
        if (!entry_data(r->x->arena, outr_json_find(e, "event"), item->content_type, &item->data)) {
            fail_with(r, OUTR_REASON_PUBSUB_MARSHAL_ENVELOPE,
                      outr_arena_printf(
                          r->x->arena,
                          "error when marshalling cloud event envelope for topic " OUTR_FMT
                          " pubsub " OUTR_FMT ": error: mismatch between contentType and event",
                          OUTR_ARG(p->topic), OUTR_ARG(r->params[0])),
                      "error: mismatch between contentType and event");
            return;
        }
        if (item->entry_id.n == 0 || outr_map_put(ids, item->entry_id, item)) {
            static const char why[] = "entryId is duplicated or not present for entry";
            fail_with(r, OUTR_REASON_PUBSUB_MARSHAL_EVENTS,
                      outr_arena_printf(r->x->arena,
                                        "error marshaling events to bytes for topic " OUTR_FMT
                                        " pubsub " OUTR_FMT ". error: %s",
                                        OUTR_ARG(p->topic), OUTR_ARG(r->params[0]), why),
                      why);
            return;
        }
        if (wrap(r, item, item->metadata, &err)) {
            fail_with(r, OUTR_REASON_PUBSUB_CLOUD_EVENT_CREATION,
                      OUTR_STR("cannot create cloudevent"), err.text);
            return;
        }
    }
    if (n == 0) {
        outr_api_empty(r);
        return;
    }
    p->req.items = items;
    p->req.count = n;
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
