/* reader - a body cut into gRPC messages (PROTOCOL-HTTP2, "Length-Prefixed-Message").
 *
 * A message that lies in one piece is handed on where it lies; else it is gathered, up to
 * max_bytes. gzip is unpacked, under the same limit. */
#ifndef OUTR_GRPC_READER_H
#define OUTR_GRPC_READER_H

#include "base/buf.h"
#include "http/message.h"
#include "net/pipe.h"

typedef struct outr_grpc_reader outr_grpc_reader;
struct outr_grpc_reader {
    /* in */
    size_t max_bytes;  /* of one message, unpacked too */
    outr_str encoding; /* grpc-encoding; NONE or "identity": none */
    /* A whole message, borrowed for the call. False: no more of them until resume, which comes from
     * an event of its own. */
    bool (*on_message)(outr_grpc_reader *reader, outr_str message);
    /* Once, unless cancelled before. err: NULL at a clean end, else RESOURCE_EXHAUSTED (message
     * over the limit), INTERNAL (not framed as said), UNIMPLEMENTED (encoding), or what broke the
     * body. trailers: borrowed for the call, may be NULL. */
    void (*on_end)(outr_grpc_reader *reader, const outr_headers *trailers, const outr_err *err);
    void *user;
    /* machinery */
    outr_sink sink;
    unsigned char prefix[5];
    size_t prefix_n, length;
    outr_buf message; /* gathered so far */
    outr_bufq held;   /* while paused */
    bool is_paused, is_over;
};

/* Whether messages in that grpc-encoding can be read. */
bool outr_grpc_reader_can(outr_str encoding);

/* source NULL: an empty body; on_end is called at once then. */
void outr_grpc_reader_start(outr_grpc_reader *reader, outr_source *source);
void outr_grpc_reader_resume(outr_grpc_reader *reader);
/* Lets go of the rest; harmless after the end, and when never started. */
void outr_grpc_reader_cancel(outr_grpc_reader *reader);

#endif
