#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/env_uv.h"
#include "net/tcp.h"

#define BACKLOG    1024
#define TROUBLE_NS (100 * OUTR_MS) /* no accepting for so long after accept failed (EMFILE) */
#define TURN_MAX   64              /* connections taken before others have their turn */

/* Polls the socket itself rather than through uv_listen: without descriptors libuv would either
 * close
 * what waits in the backlog or come back at once, for ever; and it has no way to pause. */
typedef struct listener {
    outr_listener base;
    uv_poll_t poll;
    int fd;
    outr_loop *loop;
    void (*on_accept)(void *ctx, outr_stream *own_stream);
    void *ctx;
    outr_timer retry;
    bool is_paused;
} listener;

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_retry(outr_timer *timer)
{
    listener *l = OUTR_CONTAINER(timer, listener, retry);
    if (!l->is_paused)
        uv_poll_start(&l->poll, UV_READABLE, on_readable);
}

/* Out of descriptors or memory: existing connections go on, new ones wait in the backlog. */
static void rest(listener *l)
{
    uv_poll_stop(&l->poll);
    l->retry.fire = on_retry;
    outr_timer_start(l->loop, &l->retry, outr_loop_now(l->loop) + TROUBLE_NS);
}

static bool take(listener *l, int fd)
{
    bool is_unix = l->base.addr.kind == OUTR_ADDR_UNIX;
    outr_tcp *tcp = outr_tcp_new(l->loop, is_unix);
    if ((is_unix ? uv_pipe_open(&tcp->pipe, fd) : uv_tcp_open(&tcp->tcp, fd)) != 0) {
        close(fd);
        outr_tcp_discard(tcp);
        return false;
    }
    outr_tcp_ready(tcp);
    l->on_accept(l->ctx, &tcp->base);
    return true;
}

static void on_readable(uv_poll_t *poll, int status OUTR_UNUSED, int events OUTR_UNUSED)
{
    listener *l = poll->data;
    for (int i = 0; i < TURN_MAX && uv_is_active((uv_handle_t *)&l->poll); i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0 && take(l, fd))
            continue;
        if (fd >= 0 || errno == ECONNABORTED || errno == EINTR)
            continue;
        if (errno != EAGAIN)
            rest(l);
        return;
    }
}

static void on_closed(uv_handle_t *handle)
{
    listener *l = handle->data;
    if (l->fd >= 0)
        close(l->fd);
    free(l);
}

static void do_close(outr_listener *base)
{
    listener *l = OUTR_CONTAINER(base, listener, base);
    outr_timer_stop(l->loop, &l->retry);
    if (l->base.addr.kind == OUTR_ADDR_UNIX)
        unlink(l->base.addr.path);
    uv_close((uv_handle_t *)&l->poll, on_closed);
}

static void do_pause(outr_listener *base, bool is_paused)
{
    listener *l = OUTR_CONTAINER(base, listener, base);
    l->is_paused = is_paused;
    if (is_paused)
        uv_poll_stop(&l->poll);
    else if (!outr_timer_is_on(&l->retry))
        uv_poll_start(&l->poll, UV_READABLE, on_readable);
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
                    (sys.ss_family != AF_INET6 ||
                     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) &&
                    bind(fd, (struct sockaddr *)&sys, (socklen_t)n) == 0;
    if (is_bound)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* A shared socket would quietly join whoever else shares the port, so a plain one is tried first.
 * On
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

/* A socket file nobody listens on any more is ours to remove. */
static int clear_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return 0;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_alive = fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof un) == 0;
    if (fd >= 0)
        close(fd);
    return is_alive ? EADDRINUSE : unlink(path) ? errno : 0;
}

static int unix_socket(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    mode_t before = umask(0177); /* owner only, from the first moment on */
    int rc = bind(fd, (struct sockaddr *)&un, sizeof un) ? errno : 0;
    umask(before);
    if (!rc)
        return fd;
    close(fd);
    errno = rc;
    return -1;
}

/* 0 or an errno; on failure nothing is left open. */
static int open_socket(int *out, outr_addr *bound, const outr_listen_options *options)
{
    struct sockaddr_storage sys;
    socklen_t n = sizeof sys;
    bool is_unix = options->addr.kind == OUTR_ADDR_UNIX;
    int rc = is_unix ? clear_path(options->addr.path) : 0;
    if (!is_unix && options->is_shared && options->is_first && options->addr.port)
        rc = check_free(&options->addr);
    if (rc)
        return rc;
    int fd = is_unix ? unix_socket(options->addr.path)
                     : bound_socket(&options->addr, options->is_shared);
    if (fd < 0)
        return errno;
    if (listen(fd, options->backlog ? options->backlog : BACKLOG) ||
        (!is_unix && getsockname(fd, (struct sockaddr *)&sys, &n))) {
        rc = errno;
        close(fd);
        return rc;
    }
    *bound = options->addr;
    if (!is_unix)
        outr_addr_from_sys(bound, &sys);
    *out = fd;
    return 0;
}

outr_code outr_uv_listen(outr_loop *loop, const outr_listen_options *options, outr_listener **out,
                         outr_err *err)
{
    char text[OUTR_ADDR_TEXT_MAX];
    listener *l = outr_alloc(sizeof *l);
    int rc = open_socket(&l->fd, &l->base.addr, options);
    if (rc) {
        free(l);
        outr_addr_text(&options->addr, text);
        return outr_fail_errno(err, rc, "listen on %s", text);
    }
    l->base.ops = &listener_ops;
    l->loop = loop;
    l->on_accept = options->on_accept;
    l->ctx = options->ctx;
    l->poll.data = l;
    uv_poll_init(outr_loop_uv(loop), &l->poll, l->fd);
    uv_poll_start(&l->poll, UV_READABLE, on_readable);
    *out = &l->base;
    return OUTR_OK;
}
