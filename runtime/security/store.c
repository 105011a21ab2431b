#include "security/store.h"

#include "security/secretfile.h"

#define FILE_MAX       OUTR_MIB
#define PASSPHRASE_MAX (4 * OUTR_KIB)

void outr_kept_identity_done(outr_kept_identity *kept)
{
    outr_key_unref(kept->key);
    outr_buf_done(&kept->chain);
    *kept = (outr_kept_identity){0};
}

/* Somebody's file by whose name a slip of the hand called us; an empty one may be had. */
static bool is_anothers(const char *path)
{
    OUTR_AUTO(outr_buf) text = {0};
    outr_err err;
    outr_code rc = outr_secretfile_read(&text, path, FILE_MAX, OUTR_FILE_ANY, &err);
    if (rc)
        return rc != OUTR_NOT_FOUND;
    return text.n > 0 && !outr_seal_is_one(outr_buf_view(&text));
}

outr_code outr_store_open(outr_store *store, const char *path, const char *passphrase_path,
                          outr_err *err)
{
    outr_buf passphrase = {0};
    outr_code rc =
        outr_secretfile_read(&passphrase, passphrase_path, PASSPHRASE_MAX, OUTR_FILE_OWN, err);
    if (!rc && outr_str_trim(outr_buf_view(&passphrase)).n < OUTR_PASSPHRASE_MIN)
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: shorter than %d bytes", passphrase_path,
                       OUTR_PASSPHRASE_MIN);
    if (rc) {
        outr_secret_done(&passphrase);
        return rc;
    }
    *store = (outr_store){
        .path = path, .passphrase = passphrase, .is_anothers = is_anothers(path)};
    return OUTR_OK;
}

static outr_str passphrase_of(const outr_store *store)
{
    return outr_str_trim(outr_buf_view(&store->passphrase));
}

/* "issued <ms>\n", the key, the chain. */
static outr_code parse(outr_kept_identity *out, outr_str text, outr_err *err)
{
    const outr_str word = OUTR_STR("issued ");
    outr_str line, rest = outr_str_cut(text, '\n', &line);
    outr_kept_identity kept = {.chain = OUTR_BUF_MAX(FILE_MAX)};
    outr_cert_info info;
    ptrdiff_t at = outr_str_search(rest, OUTR_STR("-----BEGIN CERTIFICATE-----"));
    if (!outr_str_starts(line, word) || at <= 0 ||
        !outr_str_to_i64(outr_str_skip(line, word.n), 0, INT64_MAX, &kept.issued_ms))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "no identity is in it");
    outr_str chain = outr_str_skip(rest, (size_t)at);
    outr_code rc = outr_key_read(&kept.key, outr_str_head(rest, (size_t)at), err);
    if (!rc)
        rc = outr_cert_info_read(&info, chain, err);
    if (!rc && !outr_cert_has_key(chain, kept.key))
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "its key is not that of its certificate");
    if (rc) {
        outr_key_unref(kept.key);
        return rc;
    }
    kept.expires_ms = info.not_after_s * 1000;
    outr_buf_str(&kept.chain, chain);
    *out = kept;
    return OUTR_OK;
}

outr_code outr_store_load(outr_store *store, outr_kept_identity *out, outr_err *err)
{
    OUTR_AUTO(outr_buf) sealed = {0};
    outr_buf text = OUTR_BUF_MAX(FILE_MAX);
    outr_code rc = outr_secretfile_read(&sealed, store->path, FILE_MAX, OUTR_FILE_OWN, err);
    if (rc)
        return rc;
    rc = outr_seal_open(&text, &store->seal, passphrase_of(store), outr_buf_view(&sealed), err);
    if (!rc)
        rc = parse(out, outr_buf_view(&text), err);
    outr_secret_done(&text);
    return rc ? outr_wrap(err, "%s", store->path) : OUTR_OK;
}

static outr_code write_sealed(outr_store *store, outr_str text, outr_err *err)
{
    OUTR_AUTO(outr_buf) sealed = OUTR_BUF_MAX(FILE_MAX);
    outr_code rc =
        store->seal.is_made ? OUTR_OK : outr_seal_make(&store->seal, passphrase_of(store), err);
    if (!rc)
        rc = outr_seal_write(&sealed, &store->seal, text, err);
    if (rc)
        return rc;
    return outr_secretfile_write(store->path, outr_buf_view(&sealed), OUTR_FILE_LAZY, err);
}

outr_code outr_store_save(outr_store *store, outr_key *key, outr_str chain, int64_t issued_ms,
                          outr_err *err)
{
    outr_buf text = OUTR_BUF_MAX(FILE_MAX - OUTR_KIB);
    if (store->is_anothers)
        return outr_fail(err, OUTR_FAILED_PRECONDITION,
                         "%s: something else is in it, which is not written over", store->path);
    outr_buf_reserve(&text, chain.n + 4 * OUTR_KIB); /* no copies are left behind by growing */
    outr_buf_printf(&text, "issued %lld\n", (long long)issued_ms);
    outr_code rc = outr_key_write(&text, key, err);
    if (!rc && !outr_buf_str(&text, chain))
        rc = outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "%s: too long a chain", store->path);
    if (!rc)
        rc = write_sealed(store, outr_buf_view(&text), err);
    outr_secret_done(&text);
    if (!rc) /* the seal does from now on */
        outr_secret_done(&store->passphrase);
    return rc;
}

void outr_store_done(outr_store *store)
{
    outr_secret_done(&store->passphrase);
    outr_seal_done(&store->seal);
}
