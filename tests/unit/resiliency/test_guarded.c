/* An operation under a policy, on a clock that stands still until it is moved. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/wire.h"
#include "resiliency/guarded.h"
#include "unit/resiliency/yaml.h"

/* A component whose tries end as `fails` and `lasts_ns` say. */
typedef struct bench {
    wire w;
    outr_snapshot *snapshot;
    outr_metrics *metrics;
    outr_guarded guarded;
    outr_op op;
    unsigned tries, fails, done;
    uint64_t lasts_ns, ended_ns;
    outr_op *current;
    outr_timer timer;
    outr_err err;
} bench;

static void on_lasted(outr_timer *timer)
{
    bench *b = OUTR_CONTAINER(timer, bench, timer);
    outr_op *op = b->current;
    outr_err err;
    b->current = NULL;
    if (b->tries <= b->fails) {
        outr_fail(&err, OUTR_INTERNAL, "try %u", b->tries);
        outr_op_fail(op, &err);
    } else {
        outr_op_finish(op);
    }
}

static void on_try_cancelled(outr_op *op)
{
    bench *b = op->impl;
    outr_timer_stop(op->loop, &b->timer);
    b->current = NULL;
    outr_op_finish(op);
}

static void start_try(outr_guarded *guarded, outr_op *op)
{
    bench *b = OUTR_CONTAINER(guarded, bench, guarded);
    b->tries++;
    b->current = op;
    outr_op_begin(op, b, on_try_cancelled);
    b->timer.fire = on_lasted;
    outr_timer_start(op->loop, &b->timer, outr_loop_now(op->loop) + b->lasts_ns);
}

static void on_done(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    b->done++;
    b->err = op->err;
    b->ended_ns = outr_loop_now(op->loop);
}

static bool is_done(void *ctx)
{
    return ((bench *)ctx)->done > 0;
}

static void open_bench(bench *b, const char *yaml)
{
    const outr_metrics_options o = {.app_id = OUTR_STR("me"), .shard_count = 2};
    *b = (bench){.lasts_ns = OUTR_MS};
    wire_init(&b->w, 1);
    b->snapshot = yaml_one(yaml);
    b->metrics = outr_metrics_new(&o);
}

static void close_bench(bench *b)
{
    outr_snapshot_unref(b->snapshot);
    outr_metrics_free(b->metrics);
    wire_done(&b->w);
}

static void begin(bench *b)
{
    b->tries = b->done = 0;
    outr_guard_init(&b->guarded.guard, outr_policies_of(b->snapshot, NULL), OUTR_POLICY_BINDING,
                    OUTR_OUTBOUND, OUTR_STR("web"), OUTR_STR("web"), outr_loop_now(b->w.loop),
                    outr_metrics_shard(b->metrics, b->done % 2));
    b->guarded.start = start_try;
    outr_op_init(&b->op, b->w.loop, NULL, 0, on_done);
    outr_guarded_start(&b->guarded, &b->op);
}

static void run(bench *b)
{
    begin(b);
    assert_true(wire_until(&b->w, is_done, b, 3600 * OUTR_SEC));
    assert_int_equal(b->done, 1);
}

static void assert_metric(bench *b, const char *line)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
    outr_metrics_write(b->metrics, &out);
    outr_buf_char(&out, 0);
    if (!strstr(out.p, line))
        fail_msg("no \"%s\" in\n%s", line, out.p);
}

#define POLICIES                                                                                   \
    "spec:\n"                                                                                      \
    "  policies:\n"                                                                                \
    "    timeouts: {quick: 400ms}\n"                                                               \
    "    retries: {thrice: {duration: 30ms, maxRetries: 3}}\n"                                     \
    "    circuitBreakers: {trip: {trip: consecutiveFailures >= 2}}\n"                              \
    "  targets: {components: {web: {outbound: "

static void without_a_policy_it_is_tried_once(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, POLICIES "{}}}}");
    run(&b);
    assert_int_equal(b.err.code, OUTR_OK);
    b.fails = 1;
    run(&b);
    assert_int_equal(b.err.code, OUTR_INTERNAL);
    assert_int_equal(b.tries, 1);
    close_bench(&b);
}

static void a_failure_is_repeated_after_a_pause(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, POLICIES "{retry: thrice}}}}");
    uint64_t began = b.w.now;
    b.fails = 2;
    run(&b);
    assert_int_equal(b.err.code, OUTR_OK);
    assert_int_equal(b.tries, 3);
    assert_int_equal(b.ended_ns - began, 63 * OUTR_MS);
    b.fails = 10;
    run(&b);
    assert_int_equal(b.tries, 4);
    assert_string_equal(b.err.text, "try 4");
    assert_metric(&b, "dapr_resiliency_activations_total{app_id=\"me\",flow_direction=\"outbound\","
                      "name=\"r0\",namespace=\"\",policy=\"retry\",status=\"\","
                      "target=\"Binding_web\"} 2");
    close_bench(&b);
}

static void each_try_has_the_time_of_the_policy(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, POLICIES "{retry: thrice, timeout: quick}}}}");
    uint64_t began = b.w.now;
    b.lasts_ns = OUTR_SEC;
    run(&b);
    assert_int_equal(b.tries, 4);
    assert_int_equal(b.err.code, OUTR_DEADLINE_EXCEEDED);
    assert_string_equal(b.err.text, OUTR_GUARD_TIMEOUT);
    assert_int_equal(b.ended_ns - began, (4 * 400 + 3 * 30) * OUTR_MS);
    assert_metric(&b, "policy=\"timeout\",status=\"\",target=\"Binding_web\"} 1");
    close_bench(&b);
}

/* Pitfalls 19 and 20: an open breaker is an error that says so, and no try waits for it. */
static void an_open_breaker_ends_the_tries_with_its_reason(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, POLICIES "{retry: thrice, circuitBreaker: trip}}}}");
    b.fails = 10;
    run(&b);
    assert_int_equal(b.tries, 2);
    assert_string_equal(b.err.text, OUTR_GUARD_OPEN);
    run(&b);
    assert_int_equal(b.tries, 0);
    assert_int_equal(b.err.code, OUTR_UNAVAILABLE);
    assert_metric(&b, "policy=\"circuitbreaker\",status=\"open\",target=\"Binding_web\"} 1");
    assert_metric(&b, "dapr_resiliency_cb_state{app_id=\"me\",flow_direction=\"outbound\","
                      "name=\"r0\",namespace=\"\",policy=\"circuitbreaker\",status=\"closed\","
                      "target=\"Binding_web\"} 0");
    wire_sleep(&b.w, 61 * OUTR_SEC);
    b.fails = 0;
    run(&b);
    assert_int_equal(b.err.code, OUTR_OK);
    assert_metric(&b, "status=\"closed\",target=\"Binding_web\"} 1");
    close_bench(&b);
}

static bool is_internal(const outr_err *err)
{
    return err->code == OUTR_INTERNAL;
}

static void an_answer_that_is_final_is_not_repeated_nor_counted(void **state)
{
    bench b;
    (void)state;
    open_bench(&b, POLICIES "{retry: thrice, circuitBreaker: trip}}}}");
    b.guarded.is_final = is_internal;
    b.fails = 10;
    for (int i = 0; i < 5; i++) {
        run(&b);
        assert_int_equal(b.tries, 1);
        assert_int_equal(b.err.code, OUTR_INTERNAL);
    }
    close_bench(&b);
}

static void whoever_asked_may_leave_at_any_time(void **state)
{
    static const uint64_t moments[] = {0, 500000, 10 * OUTR_MS, 31 * OUTR_MS + 500000};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(moments); i++) {
        bench b;
        open_bench(&b, POLICIES "{retry: thrice, circuitBreaker: trip, timeout: quick}}}}");
        b.fails = 10;
        begin(&b);
        wire_sleep(&b.w, moments[i]);
        outr_op_cancel(&b.op, OUTR_CANCELLED);
        unsigned tries = b.tries;
        wire_sleep(&b.w, 10 * OUTR_SEC);
        assert_int_equal(b.done, 1);
        assert_int_equal(b.err.code, OUTR_CANCELLED);
        assert_int_equal(b.tries, tries);
        close_bench(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_policy_it_is_tried_once),
        cmocka_unit_test(a_failure_is_repeated_after_a_pause),
        cmocka_unit_test(each_try_has_the_time_of_the_policy),
        cmocka_unit_test(an_open_breaker_ends_the_tries_with_its_reason),
        cmocka_unit_test(an_answer_that_is_final_is_not_repeated_nor_counted),
        cmocka_unit_test(whoever_asked_may_leave_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
