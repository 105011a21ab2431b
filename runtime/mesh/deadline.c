#include "mesh/deadline.h"

#include "grpc/status.h"

bool outr_deadline_read(uint64_t *deadline_ns, const outr_headers *headers, uint64_t now_ns)
{
    outr_str text = outr_headers_get(headers, OUTR_DEADLINE_HEADER);
    uint64_t left_ns;
    *deadline_ns = 0;
    if (!text.p)
        return true;
    if (!outr_grpc_timeout_parse(&left_ns, text))
        return false;
    *deadline_ns = now_ns + left_ns;
    return true;
}

void outr_deadline_write(outr_headers *headers, uint64_t now_ns, uint64_t deadline_ns)
{
    uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 1;
    if (deadline_ns)
        outr_headers_set(headers, OUTR_STR(OUTR_DEADLINE_HEADER),
                         outr_grpc_timeout_write(headers->arena, left_ns));
}
