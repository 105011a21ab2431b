#include <limits.h>

#include "components/common/redis/internal.h"

/* ---- what hiredis' reader makes -------------------------------------------------------------- */

/* Stands for a reply that nobody wants any more; its children are not looked at. */
static const outr_redis_reply nothing_;
#define NOTHING ((void *)&nothing_)

/* Where it goes; NULL: nowhere. A call may leave while its reply comes in pieces: then what was
 * begun lies on an arena that is gone, and nothing of it is touched any more. */
static outr_redis_reply *place(const redisReadTask *task)
{
    outr__redis_conn *c = task->privdata;
    c->has_begun = true;
    if (!c->into_arena)
        return NULL;
    if (!task->parent)
        return c->into;
    return &((outr_redis_reply *)task->parent->obj)->items[task->idx];
}

static void *room(const redisReadTask *task, size_t n)
{
    outr__redis_conn *c = task->privdata;
    void *p = outr_arena_try(c->into_arena, n);
    if (!p) {
        c->is_over_cap = true;
        c->into_arena = NULL;
    }
    return p;
}

static void *make_text(const redisReadTask *task, char *p, size_t n)
{
    outr_redis_reply *r = place(task);
    char *copy = r ? room(task, n + 1) : NULL;
    if (!copy)
        return NOTHING;
    memcpy(copy, p, n);
    *r = (outr_redis_reply){.kind = task->type == REDIS_REPLY_STATUS  ? OUTR_REDIS_STATUS
                                    : task->type == REDIS_REPLY_ERROR ? OUTR_REDIS_ERROR
                                                                      : OUTR_REDIS_STRING,
                            .text = outr_str_of(copy, n)};
    return r;
}

static void *make_array(const redisReadTask *task, int count)
{
    outr_redis_reply *r = place(task), *items = NULL;
    if (r && count > 0 && !(items = room(task, (size_t)count * sizeof *items)))
        return NOTHING;
    if (!r)
        return NOTHING;
    *r = (outr_redis_reply){.kind = OUTR_REDIS_ARRAY, .items = items, .count = (size_t)count};
    return r;
}

static void *make_integer(const redisReadTask *task, long long value)
{
    outr_redis_reply *r = place(task);
    if (!r)
        return NOTHING;
    *r = (outr_redis_reply){.kind = OUTR_REDIS_INTEGER, .integer = value};
    return r;
}

static void *make_nil(const redisReadTask *task)
{
    outr_redis_reply *r = place(task);
    if (!r)
        return NOTHING;
    *r = (outr_redis_reply){.kind = OUTR_REDIS_NIL};
    return r;
}

static void free_nothing(void *reply OUTR_UNUSED)
{
}

redisReader *outr__redis_reader_new(outr__redis_conn *c)
{
    static redisReplyObjectFunctions functions = {make_text, make_array, make_integer, make_nil,
                                                  free_nothing}; /* never changed */
    redisReader *reader = redisReaderCreateWithFunctions(&functions);
    if (!reader)
        abort();
    reader->privdata = c;
    return reader;
}

/* ---- commands -------------------------------------------------------------------------------- */

#define SMALL 4096 /* a command of this size is copied in one piece */

static char *put_head(char *to, char kind, size_t n)
{
    char digits[20];
    outr_str text = outr_str_decimal(digits, n);
    *to++ = kind;
    memcpy(to, text.p, text.n);
    to += text.n;
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

/* Into room for it. */
static char *put_args(char *to, const outr_str *args, size_t count)
{
    to = put_head(to, '*', count);
    for (size_t i = 0; i < count; i++) {
        to = put_head(to, '$', args[i].n);
        if (args[i].n)
            memcpy(to, args[i].p, args[i].n);
        to += args[i].n;
        *to++ = '\r';
        *to++ = '\n';
    }
    return to;
}

void outr__redis_write(outr_bufq *out, const outr_str *args, size_t count)
{
    enum { HEAD = 23 }; /* a kind, twenty digits, CR LF */
    size_t bytes = HEAD;
    for (size_t i = 0; i < count; i++)
        bytes += HEAD + args[i].n + 2;
    if (bytes <= SMALL) {
        char text[SMALL];
        outr_bufq_copy(out, text, (size_t)(put_args(text, args, count) - text));
        return;
    }
    char head[HEAD];
    outr_bufq_copy(out, head, (size_t)(put_head(head, '*', count) - head));
    for (size_t i = 0; i < count; i++) {
        outr_bufq_copy(out, head, (size_t)(put_head(head, '$', args[i].n) - head));
        outr_bufq_copy(out, args[i].p, args[i].n);
        outr_bufq_copy(out, "\r\n", 2);
    }
}

outr_redis_command outr_redis_command_of(outr_arena *arena, outr_str key, size_t count,
                                         const outr_str *args)
{
    outr_str *copy = outr_arena_alloc(arena, count * sizeof *copy);
    memcpy(copy, args, count * sizeof *copy);
    return (outr_redis_command){copy, count, key};
}

void outr_redis_call_of(outr_redis_call *call, outr_arena *arena, outr_str key, size_t count,
                        const outr_str *args)
{
    outr_redis_command *command = outr_arena_alloc(arena, sizeof *command);
    *command = outr_redis_command_of(arena, key, count, args);
    *call = (outr_redis_call){
        .arena = arena, .commands = command, .count = 1, .is_repeatable = true};
}

/* ---- errors ---------------------------------------------------------------------------------- */

outr_code outr_redis_check(const outr_redis_reply *reply, outr_err *err)
{
    static const struct {
        const char *word;
        outr_code code;
    } words[] = {
        {"NOAUTH", OUTR_UNAUTHENTICATED},     {"WRONGPASS", OUTR_UNAUTHENTICATED},
        {"NOPERM", OUTR_PERMISSION_DENIED},   {"OOM", OUTR_RESOURCE_EXHAUSTED},
        {"LOADING", OUTR_UNAVAILABLE},        {"READONLY", OUTR_UNAVAILABLE},
        {"MASTERDOWN", OUTR_UNAVAILABLE},     {"CLUSTERDOWN", OUTR_UNAVAILABLE},
        {"TRYAGAIN", OUTR_UNAVAILABLE},       {"MISCONF", OUTR_UNAVAILABLE},
        {"NOREPLICAS", OUTR_UNAVAILABLE},     {"BUSY", OUTR_UNAVAILABLE},
    };
    if (reply->kind != OUTR_REDIS_ERROR)
        return OUTR_OK;
    if (outr_str_starts(reply->text, OUTR_STR("ERR max number of clients"))) /* less some day */
        return outr_fail(err, OUTR_UNAVAILABLE, OUTR_FMT, OUTR_ARG(reply->text));
    outr_str word;
    outr_str_cut(reply->text, ' ', &word);
    for (size_t i = 0; i < OUTR_LEN(words); i++) {
        if (outr_str_is(word, words[i].word))
            return outr_fail(err, words[i].code, OUTR_FMT, OUTR_ARG(reply->text));
    }
    return outr_fail(err, OUTR_INTERNAL, OUTR_FMT, OUTR_ARG(reply->text));
}

outr_code outr_redis_check_all(const outr_redis_call *call, outr_err *err)
{
    for (size_t i = 0; i < call->count; i++) {
        outr_code rc = outr_redis_check(&call->replies[i], err);
        if (rc)
            return rc;
    }
    return OUTR_OK;
}
