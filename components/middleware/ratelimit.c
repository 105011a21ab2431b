#include <math.h>
#include <pthread.h>

#include "components/middleware.h"

/* So many requests a second from each client to each path: a bucket of tokens, as the reference has
 * it, filled at the rate, as large as the requests of a second. IPv6 clients share one for each
 * /64, which is what one of them owns. */

extern const outr_middleware_backend outr_middleware_ratelimit;

/* Buckets remembered; beyond, the one asked least lately is forgotten: it is full again then. */
#define CLIENTS_MAX 16384

typedef struct client {
    outr_link link; /* the one heard last stands last */
    double tokens;
    uint64_t at_ns;
    char key[64];
    size_t key_n;
} client;

typedef struct limiter {
    outr_middleware base;
    double rate, burst;
    uint64_t seed;
    pthread_mutex_t lock; /* a client's requests come on all loops; held for a look-up */
    outr_map *clients;
    outr_list by_age;
} limiter;

typedef struct config {
    double rate;
} config;

static const outr_bind_row rows[] = {
    {"maxRequestsPerSecond", NULL, OUTR_BIND_DOUBLE, 0, offsetof(config, rate), 0, 0, "100", NULL,
     0, "requests per second allowed for each client address"},
};

/* The address, and the path's hash: keyed, so nobody finds two paths of one bucket. */
static outr_str key_of(const limiter *l, const outr_middleware_call *call, char text[64])
{
    char address[OUTR_ADDR_TEXT_MAX] = "0.0.0.0";
    outr_str path;
    if (call->client && call->client->kind != OUTR_ADDR_UNIX) {
        outr_addr host = *call->client;
        if (host.kind == OUTR_ADDR_IP6)
            memset(host.ip + 8, 0, 8);
        outr_addr_ip_text(&host, address);
    }
    outr_str_cut(call->req->target, '?', &path);
    int n = snprintf(text, 64, "%.45s %016llx", address,
                     (unsigned long long)outr_str_hash(path, l->seed));
    return outr_str_of(text, (size_t)n);
}

static client *find_client(limiter *l, outr_str key, uint64_t now)
{
    client *c = outr_map_get(l->clients, key);
    if (!c) {
        if (outr_map_count(l->clients) >= CLIENTS_MAX) {
            c = OUTR_LIST_ITEM(outr_list_pop(&l->by_age), client, link);
            outr_map_remove(l->clients, outr_str_of(c->key, c->key_n));
        } else {
            c = outr_alloc(sizeof *c);
        }
        *c = (client){.tokens = l->burst, .at_ns = now, .key_n = OUTR_MIN(key.n, sizeof c->key)};
        memcpy(c->key, key.p, c->key_n);
        outr_map_put(l->clients, outr_str_of(c->key, c->key_n), c);
    } else {
        outr_link_remove(&c->link);
    }
    outr_list_push(&l->by_age, &c->link);
    return c;
}

/* What is left; negative: nothing was there. */
static double take(limiter *l, outr_str key, uint64_t now)
{
    pthread_mutex_lock(&l->lock);
    client *c = find_client(l, key, now);
    uint64_t passed = now > c->at_ns ? now - c->at_ns : 0; /* clocks of loops differ a little */
    c->tokens = fmin(l->burst, c->tokens + (double)passed / (double)OUTR_SEC * l->rate);
    c->at_ns = OUTR_MAX(c->at_ns, now);
    bool is_there = c->tokens >= 1;
    if (is_there)
        c->tokens -= 1;
    double left = is_there ? c->tokens : -1;
    pthread_mutex_unlock(&l->lock);
    return left;
}

static outr_middleware_verdict handle(outr_middleware *m, outr_middleware_call *call,
                                      outr_op *op OUTR_UNUSED)
{
    limiter *l = OUTR_CONTAINER(m, limiter, base);
    char text[64];
    double left = take(l, key_of(l, call, text), outr_loop_now(call->loop));
    outr_headers_add(&call->extra, OUTR_STR("X-Rate-Limit-Limit"),
                     outr_arena_printf(call->arena, "%.2f", l->rate));
    outr_headers_add(&call->extra, OUTR_STR("X-Rate-Limit-Duration"), OUTR_STR("1"));
    outr_headers_add(&call->extra, OUTR_STR("RateLimit-Limit"),
                     outr_arena_printf(call->arena, "%.0f", l->rate));
    outr_headers_add(&call->extra, OUTR_STR("RateLimit-Reset"), OUTR_STR("1"));
    outr_headers_add(&call->extra, OUTR_STR("RateLimit-Remaining"),
                     outr_arena_printf(call->arena, "%.0f", floor(fmax(left, 0))));
    if (left >= 0)
        return OUTR_MIDDLEWARE_PASS;
    return outr_middleware_refuse(call, 429, "You have reached maximum request limit.");
}

static void close_it(outr_middleware *m, outr_op *op)
{
    limiter *l = OUTR_CONTAINER(m, limiter, base);
    while (!outr_list_is_empty(&l->by_age))
        free(OUTR_LIST_ITEM(outr_list_pop(&l->by_age), client, link));
    outr_map_free(l->clients);
    pthread_mutex_destroy(&l->lock);
    free(l);
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static outr_code create(outr_middleware **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config given = {0};
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &given, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    if (!(given.rate > 0) || given.rate > 1e9)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "metadata property maxRequestsPerSecond must be a positive value");
    limiter *l = outr_alloc(sizeof *l);
    l->base.backend = &outr_middleware_ratelimit;
    l->rate = given.rate;
    l->burst = fmax(1, floor(given.rate));
    l->seed = outr_rand_next(outr_loop_rand(init->loop));
    pthread_mutex_init(&l->lock, NULL);
    l->clients = outr_map_new();
    outr_list_init(&l->by_age);
    *out = &l->base;
    return OUTR_OK;
}

const outr_middleware_backend outr_middleware_ratelimit = {
    .base = {"middleware.http.ratelimit", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = outr_middleware_open,
    .close = close_it,
    .handle = handle,
};
