/* Any bytes as a key set, as a token, none of which is good, and as what a good one says. */
#include "base/arena.h"
#include "tests/fuzz/property.h"
#include "tls/jwt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char keys_text[] =
    "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\","
    "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"; /* RFC 8037 appendix A.2 */

/* A token that says whatever it likes is flattened without fault, and each value is found. */
static void check_claims(outr_arena *arena, outr_str text)
{
    outr_json *json;
    outr_err err;
    if (outr_json_parse(&json, arena, text, &err))
        return;
    outr_claims *claims = outr_claims_new(json, arena);
    for (size_t i = 0; i < claims->count; i++) {
        size_t count;
        const outr_claim *found = outr_claims_find(claims, claims->items[i].name, &count);
        PROPERTY(found && found <= &claims->items[i] && &claims->items[i] < found + count);
    }
    outr_claims_unref(claims);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const outr_str audience = OUTR_STR("a");
    const outr_jwt_rules rules = {.issuer = OUTR_STR("i"),
                                  .audiences = &audience,
                                  .audience_count = 1,
                                  .skew_s = 60,
                                  .now_s = 1700000000};
    outr_str text = outr_str_of(data, size);
    outr_arena *arena = outr_arena_new(64 * OUTR_MIB);
    outr_claims *claims = NULL;
    outr_jwks *keys;
    outr_err err = {0};
    int64_t expires_s;
    if (outr_jwks_parse(&keys, text, &err) == OUTR_OK) {
        (void)outr_jwt_check(text, keys, &rules, arena, &claims, &expires_s);
        outr_jwks_unref(keys);
    }
    PROPERTY(outr_jwks_parse(&keys, outr_str_from(keys_text), &err) == OUTR_OK);
    PROPERTY(outr_jwt_check(text, keys, &rules, arena, &claims, &expires_s) && !claims);
    (void)outr_jwt_issuer(text, arena);
    outr_jwks_unref(keys);
    check_claims(arena, text);
    outr_arena_free(arena);
    return 0;
}
