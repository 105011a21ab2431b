#include "api/core/core.h"

outr_code outr_core_fail(outr_err *err, outr_reason reason, const char *fmt, ...)
{
    char text[OUTR_ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return outr_fail_reason(err, (outr_code)outr_reason_find(reason)->grpc_status, reason, "%s",
                            text);
}

void outr_core_end(outr_op *op, const outr_err *err)
{
    outr_code code = op->err.code;
    op->err = *err;
    if (code)
        op->err.code = code;
    outr_op_finish(op);
}

outr_kvs outr_core_merge(outr_arena *arena, outr_kvs first, outr_kvs second)
{
    if (first.count == 0)
        return second.items ? second : first;
    if (second.count == 0)
        return first;
    outr_kv *items = outr_arena_alloc(arena, (first.count + second.count) * sizeof *items);
    memcpy(items, first.items, first.count * sizeof *items);
    memcpy(items + first.count, second.items, second.count * sizeof *items);
    return (outr_kvs){items, first.count + second.count};
}
