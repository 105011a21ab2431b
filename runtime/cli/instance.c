#include "cli/instance.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/rundir.h"

#define FILE_MAX      (64 * OUTR_KIB)
#define INSTANCES_MAX 10000 /* files looked at in one directory */
#define PREFIX        "run-"
#define SUFFIX        ".json"

struct outr_record {
    int fd;
    char path[512];
};

outr_code outr_record_open(outr_record **out, outr_err *err)
{
    char dir[400], hidden[512];
    if (outr_rundir_make(dir, sizeof dir, err))
        return err->code;
    outr_record *record = outr_alloc(sizeof *record);
    snprintf(record->path, sizeof record->path, "%s/" PREFIX "%ld" SUFFIX, dir, (long)getpid());
    /* Locked before it has its name, so that nobody takes it for a leftover. */
    snprintf(hidden, sizeof hidden, "%s/." PREFIX "%ld", dir, (long)getpid());
    record->fd = open(hidden, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (record->fd < 0 || flock(record->fd, LOCK_EX | LOCK_NB) || rename(hidden, record->path)) {
        outr_fail_errno(err, errno, "%s", record->path);
        if (record->fd >= 0)
            close(record->fd);
        free(record);
        return err->code;
    }
    *out = record;
    return OUTR_OK;
}

static void put_number(outr_arena *arena, outr_json *object, const char *key, int64_t value)
{
    outr_json_put(object, outr_str_from(key), outr_json_number(arena, value));
}

static void put_text(outr_arena *arena, outr_json *object, const char *key, outr_str value)
{
    outr_json_put(object, outr_str_from(key), outr_json_string(arena, value));
}

outr_code outr_record_write(outr_record *record, const outr_instance *in, outr_err *err)
{
    outr_arena *arena = outr_arena_new(OUTR_MIB);
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(FILE_MAX);
    outr_json *o = outr_json_new(arena, OUTR_JSON_OBJECT);
    put_text(arena, o, "appId", in->app_id);
    put_text(arena, o, "host", in->host);
    put_text(arena, o, "socket", in->socket);
    put_text(arena, o, "command", outr_str_head(in->command, FILE_MAX / 16));
    put_number(arena, o, "httpPort", in->http_port);
    put_number(arena, o, "grpcPort", in->grpc_port);
    put_number(arena, o, "internalPort", in->internal_port);
    put_number(arena, o, "metricsPort", in->metrics_port);
    put_number(arena, o, "appPort", in->app_port);
    put_number(arena, o, "cliPid", in->cli_pid);
    put_number(arena, o, "sidecarPid", in->sidecar_pid);
    put_number(arena, o, "appPid", in->app_pid);
    put_number(arena, o, "created", in->created_s);
    outr_json_write(&text, o, OUTR_JSON_PLAIN);
    outr_buf_char(&text, '\n');
    bool is_written =
        ftruncate(record->fd, 0) == 0 && pwrite(record->fd, text.p, text.n, 0) == (ssize_t)text.n;
    if (!is_written)
        outr_fail_errno(err, errno, "%s", record->path);
    outr_arena_free(arena);
    return is_written ? OUTR_OK : err->code;
}

void outr_record_close(outr_record *record)
{
    if (!record)
        return;
    unlink(record->path);
    close(record->fd);
    free(record);
}

static int64_t number(const outr_json *object, const char *key, int64_t max)
{
    int64_t value = 0;
    const outr_json *found = outr_json_find(object, key);
    return found && outr_json_i64(found, &value) && value >= 0 && value <= max ? value : 0;
}

/* False: not one of ours, or half-written in this moment. */
static bool read_instance(outr_instance *out, outr_arena *arena, int fd)
{
    struct stat st;
    outr_err err;
    outr_json *o;
    if (fstat(fd, &st) || st.st_size <= 0 || (size_t)st.st_size > FILE_MAX)
        return false;
    char *text = outr_arena_alloc(arena, (size_t)st.st_size);
    ssize_t n = pread(fd, text, (size_t)st.st_size, 0);
    if (n <= 0 || outr_json_parse(&o, arena, outr_str_of(text, (size_t)n), &err) ||
        o->kind != OUTR_JSON_OBJECT)
        return false;
    *out = (outr_instance){
        .app_id = outr_json_text(o, "appId"),
        .host = outr_json_text(o, "host"),
        .socket = outr_json_text(o, "socket"),
        .command = outr_json_text(o, "command"),
        .http_port = (uint16_t)number(o, "httpPort", UINT16_MAX),
        .grpc_port = (uint16_t)number(o, "grpcPort", UINT16_MAX),
        .internal_port = (uint16_t)number(o, "internalPort", UINT16_MAX),
        .metrics_port = (uint16_t)number(o, "metricsPort", UINT16_MAX),
        .app_port = (uint16_t)number(o, "appPort", UINT16_MAX),
        .cli_pid = (pid_t)number(o, "cliPid", INT32_MAX),
        .sidecar_pid = (pid_t)number(o, "sidecarPid", INT32_MAX),
        .app_pid = (pid_t)number(o, "appPid", INT32_MAX),
        .created_s = number(o, "created", INT64_MAX),
    };
    return out->app_id.n > 0 && out->cli_pid > 0;
}

static bool is_record_name(const char *name)
{
    outr_str s = outr_str_from(name);
    return outr_str_starts(s, OUTR_STR(PREFIX)) && outr_str_ends(s, OUTR_STR(SUFFIX));
}

static int by_age(const void *a, const void *b)
{
    const outr_instance *x = a, *y = b;
    int order = outr_str_cmp(x->app_id, y->app_id);
    if (order == 0)
        order = (x->created_s > y->created_s) - (x->created_s < y->created_s);
    return order ? order : (x->cli_pid > y->cli_pid) - (x->cli_pid < y->cli_pid);
}

static void load_one(outr_instances *out, outr_arena *arena, int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    if (flock(fd, LOCK_SH | LOCK_NB) == 0)
        unlinkat(dir_fd, name, 0); /* nobody holds it: its process is gone */
    else if (read_instance(&out->items[out->count], arena, fd))
        out->count++;
    close(fd);
}

outr_code outr_instances_load(outr_instances *out, outr_arena *arena, outr_err *err)
{
    char path[400];
    if (outr_rundir_make(path, sizeof path, err))
        return err->code;
    DIR *dir = opendir(path);
    if (!dir)
        return outr_fail_errno(err, errno, "%s", path);
    size_t room = 0;
    struct dirent *entry;
    while ((entry = readdir(dir)) && room < INSTANCES_MAX)
        room += is_record_name(entry->d_name);
    *out = (outr_instances){outr_arena_alloc(arena, (room + 1) * sizeof *out->items), 0};
    rewinddir(dir);
    while ((entry = readdir(dir)) && out->count < room) {
        if (is_record_name(entry->d_name))
            load_one(out, arena, dirfd(dir), entry->d_name);
    }
    closedir(dir);
    qsort(out->items, out->count, sizeof *out->items, by_age);
    return OUTR_OK;
}

outr_code outr_instances_find(const outr_instance **out, outr_arena *arena, const char *app_id,
                              outr_err *err)
{
    outr_instances all;
    if (outr_instances_load(&all, arena, err))
        return err->code;
    char names[256] = "";
    size_t n = 0;
    for (size_t i = 0; i < all.count; i++) {
        const outr_instance *in = &all.items[i];
        if (outr_str_is(in->app_id, app_id)) {
            *out = in;
            return OUTR_OK;
        }
        bool is_repeated = i > 0 && outr_str_eq(in->app_id, all.items[i - 1].app_id);
        if (!is_repeated && n < sizeof names)
            n += (size_t)snprintf(names + n, sizeof names - n, "%s" OUTR_FMT, n ? ", " : "",
                                  OUTR_ARG(in->app_id));
    }
    return outr_fail(err, OUTR_NOT_FOUND, "no app \"%s\" runs here; %s%s", app_id,
                     n ? "there are: " : "nothing was started with `outrigger run`", names);
}
