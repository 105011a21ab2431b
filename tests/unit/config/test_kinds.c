#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "config/kinds/kinds.h"

/* One document, bound. */
typedef struct bench {
    outr_arena *arena;
    outr_err_list errors, warnings;
    outr_binder binder;
    outr_kind_env env;
} bench;

static outr_yaml *open_bench(bench *b, const char *text)
{
    outr_yaml_doc *doc;
    outr_err err;
    *b = (bench){.arena = outr_arena_new(4 * OUTR_MIB)};
    b->binder = (outr_binder){b->arena, "file.yaml", &b->errors, &b->warnings};
    b->env.binder = &b->binder;
    if (outr_yaml_parse(&doc, b->arena, "file.yaml", outr_str_from(text), 10000, &err))
        fail_msg("%s", err.text);
    return doc->root;
}

static void close_bench(bench *b)
{
    outr_err_list_done(&b->errors);
    outr_err_list_done(&b->warnings);
    outr_arena_free(b->arena);
}

static bool has(const outr_err_list *list, const char *text)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strstr(list->items[i].text, text))
            return true;
    }
    return false;
}

static void assert_told(const outr_err_list *list, const char *text)
{
    if (has(list, text))
        return;
    for (size_t i = 0; i < list->count; i++)
        print_message("  %s\n", list->items[i].text);
    fail_msg("nothing says \"%s\"", text);
}

static void assert_clean(const bench *b)
{
    if (b->errors.count)
        fail_msg("error: %s", b->errors.items[0].text);
    if (b->warnings.count)
        fail_msg("warning: %s", b->warnings.items[0].text);
}

#define assert_text(s, z)                                                                          \
    do {                                                                                           \
        outr_str got_ = (s);                                                                       \
        if (!outr_str_is(got_, z))                                                                 \
            fail_msg("\"" OUTR_FMT "\" is not \"%s\"", OUTR_ARG(got_), z);                         \
    } while (0)

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

/* ---- Configuration -------------------------------------------------------------------------- */

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
        cmocka_unit_test(every_field_of_a_configuration_that_is_acted_on_is_bound),
        cmocka_unit_test(tracing_is_on_as_the_rate_and_the_exporters_say),
        cmocka_unit_test(headers_for_the_collector_come_in_both_forms),
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
