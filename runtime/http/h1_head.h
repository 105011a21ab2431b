/* h1_head - heads and trailers of HTTP/1 messages, from bytes to header lists (RFC 9112).
 *
 * Pure: bytes in, lists out. A head is copied to the arena once and everything points into that
 * copy.
 * Stricter than most parsers, because two that disagree about one message are how requests are
 * smuggled: lines end in CRLF, a name is a token with its colon right behind it, no line is folded,
 * the length is said once and in one way. One concession, which daprd makes too: a request without
 * a
 * body may end all of its lines in LF.
 *
 * Written by hand and not with llhttp: that one takes a fixed list of methods, lets a bare LF and
 * broken chunk ends pass in the build Debian ships, and hands out tokens in pieces that would have
 * to
 * be joined one by one. */
#ifndef OUTR_HTTP_H1_HEAD_H
#define OUTR_HTTP_H1_HEAD_H

#include "base/buf.h"
#include "http/message.h"

/* Gathers bytes until a head is whole; a head that comes in one read is never copied. Zeroed:
 * empty. */
typedef struct outr__h1_collector {
    outr_buf partial;
    size_t scanned;
} outr__h1_collector;

/* Takes bytes from *p. 1: *head is whole (borrowed until outr__h1_collect_done), *p stands behind
 * it.
 * 0: more is needed, all was taken. Else the status to refuse with (431). */
int outr__h1_collect(outr__h1_collector *c, const char **p, const char *end, size_t max_bytes,
                     outr_str *head);
void outr__h1_collect_done(outr__h1_collector *c);

/* How the body behind a head is delimited, and what becomes of the connection. */
typedef struct outr__h1_framing {
    bool is_chunked, has_length;
    int64_t length; /* valid with has_length */
    uint8_t minor;  /* HTTP/1.x */
    bool keep_alive;
} outr__h1_framing;

/* 0, or the status of the answer: 400, 417, 431, 501, 505. Fills everything of req. */
int outr__h1_parse_request(outr_arena *arena, outr_str head, size_t max_headers,
                           outr_http_request *req, outr__h1_framing *framing);
/* INTERNAL with a text that says what is wrong. content_length is -1 unless it was said. */
outr_code outr__h1_parse_response(outr_arena *arena, outr_str head, size_t max_headers,
                                  outr_http_response *out, outr__h1_framing *framing,
                                  outr_err *err);
/* Trailer fields up to and including the empty line; those that frame or route a message are left
 * out (RFC 9110 section 6.5.1). False: malformed or too many. */
bool outr__h1_parse_trailers(outr_arena *arena, outr_str block, size_t max_headers,
                             outr_headers *out);

#endif
