#include "components/common/sqlite.h"

#include "base/clock.h"
#include "base/encode.h"
#include "components/state.h"
#include "loop/worker.h"

/* State in one SQLite file, in daprd's layout (contract/state.md): other programs read and write
 * it.
 *
 * Two threads, each with its connection: one writes, and commits once for all requests that queued
 * up
 * meanwhile (each in a savepoint, so that one that fails does not take the others along); one
 * reads,
 * and in WAL mode never waits for the writer. synchronous=FULL: an acknowledged save is on disk. */

typedef struct config {
    outr_str connection, table, metadata_table;
    int64_t timeout_ns, busy_ns, cleanup_ns;
    bool disable_wal;
} config;

static const outr_bind_row rows[] = {
    {"connectionString", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, connection), 0,
     0, NULL, NULL, 0, "database file or URI"},
    {"timeout", "timeoutInSeconds", OUTR_BIND_DURATION, 0, offsetof(config, timeout_ns), 0, 0,
     "20s", NULL, 1000000000, "operation time limit"},
    {"busyTimeout", NULL, OUTR_BIND_DURATION, 0, offsetof(config, busy_ns), 0, 0, "2s", NULL,
     1000000, "how long to wait on a locked database"},
    {"disableWAL", NULL, OUTR_BIND_BOOL, 0, offsetof(config, disable_wal), 0, 0, "false", NULL, 0,
     "do not use write-ahead logging"},
    {"tableName", NULL, OUTR_BIND_STR, 0, offsetof(config, table), 0, 0, "state", NULL, 0,
     "table that stores the data"},
    {"metadataTableName", NULL, OUTR_BIND_STR, 0, offsetof(config, metadata_table), 0, 0,
     "metadata", NULL, 0, "table with component metadata"},
    {"cleanupInterval", "cleanupIntervalInSeconds", OUTR_BIND_DURATION, 0,
     offsetof(config, cleanup_ns), 0, 0, "0s", NULL, 1000000000,
     "period of removing expired rows; zero turns it off"},
};

/* A connection and its thread. */
typedef struct lane {
    outr_worker *worker;
    sqlite3 *db;
    sqlite3_stmt *get, *find, *put, *drop, *sweep;
} lane;

typedef struct store {
    outr_state_store base;
    config c;
    char *connection, *table, *metadata_table;
    lane writer, reader;
    bool is_shared_memory; /* :memory: has one connection only: the writer reads too */
    outr_rand rand;        /* the writer's */
    outr_loop *loop;
    outr_timer sweeper;
    struct job *sweeping;
} store;

typedef enum what { OPEN, GET, WRITE, KEYS, DROP, SWEEP, CLOSE } what;

typedef struct job {
    outr_work work;
    what what;
    store *store;
    outr_op *op;
    outr_op inner;
    outr_state_get *get;
    outr_state_writes *writes;
    outr_state_keys *keys;
    outr_state_drop *drop;
    outr_arena *arena; /* the worker's results, until they are copied on the loop */
} job;

static store *of(outr_state_store *base)
{
    return OUTR_CONTAINER(base, store, base);
}

/* ---- on the workers -------------------------------------------------------------------------- */

static outr_code prepare(store *st, lane *l, bool is_writer, outr_err *err)
{
    char sql[512];
    const char *t = st->table;
    snprintf(sql, sizeof sql,
             "SELECT value, is_binary, etag, strftime('%%s', expiration_time) FROM %s WHERE key = "
             "? AND (expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)",
             t);
    outr_code rc = outr_sqlite_prepare(l->db, &l->get, sql, err);
    if (rc || !is_writer)
        return rc;
    snprintf(sql, sizeof sql,
             "SELECT etag FROM %s WHERE key = ? AND (expiration_time IS NULL OR expiration_time > "
             "CURRENT_TIMESTAMP)",
             t);
    rc = outr_sqlite_prepare(l->db, &l->find, sql, err);
    snprintf(sql, sizeof sql,
             "INSERT INTO %s (key, value, is_binary, etag, update_time, expiration_time) VALUES "
             "(?, ?, ?, ?, CURRENT_TIMESTAMP, CASE WHEN ?5 > 0 THEN datetime('now', '+' || ?5 || ' "
             "seconds') END)"
             " ON CONFLICT (key) DO UPDATE SET value = excluded.value, is_binary = "
             "excluded.is_binary, etag = excluded.etag, update_time = excluded.update_time, "
             "expiration_time = excluded.expiration_time",
             t);
    if (!rc)
        rc = outr_sqlite_prepare(l->db, &l->put, sql, err);
    snprintf(sql, sizeof sql, "DELETE FROM %s WHERE key = ?", t);
    if (!rc)
        rc = outr_sqlite_prepare(l->db, &l->drop, sql, err);
    snprintf(
        sql, sizeof sql,
        "DELETE FROM %s WHERE expiration_time IS NOT NULL AND expiration_time < CURRENT_TIMESTAMP",
        t);
    return rc ? rc : outr_sqlite_prepare(l->db, &l->sweep, sql, err);
}

static outr_code do_open(store *st, outr_err *err)
{
    char sql[1024];
    outr_sqlite_options o = {.connection = st->c.connection,
                             .busy_timeout_ns = st->c.busy_ns,
                             .disable_wal = st->c.disable_wal,
                             .is_durable = true};
    outr_code rc = outr_sqlite_open(&st->writer.db, &o, err);
    if (rc)
        return rc;
    snprintf(sql, sizeof sql,
             "CREATE TABLE IF NOT EXISTS %s (key text NOT NULL PRIMARY KEY, value text NOT NULL);"
             "CREATE TABLE IF NOT EXISTS %s (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, "
             "is_binary BOOLEAN NOT NULL, etag TEXT NOT NULL,"
             " expiration_time TIMESTAMP DEFAULT NULL, update_time TIMESTAMP NOT NULL DEFAULT "
             "CURRENT_TIMESTAMP);"
             "INSERT OR IGNORE INTO %s (key, value) VALUES ('migrations', '1')",
             st->metadata_table, st->table, st->metadata_table);
    rc = outr_sqlite_exec(st->writer.db, sql, err);
    if (!rc)
        rc = prepare(st, &st->writer, true, err);
    if (rc || st->is_shared_memory)
        return rc;
    rc = outr_sqlite_open(&st->reader.db, &o, err);
    return rc ? rc : prepare(st, &st->reader, false, err);
}

static outr_code read_item(lane *l, outr_state_item *item, outr_arena *arena, outr_err *err)
{
    outr_sqlite_bind(l->get, 1, item->key);
    int rc = sqlite3_step(l->get);
    item->is_found = rc == SQLITE_ROW;
    if (item->is_found) {
        outr_str value = outr_sqlite_text(l->get, 0);
        bool is_binary = sqlite3_column_int(l->get, 1) != 0;
        if (!is_binary || !outr_base64_decode(arena, value, &value))
            value = outr_arena_str(arena, value);
        item->value = value;
        item->etag = outr_arena_str(arena, outr_sqlite_text(l->get, 2));
        if (sqlite3_column_type(l->get, 3) != SQLITE_NULL) {
            char text[40];
            int64_t seconds = sqlite3_column_int64(l->get, 3);
            item->ttl_expire_time = outr_arena_str(
                arena, outr_str_of(text, outr_time_rfc3339(seconds * (int64_t)OUTR_SEC, text)));
        }
    }
    outr_code code =
        rc == SQLITE_ROW || rc == SQLITE_DONE ? OUTR_OK : outr_sqlite_fail(l->db, err, "SQLite");
    sqlite3_reset(l->get);
    return code;
}

#define RESULT_MAX (256 * OUTR_MIB)

static void do_get(lane *l, job *j)
{
    j->arena = outr_arena_new(RESULT_MAX);
    for (size_t i = 0; i < j->get->count && !j->work.err.code; i++)
        read_item(l, &j->get->items[i], j->arena, &j->work.err);
}

/* The first text behind all that begin with prefix; NONE: there is none. */
static outr_str end_of_prefix(outr_arena *arena, outr_str prefix)
{
    while (prefix.n > 0 && (unsigned char)prefix.p[prefix.n - 1] == 0xff)
        prefix.n--;
    if (prefix.n == 0)
        return OUTR_STR_NONE;
    char *text = outr_arena_strz(arena, prefix);
    text[prefix.n - 1]++;
    return outr_str_of(text, prefix.n);
}

static void bind_or_null(sqlite3_stmt *stmt, int at, outr_str text)
{
    if (text.p)
        outr_sqlite_bind(stmt, at, text);
    else
        sqlite3_bind_null(stmt, at);
}

/* One more than the page is read, to see whether there is another. */
static void do_keys(store *st, lane *l, job *j)
{
    outr_state_keys *req = j->keys;
    outr_err *err = &j->work.err;
    char sql[512];
    sqlite3_stmt *stmt;
    int rc;
    snprintf(sql, sizeof sql,
             "SELECT key FROM %s WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) AND (?3 IS NULL OR "
             "key > ?3) AND (expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP) ORDER "
             "BY key LIMIT ?4",
             st->table);
    j->arena = outr_arena_new(RESULT_MAX);
    if (outr_sqlite_prepare(l->db, &stmt, sql, err))
        return;
    outr_sqlite_bind(stmt, 1, req->prefix);
    bind_or_null(stmt, 2, end_of_prefix(j->arena, req->prefix));
    bind_or_null(stmt, 3, req->after.n ? req->after : OUTR_STR_NONE);
    sqlite3_bind_int64(stmt, 4, (int64_t)req->limit + 1);
    req->keys = outr_arena_alloc(j->arena, (req->limit + 1) * sizeof *req->keys);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW && req->count <= req->limit)
        req->keys[req->count++] = outr_arena_str(j->arena, outr_sqlite_text(stmt, 0));
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        outr_sqlite_fail(l->db, err, "SQLite");
    sqlite3_finalize(stmt);
    if (req->count > req->limit)
        req->next = req->keys[(req->count = req->limit) - 1];
}

static void do_drop(store *st, job *j)
{
    lane *l = &st->writer;
    outr_err *err = &j->work.err;
    char sql[256];
    sqlite3_stmt *stmt;
    snprintf(sql, sizeof sql, "DELETE FROM %s WHERE key >= ?1 AND (?2 IS NULL OR key < ?2)",
             st->table);
    j->arena = outr_arena_new(OUTR_MIB);
    if (outr_sqlite_prepare(l->db, &stmt, sql, err))
        return;
    outr_sqlite_bind(stmt, 1, j->drop->prefix);
    bind_or_null(stmt, 2, end_of_prefix(j->arena, j->drop->prefix));
    if (!outr_sqlite_run(l->db, stmt, err))
        j->drop->deleted = (uint64_t)sqlite3_changes64(l->db);
    sqlite3_finalize(stmt);
}

static outr_code check(store *st, const outr_state_write *w, outr_err *err)
{
    lane *l = &st->writer;
    if (!w->has_etag && w->concurrency != OUTR_FIRST_WRITE)
        return OUTR_OK;
    if (w->has_etag && w->etag.n == 0 && w->concurrency != OUTR_FIRST_WRITE)
        return OUTR_OK;
    outr_sqlite_bind(l->find, 1, w->key);
    int rc = sqlite3_step(l->find);
    bool is_there = rc == SQLITE_ROW,
         is_same = is_there && outr_str_eq(outr_sqlite_text(l->find, 0), w->etag);
    outr_code code =
        is_there || rc == SQLITE_DONE ? OUTR_OK : outr_sqlite_fail(l->db, err, "SQLite");
    sqlite3_reset(l->find);
    if (code)
        return code;
    if (w->has_etag && w->etag.n > 0)
        return is_same
                   ? OUTR_OK
                   : outr_fail(err, OUTR_ABORTED, "possible etag mismatch. error from state store");
    if (w->kind == OUTR_STATE_UPSERT && is_there)
        return outr_fail(err, OUTR_ABORTED, "possible etag mismatch. error from state store");
    return OUTR_OK;
}

static outr_code write_item(store *st, outr_state_write *w, outr_arena *scratch, outr_err *err)
{
    lane *l = &st->writer;
    int64_t ttl;
    char etag[OUTR_UUID_LEN + 1];
    outr_code rc = outr_state_ttl(w->metadata, &ttl, err);
    if (!rc)
        rc = check(st, w, err);
    if (rc)
        return rc;
    if (w->kind == OUTR_STATE_DELETE) {
        outr_sqlite_bind(l->drop, 1, w->key);
        return outr_sqlite_run(l->db, l->drop, err);
    }
    outr_rand_uuid(&st->rand, etag);
    outr_sqlite_bind(l->put, 1, w->key);
    outr_sqlite_bind(l->put, 2, w->is_binary ? outr_base64_encode(scratch, w->value) : w->value);
    sqlite3_bind_int(l->put, 3, w->is_binary);
    outr_sqlite_bind(l->put, 4, outr_str_of(etag, OUTR_UUID_LEN));
    sqlite3_bind_int64(l->put, 5, OUTR_MAX(ttl, 0));
    return outr_sqlite_run(l->db, l->put, err);
}

/* One request inside the batch's transaction. */
static void write_request(store *st, job *j)
{
    outr_state_writes *req = j->writes;
    sqlite3 *db = st->writer.db;
    outr_arena *scratch = outr_arena_new(RESULT_MAX);
    bool needs_savepoint = req->is_atomic && req->count > 1;
    outr_err *err = &j->work.err;
    if (needs_savepoint)
        outr_sqlite_exec(db, "SAVEPOINT r", NULL);
    for (size_t i = 0; i < req->count && !(req->is_atomic && err->code); i++) {
        outr_err other;
        write_item(st, &req->items[i], scratch, err->code ? &other : err);
    }
    if (needs_savepoint)
        outr_sqlite_exec(db, err->code ? "ROLLBACK TO r; RELEASE r" : "RELEASE r", NULL);
    outr_arena_free(scratch);
}

/* All that queued up, one commit. When the transaction as a whole fails, everybody hears it. */
static void write_batch(store *st, outr_work **items, size_t count)
{
    outr_err err = {0};
    sqlite3 *db = st->writer.db;
    outr_code rc = outr_sqlite_exec(db, "BEGIN IMMEDIATE", &err);
    for (size_t i = 0; i < count && !rc; i++)
        write_request(st, OUTR_CONTAINER(items[i], job, work));
    if (!rc && (rc = outr_sqlite_exec(db, "COMMIT", &err)))
        outr_sqlite_exec(db, "ROLLBACK", NULL);
    for (size_t i = 0; i < count && rc; i++)
        OUTR_CONTAINER(items[i], job, work)->work.err = err;
}

static void finalize(lane *l)
{
    sqlite3_finalize(l->get);
    sqlite3_finalize(l->find);
    sqlite3_finalize(l->put);
    sqlite3_finalize(l->drop);
    sqlite3_finalize(l->sweep);
    outr_sqlite_close(l->db);
}

static void handle_other(store *st, job *j)
{
    switch (j->what) {
    case OPEN:
        do_open(st, &j->work.err);
        break;
    case GET:
        do_get(st->is_shared_memory ? &st->writer : &st->reader, j);
        break;
    case KEYS:
        do_keys(st, st->is_shared_memory ? &st->writer : &st->reader, j);
        break;
    case DROP:
        do_drop(st, j);
        break;
    case SWEEP:
        outr_sqlite_run(st->writer.db, st->writer.sweep, &j->work.err);
        break;
    case CLOSE:
        finalize(&st->writer);
        break;
    case WRITE:
        break;
    }
}

static void handle_writer(void *ctx, outr_work **items, size_t count)
{
    store *st = ctx;
    for (size_t i = 0; i < count;) {
        size_t n = 0;
        while (i + n < count && OUTR_CONTAINER(items[i + n], job, work)->what == WRITE)
            n++;
        if (n > 0)
            write_batch(st, items + i, n);
        else
            handle_other(st, OUTR_CONTAINER(items[i], job, work));
        i += OUTR_MAX(n, (size_t)1);
    }
}

static void handle_reader(void *ctx, outr_work **items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        handle_other(ctx, OUTR_CONTAINER(items[i], job, work));
}

/* ---- on the loops ---------------------------------------------------------------------------- */

static void free_store(store *st)
{
    outr_worker_close(st->writer.worker);
    outr_worker_close(st->reader.worker);
    if (!st->is_shared_memory)
        finalize(&st->reader);
    free(st->connection);
    free(st->table);
    free(st->metadata_table);
    free(st);
}

/* The worker's results move to the request's arena, which only this thread may touch. */
static void copy_keys(job *j)
{
    outr_state_keys *req = j->keys;
    outr_str *keys = outr_arena_alloc(req->arena, (req->count + 1) * sizeof *keys);
    for (size_t i = 0; i < req->count; i++)
        keys[i] = outr_arena_str(req->arena, req->keys[i]);
    req->keys = keys;
    if (req->next.n > 0)
        req->next = keys[req->count - 1];
}

static void copy_results(job *j)
{
    outr_state_get *req = j->get;
    for (size_t i = 0; i < req->count; i++) {
        outr_state_item *item = &req->items[i];
        if (!item->is_found)
            continue;
        item->value = outr_arena_str(req->arena, item->value);
        item->etag = outr_arena_str(req->arena, item->etag);
        if (item->ttl_expire_time.p)
            item->ttl_expire_time = outr_arena_str(req->arena, item->ttl_expire_time);
    }
}

static void on_done(outr_op *inner)
{
    job *j = OUTR_CONTAINER(inner, job, inner);
    outr_op *op = j->op;
    outr_err err = inner->err;
    if (j->what == GET && !err.code)
        copy_results(j);
    if (j->what == KEYS && !err.code)
        copy_keys(j);
    outr_arena_free(j->arena);
    if (j->what == CLOSE)
        free_store(j->store);
    if (j->what == SWEEP)
        j->store->sweeping = NULL;
    free(j);
    if (!op)
        return;
    if (err.code)
        outr_op_fail(op, &err);
    else
        outr_op_finish(op);
}

/* The worker works on the request's memory, so an op that is cancelled ends when the worker is
 * done. */
static job *submit_job(lane *l, const job *as, outr_op *op)
{
    store *st = as->store;
    job *j = outr_alloc(sizeof *j);
    *j = *as;
    j->op = op;
    if (op)
        outr_op_begin(op, j, NULL);
    outr_op_init(&j->inner, op ? op->loop : st->loop, NULL, 0, on_done);
    outr_worker_submit(l->worker, &j->work, &j->inner);
    return j;
}

static job *submit(store *st, lane *l, what w, outr_state_get *get, outr_state_writes *writes,
                   outr_op *op)
{
    return submit_job(l, &(job){.what = w, .store = st, .get = get, .writes = writes}, op);
}

static void on_sweep(outr_timer *timer)
{
    store *st = OUTR_CONTAINER(timer, store, sweeper);
    outr_timer_start(st->loop, timer, outr_loop_now(st->loop) + (uint64_t)st->c.cleanup_ns);
    if (!st->sweeping)
        st->sweeping = submit(st, &st->writer, SWEEP, NULL, NULL, NULL);
}

extern const outr_state_backend outr_state_sqlite;

static outr_code create(outr_state_store **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    store *st = outr_alloc(sizeof *st);
    const outr_worker_options writer = {.name = "outr-state-w", .handle = handle_writer, .ctx = st};
    const outr_worker_options reader = {.name = "outr-state-r", .handle = handle_reader, .ctx = st};
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &st->c, init->metadata, &errors);
    if (rc)
        *err = errors.items[0];
    else if (!outr_sqlite_is_name(st->c.table) || !outr_sqlite_is_name(st->c.metadata_table))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT,
                       "tableName and metadataTableName may hold letters, digits and _ only");
    else
        rc = outr_worker_open(&st->writer.worker, &writer, err);
    if (!rc && (rc = outr_worker_open(&st->reader.worker, &reader, err)))
        outr_worker_close(st->writer.worker);
    if (rc) {
        free(st);
        return rc;
    }
    st->base.backend = &outr_state_sqlite;
    st->connection = outr_str_dup(st->c.connection);
    st->table = outr_str_dup(st->c.table);
    st->metadata_table = outr_str_dup(st->c.metadata_table);
    st->c.connection = outr_str_from(st->connection);
    st->is_shared_memory = outr_str_search(st->c.connection, OUTR_STR(":memory:")) >= 0 ||
                           outr_str_search(st->c.connection, OUTR_STR("mode=memory")) >= 0;
    st->loop = init->loop;
    outr_rand_seed(&st->rand, outr_rand_next(outr_loop_rand(init->loop)));
    st->sweeper.fire = on_sweep;
    *out = &st->base;
    return OUTR_OK;
}

static void open_store(outr_state_store *base, outr_op *op)
{
    store *st = of(base);
    submit(st, &st->writer, OPEN, NULL, NULL, op);
    if (st->c.cleanup_ns > 0)
        outr_timer_start(st->loop, &st->sweeper,
                         outr_loop_now(st->loop) + (uint64_t)st->c.cleanup_ns);
}

static void close_store(outr_state_store *base, outr_op *op)
{
    store *st = of(base);
    outr_timer_stop(st->loop, &st->sweeper);
    submit(st, &st->writer, CLOSE, NULL, NULL, op);
}

static unsigned features(const outr_state_store *base OUTR_UNUSED)
{
    return OUTR_STATE_ETAG | OUTR_STATE_TRANSACTIONAL | OUTR_STATE_TTL | OUTR_STATE_KEYS_LIKE;
}

static void get(outr_state_store *base, outr_state_get *req, outr_op *op)
{
    store *st = of(base);
    submit(st, st->is_shared_memory ? &st->writer : &st->reader, GET, req, NULL, op);
}

static void do_write(outr_state_store *base, outr_state_writes *req, outr_op *op)
{
    submit(of(base), &of(base)->writer, WRITE, NULL, req, op);
}

static void keys(outr_state_store *base, outr_state_keys *req, outr_op *op)
{
    store *st = of(base);
    submit_job(st->is_shared_memory ? &st->writer : &st->reader,
               &(job){.what = KEYS, .store = st, .keys = req}, op);
}

static void drop(outr_state_store *base, outr_state_drop *req, outr_op *op)
{
    store *st = of(base);
    submit_job(&st->writer, &(job){.what = DROP, .store = st, .drop = req}, op);
}

const outr_state_backend outr_state_sqlite = {
    .base = {"state.sqlite", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_store,
    .close = close_store,
    .features = features,
    .get = get,
    .write = do_write,
    .keys = keys,
    .drop = drop,
};
