#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "http/h1_body.h"

/* Decodes text in pieces of n bytes; the payload in out, the result returned, *taken of text used. */
static outr__h1_body_result decode(outr__h1_body_kind kind, uint64_t length, const char *text,
                                   size_t piece, outr_buf *out, outr_buf *trailers, size_t *taken)
{
    outr__h1_body b;
    outr__h1_body_result result = OUTR__BODY_MORE;
    const char *p = text, *end = text + strlen(text);
    outr__h1_body_init(&b, kind, length, 64);
    do {
        const char *stop = OUTR_MIN(p + piece, end);
        outr_str got;
        while ((result = outr__h1_body_take(&b, &p, stop, &got)) == OUTR__BODY_DATA)
            outr_buf_str(out, got);
    } while (result == OUTR__BODY_MORE && p < end);
    outr_buf_str(trailers, outr_buf_view(&b.trailers));
    *taken = (size_t)(p - text);
    outr__h1_body_done(&b);
    return result;
}

static void check(outr__h1_body_kind kind, uint64_t length, const char *text,
                  outr__h1_body_result result, const char *payload, const char *rest)
{
    for (size_t piece = 1; piece <= strlen(text) + 1; piece++) {
        OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
        OUTR_AUTO(outr_buf) trailers = OUTR_BUF_MAX(OUTR_MIB);
        size_t taken;
        assert_int_equal(decode(kind, length, text, piece, &out, &trailers, &taken), result);
        if (payload)
            assert_true(outr_str_is(outr_buf_view(&out), payload));
        if (rest)
            assert_string_equal(text + taken, rest);
    }
}

static void a_length_ends_where_it_says(void **state)
{
    (void)state;
    check(OUTR__BODY_LENGTH, 5, "hellomore", OUTR__BODY_END, "hello", "more");
    check(OUTR__BODY_LENGTH, 0, "more", OUTR__BODY_END, "", "more");
    check(OUTR__BODY_LENGTH, 6, "hello", OUTR__BODY_MORE, "hello", "");
}

static void the_end_of_the_connection_is_not_ours_to_see(void **state)
{
    (void)state;
    check(OUTR__BODY_TO_CLOSE, 0, "all of it", OUTR__BODY_MORE, "all of it", "");
}

static void chunks(void **state)
{
    (void)state;
    check(OUTR__BODY_CHUNKED, 0, "5\r\nhello\r\n0\r\n\r\nmore", OUTR__BODY_END, "hello", "more");
    check(OUTR__BODY_CHUNKED, 0, "5\r\nhello\r\n00A ; x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
          OUTR__BODY_END, "hello0123456789", "");
    check(OUTR__BODY_CHUNKED, 0, "0\r\n\r\n", OUTR__BODY_END, "", "");
    check(OUTR__BODY_CHUNKED, 0, "5\r\nhel", OUTR__BODY_MORE, "hel", "");
    check(OUTR__BODY_CHUNKED, 0, "5\r\nhello\r\n0\r\n", OUTR__BODY_MORE, "hello", "");
}

static void pitfall_37_chunks_that_are_none(void **state)
{
    const char *const texts[] = {
        "ZZ\r\n",
        "-1\r\n",
        "+1\r\n",
        " 1\r\n",
        "\r\n",
        "0x5\r\n",
        "5\nhello\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloXY",
        "5\r\nhello\rX",
        "1000000000000000\r\n",
        "5;a\nb\r\n",
        "5;\x01\r\n",
        "5\r\rhello",
        "0\r\n\n",
        "0\r\nX: y\n\n",
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(texts); i++)
        check(OUTR__BODY_CHUNKED, 0, texts[i], OUTR__BODY_BAD, NULL, NULL);
}

static void trailers_are_kept_whole_and_bounded(void **state)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) trailers = OUTR_BUF_MAX(OUTR_MIB);
    size_t taken;
    (void)state;
    assert_int_equal(
        decode(OUTR__BODY_CHUNKED, 0, "0\r\nA: b\r\nC: d\r\n\r\n", 3, &out, &trailers, &taken),
        OUTR__BODY_END);
    assert_true(outr_str_is(outr_buf_view(&trailers), "A: b\r\nC: d\r\n\r\n"));
    check(OUTR__BODY_CHUNKED, 0,
          "0\r\nA: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n\r\n",
          OUTR__BODY_TOO_LARGE, NULL, NULL);
}

static void extensions_cannot_outweigh_the_payload(void **state)
{
    outr__h1_body b;
    char chunk[1024];
    outr__h1_body_result result = OUTR__BODY_MORE;
    int n = snprintf(chunk, sizeof chunk, "1;%0900d\r\nx\r\n", 0);
    (void)state;
    outr__h1_body_init(&b, OUTR__BODY_CHUNKED, 0, 64);
    int sent = 0;
    for (; sent < 1000 && result != OUTR__BODY_BAD; sent++) {
        const char *p = chunk;
        outr_str got;
        while ((result = outr__h1_body_take(&b, &p, chunk + n, &got)) == OUTR__BODY_DATA)
            ;
    }
    assert_int_equal(result, OUTR__BODY_BAD);
    assert_true(sent < 100);
    outr__h1_body_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_length_ends_where_it_says),
        cmocka_unit_test(the_end_of_the_connection_is_not_ours_to_see),
        cmocka_unit_test(chunks),
        cmocka_unit_test(pitfall_37_chunks_that_are_none),
        cmocka_unit_test(trailers_are_kept_whole_and_bounded),
        cmocka_unit_test(extensions_cannot_outweigh_the_payload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
