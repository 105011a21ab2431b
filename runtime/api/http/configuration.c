#include "api/core/configuration.h"

#include "api/http/http_api.h"
#include "app/channel.h"
#include "base/encode.h"
#include "base/json.h"

/* Configuration over HTTP. What a subscription is told goes to the app, one call for each key that
 * has changed, one after the other. */

#define ANSWER_MAX (64 * OUTR_MIB)
#define POST_ARENA (16 * OUTR_MIB)

/* ---- items as protobuf JSON: what is empty is left out --------------------------------------- */

static void member(outr_buf *out, bool *is_first, const char *name, outr_str value)
{
    if (value.n == 0)
        return;
    outr_buf_printf(out, "%s\"%s\":", *is_first ? "" : ",", name);
    outr_json_quote(out, value);
    *is_first = false;
}

static void write_metadata(outr_buf *out, bool is_first, outr_kvs metadata)
{
    if (metadata.count == 0)
        return;
    outr_buf_z(out, is_first ? "\"metadata\":" : ",\"metadata\":");
    outr_json_quote_kvs(out, metadata);
}

static void write_items(outr_buf *out, const outr_configuration_item *items, size_t count)
{
    outr_buf_char(out, '{');
    for (size_t i = 0; i < count; i++) {
        bool is_first = true;
        if (i > 0)
            outr_buf_char(out, ',');
        outr_json_quote(out, items[i].key);
        outr_buf_z(out, ":{");
        member(out, &is_first, "value", items[i].value);
        member(out, &is_first, "version", items[i].version);
        write_metadata(out, is_first, items[i].metadata);
        outr_buf_char(out, '}');
    }
    outr_buf_char(out, '}');
}

/* ---- get ------------------------------------------------------------------------------------- */

static void fail(outr_api_request *r, const outr_err *failure, outr_reason otherwise)
{
    outr_err err = *failure;
    if (err.reason == OUTR_REASON_NONE) /* cancelled: nobody reads it any more */
        err.reason = otherwise;
    outr_api_fail(r, &err, NULL);
}

static void on_got(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    const outr_core_configuration *c = r->user;
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(ANSWER_MAX);
    outr_err err;
    if (op->err.code) {
        fail(r, &op->err, OUTR_REASON_CONFIGURATION_GET);
        return;
    }
    if (c->get.count == 0) {
        outr_api_empty(r);
        return;
    }
    write_items(&out, c->get.items, c->get.count);
    if (out.is_full) {
        outr_core_fail(&err, OUTR_REASON_CONFIGURATION_GET,
                       "the values are too large for one answer");
        outr_api_fail(r, &err, NULL);
        return;
    }
    outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
}

static void get(outr_api_request *r)
{
    outr_core_configuration *c = outr_arena_alloc(r->x->arena, sizeof *c);
    *c = (outr_core_configuration){.core = {r->api, r->view, r->x->arena},
                                   .store_name = r->params[0]};
    c->get.keys = outr_api_query_all(r, "key", &c->get.key_count);
    c->get.metadata = outr_api_metadata(r);
    r->user = c;
    outr_op_init(&r->op, r->api->loop, NULL, 0, on_got);
    outr_core_configuration_get_start(c, &r->op);
}

/* ---- subscriptions of the app ---------------------------------------------------------------- */

/* Lives as long as the subscription, not as the request that made it. */
typedef struct watcher {
    outr_config_sub sub;
    outr_api *api;
    outr_app *app;
    outr_arena *arena; /* of what is being told; NULL: nothing is */
    const outr_configuration_item *items;
    size_t count, at;
    outr_buf body; /* of the call under way */
    outr_app_fetch fetch;
    outr_op op;
    bool has_ended;
} watcher;

static void tell_next(watcher *w);

static void on_told(outr_op *op)
{
    watcher *w = OUTR_CONTAINER(op, watcher, op);
    outr_buf_done(&w->body);
    if (w->has_ended) {
        outr_arena_free(w->arena);
        free(w);
        return;
    }
    if (op->err.code)
        OUTR_LOG(w->api->log, WARN, "the app was not told of changed configuration",
                 OUTR_S("store", w->sub.store), OUTR_S("key", w->items[w->at].key),
                 OUTR_ERR(&op->err));
    else if (w->fetch.status != 200)
        OUTR_LOG(w->api->log, WARN, "the app answered changed configuration with an error",
                 OUTR_S("store", w->sub.store), OUTR_S("key", w->items[w->at].key),
                 OUTR_I("status", w->fetch.status));
    w->at++;
    tell_next(w);
}

/* False: it is too large to be told. */
static bool write_body(watcher *w, const outr_configuration_item *item)
{
    w->body = OUTR_BUF_MAX(ANSWER_MAX);
    outr_buf_z(&w->body, "{\"id\":");
    outr_json_quote(&w->body, outr_str_from(w->sub.id));
    outr_buf_z(&w->body, ",\"items\":");
    write_items(&w->body, item, 1);
    outr_buf_char(&w->body, '}');
    if (!w->body.is_full)
        return true;
    outr_buf_done(&w->body);
    OUTR_LOG(w->api->log, WARN, "changed configuration is too large for the app to be told",
             OUTR_S("store", w->sub.store), OUTR_S("key", item->key));
    return false;
}

static void tell_next(watcher *w)
{
    outr_app_fetch *f = &w->fetch;
    while (w->at < w->count && !write_body(w, &w->items[w->at]))
        w->at++;
    if (w->at == w->count) {
        outr_arena_free(outr_take(&w->arena));
        outr_config_sub_go_on(&w->sub);
        return;
    }
    const outr_configuration_item *item = &w->items[w->at];
    *f = (outr_app_fetch){
        .method = OUTR_STR("POST"), .max_body = OUTR_MIB, .is_invocation = true};
    f->target = outr_arena_join(w->arena, OUTR_STR("/configuration/"),
                                outr_percent_encode(w->arena, w->sub.store, ""), OUTR_STR("/"));
    f->target = outr_arena_join(w->arena, f->target, outr_percent_encode(w->arena, item->key, ""),
                                OUTR_STR_NONE);
    f->body = outr_buf_view(&w->body);
    outr_headers_init(&f->headers, w->arena);
    outr_headers_add(&f->headers, OUTR_STR("Content-Type"), OUTR_STR("application/json"));
    outr_op_init(&w->op, w->sub.loop, NULL, 0, on_told);
    outr_app_fetch_start(w->app, f, &w->op);
}

static void on_update(outr_config_sub *sub, const outr_configuration_item *items, size_t count)
{
    watcher *w = OUTR_CONTAINER(sub, watcher, sub);
    w->arena = outr_arena_new(POST_ARENA);
    outr_configuration_item *copy = outr_arena_alloc(w->arena, (count + 1) * sizeof *copy);
    for (size_t i = 0; i < count; i++) {
        copy[i].key = outr_arena_str(w->arena, items[i].key);
        copy[i].value = outr_arena_str(w->arena, items[i].value);
        copy[i].version = outr_arena_str(w->arena, items[i].version);
    }
    w->items = copy;
    w->count = count;
    w->at = 0;
    tell_next(w);
}

static void on_end(outr_config_sub *sub, const outr_err *err)
{
    watcher *w = OUTR_CONTAINER(sub, watcher, sub);
    if (err)
        OUTR_LOG(w->api->log, WARN, "a subscription to configuration has ended",
                 OUTR_S("store", sub->store), OUTR_ERR(err));
    if (!w->arena) {
        free(w);
        return;
    }
    w->has_ended = true; /* freed when the app's call has ended */
    outr_op_cancel(&w->op, OUTR_CANCELLED);
}

typedef struct subscribing {
    outr_core_config_subscribe call;
    watcher *watcher;
} subscribing;

static void on_subscribed(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    subscribing *s = r->user;
    char text[64];
    if (op->err.code) {
        free(s->watcher); /* on_end is not called */
        fail(r, &op->err, OUTR_REASON_CONFIGURATION_SUBSCRIBE);
        return;
    }
    snprintf(text, sizeof text, "{\"id\":\"%s\"}", s->watcher->sub.id);
    outr_api_reply(r, 200, "application/json", outr_str_from(text));
}

static void subscribe(outr_api_request *r)
{
    outr_app *app = r->api->app;
    outr_err err;
    subscribing *s = outr_arena_alloc(r->x->arena, sizeof *s);
    s->call.core = (outr_core){r->api, r->view, r->x->arena};
    outr_code rc = outr_core_configuration_check(&s->call.core, r->params[0], &err);
    if (!rc && !outr_app_is_configured(app))
        rc = outr_core_fail(
            &err, OUTR_REASON_APP_CHANNEL_NIL,
            "app channel is not initialized. cannot subscribe to configuration updates");
    if (rc) {
        outr_api_fail(r, &err, NULL);
        return;
    }
    watcher *w = outr_alloc(sizeof *w);
    *w = (watcher){.api = r->api, .app = app};
    w->sub = (outr_config_sub){.store = r->params[0],
                               .metadata = outr_api_metadata(r),
                               .loop = r->api->loop,
                               .on_update = on_update,
                               .on_end = on_end};
    w->sub.keys = outr_api_query_all(r, "key", &w->sub.key_count);
    s->watcher = w;
    s->call.sub = &w->sub;
    r->user = s;
    outr_op_init(&r->op, r->api->loop, NULL, 0, on_subscribed);
    outr_core_config_subscribe_start(&s->call, &r->op);
}

/* ---- unsubscribe: an error has a form of its own --------------------------------------------- */

static void on_unsubscribed(outr_op *op)
{
    outr_api_request *r = OUTR_CONTAINER(op, outr_api_request, op);
    if (!op->err.code) {
        outr_api_reply(r, 200, "application/json", OUTR_STR("{\"ok\":true}"));
        return;
    }
    if (op->err.reason != OUTR_REASON_CONFIGURATION_UNSUBSCRIBE) {
        fail(r, &op->err, OUTR_REASON_CONFIGURATION_UNSUBSCRIBE);
        return;
    }
    OUTR_AUTO(outr_buf) body = OUTR_BUF_MAX(4 * OUTR_KIB);
    outr_buf_z(&body, "{\"message\":");
    outr_json_quote(&body, outr_str_from(op->err.text));
    outr_buf_char(&body, '}');
    outr_api_reply(r, 500, "application/json", outr_buf_view(&body));
}

static void unsubscribe(outr_api_request *r)
{
    outr_core_config_unsubscribe *c = outr_arena_alloc(r->x->arena, sizeof *c);
    *c = (outr_core_config_unsubscribe){.core = {r->api, r->view, r->x->arena},
                                        .store_name = r->params[0],
                                        .id = r->params[1]};
    outr_op_init(&r->op, r->api->loop, NULL, 0, on_unsubscribed);
    outr_core_config_unsubscribe_start(c, &r->op);
}

#define ROUTES(prefix, api_version)                                                                \
    {"GET", prefix "/configuration/{store}", 0, "configuration", api_version, NULL, get, NULL},    \
        {"GET",       prefix "/configuration/{store}/subscribe",                                   \
         0,           "configuration",                                                             \
         api_version, NULL,                                                                        \
         subscribe,   NULL},                                                                       \
    {                                                                                              \
        "GET", prefix "/configuration/{store}/{id}/unsubscribe", 0, "configuration", api_version,  \
            NULL, unsubscribe, NULL                                                                \
    }

const outr_api_route outr_routes_configuration[] = {
    ROUTES("/v1.0", "v1"),
    ROUTES("/v1.0-alpha1", "v1alpha1"),
    {0},
};
