#include "base/json.h"
#include "components/state/redis/store.h"

/* Reading: one HMGET for each key in one pipeline, or JSON.GET. A key that is a text, written by
 * something else, is its own value and has no etag; it is found out by the server's refusal. */

typedef struct reading {
    outr__rstore *store;
    outr_state_get *req;
    bool is_json;
    outr_redis_call call;
    outr_state_item **texts; /* those that are to be read as texts */
    size_t text_count;
    outr_op inner;
    outr_op *op;
} reading;

static void on_cancel(outr_op *op)
{
    reading *r = op->impl;
    outr_op_cancel(&r->inner, op->err.code);
}

static void end(reading *r, const outr_err *err)
{
    if (err)
        outr_op_fail(r->op, err);
    else
        outr_op_finish(r->op);
}

static bool is_wrong_type(const outr_redis_reply *reply)
{
    return reply->kind == OUTR_REDIS_ERROR && outr_str_starts(reply->text, OUTR_STR("WRONGTYPE"));
}

static void take_hash(outr_state_item *item, const outr_redis_reply *reply)
{
    if (outr_redis_check(reply, &item->err))
        return;
    if (reply->kind != OUTR_REDIS_ARRAY || reply->count != 2) {
        outr_fail(&item->err, OUTR_INTERNAL, "the server's answer to HMGET is none");
        return;
    }
    const outr_redis_reply *data = &reply->items[0], *version = &reply->items[1];
    if (data->kind == OUTR_REDIS_NIL && version->kind == OUTR_REDIS_NIL)
        return;
    if (data->kind == OUTR_REDIS_NIL || version->kind == OUTR_REDIS_NIL) {
        outr_fail(&item->err, OUTR_INTERNAL,
                  "required hash field 'data' or 'version' was not found");
        return;
    }
    item->is_found = true;
    item->value = data->text;
    item->etag = version->text;
}

static void take_document(outr_state_item *item, const outr_redis_reply *reply, outr_arena *arena)
{
    outr_json *document;
    if (outr_redis_check(reply, &item->err) || reply->kind == OUTR_REDIS_NIL)
        return;
    if (outr_json_parse(&document, arena, reply->text, &item->err))
        return;
    const outr_json *data = outr_json_find(document, "data"),
                    *version = outr_json_find(document, "version");
    item->is_found = true;
    item->value = data ? data->raw : OUTR_STR("null");
    if (version && version->kind == OUTR_JSON_NUMBER)
        item->etag = version->text;
}

static void on_texts(outr_op *inner)
{
    reading *r = OUTR_CONTAINER(inner, reading, inner);
    outr_err err = inner->err;
    for (size_t i = 0; !err.code && i < r->text_count; i++) {
        outr_state_item *item = r->texts[i];
        const outr_redis_reply *reply = &r->call.replies[i];
        if (outr_redis_check(reply, &item->err) || reply->kind == OUTR_REDIS_NIL)
            continue;
        item->is_found = true;
        item->value = reply->text;
    }
    end(r, err.code ? &err : NULL);
}

static void read_texts(reading *r)
{
    outr_arena *arena = r->req->arena;
    outr_redis_command *commands = outr_arena_alloc(arena, (r->text_count + 1) * sizeof *commands);
    for (size_t i = 0; i < r->text_count; i++) {
        outr_str key = r->texts[i]->key;
        commands[i] = outr_redis_command_of(arena, key, 2, (outr_str[]){OUTR_STR("GET"), key});
    }
    r->call = (outr_redis_call){
        .arena = arena, .commands = commands, .count = r->text_count, .is_repeatable = true};
    outr_op_init(&r->inner, r->op->loop, r->op, 0, on_texts);
    outr_redis_call_start(r->store->redis, &r->call, &r->inner);
}

static void on_read(outr_op *inner)
{
    reading *r = OUTR_CONTAINER(inner, reading, inner);
    outr_state_get *req = r->req;
    outr_err err = inner->err;
    if (err.code) {
        end(r, &err);
        return;
    }
    for (size_t i = 0; i < req->count; i++) {
        const outr_redis_reply *reply = &r->call.replies[i];
        if (r->is_json) {
            take_document(&req->items[i], reply, req->arena);
            continue;
        }
        if (!is_wrong_type(reply)) {
            take_hash(&req->items[i], reply);
            continue;
        }
        if (!r->texts)
            r->texts = outr_arena_alloc(req->arena, req->count * sizeof(outr_state_item *));
        r->texts[r->text_count++] = &req->items[i];
    }
    if (r->text_count > 0)
        read_texts(r);
    else
        end(r, NULL);
}

void outr__rstore_get(outr_state_store *base, outr_state_get *req, outr_op *op)
{
    outr__rstore *st = outr__rstore_of(base);
    outr_arena *arena = req->arena;
    outr_err err;
    reading *r = outr_arena_alloc(arena, sizeof *r);
    *r = (reading){
        .store = st, .req = req, .is_json = outr__rstore_is_json(st, req->metadata), .op = op};
    outr_op_begin(op, r, on_cancel);
    outr_redis_command *commands = outr_arena_try(arena, (req->count + 1) * sizeof *commands);
    if (!commands) {
        outr_fail(&err, OUTR_RESOURCE_EXHAUSTED, "too many keys for one request");
        outr_op_fail_soon(op, &err);
        return;
    }
    for (size_t i = 0; i < req->count; i++) {
        outr_str key = req->items[i].key;
        commands[i] =
            r->is_json
                ? outr_redis_command_of(arena, key, 2, (outr_str[]){OUTR_STR("JSON.GET"), key})
                : outr_redis_command_of(arena, key, 4,
                                        (outr_str[]){OUTR_STR("HMGET"), key, OUTR_STR("data"),
                                                     OUTR_STR("version")});
    }
    r->call = (outr_redis_call){
        .arena = arena, .commands = commands, .count = req->count, .is_repeatable = true};
    outr_op_init(&r->inner, op->loop, op, 0, on_read);
    outr_redis_call_start(st->redis, &r->call, &r->inner);
}
