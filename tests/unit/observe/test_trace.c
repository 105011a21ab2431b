#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/encode.h"
#include "observe/trace.h"

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN  "b7ad6b7169203331"

static outr_arena *arena;

static int open_arena(void **state)
{
    (void)state;
    arena = outr_arena_new(OUTR_MIB);
    return 0;
}

static int close_arena(void **state)
{
    (void)state;
    outr_arena_free(arena);
    return 0;
}

/* ---- traceparent (W3C Trace Context section 3.2) ------------------------------------------------ */

static void assert_read(const char *text, const char *written)
{
    char out[OUTR_TRACEPARENT_LEN + 1];
    outr_trace trace;
    if (!outr_trace_parse(&trace, outr_str_from(text)))
        fail_msg("refused: %s", text);
    outr_trace_write(&trace, out);
    assert_string_equal(out, written);
}

static void a_parent_is_read_and_written_as_it_was(void **state)
{
    (void)state;
    assert_read("00-" TRACE "-" SPAN "-01", "00-" TRACE "-" SPAN "-01");
    assert_read("00-" TRACE "-" SPAN "-00", "00-" TRACE "-" SPAN "-00");
    assert_read("00-" TRACE "-" SPAN "-ff", "00-" TRACE "-" SPAN "-ff"); /* flags to come */
    assert_read(" \t00-" TRACE "-" SPAN "-01 ", "00-" TRACE "-" SPAN "-01");
    assert_read("00-00000000000000000000000000000001-0000000000000001-01",
                "00-00000000000000000000000000000001-0000000000000001-01");
}

static void later_versions_are_read_as_far_as_we_know_them(void **state)
{
    (void)state;
    assert_read("01-" TRACE "-" SPAN "-01", "00-" TRACE "-" SPAN "-01");
    assert_read("cc-" TRACE "-" SPAN "-01-what-comes", "00-" TRACE "-" SPAN "-01");
    assert_read("fe-" TRACE "-" SPAN "-01-", "00-" TRACE "-" SPAN "-01");
}

static void what_is_no_parent_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "00",
        "00-" TRACE "-" SPAN,
        "00-" TRACE "-" SPAN "-",
        "00-" TRACE "-" SPAN "-0",
        "00-" TRACE "-" SPAN "-0g",
        "00-" TRACE "-" SPAN "-01-",
        "00-" TRACE "-" SPAN "-01-x",
        "00-" TRACE "-" SPAN "-010",
        "ff-" TRACE "-" SPAN "-01",
        "ff-" TRACE "-" SPAN "-01-x",
        "cc-" TRACE "-" SPAN "-01x",
        "0-" TRACE "-" SPAN "-01x",
        "0x-" TRACE "-" SPAN "-01",
        "CC-" TRACE "-" SPAN "-01",
        "00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01",
        "00-" TRACE "-B7AD6B7169203331-01",
        "00-" TRACE "-" SPAN "-0A",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319-" SPAN "-011",
        "00_" TRACE "_" SPAN "_01",
        "00-" TRACE SPAN "--01",
        "00-0af7651916cd43dd8448eb211c80319z-" SPAN "-01",
        "00- af7651916cd43dd8448eb211c80319c-" SPAN "-01",
    };
    outr_trace trace;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        if (outr_trace_parse(&trace, outr_str_from(bad[i])))
            fail_msg("accepted: %s", bad[i]);
        assert_false(trace.is_valid);
    }
}

static void without_a_trace_zeros_are_written(void **state)
{
    char out[OUTR_TRACEPARENT_LEN + 1];
    outr_trace trace = {0};
    (void)state;
    outr_trace_write(&trace, out);
    assert_string_equal(out, "00-00000000000000000000000000000000-0000000000000000-00");
}

/* ---- tracestate (section 3.3) ------------------------------------------------------------------- */

static outr_str read_state(const char *parent, outr_str state)
{
    outr_headers headers;
    outr_trace trace;
    outr_headers_init(&headers, arena);
    outr_headers_add(&headers, OUTR_STR("TraceParent"), outr_str_from(parent));
    outr_headers_add(&headers, OUTR_STR("TraceState"), state);
    outr_trace_read(&trace, &headers);
    return trace.state;
}

static const char parent_text[] = "00-" TRACE "-" SPAN "-01";

static void assert_state(outr_str state, bool is_kept)
{
    outr_str got = read_state(parent_text, state);
    if (is_kept ? !outr_str_eq(got, state) : got.n != 0)
        fail_msg("%.*s: %s", OUTR_ARG(state), is_kept ? "dropped" : "kept");
}

static void states_are_kept_as_they_are_or_not_at_all(void **state)
{
    static const char *const good[] = {
        "rojo=00f067aa0ba902b7",
        "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        "a=1, b=2\t,c=3",
        ",a=1,,b=2,",
        "fw529a3039@dt=FfAAAQ,0tenant@vendor=x",
        "a_-*/b=!\"#$%&'()*+-./:;<>?@[]^_`{|}~ x",
    };
    static const char *const bad[] = {
        "",           ",",          " , ",   "a",   "=1",     "a=1,b", "A=1", "a=b=c",  "a=\x7f",
        "\xc3\xa9=1", "a=\xc3\xa9", "a b=1", "@=1", "a=1,=2", "-a=1",  "a=",  "a= ,b=1"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(good); i++)
        assert_state(outr_str_from(good[i]), true);
    for (size_t i = 0; i < OUTR_LEN(bad); i++)
        assert_state(outr_str_from(bad[i]), false);
}

/* k0=v,k1=v,... */
static outr_str members(size_t count)
{
    outr_str joined = OUTR_STR("");
    for (size_t i = 0; i < count; i++)
        joined = outr_arena_join(arena, joined, i ? OUTR_STR(",") : OUTR_STR_NONE,
                                 outr_arena_printf(arena, "k%zu=v", i));
    return joined;
}

static outr_str filled(const char *before, char c, size_t n)
{
    size_t head = strlen(before);
    char *text = outr_arena_alloc(arena, head + n);
    memcpy(text, before, head);
    memset(text + head, c, n);
    return outr_str_of(text, head + n);
}

static void a_state_has_its_limits(void **state)
{
    (void)state;
    assert_state(members(32), true);
    assert_state(members(33), false);
    assert_state(filled("k=", 'v', 256), true);
    assert_state(filled("k=", 'v', 257), false);
    outr_str key = filled("", 'k', 256);
    assert_state(outr_arena_join(arena, key, OUTR_STR("=v"), OUTR_STR_NONE), true);
    assert_state(outr_arena_join(arena, key, OUTR_STR("k=v"), OUTR_STR_NONE), false);
    outr_str two = outr_arena_join(arena, filled("a=", 'x', 254), OUTR_STR(","), OUTR_STR_NONE);
    assert_state(outr_arena_join(arena, two, filled("b=", 'y', 512 - two.n - 2), OUTR_STR_NONE),
                 true);
    assert_state(outr_arena_join(arena, two, filled("b=", 'y', 513 - two.n - 2), OUTR_STR_NONE),
                 false);
}

static void a_state_without_a_valid_parent_is_nothing(void **state)
{
    (void)state;
    assert_int_equal(read_state("", OUTR_STR("a=1")).n, 0);
    assert_int_equal(read_state("ff-" TRACE "-" SPAN "-01", OUTR_STR("a=1")).n, 0);
}

/* ---- the span of this hop ----------------------------------------------------------------------- */

static outr_trace parent_with(const char *text)
{
    outr_trace trace;
    assert_true(outr_trace_parse(&trace, outr_str_from(text)));
    trace.state = OUTR_STR("a=1");
    return trace;
}

static void the_parent_decides_whether_a_child_is_sampled(void **state)
{
    const outr_trace_config never = {true, 0, NULL}, always = {true, 1, NULL};
    outr_trace sampled = parent_with("00-" TRACE "-" SPAN "-01"),
               unsampled = parent_with("00-" TRACE "-" SPAN "-00"), child;
    outr_rand rand;
    (void)state;
    outr_rand_seed(&rand, 5);
    outr_trace_start(&child, &sampled, &never, &rand);
    assert_int_equal(child.flags, 1);
    assert_memory_equal(child.trace_id, sampled.trace_id, 16);
    assert_memory_not_equal(child.span_id, sampled.span_id, 8);
    assert_true(outr_str_is(child.state, "a=1"));
    outr_trace_start(&child, &unsampled, &always, &rand);
    assert_int_equal(child.flags, 0);
}

static void a_root_is_sampled_by_the_rate(void **state)
{
    const outr_trace none = {0};
    const outr_trace_config some = {true, 0.25, NULL};
    unsigned sampled = 0;
    outr_rand rand;
    (void)state;
    outr_rand_seed(&rand, 5);
    for (int i = 0; i < 4000; i++) {
        outr_trace root;
        outr_trace_start(&root, &none, &some, &rand);
        assert_true(root.is_valid);
        sampled += root.flags & 1;
    }
    assert_in_range(sampled, 850, 1150);
}

/* TraceIdRatioBased of OpenTelemetry: the last eight bytes, halved, against the rate. */
static void who_samples_by_id_samples_alike(void **state)
{
    const outr_trace_config half = {true, 0.5, NULL};
    const outr_trace none = {0};
    unsigned low = 0;
    outr_rand rand;
    (void)state;
    outr_rand_seed(&rand, 11);
    for (int i = 0; i < 100; i++) {
        outr_trace root;
        outr_trace_start(&root, &none, &half, &rand);
        assert_int_equal(root.flags, root.trace_id[8] < 0x80);
        assert_false(root.has_parent);
        low += root.flags;
    }
    assert_in_range(low, 30, 70);
}

static void a_child_says_below_whom_it_is(void **state)
{
    const outr_trace_config on = {true, 1, NULL};
    outr_trace parent = parent_with("00-" TRACE "-" SPAN "-01"), none = {0}, child, part;
    outr_rand rand;
    (void)state;
    outr_rand_seed(&rand, 5);
    outr_trace_start(&child, &parent, &on, &rand);
    assert_true(child.has_parent);
    assert_memory_equal(child.parent_id, parent.span_id, 8);
    outr_trace_child(&part, &child, &rand);
    assert_memory_equal(part.parent_id, child.span_id, 8);
    assert_memory_not_equal(part.span_id, child.span_id, 8);
    outr_trace_child(&part, &none, &rand);
    assert_false(part.is_valid);
}

/* ---- several headers, and gRPC's ---------------------------------------------------------------- */

static void the_first_parent_counts_and_states_are_one_list(void **state)
{
    outr_headers headers;
    outr_trace trace;
    (void)state;
    outr_headers_init(&headers, arena);
    outr_headers_add(&headers, OUTR_STR("Traceparent"), OUTR_STR("00-" TRACE "-" SPAN "-01"));
    outr_headers_add(&headers, OUTR_STR("traceparent"),
                     OUTR_STR("00-" TRACE "-00f067aa0ba902b7-00"));
    outr_headers_add(&headers, OUTR_STR("tracestate"), OUTR_STR("a=1"));
    outr_headers_add(&headers, OUTR_STR("other"), OUTR_STR("x"));
    outr_headers_add(&headers, OUTR_STR("Tracestate"), OUTR_STR("b=2,c=3"));
    outr_trace_read(&trace, &headers);
    assert_true(trace.is_valid);
    assert_int_equal(trace.flags, 1);
    assert_int_equal(trace.span_id[0], 0xb7);
    assert_true(outr_str_is(trace.state, "a=1,b=2,c=3"));
    outr_headers_add(&headers, OUTR_STR("tracestate"), OUTR_STR("no state"));
    outr_trace_read(&trace, &headers);
    assert_true(trace.is_valid && trace.state.n == 0);
    for (int i = 0; i < 1000; i++) /* no more work than the limit is worth */
        outr_headers_add(&headers, OUTR_STR("tracestate"), OUTR_STR("d=4"));
    outr_trace_read(&trace, &headers);
    assert_true(trace.is_valid && trace.state.n == 0);
}

static void a_binary_parent_goes_before_the_text(void **state)
{
    char bytes[OUTR_TRACE_BIN_LEN];
    outr_headers headers;
    outr_trace given = parent_with("00-" TRACE "-" SPAN "-01"), trace;
    (void)state;
    outr_trace_write_bin(&given, bytes);
    assert_true(outr_trace_parse_bin(&trace, outr_str_of(bytes, sizeof bytes)));
    assert_memory_equal(trace.span_id, given.span_id, 8);
    outr_headers_init(&headers, arena);
    outr_headers_add(&headers, OUTR_STR("traceparent"),
                     OUTR_STR("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"));
    outr_trace_read_grpc(&trace, &headers);
    assert_int_equal(trace.trace_id[0], 0x4b);
    outr_headers_add(&headers, OUTR_STR("grpc-trace-bin"),
                     outr_base64_encode(arena, outr_str_of(bytes, sizeof bytes)));
    outr_headers_add(&headers, OUTR_STR("tracestate"), OUTR_STR("a=1"));
    outr_trace_read_grpc(&trace, &headers);
    assert_memory_equal(trace.trace_id, given.trace_id, 16);
    assert_int_equal(trace.flags, 1);
    assert_true(outr_str_is(trace.state, "a=1"));
    static const char *const bad[] = {"", "AAAA", "!", "AAAAAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAAAgA"};
    for (size_t i = 0; i < OUTR_LEN(bad); i++) { /* then the text counts */
        outr_headers_set(&headers, OUTR_STR("grpc-trace-bin"), outr_str_from(bad[i]));
        outr_trace_read_grpc(&trace, &headers);
        assert_int_equal(trace.trace_id[0], 0x4b);
    }
    for (size_t i = 0; i < sizeof bytes; i++) { /* each byte that says what follows */
        char wrong[sizeof bytes];
        memcpy(wrong, bytes, sizeof bytes);
        wrong[i] = (char)(wrong[i] + 1);
        bool is_field = i < 2 || i == 18 || i == 27;
        assert_int_equal(outr_trace_parse_bin(&trace, outr_str_of(wrong, sizeof wrong)), !is_field);
    }
}

static void with_tracing_off_the_parent_passes_through(void **state)
{
    const outr_trace_config off = {false, 1, NULL};
    outr_trace parent = parent_with("00-" TRACE "-" SPAN "-01"), none = {0}, child;
    outr_rand rand;
    (void)state;
    outr_rand_seed(&rand, 5);
    outr_trace_start(&child, &parent, &off, &rand);
    assert_memory_equal(child.span_id, parent.span_id, 8);
    outr_trace_start(&child, &none, &off, &rand);
    assert_false(child.is_valid);
}

/* ---- baggage (W3C Baggage section 3.3) ---------------------------------------------------------- */

static void baggage_is_well_formed_or_refused(void **state)
{
    static const char *const good[] = {
        "userId=alice,serverNode=DF%2028,isProduction=false",
        "k=v;p;q=1 , k2 = v2 ",
        "k=",
        "k!#$%&'*+-.^_`|~=a=b",
    };
    static const char *const bad[] = {"k",          "=v",        "k=v,",  ",k=v", "k=a b",
                                      "k=\"v\"",    "k=a\\b",    "k v=1", "k=v;", "k=v;=1",
                                      "k=\xc3\xa9", "k=v;p=a b", "(k)=v"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(good); i++) {
        if (!outr_baggage_is_valid(outr_str_from(good[i])))
            fail_msg("refused: %s", good[i]);
    }
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        if (outr_baggage_is_valid(outr_str_from(bad[i])))
            fail_msg("accepted: %s", bad[i]);
    }
}

static void baggage_has_its_limits(void **state)
{
    (void)state;
    assert_true(outr_baggage_is_valid(members(64)));
    assert_false(outr_baggage_is_valid(members(65)));
    assert_true(outr_baggage_is_valid(filled("k=", 'v', 8190)));
    assert_false(outr_baggage_is_valid(filled("k=", 'v', 8191)));
}

#define WITH_ARENA(f) cmocka_unit_test_setup_teardown(f, open_arena, close_arena)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ARENA(a_parent_is_read_and_written_as_it_was),
        WITH_ARENA(later_versions_are_read_as_far_as_we_know_them),
        WITH_ARENA(what_is_no_parent_is_refused),
        WITH_ARENA(without_a_trace_zeros_are_written),
        WITH_ARENA(states_are_kept_as_they_are_or_not_at_all),
        WITH_ARENA(a_state_has_its_limits),
        WITH_ARENA(a_state_without_a_valid_parent_is_nothing),
        WITH_ARENA(the_parent_decides_whether_a_child_is_sampled),
        WITH_ARENA(a_root_is_sampled_by_the_rate),
        cmocka_unit_test(who_samples_by_id_samples_alike),
        cmocka_unit_test(a_child_says_below_whom_it_is),
        WITH_ARENA(the_first_parent_counts_and_states_are_one_list),
        WITH_ARENA(a_binary_parent_goes_before_the_text),
        WITH_ARENA(with_tracing_off_the_parent_passes_through),
        WITH_ARENA(baggage_is_well_formed_or_refused),
        WITH_ARENA(baggage_has_its_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
