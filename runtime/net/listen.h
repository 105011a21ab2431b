/* listen - accepting sockets. Made through env->listen; real ones live in net/, simulated in tests.
 */
#ifndef OUTR_NET_LISTEN_H
#define OUTR_NET_LISTEN_H

#include "loop/env.h"

typedef struct outr_listener outr_listener;
typedef struct outr_listener_ops {
    void (*pause)(outr_listener *l, bool is_paused); /* leaves connections in the backlog */
    void (*close)(outr_listener *l);                 /* asynchronous; l is gone after this turn */
} outr_listener_ops;
struct outr_listener {
    const outr_listener_ops *ops;
    outr_addr addr; /* bound; port is the real one */
};
static inline void outr_listener_close(outr_listener *l)
{
    if (l)
        l->ops->close(l);
}
static inline void outr_listener_pause(outr_listener *l, bool is_paused)
{
    l->ops->pause(l, is_paused);
}

#endif
