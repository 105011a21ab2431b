#include <time.h>

#include "http/conn.h"

#define PREFACE         "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" /* RFC 9113 section 3.4 */
#define PREFACE_LEN     (sizeof PREFACE - 1)
#define MAX_CONNECTIONS 20000
#define ARENAS_KEPT     32

struct outr_http_server {
    outr_http_server_options options;
    outr_list conns;
    size_t conn_count, request_count;
    bool is_draining, is_freed;
    void (*drained)(void *ctx);
    void *drained_ctx;
    outr_deferred drain_teller;
    outr_arena *arenas[ARENAS_KEPT]; /* empty ones, for the next requests */
    size_t arena_count;
    uint64_t date_until_ns;
    char date[40];
};

void outr__limits_default(outr_http_limits *l)
{
    static const struct {
        size_t offset;
        uint64_t otherwise;
    } times[] = {
        {offsetof(outr_http_limits, header_timeout_ns), 10 * OUTR_SEC},
        {offsetof(outr_http_limits, body_idle_ns), 120 * OUTR_SEC},
        {offsetof(outr_http_limits, idle_ns), 120 * OUTR_SEC},
        {offsetof(outr_http_limits, write_idle_ns), 120 * OUTR_SEC},
    };
    for (size_t i = 0; i < OUTR_LEN(times); i++) {
        uint64_t *value = (uint64_t *)(void *)((char *)l + times[i].offset);
        if (!*value)
            *value = times[i].otherwise;
    }
    if (!l->max_header_bytes)
        l->max_header_bytes = 8 * OUTR_KIB;
    if (!l->max_headers)
        l->max_headers = 1000;
    if (!l->max_streams)
        l->max_streams = 1000;
    if (!l->window_bytes)
        l->window_bytes = 192 * 1024;
    if (!l->arena_bytes)
        l->arena_bytes = 64 * OUTR_MIB;
    /* Heads are parsed without asking: there must be room for the largest one, and for a copy of
     * it. */
    l->arena_bytes =
        OUTR_MAX(l->arena_bytes, 8 * l->max_header_bytes + 256 * l->max_headers + OUTR_MIB);
}

/* ---- what connections share ------------------------------------------------------------------ */

void outr__deadline_set(outr_loop *loop, outr__deadline *d, uint64_t at_ns)
{
    d->at_ns = at_ns;
    if (at_ns && (!outr_timer_is_on(&d->timer) || d->timer.node.key > at_ns))
        outr_timer_start(loop, &d->timer, at_ns);
}

bool outr__deadline_is_due(outr_loop *loop, outr__deadline *d)
{
    if (!d->at_ns)
        return false;
    if (d->at_ns <= outr_loop_now(loop))
        return true;
    outr_timer_start(loop, &d->timer, d->at_ns);
    return false;
}

void outr__stall_write(outr__stall *stall, outr_stream *stream, outr_bufq *out)
{
    if (out->bytes == 0)
        return;
    stall->written += out->bytes;
    outr_stream_write(stream, out);
}

uint64_t outr__stall_deadline(outr__stall *stall, const outr_stream *stream, uint64_t now,
                              uint64_t patience_ns)
{
    uint64_t taken = stall->written - stream->pending_bytes;
    if (stream->pending_bytes == 0)
        stall->since_ns = 0;
    else if (taken != stall->taken || !stall->since_ns)
        stall->since_ns = now;
    stall->taken = taken;
    return stall->since_ns ? stall->since_ns + patience_ns : UINT64_MAX;
}

bool outr__stall_is_over(outr__stall *stall, const outr_stream *stream, uint64_t now,
                         uint64_t patience_ns)
{
    return outr__stall_deadline(stall, stream, now, patience_ns) <= now;
}

static void on_flush(outr_deferred *deferred)
{
    outr__conn *conn = OUTR_CONTAINER(deferred, outr__conn, flusher);
    conn->ops->flush(conn);
}

static void on_timer(outr_timer *timer)
{
    outr__conn *conn = OUTR_CONTAINER(timer, outr__conn, deadline.timer);
    if (outr__deadline_is_due(conn->loop, &conn->deadline))
        conn->ops->expire(conn);
}

void outr__conn_open(outr__conn *conn, const outr__conn_ops *ops, outr_http_server *server,
                     outr_stream *stream)
{
    conn->ops = ops;
    conn->server = server;
    conn->loop = server->options.loop;
    conn->stream = stream;
    conn->flusher.run = on_flush;
    conn->deadline.timer.fire = on_timer;
    stream->owner = conn;
    outr_list_push(&server->conns, &conn->link);
    server->conn_count++;
}

void outr__conn_flush_soon(outr__conn *conn)
{
    outr_loop_flush(conn->loop, &conn->flusher);
}

void outr__conn_write(outr__conn *conn)
{
    if (conn->stream)
        outr__stall_write(&conn->stall, conn->stream, &conn->out);
}

bool outr__conn_is_full(const outr__conn *conn)
{
    return conn->stream && conn->out.bytes + conn->stream->pending_bytes > conn->stream->high_water;
}

static void on_drained(outr_deferred *deferred)
{
    outr_http_server *server = OUTR_CONTAINER(deferred, outr_http_server, drain_teller);
    void (*drained)(void *) = server->drained;
    server->drained = NULL;
    if (drained)
        drained(server->drained_ctx);
}

static void check_empty(outr_http_server *server)
{
    if (server->conn_count > 0)
        return;
    if (server->is_freed) {
        outr_loop_undefer(&server->drain_teller);
        while (server->arena_count > 0)
            outr_arena_free(server->arenas[--server->arena_count]);
        free(server);
        return;
    }
    if (server->is_draining && server->drained) {
        server->drain_teller.run = on_drained;
        outr_loop_defer(server->options.loop, &server->drain_teller);
    }
}

void outr__conn_leave(outr__conn *conn)
{
    outr_http_server *server = conn->server;
    outr_loop_undefer(&conn->flusher);
    outr_timer_stop(conn->loop, &conn->deadline.timer);
    outr_bufq_done(&conn->out);
    outr_link_remove(&conn->link);
    server->conn_count--;
    check_empty(server);
}

const outr_http_server_options *outr__server_options(const outr_http_server *server)
{
    return &server->options;
}

bool outr__server_is_draining(const outr_http_server *server)
{
    return server->is_draining;
}

outr_str outr__server_date(outr_http_server *server)
{
    uint64_t now = outr_loop_now(server->options.loop);
    if (now >= server->date_until_ns) {
        int64_t unix_ns = outr_loop_unix_ns(server->options.loop);
        time_t second = (time_t)(unix_ns / (int64_t)OUTR_SEC);
        struct tm tm;
        gmtime_r(&second, &tm);
        strftime(server->date, sizeof server->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        server->date_until_ns = now + OUTR_SEC - (uint64_t)(unix_ns % (int64_t)OUTR_SEC);
    }
    return outr_str_from(server->date);
}

outr_arena *outr__server_arena(outr_http_server *server)
{
    if (server->arena_count > 0)
        return server->arenas[--server->arena_count];
    return outr_arena_new(server->options.limits.arena_bytes);
}

void outr__server_arena_done(outr_http_server *server, outr_arena *own_arena)
{
    if (server->arena_count == ARENAS_KEPT) {
        outr_arena_free(own_arena);
        return;
    }
    outr_arena_reset(own_arena);
    server->arenas[server->arena_count++] = own_arena;
}

void outr__server_request_began(outr_http_server *server)
{
    server->request_count++;
}

void outr__server_request_ended(outr_http_server *server, outr_exchange *x, bool is_broken)
{
    server->request_count--;
    if (server->options.handler->on_finished)
        server->options.handler->on_finished(server->options.ctx, x, is_broken);
}

/* ---- which protocol is it -------------------------------------------------------------------- */

#define TLS_HANDSHAKE 22 /* type of the first record: RFC 8446 section 5.1 */

/* A connection whose first bytes do not say yet: at most a preface's length is held. */
typedef struct sniffer {
    outr__conn base;
    char bytes[PREFACE_LEN];
    size_t n;
} sniffer;

static void end_sniffing(sniffer *s)
{
    outr__conn_leave(&s->base);
    free(s);
}

static void hand_over(sniffer *s, bool is_h2, outr_chunk *chunk, const char *p, size_t n)
{
    outr_http_server *server = s->base.server;
    outr_stream *stream = s->base.stream;
    void (*accept)(outr_http_server *, outr_stream *, outr_chunk *, const char *, size_t) =
        is_h2 ? outr__h2_accept : outr__h1_accept;
    outr_stream_read_stop(stream);
    server->conn_count++; /* held over the change, so that a drain does not see an empty moment */
    if (s->n == 0) {
        end_sniffing(s);
        accept(server, stream, chunk, p, n);
    } else { /* it came in pieces: join them */
        outr_chunk *joined = outr_chunk_new(s->n + n);
        memcpy(joined->bytes, s->bytes, s->n);
        memcpy(joined->bytes + s->n, p, n);
        n += s->n;
        end_sniffing(s);
        accept(server, stream, joined, joined->bytes, n);
        outr_chunk_unref(joined);
    }
    server->conn_count--;
    check_empty(server);
}

static void sniff_data(outr_stream *stream, outr_chunk *chunk, const char *p, size_t n)
{
    sniffer *s = stream->owner;
    const outr_http_server_options *o = &s->base.server->options;
    size_t common = OUTR_MIN(n, PREFACE_LEN - s->n);
    bool may_be_h2 = o->allow_h2 && memcmp(p, PREFACE + s->n, common) == 0;
    if (may_be_h2 && s->n + n < PREFACE_LEN) {
        memcpy(s->bytes + s->n, p, n);
        s->n += n;
        outr__deadline_set(s->base.loop, &s->base.deadline,
                           outr_loop_now(s->base.loop) + o->limits.header_timeout_ns);
        return;
    }
    if (!may_be_h2 && !o->allow_h1) {
        if (o->on_stranger)
            o->on_stranger(o->ctx, &stream->peer, s->n == 0 && p[0] == TLS_HANDSHAKE);
        outr_stream_close(stream);
        return;
    }
    hand_over(s, may_be_h2, chunk, p, n);
}

static void sniff_eof(outr_stream *stream)
{
    outr_stream_close(stream);
}

static void sniff_error(outr_stream *stream, const outr_err *err OUTR_UNUSED)
{
    sniff_eof(stream);
}

static void sniff_closed(outr_stream *stream)
{
    end_sniffing(stream->owner);
}

static const outr_stream_events sniff_events = {
    .on_data = sniff_data, .on_eof = sniff_eof, .on_error = sniff_error, .on_closed = sniff_closed};

static void sniff_drop(outr__conn *conn)
{
    outr_stream_close(conn->stream);
}

static const outr__conn_ops sniff_ops = {
    .flush = outr__conn_write, .drain = sniff_drop, .expire = sniff_drop};

void outr_http_server_take(outr_http_server *server, outr_stream *own_stream)
{
    if (server->is_draining || server->conn_count >= server->options.max_connections) {
        static const outr_stream_events no_events = {0};
        own_stream->events = &no_events;
        outr_stream_reset(own_stream);
        return;
    }
    if (own_stream->alpn.n > 0) {
        bool is_h2 = outr_str_is(own_stream->alpn, "h2");
        (is_h2 ? outr__h2_accept : outr__h1_accept)(server, own_stream, NULL, NULL, 0);
        return;
    }
    sniffer *s = outr_alloc(sizeof *s);
    outr__conn_open(&s->base, &sniff_ops, server, own_stream);
    outr__deadline_set(s->base.loop, &s->base.deadline,
                       outr_loop_now(s->base.loop) + server->options.limits.idle_ns);
    own_stream->events = &sniff_events;
    outr_stream_read_start(own_stream);
}

/* ---- the server ------------------------------------------------------------------------------ */

outr_http_server *outr_http_server_new(const outr_http_server_options *options)
{
    outr_http_server *server = outr_alloc(sizeof *server);
    server->options = *options;
    if (!server->options.max_connections)
        server->options.max_connections = MAX_CONNECTIONS;
    outr__limits_default(&server->options.limits);
    outr_list_init(&server->conns);
    return server;
}

void outr_http_server_drain(outr_http_server *server, void (*drained)(void *ctx), void *ctx)
{
    server->is_draining = true;
    server->drained = drained;
    server->drained_ctx = ctx;
    OUTR_LIST_EACH(link, &server->conns) {
        outr__conn *conn = OUTR_LIST_ITEM(link, outr__conn, link);
        conn->ops->drain(conn);
    }
    check_empty(server);
}

void outr_http_server_dismiss(outr_http_server *server, bool (*keeps)(const outr_stream *stream),
                              uint64_t within_ns)
{
    uint64_t now = outr_loop_now(server->options.loop);
    OUTR_LIST_EACH(link, &server->conns) {
        outr__conn *conn = OUTR_LIST_ITEM(link, outr__conn, link);
        if (!conn->stream || keeps(conn->stream))
            continue;
        if (server->options.on_cut)
            outr__end_sooner(&conn->end, now + within_ns, OUTR_TLS_UNTRUSTED);
        conn->ops->drain(conn);
        outr__conn_flush_soon(conn); /* by which it looks at the time again */
    }
}

void outr_http_server_free(outr_http_server *server)
{
    server->is_freed = true;
    server->drained = NULL;
    server->conn_count++;
    OUTR_LIST_EACH(link, &server->conns) {
        outr__conn *conn = OUTR_LIST_ITEM(link, outr__conn, link);
        if (conn->stream)
            outr_stream_reset(conn->stream);
    }
    server->conn_count--;
    check_empty(server);
}

size_t outr_http_server_connections(const outr_http_server *server)
{
    return server->conn_count;
}

size_t outr_http_server_requests(const outr_http_server *server)
{
    return server->request_count;
}

/* ---- what handlers call, whichever protocol -------------------------------------------------- */

void outr_http_inform(outr_exchange *x, const outr_http_response *head)
{
    x->ops->inform(x, head);
}

outr_sink *outr_http_respond(outr_exchange *x, const outr_http_response *head)
{
    return x->ops->respond(x, head);
}

void outr_http_done(outr_exchange *x)
{
    x->ops->done(x);
}

void outr_http_reply(outr_exchange *x, const outr_http_response *head, outr_str body)
{
    outr_sink *sink = outr_http_respond(x, head);
    if (body.n > 0 && outr_http_has_body(x->req.method, head->status))
        sink->ops->data(sink, outr_slice_static(body)); /* copied there */
    sink->ops->end(sink, NULL);
}
