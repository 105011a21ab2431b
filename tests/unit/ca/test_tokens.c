#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/ca/tokens.h"
#include "security/secretfile.h"

#define NOW ((int64_t)1800000000)

typedef struct world {
    char dir[256], key[300], keys[300];
    outr_ca_tokens_options o;
    outr_arena *arena;
} world;

static world *open_world(void)
{
    world *w = outr_alloc(sizeof *w);
    snprintf(w->dir, sizeof w->dir, "/tmp/outrigger-tokens-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->key, sizeof w->key, "%s/jwt.key", w->dir);
    snprintf(w->keys, sizeof w->keys, "%s/jwks.json", w->dir);
    w->o = (outr_ca_tokens_options){.dir = w->dir,
                                    .key_name = OUTR_STR("jwt.key"),
                                    .keys_name = OUTR_STR("jwks.json"),
                                    .algorithm = OUTR_STR("RS256"),
                                    .ttl_s = 3600,
                                    .skew_s = 900};
    w->arena = outr_arena_new(OUTR_MIB);
    return w;
}

static void close_world(world *w)
{
    unlink(w->key);
    unlink(w->keys);
    assert_int_equal(rmdir(w->dir), 0);
    outr_arena_free(w->arena);
    free(w);
}

static void files_are_made_once_and_for_nobody_else(void **state)
{
    world *w = open_world();
    outr_ca_tokens *first, *second;
    struct stat st;
    outr_err err;
    bool made;
    (void)state;
    assert_int_equal(outr_ca_tokens_open(&first, &w->o, &made, &err), OUTR_OK);
    assert_true(made);
    assert_int_equal(stat(w->key, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(w->keys, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(outr_ca_tokens_open(&second, &w->o, &made, &err), OUTR_OK);
    assert_false(made);
    assert_true(outr_str_eq(outr_ca_tokens_keys(first), outr_ca_tokens_keys(second)));
    outr_ca_tokens_free(first);
    outr_ca_tokens_free(second);
    close_world(w);
}

static void a_token_says_who_for_whom_and_how_long(void **state)
{
    world *w = open_world();
    const outr_str audience = OUTR_STR("you");
    outr_jwt_rules rules = {
        .issuer = OUTR_STR("https://me"), .audiences = &audience, .audience_count = 1, .now_s = NOW};
    outr_ca_tokens *t;
    outr_jwks *keys;
    outr_claims *claims = NULL;
    outr_str one, two;
    int64_t expires_s;
    outr_err err;
    bool made;
    (void)state;
    w->o.issuer = OUTR_STR("https://me");
    assert_int_equal(outr_ca_tokens_open(&t, &w->o, &made, &err), OUTR_OK);
    assert_int_equal(outr_jwks_parse(&keys, outr_ca_tokens_keys(t), &err), OUTR_OK);
    assert_int_equal(outr_ca_tokens_issue(t, OUTR_STR("spiffe://public/ns/default/a"), audience,
                                          NOW, NOW + 86400, w->arena, &one, &err),
                     OUTR_OK);
    assert_null(outr_jwt_check(one, keys, &rules, w->arena, &claims, &expires_s));
    assert_int_equal(expires_s, NOW + 3600);
    assert_true(outr_str_is(outr_claims_text(claims, OUTR_STR("sub"), w->arena),
                            "spiffe://public/ns/default/a"));
    assert_true(outr_str_is(outr_claims_text(claims, OUTR_STR("nbf"), w->arena), "1799999100"));
    assert_true(outr_str_is(outr_claims_text(claims, OUTR_STR("use"), w->arena), "sig"));
    assert_int_equal(outr_claims_text(claims, OUTR_STR("jti"), w->arena).n, 32);
    outr_claims_unref(claims);
    /* it ends with the authority at the latest, and no two are the same */
    assert_int_equal(outr_ca_tokens_issue(t, OUTR_STR("s"), audience, NOW, NOW + 60, w->arena, &one,
                                          &err),
                     OUTR_OK);
    assert_int_equal(outr_ca_tokens_issue(t, OUTR_STR("s"), audience, NOW, NOW + 60, w->arena, &two,
                                          &err),
                     OUTR_OK);
    assert_false(outr_str_eq(one, two));
    assert_null(outr_jwt_check(two, keys, &rules, w->arena, &claims, &expires_s));
    assert_int_equal(expires_s, NOW + 60);
    outr_claims_unref(claims);
    outr_jwks_unref(keys);
    outr_ca_tokens_free(t);
    close_world(w);
}

static void files_that_do_not_fit_are_named_and_left_alone(void **state)
{
    world *w = open_world();
    OUTR_AUTO(outr_buf) before = {0};
    OUTR_AUTO(outr_buf) after = {0};
    outr_ca_tokens *t;
    outr_err err;
    bool made;
    (void)state;
    assert_int_equal(outr_ca_tokens_open(&t, &w->o, &made, &err), OUTR_OK);
    outr_ca_tokens_free(t);
    w->o.algorithm = OUTR_STR("ES256");
    assert_int_equal(outr_ca_tokens_open(&t, &w->o, &made, &err), OUTR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "jwt.key: the key is none for ES256"));
    w->o.algorithm = OUTR_STR("RS256");
    w->o.key_id = OUTR_STR("mine"); /* the key set has it under its thumbprint */
    assert_int_equal(outr_ca_tokens_open(&t, &w->o, &made, &err), OUTR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "jwks.json: "));
    w->o.key_id = OUTR_STR_NONE;
    /* a key set without its key: nobody makes another key for it */
    assert_int_equal(outr_secretfile_read(&before, w->keys, OUTR_MIB, OUTR_FILE_ANY, &err), 0);
    unlink(w->key);
    assert_int_equal(outr_ca_tokens_open(&t, &w->o, &made, &err), OUTR_NOT_FOUND);
    assert_int_equal(access(w->key, F_OK), -1);
    assert_int_equal(outr_secretfile_read(&after, w->keys, OUTR_MIB, OUTR_FILE_ANY, &err), 0);
    assert_true(outr_str_eq(outr_buf_view(&before), outr_buf_view(&after)));
    unlink(w->keys);
    assert_int_equal(outr_ca_tokens_open(&t, &w->o, &made, &err), OUTR_OK);
    assert_true(made);
    outr_ca_tokens_free(t);
    /* a key without its set: that can be written again */
    unlink(w->keys);
    assert_int_equal(outr_ca_tokens_open(&t, &w->o, &made, &err), OUTR_OK);
    assert_false(made);
    outr_ca_tokens_free(t);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_made_once_and_for_nobody_else),
        cmocka_unit_test(a_token_says_who_for_whom_and_how_long),
        cmocka_unit_test(files_that_do_not_fit_are_named_and_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
