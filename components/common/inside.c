#include "components/common/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 40 /* as Linux itself */

/* Folders from the root to where we are, and what is still to be walked. */
typedef struct walk {
    int dirs[OUTR_INSIDE_DEPTH_MAX];
    size_t starts[OUTR_INSIDE_DEPTH_MAX]; /* where each one's name begins in path */
    size_t depth;                         /* dirs[depth] is open */
    char path[PATH_MAX];
    size_t path_n;
    char rest[PATH_MAX];
    size_t at, rest_n;
    unsigned links;
} walk;

static void leave(walk *w)
{
    close(w->dirs[w->depth]);
    w->path_n = w->starts[w->depth];
    w->depth--;
}

static bool next_part(walk *w, outr_str *part)
{
    while (w->at < w->rest_n && w->rest[w->at] == '/')
        w->at++;
    size_t from = w->at;
    while (w->at < w->rest_n && w->rest[w->at] != '/')
        w->at++;
    *part = outr_str_of(w->rest + from, w->at - from);
    return part->n > 0;
}

static bool is_last(const walk *w)
{
    for (size_t i = w->at; i < w->rest_n; i++) {
        if (w->rest[i] != '/')
            return false;
    }
    return true;
}

/* Puts the link's target before what is left. */
static int follow(walk *w, outr_str target)
{
    char rest[PATH_MAX];
    size_t left = w->rest_n - w->at;
    if (++w->links > LINKS_MAX)
        return ELOOP;
    if (target.n + left + 1 > sizeof rest)
        return ENAMETOOLONG;
    memcpy(rest, target.p, target.n);
    memcpy(rest + target.n, w->rest + w->at, left); /* begins with a slash, or is nothing */
    memcpy(w->rest, rest, target.n + left);
    w->rest_n = target.n + left;
    w->at = 0;
    while (target.n > 0 && target.p[0] == '/' && w->depth > 0)
        leave(w);
    return 0;
}

static bool append(walk *w, const char *name, size_t n)
{
    if (w->path_n + n + 2 > sizeof w->path)
        return false;
    if (w->path_n > 0)
        w->path[w->path_n++] = '/';
    memcpy(w->path + w->path_n, name, n);
    w->path_n += n;
    return true;
}

static int enter(walk *w, const char *name, bool makes_folders)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int here = w->dirs[w->depth];
    if (w->depth + 1 == OUTR_INSIDE_DEPTH_MAX)
        return ENAMETOOLONG;
    int dir = openat(here, name, flags);
    if (dir < 0 && errno == ENOENT && makes_folders) {
        if (mkdirat(here, name, 0777) && errno != EEXIST)
            return errno;
        dir = openat(here, name, flags);
    }
    if (dir < 0)
        return errno;
    size_t start = w->path_n;
    if (!append(w, name, strlen(name))) {
        close(dir);
        return ENAMETOOLONG;
    }
    w->dirs[++w->depth] = dir;
    w->starts[w->depth] = start;
    return 0;
}

/* 0, or errno. name: the last part, "." for where the walk stands. */
static int walk_to_end(walk *w, char name[NAME_MAX + 1], bool makes_folders)
{
    char target[PATH_MAX];
    outr_str part;
    while (next_part(w, &part)) {
        if (outr_str_is(part, "."))
            continue;
        if (outr_str_is(part, "..")) {
            if (w->depth > 0)
                leave(w);
            continue;
        }
        if (part.n > NAME_MAX)
            return ENAMETOOLONG;
        memcpy(name, part.p, part.n);
        name[part.n] = 0;
        ssize_t n = readlinkat(w->dirs[w->depth], name, target, sizeof target);
        int failure = 0;
        if (n >= 0)
            failure = (size_t)n < sizeof target ? follow(w, outr_str_of(target, (size_t)n))
                                                : ENAMETOOLONG;
        else if (errno != EINVAL && errno != ENOENT)
            failure = errno;
        else if (is_last(w))
            return append(w, name, part.n) ? 0 : ENAMETOOLONG;
        else
            failure = enter(w, name, makes_folders);
        if (failure)
            return failure;
    }
    memcpy(name, ".", 2);
    return 0;
}

outr_code outr_inside_find(outr_inside *out, const char *root, outr_str path, bool makes_folders,
                           outr_err *err)
{
    walk w = {.rest_n = path.n};
    if (path.n >= sizeof w.rest || (path.n > 0 && memchr(path.p, 0, path.n)))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "a file cannot have such a name");
    if (path.n > 0)
        memcpy(w.rest, path.p, path.n);
    w.dirs[0] = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w.dirs[0] < 0)
        return outr_fail_errno(err, errno, "%s", root);
    int failure = walk_to_end(&w, out->name, makes_folders);
    if (!failure) {
        out->dir = dup(w.dirs[w.depth]);
        failure = out->dir < 0 ? errno : 0;
    }
    for (size_t i = 0; i <= w.depth; i++)
        close(w.dirs[i]);
    if (failure == ELOOP || failure == ENAMETOOLONG)
        return outr_fail(err, OUTR_INVALID_ARGUMENT, OUTR_FMT ": %s", OUTR_ARG(path),
                         failure == ELOOP ? "too many links, or a link put there just now"
                                          : "too long or too deep");
    if (failure)
        return outr_fail_errno(err, failure, "%s/" OUTR_FMT, root, OUTR_ARG(path));
    if (w.path_n == 0)
        append(&w, ".", 1);
    memcpy(out->path, w.path, w.path_n);
    out->path[w.path_n] = 0;
    return OUTR_OK;
}
