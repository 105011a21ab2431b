#include "cli/mtls.h"

#include <errno.h>

/* Joining without a secret that is handed over: the key of the machine's issuer is made there, and
 * stays; a request for its certificate goes one way, the answer the other. */

/* The one of an earlier request, so that asking twice does not make its answer worthless. */
static outr_code find_or_make_key(const outr_mtls *m, outr_key **key, outr_err *err)
{
    const char *path = m->machine.asked_key;
    outr_code rc = outr_secretfile_read_key(key, path, OUTR_FILE_OWN, err);
    if (rc != OUTR_NOT_FOUND)
        return rc;
    rc = outr_key_make(key, err);
    return rc ? rc : outr_secretfile_write_key(path, *key, OUTR_FILE_NEW, err);
}

int outr_mtls_ask(const outr_mtls *m)
{
    OUTR_AUTO(outr_buf) csr = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    OUTR_AUTO(outr_buf) line = OUTR_BUF_MAX(OUTR_ISSUER_FILE_MAX);
    outr_key *key = NULL;
    outr_err err;
    outr_code rc = outr_mtls_lock(m, true, &err);
    if (!rc)
        rc = find_or_make_key(m, &key, &err);
    if (!rc)
        rc = outr_csr_write(&csr, key, &err);
    outr_key_unref(key);
    if (!rc && !(outr_ask_write(&line, outr_buf_view(&csr)) && outr_buf_char(&line, '\n')))
        rc = outr_fail(&err, OUTR_INTERNAL, "writing the request");
    if (!rc)
        fprintf(stderr, "The line is a request, no secret: `outrigger mtls admit` on the machine "
                        "where the fleet began\nanswers it, and `outrigger mtls join` here takes "
                        "the answer.\n");
    if (!rc && !outr_cli_write(1, line.p, line.n))
        rc = outr_fail_errno(&err, errno, "standard output");
    return rc ? outr_cli_fail(m->command, "%s", err.text) : OUTR_EXIT_OK;
}

int outr_mtls_admit(const outr_mtls *m)
{
    OUTR_AUTO(outr_buf) line = {0};
    OUTR_AUTO(outr_buf) csr = {0};
    outr_key *public_key = NULL;
    outr_err err;
    outr_code rc = outr_mtls_read_line(m, "Request", &line, &err);
    if (!rc)
        rc = outr_ask_read(&csr, outr_buf_view(&line), &err);
    if (!rc && outr_csr_read(&public_key, outr_buf_view(&csr), &err))
        rc = outr_wrap(&err, "the request");
    if (!rc)
        rc = outr_mtls_lock(m, false, &err);
    if (!rc)
        rc = outr_mtls_show_token(m, public_key, &err);
    outr_key_unref(public_key);
    return rc ? outr_cli_fail(m->command, "%s", err.text) : OUTR_EXIT_OK;
}
