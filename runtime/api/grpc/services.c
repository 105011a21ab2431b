#include "api/grpc/services.h"

#include "grpc/status.h"

/* "/package.Service/Method" -> its two names; false for anything else. */
static bool split(outr_str path, outr_str *service, outr_str *method)
{
    if (path.n < 2 || path.p[0] != '/')
        return false;
    *method = outr_str_cut(outr_str_skip(path, 1), '/', service);
    return service->n > 0 && method->n > 0;
}

static void on_request(void *ctx OUTR_UNUSED, outr_exchange *x)
{
    outr_str service, method;
    if (!outr_grpc_is_call(&x->req)) {
        outr_http_response head = {.status = 415, .content_length = 0};
        outr_headers_init(&head.headers, x->arena);
        outr_http_reply(x, &head, OUTR_STR_NONE);
        outr_http_done(x);
    } else if (!split(x->req.target, &service, &method)) {
        outr_grpc_refuse(x, OUTR_UNIMPLEMENTED,
                         outr_arena_printf(x->arena, "malformed method name: \"" OUTR_FMT "\"",
                                           OUTR_ARG(x->req.target)));
    } else if (outr_str_starts(service, OUTR_STR("dapr.proto.runtime.v1."))) {
        outr_grpc_refuse(x, OUTR_UNIMPLEMENTED,
                         outr_arena_printf(x->arena,
                                           "unknown method " OUTR_FMT " for service " OUTR_FMT,
                                           OUTR_ARG(method), OUTR_ARG(service)));
    } else {
        /* Any other method is a proxied call (contract/invocation.md section 7). */
        outr_grpc_refuse(
            x, OUTR_UNKNOWN,
            OUTR_STR("cannot proxy request: missing dapr-callee-app-id or dapr-app-id metadata"));
    }
}

const outr_http_handler outr_grpc_api_handler = {.on_request = on_request};
