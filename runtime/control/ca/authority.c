#include "control/ca/authority.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "security/identity.h"

#define ROOT_LIFE_S ((int64_t)365 * 24 * 3600)
#define OWN_LIFE_S  ((int64_t)24 * 3600)
#define FILE_MAX    OUTR_MIB
#define ID_MAX      64

enum { VALIDATOR_UNKNOWN, VALIDATOR_INSECURE };

struct outr_authority {
    outr_arena *arena;
    outr_authority_options o;
    outr_buf root, issuer;
    outr_key *key;
    int64_t expires_s;
    outr_str id;
};

/* ---- files ----------------------------------------------------------------------------------- */

static const char *path_of(outr_authority *a, const char *name)
{
    return outr_arena_printf(a->arena, "%s/%s", a->o.dir, name).p;
}

/* NOT_FOUND: it is not there. */
static outr_code read_file(outr_buf *out, const char *path, outr_err *err)
{
    char piece[4096];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return outr_fail_errno(err, errno, "%s", path);
    *out = OUTR_BUF_MAX(FILE_MAX);
    while ((n = read(fd, piece, sizeof piece)) > 0 && outr_buf_append(out, piece, (size_t)n))
        ;
    int why = errno;
    close(fd);
    if (n < 0)
        return outr_fail_errno(err, why, "%s", path);
    return n == 0 ? OUTR_OK : outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: too long", path);
}

static bool write_all(int fd, outr_str text)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        text = outr_str_skip(text, (size_t)n);
    }
    return true;
}

/* Under its name only when it is whole, and never over another one. */
static outr_code write_file(const char *path, outr_str text, outr_err *err)
{
    char draft[4096 + 8];
    snprintf(draft, sizeof draft, "%s.new", path);
    unlink(draft);
    int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return outr_fail_errno(err, errno, "%s", draft);
    bool is_ok = write_all(fd, text) && fsync(fd) == 0;
    int why = errno;
    close(fd);
    if (is_ok && link(draft, path) != 0) {
        why = errno;
        is_ok = false;
    }
    unlink(draft);
    return is_ok ? OUTR_OK : outr_fail_errno(err, why, "%s", path);
}

static outr_code sign_pair(outr_authority *a, int64_t now_s, outr_buf *key_pem, outr_err *err)
{
    outr_key *root_key = NULL;
    outr_code rc = outr_key_make(&root_key, err);
    if (!rc)
        rc = outr_key_make(&a->key, err);
    outr_cert_order order = {.subject_key = root_key,
                             .organization = a->o.trust_domain,
                             .is_ca = true,
                             .not_before_s = now_s - a->o.skew_s,
                             .not_after_s = now_s + ROOT_LIFE_S,
                             .issuer_key = root_key};
    a->root = a->issuer = OUTR_BUF_MAX(FILE_MAX);
    if (!rc)
        rc = outr_cert_sign(&a->root, &order, err);
    order.subject_key = a->key;
    order.organization = a->id;
    order.issuer_pem = outr_buf_view(&a->root);
    if (!rc)
        rc = outr_cert_sign(&a->issuer, &order, err);
    if (!rc)
        rc = outr_key_write(key_pem, a->key, err);
    outr_key_unref(root_key); /* signs nothing more: a new issuer needs a new root */
    return rc;
}

static outr_code make(outr_authority *a, const char *const paths[3], int64_t now_s, outr_err *err)
{
    outr_buf key_pem = OUTR_BUF_MAX(FILE_MAX);
    outr_code rc = sign_pair(a, now_s, &key_pem, err);
    if (!rc && mkdir(a->o.dir, 0700) != 0 && errno != EEXIST)
        rc = outr_fail_errno(err, errno, "%s", a->o.dir);
    if (!rc)
        rc = write_file(paths[2], outr_buf_view(&key_pem), err);
    if (!rc)
        rc = write_file(paths[1], outr_buf_view(&a->issuer), err);
    if (!rc)
        rc = write_file(paths[0], outr_buf_view(&a->root), err);
    outr_secret_done(&key_pem);
    return rc;
}

static outr_code load(outr_authority *a, const char *const paths[3], outr_err *err)
{
    outr_buf key_pem = {0};
    outr_code rc = read_file(&a->root, paths[0], err);
    if (!rc)
        rc = read_file(&a->issuer, paths[1], err);
    if (!rc)
        rc = read_file(&key_pem, paths[2], err);
    if (!rc && outr_key_read(&a->key, outr_buf_view(&key_pem), err))
        rc = outr_wrap(err, "%s", paths[2]);
    outr_secret_done(&key_pem);
    return rc;
}

static outr_code check(outr_authority *a, const char *const paths[3], int64_t now_s, outr_err *err)
{
    outr_cert_info root, issuer;
    if (outr_cert_info_read(&root, outr_buf_view(&a->root), err))
        return outr_wrap(err, "%s", paths[0]);
    if (outr_cert_info_read(&issuer, outr_buf_view(&a->issuer), err))
        return outr_wrap(err, "%s", paths[1]);
    if (!issuer.is_ca)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: no authority's certificate", paths[1]);
    if (!outr_cert_has_key(outr_buf_view(&a->issuer), a->key))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s is not the key of %s", paths[2], paths[1]);
    if (outr_cert_verify(outr_buf_view(&a->issuer), outr_buf_view(&a->root), now_s, err))
        return outr_wrap(err, "%s by %s", paths[1], paths[0]);
    a->expires_s = issuer.not_after_s;
    return OUTR_OK;
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
    const char *const paths[3] = {
        path_of(a, options->root_name ? options->root_name : "ca.crt"),
        path_of(a, options->issuer_name ? options->issuer_name : "issuer.crt"),
        path_of(a, options->key_name ? options->key_name : "issuer.key")};
    outr_spiffe spiffe;
    outr_code rc = outr_spiffe_parse(&spiffe, a->id, err);
    size_t there = 0;
    for (size_t i = 0; i < OUTR_LEN(paths); i++)
        there += access(paths[i], F_OK) == 0;
    *made = there == 0;
    if (rc)
        outr_wrap(err, "\"" OUTR_FMT "\"", OUTR_ARG(a->id));
    else if (there == 0)
        rc = make(a, paths, now_s, err);
    else
        rc = load(a, paths, err); /* what is missing is told: nothing is made over others */
    if (!rc)
        rc = check(a, paths, now_s, err);
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
    outr_key_unref(a->key);
    outr_buf_done(&a->root);
    outr_buf_done(&a->issuer);
    outr_arena_free(a->arena);
    free(a);
}

outr_str outr_authority_root(const outr_authority *authority)
{
    return outr_buf_view(&authority->root);
}

int64_t outr_authority_expires(const outr_authority *authority)
{
    return authority->expires_s;
}

outr_str outr_authority_id(const outr_authority *authority)
{
    return authority->id;
}

/* ---- signing --------------------------------------------------------------------------------- */

static outr_code issue(const outr_authority *a, outr_key *key, outr_str uri, int64_t life_s,
                       int64_t now_s, outr_buf *chain, int64_t *expires_s, outr_err *err)
{
    if (now_s >= a->expires_s)
        return outr_fail(err, OUTR_FAILED_PRECONDITION,
                         "the issuer's own certificate has expired: nothing is issued");
    const outr_cert_order order = {
        .subject_key = key,
        .uri = uri,
        .not_before_s = now_s - a->o.skew_s,
        .not_after_s = OUTR_MIN(now_s + life_s, a->expires_s), /* nobody outlives his issuer */
        .issuer_pem = outr_buf_view(&a->issuer),
        .issuer_key = a->key,
    };
    outr_code rc = outr_cert_sign(chain, &order, err);
    if (rc)
        return rc;
    outr_buf_str(chain, outr_buf_view(&a->issuer));
    *expires_s = order.not_after_s;
    return OUTR_OK;
}

/* In the order in which sentry looks. */
static outr_code check_order(const outr_authority_order *o, outr_err *err)
{
    if (o->id.n == 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "invalid request: parameter app-id cannot be empty");
    if (o->id.n > ID_MAX)
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "invalid request: app ID must be 64 characters or less");
    if (outr_str_find(o->id, '.') >= 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "invalid request: parameter app-id cannot contain dots");
    if (o->csr_pem.n == 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED, "invalid request: CSR is required");
    if (o->namespace_.n == 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED, "invalid request: namespace is required");
    if (o->validator != VALIDATOR_UNKNOWN && o->validator != VALIDATOR_INSECURE)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "the requested validator is not enabled");
    return OUTR_OK;
}

outr_code outr_authority_sign(const outr_authority *a, const outr_authority_order *o, int64_t now_s,
                              outr_buf *chain, int64_t *expires_s, outr_err *err)
{
    OUTR_AUTO(outr_buf) domain = OUTR_BUF_MAX(OUTR_SPIFFE_MAX);
    OUTR_AUTO(outr_buf) uri = OUTR_BUF_MAX(OUTR_SPIFFE_MAX);
    outr_spiffe spiffe;
    outr_identity identity;
    outr_key *key;
    outr_code rc = check_order(o, err);
    if (rc)
        return rc;
    outr_str trust_domain = o->trust_domain.n ? o->trust_domain : OUTR_STR("public");
    outr_buf_printf(&domain, "spiffe://" OUTR_FMT, OUTR_ARG(trust_domain));
    if (domain.is_full || outr_str_find(trust_domain, '/') >= 0 ||
        outr_spiffe_parse(&spiffe, outr_buf_view(&domain), err))
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "trust domain characters are limited to lowercase letters, numbers, dots, "
                         "dashes, and underscores");
    rc = outr_csr_read(&key, o->csr_pem, err);
    if (rc)
        return rc;
    outr_buf_printf(&uri, OUTR_FMT "/ns/" OUTR_FMT "/" OUTR_FMT, OUTR_ARG(outr_buf_view(&domain)),
                    OUTR_ARG(o->namespace_), OUTR_ARG(o->id));
    /* each part one segment, else a name could be made up of others */
    bool is_good = !uri.is_full &&
                   outr_identity_parse(&identity, outr_buf_view(&uri), err) == OUTR_OK &&
                   outr_str_eq(identity.namespace_, o->namespace_) &&
                   outr_str_eq(identity.app_id, o->id);
    rc = is_good ? issue(a, key, outr_buf_view(&uri), a->o.ttl_s, now_s, chain, expires_s, err)
                 : outr_fail(err, OUTR_INTERNAL, "failed to sign certificate");
    outr_key_unref(key);
    return rc;
}

outr_code outr_authority_sign_own(const outr_authority *a, outr_key *key, int64_t now_s,
                                  outr_buf *chain, int64_t *expires_s, outr_err *err)
{
    return issue(a, key, a->id, OWN_LIFE_S, now_s, chain, expires_s, err);
}
