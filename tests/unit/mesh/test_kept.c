#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/folder.h"
#include "lib/wire.h"
#include "mesh/kept.h"

/* ---- a registry that is the test ------------------------------------------------------------- */

typedef struct registry {
    outr_resolver base;
    outr_code fails;
    const char *addresses[4], *labels[4];
    size_t count;
    bool is_closed;
    bool takes_its_time; /* the question that came last waits */
    outr_resolve *asked;
    outr_op *asked_op;
} registry;

static void finish(outr_op *op)
{
    outr_op_begin(op, NULL, NULL);
    outr_op_finish_soon(op);
}

static void registry_open(outr_resolver *base, outr_op *op)
{
    (void)base;
    finish(op);
}

static void registry_close(outr_resolver *base, outr_op *op)
{
    OUTR_CONTAINER(base, registry, base)->is_closed = true;
    finish(op);
}

static void answer(const registry *r, outr_resolve *req, outr_op *op)
{
    outr_err err;
    if (r->fails) {
        outr_fail(&err, r->fails, "the registry is away");
        outr_op_fail_soon(op, &err);
        return;
    }
    req->instances = outr_arena_alloc(req->arena, 4 * sizeof *req->instances);
    for (req->count = 0; req->count < r->count; req->count++) {
        outr_instance *out = &req->instances[req->count];
        outr_addr_parse(&out->addr, outr_str_from(r->addresses[req->count]), NULL);
        if (r->labels[req->count])
            outr_labels_parse(&out->labels, req->arena, outr_str_from(r->labels[req->count]), NULL);
    }
    outr_op_finish_soon(op);
}

static void registry_resolve(outr_resolver *base, outr_resolve *req, outr_op *op)
{
    registry *r = OUTR_CONTAINER(base, registry, base);
    outr_op_begin(op, NULL, NULL);
    r->asked = req;
    r->asked_op = op;
    if (!r->takes_its_time)
        answer(r, req, op);
}

static const outr_resolver_backend registry_backend = {
    .open = registry_open, .close = registry_close, .resolve = registry_resolve, .cache_ns = 7};

/* ---- one sidecar's life ---------------------------------------------------------------------- */

typedef struct life {
    wire w;
    registry registry;
    outr_resolver *kept;
    outr_arena *arena;
    outr_op op;
    bool is_done;
    outr_err err;
    char text[512];
} life;

static folder dir;
static char path[600];

static void on_done(outr_op *op)
{
    life *l = OUTR_CONTAINER(op, life, op);
    l->is_done = true;
    l->err = op->err;
}

static void on_late(outr_op *op)
{
    (void)op;
}

static void begin_life(life *l)
{
    *l = (life){.registry.base.backend = &registry_backend};
    wire_init(&l->w, 1);
    l->arena = outr_arena_new(OUTR_MIB);
    assert_int_equal(outr_kept_new(&l->kept, &l->registry.base,
                                   &(outr_kept_options){.loop = l->w.loop, .path = path}, NULL),
                     OUTR_OK);
    assert_int_equal(l->kept->backend->cache_ns, 7);
}

static const char *ask(life *l, const char *app_id)
{
    outr_resolve req = {
        .arena = l->arena, .app_id = outr_str_from(app_id), .namespace_ = OUTR_STR("default")};
    l->is_done = false;
    outr_op_init(&l->op, l->w.loop, NULL, 0, on_done);
    l->kept->backend->resolve(l->kept, &req, &l->op);
    wire_run(&l->w);
    assert_true(l->is_done);
    l->text[0] = 0;
    for (size_t i = 0; i < req.count; i++) {
        char one[OUTR_ADDR_TEXT_MAX];
        outr_addr_text(&req.instances[i].addr, one);
        snprintf(l->text + strlen(l->text), sizeof l->text - strlen(l->text), "%s", one);
        for (size_t j = 0; j < req.instances[i].labels.count; j++)
            snprintf(l->text + strlen(l->text), sizeof l->text - strlen(l->text),
                     ";" OUTR_FMT "=" OUTR_FMT, OUTR_ARG(req.instances[i].labels.items[j].key),
                     OUTR_ARG(req.instances[i].labels.items[j].value));
        strcat(l->text, " ");
    }
    return l->err.code ? outr_code_name(l->err.code) : l->text;
}

static void end_life(life *l)
{
    outr_op_init(&l->op, l->w.loop, NULL, 0, on_done);
    l->kept->backend->close(l->kept, &l->op);
    wire_run(&l->w);
    wire_sleep(&l->w, 1);
    assert_true(l->registry.is_closed);
    outr_arena_free(l->arena);
    wire_done(&l->w);
}

static int open_dir(void **state)
{
    (void)state;
    folder_make(&dir);
    snprintf(path, sizeof path, "%s/known", dir.path);
    return 0;
}

static int close_dir(void **state)
{
    (void)state;
    folder_remove(&dir);
    return 0;
}

static void an_answer_outlives_the_registry_and_the_process(void **state)
{
    life l;
    (void)state;
    begin_life(&l);
    l.registry.fails = OUTR_UNAVAILABLE;
    assert_string_equal(ask(&l, "shop"), "Unavailable");
    l.registry.fails = OUTR_OK;
    l.registry.count = 2;
    l.registry.addresses[0] = "10.0.0.1:50002";
    l.registry.addresses[1] = "[::1]:7";
    assert_string_equal(ask(&l, "shop"), "10.0.0.1:50002 [::1]:7 ");
    l.registry.fails = OUTR_DEADLINE_EXCEEDED;
    assert_string_equal(ask(&l, "shop"), "10.0.0.1:50002 [::1]:7 ");
    assert_string_equal(ask(&l, "other"), "DeadlineExceeded");
    end_life(&l);
    begin_life(&l);
    l.registry.fails = OUTR_UNAVAILABLE;
    assert_string_equal(ask(&l, "shop"), "10.0.0.1:50002 [::1]:7 ");
    l.registry.fails = OUTR_OK; /* it is back, and knows better */
    l.registry.count = 0;
    assert_string_equal(ask(&l, "shop"), "");
    l.registry.count = 1;
    l.registry.addresses[0] = "10.0.0.1:50002";
    assert_string_equal(ask(&l, "shop"), "10.0.0.1:50002 ");
    l.registry.fails = OUTR_UNAVAILABLE;
    assert_string_equal(ask(&l, "shop"), "10.0.0.1:50002 ");
    end_life(&l);
}

static void labels_are_kept_and_a_file_from_before_there_were_any_is_read(void **state)
{
    life l;
    (void)state;
    FILE *file = fopen(path, "w");
    fputs("outrigger-known 1\nshop default 10.0.0.1:50002\n", file);
    fclose(file);
    begin_life(&l);
    l.registry.fails = OUTR_UNAVAILABLE;
    assert_string_equal(ask(&l, "shop"), "10.0.0.1:50002 ");
    l.registry.fails = OUTR_OK;
    l.registry.count = 2;
    l.registry.addresses[0] = "10.0.0.1:50002";
    l.registry.addresses[1] = "10.0.0.2:50002";
    l.registry.labels[0] = "version=2,zone=a";
    ask(&l, "shop");
    end_life(&l);
    begin_life(&l);
    l.registry.fails = OUTR_UNAVAILABLE;
    assert_string_equal(ask(&l, "shop"), "10.0.0.1:50002;version=2;zone=a 10.0.0.2:50002 ");
    end_life(&l);
}

static void what_has_changed_is_on_disk_soon(void **state)
{
    life l;
    (void)state;
    begin_life(&l);
    l.registry.count = 1;
    l.registry.addresses[0] = "10.0.0.1:50002";
    ask(&l, "shop");
    wire_sleep(&l.w, 1);
    assert_int_not_equal(access(path, F_OK), 0);
    wire_sleep(&l.w, 2 * OUTR_SEC);
    while (access(path, F_OK)) /* the worker's thread */
        sched_yield();
    end_life(&l);
}

static void a_file_that_cannot_be_written_leaves_nothing_behind(void **state)
{
    life l;
    unsigned count = 0;
    (void)state;
    mkdir(path, 0700); /* it cannot be replaced by a file */
    begin_life(&l);
    l.registry.count = 1;
    l.registry.addresses[0] = "10.0.0.1:50002";
    ask(&l, "shop");
    end_life(&l);
    DIR *listing = opendir(dir.path);
    for (const struct dirent *e; (e = readdir(listing));)
        count += e->d_name[0] != '.';
    closedir(listing);
    assert_int_equal(count, 1);
    rmdir(path);
}

static void names_do_not_make_lines_and_broken_files_are_none(void **state)
{
    static const char *const files[] = {"", "garbage\nshop default 10.0.0.1:1\n",
                                        "outrigger-known 1\nshop default 10.0.0.1:1",
                                        "outrigger-known 1\nshop\nshop default nonsense\n"};
    life l;
    (void)state;
    begin_life(&l);
    l.registry.count = 1;
    l.registry.addresses[0] = "10.0.0.1:50002";
    ask(&l, "a\nshop default 6.6.6.6:1");
    ask(&l, "a b");
    ask(&l, "");
    l.registry.fails = OUTR_UNAVAILABLE;
    assert_string_equal(ask(&l, "shop"), "Unavailable");
    end_life(&l);
    for (size_t i = 0; i < OUTR_LEN(files); i++) {
        FILE *file = fopen(path, "w");
        fputs(files[i], file);
        fclose(file);
        begin_life(&l);
        l.registry.fails = OUTR_UNAVAILABLE;
        assert_string_equal(ask(&l, "shop"), "Unavailable");
        end_life(&l);
    }
}

static void an_answer_may_come_behind_the_end(void **state)
{
    life l;
    outr_op late;
    outr_code rcs[] = {OUTR_OK, OUTR_UNAVAILABLE};
    (void)state;
    for (size_t i = 0; i < OUTR_LEN(rcs); i++) {
        begin_life(&l);
        outr_resolve req = {
            .arena = l.arena, .app_id = OUTR_STR("shop"), .namespace_ = OUTR_STR("default")};
        l.registry.takes_its_time = true;
        l.registry.fails = rcs[i];
        l.registry.count = 1;
        l.registry.addresses[0] = "10.0.0.1:50002";
        outr_op_init(&late, l.w.loop, NULL, 0, on_late);
        l.kept->backend->resolve(l.kept, &req, &late);
        outr_op_init(&l.op, l.w.loop, NULL, 0, on_done);
        l.kept->backend->close(l.kept, &l.op);
        wire_run(&l.w);
        wire_sleep(&l.w, 1);
        assert_true(l.registry.is_closed);
        answer(&l.registry, l.registry.asked, l.registry.asked_op);
        wire_run(&l.w);
        wire_sleep(&l.w, 3 * OUTR_SEC);
        assert_false(outr_op_is_pending(&late));
        assert_int_equal(req.count, 1); /* known by now, also to the next life */
        outr_arena_free(l.arena);
        wire_done(&l.w);
    }
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, open_dir, close_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(an_answer_outlives_the_registry_and_the_process),
        WITH(labels_are_kept_and_a_file_from_before_there_were_any_is_read),
        WITH(what_has_changed_is_on_disk_soon),
        WITH(a_file_that_cannot_be_written_leaves_nothing_behind),
        WITH(an_answer_may_come_behind_the_end),
        WITH(names_do_not_make_lines_and_broken_files_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
