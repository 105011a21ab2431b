#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "security/machine.h"

#define NOW ((int64_t)1800000000)
#define DAY ((int64_t)24 * 3600)

static void the_folder_is_named_or_below_home(void **state)
{
    static const struct {
        const char *dir, *home, *key;
    } rows[] = {
        {"/a/b", "/home/x", "/a/b/issuer.key"},
        {"", "/home/x", "/home/x/.outrigger/mtls/issuer.key"},
        {"rel", "", "rel/issuer.key"},
        {"", "", NULL},
        {"", "not/absolute", NULL},
    };
    char longer[600];
    outr_machine m;
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        outr_code rc = outr_machine_find(&m, outr_str_from(rows[i].dir),
                                         outr_str_from(rows[i].home), &err);
        assert_int_equal(rc, rows[i].key ? OUTR_OK : OUTR_INVALID_ARGUMENT);
        if (!rc)
            assert_string_equal(m.key, rows[i].key);
    }
    memset(longer, 'x', sizeof longer);
    assert_int_equal(outr_machine_find(&m, outr_str_of(longer, sizeof longer), OUTR_STR_NONE, &err),
                     OUTR_INVALID_ARGUMENT);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void secrets_are_read_only_when_they_are(void **state)
{
    char dir[] = "/tmp/outrigger-secret-XXXXXX", path[64];
    outr_buf text = {0};
    outr_err err;
    struct stat st;
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
    assert_int_equal(outr_secretfile_read(&text, path, 100, OUTR_FILE_OWN, &err), OUTR_NOT_FOUND);
    assert_int_equal(outr_secretfile_write(path, OUTR_STR("one"), OUTR_FILE_NEW, &err), OUTR_OK);
    assert_int_equal(outr_secretfile_write(path, OUTR_STR("two"), OUTR_FILE_NEW, &err),
                     OUTR_ALREADY_EXISTS);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(outr_secretfile_read(&text, path, 100, OUTR_FILE_OWN, &err), OUTR_OK);
    assert_true(outr_str_is(outr_buf_view(&text), "one"));
    assert_int_equal(outr_secretfile_write(path, OUTR_STR("two"), OUTR_FILE_OVER, &err), OUTR_OK);
    assert_int_equal(outr_secretfile_read(&text, path, 2, OUTR_FILE_OWN, &err),
                     OUTR_INVALID_ARGUMENT); /* too long */
    assert_true(outr_str_is(outr_buf_view(&text), "one")); /* untouched */
    static const mode_t modes[] = {0640, 0604, 0660, 0601};
    for (size_t i = 0; i < OUTR_LEN(modes); i++) {
        chmod(path, modes[i]);
        assert_int_equal(outr_secretfile_read(&text, path, 100, OUTR_FILE_PRIVATE, &err),
                         OUTR_PERMISSION_DENIED);
        assert_int_equal(outr_secretfile_read(&text, path, 100, OUTR_FILE_ANY, &err), OUTR_OK);
    }
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody waits for its other end */
    assert_int_equal(outr_secretfile_read(&text, path, 100, OUTR_FILE_ANY, &err),
                     OUTR_INVALID_ARGUMENT);
    outr_buf_done(&text);
    unlink(path);
    assert_int_equal(rmdir(dir), 0); /* no drafts are left */
}

/* ---- issuers --------------------------------------------------------------------------------- */

typedef struct made {
    outr_buf root, issuer;
    outr_key *root_key, *key;
} made;

static made make(bool is_of_member)
{
    made m = {.root = OUTR_BUF_MAX(OUTR_MIB), .issuer = OUTR_BUF_MAX(OUTR_MIB)};
    outr_err err;
    outr_issuer_make order = {
        .organization = OUTR_STR("localhost"), .life_s = 10 * DAY, .skew_s = 60};
    assert_int_equal(outr_issuer_make_new(&m.root, &m.root_key, &order, NOW, &err), OUTR_OK);
    order.organization = OUTR_STR("issuer");
    order.root_pem = outr_buf_view(&m.root);
    order.root_key = m.root_key;
    order.is_of_member = is_of_member;
    assert_int_equal(outr_issuer_make_new(&m.issuer, &m.key, &order, NOW, &err), OUTR_OK);
    return m;
}

static void made_done(made *m)
{
    outr_buf_done(&m->root);
    outr_buf_done(&m->issuer);
    outr_key_unref(m->root_key);
    outr_key_unref(m->key);
}

static void a_member_signs_for_apps_alone(void **state)
{
    static const struct {
        const char *uri;
        bool is_app;
    } rows[] = {
        {"spiffe://public/ns/default/a", true},
        {"spiffe://localhost/ns/default/dapr-sentry", false},
        {"spiffe://public.example/ns/default/a", false},
    };
    (void)state;
    for (int is_member = 0; is_member < 2; is_member++) {
        made m = make(is_member);
        const outr_issuer issuer = {
            .roots = m.root, .chain = m.issuer, .key = m.key, .expires_s = NOW + DAY};
        outr_err err;
        for (size_t i = 0; i < OUTR_LEN(rows); i++) {
            OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(OUTR_MIB);
            OUTR_AUTO(outr_buf) uri = OUTR_BUF_MAX(1000);
            const outr_issuer_order order = {
                .key = m.key, .uri = outr_str_from(rows[i].uri), .life_s = 60, .skew_s = 60};
            int64_t expires_s;
            assert_int_equal(outr_issuer_sign(&issuer, &order, NOW, &chain, &expires_s, &err),
                             OUTR_OK);
            bool is_good = outr_cert_verify(outr_buf_view(&chain), outr_buf_view(&m.root), NOW,
                                            &err) == OUTR_OK;
            if (is_good != (rows[i].is_app || !is_member))
                fail_msg("row %zu, member %d: %s", i, is_member, err.text);
            assert_int_equal(outr_cert_uri(&uri, outr_buf_view(&chain), &err), OUTR_OK);
            assert_true(outr_str_is(outr_buf_view(&uri), rows[i].uri));
            assert_int_equal(outr_cert_uri(&uri, outr_buf_view(&m.root), &err),
                             OUTR_INVALID_ARGUMENT);
        }
        /* and makes no issuers of its own */
        OUTR_AUTO(outr_buf) below = OUTR_BUF_MAX(OUTR_MIB);
        OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(OUTR_MIB);
        outr_key *key;
        const outr_issuer_make order = {.organization = OUTR_STR("x"),
                                        .life_s = DAY,
                                        .root_pem = outr_buf_view(&m.issuer),
                                        .root_key = m.key};
        int64_t expires_s;
        assert_int_equal(outr_issuer_make_new(&below, &key, &order, NOW, &err), OUTR_OK);
        outr_buf_str(&below, outr_buf_view(&m.issuer));
        const outr_issuer second = {.chain = below, .key = key, .expires_s = NOW + DAY};
        const outr_issuer_order leaf = {
            .key = key, .uri = OUTR_STR("spiffe://public/ns/default/a"), .life_s = 60};
        assert_int_equal(outr_issuer_sign(&second, &leaf, NOW, &chain, &expires_s, &err), OUTR_OK);
        assert_int_equal(
            outr_cert_verify(outr_buf_view(&chain), outr_buf_view(&m.root), NOW, &err) == OUTR_OK,
            !is_member);
        outr_key_unref(key);
        made_done(&m);
    }
}

/* ---- join tokens ----------------------------------------------------------------------------- */

static void a_token_comes_back_as_it_was(void **state)
{
    made m = make(true), other = make(false);
    OUTR_AUTO(outr_buf) key = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) token = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) text = {0};
    outr_join join, back;
    outr_err err;
    (void)state;
    outr_buf_str(&m.root, outr_buf_view(&other.root)); /* a bundle of two */
    assert_int_equal(outr_key_write(&key, m.key, &err), OUTR_OK);
    join = (outr_join){outr_buf_view(&m.issuer), outr_buf_view(&m.root), outr_buf_view(&key), NOW};
    assert_true(outr_join_write(&token, &join));
    assert_null(memchr(token.p, '\n', token.n));
    assert_true(token.n < 4096); /* what a terminal takes as one line */
    assert_int_equal(outr_join_read(&back, &text, outr_buf_view(&token), &err), OUTR_OK);
    assert_true(outr_str_eq(outr_str_trim(back.issuer), outr_str_trim(join.issuer)));
    assert_true(outr_str_eq(back.roots, outr_str_trim(join.roots)));
    assert_true(outr_str_eq(back.key, join.key));
    assert_int_equal(back.before_s, NOW);
    for (size_t n = 0; n + 4 < token.n; n++) { /* the last ones are a line's end */
        OUTR_AUTO(outr_buf) part = {0};
        assert_int_equal(outr_join_read(&back, &part, outr_str_of(token.p, n), &err),
                         OUTR_INVALID_ARGUMENT);
    }
    made_done(&m);
    made_done(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_folder_is_named_or_below_home),
        cmocka_unit_test(secrets_are_read_only_when_they_are),
        cmocka_unit_test(a_member_signs_for_apps_alone),
        cmocka_unit_test(a_token_comes_back_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
