#include "api/core/metadata.h"
#include "api/http/http_api.h"
#include "base/json.h"

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

static void list(outr_buf *out, const char *key)
{
    name(out, key);
    outr_buf_char(out, '[');
}

static void write_features(outr_buf *out, const outr_core_metadata *m)
{
    list(out, "enabledFeatures");
    for (size_t i = 0; i < m->feature_count; i++) {
        item(out);
        outr_json_quote(out, m->features[i]);
    }
    outr_buf_char(out, ']');
}

static void write_component(outr_buf *out, const outr_component *c)
{
    item(out);
    outr_buf_char(out, '{');
    text(out, "name", c->spec->base.name);
    text(out, "type", c->spec->type);
    text(out, "version", c->spec->version);
    if (c->capabilities[0]) {
        list(out, "capabilities");
        for (size_t k = 0; k < OUTR_LEN(c->capabilities) && c->capabilities[k]; k++) {
            item(out);
            outr_json_quote(out, outr_str_from(c->capabilities[k]));
        }
        outr_buf_char(out, ']');
    }
    outr_buf_char(out, '}');
}

static void write_components(outr_buf *out, const outr_core_metadata *m)
{
    if (m->component_count == 0)
        return;
    list(out, "components");
    for (size_t i = 0; i < m->component_count; i++)
        write_component(out, m->components[i]);
    outr_buf_char(out, ']');
}

static void write_pairs(outr_buf *out, const char *key, outr_kvs kvs)
{
    name(out, key);
    outr_json_quote_kvs(out, kvs);
}

static void write_subscription(outr_buf *out, const outr_subscription_info *info)
{
    item(out);
    outr_buf_char(out, '{');
    text(out, "pubsubname", info->pubsub);
    text(out, "topic", info->topic);
    if (info->metadata.count > 0)
        write_pairs(out, "metadata", info->metadata);
    if (info->rule_count > 0) {
        list(out, "rules");
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
    text(out, "type", outr_str_from(outr_core_subscription_type(info)));
    outr_buf_char(out, '}');
}

static void write_subscriptions(outr_buf *out, const outr_core_metadata *m)
{
    if (m->subscription_count == 0)
        return;
    list(out, "subscriptions");
    for (size_t i = 0; i < m->subscription_count; i++)
        write_subscription(out, &m->subscriptions[i]);
    outr_buf_char(out, ']');
}

static void write_endpoints(outr_buf *out, const outr_core_metadata *m)
{
    if (m->endpoint_count == 0)
        return;
    list(out, "httpEndpoints");
    for (size_t i = 0; i < m->endpoint_count; i++) {
        item(out);
        outr_buf_char(out, '{');
        text(out, "name", m->endpoints[i]);
        outr_buf_char(out, '}');
    }
    outr_buf_char(out, ']');
}

static void number(outr_buf *out, const char *key, int64_t value)
{
    name(out, key);
    outr_buf_printf(out, "%lld", (long long)value);
}

static void write_app(outr_buf *out, const outr_core_metadata *m)
{
    name(out, "appConnectionProperties");
    outr_buf_char(out, '{');
    if (m->app.port)
        number(out, "port", m->app.port);
    text(out, "protocol", m->app.protocol);
    text(out, "channelAddress", m->app.channel_address);
    if (m->app.max_concurrency > 0)
        number(out, "maxConcurrency", m->app.max_concurrency);
    if (m->app.has_health) {
        name(out, "health");
        outr_buf_char(out, '{');
        if (m->app.health_path.n)
            text(out, "healthCheckPath", m->app.health_path);
        text(out, "healthProbeInterval", m->app.health_interval);
        text(out, "healthProbeTimeout", m->app.health_timeout);
        number(out, "healthThreshold", m->app.health_threshold);
        outr_buf_char(out, '}');
    }
    outr_buf_char(out, '}');
}

static void write_actors(outr_buf *out, const outr_core_metadata *m)
{
    name(out, "actorRuntime");
    outr_buf_char(out, '{');
    text(out, "runtimeStatus", m->actors.status);
    name(out, "hostReady");
    outr_buf_z(out, m->actors.is_host_ready ? "true" : "false");
    text(out, "placement", m->actors.placement);
    outr_buf_char(out, '}');
}

static void get_metadata(outr_api_request *r)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(16 * OUTR_MIB);
    outr_core_metadata m;
    outr_core_metadata_read(&(outr_core){r->api, r->view, r->x->arena}, &r->x->req.headers, &m);
    outr_buf_char(&out, '{');
    text(&out, "id", m.id);
    text(&out, "runtimeVersion", m.runtime_version);
    write_features(&out, &m);
    write_components(&out, &m);
    write_pairs(&out, "extended", m.extended);
    write_subscriptions(&out, &m);
    write_endpoints(&out, &m);
    write_app(&out, &m);
    write_actors(&out, &m);
    outr_buf_char(&out, '}');
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
