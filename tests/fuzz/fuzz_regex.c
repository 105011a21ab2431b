/* A pattern, a line end, and a text it is searched in. Whatever the pattern, making it takes bounded
 * work; a group around it changes nothing, "|" beside it at most makes it match more, and a text in
 * which something is found still has it with more behind. */
#include "base/buf.h"
#include "base/regex.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_MAX 512

enum { NO, YES, REFUSED };

static int find(const char *before, outr_str pattern, const char *after, outr_str text)
{
    OUTR_AUTO(outr_buf) whole = OUTR_BUF_MAX(OUTR_MIB);
    outr_regex *regex = NULL;
    outr_err err = {0};
    outr_buf_z(&whole, before);
    outr_buf_str(&whole, pattern);
    outr_buf_z(&whole, after);
    if (outr_regex_new(&regex, outr_buf_view(&whole), &err)) {
        PROPERTY(!regex && err.code && err.text[0]);
        return REFUSED;
    }
    int answer = outr_regex_search(regex, text) ? YES : NO;
    PROPERTY(answer == (outr_regex_search(regex, text) ? YES : NO));
    outr_regex_free(regex);
    return answer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outr_str pattern, text;
    text = outr_str_head(outr_str_cut(outr_str_of(data, size), '\n', &pattern), TEXT_MAX);
    int answer = find("", pattern, "", text);
    if (answer == REFUSED)
        return 0;
    int grouped = find("(?:", pattern, ")", text); /* may be too long, too deep or too large */
    PROPERTY(grouped == answer || grouped == REFUSED);
    int wider = find("", pattern, "|", text);
    PROPERTY(wider == YES || wider == REFUSED);
    return 0;
}
