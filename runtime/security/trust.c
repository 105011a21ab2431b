#include "security/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls/cert.h"

#define LOOK_NS (2 * OUTR_SEC)

static void note(uint64_t seen[5], const struct stat *st)
{
    seen[0] = (uint64_t)st->st_dev;
    seen[1] = (uint64_t)st->st_ino;
    seen[2] = (uint64_t)st->st_size;
    seen[3] = (uint64_t)st->st_ctim.tv_sec * OUTR_SEC + (uint64_t)st->st_ctim.tv_nsec;
    seen[4] = (uint64_t)st->st_mtim.tv_sec * OUTR_SEC + (uint64_t)st->st_mtim.tv_nsec;
}

static outr_code read_file(outr_buf *out, const char *path, uint64_t seen[5], outr_err *err)
{
    struct stat st;
    char piece[4096];
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return outr_fail_errno(err, errno, "trust anchors %s", path);
    if (fstat(fd, &st) == 0)
        note(seen, &st);
    while ((n = read(fd, piece, sizeof piece)) > 0 && outr_buf_append(out, piece, (size_t)n))
        ;
    int why = errno;
    close(fd);
    if (n < 0)
        return outr_fail_errno(err, why, "trust anchors %s", path);
    if (out->is_full)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "trust anchors %s: longer than %zu bytes",
                         path, (size_t)OUTR_TRUST_MAX_BYTES);
    return OUTR_OK;
}

static outr_code check_bundle(outr_str pem, outr_err *err)
{
    outr_cert_info info;
    outr_code rc = outr_cert_info_read(&info, pem, err);
    return rc ? outr_wrap(err, "trust anchors") : OUTR_OK;
}

outr_code outr_trust_open(outr_trust *trust, outr_str pem, const char *file, outr_err *err)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_TRUST_MAX_BYTES);
    uint64_t seen[5] = {0};
    outr_code rc = OUTR_OK;
    if (file)
        rc = read_file(&text, file, seen, err);
    else
        outr_buf_str(&text, pem);
    if (rc || (rc = check_bundle(outr_buf_view(&text), err)))
        return rc;
    *trust = (outr_trust){.pem = text, .file = file};
    memcpy(trust->seen, seen, sizeof seen);
    text = OUTR_BUF_MAX(0);
    return OUTR_OK;
}

void outr_trust_check(outr_trust *trust)
{
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(OUTR_TRUST_MAX_BYTES);
    uint64_t seen[5] = {0};
    struct stat st;
    outr_err err;
    if (!trust->file)
        return;
    if (stat(trust->file, &st) == 0) {
        note(seen, &st);
        if (memcmp(seen, trust->seen, sizeof seen) == 0)
            return;
    }
    outr_code rc = read_file(&text, trust->file, seen, &err);
    if (!rc)
        rc = check_bundle(outr_buf_view(&text), &err);
    if (rc && !trust->was_bad) /* perhaps half written: it is looked at again, and told of once */
        OUTR_LOG(outr_loop_log(trust->loop), WARN, "trust anchors cannot be used, the former stay",
                 OUTR_ERR(&err));
    trust->was_bad = rc != OUTR_OK;
    if (rc)
        return;
    memcpy(trust->seen, seen, sizeof seen);
    if (outr_str_eq(outr_buf_view(&text), outr_buf_view(&trust->pem)))
        return;
    outr_buf before = trust->pem;
    trust->pem = text;
    text = before;
    trust->changed(trust);
}

static void on_time(outr_timer *timer)
{
    outr_trust *trust = OUTR_CONTAINER(timer, outr_trust, timer);
    outr_trust_check(trust);
    outr_timer_start(trust->loop, timer, outr_loop_now(trust->loop) + LOOK_NS);
}

void outr_trust_watch(outr_trust *trust, outr_loop *loop, void (*changed)(outr_trust *trust))
{
    trust->loop = loop;
    trust->changed = changed;
    trust->timer.fire = on_time;
    if (trust->file)
        outr_timer_start(loop, &trust->timer, outr_loop_now(loop) + LOOK_NS);
}

void outr_trust_close(outr_trust *trust)
{
    if (trust->loop)
        outr_timer_stop(trust->loop, &trust->timer);
    trust->loop = NULL;
    outr_buf_done(&trust->pem);
}
