#include "cli/mtls.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/json.h"

/* When what ends, and the files for others. */

#define OUT_MAX (4 * OUTR_MIB)

typedef struct certificate {
    const char *what; /* "root", "issuer" */
    char name[128], ends[40];
    int64_t left_s;
} certificate;

static void describe(certificate *c, const char *what, outr_str pem, int64_t now_s)
{
    OUTR_AUTO(outr_buf) name = OUTR_BUF_MAX(sizeof c->name - 1);
    outr_cert_info info = {0};
    outr_cert_info_read(&info, pem, NULL);
    outr_cert_organization(&name, pem);
    snprintf(c->name, sizeof c->name, OUTR_FMT, OUTR_ARG(outr_buf_view(&name)));
    outr_time_rfc3339(info.not_after_s * (int64_t)OUTR_SEC, c->ends);
    c->what = what;
    c->left_s = info.not_after_s - now_s;
}

static void write_text(outr_buf *out, const certificate *all, size_t count)
{
    outr_buf_printf(out, "%-8s %-22s %10s  %s\n", "WHAT", "ENDS", "DAYS LEFT", "NAME");
    for (size_t i = 0; i < count; i++)
        outr_buf_printf(out, "%-8s %-22s %10lld  %s\n", all[i].what, all[i].ends,
                        (long long)(all[i].left_s > 0 ? all[i].left_s / (24 * 3600) : 0),
                        all[i].name);
}

static void write_json(outr_buf *out, const certificate *all, size_t count)
{
    outr_buf_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        outr_buf_printf(out, "%s{\"what\":\"%s\",\"ends\":\"%s\",\"secondsLeft\":%lld,\"name\":",
                        i ? "," : "", all[i].what, all[i].ends, (long long)all[i].left_s);
        outr_json_quote(out, outr_str_from(all[i].name));
        outr_buf_char(out, '}');
    }
    outr_buf_z(out, "]\n");
}

int outr_mtls_expiry(const outr_mtls *m)
{
    OUTR_AUTO(outr_buf) roots = {0};
    OUTR_AUTO(outr_buf) issuer = {0};
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUT_MAX);
    certificate all[OUTR_CERTS_MAX + 1];
    size_t count = 0;
    outr_str one, rest;
    outr_err err;
    if (outr_mtls_read(m, &roots, &issuer, &err))
        return outr_cli_fail(m->command, "%s", err.text);
    rest = outr_buf_view(&roots);
    for (rest = outr_cert_cut(rest, &one); one.n > 0 && count < OUTR_CERTS_MAX;
         rest = outr_cert_cut(rest, &one))
        describe(&all[count++], "root", one, m->now_s);
    describe(&all[count++], "issuer", outr_buf_view(&issuer), m->now_s);
    if (strcmp(m->o.output, "json") == 0)
        write_json(&out, all, count);
    else
        write_text(&out, all, count);
    int exit_code = outr_cli_write(1, out.p, out.n) ? OUTR_EXIT_OK : OUTR_EXIT_FAILED;
    for (size_t i = 0; i < count; i++)
        exit_code |= all[i].left_s <= 0 ? OUTR_EXIT_FAILED : OUTR_EXIT_OK;
    return exit_code;
}

/* ---- export ---------------------------------------------------------------------------------- */

static outr_code write_copies(const outr_mtls *m, const outr_str texts[3], outr_err *err)
{
    static const char *const names[] = {"ca.crt", "issuer.crt", "issuer.key"};
    char path[4096];
    outr_code rc = OUTR_OK;
    if (mkdir(m->o.out, 0700) != 0 && errno != EEXIST)
        return outr_fail_errno(err, errno, "%s", m->o.out);
    for (size_t i = 0; !rc && i < OUTR_LEN(names); i++) {
        if ((size_t)snprintf(path, sizeof path, "%s/%s", m->o.out, names[i]) >= sizeof path)
            return outr_fail(err, OUTR_INVALID_ARGUMENT, "--out: the path is too long");
        rc = outr_secretfile_write(path, texts[i], OUTR_FILE_NEW, err);
    }
    return rc;
}

static outr_code copy_all(const outr_mtls *m, outr_str roots, outr_str issuer, outr_err *err)
{
    outr_buf key = {0};
    outr_code rc =
        outr_secretfile_read(&key, m->machine.key, OUTR_ISSUER_FILE_MAX, OUTR_FILE_OWN, err);
    const outr_str texts[] = {roots, issuer, outr_buf_view(&key)};
    if (!rc)
        rc = write_copies(m, texts, err);
    outr_secret_done(&key);
    return rc;
}

int outr_mtls_export(const outr_mtls *m)
{
    OUTR_AUTO(outr_buf) roots = {0};
    OUTR_AUTO(outr_buf) issuer = {0};
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(OUT_MAX);
    outr_err err;
    outr_code rc = outr_mtls_read(m, &roots, &issuer, &err);
    outr_str bundle = outr_str_trim(outr_buf_view(&roots));
    if (m->o.shows_env) /* PEM has no apostrophe */
        outr_buf_printf(&out, "export DAPR_TRUST_ANCHORS='" OUTR_FMT "'\n", OUTR_ARG(bundle));
    else if (m->o.shows_bundle)
        outr_buf_printf(&out, OUTR_FMT "\n", OUTR_ARG(bundle));
    else if (!rc)
        rc = copy_all(m, outr_buf_view(&roots), outr_buf_view(&issuer), &err);
    if (!rc && !outr_cli_write(1, out.p, out.n))
        rc = outr_fail_errno(&err, errno, "standard output");
    return rc ? outr_cli_fail(m->command, "%s", err.text) : OUTR_EXIT_OK;
}
