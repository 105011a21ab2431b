/* h2_session - an HTTP/2 session around nghttp2: frames in and out, streams with bodies, no I/O.
 *
 * Both sides use it. The owner feeds bytes and takes what is to be sent from `out`; bodies pass by
 * reference. Flow control is by hand: a window opens again only when the consumer has taken the
 * bytes, so a stream holds at most one window back. RFC 9113, RFC 8441. */
#ifndef OUTR_HTTP_H2_SESSION_H
#define OUTR_HTTP_H2_SESSION_H

#include <nghttp2/nghttp2.h>

#include "http/h2_guard.h"
#include "http/message.h"
#include "loop/loop.h"
#include "net/pipe.h"

typedef struct outr__h2 outr__h2;
typedef struct outr__h2_stream outr__h2_stream;

/* Told to the owner. None may free the session or a stream; what ends is freed in a turn of its
 * own. */
typedef struct outr__h2_events {
    /* Server: a head is complete. Client: a final response head (status set) is complete. */
    void (*on_head)(outr__h2 *h2, outr__h2_stream *s);
    void (*on_inform)(outr__h2 *h2, outr__h2_stream *s,
                      int status); /* client: 1xx; s->headers hold it */
    /* The stream is gone for nghttp2. error_code 0: both sides ended cleanly. */
    void (*on_close)(outr__h2 *h2, outr__h2_stream *s, uint32_t error_code);
    /* The end of the body has been told to its sink, or the sink cancelled. May be NULL. */
    void (*on_told)(outr__h2 *h2, outr__h2_stream *s);
    void (*on_ping)(outr__h2 *h2);                            /* of the peer; answered already */
    void (*on_pong)(outr__h2 *h2, const uint8_t *opaque); /* 8 bytes, as they were sent */
    void (*on_goaway)(outr__h2 *h2, outr_str text); /* its debug data */
    void (*on_goaway_sent)(outr__h2 *h2); /* it is in out. May be NULL */
    void (*on_settings)(outr__h2 *h2);
    void (*wants_flush)(outr__h2 *h2); /* something is to be sent */
    outr__h2_stream *(*new_stream)(
        outr__h2 *h2); /* server: for a request that begins; NULL: refuse it */
} outr__h2_events;

struct outr__h2 {
    nghttp2_session *session;
    const outr__h2_events *events;
    outr_loop *loop;
    bool is_server;
    outr_chunk *chunk; /* being fed; NULL: bytes of no chunk */
    size_t max_header_bytes, max_headers;
    outr_bufq out;
    uint16_t settings_id; /* looked for in the peer's SETTINGS */
    uint32_t peer_setting;
    size_t held;            /* body bytes of all streams that nobody has taken yet */
    size_t owed;            /* of them: not given back to the connection's window yet */
    uint64_t head_since_ns; /* when the head being received began; 0: none */
    outr__h2_guard guard;
};

/* Embedded in the owner's per-stream object. */
struct outr__h2_stream {
    outr__h2 *h2;
    int32_t id;
    outr_arena *arena;
    /* what came */
    outr_headers headers; /* of the head, later reused for trailers */
    outr_str method, scheme, authority, path, protocol;
    int status;
    size_t head_bytes;
    bool is_too_large, has_message, in_trailers;
    outr_source in; /* its body */
    outr_bufq held;
    outr_deferred pusher;
    uint64_t last_ns; /* when its last body byte came or could come again */
    uint64_t sent_ns; /* when something of it was last sent */
    bool in_ended, is_told, is_discarding, is_sink_full, wants_continue;
    outr_code in_broken; /* 0: not broken off */
    const char *in_broken_text;
    uint64_t received_bytes;
    /* what goes */
    outr_sink out;
    outr_bufq queue;
    outr_slice part;              /* taken from queue and sent in part */
    int64_t out_left;             /* of the declared length; -1: none declared */
    const outr_headers *trailers; /* copied to arena */
    bool out_ended, out_is_open, has_sent_head, is_deferred, is_closed, is_out_full;
    bool has_sent_end, stops_input, was_reset;
    uint64_t sent_bytes;
};

typedef struct outr__h2_options {
    outr_loop *loop;
    bool is_server, allow_connect_protocol;
    const outr_http_limits *limits;
    const outr__h2_events *events;
    uint16_t settings_id;
    uint32_t settings_value;
} outr__h2_options;

outr_code outr__h2_init(outr__h2 *h2, const outr__h2_options *options, outr_err *err);
void outr__h2_done(outr__h2 *h2);
/* False: the session is broken or over; send what is in out and close. */
bool outr__h2_feed(outr__h2 *h2, outr_chunk *chunk, const char *p, size_t n);
/* Moves frames that may be sent into out, a few hundred KiB at most; *has_more: call again when out
 * is
 * written. False: nothing more will ever be read or written. */
bool outr__h2_pull(outr__h2 *h2, bool *has_more);

void outr__h2_stream_init(outr__h2_stream *s, outr__h2 *h2, outr_arena *arena);
/* Lets go of both bodies, breaking off what is not at its end; s is nothing more to the session. */
void outr__h2_stream_done(outr__h2_stream *s, const outr_err *err);
/* Breaks the body that comes off; its sink hears of it now. text is static. */
void outr__h2_stream_break(outr__h2_stream *s, outr_code code, const char *text);
/* RST_STREAM. */
void outr__h2_stream_reset(outr__h2_stream *s, uint32_t error_code);
/* The rest of what comes is not wanted: RST_STREAM with NO_ERROR, once our side has ended (RFC 9113
 * section 8.1). */
void outr__h2_stream_stop_input(outr__h2_stream *s);
/* Submits a head; has_body: s->out takes DATA until it is ended. date is added when the head has
 * none. */
outr_code outr__h2_submit_response(outr__h2_stream *s, const outr_http_response *head,
                                   outr_str date, bool has_body);
void outr__h2_submit_inform(outr__h2_stream *s, const outr_http_response *head);
outr_code outr__h2_submit_request(outr__h2_stream *s, const outr_http_request *req, bool has_body,
                                  outr_err *err);

#endif
