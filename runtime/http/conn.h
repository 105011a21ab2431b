/* conn - what connections share inside this directory: a place in the server's list or the pool, an
 * output queue flushed once per turn, one lazy timer.
 *
 * Nothing here is freed while somebody up the stack may still hold it: connections and exchanges
 * that
 * are over go in a deferred call of their own. */
#ifndef OUTR_HTTP_CONN_H
#define OUTR_HTTP_CONN_H

#include "http/client.h"
#include "http/server.h"

/* Moving a deadline costs a store; the timer is set again only when it fires too early. The owner
 * sets timer.fire. */
typedef struct outr__deadline {
    outr_timer timer;
    uint64_t at_ns; /* 0: none */
} outr__deadline;

void outr__deadline_set(outr_loop *loop, outr__deadline *deadline, uint64_t at_ns);
/* From timer.fire: whether it is time; otherwise the timer is on again. */
bool outr__deadline_is_due(outr_loop *loop, outr__deadline *deadline);

/* All of from, to walk a list whose items may go while it is walked: pop one, push it back, look.
 */
static inline void outr__list_take(outr_list *all, outr_list *from)
{
    outr_list_init(all);
    while (!outr_list_is_empty(from))
        outr_list_push(all, outr_list_pop(from));
}

/* When a connection is given up because a certificate of either side is about to end: early enough
 * for what is on it, and not all of a short life. 0: never. */
static inline uint64_t outr__leave_time(const outr_stream *stream, uint64_t now_ns)
{
    if (!stream->expires_ns)
        return 0;
    uint64_t left_ns = stream->expires_ns > now_ns ? stream->expires_ns - now_ns : 0;
    return now_ns + left_ns - OUTR_MIN(left_ns / 8, 30 * OUTR_SEC);
}

/* When a connection is over whatever goes on on it, and why: OUTR_TLS_*. */
typedef struct outr__end {
    uint64_t at_ns; /* 0: it is not */
    const char *reason;
} outr__end;

static inline void outr__end_sooner(outr__end *end, uint64_t at_ns, const char *reason)
{
    if (at_ns && (!end->at_ns || at_ns < end->at_ns))
        *end = (outr__end){at_ns, reason};
}

/* Whether the peer takes what it is sent. */
typedef struct outr__stall {
    uint64_t written, taken;
    uint64_t since_ns; /* of the last progress; 0: nothing waits */
} outr__stall;

/* Hands out to the stream. */
void outr__stall_write(outr__stall *stall, outr_stream *stream, outr_bufq *out);
/* When patience ends; UINT64_MAX: nothing waits. */
uint64_t outr__stall_deadline(outr__stall *stall, const outr_stream *stream, uint64_t now,
                              uint64_t patience_ns);
bool outr__stall_is_over(outr__stall *stall, const outr_stream *stream, uint64_t now,
                         uint64_t patience_ns);

/* ---- server connections ---------------------------------------------------------------------- */

typedef struct outr__conn outr__conn;

/* Which protocol a server's connection speaks. */
typedef struct outr__conn_ops {
    void (*flush)(outr__conn *conn);  /* end of a turn in which something was written */
    void (*drain)(outr__conn *conn);  /* finish what is in flight, then close */
    void (*expire)(outr__conn *conn); /* the deadline has passed */
} outr__conn_ops;

struct outr__conn {
    const outr__conn_ops *ops;
    outr_link link; /* in the server's list */
    outr_http_server *server;
    outr_loop *loop;
    outr_stream *stream;
    outr_bufq out;
    outr_deferred flusher;
    outr__deadline deadline;
    outr__stall stall;
    outr__end end; /* HTTP/2 */
};

/* What a connection does for its exchanges. */
typedef struct outr__exchange_ops {
    void (*inform)(outr_exchange *x, const outr_http_response *head);
    outr_sink *(*respond)(outr_exchange *x, const outr_http_response *head);
    void (*done)(outr_exchange *x);
} outr__exchange_ops;

void outr__conn_open(outr__conn *conn, const outr__conn_ops *ops, outr_http_server *server,
                     outr_stream *stream);
void outr__conn_flush_soon(outr__conn *conn); /* ops->flush at the end of this turn */
void outr__conn_write(outr__conn *conn);      /* out to the stream */
bool outr__conn_is_full(
    const outr__conn *conn); /* more than a window waits to be read by the peer */
/* Out of the server's list, timers off; the stream is closed by the caller before or after. */
void outr__conn_leave(outr__conn *conn);

/* server.c, for connections */
const outr_http_server_options *outr__server_options(const outr_http_server *server);
bool outr__server_is_draining(const outr_http_server *server);
outr_str
outr__server_date(outr_http_server *server); /* "Mon, 02 Jan 2006 15:04:05 GMT" of this second */
void outr__server_request_began(outr_http_server *server);
void outr__server_request_ended(outr_http_server *server, outr_exchange *x, bool is_broken);
/* An arena for a request, from the few the server keeps at hand; give it back when all is over. */
outr_arena *outr__server_arena(outr_http_server *server);
void outr__server_arena_done(outr_http_server *server, outr_arena *own_arena);

/* The two kinds of server connection. Bytes already read come along. */
void outr__h1_accept(outr_http_server *server, outr_stream *own_stream, outr_chunk *chunk,
                     const char *p, size_t n);
void outr__h2_accept(outr_http_server *server, outr_stream *own_stream, outr_chunk *chunk,
                     const char *p, size_t n);
/* After 101 to `Upgrade: h2c`: the request becomes stream 1 (RFC 7540 section 3.2). settings: the
 * decoded HTTP2-Settings. own_arena holds req and goes with the exchange. */
void outr__h2_upgrade(outr_http_server *server, outr_stream *own_stream, outr_str settings,
                      const outr_http_request *req, outr_arena *own_arena, outr_chunk *chunk,
                      const char *p, size_t n);

/* h1_write.c: heads on the wire. Names that are all lower case come out in canonical case; what is
 * this layer's own (Connection, Content-Length, ...) is left out of the lists. */
typedef struct outr__h1_frame {
    outr_str date;          /* NONE: no Date */
    const char *connection; /* value of Connection; NULL: none */
    outr_str upgrade;
    bool is_chunked, has_length;
    int64_t length;
} outr__h1_frame;

void outr__h1_write_response(outr_bufq *out, const outr_http_response *head,
                             const outr__h1_frame *frame);
void outr__h1_write_request(outr_bufq *out, const outr_http_request *req,
                            const outr__h1_frame *frame);
/* "0", trailers, empty line. */
void outr__h1_write_last_chunk(outr_bufq *out, const outr_headers *trailers);
/* One piece of a body, framed as chunk or not. Small ones are copied: one buffer costs less than
 * another iovec, and static bytes need not outlive the call. */
void outr__h1_write_piece(outr_bufq *out, outr_slice own_slice, bool is_chunked);

/* Defaults for limits that are 0. */
void outr__limits_default(outr_http_limits *limits);

/* ---- client connections ---------------------------------------------------------------------- */

typedef struct outr__client outr__client;

typedef struct outr__client_ops {
    void (*start)(outr__client *client,
                  outr_http_call *call); /* takes the call's request to the wire */
    void (*cancel)(outr__client *client,
                   outr_http_call *call); /* ends the call on the wire; its op is the pool's */
    void (*retire)(outr__client *client); /* no new calls; closes when idle */
    const outr_stream *(*stream)(const outr__client *client); /* NULL once closed */
    void (*close)(outr__client *client);  /* now; calls in flight fail */
} outr__client_ops;

struct outr__client {
    const outr__client_ops *ops;
    outr_link link;          /* in one of the pool's lists */
    outr_http_pool *pool;    /* lives until the last connection is gone */
    size_t active, capacity; /* calls on it, calls it may carry now */
    uint64_t idle_since_ns;
    uint64_t leave_ns; /* takes no calls from then on: a certificate ends; 0: none does */
    outr__end end;     /* HTTP/2 */
    bool is_used;             /* has carried a call before */
    bool is_retired, is_left; /* left: the pool's owner was told */
    bool is_unmet;            /* HTTP/2: how many streams the peer allows is not known yet */
    uint32_t peer_setting;    /* what its SETTINGS say under the pool's settings_id */
};

/* One call's place in the pool. */
typedef struct outr__call {
    outr_http_call *call;
    outr_op *op;
    outr_http_pool *pool;
    outr_link link;       /* waiting for a connection */
    outr__client *client; /* NULL while waiting */
    void *stream;         /* the connection's */
} outr__call;

/* pool.c, for connections */
const outr_http_pool_options *outr__pool_options(const outr_http_pool *pool);
void outr__pool_changed(outr__client *client); /* active, capacity or is_retired changed */
void outr__pool_met(outr__client *client, uint32_t peer_setting,
                    uint32_t max_streams); /* SETTINGS */
/* Lost before its SETTINGS came: calls that waited for it fail, rather than for the next one. */
void outr__pool_unmet(outr__client *client, const outr_err *err);
void outr__pool_gone(outr__client *client); /* out of the pool; about to be freed */
/* Ends the call's op (err NULL: success), whose done runs in a turn of its own: until then the
 * call's
 * memory stays. The connection has forgotten the call before. */
void outr__call_end(outr_http_call *call, const outr_err *err);

outr__client *outr__h1_connect(outr_http_pool *pool, outr_stream *own_stream);
outr__client *outr__h2_connect(outr_http_pool *pool, outr_stream *own_stream);

#endif
