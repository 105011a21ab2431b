#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "grpc/status.h"

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

static outr_headers headers(const char *name, const char *value)
{
    outr_headers h;
    outr_headers_init(&h, arena);
    if (name)
        outr_headers_add(&h, outr_str_from(name), outr_str_from(value));
    return h;
}

static void assert_str(outr_str s, const char *text)
{
    if (!outr_str_is(s, text))
        fail_msg("\"" OUTR_FMT "\" is not \"%s\"", OUTR_ARG(s), text);
}

static uint64_t timeout_of(const char *text)
{
    outr_headers h = headers("grpc-timeout", text);
    uint64_t ns;
    return outr_grpc_timeout_read(&ns, &h) ? ns : UINT64_MAX;
}

static void timeouts_in_every_unit(void **state)
{
    (void)state;
    assert_int_equal(timeout_of("5n"), 5);
    assert_int_equal(timeout_of("5u"), 5000);
    assert_int_equal(timeout_of("5m"), 5 * OUTR_MS);
    assert_int_equal(timeout_of("5S"), 5 * OUTR_SEC);
    assert_int_equal(timeout_of("5M"), 300 * OUTR_SEC);
    assert_int_equal(timeout_of("5H"), 5 * 3600 * OUTR_SEC);
    assert_int_equal(timeout_of("99999999S"), 99999999 * OUTR_SEC);
    outr_headers none = headers(NULL, NULL);
    uint64_t ns = 7;
    assert_true(outr_grpc_timeout_read(&ns, &none));
    assert_int_equal(ns, 0);
}

static void a_timeout_of_none_is_a_deadline_that_has_passed(void **state)
{
    (void)state;
    assert_int_equal(timeout_of("0S"), 1);
    assert_int_equal(timeout_of("00000000H"), 1);
    assert_int_equal(timeout_of("0n"), 1);
}

static void a_timeout_longer_than_clocks_count_is_the_longest(void **state)
{
    (void)state;
    assert_int_equal(timeout_of("99999999M"),
                     OUTR_GRPC_TIMEOUT_MAX_NS / (60 * OUTR_SEC) * 60 * OUTR_SEC);
    assert_true(timeout_of("99999999H") <= OUTR_GRPC_TIMEOUT_MAX_NS);
    assert_true(timeout_of("99999999H") > OUTR_GRPC_TIMEOUT_MAX_NS - 3600 * OUTR_SEC);
}

static void malformed_timeouts(void **state)
{
    static const char *const texts[] = {"",   "1",   "S",  "-1S",  "+1S",       "1s",   "1.5S",
                                        "1 S", "1S ", " 1S", "1SS", "100000000S", "1h", "0x1S"};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(texts); i++)
        if (timeout_of(texts[i]) != UINT64_MAX)
            fail_msg("\"%s\" is taken", texts[i]);
}

static void timeouts_written_have_eight_digits_at_most(void **state)
{
    (void)state;
    assert_str(outr_grpc_timeout_write(arena, 1), "1n");
    assert_str(outr_grpc_timeout_write(arena, 99999999), "99999999n");
    assert_str(outr_grpc_timeout_write(arena, 100000000), "100000u");
    assert_str(outr_grpc_timeout_write(arena, 3 * OUTR_SEC), "3000000u");
    for (uint64_t ns = 1; ns < UINT64_MAX / 10; ns *= 7) {
        outr_str text = outr_grpc_timeout_write(arena, ns);
        char z[16] = {0};
        assert_true(text.n <= 9);
        memcpy(z, text.p, text.n);
        assert_true(timeout_of(z) <= ns); /* never later than meant */
    }
}

static void messages_are_percent_encoded(void **state)
{
    static const struct {
        const char *text, *wire;
    } cases[] = {
        {"", ""},
        {"ok", "ok"},
        {"50% of \xc3\xa9\n", "50%25 of %C3%A9%0A"},
        {"~\x7f", "~%7F"},
        {" ", "%20"},
        {" a b ", "%20a b%20"}, /* a field value has no space at its ends */
        {"%", "%25"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        assert_str(outr_grpc_message(arena, outr_str_from(cases[i].text)), cases[i].wire);
        outr_headers h = headers("grpc-status", "2");
        outr_grpc_status status;
        outr_headers_add(&h, OUTR_STR("grpc-message"), outr_str_from(cases[i].wire));
        outr_grpc_status_read(&status, &h, 200);
        assert_str(status.message, cases[i].text);
    }
}

static void a_message_badly_encoded_is_kept_as_it_is(void **state)
{
    (void)state;
    outr_headers h = headers("grpc-status", "5");
    outr_grpc_status status;
    outr_headers_add(&h, OUTR_STR("grpc-message"), OUTR_STR("100% sure %zz"));
    outr_grpc_status_read(&status, &h, 200);
    assert_int_equal(status.code, OUTR_NOT_FOUND);
    assert_str(status.message, "100% sure %zz");
}

static void details_travel(void **state)
{
    outr_headers h;
    outr_grpc_status status, in = {.code = OUTR_ABORTED,
                                   .message = OUTR_STR("m"),
                                   .details = outr_str_of("\0\xff\x10z", 4)};
    (void)state;
    outr_headers_init(&h, arena);
    outr_grpc_status_write(&h, &in);
    assert_str(outr_headers_get(&h, "grpc-status-details-bin"), "AP8Qeg"); /* no padding */
    outr_grpc_status_read(&status, &h, 200);
    assert_int_equal(status.code, OUTR_ABORTED);
    assert_int_equal(status.details.n, 4);
    assert_memory_equal(status.details.p, in.details.p, 4);
    outr_headers_set(&h, OUTR_STR("grpc-status-details-bin"), OUTR_STR("AP8Qeg=="));
    outr_grpc_status_read(&status, &h, 200);
    assert_int_equal(status.details.n, 4);
    outr_headers_set(&h, OUTR_STR("grpc-status-details-bin"), OUTR_STR("!"));
    outr_grpc_status_read(&status, &h, 200);
    assert_null(status.details.p);
}

static void codes_as_they_come(void **state)
{
    static const struct {
        const char *text;
        int http, code;
    } cases[] = {{"0", 200, 0},     {"16", 200, 16},  {"99", 200, 99},   {"-1", 200, 2},
                 {"x", 200, 2},     {"", 200, 2},     {"4294967296", 200, 2}, {NULL, 200, 2},
                 {NULL, 400, 13},   {NULL, 401, 16},  {NULL, 403, 7},    {NULL, 404, 12},
                 {NULL, 429, 14},   {NULL, 503, 14},  {NULL, 500, 2}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        outr_headers h = headers(cases[i].text ? "grpc-status" : NULL, cases[i].text);
        outr_grpc_status status;
        outr_grpc_status_read(&status, &h, cases[i].http);
        assert_int_equal(status.code, cases[i].code);
    }
    outr_headers h = headers(NULL, NULL);
    outr_grpc_status_write(&h, &(outr_grpc_status){.code = (outr_code)77});
    assert_str(outr_headers_get(&h, "grpc-status"), "77");
}

static void binary_metadata_padded_or_not_one_or_many(void **state)
{
    outr_str list = OUTR_STR("AAE,AAE=, /+8 ,_-8"), out;
    (void)state;
    assert_true(outr_grpc_bin_next(arena, &list, &out));
    assert_true(out.n == 2 && memcmp(out.p, "\0\1", 2) == 0);
    assert_true(outr_grpc_bin_next(arena, &list, &out));
    assert_true(out.n == 2 && memcmp(out.p, "\0\1", 2) == 0);
    for (int i = 0; i < 2; i++) {
        assert_true(outr_grpc_bin_next(arena, &list, &out));
        assert_true(out.n == 2 && memcmp(out.p, "\xff\xef", 2) == 0);
    }
    assert_null(list.p);
    list = OUTR_STR("A");
    assert_false(outr_grpc_bin_next(arena, &list, &out));
    list = OUTR_STR("");
    assert_true(outr_grpc_bin_next(arena, &list, &out));
    assert_int_equal(out.n, 0);
    assert_str(outr_grpc_bin_write(arena, outr_str_of("\0\1", 2)), "AAE");
    assert_true(outr_grpc_is_bin(OUTR_STR("grpc-trace-bin")));
    assert_false(outr_grpc_is_bin(OUTR_STR("-bin")));
    assert_false(outr_grpc_is_bin(OUTR_STR("x-binary")));
}

static void malformed_binary_metadata_is_told(void **state)
{
    outr_headers h = headers("x", "not base64!");
    outr_err err;
    (void)state;
    outr_headers_add(&h, OUTR_STR("a-bin"), OUTR_STR("AAE=,AA"));
    assert_int_equal(outr_grpc_metadata_check(&h, &err), OUTR_OK);
    outr_headers_add(&h, OUTR_STR("b-bin"), OUTR_STR("AAE, !"));
    assert_int_equal(outr_grpc_metadata_check(&h, &err), OUTR_INTERNAL);
    assert_non_null(strstr(err.text, "b-bin"));
}

static void what_is_a_grpc_call(void **state)
{
    static const struct {
        const char *method, *type;
        bool is_call;
    } cases[] = {{"POST", "application/grpc", true},        {"POST", "application/grpc+proto", true},
                 {"POST", "application/grpc;v=1", true},    {"POST", "Application/gRPC", true},
                 {"GET", "application/grpc", false},        {"POST", "application/grpc-web", false},
                 {"POST", "application/grpcfoo", false},    {"POST", "application/json", false},
                 {"POST", NULL, false}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        outr_http_request req = {.method = outr_str_from(cases[i].method)};
        req.headers = headers(cases[i].type ? "content-type" : NULL, cases[i].type);
        assert_int_equal(outr_grpc_is_call(&req), cases[i].is_call);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeouts_in_every_unit),
        cmocka_unit_test(a_timeout_of_none_is_a_deadline_that_has_passed),
        cmocka_unit_test(a_timeout_longer_than_clocks_count_is_the_longest),
        cmocka_unit_test(malformed_timeouts),
        cmocka_unit_test(timeouts_written_have_eight_digits_at_most),
        cmocka_unit_test(messages_are_percent_encoded),
        cmocka_unit_test(a_message_badly_encoded_is_kept_as_it_is),
        cmocka_unit_test(details_travel),
        cmocka_unit_test(codes_as_they_come),
        cmocka_unit_test(binary_metadata_padded_or_not_one_or_many),
        cmocka_unit_test(malformed_binary_metadata_is_told),
        cmocka_unit_test(what_is_a_grpc_call),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
