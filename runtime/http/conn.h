/* conn - what the connections of a server share inside this directory: a place in the server's list,
 * an output queue flushed once per turn, and one lazy timer. */
#ifndef OUTR_HTTP_CONN_H
#define OUTR_HTTP_CONN_H

#include "http/client.h"
#include "http/server.h"

typedef struct outr__conn outr__conn;

/* Which protocol a server's connection speaks. */
typedef struct outr__conn_ops {
    void (*drain)(outr__conn *conn);  /* finish what is in flight, then close */
    void (*expire)(outr__conn *conn); /* the deadline has passed */
} outr__conn_ops;

struct outr__conn {
    const outr__conn_ops *ops;
    outr_link link;               /* in the server's list */
    outr_http_server *server;
    outr_loop *loop;
    outr_stream *stream;
    outr_bufq out;
    outr_deferred flusher;
    /* Moving a deadline costs a store; the timer is set again only when it fires too early. */
    outr_timer timer;
    uint64_t deadline_ns;         /* 0: none */
};

/* What a connection does for its exchanges. */
typedef struct outr__exchange_ops {
    void (*inform)(outr_exchange *x, const outr_http_response *head);
    outr_sink *(*respond)(outr_exchange *x, const outr_http_response *head);
    void (*done)(outr_exchange *x);
} outr__exchange_ops;

void outr__conn_open(outr__conn *conn, const outr__conn_ops *ops, outr_http_server *server, outr_stream *stream);
void outr__conn_flush_soon(outr__conn *conn);       /* out goes to the stream at the end of this turn */
void outr__conn_flush(outr__conn *conn);            /* now */
bool outr__conn_is_full(const outr__conn *conn);    /* more than a window waits to be read by the peer */
void outr__conn_deadline(outr__conn *conn, uint64_t at_ns); /* 0: none */
/* Out of the server's list, timers off; the stream is closed by the caller before or after. */
void outr__conn_leave(outr__conn *conn);

/* server.c, for connections */
const outr_http_server_options *outr__server_options(const outr_http_server *server);
bool outr__server_is_draining(const outr_http_server *server);
outr_str outr__server_date(outr_http_server *server); /* "Mon, 02 Jan 2006 15:04:05 GMT" of this second */
void outr__server_request_began(outr_http_server *server);
void outr__server_request_ended(outr_http_server *server, outr_exchange *x, bool is_broken);

/* The two kinds of server connection. Bytes already read come along. */
void outr__h1_accept(outr_http_server *server, outr_stream *own_stream, outr_chunk *chunk, const char *p, size_t n);
void outr__h2_accept(outr_http_server *server, outr_stream *own_stream, outr_chunk *chunk, const char *p, size_t n);
/* After 101 to `Upgrade: h2c`: the request becomes stream 1 (RFC 7540 section 3.2). settings: the
 * decoded HTTP2-Settings. own_arena holds req and goes with the exchange. */
void outr__h2_upgrade(outr_http_server *server, outr_stream *own_stream, outr_str settings, const outr_http_request *req,
                      outr_arena *own_arena, outr_chunk *chunk, const char *p, size_t n);

/* h1_write.c: heads on the wire. Names that are all lower case come out in canonical case. */
void outr__h1_write_response(outr_bufq *out, const outr_http_response *head, outr_str date, const char *connection,
                             bool is_chunked, bool has_length);
void outr__h1_write_request(outr_bufq *out, const outr_http_request *req, bool is_chunked, bool has_body);
void outr__h1_write_headers(outr_bufq *out, const outr_headers *headers);
void outr__h1_write_chunk_head(outr_bufq *out, size_t n);
/* "0", trailers, empty line. */
void outr__h1_write_last_chunk(outr_bufq *out, const outr_headers *trailers);

/* Defaults for limits that are 0. */
void outr__limits_default(outr_http_limits *limits);

/* ---- client connections ----------------------------------------------------------------------- */

typedef struct outr__client outr__client;

typedef struct outr__client_ops {
    void (*start)(outr__client *client, outr_http_call *call); /* takes the call's request to the wire */
    void (*cancel)(outr__client *client, outr_http_call *call);/* ends the call on the wire; its op is the pool's */
    void (*retire)(outr__client *client);                      /* no new calls; closes when idle */
    void (*close)(outr__client *client);                       /* now; calls in flight fail */
} outr__client_ops;

struct outr__client {
    const outr__client_ops *ops;
    outr_link link;               /* in the pool's list, most recently used first */
    outr_http_pool *pool;         /* NULL after the pool was freed */
    size_t active, capacity;      /* calls on it, calls it may carry now */
    uint64_t idle_since_ns;
    bool is_used;                 /* has carried a call before */
    bool is_retired;
};

/* One call's place in the pool. */
typedef struct outr__call {
    outr_http_call *call;
    outr_op *op;
    outr_http_pool *pool;
    outr_link link;               /* waiting for a connection */
    outr__client *client;         /* NULL while waiting */
    void *stream;                 /* the connection's */
} outr__call;

/* pool.c, for connections */
const outr_http_pool_options *outr__pool_options(const outr_http_pool *pool);
void outr__pool_opened(outr__client *client);          /* settings are known: calls may start */
void outr__pool_changed(outr__client *client);         /* active or capacity changed */
void outr__pool_gone(outr__client *client);            /* out of the pool; about to be freed */
/* Ends the call's op (err NULL: success) outside of the caller's stack where needed; after it the
 * connection forgets the call. */
void outr__call_end(outr_http_call *call, const outr_err *err);

outr__client *outr__h1_connect(outr_http_pool *pool, outr_stream *own_stream);
outr__client *outr__h2_connect(outr_http_pool *pool, outr_stream *own_stream);

#endif
