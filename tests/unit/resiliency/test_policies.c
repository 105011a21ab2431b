#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "resiliency/policies.h"
#include "unit/resiliency/yaml.h"

#define NAMED                                                                                      \
    "spec:\n"                                                                                      \
    "  policies:\n"                                                                                \
    "    timeouts: {quick: 400ms}\n"                                                               \
    "    retries: {thrice: {duration: 30ms, maxRetries: 3}}\n"                                     \
    "    circuitBreakers: {trip: {trip: consecutiveFailures >= 2}}\n"

static const outr_policy *app(const outr_policies *p, const char *name)
{
    return outr_policies_find(p, OUTR_POLICY_APP, OUTR_OUTBOUND, outr_str_from(name));
}

static void a_target_has_what_its_row_says(void **state)
{
    outr_snapshot *s = yaml_one(NAMED "  targets:\n"
                                      "    apps: {a: {timeout: quick, retry: thrice,"
                                      " circuitBreaker: trip}, b: {retry: nobody}}\n");
    const outr_policies *p = outr_policies_of(s, NULL);
    (void)state;
    const outr_policy *a = app(p, "a");
    assert_non_null(a);
    assert_int_equal(a->timeout_ns, 400 * OUTR_MS);
    assert_int_equal(a->retry->max_retries, 3);
    assert_non_null(a->breakers);
    assert_true(outr_str_is(a->of_retry->name, "r0"));
    assert_null(app(p, "b")); /* a policy that is nowhere is none */
    assert_null(app(p, "c"));
    assert_true(outr_policies_name_app(p, OUTR_STR("b")));
    assert_false(outr_policies_name_app(p, OUTR_STR("c")));
    assert_ptr_equal(outr_policies_of(s, NULL), p);
    outr_snapshot_unref(s);
}

static void without_resources_there_is_nothing(void **state)
{
    outr_snapshot *s = yaml_snapshot((const char *const[]){NULL});
    (void)state;
    assert_null(outr_policies_of(s, NULL));
    assert_null(app(NULL, "a"));
    assert_false(outr_policies_name_app(NULL, OUTR_STR("a")));
    assert_int_equal(outr_policies_service_retry(NULL)->max_retries, 3);
    outr_snapshot_unref(s);
}

static void the_later_resource_is_taken(void **state)
{
    outr_snapshot *s = yaml_snapshot((const char *const[]){
        "spec: {policies: {timeouts: {t: 1s}}, targets: {apps: {a: {timeout: t}, b: {}}}}",
        "spec: {policies: {timeouts: {t: 2s}}, targets: {apps: {b: {timeout: t}}}}", NULL});
    const outr_policies *p = outr_policies_of(s, NULL);
    (void)state;
    assert_int_equal(app(p, "a")->timeout_ns, 2 * OUTR_SEC);
    assert_true(outr_str_is(app(p, "a")->of_timeout->name, "r1"));
    assert_int_equal(app(p, "b")->timeout_ns, 2 * OUTR_SEC);
    outr_snapshot_unref(s);
}

static void the_most_special_default_is_taken(void **state)
{
    outr_snapshot *s = yaml_one(
        "spec:\n"
        "  policies:\n"
        "    timeouts: {DefaultTimeoutPolicy: 1s, DefaultAppTimeoutPolicy: 2s,\n"
        "               DefaultComponentTimeoutPolicy: 3s, DefaultComponentInboundTimeoutPolicy: 4s,\n"
        "               DefaultPubsubComponentInboundTimeoutPolicy: 5s}\n"
        "    retries: {DefaultStatestoreComponentOutboundRetryPolicy: {maxRetries: 7}}\n"
        "  targets: {apps: {named: {}}, components: {half: {outbound: {timeout: none}}}}\n");
    const outr_policies *p = outr_policies_of(s, NULL);
    static const struct {
        outr_policy_kind kind;
        outr_policy_direction direction;
        unsigned seconds;
    } rows[] = {
        {OUTR_POLICY_APP, OUTR_OUTBOUND, 2},    {OUTR_POLICY_ACTOR, OUTR_OUTBOUND, 1},
        {OUTR_POLICY_PUBSUB, OUTR_INBOUND, 5},  {OUTR_POLICY_PUBSUB, OUTR_OUTBOUND, 3},
        {OUTR_POLICY_BINDING, OUTR_INBOUND, 4}, {OUTR_POLICY_LOCK, OUTR_OUTBOUND, 3},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        const outr_policy *d =
            outr_policies_find(p, rows[i].kind, rows[i].direction, OUTR_STR("any"));
        if (!d || d->timeout_ns != rows[i].seconds * OUTR_SEC)
            fail_msg("row %zu: %llu ns", i, d ? (unsigned long long)d->timeout_ns : 0);
    }
    const outr_policy *store =
        outr_policies_find(p, OUTR_POLICY_STATE, OUTR_OUTBOUND, OUTR_STR("s"));
    assert_int_equal(store->retry->max_retries, 7);
    assert_int_equal(store->timeout_ns, 3 * OUTR_SEC);
    assert_null(app(p, "named")); /* a row, and be it empty, keeps the defaults away */
    assert_null(outr_policies_find(p, OUTR_POLICY_PUBSUB, OUTR_INBOUND, OUTR_STR("half")));
    assert_null(outr_policies_find(p, OUTR_POLICY_PUBSUB, OUTR_OUTBOUND, OUTR_STR("half")));
    outr_snapshot_unref(s);
}

static void built_in_retries_are_overridden_with_three_tries_at_least(void **state)
{
    outr_snapshot *few = yaml_one("spec: {policies: {retries: {DaprBuiltInServiceRetries:"
                                  " {maxRetries: 1, duration: 10ms}}}}");
    outr_snapshot *many = yaml_one(
        "spec: {policies: {retries: {DaprBuiltInServiceRetries: {maxRetries: 9}}}}");
    (void)state;
    const outr_retry_policy *r = outr_policies_service_retry(outr_policies_of(few, NULL));
    assert_int_equal(r->max_retries, 3);
    assert_int_equal(r->duration_ns, 10 * OUTR_MS);
    assert_int_equal(outr_policies_service_retry(outr_policies_of(many, NULL))->max_retries, 9);
    outr_snapshot_unref(few);
    outr_snapshot_unref(many);
}

/* ---- breakers -------------------------------------------------------------------------------- */

static outr_admission call(const outr_policy *policy, const char *key, bool is_good)
{
    outr_breaker_ticket t;
    outr_breaker_state before;
    outr_breakers_take(policy->breakers, outr_str_from(key), 1, &t);
    outr_admission rc = outr_breakers_admit(&t, 1, &before);
    if (rc == OUTR_ADMITTED)
        outr_breakers_report(&t, 1, is_good);
    outr_breakers_give(&t);
    return rc;
}

#define BROKEN(size)                                                                               \
    NAMED "  targets: {apps: {a: {circuitBreaker: trip, circuitBreakerCacheSize: " size "}}}\n"

static void each_endpoint_has_a_breaker_of_its_own(void **state)
{
    outr_snapshot *s = yaml_one(BROKEN("10"));
    const outr_policy *a = app(outr_policies_of(s, NULL), "a");
    (void)state;
    call(a, "a:x", false);
    call(a, "a:x", false);
    assert_int_equal(call(a, "a:x", true), OUTR_REFUSED_OPEN);
    assert_int_equal(call(a, "a:y", true), OUTR_ADMITTED);
    outr_snapshot_unref(s);
}

static void the_breaker_least_lately_used_is_dropped(void **state)
{
    outr_snapshot *s = yaml_one(BROKEN("2"));
    const outr_policy *a = app(outr_policies_of(s, NULL), "a");
    outr_breaker_ticket held;
    outr_breaker_state before;
    (void)state;
    for (int i = 0; i < 2; i++) {
        call(a, "a:x", false);
        call(a, "a:y", false);
    }
    outr_breakers_take(a->breakers, OUTR_STR("a:x"), 1, &held);
    call(a, "a:y", true);
    call(a, "a:z", true); /* x goes, though it is in use */
    assert_int_equal(call(a, "a:y", true), OUTR_REFUSED_OPEN);
    assert_int_equal(outr_breakers_admit(&held, 1, &before), OUTR_REFUSED_OPEN);
    outr_breakers_give(&held);
    assert_int_equal(call(a, "a:x", true), OUTR_ADMITTED);
    outr_snapshot_unref(s);
}

static void a_reload_keeps_breakers_whose_rule_is_the_same(void **state)
{
    outr_snapshot *before = yaml_one(BROKEN("10"));
    outr_snapshot *same = yaml_snapshot((const char *const[]){
        BROKEN("10"), "spec: {targets: {apps: {new: {circuitBreaker: trip}}}}", NULL});
    outr_snapshot *other = yaml_one(
        "spec: {policies: {circuitBreakers: {trip: {trip: consecutiveFailures >= 3}}},"
        " targets: {apps: {a: {circuitBreaker: trip, circuitBreakerCacheSize: 10}}}}");
    (void)state;
    const outr_policies *p = outr_policies_of(before, NULL);
    call(app(p, "a"), "a:x", false);
    call(app(p, "a"), "a:x", false);
    const outr_policies *kept = outr_policies_of(same, p);
    const outr_policies *fresh = outr_policies_of(other, p);
    outr_snapshot_unref(before);
    assert_int_equal(call(app(kept, "a"), "a:x", true), OUTR_REFUSED_OPEN);
    assert_int_equal(call(app(kept, "new"), "new:x", true), OUTR_ADMITTED);
    assert_int_equal(call(app(fresh, "a"), "a:x", true), OUTR_ADMITTED);
    outr_snapshot_unref(same);
    outr_snapshot_unref(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_target_has_what_its_row_says),
        cmocka_unit_test(without_resources_there_is_nothing),
        cmocka_unit_test(the_later_resource_is_taken),
        cmocka_unit_test(the_most_special_default_is_taken),
        cmocka_unit_test(built_in_retries_are_overridden_with_three_tries_at_least),
        cmocka_unit_test(each_endpoint_has_a_breaker_of_its_own),
        cmocka_unit_test(the_breaker_least_lately_used_is_dropped),
        cmocka_unit_test(a_reload_keeps_breakers_whose_rule_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
