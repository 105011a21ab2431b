#include "api/core/metadata.h"
#include "api/http/http_api.h"
#include "base/json.h"
#include "blocks/pubsub/pubsub.h"

/* Health, metadata and shutdown. */

/* ---- health ---------------------------------------------------------------------------------- */

static void get_health(outr_api_request *r)
{
    outr_err err;
    if (!outr_health_is_ready(r->api->health)) {
        OUTR_AUTO(outr_buf) missing = OUTR_BUF_MAX(512);
        outr_health_missing(r->api->health, &missing);
        outr_fail_reason(&err, OUTR_INTERNAL, OUTR_REASON_HEALTH_NOT_READY,
                         "dapr is not ready: " OUTR_FMT, OUTR_ARG(outr_buf_view(&missing)));
        outr_api_fail(r, &err, NULL);
        return;
    }
    outr_str app_id = outr_api_query(r, "appid");
    if (app_id.n > 0 && !outr_str_eq(app_id, r->api->settings->app_id)) {
        outr_fail_reason(&err, OUTR_INTERNAL, OUTR_REASON_HEALTH_APPID_NOT_MATCH,
                         "dapr app-id does not match");
        outr_api_fail(r, &err, NULL);
        return;
    }
    outr_api_empty(r);
}

static void get_outbound_health(outr_api_request *r)
{
    outr_err err;
    if (outr_health_is_outbound_ready(r->api->health)) {
        outr_api_empty(r);
        return;
    }
    outr_fail_reason(&err, OUTR_INTERNAL, OUTR_REASON_OUTBOUND_HEALTH_NOT_READY,
                     "dapr outbound is not ready");
    outr_api_fail(r, &err, NULL);
}

/* ---- metadata -------------------------------------------------------------------------------- */

/* Object members in Dapr's order; empty ones are left out where Dapr leaves them out. */
static void name(outr_buf *out, const char *key)
{
    if (out->p[out->n - 1] != '{' && out->p[out->n - 1] != '[')
        outr_buf_char(out, ',');
    outr_buf_printf(out, "\"%s\":", key);
}

static void text(outr_buf *out, const char *key, outr_str value)
{
    name(out, key);
    outr_json_quote(out, value);
}

static void item(outr_buf *out)
{
    if (out->p[out->n - 1] != '[')
        outr_buf_char(out, ',');
}

static void write_features(outr_buf *out, const outr_configuration *c)
{
    static const char *const built_in[] = {"HotReload", "WorkflowsRemoteActivityReminder"};
    name(out, "enabledFeatures");
    outr_buf_char(out, '[');
    for (size_t i = 0; i < OUTR_LEN(built_in); i++) {
        bool is_on = true;
        for (size_t j = 0; j < c->feature_count; j++) {
            if (outr_str_is(c->features[j].name, built_in[i]))
                is_on = c->features[j].is_on;
        }
        if (is_on) {
            item(out);
            outr_json_quote(out, outr_str_from(built_in[i]));
        }
    }
    for (size_t j = 0; j < c->feature_count; j++) {
        bool is_built_in = false;
        for (size_t i = 0; i < OUTR_LEN(built_in); i++)
            is_built_in |= outr_str_is(c->features[j].name, built_in[i]);
        if (!is_built_in && c->features[j].is_on) {
            item(out);
            outr_json_quote(out, c->features[j].name);
        }
    }
    outr_buf_char(out, ']');
}

static void write_components(outr_buf *out, const outr_view *view)
{
    const outr_component *c = outr_view_at(view, 0);
    if (!c)
        return;
    name(out, "components");
    outr_buf_char(out, '[');
    for (size_t i = 0; (c = outr_view_at(view, i)); i++) {
        item(out);
        outr_buf_char(out, '{');
        text(out, "name", c->spec->base.name);
        text(out, "type", c->spec->type);
        text(out, "version", c->spec->version);
        if (c->capabilities[0]) {
            name(out, "capabilities");
            outr_buf_char(out, '[');
            for (size_t k = 0; k < OUTR_LEN(c->capabilities) && c->capabilities[k]; k++) {
                item(out);
                outr_json_quote(out, outr_str_from(c->capabilities[k]));
            }
            outr_buf_char(out, ']');
        }
        outr_buf_char(out, '}');
    }
    outr_buf_char(out, ']');
}

static void write_extended(outr_buf *out, outr_api_request *r)
{
    outr_kvs kvs = outr_metadata_all(r->api->metadata, r->x->arena);
    name(out, "extended");
    outr_buf_char(out, '{');
    text(out, "daprRuntimeVersion", OUTR_STR(OUTR_DAPR_VERSION));
    for (size_t i = 0; i < kvs.count; i++) {
        outr_buf_char(out, ',');
        outr_json_quote(out, kvs.items[i].key);
        outr_buf_char(out, ':');
        outr_json_quote(out, kvs.items[i].value);
    }
    outr_buf_char(out, '}');
}

static void write_subscription(void *ctx, const outr_subscription_info *info)
{
    static const char *const types[] = {
        [OUTR_SUB_DECLARATIVE] = "DECLARATIVE",
        [OUTR_SUB_PROGRAMMATIC] = "PROGRAMMATIC",
        [OUTR_SUB_STREAMING] = "STREAMING",
    };
    outr_buf *out = ctx;
    if (out->p[out->n - 1] != '[')
        outr_buf_char(out, ',');
    outr_buf_char(out, '{');
    text(out, "pubsubname", info->pubsub);
    text(out, "topic", info->topic);
    if (info->metadata.count > 0) {
        name(out, "metadata");
        outr_buf_char(out, '{');
        for (size_t i = 0; i < info->metadata.count; i++) {
            if (i > 0)
                outr_buf_char(out, ',');
            outr_json_quote(out, info->metadata.items[i].key);
            outr_buf_char(out, ':');
            outr_json_quote(out, info->metadata.items[i].value);
        }
        outr_buf_char(out, '}');
    }
    if (info->rule_count > 0) {
        name(out, "rules");
        outr_buf_char(out, '[');
        for (size_t i = 0; i < info->rule_count; i++) {
            item(out);
            outr_buf_char(out, '{');
            if (info->rules[i].match.n > 0)
                text(out, "match", info->rules[i].match);
            if (info->rules[i].path.n > 0)
                text(out, "path", info->rules[i].path);
            outr_buf_char(out, '}');
        }
        outr_buf_char(out, ']');
    }
    text(out, "deadLetterTopic", info->dead_letter_topic);
    text(out, "type", outr_str_from(types[info->type]));
    outr_buf_char(out, '}');
}

static void write_subscriptions(outr_buf *out, outr_api *api)
{
    OUTR_AUTO(outr_buf) list = OUTR_BUF_MAX(OUTR_MIB);
    outr_buf_char(&list, '[');
    outr_pubsub_each(api->pubsub, write_subscription, &list);
    outr_buf_char(&list, ']');
    if (list.n > 2) {
        name(out, "subscriptions");
        outr_buf_str(out, outr_buf_view(&list));
    }
}

static void write_endpoints(outr_buf *out, const outr_snapshot *snapshot)
{
    if (snapshot->endpoint_count == 0)
        return;
    name(out, "httpEndpoints");
    outr_buf_char(out, '[');
    for (size_t i = 0; i < snapshot->endpoint_count; i++) {
        item(out);
        outr_buf_char(out, '{');
        text(out, "name", snapshot->endpoints[i].base.name);
        outr_buf_char(out, '}');
    }
    outr_buf_char(out, ']');
}

static void duration(outr_buf *out, const char *key, uint64_t ns)
{
    name(out, key);
    if (ns % OUTR_SEC == 0)
        outr_buf_printf(out, "\"%llus\"", (unsigned long long)(ns / OUTR_SEC));
    else
        outr_buf_printf(out, "\"%llums\"", (unsigned long long)(ns / OUTR_MS));
}

static void write_app(outr_buf *out, const outr_settings *s)
{
    name(out, "appConnectionProperties");
    outr_buf_char(out, '{');
    if (s->app_port) {
        name(out, "port");
        outr_buf_printf(out, "%u", s->app_port);
    }
    text(out, "protocol", s->app_protocol_name);
    text(out, "channelAddress", s->app_channel_address);
    if (s->app_max_concurrency > 0) {
        name(out, "maxConcurrency");
        outr_buf_printf(out, "%lld", (long long)s->app_max_concurrency);
    }
    if (s->app_health_check) {
        name(out, "health");
        outr_buf_char(out, '{');
        text(out, "healthCheckPath", s->app_health_path);
        duration(out, "healthProbeInterval", s->app_health_interval_ns);
        duration(out, "healthProbeTimeout", s->app_health_timeout_ns);
        name(out, "healthThreshold");
        outr_buf_printf(out, "%lld}", (long long)s->app_health_threshold);
    }
    outr_buf_char(out, '}');
}

static void get_metadata(outr_api_request *r)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(8 * OUTR_MIB);
    outr_buf_char(&out, '{');
    text(&out, "id", r->api->settings->app_id);
    text(&out, "runtimeVersion", OUTR_STR(OUTR_DAPR_VERSION));
    write_features(&out, &r->api->snapshot->configuration);
    write_components(&out, r->view);
    write_extended(&out, r);
    write_subscriptions(&out, r->api);
    write_endpoints(&out, r->api->snapshot);
    write_app(&out, r->api->settings);
    name(&out, "actorRuntime");
    outr_buf_z(&out, "{\"runtimeStatus\":\"DISABLED\",\"hostReady\":false,"
                     "\"placement\":\"placement: disconnected\"}}");
    outr_api_reply(r, 200, "application/json", outr_buf_view(&out));
}

static void put_metadata(outr_api_request *r)
{
    outr_err err;
    if (outr_metadata_set(r->api->metadata, r->params[0], r->body, &err)) {
        err.reason = OUTR_REASON_BODY_READ;
        outr_api_fail(r, &err, NULL);
        return;
    }
    outr_api_empty(r);
}

static void metadata_body_failed(outr_api_request *r, const outr_err *err)
{
    outr_err shown = *err;
    shown.reason = OUTR_REASON_BODY_READ;
    outr_wrap(&shown, "failed to read body");
    outr_api_fail(r, &shown, NULL);
}

/* ---- shutdown -------------------------------------------------------------------------------- */

static void post_shutdown(outr_api_request *r)
{
    outr_api *api = r->api;
    bool is_forced = false;
    outr_str_to_bool(outr_headers_get(&r->x->req.headers, "dapr-force-shutdown"), &is_forced);
    outr_api_empty(r);
    api->shutdown(api->shutdown_ctx, is_forced);
}

#define HEALTH (OUTR_ROUTE_NO_TOKEN | OUTR_ROUTE_PUBLIC | OUTR_ROUTE_ALWAYS | OUTR_ROUTE_NO_TRACE)

const outr_api_route outr_routes_system[] = {
    {"GET", "/v1.0/healthz", HEALTH, "healthz", "v1", NULL, get_health, NULL},
    {"GET", "/v1.0/healthz/outbound", HEALTH, "healthz", "v1", NULL, get_outbound_health, NULL},
    {"GET", "/v1.0/metadata", OUTR_ROUTE_PUBLIC, "metadata", "v1", NULL, get_metadata, NULL},
    {"PUT", "/v1.0/metadata/{key}", OUTR_ROUTE_BODY | OUTR_ROUTE_PUBLIC, "metadata", "v1", NULL,
     put_metadata, metadata_body_failed},
    {"POST", "/v1.0/shutdown", 0, "shutdown", "v1", NULL, post_shutdown, NULL},
    {0},
};
