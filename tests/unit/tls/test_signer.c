#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include "base/encode.h"
#include "lib/tokens.h"
#include "tls/signer.h"

static tokens made;
static outr_arena *arena;

static int open_all(void **state)
{
    (void)state;
    tokens_open(&made);
    arena = outr_arena_new(16 * OUTR_MIB);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    outr_arena_free(arena);
    tokens_close(&made);
    return 0;
}

static void what_is_signed_is_verified_by_its_own_key_set(void **state)
{
    const struct {
        const char *algorithm;
        EVP_PKEY *key;
    } rows[] = {{"RS256", made.rsa},  {"RS384", made.rsa},  {"RS512", made.rsa}, {"PS256", made.rsa},
                {"PS384", made.rsa},  {"PS512", made.rsa},  {"ES256", made.p256}, {"ES384", made.p384},
                {"ES512", made.p521}, {"EdDSA", made.ed}};
    const outr_str audience = OUTR_STR("me");
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        for (int round = 0; round < 4; round++) { /* ECDSA's numbers are of any length */
            const outr_jwt_rules rules = {.audiences = &audience,
                                          .audience_count = 1,
                                          .issuer = OUTR_STR("i"),
                                          .now_s = 1000};
            OUTR_AUTO(outr_buf) json = OUTR_BUF_MAX(OUTR_MIB);
            outr_signer *signer = NULL;
            outr_jwks *keys = NULL;
            outr_claims *claims = NULL;
            outr_str token;
            int64_t expires_s;
            assert_int_equal(outr_signer_new(&signer, rows[i].key, outr_str_from(rows[i].algorithm),
                                             round ? OUTR_STR("a \"name\"") : OUTR_STR_NONE, &err),
                             OUTR_OK);
            assert_true(outr_str_is(outr_signer_algorithm(signer), rows[i].algorithm));
            assert_int_equal(outr_signer_sign(signer,
                                              OUTR_STR("{\"iss\":\"i\",\"aud\":\"me\",\"exp\":2000,"
                                                       "\"sub\":\"s\"}"),
                                              arena, &token, &err),
                             OUTR_OK);
            outr_signer_write_keys(signer, &json);
            assert_int_equal(outr_jwks_parse(&keys, outr_buf_view(&json), &err), OUTR_OK);
            assert_null(outr_jwt_check(token, keys, &rules, arena, &claims, &expires_s));
            assert_int_equal(expires_s, 2000);
            assert_true(outr_str_is(outr_claims_text(claims, OUTR_STR("sub"), arena), "s"));
            assert_int_equal(outr_signer_check_keys(signer, outr_buf_view(&json), &err), OUTR_OK);
            assert_null(strstr(outr_arena_strz(arena, outr_buf_view(&json)), "\"d\""));
            outr_claims_unref(claims);
            outr_jwks_unref(keys);
            outr_signer_free(signer);
        }
    }
}

static void a_key_signs_by_its_own_algorithms_alone(void **state)
{
    const struct {
        const char *algorithm;
        EVP_PKEY *key;
    } rows[] = {{"none", made.rsa},   {"HS256", made.rsa},  {"", made.rsa},       {"RS256", made.p256},
                {"ES256", made.p384}, {"ES384", made.p256}, {"EdDSA", made.p256}, {"RS256", made.ed},
                {"ES256", made.ed},   {"RS256", made.small}};
    outr_signer *signer = NULL;
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++)
        assert_int_equal(outr_signer_new(&signer, rows[i].key, outr_str_from(rows[i].algorithm),
                                         OUTR_STR_NONE, &err),
                         OUTR_INVALID_ARGUMENT);
    assert_null(signer);
}

static void a_key_set_without_the_key_is_found_out(void **state)
{
    OUTR_AUTO(outr_buf) json = OUTR_BUF_MAX(OUTR_MIB);
    outr_signer *one = NULL, *same = NULL, *other = NULL;
    outr_err err;
    (void)state;
    assert_int_equal(outr_signer_new(&one, made.p256, OUTR_STR("ES256"), OUTR_STR("a"), &err), 0);
    assert_int_equal(outr_signer_new(&same, made.p256, OUTR_STR("ES256"), OUTR_STR("b"), &err), 0);
    assert_int_equal(outr_signer_new(&other, made.rsa, OUTR_STR("RS256"), OUTR_STR("a"), &err), 0);
    outr_signer_write_keys(one, &json);
    assert_int_equal(outr_signer_check_keys(one, outr_buf_view(&json), &err), OUTR_OK);
    assert_int_equal(outr_signer_check_keys(same, outr_buf_view(&json), &err), OUTR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "\"b\""));
    assert_int_equal(outr_signer_check_keys(other, outr_buf_view(&json), &err),
                     OUTR_INVALID_ARGUMENT);
    assert_int_equal(outr_signer_check_keys(one, OUTR_STR("{}"), &err), OUTR_INVALID_ARGUMENT);
    outr_signer_free(one);
    outr_signer_free(same);
    outr_signer_free(other);
}

/* RFC 7638 section 3.1, there in base64url. */
static void a_key_without_a_name_is_called_by_its_thumbprint(void **state)
{
    static const char modulus[] =
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP"
        "ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY"
        "368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f"
        "M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    OUTR_AUTO(outr_buf) json = OUTR_BUF_MAX(OUTR_MIB);
    outr_str bytes;
    outr_err err;
    outr_signer *signer = NULL;
    EVP_PKEY *key = NULL;
    (void)state;
    assert_true(outr_base64_decode(arena, outr_str_from(modulus), &bytes));
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *n = BN_bin2bn((const unsigned char *)bytes.p, (int)bytes.n, NULL), *e = BN_new();
    BN_set_word(e, 65537);
    OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n);
    OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
    assert_int_equal(EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
    assert_int_equal(outr_signer_new(&signer, key, OUTR_STR("RS256"), OUTR_STR_NONE, &err), OUTR_OK);
    outr_signer_write_keys(signer, &json);
    assert_true(outr_str_search(outr_buf_view(&json),
                                OUTR_STR("\"kid\":\"NzbLsXh8uDCcd+6MNwXF4W/7noWXFZAfHkxZsRGC9Xs="
                                         "\"")) > 0);
    outr_signer_free(signer);
    EVP_PKEY_free(key);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_signed_is_verified_by_its_own_key_set),
        cmocka_unit_test(a_key_signs_by_its_own_algorithms_alone),
        cmocka_unit_test(a_key_set_without_the_key_is_found_out),
        cmocka_unit_test(a_key_without_a_name_is_called_by_its_thumbprint),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
