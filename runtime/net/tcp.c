#include "net/tcp.h"

#include <netinet/in.h>

#define KEEPALIVE_S 60 /* of silence; then one probe each second, ten of them */
#define IOVECS 64
#define LINGER_NS                                                                                  \
    (5 * OUTR_SEC) /* closing with unsent bytes: so long the peer may take to read them */

outr_code outr_uv_fail(outr_err *err, int rc, const char *what)
{
    return outr_fail_errno(err, -rc, "%s", what); /* libuv's codes are negated errnos on Unix */
}

int outr_addr_to_sys(const outr_addr *addr, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (addr->kind == OUTR_ADDR_IP4) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)out;
        in->sin_family = AF_INET;
        in->sin_port = htons(addr->port);
        memcpy(&in->sin_addr, addr->ip, 4);
        return (int)sizeof *in;
    }
    struct sockaddr_in6 *in = (struct sockaddr_in6 *)(void *)out;
    in->sin6_family = AF_INET6;
    in->sin6_port = htons(addr->port);
    in->sin6_scope_id = addr->scope_id;
    memcpy(&in->sin6_addr, addr->ip, 16);
    return (int)sizeof *in;
}

void outr_addr_from_sys(outr_addr *out, const struct sockaddr_storage *from)
{
    *out = (outr_addr){0};
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)from;
        out->kind = OUTR_ADDR_IP4;
        out->port = ntohs(in->sin_port);
        memcpy(out->ip, &in->sin_addr, 4);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)from;
        out->port = ntohs(in->sin6_port);
        out->scope_id = in->sin6_scope_id;
        if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr)) { /* a dual-stack socket's IPv4 peer */
            out->kind = OUTR_ADDR_IP4;
            memcpy(out->ip, (const char *)&in->sin6_addr + 12, 4);
        } else {
            out->kind = OUTR_ADDR_IP6;
            memcpy(out->ip, &in->sin6_addr, 16);
        }
    }
}

static outr_tcp *of(outr_stream *s)
{
    return OUTR_CONTAINER(s, outr_tcp, base);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested OUTR_UNUSED, uv_buf_t *buf)
{
    const outr_tcp *tcp = handle->data;
    outr_chunk *chunk = outr_loop_read_chunk(tcp->base.loop);
    *buf = uv_buf_init(chunk->bytes, chunk->cap);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    outr_tcp *tcp = stream->data;
    outr_stream *s = &tcp->base;
    if (n > 0) {
        outr_chunk *chunk = OUTR_CONTAINER(buf->base, outr_chunk, bytes);
        outr_chunk_ref(chunk); /* the callee may make the loop replace it */
        s->events->on_data(s, chunk, buf->base, (size_t)n);
        outr_chunk_unref(chunk);
    } else if (n == UV_EOF) {
        uv_read_stop(stream);
        s->events->on_eof(s);
    } else if (n < 0) {
        uv_read_stop(stream);
        outr_err err;
        outr_uv_fail(&err, (int)n, "read");
        s->events->on_error(s, &err);
    }
}

static void read_start(outr_stream *s)
{
    if (!s->is_closing && !of(s)->is_failed)
        uv_read_start(&of(s)->stream, on_alloc, on_read);
}

static void read_stop(outr_stream *s)
{
    uv_read_stop(&of(s)->stream);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle)
{
    outr_tcp *tcp = handle->data;
    outr_stream *s = &tcp->base;
    outr_timer_stop(s->loop, &tcp->linger);
    outr_loop_undefer(&tcp->failer);
    outr_bufq_done(&tcp->out);
    if (s->events && s->events->on_closed)
        s->events->on_closed(s);
    free(tcp);
}

static void close_handle(outr_tcp *tcp)
{
    if (!uv_is_closing(&tcp->handle))
        uv_close(&tcp->handle, on_handle_closed);
}

static void on_fail(outr_deferred *deferred)
{
    outr_tcp *tcp = OUTR_CONTAINER(deferred, outr_tcp, failer);
    if (!tcp->base.is_closing)
        tcp->base.events->on_error(&tcp->base, &tcp->err);
}

static void fail_write(outr_tcp *tcp, int rc)
{
    if (tcp->is_failed)
        return;
    tcp->is_failed = true;
    outr_uv_fail(&tcp->err, rc, "write");
    outr_bufq_done(&tcp->out);
    tcp->base.pending_bytes = 0;
    if (tcp->base.is_closing) {
        close_handle(tcp);
        return;
    }
    tcp->failer.run = on_fail;
    outr_loop_defer(tcp->base.loop, &tcp->failer);
}

static void on_shutdown(uv_shutdown_t *req OUTR_UNUSED, int rc OUTR_UNUSED) {}

static void flush(outr_tcp *tcp);

static void on_written(uv_write_t *req, int rc)
{
    outr_tcp *tcp = req->data;
    size_t n = tcp->writing;
    tcp->writing = 0;
    if (uv_is_closing(&tcp->handle))
        return;
    if (rc < 0) {
        fail_write(tcp, rc);
        return;
    }
    outr_bufq_drop(&tcp->out, n);
    flush(tcp);
}

/* Everything is with the kernel. */
static void on_empty(outr_tcp *tcp)
{
    if (tcp->base.is_closing) {
        close_handle(tcp);
    } else if (tcp->wants_shutdown) {
        tcp->wants_shutdown = false;
        uv_shutdown(&tcp->shutdown, &tcp->stream, on_shutdown);
    }
}

static void note_level(outr_tcp *tcp)
{
    outr_stream *s = &tcp->base;
    s->pending_bytes = tcp->out.bytes;
    if (s->pending_bytes > s->high_water) {
        tcp->is_full = true;
    } else if (tcp->is_full && s->pending_bytes <= s->low_water) {
        tcp->is_full = false;
        if (!s->is_closing && s->events->on_drain)
            s->events->on_drain(s);
    }
}

/* As much as the kernel takes at once; for the rest one request that waits until it takes more. */
static void flush(outr_tcp *tcp)
{
    outr_str pieces[IOVECS];
    uv_buf_t bufs[IOVECS];
    while (tcp->out.bytes > 0 && !tcp->writing) {
        size_t count = outr_bufq_peek(&tcp->out, pieces, IOVECS), total = 0;
        for (size_t i = 0; i < count; i++) {
            bufs[i] = uv_buf_init((char *)pieces[i].p, (unsigned)pieces[i].n);
            total += pieces[i].n;
        }
        int n = uv_try_write(&tcp->stream, bufs, (unsigned)count);
        if (n >= 0) {
            outr_bufq_drop(&tcp->out, (size_t)n);
            if ((size_t)n == total)
                continue;
        } else if (n != UV_EAGAIN) {
            fail_write(tcp, n);
            return;
        }
        /* Up to four buffers fit into the request itself. */
        count = outr_bufq_peek(&tcp->out, pieces, 4);
        for (size_t i = 0; i < count; i++) {
            bufs[i] = uv_buf_init((char *)pieces[i].p, (unsigned)pieces[i].n);
            tcp->writing += pieces[i].n;
        }
        tcp->write.data = tcp;
        int rc = uv_write(&tcp->write, &tcp->stream, bufs, (unsigned)count, on_written);
        if (rc < 0) {
            tcp->writing = 0;
            fail_write(tcp, rc);
            return;
        }
    }
    note_level(tcp);
    if (tcp->out.bytes == 0)
        on_empty(tcp);
}

static void do_write(outr_stream *s, outr_bufq *own_bytes)
{
    outr_tcp *tcp = of(s);
    if (tcp->is_failed || s->is_closing) {
        outr_bufq_done(own_bytes);
        return;
    }
    outr_bufq_move(&tcp->out, own_bytes);
    if (tcp->writing)
        note_level(tcp);
    else
        flush(tcp);
}

static void do_shutdown(outr_stream *s)
{
    outr_tcp *tcp = of(s);
    if (tcp->is_failed)
        return;
    tcp->wants_shutdown = true;
    if (tcp->out.bytes == 0)
        on_empty(tcp);
}

static void on_linger(outr_timer *timer)
{
    close_handle(OUTR_CONTAINER(timer, outr_tcp, linger));
}

static void do_close(outr_stream *s, bool is_reset)
{
    outr_tcp *tcp = of(s);
    uv_read_stop(&tcp->stream);
    outr_loop_undefer(&tcp->failer);
    if (is_reset && tcp->handle.type == UV_TCP) {
        uv_tcp_close_reset(&tcp->tcp, on_handle_closed);
    } else if (is_reset || tcp->is_failed || tcp->out.bytes == 0) {
        close_handle(tcp);
    } else {
        tcp->linger.fire = on_linger;
        outr_timer_start(s->loop, &tcp->linger, outr_loop_now(s->loop) + LINGER_NS);
    }
}

static void do_nodelay(outr_stream *s, bool on)
{
    if (of(s)->handle.type == UV_TCP)
        uv_tcp_nodelay(&of(s)->tcp, on);
}

static const outr_stream_ops tcp_ops = {
    .read_start = read_start,
    .read_stop = read_stop,
    .write = do_write,
    .shutdown = do_shutdown,
    .close = do_close,
    .nodelay = do_nodelay,
};

outr_tcp *outr_tcp_new(outr_loop *loop, bool is_unix)
{
    outr_tcp *tcp = outr_alloc(sizeof *tcp);
    tcp->base = (outr_stream){
        .ops = &tcp_ops, .loop = loop, .high_water = 64 * OUTR_KIB, .low_water = 16 * OUTR_KIB};
    if (is_unix)
        uv_pipe_init(outr_loop_uv(loop), &tcp->pipe, 0);
    else
        uv_tcp_init(outr_loop_uv(loop), &tcp->tcp);
    tcp->handle.data = tcp;
    return tcp;
}

void outr_tcp_ready(outr_tcp *tcp)
{
    struct sockaddr_storage addr;
    int n = sizeof addr;
    if (tcp->handle.type != UV_TCP) {
        tcp->base.peer.kind = tcp->base.local.kind = OUTR_ADDR_UNIX;
        return;
    }
    uv_tcp_nodelay(&tcp->tcp, 1);
    if (uv_tcp_getpeername(&tcp->tcp, (struct sockaddr *)&addr, &n) == 0)
        outr_addr_from_sys(&tcp->base.peer, &addr);
    n = sizeof addr;
    if (uv_tcp_getsockname(&tcp->tcp, (struct sockaddr *)&addr, &n) == 0)
        outr_addr_from_sys(&tcp->base.local, &addr);
}

static bool is_of_this_machine(const outr_addr *addr)
{
    static const uint8_t loopback6[16] = {[15] = 1};
    return addr->kind == OUTR_ADDR_IP6 ? memcmp(addr->ip, loopback6, sizeof loopback6) == 0
                                       : addr->ip[0] == 127;
}

void outr_tcp_keep_alive(outr_tcp *tcp)
{
    if (tcp->handle.type == UV_TCP && !is_of_this_machine(&tcp->base.peer))
        uv_tcp_keepalive(&tcp->tcp, 1, KEEPALIVE_S);
}

void outr_tcp_discard(outr_tcp *tcp)
{
    tcp->base.events = NULL;
    tcp->base.is_closing = true;
    close_handle(tcp);
}
