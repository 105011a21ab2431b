#include "api/spans.h"

#include <dapr/proto/runtime/v1/invoke.pb-c.h>

#include "api/grpc/grpc_api.h"
#include "observe/span.h"

/* Blocks that Dapr describes as data bases. */
static const char *const stores[] = {"state", "secrets", "bindings"};

static bool is_store(const char *group)
{
    for (size_t i = 0; i < OUTR_LEN(stores); i++) {
        if (strcmp(group, stores[i]) == 0)
            return true;
    }
    return false;
}

static void add_store(outr_span *span, const char *group, outr_str name, outr_str statement)
{
    outr_span_add(span, "db.system", outr_str_from(group));
    outr_span_add(span, "db.connection_string", outr_str_from(group));
    outr_span_add(span, "db.name", name);
    outr_span_add(span, "db.statement", statement);
}

static void add_invocation(outr_span *span, outr_str target)
{
    outr_span_add(span, "rpc.service", OUTR_STR("ServiceInvocation"));
    outr_span_add(span, "net.peer.name", target);
}

static void add_why(outr_span *span, outr_why why)
{
    if (why)
        outr_span_add(span, "outrigger.reason", outr_str_from(outr_why_word(why)));
}

static outr_str invocation_name(outr_arena *arena, outr_str target, outr_str method)
{
    outr_str head = outr_arena_join(arena, OUTR_STR("CallLocal/"), target, OUTR_STR("/"));
    return outr_arena_join(arena, head, method, OUTR_STR_NONE);
}

/* ---- HTTP ------------------------------------------------------------------------------------ */

void outr_api_span_http(const outr_api_request *r, bool is_broken)
{
    const outr_exchange *x = r->x;
    const outr_invoke *invoke = x->invoke;
    char status[20];
    if (!outr_span_is_wanted(&r->api->trace, &r->trace) ||
        (r->route && (r->route->flags & OUTR_ROUTE_NO_TRACE)))
        return;
    outr_str statement = outr_arena_join(x->arena, x->req.method, OUTR_STR(" "), r->path);
    outr_span span;
    outr_span_init(&span, &r->trace, OUTR_SPAN_CLIENT, r->path, x->started_ns);
    if (is_broken || x->status >= 400)
        outr_span_fail(&span, is_broken ? OUTR_STR("the answer broke off")
                                        : outr_str_from(outr_http_status_text(x->status)));
    outr_span_add(&span, "dapr.protocol", OUTR_STR("http"));
    outr_span_add(&span, "dapr.api", statement);
    outr_span_add(&span, "dapr.status_code", outr_str_decimal(status, (uint64_t)x->status));
    if (invoke) {
        span.name = invocation_name(x->arena, invoke->target, invoke->method);
        add_invocation(&span, invoke->target);
    } else if (r->route && is_store(r->route->group)) {
        add_store(&span, r->route->group, r->params[0], statement);
    } else if (r->route && strcmp(r->route->group, "publish") == 0) {
        outr_span_add_topic(&span, r->params[1]);
    }
    add_why(&span, invoke && invoke->why ? invoke->why : r->why);
    outr_span_add_headers(&span, &x->req.headers);
    outr_span_record(r->api->trace.tracer, &span);
}

/* ---- gRPC ------------------------------------------------------------------------------------ */

/* A text field of a request, if it has one of that name. */
static outr_str field(const void *message, const char *name)
{
    const ProtobufCMessage *m = message;
    const ProtobufCFieldDescriptor *f =
        m ? protobuf_c_message_descriptor_get_field_by_name(m->descriptor, name) : NULL;
    if (!f || f->type != PROTOBUF_C_TYPE_STRING || f->label == PROTOBUF_C_LABEL_REPEATED)
        return OUTR_STR_NONE;
    return outr_str_from(*(char *const *)(const void *)((const char *)message + f->offset));
}

void outr_api_span_rpc(const outr_api *api, const outr_exchange *x, const outr_grpc_call *call,
                       const outr_trace *trace)
{
    const outr_grpc_method *method = call->method;
    if (!outr_span_is_wanted(&api->trace, trace) || !method->group)
        return; /* health and reflection are of no group */
    outr_str path = outr_str_from(method->path);
    const void *request = method->takes_stream ? NULL : call->request;
    outr_span span;
    outr_span_init(&span, trace, OUTR_SPAN_CLIENT, path, x->started_ns);
    if (call->code != OUTR_OK)
        outr_span_fail(&span, outr_str_from(outr_code_name(call->code)));
    outr_span_add(&span, "dapr.protocol", OUTR_STR("grpc"));
    outr_span_add(&span, "dapr.api", path);
    if (strcmp(method->group, "invoke") == 0) {
        const Dapr__Proto__Runtime__V1__InvokeServiceRequest *invoke = request;
        outr_str target = field(request, "id");
        if (target.n > 0 && invoke->message)
            span.name = invocation_name(x->arena, target, outr_str_from(invoke->message->method));
        add_invocation(&span, target);
        add_why(&span, outr_rpc_of(call)->why);
    } else {
        outr_span_add(&span, "rpc.service", OUTR_STR("Dapr"));
    }
    if (strcmp(method->group, "publish") == 0) {
        outr_span_add_topic(&span, field(request, "topic"));
    } else if (is_store(method->group)) {
        outr_str store = field(request, "store_name");
        add_store(&span, method->group, store.n ? store : field(request, "name"), path);
    }
    outr_span_add_headers(&span, &x->req.headers);
    outr_span_record(api->trace.tracer, &span);
}

void outr_api_span_proxied(const outr_api *api, const outr_exchange *x, const outr_invoke *invoke,
                           bool is_broken)
{
    outr_code code = is_broken && invoke->grpc_code == OUTR_OK ? OUTR_CANCELLED : invoke->grpc_code;
    if (!outr_span_is_wanted(&api->trace, &invoke->trace))
        return;
    bool is_own = outr_str_eq(invoke->target, api->settings->app_id);
    outr_span span;
    outr_span_init(&span, &invoke->trace, is_own ? OUTR_SPAN_SERVER : OUTR_SPAN_CLIENT,
                   invoke->method, x->started_ns);
    if (code != OUTR_OK)
        outr_span_fail(&span, outr_str_from(outr_code_name(code)));
    outr_span_add(&span, "dapr.protocol", OUTR_STR("grpc"));
    outr_span_add(&span, "dapr.api", invoke->method);
    outr_span_add(&span, "net.peer.name", invoke->target);
    add_why(&span, invoke->why);
    outr_span_add_headers(&span, &x->req.headers);
    outr_span_record(api->trace.tracer, &span);
}
