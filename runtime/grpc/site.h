/* site - a gRPC server known by host and port: looked up, connected to, and looked up again when it
 * cannot be reached any more.
 *
 * For servers a sidecar is configured with (a trace collector, a registry), not for peers. Lives on
 * one loop. A call first reaches the site, which gives it a pool, then goes out by
 * outr_http_call_start; the pool is good until the call is done. After a failed connection the
 * caller says so (outr_grpc_site_lost), and the next reach asks the name again and goes on to its
 * next address. */
#ifndef OUTR_GRPC_SITE_H
#define OUTR_GRPC_SITE_H

#include "http/client.h"

typedef struct outr_grpc_site outr_grpc_site;

typedef struct outr_grpc_site_options {
    outr_loop *loop;
    outr_str address; /* "host:port", copied */
    uint16_t default_port;
    outr_tls *tls; /* NULL: clear text; referenced */
    uint64_t connect_timeout_ns; /* 0: 5 s */
} outr_grpc_site_options;

/* INVALID_ARGUMENT: no address. */
outr_code outr_grpc_site_new(outr_grpc_site **out, const outr_grpc_site_options *options,
                             outr_err *err);
/* Not while a reach is pending; calls in flight fail with CANCELLED. NULL is fine. */
void outr_grpc_site_free(outr_grpc_site *site);

typedef struct outr_grpc_reach {
    outr_http_pool *pool; /* out */
    /* machinery */
    outr_grpc_site *site;
    outr_lookup lookup;
    outr_op inner;
    outr_op *op;
} outr_grpc_reach;
void outr_grpc_site_reach_start(outr_grpc_site *site, outr_grpc_reach *reach, outr_op *op);
/* pool: the one that failed; nothing when it has been replaced already. */
void outr_grpc_site_lost(outr_grpc_site *site, const outr_http_pool *pool);
outr_str outr_grpc_site_authority(const outr_grpc_site *site);

#endif
