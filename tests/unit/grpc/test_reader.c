#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <zlib.h>

#include "grpc/proto.h"
#include "grpc/reader.h"

#define MAX_BYTES 1000

/* A body pushed by hand into a reader. */
typedef struct rig {
    outr_grpc_reader reader;
    outr_source source;
    outr_buf got; /* messages, each followed by "|" */
    unsigned messages, ends, cancels, resumes;
    unsigned pause_after; /* messages, each time; 0: never */
    bool cancels_at_first;
    outr_err err;
} rig;

static rig *of(outr_grpc_reader *reader)
{
    return OUTR_CONTAINER(reader, rig, reader);
}

static bool on_message(outr_grpc_reader *reader, outr_str message)
{
    rig *r = of(reader);
    outr_buf_str(&r->got, message);
    outr_buf_char(&r->got, '|');
    r->messages++;
    if (r->cancels_at_first)
        outr_grpc_reader_cancel(reader);
    return !r->pause_after || r->messages % r->pause_after != 0;
}

static void on_end(outr_grpc_reader *reader, const outr_headers *trailers, const outr_err *err)
{
    rig *r = of(reader);
    (void)trailers;
    r->ends++;
    if (err)
        r->err = *err;
}

static void source_start(outr_source *source)
{
    (void)source;
}

static void source_resume(outr_source *source)
{
    OUTR_CONTAINER(source, rig, source)->resumes++;
}

static void source_cancel(outr_source *source, const outr_err *err)
{
    (void)err;
    OUTR_CONTAINER(source, rig, source)->cancels++;
}

static const outr_source_ops source_ops = {source_start, source_resume, source_cancel};

static rig *open_rig(const char *encoding)
{
    rig *r = outr_alloc(sizeof *r);
    r->got = OUTR_BUF_MAX(64 * OUTR_KIB);
    r->source.ops = &source_ops;
    r->reader = (outr_grpc_reader){.max_bytes = MAX_BYTES,
                                   .encoding = outr_str_from(encoding),
                                   .on_message = on_message,
                                   .on_end = on_end};
    outr_grpc_reader_start(&r->reader, &r->source);
    return r;
}

static bool feed(rig *r, outr_str bytes)
{
    outr_sink *sink = r->source.sink;
    return !sink || sink->ops->data(sink, outr_slice_copy(bytes));
}

static void end(rig *r)
{
    outr_sink *sink = r->source.sink;
    if (sink) {
        r->source.sink = NULL;
        sink->ops->end(sink, NULL);
    }
}

static void close_rig(rig *r)
{
    assert_true(r->ends <= 1);
    outr_grpc_reader_cancel(&r->reader);
    outr_buf_done(&r->got);
    free(r);
}

static outr_buf frame_of(int flag, outr_str message)
{
    outr_buf b = OUTR_BUF_MAX(64 * OUTR_MIB);
    for (int i = 0; i < 5; i++)
        outr_buf_char(&b, (char)(unsigned char)(i == 0 ? (size_t)flag : message.n >> (32 - 8 * i)));
    outr_buf_str(&b, message);
    return b;
}

static outr_buf gzip(outr_str plain)
{
    outr_buf b = OUTR_BUF_MAX(64 * OUTR_MIB);
    z_stream z = {.next_in = (unsigned char *)(uintptr_t)plain.p, .avail_in = (unsigned)plain.n};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 9, Z_DEFAULT_STRATEGY), Z_OK);
    size_t room = deflateBound(&z, plain.n) + 32;
    z.next_out = (unsigned char *)outr_buf_reserve(&b, room);
    z.avail_out = (unsigned)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    b.n = z.total_out;
    deflateEnd(&z);
    return b;
}

static void assert_got(const rig *r, const char *text)
{
    if (!outr_str_is(outr_buf_view(&r->got), text))
        fail_msg("got \"" OUTR_FMT "\", not \"%s\"", OUTR_ARG(outr_buf_view(&r->got)), text);
}

static void messages_whatever_pieces_they_come_in(void **state)
{
    static const char body[] = "\0\0\0\0\3abc\0\0\0\0\0\0\0\0\0\5defgh";
    (void)state;
    for (size_t piece = 1; piece <= sizeof body; piece++) {
        rig *r = open_rig("");
        for (size_t at = 0; at < sizeof body - 1; at += piece)
            assert_true(feed(r, outr_str_of(body + at, OUTR_MIN(piece, sizeof body - 1 - at))));
        end(r);
        assert_got(r, "abc||defgh|");
        assert_int_equal(r->ends, 1);
        assert_int_equal(r->err.code, OUTR_OK);
        close_rig(r);
    }
}

static void a_paused_reader_holds_what_comes_and_goes_on(void **state)
{
    static const char body[] = "\0\0\0\0\1a\0\0\0\0\1b\0\0\0\0\0\0\0\0\0\1c";
    (void)state;
    for (size_t piece = 1; piece <= sizeof body; piece++) {
        rig *r = open_rig("");
        bool is_full = false;
        r->pause_after = 1;
        for (size_t at = 0; at < sizeof body - 1; at += piece) {
            is_full = !feed(r, outr_str_of(body + at, OUTR_MIN(piece, sizeof body - 1 - at)));
            if (is_full && at % 2)
                outr_grpc_reader_resume(&r->reader);
        }
        for (int i = 0; i < 5; i++)
            outr_grpc_reader_resume(&r->reader);
        assert_true(r->resumes > 0);
        end(r);
        assert_got(r, "a|b||c|");
        assert_int_equal(r->err.code, OUTR_OK);
        close_rig(r);
    }
}

static void a_body_that_ends_inside_a_message(void **state)
{
    static const struct {
        const char *p;
        size_t n;
    } bodies[] = {{"\0", 1}, {"\0\0\0\0", 4}, {"\0\0\0\0\1", 5}, {"\0\0\0\0\2a", 6}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bodies); i++) {
        rig *r = open_rig("");
        feed(r, outr_str_of(bodies[i].p, bodies[i].n));
        end(r);
        assert_int_equal(r->err.code, OUTR_INTERNAL);
        assert_int_equal(r->messages, 0);
        close_rig(r);
    }
}

static void a_message_over_the_limit_is_refused_by_its_prefix(void **state)
{
    rig *r = open_rig("");
    (void)state;
    feed(r, OUTR_STR("\0\0\0\3\350")); /* 1000: fits */
    assert_int_equal(r->ends, 0);
    close_rig(r);
    r = open_rig("");
    feed(r, outr_str_of("\0\377\377\377\377", 5));
    assert_int_equal(r->err.code, OUTR_RESOURCE_EXHAUSTED);
    assert_string_equal(r->err.text,
                        "grpc: received message larger than max (4294967295 vs. 1000)");
    assert_int_equal(r->cancels, 1);
    close_rig(r);
}

static void flags_that_are_wrong(void **state)
{
    static const struct {
        int flag;
        const char *encoding;
        int code;
    } cases[] = {{2, "", OUTR_INTERNAL},      {255, "gzip", OUTR_INTERNAL},
                 {1, "", OUTR_INTERNAL},      {1, "identity", OUTR_INTERNAL},
                 {1, "br", OUTR_UNIMPLEMENTED}, {1, "gzip", OUTR_INTERNAL}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        rig *r = open_rig(cases[i].encoding);
        outr_buf frame = frame_of(cases[i].flag, OUTR_STR("no gzip"));
        feed(r, outr_buf_view(&frame));
        assert_int_equal(r->err.code, cases[i].code);
        assert_int_equal(r->messages, 0);
        outr_buf_done(&frame);
        close_rig(r);
    }
}

static void gzip_is_a_matter_of_each_message(void **state)
{
    outr_buf packed = gzip(OUTR_STR("packed")), nothing = gzip(OUTR_STR(""));
    outr_buf body = frame_of(1, outr_buf_view(&packed));
    outr_buf more[] = {frame_of(0, OUTR_STR("plain")), frame_of(1, outr_buf_view(&nothing))};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(more); i++) {
        outr_buf_str(&body, outr_buf_view(&more[i]));
        outr_buf_done(&more[i]);
    }
    for (size_t piece = 1; piece <= body.n; piece += 7) {
        rig *r = open_rig("gzip");
        for (size_t at = 0; at < body.n; at += piece)
            assert_true(feed(r, outr_str_of(body.p + at, OUTR_MIN(piece, body.n - at))));
        end(r);
        assert_got(r, "packed|plain||");
        close_rig(r);
    }
    outr_buf_done(&body);
    outr_buf_done(&packed);
    outr_buf_done(&nothing);
}

static void what_a_gzip_message_unpacks_to_is_limited(void **state)
{
    static char zeros[64 * 1024];
    static const struct {
        size_t n;
        int code;
    } cases[] = {{MAX_BYTES - 1, 0},
                 {MAX_BYTES, 0},
                 {MAX_BYTES + 1, OUTR_RESOURCE_EXHAUSTED},
                 {sizeof zeros, OUTR_RESOURCE_EXHAUSTED}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        outr_buf packed = gzip(outr_str_of(zeros, cases[i].n));
        outr_buf frame = frame_of(1, outr_buf_view(&packed));
        rig *r = open_rig("gzip");
        assert_true(packed.n < MAX_BYTES);
        feed(r, outr_buf_view(&frame));
        assert_int_equal(r->err.code, cases[i].code);
        assert_int_equal(r->messages, cases[i].code ? 0 : 1);
        close_rig(r);
        outr_buf_done(&frame);
        outr_buf_done(&packed);
    }
}

static void a_gzip_message_cut_short(void **state)
{
    outr_buf packed = gzip(OUTR_STR("some text to pack"));
    (void)state;
    for (size_t n = 0; n < packed.n; n++) {
        outr_buf frame = frame_of(1, outr_str_of(packed.p, n));
        rig *r = open_rig("gzip");
        feed(r, outr_buf_view(&frame));
        assert_int_equal(r->err.code, OUTR_INTERNAL);
        close_rig(r);
        outr_buf_done(&frame);
    }
    outr_buf_done(&packed);
}

static void cancelled_from_within_a_message(void **state)
{
    rig *r = open_rig("");
    (void)state;
    r->cancels_at_first = true;
    feed(r, outr_str_of("\0\0\0\0\1a\0\0\0\0\1b", 12));
    assert_got(r, "a|");
    assert_int_equal(r->ends, 0);
    assert_int_equal(r->cancels, 1);
    close_rig(r);
}

static void no_body_is_an_empty_one(void **state)
{
    rig *r = outr_alloc(sizeof *r);
    (void)state;
    r->reader = (outr_grpc_reader){.max_bytes = 1, .on_message = on_message, .on_end = on_end};
    outr_grpc_reader_start(&r->reader, NULL);
    assert_int_equal(r->ends, 1);
    assert_int_equal(r->err.code, OUTR_OK);
    close_rig(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_whatever_pieces_they_come_in),
        cmocka_unit_test(a_paused_reader_holds_what_comes_and_goes_on),
        cmocka_unit_test(a_body_that_ends_inside_a_message),
        cmocka_unit_test(a_message_over_the_limit_is_refused_by_its_prefix),
        cmocka_unit_test(flags_that_are_wrong),
        cmocka_unit_test(gzip_is_a_matter_of_each_message),
        cmocka_unit_test(what_a_gzip_message_unpacks_to_is_limited),
        cmocka_unit_test(a_gzip_message_cut_short),
        cmocka_unit_test(cancelled_from_within_a_message),
        cmocka_unit_test(no_body_is_an_empty_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
