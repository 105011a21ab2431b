/* Any bytes as a key set and as a token: none is good. */
#include "base/arena.h"
#include "tests/fuzz/property.h"
#include "tls/jwt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char keys_text[] =
    "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\","
    "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"; /* RFC 8037 appendix A.2 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const outr_jwt_rules rules = {OUTR_STR("i"), OUTR_STR("a"), 1700000000};
    outr_str text = outr_str_of(data, size);
    outr_arena *arena = outr_arena_new(64 * OUTR_MIB);
    outr_jwks *keys;
    outr_err err = {0};
    int64_t expires_s;
    if (outr_jwks_parse(&keys, text, &err) == OUTR_OK) {
        (void)outr_jwt_check(text, keys, &rules, arena, &expires_s);
        outr_jwks_unref(keys);
    }
    PROPERTY(outr_jwks_parse(&keys, outr_str_from(keys_text), &err) == OUTR_OK);
    PROPERTY(outr_jwt_check(text, keys, &rules, arena, &expires_s));
    outr_jwks_unref(keys);
    outr_arena_free(arena);
    return 0;
}
