/* sqlite - what all components on SQLite share: opening by connection string, pragmas, errors, a
 * thread that owns the database and commits once for many callers. <sqlite3.h> stays below
 * components/. */
#ifndef OUTR_COMPONENTS_COMMON_SQLITE_H
#define OUTR_COMPONENTS_COMMON_SQLITE_H

#include <sqlite3.h>

#include "base/err.h"
#include "base/str.h"

typedef struct outr_sqlite_options {
    outr_str connection; /* path, "file:..." URI or ":memory:" */
    int64_t busy_timeout_ns;
    bool disable_wal;
    bool is_durable; /* every commit reaches the disk (synchronous=FULL), else at checkpoints */
    bool is_read_only;
} outr_sqlite_options;

/* Makes the file (mode 0600) when absent. Errors name the file. */
outr_code outr_sqlite_open(sqlite3 **out, const outr_sqlite_options *options, outr_err *err);
void outr_sqlite_close(sqlite3 *db);
/* One or several statements without result. */
outr_code outr_sqlite_exec(sqlite3 *db, const char *sql, outr_err *err);
/* The database's error as ours: full disk, locked, corrupt, read-only each in plain words. */
outr_code outr_sqlite_fail(sqlite3 *db, outr_err *err, const char *what);
outr_code outr_sqlite_prepare(sqlite3 *db, sqlite3_stmt **out, const char *sql, outr_err *err);
/* Steps a statement that returns nothing, then resets it. */
outr_code outr_sqlite_run(sqlite3 *db, sqlite3_stmt *stmt, outr_err *err);
void outr_sqlite_bind(sqlite3_stmt *stmt, int at, outr_str text); /* text must live until reset */
outr_str outr_sqlite_text(sqlite3_stmt *stmt, int column);        /* borrowed until the next step */
/* Letters, digits and _, not starting with a digit: may stand in SQL as a name. */
bool outr_sqlite_is_name(outr_str name);

#endif
