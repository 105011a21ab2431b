/* client - one HTTP call over a pooled connection.
 *
 * The pool for one peer (address + protocol + TLS) lives on one loop; connections are opened on
 * demand, reused, and grow past an HTTP/2 peer's stream limit. */
#ifndef OUTR_HTTP_CLIENT_H
#define OUTR_HTTP_CLIENT_H

#include "http/message.h"
#include "http/quota.h"
#include "loop/op.h"
#include "net/pipe.h"
#include "tls/tls.h"

typedef struct outr_http_pool outr_http_pool;
typedef struct outr_http_call outr_http_call;

typedef enum outr_http_version {
    OUTR_HTTP_1,
    OUTR_HTTP_2 /* prior knowledge or ALPN */
} outr_http_version;

typedef struct outr_http_pool_options {
    outr_loop *loop;
    outr_addr addr;
    outr_http_version
        version;              /* with TLS and OUTR_HTTP_1 as given; ALPN h2 upgrades when offered */
    outr_tls *tls;            /* NULL: clear text; referenced */
    outr_str server_name;     /* SNI and check; copied */
    outr_tls_check tls_check; /* of a tls that verifies URIs; its ctx outlives the pool's use */
    outr_http_limits
        limits; /* response heads, windows, idle time (0: 90 s); body_idle_ns 0: none, for
                                     how long an answer may take is the caller's deadline */
    size_t max_connections; /* 0: 1024 */
    size_t max_pending; /* calls waiting for a connection; 0: 4096; over it RESOURCE_EXHAUSTED */
    /* With other pools together; referenced, NULL: no limit. A pool that has no connection but such
     * as leave, and gets none, fails its calls with RESOURCE_EXHAUSTED; one that has some makes do
     * with them. */
    outr_http_quota *quota;
    uint64_t connect_timeout_ns; /* 0: 5 s */
    uint64_t
        /* HTTP/2 keepalive also when idle; 0: none. Ack within half of it or closed. A peer whose
         * SETTINGS say settings_value, too, is left alone while there are no calls, and asked with
         * the first one after that. */
        ping_interval_ns;
    uint16_t settings_id; /* as in server.h */
    uint32_t settings_value;
    /* A connection takes no more calls: lost, or its peer is leaving (GOAWAY). Once for each,
     * before another one is opened; not after outr_http_pool_free, which it must not call
     * (outr_http_pool_stop it may). May be NULL. */
    void (*on_leaving)(void *ctx);
    /* A TLS handshake failed; reason: OUTR_TLS_*. May be NULL. */
    void (*on_refused)(void *ctx, const char *reason, const outr_err *err);
    /* As in server.h: HTTP/2 connections end with their certificates or soon after
     * outr_http_pool_dismiss, and this tells of calls that were cut off. NULL: they stay. */
    void (*on_cut)(void *ctx, const char *reason, size_t calls);
    void *ctx;
    /* HTTP/2: no call goes out on a connection before the peer's SETTINGS are here. For callers
     * whose request depends on them (on_place). */
    bool waits_for_settings;
} outr_http_pool_options;

outr_http_pool *outr_http_pool_new(const outr_http_pool_options *options);
void outr_http_pool_free(
    outr_http_pool *pool); /* calls in flight fail with CANCELLED; closes behind */
size_t outr_http_pool_in_flight(const outr_http_pool *pool); /* calls not done yet: for balancing */
size_t outr_http_pool_connections(const outr_http_pool *pool);
/* What the newest HTTP/2 connection's peer said under settings_id (0: nothing). False: no SETTINGS
 * yet. */
bool outr_http_pool_peer_setting(const outr_http_pool *pool, uint32_t *value);
/* Closes idle connections and lets busy ones finish (peer restarted, address changed). */
void outr_http_pool_retire(outr_http_pool *pool);
/* The same for connections whose stream is not kept; what is on them is cut after that time. */
void outr_http_pool_dismiss(outr_http_pool *pool, bool (*keeps)(const outr_stream *stream),
                            uint64_t within_ns);

/* No connection is opened any more: calls that wait for one, and those to come, fail with
 * UNAVAILABLE; those on their way go on. */
void outr_http_pool_stop(outr_http_pool *pool);

/* How far a failed call got; decides whether it may be repeated (RFC 9110 section 9.2.2). */
typedef enum outr_call_progress {
    OUTR_CALL_NOT_SENT, /* no byte of it reached a socket, or the peer said so: REFUSED_STREAM,
                               GOAWAY with a lower stream id */
    OUTR_CALL_SENT,     /* may have been processed */
    OUTR_CALL_ANSWERED, /* a response head came */
} outr_call_progress;

struct outr_http_call {
    /* in: set by the caller, borrowed until done */
    const outr_http_request *req;
    outr_source
        *body; /* NULL: none. The call attaches its sink; cancelled when the call ends early */
    /* Head of the final response (1xx other than 101 go to on_inform). Then attach a sink to
     * call->response or cancel it. For 101 / 2xx-to-CONNECT response is the raw bytes back. */
    void (*on_response)(outr_http_call *call);
    void (*on_inform)(outr_http_call *call, const outr_http_response *head); /* may be NULL */
    /* The call has its connection, peer_setting is known, nothing has been sent: all of the above
     * may still be changed for this peer. A failure ends the call with *err. May be NULL. */
    outr_code (*on_place)(outr_http_call *call, outr_err *err);
    void *user;
    /* HTTP/2: when the answer is over so is the call, though the body is not: gRPC. Else a peer may
     * answer and read on. */
    bool ends_with_answer;
    /* out */
    outr_http_response head; /* on the call's arena, until done */
    outr_source *response;   /* NULL: no body */
    outr_arena *arena;       /* in: the request's arena, used for the response head too */
    outr_call_progress progress;
    bool body_taken;       /* reading of `body` has begun: it cannot be sent a second time */
    bool was_reused;       /* it went out on a kept-alive connection (a stale one may be retried) */
    uint32_t peer_setting; /* value of settings_id in the peer's SETTINGS, 0 when absent */
    uint32_t reset_code;   /* of the RST_STREAM that ended it, RFC 9113 section 7; 0: none did */
    void *impl;            /* machinery */
};

/* op is done when request and response are both finished (or failed: UNAVAILABLE for connection
 * trouble, DEADLINE_EXCEEDED, CANCELLED, INTERNAL for a malformed answer). Cancelling resets the
 * stream (HTTP/2) or closes the connection (HTTP/1). A response body that breaks off is told to the
 * sink by abort and by the op's error. */
void outr_http_call_start(outr_http_pool *pool, outr_http_call *call, outr_op *op);

#endif
