#include "tls/jwt.h"

#include <math.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>

#include "base/encode.h"
#include "base/json.h"
#include "tls/internal.h"

typedef outr__jwt_family family;
typedef outr__jwt_algorithm algorithm;

static const algorithm algorithms[] = {
    {"RS256", OUTR__JWT_RSA, NULL, NULL, "SHA256", 0, false},
    {"RS384", OUTR__JWT_RSA, NULL, NULL, "SHA384", 0, false},
    {"RS512", OUTR__JWT_RSA, NULL, NULL, "SHA512", 0, false},
    {"PS256", OUTR__JWT_RSA, NULL, NULL, "SHA256", 0, true},
    {"PS384", OUTR__JWT_RSA, NULL, NULL, "SHA384", 0, true},
    {"PS512", OUTR__JWT_RSA, NULL, NULL, "SHA512", 0, true},
    {"ES256", OUTR__JWT_EC, "P-256", "P-256", "SHA256", 32, false},
    {"ES384", OUTR__JWT_EC, "P-384", "P-384", "SHA384", 48, false},
    {"ES512", OUTR__JWT_EC, "P-521", "P-521", "SHA512", 66, false},
    {"EdDSA", OUTR__JWT_ED, "Ed25519", NULL, NULL, 0, false},
};

typedef struct key {
    outr_str id, algorithm; /* NONE: not said */
    family family;
    outr_str curve;
    EVP_PKEY *pkey;
} key;

struct outr_jwks {
    uint32_t refs; /* atomic */
    outr_arena *arena;
    uint64_t digest;
    size_t count;
    key keys[OUTR_JWKS_KEYS];
};

/* ---- keys ------------------------------------------------------------------------------------ */

/* The bytes of a member in base64url; NONE: it has none. */
static outr_str bytes_of(outr_arena *arena, const outr_json *object, const char *name)
{
    outr_str text = outr_json_text(object, name), bytes;
    if (text.n == 0 || !outr_base64_decode(arena, text, &bytes))
        return OUTR_STR_NONE;
    return bytes;
}

static EVP_PKEY *make_key(const char *type, OSSL_PARAM_BLD *build)
{
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) <= 0 ||
        EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) <= 0)
        pkey = NULL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return pkey;
}

static EVP_PKEY *rsa_key(outr_arena *arena, const outr_json *object)
{
    outr_str n = bytes_of(arena, object, "n"), e = bytes_of(arena, object, "e");
    if (n.n == 0 || e.n == 0 || n.n > OUTR__JWT_RSA_MAX / 8 + 1 || e.n > 8)
        return NULL;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *modulus = BN_bin2bn((const unsigned char *)n.p, (int)n.n, NULL);
    BIGNUM *exponent = BN_bin2bn((const unsigned char *)e.p, (int)e.n, NULL);
    EVP_PKEY *pkey = NULL;
    bool is_sane = modulus && exponent && BN_num_bits(modulus) >= OUTR__JWT_RSA_MIN &&
                   BN_num_bits(modulus) <= OUTR__JWT_RSA_MAX && BN_is_odd(modulus) &&
                   BN_is_odd(exponent) && !BN_is_one(exponent);
    if (build && is_sane && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent))
        pkey = make_key("RSA", build);
    BN_free(modulus);
    BN_free(exponent);
    OSSL_PARAM_BLD_free(build);
    return pkey;
}

static EVP_PKEY *ec_key(outr_arena *arena, const outr_json *object, outr_str curve)
{
    outr_str x = bytes_of(arena, object, "x"), y = bytes_of(arena, object, "y");
    const algorithm *a = NULL;
    unsigned char point[1 + 2 * 66] = {POINT_CONVERSION_UNCOMPRESSED};
    for (size_t i = 0; i < OUTR_LEN(algorithms); i++) {
        if (algorithms[i].family == OUTR__JWT_EC && outr_str_is(curve, algorithms[i].curve))
            a = &algorithms[i];
    }
    if (!a || x.n != a->half || y.n != a->half) /* RFC 7518 section 6.2.1.2 */
        return NULL;
    memcpy(point + 1, x.p, x.n);
    memcpy(point + 1 + x.n, y.p, y.n);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *pkey = NULL; /* a point that is not on the curve is refused there */
    if (build &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, a->group, 0) &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * x.n))
        pkey = make_key("EC", build);
    OSSL_PARAM_BLD_free(build);
    return pkey;
}

static EVP_PKEY *ed_key(outr_arena *arena, const outr_json *object, outr_str curve)
{
    outr_str x = bytes_of(arena, object, "x");
    if (!outr_str_is(curve, "Ed25519") || x.n != 32)
        return NULL;
    return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const unsigned char *)x.p, x.n);
}

/* What it is for leaves verifying open. */
static bool may_verify(const outr_json *object)
{
    const outr_json *use = outr_json_find(object, "use"), *ops = outr_json_find(object, "key_ops");
    if (use && (use->kind != OUTR_JSON_STRING || !outr_str_is(use->text, "sig")))
        return false;
    if (!ops)
        return true;
    for (const outr_json *op = ops->child; op; op = op->next) {
        if (op->kind == OUTR_JSON_STRING && outr_str_is(op->text, "verify"))
            return true;
    }
    return false;
}

static bool read_key(outr_arena *arena, const outr_json *object, key *out)
{
    outr_str type = outr_json_text(object, "kty"), curve = outr_json_text(object, "crv");
    EVP_PKEY *pkey = NULL;
    family kind = OUTR__JWT_RSA;
    if (object->kind != OUTR_JSON_OBJECT || !may_verify(object))
        return false;
    if (outr_str_is(type, "RSA")) {
        pkey = rsa_key(arena, object);
    } else if (outr_str_is(type, "EC")) {
        kind = OUTR__JWT_EC;
        pkey = ec_key(arena, object, curve);
    } else if (outr_str_is(type, "OKP")) {
        kind = OUTR__JWT_ED;
        pkey = ed_key(arena, object, curve);
    }
    ERR_clear_error();
    if (!pkey)
        return false;
    *out = (key){outr_json_text(object, "kid"), outr_json_text(object, "alg"), kind, curve, pkey};
    return true;
}

static void free_keys(outr_jwks *keys)
{
    for (size_t i = 0; i < keys->count; i++)
        EVP_PKEY_free(keys->keys[i].pkey);
    outr_arena_free(keys->arena);
    free(keys);
}

outr_code outr_jwks_parse(outr_jwks **out, outr_str json, outr_err *err)
{
    outr_json *root;
    if (json.n > OUTR_JWKS_MAX)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "a key set of more than %zu bytes",
                         OUTR_JWKS_MAX);
    outr_jwks *keys = outr_alloc(sizeof *keys);
    keys->refs = 1;
    keys->arena = outr_arena_new(64 * OUTR_MIB);
    keys->digest = outr_str_hash(json, 0);
    outr_code rc = outr_json_parse(&root, keys->arena, outr_arena_str(keys->arena, json), err);
    const outr_json *list = rc ? NULL : outr_json_find(root, "keys");
    if (!rc && (!list || list->kind != OUTR_JSON_ARRAY))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "no key set: \"keys\" is missing");
    for (const outr_json *k = rc ? NULL : list->child; k && keys->count < OUTR_JWKS_KEYS;
         k = k->next)
        keys->count += read_key(keys->arena, k, &keys->keys[keys->count]);
    if (!rc && keys->count == 0)
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "a key set without a key for signatures");
    if (rc) {
        free_keys(keys);
        return rc;
    }
    *out = keys;
    return OUTR_OK;
}

outr_jwks *outr_jwks_ref(outr_jwks *keys)
{
    __atomic_fetch_add(&keys->refs, 1, __ATOMIC_RELAXED);
    return keys;
}

void outr_jwks_unref(outr_jwks *keys)
{
    if (keys && __atomic_sub_fetch(&keys->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free_keys(keys);
}

uint64_t outr_jwks_digest(const outr_jwks *keys)
{
    return keys->digest;
}

/* ---- signatures ------------------------------------------------------------------------------ */

const outr__jwt_algorithm *outr__jwt_find_algorithm(outr_str name)
{
    for (size_t i = 0; i < OUTR_LEN(algorithms); i++) {
        if (outr_str_is(name, algorithms[i].name))
            return &algorithms[i];
    }
    return NULL;
}

unsigned outr_jwt_algorithm(outr_str name)
{
    const algorithm *a = outr__jwt_find_algorithm(name);
    return a ? 1u << (a - algorithms) : 0;
}

static bool fits(const key *k, const algorithm *a)
{
    return k->family == a->family && (!a->curve || outr_str_is(k->curve, a->curve)) &&
           (k->algorithm.n == 0 || outr_str_is(k->algorithm, a->name));
}

/* The key that the token names. One that names none can only mean the only one that fits. */
static const key *find_key(const outr_jwks *keys, const algorithm *a, const outr_json *id)
{
    const key *found = NULL;
    for (size_t i = 0; i < keys->count; i++) {
        const key *k = &keys->keys[i];
        if (!fits(k, a) || (id && !outr_str_eq(k->id, id->text)))
            continue;
        if (id)
            return k;
        if (found)
            return NULL;
        found = k;
    }
    return found;
}

/* r and s side by side become what OpenSSL reads. */
static bool ecdsa_signature(outr_arena *arena, size_t half, outr_str raw, outr_str *out)
{
    if (raw.n != 2 * half)
        return false;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn((const unsigned char *)raw.p, (int)half, NULL);
    BIGNUM *s = BN_bin2bn((const unsigned char *)raw.p + half, (int)half, NULL);
    unsigned char *der = NULL;
    int n = -1;
    if (sig && r && s && ECDSA_SIG_set0(sig, r, s)) {
        r = s = NULL;
        n = i2d_ECDSA_SIG(sig, &der);
    }
    if (n > 0)
        *out = outr_arena_str(arena, outr_str_of(der, (size_t)n));
    OPENSSL_free(der);
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    return n > 0;
}

bool outr__jwt_set_padding(EVP_PKEY_CTX *ctx, const algorithm *a)
{
    if (a->family != OUTR__JWT_RSA)
        return true;
    if (EVP_PKEY_CTX_set_rsa_padding(ctx, a->is_pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) <=
        0)
        return false;
    return !a->is_pss ||
           EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) > 0; /* RFC 7518 3.5 */
}

static bool verify(outr_arena *arena, const key *k, const algorithm *a, outr_str signed_part,
                   outr_str signature)
{
    EVP_PKEY_CTX *ctx; /* md's */
    if (a->family == OUTR__JWT_EC && !ecdsa_signature(arena, a->half, signature, &signature))
        return false;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool is_good =
        md && EVP_DigestVerifyInit_ex(md, &ctx, a->hash, NULL, NULL, k->pkey, NULL) > 0 &&
        outr__jwt_set_padding(ctx, a) &&
        EVP_DigestVerify(md, (const unsigned char *)signature.p, signature.n,
                         (const unsigned char *)signed_part.p, signed_part.n) == 1;
    EVP_MD_CTX_free(md);
    ERR_clear_error();
    return is_good;
}

/* ---- claims ---------------------------------------------------------------------------------- */

/* False: it is there, and no time. */
static bool read_time(const outr_json *claims, const char *name, double *out)
{
    const outr_json *value = outr_json_find(claims, name);
    *out = NAN;
    return !value || (value->kind == OUTR_JSON_NUMBER && outr_str_to_double(value->text, out) &&
                      fabs(*out) < 1e15);
}

static bool has_audience(const outr_json *audience, outr_str wanted)
{
    if (outr_str_is(wanted, "*"))
        return true;
    if (!audience)
        return false;
    if (audience->kind == OUTR_JSON_STRING)
        return outr_str_eq(audience->text, wanted);
    for (const outr_json *a = audience->kind == OUTR_JSON_ARRAY ? audience->child : NULL; a;
         a = a->next) {
        if (a->kind == OUTR_JSON_STRING && outr_str_eq(a->text, wanted))
            return true;
    }
    return false;
}

static bool has_any_audience(const outr_json *audience, const outr_jwt_rules *rules)
{
    for (size_t i = 0; i < rules->audience_count; i++) {
        if (has_audience(audience, rules->audiences[i]))
            return true;
    }
    return false;
}

static const char *check_claims(const outr_json *claims, const outr_jwt_rules *rules,
                                int64_t *expires_s)
{
    double expires, not_before, issued, now = (double)rules->now_s;
    if (claims->kind != OUTR_JSON_OBJECT || !read_time(claims, "exp", &expires) ||
        !read_time(claims, "nbf", &not_before) || !read_time(claims, "iat", &issued) ||
        isnan(expires))
        return OUTR_JWT_CLAIMS;
    if (expires + (double)rules->skew_s <= now)
        return OUTR_JWT_EXPIRED;
    if (not_before - (double)rules->skew_s > now || issued - (double)rules->skew_s > now)
        return OUTR_JWT_NOT_YET;
    const outr_json *issuer = outr_json_find(claims, "iss");
    if (rules->issuer.p && (!issuer || issuer->kind != OUTR_JSON_STRING ||
                            !outr_str_eq(issuer->text, rules->issuer)))
        return OUTR_JWT_ISSUER;
    if (!has_any_audience(outr_json_find(claims, "aud"), rules))
        return OUTR_JWT_AUDIENCE;
    *expires_s = (int64_t)expires + rules->skew_s;
    return NULL;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* base64url without padding, nothing else: RFC 7515 section 2. */
static bool is_base64url(outr_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_alnum && c != '-' && c != '_')
            return false;
    }
    return s.n > 0 && s.n % 4 != 1;
}

static bool split(outr_str token, outr_str parts[3], outr_str *signed_part)
{
    outr_str rest = outr_str_cut(token, '.', &parts[0]);
    rest = outr_str_cut(rest, '.', &parts[1]);
    parts[2] = rest;
    *signed_part = outr_str_head(token, parts[0].n + 1 + parts[1].n);
    return is_base64url(parts[0]) && is_base64url(parts[1]) && is_base64url(parts[2]);
}

static outr_json *read_json(outr_arena *arena, outr_str part)
{
    outr_str text;
    outr_json *json;
    outr_err err;
    if (!outr_base64_decode(arena, part, &text) || outr_json_parse(&json, arena, text, &err))
        return NULL;
    return json;
}

const char *outr_jwt_check(outr_str token, outr_jwks *keys, const outr_jwt_rules *rules,
                           outr_arena *scratch, outr_claims **claims, int64_t *expires_s)
{
    outr_str parts[3], signed_part, signature;
    if (token.n > OUTR_JWT_MAX)
        return OUTR_JWT_TOO_LARGE;
    if (!split(token, parts, &signed_part))
        return OUTR_JWT_MALFORMED;
    const outr_json *head = read_json(scratch, parts[0]);
    if (!head || head->kind != OUTR_JSON_OBJECT ||
        !outr_base64_decode(scratch, parts[2], &signature))
        return OUTR_JWT_MALFORMED;
    const algorithm *a = outr__jwt_find_algorithm(outr_json_text(head, "alg"));
    const outr_json *id = outr_json_find(head, "kid");
    if (!a || (rules->algorithms && !(rules->algorithms & 1u << (a - algorithms))))
        return OUTR_JWT_ALGORITHM;
    if (outr_json_find(head, "crit") || (id && id->kind != OUTR_JSON_STRING))
        return OUTR_JWT_MALFORMED; /* no extension is understood: RFC 7515 section 4.1.11 */
    const key *k = find_key(keys, a, id);
    if (!k)
        return OUTR_JWT_KEY;
    if (!verify(scratch, k, a, signed_part, signature))
        return OUTR_JWT_SIGNATURE;
    const outr_json *said = read_json(scratch, parts[1]);
    if (!said)
        return OUTR_JWT_MALFORMED;
    const char *reason = check_claims(said, rules, expires_s);
    if (!reason)
        *claims = outr_claims_new(said, scratch);
    return reason;
}

outr_str outr_jwt_issuer(outr_str token, outr_arena *scratch)
{
    outr_str parts[3], signed_part;
    if (token.n > OUTR_JWT_MAX || !split(token, parts, &signed_part))
        return OUTR_STR_NONE;
    outr_str issuer = outr_json_text(read_json(scratch, parts[1]), "iss");
    return issuer.p ? issuer : OUTR_STR("");
}
