#include "lib/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/inbound.h"

typedef struct site {
    wire w;
    outr_arena *arena;
    outr_headers headers;
    outr_lease_site leases;
    outr_inbound_owner owner;
} site;

static void open_site(site *s)
{
    *s = (site){0};
    wire_init(&s->w, 1);
    s->arena = outr_arena_new(OUTR_MIB);
    outr_headers_init(&s->headers, s->arena);
    outr_lease_site_init(&s->leases, s->w.loop, NULL, NULL);
    s->owner = (outr_inbound_owner){.loop = s->w.loop, .app_id = OUTR_STR("app")};
}

static void close_site(site *s)
{
    outr_arena_free(s->arena);
    wire_done(&s->w);
}

/* An empty one with these policies, which stay the test's. */
static outr_snapshot *snapshot_of(const outr_traffic_spec *traffic, size_t count)
{
    static const outr_settings nothing;
    OUTR_AUTO(outr_err_list) errors = {0};
    OUTR_AUTO(outr_err_list) warnings = {0};
    outr_snapshot *s = NULL;
    assert_int_equal(outr_snapshot_load(&s, &nothing, NULL, &errors, &warnings), OUTR_OK);
    s->traffic = traffic;
    s->traffic_count = count;
    return s;
}

static outr_rate_spec once_an_hour(const char *name)
{
    return (outr_rate_spec){.name = outr_str_from(name),
                            .requests = 1,
                            .interval_ns = 3600 * OUTR_SEC,
                            .burst = 1,
                            .buckets = 16};
}

static bool is_let_in(site *s, const outr_inbound *in, const outr_identity *caller,
                      const char *source, const outr_claims *claims)
{
    outr_rated rated;
    const outr_inbound_call call = {.request = {.source = outr_str_from(source),
                                                .method = OUTR_STR("GET"),
                                                .target = OUTR_STR("/x"),
                                                .headers = &s->headers,
                                                .claims = claims},
                                    .caller = caller};
    return outr_inbound_rates(in, &call, &s->leases, outr_loop_now(s->w.loop), s->arena, &rated);
}

static void without_a_word_of_it_there_is_nothing_to_ask(void **state)
{
    (void)state;
    site s;
    open_site(&s);
    outr_traffic_spec none = {0};
    outr_snapshot *snapshot = snapshot_of(&none, 1);
    assert_null(outr_inbound_of(snapshot, NULL, &s.owner));
    outr_snapshot_unref(snapshot);
    close_site(&s);
}

static void who_calls_is_what_the_certificate_says_if_there_is_one(void **state)
{
    (void)state;
    site s;
    open_site(&s);
    outr_rate_spec rate = once_an_hour("r");
    rate.per = OUTR_RATE_IDENTITY;
    outr_traffic_spec policy = {.rates = &rate, .rate_count = 1};
    outr_snapshot *snapshot = snapshot_of(&policy, 1);
    const outr_inbound *in = outr_inbound_of(snapshot, NULL, &s.owner);
    const outr_identity a = {.id = OUTR_STR("spiffe://public/ns/default/a"),
                             .is_authenticated = true};
    const outr_identity nobody = {0};
    assert_true(is_let_in(&s, in, &a, "x", NULL));
    assert_false(is_let_in(&s, in, &a, "y", NULL)); /* whatever it calls itself */
    assert_true(is_let_in(&s, in, &nobody, "x", NULL));
    assert_true(is_let_in(&s, in, NULL, "y", NULL));
    assert_false(is_let_in(&s, in, NULL, "x", NULL));
    assert_true(is_let_in(&s, in, NULL, "", NULL));
    assert_false(is_let_in(&s, in, NULL, "", NULL));
    outr_snapshot_unref(snapshot);
    close_site(&s);
}

static outr_claims *claims_of(site *s, const char *json)
{
    outr_json *object = NULL;
    outr_err err;
    assert_int_equal(outr_json_parse(&object, s->arena, outr_str_from(json), &err), OUTR_OK);
    return outr_claims_new(object, s->arena);
}

static void claims_have_shares_and_those_without_have_one_together(void **state)
{
    (void)state;
    site s;
    open_site(&s);
    outr_rate_spec rate = once_an_hour("r");
    rate.per = OUTR_RATE_CLAIM;
    rate.per_name = OUTR_STR("sub");
    outr_traffic_spec policy = {.rates = &rate, .rate_count = 1};
    outr_snapshot *snapshot = snapshot_of(&policy, 1);
    const outr_inbound *in = outr_inbound_of(snapshot, NULL, &s.owner);
    outr_claims *anna = claims_of(&s, "{\"sub\":\"anna\"}"),
                *ben = claims_of(&s, "{\"sub\":\"ben\"}");
    outr_claims *none = claims_of(&s, "{\"iss\":\"x\"}");
    assert_true(is_let_in(&s, in, NULL, "", anna));
    assert_true(is_let_in(&s, in, NULL, "", ben));
    assert_false(is_let_in(&s, in, NULL, "", anna));
    assert_true(is_let_in(&s, in, NULL, "", none));
    assert_false(is_let_in(&s, in, NULL, "", NULL));
    outr_claims_unref(anna);
    outr_claims_unref(ben);
    outr_claims_unref(none);
    outr_snapshot_unref(snapshot);
    close_site(&s);
}

static void every_limit_that_is_for_a_call_has_to_let_it_in(void **state)
{
    (void)state;
    site s;
    open_site(&s);
    outr_rate_spec wide[] = {once_an_hour("a"), once_an_hour("b")};
    wide[0].burst = 5;
    wide[1].burst = 2;
    outr_traffic_spec policy = {.rates = wide, .rate_count = 2};
    outr_snapshot *snapshot = snapshot_of(&policy, 1);
    const outr_inbound *in = outr_inbound_of(snapshot, NULL, &s.owner);
    assert_true(is_let_in(&s, in, NULL, "", NULL));
    assert_true(is_let_in(&s, in, NULL, "", NULL));
    assert_false(is_let_in(&s, in, NULL, "", NULL));
    outr_snapshot_unref(snapshot);
    close_site(&s);
}

static void what_stays_the_same_goes_on_in_the_next_snapshot(void **state)
{
    (void)state;
    site s;
    open_site(&s);
    outr_rate_spec first = once_an_hour("r"), second[] = {once_an_hour("new"), once_an_hour("r")};
    const outr_concurrency_spec c = {.is_on = true,
                                     .min = 1,
                                     .max = 9,
                                     .initial = 5,
                                     .target_ns = OUTR_MS,
                                     .interval_ns = OUTR_MS};
    outr_traffic_spec before = {.rates = &first, .rate_count = 1, .concurrency = c};
    outr_traffic_spec after = {.rates = second + 1, .rate_count = 1, .concurrency = c};
    after.concurrency.max = 3;
    outr_snapshot *a = snapshot_of(&before, 1), *b = snapshot_of(&after, 1);
    const outr_inbound *in = outr_inbound_of(a, NULL, &s.owner);
    assert_true(is_let_in(&s, in, NULL, "", NULL));
    const outr_inbound *next = outr_inbound_of(b, in, &s.owner);
    assert_ptr_equal(outr_inbound_of(b, in, &s.owner), next);
    assert_false(is_let_in(&s, next, NULL, "", NULL));
    assert_ptr_equal(outr_inbound_throttle(next), outr_inbound_throttle(in));
    assert_true(outr_throttle_look(outr_inbound_throttle(next)).limit <= 3);
    outr_snapshot_unref(a);
    assert_false(is_let_in(&s, next, NULL, "", NULL));
    second[1].requests = 2; /* another limit */
    outr_snapshot *d = snapshot_of(&after, 1);
    assert_true(is_let_in(&s, outr_inbound_of(d, next, &s.owner), NULL, "", NULL));
    outr_snapshot_unref(b);
    outr_snapshot_unref(d);
    close_site(&s);
}

static void paths_that_go_first_are_known_by_their_beginning(void **state)
{
    (void)state;
    site s;
    open_site(&s);
    const outr_str paths[] = {OUTR_STR("/health"), OUTR_STR("/admin/")};
    outr_traffic_spec policy = {.concurrency = {.is_on = true,
                                                .min = 1,
                                                .max = 1,
                                                .initial = 1,
                                                .priority_paths = paths,
                                                .priority_path_count = 2}};
    outr_snapshot *snapshot = snapshot_of(&policy, 1);
    const outr_inbound *in = outr_inbound_of(snapshot, NULL, &s.owner);
    assert_false(outr_inbound_has_rates(in));
    assert_true(outr_inbound_is_urgent(in, OUTR_STR("/healthz?x")));
    assert_true(outr_inbound_is_urgent(in, OUTR_STR("/admin/a")));
    assert_false(outr_inbound_is_urgent(in, OUTR_STR("/admin")));
    assert_false(outr_inbound_is_urgent(in, OUTR_STR("/x/health")));
    outr_snapshot_unref(snapshot);
    close_site(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_word_of_it_there_is_nothing_to_ask),
        cmocka_unit_test(who_calls_is_what_the_certificate_says_if_there_is_one),
        cmocka_unit_test(claims_have_shares_and_those_without_have_one_together),
        cmocka_unit_test(every_limit_that_is_for_a_call_has_to_let_it_in),
        cmocka_unit_test(what_stays_the_same_goes_on_in_the_next_snapshot),
        cmocka_unit_test(paths_that_go_first_are_known_by_their_beginning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
