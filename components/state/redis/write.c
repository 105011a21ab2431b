#include "components/state/redis/store.h"

/* Writing: a run of the script for each item, all in one pipeline, or one run for a transaction.
 * The script is named by its digest; a server that has forgotten it is sent the text. */

#define PARTS      6 /* arguments of an operation */
#define WAIT_MS    "1000"
#define WAIT_NS    (1000 * OUTR_MS)
#define ETAG_TEXT  "possible etag mismatch. error from state store"

typedef struct writing {
    outr__rstore *store;
    outr_state_writes *req;
    outr_redis_call call;
    outr_redis_line *line; /* of strong writes that wait for replicas */
    size_t runs;           /* of the script; WAIT may follow */
    size_t *resent; /* which runs the second call has; NULL: there was none */
    outr_redis_reply *replies;
    outr_op inner;
    outr_op *op;
} writing;

static void on_cancel(outr_op *op)
{
    writing *w = op->impl;
    outr_op_cancel(&w->inner, op->err.code);
}

static void end(writing *w, const outr_err *err)
{
    outr_redis_line_give_back(w->line);
    if (err)
        outr_op_fail(w->op, err);
    else
        outr_op_finish(w->op);
}

/* ---- the request ----------------------------------------------------------------------------- */

/* As strconv.Atoi reads it; "0" and nothing are no etag. */
static outr_code read_etag(const outr_state_write *w, outr_arena *arena, outr_str *out,
                           outr_err *err)
{
    int64_t number;
    *out = OUTR_STR("");
    if (!w->has_etag || w->etag.n == 0)
        return OUTR_OK;
    if (w->kind == OUTR_STATE_DELETE) {
        if (!outr_str_is(w->etag, "0"))
            *out = w->etag; /* what is no number fits no key */
        return OUTR_OK;
    }
    outr_str digits = w->etag.p[0] == '+' ? outr_str_skip(w->etag, 1) : w->etag;
    if (!outr_str_to_i64(digits, INT64_MIN, INT64_MAX, &number))
        return outr_fail(err, OUTR_INVALID_ARGUMENT,
                         "invalid etag value: \"" OUTR_FMT "\" is not a whole number",
                         OUTR_ARG(w->etag));
    if (number != 0)
        *out = outr_arena_printf(arena, "%lld", (long long)number);
    return OUTR_OK;
}

static outr_code read_ttl(const outr__rstore *st, const outr_state_write *w,
                          outr_arena *arena, outr_str *out, outr_err *err)
{
    const outr_kv *kv = outr_kvs_find(w->metadata, "ttlInSeconds");
    int64_t ttl = st->ttl_s;
    *out = OUTR_STR("");
    if (w->kind == OUTR_STATE_DELETE)
        return OUTR_OK;
    bool is_given = kv && kv->value.n > 0;
    if (is_given && !outr_str_to_i64(kv->value, INT32_MIN, INT32_MAX, &ttl))
        return outr_fail(err, OUTR_INTERNAL,
                         "failed to parse ttl from metadata: \"" OUTR_FMT
                         "\" is not a whole number",
                         OUTR_ARG(kv->value));
    if (is_given || st->ttl_s > 0)
        *out = outr_arena_printf(arena, "%lld", (long long)ttl);
    return OUTR_OK;
}

/* The operation's arguments of the script. */
static outr_code put_args(const writing *w, const outr_state_write *item, outr_str *out,
                          outr_err *err)
{
    outr_arena *arena = w->req->arena;
    bool is_json = outr__rstore_is_json(w->store, item->metadata);
    out[0] = item->kind == OUTR_STATE_DELETE ? OUTR_STR("d") : OUTR_STR("s");
    out[1] = is_json ? OUTR_STR("j") : OUTR_STR("h");
    if (read_etag(item, arena, &out[2], err) || read_ttl(w->store, item, arena, &out[5], err))
        return err->code;
    out[3] = item->kind == OUTR_STATE_DELETE ? OUTR_STR("")
             : is_json ? outr_arena_join(arena, OUTR_STR("{\"data\":"), item->value, OUTR_STR("}"))
                       : item->value;
    out[4] = item->concurrency != OUTR_FIRST_WRITE ? OUTR_STR("")
             : w->req->is_atomic                   ? OUTR_STR("f") /* as daprd: no mark */
                                                   : OUTR_STR("m");
    return OUTR_OK;
}

static outr_str *start_args(const writing *w, size_t keys)
{
    outr_str *args = outr_arena_try(w->req->arena, (3 + keys * (PARTS + 1)) * sizeof *args);
    if (!args)
        return NULL;
    args[0] = OUTR_STR("EVALSHA");
    args[1] = outr_str_from(w->store->sha);
    args[2] = outr_arena_printf(w->req->arena, "%zu", keys);
    return args;
}

static outr_code too_many(outr_err *err)
{
    return outr_fail(err, OUTR_RESOURCE_EXHAUSTED, "too many items for one request");
}

static outr_code make_transaction(writing *w, outr_redis_command *out, outr_err *err)
{
    size_t n = w->req->count;
    outr_str *args = start_args(w, n);
    if (!args)
        return too_many(err);
    for (size_t i = 0; i < n; i++) {
        args[3 + i] = w->req->items[i].key;
        if (put_args(w, &w->req->items[i], args + 3 + n + i * PARTS, err))
            return err->code;
    }
    *out = (outr_redis_command){args, 3 + n * (PARTS + 1), w->req->items[0].key};
    return OUTR_OK;
}

static outr_code make_run(writing *w, size_t i, outr_redis_command *out, outr_err *err)
{
    const outr_state_write *item = &w->req->items[i];
    outr_str *args = start_args(w, 1);
    if (!args)
        return too_many(err);
    args[3] = item->key;
    if (put_args(w, item, args + 4, err))
        return err->code;
    *out = (outr_redis_command){args, 4 + PARTS, item->key};
    return OUTR_OK;
}

/* ---- the answer ------------------------------------------------------------------------------ */

static outr_code read_run(const writing *w, size_t i, outr_err *err)
{
    const outr_redis_reply *reply = &w->replies[i];
    outr_code rc = outr_redis_check(reply, err);
    if (rc || reply->integer == 0)
        return rc;
    size_t at = w->req->is_atomic ? (size_t)(reply->integer / 4) - 1 : i;
    if (at >= w->req->count)
        return outr_fail(err, OUTR_INTERNAL, "the server's answer to the script is none");
    const outr_state_write *item = &w->req->items[at];
    const char *verb = item->kind == OUTR_STATE_DELETE ? "delete" : "set key";
    if (reply->integer % 4 == 3)
        return outr_fail(err, OUTR_INTERNAL,
                         "failed to set key " OUTR_FMT
                         ": it was created by a first write and is changed by its etag only",
                         OUTR_ARG(item->key));
    return outr_fail(err, OUTR_ABORTED, ETAG_TEXT ": failed to %s " OUTR_FMT, verb,
                     OUTR_ARG(item->key));
}

static void start(writing *w);

static bool is_forgotten(const outr_redis_reply *reply)
{
    return reply->kind == OUTR_REDIS_ERROR && outr_str_starts(reply->text, OUTR_STR("NOSCRIPT"));
}

/* Those runs again with the script's text: nothing of them has been done. False: there are none. */
static bool resend(writing *w)
{
    outr_arena *arena = w->req->arena;
    const outr_redis_command *before = w->call.commands;
    size_t n = 0;
    for (size_t i = 0; i < w->runs; i++)
        n += is_forgotten(&w->replies[i]);
    if (n == 0 || w->resent)
        return false;
    w->resent = outr_arena_alloc(arena, n * sizeof *w->resent);
    outr_redis_command *commands = outr_arena_alloc(arena, (n + 1) * sizeof *commands);
    size_t at = 0;
    for (size_t i = 0; i < w->runs; i++) {
        if (!is_forgotten(&w->replies[i]))
            continue;
        outr_str *args = (outr_str *)(uintptr_t)before[i].args; /* made by us, on our arena */
        args[0] = OUTR_STR("EVAL");
        args[1] = outr_str_from(outr__rstore_script);
        commands[at] = before[i];
        w->resent[at++] = i;
    }
    if (w->line)
        commands[n] = before[w->runs]; /* WAIT */
    w->call = (outr_redis_call){.arena = arena,
                                .commands = commands,
                                .count = n + (w->line != NULL),
                                .is_repeatable = w->call.is_repeatable,
                                .wait_ns = w->call.wait_ns};
    start(w);
    return true;
}

static void on_done(outr_op *inner)
{
    writing *w = OUTR_CONTAINER(inner, writing, inner);
    outr_err err = inner->err;
    if (err.code) {
        end(w, &err);
        return;
    }
    if (!w->replies)
        w->replies = w->call.replies;
    for (size_t i = 0; w->resent && i + (w->line != NULL) < w->call.count; i++)
        w->replies[w->resent[i]] = w->call.replies[i];
    if (resend(w))
        return;
    for (size_t i = 0; i < w->runs && !err.code; i++)
        read_run(w, i, &err);
    if (!err.code && w->line && outr_redis_check(&w->call.replies[w->call.count - 1], &err))
        outr_wrap(&err, "redis waiting for %lld replicas to acknowledge write",
                  (long long)w->store->replicas);
    end(w, err.code ? &err : NULL);
}

static void start(writing *w)
{
    outr_op_init(&w->inner, w->op->loop, w->op, 0, on_done);
    if (w->line)
        outr_redis_line_start(w->line, &w->call, &w->inner);
    else
        outr_redis_call_start(w->store->redis, &w->call, &w->inner);
}

/* What is saved without conditions, once more when a connection broke, is saved. */
static bool is_repeatable(const outr_state_writes *req)
{
    for (size_t i = 0; i < req->count; i++) {
        const outr_state_write *item = &req->items[i];
        if ((item->has_etag && item->etag.n > 0) || item->concurrency == OUTR_FIRST_WRITE)
            return false;
    }
    return !req->is_atomic || req->count == 1;
}

static bool is_strong(const writing *w)
{
    bool is = false;
    for (size_t i = 0; i < w->req->count; i++)
        is |= w->req->items[i].consistency == OUTR_STRONG;
    return is && w->store->replicas > 0;
}

static outr_code prepare(writing *w, outr_err *err)
{
    outr_state_writes *req = w->req;
    outr_code rc = OUTR_OK;
    w->runs = req->is_atomic ? 1 : req->count;
    outr_redis_command *commands =
        outr_arena_try(req->arena, (w->runs + 1) * sizeof *commands);
    if (!commands)
        return too_many(err);
    if (req->is_atomic)
        rc = make_transaction(w, commands, err);
    for (size_t i = 0; !rc && !req->is_atomic && i < w->runs; i++)
        rc = make_run(w, i, &commands[i], err);
    if (rc)
        return rc;
    w->call = (outr_redis_call){.arena = req->arena,
                                .commands = commands,
                                .count = w->runs,
                                .is_repeatable = is_repeatable(req)};
    if (!is_strong(w))
        return OUTR_OK;
    /* WAIT is about what its connection wrote, and holds that connection up: so it has its own. */
    outr_str replicas =
        outr_arena_printf(req->arena, "%lld", (long long)w->store->replicas);
    commands[w->call.count++] = outr_redis_command_of(
        req->arena, req->items[0].key, 3, (outr_str[]){OUTR_STR("WAIT"), replicas,
                                                       OUTR_STR(WAIT_MS)});
    w->call.wait_ns = WAIT_NS;
    w->line = outr_redis_line_borrow(w->store->redis, w->op->loop, req->items[0].key);
    return OUTR_OK;
}

void outr__rstore_write(outr_state_store *base, outr_state_writes *req, outr_op *op)
{
    outr_err err;
    writing *w = outr_arena_alloc(req->arena, sizeof *w);
    *w = (writing){.store = outr__rstore_of(base), .req = req, .op = op};
    outr_op_begin(op, w, on_cancel);
    if (prepare(w, &err)) {
        outr_op_fail_soon(op, &err);
        return;
    }
    start(w);
}
