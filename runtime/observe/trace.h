/* trace - W3C trace context: reading, continuing and writing traceparent and tracestate.
 *
 * Source: W3C Trace Context level 1; Dapr's deviations in contract/lifecycle.md and headers.csv. */
#ifndef OUTR_OBSERVE_TRACE_H
#define OUTR_OBSERVE_TRACE_H

#include "base/rand.h"
#include "http/message.h"

#define OUTR_TRACEPARENT_LEN 55

typedef struct outr_trace {
    bool is_valid; /* false: everything below is zero */
    uint8_t trace_id[16];
    uint8_t span_id[8];
    uint8_t flags; /* as given; bit 0: sampled */
    bool has_parent;
    uint8_t parent_id[8]; /* span that this one is below */
    outr_str state; /* tracestate, borrowed; NONE when absent, malformed or over 512 bytes */
} outr_trace;

#define OUTR_TRACE_SAMPLED 1

typedef struct outr_trace_config {
    bool is_on;           /* a sampling rate > 0 was set and so spans are made */
    double sampling_rate; /* 0..1 */
    struct outr_tracer *tracer; /* observe/span.h, this loop's; NULL: nothing is exported */
} outr_trace_config;

/* From a request's headers. Malformed or absent: is_valid false (tracestate is then ignored). Of
 * several traceparents the first counts, as in the reference; several tracestates are one list. */
void outr_trace_read(outr_trace *out, const outr_headers *headers);
/* From a gRPC call's: grpc-trace-bin when there is one that can be read, else as above. */
void outr_trace_read_grpc(outr_trace *out, const outr_headers *headers);
bool outr_trace_parse(outr_trace *out, outr_str traceparent);
/* The binary form, as it stands in grpc-trace-bin before base64 (OpenCensus "BinaryEncoding"). */
#define OUTR_TRACE_BIN_LEN 29
bool outr_trace_parse_bin(outr_trace *out, outr_str bytes);
void outr_trace_write_bin(const outr_trace *trace, char out[OUTR_TRACE_BIN_LEN]);
/* The span of this hop: with tracing on a child of parent, whose word on sampling holds, or a new
 * root, sampled by the rate; with tracing off parent itself. */
void outr_trace_start(outr_trace *out, const outr_trace *parent, const outr_trace_config *config,
                      outr_rand *rand);
/* One more span below a hop's own: an attempt, an entry of a batch. Of an invalid one: invalid. */
void outr_trace_child(outr_trace *out, const outr_trace *parent, outr_rand *rand);
/* 55 characters and NUL; an invalid trace prints all zeros ("00-000...-00"). */
void outr_trace_write(const outr_trace *trace, char out[OUTR_TRACEPARENT_LEN + 1]);
/* W3C Baggage: false when malformed (then the API answers 400). */
bool outr_baggage_is_valid(outr_str value);

#endif
