#include "components/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <unistd.h>

static outr_code find_folder(char out[PATH_MAX], outr_err *err)
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    if (n < 0)
        return outr_fail_errno(err, errno, "/proc/self/exe");
    out[n] = 0;
    for (int up = 0; up < 2; up++) { /* DIR/bin/outriggerd */
        char *slash = strrchr(out, '/');
        if (slash)
            *slash = 0;
    }
    return OUTR_OK;
}

/* "pubsub.redis" to "pubsub-redis" or "pubsub_redis". */
static void spell(char *out, size_t max, const outr_module_type *type, char separator)
{
    snprintf(out, max, "%s", type->type);
    for (char *p = out; *p; p++) {
        if (*p == '.')
            *p = separator;
    }
}

static outr_code open_file(void **out, const outr_module_type *type, outr_err *err)
{
    char folder[PATH_MAX], name[64], path[PATH_MAX + 96];
    outr_code rc = find_folder(folder, err);
    if (rc)
        return rc;
    spell(name, sizeof name, type, '-');
    snprintf(path, sizeof path, "%s/lib/outrigger/%s.so", folder, name);
    if (access(path, R_OK))
        return outr_fail(err, OUTR_FAILED_PRECONDITION,
                         "%s is a module, and this build comes without it: %s (it needs the "
                         "Debian package %s)",
                         type->type, path, type->package);
    *out = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!*out)
        return outr_fail(err, OUTR_FAILED_PRECONDITION,
                         "%s cannot be loaded: %s (its library is in the Debian package %s)",
                         type->type, dlerror(), type->package);
    return OUTR_OK;
}

outr_code outr_module_load(const outr_backend **out, const outr_module_type *type, outr_err *err)
{
    static const outr_module_mark mine = OUTR_MODULE_MARK;
    char name[64], symbol[80];
    void *file = NULL;
    outr_code rc = open_file(&file, type, err);
    if (rc)
        return rc;
    const outr_module_mark *mark = dlsym(file, "outr_module");
    if (!mark || memcmp(mark, &mine, sizeof mine) != 0)
        return outr_fail(err, OUTR_FAILED_PRECONDITION, "the module of %s is of another build",
                         type->type);
    spell(name, sizeof name, type, '_');
    snprintf(symbol, sizeof symbol, "outr_%s", name);
    const outr_backend *found = dlsym(file, symbol);
    if (!found)
        return outr_fail(err, OUTR_FAILED_PRECONDITION, "the module of %s has no %s", type->type,
                         symbol);
    *out = found;
    return OUTR_OK;
}
