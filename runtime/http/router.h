/* router - method and path to a route; patterns as "/v1.0/state/{store}/{key}" and "{topic...}" for
 * the rest. Built once, read by every loop. Literal segments win over parameters, longer over
 * shorter. Matching is on the percent-encoded path; parameters are given still encoded. */
#ifndef OUTR_HTTP_ROUTER_H
#define OUTR_HTTP_ROUTER_H

#include "base/arena.h"
#include "base/str.h"

#define OUTR_ROUTE_PARAMS_MAX 6

typedef struct outr_router outr_router;
typedef struct outr_route_match {
    const void *route;                      /* what was added */
    outr_str params[OUTR_ROUTE_PARAMS_MAX]; /* in order of appearance */
    size_t param_count;
} outr_route_match;

outr_router *outr_router_new(void);
void outr_router_free(outr_router *router);
/* methods: "GET|POST", or "*" for any. pattern and route are borrowed. */
void outr_router_add(outr_router *router, const char *methods, const char *pattern,
                     const void *route);
/* path: without the query. False: no such path or not with this method. */
bool outr_router_find(const outr_router *router, outr_str method, outr_str path,
                      outr_route_match *out);

#endif
