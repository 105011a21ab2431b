#include "security/trust.h"

#include "security/secretfile.h"
#include "tls/cert.h"

static outr_code read_bundle(outr_buf *out, const char *file, outr_err *err)
{
    outr_cert_info info;
    outr_code rc =
        file ? outr_secretfile_read(out, file, OUTR_TRUST_MAX_BYTES, OUTR_FILE_ANY, err) : OUTR_OK;
    if (!rc)
        rc = outr_cert_info_read(&info, outr_buf_view(out), err);
    return rc ? outr_wrap(err, "trust anchors") : OUTR_OK;
}

outr_code outr_trust_open(outr_trust *trust, outr_str pem, const char *file, outr_err *err)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_TRUST_MAX_BYTES);
    outr_watched watched = {0};
    if (file)
        outr_watched_note(&watched, file);
    else
        outr_buf_str(&text, pem);
    outr_code rc = read_bundle(&text, file, err);
    if (rc)
        return rc;
    *trust = (outr_trust){.pem = text, .file = file, .watched = watched};
    text = OUTR_BUF_MAX(0);
    return OUTR_OK;
}

static bool on_file(outr_watched *watched)
{
    outr_trust *trust = OUTR_CONTAINER(watched, outr_trust, watched);
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_TRUST_MAX_BYTES);
    outr_err err;
    outr_code rc = read_bundle(&text, trust->file, &err);
    if (rc && !trust->was_bad) /* perhaps half written: it is looked at again, and told of once */
        OUTR_LOG(outr_loop_log(watched->loop), WARN,
                 "trust anchors cannot be used, the former stay", OUTR_ERR(&err));
    trust->was_bad = rc != OUTR_OK;
    if (rc)
        return false;
    if (outr_str_eq(outr_buf_view(&text), outr_buf_view(&trust->pem)))
        return true;
    outr_buf before = trust->pem;
    trust->pem = text;
    text = before;
    trust->changed(trust);
    return true;
}

void outr_trust_watch(outr_trust *trust, outr_loop *loop, void (*changed)(outr_trust *trust))
{
    trust->changed = changed;
    if (trust->file)
        outr_watched_start(&trust->watched, loop, on_file);
}

void outr_trust_close(outr_trust *trust)
{
    outr_watched_stop(&trust->watched);
    outr_buf_done(&trust->pem);
}
