#include "components/common/sqlite.h"

#include <fcntl.h>
#include <unistd.h>

#define WAL_PAUSE_MS 5

outr_code outr_sqlite_fail(sqlite3 *db, outr_err *err, const char *what)
{
    switch (sqlite3_errcode(db) & 0xff) {
    case SQLITE_FULL:
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "%s: the disk is full", what);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return outr_fail(err, OUTR_UNAVAILABLE, "%s: the database is locked by another process",
                         what);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return outr_fail(err, OUTR_DATA_LOSS, "%s: the file is corrupt or no database", what);
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return outr_fail(err, OUTR_PERMISSION_DENIED, "%s: the database may not be written", what);
    case SQLITE_CANTOPEN:
        return outr_fail(err, OUTR_PERMISSION_DENIED, "%s: the file cannot be opened: %s", what,
                         strerror(sqlite3_system_errno(db)));
    default:
        return outr_fail(err, OUTR_INTERNAL, "%s: %s", what, sqlite3_errmsg(db));
    }
}

outr_code outr_sqlite_exec(sqlite3 *db, const char *sql, outr_err *err)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK
               ? OUTR_OK
               : outr_sqlite_fail(db, err, "SQLite");
}

outr_code outr_sqlite_prepare(sqlite3 *db, sqlite3_stmt **out, const char *sql, outr_err *err)
{
    return sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) == SQLITE_OK
               ? OUTR_OK
               : outr_sqlite_fail(db, err, "SQLite");
}

outr_code outr_sqlite_run(sqlite3 *db, sqlite3_stmt *stmt, outr_err *err)
{
    int rc = sqlite3_step(stmt);
    outr_code code =
        rc == SQLITE_DONE || rc == SQLITE_ROW ? OUTR_OK : outr_sqlite_fail(db, err, "SQLite");
    sqlite3_reset(stmt);
    return code;
}

void outr_sqlite_bind(sqlite3_stmt *stmt, int at, outr_str text)
{
    sqlite3_bind_text(stmt, at, text.p ? text.p : "", (int)text.n, SQLITE_STATIC);
}

outr_str outr_sqlite_text(sqlite3_stmt *stmt, int column)
{
    const void *p = sqlite3_column_text(stmt, column);
    return outr_str_of(p, (size_t)sqlite3_column_bytes(stmt, column));
}

bool outr_sqlite_is_name(outr_str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!is_letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return name.n > 0 && name.n <= 64;
}

/* Who turns a new file to WAL has it alone, and SQLite asks no busy handler there: two sidecars
 * that start in the same moment wait for each other here. *err stays as it is when that went well:
 * a worker's job has failed when its error is filled. */
static outr_code turn_to_wal(sqlite3 *db, const outr_sqlite_options *o, outr_err *err)
{
    for (int64_t left_ms = o->busy_timeout_ns / (int64_t)OUTR_MS;; left_ms -= WAL_PAUSE_MS) {
        outr_err failure;
        outr_code rc = outr_sqlite_exec(db, "PRAGMA journal_mode=WAL", &failure);
        if (!rc)
            return OUTR_OK;
        if ((sqlite3_errcode(db) & 0xff) != SQLITE_BUSY || left_ms <= 0) {
            *err = failure;
            return rc;
        }
        sqlite3_sleep(WAL_PAUSE_MS);
    }
}

static outr_code set_pragmas(sqlite3 *db, const outr_sqlite_options *o, outr_err *err)
{
    sqlite3_busy_timeout(db, (int)(o->busy_timeout_ns / (int64_t)OUTR_MS));
    bool in_memory = outr_str_is(o->connection, ":memory:");
    if (!o->is_read_only && !o->disable_wal && !in_memory) {
        outr_code rc = turn_to_wal(db, o, err);
        if (rc)
            return rc;
    }
    outr_code rc = outr_sqlite_exec(
        db, o->is_durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", err);
    return rc ? rc : outr_sqlite_exec(db, "PRAGMA foreign_keys=ON; PRAGMA cache_size=-512", err);
}

outr_code outr_sqlite_open(sqlite3 **out, const outr_sqlite_options *o, outr_err *err)
{
    char path[1024];
    sqlite3 *db = NULL;
    if (o->connection.n == 0 || o->connection.n >= sizeof path)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "connectionString must have 1 to %zu bytes",
                         sizeof path - 1);
    memcpy(path, o->connection.p, o->connection.n);
    path[o->connection.n] = 0;
    bool is_plain =
        strcmp(path, ":memory:") != 0 && !outr_str_starts(o->connection, OUTR_STR("file:"));
    if (is_plain && !o->is_read_only) { /* made by us so that it is nobody else's to read */
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0)
            close(fd);
    }
    int flags =
        SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX |
        (o->is_read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    outr_code rc = OUTR_OK;
    if (sqlite3_open_v2(path, &db, flags, NULL) != SQLITE_OK)
        rc = db ? outr_sqlite_fail(db, err, "open")
                : outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "out of memory");
    if (!rc)
        rc = set_pragmas(db, o, err);
    if (rc) {
        sqlite3_close(db);
        return outr_wrap(err, "%s", path);
    }
    *out = db;
    return OUTR_OK;
}

void outr_sqlite_close(sqlite3 *db)
{
    sqlite3_close_v2(db);
}
