#include "cli/mtls.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Leaf, issuer, root. A root changes in three steps between which a fleet works as before: a bundle
 * of both, handed to all machines; issuers of the new one; a bundle without the old. */

typedef struct files {
    outr_buf roots, issuer;
} files;

/* Sidecars look at the issuer's certificate: one that is touched makes them sign anew. */
static outr_code renew_leaf(const outr_mtls *m, outr_err *err)
{
    if (utimensat(AT_FDCWD, m->machine.issuer, NULL, 0) != 0)
        return outr_fail_errno(err, errno, "%s", m->machine.issuer);
    fprintf(stderr, "Sidecars of this machine that sign for themselves have new certificates in "
                    "two seconds.\n");
    return OUTR_OK;
}

static outr_code want_first(const outr_mtls *m, const char *what, outr_err *err)
{
    if (outr_machine_is_first(&m->machine))
        return OUTR_OK;
    return outr_fail(err, OUTR_FAILED_PRECONDITION,
                     "%s is renewed on the machine where the fleet began: %s is not here", what,
                     m->machine.root_key);
}

static outr_code renew_issuer(const outr_mtls *m, const files *ours, outr_err *err)
{
    const outr_machine *machine = &m->machine;
    bool is_of_next = access(machine->next_root_key, F_OK) == 0;
    OUTR_AUTO(outr_buf) pem = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    outr_key *key = NULL;
    if (!outr_machine_is_first(machine))
        return outr_fail(err, OUTR_FAILED_PRECONDITION,
                         "this machine joined: its issuer is renewed by `outrigger mtls token` "
                         "where the fleet began, and `join` here");
    const outr_mtls_issuer order = {.root_key_path =
                                        is_of_next ? machine->next_root_key : machine->root_key,
                                    .roots = outr_buf_view(&ours->roots)};
    outr_code rc = outr_mtls_sign_issuer(m, &order, &pem, &key, err);
    /* the certificate last: sidecars look at it, and by then its key is there */
    if (!rc)
        rc = outr_secretfile_write_key(machine->key, key, OUTR_FILE_OVER, err);
    if (!rc)
        rc = outr_secretfile_write(machine->issuer, outr_buf_view(&pem), OUTR_FILE_OVER, err);
    outr_key_unref(key);
    if (!rc && is_of_next && rename(machine->next_root_key, machine->root_key) != 0)
        rc = outr_fail_errno(err, errno, "%s", machine->next_root_key);
    if (!rc && is_of_next)
        fprintf(stderr, "This machine's issuer is of the new root, and so are tokens from now on: "
                        "one for each machine,\nthen `outrigger mtls renew root --finish`.\n");
    else if (!rc)
        fprintf(stderr, "This machine has a new issuer.\n");
    return rc;
}

static outr_code show_bundle(outr_str roots, outr_err *err)
{
    return outr_cli_write(1, roots.p, roots.n) ? OUTR_OK
                                               : outr_fail_errno(err, errno, "standard output");
}

static outr_code begin_root(const outr_mtls *m, const files *ours, outr_err *err)
{
    const outr_machine *machine = &m->machine;
    OUTR_AUTO(outr_buf) roots = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    outr_key *key = NULL;
    if (access(machine->next_root_key, F_OK) == 0) {
        fprintf(stderr, "A new root is under way already; this is the bundle of both.\n");
        return show_bundle(outr_buf_view(&ours->roots), err);
    }
    outr_buf_str(&roots, outr_buf_view(&ours->roots));
    outr_code rc = outr_mtls_make_root(m, m->life_s ? m->life_s : OUTR_MTLS_ROOT_LIFE_S, &roots,
                                       &key, err);
    /* the bundle first: a key whose root is in none would be the next one, and sign for nobody */
    if (!rc)
        rc = outr_secretfile_write(machine->roots, outr_buf_view(&roots), OUTR_FILE_OVER, err);
    if (!rc)
        rc = outr_secretfile_write_key(machine->next_root_key, key, OUTR_FILE_NEW, err);
    outr_key_unref(key);
    if (rc)
        return rc;
    fprintf(stderr, "The bundle has the old root and a new one, which signs nothing yet. On every "
                    "other machine:\n`outrigger mtls trust FILE` with this bundle; then `outrigger "
                    "mtls renew issuer` here.\n");
    return show_bundle(outr_buf_view(&roots), err);
}

/* Only what covers our own issuer, which is of the newest root, stays. */
static outr_code finish_root(const outr_mtls *m, const files *ours, outr_err *err)
{
    OUTR_AUTO(outr_buf) roots = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    outr_str one, rest = outr_buf_view(&ours->roots);
    size_t dropped = 0, kept = 0;
    if (access(m->machine.next_root_key, F_OK) == 0)
        return outr_fail(err, OUTR_FAILED_PRECONDITION,
                         "the new root signs nothing yet: `outrigger mtls renew issuer` first, and "
                         "a new token for each machine");
    for (rest = outr_cert_cut(rest, &one); one.n > 0; rest = outr_cert_cut(rest, &one)) {
        if (outr_cert_verify(outr_buf_view(&ours->issuer), one, m->now_s, err))
            dropped++;
        else if (++kept)
            outr_buf_printf(&roots, OUTR_FMT "\n", OUTR_ARG(one));
    }
    if (kept == 0)
        return outr_wrap(err, "no root of the bundle covers this machine's issuer");
    outr_code rc =
        outr_secretfile_write(m->machine.roots, outr_buf_view(&roots), OUTR_FILE_OVER, err);
    if (rc)
        return rc;
    fprintf(stderr, "%zu old root%s taken out of the bundle. On every other machine: `outrigger "
                    "mtls trust FILE`.\n",
            dropped, dropped == 1 ? " was" : "s were");
    return show_bundle(outr_buf_view(&roots), err);
}

static outr_code renew(const outr_mtls *m, const files *ours, outr_err *err)
{
    if (strcmp(m->word, "leaf") == 0)
        return renew_leaf(m, err);
    if (strcmp(m->word, "issuer") == 0)
        return renew_issuer(m, ours, err);
    outr_code rc = want_first(m, "the root", err);
    if (rc)
        return rc;
    return m->o.is_finishing ? finish_root(m, ours, err) : begin_root(m, ours, err);
}

int outr_mtls_renew(const outr_mtls *m)
{
    static const char *const parts[] = {"leaf", "issuer", "root"};
    files ours = {0};
    outr_err err;
    bool is_known = false;
    for (size_t i = 0; m->word && i < OUTR_LEN(parts); i++)
        is_known |= strcmp(m->word, parts[i]) == 0;
    if (!is_known)
        return outr_cli_mistake(m->command, "renew what? leaf, issuer or root");
    outr_code rc = outr_mtls_lock(m, false, &err);
    if (!rc)
        rc = outr_mtls_read(m, &ours.roots, &ours.issuer, &err);
    if (!rc)
        rc = renew(m, &ours, &err);
    outr_buf_done(&ours.roots);
    outr_buf_done(&ours.issuer);
    return rc ? outr_cli_fail(m->command, "%s", err.text) : OUTR_EXIT_OK;
}
