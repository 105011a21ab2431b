/* Any bytes as a join token: what is taken has its parts within the text, and is written the same
 * way again. */
#include "security/machine.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lies_in(outr_str part, outr_str whole)
{
    return part.n > 0 && part.p >= whole.p && part.p + part.n <= whole.p + whole.n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OUTR_AUTO(outr_buf) text = {0};
    OUTR_AUTO(outr_buf) token = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) again = {0};
    outr_join join, same;
    outr_err err = {0};
    if (outr_join_read(&join, &text, outr_str_of(data, size), &err)) {
        PROPERTY(err.code == OUTR_INVALID_ARGUMENT);
        return 0;
    }
    PROPERTY(lies_in(join.issuer, outr_buf_view(&text)) && lies_in(join.key, outr_buf_view(&text)));
    PROPERTY(join.before_s >= 0);
    if (!outr_join_write(&token, &join) ||
        outr_join_read(&same, &again, outr_buf_view(&token), &err))
        return 0; /* too long by then */
    PROPERTY(outr_str_eq(join.issuer, same.issuer) && outr_str_eq(join.key, same.key));
    PROPERTY(outr_str_eq(join.roots, same.roots) && join.before_s == same.before_s);
    return 0;
}
