#include "loop/fd_watch.h"

#include <uv.h>

static void on_poll(uv_poll_t *poll, int status OUTR_UNUSED, int events OUTR_UNUSED)
{
    outr_fd_watch *watch = poll->data;
    watch->ready(watch);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

outr_code outr_fd_watch_start(outr_fd_watch *watch, outr_loop *loop, outr_err *err)
{
    outr_list *simulated = outr__loop_fd_watches(loop);
    if (simulated) {
        outr_list_push(simulated, &watch->link);
        return OUTR_OK;
    }
    uv_poll_t *poll = outr_alloc(sizeof *poll);
    int uv = uv_poll_init(outr_loop_uv(loop), poll, watch->fd);
    if (uv) {
        free(poll);
        return outr_fail_errno(err, -uv, "watching descriptor %d", watch->fd);
    }
    poll->data = watch;
    watch->poll = poll;
    uv_poll_start(poll, UV_READABLE, on_poll);
    return OUTR_OK;
}

void outr_fd_watch_stop(outr_fd_watch *watch)
{
    outr_link_remove(&watch->link);
    if (watch->poll)
        uv_close((uv_handle_t *)watch->poll, on_closed);
    watch->poll = NULL;
}
