#include "config/codes.h"

/* "500" or "500-599". */
static bool read_range(outr_str item, int64_t *low, int64_t *high)
{
    outr_str first, second = outr_str_cut(item, '-', &first);
    bool is_range = first.n < item.n;
    if (!outr_str_to_i64(first, 0, INT32_MAX, low))
        return false;
    *high = *low;
    return !is_range || outr_str_to_i64(second, 0, INT32_MAX, high);
}

outr_code outr_codes_check(outr_str set, int min, int max, outr_err *err)
{
    int64_t low, high;
    while (set.n > 0) {
        outr_str item;
        set = outr_str_cut(set, ',', &item);
        if (item.n == 0)
            continue;
        if (!read_range(item, &low, &high))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "\"" OUTR_FMT "\" is no code and no range of codes",
                             OUTR_ARG(outr_str_head(item, 64)));
        if (low < min || high > max || low > high)
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "\"" OUTR_FMT "\" is not within %d to %d",
                             OUTR_ARG(outr_str_head(item, 64)), min, max);
    }
    return OUTR_OK;
}

bool outr_codes_has(outr_str set, int code)
{
    int64_t low, high;
    if (set.n == 0)
        return true;
    while (set.n > 0) {
        outr_str item;
        set = outr_str_cut(set, ',', &item);
        if (item.n > 0 && read_range(item, &low, &high) && low <= code && code <= high)
            return true;
    }
    return false;
}
