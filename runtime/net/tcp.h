/* tcp - streams over libuv's TCP sockets and Unix sockets. What env_real and listen build on. */
#ifndef OUTR_NET_TCP_H
#define OUTR_NET_TCP_H

#include <uv.h>

#include "net/stream.h"

typedef struct outr_tcp {
    outr_stream base;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    outr_bufq out;    /* written by the owner, not taken by the kernel */
    uv_write_t write; /* one at a time, for what uv_try_write left over */
    size_t writing;   /* bytes of out that write covers; 0: none under way */
    uv_shutdown_t shutdown;
    outr_deferred failer; /* tells on_error outside of the owner's call */
    outr_timer linger;    /* closing with bytes left: gives up after a while */
    outr_err err;
    bool wants_shutdown, is_full, is_failed;
} outr_tcp;

/* A stream around a new handle of the kind, not connected. */
outr_tcp *outr_tcp_new(outr_loop *loop, bool is_unix);
/* It is connected: addresses are read, TCP_NODELAY is on, counting begins. */
void outr_tcp_ready(outr_tcp *tcp);
/* A connected one: the kernel notices within about a minute that the other machine is gone, also
 * while nothing is to be sent. It asks the other kernel, so a process that sleeps is not taken for
 * a dead one. */
void outr_tcp_keep_alive(outr_tcp *tcp);
/* Closes one that was never handed out. */
void outr_tcp_discard(outr_tcp *tcp);
/* UV error to ours: "<what>: connection refused". */
outr_code outr_uv_fail(outr_err *err, int rc, const char *what);
/* To and from the system's form; length of the result in *n. */
int outr_addr_to_sys(const outr_addr *addr, struct sockaddr_storage *out);
void outr_addr_from_sys(outr_addr *out, const struct sockaddr_storage *from);

#endif
