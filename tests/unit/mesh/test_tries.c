/* Calls under a Resiliency policy, and the built-in retry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "grpc/status.h"
#include "resiliency/guard.h"
#include "unit/mesh/world.h"
#include "unit/resiliency/yaml.h"

/* What the app answers, in turn; the last one for ever. */
static struct {
    int statuses[8];
    unsigned at;
    uint64_t delay_ns;
    char bodies[16][64];
    unsigned seen;
} script;

typedef struct late {
    outr_timer timer;
    outr_exchange *x;
    int status;
} late;

static void on_late(outr_timer *timer)
{
    late *l = OUTR_CONTAINER(timer, late, timer);
    outr_exchange *x = l->x;
    int status = l->status;
    if (x) {
        x->on_gone = NULL;
        x->user = NULL;
        web_answer(x, status, "late");
    }
    free(l);
}

static void on_late_gone(outr_exchange *x, const outr_err *err)
{
    late *l = x->user;
    (void)err;
    l->x = NULL;
    outr_http_done(x);
}

static void on_body(outr_gather *gather, const outr_err *err)
{
    outr_exchange *x = gather->ctx;
    outr_str body = outr_buf_view(&gather->body);
    unsigned i = script.seen < OUTR_LEN(script.bodies) ? script.seen : 0;
    snprintf(script.bodies[i], sizeof script.bodies[i], OUTR_FMT,
             OUTR_ARG(outr_str_head(body, 60)));
    outr_buf_done(&gather->body);
    if (err) {
        outr_http_done(x);
        return;
    }
    script.seen++;
    int status = script.statuses[script.at];
    if (script.at + 1 < OUTR_LEN(script.statuses) && script.statuses[script.at + 1])
        script.at++;
    if (script.delay_ns) {
        late *l = outr_alloc(sizeof *l);
        l->x = x;
        l->status = status;
        l->timer.fire = on_late;
        x->user = l;
        x->on_gone = on_late_gone;
        outr_timer_start(x->loop, &l->timer, outr_loop_now(x->loop) + script.delay_ns);
        return;
    }
    web_answer(x, status, "from the app");
}

static void on_app(world *w, world_node *node, outr_exchange *x)
{
    outr_gather *gather = outr_arena_alloc(x->arena, sizeof *gather);
    (void)w;
    (void)node;
    if (x->body) {
        outr_gather_start(gather, x->body, OUTR_MIB, on_body, x);
        return;
    }
    gather->ctx = x;
    on_body(gather, NULL);
}

static world *open_world(const char *yaml)
{
    world *w = world_open(1, 0);
    outr_snapshot *snapshot = yaml_one(yaml);
    memset(&script, 0, sizeof script);
    script.statuses[0] = 200;
    w->on_app = on_app;
    outr_mesh_update(w->mesh, snapshot);
    outr_snapshot_unref(snapshot);
    return w;
}

static void finish(world *w, web_call *c, const char *verb, const char *body)
{
    world_call(w, c, verb, "callee", "/work");
    if (body)
        web_call_bytes(c, body, strlen(body));
    web_call_start(c, w->client);
    world_run_until_over(w, c);
}

/* A whole call and what comes of it. */
static void expect(world *w, const char *verb, const char *body, int status, const char *answer)
{
    web_call c;
    finish(w, &c, verb, body);
    world_assert_answer(&c, status, answer);
    web_call_done(&c);
}

static void close_world(world *w)
{
    wire_sleep(&w->w, 60 * OUTR_SEC);
    assert_true(outr_list_is_empty(&w->mesh->calls));
    assert_int_equal(world_close(w), 0);
}

#define POLICIES                                                                                   \
    "spec:\n"                                                                                      \
    "  policies:\n"                                                                                \
    "    timeouts: {quick: 400ms}\n"                                                               \
    "    retries: {thrice: {duration: 30ms, maxRetries: 3},\n"                                     \
    "              some: {duration: 30ms, maxRetries: 3, matching: {httpStatusCodes: \"503\"}}}\n" \
    "    circuitBreakers: {trip: {trip: consecutiveFailures >= 2}}\n"                              \
    "  targets: {apps: {callee: "

static void a_failing_answer_is_asked_for_again_with_the_whole_body(void **state)
{
    world *w = open_world(POLICIES "{retry: thrice}}}\n");
    (void)state;
    script.statuses[0] = 500;
    script.statuses[1] = 400;
    script.statuses[2] = 200;
    expect(w, "POST", "the body", 200, "from the app");
    assert_int_equal(script.seen, 3);
    for (int i = 0; i < 3; i++)
        assert_string_equal(script.bodies[i], "the body");
    close_world(w);
}

static void the_last_answer_is_passed_on_when_tries_are_over(void **state)
{
    world *w = open_world(POLICIES "{retry: thrice}}}\n");
    (void)state;
    script.statuses[0] = 503;
    uint64_t began = w->w.now;
    expect(w, "GET", NULL, 503, "from the app");
    assert_int_equal(script.seen, 4);
    assert_true(w->w.now - began >= 90 * OUTR_MS && w->w.now - began < 100 * OUTR_MS);
    close_world(w);
}

static void busy_for_two_seconds(world *w, world_node *node, outr_exchange *x)
{
    outr_http_response head = {.status = ++script.seen == 1 ? 503 : 200};
    (void)w;
    (void)node;
    outr_headers_init(&head.headers, x->arena);
    if (script.seen == 1)
        outr_headers_add(&head.headers, OUTR_STR("Retry-After"), OUTR_STR("2"));
    outr_http_reply(x, &head, OUTR_STR_NONE);
    outr_http_done(x);
}

static void an_answer_may_put_off_the_next_try(void **state)
{
    world *w = open_world(POLICIES "{retry: thrice}}}\n");
    web_call c;
    (void)state;
    w->on_app = busy_for_two_seconds;
    uint64_t began = w->w.now;
    finish(w, &c, "GET", NULL);
    assert_int_equal(c.call.head.status, 200);
    assert_int_equal(script.seen, 2);
    assert_in_range(w->w.now - began, 2 * OUTR_SEC, 2 * OUTR_SEC + 10 * OUTR_MS);
    web_call_done(&c);
    close_world(w);
}

static void codes_that_do_not_match_are_final(void **state)
{
    world *w = open_world(POLICIES "{retry: some}}}\n");
    (void)state;
    script.statuses[0] = 503;
    script.statuses[1] = 500;
    script.statuses[2] = 200;
    expect(w, "GET", NULL, 500, "from the app");
    assert_int_equal(script.seen, 2);
    close_world(w);
}

static void each_try_is_cut_off_at_its_time(void **state)
{
    world *w = open_world(POLICIES "{retry: thrice, timeout: quick}}}\n");
    (void)state;
    script.delay_ns = OUTR_SEC;
    uint64_t began = w->w.now;
    expect(w, "POST", "x", 500, "4 context deadline exceeded");
    assert_int_equal(script.seen, 4);
    assert_true(w->w.now - began >= 1690 * OUTR_MS && w->w.now - began < 1750 * OUTR_MS);
    close_world(w);
}

/* Pitfall 19: never a 200; and nothing reaches the app. */
static void an_open_breaker_answers_at_once_with_its_reason(void **state)
{
    world *w = open_world(POLICIES "{circuitBreaker: trip}}}\n");
    (void)state;
    script.statuses[0] = 404; /* any failing status counts */
    for (int i = 0; i < 4; i++)
        expect(w, "GET", NULL, i < 2 ? 404 : 500, i < 2 ? "from the app" : OUTR_GUARD_OPEN);
    assert_int_equal(script.seen, 2);
    script.statuses[0] = 200;
    wire_sleep(&w->w, 61 * OUTR_SEC);
    expect(w, "GET", NULL, 200, "from the app");
    close_world(w);
}

/* Pitfall 20: the pause between tries is kept, and the breaker ends them. */
static void breaker_and_pauses_are_both_honoured(void **state)
{
    world *w = open_world(POLICIES "{circuitBreaker: trip, retry: thrice}}}\n");
    (void)state;
    script.statuses[0] = 500;
    uint64_t began = w->w.now;
    expect(w, "GET", NULL, 500, OUTR_GUARD_OPEN);
    assert_int_equal(script.seen, 2);
    assert_true(w->w.now - began >= 60 * OUTR_MS && w->w.now - began < 70 * OUTR_MS);
    close_world(w);
}

static void a_body_without_length_is_sent_once_and_counts(void **state)
{
    world *w = open_world(POLICIES "{circuitBreaker: trip, retry: thrice}}}\n");
    (void)state;
    script.statuses[0] = 500;
    for (int i = 0; i < 3; i++) {
        web_call c;
        world_call(w, &c, "POST", "callee", "/work");
        web_call_bytes(&c, "stream", 6);
        c.req.content_length = -1;
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        world_assert_answer(&c, 500, i < 2 ? "from the app" : OUTR_GUARD_OPEN);
        web_call_done(&c);
    }
    assert_int_equal(script.seen, 2);
    close_world(w);
}

static void fail_unread(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    web_answer(x, 500, "unread");
}

static void a_body_longer_than_what_is_kept_is_sent_once(void **state)
{
    world *w = open_world(POLICIES "{retry: thrice}}}\n");
    size_t n = 5 * OUTR_MIB;
    char *body = outr_alloc(n);
    web_call c;
    (void)state;
    w->settings.max_body_bytes = 16 * (int64_t)OUTR_MIB;
    w->on_app = fail_unread;
    world_call(w, &c, "POST", "callee", "/work");
    web_call_bytes(&c, body, n);
    web_call_start(&c, w->client);
    world_run_until_over(w, &c);
    world_assert_answer(&c, 500, "unread");
    assert_int_equal(w->nodes[0].requests, 1);
    web_call_done(&c);
    free(body);
    close_world(w);
}

static void whoever_leaves_in_a_pause_ends_the_tries(void **state)
{
    world *w = open_world(POLICIES "{retry: thrice, circuitBreaker: trip, timeout: quick}}}\n");
    web_call c;
    (void)state;
    script.statuses[0] = 500;
    world_call(w, &c, "POST", "callee", "/work");
    web_call_bytes(&c, "x", 1);
    web_call_start(&c, w->client);
    wire_sleep(&w->w, 10 * OUTR_MS);
    assert_int_equal(script.seen, 1);
    outr_op_cancel(&c.op, OUTR_CANCELLED);
    world_run_until_over(w, &c);
    wire_sleep(&w->w, 10 * OUTR_SEC);
    assert_int_equal(script.seen, 1);
    web_call_done(&c);
    close_world(w);
}

/* The callee is away: without a row of its own the built-in retry is for it, with one it is not. */
static void a_row_for_an_app_turns_the_built_in_retry_off(void **state)
{
    world *w = open_world(POLICIES "{timeout: quick}}}\n");
    (void)state;
    w->nodes[0].is_refusing = true;
    uint64_t began = w->w.now;
    expect(w, "POST", "x", 500, "connection refused");
    assert_true(w->w.now - began < 10 * OUTR_MS);
    assert_int_equal(w->nodes[0].connects, 1);
    close_world(w);
}

static void a_lone_instance_is_tried_once_a_round(void **state)
{
    world *w = open_world("spec: {}");
    (void)state;
    w->nodes[0].is_refusing = true;
    expect(w, "POST", "x", 500, "failed to invoke target callee after 3 retries");
    assert_int_equal(w->nodes[0].connects, 4);
    close_world(w);
}

static void the_built_in_retry_may_be_overridden(void **state)
{
    world *w = open_world("spec: {policies: {retries: {DaprBuiltInServiceRetries:"
                          " {duration: 10ms, maxRetries: 5}}}}");
    (void)state;
    w->nodes[0].is_refusing = true;
    uint64_t began = w->w.now;
    expect(w, "POST", "x", 500, "after 5 retries");
    assert_true(w->w.now - began < 60 * OUTR_MS);
    close_world(w);
}

/* ---- without a policy ------------------------------------------------------------------------ */

static void fail_first_node(world *w, world_node *node, outr_exchange *x)
{
    bool is_bad = node == &w->nodes[0];
    web_answer(x, is_bad ? 503 : 200, is_bad ? "busy" : "well");
}

static void use_all_nodes(world *w)
{
    for (int i = 0; i < WORLD_NODES; i++)
        w->names[i] = (uint16_t)(9000 + i);
}

static struct {
    size_t bytes;
    outr_gather gather;
} busy;

static void on_busy_body(outr_gather *gather, const outr_err *err)
{
    assert_null(err);
    busy.bytes += outr_buf_view(&gather->body).n;
    outr_buf_done(&gather->body);
    web_answer(gather->ctx, 503, "busy");
}

static void always_busy_with_body(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    outr_gather_start(&busy.gather, x->body, OUTR_MIB, on_busy_body, x);
}

static void a_call_that_may_be_made_twice_goes_elsewhere(void **state)
{
    world *w = open_world("spec: {}");
    (void)state;
    use_all_nodes(w);
    w->on_app = fail_first_node;
    for (int i = 0; i < 60; i++) {
        expect(w, "GET", NULL, 200, "well");
        wire_sleep(&w->w, OUTR_SEC);
    }
    assert_in_range(w->nodes[0].requests, 1, 10); /* and it is tried again, but not often */
    close_world(w);
}

/* A small body is kept for it; a longer one, and one without a length, passes through once. */
static void its_body_goes_elsewhere_with_it(void **state)
{
    const size_t lengths[] = {4, 64 * OUTR_KIB, 64 * OUTR_KIB + 1};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(lengths); i++) {
        world *w = open_world("spec: {}");
        char *body = outr_alloc(lengths[i] + 1);
        memset(body, 'b', lengths[i]);
        use_all_nodes(w);
        w->on_app = always_busy_with_body;
        busy.bytes = 0;
        expect(w, "PUT", body, 503, "busy");
        unsigned sent = w->nodes[0].requests + w->nodes[1].requests + w->nodes[2].requests;
        assert_int_equal(sent, lengths[i] > 64 * OUTR_KIB ? 1 : 2);
        assert_int_equal(busy.bytes, sent * lengths[i]);
        free(body);
        close_world(w);
    }
}

static void one_that_may_not_is_answered_by_whom_it_reached(void **state)
{
    unsigned failed = 0;
    world *w = open_world("spec: {}");
    (void)state;
    use_all_nodes(w);
    w->on_app = fail_first_node;
    for (int i = 0; i < 60; i++) {
        web_call c;
        finish(w, &c, "POST", NULL);
        failed += c.call.head.status == 503;
        web_call_done(&c);
        wire_sleep(&w->w, OUTR_SEC);
    }
    assert_int_equal(failed, w->nodes[0].requests);
    assert_in_range(failed, 1, 12);
    assert_int_equal(w->nodes[0].requests + w->nodes[1].requests + w->nodes[2].requests, 60);
    close_world(w);
}

static void an_idempotency_key_makes_a_post_one_that_may(void **state)
{
    world *w = open_world("spec: {}");
    (void)state;
    use_all_nodes(w);
    w->on_app = fail_first_node;
    for (int i = 0; i < 30; i++) {
        web_call c;
        world_call(w, &c, "POST", "callee", "/work");
        outr_headers_add(&c.req.headers, OUTR_STR("Idempotency-Key"), OUTR_STR("k"));
        web_call_start(&c, w->client);
        world_run_until_over(w, &c);
        world_assert_answer(&c, 200, "well");
        web_call_done(&c);
        wire_sleep(&w->w, OUTR_SEC);
    }
    assert_true(w->nodes[0].requests > 0);
    close_world(w);
}

static void always_busy(world *w, world_node *node, outr_exchange *x)
{
    (void)w;
    (void)node;
    web_answer(x, 503, "busy");
}

/* The bar of mesh.md: everybody fails, and the load is at most 1.22 times what is offered. */
static void the_budget_bounds_what_failures_add(void **state)
{
    world *w = open_world("spec: {}");
    (void)state;
    use_all_nodes(w);
    w->on_app = always_busy;
    for (int i = 0; i < 2000; i++) {
        expect(w, "GET", NULL, 503, "busy");
        wire_sleep(&w->w, 2 * OUTR_MS);
    }
    unsigned sent = w->nodes[0].requests + w->nodes[1].requests + w->nodes[2].requests;
    assert_in_range(sent, 2001, 2440);
    close_world(w);
}

static void a_lone_instance_is_not_asked_twice(void **state)
{
    world *w = open_world("spec: {}");
    (void)state;
    w->on_app = always_busy;
    expect(w, "GET", NULL, 503, "busy");
    assert_int_equal(w->nodes[0].requests, 1);
    close_world(w);
}

/* ---- deadlines ------------------------------------------------------------------------------- */

static void call_with(world *w, web_call *c, const char *timeout)
{
    world_call(w, c, "GET", "callee", "/work");
    outr_headers_add(&c->req.headers, OUTR_STR(OUTR_DEADLINE_HEADER), outr_str_from(timeout));
    web_call_start(c, w->client);
    world_run_until_over(w, c);
}

static struct {
    char told[32];
    unsigned gone;
    uint64_t gone_ns;
} waiter;

static void on_waiter_gone(outr_exchange *x, const outr_err *err)
{
    (void)err;
    waiter.gone++;
    waiter.gone_ns = outr_loop_now(x->loop);
    outr_http_done(x);
}

static void wait_for_ever(world *w, world_node *node, outr_exchange *x)
{
    outr_str text = outr_headers_get(&x->req.headers, OUTR_DEADLINE_HEADER);
    (void)w;
    (void)node;
    snprintf(waiter.told, sizeof waiter.told, OUTR_FMT, OUTR_ARG(text));
    x->on_gone = on_waiter_gone;
}

static void a_deadline_is_kept_told_to_the_app_and_ends_its_work(void **state)
{
    web_call c;
    world *w = open_world("spec: {}");
    (void)state;
    memset(&waiter, 0, sizeof waiter);
    w->on_app = wait_for_ever;
    uint64_t began = w->w.now, told;
    call_with(w, &c, "50m");
    world_assert_answer(&c, 500, "4 deadline exceeded");
    assert_in_range(w->w.now - began, 50 * OUTR_MS, 55 * OUTR_MS);
    assert_true(outr_grpc_timeout_parse(&told, outr_str_from(waiter.told)));
    assert_in_range(told, 40 * OUTR_MS, 50 * OUTR_MS);
    wire_sleep(&w->w, OUTR_SEC);
    assert_int_equal(waiter.gone, 1);
    assert_in_range(waiter.gone_ns - began, 49 * OUTR_MS, 55 * OUTR_MS);
    web_call_done(&c);
    close_world(w);
}

static void the_sooner_of_policy_and_caller_counts(void **state)
{
    web_call c;
    world *w = open_world(POLICIES "{timeout: quick, retry: thrice}}}\n");
    (void)state;
    memset(&waiter, 0, sizeof waiter);
    w->on_app = wait_for_ever;
    uint64_t began = w->w.now;
    call_with(w, &c, "1S"); /* of which the policy gives 400 ms to each try */
    world_assert_answer(&c, 500, "4 deadline exceeded");
    assert_in_range(w->w.now - began, 1000 * OUTR_MS, 1005 * OUTR_MS);
    assert_int_equal(w->nodes[0].requests, 3);
    web_call_done(&c);
    close_world(w);
}

static void what_is_expired_is_not_sent(void **state)
{
    web_call c;
    world *w = open_world("spec: {}");
    (void)state;
    w->resolver_delay_ns = 5 * OUTR_MS;
    call_with(w, &c, "2m");
    world_assert_answer(&c, 500, "4 deadline exceeded");
    wire_sleep(&w->w, OUTR_SEC);
    assert_int_equal(w->nodes[0].requests, 0);
    web_call_done(&c);
    call_with(w, &c, "2S");
    world_assert_answer(&c, 200, "from the app");
    web_call_done(&c);
    close_world(w);
}

static void a_breaker_outlives_a_reload(void **state)
{
    static const char yaml[] = POLICIES "{circuitBreaker: trip}}}\n";
    world *w = open_world(yaml);
    (void)state;
    script.statuses[0] = 500;
    for (int i = 0; i < 3; i++) {
        expect(w, "GET", NULL, 500, i < 2 ? "from the app" : OUTR_GUARD_OPEN);
        outr_snapshot *again = yaml_one(yaml);
        outr_mesh_update(w->mesh, again);
        outr_snapshot_unref(again);
    }
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failing_answer_is_asked_for_again_with_the_whole_body),
        cmocka_unit_test(the_last_answer_is_passed_on_when_tries_are_over),
        cmocka_unit_test(an_answer_may_put_off_the_next_try),
        cmocka_unit_test(codes_that_do_not_match_are_final),
        cmocka_unit_test(each_try_is_cut_off_at_its_time),
        cmocka_unit_test(an_open_breaker_answers_at_once_with_its_reason),
        cmocka_unit_test(breaker_and_pauses_are_both_honoured),
        cmocka_unit_test(a_body_without_length_is_sent_once_and_counts),
        cmocka_unit_test(a_body_longer_than_what_is_kept_is_sent_once),
        cmocka_unit_test(whoever_leaves_in_a_pause_ends_the_tries),
        cmocka_unit_test(a_row_for_an_app_turns_the_built_in_retry_off),
        cmocka_unit_test(a_lone_instance_is_tried_once_a_round),
        cmocka_unit_test(the_built_in_retry_may_be_overridden),
        cmocka_unit_test(a_breaker_outlives_a_reload),
        cmocka_unit_test(a_call_that_may_be_made_twice_goes_elsewhere),
        cmocka_unit_test(its_body_goes_elsewhere_with_it),
        cmocka_unit_test(one_that_may_not_is_answered_by_whom_it_reached),
        cmocka_unit_test(an_idempotency_key_makes_a_post_one_that_may),
        cmocka_unit_test(the_budget_bounds_what_failures_add),
        cmocka_unit_test(a_lone_instance_is_not_asked_twice),
        cmocka_unit_test(a_deadline_is_kept_told_to_the_app_and_ends_its_work),
        cmocka_unit_test(the_sooner_of_policy_and_caller_counts),
        cmocka_unit_test(what_is_expired_is_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
