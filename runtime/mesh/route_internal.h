/* route_internal - what the table of routes and its conditions share. */
#ifndef OUTR_MESH_ROUTE_INTERNAL_H
#define OUTR_MESH_ROUTE_INTERNAL_H

#include "mesh/route.h"

typedef enum outr__kind {
    OUTR__OF_HEADER,
    OUTR__OF_QUERY,
    OUTR__OF_BAGGAGE,
    OUTR__OF_CLAIM,
    OUTR__OF_SOURCE,
} outr__kind;

/* Walks the values of a name, *at from 0. False: there is no other. */
bool outr__question_next(outr_route_question *q, outr__kind kind, outr_str name, size_t *at,
                         outr_str *value);

#endif
