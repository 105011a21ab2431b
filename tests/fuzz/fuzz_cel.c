/* An expression, a line end, and a JSON value it is tested on. Compiling and testing have no memory
 * of each other; brackets change nothing, "!" turns the answer round; what expression and value can
 * make us use has an end. */
#include "base/cel.h"
#include "tests/fuzz/property.h"

#define ARENA_MAX (2 * OUTR_MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NO, YES, FAILED, TOO_COMPLEX };

static int test(outr_str text, const outr_json *value)
{
    outr_arena *code = outr_arena_new(ARENA_MAX), *work = outr_arena_new(ARENA_MAX);
    outr_cel *cel = NULL;
    outr_err err = {0};
    bool first = false, second = false;
    int answer = TOO_COMPLEX;
    if (outr_cel_compile(&cel, code, text, &err) == OUTR_OK) {
        outr_code rc = outr_cel_test(cel, work, "event", value, &first, &err);
        PROPERTY(rc == OUTR_OK || rc == OUTR_INVALID_ARGUMENT);
        PROPERTY(rc == OUTR_OK || err.code == rc);
        answer = rc ? FAILED : first ? YES : NO;
        outr_arena_reset(work);
        PROPERTY(outr_cel_test(cel, work, "event", value, &second, &err) == rc);
        PROPERTY(first == second);
    } else {
        PROPERTY(cel == NULL && err.code == OUTR_INVALID_ARGUMENT && err.text[0]);
    }
    PROPERTY(outr_arena_used(code) <= ARENA_MAX && outr_arena_used(work) <= ARENA_MAX);
    outr_arena_free(code);
    outr_arena_free(work);
    return answer;
}

static int test_within(const char *before, outr_str text, const char *after, const outr_json *value)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUTR_MIB);
    outr_buf_z(&out, before);
    outr_buf_str(&out, text);
    outr_buf_z(&out, after);
    return test(outr_buf_view(&out), value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_arena *arena = outr_arena_new(4 * OUTR_MIB);
    outr_str text, rest = outr_str_cut(outr_str_of(data, size), '\n', &text);
    outr_json *value;
    outr_err err;
    if (text.n > 4096 || outr_json_parse(&value, arena, rest, &err))
        value = outr_json_new(arena, OUTR_JSON_NULL);
    if (text.n <= 4096) {
        int answer = test(text, value);
        if (answer != TOO_COMPLEX) {
            int same = test_within("(", text, ")", value);
            int negated = test_within("!(", text, ")", value);
            int with_true = test_within("true && (", text, ")", value);
            PROPERTY(same == answer || same == TOO_COMPLEX);
            PROPERTY(negated == TOO_COMPLEX || negated == (answer == FAILED ? FAILED : !answer));
            PROPERTY(with_true == TOO_COMPLEX || with_true == answer);
        }
    }
    outr_arena_free(arena);
    return 0;
}
