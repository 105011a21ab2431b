/* server - HTTP/1.1 and HTTP/2 on accepted streams.
 *
 * The version is seen from the first bytes (prior knowledge preface), from ALPN, or from
 * `Upgrade: h2c` (RFC 7540 section 3.2). A server belongs to one loop.
 *
 * One request is an exchange. on_request is called when its head is complete; from then on the
 * handler owns the exchange until it calls outr_http_done, exactly once, after which it must not
 * touch it. A handler that calls done before the response was ended breaks the response off (reset
 * or closed connection, never a clean short end). */
#ifndef OUTR_HTTP_SERVER_H
#define OUTR_HTTP_SERVER_H

#include "http/message.h"
#include "loop/loop.h"
#include "net/listen.h"
#include "net/pipe.h"
#include "net/stream.h"

typedef struct outr_http_server outr_http_server;
typedef struct outr_exchange outr_exchange;

struct outr_exchange {
    outr_loop *loop;
    outr_arena *arena;     /* the request's; freed after done and the end of the response */
    outr_http_request req; /* on arena */
    outr_source *body;     /* request body; NULL: none. Attach a sink or outr_source_cancel it; done
                                     cancels the rest */
    outr_source *tunnel;   /* bytes from the client behind a 101; NULL: no upgrade was asked for */
    outr_addr peer;
    outr_str peer_id; /* of the client's certificate (net/stream.h), on arena; NONE: none */
    /* What the request's verified token says, as long as arena; NULL: none was asked for or shown.
     * The handler's to set. */
    const struct outr_claims *claims;
    outr_http_server *server;
    uint64_t started_ns;
    void *user; /* the handler's */
    /* Set by the handler: the client is gone or reset the stream. Responding is pointless but
     * harmless after it; the handler stops its work and calls outr_http_done. May be NULL. */
    void (*on_gone)(outr_exchange *x, const outr_err *err);
    /* Filled by the server for the access log and metrics, valid in on_finished. */
    int status;
    uint64_t received_bytes, sent_bytes;  /* bodies */
    const struct outr__exchange_ops *ops; /* the connection's */
    void *invoke;                         /* the invocation that has taken it over, if any */
};

typedef struct outr_http_handler {
    void (*on_request)(void *ctx, outr_exchange *x);
    /* The response has left (or was broken off): last sight of the exchange. May be NULL. */
    void (*on_finished)(void *ctx, outr_exchange *x, bool is_broken);
    /* The server made up an answer itself (400, 408, 431): body text/plain like Go's net/http. */
} outr_http_handler;

typedef struct outr_http_server_options {
    outr_loop *loop;
    const outr_http_handler *handler;
    void *ctx;
    outr_http_limits limits;
    bool allow_h1, allow_h2;     /* h2: preface, upgrade and ALPN */
    bool allow_connect_protocol; /* RFC 8441 offered in SETTINGS */
    uint64_t max_connections;    /* 0: 20000; over it new ones are reset */
    uint64_t max_age_ns;         /* GOAWAY / Connection: close after; 0: never */
    /* HTTP/2 keepalive. A peer that is silent for ping_interval_ns (0: never mind) is pinged, and
     * dropped when nothing came ping_timeout_ns later. Pings of its own closer than min_ping_ns (0:
     * any) end the connection as in Go's gRPC: GOAWAY ENHANCE_YOUR_CALM, too_many_pings. A peer
     * whose SETTINGS say settings_value, too, is left alone while there are no calls. */
    uint64_t ping_interval_ns, ping_timeout_ns, min_ping_ns;
    /* HTTP/2: the server makes up an answer itself (431); the head may be changed. May be NULL. */
    void (*on_refuse)(outr_exchange *x, outr_http_response *head);
    /* A connection whose first bytes are none of HTTP, where HTTP/1 is not spoken; is_tls: those of
     * a handshake. It is closed. May be NULL. */
    void (*on_stranger)(void *ctx, const outr_addr *peer, bool is_tls);
    /* Announced in SETTINGS so that a peer can tell an Outrigger; 0: none. */
    uint16_t settings_id;
    uint32_t settings_value;
    /* HTTP/2 over TLS: no connection outlives a certificate of either side, or its dismissal by
     * outr_http_server_dismiss for long. It is drained in time; calls that go on are broken off
     * when it is over, which this tells with the reason (OUTR_TLS_*). NULL: connections stay. */
    void (*on_cut)(void *ctx, const outr_addr *peer, const char *reason, size_t calls);
} outr_http_server_options;

outr_http_server *outr_http_server_new(const outr_http_server_options *options);
/* Gives a stream (accepted, TLS already on) to the server. */
void outr_http_server_take(outr_http_server *server, outr_stream *own_stream);
/* No new requests: Connection: close, GOAWAY; idle connections close now. drained is called once
 * when the last connection is gone. */
void outr_http_server_drain(outr_http_server *server, void (*drained)(void *ctx), void *ctx);
/* No new requests on the connections whose stream is not kept; what is on them may end within that
 * time and is cut then, with reason untrusted. */
void outr_http_server_dismiss(outr_http_server *server, bool (*keeps)(const outr_stream *stream),
                              uint64_t within_ns);
/* Resets what is left. Free only after drained was called or the server never had a connection:
 * outr_http_server_free does reset + free when the last stream is closed. */
void outr_http_server_free(outr_http_server *server);
size_t outr_http_server_connections(const outr_http_server *server);
size_t outr_http_server_requests(const outr_http_server *server); /* in flight */

/* 1xx before the response (RFC 9110 section 15.2); head is copied. Not for 101. */
void outr_http_inform(outr_exchange *x, const outr_http_response *head);
/* Sends the head and gives the sink for the body. head is copied. Connection-specific headers are
 * the server's own business; content_length >= 0 frames the body, -1 means chunked/DATA. For
 * responses without a body (HEAD, 204, 304) the sink accepts and drops everything; end it still.
 * Date is added when absent. */
outr_sink *outr_http_respond(outr_exchange *x, const outr_http_response *head);
/* A whole answer at once: respond + data + end. body is copied. Does not call done. */
void outr_http_reply(outr_exchange *x, const outr_http_response *head, outr_str body);
void outr_http_done(outr_exchange *x);

#endif
