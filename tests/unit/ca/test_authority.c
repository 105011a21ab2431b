#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "control/ca/authority.h"
#include "control/ca/ca.h"

#define NOW ((int64_t)1800000000)
#define DAY ((int64_t)24 * 3600)

typedef struct world {
    char dir[256];
    outr_authority_options o;
    outr_authority *a;
    outr_key *key;
    outr_buf csr;
} world;

static world *open_world(void)
{
    world *w = outr_alloc(sizeof *w);
    outr_err err;
    bool made;
    snprintf(w->dir, sizeof w->dir, "/tmp/outrigger-ca-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->o = (outr_authority_options){.dir = w->dir,
                                    .trust_domain = OUTR_STR("localhost"),
                                    .namespace_ = OUTR_STR("default"),
                                    .ttl_s = DAY,
                                    .skew_s = 900};
    if (outr_authority_open(&w->a, &w->o, NOW, &made, &err))
        fail_msg("%s", err.text);
    assert_true(made);
    assert_int_equal(outr_key_make(&w->key, &err), OUTR_OK);
    w->csr = OUTR_BUF_MAX(OUTR_KIB);
    assert_int_equal(outr_csr_write(&w->csr, w->key, &err), OUTR_OK);
    return w;
}

static void path_of(char *out, size_t size, const world *w, const char *name)
{
    snprintf(out, size, "%s/%s", w->dir, name);
}

static void close_world(world *w)
{
    static const char *const names[] = {"ca.crt", "issuer.crt", "issuer.key"};
    char path[300];
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        path_of(path, sizeof path, w, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(w->dir), 0); /* nothing else was left */
    outr_authority_free(w->a);
    outr_key_unref(w->key);
    outr_buf_done(&w->csr);
    free(w);
}

static outr_authority_order order_of(const world *w)
{
    return (outr_authority_order){.id = OUTR_STR("myapp"),
                                  .namespace_ = OUTR_STR("default"),
                                  .csr_pem = outr_buf_view(&w->csr)};
}

static void the_files_are_made_once_and_read_again(void **state)
{
    static const char *const names[] = {"ca.crt", "issuer.crt", "issuer.key"};
    world *w = open_world();
    outr_authority *again;
    outr_err err;
    struct stat st;
    char path[300];
    bool made;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(names); i++) {
        path_of(path, sizeof path, w, names[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    assert_int_equal(outr_authority_open(&again, &w->o, NOW, &made, &err), OUTR_OK);
    assert_false(made);
    assert_true(outr_str_eq(outr_authority_root(again), outr_authority_root(w->a)));
    assert_true(outr_str_is(outr_authority_id(again), "spiffe://localhost/ns/default/dapr-sentry"));
    outr_authority_free(again);
    path_of(path, sizeof path, w, "issuer.crt");
    unlink(path);
    assert_int_equal(outr_authority_open(&again, &w->o, NOW, &made, &err), OUTR_NOT_FOUND);
    assert_non_null(strstr(err.text, "issuer.crt"));
    close_world(w);
}

static void a_workload_gets_a_chain_that_lives_as_long_as_configured(void **state)
{
    world *w = open_world();
    outr_authority_order order = order_of(w);
    OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) uri = OUTR_BUF_MAX(OUTR_KIB);
    outr_cert_info info;
    outr_err err;
    int64_t until;
    (void)state;
    assert_int_equal(outr_authority_sign(w->a, &order, NOW, &chain, &uri, &until, &err), OUTR_OK);
    assert_int_equal(until, NOW + DAY);
    assert_true(outr_str_is(outr_buf_view(&uri), "spiffe://public/ns/default/myapp"));
    assert_int_equal(outr_cert_info_read(&info, outr_buf_view(&chain), &err), OUTR_OK);
    assert_int_equal(info.count, 2);
    assert_int_equal(info.not_after_s, NOW + DAY);
    assert_int_equal(info.not_before_s, NOW - 900);
    assert_true(outr_cert_has_key(outr_buf_view(&chain), w->key));
    assert_int_equal(
        outr_cert_verify(outr_buf_view(&chain), outr_authority_root(w->a), NOW, &err), OUTR_OK);
    close_world(w);
}

/* sentry.jsonl direct.* */
static void requests_are_granted_and_refused_as_sentry_does(void **state)
{
    world *w = open_world();
    static const char a64[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const outr_str csr = outr_buf_view(&w->csr), none = OUTR_STR_NONE, app = OUTR_STR("myapp"),
                   ns = OUTR_STR("default");
    static const char domain_said[] = "trust domain characters are limited to lowercase letters, "
                                      "numbers, dots, dashes, and underscores";
    const struct {
        outr_authority_order order;
        outr_code code;
        const char *said;
    } rows[] = {
        {{app, ns, none, csr, 0, none}, OUTR_OK, NULL},
        {{app, ns, none, csr, 1, none}, OUTR_OK, NULL},
        {{outr_str_of(a64, 64), ns, none, csr, 0, none}, OUTR_OK, NULL},
        {{OUTR_STR("MyApp_1"), ns, none, csr, 0, none}, OUTR_OK, NULL},
        {{app, ns, OUTR_STR("example.com"), csr, 0, none}, OUTR_OK, NULL},
        {{OUTR_STR("dapr-sentry"), ns, OUTR_STR("localhost"), csr, 0, none}, OUTR_OK, NULL},
        {{none, ns, none, csr, 0, none},
         OUTR_PERMISSION_DENIED,
         "invalid request: parameter app-id cannot be empty"},
        {{outr_str_of(a64, 65), ns, none, csr, 0, none},
         OUTR_PERMISSION_DENIED,
         "invalid request: app ID must be 64 characters or less"},
        {{OUTR_STR("a.b"), ns, none, csr, 0, none},
         OUTR_PERMISSION_DENIED,
         "invalid request: parameter app-id cannot contain dots"},
        {{OUTR_STR("a/b"), ns, none, csr, 0, none}, OUTR_INTERNAL, "failed to sign certificate"},
        {{app, OUTR_STR("a/b"), none, csr, 0, none}, OUTR_INTERNAL, "failed to sign certificate"},
        {{app, OUTR_STR(".."), none, csr, 0, none}, OUTR_INTERNAL, "failed to sign certificate"},
        {{OUTR_STR("a\0b"), ns, none, csr, 0, none}, OUTR_INTERNAL, "failed to sign certificate"},
        {{OUTR_STR("a,URI:b"), ns, none, csr, 0, none}, OUTR_INTERNAL, "failed to sign certificate"},
        {{app, none, none, csr, 0, none},
         OUTR_PERMISSION_DENIED,
         "invalid request: namespace is required"},
        {{app, ns, none, none, 0, none}, OUTR_PERMISSION_DENIED, "invalid request: CSR is required"},
        {{app, ns, OUTR_STR("Bad Domain/"), csr, 0, none}, OUTR_PERMISSION_DENIED, domain_said},
        {{app, ns, OUTR_STR("public/ns/default"), csr, 0, none}, OUTR_PERMISSION_DENIED, domain_said},
        {{app, ns, none, OUTR_STR("hello"), 0, none},
         OUTR_INVALID_ARGUMENT,
         "invalid certificate signing request"},
        {{app, ns, none, csr, 2, none},
         OUTR_INVALID_ARGUMENT,
         "the requested validator is not enabled"},
        {{app, ns, none, csr, 3, none},
         OUTR_INVALID_ARGUMENT,
         "the requested validator is not enabled"},
        {{app, ns, none, csr, 9, none},
         OUTR_INVALID_ARGUMENT,
         "the requested validator is not enabled"},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(OUTR_MIB);
        OUTR_AUTO(outr_buf) uri = OUTR_BUF_MAX(4 * OUTR_KIB);
        outr_err err;
        int64_t until;
        err.text[0] = 0;
        outr_code rc = outr_authority_sign(w->a, &rows[i].order, NOW, &chain, &uri, &until, &err);
        if (rc != rows[i].code || (rc && strcmp(err.text, rows[i].said) != 0))
            fail_msg("row %zu: %d %s", i, rc, err.text);
        assert_int_equal(chain.n > 0, rc == OUTR_OK);
    }
    close_world(w);
}

/* "good": for spiffe://public/ns/default/myapp. */
static outr_code vouch(void *ctx, outr_str token, outr_str subject, outr_err *err)
{
    *(unsigned *)ctx += 1;
    if (outr_str_is(token, "good") && outr_str_is(subject, "spiffe://public/ns/default/myapp"))
        return OUTR_OK;
    return outr_fail(err, OUTR_PERMISSION_DENIED, "token validation failed: signature");
}

static void with_tokens_nobody_is_who_he_says_he_is(void **state)
{
    world *w = open_world();
    unsigned asked = 0;
    outr_authority *a;
    outr_err err;
    bool made;
    (void)state;
    w->o.vouch = vouch;
    w->o.ctx = &asked;
    assert_int_equal(outr_authority_open(&a, &w->o, NOW, &made, &err), OUTR_OK);
    const struct {
        const char *token, *id;
        int validator;
        outr_code code;
        const char *said;
        unsigned asked;
    } rows[] = {
        {"good", "myapp", 3, OUTR_OK, "", 1},
        {"good", "myapp", 0, OUTR_INVALID_ARGUMENT,
         "a validator name must be specified in this environment", 0},
        {"good", "myapp", 1, OUTR_INVALID_ARGUMENT, "the requested validator is not enabled", 0},
        {"", "myapp", 3, OUTR_PERMISSION_DENIED, "the request does not contain a token", 0},
        {"bad", "myapp", 3, OUTR_PERMISSION_DENIED, "token validation failed: signature", 1},
        {"good", "other", 3, OUTR_PERMISSION_DENIED, "token validation failed: signature", 1},
        {"good", "a/b", 3, OUTR_PERMISSION_DENIED, "failed to construct SPIFFE ID for requestor",
         0},
        {"good", "a.b", 3, OUTR_PERMISSION_DENIED,
         "invalid request: parameter app-id cannot contain dots", 0},
    };
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(OUTR_MIB);
        OUTR_AUTO(outr_buf) uri = OUTR_BUF_MAX(4 * OUTR_KIB);
        outr_authority_order order = order_of(w);
        int64_t until;
        order.id = outr_str_from(rows[i].id);
        order.token = outr_str_from(rows[i].token);
        order.validator = rows[i].validator;
        asked = 0;
        err.text[0] = 0;
        outr_code rc = outr_authority_sign(a, &order, NOW, &chain, &uri, &until, &err);
        if (rc != rows[i].code || (rc && strcmp(err.text, rows[i].said) != 0))
            fail_msg("row %zu: %d %s", i, rc, err.text);
        assert_int_equal(asked, rows[i].asked);
        assert_int_equal(chain.n > 0, rc == OUTR_OK);
    }
    outr_authority_free(a);
    close_world(w);
}

static void nothing_outlives_the_issuer(void **state)
{
    world *w = open_world();
    outr_authority_order order = order_of(w);
    int64_t end = outr_authority_expires(w->a), until;
    outr_authority *again;
    outr_err err;
    bool made;
    (void)state;
    OUTR_AUTO(outr_buf) chain = OUTR_BUF_MAX(OUTR_MIB);
    OUTR_AUTO(outr_buf) uri = OUTR_BUF_MAX(4 * OUTR_KIB);
    assert_int_equal(outr_authority_sign(w->a, &order, end - 60, &chain, &uri, &until, &err), OUTR_OK);
    assert_int_equal(until, end);
    assert_int_equal(outr_authority_sign(w->a, &order, end, &chain, &uri, &until, &err),
                     OUTR_FAILED_PRECONDITION);
    assert_int_equal(outr_authority_sign_own(w->a, w->key, end, &chain, &until, &err),
                     OUTR_FAILED_PRECONDITION);
    assert_int_equal(outr_authority_open(&again, &w->o, end + 1, &made, &err),
                     OUTR_INVALID_ARGUMENT);
    close_world(w);
}

static void flags_are_sentrys(void **state)
{
    outr_ca_settings s;
    outr_err err;
    char *none[] = {"ca"}, *some[] = {"ca", "--port=1", "-trust-domain", "example.org",
                                      "--issuer-credentials", "/c", "--config", "a", "--config=b",
                                      "--enable-metrics=false", "--jwt-enabled=false"};
    char *const envp[] = {"NAMESPACE=plane", NULL};
    static const char *const bad[] = {"--nonsense",      "word",        "--port=70000", "--port",
                                      "--mode=kubernetes", "--jwt-issuer=x", "--log-level=loud",
                                      "--oidc-enabled", "--jwt-ttl=soon", "--jwt-ttl=0s"};
    (void)state;
    assert_int_equal(outr_ca_settings_parse(&s, 1, none, NULL, &err), OUTR_OK);
    assert_int_equal(s.port, 50001);
    assert_int_equal(s.healthz_port, 8080);
    assert_true(outr_str_is(s.trust_domain, "localhost") && outr_str_is(s.namespace_, "default"));
    assert_int_equal(outr_ca_settings_parse(&s, OUTR_LEN(some), some, envp, &err), OUTR_OK);
    assert_int_equal(s.port, 1);
    assert_int_equal(s.config_files.count, 2);
    assert_true(outr_str_is(s.trust_domain, "example.org") && outr_str_is(s.namespace_, "plane"));
    assert_true(outr_str_is(s.credentials_dir, "/c"));
    assert_false(s.enable_metrics);
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        char *argv[] = {"ca", (char *)(uintptr_t)bad[i]};
        if (outr_ca_settings_parse(&s, 2, argv, NULL, &err) != OUTR_INVALID_ARGUMENT)
            fail_msg("%s was taken", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_files_are_made_once_and_read_again),
        cmocka_unit_test(a_workload_gets_a_chain_that_lives_as_long_as_configured),
        cmocka_unit_test(requests_are_granted_and_refused_as_sentry_does),
        cmocka_unit_test(with_tokens_nobody_is_who_he_says_he_is),
        cmocka_unit_test(nothing_outlives_the_issuer),
        cmocka_unit_test(flags_are_sentrys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
