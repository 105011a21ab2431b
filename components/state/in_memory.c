#include <pthread.h>

#include "base/clock.h"
#include "components/state.h"

/* State in this process. All loops share it: a call costs less under a lock held for a few pointer
 * moves than a message to an owner and back. Sixteen shards, each with its lock; a transaction
 * takes
 * all it touches in order. */

#define SHARDS 16

typedef struct entry {
    char *value;
    size_t value_n;
    char etag[OUTR_UUID_LEN + 1];
    int64_t expires_ns; /* unix; 0: never */
} entry;

typedef struct shard {
    pthread_mutex_t lock;
    outr_map *entries;
} shard;

typedef struct store {
    outr_state_store base;
    shard shards[SHARDS];
    outr_loop *loop;
    outr_timer sweeper;
} store;

#define SWEEP_NS (60 * OUTR_SEC)

static store *of(outr_state_store *base)
{
    return OUTR_CONTAINER(base, store, base);
}

static size_t shard_of(outr_str key)
{
    return outr_str_hash(key, 1) % SHARDS;
}

static void free_entry(entry *e)
{
    if (e)
        free(e->value);
    free(e);
}

/* The live entry; an expired one is dropped on sight. Locked. */
static entry *find(shard *s, outr_str key, int64_t now_ns)
{
    entry *e = outr_map_get(s->entries, key);
    if (e && e->expires_ns && e->expires_ns <= now_ns) {
        outr_map_remove(s->entries, key);
        free_entry(e);
        return NULL;
    }
    return e;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void get(outr_state_store *base, outr_state_get *req, outr_op *op)
{
    store *st = of(base);
    int64_t now_ns = outr_loop_unix_ns(op->loop);
    for (size_t i = 0; i < req->count; i++) {
        outr_state_item *item = &req->items[i];
        shard *s = &st->shards[shard_of(item->key)];
        pthread_mutex_lock(&s->lock);
        const entry *e = find(s, item->key, now_ns);
        item->is_found = e != NULL;
        if (e) {
            char text[40];
            item->value = outr_arena_str(req->arena, outr_str_of(e->value, e->value_n));
            item->etag = outr_arena_str(req->arena, outr_str_from(e->etag));
            if (e->expires_ns)
                item->ttl_expire_time = outr_arena_str(
                    req->arena, outr_str_of(text, outr_time_rfc3339(e->expires_ns, text)));
        }
        pthread_mutex_unlock(&s->lock);
    }
    outr_op_begin(op, req, NULL);
    outr_op_finish_soon(op);
}

/* A page of the walk: the smallest keys behind `after`. One more than the page is kept, to see
 * whether there is another. A heap with the largest on top, so that a page costs one walk. */
typedef struct page {
    outr_str *keys;
    size_t count, max;
} page;

static void sift_up(page *p, size_t i)
{
    for (; i > 0 && outr_str_cmp(p->keys[(i - 1) / 2], p->keys[i]) < 0; i = (i - 1) / 2) {
        outr_str other = p->keys[i];
        p->keys[i] = p->keys[(i - 1) / 2];
        p->keys[(i - 1) / 2] = other;
    }
}

static void sift_down(page *p)
{
    for (size_t i = 0;;) {
        size_t largest = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < p->count; child++) {
            if (outr_str_cmp(p->keys[child], p->keys[largest]) > 0)
                largest = child;
        }
        if (largest == i)
            return;
        outr_str other = p->keys[i];
        p->keys[i] = p->keys[largest];
        p->keys[largest] = other;
        i = largest;
    }
}

static bool is_wanted(const page *p, outr_str key)
{
    return p->count < p->max || outr_str_cmp(key, p->keys[0]) < 0;
}

static void keep(page *p, outr_str key)
{
    if (p->count < p->max) {
        p->keys[p->count] = key;
        sift_up(p, p->count++);
        return;
    }
    p->keys[0] = key;
    sift_down(p);
}

static int by_text(const void *a, const void *b)
{
    return outr_str_cmp(*(const outr_str *)a, *(const outr_str *)b);
}

static void keys(outr_state_store *base, outr_state_keys *req, outr_op *op)
{
    store *st = of(base);
    int64_t now_ns = outr_loop_unix_ns(op->loop);
    page p = {.max = req->limit + 1};
    outr_str key;
    void *item;
    p.keys = outr_arena_alloc(req->arena, p.max * sizeof *p.keys);
    for (size_t i = 0; i < SHARDS; i++) /* all at once: keys are borrowed until the end */
        pthread_mutex_lock(&st->shards[i].lock);
    for (size_t i = 0; i < SHARDS; i++) {
        for (size_t at = 0; outr_map_next(st->shards[i].entries, &at, &key, &item);) {
            const entry *e = item;
            if (outr_str_starts(key, req->prefix) && (!e->expires_ns || e->expires_ns > now_ns) &&
                (req->after.n == 0 || outr_str_cmp(key, req->after) > 0) && is_wanted(&p, key))
                keep(&p, key);
        }
    }
    for (size_t i = 0; i < p.count; i++)
        p.keys[i] = outr_arena_str(req->arena, p.keys[i]);
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_unlock(&st->shards[i].lock);
    qsort(p.keys, p.count, sizeof *p.keys, by_text);
    req->keys = p.keys;
    req->count = OUTR_MIN(p.count, req->limit);
    if (p.count > req->limit)
        req->next = p.keys[req->limit - 1];
    outr_op_begin(op, req, NULL);
    outr_op_finish_soon(op);
}

/* ---- writing --------------------------------------------------------------------------------- */

static outr_code check(shard *s, const outr_state_write *w, int64_t now_ns, outr_err *err)
{
    const entry *e = find(s, w->key, now_ns);
    if (w->has_etag && w->etag.n > 0) {
        if (!e || !outr_str_is(w->etag, e->etag))
            return outr_fail(err, OUTR_ABORTED, "possible etag mismatch. error from state store");
    } else if (w->concurrency == OUTR_FIRST_WRITE && w->kind == OUTR_STATE_UPSERT && e) {
        return outr_fail(err, OUTR_ABORTED, "possible etag mismatch. error from state store");
    }
    return OUTR_OK;
}

static void apply(shard *s, const outr_state_write *w, int64_t ttl, int64_t now_ns, outr_rand *rand)
{
    if (w->kind == OUTR_STATE_DELETE) {
        free_entry(outr_map_remove(s->entries, w->key));
        return;
    }
    entry *e = outr_alloc(sizeof *e);
    e->value = outr_str_dup(w->value);
    e->value_n = w->value.n;
    e->expires_ns = ttl > 0 ? now_ns + ttl * (int64_t)OUTR_SEC : 0;
    outr_rand_uuid(rand, e->etag);
    free_entry(outr_map_put(s->entries, w->key, e));
}

static outr_code write_one(store *st, const outr_state_write *w, int64_t now_ns, outr_rand *rand,
                           outr_err *err)
{
    int64_t ttl;
    shard *s = &st->shards[shard_of(w->key)];
    outr_code rc = outr_state_ttl(w->metadata, &ttl, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&s->lock);
    rc = check(s, w, now_ns, err);
    if (!rc)
        apply(s, w, ttl, now_ns, rand);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static outr_code write_all(store *st, outr_state_writes *req, int64_t now_ns, outr_rand *rand,
                           outr_err *err)
{
    bool touched[SHARDS] = {false};
    int64_t *ttls = outr_arena_alloc(req->arena, (req->count + 1) * sizeof *ttls);
    outr_code rc = OUTR_OK;
    for (size_t i = 0; i < req->count; i++) {
        touched[shard_of(req->items[i].key)] = true;
        rc = rc ? rc : outr_state_ttl(req->items[i].metadata, &ttls[i], err);
    }
    for (size_t s = 0; s < SHARDS; s++) {
        if (touched[s])
            pthread_mutex_lock(&st->shards[s].lock);
    }
    for (size_t i = 0; i < req->count && !rc; i++)
        rc = check(&st->shards[shard_of(req->items[i].key)], &req->items[i], now_ns, err);
    for (size_t i = 0; i < req->count && !rc; i++)
        apply(&st->shards[shard_of(req->items[i].key)], &req->items[i], ttls[i], now_ns, rand);
    for (size_t s = 0; s < SHARDS; s++) {
        if (touched[s])
            pthread_mutex_unlock(&st->shards[s].lock);
    }
    return rc;
}

static void do_write(outr_state_store *base, outr_state_writes *req, outr_op *op)
{
    store *st = of(base);
    int64_t now_ns = outr_loop_unix_ns(op->loop);
    outr_rand *rand = outr_loop_rand(op->loop);
    outr_err first, other;
    outr_code rc = OUTR_OK;
    outr_op_begin(op, req, NULL);
    if (req->is_atomic) {
        rc = write_all(st, req, now_ns, rand, &first);
    } else {
        for (size_t i = 0; i < req->count; i++) {
            outr_code item = write_one(st, &req->items[i], now_ns, rand, rc ? &other : &first);
            rc = rc ? rc : item;
        }
    }
    if (rc)
        outr_op_fail_soon(op, &first);
    else
        outr_op_finish_soon(op);
}

static void drop(outr_state_store *base, outr_state_drop *req, outr_op *op)
{
    store *st = of(base);
    outr_str key;
    void *item;
    for (size_t i = 0; i < SHARDS; i++) {
        shard *s = &st->shards[i];
        pthread_mutex_lock(&s->lock);
        for (size_t at = 0; outr_map_next(s->entries, &at, &key, &item);) {
            if (!outr_str_starts(key, req->prefix))
                continue;
            free_entry(outr_map_remove(s->entries, key));
            req->deleted++;
        }
        pthread_mutex_unlock(&s->lock);
    }
    outr_op_begin(op, req, NULL);
    outr_op_finish_soon(op);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_sweep(outr_timer *timer)
{
    store *st = OUTR_CONTAINER(timer, store, sweeper);
    int64_t now_ns = outr_loop_unix_ns(st->loop);
    for (size_t i = 0; i < SHARDS; i++) {
        shard *s = &st->shards[i];
        outr_str key;
        void *item;
        pthread_mutex_lock(&s->lock);
        for (size_t at = 0; outr_map_next(s->entries, &at, &key, &item);) {
            const entry *e = item;
            if (e->expires_ns && e->expires_ns <= now_ns)
                free_entry(outr_map_remove(s->entries, key));
        }
        pthread_mutex_unlock(&s->lock);
    }
    outr_timer_start(st->loop, timer, outr_loop_now(st->loop) + SWEEP_NS);
}

extern const outr_state_backend outr_state_in_memory;

static outr_code create(outr_state_store **out, const outr_component_init *init,
                        outr_err *err OUTR_UNUSED)
{
    store *st = outr_alloc(sizeof *st);
    st->base.backend = &outr_state_in_memory;
    st->loop = init->loop;
    st->sweeper.fire = on_sweep;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&st->shards[i].lock, NULL);
        st->shards[i].entries = outr_map_new();
    }
    *out = &st->base;
    return OUTR_OK;
}

static void open_store(outr_state_store *base, outr_op *op)
{
    store *st = of(base);
    outr_timer_start(st->loop, &st->sweeper, outr_loop_now(st->loop) + SWEEP_NS);
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static void close_store(outr_state_store *base, outr_op *op)
{
    store *st = of(base);
    void *item;
    outr_timer_stop(st->loop, &st->sweeper);
    for (size_t i = 0; i < SHARDS; i++) {
        for (size_t at = 0; outr_map_next(st->shards[i].entries, &at, NULL, &item);)
            free_entry(item);
        outr_map_free(st->shards[i].entries);
        pthread_mutex_destroy(&st->shards[i].lock);
    }
    free(st);
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static unsigned features(const outr_state_store *base OUTR_UNUSED)
{
    return OUTR_STATE_ETAG | OUTR_STATE_TRANSACTIONAL | OUTR_STATE_TTL | OUTR_STATE_DELETE_PREFIX;
}

const outr_state_backend outr_state_in_memory = {
    .base = {"state.in-memory", "v1", NULL, 0},
    .create = create,
    .open = open_store,
    .close = close_store,
    .features = features,
    .get = get,
    .write = do_write,
    .keys = keys,
    .drop = drop,
};
