#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <unistd.h>

#include "lib/wire.h"
#include "security/secretfile.h"
#include "security/token.h"

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void without_a_file_settings_decide(void **state)
{
    outr_token token = {0};
    outr_token_view views[] = {{.token = &token}, {.token = NULL}};
    outr_err err;
    (void)state;
    for (int named = 0; named < 2; named++) {
        assert_int_equal(outr_token_open(&token, named ? "" : NULL, "X_FILE", &err), OUTR_OK);
        for (size_t i = 0; i < OUTR_LEN(views); i++)
            assert_true(outr_str_is(outr_token_get(&views[i], OUTR_STR("set")), "set"));
    }
    outr_token_stop(&token);
    outr_token_close(&token);
}

static void files_without_a_token_are_refused(void **state)
{
    static const char *const texts[] = {"", " \n\t\n", "two\nlines", "a\rb", "caf\xc3\xa9", "\x7f"};
    char dir[] = "/tmp/outrigger-token-XXXXXX", path[64], longer[5000];
    outr_token token = {0};
    outr_err err;
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/token", dir);
    assert_int_equal(outr_token_open(&token, path, "X_FILE", &err), OUTR_NOT_FOUND);
    assert_non_null(strstr(err.text, "X_FILE: "));
    for (size_t i = 0; i < OUTR_LEN(texts); i++) {
        put(path, texts[i]);
        assert_int_equal(outr_token_open(&token, path, "X_FILE", &err), OUTR_INVALID_ARGUMENT);
    }
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    put(path, longer);
    assert_int_equal(outr_token_open(&token, path, "X_FILE", &err), OUTR_INVALID_ARGUMENT);
    assert_int_equal(token.generation, 0);
    unlink(path);
    rmdir(dir);
}

/* Each loop sees the new one; what is of no use leaves the former in force. */
static void a_changed_file_is_seen_and_a_bad_one_opens_nothing(void **state)
{
    char dir[] = "/tmp/outrigger-token-XXXXXX", path[64], other[64];
    outr_token token = {0};
    outr_token_view one = {.token = &token}, two = {.token = &token};
    outr_err err;
    wire w;
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/token", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    put(path, "  first\n");
    wire_init(&w, 1);
    assert_int_equal(outr_token_open(&token, path, "X_FILE", &err), OUTR_OK);
    outr_token_watch(&token, w.loop);
    assert_true(outr_str_is(outr_token_get(&one, OUTR_STR("set")), "first"));
    wire_sleep(&w, 5 * OUTR_SEC);
    const struct {
        const char *text, *then;
    } rows[] = {{"", "first"},           {"second", "second"}, {"a\nb", "second"},
                {"third word", "third word"}, {"third word\n", "third word"}, {"x", "x"}};
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        put(i % 2 ? path : other, rows[i].text);
        if (i % 2 == 0)
            assert_int_equal(rename(other, path), 0);
        wire_sleep(&w, 2 * OUTR_SEC);
        assert_true(outr_str_is(outr_token_get(&one, OUTR_STR_NONE), rows[i].then));
    }
    assert_true(outr_str_is(outr_token_get(&two, OUTR_STR_NONE), "x")); /* asked for the first time */
    unlink(path);
    wire_sleep(&w, 10 * OUTR_SEC);
    assert_true(outr_str_is(outr_token_get(&one, OUTR_STR_NONE), "x"));
    outr_token_stop(&token);
    outr_token_view_done(&one);
    outr_token_view_done(&two);
    outr_token_close(&token);
    wire_done(&w);
    rmdir(dir);
}

/* Under the thread sanitizer, this is the test. */
typedef struct reader {
    outr_token *token;
    pthread_t thread;
    uint8_t *is_over; /* atomic */
    size_t seen;
} reader;

static void *read_on(void *arg)
{
    reader *r = arg;
    outr_token_view view = {.token = r->token};
    do {
        outr_str text = outr_token_get(&view, OUTR_STR_NONE);
        assert_true(text.n == 8 && text.p[0] == text.p[7]);
        r->seen++;
    } while (!__atomic_load_n(r->is_over, __ATOMIC_ACQUIRE));
    outr_token_view_done(&view);
    return NULL;
}

static void loops_read_while_it_changes(void **state)
{
    char dir[] = "/tmp/outrigger-token-XXXXXX", path[64];
    outr_token token = {0};
    uint8_t is_over = 0;
    reader readers[2];
    outr_err err;
    wire w;
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/token", dir);
    put(path, "aaaaaaaa");
    wire_init(&w, 1);
    assert_int_equal(outr_token_open(&token, path, "X_FILE", &err), OUTR_OK);
    outr_token_watch(&token, w.loop);
    for (size_t i = 0; i < OUTR_LEN(readers); i++) {
        readers[i] = (reader){.token = &token, .is_over = &is_over};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]), 0);
    }
    for (int i = 0; i < 50; i++) {
        char text[9] = {0};
        memset(text, 'a' + i % 26, 8);
        assert_int_equal(outr_secretfile_write(path, outr_str_of(text, 8), OUTR_FILE_OVER, &err), OUTR_OK);
        wire_sleep(&w, 2 * OUTR_SEC);
    }
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    for (size_t i = 0; i < OUTR_LEN(readers); i++) {
        pthread_join(readers[i].thread, NULL);
        assert_true(readers[i].seen > 0);
    }
    outr_token_stop(&token);
    outr_token_close(&token);
    wire_done(&w);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_file_settings_decide),
        cmocka_unit_test(files_without_a_token_are_refused),
        cmocka_unit_test(a_changed_file_is_seen_and_a_bad_one_opens_nothing),
        cmocka_unit_test(loops_read_while_it_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
