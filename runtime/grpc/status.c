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
        out->message = outr_arena_printf(
            trailers->arena, "unexpected HTTP status code received from server: %d", http_status);
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
    uint64_t value;
    *out_ns = 0;
    if (!text.p)
        return true;
    if (text.n < 2 || text.n > 9 ||
        !outr_str_to_u64(outr_str_head(text, text.n - 1), 99999999, &value))
        return false;
    for (size_t i = 0; i < OUTR_LEN(units); i++) {
        if (units[i].letter == text.p[text.n - 1]) {
            *out_ns = OUTR_MAX(value, 1u) * units[i].ns;
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
