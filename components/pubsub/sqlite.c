/* The embedded broker: one SQLite file shared by all sidecars of a machine.
 *
 * Publishing writes the message and one delivery row per consumer group of its topic, in one commit
 * for everything that queued up. A consumer claims due rows under a lease that it renews while it
 * works; a sidecar that dies loses its leases and another takes over: at least once. A row goes
 * when its
 * group has settled it, a message when its last row went. A message nobody has a group for yet
 * waits for the first group until it is older than `retention`.
 *
 * Who commits touches <file>-wake; inotify on it wakes every consumer of the machine at once,
 * without polling. All database work is the worker's. */
#include "components/common/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "components/pubsub.h"
#include "loop/fd_watch.h"
#include "loop/worker.h"

typedef struct config {
    outr_str connection, consumer;
    int64_t busy_ns, lease_ns, redeliver_ns, max_redeliver_ns, retention_ns, max_messages;
} config;

static const outr_bind_row rows[] = {
    {"connectionString", NULL, OUTR_BIND_STR, 0, offsetof(config, connection), 0, 0, NULL, NULL, 0,
     "database file or URI; default: pubsub.db in the runtime directory"},
    {"consumerID", "consumerId", OUTR_BIND_STR, 0, offsetof(config, consumer), 0, 0, NULL, NULL, 0,
     "consumer group; default: the app id"},
    {"busyTimeout", NULL, OUTR_BIND_DURATION, 0, offsetof(config, busy_ns), 0, 0, "5s", NULL,
     1000000, "how long to wait on a locked database"},
    {"leaseDuration", NULL, OUTR_BIND_DURATION, 0, offsetof(config, lease_ns), 1000000000,
     INT64_MAX, "15s", NULL, 1000000000,
     "a consumer that stops renewing loses its messages after this"},
    {"redeliverInterval", NULL, OUTR_BIND_DURATION, 0, offsetof(config, redeliver_ns), 1000000,
     INT64_MAX, "1s", NULL, 1000000000, "pause before a failed message comes again; doubles"},
    {"maxRedeliverInterval", NULL, OUTR_BIND_DURATION, 0, offsetof(config, max_redeliver_ns),
     1000000, INT64_MAX, "60s", NULL, 1000000000, "cap of that pause"},
    {"retention", NULL, OUTR_BIND_DURATION, 0, offsetof(config, retention_ns), 0, 0, "168h", NULL,
     1000000000, "messages older than this are dropped; 0: never"},
    {"maxMessages", NULL, OUTR_BIND_I64, 0, offsetof(config, max_messages), 1, INT64_MAX, "1000000",
     NULL, 0, "undelivered messages held; publishing fails beyond"},
};

#define BATCH_MAX     256
#define SWEEP_NS      (60 * OUTR_SEC)
#define DATA_MAX_JSON (4 * OUTR_MIB)

typedef struct broker broker;
typedef enum what { OPEN, PUBLISH, GROUP, CLAIM, SETTLE, RENEW, SWEEP, CLOSE } what;

typedef struct message_row {
    outr_message_in msg;
    int64_t seq;
    outr_broker_sub *sub;
    outr_arena *arena;
    bool is_expired;
    bool is_ordered; /* others may wait for it */
} message_row;

struct outr_broker_sub {
    broker *broker;
    outr_subscribe req;
    char *topic;
    outr_link link;             /* main list, under the broker's lock */
    size_t unsettled, settling; /* loop only */
    bool is_paused, is_claiming, has_more, is_closing, is_grouped;
    outr_op *closing;
    outr_deferred pump;
    outr_timer due;
    outr_message wake;
    uint8_t wake_posted; /* atomic */
};

typedef struct job {
    outr_work work;
    what what;
    broker *b;
    outr_op *op;
    outr_op inner;
    outr_publish *publish;
    outr_broker_sub *sub;
    size_t want;
    message_row **claimed;
    size_t claimed_count, found; /* found: expired ones as well */
    int64_t next_due_ms;
    int64_t seq;
    outr_settlement how;
    uint32_t attempt;
    bool is_ordered;
} job;

struct broker {
    outr_broker base;
    config c;
    char *connection, *consumer, *wake_path, owner[OUTR_UUID_LEN + 1];
    outr_worker *worker;
    sqlite3 *db;
    sqlite3_stmt *put, *fan_out, *span, *count, *add_group, *backfill, *claim, *lease, *ack, *drop,
        *ack_message, *retry, *renew, *expire_rows, *expire, *next_due;
    outr_loop *loop;
    const outr_log *log;
    outr_timer renewer, sweeper;
    job *renewing, *sweeping;
    /* A lock: subscriptions come and go rarely, on any loop; the main loop wakes them. */
    pthread_mutex_t lock;
    outr_list subs;
    outr_fd_watch touched; /* inotify on wake_path */
};

static broker *of(outr_broker *base)
{
    return OUTR_CONTAINER(base, broker, base);
}

/* The wall clock, not a loop's: processes share the file. */
static int64_t now_ms(const broker *b)
{
    outr_env *env = outr_loop_env(b->loop);
    return env->unix_ns(env) / (int64_t)OUTR_MS;
}

/* ---- on the worker: schema ------------------------------------------------------------------- */

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS messages (seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT "
    "NULL, data BLOB NOT NULL, content_type TEXT NOT NULL,"
    " metadata TEXT NOT NULL, published_ms INTEGER NOT NULL, expires_ms INTEGER, ordering_key "
    "TEXT);"
    "CREATE INDEX IF NOT EXISTS messages_topic ON messages (topic, seq);"
    "CREATE TABLE IF NOT EXISTS groups (name TEXT NOT NULL, topic TEXT NOT NULL, PRIMARY KEY "
    "(name, topic)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS deliveries (grp TEXT NOT NULL, topic TEXT NOT NULL, seq INTEGER "
    "NOT NULL, due_ms INTEGER NOT NULL DEFAULT 0,"
    " lease_ms INTEGER NOT NULL DEFAULT 0, owner TEXT, attempt INTEGER NOT NULL DEFAULT 0, "
    "ordering_key TEXT, PRIMARY KEY (grp, topic, seq)) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS deliveries_seq ON deliveries (seq);"
    "CREATE INDEX IF NOT EXISTS deliveries_owner ON deliveries (owner) WHERE owner IS NOT NULL";

/* With an ordering key a message waits until the earlier ones of its key are settled. */
static const struct {
    size_t offset;
    const char *sql;
} statements[] = {
    {offsetof(broker, put),
     "INSERT INTO messages (topic, data, content_type, metadata, published_ms, expires_ms, "
     "ordering_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"},
    {offsetof(broker, fan_out), "INSERT INTO deliveries (grp, topic, seq, ordering_key) SELECT "
                                "name, topic, ?1, ?3 FROM groups WHERE topic = ?2"},
    {offsetof(broker, span), "SELECT max(seq) - min(seq) + 1 FROM messages"},
    {offsetof(broker, count), "SELECT count(*) FROM messages"},
    {offsetof(broker, add_group), "INSERT OR IGNORE INTO groups (name, topic) VALUES (?1, ?2)"},
    {offsetof(broker, backfill),
     "INSERT OR IGNORE INTO deliveries (grp, topic, seq, ordering_key) SELECT ?1, topic, seq, "
     "ordering_key FROM messages WHERE topic = ?2"},
    {offsetof(broker, claim),
     "SELECT d.seq, m.data, m.content_type, m.metadata, d.attempt, m.expires_ms <= ?3, "
     "d.ordering_key IS NOT NULL FROM deliveries d JOIN messages m ON m.seq = d.seq"
     " WHERE d.grp = ?1 AND d.topic = ?2 AND d.due_ms <= ?3 AND d.lease_ms <= ?3"
     " AND (d.ordering_key IS NULL OR NOT EXISTS (SELECT 1 FROM deliveries e WHERE e.grp = d.grp "
     "AND e.topic = d.topic AND e.ordering_key = d.ordering_key AND e.seq < d.seq))"
     " ORDER BY d.seq LIMIT ?4"},
    {offsetof(broker, lease), "UPDATE deliveries SET lease_ms = ?4, owner = ?5, attempt = attempt "
                              "+ 1 WHERE grp = ?1 AND topic = ?2 AND seq = ?3"},
    {offsetof(broker, ack),
     "DELETE FROM deliveries WHERE grp = ?1 AND topic = ?2 AND seq = ?3 AND owner = ?4"},
    {offsetof(broker, drop), "DELETE FROM deliveries WHERE grp = ?1 AND topic = ?2 AND seq = ?3"},
    {offsetof(broker, ack_message), "DELETE FROM messages WHERE seq = ?1 AND NOT EXISTS (SELECT 1 "
                                    "FROM deliveries WHERE seq = ?1)"},
    {offsetof(broker, retry),
     "UPDATE deliveries SET lease_ms = 0, owner = NULL, due_ms = ?4, attempt = attempt - ?6 WHERE "
     "grp = ?1 AND topic = ?2 AND seq = ?3 AND owner = ?5"},
    {offsetof(broker, renew), "UPDATE deliveries SET lease_ms = ?1 WHERE owner = ?2"},
    {offsetof(broker, expire_rows),
     "DELETE FROM deliveries WHERE lease_ms <= ?1 AND seq IN (SELECT seq FROM messages WHERE "
     "(expires_ms IS NOT NULL AND expires_ms <= ?1) OR published_ms < ?2)"},
    {offsetof(broker, expire),
     "DELETE FROM messages WHERE ((expires_ms IS NOT NULL AND expires_ms <= ?1) OR published_ms < "
     "?2) AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.seq = messages.seq)"},
    {offsetof(broker, next_due),
     "SELECT min(max(d.due_ms, d.lease_ms)) FROM deliveries d WHERE d.grp = ?1 AND d.topic = ?2"
     " AND (d.ordering_key IS NULL OR NOT EXISTS (SELECT 1 FROM deliveries e WHERE e.grp = d.grp "
     "AND e.topic = d.topic AND e.ordering_key = d.ordering_key AND e.seq < d.seq))"},
};

static sqlite3_stmt **statement(broker *b, size_t i)
{
    return (sqlite3_stmt **)(void *)((char *)b + statements[i].offset);
}

static outr_code do_open(broker *b, outr_err *err)
{
    const outr_sqlite_options o = {
        .connection = b->c.connection, .busy_timeout_ns = b->c.busy_ns, .is_durable = true};
    outr_code rc = outr_sqlite_open(&b->db, &o, err);
    if (!rc)
        rc = outr_sqlite_exec(b->db, schema, err);
    for (size_t i = 0; i < OUTR_LEN(statements) && !rc; i++)
        rc = outr_sqlite_prepare(b->db, statement(b, i), statements[i].sql, err);
    return rc;
}

static void do_close(broker *b)
{
    for (size_t i = 0; i < OUTR_LEN(statements); i++)
        sqlite3_finalize(*statement(b, i));
    outr_sqlite_close(b->db);
    b->db = NULL;
}

/* ---- on the worker: work --------------------------------------------------------------------- */

static outr_code put_message(broker *b, outr_str topic, const outr_publish_item *item, int64_t now,
                             outr_err *err)
{
    OUTR_AUTO(outr_buf) metadata = OUTR_BUF_MAX(DATA_MAX_JSON);
    const outr_kv *ttl = outr_kvs_find(item->metadata, "ttlInSeconds"),
                  *key = outr_kvs_find(item->metadata, "partitionKey");
    int64_t seconds;
    outr_json_quote_kvs(&metadata, item->metadata);
    outr_sqlite_bind(b->put, 1, topic);
    sqlite3_bind_blob(b->put, 2, item->data.p ? item->data.p : "", (int)item->data.n,
                      SQLITE_STATIC);
    outr_sqlite_bind(b->put, 3, item->content_type);
    outr_sqlite_bind(b->put, 4, outr_buf_view(&metadata));
    sqlite3_bind_int64(b->put, 5, now);
    if (ttl && outr_str_to_i64(ttl->value, 1, INT32_MAX, &seconds))
        sqlite3_bind_int64(b->put, 6, now + seconds * 1000);
    else
        sqlite3_bind_null(b->put, 6);
    if (key)
        outr_sqlite_bind(b->put, 7, key->value);
    else
        sqlite3_bind_null(b->put, 7);
    outr_code rc = outr_sqlite_run(b->db, b->put, err);
    if (rc)
        return rc;
    sqlite3_bind_int64(b->fan_out, 1, sqlite3_last_insert_rowid(b->db));
    outr_sqlite_bind(b->fan_out, 2, topic);
    if (key)
        outr_sqlite_bind(b->fan_out, 3, key->value);
    else
        sqlite3_bind_null(b->fan_out, 3);
    return outr_sqlite_run(b->db, b->fan_out, err);
}

static int64_t number_of(sqlite3_stmt *stmt)
{
    int64_t n = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_reset(stmt);
    return n;
}

static outr_code do_publish(broker *b, job *j, outr_err *err)
{
    int64_t now = now_ms(b), room = b->c.max_messages - (int64_t)j->publish->count;
    /* Counting reads the whole table; the span of the keys is never less and costs two lookups. */
    int64_t held = number_of(b->span);
    if (held > room && (held = number_of(b->count)) > room)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED,
                         "the broker holds %lld messages, its limit (maxMessages)",
                         (long long)held);
    outr_code code = OUTR_OK;
    for (size_t i = 0; i < j->publish->count && !code; i++)
        code = put_message(b, j->publish->topic, &j->publish->items[i], now, err);
    return code;
}

static outr_code do_group(broker *b, const outr_broker_sub *sub, outr_err *err)
{
    outr_sqlite_bind(b->add_group, 1, outr_str_from(b->consumer));
    outr_sqlite_bind(b->add_group, 2, outr_str_from(sub->topic));
    outr_code rc = outr_sqlite_run(b->db, b->add_group, err);
    if (rc || sqlite3_changes(b->db) == 0)
        return rc;
    outr_sqlite_bind(b->backfill, 1, outr_str_from(b->consumer));
    outr_sqlite_bind(b->backfill, 2, outr_str_from(sub->topic));
    return outr_sqlite_run(b->db, b->backfill, err);
}

static outr_kvs read_metadata(outr_arena *arena, outr_str text)
{
    outr_json *root;
    if (outr_json_parse(&root, arena, text, NULL) || root->kind != OUTR_JSON_OBJECT)
        return (outr_kvs){0};
    outr_kv *items = outr_arena_alloc(arena, (root->count + 1) * sizeof *items);
    size_t n = 0;
    for (const outr_json *m = root->child; m; m = m->next)
        items[n++] = (outr_kv){m->key, m->text};
    return (outr_kvs){items, n};
}

static message_row *take_row(broker *b, outr_broker_sub *sub)
{
    outr_arena *arena = outr_arena_new(64 * OUTR_MIB);
    message_row *row = outr_arena_alloc(arena, sizeof *row);
    const void *data = sqlite3_column_blob(b->claim, 1);
    row->arena = arena;
    row->sub = sub;
    row->seq = sqlite3_column_int64(b->claim, 0);
    row->msg.topic = outr_str_from(sub->topic);
    row->msg.data =
        outr_arena_str(arena, outr_str_of(data, (size_t)sqlite3_column_bytes(b->claim, 1)));
    row->msg.content_type = outr_arena_str(arena, outr_sqlite_text(b->claim, 2));
    row->msg.metadata = read_metadata(arena, outr_arena_str(arena, outr_sqlite_text(b->claim, 3)));
    row->is_expired = sqlite3_column_int(b->claim, 5);
    row->is_ordered = sqlite3_column_int(b->claim, 6);
    row->msg.attempt = (uint32_t)sqlite3_column_int(b->claim, 4) + 1;
    row->msg.id = outr_arena_printf(arena, "%lld", (long long)row->seq);
    row->msg.broker_data = row;
    return row;
}

static void bind_delivery(sqlite3_stmt *stmt, const broker *b, const outr_broker_sub *sub,
                          int64_t seq)
{
    outr_sqlite_bind(stmt, 1, outr_str_from(b->consumer));
    outr_sqlite_bind(stmt, 2, outr_str_from(sub->topic));
    sqlite3_bind_int64(stmt, 3, seq);
}

static outr_code drop_row(broker *b, const message_row *row, outr_err *err)
{
    bind_delivery(b->drop, b, row->sub, row->seq);
    outr_code rc = outr_sqlite_run(b->db, b->drop, err);
    sqlite3_bind_int64(b->ack_message, 1, row->seq);
    return rc ? rc : outr_sqlite_run(b->db, b->ack_message, err);
}

static outr_code lease_row(broker *b, const message_row *row, int64_t until_ms, outr_err *err)
{
    bind_delivery(b->lease, b, row->sub, row->seq);
    sqlite3_bind_int64(b->lease, 4, until_ms);
    outr_sqlite_bind(b->lease, 5, outr_str_from(b->owner));
    return outr_sqlite_run(b->db, b->lease, err);
}

static outr_code do_claim(broker *b, job *j, outr_err *err)
{
    outr_broker_sub *sub = j->sub;
    int64_t now = now_ms(b);
    outr_code rc = sub->is_grouped ? OUTR_OK : do_group(b, sub, err);
    if (rc)
        return rc;
    sub->is_grouped = true;
    outr_sqlite_bind(b->claim, 1, outr_str_from(b->consumer));
    outr_sqlite_bind(b->claim, 2, outr_str_from(sub->topic));
    sqlite3_bind_int64(b->claim, 3, now);
    sqlite3_bind_int64(b->claim, 4, (int64_t)j->want);
    j->claimed = outr_alloc((j->want + 1) * sizeof *j->claimed);
    int step;
    while ((step = sqlite3_step(b->claim)) == SQLITE_ROW)
        j->claimed[j->claimed_count++] = take_row(b, sub);
    rc = step == SQLITE_DONE ? OUTR_OK : outr_sqlite_fail(b->db, err, "claim");
    sqlite3_reset(b->claim);
    size_t kept = 0;
    j->found = j->claimed_count;
    for (size_t i = 0; i < j->found; i++) {
        message_row *row = j->claimed[i];
        if (row->is_expired) {
            rc = rc ? rc : drop_row(b, row, err);
            outr_arena_free(row->arena);
            continue;
        }
        j->claimed[kept++] = row;
        rc = rc ? rc : lease_row(b, row, now + b->c.lease_ns / (int64_t)OUTR_MS, err);
    }
    j->claimed_count = kept;
    if (j->found == j->want) /* the next claim follows at once; what else there is may be much */
        return rc;
    outr_sqlite_bind(b->next_due, 1, outr_str_from(b->consumer));
    outr_sqlite_bind(b->next_due, 2, outr_str_from(sub->topic));
    if (sqlite3_step(b->next_due) == SQLITE_ROW &&
        sqlite3_column_type(b->next_due, 0) != SQLITE_NULL)
        j->next_due_ms = OUTR_MAX(sqlite3_column_int64(b->next_due, 0) - now, 1);
    sqlite3_reset(b->next_due);
    return rc;
}

static outr_code do_settle(broker *b, const job *j, outr_err *err)
{
    sqlite3_stmt *stmt = j->how == OUTR_SETTLE_ACK ? b->ack : b->retry;
    bind_delivery(stmt, b, j->sub, j->seq);
    if (j->how == OUTR_SETTLE_ACK) {
        outr_sqlite_bind(stmt, 4, outr_str_from(b->owner));
        outr_code rc = outr_sqlite_run(b->db, stmt, err);
        sqlite3_bind_int64(b->ack_message, 1, j->seq);
        return rc ? rc : outr_sqlite_run(b->db, b->ack_message, err);
    }
    int64_t pause_ms = 0;
    if (j->how == OUTR_SETTLE_RETRY) {
        unsigned doubled = OUTR_MIN(j->attempt > 0 ? j->attempt - 1 : 0, 20u);
        pause_ms = OUTR_MIN(b->c.redeliver_ns << doubled, b->c.max_redeliver_ns) / (int64_t)OUTR_MS;
    }
    sqlite3_bind_int64(stmt, 4, now_ms(b) + pause_ms);
    outr_sqlite_bind(stmt, 5, outr_str_from(b->owner));
    sqlite3_bind_int64(stmt, 6, j->how == OUTR_SETTLE_RELEASE);
    return outr_sqlite_run(b->db, stmt, err);
}

static outr_code do_renew(broker *b, outr_err *err)
{
    sqlite3_bind_int64(b->renew, 1, now_ms(b) + b->c.lease_ns / (int64_t)OUTR_MS);
    outr_sqlite_bind(b->renew, 2, outr_str_from(b->owner));
    return outr_sqlite_run(b->db, b->renew, err);
}

static outr_code do_sweep(broker *b, outr_err *err)
{
    int64_t now = now_ms(b),
            oldest = b->c.retention_ns > 0 ? now - b->c.retention_ns / (int64_t)OUTR_MS : INT64_MIN;
    sqlite3_stmt *both[] = {b->expire_rows, b->expire};
    outr_code rc = OUTR_OK;
    for (size_t i = 0; i < OUTR_LEN(both) && !rc; i++) {
        sqlite3_bind_int64(both[i], 1, now);
        sqlite3_bind_int64(both[i], 2, oldest);
        rc = outr_sqlite_run(b->db, both[i], err);
    }
    return rc;
}

static outr_code do_job(broker *b, job *j)
{
    outr_err *err = &j->work.err;
    switch (j->what) {
    case PUBLISH:
        return do_publish(b, j, err);
    case GROUP:
        return do_group(b, j->sub, err);
    case CLAIM:
        return do_claim(b, j, err);
    case SETTLE:
        return do_settle(b, j, err);
    case RENEW:
        return do_renew(b, err);
    case SWEEP:
        return do_sweep(b, err);
    default:
        return OUTR_OK;
    }
}

static void touch(const broker *b)
{
    int fd = open(b->wake_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return; /* consumers still look when leases and pauses end */
    futimens(fd, NULL);
    close(fd);
}

static void drop_claims(job *j)
{
    for (size_t i = 0; i < j->claimed_count; i++)
        outr_arena_free(j->claimed[i]->arena);
    j->claimed_count = 0;
}

/* A run of ordinary jobs: one transaction, a savepoint each. */
static void run_batch(broker *b, outr_work **items, size_t count)
{
    outr_err err = {0};
    bool has_news = false;
    outr_code rc = outr_sqlite_exec(b->db, "BEGIN IMMEDIATE", &err);
    for (size_t i = 0; i < count && !rc; i++) {
        job *j = OUTR_CONTAINER(items[i], job, work);
        outr_sqlite_exec(b->db, "SAVEPOINT j", NULL);
        if (do_job(b, j))
            outr_sqlite_exec(b->db, "ROLLBACK TO j", NULL);
        else
            has_news |= (j->what == PUBLISH && j->publish->count > 0) ||
                        (j->what == SETTLE && (j->how != OUTR_SETTLE_ACK || j->is_ordered));
        outr_sqlite_exec(b->db, "RELEASE j", NULL);
    }
    if (!rc && (rc = outr_sqlite_exec(b->db, "COMMIT", &err)))
        outr_sqlite_exec(b->db, "ROLLBACK", NULL);
    for (size_t i = 0; i < count && rc; i++)
        OUTR_CONTAINER(items[i], job, work)->work.err = err;
    for (size_t i = 0; i < count; i++) {
        if (items[i]->err.code)
            drop_claims(OUTR_CONTAINER(items[i], job, work));
    }
    if (!rc && has_news)
        touch(b);
}

static void handle(void *ctx, outr_work **items, size_t count)
{
    broker *b = ctx;
    for (size_t i = 0; i < count;) {
        job *j = OUTR_CONTAINER(items[i], job, work);
        size_t n = 0;
        if (j->what == OPEN) {
            do_open(b, &j->work.err);
        } else if (j->what == CLOSE) {
            do_close(b);
        } else {
            while (i + n < count && OUTR_CONTAINER(items[i + n], job, work)->what != OPEN &&
                   OUTR_CONTAINER(items[i + n], job, work)->what != CLOSE)
                n++;
            run_batch(b, items + i, n);
        }
        i += OUTR_MAX(n, (size_t)1);
    }
}

/* ---- wake-up --------------------------------------------------------------------------------- */

static void on_wake(outr_message *message, outr_loop *loop)
{
    outr_broker_sub *sub = OUTR_CONTAINER(message, outr_broker_sub, wake);
    __atomic_store_n(&sub->wake_posted, 0, __ATOMIC_RELEASE);
    sub->has_more = true;
    outr_loop_defer(loop, &sub->pump);
}

static void wake_all(broker *b)
{
    pthread_mutex_lock(&b->lock);
    OUTR_LIST_EACH(link, &b->subs) {
        outr_broker_sub *sub = OUTR_LIST_ITEM(link, outr_broker_sub, link);
        if (__atomic_exchange_n(&sub->wake_posted, 1, __ATOMIC_ACQ_REL) == 0)
            outr_loop_post(sub->req.loop, &sub->wake);
    }
    pthread_mutex_unlock(&b->lock);
}

static void on_touched(outr_fd_watch *watch)
{
    char events[4096] __attribute__((aligned(8)));
    if (read(watch->fd, events, sizeof events) > 0)
        wake_all(OUTR_CONTAINER(watch, broker, touched));
}

static outr_code start_watching(broker *b, outr_err *err)
{
    touch(b);
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    b->touched.fd = fd;
    if (fd < 0 || inotify_add_watch(fd, b->wake_path, IN_ATTRIB | IN_MODIFY) < 0)
        return outr_fail_errno(err, errno, "watching %s", b->wake_path);
    return outr_fd_watch_start(&b->touched, b->loop, err);
}

static void stop_watching(broker *b)
{
    outr_fd_watch_stop(&b->touched);
    if (b->touched.fd >= 0)
        close(b->touched.fd);
}

/* ---- on the loops ---------------------------------------------------------------------------- */

static void free_broker(broker *b)
{
    stop_watching(b);
    outr_worker_close(b->worker);
    pthread_mutex_destroy(&b->lock);
    free(b->connection);
    free(b->consumer);
    free(b->wake_path);
    free(b);
}

static void end_if_closed(outr_broker_sub *sub)
{
    if (!sub->is_closing || sub->unsettled > 0 || sub->settling > 0 || sub->is_claiming ||
        __atomic_load_n(&sub->wake_posted, __ATOMIC_ACQUIRE))
        return;
    outr_op *op = sub->closing;
    outr_loop_undefer(&sub->pump);
    outr_timer_stop(sub->req.loop, &sub->due);
    free(sub->topic);
    free(sub);
    outr_op_finish(op);
}

static void settle(outr_broker_sub *sub, outr_message_in *msg, outr_settlement how);

static void on_claimed(job *j, const outr_err *err)
{
    outr_broker_sub *sub = j->sub;
    uint64_t now = outr_loop_now(sub->req.loop);
    sub->is_claiming = false;
    if (err->code) {
        OUTR_LOG(j->b->log, WARN, "messages could not be read, trying again",
                 OUTR_Z("topic", sub->topic), OUTR_ERR(err));
        outr_timer_start(sub->req.loop, &sub->due, now + OUTR_SEC);
    } else {
        sub->has_more |= j->found == j->want || j->found > j->claimed_count;
        if (j->next_due_ms > 0)
            outr_timer_start(sub->req.loop, &sub->due, now + (uint64_t)j->next_due_ms * OUTR_MS);
    }
    for (size_t i = 0; i < j->claimed_count; i++) {
        sub->unsettled++;
        if (sub->is_closing || sub->is_paused)
            settle(sub, &j->claimed[i]->msg, OUTR_SETTLE_RELEASE);
        else
            sub->req.on_message(sub->req.ctx, &j->claimed[i]->msg);
    }
    free(j->claimed);
    outr_loop_defer(sub->req.loop, &sub->pump);
}

static void on_done(outr_op *inner)
{
    job *j = OUTR_CONTAINER(inner, job, inner);
    broker *b = j->b;
    outr_op *op = j->op;
    outr_err err = inner->err;
    switch (j->what) {
    case CLAIM:
        on_claimed(j, &err);
        break;
    case SETTLE:
        if (err.code) /* the lease runs out and the message comes again */
            OUTR_LOG(b->log, WARN, "a message could not be settled", OUTR_ERR(&err));
        j->sub->settling--;
        j->sub->has_more |= j->is_ordered; /* the next of its key */
        outr_loop_defer(j->sub->req.loop, &j->sub->pump);
        break;
    case RENEW:
        b->renewing = NULL;
        break;
    case SWEEP:
        b->sweeping = NULL;
        break;
    case OPEN:
        if (!err.code)
            start_watching(b, &err);
        break;
    case CLOSE:
        free_broker(b);
        break;
    default:
        break;
    }
    free(j);
    if (!op)
        return;
    if (err.code)
        outr_op_fail(op, &err);
    else
        outr_op_finish(op);
}

static job *submit(broker *b, outr_loop *loop, const job *from, outr_op *op)
{
    job *j = outr_alloc(sizeof *j);
    *j = *from;
    j->b = b;
    j->op = op;
    if (op)
        outr_op_begin(op, j, NULL);
    outr_op_init(&j->inner, loop, NULL, 0, on_done);
    outr_worker_submit(b->worker, &j->work, &j->inner);
    return j;
}

static void on_pump(outr_deferred *deferred)
{
    outr_broker_sub *sub = OUTR_CONTAINER(deferred, outr_broker_sub, pump);
    if (sub->is_closing) {
        end_if_closed(sub);
        return;
    }
    if (sub->is_paused || sub->is_claiming || !sub->has_more || sub->unsettled >= sub->req.credit)
        return;
    sub->has_more = false;
    sub->is_claiming = true;
    submit(sub->broker, sub->req.loop,
           &(job){.what = CLAIM,
                  .sub = sub,
                  .want = OUTR_MIN(sub->req.credit - sub->unsettled, (size_t)BATCH_MAX)},
           NULL);
}

static void on_due(outr_timer *timer)
{
    outr_broker_sub *sub = OUTR_CONTAINER(timer, outr_broker_sub, due);
    sub->has_more = true;
    outr_loop_defer(sub->req.loop, &sub->pump);
}

static void settle(outr_broker_sub *sub, outr_message_in *msg, outr_settlement how)
{
    message_row *row = msg->broker_data;
    sub->unsettled--;
    sub->settling++;
    submit(sub->broker, sub->req.loop,
           &(job){.what = SETTLE,
                  .sub = sub,
                  .seq = row->seq,
                  .how = how,
                  .attempt = msg->attempt,
                  .is_ordered = row->is_ordered},
           NULL);
    outr_arena_free(row->arena);
    outr_loop_defer(sub->req.loop, &sub->pump);
}

static void pause_sub(outr_broker_sub *sub, bool is_paused)
{
    sub->is_paused = is_paused;
    sub->has_more |= !is_paused;
    outr_loop_defer(sub->req.loop, &sub->pump);
}

static outr_code subscribe(outr_broker *base, const outr_subscribe *req, outr_broker_sub **out,
                           outr_err *err OUTR_UNUSED)
{
    broker *b = of(base);
    outr_broker_sub *sub = outr_alloc(sizeof *sub);
    sub->broker = b;
    sub->req = *req;
    sub->topic = outr_str_dup(req->topic);
    sub->has_more = true;
    sub->pump.run = on_pump;
    sub->due.fire = on_due;
    sub->wake.run = on_wake;
    pthread_mutex_lock(&b->lock);
    outr_list_push(&b->subs, &sub->link);
    pthread_mutex_unlock(&b->lock);
    outr_loop_defer(req->loop, &sub->pump);
    *out = sub;
    return OUTR_OK;
}

static void unsubscribe(outr_broker_sub *sub, outr_op *op)
{
    pthread_mutex_lock(&sub->broker->lock);
    outr_link_remove(&sub->link);
    pthread_mutex_unlock(&sub->broker->lock);
    outr_op_begin(op, sub, NULL);
    sub->is_closing = true;
    sub->closing = op;
    outr_loop_defer(sub->req.loop, &sub->pump);
}

static void publish(outr_broker *base, outr_publish *req, outr_op *op)
{
    submit(of(base), op->loop, &(job){.what = PUBLISH, .publish = req}, op);
}

static void on_renew(outr_timer *timer)
{
    broker *b = OUTR_CONTAINER(timer, broker, renewer);
    outr_timer_start(b->loop, timer, outr_loop_now(b->loop) + (uint64_t)b->c.lease_ns / 3);
    pthread_mutex_lock(&b->lock);
    bool has_subs = !outr_list_is_empty(&b->subs);
    pthread_mutex_unlock(&b->lock);
    if (has_subs && !b->renewing)
        b->renewing = submit(b, b->loop, &(job){.what = RENEW}, NULL);
}

static void on_sweep(outr_timer *timer)
{
    broker *b = OUTR_CONTAINER(timer, broker, sweeper);
    outr_timer_start(b->loop, timer, outr_loop_now(b->loop) + SWEEP_NS);
    if (!b->sweeping)
        b->sweeping = submit(b, b->loop, &(job){.what = SWEEP}, NULL);
}

extern const outr_pubsub_backend outr_pubsub_sqlite;

static outr_code create(outr_broker **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    broker *b = outr_alloc(sizeof *b);
    const outr_worker_options worker = {.name = "outr-broker", .handle = handle, .ctx = b};
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &b->c, init->metadata, &errors);
    if (rc)
        *err = errors.items[0];
    else
        rc = outr_worker_open(&b->worker, &worker, err);
    if (rc) {
        free(b);
        return rc;
    }
    char path[512];
    snprintf(path, sizeof path, OUTR_FMT "/pubsub.db", OUTR_ARG(init->run_dir));
    b->base.backend = &outr_pubsub_sqlite;
    b->connection = b->c.connection.n ? outr_str_dup(b->c.connection) : outr_strdup(path);
    b->c.connection = outr_str_from(b->connection);
    b->consumer = outr_str_dup(b->c.consumer.n ? b->c.consumer : init->app_id);
    outr_str file = outr_str_starts(b->c.connection, OUTR_STR("file:"))
                        ? outr_str_skip(b->c.connection, 5)
                        : b->c.connection;
    outr_str_cut(file, '?', &file);
    b->wake_path = outr_alloc(file.n + sizeof "-wake");
    memcpy(b->wake_path, file.p, file.n);
    memcpy(b->wake_path + file.n, "-wake", sizeof "-wake");
    outr_rand_uuid(outr_loop_rand(init->loop), b->owner);
    b->loop = init->loop;
    b->log = init->log;
    b->touched.fd = -1;
    b->touched.ready = on_touched;
    pthread_mutex_init(&b->lock, NULL);
    outr_list_init(&b->subs);
    b->renewer.fire = on_renew;
    b->sweeper.fire = on_sweep;
    *out = &b->base;
    return OUTR_OK;
}

static void open_broker(outr_broker *base, outr_op *op)
{
    broker *b = of(base);
    submit(b, b->loop, &(job){.what = OPEN}, op);
    outr_timer_start(b->loop, &b->renewer, outr_loop_now(b->loop) + (uint64_t)b->c.lease_ns / 3);
    outr_timer_start(b->loop, &b->sweeper, outr_loop_now(b->loop) + SWEEP_NS);
}

static void close_broker(outr_broker *base, outr_op *op)
{
    broker *b = of(base);
    outr_timer_stop(b->loop, &b->renewer);
    outr_timer_stop(b->loop, &b->sweeper);
    submit(b, b->loop, &(job){.what = CLOSE}, op);
}

static unsigned features(const outr_broker *base OUTR_UNUSED)
{
    return OUTR_PUBSUB_TTL | OUTR_PUBSUB_BULK_PUBLISH;
}

const outr_pubsub_backend outr_pubsub_sqlite = {
    .base = {"pubsub.sqlite", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_broker,
    .close = close_broker,
    .features = features,
    .publish = publish,
    .subscribe = subscribe,
    .settle = settle,
    .pause = pause_sub,
    .unsubscribe = unsubscribe,
};
