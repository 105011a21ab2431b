/* daprd_body - bodies on their way into and out of the messages of CallLocalStream.
 *
 * All are sources in front of a source: fullness passes through, nothing is gathered but one
 * message on the reading side (grpc/reader.h). */
#ifndef OUTR_MESH_DAPRD_BODY_H
#define OUTR_MESH_DAPRD_BODY_H

#include "grpc/reader.h"
#include "mesh/daprd_wire.h"

/* Bytes into messages: a head at once, with the first bytes when they are there already, then
 * pieces. */
typedef struct outr__daprd_writer {
    outr_source source; /* what the call reads */
    /* in */
    outr_loop *loop;
    outr_source *from; /* NULL: no body */
    outr_str head;
    bool is_framed; /* head is bytes of the wire already, so are those that follow: a unary call */
    bool marks;     /* outr__daprd_frames */
    const outr_headers *trailers; /* given with the end; may be NULL */
    /* A body that breaks off: what is to be said instead of breaking the call off. May be NULL. */
    const outr_headers *(*on_broken)(struct outr__daprd_writer *writer, const outr_err *err);
    void *user;
    /* machinery */
    outr_sink sink;
    outr_deferred header;
    uint64_t seq;
    bool has_sent_head;
} outr__daprd_writer;
/* The fields under `in` are set. */
outr_source *outr__daprd_writer_init(outr__daprd_writer *writer);

/* Messages into bytes. The first one is the owner's to look at. */
typedef struct outr__daprd_reader outr__daprd_reader;
struct outr__daprd_reader {
    outr_source source; /* the payloads' bytes */
    /* in */
    outr_loop *loop;
    size_t max_bytes; /* of one message */
    outr_str encoding;
    bool is_request;
    bool is_unary; /* one message, which is all head */
    /* The first message. False: it was not taken, nothing more is told. */
    bool (*on_head)(outr__daprd_reader *reader, const outr__daprd_piece *piece);
    /* A payload has come and nobody listens. May be NULL. */
    void (*on_payload)(outr__daprd_reader *reader);
    /* The messages are over: clean (err NULL) or not. What it says goes to the sink: OK ends the
     * body, else it breaks off with *out. Nothing more is told when no head came. */
    outr_code (*on_over)(outr__daprd_reader *reader, const outr_headers *trailers,
                         const outr_err *err, outr_err *out);
    void *user;
    bool drops_payloads; /* set by on_head: bytes stands for the body; on an arena */
    outr_str bytes;
    const outr_headers *trailers; /* set by on_head: of the body; may be NULL */
    /* machinery */
    outr_grpc_reader messages;
    outr_deferred pusher;
    outr_slice held; /* until somebody listens, or listens again */
    uint64_t seq;
    bool has_head, is_over, is_cancelled, is_full;
    outr_err end; /* is_over: how */
};
void outr__daprd_reader_start(outr__daprd_reader *reader, outr_source *from);
/* Lets go of everything; the sink hears nothing. */
void outr__daprd_reader_cancel(outr__daprd_reader *reader);

#endif
