/* route_internal - what the table of routes and its conditions share. */
#ifndef OUTR_MESH_ROUTE_INTERNAL_H
#define OUTR_MESH_ROUTE_INTERNAL_H

#include "mesh/route.h"

/* A request, its text unfolded once for all that is asked of it. */
typedef struct outr__question {
    const outr_route_request *request;
    outr_str path, query; /* path: decoded */
    outr_arena *scratch;
} outr__question;

#define OUTR__SEGMENTS_MAX 64 /* of a prefix: the kind refuses more */

typedef enum outr__kind {
    OUTR__OF_HEADER,
    OUTR__OF_QUERY,
    OUTR__OF_BAGGAGE,
    OUTR__OF_CLAIM,
    OUTR__OF_SOURCE,
} outr__kind;

void outr__question_init(outr__question *q, const outr_route_request *request, outr_arena *scratch);
/* Walks the values of a name: `outr__values values = {0};` False: there is no other. */
typedef struct outr__values {
    size_t at;
    outr_str rest;
} outr__values;
bool outr__question_next(const outr__question *q, outr__kind kind, outr_str name,
                         outr__values *values, outr_str *value);
outr_mismatch outr__mismatch(const outr_traffic_match *match, const outr__question *q);

#endif
