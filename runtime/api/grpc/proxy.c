#include "api/grpc/grpc_api.h"

/* Any method that is not ours goes to the app that the metadata names, as raw frames
 * (contract/invocation.md section 7). */

static void on_failed(outr_invoke *invoke, const outr_err *err)
{
    /* Dapr says UNKNOWN of a name it cannot make sense of, and of an open breaker. */
    bool is_unknown = (err->code == OUTR_NOT_FOUND || err->code == OUTR_INVALID_ARGUMENT ||
                       (err->code == OUTR_UNAVAILABLE && invoke->is_of_policy)) &&
                      invoke->status == 0;
    const char *text =
        err->code == OUTR_DEADLINE_EXCEEDED ? "context deadline exceeded" : err->text;
    invoke->x->on_gone = NULL;
    invoke->grpc_code = is_unknown ? OUTR_UNKNOWN : err->code;
    outr_grpc_refuse_status(
        invoke->x, &(outr_grpc_status){.code = invoke->grpc_code,
                                       .message = outr_str_from(text),
                                       .reason = outr_str_from(outr_why_word(invoke->why)),
                                       .after_ns = invoke->after_ns});
}

/* Before it is anybody's call. */
static void refuse(outr_api *api, outr_exchange *x, outr_code code, outr_why why, outr_str target,
                   const char *text)
{
    outr_mesh_tell_local(api->mesh, why, target, text);
    outr_grpc_refuse_status(x, &(outr_grpc_status){.code = code,
                                                   .message = outr_str_from(text),
                                                   .reason = outr_str_from(outr_why_word(why))});
}

static void on_done(outr_invoke *invoke, const outr_err *err OUTR_UNUSED)
{
    outr_http_done(invoke->x);
}

void outr_rpc_proxy(outr_api *api, outr_exchange *x)
{
    const outr_headers *headers = &x->req.headers;
    outr_str target = outr_headers_get(headers, "dapr-callee-app-id");
    outr_trace parent;
    if (!target.p)
        target = outr_headers_get(headers, "dapr-app-id");
    if (!target.p) {
        bool is_daprs = outr_str_starts(x->req.target, OUTR_STR("/dapr.proto.runtime.v1."));
        refuse(api, x, OUTR_UNKNOWN, OUTR_WHY_NO_TARGET, OUTR_STR_NONE,
               is_daprs ? "failed to proxy request: required metadata dapr-callee-app-id or "
                          "dapr-app-id not found"
                        : OUTR_RPC_NO_TARGET);
        return;
    }
    outr_invoke *invoke = outr_arena_alloc(x->arena, sizeof *invoke);
    *invoke = (outr_invoke){.x = x,
                            .target = target,
                            .method = x->req.target,
                            .is_proxied = true,
                            .on_failed = on_failed,
                            .on_done = on_done};
    uint64_t timeout_ns;
    if (!outr_grpc_timeout_read(&timeout_ns, headers)) {
        refuse(api, x, OUTR_INTERNAL, OUTR_WHY_BAD_REQUEST, target, "malformed grpc-timeout");
        return;
    }
    if (timeout_ns)
        invoke->deadline_ns = outr_loop_now(api->loop) + timeout_ns;
    outr_trace_read(&parent, headers);
    outr_trace_start(&invoke->trace, &parent, &api->trace, outr_loop_rand(api->loop));
    outr_mesh_invoke(api->mesh, invoke);
}
