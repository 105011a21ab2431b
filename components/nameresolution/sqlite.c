#include "components/common/sqlite.h"

#include "components/nameresolution.h"
#include "loop/fd_watch.h"
#include "loop/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The registry in a file that all sidecars of a machine share. Table layout as daprd's component
 * has it, so that both may use one file: contract/components.csv.
 *
 * Who comes or leaves touches <file>-wake; inotify on it tells all sidecars of the machine at once.
 * Heartbeats do not. A daprd touches nothing: what it says is seen when answers are CACHE_NS old.
 */

typedef struct config {
    outr_str connection, table, metadata_table;
    int64_t update_ns, cleanup_ns, timeout_ns, busy_ns;
    bool disable_wal;
} config;

static const outr_bind_row rows[] = {
    {"connectionString", NULL, OUTR_BIND_STR, 0, offsetof(config, connection), 0, 0, NULL, NULL, 0,
     "database file"},
    {"tableName", NULL, OUTR_BIND_STR, 0, offsetof(config, table), 0, 0, "hosts", NULL, 0,
     "table with registrations"},
    {"metadataTableName", NULL, OUTR_BIND_STR, 0, offsetof(config, metadata_table), 0, 0,
     "metadata", NULL, 0, "table with the schema version"},
    {"updateInterval", NULL, OUTR_BIND_DURATION, 0, offsetof(config, update_ns), 1000000000,
     INT64_MAX, "5s", NULL, 1000000000, "heartbeat; older rows are ignored"},
    {"cleanupInterval", NULL, OUTR_BIND_DURATION, 0, offsetof(config, cleanup_ns), 0, 0, "1h", NULL,
     1000000000, "removal of stale rows"},
    {"timeout", NULL, OUTR_BIND_DURATION, 0, offsetof(config, timeout_ns), 0, 0, "1s", NULL,
     1000000000, "operation time limit"},
    {"busyTimeout", NULL, OUTR_BIND_DURATION, 0, offsetof(config, busy_ns), 0, 0, "800ms", NULL,
     1000000, "wait on a locked database"},
    {"disableWAL", NULL, OUTR_BIND_BOOL, 0, offsetof(config, disable_wal), 0, 0, "false", NULL, 0,
     "no write-ahead log"},
};

#define DEFAULT_FILE "nameresolution.db"
#define CACHE_NS     OUTR_SEC

typedef struct resolver {
    outr_resolver base;
    config c;
    char *connection;
    outr_worker *worker;
    sqlite3 *db;
    sqlite3_stmt *find, *put, *drop, *sweep;
    ino_t inode; /* of the file db has open */
    dev_t device;
    bool is_told; /* of the registration in this file, all others */
    outr_loop *loop;
    const outr_log *log;
    /* registration */
    char *address, *app_id, *namespace_, *id, *labels;
    char *own_namespace; /* also of one that does not register */
    outr_timer beat;
    struct job *beating;
    uint64_t swept_ns;
    char *wake_path; /* set by the worker before the first job is done, then stays; NULL: no file */
    outr_fd_watch touched; /* inotify on it; fd -1: none */
    bool is_joined, is_closing;
} resolver;

typedef enum what { OPEN, PUT, FIND, CLOSE } what;

typedef struct row {
    char *address, *labels, *id;
} row;

typedef struct job {
    outr_work work;
    what what;
    resolver *r;
    outr_resolve *resolve;
    outr_op inner;     /* heartbeats of our own */
    struct row *found; /* heap: the arena is the loop's */
    size_t count;
} job;

static resolver *of(outr_resolver *base)
{
    return OUTR_CONTAINER(base, resolver, base);
}

/* ---- on the worker --------------------------------------------------------------------------- */

/* A file of daprd's, or of ours from before there were labels, gets the column; a daprd names its
 * columns and so goes on with it. Another sidecar may do the same just now. */
static outr_code add_labels(resolver *r, outr_err *err)
{
    char sql[256];
    sqlite3_stmt *has = NULL;
    snprintf(sql, sizeof sql, "SELECT labels FROM " OUTR_FMT " LIMIT 0", OUTR_ARG(r->c.table));
    bool is_there = sqlite3_prepare_v2(r->db, sql, -1, &has, NULL) == SQLITE_OK;
    sqlite3_finalize(has);
    if (is_there)
        return OUTR_OK;
    snprintf(sql, sizeof sql, "ALTER TABLE " OUTR_FMT " ADD COLUMN labels TEXT NOT NULL DEFAULT ''",
             OUTR_ARG(r->c.table));
    outr_err failure; /* err filled would be a job that has failed */
    if (!outr_sqlite_exec(r->db, sql, &failure) || strstr(failure.text, "duplicate column"))
        return OUTR_OK;
    *err = failure;
    return failure.code;
}

static outr_code open_database(resolver *r, outr_err *err)
{
    char sql[1024];
    const outr_sqlite_options o = {.connection = r->c.connection,
                                   .busy_timeout_ns = r->c.busy_ns,
                                   .disable_wal = r->c.disable_wal};
    outr_code rc = outr_sqlite_open(&r->db, &o, err);
    if (rc)
        return rc;
    snprintf(
        sql, sizeof sql,
        "CREATE TABLE IF NOT EXISTS " OUTR_FMT
        " (key text NOT NULL PRIMARY KEY, value text NOT NULL);"
        "CREATE TABLE IF NOT EXISTS " OUTR_FMT
        " (registration_id TEXT NOT NULL PRIMARY KEY, address TEXT NOT NULL, app_id TEXT NOT NULL,"
        " namespace TEXT NOT NULL, last_update INTEGER NOT NULL, labels TEXT NOT NULL DEFAULT '');"
        "CREATE UNIQUE INDEX IF NOT EXISTS " OUTR_FMT "_address_idx ON " OUTR_FMT " (address);"
        "CREATE INDEX IF NOT EXISTS " OUTR_FMT "_last_update_idx ON " OUTR_FMT " (last_update);"
        "INSERT OR IGNORE INTO " OUTR_FMT " (key, value) VALUES ('nr-migrations', '1')",
        OUTR_ARG(r->c.metadata_table), OUTR_ARG(r->c.table), OUTR_ARG(r->c.table),
        OUTR_ARG(r->c.table), OUTR_ARG(r->c.table), OUTR_ARG(r->c.table),
        OUTR_ARG(r->c.metadata_table));
    rc = outr_sqlite_exec(r->db, sql, err);
    rc = rc ? rc : add_labels(r, err);
    snprintf(
        sql, sizeof sql,
        "SELECT address, labels, registration_id FROM " OUTR_FMT
        " WHERE app_id = ? AND namespace IN (?, ?) AND last_update >= unixepoch(CURRENT_TIMESTAMP)"
        " - ?",
        OUTR_ARG(r->c.table));
    if (!rc)
        rc = outr_sqlite_prepare(r->db, &r->find, sql, err);
    snprintf(sql, sizeof sql,
             "INSERT OR REPLACE INTO " OUTR_FMT
             " (registration_id, address, app_id, namespace, labels, last_update) VALUES (?, ?, ?, "
             "?, ?, unixepoch(CURRENT_TIMESTAMP))",
             OUTR_ARG(r->c.table));
    if (!rc)
        rc = outr_sqlite_prepare(r->db, &r->put, sql, err);
    snprintf(sql, sizeof sql, "DELETE FROM " OUTR_FMT " WHERE registration_id = ?",
             OUTR_ARG(r->c.table));
    if (!rc)
        rc = outr_sqlite_prepare(r->db, &r->drop, sql, err);
    snprintf(sql, sizeof sql,
             "DELETE FROM " OUTR_FMT " WHERE last_update < unixepoch(CURRENT_TIMESTAMP) - ?",
             OUTR_ARG(r->c.table));
    return rc ? rc : outr_sqlite_prepare(r->db, &r->sweep, sql, err);
}

static void close_database(resolver *r)
{
    sqlite3_finalize(r->find);
    sqlite3_finalize(r->put);
    sqlite3_finalize(r->drop);
    sqlite3_finalize(r->sweep);
    outr_sqlite_close(r->db);
    r->find = r->put = r->drop = r->sweep = NULL;
    r->db = NULL;
}

/* Somebody removed or replaced the file: what is written to the old one nobody reads. */
static bool is_gone(const resolver *r)
{
    struct stat st;
    const char *path = sqlite3_db_filename(r->db, "main");
    return path && *path &&
           (stat(path, &st) != 0 || st.st_ino != r->inode || st.st_dev != r->device);
}

/* At the start, and whenever the database could not be opened before or was taken away. */
static outr_code make_ready(resolver *r, outr_err *err)
{
    struct stat st;
    if (r->db && is_gone(r))
        close_database(r);
    if (r->db)
        return OUTR_OK;
    outr_code rc = open_database(r, err);
    if (rc) {
        close_database(r);
        return rc;
    }
    const char *path = sqlite3_db_filename(r->db, "main");
    if (stat(path, &st) == 0) {
        r->inode = st.st_ino;
        r->device = st.st_dev;
    }
    if (!r->wake_path && *path) {
        char wake[1100];
        snprintf(wake, sizeof wake, "%s-wake", path);
        __atomic_store_n(&r->wake_path, outr_strdup(wake), __ATOMIC_RELEASE);
    }
    r->is_told = false;
    return OUTR_OK;
}

static void touch(const resolver *r)
{
    int fd =
        r->wake_path ? open(r->wake_path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (fd < 0)
        return;
    futimens(fd, NULL);
    close(fd);
}

static int64_t update_seconds(const resolver *r)
{
    return (r->c.update_ns + (int64_t)OUTR_SEC - 1) / (int64_t)OUTR_SEC;
}

static outr_code do_put(resolver *r, outr_err *err)
{
    outr_sqlite_bind(r->put, 1, outr_str_from(r->id));
    outr_sqlite_bind(r->put, 2, outr_str_from(r->address));
    outr_sqlite_bind(r->put, 3, outr_str_from(r->app_id));
    outr_sqlite_bind(r->put, 4, outr_str_from(r->namespace_));
    outr_sqlite_bind(r->put, 5, outr_str_from(r->labels));
    outr_code rc = outr_sqlite_run(r->db, r->put, err);
    if (rc)
        return rc;
    if (!r->is_told)
        touch(r);
    r->is_told = true;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t ns = (uint64_t)now.tv_sec * OUTR_SEC;
    if (r->c.cleanup_ns > 0 && ns - r->swept_ns > (uint64_t)r->c.cleanup_ns) {
        r->swept_ns = ns;
        sqlite3_bind_int64(r->sweep, 1, update_seconds(r) * 2);
        outr_sqlite_run(r->db, r->sweep, NULL);
    }
    return OUTR_OK;
}

static outr_code do_find(resolver *r, job *j, outr_err *err)
{
    int rc;
    /* daprd says no namespace: it is one of ours. */
    bool is_own = outr_str_is(j->resolve->namespace_, r->own_namespace);
    outr_sqlite_bind(r->find, 1, j->resolve->app_id);
    outr_sqlite_bind(r->find, 2, j->resolve->namespace_);
    outr_sqlite_bind(r->find, 3, is_own ? OUTR_STR("") : j->resolve->namespace_);
    sqlite3_bind_int64(r->find, 4, update_seconds(r) + 1); /* a heartbeat may be under way */
    while ((rc = sqlite3_step(r->find)) == SQLITE_ROW && j->count < OUTR_RESOLVE_MAX) {
        j->found = outr_realloc(j->found, (j->count + 1) * sizeof *j->found);
        j->found[j->count++] = (row){outr_str_dup(outr_sqlite_text(r->find, 0)),
                                     outr_str_dup(outr_sqlite_text(r->find, 1)),
                                     outr_str_dup(outr_sqlite_text(r->find, 2))};
    }
    outr_code code =
        rc == SQLITE_ROW || rc == SQLITE_DONE ? OUTR_OK : outr_sqlite_fail(r->db, err, "SQLite");
    sqlite3_reset(r->find);
    return code;
}

static void do_close(resolver *r)
{
    if (r->db && r->is_joined) {
        outr_sqlite_bind(r->drop, 1, outr_str_from(r->id));
        if (outr_sqlite_run(r->db, r->drop, NULL) == OUTR_OK)
            touch(r);
    }
    close_database(r);
}

static void handle(void *ctx, outr_work **items, size_t count)
{
    resolver *r = ctx;
    for (size_t i = 0; i < count; i++) {
        job *j = OUTR_CONTAINER(items[i], job, work);
        if (j->what != CLOSE && make_ready(r, &items[i]->err))
            continue;
        switch (j->what) {
        case OPEN:
            break;
        case PUT:
            do_put(r, &items[i]->err);
            break;
        case FIND:
            do_find(r, j, &items[i]->err);
            break;
        case CLOSE:
            do_close(r);
            break;
        }
    }
}

/* ---- on the loop ----------------------------------------------------------------------------- */

static void stop_watching(resolver *r)
{
    outr_fd_watch_stop(&r->touched);
    if (r->touched.fd >= 0)
        close(r->touched.fd);
    r->touched.fd = -1;
}

static void on_touched(outr_fd_watch *watch)
{
    resolver *r = OUTR_CONTAINER(watch, resolver, touched);
    char bytes[4096] __attribute__((aligned(8)));
    ssize_t n = read(watch->fd, bytes, sizeof bytes);
    uint32_t mask = 0;
    const struct inotify_event *event;
    for (ssize_t at = 0; at + (ssize_t)sizeof *event <= n;
         at += (ssize_t)(sizeof *event + event->len)) {
        event = (const void *)(bytes + at);
        mask |= event->mask;
    }
    if (mask & IN_IGNORED)
        stop_watching(r); /* the file is gone: the next beat makes another one */
    outr_watchers_tell(r->base.watchers, OUTR_STR_NONE, OUTR_STR_NONE);
}

/* When the database has been opened for the first time, and when the file was taken away. Without
 * it answers are as old as CACHE_NS. */
static void watch_file(resolver *r)
{
    const char *path = __atomic_load_n(&r->wake_path, __ATOMIC_ACQUIRE);
    if (r->touched.fd >= 0 || !path || r->is_closing)
        return;
    int made = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (made >= 0)
        close(made);
    r->touched.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (r->touched.fd < 0)
        return;
    if (inotify_add_watch(r->touched.fd, path, IN_ATTRIB | IN_MODIFY | IN_DELETE_SELF) < 0 ||
        outr_fd_watch_start(&r->touched, r->loop, NULL))
        stop_watching(r);
}

static job *new_job(resolver *r, what w)
{
    job *j = outr_alloc(sizeof *j);
    j->r = r;
    j->what = w;
    return j;
}

/* Calls that need no more than their op's end: the job is freed with the resolver's next turn. */
typedef struct simple {
    job job;
    outr_op *op;
    outr_op inner;
} simple;

static void on_simple_done(outr_op *inner)
{
    simple *s = OUTR_CONTAINER(inner, simple, inner);
    outr_op *op = s->op;
    resolver *r = s->job.r;
    outr_err err = inner->err;
    if (s->job.what == PUT) { /* when it failed, the next beat tries again */
        r->is_joined = true;
        if (!r->is_closing)
            outr_timer_start(r->loop, &r->beat, outr_loop_now(r->loop) + (uint64_t)r->c.update_ns);
    }
    bool is_close = s->job.what == CLOSE;
    free(s);
    if (!is_close) {
        watch_file(r);
    } else {
        outr_worker_close(r->worker);
        free(r->wake_path);
        free(r->connection);
        free(r->address);
        free(r->app_id);
        free(r->namespace_);
        free(r->id);
        free(r->labels);
        free(r->own_namespace);
        free(r);
    }
    if (err.code)
        outr_op_fail(op, &err);
    else
        outr_op_finish(op);
}

static void run_simple(resolver *r, what w, outr_op *op)
{
    simple *s = outr_alloc(sizeof *s);
    s->job.r = r;
    s->job.what = w;
    s->op = op;
    outr_op_begin(op, s, NULL);
    outr_op_init(&s->inner, op->loop, NULL, 0, on_simple_done);
    outr_worker_submit(r->worker, &s->job.work, &s->inner);
}

static void on_beaten(outr_op *inner)
{
    job *j = OUTR_CONTAINER(inner, job, inner);
    resolver *r = j->r;
    if (inner->err.code)
        OUTR_LOG(r->log, WARN, "registration could not be renewed", OUTR_ERR(&inner->err));
    watch_file(r);
    r->beating = NULL;
    free(j);
}

static void on_beat(outr_timer *timer)
{
    resolver *r = OUTR_CONTAINER(timer, resolver, beat);
    outr_timer_start(r->loop, timer, outr_loop_now(r->loop) + (uint64_t)r->c.update_ns);
    if (r->beating)
        return;
    r->beating = new_job(r, PUT);
    outr_op_init(&r->beating->inner, r->loop, NULL, 0, on_beaten);
    outr_worker_submit(r->worker, &r->beating->work, &r->beating->inner);
}

static outr_code create(outr_resolver **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    resolver *r = outr_alloc(sizeof *r);
    const outr_worker_options worker = {.name = "outr-names", .handle = handle, .ctx = r};
    outr_code rc = outr_bind_kvs(rows, OUTR_LEN(rows), &r->c, init->metadata, &errors);
    if (rc)
        *err = errors.items[0];
    else if (!outr_sqlite_is_name(r->c.table) || !outr_sqlite_is_name(r->c.metadata_table))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT,
                       "tableName and metadataTableName may hold letters, digits and _ only");
    else
        rc = outr_worker_open(&r->worker, &worker, err);
    if (rc) {
        free(r);
        return rc;
    }
    if (r->c.connection.n) {
        r->connection = outr_str_dup(r->c.connection);
    } else {
        char path[512];
        snprintf(path, sizeof path, OUTR_FMT "/" DEFAULT_FILE, OUTR_ARG(init->run_dir));
        r->connection = outr_strdup(path);
    }
    r->c.connection = outr_str_from(r->connection);
    r->own_namespace = outr_str_dup(init->namespace_);
    r->loop = init->loop;
    r->log = init->log;
    r->beat.fire = on_beat;
    r->touched = (outr_fd_watch){.ready = on_touched, .fd = -1};
    r->base.watchers = outr_watchers_new();
    extern const outr_resolver_backend outr_nameresolution_sqlite;
    r->base.backend = &outr_nameresolution_sqlite;
    *out = &r->base;
    return OUTR_OK;
}

static void open_resolver(outr_resolver *base, outr_op *op)
{
    run_simple(of(base), OPEN, op);
}

static void close_resolver(outr_resolver *base, outr_op *op)
{
    resolver *r = of(base);
    r->is_closing = true;
    outr_timer_stop(r->loop, &r->beat);
    stop_watching(r);
    outr_watchers_close(r->base.watchers);
    run_simple(r, CLOSE, op);
}

static void join(outr_resolver *base, const outr_self *self, outr_op *op)
{
    resolver *r = of(base);
    OUTR_AUTO(outr_buf) labels = OUTR_BUF_MAX(OUTR_LABELS_TEXT_MAX);
    char text[300], uuid[OUTR_UUID_LEN + 1];
    bool is_v6 = outr_str_find(self->host, ':') >= 0;
    snprintf(text, sizeof text, is_v6 ? "[" OUTR_FMT "]:%u" : OUTR_FMT ":%u", OUTR_ARG(self->host),
             self->internal_port);
    outr_rand_uuid(outr_loop_rand(r->loop), uuid);
    r->address = outr_strdup(text);
    r->app_id = outr_str_dup(self->app_id);
    r->namespace_ = outr_str_dup(self->namespace_);
    r->id = outr_strdup(uuid);
    outr_labels_write(&labels, self->labels);
    r->labels = outr_str_dup(outr_buf_view(&labels));
    run_simple(r, PUT, op);
}

typedef struct finding {
    job job;
    outr_op *op;
    outr_op inner;
} finding;

static void on_found(outr_op *inner)
{
    finding *f = OUTR_CONTAINER(inner, finding, inner);
    outr_resolve *req = f->job.resolve;
    outr_op *op = f->op;
    outr_err err = inner->err;
    if (!err.code) {
        req->instances = outr_arena_alloc(req->arena, (f->job.count + 1) * sizeof *req->instances);
        for (size_t i = 0; i < f->job.count; i++) {
            const row *found = &f->job.found[i];
            outr_instance *out = &req->instances[req->count];
            outr_str text = outr_arena_str(req->arena, outr_str_from(found->address));
            if (outr_addr_parse(&out->addr, text, NULL))
                continue;
            out->id = outr_arena_str(req->arena, outr_str_from(found->id));
            outr_labels_parse(&out->labels, req->arena, outr_str_from(found->labels), NULL);
            req->count++;
        }
    }
    for (size_t i = 0; i < f->job.count; i++) {
        free(f->job.found[i].address);
        free(f->job.found[i].labels);
        free(f->job.found[i].id);
    }
    free(f->job.found);
    free(f);
    if (err.code)
        outr_op_fail(op, &err);
    else
        outr_op_finish(op);
}

static void resolve(outr_resolver *base, outr_resolve *req, outr_op *op)
{
    finding *f = outr_alloc(sizeof *f);
    f->job.r = of(base);
    f->job.what = FIND;
    f->job.resolve = req;
    f->op = op;
    req->count = 0;
    outr_op_begin(op, f, NULL);
    outr_op_init(&f->inner, op->loop, NULL, 0, on_found);
    outr_worker_submit(f->job.r->worker, &f->job.work, &f->inner);
}

extern const outr_resolver_backend outr_nameresolution_sqlite;
const outr_resolver_backend outr_nameresolution_sqlite = {
    .base = {"nameresolution.sqlite", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_resolver,
    .close = close_resolver,
    .join = join,
    .resolve = resolve,
    .cache_ns = CACHE_NS,
};
