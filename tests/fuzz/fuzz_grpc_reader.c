/* Any bytes as the body of a gRPC call. The first byte says in which pieces they come, whether gzip
 * is announced and how often the consumer pauses. */
#include "grpc/reader.h"
#include "property.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGE_MAX 4096

typedef struct rig {
    outr_grpc_reader reader;
    outr_source source;
    unsigned messages, pauses, ends, every;
} rig;

static bool on_message(outr_grpc_reader *reader, outr_str message)
{
    rig *r = reader->user;
    PROPERTY(message.n <= MESSAGE_MAX && r->ends == 0);
    for (size_t i = 0; i < message.n; i++) /* every byte is there to be read */
        r->pauses ^= (unsigned char)message.p[i];
    return r->every == 0 || ++r->messages % r->every != 0;
}

static void on_end(outr_grpc_reader *reader, const outr_headers *trailers, const outr_err *err)
{
    rig *r = reader->user;
    (void)trailers;
    PROPERTY(r->ends == 0);
    PROPERTY(!err || err->code != OUTR_OK);
    r->ends++;
}

static void nothing(outr_source *source)
{
    (void)source;
}

static void cancelled(outr_source *source, const outr_err *err)
{
    (void)source;
    (void)err;
}

static const outr_source_ops source_ops = {nothing, nothing, cancelled};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t pieces[] = {1, 3, 64, 65536};
    if (size < 1)
        return 0;
    rig r = {.source.ops = &source_ops, .every = data[0] >> 2 & 3};
    size_t piece = pieces[data[0] & 3];
    r.reader = (outr_grpc_reader){.max_bytes = MESSAGE_MAX,
                                  .encoding = data[0] & 16   ? OUTR_STR("gzip")
                                              : data[0] & 32 ? OUTR_STR("br")
                                                             : OUTR_STR_NONE,
                                  .on_message = on_message,
                                  .on_end = on_end,
                                  .user = &r};
    outr_grpc_reader_start(&r.reader, &r.source);
    for (size_t at = 1; at < size && r.source.sink; at += piece) {
        size_t n = OUTR_MIN(piece, size - at);
        outr_sink *sink = r.source.sink;
        bool is_full =
            !sink->ops->data(sink, outr_slice_copy(outr_str_of((const char *)data + at, n)));
        while (is_full && r.source.sink && r.reader.is_paused)
            outr_grpc_reader_resume(&r.reader);
    }
    outr_sink *sink = r.source.sink;
    r.source.sink = NULL;
    if (sink)
        sink->ops->end(sink, NULL);
    PROPERTY(r.ends == 1);
    outr_grpc_reader_cancel(&r.reader);
    return 0;
}
