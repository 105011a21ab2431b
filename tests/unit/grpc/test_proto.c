#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <google/protobuf/struct.pb-c.h>
#include <google/rpc/status.pb-c.h>

#include "base/buf.h"
#include "grpc/proto.h"

#define STATUS (&google__rpc__status__descriptor)
#define VALUE  (&google__protobuf__value__descriptor)

static outr_code read_as(const ProtobufCMessageDescriptor *type, outr_str bytes, size_t arena_max,
                         outr_err *err)
{
    outr_arena *arena = outr_arena_new(arena_max);
    void *message = NULL;
    outr_code rc = outr_proto_read(&message, arena, type, bytes, err);
    assert_true(rc ? !message : message != NULL);
    outr_arena_free(arena);
    return rc;
}

static void a_message_there_and_back(void **state)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    Google__Rpc__Status in = GOOGLE__RPC__STATUS__INIT, *out;
    outr_err err;
    (void)state;
    in.code = -7;
    in.message = (char *)(uintptr_t) "h\xc3\xa9llo";
    outr_str bytes = outr_proto_write(arena, &in);
    assert_int_equal(outr_proto_read(&out, arena, STATUS, bytes, &err), OUTR_OK);
    assert_int_equal(out->code, -7);
    assert_string_equal(out->message, in.message);
    outr_slice frame = outr_grpc_frame(&in), same = outr_grpc_frame_bytes(bytes);
    assert_int_equal(frame.n, bytes.n + 5);
    assert_int_equal(frame.p[4], bytes.n);
    assert_memory_equal(frame.p + 5, bytes.p, bytes.n);
    assert_true(same.n == frame.n && memcmp(same.p, frame.p, frame.n) == 0);
    outr_slice_done(&frame);
    outr_slice_done(&same);
    assert_int_equal(outr_proto_read(&out, arena, STATUS, OUTR_STR(""), &err), OUTR_OK);
    assert_int_equal(out->code, 0);
    assert_string_equal(out->message, "");
    outr_arena_free(arena);
}

static void bytes_that_are_no_message(void **state)
{
    static const struct {
        const char *p;
        size_t n;
    } cases[] = {
        {"\xff\xff\xff", 3},                              /* a tag without end */
        {"\x08", 1},                                      /* a tag without value */
        {"\x08\x80", 2},                                  /* a varint cut */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* too long a varint */
        {"\x12\x05" "abc", 5},                            /* a length past the end */
        {"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}, /* a length near 2^64 */
        {"\x00\x00", 2},                                  /* field 0 */
        {"\x0b\x0c", 2},                                  /* a group */
        {"\x0f", 1},                                      /* wire type 7 */
        {"\x0d\x00\x00", 3},                              /* 32 bits cut */
        {"\x09\x00\x00", 3},                              /* 64 bits cut */
        {"\x12\x01\xff", 3},                              /* no UTF-8 */
        {"\x12\x02" "a\0", 4},                            /* a NUL in text */
        {"\x12\x03\xed\xa0\x80", 5},                      /* a surrogate */
        {"\x1a\x03\x0a\x01\xff", 5},                      /* no UTF-8 one level down */
    };
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        if (read_as(STATUS, outr_str_of(cases[i].p, cases[i].n), OUTR_MIB, &err) != OUTR_INTERNAL)
            fail_msg("case %zu is taken", i);
    }
}

static void unknown_fields_are_passed_over(void **state)
{
    outr_err err;
    (void)state;
    assert_int_equal(read_as(STATUS, outr_str_of("\x08\x01\xf8\x07\x05\xf2\x07\x02\xff\xff", 10),
                             OUTR_MIB, &err),
                     OUTR_OK);
}

/* google.protobuf.Value inside ListValue inside Value ... */
static outr_buf nested(unsigned depth)
{
    outr_buf out = OUTR_BUF_MAX(OUTR_MIB);
    for (unsigned i = 0; i < depth; i++) {
        outr_buf next = OUTR_BUF_MAX(OUTR_MIB);
        outr_buf_char(&next, i % 2 ? '\x32' : '\x0a'); /* list_value = 6, values = 1 */
        for (size_t n = out.n; ; n >>= 7) {
            outr_buf_char(&next, (char)(unsigned char)(n < 128 ? n : (n & 127) | 128));
            if (n < 128)
                break;
        }
        outr_buf_str(&next, outr_buf_view(&out));
        outr_buf_done(&out);
        out = next;
    }
    return out;
}

static void nesting_has_an_end(void **state)
{
    outr_err err;
    (void)state;
    outr_buf fits = nested(98), deep = nested(200), deeper = nested(5000);
    assert_int_equal(read_as(VALUE, outr_buf_view(&fits), OUTR_MIB, &err), OUTR_OK);
    assert_int_equal(read_as(VALUE, outr_buf_view(&deep), OUTR_MIB, &err), OUTR_INTERNAL);
    assert_int_equal(read_as(VALUE, outr_buf_view(&deeper), OUTR_MIB, &err), OUTR_INTERNAL);
    outr_buf_done(&fits);
    outr_buf_done(&deep);
    outr_buf_done(&deeper);
}

static void what_a_message_unpacks_to_is_limited(void **state)
{
    outr_buf many = OUTR_BUF_MAX(OUTR_MIB);
    outr_err err;
    (void)state;
    for (int i = 0; i < 100000; i++) /* two bytes on the wire, a struct here */
        outr_buf_append(&many, "\x1a\x00", 2);
    assert_int_equal(read_as(STATUS, outr_buf_view(&many), OUTR_MIB, &err),
                     OUTR_RESOURCE_EXHAUSTED);
    assert_int_equal(read_as(STATUS, outr_buf_view(&many), 64 * OUTR_MIB, &err), OUTR_OK);
    outr_buf_done(&many);
}

static void fields_of_a_message_one_by_one(void **state)
{
    outr_str s = OUTR_STR("\x08\x96\x01\x12\x02hi\x1d\1\2\3\4\x21\1\2\3\4\5\6\7\10\x2a\0");
    outr_proto_field f;
    (void)state;
    assert_true(outr_proto_next(&s, &f) && f.number == 1 && f.value == 150 && !f.bytes.p);
    assert_true(outr_proto_next(&s, &f) && f.number == 2 && outr_str_is(f.bytes, "hi"));
    assert_true(outr_proto_next(&s, &f) && f.number == 3 && !f.bytes.p);
    assert_true(outr_proto_next(&s, &f) && f.number == 4 && !f.bytes.p);
    assert_true(outr_proto_next(&s, &f) && f.number == 5 && f.bytes.p && f.bytes.n == 0);
    assert_int_equal(s.n, 0);
    assert_false(outr_proto_next(&s, &f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_there_and_back),
        cmocka_unit_test(bytes_that_are_no_message),
        cmocka_unit_test(unknown_fields_are_passed_over),
        cmocka_unit_test(fields_of_a_message_one_by_one),
        cmocka_unit_test(nesting_has_an_end),
        cmocka_unit_test(what_a_message_unpacks_to_is_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
