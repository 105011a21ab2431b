#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit/components/bindings.h"

#define TYPE "bindings.localstorage"

static bench *open_files(void)
{
    bench *b = make_bench();
    const char *const metadata[] = {"rootPath", folder_path(&b->dir, "root/files"), NULL};
    assert_int_equal(open_binding(b, TYPE, metadata), OUTR_OK);
    return b;
}

static outr_code run(bench *b, const char *operation, const char *name, const char *data)
{
    const char *const metadata[] = {"fileName", name, NULL};
    start_invoke(b, operation, outr_str_from(data), name ? metadata : NULL);
    return wait(b);
}

static void assert_answer(bench *b, const char *operation, const char *name, const char *data,
                          const char *answer)
{
    if (run(b, operation, name, data))
        fail_msg("%s %s: %s", operation, name, b->err.text);
    assert_true(b->req.has_answer);
    if (!outr_str_is(b->req.answer, answer))
        fail_msg("%s %s: " OUTR_FMT, operation, name, OUTR_ARG(b->req.answer));
}

static bool exists(bench *b, const char *name)
{
    struct stat st;
    return lstat(folder_path(&b->dir, name), &st) == 0;
}

static void files_are_made_read_listed_and_deleted(void **state OUTR_UNUSED)
{
    bench *b = open_files();
    char expected[256];
    assert_answer(b, "create", "a.txt", "\"one <1>\"", "{\"fileName\":\"a.txt\"}");
    assert_answer(b, "get", "a.txt", "", "one <1>");
    assert_answer(b, "create", "/deep/er//b", "{\"x\":1}", "{\"fileName\":\"deep/er/b\"}");
    assert_answer(b, "get", "deep/er/b", "", "{\"x\":1}");
    char root[PATH_MAX];
    assert_non_null(realpath(folder_path(&b->dir, "root/files"), root));
    snprintf(expected, sizeof expected, "[\"%.90s/a.txt\",\"%.90s/deep/er/b\"]", root, root);
    assert_answer(b, "list", NULL, "", expected);
    assert_int_equal(run(b, "delete", "a.txt", ""), OUTR_OK);
    assert_false(b->req.has_answer);
    assert_int_equal(run(b, "get", "a.txt", ""), OUTR_NOT_FOUND);
    close_bench(b);
}

static void base64_is_stored_as_bytes(void **state OUTR_UNUSED)
{
    static const struct {
        const char *data, *stored;
    } cases[] = {
        {"\"aGVsbG8=\"", "hello"}, {"aGVs\nbG8=", "hello"}, {"\"a-_=\"", "a-_="},
        {"\"abc\"", "abc"},        {"null", ""},            {"", ""},
        {"aGVsbG8=x", "aGVsbG8=x"}, {"\"broken", "\"broken"}, {"====", "===="},
    };
    bench *b = open_files();
    for (size_t i = 0; i < OUTR_LEN(cases); i++) {
        assert_int_equal(run(b, "create", "f", cases[i].data), OUTR_OK);
        assert_answer(b, "get", "f", "", cases[i].stored);
    }
    close_bench(b);
}

static void without_a_name_one_is_made_up(void **state OUTR_UNUSED)
{
    bench *b = open_files();
    assert_int_equal(run(b, "create", NULL, "x"), OUTR_OK);
    assert_int_equal(b->req.answer.n, 36 + sizeof "{\"fileName\":\"\"}" - 1);
    assert_int_not_equal(run(b, "get", NULL, ""), OUTR_OK);    /* the folder itself */
    assert_int_not_equal(run(b, "delete", NULL, ""), OUTR_OK); /* stays */
    assert_true(exists(b, "root/files"));
    close_bench(b);
}

static void no_name_leads_out_of_the_folder(void **state OUTR_UNUSED)
{
    bench *b = open_files();
    folder_write(&b->dir, "outside", "secret");
    assert_int_equal(symlink("../../outside", folder_path(&b->dir, "root/files/up")), 0);
    assert_int_equal(symlink(folder_path(&b->dir, "outside"), folder_path(&b->dir, "root/files/abs")),
                     0);
    assert_int_equal(symlink("../..", folder_path(&b->dir, "root/files/dir")), 0);
    assert_int_equal(symlink("loop", folder_path(&b->dir, "root/files/loop")), 0);
    static const char *const names[] = {"../../outside", "/../../outside", "x/../../../outside",
                                        "up",            "abs",            "dir/outside"};
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        if (run(b, "get", names[i], "") == OUTR_OK)
            fail_msg("%s was read", names[i]);
        run(b, "delete", names[i], "");
        assert_true(exists(b, "outside"));
    }
    assert_answer(b, "create", "../../../esc", "1", "{\"fileName\":\"esc\"}");
    assert_true(exists(b, "root/files/esc"));
    assert_answer(b, "create", "dir/in", "1", "{\"fileName\":\"in\"}");
    assert_true(exists(b, "root/files/in"));
    assert_false(exists(b, "in"));
    assert_int_equal(run(b, "get", "loop", ""), OUTR_INVALID_ARGUMENT);
    assert_int_equal(run(b, "create", "loop/x", ""), OUTR_INVALID_ARGUMENT);
    close_bench(b);
}

static void links_inside_are_followed(void **state OUTR_UNUSED)
{
    bench *b = open_files();
    assert_int_equal(run(b, "create", "real/f", "\"x\""), OUTR_OK);
    assert_int_equal(symlink("real", folder_path(&b->dir, "root/files/alias")), 0);
    assert_int_equal(symlink("/real/f", folder_path(&b->dir, "root/files/g")), 0);
    assert_answer(b, "get", "alias/f", "", "x");
    assert_answer(b, "get", "g", "", "x");
    assert_answer(b, "create", "g", "\"y\"", "{\"fileName\":\"real/f\"}");
    assert_answer(b, "get", "real/f", "", "y");
    close_bench(b);
}

static void names_no_file_can_have_are_refused(void **state OUTR_UNUSED)
{
    bench *b = open_files();
    char deep[2 * 200 + 1], longest[5000];
    for (size_t i = 0; i < 200; i++)
        memcpy(deep + 2 * i, "d/", 3);
    memset(longest, 'n', sizeof longest);
    longest[300] = 0;
    assert_int_equal(run(b, "create", deep, ""), OUTR_INVALID_ARGUMENT);
    assert_int_equal(run(b, "create", longest, ""), OUTR_INVALID_ARGUMENT);
    longest[300] = 'n';
    longest[sizeof longest - 1] = 0;
    assert_int_equal(run(b, "create", longest, ""), OUTR_INVALID_ARGUMENT);
    const outr_kv nul = {OUTR_STR("fileName"), outr_str_of("a\0b", 3)};
    b->req = (outr_binding_invoke){
        .arena = b->arena, .operation = OUTR_STR("create"), .metadata = {&nul, 1}};
    b->backend->invoke(b->binding, &b->req, begin(b));
    assert_int_equal(wait(b), OUTR_INVALID_ARGUMENT);
    close_bench(b);
}

static void what_is_no_file_does_not_hold_the_thread_up(void **state OUTR_UNUSED)
{
    bench *b = open_files();
    assert_int_equal(mkfifo(folder_path(&b->dir, "root/files/pipe"), 0600), 0);
    assert_int_not_equal(run(b, "get", "pipe", ""), OUTR_OK);
    assert_int_not_equal(run(b, "create", "pipe", "x"), OUTR_OK);
    assert_int_equal(run(b, "list", "pipe", ""), OUTR_INVALID_ARGUMENT);
    close_bench(b);
}

static void an_empty_folder_lists_as_null(void **state OUTR_UNUSED)
{
    bench *b = open_files();
    assert_answer(b, "list", "/", "", "null");
    assert_int_equal(run(b, "list", "absent", ""), OUTR_NOT_FOUND);
    close_bench(b);
}

static void bad_roots_do_not_open(void **state OUTR_UNUSED)
{
    bench *b = make_bench();
    folder_write(&b->dir, "file", "");
    const char *const roots[] = {"", "/proc/self", "/sys", folder_path(&b->dir, "file"),
                                 folder_path(&b->dir, "file/below")};
    assert_int_equal(symlink("/proc", folder_path(&b->dir, "link")), 0);
    for (size_t i = 0; i < OUTR_LEN(roots); i++) {
        const char *const metadata[] = {"rootPath", roots[i], NULL};
        if (open_binding(b, TYPE, metadata) == OUTR_OK)
            fail_msg("%s opened", roots[i]);
        if (b->binding) {
            b->backend->close(b->binding, begin(b));
            wait(b);
            b->binding = NULL;
        }
    }
    const char *const link[] = {"rootPath", folder_path(&b->dir, "link/1"), NULL};
    assert_int_not_equal(open_binding(b, TYPE, link), OUTR_OK);
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_made_read_listed_and_deleted),
        cmocka_unit_test(base64_is_stored_as_bytes),
        cmocka_unit_test(without_a_name_one_is_made_up),
        cmocka_unit_test(no_name_leads_out_of_the_folder),
        cmocka_unit_test(links_inside_are_followed),
        cmocka_unit_test(names_no_file_can_have_are_refused),
        cmocka_unit_test(what_is_no_file_does_not_hold_the_thread_up),
        cmocka_unit_test(an_empty_folder_lists_as_null),
        cmocka_unit_test(bad_roots_do_not_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
