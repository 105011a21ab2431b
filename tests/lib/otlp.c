#include "otlp.h"

outr_proto_field otlp_field(outr_str message, uint32_t number)
{
    outr_proto_field f;
    while (outr_proto_next(&message, &f)) {
        if (f.number == number)
            return f;
    }
    return (outr_proto_field){0};
}

unsigned otlp_count_spans(outr_str request)
{
    outr_proto_field f;
    outr_str scope = otlp_field(otlp_field(request, 1).bytes, 2).bytes;
    unsigned n = 0;
    while (outr_proto_next(&scope, &f))
        n += f.number == 2;
    return n;
}

void otlp_answer_grpc(outr_exchange *x)
{
    outr_http_response head = {.status = 200, .content_length = -1};
    outr_headers trailers;
    outr_headers_init(&head.headers, x->arena);
    outr_headers_add(&head.headers, OUTR_STR("content-type"), OUTR_STR("application/grpc"));
    outr_headers_init(&trailers, x->arena);
    outr_headers_add(&trailers, OUTR_STR("grpc-status"), OUTR_STR("0"));
    outr_sink *sink = outr_http_respond(x, &head);
    sink->ops->data(sink, outr_slice_copy(outr_str_of("\0\0\0\0\0", 5)));
    sink->ops->end(sink, &trailers);
    outr_http_done(x);
}
