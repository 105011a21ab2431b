#include "components/middleware.h"

outr_middleware_verdict outr_middleware_refuse(outr_middleware_call *call, int status,
                                               const char *text)
{
    call->answer_body = outr_str_from(text);
    call->answer =
        (outr_http_response){.status = status, .content_length = (int64_t)call->answer_body.n};
    outr_headers_init(&call->answer.headers, call->arena);
    outr_headers_add(&call->answer.headers, OUTR_STR("Content-Type"),
                     OUTR_STR("text/plain; charset=utf-8"));
    return OUTR_MIDDLEWARE_ANSWER;
}

void outr_middleware_open(outr_middleware *m OUTR_UNUSED, outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}
