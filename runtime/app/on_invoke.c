#include <dapr/proto/common/v1/common.pb-c.h>

#include "app/internal.h"
#include "app/invocation.h"
#include "app/status_json.h"
#include "base/encode.h"

/* An HTTP call as AppCallback/OnInvoke, its answer as an HTTP response: contract/invocation.md
 * section 5 "gRPC app" and section 6. */

typedef Dapr__Proto__Common__V1__InvokeResponse invoke_response;
typedef Dapr__Proto__Common__V1__HTTPExtension http_extension;

typedef struct invocation {
    outr_app *app;
    outr_app_call *call; /* the caller's */
    outr_op *op;
    outr_gather gather; /* the request's body, whole, as OnInvoke takes it */
    bool is_gathering;
    outr_app_unary unary;
    outr_op inner;
    /* the answer on its way to who asked */
    outr_source source;
    outr_deferred pusher;
    outr_str body;
    outr_headers trailers;
} invocation;

/* ---- the answer's body ----------------------------------------------------------------------- */

static void on_push(outr_deferred *deferred)
{
    invocation *v = OUTR_CONTAINER(deferred, invocation, pusher);
    outr_sink *sink = v->source.sink;
    if (v->body.n > 0) {
        outr_str body = v->body;
        v->body = OUTR_STR_NONE;
        if (!sink->ops->data(sink, outr_slice_static(body)) || !v->source.sink)
            return; /* resume ends it */
    }
    outr_loop_undefer(&v->pusher); /* a resume from within data */
    v->source.sink = NULL;
    sink->source = NULL;
    outr_op_finish_soon(v->op); /* from here on a cancel comes too late */
    sink->ops->end(sink, v->trailers.count > 0 ? &v->trailers : NULL);
}

static void source_go_on(outr_source *source)
{
    invocation *v = OUTR_CONTAINER(source, invocation, source);
    outr_loop_defer(v->app->loop, &v->pusher);
}

static void source_cancel(outr_source *source, const outr_err *err OUTR_UNUSED)
{
    invocation *v = OUTR_CONTAINER(source, invocation, source);
    outr_loop_undefer(&v->pusher);
    outr_op_finish_soon(v->op);
}

static const outr_source_ops source_ops = {
    .start = source_go_on, .resume = source_go_on, .cancel = source_cancel};

/* ---- the answer's head ----------------------------------------------------------------------- */

static int http_status(outr_code code)
{
    static const int statuses[] = {200, 408, 500, 400, 504, 404, 409, 403, 429,
                                   400, 409, 400, 501, 500, 503, 500, 401};
    return (unsigned)code < OUTR_LEN(statuses) ? statuses[code] : 500;
}

/* What the app said beyond the message: neither gRPC's own nor a name of ours. */
static void copy_metadata(outr_headers *out, const outr_headers *in)
{
    for (size_t i = 0; i < in->count; i++) {
        outr_str name = in->items[i].name;
        if (outr_str_istarts(name, OUTR_STR("grpc-")) || outr_str_iis(name, "content-type") ||
            outr_str_istarts(name, OUTR_STR("outrigger-")) || outr_header_is_hop_by_hop(in, name))
            continue;
        outr_headers_add(out, name, in->items[i].value);
    }
}

static void add_status(outr_headers *out, const outr_grpc_status *status)
{
    outr_headers_add(out, OUTR_STR(OUTR_INVOKE_STATUS_HEADER),
                     outr_arena_printf(out->arena, "%d", (int)status->code));
    if (status->message.n > 0)
        outr_headers_add(out, OUTR_STR(OUTR_INVOKE_MESSAGE_HEADER),
                         outr_grpc_message(out->arena, status->message));
    if (status->details.n > 0)
        outr_headers_add(out, OUTR_STR(OUTR_INVOKE_DETAILS_HEADER),
                         outr_grpc_bin_write(out->arena, status->details));
}

static void add_text(outr_headers *out, const char *name, const char *value)
{
    if (value && value[0] != 0 && outr_header_value_is_valid(outr_str_from(value)))
        outr_headers_add(out, outr_str_from(name), outr_str_from(value));
}

static void tell_answer(invocation *v, const invoke_response *reply)
{
    outr_http_call *http = &v->call->http;
    const outr_grpc_unary *said = &v->unary.grpc;
    outr_headers *headers = &http->head.headers;
    http->head = (outr_http_response){.status = http_status(said->status.code)};
    outr_headers_init(headers, http->arena);
    outr_headers_init(&v->trailers, http->arena);
    copy_metadata(headers, &said->answer_headers);
    copy_metadata(&v->trailers, &said->trailers);
    add_status(headers, &said->status);
    if (!reply) {
        v->body = outr_app_status_json(http->arena, &said->status);
        add_text(headers, "content-type", "text/plain; charset=utf-8");
    } else {
        add_text(headers, "content-type", reply->content_type);
        if (reply->data) {
            v->body = outr_proto_bytes(reply->data->value);
            add_text(headers, OUTR_INVOKE_TYPE_HEADER, reply->data->type_url);
        }
    }
    http->head.content_length = (int64_t)v->body.n;
    bool has_body = outr_http_has_body(http->req->method, http->head.status) &&
                    (v->body.n > 0 || v->trailers.count > 0);
    v->source = (outr_source){.ops = &source_ops, .length = (int64_t)v->body.n};
    v->pusher.run = on_push;
    http->progress = OUTR_CALL_ANSWERED;
    http->response = has_body ? &v->source : NULL;
    http->on_response(http);
    if (!has_body)
        outr_op_finish_soon(v->op);
}

static void on_answered(outr_op *inner)
{
    invocation *v = OUTR_CONTAINER(inner, invocation, inner);
    invoke_response *reply = NULL;
    outr_err err = inner->err;
    if (outr_op_is_cancelled(v->op)) {
        outr_op_fail(v->op, &err);
        return;
    }
    outr_code rc = outr_app_unary_result(&v->unary, &reply,
                                         &dapr__proto__common__v1__invoke_response__descriptor,
                                         &inner->err, &err);
    if (rc && v->unary.grpc.status.code == OUTR_OK) /* what the app called a success is none */
        v->unary.grpc.status = (outr_grpc_status){
            .code = rc, .message = outr_arena_str(v->call->http.arena, outr_str_from(err.text))};
    tell_answer(v, rc ? NULL : reply);
}

/* ---- the request ----------------------------------------------------------------------------- */

bool outr_app_is_permanent_header(outr_str name)
{
    static const char *const names[] = {"accept",
                                        "accept-charset",
                                        "accept-language",
                                        "accept-ranges",
                                        "connection",
                                        "keep-alive",
                                        "proxy-connection",
                                        "transfer-encoding",
                                        "upgrade",
                                        "cache-control",
                                        "content-type",
                                        "content-length",
                                        "cookie",
                                        "date",
                                        "expect",
                                        "from",
                                        "host",
                                        "if-match",
                                        "if-modified-since",
                                        "if-none-match",
                                        "if-schedule-tag-match",
                                        "if-unmodified-since",
                                        "max-forwards",
                                        "origin",
                                        "pragma",
                                        "referer",
                                        "via",
                                        "warning"};
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (outr_str_iis(name, names[i]))
            return true;
    }
    return false;
}

/* Letters of any case, digits, "_", "-" and ".": grpc/grpc doc/PROTOCOL-HTTP2.md, Header-Name. */
static bool is_metadata_name(outr_str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_alnum && c != '_' && c != '-' && c != '.')
            return false;
    }
    return name.n > 0;
}

static void write_metadata(outr_headers *out, const outr_headers *in, bool is_of_grpc)
{
    for (size_t i = 0; i < in->count; i++) {
        outr_str name = in->items[i].name;
        if (outr_str_istarts(name, OUTR_STR("outrigger-")) || outr_str_iis(name, "user-agent") ||
            outr_str_iis(name, "te") || outr_str_istarts(name, OUTR_STR("grpc-")) ||
            !is_metadata_name(name))
            continue;
        if (!is_of_grpc && outr_app_is_permanent_header(name))
            name = outr_arena_join(out->arena, OUTR_STR("dapr-"), name, OUTR_STR_NONE);
        else if (outr_str_iis(name, "content-type") || outr_header_is_hop_by_hop(in, name))
            continue;
        outr_headers_add(out, name, in->items[i].value);
    }
    outr_app_add_trace_bin(out, outr_headers_get(in, "traceparent"));
}

static int verb_of(outr_str method)
{
    const ProtobufCEnumValue *value = NULL;
    char name[16];
    if (method.n < sizeof name) {
        memcpy(name, method.p, method.n);
        name[method.n] = 0;
        value = protobuf_c_enum_descriptor_get_value_by_name(
            &dapr__proto__common__v1__httpextension__verb__descriptor, name);
    }
    return value ? value->value : DAPR__PROTO__COMMON__V1__HTTPEXTENSION__VERB__POST;
}

static outr_code send_invoke(invocation *v, outr_str body, outr_err *err)
{
    outr_http_call *http = &v->call->http;
    const outr_http_request *req = http->req;
    outr_arena *arena = http->arena;
    Dapr__Proto__Common__V1__InvokeRequest message = DAPR__PROTO__COMMON__V1__INVOKE_REQUEST__INIT;
    Google__Protobuf__Any data = GOOGLE__PROTOBUF__ANY__INIT;
    http_extension extension = DAPR__PROTO__COMMON__V1__HTTPEXTENSION__INIT;
    outr_str path, method, query = outr_str_cut(req->target, '?', &path);
    bool is_of_grpc = outr_str_is(outr_headers_get(&req->headers, OUTR_INVOKE_ORIGIN_HEADER),
                                  OUTR_INVOKE_ORIGIN_GRPC);
    if (!outr_percent_decode(arena, outr_str_skip(path, 1), false, &method) ||
        !outr_str_is_utf8(method) || !outr_str_is_utf8(query))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "the method's name is not UTF-8");
    extension.verb = verb_of(req->method);
    extension.querystring = outr_proto_text(arena, query);
    data.type_url =
        outr_proto_text(arena, outr_headers_get(&req->headers, OUTR_INVOKE_TYPE_HEADER));
    data.value = outr_proto_data(body);
    message.method = outr_proto_text(arena, method);
    message.data = &data;
    message.content_type = outr_proto_text(arena, outr_headers_get(&req->headers, "content-type"));
    if (extension.verb != DAPR__PROTO__COMMON__V1__HTTPEXTENSION__VERB__NONE || query.n > 0)
        message.http_extension = &extension;
    v->unary = (outr_app_unary){.arena = arena, .skip_limit = v->call->skip_limit};
    outr_headers_init(&v->unary.metadata, arena);
    write_metadata(&v->unary.metadata, &req->headers, is_of_grpc);
    outr_op_init(&v->inner, v->app->loop, v->op, 0, on_answered);
    outr_app_unary_start(v->app, &v->unary, "/dapr.proto.runtime.v1.AppCallback/OnInvoke", &message,
                         &v->inner);
    return OUTR_OK;
}

static void on_gathered(outr_gather *gather, const outr_err *err)
{
    invocation *v = gather->ctx;
    outr_err failure;
    v->is_gathering = false;
    if (err) {
        failure = *err; /* it may be in what is freed now */
        outr_op_fail_soon(v->op, &failure);
        return;
    }
    if (send_invoke(v, outr_buf_view(&gather->body), &failure))
        outr_op_fail_soon(v->op, &failure);
    outr_buf_done(&gather->body);
}

static void on_cancel(outr_op *op)
{
    invocation *v = op->impl;
    outr_sink *sink = v->source.sink;
    if (v->is_gathering) {
        v->is_gathering = false;
        outr_gather_cancel(&v->gather);
    } else if (outr_op_is_pending(&v->inner)) {
        outr_op_cancel(&v->inner, op->err.code);
        return;
    } else if (sink) {
        outr_loop_undefer(&v->pusher);
        v->source.sink = NULL;
        sink->source = NULL;
        sink->ops->abort(sink, &op->err);
    }
    outr_op_finish_soon(op);
}

void outr_app_invoke_start(outr_app *app, outr_app_call *call, outr_op *op)
{
    if (!outr_app_speaks_grpc(app) || !outr_app_is_configured(app)) {
        outr_app_call_start(app, call, op);
        return;
    }
    int64_t max = app->settings->max_body_bytes;
    invocation *v = outr_arena_alloc(call->http.arena, sizeof *v);
    outr_err err;
    v->app = app;
    v->call = call;
    v->op = op;
    call->http.progress = OUTR_CALL_NOT_SENT;
    call->http.was_reused = false;
    call->http.body_taken = call->http.body != NULL;
    call->http.response = NULL;
    outr_op_begin(op, v, on_cancel);
    if (call->http.body) {
        v->is_gathering = true;
        outr_gather_start(&v->gather, call->http.body, max > 0 ? (size_t)max : SIZE_MAX / 2,
                          on_gathered, v);
    } else if (send_invoke(v, OUTR_STR_NONE, &err)) {
        outr_op_fail_soon(op, &err);
    }
}
