#include "grpc/status.h"

#include "base/encode.h"

bool outr_grpc_is_call(const outr_http_request *req)
{
    outr_str type = outr_headers_get(&req->headers, "content-type");
    outr_str rest = outr_str_skip(type, sizeof "application/grpc" - 1);
    return outr_str_is(req->method, "POST") &&
           outr_str_istarts(type, OUTR_STR("application/grpc")) &&
           (rest.n == 0 || rest.p[0] == '+' || rest.p[0] == ';');
}

outr_str outr_grpc_message(outr_arena *arena, outr_str text)
{
    return outr_percent_encode(arena, text, " !\"#$&'()*+,/:;<=>?@[\\]^`{|}");
}

void outr_grpc_refuse(outr_exchange *x, outr_code code, outr_str text)
{
    outr_http_response head = {.status = 200, .content_length = 0};
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_add(&head.headers, OUTR_STR("grpc-status"),
                     outr_arena_printf(x->arena, "%d", (int)code));
    outr_headers_add(&head.headers, OUTR_STR("grpc-message"), outr_grpc_message(x->arena, text));
    outr_http_reply(x, &head, OUTR_STR_NONE);
    outr_http_done(x);
}
