#include "http/conn.h"

#define MAX_CONNECTIONS  1024
#define MAX_PENDING      4096
#define CONNECT_TIMEOUT  (5 * OUTR_SEC)
#define IDLE_DEFAULT     (90 * OUTR_SEC)

struct outr_http_pool {
    outr_http_pool_options options;
    outr_list clients;        /* most recently used first */
    outr_list waiting;        /* calls without a connection, in order */
    size_t client_count, waiting_count, opening, in_flight;
    outr_timer sweeper;       /* closes connections that idle too long */
    outr_deferred filler;
    bool is_freed;
    unsigned holds;
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
    if (!pool->is_freed || pool->holds > 0 || pool->opening > 0 || pool->client_count > 0)
        return;
    outr_timer_stop(pool->options.loop, &pool->sweeper);
    outr_loop_undefer(&pool->filler);
    outr_tls_unref(pool->options.tls);
    free((void *)pool->options.server_name.p);
    free(pool);
}

/* ---- calls ------------------------------------------------------------------------------------ */

static outr__call *impl_of(const outr_http_call *call)
{
    return call->impl;
}

void outr__call_end(outr_http_call *call, const outr_err *err)
{
    outr__call *impl = impl_of(call);
    outr_http_pool *pool = impl->pool;
    outr_op *op = impl->op;
    pool->in_flight--;
    if (outr_link_is_in(&impl->link)) {
        outr_link_remove(&impl->link);
        pool->waiting_count--;
    }
    impl->client = NULL;
    if (err)
        outr_op_fail(op, err);
    else
        outr_op_finish(op);
    free_if_over(pool);
}

static void on_cancel(outr_op *op)
{
    outr_http_call *call = op->impl;
    outr__call *impl = impl_of(call);
    if (impl->client)
        impl->client->ops->cancel(impl->client, call);
    outr__call_end(call, &op->err);
}

static void fail_waiting(outr_http_pool *pool, const outr_err *err)
{
    pool->holds++;
    while (!outr_list_is_empty(&pool->waiting)) {
        outr__call *impl = OUTR_LIST_ITEM(pool->waiting.next, outr__call, link);
        outr__call_end(impl->call, err);
    }
    pool->holds--;
    free_if_over(pool);
}

static void give(outr_http_pool *pool, outr__client *client, outr__call *impl)
{
    outr_link_remove(&impl->link);
    pool->waiting_count--;
    impl->client = client;
    impl->call->was_reused = client->is_used;
    client->is_used = true;
    outr_link_remove(&client->link);
    outr_list_push_front(&pool->clients, &client->link);
    client->ops->start(client, impl->call);
}

void outr_http_call_start(outr_http_pool *pool, outr_http_call *call, outr_op *op)
{
    outr__call *impl = outr_arena_alloc(call->arena, sizeof *impl);
    *impl = (outr__call){.call = call, .op = op, .pool = pool};
    call->impl = impl;
    call->progress = OUTR_CALL_NOT_SENT;
    call->response = NULL;
    call->was_reused = call->body_taken = false;
    pool->in_flight++;
    outr_op_begin(op, call, on_cancel);
    outr_list_push(&pool->waiting, &impl->link);
    pool->waiting_count++;
    outr_loop_defer(pool->options.loop, &pool->filler);
}

/* ---- connections ------------------------------------------------------------------------------ */

static void on_opened(outr_op *op)
{
    opening *o = OUTR_CONTAINER(op, opening, op);
    outr_http_pool *pool = o->pool;
    outr_stream *stream = o->connect.stream;
    pool->opening--;
    pool->holds++;
    if (pool->is_freed) {
        if (!op->err.code) {
            static const outr_stream_events no_events = {0};
            stream->events = &no_events;
            outr_stream_close(stream);
        }
    } else if (op->err.code) {
        outr_err err = op->err;
        err.code = OUTR_UNAVAILABLE;
        err.retriable = true;
        if (pool->opening == 0 && pool->client_count == 0)
            fail_waiting(pool, &err); /* nothing else is coming that could carry them */
        else
            fill(pool);
    } else {
        bool is_h2 = stream->alpn.n ? outr_str_is(stream->alpn, "h2") : pool->options.version == OUTR_HTTP_2;
        outr__client *client = (is_h2 ? outr__h2_connect : outr__h1_connect)(pool, stream);
        client->pool = pool;
        client->idle_since_ns = outr_loop_now(pool->options.loop);
        outr_list_push_front(&pool->clients, &client->link);
        pool->client_count++;
        fill(pool);
    }
    free(o);
    pool->holds--;
    free_if_over(pool);
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
    o->handshake = (outr_tls_handshake){.tls = pool->options.tls, .own_below = o->connect.stream, .server_name = pool->options.server_name};
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
    pool->opening++;
    outr_op_init(&o->op, loop, NULL, outr_loop_now(loop) + pool->options.connect_timeout_ns, on_connected);
    env->connect(env, loop, &o->connect, &o->op);
}

/* Streams a new HTTP/2 connection is trusted with before its SETTINGS are known. */
#define CALLS_PER_OPENING_H2 100

static outr__client *find_free(outr_http_pool *pool)
{
    OUTR_LIST_EACH(link, &pool->clients)
    {
        outr__client *client = OUTR_LIST_ITEM(link, outr__client, link);
        if (!client->is_retired && client->active < client->capacity)
            return client;
    }
    return NULL;
}

/* Calls to connections with room; for those left over, connections are opened. */
static void fill(outr_http_pool *pool)
{
    outr__client *client;
    pool->holds++;
    while (!outr_list_is_empty(&pool->waiting) && (client = find_free(pool)))
        give(pool, client, OUTR_LIST_ITEM(pool->waiting.next, outr__call, link));
    size_t per_opening = pool->options.version == OUTR_HTTP_2 ? CALLS_PER_OPENING_H2 : 1;
    while (!pool->is_freed && pool->waiting_count > pool->opening * per_opening &&
           pool->client_count + pool->opening < pool->options.max_connections)
        open_one(pool);
    while (pool->waiting_count > pool->options.max_pending) {
        outr__call *last = OUTR_LIST_ITEM(pool->waiting.prev, outr__call, link);
        outr_err err;
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "more than %zu calls wait for a connection", pool->options.max_pending);
        outr__call_end(last->call, &err);
    }
    pool->holds--;
    free_if_over(pool);
}

static void on_fill(outr_deferred *deferred)
{
    fill(OUTR_CONTAINER(deferred, outr_http_pool, filler));
}

static void sweep_later(outr_http_pool *pool)
{
    if (!outr_timer_is_on(&pool->sweeper))
        outr_timer_start(pool->options.loop, &pool->sweeper, outr_loop_now(pool->options.loop) + pool->options.limits.idle_ns / 2);
}

static void on_sweep(outr_timer *timer)
{
    outr_http_pool *pool = OUTR_CONTAINER(timer, outr_http_pool, sweeper);
    uint64_t now = outr_loop_now(pool->options.loop);
    pool->holds++;
    OUTR_LIST_EACH(link, &pool->clients)
    {
        outr__client *client = OUTR_LIST_ITEM(link, outr__client, link);
        if (client->active == 0 && now - client->idle_since_ns >= pool->options.limits.idle_ns)
            client->ops->retire(client);
    }
    if (pool->client_count > 0)
        sweep_later(pool);
    pool->holds--;
    free_if_over(pool);
}

void outr__pool_changed(outr__client *client)
{
    outr_http_pool *pool = client->pool;
    if (!pool)
        return;
    if (client->active == 0) {
        client->idle_since_ns = outr_loop_now(pool->options.loop);
        sweep_later(pool);
    }
    if (pool->waiting_count > 0)
        outr_loop_defer(pool->options.loop, &pool->filler);
}

void outr__pool_opened(outr__client *client)
{
    outr__pool_changed(client);
}

void outr__pool_gone(outr__client *client)
{
    outr_http_pool *pool = client->pool;
    outr_link_remove(&client->link);
    if (!pool)
        return;
    client->pool = NULL;
    pool->client_count--;
    if (pool->waiting_count > 0 && !pool->is_freed)
        outr_loop_defer(pool->options.loop, &pool->filler);
    free_if_over(pool);
}

/* ---- the pool --------------------------------------------------------------------------------- */

outr_http_pool *outr_http_pool_new(const outr_http_pool_options *options)
{
    outr_http_pool *pool = outr_alloc(sizeof *pool);
    pool->options = *options;
    outr_http_pool_options *o = &pool->options;
    o->limits.idle_ns = o->limits.idle_ns ? o->limits.idle_ns : IDLE_DEFAULT;
    outr__limits_default(&o->limits);
    o->max_connections = o->max_connections ? o->max_connections : MAX_CONNECTIONS;
    o->max_pending = o->max_pending ? o->max_pending : MAX_PENDING;
    o->connect_timeout_ns = o->connect_timeout_ns ? o->connect_timeout_ns : CONNECT_TIMEOUT;
    o->tls = o->tls ? outr_tls_ref(o->tls) : NULL;
    o->server_name = outr_str_of(outr_str_dup(options->server_name), options->server_name.n);
    outr_list_init(&pool->clients);
    outr_list_init(&pool->waiting);
    pool->filler.run = on_fill;
    pool->sweeper.fire = on_sweep;
    return pool;
}

void outr_http_pool_free(outr_http_pool *pool)
{
    outr_err err;
    if (!pool)
        return;
    pool->is_freed = true;
    pool->holds++;
    outr_fail(&err, OUTR_CANCELLED, "the connection pool was closed");
    fail_waiting(pool, &err);
    OUTR_LIST_EACH(link, &pool->clients)
        OUTR_LIST_ITEM(link, outr__client, link)->ops->close(OUTR_LIST_ITEM(link, outr__client, link));
    pool->holds--;
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

void outr_http_pool_retire(outr_http_pool *pool)
{
    pool->holds++;
    OUTR_LIST_EACH(link, &pool->clients)
        OUTR_LIST_ITEM(link, outr__client, link)->ops->retire(OUTR_LIST_ITEM(link, outr__client, link));
    pool->holds--;
    free_if_over(pool);
}
