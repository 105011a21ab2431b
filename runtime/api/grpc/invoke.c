#include <dapr/proto/runtime/v1/invoke.pb-c.h>

#include "api/grpc/grpc_api.h"
#include "app/invocation.h"
#include "base/encode.h"

/* InvokeService: an invocation like those over HTTP, asked for by a message and answered by one.
 * contract/invocation.md section 7. */

#define ERROR_BODY_MAX 63 /* of a failed answer's body, told in the error's details */

typedef Dapr__Proto__Runtime__V1__InvokeServiceRequest invoke_request;

typedef struct invocation {
    outr_grpc_call *call;
    const char *id;
    outr_invoke invoke;
    outr_http_request req;
    /* the answer */
    outr_http_response head;
    outr_sink collector;
    outr_buf body;
    outr_headers trailers;
    outr_err broken;
} invocation;

/* ---- the answer's head as metadata ----------------------------------------------------------- */

/* Metadata is text, or base64 under a name that says so. */
static bool is_sayable(outr_arena *arena, const outr_header *h)
{
    outr_str bytes;
    if (!outr_grpc_is_bin(h->name))
        return outr_str_is_utf8(h->value);
    return outr_base64_decode(arena, h->value, &bytes);
}

static void copy_metadata(outr_headers *out, const outr_headers *in, bool is_http)
{
    for (size_t i = 0; i < in->count; i++) {
        outr_header h = in->items[i];
        bool is_type = outr_str_iis(h.name, "content-type");
        if (outr_header_is_hop_by_hop(in, h.name) || outr_str_iis(h.name, "traceparent") ||
            outr_str_istarts(h.name, OUTR_STR("outrigger-")) ||
            outr_str_istarts(h.name, OUTR_STR("grpc-")) || (is_type && !is_http) ||
            !is_sayable(out->arena, &h))
            continue;
        if (is_http && outr_app_is_permanent_header(h.name))
            h.name = outr_arena_join(out->arena, OUTR_STR("dapr-"), h.name, OUTR_STR_NONE);
        outr_headers_add(out, h.name, h.value);
    }
}

static void add_trace(outr_headers *out, const outr_trace *trace)
{
    char *text = outr_arena_alloc(out->arena, OUTR_TRACEPARENT_LEN + 1);
    outr_trace_write(trace, text);
    outr_headers_add(out, OUTR_STR("traceparent"), outr_str_of(text, OUTR_TRACEPARENT_LEN));
}

/* ---- the answer's status --------------------------------------------------------------------- */

static outr_code code_of_http(int status)
{
    switch (status) {
    case 400:
        return OUTR_INTERNAL;
    case 401:
        return OUTR_UNAUTHENTICATED;
    case 403:
        return OUTR_PERMISSION_DENIED;
    case 404:
        return OUTR_NOT_FOUND;
    case 408:
        return OUTR_CANCELLED;
    case 409:
        return OUTR_ALREADY_EXISTS;
    case 429:
        return OUTR_RESOURCE_EXHAUSTED;
    case 501:
        return OUTR_UNIMPLEMENTED;
    case 503:
        return OUTR_UNAVAILABLE;
    case 504:
        return OUTR_DEADLINE_EXCEEDED;
    default:
        return status >= 200 && status <= 299 ? OUTR_OK : OUTR_UNKNOWN;
    }
}

static void reply(invocation *v)
{
    Dapr__Proto__Common__V1__InvokeResponse message =
        DAPR__PROTO__COMMON__V1__INVOKE_RESPONSE__INIT;
    Google__Protobuf__Any data = GOOGLE__PROTOBUF__ANY__INIT;
    const outr_headers *headers = &v->head.headers;
    outr_arena *arena = v->call->arena;
    data.value = outr_proto_data(outr_buf_view(&v->body));
    data.type_url = outr_rpc_text(arena, outr_headers_get(headers, OUTR_INVOKE_TYPE_HEADER));
    message.data = &data;
    message.content_type = outr_rpc_text(arena, outr_headers_get(headers, "content-type"));
    outr_grpc_reply(v->call, &message);
}

/* The app spoke gRPC: its status as it was. */
static void end_grpc(invocation *v, outr_code code)
{
    outr_grpc_call *call = v->call;
    const outr_headers *said = &v->head.headers;
    outr_grpc_status status = {.code = code};
    copy_metadata(code ? &call->trailers : &call->headers, said, false);
    copy_metadata(&call->trailers, &v->trailers, false);
    add_trace(&call->headers, &v->invoke.trace);
    if (code == OUTR_OK) {
        add_trace(&call->trailers, &v->invoke.trace);
        reply(v);
        return;
    }
    outr_str text = outr_headers_get(said, OUTR_INVOKE_MESSAGE_HEADER);
    if (!outr_percent_decode(call->arena, text, false, &status.message))
        status.message = text;
    text = outr_headers_get(said, OUTR_INVOKE_DETAILS_HEADER);
    if (text.n == 0 || !outr_base64_decode(call->arena, text, &status.details))
        status.details = OUTR_STR_NONE;
    outr_grpc_fail(call, &status);
}

static void end_http(invocation *v)
{
    outr_grpc_call *call = v->call;
    outr_code code = code_of_http(v->head.status);
    const char *text = outr_http_status_text(v->head.status);
    copy_metadata(&call->headers, &v->head.headers, true);
    outr_headers_add(&call->headers, OUTR_STR("dapr-http-status"),
                     outr_arena_printf(call->arena, "%d", v->head.status));
    add_trace(&call->headers, &v->invoke.trace);
    if (code == OUTR_OK) {
        reply(v);
        return;
    }
    if (strcmp(text, "Unknown") == 0) /* Go has no text for it */
        text = "";
    outr_str body = outr_str_head(outr_buf_view(&v->body), ERROR_BODY_MAX);
    outr_grpc_status status = outr_rpc_http_status(call->arena, code, text, v->head.status,
                                                   outr_str_from(outr_rpc_text(call->arena, body)));
    outr_grpc_send_head(call); /* metadata of the answer, not of its end */
    outr_grpc_fail(call, &status);
}

/* ---- the invocation -------------------------------------------------------------------------- */

static outr_str word_of(const outr_invoke *invoke)
{
    return outr_str_from(outr_why_word(invoke->why));
}

static void fail(invocation *v, outr_code code, const char *text)
{
    outr_rpc_of(v->call)->why = v->invoke.why;
    outr_str message =
        outr_arena_printf(v->call->arena, "failed to invoke, id: %s, err: %s", v->id, text);
    outr_buf_done(&v->body);
    outr_grpc_fail(v->call, &(outr_grpc_status){
                                .code = code,
                                .message = message,
                                .reason = word_of(&v->invoke),
                                .after_ns = v->invoke.after_ns});
}

static void on_failed(outr_invoke *invoke, const outr_err *err)
{
    invocation *v = invoke->user;
    if (invoke->status > 0 || outr_why_status(invoke->why) > 0) {
        fail(v, err->code, err->text);
        return;
    }
    if (!invoke->is_of_policy) {
        /* INTERNAL it is for the reference, whatever the other sidecar says; it knows no tokens */
        fail(v, invoke->challenge.n > 0 ? OUTR_UNAUTHENTICATED : OUTR_INTERNAL, err->text);
        return;
    }
    /* what a policy says is said as it is; an open breaker has no code of its own */
    bool is_timeout = err->code == OUTR_DEADLINE_EXCEEDED;
    outr_buf_done(&v->body);
    outr_rpc_of(v->call)->why = invoke->why;
    outr_grpc_fail(v->call,
                   &(outr_grpc_status){.code = is_timeout ? OUTR_DEADLINE_EXCEEDED : OUTR_UNKNOWN,
                                       .message = outr_str_from(err->text),
                                       .reason = word_of(invoke)});
}

static void on_done(outr_invoke *invoke, const outr_err *err)
{
    invocation *v = invoke->user;
    uint64_t code;
    if (err || v->broken.code) {
        fail(v, OUTR_INTERNAL, v->broken.code ? v->broken.text : err->text);
        return;
    }
    outr_str said = outr_headers_get(&v->head.headers, OUTR_INVOKE_STATUS_HEADER);
    if (outr_str_to_u64(said, INT32_MAX, &code))
        end_grpc(v, (outr_code)code);
    else
        end_http(v);
    outr_buf_done(&v->body);
}

static bool collect_data(outr_sink *sink, outr_slice own_slice)
{
    invocation *v = OUTR_CONTAINER(sink, invocation, collector);
    bool fits = outr_buf_append(&v->body, own_slice.p, own_slice.n);
    outr_slice_done(&own_slice);
    if (fits)
        return true;
    outr_fail(&v->broken, OUTR_RESOURCE_EXHAUSTED, "the answer is larger than %zu bytes",
              v->body.max);
    outr_source *source = sink->source;
    sink->source = NULL;
    outr_source_cancel(source, &v->broken);
    return false;
}

static void collect_end(outr_sink *sink, const outr_headers *trailers)
{
    invocation *v = OUTR_CONTAINER(sink, invocation, collector);
    sink->source = NULL;
    for (size_t i = 0; trailers && i < trailers->count; i++)
        outr_headers_add(&v->trailers, outr_arena_str(v->call->arena, trailers->items[i].name),
                         outr_arena_str(v->call->arena, trailers->items[i].value));
}

static void collect_abort(outr_sink *sink, const outr_err *err)
{
    invocation *v = OUTR_CONTAINER(sink, invocation, collector);
    sink->source = NULL;
    v->broken = *err;
}

static const outr_sink_ops collector_ops = {
    .data = collect_data, .end = collect_end, .abort = collect_abort};

static void on_answer(outr_invoke *invoke, outr_http_call *http)
{
    invocation *v = invoke->user;
    v->head = http->head;
    v->collector.ops = &collector_ops;
    if (http->response)
        outr_source_attach(http->response, &v->collector);
}

static void on_gone(outr_grpc_call *call)
{
    invocation *v = call->user;
    outr_mesh_invoke_cancel(&v->invoke, OUTR_CANCELLED);
}

/* Metadata becomes headers, but for what gRPC says of the call itself. */
static void take_metadata(outr_headers *out, const outr_http_request *from, const char *type)
{
    static const char *const of_call[] = {"content-type", "te", "grpc-timeout", "grpc-encoding"};
    for (size_t i = 0; i < from->headers.count; i++) {
        const outr_header *h = &from->headers.items[i];
        bool is_of_call = false;
        for (size_t k = 0; k < OUTR_LEN(of_call); k++)
            is_of_call |= outr_str_iis(h->name, of_call[k]);
        if (!is_of_call)
            outr_headers_add(out, h->name, h->value);
    }
    if (type[0])
        outr_headers_add(out, OUTR_STR("content-type"), outr_str_from(type));
}

static outr_str verb_of(const Dapr__Proto__Common__V1__HTTPExtension *extension)
{
    const ProtobufCEnumValue *value =
        extension
            ? protobuf_c_enum_descriptor_get_value(
                  &dapr__proto__common__v1__httpextension__verb__descriptor, (int)extension->verb)
            : NULL;
    return outr_str_from(value ? value->name : "NONE");
}

static void take_request(invocation *v, const invoke_request *r)
{
    const Dapr__Proto__Common__V1__InvokeRequest *message = r->message;
    outr_grpc_call *call = v->call;
    outr_invoke *invoke = &v->invoke;
    if (message->data) {
        invoke->bytes = outr_proto_bytes(message->data->value);
        invoke->type_url = outr_str_from(message->data->type_url);
    }
    v->req = (outr_http_request){.method = verb_of(message->http_extension),
                                 .authority = call->x->req.authority,
                                 .content_length = (int64_t)invoke->bytes.n};
    outr_headers_init(&v->req.headers, call->arena);
    take_metadata(&v->req.headers, &call->x->req, message->content_type);
    invoke->x = call->x;
    invoke->target = outr_str_from(r->id);
    invoke->method = outr_str_from(message->method);
    if (message->http_extension)
        invoke->query = outr_str_from(message->http_extension->querystring);
    invoke->trace = outr_rpc_of(call)->trace;
    invoke->req = &v->req;
    invoke->is_grpc = true;
    invoke->has_data = message->data != NULL;
    invoke->deadline_ns = outr_grpc_deadline(call);
    invoke->on_answer = on_answer;
    invoke->on_failed = on_failed;
    invoke->on_done = on_done;
    invoke->user = v;
}

static void invoke_service(outr_grpc_call *call)
{
    const invoke_request *r = call->request;
    int64_t max = outr_rpc_of(call)->api->settings->max_body_bytes;
    invocation *v = outr_arena_alloc(call->arena, sizeof *v);
    v->call = call;
    v->id = r->id;
    v->body = OUTR_BUF_MAX(max > 0 ? (size_t)max : UINT32_MAX);
    outr_headers_init(&v->trailers, call->arena);
    if (!r->message) {
        v->invoke.why = OUTR_WHY_BAD_REQUEST;
        outr_mesh_tell_local(outr_rpc_of(call)->api->mesh, v->invoke.why, outr_str_from(r->id),
                             "message is nil");
        fail(v, OUTR_INTERNAL, "message is nil");
        return;
    }
    call->user = v;
    call->on_gone = on_gone;
    take_request(v, r);
    outr_mesh_invoke(outr_rpc_of(call)->api->mesh, &v->invoke);
}

const outr_grpc_method outr_rpcs_invoke[] = {
    {"/dapr.proto.runtime.v1.Dapr/InvokeService",
     &dapr__proto__runtime__v1__invoke_service_request__descriptor, false, invoke_service, "invoke",
     "v1"},
    {0},
};
