#include "base/rundir.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static outr_code make(const char *path, outr_err *err)
{
    struct stat st;
    if (mkdir(path, 0700) && errno != EEXIST)
        return outr_fail_errno(err, errno, "runtime directory %s", path);
    if (stat(path, &st))
        return outr_fail_errno(err, errno, "runtime directory %s", path);
    if (!S_ISDIR(st.st_mode))
        return outr_fail(err, OUTR_FAILED_PRECONDITION, "runtime directory %s: not a directory",
                         path);
    if (st.st_uid != geteuid())
        return outr_fail(err, OUTR_PERMISSION_DENIED, "runtime directory %s: owned by another user",
                         path);
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return outr_fail(err, OUTR_PERMISSION_DENIED,
                         "runtime directory %s: others may write there", path);
    return OUTR_OK;
}

/* Where the parent may be missing too: one level is made as well. */
static outr_code make_below(const char *parent, const char *path, outr_err *err)
{
    if (mkdir(parent, 0700) && errno != EEXIST)
        return outr_fail_errno(err, errno, "runtime directory %s", parent);
    return make(path, err);
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] == '/' ? value : NULL;
}

outr_code outr_rundir_make(char *out, size_t size, outr_err *err)
{
    char parent[256];
    const char *dir;
    if ((dir = variable("OUTRIGGER_RUN_DIR"))) {
        snprintf(out, size, "%s", dir);
        return make(out, err);
    }
    if ((dir = variable("XDG_RUNTIME_DIR")) && access(dir, W_OK) == 0) {
        snprintf(out, size, "%s/outrigger", dir);
        return make(out, err);
    }
    if ((dir = variable("HOME")) && access(dir, W_OK) == 0) {
        snprintf(parent, sizeof parent, "%s/.outrigger", dir);
        snprintf(out, size, "%s/.outrigger/run", dir);
        return make_below(parent, out, err);
    }
    /* Where everybody may write, the name may be somebody's symbolic link to a place of ours. */
    struct stat st;
    dir = variable("TMPDIR");
    snprintf(out, size, "%s/outrigger-%u", dir ? dir : "/tmp", (unsigned)geteuid());
    if (lstat(out, &st) == 0 && S_ISLNK(st.st_mode))
        return outr_fail(err, OUTR_PERMISSION_DENIED, "runtime directory %s: is a symbolic link",
                         out);
    return make(out, err);
}
