#include "grpc/call.h"

void outr__grpc_request_headers(outr_headers *out, outr_arena *arena, uint64_t now_ns,
                                uint64_t deadline_ns, const outr_headers *metadata)
{
    outr_headers_init(out, arena);
    outr_headers_add(out, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_add(out, OUTR_STR("te"), OUTR_STR("trailers"));
    outr_headers_add(out, OUTR_STR("grpc-accept-encoding"), OUTR_STR("gzip"));
    if (deadline_ns)
        outr_headers_add(
            out, OUTR_STR("grpc-timeout"),
            outr_grpc_timeout_write(arena, deadline_ns > now_ns ? deadline_ns - now_ns : 1));
    for (size_t i = 0; i < metadata->count; i++)
        outr_headers_add(out, metadata->items[i].name, metadata->items[i].value);
}

void outr__grpc_keep_trailers(outr_headers *out, const outr_headers *trailers)
{
    for (size_t i = 0; trailers && i < trailers->count; i++)
        outr_headers_add(out, outr_arena_str(out->arena, trailers->items[i].name),
                         outr_arena_str(out->arena, trailers->items[i].value));
}

void outr__grpc_outcome(outr_grpc_status *out, const outr_http_call *http,
                        const outr_headers *trailers, const outr_err *broken,
                        const outr_err *http_err)
{
    bool is_answered = http->progress == OUTR_CALL_ANSWERED;
    const outr_headers *said = outr_headers_has(trailers, "grpc-status")
                                   ? trailers
                                   : &http->head.headers; /* trailers-only */
    bool has_status = is_answered && outr_headers_has(said, "grpc-status");
    if (is_answered && !has_status && http->head.status == 200 && !outr_grpc_is_answer(&http->head))
        *out = (outr_grpc_status){
            .code = OUTR_UNKNOWN,
            .message = outr_arena_join(trailers->arena,
                                       OUTR_STR("received unexpected content-type \""),
                                       outr_headers_get(&http->head.headers, "content-type"),
                                       OUTR_STR("\""))};
    else if (has_status || (is_answered && !http_err->code))
        outr_grpc_status_read(out, said, http->head.status);
    else
        *out = (outr_grpc_status){
            .code = http_err->code,
            .message = outr_arena_str(trailers->arena, outr_str_from(http_err->text))};
    if (broken->code && (!has_status || out->code == OUTR_OK))
        *out = (outr_grpc_status){.code = broken->code, .message = outr_str_from(broken->text)};
}
