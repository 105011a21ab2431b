#include "http/conn.h"

#define MAX_CONNECTIONS 1024
#define MAX_PENDING     4096
#define CONNECT_TIMEOUT (5 * OUTR_SEC)
#define IDLE_DEFAULT    (90 * OUTR_SEC)
#define SPARE_CONNECTIONS                                                                          \
    64 /* idle ones kept so long; those that a burst left beyond them go soon */
#define SPARE_IDLE      (5 * OUTR_SEC)
#define STREAMS_GUESSED 100 /* of a peer not met yet: RFC 9113 section 6.5.2 asks for so many */

struct outr_http_pool {
    outr_http_pool_options options;
    outr_list ready,
        busy;          /* connections with room for a call, most recently used first; the others */
    outr_list waiting; /* calls without a connection, in order */
    outr_list openings;
    size_t client_count, waiting_count, opening_count, in_flight;
    size_t unmet_count; /* HTTP/2 connections whose SETTINGS have not come: one call each so far */
    uint32_t peer_setting, peer_streams; /* from the newest SETTINGS; streams: a guess before */
    bool knows_peer;
    outr_timer sweeper; /* closes connections that idle too long */
    outr_deferred filler;
    outr_tls_sessions *sessions; /* with TLS: of the newest connection */
    bool is_freed, is_stopped;
};

/* A connection being made. */
typedef struct opening {
    outr_http_pool *pool;
    outr_connect connect;
    outr_tls_handshake handshake;
    outr_op op;
    outr_link link;
} opening;

static void fill(outr_http_pool *pool);

const outr_http_pool_options *outr__pool_options(const outr_http_pool *pool)
{
    return &pool->options;
}

static void free_if_over(outr_http_pool *pool)
{
    if (!pool->is_freed || pool->opening_count > 0 || pool->client_count > 0)
        return;
    outr_timer_stop(pool->options.loop, &pool->sweeper);
    outr_loop_undefer(&pool->filler);
    outr_tls_unref(pool->options.tls);
    outr_http_quota_unref(pool->options.quota);
    outr_tls_sessions_unref(pool->sessions);
    free((void *)pool->options.server_name.p);
    free(pool);
}

/* ---- calls ----------------------------------------------------------------------------------- */

static outr__call *impl_of(const outr_http_call *call)
{
    return call->impl;
}

void outr__call_end(outr_http_call *call, const outr_err *err)
{
    outr__call *impl = impl_of(call);
    outr_http_pool *pool = impl->pool;
    pool->in_flight--;
    if (outr_link_is_in(&impl->link)) {
        outr_link_remove(&impl->link);
        pool->waiting_count--;
    }
    impl->client = NULL;
    /* In a turn of its own: the caller frees the call, and somebody up the stack may hold it. */
    if (err)
        outr_op_fail_soon(impl->op, err);
    else
        outr_op_finish_soon(impl->op);
}

static void on_cancel(outr_op *op)
{
    outr_http_call *call = op->impl;
    outr__call *impl = impl_of(call);
    if (impl->client)
        impl->client->ops->cancel(impl->client, call);
    outr__call_end(call, &op->err);
}

static void fail_waiting(outr_http_pool *pool, size_t count, const outr_err *err)
{
    while (count-- > 0 && !outr_list_is_empty(&pool->waiting))
        outr__call_end(OUTR_LIST_ITEM(pool->waiting.next, outr__call, link)->call, err);
}

static void place(outr__client *client)
{
    outr_http_pool *pool = client->pool;
    bool has_room = !client->is_retired && client->active < client->capacity;
    outr_link_remove(&client->link);
    if (has_room)
        outr_list_push_front(&pool->ready, &client->link);
    else
        outr_list_push(&pool->busy, &client->link);
}

static void give(outr__client *client, outr__call *impl)
{
    outr_http_pool *pool = client->pool;
    outr_link_remove(&impl->link);
    pool->waiting_count--;
    impl->call->was_reused = client->is_used;
    impl->call->peer_setting = client->peer_setting;
    outr_err err;
    if (impl->call->on_place && impl->call->on_place(impl->call, &err)) {
        outr__call_end(impl->call, &err);
        return;
    }
    impl->client = client;
    client->is_used = true;
    client->ops->start(client, impl->call);
    place(client);
}

/* A head that would not be one on the wire. The caller's text may come from its own callers. */
static bool is_sound(const outr_http_request *req)
{
    for (size_t i = 0; i < req->target.n; i++) {
        unsigned char c = (unsigned char)req->target.p[i];
        if (c <= 0x20 || c == 0x7f)
            return false;
    }
    return req->target.n > 0 && outr_header_name_is_valid(req->method) &&
           outr_header_value_is_valid(req->authority);
}

void outr_http_call_start(outr_http_pool *pool, outr_http_call *call, outr_op *op)
{
    outr__call *impl = outr_arena_alloc(call->arena, sizeof *impl);
    *impl = (outr__call){.call = call, .op = op, .pool = pool};
    call->impl = impl;
    call->progress = OUTR_CALL_NOT_SENT;
    call->response = NULL;
    call->was_reused = call->body_taken = false;
    call->peer_setting = call->reset_code = 0;
    pool->in_flight++;
    outr_op_begin(op, call, on_cancel);
    outr_list_push(&pool->waiting, &impl->link);
    pool->waiting_count++;
    if (is_sound(call->req)) {
        outr_loop_defer(pool->options.loop, &pool->filler);
        return;
    }
    outr_err err;
    outr_fail(&err, OUTR_INVALID_ARGUMENT, "method, path or host cannot be sent");
    outr__call_end(call, &err);
}

/* ---- connections ----------------------------------------------------------------------------- */

/* How many calls wait for one connection that is being made. */
static size_t calls_per_opening(const outr_http_pool *pool)
{
    return pool->options.version == OUTR_HTTP_2 ? pool->peer_streams : 1;
}

/* How many waiting calls have connections on the way. */
static size_t covered(const outr_http_pool *pool)
{
    return (pool->opening_count + pool->unmet_count) * calls_per_opening(pool);
}

static void add_client(outr_http_pool *pool, outr_stream *stream)
{
    bool is_h2 =
        stream->alpn.n ? outr_str_is(stream->alpn, "h2") : pool->options.version == OUTR_HTTP_2;
    uint64_t leave_ns = outr__leave_time(stream, outr_loop_now(pool->options.loop));
    uint64_t ends_ns = stream->expires_ns;
    outr__client *client = (is_h2 ? outr__h2_connect : outr__h1_connect)(pool, stream);
    client->idle_since_ns = outr_loop_now(pool->options.loop);
    client->leave_ns = leave_ns;
    if (pool->options.on_cut)
        outr__end_sooner(&client->end, ends_ns, OUTR_TLS_EXPIRED);
    pool->client_count++;
    pool->unmet_count += client->is_unmet;
    place(client);
}

/* Calls that a connection was made for; a fresh attempt for them would only be the same again. */
static void fail_uncovered(outr_http_pool *pool, outr_err *err)
{
    size_t others = covered(pool);
    size_t count = pool->waiting_count > others ? pool->waiting_count - others : 0;
    err->code = OUTR_UNAVAILABLE;
    err->retriable = true;
    fail_waiting(pool, OUTR_MIN(count, calls_per_opening(pool)), err);
}

static void on_opened(outr_op *op)
{
    opening *o = OUTR_CONTAINER(op, opening, op);
    outr_http_pool *pool = o->pool;
    outr_stream *stream = o->connect.stream ? o->connect.stream : o->handshake.stream;
    outr_err err = op->err;
    const char *reason = err.code ? o->handshake.reason : NULL;
    outr_link_remove(&o->link);
    free(o);
    pool->opening_count--;
    if (err.code || pool->is_freed)
        outr_http_quota_give_back(pool->options.quota);
    if (pool->is_freed) {
        if (!err.code) {
            static const outr_stream_events no_events = {0};
            stream->events = &no_events;
            outr_stream_close(stream);
        }
        free_if_over(pool);
        return;
    }
    if (!err.code) {
        add_client(pool, stream);
    } else {
        if (reason && pool->options.on_refused)
            pool->options.on_refused(pool->options.ctx, reason, &err);
        fail_uncovered(pool, &err);
    }
    fill(pool);
}

static void on_connected(outr_op *op)
{
    opening *o = OUTR_CONTAINER(op, opening, op);
    outr_http_pool *pool = o->pool;
    if (op->err.code || !pool->options.tls || pool->is_freed) {
        on_opened(op);
        return;
    }
    uint64_t deadline_ns = op->deadline_ns;
    o->handshake = (outr_tls_handshake){.tls = pool->options.tls,
                                        .own_below = o->connect.stream,
                                        .server_name = pool->options.server_name,
                                        .check = pool->options.tls_check,
                                        .sessions = pool->sessions};
    outr_op_init(op, pool->options.loop, NULL, deadline_ns, on_opened);
    o->connect.stream = NULL;
    outr_tls_handshake_start(&o->handshake, op);
}

static void open_one(outr_http_pool *pool)
{
    outr_loop *loop = pool->options.loop;
    outr_env *env = outr_loop_env(loop);
    opening *o = outr_alloc(sizeof *o);
    o->pool = pool;
    o->connect.addr = pool->options.addr;
    outr_list_push(&pool->openings, &o->link);
    pool->opening_count++;
    outr_op_init(&o->op, loop, NULL, outr_loop_now(loop) + pool->options.connect_timeout_ns,
                 on_connected);
    env->connect(env, loop, &o->connect, &o->op);
}

/* Some connection will take calls, or leaves room for another one at once. One that is to leave may
 * have calls for hours. */
static bool has_hope(const outr_http_pool *pool)
{
    if (pool->opening_count > 0 || !outr_list_is_empty(&pool->ready))
        return true;
    OUTR_LIST_EACH(link, &pool->busy) {
        const outr__client *client = OUTR_LIST_ITEM(link, outr__client, link);
        if (!client->is_retired || client->active == 0)
            return true;
    }
    return false;
}

/* Calls to connections with room; for those left over, connections are opened. */
static void fill(outr_http_pool *pool)
{
    if (pool->is_stopped) {
        outr_err err;
        outr_fail(&err, OUTR_UNAVAILABLE, "the connection was lost");
        fail_waiting(pool, SIZE_MAX, &err);
        return;
    }
    while (!outr_list_is_empty(&pool->waiting) && !outr_list_is_empty(&pool->ready)) {
        outr__client *client = OUTR_LIST_ITEM(pool->ready.next, outr__client, link);
        if (client->leave_ns && outr_loop_now(pool->options.loop) >= client->leave_ns)
            client->ops->retire(client); /* which takes it out of ready */
        else
            give(client, OUTR_LIST_ITEM(pool->waiting.next, outr__call, link));
    }
    while (!pool->is_freed && pool->waiting_count > covered(pool) &&
           pool->client_count + pool->opening_count < pool->options.max_connections &&
           outr_http_quota_take(pool->options.quota))
        open_one(pool);
    if (!pool->is_freed && pool->options.quota && pool->waiting_count > 0 && !has_hope(pool)) {
        outr_err err;
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "there are as many connections as may be");
        fail_waiting(pool, pool->waiting_count, &err);
    }
    while (pool->waiting_count > pool->options.max_pending + covered(pool)) {
        outr_err err;
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "more than %zu calls wait for a connection",
                  pool->options.max_pending);
        outr__call_end(OUTR_LIST_ITEM(pool->waiting.prev, outr__call, link)->call, &err);
    }
}

static void on_fill(outr_deferred *deferred)
{
    fill(OUTR_CONTAINER(deferred, outr_http_pool, filler));
}

static void sweep_later(outr_http_pool *pool)
{
    uint64_t period =
        pool->client_count > SPARE_CONNECTIONS ? SPARE_IDLE : pool->options.limits.idle_ns / 2;
    uint64_t at = outr_loop_now(pool->options.loop) + period;
    if (!outr_timer_is_on(&pool->sweeper) || pool->sweeper.node.key > at)
        outr_timer_start(pool->options.loop, &pool->sweeper, at);
}

static void on_sweep(outr_timer *timer)
{
    outr_http_pool *pool = OUTR_CONTAINER(timer, outr_http_pool, sweeper);
    uint64_t now = outr_loop_now(pool->options.loop), idle_ns = pool->options.limits.idle_ns;
    size_t kept = 0;
    OUTR_LIST_EACH(link, &pool->ready) {
        outr__client *client = OUTR_LIST_ITEM(link, outr__client, link);
        uint64_t limit_ns = kept < SPARE_CONNECTIONS ? idle_ns : OUTR_MIN(SPARE_IDLE, idle_ns);
        if (client->active == 0 && now - client->idle_since_ns >= limit_ns)
            client->ops->retire(client);
        else
            kept++;
    }
    if (pool->client_count > 0)
        sweep_later(pool);
}

static void tell_leaving(outr__client *client)
{
    const outr_http_pool *pool = client->pool;
    if (client->is_left || pool->is_freed)
        return;
    client->is_left = true;
    if (pool->options.on_leaving)
        pool->options.on_leaving(pool->options.ctx);
}

void outr__pool_changed(outr__client *client)
{
    outr_http_pool *pool = client->pool;
    place(client);
    if (client->is_retired)
        tell_leaving(client);
    if (client->active == 0) {
        client->idle_since_ns = outr_loop_now(pool->options.loop);
        sweep_later(pool);
    }
    if (pool->waiting_count > 0)
        outr_loop_defer(pool->options.loop, &pool->filler);
}

void outr__pool_met(outr__client *client, uint32_t peer_setting, uint32_t max_streams)
{
    outr_http_pool *pool = client->pool;
    pool->knows_peer = true;
    pool->peer_setting = peer_setting;
    pool->peer_streams = OUTR_MAX(max_streams, 1u);
    pool->unmet_count -= client->is_unmet;
    client->is_unmet = false;
    client->peer_setting = peer_setting;
    client->capacity = max_streams;
    outr__pool_changed(client);
}

void outr__pool_unmet(outr__client *client, const outr_err *err)
{
    outr_http_pool *pool = client->pool;
    outr_err copy = *err;
    if (!client->is_unmet)
        return;
    client->is_unmet = false;
    pool->unmet_count--;
    if (pool->options.waits_for_settings && !pool->is_freed)
        fail_uncovered(pool, &copy);
}

void outr__pool_gone(outr__client *client)
{
    outr_http_pool *pool = client->pool;
    tell_leaving(client);
    outr_link_remove(&client->link);
    pool->client_count--;
    outr_http_quota_give_back(pool->options.quota);
    pool->unmet_count -= client->is_unmet;
    if (pool->waiting_count > 0 && !pool->is_freed)
        outr_loop_defer(pool->options.loop, &pool->filler);
    free_if_over(pool);
}

/* ---- the pool -------------------------------------------------------------------------------- */

outr_http_pool *outr_http_pool_new(const outr_http_pool_options *options)
{
    outr_http_pool *pool = outr_alloc(sizeof *pool);
    pool->options = *options;
    outr_http_pool_options *o = &pool->options;
    uint64_t body_idle_ns = o->limits.body_idle_ns;
    o->limits.idle_ns = o->limits.idle_ns ? o->limits.idle_ns : IDLE_DEFAULT;
    outr__limits_default(&o->limits);
    o->limits.body_idle_ns =
        body_idle_ns; /* how long an answer may take is the caller's deadline */
    o->max_connections = o->max_connections ? o->max_connections : MAX_CONNECTIONS;
    o->max_pending = o->max_pending ? o->max_pending : MAX_PENDING;
    o->connect_timeout_ns = o->connect_timeout_ns ? o->connect_timeout_ns : CONNECT_TIMEOUT;
    o->tls = o->tls ? outr_tls_ref(o->tls) : NULL;
    o->quota = o->quota ? outr_http_quota_ref(o->quota) : NULL;
    pool->sessions = o->tls ? outr_tls_sessions_new() : NULL;
    o->server_name = outr_str_of(outr_str_dup(options->server_name), options->server_name.n);
    outr_list_init(&pool->ready);
    outr_list_init(&pool->busy);
    outr_list_init(&pool->waiting);
    outr_list_init(&pool->openings);
    pool->peer_streams = STREAMS_GUESSED;
    pool->filler.run = on_fill;
    pool->sweeper.fire = on_sweep;
    return pool;
}

static void close_client(outr__client *client, void *ctx OUTR_UNUSED)
{
    client->ops->close(client);
}

static void retire_client(outr__client *client, void *ctx OUTR_UNUSED)
{
    client->ops->retire(client);
}

typedef struct dismissal {
    bool (*keeps)(const outr_stream *stream);
    uint64_t at_ns;
} dismissal;

static void dismiss_client(outr__client *client, void *ctx)
{
    const dismissal *d = ctx;
    const outr_stream *stream = client->ops->stream(client);
    if (!stream || d->keeps(stream))
        return;
    if (client->pool->options.on_cut)
        outr__end_sooner(&client->end, d->at_ns, OUTR_TLS_UNTRUSTED);
    client->ops->retire(client);
}

static void each_client(outr_http_pool *pool, void (*run)(outr__client *client, void *ctx),
                        void *ctx)
{
    outr_list *const lists[] = {&pool->ready, &pool->busy};
    for (size_t i = 0; i < OUTR_LEN(lists); i++) {
        outr_list all;
        outr__list_take(&all, lists[i]);
        while (!outr_list_is_empty(&all)) {
            outr__client *client = OUTR_LIST_ITEM(outr_list_pop(&all), outr__client, link);
            place(client);
            run(client, ctx);
        }
    }
}

void outr_http_pool_free(outr_http_pool *pool)
{
    outr_err err;
    if (!pool)
        return;
    pool->is_freed = true;
    outr_loop_undefer(&pool->filler);
    outr_fail(&err, OUTR_CANCELLED, "the connection pool was closed");
    fail_waiting(pool, SIZE_MAX, &err);
    pool->client_count++; /* held while all of it comes down */
    each_client(pool, close_client, NULL);
    OUTR_LIST_EACH(link, &pool->openings)
        outr_op_cancel(&OUTR_LIST_ITEM(link, opening, link)->op, OUTR_CANCELLED);
    pool->client_count--;
    free_if_over(pool);
}

size_t outr_http_pool_in_flight(const outr_http_pool *pool)
{
    return pool->in_flight;
}

size_t outr_http_pool_connections(const outr_http_pool *pool)
{
    return pool->client_count;
}

bool outr_http_pool_peer_setting(const outr_http_pool *pool, uint32_t *value)
{
    *value = pool->peer_setting;
    return pool->knows_peer;
}

void outr_http_pool_stop(outr_http_pool *pool)
{
    pool->is_stopped = true;
    fill(pool);
}

void outr_http_pool_retire(outr_http_pool *pool)
{
    each_client(pool, retire_client, NULL);
}

void outr_http_pool_dismiss(outr_http_pool *pool, bool (*keeps)(const outr_stream *stream),
                            uint64_t within_ns)
{
    dismissal d = {keeps, outr_loop_now(pool->options.loop) + within_ns};
    each_client(pool, dismiss_client, &d);
}
