#include "base/reason.h"

#include "base/err.h"

static const outr_reason_info infos[OUTR_REASON_COUNT] = {
    [OUTR_REASON_NONE] = {"NONE", "ERROR", 500, OUTR_UNKNOWN, "ERROR", "common"},
#define X(name, code, http, grpc, rich, category)                                                  \
    [OUTR_REASON_##name] = {#name, code, http, OUTR_##grpc, rich, category},
    OUTR_REASONS(X)
#undef X
};

const outr_reason_info *outr_reason_find(outr_reason reason)
{
    return &infos[(unsigned)reason < OUTR_REASON_COUNT ? reason : OUTR_REASON_NONE];
}
