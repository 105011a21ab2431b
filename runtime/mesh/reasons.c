#include "mesh/reasons.h"

static const struct {
    const char *word, *text;
    bool is_about_caller;
    int status;
} rows[OUTR_WHY_COUNT] = {
    [OUTR_WHY_NONE] = {"", "", false, 0},
#define X(name, word, is_about_caller, status, text)                                               \
    [OUTR_WHY_##name] = {word, text, (is_about_caller) != 0, status},
    OUTR_WHYS(X)
#undef X
};

static unsigned row_of(outr_why why)
{
    return (unsigned)why < OUTR_WHY_COUNT ? (unsigned)why : OUTR_WHY_NONE;
}

const char *outr_why_word(outr_why why)
{
    return rows[row_of(why)].word;
}

const char *outr_why_text(outr_why why)
{
    return rows[row_of(why)].text;
}

bool outr_why_is_about_caller(outr_why why)
{
    return rows[row_of(why)].is_about_caller;
}

int outr_why_status(outr_why why)
{
    return rows[row_of(why)].status;
}

outr_why outr_why_find(outr_str word)
{
    for (unsigned i = 1; word.n > 0 && i < OUTR_WHY_COUNT; i++) {
        if (outr_str_is(word, rows[i].word))
            return (outr_why)i;
    }
    return OUTR_WHY_NONE;
}

outr_why outr_why_of(const outr_err *err)
{
    if (err->why > OUTR_WHY_NONE && err->why < OUTR_WHY_COUNT)
        return (outr_why)err->why;
    switch (err->code) {
    case OUTR_INVALID_ARGUMENT:
    case OUTR_UNIMPLEMENTED:
        return OUTR_WHY_BAD_REQUEST;
    case OUTR_NOT_FOUND:
        return OUTR_WHY_NO_INSTANCE;
    case OUTR_DEADLINE_EXCEEDED:
        return OUTR_WHY_DEADLINE;
    case OUTR_RESOURCE_EXHAUSTED:
        return OUTR_WHY_BODY_TOO_LARGE;
    case OUTR_UNAVAILABLE:
        return OUTR_WHY_CONNECT_FAILED;
    default:
        return OUTR_WHY_INTERNAL;
    }
}
