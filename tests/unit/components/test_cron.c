#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "unit/components/bindings.h"

#define TYPE "bindings.cron"

typedef struct ear {
    outr_binding_event *events[64];
    size_t count;
} ear;

static void on_event(void *ctx, outr_binding_event *event)
{
    ear *e = ctx;
    assert_true(e->count < OUTR_LEN(e->events));
    e->events[e->count++] = event;
}

static bench *open_cron(const char *schedule)
{
    bench *b = make_bench();
    const char *const metadata[] = {"schedule", schedule, NULL};
    assert_int_equal(open_binding(b, TYPE, metadata), OUTR_OK);
    assert_int_equal(b->backend->directions(b->binding), OUTR_BINDING_INPUT);
    return b;
}

static outr_binding_reader *start(bench *b, ear *e, size_t credit)
{
    outr_binding_reader *r = NULL;
    const outr_binding_read req = {
        .loop = b->w.loop, .credit = credit, .on_event = on_event, .ctx = e};
    assert_int_equal(b->backend->read(b->binding, &req, &r, &b->err), OUTR_OK);
    return r;
}

static void settle_all(bench *b, outr_binding_reader *r, ear *e)
{
    for (size_t i = 0; i < e->count; i++)
        b->backend->settle(r, e->events[i], OUTR_STR("answer"), NULL);
    e->count = 0;
}

static void stop(bench *b, outr_binding_reader *r)
{
    b->backend->stop(r, begin(b));
    assert_int_equal(wait(b), OUTR_OK);
}

static void events_come_when_they_are_due(void **state OUTR_UNUSED)
{
    bench *b = open_cron("@every 2s");
    ear e = {0};
    outr_binding_reader *r = start(b, &e, 10);
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(e.count, 0);
    wire_sleep(&b->w, 5 * OUTR_SEC);
    assert_int_equal(e.count, 3);
    const outr_binding_event *event = e.events[0];
    assert_int_equal(event->data.n, 0);
    assert_true(outr_str_is(outr_kvs_find(event->metadata, "timeZone")->value, "Local"));
    outr_str time = outr_kvs_find(event->metadata, "readTimeUTC")->value;
    assert_true(outr_str_ends(time, OUTR_STR(" +0000 UTC")));
    assert_int_equal(time.p[10], ' ');
    settle_all(b, r, &e);
    stop(b, r);
    wire_sleep(&b->w, 10 * OUTR_SEC);
    assert_int_equal(e.count, 0);
    close_bench(b);
}

static void times_of_day_are_waited_for(void **state OUTR_UNUSED)
{
    bench *b = open_cron("TZ=UTC */10 * * * * *");
    ear e = {0};
    outr_binding_reader *r = start(b, &e, 100);
    wire_sleep(&b->w, 61 * OUTR_SEC);
    assert_true(e.count == 6 || e.count == 7);
    for (size_t i = 0; i < e.count; i++) {
        outr_str time = outr_kvs_find(e.events[i]->metadata, "readTimeUTC")->value;
        assert_int_equal(time.p[18], '0');
    }
    settle_all(b, r, &e);
    stop(b, r);
    close_bench(b);
}

/* A machine's clock that somebody sets. */
static int64_t shift_ns;
static int64_t (*true_unix_ns)(outr_env *env);

static int64_t shifted_unix_ns(outr_env *env)
{
    return true_unix_ns(env) + shift_ns;
}

static void a_clock_that_is_set_leaves_nothing_hanging(void **state OUTR_UNUSED)
{
    bench *b = open_cron("TZ=UTC * * * * *");
    ear e = {0};
    shift_ns = 0;
    true_unix_ns = b->w.env.unix_ns;
    b->w.env.unix_ns = shifted_unix_ns;
    outr_binding_reader *r = start(b, &e, 100);
    shift_ns = -3600 * (int64_t)OUTR_SEC;
    wire_sleep(&b->w, 121 * OUTR_SEC);
    assert_true(e.count >= 1 && e.count <= 3);
    settle_all(b, r, &e);
    shift_ns = 7200 * (int64_t)OUTR_SEC;
    wire_sleep(&b->w, 121 * OUTR_SEC);
    assert_true(e.count >= 2 && e.count <= 4); /* what was jumped over is not made up for */
    settle_all(b, r, &e);
    stop(b, r);
    close_bench(b);
}

static void a_slow_app_gets_no_more_than_the_credit(void **state OUTR_UNUSED)
{
    bench *b = open_cron("@every 1s");
    ear e = {0};
    outr_binding_reader *r = start(b, &e, 2);
    wire_sleep(&b->w, 10 * OUTR_SEC + OUTR_MS);
    assert_int_equal(e.count, 2);
    settle_all(b, r, &e);
    wire_sleep(&b->w, OUTR_SEC);
    assert_int_equal(e.count, 1);
    settle_all(b, r, &e);
    stop(b, r);
    close_bench(b);
}

static void stopping_waits_for_what_is_out(void **state OUTR_UNUSED)
{
    bench *b = open_cron("@every 1s");
    ear e = {0};
    outr_err refused;
    outr_binding_reader *r = start(b, &e, 5);
    wire_sleep(&b->w, 2 * OUTR_SEC + OUTR_MS);
    assert_int_equal(e.count, 2);
    b->backend->stop(r, begin(b));
    wire_sleep(&b->w, 5 * OUTR_SEC);
    assert_false(b->is_done);
    assert_int_equal(e.count, 2);
    outr_fail(&refused, OUTR_INTERNAL, "refused");
    b->backend->settle(r, e.events[0], OUTR_STR_NONE, &refused);
    assert_false(b->is_done);
    b->backend->settle(r, e.events[1], OUTR_STR_NONE, &refused);
    assert_int_equal(wait(b), OUTR_OK);
    close_bench(b);
}

static void bad_schedules_name_the_mistake(void **state OUTR_UNUSED)
{
    bench *b = make_bench();
    const char *const metadata[] = {"schedule", "every minute", NULL}, *const none[] = {NULL};
    assert_int_equal(open_binding(b, TYPE, metadata), OUTR_INVALID_ARGUMENT);
    assert_string_equal(b->err.text, "invalid schedule format 'every minute': expected 5 to 6 "
                                     "fields, found 2: every minute");
    assert_int_equal(open_binding(b, TYPE, none), OUTR_INVALID_ARGUMENT);
    assert_non_null(strstr(b->err.text, "schedule"));
    const char *const mars[] = {"schedule", "TZ=Mars/Olympus @daily", NULL},
                      *const above[] = {"schedule", "TZ=../../etc/passwd @daily", NULL};
    assert_int_equal(open_binding(b, TYPE, mars), OUTR_NOT_FOUND);
    assert_string_equal(b->err.text,
                        "schedule: time zone Mars/Olympus is not known here (package tzdata)");
    b->backend->close(b->binding, begin(b));
    assert_int_equal(wait(b), OUTR_OK);
    b->binding = NULL;
    assert_int_equal(open_binding(b, TYPE, above), OUTR_INVALID_ARGUMENT);
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_when_they_are_due),
        cmocka_unit_test(times_of_day_are_waited_for),
        cmocka_unit_test(a_clock_that_is_set_leaves_nothing_hanging),
        cmocka_unit_test(a_slow_app_gets_no_more_than_the_credit),
        cmocka_unit_test(stopping_waits_for_what_is_out),
        cmocka_unit_test(bad_schedules_name_the_mistake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
