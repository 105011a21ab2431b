#include "components/common/redis/internal.h"

#include "components/common/pem.h"

const char *const outr_redis_types[] = {"node", "cluster", "sentinel", NULL};

#define HOSTS_MAX 64

/* ---- settings -------------------------------------------------------------------------------- */

const char *outr__redis_where_text(const outr__redis_where *where, char out[OUTR__REDIS_WHERE_MAX])
{
    bool is_v6 = outr_str_find(where->host, ':') >= 0;
    if (where->port == 0)
        snprintf(out, OUTR__REDIS_WHERE_MAX, OUTR_FMT, OUTR_ARG(where->host));
    else
        snprintf(out, OUTR__REDIS_WHERE_MAX, "%s" OUTR_FMT "%s:%u", is_v6 ? "[" : "",
                 OUTR_ARG(where->host), is_v6 ? "]" : "", where->port);
    return out;
}

static outr_code read_hosts(outr_redis *redis, outr_err *err)
{
    outr_str rest = redis->s.host, one;
    redis->hosts = outr_arena_alloc(redis->arena, HOSTS_MAX * sizeof *redis->hosts);
    while (rest.p) {
        rest = outr_str_cut(rest, ',', &one);
        one = outr_str_trim(one);
        if (one.n == 0)
            continue;
        if (redis->host_count == HOSTS_MAX ||
            !outr__redis_where_parse(outr_arena_str(redis->arena, one), (uint16_t)redis->s.port,
                                     &redis->hosts[redis->host_count]))
            return outr_fail(err, OUTR_INVALID_ARGUMENT,
                             "redisHost: not host:port, unix:/path or a list of them: \"" OUTR_FMT
                             "\"",
                             OUTR_ARG(one));
        redis->host_count++;
    }
    if (redis->host_count == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "redisHost: required but not given");
    if (redis->host_count > 1 && !redis->is_cluster && !redis->is_sentinel)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "redisHost: several servers, but redisType is node and failover is off");
    return OUTR_OK;
}

static outr_code make_tls(outr_redis *redis, outr_err *err)
{
    outr_redis_settings *s = &redis->s;
    outr_tls_options options = {.verify_peer = !s->skip_verify};
    if (!s->enable_tls)
        return OUTR_OK;
    outr_code rc = outr_pem_read(redis->arena, "clientCert", &s->client_cert, err);
    if (!rc)
        rc = outr_pem_read(redis->arena, "clientKey", &s->client_key, err);
    if (!rc && (s->client_cert.n > 0) != (s->client_key.n > 0))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "clientCert and clientKey go together");
    if (rc)
        return rc;
    options.certificate_pem = s->client_cert;
    options.key_pem = s->client_key;
    return outr_tls_new(&redis->tls, &options, err);
}

static void or_else(int64_t *value, int64_t otherwise)
{
    if (*value <= 0)
        *value = otherwise;
}

static outr_code take_settings(outr_redis *redis, outr_err *err)
{
    outr_redis_settings *s = &redis->s;
    redis->is_cluster = s->type == 1;
    redis->is_sentinel = s->failover || s->type == 2;
    or_else(&s->min_retry_ns, 8 * (int64_t)OUTR_MS);
    or_else(&s->max_retry_ns, 512 * (int64_t)OUTR_MS);
    s->max_retry_ns = OUTR_MAX(s->max_retry_ns, s->min_retry_ns);
    or_else(&s->dial_timeout_ns, 5 * (int64_t)OUTR_SEC);
    or_else(&s->read_timeout_ns, 3 * (int64_t)OUTR_SEC);
    s->read_timeout_ns = OUTR_MAX(s->read_timeout_ns, s->write_timeout_ns);
    if (s->idle_timeout_ns == 0)
        s->idle_timeout_ns = 300 * (int64_t)OUTR_SEC;
    if (s->entra)
        return outr_fail(err, OUTR_UNIMPLEMENTED, "useEntraID: cloud logins are not supported");
    if (redis->is_sentinel && s->sentinel_master.n == 0)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "sentinelMasterName: required with failover but not given");
    if (redis->is_cluster && redis->is_sentinel)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "failover: a cluster has its own");
    outr_code rc = read_hosts(redis, err);
    return rc ? rc : make_tls(redis, err);
}

outr_code outr_redis_new(outr_redis **out, const outr_redis_settings *settings,
                         const outr_component_init *init, outr_err *err)
{
    outr_redis *redis = outr_alloc(sizeof *redis);
    redis->s = *settings;
    redis->arena = outr_arena_new(8 * OUTR_MIB);
    redis->name = init->name;
    redis->main_loop = init->loop;
    redis->log = init->log;
    outr_code rc = take_settings(redis, err);
    if (rc) {
        outr_arena_free(redis->arena);
        free(redis);
        return rc;
    }
    *out = redis;
    return OUTR_OK;
}

/* ---- health ---------------------------------------------------------------------------------- */

static const outr_metric_desc away_total = {"outrigger_redis_away_total",
                                            "times a Redis server went away, by component",
                                            OUTR_COUNTER,
                                            0,
                                            {"component"}};

void outr__redis_set_up(outr__redis_site *site, bool is_up, const outr_err *err)
{
    enum { NEVER, UP, AWAY };
    outr_redis *redis = site->redis;
    uint8_t before = __atomic_load_n(&redis->is_up, __ATOMIC_RELAXED);
    uint8_t after = is_up ? UP : before == NEVER ? NEVER : AWAY;
    if (before == after || !__atomic_compare_exchange_n(&redis->is_up, &before, after, false,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;
    if (after == AWAY) {
        if (outr_loop_metrics(site->loop))
            outr_metric_count(outr_loop_metrics(site->loop), &away_total, &redis->name, 1);
        OUTR_LOG(redis->log, WARN, "redis is away, trying again", OUTR_S("component", redis->name),
                 OUTR_ERR(err));
    } else if (before == AWAY) {
        OUTR_LOG(redis->log, INFO, "redis is back", OUTR_S("component", redis->name));
    }
}

uint64_t outr_redis_pause(outr_loop *loop, uint32_t failures)
{
    uint64_t pause = OUTR_MIN((50 * OUTR_MS) << OUTR_MIN(failures, 7u), 5 * OUTR_SEC);
    return pause / 2 + outr_rand_below(outr_loop_rand(loop), pause / 2 + 1);
}

/* ---- opening --------------------------------------------------------------------------------- */

typedef struct opening {
    outr_redis *redis;
    outr_op *op;
    outr_op inner;
    uint32_t failures;
    outr_arena *arena;
    outr_str ping;
    outr_redis_command command;
    outr_redis_call call;
    outr_err last;
} opening;

static void ask(opening *o);

static void end_opening(opening *o, const outr_err *err)
{
    outr_op *op = o->op;
    outr_err why = *err;
    outr_arena_free(o->arena);
    free(o);
    if (why.code)
        outr_op_fail(op, &why);
    else
        outr_op_finish(op);
}

static void on_pause_over(outr_op *inner)
{
    opening *o = OUTR_CONTAINER(inner, opening, inner);
    if (inner->err.code)
        end_opening(o, &o->last);
    else
        ask(o);
}

static void on_pong(outr_op *inner)
{
    opening *o = OUTR_CONTAINER(inner, opening, inner);
    outr_loop *loop = o->redis->main_loop;
    bool is_over = outr_op_is_cancelled(o->op);
    outr_err err = inner->err;
    if (!err.code && outr_redis_check(&o->call.replies[0], &err) &&
        err.code == OUTR_PERMISSION_DENIED)
        err.code = OUTR_OK; /* PING is not allowed, other things may be */
    bool may_change = err.code == OUTR_UNAVAILABLE || err.code == OUTR_DEADLINE_EXCEEDED;
    if (!may_change || is_over) {
        end_opening(o, &err);
        return;
    }
    o->last = err;
    outr_op_init(&o->inner, loop, o->op, 0, on_pause_over);
    outr_sleep_start(outr_loop_now(loop) + outr_redis_pause(loop, o->failures++), &o->inner);
}

static void ask(opening *o)
{
    outr_arena_reset(o->arena);
    o->call = (outr_redis_call){
        .arena = o->arena, .commands = &o->command, .count = 1, .is_repeatable = true};
    outr_op_init(&o->inner, o->redis->main_loop, o->op, 0, on_pong);
    outr_redis_call_start(o->redis, &o->call, &o->inner);
}

static void on_open_cancel(outr_op *op)
{
    opening *o = op->impl;
    /* says more than that the time is over */
    outr_wrap(&op->err, "%s", o->last.code ? o->last.text : "redis: no answer (redisHost)");
    outr_op_cancel(&o->inner, op->err.code);
}

void outr_redis_open(outr_redis *redis, outr_op *op)
{
    opening *o = outr_alloc(sizeof *o);
    o->redis = redis;
    o->op = op;
    o->arena = outr_arena_new(OUTR_MIB);
    o->ping = OUTR_STR("PING");
    o->command = (outr_redis_command){&o->ping, 1, OUTR_STR_NONE};
    outr_op_begin(op, o, on_open_cancel);
    ask(o);
}

/* ---- closing --------------------------------------------------------------------------------- */

bool outr_redis_is_cluster(const outr_redis *redis)
{
    return redis->is_cluster;
}

static void free_redis(outr_redis *redis)
{
    outr_tls_unref(redis->tls);
    outr_arena_free(redis->arena);
    free(redis);
}

static void on_site_left(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__redis_site *site = OUTR_CONTAINER(message, outr__redis_site, message);
    outr_redis *redis = site->redis;
    outr_op *op = redis->closing;
    free(site);
    if (--redis->open_sites > 0)
        return;
    free_redis(redis);
    outr_op_finish(op);
}

void outr__redis_site_check(outr__redis_site *site)
{
    if (!site->is_closing || !outr_list_is_empty(&site->conns))
        return;
    for (outr_link *link; (link = outr_list_pop(&site->servers));)
        free(OUTR_LIST_ITEM(link, outr__redis_server, link));
    free(site->slots);
    site->is_closing = false; /* once only */
    site->message.run = on_site_left;
    outr_loop_post(site->redis->main_loop, &site->message);
}

static void on_site_close(outr_message *message, outr_loop *loop OUTR_UNUSED)
{
    outr__redis_site_stop(OUTR_CONTAINER(message, outr__redis_site, message));
}

void outr_redis_close(outr_redis *redis, outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    redis->closing = op;
    for (size_t i = 0; i < OUTR__REDIS_LOOPS_MAX; i++)
        redis->open_sites += __atomic_load_n(&redis->sites[i], __ATOMIC_ACQUIRE) != NULL;
    if (redis->open_sites == 0) {
        free_redis(redis);
        outr_op_finish_soon(op);
        return;
    }
    for (size_t i = 0; i < OUTR__REDIS_LOOPS_MAX; i++) {
        outr__redis_site *site = redis->sites[i];
        if (!site)
            continue;
        site->message.run = on_site_close;
        outr_loop_post(site->loop, &site->message);
    }
}
