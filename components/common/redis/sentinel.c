#include "components/common/redis/internal.h"

/* The Sentinels are asked in turn, beginning with the one that answered last, each over a
 * connection of its own that ends with the answer: a master is looked for rarely. */

#define ANSWER_MAX (64 * OUTR_KIB)

static void ask_next(outr__redis_master *m);

static void end(outr__redis_master *m)
{
    outr_op *op = m->op;
    if (m->err.code)
        outr_op_fail(op, &m->err);
    else
        outr_op_finish(op);
}

static outr_code read_answer(outr__redis_master *m, outr_err *err)
{
    const outr_redis_reply *r = &m->call.replies[0];
    uint64_t port;
    outr_code rc = outr_redis_check(r, err);
    if (rc)
        return rc;
    if (r->kind == OUTR_REDIS_NIL)
        return outr_fail(err, OUTR_UNAVAILABLE, "Sentinel knows no master \"" OUTR_FMT "\"",
                         OUTR_ARG(m->args[2]));
    if (r->kind != OUTR_REDIS_ARRAY || r->count != 2 || r->items[0].text.n == 0 ||
        r->items[0].text.n >= OUTR__REDIS_WHERE_MAX - 8 ||
        !outr_str_to_u64(r->items[1].text, UINT16_MAX, &port) || port == 0)
        return outr_fail(err, OUTR_UNAVAILABLE, "Sentinel's answer is no address");
    m->where = (outr__redis_where){r->items[0].text, (uint16_t)port};
    return OUTR_OK;
}

static void on_answer(outr_op *inner)
{
    outr__redis_master *m = OUTR_CONTAINER(inner, outr__redis_master, inner);
    m->err = inner->err;
    bool is_cancelled = outr_op_is_cancelled(m->op);
    if (!m->err.code)
        read_answer(m, &m->err);
    outr_redis_line_close(outr_take(&m->line));
    if (m->err.code)
        m->site->sentinel_at++; /* the next search begins with another one */
    if (m->err.code && !is_cancelled && ++m->asked < m->site->redis->host_count)
        ask_next(m);
    else
        end(m);
}

static void ask_next(outr__redis_master *m)
{
    const outr_redis *redis = m->site->redis;
    size_t at = m->site->sentinel_at % redis->host_count;
    m->line = outr__redis_line_to(m->site, &redis->hosts[at]);
    m->call = (outr_redis_call){.arena = m->arena, .commands = &m->command, .count = 1};
    outr_op_init(&m->inner, m->site->loop, m->op, 0, on_answer);
    outr_redis_line_start(m->line, &m->call, &m->inner);
}

static void on_cancel(outr_op *op)
{
    outr__redis_master *m = op->impl;
    outr_op_cancel(&m->inner, op->err.code);
}

outr__redis_master *outr__redis_master_start(outr__redis_site *site, outr_op *op)
{
    outr__redis_master *m = outr_alloc(sizeof *m);
    m->site = site;
    m->op = op;
    m->arena = outr_arena_new(ANSWER_MAX);
    m->args[0] = OUTR_STR("SENTINEL");
    m->args[1] = OUTR_STR("get-master-addr-by-name");
    m->args[2] = site->redis->s.sentinel_master;
    m->command = (outr_redis_command){m->args, 3, OUTR_STR_NONE};
    outr_op_begin(op, m, on_cancel);
    ask_next(m);
    return m;
}

void outr__redis_master_free(outr__redis_master *m)
{
    if (!m)
        return;
    outr_arena_free(m->arena);
    free(m);
}
