#include "components/common/redis/internal.h"

#define BUSY        256 /* commands on a connection; then another one is worth its price */
#define CONNS_MAX   4
#define COMMAND_MAX 1000000
#define SERVERS_MAX 1024

/* ---- the end of a call ----------------------------------------------------------------------- */

static void drop_parts(outr_redis_call *call)
{
    OUTR_LIST_EACH(link, &call->parts) {
        outr__redis_part *p = OUTR_LIST_ITEM(link, outr__redis_part, of_call);
        outr_link_remove(link);
        if (p->conn)
            outr__redis_conn_drop(p);
        else
            outr_link_remove(&p->link);
    }
    outr_link_remove(&call->of_line);
    if (!call->line)
        call->site->pending--;
}

void outr__redis_call_end(outr_redis_call *call, const outr_err *err)
{
    drop_parts(call);
    if (err)
        outr_op_fail(call->op, err);
    else
        outr_op_finish(call->op);
}

void outr__redis_call_end_soon(outr_redis_call *call, const outr_err *err)
{
    drop_parts(call);
    outr_op_fail_soon(call->op, err);
}

void outr__redis_part_done(outr__redis_part *p)
{
    outr_redis_call *call = p->call;
    outr_link_remove(&p->link);
    outr_link_remove(&p->of_call);
    p->conn = NULL;
    if (outr_list_is_empty(&call->parts))
        outr__redis_call_end(call, NULL);
}

static void on_cancel(outr_op *op)
{
    outr_redis_call *call = op->impl;
    if (call->line)
        outr__redis_line_cancel(call->line, call);
    else
        outr__redis_call_end(call, &op->err);
}

/* ---- attempts -------------------------------------------------------------------------------- */

uint64_t outr__redis_backoff(outr__redis_site *site, uint32_t failures)
{
    const outr_redis_settings *s = &site->redis->s;
    uint64_t pause = (uint64_t)s->min_retry_ns << OUTR_MIN(failures ? failures - 1 : 0, 20u);
    pause = OUTR_MIN(pause, (uint64_t)s->max_retry_ns);
    return pause / 2 + outr_rand_below(outr_loop_rand(site->loop), pause / 2 + 1);
}

static void on_pauser(outr_timer *timer)
{
    outr__redis_site *site = OUTR_CONTAINER(timer, outr__redis_site, pauser);
    uint64_t now = outr_loop_now(site->loop), next = UINT64_MAX;
    outr_list due;
    outr_list_init(&due);
    OUTR_LIST_EACH(link, &site->paused) {
        outr__redis_part *p = OUTR_LIST_ITEM(link, outr__redis_part, link);
        if (p->due_ns > now) {
            next = OUTR_MIN(next, p->due_ns);
            continue;
        }
        outr_link_remove(link);
        outr_list_push(&due, link);
    }
    if (next != UINT64_MAX)
        outr_timer_start(site->loop, timer, next);
    for (outr_link *link; (link = outr_list_pop(&due));)
        outr__redis_route(OUTR_LIST_ITEM(link, outr__redis_part, link));
}

void outr__redis_postpone(outr__redis_part *p, uint64_t pause_ns)
{
    outr__redis_site *site = p->call->site;
    p->due_ns = outr_loop_now(site->loop) + pause_ns;
    outr_list_push(&site->paused, &p->link);
    if (!outr_timer_is_on(&site->pauser) || site->pauser.node.key > p->due_ns)
        outr_timer_start(site->loop, &site->pauser, p->due_ns);
}

/* A login that is refused, a database that is not there: the next attempt would say the same. */
static bool is_final(const outr_err *err)
{
    return err->code == OUTR_UNAUTHENTICATED || err->code == OUTR_PERMISSION_DENIED ||
           err->code == OUTR_INVALID_ARGUMENT;
}

static bool has_attempts(outr__redis_part *p)
{
    return (int64_t)p->attempts++ < p->call->site->redis->s.max_retries;
}

/* ---- a server's connections ------------------------------------------------------------------ */

static const outr__redis_owner owner;

static void dial(outr__redis_server *server)
{
    if (server->dialing || outr_timer_is_on(&server->retry))
        return;
    server->dialing = outr__redis_conn_new(server->site, &server->where, false,
                                           server->is_master_of_sentinel, &owner, server);
}

static void on_retry(outr_timer *timer)
{
    outr__redis_server *server = OUTR_CONTAINER(timer, outr__redis_server, retry);
    if (!outr_list_is_empty(&server->waiting))
        dial(server);
}

static size_t conns_max(const outr__redis_server *server)
{
    int64_t asked = server->site->redis->s.pool_size;
    return asked > 0 ? (size_t)OUTR_MIN(asked, CONNS_MAX) : CONNS_MAX;
}

void outr__redis_give(outr__redis_server *server, outr__redis_part *p)
{
    outr__redis_conn *best = NULL;
    OUTR_LIST_EACH(link, &server->conns) {
        outr__redis_conn *c = OUTR_LIST_ITEM(link, outr__redis_conn, link);
        if (!best || outr__redis_conn_load(c) < outr__redis_conn_load(best))
            best = c;
    }
    if (best)
        outr__redis_conn_give(best, p);
    else
        outr_list_push(&server->waiting, &p->link);
    if (!best || (outr__redis_conn_load(best) > BUSY && server->conn_count < conns_max(server)))
        dial(server);
}

static void on_up(outr__redis_conn *c)
{
    outr__redis_server *server = c->ctx;
    server->dialing = NULL;
    server->failures = 0;
    server->conn_count++;
    outr_list_push(&server->conns, &c->link);
    for (outr_link *link; (link = outr_list_pop(&server->waiting));)
        outr__redis_conn_give(c, OUTR_LIST_ITEM(link, outr__redis_part, link));
}

/* A server with a connection that works is not away. */
static void note_down(const outr__redis_server *server, const outr_err *err)
{
    if (err->code && server->conn_count == 0)
        outr__redis_set_up(server->site, false, err);
}

/* Those that waited for the connection. A server that has been away for long fails them sooner. */
static void on_dial_failed(outr__redis_server *server, const outr_err *err)
{
    outr_list parts;
    outr_list_init(&parts);
    server->dialing = NULL;
    server->failures++;
    note_down(server, err);
    outr_timer_start(server->site->loop, &server->retry,
                     outr_loop_now(server->site->loop) +
                         outr__redis_backoff(server->site, server->failures));
    bool is_away = (int64_t)server->failures > OUTR_MAX(server->site->redis->s.max_retries, 0);
    for (outr_link *link; (link = outr_list_pop(&server->waiting));)
        outr_list_push(&parts, link);
    for (outr_link *link; (link = outr_list_pop(&parts));) {
        outr__redis_part *p = OUTR_LIST_ITEM(link, outr__redis_part, link);
        if (!is_final(err) && has_attempts(p) && !is_away)
            outr_list_push(&server->waiting, link);
        else
            outr__redis_call_end(p->call, err);
    }
    if (server->site->redis->is_cluster)
        outr__redis_map_refresh(server->site);
}

static void on_down(outr__redis_conn *c, outr_list *parts, const outr_err *err)
{
    outr__redis_server *server = c->ctx;
    if (c == server->dialing) {
        on_dial_failed(server, err);
        return;
    }
    if (outr_link_is_in(&c->link)) {
        outr_link_remove(&c->link);
        server->conn_count--;
    }
    note_down(server, err);
    for (outr_link *link; (link = outr_list_pop(parts));) {
        outr__redis_part *p = OUTR_LIST_ITEM(link, outr__redis_part, link);
        bool may_repeat = p->slot_count == 0 || p->call->is_repeatable;
        if (may_repeat && has_attempts(p)) {
            outr__redis_postpone(p, outr__redis_backoff(c->site, p->attempts));
            continue;
        }
        outr_err why = *err;
        if (!may_repeat)
            outr_wrap(&why, "the connection broke, what was asked may have been done");
        outr__redis_call_end(p->call, &why);
    }
    if (c->site->redis->is_cluster && err->code)
        outr__redis_map_refresh(c->site);
}

/* ---- answers that send us elsewhere ---------------------------------------------------------- */

/* The same command, or the whole of an atomic call, once more. */
static outr__redis_part *again(const outr__redis_part *from, uint32_t index)
{
    outr_redis_call *call = from->call;
    outr__redis_part *p = outr_arena_alloc(call->arena, sizeof *p);
    p->call = call;
    p->attempts = from->attempts + 1;
    if (call->is_atomic) {
        p->count = from->count;
        p->indexes = from->indexes;
    } else {
        uint32_t *indexes = outr_arena_alloc(call->arena, sizeof *indexes);
        indexes[0] = index;
        p->indexes = indexes;
        p->count = 1;
    }
    outr_list_push(&call->parts, &p->of_call);
    return p;
}

/* No new commands go there; those that are out are still answered. */
static void retire(outr__redis_conn *c)
{
    outr__redis_server *server = c->ctx;
    if (!outr_link_is_in(&c->link))
        return;
    outr_link_remove(&c->link);
    server->conn_count--;
}

static bool on_refused(outr__redis_conn *c, outr__redis_part *p, uint32_t index,
                       const outr_redis_reply *reply)
{
    enum { REDIRECTS_MAX = 16 };
    outr__redis_site *site = c->site;
    const outr_redis *redis = site->redis;
    outr_str word, rest = outr_str_cut(reply->text, ' ', &word);
    bool is_asking = outr_str_is(word, "ASK");
    if (redis->is_cluster && (is_asking || outr_str_is(word, "MOVED"))) {
        outr__redis_where to;
        if (p->attempts >= REDIRECTS_MAX || !outr__redis_moved_to(rest, &c->where, &to))
            return false;
        outr__redis_server *server = outr__redis_server_of(site, &to);
        if (!server)
            return false;
        outr__redis_part *next = again(p, index);
        next->is_asking = is_asking;
        outr__redis_give(server, next);
        if (!is_asking)
            outr__redis_map_refresh(site);
        return true;
    }
    bool is_readonly = redis->is_sentinel && outr_str_is(word, "READONLY");
    bool is_passing = is_readonly || outr_str_is(word, "LOADING") ||
                      outr_str_is(word, "MASTERDOWN") ||
                      (redis->is_cluster &&
                       (outr_str_is(word, "TRYAGAIN") || outr_str_is(word, "CLUSTERDOWN")));
    if (!is_passing || (int64_t)p->attempts >= redis->s.max_retries)
        return false;
    if (is_readonly)
        retire(c);
    outr__redis_part *next = again(p, index);
    outr__redis_postpone(next, outr__redis_backoff(site, next->attempts));
    return true;
}

static const outr__redis_owner owner = {
    .on_up = on_up, .on_down = on_down, .on_refused = on_refused};

/* ---- which server ---------------------------------------------------------------------------- */

outr__redis_server *outr__redis_server_of(outr__redis_site *site, const outr__redis_where *where)
{
    size_t count = 0;
    OUTR_LIST_EACH(link, &site->servers) {
        outr__redis_server *server = OUTR_LIST_ITEM(link, outr__redis_server, link);
        if (outr_str_eq(server->where.host, where->host) && server->where.port == where->port)
            return server;
        count++;
    }
    if (count == SERVERS_MAX)
        return NULL;
    outr__redis_server *server = outr_alloc(sizeof *server + where->host.n);
    server->site = site;
    memcpy(server->host, where->host.p, where->host.n);
    server->where = (outr__redis_where){outr_str_of(server->host, where->host.n), where->port};
    server->is_master_of_sentinel = site->redis->is_sentinel;
    server->retry.fire = on_retry;
    outr_list_init(&server->waiting);
    outr_list_init(&server->conns);
    outr_list_push(&site->servers, &server->link);
    return server;
}

/* Any: one that is connected, else whichever. */
static outr__redis_server *any_server(outr__redis_site *site)
{
    size_t count = 0;
    outr__redis_server *some = NULL;
    OUTR_LIST_EACH(link, &site->servers) {
        outr__redis_server *server = OUTR_LIST_ITEM(link, outr__redis_server, link);
        if (server->conn_count > 0)
            return server;
        if (outr_rand_below(outr_loop_rand(site->loop), ++count) == 0)
            some = server;
    }
    return some;
}

static const outr_redis_command *command_of(const outr__redis_part *p, uint32_t i)
{
    return &p->call->commands[p->indexes ? p->indexes[i] : i];
}

static outr__redis_server *server_for(const outr__redis_site *site, outr_str key)
{
    return site->slots[outr__redis_slot_of(key)];
}

/* A part of many keys becomes one for each server. */
static void split(outr__redis_part *p)
{
    outr_redis_call *call = p->call;
    outr__redis_site *site = call->site;
    outr__redis_server *first = server_for(site, command_of(p, 0)->key);
    uint32_t *mine = outr_arena_alloc(call->arena, p->count * sizeof *mine),
             *others = outr_arena_alloc(call->arena, p->count * sizeof *others);
    uint32_t mine_count = 0, other_count = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        uint32_t index = p->indexes ? p->indexes[i] : i;
        if (server_for(site, call->commands[index].key) == first)
            mine[mine_count++] = index;
        else
            others[other_count++] = index;
    }
    if (other_count > 0) {
        outr__redis_part *rest = outr_arena_alloc(call->arena, sizeof *rest);
        *rest = (outr__redis_part){
            .call = call, .indexes = others, .count = other_count, .attempts = p->attempts};
        outr_list_push(&call->parts, &rest->of_call);
        outr__redis_route(rest);
    }
    p->indexes = mine;
    p->count = mine_count;
}

void outr__redis_route(outr__redis_part *p)
{
    outr__redis_site *site = p->call->site;
    outr_str key = command_of(p, 0)->key;
    outr__redis_server *server = NULL;
    p->is_asking = false;
    if (!site->redis->is_cluster || key.n == 0) {
        server = any_server(site);
    } else if (site->slots) {
        if (p->count > 1 && !p->call->is_atomic)
            split(p);
        server = server_for(site, key);
    }
    if (!server) { /* its slot is nobody's, as far as we know */
        outr_list_push(&site->unrouted, &p->link);
        outr__redis_map_refresh(site);
    } else if (p->call->line) {
        outr__redis_line_give(p->call->line, p, server);
    } else {
        outr__redis_give(server, p);
    }
}

/* ---- the beginning --------------------------------------------------------------------------- */

bool outr__redis_call_begin(outr_redis_call *call, outr__redis_site *site, outr_redis_line *line,
                            outr_op *op)
{
    outr_err err;
    call->site = site;
    call->line = line;
    call->op = op;
    call->of_line = (outr_link){0};
    call->first =
        (outr__redis_part){.call = call, .count = (uint32_t)OUTR_MIN(call->count, COMMAND_MAX)};
    outr_list_init(&call->parts);
    outr_op_begin(op, call, on_cancel);
    if (call->count == 0 || call->count > COMMAND_MAX)
        outr_fail(&err, OUTR_INVALID_ARGUMENT, "a call of %zu commands", call->count);
    else if (!line && site->pending >= OUTR__REDIS_PENDING_MAX)
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "more than %d calls of redis wait",
                  OUTR__REDIS_PENDING_MAX);
    else
        err.code = OUTR_OK;
    if (!line)
        site->pending++;
    if (err.code) {
        outr__redis_call_end_soon(call, &err);
        return false;
    }
    call->replies = outr_arena_alloc(call->arena, call->count * sizeof *call->replies);
    outr_list_push(&call->parts, &call->first.of_call);
    return true;
}

void outr_redis_call_start(outr_redis *redis, outr_redis_call *call, outr_op *op)
{
    outr__redis_site *site = outr__redis_site_of(redis, op->loop);
    if (outr__redis_call_begin(call, site, NULL, op))
        outr__redis_route(&call->first);
}

/* ---- sites ----------------------------------------------------------------------------------- */

outr__redis_site *outr__redis_site_of(outr_redis *redis, outr_loop *loop)
{
    unsigned index = outr_loop_index(loop);
    assert(index < OUTR__REDIS_LOOPS_MAX);
    outr__redis_site *site = __atomic_load_n(&redis->sites[index], __ATOMIC_RELAXED);
    if (site)
        return site;
    site = outr_alloc(sizeof *site);
    site->redis = redis;
    site->loop = loop;
    site->pauser.fire = on_pauser;
    outr_list_init(&site->servers);
    outr_list_init(&site->paused);
    outr_list_init(&site->conns);
    outr_list_init(&site->unrouted);
    outr_list_init(&site->spares);
    size_t count = redis->is_cluster ? redis->host_count : 1;
    for (size_t i = 0; i < count; i++)
        outr__redis_server_of(site, &redis->hosts[i]);
    __atomic_store_n(&redis->sites[index], site, __ATOMIC_RELEASE);
    return site;
}

void outr__redis_site_stop(outr__redis_site *site)
{
    outr_timer_stop(site->loop, &site->pauser);
    outr__redis_map_stop(site);
    OUTR_LIST_EACH(link, &site->servers)
        outr_timer_stop(site->loop, &OUTR_LIST_ITEM(link, outr__redis_server, link)->retry);
    outr__redis_spares_close(site);
    site->is_closing = true;
    for (outr_link *link = site->conns.next; link != &site->conns;) {
        outr__redis_conn *c = OUTR_LIST_ITEM(link, outr__redis_conn, of_site);
        link = link->next;
        if (c->state == OUTR__REDIS_DOWN)
            continue;
        outr__redis_conn_close(c, NULL);
        link = site->conns.next; /* closing one may free others */
    }
    outr__redis_site_check(site);
}
