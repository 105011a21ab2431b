#include "config/kinds/kinds.h"

#include <math.h>

#define C(field) offsetof(outr_configuration, field)

/* What needs a second look after binding. */
typedef struct raw {
    outr_configuration c;
    outr_str *buckets;
    size_t bucket_count;
    struct raw_scope *scopes;
    size_t scope_count;
} raw;

typedef struct raw_scope {
    outr_secret_scope scope;
    outr_str default_access;
} raw_scope;

#define R(field) offsetof(raw, field)

static const outr_yaml_row zipkin[] = {
    {"endpointAddress", OUTR_YT_TEXT, C(zipkin_url), 0, NULL, 0, 0}, {0}};
static const outr_yaml_row otel[] = {
    {"endpointAddress", OUTR_YT_TEXT, C(otel_address), 0, NULL, 0, 0},
    {"protocol", OUTR_YT_TEXT, C(otel_protocol), 0, NULL, 0, 0},
    {"isSecure", OUTR_YT_BOOL, C(otel_is_secure), 0, NULL, 0, 0},
    {"headers", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, /* kinds/tracing.c */
    {"timeout", OUTR_YT_DURATION, C(otel_timeout_ns), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row tracing[] = {
    {"samplingRate", OUTR_YT_TEXT, C(sampling_text), 0, NULL, 0, 0},
    {"stdout", OUTR_YT_BOOL, C(tracing_stdout), 0, NULL, 0, 0},
    {"zipkin", OUTR_YT_GROUP, 0, 0, zipkin, 0, 0},
    {"otel", OUTR_YT_GROUP, 0, 0, otel, 0, 0},
    {0},
};
static const outr_yaml_row metrics_http[] = {
    {"increasedCardinality", OUTR_YT_BOOL, C(metrics_full_paths), 0, NULL, 0, 0},
    {"pathMatching", OUTR_YT_TEXTS, C(metrics_paths), 0, NULL, 0, 0},
    {"excludeVerbs", OUTR_YT_BOOL, C(metrics_exclude_verbs), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row metrics[] = {
    {"enabled", OUTR_YT_BOOL, C(metrics_is_on), 0, NULL, 0, 0},
    {"recordErrorCodes", OUTR_YT_BOOL, C(metrics_record_error_codes), 0, NULL, 0, 0},
    {"http", OUTR_YT_GROUP, 0, 0, metrics_http, 0, 0},
    {"latencyDistributionBuckets", OUTR_YT_TEXTS, R(buckets), 0, NULL, 0, 0},
    {"rules", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"workflow", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row scope[] = {
    {"storeName", OUTR_YT_TEXT, offsetof(raw_scope, scope.store), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"defaultAccess", OUTR_YT_TEXT, offsetof(raw_scope, default_access), 0, NULL, 0, 0},
    {"allowedSecrets", OUTR_YT_TEXTS, offsetof(raw_scope, scope.allowed), 0, NULL, 0, 0},
    {"deniedSecrets", OUTR_YT_TEXTS, offsetof(raw_scope, scope.denied), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row secrets[] = {
    {"scopes", OUTR_YT_LIST, R(scopes), 0, scope, sizeof(raw_scope), 0}, {0}};
static const outr_yaml_row resolution[] = {
    {"component", OUTR_YT_TEXT, C(name_resolution_component), 0, NULL, 0, 0},
    {"version", OUTR_YT_TEXT, C(name_resolution_version), 0, NULL, 0, 0},
    {"configuration", OUTR_YT_KVS, C(name_resolution), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row feature[] = {
    {"name", OUTR_YT_TEXT, offsetof(outr_feature, name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"enabled", OUTR_YT_BOOL, offsetof(outr_feature, is_on), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row api_rule[] = {
    {"name", OUTR_YT_TEXT, offsetof(outr_api_rule, name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"version", OUTR_YT_TEXT, offsetof(outr_api_rule, version), 0, NULL, 0, 0},
    {"protocol", OUTR_YT_TEXT, offsetof(outr_api_rule, protocol), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row api[] = {
    {"allowed", OUTR_YT_LIST, C(api_allowed), 0, api_rule, sizeof(outr_api_rule), 0},
    {"denied", OUTR_YT_LIST, C(api_denied), 0, api_rule, sizeof(outr_api_rule), 0},
    {0},
};
static const outr_yaml_row components[] = {
    {"deny", OUTR_YT_TEXTS, C(denied_components), 0, NULL, 0, 0}, {0}};
static const outr_yaml_row api_logging[] = {
    {"enabled", OUTR_YT_BOOL, C(api_logging), 0, NULL, 0, 0},
    {"obfuscateURLs", OUTR_YT_BOOL, C(api_logging_obfuscate), 0, NULL, 0, 0},
    {"omitHealthChecks", OUTR_YT_BOOL, C(api_logging_omit_health), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row logging[] = {{"apiLogging", OUTR_YT_GROUP, 0, 0, api_logging, 0, 0},
                                        {0}};

#define V(field) offsetof(outr_token_validator, field)

static const outr_yaml_row token_validator_options[] = {
    {"source", OUTR_YT_VALUE, V(source), 0, NULL, 0, 0},
    {"caCertificate", OUTR_YT_TEXT, V(ca_certificate), 0, NULL, 0, 0},
    {"minRefreshInterval", OUTR_YT_DURATION, V(refresh_ns), 0, NULL, 0, 0},
    {"requestTimeout", OUTR_YT_DURATION, V(timeout_ns), 0, NULL, 0, 0},
    {0},
};
static const outr_yaml_row token_validator[] = {
    {"name", OUTR_YT_TEXT, V(name), OUTR_YT_REQUIRED, NULL, 0, 0},
    {"options", OUTR_YT_GROUP, 0, 0, token_validator_options, 0, 0},
    {0},
};
static const outr_yaml_row mtls[] = {
    {"enabled", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, /* a sidecar goes by --enable-mtls */
    {"workloadCertTTL", OUTR_YT_DURATION, C(certificate_ttl_ns), 0, NULL, 0, 0},
    {"allowedClockSkew", OUTR_YT_DURATION, C(clock_skew_ns), 0, NULL, 0, 0},
    {"sentryAddress", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"controlPlaneTrustDomain", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, /* a flag says it */
    {"tokenValidators", OUTR_YT_LIST, C(token_validators), 0, token_validator,
     sizeof(outr_token_validator), 0},
    {0},
};

static const outr_yaml_row spec[] = {
    {"httpPipeline", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, /* kinds/pipeline.c */
    {"appHttpPipeline", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"tracing", OUTR_YT_GROUP, 0, 0, tracing, 0, 0},
    {"metric", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, /* the older spelling: read first */
    {"metrics", OUTR_YT_GROUP, 0, 0, metrics, 0, 0},
    {"mtls", OUTR_YT_GROUP, 0, 0, mtls, 0, 0},
    {"secrets", OUTR_YT_GROUP, 0, 0, secrets, 0, 0},
    {"accessControl", OUTR_YT_SKIP, 0, 0, NULL, 0, 0}, /* kinds/access.c */
    {"nameResolution", OUTR_YT_GROUP, 0, 0, resolution, 0, 0},
    {"features", OUTR_YT_LIST, C(features), 0, feature, sizeof(outr_feature), 0},
    {"api", OUTR_YT_GROUP, 0, 0, api, 0, 0},
    {"components", OUTR_YT_GROUP, 0, 0, components, 0, 0},
    {"logging", OUTR_YT_GROUP, 0, 0, logging, 0, 0},
    {"wasm", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"workflow", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {0},
};

static const outr_yaml_row top[] = {
    {"apiVersion", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"kind", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"metadata", OUTR_YT_SKIP, 0, 0, NULL, 0, 0},
    {"spec", OUTR_YT_GROUP, 0, 0, spec, 0, 0},
    {0},
};

void outr_configuration_default(outr_configuration *out)
{
    *out = (outr_configuration){
        .metrics_is_on = true, .metrics_full_paths = true, .otel_is_secure = true};
}

static void finish_buckets(outr_binder *b, raw *r, const outr_yaml *node)
{
    if (r->bucket_count == 0)
        return;
    double *bounds = outr_arena_alloc(b->arena, r->bucket_count * sizeof *bounds);
    for (size_t i = 0; i < r->bucket_count; i++) {
        if (!outr_str_to_double(r->buckets[i], &bounds[i]) || !isfinite(bounds[i]) ||
            (i > 0 && bounds[i] <= bounds[i - 1]))
            outr_bind_error(b, node, "latencyDistributionBuckets must be growing numbers");
    }
    r->c.latency_buckets_ms = bounds;
    r->c.latency_bucket_count = r->bucket_count;
}

static void finish_scopes(outr_binder *b, raw *r)
{
    if (r->scope_count == 0)
        return;
    outr_secret_scope *scopes = outr_arena_alloc(b->arena, r->scope_count * sizeof *scopes);
    for (size_t i = 0; i < r->scope_count; i++) {
        scopes[i] = r->scopes[i].scope;
        scopes[i].is_deny_default = outr_str_iis(r->scopes[i].default_access, "deny");
    }
    r->c.secret_scopes = scopes;
    r->c.secret_scope_count = r->scope_count;
}

void outr_kind_configuration(const outr_kind_env *env, const outr_yaml *root,
                             outr_configuration *out)
{
    const outr_yaml *node = outr_yaml_find(root, "spec"), *older = outr_yaml_find(node, "metric");
    const outr_yaml *access = outr_yaml_find(node, "accessControl");
    const outr_yaml *http = outr_yaml_find(node, "httpPipeline");
    const outr_yaml *app = outr_yaml_find(node, "appHttpPipeline");
    raw *r = outr_arena_alloc(env->binder->arena, sizeof *r);
    r->c = *out;
    if (!outr_yaml_is_null(older))
        outr_bind_yaml(env->binder, metrics, older, "spec.metric", r);
    outr_bind_yaml(env->binder, top, root, "", r);
    if (outr_yaml_find(node, "tracing"))
        outr_kind_tracing(env->binder, outr_yaml_find(node, "tracing"), &r->c);
    finish_buckets(env->binder, r, node);
    finish_scopes(env->binder, r);
    if (!outr_yaml_is_null(access))
        outr_kind_access(env->binder, access, &r->c.access);
    if (!outr_yaml_is_null(http))
        outr_kind_pipeline(env->binder, http, "spec.httpPipeline", &r->c.http_pipeline);
    if (!outr_yaml_is_null(app))
        outr_kind_pipeline(env->binder, app, "spec.appHttpPipeline", &r->c.app_pipeline);
    *out = r->c;
}
