#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "components/common/sqlite.h"
#include "lib/folder.h"

static sqlite3 *holder; /* may write to the file until somebody has waited for it */
static unsigned waits;

static int on_sleep(sqlite3_vfs *vfs OUTR_UNUSED, int us)
{
    if (++waits == 3)
        assert_int_equal(sqlite3_exec(holder, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    return us;
}

static void who_turns_a_file_to_wal_waits_for_others_and_has_no_error(void **state)
{
    sqlite3_vfs vfs = *sqlite3_vfs_find(NULL);
    (void)state;
    vfs.zName = "test";
    vfs.xSleep = on_sleep;
    assert_int_equal(sqlite3_vfs_register(&vfs, 1), SQLITE_OK);
    folder dir;
    folder_make(&dir);
    char path[512];
    snprintf(path, sizeof path, "%s/db", dir.path);
    assert_int_equal(sqlite3_open(path, &holder), SQLITE_OK);
    assert_int_equal(sqlite3_exec(holder, "CREATE TABLE t (x); BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    const outr_sqlite_options o = {.connection = outr_str_from(path),
                                   .busy_timeout_ns = 60 * (int64_t)OUTR_SEC};
    sqlite3 *db = NULL;
    outr_err err = {0};
    assert_int_equal(outr_sqlite_open(&db, &o, &err), OUTR_OK);
    assert_int_equal(err.code, OUTR_OK);
    assert_true(waits >= 3);
    outr_sqlite_close(db);
    sqlite3_close(holder);
    sqlite3_vfs_unregister(&vfs);
    folder_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_turns_a_file_to_wal_waits_for_others_and_has_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
