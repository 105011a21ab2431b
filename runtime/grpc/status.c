#include "grpc/status.h"

#include "base/encode.h"

/* of a request that is no gRPC call: read before the answer, so that it is seen */
#define REFUSED_BODY_MAX (64 * OUTR_KIB)

static bool is_grpc_type(outr_str type)
{
    outr_str rest = outr_str_skip(type, sizeof "application/grpc" - 1);
    return outr_str_istarts(type, OUTR_STR("application/grpc")) &&
           (rest.n == 0 || rest.p[0] == '+' || rest.p[0] == ';');
}

const char *outr_grpc_status_label(outr_code code)
{
    static const char *const labels[] = {"OK",
                                         "CANCELLED",
                                         "UNKNOWN",
                                         "INVALID_ARGUMENT",
                                         "DEADLINE_EXCEEDED",
                                         "NOT_FOUND",
                                         "ALREADY_EXISTS",
                                         "PERMISSION_DENIED",
                                         "RESOURCE_EXHAUSTED",
                                         "FAILED_PRECONDITION",
                                         "ABORTED",
                                         "OUT_OF_RANGE",
                                         "UNIMPLEMENTED",
                                         "INTERNAL",
                                         "UNAVAILABLE",
                                         "DATA_LOSS",
                                         "UNAUTHENTICATED"};
    return labels[(unsigned)code < OUTR_LEN(labels) ? (unsigned)code : OUTR_UNKNOWN];
}

bool outr_grpc_is_call(const outr_http_request *req)
{
    return outr_str_is(req->method, "POST") &&
           is_grpc_type(outr_headers_get(&req->headers, "content-type"));
}

bool outr_grpc_is_answer(const outr_http_response *head)
{
    return is_grpc_type(outr_headers_get(&head->headers, "content-type"));
}

/* A space at either end would not be the peer's to see: field values have none there (RFC 9113
 * section 8.2.1). */
outr_str outr_grpc_message(outr_arena *arena, outr_str text)
{
    static const char inside[] = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}", *const at_end = inside + 1;
    if (text.n < 2)
        return outr_percent_encode(arena, text, at_end);
    return outr_arena_join(
        arena, outr_percent_encode(arena, outr_str_head(text, 1), at_end),
        outr_percent_encode(arena, outr_str_of(text.p + 1, text.n - 2), inside),
        outr_percent_encode(arena, outr_str_skip(text, text.n - 1), at_end));
}

/* ---- status ---------------------------------------------------------------------------------- */

void outr_grpc_status_write(outr_headers *out, const outr_grpc_status *status)
{
    static const char *const codes[] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                        "9", "10", "11", "12", "13", "14", "15", "16"};
    outr_str code = (unsigned)status->code < OUTR_LEN(codes)
                        ? outr_str_from(codes[status->code])
                        : outr_arena_printf(out->arena, "%u", (unsigned)status->code);
    outr_headers_add(out, OUTR_STR("grpc-status"), code);
    if (status->message.n > 0)
        outr_headers_add(out, OUTR_STR("grpc-message"),
                         outr_grpc_message(out->arena, status->message));
    if (status->details.n > 0)
        outr_headers_add(out, OUTR_STR("grpc-status-details-bin"),
                         outr_grpc_bin_write(out->arena, status->details));
    if (status->reason.n > 0)
        outr_headers_add(out, OUTR_STR(OUTR_REASON_HEADER), status->reason);
    if (status->after_ns)
        outr_headers_add(
            out, OUTR_STR("grpc-retry-pushback-ms"),
            outr_arena_printf(out->arena, "%llu",
                              (unsigned long long)((status->after_ns + OUTR_MS - 1) / OUTR_MS)));
}

static outr_code of_http(int status)
{
    switch (status) {
    case 400:
        return OUTR_INTERNAL;
    case 401:
        return OUTR_UNAUTHENTICATED;
    case 403:
        return OUTR_PERMISSION_DENIED;
    case 404:
        return OUTR_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return OUTR_UNAVAILABLE;
    default:
        return OUTR_UNKNOWN;
    }
}

void outr_grpc_status_read(outr_grpc_status *out, const outr_headers *trailers, int http_status)
{
    uint64_t code;
    outr_str text = outr_headers_get(trailers, "grpc-status");
    *out = (outr_grpc_status){.code = OUTR_UNKNOWN};
    if (!text.p) {
        out->code = of_http(http_status);
        out->message = http_status == 200
                           ? OUTR_STR("the answer has no grpc-status")
                           : outr_arena_printf(
                                 trailers->arena,
                                 "unexpected HTTP status code received from server: %d",
                                 http_status);
        return;
    }
    if (outr_str_to_u64(text, INT32_MAX, &code))
        out->code = (outr_code)code;
    text = outr_headers_get(trailers, "grpc-message");
    if (!outr_percent_decode(trailers->arena, text, false, &out->message))
        out->message = text;
    text = outr_headers_get(trailers, "grpc-status-details-bin");
    if (text.n == 0 || !outr_base64_decode(trailers->arena, text, &out->details))
        out->details = OUTR_STR_NONE;
}

/* ---- timeouts -------------------------------------------------------------------------------- */

static const struct {
    char letter;
    uint64_t ns;
} units[] = {{'n', 1},        {'u', 1000},          {'m', OUTR_MS},
             {'S', OUTR_SEC}, {'M', 60 * OUTR_SEC}, {'H', 3600 * OUTR_SEC}};

bool outr_grpc_timeout_read(uint64_t *out_ns, const outr_headers *headers)
{
    outr_str text = outr_headers_get(headers, "grpc-timeout");
    *out_ns = 0;
    return !text.p || outr_grpc_timeout_parse(out_ns, text);
}

bool outr_grpc_timeout_parse(uint64_t *out_ns, outr_str text)
{
    uint64_t value;
    if (text.n < 2 || text.n > 9 ||
        !outr_str_to_u64(outr_str_head(text, text.n - 1), 99999999, &value))
        return false;
    for (size_t i = 0; i < OUTR_LEN(units); i++) {
        if (units[i].letter == text.p[text.n - 1]) {
            /* 8 digits of hours are more than a clock of nanoseconds holds */
            value = OUTR_MIN(value, OUTR_GRPC_TIMEOUT_MAX_NS / units[i].ns);
            *out_ns = OUTR_MAX(value * units[i].ns, 1u);
            return true;
        }
    }
    return false;
}

outr_str outr_grpc_timeout_write(outr_arena *arena, uint64_t left_ns)
{
    size_t i = 0;
    while (i + 1 < OUTR_LEN(units) && left_ns / units[i].ns > 99999999)
        i++;
    return outr_arena_printf(arena, "%llu%c", (unsigned long long)(left_ns / units[i].ns),
                             units[i].letter);
}

/* ---- binary metadata ------------------------------------------------------------------------- */

bool outr_grpc_is_bin(outr_str name)
{
    return name.n > 4 && outr_str_iis(outr_str_skip(name, name.n - 4), "-bin");
}

outr_str outr_grpc_bin_write(outr_arena *arena, outr_str bytes)
{
    outr_str text = outr_base64_encode(arena, bytes);
    while (text.n > 0 && text.p[text.n - 1] == '=')
        text.n--;
    return text;
}

bool outr_grpc_bin_next(outr_arena *arena, outr_str *list, outr_str *out)
{
    outr_str item;
    *list = outr_str_cut(*list, ',', &item);
    return outr_base64_decode(arena, outr_str_trim(item), out);
}

outr_code outr_grpc_metadata_check(const outr_headers *headers, outr_err *err)
{
    for (size_t i = 0; i < headers->count; i++) {
        const outr_header *h = &headers->items[i];
        outr_str rest = h->value, bytes;
        while (outr_grpc_is_bin(h->name) && rest.p) {
            if (!outr_grpc_bin_next(headers->arena, &rest, &bytes))
                return outr_fail(err, OUTR_INTERNAL,
                                 "malformed binary metadata in header \"" OUTR_FMT
                                 "\": illegal base64 data",
                                 OUTR_ARG(h->name));
        }
    }
    return OUTR_OK;
}

/* ---- refusing -------------------------------------------------------------------------------- */

void outr_grpc_refuse_status(outr_exchange *x, const outr_grpc_status *status)
{
    outr_http_response head = {.status = 200, .content_length = -1};
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_grpc_status_write(&head.headers, status);
    head.content_length = 0;
    outr_http_reply(x, &head, OUTR_STR_NONE);
    outr_http_done(x);
}

void outr_grpc_refuse(outr_exchange *x, outr_code code, outr_str text)
{
    outr_grpc_refuse_status(x, &(outr_grpc_status){.code = code, .message = text});
}

typedef struct refusal {
    outr_sink sink;
    outr_exchange *x;
    size_t bytes;
} refusal;

static void answer_refusal(refusal *r)
{
    outr_exchange *x = r->x;
    outr_http_response head = {.status = 415};
    outr_str type = outr_headers_get(&x->req.headers, "content-type");
    outr_str text = outr_arena_join(
        x->arena, OUTR_STR("invalid gRPC request content-type \""), type, OUTR_STR("\"\n"));
    if (is_grpc_type(type)) {
        head.status = 405;
        text = outr_arena_join(x->arena, OUTR_STR("a gRPC request's method is POST, not "),
                               x->req.method, OUTR_STR("\n"));
    }
    head.content_length = (int64_t)text.n;
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("content-type"),
                     OUTR_STR("text/plain; charset=utf-8"));
    if (r->sink.source)
        outr_source_cancel(r->sink.source, NULL);
    outr_http_reply(x, &head, text);
    outr_http_done(x);
}

static bool refused_data(outr_sink *sink, outr_slice own_slice)
{
    refusal *r = OUTR_CONTAINER(sink, refusal, sink);
    r->bytes += own_slice.n;
    outr_slice_done(&own_slice);
    if (r->bytes > REFUSED_BODY_MAX)
        answer_refusal(r);
    return true;
}

static void refused_end(outr_sink *sink, const outr_headers *trailers OUTR_UNUSED)
{
    sink->source = NULL;
    answer_refusal(OUTR_CONTAINER(sink, refusal, sink));
}

static void refused_abort(outr_sink *sink, const outr_err *err OUTR_UNUSED)
{
    refused_end(sink, NULL);
}

static const outr_sink_ops refused_ops = {
    .data = refused_data, .end = refused_end, .abort = refused_abort};

void outr_grpc_refuse_request(outr_exchange *x)
{
    refusal *r = outr_arena_alloc(x->arena, sizeof *r);
    r->x = x;
    r->sink.ops = &refused_ops;
    if (x->body)
        outr_source_attach(x->body, &r->sink);
    else
        answer_refusal(r);
}

void outr_grpc_on_refuse(outr_exchange *x OUTR_UNUSED, outr_http_response *head)
{
    outr_headers_set(&head->headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_grpc_status_write(
        &head->headers,
        &(outr_grpc_status){.code = OUTR_RESOURCE_EXHAUSTED,
                            .message = OUTR_STR("grpc: more metadata than this server takes")});
}
