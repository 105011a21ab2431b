/* env - the only door to clock, random, DNS and sockets.
 *
 * The runtime passes the real one (net/env_real.h); the simulator passes its own, where time is
 * virtual and the network is a seeded model. Nothing else in the tree asks the system for these. */
#ifndef OUTR_LOOP_ENV_H
#define OUTR_LOOP_ENV_H

#include "base/err.h"
#include "base/str.h"

struct outr_loop;
struct outr_stream;
struct outr_listener;
struct outr_op;

/* A place to connect to or listen on. */
typedef struct outr_addr {
    enum { OUTR_ADDR_NONE, OUTR_ADDR_IP4, OUTR_ADDR_IP6, OUTR_ADDR_UNIX } kind;
    uint16_t port;
    uint8_t ip[16];
    uint32_t scope_id;
    char path[108]; /* UNIX */
} outr_addr;

#define OUTR_ADDR_TEXT_MAX 128
/* IP literals only, no look-up: "127.0.0.1:80", "[::1]:80", "unix:/path". */
outr_code outr_addr_parse(outr_addr *out, outr_str text, outr_err *err);
outr_code outr_addr_from_ip(outr_addr *out, outr_str ip, uint16_t port, outr_err *err);
size_t outr_addr_text(const outr_addr *addr, char out[OUTR_ADDR_TEXT_MAX]);    /* with port */
size_t outr_addr_ip_text(const outr_addr *addr, char out[OUTR_ADDR_TEXT_MAX]); /* without */

/* A connection attempt: result in *stream when the op is done with 0, then the caller's. */
typedef struct outr_connect {
    outr_addr addr;
    struct outr_stream *stream;
} outr_connect;

/* A name to addresses: result addrs[0..count), order as the system prefers. */
typedef struct outr_lookup {
    outr_str host; /* borrowed until done */
    uint16_t port;
    outr_addr addrs[8];
    size_t count;
    outr_addr *more; /* in, the caller's: those that have no room there; NULL: nobody wants them */
    size_t more_max, more_count;
} outr_lookup;

/* One question of DNS, its answer as it came. */
typedef struct outr_query {
    const char *name; /* borrowed until done */
    uint16_t type;    /* SRV: 33 */
    struct outr_arena *arena;
    outr_str
        answer; /* out, on arena: a message; empty: there is no such name, or none of the type */
} outr_query;
#define OUTR_QUERY_MAX 9000 /* bytes of an answer */

typedef struct outr_listen_options {
    outr_addr addr; /* port 0: the kernel picks; read it back with outr_listener_addr */
    bool is_shared; /* SO_REUSEPORT: every loop listens on its own socket */
    bool is_first;  /* shared, and the first of them: fails when somebody else has the port */
    int backlog;    /* 0: 1024 */
    /* Called on the loop for each connection; the stream is the callee's. */
    void (*on_accept)(void *ctx, struct outr_stream *own_stream);
    void *ctx;
} outr_listen_options;

typedef struct outr_env {
    uint64_t (*now_ns)(struct outr_env *env); /* monotonic */
    int64_t (*unix_ns)(struct outr_env *env); /* wall clock */
    void (*entropy)(struct outr_env *env, void *out, size_t n);
    void (*connect)(struct outr_env *env, struct outr_loop *loop, outr_connect *req,
                    struct outr_op *op);
    outr_code (*listen)(struct outr_env *env, struct outr_loop *loop,
                        const outr_listen_options *options, struct outr_listener **out,
                        outr_err *err);
    void (*lookup)(struct outr_env *env, struct outr_loop *loop, outr_lookup *req,
                   struct outr_op *op);
    void (*query)(struct outr_env *env, struct outr_loop *loop, outr_query *req,
                  struct outr_op *op); /* NULL: cannot be asked here */
} outr_env;

#endif
