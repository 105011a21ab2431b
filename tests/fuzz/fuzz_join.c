/* Any bytes as a join token, and as a request for one: what is taken has its parts within the text,
 * and is written the same way again. */
#include "security/machine.h"
#include "tests/fuzz/property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lies_in(outr_str part, outr_str whole)
{
    return part.n > 0 && part.p >= whole.p && part.p + part.n <= whole.p + whole.n;
}

/* Whoever reads a line has its certificates looked at. */
static void look_at(outr_str pem)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_MIB);
    outr_cert_info info;
    outr_err err;
    outr_str one;
    size_t count = 0;
    for (outr_str rest = outr_cert_cut(pem, &one); one.n > 0; rest = outr_cert_cut(rest, &one)) {
        PROPERTY(one.p >= pem.p && one.p + one.n <= pem.p + pem.n);
        outr_cert_organization(&text, one);
        if (outr_cert_uri(&text, one, &err) == OUTR_OK)
            PROPERTY(!memchr(text.p, 0, text.n));
        if (outr_cert_info_read(&info, one, &err) == OUTR_OK)
            PROPERTY(info.count >= 1);
        if (++count > 8)
            break;
    }
}

static void check_ask(outr_str line)
{
    OUTR_AUTO(outr_buf) csr = {0};
    OUTR_AUTO(outr_buf) again = {0};
    OUTR_AUTO(outr_buf) written = OUTR_BUF_MAX(OUTR_MIB);
    outr_err err = {0};
    if (outr_ask_read(&csr, line, &err)) {
        PROPERTY(err.code == OUTR_INVALID_ARGUMENT);
        return;
    }
    PROPERTY(outr_ask_write(&written, outr_buf_view(&csr)));
    PROPERTY(outr_ask_read(&again, outr_buf_view(&written), &err) == OUTR_OK || csr.n > 48000);
    PROPERTY(csr.n > 48000 || outr_str_eq(outr_buf_view(&csr), outr_buf_view(&again)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OUTR_AUTO(outr_buf) text = {0};
    OUTR_AUTO(outr_buf) token = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) again = {0};
    outr_join join, same;
    outr_err err = {0};
    check_ask(outr_str_of(data, size));
    if (outr_join_read(&join, &text, outr_str_of(data, size), &err)) {
        PROPERTY(err.code == OUTR_INVALID_ARGUMENT);
        return 0;
    }
    PROPERTY(lies_in(join.issuer, outr_buf_view(&text)));
    look_at(outr_buf_view(&text));
    PROPERTY(join.key.n == 0 || lies_in(join.key, outr_buf_view(&text)));
    PROPERTY(join.before_s >= 0);
    if (!outr_join_write(&token, &join) ||
        outr_join_read(&same, &again, outr_buf_view(&token), &err))
        return 0; /* too long by then */
    PROPERTY(outr_str_eq(join.issuer, same.issuer) && outr_str_eq(join.key, same.key));
    PROPERTY(outr_str_eq(join.roots, same.roots) && join.before_s == same.before_s);
    return 0;
}
