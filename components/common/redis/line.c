#include "components/common/redis/internal.h"

#define SPARES_MAX 4

struct outr_redis_line {
    outr__redis_site *site;
    outr_link spare; /* of site */
    outr__redis_conn *conn; /* NULL: none, the next call makes one */
    const outr__redis_where *sentinel; /* it leads to this one */
    outr_list calls;
    bool is_moved;
    outr_str key;
    char key_text[];
};

static void on_up(outr__redis_conn *c OUTR_UNUSED)
{
}

static void on_down(outr__redis_conn *c, outr_list *parts, const outr_err *err)
{
    outr_redis_line *line = c->ctx;
    outr_err why = *err;
    if (err->code && err->code != OUTR_CANCELLED)
        outr__redis_set_up(line->site, false, err);
    if (!why.code)
        outr_fail(&why, OUTR_UNAVAILABLE, "redis: the server closed the connection");
    line->conn = NULL;
    for (outr_link *link; (link = outr_list_pop(parts));) /* the line may go with any of them */
        outr__redis_call_end(OUTR_LIST_ITEM(link, outr__redis_part, link)->call, &why);
}

/* The next call goes to where the key is now. */
static bool on_refused(outr__redis_conn *c, outr__redis_part *p OUTR_UNUSED,
                       uint32_t index OUTR_UNUSED, const outr_redis_reply *reply)
{
    outr_redis_line *line = c->ctx;
    bool has_moved = outr_str_starts(reply->text, OUTR_STR("MOVED ")) ||
                     outr_str_starts(reply->text, OUTR_STR("READONLY "));
    if (has_moved)
        line->is_moved = true;
    if (has_moved && line->site->redis->is_cluster)
        outr__redis_map_refresh(line->site);
    return false;
}

static const outr__redis_owner owner = {
    .on_up = on_up, .on_down = on_down, .on_refused = on_refused};

static outr_redis_line *new_line(outr__redis_site *site, outr_str key)
{
    outr_redis_line *line = outr_alloc(sizeof *line + key.n + 1);
    line->site = site;
    if (key.n)
        memcpy(line->key_text, key.p, key.n);
    line->key = outr_str_of(line->key_text, key.n);
    outr_list_init(&line->calls);
    return line;
}

outr_redis_line *outr_redis_line_open(outr_redis *redis, outr_loop *loop, outr_str key)
{
    return new_line(outr__redis_site_of(redis, loop), key);
}

/* Of a cluster none is kept: each key may be somebody else's. */
outr_redis_line *outr_redis_line_borrow(outr_redis *redis, outr_loop *loop, outr_str key)
{
    outr__redis_site *site = outr__redis_site_of(redis, loop);
    outr_link *link = redis->is_cluster ? NULL : outr_list_pop(&site->spares);
    if (!link)
        return new_line(site, key);
    site->spare_count--;
    return OUTR_LIST_ITEM(link, outr_redis_line, spare);
}

void outr_redis_line_give_back(outr_redis_line *line)
{
    if (!line)
        return;
    outr__redis_site *site = line->site;
    if (!line->conn || line->is_moved || site->redis->is_cluster || site->is_closing ||
        !outr_list_is_empty(&line->calls) || site->spare_count == SPARES_MAX) {
        outr_redis_line_close(line);
        return;
    }
    site->spare_count++;
    outr_list_push_front(&site->spares, &line->spare);
}

void outr__redis_spares_close(outr__redis_site *site)
{
    for (outr_link *link; (link = outr_list_pop(&site->spares));)
        outr_redis_line_close(OUTR_LIST_ITEM(link, outr_redis_line, spare));
}

outr_redis_line *outr__redis_line_to(outr__redis_site *site, const outr__redis_where *where)
{
    outr_redis_line *line = new_line(site, OUTR_STR_NONE);
    line->sentinel = where;
    return line;
}

void outr__redis_line_give(outr_redis_line *line, outr__redis_part *p,
                           const outr__redis_server *server)
{
    if (!line->conn && server)
        line->conn = outr__redis_conn_new(line->site, &server->where, false,
                                          server->is_master_of_sentinel, &owner, line);
    else if (!line->conn)
        line->conn =
            outr__redis_conn_new(line->site, line->sentinel, true, false, &owner, line);
    outr__redis_conn_give(line->conn, p);
}

void outr_redis_line_start(outr_redis_line *line, outr_redis_call *call, outr_op *op)
{
    if (!outr__redis_call_begin(call, line->site, line, op))
        return;
    if (line->conn && line->is_moved && outr__redis_conn_load(line->conn) == 0)
        outr__redis_conn_close(outr_take(&line->conn), NULL);
    line->is_moved = false;
    outr_list_push(&line->calls, &call->of_line);
    if (line->conn || line->sentinel)
        outr__redis_line_give(line, &call->first, NULL);
    else
        outr__redis_route(&call->first);
}

void outr__redis_line_cancel(outr_redis_line *line, outr_redis_call *call)
{
    outr_err err;
    if (!call->first.conn || call->first.slot_count == 0) {
        outr__redis_call_end(call, &call->op->err);
        return;
    }
    outr_fail(&err, OUTR_CANCELLED, "the connection was given up");
    outr__redis_conn_close(line->conn, &err); /* which ends the call, and others that are on it */
}

void outr_redis_line_close(outr_redis_line *line)
{
    if (!line)
        return;
    outr_err err;
    outr_fail(&err, OUTR_CANCELLED, "the connection was given up");
    while (!outr_list_is_empty(&line->calls))
        outr__redis_call_end_soon(OUTR_LIST_ITEM(line->calls.next, outr_redis_call, of_line), &err);
    if (line->conn)
        outr__redis_conn_close(line->conn, NULL);
    free(line);
}
