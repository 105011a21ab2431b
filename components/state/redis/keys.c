#include "components/state/redis/store.h"

/* Keys by their beginning: SCAN with a pattern, a step at a time, so that the server answers others
 * in between. A page of keys has what the steps brought until it was full. */

#define STEP      "1000"
#define STEPS_MAX 100 /* of one page: it may be short, or empty, and still have a next one */
#define STEP_BYTES (16 * OUTR_MIB)

typedef struct walk {
    outr__rstore *store;
    outr_state_keys *keys; /* one of the two */
    outr_state_drop *drop;
    outr_arena *arena; /* of the walk, reset with each step of drop */
    outr_str pattern;  /* in its own memory */
    char cursor[24];
    size_t steps, max; /* keys: room in them */
    outr_redis_call call;
    outr_op inner;
    outr_op *op;
} walk;

static void on_cancel(outr_op *op)
{
    walk *w = op->impl;
    outr_op_cancel(&w->inner, op->err.code);
}

static void end(walk *w, const outr_err *err)
{
    outr_op *op = w->op;
    outr_err copy = err ? *err : (outr_err){0};
    outr_arena_free(w->arena);
    free((void *)(uintptr_t)w->pattern.p);
    free(w);
    if (copy.code)
        outr_op_fail(op, &copy);
    else
        outr_op_finish(op);
}

/* What is no letter of a pattern stands for itself. */
static outr_str make_pattern(outr_str prefix)
{
    char *text = outr_alloc(2 * prefix.n + 2);
    size_t n = 0;
    for (size_t i = 0; i < prefix.n; i++) {
        if (strchr("*?[]\\^-", prefix.p[i]) && prefix.p[i])
            text[n++] = '\\';
        text[n++] = prefix.p[i];
    }
    text[n++] = '*';
    return outr_str_of(text, n);
}

static void step(walk *w);

static void on_dropped(outr_op *inner)
{
    walk *w = OUTR_CONTAINER(inner, walk, inner);
    outr_err err = inner->err;
    if (!err.code)
        outr_redis_check(w->call.replies, &err);
    if (err.code) {
        end(w, &err);
        return;
    }
    w->drop->deleted += (uint64_t)w->call.replies->integer;
    if (strcmp(w->cursor, "0") == 0)
        end(w, NULL);
    else
        step(w);
}

static void drop_found(walk *w, const outr_redis_reply *found)
{
    outr_str *args = outr_arena_alloc(w->arena, (found->count + 1) * sizeof *args);
    args[0] = OUTR_STR("UNLINK");
    for (size_t i = 0; i < found->count; i++)
        args[i + 1] = found->items[i].text;
    outr_redis_call_of(&w->call, w->arena, OUTR_STR_NONE, found->count + 1, args);
    outr_op_init(&w->inner, w->op->loop, w->op, 0, on_dropped);
    outr_redis_call_start(w->store->redis, &w->call, &w->inner);
}

static outr_code add_found(walk *w, const outr_redis_reply *found, outr_err *err)
{
    outr_state_keys *req = w->keys;
    if (req->count + found->count > w->max) {
        size_t max = req->count + found->count + req->limit;
        outr_str *keys = outr_arena_try(req->arena, max * sizeof *keys);
        if (!keys)
            return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "too many keys for one answer");
        if (req->count > 0)
            memcpy(keys, req->keys, req->count * sizeof *keys);
        req->keys = keys;
        w->max = max;
    }
    for (size_t i = 0; i < found->count; i++)
        req->keys[req->count++] = outr_arena_str(req->arena, found->items[i].text);
    return OUTR_OK;
}

static void on_step(outr_op *inner)
{
    walk *w = OUTR_CONTAINER(inner, walk, inner);
    const outr_redis_reply *reply = w->call.replies;
    outr_err err = inner->err;
    if (!err.code && !outr_redis_check(reply, &err) &&
        (reply->kind != OUTR_REDIS_ARRAY || reply->count != 2))
        outr_fail(&err, OUTR_INTERNAL, "the server's answer to SCAN is none");
    if (err.code) {
        end(w, &err);
        return;
    }
    const outr_redis_reply *found = &reply->items[1];
    snprintf(w->cursor, sizeof w->cursor, OUTR_FMT, OUTR_ARG(reply->items[0].text));
    bool is_last = strcmp(w->cursor, "0") == 0;
    if (w->drop && found->count > 0) {
        drop_found(w, found);
        return;
    }
    if (w->keys && add_found(w, found, &err)) {
        end(w, &err);
        return;
    }
    if (!is_last && !(w->keys && (w->keys->count >= w->keys->limit || w->steps >= STEPS_MAX))) {
        step(w);
        return;
    }
    if (!is_last)
        w->keys->next = outr_arena_str(w->keys->arena, outr_str_from(w->cursor));
    end(w, NULL);
}

static void step(walk *w)
{
    outr_arena_reset(w->arena);
    w->steps++;
    outr_redis_call_of(&w->call, w->arena, OUTR_STR_NONE, 6,
                       (outr_str[]){OUTR_STR("SCAN"), outr_str_from(w->cursor), OUTR_STR("MATCH"),
                                    w->pattern, OUTR_STR("COUNT"), OUTR_STR(STEP)});
    outr_op_init(&w->inner, w->op->loop, w->op, 0, on_step);
    outr_redis_call_start(w->store->redis, &w->call, &w->inner);
}

static void start(outr_state_store *base, outr_state_keys *keys, outr_state_drop *drop,
                  outr_str after, outr_op *op)
{
    outr__rstore *st = outr__rstore_of(base);
    outr_err err;
    uint64_t cursor = 0;
    if (outr_redis_is_cluster(st->redis))
        outr_fail(&err, OUTR_UNIMPLEMENTED, "a cluster has no walk over all its keys");
    else if (after.n > 0 && !outr_str_to_u64(after, UINT64_MAX, &cursor))
        outr_fail(&err, OUTR_INVALID_ARGUMENT, "the page token is none of this store");
    else
        outr_err_clear(&err);
    if (err.code) {
        outr_op_begin(op, NULL, NULL);
        outr_op_fail_soon(op, &err);
        return;
    }
    walk *w = outr_alloc(sizeof *w);
    *w = (walk){.store = st, .keys = keys, .drop = drop, .op = op};
    outr_op_begin(op, w, on_cancel);
    w->arena = outr_arena_new(STEP_BYTES);
    w->pattern = make_pattern(keys ? keys->prefix : drop->prefix);
    snprintf(w->cursor, sizeof w->cursor, "%llu", (unsigned long long)cursor);
    step(w);
}

void outr__rstore_keys(outr_state_store *base, outr_state_keys *req, outr_op *op)
{
    start(base, req, NULL, req->after, op);
}

void outr__rstore_drop(outr_state_store *base, outr_state_drop *req, outr_op *op)
{
    start(base, NULL, req, OUTR_STR_NONE, op);
}
