#include "components/common/redis/internal.h"

#define FEED       ((size_t)16384)  /* the reader moves what it has not read at each reply */
#define WRITE_STEP ((size_t)32768) /* of many commands the first go out while others are made */
#define HIGH_WATER ((size_t)262144)
#define RING_FIRST 64

static uint64_t now(const outr__redis_conn *c)
{
    return outr_loop_now(c->site->loop);
}

static const outr_redis_settings *settings(const outr__redis_conn *c)
{
    return &c->site->redis->s;
}

/* ---- slots ----------------------------------------------------------------------------------- */

static outr__redis_slot *slot_at(outr__redis_conn *c, uint64_t n)
{
    return &c->ring[n & (c->ring_size - 1)];
}

static void add_slot(outr__redis_conn *c, outr__redis_slot slot)
{
    if (c->tail - c->head == c->ring_size) {
        uint32_t size = c->ring_size ? c->ring_size * 2 : RING_FIRST;
        outr__redis_slot *ring = outr_alloc(size * sizeof *ring);
        for (uint64_t n = c->head; n < c->tail; n++)
            ring[n & (size - 1)] = *slot_at(c, n);
        free(c->ring);
        c->ring = ring;
        c->ring_size = size;
    }
    if (c->head == c->tail)
        c->last_ns = now(c);
    *slot_at(c, c->tail++) = slot;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void free_conn(outr__redis_conn *c)
{
    outr__redis_site *site = c->site;
    outr_timer_stop(site->loop, &c->watchdog);
    outr_loop_undefer(&c->flusher);
    if (c->reader)
        redisReaderFree(c->reader);
    outr__redis_master_free(c->master);
    outr_bufq_done(&c->out);
    outr_arena_free(c->arena);
    outr_link_remove(&c->of_site);
    free(c->ring);
    free(c);
    outr__redis_site_check(site);
}

/* Frees c unless something of it is still to come: the end of its op, or of its stream. */
static void let_go(outr__redis_conn *c)
{
    outr_timer_stop(c->site->loop, &c->watchdog);
    outr_loop_undefer(&c->flusher);
    if (c->stream)
        outr_stream_close(c->stream); /* on_closed follows */
    else if (outr_op_is_pending(&c->op))
        outr_op_cancel(&c->op, OUTR_CANCELLED); /* on_op follows, or is in this call */
    else
        free_conn(c);
}

static void take_parts(outr_list *to, outr_list *from)
{
    for (outr_link *link; (link = outr_list_pop(from));) {
        OUTR_LIST_ITEM(link, outr__redis_part, link)->conn = NULL;
        outr_list_push(to, link);
    }
}

void outr__redis_conn_close(outr__redis_conn *c, const outr_err *err)
{
    outr_list parts;
    outr_list_init(&parts);
    if (c->state == OUTR__REDIS_DOWN)
        return;
    c->state = OUTR__REDIS_DOWN;
    c->into_arena = NULL;
    take_parts(&parts, &c->sent);
    take_parts(&parts, &c->unsent);
    if (err) {
        outr_err why = *err;
        char text[OUTR__REDIS_WHERE_MAX];
        if (err->code)
            outr_wrap(&why, "redis %s", outr__redis_where_text(&c->where, text));
        c->owner->on_down(c, &parts, &why);
    }
    let_go(c);
}

static void break_off(outr__redis_conn *c, outr_code code, const char *text)
{
    outr_err err;
    outr_fail(&err, code, "%s", text);
    outr__redis_conn_close(c, &err);
}

/* ---- writing --------------------------------------------------------------------------------- */

static const outr_str ASKING[] = {{"ASKING", 6}}, MULTI[] = {{"MULTI", 5}}, EXEC[] = {{"EXEC", 4}};

static void write_one(outr__redis_conn *c, outr__redis_part *p, const outr_str *args, size_t count,
                      int kind, uint32_t index)
{
    outr__redis_write(&c->out, args, count);
    add_slot(c, (outr__redis_slot){.part = p, .index = index, .kind = kind});
    p->slot_count++;
}

/* The next command of the part, with what goes around it. */
static void write_next(outr__redis_conn *c, outr__redis_part *p)
{
    const outr_redis_call *call = p->call;
    uint32_t index = p->indexes ? p->indexes[p->written] : p->written;
    const outr_redis_command *command = &call->commands[index];
    if (p->written == 0)
        p->first_slot = c->tail;
    if (p->is_asking && (p->written == 0 || !call->is_atomic))
        write_one(c, p, ASKING, 1, OUTR__REDIS_ASIDE, 0);
    if (call->is_atomic && p->written == 0)
        write_one(c, p, MULTI, 1, OUTR__REDIS_ASIDE, 0);
    write_one(c, p, command->args, command->count,
              call->is_atomic ? OUTR__REDIS_QUEUED : OUTR__REDIS_COMMAND, index);
    c->unwritten--;
    if (++p->written == p->count && call->is_atomic)
        write_one(c, p, EXEC, 1, OUTR__REDIS_EXEC, 0);
}

/* Something is asked: the timer may be set for the end of an idle time. */
static void watch(outr__redis_conn *c)
{
    uint64_t at = now(c) + (uint64_t)settings(c)->read_timeout_ns;
    if (!outr_timer_is_on(&c->watchdog) || c->watchdog.node.key > at)
        outr_timer_start(c->site->loop, &c->watchdog, at);
}

static void flush(outr__redis_conn *c)
{
    if (c->out.bytes == 0)
        return;
    outr_stream_write(c->stream, &c->out);
    c->pending_bytes = c->stream->pending_bytes;
    watch(c);
}

/* As much of the parts as the stream and the ring have room for. An atomic one goes as a whole. */
static void write_parts(outr__redis_conn *c)
{
    while (!outr_list_is_empty(&c->unsent)) {
        outr__redis_part *p = OUTR_LIST_ITEM(c->unsent.next, outr__redis_part, link);
        while (p->written < p->count) {
            bool is_inside = p->call->is_atomic && p->written > 0;
            if (!is_inside && (outr_stream_is_full(c->stream) ||
                               c->tail - c->head >= OUTR__REDIS_FLIGHT_MAX))
                return;
            write_next(c, p);
            if (c->out.bytes >= WRITE_STEP)
                flush(c);
        }
        outr_link_remove(&p->link);
        outr_list_push(&c->sent, &p->link);
    }
}

static void on_flush(outr_deferred *deferred)
{
    outr__redis_conn *c = OUTR_CONTAINER(deferred, outr__redis_conn, flusher);
    if (c->state != OUTR__REDIS_UP)
        return;
    write_parts(c);
    flush(c);
}

void outr__redis_conn_give(outr__redis_conn *c, outr__redis_part *p)
{
    p->conn = c;
    p->written = p->answered = 0;
    p->slot_count = 0;
    outr_list_push(&c->unsent, &p->link);
    c->unwritten += p->count;
    if (c->state == OUTR__REDIS_UP)
        outr_loop_flush(c->site->loop, &c->flusher);
}

void outr__redis_conn_drop(outr__redis_part *p)
{
    outr__redis_conn *c = p->conn;
    outr_link_remove(&p->link);
    p->conn = NULL;
    if (c->state == OUTR__REDIS_DOWN)
        return;
    c->unwritten -= p->count - p->written;
    for (uint64_t n = p->first_slot, end = n + p->slot_count; n < end; n++) {
        if (n < c->head)
            continue;
        slot_at(c, n)->part = NULL;
        if (n == c->head)
            c->into_arena = NULL;
    }
}

size_t outr__redis_conn_load(const outr__redis_conn *c)
{
    return c->unwritten + (size_t)(c->tail - c->head);
}

void outr__redis_conn_push(outr__redis_conn *c, const outr_redis_command *command)
{
    outr__redis_write(&c->out, command->args, command->count);
    outr_loop_flush(c->site->loop, &c->flusher);
}

/* ---- greeting -------------------------------------------------------------------------------- */

static void greet_with(outr__redis_conn *c, const outr_str *args, size_t count)
{
    outr__redis_write(&c->out, args, count);
    add_slot(c, (outr__redis_slot){.kind = OUTR__REDIS_GREETING, .index = c->greetings++});
}

static bool selects_database(const outr__redis_conn *c)
{
    return settings(c)->db > 0 && !c->is_sentinels && !c->site->redis->is_cluster;
}

/* Login and database, then something that only a server which works answers well. */
static void greet(outr__redis_conn *c)
{
    const outr_redis_settings *s = settings(c);
    outr_str user = c->is_sentinels ? s->sentinel_username : s->username;
    outr_str password = c->is_sentinels ? s->sentinel_password : s->password;
    c->state = OUTR__REDIS_GREETED;
    if (password.n > 0) {
        const outr_str args[] = {OUTR_STR("AUTH"), user.n > 0 ? user : password, password};
        greet_with(c, args, user.n > 0 ? 3 : 2);
    }
    if (selects_database(c)) {
        char digits[20];
        const outr_str args[] = {OUTR_STR("SELECT"), outr_str_decimal(digits, (uint64_t)s->db)};
        greet_with(c, args, 2);
    }
    const outr_str last = c->wants_master ? OUTR_STR("ROLE") : OUTR_STR("PING");
    greet_with(c, &last, 1);
    flush(c);
}

/* Of the component, when the server refuses what it says; NULL: that is not why. */
static const char *refused_field(const outr__redis_conn *c, outr_code code)
{
    uint32_t behind_login = selects_database(c) ? 2 : 1;
    if (code == OUTR_UNAVAILABLE)
        return NULL;
    if (code == OUTR_UNAUTHENTICATED || c->greetings >= behind_login)
        return c->is_sentinels ? "sentinelPassword" : "redisPassword";
    return c->greetings == 1 ? "redisDB" : NULL;
}

static void on_greeting(outr__redis_conn *c, const outr_redis_reply *r)
{
    outr_err err;
    bool is_last = --c->greetings == 0;
    bool may_not = r->kind == OUTR_REDIS_ERROR && outr_str_starts(r->text, OUTR_STR("NOPERM"));
    if (!(is_last && may_not) && outr_redis_check(r, &err)) { /* may do other things: it answered */
        if (!is_last && err.code == OUTR_INTERNAL)
            err.code = OUTR_INVALID_ARGUMENT; /* ERR DB index is out of range */
        const char *field = refused_field(c, err.code);
        if (field)
            outr_wrap(&err, "%s", field);
        outr__redis_conn_close(c, &err);
        return;
    }
    if (!is_last)
        return;
    if (c->wants_master && r->kind == OUTR_REDIS_ARRAY && r->count > 0 &&
        !outr_str_is(r->items[0].text, "master")) {
        break_off(c, OUTR_UNAVAILABLE, "it is no master any more");
        return;
    }
    c->state = OUTR__REDIS_UP;
    outr__redis_set_up(c->site, true, NULL);
    c->owner->on_up(c);
    if (c->state == OUTR__REDIS_UP)
        outr_loop_flush(c->site->loop, &c->flusher);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Where the next reply goes, of which nothing is made yet. */
static void aim(outr__redis_conn *c)
{
    c->into = &c->own;
    c->into_arena = c->arena;
    if (c->head == c->tail)
        return;
    const outr__redis_slot *slot = slot_at(c, c->head);
    if (slot->kind == OUTR__REDIS_GREETING || slot->kind == OUTR__REDIS_ASIDE)
        return;
    outr_redis_call *call = slot->part ? slot->part->call : NULL;
    c->into_arena = call ? call->arena : NULL;
    if (call)
        c->into = slot->kind == OUTR__REDIS_EXEC ? &call->exec : &call->replies[slot->index];
}

/* A call that cannot have its reply; the connection goes on. */
static void refuse_reply(outr__redis_conn *c)
{
    outr_err err;
    c->is_over_cap = false;
    outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "the reply is larger than this request may be");
    if (c->head < c->tail && slot_at(c, c->head)->part)
        outr__redis_call_end(slot_at(c, c->head)->part->call, &err);
}

/* EXEC's own reply becomes those of the commands. */
static void spread(outr_redis_call *call)
{
    const outr_redis_reply *exec = &call->exec;
    for (size_t i = 0; i < call->count; i++) {
        if (exec->kind == OUTR_REDIS_ARRAY && i < exec->count)
            call->replies[i] = exec->items[i];
        else if (call->replies[i].kind != OUTR_REDIS_ERROR) /* its own says more than EXECABORT */
            call->replies[i] = *exec;
    }
}

static void on_command(outr__redis_conn *c, const outr__redis_slot *slot)
{
    outr__redis_part *p = slot->part;
    const outr_redis_reply *reply = &p->call->replies[slot->index];
    if (slot->kind == OUTR__REDIS_EXEC) {
        p->answered = p->count;
        spread(p->call);
        bool is_handled = false;
        for (uint32_t i = 0; i < p->call->count && !is_handled; i++) {
            reply = &p->call->replies[i];
            is_handled =
                reply->kind == OUTR_REDIS_ERROR && c->owner->on_refused(c, p, i, reply);
        }
    } else {
        p->answered++;
        if (reply->kind == OUTR_REDIS_ERROR)
            c->owner->on_refused(c, p, slot->index, reply);
    }
    if (p->answered == p->count)
        outr__redis_part_done(p);
}

static void on_reply(outr__redis_conn *c)
{
    if (c->head == c->tail) {
        if (c->owner->on_push)
            c->owner->on_push(c, &c->own);
        else
            break_off(c, OUTR_UNAVAILABLE, "a reply came that nobody asked for");
        return;
    }
    outr__redis_slot slot = *slot_at(c, c->head++);
    if (slot.kind == OUTR__REDIS_GREETING)
        on_greeting(c, &c->own);
    else if (slot.part && slot.kind >= OUTR__REDIS_COMMAND && slot.kind != OUTR__REDIS_QUEUED)
        on_command(c, &slot);
}

/* False: c is down. */
static bool read_replies(outr__redis_conn *c)
{
    for (;;) {
        void *made = NULL;
        if (!c->has_begun)
            aim(c);
        int rc = redisReaderGetReply(c->reader, &made);
        if (rc != REDIS_OK) {
            char text[sizeof c->reader->errstr];
            snprintf(text, sizeof text, "%s", c->reader->errstr);
            break_off(c, OUTR_UNAVAILABLE, text);
            return false;
        }
        if (c->is_over_cap)
            refuse_reply(c);
        if (!made)
            break;
        c->has_begun = false;
        on_reply(c);
        if (c->state == OUTR__REDIS_DOWN)
            return false;
        if (outr_arena_used(c->arena) > 0)
            outr_arena_reset(c->arena);
    }
    if (c->reader->len - c->reader->pos <= OUTR__REDIS_REPLY_MAX)
        return true;
    break_off(c, OUTR_RESOURCE_EXHAUSTED, "a reply is larger than 64 MiB");
    return false;
}

static void on_data(outr_stream *s, outr_chunk *chunk OUTR_UNUSED, const char *p, size_t n)
{
    outr__redis_conn *c = s->owner;
    c->last_ns = now(c);
    while (n > 0) {
        size_t take = OUTR_MIN(n, FEED);
        redisReaderFeed(c->reader, p, take);
        p += take;
        n -= take;
        if (!read_replies(c))
            return;
    }
    if (c->unwritten > 0)
        outr_loop_flush(c->site->loop, &c->flusher);
}

/* A server closes connections that idle. */
static void on_eof(outr_stream *s)
{
    outr__redis_conn *c = s->owner;
    bool is_idle = c->state == OUTR__REDIS_UP && outr__redis_conn_load(c) == 0;
    break_off(c, is_idle ? OUTR_OK : OUTR_UNAVAILABLE, "the server closed the connection");
}

static void on_drain(outr_stream *s)
{
    outr__redis_conn *c = s->owner;
    c->last_ns = now(c);
    if (c->unwritten > 0)
        outr_loop_flush(c->site->loop, &c->flusher);
}

static void on_error(outr_stream *s, const outr_err *err)
{
    outr_err copy = *err;
    copy.code = OUTR_UNAVAILABLE;
    outr__redis_conn_close(s->owner, &copy);
}

static void on_closed(outr_stream *s)
{
    outr__redis_conn *c = s->owner;
    c->stream = NULL;
    free_conn(c);
}

static const outr_stream_events events = {on_data, on_eof, on_drain, on_error, on_closed};

/* A server that takes what we write is not silent, though it has nothing to say before the end. */
static void note_progress(outr__redis_conn *c)
{
    size_t pending = c->stream ? c->stream->pending_bytes : 0;
    if (pending > 0 && pending < c->pending_bytes)
        c->last_ns = now(c);
    c->pending_bytes = pending;
}

/* One timer for the life of the connection; it looks at what happened since it was set. */
static void on_watchdog(outr_timer *timer)
{
    outr__redis_conn *c = OUTR_CONTAINER(timer, outr__redis_conn, watchdog);
    const outr_redis_settings *s = settings(c);
    uint64_t limit_ns = (uint64_t)s->read_timeout_ns;
    if (c->head == c->tail && c->unwritten == 0) {
        if (c->owner->on_push || s->idle_timeout_ns < 0)
            return; /* its owner looks after it, or nobody does; the next write sets it again */
        limit_ns = OUTR_MAX((uint64_t)s->idle_timeout_ns, OUTR_MS);
        if (now(c) - c->last_ns >= limit_ns) {
            break_off(c, OUTR_OK, "idle");
            return;
        }
    } else {
        const outr__redis_slot *first = c->head < c->tail ? slot_at(c, c->head) : NULL;
        if (first && first->part)
            limit_ns += first->part->call->wait_ns;
        note_progress(c);
        if (now(c) - c->last_ns >= limit_ns) {
            break_off(c, OUTR_UNAVAILABLE, "the server does not answer");
            return;
        }
    }
    outr_timer_start(c->site->loop, timer, c->last_ns + limit_ns);
}

/* ---- dialing --------------------------------------------------------------------------------- */

static void try_address(outr__redis_conn *c);
static void look_up(outr__redis_conn *c);

static void start_op(outr__redis_conn *c, outr_op_fn *done)
{
    outr_op_init(&c->op, c->site->loop, NULL, c->dial_by_ns, done);
}

static void fail_dialing(outr__redis_conn *c, const outr_err *err)
{
    outr_err copy = *err;
    if (copy.code == OUTR_DEADLINE_EXCEEDED || copy.code == OUTR_CANCELLED)
        outr_fail(&copy, OUTR_UNAVAILABLE, "no connection within dialTimeout");
    outr__redis_conn_close(c, &copy);
}

/* True: the owner has closed it meanwhile, or the step failed. */
static bool is_over(outr__redis_conn *c)
{
    if (c->state == OUTR__REDIS_DOWN) {
        free_conn(c);
        return true;
    }
    if (c->op.err.code) {
        outr_err err = c->op.err;
        fail_dialing(c, &err);
        return true;
    }
    return false;
}

static void set_stream(outr__redis_conn *c, outr_stream *stream)
{
    c->stream = stream;
    stream->events = &events;
    stream->owner = c;
}

/* The owner has closed c while the stream was made; on_closed follows. */
static void close_stream(outr__redis_conn *c, outr_stream *stream)
{
    set_stream(c, stream);
    outr_stream_close(stream);
}

static void take_stream(outr__redis_conn *c, outr_stream *stream)
{
    set_stream(c, stream);
    stream->high_water = HIGH_WATER;
    stream->low_water = HIGH_WATER / 4;
    c->reader = outr__redis_reader_new(c);
    outr_stream_read_start(stream);
    greet(c);
}

static void on_secured(outr_op *op)
{
    outr__redis_conn *c = OUTR_CONTAINER(op, outr__redis_conn, op);
    if (c->state == OUTR__REDIS_DOWN && !op->err.code)
        close_stream(c, c->handshake.stream);
    else if (!is_over(c))
        take_stream(c, c->handshake.stream);
}

static void on_connected(outr_op *op)
{
    outr__redis_conn *c = OUTR_CONTAINER(op, outr__redis_conn, op);
    if (c->state == OUTR__REDIS_DOWN && !op->err.code) {
        close_stream(c, c->connect.stream);
        return;
    }
    if (op->err.code && c->state != OUTR__REDIS_DOWN && !outr_op_is_cancelled(op) &&
        ++c->at < c->lookup.count) {
        try_address(c);
        return;
    }
    if (is_over(c))
        return;
    if (!c->site->redis->tls) {
        take_stream(c, c->connect.stream);
        return;
    }
    c->handshake = (outr_tls_handshake){.tls = c->site->redis->tls,
                                        .own_below = c->connect.stream,
                                        .server_name = c->where.port ? c->where.host
                                                                     : OUTR_STR("localhost")};
    start_op(c, on_secured);
    outr_tls_handshake_start(&c->handshake, &c->op);
}

static void try_address(outr__redis_conn *c)
{
    outr_env *env = outr_loop_env(c->site->loop);
    c->connect = (outr_connect){.addr = c->lookup.addrs[c->at]};
    start_op(c, on_connected);
    env->connect(env, c->site->loop, &c->connect, &c->op);
}

static void on_looked_up(outr_op *op)
{
    outr__redis_conn *c = OUTR_CONTAINER(op, outr__redis_conn, op);
    if (is_over(c))
        return;
    if (c->lookup.count > 0)
        try_address(c);
    else
        break_off(c, OUTR_UNAVAILABLE, "the name has no address");
}

static void set_where(outr__redis_conn *c, const outr__redis_where *where)
{
    size_t n = OUTR_MIN(where->host.n, sizeof c->host - 1);
    memcpy(c->host, where->host.p, n);
    c->where = (outr__redis_where){outr_str_of(c->host, n), where->port};
}

static void on_master(outr_op *op)
{
    outr__redis_conn *c = OUTR_CONTAINER(op, outr__redis_conn, op);
    if (is_over(c))
        return;
    set_where(c, &c->master->where);
    outr__redis_master_free(outr_take(&c->master));
    look_up(c);
}

static void look_up(outr__redis_conn *c)
{
    outr_env *env = outr_loop_env(c->site->loop);
    if (c->where.port == 0) {
        outr_addr *to = &c->lookup.addrs[0];
        c->lookup.count = 1;
        to->kind = OUTR_ADDR_UNIX;
        snprintf(to->path, sizeof to->path, OUTR_FMT, OUTR_ARG(c->where.host));
        try_address(c);
        return;
    }
    c->lookup = (outr_lookup){.host = c->where.host, .port = c->where.port};
    if (outr_addr_from_ip(&c->lookup.addrs[0], c->where.host, c->where.port, NULL) == OUTR_OK) {
        c->lookup.count = 1;
        try_address(c);
        return;
    }
    start_op(c, on_looked_up);
    env->lookup(env, c->site->loop, &c->lookup, &c->op);
}

outr__redis_conn *outr__redis_conn_new(outr__redis_site *site, const outr__redis_where *where,
                                       bool is_sentinels, bool wants_master,
                                       const outr__redis_owner *owner, void *ctx)
{
    outr__redis_conn *c = outr_alloc(sizeof *c);
    c->site = site;
    c->owner = owner;
    c->ctx = ctx;
    c->is_sentinels = is_sentinels;
    c->wants_master = wants_master;
    uint64_t limit_ns = (uint64_t)site->redis->s.dial_timeout_ns;
    if (is_sentinels) /* all of them within what a connection to the master may take */
        limit_ns /= site->redis->host_count;
    c->dial_by_ns = outr_loop_now(site->loop) + limit_ns;
    c->flusher.run = on_flush;
    c->watchdog.fire = on_watchdog;
    c->arena = outr_arena_new(OUTR__REDIS_REPLY_MAX);
    outr_list_init(&c->sent);
    outr_list_init(&c->unsent);
    set_where(c, where);
    outr_list_push(&site->conns, &c->of_site);
    if (wants_master) {
        start_op(c, on_master);
        c->master = outr__redis_master_start(site, &c->op);
    } else {
        look_up(c);
    }
    return c;
}
