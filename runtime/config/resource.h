/* resource - the kinds as bound structs. Source: contract/yaml-*.csv. All memory is the snapshot's.
 */
#ifndef OUTR_CONFIG_RESOURCE_H
#define OUTR_CONFIG_RESOURCE_H

#include "base/map.h"
#include "base/str.h"

/* What every resource has. */
typedef struct outr_resource {
    outr_str name;
    outr_str namespace_;
    const outr_str *scopes;
    size_t scope_count;
    outr_str file; /* path, for messages */
    int line;
    uint64_t digest; /* of the document's content: changed or not */
} outr_resource;

/* A value given literally, by secret or by environment variable. */
typedef struct outr_setting {
    outr_str name;
    outr_str value; /* text of a scalar, JSON text of an object; env already read */
    outr_str secret_name, secret_key; /* secretKeyRef; key defaults to name */
    outr_str env_ref;                 /* already read into value */
    int line, column;
} outr_setting;

typedef struct outr_component_spec {
    outr_resource base;
    outr_str type;    /* "state.sqlite" */
    outr_str version; /* "v1" */
    bool ignore_errors;
    uint64_t init_timeout_ns;
    const outr_setting *metadata;
    size_t metadata_count;
    outr_str secret_store; /* auth.secretStore */
} outr_component_spec;

typedef struct outr_subscription_rule {
    outr_str match; /* CEL; empty: always */
    outr_str path;
} outr_subscription_rule;
typedef struct outr_subscription_spec {
    outr_resource base; /* name empty for programmatic ones */
    outr_str pubsub, topic, dead_letter_topic;
    outr_kvs metadata;
    const outr_subscription_rule *rules; /* default last, with an empty match */
    size_t rule_count;
    bool is_bulk;
    int64_t bulk_max_messages; /* 100 */
    int64_t bulk_max_await_ms; /* 1000 */
} outr_subscription_spec;

typedef struct outr_endpoint_spec { /* HTTPEndpoint */
    outr_resource base;
    outr_str base_url;
    const outr_setting *headers;
    size_t header_count;
    outr_setting root_ca, certificate, private_key; /* neither value nor secret_name: not given */
    outr_str secret_store;
} outr_endpoint_spec;

/* Resiliency: bound now, acted on by resiliency/ (timeouts of policy resources in ns). */
typedef struct outr_timeout_policy {
    outr_str name;
    uint64_t timeout_ns;
} outr_timeout_policy;
typedef struct outr_retry_policy {
    outr_str name;
    bool is_exponential;
    uint64_t duration_ns, max_interval_ns;
    int64_t max_retries;             /* -1: for ever */
    outr_str http_codes, grpc_codes; /* "429,500-599"; empty: all */
} outr_retry_policy;
typedef struct outr_breaker_policy {
    outr_str name;
    int64_t max_requests;
    uint64_t interval_ns, timeout_ns;
    outr_str trip; /* CEL */
} outr_breaker_policy;
typedef struct outr_policy_target {
    enum {
        OUTR_TARGET_APP,
        OUTR_TARGET_ACTOR,
        OUTR_TARGET_COMPONENT_OUT,
        OUTR_TARGET_COMPONENT_IN
    } kind;
    outr_str name, timeout, retry, breaker;
    outr_str breaker_scope; /* actors: "type", "id" or "both" */
    int64_t breaker_cache_size;
} outr_policy_target;
typedef struct outr_resiliency_spec {
    outr_resource base;
    const outr_timeout_policy *timeouts;
    size_t timeout_count;
    const outr_retry_policy *retries;
    size_t retry_count;
    const outr_breaker_policy *breakers;
    size_t breaker_count;
    const outr_policy_target *targets;
    size_t target_count;
} outr_resiliency_spec;

/* Configuration: all --config files merged. Absent parts have the defaults of the contract. */
typedef struct outr_api_rule {
    outr_str name, version, protocol;
} outr_api_rule;
typedef struct outr_secret_scope {
    outr_str store;
    bool is_deny_default;
    const outr_str *allowed;
    size_t allowed_count;
    const outr_str *denied;
    size_t denied_count;
} outr_secret_scope;
typedef struct outr_feature {
    outr_str name;
    bool is_on;
} outr_feature;
/* spec.accessControl: who may call what of this app. */
typedef struct outr_access_operation {
    outr_str name;
    int line, column;
    const outr_str *verbs; /* upper case, or "*" */
    size_t verb_count;
    bool is_allowed;
    outr_str action; /* as given */
} outr_access_operation;
typedef struct outr_access_caller {
    outr_str app_id, namespace_, trust_domain;
    int line, column;
    bool is_allowed; /* what no operation names */
    outr_str default_action; /* as given; empty: the default of all */
    const outr_access_operation *operations;
    size_t operation_count;
} outr_access_caller;
typedef struct outr_access_spec {
    bool is_on;      /* anything was said */
    bool is_allowed; /* callers that no policy names */
    outr_str default_action, trust_domain; /* as given */
    const outr_access_caller *callers;
    size_t caller_count;
} outr_access_spec;

/* AccessPolicy: rules about calls of this app, one judge with spec.accessControl. A member that is
 * not given stands for anything. */
typedef enum outr_policy_action {
    OUTR_POLICY_DENY,
    OUTR_POLICY_AUDIT,
    OUTR_POLICY_ALLOW,
} outr_policy_action;
typedef struct outr_policy_caller {
    outr_str app_id, namespace_, trust_domain; /* empty: any; app_id "*": whoever has an identity */
    int line, column;
} outr_policy_caller;
typedef struct outr_policy_claim {
    outr_str name;
    const outr_str *values; /* any of them; NULL: it is there */
    size_t value_count;
    int line, column;
} outr_policy_claim;
typedef struct outr_policy_rule {
    outr_str name; /* given, or "#<n>" */
    outr_policy_action action;
    outr_str action_text;
    const outr_policy_caller *callers; /* any of them */
    size_t caller_count;
    const outr_str *verbs; /* upper case; a gRPC call has POST */
    size_t verb_count;
    const outr_str *paths;
    size_t path_count;
    const outr_str *protocols;
    size_t protocol_count;
    bool over_http, over_grpc;
    const outr_policy_claim *claims; /* all of them */
    size_t claim_count;
    int line, column;
} outr_policy_rule;
typedef struct outr_policy_spec {
    outr_resource base;
    bool is_shadow; /* only counts */
    outr_str mode;
    bool is_allowed; /* what no rule allows */
    outr_str default_action;
    const outr_policy_rule *rules;
    size_t rule_count;
} outr_policy_spec;

/* Authentication: JSON Web Tokens of calls of this app. */
typedef struct outr_token_issuer {
    outr_str name;
    const outr_str *audiences;
    size_t audience_count;
    const outr_str *algorithm_names;
    size_t algorithm_count;
    unsigned algorithms; /* bits of outr_jwt_algorithm */
    outr_str keys_url, keys_file, keys;
    int line, column;
} outr_token_issuer;
typedef struct outr_claim_header {
    outr_str claim, header;
    int line, column;
} outr_claim_header;
typedef struct outr_authn_spec {
    outr_resource base;
    bool is_required, forwards_token;
    uint64_t skew_ns;
    const outr_token_issuer *issuers;
    size_t issuer_count;
    const outr_claim_header *headers;
    size_t header_count;
} outr_authn_spec;

/* spec.httpPipeline, spec.appHttpPipeline: middlewares in their order. */
typedef struct outr_pipeline_handler {
    outr_str name;
    int line, column;
    outr_str type, version;
    outr_str file;
} outr_pipeline_handler;
typedef struct outr_pipeline {
    const outr_pipeline_handler *handlers;
    size_t count;
} outr_pipeline;

/* spec.mtls.tokenValidators of a certificate authority. */
typedef struct outr_token_validator {
    outr_str name;
    outr_str source;         /* of keys: URL, file, or a key set itself */
    outr_str ca_certificate; /* for https; PEM or file */
    uint64_t refresh_ns, timeout_ns;
} outr_token_validator;

typedef struct outr_configuration {
    outr_str name;
    bool tracing_is_on;
    double sampling_rate;
    bool tracing_stdout;
    outr_str sampling_text; /* as given: a later file may add an exporter to it */
    outr_str zipkin_url, otel_address, otel_protocol;
    bool otel_is_secure;
    outr_kvs otel_headers; /* names in lower case */
    uint64_t otel_timeout_ns; /* 0: not given */
    /* of the environment: name of the service (empty: the app id), and what else it says of itself
     */
    outr_str otel_service_name;
    outr_kvs otel_resource;
    bool metrics_is_on, metrics_record_error_codes, metrics_full_paths /* increasedCardinality */,
        metrics_exclude_verbs;
    const outr_str *metrics_paths;
    size_t metrics_path_count;
    const double *latency_buckets_ms;
    size_t latency_bucket_count;
    const outr_secret_scope *secret_scopes;
    size_t secret_scope_count;
    outr_str name_resolution_component, name_resolution_version; /* NONE: the default */
    outr_kvs name_resolution; /* flattened: nested objects as JSON text */
    /* given ones; built-ins are added by metadata */
    const outr_feature *features;
    size_t feature_count;
    const outr_api_rule *api_allowed;
    size_t api_allowed_count;
    const outr_api_rule *api_denied;
    size_t api_denied_count;
    const outr_str *denied_components;
    size_t denied_component_count;
    bool api_logging, api_logging_obfuscate, api_logging_omit_health;
    outr_access_spec access;
    /* spec.mtls, of the certificate authority; 0: not given */
    uint64_t certificate_ttl_ns, clock_skew_ns;
    const outr_token_validator *token_validators;
    size_t token_validator_count;
    outr_pipeline http_pipeline, app_pipeline;
} outr_configuration;

#endif
