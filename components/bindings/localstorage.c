#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/encode.h"
#include "base/json.h"
#include "base/rand.h"
#include "components/bindings.h"
#include "components/common/inside.h"
#include "loop/worker.h"

/* Files below one folder: create, get, list, delete. A file's name comes from whoever calls the
 * app, so it is resolved as if the folder were the root of the file system. Files block, so a
 * thread of the component does the work. */

#define FILE_MAX  (100 * OUTR_MIB) /* a file is read whole */
#define LIST_MAX  (16 * OUTR_MIB)  /* text of a listing */
#define DEPTH_MAX OUTR_INSIDE_DEPTH_MAX

extern const outr_binding_backend outr_bindings_localstorage;

typedef struct config {
    outr_str root;
} config;

static const outr_bind_row rows[] = {
    {"rootPath", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, root), 0, 0, NULL, NULL,
     0, "folder that files live under"},
};

typedef struct job {
    outr_work work;
    struct storage *storage;
    outr_code (*run)(struct job *j, outr_err *err);
    outr_binding_invoke *req;
    outr_str name, data;
    char *answer; /* malloc: the arena is the loop's */
    size_t answer_n;
    outr_op inner;
    outr_op *op;
} job;

typedef struct storage {
    outr_binding base;
    char *root; /* from open on: absolute, links resolved */
    outr_worker *worker;
    job opening;
} storage;

static storage *of(outr_binding *base)
{
    return OUTR_CONTAINER(base, storage, base);
}

/* ---- on the worker: the folder --------------------------------------------------------------- */

static outr_code make_folders(char *path, outr_err *err)
{
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char c = *p;
        *p = 0;
        int rc = mkdir(path, 0777);
        int failure = errno;
        *p = c;
        if (rc && failure != EEXIST)
            return outr_fail_errno(err, failure, "unable to create directory specified by "
                                                 "'rootPath' %s",
                                   path);
        if (!c)
            return OUTR_OK;
    }
}

/* Where nobody keeps files, but where others could be read or changed. */
static bool is_forbidden(outr_str root)
{
    static const char *const places[] = {"/proc", "/sys", "/boot", "/var/run/secrets",
                                         "/run/secrets"};
    for (size_t i = 0; i < OUTR_LEN(places); i++) {
        outr_str place = outr_str_from(places[i]);
        if (outr_str_starts(root, place) && (root.n == place.n || root.p[place.n] == '/'))
            return true;
    }
    return false;
}

static outr_code do_open(job *j, outr_err *err)
{
    storage *s = j->storage;
    struct stat st;
    char resolved[PATH_MAX];
    outr_code rc = make_folders(s->root, err);
    if (rc)
        return rc;
    if (!realpath(s->root, resolved) || stat(resolved, &st))
        return outr_fail_errno(err, errno, "rootPath %s", s->root);
    if (!S_ISDIR(st.st_mode))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "property rootPath represents a file and not a directory");
    if (is_forbidden(outr_str_from(resolved)))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "property rootPath points to a disallowed location");
    free(s->root);
    s->root = outr_str_dup(outr_str_from(resolved));
    return OUTR_OK;
}

/* ---- on the worker: operations --------------------------------------------------------------- */

static outr_code find(job *j, outr_inside *where, bool makes_folders, outr_err *err)
{
    return outr_inside_find(where, j->storage->root, j->name, makes_folders, err);
}

static outr_code fail_at(const job *j, const outr_inside *where, outr_err *err, int failure,
                         const char *doing)
{
    return outr_fail_errno(err, failure, "error %s %s/%s", doing, j->storage->root, where->path);
}

/* A pipe or a device would hold the thread up. */
static int open_file(const outr_inside *where, int flags)
{
    struct stat st;
    int fd = openat(where->dir, where->name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (fd < 0)
        return -1;
    int failure = fstat(fd, &st) ? errno : S_ISDIR(st.st_mode) ? EISDIR : 0;
    if (!failure && !S_ISREG(st.st_mode))
        failure = EINVAL;
    if (!failure)
        return fd;
    close(fd);
    errno = failure;
    return -1;
}

static int write_all(int fd, outr_str data)
{
    while (data.n > 0) {
        ssize_t n = write(fd, data.p, data.n);
        if (n < 0 && errno != EINTR)
            return errno;
        data = outr_str_skip(data, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

static void take(job *j, outr_buf *own_text)
{
    j->answer = own_text->p;
    j->answer_n = own_text->n;
    *own_text = OUTR_BUF_MAX(0);
}

static outr_code do_create(job *j, outr_err *err)
{
    outr_inside where;
    outr_code rc = find(j, &where, true, err);
    if (rc)
        return rc;
    int fd = open_file(&where, O_WRONLY | O_CREAT | O_TRUNC);
    int failure = fd < 0 ? errno : write_all(fd, j->data);
    if (fd >= 0 && close(fd) && !failure)
        failure = errno; /* some file systems say only now that the disk is full */
    close(where.dir);
    if (failure)
        return fail_at(j, &where, err, failure, fd < 0 ? "creating file" : "writing to file");
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(LIST_MAX);
    outr_buf_z(&text, "{\"fileName\":");
    outr_json_quote(&text, outr_str_from(where.path));
    outr_buf_char(&text, '}');
    take(j, &text);
    return OUTR_OK;
}

/* The size may change while it is read, and some files have none. */
static int read_all(int fd, outr_buf *out)
{
    for (;;) {
        char *room = outr_buf_reserve(out, OUTR_READ_CHUNK);
        if (!room)
            return EFBIG;
        ssize_t n = read(fd, room, OUTR_READ_CHUNK);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return errno;
        out->n += n > 0 ? (size_t)n : 0;
    }
}

static outr_code do_get(job *j, outr_err *err)
{
    outr_inside where;
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(FILE_MAX);
    outr_code rc = find(j, &where, false, err);
    if (rc)
        return rc;
    int fd = open_file(&where, O_RDONLY);
    int failure = fd < 0 ? errno : read_all(fd, &text);
    if (fd >= 0)
        close(fd);
    close(where.dir);
    if (failure == ENOENT)
        return outr_fail(err, OUTR_NOT_FOUND, "file not found: %s/%s", j->storage->root,
                         where.path);
    if (failure == EFBIG)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "file %s/%s is larger than %zu bytes",
                         j->storage->root, where.path, (size_t)FILE_MAX);
    if (failure)
        return fail_at(j, &where, err, failure, fd < 0 ? "opening path" : "reading file");
    take(j, &text);
    return OUTR_OK;
}

static outr_code do_delete(job *j, outr_err *err)
{
    outr_inside where;
    outr_code rc = find(j, &where, false, err);
    if (rc)
        return rc;
    int failure = 0;
    if (unlinkat(where.dir, where.name, 0)) {
        failure = errno;
        if ((failure == EISDIR || failure == EPERM) &&
            unlinkat(where.dir, where.name, AT_REMOVEDIR) == 0)
            failure = 0;
    }
    close(where.dir);
    return failure ? fail_at(j, &where, err, failure, "deleting file") : OUTR_OK;
}

/* ---- on the worker: listing ------------------------------------------------------------------ */

typedef struct listing {
    outr_buf text;
    char path[2 * PATH_MAX]; /* absolute, of where we are */
    size_t count;
} listing;

static int is_named(const struct dirent *e)
{
    return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int list_folder(listing *l, int dir, unsigned depth);

/* Links are named, not followed. */
static int list_entry(listing *l, int dir, const char *name, unsigned depth)
{
    struct stat st;
    size_t n = strlen(l->path);
    int failure = 0;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : errno; /* gone meanwhile */
    if (n + strlen(name) + 2 > sizeof l->path)
        return ENAMETOOLONG;
    snprintf(l->path + n, sizeof l->path - n, "/%s", name);
    if (S_ISDIR(st.st_mode)) {
        int below = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        failure = below < 0 ? (errno == ENOENT ? 0 : errno) : list_folder(l, below, depth + 1);
        if (below >= 0)
            close(below);
    } else {
        outr_buf_char(&l->text, l->count++ ? ',' : '[');
        outr_json_quote(&l->text, outr_str_from(l->path));
        failure = l->text.is_full ? EFBIG : 0;
    }
    l->path[n] = 0;
    return failure;
}

static int list_folder(listing *l, int dir, unsigned depth)
{
    struct dirent **entries;
    if (depth > DEPTH_MAX)
        return ENAMETOOLONG;
    int count = scandirat(dir, ".", &entries, is_named, by_name);
    if (count < 0)
        return errno;
    int failure = 0;
    for (int i = 0; i < count; i++) {
        if (!failure)
            failure = list_entry(l, dir, entries[i]->d_name, depth);
        free(entries[i]);
    }
    free(entries);
    return failure;
}

static outr_code do_list(job *j, outr_err *err)
{
    outr_inside where;
    outr_code rc = find(j, &where, false, err);
    if (rc)
        return rc;
    int dir = openat(where.dir, where.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int failure = dir < 0 ? errno : 0;
    close(where.dir);
    if (failure == ENOTDIR)
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "unable to list files as the file specified is not a directory: %s/%s",
                         j->storage->root, where.path);
    if (failure)
        return fail_at(j, &where, err, failure, "getting stats for path");
    listing *l = outr_alloc(sizeof *l);
    l->text = OUTR_BUF_MAX(LIST_MAX);
    bool is_root = strcmp(where.path, ".") == 0;
    snprintf(l->path, sizeof l->path, is_root ? "%s" : "%s/%s", j->storage->root, where.path);
    failure = list_folder(l, dir, 0);
    close(dir);
    /* nothing in it: null, as Go writes a list that nobody began */
    outr_buf_z(&l->text, l->count ? "]" : "null");
    if (!failure)
        take(j, &l->text);
    outr_buf_done(&l->text);
    free(l);
    if (failure == EFBIG)
        return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "the list is longer than %zu bytes",
                         (size_t)LIST_MAX);
    return failure ? fail_at(j, &where, err, failure, "listing files in the directory") : OUTR_OK;
}

static void handle(void *ctx OUTR_UNUSED, outr_work **items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        job *j = OUTR_CONTAINER(items[i], job, work);
        outr_err_clear(&j->work.err);
        if (!__atomic_load_n(&j->work.is_abandoned, __ATOMIC_ACQUIRE))
            j->run(j, &j->work.err);
    }
}

/* ---- what comes in --------------------------------------------------------------------------- */

/* Standard alphabet, padded, line breaks ignored: what Go takes for base64. */
static bool is_base64(outr_str text)
{
    size_t n = 0, padding = 0;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool is_digit = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '+' || c == '/';
        if (c == '\n' || c == '\r')
            continue;
        if (c == '=')
            padding++;
        else if (!is_digit || padding > 0)
            return false;
        n++;
    }
    return n > 0 && n % 4 == 0 && padding <= 2;
}

static outr_str without_breaks(outr_arena *arena, outr_str text)
{
    char *copy = outr_arena_strz(arena, text);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '\n' && text.p[i] != '\r')
            copy[n++] = text.p[i];
    }
    return outr_str_of(copy, n);
}

/* A JSON text is stored without its quotes, and base64 as the bytes it stands for: how a client
 * that speaks JSON stores a picture. No data at all (null) is an empty file. */
static outr_str content_of(outr_arena *arena, outr_str data)
{
    outr_json *value;
    outr_str decoded;
    if (outr_str_is(data, "null"))
        return OUTR_STR("");
    if (data.n > 1 && data.p[0] == '"' && outr_json_parse(&value, arena, data, NULL) == OUTR_OK &&
        value->kind == OUTR_JSON_STRING)
        data = value->text;
    if (is_base64(data) && outr_base64_decode(arena, without_breaks(arena, data), &decoded))
        return decoded;
    return data;
}

static void on_invoked(outr_op *inner)
{
    job *j = OUTR_CONTAINER(inner, job, inner);
    outr_binding_invoke *req = j->req;
    outr_op *op = j->op;
    if (j->answer)
        outr_arena_defer(req->arena, free, j->answer);
    req->has_answer = j->run != do_delete;
    req->answer = outr_str_of(j->answer, j->answer_n);
    if (inner->err.code) {
        outr_err err = inner->err;
        outr_op_fail(op, &err);
    } else {
        outr_op_finish(op);
    }
}

static void on_cancel(outr_op *op)
{
    job *j = op->impl;
    outr_op_cancel(&j->inner, op->err.code);
}

static void invoke(outr_binding *base, outr_binding_invoke *req, outr_op *op)
{
    static const struct {
        const char *operation;
        outr_code (*run)(job *j, outr_err *err);
    } table[] = {
        {"create", do_create}, {"get", do_get}, {"list", do_list}, {"delete", do_delete}};
    storage *s = of(base);
    job *j = outr_arena_alloc(req->arena, sizeof *j);
    const outr_kv *name = outr_kvs_find_exact(req->metadata, OUTR_STR("fileName"));
    j->storage = s;
    j->req = req;
    j->op = op;
    j->name = name ? name->value : OUTR_STR_NONE;
    for (size_t i = 0; i < OUTR_LEN(table); i++) {
        if (outr_str_is(req->operation, table[i].operation))
            j->run = table[i].run;
    }
    assert(j->run); /* the engine lets only operations() through */
    if (j->run == do_create) {
        j->data = content_of(req->arena, req->data);
        if (j->name.n == 0) {
            char *id = outr_arena_alloc(req->arena, OUTR_UUID_LEN + 1);
            outr_rand_uuid(outr_loop_rand(op->loop), id);
            j->name = outr_str_of(id, OUTR_UUID_LEN);
        }
    }
    outr_op_begin(op, j, on_cancel);
    outr_op_init(&j->inner, op->loop, op, 0, on_invoked);
    outr_worker_submit(s->worker, &j->work, &j->inner);
}

/* ---- life ------------------------------------------------------------------------------------ */

static outr_code create(outr_binding **out, const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    config c = {0};
    char cwd[PATH_MAX] = "";
    if (outr_bind_kvs(rows, OUTR_LEN(rows), &c, init->metadata, &errors)) {
        *err = errors.items[0];
        return err->code;
    }
    if (c.root.n == 0 || memchr(c.root.p, 0, c.root.n))
        return outr_fail(err, OUTR_INVALID_ARGUMENT, "property rootPath must not be empty");
    if (c.root.p[0] != '/' && !getcwd(cwd, sizeof cwd))
        return outr_fail_errno(err, errno, "failed to obtain current working directory");
    storage *s = outr_alloc(sizeof *s);
    size_t n = strlen(cwd) + c.root.n + 2;
    s->root = outr_alloc(n);
    snprintf(s->root, n, "%s%s" OUTR_FMT, cwd, cwd[0] ? "/" : "", OUTR_ARG(c.root));
    s->base.backend = &outr_bindings_localstorage;
    *out = &s->base;
    return OUTR_OK;
}

static void open_storage(outr_binding *base, outr_op *op)
{
    storage *s = of(base);
    outr_err err;
    const outr_worker_options options = {.name = "localstorage", .handle = handle, .ctx = s};
    if (outr_worker_open(&s->worker, &options, &err)) {
        outr_op_begin(op, s, NULL);
        outr_op_fail_soon(op, &err);
        return;
    }
    s->opening = (job){.storage = s, .run = do_open};
    outr_worker_submit(s->worker, &s->opening.work, op);
}

static void close_storage(outr_binding *base, outr_op *op)
{
    storage *s = of(base);
    outr_op_begin(op, NULL, NULL);
    if (s->worker)
        outr_worker_close(s->worker);
    free(s->root);
    free(s);
    outr_op_finish_soon(op);
}

static unsigned directions(const outr_binding *base OUTR_UNUSED)
{
    return OUTR_BINDING_OUTPUT;
}

static const char *const *operations(const outr_binding *base OUTR_UNUSED)
{
    static const char *const names[] = {"create", "get", "list", "delete", NULL};
    return names;
}

const outr_binding_backend outr_bindings_localstorage = {
    .base = {"bindings.localstorage", "v1", rows, OUTR_LEN(rows)},
    .create = create,
    .open = open_storage,
    .close = close_storage,
    .directions = directions,
    .operations = operations,
    .invoke = invoke,
};
