#include "components/state/redis/store.h"

/* Members of a share are a hash: member -> "<what it asks for> <until when, in ms of the server>".
 * KEYS: the hash. ARGV: the member, what it asks for, how long it lasts in ms. Returns what the
 * others ask for together, and how many they are. The server's clock is the one they all go by. */
static const char script[] =
    "if redis.replicate_commands then redis.replicate_commands() end\n" /* before 5: TIME */
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local all = redis.call('HGETALL', KEYS[1])\n"
    "local sum, n = 0, 0\n"
    "for i = 1, #all, 2 do\n"
    "  if all[i] ~= ARGV[1] then\n"
    "    local asked, till = string.match(all[i + 1], '^(%S+) (%d+)$')\n"
    "    if not till or tonumber(till) < now then\n"
    "      redis.call('HDEL', KEYS[1], all[i])\n"
    "    else\n"
    "      sum = sum + (tonumber(asked) or 0)\n"
    "      n = n + 1\n"
    "    end\n"
    "  end\n"
    "end\n"
    "redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f', ARGV[2], now + ARGV[3]))\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[3])\n"
    "return {string.format('%.6f', sum), n}\n";

typedef struct sharing {
    outr_state_shares *req;
    outr_redis_call call;
    outr_op inner;
    outr_op *op;
} sharing;

static void on_cancel(outr_op *op)
{
    sharing *s = op->impl;
    outr_op_cancel(&s->inner, op->err.code);
}

static void read_reply(const outr_redis_reply *reply, outr_state_share *out)
{
    double others;
    if (outr_redis_check(reply, &out->err))
        return;
    bool is_pair = reply->kind == OUTR_REDIS_ARRAY && reply->count == 2 &&
                   reply->items[0].kind == OUTR_REDIS_STRING && reply->items[1].integer >= 0;
    if (!is_pair || !outr_str_to_double(reply->items[0].text, &others) || !(others >= 0)) {
        outr_fail(&out->err, OUTR_INTERNAL, "the server's answer to the script is none");
        return;
    }
    out->others = others;
    out->sharers = (uint64_t)reply->items[1].integer;
}

static void on_done(outr_op *inner)
{
    sharing *s = OUTR_CONTAINER(inner, sharing, inner);
    outr_err err = inner->err;
    for (size_t i = 0; !err.code && i < s->req->count; i++) {
        outr_err_clear(&s->req->items[i].err);
        read_reply(&s->call.replies[i], &s->req->items[i]);
    }
    if (err.code)
        outr_op_fail(s->op, &err);
    else
        outr_op_finish(s->op);
}

void outr__rstore_share(outr_state_store *base, outr_state_shares *req, outr_op *op)
{
    outr_arena *arena = req->arena;
    sharing *s = outr_arena_alloc(arena, sizeof *s);
    *s = (sharing){.req = req, .op = op};
    outr_op_begin(op, s, on_cancel);
    outr_str lasts = outr_arena_printf(
        arena, "%llu", (unsigned long long)OUTR_MAX(req->lasts_ns / OUTR_MS, (uint64_t)1));
    outr_redis_command *commands = outr_arena_alloc(arena, req->count * sizeof *commands);
    for (size_t i = 0; i < req->count; i++)
        commands[i] = outr_redis_command_of(
            arena, req->items[i].key, 7,
            (outr_str[]){OUTR_STR("EVAL"), outr_str_from(script), OUTR_STR("1"), req->items[i].key,
                         req->member, outr_arena_printf(arena, "%.6f", req->items[i].asked),
                         lasts});
    s->call = (outr_redis_call){
        .arena = arena, .commands = commands, .count = req->count, .is_repeatable = true};
    outr_op_init(&s->inner, op->loop, op, 0, on_done);
    outr_redis_call_start(outr__rstore_of(base)->redis, &s->call, &s->inner);
}
