#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <time.h>

#include "base/buf.h"
#include "base/encode.h"
#include "tls/jwt.h"

#define NOW 1700000000

/* An issuer with a key of each kind, made once: RSA takes its time. */
typedef struct issuer {
    EVP_PKEY *rsa, *small, *p256, *p384, *p521, *ed;
    outr_arena *arena;
    outr_jwks *keys;
} issuer;

static issuer is;

static outr_str url64(const void *p, size_t n)
{
    outr_str text = outr_base64_encode(is.arena, outr_str_of(p, n));
    char *out = outr_arena_strz(is.arena, text);
    size_t len = text.n;
    while (len > 0 && out[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++)
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
    out[len] = 0;
    return outr_str_of(out, len);
}

static outr_str number(EVP_PKEY *key, const char *name, int width)
{
    unsigned char bytes[1024];
    BIGNUM *n = NULL;
    assert_true(EVP_PKEY_get_bn_param(key, name, &n));
    int size = width ? BN_bn2binpad(n, bytes, width) : BN_bn2bin(n, bytes);
    BN_free(n);
    return url64(bytes, (size_t)size);
}

static void add_rsa(outr_buf *out, const char *id, EVP_PKEY *key, const char *more)
{
    outr_buf_printf(out, "{\"kty\":\"RSA\",\"kid\":\"%s\",\"n\":\"" OUTR_FMT "\",\"e\":\"" OUTR_FMT
                         "\"%s},",
                    id, OUTR_ARG(number(key, OSSL_PKEY_PARAM_RSA_N, 0)),
                    OUTR_ARG(number(key, OSSL_PKEY_PARAM_RSA_E, 0)), more);
}

static void add_ec(outr_buf *out, const char *curve, EVP_PKEY *key, int width)
{
    outr_buf_printf(out, "{\"kty\":\"EC\",\"kid\":\"%s\",\"crv\":\"%s\",\"use\":\"sig\",\"x\":\""
                         OUTR_FMT "\",\"y\":\"" OUTR_FMT "\"},",
                    curve, curve, OUTR_ARG(number(key, OSSL_PKEY_PARAM_EC_PUB_X, width)),
                    OUTR_ARG(number(key, OSSL_PKEY_PARAM_EC_PUB_Y, width)));
}

static int open_issuer(void **state)
{
    OUTR_AUTO(outr_buf) json = OUTR_BUF_MAX(OUTR_MIB);
    unsigned char raw[32];
    size_t n = sizeof raw;
    outr_err err;
    (void)state;
    is = (issuer){.rsa = EVP_RSA_gen(2048),
                  .small = EVP_RSA_gen(1024),
                  .p256 = EVP_EC_gen("P-256"),
                  .p384 = EVP_EC_gen("P-384"),
                  .p521 = EVP_EC_gen("P-521"),
                  .ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"),
                  .arena = outr_arena_new(256 * OUTR_MIB)};
    outr_buf_z(&json, "{\"keys\":[");
    add_rsa(&json, "rsa", is.rsa, "");
    add_rsa(&json, "only-rs256", is.rsa, ",\"alg\":\"RS256\",\"key_ops\":[\"verify\"]");
    add_rsa(&json, "for-encryption", is.rsa, ",\"use\":\"enc\"");
    add_rsa(&json, "for-signing", is.rsa, ",\"key_ops\":[\"sign\"]");
    add_rsa(&json, "small", is.small, "");
    add_ec(&json, "P-256", is.p256, 32);
    add_ec(&json, "P-384", is.p384, 48);
    add_ec(&json, "P-521", is.p521, 66);
    outr_buf_z(&json, "{\"kty\":\"oct\",\"kid\":\"secret\",\"k\":\"c2VjcmV0\"},"
                      "{\"kty\":\"XX\"},7,");
    EVP_PKEY_get_raw_public_key(is.ed, raw, &n);
    outr_buf_printf(&json, "{\"kty\":\"OKP\",\"kid\":\"ed\",\"crv\":\"Ed25519\",\"x\":\"" OUTR_FMT
                           "\"}]}",
                    OUTR_ARG(url64(raw, n)));
    if (outr_jwks_parse(&is.keys, outr_buf_view(&json), &err))
        fail_msg("%s", err.text);
    return 0;
}

static int close_issuer(void **state)
{
    EVP_PKEY *const keys[] = {is.rsa, is.small, is.p256, is.p384, is.p521, is.ed};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(keys); i++)
        EVP_PKEY_free(keys[i]);
    outr_jwks_unref(is.keys);
    outr_arena_free(is.arena);
    return 0;
}

/* DER to r and s side by side. */
static size_t raw_ecdsa(unsigned char *sig, size_t n, int half)
{
    const unsigned char *p = sig;
    ECDSA_SIG *parsed = d2i_ECDSA_SIG(NULL, &p, (long)n);
    BN_bn2binpad(ECDSA_SIG_get0_r(parsed), sig, half);
    BN_bn2binpad(ECDSA_SIG_get0_s(parsed), sig + half, half);
    ECDSA_SIG_free(parsed);
    return 2 * (size_t)half;
}

static outr_str sign(EVP_PKEY *key, const char *alg, outr_str text)
{
    unsigned char sig[1024];
    size_t n = sizeof sig;
    EVP_PKEY_CTX *ctx;
    const char *bits = alg + 2;
    const char *hash = strcmp(bits, "256") == 0   ? "SHA256"
                       : strcmp(bits, "384") == 0 ? "SHA384"
                       : strcmp(bits, "512") == 0 ? "SHA512"
                                                  : NULL;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    assert_true(EVP_DigestSignInit_ex(md, &ctx, hash, NULL, NULL, key, NULL) > 0);
    if (alg[0] == 'P') {
        EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING);
        EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST);
    }
    assert_true(EVP_DigestSign(md, sig, &n, (const unsigned char *)text.p, text.n) > 0);
    EVP_MD_CTX_free(md);
    if (alg[0] == 'E' && hash)
        n = raw_ecdsa(sig, n, EVP_PKEY_get_bits(key) == 521 ? 66 : EVP_PKEY_get_bits(key) / 8);
    return url64(sig, n);
}

static outr_str join_dot(outr_str a, outr_str b)
{
    return outr_arena_join(is.arena, a, OUTR_STR("."), b);
}

static outr_str token_of(EVP_PKEY *key, const char *alg, const char *head, const char *claims)
{
    outr_str text = join_dot(url64(head, strlen(head)), url64(claims, strlen(claims)));
    return join_dot(text, sign(key, alg, text));
}

static const char *check(outr_str token)
{
    const outr_jwt_rules rules = {OUTR_STR("https://issuer"), OUTR_STR("me"), NOW};
    int64_t expires_s = 0;
    const char *reason = outr_jwt_check(token, is.keys, &rules, is.arena, &expires_s);
    if (!reason)
        assert_true(expires_s > NOW);
    return reason ? reason : "good";
}

#define CLAIMS "{\"iss\":\"https://issuer\",\"aud\":\"me\",\"exp\":1700000100}"

static void every_algorithm_with_a_public_key_is_verified(void **state)
{
    const struct {
        const char *alg, *kid;
        EVP_PKEY *key;
    } rows[] = {{"RS256", "rsa", is.rsa},     {"RS384", "rsa", is.rsa},
                {"RS512", "rsa", is.rsa},     {"PS256", "rsa", is.rsa},
                {"PS384", "rsa", is.rsa},     {"PS512", "rsa", is.rsa},
                {"ES256", "P-256", is.p256},  {"ES384", "P-384", is.p384},
                {"ES512", "P-521", is.p521},  {"EdDSA", "ed", is.ed},
                {"RS256", "only-rs256", is.rsa}};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        char head[128];
        snprintf(head, sizeof head, "{\"typ\":\"JWT\",\"alg\":\"%s\",\"kid\":\"%s\"}", rows[i].alg,
                 rows[i].kid);
        outr_str token = token_of(rows[i].key, rows[i].alg, head, CLAIMS);
        if (strcmp(check(token), "good") != 0)
            fail_msg("%s: %s", rows[i].alg, check(token));
        char *bent = outr_arena_strz(is.arena, token); /* one bit of the claims */
        char *claims = strchr(bent, '.') + 5;
        *claims = *claims == 'A' ? 'B' : 'A';
        assert_string_equal(check(outr_str_of(bent, token.n)), OUTR_JWT_SIGNATURE);
        bent = outr_arena_strz(is.arena, token); /* and of the signature */
        claims = strrchr(bent, '.') + 5;
        *claims = *claims == 'A' ? 'B' : 'A';
        assert_string_equal(check(outr_str_of(bent, token.n)), OUTR_JWT_SIGNATURE);
    }
    /* without a name there is only one key that can be meant */
    assert_string_equal(check(token_of(is.ed, "EdDSA", "{\"alg\":\"EdDSA\"}", CLAIMS)), "good");
    assert_string_equal(check(token_of(is.p256, "ES256", "{\"alg\":\"ES256\"}", CLAIMS)), "good");
}

static void forged_heads_are_refused(void **state)
{
    const struct {
        const char *head, *alg, *reason;
        EVP_PKEY *key;
    } rows[] = {
        {"{\"alg\":\"none\"}", "RS256", OUTR_JWT_ALGORITHM, is.rsa},
        {"{\"alg\":\"None\",\"kid\":\"rsa\"}", "RS256", OUTR_JWT_ALGORITHM, is.rsa},
        {"{\"alg\":\"HS256\",\"kid\":\"rsa\"}", "RS256", OUTR_JWT_ALGORITHM, is.rsa},
        {"{\"alg\":\"HS256\",\"kid\":\"secret\"}", "RS256", OUTR_JWT_ALGORITHM, is.rsa},
        {"{\"alg\":\"rs256\",\"kid\":\"rsa\"}", "RS256", OUTR_JWT_ALGORITHM, is.rsa},
        {"{\"alg\":256}", "RS256", OUTR_JWT_ALGORITHM, is.rsa},
        {"{}", "RS256", OUTR_JWT_ALGORITHM, is.rsa},
        {"[]", "RS256", OUTR_JWT_MALFORMED, is.rsa},
        {"{\"alg\":\"RS256\",\"kid\":\"nobody\"}", "RS256", OUTR_JWT_KEY, is.rsa},
        {"{\"alg\":\"RS256\",\"kid\":\"\"}", "RS256", OUTR_JWT_KEY, is.rsa},
        {"{\"alg\":\"RS256\"}", "RS256", OUTR_JWT_KEY, is.rsa}, /* two would fit */
        {"{\"alg\":\"RS256\",\"kid\":7}", "RS256", OUTR_JWT_MALFORMED, is.rsa},
        {"{\"alg\":\"RS512\",\"kid\":\"only-rs256\"}", "RS512", OUTR_JWT_KEY, is.rsa},
        {"{\"alg\":\"RS256\",\"kid\":\"for-encryption\"}", "RS256", OUTR_JWT_KEY, is.rsa},
        {"{\"alg\":\"RS256\",\"kid\":\"for-signing\"}", "RS256", OUTR_JWT_KEY, is.rsa},
        {"{\"alg\":\"RS256\",\"kid\":\"small\"}", "RS256", OUTR_JWT_KEY, is.small},
        {"{\"alg\":\"ES256\",\"kid\":\"rsa\"}", "RS256", OUTR_JWT_KEY, is.rsa},
        {"{\"alg\":\"ES384\",\"kid\":\"P-256\"}", "ES256", OUTR_JWT_KEY, is.p256},
        {"{\"alg\":\"EdDSA\",\"kid\":\"P-256\"}", "ES256", OUTR_JWT_KEY, is.p256},
        {"{\"alg\":\"PS256\",\"kid\":\"rsa\"}", "RS256", OUTR_JWT_SIGNATURE, is.rsa},
        {"{\"alg\":\"RS256\",\"kid\":\"rsa\"}", "PS256", OUTR_JWT_SIGNATURE, is.rsa},
        {"{\"alg\":\"RS256\",\"kid\":\"rsa\"}", "RS256", OUTR_JWT_SIGNATURE, is.small},
        {"{\"alg\":\"RS256\",\"kid\":\"rsa\",\"crit\":[\"exp\"]}", "RS256", OUTR_JWT_MALFORMED,
         is.rsa},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        const char *reason = check(token_of(rows[i].key, rows[i].alg, rows[i].head, CLAIMS));
        if (strcmp(reason, rows[i].reason) != 0)
            fail_msg("%s: %s", rows[i].head, reason);
    }
}

static void claims_must_be_of_this_time_issuer_and_audience(void **state)
{
#define TO_ME "\"iss\":\"https://issuer\",\"aud\":\"me\""
    static const struct {
        const char *claims, *reason;
    } rows[] = {
        {"{" TO_ME ",\"exp\":1699999941}", "good"},
        {"{" TO_ME ",\"exp\":1699999940}", OUTR_JWT_EXPIRED},
        {"{" TO_ME ",\"exp\":1699999941.5}", "good"},
        {"{" TO_ME ",\"exp\":0}", OUTR_JWT_EXPIRED},
        {"{" TO_ME ",\"exp\":-1e300}", OUTR_JWT_CLAIMS},
        {"{" TO_ME ",\"exp\":1e300}", OUTR_JWT_CLAIMS},
        {"{" TO_ME "}", OUTR_JWT_CLAIMS},
        {"{" TO_ME ",\"exp\":\"1800000000\"}", OUTR_JWT_CLAIMS},
        {"{" TO_ME ",\"exp\":null}", OUTR_JWT_CLAIMS},
        {"{" TO_ME ",\"exp\":1800000000,\"nbf\":1700000060}", "good"},
        {"{" TO_ME ",\"exp\":1800000000,\"nbf\":1700000061}", OUTR_JWT_NOT_YET},
        {"{" TO_ME ",\"exp\":1800000000,\"nbf\":\"x\"}", OUTR_JWT_CLAIMS},
        {"{" TO_ME ",\"exp\":1800000000,\"iat\":1700000061}", OUTR_JWT_NOT_YET},
        {"{\"iss\":\"https://issuer/\",\"aud\":\"me\",\"exp\":1800000000}", OUTR_JWT_ISSUER},
        {"{\"aud\":\"me\",\"exp\":1800000000}", OUTR_JWT_ISSUER},
        {"{\"iss\":[\"https://issuer\"],\"aud\":\"me\",\"exp\":1800000000}", OUTR_JWT_ISSUER},
        {"{\"iss\":\"https://issuer\",\"aud\":[\"you\",\"me\"],\"exp\":1800000000}", "good"},
        {"{\"iss\":\"https://issuer\",\"aud\":[\"you\",7],\"exp\":1800000000}", OUTR_JWT_AUDIENCE},
        {"{\"iss\":\"https://issuer\",\"aud\":\"me2\",\"exp\":1800000000}", OUTR_JWT_AUDIENCE},
        {"{\"iss\":\"https://issuer\",\"exp\":1800000000}", OUTR_JWT_AUDIENCE},
        {"{\"iss\":\"https://issuer\\u0000\",\"aud\":\"me\",\"exp\":1800000000}", OUTR_JWT_ISSUER},
        {"[]", OUTR_JWT_CLAIMS},
        {"text", OUTR_JWT_MALFORMED},
    };
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rows); i++) {
        const char *reason =
            check(token_of(is.p256, "ES256", "{\"alg\":\"ES256\",\"kid\":\"P-256\"}",
                           rows[i].claims));
        if (strcmp(reason, rows[i].reason) != 0)
            fail_msg("%s: %s", rows[i].claims, reason);
    }
}

static void what_is_no_token_is_refused(void **state)
{
    outr_str good = token_of(is.ed, "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}", CLAIMS);
    static const char *const bad[] = {"", ".", "..", "...", "a.b", "a.b.c.d", "a.b.c",
                                      "e30.e30.", "e30.e30.=", "e30=.e30.e30", "e30.e 0.e30"};
    char *large = outr_arena_alloc(is.arena, OUTR_MIB);
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++)
        assert_string_not_equal(check(outr_str_from(bad[i])), "good");
    for (size_t n = 0; n < good.n; n++)
        assert_string_not_equal(check(outr_str_head(good, n)), "good");
    assert_string_equal(check(outr_arena_join(is.arena, good, OUTR_STR("."), good)),
                        OUTR_JWT_MALFORMED);
    assert_string_equal(check(outr_arena_join(is.arena, good, OUTR_STR("\0"), OUTR_STR_NONE)),
                        OUTR_JWT_MALFORMED);
    memset(large, 'a', OUTR_MIB);
    assert_string_equal(check(outr_str_of(large, OUTR_MIB)), OUTR_JWT_TOO_LARGE);
    assert_string_equal(check(outr_str_of(large, OUTR_JWT_MAX)), OUTR_JWT_MALFORMED);
}

static void what_is_no_key_set_is_refused(void **state)
{
    static const char *const bad[] = {
        "", "{}", "[]", "{\"keys\":7}", "{\"keys\":[]}", "{\"keys\":[{}]}",
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}]}",
        /* not on the curve */
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\","
        "\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE\","
        "\"y\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE\"}]}",
        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}]}",
        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"X25519\","
        "\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE\"}]}"};
    outr_jwks *keys = NULL;
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        if (outr_jwks_parse(&keys, outr_str_from(bad[i]), &err) == OUTR_OK)
            fail_msg("%s was taken", bad[i]);
    }
    char *large = outr_arena_alloc(is.arena, OUTR_MIB);
    memset(large, ' ', OUTR_MIB);
    assert_int_equal(outr_jwks_parse(&keys, outr_str_of(large, OUTR_MIB), &err),
                     OUTR_RESOURCE_EXHAUSTED);
    assert_null(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_algorithm_with_a_public_key_is_verified),
        cmocka_unit_test(forged_heads_are_refused),
        cmocka_unit_test(claims_must_be_of_this_time_issuer_and_audience),
        cmocka_unit_test(what_is_no_token_is_refused),
        cmocka_unit_test(what_is_no_key_set_is_refused),
    };
    return cmocka_run_group_tests(tests, open_issuer, close_issuer);
}
