/* stream - a connected byte stream: TCP, Unix socket, TLS over either, or the simulator's.
 *
 * Layers stack as filters (tls/ wraps a stream in a stream). A stream lives on one loop. Reading
 * starts paused. Writes never block and never fail at once: what the kernel does not take is kept,
 * and the write side is "full" above high_water until it falls below low_water (on_drain). */
#ifndef OUTR_NET_STREAM_H
#define OUTR_NET_STREAM_H

#include "base/chunk.h"
#include "loop/loop.h"

typedef struct outr_stream outr_stream;

typedef struct outr_stream_ops {
    void (*read_start)(outr_stream *s);
    void (*read_stop)(outr_stream *s);
    void (*write)(outr_stream *s, outr_bufq *own_bytes); /* takes all slices out of own_bytes */
    void (*shutdown)(outr_stream *s);                    /* half-close once everything is written */
    void (*close)(outr_stream *s, bool is_reset);        /* reset: RST, unsent bytes are dropped */
    void (*nodelay)(outr_stream *s, bool on);
} outr_stream_ops;

/* Events, set by the owner before read_start. Any of them may call outr_stream_close. */
typedef struct outr_stream_events {
    /* Bytes came: n > 0. `chunk` holds them (outr_slice_of keeps them without a copy). */
    void (*on_data)(outr_stream *s, outr_chunk *chunk, const char *p, size_t n);
    void (*on_eof)(outr_stream *s);   /* peer half-closed; writing still works */
    void (*on_drain)(outr_stream *s); /* below low water again; may be NULL */
    void (*on_error)(outr_stream *s,
                     const outr_err *err); /* broken both ways; only close is left */
    void (*on_closed)(outr_stream *s); /* last event; the stream is gone after it. May be NULL */
} outr_stream_events;

struct outr_stream {
    const outr_stream_ops *ops;
    const outr_stream_events *events;
    void *owner; /* the events' context */
    outr_loop *loop;
    outr_addr peer, local;
    size_t pending_bytes;         /* written but not taken by the kernel yet */
    size_t high_water, low_water; /* 64 KiB, 16 KiB unless changed */
    bool is_closing;
    bool is_secure; /* TLS */
    outr_str alpn;  /* negotiated protocol, NONE without TLS */
    /* TLS: the one URI name of the peer's certificate, when it was verified; lives as long as s. */
    outr_str peer_id;
    const char *why; /* before on_error: a word for what the peer must not do, and did; or NULL */
    uint64_t expires_ns; /* loop time when a certificate of either side ends; 0: none does */
};

static inline void outr_stream_read_start(outr_stream *s)
{
    s->ops->read_start(s);
}
static inline void outr_stream_read_stop(outr_stream *s)
{
    s->ops->read_stop(s);
}
static inline void outr_stream_write(outr_stream *s, outr_bufq *own_bytes)
{
    s->ops->write(s, own_bytes);
}
static inline bool outr_stream_is_full(const outr_stream *s)
{
    return s->pending_bytes > s->high_water;
}
static inline void outr_stream_shutdown(outr_stream *s)
{
    s->ops->shutdown(s);
}
/* on_closed follows in a later turn; no other event comes after this. Calling it twice is harmless.
 */
void outr_stream_close(outr_stream *s);
void outr_stream_reset(outr_stream *s);

#endif
