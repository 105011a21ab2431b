/* fd_watch - tells a loop that a file descriptor has something to read.
 *
 * For descriptors that are no streams: inotify, an eventfd by which a library's thread wakes us.
 * Level-triggered: ready is called each turn until all was read. The descriptor stays its owner's,
 * who stops the watch before closing it. On a simulated loop each tick looks at it, so that what
 * was written before a tick is seen in it. */
#ifndef OUTR_LOOP_FD_WATCH_H
#define OUTR_LOOP_FD_WATCH_H

#include "loop/loop.h"

typedef struct outr_fd_watch {
    void (*ready)(struct outr_fd_watch *watch);
    int fd;
    /* machinery */
    outr_link link;        /* simulated */
    struct uv_poll_s *poll; /* libuv's; closes later than the watch ends */
} outr_fd_watch;

/* On loop. ready and fd are set by the caller. UNAVAILABLE: the kernel cannot watch it. */
outr_code outr_fd_watch_start(outr_fd_watch *watch, outr_loop *loop, outr_err *err);
/* On loop; no call comes any more. One that was never started: nothing. */
void outr_fd_watch_stop(outr_fd_watch *watch);

#endif
