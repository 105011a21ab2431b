#include "security/secretfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_MAX OUTR_MIB

static outr_code check(const struct stat *st, const char *path, outr_secrecy secrecy, outr_err *err)
{
    if (!S_ISREG(st->st_mode))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: not a regular file", path);
    if (secrecy == OUTR_FILE_OWN && st->st_uid != geteuid() && st->st_uid != 0)
        return outr_fail(err, OUTR_PERMISSION_DENIED, "%s: owned by another user", path);
    if (secrecy != OUTR_FILE_ANY && st->st_mode & (S_IRWXG | S_IRWXO))
        return outr_fail(err, OUTR_PERMISSION_DENIED, "%s: others may use it (mode %04o, not 0600)",
                         path, (unsigned)st->st_mode & 07777u);
    return OUTR_OK;
}

static outr_code read_all(outr_buf *out, int fd, const char *path, outr_secrecy secrecy,
                          outr_err *err)
{
    struct stat st;
    char piece[4096];
    ssize_t n;
    if (fstat(fd, &st) != 0)
        return outr_fail_errno(err, errno, "%s", path);
    outr_code rc = check(&st, path, secrecy, err);
    if (rc)
        return rc;
    while ((n = read(fd, piece, sizeof piece)) > 0 && outr_buf_append(out, piece, (size_t)n))
        ;
    int why = errno;
    explicit_bzero(piece, sizeof piece);
    if (n < 0)
        return outr_fail_errno(err, why, "%s", path);
    return n == 0 ? OUTR_OK
                  : outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: longer than %zu bytes", path,
                              out->max);
}

outr_code outr_secretfile_read(outr_buf *out, const char *path, size_t max_bytes,
                               outr_secrecy secrecy, outr_err *err)
{
    outr_buf text = OUTR_BUF_MAX(max_bytes);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return outr_fail_errno(err, errno, "%s", path);
    outr_code rc = read_all(&text, fd, path, secrecy, err);
    close(fd);
    if (rc) {
        outr_secret_done(&text);
        return rc;
    }
    outr_secret_done(out);
    *out = text;
    return OUTR_OK;
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

/* The name itself must outlive a power cut, too; that it could not is no error of the file. */
static void sync_folder(const char *path)
{
    char folder[4096];
    outr_str all = outr_str_from(path);
    ptrdiff_t slash = outr_str_rfind(all, '/');
    outr_str head = slash > 0 ? outr_str_head(all, (size_t)slash)
                              : slash == 0 ? OUTR_STR("/") : OUTR_STR(".");
    snprintf(folder, sizeof folder, OUTR_FMT, OUTR_ARG(head));
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

outr_code outr_secretfile_write(const char *path, outr_str text, outr_file_write how, outr_err *err)
{
    char draft[4096];
    if ((size_t)snprintf(draft, sizeof draft, "%s.new", path) >= sizeof draft)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "%s: the path is too long", path);
    unlink(draft);
    int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return outr_fail_errno(err, errno, "%s", draft);
    bool is_new = how == OUTR_FILE_NEW;
    bool is_ok = write_all(fd, text) && (how == OUTR_FILE_LAZY || fsync(fd) == 0);
    int why = errno;
    close(fd);
    if (is_ok && (is_new ? link(draft, path) : rename(draft, path)) != 0) {
        why = errno;
        is_ok = false;
    }
    if (!is_ok || is_new)
        unlink(draft);
    if (!is_ok)
        return outr_fail_errno(err, why, "%s", path);
    if (how != OUTR_FILE_LAZY)
        sync_folder(path);
    return OUTR_OK;
}

outr_code outr_secretfile_read_key(outr_key **key, const char *path, outr_secrecy secrecy,
                                   outr_err *err)
{
    outr_buf pem = {0};
    outr_code rc = outr_secretfile_read(&pem, path, KEY_MAX, secrecy, err);
    if (!rc && outr_key_read(key, outr_buf_view(&pem), err))
        rc = outr_wrap(err, "%s", path);
    outr_secret_done(&pem);
    return rc;
}

outr_code outr_secretfile_write_key(const char *path, outr_key *key, outr_file_write how,
                                    outr_err *err)
{
    outr_buf pem = OUTR_BUF_MAX(KEY_MAX);
    outr_code rc = outr_key_write(&pem, key, err);
    if (!rc)
        rc = outr_secretfile_write(path, outr_buf_view(&pem), how, err);
    outr_secret_done(&pem);
    return rc;
}
