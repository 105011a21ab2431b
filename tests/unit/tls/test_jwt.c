#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

#include "lib/tokens.h"
#include "tls/jwt.h"

#define NOW 1700000000

static tokens is;
static outr_jwks *keys;

static int open_issuer(void **state)
{
    outr_err err;
    (void)state;
    tokens_open(&is);
    if (outr_jwks_parse(&keys, is.jwks, &err))
        fail_msg("%s", err.text);
    return 0;
}

static int close_issuer(void **state)
{
    (void)state;
    outr_jwks_unref(keys);
    tokens_close(&is);
    return 0;
}

static const char *check_with(outr_str token, unsigned algorithms, const char *audience)
{
    const outr_str audiences[] = {OUTR_STR("other"), outr_str_from(audience)};
    const outr_jwt_rules rules = {.issuer = OUTR_STR("https://issuer"),
                                  .audiences = audiences,
                                  .audience_count = 2,
                                  .algorithms = algorithms,
                                  .skew_s = 60,
                                  .now_s = NOW};
    int64_t expires_s = 0;
    outr_claims *claims = NULL;
    const char *reason = outr_jwt_check(token, keys, &rules, is.arena, &claims, &expires_s);
    if (!reason)
        assert_true(expires_s > NOW && claims);
    else
        assert_null(claims);
    outr_claims_unref(claims);
    return reason ? reason : "good";
}

static const char *check(outr_str token)
{
    return check_with(token, 0, "me");
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
        outr_str token = tokens_sign(&is, rows[i].key, rows[i].alg, head, CLAIMS);
        unsigned bit = outr_jwt_algorithm(outr_str_from(rows[i].alg));
        assert_true(bit);
        assert_string_equal(check_with(token, bit, "me"), "good");
        assert_string_equal(check_with(token, ~bit, "me"), OUTR_JWT_ALGORITHM);
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
    assert_string_equal(check(tokens_sign(&is, is.ed, "EdDSA", "{\"alg\":\"EdDSA\"}", CLAIMS)),
                        "good");
    assert_string_equal(check(tokens_sign(&is, is.p256, "ES256", "{\"alg\":\"ES256\"}", CLAIMS)),
                        "good");
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
        const char *reason =
            check(tokens_sign(&is, rows[i].key, rows[i].alg, rows[i].head, CLAIMS));
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
            check(tokens_sign(&is, is.p256, "ES256", "{\"alg\":\"ES256\",\"kid\":\"P-256\"}",
                           rows[i].claims));
        if (strcmp(reason, rows[i].reason) != 0)
            fail_msg("%s: %s", rows[i].claims, reason);
    }
}

static void what_is_no_token_is_refused(void **state)
{
    outr_str good = tokens_sign(&is, is.ed, "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}", CLAIMS);
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
    outr_jwks *none = NULL;
    outr_err err;
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        if (outr_jwks_parse(&none, outr_str_from(bad[i]), &err) == OUTR_OK)
            fail_msg("%s was taken", bad[i]);
    }
    char *large = outr_arena_alloc(is.arena, OUTR_MIB);
    memset(large, ' ', OUTR_MIB);
    assert_int_equal(outr_jwks_parse(&none, outr_str_of(large, OUTR_MIB), &err),
                     OUTR_RESOURCE_EXHAUSTED);
    assert_null(none);
}

static void an_audience_may_be_any(void **state)
{
    (void)state;
    outr_str none = tokens_sign(&is, is.ed, "EdDSA", "{\"alg\":\"EdDSA\"}",
                                "{\"iss\":\"https://issuer\",\"exp\":1700000100}");
    assert_string_equal(check_with(none, 0, "*"), "good");
    assert_string_equal(check_with(none, 0, ""), OUTR_JWT_AUDIENCE);
    assert_string_equal(check_with(tokens_good(&is, NOW + 1, ""), 0, "*"), "good");
    assert_string_equal(check_with(tokens_good(&is, NOW + 1, ""), 0, "other"), OUTR_JWT_AUDIENCE);
}

/* ---- what attacked other verifiers ----------------------------------------------------------- */

/* The classes of Project Wycheproof's JSON Web Signature and Key vectors, with keys of our own: no
 * package of a registry carries the vectors themselves. */

static outr_str mac_of(const char *head, outr_str key)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    size_t n = 0;
    outr_str signed_part = tokens_join(&is, head, CLAIMS, "", 0);
    signed_part.n--; /* the dot */
    assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key.p, key.n,
                              (const unsigned char *)signed_part.p, signed_part.n, mac, sizeof mac,
                              &n));
    return tokens_join(&is, head, CLAIMS, mac, n);
}

static outr_str pem_of(EVP_PKEY *key)
{
    BIO *out = BIO_new(BIO_s_mem());
    char *text;
    assert_true(PEM_write_bio_PUBKEY(out, key));
    long n = BIO_get_mem_data(out, &text);
    outr_str pem = outr_arena_str(is.arena, outr_str_of(text, (size_t)n));
    BIO_free(out);
    return pem;
}

static void a_public_key_is_no_shared_secret(void **state)
{
    static const char *const heads[] = {"{\"alg\":\"HS256\",\"kid\":\"rsa\"}",
                                        "{\"alg\":\"HS256\",\"kid\":\"P-256\"}",
                                        "{\"alg\":\"HS256\",\"kid\":\"secret\"}",
                                        "{\"alg\":\"HS256\"}"};
    const outr_str secrets[] = {pem_of(is.rsa), pem_of(is.p256), is.jwks, OUTR_STR("secret"),
                                OUTR_STR("")};
    (void)state;
    for (size_t h = 0; h < OUTR_LEN(heads); h++) {
        for (size_t s = 0; s < OUTR_LEN(secrets); s++)
            assert_string_equal(check(mac_of(heads[h], secrets[s])), OUTR_JWT_ALGORITHM);
    }
}

static void a_token_brings_no_key_of_its_own(void **state)
{
    tokens thief;
    (void)state;
    tokens_open(&thief);
    outr_str jwk =
        outr_str_skip(thief.jwks, (size_t)outr_str_search(thief.jwks, OUTR_STR("{\"kty\"")));
    jwk = outr_str_head(jwk, (size_t)outr_str_find(jwk, '}') + 1);
    const outr_str brought[] = {
        outr_arena_join(is.arena, OUTR_STR("\"jwk\":"), jwk, OUTR_STR_NONE),
        OUTR_STR("\"jku\":\"https://thief/keys\""), OUTR_STR("\"x5u\":\"https://thief/chain\""),
        OUTR_STR("\"x5c\":[\"AAAA\"]")};
    for (size_t i = 0; i < OUTR_LEN(brought); i++) {
        outr_str head = outr_arena_join(is.arena, OUTR_STR("{\"alg\":\"RS256\",\"kid\":\"rsa\","),
                                        brought[i], OUTR_STR("}"));
        assert_string_equal(check(tokens_sign(&is, thief.rsa, "RS256",
                                              outr_arena_strz(is.arena, head), CLAIMS)),
                            OUTR_JWT_SIGNATURE);
    }
    tokens_close(&thief);
}

static void signatures_that_are_none_are_refused(void **state)
{
    static const char rs[] = "{\"alg\":\"RS256\",\"kid\":\"rsa\"}";
    static const char es[] = "{\"alg\":\"ES256\",\"kid\":\"P-256\"}";
    static const char ed[] = "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}";
    unsigned char bytes[257] = {0};
    (void)state;
    /* r = s = 0 ("psychic"), r = s = the order, r = 1, s = 1, all ones, lengths that are none */
    static const unsigned char order[32] = {0xff, 0xff, 0xff, 0xff, 0,    0,    0,    0,
                                            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                            0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
                                            0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51};
    assert_string_equal(check(tokens_join(&is, es, CLAIMS, bytes, 64)), OUTR_JWT_SIGNATURE);
    memcpy(bytes, order, 32);
    memcpy(bytes + 32, order, 32);
    assert_string_equal(check(tokens_join(&is, es, CLAIMS, bytes, 64)), OUTR_JWT_SIGNATURE);
    memset(bytes, 0, sizeof bytes);
    bytes[31] = bytes[63] = 1;
    assert_string_equal(check(tokens_join(&is, es, CLAIMS, bytes, 64)), OUTR_JWT_SIGNATURE);
    memset(bytes, 0xff, sizeof bytes);
    static const size_t lengths[] = {1, 32, 63, 64, 65, 96, 128, 255, 256, 257};
    for (size_t i = 0; i < OUTR_LEN(lengths); i++) {
        assert_string_equal(check(tokens_join(&is, es, CLAIMS, bytes, lengths[i])),
                            OUTR_JWT_SIGNATURE);
        assert_string_equal(check(tokens_join(&is, rs, CLAIMS, bytes, lengths[i])),
                            OUTR_JWT_SIGNATURE);
        assert_string_equal(check(tokens_join(&is, ed, CLAIMS, bytes, lengths[i])),
                            OUTR_JWT_SIGNATURE);
    }
    assert_string_equal(check(tokens_join(&is, es, CLAIMS, "", 0)), OUTR_JWT_MALFORMED);
    /* DER instead of r and s, and a good signature with a byte more */
    outr_str good = tokens_sign(&is, is.p256, "ES256", es, CLAIMS);
    assert_string_equal(check(good), "good");
    assert_string_equal(check(outr_arena_join(is.arena, good, OUTR_STR("AA"), OUTR_STR_NONE)),
                        OUTR_JWT_SIGNATURE);
    /* one key, the signature of another curve, hash or padding */
    assert_string_equal(check(tokens_sign(&is, is.p256, "ES384", es, CLAIMS)), OUTR_JWT_SIGNATURE);
    assert_string_equal(check(tokens_sign(&is, is.p384, "ES256", es, CLAIMS)), OUTR_JWT_SIGNATURE);
    assert_string_equal(check(tokens_sign(&is, is.rsa, "RS384", rs, CLAIMS)), OUTR_JWT_SIGNATURE);
}

static void other_forms_than_the_compact_one_are_refused(void **state)
{
    outr_str good = tokens_good(&is, NOW + 100, ""), head, rest, payload;
    (void)state;
    rest = outr_str_cut(good, '.', &head);
    outr_str signature = outr_str_cut(rest, '.', &payload);
    const char *const forms[] = {
        "{\"payload\":\"%.*s\",\"protected\":\"%.*s\",\"signature\":\"%.*s\"}",
        "%.*s.%.*s.%.*s.", ".%.*s.%.*s.%.*s", "%.*s.%.*s.%.*s.AAAA.AAAA", "%.*s .%.*s.%.*s",
        "%.*s.%.*s.%.*s=", "%.*s.%.*s\n.%.*s", "%.*s..%.*s.%.*s", "%.*s.%.*s.%.*s+"};
    for (size_t i = 0; i < OUTR_LEN(forms); i++) {
        char text[2048];
        outr_str first = i == 0 ? payload : head, second = i == 0 ? head : payload;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, forms[i], OUTR_ARG(first), OUTR_ARG(second),
                 OUTR_ARG(signature));
#pragma GCC diagnostic pop
        if (strcmp(check(outr_str_from(text)), OUTR_JWT_MALFORMED) != 0)
            fail_msg("%s: %s", text, check(outr_str_from(text)));
    }
    assert_true(outr_str_is(outr_jwt_issuer(good, is.arena), "https://issuer"));
    assert_null(outr_jwt_issuer(OUTR_STR("x"), is.arena).p);
}

static void keys_that_sign_nothing_are_left_out(void **state)
{
    static const char *const bad[] = {
        /* e = 1, e = 2, n even, n of 1024 bits are judged by the modulus in tokens.c's set */
        "{\"kty\":\"RSA\",\"n\":\"%.*s\",\"e\":\"AQ\"}",
        "{\"kty\":\"RSA\",\"n\":\"%.*s\",\"e\":\"Ag\"}",
        "{\"kty\":\"RSA\",\"n\":\"%.*s\",\"e\":\"\"}",
        "{\"kty\":\"RSA\",\"n\":\"%.*s\"}",
        "{\"kty\":\"RSA\",\"n\":\"%.*s\",\"e\":\"AQAB\",\"use\":\"enc\"}",
        "{\"kty\":\"RSA\",\"n\":\"%.*s\",\"e\":\"AQAB\",\"key_ops\":[\"encrypt\"]}",
        "{\"kty\":\"RSA\",\"n\":\"%.*sAA\",\"e\":\"AQAB\"}",
        "{\"kty\":\"rsa\",\"n\":\"%.*s\",\"e\":\"AQAB\"}",
        "{\"kty\":\"oct\",\"k\":\"%.*s\"}",
    };
    outr_str n = outr_str_skip(is.jwks, (size_t)outr_str_search(is.jwks, OUTR_STR("\"n\":\"")) + 5);
    (void)state;
    n = outr_str_head(n, (size_t)outr_str_find(n, '"'));
    for (size_t i = 0; i < OUTR_LEN(bad); i++) {
        char key[1024], text[2048];
        outr_jwks *none = NULL;
        outr_err err;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(key, sizeof key, bad[i], OUTR_ARG(n));
#pragma GCC diagnostic pop
        snprintf(text, sizeof text, "{\"keys\":[%s]}", key);
        if (outr_jwks_parse(&none, outr_str_from(text), &err) == OUTR_OK)
            fail_msg("%s was taken", text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_algorithm_with_a_public_key_is_verified),
        cmocka_unit_test(forged_heads_are_refused),
        cmocka_unit_test(claims_must_be_of_this_time_issuer_and_audience),
        cmocka_unit_test(what_is_no_token_is_refused),
        cmocka_unit_test(what_is_no_key_set_is_refused),
        cmocka_unit_test(an_audience_may_be_any),
        cmocka_unit_test(a_public_key_is_no_shared_secret),
        cmocka_unit_test(a_token_brings_no_key_of_its_own),
        cmocka_unit_test(signatures_that_are_none_are_refused),
        cmocka_unit_test(other_forms_than_the_compact_one_are_refused),
        cmocka_unit_test(keys_that_sign_nothing_are_left_out),
    };
    return cmocka_run_group_tests(tests, open_issuer, close_issuer);
}
