#include "mesh/classify.h"

outr_class outr_classify_http(int status)
{
    if (status == 429)
        return OUTR_CLASS_LOAD;
    return status >= 500 && status != 501 ? OUTR_CLASS_FAILURE : OUTR_CLASS_GOOD;
}

outr_class outr_classify_grpc(int code)
{
    switch (code) {
    case OUTR_RESOURCE_EXHAUSTED:
        return OUTR_CLASS_LOAD;
    case OUTR_UNKNOWN:
    case OUTR_DEADLINE_EXCEEDED:
    case OUTR_INTERNAL:
    case OUTR_UNAVAILABLE:
    case OUTR_DATA_LOSS:
        return OUTR_CLASS_FAILURE;
    default:
        return OUTR_CLASS_GOOD;
    }
}

outr_class outr_classify_error(outr_code code)
{
    return code == OUTR_CANCELLED ? OUTR_CLASS_GOOD : outr_classify_grpc((int)code);
}

bool outr_classify_is_passing(int status)
{
    return status == 502 || status == 503 || status == 504;
}
