#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/env_uv.h"
#include "net/tcp.h"

#define BACKLOG      1024
#define TROUBLE_NS   (100 * OUTR_MS) /* no accepting for so long after accept failed (EMFILE) */

typedef struct listener {
    outr_listener base;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    outr_loop *loop;
    void (*on_accept)(void *ctx, outr_stream *own_stream);
    void *ctx;
    outr_timer retry;
    bool is_paused;
    bool has_waiting; /* libuv holds an accepted connection and polls no more until it is taken */
    bool is_in_trouble;
} listener;

static void take(listener *l)
{
    l->has_waiting = false;
    outr_tcp *tcp = outr_tcp_new(l->loop, l->base.addr.kind == OUTR_ADDR_UNIX);
    if (uv_accept(&l->stream, &tcp->stream) != 0) {
        outr_tcp_discard(tcp);
        return;
    }
    outr_tcp_ready(tcp);
    l->on_accept(l->ctx, &tcp->base);
}

static void on_retry(outr_timer *timer)
{
    listener *l = OUTR_CONTAINER(timer, listener, retry);
    l->is_in_trouble = false;
    if (l->has_waiting && !l->is_paused)
        take(l);
}

static void on_connection(uv_stream_t *stream, int status)
{
    listener *l = stream->data;
    if (status < 0) { /* out of descriptors: existing connections go on, new ones wait in the backlog */
        l->is_in_trouble = true;
        l->retry.fire = on_retry;
        outr_timer_start(l->loop, &l->retry, outr_loop_now(l->loop) + TROUBLE_NS);
        return;
    }
    l->has_waiting = true;
    if (!l->is_paused && !l->is_in_trouble)
        take(l);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void do_close(outr_listener *base)
{
    listener *l = OUTR_CONTAINER(base, listener, base);
    outr_timer_stop(l->loop, &l->retry);
    if (l->base.addr.kind == OUTR_ADDR_UNIX)
        unlink(l->base.addr.path);
    uv_close(&l->handle, on_closed);
}

static void do_pause(outr_listener *base, bool is_paused)
{
    listener *l = OUTR_CONTAINER(base, listener, base);
    l->is_paused = is_paused;
    if (!is_paused && l->has_waiting && !l->is_in_trouble)
        take(l);
}

static const outr_listener_ops listener_ops = {.pause = do_pause, .close = do_close};

/* A socket of our own, as libuv 1.44 knows no SO_REUSEPORT. -1 with errno set on failure. */
static int bound_socket(const outr_addr *addr, bool is_shared)
{
    struct sockaddr_storage sys;
    int n = outr_addr_to_sys(addr, &sys), on = 1, off = 0;
    int fd = socket(sys.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    bool is_bound = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                    (!is_shared || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0) &&
                    (sys.ss_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) &&
                    bind(fd, (struct sockaddr *)&sys, (socklen_t)n) == 0;
    if (is_bound)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* A shared socket would quietly join whoever else shares the port, so a plain one is tried first. On
 * a port of ours (the first lane's) it must not be. */
static int check_free(const outr_addr *addr)
{
    int fd = bound_socket(addr, false);
    if (fd < 0)
        return errno;
    int rc = listen(fd, 1) ? errno : 0;
    close(fd);
    return rc;
}

static int open_tcp(listener *l, const outr_listen_options *options)
{
    struct sockaddr_storage sys;
    int n = sizeof sys;
    int fd = bound_socket(&options->addr, options->is_shared);
    if (fd < 0)
        return -errno;
    int rc = uv_tcp_open(&l->tcp, fd);
    if (rc) {
        close(fd);
        return rc;
    }
    rc = uv_listen(&l->stream, options->backlog ? options->backlog : BACKLOG, on_connection);
    if (!rc)
        rc = uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&sys, &n);
    if (!rc)
        outr_addr_from_sys(&l->base.addr, &sys);
    return rc;
}

static int open_unix(listener *l, const outr_listen_options *options)
{
    struct stat st;
    const char *path = options->addr.path;
    /* A socket file nobody listens on any more is ours to remove. */
    if (stat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        bool is_alive = fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof un) == 0;
        if (fd >= 0)
            close(fd);
        if (is_alive)
            return UV_EADDRINUSE;
        unlink(path);
    }
    mode_t before = umask(0177); /* owner only, from the first moment on */
    int rc = uv_pipe_bind(&l->pipe, path);
    umask(before);
    return rc ? rc : uv_listen(&l->stream, options->backlog ? options->backlog : BACKLOG, on_connection);
}

outr_code outr_uv_listen(outr_loop *loop, const outr_listen_options *options, outr_listener **out, outr_err *err)
{
    char text[OUTR_ADDR_TEXT_MAX];
    bool is_unix = options->addr.kind == OUTR_ADDR_UNIX;
    outr_addr_text(&options->addr, text);
    int taken = options->is_shared && options->is_first && options->addr.port ? check_free(&options->addr) : 0;
    if (taken)
        return outr_fail_errno(err, taken, "listen on %s", text);
    listener *l = outr_alloc(sizeof *l);
    l->base = (outr_listener){&listener_ops, options->addr};
    l->loop = loop;
    l->on_accept = options->on_accept;
    l->ctx = options->ctx;
    if (is_unix)
        uv_pipe_init(outr_loop_uv(loop), &l->pipe, 0);
    else
        uv_tcp_init(outr_loop_uv(loop), &l->tcp);
    l->handle.data = l;
    int rc = is_unix ? open_unix(l, options) : open_tcp(l, options);
    if (rc) {
        uv_close(&l->handle, on_closed);
        return outr_fail_errno(err, -rc, "listen on %s", text);
    }
    *out = &l->base;
    return OUTR_OK;
}
