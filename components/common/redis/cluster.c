#include "components/common/redis/internal.h"

/* Who has which slots: asked of any server, again when one of them says MOVED or goes away. */

#define REFRESH_NS  (100 * OUTR_MS) /* a thousand commands that are sent elsewhere ask once */
#define MAP_MAX     (4 * OUTR_MIB)

typedef struct outr__redis_map {
    outr__redis_site *site;
    outr_arena *arena;
    outr_str args[2];
    outr_redis_command command;
    outr_redis_call call;
    outr_op op;
} map;

static uint16_t crc16(const char *p, size_t n) /* CCITT, polynomial 0x1021 (cluster-spec) */
{
    uint16_t crc = 0;
    for (size_t i = 0; i < n; i++) {
        crc = (uint16_t)(crc ^ (uint16_t)((uint8_t)p[i] << 8));
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1);
    }
    return crc;
}

uint16_t outr__redis_slot_of(outr_str key)
{
    ptrdiff_t open = outr_str_find(key, '{');
    if (open >= 0) {
        outr_str rest = outr_str_skip(key, (size_t)open + 1);
        ptrdiff_t close = outr_str_find(rest, '}');
        if (close > 0)
            key = outr_str_head(rest, (size_t)close);
    }
    return crc16(key.p, key.n) & (OUTR__REDIS_SLOTS - 1);
}

bool outr__redis_where_parse(outr_str text, uint16_t port, outr__redis_where *out)
{
    uint64_t number = port;
    if (outr_str_starts(text, OUTR_STR("unix:")))
        text = outr_str_skip(text, 5);
    if (outr_str_starts(text, OUTR_STR("/"))) {
        *out = (outr__redis_where){text, 0};
        return text.n < sizeof((outr_addr *)0)->path && !memchr(text.p, 0, text.n);
    }
    ptrdiff_t colon = outr_str_rfind(text, ':');
    bool is_v6 = colon >= 0 && outr_str_find(text, ':') != colon;
    if (outr_str_starts(text, OUTR_STR("["))) {
        ptrdiff_t end = outr_str_find(text, ']');
        if (end < 0)
            return false;
        outr_str rest = outr_str_skip(text, (size_t)end + 1);
        text = outr_str_head(outr_str_skip(text, 1), (size_t)end - 1);
        if (rest.n > 0 && (rest.p[0] != ':' ||
                           !outr_str_to_u64(outr_str_skip(rest, 1), UINT16_MAX, &number)))
            return false;
    } else if (colon >= 0 && !is_v6) {
        if (!outr_str_to_u64(outr_str_skip(text, (size_t)colon + 1), UINT16_MAX, &number))
            return false;
        text = outr_str_head(text, (size_t)colon);
    }
    *out = (outr__redis_where){text, (uint16_t)number};
    return text.n > 0 && text.n < OUTR__REDIS_WHERE_MAX - 8 && number > 0 &&
           !memchr(text.p, 0, text.n);
}

bool outr__redis_moved_to(outr_str text, const outr__redis_where *from, outr__redis_where *out)
{
    outr_str slot, place = outr_str_cut(text, ' ', &slot);
    uint64_t port;
    ptrdiff_t colon = outr_str_rfind(place, ':');
    if (colon < 0 || !outr_str_to_u64(outr_str_skip(place, (size_t)colon + 1), UINT16_MAX, &port) ||
        port == 0)
        return false;
    outr_str host = outr_str_head(place, (size_t)colon); /* IPv6 comes without brackets */
    if (host.n == 0 || outr_str_is(host, "?"))
        host = from->host;
    *out = (outr__redis_where){host, (uint16_t)port};
    return host.n < OUTR__REDIS_WHERE_MAX - 8;
}

/* ---- the map --------------------------------------------------------------------------------- */

/* [first slot, last slot, [host, port, ...], replicas...] */
static void take_range(outr__redis_site *site, const outr_redis_reply *range)
{
    if (range->kind != OUTR_REDIS_ARRAY || range->count < 3)
        return;
    const outr_redis_reply *from = &range->items[0], *to = &range->items[1],
                           *node = &range->items[2];
    if (from->kind != OUTR_REDIS_INTEGER || to->kind != OUTR_REDIS_INTEGER || from->integer < 0 ||
        to->integer >= OUTR__REDIS_SLOTS || node->kind != OUTR_REDIS_ARRAY || node->count < 2 ||
        node->items[1].integer <= 0 || node->items[1].integer > UINT16_MAX)
        return;
    outr_str host = node->items[0].text;
    if (host.n == 0 || outr_str_is(host, "?")) /* a node that never met another */
        host = site->redis->hosts[0].host;
    if (host.n >= OUTR__REDIS_WHERE_MAX - 8)
        return;
    const outr__redis_where where = {host, (uint16_t)node->items[1].integer};
    outr__redis_server *server = outr__redis_server_of(site, &where);
    for (int64_t slot = from->integer; slot <= to->integer; slot++)
        site->slots[slot] = server;
}

static outr_code read_map(outr__redis_site *site, const outr_redis_reply *reply, outr_err *err)
{
    outr_code rc = outr_redis_check(reply, err);
    if (rc)
        return rc;
    if (reply->kind != OUTR_REDIS_ARRAY)
        return outr_fail(err, OUTR_UNAVAILABLE, "redis: CLUSTER SLOTS answers no list");
    if (!site->slots)
        site->slots = outr_alloc(OUTR__REDIS_SLOTS * sizeof(outr__redis_server *));
    memset(site->slots, 0, OUTR__REDIS_SLOTS * sizeof(outr__redis_server *));
    for (size_t i = 0; i < reply->count; i++)
        take_range(site, &reply->items[i]);
    return OUTR_OK;
}

/* What waits for a server that may have nothing to say of it any more. */
static void take_waiting(outr__redis_site *site, outr_list *to)
{
    OUTR_LIST_EACH(link, &site->servers) {
        outr__redis_server *server = OUTR_LIST_ITEM(link, outr__redis_server, link);
        for (outr_link *part; (part = outr_list_pop(&server->waiting));)
            outr_list_push(to, part);
    }
}

static void on_map(outr_op *op)
{
    map *m = OUTR_CONTAINER(op, map, op);
    outr__redis_site *site = m->site;
    outr_err err = op->err;
    outr_list parts;
    outr_list_init(&parts);
    site->map = NULL;
    if (!err.code)
        read_map(site, &m->call.replies[0], &err);
    outr_arena_free(m->arena);
    free(m);
    for (outr_link *link; (link = outr_list_pop(&site->unrouted));)
        outr_list_push(&parts, link);
    if (!err.code)
        take_waiting(site, &parts);
    for (outr_link *link; (link = outr_list_pop(&parts));) {
        outr__redis_part *p = OUTR_LIST_ITEM(link, outr__redis_part, link);
        const outr_redis_call *call = p->call;
        outr_str key = call->commands[p->indexes ? p->indexes[0] : 0].key;
        outr_err why = err;
        if (!err.code && key.n > 0 && !site->slots[outr__redis_slot_of(key)])
            outr_fail(&why, OUTR_UNAVAILABLE, "redis: no server of the cluster has slot %u",
                      outr__redis_slot_of(key));
        if (!why.code)
            outr__redis_route(p);
        else if ((int64_t)p->attempts++ < site->redis->s.max_retries)
            outr__redis_postpone(p, outr__redis_backoff(site, p->attempts));
        else
            outr__redis_call_end(p->call, &why);
    }
}

void outr__redis_map_refresh(outr__redis_site *site)
{
    uint64_t now = outr_loop_now(site->loop);
    bool is_wanted = !site->slots || !outr_list_is_empty(&site->unrouted);
    if (site->map || site->is_closing ||
        (!is_wanted && site->map_ns && now - site->map_ns < REFRESH_NS))
        return;
    map *m = outr_alloc(sizeof *m);
    site->map = m;
    site->map_ns = now;
    m->site = site;
    m->arena = outr_arena_new(MAP_MAX);
    m->args[0] = OUTR_STR("CLUSTER");
    m->args[1] = OUTR_STR("SLOTS");
    m->command = (outr_redis_command){m->args, 2, OUTR_STR_NONE};
    m->call = (outr_redis_call){
        .arena = m->arena, .commands = &m->command, .count = 1, .is_repeatable = true};
    outr_op_init(&m->op, site->loop, NULL,
                 now + (uint64_t)site->redis->s.dial_timeout_ns +
                     (uint64_t)site->redis->s.read_timeout_ns,
                 on_map);
    outr_redis_call_start(site->redis, &m->call, &m->op);
}

void outr__redis_map_stop(outr__redis_site *site)
{
    if (site->map)
        outr_op_cancel(&site->map->op, OUTR_CANCELLED);
}
