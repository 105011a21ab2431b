#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <unistd.h>

#include "lib/wire.h"
#include "security/trust.h"
#include "tls/cert.h"

static unsigned changes;

static void on_change(outr_trust *trust)
{
    (void)trust;
    changes++;
}

static outr_buf make_root(const char *name)
{
    outr_buf pem = OUTR_BUF_MAX(8 * OUTR_KIB);
    outr_key *key;
    outr_err err;
    assert_int_equal(outr_key_make(&key, &err), OUTR_OK);
    const outr_cert_order o = {.subject_key = key,
                               .organization = outr_str_from(name),
                               .is_ca = true,
                               .not_before_s = 1000,
                               .not_after_s = 2000000000,
                               .issuer_key = key};
    assert_int_equal(outr_cert_sign(&pem, &o, &err), OUTR_OK);
    outr_key_unref(key);
    return pem;
}

static void put(const char *path, outr_str text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fwrite(text.p, 1, text.n, file);
    fclose(file);
}

static void a_bundle_comes_from_a_variable_or_a_file(void **state)
{
    outr_buf root = make_root("a");
    outr_trust trust;
    outr_err err;
    (void)state;
    assert_int_equal(outr_trust_open(&trust, outr_buf_view(&root), NULL, &err), OUTR_OK);
    assert_true(outr_str_eq(outr_buf_view(&trust.pem), outr_buf_view(&root)));
    outr_trust_close(&trust);
    assert_int_equal(outr_trust_open(&trust, OUTR_STR("nonsense"), NULL, &err),
                     OUTR_INVALID_ARGUMENT);
    assert_int_equal(outr_trust_open(&trust, OUTR_STR_NONE, "/nowhere/at/all", &err),
                     OUTR_NOT_FOUND);
    outr_buf_done(&root);
}

/* Pitfall 23: renamed over, a link turned elsewhere, written in place; and a broken one in between. */
static void a_changed_file_is_noticed_however_it_changed(void **state)
{
    char dir[] = "/tmp/outrigger-trust-XXXXXX", path[64], first[64], second[64];
    outr_buf roots[3] = {make_root("a"), make_root("b"), make_root("c")};
    outr_trust trust;
    outr_err err;
    wire w;
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/anchors", dir);
    snprintf(first, sizeof first, "%s/first", dir);
    snprintf(second, sizeof second, "%s/second", dir);
    put(first, outr_buf_view(&roots[0]));
    put(second, outr_buf_view(&roots[1]));
    assert_int_equal(symlink("first", path), 0);
    wire_init(&w, 1);
    changes = 0;
    assert_int_equal(outr_trust_open(&trust, OUTR_STR_NONE, path, &err), OUTR_OK);
    outr_trust_watch(&trust, w.loop, on_change);
    wire_sleep(&w, 10 * OUTR_SEC);
    assert_int_equal(changes, 0);
    unlink(path);
    wire_sleep(&w, 10 * OUTR_SEC); /* gone: the former stays */
    assert_int_equal(changes, 0);
    assert_int_equal(symlink("second", path), 0);
    wire_sleep(&w, 2 * OUTR_SEC);
    assert_int_equal(changes, 1);
    assert_true(outr_str_eq(outr_buf_view(&trust.pem), outr_buf_view(&roots[1])));
    put(second, OUTR_STR("-----BEGIN CERTIFICATE-----\nhalf"));
    wire_sleep(&w, 10 * OUTR_SEC);
    assert_int_equal(changes, 1);
    put(second, outr_buf_view(&roots[2]));
    wire_sleep(&w, 2 * OUTR_SEC);
    assert_int_equal(changes, 2);
    assert_int_equal(rename(first, path), 0);
    wire_sleep(&w, 2 * OUTR_SEC);
    assert_int_equal(changes, 3);
    assert_true(outr_str_eq(outr_buf_view(&trust.pem), outr_buf_view(&roots[0])));
    outr_trust_close(&trust);
    wire_done(&w);
    unlink(path);
    unlink(second);
    rmdir(dir);
    for (size_t i = 0; i < OUTR_LEN(roots); i++)
        outr_buf_done(&roots[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bundle_comes_from_a_variable_or_a_file),
        cmocka_unit_test(a_changed_file_is_noticed_however_it_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
