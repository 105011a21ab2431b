#include "components/pluggable/discover.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#define FILES_MAX 10000

/* Without what follows the last dot, as Go's filepath.Ext has it. */
static outr_str without_extension(outr_str file)
{
    ptrdiff_t dot = outr_str_rfind(file, '.');
    return dot < 0 ? file : outr_str_head(file, (size_t)dot);
}

static bool is_socket(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISSOCK(status.st_mode);
}

/* In the order of their names, whatever order the folder has. */
static void insert(outr__plug_sockets *out, const outr_addr *addr)
{
    size_t at = out->count;
    while (at > 0 && strcmp(out->addrs[at - 1].path, addr->path) > 0)
        at--;
    if (at == OUTR__PLUG_SOCKETS)
        return;
    size_t kept = OUTR_MIN(out->count, (size_t)OUTR__PLUG_SOCKETS - 1);
    memmove(&out->addrs[at + 1], &out->addrs[at], (kept - at) * sizeof *addr);
    out->addrs[at] = *addr;
    out->count = kept + 1;
}

outr_code outr__plug_find(outr__plug_sockets *out, outr_str folder, outr_str name, outr_err *err)
{
    char path[sizeof out->addrs[0].path];
    bool is_too_long = folder.n >= sizeof path;
    snprintf(path, sizeof path, OUTR_FMT, OUTR_ARG(folder));
    DIR *dir = is_too_long ? NULL : opendir(path);
    struct dirent *file;
    out->count = 0;
    if (!dir && !is_too_long)
        return outr_fail_errno(err, errno, "%s", path);
    for (int i = 0; dir && i < FILES_MAX && (file = readdir(dir)); i++) {
        outr_addr addr = {.kind = OUTR_ADDR_UNIX};
        if (!outr_str_ieq(without_extension(outr_str_from(file->d_name)), name))
            continue;
        int n = snprintf(addr.path, sizeof addr.path, OUTR_FMT "/%s", OUTR_ARG(folder),
                         file->d_name);
        if ((size_t)n >= sizeof addr.path)
            is_too_long = true;
        else if (is_socket(addr.path))
            insert(out, &addr);
    }
    if (dir)
        closedir(dir);
    if (out->count == 0 && is_too_long)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "the path of the socket of " OUTR_FMT " in " OUTR_FMT " is too long",
                         OUTR_ARG(name), OUTR_ARG(folder));
    if (out->count == 0)
        return outr_fail(err, OUTR_NOT_FOUND, "no socket named " OUTR_FMT " in " OUTR_FMT,
                         OUTR_ARG(name), OUTR_ARG(folder));
    return OUTR_OK;
}
