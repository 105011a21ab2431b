#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "unit/config/kind.h"

#define NOW (1767225600 * (int64_t)OUTR_SEC) /* 2026-01-01T00:00:00Z */
#define HEAD                                                                                       \
    "apiVersion: outrigger.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: t}\nspec:\n"

static const outr_traffic_spec *bind(bench *b, const char *text)
{
    outr_yaml *root = open_bench(b, text);
    outr_traffic_spec *spec = outr_arena_alloc(b->arena, sizeof *spec);
    outr_kind_traffic(&b->env, root, NOW, spec);
    return spec;
}

static void all_of_it_is_read(void **state)
{
    bench b;
    (void)state;
    const outr_traffic_spec *t = bind(
        &b, HEAD
        "  targets: [orders, cart.prod]\n"
        "  subsets:\n"
        "  - {name: v1, labels: {version: 1}}\n"
        "  - {name: v2, labels: {version: '2', zone: a}}\n"
        "  routes:\n"
        "  - name: testers\n"
        "    match:\n"
        "    - path: {prefix: /orders}\n"
        "      methods: [GET, POST]\n"
        "      headers: [{name: X-User, exact: ann}, {name: x-any}]\n"
        "      query: [{name: q, prefix: a}]\n"
        "      baggage: [{name: tier, regex: 'g.*'}]\n"
        "      claims: [{name: role, exact: ''}]\n"
        "      sources: [web]\n"
        "    - path: {exact: /pkg.Orders/Get}\n"
        "    to: [{subset: v2}]\n"
        "    fallback: v1\n"
        "    environment: test\n"
        "    timeout: 2s\n"
        "    retry: {attempts: 2, tryTimeout: 500ms, httpCodes: '502-504', grpcCodes: '14'}\n"
        "    mirror: {appId: shadow, subset: v1, percent: 5.5, compare: true}\n"
        "    fault:\n"
        "      expires: 2026-01-02T00:00:00Z\n"
        "      delay: {duration: 100ms, percent: 10}\n"
        "      abort: {status: 503}\n"
        "  - to: [{subset: v1, weight: 99}, {subset: v2, weight: 1}]\n"
        "    sticky: {header: X-Session}\n"
        "    fallback: any\n"
        "  environment: {baggage: env, label: stage, fallback: prod}\n"
        "  locality: {label: region, minPercent: 70}\n"
        "  slowStart: 30s\n"
        "  ejection: {consecutive: 3, failurePercent: 50, window: 40, maxPercent: 30, baseTime: 1s, maxTime: 60s}\n"
        "  healthCheck: {path: /healthz, interval: 2s, timeout: 500ms}\n"
        "  retryBudget: {percent: 10, perSecond: 5}\n"
        "  hedge: {after: 50ms, maxPercent: 2}\n"
        "  limits: {connections: 10, pending: 20, requests: 30}\n"
        "  inbound:\n"
        "    concurrency: {min: 2, max: 50, initial: 10, queue: 7, target: 10ms, interval: 200ms, priorityPaths: [/health]}\n"
        "    rateLimits:\n"
        "    - {name: all, requests: 100}\n"
        "    - {match: [{methods: [POST]}], per: 'header:X-Key', requests: 5, interval: 1m, burst: 9, buckets: 10, store: redis}\n");
    assert_clean(&b);
    assert_int_equal(t->target_count, 2);
    assert_int_equal(t->subset_count, 2);
    assert_text(t->subsets[0].labels.items[0].value, "1");
    assert_int_equal(t->route_count, 2);
    const outr_route_spec *r = &t->routes[0];
    assert_text(r->name, "testers");
    assert_int_equal(r->match_count, 2);
    const outr_traffic_match *m = &r->matches[0];
    assert_true(m->has_path && m->path.has_prefix && !m->path.has_exact);
    assert_text(m->headers[0].name, "x-user");
    assert_true(m->headers[0].has_exact && !m->headers[1].has_exact);
    assert_true(m->query[0].has_prefix);
    assert_non_null(m->baggage[0].regex);
    assert_true(m->claims[0].has_exact && m->claims[0].exact.n == 0);
    assert_text(m->sources[0], "web");
    assert_true(r->matches[1].path.has_exact && r->matches[1].method_count == 0);
    assert_ptr_equal(r->splits[0].to, &t->subsets[1]);
    assert_int_equal(r->splits[0].weight, 1);
    assert_ptr_equal(r->fallback_to, &t->subsets[0]);
    assert_text(r->environment, "test");
    assert_int_equal(r->timeout_ns, 2 * OUTR_SEC);
    assert_true(r->retry.is_on && r->retry.attempts == 2);
    assert_int_equal(r->retry.try_timeout_ns, 500 * OUTR_MS);
    assert_true(r->mirror.is_on && r->mirror.is_compared && r->mirror.to == &t->subsets[0]);
    assert_true(r->mirror.percent > 5.4 && r->mirror.percent < 5.6);
    assert_true(r->fault.is_on && r->fault.until_unix_ns > (uint64_t)NOW);
    assert_int_equal(r->fault.abort_status, 503);
    assert_int_equal(r->fault.abort_grpc, 14);
    assert_true(r->fault.abort_percent > 99.9 && r->fault.delay_percent < 10.1);
    r = &t->routes[1];
    assert_text(r->name, "#2");
    assert_true(r->falls_to_any && r->sticks_to == OUTR_STICKY_HEADER);
    assert_text(r->sticky.name, "x-session");
    assert_false(r->retry.is_on || r->fault.is_on || r->mirror.is_on);
    assert_true(t->environment.is_on && t->locality.is_on && t->has_slow_start);
    assert_text(t->environment.baggage, "env");
    assert_int_equal(t->ejection.max_percent, 30);
    assert_int_equal(t->health_check.interval_ns, 2 * OUTR_SEC);
    assert_int_equal(t->retry_budget.per_second, 5);
    assert_int_equal(t->hedge.after_ns, 50 * OUTR_MS);
    assert_int_equal(t->limits.requests, 30);
    assert_int_equal(t->concurrency.queue, 7);
    assert_int_equal(t->concurrency.priority_path_count, 1);
    assert_int_equal(t->rate_count, 2);
    assert_int_equal(t->rates[0].burst, 100);
    assert_int_equal(t->rates[0].interval_ns, OUTR_SEC);
    assert_int_equal(t->rates[1].per, OUTR_RATE_HEADER);
    assert_text(t->rates[1].per_name, "x-key");
    assert_int_equal(t->rates[1].burst, 9);
    close_bench(&b);
}

static void what_nobody_says_is_the_default(void **state)
{
    bench b;
    (void)state;
    const outr_traffic_spec *t = bind(&b, HEAD "  ejection: {consecutive: 7}\n"
                                               "  inbound: {concurrency: {max: 10}}\n");
    assert_clean(&b);
    assert_true(t->ejection.is_on && t->ejection.consecutive == 7 && t->ejection.window == 20);
    assert_true(t->concurrency.is_on && t->concurrency.initial == 5);
    assert_false(t->environment.is_on || t->locality.is_on || t->has_slow_start || t->hedge.is_on ||
                 t->limits.is_on || t->retry_budget.is_on || t->health_check.is_on);
    assert_text(t->environment.label, "environment");
    assert_int_equal(t->slow_start_ns, 10 * OUTR_SEC);
    close_bench(&b);
}

/* A route behind one subset, at line 7. */
#define ROUTE(text) HEAD "  subsets: [{name: v1, labels: {v: 1}}]\n  routes:\n  - {" text "}\n"
#define MATCH(text) ROUTE("match: [{" text "}]")
#define TO          "to: [{subset: v1}]"
#define FAULT(text) ROUTE("fault: {expires: 2026-02-01T00:00:00Z, " text "}")
#define RATE(text)  HEAD "  inbound: {rateLimits: [{" text "}]}\n"

static void all_mistakes_are_told_with_their_place(void **state)
{
    static const struct {
        const char *text, *told;
    } rows[] = {
        {HEAD "  target: [a]\n", "file.yaml:5:11: spec.target: unknown field"},
        {HEAD "  targets: []\n", "spec.targets: is empty"},
        {HEAD "  targets: [a, a]\n", "\"a\" is there twice"},
        {HEAD "  targets: ['a/b']\n", "spec.targets: \"a/b\" is not an app id"},
        {HEAD "  targets: ['a.b.c']\n", "is not an app id"},
        {HEAD "  subsets: [{name: a, labels: {v: 1}}, {name: a, labels: {v: 2}}]\n",
         "spec.subsets[1].name: \"a\" is there already, in line 5"},
        {HEAD "  subsets: [{name: any, labels: {v: 1}}]\n", "have a meaning of their own"},
        {HEAD "  subsets: [{name: a, labels: {}}]\n", "labels: is empty"},
        {HEAD "  subsets: [{name: a}]\n", "spec.subsets[0].labels: required"},
        {HEAD "  subsets: [{labels: {v: 1}}]\n", "spec.subsets[0].name: required"},
        {HEAD "  subsets: [{name: a, labels: {'v,': 1}}]\n", "cannot be a label's name"},
        {HEAD "  subsets: [{name: a, labels: {v: 'x y'}}]\n", "label v: \"x y\" cannot be its value"},
        {ROUTE("to: [{subset: v3}]"),
         "file.yaml:7:20: spec.routes[0].to[0].subset: there is no subset \"v3\""},
        {ROUTE("to: []"), "spec.routes[0].to: is empty"},
        {ROUTE("to: [{weight: 1}]"), "to[0].subset: required"},
        {ROUTE("to: [{subset: v1, weight: 0}]"), "to: all weights are 0"},
        {ROUTE("to: [{subset: v1, weight: -1}]"), "to[0].weight: must be 0 to 1000000, not -1"},
        {ROUTE("to: [{subset: v1, weight: 1000001}]"), "must be 0 to 1000000"},
        {ROUTE("to: [{subset: v1, weight: many}]"), "weight: must be an integer"},
        {ROUTE("to: [{subset: v1}, {subset: v1}]"), "to[1].subset: \"v1\" is there twice"},
        {ROUTE("weights: 1"), "spec.routes[0].weights: unknown field"},
        {ROUTE("name: a}\n  - {name: a"), "routes[1].name: \"a\" is there already, in line 7"},
        {ROUTE("sticky: {header: a}"), "has no effect without subsets"},
        {ROUTE(TO ", sticky: {header: a, claim: b}"), "needs one of header, baggage and claim"},
        {ROUTE(TO ", sticky: {}"), "needs one of header"},
        {ROUTE(TO ", sticky: {header: 'a b'}"), "\"a b\" is not the name of a header"},
        {ROUTE(TO ", sticky: {cookie: a}"), "sticky.cookie: unknown field"},
        {ROUTE(TO ", fallback: v9"), "fallback: there is no subset \"v9\""},
        {ROUTE("fallback: any"), "fallback: has no effect"},
        {ROUTE("environment: 'a b'"), "routes[0].environment: "},
        {ROUTE("timeout: -1s"), "timeout: must be a duration"},
        {ROUTE("timeout: 25h"), "timeout: must be 24h at most"},
        {ROUTE("timeout: 1us"), "timeout: must be 1 ms at least"},
        {ROUTE("retry: {}"), "retry.attempts: required"},
        {ROUTE("retry: {attempts: 21}"), "retry.attempts: must be 0 to 20, not 21"},
        {ROUTE("retry: {attempts: 1, httpCodes: x}"), "httpCodes: \"x\" is no code"},
        {ROUTE("retry: {attempts: 1, httpCodes: '600'}"), "is not within 100 to 599"},
        {ROUTE("retry: {attempts: 1, grpcCodes: '17'}"), "is not within 0 to 16"},
        {ROUTE("timeout: 1s, retry: {attempts: 1, tryTimeout: 2s}"),
         "must not be longer than the route's timeout"},
        {ROUTE("mirror: {}"), "mirror: needs appId, subset or both"},
        {ROUTE("mirror: {subset: x}"), "mirror.subset: there is no subset"},
        {ROUTE("mirror: {appId: a, percent: 101}"), "mirror.percent: must be 0 to 100, not 101"},
        {ROUTE("mirror: {appId: a, percent: nan}"), "mirror.percent: must be 0 to 100"},
        {ROUTE("mirror: {appId: a, percent: x}"), "mirror.percent: must be a number"},
        {ROUTE("fault: {abort: {status: 500}}"), "fault.expires: required"},
        {ROUTE("fault: {expires: tomorrow, abort: {status: 500}}"), "must be a time like"},
        {ROUTE("fault: {expires: 2027-02-01T00:00:00Z, abort: {status: 500}}"),
         "more than a year ahead"},
        {ROUTE("fault: {expires: 2026-02-01T00:00:00Z}"), "fault: needs delay, abort or both"},
        {FAULT("delay: {}"), "delay.duration: required"},
        {FAULT("delay: {duration: 2h}"), "an hour at most"},
        {FAULT("delay: {duration: 1s, percent: -1}"), "delay.percent: must be 0 to 100"},
        {FAULT("abort: {}"), "abort: needs status, grpcStatus or both"},
        {FAULT("abort: {status: 99}"), "abort.status: must be 200 to 599"},
        {FAULT("abort: {grpcStatus: 17}"), "abort.grpcStatus: must be 1 to 16"},
        {MATCH(""), "match[0]: is empty; leave match out"},
        {ROUTE("match: []"), "routes[0].match: is empty"},
        {MATCH("path: {}"), "path: needs one of exact, prefix and regex"},
        {MATCH("path: {exact: /a, prefix: /b}"), "path: give one of exact, prefix and regex"},
        {MATCH("path: {exact: a}"), "path.exact: must be a clean path"},
        {MATCH("path: {exact: '/a?b'}"), "path.exact: must be a clean path"},
        {MATCH("path: {prefix: /a/../b}"), "path.prefix: must be a clean path"},
        {MATCH("path: {regex: '('}"), "file.yaml:7:29: spec.routes[0].match[0].path.regex: regular"},
        {MATCH("path: {regex: 'a)|(b'}"), "path.regex: regular expression"},
        {MATCH("methods: [get]"), "methods: must be verbs in upper case, not \"get\""},
        {MATCH("methods: []"), "methods: is empty"},
        {MATCH("headers: [{exact: a}]"), "headers[0].name: required"},
        {MATCH("headers: [{name: 'a b'}]"), "is not the name of a header"},
        {MATCH("headers: [{name: a, exact: b, regex: c}]"), "give one of exact"},
        {MATCH("query: []"), "query: is empty"},
        {MATCH("baggage: [{name: a, value: b}]"), "baggage[0].value: unknown field"},
        {MATCH("claims: [{name: a, regex: '['}]"), "claims[0].regex: regular expression"},
        {MATCH("sources: ['']"), "sources: \"\" is not an app id"},
        {MATCH("sources: [web.prod]"), "sources: must be app ids without a namespace, not \"web.p"},
        {HEAD "  environment: {label: 'a b'}\n", "environment.label: "},
        {HEAD "  environment: {baggage: 'a b'}\n", "is not a name of baggage"},
        {HEAD "  environment: {fallback: 'a b'}\n", "environment.fallback: "},
        {HEAD "  locality: {minPercent: 101}\n", "locality.minPercent: must be 0 to 100"},
        {HEAD "  slowStart: 2d\n", "slowStart: must be a duration"},
        {HEAD "  ejection: {consecutive: 0}\n", "consecutive: must be 1 to 1000, not 0"},
        {HEAD "  ejection: {maxPercent: 101}\n", "maxPercent: must be 0 to 100"},
        {HEAD "  ejection: {baseTime: 10s, maxTime: 1s}\n", "must not be shorter than baseTime"},
        {HEAD "  ejection: {disabled: true, consecutive: 3}\n", "contradicts the settings"},
        {HEAD "  ejection: 5\n", "spec.ejection: must be a mapping"},
        {HEAD "  healthCheck: {path: x}\n", "healthCheck.path: must begin with /"},
        {HEAD "  healthCheck: {interval: 1s, timeout: 2s}\n", "must not be longer than interval"},
        {HEAD "  retryBudget: {percent: -3}\n", "retryBudget.percent: must be 0 to 100, not -3"},
        {HEAD "  hedge: {after: 10ms, percentile: 95}\n", "contradicts after"},
        {HEAD "  hedge: {percentile: 100}\n", "percentile: must be 50 to 99.99"},
        {HEAD "  limits: {requests: 0}\n", "limits.requests: must be 1 to 1000000, not 0"},
        {HEAD "  limits: {retries: 3}\n", "limits.retries: unknown field"},
        {HEAD "  inbound: {concurrency: {min: 5, max: 2}}\n", "min must not be larger than max"},
        {HEAD "  inbound: {concurrency: {initial: 5000}}\n", "initial: must be min to max"},
        {HEAD "  inbound: {concurrency: {target: 200ms}}\n", "target must not be longer than"},
        {HEAD "  inbound: {concurrency: {priorityPaths: [x]}}\n", "must begin with /"},
        {RATE("name: a"), "rateLimits[0].requests: required"},
        {RATE("requests: 0"), "rateLimits[0].requests: must be 1 to"},
        {RATE("requests: 1, per: user"), "per: must be route, identity"},
        {RATE("requests: 1, per: 'claim:'"), "per: must be route, identity"},
        {RATE("requests: 1, per: 'header:a b'"), "per: must be route, identity"},
        {RATE("requests: 1, buckets: 5"), "has no meaning per route"},
        {RATE("requests: 1, interval: 0"), "interval: must be 1 ms at least"},
        {RATE("requests: 1, name: a}, {requests: 1, name: a"), "\"a\" is there already"},
        {RATE("requests: 1, match: [{path: {exact: x}}]"), "rateLimits[0].match[0].path.exact"},
        {"apiVersion: outrigger.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: t}\n",
         "spec: required"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        bench b;
        bind(&b, rows[i].text);
        assert_told(&b.errors, rows[i].told);
        close_bench(&b);
    }
    bench b; /* all at once */
    bind(&b, ROUTE("to: [{subset: x}], timeout: 25h, retry: {attempts: 99}"));
    assert_int_equal(b.errors.count, 3);
    close_bench(&b);
}

static void a_fault_that_has_ended_is_a_warning_and_off(void **state)
{
    bench b;
    (void)state;
    const outr_traffic_spec *t =
        bind(&b, ROUTE("fault: {expires: 2025-12-31T23:59:59Z, abort: {grpcStatus: 8}}"));
    assert_int_equal(b.errors.count, 0);
    assert_told(&b.warnings, "file.yaml:7:23: spec.routes[0].fault.expires: has passed");
    assert_false(t->routes[0].fault.is_on);
    assert_int_equal(t->routes[0].fault.abort_status, 429);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_it_is_read),
        cmocka_unit_test(what_nobody_says_is_the_default),
        cmocka_unit_test(all_mistakes_are_told_with_their_place),
        cmocka_unit_test(a_fault_that_has_ended_is_a_warning_and_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
