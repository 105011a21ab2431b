#include "wire.h"

static wire_stream *of(outr_stream *s)
{
    return OUTR_CONTAINER(s, wire_stream, base);
}

static wire *of_env(outr_env *env)
{
    return OUTR_CONTAINER(env, wire, env);
}

static unsigned dice(wire *w, unsigned sides)
{
    return (unsigned)outr_rand_below(&w->rand, sides);
}

/* ---- streams ----------------------------------------------------------------------------------- */

static void s_read_start(outr_stream *s)
{
    of(s)->is_reading = true;
}

static void s_read_stop(outr_stream *s)
{
    of(s)->is_reading = false;
}

static void s_write(outr_stream *s, outr_bufq *own_bytes)
{
    wire_stream *ws = of(s);
    while (own_bytes->count > 0) {
        outr_slice slice = outr_bufq_pop(own_bytes);
        if (!ws->is_shut && !s->is_closing && !ws->is_broken)
            outr_buf_append(&ws->sent, slice.p, slice.n);
        outr_slice_done(&slice);
    }
    if (ws->is_stalled || ws->other)
        s->pending_bytes = ws->sent.n;
    ws->is_full = ws->is_full || outr_stream_is_full(s);
}

static void s_shutdown(outr_stream *s)
{
    of(s)->wants_shutdown = true;
}

static void s_close(outr_stream *s, bool is_reset)
{
    wire_stream *ws = of(s);
    ws->is_reading = false;
    ws->was_reset = is_reset;
    if (is_reset)
        outr_buf_drop(&ws->sent, ws->other ? ws->sent.n : 0);
}

static void s_nodelay(outr_stream *s OUTR_UNUSED, bool on OUTR_UNUSED) {}

static const outr_stream_ops ops = {s_read_start, s_read_stop, s_write,
                                    s_shutdown,   s_close,     s_nodelay};

wire_stream *wire_open(wire *w)
{
    wire_stream *ws = outr_alloc(sizeof *ws);
    ws->base = (outr_stream){
        .ops = &ops, .loop = w->loop, .high_water = 64 * OUTR_KIB, .low_water = 16 * OUTR_KIB};
    ws->net = w;
    ws->sent = ws->inbox = OUTR_BUF_MAX(SIZE_MAX / 2);
    ws->is_tests = true;
    outr_list_push(&w->streams, &ws->link);
    return ws;
}

void wire_pair(wire *w, wire_stream **a, wire_stream **b)
{
    *a = wire_open(w);
    *b = wire_open(w);
    (*a)->other = *b;
    (*b)->other = *a;
    (*a)->is_tests = (*b)->is_tests = false;
}

static void free_stream(wire_stream *ws)
{
    outr_link_remove(&ws->link);
    outr_buf_done(&ws->sent);
    outr_buf_done(&ws->inbox);
    free(ws);
}

void wire_feed(wire_stream *s, const void *p, size_t n)
{
    outr_buf_append(&s->inbox, p, n);
}

void wire_feed_z(wire_stream *s, const char *text)
{
    wire_feed(s, text, strlen(text));
}

void wire_eof(wire_stream *s)
{
    s->has_eof = true;
}

void wire_break(wire_stream *s)
{
    s->is_broken = true;
}

const char *wire_take(wire_stream *s, size_t *n)
{
    outr_buf_char(&s->sent, 0);
    if (n)
        *n = s->sent.n - 1;
    s->sent.n = 0;
    return s->sent.p;
}

size_t wire_unread(const wire_stream *s)
{
    return s->inbox.n - s->inbox_at;
}

static void drop_read(wire_stream *s, size_t n)
{
    s->inbox_at += n;
    if (s->inbox_at == s->inbox.n)
        s->inbox.n = s->inbox_at = 0;
    if (s->inbox_at > 128 * OUTR_KIB) {
        outr_buf_drop(&s->inbox, s->inbox_at);
        s->inbox_at = 0;
    }
}

/* ---- what happens on the wire ------------------------------------------------------------------- */

static bool deliver(wire_stream *ws)
{
    wire *w = ws->net;
    outr_stream *s = &ws->base;
    if (ws->is_broken) {
        if (ws->told_broken || s->is_closing)
            return false;
        outr_err err;
        ws->told_broken = true;
        outr_fail(&err, OUTR_UNAVAILABLE, "read: connection reset by peer");
        s->events->on_error(s, &err);
        return true;
    }
    if (!ws->is_reading || s->is_closing)
        return false;
    if (wire_unread(ws) == 0) {
        if (!ws->has_eof || ws->told_eof)
            return false;
        ws->told_eof = true;
        s->events->on_eof(s);
        return true;
    }
    size_t n = OUTR_MIN(wire_unread(ws), OUTR_READ_CHUNK);
    size_t piece = w->piece_max ? 1 + dice(w, w->piece_max) : n;
    n = OUTR_MIN(n, piece);
    outr_chunk *chunk = outr_loop_read_chunk(w->loop);
    outr_chunk_ref(chunk);
    memcpy(chunk->bytes, ws->inbox.p + ws->inbox_at, n);
    drop_read(ws, n);
    s->events->on_data(s, chunk, chunk->bytes, n);
    outr_chunk_unref(chunk);
    return true;
}

/* From here to the other end, as much as it has room for. */
static bool transfer(wire_stream *ws)
{
    wire_stream *to = ws->other;
    bool happened = false;
    if (!to || ws->is_stalled)
        return false;
    size_t room = wire_unread(to) < 256 * OUTR_KIB ? 256 * OUTR_KIB - wire_unread(to) : 0;
    size_t n = OUTR_MIN(ws->sent.n, room);
    if (n > 0) {
        outr_buf_append(&to->inbox, ws->sent.p, n);
        outr_buf_drop(&ws->sent, n);
        happened = true;
    }
    ws->base.pending_bytes = ws->sent.n;
    if (ws->is_full && ws->sent.n <= ws->base.low_water) {
        ws->is_full = false;
        if (!ws->base.is_closing && ws->base.events->on_drain)
            ws->base.events->on_drain(&ws->base);
    }
    if (ws->sent.n == 0 && ws->wants_shutdown && !ws->is_shut) {
        ws->is_shut = to->has_eof = true;
        happened = true;
    }
    return happened;
}

static bool drain_to_test(wire_stream *ws)
{
    bool was_full = ws->is_full;
    if (ws->other || ws->is_stalled)
        return false;
    ws->base.pending_bytes = 0;
    ws->is_full = false;
    ws->is_shut = ws->is_shut || ws->wants_shutdown;
    if (was_full && !ws->base.is_closing && ws->base.events->on_drain)
        ws->base.events->on_drain(&ws->base);
    return was_full;
}

static bool finish_close(wire_stream *ws)
{
    wire_stream *other = ws->other;
    if (!ws->base.is_closing || ws->is_gone || (ws->sent.n > 0 && other && !ws->was_reset))
        return false;
    ws->is_gone = true;
    if (other) {
        other->other = NULL;
        other->has_eof = true;
        /* Bytes nobody read turn the close into a reset, as the kernel does it. */
        if (ws->was_reset || wire_unread(ws) > 0)
            other->is_broken = true;
        other->is_stalled = false;
        ws->other = NULL;
    }
    if (ws->base.events && ws->base.events->on_closed)
        ws->base.events->on_closed(&ws->base);
    if (!ws->is_tests)
        free_stream(ws);
    return true;
}

static bool has_work(const wire_stream *ws)
{
    bool can_send =
        ws->other && !ws->is_stalled && (ws->sent.n > 0 || (ws->wants_shutdown && !ws->is_shut));
    bool can_read = !ws->base.is_closing &&
                    ((ws->is_broken && !ws->told_broken) ||
                     (ws->is_reading && (wire_unread(ws) > 0 || (ws->has_eof && !ws->told_eof))));
    return can_send || can_read;
}

static bool step(wire *w)
{
    bool happened = false;
    outr_list all;
    outr_list_init(&all);
    while (!outr_list_is_empty(&w->streams))
        outr_list_push(&all, outr_list_pop(&w->streams));
    while (!outr_list_is_empty(&all)) {
        outr_link *link = outr_list_pop(&all);
        wire_stream *ws = OUTR_LIST_ITEM(link, wire_stream, link);
        outr_list_push(&w->streams, link);
        if (finish_close(ws)) {
            happened = true;
            continue;
        }
        if (ws->is_gone)
            continue;
        if (w->late_percent && has_work(ws) && dice(w, 100) < w->late_percent) {
            happened = true;
            continue;
        }
        if (ws->other && w->break_per_mille && ws->sent.n + wire_unread(ws) > 0 &&
            dice(w, 1000) < w->break_per_mille)
            ws->is_broken = ws->other->is_broken = true;
        happened = transfer(ws) || happened;
        happened = drain_to_test(ws) || happened;
        happened = deliver(ws) || happened;
    }
    return happened;
}

bool wire_run(wire *w)
{
    for (int i = 0; i < 1000000; i++) {
        uint64_t next = outr_loop_tick(w->loop);
        if (!step(w) && next > w->now) {
            outr_loop_tick(w->loop);
            if (!step(w))
                return true;
        }
    }
    return false;
}

void wire_set_now(wire *w, uint64_t now_ns)
{
    __atomic_store_n(&w->now, now_ns, __ATOMIC_RELAXED);
}

void wire_sleep(wire *w, uint64_t ns)
{
    uint64_t until = w->now + ns;
    for (;;) {
        wire_run(w);
        uint64_t next = outr_loop_tick(w->loop);
        if (next > until)
            break;
        wire_set_now(w, OUTR_MAX(next, w->now));
    }
    wire_set_now(w, until);
    wire_run(w);
}

bool wire_until(wire *w, bool (*is_over)(void *ctx), void *ctx, uint64_t max_ns)
{
    uint64_t until = w->now + max_ns;
    for (int rests = 0; rests < 3;) { /* is_over may have set something going */
        if (is_over(ctx))
            return true;
        if (!wire_run(w))
            return false;
        uint64_t next = outr_loop_tick(w->loop);
        rests = next > until ? rests + 1 : 0;
        if (next <= until)
            wire_set_now(w, OUTR_MAX(next, w->now));
    }
    return is_over(ctx);
}

/* ---- the environment ---------------------------------------------------------------------------- */

static uint64_t env_now(outr_env *env)
{
    return of_env(env)->now;
}

static int64_t env_unix(outr_env *env)
{
    return INT64_C(1700000000000000000) +
           (int64_t)__atomic_load_n(&of_env(env)->now, __ATOMIC_RELAXED);
}

static void env_entropy(outr_env *env, void *out, size_t n)
{
    unsigned char *bytes = out;
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)outr_rand_below(&of_env(env)->rand, 256);
}

static void env_connect(outr_env *env, struct outr_loop *loop OUTR_UNUSED, outr_connect *req,
                        struct outr_op *op)
{
    wire *w = of_env(env);
    outr_op_begin(op, req, NULL);
    w->connect_count++;
    if (w->refuse_percent && dice(w, 100) < w->refuse_percent) {
        outr_err err;
        outr_fail(&err, OUTR_UNAVAILABLE, "connect: connection refused");
        outr_op_fail_soon(op, &err);
        return;
    }
    if (w->on_accept) {
        wire_stream *a, *b;
        wire_pair(w, &a, &b);
        req->stream = &a->base;
        a->base.peer = b->base.local = req->addr;
        w->on_accept(w->ctx, &b->base);
    } else {
        w->last = wire_open(w);
        w->last->base.peer = req->addr;
        req->stream = &w->last->base;
    }
    if (w->expires_ns)
        req->stream->expires_ns = w->expires_ns;
    outr_op_finish_soon(op);
}

void wire_init_with(wire *w, uint64_t seed, outr_metric_shard *metrics)
{
    memset(w, 0, sizeof *w);
    w->env = (outr_env){
        .now_ns = env_now, .unix_ns = env_unix, .entropy = env_entropy, .connect = env_connect};
    w->now = OUTR_SEC;
    outr_rand_seed(&w->rand, seed);
    outr_list_init(&w->streams);
    w->loop = outr_loop_new(
        &(outr_loop_options){.env = &w->env, .metrics = metrics, .is_simulated = true});
}

void wire_init(wire *w, uint64_t seed)
{
    wire_init_with(w, seed, NULL);
}

void wire_done(wire *w)
{
    w->late_percent = w->break_per_mille = w->piece_max = 0;
    OUTR_LIST_EACH(link, &w->streams) {
        wire_stream *ws = OUTR_LIST_ITEM(link, wire_stream, link);
        ws->is_stalled = false;
        if (!ws->is_gone)
            outr_stream_reset(&ws->base);
    }
    wire_run(w);
    while (!outr_list_is_empty(&w->streams))
        free_stream(OUTR_LIST_ITEM(w->streams.next, wire_stream, link));
    outr_loop_free(w->loop);
}
