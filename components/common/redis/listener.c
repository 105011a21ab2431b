#include "components/common/redis/internal.h"

/* In a subscribed connection each message is a reply that nobody asked for; PING is answered by
 * one, too, which is how a server that is gone is noticed. */

#define ALIVE_NS (15 * OUTR_SEC)

struct outr_redis_listener {
    outr__redis_site *site;
    outr_redis_listen o;
    outr__redis_conn *conn;
    size_t confirmed; /* channels */
    uint32_t failures;
    outr_timer timer; /* to connect again, or to see whether the server is there */
    uint64_t asked_ns;
    outr_str *args; /* the command and the channels */
    outr_arena *arena;
};

static void dial(outr_redis_listener *l);

static void try_later(outr_redis_listener *l)
{
    outr_timer_start(l->site->loop, &l->timer,
                     outr_loop_now(l->site->loop) + outr_redis_pause(l->site->loop, l->failures));
    l->failures++;
}

static void on_up(outr__redis_conn *c)
{
    outr_redis_listener *l = c->ctx;
    const outr_redis_command command = {l->args, l->o.channel_count + 1, OUTR_STR_NONE};
    l->confirmed = 0;
    l->asked_ns = 0;
    outr__redis_conn_push(c, &command);
    outr_timer_start(l->site->loop, &l->timer, outr_loop_now(l->site->loop) + ALIVE_NS);
}

static void on_down(outr__redis_conn *c, outr_list *parts OUTR_UNUSED, const outr_err *err)
{
    outr_redis_listener *l = c->ctx;
    l->conn = NULL;
    if (err->code)
        outr__redis_set_up(l->site, false, err);
    try_later(l);
    outr_err why = *err;
    if (!why.code)
        outr_fail(&why, OUTR_UNAVAILABLE, "redis: the server closed the connection");
    l->o.on_change(l->o.ctx, &why);
}

static void on_push(outr__redis_conn *c, const outr_redis_reply *r)
{
    outr_redis_listener *l = c->ctx;
    outr_err err;
    l->asked_ns = 0;
    if (outr_redis_check(r, &err)) {
        outr__redis_conn_close(c, &err);
        return;
    }
    if (r->kind != OUTR_REDIS_ARRAY || r->count < 2)
        return;
    outr_str what = r->items[0].text;
    if (outr_str_is(what, "message") && r->count == 3) {
        l->o.on_message(l->o.ctx, r->items[1].text, r->items[2].text);
    } else if (outr_str_is(what, "pmessage") && r->count == 4) {
        l->o.on_message(l->o.ctx, r->items[2].text, r->items[3].text);
    } else if (outr_str_ends(what, OUTR_STR("subscribe")) &&
               ++l->confirmed == l->o.channel_count) {
        l->failures = 0;
        l->o.on_change(l->o.ctx, NULL);
    }
}

static const outr__redis_owner owner = {.on_up = on_up, .on_down = on_down, .on_push = on_push};

/* NULL: the key's slot is nobody's, as far as we know. */
static outr__redis_server *server_of(const outr_redis_listener *l)
{
    outr__redis_site *site = l->site;
    if (!site->redis->is_cluster || l->o.key.n == 0)
        return OUTR_LIST_ITEM(site->servers.next, outr__redis_server, link);
    return site->slots ? site->slots[outr__redis_slot_of(l->o.key)] : NULL;
}

/* A server whose slot has gone to another one does not tell: it only says nothing any more. */
static bool has_moved(const outr_redis_listener *l)
{
    if (!l->site->redis->is_cluster || l->o.key.n == 0)
        return false;
    const outr__redis_server *server = server_of(l);
    outr__redis_map_refresh(l->site); /* for the next time */
    return server && (!outr_str_eq(server->where.host, l->conn->where.host) ||
                      server->where.port != l->conn->where.port);
}

static void on_timer(outr_timer *timer)
{
    outr_redis_listener *l = OUTR_CONTAINER(timer, outr_redis_listener, timer);
    static const outr_str ping[] = {{"PING", 4}};
    static const outr_redis_command command = {ping, 1, {NULL, 0}};
    uint64_t now = outr_loop_now(l->site->loop);
    if (!l->conn) {
        dial(l);
        return;
    }
    if (has_moved(l)) {
        outr__redis_conn_close(outr_take(&l->conn), NULL);
        dial(l);
        return;
    }
    if (l->asked_ns) {
        outr_err err;
        outr_fail(&err, OUTR_UNAVAILABLE, "the server does not answer");
        outr__redis_conn_close(l->conn, &err);
        return;
    }
    bool is_quiet = now - l->conn->last_ns >= ALIVE_NS;
    if (is_quiet) {
        l->asked_ns = now;
        outr__redis_conn_push(l->conn, &command);
    }
    outr_timer_start(l->site->loop, timer,
                     now + (is_quiet ? (uint64_t)l->site->redis->s.read_timeout_ns : ALIVE_NS));
}

static void dial(outr_redis_listener *l)
{
    outr__redis_site *site = l->site;
    const outr__redis_server *server = server_of(l);
    if (!server) {
        outr__redis_map_refresh(site);
        try_later(l);
        return;
    }
    l->conn = outr__redis_conn_new(site, &server->where, false, server->is_master_of_sentinel,
                                   &owner, l);
}

outr_redis_listener *outr_redis_listen_start(outr_redis *redis, const outr_redis_listen *o)
{
    outr_redis_listener *l = outr_alloc(sizeof *l);
    l->site = outr__redis_site_of(redis, o->loop);
    l->o = *o;
    l->arena = outr_arena_new(SIZE_MAX / 16); /* as large as what the caller has */
    l->args = outr_arena_alloc(l->arena, (o->channel_count + 1) * sizeof *l->args);
    l->args[0] = o->is_pattern ? OUTR_STR("PSUBSCRIBE") : OUTR_STR("SUBSCRIBE");
    for (size_t i = 0; i < o->channel_count; i++)
        l->args[i + 1] = outr_arena_str(l->arena, o->channels[i]);
    l->o.channels = l->args + 1;
    l->o.key = outr_arena_str(l->arena, o->key);
    l->timer.fire = on_timer;
    dial(l);
    return l;
}

void outr_redis_listen_stop(outr_redis_listener *l)
{
    if (!l)
        return;
    outr_timer_stop(l->site->loop, &l->timer);
    if (l->conn)
        outr__redis_conn_close(l->conn, NULL);
    outr_arena_free(l->arena);
    free(l);
}
