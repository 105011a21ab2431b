#include "components/configuration/redis/store.h"

/* A watch has a connection of its own that listens, in a cluster one for each key. A notification
 * says that a key has changed; what it is now is read afterwards, for all keys that have changed
 * meanwhile at once. When the connection was lost, the keys are read and what differs from what was
 * there last is told; a watch of all keys cannot know what it missed. */

#define BATCH_MAX        256 /* keys read and told at once */
#define CLUSTER_KEYS_MAX 1024 /* each takes a connection */
#define GET_ARENA        (64 * OUTR_MIB)

typedef struct key {
    outr_link dirty;
    uint64_t known; /* hash of what was read last */
    size_t n;
    char name[];
} key;

struct outr_configuration_watch {
    outr__config_store *store;
    outr_loop *loop;
    void (*on_update)(void *ctx, const outr_configuration_item *items, size_t count);
    void *ctx;
    outr_configuration_subscribe *req; /* until opened */
    outr_op *opening;
    bool is_all;
    outr_map *keys; /* name -> key; of all: those that are dirty */
    outr_list dirty;
    outr_redis_listener **listeners;
    size_t listener_count, heard; /* heard: subscribed at least once */
    /* What is done just now: making sure that there are notifications, and reading. */
    outr_arena *arena;
    outr_redis_call call;
    outr_op op;
    key **batch; /* what is read */
    size_t batch_n;
    size_t batch_max; /* 1 after a failure: values may be too large to be read together */
    outr_timer pause;
    uint32_t failures;
    bool is_telling, is_syncing, must_sync, has_warned, is_closing;
    outr_deferred ender;
    outr_op *closing;
};
typedef struct outr_configuration_watch watch;

static void go(watch *w);

static bool is_busy(const watch *w)
{
    return outr_op_is_pending(&w->op);
}

static void free_watch(watch *w)
{
    void *item;
    for (size_t at = 0; outr_map_next(w->keys, &at, NULL, &item);)
        free(item);
    outr_map_free(w->keys);
    outr_arena_free(w->arena);
    free(w->listeners);
    free(w->batch);
    free(w);
}

static void on_ender(outr_deferred *deferred)
{
    watch *w = OUTR_CONTAINER(deferred, watch, ender);
    outr_op *op = w->closing;
    free_watch(w);
    outr_op_finish(op);
}

static void stop(watch *w)
{
    outr_timer_stop(w->loop, &w->pause);
    for (size_t i = 0; i < w->listener_count; i++)
        outr_redis_listen_stop(outr_take(&w->listeners[i]));
}

/* Before it was open: the op that opens it fails, and nothing stays. */
static void fail_opening(watch *w, const outr_err *err)
{
    outr_op *opening = outr_take(&w->opening);
    stop(w);
    w->closing = opening;
    opening->err = *err;
    w->is_closing = true;
    if (is_busy(w))
        outr_op_cancel(&w->op, OUTR_CANCELLED);
    else
        outr_loop_defer(w->loop, &w->ender);
}

static void finish_opening(watch *w)
{
    outr_op *opening = outr_take(&w->opening);
    if (!opening)
        return;
    w->req->watch = w;
    outr_op_finish(opening);
}

static key *add_key(watch *w, outr_str name)
{
    key *k = outr_alloc(sizeof *k + name.n + 1);
    k->n = name.n;
    if (name.n > 0)
        memcpy(k->name, name.p, name.n);
    outr_map_put(w->keys, name, k);
    return k;
}

static key *find_key(watch *w, outr_str name)
{
    key *k = outr_map_get(w->keys, name);
    if (k || !w->is_all)
        return k;
    if (outr_map_count(w->keys) == OUTR__CONFIG_KEYS_MAX) {
        if (!w->has_warned)
            OUTR_LOG(w->store->log, WARN, "more keys change than can be told, some are left out",
                     OUTR_S("component", w->store->name));
        w->has_warned = true;
        return NULL;
    }
    return add_key(w, name);
}

static void mark(watch *w, key *k)
{
    if (k && !outr_link_is_in(&k->dirty))
        outr_list_push(&w->dirty, &k->dirty);
}

static uint64_t hash_of(const outr_redis_reply *reply)
{
    return reply->kind == OUTR_REDIS_STRING ? outr_str_hash(reply->text, 1) : 0;
}

static void begin_call(watch *w, outr_op_fn *done)
{
    outr_op_init(&w->op, w->loop, NULL, 0, done);
    outr_redis_call_start(w->store->redis, &w->call, &w->op);
}

static void on_pause(outr_timer *timer)
{
    go(OUTR_CONTAINER(timer, watch, pause));
}

/* True: the watch goes on. A failure is tried again after a while. */
static bool take_result(watch *w, outr_op *op)
{
    if (w->is_closing) {
        outr_loop_defer(w->loop, &w->ender);
        return false;
    }
    if (!op->err.code) {
        w->failures = 0;
        w->batch_max = BATCH_MAX;
        return true;
    }
    for (size_t i = 0; i < w->batch_n; i++)
        mark(w, w->batch[i]);
    w->batch_n = 0;
    w->batch_max = 1;
    w->must_sync |= w->is_syncing;
    w->is_syncing = false;
    if (w->opening) {
        outr_err err = op->err;
        fail_opening(w, &err);
        return false;
    }
    outr_timer_start(w->loop, &w->pause,
                     outr_loop_now(w->loop) + outr_redis_pause(w->loop, w->failures++));
    return false;
}

/* ---- that there are notifications, and what went by unheard ---------------------------------- */

static void read_batch(watch *w, outr_op_fn *done)
{
    outr_str *names = outr_arena_alloc(w->arena, (w->batch_n + 1) * sizeof *names);
    for (size_t i = 0; i < w->batch_n; i++)
        names[i] = outr_str_of(w->batch[i]->name, w->batch[i]->n);
    outr__config_ask(w->arena, &w->call, names, w->batch_n);
    begin_call(w, done);
}

static void on_known(outr_op *op)
{
    watch *w = OUTR_CONTAINER(op, watch, op);
    size_t n = w->batch_n;
    w->batch_n = 0; /* not told for being read here */
    if (!take_result(w, op))
        return;
    for (size_t i = 0; i < n; i++) {
        key *k = w->batch[i];
        uint64_t hash = hash_of(&w->call.replies[i]);
        if (hash != k->known && !w->opening)
            mark(w, k);
        k->known = hash;
    }
    w->is_syncing = false;
    finish_opening(w);
    go(w);
}

static void read_known(watch *w)
{
    void *item;
    outr_arena_reset(w->arena);
    w->batch_n = 0;
    for (size_t at = 0; !w->is_all && outr_map_next(w->keys, &at, NULL, &item);)
        w->batch[w->batch_n++] = item;
    if (w->batch_n > 0) {
        read_batch(w, on_known);
        return;
    }
    w->is_syncing = false;
    finish_opening(w);
    go(w);
}

static void on_set(outr_op *op)
{
    watch *w = OUTR_CONTAINER(op, watch, op);
    outr_err err;
    if (!take_result(w, op))
        return;
    if (outr_redis_check_all(&w->call, &err))
        OUTR_LOG(w->store->log, WARN,
                 "keyspace notifications cannot be turned on, changes may go by unseen",
                 OUTR_S("component", w->store->name), OUTR_ERR(&err));
    read_known(w);
}

/* daprd sets "Kg$xe"; what others have set stays. */
static outr_str missing_flags(outr_arena *arena, outr_str now)
{
    static const char needed[] = "Kg$xe";
    bool has_all = outr_str_find(now, 'A') >= 0, is_missing = false;
    OUTR_AUTO(outr_buf) flags = OUTR_BUF_MAX(128);
    outr_buf_str(&flags, outr_str_head(now, 64));
    for (const char *f = needed; *f; f++) {
        if (outr_str_find(now, *f) >= 0 || (has_all && *f != 'K'))
            continue;
        outr_buf_char(&flags, *f);
        is_missing = true;
    }
    return is_missing ? outr_arena_str(arena, outr_buf_view(&flags)) : OUTR_STR_NONE;
}

/* In a cluster each key's server has its own. */
static void ask_config(watch *w, const outr_str *args, size_t count, outr_op_fn *done)
{
    bool is_cluster = outr_redis_is_cluster(w->store->redis);
    size_t n = is_cluster ? OUTR_MAX(outr_map_count(w->keys), (size_t)1) : 1, i = 0;
    outr_redis_command *commands = outr_arena_alloc(w->arena, (n + 1) * sizeof *commands);
    outr_str name;
    for (size_t at = 0; n > 1 && i < n && outr_map_next(w->keys, &at, &name, NULL); i++)
        commands[i] = outr_redis_command_of(w->arena, outr_arena_str(w->arena, name), count, args);
    if (i == 0)
        commands[i++] = outr_redis_command_of(w->arena, OUTR_STR_NONE, count, args);
    w->call = (outr_redis_call){
        .arena = w->arena, .commands = commands, .count = i, .is_repeatable = true};
    begin_call(w, done);
}

static void on_flags(outr_op *op)
{
    watch *w = OUTR_CONTAINER(op, watch, op);
    outr_str flags = OUTR_STR_NONE;
    if (!take_result(w, op))
        return;
    for (size_t i = 0; i < w->call.count && !flags.p; i++) {
        const outr_redis_reply *r = &w->call.replies[i];
        bool is_there = r->kind == OUTR_REDIS_ARRAY && r->count == 2;
        flags = missing_flags(w->arena, is_there ? r->items[1].text : OUTR_STR(""));
    }
    if (!flags.p) {
        read_known(w);
        return;
    }
    ask_config(w,
               (outr_str[]){OUTR_STR("CONFIG"), OUTR_STR("SET"),
                            OUTR_STR("notify-keyspace-events"), flags},
               4, on_set);
}

static void sync_keys(watch *w)
{
    w->must_sync = false;
    w->is_syncing = true;
    outr_arena_reset(w->arena);
    ask_config(
        w, (outr_str[]){OUTR_STR("CONFIG"), OUTR_STR("GET"), OUTR_STR("notify-keyspace-events")},
        3, on_flags);
}

/* ---- telling --------------------------------------------------------------------------------- */

static void on_read(outr_op *op)
{
    watch *w = OUTR_CONTAINER(op, watch, op);
    outr_configuration_item items[BATCH_MAX];
    size_t n = 0;
    if (!take_result(w, op))
        return;
    for (size_t i = 0; i < w->batch_n; i++) {
        const outr_redis_reply *reply = &w->call.replies[i];
        key *k = w->batch[i];
        if (reply->kind == OUTR_REDIS_ERROR)
            continue; /* no text: none of our keys any more */
        items[n] = (outr_configuration_item){
            .key = outr_arena_str(w->arena, outr_str_of(k->name, k->n))};
        if (reply->kind == OUTR_REDIS_STRING)
            outr__config_split(reply->text, &items[n]);
        n++;
        k->known = hash_of(reply);
    }
    for (size_t i = 0; w->is_all && i < w->batch_n; i++) {
        key *k = w->batch[i];
        if (!outr_link_is_in(&k->dirty)) /* else it has changed again meanwhile */
            free(outr_map_remove(w->keys, outr_str_of(k->name, k->n)));
    }
    w->batch_n = 0;
    if (n == 0) {
        go(w);
        return;
    }
    /* The arena is not touched before the owner says go_on; then it may be, in this very call. */
    outr_arena *told = outr_take(&w->arena);
    w->arena = outr_arena_new(GET_ARENA);
    w->is_telling = true;
    w->on_update(w->ctx, items, n);
    outr_arena_free(told);
}

static void tell(watch *w)
{
    outr_link *link;
    outr_arena_reset(w->arena);
    w->batch_n = 0;
    while (w->batch_n < w->batch_max && (link = outr_list_pop(&w->dirty)))
        w->batch[w->batch_n++] = OUTR_LIST_ITEM(link, key, dirty);
    read_batch(w, on_read);
}

/* Whatever is to be done next. */
static void go(watch *w)
{
    if (w->is_closing || is_busy(w) || outr_timer_is_on(&w->pause) || w->heard < w->listener_count)
        return;
    if (w->must_sync)
        sync_keys(w);
    else if (!w->is_telling && !outr_list_is_empty(&w->dirty))
        tell(w);
}

static void on_message(void *ctx, outr_str channel, outr_str payload OUTR_UNUSED)
{
    watch *w = ctx;
    ptrdiff_t at = outr_str_search(channel, OUTR_STR("__:"));
    if (at < 0)
        return;
    mark(w, find_key(w, outr_str_skip(channel, (size_t)at + 3)));
    if (!w->opening)
        go(w);
}

static void on_change(void *ctx, const outr_err *err)
{
    watch *w = ctx;
    if (err && w->opening) {
        fail_opening(w, err);
        return;
    }
    if (err) {
        OUTR_LOG(w->store->log, WARN, "listening for changes of configuration is interrupted",
                 OUTR_S("component", w->store->name), OUTR_ERR(err));
        return;
    }
    if (w->heard < w->listener_count)
        w->heard++;
    w->must_sync = true;
    go(w);
}

static outr_str channel_of(const outr__config_store *st, outr_arena *arena, outr_str name)
{
    outr_str head = outr_arena_printf(arena, "__keyspace@%lld__:", (long long)st->db);
    return outr_arena_join(arena, head, name, OUTR_STR_NONE);
}

static void listen_to(watch *w)
{
    bool is_cluster = outr_redis_is_cluster(w->store->redis);
    size_t n = outr_map_count(w->keys), count = 0;
    outr_str *channels = outr_arena_alloc(w->arena, (n + 1) * sizeof *channels), name;
    outr_str *names = outr_arena_alloc(w->arena, (n + 1) * sizeof *names);
    for (size_t at = 0; outr_map_next(w->keys, &at, &name, NULL); count++) {
        names[count] = name;
        channels[count] = channel_of(w->store, w->arena, name);
    }
    if (w->is_all)
        channels[count++] = channel_of(w->store, w->arena, OUTR_STR("*"));
    w->listener_count = is_cluster ? count : 1;
    w->listeners = outr_alloc(w->listener_count * sizeof(outr_redis_listener *));
    for (size_t i = 0; i < w->listener_count; i++) {
        const outr_redis_listen listen = {
            .loop = w->loop,
            .channels = channels + i,
            .channel_count = is_cluster ? 1 : count,
            .is_pattern = w->is_all,
            .key = is_cluster ? names[i] : OUTR_STR_NONE,
            .on_message = on_message,
            .on_change = on_change,
            .ctx = w,
        };
        w->listeners[i] = outr_redis_listen_start(w->store->redis, &listen);
    }
}

static void on_subscribe_cancel(outr_op *op)
{
    watch *w = op->impl;
    outr_err err = op->err;
    if (w->opening)
        fail_opening(w, &err);
}

void outr__config_subscribe(outr_configuration_store *base, outr_configuration_subscribe *req,
                            outr_op *op)
{
    outr__config_store *st = outr__config_store_of(base);
    outr_err err;
    bool is_cluster = outr_redis_is_cluster(st->redis);
    outr_code rc = outr__config_check_count(
        req->key_count, is_cluster ? CLUSTER_KEYS_MAX : OUTR__CONFIG_KEYS_MAX, &err);
    if (!rc && is_cluster && req->key_count == 0)
        rc = outr_fail(&err, OUTR_UNIMPLEMENTED, "in a cluster the keys to watch must be named");
    if (rc) {
        outr_op_begin(op, NULL, NULL);
        outr_op_fail_soon(op, &err);
        return;
    }
    watch *w = outr_alloc(sizeof *w);
    *w = (watch){.store = st,
                 .loop = op->loop,
                 .on_update = req->on_update,
                 .ctx = req->ctx,
                 .req = req,
                 .opening = op,
                 .is_all = req->key_count == 0,
                 .batch_max = BATCH_MAX,
                 .pause = {.fire = on_pause},
                 .ender = {.run = on_ender}};
    outr_op_begin(op, w, on_subscribe_cancel);
    outr_list_init(&w->dirty);
    w->keys = outr_map_new();
    w->arena = outr_arena_new(GET_ARENA);
    for (size_t i = 0; i < req->key_count; i++) {
        if (!outr_map_get(w->keys, req->keys[i]))
            add_key(w, req->keys[i]);
    }
    w->batch = outr_alloc((OUTR_MAX(outr_map_count(w->keys), (size_t)BATCH_MAX)) * sizeof(key *));
    listen_to(w);
}

void outr__config_go_on(watch *w)
{
    w->is_telling = false;
    go(w);
}

void outr__config_unsubscribe(watch *w, outr_op *op)
{
    outr_op_begin(op, w, NULL);
    w->closing = op;
    w->is_closing = true;
    stop(w);
    if (is_busy(w))
        outr_op_cancel(&w->op, OUTR_CANCELLED);
    else
        outr_loop_defer(w->loop, &w->ender);
}
