#include <etcd/api/etcdserverpb/rpc.pb-c.h>
#include <pthread.h>

#include "base/encode.h"
#include "base/json.h"
#include "components/common/etcd.h"
#include "components/common/pem.h"
#include "components/nameresolution.h"
#include "loop/step.h"

/* A registry in etcd (its API version 3): a key for each sidecar, which goes with its lease.
 *
 *     <keyPrefixPath>/<namespace>/<app id>/<id>  ->  {"address":"10.0.0.1:50002","labels":{...}}
 *
 * (each part percent-encoded). The main loop reads all keys once, then etcd tells what changes
 * (Watch): every question is answered from memory, from whichever loop, also while etcd is away.
 * After a broken watch all is read again, and what is not there any more is dropped. */

#define PAGE          500
#define ENTRIES_MAX   65536
#define AGAIN_NS      (500 * OUTR_MS) /* doubles */
#define AGAIN_LONGEST (10 * OUTR_SEC)
#define WATCH_NS      (5 * OUTR_SEC) /* until etcd says that it watches */
#define LEAVE_NS      OUTR_SEC
#define MESSAGE_MAX   (16 * OUTR_MIB)
#define ARENA_MAX     (256 * OUTR_MIB)

typedef struct config {
    outr_str endpoints, prefix, user, password, ca, cert, key;
    int64_t ttl_ns;
    bool has_tls;
} config;

static const outr_bind_row rows[] = {
    {"endpoints", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, endpoints), 0, 0, NULL,
     NULL, 0, "servers: host:port, with commas; https:// before one for TLS"},
    {"keyPrefixPath", NULL, OUTR_BIND_STR, 0, offsetof(config, prefix), 0, 0,
     "/outrigger/instances", NULL, 0, "what all keys begin with"},
    {"leaseTTL", NULL, OUTR_BIND_DURATION, 0, offsetof(config, ttl_ns), 1000000000, 3600000000000,
     "10s", NULL, 1000000000, "a sidecar that does not renew for so long is gone"},
    {"username", NULL, OUTR_BIND_STR, 0, offsetof(config, user), 0, 0, "", NULL, 0, "etcd's user"},
    {"password", NULL, OUTR_BIND_STR, OUTR_BIND_SECRET, offsetof(config, password), 0, 0, "", NULL,
     0, "and the password"},
    {"tlsEnable", NULL, OUTR_BIND_BOOL, 0, offsetof(config, has_tls), 0, 0, "false", NULL, 0,
     "TLS to all servers"},
    {"ca", NULL, OUTR_BIND_STR, 0, offsetof(config, ca), 0, 0, "", NULL, 0,
     "authorities, PEM or a file; default: the system's"},
    {"cert", NULL, OUTR_BIND_STR, 0, offsetof(config, cert), 0, 0, "", NULL, 0,
     "client certificate, PEM or a file"},
    {"key", NULL, OUTR_BIND_STR, OUTR_BIND_SECRET, offsetof(config, key), 0, 0, "", NULL, 0,
     "its private key, PEM or a file"},
};

typedef struct entry { /* one instance */
    outr_addr addr;
    uint64_t seen; /* in which reading of all */
    size_t labels_n;
    char labels[]; /* base/labels.h */
} entry;

typedef struct name {  /* who has an app id */
    outr_map *entries; /* id -> entry */
} name;

typedef struct resolver {
    outr_resolver base;
    outr_arena *arena; /* of what is configured */
    config c;
    outr_str prefix, end; /* of keys: with '/' behind it; the first key that is another's */
    outr_loop *loop;
    outr_log log;
    outr_etcd *etcd;
    /* Every loop asks, the main loop is told: held for copying alone. */
    pthread_mutex_t lock;
    outr_map *names; /* "app namespace" -> name */
    size_t count;    /* entries */
    bool is_read;    /* all was, once */
    outr_err why;    /* until then */
    /* reading and watching; main loop */
    outr_steps steps;
    outr_op op;
    outr_op *opening; /* waits for the first reading, or the first failure */
    outr_etcd_call call;
    outr_arena *stream_arena;
    outr_grpc_stream stream;
    outr_http_call http;
    outr_err broken; /* what etcd said on it that ends it */
    outr_timer overdue;
    uint64_t reading, pause_ns;
    int64_t revision;
    outr_buf from; /* where the next page begins */
    bool has_more, has_complained, is_full;
    /* registration; main loop */
    outr_buf own_key, own_value;
    outr_timer beat;
    outr_etcd_call lease_call;
    outr_op lease_op;
    outr_op *joining;
    int64_t lease;
    bool wants_put, is_put, beats_again, lease_has_complained;
    outr_op *closing;
    outr_deferred closer;
    bool is_closing, is_held; /* is_held: until closer has had its turn nothing is over */
} resolver;

extern const outr_resolver_backend outr_nameresolution_etcd;

static resolver *of(outr_resolver *base)
{
    return OUTR_CONTAINER(base, resolver, base);
}

static void end_stream(resolver *r, outr_err *err);
static void end_if_over(resolver *r);
static void beat_now(resolver *r);

/* ---- keys and values ------------------------------------------------------------------------- */

typedef struct place {
    outr_str app_id, namespace_, id;
} place;

/* False: another one's key, or nonsense. */
static bool read_key(const resolver *r, outr_arena *arena, outr_str key, place *out)
{
    outr_str parts[3], rest = outr_str_skip(key, r->prefix.n);
    if (!outr_str_starts(key, r->prefix))
        return false;
    for (size_t i = 0; i < 3; i++) {
        outr_str raw;
        if (!rest.p)
            return false;
        rest = outr_str_cut(rest, '/', &raw);
        if (!outr_percent_decode(arena, raw, false, &parts[i]) || parts[i].n == 0 ||
            parts[i].n > 200)
            return false;
    }
    *out = (place){.namespace_ = parts[0], .app_id = parts[1], .id = parts[2]};
    return !rest.p && outr_str_find(parts[1], ' ') < 0;
}

static entry *read_value(outr_arena *arena, outr_str value)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_LABELS_TEXT_MAX);
    outr_json *json;
    outr_addr addr;
    outr_kv items[2 * OUTR_LABELS_MAX];
    size_t count = 0;
    if (outr_json_parse(&json, arena, value, NULL) ||
        outr_addr_parse(&addr, outr_json_text(json, "address"), NULL) || addr.port == 0 ||
        (addr.kind != OUTR_ADDR_IP4 && addr.kind != OUTR_ADDR_IP6))
        return NULL;
    const outr_json *labels = outr_json_find(json, "labels");
    for (const outr_json *item = labels && labels->kind == OUTR_JSON_OBJECT ? labels->child : NULL;
         item && count < OUTR_LEN(items); item = item->next) {
        if (item->kind == OUTR_JSON_STRING)
            items[count++] = (outr_kv){item->key, item->text};
    }
    outr_labels_write(&text, outr_labels_of(arena, (outr_kvs){items, count}));
    entry *e = outr_alloc(sizeof *e + text.n);
    e->addr = addr;
    e->labels_n = text.n;
    if (text.n > 0)
        memcpy(e->labels, text.p, text.n);
    return e;
}

/* ---- what is known (under the lock) ---------------------------------------------------------- */

static outr_str name_key(char out[512], const place *p)
{
    int n = snprintf(out, 512, OUTR_FMT " " OUTR_FMT, OUTR_ARG(p->app_id), OUTR_ARG(p->namespace_));
    return outr_str_of(out, (size_t)n);
}

static void drop_name_if_empty(resolver *r, outr_str key, name *n)
{
    if (outr_map_count(n->entries) > 0)
        return;
    outr_map_remove(r->names, key);
    outr_map_free(n->entries);
    free(n);
}

static void forget(resolver *r, const place *p)
{
    char scratch[512];
    outr_str key = name_key(scratch, p);
    name *n = outr_map_get(r->names, key);
    entry *e = n ? outr_map_remove(n->entries, p->id) : NULL;
    if (!e)
        return;
    free(e);
    r->count--;
    drop_name_if_empty(r, key, n);
}

static bool is_equal(const entry *a, const entry *b)
{
    char one[OUTR_ADDR_TEXT_MAX], other[OUTR_ADDR_TEXT_MAX];
    outr_addr_text(&a->addr, one);
    outr_addr_text(&b->addr, other);
    return strcmp(one, other) == 0 &&
           outr_str_eq(outr_str_of(a->labels, a->labels_n), outr_str_of(b->labels, b->labels_n));
}

/* False: it was known as it is. */
static bool remember(resolver *r, const place *p, entry *own_entry)
{
    char scratch[512];
    outr_str key = name_key(scratch, p);
    name *n = outr_map_get(r->names, key);
    if (!n && r->count < ENTRIES_MAX) {
        n = outr_alloc(sizeof *n);
        n->entries = outr_map_new();
        outr_map_put(r->names, key, n);
    }
    entry *before = n ? outr_map_get(n->entries, p->id) : NULL;
    if (!n || (!before && r->count >= ENTRIES_MAX)) {
        r->is_full = true;
        free(own_entry);
        if (n)
            drop_name_if_empty(r, key, n);
        return false;
    }
    own_entry->seen = r->reading;
    bool is_new = !before || !is_equal(before, own_entry);
    r->count += !before;
    outr_map_put(n->entries, p->id, own_entry);
    free(before);
    return is_new;
}

/* Behind a reading of all: what it did not show is gone. */
static void drop_unseen(resolver *r)
{
    outr_str key, id;
    void *item, *inner;
    for (size_t at = 0; outr_map_next(r->names, &at, &key, &item);) {
        name *n = item;
        for (size_t i = 0; outr_map_next(n->entries, &i, &id, &inner);) {
            entry *e = inner;
            if (e->seen == r->reading)
                continue;
            outr_map_remove(n->entries, id);
            free(e);
            r->count--;
        }
        drop_name_if_empty(r, key, n);
    }
}

/* One key and its value, or its end (value.p == NULL). */
static void take(resolver *r, outr_str key, outr_str value, bool tells)
{
    outr_arena *arena = outr_arena_new(4 * OUTR_MIB);
    place p;
    bool is_news = true;
    bool is_own = r->own_key.n > 0 && outr_str_eq(key, outr_buf_view(&r->own_key));
    if (read_key(r, arena, key, &p)) {
        entry *e = value.p ? read_value(arena, value) : NULL;
        pthread_mutex_lock(&r->lock);
        if (e)
            is_news = remember(r, &p, e);
        else
            forget(r, &p);
        pthread_mutex_unlock(&r->lock);
        if (is_news && tells)
            outr_watchers_tell(r->base.watchers, p.app_id, p.namespace_);
    }
    outr_arena_free(arena);
    if (is_own && !value.p && r->is_put && !r->is_closing) { /* somebody took it away */
        r->wants_put = true;
        beat_now(r);
    }
}

/* ---- reading all, then watching -------------------------------------------------------------- */

enum { LOGIN, READ, TAKE, WATCH, BROKEN, PAUSE };

/* err->code OK: it went well. */
static void end_opening(resolver *r, const outr_err *err)
{
    outr_op *op = r->opening;
    outr_err copy = *err;
    r->opening = NULL;
    if (op && copy.code)
        outr_op_fail(op, &copy);
    else if (op)
        outr_op_finish(op);
}

static void on_step_done(outr_op *op)
{
    resolver *r = OUTR_CONTAINER(op, resolver, op);
    outr_err err = op->err;
    if (!r->is_closing) {
        outr_steps_run(&r->steps);
        return;
    }
    if (r->stream_arena)
        end_stream(r, &err);
    end_opening(r, &err);
    end_if_over(r);
}

static outr_op *step_op(resolver *r)
{
    outr_op_init(&r->op, r->loop, NULL, 0, on_step_done);
    return &r->op;
}

static resolver *of_steps(outr_steps *steps)
{
    return OUTR_CONTAINER(steps, resolver, steps);
}

static int step_login(outr_steps *steps)
{
    resolver *r = of_steps(steps);
    r->reading++;
    r->from.n = 0;
    r->revision = 0;
    r->has_more = true;
    outr_etcd_login(r->etcd, step_op(r));
    return outr_steps_wait(steps, READ);
}

static int step_read(outr_steps *steps)
{
    resolver *r = of_steps(steps);
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    if (r->op.err.code)
        return BROKEN;
    m.key = outr_proto_data(r->from.n > 0 ? outr_buf_view(&r->from) : r->prefix);
    m.range_end = outr_proto_data(r->end);
    m.limit = PAGE;
    m.revision = r->revision; /* all pages of one moment */
    r->call.path = OUTR_ETCD_PATH("KV", "Range");
    r->call.type = &etcdserverpb__range_response__descriptor;
    outr_etcd_call_start(r->etcd, &r->call, &m, step_op(r));
    return outr_steps_wait(steps, TAKE);
}

static void end_reading(resolver *r)
{
    bool is_own_there = false;
    place p;
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    char scratch[512];
    pthread_mutex_lock(&r->lock);
    drop_unseen(r);
    r->is_read = true;
    if (r->own_key.n > 0 && read_key(r, arena, outr_buf_view(&r->own_key), &p)) {
        const name *n = outr_map_get(r->names, name_key(scratch, &p));
        is_own_there = n && outr_map_get(n->entries, p.id);
    }
    pthread_mutex_unlock(&r->lock);
    outr_arena_free(arena);
    if (r->has_complained)
        OUTR_LOG(&r->log, INFO, "etcd is there", OUTR_Z("server", outr_etcd_server(r->etcd)));
    if (r->is_full)
        OUTR_LOG(&r->log, WARN, "there are more instances in etcd than can be known",
                 OUTR_I("known", (int64_t)ENTRIES_MAX));
    r->has_complained = r->is_full = false;
    outr_watchers_tell(r->base.watchers, OUTR_STR_NONE, OUTR_STR_NONE);
    if (r->own_key.n > 0) {
        r->wants_put |= !is_own_there;
        beat_now(r);
    }
    end_opening(r, &(outr_err){0});
}

static int step_take(outr_steps *steps)
{
    resolver *r = of_steps(steps);
    const Etcdserverpb__RangeResponse *answer = r->call.answer;
    if (r->op.err.code || !answer->header) {
        outr_etcd_call_done(&r->call);
        return BROKEN;
    }
    r->revision = answer->header->revision;
    for (size_t i = 0; i < answer->n_kvs; i++) {
        outr_str value = outr_proto_bytes(answer->kvs[i]->value);
        take(r, outr_proto_bytes(answer->kvs[i]->key), value.p ? value : OUTR_STR(""), false);
    }
    r->has_more = answer->more && answer->n_kvs > 0;
    if (r->has_more) {
        r->from.n = 0;
        outr_buf_str(&r->from, outr_proto_bytes(answer->kvs[answer->n_kvs - 1]->key));
        outr_buf_char(&r->from, 0);
    }
    outr_etcd_call_done(&r->call);
    if (r->has_more)
        return READ;
    end_reading(r);
    return WATCH;
}

static bool on_message(outr_grpc_stream *s, outr_str bytes)
{
    resolver *r = s->user;
    outr_arena *arena = outr_arena_new(ARENA_MAX);
    Etcdserverpb__WatchResponse *m;
    outr_err err;
    if (outr_proto_read(&m, arena, &etcdserverpb__watch_response__descriptor, bytes, &err)) {
        r->broken = err;
        outr_timer_start(r->loop, &r->overdue, outr_loop_now(r->loop));
    } else if (m->canceled) { /* what we have seen is older than etcd remembers, or no right */
        outr_fail(&r->broken, OUTR_UNAVAILABLE, "the watch was ended: %s", m->cancel_reason);
        outr_timer_start(r->loop, &r->overdue, outr_loop_now(r->loop));
    } else if (m->created) {
        r->pause_ns = 0;
        outr_timer_stop(r->loop, &r->overdue);
    }
    for (size_t i = 0; !r->broken.code && i < m->n_events; i++) {
        const Mvccpb__Event *event = m->events[i];
        if (!event->kv)
            continue;
        outr_str value = outr_proto_bytes(event->kv->value);
        bool is_end = event->type == MVCCPB__EVENT__EVENT_TYPE__DELETE;
        take(r, outr_proto_bytes(event->kv->key),
             is_end    ? OUTR_STR_NONE
             : value.p ? value
                       : OUTR_STR(""),
             true);
    }
    outr_arena_free(arena);
    return true;
}

static void on_overdue(outr_timer *timer)
{
    resolver *r = OUTR_CONTAINER(timer, resolver, overdue);
    outr_op_cancel(&r->op, OUTR_DEADLINE_EXCEEDED);
}

static int step_watch(outr_steps *steps)
{
    resolver *r = of_steps(steps);
    Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    create.key = outr_proto_data(r->prefix);
    create.range_end = outr_proto_data(r->end);
    create.start_revision = r->revision + 1;
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    m.create_request = &create;
    outr_err_clear(&r->broken);
    r->stream_arena = outr_arena_new(OUTR_MIB);
    r->stream = (outr_grpc_stream){.arena = r->stream_arena,
                                   .loop = r->loop,
                                   .max_bytes = MESSAGE_MAX,
                                   .on_message = on_message,
                                   .user = r};
    outr_timer_start(r->loop, &r->overdue, outr_loop_now(r->loop) + WATCH_NS);
    outr_etcd_stream_start(r->etcd, &r->stream, &r->http, OUTR_ETCD_PATH("Watch", "Watch"),
                           step_op(r));
    outr_grpc_stream_send(&r->stream, &m);
    return outr_steps_wait(steps, BROKEN);
}

static void end_stream(resolver *r, outr_err *err)
{
    outr_timer_stop(r->loop, &r->overdue);
    if (outr_grpc_stream_result(&r->stream, &r->op.err, err) == OUTR_OK)
        outr_fail(err, OUTR_UNAVAILABLE, "the watch has ended");
    if (r->broken.code)
        *err = r->broken;
    outr_wrap(err, "etcd");
    outr_arena_free(r->stream_arena);
    r->stream_arena = NULL;
}

static int step_broken(outr_steps *steps)
{
    resolver *r = of_steps(steps);
    outr_err err = r->op.err;
    if (r->stream_arena)
        end_stream(r, &err);
    else if (!err.code)
        outr_fail(&err, OUTR_UNAVAILABLE, "etcd: an answer without a head");
    pthread_mutex_lock(&r->lock);
    r->why = err;
    pthread_mutex_unlock(&r->lock);
    if (!r->has_complained)
        OUTR_LOG(&r->log, WARN, "etcd does not tell who is there, trying on",
                 OUTR_Z("server", outr_etcd_server(r->etcd)), OUTR_ERR(&err));
    r->has_complained = true;
    end_opening(r, &err);
    r->pause_ns = r->pause_ns ? OUTR_MIN(2 * r->pause_ns, AGAIN_LONGEST) : AGAIN_NS;
    uint64_t spread = outr_rand_below(outr_loop_rand(r->loop), r->pause_ns / 2 + 1);
    outr_sleep_start(outr_loop_now(r->loop) + r->pause_ns - spread, step_op(r));
    return outr_steps_wait(steps, PAUSE);
}

static int step_pause(outr_steps *steps OUTR_UNUSED)
{
    return LOGIN;
}

static const outr_step session_steps[] = {
    [LOGIN] = {"log in", step_login, TO(READ)},
    [READ] = {"read", step_read, TO(TAKE) | TO(BROKEN)},
    [TAKE] = {"take", step_take, TO(READ) | TO(WATCH) | TO(BROKEN)},
    [WATCH] = {"watch", step_watch, TO(BROKEN)},
    [BROKEN] = {"broken", step_broken, TO(PAUSE)},
    [PAUSE] = {"pause", step_pause, TO(LOGIN)},
};

/* ---- registration ---------------------------------------------------------------------------- */

static void call_lease(resolver *r, const char *path, const ProtobufCMessageDescriptor *type,
                       const void *message, outr_op_fn *done)
{
    r->lease_call.path = path;
    r->lease_call.type = type;
    outr_op_init(&r->lease_op, r->loop, NULL, 0, done);
    outr_etcd_call_start(r->etcd, &r->lease_call, message, &r->lease_op);
}

static uint64_t beat_ns(const resolver *r)
{
    return (uint64_t)r->c.ttl_ns / 3;
}

/* The end of a round, good or bad. */
static void end_beat(resolver *r, const outr_err *err)
{
    outr_op *op = r->joining;
    outr_err cancelled;
    r->joining = NULL;
    if (r->is_closing) {
        outr_fail(&cancelled, OUTR_CANCELLED, "the resolver was closed");
        if (op)
            outr_op_fail(op, &cancelled);
        end_if_over(r);
        return;
    }
    if (err && !r->lease_has_complained && !op)
        OUTR_LOG(&r->log, WARN, "registration with etcd fails, trying on", OUTR_ERR(err));
    r->lease_has_complained = err != NULL;
    uint64_t next = r->beats_again ? 0 : err ? OUTR_MIN(OUTR_SEC, beat_ns(r)) : beat_ns(r);
    r->beats_again = false;
    outr_timer_start(r->loop, &r->beat, outr_loop_now(r->loop) + next);
    if (op && err) {
        outr_err copy = *err;
        outr_op_fail(op, &copy);
    } else if (op) {
        outr_op_finish(op);
    }
}

static void on_put(outr_op *op)
{
    resolver *r = OUTR_CONTAINER(op, resolver, lease_op);
    outr_err err = op->err;
    outr_etcd_call_done(&r->lease_call);
    if (err.code == OUTR_NOT_FOUND) { /* the lease has ended meanwhile */
        r->lease = 0;
        r->beats_again = true;
    }
    r->wants_put = err.code != OUTR_OK;
    r->is_put |= !err.code;
    end_beat(r, err.code ? &err : NULL);
}

static void put(resolver *r)
{
    Etcdserverpb__PutRequest m = ETCDSERVERPB__PUT_REQUEST__INIT;
    m.key = outr_proto_data(outr_buf_view(&r->own_key));
    m.value = outr_proto_data(outr_buf_view(&r->own_value));
    m.lease = r->lease;
    call_lease(r, OUTR_ETCD_PATH("KV", "Put"), &etcdserverpb__put_response__descriptor, &m, on_put);
}

static void on_granted(outr_op *op)
{
    resolver *r = OUTR_CONTAINER(op, resolver, lease_op);
    const Etcdserverpb__LeaseGrantResponse *answer = r->lease_call.answer;
    outr_err err = op->err;
    if (!err.code && (answer->id == 0 || answer->error[0]))
        outr_fail(&err, OUTR_UNAVAILABLE, "etcd: no lease: %s", answer->error);
    r->lease = err.code ? 0 : answer->id;
    outr_etcd_call_done(&r->lease_call);
    if (err.code || r->is_closing)
        end_beat(r, &err);
    else
        put(r);
}

static void grant(resolver *r)
{
    Etcdserverpb__LeaseGrantRequest m = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    m.ttl = (r->c.ttl_ns + (int64_t)OUTR_SEC - 1) / (int64_t)OUTR_SEC;
    r->wants_put = true;
    call_lease(r, OUTR_ETCD_PATH("Lease", "LeaseGrant"),
               &etcdserverpb__lease_grant_response__descriptor, &m, on_granted);
}

static void on_kept(outr_op *op)
{
    resolver *r = OUTR_CONTAINER(op, resolver, lease_op);
    const Etcdserverpb__LeaseKeepAliveResponse *answer = r->lease_call.answer;
    outr_err err = op->err;
    bool has_ended = err.code == OUTR_NOT_FOUND || (!err.code && answer->ttl <= 0);
    outr_etcd_call_done(&r->lease_call);
    if (r->is_closing) {
        end_beat(r, NULL);
    } else if (has_ended) {
        r->lease = 0;
        grant(r);
    } else if (!err.code && r->wants_put) {
        put(r);
    } else {
        end_beat(r, err.code ? &err : NULL);
    }
}

static void on_beat(outr_timer *timer)
{
    resolver *r = OUTR_CONTAINER(timer, resolver, beat);
    Etcdserverpb__LeaseKeepAliveRequest m = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    if (outr_op_is_pending(&r->lease_op)) {
        r->beats_again = true;
        return;
    }
    if (r->lease == 0) {
        grant(r);
        return;
    }
    m.id = r->lease;
    call_lease(r, OUTR_ETCD_PATH("Lease", "LeaseKeepAlive"),
               &etcdserverpb__lease_keep_alive_response__descriptor, &m, on_kept);
}

static void beat_now(resolver *r)
{
    outr_timer_start(r->loop, &r->beat, outr_loop_now(r->loop));
}

static void write_own(resolver *r, const outr_self *self)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    char uuid[OUTR_UUID_LEN + 1], address[300];
    bool is_v6 = outr_str_find(self->host, ':') >= 0;
    outr_rand_uuid(outr_loop_rand(r->loop), uuid);
    snprintf(address, sizeof address, is_v6 ? "[" OUTR_FMT "]:%u" : OUTR_FMT ":%u",
             OUTR_ARG(self->host), self->internal_port);
    outr_buf_printf(&r->own_key, OUTR_FMT OUTR_FMT "/" OUTR_FMT "/%s", OUTR_ARG(r->prefix),
                    OUTR_ARG(outr_percent_encode(arena, self->namespace_, "")),
                    OUTR_ARG(outr_percent_encode(arena, self->app_id, "")), uuid);
    outr_buf_z(&r->own_value, "{\"address\":");
    outr_json_quote(&r->own_value, outr_str_from(address));
    if (self->labels.count > 0) {
        outr_buf_z(&r->own_value, ",\"labels\":");
        outr_json_quote_kvs(&r->own_value, self->labels);
    }
    outr_buf_char(&r->own_value, '}');
    outr_arena_free(arena);
}

static void join(outr_resolver *base, const outr_self *self, outr_op *op)
{
    resolver *r = of(base);
    write_own(r, self);
    r->joining = op;
    outr_op_begin(op, NULL, NULL);
    grant(r);
}

/* ---- questions; any loop --------------------------------------------------------------------- */

static void resolve(outr_resolver *base, outr_resolve *req, outr_op *op)
{
    resolver *r = of(base);
    const place who = {.app_id = req->app_id, .namespace_ = req->namespace_};
    char scratch[512];
    outr_err why = {0};
    void *item;
    outr_str id;
    req->count = 0;
    outr_op_begin(op, NULL, NULL);
    bool is_name = req->app_id.n <= 200 && req->namespace_.n <= 200;
    pthread_mutex_lock(&r->lock);
    const name *n = is_name ? outr_map_get(r->names, name_key(scratch, &who)) : NULL;
    size_t count = n ? OUTR_MIN(outr_map_count(n->entries), (size_t)OUTR_RESOLVE_MAX) : 0;
    req->instances = outr_arena_alloc(req->arena, (count + 1) * sizeof *req->instances);
    for (size_t at = 0; req->count < count && outr_map_next(n->entries, &at, &id, &item);) {
        const entry *e = item;
        outr_instance *out = &req->instances[req->count++];
        *out = (outr_instance){.addr = e->addr, .id = outr_arena_str(req->arena, id)};
        outr_labels_parse(&out->labels, req->arena, outr_str_of(e->labels, e->labels_n), NULL);
    }
    if (!r->is_read)
        why = r->why;
    pthread_mutex_unlock(&r->lock);
    if (why.code)
        why.code = OUTR_UNAVAILABLE; /* whatever it is, it is the registry's */
    if (why.code)
        outr_op_fail_soon(op, &why);
    else
        outr_op_finish_soon(op);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void free_resolver(resolver *r)
{
    outr_str key;
    void *item, *inner;
    for (size_t at = 0; outr_map_next(r->names, &at, &key, &item);) {
        name *n = item;
        for (size_t i = 0; outr_map_next(n->entries, &i, NULL, &inner);)
            free(inner);
        outr_map_free(n->entries);
        free(n);
    }
    outr_map_free(r->names);
    outr_etcd_call_done(&r->call);
    outr_etcd_call_done(&r->lease_call);
    if (r->stream_arena)
        outr_arena_free(r->stream_arena);
    outr_etcd_free(r->etcd);
    outr_buf_done(&r->from);
    outr_buf_done(&r->own_key);
    outr_buf_done(&r->own_value);
    pthread_mutex_destroy(&r->lock);
    outr_arena_free(r->arena);
    free(r);
}

static outr_code configure(resolver *r, outr_err *err)
{
    outr_etcd_options o = {.loop = r->loop,
                           .endpoints = r->c.endpoints,
                           .user = r->c.user,
                           .password = r->c.password,
                           .has_tls = r->c.has_tls,
                           .ca_pem = r->c.ca,
                           .cert_pem = r->c.cert,
                           .key_pem = r->c.key};
    if (outr_pem_read(r->arena, "ca", &o.ca_pem, err) ||
        outr_pem_read(r->arena, "cert", &o.cert_pem, err) ||
        outr_pem_read(r->arena, "key", &o.key_pem, err))
        return err->code;
    if ((o.cert_pem.n > 0) != (o.key_pem.n > 0))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "cert and key come together");
    outr_str prefix = r->c.prefix;
    while (outr_str_ends(prefix, OUTR_STR("/")))
        prefix = outr_str_head(prefix, prefix.n - 1);
    if (prefix.n == 0 || prefix.n > 500)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "keyPrefixPath: 1 to 500 bytes");
    r->prefix = outr_arena_join(r->arena, prefix, OUTR_STR("/"), OUTR_STR_NONE);
    r->end = outr_etcd_prefix_end(r->arena, r->prefix);
    return outr_etcd_new(&r->etcd, &o, err);
}

static outr_code create(outr_resolver **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    resolver *r = outr_alloc(sizeof *r);
    r->arena = outr_arena_new(8 * OUTR_MIB);
    r->loop = init->loop;
    r->log = init->log ? *init->log : (outr_log){0};
    r->names = outr_map_new();
    r->from = OUTR_BUF_MAX(OUTR_MIB);
    r->own_key = OUTR_BUF_MAX(8 * OUTR_KIB);
    r->own_value = OUTR_BUF_MAX(8 * OUTR_KIB);
    r->overdue.fire = on_overdue;
    r->beat.fire = on_beat;
    r->base.backend = &outr_nameresolution_etcd;
    outr_fail(&r->why, OUTR_UNAVAILABLE, "etcd: not asked yet");
    pthread_mutex_init(&r->lock, NULL);
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &r->c, init->metadata, &errors);
    if (rc)
        *err = errors.items[0];
    else
        rc = configure(r, err);
    if (rc) {
        free_resolver(r);
        return rc;
    }
    r->base.watchers = outr_watchers_new();
    *out = &r->base;
    return OUTR_OK;
}

static void open_resolver(outr_resolver *base, outr_op *op)
{
    resolver *r = of(base);
    r->opening = op;
    outr_op_begin(op, NULL, NULL);
    outr_steps_init(&r->steps, session_steps, LOGIN, NULL);
    outr_steps_run(&r->steps);
}

static void on_left(outr_op *lease_op)
{
    resolver *r = OUTR_CONTAINER(lease_op, resolver, lease_op);
    r->lease = 0;
    end_if_over(r);
}

static void leave(resolver *r)
{
    Etcdserverpb__LeaseRevokeRequest m = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    m.id = r->lease;
    r->lease_call.path = OUTR_ETCD_PATH("Lease", "LeaseRevoke");
    r->lease_call.type = &etcdserverpb__lease_revoke_response__descriptor;
    outr_etcd_call_done(&r->lease_call);
    outr_op_init(&r->lease_op, r->loop, NULL, outr_loop_now(r->loop) + LEAVE_NS, on_left);
    outr_etcd_call_start(r->etcd, &r->lease_call, &m, &r->lease_op);
}

static void end_if_over(resolver *r)
{
    if (r->is_held || outr_op_is_pending(&r->op) || outr_op_is_pending(&r->lease_op))
        return;
    if (r->lease) {
        leave(r);
        return;
    }
    outr_op *op = r->closing;
    free_resolver(r);
    outr_op_finish(op);
}

/* What is under way ends first; each may be the last. */
static void on_close(outr_deferred *deferred)
{
    resolver *r = OUTR_CONTAINER(deferred, resolver, closer);
    outr_op_cancel(&r->lease_op, OUTR_CANCELLED);
    outr_op_cancel(&r->op, OUTR_CANCELLED);
    r->is_held = false;
    end_if_over(r);
}

static void close_resolver(outr_resolver *base, outr_op *op)
{
    resolver *r = of(base);
    outr_watchers_close(r->base.watchers);
    r->closing = op;
    r->is_closing = r->is_held = true;
    r->closer = (outr_deferred){.run = on_close};
    outr_op_begin(op, r, NULL);
    outr_timer_stop(r->loop, &r->beat);
    outr_loop_defer(r->loop, &r->closer);
}

const outr_resolver_backend outr_nameresolution_etcd = {
    .base = {"nameresolution.etcd", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_resolver,
    .close = close_resolver,
    .join = join,
    .resolve = resolve,
    .may_be_away = true,
    .cache_ns = 10 * OUTR_SEC, /* etcd tells of changes */
};
