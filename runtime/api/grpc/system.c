#include <dapr/proto/runtime/v1/dapr.pb-c.h>
#include <dapr/proto/runtime/v1/metadata.pb-c.h>

#include "api/core/metadata.h"
#include "api/grpc/grpc_api.h"

/* Metadata and shutdown. */

typedef Dapr__Proto__Runtime__V1__GetMetadataResponse metadata_response;
typedef Dapr__Proto__Runtime__V1__RegisteredComponents component_info;
typedef Dapr__Proto__Runtime__V1__PubsubSubscription subscription_info;
typedef Dapr__Proto__Runtime__V1__PubsubSubscriptionRules rules_info;
typedef Dapr__Proto__Runtime__V1__PubsubSubscriptionRule rule_info;
typedef Dapr__Proto__Runtime__V1__MetadataHTTPEndpoint endpoint_info;
typedef Dapr__Proto__Runtime__V1__AppConnectionProperties app_info;
typedef Dapr__Proto__Runtime__V1__AppConnectionHealthProperties health_info;
typedef Dapr__Proto__Runtime__V1__ActorRuntime actor_info;
typedef Dapr__Proto__Runtime__V1__MetadataWorkflows workflow_info;

/* ---- the answer, part by part ---------------------------------------------------------------- */

static char **new_texts(outr_arena *arena, const outr_str *texts, size_t n)
{
    char **out = outr_arena_alloc(arena, (n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = outr_rpc_text(arena, texts[i]);
    return out;
}

static component_info *new_component(outr_arena *arena, const outr_component *c)
{
    component_info *info = outr_arena_alloc(arena, sizeof *info);
    dapr__proto__runtime__v1__registered_components__init(info);
    info->name = outr_rpc_text(arena, c->spec->base.name);
    info->type = outr_rpc_text(arena, c->spec->type);
    info->version = outr_rpc_text(arena, c->spec->version);
    info->capabilities = outr_arena_alloc(arena, sizeof c->capabilities);
    while (info->n_capabilities < OUTR_LEN(c->capabilities) &&
           c->capabilities[info->n_capabilities]) {
        info->capabilities[info->n_capabilities] =
            (char *)(uintptr_t)c->capabilities[info->n_capabilities];
        info->n_capabilities++;
    }
    return info;
}

static rules_info *new_rules(outr_arena *arena, const outr_subscription_info *s)
{
    rules_info *rules = outr_arena_alloc(arena, sizeof *rules);
    dapr__proto__runtime__v1__pubsub_subscription_rules__init(rules);
    rules->rules = outr_arena_alloc(arena, (s->rule_count + 1) * sizeof *rules->rules);
    for (; rules->n_rules < s->rule_count; rules->n_rules++) {
        rule_info *rule = outr_arena_alloc(arena, sizeof *rule);
        dapr__proto__runtime__v1__pubsub_subscription_rule__init(rule);
        rule->match = outr_rpc_text(arena, s->rules[rules->n_rules].match);
        rule->path = outr_rpc_text(arena, s->rules[rules->n_rules].path);
        rules->rules[rules->n_rules] = rule;
    }
    return rules;
}

static int type_of(const outr_subscription_info *s)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value_by_name(
        &dapr__proto__runtime__v1__pubsub_subscription_type__descriptor,
        outr_core_subscription_type(s));
    return value ? value->value : 0;
}

static subscription_info *new_subscription(outr_arena *arena, const outr_subscription_info *s)
{
    subscription_info *info = outr_arena_alloc(arena, sizeof *info);
    dapr__proto__runtime__v1__pubsub_subscription__init(info);
    info->pubsub_name = outr_rpc_text(arena, s->pubsub);
    info->topic = outr_rpc_text(arena, s->topic);
    info->n_metadata = s->metadata.count;
    info->metadata = outr_rpc_entries(
        arena, &dapr__proto__runtime__v1__pubsub_subscription__metadata_entry__descriptor,
        s->metadata);
    info->rules = new_rules(arena, s);
    info->dead_letter_topic = outr_rpc_text(arena, s->dead_letter_topic);
    info->type = type_of(s);
    return info;
}

static endpoint_info *new_endpoint(outr_arena *arena, outr_str name)
{
    endpoint_info *info = outr_arena_alloc(arena, sizeof *info);
    dapr__proto__runtime__v1__metadata_httpendpoint__init(info);
    info->name = outr_rpc_text(arena, name);
    return info;
}

static int32_t clamp(int64_t value)
{
    return (int32_t)OUTR_MIN(value, (int64_t)INT32_MAX);
}

static app_info *new_app(outr_arena *arena, const outr_core_metadata *m)
{
    app_info *info = outr_arena_alloc(arena, sizeof *info);
    dapr__proto__runtime__v1__app_connection_properties__init(info);
    info->port = m->app.port;
    info->protocol = outr_rpc_text(arena, m->app.protocol);
    info->channel_address = outr_rpc_text(arena, m->app.channel_address);
    info->max_concurrency = clamp(m->app.max_concurrency);
    if (m->app.has_health) {
        health_info *health = outr_arena_alloc(arena, sizeof *health);
        dapr__proto__runtime__v1__app_connection_health_properties__init(health);
        health->health_check_path = outr_rpc_text(arena, m->app.health_path);
        health->health_probe_interval = outr_rpc_text(arena, m->app.health_interval);
        health->health_probe_timeout = outr_rpc_text(arena, m->app.health_timeout);
        health->health_threshold = clamp(m->app.health_threshold);
        info->health = health;
    }
    return info;
}

static void add_actors(outr_arena *arena, const outr_core_metadata *m, metadata_response *out)
{
    actor_info *actors = outr_arena_alloc(arena, sizeof *actors);
    dapr__proto__runtime__v1__actor_runtime__init(actors);
    const ProtobufCEnumValue *status = protobuf_c_enum_descriptor_get_value_by_name(
        &dapr__proto__runtime__v1__actor_runtime__actor_runtime_status__descriptor,
        outr_rpc_text(arena, m->actors.status));
    actors->runtime_status = status ? status->value : 0;
    actors->host_ready = m->actors.is_host_ready;
    actors->placement = outr_rpc_text(arena, m->actors.placement);
    out->actor_runtime = actors;
    workflow_info *workflows = outr_arena_alloc(arena, sizeof *workflows);
    dapr__proto__runtime__v1__metadata_workflows__init(workflows);
    out->_workflows_case = DAPR__PROTO__RUNTIME__V1__GET_METADATA_RESPONSE___WORKFLOWS_WORKFLOWS;
    out->workflows = workflows;
}

static void add_lists(outr_arena *arena, const outr_core_metadata *m, metadata_response *out)
{
    size_t n;
    out->n_enabled_features = m->feature_count;
    out->enabled_features = new_texts(arena, m->features, m->feature_count);
    out->n_registered_components = n = m->component_count;
    out->registered_components = outr_arena_alloc(arena, (n + 1) * sizeof(component_info *));
    for (size_t i = 0; i < n; i++)
        out->registered_components[i] = new_component(arena, m->components[i]);
    out->n_subscriptions = n = m->subscription_count;
    out->subscriptions = outr_arena_alloc(arena, (n + 1) * sizeof(subscription_info *));
    for (size_t i = 0; i < n; i++)
        out->subscriptions[i] = new_subscription(arena, &m->subscriptions[i]);
    out->n_http_endpoints = n = m->endpoint_count;
    out->http_endpoints = outr_arena_alloc(arena, (n + 1) * sizeof(endpoint_info *));
    for (size_t i = 0; i < n; i++)
        out->http_endpoints[i] = new_endpoint(arena, m->endpoints[i]);
}

static void get_metadata(outr_grpc_call *call)
{
    metadata_response reply = DAPR__PROTO__RUNTIME__V1__GET_METADATA_RESPONSE__INIT;
    outr_core core = outr_rpc_core(call);
    outr_core_metadata m;
    outr_core_metadata_read(&core, &call->x->req.headers, &m);
    reply.id = outr_rpc_text(call->arena, m.id);
    reply.runtime_version = outr_rpc_text(call->arena, m.runtime_version);
    reply.n_extended_metadata = m.extended.count;
    reply.extended_metadata = outr_rpc_entries(
        call->arena,
        &dapr__proto__runtime__v1__get_metadata_response__extended_metadata_entry__descriptor,
        m.extended);
    reply.app_connection_properties = new_app(call->arena, &m);
    add_lists(call->arena, &m, &reply);
    add_actors(call->arena, &m, &reply);
    outr_grpc_reply(call, &reply);
}

static void set_metadata(outr_grpc_call *call)
{
    const Dapr__Proto__Runtime__V1__SetMetadataRequest *req = call->request;
    outr_err err;
    if (outr_metadata_set(outr_rpc_of(call)->api->metadata, outr_str_from(req->key),
                          outr_str_from(req->value), &err))
        outr_grpc_fail_err(call, &err);
    else
        outr_rpc_reply_empty(call);
}

/* ---- shutdown -------------------------------------------------------------------------------- */

static void shut_down(outr_grpc_call *call)
{
    outr_api *api = outr_rpc_of(call)->api;
    bool is_forced = false;
    outr_str_to_bool(outr_headers_get(&call->x->req.headers, "dapr-force-shutdown"), &is_forced);
    outr_rpc_reply_empty(call);
    api->shutdown(api->shutdown_ctx, is_forced);
}

#define ROW(method, type, run, group)                                                              \
    {                                                                                              \
        "/dapr.proto.runtime.v1.Dapr/" method, &dapr__proto__runtime__v1__##type##__descriptor,    \
            false, run, group, "v1"                                                                \
    }

const outr_grpc_method outr_rpcs_system[] = {
    ROW("GetMetadata", get_metadata_request, get_metadata, "metadata"),
    ROW("SetMetadata", set_metadata_request, set_metadata, "metadata"),
    ROW("Shutdown", shutdown_request, shut_down, "shutdown"),
    {0},
};
