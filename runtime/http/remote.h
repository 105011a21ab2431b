/* remote - HTTP calls to servers named by a URL: of a component, for the keys of an issuer.
 *
 * One for each user of it; calls come from any loop, and each loop has its own connections, kept
 * and used again. Names are looked up and remembered for half a minute; every address of a name is
 * tried as long as nothing was sent. Redirects are followed as Go's net/http follows them (at most
 * ten; credentials stay with the host they were for). Sends clear text and HTTP/1.1 or, with TLS,
 * what ALPN agrees on. */
#ifndef OUTR_HTTP_REMOTE_H
#define OUTR_HTTP_REMOTE_H

#include "base/url.h"
#include "http/client.h"

typedef struct outr_remote outr_remote;

/* tls: of https; referenced. NULL: the system's authorities, read when the first https is asked
 * for. */
outr_remote *outr_remote_new(outr_loop *main_loop, outr_tls *tls);
/* On the main loop; frees itself. Calls that are under way end as CANCELLED, no new ones come. */
void outr_remote_close(outr_remote *remote, outr_op *op);

typedef struct outr_remote_call {
    /* in, borrowed until done */
    outr_arena *arena;
    outr_str method, url;
    outr_headers headers; /* initialised; Host and Content-Length are not in it */
    bool has_body;        /* an empty one has a length too */
    outr_str body;
    size_t max_answer;      /* over it RESOURCE_EXHAUSTED */
    bool stays;             /* redirects are answers like others: the body is for nobody else */
    outr_str secret_header; /* beside Authorization and Cookie: not for another host */
    /* out, on arena */
    outr_http_response head;
    outr_str answer;
    bool was_clear; /* it went over http, or a redirect on its way did */
    /* machinery */
    outr_remote *remote;
    struct outr__remote_site *site;
    outr_link link; /* while its name is looked up */
    outr_url parts;
    outr_lookup addresses;
    size_t at, tries, redirects;
    bool is_gathering;
    outr_http_request req;
    outr_memory_source source;
    outr_gather gather;
    outr_err too_large;
    outr_http_call http;
    outr_op inner;
    outr_op *op;
} outr_remote_call;

/* INVALID_ARGUMENT: no URL of http or https. UNAVAILABLE: nobody there, or the connection broke. */
void outr_remote_call_start(outr_remote *remote, outr_remote_call *call, outr_op *op);
/* Whether url can be asked at all: http or https, with a host. */
outr_code outr_remote_check(outr_str url, outr_err *err);

#endif
