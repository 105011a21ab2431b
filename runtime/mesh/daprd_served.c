#include <dapr/proto/internals/v1/service_invocation.pb-c.h>

#include "mesh/daprd_served.h"

#include "app/invocation.h"
#include "base/encode.h"
#include "grpc/proto.h"
#include "grpc/status.h"

/* How long a request that should have no body may take to say so: net/http's own patience. */
#define BODY_PATIENCE_NS (200 * OUTR_MS)

typedef Dapr__Proto__Internals__V1__InternalInvokeRequest request;

/* ---- the end --------------------------------------------------------------------------------- */

static void let_go(outr__daprd_served *d)
{
    outr_timer_stop(d->x->loop, &d->patience);
    outr__daprd_reader_cancel(&d->reader);
    outr_bufq_done(&d->collected);
    d->x->on_gone = NULL;
}

static void init_head(outr__daprd_served *d, outr_http_response *head, bool tells_trace)
{
    *head = (outr_http_response){.status = 200, .content_length = -1};
    outr_headers_init(&head->headers, d->x->arena);
    outr_headers_add(&head->headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    if (tells_trace)
        outr_headers_add(&head->headers, OUTR_STR("grpc-trace-bin"),
                         outr__daprd_trace_bin(d->x->arena, &d->trace));
}

static void tell(const outr__daprd_served *d, outr_why why, const char *text)
{
    outr_mesh_tell_local(d->mesh, why, d->mesh->o.settings->app_id, text);
}

void outr__daprd_refuse(outr__daprd_served *d, outr_code code, outr_why why, const char *text)
{
    outr_http_response head;
    tell(d, why, text);
    d->has_answered = true;
    let_go(d);
    init_head(d, &head, true);
    outr_headers_init(&d->trailers, d->x->arena);
    outr_grpc_status_write(&d->trailers,
                           &(outr_grpc_status){.code = code,
                                               .message = outr_str_from(text),
                                               .reason = outr_str_from(outr_why_word(why))});
    outr_sink *sink = outr_http_respond(d->x, &head);
    sink->ops->end(sink, &d->trailers);
    outr_http_done(d->x);
}

void outr__daprd_done(outr__daprd_served *d)
{
    let_go(d);
    outr_http_done(d->x);
}

/* As gRPC itself says it, before any method is asked. */
static void refuse_bare(outr__daprd_served *d, outr_code code, const char *text)
{
    tell(d, OUTR_WHY_BAD_REQUEST, text);
    d->has_answered = true;
    let_go(d);
    outr_grpc_refuse_status(d->x, &(outr_grpc_status){.code = code,
                                                      .message = outr_str_from(text),
                                                      .reason = OUTR_STR("bad_request")});
}

static void refuse_invoking(outr__daprd_served *d, const char *what)
{
    char text[OUTR_ERR_TEXT_MAX + 32];
    snprintf(text, sizeof text, "error invoking app channel: %s", what);
    outr__daprd_refuse(d, OUTR_INTERNAL, OUTR_WHY_BAD_REQUEST, text);
}

static void on_gone(outr_exchange *x, const outr_err *err OUTR_UNUSED)
{
    outr__daprd_done(x->user);
}

/* ---- the head as HTTP ------------------------------------------------------------------------ */

static outr_str text_of(const char *z)
{
    return outr_str_from(z ? z : "");
}

/* A name that says who calls, in another spelling than sidecars use: from the caller's client. */
static bool is_forged(outr_str name)
{
    return (outr_str_istarts(name, OUTR_STR("dapr-calle")) ||
            outr_str_iis(name, "destination-app-id")) &&
           name.p[0] == 'D';
}

/* Names of gRPC's own, which must not reach who speaks HTTP as if they were said to him. */
static outr_str http_name(outr_arena *arena, outr_str name)
{
    if (name.n > 1 && name.p[0] == ':')
        return outr_arena_join(arena, OUTR_STR("dapr-"), outr_str_skip(name, 1), OUTR_STR_NONE);
    return name;
}

/* False: it was refused. */
static bool take_header(outr__daprd_served *d, outr_str key, outr_str value)
{
    outr_arena *arena = d->x->arena;
    outr_str name = http_name(arena, key);
    char text[160];
    uint64_t length;
    if (outr_str_iis(name, "content-length")) {
        if (outr_str_to_u64(value, INT64_MAX, &length))
            d->req.content_length = (int64_t)length;
        return true;
    }
    if (outr_str_iis(name, "host") || outr_str_iis(name, "content-type") || is_forged(name) ||
        outr_str_istarts(name, OUTR_STR("outrigger-")))
        return true;
    value = outr_str_trim(value);
    bool is_name = outr_header_name_is_valid(name);
    if (is_name && outr_header_value_is_valid(value)) {
        if (outr_str_iis(name, "accept") && outr_str_iis(value, "text/event-stream"))
            d->wants_events = !d->is_unary;
        outr_headers_add(&d->req.headers, name, value);
        return true;
    }
    snprintf(text, sizeof text, "net/http: invalid header field %s \"%.*s\"",
             is_name ? "value for" : "name", (int)OUTR_MIN(name.n, (size_t)64), name.p);
    refuse_invoking(d, text);
    return false;
}

static size_t count_values(const request *r)
{
    size_t count = r->n_metadata;
    for (size_t i = 0; i < r->n_metadata; i++)
        count += r->metadata[i]->value ? r->metadata[i]->value->n_values : 0;
    return count;
}

static bool take_metadata(outr__daprd_served *d, const request *r)
{
    outr_arena *arena = d->x->arena;
    outr_str type = text_of(r->message->content_type);
    if (count_values(r) > OUTR__HEADERS_MAX) {
        outr__daprd_refuse(d, OUTR_RESOURCE_EXHAUSTED, OUTR_WHY_BAD_REQUEST, "too many headers");
        return false;
    }
    d->req.content_length = -1;
    outr_headers_init(&d->req.headers, arena);
    for (size_t i = 0; i < r->n_metadata; i++) {
        const Dapr__Proto__Internals__V1__ListStringValue *list = r->metadata[i]->value;
        for (size_t k = 0; list && k < list->n_values; k++) {
            if (!take_header(d, text_of(r->metadata[i]->key), text_of(list->values[k])))
                return false;
        }
    }
    if (type.n > 0)
        outr_headers_add(&d->req.headers, OUTR_STR("Content-Type"), type);
    if (r->message->data && text_of(r->message->data->type_url).n > 0)
        outr_headers_add(&d->req.headers, OUTR_STR(OUTR_INVOKE_TYPE_HEADER),
                         text_of(r->message->data->type_url));
    return true;
}

/* The call's own word for its trace goes before what stands in the map. */
static void take_trace(outr__daprd_served *d)
{
    const outr_headers *in = &d->x->req.headers;
    outr_trace_read_grpc(&d->trace, in);
    if (!d->trace.is_valid) {
        outr_trace_read(&d->trace, &d->req.headers);
        return;
    }
    char *text = outr_arena_alloc(d->x->arena, OUTR_TRACEPARENT_LEN + 1);
    outr_trace_write(&d->trace, text);
    outr_headers_set(&d->req.headers, OUTR_STR("traceparent"),
                     outr_str_of(text, OUTR_TRACEPARENT_LEN));
}

static bool take_verb(outr__daprd_served *d, const request *r)
{
    const Dapr__Proto__Common__V1__HTTPExtension *extension = r->message->http_extension;
    bool is_grpc_app = outr_app_speaks_grpc(d->mesh->o.app);
    const char *verb = extension ? outr__daprd_verb_name((int)extension->verb) : "NONE";
    d->req.method = outr_str_from(verb ? verb : "NONE");
    if (is_grpc_app)
        return true;
    if (!extension) {
        refuse_invoking(d, "rpc error: code = InvalidArgument desc = missing HTTP extension field");
        return false;
    }
    if (outr_str_is(d->req.method, "NONE") || outr_str_is(d->req.method, "CONNECT")) {
        refuse_invoking(d, "rpc error: code = InvalidArgument desc = invalid HTTP verb");
        return false;
    }
    return true;
}

static bool take_target(outr__daprd_served *d, const request *r)
{
    const Dapr__Proto__Common__V1__HTTPExtension *extension = r->message->http_extension;
    outr_str query = extension ? text_of(extension->querystring) : OUTR_STR_NONE;
    outr_err err;
    if (outr__method_target(&d->req.target, d->x->arena, text_of(r->message->method), query,
                            &err) == OUTR_OK) {
        if (outr_str_find(query, '#') < 0)
            return true;
        outr_fail(&err, OUTR_INTERNAL, "invalid character in the query");
    }
    if (err.code == OUTR_INVALID_ARGUMENT)
        outr__daprd_refuse(d, OUTR_INVALID_ARGUMENT, OUTR_WHY_BAD_REQUEST, err.text);
    else
        refuse_invoking(d, err.text);
    return false;
}

static bool take_request(outr__daprd_served *d, const request *r)
{
    char text[96];
    if (!take_target(d, r))
        return false;
    if (r->ver != DAPR__PROTO__INTERNALS__V1__APIVERSION__V1) {
        snprintf(text, sizeof text,
                 "rpc error: code = Unimplemented desc = Unsupported spec version: %d",
                 (int)r->ver);
        refuse_invoking(d, text);
        return false;
    }
    if (!take_verb(d, r) || !take_metadata(d, r))
        return false;
    take_trace(d);
    return true;
}

/* ---- is there a body? ------------------------------------------------------------------------ */

static void be_ready(outr__daprd_served *d, outr_source *body)
{
    if (d->is_ready)
        return;
    d->is_ready = true;
    outr_timer_stop(d->x->loop, &d->patience);
    d->body = body;
    if (!body && d->req.content_length < 0)
        d->req.content_length = 0;
    d->on_ready(d);
}

static bool may_have_body(outr_str method)
{
    return outr_str_is(method, "POST") || outr_str_is(method, "PUT") ||
           outr_str_is(method, "PATCH") || outr_str_is(method, "NONE");
}

static void on_patience(outr_timer *timer)
{
    outr__daprd_served *d = OUTR_CONTAINER(timer, outr__daprd_served, patience);
    be_ready(d, &d->reader.source);
}

static void on_payload(outr__daprd_reader *reader)
{
    be_ready(reader->user, &reader->source);
}

/* False: refused. */
static bool settle_body(outr__daprd_served *d, const request *r, bool has_payload)
{
    outr_str data =
        d->is_unary && r->message->data ? outr_proto_bytes(r->message->data->value) : OUTR_STR_NONE;
    if (d->is_unary) {
        d->req.content_length = (int64_t)data.n;
        outr_memory_source_init(&d->memory, d->x->loop, data);
        be_ready(d, data.n ? &d->memory.base : NULL);
    } else if (d->req.content_length == 0) {
        be_ready(d, NULL);
    } else if (has_payload || d->req.content_length > 0 || may_have_body(d->req.method)) {
        be_ready(d, &d->reader.source);
    } else {
        d->patience.fire = on_patience;
        outr_timer_start(d->x->loop, &d->patience, outr_loop_now(d->x->loop) + BODY_PATIENCE_NS);
    }
    return !d->has_answered;
}

/* ---- messages -------------------------------------------------------------------------------- */

static const char lacks[] = "parsing InternalInvokeRequest error: request does not contain the "
                            "required fields in the leading chunk";

static bool on_head(outr__daprd_reader *reader, const outr__daprd_piece *piece)
{
    outr__daprd_served *d = reader->user;
    void *message;
    outr_err err;
    if (!piece->has_head) {
        outr__daprd_refuse(d, OUTR_INVALID_ARGUMENT, OUTR_WHY_BAD_REQUEST, lacks);
        return false;
    }
    if (outr_proto_read(&message, d->x->arena,
                        &dapr__proto__internals__v1__internal_invoke_request__descriptor,
                        piece->head, &err)) {
        refuse_bare(d, err.code, err.text);
        return false;
    }
    const request *r = message;
    if (d->is_unary && !r->message) {
        outr__daprd_refuse(d, OUTR_INVALID_ARGUMENT, OUTR_WHY_BAD_REQUEST,
                           "parsing InternalInvokeRequest error: field Message is nil");
        return false;
    }
    if (!r->message || (!d->is_unary && r->n_metadata == 0)) {
        outr__daprd_refuse(d, OUTR_INVALID_ARGUMENT, OUTR_WHY_BAD_REQUEST, lacks);
        return false;
    }
    return take_request(d, r) && settle_body(d, r, piece->has_payload);
}

static outr_code on_over(outr__daprd_reader *reader, const outr_headers *trailers OUTR_UNUSED,
                         const outr_err *err, outr_err *out)
{
    outr__daprd_served *d = reader->user;
    if (err)
        *out = *err;
    if (d->has_answered)
        return err ? err->code : OUTR_OK;
    if (!reader->has_head && err) {
        refuse_bare(d, err->code, err->text);
        return OUTR_OK;
    }
    if (!reader->has_head) {
        if (d->is_unary)
            refuse_bare(d, OUTR_INTERNAL, "grpc: a unary call without a message");
        else
            outr__daprd_refuse(d, OUTR_UNKNOWN, OUTR_WHY_BAD_REQUEST, "EOF");
        return OUTR_OK;
    }
    if (err && d->is_ready)
        d->failure = *err;
    else if (!d->is_ready)
        be_ready(d, err ? &reader->source : NULL);
    return err ? err->code : OUTR_OK;
}

static void start_reading(outr__daprd_served *d)
{
    int64_t max = d->mesh->o.settings->max_body_bytes;
    d->reader = (outr__daprd_reader){
        .loop = d->x->loop,
        .max_bytes = max > 0 ? (size_t)max : UINT32_MAX,
        .encoding = outr_headers_get(&d->x->req.headers, "grpc-encoding"),
        .is_request = true,
        .is_unary = d->is_unary,
        .on_head = on_head,
        .on_payload = on_payload,
        .on_over = on_over,
        .user = d,
    };
    outr__daprd_reader_start(&d->reader, d->x->body);
}

void outr__daprd_serve(outr_mesh *mesh, outr_exchange *x, void (*on_ready)(outr__daprd_served *d))
{
    outr_str method = outr_str_skip(x->req.target, sizeof OUTR__INTERNALS - 1);
    outr__daprd_served *d = outr_arena_alloc(x->arena, sizeof *d);
    uint64_t timeout_ns;
    d->mesh = mesh;
    d->x = x;
    d->on_ready = on_ready;
    d->is_unary = outr_str_is(method, "CallLocal");
    x->user = d;
    x->on_gone = on_gone;
    if (outr_str_starts(method, OUTR_STR("CallActor"))) {
        outr__daprd_refuse(d, OUTR_UNAVAILABLE, OUTR_WHY_BAD_REQUEST,
                           "placement service is not configured");
    } else if (!d->is_unary && !outr_str_is(method, "CallLocalStream")) {
        outr__daprd_refuse(d, OUTR_UNKNOWN, OUTR_WHY_NO_TARGET,
                           "failed to proxy request: required metadata dapr-callee-app-id or "
                           "dapr-app-id not found");
    } else if (!outr_app_is_configured(mesh->o.app)) {
        outr__daprd_refuse(d, OUTR_INTERNAL, OUTR_WHY_NO_APP, "app channel is not initialized");
    } else if (!outr_grpc_timeout_read(&timeout_ns, &x->req.headers)) {
        refuse_bare(d, OUTR_INTERNAL, "malformed grpc-timeout");
    } else {
        if (timeout_ns)
            d->deadline_ns = outr_loop_now(x->loop) + timeout_ns;
        start_reading(d);
    }
}

/* ---- the answer ------------------------------------------------------------------------------ */

static const outr_headers *ok(outr__daprd_served *d)
{
    outr_headers_init(&d->trailers, d->x->arena);
    outr_grpc_status_write(&d->trailers, &(outr_grpc_status){.code = OUTR_OK});
    return &d->trailers;
}

static const outr_headers *on_broken(outr__daprd_writer *writer, const outr_err *err)
{
    outr__daprd_served *d = writer->user;
    outr_headers_init(&d->trailers, d->x->arena);
    outr_grpc_status_write(
        &d->trailers,
        &(outr_grpc_status){.code = OUTR_INTERNAL,
                            .message = outr_arena_printf(
                                d->x->arena, "the answer of the app broke off: %s", err->text)});
    return &d->trailers;
}

/* What the app said, but for what this hop alone is told. Names as Go spells them, metadata of gRPC
 * as it is. */
static void take_answer_headers(outr__daprd_served *d, const outr_http_response *head, bool is_grpc)
{
    const outr_headers *in = &head->headers;
    outr_arena *arena = d->x->arena;
    outr_headers_init(&d->headers, arena);
    if (is_grpc)
        outr_headers_add(&d->headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    for (size_t i = 0; i < in->count; i++) {
        const outr_header *h = &in->items[i];
        if (outr_header_is_hop_by_hop(in, h->name) ||
            outr_str_istarts(h->name, OUTR_STR("outrigger-")) ||
            (is_grpc && outr_str_iis(h->name, "content-type")))
            continue;
        outr_str value =
            is_grpc && outr_grpc_is_bin(h->name) ? outr__daprd_pad(arena, h->value) : h->value;
        outr_headers_add(&d->headers, is_grpc ? h->name : outr__daprd_canonical(arena, h->name),
                         value);
    }
    if (d->wants_events && head->content_length >= 0)
        outr_headers_add(&d->headers, OUTR_STR("Content-Length"),
                         outr_arena_printf(arena, "%lld", (long long)head->content_length));
    d->answer.headers = &d->headers;
}

/* The status of an app that speaks gRPC, as app/on_invoke left it. False: it speaks HTTP. */
static bool take_grpc_status(outr__daprd_served *d, const outr_headers *in)
{
    uint64_t code;
    outr_arena *arena = d->x->arena;
    if (!outr_app_speaks_grpc(d->mesh->o.app) ||
        !outr_str_to_u64(outr_headers_get(in, OUTR_INVOKE_STATUS_HEADER), 99, &code))
        return false;
    d->answer.status.code = (int)code;
    outr_str text = outr_headers_get(in, OUTR_INVOKE_MESSAGE_HEADER);
    if (!outr_percent_decode(arena, text, false, &d->answer.status.message))
        d->answer.status.message = text;
    text = outr_headers_get(in, OUTR_INVOKE_DETAILS_HEADER);
    if (text.n == 0 || !outr_base64_decode(arena, text, &d->answer.status.details))
        d->answer.status.details = OUTR_STR_NONE;
    return true;
}

/* An unary answer, or one that has to be known whole before its head can be written. */
static void write_whole(outr__daprd_served *d, outr_str body)
{
    outr_arena *arena = d->x->arena;
    outr_http_response head;
    outr_str bytes;
    uint64_t seq = 0;
    if (d->is_unary)
        d->answer.data = body;
    if (outr__daprd_answer_write(&bytes, arena, &d->answer, &d->failure))
        return;
    d->has_answered = true;
    init_head(d, &head, d->is_unary);
    outr_sink *sink = outr_http_respond(d->x, &head);
    sink->ops->data(sink, d->is_unary ? outr_grpc_frame_bytes(bytes)
                                      : outr__daprd_frames(&bytes, body, &seq, d->writer.marks));
    sink->ops->end(sink, ok(d));
}

static void on_gathered(outr_gather *gather, const outr_err *err)
{
    outr__daprd_served *d = gather->ctx;
    if (err)
        d->failure = *err;
    else
        write_whole(d, outr_buf_view(&gather->body));
    outr_buf_done(&gather->body);
}

/* ---- of an app that speaks gRPC: its trailers go into the head ------------------------------- */

static bool collect_data(outr_sink *sink, outr_slice own_slice)
{
    outr__daprd_served *d = OUTR_CONTAINER(sink, outr__daprd_served, collector);
    outr_bufq_push(&d->collected, own_slice); /* in memory already, and bounded, by app/on_invoke */
    return true;
}

/* An app that refuses says everything in its trailers, as gRPC-Go reads them. */
static void say_in_trailers(outr__daprd_served *d)
{
    outr_str details = d->answer.status.details;
    for (size_t i = 0; i < d->headers.count; i++)
        outr_headers_add(&d->said_trailers, d->headers.items[i].name, d->headers.items[i].value);
    if (details.n > 0)
        outr_headers_add(&d->said_trailers, OUTR_STR("grpc-status-details-bin"),
                         outr_base64_encode(d->x->arena, details));
    d->answer.headers = NULL;
}

static void collect_end(outr_sink *sink, const outr_headers *trailers)
{
    outr__daprd_served *d = OUTR_CONTAINER(sink, outr__daprd_served, collector);
    outr_str body = OUTR_STR_NONE, pieces[16];
    sink->source = NULL;
    outr_headers_init(&d->said_trailers, d->x->arena);
    for (size_t i = 0; trailers && i < trailers->count; i++) {
        const outr_header *h = &trailers->items[i];
        outr_headers_add(&d->said_trailers, h->name,
                         outr_grpc_is_bin(h->name) ? outr__daprd_pad(d->x->arena, h->value)
                                                   : h->value);
    }
    d->answer.trailers = &d->said_trailers;
    if (d->answer.status.code != OUTR_OK)
        say_in_trailers(d);
    size_t count = outr_bufq_peek(&d->collected, pieces, OUTR_LEN(pieces));
    for (size_t i = 0; i < count && d->answer.status.code == OUTR_OK; i++)
        body = i == 0 ? pieces[0] : outr_arena_join(d->x->arena, body, pieces[i], OUTR_STR_NONE);
    write_whole(d, body);
}

static void collect_abort(outr_sink *sink, const outr_err *err)
{
    outr__daprd_served *d = OUTR_CONTAINER(sink, outr__daprd_served, collector);
    sink->source = NULL;
    d->failure = *err;
}

static const outr_sink_ops collector_ops = {
    .data = collect_data, .end = collect_end, .abort = collect_abort};

static void answer_grpc(outr__daprd_served *d, outr_http_call *http)
{
    bool is_ok = d->answer.status.code == OUTR_OK;
    d->answer.has_message = d->answer.has_data = is_ok;
    d->answer.type_url = outr_headers_get(&http->head.headers, OUTR_INVOKE_TYPE_HEADER);
    if (!is_ok)
        d->answer.content_type = OUTR_STR_NONE;
    d->collector.ops = &collector_ops;
    if (http->response)
        outr_source_attach(http->response, &d->collector);
    else
        collect_end(&d->collector, NULL);
}

static void answer_http(outr__daprd_served *d, outr_http_call *http)
{
    outr_http_response head;
    outr_str bytes;
    if (!http->response) {
        write_whole(d, OUTR_STR_NONE);
        return;
    }
    if (d->is_unary) {
        int64_t max = d->mesh->o.settings->max_body_bytes;
        outr_gather_start(&d->gather, http->response, max > 0 ? (size_t)max : UINT32_MAX,
                          on_gathered, d);
        return;
    }
    if (outr__daprd_answer_write(&bytes, d->x->arena, &d->answer, &d->failure)) {
        outr_source_cancel(http->response, NULL);
        return;
    }
    d->has_answered = true;
    init_head(d, &head, false);
    outr_sink *sink = outr_http_respond(d->x, &head);
    d->writer.loop = d->x->loop;
    d->writer.from = http->response;
    d->writer.head = bytes;
    d->writer.trailers = ok(d);
    d->writer.on_broken = on_broken;
    d->writer.user = d;
    outr_source_attach(outr__daprd_writer_init(&d->writer), sink);
}

void outr__daprd_answered(outr__daprd_served *d, outr_http_call *http)
{
    const outr_http_response *head = &http->head;
    outr_str type = outr_headers_get(&head->headers, "content-type");
    bool is_grpc = take_grpc_status(d, &head->headers);
    d->answer.content_type = type;
    take_answer_headers(d, head, is_grpc);
    if (is_grpc) {
        answer_grpc(d, http);
        return;
    }
    d->answer.status.code = head->status;
    d->answer.has_message = true;
    d->answer.has_data = d->is_unary;
    if (d->wants_events && (head->status < 200 || head->status > 299)) {
        outr_fail(&d->failure, OUTR_INTERNAL, "no response received from stream");
        outr_source_cancel(http->response, NULL);
        return;
    }
    if (d->wants_events) {
        d->answer.status.code = 0;
        d->answer.has_message = false;
        d->writer.marks = true;
    }
    answer_http(d, http);
}
