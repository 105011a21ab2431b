/* limits - the bulkheads of one callee: how many calls to it may be under way at once, how many of
 * them without a connection yet, and on how many connections, over all loops. What is too much is
 * refused at once, so that a callee that hangs takes neither memory nor descriptors from others.
 *
 * Both counts are one number, so that a call costs three atomic additions and no lock. */
#ifndef OUTR_MESH_LIMITS_H
#define OUTR_MESH_LIMITS_H

#include "config/traffic.h"
#include "http/quota.h"

#define OUTR_LIMIT_CONNECTIONS 4096
#define OUTR_LIMIT_PENDING     16384
#define OUTR_LIMIT_REQUESTS    65536

typedef struct outr_limits {
    uint64_t count;                     /* atomic: pending << 32 | requests */
    uint32_t requests_max, pending_max; /* atomic */
    outr_http_quota *connections;
} outr_limits;

void outr_limits_init(outr_limits *limits);
void outr_limits_done(outr_limits *limits);
/* From now on; what is under way stays. */
void outr_limits_use(outr_limits *limits, const outr_limits_spec *spec);

typedef enum outr_limit {
    OUTR_LIMIT_NONE,
    OUTR_LIMIT_OF_REQUESTS,
    OUTR_LIMIT_OF_PENDING
} outr_limit;
/* NONE: it is under way, pending. Else it is refused, and which limit it was. */
outr_limit outr_limits_enter(outr_limits *limits);
void outr_limits_placed(outr_limits *limits);                 /* it has a connection */
void outr_limits_leave(outr_limits *limits, bool is_pending); /* it is over */
uint32_t outr_limits_requests(const outr_limits *limits);
uint32_t outr_limits_pending(const outr_limits *limits);

#endif
