#include "tls/signer.h"

#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/rsa.h>

#include "base/encode.h"
#include "base/json.h"
#include "tls/internal.h"

#define SIGNATURE_MAX (OUTR__JWT_RSA_MAX / 8)

struct outr_signer {
    outr_arena *arena;
    EVP_PKEY *key;
    const outr__jwt_algorithm *algorithm;
    outr_str key_id;
    outr_str members; /* of the key as a JWK, in the order of their names: RFC 7638 section 3 */
};

/* ---- the key --------------------------------------------------------------------------------- */

outr_code outr_key_make_rsa(outr_key **out, outr_err *err)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)OUTR__JWT_RSA_MIN);
    if (!key)
        return outr__fail_ssl(err, OUTR_INTERNAL, "making a key");
    *out = key;
    return OUTR_OK;
}

static const char *group_of(EVP_PKEY *key, char name[32])
{
    if (EVP_PKEY_get_group_name(key, name, 32, NULL) != 1)
        return "";
    return strcmp(name, "prime256v1") == 0  ? "P-256"
           : strcmp(name, "secp384r1") == 0 ? "P-384"
           : strcmp(name, "secp521r1") == 0 ? "P-521"
                                            : name;
}

static bool fits(EVP_PKEY *key, const outr__jwt_algorithm *a)
{
    char name[32];
    if (a->family == OUTR__JWT_RSA)
        return EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) >= OUTR__JWT_RSA_MIN &&
               EVP_PKEY_get_bits(key) <= OUTR__JWT_RSA_MAX;
    if (a->family == OUTR__JWT_ED)
        return EVP_PKEY_is_a(key, "ED25519");
    return EVP_PKEY_is_a(key, "EC") && strcmp(group_of(key, name), a->group) == 0;
}

static outr_str url64(outr_arena *arena, outr_str bytes)
{
    outr_str text = outr_base64_encode(arena, bytes);
    char *p = (char *)(uintptr_t)text.p;
    for (size_t i = 0; i < text.n; i++)
        p[i] = p[i] == '+' ? '-' : p[i] == '/' ? '_' : p[i];
    while (text.n > 0 && text.p[text.n - 1] == '=')
        text.n--;
    return text;
}

/* A number of the key in base64url; width 0: as few bytes as it takes. */
static outr_str number(outr_arena *arena, EVP_PKEY *key, const char *name, size_t width)
{
    unsigned char bytes[SIGNATURE_MAX];
    BIGNUM *value = NULL;
    outr_str text = OUTR_STR_NONE;
    int n = EVP_PKEY_get_bn_param(key, name, &value) == 1
                ? BN_bn2binpad(value, bytes, (int)(width ? width : (size_t)BN_num_bytes(value)))
                : -1;
    if (n > 0)
        text = url64(arena, outr_str_of(bytes, (size_t)n));
    BN_free(value);
    return text;
}

static outr_str members_of(outr_arena *arena, EVP_PKEY *key, const outr__jwt_algorithm *a)
{
    unsigned char raw[32];
    size_t n = sizeof raw;
    if (a->family == OUTR__JWT_RSA)
        return outr_arena_printf(arena,
                                 "\"e\":\"" OUTR_FMT "\",\"kty\":\"RSA\",\"n\":\"" OUTR_FMT "\"",
                                 OUTR_ARG(number(arena, key, OSSL_PKEY_PARAM_RSA_E, 0)),
                                 OUTR_ARG(number(arena, key, OSSL_PKEY_PARAM_RSA_N, 0)));
    if (a->family == OUTR__JWT_EC)
        return outr_arena_printf(
            arena,
            "\"crv\":\"%s\",\"kty\":\"EC\",\"x\":\"" OUTR_FMT "\",\"y\":\"" OUTR_FMT "\"", a->curve,
            OUTR_ARG(number(arena, key, OSSL_PKEY_PARAM_EC_PUB_X, a->half)),
            OUTR_ARG(number(arena, key, OSSL_PKEY_PARAM_EC_PUB_Y, a->half)));
    if (EVP_PKEY_get_raw_public_key(key, raw, &n) != 1)
        return OUTR_STR_NONE;
    return outr_arena_printf(arena, "\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"" OUTR_FMT "\"",
                             OUTR_ARG(url64(arena, outr_str_of(raw, n))));
}

static outr_str thumbprint(outr_arena *arena, outr_str members)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    outr_str text = outr_arena_printf(arena, "{" OUTR_FMT "}", OUTR_ARG(members));
    SHA256((const unsigned char *)text.p, text.n, hash);
    return outr_base64_encode(arena, outr_str_of(hash, sizeof hash));
}

/* ---- making one ------------------------------------------------------------------------------ */

outr_code outr_signer_new(outr_signer **out, outr_key *key, outr_str algorithm, outr_str key_id,
                          outr_err *err)
{
    const outr__jwt_algorithm *a = outr__jwt_find_algorithm(algorithm);
    if (!a)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "\"" OUTR_FMT "\" is no algorithm to sign tokens by", OUTR_ARG(algorithm));
    if (!fits(key, a))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "the key is none for %s", a->name);
    outr_signer *s = outr_alloc(sizeof *s);
    s->arena = outr_arena_new(64 * OUTR_KIB);
    EVP_PKEY_up_ref(key);
    s->key = key;
    s->algorithm = a;
    s->members = members_of(s->arena, key, a);
    s->key_id = key_id.n ? outr_arena_str(s->arena, key_id) : thumbprint(s->arena, s->members);
    ERR_clear_error();
    *out = s;
    return OUTR_OK;
}

void outr_signer_free(outr_signer *s)
{
    if (!s)
        return;
    EVP_PKEY_free(s->key);
    outr_arena_free(s->arena);
    free(s);
}

outr_str outr_signer_algorithm(const outr_signer *signer)
{
    return outr_str_from(signer->algorithm->name);
}

/* ---- its key set ----------------------------------------------------------------------------- */

void outr_signer_write_keys(const outr_signer *s, outr_buf *json)
{
    outr_buf_printf(json, "{\"keys\":[{\"alg\":\"%s\",\"kid\":", s->algorithm->name);
    outr_json_quote(json, s->key_id);
    outr_buf_printf(json, ",\"use\":\"sig\"," OUTR_FMT "}]}", OUTR_ARG(s->members));
}

outr_code outr_signer_check_keys(const outr_signer *s, outr_str json, outr_err *err)
{
    outr_jwks *keys = NULL;
    outr_claims *claims = NULL;
    outr_str token;
    int64_t expires_s;
    const outr_str any = OUTR_STR("*");
    const outr_jwt_rules rules = {.audiences = &any, .audience_count = 1};
    outr_code rc = outr_jwks_parse(&keys, json, err);
    if (rc)
        return rc;
    outr_arena *arena = outr_arena_new(OUTR_MIB); /* what a reader would do tells best */
    rc = outr_signer_sign(s, OUTR_STR("{\"exp\":1}"), arena, &token, err);
    const char *reason =
        rc ? NULL : outr_jwt_check(token, keys, &rules, arena, &claims, &expires_s);
    outr_claims_unref(claims);
    outr_jwks_unref(keys);
    outr_arena_free(arena);
    if (reason)
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT,
                       "the key that signs is not in the key set as \"" OUTR_FMT "\" (%s)",
                       OUTR_ARG(s->key_id), reason);
    return rc;
}

/* ---- signing --------------------------------------------------------------------------------- */

/* OpenSSL's form becomes r and s side by side: RFC 7518 section 3.4. */
static bool split_ecdsa(unsigned char *signature, size_t *n, size_t half)
{
    const unsigned char *at = signature;
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)*n);
    bool is_ok = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), signature, (int)half) == (int)half &&
                 BN_bn2binpad(ECDSA_SIG_get0_s(sig), signature + half, (int)half) == (int)half;
    ECDSA_SIG_free(sig);
    *n = 2 * half;
    return is_ok;
}

static bool sign(const outr_signer *s, outr_str text, unsigned char *signature, size_t *n)
{
    const outr__jwt_algorithm *a = s->algorithm;
    EVP_PKEY_CTX *ctx; /* md's */
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool is_ok =
        md && EVP_DigestSignInit_ex(md, &ctx, a->hash, NULL, NULL, s->key, NULL) > 0 &&
        outr__jwt_set_padding(ctx, a) &&
        EVP_DigestSign(md, signature, n, (const unsigned char *)text.p, text.n) == 1 &&
        (a->family != OUTR__JWT_EC || split_ecdsa(signature, n, a->half));
    EVP_MD_CTX_free(md);
    return is_ok;
}

outr_code outr_signer_sign(const outr_signer *s, outr_str claims, outr_arena *arena,
                           outr_str *token, outr_err *err)
{
    OUTR_AUTO(outr_buf) head = OUTR_BUF_MAX(64 * OUTR_KIB);
    unsigned char signature[SIGNATURE_MAX];
    size_t n = sizeof signature;
    outr_buf_printf(&head, "{\"alg\":\"%s\",\"kid\":", s->algorithm->name);
    outr_json_quote(&head, s->key_id);
    outr_buf_z(&head, ",\"typ\":\"JWT\"}");
    outr_str text = outr_arena_join(arena, url64(arena, outr_buf_view(&head)), OUTR_STR("."),
                                    url64(arena, claims));
    if (!sign(s, text, signature, &n))
        return outr__fail_ssl(err, OUTR_INTERNAL, "signing a token");
    *token = outr_arena_join(arena, text, OUTR_STR("."),
                             url64(arena, outr_str_of(signature, n)));
    return OUTR_OK;
}
