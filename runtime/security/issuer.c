#include "security/issuer.h"

#include "security/identity.h"

#define ID_MAX 64

/* ---- files ----------------------------------------------------------------------------------- */

static outr_code read_files(outr_issuer *issuer, const outr_issuer_paths *paths,
                            outr_secrecy secrecy, outr_err *err)
{
    outr_code rc = outr_secretfile_read(&issuer->roots, paths->roots, OUTR_ISSUER_FILE_MAX,
                                        OUTR_FILE_ANY, err);
    if (!rc)
        rc = outr_secretfile_read(&issuer->chain, paths->issuer, OUTR_ISSUER_FILE_MAX,
                                  OUTR_FILE_ANY, err);
    if (!rc)
        rc = outr_secretfile_read_key(&issuer->key, paths->key, secrecy, err);
    return rc;
}

static outr_code check(outr_issuer *issuer, const outr_issuer_paths *paths, int64_t now_s,
                       outr_err *err)
{
    outr_cert_info roots, chain;
    if (outr_cert_info_read(&roots, outr_buf_view(&issuer->roots), err))
        return outr_wrap(err, "%s", paths->roots);
    if (outr_cert_info_read(&chain, outr_buf_view(&issuer->chain), err))
        return outr_wrap(err, "%s", paths->issuer);
    if (!chain.is_ca)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: no authority's certificate",
                         paths->issuer);
    if (!outr_cert_has_key(outr_buf_view(&issuer->chain), issuer->key))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s is not the key of %s", paths->key,
                         paths->issuer);
    if (outr_cert_verify(outr_buf_view(&issuer->chain), outr_buf_view(&issuer->roots), now_s, err))
        return outr_wrap(err, "%s by %s", paths->issuer, paths->roots);
    issuer->expires_s = chain.not_after_s;
    return OUTR_OK;
}

outr_code outr_issuer_load(outr_issuer *out, const outr_issuer_paths *paths, outr_secrecy secrecy,
                           int64_t now_s, outr_err *err)
{
    outr_issuer issuer = {0};
    outr_code rc = read_files(&issuer, paths, secrecy, err);
    if (!rc)
        rc = check(&issuer, paths, now_s, err);
    if (rc) {
        outr_issuer_done(&issuer);
        return rc;
    }
    *out = issuer;
    return OUTR_OK;
}

void outr_issuer_done(outr_issuer *issuer)
{
    outr_key_unref(issuer->key);
    outr_buf_done(&issuer->roots);
    outr_buf_done(&issuer->chain);
    *issuer = (outr_issuer){0};
}

/* ---- signing --------------------------------------------------------------------------------- */

outr_code outr_issuer_check_id(outr_str id, outr_err *err)
{
    if (id.n == 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "invalid request: parameter app-id cannot be empty");
    if (id.n > ID_MAX)
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "invalid request: app ID must be 64 characters or less");
    if (outr_str_find(id, '.') >= 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "invalid request: parameter app-id cannot contain dots");
    return OUTR_OK;
}

outr_code outr_issuer_name(outr_buf *uri, outr_str trust_domain, outr_str namespace_, outr_str id,
                           outr_err *err)
{
    OUTR_AUTO(outr_buf) domain = OUTR_BUF_MAX(OUTR_SPIFFE_MAX);
    outr_spiffe spiffe;
    outr_identity identity;
    outr_str of = trust_domain.n ? trust_domain : OUTR_STR("public");
    outr_buf_printf(&domain, "spiffe://" OUTR_FMT, OUTR_ARG(of));
    if (domain.is_full || outr_str_find(of, '/') >= 0 ||
        outr_spiffe_parse(&spiffe, outr_buf_view(&domain), err))
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "trust domain characters are limited to lowercase letters, numbers, dots, "
                         "dashes, and underscores");
    outr_buf_printf(uri, OUTR_FMT "/ns/" OUTR_FMT "/" OUTR_FMT, OUTR_ARG(outr_buf_view(&domain)),
                    OUTR_ARG(namespace_), OUTR_ARG(id));
    /* each part one segment, else a name could be made up of others */
    bool is_good = !uri->is_full &&
                   outr_identity_parse(&identity, outr_buf_view(uri), err) == OUTR_OK &&
                   outr_str_eq(identity.namespace_, namespace_) &&
                   outr_str_eq(identity.app_id, id);
    return is_good ? OUTR_OK : outr_fail(err, OUTR_INTERNAL, "failed to sign certificate");
}

outr_code outr_issuer_sign(const outr_issuer *issuer, const outr_issuer_order *o, int64_t now_s,
                           outr_buf *chain, int64_t *expires_s, outr_err *err)
{
    if (now_s >= issuer->expires_s)
        return outr_fail(err, OUTR_FAILED_PRECONDITION,
                         "the issuer's own certificate has expired: nothing is issued");
    const outr_cert_order order = {
        .subject_key = o->key,
        .uri = o->uri,
        .not_before_s = now_s - o->skew_s,
        .not_after_s = OUTR_MIN(now_s + o->life_s, issuer->expires_s), /* nobody outlives it */
        .issuer_pem = outr_buf_view(&issuer->chain),
        .issuer_key = issuer->key,
    };
    outr_code rc = outr_cert_sign(chain, &order, err);
    if (rc)
        return rc;
    outr_buf_str(chain, outr_buf_view(&issuer->chain));
    *expires_s = order.not_after_s;
    return OUTR_OK;
}

outr_code outr_issuer_make_new(outr_buf *pem, outr_key **key, const outr_issuer_make *make,
                               int64_t now_s, outr_err *err)
{
    outr_key *fresh = NULL;
    outr_code rc = make->of ? OUTR_OK : outr_key_make(&fresh, err);
    if (rc)
        return rc;
    const outr_cert_order order = {
        .subject_key = make->of ? make->of : fresh,
        .organization = make->organization,
        .is_ca = true,
        .is_last_ca = make->is_of_member,
        .only_domain = make->is_of_member ? "public" : NULL,
        .not_before_s = now_s - make->skew_s,
        .not_after_s = now_s + make->life_s,
        .issuer_pem = make->root_pem,
        .issuer_key = make->root_key ? make->root_key : fresh,
    };
    rc = outr_cert_sign(pem, &order, err);
    if (rc) {
        outr_key_unref(fresh);
        return rc;
    }
    if (fresh)
        *key = fresh;
    return OUTR_OK;
}
