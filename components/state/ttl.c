#include "components/state.h"

outr_code outr_state_ttl(outr_kvs metadata, int64_t *out, outr_err *err)
{
    const outr_kv *kv = outr_kvs_find(metadata, "ttlInSeconds");
    *out = 0;
    if (!kv || kv->value.n == 0)
        return OUTR_OK;
    if (!outr_str_to_i64(kv->value, -1, INT32_MAX, out))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "incorrect value for metadata 'ttlInSeconds': " OUTR_FMT,
                         OUTR_ARG(kv->value));
    return OUTR_OK;
}
