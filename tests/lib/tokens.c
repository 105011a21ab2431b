#include "lib/tokens.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/rsa.h>

#include "base/buf.h"
#include "base/encode.h"

#define REQUIRE(holds)                                                                             \
    do {                                                                                           \
        if (!(holds))                                                                              \
            abort();                                                                               \
    } while (0)

outr_str tokens_url64(tokens *t, const void *p, size_t n)
{
    outr_str text = outr_base64_encode(t->arena, outr_str_of(p, n));
    char *out = outr_arena_strz(t->arena, text);
    size_t len = text.n;
    while (len > 0 && out[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++)
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
    out[len] = 0;
    return outr_str_of(out, len);
}

static outr_str number(tokens *t, EVP_PKEY *key, const char *name, int width)
{
    unsigned char bytes[1024];
    BIGNUM *n = NULL;
    REQUIRE(EVP_PKEY_get_bn_param(key, name, &n));
    int size = width ? BN_bn2binpad(n, bytes, width) : BN_bn2bin(n, bytes);
    BN_free(n);
    return tokens_url64(t, bytes, (size_t)size);
}

static void add_rsa(tokens *t, outr_buf *out, const char *id, EVP_PKEY *key, const char *more)
{
    outr_buf_printf(out, "{\"kty\":\"RSA\",\"kid\":\"%s\",\"n\":\"" OUTR_FMT "\",\"e\":\"" OUTR_FMT
                         "\"%s},",
                    id, OUTR_ARG(number(t, key, OSSL_PKEY_PARAM_RSA_N, 0)),
                    OUTR_ARG(number(t, key, OSSL_PKEY_PARAM_RSA_E, 0)), more);
}

static void add_ec(tokens *t, outr_buf *out, const char *curve, EVP_PKEY *key, int width)
{
    outr_buf_printf(out, "{\"kty\":\"EC\",\"kid\":\"%s\",\"crv\":\"%s\",\"use\":\"sig\",\"x\":\""
                         OUTR_FMT "\",\"y\":\"" OUTR_FMT "\"},",
                    curve, curve, OUTR_ARG(number(t, key, OSSL_PKEY_PARAM_EC_PUB_X, width)),
                    OUTR_ARG(number(t, key, OSSL_PKEY_PARAM_EC_PUB_Y, width)));
}

void tokens_open(tokens *t)
{
    OUTR_AUTO(outr_buf) json = OUTR_BUF_MAX(OUTR_MIB);
    unsigned char raw[32];
    size_t n = sizeof raw;
    *t = (tokens){.rsa = EVP_RSA_gen(2048),
                  .small = EVP_RSA_gen(1024),
                  .p256 = EVP_EC_gen("P-256"),
                  .p384 = EVP_EC_gen("P-384"),
                  .p521 = EVP_EC_gen("P-521"),
                  .ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"),
                  .arena = outr_arena_new(256 * OUTR_MIB)};
    outr_buf_z(&json, "{\"keys\":[");
    add_rsa(t, &json, "rsa", t->rsa, "");
    add_rsa(t, &json, "only-rs256", t->rsa, ",\"alg\":\"RS256\",\"key_ops\":[\"verify\"]");
    add_rsa(t, &json, "for-encryption", t->rsa, ",\"use\":\"enc\"");
    add_rsa(t, &json, "for-signing", t->rsa, ",\"key_ops\":[\"sign\"]");
    add_rsa(t, &json, "small", t->small, "");
    add_ec(t, &json, "P-256", t->p256, 32);
    add_ec(t, &json, "P-384", t->p384, 48);
    add_ec(t, &json, "P-521", t->p521, 66);
    outr_buf_z(&json, "{\"kty\":\"oct\",\"kid\":\"secret\",\"k\":\"c2VjcmV0\"},"
                      "{\"kty\":\"XX\"},7,");
    EVP_PKEY_get_raw_public_key(t->ed, raw, &n);
    outr_buf_printf(&json,
                    "{\"kty\":\"OKP\",\"kid\":\"ed\",\"crv\":\"Ed25519\",\"x\":\"" OUTR_FMT "\"}]}",
                    OUTR_ARG(tokens_url64(t, raw, n)));
    t->jwks = outr_arena_str(t->arena, outr_buf_view(&json));
}

void tokens_close(tokens *t)
{
    EVP_PKEY *const keys[] = {t->rsa, t->small, t->p256, t->p384, t->p521, t->ed};
    for (size_t i = 0; i < OUTR_LEN(keys); i++)
        EVP_PKEY_free(keys[i]);
    outr_arena_free(t->arena);
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

static outr_str sign(tokens *t, EVP_PKEY *key, const char *alg, outr_str text)
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
    REQUIRE(EVP_DigestSignInit_ex(md, &ctx, hash, NULL, NULL, key, NULL) > 0);
    if (alg[0] == 'P') {
        EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING);
        EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST);
    }
    REQUIRE(EVP_DigestSign(md, sig, &n, (const unsigned char *)text.p, text.n) > 0);
    EVP_MD_CTX_free(md);
    if (alg[0] == 'E' && hash)
        n = raw_ecdsa(sig, n, EVP_PKEY_get_bits(key) == 521 ? 66 : EVP_PKEY_get_bits(key) / 8);
    return tokens_url64(t, sig, n);
}

static outr_str join_dot(tokens *t, outr_str a, outr_str b)
{
    return outr_arena_join(t->arena, a, OUTR_STR("."), b);
}

static outr_str signed_part(tokens *t, const char *head, const char *claims)
{
    return join_dot(t, tokens_url64(t, head, strlen(head)),
                    tokens_url64(t, claims, strlen(claims)));
}

outr_str tokens_sign(tokens *t, EVP_PKEY *key, const char *alg, const char *head,
                     const char *claims)
{
    outr_str text = signed_part(t, head, claims);
    return join_dot(t, text, sign(t, key, alg, text));
}

outr_str tokens_join(tokens *t, const char *head, const char *claims, const void *signature,
                     size_t n)
{
    return join_dot(t, signed_part(t, head, claims), tokens_url64(t, signature, n));
}

outr_str tokens_good(tokens *t, int64_t expires_s, const char *claims)
{
    outr_str all = outr_arena_printf(
        t->arena, "{\"iss\":\"https://issuer\",\"aud\":\"me\",\"exp\":%lld%s}",
        (long long)expires_s, claims);
    return tokens_sign(t, t->p256, "ES256", "{\"alg\":\"ES256\",\"kid\":\"P-256\"}",
                       outr_arena_strz(t->arena, all));
}
