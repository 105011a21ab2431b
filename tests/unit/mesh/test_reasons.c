/* The words by which a sidecar says why it answered by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "http/issuers.h"
#include "mesh/reasons.h"

static void words_are_short_and_no_two_are_the_same(void **state)
{
    (void)state;
    for (outr_why why = 1; why < OUTR_WHY_COUNT; why++) {
        const char *word = outr_why_word(why);
        assert_true(strlen(word) > 2 && strlen(word) < 24);
        assert_int_equal(strspn(word, "abcdefghijklmnopqrstuvwxyz_"), strlen(word));
        assert_int_equal(outr_why_find(outr_str_from(word)), why);
        assert_true(strlen(outr_why_text(why)) > 0);
        assert_true(outr_why_status(why) == 0 || outr_why_status(why) >= 400);
    }
    assert_int_equal(outr_why_find(OUTR_STR("")), OUTR_WHY_NONE);
    assert_int_equal(outr_why_find(OUTR_STR("nonsense")), OUTR_WHY_NONE);
    assert_string_equal(outr_why_word(OUTR_WHY_NONE), "");
    assert_string_equal(outr_why_word(OUTR_WHY_COUNT), "");
}

static void each_reason_of_a_refused_token_has_its_row(void **state)
{
    static const char *const words[] = {
        OUTR_JWT_MISSING, OUTR_JWT_NO_KEYS,   OUTR_JWT_MALFORMED, OUTR_JWT_TOO_LARGE,
        OUTR_JWT_KEY,     OUTR_JWT_SIGNATURE, OUTR_JWT_EXPIRED,   OUTR_JWT_NOT_YET,
        OUTR_JWT_ISSUER,  OUTR_JWT_AUDIENCE,  OUTR_JWT_CLAIMS,    OUTR_JWT_ALGORITHM};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(words); i++)
        assert_true(outr_why_is_about_caller(outr_why_find(outr_str_from(words[i]))));
}

static void every_error_has_a_word(void **state)
{
    outr_err err;
    (void)state;
    for (int code = OUTR_CANCELLED; code <= OUTR_UNAUTHENTICATED; code++) {
        outr_fail(&err, (outr_code)code, "it failed");
        assert_int_not_equal(outr_why_of(&err), OUTR_WHY_NONE);
    }
    outr_fail(&err, OUTR_UNAVAILABLE, "no room");
    assert_int_equal(outr_mark(&err, OUTR_WHY_BULKHEAD_FULL), OUTR_UNAVAILABLE);
    outr_wrap(&err, "callee");
    assert_int_equal(outr_why_of(&err), OUTR_WHY_BULKHEAD_FULL);
    outr_fail(&err, OUTR_UNAVAILABLE, "something else");
    assert_int_equal(outr_why_of(&err), OUTR_WHY_CONNECT_FAILED);
}

static void the_manual_has_the_same_table(void **state)
{
    static char text[512 * OUTR_KIB];
    outr_str manual;
    (void)state;
    FILE *file = fopen(OUTR_SOURCE_DIR "/README.md", "r");
    assert_non_null(file);
    manual = outr_str_of(text, fread(text, 1, sizeof text, file));
    fclose(file);
    for (outr_why why = 1; why < OUTR_WHY_COUNT; why++) {
        char row[256];
        snprintf(row, sizeof row, "| `%s` | %s | %s |\n", outr_why_word(why),
                 outr_why_is_about_caller(why) ? "yes" : "", outr_why_text(why));
        if (outr_str_search(manual, outr_str_from(row)) < 0)
            fail_msg("README lacks: %s", row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_short_and_no_two_are_the_same),
        cmocka_unit_test(each_reason_of_a_refused_token_has_its_row),
        cmocka_unit_test(every_error_has_a_word),
        cmocka_unit_test(the_manual_has_the_same_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
