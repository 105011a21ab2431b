/* status - how a gRPC call ends, as HTTP/2 carries it (grpc/grpc doc/PROTOCOL-HTTP2.md). */
#ifndef OUTR_GRPC_STATUS_H
#define OUTR_GRPC_STATUS_H

#include "http/server.h"

typedef struct outr_grpc_status {
    outr_code code;    /* as sent, also beyond the known ones */
    outr_str message;  /* UTF-8 */
    outr_str details;  /* a google.rpc.Status, serialised; NONE: no more to say */
    outr_str reason;   /* written only: OUTR_REASON_HEADER; NONE: none */
    uint64_t after_ns; /* written only: when it may be asked again, from now on; 0: not said */
} outr_grpc_status;

/* A code as gRPC's metrics spell it: "NOT_FOUND"; others are "UNKNOWN". */
const char *outr_grpc_status_label(outr_code code);
/* Whether a request is a gRPC call: POST with content-type application/grpc[+...]. */
bool outr_grpc_is_call(const outr_http_request *req);
/* Whether an answer's content-type is that of gRPC: a proxy's page is not. */
bool outr_grpc_is_answer(const outr_http_response *head);
/* grpc-message: percent-encodes what is not printable ASCII. On arena. */
outr_str outr_grpc_message(outr_arena *arena, outr_str text);

/* grpc-status, grpc-message, grpc-status-details-bin, outrigger-reason and grpc-retry-pushback-ms
 * (gRFC A6), appended. */
void outr_grpc_status_write(outr_headers *out, const outr_grpc_status *status);
/* From trailers (or the head of a trailers-only answer), on their arena. Without grpc-status: what
 * http_status maps to (grpc/grpc doc/http-grpc-status-mapping.md), UNKNOWN for 200. */
void outr_grpc_status_read(outr_grpc_status *out, const outr_headers *trailers, int http_status);

/* grpc-timeout: at most 8 digits and a unit. False: malformed. No header: *out_ns is 0. Longer than
 * OUTR_GRPC_TIMEOUT_MAX_NS is that, none at all 1. */
#define OUTR_GRPC_TIMEOUT_MAX_NS ((uint64_t)100 * 365 * 24 * 3600 * OUTR_SEC)
bool outr_grpc_timeout_read(uint64_t *out_ns, const outr_headers *headers);
bool outr_grpc_timeout_parse(uint64_t *out_ns, outr_str text); /* its value; false: malformed */
outr_str outr_grpc_timeout_write(outr_arena *arena, uint64_t left_ns);

/* Binary metadata ("-bin"): base64 without padding on the wire. False: malformed. */
bool outr_grpc_is_bin(outr_str name);
outr_str outr_grpc_bin_write(outr_arena *arena, outr_str bytes);
/* The first value of a header, which several may share ("," between them), padded or not. *list:
 * the rest, p == NULL after the last. False: no base64. */
bool outr_grpc_bin_next(outr_arena *arena, outr_str *list, outr_str *out);
/* INTERNAL, as Go's gRPC says it: a "-bin" header that is none. */
outr_code outr_grpc_metadata_check(const outr_headers *headers, outr_err *err);

/* A trailers-only answer (the head carries the status and ends the stream), then releases x. */
void outr_grpc_refuse(outr_exchange *x, outr_code code, outr_str text);
void outr_grpc_refuse_status(outr_exchange *x, const outr_grpc_status *status);
/* Not a gRPC call at all (outr_grpc_is_call): 405 or 415, with the reason as text, once the body
 * has been read or is longer than anybody would send by mistake. Releases x. */
void outr_grpc_refuse_request(outr_exchange *x);
/* For outr_http_server_options: what the server refuses by itself reaches gRPC clients as a
 * status. */
void outr_grpc_on_refuse(outr_exchange *x, outr_http_response *head);

#endif
