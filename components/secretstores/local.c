#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "components/secretstores.h"

/* Secrets from the environment and from a JSON file. Both are read when the component opens. */

#define FILE_MAX_BYTES (4 * OUTR_MIB)

typedef struct config {
    outr_str file, separator, prefix;
    bool is_multi;
} config;

typedef struct store {
    outr_secret_store base;
    outr_arena *arena;
    config c;
    outr_secret *secrets;
    size_t count;
    bool is_full; /* names joined over all levels did not fit the arena */
} store;

static const outr_bind_row file_rows[] = {
    {"secretsFile", NULL, OUTR_BIND_STR, OUTR_BIND_REQUIRED, offsetof(config, file), 0, 0, NULL,
     NULL, 0, "path of the JSON file"},
    {"nestedSeparator", NULL, OUTR_BIND_STR, 0, offsetof(config, separator), 0, 0, ":", NULL, 0,
     "joins nested key names"},
    {"multiValued", NULL, OUTR_BIND_BOOL, 0, offsetof(config, is_multi), 0, 0, "false", NULL, 0,
     "allow nested objects as multi-value secrets"},
};
static const outr_bind_row env_rows[] = {
    {"prefix", NULL, OUTR_BIND_STR, 0, offsetof(config, prefix), 0, 0, NULL, NULL, 0,
     "only names with this prefix; it is cut off"},
};

static store *of(outr_secret_store *base)
{
    return OUTR_CONTAINER(base, store, base);
}

static outr_code create(outr_secret_store **out, const outr_secret_backend *backend,
                        const outr_component_init *init, outr_err *err)
{
    OUTR_AUTO(outr_err_list) errors = {0};
    outr_arena *arena = outr_arena_new(4 * FILE_MAX_BYTES);
    store *st = outr_arena_alloc(arena, sizeof *st);
    if (outr_bind_kvs(backend->base.rows, backend->base.row_count, &st->c, init->metadata,
                      &errors)) {
        *err = errors.items[0];
        outr_arena_free(arena);
        return err->code;
    }
    st->arena = arena;
    st->base.backend = backend;
    st->c.file = outr_arena_str(arena, st->c.file);
    st->c.separator = st->c.separator.n ? outr_arena_str(arena, st->c.separator) : OUTR_STR(":");
    st->c.prefix = outr_arena_str(arena, st->c.prefix);
    *out = &st->base;
    return OUTR_OK;
}

static void finish(outr_op *op, const outr_err *err)
{
    outr_op_begin(op, NULL, NULL);
    if (err && err->code)
        outr_op_fail_soon(op, err);
    else
        outr_op_finish_soon(op);
}

static void close_store(outr_secret_store *base, outr_op *op)
{
    store *st = of(base);
    if (st->secrets)
        explicit_bzero(st->secrets, st->count * sizeof *st->secrets);
    outr_arena_free(st->arena);
    finish(op, NULL);
}

static outr_kvs one_value(outr_arena *arena, outr_str name, outr_str value)
{
    outr_kv *kv = outr_arena_alloc(arena, sizeof *kv);
    *kv = (outr_kv){name, value};
    return (outr_kvs){kv, 1};
}

/* ---- file ------------------------------------------------------------------------------------ */

static void add(store *st, outr_str name, outr_kvs values)
{
    st->secrets[st->count++] = (outr_secret){name, values};
}

static outr_str scalar_text(store *st, const outr_json *value)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(FILE_MAX_BYTES);
    if (value->kind == OUTR_JSON_STRING)
        return outr_arena_str(st->arena, value->text);
    outr_json_write(&out, value, OUTR_JSON_FLOAT64);
    return outr_arena_str(st->arena, outr_buf_view(&out));
}

static outr_str join(store *st, outr_str path, outr_str key)
{
    if (path.n == 0)
        return outr_arena_str(st->arena, key);
    size_t n = path.n + st->c.separator.n + key.n;
    char *text = st->is_full ? NULL : outr_arena_try(st->arena, n + 1);
    if (!text) {
        st->is_full = true;
        return OUTR_STR("");
    }
    memcpy(text, path.p, path.n);
    memcpy(text + path.n, st->c.separator.p, st->c.separator.n);
    if (key.n)
        memcpy(text + path.n + st->c.separator.n, key.p, key.n);
    return outr_str_of(text, n);
}

static size_t count_leaves(const outr_json *node)
{
    size_t n = 1;
    for (const outr_json *m = node->child; m; m = m->next)
        n += count_leaves(m);
    return n;
}

static bool is_nested(const outr_json *value)
{
    return value->kind == OUTR_JSON_OBJECT || value->kind == OUTR_JSON_ARRAY;
}

/* a:b:c for every leaf; items of an array count from 0. */
static void flatten(store *st, const outr_json *node, outr_str path, outr_kv *to, size_t *n)
{
    size_t index = 0;
    for (const outr_json *m = node->child; m; m = m->next, index++) {
        outr_str key =
            node->kind == OUTR_JSON_OBJECT ? m->key : outr_arena_printf(st->arena, "%zu", index);
        outr_str name = join(st, path, key);
        if (is_nested(m))
            flatten(st, m, name, to, n);
        else
            to[(*n)++] = (outr_kv){name, scalar_text(st, m)};
    }
}

static void take_file(store *st, const outr_json *root)
{
    size_t leaves = count_leaves(root), n = 0;
    st->secrets = outr_arena_alloc(st->arena, (leaves + 1) * sizeof *st->secrets);
    if (!st->c.is_multi) {
        outr_kv *kvs = outr_arena_alloc(st->arena, (leaves + 1) * sizeof *kvs);
        flatten(st, root, OUTR_STR_NONE, kvs, &n);
        for (size_t i = 0; i < n; i++)
            add(st, kvs[i].key, (outr_kvs){&kvs[i], 1});
        return;
    }
    for (const outr_json *m = root->child; m; m = m->next) {
        outr_str name = outr_arena_str(st->arena, m->key);
        if (!is_nested(m)) {
            add(st, name, one_value(st->arena, name, scalar_text(st, m)));
            continue;
        }
        outr_kv *kvs = outr_arena_alloc(st->arena, (count_leaves(m) + 1) * sizeof *kvs);
        n = 0;
        flatten(st, m, OUTR_STR_NONE, kvs, &n);
        add(st, name, (outr_kvs){kvs, n});
    }
}

static outr_code read_file(store *st, outr_str *out, outr_err *err)
{
    struct stat status;
    int fd = open(st->c.file.p, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return outr_fail_errno(err, errno, "secretsFile %s", st->c.file.p);
    outr_code rc = OUTR_OK;
    if (fstat(fd, &status) || (size_t)status.st_size > FILE_MAX_BYTES) {
        rc = outr_fail(err, OUTR_INVALID_ARGUMENT, "secretsFile %s: larger than %zu bytes",
                       st->c.file.p, FILE_MAX_BYTES);
    } else {
        char *text = outr_arena_alloc(st->arena, (size_t)status.st_size + 1);
        ssize_t n = read(fd, text, (size_t)status.st_size);
        if (n < 0)
            rc = outr_fail_errno(err, errno, "secretsFile %s", st->c.file.p);
        else
            *out = outr_str_of(text, (size_t)n);
    }
    close(fd);
    return rc;
}

static void open_file(outr_secret_store *base, outr_op *op)
{
    store *st = of(base);
    outr_str text;
    outr_json *root;
    outr_err err = {0};
    if (!read_file(st, &text, &err)) {
        if (outr_json_parse(&root, st->arena, text, &err))
            outr_wrap(&err, "secretsFile %s", st->c.file.p);
        else if (root->kind != OUTR_JSON_OBJECT)
            outr_fail(&err, OUTR_INVALID_ARGUMENT, "secretsFile %s: must hold a JSON object",
                      st->c.file.p);
        else
            take_file(st, root);
        if (st->is_full)
            outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "secretsFile %s: nested names are too long",
                      st->c.file.p);
    }
    finish(op, &err);
}

static void get_from_file(outr_secret_store *base, outr_secret_get *req, outr_op *op)
{
    store *st = of(base);
    outr_err err = {0};
    if (req->is_bulk) {
        req->secrets = st->secrets;
        req->count = st->count;
        finish(op, NULL);
        return;
    }
    for (size_t i = st->count; i-- > 0;) { /* of a name given twice the last counts, as in Go */
        if (outr_str_eq(st->secrets[i].name, req->name)) {
            req->secrets = &st->secrets[i];
            req->count = 1;
            finish(op, NULL);
            return;
        }
    }
    outr_fail(&err, OUTR_NOT_FOUND, "secret " OUTR_FMT " not found", OUTR_ARG(req->name));
    finish(op, &err);
}

/* ---- environment ----------------------------------------------------------------------------- */

static bool is_reserved(outr_str name)
{
    return outr_str_istarts(name, OUTR_STR("DAPR_")) || outr_str_iis(name, "APP_API_TOKEN") ||
           outr_str_find(name, ' ') >= 0;
}

static void open_env(outr_secret_store *base OUTR_UNUSED, outr_op *op)
{
    finish(op, NULL);
}

extern char **environ;

static void get_all_from_env(store *st, outr_secret_get *req)
{
    size_t max = 0;
    for (char **e = environ; *e; e++)
        max++;
    req->secrets = outr_arena_alloc(req->arena, (max + 1) * sizeof *req->secrets);
    for (char **e = environ; *e; e++) {
        outr_str name, value = outr_str_cut(outr_str_from(*e), '=', &name);
        if (is_reserved(name) || !outr_str_starts(name, st->c.prefix))
            continue;
        name = outr_str_skip(name, st->c.prefix.n);
        req->secrets[req->count++] = (outr_secret){name, one_value(req->arena, name, value)};
    }
}

static void get_from_env(outr_secret_store *base, outr_secret_get *req, outr_op *op)
{
    store *st = of(base);
    req->count = 0;
    if (req->is_bulk) {
        get_all_from_env(st, req);
    } else {
        outr_str full = outr_arena_join(req->arena, st->c.prefix, req->name, OUTR_STR_NONE);
        const char *value = is_reserved(full) ? NULL : getenv(full.p);
        req->secrets = outr_arena_alloc(req->arena, sizeof *req->secrets);
        req->secrets[req->count++] =
            (outr_secret){req->name, one_value(req->arena, req->name,
                                               value ? outr_str_from(value) : OUTR_STR(""))};
    }
    finish(op, NULL);
}

/* ---- back ends ------------------------------------------------------------------------------ */

extern const outr_secret_backend outr_secretstores_local_env, outr_secretstores_local_file;

static outr_code create_file(outr_secret_store **out, const outr_component_init *init,
                             outr_err *err)
{
    return create(out, &outr_secretstores_local_file, init, err);
}

static outr_code create_env(outr_secret_store **out, const outr_component_init *init, outr_err *err)
{
    return create(out, &outr_secretstores_local_env, init, err);
}

static unsigned file_features(const outr_secret_store *base)
{
    return OUTR_CONTAINER(base, store, base)->c.is_multi ? OUTR_SECRET_MULTIPLE : 0;
}

static unsigned no_features(const outr_secret_store *base OUTR_UNUSED)
{
    return 0;
}

const outr_secret_backend outr_secretstores_local_file = {
    .base = {"secretstores.local.file", "v1", file_rows, OUTR_LEN(file_rows)},
    .create = create_file,
    .open = open_file,
    .close = close_store,
    .features = file_features,
    .get = get_from_file,
};

const outr_secret_backend outr_secretstores_local_env = {
    .base = {"secretstores.local.env", "v1", env_rows, OUTR_LEN(env_rows)},
    .create = create_env,
    .open = open_env,
    .close = close_store,
    .features = no_features,
    .get = get_from_env,
};
