#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "unit/config/kind.h"

/* ---- Component ------------------------------------------------------------------------------ */

static const char whole_component[] = "apiVersion: dapr.io/v1alpha1\n"
                                      "kind: Component\n"
                                      "metadata: {name: store, namespace: prod}\n"
                                      "scopes: [a, b]\n"
                                      "auth: {secretStore: vault}\n"
                                      "spec:\n"
                                      "  type: state.sqlite\n"
                                      "  version: v2\n"
                                      "  ignoreErrors: true\n"
                                      "  initTimeout: 1m\n"
                                      "  metadata:\n"
                                      "  - {name: text, value: plain}\n"
                                      "  - {name: number, value: 07}\n"
                                      "  - {name: yes, value: true}\n"
                                      "  - {name: object, value: {a: [1, x]}}\n"
                                      "  - {name: nothing}\n"
                                      "  - name: password\n"
                                      "    secretKeyRef: {name: db, key: pass}\n"
                                      "  - {name: same, secretKeyRef: {name: db}}\n"
                                      "  - {name: env, envRef: HOSTNAME}\n";

static void every_field_of_a_component_is_bound(void **state)
{
    char *const envp[] = {"HOST=no", "HOSTNAME=box", NULL};
    outr_component_spec c = {0};
    bench b;
    (void)state;
    outr_yaml *root = open_bench(&b, whole_component);
    b.env.envp = envp;
    outr_kind_component(&b.env, root, &c);
    assert_clean(&b);
    assert_text(c.type, "state.sqlite");
    assert_text(c.version, "v2");
    assert_true(c.ignore_errors);
    assert_int_equal(c.init_timeout_ns, 60 * OUTR_SEC);
    assert_text(c.secret_store, "vault");
    assert_int_equal(c.metadata_count, 8);
    assert_text(c.metadata[0].name, "text");
    assert_text(c.metadata[0].value, "plain");
    assert_int_equal(c.metadata[0].line, 12);
    assert_text(c.metadata[1].value, "07");
    assert_text(c.metadata[2].value, "true");
    assert_text(c.metadata[3].value, "{\"a\":[1,\"x\"]}");
    assert_text(c.metadata[4].value, "");
    assert_text(c.metadata[5].secret_name, "db");
    assert_text(c.metadata[5].secret_key, "pass");
    assert_text(c.metadata[6].secret_key, "db");
    assert_text(c.metadata[7].env_ref, "HOSTNAME");
    assert_text(c.metadata[7].value, "box");
    close_bench(&b);
}

static void a_component_has_defaults(void **state)
{
    outr_component_spec c = {0};
    bench b;
    (void)state;
    outr_kind_component(&b.env, open_bench(&b, "spec: {type: state.x, version: \"\"}\n"), &c);
    assert_clean(&b);
    assert_text(c.version, "v1");
    assert_false(c.ignore_errors);
    assert_int_equal(c.init_timeout_ns, 5 * OUTR_SEC);
    assert_int_equal(c.metadata_count, 0);
    close_bench(&b);
}

static void a_bad_init_timeout_is_the_default_and_said(void **state)
{
    static const char *const values[] = {"soon", "0", "-3s", "5"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(values); i++) {
        char text[128];
        outr_component_spec c = {0};
        bench b;
        snprintf(text, sizeof text, "spec:\n  type: state.x\n  initTimeout: %s\n", values[i]);
        outr_kind_component(&b.env, open_bench(&b, text), &c);
        assert_int_equal(b.errors.count, 0);
        assert_int_equal(c.init_timeout_ns, 5 * OUTR_SEC);
        assert_told(&b.warnings, "file.yaml:3:16: spec.initTimeout");
        close_bench(&b);
    }
}

static void a_component_type_has_a_category_and_a_name(void **state)
{
    static const char *const bad[] = {"state", ".redis"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        char text[128];
        outr_component_spec c = {0};
        bench b;
        snprintf(text, sizeof text, "spec: {type: %s}\n", bad[i]);
        outr_kind_component(&b.env, open_bench(&b, text), &c);
        assert_told(&b.errors, "file.yaml:1:");
        assert_told(&b.errors, bad[i]);
        close_bench(&b);
    }
}

static void all_mistakes_are_told_with_their_places(void **state)
{
    outr_component_spec c = {0};
    bench b;
    (void)state;
    outr_kind_component(&b.env,
                        open_bench(&b, "spec:\n"
                                       "  version: [v1]\n"
                                       "  ignoreErrors: perhaps\n"
                                       "  metadata:\n"
                                       "  - value: 1\n"
                                       "  - name: {a: b}\n"
                                       "  - just text\n"
                                       "  - {name: x, secretKeyRef: {key: k}}\n"
                                       "auth: vault\n"),
                        &c);
    assert_told(&b.errors, "file.yaml:2:3: spec.type: required");
    assert_told(&b.errors, "file.yaml:2:12: spec.version: must be a text");
    assert_told(&b.errors, "file.yaml:3:17: spec.ignoreErrors: must be true or false");
    assert_told(&b.errors, "file.yaml:5:5: spec.metadata[0].name: required");
    assert_told(&b.errors, "file.yaml:6:11: spec.metadata[1].name: must be a text");
    assert_told(&b.errors, "file.yaml:7:5: spec.metadata[2]: must be a mapping");
    assert_told(&b.errors, "spec.metadata[3].secretKeyRef.name: required");
    assert_told(&b.errors, "file.yaml:9:7: auth: must be a mapping");
    assert_int_equal(b.errors.count, 8);
    close_bench(&b);
}

static void unknown_fields_warn_with_their_path(void **state)
{
    outr_component_spec c = {0};
    bench b;
    (void)state;
    outr_kind_component(&b.env,
                        open_bench(&b, "extra: 1\nspec:\n  type: state.x\n  typo: 2\n  metadata:\n"
                                       "  - {name: a, valeu: 3}\n"),
                        &c);
    assert_int_equal(b.errors.count, 0);
    assert_int_equal(b.warnings.count, 3);
    assert_told(&b.warnings, "file.yaml:1:8: extra: unknown field");
    assert_told(&b.warnings, "file.yaml:4:9: spec.typo: unknown field");
    assert_told(&b.warnings, "spec.metadata[0].valeu: unknown field");
    close_bench(&b);
}

static void a_document_without_spec_is_a_mistake(void **state)
{
    static const char *const texts[] = {"kind: Component\n", "spec:\n", "spec: text\n",
                                        "spec: [a]\n"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        outr_component_spec c = {0};
        outr_resiliency_spec r = {0};
        outr_subscription_spec s = {0};
        outr_endpoint_spec e = {0};
        bench b;
        outr_yaml *root = open_bench(&b, texts[i]);
        outr_kind_component(&b.env, root, &c);
        outr_kind_subscription(&b.env, root, true, &s);
        outr_kind_endpoint(&b.env, root, &e);
        outr_kind_resiliency(&b.env, root, &r);
        assert_true(b.errors.count >= 4);
        assert_told(&b.errors, "spec: ");
        close_bench(&b);
    }
}

/* ---- envRef --------------------------------------------------------------------------------- */

static void only_variables_that_may_be_read_are_read(void **state)
{
    static const struct {
        const char *name, *keys, *value;
        bool is_refused;
    } rows[] = {
        {"PLAIN", "", "1", false},
        {"PLAIN", "OTHER", "", true},
        {"PLAIN", "OTHER PLAIN", "1", false},
        {"PLAIN", "PLAINER", "", true},
        {"DAPR_API_TOKEN", "", "", true},
        {"dapr_api_token", "", "", true},
        {"APP_API_TOKEN", "", "", true},
        {"DAPR_X", "DAPR_X", "", true},
        {"WITH SPACE", "", "", true},
        {"ABSENT", "", "", false},
        {"EMPTY", "", "", false},
    };
    char *const envp[] = {"PLAIN=1",      "DAPR_API_TOKEN=s", "APP_API_TOKEN=s",  "DAPR_X=s",
                          "WITH SPACE=s", "EMPTY=",           "dapr_api_token=s", NULL};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        char text[160];
        outr_component_spec c = {0};
        bench b;
        snprintf(text, sizeof text, "spec:\n  type: a.b\n  metadata: [{name: x, envRef: \"%s\"}]\n",
                 rows[i].name);
        outr_yaml *root = open_bench(&b, text);
        b.env.envp = envp;
        b.env.env_keys = outr_str_from(rows[i].keys);
        outr_kind_component(&b.env, root, &c);
        assert_int_equal(b.errors.count, 0);
        assert_text(c.metadata[0].value, rows[i].value);
        assert_int_equal(b.warnings.count, rows[i].is_refused);
        close_bench(&b);
    }
}

/* ---- Subscription --------------------------------------------------------------------------- */

static void every_field_of_a_v1_subscription_is_bound(void **state)
{
    outr_subscription_spec s = {0};
    bench b;
    (void)state;
    outr_kind_subscription(&b.env,
                           open_bench(&b, "apiVersion: dapr.io/v1alpha1\nkind: Subscription\n"
                                          "metadata: {name: s}\nscopes: [a]\n"
                                          "spec:\n  pubsubname: p\n  topic: t\n  route: /orders\n"
                                          "  deadLetterTopic: dead\n"
                                          "  metadata: {rawPayload: true, n: 1}\n"
                                          "  bulkSubscribe: {enabled: true, maxMessagesCount: 7, "
                                          "maxAwaitDurationMs: 20}\n"),
                           false, &s);
    assert_clean(&b);
    assert_text(s.pubsub, "p");
    assert_text(s.topic, "t");
    assert_text(s.dead_letter_topic, "dead");
    assert_int_equal(s.metadata.count, 2);
    assert_text(outr_kvs_find(s.metadata, "rawpayload")->value, "true");
    assert_int_equal(s.rule_count, 1);
    assert_text(s.rules[0].path, "/orders");
    assert_int_equal(s.rules[0].match.n, 0);
    assert_true(s.is_bulk);
    assert_int_equal(s.bulk_max_messages, 7);
    assert_int_equal(s.bulk_max_await_ms, 20);
    close_bench(&b);
}

static void every_field_of_a_v2_subscription_is_bound(void **state)
{
    outr_subscription_spec s = {0};
    bench b;
    (void)state;
    outr_kind_subscription(&b.env,
                           open_bench(&b, "spec:\n  pubsubname: p\n  topic: t\n  routes:\n"
                                          "    default: /other\n    rules:\n"
                                          "    - {match: event.type == \"a\", path: /a}\n"
                                          "    - {match: \"\", path: /b}\n"),
                           true, &s);
    assert_clean(&b);
    assert_int_equal(s.rule_count, 3);
    assert_text(s.rules[0].match, "event.type == \"a\"");
    assert_text(s.rules[0].path, "/a");
    assert_text(s.rules[1].path, "/b");
    assert_text(s.rules[2].path, "/other");
    assert_int_equal(s.rules[2].match.n, 0);
    assert_false(s.is_bulk);
    assert_int_equal(s.bulk_max_messages, 100);
    assert_int_equal(s.bulk_max_await_ms, 1000);
    close_bench(&b);
}

static void a_v2_subscription_without_default_drops_what_no_rule_takes(void **state)
{
    outr_subscription_spec s = {0};
    bench b;
    (void)state;
    outr_kind_subscription(
        &b.env,
        open_bench(&b, "spec: {pubsubname: p, topic: t, routes: {rules: [{match: x, path: /x}]}}"),
        true, &s);
    assert_clean(&b);
    assert_int_equal(s.rule_count, 1);
    close_bench(&b);
}

static void bulk_limits_below_one_are_the_defaults(void **state)
{
    outr_subscription_spec s = {0};
    bench b;
    (void)state;
    outr_kind_subscription(&b.env,
                           open_bench(&b,
                                      "spec: {pubsubname: p, topic: t, route: /r, bulkSubscribe: "
                                      "{maxMessagesCount: 0, maxAwaitDurationMs: -5}}"),
                           false, &s);
    assert_clean(&b);
    assert_int_equal(s.bulk_max_messages, 100);
    assert_int_equal(s.bulk_max_await_ms, 1000);
    close_bench(&b);
}

static void a_subscription_names_what_it_lacks(void **state)
{
    outr_subscription_spec s = {0}, v2 = {0};
    bench b;
    (void)state;
    outr_yaml *root = open_bench(&b, "spec:\n  deadLetterTopic: d\n");
    outr_kind_subscription(&b.env, root, false, &s);
    assert_told(&b.errors, "spec.pubsubname: required");
    assert_told(&b.errors, "spec.topic: required");
    assert_told(&b.errors, "spec.route: required");
    close_bench(&b);
    root = open_bench(&b, "spec: {pubsubname: p, topic: t, routes: {rules: [{match: x}]}}");
    outr_kind_subscription(&b.env, root, true, &v2);
    assert_told(&b.errors, "spec.routes.rules[0].path: required");
    close_bench(&b);
}

/* ---- HTTPEndpoint --------------------------------------------------------------------------- */

static void every_field_of_an_endpoint_is_bound(void **state)
{
    outr_endpoint_spec e = {0};
    char *const envp[] = {"TOKEN=t", NULL};
    bench b;
    (void)state;
    outr_yaml *root = open_bench(
        &b, "spec:\n  baseUrl: https://api.test/base\n  headers:\n"
            "  - {name: X-Key, value: 5}\n  - {name: X-Secret, secretKeyRef: {name: s, key: k}}\n"
            "  - {name: X-Env, envRef: TOKEN}\n"
            "  clientTLS:\n    rootCA: {value: CA}\n    certificate: {secretKeyRef: {name: c}}\n"
            "    privateKey: {secretKeyRef: {name: c, key: key}}\n"
            "    renegotiation: RenegotiateNever\nauth: {secretStore: vault}\n");
    b.env.envp = envp;
    outr_kind_endpoint(&b.env, root, &e);
    assert_clean(&b);
    assert_text(e.base_url, "https://api.test/base");
    assert_int_equal(e.header_count, 3);
    assert_text(e.headers[0].name, "X-Key");
    assert_text(e.headers[0].value, "5");
    assert_text(e.headers[1].secret_name, "s");
    assert_text(e.headers[1].secret_key, "k");
    assert_text(e.headers[2].value, "t");
    assert_text(e.root_ca.value, "CA");
    assert_text(e.certificate.secret_name, "c");
    assert_text(e.certificate.secret_key, "c");
    assert_text(e.private_key.secret_key, "key");
    assert_text(e.secret_store, "vault");
    close_bench(&b);
}

/* ---- Resiliency ----------------------------------------------------------------------------- */

static const char whole_resiliency[] =
    "spec:\n"
    "  policies:\n"
    "    timeouts: {short: 5s, number: 250, none: 0}\n"
    "    retries:\n"
    "      often: {policy: constant, duration: 2s, maxRetries: 10}\n"
    "      slow: {policy: Exponential, maxInterval: 15s, maxRetries: -1,\n"
    "             matching: {httpStatusCodes: \"429,500-599\", gRPCStatusCodes: \"1-4\"}}\n"
    "      empty:\n"
    "    circuitBreakers:\n"
    "      cb: {maxRequests: 3, interval: 8s, timeout: 45s, trip: consecutiveFailures > 8}\n"
    "  targets:\n"
    "    apps:\n"
    "      orders: {timeout: short, retry: often, circuitBreaker: cb, circuitBreakerCacheSize: 9}\n"
    "    actors:\n"
    "      cart: {retry: slow, circuitBreakerScope: both}\n"
    "    components:\n"
    "      store: {outbound: {retry: slow}, inbound: {timeout: short}}\n";

static void every_field_of_a_resiliency_is_bound(void **state)
{
    outr_resiliency_spec r = {0};
    bench b;
    (void)state;
    outr_kind_resiliency(&b.env, open_bench(&b, whole_resiliency), &r);
    assert_clean(&b);
    assert_int_equal(r.timeout_count, 3);
    assert_text(r.timeouts[0].name, "short");
    assert_int_equal(r.timeouts[0].timeout_ns, 5 * OUTR_SEC);
    assert_int_equal(r.timeouts[1].timeout_ns, 250 * OUTR_MS);
    assert_int_equal(r.timeouts[2].timeout_ns, 0);
    assert_int_equal(r.retry_count, 3);
    assert_text(r.retries[0].name, "often");
    assert_false(r.retries[0].is_exponential);
    assert_int_equal(r.retries[0].duration_ns, 2 * OUTR_SEC);
    assert_int_equal(r.retries[0].max_retries, 10);
    assert_true(r.retries[1].is_exponential);
    assert_int_equal(r.retries[1].max_interval_ns, 15 * OUTR_SEC);
    assert_int_equal(r.retries[1].max_retries, -1);
    assert_text(r.retries[1].http_codes, "429,500-599");
    assert_text(r.retries[1].grpc_codes, "1-4");
    assert_text(r.retries[2].name, "empty");
    assert_int_equal(r.retries[2].duration_ns, 5 * OUTR_SEC);
    assert_int_equal(r.retries[2].max_interval_ns, 60 * OUTR_SEC);
    assert_int_equal(r.retries[2].max_retries, -1);
    assert_int_equal(r.breaker_count, 1);
    assert_int_equal(r.breakers[0].max_requests, 3);
    assert_int_equal(r.breakers[0].interval_ns, 8 * OUTR_SEC);
    assert_int_equal(r.breakers[0].timeout_ns, 45 * OUTR_SEC);
    assert_text(r.breakers[0].trip, "consecutiveFailures > 8");
    assert_int_equal(r.target_count, 4);
    assert_int_equal(r.targets[0].kind, OUTR_TARGET_APP);
    assert_text(r.targets[0].name, "orders");
    assert_text(r.targets[0].timeout, "short");
    assert_text(r.targets[0].retry, "often");
    assert_text(r.targets[0].breaker, "cb");
    assert_int_equal(r.targets[0].breaker_cache_size, 9);
    assert_int_equal(r.targets[1].kind, OUTR_TARGET_ACTOR);
    assert_int_equal(r.targets[2].kind, OUTR_TARGET_COMPONENT_OUT);
    assert_int_equal(r.targets[3].kind, OUTR_TARGET_COMPONENT_IN);
    assert_text(r.targets[3].name, "store");
    close_bench(&b);
}

static void breakers_and_targets_have_the_defaults_of_the_contract(void **state)
{
    outr_resiliency_spec r = {0};
    bench b;
    (void)state;
    outr_kind_resiliency(&b.env,
                         open_bench(&b, "spec: {policies: {circuitBreakers: {cb: {}}},"
                                        " targets: {apps: {a: {}}, actors: {t: {}}}}"),
                         &r);
    assert_clean(&b);
    assert_int_equal(r.breakers[0].max_requests, 1);
    assert_int_equal(r.breakers[0].interval_ns, 0);
    assert_int_equal(r.breakers[0].timeout_ns, 60 * OUTR_SEC);
    assert_text(r.breakers[0].trip, "consecutiveFailures > 5");
    assert_int_equal(r.targets[0].breaker_cache_size, 100);
    assert_int_equal(r.targets[1].breaker_cache_size, 5000);
    close_bench(&b);
}

static void bad_policies_are_all_told(void **state)
{
    outr_resiliency_spec r = {0};
    bench b;
    (void)state;
    outr_kind_resiliency(&b.env,
                         open_bench(&b, "spec:\n"
                                        "  policies:\n"
                                        "    timeouts: {a: soon, b: -1s, c: [1]}\n"
                                        "    retries:\n"
                                        "      r: {policy: random, duration: x, maxRetries: -2}\n"
                                        "    circuitBreakers:\n"
                                        "      c: {maxRequests: few, timeout: [1]}\n"
                                        "  targets:\n"
                                        "    apps: {a: {timeout: {}, what: 1}}\n"),
                         &r);
    assert_told(&b.errors, "file.yaml:3:19: spec.policies.timeouts.a");
    assert_told(&b.errors, "spec.policies.timeouts.b");
    assert_told(&b.errors, "spec.policies.timeouts.c");
    assert_told(&b.errors, "policy must be constant or exponential");
    assert_told(&b.errors, "spec.policies.retries.r.duration");
    assert_told(&b.errors, "maxRetries must be an integer");
    assert_told(&b.errors, "spec.policies.circuitBreakers.c.maxRequests");
    assert_told(&b.errors, "spec.policies.circuitBreakers.c.timeout");
    assert_told(&b.warnings, "unknown field");
    close_bench(&b);
}

static void conditions_and_codes_are_checked_where_they_stand(void **state)
{
    outr_resiliency_spec r = {0};
    bench b;
    (void)state;
    outr_kind_resiliency(&b.env,
                         open_bench(&b, "spec:\n"
                                        "  policies:\n"
                                        "    retries:\n"
                                        "      r: {matching: {httpStatusCodes: 429-42}}\n"
                                        "      g: {matching: {gRPCStatusCodes: 17}}\n"
                                        "    circuitBreakers:\n"
                                        "      ok: {trip: totalFailures / requests > 2}\n"
                                        "      bad: {trip: consecutiveFailures >}\n"
                                        "      typo: {trip: consecutiveFailure > 3}\n"
                                        "  targets:\n"
                                        "    actors: {t: {circuitBreaker: ok}}\n"),
                         &r);
    assert_told(&b.errors, "file.yaml:4:39: httpStatusCodes: \"429-42\" is not within 100 to 599");
    assert_told(&b.errors, "file.yaml:5:39: gRPCStatusCodes");
    assert_told(&b.errors, "file.yaml:8:19: trip: ");
    assert_told(&b.errors, "circuitBreakerScope");
    assert_int_equal(b.errors.count, 4);
    assert_told(&b.warnings, "file.yaml:9:20: trip may never hold: ");
    assert_int_equal(b.warnings.count, 1);
    close_bench(&b);
}

static void parts_of_the_wrong_shape_are_told(void **state)
{
    static const char *const texts[] = {
        "spec: {policies: {timeouts: [a]}}",
        "spec: {policies: {timeouts: text}}",
        "spec: {policies: {retries: text}}",
        "spec: {policies: text}",
        "spec: {targets: text}",
        "spec: {targets: {apps: text}}",
        "spec: {targets: {apps: [a]}}",
        "spec: {targets: {components: {c: text}}}",
        "spec: {targets: {components: {c: {outbound: text}}}}",
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        outr_resiliency_spec r = {0};
        bench b;
        outr_kind_resiliency(&b.env, open_bench(&b, texts[i]), &r);
        if (b.errors.count == 0)
            fail_msg("%s: nothing was said", texts[i]);
        close_bench(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_of_a_component_is_bound),
        cmocka_unit_test(a_component_has_defaults),
        cmocka_unit_test(a_bad_init_timeout_is_the_default_and_said),
        cmocka_unit_test(a_component_type_has_a_category_and_a_name),
        cmocka_unit_test(all_mistakes_are_told_with_their_places),
        cmocka_unit_test(unknown_fields_warn_with_their_path),
        cmocka_unit_test(a_document_without_spec_is_a_mistake),
        cmocka_unit_test(only_variables_that_may_be_read_are_read),
        cmocka_unit_test(every_field_of_a_v1_subscription_is_bound),
        cmocka_unit_test(every_field_of_a_v2_subscription_is_bound),
        cmocka_unit_test(a_v2_subscription_without_default_drops_what_no_rule_takes),
        cmocka_unit_test(bulk_limits_below_one_are_the_defaults),
        cmocka_unit_test(a_subscription_names_what_it_lacks),
        cmocka_unit_test(every_field_of_an_endpoint_is_bound),
        cmocka_unit_test(every_field_of_a_resiliency_is_bound),
        cmocka_unit_test(breakers_and_targets_have_the_defaults_of_the_contract),
        cmocka_unit_test(bad_policies_are_all_told),
        cmocka_unit_test(conditions_and_codes_are_checked_where_they_stand),
        cmocka_unit_test(parts_of_the_wrong_shape_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
