#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "unit/config/kind.h"

/* The kind Configuration, and what the environment adds to it. */

static void every_field_of_a_configuration_that_is_acted_on_is_bound(void **state)
{
    outr_configuration c;
    bench b;
    (void)state;
    outr_configuration_default(&c);
    outr_kind_configuration(
        &b.env,
        open_bench(
            &b,
            "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"
            "  tracing:\n    samplingRate: \"0.5\"\n    stdout: true\n"
            "    zipkin: {endpointAddress: \"http://z\"}\n"
            "    otel: {endpointAddress: \"o:1\", protocol: http, isSecure: false, headers: [], "
            "timeout: 1s}\n"
            "  metrics:\n    enabled: false\n    recordErrorCodes: true\n"
            "    http: {increasedCardinality: false, pathMatching: [\"/a/{id}\"], excludeVerbs: "
            "true}\n"
            "    latencyDistributionBuckets: [1, 5, 10]\n    rules: []\n"
            "  mtls: {enabled: true}\n"
            "  secrets:\n    scopes:\n    - {storeName: s, defaultAccess: Deny, allowedSecrets: "
            "[a],"
            " deniedSecrets: [b, c]}\n"
            "  nameResolution: {component: sqlite, version: v1, configuration: {a: 1, o: {x: y}}}\n"
            "  features: [{name: F, enabled: true}, {name: G}]\n"
            "  api:\n    allowed: [{name: state, version: v1.0, protocol: http}]\n"
            "    denied: [{name: secrets, version: v1}]\n"
            "  components: {deny: [state.redis, \"bindings.*\"]}\n"
            "  logging: {apiLogging: {enabled: true, obfuscateURLs: true, omitHealthChecks: "
            "true}}\n"
            "  wasm: {strictSandbox: true}\n  workflow: {maxConcurrentWorkflowInvocations: 1}\n"),
        &c);
    assert_clean(&b);
    assert_true(c.tracing_is_on);
    assert_true(c.sampling_rate > 0.49 && c.sampling_rate < 0.51);
    assert_true(c.tracing_stdout);
    assert_text(c.zipkin_url, "http://z");
    assert_text(c.otel_address, "o:1");
    assert_text(c.otel_protocol, "http");
    assert_false(c.otel_is_secure);
    assert_false(c.metrics_is_on);
    assert_true(c.metrics_record_error_codes);
    assert_false(c.metrics_full_paths);
    assert_true(c.metrics_exclude_verbs);
    assert_int_equal(c.metrics_path_count, 1);
    assert_text(c.metrics_paths[0], "/a/{id}");
    assert_int_equal(c.latency_bucket_count, 3);
    assert_true(c.latency_buckets_ms[2] > 9.9);
    assert_int_equal(c.secret_scope_count, 1);
    assert_true(c.secret_scopes[0].is_deny_default);
    assert_int_equal(c.secret_scopes[0].allowed_count, 1);
    assert_int_equal(c.secret_scopes[0].denied_count, 2);
    assert_text(c.name_resolution_component, "sqlite");
    assert_int_equal(c.name_resolution.count, 2);
    assert_text(outr_kvs_find(c.name_resolution, "o")->value, "{\"x\":\"y\"}");
    assert_int_equal(c.feature_count, 2);
    assert_true(c.features[0].is_on);
    assert_false(c.features[1].is_on);
    assert_int_equal(c.api_allowed_count, 1);
    assert_text(c.api_allowed[0].version, "v1.0");
    assert_int_equal(c.api_denied_count, 1);
    assert_int_equal(c.denied_component_count, 2);
    assert_true(c.api_logging && c.api_logging_obfuscate && c.api_logging_omit_health);
    close_bench(&b);
}

static void load(outr_configuration *c, bench *b, const char *text)
{
    outr_configuration_default(c);
    outr_kind_configuration(&b->env, open_bench(b, text), c);
}

static void tracing_is_on_as_the_rate_and_the_exporters_say(void **state)
{
    static const struct {
        const char *tracing;
        bool is_on;
        double rate;
    } rows[] = {
        {"{samplingRate: \"1\"}", true, 1},
        {"{samplingRate: 1}", true, 1},
        {"{samplingRate: \"0\", stdout: true}", false, 0},
        {"{samplingRate: \"\"}", false, 0.0001},
        {"{samplingRate: \"\", stdout: true}", true, 0.0001},
        {"{samplingRate: often, otel: {endpointAddress: \"x:1\"}}", true, 0.0001},
        {"{samplingRate: often}", false, 0.0001},
        {"{stdout: false}", false, 0.0001},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        char text[160];
        outr_configuration c;
        bench b;
        snprintf(text, sizeof text, "spec: {tracing: %s}", rows[i].tracing);
        load(&c, &b, text);
        assert_clean(&b);
        if (c.tracing_is_on != rows[i].is_on || c.sampling_rate != rows[i].rate)
            fail_msg("%s: on %d, rate %f", text, c.tracing_is_on, c.sampling_rate);
        close_bench(&b);
    }
}

static void headers_for_the_collector_come_in_both_forms(void **state)
{
    static const char *const good[] = {
        "[{name: X-Tenant, value: blue}, {name: authorization, value: \"a=b, c\"}]",
        "\"X-Tenant=blue , authorization = a=b\"",
    };
    static const char *const bad[] = {
        "[{name: \"a b\", value: c}]", "[{value: c}]", "{a: b}", "\"host=x\"",
        "\"grpc-timeout=1S\"", "[{name: a, value: \"x\\ny\"}]",
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(good); i++) {
        char text[256];
        outr_configuration c;
        bench b;
        snprintf(text, sizeof text,
                 "spec: {tracing: {otel: {endpointAddress: \"x:1\", timeout: 1500ms, headers: %s}}}",
                 good[i]);
        load(&c, &b, text);
        assert_clean(&b);
        assert_int_equal(c.otel_timeout_ns, 1500 * OUTR_MS);
        assert_int_equal(c.otel_headers.count, 2);
        assert_text(c.otel_headers.items[0].key, "x-tenant");
        assert_text(c.otel_headers.items[0].value, "blue");
        assert_text(c.otel_headers.items[1].value, i == 0 ? "a=b, c" : "a=b");
        close_bench(&b);
    }
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        char text[256];
        outr_configuration c;
        bench b;
        snprintf(text, sizeof text, "spec: {tracing: {otel: {headers: %s}}}", bad[i]);
        load(&c, &b, text);
        if (b.errors.count == 0)
            fail_msg("taken: %s", text);
        close_bench(&b);
    }
    outr_configuration c;
    bench b;
    load(&c, &b, "spec: {tracing: {otel: {endpointAddress: \"x:1\", protocol: thrift}}}");
    assert_int_equal(b.errors.count, 1);
    assert_non_null(strstr(b.errors.items[0].text, ":1:"));
    close_bench(&b);
}

static void no_pair_of_a_long_list_is_left_out(void **state)
{
    char text[2048] = "OTEL_EXPORTER_OTLP_HEADERS=";
    char *const envp[] = {"OTEL_EXPORTER_OTLP_ENDPOINT=x:1", text, NULL};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_configuration c;
    bench b;
    (void)state;
    for (int i = 0; i < 100; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%sh%d=%d", i ? "," : "", i, i);
    load(&c, &b, "spec: {}");
    outr_kind_tracing_environment(b.arena, envp, &c, &warnings);
    assert_int_equal(c.otel_headers.count, 100);
    assert_text(c.otel_headers.items[99].value, "99");
    close_bench(&b);
}

static void the_environment_adds_a_collector(void **state)
{
    char *const envp[] = {"OTEL_EXPORTER_OTLP_ENDPOINT=http://all:1",
                          "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://traces:4318",
                          "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
                          "OTEL_EXPORTER_OTLP_HEADERS=Api-Key=a%20b,host=no,broken",
                          "OTEL_EXPORTER_OTLP_TIMEOUT=250",
                          "OTEL_RESOURCE_ATTRIBUTES=zone=a,service.name=from-resource,=x",
                          "OTEL_SERVICE_NAME=named",
                          NULL};
    char *const secure[] = {"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317", NULL};
    char *const insecure[] = {"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317",
                              "OTEL_EXPORTER_OTLP_INSECURE=true", NULL};
    char *const nothing[] = {"OTEL_EXPORTER_OTLP_ENDPOINT=", NULL};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_configuration c;
    bench b;
    (void)state;
    load(&c, &b, "spec: {}");
    outr_kind_tracing_environment(b.arena, envp, &c, &warnings);
    assert_true(c.tracing_is_on && c.sampling_rate == 1);
    assert_text(c.otel_address, "http://traces:4318");
    assert_text(c.otel_protocol, "http");
    assert_false(c.otel_is_secure);
    assert_int_equal(c.otel_headers.count, 1);
    assert_text(c.otel_headers.items[0].key, "api-key");
    assert_text(c.otel_headers.items[0].value, "a b");
    assert_int_equal(warnings.count, 1); /* host */
    assert_null(strstr(warnings.items[0].text, "no,")); /* no value is told */
    assert_int_equal(c.otel_timeout_ns, 250 * OUTR_MS);
    assert_text(c.otel_service_name, "named");
    assert_int_equal(c.otel_resource.count, 1);
    assert_text(c.otel_resource.items[0].key, "zone");
    outr_configuration_default(&c);
    outr_kind_tracing_environment(b.arena, secure, &c, &warnings);
    assert_true(c.otel_is_secure);
    assert_text(c.otel_protocol, "grpc");
    outr_configuration_default(&c);
    outr_kind_tracing_environment(b.arena, insecure, &c, &warnings);
    assert_false(c.otel_is_secure);
    outr_configuration_default(&c);
    outr_kind_tracing_environment(b.arena, nothing, &c, &warnings);
    assert_false(c.tracing_is_on);
    close_bench(&b);
    load(&c, &b, "spec: {tracing: {samplingRate: \"0.5\", otel: {endpointAddress: \"own:1\"}}}");
    outr_kind_tracing_environment(b.arena, envp, &c, &warnings);
    assert_text(c.otel_address, "own:1"); /* the file's goes before */
    assert_true(c.sampling_rate > 0.4 && c.sampling_rate < 0.6);
    close_bench(&b);
}

static void the_newer_spelling_of_metrics_wins_wherever_it_stands(void **state)
{
    static const char *const texts[] = {
        "spec: {metric: {enabled: true, recordErrorCodes: true}, metrics: {enabled: false}}",
        "spec: {metrics: {enabled: false}, metric: {enabled: true, recordErrorCodes: true}}",
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        outr_configuration c;
        bench b;
        load(&c, &b, texts[i]);
        assert_clean(&b);
        assert_false(c.metrics_is_on);
        assert_true(c.metrics_record_error_codes);
        close_bench(&b);
    }
}

static void a_later_configuration_adds_to_the_earlier(void **state)
{
    outr_configuration c;
    bench a, b;
    (void)state;
    load(&c, &a,
         "spec: {tracing: {samplingRate: \"1\"}, metrics: {enabled: false},"
         " secrets: {scopes: [{storeName: s}]}, features: [{name: A}]}");
    outr_kind_configuration(
        &b.env, open_bench(&b, "spec: {tracing: {stdout: true}, features: [{name: B}]}"), &c);
    assert_clean(&b);
    assert_true(c.tracing_is_on);
    assert_true(c.tracing_stdout);
    assert_true(c.sampling_rate > 0.9);
    assert_false(c.metrics_is_on);
    assert_int_equal(c.secret_scope_count, 1);
    assert_int_equal(c.feature_count, 1);
    assert_text(c.features[0].name, "B");
    close_bench(&a);
    close_bench(&b);
}

static void latency_buckets_must_grow(void **state)
{
    static const char *const bad[] = {"[5, 1]", "[1, 1]", "[1, x]", "[nan, 1]", "text"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        char text[160];
        outr_configuration c;
        bench b;
        snprintf(text, sizeof text, "spec: {metrics: {latencyDistributionBuckets: %s}}", bad[i]);
        load(&c, &b, text);
        assert_told(&b.errors, "latencyDistributionBuckets");
        close_bench(&b);
    }
}

static void every_field_of_a_pipeline_is_bound(void **state)
{
    outr_configuration c;
    bench b;
    (void)state;
    load(&c, &b,
         "spec:\n"
         "  httpPipeline:\n"
         "    handlers:\n"
         "    - {name: one, type: middleware.http.ratelimit, version: v2}\n"
         "    - {name: two, type: middleware.http.uppercase,"
         " selector: {fields: [{field: a, value: b}]}}\n"
         "  appHttpPipeline: {handlers: [{name: three, type: middleware.http.uppercase}]}\n");
    assert_clean(&b);
    assert_int_equal(c.http_pipeline.count, 2);
    assert_text(c.http_pipeline.handlers[0].name, "one");
    assert_text(c.http_pipeline.handlers[0].type, "middleware.http.ratelimit");
    assert_text(c.http_pipeline.handlers[0].version, "v2");
    assert_text(c.http_pipeline.handlers[1].version, "v1");
    assert_text(c.http_pipeline.handlers[1].file, "file.yaml");
    assert_int_equal(c.http_pipeline.handlers[1].line, 5);
    assert_int_equal(c.app_pipeline.count, 1);
    assert_text(c.app_pipeline.handlers[0].name, "three");
    close_bench(&b);
}

static void a_pipeline_that_cannot_be_as_it_is_written_is_refused(void **state)
{
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"spec:\n  httpPipeline:\n    handler: []\n", "file.yaml:3:"},
        {"spec: {httpPipeline: {handlers: [{name: a}]}}",
         "spec.httpPipeline.handlers[0].type: required"},
        {"spec: {appHttpPipeline: {handlers: [{type: middleware.http.x}]}}",
         "spec.appHttpPipeline.handlers[0].name: required"},
        {"spec: {httpPipeline: {handlers: [{name: a, type: state.redis}]}}",
         "must be a middleware.http type, not \"state.redis\""},
        {"spec: {httpPipeline: {handlers: [{name: a, type: middleware.http.x, order: 1}]}}",
         "unknown field"},
        {"spec: {httpPipeline: []}", "spec.httpPipeline: must be a mapping"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_configuration c;
        bench b;
        load(&c, &b, rows[i].text);
        assert_told(&b.errors, rows[i].error);
        close_bench(&b);
    }
}

static const char whole_access[] =
    "spec:\n"
    "  accessControl:\n"
    "    defaultAction: deny\n"
    "    trustDomain: public\n"
    "    policies:\n"
    "    - appId: shop\n"
    "      namespace: prod\n"
    "      trustDomain: corp\n"
    "      defaultAction: allow\n"
    "      operations:\n"
    "      - name: /a/*\n"
    "        httpVerb: [GET, '*']\n"
    "        action: deny\n";

static void every_field_of_access_control_is_bound(void **state)
{
    outr_configuration c;
    bench b;
    (void)state;
    load(&c, &b, whole_access);
    assert_clean(&b);
    assert_true(c.access.is_on);
    assert_false(c.access.is_allowed);
    assert_int_equal(c.access.caller_count, 1);
    const outr_access_caller *caller = &c.access.callers[0];
    assert_text(caller->app_id, "shop");
    assert_text(caller->namespace_, "prod");
    assert_text(caller->trust_domain, "corp");
    assert_true(caller->is_allowed);
    assert_int_equal(caller->line, 6);
    assert_int_equal(caller->operation_count, 1);
    assert_text(caller->operations[0].name, "/a/*");
    assert_int_equal(caller->operations[0].verb_count, 2);
    assert_false(caller->operations[0].is_allowed);
    close_bench(&b);
    load(&c, &b, "spec: {accessControl: {}}");
    assert_clean(&b);
    assert_false(c.access.is_on);
    close_bench(&b);
}

static void access_control_that_would_not_be_enforced_as_written_is_refused(void **state)
{
#define POLICY(more)                                                                               \
    "spec:\n  accessControl:\n    policies:\n"                                                     \
    "    - {appId: a, namespace: n, trustDomain: t, " more "}\n"
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"spec:\n  accessControl:\n    defaultaction: deny\n",
         "file.yaml:3:20: spec.accessControl.defaultaction: unknown field"},
        {"spec: {accessControl: {defaultAction: block}}", "must be allow or deny, not \"block\""},
        {"spec: {accessControl: []}", "spec.accessControl: must be a mapping"},
        {"spec: {accessControl: {policies: {}}}", "policies: must be a list"},
        {"spec: {accessControl: {policies: [{namespace: n, trustDomain: t}]}}", "appId: required"},
        {"spec: {accessControl: {policies: [{appId: '', namespace: n, trustDomain: t}]}}",
         "appId: required"},
        {"spec: {accessControl: {policies: [{appId: a, trustDomain: t}]}}", "namespace: required"},
        {"spec: {accessControl: {policies: [{appId: a, namespace: n}]}}", "trustDomain: required"},
        {POLICY("app: b"), "file.yaml:4:"},
        {POLICY("defaultAction: maybe"), "file.yaml:4:"},
        {POLICY("operations: [{name: /x}]"), "operation's action: required"},
        {POLICY("operations: [{action: deny}]"), "operation's name: required"},
        {POLICY("operations: [{name: /x, action: never}]"), "not \"never\""},
        {POLICY("operations: [{name: /x, action: deny, httpVerb: [get]}]"), "not \"get\""},
        {POLICY("operations: [{name: /x, action: deny, httpVerbs: [GET]}]"), "unknown field"},
        {POLICY("operations: [{name: /x, action: deny, httpVerb: GET}]"), "must be a list"},
        {POLICY("operations: [{name: /x, action: deny}, {name: x, action: allow}]"),
         "operation \"x\" contradicts line 4"},
        {POLICY("operations: [{name: /x, action: deny, httpVerb: [GET]},"
                " {name: /x, action: deny, httpVerb: [PUT]}]"),
         "contradicts line 4"},
        {POLICY("defaultAction: deny") "    - {appId: a, namespace: n, trustDomain: u}\n",
         "file.yaml:5:7: a policy for app \"a\" in namespace \"n\" is there already, in line 4"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_configuration c;
        bench b;
        load(&c, &b, rows[i].text);
        assert_told(&b.errors, rows[i].error);
        close_bench(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_of_a_configuration_that_is_acted_on_is_bound),
        cmocka_unit_test(tracing_is_on_as_the_rate_and_the_exporters_say),
        cmocka_unit_test(headers_for_the_collector_come_in_both_forms),
        cmocka_unit_test(no_pair_of_a_long_list_is_left_out),
        cmocka_unit_test(the_environment_adds_a_collector),
        cmocka_unit_test(the_newer_spelling_of_metrics_wins_wherever_it_stands),
        cmocka_unit_test(a_later_configuration_adds_to_the_earlier),
        cmocka_unit_test(latency_buckets_must_grow),
        cmocka_unit_test(every_field_of_access_control_is_bound),
        cmocka_unit_test(access_control_that_would_not_be_enforced_as_written_is_refused),
        cmocka_unit_test(every_field_of_a_pipeline_is_bound),
        cmocka_unit_test(a_pipeline_that_cannot_be_as_it_is_written_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
