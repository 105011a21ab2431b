#include "control/ca/authority.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "security/identity.h"
#include "security/issuer.h"

#define ROOT_LIFE_S ((int64_t)365 * 24 * 3600)
#define OWN_LIFE_S  ((int64_t)24 * 3600)

/* of the wire; kubernetes is 2 */
enum { VALIDATOR_UNKNOWN, VALIDATOR_INSECURE, VALIDATOR_JWKS = 3 };

struct outr_authority {
    outr_arena *arena;
    outr_authority_options o;
    outr_issuer issuer;
    outr_str id;
};

/* ---- files ----------------------------------------------------------------------------------- */

const char *outr_authority_path(outr_arena *arena, const char *dir, const char *name)
{
    return name[0] == '/' ? outr_arena_strz(arena, outr_str_from(name))
                          : outr_arena_printf(arena, "%s/%s", dir, name).p;
}

static const char *path_of(outr_authority *a, const char *name)
{
    return outr_authority_path(a->arena, a->o.dir, name);
}

/* Root and issuer into files; under their names only when they are whole, never over others. */
static outr_code make(outr_authority *a, const outr_issuer_paths *paths, int64_t now_s,
                      outr_err *err)
{
    OUTR_AUTO(outr_buf) root = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    OUTR_AUTO(outr_buf) issuer = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    outr_key *root_key = NULL, *key = NULL;
    outr_issuer_make order = {
        .organization = a->o.trust_domain, .life_s = ROOT_LIFE_S, .skew_s = a->o.skew_s};
    outr_code rc = outr_issuer_make_new(&root, &root_key, &order, now_s, err);
    order.organization = a->id;
    order.root_pem = outr_buf_view(&root);
    order.root_key = root_key;
    if (!rc)
        rc = outr_issuer_make_new(&issuer, &key, &order, now_s, err);
    outr_key_unref(root_key); /* signs nothing more: a new issuer needs a new root */
    if (!rc && mkdir(a->o.dir, 0700) != 0 && errno != EEXIST)
        rc = outr_fail_errno(err, errno, "%s", a->o.dir);
    if (!rc)
        rc = outr_secretfile_write_key(paths->key, key, OUTR_FILE_NEW, err);
    outr_key_unref(key);
    if (!rc)
        rc = outr_secretfile_write(paths->issuer, outr_buf_view(&issuer), OUTR_FILE_NEW, err);
    if (!rc)
        rc = outr_secretfile_write(paths->roots, outr_buf_view(&root), OUTR_FILE_NEW, err);
    return rc;
}

outr_code outr_authority_open(outr_authority **out, const outr_authority_options *options,
                              int64_t now_s, bool *made, outr_err *err)
{
    outr_authority *a = outr_alloc(sizeof *a);
    a->arena = outr_arena_new(OUTR_MIB);
    a->o = *options;
    a->o.trust_domain = outr_arena_str(a->arena, options->trust_domain);
    a->o.namespace_ = outr_arena_str(a->arena, options->namespace_);
    a->o.dir = outr_arena_strz(a->arena, outr_str_from(options->dir));
    a->id = outr_arena_printf(a->arena, "spiffe://" OUTR_FMT "/ns/" OUTR_FMT "/dapr-sentry",
                              OUTR_ARG(options->trust_domain), OUTR_ARG(options->namespace_));
    const outr_issuer_paths paths = {
        .roots = path_of(a, options->root_name ? options->root_name : "ca.crt"),
        .issuer = path_of(a, options->issuer_name ? options->issuer_name : "issuer.crt"),
        .key = path_of(a, options->key_name ? options->key_name : "issuer.key")};
    outr_spiffe spiffe;
    outr_code rc = outr_spiffe_parse(&spiffe, a->id, err);
    *made = access(paths.roots, F_OK) && access(paths.issuer, F_OK) && access(paths.key, F_OK);
    if (rc)
        outr_wrap(err, "\"" OUTR_FMT "\"", OUTR_ARG(a->id));
    else if (*made)
        rc = make(a, &paths, now_s, err);
    if (!rc) /* what is missing is told: nothing is made over others */
        rc = outr_issuer_load(&a->issuer, &paths, OUTR_FILE_ANY, now_s, err);
    if (rc) {
        outr_authority_free(a);
        return rc;
    }
    *out = a;
    return OUTR_OK;
}

void outr_authority_free(outr_authority *a)
{
    if (!a)
        return;
    outr_issuer_done(&a->issuer);
    outr_arena_free(a->arena);
    free(a);
}

bool outr_authority_is_same(const outr_authority *a, const outr_authority *b)
{
    /* the key, too: it has been found to be that of the chain */
    return outr_str_eq(outr_buf_view(&a->issuer.roots), outr_buf_view(&b->issuer.roots)) &&
           outr_str_eq(outr_buf_view(&a->issuer.chain), outr_buf_view(&b->issuer.chain));
}

outr_str outr_authority_root(const outr_authority *authority)
{
    return outr_buf_view(&authority->issuer.roots);
}

int64_t outr_authority_expires(const outr_authority *authority)
{
    return authority->issuer.expires_s;
}

outr_str outr_authority_id(const outr_authority *authority)
{
    return authority->id;
}

/* ---- signing --------------------------------------------------------------------------------- */

static outr_code issue(const outr_authority *a, outr_key *key, outr_str uri, int64_t life_s,
                       int64_t now_s, outr_buf *chain, int64_t *expires_s, outr_err *err)
{
    const outr_issuer_order order = {
        .key = key, .uri = uri, .life_s = life_s, .skew_s = a->o.skew_s};
    return outr_issuer_sign(&a->issuer, &order, now_s, chain, expires_s, err);
}

/* With no name given it is the one this authority has; there is only one at a time. */
static outr_code check_validator(const outr_authority *a, const outr_authority_order *o,
                                 outr_err *err)
{
    int enabled = a->o.vouch ? VALIDATOR_JWKS : VALIDATOR_INSECURE;
    if (o->validator == VALIDATOR_UNKNOWN && a->o.vouch)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "a validator name must be specified in this environment");
    if (o->validator != VALIDATOR_UNKNOWN && o->validator != enabled)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "the requested validator is not enabled");
    if (a->o.vouch && o->token.n == 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED, "the request does not contain a token");
    return OUTR_OK;
}

static outr_code check_order(const outr_authority_order *o, outr_err *err)
{
    outr_code rc = outr_issuer_check_id(o->id, err);
    if (rc)
        return rc;
    if (o->csr_pem.n == 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED, "invalid request: CSR is required");
    if (o->namespace_.n == 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED, "invalid request: namespace is required");
    return OUTR_OK;
}

/* In the order in which sentry looks. */
outr_code outr_authority_sign(const outr_authority *a, const outr_authority_order *o, int64_t now_s,
                              outr_buf *chain, outr_buf *uri, int64_t *expires_s, outr_err *err)
{
    outr_err nameless;
    outr_key *key;
    outr_code rc = check_validator(a, o, err);
    if (!rc)
        rc = check_order(o, err);
    if (rc)
        return rc;
    uri->n = 0;
    outr_code name_rc = outr_issuer_name(uri, o->trust_domain, o->namespace_, o->id, &nameless);
    if (name_rc == OUTR_PERMISSION_DENIED) {
        *err = nameless;
        return name_rc;
    }
    if (a->o.vouch && name_rc)
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "failed to construct SPIFFE ID for requestor");
    if (a->o.vouch && a->o.vouch(a->o.ctx, o->token, outr_buf_view(uri), err))
        return err->code;
    rc = outr_csr_read(&key, o->csr_pem, err);
    if (rc)
        return rc;
    if (name_rc)
        *err = nameless;
    rc = name_rc ? name_rc
                 : issue(a, key, outr_buf_view(uri), a->o.ttl_s, now_s, chain, expires_s, err);
    outr_key_unref(key);
    return rc;
}

outr_code outr_authority_sign_own(const outr_authority *a, outr_key *key, int64_t now_s,
                                  outr_buf *chain, int64_t *expires_s, outr_err *err)
{
    outr_code rc = issue(a, key, a->id, OWN_LIFE_S, now_s, chain, expires_s, err);
    /* the issuer of a machine that joined a fleet signs for apps alone */
    if (!rc && outr_cert_verify(outr_buf_view(chain), outr_buf_view(&a->issuer.roots), now_s, err))
        rc = outr_wrap(err, "%s/issuer.crt may not sign for an authority", a->o.dir);
    return rc;
}
