/* otlp - a collector's side of OTLP for tests of spans: what a request holds, and its answer. */
#ifndef OUTR_TESTS_OTLP_H
#define OUTR_TESTS_OTLP_H

#include "grpc/proto.h"
#include "http/server.h"

/* The first field of that number, as it stands on the wire; all zero when there is none. */
outr_proto_field otlp_field(outr_str message, uint32_t number);
/* Of an ExportTraceServiceRequest. */
unsigned otlp_count_spans(outr_str request);
/* An empty ExportTraceServiceResponse over gRPC. Calls done. */
void otlp_answer_grpc(outr_exchange *x);

#endif
