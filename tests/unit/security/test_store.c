#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "security/secretfile.h"
#include "security/store.h"

typedef struct world {
    char dir[64], path[80], passphrase[80];
    outr_key *key;
    outr_buf chain;
} world;

static world *open_world(void)
{
    world *w = outr_alloc(sizeof *w);
    outr_err err;
    snprintf(w->dir, sizeof w->dir, "/tmp/outrigger-store-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->path, sizeof w->path, "%s/identity", w->dir);
    snprintf(w->passphrase, sizeof w->passphrase, "%s/passphrase", w->dir);
    assert_int_equal(outr_key_make(&w->key, &err), OUTR_OK);
    w->chain = OUTR_BUF_MAX(OUTR_MIB);
    const outr_cert_order o = {.subject_key = w->key,
                               .uri = OUTR_STR("spiffe://public/ns/default/a"),
                               .not_before_s = 1000,
                               .not_after_s = 2000000000,
                               .issuer_key = w->key};
    assert_int_equal(outr_cert_sign(&w->chain, &o, &err), OUTR_OK);
    return w;
}

static void close_world(world *w)
{
    unlink(w->path);
    unlink(w->passphrase);
    assert_int_equal(rmdir(w->dir), 0); /* nothing else was left */
    outr_key_unref(w->key);
    outr_buf_done(&w->chain);
    free(w);
}

static void put(const char *path, outr_str text)
{
    outr_err err;
    assert_int_equal(outr_secretfile_write(path, text, OUTR_FILE_OVER, &err), OUTR_OK);
}

static outr_store store_of(const world *w, const char *passphrase)
{
    outr_store store;
    outr_err err;
    put(w->passphrase, outr_str_from(passphrase));
    if (outr_store_open(&store, w->path, w->passphrase, &err))
        fail_msg("%s", err.text);
    return store;
}

static void what_was_kept_comes_back(void **state)
{
    world *w = open_world();
    outr_store store = store_of(w, "open sesame\n"), later;
    outr_kept_identity kept = {0};
    OUTR_AUTO(outr_buf) text = {0};
    struct stat st;
    outr_err err;
    (void)state;
    assert_int_equal(outr_store_load(&store, &kept, &err), OUTR_NOT_FOUND);
    for (int64_t n = 0; n < 3; n++) /* written over each time */
        assert_int_equal(outr_store_save(&store, w->key, outr_buf_view(&w->chain), 77 + n, &err),
                         OUTR_OK);
    assert_int_equal(stat(w->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(outr_secretfile_read(&text, w->path, OUTR_MIB, OUTR_FILE_OWN, &err), OUTR_OK);
    assert_true(outr_str_search(outr_buf_view(&text), OUTR_STR("-----BEGIN")) < 0);
    later = store_of(w, "  open sesame");
    assert_int_equal(outr_store_load(&later, &kept, &err), OUTR_OK);
    assert_int_equal(kept.issued_ms, 79);
    assert_int_equal(kept.expires_ms, 2000000000000);
    assert_true(outr_str_eq(outr_buf_view(&kept.chain), outr_buf_view(&w->chain)));
    assert_true(outr_cert_has_key(outr_buf_view(&kept.chain), kept.key));
    /* and is kept again by the same seal */
    assert_int_equal(outr_store_save(&later, kept.key, outr_buf_view(&kept.chain), 80, &err),
                     OUTR_OK);
    outr_kept_identity_done(&kept);
    outr_store_done(&store);
    outr_store_done(&later);
    close_world(w);
}

static void what_was_touched_does_not_open(void **state)
{
    world *w = open_world();
    outr_store store = store_of(w, "open sesame"), other;
    outr_kept_identity kept = {0};
    OUTR_AUTO(outr_buf) text = {0};
    outr_err err;
    (void)state;
    assert_int_equal(outr_store_save(&store, w->key, outr_buf_view(&w->chain), 1, &err), OUTR_OK);
    assert_int_equal(outr_secretfile_read(&text, w->path, OUTR_MIB, OUTR_FILE_OWN, &err), OUTR_OK);
    other = store_of(w, "close sesame");
    assert_int_equal(outr_store_load(&other, &kept, &err), OUTR_UNAUTHENTICATED);
    outr_store_done(&other);
    other = store_of(w, "open sesame");
    for (size_t at = 0; at < text.n; at += 41) { /* the magic, salt, nonce, tag and text */
        text.p[at] ^= 1;
        put(w->path, outr_buf_view(&text));
        outr_code rc = outr_store_load(&other, &kept, &err);
        assert_true(rc == (at < 19 ? OUTR_INVALID_ARGUMENT : OUTR_UNAUTHENTICATED));
        text.p[at] ^= 1;
    }
    for (size_t n = 0; n < text.n; n += 101) {
        put(w->path, outr_str_of(text.p, n));
        assert_int_not_equal(outr_store_load(&other, &kept, &err), OUTR_OK);
    }
    put(w->path, outr_buf_view(&text));
    chmod(w->path, 0644);
    assert_int_equal(outr_store_load(&other, &kept, &err), OUTR_PERMISSION_DENIED);
    chmod(w->path, 0600);
    assert_int_equal(outr_store_load(&other, &kept, &err), OUTR_OK);
    outr_kept_identity_done(&kept);
    outr_store_done(&store);
    outr_store_done(&other);
    close_world(w);
}

static void a_file_of_others_is_not_written_over(void **state)
{
    world *w = open_world();
    outr_kept_identity kept = {0};
    OUTR_AUTO(outr_buf) text = {0};
    outr_err err;
    (void)state;
    for (int mode = 0600; mode <= 0644; mode += 044) {
        put(w->path, OUTR_STR("root:x:0:0\n"));
        chmod(w->path, (mode_t)mode);
        outr_store store = store_of(w, "open sesame");
        assert_int_not_equal(outr_store_load(&store, &kept, &err), OUTR_OK);
        assert_int_equal(outr_store_save(&store, w->key, outr_buf_view(&w->chain), 1, &err),
                         OUTR_FAILED_PRECONDITION);
        assert_int_equal(outr_secretfile_read(&text, w->path, 100, OUTR_FILE_ANY, &err), OUTR_OK);
        assert_true(outr_str_is(outr_buf_view(&text), "root:x:0:0\n"));
        outr_store_done(&store);
    }
    close_world(w);
}

static void a_passphrase_must_be_one(void **state)
{
    world *w = open_world();
    outr_store store;
    outr_err err;
    (void)state;
    assert_int_equal(outr_store_open(&store, w->path, w->passphrase, &err), OUTR_NOT_FOUND);
    put(w->passphrase, OUTR_STR(" short \n"));
    assert_int_equal(outr_store_open(&store, w->path, w->passphrase, &err), OUTR_INVALID_ARGUMENT);
    put(w->passphrase, OUTR_STR("long enough"));
    chmod(w->passphrase, 0640);
    assert_int_equal(outr_store_open(&store, w->path, w->passphrase, &err),
                     OUTR_PERMISSION_DENIED);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_kept_comes_back),
        cmocka_unit_test(what_was_touched_does_not_open),
        cmocka_unit_test(a_file_of_others_is_not_written_over),
        cmocka_unit_test(a_passphrase_must_be_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
