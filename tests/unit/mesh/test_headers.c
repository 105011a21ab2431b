#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mesh/internal.h"

/* What crosses a hop: contract/invocation.md sections 4 to 6, headers.csv. */

#define VALID "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#define ZERO  "00-00000000000000000000000000000000-0000000000000000-00"

typedef struct bench {
    outr_arena *arena;
    outr_headers in, out;
    outr_trace trace;
} bench;

static void open_bench(bench *b)
{
    *b = (bench){.arena = outr_arena_new(OUTR_MIB)};
    outr_headers_init(&b->in, b->arena);
    outr_headers_init(&b->out, b->arena);
}

static void give(bench *b, const char *name, const char *value)
{
    outr_headers_add(&b->in, outr_str_from(name), outr_str_from(value));
}

static void assert_value(const bench *b, const char *name, const char *value)
{
    outr_str got = outr_headers_get(&b->out, name);
    if (value ? outr_str_is(got, value) : !got.p)
        return;
    fail_msg("%s is \"" OUTR_FMT "\", not \"%s\"", name, OUTR_ARG(got), value ? value : "(absent)");
}

static size_t count(const bench *b, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < b->out.count; i++)
        n += outr_str_iis(b->out.items[i].name, name);
    return n;
}

static void to_app(bench *b, bool is_of_peer, bool is_traced)
{
    outr_trace_read(&b->trace, &b->in);
    static const outr_invoke by_http = {0};
    outr__headers_to_app(&b->out, &(outr__to_app){.in = &b->in,
                                                  .invoke = is_of_peer ? NULL : &by_http,
                                                  .trace = &b->trace,
                                                  .is_traced = is_traced});
}

static void close_bench(bench *b)
{
    outr_arena_free(b->arena);
}

/* ---- what stays behind ----------------------------------------------------------------------- */

static void hop_by_hop_names_and_those_connection_lists_stay_behind(void **state)
{
    static const char *const names[] = {"Keep-Alive", "Proxy-Connection",    "Transfer-Encoding",
                                        "Upgrade",    "HTTP2-Settings",      "TE",
                                        "Trailer",    "Proxy-Authorization", "Proxy-Authenticate",
                                        "X-Listed",   "x-LISTED-too"};
    bench b;
    (void)state;
    open_bench(&b);
    give(&b, "Connection", "close, X-Listed ,x-listed-too");
    for (size_t i = 0; i < OUTR_LEN(names); i++)
        give(&b, names[i], "x");
    give(&b, "X-Kept", "1");
    to_app(&b, true, false);
    assert_value(&b, "connection", NULL);
    for (size_t i = 0; i < OUTR_LEN(names); i++)
        assert_value(&b, names[i], NULL);
    assert_value(&b, "x-kept", "1");
    close_bench(&b);
}

static void tokens_and_binary_values_stay_behind(void **state)
{
    static const char *const names[] = {"dapr-api-token", "DAPR-API-TOKEN", "Grpc-Trace-Bin",
                                        "x-bin"};
    bench b;
    (void)state;
    open_bench(&b);
    for (size_t i = 0; i < OUTR_LEN(names); i++)
        give(&b, names[i], "x");
    give(&b, "-bin", "a name of its own");
    give(&b, "x-binary", "kept");
    to_app(&b, true, false);
    for (size_t i = 0; i < OUTR_LEN(names); i++)
        assert_value(&b, names[i], NULL);
    assert_value(&b, "x-binary", "kept");
    close_bench(&b);
}

static void nobody_outside_says_who_calls(void **state)
{
    static const char *const names[] = {"dapr-caller-app-id", "Dapr-Caller-Namespace",
                                        "DAPR-CALLEE-APP-ID", "destination-app-id",
                                        "Dapr-App-Id",        "outrigger-error"};
    bench b;
    (void)state;
    for (int way = 0; way < 2; way++) {
        open_bench(&b);
        for (size_t i = 0; i < OUTR_LEN(names); i++)
            give(&b, names[i], "spoofed");
        if (way == 0) {
            to_app(&b, false, false);
        } else {
            outr__target t = {.kind = OUTR__URL};
            outr__headers_to_outside(&b.out, &b.in, t.endpoint, &b.trace, false);
        }
        for (size_t i = 0; i < OUTR_LEN(names); i++)
            assert_value(&b, names[i], NULL);
        close_bench(&b);
    }
}

static void a_peer_says_who_calls(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    give(&b, "dapr-caller-app-id", "caller");
    give(&b, "dapr-caller-namespace", "ns");
    give(&b, "dapr-callee-app-id", "me");
    give(&b, "destination-app-id", "me");
    to_app(&b, true, false);
    assert_value(&b, "dapr-caller-app-id", "caller");
    assert_value(&b, "dapr-caller-namespace", "ns");
    assert_value(&b, "dapr-callee-app-id", "me");
    assert_value(&b, "destination-app-id", NULL);
    close_bench(&b);
}

static void names_of_grpc_get_a_prefix(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    give(&b, "Grpc-Timeout", "1S");
    to_app(&b, true, false);
    assert_value(&b, "grpc-timeout", NULL);
    assert_value(&b, "dapr-grpc-timeout", "1S");
    close_bench(&b);
    open_bench(&b);
    give(&b, "grpc-status", "0");
    outr__headers_of_answer(&b.out, &b.in, false);
    assert_value(&b, "grpc-status", NULL);
    assert_value(&b, "dapr-grpc-status", "0");
    close_bench(&b);
}

static void repeated_headers_stay_apart_and_in_order_but_baggage_is_one(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    give(&b, "X-A", "1");
    give(&b, "Baggage", "k=v");
    give(&b, "x-a", "2");
    give(&b, "baggage", "not checked");
    to_app(&b, true, false);
    assert_int_equal(count(&b, "x-a"), 2);
    assert_value(&b, "x-a", "1");
    assert_int_equal(count(&b, "baggage"), 1);
    assert_value(&b, "baggage", "k=v");
    close_bench(&b);
}

static void an_answer_keeps_its_cookies_and_loses_what_is_of_the_hop(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    give(&b, "Set-Cookie", "a=1");
    give(&b, "Set-Cookie", "b=2");
    give(&b, "Connection", "X-Mine");
    give(&b, "X-Mine", "1");
    give(&b, "Outrigger-Error", "5");
    give(&b, "x-bin", "1");
    give(&b, "traceparent", VALID);
    outr__headers_of_answer(&b.out, &b.in, false);
    assert_int_equal(count(&b, "set-cookie"), 2);
    assert_value(&b, "x-mine", NULL);
    assert_value(&b, "outrigger-error", NULL);
    assert_value(&b, "x-bin", NULL);
    assert_value(&b, "traceparent", VALID);
    close_bench(&b);
}

/* ---- what is added ----------------------------------------------------------------------------- */

static void to_peer(bench *b, const char *host, const char *forwarded)
{
    outr_settings settings = {.app_id = OUTR_STR("caller"), .namespace_ = OUTR_STR("ns")};
    outr_mesh mesh = {
        .o = {.settings = &settings, .host = outr_str_from(host), .host_name = OUTR_STR("box")},
        .forwarded = outr_str_from(forwarded)};
    const outr_http_request req = {.headers = b->in};
    const outr_invoke by_http = {.trace = b->trace};
    const outr__target t = {.kind = OUTR__APP, .app_id = OUTR_STR("callee")};
    outr__headers_to_peer(&b->out, &mesh, &by_http, &req, &t, false);
}

static void binary_metadata_reaches_only_who_can_read_it(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    give(&b, "x-a-bin", "AAE=");
    give(&b, "x-b-bin", "AAEC");
    give(&b, "x-c-bin", "not base64!");
    outr__headers_to_app(&b.out,
                         &(outr__to_app){.in = &b.in, .trace = &b.trace, .is_grpc_app = true});
    assert_value(&b, "x-a-bin", "AAE");
    assert_value(&b, "x-b-bin", "AAEC");
    assert_value(&b, "x-c-bin", NULL);
    outr_headers_init(&b.out, b.arena);
    outr__headers_to_app(&b.out, &(outr__to_app){.in = &b.in, .trace = &b.trace});
    assert_value(&b, "x-b-bin", NULL);
    close_bench(&b);
}

static void the_caller_is_named_and_the_hop_is_added(void **state)
{
    bench b;
    (void)state;
    open_bench(&b);
    give(&b, "Dapr-Caller-App-Id", "spoofed");
    give(&b, "X-Forwarded-For", "192.0.2.7");
    give(&b, "x-forwarded-for", "192.0.2.8");
    give(&b, "Forwarded", "for=192.0.2.7");
    to_peer(&b, "10.0.0.1", "for=10.0.0.1;by=10.0.0.1;host=box");
    assert_int_equal(count(&b, "dapr-caller-app-id"), 1);
    assert_value(&b, "dapr-caller-app-id", "caller");
    assert_value(&b, "dapr-caller-namespace", "ns");
    assert_value(&b, "dapr-callee-app-id", "callee");
    assert_int_equal(count(&b, "x-forwarded-for"), 1);
    assert_value(&b, "x-forwarded-for", "192.0.2.7, 192.0.2.8, 10.0.0.1");
    assert_value(&b, "x-forwarded-host", "box");
    assert_value(&b, "forwarded", "for=192.0.2.7, for=10.0.0.1;by=10.0.0.1;host=box");
    close_bench(&b);
}

static void an_endpoint_sets_its_headers_over_the_clients(void **state)
{
    static const outr_setting headers[] = {
        {.name = OUTR_STR("X-Key"), .value = OUTR_STR("ours")},
        {.name = OUTR_STR("X-New"), .value = OUTR_STR("1")},
    };
    const outr_endpoint_spec endpoint = {.headers = headers, .header_count = 2};
    const outr__target t = {.kind = OUTR__ENDPOINT, .endpoint = &endpoint};
    bench b;
    (void)state;
    open_bench(&b);
    give(&b, "x-key", "the client's");
    outr__headers_to_outside(&b.out, &b.in, t.endpoint, &b.trace, false);
    assert_int_equal(count(&b, "x-key"), 1);
    assert_value(&b, "x-key", "ours");
    assert_value(&b, "x-new", "1");
    close_bench(&b);
}

/* ---- trace context ------------------------------------------------------------------------------- */

static void a_trace_passes_as_far_as_it_is_understood(void **state)
{
    static const struct {
        const char *parent, *state, *want, *want_state;
    } rows[] = {
        {NULL, NULL, ZERO, NULL},
        {NULL, "a=b", ZERO, NULL},
        {"", "a=b", ZERO, NULL},
        {VALID, NULL, VALID, NULL},
        {VALID, "a=b,c=d", VALID, "a=b,c=d"},
        {VALID, "bad state here", VALID, "bad state here"},
        {" " VALID " ", NULL, VALID, NULL},
        {"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra", "a=b", VALID, "a=b"},
        {"00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01", NULL,
         "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01", NULL},
        {"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", NULL,
         "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", NULL},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        bench b;
        open_bench(&b);
        if (rows[i].parent)
            give(&b, "Traceparent", rows[i].parent);
        if (rows[i].state)
            give(&b, "Tracestate", rows[i].state);
        to_app(&b, true, false);
        assert_int_equal(count(&b, "traceparent"), 1);
        assert_value(&b, "traceparent", rows[i].want);
        assert_value(&b, "tracestate", rows[i].want_state);
        close_bench(&b);
    }
}

static void a_span_of_this_hop_replaces_what_came(void **state)
{
    static const outr_trace_config on = {true, 1, NULL};
    bench b;
    outr_rand rand;
    (void)state;
    outr_rand_seed(&rand, 1);
    open_bench(&b);
    give(&b, "traceparent", VALID);
    give(&b, "tracestate", "a=b");
    outr_trace parent;
    outr_trace_read(&parent, &b.in);
    outr_trace_start(&b.trace, &parent, &on, &rand);
    outr__headers_to_app(&b.out,
                         &(outr__to_app){.in = &b.in, .trace = &b.trace, .is_traced = true});
    outr_str got = outr_headers_get(&b.out, "traceparent");
    assert_int_equal(count(&b, "traceparent"), 1);
    assert_true(outr_str_starts(got, OUTR_STR("00-0af7651916cd43dd8448eb211c80319c-")));
    assert_false(outr_str_is(got, VALID));
    assert_value(&b, "tracestate", "a=b");
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hop_by_hop_names_and_those_connection_lists_stay_behind),
        cmocka_unit_test(tokens_and_binary_values_stay_behind),
        cmocka_unit_test(nobody_outside_says_who_calls),
        cmocka_unit_test(a_peer_says_who_calls),
        cmocka_unit_test(names_of_grpc_get_a_prefix),
        cmocka_unit_test(repeated_headers_stay_apart_and_in_order_but_baggage_is_one),
        cmocka_unit_test(an_answer_keeps_its_cookies_and_loses_what_is_of_the_hop),
        cmocka_unit_test(binary_metadata_reaches_only_who_can_read_it),
        cmocka_unit_test(the_caller_is_named_and_the_hop_is_added),
        cmocka_unit_test(an_endpoint_sets_its_headers_over_the_clients),
        cmocka_unit_test(a_trace_passes_as_far_as_it_is_understood),
        cmocka_unit_test(a_span_of_this_hop_replaces_what_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
