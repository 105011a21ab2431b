#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lib/wire.h"
#include "observe/span.h"

static wire net;
static outr_tracer *tracer;
static outr_span_batch *taken[64];
static size_t taken_count;
static outr_arena *arena;

static void take(void *ctx, outr_span_batch *own_batch)
{
    (void)ctx;
    assert_true(taken_count < OUTR_LEN(taken));
    taken[taken_count++] = own_batch;
}

static int begin(void **state)
{
    (void)state;
    wire_init(&net, 7);
    wire_set_now(&net, 5 * OUTR_SEC);
    wire_run(&net);
    arena = outr_arena_new(OUTR_MIB);
    taken_count = 0;
    tracer = outr_tracer_new(&(outr_tracer_options){.loop = net.loop, .take = take});
    return 0;
}

static int end(void **state)
{
    (void)state;
    outr_tracer_free(tracer);
    for (size_t i = 0; i < taken_count; i++)
        outr_span_batch_free(taken[i]);
    outr_arena_free(arena);
    wire_done(&net);
    return 0;
}

static outr_trace sampled(void)
{
    static const outr_trace_config always = {true, 1, NULL};
    outr_trace none = {0}, trace;
    outr_trace_start(&trace, &none, &always, outr_loop_rand(net.loop));
    return trace;
}

static outr_span_view only_span(void)
{
    outr_span_view view;
    size_t at = 0;
    outr_tracer_flush(tracer);
    assert_int_equal(taken_count, 1);
    assert_true(outr_span_batch_next(taken[0], &at, &view));
    outr_span_view more;
    assert_false(outr_span_batch_next(taken[0], &at, &more));
    return view;
}

static void a_span_comes_out_as_it_went_in(void **state)
{
    outr_trace root = sampled(), trace;
    (void)state;
    outr_trace_child(&trace, &root, outr_loop_rand(net.loop));
    trace.state = OUTR_STR("a=1,b=2");
    outr_span span = {.trace = &trace,
                      .kind = OUTR_SPAN_SERVER,
                      .name = OUTR_STR("CallLocal/b/m"),
                      .began_ns = outr_loop_now(net.loop),
                      .is_error = true,
                      .failure = OUTR_STR("Not Found")};
    outr_span_add(&span, "dapr.protocol", OUTR_STR("http"));
    outr_span_add(&span, "empty", OUTR_STR(""));
    outr_span_add(&span, "dapr.status_code", OUTR_STR("404"));
    wire_set_now(&net, 5 * OUTR_SEC + 3 * OUTR_MS);
    outr_span_record(tracer, &span);
    outr_span_view v = only_span();
    assert_memory_equal(v.item->trace_id, root.trace_id, 16);
    assert_memory_equal(v.item->parent_id, root.span_id, 8);
    assert_memory_equal(v.item->span_id, trace.span_id, 8);
    assert_true(v.item->has_parent);
    assert_int_equal(v.item->kind, OUTR_SPAN_SERVER);
    assert_int_equal(v.item->flags, 1);
    assert_int_equal(v.item->ended_unix_ns - v.item->began_unix_ns, 3 * OUTR_MS);
    assert_string_equal(v.name, "CallLocal/b/m");
    assert_string_equal(v.failure, "Not Found");
    assert_string_equal(v.state, "a=1,b=2");
    assert_int_equal(v.item->attribute_count, 2);
    assert_string_equal(v.keys[0], "dapr.protocol");
    assert_string_equal(v.values[0], "http");
    assert_string_equal(v.keys[1], "dapr.status_code");
    assert_string_equal(v.values[1], "404");
}

/* A collector refuses a whole batch for one text that is not UTF-8. */
static void what_a_client_sends_becomes_text(void **state)
{
    outr_trace trace = sampled();
    (void)state;
    outr_span span = {.trace = &trace, .kind = OUTR_SPAN_CLIENT, .began_ns = 0};
    char name[OUTR_SPAN_NAME_MAX + 1];
    memset(name, 'a', sizeof name);
    memcpy(name + OUTR_SPAN_NAME_MAX - 1, "\xc3\xa9", 2); /* cut in its middle */
    span.name = outr_str_of(name, sizeof name);
    outr_span_add(&span, "k", outr_str_of("a\0b", 3));
    outr_span_add(&span, "k", OUTR_STR("\xff\xfe plain"));
    outr_span_add(&span, "k", OUTR_STR("\xc3\xa9"));
    outr_span_record(tracer, &span);
    outr_span_view v = only_span();
    assert_int_equal(strlen(v.name), OUTR_SPAN_NAME_MAX - 1);
    assert_string_equal(v.values[0], "a?b");
    assert_string_equal(v.values[1], "?? plain");
    assert_string_equal(v.values[2], "\xc3\xa9");
}

static void headers_of_dapr_are_shown_but_no_token(void **state)
{
    outr_trace trace = sampled();
    outr_span span = {.trace = &trace, .kind = OUTR_SPAN_CLIENT, .name = OUTR_STR("n")};
    outr_headers headers;
    (void)state;
    outr_headers_init(&headers, arena);
    outr_headers_add(&headers, OUTR_STR("Dapr-Tenant"), OUTR_STR("blue"));
    outr_headers_add(&headers, OUTR_STR("dapr-api-token"), OUTR_STR("secret"));
    outr_headers_add(&headers, OUTR_STR("dapr-x-bin"), OUTR_STR("AAAA"));
    outr_headers_add(&headers, OUTR_STR("Other"), OUTR_STR("no"));
    outr_headers_add(&headers, OUTR_STR("dapr-tenant"), OUTR_STR("second"));
    for (int i = 0; i < 100; i++)
        outr_headers_add(&headers, outr_arena_printf(arena, "dapr-many-%d", i), OUTR_STR("x"));
    outr_span_add_headers(&span, &headers);
    outr_span_record(tracer, &span);
    outr_span_view v = only_span();
    assert_int_equal(v.item->attribute_count, 8);
    assert_string_equal(v.keys[0], "dapr-tenant");
    assert_string_equal(v.values[0], "blue");
    assert_string_equal(v.keys[1], "dapr-many-0");
}

/* The largest spans there can be stay within their batch; the address sanitizer watches. */
static void a_full_batch_is_given_on_and_none_is_lost(void **state)
{
    static char big[4096];
    outr_trace trace = sampled();
    size_t seen = 0, at;
    (void)state;
    memset(big, 'x', sizeof big - 1);
    outr_span span = {.trace = &trace,
                      .kind = OUTR_SPAN_CLIENT,
                      .name = outr_str_of(big, sizeof big),
                      .is_error = true,
                      .failure = outr_str_of(big, sizeof big)};
    trace.state = outr_str_of(big, sizeof big);
    for (int i = 0; i < 100; i++)
        outr_span_add(&span, big, outr_str_of(big, sizeof big));
    assert_int_equal(span.attribute_count, OUTR_SPAN_ATTRIBUTES_MAX);
    for (int i = 0; i < 10; i++)
        outr_span_record(tracer, &span);
    outr_span small = {.trace = &trace, .kind = OUTR_SPAN_CLIENT, .name = OUTR_STR("n")};
    trace.state = OUTR_STR_NONE;
    for (int i = 0; i < 300; i++)
        outr_span_record(tracer, &small);
    outr_tracer_flush(tracer);
    for (size_t i = 0; i < taken_count; i++) {
        outr_span_view v;
        assert_in_range(taken[i]->count, 1, OUTR_SPAN_BATCH_SPANS);
        assert_in_range(taken[i]->used, 1, OUTR_SPAN_BATCH_BYTES);
        for (at = 0; outr_span_batch_next(taken[i], &at, &v);)
            seen++;
    }
    assert_int_equal(seen, 310);
}

static void a_lonely_span_waits_for_a_second(void **state)
{
    outr_trace trace = sampled();
    outr_span span = {.trace = &trace, .kind = OUTR_SPAN_CLIENT, .name = OUTR_STR("n")};
    (void)state;
    outr_span_record(tracer, &span);
    wire_sleep(&net, OUTR_SEC - 1);
    assert_int_equal(taken_count, 0);
    wire_sleep(&net, 1);
    assert_int_equal(taken_count, 1);
    wire_sleep(&net, 10 * OUTR_SEC);
    assert_int_equal(taken_count, 1); /* nothing more, nothing given */
}

static void an_attempt_says_whom_and_why(void **state)
{
    outr_trace hop = sampled(), trace;
    (void)state;
    outr_trace_child(&trace, &hop, outr_loop_rand(net.loop));
    outr_span_attempt(tracer, &(outr_attempt_span){.trace = &trace,
                                                   .began_ns = outr_loop_now(net.loop),
                                                   .number = 2,
                                                   .app_id = OUTR_STR("b"),
                                                   .address = OUTR_STR("10.0.0.1:50002"),
                                                   .code = OUTR_UNAVAILABLE,
                                                   .text = OUTR_STR("nobody is there"),
                                                   .reason = OUTR_STR("connect_failed")});
    outr_span_view v = only_span();
    assert_string_equal(v.name, "attempt");
    assert_string_equal(v.failure, "nobody is there");
    assert_memory_equal(v.item->parent_id, hop.span_id, 8);
    assert_string_equal(v.keys[0], "outrigger.attempt");
    assert_string_equal(v.values[0], "2");
    assert_string_equal(v.values[1], "b");
    assert_string_equal(v.values[2], "10.0.0.1:50002");
    assert_string_equal(v.keys[3], "outrigger.reason");
    assert_string_equal(v.values[3], "connect_failed");
}

static void only_what_is_sampled_is_wanted(void **state)
{
    outr_trace_config on = {true, 1, tracer}, no_exporter = {true, 1, NULL};
    outr_trace yes = sampled(), no = yes, invalid = {0};
    (void)state;
    no.flags = 0;
    assert_true(outr_span_is_wanted(&on, &yes));
    assert_false(outr_span_is_wanted(&on, &no));
    assert_false(outr_span_is_wanted(&on, &invalid));
    assert_false(outr_span_is_wanted(&no_exporter, &yes));
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(a_span_comes_out_as_it_went_in),
        WITH(what_a_client_sends_becomes_text),
        WITH(headers_of_dapr_are_shown_but_no_token),
        WITH(a_full_batch_is_given_on_and_none_is_lost),
        WITH(a_lonely_span_waits_for_a_second),
        WITH(an_attempt_says_whom_and_why),
        WITH(only_what_is_sampled_is_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
