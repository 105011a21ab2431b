/* message - what HTTP/1.1 and HTTP/2 have in common: heads, header lists, trailers. RFC 9110.
 *
 * Names are kept as they came on HTTP/1 (case preserved) and lower case on HTTP/2; look-ups ignore
 * case. All memory is the arena's the list was made with. */
#ifndef OUTR_HTTP_MESSAGE_H
#define OUTR_HTTP_MESSAGE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

typedef struct outr_header {
    outr_str name;
    outr_str value;
    /* HTTP/2: kept out of the compression table: a secret, or another value each time. */
    bool is_unindexed;
} outr_header;

typedef struct outr_headers {
    outr_header *items;
    size_t count, cap;
    outr_arena *arena;
} outr_headers;

void outr_headers_init(outr_headers *h, outr_arena *arena);
void outr_headers_add(outr_headers *h, outr_str name, outr_str value); /* borrows both */
void outr_headers_set(outr_headers *h, outr_str name,
                      outr_str value); /* replaces all of that name */
void outr_headers_remove(outr_headers *h, const char *name);
outr_str outr_headers_get(const outr_headers *h, const char *name); /* first, or NONE */
bool outr_headers_has(const outr_headers *h, const char *name);
/* True when a comma-separated header has this token (case ignored), over all its lines. */
bool outr_headers_has_token(const outr_headers *h, const char *name, const char *token);
/* Connection, Keep-Alive, Proxy-Connection, Transfer-Encoding, Upgrade, HTTP2-Settings, TE,
 * Trailer,
 * Proxy-Authorization, Proxy-Authenticate and whatever Connection names: RFC 9110 section 7.6.1. */
bool outr_header_is_hop_by_hop(const outr_headers *h, outr_str name);
/* Token and field-value syntax (RFC 9110 sections 5.1, 5.5): no NUL, CR, LF, no leading/trailing
 * space. */
bool outr_header_name_is_valid(outr_str name);
bool outr_header_value_is_valid(outr_str value);
/* What each byte may be part of; for the parsers of this directory. */
#define OUTR__CHAR_TOKEN 1
#define OUTR__CHAR_VALUE 2
extern const unsigned char outr__header_chars[256];
/* Host, Content-Length, Connection and the like: said by this layer alone, whatever a list holds.
 */
bool outr__header_is_own(outr_str name);
/* A value fit for the wire: itself, or a copy with spaces for what could end a line (as Go does).
 */
outr_str outr__header_value_clean(outr_arena *arena, outr_str value);

typedef struct outr_http_request {
    outr_str method;    /* "GET"; as sent */
    outr_str scheme;    /* "http", "https" */
    outr_str authority; /* Host or :authority */
    outr_str target;    /* path and query as sent: "/a%20b?x=1", or "*" */
    outr_headers
        headers; /* Host is not in it; Content-Length and Transfer-Encoding are not either */
    int64_t content_length; /* -1: unknown (chunked or HTTP/2 without the header); 0: no body */
    /* The protocol asked for by `Upgrade` (HTTP/1) or :protocol (RFC 8441), e.g. "websocket"; NONE
     * otherwise. Answered with status 101 the connection becomes a raw byte pipe, whichever
     * protocol version carries it. */
    outr_str upgrade;
    uint8_t http_major;  /* 1 or 2: how it came */
    bool wants_continue; /* Expect: 100-continue; 100 is sent when the body is first read */
} outr_http_request;

typedef struct outr_http_response {
    int status;
    outr_str reason; /* the phrase behind the status as HTTP/1 brought it; never sent */
    outr_headers headers;   /* without Content-Length and Transfer-Encoding */
    int64_t content_length; /* -1: unknown. For HEAD and 304: what GET would have had */
} outr_http_response;

/* Whether a response to this method with this status has a body at all (RFC 9112 section 6.3). */
bool outr_http_has_body(outr_str method, int status);
const char *outr_http_status_text(int status); /* "Not Found"; "Unknown" */

/* Per-connection limits; every one has a flag or a documented default. */
typedef struct outr_http_limits {
    size_t max_header_bytes;    /* whole head; over it 431. Dapr: read-buffer-size + 4 KiB */
    size_t max_headers;         /* count; 0: 1000 */
    uint64_t header_timeout_ns; /* from the first byte to the end of the head; 0: 10 s */
    uint64_t
        /* no byte of a body for so long; 0: 120 s. Not while we apply back-pressure */
        body_idle_ns;
    uint64_t idle_ns;       /* keep-alive without a request; 0: 120 s */
    uint64_t write_idle_ns; /* peer reads nothing while we have something to send; 0: 120 s */
    uint32_t max_streams;   /* HTTP/2 concurrent streams per connection; 0: 1000 */
    uint32_t window_bytes;  /* HTTP/2 stream window; 0: 192 KiB, so that with what
                            * is queued behind it a stream nobody reads costs 256 KiB */
    size_t arena_bytes;     /* cap per request, at least what a head may need; 0: 64 MiB */
} outr_http_limits;

#endif
