#include <dapr/proto/internals/v1/service_invocation.pb-c.h>
#include <google/rpc/status.pb-c.h>

#include "mesh/daprd_peer.h"

#include "app/invocation.h"
#include "app/status_json.h"
#include "grpc/proto.h"
#include "grpc/status.h"

typedef Dapr__Proto__Internals__V1__InternalInvokeResponse response;
typedef Dapr__Proto__Internals__V1__Status rpc_status;

int outr__http_of_grpc(int code)
{
    static const int http[] = {[OUTR_OK] = 200,
                               [OUTR_CANCELLED] = 408,
                               [OUTR_UNKNOWN] = 500,
                               [OUTR_INVALID_ARGUMENT] = 400,
                               [OUTR_DEADLINE_EXCEEDED] = 504,
                               [OUTR_NOT_FOUND] = 404,
                               [OUTR_ALREADY_EXISTS] = 409,
                               [OUTR_PERMISSION_DENIED] = 403,
                               [OUTR_RESOURCE_EXHAUSTED] = 429,
                               [OUTR_FAILED_PRECONDITION] = 400,
                               [OUTR_ABORTED] = 409,
                               [OUTR_OUT_OF_RANGE] = 400,
                               [OUTR_UNIMPLEMENTED] = 501,
                               [OUTR_INTERNAL] = 500,
                               [OUTR_UNAVAILABLE] = 503,
                               [OUTR_DATA_LOSS] = 500,
                               [OUTR_UNAUTHENTICATED] = 401};
    return code >= 0 && (size_t)code < OUTR_LEN(http) ? http[code] : 500;
}

/* ---- the answer as HTTP ---------------------------------------------------------------------- */

static outr_str text_of(const char *z)
{
    return outr_str_from(z ? z : "");
}

/* A status of the peer's app that speaks gRPC: told to who asked by gRPC, and in the body to who
 * asked by HTTP. */
static void take_grpc_status(outr__daprd_call *c, const rpc_status *s)
{
    outr_arena *arena = c->arena;
    outr_headers *out = &c->head.headers;
    outr_grpc_status got = {.code = (outr_code)s->code, .message = text_of(s->message)};
    outr_headers_add(out, OUTR_STR(OUTR_INVOKE_STATUS_HEADER),
                     outr_arena_printf(arena, "%d", s->code));
    c->head.status = outr__http_of_grpc(s->code);
    if (s->code == OUTR_OK)
        return;
    if (got.message.n > 0)
        outr_headers_add(out, OUTR_STR(OUTR_INVOKE_MESSAGE_HEADER),
                         outr_grpc_message(arena, got.message));
    if (s->n_details > 0) {
        Google__Rpc__Status rpc = GOOGLE__RPC__STATUS__INIT;
        rpc.code = s->code;
        rpc.message = s->message;
        rpc.n_details = s->n_details;
        rpc.details = s->details;
        got.details = outr_proto_write(arena, &rpc);
        outr_headers_add(out, OUTR_STR(OUTR_INVOKE_DETAILS_HEADER),
                         outr_grpc_bin_write(arena, got.details));
    }
    if (!outr_headers_has(out, "content-type")) /* what Go guesses of it */
        outr_headers_add(out, OUTR_STR("Content-Type"), OUTR_STR("text/plain; charset=utf-8"));
    c->reader.drops_payloads = true;
    c->reader.bytes = outr_app_status_json(arena, &got);
}

/* Binary values of gRPC are padded in the maps of the messages, and not on the wire. */
static outr_str value_of(outr_str name, const char *z)
{
    outr_str value = outr_str_trim(text_of(z));
    while (outr_grpc_is_bin(name) && value.n > 0 && value.p[value.n - 1] == '=')
        value.n--;
    return value;
}

static void take_headers(outr__daprd_call *c, const response *r)
{
    outr_str type = r->message ? text_of(r->message->content_type) : OUTR_STR_NONE;
    for (size_t i = 0; i < r->n_headers; i++) {
        outr_str name = text_of(r->headers[i]->key);
        const Dapr__Proto__Internals__V1__ListStringValue *list = r->headers[i]->value;
        bool is_type = outr_str_iis(name, "content-type");
        if (outr_str_iis(name, "content-length") || (is_type && !c->wants_events) ||
            outr_str_istarts(name, OUTR_STR("outrigger-")) || !outr_header_name_is_valid(name))
            continue;
        for (size_t k = 0; list && k < list->n_values; k++)
            outr_headers_add(&c->head.headers, is_type ? OUTR_STR("Content-Type") : name,
                             value_of(name, list->values[k]));
    }
    if (type.n > 0)
        outr_headers_set(&c->head.headers, OUTR_STR("Content-Type"), type);
    if (r->message && r->message->data && text_of(r->message->data->type_url).n > 0)
        outr_headers_add(&c->head.headers, OUTR_STR(OUTR_INVOKE_TYPE_HEADER),
                         text_of(r->message->data->type_url));
}

static void take_trailers(outr__daprd_call *c, const response *r)
{
    outr_headers_init(&c->trailers, c->arena);
    for (size_t i = 0; i < r->n_trailers; i++) {
        outr_str name = text_of(r->trailers[i]->key);
        const Dapr__Proto__Internals__V1__ListStringValue *list = r->trailers[i]->value;
        if (!outr_header_name_is_valid(name) || outr_str_iis(name, "content-type") ||
            outr_str_istarts(name, OUTR_STR("grpc-")) ||
            outr_str_istarts(name, OUTR_STR("outrigger-")))
            continue;
        for (size_t k = 0; list && k < list->n_values; k++)
            outr_headers_add(&c->trailers, name, value_of(name, list->values[k]));
    }
    if (c->trailers.count > 0)
        c->reader.trailers = &c->trailers;
}

/* The answer to a request for events comes with code 0 and no message. */
static void take_events(outr__daprd_call *c)
{
    static const char *const said[][2] = {{"Content-Type", "text/event-stream"},
                                          {"Cache-Control", "no-cache"}};
    for (size_t i = 0; i < OUTR_LEN(said); i++)
        outr_headers_set(&c->head.headers, outr_str_from(said[i][0]), outr_str_from(said[i][1]));
}

static void take_answer(outr__daprd_call *c, const response *r)
{
    outr_headers_init(&c->head.headers, c->arena);
    c->head.content_length = -1;
    c->head.status = r->status->code;
    bool is_events = c->wants_events && r->status->code == 0 && !r->message;
    take_headers(c, r);
    take_trailers(c, r);
    if (is_events) {
        c->head.status = 200;
        take_events(c);
    } else if (r->status->code < 100) {
        take_grpc_status(c, r->status);
    }
    if (c->is_unary && !c->reader.drops_payloads) {
        c->reader.drops_payloads = true;
        if (r->message && r->message->data)
            c->reader.bytes = outr_proto_bytes(r->message->data->value);
    }
    c->has_answer = true;
    c->shown = (outr_http_call){.req = c->http->req,
                                .head = c->head,
                                .arena = c->arena,
                                .progress = OUTR_CALL_ANSWERED,
                                .user = c->user};
}

static bool is_http_status(int code)
{
    return (code >= 0 && code < 100) || (code >= 200 && code <= 999);
}

/* What came is no answer; nothing of it has been shown. */
static void fail(outr__daprd_call *c, outr_code code, const char *text)
{
    if (!c->failure.code)
        outr_fail(&c->failure, code, "%s", text);
    outr__daprd_reader_cancel(&c->reader);
}

static const char lacks[] = "response does not contain the required fields in the leading chunk";

/* Entries of both maps have one layout. */
typedef Dapr__Proto__Internals__V1__InternalInvokeResponse__HeadersEntry entry;

static size_t count_values(entry *const *entries, size_t n)
{
    size_t count = n;
    for (size_t i = 0; i < n; i++)
        count += entries[i]->value ? entries[i]->value->n_values : 0;
    return count;
}

static response *read_response(outr__daprd_call *c, outr_str bytes)
{
    void *message;
    outr_err err;
    if (outr_proto_read(&message, c->arena,
                        &dapr__proto__internals__v1__internal_invoke_response__descriptor, bytes,
                        &err)) {
        fail(c, err.code, err.text);
        return NULL;
    }
    response *r = message;
    if (!r->status)
        fail(c, OUTR_INTERNAL, lacks);
    else if (!is_http_status(r->status->code))
        fail(c, OUTR_INTERNAL, "invalid status code in the answer of the peer");
    else if (count_values(r->headers, r->n_headers) > OUTR__HEADERS_MAX ||
             count_values((entry **)r->trailers, r->n_trailers) > OUTR__HEADERS_MAX)
        fail(c, OUTR_RESOURCE_EXHAUSTED, "too many headers in the answer of the peer");
    else
        return r;
    return NULL;
}

static bool on_head(outr__daprd_reader *reader, const outr__daprd_piece *piece)
{
    outr__daprd_call *c = reader->user;
    if (!piece->has_head) {
        fail(c, OUTR_INTERNAL, lacks);
        return false;
    }
    const response *r = read_response(c, piece->head);
    if (!r)
        return false;
    take_answer(c, r);
    c->shown.response = &c->reader.source;
    c->on_answer(&c->shown);
    return true;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* As gRPC-Go prints a status that is an error. */
static outr_code take_status(outr__daprd_call *c, const outr_headers *said, int http_status)
{
    outr_grpc_status got;
    outr_grpc_status_read(&got, said, http_status);
    if (got.code)
        outr_fail(&c->failure, got.code, "rpc error: code = %s desc = " OUTR_FMT,
                  outr_code_name(got.code), OUTR_ARG(got.message));
    c->status = got.code;
    return got.code;
}

static outr_code on_over(outr__daprd_reader *reader, const outr_headers *trailers,
                         const outr_err *err, outr_err *out)
{
    outr__daprd_call *c = reader->user;
    static const outr_headers none;
    outr_code rc = OUTR_OK;
    if (err && !c->failure.code)
        c->failure = *err;
    else if (!err)
        rc = take_status(c, trailers ? trailers : &none, 200);
    if (!err && !rc && !c->has_answer)
        outr_fail(&c->failure, OUTR_INTERNAL, "EOF");
    *out = c->failure;
    return c->failure.code;
}

static void on_response(outr_http_call *http)
{
    outr__daprd_call *c = http->user;
    const outr_headers *headers = &http->head.headers;
    if (http->head.status != 200 || outr_headers_has(headers, "grpc-status") || !http->response) {
        take_status(c, headers, http->head.status);
        outr_source_cancel(http->response, NULL);
        return;
    }
    c->reader = (outr__daprd_reader){.loop = c->loop,
                                     .max_bytes = c->max_bytes,
                                     .encoding = outr_headers_get(headers, "grpc-encoding"),
                                     .is_unary = c->is_unary,
                                     .on_head = on_head,
                                     .on_over = on_over,
                                     .user = c};
    outr__daprd_reader_start(&c->reader, http->response);
}

outr_code outr__daprd_outcome(outr__daprd_call *c, const outr_err *http_err)
{
    if (c->has_answer || http_err->code)
        return OUTR_OK;
    if (!c->failure.code)
        outr_fail(&c->failure, OUTR_INTERNAL, "EOF");
    return c->failure.code;
}

/* ---- sending --------------------------------------------------------------------------------- */

static void prepare_head(outr__daprd_call *c, outr_headers *out)
{
    uint64_t now = outr_loop_now(c->loop);
    char *traceparent = outr_arena_alloc(c->arena, OUTR_TRACEPARENT_LEN + 1);
    outr_headers_init(out, c->arena);
    outr_headers_add(out, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_add(out, OUTR_STR("user-agent"), OUTR_STR("outrigger"));
    outr_headers_add(out, OUTR_STR("te"), OUTR_STR("trailers"));
    outr_headers_add(out, OUTR_STR("grpc-accept-encoding"), OUTR_STR("gzip"));
    if (c->deadline_ns)
        outr_headers_add(
            out, OUTR_STR("grpc-timeout"),
            outr_grpc_timeout_write(c->arena, c->deadline_ns > now ? c->deadline_ns - now : 1));
    outr_trace_write(c->trace, traceparent);
    outr_headers_add(out, OUTR_STR("traceparent"), outr_str_of(traceparent, OUTR_TRACEPARENT_LEN));
    outr_headers_add(out, OUTR_STR("grpc-trace-bin"), outr__daprd_trace_bin(c->arena, c->trace));
}

outr_code outr__daprd_send(outr__daprd_call *c, outr_http_call *http,
                           const outr__daprd_request *request, outr_err *err)
{
    outr_str head;
    size_t length = http->body ? (size_t)OUTR_MAX(http->body->length, 0) : 0;
    outr_code rc = c->is_unary ? outr__daprd_unary_start(&head, c->arena, request, length, err)
                               : outr__daprd_request_write(&head, c->arena, request, err);
    if (rc)
        return rc;
    c->http = http;
    c->has_answer = false;
    c->status = OUTR_OK;
    outr_err_clear(&c->failure);
    c->req =
        (outr_http_request){.method = OUTR_STR("POST"),
                            .scheme = c->scheme,
                            .authority = c->authority,
                            .target = c->is_unary ? OUTR_STR(OUTR__INTERNALS "CallLocal")
                                                  : OUTR_STR(OUTR__INTERNALS "CallLocalStream"),
                            .content_length = -1};
    prepare_head(c, &c->req.headers);
    c->writer = (outr__daprd_writer){
        .loop = c->loop, .from = http->body, .head = head, .is_framed = c->is_unary};
    http->req = &c->req;
    http->body = outr__daprd_writer_init(&c->writer);
    http->on_response = on_response;
    http->on_inform = NULL;
    http->user = c;
    return OUTR_OK;
}
