#include "control/ca/tokens.h"

#include <sys/random.h>
#include <unistd.h>

#include "base/encode.h"
#include "base/json.h"
#include "control/ca/authority.h"
#include "security/secretfile.h"

#define FILE_MAX OUTR_JWKS_MAX
#define ID_BYTES 16

struct outr_ca_tokens {
    const outr_ca_tokens_options *o;
    outr_arena *arena;
    outr_signer *signer;
    outr_buf keys;
};

static const char *path_of(outr_ca_tokens *t, outr_str name)
{
    return outr_authority_path(t->arena, t->o->dir, outr_arena_strz(t->arena, name));
}

static outr_code make_key(outr_key **out, const char *path, outr_err *err)
{
    outr_key *key = NULL;
    outr_code rc = outr_key_make_rsa(&key, err);
    if (!rc)
        rc = outr_secretfile_write_key(path, key, OUTR_FILE_NEW, err);
    if (rc) {
        outr_key_unref(key);
        return rc;
    }
    *out = key;
    return OUTR_OK;
}

/* The key set as it is there (it may hold others' keys, too), or one of our key alone. */
static outr_code take_keys(outr_ca_tokens *t, const char *path, outr_err *err)
{
    outr_code rc = outr_secretfile_read(&t->keys, path, FILE_MAX, OUTR_FILE_ANY, err);
    if (rc == OUTR_NOT_FOUND) {
        t->keys = OUTR_BUF_MAX(FILE_MAX);
        outr_signer_write_keys(t->signer, &t->keys);
        return outr_secretfile_write(path, outr_buf_view(&t->keys), OUTR_FILE_NEW, err);
    }
    if (!rc && outr_signer_check_keys(t->signer, outr_buf_view(&t->keys), err))
        rc = outr_wrap(err, "%s", path);
    return rc;
}

static outr_code open_files(outr_ca_tokens *t, bool *made, outr_err *err)
{
    const char *key_path = path_of(t, t->o->key_name), *keys_path = path_of(t, t->o->keys_name);
    outr_key *key = NULL;
    outr_code rc = outr_secretfile_read_key(&key, key_path, OUTR_FILE_ANY, err);
    *made = rc == OUTR_NOT_FOUND && access(keys_path, F_OK) != 0; /* no new key for an old set */
    if (*made)
        rc = make_key(&key, key_path, err);
    if (!rc && outr_signer_new(&t->signer, key, t->o->algorithm, t->o->key_id, err))
        rc = outr_wrap(err, "%s", key_path);
    outr_key_unref(key);
    return rc ? rc : take_keys(t, keys_path, err);
}

outr_code outr_ca_tokens_open(outr_ca_tokens **out, const outr_ca_tokens_options *options,
                              bool *made, outr_err *err)
{
    outr_ca_tokens *t = outr_alloc(sizeof *t);
    t->o = options;
    t->arena = outr_arena_new(OUTR_MIB);
    outr_code rc = open_files(t, made, err);
    if (rc) {
        outr_ca_tokens_free(t);
        return rc;
    }
    *out = t;
    return OUTR_OK;
}

void outr_ca_tokens_free(outr_ca_tokens *t)
{
    if (!t)
        return;
    outr_signer_free(t->signer);
    outr_buf_done(&t->keys);
    outr_arena_free(t->arena);
    free(t);
}

outr_str outr_ca_tokens_keys(const outr_ca_tokens *tokens)
{
    return outr_buf_view(&tokens->keys);
}

outr_str outr_ca_tokens_algorithm(const outr_ca_tokens *tokens)
{
    return outr_signer_algorithm(tokens->signer);
}

outr_code outr_ca_tokens_issue(const outr_ca_tokens *t, outr_str subject, outr_str audience,
                               int64_t now_s, int64_t most_s, outr_arena *arena, outr_str *token,
                               outr_err *err)
{
    OUTR_AUTO(outr_buf) claims = OUTR_BUF_MAX(64 * OUTR_KIB);
    unsigned char bytes[ID_BYTES];
    char id[2 * ID_BYTES];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return outr_fail(err, OUTR_INTERNAL, "no random bytes to be had");
    outr_hex_encode(bytes, sizeof bytes, id);
    outr_buf_z(&claims, "{\"aud\":[");
    outr_json_quote(&claims, audience);
    outr_buf_printf(&claims, "],\"exp\":%lld,\"iat\":%lld",
                    (long long)OUTR_MIN(now_s + t->o->ttl_s, most_s), (long long)now_s);
    if (t->o->issuer.n > 0) {
        outr_buf_z(&claims, ",\"iss\":");
        outr_json_quote(&claims, t->o->issuer);
    }
    outr_buf_printf(&claims, ",\"jti\":\"%.*s\",\"nbf\":%lld,\"sub\":", (int)sizeof id, id,
                    (long long)(now_s - t->o->skew_s));
    outr_json_quote(&claims, subject);
    outr_buf_z(&claims, ",\"use\":\"sig\"}"); /* Azure wants to see it */
    if (claims.is_full)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "an audience of more than %zu bytes",
                         claims.max);
    return outr_signer_sign(t->signer, outr_buf_view(&claims), arena, token, err);
}
