#include "mesh/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/buf.h"
#include "loop/worker.h"

#define NAMES_MAX     4096
#define FILE_MAX      (4 * OUTR_MIB)
#define SAVE_AFTER_NS OUTR_SEC
#define FIRST_LINE    "outrigger-known 2"
#define WITHOUT       "outrigger-known 1" /* of a version that knew no labels */

/* The addresses of one name, "10.0.0.1:50002;zone=a 10.0.0.2:50002". */
typedef struct entry {
    char *addresses;
} entry;

typedef struct kept {
    outr_resolver base;
    outr_resolver_backend backend; /* base's: the inner one's words about itself */
    outr_resolver *inner;
    outr_loop *loop;
    outr_log log;
    char *path;
    outr_worker *worker;
    /* Every loop asks: held for copying alone. */
    pthread_mutex_t lock;
    outr_map *entries; /* "app namespace" -> entry */
    bool is_dirty, is_posted, is_over;
    size_t asked; /* questions without an answer; they may outlast close */
    outr_message changed, gone;
    outr_timer saver;
    outr_work work;
    outr_op saving;
} kept;

typedef struct question {
    kept *k;
    outr_resolve *req;
    outr_op *op;
    outr_op inner;
} question;

static kept *of(outr_resolver *base)
{
    return OUTR_CONTAINER(base, kept, base);
}

/* ---- the file -------------------------------------------------------------------------------- */

static void put(kept *k, outr_str key, outr_str addresses)
{
    entry *e = outr_map_get(k->entries, key);
    if (!e && outr_map_count(k->entries) >= NAMES_MAX)
        return;
    if (!e) {
        e = outr_alloc(sizeof *e);
        outr_map_put(k->entries, key, e);
    }
    free(e->addresses);
    e->addresses = outr_str_dup(addresses);
}

static void load(kept *k)
{
    int fd = open(k->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    OUTR_AUTO(outr_buf) text = OUTR_BUF_MAX(FILE_MAX);
    char piece[4096];
    ssize_t n;
    outr_str line, app, namespace_;
    if (fd < 0)
        return;
    while ((n = read(fd, piece, sizeof piece)) > 0)
        outr_buf_append(&text, piece, (size_t)n);
    close(fd);
    outr_str rest = outr_str_cut(outr_buf_view(&text), '\n', &line);
    if ((!outr_str_is(line, FIRST_LINE) && !outr_str_is(line, WITHOUT)) || text.is_full)
        return;
    while (rest.p) {
        rest = outr_str_cut(rest, '\n', &line);
        outr_str addresses = outr_str_cut(outr_str_cut(line, ' ', &app), ' ', &namespace_);
        if (rest.p && addresses.n > 0) /* the last line may be half of one */
            put(k, outr_str_head(line, app.n + 1 + namespace_.n), addresses);
    }
}

/* On the worker: whole or not at all. The name of the draft is this process': instances of one app
 * share the file. */
static void save(kept *k)
{
    OUTR_AUTO(outr_buf) out = OUTR_BUF_MAX(FILE_MAX);
    char temporary[600];
    outr_str key;
    void *item;
    outr_buf_z(&out, FIRST_LINE "\n");
    pthread_mutex_lock(&k->lock);
    k->is_dirty = false;
    for (size_t at = 0; outr_map_next(k->entries, &at, &key, &item);)
        outr_buf_printf(&out, OUTR_FMT " %s\n", OUTR_ARG(key), ((entry *)item)->addresses);
    pthread_mutex_unlock(&k->lock);
    snprintf(temporary, sizeof temporary, "%s.%d", k->path, (int)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool is_good = fd >= 0 && write(fd, out.p, out.n) == (ssize_t)out.n;
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (is_good && rename(temporary, k->path)) {
        why = errno;
        is_good = false;
    }
    if (is_good)
        return;
    unlink(temporary);
    OUTR_LOG(&k->log, WARN, "addresses of apps cannot be kept", OUTR_Z("file", k->path),
             OUTR_Z("reason", strerror(why)));
}

static void handle(void *ctx, outr_work **items OUTR_UNUSED, size_t count OUTR_UNUSED)
{
    save(ctx);
}

static void end_if_over(kept *k);

static void on_saved(outr_op *op)
{
    end_if_over(OUTR_CONTAINER(op, kept, saving));
}

static void on_save_time(outr_timer *timer)
{
    kept *k = OUTR_CONTAINER(timer, kept, saver);
    if (outr_op_is_pending(&k->saving)) {
        outr_timer_start(k->loop, timer, outr_loop_now(k->loop) + SAVE_AFTER_NS);
        return;
    }
    outr_op_init(&k->saving, k->loop, NULL, 0, on_saved);
    outr_worker_submit(k->worker, &k->work, &k->saving);
}

/* Main loop: something has changed; what changes soon after goes along. */
static void on_changed(outr_message *message, outr_loop *loop)
{
    kept *k = OUTR_CONTAINER(message, kept, changed);
    pthread_mutex_lock(&k->lock);
    k->is_posted = false;
    bool is_over = k->is_over;
    pthread_mutex_unlock(&k->lock);
    if (!is_over && !outr_timer_is_on(&k->saver))
        outr_timer_start(loop, &k->saver, outr_loop_now(loop) + SAVE_AFTER_NS);
}

/* ---- questions ------------------------------------------------------------------------------- */

/* False: such a name is not kept; a stranger's text does not make lines. */
static bool key_of(char out[512], const outr_resolve *req)
{
    int n =
        snprintf(out, 512, OUTR_FMT " " OUTR_FMT, OUTR_ARG(req->app_id), OUTR_ARG(req->namespace_));
    size_t spaces = 0;
    for (int i = 0; i < n && i < 511; i++) {
        if ((unsigned char)out[i] < ' ')
            return false;
        spaces += out[i] == ' ';
    }
    return n > 0 && n < 512 && spaces == 1 && req->app_id.n > 0;
}

static void remember(kept *k, const outr_resolve *req)
{
    OUTR_AUTO(outr_buf)
    text = OUTR_BUF_MAX(OUTR_RESOLVE_MAX * (OUTR_ADDR_TEXT_MAX + OUTR_LABELS_TEXT_MAX));
    char key[512], one[OUTR_ADDR_TEXT_MAX];
    if (!key_of(key, req))
        return;
    for (size_t i = 0; i < req->count && i < OUTR_RESOLVE_MAX; i++) {
        outr_addr_text(&req->instances[i].addr, one);
        outr_buf_printf(&text, i ? " %s" : "%s", one);
        if (req->instances[i].labels.count > 0)
            outr_buf_char(&text, ';');
        outr_labels_write(&text, req->instances[i].labels);
    }
    pthread_mutex_lock(&k->lock);
    const entry *e = outr_map_get(k->entries, outr_str_from(key));
    bool is_new = !e || !outr_str_is(outr_buf_view(&text), e->addresses);
    bool posts = is_new && !k->is_posted;
    if (is_new) {
        put(k, outr_str_from(key), outr_buf_view(&text));
        k->is_dirty = k->is_posted = true;
    }
    pthread_mutex_unlock(&k->lock);
    if (posts)
        outr_loop_post(k->loop, &k->changed);
}

static void recall(kept *k, outr_resolve *req)
{
    char key[512];
    outr_str rest = OUTR_STR_NONE, one, labels;
    req->count = 0;
    if (!key_of(key, req))
        return;
    pthread_mutex_lock(&k->lock);
    const entry *e = outr_map_get(k->entries, outr_str_from(key));
    if (e)
        rest = outr_arena_str(req->arena, outr_str_from(e->addresses));
    pthread_mutex_unlock(&k->lock);
    size_t count = 1;
    for (size_t i = 0; i < rest.n; i++)
        count += rest.p[i] == ' ';
    req->instances = outr_arena_alloc(req->arena, count * sizeof *req->instances);
    while (rest.p && req->count < count) {
        rest = outr_str_cut(rest, ' ', &one);
        labels = outr_str_cut(one, ';', &one);
        outr_instance *i = &req->instances[req->count];
        *i = (outr_instance){.id = one};
        outr_labels_parse(&i->labels, req->arena, labels, NULL);
        if (outr_addr_parse(&i->addr, one, NULL) == OUTR_OK)
            req->count++;
    }
}

/* Behind close the last answer, whichever loop it comes to, has the main loop make an end of it; it
 * counts until it is heard there. */
static void let_go(kept *k)
{
    pthread_mutex_lock(&k->lock);
    bool is_last = k->is_over && k->asked == 1;
    k->asked -= !is_last;
    pthread_mutex_unlock(&k->lock);
    if (is_last)
        outr_loop_post(k->loop, &k->gone);
}

static void on_answer(outr_op *inner)
{
    question *q = OUTR_CONTAINER(inner, question, inner);
    outr_err err = inner->err;
    if (!err.code && q->req->count > 0)
        remember(q->k, q->req);
    else if (err.code && err.code != OUTR_NOT_FOUND && !outr_op_is_cancelled(q->op))
        recall(q->k, q->req);
    let_go(q->k);
    if (err.code && q->req->count == 0)
        outr_op_fail(q->op, &err);
    else
        outr_op_finish(q->op);
}

static void on_cancel(outr_op *op)
{
    question *q = op->impl;
    outr_op_cancel(&q->inner, op->err.code);
}

static void resolve(outr_resolver *base, outr_resolve *req, outr_op *op)
{
    kept *k = of(base);
    question *q = outr_arena_alloc(req->arena, sizeof *q);
    *q = (question){.k = k, .req = req, .op = op};
    pthread_mutex_lock(&k->lock);
    k->asked++;
    pthread_mutex_unlock(&k->lock);
    outr_op_begin(op, q, on_cancel);
    outr_op_init(&q->inner, op->loop, op, 0, on_answer);
    k->inner->backend->resolve(k->inner, req, &q->inner);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void open_resolver(outr_resolver *base, outr_op *op)
{
    of(base)->inner->backend->open(of(base)->inner, op);
}

static void join(outr_resolver *base, const outr_self *self, outr_op *op)
{
    of(base)->inner->backend->join(of(base)->inner, self, op);
}

static void save_if_dirty(kept *k)
{
    pthread_mutex_lock(&k->lock);
    bool is_dirty = k->is_dirty;
    pthread_mutex_unlock(&k->lock);
    if (is_dirty)
        save(k);
}

/* Main loop. */
static void end_if_over(kept *k)
{
    void *item;
    pthread_mutex_lock(&k->lock);
    bool is_over = k->is_over && k->asked == 0;
    pthread_mutex_unlock(&k->lock);
    if (!is_over || outr_op_is_pending(&k->saving))
        return;
    save_if_dirty(k);
    for (size_t at = 0; outr_map_next(k->entries, &at, NULL, &item);) {
        free(((entry *)item)->addresses);
        free(item);
    }
    outr_map_free(k->entries);
    pthread_mutex_destroy(&k->lock);
    free(k->path);
    free(k);
}

/* Behind all that other loops have posted; what the worker has in hand is done then, and its word
 * of that on its way. */
static void on_gone(outr_message *message, outr_loop *loop)
{
    kept *k = OUTR_CONTAINER(message, kept, gone);
    bool was_over = k->is_over; /* then this is the last answer's */
    outr_timer_stop(loop, &k->saver);
    if (!was_over)
        outr_worker_close(k->worker);
    pthread_mutex_lock(&k->lock);
    k->is_over = true;
    k->asked -= was_over;
    pthread_mutex_unlock(&k->lock);
    save_if_dirty(k); /* an answer may not come any more */
    end_if_over(k);
}

static void close_resolver(outr_resolver *base, outr_op *op)
{
    kept *k = of(base);
    outr_resolver *inner = k->inner;
    outr_loop_post(k->loop, &k->gone);
    inner->backend->close(inner, op);
}

outr_code outr_kept_new(outr_resolver **out, outr_resolver *own_resolver,
                        const outr_kept_options *options, outr_err *err)
{
    kept *k = outr_alloc(sizeof *k);
    const outr_worker_options worker = {.name = "outr-kept", .handle = handle, .ctx = k};
    outr_code rc = outr_worker_open(&k->worker, &worker, err);
    if (rc) {
        free(k);
        return rc;
    }
    k->backend = *own_resolver->backend;
    k->backend.open = open_resolver;
    k->backend.close = close_resolver;
    k->backend.join = join;
    k->backend.resolve = resolve;
    k->base.backend = &k->backend;
    k->base.watchers = own_resolver->watchers;
    k->inner = own_resolver;
    k->loop = options->loop;
    k->log = options->log ? *options->log : (outr_log){0};
    k->path = outr_strdup(options->path);
    k->entries = outr_map_new();
    k->changed.run = on_changed;
    k->gone.run = on_gone;
    k->saver.fire = on_save_time;
    pthread_mutex_init(&k->lock, NULL);
    load(k);
    *out = &k->base;
    return OUTR_OK;
}
