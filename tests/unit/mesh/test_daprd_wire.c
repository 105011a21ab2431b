#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dapr/proto/internals/v1/service_invocation.pb-c.h>

#include "grpc/proto.h"
#include "mesh/daprd_wire.h"

typedef Dapr__Proto__Internals__V1__InternalInvokeRequest request;
typedef Dapr__Proto__Internals__V1__InternalInvokeResponse answer;

static void assert_text(outr_str got, const char *expected)
{
    if (!outr_str_is(got, expected))
        fail_msg("\"" OUTR_FMT "\", not \"%s\"", OUTR_ARG(got), expected);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static outr_slice taken; /* what the test looks at */

/* The next message of a body; its length prefix is checked. */
static outr_str next_message(outr_str *body)
{
    assert_true(body->n >= 5);
    const unsigned char *p = (const unsigned char *)body->p;
    size_t n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    assert_int_equal(p[0], 0);
    assert_true(body->n >= 5 + n);
    outr_str message = outr_str_of(body->p + 5, n);
    *body = outr_str_skip(*body, 5 + n);
    return message;
}

static outr_str frames(const outr_str *head, size_t n, uint64_t *seq, bool marks)
{
    static char bytes[5000];
    memset(bytes, 'x', sizeof bytes);
    outr_slice_done(&taken);
    taken = outr__daprd_frames(head, outr_str_of(bytes, n), seq, marks);
    return outr_str_of(taken.p, taken.n);
}

static void a_body_is_cut_into_pieces_that_are_counted(void **state)
{
    static const size_t sizes[] = {2048, 2048, 904};
    outr__daprd_piece piece;
    const outr_str head = OUTR_STR("head");
    uint64_t seq = 0;
    (void)state;
    outr_str body = frames(&head, 5000, &seq, false);
    for (uint64_t i = 0; i < OUTR_LEN(sizes); i++) {
        assert_true(outr__daprd_piece_read(&piece, next_message(&body)));
        assert_int_equal(piece.has_head, i == 0);
        assert_true(piece.has_payload);
        assert_int_equal(piece.data.n, sizes[i]);
        assert_int_equal(piece.seq, i);
    }
    assert_int_equal(body.n, 0);
    assert_int_equal(seq, 3);
    body = frames(NULL, 1, &seq, false);
    assert_true(outr__daprd_piece_read(&piece, next_message(&body)));
    assert_int_equal(piece.seq, 3);
}

static void a_head_goes_alone_when_there_is_no_body(void **state)
{
    outr__daprd_piece piece;
    const outr_str head = OUTR_STR("head");
    uint64_t seq = 0;
    (void)state;
    outr_str body = frames(&head, 0, &seq, false);
    assert_true(outr__daprd_piece_read(&piece, next_message(&body)));
    assert_text(piece.head, "head");
    assert_false(piece.has_payload);
    assert_int_equal(seq, 0);
}

static void pieces_of_an_event_stream_carry_an_empty_head(void **state)
{
    outr__daprd_piece piece;
    const outr_str head = OUTR_STR("head");
    uint64_t seq = 0;
    (void)state;
    outr_str body = frames(&head, 2049, &seq, true);
    assert_true(outr__daprd_piece_read(&piece, next_message(&body)));
    assert_text(piece.head, "head");
    assert_true(outr__daprd_piece_read(&piece, next_message(&body)));
    assert_true(piece.has_head);
    assert_int_equal(piece.head.n, 0);
}

static void what_is_no_message_is_told_from_what_is_unknown(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        bool is_read;
    } rows[] = {
        {"", 0, true},
        {"\x12\x04\x0a\x02"
         "ab",
         6, true},
        {"\x12\x04\x0a\x02"
         "a",
         5, false}, /* cut */
        {"\x12\x05\x0a\x02"
         "ab",
         6, false},                             /* longer than what is there */
        {"\x12\x00\x1a\x01z\x20\x05", 7, true}, /* fields 3 and 4 */
        {"\x12\x00\x12\x00", 4, false},         /* twice */
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, false},
        {"\x00\x00", 2, false},         /* field 0 */
        {"\x0b", 1, false},             /* a group */
        {"\x12\x02\x10\x80", 4, false}, /* a number without end */
        {"\x29"
         "12345678\x2d"
         "1234",
         14, true},            /* fixed ones, unknown */
        {"\x08\x05", 2, true}, /* a known number of another type */
    };
    outr__daprd_piece piece;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        if (outr__daprd_piece_read(&piece, outr_str_of(rows[i].bytes, rows[i].n)) !=
            rows[i].is_read)
            fail_msg("row %zu", i);
    }
}

/* ---- heads ----------------------------------------------------------------------------------- */

static void a_request_reads_as_it_was_written(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_headers metadata;
    outr_err err;
    outr_str bytes;
    request *got;
    (void)state;
    outr_headers_init(&metadata, arena);
    outr_headers_add(&metadata, OUTR_STR("X-One"), OUTR_STR("1"));
    outr_headers_add(&metadata, OUTR_STR("X-Empty"), OUTR_STR(""));
    outr_headers_add(&metadata, OUTR_STR("X-One"), OUTR_STR("2"));
    const outr__daprd_request said = {.metadata = &metadata,
                                      .verb = OUTR_STR("PUT"),
                                      .method = OUTR_STR("a/b c"),
                                      .query = OUTR_STR("x=1"),
                                      .content_type = OUTR_STR("text/plain")};
    assert_int_equal(outr__daprd_request_write(&bytes, arena, &said, &err), 0);
    assert_int_equal(
        outr_proto_read(&got, arena,
                        &dapr__proto__internals__v1__internal_invoke_request__descriptor, bytes,
                        &err),
        0);
    assert_int_equal(got->ver, 1);
    assert_int_equal(got->n_metadata, 2);
    assert_string_equal(got->metadata[0]->key, "X-One");
    assert_int_equal(got->metadata[0]->value->n_values, 2);
    assert_string_equal(got->metadata[0]->value->values[1], "2");
    assert_int_equal(got->metadata[1]->value->n_values, 1);
    assert_string_equal(got->message->method, "a/b c");
    assert_null(got->message->data);
    assert_string_equal(got->message->content_type, "text/plain");
    assert_int_equal(got->message->http_extension->verb, 4);
    assert_string_equal(got->message->http_extension->querystring, "x=1");
    outr_arena_free(arena);
}

static void a_unary_request_ends_with_its_body(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_headers metadata;
    outr_err err;
    outr_str start;
    request *got;
    (void)state;
    outr_headers_init(&metadata, arena);
    const outr__daprd_request said = {.metadata = &metadata,
                                      .method = OUTR_STR("m"),
                                      .type_url = OUTR_STR("t/T"),
                                      .has_data = true};
    assert_int_equal(outr__daprd_unary_start(&start, arena, &said, 4, &err), 0);
    outr_str body = outr_arena_join(arena, start, OUTR_STR("body"), OUTR_STR_NONE);
    outr_str message = next_message(&body);
    assert_int_equal(body.n, 0);
    assert_int_equal(
        outr_proto_read(&got, arena,
                        &dapr__proto__internals__v1__internal_invoke_request__descriptor, message,
                        &err),
        0);
    assert_null(got->message->http_extension);
    assert_string_equal(got->message->data->type_url, "t/T");
    assert_text(outr_proto_bytes(got->message->data->value), "body");
    outr_arena_free(arena);
}

static void text_that_is_not_utf8_cannot_be_said(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_headers metadata;
    outr_err err;
    outr_str bytes;
    (void)state;
    outr_headers_init(&metadata, arena);
    outr_headers_add(&metadata, OUTR_STR("X-Latin"), OUTR_STR("caf\xe9"));
    const outr__daprd_request said = {.metadata = &metadata, .verb = OUTR_STR("GET")};
    assert_int_equal(outr__daprd_request_write(&bytes, arena, &said, &err), OUTR_INTERNAL);
    assert_non_null(strstr(err.text, "invalid UTF-8"));
    outr_arena_free(arena);
}

static void an_answer_reads_as_it_was_written(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_headers headers;
    outr_err err;
    outr_str bytes;
    answer *got;
    (void)state;
    outr_headers_init(&headers, arena);
    outr_headers_add(&headers, OUTR_STR("X-A"), OUTR_STR("1"));
    const outr__daprd_answer said = {.status = {.code = 404, .message = OUTR_STR("no")},
                                     .headers = &headers,
                                     .has_message = true,
                                     .content_type = OUTR_STR("a/b"),
                                     .has_data = true,
                                     .data = OUTR_STR("xyz")};
    assert_int_equal(outr__daprd_answer_write(&bytes, arena, &said, &err), 0);
    assert_int_equal(
        outr_proto_read(&got, arena,
                        &dapr__proto__internals__v1__internal_invoke_response__descriptor, bytes,
                        &err),
        0);
    assert_int_equal(got->status->code, 404);
    assert_string_equal(got->status->message, "no");
    assert_int_equal(got->n_headers, 1);
    assert_string_equal(got->message->content_type, "a/b");
    assert_text(outr_proto_bytes(got->message->data->value), "xyz");
    outr_arena_free(arena);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void names_are_spelled_as_go_does(void **state)
{
    static const char *const rows[][2] = {{"content-type", "Content-Type"}, {"X-ONE", "X-One"},
                                          {"X_Under", "X_under"},           {"a", "A"},
                                          {"with space", "with space"},     {"Accept", "Accept"}};
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++)
        assert_text(outr__daprd_canonical(arena, outr_str_from(rows[i][0])), rows[i][1]);
    outr_arena_free(arena);
}

static void a_trace_has_a_binary_form(void **state)
{
    static const char text[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    outr_trace trace;
    (void)state;
    assert_true(outr_trace_parse(&trace, outr_str_from(text)));
    assert_text(outr__daprd_trace_bin(arena, &trace), "AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgE");
    outr_trace none = {0};
    assert_text(outr__daprd_trace_bin(arena, &none), "AAAAAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAAAgA");
    outr_arena_free(arena);
}

static int let_go(void **state)
{
    (void)state;
    outr_slice_done(&taken);
    taken = (outr_slice){0};
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_is_cut_into_pieces_that_are_counted),
        cmocka_unit_test(a_head_goes_alone_when_there_is_no_body),
        cmocka_unit_test(pieces_of_an_event_stream_carry_an_empty_head),
        cmocka_unit_test(what_is_no_message_is_told_from_what_is_unknown),
        cmocka_unit_test(a_request_reads_as_it_was_written),
        cmocka_unit_test(a_unary_request_ends_with_its_body),
        cmocka_unit_test(text_that_is_not_utf8_cannot_be_said),
        cmocka_unit_test(an_answer_reads_as_it_was_written),
        cmocka_unit_test(names_are_spelled_as_go_does),
        cmocka_unit_test(a_trace_has_a_binary_form),
    };
    return cmocka_run_group_tests(tests, NULL, let_go);
}
