/* h1_body - finds the payload in the body bytes of an HTTP/1 message (RFC 9112 sections 6 and 7).
 *
 * Pure; payload is given as a view of the bytes that came in. Every line of the chunked coding must
 * end in CRLF and be short. */
#ifndef OUTR_HTTP_H1_BODY_H
#define OUTR_HTTP_H1_BODY_H

#include "base/buf.h"

typedef enum outr__h1_body_kind {
    OUTR__BODY_LENGTH, /* so many bytes; also none at all */
    OUTR__BODY_CHUNKED,
    OUTR__BODY_TO_CLOSE, /* whatever comes until the connection ends */
} outr__h1_body_kind;

typedef struct outr__h1_body {
    outr__h1_body_kind kind;
    uint8_t state;
    uint64_t left;  /* of the length, or of the chunk */
    size_t line_n;  /* of the chunk's size line so far */
    uint64_t extra; /* bytes spent on chunk extensions */
    uint64_t payload;
    outr_buf trailers; /* raw; complete with OUTR__BODY_END, parse with outr__h1_parse_trailers */
} outr__h1_body;

typedef enum outr__h1_body_result {
    OUTR__BODY_MORE,     /* all bytes were taken, more are to come */
    OUTR__BODY_DATA,     /* *piece is payload; call again */
    OUTR__BODY_END,      /* *p stands behind the message */
    OUTR__BODY_BAD,      /* not a body */
    OUTR__BODY_TOO_LARGE /* the trailers */
} outr__h1_body_result;

void outr__h1_body_init(outr__h1_body *body, outr__h1_body_kind kind, uint64_t length,
                        size_t max_trailer_bytes);
outr__h1_body_result outr__h1_body_take(outr__h1_body *body, const char **p, const char *end,
                                        outr_str *piece);
void outr__h1_body_done(outr__h1_body *body);

#endif
