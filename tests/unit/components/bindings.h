/* bindings - one binding on a wire, for the tests of its back ends. */
#ifndef OUTR_TESTS_BINDINGS_H
#define OUTR_TESTS_BINDINGS_H

#include "components/registry.h"
#include "lib/folder.h"
#include "lib/wire.h"

typedef struct bench {
    wire w;
    folder dir;
    outr_arena *arena;
    outr_kv metadata[8];
    const outr_binding_backend *backend;
    outr_binding *binding;
    outr_op op;
    bool is_done;
    outr_err err;
    outr_binding_invoke req;
} bench;

static void on_done(outr_op *op)
{
    bench *b = OUTR_CONTAINER(op, bench, op);
    b->is_done = true;
    b->err = op->err;
}

static outr_op *begin(bench *b)
{
    b->is_done = false;
    outr_op_init(&b->op, b->w.loop, NULL, 0, on_done);
    return &b->op;
}

/* Threads post their results: no work that the wire sees. */
static outr_code wait(bench *b)
{
    do
        wire_run(&b->w);
    while (!b->is_done);
    return b->err.code;
}

static bench *make_bench(void)
{
    bench *b = outr_alloc(sizeof *b);
    wire_init(&b->w, 1);
    folder_make(&b->dir);
    b->arena = outr_arena_new(256 * OUTR_MIB);
    return b;
}

/* metadata: name, value, ..., NULL. What create or open said. */
static outr_code open_binding(bench *b, const char *type, const char *const *metadata)
{
    size_t count = 0;
    for (; metadata[2 * count]; count++)
        b->metadata[count] =
            (outr_kv){outr_str_from(metadata[2 * count]), outr_str_from(metadata[2 * count + 1])};
    const outr_component_init init = {.name = OUTR_STR("b"),
                                      .type = outr_str_from(type),
                                      .version = OUTR_STR("v1"),
                                      .app_id = OUTR_STR("app"),
                                      .run_dir = outr_str_from(b->dir.path),
                                      .metadata = {b->metadata, count},
                                      .loop = b->w.loop};
    b->backend = outr_registry_binding(outr_str_from(type), OUTR_STR("v1"));
    assert_non_null(b->backend);
    if (b->backend->create(&b->binding, &init, &b->err)) {
        assert_null(b->binding);
        return b->err.code;
    }
    b->backend->open(b->binding, begin(b));
    return wait(b);
}

static void close_bench(bench *b)
{
    outr_arena_free(b->arena);
    if (b->binding) {
        b->backend->close(b->binding, begin(b));
        assert_int_equal(wait(b), OUTR_OK);
    }
    folder_remove(&b->dir);
    wire_done(&b->w);
    free(b);
}

/* metadata: name, value, ..., NULL. */
OUTR_UNUSED static void start_invoke(bench *b, const char *operation, outr_str data,
                         const char *const *metadata)
{
    size_t count = 0;
    while (metadata && metadata[2 * count])
        count++;
    outr_kv *items = outr_arena_alloc(b->arena, (count + 1) * sizeof *items);
    for (size_t i = 0; i < count; i++)
        items[i] = (outr_kv){outr_str_from(metadata[2 * i]), outr_str_from(metadata[2 * i + 1])};
    b->req = (outr_binding_invoke){.arena = b->arena,
                                   .operation = outr_str_from(operation),
                                   .data = data,
                                   .metadata = {items, count}};
    b->backend->invoke(b->binding, &b->req, begin(b));
    assert_false(b->is_done); /* never inside the start */
}

#endif
